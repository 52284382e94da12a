/* SPDX-License-Identifier: MIT */
#include "convert.h"

#include "kernels_impl.h"

size_t sonde_to_f16(const sonde_kernels *k, size_t n, const float *x, uint16_t *y)
{
    return k->to_f16(n, x, y);
}

size_t sonde_to_bf16(const sonde_kernels *k, size_t n, const float *x, uint16_t *y)
{
    return k->to_bf16(n, x, y);
}

void sonde_from_f16(const sonde_kernels *k, size_t n, const uint16_t *x, float *y)
{
    k->from_f16(n, x, y);
}

void sonde_from_bf16(const sonde_kernels *k, size_t n, const uint16_t *x, float *y)
{
    k->from_bf16(n, x, y);
}

int sonde_all_finite(const sonde_kernels *k, size_t n, const float *x)
{
    return k->all_finite(n, x);
}

void sonde_column_sums(const sonde_kernels *k, const float *x, size_t ldx, size_t n_rows, size_t d,
                       double *sum, double *sum_sq, double *norm, double *norm_sq)
{
    k->column_sums(x, ldx, n_rows, d, sum, sum_sq, norm, norm_sq);
}
