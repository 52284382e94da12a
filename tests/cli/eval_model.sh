#!/bin/bash
# SPDX-License-Identifier: MIT
# sonde eval with the model in the loop, and with baselines beside the dictionary.
. "$(dirname "$0")/harness.sh"
. "$source_root/tests/cli/sae_files.sh"

models=$source_root/tests/golden/models
put_ids() {
    local i
    { printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': ($2, $3), }"
      for ((i = 0; i < $2 * $3; i++)); do printf "\\x$(printf %02x $((i * i * 7 % $4)))\\0\\0\\0"; done; } >"$1"
}
put_ids ids.npy 20 30 61
put_ids few.npy 20 8 6
run sonde capture --model "$models/llama" --ids ids.npy --hook resid_post1 --holdout 0.3 -o acts.h5
width=$("$sonde" info --json acts.h5 | tr -d ' \n' | sed 's/.*"shape":\[600,\([0-9]*\)\].*/\1/')
put_sae sae "$width" blocks.1.hook_resid_post
in_model=(sae --model "$models/llama" --ids ids.npy --holdout 0.3)
number() { sed -n "s/^ *\"$1\": \([-0-9.e]*\),*\$/\1/p" "${2:-.out}" | head -1; }
is_true() { awk "BEGIN { exit !($1) }" || fail "$1"; }

it what_gives_back_its_input_costs_the_model_nothing
run sonde eval "${in_model[@]}" --json; code 0; err ''; cp .out full
for line in '"ce_delta": 0.0,' '"ce_loss_score": 1.0,' '"ce_loss_score_mean": 1.0,' '"kl_div_with_sae": 0.0,' '"kl_div_score": 1.0' \
    '"mean_ablation": "mean of the train split"'; do out_has "$line"; done
[ "$(number ce_loss_with_sae)" = "$(number ce_loss_without_sae)" ] || fail 'the losses differ'
is_true "$(number ce_loss_with_ablation) != $(number ce_loss_without_sae)"
is_true "$(number ce_loss_with_ablation) != $(number ce_loss_with_mean_ablation)"
is_true "$(number kl_div_with_ablation) > 0"

it each_context_but_its_end_gives_a_next_token
is_true "$(number n_tokens full) == $(number n_rows full) / 30 * 29"
run sonde eval "${in_model[@]}" --exclude first:10 --json; code 0; is_true "$(number n_tokens) == $(number n_rows) / 20 * 19"
is_true "$(number ce_loss_without_sae) != $(number ce_loss_without_sae full)"

it without_training_rows_the_mean_is_that_of_the_rows
run sonde eval sae --model "$models/llama" --ids ids.npy --holdout 0 --json; code 0; out_has '"mean_ablation": "mean of the train split"'
run sonde eval "${in_model[@]}" --all-rows --json; code 0; out_has '"n_tokens": 580'

it fewer_tokens_can_be_asked_for
run sonde eval "${in_model[@]}" --splice-tokens 30 --json; code 0; out_has '"n_tokens": 58,'
run sonde eval "${in_model[@]}" --max-rows 29 --json; code 0; out_has '"n_tokens": 29,'
run sonde eval "${in_model[@]}" --splice-tokens 0 --json; code 0
if grep -q '"ce_' .out; then fail 'losses that nobody asked for'; fi

it activations_alone_have_no_losses
run sonde eval sae acts.h5 --json; code 0
if grep -q '"ce_\|baselines' .out; then fail 'losses without a model'; fi

it baselines_stand_beside
run sonde eval "${in_model[@]}" --baselines --permuted-tokens 0 --json; code 0; err ''; cp .out beside
for line in '"name": "pca"' '"name": "bigram"' '"fitted_to": "train"' '"n_pairs": [1-9]'; do out_has "$line"; done
[ "$(grep -c '"ce_loss_score_mean":' .out)" = 3 ] || fail 'not all are scored'
[ "$(grep -c '"explained_variance":' .out)" = 3 ] || fail 'not all are measured'
for key in ce_loss_with_sae ce_loss_with_ablation ce_loss_with_mean_ablation explained_variance l0; do
    [ "$(number $key)" = "$(number $key full)" ] || fail "$key is $(number $key full) without baselines, $(number $key) with"
done

it a_store_has_baselines_without_losses
run sonde eval sae acts.h5 --baselines --json; code 0; err ''
for name in pca bigram; do
    [ "$(grep -A9 "\"name\": \"$name\"" .out | grep explained_variance)" = "$(grep -A9 "\"name\": \"$name\"" beside | grep explained_variance)" ] ||
        fail "$name explains something else"
done
if grep -q '"ce_' .out; then fail 'losses without a model'; fi

it an_array_has_no_tokens_and_so_no_bigrams
put_rows rows.npy 200 "$width"
run sonde eval sae rows.npy --baselines --json; code 0; out_has '"name": "pca"'
if grep -q bigram .out; then fail 'bigrams of nothing'; fi

it the_table_has_their_lines
run sonde eval "${in_model[@]}" --baselines --permuted-tokens 0; code 0; err ''
for line in '^the model with the dictionary in it$' '^  ce_delta  *0.0000 ' '^  kl_div_with_ablation ' '^baselines  *l0  *explained_variance  *ce_delta' \
    '^  the dictionary  .*1.0000' '^  pca  ' '^  bigram  *- '; do out_has "$line"; done

it no_bit_depends_on_threads
for threads in 1 2 3; do
    run sonde eval "${in_model[@]}" --baselines --permuted-tokens 0 --json --threads $threads; code 0; cmp -s .out beside || fail "$threads threads"
done

export TMPDIR=$PWD
it a_dictionary_of_permuted_weights_is_trained_like_this_one
run sonde train --model "$models/llama" --ids ids.npy --holdout 0.3 --hook blocks.1.hook_resid_post --latents 24 --k 3 --tokens 4096 --seed 3 -o trained
code 0
for threads in 1 2; do
    run sonde eval trained --model "$models/llama" --ids ids.npy --baselines --json --threads $threads; code 0; err ''; cp .out permuted$threads
done
cmp -s permuted1 permuted2 || fail 'threads change it'
out_has '"name": "permuted weights"'; out_has '"n_training_tokens": 4096'
is_true "$(grep -A6 permuted .out | number explained_variance /dev/stdin) < 1"
[ "$(grep -A6 permuted .out | number explained_variance /dev/stdin)" != "$(number explained_variance)" ] || fail 'the weights are not permuted'
run sonde eval trained --model "$models/llama" --ids ids.npy --baselines --json --permuted-tokens 2048; code 0; out_has '"n_training_tokens": 2048'
ls -d sonde-permuted-* >/dev/null 2>&1 && fail 'it is still there'

it without_its_training_there_is_no_such_row
run sonde eval sae --model "$models/llama" --ids ids.npy --holdout 0.3 --baselines --json; code 0; err_is_one_line; err_has 'run.json'
if grep -q permuted .out; then fail 'a row all the same'; fi
for bad in '"arch": "nothing"' '"normalize": 99' '"k": -3' '"n_latents": "many"' '"prefix": [1, 2]'; do
    mkdir -p odd; cp sae/* odd; echo "{\"options\": {$bad}}" >odd/run.json
    run sonde eval odd --model "$models/llama" --ids ids.npy --holdout 0.3 --baselines --json; code 0; err_is_one_line
done

it a_model_that_sees_what_comes_is_not_scored
run sonde capture --model "$models/tl_bidirectional" --ids few.npy --hook resid_post0 --context 8 -o both.h5
if [ "$status" = 0 ]; then
    put_sae both "$("$sonde" info --json both.h5 | tr -d ' \n' | sed 's/.*"shape":\[160,\([0-9]*\)\].*/\1/')" blocks.0.hook_resid_post
    run sonde eval both --model "$models/tl_bidirectional" --ids few.npy --context 8 --all-rows --json; code 0; err_is_one_line; err_has bidirectional
    run sonde eval both --model "$models/tl_bidirectional" --ids few.npy --context 8 --all-rows --splice-tokens 10; code 2; out ''; err_is_one_line
else
    skip 'its vocabulary is too small'
fi
exit 0
