/* SPDX-License-Identifier: MIT
 * The reader: a table from the confined child, rows with pread, checksums of blocks when they are first
 * touched. */
#include "store_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/hash.h"
#include "../base/size.h"

#define VERSION_MAJOR 1

/* ---- opening ----------------------------------------------------------------------------------- */

static enum sonde_code open_file(sonde_store *s, const char *path, sonde_err *err)
{
    struct stat st;
    s->path = strdup(path);
    if (!s->path)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to open it", path);
    s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (s->fd < 0 || fstat(s->fd, &st))
        return sonde_fail(err, SONDE_E_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return sonde_fail(err, SONDE_E_INPUT, "%s: is %s", path,
                          S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
    s->file_bytes = (uint64_t)st.st_size;
    return SONDE_OK;
}

/* A file of ours from a later time is refused; what is not ours has no version. */
static enum sonde_code check_version(const sonde_store *s, sonde_err *err)
{
    const sonde_store_attr *format = sonde_h5_attr_find(&s->table, "/", "format");
    const sonde_store_attr *version = sonde_h5_attr_find(&s->table, "/", "format_version");
    if (!format || !format->s || strncmp(format->s, "sonde", 5) != 0)
        return SONDE_OK;
    char *end = NULL;
    unsigned long major = version && version->s ? strtoul(version->s, &end, 10) : 0;
    if (!end || end == version->s || *end != '.' || major == 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: format_version is not a version", s->path);
    if (major > VERSION_MAJOR)
        return sonde_fail(err, SONDE_E_INPUT, "%s: has format version %.20s, this sonde reads up to %d.x",
                          s->path, version->s, VERSION_MAJOR);
    return SONDE_OK;
}

static enum sonde_code take_rows(sonde_store *s, sonde_err *err)
{
    s->rows = sonde_arena_get(s->arena, s->table.n_datasets, sizeof *s->rows, err);
    if (!s->rows)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < s->table.n_datasets; i++) {
        const sonde_h5_dataset *d = &s->table.dataset[i];
        const int rank = d->shape.rank;
        s->rows[i] = (sonde_store_rows){.offset = d->offset, .n_rows = rank ? d->shape.dim[0] : 1};
        if (d->kind <= SONDE_H5_COMPACT && /* their sizes have been checked */
            !sonde_nbytes(&s->rows[i].row_bytes, d->shape.dim + 1, rank ? rank - 1 : 0,
                          sonde_dtype_size(d->shape.dtype)))
            return sonde_fail(err, SONDE_E_INPUT, "%s: a row of %.200s is larger than any file", s->path,
                              d->shape.path);
    }
    return SONDE_OK;
}

/* Which blocks of which rows: the attributes must lead into /check/xxh3. */
static enum sonde_code take_blocks(sonde_store *s, size_t i, sonde_err *err)
{
    const sonde_h5_dataset *d = &s->table.dataset[i];
    const sonde_store_attr *first = sonde_h5_attr_find(&s->table, d->shape.path, "check_first");
    const sonde_store_attr *rows = sonde_h5_attr_find(&s->table, d->shape.path, "check_rows");
    sonde_store_rows *r = &s->rows[i];
    if (d->kind != SONDE_H5_CONTIGUOUS || !first || !rows || r->row_bytes == 0 || r->n_rows == 0)
        return SONDE_OK;
    bool ok =
        !first->s && !rows->s && !first->is_float && !rows->is_float && first->i >= 0 && rows->i > 0 &&
        sonde_inside((uint64_t)first->i, sonde_store_n_blocks(r->n_rows, (uint64_t)rows->i), s->n_blocks);
    if (!ok)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %.200s has no place in %s; the file is damaged", s->path,
                          d->shape.path, SONDE_STORE_CHECK);
    r->block_rows = (uint64_t)rows->i;
    r->first_block = (size_t)first->i;
    return SONDE_OK;
}

static enum sonde_code take_checksums(sonde_store *s, sonde_err *err)
{
    const sonde_h5_dataset *d = sonde_h5_dataset_find(&s->table, SONDE_STORE_CHECK);
    if (!d || d->kind != SONDE_H5_CONTIGUOUS || d->shape.dtype != SONDE_U64 || d->shape.rank != 1)
        return SONDE_OK;
    s->n_blocks = (size_t)d->shape.dim[0];
    s->sum = sonde_arena_get(s->arena, s->n_blocks, sizeof *s->sum, err);
    s->verified = s->sum ? sonde_arena_get(s->arena, s->n_blocks, 1, err) : NULL;
    if (!s->verified)
        return SONDE_E_MEMORY;
    enum sonde_code rc =
        sonde_store_pread(s->fd, s->sum, s->n_blocks * sizeof *s->sum, d->offset, s->path, err);
    for (size_t i = 0; i < s->table.n_datasets && !rc; i++)
        rc = take_blocks(s, i, err);
    return rc;
}

enum sonde_code sonde_store_open(const char *path, bool verify, sonde_budget *budget, sonde_store **out,
                                 sonde_err *err)
{
    sonde_store *s = calloc(1, sizeof *s);
    if (!s)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to open it", path);
    s->fd = -1;
    s->verify = verify;
    s->budget = budget;
    (void)pthread_mutex_init(&s->lock, NULL);
    s->arena = sonde_arena_new(budget, err);
    enum sonde_code rc = s->arena ? open_file(s, path, err) : SONDE_E_MEMORY;
    if (!rc)
        rc = sonde_h5_table_read(path, s->fd, s->file_bytes, budget, s->arena, &s->table, err);
    if (!rc)
        rc = check_version(s, err);
    if (!rc)
        rc = take_rows(s, err);
    if (!rc)
        rc = take_checksums(s, err);
    if (rc)
        sonde_store_close(s);
    else
        *out = s;
    return rc;
}

void sonde_store_close(sonde_store *s)
{
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    sonde_arena_free(s->doc_arena);
    sonde_arena_free(s->arena);
    (void)pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s);
}

/* ---- what is in it ----------------------------------------------------------------------------- */

size_t sonde_store_n_datasets(const sonde_store *s)
{
    return s->table.n_datasets;
}

const sonde_store_dataset *sonde_store_dataset_at(const sonde_store *s, size_t i)
{
    return &s->table.dataset[i].shape;
}

const char *sonde_store_unreadable(const sonde_store *s, size_t i)
{
    const sonde_h5_dataset *d = &s->table.dataset[i];
    return d->kind <= SONDE_H5_COMPACT ? NULL : d->note;
}

size_t sonde_store_find(const sonde_store *s, const char *path)
{
    const sonde_h5_dataset *d = sonde_h5_dataset_find(&s->table, path);
    return d ? (size_t)(d - s->table.dataset) : SIZE_MAX;
}

const sonde_store_attr *sonde_store_attr_find(const sonde_store *s, const char *path, const char *name)
{
    return sonde_h5_attr_find(&s->table, path, name);
}

size_t sonde_store_n_attrs(const sonde_store *s)
{
    return s->table.n_attrs;
}

const sonde_store_attr *sonde_store_attr_at(const sonde_store *s, size_t i)
{
    return &s->table.attr[i];
}

/* ---- rows -------------------------------------------------------------------------------------- */

static enum sonde_code bad_block(const sonde_store *s, size_t dataset, uint64_t b, sonde_err *err)
{
    const sonde_store_rows *r = &s->rows[dataset];
    uint64_t first = b * r->block_rows;
    return sonde_fail(err, SONDE_E_INPUT,
                      "%s: rows %llu..%llu of %.200s fail their checksum; the file is damaged, make it again",
                      s->path, (unsigned long long)first,
                      (unsigned long long)(first + sonde_store_rows_in_block(r, b) - 1),
                      s->table.dataset[dataset].shape.path);
}

/* The blocks that rows [first, first + n) touch, each once per opening; data holds those rows. A block that
 * lies whole in data is hashed there, another one is read. */
static enum sonde_code verify_rows(sonde_store *s, size_t dataset, uint64_t first, uint64_t n,
                                   const unsigned char *data, sonde_err *err)
{
    const sonde_store_rows *r = &s->rows[dataset];
    for (uint64_t b = first / r->block_rows; b <= (first + n - 1) / r->block_rows; b++) {
        size_t i = r->first_block + (size_t)b;
        uint64_t from = b * r->block_rows, k = sonde_store_rows_in_block(r, b), sum;
        if (atomic_load(&s->verified[i]))
            continue;
        if (from >= first && from + k <= first + n) {
            sum = sonde_xxh3(data + (from - first) * r->row_bytes, (size_t)k * r->row_bytes);
        } else {
            enum sonde_code rc = sonde_store_hash_block(s->fd, r, b, s->path, &sum, err);
            if (rc)
                return rc;
        }
        if (sum != s->sum[i])
            return bad_block(s, dataset, b, err);
        atomic_store(&s->verified[i], 1);
    }
    return SONDE_OK;
}

static enum sonde_code refuse(const sonde_store *s, const sonde_h5_dataset *d, sonde_err *err)
{
    if (d->kind == SONDE_H5_CHUNKED)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: %.120s is %.80s; convert it: h5repack -l CONTI -f NONE %s contiguous.h5",
                          s->path, d->shape.path, d->note, s->path);
    return sonde_fail(err, SONDE_E_INPUT, "%s: %.120s is %.120s; it cannot be read", s->path, d->shape.path,
                      d->note);
}

enum sonde_code sonde_store_read(sonde_store *s, size_t dataset, uint64_t first, uint64_t n, void *data,
                                 sonde_err *err)
{
    if (dataset >= s->table.n_datasets)
        return sonde_fail(err, SONDE_E_USAGE, "%s: dataset %zu of %zu", s->path, dataset,
                          s->table.n_datasets);
    const sonde_h5_dataset *d = &s->table.dataset[dataset];
    const sonde_store_rows *r = &s->rows[dataset];
    if (d->kind > SONDE_H5_COMPACT)
        return refuse(s, d, err);
    enum sonde_code rc = sonde_store_check_range(s->path, &d->shape, r->n_rows, first, n, err);
    if (rc || n == 0 || r->row_bytes == 0)
        return rc;
    size_t bytes = (size_t)n * r->row_bytes;
    if (d->kind == SONDE_H5_COMPACT) {
        memcpy(data, d->compact + first * r->row_bytes, bytes);
        return SONDE_OK;
    }
    rc = sonde_store_pread(s->fd, data, bytes, r->offset + first * r->row_bytes, s->path, err);
    if (!rc && s->verify && r->block_rows)
        rc = verify_rows(s, dataset, first, n, data, err);
    return rc;
}

enum sonde_code sonde_store_verify(sonde_store *s, sonde_err *err)
{
    if (!s->sum)
        return sonde_fail(err, SONDE_E_INPUT, "%s: has no checksums (%s)", s->path, SONDE_STORE_CHECK);
    for (size_t d = 0; d < s->table.n_datasets; d++) {
        const sonde_store_rows *r = &s->rows[d];
        uint64_t n = r->block_rows ? sonde_store_n_blocks(r->n_rows, r->block_rows) : 0, sum = 0;
        for (uint64_t b = 0; b < n; b++) {
            enum sonde_code rc = sonde_store_hash_block(s->fd, r, b, s->path, &sum, err);
            if (!rc && sum != s->sum[r->first_block + b])
                rc = bad_block(s, d, b, err);
            if (rc)
                return rc;
        }
    }
    return SONDE_OK;
}
