/* SPDX-License-Identifier: MIT
 * Arenas: alignment, zeros, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"

static void memory_is_zeroed_and_aligned_to_64(void **state)
{
    (void)state;
    sonde_arena *a = sonde_arena_new(NULL, NULL);
    for (size_t n = 0; n < 300; n++) {
        unsigned char *p = sonde_arena_get(a, n, 1, NULL);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, n);
    }
    sonde_arena_free(a);
}

static void reset_memory_is_zeroed_again(void **state)
{
    (void)state;
    sonde_arena *a = sonde_arena_new(NULL, NULL);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 5; i++) {
            unsigned char *p = sonde_arena_get(a, (size_t)700 << (2 * i), 1, NULL);
            for (size_t k = 0; k < (size_t)700 << (2 * i); k++)
                assert_int_equal(p[k], 0);
            memset(p, 0xa5, (size_t)700 << (2 * i));
        }
        size_t taken = sonde_arena_taken(a);
        sonde_arena_reset(a);
        assert_int_equal(sonde_arena_taken(a), taken);
    }
    sonde_arena_free(a);
}

static void over_the_limit_is_refused_and_leaves_the_arena_usable(void **state)
{
    (void)state;
    sonde_budget b = {.limit = 4u << 20};
    sonde_err err = {0};
    sonde_arena *a = sonde_arena_new(&b, &err);
    assert_non_null(sonde_arena_get(a, 1u << 20, 1, &err));
    assert_null(sonde_arena_get(a, 3u << 20, 1, &err));
    assert_int_equal(err.code, SONDE_E_MEMORY);
    assert_non_null(strstr(err.msg, "4194304"));
    assert_non_null(sonde_arena_get(a, 100, 1, &err));
    sonde_arena_free(a);
    assert_int_equal(b.taken, 0);
}

static void two_arenas_share_one_limit(void **state)
{
    (void)state;
    sonde_budget b = {.limit = 5u << 20};
    sonde_arena *a = sonde_arena_new(&b, NULL), *c = sonde_arena_new(&b, NULL);
    assert_non_null(sonde_arena_get(a, 3u << 20, 1, NULL));
    assert_null(sonde_arena_get(c, 3u << 20, 1, NULL));
    sonde_arena_free(a);
    assert_non_null(sonde_arena_get(c, 3u << 20, 1, NULL));
    sonde_arena_free(c);
}

static void sizes_that_wrap_are_refused(void **state)
{
    (void)state;
    sonde_arena *a = sonde_arena_new(NULL, NULL);
    static const size_t bad[][2] = {
        {SIZE_MAX, 1}, {SIZE_MAX, 2}, {SIZE_MAX / 2 + 1, 2}, {SIZE_MAX - 100, 1}, {(size_t)1 << 62, 1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sonde_err err = {0};
        assert_null(sonde_arena_get(a, bad[i][0], bad[i][1], &err));
        assert_int_equal(err.code, SONDE_E_MEMORY);
    }
    sonde_err err = {0};
    assert_null(sonde_arena_strndup(a, "", SIZE_MAX, &err));
    assert_int_equal(err.code, SONDE_E_MEMORY);
    sonde_arena_free(a);
}

static void strings_are_copied_and_ended(void **state)
{
    (void)state;
    sonde_arena *a = sonde_arena_new(NULL, NULL);
    assert_string_equal(sonde_arena_strndup(a, "residual", 3, NULL), "res");
    assert_string_equal(sonde_arena_strndup(a, NULL, 0, NULL), "");
    sonde_arena_free(a);
    sonde_arena_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_and_aligned_to_64),
        cmocka_unit_test(reset_memory_is_zeroed_again),
        cmocka_unit_test(over_the_limit_is_refused_and_leaves_the_arena_usable),
        cmocka_unit_test(two_arenas_share_one_limit),
        cmocka_unit_test(sizes_that_wrap_are_refused),
        cmocka_unit_test(strings_are_copied_and_ended),
    };
    return cmocka_run_group_tests_name("base_arena", tests, NULL, NULL);
}
