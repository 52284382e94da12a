#!/bin/bash
# SPDX-License-Identifier: MIT
# Every allocation of a command fails once, and from each on all fail: the result is right, or one line and exit status 5 (4 where
# the system calls it otherwise), never a crash or a wrong result. SONDE_TORTURE_DEEP=1 tries every one, otherwise a sample.
. "$(dirname "$0")/../cli/harness.sh"
shim=${SONDE_BUILD:?}/tests/fault/libtorture.so

mkdir tok
awk 'BEGIN {
    n = 0
    for (b = 33; b <= 126; b++) c[n++] = b
    for (b = 161; b <= 172; b++) c[n++] = b
    for (b = 174; b <= 255; b++) c[n++] = b
    for (b = 256; b < 256 + 68; b++) c[n++] = b
    printf "{"
    for (i = 0; i < n; i++) printf "%s\"\\u%04x\": %d", i ? ", " : "", c[i], i
    printf ", \"th\": 256}\n"
}' >tok/vocab.json
printf '#version: 0.2\nt h\n' >tok/merges.txt
printf 'the text that is cut' >text
header='{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
{ printf '\x4f\0\0\0\0\0\0\0%s' "$header"; head -c 8 /dev/zero; } >w.safetensors
printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': (30,), }" >ids.npy
for ((i = 0; i < 30; i++)); do printf "\\x$(printf %02x $i)\\0\\0\\0"; done >>ids.npy
gpt2=$source_root/tests/golden/models/gpt2

# torture KEEP COMMAND...: KEEP is a file that must come out as without failures, or not at all ('' for none).
torture() {
    local keep=$1 k mode step=1 reached; shift
    "$sonde" "$@" >want 2>.err || { fail "fails without any fault: $(cat .err)"; return; }
    [ -n "$keep" ] && mv "$keep" keep.want
    for mode in once on; do
        for ((k = 0; ; k += step)); do
            : >reached
            env LD_PRELOAD="$shim" TORTURE_AT=$k ${mode:+$([ $mode = on ] && echo TORTURE_ON=1)} timeout 60 "$sonde" "$@" >.out 2>.err 7>reached
            status=$?
            [ -s reached ] || break # every allocation has had its turn
            case $status in
            0)
                cmp -s want .out || fail "$mode $k: status 0, but another result"
                [ -z "$keep" ] || cmp -s "$keep" keep.want || fail "$mode $k: status 0, but another $keep" ;;
            4 | 5) [ "$(grep -c . .err)" -ge 1 ] || fail "$mode $k: status $status and no message" ;;
            *) fail "$mode $k: status $status: $(head -n 1 .err)" ;;
            esac
            if [ -n "$keep" ] && [ "$status" != 0 ] && [ -e "$keep" ]; then fail "$mode $k: status $status, yet $keep is there"; fi
            [ -n "$keep" ] && rm -f "$keep" "$keep.part" "$keep.part.journal"
            [ -n "${SONDE_TORTURE_DEEP:-}" ] || step=$((k / 25 + 1))
            [ "${#why}" -gt 3000 ] && return
        done
        [ "$k" -gt 10 ] || fail "only $k allocations had their turn: the shim does not work"
    done
}

sanitized() { strings -a "$sonde" 2>/dev/null | grep -q -E '__[at]san_init'; }

it info_survives_the_failure_of_any_allocation
if sanitized; then skip 'a sanitizer replaces the allocator'; else
    torture '' info w.safetensors
    torture '' info --json w.safetensors
fi

it tokenize_survives_the_failure_of_any_allocation
if sanitized; then skip 'a sanitizer replaces the allocator'; else
    torture '' tokenize --model tok text
    torture '' tokenize --model tok --json text
fi

it capture_survives_the_failure_of_any_allocation
if sanitized; then skip 'a sanitizer replaces the allocator'; else
    torture acts.h5 capture --model "$gpt2" --ids ids.npy --hook blocks.0.hook_resid_post --threads 1 -q -o acts.h5
fi

llama=$source_root/tests/golden/models/llama
{ # a llama2.c tokenizer of 61 pieces: <unk>, BOS, EOS, then '!' and what follows it
    printf '\x06\0\0\0'
    for piece in '<unk>' $'\n<s>\n' $'\n</s>\n'; do printf "\\0\\0\\0\\0\\x0${#piece}\\0\\0\\0%s" "$piece"; done
    for ((c = 33; c < 33 + 58; c++)); do printf "\\0\\0\\0\\0\\x01\\0\\0\\0\\x$(printf %x $c)"; done
} >tok.bin
printf 'ABC+1\nA9\n;\nXYZ' >capitals

it capture_of_everything_survives_the_failure_of_any_allocation
if sanitized; then skip 'a sanitizer replaces the allocator'; else
    torture acts.h5 capture --model "$llama" --tokenizer tok.bin --text capitals --separator ';' --hook '*' --max-seqs 2 --dtype f16 --loss \
        --logits 3 --shuffle rows --journal 4KiB --threads 2 -q -o acts.h5
fi

it generate_survives_the_failure_of_any_allocation
if sanitized; then skip 'a sanitizer replaces the allocator'; else
    torture '' generate --model "$llama" --tokenizer tok.bin --prompt 'A9' --tokens 6 --temperature 1 --threads 2
    torture '' generate --model "$llama" --tokenizer tok.bin --prompt 'A9' --tokens 6 --json --threads 1
fi
