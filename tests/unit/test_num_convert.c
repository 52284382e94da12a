/* SPDX-License-Identifier: MIT */
#include "num_cases.h"

#include "num/convert.h"

static void all_halves_read_as_defined(void **state)
{
    (void)state;
    static uint16_t h[65536];
    static float y[65536];
    for (uint32_t i = 0; i < 65536; i++)
        h[i] = (uint16_t)i;
    FOR_TABLES(t)
    {
        sonde_from_f16(kernels_named(*t), 65536, h, y);
        for (uint32_t i = 0; i < 65536; i++)
            if (sonde_f32_bits(y[i]) != sonde_f32_bits(sonde_f16_to_f32((uint16_t)i)))
                fail_msg("%s: half %04x reads as %08x", *t, i, sonde_f32_bits(y[i]));
        sonde_from_bf16(kernels_named(*t), 65536, h, y);
        for (uint32_t i = 0; i < 65536; i++)
            assert_int_equal(sonde_f32_bits(y[i]), i << 16);
    }
}

static void halves_survive_the_round_trip(void **state)
{
    (void)state;
    static uint16_t h[65536], back[65536];
    static float y[65536];
    for (uint32_t i = 0; i < 65536; i++)
        h[i] = (uint16_t)i;
    FOR_TABLES(t)
    {
        const sonde_kernels *k = kernels_named(*t);
        sonde_from_f16(k, 65536, h, y);
        assert_int_equal(sonde_to_f16(k, 65536, y, back), 0);
        for (uint32_t i = 0; i < 65536; i++) {
            const uint32_t nan = (i & 0x7fff) > 0x7c00;
            assert_int_equal(back[i], i | (nan ? 0x200u : 0u));
        }
        sonde_from_bf16(k, 65536, h, y);
        assert_int_equal(sonde_to_bf16(k, 65536, y, back), 0);
        for (uint32_t i = 0; i < 65536; i++) {
            const uint32_t nan = (i & 0x7fff) > 0x7f80;
            assert_int_equal(back[i], i | (nan ? 0x40u : 0u));
        }
    }
}

static uint16_t saturated(int bf, float x, size_t *count)
{
    const uint16_t h = bf ? sonde_f32_to_bf16(x) : sonde_f32_to_f16(x);
    const uint32_t infinity = bf ? 0x7f80u : 0x7c00u;
    if (!isfinite(x) || (h & 0x7fffu) != infinity)
        return h;
    ++*count;
    return (uint16_t)(h - 1);
}

static void sampled_floats_round_as_defined_and_saturate(void **state)
{
    (void)state;
    enum { N = 8192 };
    static float x[N];
    static uint16_t y[N];
    FOR_TABLES(t)
    {
        const sonde_kernels *k = kernels_named(*t);
        for (uint64_t u = 0; u < 0x100000000u;) {
            for (size_t i = 0; i < N; i++, u += 1021)
                x[i] = sonde_bits_f32((uint32_t)u);
            for (int bf = 0; bf < 2; bf++) {
                size_t want = 0;
                const size_t got = bf ? sonde_to_bf16(k, N, x, y) : sonde_to_f16(k, N, x, y);
                for (size_t i = 0; i < N; i++)
                    if (y[i] != saturated(bf, x[i], &want))
                        fail_msg("%s %s: %08x becomes %04x", *t, bf ? "bf16" : "f16", sonde_f32_bits(x[i]),
                                 y[i]);
                assert_int_equal(got, want);
            }
        }
    }
}

static void saturation_begins_where_rounding_overflows(void **state)
{
    (void)state;
    const float x[] = {65504.0f, 65519.996f, 65520.0f, -65520.0f, 1e9f, INFINITY, -INFINITY, NAN};
    const float b[] = {0x1.fep127f,     0x1.fefffep127f, 0x1.ffp127f, -0x1.ffp127f,
                       0x1.fffffep127f, INFINITY,        -INFINITY,   NAN};
    uint16_t y[8];
    FOR_TABLES(t)
    {
        const sonde_kernels *k = kernels_named(*t);
        assert_int_equal(sonde_to_f16(k, 8, x, y), 3);
        assert_true(y[0] == 0x7bff && y[1] == 0x7bff && y[2] == 0x7bff && y[3] == 0xfbff && y[4] == 0x7bff);
        assert_true(y[5] == 0x7c00 && y[6] == 0xfc00 && (y[7] & 0x7fff) == 0x7e00);
        assert_int_equal(sonde_to_bf16(k, 8, b, y), 3);
        assert_true(y[0] == 0x7f7f && y[1] == 0x7f7f && y[2] == 0x7f7f && y[3] == 0xff7f && y[4] == 0x7f7f);
        assert_true(y[5] == 0x7f80 && y[6] == 0xff80 && (y[7] & 0x7fff) == 0x7fc0);
    }
}

static void every_length_is_converted_and_nothing_beyond(void **state)
{
    (void)state;
    float x[70], f[72];
    uint16_t y[72];
    for (size_t i = 0; i < 70; i++)
        x[i] = number_at(i) * 1e5f;
    FOR_TABLES(t)
    for (size_t n = 0; n <= 66; n++)
        for (int bf = 0; bf < 2; bf++) {
            const sonde_kernels *k = kernels_named(*t);
            size_t want = 0;
            memset(y, 0xab, sizeof y);
            const size_t got = bf ? sonde_to_bf16(k, n, x + 1, y + 1) : sonde_to_f16(k, n, x + 1, y + 1);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(y[i + 1], saturated(bf, x[i + 1], &want));
            assert_int_equal(got, want);
            assert_true(y[0] == 0xabab && y[n + 1] == 0xabab);
            for (size_t i = 0; i < 72; i++)
                f[i] = sonde_bits_f32(CANARY);
            (bf ? sonde_from_bf16 : sonde_from_f16)(k, n, y + 1, f + 1);
            for (size_t i = 0; i < n; i++)
                assert_true(same(f[i + 1], bf ? sonde_bf16_to_f32(y[i + 1]) : sonde_f16_to_f32(y[i + 1])));
            assert_true(is_canary(f[0]) && is_canary(f[n + 1]));
        }
}

static void one_value_that_is_not_finite_is_found(void **state)
{
    (void)state;
    float *x = numbers(70, 1);
    x[8] = 3.4028235e38f;
    x[9] = 1e-45f;
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    FOR_TABLES(t)
    for (size_t n = 0; n <= 70; n++) {
        const sonde_kernels *k = kernels_named(*t);
        assert_true(sonde_all_finite(k, n, x));
        for (size_t at = 0; at < 70; at++) {
            const float kept = x[at];
            x[at] = bad[at % 3];
            assert_int_equal(!!sonde_all_finite(k, n, x), at >= n);
            x[at] = kept;
        }
    }
    free(x);
}

static void column_sums_add_rows_in_order_in_double(void **state)
{
    (void)state;
    static const size_t widths[] = {1, 15, 16, 17, 100, 768};
    float *x = numbers(20 * 775, 1);
    FOR_TABLES(t)
    for (size_t c = 0; c < COUNT(widths); c++) {
        const size_t d = widths[c], ldx = d + 7;
        double *sum = need(d, 8), *sq = need(d, 8), *want = need(d, 8), *want_sq = need(d, 8);
        double norm = 0.5, norm_sq = 0.25, want_norm = 0.5, want_norm_sq = 0.25;
        for (size_t i = 0; i < d; i++)
            sum[i] = want[i] = (double)i;
        sonde_column_sums(kernels_named(*t), x, ldx, 12, d, sum, sq, &norm, &norm_sq);
        sonde_column_sums(kernels_named(*t), x + 12 * ldx, ldx, 8, d, sum, sq, &norm, &norm_sq);
        for (size_t r = 0; r < 20; r++) {
            double lane[16] = {0};
            for (size_t i = 0; i < d; i++) {
                const double v = (double)x[r * ldx + i];
                want[i] += v;
                want_sq[i] += v * v;
                lane[i % 16] += v * v;
            }
            for (int h = 8; h; h /= 2)
                for (int i = 0; i < h; i++)
                    lane[i] += lane[i + h];
            want_norm += sqrt(lane[0]);
            want_norm_sq += lane[0];
        }
        assert_memory_equal(sum, want, d * 8);
        assert_memory_equal(sq, want_sq, d * 8);
        assert_memory_equal(&norm, &want_norm, 8);
        assert_memory_equal(&norm_sq, &want_norm_sq, 8);
        free(sum), free(sq), free(want), free(want_sq);
    }
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_halves_read_as_defined),
        cmocka_unit_test(halves_survive_the_round_trip),
        cmocka_unit_test(sampled_floats_round_as_defined_and_saturate),
        cmocka_unit_test(saturation_begins_where_rounding_overflows),
        cmocka_unit_test(every_length_is_converted_and_nothing_beyond),
        cmocka_unit_test(one_value_that_is_not_finite_is_found),
        cmocka_unit_test(column_sums_add_rows_in_order_in_double),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
