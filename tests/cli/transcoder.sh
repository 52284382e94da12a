#!/bin/bash
# SPDX-License-Identifier: MIT
# A transcoder and a skip transcoder of a layer's MLP, from capture to circuit-tracer's format and back.
. "$(dirname "$0")/harness.sh"

model=$source_root/tests/golden/models/gpt2
number() { sed -n "s/^ *\"$1\": \([-0-9.e]*\),*\$/\1/p" "${2:-.out}" | head -1; }
is_true() { awk "BEGIN { exit !($1) }" || fail "$1"; }
# put_ids FILE ROWS COLUMNS VOCABULARY: random ids above 0
put_ids() {
    printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': ($2, $3), }" >"$1"
    # shellcheck disable=SC2059
    printf "$(awk -v n=$(($2 * $3)) -v v="$4" 'BEGIN { x = 1; for (i = 0; i < n; i++) { x = x * 16807 % 2147483647;
        printf "\\x%02x\\0\\0\\0", 1 + int(x / 2147483647 * (v - 1)) } }')" >>"$1"
}
put_ids ids.npy 800 24 83
text=(--model "$model" --ids ids.npy --holdout 0.25 --seed 3)
hooks=(--hook blocks.1.ln2.hook_normalized --hook-out blocks.1.hook_mlp_out)

it both_sides_of_the_mlp_are_captured
run sonde capture "${text[@]}" --hook blocks.1.ln2.hook_normalized --hook blocks.1.hook_mlp_out -q -o acts.h5; code 0; err ''
run sonde info acts.h5 --json; out_has 'blocks.1.ln2.hook_normalized'; out_has 'blocks.1.hook_mlp_out'

it a_transcoder_explains_the_mlp_and_a_linear_path_helps
learn=(--latents 112 --k 4 --batch 512 --tokens 200k --seed 1 -q)
run sonde train acts.h5 "${hooks[@]}" "${learn[@]}" -o plain; code 0; err ''
run sonde train acts.h5 "${hooks[@]}" "${learn[@]}" --skip -o skip; code 0; err ''
for tc in plain skip; do
    run sonde eval $tc acts.h5 --json; code 0; err ''; cp .out $tc.json
    for line in '"hook": "blocks.1.ln2.hook_normalized"' '"hook_out": "blocks.1.hook_mlp_out"' '"split": "heldout"' '"d_out": 28'; do out_has "$line"; done
    is_true "$(number l0) > 3.8 && $(number l0) < 4.3"
done
is_true "$(number explained_variance plain.json) > .70"; is_true "$(number explained_variance skip.json) > .85"
is_true "$(number fvu skip.json) < .6 * $(number fvu plain.json)"

it the_metadata_tell_what_it_is
run sonde info skip; code 0
for line in '^skip_connection  *true$' '^d_in  *28$' '^d_out  *28$' '^n_latents  *112$' '^ *hook_name  *blocks.1.ln2.hook_normalized$' \
    '^ *hook_name_out  *blocks.1.hook_mlp_out$' '^subtracts_b_dec  *false$'; do out_has "$line"; done
run sonde info plain; out_has '^skip_connection  *false$'

it in_the_model_it_stands_in_for_the_mlp
for tc in plain skip; do
    run sonde eval $tc "${text[@]}" --json; code 0; err ''; cp .out $tc.model
    for key in l0 explained_variance fvu n_rows; do
        [ "$(number $key $tc.model)" = "$(number $key $tc.json)" ] || fail "$tc: $key is $(number $key $tc.json) of the file, $(number $key) of the model"
    done
    is_true "$(number kl_div_score) > .8"; is_true "$(number kl_div_with_ablation) > 1"
    is_true "$(number ce_loss_with_ablation) > $(number ce_loss_without_sae)"
done
is_true "$(number kl_div_with_sae skip.model) < .7 * $(number kl_div_with_sae plain.model)"
[ "$(number kl_div_with_ablation skip.model)" = "$(number kl_div_with_ablation plain.model)" ] || fail 'the ablation differs'

it circuit_tracer_and_back_it_is_the_same
for tc in plain skip; do
    run sonde convert $tc $tc-ct --to circuit_tracer; code 0; err ''
    [ -f $tc-ct/config.yaml ] && [ -f $tc-ct/layer_1.safetensors ] || fail "no $tc-ct/layer_1.safetensors"
    run sonde convert $tc-ct $tc-back; code 0; err ''
    cmp -s $tc/sae_weights.safetensors $tc-back/sae_weights.safetensors || fail "$tc: other weights"
    run sonde eval $tc-back acts.h5 "${hooks[@]}" --json; code 0; cp .out back.json
    for key in l0 explained_variance fvu n_rows; do
        [ "$(number $key back.json)" = "$(number $key $tc.json)" ] || fail "$tc: $key is $(number $key $tc.json), then $(number $key back.json)"
    done
    run sonde eval $tc-ct acts.h5 "${hooks[@]}" --json; code 0
    [ "$(number fvu)" = "$(number fvu $tc.json)" ] || fail "$tc: read from circuit-tracer's files it explains something else"
    for key in identity skip_connection hook_name hook_name_out; do
        [ "$("$sonde" info $tc | sed -n "s|^ *$key  *||p")" = "$("$sonde" info $tc-back | sed -n "s|^ *$key  *||p")" ] || fail "$tc: another $key"
    done
done

it the_model_at_work_trains_it_too
run sonde train "${text[@]}" "${hooks[@]}" --latents 112 --k 4 --batch 512 --tokens 100k --skip -q -o fresh; code 0; err ''
run sonde train acts.h5 "${hooks[@]}" --latents 112 --k 4 --batch 512 --tokens 100k --seed 3 --skip -q -o stored; code 0
run sonde eval fresh acts.h5 --json; code 0; fresh=$(number fvu); run sonde eval stored acts.h5 --json; is_true "$fresh < 1.1 * $(number fvu) && $(number fvu) < 1.1 * $fresh"
exit 0
