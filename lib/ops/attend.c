/* SPDX-License-Identifier: MIT */
#include "attend.h"

#include <math.h>
#include <string.h>

#include "../num/activation.h"
#include "../num/matmul.h"
#include "../num/softmax.h"

#define BLOCK 56 /* queries at a time: a multiple of every kernel's row tile */

struct sonde_attend_space {
    size_t floats_k, floats_v, floats_s; /* per thread */
    float *memory;
    int n_threads;
};

struct buffers {
    float *k, *v, *s;
};

static struct buffers buffers_of(const sonde_attend_space *s, int thread)
{
    float *p = s->memory + (size_t)thread * (s->floats_k + s->floats_v + s->floats_s);
    return (struct buffers){p, p + s->floats_k, p + s->floats_k + s->floats_v};
}

static size_t round16(size_t n)
{
    return (n + 15) / 16 * 16;
}

enum sonde_code sonde_attend_space_new(const sonde_kernels *k, size_t max_keys, size_t d_head, int n_threads,
                                       sonde_arena *arena, sonde_attend_space **out, sonde_err *err)
{
    sonde_attend_space *s = sonde_arena_get(arena, 1, sizeof *s, err);
    if (!s)
        return SONDE_E_MEMORY;
    s->floats_k = round16(sonde_packed_floats(k, d_head, max_keys));
    s->floats_v = round16(sonde_packed_floats(k, max_keys, d_head));
    s->floats_s = BLOCK * round16(max_keys);
    s->n_threads = n_threads;
    s->memory = sonde_arena_get(arena, (size_t)n_threads * (s->floats_k + s->floats_v + s->floats_s),
                                sizeof(float), err);
    if (!s->memory)
        return SONDE_E_MEMORY;
    *out = s;
    return SONDE_OK;
}

/* Keys that the query at position pos may see: [lo, hi). */
static void visible(const sonde_attention *a, size_t pos, size_t *lo, size_t *hi)
{
    *hi = a->causal && pos + 1 < a->n_keys ? pos + 1 : a->n_keys;
    *lo = a->window && pos + 1 > a->window ? pos + 1 - a->window : 0;
}

/* Keys that any query of rows [i0, i1) may see end here. */
static size_t end_of_block(const sonde_attention *a, size_t i1)
{
    size_t lo, hi;
    visible(a, a->first + i1 - 1, &lo, &hi);
    return hi;
}

static sonde_packed pack_keys(const sonde_attention *a, size_t kv, float *buf)
{
    sonde_packed p = {.kernels = a->kernels, .k = a->d_head, .n = a->n_keys, .data = buf};
    sonde_pack(&p, 0, a->d_head, 0, a->n_keys, a->k + kv * a->d_head, 1, a->stride_k);
    return p;
}

static sonde_packed pack_values(const sonde_attention *a, size_t kv, float *buf)
{
    sonde_packed p = {.kernels = a->kernels, .k = a->n_keys, .n = a->d_head, .data = buf};
    sonde_pack(&p, 0, a->n_keys, 0, a->d_head, a->v + kv * a->d_head, a->stride_v, 1);
    return p;
}

/* Scores of rows [i0, i1) of a head against keys [0, end): scaled and capped, masked keys -inf. */
static void score_block(const sonde_attention *a, const sonde_packed *keys, size_t head, size_t i0, size_t i1,
                        size_t end, float *s, size_t stride)
{
    const sonde_epilogue scaled = {.scale = a->scale};
    sonde_matmul(keys, 0, 0, end, a->q + i0 * a->stride_q + head * a->d_head, a->stride_q, i1 - i0, s, stride,
                 &scaled);
    for (size_t i = i0; i < i1; i++) {
        float *row = s + (i - i0) * stride;
        if (a->softcap > 0)
            sonde_softcap(a->kernels, a->softcap, end, row, row);
        for (size_t j = 0; a->key_ok && j < end; j++)
            if (!a->key_ok[j])
                row[j] = -INFINITY;
    }
}

static void soften_rows(const sonde_attention *a, size_t i0, size_t i1, size_t end, bool whole,
                        const float *s, float *p, size_t stride)
{
    for (size_t i = i0; i < i1; i++) {
        size_t lo = 0, hi = end;
        if (!whole)
            visible(a, a->first + i, &lo, &hi);
        sonde_softmax_row(a->kernels, s + (i - i0) * stride, end, lo, hi, p + (i - i0) * stride);
    }
}

static void mix_block(const sonde_attention *a, const sonde_packed *values, size_t head, size_t i0, size_t i1,
                      size_t end, const float *p, size_t stride)
{
    sonde_matmul(values, end, 0, a->d_head, p, stride, i1 - i0, a->z + i0 * a->stride_z + head * a->d_head,
                 a->stride_z, NULL);
}

struct job {
    const sonde_attention *a;
    const sonde_attend_space *space;
};

static void attend_kv_head(void *arg, size_t kv, int thread)
{
    const struct job *job = arg;
    const sonde_attention *a = job->a;
    struct buffers b = buffers_of(job->space, thread);
    sonde_packed keys = pack_keys(a, kv, b.k), values = pack_values(a, kv, b.v);
    size_t group = a->n_heads / a->n_kv_heads;
    for (size_t h = kv * group; h < (kv + 1) * group; h++)
        for (size_t i0 = 0; i0 < a->n_queries; i0 += BLOCK) {
            size_t i1 = i0 + BLOCK < a->n_queries ? i0 + BLOCK : a->n_queries, end = end_of_block(a, i1);
            size_t stride = round16(end);
            score_block(a, &keys, h, i0, i1, end, b.s, stride);
            soften_rows(a, i0, i1, end, false, b.s, b.s, stride);
            mix_block(a, &values, h, i0, i1, end, b.s, stride);
        }
}

void sonde_attend(const sonde_attention *a, sonde_attend_space *space, sonde_pool *pool)
{
    struct job job = {a, space};
    sonde_pool_run(space->n_threads > 1 ? pool : NULL, a->n_kv_heads, attend_kv_head, &job);
}

void sonde_attend_scores(const sonde_attention *a, sonde_attend_space *space, float *scores)
{
    struct buffers b = buffers_of(space, 0);
    size_t group = a->n_heads / a->n_kv_heads, nk = a->n_keys;
    for (size_t h = 0; h < a->n_heads; h++) {
        sonde_packed keys = pack_keys(a, h / group, b.k);
        for (size_t i0 = 0; i0 < a->n_queries; i0 += BLOCK) {
            size_t i1 = i0 + BLOCK < a->n_queries ? i0 + BLOCK : a->n_queries, end = end_of_block(a, i1);
            float *s = scores + (h * a->n_queries + i0) * nk;
            score_block(a, &keys, h, i0, i1, end, s, nk);
            for (size_t i = i0; i < i1; i++) {
                size_t lo, hi;
                visible(a, a->first + i, &lo, &hi);
                for (size_t j = 0; j < nk; j++)
                    if (j < lo || j >= hi)
                        s[(i - i0) * nk + j] = -INFINITY;
            }
        }
    }
}

void sonde_attend_softmax(const sonde_attention *a, const float *scores, bool whole_rows, float *pattern)
{
    for (size_t h = 0; h < a->n_heads; h++) {
        size_t at = h * a->n_queries * a->n_keys;
        soften_rows(a, 0, a->n_queries, a->n_keys, whole_rows, scores + at, pattern + at, a->n_keys);
    }
}

void sonde_attend_mix(const sonde_attention *a, sonde_attend_space *space, const float *pattern,
                      bool whole_rows)
{
    struct buffers b = buffers_of(space, 0);
    size_t group = a->n_heads / a->n_kv_heads;
    for (size_t h = 0; h < a->n_heads; h++) {
        sonde_packed values = pack_values(a, h / group, b.v);
        for (size_t i0 = 0; i0 < a->n_queries; i0 += BLOCK) {
            size_t i1 = i0 + BLOCK < a->n_queries ? i0 + BLOCK : a->n_queries;
            size_t end = whole_rows ? a->n_keys : end_of_block(a, i1);
            mix_block(a, &values, h, i0, i1, end, pattern + (h * a->n_queries + i0) * a->n_keys, a->n_keys);
        }
    }
}

static double ref_score(const sonde_attention *a, size_t h, size_t i, size_t j)
{
    size_t lo, hi, kv = h / (a->n_heads / a->n_kv_heads);
    double dot = 0;
    visible(a, a->first + i, &lo, &hi);
    if (j < lo || j >= hi || (a->key_ok && !a->key_ok[j]))
        return -INFINITY;
    for (size_t e = 0; e < a->d_head; e++)
        dot += (double)a->q[i * a->stride_q + h * a->d_head + e] *
               (double)a->k[j * a->stride_k + kv * a->d_head + e];
    dot *= (double)a->scale;
    return a->softcap > 0 ? (double)a->softcap * tanh(dot / (double)a->softcap) : dot;
}

void ref_attend(const sonde_attention *a, double *scores, double *pattern, double *z)
{
    for (size_t h = 0; h < a->n_heads; h++)
        for (size_t i = 0; i < a->n_queries; i++) {
            size_t kv = h / (a->n_heads / a->n_kv_heads), row = (h * a->n_queries + i) * a->n_keys;
            double *out = z + (i * a->n_heads + h) * a->d_head, most = -INFINITY, sum = 0;
            memset(out, 0, a->d_head * sizeof *out);
            for (size_t j = 0; j < a->n_keys; j++)
                most = fmax(most, ref_score(a, h, i, j));
            for (size_t j = 0; j < a->n_keys && most > -INFINITY; j++)
                sum += exp(ref_score(a, h, i, j) - most);
            for (size_t j = 0; j < a->n_keys; j++) {
                double s = ref_score(a, h, i, j), p = sum > 0 ? exp(s - most) / sum : 0;
                if (scores)
                    scores[row + j] = s;
                if (pattern)
                    pattern[row + j] = p;
                for (size_t e = 0; e < a->d_head; e++)
                    out[e] += p * (double)a->v[j * a->stride_v + kv * a->d_head + e];
            }
        }
}
