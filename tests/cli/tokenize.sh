#!/bin/bash
# SPDX-License-Identifier: MIT
# sonde tokenize
. "$(dirname "$0")/harness.sh"

# A byte-level BPE of 256 bytes and two merges, made here, so that every id can be told by hand:
# ids 0..255 stand for the bytes in GPT-2's order of characters; 256 is "th", 257 "the".
make_tokenizer() {
    mkdir -p "$1"
    awk 'BEGIN {
        n = 0
        for (b = 33; b <= 126; b++) c[n++] = b
        for (b = 161; b <= 172; b++) c[n++] = b
        for (b = 174; b <= 255; b++) c[n++] = b
        for (b = 256; b < 256 + 68; b++) c[n++] = b
        printf "{"
        for (i = 0; i < n; i++) printf "\"\\u%04x\": %d, ", c[i], i
        printf "\"th\": 256, \"the\": 257}\n"
    }' >"$1/vocab.json"
    printf '#version: 0.2\nt h\nth e\n' >"$1/merges.txt"
}
make_tokenizer tok

it one_token_per_line_with_its_bytes
printf 'the\xc3\xa9\n' >text
run sonde tokenize --model tok text; code 0; err ''
out "$(printf '257\t0\t3\tthe\n127\t3\t4\t\\xc3\n102\t4\t5\t\\xa9\n198\t5\t6\t\\n')"

it ids_alone_are_separated_by_spaces
run sonde tokenize --model tok --ids text; code 0; out '257 127 102 198'
run_from text sonde tokenize --model tok --ids; code 0; out '257 127 102 198'
run_from text sonde tokenize --model tok --ids -; code 0; out '257 127 102 198'

it offsets_alone_have_three_columns
run sonde tokenize --model tok --offsets text; code 0; out "$(printf '257\t0\t3\n127\t3\t4\n102\t4\t5\n198\t5\t6')"

it json_is_one_object
run sonde tokenize --model tok --json text; code 0; out_has '"n_tokens": 4,'; out_has '"ids": \[257, 127, 102, 198\]'
out_has '"begin": \[0, 3, 4, 5\]'; out_has '"end": \[3, 4, 5, 6\]'; out_has '"text": \["the", "\\\\xc3", "\\\\xa9", "\\\\n"\]'

it decoding_gives_back_the_exact_bytes
head -c 20000 /dev/urandom >random; printf 'the other\0 thing \xff\xfe' >>random
"$sonde" tokenize --model tok --ids random >ids; "$sonde" tokenize --model tok --decode ids >back
cmp -s random back || fail 'bytes differ after decode'
printf '[257,127,\n 102]' >list; run sonde tokenize --model tok --decode list; code 0; out "$(printf 'the\xc3\xa9')"

it the_empty_text_has_no_tokens
: >empty; run sonde tokenize --model tok empty; code 0; out ''
run sonde tokenize --model tok --ids empty; code 0; out ''
run sonde tokenize --model tok --decode empty; code 0; out ''

it an_id_outside_the_vocabulary_is_wrong_use
echo 258 >ids; run sonde tokenize --model tok --decode ids; code 2; out ''; err_is_one_line; err_has 258
echo 99999999999 >ids; run sonde tokenize --model tok --decode ids; code 3; err_is_one_line
echo 1 -2 >ids; run sonde tokenize --model tok --decode ids; code 3; err_is_one_line

it two_output_forms_at_once_are_wrong_use
run sonde tokenize --model tok --ids --json text; code 2; err_is_one_line

it a_missing_tokenizer_is_named
run sonde tokenize text; code 2; err 'sonde tokenize: which tokenizer? --model DIR or --tokenizer FILE'
run sonde tokenize --model nowhere text; [ "$status" = 3 ] || [ "$status" = 4 ] || fail "exit status $status"
err_is_one_line; err_has nowhere

it a_missing_text_is_named
run sonde tokenize --model tok nothing; code 4; err 'sonde tokenize: nothing: No such file or directory'
run sonde tokenize --model tok .; code 4; err_is_one_line

it a_bad_choice_lists_the_good_ones
run sonde tokenize --model tok --bos perhaps text; code 2; err 'sonde tokenize: --bos perhaps: must be one of auto|always|never'

it a_megabyte_of_one_letter_is_quick
head -c 1000000 /dev/zero | tr '\0' a >long
run timeout 20 "$sonde" tokenize --model tok --ids long; code 0
[ "$(wc -w <.out)" = 1000000 ] || fail "$(wc -w <.out) ids"

it real_tokenizers_give_the_published_ids
if [ -d "$shared_data/tokenizers/gpt2" ]; then
    printf 'Hello world' >hello
    run sonde tokenize --tokenizer "$shared_data/tokenizers/gpt2" --ids hello; code 0; out '15496 995'
else skip 'no ../shared/data'; fi

it an_option_value_beginning_with_dashes_needs_the_equals_sign
run sonde tokenize --model --ids; code 2
err "sonde tokenize: --model needs a value; if it is '--ids', write --model=--ids"

it completion_for_bash_knows_the_choices
"$sonde" help --bash >completion
run bash --norc -c '. ./completion
    try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _sonde; echo "${COMPREPLY[*]}"; }
    try sonde tok; try sonde tokenize --dec; try sonde tokenize --bos a'
code 0; out "$(printf 'tokenize\n--decode\nauto always')"
