/* SPDX-License-Identifier: MIT
 * Kernels over rows: norms, softmax, top-k. Sums run in 16 lanes (element i in lane i mod 16; lanes beyond
 * the end hold +0, which changes no sum that began with +0) and are added pairwise at the end. */
#ifndef SONDE_NUM_ROWS_IMPL_H
#define SONDE_NUM_ROWS_IMPL_H

#include <math.h>

#include "elementary_impl.h"

static float row_mean(const float *x, size_t d)
{
    vf acc = vf_set(0.0f);
    size_t i = 0;
    for (; i + LANES <= d; i += LANES)
        acc = vf_add(acc, vf_load(x + i));
    if (i < d)
        acc = vf_add(acc, vf_load_n(x + i, d - i));
    return vf_sum(acc) / (float)d;
}

static float row_scale(const float *x, size_t d, float mean, float eps)
{
    const vf m = vf_set(mean);
    vf acc = vf_set(0.0f);
    size_t i = 0;
    for (; i + LANES <= d; i += LANES) {
        const vf c = vf_sub(vf_load(x + i), m);
        acc = vf_fma(c, c, acc);
    }
    if (i < d) {
        const vf c = vf_select(vm_first(d - i), vf_sub(vf_load_n(x + i, d - i), m), vf_set(0.0f));
        acc = vf_fma(c, c, acc);
    }
    return sqrtf(vf_sum(acc) / (float)d + eps);
}

static inline float row_mean_of(enum sonde_norm kind, const float *x, size_t d)
{
    return kind == SONDE_NORM_LAYER && d ? row_mean(x, d) : 0.0f;
}

static void norm_stats(enum sonde_norm kind, const float *x, size_t ldx, size_t n_rows, size_t d, float eps,
                       float *mean, float *scale)
{
    for (size_t r = 0; r < n_rows; r++) {
        mean[r] = row_mean_of(kind, x + r * ldx, d);
        scale[r] = kind == SONDE_NORM_NONE ? 1.0f : row_scale(x + r * ldx, d, mean[r], eps);
    }
}

static void norm_apply(const float *x, size_t ldx, size_t n_rows, size_t d, const float *mean,
                       const float *scale, float *normalized, size_t ldn)
{
    for (size_t r = 0; r < n_rows; r++, x += ldx, normalized += ldn) {
        const vf m = vf_set(mean[r]), s = vf_set(scale[r]);
        size_t i = 0;
        for (; i + LANES <= d; i += LANES)
            vf_store(normalized + i, vf_div(vf_sub(vf_load(x + i), m), s));
        if (i < d)
            vf_store_n(normalized + i, vf_div(vf_sub(vf_load_n(x + i, d - i), m), s), d - i);
    }
}

static inline vf affine(vf v, const float *gamma, const float *beta, size_t i, size_t n)
{
    if (gamma)
        v = vf_mul(v, n == LANES ? vf_load(gamma + i) : vf_load_n(gamma + i, n));
    if (beta)
        v = vf_add(v, n == LANES ? vf_load(beta + i) : vf_load_n(beta + i, n));
    return v;
}

static void norm_affine(const float *normalized, size_t ldn, size_t n_rows, size_t d, const float *gamma,
                        const float *beta, float *y, size_t ldy)
{
    for (size_t r = 0; r < n_rows; r++, normalized += ldn, y += ldy) {
        size_t i = 0;
        for (; i + LANES <= d; i += LANES)
            vf_store(y + i, affine(vf_load(normalized + i), gamma, beta, i, LANES));
        if (i < d)
            vf_store_n(y + i, affine(vf_load_n(normalized + i, d - i), gamma, beta, i, d - i), d - i);
    }
}

static void norm_rows(enum sonde_norm kind, const float *x, size_t ldx, size_t n_rows, size_t d, float eps,
                      const float *gamma, const float *beta, float *y, size_t ldy)
{
    for (size_t r = 0; r < n_rows; r++, x += ldx, y += ldy) {
        const float mean = row_mean_of(kind, x, d);
        const float scale = kind == SONDE_NORM_NONE ? 1.0f : row_scale(x, d, mean, eps);
        const vf m = vf_set(mean), s = vf_set(scale);
        size_t i = 0;
        for (; i + LANES <= d; i += LANES)
            vf_store(y + i, affine(vf_div(vf_sub(vf_load(x + i), m), s), gamma, beta, i, LANES));
        if (i < d) {
            const vf v = vf_div(vf_sub(vf_load_n(x + i, d - i), m), s);
            vf_store_n(y + i, affine(v, gamma, beta, i, d - i), d - i);
        }
    }
}

static float row_max(const float *x, size_t n) /* NaN counts as -inf */
{
    vf top = vf_set(-__builtin_inff());
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        top = vf_max(vf_load(x + i), top);
    if (i < n)
        top = vf_max(vf_select(vm_first(n - i), vf_load_n(x + i, n - i), top), top);
    return vf_top(top);
}

static void fill(float *p, size_t n, float value)
{
    for (size_t i = 0; i < n; i++)
        p[i] = value;
}

static int has_nan(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(x[i] == x[i]))
            return 1;
    return 0;
}

/* p[j] = exp(s[j] - max) for lo <= j < hi; returns their sum, lane j mod 16. */
static float exp_row(const float *s, size_t lo, size_t hi, float max, float *p)
{
    const vf m = vf_set(max);
    vf acc = vf_set(0.0f);
    size_t j = lo;
    if (lo % LANES) { /* up to the next multiple of 16, in the lanes where they belong */
        const size_t skip = lo % LANES, n = hi - lo < LANES - skip ? hi - lo : LANES - skip;
        float t[LANES] = {0};
        const vf e = el_exp(vf_sub(vf_load_n(s + lo, n), m));
        vf_store_n(p + lo, e, n);
        vf_store_n(t + skip, e, n);
        acc = vf_load(t);
        j += n;
    }
    for (; j + LANES <= hi; j += LANES) {
        const vf e = el_exp(vf_sub(vf_load(s + j), m));
        vf_store(p + j, e);
        acc = vf_add(acc, e);
    }
    if (j < hi) {
        const vf e = el_exp(vf_sub(vf_load_n(s + j, hi - j), m));
        vf_store_n(p + j, e, hi - j);
        acc = vf_add(acc, vf_select(vm_first(hi - j), e, vf_set(0.0f)));
    }
    return vf_sum(acc);
}

static void softmax_row(const float *s, size_t n, size_t lo, size_t hi, float *p)
{
    const float max = lo < hi ? row_max(s + lo, hi - lo) : -__builtin_inff();
    if (lo >= hi) {
        fill(p, n, 0.0f);
        return;
    }
    if (max == -__builtin_inff())
        fill(p + lo, hi - lo, has_nan(s + lo, hi - lo) ? __builtin_nanf("") : 0.0f);
    else {
        const vf sum = vf_set(exp_row(s, lo, hi, max, p));
        size_t j = lo;
        for (; j + LANES <= hi; j += LANES)
            vf_store(p + j, vf_div(vf_load(p + j), sum));
        if (j < hi)
            vf_store_n(p + j, vf_div(vf_load_n(p + j, hi - j), sum), hi - j);
    }
    fill(p, lo, 0.0f);
    fill(p + hi, n - hi, 0.0f);
}

static double exp_sum(const float *x, size_t n, float *max)
{
    const float top = row_max(x, n);
    const vf m = vf_set(top);
    vd acc = vd_zero();
    size_t i = 0;
    *max = top;
    if (top == -__builtin_inff())
        return has_nan(x, n) ? (double)__builtin_nanf("") : 0.0;
    for (; i + LANES <= n; i += LANES)
        acc = vd_add(acc, vd_from(el_exp(vf_sub(vf_load(x + i), m))));
    if (i < n) {
        const vf e = el_exp(vf_sub(vf_load_n(x + i, n - i), m));
        acc = vd_add(acc, vd_from(vf_select(vm_first(n - i), e, vf_set(0.0f))));
    }
    return vd_sum(acc);
}

/* Is entry (va, ia) behind (vb, ib) in the order: value descending, index ascending? */
static inline int behind(float va, int32_t ia, float vb, int32_t ib)
{
    return va < vb || (va == vb && ia > ib);
}

/* Put (v, at) into the heap's hole at `hole`, whose root is the hindmost of k entries. */
static void sift_down(float *value, int32_t *index, size_t k, size_t hole, float v, int32_t at)
{
    for (;;) {
        size_t c = 2 * hole + 1;
        if (c >= k)
            break;
        if (c + 1 < k && behind(value[c + 1], index[c + 1], value[c], index[c]))
            c++;
        if (!behind(value[c], index[c], v, at))
            break;
        value[hole] = value[c];
        index[hole] = index[c];
        hole = c;
    }
    value[hole] = v;
    index[hole] = at;
}

static void row_topk(const float *x, size_t n, size_t k, int32_t *index, float *value)
{
    const float lowest = -__builtin_inff();
    if (k == 0)
        return;
    for (size_t i = 0; i < k; i++) {
        value[i] = x[i] == x[i] ? x[i] : lowest;
        index[i] = (int32_t)i;
    }
    for (size_t i = k / 2; i-- > 0;)
        sift_down(value, index, k, i, value[i], index[i]);
    for (size_t i = k; i < n; i += LANES) { /* later indices enter only with a larger value */
        const size_t left = n - i < LANES ? n - i : LANES;
        const vf v = left == LANES ? vf_load(x + i) : vf_load_n(x + i, left);
        uint32_t hit = vm_bits(vf_lt(vf_set(value[0]), v)) & ((1u << left) - 1u);
        for (; hit; hit &= hit - 1) {
            const size_t j = i + (size_t)__builtin_ctz(hit);
            if (x[j] > value[0])
                sift_down(value, index, k, 0, x[j], (int32_t)j);
        }
    }
    for (size_t i = k; i-- > 1;) { /* the hindmost goes to the end */
        const float v = value[i];
        const int32_t at = index[i];
        value[i] = value[0];
        index[i] = index[0];
        sift_down(value, index, i, 0, v, at);
    }
}

#endif
