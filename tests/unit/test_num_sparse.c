/* SPDX-License-Identifier: MIT */
#include "num_cases.h"

#include "num/sparse.h"

static const size_t lengths[] = {0,  1,  2,  7,   8,   15,  16,  17,  31,  32,  33,  63,  64,
                                 65, 80, 96, 127, 128, 129, 255, 256, 257, 320, 768, 1000};

/* The stated order: lane i mod 16 by fmaf, then a pairwise tree. Lanes beyond the end add +0. */
static float plain_dot(const float *a, const float *b, size_t n)
{
    float s[16] = {0};
    for (size_t i = 0; i < (n + 15) / 16 * 16; i++)
        s[i % 16] = i < n ? fmaf(a[i], b[i], s[i % 16]) : s[i % 16] + 0.0f;
    for (int h = 8; h; h /= 2)
        for (int i = 0; i < h; i++)
            s[i] += s[i + h];
    return s[0];
}

static void check_scan(const char *table, const float *v, size_t n, const float *bound, int each)
{
    uint32_t *col = need(n + 1, sizeof *col), *want_col = need(n + 1, sizeof *col);
    float *value = canaries(n + 1), *want = canaries(n + 1);
    const sonde_kernels *k = kernels_named(table);
    memset(col, 0xee, (n + 1) * sizeof *col);
    const size_t expected = ref_scan_above(v, n, bound, 1000, want_col, want);
    const size_t got = each ? sonde_scan_above_each(k, v, n, bound, 1000, col, value)
                            : sonde_scan_above(k, v, n, n ? bound[0] : 0, 1000, col, value);
    assert_int_equal(got, expected);
    assert_memory_equal(col, want_col, got * sizeof *col);
    assert_same(value, want, got, table);
    assert_true(is_canary(value[n]) && col[n] == 0xeeeeeeee);
    if (!each)
        assert_int_equal(sonde_count_above(k, v, n, n ? bound[0] : 0), expected);
    free(col), free(want_col), free(value), free(want);
}

static void scans_keep_what_is_above_in_order_and_stay_within_n(void **state)
{
    (void)state;
    FOR_TABLES(t)
    for (size_t c = 0; c < COUNT(lengths); c++)
        for (int at = 0; at < 5; at++) {
            const size_t n = lengths[c];
            float *v = numbers(n, c), *one = need(n + 1, sizeof *one), *each = numbers(n, 77);
            const float level = at < 4 ? (const float[]){-2.0f, 0.0f, 0.9f, 2.0f}[at] : v[n / 2];
            for (size_t i = 0; i < n; i++)
                one[i] = level;
            check_scan(*t, v, n, one, 0);
            check_scan(*t, v, n, each, 1);
            free(v), free(one), free(each);
        }
}

static void scans_never_let_nan_pass_and_bounds_are_strict(void **state)
{
    (void)state;
    float v[37], bound[37];
    for (size_t i = 0; i < 37; i++) {
        v[i] = i % 3 ? NAN : 1.0f;
        bound[i] = i % 2 ? 1.0f : 0.5f;
    }
    v[5] = INFINITY;
    v[36] = INFINITY;
    FOR_TABLES(t)
    {
        check_scan(*t, v, 37, bound, 1);
        for (size_t i = 0; i < 37; i++)
            bound[i] = 1.0f;
        check_scan(*t, v, 37, bound, 0);
        for (size_t i = 0; i < 37; i++)
            bound[i] = i % 2 ? NAN : -INFINITY;
        check_scan(*t, v, 37, bound, 1);
    }
}

/* The k largest of entries with many equal values, by passes over them. */
static void check_keep(const char *table, size_t n, size_t k, uint64_t seed, float levels)
{
    float *v = numbers(n + 1, seed), *want = need(n + 1, sizeof *want), smallest = INFINITY;
    uint32_t *col = need(n + 1, sizeof *col), *want_col = need(n + 1, sizeof *col);
    char *taken = need(n + 1, 1);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        v[i] = levels > 0 ? floorf(v[i] * levels) / levels : v[i];
        v[i] = v[i] == 0 && i % 2 ? -0.0f : v[i];
        col[i] = (uint32_t)(3 * i);
    }
    for (size_t j = 0; j < k; j++) {
        size_t best = n;
        for (size_t i = 0; i < n; i++)
            if (!taken[i] && (best == n || v[i] > v[best]))
                best = i;
        taken[best] = 1;
        smallest = v[best];
    }
    for (size_t i = 0; i < n; i++)
        if (taken[i]) {
            want[at] = v[i];
            want_col[at++] = col[i];
        }
    v[n] = sonde_bits_f32(CANARY);
    assert_true(sonde_kth_largest(kernels_named(table), n, k, v) == smallest);
    const float got = sonde_keep_largest(kernels_named(table), n, k, col, v);
    assert_true(got == smallest);
    assert_same(v, want, k, table);
    assert_memory_equal(col, want_col, k * sizeof *col);
    assert_true(is_canary(v[n]));
    free(v), free(want), free(col), free(want_col), free(taken);
}

static void the_k_largest_stay_in_order_and_the_first_of_equals_win(void **state)
{
    (void)state;
    const float levels[] = {0, 1, 5, 60};
    FOR_TABLES(t)
    for (size_t n = 1; n < 300; n += n < 40 ? 1 : 37)
        for (size_t k = 1; k <= n; k += k < 5 ? 1 : n / 4 + 1)
            for (size_t l = 0; l < COUNT(levels); l++)
                check_keep(*t, n, k, n + k, levels[l]);
}

static void gather_sum_is_one_chain_per_element_in_every_table(void **state)
{
    (void)state;
    enum { ROWS = 40, LD = 1007 };
    float *w = numbers(ROWS * LD, 1), *value = numbers(64, 2), *from = numbers(LD, 3), *bias = numbers(LD, 4);
    uint32_t index[64];
    for (size_t i = 0; i < 64; i++)
        index[i] = (uint32_t)(i * 23 % ROWS);
    FOR_TABLES(t)
    for (size_t c = 0; c < COUNT(lengths); c++)
        for (size_t n = 0; n <= 33; n += n < 9 ? 1 : 24)
            for (int flags = 0; flags < 8; flags++) {
                const size_t d = lengths[c];
                const float *b = flags & 1 ? bias : NULL;
                float *y = canaries(d + 1), *want = need(d + 1, sizeof *want);
                if (flags & 4) /* in place */
                    memcpy(y, from, d * sizeof *y);
                const float *f = flags & 4 ? y : flags & 2 ? from : NULL;
                for (size_t i = 0; i < d; i++) {
                    float acc = f ? from[i] : 0.0f;
                    for (size_t j = 0; j < n; j++)
                        acc = fmaf(value[j], w[index[j] * LD + i], acc);
                    want[i] = b ? acc + b[i] : acc;
                }
                sonde_gather_sum(kernels_named(*t), n, index, value, w, LD, d, f, b, y);
                assert_same(y, want, d, *t);
                assert_true(is_canary(y[d]));
                free(y), free(want);
            }
    free(w), free(value), free(from), free(bias);
}

static void sums_and_dots_stay_near_the_double_reference(void **state)
{
    (void)state;
    enum { ROWS = 16, D = 768 };
    float *w = numbers(ROWS * D, 1), *value = numbers(ROWS, 2), y[D], want[D], dots[ROWS], want_dots[ROWS];
    uint32_t index[ROWS];
    for (uint32_t i = 0; i < ROWS; i++)
        index[i] = (i * 5) % ROWS;
    FOR_TABLES(t)
    {
        sonde_gather_sum(kernels_named(*t), ROWS, index, value, w, D, D, NULL, NULL, y);
        ref_gather_sum(ROWS, index, value, w, D, D, NULL, NULL, want);
        for (size_t i = 0; i < D; i++) /* 16 roundings of sums below 16 */
            assert_true(fabsf(y[i] - want[i]) <= 16 * 16 * 0x1p-24f);
        sonde_gather_dot(kernels_named(*t), ROWS, index, w, D, D, w + 3, dots);
        ref_gather_dot(ROWS, index, w, D, D, w + 3, want_dots);
        for (size_t i = 0; i < ROWS; i++) /* 48 roundings in lanes of sums below 48, and a tree */
            assert_true(fabsf(dots[i] - want_dots[i]) <= 768 * 52 * 0x1p-24f);
    }
    free(w), free(value);
}

static void dots_run_in_sixteen_lanes_in_every_table(void **state)
{
    (void)state;
    enum { ROWS = 11, LD = 1003 };
    float *w = numbers(ROWS * LD, 5), *u = numbers(LD, 6), out[12];
    uint32_t index[11];
    for (uint32_t i = 0; i < 11; i++)
        index[i] = (i * 7) % ROWS;
    FOR_TABLES(t)
    for (size_t c = 0; c < COUNT(lengths); c++)
        for (size_t n = 0; n <= 11; n++) {
            const size_t d = lengths[c];
            out[n] = sonde_bits_f32(CANARY);
            sonde_gather_dot(kernels_named(*t), n, index, w, LD, d, u, out);
            for (size_t j = 0; j < n; j++)
                assert_true(same(out[j], plain_dot(w + index[j] * LD, u, d)));
            assert_true(is_canary(out[n]));
            assert_true(same(sonde_dot(kernels_named(*t), d, w, u), plain_dot(w, u, d)));
        }
    free(w), free(u);
}

static void sum_of_squares_runs_in_sixteen_double_lanes(void **state)
{
    (void)state;
    float *x = numbers(1000, 9);
    FOR_TABLES(t)
    for (size_t c = 0; c < COUNT(lengths); c++) {
        double s[16] = {0};
        for (size_t i = 0; i < lengths[c]; i++)
            s[i % 16] += (double)x[i] * (double)x[i];
        for (int h = 8; h; h /= 2)
            for (int i = 0; i < h; i++)
                s[i] += s[i + h];
        const double got = sonde_sum_squares(kernels_named(*t), lengths[c], x);
        assert_memory_equal(&got, s, sizeof got);
    }
    x[3] = NAN;
    x[20] = INFINITY;
    FOR_TABLES(t)
    {
        assert_true(isnan(sonde_sum_squares(kernels_named(*t), 10, x)));
        assert_true(isinf(sonde_sum_squares(kernels_named(*t), 10, x + 11)));
    }
    free(x);
}

static void elementwise_passes_are_one_operation_per_element(void **state)
{
    (void)state;
    float *x = numbers(1000, 1), *z = numbers(1000, 2), *want = need(1000, sizeof *want);
    FOR_TABLES(t)
    for (size_t c = 0; c < COUNT(lengths); c++) {
        const sonde_kernels *k = kernels_named(*t);
        const size_t n = lengths[c];
        float *y = canaries(1001);
        memcpy(y, z, n * sizeof *y);
        for (size_t i = 0; i < n; i++)
            want[i] = fmaf(1.7f, x[i], z[i]);
        sonde_axpy(k, n, 1.7f, x, y);
        assert_same(y, want, n, "axpy");
        for (size_t i = 0; i < n; i++)
            want[i] *= 0.3f;
        sonde_scale(k, n, 0.3f, y, y);
        assert_same(y, want, n, "scale");
        for (size_t i = 0; i < n; i++)
            want[i] -= x[i];
        sonde_vec_sub(k, n, y, x, y);
        assert_same(y, want, n, "sub");
        assert_true(is_canary(y[n]));
        free(y);
    }
    free(x), free(z), free(want);
}

static const sonde_adam adam = {.clip = 0.7f,
                                .beta1 = 0.9f,
                                .beta2 = 0.999f,
                                .eps = 1e-8f,
                                .step = 3e-3f,
                                .sqrt_correction2 = 0.0316f,
                                .rest1 = 0.1f,
                                .rest2 = 0.001f};

static void adam_does_the_stated_operations_in_every_table(void **state)
{
    (void)state;
    float *g = numbers(1000, 1), *w0 = numbers(1000, 2), *m0 = numbers(1000, 3), *v0 = numbers(1000, 4);
    float *w = canaries(1001), *m = canaries(1001), *v = canaries(1001);
    for (size_t i = 0; i < 1000; i++)
        v0[i] = fabsf(v0[i]);
    FOR_TABLES(t)
    for (size_t c = 0; c < COUNT(lengths); c++)
        for (int named = 0; named < 2; named++) {
            const size_t n = lengths[c];
            sonde_adam o = adam;
            if (!named)
                o.rest1 = o.rest2 = 0.0f;
            const float rest1 = named ? 0.1f : 1.0f - 0.9f, rest2 = named ? 0.001f : 1.0f - 0.999f;
            memcpy(w, w0, n * sizeof *w), memcpy(m, m0, n * sizeof *m), memcpy(v, v0, n * sizeof *v);
            w[n] = m[n] = v[n] = sonde_bits_f32(CANARY);
            sonde_adam_update(kernels_named(*t), &o, n, g, w, m, v);
            for (size_t i = 0; i < n; i++) {
                const float c1 = g[i] * o.clip, mean = fmaf(c1 - m0[i], rest1, m0[i]);
                const float square = fmaf(c1 * c1, rest2, v0[i] * o.beta2);
                const float root = sqrtf(square) / o.sqrt_correction2 + o.eps;
                assert_true(same(m[i], mean) && same(v[i], square));
                assert_true(same(w[i], fmaf(-o.step, mean / root, w0[i])));
            }
            assert_true(is_canary(w[n]) && is_canary(m[n]) && is_canary(v[n]));
        }
    free(g), free(w0), free(m0), free(v0), free(w), free(m), free(v);
}

static void adam_stays_near_the_double_reference(void **state)
{
    (void)state;
    enum { N = 500 };
    float *g = numbers(N, 1), *w = numbers(N, 2), *m = numbers(N, 3), *v = numbers(N, 4);
    float w1[N], m1[N], v1[N], w2[N], m2[N], v2[N];
    for (size_t i = 0; i < N; i++)
        v[i] = fabsf(v[i]);
    FOR_TABLES(t)
    {
        memcpy(w1, w, sizeof w1), memcpy(m1, m, sizeof m1), memcpy(v1, v, sizeof v1);
        memcpy(w2, w, sizeof w1), memcpy(m2, m, sizeof m1), memcpy(v2, v, sizeof v1);
        sonde_adam_update(kernels_named(*t), &adam, N, g, w1, m1, v1);
        ref_adam_update(&adam, N, g, w2, m2, v2);
        for (size_t i = 0; i < N; i++) { /* a few roundings of each */
            assert_true(fabsf(m1[i] - m2[i]) <= 4 * 0x1p-24f);
            assert_true(fabsf(v1[i] - v2[i]) <= 4 * 0x1p-24f);
            assert_true(fabsf(w1[i] - w2[i]) <= 0x1p-23f * (1 + 8 * fabsf(w2[i] - w[i])));
        }
    }
    free(g), free(w), free(m), free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scans_keep_what_is_above_in_order_and_stay_within_n),
        cmocka_unit_test(scans_never_let_nan_pass_and_bounds_are_strict),
        cmocka_unit_test(the_k_largest_stay_in_order_and_the_first_of_equals_win),
        cmocka_unit_test(gather_sum_is_one_chain_per_element_in_every_table),
        cmocka_unit_test(sums_and_dots_stay_near_the_double_reference),
        cmocka_unit_test(dots_run_in_sixteen_lanes_in_every_table),
        cmocka_unit_test(sum_of_squares_runs_in_sixteen_double_lanes),
        cmocka_unit_test(elementwise_passes_are_one_operation_per_element),
        cmocka_unit_test(adam_does_the_stated_operations_in_every_table),
        cmocka_unit_test(adam_stays_near_the_double_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
