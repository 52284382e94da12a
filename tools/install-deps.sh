#!/bin/bash
# SPDX-License-Identifier: MIT
# Install the Debian packages that building and testing sonde needs: only those that are missing, so it may be run any number
# of times. `--ci` adds what .ci/run needs; `--list` prints the packages and installs nothing.
set -eu

# One line each: package, then why.
needed='
gcc              the compiler
libc6-dev        headers and start files of the C library
meson            the build; brings ninja
pkg-config       meson finds libraries with it
libopenblas-dev  linear algebra, products on CPUs without kernels of our own
libhdf5-dev      activation and result files
libjansson-dev   JSON
libpcre2-dev     tokenizer patterns found in a file
libutf8proc-dev  Unicode normalisation and categories
libxxhash-dev    checksums
zlib1g-dev       compressed members of .npz
libcmocka-dev    unit tests
'
ci='
clang-14            second compiler
libclang-rt-14-dev  its sanitizers and libFuzzer
groff-base          checks the manual page
hdf5-tools          h5repack and h5dump, in tests of refused files
python3-venv        the interoperability tests
'
words() { sed -n 's/^\([a-z0-9][^ ]*\) .*/\1/p'; }

list=$(words <<<"$needed")
for option in "$@"; do
    case $option in
    --ci) list="$list $(words <<<"$ci")" ;;
    --list) only_list=1 ;;
    *) echo "usage: install-deps.sh [--ci] [--list]" >&2; exit 2 ;;
    esac
done
if [ -n "${only_list:-}" ]; then
    printf '%s\n' $list
    exit
fi

if ! command -v dpkg-query >/dev/null; then
    echo "install-deps: this is not Debian; needed are the equivalents of:" $list >&2
    exit 0
fi
missing=''
for package in $list; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
if [ -z "$missing" ]; then
    echo "install-deps: nothing is missing"
    exit
fi

sudo=''
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "install-deps: missing:$missing; run as root, or install sudo" >&2; exit 1; }
    sudo=sudo
fi
export DEBIAN_FRONTEND=noninteractive
install() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; }
echo "install-deps: installing$missing"
# The lists may be absent (a bare container) or out of date (a package has gone): only then fetch them.
if ! apt-cache policy $missing 2>/dev/null | grep -q 'Candidate: [0-9]' || ! install; then
    $sudo apt-get update -q
    install
fi
