/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pass_fixture.h"
#include "sae/metrics.h"

enum { D = 6, N = 9000 }; /* three pieces of a pass */

static sonde_metrics *measure(const sonde_dict *dict, enum sonde_split split, uint64_t max_rows, int threads)
{
    sonde_err err = {0};
    sonde_work work = {0};
    sonde_metrics *m = NULL;
    sonde_source *s = open_rows(0.25);
    sonde_encoder *e = pack(dict);
    must(sonde_pool_new(threads, &work.pool, &err), &err);
    must(sonde_metrics_measure(dict, e, s, split, max_rows, &work, &m, &err), &err);
    sonde_pool_free(work.pool);
    sonde_encoder_free(e);
    sonde_source_close(s);
    return m;
}

/* f = relu(x), relu(-x); y = f - f'. */
static sonde_dict *identity_dict(void)
{
    sonde_dict *dict = empty_dict(D, 2 * D);
    for (size_t i = 0; i < D; i++) {
        dict->w_enc[i * D + i] = dict->w_dec[i * D + i] = 1;
        dict->w_enc[(D + i) * D + i] = dict->w_dec[(D + i) * D + i] = -1;
    }
    return dict;
}

static void an_identity_dictionary_explains_everything(void **state)
{
    (void)state;
    sonde_dict *dict = identity_dict();
    sonde_metrics *m = measure(dict, SONDE_SPLIT_ALL, 0, 2);
    assert_int_equal(m->n_rows, N);
    assert_true(m->mse == 0 && m->explained_variance == 1 && m->frac_variance_explained == 1);
    assert_true(m->explained_variance_legacy == 1 && fabs(m->cossim - 1) < 1e-12);
    assert_true(m->l0 == D); /* each dimension is positive or negative */
    assert_int_equal(m->dead_features, 0);
    sonde_metrics_free(m);
    sonde_dict_free(dict);
}

static void a_dictionary_of_zeros_explains_less_than_nothing(void **state)
{
    (void)state;
    sonde_dict *dict = empty_dict(D, 4);
    sonde_metrics *m = measure(dict, SONDE_SPLIT_ALL, 0, 1);
    assert_true(m->explained_variance < 0 && m->l0 == 0 && m->l1 == 0);
    assert_int_equal(m->dead_features, 4);
    assert_int_equal(m->density[0], 4);
    for (size_t c = 0; c < D; c++)
        dict->b_dec[c] = (float)m->mean_y[c];
    sonde_metrics_free(m);
    m = measure(dict, SONDE_SPLIT_ALL, 0, 1);
    assert_true(fabs(m->explained_variance) < 1e-6); /* the mean and nothing else */
    sonde_metrics_free(m);
    sonde_dict_free(dict);
}

/* The dictionary's reference twin row by row, and the formulas over whole arrays. */
static void numbers_are_those_of_the_reference_twin(void **state)
{
    (void)state;
    enum { F = 10 };
    sonde_dict *dict = random_dict(D, F);
    float *x = make_numbers(N * D, 1);
    double mean[D] = {0}, f[F], y[D], ee = 0, vv = 0, n_active = 0, sum = 0;
    for (size_t i = 0; i < N * D; i++)
        mean[i % D] += (double)x[i] / N;
    for (size_t r = 0; r < N; r++) {
        ref_dict_encode(dict, x + r * D, f);
        ref_dict_decode(dict, f, x + r * D, y);
        for (size_t c = 0; c < D; c++) {
            double v = (double)x[r * D + c];
            ee += (v - y[c]) * (v - y[c]);
            vv += (v - mean[c]) * (v - mean[c]);
        }
        for (size_t i = 0; i < F; i++) {
            n_active += f[i] != 0;
            sum += f[i];
        }
    }
    sonde_metrics *m = measure(dict, SONDE_SPLIT_ALL, 0, 2);
    assert_true(fabs(m->explained_variance - (1 - ee / vv)) < 1e-6);
    assert_true(fabs(m->mse - ee / N) < 1e-5 && fabs(m->variance - vv / N) < 1e-9);
    assert_true(fabs(m->l0 - n_active / N) < 5.0 / N && fabs(m->l1 - sum / N) < 1e-5);
    sonde_metrics_free(m);
    free(x);
    sonde_dict_free(dict);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    sonde_dict *dict = random_dict(D, 40);
    sonde_metrics *want = measure(dict, SONDE_SPLIT_ALL, 0, 1);
    for (int threads = 2; threads <= 3; threads++) {
        sonde_metrics *m = measure(dict, SONDE_SPLIT_ALL, 0, threads);
        assert_memory_equal(&m->mse, &want->mse,
                            offsetof(sonde_metrics, density) - offsetof(sonde_metrics, mse));
        assert_memory_equal(m->mean, want->mean, 40 * sizeof *m->mean);
        sonde_metrics_free(m);
    }
    sonde_metrics_free(want);
    sonde_dict_free(dict);
}

static void splits_and_limits_choose_the_rows(void **state)
{
    (void)state;
    sonde_dict *dict = random_dict(D, 8);
    sonde_metrics *m = measure(dict, SONDE_SPLIT_HELDOUT, 0, 1);
    assert_int_equal(m->n_rows, N / 4);
    sonde_metrics_free(m);
    m = measure(dict, SONDE_SPLIT_TRAIN, 0, 1);
    assert_int_equal(m->n_rows, N - N / 4);
    sonde_metrics_free(m);
    m = measure(dict, SONDE_SPLIT_ALL, 5000, 1);
    assert_int_equal(m->n_rows, 5000);
    sonde_metrics_free(m);
    sonde_dict_free(dict);
}

static void another_width_is_refused_with_both_numbers(void **state)
{
    (void)state;
    sonde_err err = {0};
    sonde_metrics *m = NULL;
    sonde_dict *dict = random_dict(D + 1, 8);
    sonde_source *s = open_rows(0);
    sonde_encoder *e = pack(dict);
    assert_int_equal(sonde_metrics_measure(dict, e, s, SONDE_SPLIT_ALL, 0, NULL, &m, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "7"));
    assert_non_null(strstr(err.msg, "6"));
    assert_int_equal(sonde_metrics_measure(dict, e, s, SONDE_SPLIT_HELDOUT, 0, NULL, &m, &err),
                     SONDE_E_USAGE);
    sonde_encoder_free(e);
    sonde_source_close(s);
    sonde_dict_free(dict);
}

static void a_stop_and_a_small_limit_leave_nothing(void **state)
{
    (void)state;
    sonde_err err = {0};
    sonde_metrics *m = NULL;
    const volatile sig_atomic_t stop = 1;
    sonde_budget small = {.limit = 1000};
    sonde_dict *dict = random_dict(D, 8);
    sonde_source *s = open_rows(0);
    sonde_encoder *e = pack(dict);
    sonde_work work = {.stop = &stop}, tight = {.budget = &small};
    assert_int_equal(sonde_metrics_measure(dict, e, s, SONDE_SPLIT_ALL, 0, &work, &m, &err), SONDE_E_STOPPED);
    assert_int_equal(sonde_metrics_measure(dict, e, s, SONDE_SPLIT_ALL, 0, &tight, &m, &err), SONDE_E_MEMORY);
    assert_int_equal(small.taken, 0);
    sonde_encoder_free(e);
    sonde_source_close(s);
    sonde_dict_free(dict);
}

static int make_rows(void **state)
{
    if (make_dir(state))
        return -1;
    float *x = make_numbers(N * D, 1);
    write_rows(x, N, D);
    free(x);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_identity_dictionary_explains_everything),
        cmocka_unit_test(a_dictionary_of_zeros_explains_less_than_nothing),
        cmocka_unit_test(numbers_are_those_of_the_reference_twin),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(splits_and_limits_choose_the_rows),
        cmocka_unit_test(another_width_is_refused_with_both_numbers),
        cmocka_unit_test(a_stop_and_a_small_limit_leave_nothing),
    };
    return cmocka_run_group_tests(tests, make_rows, remove_dir);
}
