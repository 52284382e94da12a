/* SPDX-License-Identifier: MIT
 * One transformer block, for every family: a straight list of stages, each of which shows its sites to the
 * hooks. Where no hook looks, stages are fused; the operations and their order stay the same. */
#include <string.h>

#include "../num/rope.h"
#include "../num/softmax.h"
#include "run_impl.h"

/* ---- attention: inputs ------------------------------------------------------------------------- */

static enum sonde_code show_resid_pre(sonde_run *r, size_t layer)
{
    return visit(r, SONDE_SITE_RESID_PRE, layer, r->x, r->m->arch.d_model);
}

/* n_heads copies of each row of x, [rows, n_heads, d]. */
static float *copies(sonde_run *r, const float *x, size_t n_heads)
{
    size_t d = r->m->arch.d_model;
    float *c = sonde_arena_get(r->extra, r->n_rows * n_heads * d, sizeof *c, r->err);
    for (size_t i = 0; c && i < r->n_rows * n_heads; i++)
        memcpy(c + i * d, x + i / n_heads * d, d * sizeof *c);
    return c;
}

static void add_positions(sonde_run *r, float *h)
{
    if (r->shortformer)
        sonde_vec_add(r->m->kernels, r->n_rows * r->m->arch.d_model, h, r->shortformer, h);
}

/* Columns [n0, n1) of the fused projection from h. */
static void project_qkv(sonde_run *r, const sonde_layer *y, size_t n0, size_t n1, const float *h)
{
    size_t ld = sonde_arch_qkv(&r->m->arch);
    const sonde_epilogue e = {.bias = y->qkv_bias};
    if (n1 > n0)
        project(r, &y->qkv, n0, n1, h, r->m->arch.d_model, r->n_rows, r->qkv + n0, ld, &e);
}

/* A head whose own copy of the residual was written: its norm and its columns alone. */
static void project_heads(sonde_run *r, const sonde_layer *y, const float *input, size_t n_heads, size_t n0,
                          bool positions)
{
    const sonde_arch *a = &r->m->arch;
    size_t d = a->d_model;
    for (size_t h = 0; h < n_heads; h++) {
        if (a->norm)
            sonde_norm_rows(r->m->kernels, a->norm, input + h * d, n_heads * d, r->n_rows, d, a->eps,
                            y->ln1.gamma, y->ln1.beta, r->out, d);
        else
            for (size_t i = 0; i < r->n_rows; i++)
                memcpy(r->out + i * d, input + (i * n_heads + h) * d, d * sizeof *r->out);
        if (positions)
            add_positions(r, r->out);
        project_qkv(r, y, n0 + h * a->d_head, n0 + (h + 1) * a->d_head, r->out);
    }
}

struct split {
    enum sonde_site site;
    size_t n_heads, n0;
    bool positions;
    float *input; /* [rows, n_heads, d] where hooked */
    bool written;
};

/* The per-head copies of resid_pre that attn_in and the q, k and v inputs show. */
static enum sonde_code show_split_inputs(sonde_run *r, size_t layer, struct split part[3])
{
    size_t d = r->m->arch.d_model, heads = r->m->arch.n_heads;
    float *attn_in = NULL;
    enum sonde_code code;
    if (hooked(r, SONDE_SITE_ATTN_IN, layer)) {
        if (!(attn_in = copies(r, r->x, heads)))
            return SONDE_E_MEMORY;
        if ((code = visit(r, SONDE_SITE_ATTN_IN, layer, attn_in, heads * d)) || r->done)
            return code;
    }
    bool all = hooked(r, SONDE_SITE_ATTN_IN, layer) & HOOKED_WRITE;
    for (int i = 0; i < 3; i++) {
        struct split *p = &part[i];
        unsigned how = hooked(r, p->site, layer);
        if (!how && !all)
            continue;
        p->input = copies(r, r->x, p->n_heads);
        if (!p->input)
            return SONDE_E_MEMORY;
        if (all)
            memcpy(p->input, attn_in, r->n_rows * p->n_heads * d * sizeof *attn_in);
        p->written = all || (how & HOOKED_WRITE);
        if ((code = visit(r, p->site, layer, p->input, p->n_heads * d)) || r->done)
            return code;
    }
    return SONDE_OK;
}

static enum sonde_code project_in(sonde_run *r, size_t layer)
{
    const sonde_model *m = r->m;
    const sonde_arch *a = &m->arch;
    const sonde_layer *y = &m->layer[layer];
    size_t q = a->n_heads * a->d_head, kv = a->n_kv_heads * a->d_head, d = a->d_model;
    struct split part[3] = {{SONDE_SITE_Q_INPUT, a->n_heads, 0, true, NULL, false},
                            {SONDE_SITE_K_INPUT, a->n_kv_heads, q, true, NULL, false},
                            {SONDE_SITE_V_INPUT, a->n_kv_heads, q + kv, false, NULL, false}};
    const float *in;
    enum sonde_code code = show_split_inputs(r, layer, part);
    if (code || r->done)
        return code;
    if ((code = normalise(r, a->norm, &y->ln1, SONDE_SITE_LN1_SCALE, layer, r->x, d, d, r->h, d, &in)) ||
        r->done)
        return code;
    if (r->shortformer) { /* positions for q and k, none for v */
        project_qkv(r, y, q + kv, q + 2 * kv, in);
        sonde_vec_add(m->kernels, r->n_rows * d, in, r->shortformer, r->h);
        project_qkv(r, y, 0, q + kv, r->h);
    } else {
        project_qkv(r, y, 0, q + 2 * kv, in);
    }
    for (int i = 0; i < 3; i++)
        if (part[i].written)
            project_heads(r, y, part[i].input, part[i].n_heads, part[i].n0, part[i].positions);
    return SONDE_OK;
}

/* ---- attention: queries, keys, values ---------------------------------------------------------- */

static enum sonde_code show_qkv(sonde_run *r, size_t layer)
{
    const sonde_arch *a = &r->m->arch;
    size_t q = a->n_heads * a->d_head, kv = a->n_kv_heads * a->d_head, ld = q + 2 * kv;
    enum sonde_code code;
    if ((code = visit(r, SONDE_SITE_Q, layer, r->qkv, ld)) || r->done ||
        (code = visit(r, SONDE_SITE_K, layer, r->qkv + q, ld)) || r->done)
        return code;
    return visit(r, SONDE_SITE_V, layer, r->qkv + q + kv, ld);
}

/* RMSNorm of each head, in place. */
static enum sonde_code norm_heads(sonde_run *r, size_t layer, enum sonde_site scale_site, float *x,
                                  size_t n_heads, const float *gamma)
{
    const sonde_arch *a = &r->m->arch;
    const sonde_kernels *k = r->m->kernels;
    size_t ld = sonde_arch_qkv(a), dh = a->d_head;
    enum sonde_code code;
    for (size_t i = 0; i < r->n_rows; i++)
        sonde_norm_stats(k, SONDE_NORM_RMS, x + i * ld, dh, n_heads, dh, a->eps, r->mean + i * n_heads,
                         r->scale + i * n_heads);
    if ((code = visit(r, scale_site, layer, r->scale, n_heads)) || r->done)
        return code;
    for (size_t i = 0; i < r->n_rows; i++)
        sonde_norm_apply(k, x + i * ld, dh, n_heads, dh, r->mean + i * n_heads, r->scale + i * n_heads,
                         x + i * ld, dh);
    if ((code = visit(r, (enum sonde_site)(scale_site + 1), layer, x, ld)) || r->done)
        return code;
    for (size_t i = 0; i < r->n_rows; i++)
        sonde_norm_affine(k, x + i * ld, dh, n_heads, dh, gamma, NULL, x + i * ld, dh);
    return SONDE_OK;
}

static enum sonde_code qk_norm(sonde_run *r, size_t layer)
{
    const sonde_arch *a = &r->m->arch;
    const sonde_layer *y = &r->m->layer[layer];
    enum sonde_code code;
    if (!a->qk_norm)
        return SONDE_OK;
    if ((code = norm_heads(r, layer, SONDE_SITE_Q_NORM_SCALE, r->qkv, a->n_heads, y->q_norm)) || r->done)
        return code;
    return norm_heads(r, layer, SONDE_SITE_K_NORM_SCALE, r->qkv + a->n_heads * a->d_head, a->n_kv_heads,
                      y->k_norm);
}

static enum sonde_code rotate(sonde_run *r, size_t layer)
{
    const sonde_arch *a = &r->m->arch;
    size_t ld = sonde_arch_qkv(a), q = a->n_heads * a->d_head, n = a->rope_dim / 2;
    int table = a->layer_local[layer];
    enum sonde_code code;
    if (a->positions != SONDE_POS_ROPE)
        return SONDE_OK;
    for (size_t s = 0; s < r->n_seqs; s++)
        for (size_t i = r->start[s]; i < r->start[s + 1]; i++) {
            float *row = r->qkv + (i - r->start[0]) * ld;
            size_t pos = r->first + i - r->start[s];
            sonde_rope_row(r->m->kernels, row, a->n_heads + a->n_kv_heads, a->d_head, a->rope_dim,
                           r->cosine[table] + pos * n, r->sine[table] + pos * n, row);
        }
    if ((code = visit(r, SONDE_SITE_ROT_Q, layer, r->qkv, ld)) || r->done)
        return code;
    return visit(r, SONDE_SITE_ROT_K, layer, r->qkv + q, ld);
}

/* ---- attention: scores, pattern, mix ----------------------------------------------------------- */

static void append_to_cache(sonde_run *r, size_t layer, sonde_attention *at)
{
    sonde_cache *c = r->cache;
    float *k = c->k + layer * c->n_max * c->width, *v = c->v + layer * c->n_max * c->width;
    for (size_t i = 0; i < at->n_queries; i++) {
        memcpy(k + (c->n + i) * c->width, at->k + i * at->stride_k, c->width * sizeof *k);
        memcpy(v + (c->n + i) * c->width, at->v + i * at->stride_v, c->width * sizeof *v);
    }
    at->k = k;
    at->v = v;
    at->stride_k = at->stride_v = c->width;
}

/* Keys that carry the padding id are masked in bidirectional models. */
static enum sonde_code mask_padding(sonde_run *r, size_t s, sonde_attention *at)
{
    const sonde_arch *a = &r->m->arch;
    if (!a->bidirectional || a->pad_id < 0)
        return SONDE_OK;
    uint8_t *ok = sonde_arena_get(r->extra, at->n_keys, 1, r->err);
    if (!ok)
        return SONDE_E_MEMORY;
    for (size_t j = 0; j < at->n_keys; j++)
        ok[j] = r->ids[r->start[s] - r->start[0] + j] != a->pad_id;
    at->key_ok = ok;
    return SONDE_OK;
}

/* Scores and pattern of one sequence in memory, for hooks. */
static enum sonde_code attend_seen(sonde_run *r, size_t layer, size_t s, const sonde_attention *at)
{
    size_t n = r->m->arch.n_heads * at->n_queries * at->n_keys;
    bool wrote_scores = hooked(r, SONDE_SITE_ATTN_SCORES, layer) & HOOKED_WRITE;
    bool wrote = wrote_scores || (hooked(r, SONDE_SITE_PATTERN, layer) & HOOKED_WRITE);
    float *scores = sonde_arena_get(r->extra, n, sizeof *scores, r->err);
    enum sonde_code code;
    if (!scores)
        return SONDE_E_MEMORY;
    sonde_attend_scores(at, r->attend, scores);
    if ((code = visit_square(r, SONDE_SITE_ATTN_SCORES, layer, s, scores, at->n_keys)))
        return code;
    sonde_attend_softmax(at, scores, wrote_scores, scores);
    if ((code = visit_square(r, SONDE_SITE_PATTERN, layer, s, scores, at->n_keys)))
        return code;
    sonde_attend_mix(at, r->attend, scores, wrote);
    return SONDE_OK;
}

static enum sonde_code attend(sonde_run *r, size_t layer)
{
    const sonde_arch *a = &r->m->arch;
    size_t q = a->n_heads * a->d_head, kv = a->n_kv_heads * a->d_head, ld = q + 2 * kv;
    bool seen = hooked(r, SONDE_SITE_ATTN_SCORES, layer) || hooked(r, SONDE_SITE_PATTERN, layer);
    enum sonde_code code;
    for (size_t s = 0; s < r->n_seqs; s++) {
        size_t row = r->start[s] - r->start[0], n = r->start[s + 1] - r->start[s];
        const float *base = r->qkv + row * ld;
        sonde_attention at = {.kernels = r->m->kernels,
                              .n_queries = n,
                              .n_keys = r->first + n,
                              .first = r->first,
                              .n_heads = a->n_heads,
                              .n_kv_heads = a->n_kv_heads,
                              .d_head = a->d_head,
                              .q = base,
                              .k = base + q,
                              .v = base + q + kv,
                              .stride_q = ld,
                              .stride_k = ld,
                              .stride_v = ld,
                              .scale = sonde_arch_attn_scale(a, layer),
                              .softcap = a->attn_softcap,
                              .causal = !a->bidirectional,
                              .window = a->layer_local[layer] ? a->window : 0,
                              .z = r->z + row * q,
                              .stride_z = q};
        if (!n)
            continue;
        if (r->cache)
            append_to_cache(r, layer, &at);
        if ((code = mask_padding(r, s, &at)))
            return code;
        if (!seen)
            sonde_attend(&at, r->attend, r->pool);
        else if ((code = attend_seen(r, layer, s, &at)))
            return code;
    }
    if (seen) {
        enum sonde_site deepest =
            hooked(r, SONDE_SITE_PATTERN, layer) ? SONDE_SITE_PATTERN : SONDE_SITE_ATTN_SCORES;
        reached(r, deepest, layer);
        if (r->done)
            return SONDE_OK;
    }
    return visit(r, SONDE_SITE_Z, layer, r->z, q);
}

/* ---- attention: out ---------------------------------------------------------------------------- */

/* z_h W_O,h of each head, [rows, H, d], without the bias: z with the other heads zero runs the whole chain,
 * whose zero terms add nothing. */
static enum sonde_code show_result(sonde_run *r, size_t layer, const sonde_layer *y, bool *written)
{
    const sonde_arch *a = &r->m->arch;
    size_t q = a->n_heads * a->d_head, d = a->d_model, dh = a->d_head, ld = a->n_heads * d;
    if (!hooked(r, SONDE_SITE_RESULT, layer))
        return SONDE_OK;
    float *result = sonde_arena_get(r->extra, r->n_rows * ld, sizeof *result, r->err);
    float *one = result ? sonde_arena_get(r->extra, r->n_rows * q, sizeof *one, r->err) : NULL;
    if (!one)
        return SONDE_E_MEMORY;
    for (size_t h = 0; h < a->n_heads; h++) {
        memset(one, 0, r->n_rows * q * sizeof *one);
        for (size_t i = 0; i < r->n_rows; i++)
            memcpy(one + i * q + h * dh, r->z + i * q + h * dh, dh * sizeof *one);
        project(r, &y->o, 0, d, one, q, r->n_rows, result + h * d, ld, NULL);
    }
    enum sonde_code code = visit(r, SONDE_SITE_RESULT, layer, result, ld);
    if (code || r->done || !(hooked(r, SONDE_SITE_RESULT, layer) & HOOKED_WRITE))
        return code;
    *written = true;
    for (size_t i = 0; i < r->n_rows; i++) {
        float *out = r->out + i * d;
        memcpy(out, result + i * ld, d * sizeof *out);
        for (size_t h = 1; h < a->n_heads; h++)
            sonde_vec_add(r->m->kernels, d, out, result + i * ld + h * d, out);
        if (y->o_bias)
            sonde_vec_add(r->m->kernels, d, out, y->o_bias, out);
    }
    return SONDE_OK;
}

/* What attention or MLP writes, through its post-norm and its hook; in r->out. */
static enum sonde_code finish_out(sonde_run *r, size_t layer, const sonde_affine *post,
                                  enum sonde_site post_site, enum sonde_site out_site)
{
    const sonde_arch *a = &r->m->arch;
    const float *in;
    enum sonde_code code;
    if (a->post_norms) {
        if ((code = normalise(r, a->norm, post, post_site, layer, r->out, a->d_model, a->d_model, r->h,
                              a->d_model, &in)) ||
            r->done)
            return code;
        memcpy(r->out, in, r->n_rows * a->d_model * sizeof *r->out);
    }
    return visit(r, out_site, layer, r->out, a->d_model);
}

static enum sonde_code attention_out(sonde_run *r, size_t layer)
{
    const sonde_arch *a = &r->m->arch;
    const sonde_layer *y = &r->m->layer[layer];
    size_t q = a->n_heads * a->d_head, d = a->d_model;
    bool written = false;
    enum sonde_code code = show_result(r, layer, y, &written);
    if (code || r->done)
        return code;
    bool apart = written || a->parallel || a->post_norms || hooked(r, SONDE_SITE_ATTN_OUT, layer);
    sonde_epilogue e = {.bias = y->o_bias, .add = apart ? NULL : r->x, .ld_add = d};
    if (!written)
        project(r, &y->o, 0, d, r->z, q, r->n_rows, apart ? r->out : r->x, d, &e);
    if (!apart)
        return SONDE_OK;
    code = finish_out(r, layer, &y->ln1_post, SONDE_SITE_LN1_POST_SCALE, SONDE_SITE_ATTN_OUT);
    if (!code && !r->done && !a->parallel)
        sonde_vec_add(r->m->kernels, r->n_rows * d, r->x, r->out, r->x);
    return code;
}

static enum sonde_code show_resid_mid(sonde_run *r, size_t layer)
{
    const sonde_arch *a = &r->m->arch;
    return a->parallel || !a->d_mlp ? SONDE_OK : visit(r, SONDE_SITE_RESID_MID, layer, r->x, a->d_model);
}

/* ---- MLP --------------------------------------------------------------------------------------- */

static void solu(sonde_run *r)
{
    size_t m = r->m->arch.d_mlp;
    for (size_t i = 0; i < r->n_rows; i++) {
        float *row = r->mlp + i * m, *p = r->soft;
        sonde_softmax_row(r->m->kernels, row, m, 0, m, p);
        for (size_t j = 0; j < m; j++)
            row[j] *= p[j];
    }
}

static enum sonde_code solu_stages(sonde_run *r, size_t layer, const sonde_layer *y)
{
    const sonde_arch *a = &r->m->arch;
    const float *in;
    enum sonde_code code;
    solu(r);
    if (!a->solu_ln)
        return SONDE_OK;
    if ((code = visit(r, SONDE_SITE_MLP_MID, layer, r->mlp, a->d_mlp)) || r->done)
        return code;
    return normalise(r, SONDE_NORM_LAYER, &y->mlp_ln, SONDE_SITE_MLP_LN_SCALE, layer, r->mlp, a->d_mlp,
                     a->d_mlp, r->mlp, a->d_mlp, &in);
}

/* pre, pre_linear -> post in r->mlp (its first m columns). */
static enum sonde_code activate(sonde_run *r, size_t layer, const sonde_layer *y, bool fused)
{
    const sonde_arch *a = &r->m->arch;
    size_t m = a->d_mlp, ld = a->gated ? 2 * m : m;
    enum sonde_code code = SONDE_OK;
    if (!fused && ((code = visit(r, SONDE_SITE_MLP_PRE, layer, r->mlp, ld)) || r->done))
        return code;
    if (a->gated && ((code = visit(r, SONDE_SITE_MLP_PRE_LINEAR, layer, r->mlp + m, ld)) || r->done))
        return code;
    if (a->gated)
        for (size_t i = 0; i < r->n_rows; i++)
            sonde_activate_gated(r->m->kernels, a->act, m, r->mlp + i * ld, r->mlp + i * ld + m,
                                 r->mlp + i * ld);
    else if (a->solu)
        code = solu_stages(r, layer, y);
    else if (!fused)
        sonde_activate(r->m->kernels, a->act, r->n_rows * m, r->mlp, r->mlp);
    if (a->solu && (code || r->done))
        return code;
    return visit(r, SONDE_SITE_MLP_POST, layer, r->mlp, ld);
}

/* ln2's input: the residual, or where mlp_in is written a copy of it. */
static enum sonde_code mlp_input(sonde_run *r, size_t layer, const float **x)
{
    size_t d = r->m->arch.d_model;
    *x = r->x;
    if (!hooked(r, SONDE_SITE_MLP_IN, layer))
        return SONDE_OK;
    float *copy = copies(r, r->x, 1);
    if (!copy)
        return SONDE_E_MEMORY;
    *x = copy;
    return visit(r, SONDE_SITE_MLP_IN, layer, copy, d);
}

static enum sonde_code mlp(sonde_run *r, size_t layer)
{
    const sonde_arch *a = &r->m->arch;
    const sonde_layer *y = &r->m->layer[layer];
    size_t d = a->d_model, m = a->d_mlp, ld = a->gated ? 2 * m : m;
    const float *x, *in;
    enum sonde_code code;
    if (!m) {
        if (a->parallel)
            sonde_vec_add(r->m->kernels, r->n_rows * d, r->x, r->out, r->x);
        return SONDE_OK;
    }
    if ((code = mlp_input(r, layer, &x)) || r->done)
        return code;
    if ((code = normalise(r, a->norm, &y->ln2, SONDE_SITE_LN2_SCALE, layer, x, d, d, r->h, d, &in)) ||
        r->done)
        return code;
    bool fused = !a->gated && !a->solu && !hooked(r, SONDE_SITE_MLP_PRE, layer);
    const sonde_epilogue pre = {.bias = y->in_bias, .act = fused ? a->act : SONDE_ACT_NONE};
    project(r, &y->in, 0, ld, in, d, r->n_rows, r->mlp, ld, &pre);
    if (a->parallel)
        sonde_vec_add(r->m->kernels, r->n_rows * d, r->x, r->out, r->x);
    if ((code = activate(r, layer, y, fused)) || r->done)
        return code;
    bool apart = a->post_norms || hooked(r, SONDE_SITE_MLP_OUT, layer);
    const sonde_epilogue post = {.bias = y->out_bias, .add = apart ? NULL : r->x, .ld_add = d};
    project(r, &y->out, 0, d, r->mlp, ld, r->n_rows, apart ? r->out : r->x, d, &post);
    if (!apart)
        return SONDE_OK;
    code = finish_out(r, layer, &y->ln2_post, SONDE_SITE_LN2_POST_SCALE, SONDE_SITE_MLP_OUT);
    if (!code && !r->done)
        sonde_vec_add(r->m->kernels, r->n_rows * d, r->x, r->out, r->x);
    return code;
}

static enum sonde_code show_resid_post(sonde_run *r, size_t layer)
{
    return visit(r, SONDE_SITE_RESID_POST, layer, r->x, r->m->arch.d_model);
}

enum sonde_code forward_block(sonde_run *r, size_t layer)
{
    static enum sonde_code (*const stages[])(sonde_run *, size_t layer) = {
        show_resid_pre, project_in,    show_qkv,       qk_norm, rotate,
        attend,         attention_out, show_resid_mid, mlp,     show_resid_post,
    };
    enum sonde_code code = SONDE_OK;
    for (size_t i = 0; i < sizeof stages / sizeof *stages && !code && !r->done; i++)
        code = stages[i](r, layer);
    return code;
}
