/* SPDX-License-Identifier: MIT
 * A family is a table: how its config reads, what its tensors are called and how they are laid out. */
#ifndef SONDE_MODEL_FAMILIES_IMPL_H
#define SONDE_MODEL_FAMILIES_IMPL_H

#include <jansson.h>

#include "../base/arena.h"
#include "../file/tensors.h"
#include "arch.h"

/* What a tensor is for. The slots before SLOT_FIRST_OF_LAYER exist once. */
enum slot {
    SLOT_EMBED,
    SLOT_POSITION,
    SLOT_LN_FINAL_W,
    SLOT_LN_FINAL_B,
    SLOT_UNEMBED,
    SLOT_UNEMBED_B,
    SLOT_FIRST_OF_LAYER,
    SLOT_LN1_W = SLOT_FIRST_OF_LAYER,
    SLOT_LN1_B,
    SLOT_LN2_W,
    SLOT_LN2_B,
    SLOT_LN1_POST_W,
    SLOT_LN2_POST_W,
    SLOT_QKV,
    SLOT_QKV_B,
    SLOT_Q,
    SLOT_Q_B,
    SLOT_K,
    SLOT_K_B,
    SLOT_V,
    SLOT_V_B,
    SLOT_Q_NORM,
    SLOT_K_NORM,
    SLOT_O,
    SLOT_O_B,
    SLOT_IN,
    SLOT_IN_B,
    SLOT_GATE,
    SLOT_GATE_B,
    SLOT_MLP_LN_W,
    SLOT_MLP_LN_B,
    SLOT_OUT,
    SLOT_OUT_B,
    N_SLOTS
};

enum layout {
    LAYOUT_VECTOR,    /* any rank, n elements in order */
    LAYOUT_IN_OUT,    /* [in, out]: y = x W (Conv1D, TransformerLens) */
    LAYOUT_OUT_IN,    /* [out, in]: nn.Linear */
    LAYOUT_HEADS_IN,  /* [heads, in, dh]: TransformerLens W_Q, W_K, W_V */
    LAYOUT_HEADS_OUT, /* [heads, dh, out]: TransformerLens W_O; the same memory as [heads * dh, out] */
    LAYOUT_BY_HEAD    /* [heads * 3 * dh, in] or [heads * 3 * dh]: rows grouped head by head as q, k, v
                         (GPT-NeoX) */
};

struct tensor_rule {
    enum slot slot;
    enum layout layout;
    const char
        *name; /* after the family's prefix; "%zu" is the layer; a leading '/' means without the prefix */
    bool optional;
};

struct family {
    const char *type; /* config.json's model_type */
    enum sonde_code (*configure)(const json_t *config, const char *path, sonde_arch *arch, sonde_arena *arena,
                                 sonde_err *err);
    const struct tensor_rule *rule;
    size_t n_rules;
    const char *const
        *prefix; /* tried in order, NULL at the end: the one under which the embedding is found */
    const char *const *ignore; /* globs of tensors that carry nothing (mask buffers), NULL at the end */
};

/* The family with this model_type, or NULL. */
const struct family *family_find(const char *type);

/* Rotary in llama2.c and GGUF Llama files pairs neighbours: rows of q and k are put into half-split order on
 * loading. */
struct source {
    const struct family *family;
    bool interleaved_rope;
};

/* Read a config.json. what: the path for messages. arch->inv_freq is made in arena. */
enum sonde_code family_configure(const json_t *config, const char *what, sonde_arch *arch,
                                 const struct family **family, sonde_arena *arena, sonde_err *err);

/* The same from GGUF metadata, by way of the config.json it stands for (*config, the caller's); its tensor
 * names are another table. */
enum sonde_code family_configure_gguf(const sonde_tensors *file, const char *what, sonde_arch *arch,
                                      struct source *source, sonde_arena *arena, json_t **config,
                                      sonde_err *err);

/* Check what every config must satisfy (sizes, divisibility, finite numbers) and fill in what follows from
 * it. */
enum sonde_code arch_check(sonde_arch *arch, const char *what, sonde_err *err);

/* inv_freq tables, float32 as Hugging Face computes them: 1 / theta^(2i/dim). */
struct rope_scaling {
    enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 } type;
    double factor, low_freq, high_freq, original_context;
};
float *rope_frequencies(size_t rope_dim, double theta, const struct rope_scaling *scaling, sonde_arena *arena,
                        sonde_err *err);

#endif
