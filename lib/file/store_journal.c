/* SPDX-License-Identifier: MIT
 * The journal of a writer: path.part.journal = newest record, the record before it, where that one begins.
 *
 * A record is [magic, bytes of payload, XXH3 of payload, payload]. The file is replaced whole, so neither
 * record is ever torn; the older one serves when the newer one was damaged afterwards. */
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

#define MAGIC         UINT64_C(0x314c4e524a444e53) /* "SNDJRNL1" */
#define HEAD_BYTES    24
#define FIXED_BYTES   40
#define FOOT_BYTES    16
#define JOURNAL_LIMIT ((off_t)1 << 32)

static uint64_t get(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Bytes of the record at p of n, or 0 if there is no sound one. */
static size_t record_bytes(const unsigned char *p, size_t n)
{
    if (n < HEAD_BYTES + FIXED_BYTES || get(p) != MAGIC)
        return 0;
    uint64_t payload = get(p + 8);
    if (payload < FIXED_BYTES || payload > n - HEAD_BYTES ||
        sonde_xxh3(p + HEAD_BYTES, (size_t)payload) != get(p + 16))
        return 0;
    return HEAD_BYTES + (size_t)payload;
}

bool sonde_store_record_parse(const unsigned char *bytes, size_t n, sonde_store_record *r)
{
    const unsigned char *p = bytes + HEAD_BYTES, *body = p + FIXED_BYTES;
    uint64_t left = n - HEAD_BYTES - FIXED_BYTES, known = get(p + 16), state = get(p + 24),
             undo = get(p + 32);
    if (!sonde_inside(0, known, left) || !sonde_inside(known, state, left) || undo != left - known - state)
        return false;
    *r = (sonde_store_record){.overwrite = get(p) & 1,
                              .file_bytes = get(p + 8),
                              .known = body,
                              .n_known = (size_t)known,
                              .state = body + known,
                              .n_state = (size_t)state,
                              .undo = body + known + state,
                              .n_undo = (size_t)undo};
    return true;
}

static unsigned char *record_make(const sonde_store_record *r, size_t *n)
{
    size_t payload;
    if (!sonde_add(&payload, FIXED_BYTES + r->n_known, r->n_state) ||
        !sonde_add(&payload, payload, r->n_undo))
        return NULL;
    unsigned char *bytes = malloc(HEAD_BYTES + payload), *p = bytes ? bytes + HEAD_BYTES : NULL;
    if (!bytes)
        return NULL;
    const uint64_t fixed[5] = {r->overwrite, r->file_bytes, r->n_known, r->n_state, r->n_undo};
    memcpy(p, fixed, sizeof fixed);
    p += sizeof fixed;
    memcpy(p, r->known, r->n_known);
    if (r->n_state)
        memcpy(p + r->n_known, r->state, r->n_state);
    if (r->n_undo)
        memcpy(p + r->n_known + r->n_state, r->undo, r->n_undo);
    const uint64_t head[3] = {MAGIC, payload, sonde_xxh3(bytes + HEAD_BYTES, payload)};
    memcpy(bytes, head, sizeof head);
    *n = HEAD_BYTES + payload;
    return bytes;
}

static enum sonde_code write_new(sonde_store_writer *w, const unsigned char *record, size_t n, sonde_err *err)
{
    const uint64_t foot[2] = {n, MAGIC};
    int fd = open(w->journal_new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0)
        return sonde_fail(err, SONDE_E_IO, "%s: %s", w->journal_new, strerror(errno));
    enum sonde_code rc = sonde_pwrite_all(fd, record, n, 0, w->journal_new, err);
    if (!rc && w->record)
        rc = sonde_pwrite_all(fd, w->record, w->n_record, n, w->journal_new, err);
    if (!rc)
        rc = sonde_pwrite_all(fd, foot, sizeof foot, n + (w->record ? w->n_record : 0), w->journal_new, err);
    int synced = -1;
    while (!rc && (synced = fsync(fd)) && errno == EINTR)
        ;
    if (!rc && synced)
        rc = sonde_fail(err, SONDE_E_IO, "%s: cannot sync: %s", w->journal_new, strerror(errno));
    if (close(fd) && !rc)
        rc = sonde_fail(err, SONDE_E_IO, "%s: cannot close: %s", w->journal_new, strerror(errno));
    if (!rc && rename(w->journal_new, w->journal))
        rc = sonde_fail(err, SONDE_E_IO, "%s: cannot rename to it: %s", w->journal, strerror(errno));
    if (rc)
        (void)unlink(w->journal_new);
    return rc;
}

enum sonde_code sonde_store_journal_write(sonde_store_writer *w, const sonde_store_record *r, sonde_err *err)
{
    size_t n;
    unsigned char *record = record_make(r, &n);
    if (!record)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the journal", w->journal);
    enum sonde_code rc = write_new(w, record, n, err);
    if (rc) {
        free(record);
        return rc;
    }
    free(w->record);
    w->record = record;
    w->n_record = n;
    return sonde_sync_parent(w->journal, err);
}

/* The whole file, malloc'd; NULL with *n = 0 when there is none. */
static enum sonde_code slurp(const char *path, unsigned char **bytes, size_t *n, sonde_err *err)
{
    struct stat st;
    enum sonde_code rc = SONDE_OK;
    *bytes = NULL;
    *n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? SONDE_OK : sonde_fail(err, SONDE_E_IO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > JOURNAL_LIMIT)
        rc = sonde_fail(err, SONDE_E_INPUT, "%s: is not a journal", path);
    else if (!(*bytes = malloc((size_t)st.st_size + 1)))
        rc = sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for %lld bytes", path, (long long)st.st_size);
    else
        rc = sonde_store_pread(fd, *bytes, (size_t)st.st_size, 0, path, err);
    close(fd);
    if (rc) {
        free(*bytes);
        *bytes = NULL;
        return rc;
    }
    *n = (size_t)st.st_size;
    return SONDE_OK;
}

enum sonde_code sonde_store_journal_read(sonde_store_writer *w, sonde_store_record *r, bool *found,
                                         sonde_err *err)
{
    unsigned char *bytes;
    size_t n, at = 0;
    *found = false;
    enum sonde_code rc = slurp(w->journal, &bytes, &n, err);
    if (rc || !bytes)
        return rc;
    size_t record = record_bytes(bytes, n);
    if (!record) { /* the one before it, found from the end */
        at = n >= FOOT_BYTES && get(bytes + n - 8) == MAGIC ? (size_t)get(bytes + n - FOOT_BYTES) : n;
        record = at < n ? record_bytes(bytes + at, n - at) : 0;
        snprintf(w->note, sizeof w->note, "%.300s fails its checksum; %s", w->journal,
                 record ? "going on from the record before it" : "starting again from the first row");
    }
    if (record && (w->record = malloc(record))) {
        memcpy(w->record, bytes + at, record);
        w->n_record = record;
        *found = sonde_store_record_parse(w->record, record, r);
    }
    free(bytes);
    if (record && !*found)
        return sonde_fail(err, w->record ? SONDE_E_INPUT : SONDE_E_MEMORY, "%s: %s", w->journal,
                          w->record ? "a record in it makes no sense" : "no memory for it");
    return SONDE_OK;
}
