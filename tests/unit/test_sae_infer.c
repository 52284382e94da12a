/* SPDX-License-Identifier: MIT */
#include "num_cases.h"

#include <stdio.h>

#include "sae/infer.h"

enum { D = 24, F = 96, ROWS = 70 };

/* A dictionary by hand. */
struct built {
    sonde_dict d;
    float *memory[8];
};

static float *scaled(size_t n, uint64_t seed, float by)
{
    float *p = numbers(n, seed);
    for (size_t i = 0; i < n; i++)
        p[i] *= by;
    return p;
}

static struct built build(enum sonde_dict_act act, size_t d_out, bool skip)
{
    struct built b = {
        .d = {.act = act, .d_in = D, .d_out = d_out, .n_latents = F, .k = 8, .norm_eps = 1e-5f}};
    sonde_dict *d = &b.d;
    b.memory[0] = d->w_enc = scaled(F * D, 1, 0.4f);
    b.memory[1] = d->b_enc = scaled(F, 2, 0.3f);
    b.memory[2] = d->w_dec = scaled(F * d_out, 3, 0.5f);
    b.memory[3] = d->b_dec = scaled(d_out, 4, 0.5f);
    if (act == SONDE_DICT_JUMPRELU)
        b.memory[4] = d->threshold = scaled(F, 5, 0.6f);
    if (act == SONDE_DICT_GATED) {
        b.memory[4] = d->r_mag = scaled(F, 6, 0.5f);
        b.memory[5] = d->b_mag = scaled(F, 7, 0.5f);
    }
    if (skip)
        b.memory[6] = d->w_skip = scaled(D * d_out, 8, 0.2f);
    return b;
}

static void free_built(struct built *b)
{
    for (size_t i = 0; i < COUNT(b->memory); i++)
        free(b->memory[i]);
}

static void check_row(const sonde_dict *d, const float *x, const sonde_sparse *f, size_t r, const float *y,
                      const char *what)
{
    double want[F], want_y[64], dense[F] = {0};
    ref_dict_encode(d, x, want);
    for (size_t i = f->start[r]; i < f->start[r + 1]; i++) {
        assert_true(i == f->start[r] || f->col[i - 1] < f->col[i]);
        assert_true(f->value[i] > 0.0f);
        dense[f->col[i]] = (double)f->value[i];
    }
    for (size_t i = 0; i < F; i++) /* sums of 25 products below 10, and e^r in float */
        if (fabs(dense[i] - want[i]) > 1e-5 * (1 + fabs(want[i])))
            fail_msg("%s: row %zu latent %zu is %g, expected %g", what, r, i, dense[i], want[i]);
    ref_dict_decode(d, want, x, want_y);
    for (size_t i = 0; i < d->d_out; i++)
        if (fabs((double)y[i] - want_y[i]) > 2e-5 * (1 + fabs(want_y[i])))
            fail_msg("%s: row %zu output %zu is %g, expected %g", what, r, i, (double)y[i], want_y[i]);
}

static void check(const sonde_dict *d, const sonde_kernels *k, const char *what)
{
    float *x = scaled(ROWS * (D + 5), 20, 2.0f), *y = canaries(ROWS * (d->d_out + 3));
    sonde_encoder *e;
    sonde_sparse f = {0};
    sonde_err err;
    assert_int_equal(sonde_encoder_new(d, k, false, NULL, NULL, &e, &err), SONDE_OK);
    assert_int_equal(sonde_encoder_encode(e, x, D + 5, ROWS, NULL, &f, &err), SONDE_OK);
    assert_int_equal(sonde_encoder_decode(e, &f, x, D + 5, NULL, y, d->d_out + 3, &err), SONDE_OK);
    assert_int_equal(f.n_rows, ROWS);
    assert_true(f.start[ROWS] > ROWS);
    for (size_t r = 0; r < ROWS; r++) {
        check_row(d, x + r * (D + 5), &f, r, y + r * (d->d_out + 3), what);
        assert_true(is_canary(y[r * (d->d_out + 3) + d->d_out]));
    }
    sonde_encoder_free(e);
    sonde_sparse_free(&f);
    free(x), free(y);
}

static void every_activation_and_norm_is_that_of_the_reference_in_every_table(void **state)
{
    (void)state;
    FOR_TABLES(t)
    for (int act = 0; act < SONDE_N_DICT_ACTS; act++)
        for (int norm = 0; norm < SONDE_N_DICT_NORMS; norm++)
            for (int pre = 0; pre < 2; pre++) {
                struct built b = build((enum sonde_dict_act)act, D, false);
                char what[80];
                b.d.norm = (enum sonde_dict_norm)norm;
                b.d.norm_unbiased = pre;
                b.d.pre_bias = pre;
                snprintf(what, sizeof what, "%s, activation %d, norm %d, pre_bias %d", *t, act, norm, pre);
                check(&b.d, kernels_named(*t), what);
                free_built(&b);
            }
}

static void transcoders_and_skip_connections_are_those_of_the_reference(void **state)
{
    (void)state;
    FOR_TABLES(t)
    for (int skip = 0; skip < 2; skip++) {
        struct built b = build(SONDE_DICT_TOPK, 37, skip);
        check(&b.d, kernels_named(*t), skip ? "skip transcoder" : "transcoder");
        free_built(&b);
        b = build(SONDE_DICT_RELU, D, skip);
        b.d.norm = SONDE_DICT_NORM_LAYER;
        check(&b.d, kernels_named(*t), "layer norm");
        free_built(&b);
    }
}

static void jumprelu_keeps_nothing_below_zero(void **state)
{
    (void)state;
    struct built b = build(SONDE_DICT_JUMPRELU, D, false);
    for (size_t i = 0; i < F; i++)
        b.d.threshold[i] = -10.0f;
    check(&b.d, sonde_kernels_best(), "negative thresholds");
    free_built(&b);
}

static void any_number_of_rows_and_threads_gives_the_same_bits(void **state)
{
    (void)state;
    enum { MANY = 9000 };
    float *x = numbers(MANY * D, 30), *y = need(MANY * D, 4), *once = need(MANY * D, 4);
    for (int act = 0; act < SONDE_N_DICT_ACTS; act++) {
        struct built b = build((enum sonde_dict_act)act, D, false);
        sonde_encoder *e;
        sonde_sparse f = {0}, part = {0};
        sonde_pool *pool;
        sonde_err err;
        b.d.norm = SONDE_DICT_NORM_LAYER;
        assert_int_equal(sonde_pool_new(3, &pool, &err), SONDE_OK);
        assert_int_equal(sonde_encoder_new(&b.d, sonde_kernels_best(), false, NULL, NULL, &e, &err),
                         SONDE_OK);
        assert_int_equal(sonde_encoder_encode(e, x, D, MANY, pool, &f, &err), SONDE_OK);
        assert_int_equal(sonde_encoder_decode(e, &f, x, D, pool, y, D, &err), SONDE_OK);
        assert_int_equal(f.n_rows, MANY);
        for (size_t r = 0, n = 1; r < MANY; r += n, n = n * 5 + 1) {
            n = n < MANY - r ? n : MANY - r;
            assert_int_equal(sonde_encoder_encode(e, x + r * D, D, n, NULL, &part, &err), SONDE_OK);
            assert_int_equal(part.start[n], f.start[r + n] - f.start[r]);
            assert_memory_equal(part.col, f.col + f.start[r], part.start[n] * sizeof *f.col);
            assert_memory_equal(part.value, f.value + f.start[r], part.start[n] * sizeof *f.value);
            assert_int_equal(sonde_encoder_decode(e, &part, x + r * D, D, NULL, once + r * D, D, &err),
                             SONDE_OK);
        }
        assert_same(y, once, MANY * D, "decoded");
        sonde_encoder_free(e);
        sonde_pool_free(pool);
        sonde_sparse_free(&f);
        sonde_sparse_free(&part);
        free_built(&b);
    }
    free(x), free(y), free(once);
}

static void zero_rows_stay_finite_under_a_constant_norm(void **state)
{
    (void)state;
    struct built b = build(SONDE_DICT_RELU, D, false);
    float x[D] = {0}, y[D];
    sonde_encoder *e;
    sonde_sparse f = {0};
    sonde_err err;
    b.d.norm = SONDE_DICT_NORM_CONSTANT;
    assert_int_equal(sonde_encoder_new(&b.d, sonde_kernels_best(), false, NULL, NULL, &e, &err), SONDE_OK);
    assert_int_equal(sonde_encoder_encode(e, x, D, 1, NULL, &f, &err), SONDE_OK);
    assert_int_equal(sonde_encoder_decode(e, &f, x, D, NULL, y, D, &err), SONDE_OK);
    for (size_t i = 0; i < D; i++)
        assert_true(isfinite(y[i]));
    sonde_encoder_free(e);
    sonde_sparse_free(&f);
    free_built(&b);
}

static void misuse_is_refused(void **state)
{
    (void)state;
    struct built b = build(SONDE_DICT_TOPK, D, true);
    float x[D] = {1}, y[D];
    sonde_encoder *e;
    sonde_sparse f = {0};
    sonde_err err;
    assert_int_equal(sonde_encoder_new(&b.d, sonde_kernels_best(), false, NULL, NULL, &e, &err), SONDE_OK);
    assert_int_equal(sonde_encoder_encode(e, x, D, 1, NULL, &f, &err), SONDE_OK);
    assert_int_equal(sonde_encoder_decode(e, &f, NULL, 0, NULL, y, D, &err), SONDE_E_USAGE);
    f.col[0] = F;
    assert_int_equal(sonde_encoder_decode(e, &f, x, D, NULL, y, D, &err), SONDE_E_USAGE);
    sonde_encoder_free(e);
    b.d.k = F + 1;
    assert_int_equal(sonde_encoder_new(&b.d, sonde_kernels_best(), false, NULL, NULL, &e, &err),
                     SONDE_E_USAGE);
    b.d.act = SONDE_DICT_GROUPMAX;
    b.d.k = 7;
    assert_int_equal(sonde_encoder_new(&b.d, sonde_kernels_best(), false, NULL, NULL, &e, &err),
                     SONDE_E_USAGE);
    sonde_budget budget = {.limit = 1000};
    b.d.k = 8;
    assert_int_equal(sonde_encoder_new(&b.d, sonde_kernels_best(), false, NULL, &budget, &e, &err),
                     SONDE_E_MEMORY);
    assert_int_equal(atomic_load(&budget.taken), 0);
    sonde_sparse_free(&f);
    free_built(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_activation_and_norm_is_that_of_the_reference_in_every_table),
        cmocka_unit_test(transcoders_and_skip_connections_are_those_of_the_reference),
        cmocka_unit_test(jumprelu_keeps_nothing_below_zero),
        cmocka_unit_test(any_number_of_rows_and_threads_gives_the_same_bits),
        cmocka_unit_test(zero_rows_stay_finite_under_a_constant_norm),
        cmocka_unit_test(misuse_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
