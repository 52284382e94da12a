/* SPDX-License-Identifier: MIT
 * Stored members one after the other, each aligned to 64 bytes by an extra field as torch does it, then the
 * directory (PKWARE's APPNOTE 6.3). */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "../base/replace.h"
#include "../base/size.h"
#include "grow_impl.h"
#include "zip_impl.h"

#define ALIGNMENT    64
#define PADDING_ID   0x4246 /* "FB" */
#define VERSION      20
#define VERSION_WIDE 45
#define UTF8_NAMES   0x0800
#define MADE_ON_UNIX 0x0300
#define MODE         0x81a40000u /* -rw-r--r-- */
#define DATE         0x0021      /* 1 January 1980 */

struct sonde_zip_writer {
    sonde_replace *file;
    uint64_t at, n_members;
    uint32_t wide;
    struct grow head, directory;
};

static void put2(struct grow *b, unsigned x)
{
    grow_put(b, &(uint16_t){(uint16_t)x}, 2);
}

static void put4(struct grow *b, uint32_t x)
{
    grow_put(b, &x, 4);
}

static void put8(struct grow *b, uint64_t x)
{
    grow_put(b, &x, 8);
}

static bool is_wide(const sonde_zip_writer *w, uint64_t x)
{
    return x >= w->wide;
}

static uint32_t narrow(const sonde_zip_writer *w, uint64_t x)
{
    return is_wide(w, x) ? 0xffffffffu : (uint32_t)x;
}

enum sonde_code sonde_zip_begin(const char *path, bool overwrite, uint32_t wide, sonde_zip_writer **out,
                                sonde_err *err)
{
    sonde_zip_writer *w = calloc(1, sizeof *w);
    if (!w)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to write it", path);
    enum sonde_code rc = sonde_replace_begin(path, overwrite, &w->file, err);
    if (rc != SONDE_OK) {
        free(w);
        return rc;
    }
    w->wide = wide;
    *out = w;
    return SONDE_OK;
}

static enum sonde_code emit(sonde_zip_writer *w, const void *data, size_t n, sonde_err *err)
{
    w->at += n;
    return sonde_replace_write(w->file, data, n, err);
}

/* The fields that both headers of a member have, from "version needed" to the length of the name. */
static void put_common(sonde_zip_writer *w, struct grow *b, bool wide, uint32_t crc, uint64_t n,
                       size_t n_name)
{
    put2(b, wide ? VERSION_WIDE : VERSION);
    put2(b, UTF8_NAMES);
    put2(b, SONDE_ZIP_STORED);
    put2(b, 0); /* time */
    put2(b, DATE);
    put4(b, crc);
    put4(b, narrow(w, n));
    put4(b, narrow(w, n));
    put2(b, (unsigned)n_name);
}

/* The header before the data, padded so that what follows n_head more bytes is aligned. */
static void put_local(sonde_zip_writer *w, const char *name, size_t n_name, uint32_t crc, uint64_t n,
                      size_t n_head)
{
    static const unsigned char zero[ALIGNMENT];
    struct grow *b = &w->head;
    unsigned n_wide = is_wide(w, n) ? 20 : 0;
    uint64_t end = w->at + 30 + n_name + n_wide + 4 + n_head;
    unsigned padding = (unsigned)((ALIGNMENT - end % ALIGNMENT) % ALIGNMENT);
    b->n = 0;
    grow_put(b, "PK\3\4", 4);
    put_common(w, b, n_wide > 0, crc, n, n_name);
    put2(b, n_wide + 4 + padding);
    grow_put(b, name, n_name);
    if (n_wide) {
        put2(b, 1);
        put2(b, 16);
        put8(b, n);
        put8(b, n);
    }
    put2(b, PADDING_ID);
    put2(b, padding);
    grow_put(b, zero, padding);
}

static void put_entry(sonde_zip_writer *w, const char *name, size_t n_name, uint32_t crc, uint64_t n,
                      uint64_t at)
{
    struct grow *b = &w->directory;
    unsigned n_wide = (is_wide(w, n) ? 16u : 0u) + (is_wide(w, at) ? 8u : 0u);
    grow_put(b, "PK\1\2", 4);
    put2(b, MADE_ON_UNIX | (n_wide ? VERSION_WIDE : VERSION));
    put_common(w, b, n_wide > 0, crc, n, n_name);
    put2(b, n_wide ? n_wide + 4 : 0);
    put2(b, 0); /* comment */
    put2(b, 0); /* disk */
    put2(b, 0);
    put4(b, MODE);
    put4(b, narrow(w, at));
    grow_put(b, name, n_name);
    if (n_wide) {
        put2(b, 1);
        put2(b, n_wide);
        if (is_wide(w, n)) {
            put8(b, n);
            put8(b, n);
        }
        if (is_wide(w, at))
            put8(b, at);
    }
}

enum sonde_code sonde_zip_add(sonde_zip_writer *w, const char *name, const void *head, size_t n_head,
                              const void *data, size_t n, sonde_err *err)
{
    size_t n_name = strlen(name), whole;
    if (n_name > 0xffff || !sonde_add(&whole, n_head, n))
        return sonde_fail(err, SONDE_E_USAGE, "a zip has no room for member '%.100s'", name);
    uLong crc = n_head ? crc32_z(0, head, n_head) : 0;
    crc = n ? crc32_z(crc, data, n) : crc;
    uint64_t at = w->at;
    put_local(w, name, n_name, (uint32_t)crc, whole, n_head);
    put_entry(w, name, n_name, (uint32_t)crc, whole, at);
    if (w->head.failed || w->directory.failed)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for the directory of a zip of %llu members",
                          (unsigned long long)w->n_members);
    w->n_members++;
    enum sonde_code rc = emit(w, w->head.p, w->head.n, err);
    if (rc == SONDE_OK && n_head)
        rc = emit(w, head, n_head, err);
    return rc == SONDE_OK && n ? emit(w, data, n, err) : rc;
}

static void put_end(sonde_zip_writer *w)
{
    struct grow *b = &w->directory;
    uint64_t n_bytes = b->n, at = w->at, n = w->n_members;
    bool many = n >= 0xffff || is_wide(w, n);
    if (many || is_wide(w, n_bytes) || is_wide(w, at)) {
        grow_put(b, "PK\6\6", 4);
        put8(b, 44); /* of this record, behind this number */
        put2(b, MADE_ON_UNIX | VERSION_WIDE);
        put2(b, VERSION_WIDE);
        put8(b, 0); /* disks */
        put8(b, n);
        put8(b, n);
        put8(b, n_bytes);
        put8(b, at);
        grow_put(b, "PK\6\7", 4);
        put4(b, 0);
        put8(b, at + n_bytes);
        put4(b, 1);
    }
    grow_put(b, "PK\5\6", 4);
    put4(b, 0); /* disks */
    put2(b, many ? 0xffff : (unsigned)n);
    put2(b, many ? 0xffff : (unsigned)n);
    put4(b, narrow(w, n_bytes));
    put4(b, narrow(w, at));
    put2(b, 0); /* comment */
}

static void forget(sonde_zip_writer *w)
{
    free(w->head.p);
    free(w->directory.p);
    free(w);
}

enum sonde_code sonde_zip_commit(sonde_zip_writer *w, sonde_err *err)
{
    put_end(w);
    enum sonde_code rc =
        w->directory.failed
            ? sonde_fail(err, SONDE_E_MEMORY, "no memory for the directory of a zip of %llu members",
                         (unsigned long long)w->n_members)
            : emit(w, w->directory.p, w->directory.n, err);
    if (rc == SONDE_OK)
        rc = sonde_replace_commit(w->file, err);
    else
        sonde_replace_abandon(w->file);
    forget(w);
    return rc;
}

void sonde_zip_abandon(sonde_zip_writer *w)
{
    if (!w)
        return;
    sonde_replace_abandon(w->file);
    forget(w);
}
