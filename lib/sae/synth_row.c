/* SPDX-License-Identifier: MIT
 * One row of synthetic activations: which latents are active, what they are worth, and their sum. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/rng.h"
#include "synth_impl.h"

struct sonde_synth_space {
    sonde_arena *arena;
    uint32_t *latent; /* [N] */
    float *value;     /* [N] */
    float *shift;     /* [N] <l_i, e>; rank > 0 only */
    double *sum;      /* [d] */
    size_t n;
};

enum sonde_code sonde_synth_space_new(const sonde_synth *s, sonde_budget *budget, sonde_synth_space **out,
                                      sonde_err *err)
{
    sonde_arena *arena = sonde_arena_new(budget, err);
    sonde_synth_space *p = arena ? sonde_arena_get(arena, 1, sizeof *p, err) : NULL;
    if (p) {
        p->arena = arena;
        p->latent = sonde_arena_get(arena, s->o.truth, sizeof *p->latent, err);
        p->value = sonde_arena_get(arena, s->o.truth, sizeof *p->value, err);
        p->shift = sonde_arena_get(arena, s->o.rank ? s->o.truth : 0, sizeof *p->shift, err);
        p->sum = sonde_arena_get(arena, s->o.dim, sizeof *p->sum, err);
    }
    if (!p || !p->latent || !p->value || !p->shift || !p->sum) {
        sonde_arena_free(arena);
        return SONDE_E_MEMORY;
    }
    *out = p;
    return SONDE_OK;
}

void sonde_synth_space_free(sonde_synth_space *p)
{
    if (p)
        sonde_arena_free(p->arena);
}

/* ---- which latents --------------------------------------------------------------------------- */

static void draw_factors(const sonde_synth *s, const sonde_rng *row, float *shift)
{
    sonde_rng rng = sonde_rng_fork(row, "factor", 0);
    size_t n = s->o.truth;
    memset(shift, 0, n * sizeof *shift);
    for (size_t r = 0; r < s->o.rank; r++) {
        const float e = (float)sonde_rng_normal(&rng), *l = s->factor + r * n;
        for (size_t i = 0; i < n; i++)
            shift[i] += l[i] * e;
    }
}

/* The place of the cut of latent i on the axis of its own noise, given the factors. */
static double own_cut(const sonde_synth *s, const sonde_synth_space *p, size_t i)
{
    return ((double)s->plan->cut[i] - (double)p->shift[i]) * (double)s->plan->own[i];
}

/* Is a uniform word within the upper tail beyond x? The grid decides nearly always. */
static bool in_tail(const double *tail, double x, uint32_t word)
{
    double u = ((double)word + 0.5) * 0x1p-32,
           at = (x + SYNTH_TAIL_END) * (SYNTH_TAIL_STEPS / (2.0 * SYNTH_TAIL_END));
    if (!(at > 0))
        return true;
    if (at >= SYNTH_TAIL_STEPS)
        return false;
    size_t k = (size_t)at;
    if (u < tail[k + 1])
        return true;
    return u < tail[k] && u < synth_normal_tail(x);
}

static double chance_of(const sonde_synth *s, const sonde_synth_space *p, size_t i)
{
    return s->o.rank ? synth_normal_tail(own_cut(s, p, i)) : s->plan->chance[i];
}

/* ---- what they are worth --------------------------------------------------------------------- */

static double draw_magnitude(const sonde_synth *s, size_t i, sonde_rng *rng)
{
    switch (s->o.magnitude) {
    case SONDE_SYNTH_U01:
        return 2 * s->mean[i] * (1 - sonde_rng_double(rng));
    case SONDE_SYNTH_HALF_NORMAL:
        return s->mean[i] / 0.7978845608028654 * fabs(sonde_rng_normal(rng));
    case SONDE_SYNTH_EXPONENTIAL:
        return -s->mean[i] * synth_log(1 - sonde_rng_double(rng));
    case SONDE_SYNTH_NORMAL:
        return s->mean[i] + s->spread[i] * sonde_rng_normal(rng);
    default:
        return s->mean[i];
    }
}

/* parent: place in the list, or SIZE_MAX. A value that is not positive leaves the latent out. */
static void take(const sonde_synth *s, sonde_synth_space *p, size_t i, size_t parent, sonde_rng *rng)
{
    double v = draw_magnitude(s, i, rng);
    if (parent != SIZE_MAX && s->o.scale_children && s->mean[p->latent[parent]] > 0)
        v *= (double)p->value[parent] / s->mean[p->latent[parent]];
    float f = (float)v;
    if (!(f > 0))
        return;
    p->latent[p->n] = (uint32_t)i;
    p->value[p->n++] = f;
}

static void draw_free_standing(const sonde_synth *s, sonde_synth_space *p, size_t first, size_t end,
                               sonde_rng *active, sonde_rng *magnitude)
{
    const struct sonde_synth_plan *plan = s->plan;
    for (size_t i = first; i < end; i++) {
        uint32_t word = sonde_rng_u32(active);
        if (s->o.rank ? in_tail(plan->tail, own_cut(s, p, i), word) : word < plan->limit[i])
            take(s, p, i, SIZE_MAX, magnitude);
    }
}

/* Children of the latent at place `at` of the list. One category of (none, child, child ...), or each for
 * itself. */
static void draw_children(const sonde_synth *s, sonde_synth_space *p, size_t at, const sonde_rng *row,
                          sonde_rng *magnitude)
{
    size_t parent = p->latent[at], c0 = synth_first_child(&s->o, parent), c1 = c0 + s->o.branch;
    sonde_rng rng = sonde_rng_fork(row, "child", parent);
    if (s->o.siblings_free) {
        for (size_t c = c0; c < c1; c++)
            if (sonde_rng_double(&rng) < chance_of(s, p, c))
                take(s, p, c, at, magnitude);
        return;
    }
    double sum = 0, upto = 0;
    for (size_t c = c0; c < c1; c++)
        sum += chance_of(s, p, c);
    double u = sonde_rng_double(&rng) * (sum > 1 ? sum : 1);
    for (size_t c = c0; c < c1; c++) {
        upto += chance_of(s, p, c);
        if (u < upto) {
            take(s, p, c, at, magnitude);
            return;
        }
    }
}

/* ---- the row --------------------------------------------------------------------------------- */

static void add_up(const sonde_synth *s, const sonde_synth_space *p, const sonde_rng *row, float *x)
{
    size_t d = s->o.dim;
    double *sum = p->sum;
    for (size_t k = 0; k < d; k++)
        sum[k] = (double)s->bias[k];
    for (size_t a = 0; a < p->n; a++) {
        const float *g = s->direction + p->latent[a] * d;
        const double v = (double)p->value[a];
        for (size_t k = 0; k < d; k++)
            sum[k] += v * (double)g[k];
    }
    if (s->o.noise > 0) {
        sonde_rng rng = sonde_rng_fork(row, "noise", 0);
        for (size_t k = 0; k < d; k++)
            sum[k] += s->o.noise * sonde_rng_normal(&rng);
    }
    for (size_t k = 0; k < d; k++)
        x[k] = (float)sum[k];
}

size_t sonde_synth_row(const sonde_synth *s, uint64_t row, sonde_synth_space *p, const uint32_t **latent,
                       const float **value, float *x)
{
    sonde_rng root = sonde_rng_seed(s->o.seed), rng = sonde_rng_fork(&root, "row", row);
    sonde_rng active = sonde_rng_fork(&rng, "active", 0), magnitude = sonde_rng_fork(&rng, "magnitude", 0);
    p->n = 0;
    if (s->o.rank)
        draw_factors(s, &rng, p->shift);
    draw_free_standing(s, p, 0, s->o.roots, &active, &magnitude);
    for (size_t at = 0; at < p->n;
         at++) /* breadth first: children join the end of the list, in ascending order */
        if (synth_has_children(s, p->latent[at]))
            draw_children(s, p, at, &rng, &magnitude);
    draw_free_standing(s, p, s->plan->n_tree, s->o.truth, &active, &magnitude);
    if (x)
        add_up(s, p, &rng, x);
    if (latent)
        *latent = p->latent;
    if (value)
        *value = p->value;
    return p->n;
}

/* ---- many rows ------------------------------------------------------------------------------- */

#define TASK_ROWS 64

struct rows {
    const sonde_synth *s;
    sonde_synth_space **space;
    uint64_t first;
    size_t n;
    float *x;
};

static void make_task(void *arg, size_t task, int thread)
{
    const struct rows *r = arg;
    for (size_t i = task * TASK_ROWS; i < r->n && i < (task + 1) * TASK_ROWS; i++)
        (void)sonde_synth_row(r->s, r->first + i, r->space[thread], NULL, NULL, r->x + i * r->s->o.dim);
}

void synth_spaces_free(sonde_synth_space **space, int n_threads)
{
    for (int t = 0; t < n_threads && space; t++)
        sonde_synth_space_free(space[t]);
    free(space);
}

enum sonde_code synth_spaces_new(const sonde_synth *s, int n_threads, sonde_budget *budget,
                                 sonde_synth_space ***out, sonde_err *err)
{
    sonde_synth_space **space = calloc((size_t)n_threads, sizeof *space);
    enum sonde_code code =
        space ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "no memory for %d threads", n_threads);
    for (int t = 0; t < n_threads && !code; t++)
        code = sonde_synth_space_new(s, budget, &space[t], err);
    if (code)
        synth_spaces_free(space, n_threads);
    else
        *out = space;
    return code;
}

enum sonde_code sonde_synth_rows(const sonde_synth *s, uint64_t first, size_t n, const sonde_work *work,
                                 float *x, sonde_err *err)
{
    sonde_synth_space **space;
    sonde_pool *pool = work ? work->pool : NULL;
    int n_threads = sonde_pool_threads(pool);
    enum sonde_code code = synth_spaces_new(s, n_threads, work ? work->budget : NULL, &space, err);
    if (code)
        return code;
    struct rows r = {s, space, first, n, x};
    sonde_pool_run(pool, (n + TASK_ROWS - 1) / TASK_ROWS, make_task, &r);
    synth_spaces_free(space, n_threads);
    return SONDE_OK;
}
