/* SPDX-License-Identifier: MIT
 * Cross-entropy and top log-probabilities against float64. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "ops/loss.h"

#define ROWS 9

static const size_t widths[] = {1, 2, 15, 16, 17, 61, 512, 1000, 50257};

/* Rows of different spread: nearly flat, usual, one that dwarfs the others, all equal, far from zero. */
static float *logits_of(size_t n)
{
    sonde_rng r = sonde_rng_seed(n);
    static const float spread[ROWS] = {1e-3f, 1, 3, 10, 40, 0, 1, 1, 5},
                       centre[ROWS] = {0, 0, 0, 0, 0, 2, 1000, -3000, 0};
    float *x = malloc(ROWS * n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < ROWS * n; i++)
        x[i] = centre[i / n] + spread[i / n] * (float)sonde_rng_normal(&r);
    x[8 * n + n / 2] = 300;
    return x;
}

static double logsumexp(const float *x, size_t n)
{
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - most);
    return most + log(sum);
}

/* The exponentials are rounded to float32 (2^-23 of the sum, so of the loss), the result once more. */
static void near(const char *what, size_t n, size_t row, double got, double want)
{
    if (!(fabs(got - want) <= 3e-7 + 1.2e-7 * fabs(want)))
        fail_msg("%s of row %zu of %zu: %.9g, should be %.9g", what, row, n, got, want);
}

static void loss_is_minus_the_log_softmax_of_the_target(void **state)
{
    (void)state;
    const sonde_kernels *k = sonde_kernels_best();
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        size_t n = widths[w];
        float *x = logits_of(n), loss[ROWS];
        int32_t target[ROWS];
        for (size_t r = 0; r < ROWS; r++)
            target[r] = (int32_t)(r * 7919 % n);
        sonde_token_loss(k, x, ROWS, n, target, loss);
        for (size_t r = 0; r < ROWS; r++)
            near("loss", n, r, (double)loss[r],
                 logsumexp(x + r * n, n) - (double)x[r * n + (size_t)target[r]]);
        free(x);
    }
}

static void a_target_that_is_none_gives_nan(void **state)
{
    (void)state;
    float x[6] = {1, 2, 3, 4, 5, 6}, loss[3];
    sonde_token_loss(sonde_kernels_best(), x, 3, 2, (const int32_t[]){-1, 2, 1}, loss);
    assert_true(isnan(loss[0]) && isnan(loss[1]) && isfinite(loss[2]));
}

static void top_log_probabilities_are_the_largest_in_order(void **state)
{
    (void)state;
    const sonde_kernels *k = sonde_kernels_best();
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        size_t n = widths[w], top = n < 20 ? n : 20;
        float *x = logits_of(n), *p = malloc(ROWS * top * sizeof *p);
        int32_t *id = malloc(ROWS * top * sizeof *id);
        sonde_top_logprobs(k, x, ROWS, n, top, id, p);
        for (size_t r = 0; r < ROWS; r++)
            for (size_t i = 0; i < top; i++) {
                const float *row = x + r * n;
                int32_t at = id[r * top + i];
                size_t better = 0;
                for (size_t j = 0; j < n; j++)
                    better += row[j] > row[at] || (row[j] == row[at] && j < (size_t)at);
                assert_int_equal(better, i); /* ties go to the smaller id */
                near("log-probability", n, r, (double)p[r * top + i], (double)row[at] - logsumexp(row, n));
            }
        free(x);
        free(p);
        free(id);
    }
}

static void kernels_and_neighbours_change_no_bit(void **state)
{
    (void)state;
    sonde_err err = {0};
    size_t n = 1000, top = 7;
    float *x = logits_of(n), loss[ROWS], p[ROWS * 7];
    int32_t target[ROWS] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, id[ROWS * 7];
    sonde_token_loss(sonde_kernels_best(), x, ROWS, n, target, loss);
    sonde_top_logprobs(sonde_kernels_best(), x, ROWS, n, top, id, p);
    for (const char *const *name = sonde_kernels_list(); *name; name++) {
        const sonde_kernels *k;
        assert_int_equal(sonde_kernels_find(*name, &k, &err), SONDE_OK);
        for (size_t r = 0; r < ROWS; r++) {
            float one, q[7];
            int32_t at[7];
            sonde_token_loss(k, x + r * n, 1, n, target + r, &one);
            sonde_top_logprobs(k, x + r * n, 1, n, top, at, q);
            assert_memory_equal(&one, loss + r, sizeof one);
            assert_memory_equal(at, id + r * top, sizeof at);
            assert_memory_equal(q, p + r * top, sizeof q);
        }
    }
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_is_minus_the_log_softmax_of_the_target),
        cmocka_unit_test(a_target_that_is_none_gives_nan),
        cmocka_unit_test(top_log_probabilities_are_the_largest_in_order),
        cmocka_unit_test(kernels_and_neighbours_change_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
