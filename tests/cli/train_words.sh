#!/bin/bash
# SPDX-License-Identifier: MIT
# The words of sonde train: what is refused, and what is printed.
. "$(dirname "$0")/harness.sh"

"$sonde" synth dictionary --dim 8 --truth 16 --rows 4000 --seed 1 -q -o acts.h5 >/dev/null || exit 1

it an_unknown_architecture_gets_the_nearest_or_all_of_them
run sonde train acts.h5 --arch batchtok -o x; code 2; out ''; err "sonde train: no architecture 'batchtok'; did you mean 'batchtopk'?"
run sonde train acts.h5 --arch foo -o x; code 2; err_has "no architecture 'foo'; there are batchtopk, topk, "
run sonde train acts.h5 --grid arch=topk,foo -o x; code 2; err_has "no architecture 'foo'"

it names_of_architectures_in_other_tools_are_known
run sonde train acts.h5 --arch standard -o x; code 2; err "sonde train: no architecture 'standard'; here it is called 'relu'"
run sonde train acts.h5 --arch matryoshka_batchtopk -o x; code 2; err_has "here it is called 'matryoshka'"

it an_option_that_would_do_nothing_is_refused
run sonde train acts.h5 --arch jumprelu --l1-coef 3 -o x; code 2; out ''; err 'sonde train: --l1-coef does nothing with --arch jumprelu; it is for relu, relu-2023, gated'
run sonde train acts.h5 --target-l0 3 -o x; code 2; err_has '^sonde train: --target-l0 does nothing with --arch batchtopk; it is for jumprelu$'
run sonde train acts.h5 --arch relu --resample-every 9 -o x; code 2; err_has 'it is for relu-2023$'
run sonde train acts.h5 --latents 32 --expansion 4 -o x; code 2; err_has 'give one of them$'
run sonde train acts.h5 --grid arch=relu,topk --k 3 --dry-run; code 0; err ''

it k_does_nothing_for_relu_and_a_note_says_so
run sonde train acts.h5 --arch relu --k 3 --dry-run; code 0; err 'sonde train: --k does nothing with --arch relu; it is for batchtopk, topk, matryoshka, jumprelu'

it dry_run_prints_words_for_choices
run sonde train acts.h5 --arch jumprelu --dry-run; code 0; err ''
for line in '^arch  *jumprelu$' '^schedule  *linear$' '^normalize  *mean-square$' '^jump_penalty  *target$' '^unit_decoder  *true$' '^bias_init  *mean$'; do out_has "$line"; done
run sonde train acts.h5 --normalize layer --schedule cosine --loss sum --bias-init zero --dry-run --json; code 0; err ''
for line in '"normalize": "layer"' '"schedule": "cosine"' '"loss": "sum"' '"bias_init": "zero"' '"n_train_rows": 3800'; do out_has "$line"; done

it the_path_is_the_result
run sonde train acts.h5 --latents 16 --k 3 --tokens 8k -o sae; code 0; out sae; err_is_one_line; err_has '^sonde train: sae: explained variance [0-9.-]*, L0 '

it a_directory_is_no_file_of_activations
run sonde train sae -o x; code 3; out ''; err 'sonde train: sae: is a directory; activations are one file, ACTS.h5, ANY.h5:/DATASET or ACTS.npy'
run sonde eval sae sae; code 3; err_has 'sae: is a directory; activations are one file'

it an_unfinished_run_is_told_from_a_dictionary
cp -r sae part; rm part/cfg.json part/sae_weights.safetensors
for command in 'eval part acts.h5' 'encode part acts.h5 -o x' 'convert part x' 'info part'; do
    # shellcheck disable=SC2086
    run sonde $command; code 3; out ''
    err "sonde ${command%% *}: part: holds a training run that is not finished, no dictionary yet; sonde train --resume goes on with it"
done
