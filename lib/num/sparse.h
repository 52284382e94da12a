/* SPDX-License-Identifier: MIT
 * Kernels over sparse rows: what passes a bound, sums of gathered rows, and the optimiser's pass over a row.
 *
 * All tables give the same bits: element-wise chains are fmaf in ascending order of the list, dot products
 * run in 16 fixed lanes (element i in lane i mod 16) that are added pairwise at the end. */
#ifndef SONDE_NUM_SPARSE_H
#define SONDE_NUM_SPARSE_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

/* Append (col0 + j, v[j]) for every v[j] > bound, j ascending, to col and value, which have room for n more
 * (whole vectors may be written: up to 16 beyond what is kept, never beyond n). Returns how many. NaN never
 * passes. */
size_t sonde_scan_above(const sonde_kernels *k, const float *v, size_t n, float bound, uint32_t col0,
                        uint32_t *col, float *value);
/* The same with a bound for each column. */
size_t sonde_scan_above_each(const sonde_kernels *k, const float *v, size_t n, const float *bound,
                             uint32_t col0, uint32_t *col, float *value);

/* How many v[j] > bound. */
size_t sonde_count_above(const sonde_kernels *k, const float *v, size_t n, float bound);

/* The k-th largest of n values. n >= k >= 1, no NaN. */
float sonde_kth_largest(const sonde_kernels *kernels, size_t n, size_t k, const float *value);

/* Of n entries in the order of their columns keep the k largest values, equal ones from the first on, moved
 * to the front in their order. Returns the smallest value kept. n >= k >= 1, no NaN. */
float sonde_keep_largest(const sonde_kernels *kernels, size_t n, size_t k, uint32_t *col, float *value);

/* y[d] = from[d] + sum over j < n of value[j] * w[index[j]][d]: per element one chain acc = fmaf(value[j], w,
 * acc), j ascending, that begins at from (NULL: 0; may be y), and then + bias[d] unless NULL. ldw: floats
 * from row to row. */
void sonde_gather_sum(const sonde_kernels *k, size_t n, const uint32_t *index, const float *value,
                      const float *w, size_t ldw, size_t d, const float *from, const float *bias, float *y);

/* out[j] = <w[index[j]], u> for j < n. */
void sonde_gather_dot(const sonde_kernels *k, size_t n, const uint32_t *index, const float *w, size_t ldw,
                      size_t d, const float *u, float *out);

float sonde_dot(const sonde_kernels *k, size_t n, const float *a, const float *b);

/* Sum of squares in 16 double lanes. NaN and infinity come through. */
double sonde_sum_squares(const sonde_kernels *k, size_t n, const float *x);

/* y = fmaf(a, x, y);  y = a x (y may be x). */
void sonde_axpy(const sonde_kernels *k, size_t n, float a, const float *x, float *y);
void sonde_scale(const sonde_kernels *k, size_t n, float a, const float *x, float *y);

/* y = a - b (elementwise; y may be a or b). */
void sonde_vec_sub(const sonde_kernels *k, size_t n, const float *a, const float *b, float *y);

/* One step of Adam (Kingma & Ba 2015, as torch.optim.Adam computes it) on n values:
 *   g' = g clip;  m += (g' - m)(1 - beta1);  v = v beta2 + g'^2 (1 - beta2);
 *   w -= (lr / correction1) m / (sqrt(v) / sqrt_correction2 + eps)
 * in the order and with the roundings of one fmaf each for m, v and w. correction1 = 1 - beta1^t,
 * sqrt_correction2 = sqrt(1 - beta2^t), both worked out in double by the caller.
 */
typedef struct sonde_adam {
    float clip, beta1, beta2, eps;
    float step; /* lr / correction1 */
    float sqrt_correction2;
    float rest1, rest2; /* 1 - beta1 and 1 - beta2 rounded from double, as torch has them; 0: from the floats,
                           which for beta2 = 0.999 are 1.3e-5 off */
} sonde_adam;
void sonde_adam_update(const sonde_kernels *k, const sonde_adam *o, size_t n, const float *g, float *w,
                       float *m, float *v);

/* Reference twins, in double. */
size_t ref_scan_above(const float *v, size_t n, const float *bound, uint32_t col0, uint32_t *col,
                      float *value);
void ref_gather_sum(size_t n, const uint32_t *index, const float *value, const float *w, size_t ldw, size_t d,
                    const float *from, const float *bias, float *y);
void ref_gather_dot(size_t n, const uint32_t *index, const float *w, size_t ldw, size_t d, const float *u,
                    float *out);
void ref_adam_update(const sonde_adam *o, size_t n, const float *g, float *w, float *m, float *v);

#endif
