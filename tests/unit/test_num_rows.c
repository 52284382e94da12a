/* SPDX-License-Identifier: MIT */
#include "num_cases.h"

#include "num/norm.h"
#include "num/ref.h"
#include "num/rope.h"
#include "num/softmax.h"

static const size_t lengths[] = {0,  1,  2,  3,  7,  8,   15,  16,  17,  31,
                                 32, 33, 63, 64, 65, 127, 128, 129, 768, 1000};

/* The stated order: lane i mod 16, then a pairwise tree. */
static float lane_sum(const float *x, size_t n, size_t first_lane)
{
    float a[16] = {0};
    for (size_t i = 0; i < n; i++)
        a[(first_lane + i) % 16] += x[i];
    for (int h = 8; h; h /= 2)
        for (int i = 0; i < h; i++)
            a[i] += a[i + h];
    return a[0];
}

static float plain_scale(const float *x, size_t d, float mean, float eps)
{
    float a[16] = {0};
    for (size_t i = 0; i < d; i++)
        a[i % 16] = fmaf(x[i] - mean, x[i] - mean, a[i % 16]);
    return sqrtf(lane_sum(a, 16, 0) / (float)d + eps);
}

static void norms_are_the_three_stated_steps_in_every_table(void **state)
{
    (void)state;
    float *x = numbers(3 * 1007, 1), *gamma = numbers(1000, 2), *beta = numbers(1000, 3);
    float *apart = canaries(3 * 1009), *y = canaries(3 * 1009), mean[3], scale[3];
    FOR_TABLES(t)
    for (int kind = 0; kind < 3; kind++)
        for (size_t c = 1; c < COUNT(lengths); c++)
            for (int flags = 0; flags < 4; flags++) {
                const sonde_kernels *k = kernels_named(*t);
                const enum sonde_norm norm = (enum sonde_norm)kind;
                const size_t d = lengths[c], ldx = d + 7, ldy = d + 9;
                const float *g = flags & 1 ? gamma : NULL, *b = flags & 2 ? beta : NULL;
                for (size_t i = 0; i < 3 * ldy; i++)
                    y[i] = apart[i] = sonde_bits_f32(CANARY);
                sonde_norm_stats(k, norm, x, ldx, 3, d, 1e-5f, mean, scale);
                sonde_norm_apply(k, x, ldx, 3, d, mean, scale, apart, ldy);
                sonde_norm_affine(k, apart, ldy, 3, d, g, b, apart, ldy);
                sonde_norm_rows(k, norm, x, ldx, 3, d, 1e-5f, g, b, y, ldy);
                assert_same(y, apart, 3 * ldy, *t);
                for (size_t r = 0; r < 3; r++) {
                    const float *row = x + r * ldx;
                    const float m = kind == SONDE_NORM_LAYER ? lane_sum(row, d, 0) / (float)d : 0.0f;
                    const float s = kind == SONDE_NORM_NONE ? 1.0f : plain_scale(row, d, m, 1e-5f);
                    assert_true(same(mean[r], m) && same(scale[r], s));
                    for (size_t i = 0; i < d; i++) {
                        float v = (row[i] - m) / s;
                        v = g ? v * g[i] : v;
                        v = b ? v + b[i] : v;
                        assert_true(same(y[r * ldy + i], v));
                    }
                    assert_true(is_canary(y[r * ldy + d]));
                }
            }
    free(x), free(gamma), free(beta), free(apart), free(y);
}

static void norms_stay_near_the_double_reference(void **state)
{
    (void)state;
    float *x = numbers(2 * 1000, 1), *gamma = numbers(1000, 2), *beta = numbers(1000, 3), y[2000], z[2000];
    for (size_t i = 0; i < 2000; i++)
        x[i] += 3.0f;
    FOR_TABLES(t)
    for (int kind = 1; kind < 3; kind++)
        for (size_t c = 1; c < COUNT(lengths); c++) {
            const size_t d = lengths[c];
            sonde_norm_rows(kernels_named(*t), (enum sonde_norm)kind, x, 1000, 2, d, 1e-5f, gamma, beta, y,
                            d);
            ref_norm((enum sonde_norm)kind, x, 1000, 2, d, 1e-5f, gamma, beta, z, d);
            for (size_t i = 0; i < 2 * d;
                 i++) /* x / scale < 330 for d = 1 ... 2, < 6 beyond; mean known to 3 2^-22 */
                assert_true(fabsf(y[i] - z[i]) <= (d < 8 ? 1e-3f : 1e-5f));
        }
    free(x), free(gamma), free(beta);
}

static void norm_of_a_row_does_not_depend_on_its_neighbours(void **state)
{
    (void)state;
    float *x = numbers(5 * 100, 1), y[500], alone[100];
    x[100] = NAN;
    FOR_TABLES(t)
    {
        sonde_norm_rows(kernels_named(*t), SONDE_NORM_LAYER, x, 100, 5, 100, 1e-5f, NULL, NULL, y, 100);
        for (size_t r = 0; r < 5; r++) {
            sonde_norm_rows(kernels_named(*t), SONDE_NORM_LAYER, x + r * 100, 100, 1, 100, 1e-5f, NULL, NULL,
                            alone, 100);
            assert_same(y + r * 100, alone, 100, *t);
            assert_int_equal(!!isnan(y[r * 100 + 5]), r == 1);
        }
    }
    free(x);
}

static void softmax_is_the_stated_sum_in_every_table(void **state)
{
    (void)state;
    float *s = numbers(1000, 1), *p = canaries(1016), *e = need(1000, sizeof *e), *z = need(1000, sizeof *z);
    for (size_t i = 0; i < 1000; i++)
        s[i] *= 10.0f;
    FOR_TABLES(t)
    for (size_t c = 0; c < COUNT(lengths); c++)
        for (size_t cut = 0; cut < 12; cut++) {
            const size_t n = lengths[c], lo = cut % 4 * n / 5, hi = lo + (n - lo) * (cut / 4 + 1) / 3;
            for (size_t i = 0; i < 1016; i++)
                p[i] = sonde_bits_f32(CANARY);
            sonde_softmax_row(kernels_named(*t), s, n, lo, hi, p);
            float max = -INFINITY;
            for (size_t j = lo; j < hi; j++)
                max = s[j] > max ? s[j] : max;
            for (size_t j = lo; j < hi; j++)
                e[j] = sonde_expf(s[j] - max);
            const float sum = lane_sum(e + lo, hi - lo, lo % 16);
            ref_softmax_row(s, n, lo, hi, z);
            for (size_t j = 0; j < n; j++) {
                const float want = j < lo || j >= hi ? 0.0f : e[j] / sum;
                if (!same(p[j], want))
                    fail_msg("%s n %zu [%zu, %zu): p[%zu] is %a, expected %a", *t, n, lo, hi, j, (double)p[j],
                             (double)want);
                assert_true(fabsf(p[j] - z[j]) <= 4e-6f * z[j] + 1e-37f);
            }
            assert_true(is_canary(p[n]));
            memcpy(e, s, n * sizeof *e);
            sonde_softmax_row(kernels_named(*t), e, n, lo, hi, e);
            assert_same(e, p, n, "in place");
        }
    free(s), free(p), free(e), free(z);
}

static void softmax_of_nothing_is_zero_and_nan_spreads(void **state)
{
    (void)state;
    float s[40], p[40];
    FOR_TABLES(t)
    {
        const sonde_kernels *k = kernels_named(*t);
        for (int i = 0; i < 40; i++)
            s[i] = -INFINITY;
        sonde_softmax_row(k, s, 40, 0, 40, p);
        for (int i = 0; i < 40; i++)
            assert_true(p[i] == 0.0f);
        s[3] = 1.0f;
        sonde_softmax_row(k, s, 40, 0, 40, p);
        for (int i = 0; i < 40; i++)
            assert_true(p[i] == (i == 3));
        sonde_softmax_row(k, s, 40, 4, 4, p);
        for (int i = 0; i < 40; i++)
            assert_true(p[i] == 0.0f);
        for (int at = 5; at < 40; at += 17) {
            s[at] = NAN;
            sonde_softmax_row(k, s, 40, 2, 40, p);
            for (int i = 0; i < 40; i++)
                assert_true(i < 2 ? p[i] == 0.0f : isnan(p[i]));
            sonde_softmax_row(k, s, 40, 4, 40, p); /* the rest -inf */
            for (int i = 4; i < 40; i++)
                assert_true(isnan(p[i]));
            s[at] = -INFINITY;
        }
    }
}

static void logsumexp_is_near_and_the_same_in_every_table(void **state)
{
    (void)state;
    float *x = numbers(50257, 1);
    for (size_t i = 0; i < 50257; i++)
        x[i] *= 15.0f;
    static const size_t more[] = {1, 2, 15, 16, 17, 33, 1000, 50257};
    for (size_t c = 0; c < COUNT(more); c++) {
        const double want = ref_logsumexp(x, more[c]);
        const double plain = sonde_logsumexp(kernels_named("plain"), x, more[c]);
        assert_true(fabs(plain - want) <= 2e-7);
        FOR_TABLES(t)
        {
            const double got = sonde_logsumexp(kernels_named(*t), x, more[c]);
            assert_memory_equal(&got, &plain, sizeof got);
        }
    }
    FOR_TABLES(t)
    {
        const sonde_kernels *k = kernels_named(*t);
        const float one = 3.25f, none[2] = {-INFINITY, -INFINITY}, bad[2] = {1.0f, NAN},
                    up[2] = {INFINITY, 0};
        assert_true(sonde_logsumexp(k, &one, 1) == 3.25);
        assert_true(isinf(sonde_logsumexp(k, none, 2)) && sonde_logsumexp(k, none, 2) < 0);
        assert_true(isnan(sonde_logsumexp(k, bad, 2)) && isnan(sonde_logsumexp(k, up, 2)));
    }
    free(x);
}

static void topk_is_sorted_and_ties_go_to_the_smaller_index(void **state)
{
    (void)state;
    float x[1000], value[1000], want_value[1000];
    int32_t index[1000], want[1000];
    static const size_t ks[] = {0, 1, 2, 5, 32, 100};
    for (int levels = 3; levels < 3000; levels *= 30) {
        for (size_t i = 0; i < 1000; i++)
            x[i] = floorf(number_at(i) * (float)levels);
        x[20] = x[500] = NAN;
        x[30] = -INFINITY;
        x[31] = INFINITY;
        x[600] = INFINITY;
        for (size_t c = 0; c < COUNT(lengths); c++)
            for (size_t q = 0; q < COUNT(ks) + 1; q++) {
                const size_t n = lengths[c], k = q < COUNT(ks) ? ks[q] : n;
                if (k > n || (k == n && n > 200))
                    continue;
                ref_row_topk(x, n, k, want, want_value);
                FOR_TABLES(t)
                {
                    sonde_row_topk(kernels_named(*t), x, n, k, index, value);
                    for (size_t i = 0; i < k; i++)
                        if (index[i] != want[i] || value[i] != want_value[i])
                            fail_msg("%s n %zu k %zu: place %zu is %d, expected %d", *t, n, k, i, index[i],
                                     want[i]);
                }
            }
    }
}

static void argmax_takes_the_first_of_the_largest(void **state)
{
    (void)state;
    const float a[] = {1, 5, 2, 5, NAN}, b[] = {NAN, -2, -1}, c[] = {NAN}, d[] = {-INFINITY, -INFINITY};
    assert_int_equal(sonde_argmax(a, 5), 1);
    assert_int_equal(sonde_argmax(b, 3), 2);
    assert_int_equal(sonde_argmax(c, 1), 0);
    assert_int_equal(sonde_argmax(d, 2), 0);
    float *x = numbers(300, 1);
    for (size_t n = 1; n <= 300; n++) {
        size_t best = 0;
        for (size_t i = 1; i < n; i++)
            best = x[i] > x[best] ? i : best;
        assert_int_equal(sonde_argmax(x, n), best);
    }
    free(x);
}

static void rope_rotates_pairs_and_copies_the_rest(void **state)
{
    (void)state;
    static const size_t shape[][3] = {{1, 2, 2},   {3, 4, 4},     {2, 16, 8}, {3, 64, 64},
                                      {2, 80, 20}, {1, 128, 128}, {2, 48, 0}, {2, 70, 66}};
    for (size_t c = 0; c < COUNT(shape); c++) {
        const size_t heads = shape[c][0], dh = shape[c][1], rd = shape[c][2], r = rd / 2, n = heads * dh;
        float *x = numbers(n, 1), *cosine = numbers(r + 1, 2), *sine = numbers(r + 1, 3),
              *y = canaries(n + 1), *z = need(n, 4);
        ref_rope_row(x, heads, dh, rd, cosine, sine, z);
        FOR_TABLES(t)
        {
            sonde_rope_row(kernels_named(*t), x, heads, dh, rd, cosine, sine, y);
            assert_true(is_canary(y[n]));
            for (size_t h = 0; h < heads; h++)
                for (size_t i = 0; i < dh; i++) {
                    const float *v = x + h * dh;
                    float want = v[i];
                    if (i < r) {
                        const float p = v[i] * cosine[i], q = v[i + r] * sine[i];
                        want = p - q;
                    } else if (i < rd) {
                        const float p = v[i] * cosine[i - r], q = v[i - r] * sine[i - r];
                        want = p + q;
                    }
                    assert_true(same(y[h * dh + i], want));
                    assert_true(fabsf(want - z[h * dh + i]) <= 2e-7f);
                }
            float *in_place = need(n, sizeof *in_place);
            memcpy(in_place, x, n * sizeof *x);
            sonde_rope_row(kernels_named(*t), in_place, heads, dh, rd, cosine, sine, in_place);
            assert_same(in_place, y, n, *t);
            free(in_place);
        }
        free(x), free(cosine), free(sine), free(y), free(z);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_are_the_three_stated_steps_in_every_table),
        cmocka_unit_test(norms_stay_near_the_double_reference),
        cmocka_unit_test(norm_of_a_row_does_not_depend_on_its_neighbours),
        cmocka_unit_test(softmax_is_the_stated_sum_in_every_table),
        cmocka_unit_test(softmax_of_nothing_is_zero_and_nan_spreads),
        cmocka_unit_test(logsumexp_is_near_and_the_same_in_every_table),
        cmocka_unit_test(topk_is_sorted_and_ties_go_to_the_smaller_index),
        cmocka_unit_test(argmax_takes_the_first_of_the_largest),
        cmocka_unit_test(rope_rotates_pairs_and_copies_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
