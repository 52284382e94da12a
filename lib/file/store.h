/* SPDX-License-Identifier: MIT
 * The activation store, acts.h5: one writer, many readers, random access by (dataset, row range).
 *
 * HDF5 lays the file out once (contiguous datasets, early allocation, no fill); after that rows go in with
 * pwrite and come out with pread, and only this module knows where they are. */
#ifndef SONDE_FILE_STORE_H
#define SONDE_FILE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/arena.h"
#include "../base/tensor.h"

/* ---- writing ----------------------------------------------------------------------------------------------
 * HDF5 runs in a short-lived child process (at create, resume, finish and open), so its state and its crashes
 * stay out of this one. The child is forked: best before threads start; threads that do not use HDF5
 * themselves do no harm. */

/* A dataset to lay out: full path ("/acts/blocks.3.hook_resid_post"), type, and shape with the row count
 * first. SONDE_BF16 is stored as uint16 with the attribute encoding="bfloat16". */
typedef struct sonde_store_dataset {
    const char *path;
    enum sonde_dtype dtype; /* F32, F16, BF16, F64, U8, I32, I64, U64 */
    int rank;
    uint64_t dim[SONDE_MAX_RANK];
} sonde_store_dataset;

/* An attribute of the root (path "/") or of a dataset: a string (s != NULL), a float (is_float) or an
 * integer. */
typedef struct sonde_store_attr {
    const char *path, *name;
    const char *s;
    bool is_float;
    double f;
    int64_t i;
} sonde_store_attr;

typedef struct sonde_store_layout {
    const sonde_store_dataset *dataset;
    size_t n_datasets;
    const sonde_store_attr *attr; /* known before the first row; `format` and `format_version` are added */
    size_t n_attrs;
} sonde_store_layout;

typedef struct sonde_store_writer sonde_store_writer;

/* Lay out path.part. Checks statvfs against the computed size first (both numbers in the message), then
 * posix_fallocate. overwrite false: SONDE_E_USAGE if path or path.part exists (the message names --force and
 * --resume). A lock on path.part keeps a second writer out. */
enum sonde_code sonde_store_create(const char *path, const sonde_store_layout *layout, bool overwrite,
                                   sonde_store_writer **out, sonde_err *err);

/* Open path.part again. *state (malloc'd, *n_state bytes) is what the last sonde_store_journal was given. The
 * layout must equal the one it was created with: otherwise SONDE_E_USAGE naming the first difference with
 * both values. Without a journal (killed before the first): *n_state = 0, start from the first row. Journals
 * that fail their checksum: the previous one. No path.part: SONDE_E_USAGE. */
enum sonde_code sonde_store_resume(const char *path, const sonde_store_layout *layout,
                                   sonde_store_writer **out, void **state, size_t *n_state, sonde_err *err);

/* What resuming has to tell the user (a journal that failed its checksum), one line, or NULL. */
const char *sonde_store_resume_note(const sonde_store_writer *w);

/* Rows [first, first + n) of a dataset, in its stored type, row-major. Thread-safe for disjoint rows. */
enum sonde_code sonde_store_write(sonde_store_writer *w, size_t dataset, uint64_t first, uint64_t n,
                                  const void *data, sonde_err *err);

/* Read rows back while writing (they come from the page cache). */
enum sonde_code sonde_store_read_back(sonde_store_writer *w, size_t dataset, uint64_t first, uint64_t n,
                                      void *data, sonde_err *err);

/* Everything written so far is to survive: fdatasync, then the journal (path.part.journal) is replaced by
 * `state`. */
enum sonde_code sonde_store_journal(sonde_store_writer *w, const void *state, size_t n_state, sonde_err *err);

/* Checksums of every dataset, more attributes, fsync, rename to path, remove the journal. Frees w, also on
 * failure (the .part stays and can be resumed). */
enum sonde_code sonde_store_finish(sonde_store_writer *w, const sonde_store_attr *attr, size_t n_attrs,
                                   sonde_err *err);

/* Close without finishing. keep true: .part and journal stay for --resume (.part only if there is a journal;
 * without one there is nothing to go on from). keep false: both are removed. */
void sonde_store_abandon(sonde_store_writer *w, bool keep);

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct sonde_store sonde_store;

/* Open a store, of ours or a stranger's (h5py): a confined child process reads the HDF5 structure once and
 * hands back a table of contiguous, unfiltered datasets and scalar attributes; rows are then read with pread.
 * Call it before starting threads. A chunked or compressed dataset is listed as such and reading it is
 * SONDE_E_INPUT with the h5repack line that converts it. verify: checksums of blocks are checked when first
 * read. Errors: SONDE_E_IO, SONDE_E_INPUT (also when the child died: "damaged or hostile file"). */
enum sonde_code sonde_store_open(const char *path, bool verify, sonde_budget *budget, sonde_store **out,
                                 sonde_err *err);
void sonde_store_close(sonde_store *s); /* NULL is fine */

size_t sonde_store_n_datasets(const sonde_store *s);
const sonde_store_dataset *sonde_store_dataset_at(const sonde_store *s, size_t i);

/* NULL if the rows of this dataset can be read, otherwise why not ("chunked, deflate", "big-endian float of 4
 * bytes", "a soft link, which is not followed"). */
const char *sonde_store_unreadable(const sonde_store *s, size_t i);

/* The dataset with this path, or SIZE_MAX. */
size_t sonde_store_find(const sonde_store *s, const char *path);

/* Rows [first, first + n) in the stored type. Thread-safe. Errors: SONDE_E_USAGE (out of range),
 * SONDE_E_INPUT (checksum: the message says which rows), SONDE_E_IO. */
enum sonde_code sonde_store_read(sonde_store *s, size_t dataset, uint64_t first, uint64_t n, void *data,
                                 sonde_err *err);

/* Attributes of path ("/" for the root). */
const sonde_store_attr *sonde_store_attr_find(const sonde_store *s, const char *path, const char *name);
size_t sonde_store_n_attrs(const sonde_store *s);
const sonde_store_attr *sonde_store_attr_at(const sonde_store *s, size_t i);

/* Check every block of every dataset against /check. Errors: SONDE_E_INPUT naming dataset and rows. */
enum sonde_code sonde_store_verify(sonde_store *s, sonde_err *err);

/* The rows of /acts that belong to document `doc` (by /tokens/doc and the row-to-token map /rows/token): *row
 * (malloc'd, ascending by token) and *n_rows. */
enum sonde_code sonde_store_doc_rows(sonde_store *s, int32_t doc, uint64_t **row, size_t *n_rows,
                                     sonde_err *err);

#endif
