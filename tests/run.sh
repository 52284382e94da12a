#!/bin/bash
# SPDX-License-Identifier: MIT
# Install what is missing, build, and run every suite that needs nothing but Debian packages.
# The last line says `N passed, N failed`, counted over single tests; the exit status is 1 when one failed.
#   SONDE_BUILD   build directory (default: build, in the source tree)
#   SONDE_SETUP   more options for meson setup, e.g. "-Db_sanitize=address,undefined"
#   SONDE_SUITES  only these suites, e.g. "unit cli fault"
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
build=${SONDE_BUILD:-$root/build}

broken() {
    echo "tests/run.sh: $1" >&2
    echo "0 passed, 1 failed"
    exit 1
}

[ -n "${SONDE_NO_INSTALL:-}" ] || "$root/tools/install-deps.sh" || broken "packages are missing"
if [ ! -f "$build/build.ninja" ]; then
    # shellcheck disable=SC2086
    meson setup "$build" "$root" -Dtests=enabled ${SONDE_SETUP:-} >"$root/.setup.log" 2>&1 ||
        { cat "$root/.setup.log"; rm -f "$root/.setup.log"; broken "meson setup failed"; }
    rm -f "$root/.setup.log"
fi
ninja -C "$build" >"$build/build.log" 2>&1 || { tail -n 60 "$build/build.log"; broken "the build failed"; }
grep -n 'warning:' "$build/build.log" | head -n 20

suites=(--no-suite interop)
if [ -n "${SONDE_SUITES:-}" ]; then
    suites=()
    for suite in $SONDE_SUITES; do suites+=(--suite "$suite"); done
fi
rm -f "$build/meson-logs/testlog.txt"
meson test -C "$build" --no-rebuild --print-errorlogs -t 4 "${suites[@]}" 2>&1 | grep -v '^ninja: '
status=${PIPESTATUS[0]}
[ -f "$build/meson-logs/testlog.txt" ] || broken "no test ran"

counts=$(awk -f "$root/tests/count.awk" "$build/meson-logs/testlog.txt") || broken "the log cannot be counted"
read -r passed failed skipped <<<"$counts"
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
line="$passed passed, $failed failed"
[ "$skipped" = 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
