#!/bin/bash
# SPDX-License-Identifier: MIT
# A dictionary of a real model with nothing but defaults and k: stories260K, blocks.2.hook_resid_post, 1024 latents, trained
# on stories 0-3499, scored on the rest through the saved threshold. SONDE_LONG=1 adds the runs of 10 M tokens (minutes).
. "$(dirname "$0")/harness.sh"
data=$source_root/../shared/data

need_stories() {
    [ -f "$data/models/stories260K/stories260K.bin" ] || { skip 'no ../shared/data'; return 1; }
    model=(--model "$data/models/stories260K/stories260K.bin" --tokenizer "$data/models/stories260K/tok512.bin"
        --separator '<|endoftext|>' --context 512 --hook blocks.2.hook_resid_post)
    if [ ! -f "$work/train.txt" ]; then
        awk -v train="$work/train.txt" -v test="$work/test.txt" \
            '/^<\|endoftext\|>$/ { n++ } { print > (n < 3500 ? train : test) }' "$data/text/tinystories.txt"
    fi
}

# score NAME KEY: a number of the evaluation in NAME.json
score() { sed -n "s/^ *\"$2\": \([-0-9.e]*\),*\$/\1/p" "$work/$1.json" | head -n 1; }

# within NAME KEY LOW HIGH
within() {
    local v
    v=$(score "$1" "$2")
    awk -v v="$v" -v lo="$3" -v hi="$4" 'BEGIN { exit !(v != "" && v >= lo && v <= hi) }' ||
        fail "$1: $2 is '$v', it must lie within $3 and $4"
}

train() { # TOKENS K NAME
    "$SONDE" train "${model[@]}" --text "$work/train.txt" --latents 1024 --k "$2" --tokens "$1" -q -o "$work/$3" >"$work/.out" ||
        fail "train $3 failed"
    "$SONDE" eval "$work/$3" "${model[@]}" --text "$work/test.txt" --split all --json -q >"$work/$3.json" || fail "eval $3 failed"
}

it a_million_and_a_half_tokens_make_a_good_dictionary
if need_stories; then
    train 1500k 16 short
    within short explained_variance .93 1
    within short ce_delta 0 .17
    within short l0 15.68 16.32
    within short dead_features 0 0
fi

it ten_million_tokens_make_a_better_one
if [ -z "${SONDE_LONG:-}" ]; then
    skip 'SONDE_LONG is not set'
elif need_stories; then
    train 10M 4 k4
    within k4 explained_variance .93 1
    within k4 ce_delta 0 .17
    within k4 l0 3.92 4.08
    train 10M 16 k16
    within k16 explained_variance .955 1
    within k16 ce_delta 0 .08
    within k16 l0 15.68 16.32
    within k16 dead_features 0 0
fi
cd "$work" || exit 1
