/* SPDX-License-Identifier: MIT
 * Elementary functions for the generator. The C library's may differ in the last bit between machines, and a
 * last bit can make a latent active. */
#include <math.h>
#include <string.h>

#include "synth_impl.h"

#define LN2_HIGH 6.93147180369123816490e-01 /* 32 bits: n * LN2_HIGH is exact */
#define LN2_LOW  1.90821492927058770002e-10

double synth_exp(double x)
{
    if (x < -708)
        return 0;
    if (x > 709)
        return INFINITY;
    double n = floor(x * 1.4426950408889634 + 0.5), r = (x - n * LN2_HIGH) - n * LN2_LOW, sum = 1;
    for (int k = 18; k >= 1; k--) /* |r| < 0.35: the next term is below 1e-25 */
        sum = 1 + r * sum / k;
    uint64_t bits = (uint64_t)((int64_t)n + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return sum * scale;
}

/* x = m 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh((m - 1) / (m + 1)). */
double synth_log(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    int e = (int)(u >> 52) - 1023;
    u = (u & 0xfffffffffffffull) | 0x3ff0000000000000ull;
    double m;
    memcpy(&m, &u, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    double s = (m - 1) / (m + 1), z = s * s, y = 0;
    for (int k = 25; k >= 3; k -= 2)
        y = (y + 1.0 / k) * z;
    return e * LN2_HIGH + (e * LN2_LOW + (2 * s + 2 * s * y));
}

double synth_power(double x, double exponent)
{
    return synth_exp(exponent * synth_log(x));
}

/* Near 0 the series x + x^3/3 + x^5/(3 5) + ... of Phi - 1/2 over the density (Marsaglia 2004); beyond,
 * Laplace's continued fraction x + 1/(x + 2/(x + ...)) of the density over the tail. */
double synth_normal_tail(double x)
{
    if (x < 0)
        return 1 - synth_normal_tail(-x);
    double density = 0.3989422804014327 * synth_exp(-0.5 * x * x);
    if (x < 2) {
        double term = x, sum = x;
        for (int k = 3; k < 60; k += 2) {
            term *= x * x / k;
            sum += term;
        }
        return 0.5 - density * sum;
    }
    double f = x;
    for (int k = 120; k >= 1; k--)
        f = x + k / f;
    return density / f;
}

double synth_normal_cut(double p)
{
    double low = -38, high = 38;
    for (int i = 0; i < 60; i++) {
        double middle = 0.5 * (low + high);
        if (synth_normal_tail(middle) > p)
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}
