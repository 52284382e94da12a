/* SPDX-License-Identifier: MIT
 * Attention of one sequence in one layer: scores, softmax, mix. One algorithm, whether or not scores and
 * pattern are looked at. */
#ifndef SONDE_OPS_ATTEND_H
#define SONDE_OPS_ATTEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/arena.h"
#include "../base/pool.h"
#include "../num/cpu.h"

/* Query i stands at position first + i, key j at position j; n_keys = first + n_queries except where the keys
 * of a bidirectional model are all visible anyway. Head h of a row begins at row + h * d_head. */
typedef struct sonde_attention {
    const sonde_kernels *kernels;
    size_t n_queries, n_keys, first;
    size_t n_heads, n_kv_heads, d_head;
    const float *q, *k, *v; /* [n_queries, H dh], [n_keys, Hk dh] twice, with row strides */
    size_t stride_q, stride_k, stride_v;
    float scale, softcap; /* softcap 0: none */
    bool causal;
    size_t window;         /* keys with position > query - window only; 0: all */
    const uint8_t *key_ok; /* [n_keys], 0 masks a key; NULL: none masked */
    float *z;              /* [n_queries, H dh] */
    size_t stride_z;
} sonde_attention;

/* Buffers for one thread. */
typedef struct sonde_attend_space sonde_attend_space;

/* Space for up to max_keys keys and heads of width d_head, for n_threads threads, in the arena. */
enum sonde_code sonde_attend_space_new(const sonde_kernels *k, size_t max_keys, size_t d_head, int n_threads,
                                       sonde_arena *arena, sonde_attend_space **out, sonde_err *err);

/* z = softmax(mask(softcap(scale q k^T))) v, block of queries by block; nothing is stored. */
void sonde_attend(const sonde_attention *a, sonde_attend_space *space, sonde_pool *pool);

/* The three steps apart, over [H, n_queries, n_keys] in memory; together they give the bits of sonde_attend.
 * whole_rows: the softmax takes every key (scores were changed by hand), the mix every weight. */
void sonde_attend_scores(const sonde_attention *a, sonde_attend_space *space, float *scores);
void sonde_attend_softmax(const sonde_attention *a, const float *scores, bool whole_rows, float *pattern);
void sonde_attend_mix(const sonde_attention *a, sonde_attend_space *space, const float *pattern,
                      bool whole_rows);

/* Reference twin: float64 throughout, the same definition. scores and pattern may be NULL. */
void ref_attend(const sonde_attention *a, double *scores, double *pattern, double *z);

#endif
