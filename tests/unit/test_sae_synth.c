/* SPDX-License-Identifier: MIT
 * The generator of synthetic activations: its functions, its bits for any thread count, its directions and
 * noise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "synth_fixture.h"
#include "sae/synth_impl.h"

/* ---- functions ------------------------------------------------------------------------------- */

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

/* ---- rows ------------------------------------------------------------------------------------ */

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

/* ---- noise ----------------------------------------------------------------------------------- */

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

/* ---- directions ------------------------------------------------------------------------------ */

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
    sonde_synth_options o = {.dim = 8, .truth = 20, .seed = 8, .active = 1};
    sonde_synth *a = make(&o);
    o.orthogonal_steps = 1;
    o.orthogonal_lr = 1e-3;
    sonde_synth *b = make(&o);
    for (size_t i = 0; i < 20; i++) {
        double g[8] = {0}, moved[8], norm = 0;
        const float *w = a->direction + i * 8;
        for (size_t j = 0; j < 20; j++) {
            const float *u = a->direction + j * 8;
            double dot = 0;
            for (size_t k = 0; k < 8; k++)
                dot += (double)w[k] * (double)u[k];
            for (size_t k = 0; k < 8 && j != i; k++)
                g[k] += 4 * dot * (double)u[k];
        }
        for (size_t k = 0; k < 8; k++) {
            moved[k] = (double)w[k] - 1e-3 * (g[k] > 0 ? 1 : -1);
            norm += moved[k] * moved[k];
        }
        for (size_t k = 0; k < 8; k++)
            assert_true(fabs(moved[k] / sqrt(norm) - (double)b->direction[i * 8 + k]) < 1e-6);
    }
    sonde_synth_free(a);
    sonde_synth_free(b);
}

/* ---- refusals -------------------------------------------------------------------------------- */

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
