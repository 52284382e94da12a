/* SPDX-License-Identifier: MIT
 * Sixteen lanes on AVX-512 (F, DQ, BW, VL): one register. */
#ifndef SONDE_NUM_LANES_IMPL_H
#define SONDE_NUM_LANES_IMPL_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define LANES        16
#define PANEL_VECS   2  /* a panel of packed weights is this many vf wide */
#define TILE_ROWS    14 /* 28 accumulators, 2 of W, 1 of X */
#define KERNEL_NAME  "avx512"
#define PACKS_ALWAYS 1 /* packing lanes costs less than a branch that is not foreseen */

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;
typedef struct vd {
    __m512d a, b;
} vd;

static inline vm vm_first(size_t n)
{
    return (vm)((1u << n) - 1u);
}
static inline vm vm_not(vm m)
{
    return (vm)~m;
}
static inline uint32_t vm_bits(vm m)
{
    return m;
}

static inline vf vf_set(float x)
{
    return _mm512_set1_ps(x);
}
static inline vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline vf vf_load_n(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps(vm_first(n), p);
}
static inline void vf_store(float *p, vf x)
{
    _mm512_storeu_ps(p, x);
}
static inline void vf_store_n(float *p, vf x, size_t n)
{
    _mm512_mask_storeu_ps(p, vm_first(n), x);
}
static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf vf_fnma(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
static inline vm vf_lt(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
static inline vm vf_isnan(vf a)
{
    return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
}
static inline vf vf_select(vm m, vf a, vf b)
{
    return _mm512_mask_blend_ps(m, b, a);
}
static inline vi vf_bits(vf a)
{
    return _mm512_castps_si512(a);
}
static inline vf vi_float(vi a)
{
    return _mm512_castsi512_ps(a);
}
static inline vf vf_sqrt(vf a)
{
    return _mm512_sqrt_ps(a);
}
/* The lanes of m one after the other; all 16 are written. */
static inline void vf_store_packed(float *p, vm m, vf x)
{
    _mm512_storeu_ps(p, _mm512_maskz_compress_ps(m, x));
}
static inline float vf_sum(vf x)
{
    __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}
static inline float vf_top(vf x)
{
    return _mm512_reduce_max_ps(x);
}

static inline vi vi_set(uint32_t x)
{
    return _mm512_set1_epi32((int)x);
}
static inline vi vi_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}
static inline vi vi_and(vi a, vi b)
{
    return _mm512_and_si512(a, b);
}
static inline vi vi_or(vi a, vi b)
{
    return _mm512_or_si512(a, b);
}
static inline vi vi_xor(vi a, vi b)
{
    return _mm512_xor_si512(a, b);
}
static inline vi vi_load(const uint32_t *p)
{
    return _mm512_loadu_si512(p);
}
static inline vi vi_iota(void)
{
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
static inline void vi_store_packed(uint32_t *p, vm m, vi x)
{
    _mm512_storeu_si512(p, _mm512_maskz_compress_epi32(m, x));
}
#define vi_shl(a, n) _mm512_slli_epi32(a, n)
#define vi_shr(a, n) _mm512_srli_epi32(a, n)
static inline vm vi_gt(vi a, vi b) /* signed */
{
    return _mm512_cmpgt_epi32_mask(a, b);
}
static inline vi vi_select(vm m, vi a, vi b)
{
    return _mm512_mask_blend_epi32(m, b, a);
}
static inline vi vi_load_u16(const uint16_t *p)
{
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p));
}
static inline void vi_store_u16(uint16_t *p, vi a)
{
    _mm256_storeu_si256((void *)p, _mm512_cvtepi32_epi16(a));
}
static inline vf vf_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}
static inline void vf_store_f16(uint16_t *p, vf x)
{
    _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline vd vd_zero(void)
{
    return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()};
}
static inline vd vd_load(const double *p)
{
    return (vd){_mm512_loadu_pd(p), _mm512_loadu_pd(p + 8)};
}
static inline void vd_store(double *p, vd x)
{
    _mm512_storeu_pd(p, x.a);
    _mm512_storeu_pd(p + 8, x.b);
}
static inline vd vd_from(vf x)
{
    return (vd){_mm512_cvtps_pd(_mm512_castps512_ps256(x)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))};
}
static inline vd vd_add(vd x, vd y)
{
    return (vd){_mm512_add_pd(x.a, y.a), _mm512_add_pd(x.b, y.b)};
}
static inline vd vd_mul(vd x, vd y)
{
    return (vd){_mm512_mul_pd(x.a, y.a), _mm512_mul_pd(x.b, y.b)};
}
static inline double vd_sum(vd x)
{
    __m512d s8 = _mm512_add_pd(x.a, x.b);
    __m256d s4 = _mm256_add_pd(_mm512_castpd512_pd256(s8), _mm512_extractf64x4_pd(s8, 1));
    __m128d s2 = _mm_add_pd(_mm256_castpd256_pd128(s4), _mm256_extractf128_pd(s4, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s2, _mm_unpackhi_pd(s2, s2)));
}

/* to[i * ld + j] = lane i of row j, for i, j < 16. */
static inline __attribute__((always_inline)) void turn16(const __m512 row[16], float *to, size_t ld)
{
    __m512 s[16];
    for (int i = 0; i < 16; i += 4) { /* 4 x 4 within each quarter of the registers */
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(row[i], row[i + 1])),
                      b = _mm512_castps_pd(_mm512_unpackhi_ps(row[i], row[i + 1]));
        const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(row[i + 2], row[i + 3])),
                      d = _mm512_castps_pd(_mm512_unpackhi_ps(row[i + 2], row[i + 3]));
        s[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        s[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        s[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        s[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for (int j = 0; j < 4; j++) { /* then the quarters */
        const __m512 a = _mm512_shuffle_f32x4(s[j], s[4 + j], 0x88),
                     b = _mm512_shuffle_f32x4(s[j], s[4 + j], 0xdd);
        const __m512 c = _mm512_shuffle_f32x4(s[8 + j], s[12 + j], 0x88);
        const __m512 d = _mm512_shuffle_f32x4(s[8 + j], s[12 + j], 0xdd);
        float *at = to + (size_t)j * ld;
        _mm512_storeu_ps(at, _mm512_shuffle_f32x4(a, c, 0x88));
        _mm512_storeu_ps(at + 4 * ld, _mm512_shuffle_f32x4(b, d, 0x88));
        _mm512_storeu_ps(at + 8 * ld, _mm512_shuffle_f32x4(a, c, 0xdd));
        _mm512_storeu_ps(at + 12 * ld, _mm512_shuffle_f32x4(b, d, 0xdd));
    }
}

/* to[i * ld + j] = src[i + j * stride] for i, j < 16. */
static void transpose16(const float *src, size_t stride, float *to, size_t ld)
{
    __m512 row[16];
    for (size_t j = 0; j < 16; j++)
        row[j] = _mm512_loadu_ps(src + j * stride);
    turn16(row, to, ld);
}

/* to[i * ld + j] = row[j][at + i] for i, j < 16. */
static inline __attribute__((always_inline)) void transpose16_rows(const float *const *rows, size_t at,
                                                                   float *to, size_t ld)
{
    __m512 row[16];
    for (int j = 0; j < 16; j++)
        row[j] = _mm512_loadu_ps(rows[j] + at);
    turn16(row, to, ld);
}

#endif
