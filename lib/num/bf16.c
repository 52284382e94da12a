/* SPDX-License-Identifier: MIT
 * Products in bfloat16 and what they leave open.
 *
 * The bound. Let x, w have d floats, x' and w' be what bfloat16 keeps (subnormals cut to 0, so that an
 * instruction that reads them as 0 changes nothing), u = 2^-24, and
 *     s = <x, w> exactly,  s' = <x', w'> exactly,  z the chain of d fmaf,  p the sum that comes out of s'.
 *
 * 1. s - s' = <x - x', w> + <x', w - w'>, so |s - s'| <= |x - x'| |w| + |x'| |w - w'| (Cauchy-Schwarz).
 * Nothing is assumed about how numbers were rounded: both differences are exact in float32 (x' has x's
 * leading bits), and their norms are summed in double.
 * 2. A chain of d fmaf rounds each partial sum once: |z - s| <= g |x| |w| with g = d u / (1 - d u) (Higham,
 *    Accuracy and Stability, section 3.1, and |x|.|w| <= |x| |w|), plus 2^-150 for each rounding of a
 * subnormal.
 * 3. A product of two bfloat16 has 16 bits and is exact in float32 unless it underflows. VDPBF16PS adds two
 * of them to a float32 sum with round to nearest even and no other rounding, and turns subnormal results into
 *    0. In whatever order the d products are added, each passes through at most d roundings:
 *    |p - s'| <= g |x'| |w'|, with |x'| |w'| <= (1 + 2^-8)^2 |x| |w|; and each of at most 2 d results (a
 * product, a sum) that underflows adds at most 2^-126.
 *
 * Together  |p - z| <= |x - x'| |w| + |x'| |w - w'| + g (1 + (1 + 2^-8)^2) |x| |w| + d 2^-124.
 * 4. high_j and low_j are themselves computed with three roundings of numbers no larger than 1.01 |x| |w| +
 * the bound: 8 u |x| |w| more in c, and the factors enlarged by 2^-20, pay for them and for the norms' own
 *    roundings (double sums of d squares, then one to float: far below 2^-20; 2^-148 where that is
 * subnormal). */
#include "bf16.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "../base/half.h"
#include "../base/size.h"
#include "kernels_impl.h"

enum { PANEL16 = SONDE_PANEL16, GROUP = 16, MAX_WIDTH = 1 << 21 };

bool sonde_bf16_available(const sonde_kernels *k)
{
#if defined(__x86_64__)
    return k == &sonde_kernels_avx512 && __builtin_cpu_supports("avx512bf16");
#else
    (void)k;
    return false;
#endif
}

static size_t panels_of(size_t n)
{
    return n / PANEL16 + (n % PANEL16 != 0);
}

/* Words of one panel: two rows of W lie side by side. */
static size_t panel_words(size_t k)
{
    return (k / 2 + k % 2) * 2 * PANEL16;
}

size_t sonde_packed16_words(const sonde_kernels *k, size_t rows, size_t columns)
{
    size_t deep, words, bytes;
    (void)k;
    /* and two floats beside each column */
    if (!sonde_round_up(&deep, rows, 2) || !sonde_add(&deep, deep, 4) ||
        !sonde_round_up(&columns, columns, PANEL16) || !sonde_mul(&words, deep, columns) ||
        !sonde_mul(&bytes, words, sizeof(uint16_t)))
        return 0;
    return rows && columns ? words : 0;
}

static float *norms(const sonde_packed16 *w)
{
    return (float *)(void *)(w->data + panels_of(w->n) * panel_words(w->k));
}

const float *sonde_packed16_norm(const sonde_packed16 *w)
{
    return norms(w);
}

const float *sonde_packed16_lost(const sonde_packed16 *w)
{
    return norms(w) + panels_of(w->n) * PANEL16;
}

/* The square root, rounded up to float. */
static float root_above(double sum)
{
    return sum == 0 ? 0.0f : (float)(sqrt(sum) * (1 + 0x1p-20)) + 0x1p-148f;
}

/* `count` <= 16 columns of one panel: bfloat16 pairs become lanes of 32 bits and are turned by 16 x 16. */
static void pack_group(const sonde_packed16 *w, size_t n0, size_t count, const float *src, size_t ld)
{
    enum { PART = 512 };
    uint16_t rows[GROUP * PART] __attribute__((aligned(64)));
    float turned[GROUP * GROUP] __attribute__((aligned(64)));
    double sum[GROUP][3] = {{0}};
    uint16_t *to = w->data + n0 / PANEL16 * panel_words(w->k) + n0 % PANEL16 * 2;
    memset(rows, 0, sizeof rows);
    for (size_t k0 = 0; k0 < w->k; k0 += PART) {
        const size_t part = w->k - k0 < PART ? w->k - k0 : PART;
        if (part < PART)
            memset(rows, 0, sizeof rows);
        for (size_t j = 0; j < count; j++) {
            double more[3];
            w->kernels->round16(part, src + j * ld + k0, rows + j * PART, more);
            for (int i = 0; i < 3; i++)
                sum[j][i] += more[i];
        }
        for (size_t i0 = 0; i0 < part; i0 += 2 * GROUP) {
            const size_t pairs = (part - i0 + 1) / 2 < GROUP ? (part - i0 + 1) / 2 : GROUP;
            uint16_t *at = to + (k0 + i0) * PANEL16;
            w->kernels->transpose16((const float *)(const void *)(rows + i0), PART / 2, turned, GROUP);
            for (size_t i = 0; i < pairs; i++)
                memcpy(at + i * 2 * PANEL16, turned + i * GROUP, count * sizeof *turned);
        }
    }
    for (size_t j = 0; j < count; j++) {
        norms(w)[n0 + j] = root_above(sum[j][0]);
        norms(w)[panels_of(w->n) * PANEL16 + n0 + j] = root_above(sum[j][2]);
    }
}

void sonde_pack16(const sonde_packed16 *w, size_t n0, size_t n, const float *src, size_t ld)
{
    assert(n0 % GROUP == 0 && n0 <= w->n && n <= w->n - n0);
    for (size_t j = 0; j < n; j += GROUP)
        pack_group(w, n0 + j, n - j < GROUP ? n - j : GROUP, src + j * ld, ld);
}

void sonde_round16(const sonde_kernels *k, size_t d, const float *x, uint16_t *y, sonde_bound16 *bound)
{
    double sum[3];
    k->round16(d, x, y, sum);
    const double du = (double)d * 0x1p-24, keep = (1 + 0x1p-8) * (1 + 0x1p-8);
    const double c = du / (1 - du) * (1 + keep) + 8 * 0x1p-24, size = sqrt(sum[0]);
    *bound = (sonde_bound16){0};
    if (sum[0] == 0)
        return;
    bound->size = d < MAX_WIDTH ? root_above(sum[0]) : INFINITY;
    bound->lost = (float)((sqrt(sum[2]) + c * size) * (1 + 0x1p-19)) + 0x1p-148f;
    bound->kept = root_above(sum[1]) * (1 + 0x1p-20f);
    bound->tiny = (float)d * 0x1p-124f;
}

float sonde_packed16_top(const sonde_packed16 *w)
{
    const float *norm = norms(w);
    float top = 0;
    for (size_t j = 0; j < w->n; j++) {
        if (norm[j] > top)
            top = norm[j];
        if (isnan(norm[j]))
            return norm[j];
    }
    return top;
}

bool sonde_bound16_holds(const sonde_bound16 *bound, float top)
{
    return bound->size < 0x1p100f && top < 0x1p100f && (double)bound->size * (double)top < 0x1p100;
}

/* One panel's columns for one row in plain C: the products are exact, so contraction would change nothing. */
static void plain_panel(const uint16_t *w, size_t k, const uint16_t *x, float acc[PANEL16])
{
    memset(acc, 0, PANEL16 * sizeof *acc);
    for (size_t i = 0; i < k; i++) {
        const float a = sonde_bf16_to_f32(x[i]);
        const uint16_t *row = w + i / 2 * 2 * PANEL16 + i % 2;
        for (size_t j = 0; j < PANEL16; j++)
            acc[j] += a * sonde_bf16_to_f32(row[2 * j]);
    }
}

void sonde_matmul16(const sonde_packed16 *w, size_t n0, size_t n1, const uint16_t *x, size_t ldx, size_t m,
                    float *y, size_t ldy)
{
    assert(n0 % PANEL16 == 0 && n0 <= n1 && n1 <= w->n);
#if defined(__x86_64__)
    if (sonde_bf16_available(w->kernels)) {
        sonde_matmul16_avx512(w->data, w->k, n0, n1, x, ldx, m, y, ldy);
        return;
    }
#endif
    float acc[PANEL16];
    for (size_t c = n0; c < n1; c += PANEL16)
        for (size_t i = 0; i < m; i++) {
            plain_panel(w->data + c / PANEL16 * panel_words(w->k), w->k, x + i * ldx, acc);
            memcpy(y + i * ldy + (c - n0), acc, (n1 - c < PANEL16 ? n1 - c : PANEL16) * sizeof *acc);
        }
}

size_t sonde_scan16(const sonde_packed16 *w, const sonde_bound16 *bound, const float *p, size_t n0, size_t n,
                    const float *bias, float limit, const float *limits, uint32_t *col, float *low,
                    float *high)
{
    assert(n0 <= w->n && n <= w->n - n0);
    return w->kernels->scan16(bound, p, sonde_packed16_norm(w) + n0, sonde_packed16_lost(w) + n0,
                              bias ? bias + n0 : NULL, limit, limits ? limits + n0 : NULL, n, (uint32_t)n0,
                              col, low, high);
}

bool sonde_chains_are_products(const sonde_kernels *k)
{
    return k != &sonde_kernels_openblas;
}

void sonde_chains(const sonde_kernels *k, size_t n_rows, const size_t *start, const uint32_t *index,
                  const float *w, size_t ldw, size_t d, const float *x, size_t ldx, float *out)
{
    k->chains(n_rows, start, index, w, ldw, d, x, ldx, out);
}
