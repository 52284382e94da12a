/* SPDX-License-Identifier: MIT
 * The directory of a zip file (PKWARE's APPNOTE 6.3). */
#include "zip_impl.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "../base/size.h"

#define END_BYTES     22 /* the record at the end, without its comment */
#define END64_BYTES   56
#define LOCATOR_BYTES 20
#define ENTRY_BYTES   46
#define LOCAL_BYTES   30

struct directory {
    uint64_t n_entries, begin, end; /* bytes [begin, end) of the file */
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

enum sonde_code sonde_zip_damaged(const sonde_map *m, const char *what, sonde_err *err)
{
    return sonde_fail(err, SONDE_E_INPUT, "%s: not a sound zip file: %s", m->path, what);
}

/* ---- the directory --------------------------------------------------------------------------- */

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
        return sonde_zip_damaged(m, "its last record is missing; the file is cut short or of another kind",
                                 err);
    const unsigned char *end = m->data + at;
    uint64_t n_bytes = u32(end + 12);
    d->n_entries = u16(end + 10);
    d->begin = u32(end + 16);
    d->end = at;
    if (u16(end + 4) != 0 || u16(end + 6) != 0 || u16(end + 8) != u16(end + 10))
        return sonde_zip_damaged(m, "it spans several disks", err);
    bool wide = d->n_entries == 0xffff || n_bytes == 0xffffffff || d->begin == 0xffffffff;
    bool ends_here = sonde_inside(d->begin, n_bytes, at) && d->begin + n_bytes == at;
    if (wide || !ends_here) {
        if (at < LOCATOR_BYTES || memcmp(end - LOCATOR_BYTES, "PK\6\7", 4) != 0)
            return sonde_zip_damaged(
                m, wide ? "its zip64 locator is missing" : "its directory is not where the last record says",
                err);
        uint64_t at64 = u64(end - LOCATOR_BYTES + 8);
        if (!sonde_inside(at64, END64_BYTES, at - LOCATOR_BYTES) || memcmp(m->data + at64, "PK\6\6", 4) != 0)
            return sonde_zip_damaged(m, "its zip64 record is missing", err);
        const unsigned char *p = m->data + at64;
        if ((d->n_entries != 0xffff && d->n_entries != u64(p + 32)) ||
            (n_bytes != 0xffffffff && n_bytes != u64(p + 40)) ||
            (d->begin != 0xffffffff && d->begin != u64(p + 48)))
            return sonde_zip_damaged(m, "its zip64 record and its last record differ", err);
        d->n_entries = u64(p + 32);
        n_bytes = u64(p + 40);
        d->begin = u64(p + 48);
        d->end = at64;
    }
    if (!sonde_inside(d->begin, n_bytes, d->end) || d->begin + n_bytes != d->end)
        return sonde_zip_damaged(m, "its directory is not where the last record says", err);
    if (d->n_entries > n_bytes / ENTRY_BYTES)
        return sonde_zip_damaged(m, "its directory is too short for the number of members", err);
    return SONDE_OK;
}

/* Sizes and offset of an entry that says 0xffffffff are in its zip64 field. */
static bool widen(sonde_zip_member *x, const unsigned char *extra, size_t n_extra)
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
static enum sonde_code read_entry(const sonde_map *m, const struct directory *d, size_t *at,
                                  sonde_zip_member *x, sonde_err *err)
{
    const unsigned char *p = m->data + *at; /* *at <= d->end */
    if (!sonde_inside(*at, ENTRY_BYTES, d->end) || memcmp(p, "PK\1\2", 4) != 0)
        return sonde_zip_damaged(m, "an entry of its directory is missing", err);
    size_t n_name = u16(p + 28), n_extra = u16(p + 30), n_comment = u16(p + 32);
    size_t whole = ENTRY_BYTES + n_name + n_extra + n_comment;
    if (!sonde_inside(*at, whole, d->end))
        return sonde_zip_damaged(m, "an entry of its directory is cut short", err);
    *x = (sonde_zip_member){.name = (const char *)p + ENTRY_BYTES,
                            .n_name = n_name,
                            .method = u16(p + 10),
                            .crc = u32(p + 16),
                            .n_packed = u32(p + 20),
                            .n_bytes = u32(p + 24),
                            .local = u32(p + 42)};
    if (!widen(x, p + ENTRY_BYTES + n_name, n_extra))
        return sonde_zip_damaged(m, "an entry of its directory has no zip64 sizes", err);
    if (u16(p + 8) & ~0x080eu) /* allowed: compression level, sizes behind the data, names in UTF-8 */
        return sonde_zip_damaged(m, "a member is encrypted or of an unknown kind", err);
    *at += whole;
    return SONDE_OK;
}

/* The member's own header must agree with its entry; this gives the place of its bytes. */
static enum sonde_code read_local(const sonde_map *m, const struct directory *d, sonde_zip_member *x,
                                  sonde_err *err)
{
    static const char astray[] = "a member is not where the directory says";
    if (!sonde_inside(x->local, LOCAL_BYTES, d->begin))
        return sonde_zip_damaged(m, astray, err);
    const unsigned char *p = m->data + x->local;
    if (memcmp(p, "PK\3\4", 4) != 0)
        return sonde_zip_damaged(m, astray, err);
    size_t n_head = LOCAL_BYTES + (size_t)u16(p + 26) + u16(p + 28);
    if (!sonde_inside(x->local, n_head, d->begin) || u16(p + 26) != x->n_name ||
        memcmp(p + LOCAL_BYTES, x->name, x->n_name) != 0 || u16(p + 8) != x->method)
        return sonde_zip_damaged(m, "a member's header and the directory differ", err);
    x->begin = (size_t)x->local + n_head;
    if (!sonde_inside(x->begin, x->n_packed, d->begin))
        return sonde_zip_damaged(m, "a member reaches into the directory; the file is cut short or damaged",
                                 err);
    if (x->method == SONDE_ZIP_STORED && x->n_packed != x->n_bytes)
        return sonde_zip_damaged(m, "a stored member has two sizes", err);
    return SONDE_OK;
}

static int by_place(const void *a, const void *b)
{
    const sonde_zip_member *x = a, *y = b;
    return x->local < y->local ? -1 : x->local > y->local;
}

static int compare_names(const char *a, size_t n_a, const char *b, size_t n_b)
{
    int c = memcmp(a, b, n_a < n_b ? n_a : n_b);
    return c ? c : n_a < n_b ? -1 : n_a > n_b;
}

static int by_name(const void *a, const void *b)
{
    const sonde_zip_member *x = *(const sonde_zip_member *const *)a, *y = *(const sonde_zip_member *const *)b;
    return compare_names(x->name, x->n_name, y->name, y->n_name);
}

static enum sonde_code read_members(sonde_zip *z, const struct directory *d, sonde_err *err)
{
    sonde_zip_member *x = z->member;
    size_t at = (size_t)d->begin;
    for (size_t i = 0; i < z->n_members; i++) {
        enum sonde_code rc = read_entry(z->map, d, &at, &x[i], err);
        if (rc == SONDE_OK)
            rc = read_local(z->map, d, &x[i], err);
        if (rc != SONDE_OK)
            return rc;
    }
    if (at != d->end)
        return sonde_zip_damaged(z->map, "its directory has more entries than it says", err);
    qsort(x, z->n_members, sizeof *x, by_place);
    for (size_t i = 0; i < z->n_members; i++)
        z->by_name[i] = &x[i];
    qsort(z->by_name, z->n_members, sizeof(sonde_zip_member *), by_name);
    for (size_t i = 1; i < z->n_members; i++) {
        if (x[i].local < x[i - 1].begin + x[i - 1].n_packed) /* both inside the file */
            return sonde_zip_damaged(z->map, "two members overlap", err);
        if (by_name(&z->by_name[i - 1], &z->by_name[i]) == 0)
            return sonde_zip_damaged(z->map, "two members have one name", err);
    }
    return SONDE_OK;
}

enum sonde_code sonde_zip_read(const sonde_map *m, sonde_arena *arena, sonde_zip *out, sonde_err *err)
{
    struct directory d = {0};
    enum sonde_code rc = find_directory(m, &d, err);
    if (rc != SONDE_OK)
        return rc;
    sonde_zip z = {.map = m, .n_members = (size_t)d.n_entries};
    z.member = sonde_arena_get(arena, z.n_members, sizeof *z.member, err);
    z.by_name = z.member ? sonde_arena_get(arena, z.n_members, sizeof(sonde_zip_member *), err) : NULL;
    if (!z.by_name)
        return sonde_err_wrap(err, "%s", m->path);
    rc = read_members(&z, &d, err);
    if (rc == SONDE_OK)
        *out = z;
    return rc;
}

const sonde_zip_member *sonde_zip_find(const sonde_zip *z, const char *name, size_t n_name)
{
    size_t lo = 0, hi = z->n_members;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const sonde_zip_member *x = z->by_name[mid];
        int c = compare_names(name, n_name, x->name, x->n_name);
        if (c == 0)
            return x;
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

bool sonde_zip_crc_ok(const sonde_zip *z, const sonde_zip_member *x)
{
    return crc32_z(0, z->map->data + x->begin, (size_t)x->n_packed) == x->crc;
}
