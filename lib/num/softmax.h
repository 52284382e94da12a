/* SPDX-License-Identifier: MIT
 * Softmax, log-sum-exp and the largest entries of rows. */
#ifndef SONDE_NUM_SOFTMAX_H
#define SONDE_NUM_SOFTMAX_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

/* Softmax of one row over [lo, hi): p[j] = exp(s[j] - max) / sum for lo <= j < hi, p[j] = 0 for the other j
 * in [0, n). The sum runs in 16 fixed lanes by j mod 16. An empty range, or one whose every s is -inf, gives
 * all zeros (the field's "NaN -> 0"). A NaN in the range gives NaN in the row. p may be s. */
void sonde_softmax_row(const sonde_kernels *k, const float *s, size_t n, size_t lo, size_t hi, float *p);

/* log(sum(exp(x))) over a row of n > 0; the exps in float, the sum in double, in 16 fixed lanes. */
double sonde_logsumexp(const sonde_kernels *k, const float *x, size_t n);

/* The k largest of a row of n, the largest first; ties go to the smaller index. k <= n. NaN counts as -inf.
 */
void sonde_row_topk(const sonde_kernels *kern, const float *x, size_t n, size_t k, int32_t *index,
                    float *value);

/* Index of the largest; the smaller index on ties. n > 0. */
size_t sonde_argmax(const float *x, size_t n);

#endif
