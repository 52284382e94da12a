/* SPDX-License-Identifier: MIT
 * Arrays of float32 to and from 16 bits, bit for bit as base/half.h defines them. */
#ifndef SONDE_NUM_CONVERT_H
#define SONDE_NUM_CONVERT_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

/* Saturating: finite values beyond +-65504 (after rounding) become +-65504; returns how many did. Infinities
 * and NaN stay what they are and are not counted. */
size_t sonde_to_f16(const sonde_kernels *k, size_t n, const float *x, uint16_t *y);

/* Saturating likewise at the largest finite bfloat16. */
size_t sonde_to_bf16(const sonde_kernels *k, size_t n, const float *x, uint16_t *y);

void sonde_from_f16(const sonde_kernels *k, size_t n, const uint16_t *x, float *y);
void sonde_from_bf16(const sonde_kernels *k, size_t n, const uint16_t *x, float *y);

/* Are all n values finite? */
int sonde_all_finite(const sonde_kernels *k, size_t n, const float *x);

/* sum[i] += x[i], sum_sq[i] += x[i]^2 in double for each of d columns over n_rows rows in ascending order.
 * Also adds each row's norm and squared norm (16 fixed double lanes) to *norm and *norm_sq, row after row. */
void sonde_column_sums(const sonde_kernels *k, const float *x, size_t ldx, size_t n_rows, size_t d,
                       double *sum, double *sum_sq, double *norm, double *norm_sq);

#endif
