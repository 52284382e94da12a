/* SPDX-License-Identifier: MIT
 * Attention against its float64 twin on odd shapes, and the same bits whichever way it is computed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "ops/attend.h"

struct shape {
    const char *what;
    size_t n_queries, n_keys, first, heads, kv_heads, dh, window;
    float softcap;
    bool causal, masked; /* masked: some keys, the first among them, are not ok */
};

/* 56 queries are a block: one less, one more, and several are here, and widths that fill no lane. */
static const struct shape shapes[] = {
    {"one token", 1, 1, 0, 1, 1, 1, 0, 0, true, false},
    {"one query after many keys", 1, 77, 76, 4, 2, 10, 0, 0, true, false},
    {"less than a block", 55, 55, 0, 3, 1, 7, 0, 0, true, false},
    {"a block", 56, 56, 0, 2, 2, 16, 0, 0, true, false},
    {"more than a block", 57, 57, 0, 6, 3, 12, 0, 0, true, false},
    {"three blocks and a rest", 181, 181, 0, 4, 1, 33, 0, 0, true, false},
    {"a continuation", 60, 101, 41, 4, 2, 10, 0, 0, true, false},
    {"a window shorter than a block", 130, 130, 0, 2, 1, 8, 5, 0, true, false},
    {"a window longer than a block", 130, 130, 0, 2, 1, 8, 70, 0, true, false},
    {"a window of one", 20, 20, 0, 2, 1, 8, 1, 0, true, false},
    {"a window in a continuation", 9, 90, 81, 2, 1, 8, 16, 0, true, false},
    {"a soft cap", 70, 70, 0, 2, 1, 24, 0, 3, true, false},
    {"a soft cap and a window", 70, 70, 0, 2, 1, 24, 7, 2, true, false},
    {"both directions", 61, 61, 0, 2, 2, 9, 0, 0, false, false},
    {"both directions, padding masked", 61, 61, 0, 2, 2, 9, 0, 0, false, true},
    {"causal, padding masked", 61, 61, 0, 2, 2, 9, 0, 0, true, true},
};
#define N_SHAPES (sizeof shapes / sizeof *shapes)

struct problem {
    sonde_attention a;
    float *q, *k, *v, *z;
    uint8_t *ok;
    double *ref_scores, *ref_pattern, *ref_z;
    size_t n_square, n_z;
};

static float *numbers(sonde_rng *r, size_t n)
{
    float *p = malloc((n + 1) * sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)sonde_rng_normal(r);
    return p;
}

/* Rows are further apart than they are long, as in a fused q, k, v. */
static void make(struct problem *p, const struct shape *s)
{
    sonde_rng r = sonde_rng_seed(s->n_keys * 100 + s->dh);
    size_t lq = s->heads * s->dh + 3, lk = s->kv_heads * s->dh + 5;
    *p = (struct problem){.q = numbers(&r, s->n_queries * lq),
                          .k = numbers(&r, s->n_keys * lk),
                          .v = numbers(&r, s->n_keys * lk)};
    p->n_square = s->heads * s->n_queries * s->n_keys;
    p->n_z = s->n_queries * s->heads * s->dh;
    p->z = calloc(p->n_z, sizeof *p->z);
    p->ok = malloc(s->n_keys);
    for (size_t j = 0; j < s->n_keys; j++)
        p->ok[j] = j > 1 && j % 5 != 3;
    p->ref_scores = calloc(p->n_square, sizeof(double));
    p->ref_pattern = calloc(p->n_square, sizeof(double));
    p->ref_z = calloc(p->n_z, sizeof(double));
    p->a = (sonde_attention){.kernels = sonde_kernels_best(),
                             .n_queries = s->n_queries,
                             .n_keys = s->n_keys,
                             .first = s->first,
                             .n_heads = s->heads,
                             .n_kv_heads = s->kv_heads,
                             .d_head = s->dh,
                             .q = p->q,
                             .k = p->k,
                             .v = p->v,
                             .stride_q = lq,
                             .stride_k = lk,
                             .stride_v = lk,
                             .scale = 1 / sqrtf((float)s->dh),
                             .softcap = s->softcap,
                             .causal = s->causal,
                             .window = s->window,
                             .key_ok = s->masked ? p->ok : NULL,
                             .z = p->z,
                             .stride_z = s->heads * s->dh};
    ref_attend(&p->a, p->ref_scores, p->ref_pattern, p->ref_z);
}

static void drop(struct problem *p)
{
    free(p->q), free(p->k), free(p->v), free(p->z), free(p->ok);
    free(p->ref_scores), free(p->ref_pattern), free(p->ref_z);
}

static sonde_attend_space *space_for(const sonde_attention *a, int threads, sonde_arena *arena)
{
    sonde_err err = {0};
    sonde_attend_space *s = NULL;
    if (sonde_attend_space_new(a->kernels, a->n_keys, a->d_head, threads, arena, &s, &err))
        fail_msg("%s", err.msg);
    return s;
}

/* A score is a sum of dh products of normal numbers in float32, within dh * 2^-23 * |q||k| * scale: below
 * 1e-5 here. A weight, a softmax of those, and z, a mean of |v| < 6, follow with the same order of error. */
#define TOLERANCE 2e-5

static void near_all(const char *what, const char *shape, const float *got, const double *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= TOLERANCE) && !(isinf(want[i]) && (double)got[i] == want[i]))
            fail_msg("%s, %s: element %zu is %.9g, should be %.9g", shape, what, i, (double)got[i], want[i]);
}

/* Written anew, not taken from the code: a key is seen if it is not later (causal), nearer than the window,
 * and not masked. */
static void a_query_sees_exactly_the_keys_that_it_may(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        struct problem p;
        make(&p, s);
        for (size_t h = 0; h < s->heads; h++)
            for (size_t q = 0; q < s->n_queries; q++)
                for (size_t j = 0; j < s->n_keys; j++) {
                    long back = (long)(s->first + q) - (long)j;
                    bool seen = (!s->causal || back >= 0) && (!s->window || back < (long)s->window) &&
                                (!s->masked || p.ok[j]);
                    if (seen != isfinite(p.ref_scores[(h * s->n_queries + q) * s->n_keys + j]))
                        fail_msg("%s: query %zu and key %zu", s->what, q, j);
                }
        drop(&p);
    }
}

static void attention_is_its_definition_in_float64(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct problem p;
        make(&p, &shapes[i]);
        sonde_err err = {0};
        sonde_arena *arena = sonde_arena_new(NULL, &err);
        float *scores = malloc(p.n_square * sizeof *scores), *pattern = malloc(p.n_square * sizeof *pattern);
        sonde_attend_space *space = space_for(&p.a, 1, arena);
        sonde_attend(&p.a, space, NULL);
        near_all("z", shapes[i].what, p.z, p.ref_z, p.n_z);
        sonde_attend_scores(&p.a, space, scores);
        near_all("scores", shapes[i].what, scores, p.ref_scores, p.n_square);
        sonde_attend_softmax(&p.a, scores, false, pattern);
        near_all("pattern", shapes[i].what, pattern, p.ref_pattern, p.n_square);
        free(scores);
        free(pattern);
        sonde_arena_free(arena);
        drop(&p);
    }
}

static void a_query_without_any_key_gives_zeros(void **state)
{
    (void)state;
    const struct shape s = {"all masked at first", 5, 5, 0, 2, 1, 4, 0, 0, true, true};
    struct problem p;
    make(&p, &s);
    sonde_err err = {0};
    sonde_arena *arena = sonde_arena_new(NULL, &err);
    sonde_attend(&p.a, space_for(&p.a, 1, arena), NULL);
    for (size_t i = 0; i < 2 * 8; i++) /* keys 0 and 1 are masked */
        assert_true(p.z[i] == 0);
    assert_true(p.z[2 * 8] != 0);
    sonde_arena_free(arena);
    drop(&p);
}

/* z by the three steps apart. */
static void by_steps(struct problem *p, bool whole_rows, float *z)
{
    sonde_err err = {0};
    sonde_arena *arena = sonde_arena_new(NULL, &err);
    sonde_attend_space *space = space_for(&p->a, 1, arena);
    float *scores = malloc(p->n_square * sizeof *scores);
    sonde_attend_scores(&p->a, space, scores);
    sonde_attend_softmax(&p->a, scores, whole_rows, scores);
    sonde_attention a = p->a;
    a.z = z;
    sonde_attend_mix(&a, space, scores, whole_rows);
    free(scores);
    sonde_arena_free(arena);
}

static void looking_at_scores_and_pattern_changes_no_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct problem p;
        make(&p, &shapes[i]);
        sonde_err err = {0};
        sonde_arena *arena = sonde_arena_new(NULL, &err);
        float *z = calloc(p.n_z, sizeof *z);
        sonde_attend(&p.a, space_for(&p.a, 1, arena), NULL);
        by_steps(&p, false, z);
        if (memcmp(z, p.z, p.n_z * sizeof *z))
            fail_msg("%s: other bits in three steps", shapes[i].what);
        by_steps(&p, true, z); /* a masked score is -inf, so that whole rows say the same */
        near_all("z of whole rows", shapes[i].what, z, p.ref_z, p.n_z);
        free(z);
        sonde_arena_free(arena);
        drop(&p);
    }
}

static void threads_kernels_and_the_cut_into_queries_change_no_bit(void **state)
{
    (void)state;
    sonde_err err = {0};
    sonde_pool *pool;
    assert_int_equal(sonde_pool_new(3, &pool, &err), SONDE_OK);
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct problem p;
        make(&p, &shapes[i]);
        sonde_arena *arena = sonde_arena_new(NULL, &err);
        sonde_attend(&p.a, space_for(&p.a, 1, arena), NULL);
        sonde_attention a = p.a;
        a.z = calloc(p.n_z, sizeof *a.z);
        sonde_attend(&a, space_for(&a, 3, arena), pool);
        if (memcmp(a.z, p.z, p.n_z * sizeof *a.z))
            fail_msg("%s: other bits with threads", shapes[i].what);
        for (const char *const *k = sonde_kernels_list(); *k; k++) {
            assert_int_equal(sonde_kernels_find(*k, &a.kernels, &err), SONDE_OK);
            memset(a.z, 0, p.n_z * sizeof *a.z);
            sonde_attend(&a, space_for(&a, 1, arena), NULL);
            if (strcmp(*k, "openblas") && memcmp(a.z, p.z, p.n_z * sizeof *a.z))
                fail_msg("%s: other bits with %s", shapes[i].what, *k);
        }
        a.kernels = p.a.kernels;
        memset(a.z, 0, p.n_z * sizeof *a.z);
        for (size_t q = 0, n; q < p.a.n_queries && p.a.causal;
             q += n) { /* as generation does: fewer keys at first */
            n = q % 3 + 1 < p.a.n_queries - q ? q % 3 + 1 : p.a.n_queries - q;
            sonde_attention part = a;
            part.n_queries = n;
            part.first = a.first + q;
            part.n_keys = part.first + n;
            part.q = a.q + q * a.stride_q;
            part.z = a.z + q * a.stride_z;
            sonde_attend(&part, space_for(&a, 1, arena), NULL);
        }
        if (p.a.causal && memcmp(a.z, p.z, p.n_z * sizeof *a.z))
            fail_msg("%s: other bits a few queries at a time", shapes[i].what);
        free(a.z);
        sonde_arena_free(arena);
        drop(&p);
    }
    sonde_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_query_sees_exactly_the_keys_that_it_may),
        cmocka_unit_test(attention_is_its_definition_in_float64),
        cmocka_unit_test(a_query_without_any_key_gives_zeros),
        cmocka_unit_test(looking_at_scores_and_pattern_changes_no_bit),
        cmocka_unit_test(threads_kernels_and_the_cut_into_queries_change_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
