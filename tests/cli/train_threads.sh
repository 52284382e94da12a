#!/bin/bash
# SPDX-License-Identifier: MIT
# No dictionary depends on the number of threads; this also runs under ThreadSanitizer.
. "$(dirname "$0")/harness.sh"

run sonde synth dictionary --dim 8 --truth 16 --active 2 --rows 1500 --seed 7 -q -o acts.h5
same_sae() { for f in cfg.json sae_weights.safetensors sparsity.safetensors run.json log.jsonl; do cmp -s "$1/$f" "$2/$f" || fail "$3: another $f"; done; }

# on_threads NAME OPTION...: the same bytes on one, two and three threads
on_threads() {
    local name=$1 n; shift
    for n in 1 2 3; do run sonde train "$@" --tokens 3000 --batch 200 --latents 40 --k 3 --threads $n -q -o sae$n; code 0; err ''; done
    same_sae sae1 sae2 "$name on two threads"; same_sae sae1 sae3 "$name on three threads"
    rm -rf sae1 sae2 sae3
}

for arch in batchtopk topk matryoshka jumprelu relu relu-2023 gated; do
    it "${arch}_gives_the_same_bytes_for_any_number_of_threads"
    on_threads $arch acts.h5 --arch $arch --dead-window 300 --checkpoint-steps 6
done

it a_grid_gives_the_same_bytes_for_any_number_of_threads
for n in 1 3; do run sonde train acts.h5 --tokens 3000 --batch 200 --latents 40 --grid k=2,3 seed=0..1 --threads $n -q -o grid$n; code 0; done
for point in k2_seed0 k3_seed1; do same_sae grid1/$point grid3/$point $point; done

it a_model_as_source_gives_the_same_bytes_for_any_number_of_threads
printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': (150,), }" >ids.npy
for ((i = 0; i < 150; i++)); do printf "\\x$(printf %02x $((i * 7 % 40)))\\0\\0\\0"; done >>ids.npy
on_threads model --model "$source_root/tests/golden/models/llama" --ids ids.npy --context 20 --hook resid_post1 --precision bf16

it training_stopped_on_three_threads_goes_on_with_one
run sonde train acts.h5 --tokens 3000 --batch 20 --latents 40 --k 3 --threads 1 -q -o want; code 0
"$sonde" train acts.h5 --tokens 3000 --batch 20 --latents 40 --k 3 --threads 3 -q -o sae >.out 2>.err &
pid=$!
for ((i = 0; i < 2000; i++)); do [ -s sae/log.jsonl ] && break; sleep 0.005; done
kill -TERM $pid; wait $pid; status=$?
if [ "$status" = 75 ]; then run sonde train acts.h5 --tokens 3000 --batch 20 --latents 40 --k 3 --threads 1 --resume -q -o sae; fi
code 0; same_sae want sae resumed
