/* SPDX-License-Identifier: MIT
 * Synthetic dictionaries and their counts. Includers have cmocka.h before. */
#ifndef SONDE_TESTS_SYNTH_FIXTURE_H
#define SONDE_TESTS_SYNTH_FIXTURE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "num/cpu.h"
#include "sae/synth.h"

static inline sonde_synth *make(const sonde_synth_options *o)
{
    sonde_synth *s = NULL;
    sonde_err err = {0};
    if (sonde_synth_new(o, sonde_kernels_best(), NULL, &s, &err))
        fail_msg("%s", err.msg);
    return s;
}

static inline sonde_synth_space *space_of(const sonde_synth *s)
{
    sonde_synth_space *p = NULL;
    sonde_err err;
    assert_int_equal(sonde_synth_space_new(s, NULL, &p, &err), SONDE_OK);
    return p;
}

static inline void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

/* |x - mean| within five standard errors (and a little for rounding). */
static inline void near(double x, double mean, double se, const char *what)
{
    if (!(fabs(x - mean) <= 5 * se + 1e-12))
        fail_msg("%s: %.9g, should be %.9g +- %.3g", what, x, mean, se);
}

/* Rows in which each latent is active. */
static inline uint64_t *count_active(const sonde_synth *s, uint64_t n_rows)
{
    uint64_t *count = zeroed(s->o.truth, sizeof *count);
    sonde_synth_space *p = space_of(s);
    for (uint64_t row = 0; row < n_rows; row++) {
        const uint32_t *latent;
        size_t n = sonde_synth_row(s, row, p, &latent, NULL, NULL);
        for (size_t i = 0; i < n; i++) {
            assert_true(latent[i] < s->o.truth && (i == 0 || latent[i] > latent[i - 1]));
            count[latent[i]]++;
        }
    }
    sonde_synth_space_free(p);
    return count;
}

static inline void check_frequencies(const sonde_synth *s, const uint64_t *count, uint64_t n_rows)
{
    for (size_t i = 0; i < s->o.truth; i++) {
        double p = s->probability[i];
        near((double)count[i] / (double)n_rows, p, sqrt(p * (1 - p) / (double)n_rows), "frequency");
    }
}

/* The set-up of "Taking features out of superposition", small: d 64, N 128, 3 active, U(0, 1). */
static const sonde_synth_options small = {.dim = 64, .truth = 128, .seed = 1, .active = 3};

#endif
