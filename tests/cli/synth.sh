#!/bin/bash
# SPDX-License-Identifier: MIT
# sonde synth as a user runs it.
. "$(dirname "$0")/harness.sh"
. "$source_root/tests/cli/sae_files.sh"

small='--dim 8 --truth 16 --active 2 --rows 3000 --seed 7'
synth() { run sonde synth dictionary "$@"; }
# shellcheck disable=SC2086
synth $small -o want.h5
cp want.h5 kept.h5

it the_result_is_the_path_and_nothing_else
# shellcheck disable=SC2086
synth $small -o acts.h5; code 0; out acts.h5; err ''; cmp -s acts.h5 want.h5 || fail 'the same command gives other bytes'; rm acts.h5

it threads_memory_and_kernels_change_no_byte
for more in '--threads 1' '--threads 3' '--max-memory 64MiB' '--kernel plain'; do
    # shellcheck disable=SC2086
    synth $small $more -o acts.h5; code 0; cmp -s acts.h5 want.h5 || fail "$more changes the file"; rm -f acts.h5
done
for threads in 1 3; do
    # shellcheck disable=SC2086
    synth $small --noise 0.1 --orthogonal 5 --correlation 3:0.2 --hierarchy 2:2:2 --dtype bf16 --threads $threads -o threads$threads.h5; code 0
done
cmp -s threads1.h5 threads3.h5 || fail 'with everything in it threads change the file'

it seeds_change_the_rows
synth --dim 8 --truth 16 --active 2 --rows 3000 --seed 8 -o acts.h5; code 0; cmp -s acts.h5 want.h5 && fail 'the same bytes'
rm acts.h5

it the_file_holds_the_truth
run sonde info want.h5; code 0
for line in '/acts/synthetic  *float32  *\[3000, 8\]' '/truth/directions  *float32  *\[16, 8\]' '/truth/frequency  *float32  *\[16\]' \
    '/truth/parent  *int32  *\[16\]' '/truth/indptr  *int64  *\[3001\]' '/truth/indices  *int32' '/truth/values  *float32' '/truth/bias' \
    '/docs/split' 'generator  *dictionary' 'command  *synth --dim=8 --truth=16'; do out_has "$line"; done

it json_has_the_counts
# shellcheck disable=SC2086
synth $small --json -o acts.h5; code 0
for key in path n_rows n_heldout dim truth true_l0 expected_l0 n_active data_bytes; do out_has "\"$key\": "; done
out_has '"n_heldout": 150'; out_has '"expected_l0": 2.0'; [ "$(sed -n '$p' .out)" = '}' ] || fail 'stdout is not one object'
rm acts.h5

it a_dry_run_writes_nothing
# shellcheck disable=SC2086
synth $small --dry-run; code 0; out_has '^rows        3000 (150 held out) of 8$'; out_has '^latents     16, 2 active in a row on average$'
[ ! -e acts.h5 ] || fail 'there is a file'

it zipf_alone_chooses_zipfs_law
synth --dim 8 --truth 16 --active 2 --zipf 1 --rows 100 -o one.h5; synth --dim 8 --truth 16 --active 2 --frequencies zipf --rows 100 -o two.h5
run sonde info one.h5; out_has 'frequencies  *zipf'; run sonde info two.h5; out_has 'frequencies  *zipf'
synth --dim 8 --truth 16 --active 2 --zipf 1 --frequencies uniform --rows 100 --force -o one.h5; run sonde info one.h5; out_has 'frequencies  *uniform'

it the_example_of_the_benchmark_is_understood
run sonde synth --help; code 0; out_has 'SynthSAEBench'
synth --dim 768 --truth 16384 --frequencies zipf --zipf 0.5 --between 0.4:5e-4 --hierarchy 128:4:3 --scale-children --correlation 25:0.1 \
    --magnitude normal --scale 5:4 --spread 0.5:0.5 --bias 0.5 --rows 1k --seed 42 --dry-run; code 0
out_has '16384, 34.96 active in a row on average'; err_has 'latents are rarer than asked'

it an_existing_output_is_kept_without_force
# shellcheck disable=SC2086
synth $small --seed 9 -o want.h5; code 2; err_is_one_line; err_has 'want.h5'; cmp -s want.h5 kept.h5 || fail 'it was changed'
# shellcheck disable=SC2086
synth $small --seed 9 --force -o want.h5; code 0; cmp -s want.h5 kept.h5 && fail '--force changed nothing'
cp kept.h5 want.h5

it wrong_words_are_refused_by_name
while read -r words message; do
    # shellcheck disable=SC2086
    synth $small ${words//,/ } -o no.h5; code 2; err_is_one_line; err_has "$message"; [ ! -e no.h5 ] || fail "$words wrote a file"
done <<'LIST'
--between,0.4:0.1 --between says what --active would
--correlation,3 should be RANK:SCALE
--correlation,2.5:0.1 should be RANK:SCALE
--hierarchy,3:2 should be ROOTS:BRANCH:DEPTH
--hierarchy,3:2:0 should be ROOTS:BRANCH:DEPTH
--hierarchy,99:2:1 has more than the 16 latents
--hierarchy,1:2:1:1 should be ROOTS:BRANCH:DEPTH
--orthogonal,x should be STEPS or STEPS:RATE
--scale,a:b should be A or A:B
--spread,:: should be S or MEAN:S
--active,17 active latents is 17, it must be
--zipf,3,--active,8 need a first probability of
--noise,-1 noise
--dtype,f64 dtype
LIST
synth --rows 3 --between 0.4 -o no.h5; code 2; err 'sonde synth: --between 0.4: should be FIRST:LAST, two probabilities'
run sonde synth world --rows 3 -o no.h5; code 2; err "sonde synth: nothing is called 'world' here; there is: dictionary"
run sonde synth --rows 3 -o no.h5; code 2; err_is_one_line
run sonde synth dictionary -o no.h5; code 2; err_is_one_line; err_has -- '--rows'
run sonde synth dictionary --rows 3; code 2; err 'sonde synth: no output: -o acts.h5'

it memory_beyond_the_limit_is_refused
synth --dim 1000 --truth 100k --active 2 --rows 10 --max-memory 10MiB -o no.h5; code 5; err_is_one_line; [ ! -e no.h5 ] || fail 'there is a file'

it eval_scores_a_dictionary_against_the_truth
put_sae sae 8 synthetic
run sonde eval sae want.h5 --truth want.h5 --json; code 0; err ''
for key in n_true mmcs mmcs_weighted recall_at_0.9 mcc uniqueness true_l0 f1 precision recall accuracy f1_matched; do out_has "^  \"$key\": [0-9]"; done
out_has '"n_true": 16'; out_has '"n_rows": 150'; out_has '"hook": "synthetic"'
run sonde eval sae want.h5 --truth want.h5 --json --latents; code 0
for key in latent_truth latent_truth_cosine latent_truth_matched latent_f1; do out_has "\"$key\": \["; done
run sonde eval sae want.h5 --truth want.h5 --all-rows; code 0; out_has '^truth$'; out_has '^  mmcs  *0\.[0-9]'; out_has '^  f1  *0\.'
run sonde eval sae want.h5 --json; code 0; grep -q mmcs .out && fail 'scores that nobody asked for'

it eval_compares_directions_where_the_rows_are_others
synth --dim 8 --truth 5 --rows 40 -o other.h5
run sonde eval sae want.h5 --truth other.h5 --json; code 0; err 'sonde eval: other.h5 is about 40 rows, these are 3000: no F1'
out_has '"mcc": '; grep -q '"f1"' .out && fail 'an F1 of nothing'
synth --dim 9 --truth 5 --rows 40 -o wide.h5
run sonde eval sae want.h5 --truth wide.h5; code 2; err 'sonde eval: the dictionary writes rows of 8, the true directions have 9'
run sonde eval sae want.h5 --truth sae/cfg.json; code 3; err_is_one_line
run sonde eval sae want.h5 --truth nothing.h5; code 4; err_is_one_line

it a_stop_leaves_nothing
"$sonde" synth dictionary --dim 64 --truth 1000 --rows 100M --dtype f16 -q -o no.h5 >.out 2>.err & pid=$!
sleep 0.3; kill -TERM $pid; wait $pid; status=$?
[ $status = 75 ] || [ $status = 4 ] || fail "exit status $status"
[ -z "$(ls no.h5* 2>/dev/null)" ] || fail 'something is left'
true
