/* SPDX-License-Identifier: MIT
 * Philox against the vectors of Salmon et al. 2011; streams, forks, distributions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/rng_impl.h"

static void philox_gives_the_published_words(void **state)
{
    (void)state;
    static const uint32_t c[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb,
         0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        sonde_philox(c[i], c[i] + 4, out);
        assert_memory_equal(out, c[i] + 6, 16);
    }
}

static void stream_is_the_cipher_of_its_position(void **state)
{
    (void)state;
    sonde_rng r = sonde_rng_fork(&(sonde_rng){.key = 7}, "shuffle", 3), again = r;
    for (uint32_t block = 0; block < 5; block++) {
        const uint32_t counter[4] = {block, 0, (uint32_t)r.stream, (uint32_t)(r.stream >> 32)};
        const uint32_t key[2] = {(uint32_t)r.key, (uint32_t)(r.key >> 32)};
        uint32_t want[4];
        sonde_philox(counter, key, want);
        for (int i = 0; i < 4; i++)
            assert_int_equal(sonde_rng_u32(&r), want[i]);
        again.position = block;
        again.n_spare = 0;
        assert_int_equal(sonde_rng_u32(&again), want[0]);
    }
}

static void forks_depend_on_name_and_index_and_not_on_draws(void **state)
{
    (void)state;
    sonde_rng root = sonde_rng_seed(42), drawn = root;
    for (int i = 0; i < 9; i++)
        sonde_rng_u64(&drawn);
    sonde_rng a = sonde_rng_fork(&root, "weights", 0), b = sonde_rng_fork(&drawn, "weights", 0);
    assert_true(a.key == b.key && a.stream == b.stream && b.position == 0 && b.n_spare == 0);
    const sonde_rng other[] = {sonde_rng_fork(&root, "weights", 1),
                               sonde_rng_fork(&root, "weightt", 0),
                               sonde_rng_fork(&a, "weights", 0),
                               sonde_rng_fork(&(sonde_rng){.key = 43}, "weights", 0),
                               sonde_rng_fork(&(sonde_rng){.key = 42, .stream = 1}, "weights", 0),
                               root};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        assert_false(other[i].key == a.key || (other[i].stream == a.stream));
}

/* These values may never change: every seed that a user has written down depends on them. */
static void streams_stay_what_they_are(void **state)
{
    (void)state;
    sonde_rng r = sonde_rng_fork(&(sonde_rng){.key = 1}, "shuffle", 2);
    assert_true(r.key == 0xdc9cab2bbe27c7a7ull);
    assert_true(r.stream == 0xb3e58ad87609d0c0ull);
    uint64_t bits[1000];
    for (int i = 0; i < 1000; i++) {
        double x = sonde_rng_normal(&r);
        memcpy(&bits[i], &x, 8);
    }
    assert_true(sonde_xxh3(bits, sizeof bits) == 0xdbde679ae97912dfull);
}

static void below_is_uniform_and_in_range(void **state)
{
    (void)state;
    sonde_rng r = sonde_rng_seed(5);
    int count[7] = {0};
    for (int i = 0; i < 70000; i++)
        count[sonde_rng_below(&r, 7)]++;
    double chi2 = 0;
    for (int i = 0; i < 7; i++)
        chi2 += (count[i] - 1e4) * (count[i] - 1e4) / 1e4;
    assert_true(chi2 < 22.5); /* 6 degrees of freedom: one in a thousand */
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(sonde_rng_below(&r, 1), 0);
        uint64_t n = (uint64_t)3 << 62;
        assert_true(sonde_rng_below(&r, n) < n);
        assert_true(sonde_rng_below(&r, 1ull << 32) <= UINT32_MAX);
    }
}

/* n = 3 * 2^62: without rejection the lowest third would come up twice as often as the others. */
static void below_rejects_what_would_bias_large_ranges(void **state)
{
    (void)state;
    sonde_rng r = sonde_rng_seed(6);
    int low = 0;
    for (int i = 0; i < 30000; i++)
        low += sonde_rng_below(&r, (uint64_t)3 << 62) < (uint64_t)1 << 62;
    assert_true(abs(low - 10000) < 330); /* 4 standard deviations */
}

static void uniforms_are_in_the_half_open_interval(void **state)
{
    (void)state;
    sonde_rng r = sonde_rng_seed(1);
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        float f = sonde_rng_float(&r);
        double d = sonde_rng_double(&r);
        assert_true(f >= 0 && f < 1 && d >= 0 && d < 1);
        sum += (double)f + d;
    }
    assert_true(fabs(sum / 200000 - 0.5) < 0.0026); /* 4 standard deviations */
}

/* The value is the quantile of the 52-bit uniform that the stream gave: check it with erfc from libm.
 * Relative error of the probability by a quantile error dx is dx * phi(x) / p, at most |x| + 1 / |x| times dx
 * in the tail. */
static void normal_is_the_exact_quantile(void **state)
{
    (void)state;
    sonde_rng r = sonde_rng_seed(11);
    for (int i = 0; i < 200000; i++) {
        sonde_rng copy = r;
        double u = ((double)(sonde_rng_u64(&copy) >> 12) + 0.5) * 0x1p-52, x = sonde_rng_normal(&r);
        double tail = u < 0.5 ? u : 1 - u, p = 0.5 * erfc(fabs(x) * 0.70710678118654752);
        assert_true(fabs(p - tail) <= tail * 1e-14);
        assert_int_equal(x < 0, u < 0.5);
        assert_int_equal(copy.position, r.position);
    }
}

/* Every power of two down to the smallest tail that a stream can give. */
static void normal_quantile_holds_in_the_far_tail(void **state)
{
    (void)state;
    double before = 0;
    for (int e = 1; e <= 53; e++)
        for (int i = 0; i < 8; i++) {
            double tail = ldexp(1 - i / 16.0, -e);
            if (tail < 0x1p-53)
                continue;
            double x = sonde_normal_quantile(tail - 0.5, tail);
            assert_true(fabs(0.5 * erfc(-x * 0.70710678118654752) - tail) <= tail * (x * x + 2) * 2e-15);
            assert_true(x <= before && sonde_normal_quantile(0.5 - tail, tail) == -x);
            before = x;
        }
    assert_true(before < -8.2 && before > -8.3);
}

static void normal_has_right_moments(void **state)
{
    (void)state;
    sonde_rng r = sonde_rng_seed(3);
    double m[4] = {0};
    const int n = 400000;
    for (int i = 0; i < n; i++) {
        double x = sonde_rng_normal(&r);
        m[0] += x;
        m[1] += x * x;
        m[2] += x * x * x;
        m[3] += x * x * x * x;
    }
    /* standard errors of the raw moments: sqrt(1, 2, 15, 96) / sqrt(n), times 4 */
    assert_true(fabs(m[0] / n) < 4 * 1.0 / sqrt(n));
    assert_true(fabs(m[1] / n - 1) < 4 * sqrt(2.0 / n));
    assert_true(fabs(m[2] / n) < 4 * sqrt(15.0 / n));
    assert_true(fabs(m[3] / n - 3) < 4 * sqrt(96.0 / n));
}

static void permutation_holds_every_number_once(void **state)
{
    (void)state;
    static uint32_t perm[1000];
    sonde_rng r = sonde_rng_seed(9);
    for (uint32_t n = 0; n < 1000; n += 37) {
        sonde_rng_permutation(&r, perm, n);
        unsigned char seen[1000] = {0};
        for (uint32_t i = 0; i < n; i++)
            seen[perm[i]]++;
        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(seen[i], 1);
    }
}

static void permutations_of_three_are_equally_likely(void **state)
{
    (void)state;
    sonde_rng r = sonde_rng_seed(10);
    int count[27] = {0};
    for (int i = 0; i < 60000; i++) {
        uint32_t p[3];
        sonde_rng_permutation(&r, p, 3);
        count[p[0] * 9 + p[1] * 3 + p[2]]++;
    }
    double chi2 = 0;
    for (int i = 0; i < 27; i++)
        chi2 += count[i] ? (count[i] - 1e4) * (count[i] - 1e4) / 1e4 : 0;
    assert_true(chi2 < 20.5); /* 5 degrees of freedom: one in a thousand */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_words),
        cmocka_unit_test(stream_is_the_cipher_of_its_position),
        cmocka_unit_test(forks_depend_on_name_and_index_and_not_on_draws),
        cmocka_unit_test(streams_stay_what_they_are),
        cmocka_unit_test(below_is_uniform_and_in_range),
        cmocka_unit_test(below_rejects_what_would_bias_large_ranges),
        cmocka_unit_test(uniforms_are_in_the_half_open_interval),
        cmocka_unit_test(normal_is_the_exact_quantile),
        cmocka_unit_test(normal_quantile_holds_in_the_far_tail),
        cmocka_unit_test(normal_has_right_moments),
        cmocka_unit_test(permutation_holds_every_number_once),
        cmocka_unit_test(permutations_of_three_are_equally_likely),
    };
    return cmocka_run_group_tests_name("base_rng", tests, NULL, NULL);
}
