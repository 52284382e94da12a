/* SPDX-License-Identifier: MIT
 * The reference twins of a dictionary at work. */
#include <math.h>

#include "infer.h"

/* normalised[i] = (x[i] - mean) scale; undone by y undo + mean. */
static void norm_of(const sonde_dict *d, const float *x, double *mean, double *scale, double *undo)
{
    double square = 0;
    *mean = 0, *scale = *undo = 1;
    if (d->norm == SONDE_DICT_NORM_NONE)
        return;
    if (d->norm == SONDE_DICT_NORM_LAYER)
        for (size_t i = 0; i < d->d_in; i++)
            *mean += (double)x[i] / (double)d->d_in;
    for (size_t i = 0; i < d->d_in; i++)
        square += ((double)x[i] - *mean) * ((double)x[i] - *mean);
    if (d->norm == SONDE_DICT_NORM_LAYER) {
        *undo = sqrt(square / ((double)d->d_in - (d->norm_unbiased && d->d_in > 1 ? 1 : 0)));
        *scale = 1 / (*undo + (double)d->norm_eps);
    } else if (square > 0) {
        *undo = sqrt(square / (double)d->d_in);
        *scale = 1 / *undo;
    }
}

static double pre_activation(const sonde_dict *d, const float *x, size_t latent, double mean, double scale)
{
    double z = (double)d->b_enc[latent];
    for (size_t i = 0; i < d->d_in; i++) {
        const double v = ((double)x[i] - mean) * scale - (d->pre_bias ? (double)d->b_dec[i] : 0);
        z += v * (double)d->w_enc[latent * d->d_in + i];
    }
    return z;
}

/* How many of f[from .. to-1] come before f[at]: larger, or equal and to the left. */
static size_t rank_of(const double *f, size_t from, size_t to, size_t at)
{
    size_t rank = 0;
    for (size_t i = from; i < to; i++)
        rank += f[i] > f[at] || (f[i] == f[at] && i < at);
    return rank;
}

/* Zero what is not among the best `keep` of each of n_groups groups. */
static void keep_best(double *f, size_t n, size_t n_groups, size_t keep)
{
    const size_t width = n / n_groups;
    for (size_t from = 0; from < n; from += width) {
        double last = 0; /* the value of rank keep - 1, and its place */
        size_t place = n;
        for (size_t i = from; i < from + width; i++)
            if (rank_of(f, from, from + width, i) == keep - 1) {
                last = f[i];
                place = i;
            }
        for (size_t i = from; i < from + width; i++)
            if (!(f[i] > 0 && (f[i] > last || (f[i] == last && i <= place))))
                f[i] = 0;
    }
}

void ref_dict_encode(const sonde_dict *d, const float *x, double *f)
{
    double mean, scale, undo;
    norm_of(d, x, &mean, &scale, &undo);
    for (size_t i = 0; i < d->n_latents; i++)
        f[i] = pre_activation(d, x, i, mean, scale);
    if (d->act == SONDE_DICT_TOPK)
        keep_best(f, d->n_latents, 1, d->k);
    else if (d->act == SONDE_DICT_GROUPMAX)
        keep_best(f, d->n_latents, d->k, 1);
    else
        for (size_t i = 0; i < d->n_latents; i++) {
            const double bound = d->act == SONDE_DICT_JUMPRELU ? fmax((double)d->threshold[i], 0) : 0;
            if (!(f[i] > bound))
                f[i] = 0;
            else if (d->act == SONDE_DICT_GATED)
                f[i] = fmax(exp((double)d->r_mag[i]) * (f[i] - (double)d->b_enc[i]) + (double)d->b_mag[i], 0);
        }
}

void ref_dict_decode(const sonde_dict *d, const double *f, const float *x, double *y)
{
    double mean = 0, scale = 1, undo = 1;
    if (d->norm != SONDE_DICT_NORM_NONE)
        norm_of(d, x, &mean, &scale, &undo);
    for (size_t i = 0; i < d->d_out; i++) {
        double v = (double)d->b_dec[i];
        for (size_t j = 0; j < d->n_latents; j++)
            v += f[j] * (double)d->w_dec[j * d->d_out + i];
        for (size_t j = 0; d->w_skip && j < d->d_in; j++)
            v += (double)d->w_skip[i * d->d_in + j] * (double)x[j];
        y[i] = v * undo + mean;
    }
}
