#!/bin/bash
# SPDX-License-Identifier: MIT
# sonde train as a user runs it.
. "$(dirname "$0")/harness.sh"
. "$source_root/tests/cli/sae_files.sh"

model=$source_root/tests/golden/models/llama
run sonde synth dictionary --dim 8 --truth 16 --active 2 --rows 3000 --seed 7 -o acts.h5
tiny='--tokens 6000 --batch 64 --latents 40 --k 3'
train() { run sonde train "$@"; }
# shellcheck disable=SC2086
train acts.h5 $tiny -o want
number() { sed -n "s/^ *\"$1\": \([-0-9.e]*\),*\$/\1/p" "${2:-.out}" | head -1; }
line() { out_has "^$1  *$2\$"; }
nothing_left() { local left; left=$(ls -d sae* 2>/dev/null); [ -z "$left" ] || fail "left: $left"; rm -rf sae*; }

# ---- one run

it one_run_leaves_its_directory
# shellcheck disable=SC2086
train acts.h5 $tiny -o sae; code 0; out sae; err_is_one_line; err_has '^sonde train: sae: explained variance 0\.[0-9]*, L0 3\.00, [0-9]* of 40 latents silent on 2850 training rows$'
[ "$(ls sae | tr '\n' ' ')" = 'cfg.json checkpoints log.jsonl run.json sae_weights.safetensors sparsity.safetensors timing.jsonl ' ] || fail "holds $(ls sae)"
[ "$(ls sae/checkpoints)" = step-000000094.safetensors ] || fail "checkpoints: $(ls sae/checkpoints)"
rm -rf sae

it quiet_is_quiet
# shellcheck disable=SC2086
train acts.h5 $tiny -q -o sae; code 0; out sae; err ''; rm -rf sae

it the_same_command_gives_the_same_bytes
for more in '--threads 1' '--threads 3' '--max-memory 256MiB' '--checkpoint-steps 7' '--checkpoint-seconds 0' '--kernel plain' '--precision bf16'; do
    # shellcheck disable=SC2086
    train acts.h5 $tiny $more -q -o sae; code 0
    for f in cfg.json sae_weights.safetensors sparsity.safetensors run.json log.jsonl; do cmp -s sae/$f want/$f || fail "$more changes $f"; done
    rm -rf sae
done

it json_is_one_object_with_the_figures
# shellcheck disable=SC2086
train acts.h5 $tiny --json -o sae; code 0
for key in path arch d_sae n_steps explained_variance fvu l0 dead_features n_measured resumed_at_step; do out_has "\"$key\": "; done
out_has '"path": "sae"'; out_has '"arch": "batchtopk"'; out_has '"d_sae": 40'; out_has '"n_steps": 94'; out_has '"n_measured": 2850'; out_has '"resumed_at_step": 0'
[ "$(sed -n 1p .out)" = '{' ] && [ "$(sed -n '$p' .out)" = '}' ] || fail 'stdout is not one object'
[ "$(number l0)" = 3.0 ] || fail "L0 is $(number l0), the threshold is set for 3"
rm -rf sae

it run_json_holds_every_option_the_data_and_the_figures
for key in arch n_latents k batch n_tokens lr warmup decay seed normalize n_train checksums_xxh3 exclude holdout tool_version command n_steps \
    configuration compute explained_variance dead_features; do grep -q "\"$key\": " want/run.json || fail "no $key"; done
grep -q '"command": "train .*--k=3.* acts.h5"' want/run.json || fail 'no canonical command'
if grep -q -e '--threads' -e '-o=' -e 'want' want/run.json; then fail 'what does not affect the result is in it'; fi

it the_log_has_a_line_per_step_under_the_names_of_dashboards
[ "$(wc -l <want/log.jsonl)" = 94 ] || fail "$(wc -l <want/log.jsonl) lines"
for key in details/n_training_samples losses/overall_loss losses/mse_loss metrics/explained_variance metrics/l0 sparsity/dead_features \
    details/current_learning_rate details/gradient_norm details/threshold; do [ "$(grep -c "\"$key\":" want/log.jsonl)" = 94 ] || fail "$key"; done
[ "$(wc -l <want/timing.jsonl)" = 94 ] || fail 'no timing'
if grep -q seconds want/log.jsonl; then fail 'times in the log'; fi
# shellcheck disable=SC2086
train acts.h5 $tiny --log-every 10 -q -o sae; code 0; [ "$(wc -l <sae/log.jsonl)" = 10 ] || fail "--log-every 10: $(wc -l <sae/log.jsonl) lines"
rm -rf sae

it other_commands_take_the_result
run sonde info want; code 0; out_has 'jumprelu'
run sonde eval want acts.h5 --json; code 0; out_has '"explained_variance": 0.[6-9]'
run sonde encode want acts.h5 -o latents.h5; code 0; [ -s latents.h5 ] || fail 'no latents'

it what_stands_there_is_not_replaced_unasked
cp -r want sae
# shellcheck disable=SC2086
train acts.h5 $tiny -o sae; code 2; err 'sonde train: sae: holds a dictionary already; --force replaces it'
# shellcheck disable=SC2086
train acts.h5 $tiny --seed 1 --force -q -o sae; code 0
if cmp -s sae/sae_weights.safetensors want/sae_weights.safetensors; then fail 'the old weights'; fi
grep -q '"seed": 1' sae/run.json || fail 'the old run.json'
rm -rf sae; echo mine >sae
# shellcheck disable=SC2086
train acts.h5 $tiny -o sae; code 4; err 'sonde train: sae: exists and is not a directory'; [ "$(cat sae)" = mine ] || fail 'a file was replaced'
rm -rf sae

it a_failed_force_leaves_what_was_there
cp -r want sae
# shellcheck disable=SC2086
train acts.h5 $tiny --force --max-memory 1MiB -o sae; code 5; err_is_one_line
cmp -s sae/sae_weights.safetensors want/sae_weights.safetensors && [ -f sae/cfg.json ] || fail 'the old dictionary is gone'
# shellcheck disable=SC2086
train acts.h5 $tiny --force --k 99 -o sae; code 2; [ -f sae/cfg.json ] || fail 'the old dictionary is gone'
rm -rf sae

# ---- defaults

it a_dry_run_prints_defaults_that_follow_the_budget
put_rows wide.npy 40 128
check_budget() { # TOKENS BATCH WARMUP DEAD LR STEPS
    train wide.npy --tokens "$1" --dry-run; code 0; err ''
    line n_latents 2048; line k 8; line batch "$2"; line warmup "$3"; line dead_window "$4"; line lr "$5"; line n_steps "$6"
    line decay 0.2; line arch batchtopk; line aux_k 64; line aux_coef 0.03125; line clip 1.0
}
check_budget 1.5M 1024 73 200000 0.00209012 1465
check_budget 10M 2048 244 500000 0.00114484 4883
check_budget 1G 4096 1000 10000000 0.000565685 244141
train wide.npy --dry-run; line n_tokens 10000000
nothing_left

it a_dry_run_names_every_option
train wide.npy --dry-run --json; code 0
for key in arch n_latents k batch n_tokens lr warmup decay lr_end schedule beta1 beta2 eps clip loss l1 l0 target_l0 jump_penalty tanh_scale bandwidth \
    threshold pre_act sparsity_warmup k_start k_anneal aux_k aux_coef dead_window resample_every normalize unit_decoder bias_init seed n_steps \
    n_train_rows n_heldout_rows d_in d_out memory_bytes encoder_flops; do out_has "\"$key\": "; done
nothing_left

# ---- grids

it a_grid_makes_a_directory_of_each_point
# shellcheck disable=SC2086
train acts.h5 $tiny -q --grid k=2,3 seed=0..1 -o sae; code 0
out $'sae/k2_seed0\nsae/k2_seed1\nsae/k3_seed0\nsae/k3_seed1'
for point in k2_seed0 k2_seed1 k3_seed0 k3_seed1; do for f in cfg.json sae_weights.safetensors run.json log.jsonl; do [ -s sae/$point/$f ] || fail "no $point/$f"; done; done
rm -rf sae
# shellcheck disable=SC2086
train acts.h5 $tiny -q --grid arch=topk,relu --grid lr=0.001 --json -o sae; code 0; out_has '"path": "sae/topk_lr0.001"'; out_has '"path": "sae/relu_lr0.001"'; rm -rf sae

it a_point_of_a_grid_is_what_it_is_alone
# shellcheck disable=SC2086
train acts.h5 $tiny -q --grid k=2,3 -o sae; code 0
for f in sae_weights.safetensors sparsity.safetensors log.jsonl; do cmp -s sae/k3/$f want/$f || fail "another $f"; done
rm -rf sae

it a_grid_that_is_none_is_refused
for bad in 'kk=2,3' 'k' 'k=' 'k=2,,3' 'k=3..2' 'k=2,2' 'k=1..65' 'k=two' 'lr=1e' 'arch=topkk' 'arch=foo' 'seed=0..63 latents=1..64'; do
    # shellcheck disable=SC2086
    train acts.h5 --tokens 600 --batch 64 -o sae --grid $bad; code 2; err_is_one_line; nothing_left
done
train acts.h5 -o sae --grid foo=1; err "sonde train: --grid: no axis 'foo'; there are k, latents, seed, arch, lr, l1-coef, l0-coef, target-l0"
train acts.h5 -o sae --grid k=2,2; err 'sonde train: --grid: k=2 is given twice'
train acts.h5 -o sae --grid k=2 k=3; err 'sonde train: --grid: k is given twice'

# ---- sources

it a_transcoder_learns_from_two_hooks_of_a_store
put_ids() {
    local i
    { printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': ($2, $3), }"
      for ((i = 0; i < $2 * $3; i++)); do printf "\\x$(printf %02x $((i * i * 7 % $4)))\\0\\0\\0"; done; } >"$1"
}
put_ids ids.npy 20 30 61
run sonde capture --model "$model" --ids ids.npy --hook blocks.1.hook_resid_mid --hook blocks.1.hook_mlp_out -q -o two.h5; code 0
hooks='--hook blocks.1.hook_resid_mid --hook-out blocks.1.hook_mlp_out'
# shellcheck disable=SC2086
train two.h5 $hooks $tiny -q -o sae; code 0; run sonde eval sae two.h5 --json; code 0; rm -rf sae
# shellcheck disable=SC2086
train two.h5 $hooks $tiny --skip -q -o sae; code 0; run sonde eval sae two.h5 --json; code 0; run sonde info sae; code 0; out_has -i 'skip\|transcoder'; rm -rf sae
# shellcheck disable=SC2086
train two.h5 --hook blocks.1.hook_resid_mid $tiny --skip -o sae; code 2; err_is_one_line; err_has '(--hook-out)'; nothing_left

it a_model_and_ids_are_a_source
# shellcheck disable=SC2086
train --model "$model" --ids ids.npy --hook resid_post1 $tiny -q -o sae; code 0; grep -q '"hook_name": "blocks.1.hook_resid_post"' sae/cfg.json || fail 'no hook in cfg.json'
rm -rf sae

it a_hook_that_is_missing_gets_near_names
# shellcheck disable=SC2086
train two.h5 --hook blocks.1.hook_resid_mdi $tiny -o sae; code 2; err_is_one_line; err_has 'blocks.1.hook_resid_mid'
# shellcheck disable=SC2086
train two.h5 --hook blocks.1.hook_resid_mid --hook-out blocks.1.hook_mlp_uot $tiny -o sae; code 2; err_is_one_line; err_has 'blocks.1.hook_mlp_out'
# shellcheck disable=SC2086
train two.h5 $tiny -o sae; code 2; err_is_one_line; err_has 'blocks.1.hook_resid_mid'
nothing_left

# ---- what is refused

it wrong_use_is_one_line
while read -r says words; do
    # shellcheck disable=SC2086
    train $words; code 2; err_is_one_line; err_has "${says//_/ }"; nothing_left
done <<'END'
did_you_mean_'topk' acts.h5 --arch topkk -o sae
there_are_batchtopk,_topk, acts.h5 --arch xyz -o sae
between_1_and_the_40_latents acts.h5 --latents 40 --k 41 -o sae
must_lie acts.h5 --lr 1e30 -o sae
must_lie acts.h5 --decay 2 -o sae
--widths acts.h5 --widths 1,x -o sae --arch matryoshka
prefixes_must_rise acts.h5 --widths 4,3,40 --latents 40 -o sae --arch matryoshka
is_for_--arch_matryoshka acts.h5 --widths 4,40 --latents 40 -o sae
no_output acts.h5
no_activations -o sae
two_files acts.h5 wide.npy -o sae
not_from_both acts.h5 --model nothing -o sae
needs_a_model --ids ids.npy -o sae
holds_no_run_to_resume acts.h5 --resume -o sae
END

it files_that_are_none_are_named
train nothing.h5 -o sae; code 4; err_is_one_line; err_has nothing.h5
echo text >text.h5; train text.h5 -o sae; code 3; err_is_one_line; err_has text.h5
nothing_left

it help_has_examples
run sonde train --help; code 0; for option in --arch --latents --k --grid --resume --checkpoint-steps --dry-run; do out_has "$option"; done
