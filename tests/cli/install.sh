#!/bin/bash
# SPDX-License-Identifier: MIT
# What `meson install` leaves: a program against the installed library, the manual page, the completions.
. "$(dirname "$0")/harness.sh"

DESTDIR=$work/root meson install -C "${SONDE_BUILD:?}" --no-rebuild >"$work/install.log" 2>&1 || echo "install failed"
prefix=$(find root -type d -path '*/include/sonde' -prune 2>/dev/null | head -n 1)
prefix=$work/${prefix%/include/sonde}

it the_installed_program_runs
run "$prefix/bin/sonde" --version; code 0; out_has '^sonde '

it manual_page_and_completions_are_installed
for file in share/man/man1/sonde.1 share/bash-completion/completions/sonde.bash share/zsh/site-functions/_sonde; do
    [ -s "$prefix/$file" ] || fail "$file is missing"
done

it a_program_builds_against_the_installed_library
cat >user.c <<'C'
#include <sonde/sonde.h>
#include <stdio.h>
int main(void)
{
    sonde_rng r = sonde_rng_seed(1);
    char hex[65];
    sonde_sha256 s;
    sonde_sha256_begin(&s);
    sonde_sha256_end(&s, hex);
    printf("%.4s %d\n", hex, sonde_rng_below(&r, 1) == 0);
    return 0;
}
C
pc=$(dirname "$(find "$prefix" -name sonde.pc)")
if strings -a "$sonde" 2>/dev/null | grep -q -E '__[at]san_init'; then skip 'a sanitizer build is not installed'
else
    mkdir pc && sed "s#^prefix=.*#prefix=$prefix#" "$pc/sonde.pc" >pc/sonde.pc
    # shellcheck disable=SC2046
    run "${CC:-cc}" -o user user.c $(PKG_CONFIG_PATH=$work/pc pkg-config --cflags --libs sonde)
    code 0; err ''; run ./user; code 0; out 'e3b0 1'
fi
