/* SPDX-License-Identifier: MIT
 * The table of kernels: what each instruction set provides. Private to num/. */
#ifndef SONDE_NUM_KERNELS_IMPL_H
#define SONDE_NUM_KERNELS_IMPL_H

#include <stddef.h>
#include <stdint.h>

#include "activation.h"
#include "bf16.h"
#include "matmul.h"
#include "norm.h"
#include "sparse.h"

struct sonde_kernels {
    const char *name;
    size_t panel; /* columns of a panel of packed weights: panel p holds W[k][p * panel + j] at [p][k][j] */

    void (*matmul)(const sonde_packed *w, size_t k, size_t n0, size_t n1, const float *x, size_t ldx,
                   size_t m, float *y, size_t ldy, const sonde_epilogue *epilogue);

    /* to[i * ld + j] = src[i + j * stride] for i, j < 16 */
    void (*transpose16)(const float *src, size_t stride, float *to, size_t ld);

    void (*exp)(size_t n, const float *x, float *y);
    void (*tanh)(size_t n, const float *x, float *y);
    void (*activate)(enum sonde_act act, size_t n, const float *x, float *y);
    void (*activate_gated)(enum sonde_act act, size_t n, const float *gate, const float *up, float *y);
    void (*softcap)(float cap, size_t n, const float *x, float *y);
    void (*add)(size_t n, const float *a, const float *b, float *y);

    void (*norm_stats)(enum sonde_norm kind, const float *x, size_t ldx, size_t n_rows, size_t d, float eps,
                       float *mean, float *scale);
    void (*norm_apply)(const float *x, size_t ldx, size_t n_rows, size_t d, const float *mean,
                       const float *scale, float *normalized, size_t ldn);
    void (*norm_affine)(const float *normalized, size_t ldn, size_t n_rows, size_t d, const float *gamma,
                        const float *beta, float *y, size_t ldy);
    void (*norm_rows)(enum sonde_norm kind, const float *x, size_t ldx, size_t n_rows, size_t d, float eps,
                      const float *gamma, const float *beta, float *y, size_t ldy);

    void (*softmax_row)(const float *s, size_t n, size_t lo, size_t hi, float *p);
    double (*exp_sum)(const float *x, size_t n, float *max); /* sum of exp(x - max) */
    void (*row_topk)(const float *x, size_t n, size_t k, int32_t *index, float *value);

    void (*rope_row)(const float *x, size_t n_heads, size_t dh, size_t rope_dim, const float *cosine,
                     const float *sine, float *y);

    size_t (*to_f16)(size_t n, const float *x, uint16_t *y);
    size_t (*to_bf16)(size_t n, const float *x, uint16_t *y);
    void (*from_f16)(size_t n, const uint16_t *x, float *y);
    void (*from_bf16)(size_t n, const uint16_t *x, float *y);
    int (*all_finite)(size_t n, const float *x);
    void (*column_sums)(const float *x, size_t ldx, size_t n_rows, size_t d, double *sum, double *sum_sq,
                        double *norm, double *norm_sq);

    size_t (*scan_above)(const float *v, size_t n, float bound, uint32_t col0, uint32_t *col, float *value);
    size_t (*scan_above_each)(const float *v, size_t n, const float *bound, uint32_t col0, uint32_t *col,
                              float *value);
    size_t (*count_above)(const float *v, size_t n, float bound);
    float (*kth_largest)(size_t n, size_t k, const float *value);
    float (*keep_largest)(size_t n, size_t k, uint32_t *col, float *value);
    void (*gather_sum)(size_t n, const uint32_t *index, const float *value, const float *w, size_t ldw,
                       size_t d, const float *from, const float *bias, float *y);
    void (*gather_dot)(size_t n, const uint32_t *index, const float *w, size_t ldw, size_t d, const float *u,
                       float *out);
    float (*dot)(size_t n, const float *a, const float *b);
    double (*sum_squares)(size_t n, const float *x);
    void (*axpy)(size_t n, float a, const float *x, float *y);
    void (*scale)(size_t n, float a, const float *x, float *y);
    void (*sub)(size_t n, const float *a, const float *b, float *y);
    void (*adam_update)(const sonde_adam *o, size_t n, const float *g, float *w, float *m, float *v);

    void (*round16)(size_t n, const float *x, uint16_t *y, double sum[3]);
    size_t (*scan16)(const sonde_bound16 *b, const float *p, const float *norm, const float *lost,
                     const float *bias, float limit, const float *limits, size_t n, uint32_t col0,
                     uint32_t *col, float *low, float *high);
    void (*chains)(size_t n_rows, const size_t *start, const uint32_t *index, const float *w, size_t ldw,
                   size_t d, const float *x, size_t ldx, float *out);
};

/* Products by OpenBLAS on tiles of 64 rows, columns and k: so small that it starts no threads, and of one
 * shape, so that a row's bits depend only on its place in the tile. */
void sonde_openblas_matmul(const sonde_packed *w, size_t k, size_t n0, size_t n1, const float *x, size_t ldx,
                           size_t m, float *y, size_t ldy, const sonde_epilogue *epilogue);

/* Columns of a panel of bfloat16: panel p holds W[2 i + e][p * 32 + j] at [p][i][j][e]. */
#define SONDE_PANEL16 32

extern const sonde_kernels sonde_kernels_plain, sonde_kernels_openblas;
#if defined(__x86_64__)
extern const sonde_kernels sonde_kernels_avx2, sonde_kernels_avx512;

/* sonde_matmul16 for CPUs with AVX512-BF16. */
void sonde_matmul16_avx512(const uint16_t *w, size_t k, size_t n0, size_t n1, const uint16_t *x, size_t ldx,
                           size_t m, float *y, size_t ldy);
#elif defined(__aarch64__)
extern const sonde_kernels sonde_kernels_neon;
#endif

#endif
