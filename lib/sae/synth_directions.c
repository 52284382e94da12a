/* SPDX-License-Identifier: MIT
 * The directions of a synthetic dictionary: Gaussian, and pushed apart on request. */
#include <math.h>
#include <string.h>

#include "../base/rng.h"
#include "../base/size.h"
#include "../num/matmul.h"
#include "synth_impl.h"

/* Scale to norm 1; a zero row becomes the first axis. */
static void normalise(float *g, size_t d)
{
    double sum = 0;
    for (size_t k = 0; k < d; k++)
        sum += (double)g[k] * (double)g[k];
    if (sum == 0)
        g[0] = 1;
    double scale = sum > 0 ? 1 / sqrt(sum) : 1;
    for (size_t k = 0; k < d; k++)
        g[k] = (float)((double)g[k] * scale);
}

static void draw_gaussian(sonde_rng rng, size_t d, float *g)
{
    for (size_t k = 0; k < d; k++)
        g[k] = (float)sonde_rng_normal(&rng);
    normalise(g, d);
}

/* Modified Gram-Schmidt, twice, in double on float rows: N <= d. */
static void orthonormalise(float *g, size_t n, size_t d)
{
    for (size_t i = 0; i < n; i++) {
        float *row = g + i * d;
        for (size_t pass = 0; pass < 2; pass++) {
            for (size_t j = 0; j < i; j++) {
                double dot = 0;
                for (size_t k = 0; k < d; k++)
                    dot += (double)row[k] * (double)g[j * d + k];
                for (size_t k = 0; k < d; k++)
                    row[k] = (float)((double)row[k] - dot * (double)g[j * d + k]);
            }
            normalise(row, d);
        }
    }
}

/* Adam on  sum_{i != j} <g_i, g_j>^2 + N sum (|g_i|^2 - 1)^2.  The gradient of row i,
 *   4 (g_i M - |g_i|^2 g_i) + 4 N (|g_i|^2 - 1) g_i   with M = G^T G [d, d],
 * needs O(N d^2), not O(N^2 d). */
struct push {
    size_t n, d;
    float *g, *transposed, *gram, *product, *m, *v;
    sonde_packed by_rows, by_gram; /* G as [N, d]; M as [d, d] */
    double lr, correction1, correction2;
    size_t step;
};

#define TILE 64

static void gram_tile(void *arg, size_t task, int thread)
{
    (void)thread;
    struct push *p = arg;
    size_t i = task * TILE, rows = p->d - i < TILE ? p->d - i : TILE;
    sonde_matmul(&p->by_rows, 0, 0, p->d, p->transposed + i * p->n, p->n, rows, p->gram + i * p->d, p->d,
                 NULL);
}

static void step_row(struct push *p, size_t i)
{
    float *g = p->g + i * p->d, *product = p->product + i * p->d, *m = p->m + i * p->d, *v = p->v + i * p->d;
    double norm_sq = 0;
    for (size_t k = 0; k < p->d; k++)
        norm_sq += (double)g[k] * (double)g[k];
    double own = (double)p->n * (norm_sq - 1) - norm_sq;
    for (size_t k = 0; k < p->d; k++) {
        double grad = 4 * ((double)product[k] + own * (double)g[k]);
        double m1 = 0.9 * (double)m[k] + 0.1 * grad, v1 = 0.999 * (double)v[k] + 0.001 * grad * grad;
        m[k] = (float)m1;
        v[k] = (float)v1;
        g[k] = (float)((double)g[k] - p->lr * (m1 / p->correction1) / (sqrt(v1 / p->correction2) + 1e-8));
    }
}

static void step_tile(void *arg, size_t task, int thread)
{
    (void)thread;
    struct push *p = arg;
    size_t i = task * TILE, rows = p->n - i < TILE ? p->n - i : TILE;
    sonde_matmul(&p->by_gram, 0, 0, p->d, p->g + i * p->d, p->d, rows, p->product + i * p->d, p->d, NULL);
    for (size_t r = 0; r < rows; r++)
        step_row(p, i + r);
}

static void push_once(struct push *p, sonde_pool *pool)
{
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < p->d; k++)
            p->transposed[k * p->n + i] = p->g[i * p->d + k];
    sonde_pack(&p->by_rows, 0, p->n, 0, p->d, p->g, p->d, 1);
    sonde_pool_run(pool, (p->d + TILE - 1) / TILE, gram_tile, p);
    sonde_pack(&p->by_gram, 0, p->d, 0, p->d, p->gram, p->d, 1);
    p->correction1 = 1 - (1 - p->correction1) * 0.9;
    p->correction2 = 1 - (1 - p->correction2) * 0.999;
    sonde_pool_run(pool, (p->n + TILE - 1) / TILE, step_tile, p);
}

static enum sonde_code push_new(struct push *p, const sonde_kernels *k, sonde_arena *arena, sonde_err *err)
{
    size_t room_rows = sonde_packed_floats(k, p->n, p->d), room_gram = sonde_packed_floats(k, p->d, p->d), n;
    if (!sonde_mul(&n, p->n, p->d) || !room_rows || !room_gram)
        return sonde_fail(err, SONDE_E_MEMORY, "%zu directions of %zu do not fit any memory", p->n, p->d);
    p->transposed = sonde_arena_get(arena, n, sizeof(float), err);
    p->product = sonde_arena_get(arena, n, sizeof(float), err);
    p->m = sonde_arena_get(arena, n, sizeof(float), err);
    p->v = sonde_arena_get(arena, n, sizeof(float), err);
    p->gram = sonde_arena_get(arena, p->d * p->d, sizeof(float), err);
    float *rows = sonde_arena_get(arena, room_rows, sizeof(float), err);
    float *gram = sonde_arena_get(arena, room_gram, sizeof(float), err);
    if (!p->transposed || !p->product || !p->m || !p->v || !p->gram || !rows || !gram)
        return SONDE_E_MEMORY;
    p->by_rows = (sonde_packed){.kernels = k, .k = p->n, .n = p->d, .data = rows};
    p->by_gram = (sonde_packed){.kernels = k, .k = p->d, .n = p->d, .data = gram};
    return SONDE_OK;
}

static enum sonde_code push_apart(sonde_synth *s, const sonde_kernels *kernels, const sonde_work *work,
                                  sonde_err *err)
{
    struct push p = {.n = s->o.truth, .d = s->o.dim, .g = s->direction, .lr = s->o.orthogonal_lr};
    sonde_arena *arena = sonde_arena_new(work ? work->budget : NULL, err);
    if (!arena)
        return SONDE_E_MEMORY;
    enum sonde_code code = push_new(&p, kernels, arena, err);
    for (size_t step = 0; step < s->o.orthogonal_steps && !code; step++) {
        sonde_work_report(work, "pushing directions apart", "steps", step, s->o.orthogonal_steps);
        if (sonde_work_stopped(work))
            code = sonde_fail(err, SONDE_E_STOPPED, "stopped while pushing directions apart");
        else
            push_once(&p, work ? work->pool : NULL);
    }
    for (size_t i = 0; i < p.n && !code; i++)
        normalise(s->direction + i * p.d, p.d);
    sonde_arena_free(arena);
    return code;
}

enum sonde_code synth_directions(sonde_synth *s, const sonde_kernels *kernels, const sonde_work *work,
                                 sonde_err *err)
{
    size_t n = s->o.truth, d = s->o.dim;
    sonde_rng root = sonde_rng_seed(s->o.seed);
    for (size_t i = 0; i < n; i++)
        draw_gaussian(sonde_rng_fork(&root, "direction", i), d, s->direction + i * d);
    draw_gaussian(sonde_rng_fork(&root, "bias", 0), d, s->bias);
    for (size_t k = 0; k < d; k++)
        s->bias[k] = (float)(s->o.bias * (double)s->bias[k]);
    if (s->o.orthogonal_steps == 0)
        return SONDE_OK;
    if (n > d)
        return push_apart(s, kernels, work, err);
    orthonormalise(s->direction, n, d);
    return SONDE_OK;
}
