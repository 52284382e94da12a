/* SPDX-License-Identifier: MIT
 * Products with packed weights: Y = X W + bias.
 *
 * Each output is one chain  acc = 0; for k ascending: acc = fmaf(x[k], w[k], acc)  and then the
 * epilogue, so its bits depend on nothing but its own row of X, column of W and epilogue: not on M, N,
 * the tile, the threads, the batch or the CPU (table "openblas" excepted, see cpu.h). */
#ifndef SONDE_NUM_MATMUL_H
#define SONDE_NUM_MATMUL_H

#include <stdbool.h>
#include <stddef.h>

#include "activation.h"
#include "cpu.h"

/* A matrix W [k, n] laid out for the kernels. The floats belong to the caller (64-byte aligned). */
typedef struct sonde_packed {
    const sonde_kernels *kernels;
    size_t k, n;
    float *data;
} sonde_packed;

/* Floats that a packed [k, n] takes (padded columns included); 0 if that overflows. */
size_t sonde_packed_floats(const sonde_kernels *kernels, size_t k, size_t n);

/* Pack columns n0 .. n0+n-1 and rows k0 .. k0+k-1 of w from a strided source:
 * W[k0 + i][n0 + j] = src[i * stride_k + j * stride_n].  data must begin zeroed, so that padding is 0.
 * Row-major [k, n] has stride_k = n, stride_n = 1; nn.Linear's [out, in] has stride_k = 1, stride_n = in. */
void sonde_pack(const sonde_packed *w, size_t k0, size_t k, size_t n0, size_t n, const float *src,
                size_t stride_k, size_t stride_n);

/* out[i] = W[i][col] for all k rows: one column back out of the packing (an embedding row of a tied model).
 */
void sonde_unpack_column(const sonde_packed *w, size_t col, float *out);

/* What happens to each output after its chain, in this order:
 * y = acc * scale;  y += bias[col];  y = act(y);  y = add[row][col] + y. */
typedef struct sonde_epilogue {
    float scale;        /* 0 means 1 */
    const float *bias;  /* [n] or NULL; indexed by the column of W */
    enum sonde_act act; /* SONDE_ACT_NONE for none */
    const float *add;   /* [m, n] with row stride ld_add, or NULL; may be y itself. First column is n0 */
    size_t ld_add;
    const float
        *from; /* [m, n]: where the chains begin instead of at 0; may be y itself. First column is n0 */
    size_t ld_from;
} sonde_epilogue;

/* y [m, n1-n0] = epilogue(x [m, k] W[:, n0:n1]), row strides ldx, ldy; only the first k_used rows of W and
 * columns of x take part (0: all): a causal block uses the keys so far. x, y, add and from must not overlap
 * except add == y and from == y. epilogue NULL: none. Single-threaded; no allocation; 64 KiB of stack. */
void sonde_matmul(const sonde_packed *w, size_t k_used, size_t n0, size_t n1, const float *x, size_t ldx,
                  size_t m, float *y, size_t ldy, const sonde_epilogue *epilogue);

/* Reference twin with double accumulators over an unpacked row-major W [k, n]: y[m, n] = x w + bias. */
void ref_matmul(const float *x, const float *w, const float *bias, size_t m, size_t k, size_t n, float *y);

#endif
