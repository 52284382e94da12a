/* SPDX-License-Identifier: MIT
 * Exact changes of form: other numbers, the same encode and decode. Sums and products are taken in double and
 * rounded once. */
#include <math.h>
#include <stdlib.h>

#include "dict.h"

#define UNIT_TOLERANCE 1e-5 /* of a decoder norm that counts as 1 (SAEBench's) */

static double dot(const double *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * (double)b[i];
    return sum;
}

static double norm(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static void scale(float *x, size_t n, double by)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((double)x[i] * by);
}

static bool ranks_rows(const sonde_dict *d)
{
    return d->act == SONDE_DICT_TOPK || d->act == SONDE_DICT_GROUPMAX;
}

/* Everything that a latent's value comes from, times by > 0. */
static void scale_latent(sonde_dict *d, size_t i, double by)
{
    scale(d->w_enc + i * d->d_in, d->d_in, by);
    scale(&d->b_enc[i], 1, by);
    if (d->threshold)
        scale(&d->threshold[i], 1, by);
    if (d->b_mag)
        scale(&d->b_mag[i], 1, by);
}

enum sonde_code sonde_dict_unit_decoder(sonde_dict *d, bool force, sonde_err *err)
{
    bool all_unit = true;
    size_t worst = 0;
    for (size_t i = 0; i < d->n_latents && all_unit; i++) {
        double n = norm(d->w_dec + i * d->d_out, d->d_out);
        all_unit = n == 0 || fabs(n - 1) <= UNIT_TOLERANCE;
        worst = i;
    }
    if (ranks_rows(d) && !force) {
        if (all_unit)
            return SONDE_OK;
        return sonde_fail(
            err, SONDE_E_USAGE,
            "decoder row %zu has norm %.6g: with %s, rows of norm 1 would change which latents win", worst,
            norm(d->w_dec + worst * d->d_out, d->d_out), sonde_dict_act_name(d->act));
    }
    for (size_t i = 0; i < d->n_latents; i++) {
        float *row = d->w_dec + i * d->d_out;
        double n = norm(row, d->d_out);
        if (n == 0)
            continue;
        for (size_t c = 0; c < d->d_out; c++)
            row[c] = (float)((double)row[c] / n);
        scale_latent(d, i, n);
    }
    return SONDE_OK;
}

/* b_enc of latent i, so that z moves by `by`; with it the magnitude of a gated one. */
static void shift_latent(sonde_dict *d, size_t i, double by)
{
    d->b_enc[i] = (float)((double)d->b_enc[i] + by);
    if (d->b_mag)
        d->b_mag[i] = (float)((double)d->b_mag[i] + exp((double)d->r_mag[i]) * by);
}

enum sonde_code sonde_dict_set_pre_bias(sonde_dict *d, bool pre_bias, sonde_err *err)
{
    if (d->pre_bias == pre_bias)
        return SONDE_OK;
    if (d->d_in != d->d_out)
        return sonde_fail(
            err, SONDE_E_USAGE,
            "the decoder's bias has width %zu, it cannot be subtracted from inputs of width %zu", d->d_out,
            d->d_in);
    for (size_t i = 0; i < d->n_latents; i++) {
        const float *w = d->w_enc + i * d->d_in;
        double sum = 0;
        for (size_t c = 0; c < d->d_in; c++)
            sum += (double)d->b_dec[c] * (double)w[c];
        shift_latent(d, i, pre_bias ? sum : -sum);
    }
    d->pre_bias = pre_bias;
    return SONDE_OK;
}

/* What the latents' biases have to make up for, as a vector that is multiplied by the encoder's rows. b_dec
 * is the old one, `bias` the new one. */
static void fold_shift(const sonde_dict *d, const double *mean_in, double scale_in, const double *bias,
                       double *shift)
{
    for (size_t c = 0; c < d->d_in; c++) {
        double mean = mean_in ? mean_in[c] : 0;
        shift[c] = d->pre_bias ? (bias[c] - mean) * scale_in - (double)d->b_dec[c] : -mean * scale_in;
    }
}

/* The decoder's bias in units of the raw output. */
static void fold_bias(const sonde_dict *d, const double *mean_in, double scale_in, const double *mean_out,
                      double scale_out, double *bias)
{
    for (size_t c = 0; c < d->d_out; c++) {
        bias[c] = (double)d->b_dec[c] / scale_out + (mean_out ? mean_out[c] : 0);
        if (d->w_skip && mean_in)
            bias[c] -= dot(mean_in, d->w_skip + c * d->d_in, d->d_in) * scale_in / scale_out;
    }
}

enum sonde_code sonde_dict_fold_scale(sonde_dict *d, const double *mean_in, double scale_in,
                                      const double *mean_out, double scale_out, sonde_err *err)
{
    if (!(scale_in > 0) || !(scale_out > 0) || !isfinite(scale_in) || !isfinite(scale_out))
        return sonde_fail(err, SONDE_E_USAGE, "scales of activations must be positive: %g and %g", scale_in,
                          scale_out);
    double *bias = calloc(d->d_out + d->d_in, sizeof *bias);
    if (!bias)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu numbers", d->d_out + d->d_in);
    double *shift = bias + d->d_out;
    fold_bias(d, mean_in, scale_in, mean_out, scale_out, bias);
    fold_shift(d, mean_in, scale_in, bias, shift);
    for (size_t i = 0; i < d->n_latents; i++) {
        float *w = d->w_enc + i * d->d_in;
        shift_latent(d, i, dot(shift, w, d->d_in));
        scale_latent(d, i, 1 / scale_out);
        scale(w, d->d_in, scale_in);
    }
    for (size_t c = 0; c < d->d_out; c++)
        d->b_dec[c] = (float)bias[c];
    if (d->w_skip)
        scale(d->w_skip, d->d_out * d->d_in, scale_in / scale_out);
    free(bias);
    return SONDE_OK;
}

/* Is latent i, scaled, still made of finite numbers? */
static bool gate_fits(const sonde_dict *d, size_t i, double e)
{
    const float *w = d->w_enc + i * d->d_in;
    bool ok = isfinite((float)(e * (double)d->b_enc[i])) && isfinite(e);
    for (size_t c = 0; c < d->d_in && ok; c++)
        ok = isfinite((float)(e * (double)w[c]));
    return ok;
}

enum sonde_code sonde_dict_gated_to_jumprelu(sonde_dict *d, sonde_err *err)
{
    if (d->act != SONDE_DICT_GATED)
        return sonde_fail(err, SONDE_E_USAGE, "this dictionary is not gated, its activation is %s",
                          sonde_dict_act_name(d->act));
    for (size_t i = 0; i < d->n_latents; i++)
        if (!gate_fits(d, i, exp((double)d->r_mag[i])))
            return sonde_fail(err, SONDE_E_NUMERIC, "r_mag of latent %zu is %g: its exponential is too large",
                              i, (double)d->r_mag[i]);
    float *threshold = sonde_arena_get(d->arena, d->n_latents, sizeof *threshold, err);
    if (!threshold)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < d->n_latents; i++) {
        double e = exp((double)d->r_mag[i]), t = (double)d->b_mag[i] - e * (double)d->b_enc[i];
        threshold[i] = t > 0 ? (float)t : 0;
        scale(d->w_enc + i * d->d_in, d->d_in, e);
        d->b_enc[i] = d->b_mag[i];
    }
    d->act = SONDE_DICT_JUMPRELU;
    d->threshold = threshold;
    d->r_mag = d->b_mag = NULL;
    return SONDE_OK;
}
