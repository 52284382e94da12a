/* SPDX-License-Identifier: MIT
 * What the writer and the reader of a store share: rows, and blocks of rows with checksums.
 *
 * /check/xxh3 holds one XXH3-64 per block. Dataset D has its own run of them: attribute check_first of D says
 * where it begins, check_rows how many rows make a block (the last one may be shorter). */
#ifndef SONDE_FILE_STORE_IMPL_H
#define SONDE_FILE_STORE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "hdf5_impl.h"
#include "store.h"

#define SONDE_STORE_CHECK       "/check/xxh3"
#define SONDE_STORE_BLOCK_BYTES ((size_t)1 << 20)

/* A dataset as rows of bytes in the file. */
typedef struct sonde_store_rows {
    uint64_t offset, n_rows;
    size_t row_bytes;
    uint64_t block_rows; /* 0: no checksums */
    size_t first_block;
} sonde_store_rows;

static inline uint64_t sonde_store_block_rows(size_t row_bytes)
{
    return row_bytes >= SONDE_STORE_BLOCK_BYTES ? 1 : SONDE_STORE_BLOCK_BYTES / row_bytes;
}

/* Blocks of n rows; b has the rows [b * block_rows, ...). */
static inline uint64_t sonde_store_n_blocks(uint64_t n_rows, uint64_t block_rows)
{
    return n_rows / block_rows + (n_rows % block_rows != 0);
}

static inline uint64_t sonde_store_rows_in_block(const sonde_store_rows *r, uint64_t b)
{
    uint64_t left = r->n_rows - b * r->block_rows;
    return left < r->block_rows ? left : r->block_rows;
}

/* Read n bytes at `at`. Errors: SONDE_E_IO. */
enum sonde_code sonde_store_pread(int fd, void *data, size_t n, uint64_t at, const char *path,
                                  sonde_err *err);

/* XXH3-64 of block b, from the file. Errors: SONDE_E_IO, SONDE_E_MEMORY. */
enum sonde_code sonde_store_hash_block(int fd, const sonde_store_rows *r, uint64_t b, const char *path,
                                       uint64_t *out, sonde_err *err);

/* Are rows [first, first + n) there? Errors: SONDE_E_USAGE. */
enum sonde_code sonde_store_check_range(const char *path, const sonde_store_dataset *d, uint64_t n_rows,
                                        uint64_t first, uint64_t n, sonde_err *err);

/* ---- the writer -------------------------------------------------------------------------------- */

struct sonde_store_writer {
    sonde_arena *arena;
    char *path, *part, *journal, *journal_new; /* where path leads, and the files beside it */
    int fd;                                    /* of part, locked */
    bool overwrite;
    bool owned;  /* part is ours to remove when laying out fails */
    bool broken; /* a sync failed: what reached the disk is not known any more */
    bool whole;  /* part lacks nothing but its name */
    uint64_t file_bytes;

    sonde_store_dataset *dataset; /* the caller's, then /check/xxh3 */
    sonde_store_rows *rows;
    size_t n_datasets; /* of the caller */
    sonde_store_attr *attr;
    size_t n_attrs;

    uint64_t *sum; /* [n_blocks] */
    _Atomic uint32_t
        *count; /* [n_blocks] rows written so far; sum holds exactly when this is the block's rows */
    unsigned char *saved; /* [n_blocks] 1: sum is in the file */
    size_t n_blocks;

    unsigned char *record; /* the last journal record, malloc'd; NULL before the first */
    size_t n_record;
    char note[400]; /* what a resume has to say */
};

/* The record that a journal holds. */
typedef struct sonde_store_record {
    bool overwrite;
    uint64_t file_bytes;
    const unsigned char *known; /* [(n_blocks + 7) / 8] bit b: the sum of block b is in the file */
    size_t n_known;
    const unsigned char *state;
    size_t n_state;
    const unsigned char
        *undo; /* bytes that finishing was about to replace: offset, length, bytes; n_undo bytes of it */
    size_t n_undo;
} sonde_store_record;

/* Replace the journal by this record, followed by the one before it. Errors: SONDE_E_IO, SONDE_E_MEMORY. */
enum sonde_code sonde_store_journal_write(sonde_store_writer *w, const sonde_store_record *r, sonde_err *err);

/* The newest record whose checksum holds; it points into w->record. *found false: there is none (w->note says
 * so if there was a journal). */
enum sonde_code sonde_store_journal_read(sonde_store_writer *w, sonde_store_record *r, bool *found,
                                         sonde_err *err);

/* The record that w->record holds. */
bool sonde_store_record_parse(const unsigned char *bytes, size_t n, sonde_store_record *r);

/* Steps of making and finishing a writer. */
enum sonde_code sonde_store_check_attrs(const char *file, const sonde_store_attr *a, size_t n,
                                        sonde_err *err);
enum sonde_code sonde_store_plan(sonde_store_writer *w, const sonde_store_layout *layout, sonde_err *err);
enum sonde_code sonde_store_sync(sonde_store_writer *w, bool data_only, sonde_err *err);
void sonde_store_writer_free(sonde_store_writer *w);

/* Run a layout job on part. Its reply is taken in two steps: size and offsets (stored the first time, then
 * compared), and the writes, which are made. Between them, space for the size. */
enum sonde_code sonde_store_run_layout(sonde_store_writer *w, const sonde_h5_layout *l, sonde_h5_cursor *c,
                                       sonde_err *err);
enum sonde_code sonde_store_take_offsets(sonde_store_writer *w, sonde_h5_cursor *c, bool first_time,
                                         uint64_t *file_bytes, sonde_err *err);
enum sonde_code sonde_store_reserve(sonde_store_writer *w, uint64_t file_bytes, sonde_err *err);
enum sonde_code sonde_store_apply(sonde_store_writer *w, sonde_h5_cursor c, sonde_err *err);

/* Does what lies in part equal what the writer planned? Takes over the offsets. Errors: SONDE_E_USAGE,
 * SONDE_E_INPUT. */
enum sonde_code sonde_store_match(sonde_store_writer *w, const sonde_h5_table *t, sonde_err *err);

/* ---- the reader -------------------------------------------------------------------------------- */

struct sonde_store {
    char *path;
    int fd;
    uint64_t file_bytes;
    bool verify;
    sonde_budget *budget;
    sonde_arena *arena;
    sonde_h5_table table;
    sonde_store_rows *rows; /* [n_datasets] */

    uint64_t *sum; /* NULL: a file without checksums */
    _Atomic unsigned char *verified;
    size_t n_blocks;

    pthread_mutex_t lock;      /* for the index below */
    sonde_arena *doc_arena;    /* NULL until the first sonde_store_doc_rows */
    const uint64_t *doc_first; /* [n_docs + 1] */
    const uint64_t *doc_row;   /* rows by document, ascending by token */
    uint64_t n_docs;
};

#endif
