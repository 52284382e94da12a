/* SPDX-License-Identifier: MIT */
#include "num_cases.h"

#include "num/matmul.h"
#include "num/ref.h"

static int exact(const char *name)
{
    return strcmp(name, "openblas") != 0;
}

static sonde_packed pack(const sonde_kernels *kernels, size_t k, size_t n, const float *w, size_t stride_k,
                         size_t stride_n)
{
    sonde_packed p = {kernels, k, n, need(sonde_packed_floats(kernels, k, n), sizeof(float))};
    sonde_pack(&p, 0, k, 0, n, w, stride_k, stride_n);
    return p;
}

/* The definition: one ascending chain, then the epilogue. */
static float chain(const float *x, const float *w, size_t k, size_t n, size_t col, float acc)
{
    for (size_t i = 0; i < k; i++)
        acc = fmaf(x[i], w[i * n + col], acc);
    return acc;
}

static float after(const sonde_epilogue *e, float v, size_t row, size_t col, size_t n0)
{
    if (e->scale != 0.0f)
        v *= e->scale;
    if (e->bias)
        v += e->bias[col];
    v = sonde_act_one(e->act, v);
    return e->add ? e->add[row * e->ld_add + (col - n0)] + v : v;
}

/* Compare columns n0 .. n1-1 of X W with the definition, and see that nothing else was written. */
static void check(const char *table, size_t m, size_t k, size_t k_used, size_t n, size_t n0, size_t n1,
                  const sonde_epilogue *given)
{
    const size_t ldx = k + 3, ldy = n1 - n0 + 5;
    float *x = numbers(m * ldx, 1), *w = numbers(k * n, 2), *y = canaries(m * ldy + 16);
    sonde_packed p = pack(kernels_named(table), k, n, w, n, 1);
    sonde_epilogue e = given ? *given : (sonde_epilogue){0};
    sonde_matmul(&p, k_used, n0, n1, x, ldx, m, y, ldy, given ? &e : NULL);
    const size_t used = k_used ? k_used : k;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < ldy; j++) {
            const float got = y[i * ldy + j];
            if (j >= n1 - n0) {
                if (!is_canary(got))
                    fail_msg("%s %zux%zux%zu wrote beyond row %zu at %zu", table, m, k, n, i, j);
                continue;
            }
            const float from = e.from ? e.from[i * e.ld_from + j] : 0;
            const float want = after(&e, chain(x + i * ldx, w, used, n, n0 + j, from), i, n0 + j, n0);
            const float slack = exact(table) ? 0.0f : 1e-6f * (float)(used + 4);
            if (exact(table) ? !same(got, want) : !(fabsf(got - want) <= slack))
                fail_msg("%s %zux%zu(%zu)x%zu [%zu..%zu): row %zu column %zu is %a, the chain gives %a",
                         table, m, k, used, n, n0, n1, i, n0 + j, (double)got, (double)want);
        }
    free(x), free(w), free(y), free(p.data);
}

static const size_t edges[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129};

static void every_output_is_its_chain_on_edge_shapes(void **state)
{
    (void)state;
    FOR_TABLES(t)
    {
        for (size_t a = 0; a < COUNT(edges); a++)
            for (size_t b = 0; b < COUNT(edges); b++) {
                check(*t, edges[a], 5, 0, edges[b], 0, edges[b], NULL);
                check(*t, 3, edges[a], 0, edges[b], 0, edges[b], NULL);
                check(*t, edges[a], edges[b], 0, 33, 0, 33, NULL);
            }
        check(*t, 1, 1000, 0, 129, 0, 129, NULL);
        check(*t, 15, 1000, 0, 65, 0, 65, NULL);
        check(*t, 129, 1000, 0, 17, 0, 17, NULL);
        check(*t, 1000, 3, 0, 17, 0, 17, NULL);
        check(*t, 3, 3, 0, 1000, 0, 1000, NULL);
    }
}

static void blocks_of_k_do_not_change_bits(void **state)
{
    (void)state;
    FOR_TABLES(t)
    {
        check(*t, 31, 2049, 0, 130, 0, 130, NULL);
        check(*t, 120, 1700, 0, 70, 3, 69, NULL);
        check(*t, 5, 1700, 0, 40, 0, 40, NULL);
    }
}

static void column_ranges_need_no_alignment(void **state)
{
    (void)state;
    static const size_t range[][2] = {{0, 0},   {5, 5},     {0, 1},     {1, 2},   {15, 17},
                                      {16, 32}, {17, 31},   {31, 33},   {32, 64}, {30, 130},
                                      {3, 148}, {100, 150}, {149, 150}, {48, 64}};
    float *bias = numbers(150, 7);
    const sonde_epilogue e = {.scale = 0.25f, .bias = bias, .act = SONDE_ACT_GELU_TANH};
    FOR_TABLES(t)
    {
        for (size_t r = 0; r < COUNT(range); r++)
            for (size_t m = 1; m <= 17; m += 4) {
                check(*t, m, 19, 0, 150, range[r][0], range[r][1], NULL);
                check(*t, m, 19, 0, 150, range[r][0], range[r][1], &e);
            }
    }
    free(bias);
}

static void chains_go_on_from_where_they_are_told(void **state)
{
    (void)state;
    static const size_t range[][2] = {{0, 150}, {0, 1}, {15, 17}, {31, 33}, {32, 64}, {3, 148}, {149, 150}};
    float *from = numbers(160 * 152, 9), *add = numbers(160 * 152, 10), *bias = numbers(150, 7);
    const sonde_epilogue cases[] = {
        {.from = from, .ld_from = 151},
        {.from = from, .ld_from = 152, .bias = bias, .scale = 0.5f},
        {.from = from, .ld_from = 150, .add = add, .ld_add = 152, .bias = bias, .act = SONDE_ACT_RELU}};
    FOR_TABLES(t)
    {
        for (size_t c = 0; c < COUNT(cases); c++)
            for (size_t r = 0; r < COUNT(range); r++) {
                for (size_t m = 1; m <= 17; m += 4)
                    check(*t, m, 19, 0, 150, range[r][0], range[r][1], &cases[c]);
                check(*t, 121, 1100, 0, 150, range[r][0], range[r][1], &cases[c]);
            }
    }
    free(from), free(add), free(bias);
}

/* A product in two halves of k, the second going on from the first, is the whole product. */
static void halves_of_k_are_one_chain(void **state)
{
    (void)state;
    enum { M = 33, K = 900, N = 70, HALF = 333 };
    float *x = numbers(M * K, 1), *w = numbers(K * N, 2), *y = need(M * N, sizeof *y),
          *z = need(M * N, sizeof *z);
    FOR_TABLES(t)
    {
        const sonde_kernels *kernels = kernels_named(*t);
        sonde_packed whole = pack(kernels, K, N, w, N, 1), a = pack(kernels, HALF, N, w, N, 1),
                     b = pack(kernels, K - HALF, N, w + HALF * N, N, 1);
        const sonde_epilogue on = {.from = z, .ld_from = N};
        sonde_matmul(&whole, 0, 0, N, x, K, M, y, N, NULL);
        sonde_matmul(&a, 0, 0, N, x, K, M, z, N, NULL);
        sonde_matmul(&b, 0, 0, N, x + HALF, K, M, z, N, &on);
        for (size_t i = 0; i < M * N; i++)
            if (exact(*t) ? !same(y[i], z[i]) : !(fabsf(y[i] - z[i]) <= 1e-3f))
                fail_msg("%s: output %zu is %a in halves, %a whole", *t, i, (double)z[i], (double)y[i]);
        free(whole.data), free(a.data), free(b.data);
    }
    free(x), free(w), free(y), free(z);
}

static void only_the_first_k_used_rows_take_part(void **state)
{
    (void)state;
    FOR_TABLES(t)
    {
        for (size_t used = 1; used <= 70; used += 3)
            check(*t, 9, 70, used, 40, 0, 40, NULL);
        check(*t, 40, 2000, 1001, 40, 0, 40, NULL);
    }
    float *w = numbers(16 * 8, 1), x[16], y[8];
    for (int i = 0; i < 16; i++) {
        x[i] = i < 10 ? 1.0f : NAN;
        for (int j = 0; j < 8 && i >= 10; j++)
            w[i * 8 + j] = NAN;
    }
    FOR_TABLES(t)
    {
        sonde_packed p = pack(kernels_named(*t), 16, 8, w, 8, 1);
        sonde_matmul(&p, 10, 0, 8, x, 16, 1, y, 8, NULL);
        for (int j = 0; j < 8; j++)
            assert_true(isfinite(y[j]));
        free(p.data);
    }
    free(w);
}

static void epilogue_runs_in_the_stated_order(void **state)
{
    (void)state;
    float *bias = numbers(100, 3), *add = numbers(40 * 107, 4);
    FOR_TABLES(t)
    {
        for (int bits = 0; bits < 8; bits++)
            for (int act = 0; act < SONDE_N_ACTS; act++) {
                const sonde_epilogue e = {.scale = bits & 1 ? 0.125f : 0.0f,
                                          .bias = bits & 2 ? bias : NULL,
                                          .act = (enum sonde_act)act,
                                          .add = bits & 4 ? add : NULL,
                                          .ld_add = 107};
                check(*t, 17, 20, 0, 100, 0, 100, &e);
                check(*t, 2, 20, 0, 100, 7, 99, &e);
            }
        const sonde_epilogue e = {.bias = bias, .add = add, .ld_add = 107};
        check(*t, 40, 1900, 0, 100, 0, 100, &e);
    }
    free(bias), free(add);
}

static void residual_may_be_added_in_place(void **state)
{
    (void)state;
    static const size_t ks[] = {20, 1900};
    FOR_TABLES(t)
    {
        for (size_t c = 0; c < COUNT(ks); c++)
            for (int act = 0; act < 2; act++) {
                const size_t k = ks[c], m = 23, n = 70;
                float *x = numbers(m * k, 1), *w = numbers(k * n, 2), *y = numbers(m * n, 3),
                      *z = numbers(m * n, 3);
                sonde_packed p = pack(kernels_named(*t), k, n, w, n, 1);
                sonde_epilogue e = {.act = act ? SONDE_ACT_SILU : SONDE_ACT_NONE, .add = z, .ld_add = n};
                float *apart = need(m * n, sizeof *apart);
                sonde_matmul(&p, 0, 0, n, x, k, m, apart, n, &e);
                e.add = y;
                sonde_matmul(&p, 0, 0, n, x, k, m, y, n, &e);
                assert_same(y, apart, m * n, *t);
                free(x), free(w), free(y), free(z), free(apart), free(p.data);
            }
    }
}

static void bits_do_not_depend_on_row_batch_or_column_range(void **state)
{
    (void)state;
    const size_t m = 61, k = 1601, n = 97;
    float *x = numbers(m * k, 1), *w = numbers(k * n, 2), *all = need(m * n, sizeof *all), part[97];
    FOR_TABLES(t)
    {
        if (!exact(*t))
            continue;
        sonde_packed p = pack(kernels_named(*t), k, n, w, n, 1);
        sonde_matmul(&p, 0, 0, n, x, k, m, all, n, NULL);
        for (size_t i = 0; i < m; i += 7) {
            sonde_matmul(&p, 0, 0, n, x + i * k, k, 1, part, n, NULL);
            assert_same(part, all + i * n, n, *t);
        }
        for (size_t c = 0; c + 5 <= n; c += 11) {
            float y[61 * 5];
            sonde_matmul(&p, 0, c, c + 5, x, k, m, y, 5, NULL);
            for (size_t i = 0; i < m; i++)
                assert_same(y + i * 5, all + i * n + c, 5, *t);
        }
        free(p.data);
    }
    free(x), free(w), free(all);
}

static void packing_takes_any_strides_and_pieces(void **state)
{
    (void)state;
    const size_t k = 37, n = 83;
    float *w = numbers(k * n, 5), *wt = need(k * n, sizeof *wt), *wide = need(2 * k * n, sizeof *wide),
          col[37];
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < n; j++) {
            wt[j * k + i] = w[i * n + j];
            wide[2 * (i * n + j)] = w[i * n + j];
        }
    FOR_TABLES(t)
    {
        const sonde_kernels *kernels = kernels_named(*t);
        const size_t floats = sonde_packed_floats(kernels, k, n);
        assert_true(floats >= k * n);
        sonde_packed a = pack(kernels, k, n, w, n, 1), b = pack(kernels, k, n, wt, 1, k),
                     c = pack(kernels, k, n, wide, 2 * n, 2);
        sonde_packed d = {kernels, k, n, need(floats, sizeof(float))};
        for (size_t k0 = 0; k0 < k; k0 += 10)
            for (size_t n0 = 0; n0 < n; n0 += 23) {
                const size_t nk = k - k0 < 10 ? k - k0 : 10, nn = n - n0 < 23 ? n - n0 : 23;
                sonde_pack(&d, k0, nk, n0, nn, w + k0 * n + n0, n, 1);
            }
        assert_memory_equal(a.data, b.data, floats * sizeof(float));
        assert_memory_equal(a.data, c.data, floats * sizeof(float));
        assert_memory_equal(a.data, d.data, floats * sizeof(float));
        for (size_t j = 0; j < n; j++) {
            sonde_unpack_column(&a, j, col);
            assert_memory_equal(col, wt + j * k, sizeof col);
        }
        free(a.data), free(b.data), free(c.data), free(d.data);
    }
    free(w), free(wt), free(wide);
}

static void packed_size_that_overflows_is_zero(void **state)
{
    (void)state;
    FOR_TABLES(t)
    {
        const sonde_kernels *kernels = kernels_named(*t);
        assert_int_equal(sonde_packed_floats(kernels, SIZE_MAX / 8, 64), 0);
        assert_int_equal(sonde_packed_floats(kernels, 2, SIZE_MAX), 0);
        assert_int_equal(sonde_packed_floats(kernels, SIZE_MAX / 4 / 64 + 1, 64), 0);
        assert_int_equal(sonde_packed_floats(kernels, 0, 10), 0);
    }
}

static void chains_stay_near_the_double_reference(void **state)
{
    (void)state;
    const size_t m = 20, k = 700, n = 50;
    float *x = numbers(m * k, 1), *w = numbers(k * n, 2), *bias = numbers(n, 3);
    float *y = need(m * n, sizeof *y), *z = need(m * n, sizeof *z);
    ref_matmul(x, w, bias, m, k, n, z);
    FOR_TABLES(t)
    {
        sonde_packed p = pack(kernels_named(*t), k, n, w, n, 1);
        const sonde_epilogue e = {.bias = bias};
        sonde_matmul(&p, 0, 0, n, x, k, m, y, n, &e);
        for (size_t i = 0; i < m * n; i++) /* k roundings of at most half an ulp of a partial sum below 64 */
            assert_true(fabsf(y[i] - z[i]) <= 700 * 0x1p-19f);
        free(p.data);
    }
    free(x), free(w), free(bias), free(y), free(z);
}

static void nan_and_infinity_reach_their_row_only(void **state)
{
    (void)state;
    const size_t m = 20, k = 40, n = 50;
    float *x = numbers(m * k, 1), *w = numbers(k * n, 2), *y = need(m * n, sizeof *y);
    x[7 * k + 3] = NAN;
    x[11 * k + 5] = INFINITY;
    FOR_TABLES(t)
    {
        sonde_packed p = pack(kernels_named(*t), k, n, w, n, 1);
        sonde_matmul(&p, 0, 0, n, x, k, m, y, n, NULL);
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < n; j++) {
                assert_int_equal(!!isnan(y[i * n + j]), i == 7);
                assert_int_equal(!!isinf(y[i * n + j]), i == 11);
            }
        free(p.data);
    }
    free(x), free(w), free(y);
}

static void tables_are_found_by_name(void **state)
{
    (void)state;
    const sonde_kernels *k = NULL;
    sonde_err err;
    assert_string_equal(sonde_kernels_list()[0], sonde_kernels_name(sonde_kernels_best()));
    assert_ptr_equal(kernels_named(NULL), sonde_kernels_best());
    assert_ptr_equal(kernels_named(""), sonde_kernels_best());
    assert_ptr_equal(kernels_named("auto"), sonde_kernels_best());
    FOR_TABLES(t)
    assert_string_equal(sonde_kernels_name(kernels_named(*t)), *t);
    assert_int_equal(sonde_kernels_find("mmx", &k, &err), SONDE_E_USAGE);
    assert_null(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_found_by_name),
        cmocka_unit_test(packing_takes_any_strides_and_pieces),
        cmocka_unit_test(packed_size_that_overflows_is_zero),
        cmocka_unit_test(every_output_is_its_chain_on_edge_shapes),
        cmocka_unit_test(blocks_of_k_do_not_change_bits),
        cmocka_unit_test(column_ranges_need_no_alignment),
        cmocka_unit_test(chains_go_on_from_where_they_are_told),
        cmocka_unit_test(halves_of_k_are_one_chain),
        cmocka_unit_test(only_the_first_k_used_rows_take_part),
        cmocka_unit_test(epilogue_runs_in_the_stated_order),
        cmocka_unit_test(residual_may_be_added_in_place),
        cmocka_unit_test(bits_do_not_depend_on_row_batch_or_column_range),
        cmocka_unit_test(chains_stay_near_the_double_reference),
        cmocka_unit_test(nan_and_infinity_reach_their_row_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
