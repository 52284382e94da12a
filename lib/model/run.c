/* SPDX-License-Identifier: MIT
 * A run's workspace, its hooks, and the pass from tokens to logits. The blocks are in block.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "run_impl.h"

/* ---- workspace --------------------------------------------------------------------------------- */

static float *floats(sonde_run *r, size_t rows, size_t width, sonde_err *err)
{
    size_t n;
    if (!sonde_mul(&n, rows, width)) {
        sonde_fail(err, SONDE_E_MEMORY, "%zu rows of %zu floats are too many", rows, width);
        return NULL;
    }
    return sonde_arena_get(r->arena, n, sizeof(float), err);
}

/* cos and sin of position * frequency; the angle is rounded to float32 first, as Hugging Face does. */
static enum sonde_code make_rotary(sonde_run *r, int table, sonde_err *err)
{
    const sonde_arch *a = &r->m->arch;
    size_t n = a->rope_dim / 2;
    float *c = floats(r, r->max_keys, n, err), *s = c ? floats(r, r->max_keys, n, err) : NULL;
    if (!s)
        return SONDE_E_MEMORY;
    for (size_t t = 0; t < r->max_keys; t++)
        for (size_t i = 0; i < n; i++) {
            float angle = (float)t * a->inv_freq[table][i];
            c[t * n + i] = (float)cos((double)angle);
            s[t * n + i] = (float)sin((double)angle);
        }
    r->cosine[table] = c;
    r->sine[table] = s;
    return SONDE_OK;
}

static enum sonde_code make_workspace(sonde_run *r, sonde_err *err)
{
    const sonde_arch *a = &r->m->arch;
    size_t rows = r->max_rows;
    if (!(r->x = floats(r, rows, a->d_model, err)) || !(r->h = floats(r, rows, a->d_model, err)) ||
        !(r->out = floats(r, rows, a->d_model, err)) || !(r->qkv = floats(r, rows, sonde_arch_qkv(a), err)) ||
        !(r->z = floats(r, rows, a->n_heads * a->d_head, err)) ||
        !(r->mlp = floats(r, rows, a->gated ? 2 * a->d_mlp : a->d_mlp, err)) ||
        !(r->soft = floats(r, 1, a->d_mlp, err)) || !(r->mean = floats(r, rows, a->n_heads, err)) ||
        !(r->scale = floats(r, rows, a->n_heads, err)) ||
        !(r->hooked = sonde_arena_get(r->arena, a->n_layers * SONDE_N_SITES, 1, err)))
        return SONDE_E_MEMORY;
    enum sonde_code code = SONDE_OK;
    if (a->positions == SONDE_POS_ROPE) {
        code = make_rotary(r, 0, err);
        if (!code && a->inv_freq[1] != a->inv_freq[0])
            code = make_rotary(r, 1, err);
        else
            r->cosine[1] = r->cosine[0], r->sine[1] = r->sine[0];
    }
    if (!code)
        code = sonde_attend_space_new(r->m->kernels, r->max_keys, a->d_head, sonde_pool_threads(r->pool),
                                      r->arena, &r->attend, err);
    return code;
}

enum sonde_code sonde_run_new(const sonde_model *m, size_t max_rows, size_t max_keys, sonde_pool *pool,
                              sonde_budget *budget, sonde_run **out, sonde_err *err)
{
    if (max_keys > m->arch.n_ctx)
        return sonde_fail(err, SONDE_E_USAGE, "a context of %zu tokens is longer than this model's %zu",
                          max_keys, m->arch.n_ctx);
    sonde_run *r = calloc(1, sizeof *r);
    if (!r)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a run");
    r->m = m;
    r->pool = pool;
    r->max_rows = max_rows;
    r->max_keys = max_keys;
    enum sonde_code code = SONDE_E_MEMORY;
    if (!(r->arena = sonde_arena_new(budget, err)) || !(r->extra = sonde_arena_new(budget, err)) ||
        (code = make_workspace(r, err))) {
        sonde_run_free(r);
        return code;
    }
    *out = r;
    return SONDE_OK;
}

void sonde_run_free(sonde_run *r)
{
    if (!r)
        return;
    sonde_arena_free(r->extra);
    sonde_arena_free(r->arena);
    free(r->entry);
    free(r);
}

enum sonde_code sonde_cache_new(const sonde_model *m, size_t n_max, sonde_budget *budget, sonde_cache **out,
                                sonde_err *err)
{
    sonde_arena *arena = sonde_arena_new(budget, err);
    sonde_cache *c = arena ? sonde_arena_get(arena, 1, sizeof *c, err) : NULL;
    size_t width = m->arch.n_kv_heads * m->arch.d_head, n;
    if (!c || !sonde_mul(&n, n_max, width) || !sonde_mul(&n, n, m->arch.n_layers) ||
        !(c->k = sonde_arena_get(arena, n, sizeof(float), err)) ||
        !(c->v = sonde_arena_get(arena, n, sizeof(float), err))) {
        sonde_arena_free(arena);
        return SONDE_E_MEMORY;
    }
    c->n_max = n_max;
    c->width = width;
    c->arena = arena;
    *out = c;
    return SONDE_OK;
}

size_t sonde_cache_length(const sonde_cache *c)
{
    return c->n;
}

void sonde_cache_clear(sonde_cache *c)
{
    c->n = 0;
}

void sonde_cache_free(sonde_cache *c)
{
    if (c)
        sonde_arena_free(c->arena);
}

/* ---- hooks ------------------------------------------------------------------------------------- */

enum sonde_code sonde_run_hook(sonde_run *r, sonde_hook h, bool write, sonde_hook_fn fn, void *arg,
                               sonde_err *err)
{
    const sonde_arch *a = &r->m->arch;
    char name[SONDE_HOOK_NAME_MAX];
    const char *why = sonde_site_absent(a, h.site);
    if (!why && h.site == SONDE_SITE_ATTN_IN && write && a->n_kv_heads != a->n_heads)
        why = "heads share keys and values; write the q, k and v inputs instead";
    if (!why && h.site == SONDE_SITE_TOKENS && write)
        why = "tokens can only be read";
    if (why || h.layer >= (sonde_site_in_block(h.site) ? a->n_layers : 1))
        return sonde_fail(err, SONDE_E_USAGE, "hook %s: not in this model (%s): %s", sonde_hook_name(h, name),
                          a->family, why ? why : "no such layer");
    if (r->n_entries == r->cap_entries) {
        size_t cap = r->cap_entries ? 2 * r->cap_entries : 16;
        struct hook_entry *p = realloc(r->entry, cap * sizeof *p);
        if (!p)
            return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu hooks", cap);
        r->entry = p;
        r->cap_entries = cap;
    }
    r->entry[r->n_entries++] = (struct hook_entry){h, write, fn, arg};
    r->hooked[site_index(h.site, h.layer)] |= write ? HOOKED_READ | HOOKED_WRITE : HOOKED_READ;
    size_t order = sonde_hook_order(a, h);
    if (order > r->last_order)
        r->last_order = order;
    return SONDE_OK;
}

void sonde_run_unhook_all(sonde_run *r)
{
    r->n_entries = 0;
    r->last_order = 0;
    memset(r->hooked, 0, r->m->arch.n_layers * SONDE_N_SITES);
}

void sonde_run_want_logits(sonde_run *r, sonde_logits_fn fn, void *arg, bool only_last)
{
    r->logits_fn = fn;
    r->logits_arg = arg;
    r->only_last = only_last;
}

static enum sonde_code call_hooks(sonde_run *r, const sonde_view *v)
{
    for (size_t i = 0; i < r->n_entries; i++) {
        const struct hook_entry *e = &r->entry[i];
        if (e->hook.site != v->hook.site || e->hook.layer != v->hook.layer)
            continue;
        enum sonde_code code = e->fn(e->arg, v, r->err);
        if (code)
            return code;
    }
    return SONDE_OK;
}

void reached(sonde_run *r, enum sonde_site s, size_t layer)
{
    if (!r->logits_fn && !r->cache && sonde_hook_order(&r->m->arch, (sonde_hook){s, layer}) >= r->last_order)
        r->done = true;
}

enum sonde_code visit(sonde_run *r, enum sonde_site s, size_t layer, float *data, size_t stride)
{
    if (!hooked(r, s, layer))
        return SONDE_OK;
    for (size_t i = 0; i < r->n_seqs; i++) {
        size_t row = r->start[i] - r->start[0], n = r->start[i + 1] - r->start[i];
        sonde_view v = {.hook = {s, layer},
                        .sequence = i,
                        .first_pos = r->first,
                        .n_rows = n,
                        .width = sonde_site_width(&r->m->arch, s),
                        .stride = stride,
                        .data = data ? data + row * stride : NULL,
                        .ids = r->ids + row};
        enum sonde_code code = call_hooks(r, &v);
        if (code)
            return code;
    }
    reached(r, s, layer);
    return SONDE_OK;
}

enum sonde_code visit_square(sonde_run *r, enum sonde_site s, size_t layer, size_t sequence, float *data,
                             size_t n_keys)
{
    if (!hooked(r, s, layer))
        return SONDE_OK;
    size_t row = r->start[sequence] - r->start[0];
    sonde_view v = {.hook = {s, layer},
                    .sequence = sequence,
                    .first_pos = r->first,
                    .n_rows = r->start[sequence + 1] - r->start[sequence],
                    .width = n_keys,
                    .stride = n_keys,
                    .n_heads = r->m->arch.n_heads,
                    .n_keys = n_keys,
                    .data = data,
                    .ids = r->ids + row};
    return call_hooks(r, &v);
}

/* ---- shared steps ------------------------------------------------------------------------------ */

struct columns_job {
    const sonde_packed *w;
    size_t n0, n1, step;
    const float *x;
    size_t ldx, n_rows;
    float *y;
    size_t ldy;
    const sonde_epilogue *e;
};

static void columns_task(void *arg, size_t task, int thread)
{
    const struct columns_job *j = arg;
    (void)thread;
    size_t a = j->n0 + task * j->step, b = a + j->step < j->n1 ? a + j->step : j->n1;
    sonde_epilogue e = j->e ? *j->e : (sonde_epilogue){0};
    if (e.add)
        e.add += a - j->n0;
    sonde_matmul(j->w, 0, a, b, j->x, j->ldx, j->n_rows, j->y + (a - j->n0), j->ldy, j->e ? &e : NULL);
}

void project(sonde_run *r, const sonde_packed *w, size_t n0, size_t n1, const float *x, size_t ldx,
             size_t n_rows, float *y, size_t ldy, const sonde_epilogue *e)
{
    size_t n = n1 - n0, threads = (size_t)sonde_pool_threads(r->pool);
    if (threads < 2 || n < 128 || n_rows * n * w->k < 100000) {
        sonde_matmul(w, 0, n0, n1, x, ldx, n_rows, y, ldy, e);
        return;
    }
    size_t step = (n / (threads * 4) + 63) / 64 * 64;
    struct columns_job job = {w, n0, n1, step ? step : 64, x, ldx, n_rows, y, ldy, e};
    sonde_pool_run(r->pool, (n + job.step - 1) / job.step, columns_task, &job);
}

enum sonde_code normalise(sonde_run *r, enum sonde_norm kind, const sonde_affine *w,
                          enum sonde_site scale_site, size_t layer, const float *x, size_t ldx, size_t d,
                          float *y, size_t ldy, const float **in)
{
    const sonde_kernels *k = r->m->kernels;
    float eps = r->m->arch.eps;
    enum sonde_site normal_site = (enum sonde_site)(scale_site + 1);
    enum sonde_code code;
    *in = kind ? y : x;
    if (!kind)
        return SONDE_OK;
    if (!hooked(r, scale_site, layer) && !hooked(r, normal_site, layer)) {
        sonde_norm_rows(k, kind, x, ldx, r->n_rows, d, eps, w->gamma, w->beta, y, ldy);
        return SONDE_OK;
    }
    sonde_norm_stats(k, kind, x, ldx, r->n_rows, d, eps, r->mean, r->scale);
    if ((code = visit(r, scale_site, layer, r->scale, 1)) || r->done)
        return code;
    sonde_norm_apply(k, x, ldx, r->n_rows, d, r->mean, r->scale, y, ldy);
    if ((code = visit(r, normal_site, layer, y, ldy)) || r->done)
        return code;
    sonde_norm_affine(k, y, ldy, r->n_rows, d, w->gamma, w->beta, y, ldy);
    return SONDE_OK;
}

/* ---- the pass ---------------------------------------------------------------------------------- */

static enum sonde_code embed(sonde_run *r)
{
    const sonde_model *m = r->m;
    size_t d = m->arch.d_model;
    enum sonde_code code;
    for (size_t i = 0; i < r->n_rows; i++)
        sonde_model_embed(m, r->ids[i], r->x + i * d);
    sonde_model_embed_done(m);
    if ((code = visit(r, SONDE_SITE_TOKENS, 0, NULL, 1)) || r->done ||
        (code = visit(r, SONDE_SITE_EMBED, 0, r->x, d)) || r->done)
        return code;
    if (!m->position)
        return SONDE_OK;
    for (size_t s = 0; s < r->n_seqs; s++)
        for (size_t i = r->start[s]; i < r->start[s + 1]; i++)
            memcpy(r->out + (i - r->start[0]) * d, m->position + (r->first + i - r->start[s]) * d,
                   d * sizeof *r->out);
    if ((code = visit(r, SONDE_SITE_POS_EMBED, 0, r->out, d)) || r->done)
        return code;
    if (m->arch.positions == SONDE_POS_LEARNED) {
        sonde_vec_add(m->kernels, r->n_rows * d, r->x, r->out, r->x);
        return SONDE_OK;
    }
    r->shortformer = sonde_arena_get(r->extra, r->n_rows * d, sizeof(float), r->err);
    if (!r->shortformer)
        return SONDE_E_MEMORY;
    memcpy(r->shortformer, r->out, r->n_rows * d * sizeof(float));
    return SONDE_OK;
}

/* What the unembedding gives for n rows; the soft cap comes after the hook. */
static void make_logits(sonde_run *r, const float *in, size_t n, float *logits)
{
    const sonde_model *m = r->m;
    size_t v = m->arch.n_vocab_out;
    const sonde_epilogue e = {.bias = m->unembed_bias};
    project(r, &m->unembed, 0, v, in, m->arch.d_model, n, logits, v, &e);
}

static enum sonde_code hand_on(sonde_run *r, size_t s, size_t from, size_t n, float *logits)
{
    const sonde_arch *a = &r->m->arch;
    if (!r->logits_fn)
        return SONDE_OK;
    if (a->final_softcap > 0)
        sonde_softcap(r->m->kernels, a->final_softcap, n * a->n_vocab_out, logits, logits);
    return r->logits_fn(r->logits_arg, s, from, n, logits, r->err);
}

/* All logits of a sequence in memory, shown to the hook, then handed on. */
static enum sonde_code logits_whole(sonde_run *r, size_t s, const float *in)
{
    const sonde_arch *a = &r->m->arch;
    size_t row = r->start[s] - r->start[0], n = r->start[s + 1] - r->start[s], v = a->n_vocab_out;
    float *all = sonde_arena_get(r->extra, n * v, sizeof *all, r->err);
    if (!all)
        return SONDE_E_MEMORY;
    make_logits(r, in + row * a->d_model, n, all);
    sonde_view view = {.hook = {SONDE_SITE_LOGITS, 0},
                       .sequence = s,
                       .first_pos = r->first,
                       .n_rows = n,
                       .width = v,
                       .stride = v,
                       .data = all,
                       .ids = r->ids + row};
    enum sonde_code code = call_hooks(r, &view);
    size_t from = r->only_last ? n - 1 : 0;
    return code ? code : hand_on(r, s, from, n - from, all + from * v);
}

static enum sonde_code logits_in_chunks(sonde_run *r, size_t s, const float *in)
{
    const sonde_arch *a = &r->m->arch;
    size_t row = r->start[s] - r->start[0], n = r->start[s + 1] - r->start[s];
    enum sonde_code code = SONDE_OK;
    if (!r->logits && !(r->logits = floats(r, LOGIT_ROWS, a->n_vocab_out, r->err)))
        return SONDE_E_MEMORY;
    for (size_t i = r->only_last ? n - 1 : 0; i < n && !code; i += LOGIT_ROWS) {
        size_t rows = n - i < LOGIT_ROWS ? n - i : LOGIT_ROWS;
        make_logits(r, in + (row + i) * a->d_model, rows, r->logits);
        code = hand_on(r, s, i, rows, r->logits);
    }
    return code;
}

static enum sonde_code unembed(sonde_run *r)
{
    const sonde_arch *a = &r->m->arch;
    const float *in;
    enum sonde_code code = normalise(r, a->final_norm, &r->m->ln_final, SONDE_SITE_LN_FINAL_SCALE, 0, r->x,
                                     a->d_model, a->d_model, r->h, a->d_model, &in);
    if (code || r->done)
        return code;
    if (hooked(r, SONDE_SITE_UNEMBED_IN, 0)) {
        float *shown = a->final_norm ? r->h : r->x;
        if ((code = visit(r, SONDE_SITE_UNEMBED_IN, 0, shown, a->d_model)) || r->done)
            return code;
    }
    bool whole = hooked(r, SONDE_SITE_LOGITS, 0);
    for (size_t s = 0; s < r->n_seqs && !code; s++)
        if (r->start[s + 1] > r->start[s])
            code = whole ? logits_whole(r, s, in) : logits_in_chunks(r, s, in);
    return code;
}

static enum sonde_code check_input(sonde_run *r, const int32_t *ids, const size_t *start, size_t n_seqs,
                                   sonde_err *err)
{
    size_t n = start[n_seqs] - start[0], past = r->cache ? r->cache->n : 0;
    bool logits = r->logits_fn || hooked(r, SONDE_SITE_LOGITS, 0);
    if (logits && !r->m->unembed.data)
        return sonde_fail(err, SONDE_E_USAGE, "%s: logits are asked for, but the unembedding was deferred", r->m->path);
    for (size_t s = 0; s < n_seqs; s++)
        if (start[s] > start[s + 1])
            return sonde_fail(err, SONDE_E_USAGE, "sequence %zu ends before it begins", s);
    if (n > r->max_rows)
        return sonde_fail(err, SONDE_E_USAGE, "%zu tokens at once, this run was made for %zu", n,
                          r->max_rows);
    if (r->cache && n_seqs != 1)
        return sonde_fail(err, SONDE_E_USAGE, "a cache holds one sequence, %zu were given", n_seqs);
    if (r->cache && r->m->arch.bidirectional)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: a bidirectional model sees all tokens at once, a cache is of no use",
                          r->m->path);
    for (size_t s = 0; s < n_seqs; s++) {
        size_t keys = past + start[s + 1] - start[s];
        if (keys > r->max_keys || (r->cache && keys > r->cache->n_max))
            return sonde_fail(err, SONDE_E_USAGE, "a sequence of %zu tokens, this run was made for %zu", keys,
                              r->cache && r->cache->n_max < r->max_keys ? r->cache->n_max : r->max_keys);
    }
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= r->m->arch.n_vocab)
            return sonde_fail(err, SONDE_E_USAGE, "token %zu has id %d, this model's vocabulary is %zu", i,
                              (int)ids[i], r->m->arch.n_vocab);
    return SONDE_OK;
}

enum sonde_code sonde_run_forward(sonde_run *r, const int32_t *ids, const size_t *start, size_t n_seqs,
                                  sonde_cache *cache, sonde_err *err)
{
    enum sonde_code code;
    r->cache = cache;
    if ((code = check_input(r, ids + start[0], start, n_seqs, err)))
        return code;
    r->ids = ids + start[0];
    r->start = start;
    r->n_seqs = n_seqs;
    r->n_rows = start[n_seqs] - start[0];
    r->first = cache ? cache->n : 0;
    r->done = !r->n_rows || (!r->n_entries && !r->logits_fn && !cache);
    r->err = err;
    r->shortformer = NULL;
    sonde_arena_reset(r->extra);
    if (r->done)
        return SONDE_OK;
    code = embed(r);
    for (size_t l = 0; l < r->m->arch.n_layers && !code && !r->done; l++)
        code = forward_block(r, l);
    bool wants_end =
        r->logits_fn || r->last_order > sonde_hook_order(&r->m->arch, (sonde_hook){SONDE_SITE_RESID_POST,
                                                                                   r->m->arch.n_layers - 1});
    if (!code && !r->done && wants_end)
        code = unembed(r);
    if (!code && cache)
        cache->n += r->n_rows;
    return code;
}
