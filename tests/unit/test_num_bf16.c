/* SPDX-License-Identifier: MIT */
#include "num_cases.h"

#include "num/bf16.h"
#include "num/matmul.h"

static const size_t edges[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129};

static sonde_packed16 pack16(const sonde_kernels *kernels, size_t k, size_t n, const float *w)
{
    const size_t words = sonde_packed16_words(kernels, k, n);
    sonde_packed16 p = {kernels, k, n, need(words, sizeof(uint16_t))};
    assert_true(words >= k * n);
    sonde_pack16(&p, 0, n, w, k);
    return p;
}

/* The definition, over feature-major w. */
static float chain(const float *x, const float *w, size_t d)
{
    float acc = 0;
    for (size_t i = 0; i < d; i++)
        acc = fmaf(x[i], w[i], acc);
    return acc;
}

/* Every column of every row: is the chain where the scan says it is? Returns the largest part of its bound
 * that any error took. */
static double check(const char *table, size_t m, size_t d, size_t n, const float *x, const float *w,
                    const float *bias)
{
    const sonde_kernels *kernels = kernels_named(table);
    const size_t ldx = d + 3, ldy = n + 5;
    sonde_packed16 p = pack16(kernels, d, n, w);
    uint16_t *x16 = need(m * ldx + 1, sizeof *x16);
    memset(x16, 0xff, m * ldx * sizeof *x16); /* NaN beyond the rows */
    sonde_bound16 *bound = need(m, sizeof *bound);
    uint32_t *col = need(n + 16, sizeof *col);
    float *low = need(n + 16, sizeof *low), *high = need(n + 16, sizeof *high);
    float *y = canaries(m * ldy + 16);
    double worst = 0;
    for (size_t i = 0; i < m; i++)
        sonde_round16(kernels, d, x + i * d, x16 + i * ldx, bound + i);
    sonde_matmul16(&p, 0, n, x16, ldx, m, y, ldy);
    for (size_t i = 0; i < m; i++) {
        assert_true(sonde_bound16_holds(bound + i, sonde_packed16_top(&p)));
        assert_int_equal(
            sonde_scan16(&p, bound + i, y + i * ldy, 0, n, bias, -INFINITY, NULL, col, low, high), n);
        for (size_t j = 0; j < ldy; j++) {
            if (j >= n) {
                assert_true(is_canary(y[i * ldy + j]));
                continue;
            }
            const float z = chain(x + i * d, w + j * d, d) + (bias ? bias[j] : 0.0f);
            assert_int_equal(col[j], j);
            if (!(low[j] <= z && z <= high[j]))
                fail_msg("%s %zux%zux%zu: row %zu column %zu is %a, not in [%a, %a]", table, m, d, n, i, j,
                         (double)z, (double)low[j], (double)high[j]);
            const double middle = ((double)low[j] + (double)high[j]) / 2;
            const double part = fabs((double)z - middle) / ((double)high[j] - middle);
            worst = part > worst ? part : worst;
        }
    }
    free(p.data), free(x16), free(bound), free(col), free(low), free(high), free(y);
    return worst;
}

static void chains_lie_within_the_bound_on_edge_shapes(void **state)
{
    (void)state;
    float *x = numbers(129 * 1100, 1), *w = numbers(1100 * 129, 2), *bias = numbers(129, 3);
    FOR_TABLES(t)
    {
        for (size_t a = 0; a < COUNT(edges); a++)
            for (size_t b = 0; b < COUNT(edges); b++) {
                check(*t, edges[a], 5, edges[b], x, w, NULL);
                check(*t, 3, edges[a], edges[b], x, w, bias);
                check(*t, edges[a], edges[b], 33, x, w, NULL);
            }
        check(*t, 15, 1100, 65, x, w, bias);
        check(*t, 29, 1099, 129, x, w, NULL);
    }
    free(x), free(w), free(bias);
}

/* Blocks of k rest in y: more pairs than one block has. */
static void long_chains_lie_within_the_bound(void **state)
{
    (void)state;
    const size_t d = 5001, n = 40, m = 16;
    float *x = numbers(m * d, 1), *w = numbers(d * n, 2);
    FOR_TABLES(t)
    check(*t, m, d, n, x, w, NULL);
    free(x), free(w);
}

/* A number with a random sign, exponent in [low, high) and mantissa. */
static float wild(uint64_t i, int low, int high)
{
    const float u = number_at(3 * i), v = number_at(3 * i + 1), s = number_at(3 * i + 2);
    const int e = low + (int)((double)(high - low) * 0.5 * ((double)v + 1));
    return ldexpf(copysignf(1.0f + fabsf(u), s), e);
}

static void chains_lie_within_the_bound_for_wild_numbers(void **state)
{
    (void)state;
    static const int span[][4] = {{-149, 20, -20, 20},  {-149, -120, -10, 5}, {-80, -60, -75, -55},
                                  {-70, -55, -70, -60}, {0, 45, 0, 44},       {-149, 90, -149, -5},
                                  {-30, 30, -30, 30},   {-127, -125, -1, 1},  {-149, -148, -149, -140}};
    const size_t m = 15, d = 300, n = 66;
    float *x = need(m * d, sizeof *x), *w = need(d * n, sizeof *w);
    FOR_TABLES(t)
    {
        for (size_t c = 0; c < COUNT(span); c++) {
            for (size_t i = 0; i < m * d; i++)
                x[i] = i % 7 == 0 ? 0.0f : wild(i, span[c][0], span[c][1]);
            for (size_t i = 0; i < d * n; i++)
                w[i] = i % 11 == 0 ? -0.0f : wild(1000000 + i, span[c][2], span[c][3]);
            memset(x + 3 * d, 0, d * sizeof *x);
            memset(w + 5 * d, 0, d * sizeof *w);
            check(*t, m, d, n, x, w, NULL);
        }
    }
    free(x), free(w);
}

/* All that rounding takes points the same way: 1 + 2^-8 becomes 1, a tie, in rows and columns alike. */
static void rounding_that_adds_up_reaches_the_bound_but_not_beyond(void **state)
{
    (void)state;
    const size_t m = 3, d = 768, n = 34;
    float *x = need(m * d, sizeof *x), *w = need(d * n, sizeof *w);
    for (size_t i = 0; i < m * d; i++)
        x[i] = ldexpf(1 + 0x1p-8f, (int)(i % d % 5)) * (i % 3 ? 1.0f : -1.0f);
    for (size_t j = 0; j < n; j++)
        memcpy(w + j * d, x + j % m * d, d * sizeof *w);
    FOR_TABLES(t)
    assert_true(check(*t, m, d, n, x, w, NULL) > 0.95);
    for (size_t i = 0; i < m * d; i++)
        x[i] *= 0.5f + 0.499f * fabsf(number_at(i));
    for (size_t j = 0; j < n; j++)
        memcpy(w + j * d, x + j % m * d, d * sizeof *w);
    FOR_TABLES(t)
    check(*t, m, d, n, x, w, NULL);
    free(x), free(w);
}

/* The first half of the sum takes back the second, so that what is left is rounding. */
static void chains_that_cancel_lie_within_the_bound(void **state)
{
    (void)state;
    const size_t m = 14, d = 1024, n = 32;
    float *x = numbers(m * d, 4), *w = numbers(d * n, 5);
    for (size_t i = 0; i < m * d; i++)
        x[i] = i % d < d / 2 ? x[i] * 0x1p20f : -x[i - d / 2];
    for (size_t i = 0; i < d * n; i++)
        w[i] = i % d < d / 2 ? w[i] : w[i - d / 2];
    FOR_TABLES(t)
    check(*t, m, d, n, x, w, NULL);
    for (size_t i = 0; i < m * d; i++) /* no rounding at all: only the sums err */
        x[i] = i % d < d / 2 ? sonde_bf16_to_f32(sonde_f32_to_bf16(x[i])) : -x[i - d / 2];
    for (size_t i = 0; i < d * n; i++)
        w[i] = sonde_bf16_to_f32(sonde_f32_to_bf16(w[i]));
    FOR_TABLES(t)
    check(*t, m, d, n, x, w, NULL);
    free(x), free(w);
}

static void usual_numbers_take_a_bound_below_the_worst_case(void **state)
{
    (void)state;
    const size_t d = 768;
    float *x = numbers(d, 8), *w = numbers(d, 9);
    uint16_t y[768];
    sonde_bound16 b;
    const sonde_kernels *kernels = kernels_named(NULL);
    sonde_packed16 p = pack16(kernels, d, 1, w);
    sonde_round16(kernels, d, x, y, &b);
    const float norm = *sonde_packed16_norm(&p), lost = *sonde_packed16_lost(&p);
    const float whole = b.lost * norm + b.kept * lost + b.tiny;
    assert_true(whole < 0x1p-8f * b.size * norm && whole > 0x1p-10f * b.size * norm);
    free(x), free(w), free(p.data);
}

static void rows_and_columns_that_overflow_are_not_promised(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3.4e38f, 0x1p100f};
    const sonde_kernels *kernels = kernels_named(NULL);
    float x[40], w[40 * 3];
    uint16_t y[40];
    sonde_bound16 b;
    for (size_t c = 0; c < COUNT(bad); c++) {
        for (size_t i = 0; i < 40; i++)
            x[i] = w[i] = w[40 + i] = w[80 + i] = 1.0f;
        sonde_round16(kernels, 40, x, y, &b);
        assert_true(sonde_bound16_holds(&b, 8.0f));
        assert_true(sonde_bound16_holds(&b, 0x1p90f));
        assert_false(sonde_bound16_holds(&b, 0x1p99f));
        x[33] = w[40 + 7] = bad[c];
        sonde_round16(kernels, 40, x, y, &b);
        assert_false(sonde_bound16_holds(&b, 1.0f));
        sonde_packed16 p = pack16(kernels, 40, 3, w);
        const float top = sonde_packed16_top(&p);
        assert_false(top < 0x1p100f);
        memset(&b, 0, sizeof b);
        assert_false(sonde_bound16_holds(&b, top));
        free(p.data);
    }
}

static void rounding_is_to_nearest_even_and_norms_are_not_too_small(void **state)
{
    (void)state;
    const size_t n = 5000;
    float *x = need(n, sizeof *x);
    uint16_t *y = need(n + 1, sizeof *y);
    for (size_t i = 0; i < n; i++)
        x[i] = wild(i, -149, 40);
    for (size_t i = 0; i < 100; i++)
        x[i] = sonde_bits_f32(0x3f800000u + (uint32_t)i * 0x4000u);
    FOR_TABLES(t)
    {
        for (size_t from = 0; from < n; from = from * 2 + 1) {
            sonde_bound16 b;
            y[n - from] = 0xabcd;
            sonde_round16(kernels_named(*t), n - from, x + from, y, &b);
            assert_int_equal(y[n - from], 0xabcd);
            double all = 0, kept = 0, lost = 0;
            for (size_t i = from; i < n; i++) {
                uint16_t want = sonde_f32_to_bf16(x[i]);
                want = (want & 0x7fffu) < 0x80u ? 0 : want;
                assert_int_equal(y[i - from], want);
                const double u = (double)x[i], v = (double)sonde_bf16_to_f32(want);
                all += u * u, kept += v * v, lost += (u - v) * (u - v);
            }
            assert_true((double)b.size >= sqrt(all) && (double)b.size <= sqrt(all) * 1.00001);
            assert_true((double)b.kept >= sqrt(kept) && (double)b.kept <= sqrt(kept) * 1.00001);
            assert_true((double)b.lost >= sqrt(lost) && (double)b.lost <= sqrt(lost) + 0.002 * sqrt(all));
        }
    }
    free(x), free(y);
}

static void columns_may_be_packed_in_pieces(void **state)
{
    (void)state;
    static const size_t ds[] = {1, 31, 32, 33, 511, 512, 513, 1100};
    for (size_t c = 0; c < COUNT(ds); c++) {
        const size_t d = ds[c], n = 83;
        float *w = numbers(d * n, 2);
        sonde_packed16 first = {0};
        FOR_TABLES(t)
        {
            const sonde_kernels *kernels = kernels_named(*t);
            const size_t words = sonde_packed16_words(kernels, d, n);
            sonde_packed16 a = pack16(kernels, d, n, w), b = {kernels, d, n, need(words, sizeof(uint16_t))};
            for (size_t n0 = 0; n0 < n; n0 += 16)
                sonde_pack16(&b, n0, n - n0 < 16 ? n - n0 : 16, w + n0 * d, d);
            assert_memory_equal(a.data, b.data, words * sizeof(uint16_t));
            if (first.data)
                assert_memory_equal(a.data, first.data, words * sizeof(uint16_t));
            else
                first = pack16(kernels, d, n, w);
            free(a.data), free(b.data);
        }
        free(w), free(first.data);
    }
}

static void column_ranges_give_the_same_products(void **state)
{
    (void)state;
    const size_t m = 29, d = 77, n = 150;
    float *x = numbers(m * d, 1), *w = numbers(d * n, 2), *all = need(m * n, sizeof *all), part[29 * 96];
    uint16_t *x16 = need(m * d + 1, sizeof *x16);
    sonde_bound16 b;
    FOR_TABLES(t)
    {
        sonde_packed16 p = pack16(kernels_named(*t), d, n, w);
        for (size_t i = 0; i < m; i++)
            sonde_round16(p.kernels, d, x + i * d, x16 + i * d, &b);
        sonde_matmul16(&p, 0, n, x16, d, m, all, n);
        for (size_t c = 0; c < n; c += 32)
            for (size_t width = 0; width <= 96 && c + width <= n; width += 12) {
                sonde_matmul16(&p, c, c + width, x16, d, m, part, 96);
                for (size_t i = 0; i < m; i++)
                    assert_same(part + i * 96, all + i * n + c, width, *t);
            }
        free(p.data);
    }
    free(x), free(w), free(all), free(x16);
}

static void packed_size_that_overflows_is_zero(void **state)
{
    (void)state;
    const sonde_kernels *kernels = kernels_named(NULL);
    assert_int_equal(sonde_packed16_words(kernels, SIZE_MAX / 8, 64), 0);
    assert_int_equal(sonde_packed16_words(kernels, 2, SIZE_MAX), 0);
    assert_int_equal(sonde_packed16_words(kernels, SIZE_MAX, 2), 0);
    assert_int_equal(sonde_packed16_words(kernels, SIZE_MAX - 3, 2), 0);
    assert_int_equal(sonde_packed16_words(kernels, 0, 10), 0);
}

/* The scan keeps what is not known to be below its limit, and NaN with it. */
static void scan_keeps_all_that_may_reach_the_limit(void **state)
{
    (void)state;
    const size_t d = 20, n = 200;
    float *x = numbers(d, 1), *w = numbers(d * n, 2), *bias = numbers(n, 3), *limits = numbers(n, 4), p[200];
    struct {
        uint32_t col[216];
        float low[216], high[216];
    } every, got;
    uint16_t x16[20];
    sonde_bound16 b;
    bias[100] = NAN, bias[37] = -INFINITY, bias[38] = INFINITY;
    FOR_TABLES(t)
    {
        sonde_packed16 packed = pack16(kernels_named(*t), d, n, w);
        sonde_round16(packed.kernels, d, x, x16, &b);
        sonde_matmul16(&packed, 0, n, x16, d, 1, p, n);
        for (size_t from = 0; from < 70; from += 13)
            for (size_t count = 0; from + count <= n; count = count * 2 + 3)
                for (int each = 0; each < 2; each++) {
                    const size_t all = sonde_scan16(&packed, &b, p + from, from, count, bias, -INFINITY, NULL,
                                                    every.col, every.low, every.high);
                    assert_int_equal(all, count);
                    const size_t kept = sonde_scan16(&packed, &b, p + from, from, count, bias, 0.25f,
                                                     each ? limits : NULL, got.col, got.low, got.high);
                    size_t at = 0;
                    for (size_t j = 0; j < count; j++) {
                        const float limit = each ? limits[from + j] : 0.25f;
                        assert_int_equal(every.col[j], from + j);
                        assert_false(isnan(every.low[j]));
                        if (every.high[j] < limit)
                            continue;
                        assert_true(at < kept);
                        assert_int_equal(got.col[at], every.col[j]);
                        assert_true(same(got.low[at], every.low[j]) && same(got.high[at], every.high[j]));
                        at++;
                    }
                    assert_int_equal(at, kept);
                }
        free(packed.data);
    }
    free(x), free(w), free(bias), free(limits);
}

static void chosen_chains_are_those_of_the_product(void **state)
{
    (void)state;
    static const size_t ds[] = {1, 2, 15, 16, 17, 48, 100, 769},
                        counts[] = {0, 1, 15, 16, 17, 33, 49, 64, 65, 140, 3};
    const size_t n = 90, rows = COUNT(counts);
    size_t start[COUNT(counts) + 1] = {0};
    for (size_t r = 0; r < rows; r++)
        start[r + 1] = start[r] + counts[r];
    uint32_t *index = need(start[rows], sizeof *index);
    float *out = need(start[rows], sizeof *out);
    for (size_t j = 0; j < start[rows]; j++)
        index[j] = (uint32_t)((j * 37 + j / 64) % n);
    FOR_TABLES(t)
    {
        if (strcmp(*t, "openblas") == 0)
            continue;
        for (size_t c = 0; c < COUNT(ds); c++) {
            const size_t d = ds[c], ldw = d + 5, ldx = d + 1;
            float *x = numbers(rows * ldx, 1), *w = numbers(n * ldw, 2), *y = need(rows * n, sizeof *y);
            x[0] = -0.0f, w[0] = 0.0f, x[4] = NAN, x[3 * ldx / 2] = INFINITY;
            const sonde_kernels *kernels = kernels_named(*t);
            sonde_packed p = {kernels, d, n, need(sonde_packed_floats(kernels, d, n), sizeof(float))};
            sonde_pack(&p, 0, d, 0, n, w, 1, ldw);
            sonde_matmul(&p, 0, 0, n, x, ldx, rows, y, n, NULL);
            sonde_chains(kernels, rows, start, index, w, ldw, d, x, ldx, out);
            for (size_t r = 0; r < rows; r++)
                for (size_t j = start[r]; j < start[r + 1]; j++)
                    if (!same(out[j], y[r * n + index[j]]))
                        fail_msg("%s d %zu: row %zu column %u is %a, the product gives %a", *t, d, r,
                                 index[j], (double)out[j], (double)y[r * n + index[j]]);
            free(x), free(w), free(y), free(p.data);
        }
    }
    free(index), free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounding_is_to_nearest_even_and_norms_are_not_too_small),
        cmocka_unit_test(columns_may_be_packed_in_pieces),
        cmocka_unit_test(packed_size_that_overflows_is_zero),
        cmocka_unit_test(chains_lie_within_the_bound_on_edge_shapes),
        cmocka_unit_test(long_chains_lie_within_the_bound),
        cmocka_unit_test(chains_lie_within_the_bound_for_wild_numbers),
        cmocka_unit_test(rounding_that_adds_up_reaches_the_bound_but_not_beyond),
        cmocka_unit_test(chains_that_cancel_lie_within_the_bound),
        cmocka_unit_test(usual_numbers_take_a_bound_below_the_worst_case),
        cmocka_unit_test(rows_and_columns_that_overflow_are_not_promised),
        cmocka_unit_test(column_ranges_give_the_same_products),
        cmocka_unit_test(scan_keeps_all_that_may_reach_the_limit),
        cmocka_unit_test(chosen_chains_are_those_of_the_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
