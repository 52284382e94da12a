/* SPDX-License-Identifier: MIT
 * Where a writer comes from: the .part file, its lock, its space and its layout, or the one that a killed run
 * left. */
#include "store_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "../base/replace.h"
#include "../base/size.h"

#define LAYOUT_MEMORY ((size_t)512 << 20)
#define LAYOUT_CPU_S  30

/* ---- names and the .part file ------------------------------------------------------------------ */

static char *beside(sonde_arena *a, const char *path, const char *suffix, sonde_err *err)
{
    size_t n = strlen(path), k = strlen(suffix);
    char *s = sonde_arena_get(a, n + k + 1, 1, err);
    if (s) {
        memcpy(s, path, n);
        memcpy(s + n, suffix, k);
    }
    return s;
}

/* Where path leads: a link stays, what it points at is written. Only a regular file may be replaced. */
static enum sonde_code resolve(sonde_store_writer *w, const char *path, bool *exists, sonde_err *err)
{
    struct stat st;
    size_t n = strlen(path);
    if (n == 0 || path[n - 1] == '/')
        return sonde_fail(err, SONDE_E_USAGE, "'%s' does not name a file", path);
    *exists = lstat(path, &st) == 0;
    if (!*exists && errno != ENOENT)
        return sonde_fail(err, SONDE_E_IO, "%s: %s", path, strerror(errno));
    char *real = *exists && S_ISLNK(st.st_mode) ? realpath(path, NULL) : NULL;
    if (*exists && S_ISLNK(st.st_mode) && (!real || stat(real, &st))) {
        free(real);
        return sonde_fail(err, SONDE_E_IO, "%s: a link that leads nowhere: %s", path, strerror(errno));
    }
    const char *end = real ? real : path;
    w->path = sonde_arena_strndup(w->arena, end, strlen(end), err);
    free(real);
    if (!w->path)
        return SONDE_E_MEMORY;
    if (*exists && !S_ISREG(st.st_mode))
        return sonde_fail(err, SONDE_E_USAGE, "%s: is %s, it cannot be replaced; name a file", path,
                          S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
    return SONDE_OK;
}

static enum sonde_code writer_new(const char *path, sonde_store_writer **out, bool *exists, sonde_err *err)
{
    sonde_arena *arena = sonde_arena_new(NULL, err);
    if (!arena)
        return SONDE_E_MEMORY;
    sonde_store_writer *w = calloc(1, sizeof *w);
    if (!w) {
        sonde_arena_free(arena);
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to write it", path);
    }
    w->arena = arena;
    w->fd = -1;
    enum sonde_code rc = resolve(w, path, exists, err);
    if (!rc) {
        w->part = beside(arena, w->path, ".part", err);
        w->journal = w->part ? beside(arena, w->part, ".journal", err) : NULL;
        w->journal_new = w->journal ? beside(arena, w->journal, ".new", err) : NULL;
        rc = w->journal_new ? SONDE_OK : SONDE_E_MEMORY;
    }
    if (rc)
        sonde_store_writer_free(w);
    else
        *out = w;
    return rc;
}

void sonde_store_writer_free(sonde_store_writer *w)
{
    if (w->fd >= 0)
        close(w->fd); /* the lock goes with it */
    free(w->record);
    sonde_arena_free(w->arena);
    free(w);
}

/* A lock on the open file: it ends with this process, however that ends. (A killed writer's HDF5 child may
 * hold it for a moment longer.) File systems without locks are written without. */
static bool lock_file(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    for (int attempt = 0; attempt < 30; attempt++) {
        if (fcntl(fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES))
            return true;
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return false;
}

/* Open part and lock it. Between the two another writer may have renamed the file away; then it is not part
 * any more. */
static enum sonde_code open_part(sonde_store_writer *w, bool create, struct stat *st, sonde_err *err)
{
    struct stat named;
    w->fd = open(w->part, O_RDWR | (create ? O_CREAT : 0) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (w->fd < 0 && errno == ENOENT && !create)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: is not there, nothing can be resumed; start without --resume", w->part);
    if (w->fd < 0 || fstat(w->fd, st))
        return sonde_fail(err, SONDE_E_IO, "%s: cannot open it to write: %s", w->part, strerror(errno));
    if (!S_ISREG(st->st_mode))
        return sonde_fail(err, SONDE_E_USAGE, "%s: is not a regular file; remove it or name another output",
                          w->part);
    if (!lock_file(w->fd) || stat(w->part, &named) != 0 || named.st_ino != st->st_ino ||
        named.st_dev != st->st_dev)
        return sonde_fail(err, SONDE_E_IO,
                          "%s: another process is writing it; wait for it or name another output", w->part);
    if (fstat(w->fd, st)) /* as it is now that it is ours */
        return sonde_fail(err, SONDE_E_IO, "%s: %s", w->part, strerror(errno));
    return SONDE_OK;
}

/* ---- space and layout -------------------------------------------------------------------------- */

enum sonde_code sonde_store_reserve(sonde_store_writer *w, uint64_t file_bytes, sonde_err *err)
{
    struct statvfs vfs;
    struct stat st;
    if (fstat(w->fd, &st) || fstatvfs(w->fd, &vfs))
        return sonde_fail(err, SONDE_E_IO, "%s: %s", w->part, strerror(errno));
    uint64_t have = (uint64_t)st.st_blocks * 512, need = file_bytes > have ? file_bytes - have : 0, left;
    if (__builtin_mul_overflow((uint64_t)vfs.f_bavail, (uint64_t)vfs.f_frsize, &left))
        left = UINT64_MAX;
    if (need > left)
        return sonde_fail(err, SONDE_E_IO,
                          "%s: needs %llu bytes, its disk has %llu free; free some or capture less", w->path,
                          (unsigned long long)need, (unsigned long long)left);
    int rc = 0;
    if (file_bytes > (uint64_t)st.st_size)
        do
            rc = fallocate(w->fd, 0, st.st_size, (off_t)(file_bytes - (uint64_t)st.st_size));
        while (rc && errno == EINTR);
    if (rc && (errno == EOPNOTSUPP || errno == ENOSYS)) /* then the check above has to do */
        rc = ftruncate(w->fd, (off_t)file_bytes);
    if (rc) {
        int saved = errno;
        rc = ftruncate(w->fd, st.st_size); /* some of it may have been had */
        return sonde_fail(err, SONDE_E_IO, "%s: cannot reserve %llu bytes: %s", w->path,
                          (unsigned long long)file_bytes, strerror(saved));
    }
    w->file_bytes = file_bytes;
    return SONDE_OK;
}

enum sonde_code sonde_store_run_layout(sonde_store_writer *w, const sonde_h5_layout *l, sonde_h5_cursor *c,
                                       sonde_err *err)
{
    const sonde_h5_task task = {w->path,       l->create ? -1 : w->fd, false, LAYOUT_CPU_S,
                                LAYOUT_MEMORY, sonde_h5_lay_out,       l};
    return sonde_h5_run(&task, w->arena, c, err);
}

static enum sonde_code bad_layout(const sonde_store_writer *w, sonde_err *err)
{
    return sonde_fail(err, SONDE_E_INPUT, "%s: HDF5 laid it out in a way that makes no sense", w->part);
}

/* Does [at, at + n) touch the data of any dataset? */
static bool touches_data(const sonde_store_writer *w, uint64_t at, uint64_t n)
{
    for (size_t i = 0; i <= w->n_datasets; i++) {
        const sonde_store_rows *r = &w->rows[i];
        uint64_t bytes = r->n_rows * r->row_bytes;
        if (n > 0 && bytes > 0 && at < r->offset + bytes && r->offset < at + n)
            return true;
    }
    return false;
}

enum sonde_code sonde_store_take_offsets(sonde_store_writer *w, sonde_h5_cursor *c, bool first_time,
                                         uint64_t *file_bytes, sonde_err *err)
{
    uint64_t total = sonde_h5_get_u64(c);
    bool ok = total <= INT64_MAX && (first_time || total >= w->file_bytes);
    for (size_t i = 0; i <= w->n_datasets && ok; i++) {
        sonde_store_rows *r = &w->rows[i];
        uint64_t offset = sonde_h5_get_u64(c);
        ok = sonde_inside(offset, r->n_rows * r->row_bytes, total) && (first_time || offset == r->offset);
        r->offset = offset;
    }
    *file_bytes = total;
    sonde_h5_cursor writes = *c;
    uint64_t n = ok ? sonde_h5_get_u64(&writes) : 0;
    for (; n > 0 && ok; n--) {
        size_t len;
        uint64_t at = sonde_h5_get_u64(&writes);
        (void)sonde_h5_get_bytes(&writes, &len);
        ok = !writes.bad && sonde_inside(at, len, total) && !touches_data(w, at, len);
    }
    return ok && !writes.bad ? SONDE_OK : bad_layout(w, err);
}

enum sonde_code sonde_store_apply(sonde_store_writer *w, sonde_h5_cursor c, sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    for (uint64_t n = sonde_h5_get_u64(&c); n > 0 && !rc; n--) {
        size_t len;
        uint64_t at = sonde_h5_get_u64(&c);
        const unsigned char *bytes = sonde_h5_get_bytes(&c, &len);
        rc = sonde_pwrite_all(w->fd, bytes, len, at, w->part, err);
    }
    return rc;
}

/* From nothing: whatever part held is gone. The journal goes first, so that it never speaks of another file.
 */
static enum sonde_code lay_out(sonde_store_writer *w, sonde_err *err)
{
    const sonde_h5_layout l = {true, w->dataset, w->n_datasets + 1, w->attr, w->n_attrs};
    sonde_h5_cursor c;
    uint64_t bytes;
    enum sonde_code rc = sonde_store_run_layout(w, &l, &c, err);
    if (rc || (rc = sonde_store_take_offsets(w, &c, true, &bytes, err)))
        return rc;
    w->owned = true;
    if ((unlink(w->journal) && errno != ENOENT) || ftruncate(w->fd, 0))
        return sonde_fail(err, SONDE_E_IO, "%s: cannot start again: %s", w->part, strerror(errno));
    (void)unlink(w->journal_new);
    if ((rc = sonde_store_reserve(w, bytes, err)) || (rc = sonde_store_apply(w, c, err)))
        return rc;
    return sonde_sync_parent(w->part, err);
}

static enum sonde_code give(sonde_store_writer *w, enum sonde_code rc, sonde_store_writer **out)
{
    if (!rc) {
        *out = w;
        return rc;
    }
    if (w->owned)
        (void)unlink(w->part);
    sonde_store_writer_free(w);
    return rc;
}

enum sonde_code sonde_store_create(const char *path, const sonde_store_layout *layout, bool overwrite,
                                   sonde_store_writer **out, sonde_err *err)
{
    sonde_store_writer *w;
    struct stat st, there;
    bool exists;
    enum sonde_code rc = writer_new(path, &w, &exists, err);
    if (rc)
        return rc;
    w->overwrite = overwrite;
    if (exists && !overwrite)
        rc = sonde_fail(err, SONDE_E_USAGE, "%s: exists already; --force replaces it", path);
    if (!rc)
        rc = sonde_store_plan(w, layout, err);
    if (!rc) {
        w->owned = lstat(w->part, &there) != 0 && errno == ENOENT;
        if ((rc = open_part(w, true, &st, err)))
            w->owned = false;
    }
    if (!rc && !overwrite && st.st_size > 0)
        rc = sonde_fail(
            err, SONDE_E_USAGE,
            "%s: is left from a run that did not finish; --resume continues it, --force starts again",
            w->part);
    if (rc && !w->owned)
        return give(w, rc, out);
    return give(w, rc ? rc : lay_out(w, err), out);
}

/* ---- going on after a kill --------------------------------------------------------------------- */

/* Finishing had begun: put back what it replaced. */
static enum sonde_code undo_finish(sonde_store_writer *w, const sonde_store_record *r, sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    for (size_t at = 0; at < r->n_undo && !rc;) {
        uint64_t head[2];
        if (r->n_undo - at < sizeof head)
            return sonde_fail(err, SONDE_E_INPUT, "%s: a record in it makes no sense", w->journal);
        memcpy(head, r->undo + at, sizeof head);
        at += sizeof head;
        if (!sonde_inside(at, head[1], r->n_undo) || !sonde_inside(head[0], head[1], r->file_bytes))
            return sonde_fail(err, SONDE_E_INPUT, "%s: a record in it makes no sense", w->journal);
        rc = sonde_pwrite_all(w->fd, r->undo + at, (size_t)head[1], head[0], w->part, err);
        at += (size_t)head[1];
    }
    if (!rc && r->n_undo > 0) {
        if (ftruncate(w->fd, (off_t)r->file_bytes))
            return sonde_fail(err, SONDE_E_IO, "%s: %s", w->part, strerror(errno));
        rc = sonde_store_sync(w, false, err);
    }
    return rc;
}

/* The sums that were in the file when the journal was written. */
static enum sonde_code load_sums(sonde_store_writer *w, const sonde_store_record *r, sonde_err *err)
{
    if (r->n_known != (w->n_blocks + 7) / 8)
        return sonde_fail(err, SONDE_E_INPUT, "%s: is the journal of another file", w->journal);
    enum sonde_code rc = sonde_store_pread(w->fd, w->sum, w->n_blocks * sizeof *w->sum,
                                           w->rows[w->n_datasets].offset, w->part, err);
    for (size_t d = 0; d < w->n_datasets && !rc; d++) {
        const sonde_store_rows *rows = &w->rows[d];
        uint64_t n = rows->row_bytes ? sonde_store_n_blocks(rows->n_rows, rows->block_rows) : 0;
        for (uint64_t b = 0; b < n; b++) {
            size_t i = rows->first_block + (size_t)b;
            if (r->known[i / 8] >> (i % 8) & 1) {
                w->saved[i] = 1;
                atomic_store(&w->count[i], (uint32_t)sonde_store_rows_in_block(rows, b));
            }
        }
    }
    return rc;
}

/* Part as the journal left it: its structure is read like a stranger's and must be the one planned. */
static enum sonde_code go_on(sonde_store_writer *w, const sonde_store_record *r, sonde_err *err)
{
    sonde_h5_table table;
    struct stat st;
    enum sonde_code rc = undo_finish(w, r, err);
    if (rc)
        return rc;
    if (fstat(w->fd, &st))
        return sonde_fail(err, SONDE_E_IO, "%s: %s", w->part, strerror(errno));
    if ((uint64_t)st.st_size < r->file_bytes)
        return sonde_fail(
            err, SONDE_E_INPUT,
            "%s: has %lld bytes, its journal says %llu; it is damaged, start again with --force", w->part,
            (long long)st.st_size, (unsigned long long)r->file_bytes);
    w->file_bytes = r->file_bytes;
    w->overwrite = r->overwrite;
    rc = sonde_h5_table_read(w->part, w->fd, w->file_bytes, NULL, w->arena, &table, err);
    if (!rc)
        rc = sonde_store_match(w, &table, err);
    return rc ? rc : load_sums(w, r, err);
}

enum sonde_code sonde_store_resume(const char *path, const sonde_store_layout *layout,
                                   sonde_store_writer **out, void **state, size_t *n_state, sonde_err *err)
{
    sonde_store_writer *w;
    sonde_store_record r = {0};
    struct stat st;
    bool exists, found = false;
    unsigned char *copy = NULL;
    enum sonde_code rc = writer_new(path, &w, &exists, err);
    if (rc)
        return rc;
    if ((rc = sonde_store_plan(w, layout, err)) || (rc = open_part(w, false, &st, err)) ||
        (rc = sonde_store_journal_read(w, &r, &found, err)))
        return give(w, rc, out);
    if (found)
        rc = go_on(w, &r, err);
    if (!rc && exists && !w->overwrite)
        rc = sonde_fail(err, SONDE_E_USAGE, "%s: exists already; --force replaces it", path);
    if (!rc && !found)
        rc = lay_out(w, err);
    if (!rc && !(copy = malloc(r.n_state + 1)))
        rc = sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for %zu bytes of state", path, r.n_state);
    if (!rc) {
        if (r.n_state)
            memcpy(copy, r.state, r.n_state);
        *state = copy;
        *n_state = r.n_state;
    }
    return give(w, rc, out);
}

const char *sonde_store_resume_note(const sonde_store_writer *w)
{
    return w->note[0] ? w->note : NULL;
}
