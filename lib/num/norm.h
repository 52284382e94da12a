/* SPDX-License-Identifier: MIT
 * LayerNorm and RMSNorm in the three steps that the hooks see.
 * Sums run in 16 fixed lanes (element i goes to lane i mod 16), added pairwise at the end. */
#ifndef SONDE_NUM_NORM_H
#define SONDE_NUM_NORM_H

#include <stddef.h>

#include "cpu.h"

enum sonde_norm { SONDE_NORM_NONE = 0, SONDE_NORM_LAYER, SONDE_NORM_RMS };

/* mean[r] (0 for RMS) and scale[r] = sqrt(mean((x - mean)^2) + eps) of each of n_rows rows x [n_rows, d], row
 * stride ldx. */
void sonde_norm_stats(const sonde_kernels *k, enum sonde_norm kind, const float *x, size_t ldx, size_t n_rows,
                      size_t d, float eps, float *mean, float *scale);

/* normalized[r] = (x[r] - mean[r]) / scale[r], row stride ldn. */
void sonde_norm_apply(const sonde_kernels *k, const float *x, size_t ldx, size_t n_rows, size_t d,
                      const float *mean, const float *scale, float *normalized, size_t ldn);

/* y = normalized * gamma + beta, product rounded, then sum rounded. gamma, beta [d] or NULL; y may be
 * normalized. */
void sonde_norm_affine(const sonde_kernels *k, const float *normalized, size_t ldn, size_t n_rows, size_t d,
                       const float *gamma, const float *beta, float *y, size_t ldy);

/* All three at once, the same bits, nothing stored between. */
void sonde_norm_rows(const sonde_kernels *k, enum sonde_norm kind, const float *x, size_t ldx, size_t n_rows,
                     size_t d, float eps, const float *gamma, const float *beta, float *y, size_t ldy);

#endif
