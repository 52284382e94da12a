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

/* ---- bfloat16 */

enum { WIDE_D = 40, WIDE_F = 1000, WIDE_ROWS = 300 };

/* Some 15 of 1000 latents are above 0 in a row; every latent of the second half is one of the first again, so
 * that all values come twice. */
static sonde_dict *sparse_dict(enum sonde_dict_act act)
{
    sonde_dict *d;
    sonde_err err;
    assert_int_equal(sonde_dict_new(act, WIDE_D, WIDE_D, WIDE_F, false, NULL, &d, &err), SONDE_OK);
    for (size_t i = 0; i < WIDE_F; i++) {
        const size_t like = i % (WIDE_F / 2);
        for (size_t j = 0; j < WIDE_D; j++)
            d->w_enc[i * WIDE_D + j] = 0.4f * number_at(like * WIDE_D + j);
        d->b_enc[i] = -3.8f + 0.3f * number_at(1000000 + like);
        if (d->threshold)
            d->threshold[i] = 0.5f * number_at(2000000 + like);
        if (d->r_mag)
            d->r_mag[i] = 0.5f * number_at(3000000 + i);
        if (d->b_mag)
            d->b_mag[i] = 0.5f * number_at(4000000 + i);
    }
    d->k = 9; /* odd: of the last pair one stays */
    if (act == SONDE_DICT_GROUPMAX)
        d->k = 20;
    return d;
}

static void encode_with(const sonde_dict *d, const sonde_kernels *k, bool bf16, sonde_pool *pool,
                        const float *x, sonde_sparse *f)
{
    sonde_encoder *e;
    sonde_err err;
    assert_int_equal(sonde_encoder_new(d, k, bf16, pool, NULL, &e, &err), SONDE_OK);
    assert_int_equal(sonde_encoder_encode(e, x, WIDE_D, WIDE_ROWS, pool, f, &err), SONDE_OK);
    sonde_encoder_free(e);
}

static void assert_same_latents(const sonde_sparse *a, const sonde_sparse *b, const char *what)
{
    assert_int_equal(a->n_rows, b->n_rows);
    if (memcmp(a->start, b->start, (a->n_rows + 1) * sizeof *a->start))
        fail_msg("%s: other numbers of latents", what);
    assert_memory_equal(a->col, b->col, a->start[a->n_rows] * sizeof *a->col);
    assert_same(a->value, b->value, a->start[a->n_rows], what);
}

/* Values of row 0 become thresholds: limits that are met exactly. */
static void put_on_the_edge(sonde_dict *d, const sonde_sparse *f)
{
    for (uint64_t i = f->start[0]; d->threshold && i < f->start[1]; i++)
        d->threshold[f->col[i]] = f->value[i];
}

static void bfloat16_gives_the_latents_and_values_of_float32_bit_for_bit(void **state)
{
    (void)state;
    float *x = scaled(WIDE_ROWS * WIDE_D, 40, 2.0f);
    sonde_pool *pool;
    sonde_err err;
    memcpy(x + WIDE_D, x, WIDE_D * sizeof *x);
    memset(x + 2 * WIDE_D, 0, WIDE_D * sizeof *x);
    assert_int_equal(sonde_pool_new(2, &pool, &err), SONDE_OK);
    FOR_TABLES(t)
    for (int act = 0; act < SONDE_N_DICT_ACTS; act++)
        for (int pre = 0; pre < 2; pre++) {
            sonde_dict *d = sparse_dict((enum sonde_dict_act)act);
            const sonde_kernels *k = kernels_named(*t);
            sonde_sparse want = {0}, got = {0};
            char what[80];
            snprintf(what, sizeof what, "%s, activation %d, pre_bias %d", *t, act, pre);
            d->norm = pre ? SONDE_DICT_NORM_LAYER : SONDE_DICT_NORM_NONE;
            d->pre_bias = pre;
            sonde_pool *with = pre ? NULL : pool;
            encode_with(d, k, false, with, x, &want);
            put_on_the_edge(d, &want);
            encode_with(d, k, false, with, x, &want);
            encode_with(d, k, true, with, x, &got);
            assert_same_latents(&got, &want, what);
            if (want.start[WIDE_ROWS] < WIDE_ROWS)
                fail_msg("%s: hardly a latent is active", what);
            sonde_sparse_free(&want);
            sonde_sparse_free(&got);
            sonde_dict_free(d);
        }
    sonde_pool_free(pool);
    free(x);
}

static void rows_that_are_not_numbers_are_the_same_in_bfloat16(void **state)
{
    (void)state;
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, 1e-40f};
    float *x = scaled(WIDE_ROWS * WIDE_D, 50, 2.0f);
    for (size_t i = 0; i < COUNT(odd); i++)
        x[(10 + i * 7) * WIDE_D + i] = odd[i];
    for (int act = 0; act < SONDE_N_DICT_ACTS; act++) {
        sonde_dict *d = sparse_dict((enum sonde_dict_act)act);
        sonde_sparse want = {0}, got = {0};
        encode_with(d, sonde_kernels_best(), false, NULL, x, &want);
        encode_with(d, sonde_kernels_best(), true, NULL, x, &got);
        assert_same_latents(&got, &want, "odd rows");
        sonde_sparse_free(&want);
        sonde_sparse_free(&got);
        sonde_dict_free(d);
    }
    free(x);
}

static void bfloat16_takes_memory_only_where_it_is_used(void **state)
{
    (void)state;
    enum { BIG_D = 256, BIG_F = 4096, SLACK = 2 << 20 }; /* arenas take memory in chunks */
    FOR_TABLES(t)
    for (int act = 0; act < SONDE_N_DICT_ACTS; act++) {
        const sonde_kernels *k = kernels_named(*t);
        const bool used = sonde_bf16_available(k) && act != SONDE_DICT_GROUPMAX;
        size_t bytes[2];
        sonde_dict *d;
        sonde_err err;
        assert_int_equal(sonde_dict_new((enum sonde_dict_act)act, BIG_D, BIG_D, BIG_F, false, NULL, &d, &err),
                         SONDE_OK);
        d->k = 8;
        for (int bf16 = 0; bf16 < 2; bf16++) {
            sonde_budget budget = {.limit = 1 << 30};
            sonde_encoder *e;
            assert_int_equal(sonde_encoder_new(d, k, bf16, NULL, &budget, &e, &err), SONDE_OK);
            bytes[bf16] = atomic_load(&budget.taken);
            sonde_encoder_free(e);
            assert_int_equal(atomic_load(&budget.taken), 0);
        }
        const size_t more = bytes[1] - bytes[0], packed = (size_t)BIG_D * BIG_F * 2;
        if (used ? more < packed || more > packed + SLACK : more != 0)
            fail_msg("%s, activation %d: %zu bytes with bfloat16, %zu without", *t, act, bytes[1], bytes[0]);
        sonde_dict_free(d);
    }
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
        cmocka_unit_test(bfloat16_gives_the_latents_and_values_of_float32_bit_for_bit),
        cmocka_unit_test(rows_that_are_not_numbers_are_the_same_in_bfloat16),
        cmocka_unit_test(bfloat16_takes_memory_only_where_it_is_used),
        cmocka_unit_test(zero_rows_stay_finite_under_a_constant_norm),
        cmocka_unit_test(misuse_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
