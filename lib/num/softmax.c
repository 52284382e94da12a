/* SPDX-License-Identifier: MIT */
#include "softmax.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels_impl.h"

void sonde_softmax_row(const sonde_kernels *k, const float *s, size_t n, size_t lo, size_t hi, float *p)
{
    assert(lo >= hi || hi <= n);
    k->softmax_row(s, n, lo, hi, p);
}

/* log of a normal x > 0 by + - * / alone, so that the bits are the same everywhere: x = 2^e m,
 * log m = 2 atanh(f), f = (m - 1) / (m + 1), |f| < 0.172. Error < 2e-16 (1 + |log x|). */
static double log_normal(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    u -= 0x3fe6a09e667f3bcdu; /* bits of sqrt(1/2) */
    const double e = (double)((int64_t)u >> 52);
    u = (u & 0xfffffffffffffu) + 0x3fe6a09e667f3bcdu;
    double m;
    memcpy(&m, &u, sizeof m);
    const double f = (m - 1.0) / (m + 1.0), s = f * f;
    double p = 0.0;
    for (int i = 23; i >= 3; i -= 2)
        p = (p + 1.0 / i) * s;
    return e * 0x1.62e42fefa39efp-1 + (2.0 * f * p + 2.0 * f);
}

double sonde_logsumexp(const sonde_kernels *k, const float *x, size_t n)
{
    float max;
    const double sum = k->exp_sum(x, n, &max);
    if (!(sum > 0.0)) /* a NaN, or +inf - +inf; 0 where every x is -inf */
        return isnan(sum) ? (double)NAN : -(double)INFINITY;
    return (double)max + log_normal(sum);
}

void sonde_row_topk(const sonde_kernels *kern, const float *x, size_t n, size_t k, int32_t *index,
                    float *value)
{
    assert(k <= n && n <= INT32_MAX);
    kern->row_topk(x, n, k, index, value);
}

size_t sonde_argmax(const float *x, size_t n)
{
    size_t best = 0;
    float top = -INFINITY;
    for (size_t i = 0; i < n; i += 16) {
        const size_t end = n - i < 16 ? n : i + 16;
        int larger = end - i < 16; /* the last few are looked at one by one */
        for (size_t j = 0; j < 16 && end - i == 16; j++)
            larger |= x[i + j] > top;
        for (size_t j = i; larger && j < end; j++)
            if (x[j] > top) {
                top = x[j];
                best = j;
            }
    }
    return best;
}
