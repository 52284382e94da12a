/* SPDX-License-Identifier: MIT
 * One parametrised block for every family: what a config says, in numbers.
 *
 *   x[t] = E[id] * embed_scale (+ P[t])
 *   per layer:  h = norm1(x);  q, k, v = h Wq + bq, ...;  qk-norm per head;  rotary on the first rope_dim
 *               s = attn_scale q.k (softcap) (mask);  p = softmax(s);  z = p v;  a = z Wo + bo (post-norm)
 *               serial:   x += a;  x += mlp(norm2(x))        parallel:  x += a + mlp(norm2(x))
 *   logits = final_norm(x) Wu + bu (softcap)
 *   mlp(h) = gated ? (act(h Wg + bg) * (h Wi + bi)) Wo + bo : act(h Wi + bi) Wo + bo */
#ifndef SONDE_MODEL_ARCH_H
#define SONDE_MODEL_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../num/activation.h"
#include "../num/norm.h"

enum sonde_positions {
    SONDE_POS_NONE = 0,
    SONDE_POS_LEARNED,     /* added to the embedding */
    SONDE_POS_SHORTFORMER, /* added to the inputs of q and k only */
    SONDE_POS_ROPE
};

#define SONDE_MAX_LAYERS 1024

typedef struct sonde_arch {
    char family[32];    /* "gpt2", "gemma2", "transformer_lens", ... */
    size_t n_layers;    /* L */
    size_t d_model;     /* d */
    size_t n_heads;     /* H */
    size_t n_kv_heads;  /* Hk, divides H */
    size_t d_head;      /* dh; H dh need not equal d */
    size_t d_mlp;       /* m; 0 when there is no MLP */
    size_t n_vocab;     /* V: rows of the embedding */
    size_t n_vocab_out; /* columns of the unembedding */
    size_t n_ctx;       /* longest context; rows of the position table where there is one */

    enum sonde_norm norm;       /* NONE for the toy models without */
    bool norm_plus_one;         /* the file holds gamma - 1 (Gemma) */
    bool norm_affine;           /* gamma (and beta) exist: false for LNPre and RMSPre */
    enum sonde_norm final_norm; /* NONE: the unembedding reads the residual stream itself */
    float eps;
    float embed_scale; /* 1; Gemma sqrt(d) */

    enum sonde_positions positions;
    size_t rope_dim; /* rotated dimensions of each head */
    float
        *inv_freq[2]; /* [rope_dim / 2]: 0 for global layers, 1 for local ones. Owned by the model's arena */
    bool parallel;    /* GPT-NeoX: attention and MLP both read the block's input; no resid_mid */
    bool post_norms;  /* Gemma 2, 3: norms on what attention and MLP write */
    bool qk_norm;     /* RMSNorm of each head of q and k, before rotary */
    float attn_scale; /* multiplies q.k */
    bool attn_scale_by_layer;          /* and divide by layer + 1 (GPT-2's scale_attn_by_inverse_layer_idx) */
    float attn_softcap, final_softcap; /* 0: off */
    bool bidirectional;
    int32_t pad_id; /* bidirectional models: keys with this id are masked; -1 for none */
    size_t window;  /* local layers see keys with query - key < window; 0: no local layers */
    bool layer_local[SONDE_MAX_LAYERS];

    enum sonde_act act;
    bool solu, solu_ln; /* x softmax(x) instead of act; then a LayerNorm */
    bool gated;
    bool tied; /* the unembedding is the embedding */
} sonde_arch;

static inline float sonde_arch_attn_scale(const sonde_arch *a, size_t layer)
{
    return a->attn_scale_by_layer ? a->attn_scale / (float)(layer + 1) : a->attn_scale;
}

/* Floats per row of the fused projection: q heads, then k heads, then v heads. */
static inline size_t sonde_arch_qkv(const sonde_arch *a)
{
    return (a->n_heads + 2 * a->n_kv_heads) * a->d_head;
}

#endif
