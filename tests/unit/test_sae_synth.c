/* SPDX-License-Identifier: MIT
 * The generator of synthetic activations: its statistics within five standard errors, its rules without
 * exception, its bits for any thread count. Seeds are fixed, so a test that passes passes always. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "num/cpu.h"
#include "sae/synth.h"
#include "sae/synth_impl.h"

static sonde_synth *make(const sonde_synth_options *o)
{
    sonde_synth *s = NULL;
    sonde_err err = {0};
    if (sonde_synth_new(o, sonde_kernels_best(), NULL, &s, &err))
        fail_msg("%s", err.msg);
    return s;
}

static sonde_synth_space *space_of(const sonde_synth *s)
{
    sonde_synth_space *p = NULL;
    sonde_err err;
    assert_int_equal(sonde_synth_space_new(s, NULL, &p, &err), SONDE_OK);
    return p;
}

static void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

/* |x - mean| within five standard errors (and a little for rounding). */
static void near(double x, double mean, double se, const char *what)
{
    if (!(fabs(x - mean) <= 5 * se + 1e-12))
        fail_msg("%s: %.9g, should be %.9g +- %.3g", what, x, mean, se);
}

/* Rows in which each latent is active. */
static uint64_t *count_active(const sonde_synth *s, uint64_t n_rows)
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

static void check_frequencies(const sonde_synth *s, const uint64_t *count, uint64_t n_rows)
{
    for (size_t i = 0; i < s->o.truth; i++) {
        double p = s->probability[i];
        near((double)count[i] / (double)n_rows, p, sqrt(p * (1 - p) / (double)n_rows), "frequency");
    }
}

/* The set-up of "Taking features out of superposition", small: d 64, N 128, 3 active, U(0, 1). */
static const sonde_synth_options small = {.dim = 64, .truth = 128, .seed = 1, .active = 3};

/* ---- functions
 * ------------------------------------------------------------------------------------------------- */

static void exp_and_log_agree_with_the_c_library(void **state)
{
    (void)state;
    for (double x = -700; x < 700; x += 0.37)
        assert_true(fabs(synth_exp(x) / exp(x) - 1) < 1e-15);
    for (double x = 1e-300; x < 1e300; x *= 1.7)
        assert_true(fabs(synth_log(x) - log(x)) <= 4e-16 * (1 + fabs(log(x))));
    assert_true(synth_exp(0) == 1 && synth_log(1) == 0 && synth_exp(-1e9) == 0);
}

static void normal_tails_agree_with_erfc_and_invert(void **state)
{
    (void)state;
    for (double x = -8; x < 30; x += 0.013)
        assert_true(fabsl(synth_normal_tail(x) / (0.5L * erfcl((long double)x / sqrtl(2))) - 1) <
                    1e-14L + 2e-16L * x * x);
    for (double p = 1e-12; p < 1; p *= 1.3)
        assert_true(fabs(synth_normal_tail(synth_normal_cut(p)) / p - 1) < 1e-11);
    assert_true(fabs(synth_normal_cut(0.025) - 1.959963984540054) < 1e-12);
}

/* ---- rows
 * ---------------------------------------------------------------------------------------------------------
 */

static void a_row_alone_equals_the_row_among_others_on_any_threads(void **state)
{
    (void)state;
    sonde_synth_options o = small;
    o.noise = 0.1;
    o.bias = 1;
    o.rank = 3;
    o.correlation = 0.2;
    o.roots = 5;
    o.branch = 3;
    o.depth = 2;
    sonde_synth *s = make(&o), *again = make(&o);
    assert_memory_equal(s->direction, again->direction, o.dim * o.truth * sizeof(float));
    const size_t n = 1000, first = 123456789;
    float *one = zeroed(n * o.dim, sizeof *one), *many = zeroed(n * o.dim, sizeof *many);
    sonde_synth_space *p = space_of(again);
    for (size_t i = n; i-- > 0;)
        (void)sonde_synth_row(again, first + i, p, NULL, NULL, one + i * o.dim);
    sonde_err err;
    for (int threads = 1; threads <= 3; threads++) {
        sonde_pool *pool;
        assert_int_equal(sonde_pool_new(threads, &pool, &err), SONDE_OK);
        const sonde_work work = {.pool = pool};
        memset(many, 0xff, n * o.dim * sizeof *many);
        assert_int_equal(sonde_synth_rows(s, first, n, &work, many, &err), SONDE_OK);
        assert_memory_equal(one, many, n * o.dim * sizeof *one);
        sonde_pool_free(pool);
    }
    free(one);
    free(many);
    sonde_synth_space_free(p);
    sonde_synth_free(s);
    sonde_synth_free(again);
}

static void a_row_is_the_sum_of_its_directions_and_the_bias(void **state)
{
    (void)state;
    sonde_synth_options o = small;
    o.bias = 2;
    sonde_synth *s = make(&o);
    sonde_synth_space *p = space_of(s);
    float x[64];
    double norm = 0;
    for (size_t k = 0; k < 64; k++)
        norm += (double)s->bias[k] * (double)s->bias[k];
    assert_true(fabs(sqrt(norm) - 2) < 1e-6);
    for (uint64_t row = 0; row < 100; row++) {
        const uint32_t *latent;
        const float *value;
        size_t n = sonde_synth_row(s, row, p, &latent, &value, x);
        for (size_t k = 0; k < 64; k++) {
            double want = (double)s->bias[k];
            for (size_t i = 0; i < n; i++)
                want += (double)value[i] * (double)s->direction[latent[i] * 64 + k];
            assert_true(fabs((double)x[k] - want) <= 1e-7 * (1 + fabs(want)));
        }
    }
    sonde_synth_space_free(p);
    sonde_synth_free(s);
}

static void seeds_change_directions_and_rows(void **state)
{
    (void)state;
    sonde_synth_options o = small;
    sonde_synth *a = make(&o);
    o.seed = 2;
    sonde_synth *b = make(&o);
    assert_memory_not_equal(a->direction, b->direction, 64 * sizeof(float));
    uint64_t *ca = count_active(a, 200), *cb = count_active(b, 200);
    assert_memory_not_equal(ca, cb, 128 * sizeof *ca);
    free(ca);
    free(cb);
    sonde_synth_free(a);
    sonde_synth_free(b);
}

/* ---- frequencies
 * ----------------------------------------------------------------------------------------------------- */

static void each_law_gives_its_frequencies(void **state)
{
    (void)state;
    const sonde_synth_options laws[] = {
        {.dim = 4, .truth = 128, .seed = 3, .active = 3},
        {.dim = 4, .truth = 128, .seed = 4, .active = 4, .law = SONDE_SYNTH_ZIPF, .zipf = 1},
        {.dim = 4, .truth = 128, .seed = 5, .active = 3, .law = SONDE_SYNTH_GEOMETRIC, .decay = 0.97},
        {.dim = 4, .truth = 128, .seed = 6, .active = 5, .law = SONDE_SYNTH_LINEAR},
        {.dim = 4,
         .truth = 100,
         .seed = 7,
         .law = SONDE_SYNTH_ZIPF,
         .zipf = 0.5,
         .p_first = 0.4,
         .p_last = 0.01},
        {.dim = 4, .truth = 100, .seed = 7, .p_first = 1, .p_last = 1},
    };
    const uint64_t n_rows = 40000;
    for (size_t c = 0; c < sizeof laws / sizeof *laws; c++) {
        sonde_synth *s = make(&laws[c]);
        uint64_t *count = count_active(s, n_rows);
        check_frequencies(s, count, n_rows);
        double sum = 0;
        for (size_t i = 0; i < s->o.truth; i++)
            sum += s->probability[i];
        assert_true(fabs(sum - s->mean_active) < 1e-9);
        if (laws[c].active > 0)
            assert_true(fabs(sum - laws[c].active) < 1e-9);
        free(count);
        sonde_synth_free(s);
    }
}

static void probabilities_follow_their_formulas(void **state)
{
    (void)state;
    sonde_synth *z = make(
        &(sonde_synth_options){.dim = 2, .truth = 1000, .active = 5, .law = SONDE_SYNTH_ZIPF, .zipf = 0.7});
    for (size_t i = 0; i < 1000; i++)
        assert_true(fabs(z->probability[i] / z->probability[0] * pow((double)(i + 1), 0.7) - 1) < 1e-13);
    sonde_synth *g = make(&(sonde_synth_options){
        .dim = 2, .truth = 300, .active = 1, .law = SONDE_SYNTH_GEOMETRIC, .decay = 0.99});
    for (size_t i = 1; i < 300; i++)
        assert_true(fabs(g->probability[i] / g->probability[i - 1] - 0.99) < 1e-13);
    sonde_synth *b = make(&(sonde_synth_options){
        .dim = 2, .truth = 50, .law = SONDE_SYNTH_LINEAR, .p_first = 0.5, .p_last = 0.01});
    for (size_t i = 0; i < 50; i++)
        assert_true(fabs(b->probability[i] - (0.5 - 0.49 * (double)i / 49)) < 1e-14);
    sonde_synth_free(z);
    sonde_synth_free(g);
    sonde_synth_free(b);
}

/* Least squares of log frequency on log rank over 32 latents with np > 500: the slope's standard error
 * follows from var(log count) = (1 - p) / (n p). */
static void the_slope_of_zipfs_law_is_its_exponent(void **state)
{
    (void)state;
    for (double exponent = 0.5; exponent < 1.3; exponent += 0.35) {
        sonde_synth *s = make(&(sonde_synth_options){
            .dim = 2, .truth = 32, .seed = 9, .active = 2, .law = SONDE_SYNTH_ZIPF, .zipf = exponent});
        const uint64_t n_rows = 50000;
        uint64_t *count = count_active(s, n_rows);
        double sx = 0, sxx = 0, sxy = 0, var = 0;
        for (size_t i = 0; i < 32; i++)
            sx += log((double)(i + 1)) / 32;
        for (size_t i = 0; i < 32; i++) {
            double x = log((double)(i + 1)) - sx, p = s->probability[i];
            sxx += x * x;
            sxy += x * log((double)count[i]);
            var += x * x * (1 - p) / ((double)n_rows * p);
        }
        near(sxy / sxx, -exponent, sqrt(var) / sxx, "slope");
        free(count);
        sonde_synth_free(s);
    }
}

static void the_number_active_in_a_row_has_the_variance_of_independence(void **state)
{
    (void)state;
    sonde_synth *s = make(&small);
    sonde_synth_space *p = space_of(s);
    const double n_rows = 50000, q = 3.0 / 128, want = 128 * q * (1 - q);
    double sum = 0, sum_sq = 0;
    for (uint64_t row = 0; row < (uint64_t)n_rows; row++) {
        double n = (double)sonde_synth_row(s, row, p, NULL, NULL, NULL);
        sum += n;
        sum_sq += n * n;
    }
    double mean = sum / n_rows;
    near(mean, 3, sqrt(want / n_rows), "mean");
    near(sum_sq / n_rows - mean * mean, want, want * sqrt(2.4 / n_rows),
         "variance"); /* kurtosis 3 + 1/np < 3.4 */
    sonde_synth_space_free(p);
    sonde_synth_free(s);
}

/* ---- magnitudes
 * ---------------------------------------------------------------------------------------------------------
 */

static void magnitudes_have_their_moments(void **state)
{
    (void)state;
    /* E v and E v^2 with scale 1, and bounds of var(v), var(v^2) */
    static const double moment[][4] = {{0.5, 1.0 / 3, 1.0 / 12, 0.09},
                                       {0.7978845608028654, 1, 0.37, 2},
                                       {1, 2, 1, 20},
                                       {1, 1, 0, 0},
                                       {1, 1.04, 0.04, 0.18}};
    for (int m = 0; m < SONDE_SYNTH_N_MAGNITUDES; m++) {
        sonde_synth *s = make(&(sonde_synth_options){.dim = 2,
                                                     .truth = 20,
                                                     .seed = 11,
                                                     .active = 10,
                                                     .magnitude = (enum sonde_synth_magnitude)m,
                                                     .scale_first = 2,
                                                     .scale_last = 6,
                                                     .spread = 0.8});
        sonde_synth_space *p = space_of(s);
        double sum = 0, sum_sq = 0, n_all = 0;
        for (uint64_t row = 0; row < 20000; row++) {
            const uint32_t *latent;
            const float *value;
            size_t n = sonde_synth_row(s, row, p, &latent, &value, NULL);
            for (size_t i = 0; i < n; i++) {
                double scale = 2 + 4 * (double)latent[i] / 19, v = (double)value[i] / scale;
                assert_true(v > 0 && (m != SONDE_SYNTH_U01 || v <= 1.0000001));
                if (m == SONDE_SYNTH_NORMAL) /* 0.8 N(0, 1) about the scale: to 1 + 0.2 N(0, 1) */
                    v = 1 + ((double)value[i] - scale) / 4;
                sum += v;
                sum_sq += v * v;
                n_all++;
            }
        }
        /* normal: |spread| is 0.8 and P(value <= 0) <= P(N > 2.5) = 0.006 for the first latent, so a little
         * is cut */
        double cut = m == SONDE_SYNTH_NORMAL ? 2e-3 : 1e-6;
        if (fabs(sum / n_all - moment[m][0]) > 5 * sqrt(moment[m][2] / n_all) + cut ||
            fabs(sum_sq / n_all - moment[m][1]) > 5 * sqrt(moment[m][3] / n_all) + cut)
            fail_msg("%s: moments %.6g, %.6g", sonde_synth_magnitude_name((enum sonde_synth_magnitude)m),
                     sum / n_all, sum_sq / n_all);
        sonde_synth_space_free(p);
        sonde_synth_free(s);
    }
}

static void spreads_differ_by_latent_and_are_folded(void **state)
{
    (void)state;
    sonde_synth *s = make(&(sonde_synth_options){.dim = 2,
                                                 .truth = 20000,
                                                 .active = 1,
                                                 .magnitude = SONDE_SYNTH_NORMAL,
                                                 .spread = 0.5,
                                                 .spread_std = 0.5});
    double sum = 0, sum_sq = 0;
    for (size_t i = 0; i < 20000; i++) {
        assert_true(s->spread[i] >= 0);
        sum += s->spread[i];
        sum_sq += s->spread[i] * s->spread[i];
    }
    /* |N(mu, sd^2)|: mean sd sqrt(2/pi) exp(-mu^2/2sd^2) + mu (1 - 2 Phi(-mu/sd)), second moment mu^2 + sd^2
     */
    double mean = 0.5 * 0.7978845608 * exp(-0.5) + 0.5 * erf(1 / sqrt(2));
    near(sum / 20000, mean, sqrt((0.5 - mean * mean) / 20000), "mean spread");
    near(sum_sq / 20000, 0.5, sqrt(0.75 / 20000), "mean squared spread");
    sonde_synth_free(s);
}

/* ---- correlation
 * ------------------------------------------------------------------------------------------------------------
 */

/* P(X > a, Y > b) of a standard normal pair: P P + integral over r from 0 to rho of its density (Plackett
 * 1954), by Simpson's rule. */
static double both_above(double a, double b, double rho)
{
    double sum = 0;
    const int steps = 200;
    for (int k = 0; k <= steps; k++) {
        double r = rho * k / steps, q = 1 - r * r;
        double f = exp(-(a * a - 2 * r * a * b + b * b) / (2 * q)) / (2 * 3.14159265358979323846 * sqrt(q));
        sum += f * (k == 0 || k == steps ? 1 : k % 2 ? 4 : 2);
    }
    return synth_normal_tail(a) * synth_normal_tail(b) + sum * rho / (3 * steps);
}

static void joint_frequencies_are_those_of_the_gaussian_copula(void **state)
{
    (void)state;
    const size_t n = 24;
    const uint64_t n_rows = 100000;
    sonde_synth *s = make(&(sonde_synth_options){.dim = 2,
                                                 .truth = n,
                                                 .seed = 21,
                                                 .active = 4,
                                                 .law = SONDE_SYNTH_ZIPF,
                                                 .zipf = 0.4,
                                                 .rank = 3,
                                                 .correlation = 0.5});
    uint64_t both[24][24] = {{0}};
    sonde_synth_space *p = space_of(s);
    for (uint64_t row = 0; row < n_rows; row++) {
        const uint32_t *latent;
        size_t k = sonde_synth_row(s, row, p, &latent, NULL, NULL);
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j <= i; j++)
                both[latent[i]][latent[j]]++;
    }
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double pi = s->probability[i];
        near((double)both[i][i] / (double)n_rows, pi, sqrt(pi * (1 - pi) / (double)n_rows), "margin");
        for (size_t j = 0; j < i; j++) {
            double rho = 0;
            for (size_t r = 0; r < 3; r++)
                rho += (double)s->factor[r * n + i] * (double)s->factor[r * n + j];
            most = fmax(most, fabs(rho));
            double want = both_above(synth_normal_cut(pi), synth_normal_cut(s->probability[j]), rho);
            near((double)both[i][j] / (double)n_rows, want, sqrt(want * (1 - want) / (double)n_rows) + 1e-6,
                 "pair");
        }
    }
    assert_true(most > 0.5);
    sonde_synth_space_free(p);
    sonde_synth_free(s);
}

static void strong_factors_leave_some_noise_of_ones_own(void **state)
{
    (void)state;
    sonde_synth *s = make(
        &(sonde_synth_options){.dim = 2, .truth = 50, .seed = 3, .active = 5, .rank = 4, .correlation = 100});
    for (size_t i = 0; i < 50; i++) {
        double sum = 0;
        for (size_t r = 0; r < 4; r++)
            sum += (double)s->factor[r * 50 + i] * (double)s->factor[r * 50 + i];
        assert_true(fabs(sum - 0.99) < 1e-5);
    }
    uint64_t *count = count_active(s, 20000);
    check_frequencies(s, count, 20000);
    free(count);
    sonde_synth_free(s);
}

/* ---- hierarchy
 * -----------------------------------------------------------------------------------------------------------------
 */

static void children_need_their_parent_and_exclude_each_other(void **state)
{
    (void)state;
    for (int correlated = 0; correlated < 2; correlated++) {
        sonde_synth *s = make(&(sonde_synth_options){.dim = 2,
                                                     .truth = 200,
                                                     .seed = 31,
                                                     .active = 8,
                                                     .law = SONDE_SYNTH_ZIPF,
                                                     .zipf = 0.8,
                                                     .roots = 7,
                                                     .branch = 3,
                                                     .depth = 2,
                                                     .rank = correlated ? 5 : 0,
                                                     .correlation = 0.2});
        for (size_t i = 0; i < 200; i++) /* 7 roots, 21 children, 63 theirs, the rest stands free */
            assert_int_equal(s->parent[i], i < 7 || i >= 91 ? -1
                                           : i < 28         ? (int)(i - 7) / 3
                                                            : 7 + (int)(i - 28) / 3);
        sonde_synth_space *p = space_of(s);
        size_t n_children = 0;
        for (uint64_t row = 0; row < 20000; row++) {
            const uint32_t *latent;
            size_t n = sonde_synth_row(s, row, p, &latent, NULL, NULL);
            for (size_t i = 0; i < n; i++) {
                int32_t parent = s->parent[latent[i]];
                bool found = false;
                n_children += parent >= 0;
                for (size_t j = 0; j < i; j++) {
                    found |= (int32_t)latent[j] == parent;
                    assert_false(parent >= 0 && s->parent[latent[j]] == parent);
                }
                assert_true(parent < 0 || found);
            }
        }
        assert_true(n_children > 10000);
        sonde_synth_space_free(p);
        sonde_synth_free(s);
    }
}

static void children_are_as_frequent_as_asked_where_their_parent_allows(void **state)
{
    (void)state;
    for (int siblings_free = 0; siblings_free < 2; siblings_free++) {
        sonde_synth_options o = {.dim = 2,
                                 .truth = 100,
                                 .seed = 33,
                                 .active = 6,
                                 .law = SONDE_SYNTH_ZIPF,
                                 .zipf = 0.9,
                                 .roots = 4,
                                 .branch = 2,
                                 .depth = 3,
                                 .siblings_free = siblings_free};
        sonde_synth *s = make(&o);
        o.roots = 0;
        sonde_synth *flat = make(&o);
        uint64_t *count = count_active(s, 40000);
        check_frequencies(s, count, 40000);
        size_t n_less = 0;
        for (size_t i = 0; i < 100; i++) {
            double asked = flat->probability[i];
            n_less += s->probability[i] < asked * (1 - 1e-9);
            assert_true(s->probability[i] <= asked * (1 + 1e-12));
        }
        assert_int_equal(n_less, s->n_squeezed);
        assert_true(siblings_free ? n_less == 0 : n_less > 0);
        for (size_t i = 0; i < 12; i++)
            assert_true(fabs(s->probability[i] - flat->probability[i]) < 1e-12);
        free(count);
        sonde_synth_free(s);
        sonde_synth_free(flat);
    }
}

static void free_siblings_are_independent_given_their_parent(void **state)
{
    (void)state;
    sonde_synth *s = make(&(sonde_synth_options){.dim = 2,
                                                 .truth = 3,
                                                 .seed = 35,
                                                 .active = 1.1,
                                                 .law = SONDE_SYNTH_ZIPF,
                                                 .zipf = 1,
                                                 .roots = 1,
                                                 .branch = 2,
                                                 .depth = 1,
                                                 .siblings_free = true});
    sonde_synth_space *p = space_of(s);
    double all = 0, n_rows = 50000;
    for (uint64_t row = 0; row < (uint64_t)n_rows; row++)
        all += sonde_synth_row(s, row, p, NULL, NULL, NULL) == 3;
    double want = s->probability[1] * s->probability[2] / s->probability[0];
    near(all / n_rows, want, sqrt(want * (1 - want) / n_rows), "both children");
    sonde_synth_space_free(p);
    sonde_synth_free(s);
}

static void children_scale_with_their_parents_value(void **state)
{
    (void)state;
    sonde_synth_options o = {.dim = 2,
                             .truth = 7,
                             .seed = 37,
                             .active = 3,
                             .magnitude = SONDE_SYNTH_U01,
                             .scale_first = 3,
                             .scale_last = 3,
                             .roots = 1,
                             .branch = 2,
                             .depth = 2};
    sonde_synth *plain = make(&o);
    o.scale_children = true;
    sonde_synth *s = make(&o);
    sonde_synth_space *p = space_of(s), *q = space_of(plain);
    for (uint64_t row = 0; row < 2000; row++) {
        const float *v, *w;
        const uint32_t *latent, *same;
        size_t n = sonde_synth_row(s, row, p, &latent, &v, NULL);
        assert_int_equal(sonde_synth_row(plain, row, q, &same, &w, NULL), n);
        assert_memory_equal(latent, same, n * sizeof *latent);
        for (size_t i = 0; i < n; i++) /* at most one child each: the list is a path */
            assert_true(fabs((double)v[i] - (double)w[i] * (i ? (double)v[i - 1] / 1.5 : 1)) < 1e-5);
    }
    sonde_synth_space_free(p);
    sonde_synth_space_free(q);
    sonde_synth_free(plain);
    sonde_synth_free(s);
}

/* The generator of SynthSAEBench-16k, without its 768 dimensions: SAELens 6.54 gives 34.4 to 34.9 active
 * latents (2000 rows); correlated siblings cost ours a little more. */
static void the_benchmark_set_up_has_its_published_sparsity(void **state)
{
    (void)state;
    sonde_synth *s = make(&(sonde_synth_options){.dim = 2,
                                                 .truth = 16384,
                                                 .seed = 42,
                                                 .law = SONDE_SYNTH_ZIPF,
                                                 .zipf = 0.5,
                                                 .p_first = 0.4,
                                                 .p_last = 5e-4,
                                                 .magnitude = SONDE_SYNTH_NORMAL,
                                                 .scale_first = 5,
                                                 .scale_last = 4,
                                                 .spread = 0.5,
                                                 .spread_std = 0.5,
                                                 .rank = 25,
                                                 .correlation = 0.1,
                                                 .roots = 128,
                                                 .branch = 4,
                                                 .depth = 3,
                                                 .scale_children = true,
                                                 .bias = 0.5});
    sonde_synth_space *p = space_of(s);
    double sum = 0;
    for (uint64_t row = 0; row < 2000; row++)
        sum += (double)sonde_synth_row(s, row, p, NULL, NULL, NULL);
    assert_true(sum / 2000 > 33 && sum / 2000 < 35.5);
    sonde_synth_space_free(p);
    sonde_synth_free(s);
}

/* ---- noise
 * ------------------------------------------------------------------------------------------------------------------------
 */

static void noise_has_its_variance_and_touches_nothing_else(void **state)
{
    (void)state;
    sonde_synth_options o = small;
    sonde_synth *clean = make(&o);
    o.noise = 0.25;
    sonde_synth *s = make(&o);
    assert_memory_equal(clean->direction, s->direction, 64 * 128 * sizeof(float));
    const size_t rows = 4000;
    float *x = zeroed(rows * 64, sizeof *x), *y = zeroed(rows * 64, sizeof *y);
    sonde_err err;
    assert_int_equal(sonde_synth_rows(clean, 0, rows, NULL, x, &err), SONDE_OK);
    assert_int_equal(sonde_synth_rows(s, 0, rows, NULL, y, &err), SONDE_OK);
    double sum = 0, sum_sq = 0, neighbours = 0, below = 0, n = (double)rows * 64;
    for (size_t i = 0; i < rows * 64; i++) {
        double e = ((double)y[i] - (double)x[i]) / 0.25,
               before = i ? ((double)y[i - 1] - (double)x[i - 1]) / 0.25 : 0;
        sum += e;
        sum_sq += e * e;
        neighbours += e * before;
        below += e < -1;
    }
    near(sum / n, 0, sqrt(1 / n), "mean of the noise");
    near(sum_sq / n, 1, sqrt(2 / n), "variance of the noise");
    near(neighbours / n, 0, sqrt(1 / n), "covariance of neighbours");
    near(below / n, 0.15865525393145707, sqrt(0.1335 / n), "share below -1");
    free(x);
    free(y);
    sonde_synth_free(clean);
    sonde_synth_free(s);
}

/* ---- directions
 * ----------------------------------------------------------------------------------------------------------------------
 */

/* sum over i != j of cos^2, and the largest |norm - 1| */
static double overlap(const sonde_synth *s, double *off)
{
    size_t n = s->o.truth, d = s->o.dim;
    double sum = 0;
    *off = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            double dot = 0;
            for (size_t k = 0; k < d; k++)
                dot += (double)s->direction[i * d + k] * (double)s->direction[j * d + k];
            if (i == j)
                *off = fmax(*off, fabs(dot - 1));
            else
                sum += 2 * dot * dot;
        }
    return sum;
}

static void directions_are_unit_vectors_and_as_random_as_gaussian_ones(void **state)
{
    (void)state;
    sonde_synth *s = make(&small);
    double off, sum = overlap(s, &off), pairs = 128 * 127;
    assert_true(off < 1e-6);
    near(sum / pairs, 1.0 / 64, 1.0 / 64 * sqrt(2 * 2 / pairs), "mean squared cosine");
    sonde_synth_free(s);
}

/* Any N unit vectors have sum of cos^2 >= N^2 / d - N (Welch 1974). */
static void pushing_apart_reaches_the_bound(void **state)
{
    (void)state;
    double before = INFINITY, off, bound = 128.0 * 128 / 64 - 128;
    for (size_t steps = 0; steps <= 100; steps += 50) {
        sonde_synth_options o = small;
        o.orthogonal_steps = steps;
        sonde_synth *s = make(&o);
        double sum = overlap(s, &off);
        assert_true(off < 1e-6 && sum < before && sum > bound - 1e-3);
        before = sum;
        sonde_synth_free(s);
    }
    assert_true(before < 1.02 * bound);
}

static void few_directions_become_exactly_orthogonal(void **state)
{
    (void)state;
    sonde_synth *s =
        make(&(sonde_synth_options){.dim = 40, .truth = 40, .seed = 2, .active = 2, .orthogonal_steps = 1});
    double off, sum = overlap(s, &off);
    assert_true(off < 1e-6 && sum < 1e-9);
    sonde_synth_free(s);
}

/* One step by hand: the first step of Adam is the rate times the sign of the gradient. */
static void the_first_step_goes_down_the_gradient(void **state)
{
    (void)state;
    sonde_synth_options o = {.dim = 3, .truth = 5, .seed = 8, .active = 1};
    sonde_synth *a = make(&o);
    o.orthogonal_steps = 1;
    o.orthogonal_lr = 1e-3;
    sonde_synth *b = make(&o);
    for (size_t i = 0; i < 5; i++) {
        double g[3] = {0}, moved[3], norm = 0;
        const float *w = a->direction + i * 3;
        for (size_t j = 0; j < 5; j++) {
            const float *u = a->direction + j * 3;
            double dot =
                (double)w[0] * (double)u[0] + (double)w[1] * (double)u[1] + (double)w[2] * (double)u[2];
            for (size_t k = 0; k < 3 && j != i; k++)
                g[k] += 4 * dot * (double)u[k];
        }
        for (size_t k = 0; k < 3; k++) {
            moved[k] = (double)w[k] - 1e-3 * (g[k] > 0 ? 1 : -1);
            norm += moved[k] * moved[k];
        }
        for (size_t k = 0; k < 3; k++)
            assert_true(fabs(moved[k] / sqrt(norm) - (double)b->direction[i * 3 + k]) < 1e-6);
    }
    sonde_synth_free(a);
    sonde_synth_free(b);
}

/* ---- refusals
 * -------------------------------------------------------------------------------------------------------------------------
 */

static void options_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    const struct {
        sonde_synth_options o;
        const char *words;
    } bad[] = {
        {{.dim = 0, .truth = 4, .active = 1}, "both must be at least 1"},
        {{.dim = 4, .truth = 0, .active = 1}, "both must be at least 1"},
        {{.dim = 4, .truth = 4, .active = 5}, "active latents is 5, it must be"},
        {{.dim = 4, .truth = 4, .active = -1}, "active latents is -1"},
        {{.dim = 4, .truth = 4, .active = NAN}, "active latents is nan"},
        {{.dim = 4, .truth = 100, .active = 50, .law = SONDE_SYNTH_ZIPF, .zipf = 1},
         "need a first probability of 9.6"},
        {{.dim = 4, .truth = 4, .p_first = 1.5}, "the first probability is 1.5"},
        {{.dim = 4, .truth = 4, .active = 1, .roots = 2, .branch = 2, .depth = 1}, "more than the 4 latents"},
        {{.dim = 4, .truth = 4, .active = 1, .roots = 1, .branch = SIZE_MAX, .depth = 9},
         "more than the 4 latents"},
        {{.dim = 4, .truth = 4, .active = 1, .roots = 1}, "at least 1, it has 0 and 0"},
        {{.dim = 4, .truth = 4, .active = 1, .noise = -1}, "the noise is -1"},
        {{.dim = 4, .truth = 4, .active = 1, .rank = 5000, .correlation = 1}, "5000"},
        {{.dim = 4, .truth = 4, .active = 1, .correlation = INFINITY, .rank = 1},
         "scale of correlations is inf"},
        {{.dim = SIZE_MAX / 2, .truth = 100, .active = 1}, "fit no memory"},
    };
    for (size_t c = 0; c < sizeof bad / sizeof *bad; c++) {
        sonde_synth *s = NULL;
        sonde_err err = {0};
        enum sonde_code code = sonde_synth_new(&bad[c].o, sonde_kernels_best(), NULL, &s, &err);
        if (code != SONDE_E_USAGE || !strstr(err.msg, bad[c].words))
            fail_msg("case %zu: code %d, '%s'", c, (int)code, err.msg);
    }
}

static void memory_beyond_the_limit_is_refused(void **state)
{
    (void)state;
    sonde_synth_options o = small;
    o.orthogonal_steps = 3;
    for (size_t limit = 1; limit < 4000000; limit = limit * 3 + 1) {
        sonde_budget budget = {.limit = limit};
        const sonde_work work = {.budget = &budget};
        sonde_synth *s = NULL;
        sonde_err err;
        enum sonde_code code = sonde_synth_new(&o, sonde_kernels_best(), &work, &s, &err);
        assert_true(code == SONDE_OK || code == SONDE_E_MEMORY);
        if (!code)
            sonde_synth_free(s);
        assert_int_equal(budget.taken, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_and_log_agree_with_the_c_library),
        cmocka_unit_test(normal_tails_agree_with_erfc_and_invert),
        cmocka_unit_test(a_row_alone_equals_the_row_among_others_on_any_threads),
        cmocka_unit_test(a_row_is_the_sum_of_its_directions_and_the_bias),
        cmocka_unit_test(seeds_change_directions_and_rows),
        cmocka_unit_test(each_law_gives_its_frequencies),
        cmocka_unit_test(probabilities_follow_their_formulas),
        cmocka_unit_test(the_slope_of_zipfs_law_is_its_exponent),
        cmocka_unit_test(the_number_active_in_a_row_has_the_variance_of_independence),
        cmocka_unit_test(magnitudes_have_their_moments),
        cmocka_unit_test(spreads_differ_by_latent_and_are_folded),
        cmocka_unit_test(joint_frequencies_are_those_of_the_gaussian_copula),
        cmocka_unit_test(strong_factors_leave_some_noise_of_ones_own),
        cmocka_unit_test(children_need_their_parent_and_exclude_each_other),
        cmocka_unit_test(children_are_as_frequent_as_asked_where_their_parent_allows),
        cmocka_unit_test(free_siblings_are_independent_given_their_parent),
        cmocka_unit_test(children_scale_with_their_parents_value),
        cmocka_unit_test(the_benchmark_set_up_has_its_published_sparsity),
        cmocka_unit_test(noise_has_its_variance_and_touches_nothing_else),
        cmocka_unit_test(directions_are_unit_vectors_and_as_random_as_gaussian_ones),
        cmocka_unit_test(pushing_apart_reaches_the_bound),
        cmocka_unit_test(few_directions_become_exactly_orthogonal),
        cmocka_unit_test(the_first_step_goes_down_the_gradient),
        cmocka_unit_test(options_that_make_no_sense_are_refused),
        cmocka_unit_test(memory_beyond_the_limit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
