#!/bin/bash
# SPDX-License-Identifier: MIT
# Memory that runs out while a dictionary is trained: at any allocation one line and exit status 5 (4 where the system calls it
# otherwise), and --resume gives the bytes of a run that had enough. SONDE_TORTURE_DEEP=1 tries every allocation, otherwise a sample.
. "$(dirname "$0")/../cli/harness.sh"
. "$source_root/tests/cli/sae_files.sh"
shim=${SONDE_BUILD:?}/tests/fault/libtorture.so
files='sae_weights.safetensors sparsity.safetensors cfg.json run.json log.jsonl'
sanitized() { strings -a "$sonde" 2>/dev/null | grep -q -E '__[at]san_init'; }
put_rows rows.npy 100 6

same_sae() { # same_sae WHAT: the dictionary in sae is the one wanted
    local f
    for f in $files; do cmp -s "sae/$f" "want/$f" || { fail "$1: another $f"; return; }; done
}

# torture MODE COMMAND...: MODE once or on
torture() {
    local mode=$1 k step=1; shift
    for ((k = 0; ; k += step)); do
        : >reached; rm -rf sae
        env LD_PRELOAD="$shim" TORTURE_AT=$k ${mode:+$([ "$mode" = on ] && echo TORTURE_ON=1)} timeout 60 "$sonde" "$@" -o sae >.out 2>.err 7>reached
        status=$?
        [ -s reached ] || break # every allocation has had its turn
        case $status in
        0) same_sae "$mode $k" ;;
        4 | 5)
            [ "$(grep -c . .err)" -ge 1 ] || fail "$mode $k: status $status and no message"
            [ -e sae/cfg.json ] && same_sae "$mode $k, status $status"
            if [ -e sae/run.json ] && [ ! -e sae/cfg.json ]; then
                "$sonde" "$@" -o sae --resume >.out 2>.err; status=$?
                [ $status = 0 ] || fail "$mode $k: --resume ends with $status: $(head -n 1 .err)"
                same_sae "$mode $k, resumed"
            fi ;;
        *) fail "$mode $k: status $status: $(head -n 1 .err)" ;;
        esac
        [ -n "${SONDE_TORTURE_DEEP:-}" ] || step=$((k / 40 + 1))
        [ "${#why}" -gt 3000 ] && return
    done
    [ "$k" -gt 100 ] || fail "only $k allocations had their turn: the shim does not work"
}

train='train rows.npy --tokens 600 --batch 64 --latents 24 --k 2 --checkpoint-steps 4 --log-every 3'

for mode in once on; do
    it "training_survives_the_failure_of_any_allocation_$mode"
    if sanitized; then skip 'a sanitizer replaces the allocator'; else
        rm -rf want
        # shellcheck disable=SC2086
        run sonde $train --threads 1 -o want; code 0
        # shellcheck disable=SC2086
        torture $mode $train --threads 1 -q
    fi
done

it every_architecture_survives_the_failure_of_allocations
if sanitized; then skip 'a sanitizer replaces the allocator'; else
    for more in 'topk --dead-window 100' 'matryoshka' 'jumprelu' 'relu' 'relu-2023 --resample-every 200 --resample-times 2 --dead-window 100' 'gated'; do
        rm -rf want
        # shellcheck disable=SC2086
        run sonde $train --arch $more --threads 2 -o want; code 0
        for ((k = 60; k < 700; k += 61)); do
            rm -rf sae
            # shellcheck disable=SC2086
            env LD_PRELOAD="$shim" TORTURE_AT=$k timeout 60 "$sonde" $train --arch $more --threads 2 -o sae >.out 2>.err; status=$?
            case $status in
            0) same_sae "$more $k" ;;
            4 | 5) ;;
            *) fail "$more $k: status $status: $(head -n 1 .err)" ;;
            esac
        done
    done
fi

it a_memory_limit_is_kept_or_exit_5_with_numbers
big='train rows.npy --tokens 4k --batch 256 --latents 2000 --k 4 -q'
n_short=0
rm -rf sae want
# shellcheck disable=SC2086
run sonde $big -o want; code 0
for limit in 1MiB 2MiB 3MiB 4MiB 5MiB 6MiB 8MiB 10MiB 16MiB 64MiB; do
    rm -rf sae
    # shellcheck disable=SC2086
    run sonde $big --max-memory $limit -o sae
    if [ "$status" = 0 ]; then same_sae "$limit"; continue; fi
    code 5; err_is_one_line; n_short=$((n_short + 1))
    [ -e sae/cfg.json ] && fail "$limit: there is a dictionary"
    [ -e sae/run.json ] || continue
    # shellcheck disable=SC2086
    run sonde $big --resume -o sae; code 0; same_sae "$limit, then resumed without"
done
[ $n_short -gt 2 ] && [ $n_short -lt 10 ] || fail "$n_short of 10 limits were too small"
