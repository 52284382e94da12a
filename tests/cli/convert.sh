#!/bin/bash
# SPDX-License-Identifier: MIT
# sonde convert, and sonde info on dictionaries
. "$(dirname "$0")/harness.sh"

# put_tensors FILE NAME SHAPE N ...: float32 tensors of N elements, all 2.0.
put_tensors() {
    local file=$1 header='{' at=0 total=0 i n; shift
    while [ $# -gt 0 ]; do
        header="$header\"$1\":{\"dtype\":\"F32\",\"shape\":$2,\"data_offsets\":[$at,$((at + 4 * $3))]}"
        at=$((at + 4 * $3)) total=$((total + $3)); shift 3
        [ $# -eq 0 ] || header="$header,"
    done
    header="$header}"; n=${#header}
    for ((i = 0; i < 8; i++)); do printf "\\x$(printf %02x $((n >> 8 * i & 255)))"; done >"$file"
    printf '%s' "$header" >>"$file"
    for ((i = 0; i < total; i++)); do printf '\x00\x00\x00\x40'; done >>"$file"
}

# put_cfg DIR ARCH MORE
put_cfg() {
    echo "{\"architecture\":\"$2\",\"d_in\":4,\"d_sae\":6,$3\"metadata\":{\"sae_lens_version\":\"6.20.0\",\"model_name\":\"gpt2\",\"hook_name\":\"blocks.1.hook_resid_post\"}}" >"$1/cfg.json"
}

matrices='W_enc [4,6] 24 W_dec [6,4] 24 b_dec [4] 4'
mkdir topk gated plain
put_tensors topk/sae_weights.safetensors $matrices b_enc '[6]' 6
put_cfg topk topk '"k":2,'
put_tensors gated/sae_weights.safetensors $matrices b_gate '[6]' 6 b_mag '[6]' 6 r_mag '[6]' 6
put_cfg gated gated ''
put_tensors plain/sae_weights.safetensors $matrices b_enc '[6]' 6
put_tensors plain/sparsity.safetensors sparsity '[6]' 6
put_cfg plain standard ''

it a_dictionary_is_described
run sonde info topk; code 0; err ''
for line in '^format  *SAE$' '^file_format  *saelens$' '^activation  *topk$' '^n_latents  *6$' '^d_in  *4$' '^k  *2$' \
    '^n_parameters  *58$' '^subtracts_b_dec  *true$' '^  hook_name  *blocks.1.hook_resid_post$' '^identity  *[0-9a-f]*$'; do out_has "$line"; done
run sonde info --json plain/sae_weights.safetensors; code 0; err ''
for key in activation n_latents encoder_norm decoder_norm l0 dead_features metadata identity; do out_has "\"$key\": "; done
out_has '"mean": 4.0'; out_has '"l0": 599.99'

it a_round_trip_loses_nothing
run sonde convert topk once; code 0; err ''; out_has '^path  *once$'; out_has '^from  *saelens$'
run sonde convert once there --to sparsify; code 0; err ''; out_has '^to  *sparsify$'
run sonde convert there back; code 0; err ''; out_has '^from  *sparsify$'
diff -r once back >diff.txt || fail "$(cat diff.txt)"

it an_existing_result_is_kept
run sonde convert topk back; code 2; err_has 'exists already; --force replaces it'; out ''
run sonde convert topk back --force; code 0
run sonde convert topk -o new; code 0; [ -e new/cfg.json ] || fail 'nothing in new'

it a_dry_run_writes_nothing
run sonde convert topk --to sparsify --dry-run; code 0; out_has '^n_latents  *6$'
run sonde convert topk dry --dry-run --json; code 0; out_has '"to": "saelens"'; [ ! -e dry ] || fail 'dry is there'

it json_has_the_facts
run sonde convert gated jump --gated-to-jumprelu --no-pre-bias --unit-norm-decoder --json; code 0; err ''
for key in path from to activation n_latents threshold decoder_norm changes identity; do out_has "\"$key\": "; done
out_has '"activation": "jumprelu"'; out_has '"gated to jumprelu"'; out_has '"subtracts_b_dec": false'
grep -q '"architecture": "jumprelu"' jump/cfg.json || fail 'not a jumprelu'

it what_a_format_cannot_hold_is_refused_with_what_can
run sonde convert gated x --to sparsify; code 2; out ''; err_is_one_line; err_has 'topk and groupmax, not gated; saelens does'
run sonde convert topk x --unit-norm-decoder; code 2; err_has 'would change which latents win'
run sonde convert topk x --gated-to-jumprelu; code 2; err_has 'not gated'
[ ! -e x ] || fail 'x is there'

it misused_options_are_told
run sonde convert topk; code 2; err_has 'sonde convert IN OUT'
run sonde convert topk x --to saelans; code 2; err_has "no format 'saelans'; did you mean 'saelens'"
run sonde convert topk x -o y; code 2; err_has 'named twice'
run sonde convert topk x --pre-bias --no-pre-bias; code 2; err_has 'only one of'

it files_that_are_none_are_refused
run sonde convert nowhere x; code 4; err_is_one_line
echo hello >text; run sonde convert text x; code 3; err_is_one_line; err_has 'does not look like a dictionary'
mkdir half; cp topk/sae_weights.safetensors half; run sonde convert half x; code 3; err_has 'unfinished'
run sonde info half; code 3; err_has 'unfinished'
mkdir cut; cp topk/cfg.json cut; head -c 300 topk/sae_weights.safetensors >cut/sae_weights.safetensors
run sonde convert cut x; code 3; err_is_one_line
mkdir wide; cp topk/sae_weights.safetensors wide; put_cfg wide standard '"d_out":4,'; sed -i 's/"d_in":4/"d_in":5/' wide/cfg.json
run sonde convert wide x; code 3; err_has "'W_enc' has shape \[4, 6\], this dictionary needs \[5, 6\]"

it a_layout_of_our_own_is_told
mkdir skip
put_tensors skip/sae.safetensors encoder.weight '[6,4]' 24 encoder.bias '[6]' 6 W_dec '[6,4]' 24 b_dec '[4]' 4 W_skip '[4,4]' 16
echo '{"activation":"topk","num_latents":6,"k":2,"skip_connection":true,"transcode":true,"d_in":4}' >skip/cfg.json
run sonde convert skip own; code 0; err_has 'SAELens has no topk of this kind'; out_has '^skip_connection  *true$'
run sonde convert own skip2 --to sparsify -q; code 0; err ''
run sonde convert skip2 own2 -q; code 0; diff -r own own2 >diff.txt || fail "$(cat diff.txt)"
true
