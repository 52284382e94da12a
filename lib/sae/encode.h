/* SPDX-License-Identifier: MIT
 * The encoder product fused with the choice of what stays: dense pre-activations never leave one tile.
 *
 * z = x W + bias is computed tile by tile and scanned while it lies in the cache. What is kept is exact,
 * whatever the tiles and threads: entries are ordered by value descending, then row, then column ascending,
 * and the first ones win. */
#ifndef SONDE_SAE_ENCODE_H
#define SONDE_SAE_ENCODE_H

#include "../base/arena.h"
#include "../base/pool.h"
#include "../num/bf16.h"
#include "../num/matmul.h"

/* Rows of (column, value), columns ascending within a row. */
typedef struct sonde_sparse {
    size_t n_rows, room_rows;
    uint64_t *start; /* [n_rows + 1] */
    uint32_t *col;   /* [start[n_rows]] */
    float *value;
    size_t room; /* of col and value */
    sonde_budget *budget;
} sonde_sparse;

/* Make room for n_rows rows and n entries (contents are not kept). Errors: SONDE_E_MEMORY. */
enum sonde_code sonde_sparse_reserve(sonde_sparse *s, size_t n_rows, size_t n, sonde_err *err);
void sonde_sparse_free(sonde_sparse *s); /* all zero but the budget is an empty one */

enum sonde_pick {
    SONDE_PICK_ABOVE = 0, /* every z > bound[col] */
    SONDE_PICK_ROW,       /* of each row the k largest z; only positive ones unless any_sign */
    SONDE_PICK_BATCH,     /* of all rows together the k largest z, positive ones only */
    SONDE_PICK_GROUP      /* k groups of n/k neighbouring columns: the largest of each if positive; ties: the
                             smaller */
};

typedef struct sonde_encoding {
    const sonde_packed *w; /* [d, F] */
    const float *bias;     /* [F] or NULL */
    const sonde_packed16
        *w16; /* the same matrix in bfloat16, or NULL: float32 only. The result is the same, bit for bit */
    const float *rows; /* with w16: W feature-major [F, d] */
    enum sonde_pick pick;
    size_t k;           /* ROW, GROUP: of a row; BATCH: of all rows */
    bool any_sign;      /* ROW */
    const float *bound; /* ABOVE: [F] */
    float hint; /* BATCH: a value that the k-th largest hardly falls below (last step's times 0.8), or 0.
                   It saves time and changes nothing */
    size_t
        max_entries; /* ABOVE: 0, or give up when more pass: *n_wanted tells how many, the result is empty */
} sonde_encoding;

/* Buffers for n_threads threads, grown as needed. */
typedef struct sonde_encode_space sonde_encode_space;
enum sonde_code sonde_encode_space_new(int n_threads, sonde_budget *budget, sonde_encode_space **out,
                                       sonde_err *err);
void sonde_encode_space_free(sonde_encode_space *s);

/* What bfloat16 did in the last call: rows that it decided, rows that ran in float32 (all of them where it is
 * not used), and float32 chains computed for the columns that it left open. */
typedef struct sonde_encode_work {
    size_t rows16, rows32, chains;
} sonde_encode_work;
void sonde_encode_space_work(const sonde_encode_space *s, sonde_encode_work *out);

/* Encode n_rows rows of x (row stride ldx) into out, values are z. Errors: SONDE_E_USAGE (k > F for ROW and
 * GROUP, w16 without rows), SONDE_E_MEMORY. n_wanted may be NULL without max_entries. NaN never passes:
 * callers look at what they decode. */
enum sonde_code sonde_encode_rows(const sonde_encoding *e, const float *x, size_t ldx, size_t n_rows,
                                  sonde_pool *pool, sonde_encode_space *space, sonde_sparse *out,
                                  size_t *n_wanted, sonde_err *err);

/* Reference twin: dense, double accumulators rounded once to float, sorted. */
enum sonde_code ref_encode_rows(const sonde_encoding *e, const float *x, size_t ldx, size_t n_rows,
                                sonde_sparse *out, sonde_err *err);

#endif
