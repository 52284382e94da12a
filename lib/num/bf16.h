/* SPDX-License-Identifier: MIT
 * Approximate products in bfloat16 with a proven bound, and the exact float32 chains they stand for.
 *
 * With p the bfloat16 product of a row x and a column w (both rounded to bfloat16, sums in float32), and z
 * the float32 chain of matmul.h:  |p - z| <= SONDE_BF16_BOUND(d) * norm(x) * norm(w). */
#ifndef SONDE_NUM_BF16_H
#define SONDE_NUM_BF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

/* A matrix W [k, n] in bfloat16, laid out for the kernels. The memory belongs to the caller (64-byte
 * aligned). */
typedef struct sonde_packed16 {
    const sonde_kernels *kernels;
    size_t k, n;
    uint16_t *data;
} sonde_packed16;

/* Can these kernels multiply bfloat16 (AVX512-BF16, and the CPU has it)? */
bool sonde_bf16_available(const sonde_kernels *k);

/* 16-bit words that a packed [k, n] takes; 0 if that overflows. */
size_t sonde_packed16_words(const sonde_kernels *k, size_t rows, size_t columns);

/* Pack columns n0 .. n0+n-1 from feature-major rows: W[i][n0 + j] = src[j * ld + i] for i < w->k, rounded to
 * nearest even. data must begin zeroed. n0 a multiple of 16. */
void sonde_pack16(const sonde_packed16 *w, size_t n0, size_t n, const float *src, size_t ld);

/* y [m, n1-n0] = x W[:, n0:n1] approximately; x [m, k] in bfloat16 with row stride ldx (words). n0 a multiple
 * of 32. */
void sonde_matmul16(const sonde_packed16 *w, size_t n0, size_t n1, const uint16_t *x, size_t ldx, size_t m,
                    float *y, size_t ldy);

/* The factor of the bound for chains of length d: at least 2^-8 + d 2^-23 with what the conversions and the
 * order of sums add; derived in bf16.c. */
float sonde_bf16_bound(size_t d);

/* The float32 chains themselves, bit for bit as sonde_matmul computes them, for some columns of one row:
 * out[j] = acc with acc = 0; for i ascending: acc = fmaf(x[i], w[index[j]][i], acc)  over feature-major w [F,
 * d]. */
void sonde_chains(const sonde_kernels *k, size_t n, const uint32_t *index, const float *w, size_t ldw,
                  size_t d, const float *x, float *out);

#endif
