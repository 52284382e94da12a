/* SPDX-License-Identifier: MIT
 * The parts of the encoder: a product tile by tile, and a pick that scans each tile. Private to sae/. */
#ifndef SONDE_SAE_ENCODE_IMPL_H
#define SONDE_SAE_ENCODE_IMPL_H

#include <stdatomic.h>

#include "encode.h"

enum {
    TILE_ROWS = 112,
    TILE_COLUMNS = 128,        /* a multiple of every panel */
    TASK_ROWS = 9 * TILE_ROWS, /* rows whose state a pick holds at once */
    SELECT_BITS = 11,          /* digits of the radix selection */
    SELECT_BINS = 1 << SELECT_BITS
};

/* Memory that grows and stays. */
struct buffer {
    void *p;
    size_t bytes;
};
/* At least `bytes`, old contents kept. False, and nothing changed, when memory or the budget is out. */
bool sonde_buffer_grow(struct buffer *b, size_t bytes, sonde_budget *budget);
void sonde_buffer_free(struct buffer *b, sonde_budget *budget);

/* Entries (value, row, col) of a thread, in the order in which they passed. */
struct candidates {
    size_t n, room;
    struct buffer value, row, col;
};
bool sonde_candidates_grow(struct candidates *c, size_t room, sonde_budget *budget);

/* The last entry that is kept of some: those with a larger value, or the same value and a smaller (row, col).
 */
struct last_kept {
    float value;
    uint32_t row, col;
};

static inline bool is_kept(const struct last_kept *k, float value, uint32_t row, uint32_t col)
{
    if (value != k->value)
        return value > k->value;
    return row < k->row || (row == k->row && col <= k->col);
}

/* The k-th of all entries (1 <= k <= their number) by value descending, row and column ascending. Values are
 * positive. bins: SELECT_BINS. */
struct last_kept sonde_select_kth(const struct candidates *const *part, size_t n_parts, size_t k,
                                  uint32_t *bins);
/* Keep what comes up to `last`, in its order. */
void sonde_select_keep(struct candidates *c, const struct last_kept *last);

/* The limit itself, or a higher one that at least k values reach: the k-th largest value, or one that, ties
 * apart, at most k + slack reach. No NaN. */
float sonde_select_raise(const sonde_kernels *kernels, const float *value, size_t n, size_t k, size_t slack,
                         float limit);

/* Of one thread: what bfloat16 products leave open (encode16.c). */
struct thread16 {
    struct buffer x, bound;        /* rows of a task in bfloat16, and the bound of each */
    struct buffer state;           /* struct row16 of each */
    struct buffer col, low, high;  /* ROW, ABOVE: columns that may pass, room16 of each row */
    struct buffer start, index, z; /* columns that are left, row after row, and their chains */
    struct buffer rows;            /* [TILE_ROWS, d]: rows that run in float32, gathered */
    struct candidates maybe;       /* BATCH: columns that may pass, with their lowest values, at least 0 */
    struct buffer maybe_high;
    sonde_encode_work work;
};

/* What one thread keeps between tiles. */
struct encode_thread {
    float *z;                                               /* a tile, row stride TILE_COLUMNS */
    uint32_t *bins;                                         /* SELECT_BINS */
    struct candidates kept;                                 /* BATCH, ABOVE */
    struct buffer row_col, row_value, row_count, row_bound; /* ROW, GROUP: of the rows of a task */
    struct buffer memory;                                   /* z and bins */
    struct thread16 wide;
    char apart[64]; /* no line is shared with the next thread */
};

struct sonde_encode_space {
    int n_threads;
    sonde_budget *budget;
    struct encode_thread *thread;
    const struct candidates **part, **part16; /* [n_threads] */
    unsigned rest16; /* calls for which bfloat16 rests, because it left too much open */
    sonde_encode_work work;
};

struct pick;

/* One call of sonde_encode_rows. */
struct encode_job {
    const sonde_encoding *e;
    const struct pick *pick;
    const float *x;
    size_t ldx, n_rows, n_latents;
    size_t n_tasks;
    size_t k;        /* what can be kept at most: of a row, or of all */
    size_t row_room; /* ROW, GROUP: entries that a row holds while tiles pass */
    sonde_encode_space *space;
    sonde_sparse *out;
    _Atomic bool out_of_memory;
    _Atomic size_t wanted;  /* ABOVE: entries that passed */
    _Atomic uint32_t floor; /* BATCH: bits of a positive float that all k surely exceed */
    bool use16;
    float top16;    /* largest norm of a column */
    size_t limit16; /* ROW, ABOVE: columns of a row that may be left open; more, and it runs in float32 */
    _Atomic bool give_up16; /* BATCH: too many are left open */
};

/* z of rows row .. row+rows-1 and columns col .. col+cols-1, row stride TILE_COLUMNS. */
struct encode_tile {
    size_t row, rows, col, cols;
    const float *z;
};

/* A way to pick: state for the rows of a task, what a tile adds to it, where it goes. False: no memory. */
struct pick {
    bool (*begin)(const struct encode_job *job, struct encode_thread *t, size_t rows);
    bool (*scan)(struct encode_job *job, struct encode_thread *t, size_t first_row,
                 const struct encode_tile *tile);
    bool (*end)(const struct encode_job *job, struct encode_thread *t, size_t first_row, size_t rows);
    /* z of some columns of one row, ascending; no other can pass */
    bool (*take)(struct encode_job *job, struct encode_thread *t, size_t first_row, size_t row, size_t n,
                 const uint32_t *col, const float *z);
};

extern const struct pick sonde_pick_row, sonde_pick_group, sonde_pick_batch, sonde_pick_above;

/* Entries that a row of ROW holds: k, and what passes between two cuts. */
static inline size_t encode_row_room(size_t k, size_t n_latents)
{
    const size_t usual = k + (k > 2 * TILE_COLUMNS ? k : 2 * TILE_COLUMNS);
    return usual < n_latents + TILE_COLUMNS ? usual : n_latents + TILE_COLUMNS;
}

/* Raise the floor that all threads share to just below v > 0. */
void sonde_raise_floor(struct encode_job *job, float v);

/* Can and should this job use bfloat16? Sets use16 and what goes with it. */
void sonde_encode16_begin(struct encode_job *job);
/* The rows of a task: as begin, scan and end of the pick would leave them (BATCH: after _settle only). False:
 * no memory. */
bool sonde_encode16_task(struct encode_job *job, struct encode_thread *t, size_t first, size_t rows);
/* BATCH, when all tasks are done: compute what may be among the k largest. */
bool sonde_encode16_settle(struct encode_job *job, sonde_pool *pool);
/* Put the threads' counts together, and rest if it did not pay. */
void sonde_encode16_end(struct encode_job *job);
void sonde_thread16_free(struct thread16 *t, sonde_budget *budget);

/* Fill out with the n entries of all threads that `last` keeps (NULL: all). */
enum sonde_code sonde_collect(const struct encode_job *job, const struct last_kept *last, size_t n,
                              sonde_pool *pool, sonde_err *err);

/* Add room for n more entries behind those of s, which are kept. */
enum sonde_code sonde_sparse_more(sonde_sparse *s, size_t n_rows, size_t n, sonde_err *err);

#endif
