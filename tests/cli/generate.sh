#!/bin/bash
# SPDX-License-Identifier: MIT
# sonde generate as a user runs it.
. "$(dirname "$0")/harness.sh"

models=$source_root/tests/golden/models
stories=$shared_data/models/stories260K

# A llama2.c tokenizer of 61 pieces for the golden llama: <unk>, BOS, EOS, then '!' and what follows it.
{
    printf '\x06\0\0\0'
    for piece in '<unk>' $'\n<s>\n' $'\n</s>\n'; do printf "\\0\\0\\0\\0\\x0${#piece}\\0\\0\\0%s" "$piece"; done
    for ((c = 33; c < 33 + 58; c++)); do printf "\\0\\0\\0\\0\\x01\\0\\0\\0\\x$(printf %x $c)"; done
} >tok.bin
generate() { run sonde generate --model "$models/llama" --tokenizer tok.bin "$@"; }

it the_prompt_and_its_continuation_are_the_result
generate --prompt '+A9' --tokens 12; code 0; err ''
case $(cat .out) in '+A9'*) ;; *) fail 'it does not begin with the prompt' ;; esac
cp .out want

it threads_kernels_and_repetition_change_no_letter
for more in '--threads 1' '--threads 2' '--threads 3' '--kernel plain' '--max-memory 1GiB'; do
    # shellcheck disable=SC2086
    generate --prompt '+A9' --tokens 12 $more; code 0; cmp -s .out want || fail "$more: another text"
done

it a_seed_decides_a_sample
generate --prompt '+A9' --tokens 20 --temperature 5 --top-p 0.9 --seed 1; code 0; cp .out one
generate --prompt '+A9' --tokens 20 --temperature 5 --top-p 0.9 --seed 1 --threads 3; cmp -s .out one || fail 'the same seed gives another text'
generate --prompt '+A9' --tokens 20 --temperature 5 --top-p 0.9 --seed 2; cmp -s .out one && fail 'another seed gives the same text'
generate --prompt '+A9' --tokens 9 --temperature 5 --top-p 0.9 --seed 1; n=$(wc -c <.out)
head -c "$n" one | cmp -s - .out || fail 'a shorter text is not the beginning of a longer one'

it json_holds_text_and_ids
generate --prompt '+A9' --tokens 12 --json; code 0; err ''
for key in text ids n_prompt; do out_has "\"$key\": "; done
n=$(tr -d ' \n' <.out | sed 's/.*"ids":\[\([^]]*\)\].*/\1/' | tr , '\n' | wc -l)
m=$(sed -n 's/^ *"n_prompt": \([0-9]*\),*$/\1/p' .out)
[ "$n" -gt "$m" ] && [ "$n" -le $((m + 12)) ] || fail "$n ids, $m of the prompt"

it no_token_at_all_is_the_prompt
generate --prompt '+A9' --tokens 0; code 0; out '+A9'

it a_prompt_longer_than_the_context_is_refused
generate --prompt "$(head -c 80 /dev/zero | tr '\0' A)" --tokens 1; code 2; out ''; err_is_one_line
err_has 'the prompt has [0-9]* tokens, this model.s context is 64'

it an_empty_prompt_begins_with_bos_or_is_refused
generate --tokens 5; code 0; err ''
generate --bos never --tokens 5; [ "$status" = 0 ] || [ "$status" = 2 ] || fail "exit status $status"

it numbers_out_of_range_are_refused
for bad in '--temperature -1' '--temperature nan' '--top-p 0' '--top-p 1.5' '--tokens -1' '--tokens x'; do
    # shellcheck disable=SC2086
    generate --prompt A $bad; code 2; out ''; err_is_one_line
done

it a_model_without_tokenizer_says_how_to_name_one
run sonde generate --model "$models/llama" --prompt A; code 3; out ''; err_is_one_line; err_has 'no tokenizer in the model (--tokenizer FILE names one)'

it a_tokenizer_of_another_model_is_refused
run sonde generate --model "$models/tl_attn_only" --tokenizer tok.bin --prompt A
if [ "$status" != 0 ]; then code 3; err_is_one_line; err_has 'the tokenizer has 61 tokens, the model.s vocabulary'; fi

it a_bidirectional_model_is_refused
v=$(sed -n 's/.*"d_vocab": *\([0-9]*\).*/\1/p' "$models/tl_bidirectional/config.json")
head -c $((4 + 13 + 13 + 14 + 9 * (v - 3))) tok.bin >tok_small.bin
run sonde generate --model "$models/tl_bidirectional" --tokenizer tok_small.bin --prompt '!'; [ "$status" = 2 ] || [ "$status" = 3 ] || fail "exit status $status"; err_is_one_line

it a_small_memory_limit_is_exit_5
generate --prompt A --max-memory 20KiB; code 5; out ''; err_is_one_line; err_has 'needs [0-9]* bytes more, the memory limit is 20480'

it a_full_disk_or_a_reader_that_leaves_ends_it
"$sonde" generate --model "$models/llama" --tokenizer tok.bin --prompt A --tokens 50 >/dev/full 2>.err; status=$?
code 4; err_is_one_line; err_has 'standard output: No space left on device'
{ "$sonde" generate --model "$models/llama" --tokenizer tok.bin --prompt A --tokens 50; echo $? >.status; } 2>.err | true
[ "$(cat .status)" = 141 ] || [ "$(cat .status)" = 0 ] || fail "exit status $(cat .status)"
err ''

# ---- a real model

it greedy_stories_are_those_of_llama2c
if [ -f "$stories/stories260K.bin" ]; then
    for file in stories260K.bin stories260K_v1.bin; do
        run sonde generate --model "$stories/$file" --tokenizer "$stories/tok512.bin" --tokens 200; code 0; err ''
        cmp -s .out "$stories/stories260K.expected.txt" || fail "$file: another text"
    done
else skip 'no ../shared/data'; fi

it a_text_ends_where_the_model_ends_it
if [ -f "$stories/stories260K.bin" ]; then
    run sonde generate --model "$stories/stories260K.bin" --tokenizer "$stories/tok512.bin" --prompt 'The end.' --temperature 1 --seed 3 --tokens 500 --json; code 0
    n=$(tr -d ' \n' <.out | sed 's/.*"ids":\[\([^]]*\)\].*/\1/' | tr , '\n' | wc -l)
    [ "$n" -le 512 ] || fail "$n ids in a context of 512"
    if grep -q '<s>' .out; then fail 'the token that ends the text is printed'; fi
else skip 'no ../shared/data'; fi
