/* SPDX-License-Identifier: MIT
 * One function per family: its config keys into an arch. */
#ifndef SONDE_MODEL_CONFIG_IMPL_H
#define SONDE_MODEL_CONFIG_IMPL_H

#include "families_impl.h"
#include "model.h"

typedef enum sonde_code configure_fn(const json_t *config, const char *path, sonde_arch *arch,
                                     sonde_arena *arena, sonde_err *err);
configure_fn configure_gpt2, configure_gpt_neo, configure_gpt_neox, configure_llama, configure_mistral,
    configure_qwen2, configure_qwen3, configure_gemma, configure_gemma2, configure_gemma3,
    configure_transformer_lens;

#endif
