/* SPDX-License-Identifier: MIT
 * Checked sizes and tensor facts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <string.h>

#include "base/size.h"
#include "base/tensor.h"

static void nbytes_refuses_every_wrap(void **state)
{
    (void)state;
    static const struct {
        uint64_t dim[4];
        int n;
        size_t elem;
        bool ok;
        size_t want;
    } c[] = {
        {{3, 4}, 2, 4, true, 48},
        {{0}, 0, 4, true, 4},
        {{0, 7}, 2, 4, true, 0},
        {{1ull << 32, 1ull << 32}, 2, 4, false, 0}, /* the product is 2^64 */
        {{1ull << 32, 1ull << 31}, 2, 1, true, (size_t)1 << 63},
        {{1ull << 31, 1ull << 31, 4}, 3, 4, false, 0},
        {{UINT64_MAX}, 1, 2, false, 0},
        {{1ull << 62}, 1, 4, false, 0},
        {{1ull << 62, 0}, 2, 4, false, 0}, /* too large before the zero, and after it */
        {{0, 1ull << 62}, 2, 4, false, 0},
        {{0, 1ull << 32, 1ull << 32}, 3, 1, false, 0},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        size_t got = 99;
        assert_int_equal(sonde_nbytes(&got, c[i].dim, c[i].n, c[i].elem), c[i].ok);
        assert_int_equal(got, c[i].ok ? c[i].want : 99);
    }
}

static void inside_cannot_wrap(void **state)
{
    (void)state;
    assert_true(sonde_inside(0, 0, 0));
    assert_true(sonde_inside(10, 0, 10));
    assert_true(sonde_inside(0, 10, 10));
    assert_false(sonde_inside(1, 10, 10));
    assert_false(sonde_inside(1, UINT64_MAX, 10));
    assert_false(sonde_inside(UINT64_MAX, 1, 10));
    assert_false(sonde_inside(11, 0, 10));
}

static void round_up_refuses_to_wrap(void **state)
{
    (void)state;
    size_t n;
    assert_true(sonde_round_up(&n, 65, 64));
    assert_int_equal(n, 128);
    assert_true(sonde_round_up(&n, 0, 64));
    assert_int_equal(n, 0);
    assert_true(sonde_round_up(&n, SIZE_MAX - 63, 64));
    assert_int_equal(n, SIZE_MAX - 63);
    assert_false(sonde_round_up(&n, SIZE_MAX - 62, 64));
}

static void every_dtype_has_a_name(void **state)
{
    (void)state;
    for (int t = 0; t < SONDE_N_DTYPES; t++)
        assert_true(strlen(sonde_dtype_name((enum sonde_dtype)t)) > 2);
    assert_int_equal(sonde_dtype_size(SONDE_BF16), 2);
    assert_int_equal(sonde_dtype_size(SONDE_I64), 8);
    assert_int_equal(sonde_dtype_size(SONDE_Q8_0), 0);
}

static void shape_is_printed_and_cut_to_the_buffer(void **state)
{
    (void)state;
    const uint64_t dim[3] = {768, 2304, UINT64_MAX};
    char buf[64];
    assert_string_equal(sonde_shape_text(dim, 0, buf, sizeof buf), "[]");
    assert_string_equal(sonde_shape_text(dim, 2, buf, sizeof buf), "[768, 2304]");
    assert_string_equal(sonde_shape_text(dim, 3, buf, sizeof buf), "[768, 2304, 18446744073709551615]");
    for (size_t n = 1; n < 40; n++) {
        memset(buf, 'Z', sizeof buf);
        sonde_shape_text(dim, 3, buf, n);
        assert_true(strlen(buf) < n);
        assert_int_equal(buf[n], 'Z');
    }
    const sonde_tensor t = {.rank = 2, .dim = {768, 2304}};
    assert_int_equal(sonde_tensor_count(&t), 768 * 2304);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nbytes_refuses_every_wrap),
        cmocka_unit_test(inside_cannot_wrap),
        cmocka_unit_test(round_up_refuses_to_wrap),
        cmocka_unit_test(every_dtype_has_a_name),
        cmocka_unit_test(shape_is_printed_and_cut_to_the_buffer),
    };
    return cmocka_run_group_tests_name("base_size", tests, NULL, NULL);
}
