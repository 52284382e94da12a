/* SPDX-License-Identifier: MIT
 * The operations on lanes with a single lane: enough for elementary_impl.h. */
#ifndef SONDE_NUM_LANES_IMPL_H
#define SONDE_NUM_LANES_IMPL_H

#include "lanes_one_impl.h"

typedef float vf;
typedef uint32_t vi, vm;

#define vf_set(x)          (x)
#define vf_add(a, b)       one_add(a, b)
#define vf_sub(a, b)       one_sub(a, b)
#define vf_mul(a, b)       one_mul(a, b)
#define vf_div(a, b)       one_div(a, b)
#define vf_fma(a, b, c)    one_fma(a, b, c)
#define vf_fnma(a, b, c)   one_fnma(a, b, c)
#define vf_max(a, b)       one_max(a, b)
#define vf_min(a, b)       one_min(a, b)
#define vf_lt(a, b)        one_lt(a, b)
#define vf_isnan(a)        one_isnan(a)
#define vf_select(m, a, b) one_select(m, a, b)
#define vf_bits(a)         sonde_f32_bits(a)
#define vi_float(a)        sonde_bits_f32(a)
#define vi_set(x)          ((uint32_t)(x))
#define vi_add(a, b)       one_iadd(a, b)
#define vi_and(a, b)       one_and(a, b)
#define vi_or(a, b)        one_or(a, b)
#define vi_xor(a, b)       one_xor(a, b)
#define vi_shl(a, n)       one_shl(a, n)
#define vi_shr(a, n)       one_shr(a, n)

#endif
