/* SPDX-License-Identifier: MIT
 * True directions from a file, and how near a dictionary's rows are to them. */
#include "truth.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "../base/size.h"
#include "../num/matmul.h"
#include "assign.h"
#include "truth_impl.h"

#define TILE_ROWS 64

/* ---- opening --------------------------------------------------------------------------------- */

static enum sonde_code truth_new(sonde_budget *budget, sonde_truth **out, sonde_err *err)
{
    sonde_arena *arena = sonde_arena_new(budget, err);
    sonde_truth *t = arena ? sonde_arena_get(arena, 1, sizeof *t, err) : NULL;
    if (!t) {
        sonde_arena_free(arena);
        return SONDE_E_MEMORY;
    }
    t->arena = arena;
    t->indptr = t->indices = SIZE_MAX;
    *out = t;
    return SONDE_OK;
}

void sonde_truth_close(sonde_truth *t)
{
    if (!t)
        return;
    sonde_store_close(t->store);
    sonde_arena_free(t->arena);
}

sonde_truth_info sonde_truth_about(const sonde_truth *t)
{
    return t->info;
}

/* A dataset of the expected type and rank; dim[k] 0 means any number. SIZE_MAX where there is none. */
static enum sonde_code find(const sonde_truth *t, const char *path, enum sonde_dtype dtype, int rank,
                            const uint64_t *dim, size_t *at, sonde_err *err)
{
    char shape[64];
    *at = sonde_store_find(t->store, path);
    if (*at == SIZE_MAX)
        return SONDE_OK;
    const sonde_store_dataset *d = sonde_store_dataset_at(t->store, *at);
    const char *why = sonde_store_unreadable(t->store, *at);
    if (why)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %s cannot be read: %s", t->path, path, why);
    bool fits = d->dtype == dtype && d->rank == rank;
    for (int k = 0; k < rank && fits; k++)
        fits = dim[k] == 0 || d->dim[k] == dim[k];
    if (fits)
        return SONDE_OK;
    return sonde_fail(err, SONDE_E_INPUT, "%s: %s is %s %s, it should be %s of rank %d%s", t->path, path,
                      sonde_dtype_name(d->dtype), sonde_shape_text(d->dim, d->rank, shape, sizeof shape),
                      sonde_dtype_name(dtype), rank, dim[0] ? " that fits the others" : "");
}

static enum sonde_code check_finite(const sonde_truth *t, const char *name, const float *x, size_t n,
                                    size_t d, sonde_err *err)
{
    for (size_t i = 0; i < n * d; i++)
        if (!isfinite(x[i]))
            return sonde_fail(err, SONDE_E_NUMERIC, "%s: /truth/%s: row %zu, column %zu is not finite",
                              t->path ? t->path : "truth", name, i / d, i % d);
    return SONDE_OK;
}

static enum sonde_code read_directions(sonde_truth *t, sonde_err *err)
{
    size_t at, n;
    enum sonde_code code = find(t, "/truth/directions", SONDE_F32, 2, (const uint64_t[2]){0, 0}, &at, err);
    if (code)
        return code;
    if (at == SIZE_MAX)
        return sonde_fail(err, SONDE_E_INPUT, "%s: has no /truth/directions; sonde synth writes them",
                          t->path);
    const uint64_t *dim = sonde_store_dataset_at(t->store, at)->dim;
    t->info.n = (size_t)dim[0];
    t->info.d = (size_t)dim[1];
    if (dim[0] == 0 || dim[1] == 0 || dim[0] >= UINT32_MAX || !sonde_mul(&n, t->info.n, t->info.d))
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: /truth/directions holds %" PRIu64 " directions of %" PRIu64, t->path, dim[0],
                          dim[1]);
    float *g = sonde_arena_get(t->arena, n, sizeof *g, err);
    if (!g)
        return SONDE_E_MEMORY;
    t->info.direction = g;
    code = sonde_store_read(t->store, at, 0, t->info.n, g, err);
    return code ? code : check_finite(t, "directions", g, t->info.n, t->info.d, err);
}

static enum sonde_code read_frequency(sonde_truth *t, sonde_err *err)
{
    size_t at;
    enum sonde_code code =
        find(t, "/truth/frequency", SONDE_F32, 1, (const uint64_t[1]){t->info.n}, &at, err);
    if (code || at == SIZE_MAX)
        return code;
    float *f = sonde_arena_get(t->arena, t->info.n, sizeof *f, err);
    if (!f)
        return SONDE_E_MEMORY;
    t->info.frequency = f;
    if ((code = sonde_store_read(t->store, at, 0, t->info.n, f, err)))
        return code;
    for (size_t i = 0; i < t->info.n; i++)
        if (!(f[i] >= 0 && f[i] <= 1))
            return sonde_fail(err, SONDE_E_INPUT, "%s: /truth/frequency[%zu] is %g", t->path, i,
                              (double)f[i]);
    return SONDE_OK;
}

static enum sonde_code find_rows(sonde_truth *t, sonde_err *err)
{
    enum sonde_code code;
    if ((code = find(t, "/truth/indptr", SONDE_I64, 1, (const uint64_t[1]){0}, &t->indptr, err)) ||
        (code = find(t, "/truth/indices", SONDE_I32, 1, (const uint64_t[1]){0}, &t->indices, err)))
        return code;
    if (t->indptr == SIZE_MAX || t->indices == SIZE_MAX)
        return SONDE_OK;
    uint64_t n = sonde_store_dataset_at(t->store, t->indptr)->dim[0];
    t->info.has_rows = n > 0;
    t->info.n_rows = n ? n - 1 : 0;
    t->n_entries = sonde_store_dataset_at(t->store, t->indices)->dim[0];
    return SONDE_OK;
}

enum sonde_code sonde_truth_open(const char *path, sonde_budget *budget, sonde_truth **out, sonde_err *err)
{
    sonde_truth *t;
    enum sonde_code code = truth_new(budget, &t, err);
    if (code)
        return code;
    if (!(t->path = sonde_arena_strndup(t->arena, path, strlen(path), err)))
        code = SONDE_E_MEMORY;
    if (code || (code = sonde_store_open(path, true, budget, &t->store, err)) ||
        (code = read_directions(t, err)) || (code = read_frequency(t, err)) || (code = find_rows(t, err))) {
        sonde_truth_close(t);
        return code;
    }
    *out = t;
    return SONDE_OK;
}

enum sonde_code sonde_truth_of(const float *direction, size_t n, size_t d, const float *frequency,
                               sonde_budget *budget, sonde_truth **out, sonde_err *err)
{
    if (n == 0 || d == 0 || n >= UINT32_MAX)
        return sonde_fail(err, SONDE_E_USAGE, "%zu true directions of %zu", n, d);
    enum sonde_code code = truth_new(budget, out, err);
    if (!code)
        (*out)->info = (sonde_truth_info){.n = n, .d = d, .direction = direction, .frequency = frequency};
    return code;
}

/* ---- cosines --------------------------------------------------------------------------------- */

struct cosines {
    const float *w;
    float *unit, *c; /* [F, d] rows of norm 1, [F, N] */
    sonde_packed g;
    size_t F, N, d;
};

static void unit_row(const float *x, size_t d, float *y)
{
    double sum = 0;
    for (size_t k = 0; k < d; k++)
        sum += (double)x[k] * (double)x[k];
    double scale = sum > 0 ? 1 / sqrt(sum) : 0;
    for (size_t k = 0; k < d; k++)
        y[k] = (float)((double)x[k] * scale);
}

static void cosine_tile(void *arg, size_t task, int thread)
{
    (void)thread;
    const struct cosines *p = arg;
    size_t i = task * TILE_ROWS, rows = p->F - i < TILE_ROWS ? p->F - i : TILE_ROWS;
    for (size_t r = i; r < i + rows; r++)
        unit_row(p->w + r * p->d, p->d, p->unit + r * p->d);
    sonde_matmul(&p->g, 0, 0, p->N, p->unit + i * p->d, p->d, rows, p->c + i * p->N, p->N, NULL);
}

static enum sonde_code all_cosines(const sonde_truth *t, struct cosines *p, const sonde_kernels *kernels,
                                   const sonde_work *work, sonde_arena *arena, sonde_err *err)
{
    size_t n, nd, room = sonde_packed_floats(kernels, p->d, p->N);
    if (!sonde_mul(&n, p->F, p->N) || !sonde_mul(&nd, p->N, p->d) || !room)
        return sonde_fail(err, SONDE_E_MEMORY, "%zu latents against %zu directions fit no memory", p->F,
                          p->N);
    p->unit = sonde_arena_get(arena, p->F * p->d, sizeof *p->unit, err);
    p->c = p->unit ? sonde_arena_get(arena, n, sizeof *p->c, err) : NULL;
    float *unit = p->c ? sonde_arena_get(arena, nd, sizeof *unit, err) : NULL;
    float *packed = unit ? sonde_arena_get(arena, room, sizeof *packed, err) : NULL;
    if (!packed)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < p->N; i++)
        unit_row(t->info.direction + i * p->d, p->d, unit + i * p->d);
    p->g = (sonde_packed){.kernels = kernels, .k = p->d, .n = p->N, .data = packed};
    sonde_pack(&p->g, 0, p->d, 0, p->N, unit, 1, p->d);
    sonde_pool_run(work ? work->pool : NULL, (p->F + TILE_ROWS - 1) / TILE_ROWS, cosine_tile, p);
    return SONDE_OK;
}

/* ---- scores ---------------------------------------------------------------------------------- */

static void find_best(const struct cosines *p, sonde_match *m)
{
    for (size_t i = 0; i < p->N; i++)
        m->best_cosine[i] = -2;
    for (size_t j = 0; j < p->F; j++) {
        const float *c = p->c + j * p->N;
        float most = -1;
        for (size_t i = 0; i < p->N; i++) {
            if (c[i] > m->best_cosine[i]) {
                m->best_cosine[i] = c[i];
                m->best_latent[i] = (uint32_t)j;
            }
            if (fabsf(c[i]) > most) {
                most = fabsf(c[i]);
                m->latent_truth[j] = (uint32_t)i;
            }
        }
        m->latent_cosine[j] = most;
    }
}

static enum sonde_code score(const struct cosines *p, const sonde_truth *t, sonde_match *m,
                             sonde_arena *scratch, sonde_err *err)
{
    double sum = 0, weighted = 0, weight = 0;
    size_t n_found = 0, n_tracked = 0;
    unsigned char *tracked = sonde_arena_get(scratch, p->N, 1, err);
    if (!tracked)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < p->N; i++) {
        double f = t->info.frequency ? (double)t->info.frequency[i] : 0, best = (double)m->best_cosine[i];
        sum += best;
        weighted += f * best;
        weight += f;
        n_found += m->best_cosine[i] > 0.9f;
    }
    for (size_t j = 0; j < p->F; j++) {
        n_tracked += !tracked[m->latent_truth[j]];
        tracked[m->latent_truth[j]] = 1;
    }
    m->mmcs = sum / (double)p->N;
    m->mmcs_weighted = weight > 0 ? weighted / weight : NAN;
    m->recall_at_0_9 = (double)n_found / (double)p->N;
    m->uniqueness = (double)n_tracked / (double)p->F;
    return SONDE_OK;
}

static enum sonde_code match_pairs(const struct cosines *p, const sonde_work *work, sonde_match *m,
                                   sonde_err *err)
{
    double total;
    for (size_t i = 0; i < p->F * p->N; i++)
        p->c[i] = fabsf(p->c[i]);
    enum sonde_code code =
        sonde_assign(p->c, p->N, p->F, p->N, SONDE_ASSIGN_GREATEST, work, m->pair, &total, err);
    if (!code)
        m->mcc = total / (double)(p->F < p->N ? p->F : p->N);
    return code;
}

static enum sonde_code match_new(size_t n, size_t n_latents, sonde_budget *budget, sonde_match **out,
                                 sonde_err *err)
{
    sonde_arena *arena = sonde_arena_new(budget, err);
    sonde_match *m = arena ? sonde_arena_get(arena, 1, sizeof *m, err) : NULL;
    if (m) {
        m->arena = arena;
        m->n_true = n;
        m->n_latents = n_latents;
        m->best_cosine = sonde_arena_get(arena, n, sizeof *m->best_cosine, err);
        m->best_latent = sonde_arena_get(arena, n, sizeof *m->best_latent, err);
        m->latent_cosine = sonde_arena_get(arena, n_latents, sizeof *m->latent_cosine, err);
        m->latent_truth = sonde_arena_get(arena, n_latents, sizeof *m->latent_truth, err);
        m->pair = sonde_arena_get(arena, n_latents, sizeof *m->pair, err);
    }
    if (!m || !m->best_cosine || !m->best_latent || !m->latent_cosine || !m->latent_truth || !m->pair) {
        sonde_arena_free(arena);
        return SONDE_E_MEMORY;
    }
    *out = m;
    return SONDE_OK;
}

void sonde_match_free(sonde_match *m)
{
    if (m)
        sonde_arena_free(m->arena);
}

enum sonde_code sonde_truth_match(const sonde_truth *t, const float *w, size_t n_latents, size_t d,
                                  const sonde_kernels *kernels, const sonde_work *work, sonde_match **out,
                                  sonde_err *err)
{
    sonde_budget *budget = work ? work->budget : NULL;
    struct cosines p = {.w = w, .F = n_latents, .N = t->info.n, .d = d};
    if (d != t->info.d)
        return sonde_fail(err, SONDE_E_USAGE,
                          "the dictionary writes rows of %zu, the true directions have %zu", d, t->info.d);
    if (n_latents == 0 || n_latents >= UINT32_MAX)
        return sonde_fail(err, SONDE_E_USAGE, "a dictionary of %zu latents", n_latents);
    sonde_match *m = NULL;
    enum sonde_code code = match_new(p.N, p.F, budget, &m, err);
    sonde_arena *scratch = code ? NULL : sonde_arena_new(budget, err);
    if (!code && !scratch)
        code = SONDE_E_MEMORY;
    if (!code && !(code = all_cosines(t, &p, kernels, work, scratch, err))) {
        find_best(&p, m);
        if (!(code = score(&p, t, m, scratch, err)))
            code = match_pairs(&p, work, m, err);
    }
    sonde_arena_free(scratch);
    if (code)
        sonde_match_free(m);
    else
        *out = m;
    return code;
}
