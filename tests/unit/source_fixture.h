/* SPDX-License-Identifier: MIT
 * Stores and arrays whose rows tell who they are, and ways to look at what a source gives. Includers have
 * cmocka.h before. */
#ifndef SONDE_TESTS_SOURCE_FIXTURE_H
#define SONDE_TESTS_SOURCE_FIXTURE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/half.h"
#include "base/rng.h"
#include "file/store.h"
#include "sae/source.h"

static char source_dir[64], acts[96];

static inline int make_source_dir(void **state)
{
    (void)state;
    strcpy(source_dir, "/tmp/sonde-source-XXXXXX");
    if (!mkdtemp(source_dir))
        return -1;
    snprintf(acts, sizeof acts, "%s/acts.h5", source_dir);
    return 0;
}

static inline int remove_source_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", source_dir);
    return system(command);
}

static inline void source_must(enum sonde_code code, const sonde_err *err)
{
    if (code)
        fail_msg("code %d: %s", code, err->msg);
}

/* ---- a store by hand --------------------------------------------------------------------------- */

#define WIDTH_IN  6
#define WIDTH_OUT 4
#define CONTEXT   16
#define BOS_ID    1

/* Documents of one context each; the last position of a context is special (id 2). Rows in the order of
 * `stride`: row r holds token r * stride mod n (n and stride have no common divisor). */
struct shape {
    uint64_t n_docs, stride;
    enum sonde_dtype dtype;
    int64_t nan_row; /* -1: none */
    bool no_split, no_tokens, no_special;
    bool heldout_all;
    int64_t edit; /* added to one value: other data */
};

static inline float value_in(uint64_t token, size_t j)
{
    return (float)(token % 97) + (float)j / 8 + (token % 31 == 7 ? 4096 : 0);
}

static inline float value_out(uint64_t token, size_t j)
{
    return -(float)(token % 89) - (float)j / 4;
}

static inline bool is_heldout(uint64_t doc)
{
    return doc % 5 == 3;
}

static inline int32_t id_at(uint64_t token)
{
    uint64_t pos = token % CONTEXT;
    return pos == 0 ? BOS_ID : pos == CONTEXT - 1 ? 2 : (int32_t)(3 + token % 11);
}

static inline void *as_dtype(enum sonde_dtype t, const float *x, size_t n)
{
    char *out = malloc(n * 8 + 1);
    for (size_t i = 0; i < n; i++) {
        if (t == SONDE_F16)
            ((uint16_t *)(void *)out)[i] = sonde_f32_to_f16(x[i]);
        else if (t == SONDE_BF16)
            ((uint16_t *)(void *)out)[i] = sonde_f32_to_bf16(x[i]);
        else if (t == SONDE_F64)
            ((double *)(void *)out)[i] = (double)x[i];
        else
            ((float *)(void *)out)[i] = x[i];
    }
    return out;
}

/* What a value becomes when it is stored. */
static inline float stored(enum sonde_dtype t, float x)
{
    return t == SONDE_F16    ? sonde_f16_to_f32(sonde_f32_to_f16(x))
           : t == SONDE_BF16 ? sonde_bf16_to_f32(sonde_f32_to_bf16(x))
                             : x;
}

static inline void write_all(sonde_store_writer *w, size_t dataset, uint64_t n, void *data)
{
    sonde_err err = {0};
    source_must(sonde_store_write(w, dataset, 0, n, data, &err), &err);
    free(data);
}

static inline void make_store_at(const char *path, const struct shape *h)
{
    uint64_t n = h->n_docs * CONTEXT, stride = h->stride ? h->stride : 1;
    sonde_store_dataset d[] = {
        {"/acts/blocks.0.hook_resid_post", h->dtype, 2, {n, WIDTH_IN}},
        {"/acts/blocks.0.attn.hook_z", h->dtype, 3, {n, 2, WIDTH_OUT / 2}},
        {"/acts/blocks.1.hook_resid_post", h->dtype, 2, {n, WIDTH_IN}},
        {"/docs/split", SONDE_U8, 1, {h->n_docs}},
        {"/rows/token", SONDE_I64, 1, {n}},
        {"/tokens/id", SONDE_I32, 1, {n}},
        {"/tokens/pos", SONDE_I32, 1, {n}},
        {"/tokens/doc", SONDE_I32, 1, {n}},
    };
    const sonde_store_attr attr[] = {
        {.path = "/", .name = "model", .s = "models/tiny/"},
        {.path = "/", .name = "context_len", .i = CONTEXT},
        {.path = "/", .name = "seed", .i = 5},
        {.path = "/", .name = "bos_id", .i = BOS_ID},
        {.path = "/", .name = "special_ids", .s = "0-1,2-2"},
    };
    sonde_store_layout l = {d, h->no_tokens ? 3 : 8, attr, h->no_special ? 3 : 5};
    sonde_store_writer *w = NULL;
    sonde_err err = {0};
    source_must(sonde_store_create(path, &l, true, &w, &err), &err);
    float *in = malloc(n * WIDTH_IN * sizeof *in + 1), *out = malloc(n * WIDTH_OUT * sizeof *out + 1);
    int64_t *token = malloc(n * sizeof *token + 1);
    int32_t *column[3];
    uint8_t *split = calloc(h->n_docs + 1, 1);
    for (int k = 0; k < 3; k++)
        column[k] = malloc(n * sizeof **column + 1);
    for (uint64_t r = 0; r < n; r++) {
        token[r] = (int64_t)(r * stride % n);
        for (size_t j = 0; j < WIDTH_IN; j++)
            in[r * WIDTH_IN + j] = value_in((uint64_t)token[r], j);
        for (size_t j = 0; j < WIDTH_OUT; j++)
            out[r * WIDTH_OUT + j] = value_out((uint64_t)token[r], j);
        column[0][r] = id_at(r);
        column[1][r] = (int32_t)(r % CONTEXT);
        column[2][r] = (int32_t)(r / CONTEXT);
    }
    for (uint64_t i = 0; i < h->n_docs && !h->no_split; i++)
        split[i] = h->heldout_all || is_heldout(i);
    if (h->nan_row >= 0)
        in[h->nan_row * WIDTH_IN + 3] = NAN;
    if (n)
        out[0] += (float)h->edit;
    write_all(w, 0, n, as_dtype(h->dtype, in, n * WIDTH_IN));
    write_all(w, 1, n, as_dtype(h->dtype, out, n * WIDTH_OUT));
    write_all(w, 2, n, as_dtype(h->dtype, in, n * WIDTH_IN));
    free(in);
    free(out);
    if (!h->no_tokens) {
        write_all(w, 3, h->n_docs, split);
        write_all(w, 4, n, token);
        for (size_t k = 0; k < 3; k++)
            write_all(w, 5 + k, n, column[k]);
    } else {
        free(split);
        free(token);
        for (int k = 0; k < 3; k++)
            free(column[k]);
    }
    source_must(sonde_store_finish(w, NULL, 0, &err), &err);
}

static inline void make_store(const struct shape *h)
{
    make_store_at(acts, h);
}

static const struct shape plain = {.n_docs = 125, .stride = 7, .nan_row = -1}; /* 2000 rows */

static inline sonde_source *open_source(const char *path, const sonde_source_options *o)
{
    sonde_err err = {0};
    sonde_source *s = NULL;
    source_must(sonde_source_open(path, o, NULL, &s, &err), &err);
    return s;
}

/* The code and words that a path is refused with. */
static inline void is_refused(const char *path, const sonde_source_options *o, enum sonde_code code,
                              const char *words)
{
    sonde_err err = {0};
    sonde_source *s = NULL;
    enum sonde_code got = sonde_source_open(path, o, NULL, &s, &err);
    if (got != code || !strstr(err.msg, words))
        fail_msg("code %d, '%s' instead of code %d with '%s'", got, err.msg, code, words);
}

/* ---- what it gives ----------------------------------------------------------------------------- */

/* n rows of the stream as bytes to compare: x, then y, then tokens. Malloc'd. */
struct piece {
    size_t n, d_in, d_out;
    float *x, *y;
    uint64_t *token;
};

static inline struct piece take_with(sonde_source *s, size_t n, const sonde_work *work)
{
    sonde_err err = {0};
    const sonde_source_info *info = sonde_source_about(s);
    struct piece p = {.n = n, .d_in = info->d_in, .d_out = info->d_out};
    p.x = malloc(n * p.d_in * sizeof *p.x);
    p.y = info->hook_out ? malloc(n * p.d_out * sizeof *p.y) : NULL;
    p.token = malloc(n * sizeof *p.token);
    source_must(sonde_source_next(s, n, p.x, p.y, p.token, work, &err), &err);
    return p;
}

static inline struct piece take(sonde_source *s, size_t n)
{
    return take_with(s, n, NULL);
}

static inline void drop_piece(struct piece *p)
{
    free(p->x);
    free(p->y);
    free(p->token);
}

static inline void is_same_piece(const struct piece *a, const struct piece *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->token, b->token, a->n * sizeof *a->token);
    assert_memory_equal(a->x, b->x, a->n * a->d_in * sizeof *a->x);
    if (a->y)
        assert_memory_equal(a->y, b->y, a->n * a->d_out * sizeof *a->y);
}

#endif
