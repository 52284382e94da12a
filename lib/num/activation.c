/* SPDX-License-Identifier: MIT
 * The scalar functions are the lane functions with one lane. */
#include "activation.h"

#include "lanes_scalar_impl.h"
#include "elementary_impl.h"
#include "kernels_impl.h"

float sonde_expf(float x)
{
    return el_exp(x);
}

float sonde_tanhf(float x)
{
    return el_tanh(x);
}

float sonde_erff(float x)
{
    return el_erf(x);
}

/* x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt 2); log(1 + f) = f - f^2/2 + f^3 P(f). */
float sonde_logf(float x)
{
    static const float c[8] = {0x1.55554ap-2f, -0x1.00021ep-2f, 0x1.99a596p-3f, -0x1.5478c4p-3f,
                               0x1.226e68p-3f, -0x1.0cde9cp-3f, 0x1.07cf9ep-3f, -0x1.41f448p-4f};
    if (!(x > 0.0f))
        return x == 0.0f ? -INFINITY : NAN;
    if (x == INFINITY)
        return x;
    const uint32_t u = sonde_f32_bits(x) - 0x3f3504f3u; /* bits of sqrt(1/2) */
    const float e = (float)((int32_t)u >> 23);
    const float f = sonde_bits_f32((u & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
    const float s = f * f;
    const float tail = fmaf(s * f, el_poly(f, c, 8), e * -0x1.05c61p-29f);
    const float low = fmaf(-0.5f, s, tail);
    return fmaf(e, 0x1.62e43p-1f, f + low);
}

float sonde_act_one(enum sonde_act act, float x)
{
    switch (act) {
    case SONDE_ACT_RELU:
        return el_relu(x);
    case SONDE_ACT_GELU_ERF:
        return el_gelu_erf(x);
    case SONDE_ACT_GELU_TANH:
        return el_gelu_tanh(x);
    case SONDE_ACT_QUICK_GELU:
        return el_quick_gelu(x);
    case SONDE_ACT_SILU:
        return el_silu(x);
    default:
        return x;
    }
}

void sonde_vec_exp(const sonde_kernels *k, size_t n, const float *x, float *y)
{
    k->exp(n, x, y);
}

void sonde_vec_tanh(const sonde_kernels *k, size_t n, const float *x, float *y)
{
    k->tanh(n, x, y);
}

void sonde_activate(const sonde_kernels *k, enum sonde_act act, size_t n, const float *x, float *y)
{
    k->activate(act, n, x, y);
}

void sonde_activate_gated(const sonde_kernels *k, enum sonde_act act, size_t n, const float *gate,
                          const float *up, float *y)
{
    k->activate_gated(act, n, gate, up, y);
}

void sonde_softcap(const sonde_kernels *k, float cap, size_t n, const float *x, float *y)
{
    k->softcap(cap, n, x, y);
}

void sonde_vec_add(const sonde_kernels *k, size_t n, const float *a, const float *b, float *y)
{
    k->add(n, a, b, y);
}
