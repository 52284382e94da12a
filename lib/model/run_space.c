/* SPDX-License-Identifier: MIT
 * What a run and a cache hold in memory. */
#include <math.h>
#include <stdlib.h>

#include "../base/size.h"
#include "run_impl.h"

float *run_floats(sonde_run *r, size_t rows, size_t width, sonde_err *err)
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
    float *c = run_floats(r, r->max_keys, n, err), *s = c ? run_floats(r, r->max_keys, n, err) : NULL;
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
    if (!(r->x = run_floats(r, rows, a->d_model, err)) || !(r->h = run_floats(r, rows, a->d_model, err)) ||
        !(r->out = run_floats(r, rows, a->d_model, err)) ||
        !(r->qkv = run_floats(r, rows, sonde_arch_qkv(a), err)) ||
        !(r->z = run_floats(r, rows, a->n_heads * a->d_head, err)) ||
        !(r->mlp = run_floats(r, rows, a->gated ? 2 * a->d_mlp : a->d_mlp, err)) ||
        !(r->soft = run_floats(r, 1, a->d_mlp, err)) || !(r->mean = run_floats(r, rows, a->n_heads, err)) ||
        !(r->scale = run_floats(r, rows, a->n_heads, err)) ||
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
