#!/bin/bash
# SPDX-License-Identifier: MIT
# sonde info
. "$(dirname "$0")/harness.sh"

# put_safetensors FILE HEADER BYTES: length prefix, header, that many zero bytes.
put_safetensors() {
    local n=${#2} i
    for ((i = 0; i < 8; i++)); do printf "\\x$(printf %02x $((n >> 8 * i & 255)))"; done >"$1"
    printf '%s' "$2" >>"$1"
    head -c "$3" /dev/zero >>"$1"
}

header='{"__metadata__":{"made_by":"a test\u001b[2J"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[24,30]}}'
put_safetensors small.safetensors "$header" 30

it safetensors_is_described_for_a_person
run sonde info small.safetensors; code 0; err ''
out_has '^format  *safetensors$'; out_has '^bytes  *[0-9]*$'; out_has '^n_parameters  *9$'
out_has '^  made_by  *a test\\x1b\[2J$'; out_has '^  w  *F32  *\[2, 3\]  *24$'
out_has "^sha256  *$(sha256sum small.safetensors | cut -c1-64)$"

it json_holds_the_same
run sonde info --json --no-hash small.safetensors; code 0; err ''
out "$(cat <<'J'
{
  "files": [
    {
      "path": "small.safetensors",
      "format": "safetensors",
      "bytes": 196,
      "n_tensors": 2,
      "n_parameters": 9,
      "metadata": {
        "made_by": "a test\u001B[2J"
      },
      "tensors": [
        {
          "name": "w",
          "dtype": "F32",
          "shape": [
            2,
            3
          ],
          "bytes": 24
        },
        {
          "name": "b",
          "dtype": "BF16",
          "shape": [
            3
          ],
          "bytes": 6
        }
      ]
    }
  ]
}
J
)"

it a_bad_file_does_not_keep_the_good_ones_from_being_shown
put_safetensors short.safetensors "$header" 29
run sonde info short.safetensors small.safetensors nothing; code 3
out_has '^n_parameters  *9$'; err_has 'short.safetensors: '; err_has 'nothing: No such file or directory'
[ "$(wc -l <.err)" = 2 ] || fail 'two errors should be two lines'

it a_truncated_file_is_refused_in_one_line
size=$(wc -c <small.safetensors)
for ((n = 0; n < size; n += 7)); do
    head -c $n small.safetensors >cut.safetensors
    run sonde info cut.safetensors
    code 3; out ''; err_is_one_line
done

it pickles_are_refused_with_the_way_out
printf '\x80\x02}q\x00.' >model.pt; run sonde info model.pt; code 3; err_has 'model.pt: is a PyTorch pickle.*safetensors'
printf 'PK\3\4 archive' >model.bin; run sonde info model.bin; code 3; err_has 'PyTorch pickle'

it an_unknown_kind_is_named_so
echo hello >text; run sonde info text; code 3; err_has '^sonde info: text: is of none of the kinds'
: >empty; run sonde info empty; code 3; err_is_one_line

it pipes_and_devices_are_not_read
mkfifo pipe; run timeout 10 "$sonde" info pipe; code 3; err_is_one_line
run sonde info /dev/zero; code 3; err_is_one_line

it names_of_files_cannot_play_with_the_terminal
name=$'bad\033[31m\nname'; run sonde info "$name"; code 4; err 'sonde info: bad?[31m?name: No such file or directory'

it a_file_over_the_memory_limit_is_refused
run sonde info --max-memory 1KiB small.safetensors; code 5; err_is_one_line

it gguf_of_the_golden_models_is_described
models=("$source_root"/tests/golden/models/*/*.gguf "$source_root"/tests/golden/models/*.gguf)
found=''
for file in "${models[@]}"; do
    [ -f "$file" ] || continue
    found=1; run sonde info "$file"; code 0; err ''; out_has '^format  *gguf$'; out_has '^  general.architecture  '
done
[ -n "$found" ] || skip 'no golden GGUF'

it llama2c_checkpoint_is_described
file=$(ls "$shared_data"/models/stories260K/*.bin 2>/dev/null | grep -v tok | head -n 1)
if [ -n "$file" ]; then run sonde info "$file"; code 0; out_has '^format  *llama2.c$'; out_has '^  vocab_size  *512$'
else skip 'no ../shared/data'; fi

it npy_is_described
{ printf '\x93NUMPY\x01\x00\x76\x00'; printf '%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 5), }"; head -c 40 /dev/zero; } >ids.npy
run sonde info ids.npy; code 0; err ''; out_has '^format  *npy$'; out_has 'array  *.*\[2, 5\]  *40$'

it no_file_is_wrong_use
run sonde info; code 2; err 'sonde info: FILE... is missing; sonde info --help shows examples'
