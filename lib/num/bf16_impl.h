/* SPDX-License-Identifier: MIT
 * What surrounds the bfloat16 product, over lanes: rounding with norms, the scan for what may pass, and
 * float32 chains of chosen columns. */
#ifndef SONDE_NUM_BF16_IMPL_H
#define SONDE_NUM_BF16_IMPL_H

#include <math.h>
#include <string.h>

#include "elementary_impl.h"
#include "kernels_impl.h"

struct squares16 {
    vd all, kept, lost;
};

/* x in bfloat16: bits 16 .. 31. */
static inline vi keep16(vf x, struct squares16 *s)
{
    const vi b = vf_bits(x), high = vi_shr(b, 16);
    const vi even = vi_and(vi_add(vi_add(b, vi_set(0x7fffu)), vi_and(high, vi_set(1))), vi_set(0xffff0000u));
    const vi rounded = vi_select(vf_isnan(x), vi_or(vi_and(b, vi_set(0xffff0000u)), vi_set(0x400000u)), even);
    const vm normal = vi_gt(vi_and(rounded, vi_set(0x7fffffffu)), vi_set(0x007fffffu));
    const vi kept = vi_select(normal, rounded, vi_set(0));
    const vd x2 = vd_from(x), k2 = vd_from(vi_float(kept)), l2 = vd_from(vf_sub(x, vi_float(kept)));
    s->all = vd_add(s->all, vd_mul(x2, x2));
    s->kept = vd_add(s->kept, vd_mul(k2, k2));
    s->lost = vd_add(s->lost, vd_mul(l2, l2));
    return kept;
}

/* y = x in bfloat16; sum: of squares of x, of y, of x - y. */
static void round16(size_t n, const float *x, uint16_t *y, double sum[3])
{
    struct squares16 s = {vd_zero(), vd_zero(), vd_zero()};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vi kept = keep16(vf_load(x + i), &s);
        vi_store_u16(y + i, vi_shr(kept, 16));
    }
    if (i < n) {
        uint16_t t[LANES];
        const vi kept = keep16(vf_load_n(x + i, n - i), &s);
        vi_store_u16(t, vi_shr(kept, 16));
        for (size_t j = 0; i + j < n; j++)
            y[i + j] = t[j];
    }
    sum[0] = vd_sum(s.all);
    sum[1] = vd_sum(s.kept);
    sum[2] = vd_sum(s.lost);
}

struct scan16 {
    vf lost, kept, minus_lost, minus_kept, tiny;
};

static inline vf scan16_high(const struct scan16 *s, vf p, vf norm, vf lost, vf bias)
{
    return vf_add(vf_fma(s->lost, norm, vf_fma(s->kept, lost, vf_add(p, s->tiny))), bias);
}

static inline vf scan16_low(const struct scan16 *s, vf p, vf norm, vf lost, vf bias)
{
    const vf l = vf_add(vf_fma(s->minus_lost, norm, vf_fma(s->minus_kept, lost, vf_sub(p, s->tiny))), bias);
    return vf_select(vf_isnan(l), vf_set(-INFINITY), l);
}

/* The last n < LANES columns. */
static inline size_t scan16_rest(const struct scan16 *s, vf p, vf norm, vf lost, vf bias, vf limit, size_t n,
                                 uint32_t c, uint32_t *col, float *low, float *high)
{
    float h[LANES], l[LANES];
    const vf hv = scan16_high(s, p, norm, lost, bias);
    size_t count = 0;
    vf_store(h, hv);
    vf_store(l, scan16_low(s, p, norm, lost, bias));
    for (uint32_t hit = ~vm_bits(vf_lt(hv, limit)) & ((1u << n) - 1u); hit; hit &= hit - 1) {
        const uint32_t j = (uint32_t)__builtin_ctz(hit);
        col[count] = c + j;
        low[count] = l[j];
        high[count++] = h[j];
    }
    return count;
}

static size_t scan16(const sonde_bound16 *b, const float *p, const float *norm, const float *lost,
                     const float *bias, float limit, const float *limits, size_t n, uint32_t c, uint32_t *col,
                     float *low, float *high)
{
    const struct scan16 s = {vf_set(b->lost), vf_set(b->kept), vf_set(-b->lost), vf_set(-b->kept),
                             vf_set(b->tiny)};
    const vf zero = vf_set(0.0f), one_limit = vf_set(limit);
    size_t count = 0, i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vf add = bias ? vf_load(bias + i) : zero;
        const vf h = scan16_high(&s, vf_load(p + i), vf_load(norm + i), vf_load(lost + i), add);
        const vm below = vf_lt(h, limits ? vf_load(limits + i) : one_limit);
        const uint32_t hit = ~vm_bits(below) & 0xffffu;
        if (!hit)
            continue;
        const vm m = vm_not(below);
        vi_store_packed(col + count, m, vi_add(vi_iota(), vi_set(c + (uint32_t)i)));
        vf_store_packed(low + count, m,
                        scan16_low(&s, vf_load(p + i), vf_load(norm + i), vf_load(lost + i), add));
        vf_store_packed(high + count, m, h);
        count += (size_t)__builtin_popcount(hit);
    }
    if (i < n)
        count += scan16_rest(&s, vf_load_n(p + i, n - i), vf_load_n(norm + i, n - i),
                             vf_load_n(lost + i, n - i), bias ? vf_load_n(bias + i, n - i) : zero,
                             limits ? vf_load_n(limits + i, n - i) : one_limit, n - i, c + (uint32_t)i,
                             col + count, low + count, high + count);
    return count;
}

/* Rows of W are taken CHAIN_ROWS at a time; meanwhile those to come are fetched. */
enum { CHAIN_VECS = 4, CHAIN_ROWS = CHAIN_VECS * LANES };

struct chains {
    const float *row[CHAIN_ROWS], *next[CHAIN_ROWS];
    const float *x;
    size_t d, n_next;
    float out[CHAIN_ROWS];
};

/* Elements i .. i+n-1 (n <= LANES) of LANES chains. */
static inline __attribute__((always_inline)) vf chains_step(const float *const *row, const float *x, size_t i,
                                                            const size_t n, vf acc)
{
    float t[LANES * LANES] __attribute__((aligned(64)));
    if (n == LANES)
        transpose16_rows(row, i, t, LANES);
    else
        for (size_t j = 0; j < LANES; j++)
            for (size_t e = 0; e < n; e++)
                t[e * LANES + j] = row[j][i + e];
    for (size_t e = 0; e < n; e++)
        acc = vf_fma(vf_set(x[i + e]), vf_load(t + e * LANES), acc);
    return acc;
}

static inline __attribute__((always_inline)) void chains_of(struct chains *c, const int nv)
{
    vf acc[CHAIN_VECS];
    size_t i = 0;
    for (int v = 0; v < nv; v++)
        acc[v] = vf_set(0.0f);
    for (; i + LANES <= c->d; i += LANES) {
        for (size_t j = 0; j < c->n_next; j++)
            __builtin_prefetch(c->next[j] + i, 0, 2);
        for (int v = 0; v < nv; v++)
            acc[v] = chains_step(c->row + v * LANES, c->x, i, LANES, acc[v]);
    }
    if (i < c->d)
        for (int v = 0; v < nv; v++)
            acc[v] = chains_step(c->row + v * LANES, c->x, i, c->d - i, acc[v]);
    for (int v = 0; v < nv; v++)
        vf_store(c->out + v * LANES, acc[v]);
}

static void chains(size_t n_rows, const size_t *start, const uint32_t *index, const float *w, size_t ldw,
                   size_t d, const float *x, size_t ldx, float *out)
{
    struct chains c = {.d = d};
    for (size_t r = 0; r < n_rows; r++)
        for (size_t j0 = start[r]; j0 < start[r + 1]; j0 += CHAIN_ROWS) {
            const size_t left = start[r + 1] - j0, count = left < CHAIN_ROWS ? left : CHAIN_ROWS;
            const size_t beyond = start[n_rows] - (j0 + count);
            c.x = x + r * ldx;
            for (size_t j = 0; j < CHAIN_ROWS; j++) /* the first one fills up */
                c.row[j] = w + index[j0 + (j < count ? j : 0)] * ldw;
            c.n_next = beyond < CHAIN_ROWS ? beyond : CHAIN_ROWS;
            for (size_t j = 0; j < c.n_next; j++)
                c.next[j] = w + index[j0 + count + j] * ldw;
            if (count > 3 * LANES)
                chains_of(&c, 4);
            else if (count > 2 * LANES)
                chains_of(&c, 3);
            else if (count > LANES)
                chains_of(&c, 2);
            else
                chains_of(&c, 1);
            memcpy(out + j0, c.out, count * sizeof *out);
        }
}

#endif
