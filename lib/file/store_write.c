/* SPDX-License-Identifier: MIT
 * The writer: rows go in with pwrite, checksums are taken on the way, finishing makes the file whole. */
#include "store_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/hash.h"
#include "../base/replace.h"
#include "../base/size.h"

/* ---- rows -------------------------------------------------------------------------------------- */

/* Count n rows of block b as written; the write that makes the block full takes its checksum, from `data` if
 * that is the whole block. A block that is written over counts past its rows and is hashed again at the end.
 */
static enum sonde_code count_rows(sonde_store_writer *w, const sonde_store_rows *r, uint64_t b, uint64_t n,
                                  const void *data, sonde_err *err)
{
    size_t i = r->first_block + (size_t)b;
    uint32_t full = (uint32_t)sonde_store_rows_in_block(r, b), before = atomic_load(&w->count[i]);
    if (before > full)
        return SONDE_OK;
    before = atomic_fetch_add(&w->count[i], (uint32_t)n);
    if (before + n != full)
        return SONDE_OK;
    if (n == full) {
        w->sum[i] = sonde_xxh3(data, (size_t)n * r->row_bytes);
        return SONDE_OK;
    }
    enum sonde_code rc = sonde_store_hash_block(w->fd, r, b, w->part, &w->sum[i], err);
    if (rc)
        atomic_fetch_add(&w->count[i], 1);
    return rc;
}

enum sonde_code sonde_store_write(sonde_store_writer *w, size_t dataset, uint64_t first, uint64_t n,
                                  const void *data, sonde_err *err)
{
    if (dataset >= w->n_datasets)
        return sonde_fail(err, SONDE_E_USAGE, "%s: dataset %zu of %zu", w->path, dataset, w->n_datasets);
    const sonde_store_rows *r = &w->rows[dataset];
    enum sonde_code rc = sonde_store_check_range(w->path, &w->dataset[dataset], r->n_rows, first, n, err);
    if (rc || n == 0 || r->row_bytes == 0)
        return rc;
    rc = sonde_pwrite_all(w->fd, data, (size_t)n * r->row_bytes, r->offset + first * r->row_bytes, w->part,
                          err);
    const unsigned char *p = data;
    for (uint64_t row = first; row < first + n && !rc;) {
        uint64_t b = row / r->block_rows, end = b * r->block_rows + sonde_store_rows_in_block(r, b);
        uint64_t k = (end < first + n ? end : first + n) - row;
        rc = count_rows(w, r, b, k, p, err);
        p += k * r->row_bytes;
        row += k;
    }
    return rc;
}

enum sonde_code sonde_store_read_back(sonde_store_writer *w, size_t dataset, uint64_t first, uint64_t n,
                                      void *data, sonde_err *err)
{
    if (dataset >= w->n_datasets)
        return sonde_fail(err, SONDE_E_USAGE, "%s: dataset %zu of %zu", w->path, dataset, w->n_datasets);
    const sonde_store_rows *r = &w->rows[dataset];
    enum sonde_code rc = sonde_store_check_range(w->path, &w->dataset[dataset], r->n_rows, first, n, err);
    if (rc)
        return rc;
    return sonde_store_pread(w->fd, data, (size_t)n * r->row_bytes, r->offset + first * r->row_bytes, w->part,
                             err);
}

/* ---- checksums --------------------------------------------------------------------------------- */

/* The dataset that block i belongs to, walking forward from *d. */
static const sonde_store_rows *rows_of_block(const sonde_store_writer *w, size_t i, size_t *d)
{
    while (*d + 1 < w->n_datasets && w->rows[*d + 1].first_block <= i)
        ++*d;
    return &w->rows[*d];
}

static bool is_known(const sonde_store_writer *w, const sonde_store_rows *r, size_t i)
{
    return atomic_load(&w->count[i]) == (uint32_t)sonde_store_rows_in_block(r, i - r->first_block);
}

/* Write the sums that are new into /check/xxh3, in runs, and fill the bitmap of those that are there. */
static enum sonde_code save_sums(sonde_store_writer *w, unsigned char *known, sonde_err *err)
{
    size_t d = 0, run = 0; /* blocks [i - run, i) are to be written */
    enum sonde_code rc = SONDE_OK;
    for (size_t i = 0; i <= w->n_blocks && !rc; i++) {
        bool fresh = i < w->n_blocks && is_known(w, rows_of_block(w, i, &d), i);
        if (fresh)
            known[i / 8] |= (unsigned char)(1u << (i % 8));
        if (fresh && !w->saved[i]) {
            run++;
            continue;
        }
        if (run)
            rc = sonde_pwrite_all(w->fd, w->sum + i - run, run * sizeof *w->sum,
                                  w->rows[w->n_datasets].offset + (i - run) * sizeof *w->sum, w->part, err);
        for (; run > 0 && !rc; run--)
            w->saved[i - run] = 1;
    }
    return rc;
}

static enum sonde_code finish_sums(sonde_store_writer *w, sonde_err *err)
{
    size_t d = 0;
    enum sonde_code rc = SONDE_OK;
    for (size_t i = 0; i < w->n_blocks && !rc; i++) {
        const sonde_store_rows *r = rows_of_block(w, i, &d);
        if (!is_known(w, r, i))
            rc = sonde_store_hash_block(w->fd, r, i - r->first_block, w->part, &w->sum[i], err);
    }
    if (rc)
        return rc;
    return sonde_pwrite_all(w->fd, w->sum, w->n_blocks * sizeof *w->sum, w->rows[w->n_datasets].offset,
                            w->part, err);
}

/* ---- the journal ------------------------------------------------------------------------------- */

/* A failed sync is final: the system may have dropped what it could not write. */
enum sonde_code sonde_store_sync(sonde_store_writer *w, bool data_only, sonde_err *err)
{
    int rc;
    if (w->broken)
        return sonde_fail(err, SONDE_E_IO, "%s: an earlier sync failed, what is on the disk is not known",
                          w->part);
    do
        rc = data_only ? fdatasync(w->fd) : fsync(w->fd);
    while (rc && errno == EINTR);
    if (!rc)
        return SONDE_OK;
    w->broken = true;
    return sonde_fail(err, SONDE_E_IO, "%s: cannot sync %llu bytes: %s", w->part,
                      (unsigned long long)w->file_bytes, strerror(errno));
}

enum sonde_code sonde_store_journal(sonde_store_writer *w, const void *state, size_t n_state, sonde_err *err)
{
    size_t n_known = (w->n_blocks + 7) / 8;
    unsigned char *known = calloc(n_known + 1, 1);
    if (!known)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the journal", w->path);
    enum sonde_code rc = save_sums(w, known, err);
    if (!rc)
        rc = sonde_store_sync(w, true, err);
    if (!rc)
        rc = sonde_store_journal_write(w,
                                       &(sonde_store_record){.overwrite = w->overwrite,
                                                             .file_bytes = w->file_bytes,
                                                             .known = known,
                                                             .n_known = n_known,
                                                             .state = state,
                                                             .n_state = n_state},
                                       err);
    free(known);
    return rc;
}

/* ---- finishing --------------------------------------------------------------------------------- */

/* Attributes change bytes between the data and lengthen the file. What they replace goes into the journal
 * first, so that a kill in the middle leads back to the state before. */
static enum sonde_code journal_undo(sonde_store_writer *w, sonde_h5_cursor c, sonde_err *err)
{
    sonde_store_record r;
    if (!w->record)
        return SONDE_OK; /* nothing to go back to: a resume starts from the first row */
    if (!sonde_store_record_parse(w->record, w->n_record, &r))
        return sonde_fail(err, SONDE_E_INPUT, "%s: a record in it makes no sense", w->journal);
    size_t n = 0, room = c.n - c.at; /* the undo has the form of the writes and cannot be longer */
    unsigned char *undo = malloc(room + 1);
    if (!undo)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the journal", w->journal);
    enum sonde_code rc = SONDE_OK;
    for (uint64_t left = sonde_h5_get_u64(&c); left > 0 && !rc; left--) {
        uint64_t at = sonde_h5_get_u64(&c), keep;
        size_t len;
        (void)sonde_h5_get_bytes(&c, &len);
        keep = at >= w->file_bytes ? 0 : len < w->file_bytes - at ? len : w->file_bytes - at;
        if (keep == 0)
            continue;
        memcpy(undo + n, &at, 8);
        memcpy(undo + n + 8, &keep, 8);
        rc = sonde_store_pread(w->fd, undo + n + 16, (size_t)keep, at, w->part, err);
        n += 16 + (size_t)keep;
    }
    r.undo = undo;
    r.n_undo = n;
    if (!rc)
        rc = sonde_store_journal_write(w, &r, err);
    free(undo);
    return rc;
}

static enum sonde_code add_attributes(sonde_store_writer *w, const sonde_store_attr *attr, size_t n_attrs,
                                      sonde_err *err)
{
    const sonde_h5_layout l = {false, w->dataset, w->n_datasets + 1, attr, n_attrs};
    sonde_h5_cursor c;
    uint64_t bytes;
    if (n_attrs == 0)
        return SONDE_OK;
    enum sonde_code rc = sonde_store_run_layout(w, &l, &c, err);
    if (rc || (rc = sonde_store_take_offsets(w, &c, false, &bytes, err)))
        return rc;
    if ((rc = journal_undo(w, c, err)))
        return rc;
    uint64_t before = w->file_bytes;
    if (!(rc = sonde_store_reserve(w, bytes, err)))
        rc = sonde_store_apply(w, c, err);
    if (rc && !w->record)
        w->file_bytes = before;
    return rc;
}

/* The name appears at once and whole, and never over a file that came in the meantime. */
static enum sonde_code publish(sonde_store_writer *w, sonde_err *err)
{
    int rc = renameat2(AT_FDCWD, w->part, AT_FDCWD, w->path, w->overwrite ? 0 : RENAME_NOREPLACE);
    if (rc && !w->overwrite && (errno == EINVAL || errno == ENOSYS)) { /* a file system that cannot do that */
        rc = link(w->part, w->path);
        if (rc == 0)
            (void)unlink(w->part);
        else if (errno != EEXIST && access(w->path, F_OK) != 0)
            rc = rename(w->part, w->path);
    }
    if (rc && errno == EEXIST)
        return sonde_fail(err, SONDE_E_USAGE, "%s: appeared while it was being written; %s has the new one",
                          w->path, w->part);
    if (rc)
        return sonde_fail(err, SONDE_E_IO, "%s: cannot rename %s to it: %s", w->path, w->part,
                          strerror(errno));
    enum sonde_code code = sonde_sync_parent(w->path, err);
    (void)unlink(w->journal);
    return code;
}

enum sonde_code sonde_store_finish(sonde_store_writer *w, const sonde_store_attr *attr, size_t n_attrs,
                                   sonde_err *err)
{
    enum sonde_code rc = sonde_store_check_attrs(w->path, attr, n_attrs, err);
    if (!rc)
        rc = finish_sums(w, err);
    if (!rc)
        rc = sonde_store_sync(w, true, err);
    if (!rc)
        rc = add_attributes(w, attr, n_attrs, err);
    if (!rc)
        rc = sonde_store_sync(w, false, err);
    if (!rc) {
        w->whole = true;
        rc = publish(w, err);
    }
    if (rc)
        sonde_store_abandon(w, true);
    else
        sonde_store_writer_free(w);
    return rc;
}

void sonde_store_abandon(sonde_store_writer *w, bool keep)
{
    if (!w)
        return;
    if (!keep || (!w->record && !w->whole)) { /* without a record there is nothing to resume from */
        (void)unlink(w->part);
        (void)unlink(w->journal);
    }
    (void)unlink(w->journal_new);
    sonde_store_writer_free(w);
}
