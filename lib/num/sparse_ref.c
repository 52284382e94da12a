/* SPDX-License-Identifier: MIT */
#include <math.h>

#include "sparse.h"

size_t ref_scan_above(const float *v, size_t n, const float *bound, uint32_t col0, uint32_t *col,
                      float *value)
{
    size_t kept = 0;
    for (size_t j = 0; j < n; j++)
        if (v[j] > bound[j]) {
            col[kept] = col0 + (uint32_t)j;
            value[kept++] = v[j];
        }
    return kept;
}

void ref_gather_sum(size_t n, const uint32_t *index, const float *value, const float *w, size_t ldw, size_t d,
                    const float *from, const float *bias, float *y)
{
    for (size_t i = 0; i < d; i++) {
        double acc = from ? (double)from[i] : 0.0;
        for (size_t j = 0; j < n; j++)
            acc += (double)value[j] * (double)w[(size_t)index[j] * ldw + i];
        y[i] = (float)(acc + (bias ? (double)bias[i] : 0.0));
    }
}

void ref_gather_dot(size_t n, const uint32_t *index, const float *w, size_t ldw, size_t d, const float *u,
                    float *out)
{
    for (size_t j = 0; j < n; j++) {
        double acc = 0;
        for (size_t i = 0; i < d; i++)
            acc += (double)w[(size_t)index[j] * ldw + i] * (double)u[i];
        out[j] = (float)acc;
    }
}

void ref_adam_update(const sonde_adam *o, size_t n, const float *g, float *w, float *m, float *v)
{
    const double rest1 = o->rest1 != 0.0f ? (double)o->rest1 : 1.0 - (double)o->beta1;
    const double rest2 = o->rest2 != 0.0f ? (double)o->rest2 : 1.0 - (double)o->beta2;
    for (size_t i = 0; i < n; i++) {
        const double clipped = (double)g[i] * (double)o->clip;
        const double mean = (double)m[i] + (clipped - (double)m[i]) * rest1;
        const double square = (double)v[i] * (double)o->beta2 + clipped * clipped * rest2;
        const double root = sqrt(square) / (double)o->sqrt_correction2 + (double)o->eps;
        w[i] = (float)((double)w[i] - (double)o->step * mean / root);
        m[i] = (float)mean;
        v[i] = (float)square;
    }
}
