#!/bin/bash
# SPDX-License-Identifier: MIT
# sonde capture as a user runs it: what it says, what it refuses, and what it leaves.
. "$(dirname "$0")/harness.sh"

models=$source_root/tests/golden/models

# put_ids FILE ROWS COLUMNS V: [rows, columns] int32 below V.
put_ids() {
    local i
    { printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': ($2, $3), }"
      for ((i = 0; i < $2 * $3; i++)); do printf "\\x$(printf %02x $((i * i * 7 % $4)))\\0\\0\\0"; done; } >"$1"
}
put_ids ids.npy 20 30 61

capture() { run sonde capture --model "$models/llama" --ids ids.npy "$@"; }
nothing_left() {
    local left; left=$(find . -name '*.part*' -o -name acts.h5)
    [ -z "$left" ] || { fail "leaves $left"; rm -rf acts.h5*; }
}

it the_path_is_the_result
capture --hook resid_post1 -o acts.h5; code 0; out acts.h5; err ''
[ -z "$(find . -name '*.part*')" ] || fail 'a .part is left'
cp acts.h5 want.h5; rm acts.h5

it the_mean_loss_is_told
capture --loss -o acts.h5; code 0; out acts.h5; err_has '^sonde capture: mean loss [0-9.]* nats per token over 580 tokens$'; err_is_one_line
rm acts.h5; capture --loss -q -o acts.h5; code 0; err ''; rm acts.h5

it json_has_the_keys_that_others_read
capture --hook resid_post1 --hook pattern0 --max-seqs 2 --dtype f16 --loss --json -o acts.h5; code 0
for key in path n_tokens n_rows n_documents hooks mean_loss hook row_shape saturated; do out_has "\"$key\": "; done
out_has '"path": "acts.h5"'; out_has '"n_tokens": 600'; out_has '"n_documents": 20'; out_has '"hook": "blocks.1.hook_resid_post"'
[ "$(sed -n '$p' .out)" = '}' ] || fail 'stdout is not one object'
rm acts.h5

it a_loss_over_no_token_is_null
capture --context 1 --loss --json -o acts.h5; code 0; out_has '"mean_loss": null'; rm acts.h5
capture --context 1 --loss -o acts.h5; code 0; err ''; rm acts.h5

it a_dry_run_prints_the_plan_and_writes_nothing
capture --hook resid_post1 --loss --skip-first 3 --holdout 0.2 --dtype f16 --dry-run -o acts.h5; code 0; err ''; nothing_left
for line in '^documents   20 ([0-9]* held out)$' '^contexts    20$' '^tokens      600$' '^rows        540$' '^hook        blocks.1.hook_resid_post$' \
    '^row         56 bytes over all hooks$' '^file  ' '^workspace  ' '^work  .* FLOP, about .* s at 100 GFLOP/s per thread$'; do out_has "$line"; done
capture --hook resid_post1 --dry-run; code 0 # needs no output
capture --hook resid_post1 --dry-run --json; code 0
for key in n_tokens n_contexts n_documents n_heldout_documents n_rows row_bytes file_bytes flops memory_bytes seconds_at_100_gflops_per_thread hooks; do
    out_has "\"$key\": "
done
capture --hook resid_post1 --context 65 --dry-run; code 2

it the_dry_run_knows_the_size_of_the_file
capture --hook 'blocks.*.hook_resid_post' --dry-run --json; code 0
planned=$(sed -n 's/^ *"file_bytes": \([0-9]*\),*$/\1/p' .out)
capture --hook 'blocks.*.hook_resid_post' -o acts.h5; code 0
real=$(wc -c <acts.h5)
[ "$real" -ge "$planned" ] && [ "$real" -lt $((planned + 65536)) ] || fail "planned $planned, real $real"
rm acts.h5

it the_first_context_is_shown_on_request
if [ -f "$shared_data/models/stories260K/tok512.bin" ]; then
    echo 'Once upon a time' >text
    run sonde capture --model "$shared_data/models/stories260K/stories260K.bin" --tokenizer "$shared_data/models/stories260K/tok512.bin" \
        --text text --hook resid_post0 -v -o acts.h5
    code 0; err_has "first context: '.*<s>.*' ' Once' ' upon' ' a' ' time'"; rm acts.h5
else skip 'no ../shared/data'; fi

# ---- outputs that are there, and others that cannot be

it an_existing_output_is_kept_without_force
cp want.h5 acts.h5; capture --hook resid_post1 --seed 9 -o acts.h5; code 2; out ''; err 'sonde capture: acts.h5: exists already; --force replaces it'
cmp -s acts.h5 want.h5 || fail 'it was changed'
echo mine >acts.h5; capture --hook resid_post1 --force -o acts.h5; code 0; cmp -s acts.h5 want.h5 || fail '--force gives another file'
rm acts.h5

it no_output_is_wrong_use
capture --hook resid_post1; code 2; err 'sonde capture: no output: -o acts.h5'

it a_directory_is_not_an_output
mkdir dir; capture --hook resid_post1 --force -o dir; code 2; err 'sonde capture: dir: is a directory, it cannot be replaced; name a file'
capture --hook resid_post1 --force -o dir/; code 2; err_is_one_line
[ -z "$(ls -A dir)" ] || fail 'something is in it'
capture --hook resid_post1 -o missing/acts.h5; code 4; err_is_one_line; err_has 'missing/acts.h5.part: .*No such file or directory'
capture --hook resid_post1 -o want.h5/acts.h5; code 4; err_is_one_line
capture --hook resid_post1 -o ''; code 2; err_is_one_line
rmdir dir

it devices_and_pipes_are_not_an_output
mkfifo pipe
for path in /dev/null /dev/full pipe; do run timeout 20 "$sonde" capture --model "$models/llama" --ids ids.npy --hook resid_post1 --force -o $path; code 2; err_is_one_line
err_has 'is not a regular file, it cannot be replaced'; done
[ -p pipe ] || fail 'the pipe is gone'
rm pipe
mkfifo acts.h5.part; run timeout 20 "$sonde" capture --model "$models/llama" --ids ids.npy --hook resid_post1 --force -o acts.h5
[ "$status" = 2 ] || [ "$status" = 4 ] || fail "exit status $status"
err_is_one_line; rm -f acts.h5.part

it a_link_stays_and_its_target_is_replaced
mkdir far; echo mine >far/real.h5; ln -s far/real.h5 acts.h5
capture --hook resid_post1 -o acts.h5; code 2; err_has 'exists already'
capture --hook resid_post1 --force -o acts.h5; code 0
[ -L acts.h5 ] || fail 'the link is gone'
cmp -s far/real.h5 want.h5 || fail 'the target is not the new file'
[ "$(ls -A far)" = real.h5 ] || fail "left: $(ls -A far)"
ln -sf nowhere acts.h5; capture --hook resid_post1 --force -o acts.h5; code 4; err_is_one_line; err_has 'a link that leads nowhere'
rm -r acts.h5 far

it a_link_in_place_of_the_part_is_not_followed
echo mine >victim; ln -s victim acts.h5.part; capture --hook resid_post1 --force -o acts.h5; code 4; err_is_one_line
[ "$(cat victim)" = mine ] || fail 'another file was written'
rm -f acts.h5.part victim

it a_directory_that_cannot_be_written_is_exit_4
mkdir closed
if [ "$(id -u)" != 0 ]; then
    chmod 555 closed; capture --hook resid_post1 -o closed/acts.h5; code 4; err_is_one_line; err_has 'closed/acts.h5.part'; chmod 755 closed
elif unshare -m sh -c 'mount -t tmpfs -o ro none closed' 2>/dev/null; then
    run unshare -m sh -c 'mount -t tmpfs -o ro none closed && exec "$@"' sh "$sonde" capture --model "$models/llama" --ids ids.npy \
        --hook resid_post1 -o closed/acts.h5
    code 4; err 'sonde capture: closed/acts.h5.part: cannot open it to write: Read-only file system'
else skip 'root, and nothing can be mounted'; fi
[ -z "$(ls -A closed)" ] || fail 'something is in it'
rmdir closed

it names_that_are_not_text_are_no_harm
bad=$'b\xff\n\033[31m'
cp ids.npy "$bad.npy"; run sonde capture --model "$models/llama" --ids "$bad.npy" --hook resid_post1 --json -o "$bad.h5"; code 0
[ -s "$bad.h5" ] || fail 'no file'
out_has '"path": "b\\\\xFF\|"path": "b\\\\xff'
grep -q $'\033' .out .err && fail 'a control character reaches the terminal'
run sonde capture --model "$models/llama" --ids "$bad.npy" --hook resid_post1 -o "$bad.h5"; code 2; err_is_one_line
rm -f "$bad".*

# ---- inputs

it missing_inputs_are_named
run sonde capture --model nothing --ids ids.npy --hook resid_post1 -o acts.h5; code 4; err_is_one_line; err_has 'nothing: .*No such file or directory'
run sonde capture --model "$models/llama" --ids nothing.npy --hook resid_post1 -o acts.h5; code 4; err_is_one_line; err_has 'nothing.npy: .*No such file or directory'
run sonde capture --ids ids.npy --hook resid_post1 -o acts.h5; code 2; err_is_one_line; err_has -- '--model'
run sonde capture --model "$models/llama" --hook resid_post1 -o acts.h5; code 2; err 'sonde capture: give one of --text FILE, --jsonl FILE and --ids FILE.npy'
capture --text ids.npy --hook resid_post1 -o acts.h5; code 2; err_is_one_line
echo text >text; run sonde capture --model "$models/llama" --text text --hook resid_post1 -o acts.h5; code 3; err_is_one_line
err_has 'no tokenizer in the model (--tokenizer FILE names one)'
capture --tokenizer nothing --hook resid_post1 -o acts.h5; code 4; err_is_one_line; err_has 'nothing: .*No such file or directory'
nothing_left

it ids_that_the_model_does_not_know_are_refused
put_ids other.npy 2 5 256; run sonde capture --model "$models/llama" --ids other.npy --hook resid_post1 -o acts.h5
[ "$status" = 3 ] || fail "exit status $status"
err_is_one_line; err_has 'other.npy.*61'; nothing_left

it a_context_longer_than_the_models_is_refused_and_the_default_is_cut
capture --hook resid_post1 --context 65 -o acts.h5; code 2; err_is_one_line; err_has -- '--context 65 is longer than the 64 tokens of '; nothing_left
put_ids long.npy 1 200 61; run sonde capture --model "$models/llama" --ids long.npy --hook resid_post1 --json -o acts.h5; code 0; rm acts.h5
run sonde capture --model "$models/llama" --ids long.npy --hook resid_post1 --dry-run; out_has '^contexts    4$'

it nothing_to_store_is_wrong_use
capture -o acts.h5; code 2; err_is_one_line; err_has 'nothing to store: no hook, no loss, no logits'; nothing_left
capture --hook resid_post1 --skip-first 30 -o acts.h5; code 2; err_is_one_line; err_has 'no token is left'; nothing_left

it an_unknown_hook_gets_the_nearest_name
capture --hook blocks.1.hook_resid_pots -o acts.h5; code 2; err_is_one_line; err_has "blocks.1.hook_resid_post'"
capture --hook blocks.9.hook_resid_post -o acts.h5; code 2; err 'sonde capture: hook '"'blocks.9.hook_resid_post': this model has layers 0 to 2"
nothing_left

it a_hook_that_the_model_lacks_gets_the_reason
capture --hook hook_pos_embed -o acts.h5; code 2; err_is_one_line; cp .err reason
[ "$(wc -c <reason)" -gt 60 ] || fail "no reason: $(cat reason)"
nothing_left

it square_sites_need_to_know_for_how_many_contexts
capture --hook pattern1 -o acts.h5; code 2; err_is_one_line; err_has 'blocks.1.attn.hook_pattern.*--max-seqs'; nothing_left

it numbers_out_of_range_are_refused
for bad in '--holdout 1' '--holdout -0.1' '--batch 0' '--journal 0' '--context 0' '--logits 62' '--dtype f64' '--threads 0' '--skip-first -1'; do
    # shellcheck disable=SC2086
    capture --hook resid_post1 $bad -o acts.h5; code 2; err_is_one_line
done
nothing_left

# ---- limits and numbers

it a_small_memory_limit_is_exit_5_with_both_numbers
for limit in 1 10KiB 100KiB 300KiB; do
    capture --hook resid_post1 --loss --max-memory $limit -o acts.h5
    if [ "$status" = 0 ]; then rm acts.h5; continue; fi
    code 5; err_is_one_line; err_has 'needs [0-9]* bytes more, the memory limit is [0-9]* and [0-9]* are in use'
    nothing_left
done
capture --hook resid_post1 --max-memory 10KiB -o acts.h5; code 5
capture --hook resid_post1 --max-memory 1GiB -o acts.h5; code 0; cmp -s acts.h5 want.h5 || fail 'a limit changes the file'; rm acts.h5

# A copy of the llama model with `count` floats of a tensor from element `at` on replaced: patch TENSOR AT COUNT BYTES
patch_model() {
    local n begin
    rm -rf model; mkdir model; cp "$models/llama/config.json" "$models/llama/model.safetensors" model/
    n=$(od -An -tu8 -N8 model/model.safetensors)
    begin=$(tail -c +9 model/model.safetensors | head -c "$n" | grep -ao "\"$1\":{[^}]*}" | sed 's/.*"data_offsets":\[\([0-9]*\),.*/\1/')
    for ((i = 0; i < $3; i++)); do printf "$4"; done | dd of=model/model.safetensors bs=4096 conv=notrunc oflag=seek_bytes seek=$((8 + n + begin + 4 * $2)) 2>/dev/null
}

it nan_in_the_weights_is_exit_6_naming_the_place
patch_model model.embed_tokens.weight $((28 * 5)) 28 '\0\0\300\177' # id 5
printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': (3, 4), }" >few.npy
for id in 1 2 3 4 6 7 8 9 2 2 5 2; do printf "\\x0$id\\0\\0\\0"; done >>few.npy
run sonde capture --model model --ids few.npy --hook hook_embed -o acts.h5
code 6; err 'sonde capture: hook_embed holds NaN at document 2, position 2 of context 2, element 0'
[ -e acts.h5 ] && fail 'there is an output'
rm -f acts.h5*; run sonde capture --model model --ids few.npy --loss -o acts.h5; code 6; err_is_one_line; err_has 'the loss holds NaN at document 2'
rm -f acts.h5*

it values_beyond_float16_are_counted_and_told
patch_model model.embed_tokens.weight $((28 * 5)) 28 '\0\044\164\111' # 1e6
run sonde capture --model model --ids few.npy --hook hook_embed --hook mlp_out2 --dtype f16 --json -o acts.h5; code 0
err 'sonde capture: hook_embed: 28 values did not fit float16 and were saturated'; out_has '"saturated": 28'; rm acts.h5
run sonde capture --model model --ids few.npy --hook hook_embed --dtype bf16 -o acts.h5; code 0; err ''; rm acts.h5

# ---- going on

it resume_without_a_part_is_refused
capture --hook resid_post1 --resume -o acts.h5; code 2; err 'sonde capture: acts.h5.part: is not there, nothing can be resumed; start without --resume'
nothing_left

it a_stranger_in_place_of_the_part_is_not_gone_on_with
head -c 50000 /dev/urandom >acts.h5.part
capture --hook resid_post1 -o acts.h5; code 2; err_is_one_line; err_has 'acts.h5.part: is left from a run that did not finish; --resume continues it, --force starts again'
head -c 5000 /dev/urandom >acts.h5.part.journal
capture --hook resid_post1 --resume -o acts.h5; code 0; err_has 'acts.h5.part.journal fails its checksum; starting again from the first row'
cmp -s acts.h5 want.h5 || fail 'another file'
rm -f acts.h5*

it a_signal_before_the_first_row_says_that_nothing_was_written
if [ -f "$shared_data/text/tinystories.txt" ]; then
    cat "$shared_data/text/tinystories.txt" "$shared_data/text/tinystories.txt" "$shared_data/text/tinystories.txt" "$shared_data/text/tinystories.txt" >text
    "$sonde" capture --model "$shared_data/models/stories260K/stories260K.bin" --tokenizer "$shared_data/models/stories260K/tok512.bin" \
        --text text --hook resid_post0 -q -o acts.h5 >.out 2>.err &
    pid=$!
    # its text is mapped: then it is tokenising
    for ((i = 0; i < 400; i++)); do grep -q "$work/text" /proc/$pid/maps 2>/dev/null && break; sleep 0.005; done
    kill -TERM $pid; wait $pid; status=$?
    if [ -e acts.h5.part ]; then skip 'tokenising was over too soon'
    else code 75; err_is_one_line; err_has 'nothing was written, the same command begins again: .*stopped while'; fi
    rm -f acts.h5* text
else skip 'no ../shared/data'; fi
