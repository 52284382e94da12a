/* SPDX-License-Identifier: MIT
 * The table of hook points, and every way to name one. */
#include "hooks.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/suggest.h"

enum shape {
    ROW_ONE,
    ROW_D,
    ROW_HEADS,
    ROW_KV_HEADS,
    ROW_HEADS_ONE,
    ROW_KV_HEADS_ONE,
    ROW_HEADS_D,
    ROW_KV_HEADS_D,
    ROW_MLP,
    ROW_VOCAB,
    SQUARE
};

/* name: after "blocks.L." for sites of a block. Derived sites are copies or products that a glob does not
 * take. */
static const struct site {
    const char *name;
    enum shape shape;
    bool in_block, derived;
    const char *brief; /* shorthand, where it is not the name's last part without "hook_" */
} sites[SONDE_N_SITES] = {
    [SONDE_SITE_TOKENS] = {"hook_tokens", ROW_ONE, false, true, NULL},
    [SONDE_SITE_EMBED] = {"hook_embed", ROW_D, false, false, NULL},
    [SONDE_SITE_POS_EMBED] = {"hook_pos_embed", ROW_D, false, false, NULL},
    [SONDE_SITE_RESID_PRE] = {"hook_resid_pre", ROW_D, true, false, NULL},
    [SONDE_SITE_ATTN_IN] = {"hook_attn_in", ROW_HEADS_D, true, true, NULL},
    [SONDE_SITE_Q_INPUT] = {"hook_q_input", ROW_HEADS_D, true, true, NULL},
    [SONDE_SITE_K_INPUT] = {"hook_k_input", ROW_KV_HEADS_D, true, true, NULL},
    [SONDE_SITE_V_INPUT] = {"hook_v_input", ROW_KV_HEADS_D, true, true, NULL},
    [SONDE_SITE_LN1_SCALE] = {"ln1.hook_scale", ROW_ONE, true, false, ""},
    [SONDE_SITE_LN1_NORMALIZED] = {"ln1.hook_normalized", ROW_D, true, false, ""},
    [SONDE_SITE_Q] = {"attn.hook_q", ROW_HEADS, true, false, NULL},
    [SONDE_SITE_K] = {"attn.hook_k", ROW_KV_HEADS, true, false, NULL},
    [SONDE_SITE_V] = {"attn.hook_v", ROW_KV_HEADS, true, false, NULL},
    [SONDE_SITE_Q_NORM_SCALE] = {"attn.q_norm.hook_scale", ROW_HEADS_ONE, true, false, ""},
    [SONDE_SITE_Q_NORM_NORMALIZED] = {"attn.q_norm.hook_normalized", ROW_HEADS, true, false, ""},
    [SONDE_SITE_K_NORM_SCALE] = {"attn.k_norm.hook_scale", ROW_KV_HEADS_ONE, true, false, ""},
    [SONDE_SITE_K_NORM_NORMALIZED] = {"attn.k_norm.hook_normalized", ROW_KV_HEADS, true, false, ""},
    [SONDE_SITE_ROT_Q] = {"attn.hook_rot_q", ROW_HEADS, true, false, NULL},
    [SONDE_SITE_ROT_K] = {"attn.hook_rot_k", ROW_KV_HEADS, true, false, NULL},
    [SONDE_SITE_ATTN_SCORES] = {"attn.hook_attn_scores", SQUARE, true, false, NULL},
    [SONDE_SITE_PATTERN] = {"attn.hook_pattern", SQUARE, true, false, NULL},
    [SONDE_SITE_Z] = {"attn.hook_z", ROW_HEADS, true, false, NULL},
    [SONDE_SITE_RESULT] = {"attn.hook_result", ROW_HEADS_D, true, true, NULL},
    [SONDE_SITE_LN1_POST_SCALE] = {"ln1_post.hook_scale", ROW_ONE, true, false, ""},
    [SONDE_SITE_LN1_POST_NORMALIZED] = {"ln1_post.hook_normalized", ROW_D, true, false, ""},
    [SONDE_SITE_ATTN_OUT] = {"hook_attn_out", ROW_D, true, false, NULL},
    [SONDE_SITE_RESID_MID] = {"hook_resid_mid", ROW_D, true, false, NULL},
    [SONDE_SITE_MLP_IN] = {"hook_mlp_in", ROW_D, true, true, NULL},
    [SONDE_SITE_LN2_SCALE] = {"ln2.hook_scale", ROW_ONE, true, false, ""},
    [SONDE_SITE_LN2_NORMALIZED] = {"ln2.hook_normalized", ROW_D, true, false, ""},
    [SONDE_SITE_MLP_PRE] = {"mlp.hook_pre", ROW_MLP, true, false, NULL},
    [SONDE_SITE_MLP_PRE_LINEAR] = {"mlp.hook_pre_linear", ROW_MLP, true, false, NULL},
    [SONDE_SITE_MLP_MID] = {"mlp.hook_mid", ROW_MLP, true, false, NULL},
    [SONDE_SITE_MLP_LN_SCALE] = {"mlp.ln.hook_scale", ROW_ONE, true, false, ""},
    [SONDE_SITE_MLP_LN_NORMALIZED] = {"mlp.ln.hook_normalized", ROW_MLP, true, false, ""},
    [SONDE_SITE_MLP_POST] = {"mlp.hook_post", ROW_MLP, true, false, NULL},
    [SONDE_SITE_LN2_POST_SCALE] = {"ln2_post.hook_scale", ROW_ONE, true, false, ""},
    [SONDE_SITE_LN2_POST_NORMALIZED] = {"ln2_post.hook_normalized", ROW_D, true, false, ""},
    [SONDE_SITE_MLP_OUT] = {"hook_mlp_out", ROW_D, true, false, NULL},
    [SONDE_SITE_RESID_POST] = {"hook_resid_post", ROW_D, true, false, NULL},
    [SONDE_SITE_LN_FINAL_SCALE] = {"ln_final.hook_scale", ROW_ONE, false, false, ""},
    [SONDE_SITE_LN_FINAL_NORMALIZED] = {"ln_final.hook_normalized", ROW_D, false, false, ""},
    [SONDE_SITE_UNEMBED_IN] = {"unembed.hook_in", ROW_D, false, true, ""},
    [SONDE_SITE_LOGITS] = {"unembed.hook_out", ROW_VOCAB, false, true, "logits"},
};

#define FIRST_IN_BLOCK SONDE_SITE_RESID_PRE
#define LAST_IN_BLOCK  SONDE_SITE_RESID_POST

/* Architectures in which an alias means what its row says. */
enum when { ALWAYS, SERIAL, PARALLEL, UNGATED, GATED, NO_POST_NORMS, POST_NORMS };

/* Other people's names, %zu is the layer: TransformerLens 3 bridge names, then Hugging Face module paths
 * (what nnsight users type). Where a post-norm follows, the module itself writes something that has no hook
 * here. */
static const struct alias {
    const char *path;
    enum sonde_site site;
    enum when when;
} aliases[] = {
    {"embed.hook_out", SONDE_SITE_EMBED, ALWAYS},
    {"pos_embed.hook_out", SONDE_SITE_POS_EMBED, ALWAYS},
    {"blocks.%zu.hook_in", SONDE_SITE_RESID_PRE, ALWAYS},
    {"blocks.%zu.ln1.hook_in", SONDE_SITE_RESID_PRE, ALWAYS},
    {"blocks.%zu.attn.q.hook_out", SONDE_SITE_Q, ALWAYS},
    {"blocks.%zu.attn.k.hook_out", SONDE_SITE_K, ALWAYS},
    {"blocks.%zu.attn.v.hook_out", SONDE_SITE_V, ALWAYS},
    {"blocks.%zu.attn.o.hook_in", SONDE_SITE_Z, ALWAYS},
    {"blocks.%zu.attn.hook_out", SONDE_SITE_ATTN_OUT, NO_POST_NORMS},
    {"blocks.%zu.ln1_post.hook_out", SONDE_SITE_ATTN_OUT, POST_NORMS},
    {"blocks.%zu.ln2.hook_in", SONDE_SITE_RESID_MID, SERIAL},
    {"blocks.%zu.ln2.hook_in", SONDE_SITE_RESID_PRE, PARALLEL},
    {"blocks.%zu.mlp.in.hook_out", SONDE_SITE_MLP_PRE, UNGATED},
    {"blocks.%zu.mlp.in.hook_out", SONDE_SITE_MLP_PRE_LINEAR, GATED},
    {"blocks.%zu.mlp.gate.hook_out", SONDE_SITE_MLP_PRE, GATED},
    {"blocks.%zu.mlp.out.hook_in", SONDE_SITE_MLP_POST, ALWAYS},
    {"blocks.%zu.mlp.hook_out", SONDE_SITE_MLP_OUT, NO_POST_NORMS},
    {"blocks.%zu.ln2_post.hook_out", SONDE_SITE_MLP_OUT, POST_NORMS},
    {"blocks.%zu.hook_out", SONDE_SITE_RESID_POST, ALWAYS},

    {"transformer.wte.output", SONDE_SITE_EMBED, ALWAYS},
    {"transformer.wpe.output", SONDE_SITE_POS_EMBED, ALWAYS},
    {"transformer.h.%zu.input", SONDE_SITE_RESID_PRE, ALWAYS},
    {"transformer.h.%zu.output", SONDE_SITE_RESID_POST, ALWAYS},
    {"transformer.h.%zu.attn.output", SONDE_SITE_ATTN_OUT, NO_POST_NORMS},
    {"transformer.h.%zu.attn.c_proj.input", SONDE_SITE_Z, ALWAYS},
    {"transformer.h.%zu.attn.attention.q_proj.output", SONDE_SITE_Q, ALWAYS},
    {"transformer.h.%zu.attn.attention.k_proj.output", SONDE_SITE_K, ALWAYS},
    {"transformer.h.%zu.attn.attention.v_proj.output", SONDE_SITE_V, ALWAYS},
    {"transformer.h.%zu.attn.attention.out_proj.input", SONDE_SITE_Z, ALWAYS},
    {"transformer.h.%zu.ln_2.input", SONDE_SITE_RESID_MID, SERIAL},
    {"transformer.h.%zu.mlp.output", SONDE_SITE_MLP_OUT, NO_POST_NORMS},
    {"transformer.h.%zu.mlp.c_fc.output", SONDE_SITE_MLP_PRE, UNGATED},
    {"transformer.h.%zu.mlp.c_proj.input", SONDE_SITE_MLP_POST, ALWAYS},
    {"model.embed_tokens.output", SONDE_SITE_EMBED, ALWAYS},
    {"model.layers.%zu.input", SONDE_SITE_RESID_PRE, ALWAYS},
    {"model.layers.%zu.output", SONDE_SITE_RESID_POST, ALWAYS},
    {"model.layers.%zu.self_attn.output", SONDE_SITE_ATTN_OUT, NO_POST_NORMS},
    {"model.layers.%zu.self_attn.q_proj.output", SONDE_SITE_Q, ALWAYS},
    {"model.layers.%zu.self_attn.k_proj.output", SONDE_SITE_K, ALWAYS},
    {"model.layers.%zu.self_attn.v_proj.output", SONDE_SITE_V, ALWAYS},
    {"model.layers.%zu.self_attn.o_proj.input", SONDE_SITE_Z, ALWAYS},
    {"model.layers.%zu.post_attention_layernorm.input", SONDE_SITE_RESID_MID, NO_POST_NORMS},
    {"model.layers.%zu.post_attention_layernorm.output", SONDE_SITE_ATTN_OUT, POST_NORMS},
    {"model.layers.%zu.pre_feedforward_layernorm.input", SONDE_SITE_RESID_MID, POST_NORMS},
    {"model.layers.%zu.post_feedforward_layernorm.output", SONDE_SITE_MLP_OUT, POST_NORMS},
    {"model.layers.%zu.mlp.output", SONDE_SITE_MLP_OUT, NO_POST_NORMS},
    {"model.layers.%zu.mlp.gate_proj.output", SONDE_SITE_MLP_PRE, GATED},
    {"model.layers.%zu.mlp.up_proj.output", SONDE_SITE_MLP_PRE_LINEAR, GATED},
    {"model.layers.%zu.mlp.down_proj.input", SONDE_SITE_MLP_POST, ALWAYS},
    {"gpt_neox.embed_in.output", SONDE_SITE_EMBED, ALWAYS},
    {"gpt_neox.layers.%zu.input", SONDE_SITE_RESID_PRE, ALWAYS},
    {"gpt_neox.layers.%zu.output", SONDE_SITE_RESID_POST, ALWAYS},
    {"gpt_neox.layers.%zu.attention.output", SONDE_SITE_ATTN_OUT, NO_POST_NORMS},
    {"gpt_neox.layers.%zu.attention.dense.input", SONDE_SITE_Z, ALWAYS},
    {"gpt_neox.layers.%zu.post_attention_layernorm.input", SONDE_SITE_RESID_MID, SERIAL},
    {"gpt_neox.layers.%zu.post_attention_layernorm.input", SONDE_SITE_RESID_PRE, PARALLEL},
    {"gpt_neox.layers.%zu.mlp.output", SONDE_SITE_MLP_OUT, NO_POST_NORMS},
    {"gpt_neox.layers.%zu.mlp.dense_h_to_4h.output", SONDE_SITE_MLP_PRE, UNGATED},
    {"gpt_neox.layers.%zu.mlp.dense_4h_to_h.input", SONDE_SITE_MLP_POST, ALWAYS},
    {"embed_out.output", SONDE_SITE_LOGITS, ALWAYS},
    {"lm_head.output", SONDE_SITE_LOGITS, ALWAYS},
};

/* Other words that TransformerLens' get_act_name takes. */
static const struct {
    const char *alias, *name;
} short_aliases[] = {{"attn", "pattern"},
                     {"attn_logits", "attn_scores"},
                     {"key", "k"},
                     {"query", "q"},
                     {"value", "v"},
                     {"mlp_pre", "pre"},
                     {"mlp_mid", "mid"},
                     {"mlp_post", "post"},
                     {"result_pre_b_O", "result"}};

/* ---- facts about a site ------------------------------------------------------------------------ */

char *sonde_hook_name(sonde_hook h, char name[SONDE_HOOK_NAME_MAX])
{
    const struct site *s = &sites[h.site];
    if (s->in_block)
        snprintf(name, SONDE_HOOK_NAME_MAX, "blocks.%zu.%s", h.layer, s->name);
    else
        snprintf(name, SONDE_HOOK_NAME_MAX, "%s", s->name);
    return name;
}

bool sonde_site_in_block(enum sonde_site s)
{
    return sites[s].in_block;
}

bool sonde_site_is_square(enum sonde_site s)
{
    return sites[s].shape == SQUARE;
}

const char *sonde_site_absent(const sonde_arch *a, enum sonde_site s)
{
    switch (s) {
    case SONDE_SITE_POS_EMBED:
        return a->positions == SONDE_POS_LEARNED || a->positions == SONDE_POS_SHORTFORMER
                   ? NULL
                   : "its positions are not embedded";
    case SONDE_SITE_LN1_SCALE:
    case SONDE_SITE_LN1_NORMALIZED:
        return a->norm ? NULL : "it has no normalisation";
    case SONDE_SITE_LN2_SCALE:
    case SONDE_SITE_LN2_NORMALIZED:
        return !a->d_mlp ? "it has no MLP" : a->norm ? NULL : "it has no normalisation";
    case SONDE_SITE_LN_FINAL_SCALE:
    case SONDE_SITE_LN_FINAL_NORMALIZED:
        return a->final_norm ? NULL : "it has no final normalisation";
    case SONDE_SITE_Q_NORM_SCALE:
    case SONDE_SITE_Q_NORM_NORMALIZED:
    case SONDE_SITE_K_NORM_SCALE:
    case SONDE_SITE_K_NORM_NORMALIZED:
        return a->qk_norm ? NULL : "it does not normalise queries and keys";
    case SONDE_SITE_ROT_Q:
    case SONDE_SITE_ROT_K:
        return a->positions == SONDE_POS_ROPE ? NULL : "its positions are not rotary";
    case SONDE_SITE_LN1_POST_SCALE:
    case SONDE_SITE_LN1_POST_NORMALIZED:
    case SONDE_SITE_LN2_POST_SCALE:
    case SONDE_SITE_LN2_POST_NORMALIZED:
        return a->post_norms ? NULL : "it has no post-norms";
    case SONDE_SITE_RESID_MID:
        return !a->d_mlp     ? "it has no MLP, so attention goes straight to resid_post"
               : a->parallel ? "attention and MLP run in parallel, so nothing lies between them"
                             : NULL;
    case SONDE_SITE_MLP_IN:
    case SONDE_SITE_MLP_PRE:
    case SONDE_SITE_MLP_POST:
    case SONDE_SITE_MLP_OUT:
        return a->d_mlp ? NULL : "it has no MLP";
    case SONDE_SITE_MLP_PRE_LINEAR:
        return a->d_mlp && a->gated ? NULL : "its MLP is not gated";
    case SONDE_SITE_MLP_MID:
    case SONDE_SITE_MLP_LN_SCALE:
    case SONDE_SITE_MLP_LN_NORMALIZED:
        return a->d_mlp && a->solu_ln ? NULL : "its MLP has no norm of its own (solu_ln)";
    default:
        return NULL;
    }
}

int sonde_site_shape(const sonde_arch *a, enum sonde_site s, uint64_t dim[2])
{
    const uint64_t h = a->n_heads, kv = a->n_kv_heads;
    switch (sites[s].shape) {
    case ROW_ONE:
        dim[0] = 1;
        return 1;
    case ROW_D:
        dim[0] = a->d_model;
        return 1;
    case ROW_MLP:
        dim[0] = a->d_mlp;
        return 1;
    case ROW_VOCAB:
        dim[0] = a->n_vocab_out;
        return 1;
    case SQUARE:
        dim[0] = h;
        return 1;
    case ROW_HEADS:
        dim[0] = h, dim[1] = a->d_head;
        return 2;
    case ROW_KV_HEADS:
        dim[0] = kv, dim[1] = a->d_head;
        return 2;
    case ROW_HEADS_ONE:
        dim[0] = h, dim[1] = 1;
        return 2;
    case ROW_KV_HEADS_ONE:
        dim[0] = kv, dim[1] = 1;
        return 2;
    case ROW_HEADS_D:
        dim[0] = h, dim[1] = a->d_model;
        return 2;
    case ROW_KV_HEADS_D:
        dim[0] = kv, dim[1] = a->d_model;
        return 2;
    }
    return 0;
}

size_t sonde_site_width(const sonde_arch *a, enum sonde_site s)
{
    uint64_t dim[2] = {1, 1};
    return sonde_site_shape(a, s, dim) == 2 ? (size_t)(dim[0] * dim[1]) : (size_t)dim[0];
}

size_t sonde_hook_order(const sonde_arch *a, sonde_hook h)
{
    if (h.site < FIRST_IN_BLOCK)
        return h.site;
    size_t blocks = h.site > LAST_IN_BLOCK ? a->n_layers - 1 : h.layer;
    return blocks * SONDE_N_SITES + h.site;
}

/* ---- naming ------------------------------------------------------------------------------------ */

static bool in_list(const sonde_hook_list *list, sonde_hook h)
{
    for (size_t i = 0; i < list->n; i++)
        if (list->hook[i].site == h.site && list->hook[i].layer == h.layer)
            return true;
    return false;
}

static enum sonde_code push(sonde_hook_list *list, sonde_hook h, sonde_err *err)
{
    if (in_list(list, h))
        return SONDE_OK;
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 32;
        sonde_hook *p = realloc(list->hook, cap * sizeof *p);
        if (!p)
            return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu hooks", cap);
        list->hook = p;
        list->cap = cap;
    }
    list->hook[list->n++] = h;
    return SONDE_OK;
}

static enum sonde_code push_named(sonde_hook_list *list, const sonde_arch *a, sonde_hook h, const char *spec,
                                  sonde_err *err)
{
    const char *why = sonde_site_absent(a, h.site);
    if (why) {
        char name[SONDE_HOOK_NAME_MAX];
        return sonde_fail(err, SONDE_E_USAGE, "hook '%.100s': this model (%s) has no %s: %s", spec, a->family,
                          sonde_hook_name(h, name), why);
    }
    return push(list, h, err);
}

/* The last part of a site's name without "hook_": "resid_post", "q", "pre". Sites of norms have none. */
static const char *brief(enum sonde_site s)
{
    const char *dot = strrchr(sites[s].name, '.'), *last = dot ? dot + 1 : sites[s].name;
    return sites[s].brief ? sites[s].brief : last + strlen("hook_");
}

/* A layer as written ("3", "-1") against L layers. */
static bool parse_layer(const sonde_arch *a, const char *s, size_t n, size_t *layer)
{
    char digits[8], *end;
    if (n == 0 || n >= sizeof digits || !((*s >= '0' && *s <= '9') || (*s == '-' && n > 1)))
        return false;
    memcpy(digits, s, n);
    digits[n] = '\0';
    long v = strtol(digits, &end, 10);
    if (*end)
        return false;
    if (v < 0)
        v += (long)a->n_layers;
    *layer = v < 0 ? SIZE_MAX : (size_t)v;
    return true;
}

static enum sonde_code check_layer(const sonde_arch *a, size_t layer, const char *spec, sonde_err *err)
{
    if (layer < a->n_layers)
        return SONDE_OK;
    return sonde_fail(err, SONDE_E_USAGE, "hook '%.100s': this model has layers 0 to %zu", spec,
                      a->n_layers - 1);
}

/* "blocks.3.NAME", canonical. found stays false if no site is called so. */
static enum sonde_code add_full_name(sonde_hook_list *list, const sonde_arch *a, const char *spec,
                                     bool *found, sonde_err *err)
{
    size_t layer = 0;
    const char *rest = spec;
    bool in_block = !strncmp(spec, "blocks.", 7);
    if (in_block) {
        const char *number = spec + 7, *dot = strchr(number, '.');
        if (!dot || !parse_layer(a, number, (size_t)(dot - number), &layer))
            return SONDE_OK;
        rest = dot + 1;
    }
    for (int s = 0; s < SONDE_N_SITES; s++) {
        if (sites[s].in_block != in_block)
            continue;
        if (strcmp(rest, sites[s].name))
            continue;
        *found = true;
        enum sonde_code code = check_layer(a, layer, spec, err);
        return code ? code : push_named(list, a, (sonde_hook){(enum sonde_site)s, layer}, spec, err);
    }
    return SONDE_OK;
}

/* "q6", "resid_post3", "mlp_post2", "embed"; without a layer: in every layer. */
static enum sonde_code add_shorthand(sonde_hook_list *list, const sonde_arch *a, const char *spec,
                                     bool *found, sonde_err *err)
{
    char word[40];
    size_t n = strcspn(spec, "0123456789-"), layer = 0;
    bool has_layer = spec[n] != '\0';
    if (n == 0 || n >= sizeof word || (has_layer && !parse_layer(a, spec + n, strlen(spec + n), &layer)))
        return SONDE_OK;
    snprintf(word, sizeof word, "%.*s", (int)n, spec);
    for (size_t i = 0; i < sizeof short_aliases / sizeof *short_aliases; i++)
        if (!strcmp(word, short_aliases[i].alias))
            snprintf(word, sizeof word, "%s", short_aliases[i].name);
    for (int s = 0; s < SONDE_N_SITES; s++) {
        const char *b = brief((enum sonde_site)s);
        if (!*b || strcmp(word, b) || (has_layer && !sites[s].in_block))
            continue;
        enum sonde_code code = SONDE_OK;
        *found = true;
        if (has_layer && (code = check_layer(a, layer, spec, err)))
            return code;
        size_t from = has_layer ? layer : 0, to = has_layer || !sites[s].in_block ? from + 1 : a->n_layers;
        for (size_t l = from; l < to && !code; l++)
            code = push_named(list, a, (sonde_hook){(enum sonde_site)s, l}, spec, err);
        return code;
    }
    return SONDE_OK;
}

/* "scale4ln1", "normalized4ln2", "scale" (the final norm's). */
static enum sonde_code add_norm_shorthand(sonde_hook_list *list, const sonde_arch *a, const char *spec,
                                          bool *found, sonde_err *err)
{
    static const char *const words[] = {"scale", "normalized"};
    for (size_t w = 0; w < 2; w++) {
        size_t n = strlen(words[w]), layer;
        if (strncmp(spec, words[w], n))
            continue;
        char name[SONDE_HOOK_NAME_MAX];
        if (!spec[n]) {
            snprintf(name, sizeof name, "ln_final.hook_%s", words[w]);
            return add_full_name(list, a, name, found, err);
        }
        size_t digits = strspn(spec + n, "0123456789-");
        if (!parse_layer(a, spec + n, digits, &layer) || strlen(spec + n + digits) > 20)
            continue;
        enum sonde_code code = check_layer(a, layer, spec, err);
        if (code)
            return code;
        snprintf(name, sizeof name, "blocks.%zu.%s.hook_%s", layer, spec + n + digits, words[w]);
        return add_full_name(list, a, name, found, err);
    }
    return SONDE_OK;
}

/* NULL if an alias with this condition holds here, else why not. */
static const char *alias_absent(const sonde_arch *a, enum when when)
{
    switch (when) {
    case SERIAL:
        return a->parallel ? "its attention and MLP run in parallel" : NULL;
    case PARALLEL:
        return a->parallel ? NULL : "its attention and MLP do not run in parallel";
    case UNGATED:
        return a->gated ? "its MLP is gated" : NULL;
    case GATED:
        return a->gated ? NULL : "its MLP is not gated";
    case NO_POST_NORMS:
        return a->post_norms
                   ? "what lies before its post-norm has no hook; hook_attn_out and hook_mlp_out lie after it"
                   : NULL;
    case POST_NORMS:
        return a->post_norms ? NULL : "it has no post-norms";
    default:
        return NULL;
    }
}

/* Does spec match a path with or without a layer in it? */
static bool matches_path(const sonde_arch *a, const char *spec, const char *path, size_t *layer)
{
    const char *hole = strstr(path, "%zu"), *dot;
    *layer = 0;
    if (!hole)
        return !strcmp(spec, path);
    size_t head = (size_t)(hole - path);
    return !strncmp(spec, path, head) && (dot = strchr(spec + head, '.')) && !strcmp(dot, hole + 3) &&
           parse_layer(a, spec + head, (size_t)(dot - spec) - head, layer);
}

static enum sonde_code add_alias(sonde_hook_list *list, const sonde_arch *a, const char *spec, bool *found,
                                 sonde_err *err)
{
    const char *why = NULL;
    size_t layer;
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        if (!matches_path(a, spec, aliases[i].path, &layer))
            continue;
        *found = true;
        enum sonde_code code = check_layer(a, layer, spec, err);
        if (code)
            return code;
        if (!(why = alias_absent(a, aliases[i].when)))
            return push_named(list, a, (sonde_hook){aliases[i].site, layer}, spec, err);
    }
    return why ? sonde_fail(err, SONDE_E_USAGE, "hook '%.100s': not in this model (%s): %s", spec, a->family,
                            why)
               : SONDE_OK;
}

/* "transformer.h[3].output[0]", as Python writes it -> "transformer.h.3.output"; false if spec is not of that
 * kind. */
static bool without_brackets(const char *spec, char *out, size_t n)
{
    size_t at = 0;
    if (!strncmp(spec, "blocks.", 7) || strpbrk(spec, "*?") || strlen(spec) >= n)
        return false;
    for (const char *s = spec; *s; s++) {
        size_t digits = *s == '[' ? strspn(s + 1, "-0123456789") : 0;
        if (*s == '[' && (!digits || s[1 + digits] != ']'))
            return false;
        if (*s == '[')
            out[at++] = '.';
        else if (*s != ']')
            out[at++] = *s;
    }
    out[at] = '\0';
    if (at > 9 && !strcmp(out + at - 9, ".output.0"))
        out[at - 2] = '\0';
    return true;
}

static enum sonde_code add_glob(sonde_hook_list *list, const sonde_arch *a, const char *spec, bool *found,
                                sonde_err *err)
{
    const char *dot = strrchr(spec, '.'), *last = dot ? dot + 1 : spec;
    bool derived_too = !strpbrk(last, "*?[");
    enum sonde_code code = SONDE_OK;
    sonde_hook absent = {SONDE_N_SITES, 0};
    for (int s = 0; s < SONDE_N_SITES; s++) {
        if (sites[s].derived && !derived_too)
            continue;
        for (size_t l = 0; l < (sites[s].in_block ? a->n_layers : 1) && !code; l++) {
            char name[SONDE_HOOK_NAME_MAX];
            sonde_hook h = {(enum sonde_site)s, l};
            if (fnmatch(spec, sonde_hook_name(h, name), 0))
                continue;
            if (sonde_site_absent(a, h.site)) {
                absent = h;
                continue;
            }
            *found = true;
            code = push(list, h, err);
        }
    }
    return !code && !*found && absent.site < SONDE_N_SITES ? push_named(list, a, absent, spec, err) : code;
}

static enum sonde_code unknown(const sonde_arch *a, const char *spec, sonde_err *err)
{
    char(*name)[SONDE_HOOK_NAME_MAX] = malloc(sizeof *name * SONDE_N_SITES * 2);
    const char *list[SONDE_N_SITES * 2];
    char near[320];
    size_t n = 0;
    if (!name)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for hook names");
    size_t layer = 0;
    const char *number = !strncmp(spec, "blocks.", 7) ? spec + 7 : NULL;
    if (number && (!parse_layer(a, number, strcspn(number, "."), &layer) || layer >= a->n_layers))
        layer = 0;
    for (int s = 0; s < SONDE_N_SITES; s++) {
        if (sonde_site_absent(a, (enum sonde_site)s))
            continue;
        list[n] = sonde_hook_name((sonde_hook){(enum sonde_site)s, layer}, name[n]);
        n++;
        if (!number && *brief((enum sonde_site)s))
            list[n++] = brief((enum sonde_site)s);
    }
    sonde_suggest(spec, list, n, near, sizeof near);
    enum sonde_code code =
        sonde_fail(err, SONDE_E_USAGE, "no hook '%.100s' in this model%s", spec,
                   *near ? near : "; the names are those of TransformerLens, e.g. blocks.0.hook_resid_post");
    free(name);
    return code;
}

enum sonde_code sonde_hooks_add(sonde_hook_list *list, const sonde_arch *a, const char *spec, sonde_err *err)
{
    static enum sonde_code (*const ways[])(sonde_hook_list *, const sonde_arch *, const char *, bool *,
                                           sonde_err *) = {add_full_name, add_shorthand, add_norm_shorthand,
                                                           add_alias};
    bool found = false;
    enum sonde_code code = SONDE_OK;
    char path[100];
    if (without_brackets(spec, path, sizeof path))
        spec = path;
    if (strpbrk(spec, "*?["))
        code = add_glob(list, a, spec, &found, err);
    else
        for (size_t i = 0; i < sizeof ways / sizeof *ways && !found && !code; i++)
            code = ways[i](list, a, spec, &found, err);
    return code ? code : found ? SONDE_OK : unknown(a, spec, err);
}

void sonde_hooks_sort(sonde_hook_list *list, const sonde_arch *a)
{
    for (size_t i = 1; i < list->n; i++) { /* insertion: lists are nearly sorted and short */
        sonde_hook h = list->hook[i];
        size_t order = sonde_hook_order(a, h), j = i;
        for (; j > 0 && sonde_hook_order(a, list->hook[j - 1]) > order; j--)
            list->hook[j] = list->hook[j - 1];
        list->hook[j] = h;
    }
}

void sonde_hooks_free(sonde_hook_list *list)
{
    free(list->hook);
    *list = (sonde_hook_list){0};
}
