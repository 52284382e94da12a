#!/bin/sh
# SPDX-License-Identifier: MIT
# Interoperation tests: sonde against the Python tools of the field.
#
#   tests/interop/run.sh [test_NAME.py...]
#
#   SONDE       the binary                       (default: build/tools/sonde in the source root)
#   SONDE_VENV  where the Python packages live   (default: ~/.cache/sonde/interop-venv; made when missing)
#
# Every test_*.py prints lines "PASS name", "FAIL name: why" or "SKIP name: why". The last line counts them. Without a
# package index and without a ready SONDE_VENV it says so and exits 0.
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${SONDE_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/sonde/interop-venv}
SONDE=${SONDE:-$root/build/tools/sonde}
export SONDE

if [ ! -x "$SONDE" ]; then
    echo "interop: $SONDE is not there; build first, or set SONDE" >&2
    exit 2
fi

want=$(cat "$here/requirements.txt" "$here/run.sh" | cksum)
if [ -x "$venv/bin/python" ] && [ ! -e "$venv/sonde-stamp" ]; then   # made by hand: used, never changed
    if ! "$venv/bin/python" -c 'import gguf, h5py, safetensors, torch, transformers
from transformer_lens import HookedTransformer' >/dev/null 2>&1; then
        echo "interop: $venv lacks packages of tests/interop/requirements.txt" >&2
        exit 2
    fi
elif [ "$(cat "$venv/sonde-stamp" 2>/dev/null)" != "$want" ]; then
    tmp=$(mktemp -d)
    if ! { python3 -m venv "$tmp/venv" && "$tmp/venv/bin/pip" download -q --no-deps -d "$tmp" better-abc==0.0.3; } \
        >"$tmp/log" 2>&1; then
        tail -1 "$tmp/log"
        rm -rf "$tmp"
        echo "interop: skipped, Python packages cannot be installed here (no package index)"
        exit 0
    fi
    rm -rf "$tmp"
    mkdir -p "$venv" && : >"$venv/sonde-stamp" && python3 -m venv "$venv" &&
        "$venv/bin/pip" install -q torch==2.13.0 && "$venv/bin/pip" install -q -r "$here/requirements.txt" || {
        echo "interop: the packages of requirements.txt do not install" >&2
        exit 1
    }
    echo "$want" >"$venv/sonde-stamp"
fi

passed=0 failed=0
[ $# -gt 0 ] || set -- "$here"/test_*.py
for t in "$@"; do
    [ -e "$t" ] || t=$here/$t
    out=$(mktemp)
    "$venv/bin/python" "$t" >"$out" 2>&1
    rc=$?
    p=$(grep -c '^PASS ' "$out") f=$(grep -c '^FAIL ' "$out")
    if [ $rc -ne 0 ] && [ "$f" -eq 0 ]; then   # it died, or it reports by its exit status alone
        f=1
        sed 's/^/    /' "$out"
        echo "FAIL $(basename "$t"): exit status $rc"
    elif [ "$p" -eq 0 ] && [ "$f" -eq 0 ] && ! grep -q '^SKIP ' "$out"; then
        p=1
        echo "PASS $(basename "$t")"
    else
        grep -E '^(FAIL|SKIP) ' "$out"
        echo "$(basename "$t"): $p passed, $f failed"
    fi
    passed=$((passed + p)) failed=$((failed + f))
    rm -f "$out"
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
