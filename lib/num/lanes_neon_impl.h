/* SPDX-License-Identifier: MIT
 * Sixteen lanes on AArch64: four registers. */
#ifndef SONDE_NUM_LANES_IMPL_H
#define SONDE_NUM_LANES_IMPL_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES        16
#define PANEL_VECS   1
#define TILE_ROWS    6 /* 24 accumulators, 4 of W, 1 or 2 of X */
#define KERNEL_NAME  "neon"
#define PACKS_ALWAYS 0 /* packing lanes costs less than a branch that is not foreseen */

typedef struct vf {
    float32x4_t v[4];
} vf;
typedef struct vi {
    uint32x4_t v[4];
} vi;
typedef vi vm; /* all ones where true */
typedef struct vd {
    float64x2_t v[8];
} vd;

#define EACH4(e0, e1, e2, e3)                                                                                \
    {                                                                                                        \
        {                                                                                                    \
            e0, e1, e2, e3                                                                                   \
        }                                                                                                    \
    }
#define LIFT1(f, x) EACH4(f((x).v[0]), f((x).v[1]), f((x).v[2]), f((x).v[3]))
#define LIFT2(f, x, y)                                                                                       \
    EACH4(f((x).v[0], (y).v[0]), f((x).v[1], (y).v[1]), f((x).v[2], (y).v[2]), f((x).v[3], (y).v[3]))
#define LIFT3(f, x, y, z)                                                                                    \
    EACH4(f((x).v[0], (y).v[0], (z).v[0]), f((x).v[1], (y).v[1], (z).v[1]), f((x).v[2], (y).v[2], (z).v[2]), \
          f((x).v[3], (y).v[3], (z).v[3]))

static inline vm vm_first(size_t n)
{
    static const uint32_t iota[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const uint32x4_t count = vdupq_n_u32((uint32_t)n);
    return (vm)EACH4(vcltq_u32(vld1q_u32(iota), count), vcltq_u32(vld1q_u32(iota + 4), count),
                     vcltq_u32(vld1q_u32(iota + 8), count), vcltq_u32(vld1q_u32(iota + 12), count));
}
static inline vm vm_not(vm m)
{
    return (vm)LIFT1(vmvnq_u32, m);
}
static inline uint32_t vm_bits(vm m)
{
    static const uint32_t bit[4] = {1, 2, 4, 8};
    const uint32x4_t b = vld1q_u32(bit);
    return vaddvq_u32(vandq_u32(m.v[0], b)) | vaddvq_u32(vandq_u32(m.v[1], b)) << 4 |
           vaddvq_u32(vandq_u32(m.v[2], b)) << 8 | vaddvq_u32(vandq_u32(m.v[3], b)) << 12;
}

static inline vf vf_set(float x)
{
    const float32x4_t s = vdupq_n_f32(x);
    return (vf)EACH4(s, s, s, s);
}
static inline vf vf_load(const float *p)
{
    return (vf)EACH4(vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12));
}
static inline vf vf_load_n(const float *p, size_t n)
{
    float t[16] = {0};
    memcpy(t, p, n * sizeof *t);
    return vf_load(t);
}
static inline void vf_store(float *p, vf x)
{
    for (int i = 0; i < 4; i++)
        vst1q_f32(p + 4 * i, x.v[i]);
}
static inline void vf_store_n(float *p, vf x, size_t n)
{
    float t[16];
    vf_store(t, x);
    memcpy(p, t, n * sizeof *t);
}
static inline vf vf_add(vf x, vf y)
{
    return (vf)LIFT2(vaddq_f32, x, y);
}
static inline vf vf_sub(vf x, vf y)
{
    return (vf)LIFT2(vsubq_f32, x, y);
}
static inline vf vf_mul(vf x, vf y)
{
    return (vf)LIFT2(vmulq_f32, x, y);
}
static inline vf vf_div(vf x, vf y)
{
    return (vf)LIFT2(vdivq_f32, x, y);
}
static inline vf vf_fma(vf x, vf y, vf z)
{
    return (vf)LIFT3(vfmaq_f32, z, x, y);
}
static inline vf vf_fnma(vf x, vf y, vf z)
{
    return (vf)LIFT3(vfmsq_f32, z, x, y);
}
static inline vm vf_lt(vf x, vf y)
{
    return (vm)LIFT2(vcltq_f32, x, y);
}
static inline vf vf_select(vm m, vf x, vf y)
{
    return (vf)LIFT3(vbslq_f32, m, x, y);
}
static inline vf vf_max(vf x, vf y) /* the second where either is NaN */
{
    return vf_select(vf_lt(y, x), x, y);
}
static inline vf vf_min(vf x, vf y)
{
    return vf_select(vf_lt(x, y), x, y);
}
static inline vm vf_isnan(vf x)
{
    vm ordered = (vm)LIFT2(vceqq_f32, x, x);
    return (vm)LIFT1(vmvnq_u32, ordered);
}
static inline vi vf_bits(vf x)
{
    return (vi)LIFT1(vreinterpretq_u32_f32, x);
}
static inline vf vi_float(vi x)
{
    return (vf)LIFT1(vreinterpretq_f32_u32, x);
}
static inline vf vf_sqrt(vf x)
{
    return (vf)LIFT1(vsqrtq_f32, x);
}
static inline float vf_sum(vf x)
{
    float32x4_t s4 = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
    float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
    return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}
static inline float vf_top(vf x) /* no lane is NaN */
{
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.v[0], x.v[2]), vmaxq_f32(x.v[1], x.v[3])));
}

static inline vi vi_set(uint32_t x)
{
    const uint32x4_t s = vdupq_n_u32(x);
    return (vi)EACH4(s, s, s, s);
}
static inline vi vi_add(vi x, vi y)
{
    return (vi)LIFT2(vaddq_u32, x, y);
}
static inline vi vi_and(vi x, vi y)
{
    return (vi)LIFT2(vandq_u32, x, y);
}
static inline vi vi_or(vi x, vi y)
{
    return (vi)LIFT2(vorrq_u32, x, y);
}
static inline vi vi_xor(vi x, vi y)
{
    return (vi)LIFT2(veorq_u32, x, y);
}
static inline vi vi_load(const uint32_t *p)
{
    return (vi)EACH4(vld1q_u32(p), vld1q_u32(p + 4), vld1q_u32(p + 8), vld1q_u32(p + 12));
}
static inline vi vi_iota(void)
{
    static const uint32_t iota[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return (vi)EACH4(vld1q_u32(iota), vld1q_u32(iota + 4), vld1q_u32(iota + 8), vld1q_u32(iota + 12));
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
    for (int i = 0; i < 4; i++) {
        const uint32_t four = hit >> (4 * i) & 15u;
        vst1q_u8((uint8_t *)p, vqtbl1q_u8(vreinterpretq_u8_u32(x.v[i]), vld1q_u8(pack4[four])));
        p += __builtin_popcount(four);
    }
}
static inline void vf_store_packed(float *p, vm m, vf x)
{
    vi_store_packed((uint32_t *)(void *)p, m, vf_bits(x));
}
#define vi_shl(x, n)                                                                                         \
    ((vi)EACH4(vshlq_n_u32((x).v[0], n), vshlq_n_u32((x).v[1], n), vshlq_n_u32((x).v[2], n),                 \
               vshlq_n_u32((x).v[3], n)))
#define vi_shr(x, n)                                                                                         \
    ((vi)EACH4(vshrq_n_u32((x).v[0], n), vshrq_n_u32((x).v[1], n), vshrq_n_u32((x).v[2], n),                 \
               vshrq_n_u32((x).v[3], n)))
static inline uint32x4_t gt_signed(uint32x4_t x, uint32x4_t y)
{
    return vcgtq_s32(vreinterpretq_s32_u32(x), vreinterpretq_s32_u32(y));
}
static inline vm vi_gt(vi x, vi y)
{
    return (vm)LIFT2(gt_signed, x, y);
}
static inline vi vi_select(vm m, vi x, vi y)
{
    return (vi)LIFT3(vbslq_u32, m, x, y);
}
static inline vi vi_load_u16(const uint16_t *p)
{
    return (vi)EACH4(vmovl_u16(vld1_u16(p)), vmovl_u16(vld1_u16(p + 4)), vmovl_u16(vld1_u16(p + 8)),
                     vmovl_u16(vld1_u16(p + 12)));
}
static inline void vi_store_u16(uint16_t *p, vi x)
{
    for (int i = 0; i < 4; i++)
        vst1_u16(p + 4 * i, vmovn_u32(x.v[i]));
}
static inline float32x4_t load4_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline vf vf_load_f16(const uint16_t *p)
{
    return (vf)EACH4(load4_f16(p), load4_f16(p + 4), load4_f16(p + 8), load4_f16(p + 12));
}
static inline void vf_store_f16(uint16_t *p, vf x)
{
    for (int i = 0; i < 4; i++)
        vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));
}

static inline vd vd_load(const double *p)
{
    vd r;
    for (int i = 0; i < 8; i++)
        r.v[i] = vld1q_f64(p + 2 * i);
    return r;
}
static inline void vd_store(double *p, vd x)
{
    for (int i = 0; i < 8; i++)
        vst1q_f64(p + 2 * i, x.v[i]);
}
static inline vd vd_zero(void)
{
    vd r;
    for (int i = 0; i < 8; i++)
        r.v[i] = vdupq_n_f64(0);
    return r;
}
static inline vd vd_from(vf x)
{
    vd r;
    for (int i = 0; i < 4; i++) {
        r.v[2 * i] = vcvt_f64_f32(vget_low_f32(x.v[i]));
        r.v[2 * i + 1] = vcvt_high_f64_f32(x.v[i]);
    }
    return r;
}
static inline vd vd_add(vd x, vd y)
{
    for (int i = 0; i < 8; i++)
        x.v[i] = vaddq_f64(x.v[i], y.v[i]);
    return x;
}
static inline vd vd_mul(vd x, vd y)
{
    for (int i = 0; i < 8; i++)
        x.v[i] = vmulq_f64(x.v[i], y.v[i]);
    return x;
}
static inline double vd_sum(vd x)
{
    float64x2_t lo = vaddq_f64(vaddq_f64(x.v[0], x.v[4]), vaddq_f64(x.v[2], x.v[6]));
    float64x2_t hi = vaddq_f64(vaddq_f64(x.v[1], x.v[5]), vaddq_f64(x.v[3], x.v[7]));
    float64x2_t s2 = vaddq_f64(lo, hi);
    return vgetq_lane_f64(s2, 0) + vgetq_lane_f64(s2, 1);
}

#undef LIFT1
#undef LIFT2
#undef LIFT3

/* to[i * ld + j] = lane i of row j, for i, j < 4. */
static inline void turn4(float32x4_t r0, float32x4_t r1, float32x4_t r2, float32x4_t r3, float *to, size_t ld)
{
    const float32x4_t a = vtrn1q_f32(r0, r1), b = vtrn2q_f32(r0, r1);
    const float32x4_t c = vtrn1q_f32(r2, r3), d = vtrn2q_f32(r2, r3);
    vst1q_f32(to, vcombine_f32(vget_low_f32(a), vget_low_f32(c)));
    vst1q_f32(to + ld, vcombine_f32(vget_low_f32(b), vget_low_f32(d)));
    vst1q_f32(to + 2 * ld, vcombine_f32(vget_high_f32(a), vget_high_f32(c)));
    vst1q_f32(to + 3 * ld, vcombine_f32(vget_high_f32(b), vget_high_f32(d)));
}

/* to[i * ld + j] = src[i + j * stride] for i, j < 16. */
static void transpose16(const float *src, size_t stride, float *to, size_t ld)
{
    for (size_t j = 0; j < 16; j += 4)
        for (size_t i = 0; i < 16; i += 4) {
            const float *p = src + i + j * stride;
            turn4(vld1q_f32(p), vld1q_f32(p + stride), vld1q_f32(p + 2 * stride), vld1q_f32(p + 3 * stride),
                  to + i * ld + j, ld);
        }
}

/* to[i * ld + j] = rows[j][at + i] for i, j < 16. */
static inline void transpose16_rows(const float *const *rows, size_t at, float *to, size_t ld)
{
    for (size_t j = 0; j < 16; j += 4)
        for (size_t i = 0; i < 16; i += 4)
            turn4(vld1q_f32(rows[j] + at + i), vld1q_f32(rows[j + 1] + at + i),
                  vld1q_f32(rows[j + 2] + at + i), vld1q_f32(rows[j + 3] + at + i), to + i * ld + j, ld);
}

#endif
