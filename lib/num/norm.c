/* SPDX-License-Identifier: MIT */
#include "norm.h"

#include "kernels_impl.h"

void sonde_norm_stats(const sonde_kernels *k, enum sonde_norm kind, const float *x, size_t ldx, size_t n_rows,
                      size_t d, float eps, float *mean, float *scale)
{
    k->norm_stats(kind, x, ldx, n_rows, d, eps, mean, scale);
}

void sonde_norm_apply(const sonde_kernels *k, const float *x, size_t ldx, size_t n_rows, size_t d,
                      const float *mean, const float *scale, float *normalized, size_t ldn)
{
    k->norm_apply(x, ldx, n_rows, d, mean, scale, normalized, ldn);
}

void sonde_norm_affine(const sonde_kernels *k, const float *normalized, size_t ldn, size_t n_rows, size_t d,
                       const float *gamma, const float *beta, float *y, size_t ldy)
{
    k->norm_affine(normalized, ldn, n_rows, d, gamma, beta, y, ldy);
}

void sonde_norm_rows(const sonde_kernels *k, enum sonde_norm kind, const float *x, size_t ldx, size_t n_rows,
                     size_t d, float eps, const float *gamma, const float *beta, float *y, size_t ldy)
{
    k->norm_rows(kind, x, ldx, n_rows, d, eps, gamma, beta, y, ldy);
}
