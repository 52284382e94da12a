/* SPDX-License-Identifier: MIT
 * GGUF: its metadata as the config.json it stands for, its tensor names, and what llama.cpp's converter
 * changed: Conv1D transposed and NeoX' qkv regrouped (so both are plain [out, in]), Llama's q and k rows in
 * interleaved rotary order, Gemma's norms stored as 1 + w, Llama 3's frequency factors in a tensor of their
 * own. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "families_impl.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

#define ENDS                                                                                                 \
    {SLOT_EMBED, LAYOUT_OUT_IN, "token_embd.weight", false},                                                 \
        {SLOT_POSITION, LAYOUT_VECTOR, "position_embd.weight", false},                                       \
        {SLOT_LN_FINAL_W, LAYOUT_VECTOR, "output_norm.weight", false},                                       \
        {SLOT_LN_FINAL_B, LAYOUT_VECTOR, "output_norm.bias", false},                                         \
        {SLOT_UNEMBED, LAYOUT_OUT_IN, "output.weight", false},                                               \
        {SLOT_LN1_W, LAYOUT_VECTOR, "blk.%zu.attn_norm.weight", false},                                      \
        {SLOT_LN1_B, LAYOUT_VECTOR, "blk.%zu.attn_norm.bias", false},                                        \
        {SLOT_LN2_W, LAYOUT_VECTOR, "blk.%zu.ffn_norm.weight", false},                                       \
        {SLOT_LN2_B, LAYOUT_VECTOR, "blk.%zu.ffn_norm.bias", false},                                         \
        {SLOT_O, LAYOUT_OUT_IN, "blk.%zu.attn_output.weight", false},                                        \
        {SLOT_O_B, LAYOUT_VECTOR, "blk.%zu.attn_output.bias", true},                                         \
        {SLOT_IN, LAYOUT_OUT_IN, "blk.%zu.ffn_up.weight", false},                                            \
        {SLOT_IN_B, LAYOUT_VECTOR, "blk.%zu.ffn_up.bias", true},                                             \
        {SLOT_OUT, LAYOUT_OUT_IN, "blk.%zu.ffn_down.weight", false},                                         \
    {                                                                                                        \
        SLOT_OUT_B, LAYOUT_VECTOR, "blk.%zu.ffn_down.bias", true                                             \
    }

static const struct tensor_rule fused_rules[] = {
    ENDS,
    {SLOT_QKV, LAYOUT_OUT_IN, "blk.%zu.attn_qkv.weight", false},
    {SLOT_QKV_B, LAYOUT_VECTOR, "blk.%zu.attn_qkv.bias", true},
};

static const struct tensor_rule split_rules[] = {
    ENDS,
    {SLOT_Q, LAYOUT_OUT_IN, "blk.%zu.attn_q.weight", false},
    {SLOT_Q_B, LAYOUT_VECTOR, "blk.%zu.attn_q.bias", true},
    {SLOT_K, LAYOUT_OUT_IN, "blk.%zu.attn_k.weight", false},
    {SLOT_K_B, LAYOUT_VECTOR, "blk.%zu.attn_k.bias", true},
    {SLOT_V, LAYOUT_OUT_IN, "blk.%zu.attn_v.weight", false},
    {SLOT_V_B, LAYOUT_VECTOR, "blk.%zu.attn_v.bias", true},
    {SLOT_Q_NORM, LAYOUT_VECTOR, "blk.%zu.attn_q_norm.weight", false},
    {SLOT_K_NORM, LAYOUT_VECTOR, "blk.%zu.attn_k_norm.weight", false},
    {SLOT_GATE, LAYOUT_OUT_IN, "blk.%zu.ffn_gate.weight", false},
    {SLOT_GATE_B, LAYOUT_VECTOR, "blk.%zu.ffn_gate.bias", true},
    {SLOT_LN1_POST_W, LAYOUT_VECTOR, "blk.%zu.post_attention_norm.weight", false},
    {SLOT_LN2_POST_W, LAYOUT_VECTOR, "blk.%zu.post_ffw_norm.weight", false},
};

static const char *const no_prefix[] = {"", NULL};
static const char *const ignore[] = {"rope_freqs.weight", "output.weight", NULL};

static const struct family fused = {"gguf", NULL, fused_rules, COUNT(fused_rules), no_prefix, ignore};
static const struct family split = {"gguf", NULL, split_rules, COUNT(split_rules), no_prefix, ignore};

/* One row per general.architecture. */
static const struct gguf_arch {
    const char *name, *family;
    const struct family *tensors;
    bool interleaved, plus_one_stored;
} archs[] = {
    {"gpt2", "gpt2", &fused, false, false},    {"gptneox", "gpt_neox", &fused, false, false},
    {"llama", "llama", &split, true, false},   {"qwen2", "qwen2", &split, false, false},
    {"qwen3", "qwen3", &split, false, false},  {"gemma", "gemma", &split, false, true},
    {"gemma2", "gemma2", &split, false, true}, {"gemma3", "gemma3", &split, false, true},
};

/* ---- metadata into a config -------------------------------------------------------------------- */

enum kind { KIND_INT, KIND_REAL, KIND_BOOL };

/* GGUF key (after "ARCH.") -> config.json key, for every family; what a family does not know it ignores. */
static const struct {
    const char *gguf, *config;
    enum kind kind;
} keys[] = {
    {"block_count", "num_hidden_layers", KIND_INT},
    {"block_count", "n_layer", KIND_INT},
    {"context_length", "max_position_embeddings", KIND_INT},
    {"context_length", "n_positions", KIND_INT},
    {"embedding_length", "hidden_size", KIND_INT},
    {"embedding_length", "n_embd", KIND_INT},
    {"feed_forward_length", "intermediate_size", KIND_INT},
    {"feed_forward_length", "n_inner", KIND_INT},
    {"attention.head_count", "num_attention_heads", KIND_INT},
    {"attention.head_count", "n_head", KIND_INT},
    {"attention.head_count_kv", "num_key_value_heads", KIND_INT},
    {"attention.key_length", "head_dim", KIND_INT},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", KIND_REAL},
    {"attention.layer_norm_epsilon", "layer_norm_epsilon", KIND_REAL},
    {"attention.layer_norm_epsilon", "layer_norm_eps", KIND_REAL},
    {"attention.sliding_window", "sliding_window", KIND_INT},
    {"rope.freq_base", "rope_theta", KIND_REAL},
    {"use_parallel_residual", "use_parallel_residual", KIND_BOOL},
    {"attn_logit_softcapping", "attn_logit_softcapping", KIND_REAL},
    {"final_logit_softcapping", "final_logit_softcapping", KIND_REAL},
};

static const sonde_meta *meta(const sonde_tensors *f, const char *arch, const char *key)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", arch, key);
    return sonde_meta_find(f, full);
}

static bool number(const sonde_meta *m, double *out)
{
    if (!m)
        return false;
    *out = m->type == SONDE_META_INT ? (double)m->i : m->type == SONDE_META_UINT ? (double)m->u : m->f;
    return m->type == SONDE_META_INT || m->type == SONDE_META_UINT || m->type == SONDE_META_FLOAT;
}

/* NULL if the entry has no such value: a list, a fraction where an integer belongs, NaN. */
static json_t *value_of(const sonde_meta *m, enum kind kind)
{
    double v;
    if (kind == KIND_BOOL)
        return m->type == SONDE_META_BOOL ? json_boolean(m->u || m->i) : NULL;
    if (!number(m, &v))
        return NULL;
    if (kind == KIND_REAL)
        return json_real(v); /* NULL unless finite */
    return m->type != SONDE_META_FLOAT && v > -9e15 && v < 9e15 ? json_integer((json_int_t)v) : NULL;
}

static void set_scaling(const sonde_tensors *f, const char *arch, json_t *config)
{
    const sonde_meta *type = meta(f, arch, "rope.scaling.type");
    double factor = 1;
    if (!type || type->type != SONDE_META_STRING || !strcmp(type->s, "none"))
        return;
    number(meta(f, arch, "rope.scaling.factor"), &factor);
    json_object_set_new(config, "rope_scaling",
                        json_pack("{s:s,s:f}", "rope_type", type->s, "factor", factor));
}

/* What llama.cpp knows without metadata: query_pre_attn_scalar is the head width, except in the two 27B
 * models. */
static void set_query_scale(const sonde_tensors *f, const struct gguf_arch *g, json_t *config)
{
    double layers = 0, width = 0, heads = 1, head_dim = 0;
    number(meta(f, g->name, "block_count"), &layers);
    number(meta(f, g->name, "embedding_length"), &width);
    number(meta(f, g->name, "attention.head_count"), &heads);
    bool large = (!strcmp(g->name, "gemma2") && layers == 46) || (!strcmp(g->name, "gemma3") && layers == 62);
    if (large)
        json_object_set_new(config, "query_pre_attn_scalar", json_real(width / heads));
    else if (number(meta(f, g->name, "attention.key_length"), &head_dim))
        json_object_set_new(config, "query_pre_attn_scalar", json_real(head_dim));
}

/* The part of each head that GPT-NeoX rotates, as a fraction that gives the very number when multiplied back.
 */
static void set_rotary_part(const sonde_tensors *f, const struct gguf_arch *g, json_t *config)
{
    double dims, width, heads;
    if (!number(meta(f, g->name, "rope.dimension_count"), &dims) ||
        !number(meta(f, g->name, "embedding_length"), &width) ||
        !number(meta(f, g->name, "attention.head_count"), &heads) || !(heads > 0) || !(width >= heads) ||
        !(dims >= 0) || dims > width / heads)
        return;
    double part = dims / floor(width / heads);
    if (floor(width / heads) * part < dims)
        part = nextafter(part, 1);
    json_object_set_new(config, "rotary_pct", json_real(part));
}

/* Other families rotate whole heads: a file that says otherwise would be computed wrongly. */
static enum sonde_code check_rotary_part(const sonde_tensors *f, const struct gguf_arch *g, const char *what,
                                         const sonde_arch *a, sonde_err *err)
{
    double dims;
    if (a->positions != SONDE_POS_ROPE || !number(meta(f, g->name, "rope.dimension_count"), &dims) ||
        dims == (double)a->rope_dim)
        return SONDE_OK;
    return sonde_fail(err, SONDE_E_INPUT,
                      "%s: rope.dimension_count is %g, the family '%s' rotates %zu of %zu", what, dims,
                      a->family, a->rope_dim, a->d_head);
}

static enum sonde_code make_config(const sonde_tensors *f, const struct gguf_arch *g, const char *what,
                                   json_t *config, sonde_err *err)
{
    static const char *const kinds[] = {"an integer", "a finite number", "true or false"};
    const sonde_tensor *embed = sonde_tensors_find(f, "token_embd.weight");
    json_object_set_new(config, "model_type", json_string(g->family));
    for (size_t i = 0; i < COUNT(keys); i++) {
        const sonde_meta *m = meta(f, g->name, keys[i].gguf);
        json_t *v = m ? value_of(m, keys[i].kind) : NULL;
        if (m && !v)
            return sonde_fail(err, SONDE_E_INPUT, "%s: %s.%s is not %s", what, g->name, keys[i].gguf,
                              kinds[keys[i].kind]);
        if (v)
            json_object_set_new(config, keys[i].config, v);
    }
    if (embed && embed->rank == 2)
        json_object_set_new(config, "vocab_size", json_integer((json_int_t)embed->dim[0]));
    json_object_set_new(config, "tie_word_embeddings", json_boolean(!sonde_tensors_find(f, "output.weight")));
    set_scaling(f, g->name, config);
    set_query_scale(f, g, config);
    set_rotary_part(f, g, config);
    return SONDE_OK;
}

/* ---- all --------------------------------------------------------------------------------------- */

static enum sonde_code apply_frequency_factors(const sonde_tensors *f, const char *what, sonde_arch *a,
                                               sonde_err *err)
{
    const sonde_tensor *t = sonde_tensors_find(f, "rope_freqs.weight");
    size_t n = a->rope_dim / 2;
    if (!t)
        return SONDE_OK;
    if (sonde_tensor_count(t) != n)
        return sonde_fail(err, SONDE_E_INPUT, "%s: rope_freqs.weight has %zu values, this model needs %zu",
                          what, sonde_tensor_count(t), n);
    for (size_t i = 0; i < n; i++) {
        float factor;
        enum sonde_code code = sonde_tensor_to_f32(t, i, 1, &factor, err);
        if (code)
            return code;
        if (!(factor > 0) || !isfinite(a->inv_freq[0][i] / factor))
            return sonde_fail(err, SONDE_E_INPUT,
                              "%s: rope_freqs.weight holds %g, a frequency cannot be divided by it", what,
                              (double)factor);
        a->inv_freq[0][i] /= factor;
    }
    return SONDE_OK;
}

enum sonde_code family_configure_gguf(const sonde_tensors *file, const char *what, sonde_arch *arch,
                                      struct source *source, sonde_arena *arena, json_t **config,
                                      sonde_err *err)
{
    const sonde_meta *name = sonde_meta_find(file, "general.architecture");
    const struct gguf_arch *g = NULL;
    const struct family *family;
    for (size_t i = 0; name && name->type == SONDE_META_STRING && i < COUNT(archs); i++)
        if (!strcmp(name->s, archs[i].name))
            g = &archs[i];
    if (!g)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: architecture '%.40s' is not known; these are: gpt2, gptneox, llama, qwen2, "
                          "qwen3, gemma, gemma2, "
                          "gemma3",
                          what, name && name->type == SONDE_META_STRING ? name->s : "(none)");
    *config = json_object();
    if (!*config)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the config", what);
    enum sonde_code code = make_config(file, g, what, *config, err);
    if (!code)
        code = family_configure(*config, what, arch, &family, arena, err);
    if (!code)
        code = check_rotary_part(file, g, what, arch, err);
    if (code)
        return code;
    source->family = g->tensors;
    source->interleaved_rope = g->interleaved;
    if (g->plus_one_stored)
        arch->norm_plus_one = false;
    return arch->positions == SONDE_POS_ROPE ? apply_frequency_factors(file, what, arch, err) : SONDE_OK;
}
