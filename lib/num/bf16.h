/* SPDX-License-Identifier: MIT
 * Approximate products in bfloat16 with a proven bound, and the exact float32 chains they stand for.
 *
 * With x and w a row and a column of floats, x' and w' what bfloat16 keeps of them, p the product of x' and
 * w' with sums in float32, and z the float32 chain of matmul.h:
 *
 *   |p - z| <= |x - x'| |w| + |x'| |w - w'| + c |x| |w| + tiny        (|.| of vectors: the 2-norm)
 *
 * The norms are taken from the numbers themselves, so the bound holds for any of them; it is about 0.8 * 2^-8
 * |x| |w| for usual numbers and 2^-7 |x| |w| at worst. Derived in bf16.c. */
#ifndef SONDE_NUM_BF16_H
#define SONDE_NUM_BF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

/* A matrix W [k, n] in bfloat16, laid out for the kernels, with the norm of each column and of what rounding
 * took from it. The memory belongs to the caller (64-byte aligned). */
typedef struct sonde_packed16 {
    const sonde_kernels *kernels;
    size_t k, n;
    uint16_t *data;
} sonde_packed16;

/* Is there an instruction for it (AVX512-BF16, for the table "avx512")? Without it sonde_matmul16 works in
 * plain C, slower than float32: of use to tests only. */
bool sonde_bf16_available(const sonde_kernels *k);

/* 16-bit words that a packed [k, n] takes; 0 if that overflows. */
size_t sonde_packed16_words(const sonde_kernels *k, size_t rows, size_t columns);

/* Pack columns n0 .. n0+n-1 from feature-major rows: W[i][n0 + j] = src[j * ld + i] for i < w->k, rounded to
 * nearest even. data must begin zeroed. n0 a multiple of 16; different columns may be packed by different
 * threads. */
void sonde_pack16(const sonde_packed16 *w, size_t n0, size_t n, const float *src, size_t ld);

/* Of each column j < n: at least |w_j|, at least |w_j - w'_j|. Room for whole vectors of 16. */
const float *sonde_packed16_norm(const sonde_packed16 *w);
const float *sonde_packed16_lost(const sonde_packed16 *w);

/* What a row has to do with the bound. For each column j, in float32 and in this order,
 *   high_j = fmaf(lost, norm_j, fmaf(kept, lost_j, p_j + tiny)),  low_j = fmaf(-lost, norm_j, fmaf(-kept,
 * lost_j, p_j - tiny)) satisfy low_j <= z_j <= high_j, roundings included, wherever sonde_bound16_holds. */
typedef struct sonde_bound16 {
    float lost; /* |x - x'| + c |x| */
    float kept; /* |x'| */
    float tiny; /* what may underflow */
    float size; /* |x| */
} sonde_bound16;

/* y[d] = x in bfloat16 (nearest even; its subnormals become 0), and the row's part of the bound. */
void sonde_round16(const sonde_kernels *k, size_t d, const float *x, uint16_t *y, sonde_bound16 *bound);

/* The largest norm of a column; infinite or NaN if one is. */
float sonde_packed16_top(const sonde_packed16 *w);

/* Can nothing overflow between this row and columns with norms up to top? False for NaN and infinities. */
bool sonde_bound16_holds(const sonde_bound16 *bound, float top);

/* y [m, n1-n0] = x W[:, n0:n1] approximately; x [m, k] from sonde_round16 with row stride ldx (words). n0 a
 * multiple of 32. Which of p's last bits come out depends on the CPU; the bound holds on all. */
void sonde_matmul16(const sonde_packed16 *w, size_t n0, size_t n1, const uint16_t *x, size_t ldx, size_t m,
                    float *y, size_t ldy);

/* Append every column n0 + j, j < n, ascending, that is not known to be below its limit: where not
 * high_j + bias_j < limit. p[j] from sonde_matmul16; bias (NULL: 0) is indexed by column and added last, to
 * low and high alike, as the epilogue of sonde_matmul adds it to z. limits (or NULL: `limit` for all) is
 * indexed by column. low is -infinity for NaN. Returns how many; col, low and high have room for n more
 * (whole vectors may be written: 16 beyond what is kept). */
size_t sonde_scan16(const sonde_packed16 *w, const sonde_bound16 *bound, const float *p, size_t n0, size_t n,
                    const float *bias, float limit, const float *limits, uint32_t *col, float *low,
                    float *high);

/* The float32 chains themselves, bit for bit as sonde_matmul computes them (table "openblas" excepted), for
 * some columns of each row: for j in start[r] .. start[r+1]-1: out[j] = acc with acc = 0; for i ascending:
 * acc = fmaf(x[r][i], w[index[j]][i], acc), over feature-major w [F, d] and rows x [n_rows, d] with row
 * stride ldx. start[0] = 0. */
void sonde_chains(const sonde_kernels *k, size_t n_rows, const size_t *start, const uint32_t *index,
                  const float *w, size_t ldw, size_t d, const float *x, size_t ldx, float *out);

/* Does sonde_matmul compute these very chains? (All tables but "openblas".) */
bool sonde_chains_are_products(const sonde_kernels *k);

#endif
