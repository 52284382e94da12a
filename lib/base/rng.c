/* SPDX-License-Identifier: MIT */
#include "rng.h"

#include <math.h>
#include <string.h>

#include "hash.h"
#include "rng_impl.h"

/* Constants and rounds: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 */
void sonde_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * c0, p1 = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

__extension__ typedef unsigned __int128 wide;

static void philox64(uint64_t low, uint64_t high, uint64_t key, uint32_t out[4])
{
    const uint32_t c[4] = {(uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32)};
    const uint32_t k[2] = {(uint32_t)key, (uint32_t)(key >> 32)};
    sonde_philox(c, k, out);
}

static uint64_t join(uint32_t low, uint32_t high)
{
    return (uint64_t)high << 32 | low;
}

sonde_rng sonde_rng_seed(uint64_t seed)
{
    return (sonde_rng){.key = seed};
}

/* Two encryptions: of (name, index) under the parent's key, then of that mixed with the parent's stream under
 * a key that no stream drawn from the same parent uses. The result is the child's key and stream. */
sonde_rng sonde_rng_fork(const sonde_rng *parent, const char *name, uint64_t index)
{
    uint32_t w[4];
    philox64(sonde_xxh3(name, strlen(name)), index, parent->key, w);
    philox64(join(w[0], w[1]) ^ parent->stream, join(w[2], w[3]), parent->key ^ 0x666f726b2e6e616dull, w);
    return (sonde_rng){.key = join(w[0], w[1]), .stream = join(w[2], w[3])};
}

uint32_t sonde_rng_u32(sonde_rng *r)
{
    if (r->n_spare == 0) {
        philox64(r->position++, r->stream, r->key, r->spare);
        r->n_spare = 4;
    }
    return r->spare[4 - r->n_spare--];
}

uint64_t sonde_rng_u64(sonde_rng *r)
{
    uint32_t low = sonde_rng_u32(r);
    return join(low, sonde_rng_u32(r));
}

/* The high part of word * n is uniform once the few low parts that would favour some results are drawn again
 * (Lemire, "Fast random integer generation in an interval", 2019). */
uint64_t sonde_rng_below(sonde_rng *r, uint64_t n)
{
    if (n <= UINT32_MAX) {
        uint32_t m = (uint32_t)n, reject = (uint32_t)(-m) % m;
        uint64_t p;
        do
            p = (uint64_t)sonde_rng_u32(r) * m;
        while ((uint32_t)p < reject);
        return p >> 32;
    }
    uint64_t reject = -n % n;
    wide p;
    do
        p = (wide)sonde_rng_u64(r) * n;
    while ((uint64_t)p < reject);
    return (uint64_t)(p >> 64);
}

float sonde_rng_float(sonde_rng *r)
{
    return (float)(sonde_rng_u32(r) >> 8) * 0x1p-24f;
}

double sonde_rng_double(sonde_rng *r)
{
    return (double)(sonde_rng_u64(r) >> 11) * 0x1p-53;
}

/* c[0] + c[1] x + ... + c[7] x^7 */
static double poly7(const double c[8], double x)
{
    double y = c[7];
    for (int i = 6; i >= 0; i--)
        y = y * x + c[i];
    return y;
}

/* Natural logarithm of a normal number p > 0 from + - * / alone, error below 2 ulp for p < 0.1:
 * p = m 2^e with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh s, s = (m - 1) / (m + 1), |s| < 0.172. */
static double plain_log(double p)
{
    uint64_t u;
    memcpy(&u, &p, sizeof u);
    int e = (int)(u >> 52) - 1023;
    u = (u & 0xfffffffffffffull) | 0x3ff0000000000000ull;
    double m;
    memcpy(&m, &u, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    double s = (m - 1) / (m + 1), z = s * s, y = 0;
    for (int k = 21; k >= 3; k -= 2)
        y = (y + 1.0 / k) * z;
    return e * 0.6931471805599453 + (2 * s + 2 * s * y);
}

/* Rational approximations of M. J. Wichura, "Algorithm AS 241", Applied Statistics 37 (1988): relative error
 * 1e-16 in exact arithmetic, below 1e-15 in this one. */
double sonde_normal_quantile(double q, double tail)
{
    static const double a[8] = {3.3871328727963666080e0,  1.3314166789178437745e+2, 1.9715909503065514427e+3,
                                1.3731693765509461125e+4, 4.5921953931549871457e+4, 6.7265770927008700853e+4,
                                3.3430575583588128105e+4, 2.5090809287301226727e+3};
    static const double b[8] = {1.0,
                                4.2313330701600911252e+1,
                                6.8718700749205790830e+2,
                                5.3941960214247511077e+3,
                                2.1213794301586595867e+4,
                                3.9307895800092710610e+4,
                                2.8729085735721942674e+4,
                                5.2264952788528545610e+3};
    static const double c[8] = {1.42343711074968357734e0,  4.63033784615654529590e0,
                                5.76949722146069140550e0,  3.64784832476320460504e0,
                                1.27045825245236838258e0,  2.41780725177450611770e-1,
                                2.27238449892691845833e-2, 7.74545014278341407640e-4};
    static const double d[8] = {1.0,
                                2.05319162663775882187e0,
                                1.67638483018380384940e0,
                                6.89767334985100004550e-1,
                                1.48103976427480074590e-1,
                                1.51986665636164571966e-2,
                                5.47593808499534494600e-4,
                                1.05075007164441684324e-9};
    static const double f[8] = {6.65790464350110377720e0,  5.46378491116411436990e0,
                                1.78482653991729133580e0,  2.96560571828504891230e-1,
                                2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                2.71155556874348757815e-5, 2.01033439929228813265e-7};
    static const double g[8] = {1.0,
                                5.99832206555887937690e-1,
                                1.36929880922735805310e-1,
                                1.48753612908506148525e-2,
                                7.86869131145613259100e-4,
                                1.84631831751005468180e-5,
                                1.42151175831644588870e-7,
                                2.04426310338993978564e-15};
    if (q >= -0.425 && q <= 0.425) {
        double r = 0.180625 - q * q;
        return q * poly7(a, r) / poly7(b, r);
    }
    double r = sqrt(-plain_log(tail));
    double x = r <= 5 ? poly7(c, r - 1.6) / poly7(d, r - 1.6) : poly7(f, r - 5) / poly7(g, r - 5);
    return q < 0 ? -x : x;
}

double sonde_rng_normal(sonde_rng *r)
{
    double u = ((double)(sonde_rng_u64(r) >> 12) + 0.5) * 0x1p-52; /* exact, and so is 1 - u */
    return sonde_normal_quantile(u - 0.5, u < 0.5 ? u : 1 - u);
}

void sonde_rng_permutation(sonde_rng *r, uint32_t *perm, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        perm[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)sonde_rng_below(r, i), t = perm[i - 1];
        perm[i - 1] = perm[j];
        perm[j] = t;
    }
}
