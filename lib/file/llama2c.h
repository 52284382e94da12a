/* SPDX-License-Identifier: MIT
 * llama2.c checkpoints, versions 0 and 1 (float32). */
#ifndef SONDE_FILE_LLAMA2C_H
#define SONDE_FILE_LLAMA2C_H

#include <stdbool.h>

#include "tensors.h"

typedef struct sonde_llama2c {
    int version;
    int32_t dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len;
    bool shared_classifier;
} sonde_llama2c;

/* Tensors are named as Hugging Face names a Llama ("model.layers.0.self_attn.q_proj.weight", [out, in]); the rows
 * of q and k are still in llama2.c's interleaved rotary order. Sizes must equal the file's length exactly.
 * A file that is not llama2.c: SONDE_E_INPUT. */
enum sonde_code sonde_llama2c_open(const char *path, sonde_budget *budget, sonde_llama2c *header, sonde_tensors **out,
                                   sonde_err *err);
enum sonde_code sonde_llama2c_parse(sonde_map *m, sonde_budget *budget, sonde_llama2c *header, sonde_tensors **out,
                                    sonde_err *err);

#endif
