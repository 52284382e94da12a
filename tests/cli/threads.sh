#!/bin/bash
# SPDX-License-Identifier: MIT
# No result depends on the number of threads or on the kernels; this also runs under ThreadSanitizer.
. "$(dirname "$0")/harness.sh"

models=$source_root/tests/golden/models
printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': (150,), }" >ids.npy
for ((i = 0; i < 150; i++)); do printf "\\x$(printf %02x $((i * 7 % 40)))\\0\\0\\0"; done >>ids.npy

# capture NAME OUT MORE...
capture() {
    local name=$1 result=$2; shift 2
    run sonde capture --model "$models/$name" --ids ids.npy --context 20 --hook 'blocks.*.hook_resid_post' --hook 'blocks.0.attn.hook_pattern' \
        --max-seqs 4 --loss --shuffle rows -q -o "$result" "$@"
    code 0; err ''
}

it capture_gives_the_same_bytes_for_any_number_of_threads
for name in gpt2 llama gemma2; do
    for n in 1 2 3 8; do capture $name "$name-$n.h5" --threads $n; done
    for n in 2 3 8; do cmp "$name-1.h5" "$name-$n.h5" || fail "$name: $n threads differ from one"; done
done

it capture_gives_the_same_bytes_with_every_kernel_of_ours
for kernel in plain avx2 avx512; do
    "$sonde" capture --model "$models/gpt2" --ids ids.npy --hook blocks.0.hook_resid_pre --kernel $kernel -q -o try.h5 --force >/dev/null 2>&1 || continue
    capture gpt2 "$kernel.h5" --kernel $kernel
    cmp gpt2-1.h5 "$kernel.h5" || fail "$kernel differs from the default"
done
[ -f plain.h5 ] || fail 'not even the plain kernels ran'

it the_text_of_the_command_leaves_out_what_does_not_matter
capture gpt2 again.h5 --threads 2 --max-memory 1GiB --force
cmp gpt2-1.h5 again.h5 || fail 'another output name or limit changes the file'
