# SPDX-License-Identifier: MIT
# Small dictionaries and rows for the tests of commands that take them.

# float32 in printf's escapes: 0, 1, -1, 2.
f0='\0\0\0\0' f1='\0\0\x80\x3f' fm1='\0\0\x80\xbf' f2='\0\0\0\x40'

# put_sae DIR D HOOK: a ReLU dictionary of 2 D latents that gives back what goes in: relu(x_i), then relu(-x_i).
put_sae() {
    local d=$2 F=$((2 * $2)) n=$(($2 * $2 * 2 * 4)) i c enc='' dec='' zero='' header
    mkdir -p "$1"
    for ((c = 0; c < d; c++)); do for ((i = 0; i < F; i++)); do
        if ((i == c)); then enc+=$f1; elif ((i == c + d)); then enc+=$fm1; else enc+=$f0; fi
    done; done
    for ((i = 0; i < F; i++)); do for ((c = 0; c < d; c++)); do
        if ((i == c)); then dec+=$f1; elif ((i == c + d)); then dec+=$fm1; else dec+=$f0; fi
    done; done
    for ((i = 0; i < F + d; i++)); do zero+=$f0; done
    header="{\"W_enc\":{\"dtype\":\"F32\",\"shape\":[$d,$F],\"data_offsets\":[0,$n]},"
    header+="\"W_dec\":{\"dtype\":\"F32\",\"shape\":[$F,$d],\"data_offsets\":[$n,$((2 * n))]},"
    header+="\"b_enc\":{\"dtype\":\"F32\",\"shape\":[$F],\"data_offsets\":[$((2 * n)),$((2 * n + 4 * F))]},"
    header+="\"b_dec\":{\"dtype\":\"F32\",\"shape\":[$d],\"data_offsets\":[$((2 * n + 4 * F)),$((2 * n + 4 * F + 4 * d))]}}"
    while ((${#header} % 8)); do header+=' '; done
    { printf "\\x$(printf %02x $((${#header} % 256)))\\x$(printf %02x $((${#header} / 256)))\\0\\0\\0\\0\\0\\0%s" "$header"
      printf "$enc$dec$zero"; } >"$1/sae_weights.safetensors"
    cat >"$1/cfg.json" <<END
{"architecture": "standard", "d_in": $d, "d_sae": $F, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": false,
 "normalize_activations": "none", "reshape_activations": "none",
 "metadata": {"sae_lens_version": "6.18.0", "model_name": "tiny", "hook_name": "$3", "context_size": 30, "prepend_bos": false}}
END
}

# put_rows FILE ROWS COLUMNS: float32 of 0, 1, -1 and 2, in a pattern.
put_rows() {
    local i all=("$f0" "$f1" "$fm1" "$f2") text=''
    for ((i = 0; i < $2 * $3; i++)); do text+=${all[$(((i * i / 3 + i / $3) % 4))]}; done
    { printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': ($2, $3), }"
      printf "$text"; } >"$1"
}
