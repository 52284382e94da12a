/* SPDX-License-Identifier: MIT
 * exp, tanh, erf and the activations, written once over lanes: the same operations in the same order on every
 * instruction set. Polynomials are minimax fits (Remez) in exact arithmetic, rounded to float. */
#ifndef SONDE_NUM_ELEMENTARY_IMPL_H
#define SONDE_NUM_ELEMENTARY_IMPL_H

#include "activation.h"

/* The polynomial c[0] + c[1] x + ... + c[n-1] x^(n-1), by Horner. n is a constant where it is called. */
static inline __attribute__((always_inline)) vf el_poly(vf x, const float *c, const int n)
{
    vf p = vf_set(c[n - 1]);
#pragma GCC unroll 16
    for (int i = n - 2; i >= 0; i--)
        p = vf_fma(p, x, vf_set(c[i]));
    return p;
}

/* e^x = 2^n e^r, n = round(x / ln 2), e^r = 1 + r + r^2 q(r). Error < 1.04 ulp. */
static inline vf el_exp(vf x)
{
    static const float q[5] = {0x1p-1f, 0x1.55548ep-3f, 0x1.55545ep-5f, 0x1.123bdp-7f, 0x1.6db4c4p-10f};
    const vf magic = vf_set(0x1.8p23f); /* adding it rounds to an integer, in the low bits of the sum */
    vf t = vf_fma(x, vf_set(0x1.715476p+0f), magic);
    vf n = vf_sub(t, magic);
    vf r = vf_fnma(n, vf_set(0x1.62e4p-1f), x); /* exact: 15 bits of ln 2 */
    r = vf_fnma(n, vf_set(0x1.7f7d1cp-20f), r);
    vf p = vf_add(vf_fma(vf_mul(r, r), el_poly(r, q, 5), r), vf_set(1.0f));
    vf y = vi_float(vi_add(vf_bits(p), vi_shl(vf_bits(t), 23)));
    y = vf_select(vf_lt(x, vf_set(-0x1.5d589ep+6f)), vf_set(0.0f), y);            /* below -126 ln 2 */
    y = vf_select(vf_lt(vf_set(0x1.62e42ep+6f), x), vf_set(__builtin_inff()), y); /* above log(FLT_MAX) */
    return vf_select(vf_isnan(x), x, y);
}

static inline vf el_sign_of(vf magnitude, vf x)
{
    return vi_float(vi_or(vf_bits(magnitude), vi_and(vf_bits(x), vi_set(0x80000000u))));
}
static inline vf el_abs(vf x)
{
    return vi_float(vi_and(vf_bits(x), vi_set(0x7fffffffu)));
}
static inline vf el_neg(vf x)
{
    return vi_float(vi_xor(vf_bits(x), vi_set(0x80000000u)));
}

/* x + x^3 P(x^2) below 0.6, 1 - 2 / (e^2|x| + 1) above. */
static inline vf el_tanh(vf x)
{
    static const float c[5] = {-0x1.55553ep-2f, 0x1.1109dep-3f, -0x1.b89f28p-5f, 0x1.54e1f4p-6f,
                               -0x1.8313fp-8f};
    const vf one = vf_set(1.0f);
    vf a = el_abs(x), s = vf_mul(a, a);
    vf small = vf_fma(vf_mul(s, a), el_poly(s, c, 5), a);
    vf large = vf_sub(one, vf_div(vf_set(2.0f), vf_add(el_exp(vf_add(a, a)), one)));
    return el_sign_of(vf_select(vf_lt(a, vf_set(0.6f)), small, large), x);
}

/* erfc(z) = exp(-z Q(z)) for z >= 0. Q is held beyond z = 4, where erfc < 2e-8: absolute error < 1e-7
 * everywhere. */
static inline vf el_erfc_positive(vf z)
{
    static const float c[11] = {0x1.20dd7ap+0f,   0x1.45f27ap-1f,  0x1.a5086ep-4f,   -0x1.39e974p-6f,
                                -0x1.bcbd38p-13f, 0x1.d50aa2p-10f, -0x1.8c7c48p-11f, 0x1.80d052p-13f,
                                -0x1.d4483ap-16f, 0x1.4c1a2cp-19f, -0x1.a3b4d6p-24f};
    vf q = el_poly(vf_min(z, vf_set(4.0f)), c, 11);
    return el_exp(vf_mul(el_neg(z), q));
}

static inline vf el_erf(vf x)
{
    static const float c[7] = {0x1.20dd76p+0f, -0x1.812742p-2f,  0x1.ce2e1p-4f,  -0x1.b80f34p-6f,
                               0x1.54ce2ap-8f, -0x1.aa76dap-11f, 0x1.5d8eb4p-14f};
    vf a = el_abs(x);
    vf small = vf_mul(a, el_poly(vf_mul(a, a), c, 7));
    vf large = vf_sub(vf_set(1.0f), el_erfc_positive(a));
    return el_sign_of(vf_select(vf_lt(a, vf_set(0.9f)), small, large), x);
}

static inline vf el_relu(vf x) /* NaN stays */
{
    return vf_max(vf_set(0.0f), x);
}

/* x Phi(x): with e = erfc(|x| / sqrt 2), x e/2 below zero and x (1 - e/2) above. */
static inline vf el_gelu_erf(vf x)
{
    vf e = el_erfc_positive(vf_mul(el_abs(x), vf_set(0x1.6a09e6p-1f)));
    vf below = vf_mul(vf_set(0.5f), e), above = vf_fnma(vf_set(0.5f), e, vf_set(1.0f));
    return vf_mul(x, vf_select(vf_lt(x, vf_set(0.0f)), below, above));
}

/* x sigmoid(-w) */
static inline vf el_gate(vf x, vf w)
{
    return vf_div(x, vf_add(vf_set(1.0f), el_exp(w)));
}

/* x/2 (1 + tanh u) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
static inline vf el_gelu_tanh(vf x)
{
    vf w = vf_fma(vf_mul(x, x), vf_set(-0.0713548162726f), vf_set(-1.5957691216057f));
    return el_gate(x, vf_mul(x, w));
}
static inline vf el_quick_gelu(vf x)
{
    return el_gate(x, vf_mul(x, vf_set(-1.702f)));
}
static inline vf el_silu(vf x)
{
    return el_gate(x, el_neg(x));
}

#endif
