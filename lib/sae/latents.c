/* SPDX-License-Identifier: MIT
 * First the entries go to a nameless file, piece by piece; when their number is known the result is laid out
 * and they are copied. */
#include "latents.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/replace.h"
#include "../base/size.h"
#include "dict_file.h"
#include "metrics.h"

#define MAX_ATTRS   24
#define N_OUR_ATTRS 8
#define MAX_COPY    ((size_t)1 << 20) /* entries copied at a time */

enum dataset { INDPTR, INDICES, VALUES, ROW, TOKEN, ID, N_DATASETS };

/* One piece in the nameless file: this, then row, token int64 [n], id int32 [n], count uint32 [n], col uint32
 * [entries], value float32 [entries]. */
struct piece {
    uint64_t n_rows, n_entries;
};

struct spill {
    int fd;
    char *path; /* for messages: the directory */
    uint64_t bytes, n_rows, n_entries;
};

struct job {
    const char *path;
    const sonde_dict *d;
    sonde_encoder *encoder;
    const sonde_latents_options *o;
    const sonde_work *work;
    struct spill spill;
    sonde_sparse f;
    size_t pass_rows;
    int64_t *row, *token, *indptr; /* [pass_rows], indptr [pass_rows + 1] */
    int32_t *id;
    uint32_t *count;
    uint32_t *copy; /* [MAX_COPY] */
    sonde_arena *arena;
};

/* ---- the nameless file ----------------------------------------------------------------------- */

static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    return !slash ? strdup(".") : n == 0 ? strdup("/") : strndup(path, n);
}

static int open_named(const char *directory)
{
    size_t n = strlen(directory) + sizeof "/.sonde-latents-XXXXXX";
    char *name = malloc(n);
    if (!name)
        return -1;
    snprintf(name, n, "%s/.sonde-latents-XXXXXX", directory);
    int fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0)
        (void)unlink(name);
    free(name);
    return fd;
}

static enum sonde_code spill_open(struct spill *s, const char *path, sonde_err *err)
{
    if (!(s->path = directory_of(path)))
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to write it", path);
    s->fd = open(s->path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (s->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
        s->fd = open_named(s->path);
    if (s->fd < 0)
        return sonde_fail(err, SONDE_E_IO, "%s: cannot write in %s: %s", path, s->path, strerror(errno));
    return SONDE_OK;
}

static enum sonde_code spill_put(struct spill *s, const void *data, size_t n, sonde_err *err)
{
    enum sonde_code code = sonde_pwrite_all(s->fd, data, n, s->bytes, s->path, err);
    s->bytes += code ? 0 : n;
    return code ? sonde_err_wrap(err, "temporary entries: ") : SONDE_OK;
}

static enum sonde_code spill_get(const struct spill *s, uint64_t at, void *data, size_t n, sonde_err *err)
{
    unsigned char *p = data;
    while (n > 0) {
        ssize_t k = pread(s->fd, p, n, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return sonde_fail(err, SONDE_E_IO, "temporary entries in %s: %s", s->path,
                              k ? strerror(errno) : "cut short");
        p += k;
        n -= (size_t)k;
        at += (uint64_t)k;
    }
    return SONDE_OK;
}

/* ---- encoding -------------------------------------------------------------------------------- */

static void describe_rows(struct job *j, const sonde_pass_rows *r)
{
    for (size_t i = 0; i < r->n; i++) {
        j->row[i] = r->row ? (int64_t)r->row[i] : -1;
        j->token[i] = r->token && r->token[i] != UINT64_MAX ? (int64_t)r->token[i] : -1;
        j->id[i] = r->id ? r->id[i] : -1;
        j->count[i] = (uint32_t)(j->f.start[i + 1] - j->f.start[i]);
    }
}

static enum sonde_code put_piece(struct job *j, const sonde_pass_rows *r, sonde_err *err)
{
    struct piece p = {r->n, j->f.start[r->n]};
    struct spill *s = &j->spill;
    enum sonde_code code;
    describe_rows(j, r);
    if ((code = spill_put(s, &p, sizeof p, err)) ||
        (code = spill_put(s, j->row, r->n * sizeof *j->row, err)) ||
        (code = spill_put(s, j->token, r->n * sizeof *j->token, err)) ||
        (code = spill_put(s, j->id, r->n * sizeof *j->id, err)) ||
        (code = spill_put(s, j->count, r->n * sizeof *j->count, err)) ||
        (code = spill_put(s, j->f.col, (size_t)p.n_entries * sizeof *j->f.col, err)) ||
        (code = spill_put(s, j->f.value, (size_t)p.n_entries * sizeof *j->f.value, err)))
        return code;
    s->n_rows += p.n_rows;
    s->n_entries += p.n_entries;
    return SONDE_OK;
}

static enum sonde_code encode_pass(struct job *j, sonde_source *source, uint64_t n_rows, sonde_err *err)
{
    enum sonde_code code = sonde_source_pass_begin(source, j->o->split, err);
    while (!code && j->spill.n_rows < n_rows) {
        sonde_pass_rows r;
        uint64_t left = n_rows - j->spill.n_rows;
        size_t want = left < j->pass_rows ? (size_t)left : j->pass_rows;
        if ((code = sonde_source_pass_next(source, want, &r, j->work, err)) || r.n == 0)
            break;
        code = sonde_encoder_encode(j->encoder, r.x, j->d->d_in, r.n, j->work ? j->work->pool : NULL, &j->f,
                                    err);
        if (!code)
            code = put_piece(j, &r, err);
        sonde_work_report(j->work, "encoding", "rows", j->spill.n_rows, n_rows);
        if (!code && sonde_work_stopped(j->work))
            code = sonde_fail(err, SONDE_E_STOPPED, "stopped after %" PRIu64 " rows; nothing was saved",
                              j->spill.n_rows);
    }
    if (!code && j->spill.n_rows == 0)
        code = sonde_fail(err, SONDE_E_USAGE, "the split has no rows to encode");
    return code;
}

/* ---- the result ------------------------------------------------------------------------------ */

/* n 4-byte values from the nameless file into rows `first`.. of a dataset. */
static enum sonde_code copy_values(const struct job *j, sonde_store_writer *w, enum dataset to, uint64_t at,
                                   uint64_t first, uint64_t n, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    for (uint64_t done = 0; done < n && !code;) {
        size_t k = n - done < MAX_COPY ? (size_t)(n - done) : MAX_COPY;
        if (!(code = spill_get(&j->spill, at + done * 4, j->copy, k * 4, err)))
            code = sonde_store_write(w, to, first + done, k, j->copy, err);
        done += k;
    }
    return code;
}

static enum sonde_code copy_piece(const struct job *j, sonde_store_writer *w, uint64_t *at, uint64_t *row,
                                  uint64_t *entry, sonde_err *err)
{
    struct piece p;
    enum sonde_code code = spill_get(&j->spill, *at, &p, sizeof p, err);
    if (code)
        return code;
    size_t n = (size_t)p.n_rows;
    uint64_t rows_at = *at + sizeof p, token_at = rows_at + 8 * n, id_at = token_at + 8 * n,
             count_at = id_at + 4 * n, col_at = count_at + 4 * n, value_at = col_at + 4 * p.n_entries;
    if ((code = spill_get(&j->spill, rows_at, j->row, 8 * n, err)) ||
        (code = spill_get(&j->spill, token_at, j->token, 8 * n, err)) ||
        (code = spill_get(&j->spill, id_at, j->id, 4 * n, err)) ||
        (code = spill_get(&j->spill, count_at, j->count, 4 * n, err)))
        return code;
    j->indptr[0] = (int64_t)*entry;
    for (size_t i = 0; i < n; i++)
        j->indptr[i + 1] = j->indptr[i] + (int64_t)j->count[i];
    if ((code = sonde_store_write(w, ROW, *row, n, j->row, err)) ||
        (code = sonde_store_write(w, TOKEN, *row, n, j->token, err)) ||
        (code = sonde_store_write(w, ID, *row, n, j->id, err)) ||
        (code = sonde_store_write(w, INDPTR, *row + 1, n, j->indptr + 1, err)) ||
        (code = copy_values(j, w, INDICES, col_at, *entry, p.n_entries, err)) ||
        (code = copy_values(j, w, VALUES, value_at, *entry, p.n_entries, err)))
        return code;
    *row += n;
    *entry += p.n_entries;
    *at = value_at + 4 * p.n_entries;
    return SONDE_OK;
}

static enum sonde_code copy_pieces(const struct job *j, sonde_store_writer *w, sonde_err *err)
{
    uint64_t at = 0, row = 0, entry = 0;
    enum sonde_code code = sonde_store_write(w, INDPTR, 0, 1, &(int64_t){0}, err);
    while (!code && at < j->spill.bytes) {
        code = copy_piece(j, w, &at, &row, &entry, err);
        sonde_work_report(j->work, "writing", "rows", row, j->spill.n_rows);
        if (!code && sonde_work_stopped(j->work))
            code = sonde_fail(err, SONDE_E_STOPPED, "stopped while writing; nothing was saved");
    }
    return code;
}

/* A .part that nobody can resume: what a killed run of ours left. */
static bool is_stale(const char *path)
{
    struct stat st;
    size_t n = strlen(path) + sizeof ".part.journal";
    char *journal = malloc(n);
    if (!journal)
        return false;
    snprintf(journal, n, "%s.part.journal", path);
    bool stale = lstat(path, &st) != 0 && errno == ENOENT && lstat(journal, &st) != 0 && errno == ENOENT;
    free(journal);
    return stale;
}

static size_t our_attrs(const struct job *j, const sonde_source_info *about, const char *sha256,
                        sonde_store_attr *a)
{
    static const char *const splits[] = {"train", "heldout", "all"};
    size_t n = 0;
    a[n++] = (sonde_store_attr){.path = "/", .name = "format", .s = "sonde-latents"};
    a[n++] = (sonde_store_attr){.path = "/", .name = "format_version", .s = "1.0"};
    a[n++] = (sonde_store_attr){.path = "/", .name = "n_latents", .i = (int64_t)j->d->n_latents};
    a[n++] = (sonde_store_attr){.path = "/", .name = "n_rows", .i = (int64_t)j->spill.n_rows};
    a[n++] = (sonde_store_attr){.path = "/", .name = "sae_sha256", .s = sha256};
    a[n++] = (sonde_store_attr){.path = "/", .name = "source", .s = about->identity};
    if (about->hook[0])
        a[n++] = (sonde_store_attr){.path = "/", .name = "hook", .s = about->hook};
    a[n++] = (sonde_store_attr){.path = "/", .name = "split", .s = splits[j->o->split]};
    for (size_t i = 0; i < j->o->n_attrs; i++)
        a[n++] = j->o->attr[i];
    return n;
}

static enum sonde_code lay_out_and_copy(const struct job *j, const sonde_source_info *about, sonde_err *err)
{
    uint64_t n = j->spill.n_rows, e = j->spill.n_entries;
    const sonde_store_dataset dataset[N_DATASETS] = {
        [INDPTR] = {.path = "/indptr", .dtype = SONDE_I64, .rank = 1, .dim = {n + 1}},
        [INDICES] = {.path = "/indices", .dtype = SONDE_I32, .rank = 1, .dim = {e}},
        [VALUES] = {.path = "/values", .dtype = SONDE_F32, .rank = 1, .dim = {e}},
        [ROW] = {.path = "/rows/row", .dtype = SONDE_I64, .rank = 1, .dim = {n}},
        [TOKEN] = {.path = "/rows/token", .dtype = SONDE_I64, .rank = 1, .dim = {n}},
        [ID] = {.path = "/rows/id", .dtype = SONDE_I32, .rank = 1, .dim = {n}},
    };
    sonde_store_attr attr[N_OUR_ATTRS + MAX_ATTRS];
    char sha256[65];
    sonde_store_writer *w = NULL;
    enum sonde_code code = sonde_dict_identity(j->d, sha256, err);
    if (code)
        return code;
    sonde_store_layout layout = {dataset, N_DATASETS, attr, our_attrs(j, about, sha256, attr)};
    if ((code = sonde_store_create(j->path, &layout, j->o->overwrite || is_stale(j->path), &w, err)))
        return code;
    if ((code = copy_pieces(j, w, err))) {
        sonde_store_abandon(w, false);
        return code;
    }
    return sonde_store_finish(w, NULL, 0, err);
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* What can be refused before anything is encoded is. */
static enum sonde_code check(const struct job *j, const sonde_source *source, sonde_err *err)
{
    struct stat st;
    enum sonde_code code = sonde_dict_fits(j->d, source, err);
    if (code)
        return code;
    if (j->o->n_attrs > MAX_ATTRS)
        return sonde_fail(err, SONDE_E_USAGE, "%zu attributes, at most %d fit", j->o->n_attrs, MAX_ATTRS);
    if (j->d->n_latents > INT32_MAX)
        return sonde_fail(err, SONDE_E_USAGE, "%zu latents do not fit 32-bit indices", j->d->n_latents);
    if (stat(j->path, &st))
        return SONDE_OK;
    if (!S_ISREG(st.st_mode))
        return sonde_fail(err, SONDE_E_USAGE, "%s: is %s, it cannot be replaced; name a file", j->path,
                          S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
    if (!j->o->overwrite)
        return sonde_fail(err, SONDE_E_USAGE, "%s: exists already; --force replaces it", j->path);
    return SONDE_OK;
}

static enum sonde_code take_buffers(struct job *j, sonde_err *err)
{
    size_t n = j->pass_rows;
    if (!(j->arena = sonde_arena_new(j->work ? j->work->budget : NULL, err)) ||
        !(j->row = sonde_arena_get(j->arena, n, sizeof *j->row, err)) ||
        !(j->token = sonde_arena_get(j->arena, n, sizeof *j->token, err)) ||
        !(j->indptr = sonde_arena_get(j->arena, n + 1, sizeof *j->indptr, err)) ||
        !(j->id = sonde_arena_get(j->arena, n, sizeof *j->id, err)) ||
        !(j->count = sonde_arena_get(j->arena, n, sizeof *j->count, err)) ||
        !(j->copy = sonde_arena_get(j->arena, MAX_COPY, sizeof *j->copy, err)))
        return SONDE_E_MEMORY;
    return SONDE_OK;
}

enum sonde_code sonde_latents_write(const char *path, const sonde_dict *d, sonde_encoder *e, sonde_source *s,
                                    const sonde_latents_options *o, const sonde_work *work,
                                    sonde_latents_result *result, sonde_err *err)
{
    struct job j = {.path = path, .d = d, .encoder = e, .o = o, .work = work, .spill.fd = -1};
    uint64_t n_rows = sonde_pass_n_rows(s, o->split, o->max_rows);
    j.f.budget = work ? work->budget : NULL;
    j.pass_rows = sonde_pass_rows_for(d);
    enum sonde_code code = check(&j, s, err);
    if (!code && !(code = take_buffers(&j, err)) && !(code = spill_open(&j.spill, path, err)) &&
        !(code = encode_pass(&j, s, n_rows, err)) &&
        !(code = lay_out_and_copy(&j, sonde_source_about(s), err)))
        *result = (sonde_latents_result){j.spill.n_rows, j.spill.n_entries};
    if (j.spill.fd >= 0)
        close(j.spill.fd);
    free(j.spill.path);
    sonde_sparse_free(&j.f);
    sonde_arena_free(j.arena);
    return code;
}
