#!/bin/bash
# SPDX-License-Identifier: MIT
# What sonde train saves, measured on rows that it has not seen: L0, quality, bits.
. "$(dirname "$0")/harness.sh"

models=$shared_data/models/stories260K
number() { sed -n "s/^ *\"$1\": \([-0-9.e]*\),*\$/\1/p" "${2:-.out}" | head -1; }
is_true() { awk "BEGIN { exit !($1) }" || fail "$1"; }
near() { is_true "$1 >= $2 * (1 - $3) && $1 <= $2 * (1 + $3)"; }
# every_step DIR N K: N lines, in each a mean L0 within 1 % of K
every_step() {
    local seen
    seen=$(sed -n 's/.*"metrics\/l0":\([0-9.e+]*\),.*/\1/p' "$1/log.jsonl" | awk -v k="$3" '$1 >= .99 * k && $1 <= 1.01 * k' | wc -l)
    [ "$seen" = "$2" ] || fail "L0 is near $3 in $seen steps of $2"
}

# 128 directions in 64 dimensions, 3 of them in a row on average, magnitudes uniform, no noise.
run sonde synth dictionary --dim 64 --truth 128 --active 3 --rows 300k --holdout 0.2 --seed 1 -q -o known.h5
train_known() { run sonde train known.h5 --latents 256 --k 3 --batch 1024 --seed 1 -q "$@"; code 0; }

for arch in batchtopk matryoshka; do
    bound=0.88; [ $arch = batchtopk ] || bound=0.80
    it "${arch}_keeps_k_latents_a_row_in_training_and_on_unseen_rows"
    train_known --arch $arch --tokens 512k --log-every 1 -o $arch; every_step $arch 500 3
    run sonde eval $arch known.h5 --json; code 0; out_has '"split": "heldout"'; out_has '"activation": "jumprelu"'
    near "$(number l0)" 3 .02; is_true "$(number n_rows) == 60000"; is_true "$(number explained_variance) > $bound"
    run sonde info $arch; out_has "^trained_as  *$arch$"; out_has '^activation  *jumprelu$'

    it "${arch}_saves_the_same_bits_whatever_threads_and_precision"
    for how in '--threads 1' '--threads 2' '--threads 3' '--threads 1 --precision bf16' '--threads 2 --precision bf16'; do
        # shellcheck disable=SC2086
        train_known --arch $arch --tokens 100k --force $how -o bits
        [ -d first ] || cp -r bits first
        for file in sae_weights.safetensors cfg.json; do cmp -s bits/$file first/$file || fail "$how: another $file"; done
    done
    rm -r first
done

text=$shared_data/text/tinystories.txt
if [ -f "$models/tok512.bin" ] && [ -f "$text" ]; then
    head -c 260000 "$text" >stories.txt
    from=(--model "$models/stories260K.bin" --tokenizer "$models/tok512.bin" --text stories.txt --separator '<|endoftext|>' --hook blocks.2.hook_resid_post
        --holdout 0.3 --seed 5 -q)
    run sonde capture "${from[@]}" -o stories.h5
    learn=(--latents 256 --k 8 --batch 1024 --tokens 204800)
fi
for arch in batchtopk matryoshka; do
    bound=0.80; [ $arch = batchtopk ] || bound=0.77
    it "${arch}_keeps_k_latents_a_row_on_unseen_stories"
    if [ ! -f stories.h5 ]; then skip 'no shared data'; continue; fi
    run sonde train stories.h5 --arch $arch "${learn[@]}" --seed 5 --log-every 1 -q -o stored-$arch; code 0; every_step stored-$arch 200 8
    run sonde eval stored-$arch stories.h5 --json; code 0; near "$(number l0)" 8 .02; is_true "$(number explained_variance) > $bound"
done

it the_model_at_work_and_its_capture_train_equally_well
if [ -f stories.h5 ]; then
    run sonde eval stored-batchtopk stories.h5 --json; cp .out stored
    run sonde train "${from[@]}" "${learn[@]}" -o fresh; code 0
    run sonde eval fresh stories.h5 --json; code 0; near "$(number l0)" 8 .02
    is_true "$(number n_rows) == $(number n_rows stored)"; near "$(number explained_variance)" "$(number explained_variance stored)" .01
    near "$(number fvu)" "$(number fvu stored)" .05
    if cmp -s fresh/sae_weights.safetensors stored-batchtopk/sae_weights.safetensors; then fail 'the order is the same'; fi
    run sonde eval stored-batchtopk stories.h5 --split train --json; n_train=$(number n_rows)
    run sonde eval fresh "${from[@]}" --split train --splice-tokens 0 --json; code 0; is_true "$(number n_rows) == $n_train"
else
    skip 'no shared data'
fi
exit 0
