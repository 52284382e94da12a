/* SPDX-License-Identifier: MIT */
#include "num_cases.h"

#include "num/activation.h"
#include "num/ref.h"

/* |got - want| in units of the last place of want (normal results). */
static double ulps(float got, double want)
{
    if ((double)got == want)
        return 0;
    int e;
    frexp(want, &e);
    return fabs((double)got - want) / ldexp(1.0, e - 24);
}

static const float special[] = {0.0f,        -0.0f,     INFINITY,   -INFINITY,  NAN,        0x1p-149f,
                                -0x1p-149f,  0x1p-126f, -0x1p-126f, 3.4e38f,    -3.4e38f,   1e30f,
                                -1e30f,      88.72283f, 88.72284f,  -87.33654f, -87.33655f, 88.5f,
                                -104.0f,     0.6f,      -0.6f,      0.9f,       4.0f,       -5.656854f,
                                0.34657359f, 1.0f,      -1.0f,      3.0f,       -3.0f,      0.5f};

static void exp_stays_within_1_05_ulp(void **state)
{
    (void)state;
    double worst = 0;
    for (uint64_t u = 0; u < 0x100000000u; u += 97) {
        const float x = sonde_bits_f32((uint32_t)u), y = sonde_expf(x);
        if (isnan(x)) {
            assert_true(isnan(y));
            continue;
        }
        const double want = exp((double)x);
        if (want < 0x1p-126)
            assert_true(y == 0.0f || ulps(y, want) <= 1.05);
        else if (want > 0x1.fffffep127)
            assert_true(isinf(y));
        else if (ulps(y, want) > worst)
            worst = ulps(y, want);
    }
    if (worst > 1.05)
        fail_msg("error of exp is %.4f ulp", worst);
    assert_true(sonde_expf(0.0f) == 1.0f && sonde_expf(-0.0f) == 1.0f);
    assert_true(sonde_expf(-INFINITY) == 0.0f && isinf(sonde_expf(INFINITY)));
    assert_true(sonde_expf(-87.5f) == 0.0f && sonde_expf(-1e30f) == 0.0f && isinf(sonde_expf(89.0f)));
}

/* Thresholds are where mistakes sit: every float near them. */
static void exp_flushes_and_overflows_at_the_stated_places(void **state)
{
    (void)state;
    for (uint32_t u = sonde_f32_bits(-87.336f); u < sonde_f32_bits(-87.337f); u++) {
        const float x = sonde_bits_f32(u), y = sonde_expf(x);
        const double want = exp((double)x);
        assert_true(want >= 0x1p-126 ? ulps(y, want) <= 1.05 : y == 0.0f || y == 0x1p-126f);
    }
    for (uint32_t u = sonde_f32_bits(88.722f); u < sonde_f32_bits(88.723f); u++) {
        const float x = sonde_bits_f32(u), y = sonde_expf(x);
        const double want = exp((double)x);
        assert_true(want > 0x1.fffffep127 ? isinf(y) : ulps(y, want) <= 1.05);
    }
}

static void log_is_within_one_and_a_half_ulp(void **state)
{
    (void)state;
    double worst = 0;
    for (uint32_t u = 0x00800000u; u < 0x7f800000u; u += 97) {
        const float x = sonde_bits_f32(u);
        const double e = ulps(sonde_logf(x), log((double)x));
        worst = e > worst ? e : worst;
    }
    for (uint32_t u = sonde_f32_bits(0.99f); u < sonde_f32_bits(1.01f); u++) {
        const float x = sonde_bits_f32(u);
        const double e = ulps(sonde_logf(x), log((double)x));
        worst = e > worst ? e : worst;
    }
    if (worst > 1.5)
        fail_msg("error of log is %.4f ulp", worst);
    assert_true(sonde_logf(1.0f) == 0.0f && isinf(sonde_logf(0.0f)) && isinf(sonde_logf(INFINITY)));
    assert_true(isnan(sonde_logf(-1.0f)) && isnan(sonde_logf(NAN)));
}

static void tanh_and_erf_are_near_and_odd(void **state)
{
    (void)state;
    double worst[2] = {0, 0}, relative[2] = {0, 0};
    for (uint32_t u = 0; u <= 0x7f800000u; u += 97) {
        const float x = sonde_bits_f32(u), y[2] = {sonde_tanhf(x), sonde_erff(x)};
        const double want[2] = {tanh((double)x), erf((double)x)};
        assert_true(same(sonde_tanhf(-x), -y[0]) && same(sonde_erff(-x), -y[1]));
        for (int f = 0; f < 2; f++) {
            const double e = fabs((double)y[f] - want[f]);
            worst[f] = e > worst[f] ? e : worst[f];
            if (x > 1e-30f && e / want[f] > relative[f])
                relative[f] = e / want[f];
        }
    }
    if (worst[0] > 2e-7 || worst[1] > 2e-7 || relative[0] > 2.5e-7 || relative[1] > 2.5e-7)
        fail_msg("tanh: %g absolute, %g relative; erf: %g, %g", worst[0], relative[0], worst[1], relative[1]);
    assert_true(sonde_tanhf(INFINITY) == 1.0f && sonde_tanhf(-INFINITY) == -1.0f);
    assert_true(sonde_erff(INFINITY) == 1.0f && sonde_erff(-INFINITY) == -1.0f);
    assert_true(isnan(sonde_tanhf(NAN)) && isnan(sonde_erff(NAN)));
}

/* Float activations of an input x carry x's own relative error; 4 eps max(|x|, 2^-20) holds for all of them.
 */
static void activations_match_their_formulas(void **state)
{
    (void)state;
    for (int a = 0; a < SONDE_N_ACTS; a++) {
        double worst = 0, where = 0;
        for (uint32_t u = 0; u < 0x42480000u; u += 97) /* to 50 */
            for (uint32_t sign = 0; sign < 2; sign++) {
                const float x = sonde_bits_f32(u | sign << 31);
                const double e =
                    fabs((double)sonde_act_one((enum sonde_act)a, x) - ref_act((enum sonde_act)a, (double)x));
                const double scaled = e / (fabs((double)x) > 0x1p-20 ? fabs((double)x) : 0x1p-20);
                if (scaled > worst) {
                    worst = scaled;
                    where = (double)x;
                }
            }
        if (worst > 0x1p-22)
            fail_msg("activation %d is off by %g |x| at %g", a, worst, where);
    }
}

static void activations_have_the_golden_values(void **state)
{
    (void)state;
    static const struct {
        float x, erf, tanh, silu, quick;
    } golden[] = {{-3.0f, -0.004049694f, -0.003637392f, -0.142277620f, -0.018071310f},
                  {-1.0f, -0.158655254f, -0.158808009f, -0.268941421f, -0.154204234f},
                  {0.5f, 0.345731231f, 0.345714010f, 0.311229666f, 0.350388437f},
                  {3.0f, 2.995950306f, 2.996362608f, 2.857722380f, 2.981928690f}};
    for (size_t i = 0; i < COUNT(golden); i++) {
        const float x = golden[i].x, eps = 2.5e-7f * fabsf(x);
        assert_true(fabsf(sonde_act_one(SONDE_ACT_GELU_ERF, x) - golden[i].erf) <= eps);
        assert_true(fabsf(sonde_act_one(SONDE_ACT_GELU_TANH, x) - golden[i].tanh) <= eps);
        assert_true(fabsf(sonde_act_one(SONDE_ACT_SILU, x) - golden[i].silu) <= eps);
        assert_true(fabsf(sonde_act_one(SONDE_ACT_QUICK_GELU, x) - golden[i].quick) <= eps);
        assert_true(sonde_act_one(SONDE_ACT_RELU, x) == (x > 0 ? x : 0.0f));
        assert_true(sonde_act_one(SONDE_ACT_NONE, x) == x);
    }
}

static void activations_pass_nan_and_saturate(void **state)
{
    (void)state;
    for (int a = 0; a < SONDE_N_ACTS; a++) {
        const enum sonde_act act = (enum sonde_act)a;
        assert_true(isnan(sonde_act_one(act, NAN)));
        assert_true(isinf(sonde_act_one(act, INFINITY)));
        assert_true(sonde_act_one(act, 1e30f) == 1e30f);
        assert_true(sonde_act_one(act, 0.0f) == 0.0f);
        if (act != SONDE_ACT_NONE)
            assert_true(sonde_act_one(act, -1e30f) == 0.0f && sonde_act_one(act, -1000.0f) == 0.0f);
    }
}

/* Arrays: every table, every length, in place or not, has the bits of the scalar functions. */
typedef void vec_fn(const sonde_kernels *k, int which, size_t n, const float *x, const float *z, float *y);

enum { V_EXP = SONDE_N_ACTS, V_TANH, V_CAP, V_ADD, V_GATED, N_VEC = V_GATED + SONDE_N_ACTS };

static void vec(const sonde_kernels *k, int which, size_t n, const float *x, const float *z, float *y)
{
    if (which < SONDE_N_ACTS)
        sonde_activate(k, (enum sonde_act)which, n, x, y);
    else if (which == V_EXP)
        sonde_vec_exp(k, n, x, y);
    else if (which == V_TANH)
        sonde_vec_tanh(k, n, x, y);
    else if (which == V_CAP)
        sonde_softcap(k, 30.0f, n, x, y);
    else if (which == V_ADD)
        sonde_vec_add(k, n, x, z, y);
    else
        sonde_activate_gated(k, (enum sonde_act)(which - V_GATED), n, x, z, y);
}

static float one(int which, float x, float z)
{
    if (which < SONDE_N_ACTS)
        return sonde_act_one((enum sonde_act)which, x);
    if (which == V_EXP)
        return sonde_expf(x);
    if (which == V_TANH)
        return sonde_tanhf(x);
    if (which == V_CAP)
        return 30.0f * sonde_tanhf(x / 30.0f);
    if (which == V_ADD)
        return x + z;
    return sonde_act_one((enum sonde_act)(which - V_GATED), x) * z;
}

static void arrays_have_the_scalar_bits_at_every_length(void **state)
{
    (void)state;
    float *x = numbers(200, 1), *z = numbers(200, 2), *y = canaries(216);
    for (size_t i = 0; i < 200; i++)
        x[i] = i < COUNT(special) ? special[i] : 20.0f * x[i];
    FOR_TABLES(t)
    for (int which = 0; which < N_VEC; which++)
        for (size_t n = 0; n <= 130; n += n < 40 ? 1 : 15)
            for (size_t off = 0; off < 70; off += 31) {
                for (size_t i = 0; i < 216; i++)
                    y[i] = sonde_bits_f32(CANARY);
                vec(kernels_named(*t), which, n, x + off, z, y + 3);
                for (size_t i = 0; i < n; i++)
                    if (!same(y[i + 3], one(which, x[i + off], z[i])))
                        fail_msg("%s function %d n %zu: f(%a) is %a, alone %a", *t, which, n,
                                 (double)x[i + off], (double)y[i + 3], (double)one(which, x[i + off], z[i]));
                assert_true(is_canary(y[2]) && is_canary(y[n + 3]));
                memcpy(y, x + off, n * sizeof *y);
                vec(kernels_named(*t), which, n, y, z, y);
                for (size_t i = 0; i < n; i++)
                    assert_true(same(y[i], one(which, x[i + off], z[i])));
                if (which < V_ADD)
                    continue;
                memcpy(y, z, n * sizeof *y);
                vec(kernels_named(*t), which, n, x + off, y, y);
                for (size_t i = 0; i < n; i++)
                    assert_true(same(y[i], one(which, x[i + off], z[i])));
            }
    free(x), free(z), free(y);
}

static void all_tables_agree_over_all_floats(void **state)
{
    (void)state;
    enum { N = 4096 };
    static float x[N], z[N], y[N];
    FOR_TABLES(t)
    for (uint64_t u = 0; u < 0x100000000u;) {
        for (size_t i = 0; i < N; i++, u += 4099) {
            x[i] = sonde_bits_f32((uint32_t)u);
            z[i] = 1.5f;
        }
        for (int which = 0; which < V_ADD; which++) {
            vec(kernels_named(*t), which, N, x, z, y);
            for (size_t i = 0; i < N; i++)
                if (!same(y[i], one(which, x[i], z[i])))
                    fail_msg("%s function %d at %a: %a, alone %a", *t, which, (double)x[i], (double)y[i],
                             (double)one(which, x[i], z[i]));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_stays_within_1_05_ulp),
        cmocka_unit_test(exp_flushes_and_overflows_at_the_stated_places),
        cmocka_unit_test(log_is_within_one_and_a_half_ulp),
        cmocka_unit_test(tanh_and_erf_are_near_and_odd),
        cmocka_unit_test(activations_match_their_formulas),
        cmocka_unit_test(activations_have_the_golden_values),
        cmocka_unit_test(activations_pass_nan_and_saturate),
        cmocka_unit_test(arrays_have_the_scalar_bits_at_every_length),
        cmocka_unit_test(all_tables_agree_over_all_floats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
