/* SPDX-License-Identifier: MIT
 * Half-precision numbers, one at a time and exact (IEEE 754 round to nearest even). num/convert.h has
 * the same for arrays, bit for bit. */
#ifndef SONDE_BASE_HALF_H
#define SONDE_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float sonde_bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t sonde_f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float sonde_bf16_to_f32(uint16_t h)
{
    return sonde_bits_f32((uint32_t)h << 16);
}

/* NaN stays NaN (quiet, payload cut); overflow becomes infinity. */
static inline uint16_t sonde_f32_to_bf16(float f)
{
    uint32_t u = sonde_f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float sonde_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 0x3ffu;
    if (e == 31)
        return sonde_bits_f32(sign | 0x7f800000u | (m << 13) | (m ? 0x400000u : 0u));
    if (e == 0) { /* zero or subnormal: m * 2^-24, exact in float */
        float f = (float)m * 0x1p-24f;
        return sonde_bits_f32(sonde_f32_bits(f) | sign);
    }
    return sonde_bits_f32(sign | ((e + 112u) << 23) | (m << 13));
}

/* NaN stays NaN (quiet, payload cut); above 65519.996 becomes infinity: callers that saturate check first. */
static inline uint16_t sonde_f32_to_f16(float f)
{
    uint32_t u = sonde_f32_bits(f), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a >= 0x477ff000u)
        return (uint16_t)(sign | 0x7c00u);
    if (a >= 0x38800000u) { /* normal */
        a += 0xfffu + ((a >> 13) & 1u);
        return (uint16_t)(sign | ((a - 0x38000000u) >> 13));
    }
    /* subnormal: adding 0.5 in float puts the rounded 10 bits at the bottom of the mantissa */
    float t = sonde_bits_f32(a) + 0.5f;
    return (uint16_t)(sign | (sonde_f32_bits(t) - 0x3f000000u));
}

#endif
