/* SPDX-License-Identifier: MIT */
#include "sparse.h"

#include "kernels_impl.h"

size_t sonde_scan_above(const sonde_kernels *k, const float *v, size_t n, float bound, uint32_t col0,
                        uint32_t *col, float *value)
{
    return k->scan_above(v, n, bound, col0, col, value);
}

size_t sonde_scan_above_each(const sonde_kernels *k, const float *v, size_t n, const float *bound,
                             uint32_t col0, uint32_t *col, float *value)
{
    return k->scan_above_each(v, n, bound, col0, col, value);
}

size_t sonde_count_above(const sonde_kernels *k, const float *v, size_t n, float bound)
{
    return k->count_above(v, n, bound);
}

float sonde_kth_largest(const sonde_kernels *kernels, size_t n, size_t k, const float *value)
{
    return kernels->kth_largest(n, k, value);
}

float sonde_keep_largest(const sonde_kernels *kernels, size_t n, size_t k, uint32_t *col, float *value)
{
    return kernels->keep_largest(n, k, col, value);
}

void sonde_gather_sum(const sonde_kernels *k, size_t n, const uint32_t *index, const float *value,
                      const float *w, size_t ldw, size_t d, const float *from, const float *bias, float *y)
{
    k->gather_sum(n, index, value, w, ldw, d, from, bias, y);
}

void sonde_gather_dot(const sonde_kernels *k, size_t n, const uint32_t *index, const float *w, size_t ldw,
                      size_t d, const float *u, float *out)
{
    k->gather_dot(n, index, w, ldw, d, u, out);
}

float sonde_dot(const sonde_kernels *k, size_t n, const float *a, const float *b)
{
    return k->dot(n, a, b);
}

double sonde_sum_squares(const sonde_kernels *k, size_t n, const float *x)
{
    return k->sum_squares(n, x);
}

void sonde_axpy(const sonde_kernels *k, size_t n, float a, const float *x, float *y)
{
    k->axpy(n, a, x, y);
}

void sonde_scale(const sonde_kernels *k, size_t n, float a, const float *x, float *y)
{
    k->scale(n, a, x, y);
}

void sonde_vec_sub(const sonde_kernels *k, size_t n, const float *a, const float *b, float *y)
{
    k->sub(n, a, b, y);
}

void sonde_adam_update(const sonde_kernels *k, const sonde_adam *o, size_t n, const float *g, float *w,
                       float *m, float *v)
{
    k->adam_update(o, n, g, w, m, v);
}
