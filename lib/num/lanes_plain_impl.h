/* SPDX-License-Identifier: MIT
 * Sixteen lanes in portable C. */
#ifndef SONDE_NUM_LANES_IMPL_H
#define SONDE_NUM_LANES_IMPL_H

#include <stddef.h>
#include <string.h>

#include "lanes_one_impl.h"

#define LANES        16
#define PANEL_VECS   1
#define TILE_ROWS    2
#define KERNEL_NAME  "plain"
#define PACKS_ALWAYS 0 /* packing lanes costs less than a branch that is not foreseen */

typedef struct vf {
    float v[16];
} vf;
typedef struct vi {
    uint32_t v[16];
} vi;
typedef vi vm; /* 0 or 1 */
typedef struct vd {
    double v[16];
} vd;

#define OP1(type, name, in, expr)                                                                            \
    static inline type name(in x)                                                                            \
    {                                                                                                        \
        type r;                                                                                              \
        for (int i = 0; i < 16; i++)                                                                         \
            r.v[i] = expr(x.v[i]);                                                                           \
        return r;                                                                                            \
    }
#define OP2(type, name, in, expr)                                                                            \
    static inline type name(in x, in y)                                                                      \
    {                                                                                                        \
        type r;                                                                                              \
        for (int i = 0; i < 16; i++)                                                                         \
            r.v[i] = expr(x.v[i], y.v[i]);                                                                   \
        return r;                                                                                            \
    }
#define OP3(type, name, first, in, expr)                                                                     \
    static inline type name(first x, in y, in z)                                                             \
    {                                                                                                        \
        type r;                                                                                              \
        for (int i = 0; i < 16; i++)                                                                         \
            r.v[i] = expr(x.v[i], y.v[i], z.v[i]);                                                           \
        return r;                                                                                            \
    }

OP2(vf, vf_add, vf, one_add)
OP2(vf, vf_sub, vf, one_sub)
OP2(vf, vf_mul, vf, one_mul)
OP2(vf, vf_div, vf, one_div)
OP3(vf, vf_fma, vf, vf, one_fma)
OP3(vf, vf_fnma, vf, vf, one_fnma)
OP2(vf, vf_max, vf, one_max)
OP2(vf, vf_min, vf, one_min)
OP2(vm, vf_lt, vf, one_lt)
OP1(vm, vf_isnan, vf, one_isnan)
OP3(vf, vf_select, vm, vf, one_select)
OP1(vf, vf_sqrt, vf, sqrtf)
OP1(vi, vf_bits, vf, sonde_f32_bits)
OP1(vf, vi_float, vi, sonde_bits_f32)
OP2(vi, vi_add, vi, one_iadd)
OP2(vi, vi_and, vi, one_and)
OP2(vi, vi_or, vi, one_or)
OP2(vi, vi_xor, vi, one_xor)
OP2(vm, vi_gt, vi, one_igt)
OP3(vi, vi_select, vm, vi, one_iselect)

#undef OP1
#undef OP2
#undef OP3

static inline vm vm_first(size_t n)
{
    vm m;
    for (size_t i = 0; i < 16; i++)
        m.v[i] = i < n;
    return m;
}
static inline vm vm_not(vm m)
{
    for (int i = 0; i < 16; i++)
        m.v[i] = !m.v[i];
    return m;
}
static inline uint32_t vm_bits(vm m)
{
    uint32_t bits = 0;
    for (int i = 0; i < 16; i++)
        bits |= m.v[i] << i;
    return bits;
}
static inline vf vf_set(float x)
{
    vf r;
    for (int i = 0; i < 16; i++)
        r.v[i] = x;
    return r;
}
static inline vf vf_load(const float *p)
{
    vf r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}
static inline vf vf_load_n(const float *p, size_t n)
{
    vf r = vf_set(0);
    memcpy(r.v, p, n * sizeof *p);
    return r;
}
static inline void vf_store(float *p, vf x)
{
    memcpy(p, x.v, sizeof x.v);
}
static inline void vf_store_n(float *p, vf x, size_t n)
{
    memcpy(p, x.v, n * sizeof *p);
}
static inline float vf_sum(vf x)
{
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            x.v[i] += x.v[i + half];
    return x.v[0];
}
static inline float vf_top(vf x)
{
    float top = x.v[0];
    for (int i = 1; i < 16; i++)
        top = one_max(x.v[i], top);
    return top;
}
static inline vi vi_set(uint32_t x)
{
    vi r;
    for (int i = 0; i < 16; i++)
        r.v[i] = x;
    return r;
}
static inline vi vi_load(const uint32_t *p)
{
    vi r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}
static inline vi vi_iota(void)
{
    vi r;
    for (uint32_t i = 0; i < 16; i++)
        r.v[i] = i;
    return r;
}
/* The lanes of m one after the other; other tables may write all 16. */
static inline void vi_store_packed(uint32_t *p, vm m, vi x)
{
    for (int i = 0; i < 16; i++)
        if (m.v[i])
            *p++ = x.v[i];
}
static inline void vf_store_packed(float *p, vm m, vf x)
{
    for (int i = 0; i < 16; i++)
        if (m.v[i])
            *p++ = x.v[i];
}
static inline vi vi_shl(vi x, int n)
{
    for (int i = 0; i < 16; i++)
        x.v[i] <<= n;
    return x;
}
static inline vi vi_shr(vi x, int n)
{
    for (int i = 0; i < 16; i++)
        x.v[i] >>= n;
    return x;
}
static inline vi vi_load_u16(const uint16_t *p)
{
    vi r;
    for (int i = 0; i < 16; i++)
        r.v[i] = p[i];
    return r;
}
static inline void vi_store_u16(uint16_t *p, vi x)
{
    for (int i = 0; i < 16; i++)
        p[i] = (uint16_t)x.v[i];
}
static inline vf vf_load_f16(const uint16_t *p)
{
    vf r;
    for (int i = 0; i < 16; i++)
        r.v[i] = sonde_f16_to_f32(p[i]);
    return r;
}
static inline void vf_store_f16(uint16_t *p, vf x)
{
    for (int i = 0; i < 16; i++)
        p[i] = sonde_f32_to_f16(x.v[i]);
}
static inline vd vd_zero(void)
{
    vd r;
    memset(&r, 0, sizeof r);
    return r;
}
static inline vd vd_load(const double *p)
{
    vd r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}
static inline void vd_store(double *p, vd x)
{
    memcpy(p, x.v, sizeof x.v);
}
static inline vd vd_from(vf x)
{
    vd r;
    for (int i = 0; i < 16; i++)
        r.v[i] = (double)x.v[i];
    return r;
}
static inline vd vd_add(vd x, vd y)
{
    for (int i = 0; i < 16; i++)
        x.v[i] += y.v[i];
    return x;
}
static inline vd vd_mul(vd x, vd y)
{
    for (int i = 0; i < 16; i++)
        x.v[i] *= y.v[i];
    return x;
}
static inline double vd_sum(vd x)
{
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            x.v[i] += x.v[i + half];
    return x.v[0];
}

/* to[i * ld + j] = src[i + j * stride] for i, j < 16. */
static void transpose16(const float *src, size_t stride, float *to, size_t ld)
{
    for (size_t j = 0; j < 16; j++)
        for (size_t i = 0; i < 16; i++)
            to[i * ld + j] = src[i + j * stride];
}

/* to[i * ld + j] = rows[j][at + i] for i, j < 16. */
static inline void transpose16_rows(const float *const *rows, size_t at, float *to, size_t ld)
{
    for (size_t j = 0; j < 16; j++)
        for (size_t i = 0; i < 16; i++)
            to[i * ld + j] = rows[j][at + i];
}

#endif
