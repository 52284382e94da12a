/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../golden/sae_metrics_values.h"
#include "sae/metrics.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* float64 sums of 24000 terms in two orders */
#define CLOSE 1e-11

static bool near(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * fmax(1.0, fabs(b));
}

/* ---- numbers ----------------------------------------------------------------------------------- */

/* The generator of make_sae_metrics.py. */
static uint32_t draw(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return *s >> 16;
}

struct data {
    float *y, *h;
    sonde_sparse f;
};

static struct data golden_data(void)
{
    struct data a = {malloc(sizeof(float) * GOLDEN_N * GOLDEN_D),
                     malloc(sizeof(float) * GOLDEN_N * GOLDEN_D),
                     {.n_rows = GOLDEN_N}};
    a.f.start = calloc(GOLDEN_N + 1, sizeof *a.f.start);
    a.f.col = malloc(sizeof *a.f.col * GOLDEN_N * GOLDEN_F);
    a.f.value = malloc(sizeof *a.f.value * GOLDEN_N * GOLDEN_F);
    uint32_t s = 7;
    size_t n = 0;
    for (size_t r = 0; r < GOLDEN_N; r++) {
        for (size_t c = 0; c < GOLDEN_D; c++) {
            float *y = a.y + r * GOLDEN_D + c;
            *y = (float)(((double)draw(&s) - 32768) / 8192.0 + (double)c / 16.0);
            a.h[r * GOLDEN_D + c] = (float)((double)*y * 0.75 + ((double)draw(&s) - 32768) / 65536.0 + 0.25);
        }
        for (uint32_t i = 0; i < GOLDEN_F; i++) {
            uint32_t fires = draw(&s), v = draw(&s);
            if (i == 7 || fires % 2048 >= i * i)
                continue;
            a.f.col[n] = i;
            a.f.value[n++] = (float)((v + 1) / 4096.0);
        }
        a.f.start[r + 1] = n;
    }
    memset(a.y + 17 * GOLDEN_D, 0, sizeof(float) * GOLDEN_D);
    memset(a.h + 17 * GOLDEN_D, 0, sizeof(float) * GOLDEN_D);
    return a;
}

static void data_free(struct data *a)
{
    free(a->y), free(a->h), free(a->f.start), free(a->f.col), free(a->f.value);
}

/* Both passes over n rows in pieces of `piece`. */
static sonde_metrics *measure(const float *y, const float *h, size_t n, size_t d, const sonde_sparse *f,
                              size_t n_latents, size_t piece, sonde_pool *pool)
{
    sonde_err err = {0};
    sonde_tally *t;
    sonde_metrics *m = NULL;
    assert_int_equal(sonde_tally_new(n_latents, d, NULL, &t, &err), SONDE_OK);
    for (size_t r = 0; r < n; r += piece) {
        size_t k = n - r < piece ? n - r : piece;
        assert_int_equal(sonde_tally_mean(t, y + r * d, d, k, pool, &err), SONDE_OK);
    }
    for (size_t r = 0; r < n; r += piece) {
        size_t k = n - r < piece ? n - r : piece;
        sonde_sparse part = {0};
        if (f) {
            part.n_rows = k;
            part.start = f->start + r;
            part.col = f->col;
            part.value = f->value;
        }
        assert_int_equal(sonde_tally_add(t, y + r * d, d, h + r * d, d, k, f ? &part : NULL, pool, &err),
                         SONDE_OK);
    }
    assert_int_equal(sonde_tally_end(t, NULL, &m, &err), SONDE_OK);
    sonde_tally_free(t);
    return m;
}

static double named(const sonde_metrics *m, const char *name)
{
    const struct {
        const char *name;
        double value;
    } table[] = {
        {"l0", m->l0},
        {"l1", m->l1},
        {"mse", m->mse},
        {"mse_per_element", m->mse_per_element},
        {"explained_variance", m->explained_variance},
        {"explained_variance_legacy", m->explained_variance_legacy},
        {"frac_variance_explained", m->frac_variance_explained},
        {"fvu", m->fvu},
        {"cossim", m->cossim},
        {"l2_norm_in", m->l2_norm_in},
        {"l2_norm_out", m->l2_norm_out},
        {"l2_ratio", m->l2_ratio},
        {"relative_reconstruction_bias", m->relative_reconstruction_bias},
        {"frac_alive", m->frac_alive},
        {"freq_over_1_percent", m->freq_over_1_percent},
        {"freq_over_10_percent", m->freq_over_10_percent},
        {"normalized_freq_over_1_percent", m->normalized_freq_over_1_percent},
        {"normalized_freq_over_10_percent", m->normalized_freq_over_10_percent},
    };
    for (size_t i = 0; i < COUNT(table); i++)
        if (!strcmp(table[i].name, name))
            return table[i].value;
    fail_msg("no metric %s", name);
    return 0;
}

/* ---- against numpy ----------------------------------------------------------------------------- */

static void all_numbers_are_those_of_numpy_in_float64(void **state)
{
    (void)state;
    struct data a = golden_data();
    sonde_metrics *m = measure(a.y, a.h, GOLDEN_N, GOLDEN_D, &a.f, GOLDEN_F, 300, NULL);
    assert_int_equal(m->n_rows, GOLDEN_N);
    for (size_t i = 0; i < COUNT(golden); i++)
        if (!near(named(m, golden[i].name), golden[i].value, CLOSE))
            fail_msg("%s is %.17g, numpy says %.17g", golden[i].name, named(m, golden[i].name),
                     golden[i].value);
    for (size_t i = 0; i < GOLDEN_F; i++) {
        assert_int_equal(m->fired[i], golden_fired[i]);
        assert_true(near(m->frequency[i], (double)golden_fired[i] / GOLDEN_N, 0));
        assert_true(near(m->mean[i], golden_mean[i], CLOSE));
        assert_true(near(m->mean_nonzero[i], golden_mean_nonzero[i], CLOSE));
        assert_true((double)m->max[i] == golden_max[i]);
    }
    for (size_t i = 0; i < SONDE_DENSITY_BINS; i++)
        assert_int_equal(m->density[i], golden_density[i]);
    assert_int_equal(m->dead_features, 3);
    assert_int_equal(m->below_1e_5, 3);
    assert_int_equal(m->below_1e_6, 3);
    sonde_metrics_free(m);
    data_free(&a);
}

static bool same_numbers(const sonde_metrics *a, const sonde_metrics *b)
{
    for (size_t i = 0; i < COUNT(golden); i++) {
        double x = named(a, golden[i].name), y = named(b, golden[i].name);
        if (memcmp(&x, &y, sizeof x) != 0)
            return false;
    }
    return memcmp(a->mean, b->mean, GOLDEN_F * sizeof *a->mean) == 0 &&
           memcmp(a->mean_y, b->mean_y, GOLDEN_D * sizeof *a->mean_y) == 0;
}

static void pieces_and_threads_change_no_bit(void **state)
{
    (void)state;
    struct data a = golden_data();
    sonde_metrics *want = measure(a.y, a.h, GOLDEN_N, GOLDEN_D, &a.f, GOLDEN_F, GOLDEN_N, NULL);
    static const size_t piece[] = {1, 7, 64, 65, 999};
    for (int threads = 1; threads <= 3; threads++) {
        sonde_pool *pool;
        sonde_err err = {0};
        assert_int_equal(sonde_pool_new(threads, &pool, &err), SONDE_OK);
        for (size_t i = 0; i < COUNT(piece); i++) {
            sonde_metrics *m = measure(a.y, a.h, GOLDEN_N, GOLDEN_D, &a.f, GOLDEN_F, piece[i], pool);
            assert_true(same_numbers(m, want));
            sonde_metrics_free(m);
        }
        sonde_pool_free(pool);
    }
    sonde_metrics_free(want);
    data_free(&a);
}

/* ---- by hand ----------------------------------------------------------------------------------- */

/* y: (0,0) (2,0) (0,2) (2,2), ybar (1,1), every ||y - ybar||^2 = 2. h - y: (1,0) in all rows. */
static void a_constant_error_is_forgiven_by_c_alone(void **state)
{
    (void)state;
    static const float y[8] = {0, 0, 2, 0, 0, 2, 2, 2}, h[8] = {1, 0, 3, 0, 1, 2, 3, 2};
    sonde_metrics *m = measure(y, h, 4, 2, NULL, 0, 4, NULL);
    assert_true(m->mse == 1.0 && m->mse_per_element == 0.5);
    assert_true(m->variance == 2.0);
    assert_true(m->explained_variance == 0.5 && m->fvu == 0.5);
    assert_true(m->explained_variance_legacy == 0.5);
    assert_true(m->frac_variance_explained == 1.0);
    assert_true(near(m->l2_ratio, (1.5 + sqrt(5) / 2 + sqrt(13) / sqrt(8)) / 3, 1e-15));
    assert_true(near(m->cossim, (1.0 + 2 / sqrt(5) + 10 / (sqrt(8) * sqrt(13))) / 4, 1e-15));
    assert_true(m->relative_reconstruction_bias == (1 + 9 + 5 + 13) / (0. + 6 + 4 + 10));
    sonde_metrics_free(m);
}

/* One row far from the mean dominates B; A counts every row the same. Rows +-1 (error 1) and +-10 (error 0):
 * A = mean(0, 0, 1, 1), B = 1 - 2/202. */
static void legacy_weighs_rows_alike_and_the_other_by_their_variance(void **state)
{
    (void)state;
    static const float y[4] = {1, -1, 10, -10}, h[4] = {0, 0, 10, -10};
    sonde_metrics *m = measure(y, h, 4, 1, NULL, 0, 4, NULL);
    assert_true(m->explained_variance_legacy == 0.5);
    assert_true(near(m->explained_variance, 1.0 - 2.0 / 202.0, 1e-15));
    assert_true(near(m->frac_variance_explained, 1.0 - 2.0 / 202.0, 1e-15));
    sonde_metrics_free(m);
}

/* The row at the mean has no share of its own, whatever its error; B counts the error. */
static void a_row_at_the_mean_counts_for_the_others_only(void **state)
{
    (void)state;
    static const float y[3] = {-1, 0, 1}, h[3] = {-1, 0.5f, 1};
    sonde_metrics *m = measure(y, h, 3, 1, NULL, 0, 3, NULL);
    assert_true(m->explained_variance_legacy == 1.0);
    assert_true(near(m->explained_variance, 1.0 - 0.25 / 2.0, 1e-15));
    assert_true(near(m->l2_ratio, 1.0, 1e-15)); /* a row without a norm has no ratio */
    sonde_metrics_free(m);
}

static void c_is_never_below_b(void **state)
{
    (void)state;
    struct data a = golden_data();
    for (size_t rows = 2; rows < 200; rows += 11) {
        sonde_metrics *m = measure(a.y, a.h, rows, GOLDEN_D, NULL, 0, 50, NULL);
        assert_true(m->frac_variance_explained >= m->explained_variance);
        assert_true(near(m->fvu, 1.0 - m->explained_variance, 1e-15));
        sonde_metrics_free(m);
    }
    data_free(&a);
}

static void a_perfect_reconstruction_explains_everything(void **state)
{
    (void)state;
    struct data a = golden_data();
    sonde_metrics *m = measure(a.y, a.y, GOLDEN_N, GOLDEN_D, NULL, 0, 100, NULL);
    assert_true(m->mse == 0 && m->fvu == 0 && m->explained_variance == 1.0);
    assert_true(m->explained_variance_legacy == 1.0 && m->frac_variance_explained == 1.0);
    assert_true(m->l2_ratio == 1.0 && m->relative_reconstruction_bias == 1.0);
    assert_true(near(m->cossim, (GOLDEN_N - 1.0) / GOLDEN_N, 1e-12)); /* one row is 0 */
    sonde_metrics_free(m);
    data_free(&a);
}

static void zeros_explain_less_than_nothing_and_the_mean_nothing(void **state)
{
    (void)state;
    struct data a = golden_data();
    float *zero = calloc(GOLDEN_N * GOLDEN_D, sizeof *zero);
    sonde_metrics *m = measure(a.y, zero, GOLDEN_N, GOLDEN_D, NULL, 0, 100, NULL);
    assert_true(m->explained_variance < 0);
    assert_true(near(m->frac_variance_explained, 0, 1e-12));
    assert_true(m->cossim == 0 && m->l2_ratio == 0 && isnan(m->relative_reconstruction_bias));
    for (size_t i = 0; i < GOLDEN_N * GOLDEN_D; i++)
        zero[i] = (float)m->mean_y[i % GOLDEN_D];
    sonde_metrics *mean = measure(a.y, zero, GOLDEN_N, GOLDEN_D, NULL, 0, 100, NULL);
    assert_true(near(mean->explained_variance, 0, 1e-7)); /* the mean was rounded to float32 */
    sonde_metrics_free(m);
    sonde_metrics_free(mean);
    free(zero);
    data_free(&a);
}

static void data_without_variance_has_no_explained_variance(void **state)
{
    (void)state;
    static const float y[6] = {1, 2, 1, 2, 1, 2}, h[6] = {1, 2, 1, 2, 0, 2};
    sonde_metrics *m = measure(y, h, 3, 2, NULL, 0, 2, NULL);
    assert_true(isnan(m->explained_variance) && isnan(m->explained_variance_legacy) && isnan(m->fvu));
    assert_true(near(m->mse, 1.0 / 3, 1e-15));
    sonde_metrics_free(m);
}

static void latents_are_counted_where_they_are_not_zero(void **state)
{
    (void)state;
    static const float y[4] = {1, 2, 3, 4};
    uint64_t start[5] = {0, 2, 2, 4, 5};
    uint32_t col[5] = {0, 2, 0, 1, 2};
    float value[5] = {2, 3, 4, 0, 1};
    sonde_sparse f = {.n_rows = 4, .start = start, .col = col, .value = value};
    sonde_metrics *m = measure(y, y, 4, 1, &f, 4, 3, NULL);
    assert_true(m->l0 == 1.0 && m->l1 == 2.5);
    assert_int_equal(m->dead_features, 2);
    assert_true(m->frac_alive == 0.5);
    assert_int_equal(m->fired[0], 2);
    assert_int_equal(m->fired[1], 0);
    assert_true(m->mean[0] == 1.5 && m->mean_nonzero[0] == 3.0 && m->max[0] == 4.0f);
    assert_true(m->mean[2] == 1.0 && m->mean_nonzero[2] == 2.0 && m->max[2] == 3.0f);
    assert_true(m->mean_nonzero[3] == 0 && m->max[3] == 0);
    assert_int_equal(m->density[0], 2);
    assert_int_equal(m->density[38], 2); /* log10(.5) = -.301 lies in [-.5, -.25) */
    assert_true(m->freq_over_10_percent == 0.5 && m->normalized_freq_over_10_percent == 1.0);
    sonde_metrics_free(m);
}

/* ---- refusals ---------------------------------------------------------------------------------- */

static void a_row_that_is_not_finite_is_named(void **state)
{
    (void)state;
    float y[6] = {1, 2, 3, 4, 5, 6}, h[6] = {1, 2, 3, 4, 5, 6};
    sonde_err err = {0};
    sonde_tally *t;
    h[4] = (float)NAN;
    assert_int_equal(sonde_tally_new(0, 1, NULL, &t, &err), SONDE_OK);
    assert_int_equal(sonde_tally_mean(t, y, 1, 6, NULL, &err), SONDE_OK);
    assert_int_equal(sonde_tally_add(t, y, 1, h, 1, 2, NULL, NULL, &err), SONDE_OK);
    assert_int_equal(sonde_tally_add(t, y + 2, 1, h + 2, 1, 4, NULL, NULL, &err), SONDE_E_NUMERIC);
    assert_non_null(strstr(err.msg, "row 4 "));
    sonde_tally_free(t);
}

static void passes_over_different_rows_are_refused(void **state)
{
    (void)state;
    static const float y[3] = {1, 2, 4};
    sonde_err err = {0};
    sonde_tally *t;
    sonde_metrics *m = NULL;
    assert_int_equal(sonde_tally_new(0, 0, NULL, &t, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_tally_new(0, 1, NULL, &t, &err), SONDE_OK);
    assert_int_equal(sonde_tally_add(t, y, 1, y, 1, 3, NULL, NULL, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_tally_end(t, NULL, &m, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_tally_mean(t, y, 1, 3, NULL, &err), SONDE_OK);
    assert_int_equal(sonde_tally_add(t, y, 1, y, 1, 2, NULL, NULL, &err), SONDE_OK);
    assert_int_equal(sonde_tally_mean(t, y, 1, 1, NULL, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_tally_end(t, NULL, &m, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "3 rows"));
    sonde_tally_free(t);
}

static void memory_over_the_limit_is_refused(void **state)
{
    (void)state;
    sonde_budget small = {.limit = 1 << 20};
    sonde_err err = {0};
    sonde_tally *t;
    assert_int_equal(sonde_tally_new(1 << 20, 8, &small, &t, &err), SONDE_E_MEMORY);
    assert_int_equal(small.taken, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_numbers_are_those_of_numpy_in_float64),
        cmocka_unit_test(pieces_and_threads_change_no_bit),
        cmocka_unit_test(a_constant_error_is_forgiven_by_c_alone),
        cmocka_unit_test(legacy_weighs_rows_alike_and_the_other_by_their_variance),
        cmocka_unit_test(a_row_at_the_mean_counts_for_the_others_only),
        cmocka_unit_test(c_is_never_below_b),
        cmocka_unit_test(a_perfect_reconstruction_explains_everything),
        cmocka_unit_test(zeros_explain_less_than_nothing_and_the_mean_nothing),
        cmocka_unit_test(data_without_variance_has_no_explained_variance),
        cmocka_unit_test(latents_are_counted_where_they_are_not_zero),
        cmocka_unit_test(a_row_that_is_not_finite_is_named),
        cmocka_unit_test(passes_over_different_rows_are_refused),
        cmocka_unit_test(memory_over_the_limit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
