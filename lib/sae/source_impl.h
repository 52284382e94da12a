/* SPDX-License-Identifier: MIT
 * Inside a source: which rows take part, how the rows of a unit are fetched, and the windows of the stream.
 *
 * A unit is what is read at once: a block of SOURCE_BLOCK rows of a file, or a context of a text. Items are
 * the rows of a file or the tokens of a text; every item has a mark. */
#ifndef SONDE_SAE_SOURCE_IMPL_H
#define SONDE_SAE_SOURCE_IMPL_H

#include <jansson.h>
#include <pthread.h>

#include "../base/rng.h"
#include "../base/tensor.h"
#include "../file/store.h"
#include "source.h"

#define SOURCE_BLOCK        256
#define SOURCE_WINDOW_ROWS  65536
#define SOURCE_WINDOW_BYTES ((size_t)128 << 20)
#define SOURCE_PASS_ROWS    8192
#define SOURCE_PASS_BYTES   ((size_t)16 << 20)

/* ---- marks: who takes part --------------------------------------------------------------------- */

enum source_mark { SOURCE_OUT = 0, SOURCE_TRAIN = 1, SOURCE_HELDOUT = 2 };

/* Two bits per item; bits NULL: items below train_end are for training, the others are held out. */
struct source_marks {
    uint8_t *bits;
    uint64_t n, train_end;
    uint64_t n_train, n_heldout;
};

enum sonde_code source_marks_new(struct source_marks *m, uint64_t n, sonde_arena *arena, sonde_err *err);
void source_mark_set(struct source_marks *m, uint64_t i, enum source_mark mark); /* once for each item */

static inline enum source_mark source_mark(const struct source_marks *m, uint64_t i)
{
    if (!m->bits)
        return i < m->train_end ? SOURCE_TRAIN : SOURCE_HELDOUT;
    return (enum source_mark)(m->bits[i / 4] >> i % 4 * 2 & 3);
}

static inline bool source_mark_in(enum source_mark mark, enum sonde_split split)
{
    return split == SONDE_SPLIT_ALL     ? mark != SOURCE_OUT
           : split == SONDE_SPLIT_TRAIN ? mark == SOURCE_TRAIN
                                        : mark == SOURCE_HELDOUT;
}

/* Arrays: the last rows are held out. */
void source_marks_tail(struct source_marks *m, uint64_t n, double holdout);

/* Ids that mean something, as ranges [lo, hi], ascending and apart. */
struct id_range {
    int32_t lo, hi;
};
struct id_set {
    struct id_range *range;
    size_t n;
};

/* "0-2,50256" as sonde_capture writes it. Errors: SONDE_E_INPUT (what names the file). */
enum sonde_code source_ids_parse(const char *text, const char *what, sonde_arena *arena, struct id_set *out,
                                 sonde_err *err);
enum sonde_code source_ids_of_tokenizer(const sonde_tokenizer *t, sonde_arena *arena, struct id_set *out,
                                        sonde_err *err);
bool source_ids_has(const struct id_set *s, int32_t id);

/* The filter with what it refers to. */
struct source_filter {
    sonde_row_filter f; /* ids lie in the arena */
    struct id_set ids, special;
    int32_t bos_id; /* -1: none */
    bool known;     /* bos_id and special are */
};
enum sonde_code source_filter_make(const sonde_row_filter *f, sonde_arena *arena, struct source_filter *out,
                                   sonde_err *err);

/* Is this token left out? id, pos: -1 if unknown. */
bool source_filter_drops(const struct source_filter *f, int32_t id, int64_t pos);

/* ---- rows -------------------------------------------------------------------------------------- */

/* Rows with what is known of them, [cap] each; what is not wanted is NULL. */
struct source_rows {
    sonde_arena *arena;
    size_t n, cap;
    float *x, *y;
    uint64_t *row, *token;
    int32_t *id;
    void *raw;          /* a block as the file has it */
    int64_t *raw_token; /* [SOURCE_BLOCK] */
};
enum sonde_code source_rows_new(const sonde_source *s, size_t cap, struct source_rows *r, sonde_err *err);
void source_rows_free(struct source_rows *r);

/* One side (input or output) in a file or a model. */
struct source_side {
    const char *name; /* as messages say it */
    size_t width;
    enum sonde_dtype dtype;
    size_t dataset;       /* store */
    uint64_t data_offset; /* .npy */
    sonde_hook hook;      /* model */
};

/* ---- windows ----------------------------------------------------------------------------------- */

struct source_window {
    bool loaded, last; /* the last of its epoch */
    uint64_t epoch, number;
    struct source_rows rows;
    uint32_t *order; /* [cap] */
    size_t n_order;  /* rows that pass, in the order in which they are handed out */
    size_t cap_order;
};

/* The units of an epoch in their order, cut into windows; walked forward. */
struct source_schedule {
    bool made;
    uint64_t epoch;
    uint32_t *order; /* [n_units] */
    uint64_t window; /* number of the window that begins at place `at` */
    size_t at;
};

enum source_ahead_state { AHEAD_IDLE = 0, AHEAD_BUSY, AHEAD_READY };

struct source_ahead {
    pthread_t thread;
    bool started, quit;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum source_ahead_state state;
    uint64_t epoch, number; /* of the window that is read, or was */
    enum sonde_code code;
    sonde_err err;
};

struct source_pass {
    bool begun;
    enum sonde_split split;
    struct source_rows rows;
    uint64_t unit; /* the next one */
    size_t given;  /* rows of the buffer handed out */
    uint32_t *list;
};

/* ---- the source -------------------------------------------------------------------------------- */

struct source_kind {
    /* Append the rows of these units that are in the split. They fit. */
    enum sonde_code (*append)(sonde_source *s, const uint32_t *unit, size_t n, enum sonde_split split,
                              struct source_rows *r, const sonde_work *work, sonde_err *err);
    void (*close)(sonde_source *s);
    const char *name;
    bool reads_ahead;
};

struct source_model; /* runs of each thread */

struct sonde_source {
    const struct source_kind *kind;
    sonde_source_info info;
    sonde_budget *budget;
    sonde_arena *arena;
    const sonde_kernels *kernels;
    const char *path; /* of the file; for messages */
    struct source_side in, out;
    bool two; /* in and out differ */
    struct source_filter filter;
    double holdout;
    uint64_t seed;
    size_t window_rows, block_rows;
    double norm_limit; /* 0: none */
    bool norm_known;

    struct source_marks marks;
    uint64_t n_units;
    uint32_t *unit, *unit_rows; /* [n_stream] units with rows for training, and how many */
    size_t n_stream;
    size_t largest; /* rows of a unit, of any split */

    sonde_store *store;
    size_t row_token, token_id; /* datasets; SIZE_MAX: none */
    uint64_t n_tokens;
    int fd; /* .npy */
    const sonde_model *model;
    const sonde_corpus *corpus;
    const sonde_tokenizer *tokenizer;
    struct source_model *forward;

    sonde_source_position at;
    struct source_window window[2]; /* being given, being read */
    int current;
    struct source_schedule schedule;
    struct source_ahead ahead;
    struct source_pass pass;
};

/* Items of a unit. */
static inline uint64_t source_unit_items(const sonde_source *s, uint64_t unit, uint64_t *first)
{
    if (s->corpus) {
        *first = s->corpus->seq_start[unit];
        return s->corpus->seq_start[unit + 1] - *first;
    }
    *first = unit * s->block_rows;
    return s->marks.n - *first < s->block_rows ? s->marks.n - *first : s->block_rows;
}

size_t source_unit_rows(const sonde_source *s, uint64_t unit, enum sonde_split split);

/* What every kind does first and last when it opens. */
enum sonde_code source_begin(const struct source_kind *kind, const sonde_source_options *o,
                             sonde_budget *budget, sonde_source **out, sonde_err *err);
size_t source_window_rows(const sonde_source *s, const sonde_source_options *o);
enum sonde_code source_list_units(sonde_source *s, sonde_err *err); /* after the marks */

/* Files: fills in the sides, the marks, the hook names. */
enum sonde_code source_store_open(sonde_source *s, const char *path, const char *dataset,
                                  const sonde_source_options *o, sonde_err *err);
enum sonde_code source_store_marks(sonde_source *s, sonde_err *err);
enum sonde_code source_npy_open(sonde_source *s, const char *path, const sonde_source_options *o,
                                sonde_err *err);
enum sonde_code source_file_append(sonde_source *s, const uint32_t *unit, size_t n, enum sonde_split split,
                                   struct source_rows *r, const sonde_work *work, sonde_err *err);

/* Rows [first, first + n) of a side as the file has them. */
enum sonde_code source_read_raw(sonde_source *s, const struct source_side *side, uint64_t first, uint64_t n,
                                void *data, sonde_err *err);

/* Rows that are not finite are refused; from row `first` of r on. */
enum sonde_code source_check_finite(const sonde_source *s, const struct source_rows *r, size_t first,
                                    sonde_err *err);

/* The limit of the norm filter, if it is not known yet; then: does row i pass? */
enum sonde_code source_find_norm_limit(sonde_source *s, const sonde_work *work, sonde_err *err);
bool source_norm_passes(const sonde_source *s, const struct source_rows *r, size_t i);

/* The last component of a path, in the arena; "" without memory. */
const char *source_base_name(sonde_source *s, const char *path);

/* info.identity. */
enum sonde_code source_identify_file(sonde_source *s, sonde_err *err);
enum sonde_code source_identify_model(sonde_source *s, sonde_err *err);

void source_stream_free(sonde_source *s);
void source_pass_free(sonde_source *s);

/* Give up the window that is being read and wait until nothing is read any more. */
void source_ahead_settle(sonde_source *s);

#endif
