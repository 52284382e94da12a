#!/bin/bash
# SPDX-License-Identifier: MIT
# The shape of the house: which module may include which, headers that stand alone, sonde.h, licence lines, and what lib/ may not call.
. "$(dirname "$0")/cli/harness.sh"
cd "$source_root" || exit 1

# A module may use itself and those named here, and nothing that is not named.
allowed() {
    case $1 in
    base) echo ;;
    dist) echo base ;;
    num) echo base ;;
    file) echo base ;;
    text) echo base file ;;
    ops) echo base num ;;
    model) echo base num file text ops ;;
    learn) echo base num file text ops model ;;
    sae) echo base num file text ops model learn dist ;;
    interp) echo base num file text ops model learn dist sae ;;
    draw) echo base num file ;;
    *) echo "?" ;;
    esac
}

it every_arrow_points_up_the_list_of_modules
for file in lib/*/*.[ch]; do
    module=${file#lib/}; module=${module%%/*}
    list=" $(allowed "$module") $module "
    [ "$list" = " ? $module " ] && fail "$file: module $module is not in the list of modules"
    while read -r name; do
        case $name in
        ../*/*) other=${name#../}; other=${other%%/*} ;;
        */*) fail "$file: includes \"$name\"; other modules are included as \"../module/name.h\""; continue ;;
        *) other=$module ;;
        esac
        [[ $list == *" $other "* ]] || fail "$file: may not include \"$name\""
        [ "$other" != "$module" ] && [[ $name == *_impl.h ]] && fail "$file: \"$name\" is private to its module"
        [ -f "lib/$module/$name" ] || fail "$file: \"$name\" does not exist"
    done < <(sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$file")
done

it tools_use_public_headers_only
for file in tools/*.[ch]; do
    while read -r name; do
        [ -f "tools/$name" ] || [ -f "lib/$name" ] || fail "$file: \"$name\" is neither in tools/ nor in lib/"
        [[ $name == *_impl.h ]] && fail "$file: \"$name\" is private"
    done < <(sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$file")
done

it every_header_compiles_alone
cc=${CC:-cc}
flags=$(pkg-config --cflags hdf5-serial jansson libxxhash libpcre2-8 libutf8proc openblas 2>/dev/null)
for header in lib/*/*.h lib/sonde.h; do
    [[ $header == *_impl.h ]] && continue
    # shellcheck disable=SC2086
    $cc -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only -x c $flags "$header" 2>>"$work/.err" || fail "$header does not compile alone"
done

it sonde_h_includes_every_public_header_and_no_other
(cd lib && ls -- */*.h | grep -v _impl.h | sort) >"$work/want"
sed -n 's/^#include "\(.*\)".*/\1/p' lib/sonde.h | sort >"$work/have"
diff "$work/want" "$work/have" >"$work/.out" || fail 'lib/sonde.h and the public headers differ'

it every_source_names_its_licence
for file in $(git ls-files 2>/dev/null | grep -E '\.(c|h|S|sh|py|awk)$|meson\.build$|meson_options\.txt$|^\.ci/run$'); do
    head -n 3 "$file" | grep -q 'SPDX-License-Identifier: MIT' || fail "$file: no SPDX line in the first three"
done

# printf into a buffer or a FILE of one's own is no output; exit, signals and locale are the process's.
it the_library_prints_nothing_exits_never_and_leaves_the_process_alone
pattern='(^|[^a-zA-Z0-9_])(printf|puts|putchar|perror|vprintf|exit|_Exit|abort|quick_exit|atexit|setlocale|signal|sigaction|setenv|putenv|unsetenv|srand|rand|strtok|chdir|umask|stdout|stderr)[ ]*(\(|[,;)])'
for file in lib/*/*.[ch]; do
    [ "$file" = lib/file/hdf5_child.c ] && continue # the confined child is a process of its own
    sed 's|//.*||; s|/\*.*\*/||; /^ *\*/d; /^\/\*/d; s/"[^"]*"//g; s/format(printf//' "$file" | grep -nE "$pattern" >"$work/hit" &&
        fail "$file: $(head -n 3 "$work/hit")"
done

it the_library_has_no_variables_of_its_own
# Symbols of the data and bss sections of the built library; tables of constants with addresses lie in .data.rel.ro.
for archive in "${SONDE_BUILD:-/nonexistent}"/lib/libsonde*.a; do
    [ -f "$archive" ] || { skip 'no built library'; continue; }
    objdump -t "$archive" 2>/dev/null | awk '($4 == ".data" || $4 == ".bss" || $4 ~ /^\.(data|bss)\.[^r]/ || $4 == "*COM*") && $NF !~ /^\./ && $5 != "0000000000000000" { print $NF }' >"$work/hit"
    case $(objdump -t "$archive" 2>/dev/null | grep -c -E '__asan|__tsan|__sanitizer') in
    0) [ -s "$work/hit" ] && fail "$archive: $(tr '\n' ' ' <"$work/hit")" ;;
    *) skip 'a sanitizer adds its own' ;;
    esac
done
cd "$work" || exit 1
