/* SPDX-License-Identifier: MIT
 * Which rows belong to a document: an index over /tokens/doc and /rows/token, made on the first question. */
#include "store_impl.h"

#include <stdlib.h>
#include <string.h>

#include "../base/size.h"

#define PIECE 65536

/* Call fn for every element of a one-dimensional dataset, in pieces. */
struct each {
    const int32_t *i32;
    const int64_t *i64;
    uint64_t first, n;
};

static enum sonde_code find_column(const sonde_store *s, const char *path, enum sonde_dtype dtype, size_t *at,
                                   uint64_t *n, sonde_err *err)
{
    *at = sonde_store_find(s, path);
    const sonde_store_dataset *d = *at == SIZE_MAX ? NULL : &s->table.dataset[*at].shape;
    if (!d)
        return sonde_fail(err, SONDE_E_INPUT, "%s: has no %s, so its rows belong to no document", s->path,
                          path);
    if (d->dtype != dtype || d->rank != 1)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %s must be %s of rank 1, it is %s of rank %d", s->path,
                          path, sonde_dtype_name(dtype), sonde_dtype_name(d->dtype), d->rank);
    *n = d->dim[0];
    return SONDE_OK;
}

static enum sonde_code each_piece(sonde_store *s, size_t dataset, uint64_t n, size_t elem,
                                  enum sonde_code (*fn)(void *arg, const struct each *e, sonde_err *err),
                                  void *arg, sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    void *piece = malloc(PIECE * elem);
    if (!piece)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to read its rows", s->path);
    for (uint64_t at = 0; at < n && !rc; at += PIECE) {
        struct each e = {.i32 = piece, .i64 = piece, .first = at, .n = n - at < PIECE ? n - at : PIECE};
        rc = sonde_store_read(s, dataset, at, e.n, piece, err);
        if (!rc)
            rc = fn(arg, &e, err);
    }
    free(piece);
    return rc;
}

struct index {
    sonde_store *s;
    uint64_t n_tokens, n_rows, n_docs;
    uint64_t *row;   /* [n_tokens] row + 1 of each token, 0: it has none */
    uint64_t *first; /* [n_docs + 1] */
    uint64_t *sorted;
};

static enum sonde_code invert(void *arg, const struct each *e, sonde_err *err)
{
    struct index *x = arg;
    for (uint64_t k = 0; k < e->n; k++) {
        int64_t token = e->i64[k];
        if (token < 0 || (uint64_t)token >= x->n_tokens || x->row[token])
            return sonde_fail(err, SONDE_E_INPUT, "%s: /rows/token[%llu] is %lld, %s", x->s->path,
                              (unsigned long long)(e->first + k), (long long)token,
                              token >= 0 && (uint64_t)token < x->n_tokens ? "which another row has"
                                                                          : "outside the tokens");
        x->row[token] = e->first + k + 1;
    }
    return SONDE_OK;
}

static enum sonde_code largest(void *arg, const struct each *e, sonde_err *err)
{
    struct index *x = arg;
    for (uint64_t k = 0; k < e->n; k++) {
        if (e->i32[k] >= 0 && (uint64_t)e->i32[k] >= x->n_tokens)
            return sonde_fail(err, SONDE_E_INPUT, "%s: /tokens/doc[%llu] is %d, there are only %llu tokens",
                              x->s->path, (unsigned long long)(e->first + k), (int)e->i32[k],
                              (unsigned long long)x->n_tokens);
        if (e->i32[k] >= 0 && (uint64_t)e->i32[k] >= x->n_docs)
            x->n_docs = (uint64_t)e->i32[k] + 1;
    }
    return SONDE_OK;
}

/* first[doc + 1] counts the rows of doc. */
static enum sonde_code count(void *arg, const struct each *e, sonde_err *err)
{
    struct index *x = arg;
    (void)err;
    for (uint64_t k = 0; k < e->n; k++)
        if (e->i32[k] >= 0 && (uint64_t)e->i32[k] < x->n_docs && x->row[e->first + k])
            x->first[e->i32[k] + 1]++;
    return SONDE_OK;
}

/* first[doc] is where its next row goes. */
static enum sonde_code place(void *arg, const struct each *e, sonde_err *err)
{
    struct index *x = arg;
    for (uint64_t k = 0; k < e->n; k++) {
        int32_t doc = e->i32[k];
        if (doc < 0 || (uint64_t)doc >= x->n_docs || !x->row[e->first + k])
            continue;
        if (x->first[doc] >= x->n_rows)
            return sonde_fail(err, SONDE_E_IO, "%s: /tokens/doc changed while in use", x->s->path);
        x->sorted[x->first[doc]++] = x->row[e->first + k] - 1;
    }
    return SONDE_OK;
}

/* A counting sort of the rows by document; within one they keep the order of the tokens. */
static enum sonde_code sort_rows(struct index *x, size_t docs, sonde_arena *keep, sonde_err *err)
{
    enum sonde_code rc = each_piece(x->s, docs, x->n_tokens, 4, largest, x, err);
    if (rc)
        return rc;
    x->first = sonde_arena_get(keep, (size_t)x->n_docs + 2, sizeof *x->first, err);
    x->sorted = x->first ? sonde_arena_get(keep, (size_t)x->n_rows, sizeof *x->sorted, err) : NULL;
    if (!x->sorted)
        return SONDE_E_MEMORY;
    if ((rc = each_piece(x->s, docs, x->n_tokens, 4, count, x, err)))
        return rc;
    for (uint64_t d = 0; d < x->n_docs; d++)
        x->first[d + 1] += x->first[d];
    if ((rc = each_piece(x->s, docs, x->n_tokens, 4, place, x, err)))
        return rc;
    memmove(x->first + 1, x->first, (size_t)x->n_docs * sizeof *x->first);
    x->first[0] = 0;
    return SONDE_OK;
}

static enum sonde_code build(sonde_store *s, sonde_err *err)
{
    struct index x = {.s = s};
    size_t docs, tokens;
    enum sonde_code rc = find_column(s, "/tokens/doc", SONDE_I32, &docs, &x.n_tokens, err);
    if (rc || (rc = find_column(s, "/rows/token", SONDE_I64, &tokens, &x.n_rows, err)))
        return rc;
    sonde_arena *keep = sonde_arena_new(s->budget, err),
                *scratch = keep ? sonde_arena_new(s->budget, err) : NULL;
    x.row = scratch ? sonde_arena_get(scratch, (size_t)x.n_tokens, sizeof *x.row, err) : NULL;
    rc = x.row ? each_piece(s, tokens, x.n_rows, 8, invert, &x, err) : SONDE_E_MEMORY;
    if (!rc)
        rc = sort_rows(&x, docs, keep, err);
    sonde_arena_free(scratch);
    if (rc) {
        sonde_arena_free(keep);
        return rc;
    }
    s->doc_arena = keep;
    s->doc_first = x.first;
    s->doc_row = x.sorted;
    s->n_docs = x.n_docs;
    return SONDE_OK;
}

enum sonde_code sonde_store_doc_rows(sonde_store *s, int32_t doc, uint64_t **row, size_t *n_rows,
                                     sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    (void)pthread_mutex_lock(&s->lock);
    if (!s->doc_arena)
        rc = build(s, err);
    (void)pthread_mutex_unlock(&s->lock);
    if (rc)
        return rc;
    uint64_t from = 0, n = 0;
    if (doc >= 0 && (uint64_t)doc < s->n_docs) {
        from = s->doc_first[doc];
        n = s->doc_first[doc + 1] - from;
    }
    uint64_t *copy = malloc((size_t)n * sizeof *copy + 1);
    if (!copy)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for %llu rows", s->path, (unsigned long long)n);
    if (n)
        memcpy(copy, s->doc_row + from, (size_t)n * sizeof *copy);
    *row = copy;
    *n_rows = (size_t)n;
    return SONDE_OK;
}
