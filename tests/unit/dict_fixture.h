/* SPDX-License-Identifier: MIT
 * Random dictionaries, and what they compute, in plain double: for tests of forms and formats. */
#ifndef TESTS_UNIT_DICT_FIXTURE_H
#define TESTS_UNIT_DICT_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "sae/dict.h"
#include "sae/dict_file.h"

/* Numbers in (-scale, scale) from a sequence of their own. */
static inline float draw(uint64_t *state, double scale)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(((double)(*state >> 11) / 9007199254740992.0 * 2 - 1) * scale);
}

static inline void draw_all(float *x, size_t n, uint64_t *state, double scale)
{
    for (size_t i = 0; x && i < n; i++)
        x[i] = draw(state, scale);
}

/* Biases, thresholds and decoder norms are all over the place, so that a wrong fold shows. */
static inline sonde_dict *make_dict(enum sonde_dict_act act, size_t d_in, size_t d_out, size_t n, bool skip,
                                    uint64_t seed)
{
    sonde_dict *d;
    uint64_t s = seed * 2 + 1;
    assert_int_equal(sonde_dict_new(act, d_in, d_out, n, skip, NULL, &d, NULL), SONDE_OK);
    draw_all(d->w_enc, n * d_in, &s, 1);
    draw_all(d->b_enc, n, &s, 0.5);
    draw_all(d->w_dec, n * d_out, &s, 1);
    draw_all(d->b_dec, d_out, &s, 0.5);
    draw_all(d->r_mag, d->r_mag ? n : 0, &s, 0.5);
    draw_all(d->b_mag, d->b_mag ? n : 0, &s, 0.5);
    draw_all(d->w_skip, d->w_skip ? d_in * d_out : 0, &s, 0.5);
    for (size_t i = 0; i < n && d->threshold; i++)
        d->threshold[i] = fabsf(draw(&s, 1));
    if (act == SONDE_DICT_TOPK || act == SONDE_DICT_GROUPMAX)
        d->k = 4;
    d->pre_bias = d_in == d_out && !skip;
    return d;
}

/* ---- x to latents and back, as lib/sae/dict.h states it -------------------------------------------- */

struct evaluation {
    double f[64], y[64];
};

static inline void eval_norm(const sonde_dict *d, const double *x, double *xn, double *mean, double *factor)
{
    double sum = 0, sq = 0, n = (double)d->d_in;
    *mean = 0;
    *factor = 1;
    for (size_t c = 0; c < d->d_in; c++)
        sum += x[c];
    if (d->norm == SONDE_DICT_NORM_LAYER)
        *mean = sum / n;
    for (size_t c = 0; c < d->d_in; c++)
        sq += (x[c] - *mean) * (x[c] - *mean);
    double by = 1;
    if (d->norm == SONDE_DICT_NORM_LAYER) {
        *factor = sqrt(sq / (d->norm_unbiased ? n - 1 : n));
        by = 1 / (*factor + (double)d->norm_eps);
    } else if (d->norm == SONDE_DICT_NORM_CONSTANT) {
        by = sqrt(n) / sqrt(sq);
        *factor = 1 / by;
    }
    for (size_t c = 0; c < d->d_in; c++)
        xn[c] = (x[c] - *mean) * by;
}

/* The k best of z by passes; groups for groupmax. */
static inline void eval_rank(const sonde_dict *d, const double *z, double *f)
{
    size_t n = d->n_latents, groups = d->act == SONDE_DICT_GROUPMAX ? d->k : 1;
    size_t wins = d->act == SONDE_DICT_GROUPMAX ? 1 : d->k;
    for (size_t g = 0; g < groups; g++)
        for (size_t w = 0; w < wins; w++) {
            size_t best = SIZE_MAX;
            for (size_t i = g * n / groups; i < (g + 1) * n / groups; i++)
                if (z[i] > 0 && f[i] == 0 && (best == SIZE_MAX || z[i] > z[best]))
                    best = i;
            if (best != SIZE_MAX)
                f[best] = z[best];
        }
}

static inline void evaluate(const sonde_dict *d, const double *x, struct evaluation *e)
{
    double xn[64], z[64], mean, factor;
    assert_true(d->d_in <= 64 && d->d_out <= 64 && d->n_latents <= 64);
    *e = (struct evaluation){0};
    eval_norm(d, x, xn, &mean, &factor);
    for (size_t i = 0; i < d->n_latents; i++) {
        z[i] = (double)d->b_enc[i];
        for (size_t c = 0; c < d->d_in; c++)
            z[i] += (xn[c] - (d->pre_bias ? (double)d->b_dec[c] : 0)) * (double)d->w_enc[i * d->d_in + c];
        if (d->act == SONDE_DICT_RELU)
            e->f[i] = fmax(z[i], 0);
        else if (d->act == SONDE_DICT_JUMPRELU)
            e->f[i] = z[i] > (double)d->threshold[i] && z[i] > 0 ? z[i] : 0;
        else if (d->act == SONDE_DICT_GATED)
            e->f[i] =
                z[i] > 0
                    ? fmax(0, exp((double)d->r_mag[i]) * (z[i] - (double)d->b_enc[i]) + (double)d->b_mag[i])
                    : 0;
    }
    if (d->act == SONDE_DICT_TOPK || d->act == SONDE_DICT_GROUPMAX)
        eval_rank(d, z, e->f);
    for (size_t c = 0; c < d->d_out; c++) {
        double y = (double)d->b_dec[c];
        for (size_t i = 0; i < d->n_latents; i++)
            y += e->f[i] * (double)d->w_dec[i * d->d_out + c];
        for (size_t k = 0; d->w_skip && k < d->d_in; k++)
            y += x[k] * (double)d->w_skip[c * d->d_in + k];
        e->y[c] = y * factor + mean;
    }
}

static inline double largest(const double *x, size_t n, double at_least)
{
    for (size_t i = 0; i < n; i++)
        at_least = fmax(at_least, fabs(x[i]));
    return at_least;
}

/* Do a and b compute the same on 200 rows, where f of b is f of a times f_scale (per latent, or NULL)? The
 * rows of b are x = (row of a) / scale_in + mean_in, y likewise; NULL means and scales of 1 leave them alone.
 * Errors are relative to the largest number of the row. */
struct change {
    const double *f_scale, *mean_in, *mean_out;
    double scale_in, scale_out;
};

static inline void assert_same(const sonde_dict *a, const sonde_dict *b, const struct change *how,
                               double tolerance)
{
    static const struct change none = {.scale_in = 1, .scale_out = 1};
    uint64_t s = 99;
    how = how ? how : &none;
    for (int row = 0; row < 200; row++) {
        double x[64], raw[64];
        struct evaluation of_a, of_b;
        for (size_t c = 0; c < a->d_in; c++) {
            x[c] = (double)draw(&s, 2);
            raw[c] = x[c] / how->scale_in + (how->mean_in ? how->mean_in[c] : 0);
        }
        evaluate(a, x, &of_a);
        evaluate(b, raw, &of_b);
        double f_size = largest(of_b.f, a->n_latents, 1), y_size = largest(of_b.y, a->d_out, 1);
        for (size_t i = 0; i < a->n_latents; i++) {
            double want = of_a.f[i] * (how->f_scale ? how->f_scale[i] : 1);
            if (fabs(want - of_b.f[i]) > tolerance * f_size)
                fail_msg("row %d latent %zu: %.9g, expected %.9g", row, i, of_b.f[i], want);
        }
        for (size_t c = 0; c < a->d_out; c++) {
            double want = of_a.y[c] / how->scale_out + (how->mean_out ? how->mean_out[c] : 0);
            if (fabs(want - of_b.y[c]) > tolerance * y_size)
                fail_msg("row %d output %zu: %.9g, expected %.9g", row, c, of_b.y[c], want);
        }
    }
}

#endif
