/* SPDX-License-Identifier: MIT
 * Kernels over sparse rows: scans, sums and dot products of gathered rows, and Adam. */
#ifndef SONDE_NUM_SPARSE_IMPL_H
#define SONDE_NUM_SPARSE_IMPL_H

#include "../base/half.h"
#include "elementary_impl.h"
#include "kernels_impl.h"

/* Vectors of an output row that stay in registers while the rows of a list are added. */
#if TILE_ROWS == 14
#define GATHER_VECS 16
#define GATHER_FEW  4
#else
#define GATHER_VECS 6
#define GATHER_FEW  2
#endif
#define GATHER_AHEAD 4 /* entries of the list by which rows are fetched ahead */

/* Append the lanes of m to (col, value); whole vectors fit. */
static inline size_t append_packed(vm m, vf v, uint32_t col0, uint32_t *col, float *value)
{
    const uint32_t hit = vm_bits(m);
    if (!PACKS_ALWAYS && !hit)
        return 0;
    vi_store_packed(col, m, vi_add(vi_iota(), vi_set(col0)));
    vf_store_packed(value, m, v);
    return (size_t)__builtin_popcount(hit);
}

/* The last n < 16 of a scan. */
static inline size_t append_rest(uint32_t hit, const float *v, uint32_t col0, uint32_t *col, float *value)
{
    size_t kept = 0;
    for (; hit; hit &= hit - 1) {
        const uint32_t j = (uint32_t)__builtin_ctz(hit);
        col[kept] = col0 + j;
        value[kept++] = v[j];
    }
    return kept;
}

static size_t scan_above(const float *v, size_t n, float bound, uint32_t col0, uint32_t *col, float *value)
{
    const vf b = vf_set(bound);
    size_t kept = 0, i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        vf u[4];
        vm m[4];
        for (size_t j = 0; j < 4; j++) {
            u[j] = vf_load(v + i + j * LANES);
            m[j] = vf_lt(b, u[j]);
        }
        if (!(vm_bits(m[0]) | vm_bits(m[1]) | vm_bits(m[2]) | vm_bits(m[3])))
            continue;
        for (size_t j = 0; j < 4; j++)
            kept += append_packed(m[j], u[j], col0 + (uint32_t)(i + j * LANES), col + kept, value + kept);
    }
    for (; i + LANES <= n; i += LANES) {
        const vf u = vf_load(v + i);
        kept += append_packed(vf_lt(b, u), u, col0 + (uint32_t)i, col + kept, value + kept);
    }
    if (i < n) {
        const uint32_t hit = vm_bits(vf_lt(b, vf_load_n(v + i, n - i))) & ((1u << (n - i)) - 1u);
        kept += append_rest(hit, v + i, col0 + (uint32_t)i, col + kept, value + kept);
    }
    return kept;
}

static size_t scan_above_each(const float *v, size_t n, const float *bound, uint32_t col0, uint32_t *col,
                              float *value)
{
    size_t kept = 0, i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vf u = vf_load(v + i);
        const vm m = vf_lt(vf_load(bound + i), u);
        kept += append_packed(m, u, col0 + (uint32_t)i, col + kept, value + kept);
    }
    if (i < n) {
        const vm m = vf_lt(vf_load_n(bound + i, n - i), vf_load_n(v + i, n - i));
        const uint32_t hit = vm_bits(m) & ((1u << (n - i)) - 1u);
        kept += append_rest(hit, v + i, col0 + (uint32_t)i, col + kept, value + kept);
    }
    return kept;
}

static size_t count_above(const float *v, size_t n, float bound)
{
    const vf b = vf_set(bound);
    size_t count = 0, i = 0;
    for (; i + LANES <= n; i += LANES)
        count += (size_t)__builtin_popcount(vm_bits(vf_lt(b, vf_load(v + i))));
    if (i < n)
        count +=
            (size_t)__builtin_popcount(vm_bits(vf_lt(b, vf_load_n(v + i, n - i))) & ((1u << (n - i)) - 1u));
    return count;
}

/* Integers in the order of floats; 0 and -0 are neighbours. */
static inline int32_t order_of(float v)
{
    const int32_t i = (int32_t)sonde_f32_bits(v);
    return i < 0 ? i ^ INT32_MAX : i;
}

static inline float of_order(int32_t i)
{
    return sonde_bits_f32((uint32_t)(i < 0 ? i ^ INT32_MAX : i));
}

static inline void smallest_and_largest(const float *v, size_t n, float *smallest, float *largest)
{
    vf low = vf_set(v[0]), high = low;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        low = vf_min(vf_load(v + i), low);
        high = vf_max(vf_load(v + i), high);
    }
    *smallest = -vf_top(el_neg(low));
    *largest = vf_top(high);
    for (; i < n; i++) {
        *smallest = v[i] < *smallest ? v[i] : *smallest;
        *largest = v[i] > *largest ? v[i] : *largest;
    }
}

/* Move what is above the bound to the front; returns how many. */
static size_t pack_above(size_t n, float bound, uint32_t *col, float *value)
{
    const vf b = vf_set(bound);
    size_t kept = 0, i = 0;
    for (; i + LANES <= n; i += LANES) { /* what is written was read */
        const vf u = vf_load(value + i);
        const vm m = vf_lt(b, u);
        const uint32_t hit = vm_bits(m);
        if (!PACKS_ALWAYS && !hit)
            continue;
        vi_store_packed(col + kept, m, vi_load(col + i));
        vf_store_packed(value + kept, m, u);
        kept += (size_t)__builtin_popcount(hit);
    }
    for (; i < n; i++) {
        const float v = value[i];
        col[kept] = col[i];
        value[kept] = v;
        kept += v > bound;
    }
    return kept;
}

/* The same with the first `ties` of those that equal the bound. */
static void pack_with_ties(size_t n, float bound, size_t ties, uint32_t *col, float *value)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        const float v = value[i];
        const size_t tie = v == bound && ties > 0;
        col[kept] = col[i];
        value[kept] = v;
        ties -= tie;
        kept += v > bound || tie;
    }
}

/* A bound with k values above, or the k-th largest itself, with fewer: by bisection between the smallest and
 * the largest. Returns how many are above. */
static size_t bound_of_largest(size_t n, size_t k, const float *value, float *bound)
{
    float smallest, largest;
    smallest_and_largest(value, n, &smallest, &largest);
    int32_t low = order_of(smallest), high = order_of(largest);
    while (low < high) {
        const int32_t middle = (int32_t)(((int64_t)low + (int64_t)high) >> 1);
        const size_t above = count_above(value, n, of_order(middle));
        if (above == k) {
            *bound = of_order(middle);
            return k;
        }
        if (above > k)
            low = middle + 1;
        else
            high = middle;
    }
    *bound = of_order(low);
    return count_above(value, n, *bound);
}

static float kth_largest(size_t n, size_t k, const float *value)
{
    float bound, least = __builtin_inff();
    if (bound_of_largest(n, k, value, &bound) < k)
        return bound;
    for (size_t i = 0; i < n; i++)
        least = value[i] > bound && value[i] < least ? value[i] : least;
    return least;
}

static float keep_largest(size_t n, size_t k, uint32_t *col, float *value)
{
    float bound, smallest, largest;
    const size_t above = bound_of_largest(n, k, value, &bound);
    if (above < k) {
        pack_with_ties(n, bound, k - above, col, value);
        return bound;
    }
    pack_above(n, bound, col, value);
    smallest_and_largest(value, k, &smallest, &largest);
    return smallest;
}

/* A list of rows to add, and where. */
struct gather {
    size_t n;
    const uint32_t *index;
    const float *value, *w;
    size_t ldw;
    const float *from, *bias;
    float *y;
};

/* Fetch line i of what comes GATHER_AHEAD entries after entry j: a later row, or the next block of an early
 * one. */
static inline uintptr_t gather_ahead(const struct gather *g, size_t j, size_t column, size_t width)
{
    const size_t next = j + GATHER_AHEAD;
    const size_t row = next < g->n ? next : next - g->n < g->n ? next - g->n : 0;
    return (uintptr_t)(g->w + (size_t)g->index[row] * g->ldw) +
           (next < g->n ? column : column + width) * sizeof(float);
}

/* F(i) for each vector of a block, written out so that the sums find registers. */
#define EACH_GATHER(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12) F(13) F(14) F(15)
#define SUM_ZERO(i)                                                                                          \
    if (i < nv)                                                                                              \
        acc[i] = vf_set(0.0f);
#define SUM_FROM(i)                                                                                          \
    if (i < nv)                                                                                              \
        acc[i] = vf_load(g->from + at + i * LANES);
#define SUM_ADD(i)                                                                                           \
    if (i < nv)                                                                                              \
        acc[i] = vf_fma(v, vf_load(row + i * LANES), acc[i]);
#define SUM_FETCH(i)                                                                                         \
    if (i < nv)                                                                                              \
        __builtin_prefetch((const void *)(ahead + i * LANES * sizeof(float)));
#define SUM_BIAS(i)                                                                                          \
    if (i < nv)                                                                                              \
        acc[i] = vf_add(acc[i], vf_load(g->bias + at + i * LANES));
#define SUM_STORE(i)                                                                                         \
    if (i < nv)                                                                                              \
        vf_store(g->y + at + i * LANES, acc[i]);

/* Columns at .. at + nv * 16 - 1 of the sum. nv is a constant where this is inlined. */
static inline __attribute__((always_inline)) void gather_block(const struct gather *g, size_t at,
                                                               const int nv)
{
    vf acc[16];
    if (g->from) {
        EACH_GATHER(SUM_FROM)
    } else {
        EACH_GATHER(SUM_ZERO)
    }
    for (size_t j = 0; j < g->n; j++) {
        const float *row = g->w + (size_t)g->index[j] * g->ldw + at;
        const vf v = vf_set(g->value[j]);
        const uintptr_t ahead = gather_ahead(g, j, at, (size_t)nv * LANES);
        EACH_GATHER(SUM_FETCH)
        EACH_GATHER(SUM_ADD)
    }
    if (g->bias) {
        EACH_GATHER(SUM_BIAS)
    }
    EACH_GATHER(SUM_STORE)
}

static void gather_blocks(const struct gather *g, size_t at)
{
    gather_block(g, at, GATHER_VECS);
}

static void gather_few(const struct gather *g, size_t at)
{
    gather_block(g, at, GATHER_FEW);
}

static void gather_vector(const struct gather *g, size_t at)
{
    gather_block(g, at, 1);
}

static void gather_rest(const struct gather *g, size_t at, size_t left)
{
    vf acc = g->from ? vf_load_n(g->from + at, left) : vf_set(0.0f);
    for (size_t j = 0; j < g->n; j++)
        acc = vf_fma(vf_set(g->value[j]), vf_load_n(g->w + (size_t)g->index[j] * g->ldw + at, left), acc);
    if (g->bias)
        acc = vf_add(acc, vf_load_n(g->bias + at, left));
    vf_store_n(g->y + at, acc, left);
}

static void gather_sum(size_t n, const uint32_t *index, const float *value, const float *w, size_t ldw,
                       size_t d, const float *from, const float *bias, float *y)
{
    const struct gather g = {n, index, value, w, ldw, from, bias, y};
    size_t at = 0;
    for (; at + GATHER_VECS * LANES <= d; at += GATHER_VECS * LANES)
        gather_blocks(&g, at);
    for (; at + GATHER_FEW * LANES <= d; at += GATHER_FEW * LANES)
        gather_few(&g, at);
    for (; at + LANES <= d; at += LANES)
        gather_vector(&g, at);
    if (at < d)
        gather_rest(&g, at, d - at);
}

static float dot(size_t n, const float *a, const float *b)
{
    vf acc = vf_set(0.0f);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        acc = vf_fma(vf_load(a + i), vf_load(b + i), acc);
    if (i < n)
        acc = vf_fma(vf_load_n(a + i, n - i), vf_load_n(b + i, n - i), acc);
    return vf_sum(acc);
}

/* Four rows at once, so that their chains overlap. */
static void dot4(const float *const row[4], const float *const ahead[4], size_t d, const float *u, float *out)
{
    vf a = vf_set(0.0f), b = a, c = a, e = a;
    size_t i = 0;
    for (; i + LANES <= d; i += LANES) {
        const vf x = vf_load(u + i);
        for (int r = 0; r < 4; r++)
            __builtin_prefetch(ahead[r] + i);
        a = vf_fma(vf_load(row[0] + i), x, a);
        b = vf_fma(vf_load(row[1] + i), x, b);
        c = vf_fma(vf_load(row[2] + i), x, c);
        e = vf_fma(vf_load(row[3] + i), x, e);
    }
    if (i < d) {
        const size_t left = d - i;
        const vf x = vf_load_n(u + i, left);
        a = vf_fma(vf_load_n(row[0] + i, left), x, a);
        b = vf_fma(vf_load_n(row[1] + i, left), x, b);
        c = vf_fma(vf_load_n(row[2] + i, left), x, c);
        e = vf_fma(vf_load_n(row[3] + i, left), x, e);
    }
    out[0] = vf_sum(a);
    out[1] = vf_sum(b);
    out[2] = vf_sum(c);
    out[3] = vf_sum(e);
}

static void gather_dot(size_t n, const uint32_t *index, const float *w, size_t ldw, size_t d, const float *u,
                       float *out)
{
    size_t j = 0;
    for (; j + 4 <= n; j += 4) {
        const float *row[4], *ahead[4];
        for (size_t r = 0; r < 4; r++) {
            row[r] = w + (size_t)index[j + r] * ldw;
            ahead[r] = w + (size_t)index[j + 4 + r < n ? j + 4 + r : n - 1] * ldw;
        }
        dot4(row, ahead, d, u, out + j);
    }
    for (; j < n; j++)
        out[j] = dot(d, w + (size_t)index[j] * ldw, u);
}

static double sum_squares(size_t n, const float *x)
{
    vd acc = vd_zero();
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vd v = vd_from(vf_load(x + i));
        acc = vd_add(acc, vd_mul(v, v));
    }
    if (i < n) {
        const vd v = vd_from(vf_load_n(x + i, n - i));
        acc = vd_add(acc, vd_mul(v, v));
    }
    return vd_sum(acc);
}

static void vec_axpy(size_t n, float a, const float *x, float *y)
{
    const vf s = vf_set(a);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(y + i, vf_fma(s, vf_load(x + i), vf_load(y + i)));
    if (i < n)
        vf_store_n(y + i, vf_fma(s, vf_load_n(x + i, n - i), vf_load_n(y + i, n - i)), n - i);
}

static void vec_scale(size_t n, float a, const float *x, float *y)
{
    const vf s = vf_set(a);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(y + i, vf_mul(s, vf_load(x + i)));
    if (i < n)
        vf_store_n(y + i, vf_mul(s, vf_load_n(x + i, n - i)), n - i);
}

static void vec_sub(size_t n, const float *a, const float *b, float *y)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(y + i, vf_sub(vf_load(a + i), vf_load(b + i)));
    if (i < n)
        vf_store_n(y + i, vf_sub(vf_load_n(a + i, n - i), vf_load_n(b + i, n - i)), n - i);
}

/* The numbers of a step, in lanes. */
struct adam_lanes {
    vf clip, rest1, beta2, rest2, eps, step, root2;
};

static inline void adam_lane(const struct adam_lanes *o, vf g, vf *w, vf *m, vf *v)
{
    g = vf_mul(g, o->clip);
    *m = vf_fma(vf_sub(g, *m), o->rest1, *m);
    *v = vf_fma(vf_mul(g, g), o->rest2, vf_mul(*v, o->beta2));
    *w = vf_fnma(o->step, vf_div(*m, vf_add(vf_div(vf_sqrt(*v), o->root2), o->eps)), *w);
}

static void adam_update(const sonde_adam *o, size_t n, const float *g, float *w, float *m, float *v)
{
    const struct adam_lanes a = {.clip = vf_set(o->clip),
                                 .rest1 = vf_set(o->rest1 != 0.0f ? o->rest1 : 1.0f - o->beta1),
                                 .beta2 = vf_set(o->beta2),
                                 .rest2 = vf_set(o->rest2 != 0.0f ? o->rest2 : 1.0f - o->beta2),
                                 .eps = vf_set(o->eps),
                                 .step = vf_set(o->step),
                                 .root2 = vf_set(o->sqrt_correction2)};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf wi = vf_load(w + i), mi = vf_load(m + i), vi_ = vf_load(v + i);
        adam_lane(&a, vf_load(g + i), &wi, &mi, &vi_);
        vf_store(w + i, wi);
        vf_store(m + i, mi);
        vf_store(v + i, vi_);
    }
    if (i < n) {
        const size_t left = n - i;
        vf wi = vf_load_n(w + i, left), mi = vf_load_n(m + i, left), vi_ = vf_load_n(v + i, left);
        adam_lane(&a, vf_load_n(g + i, left), &wi, &mi, &vi_);
        vf_store_n(w + i, wi, left);
        vf_store_n(m + i, mi, left);
        vf_store_n(v + i, vi_, left);
    }
}

#endif
