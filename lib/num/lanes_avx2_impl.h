/* SPDX-License-Identifier: MIT
 * Sixteen lanes on AVX2, FMA and F16C: two registers. */
#ifndef SONDE_NUM_LANES_IMPL_H
#define SONDE_NUM_LANES_IMPL_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define LANES        16
#define PANEL_VECS   1
#define TILE_ROWS    6 /* 12 accumulators, 2 of W, 1 of X */
#define KERNEL_NAME  "avx2"
#define PACKS_ALWAYS 0 /* packing lanes costs less than a branch that is not foreseen */

typedef struct vf {
    __m256 a, b; /* lanes 0..7, 8..15 */
} vf;
typedef struct vi {
    __m256i a, b;
} vi;
typedef struct vm { /* all ones where true */
    __m256 a, b;
} vm;
typedef struct vd {
    __m256d v[4];
} vd;

static inline vi vi_first(size_t n) /* all ones in lanes below n */
{
    const __m256i count = _mm256_set1_epi32((int)n);
    return (vi){_mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
                _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}
static inline vm vm_first(size_t n)
{
    vi m = vi_first(n);
    return (vm){_mm256_castsi256_ps(m.a), _mm256_castsi256_ps(m.b)};
}
static inline vm vm_not(vm m)
{
    const __m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    return (vm){_mm256_xor_ps(m.a, ones), _mm256_xor_ps(m.b, ones)};
}
static inline uint32_t vm_bits(vm m)
{
    return (uint32_t)_mm256_movemask_ps(m.a) | (uint32_t)_mm256_movemask_ps(m.b) << 8;
}

static inline vf vf_set(float x)
{
    return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
static inline vf vf_load(const float *p)
{
    return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
static inline vf vf_load_n(const float *p, size_t n)
{
    vi m = vi_first(n);
    return (vf){_mm256_maskload_ps(p, m.a), n > 8 ? _mm256_maskload_ps(p + 8, m.b) : _mm256_setzero_ps()};
}
static inline void vf_store(float *p, vf x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
static inline void vf_store_n(float *p, vf x, size_t n)
{
    vi m = vi_first(n);
    _mm256_maskstore_ps(p, m.a, x.a);
    if (n > 8)
        _mm256_maskstore_ps(p + 8, m.b, x.b);
}
static inline vf vf_add(vf x, vf y)
{
    return (vf){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
static inline vf vf_sub(vf x, vf y)
{
    return (vf){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
static inline vf vf_mul(vf x, vf y)
{
    return (vf){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
static inline vf vf_div(vf x, vf y)
{
    return (vf){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
static inline vf vf_fma(vf x, vf y, vf z)
{
    return (vf){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline vf vf_fnma(vf x, vf y, vf z)
{
    return (vf){_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
static inline vf vf_max(vf x, vf y)
{
    return (vf){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
static inline vf vf_min(vf x, vf y)
{
    return (vf){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
static inline vm vf_lt(vf x, vf y)
{
    return (vm){_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)};
}
static inline vm vf_isnan(vf x)
{
    return (vm){_mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q), _mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q)};
}
static inline vf vf_select(vm m, vf x, vf y)
{
    return (vf){_mm256_blendv_ps(y.a, x.a, m.a), _mm256_blendv_ps(y.b, x.b, m.b)};
}
static inline vi vf_bits(vf x)
{
    return (vi){_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)};
}
static inline vf vi_float(vi x)
{
    return (vf){_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)};
}
static inline vf vf_sqrt(vf x)
{
    return (vf){_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)};
}
static inline float vf_sum(vf x)
{
    __m256 s8 = _mm256_add_ps(x.a, x.b);
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}
static inline float vf_top(vf x)
{
    __m256 s8 = _mm256_max_ps(x.a, x.b);
    __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_max_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

static inline vi vi_set(uint32_t x)
{
    return (vi){_mm256_set1_epi32((int)x), _mm256_set1_epi32((int)x)};
}
static inline vi vi_add(vi x, vi y)
{
    return (vi){_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}
static inline vi vi_and(vi x, vi y)
{
    return (vi){_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)};
}
static inline vi vi_or(vi x, vi y)
{
    return (vi){_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)};
}
static inline vi vi_xor(vi x, vi y)
{
    return (vi){_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)};
}
static inline vi vi_load(const uint32_t *p)
{
    return (vi){_mm256_loadu_si256((const void *)p), _mm256_loadu_si256((const void *)(p + 8))};
}
static inline vi vi_iota(void)
{
    return (vi){_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)};
}
/* The bytes that bring the 32-bit lanes named by the bits of the index to the front. */
#define LANE(i) 4 * (i), 4 * (i) + 1, 4 * (i) + 2, 4 * (i) + 3
static const unsigned char pack4[16][16] = {{LANE(0)},
                                            {LANE(0)},
                                            {LANE(1)},
                                            {LANE(0), LANE(1)},
                                            {LANE(2)},
                                            {LANE(0), LANE(2)},
                                            {LANE(1), LANE(2)},
                                            {LANE(0), LANE(1), LANE(2)},
                                            {LANE(3)},
                                            {LANE(0), LANE(3)},
                                            {LANE(1), LANE(3)},
                                            {LANE(0), LANE(1), LANE(3)},
                                            {LANE(2), LANE(3)},
                                            {LANE(0), LANE(2), LANE(3)},
                                            {LANE(1), LANE(2), LANE(3)},
                                            {LANE(0), LANE(1), LANE(2), LANE(3)}};
#undef LANE
/* The lanes of m one after the other; all 16 may be written. */
static inline void vi_store_packed(uint32_t *p, vm m, vi x)
{
    const uint32_t hit = vm_bits(m);
    const __m128i q[4] = {_mm256_castsi256_si128(x.a), _mm256_extracti128_si256(x.a, 1),
                          _mm256_castsi256_si128(x.b), _mm256_extracti128_si256(x.b, 1)};
    for (int i = 0; i < 4; i++) {
        const uint32_t four = hit >> (4 * i) & 15u;
        _mm_storeu_si128((void *)p, _mm_shuffle_epi8(q[i], _mm_loadu_si128((const void *)pack4[four])));
        p += __builtin_popcount(four);
    }
}
static inline void vf_store_packed(float *p, vm m, vf x)
{
    vi_store_packed((uint32_t *)(void *)p, m, vf_bits(x));
}
#define vi_shl(x, n) ((vi){_mm256_slli_epi32((x).a, n), _mm256_slli_epi32((x).b, n)})
#define vi_shr(x, n) ((vi){_mm256_srli_epi32((x).a, n), _mm256_srli_epi32((x).b, n)})
static inline vm vi_gt(vi x, vi y) /* signed */
{
    return (vm){_mm256_castsi256_ps(_mm256_cmpgt_epi32(x.a, y.a)),
                _mm256_castsi256_ps(_mm256_cmpgt_epi32(x.b, y.b))};
}
static inline vi vi_select(vm m, vi x, vi y)
{
    return (vi){_mm256_blendv_epi8(y.a, x.a, _mm256_castps_si256(m.a)),
                _mm256_blendv_epi8(y.b, x.b, _mm256_castps_si256(m.b))};
}
static inline vi vi_load_u16(const uint16_t *p)
{
    return (vi){_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)),
                _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p + 8)))};
}
static inline void vi_store_u16(uint16_t *p, vi x) /* the values fit in 16 bits */
{
    _mm256_storeu_si256((void *)p,
                        _mm256_permute4x64_epi64(_mm256_packus_epi32(x.a, x.b), _MM_SHUFFLE(3, 1, 2, 0)));
}
static inline vf vf_load_f16(const uint16_t *p)
{
    return (vf){_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)),
                _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 8)))};
}
static inline void vf_store_f16(uint16_t *p, vf x)
{
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128((void *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline vd vd_zero(void)
{
    return (vd){{_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()}};
}
static inline vd vd_load(const double *p)
{
    return (vd){
        {_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4), _mm256_loadu_pd(p + 8), _mm256_loadu_pd(p + 12)}};
}
static inline void vd_store(double *p, vd x)
{
    for (int i = 0; i < 4; i++)
        _mm256_storeu_pd(p + 4 * i, x.v[i]);
}
static inline vd vd_from(vf x)
{
    return (vd){{_mm256_cvtps_pd(_mm256_castps256_ps128(x.a)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.a, 1)),
                 _mm256_cvtps_pd(_mm256_castps256_ps128(x.b)),
                 _mm256_cvtps_pd(_mm256_extractf128_ps(x.b, 1))}};
}
static inline vd vd_add(vd x, vd y)
{
    return (vd){{_mm256_add_pd(x.v[0], y.v[0]), _mm256_add_pd(x.v[1], y.v[1]), _mm256_add_pd(x.v[2], y.v[2]),
                 _mm256_add_pd(x.v[3], y.v[3])}};
}
static inline vd vd_mul(vd x, vd y)
{
    return (vd){{_mm256_mul_pd(x.v[0], y.v[0]), _mm256_mul_pd(x.v[1], y.v[1]), _mm256_mul_pd(x.v[2], y.v[2]),
                 _mm256_mul_pd(x.v[3], y.v[3])}};
}
static inline double vd_sum(vd x)
{
    __m256d s4 = _mm256_add_pd(_mm256_add_pd(x.v[0], x.v[2]), _mm256_add_pd(x.v[1], x.v[3]));
    __m128d s2 = _mm_add_pd(_mm256_castpd256_pd128(s4), _mm256_extractf128_pd(s4, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s2, _mm_unpackhi_pd(s2, s2)));
}

/* to[i * ld + j] = lane i of row j, for i, j < 8. */
static inline __attribute__((always_inline)) void turn8(const __m256 row[8], float *to, size_t ld)
{
    __m256 s[8];
    for (int i = 0; i < 8; i += 4) { /* 4 x 4 within each half of the registers */
        const __m256 a = _mm256_unpacklo_ps(row[i], row[i + 1]), b = _mm256_unpackhi_ps(row[i], row[i + 1]);
        const __m256 c = _mm256_unpacklo_ps(row[i + 2], row[i + 3]),
                     d = _mm256_unpackhi_ps(row[i + 2], row[i + 3]);
        s[i] = _mm256_shuffle_ps(a, c, 0x44);
        s[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        s[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        s[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    for (int j = 0; j < 4; j++) { /* then the halves */
        _mm256_storeu_ps(to + (size_t)j * ld, _mm256_permute2f128_ps(s[j], s[4 + j], 0x20));
        _mm256_storeu_ps(to + (size_t)(j + 4) * ld, _mm256_permute2f128_ps(s[j], s[4 + j], 0x31));
    }
}

/* to[i * ld + j] = src[i + j * stride] for i, j < 16. */
static void transpose16(const float *src, size_t stride, float *to, size_t ld)
{
    __m256 row[8];
    for (size_t j = 0; j < 16; j += 8)
        for (size_t i = 0; i < 16; i += 8) {
            for (size_t r = 0; r < 8; r++)
                row[r] = _mm256_loadu_ps(src + i + (j + r) * stride);
            turn8(row, to + i * ld + j, ld);
        }
}

/* to[i * ld + j] = rows[j][at + i] for i, j < 16. */
static inline void transpose16_rows(const float *const *rows, size_t at, float *to, size_t ld)
{
    __m256 row[8];
    for (size_t j = 0; j < 16; j += 8)
        for (size_t i = 0; i < 16; i += 8) {
            for (size_t r = 0; r < 8; r++)
                row[r] = _mm256_loadu_ps(rows[j + r] + at + i);
            turn8(row, to + i * ld + j, ld);
        }
}

#endif
