/* SPDX-License-Identifier: MIT
 * Encoding with bfloat16 products against encoding without: the same bits. On tables without such products
 * they are worked out in plain C, so that all that follows them is tested everywhere. */
#include "num_cases.h"

#include <stdio.h>

#include "base/rng.h"
#include "sae/encode.h"

/* OpenBLAS' bits depend on where a row lies in its tile, so there is nothing to compare. */
#define FOR_EXACT_TABLES(t) FOR_TABLES(t) if (strcmp(*t, "openblas") != 0)

struct problem {
    size_t d, f, n_rows;
    float *x, *rows, *bias, *bound;
    sonde_packed w;
    sonde_packed16 w16;
};

/* Rows are sums of a few columns of the dictionary and noise, as activations are. */
static struct problem sparse_sums(const sonde_kernels *k, size_t d, size_t f, size_t n_rows)
{
    struct problem p = {.d = d, .f = f, .n_rows = n_rows};
    p.x = numbers(n_rows * d, 1);
    p.rows = numbers(f * d, 2);
    p.bias = numbers(f, 3);
    p.bound = numbers(f, 4);
    for (size_t i = 0; i < f; i++) {
        p.bias[i] *= 0.3f;
        p.bound[i] = 3 + p.bound[i];
    }
    for (size_t i = 0; i < n_rows * d; i++)
        p.x[i] *= 0.2f;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t j = 0; j < 6; j++) {
            const size_t c = (r * 31 + j * j * 97 + r * r) % f;
            for (size_t i = 0; i < d; i++)
                p.x[r * d + i] += (0.3f + 0.1f * (float)j) * p.rows[c * d + i];
        }
    p.w = (sonde_packed){k, d, f, need(sonde_packed_floats(k, d, f), sizeof(float))};
    p.w16 = (sonde_packed16){k, d, f, need(sonde_packed16_words(k, d, f), sizeof(uint16_t))};
    return p;
}

static void pack(struct problem *p)
{
    memset(p->w.data, 0, sonde_packed_floats(p->w.kernels, p->d, p->f) * sizeof(float));
    memset(p->w16.data, 0, sonde_packed16_words(p->w.kernels, p->d, p->f) * sizeof(uint16_t));
    sonde_pack(&p->w, 0, p->d, 0, p->f, p->rows, 1, p->d);
    sonde_pack16(&p->w16, 0, p->f, p->rows, p->d);
}

static void free_problem(struct problem *p)
{
    free(p->x), free(p->rows), free(p->bias), free(p->bound), free(p->w.data), free(p->w16.data);
}

static void assert_equal_sparse(const sonde_sparse *a, const sonde_sparse *b, const char *what)
{
    assert_int_equal(a->n_rows, b->n_rows);
    for (size_t r = 0; r <= a->n_rows; r++)
        if (a->start[r] != b->start[r])
            fail_msg("%s: row %zu begins at %zu, expected %zu", what, r, (size_t)a->start[r],
                     (size_t)b->start[r]);
    for (size_t i = 0; i < a->start[a->n_rows]; i++)
        if (a->col[i] != b->col[i] || !same(a->value[i], b->value[i]))
            fail_msg("%s: entry %zu is %u %a, expected %u %a", what, i, a->col[i], (double)a->value[i],
                     b->col[i], (double)b->value[i]);
}

/* With bfloat16 and without, with 1 to 3 threads. Returns the rows that bfloat16 decided in the last one. */
static size_t check(const struct problem *p, sonde_encoding e, const char *what)
{
    sonde_sparse want = {0}, got = {0};
    sonde_err err;
    sonde_encode_work work = {0};
    e.w = &p->w;
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        sonde_pool *pool;
        sonde_encode_space *space;
        size_t n_want = 0, n_got = 0;
        assert_int_equal(sonde_pool_new(n_threads, &pool, &err), SONDE_OK);
        assert_int_equal(sonde_encode_space_new(n_threads, NULL, &space, &err), SONDE_OK);
        e.w16 = NULL;
        e.rows = NULL;
        if (n_threads == 1)
            assert_int_equal(sonde_encode_rows(&e, p->x, p->d, p->n_rows, pool, space, &want, &n_want, &err),
                             SONDE_OK);
        sonde_encode_space_work(space, &work);
        assert_int_equal(work.rows16, 0);
        e.w16 = &p->w16;
        e.rows = p->rows;
        for (int again = 0; again < 3; again++) {
            assert_int_equal(sonde_encode_rows(&e, p->x, p->d, p->n_rows, pool, space, &got, &n_got, &err),
                             SONDE_OK);
            assert_equal_sparse(&got, &want, what);
            if (n_threads == 1 && e.pick == SONDE_PICK_ABOVE)
                assert_int_equal(n_got, n_want);
            if (again == 0) {
                sonde_encode_space_work(space, &work);
                assert_int_equal(work.rows16 + work.rows32, p->n_rows);
            }
        }
        sonde_encode_space_free(space);
        sonde_pool_free(pool);
    }
    sonde_sparse_free(&want);
    sonde_sparse_free(&got);
    return work.rows16;
}

/* All picks of one problem; returns how many rows bfloat16 decided in all. */
static size_t every_pick(const struct problem *p, const char *what)
{
    size_t rows16 = 0;
    for (int biased = 0; biased < 2; biased++) {
        const float *bias = biased ? p->bias : NULL;
        for (size_t k = 1; k <= 20; k += 4) {
            for (int sign = 0; sign < 2; sign++)
                rows16 +=
                    check(p, (sonde_encoding){.bias = bias, .pick = SONDE_PICK_ROW, .k = k, .any_sign = sign},
                          what);
            rows16 += check(
                p, (sonde_encoding){.bias = bias, .pick = SONDE_PICK_BATCH, .k = k * p->n_rows + 1}, what);
        }
        rows16 += check(p, (sonde_encoding){.bias = bias, .pick = SONDE_PICK_ABOVE, .bound = p->bound}, what);
        rows16 += check(p, (sonde_encoding){.bias = bias, .pick = SONDE_PICK_GROUP, .k = p->f / 64}, what);
    }
    return rows16;
}

/* Fewer problems where the product is plain C. */
static struct problem usual(const char *table)
{
    const bool fast = sonde_bf16_available(kernels_named(table));
    return fast ? sparse_sums(kernels_named(table), 96, 2048, 300)
                : sparse_sums(kernels_named(table), 33, 704, 61);
}

static void latents_and_values_are_float32s_on_usual_rows(void **state)
{
    (void)state;
    FOR_EXACT_TABLES(t)
    {
        struct problem p = usual(*t);
        pack(&p);
        assert_true(every_pick(&p, *t) > 10 * p.n_rows);
        free_problem(&p);
    }
}

/* Whole numbers: sums are exact, most values tie, columns come twice. */
static void ties_fall_as_in_float32(void **state)
{
    (void)state;
    FOR_EXACT_TABLES(t)
    {
        struct problem p = usual(*t);
        sonde_rng rng = sonde_rng_seed(1);
        for (size_t i = 0; i < p.n_rows * p.d; i++)
            p.x[i] = (float)sonde_rng_below(&rng, 5) - 2;
        for (size_t i = 0; i < p.f * p.d; i++)
            p.rows[i] = (float)sonde_rng_below(&rng, 3) - 1;
        for (size_t i = 0; i < p.f; i++) {
            p.bias[i] = (float)sonde_rng_below(&rng, 3) - 1;
            p.bound[i] = 20 + p.bias[i];
        }
        memcpy(p.rows + p.f / 2 * p.d, p.rows, p.f / 2 * p.d * sizeof(float));
        pack(&p);
        assert_true(every_pick(&p, *t) > 0);
        free_problem(&p);
    }
}

/* Columns that differ in what bfloat16 can not hold: nearly all are left open. */
static void columns_that_bfloat16_can_not_tell_apart_are_told_apart(void **state)
{
    (void)state;
    FOR_EXACT_TABLES(t)
    {
        struct problem p = usual(*t);
        for (size_t j = 0; j < p.f; j++)
            for (size_t i = 0; i < p.d; i++)
                p.rows[j * p.d + i] = p.rows[j % 40 * p.d + i] * (1 + 0x1p-14f * number_at(j * p.d + i));
        pack(&p);
        every_pick(&p, *t);
        free_problem(&p);
    }
}

/* Four columns that rounding makes smaller by all that the bound allows (1 + 2^-8 is a tie) win by little
 * over six that it does not touch. */
static void columns_at_the_edge_of_the_bound_win_as_in_float32(void **state)
{
    (void)state;
    FOR_EXACT_TABLES(t)
    {
        struct problem p = usual(*t);
        for (size_t i = 0; i < p.n_rows * p.d; i++)
            p.x[i] = number_at(i % p.d) < 0 ? -1.0f : 1.0f;
        for (size_t j = 0; j < p.f; j++) {
            for (size_t i = 0; i < p.d; i++)
                p.rows[j * p.d + i] = p.x[i] * (j < 4    ? 1 + 0x1p-8f
                                                : j < 10 ? (i * 20 < p.d * 9 ? 1 + 0x1p-7f : 1.0f)
                                                         : 0.5f * fabsf(number_at(j * p.d + i)));
            p.bound[j] = (float)p.d * (1 + 0.95f * 0x1p-8f);
        }
        pack(&p);
        const sonde_encoding row = {.pick = SONDE_PICK_ROW, .k = 4},
                             batch = {.pick = SONDE_PICK_BATCH, .k = 4 * p.n_rows},
                             above = {.pick = SONDE_PICK_ABOVE, .bound = p.bound};
        assert_int_equal(check(&p, row, *t), p.n_rows);
        assert_int_equal(check(&p, batch, *t), p.n_rows);
        assert_int_equal(check(&p, above, *t), p.n_rows);
        for (size_t j = 10; j < 400; j++) /* so many that no list can be cut */
            memcpy(p.rows + j * p.d, p.rows + 9 * p.d, p.d * sizeof *p.rows);
        pack(&p);
        check(&p, row, *t);
        assert_int_equal(check(&p, batch, *t), 0);
        free_problem(&p);
    }
}

static void rows_that_are_no_usual_numbers_come_out_as_in_float32(void **state)
{
    (void)state;
    static const float odd[] = {0.0f,    -0.0f,    1e-42f,    -1e-44f, 0x1p-126f, 0x1p60f, -0x1p110f,
                                3.4e38f, INFINITY, -INFINITY, NAN,     0x1p-80f,  1e30f,   1.0f};
    FOR_EXACT_TABLES(t)
    {
        struct problem p = usual(*t);
        for (size_t r = 0; r < p.n_rows; r++) {
            const float v = odd[r % COUNT(odd)];
            if (r % 3 == 0) /* one such number in a row */
                p.x[r * p.d + r % p.d] = v;
            else if (r % 3 == 1) /* a row of them */
                for (size_t i = 0; i < p.d; i++)
                    p.x[r * p.d + i] *= v;
        }
        pack(&p);
        every_pick(&p, *t);
        for (size_t c = 0; c < 7; c++) /* and columns that do not make all rows overflow */
            p.rows[c * p.d + c] = odd[c < 5 ? c : 11];
        memset(p.rows + 9 * p.d, 0, p.d * sizeof *p.rows);
        p.bias[3] = NAN, p.bias[4] = INFINITY, p.bias[5] = -INFINITY;
        p.bound[6] = NAN, p.bound[7] = INFINITY, p.bound[8] = -INFINITY;
        pack(&p);
        every_pick(&p, *t);
        p.rows[20 * p.d + 3] = INFINITY;
        p.rows[21 * p.d + 3] = NAN;
        pack(&p);
        assert_int_equal(every_pick(&p, *t), 0);
        free_problem(&p);
    }
}

static void rows_of_zeros_come_out_as_in_float32(void **state)
{
    (void)state;
    FOR_EXACT_TABLES(t)
    {
        struct problem p = usual(*t);
        memset(p.x, 0, p.n_rows * p.d * sizeof *p.x);
        pack(&p);
        every_pick(&p, *t);
        memset(p.rows, 0, p.f * p.d * sizeof *p.rows);
        memset(p.bias, 0, p.f * sizeof *p.bias);
        pack(&p);
        every_pick(&p, *t);
        free_problem(&p);
    }
}

static void hints_change_nothing(void **state)
{
    (void)state;
    static const float hints[] = {-1, 0.5f, 2, 5, 9, 1e30f, INFINITY, NAN};
    FOR_EXACT_TABLES(t)
    {
        struct problem p = usual(*t);
        pack(&p);
        for (size_t i = 0; i < COUNT(hints); i++)
            check(&p, (sonde_encoding){.pick = SONDE_PICK_BATCH, .k = 5 * p.n_rows, .hint = hints[i]}, *t);
        free_problem(&p);
    }
}

static void more_than_max_entries_are_counted_and_not_kept(void **state)
{
    (void)state;
    struct problem p = usual(NULL);
    sonde_sparse got = {0};
    sonde_encode_space *space;
    sonde_err err;
    size_t n_want, n_got;
    pack(&p);
    sonde_encoding e = {.w = &p.w, .bias = p.bias, .pick = SONDE_PICK_ABOVE, .bound = p.bound};
    assert_int_equal(sonde_encode_space_new(1, NULL, &space, &err), SONDE_OK);
    assert_int_equal(sonde_encode_rows(&e, p.x, p.d, p.n_rows, NULL, space, &got, &n_want, &err), SONDE_OK);
    assert_true(n_want > 1);
    e.w16 = &p.w16, e.rows = p.rows;
    for (size_t limit = 1; limit < 2 * n_want; limit += n_want / 2) {
        e.max_entries = limit;
        assert_int_equal(sonde_encode_rows(&e, p.x, p.d, p.n_rows, NULL, space, &got, &n_got, &err),
                         SONDE_OK);
        assert_int_equal(n_got, n_want);
        assert_int_equal(got.start[p.n_rows], n_want > limit ? 0 : n_want);
    }
    sonde_encode_space_free(space);
    sonde_sparse_free(&got);
    free_problem(&p);
}

static void memory_that_runs_out_is_an_error(void **state)
{
    (void)state;
    struct problem p = usual(NULL);
    pack(&p);
    for (int pick = SONDE_PICK_ABOVE; pick <= SONDE_PICK_BATCH; pick++) {
        const sonde_encoding e = {.w = &p.w,
                                  .w16 = &p.w16,
                                  .rows = p.rows,
                                  .pick = (enum sonde_pick)pick,
                                  .bound = p.bound,
                                  .k = pick == SONDE_PICK_ROW ? 4 : 4 * p.n_rows};
        enum sonde_code code = SONDE_E_MEMORY;
        for (size_t limit = 1 << 14; code == SONDE_E_MEMORY; limit += limit / 16) {
            sonde_budget budget = {.limit = limit};
            sonde_sparse got = {.budget = &budget};
            sonde_encode_space *space;
            sonde_err err;
            code = sonde_encode_space_new(1, &budget, &space, &err);
            if (!code) {
                code = sonde_encode_rows(&e, p.x, p.d, p.n_rows, NULL, space, &got, NULL, &err);
                sonde_encode_space_free(space);
            }
            sonde_sparse_free(&got);
            assert_int_equal(budget.taken, 0);
        }
        assert_int_equal(code, SONDE_OK);
    }
    free_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(latents_and_values_are_float32s_on_usual_rows),
        cmocka_unit_test(ties_fall_as_in_float32),
        cmocka_unit_test(columns_that_bfloat16_can_not_tell_apart_are_told_apart),
        cmocka_unit_test(columns_at_the_edge_of_the_bound_win_as_in_float32),
        cmocka_unit_test(rows_that_are_no_usual_numbers_come_out_as_in_float32),
        cmocka_unit_test(rows_of_zeros_come_out_as_in_float32),
        cmocka_unit_test(hints_change_nothing),
        cmocka_unit_test(more_than_max_entries_are_counted_and_not_kept),
        cmocka_unit_test(memory_that_runs_out_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
