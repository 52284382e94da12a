#!/bin/bash
# SPDX-License-Identifier: MIT
# What defaults learn from known directions: 128 of them in 64 dimensions, 3 active in a row on average, through the saved file
# and on held-out rows. tests/golden/test_recovery.c has the same set-up with options of its own.
. "$(dirname "$0")/harness.sh"

run sonde synth dictionary --dim 64 --truth 128 --active 3 --rows 400k --seed 1 -o acts.h5 -q
learn() { run sonde train acts.h5 --latents 128 --tokens 1M -q "$@"; code 0; }
# score NAME SAE: the number that eval gives
score() {
    "$sonde" eval "$2" acts.h5 --truth acts.h5 --json -q 2>.err | sed -n "s/^ *\"$1\": \([-0-9.e]*\),*\$/\1/p" | head -n 1
}
is() { awk -v a="$1" -v b="$3" -v c="${4:-0}" "BEGIN { exit !($2) }" || fail "$1 against $3: not $2"; }

it l0_falls_strictly_as_its_coefficient_rises
learn --arch jumprelu --jump-penalty step --grid l0-coef=0.001,0.01,0.1 -o step
low=$(score l0 step/l0-coef0.001) mid=$(score l0 step/l0-coef0.01) high=$(score l0 step/l0-coef0.1)
is "$low" 'a > 1.2 * b' "$mid"; is "$mid" 'a > 1.2 * b' "$high"; is "$high" 'a > b' 1

it a_coefficient_follows_from_k
learn --arch jumprelu --jump-penalty step --grid k=3,12 -o follow
is "$(score l0 follow/k12)" 'a > 1.5 * b' "$(score l0 follow/k3)"

it a_target_is_reached_within_10_percent
for target in 2 3 6; do
    learn --arch jumprelu --target-l0 $target -o target$target
    is "$(score l0 target$target)" 'a > 0.9 * b && a < 1.1 * b' $target
done

it the_saved_threshold_gives_k_within_2_percent
for k in 2 3 6; do
    learn --k $k -o k$k
    is "$(score l0 k$k)" 'a > 0.98 * b && a < 1.02 * b' $k
done

it no_architecture_needs_a_coefficient
for arch in relu relu-2023 gated; do
    learn --arch $arch -o $arch
    l0=$(score l0 $arch) mmcs=$(score mmcs $arch)
    is "$l0" 'a > b && a < c' 2 16; is "$mmcs" 'a > b' 0.7
    echo "$arch: L0 $l0, MMCS $mmcs"
done
