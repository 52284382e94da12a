/* SPDX-License-Identifier: MIT
 * config.json of every family, old spellings and new, into an arch. */
#include "config_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../file/json.h"

#define MAX_DIM  (1 << 24)
#define MAX_HEAD (1 << 16) /* width of a head, so that a config alone cannot ask for large tables */

/* ---- GPT-2, GPT-Neo ---------------------------------------------------------------------------- */

static void gpt_common(struct config_reader *r, sonde_arch *a)
{
    a->norm = a->final_norm = SONDE_NORM_LAYER;
    a->positions = SONDE_POS_LEARNED;
    a->n_kv_heads = a->n_heads;
    a->d_head = a->n_heads ? a->d_model / a->n_heads : 0;
    if (!r->code && a->d_head * a->n_heads != a->d_model)
        r->code = sonde_fail(r->err, SONDE_E_INPUT, "%s: %zu heads do not divide the width %zu", r->path,
                             a->n_heads, a->d_model);
    a->eps = (float)config_double(r, "layer_norm_epsilon", 0, 1, 1e-5);
    a->act = config_act(r, config_string(r, "activation_function", "gelu_new"));
    a->tied = config_bool(r, "tie_word_embeddings", true);
}

enum sonde_code configure_gpt2(const json_t *config, const char *path, sonde_arch *a, sonde_arena *arena,
                               sonde_err *err)
{
    (void)arena;
    struct config_reader r = {config, path, err, SONDE_OK};
    a->d_model = config_size(&r, "n_embd", MAX_DIM);
    a->n_heads = config_size(&r, "n_head", MAX_DIM);
    a->n_layers = config_size(&r, "n_layer", SONDE_MAX_LAYERS);
    a->n_ctx = config_size(&r, config_has(&r, "n_positions") ? "n_positions" : "n_ctx", MAX_DIM);
    a->n_vocab = config_size(&r, "vocab_size", MAX_DIM);
    a->d_mlp = (size_t)config_int(&r, "n_inner", 1, MAX_DIM, 4 * (int64_t)a->d_model);
    gpt_common(&r, a);
    a->attn_scale = config_bool(&r, "scale_attn_weights", true) ? (float)(1 / sqrt((double)a->d_head)) : 1;
    a->attn_scale_by_layer = config_bool(&r, "scale_attn_by_inverse_layer_idx", false);
    return r.code;
}

/* One group of attention_types, [["global", "local"], 12]; returns the number of layers named so far. */
static size_t neo_group(struct config_reader *r, sonde_arch *a, const json_t *group, size_t n)
{
    const json_t *pattern = json_array_get(group, 0), *repeat = json_array_get(group, 1);
    size_t len = json_array_size(pattern);
    json_int_t times = json_integer_value(repeat);
    if (!r->code && (!len || len > SONDE_MAX_LAYERS || !json_is_integer(repeat) || times < 0))
        r->code = sonde_fail(r->err, SONDE_E_INPUT,
                             "%s: attention_types must be like [[[\"global\", \"local\"], 12]]", r->path);
    for (json_int_t i = 0; !r->code && i < times && n <= a->n_layers; i++)
        for (size_t j = 0; j < len; j++, n++) {
            bool local = config_is_local(r, "attention_types", json_array_get(pattern, j), "global", "local");
            if (n < a->n_layers)
                a->layer_local[n] = local;
        }
    return n;
}

/* attention_layers lists the layers; attention_types repeats patterns; without either, odd layers are local.
 */
static void neo_layers(struct config_reader *r, sonde_arch *a)
{
    const json_t *list = config_container(r, "attention_layers", JSON_ARRAY);
    const json_t *types = config_container(r, "attention_types", JSON_ARRAY);
    size_t n = 0;
    if (list)
        config_count(r, "attention_layers", json_array_size(list), a->n_layers);
    for (; list && !r->code && n < a->n_layers; n++)
        a->layer_local[n] =
            config_is_local(r, "attention_layers", json_array_get(list, n), "global", "local");
    if (!list && types) {
        for (size_t g = 0; g < json_array_size(types) && !r->code && n <= a->n_layers; g++)
            n = neo_group(r, a, json_array_get(types, g), n);
        config_count(r, "attention_types", n, a->n_layers);
    }
    for (; !list && !types && n < a->n_layers; n++)
        a->layer_local[n] = n % 2 == 1;
}

enum sonde_code configure_gpt_neo(const json_t *config, const char *path, sonde_arch *a, sonde_arena *arena,
                                  sonde_err *err)
{
    (void)arena;
    struct config_reader r = {config, path, err, SONDE_OK};
    a->d_model = config_size(&r, "hidden_size", MAX_DIM);
    a->n_heads = config_size(&r, "num_heads", MAX_DIM);
    a->n_layers = config_size(&r, "num_layers", SONDE_MAX_LAYERS);
    a->n_ctx = config_size(&r, "max_position_embeddings", MAX_DIM);
    a->n_vocab = config_size(&r, "vocab_size", MAX_DIM);
    a->d_mlp = (size_t)config_int(&r, "intermediate_size", 1, MAX_DIM, 4 * (int64_t)a->d_model);
    gpt_common(&r, a);
    a->attn_scale = 1;
    a->window = (size_t)config_int(&r, "window_size", 1, MAX_DIM, 256);
    neo_layers(&r, a);
    return r.code;
}

/* ---- rotary families --------------------------------------------------------------------------- */

/* rope_scaling (transformers 4) or the rope parameters of one layer kind (transformers 5), or NULL. */
static struct rope_scaling read_scaling(struct config_reader *outer, const json_t *obj)
{
    struct rope_scaling s = {.type = ROPE_PLAIN};
    if (!obj)
        return s;
    struct config_reader r = {obj, outer->path, outer->err, outer->code};
    const char *type = config_string(&r, "rope_type", NULL);
    if (!type)
        type = config_string(&r, "type", "default");
    if (!r.code && !strcmp(type, "linear")) {
        s.type = ROPE_LINEAR;
        s.factor = config_double(&r, "factor", 1e-3, 1e6, 1);
    } else if (!r.code && !strcmp(type, "llama3")) {
        s.type = ROPE_LLAMA3;
        s.factor = config_double(&r, "factor", 1e-3, 1e6, 8);
        s.low_freq = config_double(&r, "low_freq_factor", 1e-3, 1e6, 1);
        s.high_freq = config_double(&r, "high_freq_factor", 1e-3, 1e6, 4);
        s.original_context = config_double(&r, "original_max_position_embeddings", 1, 1e9, 8192);
        if (!r.code && s.high_freq <= s.low_freq)
            r.code =
                sonde_fail(r.err, SONDE_E_INPUT, "%s: high_freq_factor %g is not above low_freq_factor %g",
                           r.path, s.high_freq, s.low_freq);
    } else if (!r.code && strcmp(type, "default")) {
        r.code = sonde_fail(r.err, SONDE_E_INPUT,
                            "%s: rope type '%.40s' is not supported (default, linear and llama3 are)", r.path,
                            type);
    }
    outer->code = r.code;
    return s;
}

/* One frequency table. `params` is transformers 5's rope_parameters (or one layer kind of it), or NULL. */
static float *read_rope(struct config_reader *r, sonde_arch *a, const json_t *params, const char *theta_key,
                        double theta, bool scaled, sonde_arena *arena)
{
    struct rope_scaling scaling = {.type = ROPE_PLAIN};
    if (params) {
        struct config_reader p = {params, r->path, r->err, r->code};
        theta = config_double(&p, "rope_theta", 1e-3, 1e12, theta);
        r->code = p.code;
        scaling = read_scaling(r, params);
    } else {
        theta = config_double(r, theta_key, 1e-3, 1e12, theta);
        if (scaled)
            scaling = read_scaling(r, config_container(r, "rope_scaling", JSON_OBJECT));
    }
    if (!r->code && (a->rope_dim % 2 || a->rope_dim > a->d_head))
        r->code = sonde_fail(r->err, SONDE_E_INPUT, "%s: %zu rotary dimensions do not fit heads of width %zu",
                             r->path, a->rope_dim, a->d_head);
    if (r->code)
        return NULL;
    float *f = rope_frequencies(a->rope_dim, theta, &scaling, arena, r->err);
    if (!f)
        r->code = SONDE_E_MEMORY;
    return f;
}

static void set_rope(struct config_reader *r, sonde_arch *a, size_t rope_dim, double theta,
                     sonde_arena *arena)
{
    a->positions = SONDE_POS_ROPE;
    a->rope_dim = rope_dim;
    a->inv_freq[0] = read_rope(r, a, config_container(r, "rope_parameters", JSON_OBJECT), "rope_theta", theta,
                               true, arena);
    a->inv_freq[1] = a->inv_freq[0];
}

enum sonde_code configure_gpt_neox(const json_t *config, const char *path, sonde_arch *a, sonde_arena *arena,
                                   sonde_err *err)
{
    struct config_reader r = {config, path, err, SONDE_OK};
    a->d_model = config_size(&r, "hidden_size", MAX_DIM);
    a->n_heads = config_size(&r, "num_attention_heads", MAX_DIM);
    a->n_layers = config_size(&r, "num_hidden_layers", SONDE_MAX_LAYERS);
    a->n_ctx = config_size(&r, "max_position_embeddings", MAX_DIM);
    a->n_vocab = config_size(&r, "vocab_size", MAX_DIM);
    a->d_mlp = config_size(&r, "intermediate_size", MAX_DIM);
    gpt_common(&r, a);
    a->eps = (float)config_double(&r, "layer_norm_eps", 0, 1, 1e-5);
    a->act = config_act(&r, config_string(&r, "hidden_act", "gelu"));
    a->tied = config_bool(&r, "tie_word_embeddings", false);
    a->parallel = config_bool(&r, "use_parallel_residual", true);
    a->attn_scale = (float)(1 / sqrt((double)a->d_head));
    double part =
        config_double(&r, "partial_rotary_factor", 0, 1, config_double(&r, "rotary_pct", 0, 1, 0.25));
    const json_t *params = config_container(&r, "rope_parameters", JSON_OBJECT);
    if (params) {
        struct config_reader p = {params, path, err, r.code};
        part = config_double(&p, "partial_rotary_factor", 0, 1, part);
        r.code = p.code;
    }
    double base = config_double(&r, "rotary_emb_base", 1e-3, 1e12, 10000);
    set_rope(&r, a, (size_t)((double)a->d_head * part), base, arena);
    if (!a->rope_dim)
        a->positions = SONDE_POS_NONE;
    return r.code;
}

static void llama_common(struct config_reader *r, sonde_arch *a, bool tied)
{
    a->d_model = config_size(r, "hidden_size", MAX_DIM);
    a->n_heads = config_size(r, "num_attention_heads", MAX_DIM);
    a->n_kv_heads = (size_t)config_int(r, "num_key_value_heads", 1, MAX_DIM, (int64_t)a->n_heads);
    a->n_layers = config_size(r, "num_hidden_layers", SONDE_MAX_LAYERS);
    a->n_ctx = config_size(r, "max_position_embeddings", MAX_DIM);
    a->n_vocab = config_size(r, "vocab_size", MAX_DIM);
    a->d_mlp = config_size(r, "intermediate_size", MAX_DIM);
    if (!config_has(r, "head_dim") && !r->code && a->d_model % a->n_heads)
        r->code = sonde_fail(r->err, SONDE_E_INPUT, "%s: %zu heads do not divide the width %zu", r->path,
                             a->n_heads, a->d_model);
    a->d_head = (size_t)config_int(r, "head_dim", 1, MAX_HEAD, (int64_t)(a->d_model / a->n_heads));
    a->norm = a->final_norm = SONDE_NORM_RMS;
    a->eps = (float)config_double(r, "rms_norm_eps", 0, 1, 1e-6);
    a->attn_scale = (float)(1 / sqrt((double)a->d_head));
    a->gated = true;
    a->act = config_act(r, config_string(r, "hidden_act", "silu"));
    a->tied = config_bool(r, "tie_word_embeddings", tied);
}

/* layer_types names each layer; without it `local` decides. */
static void set_local(struct config_reader *r, sonde_arch *a,
                      bool (*local)(const sonde_arch *, size_t layer, size_t n), size_t n)
{
    const json_t *types = config_container(r, "layer_types", JSON_ARRAY);
    if (types)
        config_count(r, "layer_types", json_array_size(types), a->n_layers);
    for (size_t l = 0; l < a->n_layers && !r->code; l++)
        a->layer_local[l] = types ? config_is_local(r, "layer_types", json_array_get(types, l),
                                                    "full_attention", "sliding_attention")
                                  : local(a, l, n);
}

static bool always_local(const sonde_arch *a, size_t l, size_t n)
{
    (void)a, (void)l, (void)n;
    return true;
}

static bool local_from(const sonde_arch *a, size_t l, size_t n)
{
    (void)a;
    return l >= n;
}

static bool local_even(const sonde_arch *a, size_t l, size_t n)
{
    (void)a, (void)n;
    return l % 2 == 0;
}

static bool local_but_every(const sonde_arch *a, size_t l, size_t n)
{
    (void)a;
    return (l + 1) % n != 0;
}

enum sonde_code configure_llama(const json_t *config, const char *path, sonde_arch *a, sonde_arena *arena,
                                sonde_err *err)
{
    struct config_reader r = {config, path, err, SONDE_OK};
    llama_common(&r, a, false);
    set_rope(&r, a, a->d_head, 10000, arena);
    return r.code;
}

enum sonde_code configure_mistral(const json_t *config, const char *path, sonde_arch *a, sonde_arena *arena,
                                  sonde_err *err)
{
    struct config_reader r = {config, path, err, SONDE_OK};
    llama_common(&r, a, false);
    set_rope(&r, a, a->d_head, 10000, arena);
    if (config_has(&r, "sliding_window")) {
        a->window = (size_t)config_int(&r, "sliding_window", 1, INT32_MAX, 4096);
        set_local(&r, a, always_local, 0);
    }
    return r.code;
}

enum sonde_code configure_qwen2(const json_t *config, const char *path, sonde_arch *a, sonde_arena *arena,
                                sonde_err *err)
{
    struct config_reader r = {config, path, err, SONDE_OK};
    llama_common(&r, a, false);
    set_rope(&r, a, a->d_head, 10000, arena);
    bool use = config_bool(&r, "use_sliding_window", false);
    if (use && config_has(&r, "sliding_window")) {
        a->window = (size_t)config_int(&r, "sliding_window", 1, INT32_MAX, 4096);
        set_local(&r, a, local_from, (size_t)config_int(&r, "max_window_layers", 0, MAX_DIM, 28));
    }
    return r.code;
}

enum sonde_code configure_qwen3(const json_t *config, const char *path, sonde_arch *a, sonde_arena *arena,
                                sonde_err *err)
{
    enum sonde_code code = configure_qwen2(config, path, a, arena, err);
    a->qk_norm = true;
    return code;
}

/* Gemma's "gelu" has always been the tanh form; hidden_activation is the later, truthful key. */
static void gemma_common(struct config_reader *r, sonde_arch *a)
{
    llama_common(r, a, true);
    a->act = config_act(r, config_string(r, "hidden_activation", "gelu_pytorch_tanh"));
    a->norm_plus_one = true;
    a->embed_scale = (float)sqrt((double)a->d_model);
}

enum sonde_code configure_gemma(const json_t *config, const char *path, sonde_arch *a, sonde_arena *arena,
                                sonde_err *err)
{
    struct config_reader r = {config, path, err, SONDE_OK};
    gemma_common(&r, a);
    set_rope(&r, a, a->d_head, 10000, arena);
    return r.code;
}

static void gemma_later(struct config_reader *r, sonde_arch *a)
{
    gemma_common(r, a);
    a->post_norms = true;
    a->attn_scale = (float)(1 / sqrt(config_double(r, "query_pre_attn_scalar", 1e-6, 1e9, 256)));
    a->attn_softcap = (float)config_double(r, "attn_logit_softcapping", 0, 1e9, 0);
    a->final_softcap = (float)config_double(r, "final_logit_softcapping", 0, 1e9, 0);
    a->window = (size_t)config_int(r, "sliding_window", 1, INT32_MAX, 4096);
    if (!r->code && json_is_true(json_object_get(r->obj, "use_bidirectional_attention")))
        r->code =
            sonde_fail(r->err, SONDE_E_INPUT, "%s: use_bidirectional_attention is not supported", r->path);
}

enum sonde_code configure_gemma2(const json_t *config, const char *path, sonde_arch *a, sonde_arena *arena,
                                 sonde_err *err)
{
    struct config_reader r = {config, path, err, SONDE_OK};
    gemma_later(&r, a);
    if (!config_has(&r, "attn_logit_softcapping") && !json_object_get(config, "attn_logit_softcapping"))
        a->attn_softcap = 50;
    if (!config_has(&r, "final_logit_softcapping") && !json_object_get(config, "final_logit_softcapping"))
        a->final_softcap = 30;
    set_rope(&r, a, a->d_head, 10000, arena);
    set_local(&r, a, local_even, 0);
    return r.code;
}

/* Multimodal files keep the text model's keys in text_config. Local layers rotate with a table of their own.
 */
enum sonde_code configure_gemma3(const json_t *config, const char *path, sonde_arch *a, sonde_arena *arena,
                                 sonde_err *err)
{
    struct config_reader r = {config, path, err, SONDE_OK};
    const json_t *text = config_container(&r, "text_config", JSON_OBJECT);
    r.obj = text ? text : config;
    gemma_later(&r, a);
    a->qk_norm = true;
    a->positions = SONDE_POS_ROPE;
    a->rope_dim = a->d_head;
    const json_t *params = config_container(&r, "rope_parameters", JSON_OBJECT), *global = NULL,
                 *local = NULL;
    if (params) {
        struct config_reader p = {params, path, err, r.code};
        global = config_container(&p, "full_attention", JSON_OBJECT);
        local = config_container(&p, "sliding_attention", JSON_OBJECT);
        if (!p.code && (!global || !local))
            p.code = sonde_fail(err, SONDE_E_INPUT,
                                "%s: rope_parameters needs 'full_attention' and 'sliding_attention'", path);
        r.code = p.code;
    }
    a->inv_freq[0] = read_rope(&r, a, global, "rope_theta", 1e6, true, arena);
    a->inv_freq[1] = read_rope(&r, a, local, "rope_local_base_freq", 1e4, false, arena);
    int64_t every = config_int(&r, "sliding_window_pattern", 1, MAX_DIM,
                               config_int(&r, "_sliding_window_pattern", 1, MAX_DIM, 6));
    set_local(&r, a, local_but_every, (size_t)every);
    return r.code;
}

/* ---- TransformerLens --------------------------------------------------------------------------- */

static void tl_norm(struct config_reader *r, sonde_arch *a)
{
    static const struct {
        const char *name;
        enum sonde_norm kind;
        bool affine;
    } kinds[] = {{"LN", SONDE_NORM_LAYER, true},
                 {"LNPre", SONDE_NORM_LAYER, false},
                 {"RMS", SONDE_NORM_RMS, true},
                 {"RMSPre", SONDE_NORM_RMS, false}};
    const char *name = config_string(r, "normalization_type", NULL);
    a->norm = SONDE_NORM_NONE;
    for (size_t i = 0; name && i < 4; i++)
        if (!strcmp(name, kinds[i].name)) {
            a->norm = kinds[i].kind;
            a->norm_affine = kinds[i].affine;
        }
    if (name && !a->norm && !r->code)
        r->code = sonde_fail(r->err, SONDE_E_INPUT,
                             "%s: normalization_type '%.40s' is not known (null, LN, LNPre, RMS, RMSPre are)",
                             r->path, name);
    a->final_norm = a->norm && config_bool(r, "final_rms", false) ? SONDE_NORM_RMS : a->norm;
}

static void tl_positions(struct config_reader *r, sonde_arch *a, sonde_arena *arena)
{
    const char *kind = config_string(r, "positional_embedding_type", "standard");
    if (r->code)
        return;
    if (!strcmp(kind, "standard"))
        a->positions = SONDE_POS_LEARNED;
    else if (!strcmp(kind, "shortformer"))
        a->positions = SONDE_POS_SHORTFORMER;
    else if (!strcmp(kind, "none"))
        a->positions = SONDE_POS_NONE;
    else if (!strcmp(kind, "rotary")) {
        a->rope_dim = (size_t)config_int(r, "rotary_dim", 2, MAX_DIM, (int64_t)a->d_head);
        a->positions = SONDE_POS_ROPE;
        a->inv_freq[0] = a->inv_freq[1] = read_rope(r, a, NULL, "rotary_base", 10000, false, arena);
        if (config_bool(r, "rotary_adjacent_pairs", false) && !r->code)
            r->code =
                sonde_fail(r->err, SONDE_E_INPUT, "%s: rotary_adjacent_pairs is not supported", r->path);
    } else
        r->code = sonde_fail(
            r->err, SONDE_E_INPUT,
            "%s: positional_embedding_type '%.40s' is not known (standard, shortformer, rotary, none are)",
            r->path, kind);
}

/* attn_types names each layer, unless use_local_attn is false. */
static void tl_local(struct config_reader *r, sonde_arch *a)
{
    const json_t *types = config_container(r, "attn_types", JSON_ARRAY);
    if (config_has(r, "window_size"))
        a->window = (size_t)config_int(r, "window_size", 1, MAX_DIM, 256);
    if (!types || !config_bool(r, "use_local_attn", true))
        return;
    config_count(r, "attn_types", json_array_size(types), a->n_layers);
    for (size_t l = 0; l < a->n_layers && !r->code; l++) {
        a->layer_local[l] = config_is_local(r, "attn_types", json_array_get(types, l), "global", "local");
        if (a->layer_local[l] && !a->window && !r->code)
            r->code = sonde_fail(r->err, SONDE_E_INPUT,
                                 "%s: attn_types has local layers, window_size is missing", r->path);
    }
}

static void tl_mlp(struct config_reader *r, sonde_arch *a)
{
    if (config_bool(r, "attn_only", false))
        return;
    a->d_mlp = (size_t)config_int(r, "d_mlp", 1, MAX_DIM, 4 * (int64_t)a->d_model);
    const char *act = config_string(r, "act_fn", "gelu");
    a->solu_ln = !strcmp(act, "solu_ln");
    a->solu = a->solu_ln || !strcmp(act, "solu");
    a->act = a->solu ? SONDE_ACT_NONE : config_act(r, act);
    a->gated = config_bool(r, "gated_mlp", false);
    if (a->gated && a->solu && !r->code)
        r->code = sonde_fail(r->err, SONDE_E_INPUT, "%s: a gated MLP with act_fn '%s' is not supported",
                             r->path, act);
}

enum sonde_code configure_transformer_lens(const json_t *config, const char *path, sonde_arch *a,
                                           sonde_arena *arena, sonde_err *err)
{
    struct config_reader r = {config, path, err, SONDE_OK};
    a->d_model = config_size(&r, "d_model", MAX_DIM);
    a->n_heads = config_size(&r, "n_heads", MAX_DIM);
    a->n_kv_heads = (size_t)config_int(&r, "n_key_value_heads", 1, MAX_DIM, (int64_t)a->n_heads);
    a->n_layers = config_size(&r, "n_layers", SONDE_MAX_LAYERS);
    a->n_ctx = config_size(&r, "n_ctx", MAX_DIM);
    a->n_vocab = config_size(&r, "d_vocab", MAX_DIM);
    a->n_vocab_out = (size_t)config_int(&r, "d_vocab_out", 1, MAX_DIM, (int64_t)a->n_vocab);
    a->d_head = (size_t)config_int(&r, "d_head", 1, MAX_HEAD, (int64_t)(a->d_model / a->n_heads));
    tl_mlp(&r, a);
    a->eps = (float)config_double(&r, "eps", 0, 1, 1e-5);
    double scale = config_double(&r, "attn_scale", -1, 1e9, -1);
    a->attn_scale = !config_bool(&r, "use_attn_scale", true)
                        ? 1
                        : (float)(1 / (scale > 0 ? scale : sqrt((double)a->d_head)));
    a->parallel = config_bool(&r, "parallel_attn_mlp", false);
    const char *direction = config_string(&r, "attention_dir", "causal");
    a->bidirectional = !strcmp(direction, "bidirectional");
    if (!r.code && !a->bidirectional && strcmp(direction, "causal"))
        r.code =
            sonde_fail(err, SONDE_E_INPUT,
                       "%s: attention_dir '%.40s' is not known (causal, bidirectional are)", path, direction);
    a->pad_id = (int32_t)config_int(&r, "pad_token_id", 0, MAX_DIM, -1);
    tl_local(&r, a);
    tl_norm(&r, a);
    tl_positions(&r, a, arena);
    return r.code;
}

/* ---- all --------------------------------------------------------------------------------------- */

enum sonde_code arch_check(sonde_arch *a, const char *path, sonde_err *err)
{
    if (!a->n_vocab_out)
        a->n_vocab_out = a->n_vocab;
    if (!a->n_kv_heads || a->n_heads % a->n_kv_heads)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %zu key-value heads do not divide %zu heads", path,
                          a->n_kv_heads, a->n_heads);
    if (a->n_layers < 1 || a->n_layers > SONDE_MAX_LAYERS)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %zu layers, 1 to %d are possible", path, a->n_layers,
                          SONDE_MAX_LAYERS);
    if (a->d_head < 1 || a->d_head > MAX_HEAD || a->d_head > MAX_DIM / a->n_heads)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %zu heads of width %zu are impossible", path, a->n_heads,
                          a->d_head);
    if (a->positions == SONDE_POS_ROPE && (a->rope_dim % 2 || a->rope_dim > a->d_head))
        return sonde_fail(err, SONDE_E_INPUT, "%s: %zu rotary dimensions do not fit heads of width %zu", path,
                          a->rope_dim, a->d_head);
    if (a->tied && a->n_vocab_out != a->n_vocab)
        return sonde_fail(err, SONDE_E_INPUT, "%s: tied embeddings with %zu rows in and %zu out", path,
                          a->n_vocab, a->n_vocab_out);
    if (!isfinite(a->attn_scale) || !isfinite(a->eps))
        return sonde_fail(err, SONDE_E_INPUT, "%s: attention scale %g or epsilon %g is not finite", path,
                          (double)a->attn_scale, (double)a->eps);
    return SONDE_OK;
}

enum sonde_code family_configure(const json_t *config, const char *path, sonde_arch *a,
                                 const struct family **family, sonde_arena *arena, sonde_err *err)
{
    const char *type;
    enum sonde_code code;
    if ((code = sonde_json_string(config, "model_type", NULL, path, &type, err)))
        return code;
    const struct family *f = type ? family_find(type) : NULL;
    if (!f) {
        char known[240] = "";
        for (const char *const *n = sonde_families(); *n; n++)
            snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", *known ? ", " : "", *n);
        return sonde_fail(err, SONDE_E_INPUT, "%s: model_type '%.40s' is not known; these are: %s", path,
                          type ? type : "(none)", known);
    }
    memset(a, 0, sizeof *a);
    a->embed_scale = 1;
    a->norm_affine = true;
    a->pad_id = -1;
    snprintf(a->family, sizeof a->family, "%s", f->type);
    if ((code = f->configure(config, path, a, arena, err)) || (code = arch_check(a, path, err)))
        return code;
    *family = f;
    return SONDE_OK;
}
