/* SPDX-License-Identifier: MIT
 * The assignment problem against every permutation and against scipy. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../golden/sae_assign_values.h"
#include "base/rng.h"
#include "sae/assign.h"

#define MOST 7

/* Best sum over all ways to give each of the first side's members another of the second's; recursion of depth
 * <= 7. */
static double best_of(const float *a, size_t ld, size_t n, size_t m, size_t i, unsigned taken, int greatest)
{
    double best = greatest ? -INFINITY : INFINITY;
    if (i == n)
        return 0;
    for (size_t j = 0; j < m; j++) {
        if (taken & 1u << j)
            continue;
        double s = (double)a[i * ld + j] + best_of(a, ld, n, m, i + 1, taken | 1u << j, greatest);
        best = greatest ? fmax(best, s) : fmin(best, s);
    }
    return best;
}

static double brute_force(const float *a, size_t ld, size_t n, size_t m, int greatest)
{
    float t[MOST * MOST];
    if (n <= m)
        return best_of(a, ld, n, m, 0, 0, greatest);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++)
            t[j * n + i] = a[i * ld + j];
    return best_of(t, n, m, n, 0, 0, greatest);
}

static void check_is_matching(const uint32_t *column_of, size_t n, size_t m)
{
    size_t pairs = 0;
    for (size_t i = 0; i < n; i++) {
        if (column_of[i] == UINT32_MAX)
            continue;
        pairs++;
        assert_true(column_of[i] < m);
        for (size_t k = 0; k < i; k++)
            assert_true(column_of[k] != column_of[i]);
    }
    assert_int_equal(pairs, n < m ? n : m);
}

static void sums_equal_the_best_of_all_permutations(void **state)
{
    (void)state;
    sonde_rng r = sonde_rng_seed(5);
    sonde_err err;
    for (int trial = 0; trial < 1500; trial++) {
        size_t n = 1 + sonde_rng_below(&r, MOST), m = 1 + sonde_rng_below(&r, MOST), ld = m + trial % 3;
        float a[MOST * (MOST + 2)];
        for (size_t i = 0; i < n * ld; i++) /* every third: few values, many ties */
            a[i] = trial % 3 ? (float)sonde_rng_normal(&r) : (float)sonde_rng_below(&r, 3);
        for (int greatest = 0; greatest < 2; greatest++) {
            uint32_t column_of[MOST];
            double total, sum = 0;
            assert_int_equal(sonde_assign(a, ld, n, m, greatest ? SONDE_ASSIGN_GREATEST : SONDE_ASSIGN_LEAST,
                                          NULL, column_of, &total, &err),
                             SONDE_OK);
            check_is_matching(column_of, n, m);
            for (size_t i = 0; i < n; i++)
                sum += column_of[i] == UINT32_MAX ? 0 : (double)a[i * ld + column_of[i]];
            assert_true(sum == total);
            assert_true(fabs(total - brute_force(a, ld, n, m, greatest)) < 1e-12);
        }
    }
}

static void pairs_and_sums_equal_scipys(void **state)
{
    (void)state;
    sonde_err err;
    for (size_t c = 0; c < sizeof scipy_cases / sizeof *scipy_cases; c++) {
        const struct scipy_case *k = &scipy_cases[c];
        float *a = malloc(k->n_rows * k->n_cols * sizeof *a);
        uint32_t *column_of = malloc(k->n_rows * sizeof *column_of);
        assert_true(a && column_of);
        uint32_t lcg = (uint32_t)(k->n_rows * 1000 + k->n_cols);
        for (size_t i = 0; i < k->n_rows * k->n_cols; i++) {
            lcg = lcg * 1664525u + 1013904223u;
            a[i] = (float)(lcg >> 12);
        }
        double total;
        assert_int_equal(sonde_assign(a, k->n_cols, k->n_rows, k->n_cols, SONDE_ASSIGN_GREATEST, NULL,
                                      column_of, &total, &err),
                         0);
        assert_true(total == k->greatest);
        assert_int_equal(sonde_assign(a, k->n_cols, k->n_rows, k->n_cols, SONDE_ASSIGN_LEAST, NULL, column_of,
                                      &total, &err),
                         0);
        assert_true(total == k->least);
        char *at = (char *)(uintptr_t)k->columns;
        for (size_t i = 0; i < k->n_rows; i++) {
            long want = strtol(at, &at, 10);
            assert_int_equal(want, column_of[i] == UINT32_MAX ? -1 : (long)column_of[i]);
        }
        free(a);
        free(column_of);
    }
}

static void equal_costs_give_the_diagonal(void **state)
{
    (void)state;
    float a[25] = {0};
    uint32_t column_of[5];
    sonde_err err;
    assert_int_equal(sonde_assign(a, 5, 5, 5, SONDE_ASSIGN_LEAST, NULL, column_of, NULL, &err), SONDE_OK);
    check_is_matching(column_of, 5, 5);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(column_of[i], i);
}

/* Costs that Dijkstra must carry exactly: differences of 2^-20 beside 2^20. */
static void small_differences_beside_large_costs_count(void **state)
{
    (void)state;
    const float a[9] = {0x1p20f, 0x1p20f, 1, 0x1p-20f, 0, 0x1p20f, 0, 0x1p-19f, 0x1p20f};
    uint32_t column_of[3];
    double total;
    sonde_err err;
    assert_int_equal(sonde_assign(a, 3, 3, 3, SONDE_ASSIGN_LEAST, NULL, column_of, &total, &err), SONDE_OK);
    assert_true(total == 1 && column_of[0] == 2 && column_of[1] == 1 && column_of[2] == 0);
}

static void none_is_matched_with_none(void **state)
{
    (void)state;
    uint32_t column_of[3] = {7, 7, 7};
    double total = 5;
    sonde_err err;
    assert_int_equal(sonde_assign(NULL, 0, 0, 4, SONDE_ASSIGN_LEAST, NULL, column_of, &total, &err),
                     SONDE_OK);
    assert_true(total == 0);
    assert_int_equal(sonde_assign(NULL, 0, 3, 0, SONDE_ASSIGN_LEAST, NULL, column_of, &total, &err),
                     SONDE_OK);
    assert_int_equal(column_of[2], UINT32_MAX);
}

static void nan_and_infinity_are_named(void **state)
{
    (void)state;
    float a[6] = {1, 2, 3, 4, NAN, 6};
    uint32_t column_of[2];
    sonde_err err;
    assert_int_equal(sonde_assign(a, 3, 2, 3, SONDE_ASSIGN_LEAST, NULL, column_of, NULL, &err),
                     SONDE_E_NUMERIC);
    assert_string_equal(err.msg, "assignment: row 1, column 1 is not finite");
    a[4] = 0;
    a[2] = -INFINITY;
    assert_int_equal(sonde_assign(a, 3, 2, 3, SONDE_ASSIGN_LEAST, NULL, column_of, NULL, &err),
                     SONDE_E_NUMERIC);
    assert_string_equal(err.msg, "assignment: row 0, column 2 is not finite");
}

static void memory_beyond_the_limit_is_refused(void **state)
{
    (void)state;
    sonde_budget tight = {.limit = 1000};
    const sonde_work work = {.budget = &tight};
    float *a = calloc(200 * 200, sizeof *a);
    uint32_t column_of[200];
    sonde_err err;
    assert_non_null(a);
    assert_int_equal(sonde_assign(a, 200, 200, 200, SONDE_ASSIGN_LEAST, &work, column_of, NULL, &err),
                     SONDE_E_MEMORY);
    assert_int_equal(tight.taken, 0);
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_equal_the_best_of_all_permutations),
        cmocka_unit_test(pairs_and_sums_equal_scipys),
        cmocka_unit_test(equal_costs_give_the_diagonal),
        cmocka_unit_test(small_differences_beside_large_costs_count),
        cmocka_unit_test(none_is_matched_with_none),
        cmocka_unit_test(nan_and_infinity_are_named),
        cmocka_unit_test(memory_beyond_the_limit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
