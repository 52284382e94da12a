/* SPDX-License-Identifier: MIT
 * A zip of .npy arrays (PKWARE's APPNOTE 6.3). The directory at the end decides; each member's own header
 * must say the same, members must not overlap, and the checksums must be right. Stored members stay in the
 * mapping, deflated ones are inflated into the arena, after their shape has said how long they must become.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "../base/size.h"
#include "name_impl.h"
#include "npy_impl.h"
#include "tensors_impl.h"

#define END_BYTES     22 /* the record at the end, without its comment */
#define END64_BYTES   56
#define LOCATOR_BYTES 20
#define ENTRY_BYTES   46
#define LOCAL_BYTES   30
#define STORED        0
#define DEFLATED      8
#define MAX_EXPANSION 1032 /* of deflate: 258 bytes from two bits */

struct directory {
    uint64_t n_entries, begin, end; /* bytes [begin, end) of the file */
};

struct member {
    const char *name; /* n_name bytes, in the mapping */
    size_t n_name;
    unsigned method;
    uint32_t crc;
    uint64_t n_packed, n_bytes, local; /* local: where its own header is */
    size_t begin;                      /* of its packed bytes */
};

static uint16_t u16(const unsigned char *p)
{
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static uint32_t u32(const unsigned char *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static uint64_t u64(const unsigned char *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static enum sonde_code damaged(const sonde_map *m, const char *what, sonde_err *err)
{
    return sonde_fail(err, SONDE_E_INPUT, "%s: not a sound zip file: %s", m->path, what);
}

/* ---- the directory ----------------------------------------------------------------------------------------
 */

/* The record at the end: its comment reaches exactly to the end of the file. */
static bool find_end(const sonde_map *m, size_t *at)
{
    if (m->n_bytes < END_BYTES)
        return false;
    size_t last = m->n_bytes - END_BYTES, first = last > 65535 ? last - 65535 : 0;
    for (size_t i = last + 1; i-- > first;)
        if (memcmp(m->data + i, "PK\5\6", 4) == 0 && u16(m->data + i + 20) == last - i) {
            *at = i;
            return true;
        }
    return false;
}

static enum sonde_code find_directory(const sonde_map *m, struct directory *d, sonde_err *err)
{
    size_t at = 0;
    if (!find_end(m, &at))
        return damaged(m, "its last record is missing; the file is cut short or of another kind", err);
    const unsigned char *end = m->data + at;
    uint64_t n_bytes = u32(end + 12);
    d->n_entries = u16(end + 10);
    d->begin = u32(end + 16);
    d->end = at;
    if (u16(end + 4) != 0 || u16(end + 6) != 0 || u16(end + 8) != u16(end + 10))
        return damaged(m, "it spans several disks", err);
    if (d->n_entries == 0xffff || n_bytes == 0xffffffff || d->begin == 0xffffffff) {
        if (at < LOCATOR_BYTES || memcmp(end - LOCATOR_BYTES, "PK\6\7", 4) != 0)
            return damaged(m, "its zip64 locator is missing", err);
        uint64_t at64 = u64(end - LOCATOR_BYTES + 8);
        if (!sonde_inside(at64, END64_BYTES, at - LOCATOR_BYTES) || memcmp(m->data + at64, "PK\6\6", 4) != 0)
            return damaged(m, "its zip64 record is missing", err);
        d->n_entries = u64(m->data + at64 + 32);
        n_bytes = u64(m->data + at64 + 40);
        d->begin = u64(m->data + at64 + 48);
        d->end = at64;
    }
    if (!sonde_inside(d->begin, n_bytes, d->end) || d->begin + n_bytes != d->end)
        return damaged(m, "its directory is not where the last record says", err);
    if (d->n_entries > n_bytes / ENTRY_BYTES)
        return damaged(m, "its directory is too short for the number of members", err);
    return SONDE_OK;
}

/* Sizes and offset of an entry that says 0xffffffff are in its zip64 field. */
static bool widen(struct member *x, const unsigned char *extra, size_t n_extra)
{
    uint64_t *wide[3] = {&x->n_bytes, &x->n_packed, &x->local};
    bool need = x->n_bytes == 0xffffffff || x->n_packed == 0xffffffff || x->local == 0xffffffff;
    while (need && n_extra >= 4) {
        size_t id = u16(extra), n = u16(extra + 2);
        if (n > n_extra - 4)
            return false;
        const unsigned char *p = extra + 4;
        if (id == 1) {
            for (int i = 0; i < 3; i++) {
                if (*wide[i] != 0xffffffff)
                    continue;
                if (n < 8)
                    return false;
                *wide[i] = u64(p);
                p += 8;
                n -= 8;
            }
            return true;
        }
        extra += 4 + n;
        n_extra -= 4 + n;
    }
    return !need;
}

/* The entry at *at of the directory; *at moves past it. */
static enum sonde_code read_entry(const sonde_map *m, const struct directory *d, size_t *at, struct member *x,
                                  sonde_err *err)
{
    const unsigned char *p = m->data + *at; /* *at <= d->end */
    if (!sonde_inside(*at, ENTRY_BYTES, d->end) || memcmp(p, "PK\1\2", 4) != 0)
        return damaged(m, "an entry of its directory is missing", err);
    size_t n_name = u16(p + 28), n_extra = u16(p + 30), n_comment = u16(p + 32);
    size_t whole = ENTRY_BYTES + n_name + n_extra + n_comment;
    if (!sonde_inside(*at, whole, d->end))
        return damaged(m, "an entry of its directory is cut short", err);
    *x = (struct member){.name = (const char *)p + ENTRY_BYTES,
                         .n_name = n_name,
                         .method = u16(p + 10),
                         .crc = u32(p + 16),
                         .n_packed = u32(p + 20),
                         .n_bytes = u32(p + 24),
                         .local = u32(p + 42)};
    if (!widen(x, p + ENTRY_BYTES + n_name, n_extra))
        return damaged(m, "an entry of its directory has no zip64 sizes", err);
    if (u16(p + 8) & ~0x080eu) /* allowed: compression level, sizes behind the data, names in UTF-8 */
        return damaged(m, "a member is encrypted or of an unknown kind", err);
    *at += whole;
    return SONDE_OK;
}

/* The member's own header must agree with its entry; this gives the place of its bytes. */
static enum sonde_code read_local(const sonde_map *m, const struct directory *d, struct member *x,
                                  sonde_err *err)
{
    static const char astray[] = "a member is not where the directory says";
    if (!sonde_inside(x->local, LOCAL_BYTES, d->begin))
        return damaged(m, astray, err);
    const unsigned char *p = m->data + x->local;
    if (memcmp(p, "PK\3\4", 4) != 0)
        return damaged(m, astray, err);
    size_t n_head = LOCAL_BYTES + (size_t)u16(p + 26) + u16(p + 28);
    if (!sonde_inside(x->local, n_head, d->begin) || u16(p + 26) != x->n_name ||
        memcmp(p + LOCAL_BYTES, x->name, x->n_name) != 0 || u16(p + 8) != x->method)
        return damaged(m, "a member's header and the directory differ", err);
    x->begin = (size_t)x->local + n_head;
    if (!sonde_inside(x->begin, x->n_packed, d->begin))
        return damaged(m, "a member reaches into the directory; the file is cut short or damaged", err);
    if (x->method != STORED && x->method != DEFLATED)
        return damaged(
            m, "a member is compressed in a way that is not read; use numpy.savez or savez_compressed", err);
    if (x->method == STORED && x->n_packed != x->n_bytes)
        return damaged(m, "a stored member has two sizes", err);
    return SONDE_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    return x->local < y->local ? -1 : x->local > y->local;
}

static enum sonde_code read_members(const sonde_map *m, const struct directory *d, sonde_arena *scratch,
                                    struct member **out, sonde_err *err)
{
    struct member *x = sonde_arena_get(scratch, (size_t)d->n_entries, sizeof *x, err);
    if (!x)
        return sonde_err_wrap(err, "%s", m->path);
    size_t at = (size_t)d->begin;
    for (uint64_t i = 0; i < d->n_entries; i++) {
        enum sonde_code rc = read_entry(m, d, &at, &x[i], err);
        if (rc == SONDE_OK)
            rc = read_local(m, d, &x[i], err);
        if (rc != SONDE_OK)
            return rc;
    }
    if (at != d->end)
        return damaged(m, "its directory has more entries than it says", err);
    qsort(x, (size_t)d->n_entries, sizeof *x, by_place);
    for (uint64_t i = 1; i < d->n_entries; i++)
        if (x[i].local < x[i - 1].begin + x[i - 1].n_packed) /* both inside the file */
            return damaged(m, "two members overlap", err);
    *out = x;
    return SONDE_OK;
}

/* ---- the arrays -------------------------------------------------------------------------------------------
 */

struct unpacker {
    z_stream z;
    const unsigned char *in;
    size_t n_in;
    bool ended;
    uLong crc;
};

/* Inflate up to n bytes; *got is less only where the stream ends. False if it is damaged. */
static bool unpack(struct unpacker *u, unsigned char *to, size_t n, size_t *got)
{
    *got = 0;
    while (*got < n && !u->ended) {
        uInt in = u->n_in < (1u << 30) ? (uInt)u->n_in : 1u << 30;
        uInt room = n - *got < (1u << 30) ? (uInt)(n - *got) : 1u << 30;
        u->z.next_in = (Bytef *)(uintptr_t)u->in;
        u->z.avail_in = in;
        u->z.next_out = to + *got;
        u->z.avail_out = room;
        int rc = inflate(&u->z, Z_NO_FLUSH);
        size_t used = in - u->z.avail_in, made = room - u->z.avail_out;
        u->in += used;
        u->n_in -= used;
        u->crc = crc32_z(u->crc, to + *got, made);
        *got += made;
        u->ended = rc == Z_STREAM_END;
        if (rc != Z_OK && !u->ended)
            return false;
        if (!used && !made && !u->ended)
            return false;
    }
    return true;
}

static enum sonde_code bad_member(const sonde_map *m, const char *name, const char *what, sonde_err *err)
{
    return sonde_fail(err, SONDE_E_INPUT, "%s: member '%.200s': %s", m->path, name, what);
}

static enum sonde_code wrong_size(const sonde_map *m, const char *name, const sonde_npy_head *h,
                                  uint64_t n_bytes, sonde_err *err)
{
    char shape[128];
    return sonde_fail(err, SONDE_E_INPUT,
                      "%s: member '%.200s': shape %s of %s needs %zu bytes after a header of %zu, the "
                      "member has %" PRIu64,
                      m->path, name, sonde_shape_text(h->shape.dim, h->shape.rank, shape, sizeof shape),
                      h->shape.type_name, h->shape.n_bytes, h->n_prefix, n_bytes);
}

static enum sonde_code read_head(const sonde_map *m, const char *name, const unsigned char *p, size_t n,
                                 uint64_t n_bytes, sonde_npy_head *h, sonde_err *err)
{
    char what[480];
    snprintf(what, sizeof what, "%.220s: member '%.200s'", m->path, name);
    enum sonde_code rc = sonde_npy_read_head(p, n, what, h, err);
    if (rc != SONDE_OK)
        return rc;
    return n_bytes < h->n_prefix || n_bytes - h->n_prefix != h->shape.n_bytes
               ? wrong_size(m, name, h, n_bytes, err)
               : SONDE_OK;
}

static enum sonde_code read_stored(const sonde_map *m, const struct member *x, const char *name,
                                   sonde_tensor *t, sonde_err *err)
{
    const unsigned char *p = m->data + x->begin;
    size_t n = (size_t)x->n_bytes;
    sonde_npy_head h;
    enum sonde_code rc = read_head(m, name, p, n, n, &h, err);
    if (rc != SONDE_OK)
        return rc;
    if (crc32_z(0, p, n) != x->crc)
        return bad_member(m, name, "its checksum is wrong; the file is damaged", err);
    *t = h.shape;
    t->data = p + h.n_prefix;
    return SONDE_OK;
}

static enum sonde_code inflate_into(const sonde_map *m, const struct member *x, const char *name,
                                    struct unpacker *u, sonde_arena *arena, sonde_tensor *t, sonde_err *err)
{
    unsigned char head[SONDE_NPY_MAX_PREFIX];
    size_t n_head, n_rest, n_more;
    if (!unpack(u, head, sizeof head, &n_head))
        return bad_member(m, name, "its compressed data are damaged", err);
    sonde_npy_head h;
    enum sonde_code rc = read_head(m, name, head, n_head, x->n_bytes, &h, err);
    if (rc != SONDE_OK)
        return rc;
    unsigned char *data = sonde_arena_get(arena, h.shape.n_bytes, 1, err);
    if (!data)
        return sonde_err_wrap(err, "%s", m->path);
    size_t n_first = n_head - h.n_prefix;
    if (n_first > h.shape.n_bytes)
        return bad_member(m, name, "it is longer than the directory says", err);
    memcpy(data, head + h.n_prefix, n_first);
    size_t n_left = h.shape.n_bytes - n_first;
    if (!unpack(u, data + n_first, n_left, &n_rest) || n_rest != n_left || !unpack(u, head, 1, &n_more) ||
        n_more || u->n_in)
        return bad_member(
            m, name, "its compressed data are damaged or of another length than the directory says", err);
    if (u->crc != x->crc)
        return bad_member(m, name, "its checksum is wrong; the file is damaged", err);
    *t = h.shape;
    t->data = data;
    return SONDE_OK;
}

static enum sonde_code read_deflated(const sonde_map *m, const struct member *x, const char *name,
                                     sonde_arena *arena, sonde_tensor *t, sonde_err *err)
{
    size_t most;
    if (!sonde_mul(&most, (size_t)x->n_packed, MAX_EXPANSION) || x->n_bytes > most)
        return bad_member(m, name, "it claims more bytes than its compressed data can give", err);
    struct unpacker u = {.in = m->data + x->begin, .n_in = (size_t)x->n_packed};
    if (inflateInit2(&u.z, -15) != Z_OK)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to inflate member '%.200s'", m->path, name);
    enum sonde_code rc = inflate_into(m, x, name, &u, arena, t, err);
    inflateEnd(&u.z);
    return rc;
}

static bool is_array(const struct member *x)
{
    return x->n_name >= 4 && memcmp(x->name + x->n_name - 4, ".npy", 4) == 0;
}

static enum sonde_code read_arrays(const sonde_map *m, const struct member *x, size_t n, sonde_tensors *f,
                                   sonde_err *err)
{
    size_t n_arrays = 0;
    for (size_t i = 0; i < n; i++)
        n_arrays += is_array(&x[i]);
    sonde_tensor *t = sonde_arena_get(f->arena, n_arrays, sizeof *t, err);
    if (!t)
        return sonde_err_wrap(err, "%s", m->path);
    f->tensor = t;
    for (size_t i = 0; i < n; i++) {
        if (!is_array(&x[i]))
            continue;
        size_t n_name = x[i].n_name - 4;
        if (!sonde_name_ok(x[i].name, n_name))
            return damaged(
                m, "the name of a member is not 1 to 1024 bytes of text without control characters", err);
        const char *name = sonde_arena_strndup(f->arena, x[i].name, n_name, err);
        if (!name)
            return sonde_err_wrap(err, "%s", m->path);
        enum sonde_code rc = x[i].method == STORED ? read_stored(m, &x[i], name, t, err)
                                                   : read_deflated(m, &x[i], name, f->arena, t, err);
        if (rc != SONDE_OK)
            return rc;
        t++->name = name;
        f->n_tensors++;
    }
    return SONDE_OK;
}

static enum sonde_code read_zip(const sonde_map *m, sonde_tensors *f, sonde_budget *budget, sonde_err *err)
{
    struct directory d = {0};
    enum sonde_code rc = find_directory(m, &d, err);
    if (rc != SONDE_OK)
        return rc;
    sonde_arena *scratch = sonde_arena_new(budget, err);
    struct member *x = NULL;
    rc = scratch ? read_members(m, &d, scratch, &x, err) : SONDE_E_MEMORY;
    if (rc == SONDE_OK)
        rc = read_arrays(m, x, (size_t)d.n_entries, f, err);
    sonde_arena_free(scratch);
    return rc;
}

enum sonde_code sonde_npz_parse(sonde_map *m, sonde_budget *budget, sonde_tensors **out, sonde_err *err)
{
    sonde_tensors *f = sonde_tensors_new("npz", 1, budget, err);
    enum sonde_code rc = f ? read_zip(m, f, budget, err) : SONDE_E_MEMORY;
    return sonde_tensors_finish(f, m, rc, out, err);
}

enum sonde_code sonde_npz_open(const char *path, sonde_budget *budget, sonde_tensors **out, sonde_err *err)
{
    sonde_map *m;
    enum sonde_code rc = sonde_map_open(path, &m, err);
    return rc == SONDE_OK ? sonde_npz_parse(m, budget, out, err) : rc;
}
