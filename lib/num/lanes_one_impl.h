/* SPDX-License-Identifier: MIT
 * One lane: what each operation on lanes means. The scalar functions and the table "plain" are built on it.
 */
#ifndef SONDE_NUM_LANES_ONE_IMPL_H
#define SONDE_NUM_LANES_ONE_IMPL_H

#include <math.h>
#include <stdint.h>

#include "../base/half.h"

static inline float one_add(float a, float b)
{
    return a + b;
}
static inline float one_sub(float a, float b)
{
    return a - b;
}
static inline float one_mul(float a, float b)
{
    return a * b;
}
static inline float one_div(float a, float b)
{
    return a / b;
}
static inline float one_fma(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static inline float one_fnma(float a, float b, float c)
{
    return fmaf(-a, b, c);
}
static inline float one_max(float a, float b) /* b where either is NaN */
{
    return a > b ? a : b;
}
static inline float one_min(float a, float b)
{
    return a < b ? a : b;
}
static inline uint32_t one_lt(float a, float b)
{
    return a < b;
}
static inline uint32_t one_isnan(float a)
{
    return !(a == a);
}
static inline float one_select(uint32_t m, float a, float b)
{
    return m ? a : b;
}
static inline uint32_t one_iadd(uint32_t a, uint32_t b)
{
    return a + b;
}
static inline uint32_t one_and(uint32_t a, uint32_t b)
{
    return a & b;
}
static inline uint32_t one_or(uint32_t a, uint32_t b)
{
    return a | b;
}
static inline uint32_t one_xor(uint32_t a, uint32_t b)
{
    return a ^ b;
}
static inline uint32_t one_shl(uint32_t a, int n)
{
    return a << n;
}
static inline uint32_t one_shr(uint32_t a, int n)
{
    return a >> n;
}
static inline uint32_t one_igt(uint32_t a, uint32_t b)
{
    return (int32_t)a > (int32_t)b;
}
static inline uint32_t one_iselect(uint32_t m, uint32_t a, uint32_t b)
{
    return m ? a : b;
}

#endif
