/* SPDX-License-Identifier: MIT
 * Stored elements as float32. The data may lie at any address, so every element is loaded with memcpy; the
 * loops are plain and free of branches, for the compiler to vectorise. */
#include <string.h>

#include "../base/half.h"
#include "../base/size.h"
#include "tensors.h"

#define Q8_BLOCK 32             /* values of one block */
#define Q8_BYTES (2 + Q8_BLOCK) /* a float16 scale, then the values as int8 */

static inline __attribute__((always_inline)) void f16_loop(const unsigned char *restrict in, size_t n,
                                                           float *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, in + 2 * i, sizeof h);
        uint32_t a = (uint32_t)(h & 0x7fffu), sign = (uint32_t)(h & 0x8000u) << 16;
        uint32_t normal = (a << 13) + (112u << 23);
        uint32_t subnormal = sonde_f32_bits((float)(int32_t)a * 0x1p-24f);
        uint32_t special = (a << 13) | 0x7f800000u | (a > 0x7c00u ? 0x400000u : 0u);
        out[i] = sonde_bits_f32(sign | (a >= 0x7c00u ? special : a >= 0x400u ? normal : subnormal));
    }
}

#if defined(__x86_64__)
/* The same loop for the compiler to vectorise with blends, which SSE2 lacks. */
__attribute__((target("avx2"))) static void f16_loop_avx2(const unsigned char *restrict in, size_t n,
                                                          float *restrict out)
{
    f16_loop(in, n, out);
}
#endif

static void from_f16(const unsigned char *restrict in, size_t n, float *restrict out)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        f16_loop_avx2(in, n, out);
        return;
    }
#endif
    f16_loop(in, n, out);
}

static void from_bf16(const unsigned char *restrict in, size_t n, float *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, in + 2 * i, sizeof h);
        out[i] = sonde_bits_f32((uint32_t)h << 16);
    }
}

/* n values of one block, from its value k on. */
static void from_q8_block(const unsigned char *restrict block, size_t k, size_t n, float *restrict out)
{
    uint16_t h;
    memcpy(&h, block, sizeof h);
    float scale = sonde_f16_to_f32(h);
    const signed char *q = (const signed char *)block + 2 + k;
    for (size_t i = 0; i < n; i++)
        out[i] = scale * (float)q[i];
}

/* Rows are whole blocks (the reader has checked it), so the blocks of a tensor are one sequence. */
static void from_q8(const unsigned char *in, size_t first, size_t n, float *out)
{
    in += first / Q8_BLOCK * Q8_BYTES;
    size_t k = first % Q8_BLOCK;
    while (n) {
        size_t take = Q8_BLOCK - k < n ? Q8_BLOCK - k : n;
        if (take == Q8_BLOCK)
            from_q8_block(in, 0, Q8_BLOCK, out);
        else
            from_q8_block(in, k, take, out);
        in += Q8_BYTES;
        out += take;
        n -= take;
        k = 0;
    }
}

#define FROM(name, type)                                                                                     \
    static void name(const unsigned char *restrict in, size_t n, float *restrict out)                        \
    {                                                                                                        \
        for (size_t i = 0; i < n; i++) {                                                                     \
            type x;                                                                                          \
            memcpy(&x, in + sizeof x * i, sizeof x);                                                         \
            out[i] = (float)x;                                                                               \
        }                                                                                                    \
    }
FROM(from_f64, double)
FROM(from_i8, int8_t)
FROM(from_u8, uint8_t)
FROM(from_i16, int16_t)
FROM(from_u16, uint16_t)
FROM(from_i32, int32_t)
FROM(from_u32, uint32_t)
FROM(from_i64, int64_t)
FROM(from_u64, uint64_t)

static void from_f32(const unsigned char *restrict in, size_t n, float *restrict out)
{
    memcpy(out, in, n * sizeof *out);
}

static void from_bool(const unsigned char *restrict in, size_t n, float *restrict out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = in[i] != 0 ? 1.0f : 0.0f;
}

static void (*const converters[SONDE_N_DTYPES])(const unsigned char *restrict in, size_t n,
                                                float *restrict out) = {
    [SONDE_F32] = from_f32,   [SONDE_F16] = from_f16, [SONDE_BF16] = from_bf16, [SONDE_F64] = from_f64,
    [SONDE_I8] = from_i8,     [SONDE_U8] = from_u8,   [SONDE_I16] = from_i16,   [SONDE_U16] = from_u16,
    [SONDE_I32] = from_i32,   [SONDE_U32] = from_u32, [SONDE_I64] = from_i64,   [SONDE_U64] = from_u64,
    [SONDE_BOOL] = from_bool,
};

enum sonde_code sonde_tensor_to_f32(const sonde_tensor *t, size_t first, size_t n, float *out, sonde_err *err)
{
    if (!sonde_inside(first, n, sonde_tensor_count(t)))
        return sonde_fail(err, SONDE_E_USAGE,
                          "tensor '%.200s': elements %zu and %zu more were asked for, it has %zu", t->name,
                          first, n, sonde_tensor_count(t));
    const unsigned char *in = t->data;
    if (t->dtype == SONDE_Q8_0) {
        from_q8(in, first, n, out);
        return SONDE_OK;
    }
    if (!converters[t->dtype])
        return sonde_fail(err, SONDE_E_INPUT,
                          "tensor '%.200s' has type %s, which cannot be converted to float32", t->name,
                          t->type_name);
    if (n)
        converters[t->dtype](in + first * sonde_dtype_size(t->dtype), n, out);
    return SONDE_OK;
}
