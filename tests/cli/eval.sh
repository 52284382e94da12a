#!/bin/bash
# SPDX-License-Identifier: MIT
# sonde eval as a user runs it: the table, the JSON, the rows it takes and what it refuses.
. "$(dirname "$0")/harness.sh"
. "$source_root/tests/cli/sae_files.sh"

models=$source_root/tests/golden/models
put_sae sae 4 blocks.1.hook_resid_post
put_rows rows.npy 200 4
put_ids() {
    local i
    { printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': ($2, $3), }"
      for ((i = 0; i < $2 * $3; i++)); do printf "\\x$(printf %02x $((i * i * 7 % $4)))\\0\\0\\0"; done; } >"$1"
}
put_ids ids.npy 20 30 61
run sonde capture --model "$models/llama" --ids ids.npy --hook resid_post1 --hook resid_post0 --holdout 0.3 -o acts.h5
run sonde capture --model "$models/llama" --ids ids.npy --hook resid_post0 --holdout 0 -o other.h5
width=$("$sonde" info --json acts.h5 | tr -d ' \n' | sed 's/.*"shape":\[600,\([0-9]*\)\].*/\1/')
put_sae wide "$width" blocks.1.hook_resid_post

it a_dictionary_that_gives_back_its_input_explains_everything
run sonde eval sae rows.npy --json; code 0; err ''
for line in '"explained_variance": 1.0,' '"explained_variance_legacy": 1.0,' '"frac_variance_explained": 1.0,' '"fvu": 0.0,' '"mse": 0.0,' \
    '"encoder_norm_mean": 1.0' '"average_max_decoder_cosine_sim": 0.0' '"encoder_decoder_cosine_sim": 1.0'; do out_has "$line"; done

it json_has_the_keys_that_others_read
for key in sae sae_sha256 architecture activation d_in n_latents split n_rows l0 l1 mse mse_per_element explained_variance \
    explained_variance_legacy frac_variance_explained fvu cossim l2_ratio relative_reconstruction_bias dead_features frac_alive below_1e-5 \
    below_1e-6 freq_over_1_percent freq_over_10_percent density_log10_edges density_counts encoder_norm_mean decoder_norm_mean \
    encoder_decoder_cosine_sim average_max_encoder_cosine_sim average_max_decoder_cosine_sim; do
    run sonde eval sae rows.npy --json; out_has "^  \"$key\": "
done
if grep -q latent_frequency .out; then fail 'arrays that nobody asked for'; fi

it latents_are_listed_on_request
run sonde eval sae rows.npy --json --latents; code 0
for key in frequency mean mean_nonzero max encoder_norm decoder_norm max_decoder_cosine_sim; do out_has "\"latent_$key\": \["; done
run sonde eval sae rows.npy --latents; code 2; err 'sonde eval: --latents has no table, only --json'

it the_table_has_its_lines
run sonde eval sae rows.npy --all-rows; code 0; err ''
for line in '^sae: relu, 4 -> 8$' '^200 rows$' '^reconstruction$' '^  explained_variance  *1.0000  ' '^sparsity$' '^  l0  ' '^  dead_features  *0  ' '^geometry$' \
    '^frequency of latents$'; do out_has "$line"; done

it held_out_rows_are_the_default
run sonde eval wide acts.h5 --json; code 0; err ''; out_has '"split": "heldout"'; out_has '"hook": "blocks.1.hook_resid_post"'
heldout=$(sed -n 's/^  "n_rows": \([0-9]*\),/\1/p' .out)
run sonde eval wide acts.h5 --split train --json; code 0; out_has '"split": "train"'
train=$(sed -n 's/^  "n_rows": \([0-9]*\),/\1/p' .out)
[ "$heldout" -gt 0 ] && [ $((heldout + train)) = 600 ] || fail "$heldout held out, $train for training"
run sonde eval wide acts.h5 --all-rows --json; out_has '"n_rows": 600'; out_has '"split": "all"'
run sonde eval wide acts.h5 --all-rows --max-rows 70 --json; out_has '"n_rows": 70'
run sonde eval wide acts.h5 --all-rows --split train; code 2; err_is_one_line

it the_hook_is_the_one_of_the_dictionary
run sonde eval wide acts.h5 --hook blocks.0.hook_resid_post --json; code 0; out_has '"hook": "blocks.0.hook_resid_post"'
run sonde eval wide other.h5 --all-rows --json; code 0; out_has '"hook": "blocks.0.hook_resid_post"'
err 'sonde eval: the dictionary was trained on blocks.1.hook_resid_post, these are rows of blocks.0.hook_resid_post'
run sonde eval wide acts.h5 --hook blocks.1.hook_resid_pots; code 2; err_is_one_line; err_has 'blocks.1.hook_resid_post'

it a_model_gives_the_same_rows_as_its_capture
run sonde eval wide acts.h5 --json; code 0; grep -v '"dataset"' .out >captured
run sonde eval wide --model "$models/llama" --ids ids.npy --holdout 0.3 --json; code 0; err ''
grep -v '"dataset"\|"model"' .out | sed '/"ce_loss\|"kl_div\|"ce_delta\|"n_tokens/d' >fresh
diff <(grep -E '"(l0|mse|explained_variance|n_rows|hook|split|l1)":' captured) <(grep -E '"(l0|mse|explained_variance|n_rows|hook|split|l1)":' fresh) >diff.out ||
    fail "they differ: $(cat diff.out)"
run sonde eval wide acts.h5 --model "$models/llama"; code 2; err_is_one_line

it what_the_training_left_out_is_left_out
cp -r wide ours
echo '{"data": {"exclude": {"bos_id": -1, "special_ids": [], "first": 3, "ids": [5, [7, 8]], "max_norm": 0.0}, "holdout": 0.3, "seed": 0}}' >ours/run.json
run sonde eval ours acts.h5 --all-rows --json; code 0; err ''; out_has '"exclude": "first:3,ids:5,ids:7,ids:8"'
[ "$(sed -n 's/^  "n_rows": \([0-9]*\),/\1/p' .out)" -le 540 ] || fail 'the first three positions take part'
run sonde eval ours acts.h5 --all-rows --exclude none --json; code 0; out_has '"n_rows": 600'
err "sonde eval: the training left out 'first:3,ids:5,ids:7,ids:8', this leaves out 'none'"
cp ours/run.json sae; run sonde eval sae rows.npy --json; code 0; err ''; out_has '"n_rows": 60'; rm sae/run.json
echo '{"data": 3, "options": [' >ours/run.json; run sonde eval ours acts.h5 --all-rows --json; code 0; out_has '"n_rows": 600'

it a_transcoder_is_measured_against_its_target
cp -r wide trans
sed -e 's/"architecture": "standard"/"architecture": "transcoder", "d_out": '"$width"'/' \
    -e 's/"hook_name": "[^"]*"/"hook_name": "blocks.0.hook_resid_post", "hook_name_out": "blocks.1.hook_resid_post"/' wide/cfg.json >trans/cfg.json
run sonde eval trans acts.h5 --json; code 0; err ''
out_has '"hook": "blocks.0.hook_resid_post"'; out_has '"hook_out": "blocks.1.hook_resid_post"'; out_has "\"d_out\": $width"
out_has '"explained_variance": 0.[0-9]*[1-9]' # the layer between is not the identity
run sonde eval trans acts.h5 --hook-out blocks.0.hook_resid_post --json; code 0; out_has '"explained_variance": 1.0'
run sonde eval trans acts.h5; code 0; out_has '^blocks.0.hook_resid_post -> blocks.1.hook_resid_post, '

it no_bit_depends_on_threads
run sonde eval wide acts.h5 --all-rows --json --latents --threads 1; cp .out one
for threads in 2 3; do run sonde eval wide acts.h5 --all-rows --json --latents --threads $threads; cmp -s .out one || fail "$threads threads"; done
run sonde eval wide acts.h5 --all-rows --json --latents --precision bf16; code 0; cmp -s .out one || fail 'bfloat16'

it another_width_is_refused_with_both_numbers
run sonde eval sae acts.h5 --hook 0.hook_resid_post; code 2; out ''; err_is_one_line; err_has "of 4, .* $width"

it rows_that_are_not_numbers_stop_it
{ head -c 128 rows.npy; printf '\0\0\xc0\x7f'; tail -c +133 rows.npy; } >nan.npy
run sonde eval sae nan.npy --all-rows; code 6; out ''; err_is_one_line

it what_is_missing_or_damaged_is_named
run sonde eval nothing rows.npy; [ "$status" = 4 ] || fail "exit status $status"; out ''; err_is_one_line; err_has nothing
run sonde eval sae nothing.npy; [ "$status" = 4 ] || fail "exit status $status"; out ''; err_is_one_line; err_has nothing.npy
mkdir cut; head -c 300 sae/sae_weights.safetensors >cut/sae_weights.safetensors; cp sae/cfg.json cut
run sonde eval cut rows.npy; code 3; out ''; err_is_one_line
run sonde eval; code 2; err_is_one_line
run sonde eval sae; code 2; out ''; err_is_one_line
run sonde eval sae rows.npy rows.npy; code 2; err_is_one_line

it memory_over_the_limit_is_refused
run sonde eval wide acts.h5 --max-memory 100KiB; code 5; out ''; err_is_one_line
exit 0
