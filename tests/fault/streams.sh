#!/bin/bash
# SPDX-License-Identifier: MIT
# Standard streams, environment and signals, for the commands that read a file and print.
. "$(dirname "$0")/../cli/harness.sh"

mkdir tok
awk 'BEGIN {
    n = 0
    for (b = 33; b <= 126; b++) c[n++] = b
    for (b = 161; b <= 172; b++) c[n++] = b
    for (b = 174; b <= 255; b++) c[n++] = b
    for (b = 256; b < 256 + 68; b++) c[n++] = b
    printf "{"
    for (i = 0; i < n; i++) printf "%s\"\\u%04x\": %d", i ? ", " : "", c[i], i
    printf "}\n"
}' >tok/vocab.json
printf '#version: 0.2\n' >tok/merges.txt
header='{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
{ printf '\x36\0\0\0\0\0\0\0%s' "$header"; head -c 8 /dev/zero; } >w.safetensors
head -c 300000 /dev/zero | tr '\0' a >text

it both_commands_work_here
run sonde info w.safetensors; code 0; cp .out info.want
run sonde tokenize --model tok text; code 0; cp .out tok.want
[ "$(wc -l <tok.want)" = 300000 ] || fail "$(wc -l <tok.want) tokens"

it a_full_disk_on_standard_output_is_exit_4
"$sonde" info w.safetensors >/dev/full 2>.err; status=$?
code 4; err 'sonde info: standard output: No space left on device'
for form in --ids --offsets --json ''; do
    "$sonde" tokenize --model tok $form text >/dev/full 2>.err; status=$?
    code 4; err 'sonde tokenize: standard output: No space left on device'
done

it a_full_disk_ends_generation_in_one_line
m=$shared_data/models/stories260K
if [ -d "$m" ]; then
    "$sonde" generate --model "$m/stories260K.bin" --tokenizer "$m/tok512.bin" --prompt a --tokens 3 >/dev/full 2>.err; status=$?
    code 4; err 'sonde generate: standard output: No space left on device'
else skip 'no ../shared/data'; fi

it progress_leaves_the_terminal_before_the_result_comes
if command -v script >/dev/null && [ -d "$shared_data/models/stories260K" ]; then
    m=$shared_data/models/stories260K
    head -c 400000 "$shared_data/text/tinystories.txt" >stories
    TERM=xterm script -qec "'$sonde' capture --model '$m/stories260K.bin' --tokenizer '$m/tok512.bin' --text stories --hook blocks.0.hook_resid_pre -o p.h5" /dev/null >.out 2>.err </dev/null; status=$?
    code 0; out_has 'p.h5'
    tr '\r' '\n' <.out | sed 's/\x1b\[K//g' | grep -qx p.h5 || fail 'the result shares its line with progress'
else skip 'no script(1) or no ../shared/data'; fi

it closed_standard_output_is_exit_4
"$sonde" info w.safetensors >&- 2>.err; status=$?; code 4; err_is_one_line
"$sonde" tokenize --model tok text >&- 2>.err; status=$?; code 4; err_is_one_line

it closed_standard_input_is_exit_4_where_it_is_read
"$sonde" tokenize --model tok <&- >.out 2>.err; status=$?; code 4; out ''; err_is_one_line
"$sonde" info w.safetensors <&- >.out 2>.err; status=$?; code 0; cmp -s .out info.want || fail 'output differs'

it all_streams_closed_harms_no_file
cp w.safetensors before
"$sonde" info w.safetensors <&- >&- 2>&-; status=$?; code 4
cmp -s before w.safetensors || fail 'the input was written to'

it a_reader_that_leaves_ends_it_quietly
{ "$sonde" tokenize --model tok text; echo $? >.status; } 2>.err | head -n 1 >/dev/null
[ "$(cat .status)" = 141 ] || fail "exit status $(cat .status), should be 141 (SIGPIPE)"
err ''

it an_ignored_pipe_signal_ends_it_quietly_too
{ (trap '' PIPE; exec "$sonde" tokenize --model tok text); echo $? >.status; } 2>.err | head -n 1 >/dev/null
[ "$(cat .status)" = 141 ] || fail "exit status $(cat .status), should be 141 (SIGPIPE)"
err ''

it no_environment_and_foreign_locales_change_nothing
for set in 'env -i' 'env LC_ALL=tr_TR.UTF-8' 'env LC_ALL=de_DE.UTF-8' 'env LC_ALL=C' 'env -u HOME PATH='; do
    $set "$sonde" info w.safetensors >.out 2>.err; status=$?; code 0; err ''
    cmp -s .out info.want || fail "info differs under $set"
    $set "$sonde" tokenize --model tok text >.out 2>.err; status=$?; code 0; err ''
    cmp -s .out tok.want || fail "tokenize differs under $set"
done

it a_directory_that_is_gone_changes_nothing
mkdir gone; (cd gone && rmdir "$work/gone" && "$sonde" info "$work/w.safetensors") >.out 2>.err; status=$?
code 0; grep -q '^n_parameters  *2$' .out || fail 'no description'

it memory_limits_of_the_system_end_in_one_line
head -c 8000000 /dev/zero | tr '\0' a >big
for kib in 40000 60000 80000 100000 140000 200000 300000; do
    (ulimit -v $kib; exec "$sonde" tokenize --model tok --ids big) >.out 2>.err; status=$?
    case $status in
    0 | 5) ;;
    127) ;; # the loader found no room for a library
    *) fail "ulimit -v $kib: exit status $status" ;;
    esac
    case $status in 5) err_is_one_line ;; esac
done
grep -q . "$sonde" && strings -a "$sonde" 2>/dev/null | grep -q __asan_init && { why=''; skip 'the sanitizer reserves terabytes'; }

it an_interrupt_ends_it_at_once
mkfifo slow; exec 9<>slow # kept open by us, so that nothing ever ends it
"$sonde" tokenize --model tok <slow >/dev/null 2>.err & runner=$!
until [ "$(cut -d' ' -f3 /proc/$runner/stat)" = S ] && [ "$(cat /proc/$runner/comm)" = sonde ]; do :; done
kill -TERM $runner; wait $runner; status=$?
exec 9>&-
code 143
