/* SPDX-License-Identifier: MIT
 * The statistics of synthetic activations within five standard errors, their rules without exception. Seeds
 * are fixed, so a test that passes passes always. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "synth_fixture.h"
#include "sae/synth_impl.h"

/* ---- frequencies ----------------------------------------------------------------------------- */

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

/* ---- magnitudes ------------------------------------------------------------------------------ */

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

/* ---- correlation ----------------------------------------------------------------------------- */

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
    const uint64_t n_rows = 400000;
    sonde_synth *s = make(&(sonde_synth_options){.dim = 2,
                                                 .truth = n,
                                                 .seed = 21,
                                                 .active = 4,
                                                 .law = SONDE_SYNTH_ZIPF,
                                                 .zipf = 0.4,
                                                 .rank = 3,
                                                 .correlation = 0.5});
    uint64_t both[24][24] = {{0}};
    double sum = 0, sum_sq = 0;
    sonde_synth_space *p = space_of(s);
    for (uint64_t row = 0; row < n_rows; row++) {
        const uint32_t *latent;
        size_t k = sonde_synth_row(s, row, p, &latent, NULL, NULL);
        sum += (double)k;
        sum_sq += (double)(k * k);
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j <= i; j++)
                both[latent[i]][latent[j]]++;
    }
    double most = 0, rows = (double)n_rows, mean = sum / rows;
    near(mean, 4, sqrt((sum_sq / rows - mean * mean) / rows), "mean number active");
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

/* ---- hierarchy ------------------------------------------------------------------------------- */

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

static void siblings_with_too_small_a_parent_share_it_evenly(void **state)
{
    (void)state;
    sonde_synth *s = make(&(sonde_synth_options){
        .dim = 2, .truth = 80, .seed = 34, .active = 16, .roots = 3, .branch = 4, .depth = 2});
    assert_int_equal(s->n_squeezed, 12 + 48);
    for (size_t i = 3; i < 63; i++)
        assert_true(fabs(s->probability[i] - (i < 15 ? 0.2 / 4 : 0.2 / 16)) < 1e-12);
    uint64_t *count = count_active(s, 40000);
    check_frequencies(s, count, 40000);
    free(count);
    sonde_synth_free(s);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
        cmocka_unit_test(siblings_with_too_small_a_parent_share_it_evenly),
        cmocka_unit_test(free_siblings_are_independent_given_their_parent),
        cmocka_unit_test(children_scale_with_their_parents_value),
        cmocka_unit_test(the_benchmark_set_up_has_its_published_sparsity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
