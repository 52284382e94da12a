/* SPDX-License-Identifier: MIT */
#include "num_cases.h"

#include <stdio.h>

#include "base/rng.h"
#include "sae/encode.h"

/* A problem in whole numbers: every product and sum is exact in float, so that the reference in double has
 * the same bits, and ties are everywhere. */
struct problem {
    size_t d, f, n_rows;
    float *x, *w_rows, *bias, *bound;
    sonde_packed w;
};

static struct problem whole_numbers(const sonde_kernels *k, size_t d, size_t f, size_t n_rows, uint64_t seed)
{
    struct problem p = {.d = d, .f = f, .n_rows = n_rows};
    sonde_rng root = sonde_rng_seed(seed);
    p.x = need(n_rows * d, sizeof *p.x);
    p.w_rows = need(f * d, sizeof *p.w_rows);
    p.bias = need(f, sizeof *p.bias);
    p.bound = need(f, sizeof *p.bound);
    for (size_t i = 0; i < n_rows * d; i++)
        p.x[i] = (float)sonde_rng_below(&root, 5) - 2;
    for (size_t r = 1; r < n_rows; r += 3) /* duplicate rows are common */
        memcpy(p.x + r * d, p.x, d * sizeof *p.x);
    for (size_t i = 0; i < f * d; i++)
        p.w_rows[i] = (float)sonde_rng_below(&root, 3) - 1;
    for (size_t i = 0; i < f; i++) {
        p.bias[i] = (float)sonde_rng_below(&root, 3) - 1;
        p.bound[i] = (float)sonde_rng_below(&root, 5) - 1;
    }
    p.w = (sonde_packed){k, d, f, need(sonde_packed_floats(k, d, f), sizeof(float))};
    sonde_pack(&p.w, 0, d, 0, f, p.w_rows, 1, d);
    return p;
}

static void free_problem(struct problem *p)
{
    free(p->x), free(p->w_rows), free(p->bias), free(p->bound), free(p->w.data);
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

/* The encoding with 1, 2 and 3 threads against the reference. */
static void check(const struct problem *p, const sonde_encoding *e, const char *what)
{
    sonde_sparse want = {0}, got = {0};
    sonde_err err;
    assert_int_equal(ref_encode_rows(e, p->x, p->d, p->n_rows, &want, &err), SONDE_OK);
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        sonde_pool *pool;
        sonde_encode_space *space;
        assert_int_equal(sonde_pool_new(n_threads, &pool, &err), SONDE_OK);
        assert_int_equal(sonde_encode_space_new(n_threads, NULL, &space, &err), SONDE_OK);
        for (int again = 0; again < 2; again++) {
            assert_int_equal(sonde_encode_rows(e, p->x, p->d, p->n_rows, pool, space, &got, NULL, &err),
                             SONDE_OK);
            assert_equal_sparse(&got, &want, what);
        }
        sonde_encode_space_free(space);
        sonde_pool_free(pool);
    }
    sonde_sparse_free(&want);
    sonde_sparse_free(&got);
}

static const struct {
    size_t d, f, n_rows;
} shapes[] = {{1, 1, 1}, {3, 20, 5}, {8, 127, 113}, {16, 300, 230}, {5, 640, 40}, {40, 1024, 60}};

static void for_each_problem(void (*fn)(const struct problem *p, const char *what))
{
    FOR_TABLES(t)
    for (size_t s = 0; s < COUNT(shapes); s++) {
        struct problem p =
            whole_numbers(kernels_named(*t), shapes[s].d, shapes[s].f, shapes[s].n_rows, s + 1);
        char what[64];
        snprintf(what, sizeof what, "%s, %zu x %zu x %zu", *t, p.n_rows, p.d, p.f);
        fn(&p, what);
        free_problem(&p);
    }
}

static void rows_of(const struct problem *p, const char *what)
{
    const size_t ks[] = {1, 2, 7, 32, 300, p->f};
    for (size_t i = 0; i < COUNT(ks); i++)
        for (int sign = 0; sign < 2; sign++)
            if (ks[i] <= p->f)
                check(p,
                      &(sonde_encoding){.w = &p->w,
                                        .bias = i % 2 ? p->bias : NULL,
                                        .pick = SONDE_PICK_ROW,
                                        .k = ks[i],
                                        .any_sign = sign},
                      what);
}

static void the_k_largest_of_each_row_are_those_of_the_reference(void **state)
{
    (void)state;
    for_each_problem(rows_of);
}

static void batches_of(const struct problem *p, const char *what)
{
    const size_t all = p->n_rows * p->f, ks[] = {1, 2, 100, p->n_rows * 8, all / 3 + 1, all, all + 5};
    for (size_t i = 0; i < COUNT(ks); i++)
        check(p,
              &(sonde_encoding){
                  .w = &p->w, .bias = i % 2 ? p->bias : NULL, .pick = SONDE_PICK_BATCH, .k = ks[i]},
              what);
}

static void the_k_largest_of_the_batch_are_those_of_the_reference(void **state)
{
    (void)state;
    for_each_problem(batches_of);
}

static void hints_of(const struct problem *p, const char *what)
{
    const float hints[] = {-1, 1, 2, 3, 5, 9, 1e30f, INFINITY, NAN};
    for (size_t i = 0; i < COUNT(hints); i++)
        check(p,
              &(sonde_encoding){
                  .w = &p->w, .bias = p->bias, .pick = SONDE_PICK_BATCH, .k = 150, .hint = hints[i]},
              what);
}

static void hints_change_nothing(void **state)
{
    (void)state;
    for_each_problem(hints_of);
}

static void groups_of(const struct problem *p, const char *what)
{
    for (size_t k = 1; k <= p->f; k++)
        if (p->f % k == 0)
            check(p,
                  &(sonde_encoding){
                      .w = &p->w, .bias = k % 2 ? p->bias : NULL, .pick = SONDE_PICK_GROUP, .k = k},
                  what);
}

static void the_largest_of_each_group_is_that_of_the_reference(void **state)
{
    (void)state;
    for_each_problem(groups_of);
}

static void bounds_of(const struct problem *p, const char *what)
{
    check(p, &(sonde_encoding){.w = &p->w, .bias = p->bias, .pick = SONDE_PICK_ABOVE, .bound = p->bound},
          what);
}

static void what_is_above_its_bound_is_that_of_the_reference(void **state)
{
    (void)state;
    for_each_problem(bounds_of);
}

static void rows_that_are_all_equal_keep_the_first_rows_of_the_batch(void **state)
{
    (void)state;
    struct problem p = whole_numbers(sonde_kernels_best(), 6, 256, 700, 3);
    for (size_t r = 1; r < p.n_rows; r++)
        memcpy(p.x + r * p.d, p.x, p.d * sizeof *p.x);
    for (size_t k = 1; k < 5000; k = 3 * k + 1)
        check(&p, &(sonde_encoding){.w = &p.w, .pick = SONDE_PICK_BATCH, .k = k}, "equal rows");
    free_problem(&p);
}

static void neighbouring_floats_are_told_apart(void **state)
{
    (void)state;
    for (unsigned wide = 1; wide <= 24; wide++) {
        struct problem p = whole_numbers(sonde_kernels_best(), 1, 900, 2, 3);
        sonde_rng rng = sonde_rng_seed(wide);
        for (size_t i = 0; i < p.f; i++)
            p.w_rows[i] = sonde_bits_f32(0x3f800000u + (uint32_t)sonde_rng_below(&rng, (uint64_t)1 << wide));
        sonde_pack(&p.w, 0, 1, 0, p.f, p.w_rows, 1, 1);
        p.x[0] = p.x[1] = 1.0f;
        for (size_t k = 1; k < 2 * p.f; k = 2 * k + 3)
            check(&p, &(sonde_encoding){.w = &p.w, .pick = SONDE_PICK_BATCH, .k = k}, "neighbours");
        check(&p, &(sonde_encoding){.w = &p.w, .pick = SONDE_PICK_ROW, .k = 100}, "neighbours");
        free_problem(&p);
    }
}

static void more_than_max_entries_are_counted_and_not_kept(void **state)
{
    (void)state;
    struct problem p = whole_numbers(sonde_kernels_best(), 8, 500, 300, 1);
    sonde_encoding e = {.w = &p.w, .pick = SONDE_PICK_ABOVE, .bound = p.bound};
    sonde_sparse want = {0}, got = {0};
    sonde_encode_space *space;
    sonde_pool *pool;
    sonde_err err;
    size_t n;
    assert_int_equal(ref_encode_rows(&e, p.x, p.d, p.n_rows, &want, &err), SONDE_OK);
    const size_t all = want.start[p.n_rows];
    assert_int_equal(sonde_pool_new(2, &pool, &err), SONDE_OK);
    assert_int_equal(sonde_encode_space_new(2, NULL, &space, &err), SONDE_OK);
    const size_t limits[] = {all, all - 1, 1, 1000};
    for (size_t i = 0; i < COUNT(limits); i++) {
        e.max_entries = limits[i];
        assert_int_equal(sonde_encode_rows(&e, p.x, p.d, p.n_rows, pool, space, &got, &n, &err), SONDE_OK);
        assert_int_equal(n, all);
        if (limits[i] == all)
            assert_equal_sparse(&got, &want, "at the limit");
        else
            assert_int_equal(got.start[p.n_rows], 0);
    }
    sonde_encode_space_free(space);
    sonde_pool_free(pool);
    sonde_sparse_free(&want);
    sonde_sparse_free(&got);
    free_problem(&p);
}

/* Real numbers: the values are the chains of sonde_matmul, bit for bit, for any number of threads. */
static void values_are_the_bits_of_the_product(void **state)
{
    (void)state;
    enum { D = 96, F = 700, ROWS = 150, K = 9 };
    float *x = numbers(ROWS * D, 1), *w = numbers(F * D, 2), *z = numbers(ROWS * F, 3), *b = numbers(F, 4);
    FOR_TABLES(t)
    {
        const sonde_kernels *k = kernels_named(*t);
        sonde_packed p = {k, D, F, need(sonde_packed_floats(k, D, F), sizeof(float))};
        sonde_encoding e = {.w = &p, .bias = b, .pick = SONDE_PICK_BATCH, .k = K * ROWS};
        sonde_encode_space *space;
        sonde_sparse got = {0};
        sonde_err err;
        sonde_pack(&p, 0, D, 0, F, w, 1, D);
        sonde_matmul(&p, 0, 0, F, x, D, ROWS, z, F, &(sonde_epilogue){.bias = b});
        assert_int_equal(sonde_encode_space_new(1, NULL, &space, &err), SONDE_OK);
        assert_int_equal(sonde_encode_rows(&e, x, D, ROWS, NULL, space, &got, NULL, &err), SONDE_OK);
        assert_int_equal(got.start[ROWS], K * ROWS);
        float last = INFINITY;
        for (size_t r = 0; r < ROWS; r++)
            for (size_t i = got.start[r]; i < got.start[r + 1]; i++) {
                if (strcmp(*t, "openblas") != 0)
                    assert_true(same(got.value[i], z[r * F + got.col[i]]));
                last = got.value[i] < last ? got.value[i] : last;
            }
        size_t above = 0;
        for (size_t i = 0; i < ROWS * F; i++)
            above += z[i] > last;
        if (strcmp(*t, "openblas") != 0)
            assert_int_equal(above, K * ROWS - 1);
        sonde_encode_space_free(space);
        sonde_sparse_free(&got);
        free(p.data);
    }
    free(x), free(w), free(z), free(b);
}

static void nan_and_minus_infinity_never_pass(void **state)
{
    (void)state;
    struct problem p = whole_numbers(sonde_kernels_best(), 4, 200, 10, 1);
    for (size_t i = 0; i < p.d; i++)
        p.x[3 * p.d + i] = NAN;
    p.bias[7] = -INFINITY;
    p.bias[9] = NAN;
    sonde_encoding e = {.w = &p.w, .bias = p.bias, .pick = SONDE_PICK_ROW, .k = 200, .any_sign = true};
    sonde_encode_space *space;
    sonde_sparse got = {0};
    sonde_err err;
    assert_int_equal(sonde_encode_space_new(1, NULL, &space, &err), SONDE_OK);
    assert_int_equal(sonde_encode_rows(&e, p.x, p.d, p.n_rows, NULL, space, &got, NULL, &err), SONDE_OK);
    for (size_t r = 0; r < 10; r++)
        assert_int_equal(got.start[r + 1] - got.start[r], r == 3 ? 0 : 198);
    e.pick = SONDE_PICK_BATCH;
    assert_int_equal(sonde_encode_rows(&e, p.x, p.d, p.n_rows, NULL, space, &got, NULL, &err), SONDE_OK);
    assert_int_equal(got.start[4] - got.start[3], 0);
    sonde_encode_space_free(space);
    sonde_sparse_free(&got);
    free_problem(&p);
}

static void misuse_is_refused(void **state)
{
    (void)state;
    struct problem p = whole_numbers(sonde_kernels_best(), 4, 20, 10, 1);
    sonde_packed16 w16 = {0};
    sonde_encode_space *space;
    sonde_sparse got = {0};
    sonde_pool *pool;
    sonde_err err;
    assert_int_equal(sonde_encode_space_new(1, NULL, &space, &err), SONDE_OK);
    assert_int_equal(sonde_encode_space_new(0, NULL, &space, &err), SONDE_E_USAGE);
    const sonde_encoding wrong[] = {{.w = &p.w, .pick = SONDE_PICK_ROW, .k = 21},
                                    {.w = &p.w, .pick = SONDE_PICK_GROUP, .k = 21},
                                    {.w = &p.w, .pick = SONDE_PICK_GROUP, .k = 3},
                                    {.w = &p.w, .pick = SONDE_PICK_GROUP},
                                    {.w = &p.w, .pick = SONDE_PICK_ABOVE},
                                    {.w = &p.w, .w16 = &w16, .pick = SONDE_PICK_ROW, .k = 1}};
    for (size_t i = 0; i < COUNT(wrong); i++)
        assert_int_equal(sonde_encode_rows(&wrong[i], p.x, p.d, p.n_rows, NULL, space, &got, NULL, &err),
                         SONDE_E_USAGE);
    assert_int_equal(sonde_pool_new(2, &pool, &err), SONDE_OK);
    const sonde_encoding right = {.w = &p.w, .pick = SONDE_PICK_ROW, .k = 1};
    assert_int_equal(sonde_encode_rows(&right, p.x, p.d, p.n_rows, pool, space, &got, NULL, &err),
                     SONDE_E_USAGE);
    assert_int_equal(sonde_encode_rows(&right, p.x, p.d, 0, NULL, space, &got, NULL, &err), SONDE_OK);
    assert_int_equal(got.start[0], 0);
    sonde_pool_free(pool);
    sonde_encode_space_free(space);
    sonde_sparse_free(&got);
    free_problem(&p);
}

static void the_budget_is_kept_and_given_back(void **state)
{
    (void)state;
    struct problem p = whole_numbers(sonde_kernels_best(), 8, 900, 600, 1);
    const sonde_encoding all[] = {
        {.w = &p.w, .pick = SONDE_PICK_ROW, .k = 50},
        {.w = &p.w, .pick = SONDE_PICK_BATCH, .k = 50000},
        {.w = &p.w, .pick = SONDE_PICK_GROUP, .k = 300},
        {.w = &p.w, .pick = SONDE_PICK_ABOVE, .bound = p.bound},
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        sonde_budget budget = {.limit = 0};
        int refused = 0;
        for (size_t limit = 150000;; limit += limit / 4) {
            sonde_sparse got = {.budget = &budget};
            sonde_encode_space *space;
            sonde_err err;
            budget.limit = limit;
            assert_int_equal(sonde_encode_space_new(1, &budget, &space, &err), SONDE_OK);
            const enum sonde_code code =
                sonde_encode_rows(&all[i], p.x, p.d, p.n_rows, NULL, space, &got, NULL, &err);
            assert_true(atomic_load(&budget.taken) <= limit);
            sonde_encode_space_free(space);
            sonde_sparse_free(&got);
            assert_int_equal(atomic_load(&budget.taken), 0);
            if (code == SONDE_OK)
                break;
            assert_int_equal(code, SONDE_E_MEMORY);
            refused++;
        }
        assert_true(refused > 0);
    }
    free_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_k_largest_of_each_row_are_those_of_the_reference),
        cmocka_unit_test(the_k_largest_of_the_batch_are_those_of_the_reference),
        cmocka_unit_test(hints_change_nothing),
        cmocka_unit_test(the_largest_of_each_group_is_that_of_the_reference),
        cmocka_unit_test(what_is_above_its_bound_is_that_of_the_reference),
        cmocka_unit_test(rows_that_are_all_equal_keep_the_first_rows_of_the_batch),
        cmocka_unit_test(neighbouring_floats_are_told_apart),
        cmocka_unit_test(more_than_max_entries_are_counted_and_not_kept),
        cmocka_unit_test(values_are_the_bits_of_the_product),
        cmocka_unit_test(nan_and_minus_infinity_never_pass),
        cmocka_unit_test(misuse_is_refused),
        cmocka_unit_test(the_budget_is_kept_and_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
