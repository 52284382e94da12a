/* SPDX-License-Identifier: MIT
 * Half precision, over every one of the 65,536 values, against arithmetic in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "base/half.h"

/* The value that IEEE 754 gives the 16 bits, by the definition. */
static double by_definition(uint16_t h, int exponent_bits, int fraction_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1, e = h >> fraction_bits & ((1 << exponent_bits) - 1);
    int f = h & ((1 << fraction_bits) - 1);
    double s = h & 0x8000 ? -1 : 1;
    if (e == (1 << exponent_bits) - 1)
        return f ? NAN : s * INFINITY;
    return s * (e ? ldexp(1 + ldexp(f, -fraction_bits), e - bias) : ldexp(f, 1 - bias - fraction_bits));
}

typedef float widen(uint16_t);
typedef uint16_t narrow(float);

static void check_all(widen *to_f32, narrow *from_f32, int exponent_bits, int fraction_bits)
{
    for (uint32_t u = 0; u < 65536; u++) {
        uint16_t h = (uint16_t)u;
        double want = by_definition(h, exponent_bits, fraction_bits);
        float got = to_f32(h);
        if (isnan(want)) {
            assert_true(isnan(got));
            assert_true(isnan(to_f32(from_f32(got))));
            assert_int_equal(from_f32(got) & 0x8000, h & 0x8000);
            continue;
        }
        assert_true((double)got == want);
        assert_int_equal(signbit(got) != 0, h >> 15);
        assert_int_equal(from_f32(got), h);
    }
}

/* Between neighbours a < b: everything below the middle goes to a, above it to b, the middle to the even one.
 */
static void check_rounding(widen *to_f32, narrow *from_f32, uint16_t infinity)
{
    for (uint16_t h = 0; h + 1 < infinity; h++) {
        float a = to_f32(h), b = to_f32((uint16_t)(h + 1)), middle = a + (b - a) / 2;
        uint16_t even = h & 1 ? (uint16_t)(h + 1) : h;
        assert_int_equal(from_f32(middle), even);
        assert_int_equal(from_f32(nextafterf(middle, 0)), h);
        assert_int_equal(from_f32(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(from_f32(-middle), even | 0x8000);
    }
}

static void every_float16_is_exact_and_comes_back(void **state)
{
    (void)state;
    check_all(sonde_f16_to_f32, sonde_f32_to_f16, 5, 10);
}

static void every_bfloat16_is_exact_and_comes_back(void **state)
{
    (void)state;
    check_all(sonde_bf16_to_f32, sonde_f32_to_bf16, 8, 7);
}

static void float16_rounds_to_nearest_even(void **state)
{
    (void)state;
    check_rounding(sonde_f16_to_f32, sonde_f32_to_f16, 0x7c00);
}

static void bfloat16_rounds_to_nearest_even(void **state)
{
    (void)state;
    check_rounding(sonde_bf16_to_f32, sonde_f32_to_bf16, 0x7f80);
}

static void overflow_becomes_infinity(void **state)
{
    (void)state;
    assert_int_equal(sonde_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(sonde_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(sonde_f32_to_f16(-1e30f), 0xfc00);
    assert_int_equal(sonde_f32_to_bf16(3.4028235e38f), 0x7f80);
    assert_int_equal(sonde_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(sonde_f32_to_f16(0x1.000002p-25f), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_float16_is_exact_and_comes_back),
        cmocka_unit_test(every_bfloat16_is_exact_and_comes_back),
        cmocka_unit_test(float16_rounds_to_nearest_even),
        cmocka_unit_test(bfloat16_rounds_to_nearest_even),
        cmocka_unit_test(overflow_becomes_infinity),
    };
    return cmocka_run_group_tests_name("base_half", tests, NULL, NULL);
}
