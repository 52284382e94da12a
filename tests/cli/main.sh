#!/bin/bash
# SPDX-License-Identifier: MIT
# The program as such: commands, help, version, exit codes.
. "$(dirname "$0")/harness.sh"

it no_command_shows_the_overview_and_is_wrong_use
run sonde; code 2; out ''; err_has 'Usage: sonde COMMAND'

it help_lists_every_command
run sonde --help; code 0; err ''
out_has '^  info '; out_has 'Exit status'
grep -q '^  help' .out && fail 'the hidden command is listed'
cp .out overview; run sonde -h; code 0; out "$(cat overview)"

it version_lists_libraries_and_kernels
run sonde --version; code 0; err ''
for name in sonde OpenBLAS HDF5 jansson PCRE2 utf8proc xxhash kernels:; do out_has "^$name [a-z0-9]"; done

it misspelt_command_gets_the_nearest_name
run sonde inof; code 2; out ''; err "sonde: no command 'inof'; did you mean 'info'?"

it unknown_command_points_to_the_list
run sonde xyzzy; code 2; err "sonde: no command 'xyzzy'; sonde --help lists them"

it option_before_the_command_is_explained
run sonde --json info; code 2; err "sonde: no option '--json' before a command; sonde --help lists the commands"

it misspelt_option_gets_the_nearest_name
run sonde info --jsno x; code 2; out ''; err "sonde info: no option '--jsno'; did you mean '--json'?"

it every_command_leads_its_help_with_two_examples
for name in $("$sonde" --help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
    run sonde "$name" --help; code 0; err ''
    [ "$(sed -n 1p .out)" = Examples: ] || fail "$name: help does not begin with examples"
    n=$(sed '/^Usage/q' .out | grep -c 'sonde '"$name")
    [ "$n" -ge 2 ] || fail "$name: $n examples"
    [ "$(sed -n '$p' .out | grep -c 'this text')" = 1 ] || fail "$name: help does not end with --help"
    sed '1,/^Usage/d' .out | awk 'length > 110 { bad = 1 } END { exit bad }' || fail "$name: a line of the help is too long"
done

it manual_page_is_clean_roff
if command -v groff >/dev/null; then
    "$sonde" help --man >sonde.1
    run groff -man -Tutf8 -P-cbou -ww sonde.1; code 0; err ''
    out_has 'sonde info'
else skip 'no groff'; fi

it completion_for_bash_completes_commands_and_options
"$sonde" help --bash >completion
run bash --norc -c '. ./completion
    try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _sonde; echo "${COMPREPLY[*]}"; }
    try sonde inf; try sonde info --no-h'
code 0; out "$(printf 'info\n--no-hash')"

it completion_for_zsh_is_valid
"$sonde" help --zsh >_sonde
if command -v zsh >/dev/null; then run zsh -n _sonde; code 0; err ''; else skip 'no zsh'; fi

it full_disk_on_standard_output_is_an_error
"$sonde" --help >/dev/full 2>.err; status=$?
code 4; err 'sonde: standard output: No space left on device'
"$sonde" info --help >/dev/full 2>.err; status=$?
code 4; err 'sonde info: standard output: No space left on device'

it closed_standard_output_is_an_error
"$sonde" --version >&- 2>.err; status=$?
code 4; err_is_one_line

it closed_standard_error_changes_nothing
"$sonde" info nothing-here >.out 2>&-; status=$?
code 4; out ''

it a_reader_that_leaves_ends_it_quietly
("$sonde" help --man; echo $? >.status) 2>.err | head -c 10 >/dev/null
[ "$(cat .status)" = 141 ] || [ "$(cat .status)" = 0 ] || fail "exit status $(cat .status)"
err ''

it an_empty_environment_changes_nothing
run env -i "$sonde" --help; code 0; out "$(cat overview)"; err ''

it a_decimal_comma_changes_nothing
for lang in tr_TR.UTF-8 de_DE.UTF-8; do
    run env LANG=$lang LC_ALL=$lang "$sonde" --help; code 0; out "$(cat overview)"
done

it a_megabyte_of_argument_is_refused_in_one_short_line
head -c 120000 /dev/zero | tr '\0' a >big
run sonde "$(cat big)"; code 2; err_is_one_line
[ "$(wc -c <.err)" -lt 500 ] || fail "$(wc -c <.err) bytes of message"
run sonde info "--$(cat big)"; code 2; err_is_one_line
args=(); for i in 1 2 3 4 5 6 7 8 9; do args+=("$(cat big)"); done
run sonde info "${args[@]}"; code 4
[ "$(wc -c <.err)" -lt 5000 ] || fail "$(wc -c <.err) bytes of message"

it no_argument_at_all_not_even_a_name_is_wrong_use
cat >exec0.c <<'C'
#include <unistd.h>
int main(int argc, char **argv) { (void)argc; char *none[] = {NULL}; execv(argv[1], none); return 9; }
C
if cc -o exec0 exec0.c 2>/dev/null; then run ./exec0 "$sonde"; code 2; err_has Usage; else skip 'no compiler'; fi
