/* SPDX-License-Identifier: MIT
 * Elementwise kernels over lanes: activations, rotary embedding, conversions. */
#ifndef SONDE_NUM_VEC_IMPL_H
#define SONDE_NUM_VEC_IMPL_H

#include <math.h>

#include "elementary_impl.h"

/* y[i] = EXPR of u = x[i], for i < n. */
#define MAP(n, x, y, expr)                                                                                   \
    do {                                                                                                     \
        size_t i_ = 0;                                                                                       \
        for (; i_ + LANES <= (n); i_ += LANES) {                                                             \
            const vf u = vf_load((x) + i_);                                                                  \
            vf_store((y) + i_, expr);                                                                        \
        }                                                                                                    \
        if (i_ < (n)) {                                                                                      \
            const vf u = vf_load_n((x) + i_, (n)-i_);                                                        \
            vf_store_n((y) + i_, expr, (n)-i_);                                                              \
        }                                                                                                    \
    } while (0)

/* The same with v = z[i]. */
#define MAP2(n, x, z, y, expr)                                                                               \
    do {                                                                                                     \
        size_t i_ = 0;                                                                                       \
        for (; i_ + LANES <= (n); i_ += LANES) {                                                             \
            const vf u = vf_load((x) + i_), v = vf_load((z) + i_);                                           \
            vf_store((y) + i_, expr);                                                                        \
        }                                                                                                    \
        if (i_ < (n)) {                                                                                      \
            const vf u = vf_load_n((x) + i_, (n)-i_), v = vf_load_n((z) + i_, (n)-i_);                       \
            vf_store_n((y) + i_, expr, (n)-i_);                                                              \
        }                                                                                                    \
    } while (0)

static void vec_exp(size_t n, const float *x, float *y)
{
    MAP(n, x, y, el_exp(u));
}

static void vec_tanh(size_t n, const float *x, float *y)
{
    MAP(n, x, y, el_tanh(u));
}

static void vec_activate(enum sonde_act act, size_t n, const float *x, float *y)
{
    switch (act) {
    case SONDE_ACT_RELU:
        MAP(n, x, y, el_relu(u));
        break;
    case SONDE_ACT_GELU_ERF:
        MAP(n, x, y, el_gelu_erf(u));
        break;
    case SONDE_ACT_GELU_TANH:
        MAP(n, x, y, el_gelu_tanh(u));
        break;
    case SONDE_ACT_QUICK_GELU:
        MAP(n, x, y, el_quick_gelu(u));
        break;
    case SONDE_ACT_SILU:
        MAP(n, x, y, el_silu(u));
        break;
    default:
        if (y != x)
            MAP(n, x, y, u);
    }
}

static void vec_activate_gated(enum sonde_act act, size_t n, const float *gate, const float *up, float *y)
{
    switch (act) {
    case SONDE_ACT_RELU:
        MAP2(n, gate, up, y, vf_mul(el_relu(u), v));
        break;
    case SONDE_ACT_GELU_ERF:
        MAP2(n, gate, up, y, vf_mul(el_gelu_erf(u), v));
        break;
    case SONDE_ACT_GELU_TANH:
        MAP2(n, gate, up, y, vf_mul(el_gelu_tanh(u), v));
        break;
    case SONDE_ACT_QUICK_GELU:
        MAP2(n, gate, up, y, vf_mul(el_quick_gelu(u), v));
        break;
    case SONDE_ACT_SILU:
        MAP2(n, gate, up, y, vf_mul(el_silu(u), v));
        break;
    default:
        MAP2(n, gate, up, y, vf_mul(u, v));
    }
}

static void vec_softcap(float cap, size_t n, const float *x, float *y)
{
    const vf c = vf_set(cap);
    MAP(n, x, y, vf_mul(c, el_tanh(vf_div(u, c))));
}

static void vec_add(size_t n, const float *a, const float *b, float *y)
{
    MAP2(n, a, b, y, vf_add(u, v));
}

static void rope_row(const float *x, size_t n_heads, size_t dh, size_t rope_dim, const float *cosine,
                     const float *sine, float *y)
{
    const size_t r = rope_dim / 2;
    for (size_t h = 0; h < n_heads; h++, x += dh, y += dh) {
        for (size_t i = 0; i < r; i += LANES) {
            const size_t n = r - i < LANES ? r - i : LANES;
            const vf a = vf_load_n(x + i, n), b = vf_load_n(x + r + i, n);
            const vf c = vf_load_n(cosine + i, n), s = vf_load_n(sine + i, n);
            vf_store_n(y + i, vf_sub(vf_mul(a, c), vf_mul(b, s)), n);
            vf_store_n(y + r + i, vf_add(vf_mul(b, c), vf_mul(a, s)), n);
        }
        if (y != x)
            for (size_t i = 2 * r; i < dh; i++)
                y[i] = x[i];
    }
}

/* Largest finite value where rounding to 16 bits would overflow: finite, and |u| bits at or above `from`. */
static inline vf saturate(vf u, uint32_t from, uint32_t largest, size_t *count)
{
    const vi a = vi_and(vf_bits(u), vi_set(0x7fffffffu));
    const vi sign = vi_and(vf_bits(u), vi_set(0x80000000u));
    const vm over = vi_gt(a, vi_set(from - 1)), infinite = vi_gt(a, vi_set(0x7f7fffffu));
    const uint32_t hit = vm_bits(over) & ~vm_bits(infinite);
    if (!hit)
        return u;
    *count += (size_t)__builtin_popcount(hit);
    return vf_select(infinite, u, vf_select(over, vi_float(vi_or(sign, vi_set(largest))), u));
}

static inline vf saturate_f16(vf u, size_t *count)
{
    return saturate(u, 0x477ff000u, 0x477fe000u, count); /* 65520 and up become 65504 */
}

static inline vi to_bf16_bits(vf x, size_t *count)
{
    const vf u = saturate(x, 0x7f7f8000u, 0x7f7f0000u, count);
    const vi b = vf_bits(u), high = vi_shr(b, 16);
    const vi even = vi_shr(vi_add(vi_add(b, vi_set(0x7fffu)), vi_and(high, vi_set(1))), 16);
    return vi_select(vf_isnan(u), vi_or(high, vi_set(0x40u)), even);
}

static size_t to_f16(size_t n, const float *x, uint16_t *y)
{
    size_t count = 0, i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store_f16(y + i, saturate_f16(vf_load(x + i), &count));
    if (i < n) {
        uint16_t t[LANES];
        vf_store_f16(t, saturate_f16(vf_load_n(x + i, n - i), &count));
        for (size_t j = 0; i + j < n; j++)
            y[i + j] = t[j];
    }
    return count;
}

static size_t to_bf16(size_t n, const float *x, uint16_t *y)
{
    size_t count = 0, i = 0;
    for (; i + LANES <= n; i += LANES)
        vi_store_u16(y + i, to_bf16_bits(vf_load(x + i), &count));
    if (i < n) {
        uint16_t t[LANES];
        vi_store_u16(t, to_bf16_bits(vf_load_n(x + i, n - i), &count));
        for (size_t j = 0; i + j < n; j++)
            y[i + j] = t[j];
    }
    return count;
}

static void from_f16(size_t n, const uint16_t *x, float *y)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(y + i, vf_load_f16(x + i));
    if (i < n) {
        uint16_t t[LANES] = {0};
        for (size_t j = 0; i + j < n; j++)
            t[j] = x[i + j];
        vf_store_n(y + i, vf_load_f16(t), n - i);
    }
}

static void from_bf16(size_t n, const uint16_t *x, float *y)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(y + i, vi_float(vi_shl(vi_load_u16(x + i), 16)));
    for (; i < n; i++) {
        const uint32_t u = (uint32_t)x[i] << 16;
        __builtin_memcpy(y + i, &u, sizeof u);
    }
}

static int all_finite(size_t n, const float *x)
{
    const vi exponent = vi_set(0x7f800000u), below = vi_set(0x7f7fffffu);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        if (vm_bits(vi_gt(vi_and(vf_bits(vf_load(x + i)), exponent), below)))
            return 0;
    return i == n || !vm_bits(vi_gt(vi_and(vf_bits(vf_load_n(x + i, n - i)), exponent), below));
}

static void column_sums(const float *x, size_t ldx, size_t n_rows, size_t d, double *sum, double *sum_sq,
                        double *norm, double *norm_sq)
{
    const size_t whole = d - d % LANES;
    for (size_t r = 0; r < n_rows; r++, x += ldx) {
        vd row = vd_zero();
        for (size_t i = 0; i < whole; i += LANES) {
            const vd v = vd_from(vf_load(x + i)), square = vd_mul(v, v);
            vd_store(sum + i, vd_add(vd_load(sum + i), v));
            vd_store(sum_sq + i, vd_add(vd_load(sum_sq + i), square));
            row = vd_add(row, square);
        }
        if (whole < d) {
            const vd v = vd_from(vf_load_n(x + whole, d - whole));
            for (size_t i = whole; i < d; i++) {
                const double u = (double)x[i];
                sum[i] += u;
                sum_sq[i] += u * u;
            }
            row = vd_add(row, vd_mul(v, v));
        }
        const double total = vd_sum(row);
        *norm += sqrt(total);
        *norm_sq += total;
    }
}

#undef MAP
#undef MAP2

#endif
