/* SPDX-License-Identifier: MIT
 * Cosines come in panels of columns: one panel is packed, threads take blocks of rows below it, and each
 * keeps the largest it saw for every row and column. A maximum does not depend on the order. */
#include "geometry.h"

#include <math.h>
#include <string.h>

#include "../num/matmul.h"

#define PANEL     1024 /* columns that are packed at a time */
#define BLOCK     64   /* rows of one task */
#define MAX_LANES 16

struct panel {
    const float *w, *inverse; /* [n, d], [n] 1 / norm, 0 for a row of zeros */
    size_t n, d;
    size_t first, n_columns;
    sonde_packed packed;
    float *tile; /* [threads][BLOCK, PANEL] */
    float *best; /* [threads][n] */
};

/* c[j] *= scale * inverse[j]; the largest for the row is returned, those of columns go to best. */
static float fold(float *c, size_t n, float scale, const float *inverse, float *best)
{
    float lane[MAX_LANES], most = -1.0f;
    for (size_t l = 0; l < MAX_LANES; l++)
        lane[l] = -1.0f;
    size_t j = 0;
    for (; j + MAX_LANES <= n; j += MAX_LANES)
        for (size_t l = 0; l < MAX_LANES; l++) {
            float v = c[j + l] * scale * inverse[j + l];
            best[j + l] = v > best[j + l] ? v : best[j + l];
            lane[l] = v > lane[l] ? v : lane[l];
        }
    for (; j < n; j++) {
        float v = c[j] * scale * inverse[j];
        best[j] = v > best[j] ? v : best[j];
        most = v > most ? v : most;
    }
    for (size_t l = 0; l < MAX_LANES; l++)
        most = lane[l] > most ? lane[l] : most;
    return most;
}

/* Rows below the diagonal of the panel against its columns: pairs (i, j) with j < i. */
static void compare_block(void *arg, size_t task, int thread)
{
    const struct panel *p = arg;
    float *tile = p->tile + (size_t)thread * BLOCK * PANEL, *best = p->best + (size_t)thread * p->n;
    size_t i0 = p->first + task * BLOCK, rows = p->n - i0 < BLOCK ? p->n - i0 : BLOCK;
    size_t columns = i0 + rows - p->first < p->n_columns ? i0 + rows - p->first : p->n_columns;
    sonde_matmul(&p->packed, 0, 0, columns, p->w + i0 * p->d, p->d, rows, tile, PANEL, NULL);
    for (size_t r = 0; r < rows; r++) {
        size_t i = i0 + r, n = i - p->first < columns ? i - p->first : columns;
        float most = fold(tile + r * PANEL, n, p->inverse[i], p->inverse + p->first, best + p->first);
        best[i] = most > best[i] ? most : best[i];
    }
}

static enum sonde_code run_panels(struct panel *p, const sonde_kernels *kernels, size_t packed_floats,
                                  const sonde_work *work, sonde_err *err)
{
    for (p->first = 0; p->first < p->n; p->first += PANEL) {
        p->n_columns = p->n - p->first < PANEL ? p->n - p->first : PANEL;
        p->packed.kernels = kernels;
        p->packed.k = p->d;
        p->packed.n = p->n_columns;
        memset(p->packed.data, 0, packed_floats * sizeof(float));
        sonde_pack(&p->packed, 0, p->d, 0, p->n_columns, p->w + p->first * p->d, 1, p->d);
        sonde_pool_run(work ? work->pool : NULL, (p->n - p->first + BLOCK - 1) / BLOCK, compare_block, p);
        sonde_work_report(work, "comparing latents", "latents", p->first + p->n_columns, p->n);
        if (sonde_work_stopped(work))
            return sonde_fail(err, SONDE_E_STOPPED, "stopped while comparing latents; nothing was saved");
    }
    return SONDE_OK;
}

enum sonde_code sonde_max_cosine(const float *w, const float *norm, size_t n, size_t d,
                                 const sonde_kernels *kernels, const sonde_work *work, float *best,
                                 sonde_err *err)
{
    struct panel p = {.w = w, .n = n, .d = d};
    size_t threads = (size_t)sonde_pool_threads(work ? work->pool : NULL);
    size_t floats = sonde_packed_floats(kernels, d, n < PANEL ? n : PANEL);
    enum sonde_code code = SONDE_E_MEMORY;
    float *inverse;
    sonde_arena *a = sonde_arena_new(work ? work->budget : NULL, err);
    if (!a || !(inverse = sonde_arena_get(a, n, sizeof *inverse, err)) ||
        !(p.packed.data = sonde_arena_get(a, floats, sizeof(float), err)) ||
        !(p.tile = sonde_arena_get(a, threads * BLOCK * PANEL, sizeof *p.tile, err)) ||
        !(p.best = sonde_arena_get(a, threads * n, sizeof *p.best, err)))
        goto out;
    for (size_t i = 0; i < n; i++)
        inverse[i] = norm[i] > 0 ? 1.0f / norm[i] : 0.0f;
    for (size_t i = 0; i < threads * n; i++)
        p.best[i] = -1.0f;
    p.inverse = inverse;
    if ((code = run_panels(&p, kernels, floats, work, err)))
        goto out;
    for (size_t i = 0; i < n; i++) {
        best[i] = p.best[i];
        for (size_t t = 1; t < threads; t++)
            best[i] = p.best[t * n + i] > best[i] ? p.best[t * n + i] : best[i];
    }
out:
    sonde_arena_free(a);
    return code;
}

/* ---- norms and means ------------------------------------------------------------------------- */

static void norms(const float *w, size_t n, size_t d, float *out)
{
    for (size_t i = 0; i < n; i++) {
        double s = 0;
        for (size_t c = 0; c < d; c++)
            s += (double)w[i * d + c] * (double)w[i * d + c];
        out[i] = (float)sqrt(s);
    }
}

static double mean_of(const float *v, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++)
        s += (double)v[i];
    return s / (double)n;
}

static sonde_spread spread_of(const float *v, size_t n)
{
    float lo = v[0], hi = v[0];
    for (size_t i = 1; i < n; i++) {
        lo = v[i] < lo ? v[i] : lo;
        hi = v[i] > hi ? v[i] : hi;
    }
    return (sonde_spread){mean_of(v, n), (double)lo, (double)hi};
}

static void cosines(const sonde_dict *d, const sonde_geometry *g)
{
    for (size_t i = 0; i < d->n_latents; i++) {
        const float *e = d->w_enc + i * d->d_in, *o = d->w_dec + i * d->d_in;
        double dot = 0, scale = (double)g->encoder_norm[i] * (double)g->decoder_norm[i];
        for (size_t c = 0; c < d->d_in; c++)
            dot += (double)e[c] * (double)o[c];
        g->encoder_decoder_cosine[i] = scale > 0 ? (float)(dot / scale) : 0.0f;
    }
}

static sonde_geometry *geometry_new(size_t n, bool same_width, sonde_budget *budget, sonde_err *err)
{
    sonde_arena *a = sonde_arena_new(budget, err);
    sonde_geometry *g = a ? sonde_arena_get(a, 1, sizeof *g, err) : NULL;
    if (!g || !(g->encoder_norm = sonde_arena_get(a, n, sizeof(float), err)) ||
        !(g->decoder_norm = sonde_arena_get(a, n, sizeof(float), err)) ||
        !(g->max_encoder_cosine = sonde_arena_get(a, n, sizeof(float), err)) ||
        !(g->max_decoder_cosine = sonde_arena_get(a, n, sizeof(float), err)) ||
        (same_width && !(g->encoder_decoder_cosine = sonde_arena_get(a, n, sizeof(float), err)))) {
        sonde_arena_free(a);
        return NULL;
    }
    g->arena = a;
    g->n_latents = n;
    return g;
}

void sonde_geometry_free(sonde_geometry *g)
{
    if (g)
        sonde_arena_free(g->arena);
}

enum sonde_code sonde_geometry_measure(const sonde_dict *d, const sonde_kernels *kernels,
                                       const sonde_work *work, sonde_geometry **out, sonde_err *err)
{
    size_t n = d->n_latents;
    bool same_width = d->d_in == d->d_out;
    sonde_geometry *g = geometry_new(n, same_width, work ? work->budget : NULL, err);
    if (!g)
        return SONDE_E_MEMORY;
    norms(d->w_enc, n, d->d_in, g->encoder_norm);
    norms(d->w_dec, n, d->d_out, g->decoder_norm);
    enum sonde_code code =
        sonde_max_cosine(d->w_enc, g->encoder_norm, n, d->d_in, kernels, work, g->max_encoder_cosine, err);
    if (!code)
        code = sonde_max_cosine(d->w_dec, g->decoder_norm, n, d->d_out, kernels, work, g->max_decoder_cosine,
                                err);
    if (code) {
        sonde_geometry_free(g);
        return code;
    }
    if (same_width)
        cosines(d, g);
    g->encoder = spread_of(g->encoder_norm, n);
    g->decoder = spread_of(g->decoder_norm, n);
    g->encoder_decoder_cosine_sim = same_width ? mean_of(g->encoder_decoder_cosine, n) : (double)NAN;
    g->average_max_encoder_cosine_sim = n > 1 ? mean_of(g->max_encoder_cosine, n) : (double)NAN;
    g->average_max_decoder_cosine_sim = n > 1 ? mean_of(g->max_decoder_cosine, n) : (double)NAN;
    *out = g;
    return SONDE_OK;
}
