/* SPDX-License-Identifier: MIT
 * Reference twins: the plainest C, in double, that the kernels are tested against. Argument order as in the
 * fast ones. */
#ifndef SONDE_NUM_REF_H
#define SONDE_NUM_REF_H

#include <stddef.h>
#include <stdint.h>

#include "activation.h"
#include "matmul.h"
#include "norm.h"

double ref_act(enum sonde_act act, double x);

void ref_norm(enum sonde_norm kind, const float *x, size_t ldx, size_t n_rows, size_t d, float eps,
              const float *gamma, const float *beta, float *y, size_t ldy);

void ref_softmax_row(const float *s, size_t n, size_t lo, size_t hi, float *p);

double ref_logsumexp(const float *x, size_t n);

/* By k passes over the row. */
void ref_row_topk(const float *x, size_t n, size_t k, int32_t *index, float *value);

void ref_rope_row(const float *x, size_t n_heads, size_t dh, size_t rope_dim, const float *cosine,
                  const float *sine, float *y);

#endif
