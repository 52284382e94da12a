/* SPDX-License-Identifier: MIT
 * Sums over rows. Each row's five sums are taken by whichever thread; every sum over rows is taken row by row
 * in order: scalars and latents by the caller, dimensions by one thread each. */
#include "metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LANES         8
#define ROW_TASK      64   /* rows of one task */
#define COLUMN_TASK   32   /* dimensions of one task */
#define SMALLEST_NORM 1e-4 /* of a row that l2_ratio counts */

/* One row: ||e||^2, ||y - ybar||^2, ||y||^2, ||h||^2, <y, h>. */
enum row_sum { ROW_EE, ROW_VV, ROW_YY, ROW_HH, ROW_YH, N_ROW_SUMS };

struct sonde_tally {
    size_t n_latents, d;
    uint64_t n_mean, n_rows; /* rows of the first and of the second pass */
    bool mean_given;
    double *sum_y; /* [d]; ybar once `has_mean` */
    double *sum_e; /* [d] */
    bool has_mean;
    double total[N_ROW_SUMS];
    double legacy, cossim, norm_in, norm_out, ratio;
    uint64_t n_legacy, n_ratio;
    double l1;
    uint64_t n_active;
    uint64_t *fired;           /* [F] */
    double *sum_f;             /* [F] */
    float *max_f;              /* [F] */
    double (*row)[N_ROW_SUMS]; /* [room] */
    size_t room;
    sonde_arena *arena;
    sonde_budget *budget;
};

enum sonde_code sonde_tally_new(size_t n_latents, size_t d, sonde_budget *budget, sonde_tally **out,
                                sonde_err *err)
{
    if (d == 0)
        return sonde_fail(err, SONDE_E_USAGE, "rows of no dimensions cannot be measured");
    sonde_arena *a = sonde_arena_new(budget, err);
    sonde_tally *t = a ? sonde_arena_get(a, 1, sizeof *t, err) : NULL;
    if (!t || !(t->sum_y = sonde_arena_get(a, d, sizeof(double), err)) ||
        !(t->sum_e = sonde_arena_get(a, d, sizeof(double), err)) ||
        !(t->fired = sonde_arena_get(a, n_latents, sizeof *t->fired, err)) ||
        !(t->sum_f = sonde_arena_get(a, n_latents, sizeof *t->sum_f, err)) ||
        !(t->max_f = sonde_arena_get(a, n_latents, sizeof *t->max_f, err))) {
        sonde_arena_free(a);
        return SONDE_E_MEMORY;
    }
    t->arena = a;
    t->budget = budget;
    t->n_latents = n_latents;
    t->d = d;
    *out = t;
    return SONDE_OK;
}

static void drop_rows(sonde_tally *t)
{
    free(t->row);
    sonde_budget_release(t->budget, t->room * sizeof *t->row);
    t->row = NULL;
    t->room = 0;
}

void sonde_tally_free(sonde_tally *t)
{
    if (!t)
        return;
    drop_rows(t);
    sonde_arena_free(t->arena);
}

static enum sonde_code room_for_rows(sonde_tally *t, size_t n, sonde_err *err)
{
    if (n <= t->room)
        return SONDE_OK;
    drop_rows(t);
    if (n > SIZE_MAX / sizeof *t->row || !sonde_budget_hold(t->budget, n * sizeof *t->row))
        return sonde_fail(err, SONDE_E_MEMORY, "the sums of %zu rows do not fit the memory limit", n);
    if (!(t->row = malloc(n * sizeof *t->row))) {
        sonde_budget_release(t->budget, n * sizeof *t->row);
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for the sums of %zu rows", n);
    }
    t->room = n;
    return SONDE_OK;
}

/* ---- sums over rows, per dimension ----------------------------------------------------------- */

struct columns {
    const float *y, *h; /* h NULL: y alone */
    size_t ldy, ldh, n, d;
    double *sum;
};

/* sum[c] += y[r][c] - h[r][c], r ascending. */
static void add_columns(void *arg, size_t task, int thread)
{
    (void)thread;
    const struct columns *a = arg;
    size_t c0 = task * COLUMN_TASK, n = a->d - c0 < COLUMN_TASK ? a->d - c0 : COLUMN_TASK;
    double s[COLUMN_TASK];
    memcpy(s, a->sum + c0, n * sizeof *s);
    for (size_t r = 0; r < a->n; r++) {
        const float *y = a->y + r * a->ldy + c0, *h = a->h ? a->h + r * a->ldh + c0 : NULL;
        for (size_t c = 0; c < n; c++)
            s[c] += h ? (double)y[c] - (double)h[c] : (double)y[c];
    }
    memcpy(a->sum + c0, s, n * sizeof *s);
}

static void sum_columns(const struct columns *a, sonde_pool *pool)
{
    struct columns copy = *a;
    sonde_pool_run(pool, (a->d + COLUMN_TASK - 1) / COLUMN_TASK, add_columns, &copy);
}

enum sonde_code sonde_tally_mean(sonde_tally *t, const float *y, size_t ldy, size_t n, sonde_pool *pool,
                                 sonde_err *err)
{
    if (t->has_mean)
        return sonde_fail(err, SONDE_E_USAGE, "the mean is in use already, no row can be added to it");
    sum_columns(&(struct columns){y, NULL, ldy, 0, n, t->d, t->sum_y}, pool);
    t->n_mean += n;
    return SONDE_OK;
}

enum sonde_code sonde_tally_set_mean(sonde_tally *t, const double *mean, sonde_err *err)
{
    if (t->has_mean || t->n_mean)
        return sonde_fail(err, SONDE_E_USAGE, "a mean has been begun already");
    memcpy(t->sum_y, mean, t->d * sizeof *mean);
    t->has_mean = t->mean_given = true;
    return SONDE_OK;
}

const double *sonde_tally_get_mean(sonde_tally *t)
{
    if (!t->has_mean && t->n_mean) {
        for (size_t c = 0; c < t->d; c++)
            t->sum_y[c] /= (double)t->n_mean;
        t->has_mean = true;
    }
    return t->sum_y;
}

/* ---- the five sums of a row ------------------------------------------------------------------ */

static double add_lanes(const double *lane)
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static inline void add_element(double s[N_ROW_SUMS][LANES], size_t lane, float yf, float hf, double mean)
{
    double y = (double)yf, h = (double)hf, e = y - h, v = y - mean;
    s[ROW_EE][lane] += e * e;
    s[ROW_VV][lane] += v * v;
    s[ROW_YY][lane] += y * y;
    s[ROW_HH][lane] += h * h;
    s[ROW_YH][lane] += y * h;
}

static void measure_row(const float *y, const float *h, const double *mean, size_t d, double *out)
{
    double s[N_ROW_SUMS][LANES] = {{0}};
    size_t i = 0;
    for (; i + LANES <= d; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            add_element(s, l, y[i + l], h[i + l], mean[i + l]);
    for (size_t l = 0; i + l < d; l++)
        add_element(s, l, y[i + l], h[i + l], mean[i + l]);
    for (int k = 0; k < N_ROW_SUMS; k++)
        out[k] = add_lanes(s[k]);
}

struct rows {
    const float *y, *h;
    size_t ldy, ldh, n;
    sonde_tally *t;
};

static void measure_rows(void *arg, size_t task, int thread)
{
    (void)thread;
    const struct rows *a = arg;
    size_t r0 = task * ROW_TASK, r1 = a->n - r0 < ROW_TASK ? a->n : r0 + ROW_TASK;
    for (size_t r = r0; r < r1; r++)
        measure_row(a->y + r * a->ldy, a->h + r * a->ldh, a->t->sum_y, a->t->d, a->t->row[r]);
}

static enum sonde_code check_rows(const sonde_tally *t, size_t n, sonde_err *err)
{
    for (size_t r = 0; r < n; r++)
        for (int k = 0; k < N_ROW_SUMS; k++)
            if (!isfinite(t->row[r][k]))
                return sonde_fail(err, SONDE_E_NUMERIC,
                                  "row %" PRIu64 " of the pass: the activations or their reconstruction are "
                                  "not finite",
                                  t->n_rows + r);
    return SONDE_OK;
}

static void add_row(sonde_tally *t, const double *s)
{
    for (int k = 0; k < N_ROW_SUMS; k++)
        t->total[k] += s[k];
    double y = sqrt(s[ROW_YY]), h = sqrt(s[ROW_HH]);
    t->norm_in += y;
    t->norm_out += h;
    if (s[ROW_VV] > 0) {
        t->legacy += 1.0 - s[ROW_EE] / s[ROW_VV];
        t->n_legacy++;
    }
    if (y > 0 && h > 0)
        t->cossim += s[ROW_YH] / (y * h);
    if (y >= SMALLEST_NORM) {
        t->ratio += h / y;
        t->n_ratio++;
    }
}

static void add_latents(sonde_tally *t, const sonde_sparse *f)
{
    for (size_t r = 0; r < f->n_rows; r++)
        for (uint64_t i = f->start[r]; i < f->start[r + 1]; i++) {
            uint32_t c = f->col[i];
            float v = f->value[i];
            if (v == 0.0f)
                continue;
            t->n_active++;
            t->fired[c]++;
            t->sum_f[c] += (double)v;
            t->l1 += (double)v;
            if (v > t->max_f[c])
                t->max_f[c] = v;
        }
}

enum sonde_code sonde_tally_add(sonde_tally *t, const float *y, size_t ldy, const float *h, size_t ldh,
                                size_t n, const sonde_sparse *f, sonde_pool *pool, sonde_err *err)
{
    (void)sonde_tally_get_mean(t);
    if (!t->has_mean)
        return sonde_fail(err, SONDE_E_USAGE, "the first pass had no rows");
    if (!f != (t->n_latents == 0) || (f && f->n_rows != n))
        return sonde_fail(err, SONDE_E_USAGE, "%zu rows come with the latents of %zu", n, f ? f->n_rows : 0);
    enum sonde_code code = room_for_rows(t, n, err);
    if (code)
        return code;
    struct rows a = {y, h, ldy, ldh, n, t};
    sonde_pool_run(pool, (n + ROW_TASK - 1) / ROW_TASK, measure_rows, &a);
    if ((code = check_rows(t, n, err)))
        return code;
    for (size_t r = 0; r < n; r++)
        add_row(t, t->row[r]);
    sum_columns(&(struct columns){y, h, ldy, ldh, n, t->d, t->sum_e}, pool);
    if (f)
        add_latents(t, f);
    t->n_rows += n;
    return SONDE_OK;
}

/* ---- the numbers ----------------------------------------------------------------------------- */

static double ratio(double a, double b)
{
    return b > 0 ? a / b : (double)NAN;
}

static void end_reconstruction(const sonde_tally *t, sonde_metrics *m)
{
    double n = (double)t->n_rows, bias = 0;
    for (size_t c = 0; c < t->d; c++)
        bias += (t->sum_e[c] / n) * (t->sum_e[c] / n);
    m->mse = t->total[ROW_EE] / n;
    m->mse_per_element = m->mse / (double)t->d;
    m->variance = t->total[ROW_VV] / n;
    m->fvu = ratio(m->mse, m->variance);
    m->explained_variance = 1.0 - m->fvu;
    m->explained_variance_legacy = ratio(t->legacy, (double)t->n_legacy);
    m->frac_variance_explained = 1.0 - ratio(m->mse - bias, m->variance);
    m->cossim = t->cossim / n;
    m->l2_norm_in = t->norm_in / n;
    m->l2_norm_out = t->norm_out / n;
    m->l2_ratio = ratio(t->ratio, (double)t->n_ratio);
    m->relative_reconstruction_bias =
        t->total[ROW_YH] == 0 ? (double)NAN : t->total[ROW_HH] / t->total[ROW_YH];
}

static int density_bin(double frequency)
{
    double at = floor((log10(frequency + 1e-10) - sonde_density_edge(0)) / 0.25);
    return at < 0 ? 0 : at >= SONDE_DENSITY_BINS ? SONDE_DENSITY_BINS - 1 : (int)at;
}

static void end_latents(const sonde_tally *t, sonde_metrics *m)
{
    double n = (double)t->n_rows, F = (double)t->n_latents;
    uint64_t over_1 = 0, over_10 = 0, active_1 = 0, active_10 = 0;
    for (size_t i = 0; i < t->n_latents; i++) {
        double f = (double)t->fired[i] / n;
        m->fired[i] = t->fired[i];
        m->frequency[i] = f;
        m->mean[i] = t->sum_f[i] / n;
        m->mean_nonzero[i] = t->fired[i] ? t->sum_f[i] / (double)t->fired[i] : 0;
        m->max[i] = t->max_f[i];
        m->dead_features += t->fired[i] == 0;
        m->below_1e_5 += f < 1e-5;
        m->below_1e_6 += f < 1e-6;
        m->density[density_bin(f)]++;
        over_1 += f > 0.01;
        over_10 += f > 0.1;
        active_1 += f > 0.01 ? t->fired[i] : 0;
        active_10 += f > 0.1 ? t->fired[i] : 0;
    }
    m->l0 = (double)t->n_active / n;
    m->l1 = t->l1 / n;
    m->frac_alive = 1.0 - (double)m->dead_features / F;
    m->freq_over_1_percent = (double)over_1 / F;
    m->freq_over_10_percent = (double)over_10 / F;
    m->normalized_freq_over_1_percent = ratio((double)active_1, (double)t->n_active);
    m->normalized_freq_over_10_percent = ratio((double)active_10, (double)t->n_active);
}

static enum sonde_code metrics_new(size_t n_latents, size_t d, sonde_budget *budget, sonde_metrics **out,
                                   sonde_err *err)
{
    sonde_arena *a = sonde_arena_new(budget, err);
    sonde_metrics *m = a ? sonde_arena_get(a, 1, sizeof *m, err) : NULL;
    if (!m || !(m->fired = sonde_arena_get(a, n_latents, sizeof *m->fired, err)) ||
        !(m->frequency = sonde_arena_get(a, n_latents, sizeof *m->frequency, err)) ||
        !(m->mean = sonde_arena_get(a, n_latents, sizeof *m->mean, err)) ||
        !(m->mean_nonzero = sonde_arena_get(a, n_latents, sizeof *m->mean_nonzero, err)) ||
        !(m->max = sonde_arena_get(a, n_latents, sizeof *m->max, err)) ||
        !(m->mean_y = sonde_arena_get(a, d, sizeof *m->mean_y, err))) {
        sonde_arena_free(a);
        return SONDE_E_MEMORY;
    }
    m->arena = a;
    m->n_latents = n_latents;
    m->d = d;
    *out = m;
    return SONDE_OK;
}

void sonde_metrics_free(sonde_metrics *m)
{
    if (m)
        sonde_arena_free(m->arena);
}

enum sonde_code sonde_tally_end(const sonde_tally *t, sonde_budget *budget, sonde_metrics **out,
                                sonde_err *err)
{
    sonde_metrics *m = NULL;
    if (t->n_rows == 0)
        return sonde_fail(err, SONDE_E_USAGE, "there are no rows to measure");
    if (!t->mean_given && t->n_rows != t->n_mean)
        return sonde_fail(err, SONDE_E_USAGE, "the mean is over %" PRIu64 " rows, the errors over %" PRIu64,
                          t->n_mean, t->n_rows);
    enum sonde_code code = metrics_new(t->n_latents, t->d, budget, &m, err);
    if (code)
        return code;
    m->n_rows = t->n_rows;
    memcpy(m->mean_y, t->sum_y, t->d * sizeof *m->mean_y);
    end_reconstruction(t, m);
    if (t->n_latents)
        end_latents(t, m);
    *out = m;
    return SONDE_OK;
}
