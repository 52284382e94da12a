/* SPDX-License-Identifier: MIT
 * Hook points: their names (TransformerLens legacy names are the canonical ones), shapes and order.
 *
 * Shapes are those of one sequence of P tokens: [P, d], [P, H, dh], [P, 1], [H, Pq, Pk], ...
 * Meanings: hook_normalized is before gamma and beta; hook_scale is the divisor; q and k are before qk-norm
 * and rotary, rot_q and rot_k are what is dotted; attn_scores are scaled, capped and masked with -inf;
 * attn_out and mlp_out are what is added to the residual stream (after a post-norm); a gated MLP's pre is the
 * gate. */
#ifndef SONDE_MODEL_HOOKS_H
#define SONDE_MODEL_HOOKS_H

#include "../base/arena.h"
#include "arch.h"

/* In the order in which a forward pass reaches them. */
enum sonde_site {
    SONDE_SITE_TOKENS = 0,
    SONDE_SITE_EMBED,
    SONDE_SITE_POS_EMBED,
    SONDE_SITE_RESID_PRE, /* the first of a block */
    SONDE_SITE_ATTN_IN,
    SONDE_SITE_Q_INPUT,
    SONDE_SITE_K_INPUT,
    SONDE_SITE_V_INPUT,
    SONDE_SITE_LN1_SCALE,
    SONDE_SITE_LN1_NORMALIZED,
    SONDE_SITE_Q,
    SONDE_SITE_K,
    SONDE_SITE_V,
    SONDE_SITE_Q_NORM_SCALE,
    SONDE_SITE_Q_NORM_NORMALIZED,
    SONDE_SITE_K_NORM_SCALE,
    SONDE_SITE_K_NORM_NORMALIZED,
    SONDE_SITE_ROT_Q,
    SONDE_SITE_ROT_K,
    SONDE_SITE_ATTN_SCORES,
    SONDE_SITE_PATTERN,
    SONDE_SITE_Z,
    SONDE_SITE_RESULT,
    SONDE_SITE_LN1_POST_SCALE,
    SONDE_SITE_LN1_POST_NORMALIZED,
    SONDE_SITE_ATTN_OUT,
    SONDE_SITE_RESID_MID,
    SONDE_SITE_MLP_IN,
    SONDE_SITE_LN2_SCALE,
    SONDE_SITE_LN2_NORMALIZED,
    SONDE_SITE_MLP_PRE,
    SONDE_SITE_MLP_PRE_LINEAR,
    SONDE_SITE_MLP_MID,
    SONDE_SITE_MLP_LN_SCALE,
    SONDE_SITE_MLP_LN_NORMALIZED,
    SONDE_SITE_MLP_POST,
    SONDE_SITE_LN2_POST_SCALE,
    SONDE_SITE_LN2_POST_NORMALIZED,
    SONDE_SITE_MLP_OUT,
    SONDE_SITE_RESID_POST, /* the last of a block */
    SONDE_SITE_LN_FINAL_SCALE,
    SONDE_SITE_LN_FINAL_NORMALIZED,
    SONDE_SITE_UNEMBED_IN,
    SONDE_SITE_LOGITS, /* unembed.hook_out: before a final soft cap */
    SONDE_N_SITES
};

/* One hook point of one model. layer is 0 for sites outside the blocks. */
typedef struct sonde_hook {
    enum sonde_site site;
    size_t layer;
} sonde_hook;

#define SONDE_HOOK_NAME_MAX 64

/* "blocks.3.attn.hook_q" into name; returns name. */
char *sonde_hook_name(sonde_hook h, char name[SONDE_HOOK_NAME_MAX]);

/* Is it inside a block? */
bool sonde_site_in_block(enum sonde_site s);

/* Is it [H, Pq, Pk] (attn_scores, pattern): stored per sequence, not per token? */
bool sonde_site_is_square(enum sonde_site s);

/* NULL if the model has the site, else a sentence that says why not. */
const char *sonde_site_absent(const sonde_arch *a, enum sonde_site s);

/* Shape of one token's row: rank 1 ([d], [1], [m], [V]) or 2 ([H, dh], [H, d]); a square site gives [H]. */
int sonde_site_shape(const sonde_arch *a, enum sonde_site s, uint64_t dim[2]);

/* Floats of one token's row (not for square sites). */
size_t sonde_site_width(const sonde_arch *a, enum sonde_site s);

/* The position of h in a forward pass: h reaches before g exactly if its order is smaller. */
size_t sonde_hook_order(const sonde_arch *a, sonde_hook h);

/* Add the hooks that `spec` means to list (no duplicates, forward order kept by sonde_hooks_sort):
 *  - a canonical name "blocks.3.hook_resid_post", a layer may be negative ("blocks.-1.hook_resid_post")
 *  - a glob over canonical names ("blocks.*.hook_resid_post", "*")
 *  - TransformerLens' shorthand: "q6", "resid_post3", "mlp_post2", "scale4ln1", "embed"; without a layer
 *    ("resid_post") the site in every layer
 *  - aliases: TransformerLens 3 bridge names ("blocks.3.hook_out"), Hugging Face module paths
 *    ("transformer.h.3.output", "transformer.h[3].output[0]", "model.layers.3.self_attn.q_proj.output").
 *    They mean what this architecture makes them: ln2.hook_in is resid_pre where attention and MLP run in
 *    parallel; what a module gives to a post-norm has no hook and is refused.
 *
 * A glob takes only what the model has and the list can hold (never the logits or the derived [P, H, d]
 * copies unless named without wildcards in that part). Errors: SONDE_E_USAGE with near names, or with the
 * reason why this model lacks the hook. */
typedef struct sonde_hook_list {
    sonde_hook *hook;
    size_t n, cap;
} sonde_hook_list;
enum sonde_code sonde_hooks_add(sonde_hook_list *list, const sonde_arch *a, const char *spec, sonde_err *err);
void sonde_hooks_sort(sonde_hook_list *list, const sonde_arch *a);
void sonde_hooks_free(sonde_hook_list *list);

#endif
