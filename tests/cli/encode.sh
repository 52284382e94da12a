#!/bin/bash
# SPDX-License-Identifier: MIT
# sonde encode as a user runs it.
. "$(dirname "$0")/harness.sh"
. "$source_root/tests/cli/sae_files.sh"

put_sae sae 4 blocks.1.hook_resid_post
put_rows rows.npy 200 4
nothing_left() {
    local left; left=$(find . -name 'latents.h5*' -o -name '.sonde-*')
    [ -z "$left" ] || { fail "leaves $left"; rm -rf latents.h5*; }
}

it the_path_is_the_result
run sonde encode sae rows.npy -o latents.h5; code 0; out latents.h5; err_is_one_line; err_has '^sonde encode: 200 rows, [0-9.]* latents active in each$'
[ -z "$(find . -name '*.part*' -o -name '.sonde-*')" ] || fail 'something is left'
run sonde info latents.h5; code 0
for line in 'format  *sonde-latents' '/indptr  *int64  *\[201\]' '/indices  *int32' '/values  *float32' '/rows/token  *int64  *\[200\]' 'sae_sha256' 'command  *encode '; do out_has "$line"; done

it an_existing_file_is_kept_without_force
cp latents.h5 before.h5; run sonde encode sae rows.npy -o latents.h5; code 2; out ''; err 'sonde encode: latents.h5: exists already; --force replaces it'
cmp -s latents.h5 before.h5 || fail 'it was changed'
run sonde encode sae rows.npy --force -q -o latents.h5; code 0; err ''; cmp -s latents.h5 before.h5 || fail 'the same run gives other bytes'
rm latents.h5

it json_tells_the_sizes
run sonde encode sae rows.npy --json --split heldout -o latents.h5; code 0; err ''
for line in '"path": "latents.h5"' '"n_rows": 10' '"n_latents": 8' '"n_entries": ' '"l0": '; do out_has "$line"; done
rm latents.h5

it what_cannot_be_written_leaves_nothing
run sonde encode sae rows.npy; code 2; err 'sonde encode: no output: -o latents.h5'
run sonde encode sae rows.npy -o missing/latents.h5; code 4; err_is_one_line; err_has missing
mkdir dir; run sonde encode sae rows.npy --force -o dir; code 2; err_is_one_line; rmdir dir
run sonde encode sae nothing.npy -o latents.h5; code 4; err_is_one_line; nothing_left
put_sae wide 5 x; run sonde encode wide rows.npy -o latents.h5; code 2; err_is_one_line; nothing_left
run sonde encode sae; code 2; err_is_one_line

it bfloat16_gives_the_same_latents
run sonde encode sae rows.npy --precision bf16 --json -o wide.h5; code 0; run sonde encode sae rows.npy --force -q -o latents.h5
cmp -s latents.h5 before.h5 && cmp -s wide.h5 before.h5 || fail 'other bytes, or it is in the command that the file tells'
run sonde encode sae rows.npy --precision f64 -o wide.h5; code 2; err_is_one_line; err_has 'f32|bf16'
rm -f latents.h5 wide.h5

it the_part_of_a_killed_run_is_no_hindrance
echo half >latents.h5.part; run sonde encode sae rows.npy -q -o latents.h5; code 0; cmp -s latents.h5 before.h5 || fail 'another file'
[ ! -e latents.h5.part ] || fail 'the .part is left'
exit 0
