/* SPDX-License-Identifier: MIT
 * Raw activations into the units of training, the first fit of those units, and the running variance. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_impl.h"

/* ---- rows ------------------------------------------------------------------------------------ */

struct norm_job {
    const sonde_trainer *t;
    const float *x;
    float *to;
    size_t n, d;
    const double *mean;
    double scale;
};

/* To norm sqrt(d), or to mean 0 and variance 1; a row without extent becomes 0. */
static void normalize_row(const sonde_trainer *t, const float *x, size_t d, float *to)
{
    double mean = 0, square = 0;
    if (t->o.normalize == SONDE_NORMALIZE_LAYER) {
        for (size_t i = 0; i < d; i++)
            mean += x[i];
        mean /= (double)d;
    }
    for (size_t i = 0; i < d; i++)
        square += (x[i] - mean) * (x[i] - mean);
    const double std = sqrt(square / (double)d);
    const double by = t->o.normalize == SONDE_NORMALIZE_LAYER ? 1 / (std + 1e-5) : std > 0 ? 1 / std : 0;
    for (size_t i = 0; i < d; i++)
        to[i] = (float)((x[i] - mean) * by);
}

static void normalize_task(void *arg, size_t task, int thread)
{
    (void)thread;
    const struct norm_job *q = arg;
    const sonde_trainer *t = q->t;
    const size_t r0 = task * BLOCK_ROWS, r1 = r0 + BLOCK_ROWS < q->n ? r0 + BLOCK_ROWS : q->n;
    const bool each = t->o.normalize == SONDE_NORMALIZE_CONSTANT || t->o.normalize == SONDE_NORMALIZE_LAYER;
    for (size_t r = r0; r < r1; r++) {
        const float *x = q->x + r * q->d;
        float *to = q->to + r * q->d;
        if (each) {
            normalize_row(t, x, q->d, to);
            continue;
        }
        if (t->c.shift_used != 0)
            for (size_t i = 0; i < q->d; i++)
                to[i] = (float)((x[i] - q->mean[i]) * q->scale);
        else
            sonde_scale(t->kernels, q->d, (float)q->scale, x, to);
    }
}

static void centre_task(void *arg, size_t task, int thread)
{
    (void)thread;
    const struct norm_job *q = arg;
    const sonde_trainer *t = q->t;
    const size_t n = q->n;
    const size_t r0 = task * BLOCK_ROWS, r1 = r0 + BLOCK_ROWS < n ? r0 + BLOCK_ROWS : n;
    for (size_t r = r0; r < r1; r++)
        sonde_vec_sub(t->kernels, t->d_in, t->xs + r * t->d_in, t->p[P_B_DEC].w, t->xc + r * t->d_in);
}

void trainer_normalize(sonde_trainer *t, const float *x, const float *y, size_t n, sonde_pool *pool)
{
    const size_t tasks = (n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    struct norm_job q = {t, x, t->xs, n, t->d_in, t->mean_in, t->c.scale_in};
    sonde_pool_run(pool, tasks, normalize_task, &q);
    if (t->transcoder) {
        q = (struct norm_job){t, y, t->ys, n, t->d_out, t->mean_out, t->c.scale_out};
        sonde_pool_run(pool, tasks, normalize_task, &q);
    }
    if (t->xc != t->xs) {
        q = (struct norm_job){.t = t, .n = n};
        sonde_pool_run(pool, tasks, centre_task, &q);
    }
}

/* ---- the running variance -------------------------------------------------------------------- */

/* Sums over one column of the target, rows ascending: a fixed order without partial sums. */
struct observe_job {
    const sonde_trainer *t;
    size_t n;
    double *sum, *square; /* [d_out] */
};

static void observe_task(void *arg, size_t task, int thread)
{
    (void)thread;
    const struct observe_job *q = arg;
    const sonde_trainer *t = q->t;
    const size_t d = t->d_out, i0 = task * 16, i1 = i0 + 16 < d ? i0 + 16 : d;
    double sum[16] = {0}, square[16] = {0};
    for (size_t r = 0; r < q->n; r++)
        for (size_t i = i0; i < i1; i++) {
            const double u = t->ys[r * d + i];
            sum[i - i0] += u;
            square[i - i0] += u * u;
        }
    for (size_t i = i0; i < i1; i++) {
        q->sum[i] = sum[i - i0];
        q->square[i] = square[i - i0];
    }
}

/* Chan's update of mean and sum of squared distances by a batch. */
void trainer_observe(sonde_trainer *t, size_t n, sonde_pool *pool)
{
    const size_t d = t->d_out;
    double *sum = (double *)t->partial; /* room for 2 d doubles: see trainer_room */
    struct observe_job q = {t, n, sum, sum + d};
    sonde_pool_run(pool, (d + 15) / 16, observe_task, &q);
    const double nb = (double)n, total = t->c.var_n + nb;
    for (size_t i = 0; i < d; i++) {
        const double mean = q.sum[i] / nb, m2 = q.square[i] - q.sum[i] * mean, delta = mean - t->var_mean[i];
        t->c.var_m2 += (m2 > 0 ? m2 : 0) + delta * delta * t->c.var_n * nb / total;
        t->var_mean[i] += delta * nb / total;
    }
    t->c.var_n = total;
}

/* ---- the fit --------------------------------------------------------------------------------- */

static double mean_of(const float *x, size_t n, size_t d, double *mean)
{
    double square = 0;
    memset(mean, 0, d * sizeof *mean);
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < d; i++) {
            mean[i] += x[r * d + i];
            square += (double)x[r * d + i] * x[r * d + i];
        }
    for (size_t i = 0; i < d; i++)
        mean[i] /= (double)n;
    return square / (double)n;
}

/* What rows are multiplied with, given their mean and mean squared norm; the mean is set to 0 where it is not
 * subtracted. */
static enum sonde_code scale_of(const sonde_trainer *t, const float *x, size_t n, size_t d, double *mean,
                                double square, double *scale, sonde_err *err)
{
    double norm = 0, centre = 0;
    switch (t->o.normalize) {
    case SONDE_NORMALIZE_MEAN_SQUARE:
        *scale = 1 / sqrt(square);
        break;
    case SONDE_NORMALIZE_SQRT_D:
        for (size_t r = 0; r < n; r++)
            norm += sqrt(sonde_sum_squares(t->kernels, d, x + r * d));
        *scale = sqrt((double)d) / (norm / (double)n);
        break;
    case SONDE_NORMALIZE_STANDARD:
        for (size_t i = 0; i < d; i++)
            centre += mean[i] * mean[i];
        *scale = 1 / sqrt(square - centre);
        break;
    default:
        *scale = 1;
    }
    if (!isfinite(*scale))
        return sonde_fail(err, SONDE_E_NUMERIC,
                          "the first %zu rows are all the same: there is nothing to learn from them", n);
    if (t->o.normalize != SONDE_NORMALIZE_STANDARD)
        memset(mean, 0, d * sizeof *mean);
    return SONDE_OK;
}

/* Weiszfeld's iterations from the mean: at most 100, or until a step is below 1e-5 of the spread. */
static void geometric_median(const float *x, size_t n, size_t d, double *at, double *next)
{
    for (int pass = 0; pass < 100; pass++) {
        double weight = 0, moved = 0, spread = 0;
        memset(next, 0, d * sizeof *next);
        for (size_t r = 0; r < n; r++) {
            double distance = 0;
            for (size_t i = 0; i < d; i++)
                distance += (x[r * d + i] - at[i]) * (x[r * d + i] - at[i]);
            spread += distance;
            const double w = 1 / fmax(sqrt(distance), 1e-12);
            weight += w;
            for (size_t i = 0; i < d; i++)
                next[i] += w * x[r * d + i];
        }
        for (size_t i = 0; i < d; i++) {
            next[i] /= weight;
            moved += (next[i] - at[i]) * (next[i] - at[i]);
            at[i] = next[i];
        }
        if (moved <= 1e-10 * spread / (double)n)
            break;
    }
}

/* b_dec from the normalised target; a transcoder's encoder sees inputs without their mean. */
static enum sonde_code fit_biases(sonde_trainer *t, size_t n, sonde_err *err)
{
    const size_t wide = t->d_in > t->d_out ? t->d_in : t->d_out;
    double *at = calloc(2 * wide, sizeof *at);
    if (!at)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu means", wide);
    if (t->o.bias_init != SONDE_BIAS_ZERO) {
        mean_of(t->ys, n, t->d_out, at);
        if (t->o.bias_init == SONDE_BIAS_MEDIAN)
            geometric_median(t->ys, n, t->d_out, at, at + wide);
        for (size_t i = 0; i < t->d_out; i++)
            t->p[P_B_DEC].w[i] = (float)at[i];
    }
    if (t->transcoder) {
        mean_of(t->xs, n, t->d_in, at);
        for (size_t j = 0; j < t->F; j++) {
            double dot = 0;
            for (size_t i = 0; i < t->d_in; i++)
                dot += at[i] * t->p[P_W_ENC].w[j * t->d_in + i];
            t->p[P_B_ENC].w[j] = (float)-dot;
        }
    }
    free(at);
    return SONDE_OK;
}

/* The sample goes through the buffers of a batch piece by piece: what is fitted to is whole, what is
 * normalised a batch. */
enum sonde_code sonde_trainer_fit(sonde_trainer *t, const float *x, const float *y, size_t n,
                                  const sonde_work *work, sonde_err *err)
{
    sonde_pool *pool = work ? work->pool : NULL;
    const bool each = t->o.normalize == SONDE_NORMALIZE_CONSTANT || t->o.normalize == SONDE_NORMALIZE_LAYER;
    enum sonde_code code;
    if (n == 0 || t->c.step)
        return sonde_fail(err, SONDE_E_USAGE,
                          "a trainer is fitted once, to at least one row, before its first step");
    if (t->transcoder != (y != NULL))
        return sonde_fail(err, SONDE_E_USAGE, "a transcoder needs targets, an autoencoder has none");
    if (!sonde_all_finite(t->kernels, n * t->d_in, x) ||
        (y && !sonde_all_finite(t->kernels, n * t->d_out, y)))
        return sonde_fail(err, SONDE_E_NUMERIC, "NaN or infinity among the first %zu rows", n);
    t->c.scale_in = t->c.scale_out = 1;
    t->c.shift_used = t->o.normalize == SONDE_NORMALIZE_STANDARD;
    if (!each) {
        double square = mean_of(x, n, t->d_in, t->mean_in);
        if ((code = scale_of(t, x, n, t->d_in, t->mean_in, square, &t->c.scale_in, err)))
            return code;
        if (y) {
            square = mean_of(y, n, t->d_out, t->mean_out);
            code = scale_of(t, y, n, t->d_out, t->mean_out, square, &t->c.scale_out, err);
        } else {
            memcpy(t->mean_out, t->mean_in, t->d_in * sizeof *t->mean_out);
            t->c.scale_out = t->c.scale_in;
        }
        if (code)
            return code;
    }
    const size_t batch = (size_t)t->o.batch;
    if ((code = trainer_room(t, batch, err)))
        return code;
    const size_t m = n < batch ? n : batch;
    memset(t->p[P_B_DEC].w, 0, t->d_out * sizeof(float));
    trainer_normalize(t, x, y, m, pool);
    if ((code = fit_biases(t, m, err)))
        return code;
    trainer_pack(t, pool);
    return SONDE_OK;
}
