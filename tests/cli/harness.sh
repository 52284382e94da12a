# SPDX-License-Identifier: MIT
# Command-line tests. A script sources this file, then for each promise:
#     it 'misspelt_command_gets_the_nearest_name'
#     run sonde trian
#     code 2; err "sonde: no command 'trian'; did you mean 'train'?"; out ''
# It works in an empty directory of its own. Counts are printed as cmocka prints them.
set -u
sonde=${SONDE:?path of the program under test}
source_root=${SONDE_SOURCE:?root of the source tree}
shared_data=$source_root/../shared/data
work=$(mktemp -d "${TMPDIR:-/tmp}/sonde-cli-XXXXXX") || exit 1
trap 'finish' EXIT
cd "$work" || exit 1
# AddressSanitizer's own complaints must not look like one of our exit codes.
export ASAN_OPTIONS=${ASAN_OPTIONS:-exitcode=99:abort_on_error=0:detect_leaks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-exitcode=99:halt_on_error=1:print_stacktrace=1}
n_run=0 n_failed=0 current='' why='' skipped=''

end_case() {
    [ -n "$current" ] || return 0
    n_run=$((n_run + 1))
    if [ -n "$why" ]; then
        n_failed=$((n_failed + 1))
        printf '%s' "$why"
        printf '  stdout: %s\n  stderr: %s\n' "$(head -c 2000 "$work/.out" 2>/dev/null | tr -d '\0')" "$(head -c 2000 "$work/.err" 2>/dev/null | tr -d '\0')"
        echo "[  FAILED  ] $current"
    elif [ -n "$skipped" ]; then
        echo "[  SKIPPED ] $current ($skipped)"
    else
        echo "[       OK ] $current"
    fi
    current=''
}

finish() {
    local status=$?
    end_case
    echo "[==========] $n_run test(s) run."
    cd / && rm -rf "$work"
    [ "$n_failed" = 0 ] || status=1
    exit "$status"
}

it() {
    end_case
    current=$1 why='' skipped='' status=none
    : >"$work/.out"; : >"$work/.err"
    echo "[ RUN      ] $1"
}

skip() { skipped=$1; }
fail() { why="$why  $*"$'\n'; }

# Run a command with its output kept; `sonde` stands for the program under test.
run() {
    if [ "$1" = sonde ]; then shift; set -- "$sonde" "$@"; fi
    "$@" >"$work/.out" 2>"$work/.err" </dev/null
    status=$?
}

# The same with standard input from the first argument, a file.
run_from() {
    local input=$1; shift
    if [ "$1" = sonde ]; then shift; set -- "$sonde" "$@"; fi
    "$@" >"$work/.out" 2>"$work/.err" <"$input"
    status=$?
}

code() { [ "$status" = "$1" ] || fail "exit status is $status, should be $1"; }
same() { [ "$2" = "$3" ] || fail "$1 is '$2', should be '$3'"; }
out() { same stdout "$(cat "$work/.out")" "$1"; }
err() { same stderr "$(cat "$work/.err")" "$1"; }
out_has() { grep -q -- "$1" "$work/.out" || fail "stdout has no line like '$1'"; }
err_has() { grep -q -- "$1" "$work/.err" || fail "stderr has no line like '$1'"; }
err_is_one_line() { [ "$(wc -l <"$work/.err")" = 1 ] || fail "stderr has $(wc -l <"$work/.err") lines, should be one"; }
