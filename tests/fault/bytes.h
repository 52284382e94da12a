/* SPDX-License-Identifier: MIT
 * A buffer that grows, for tests that build files byte by byte. */
#ifndef TESTS_FAULT_BYTES_H
#define TESTS_FAULT_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

struct bytes {
    unsigned char *p;
    size_t n, room;
};

static inline void put(struct bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->room) {
        b->room = 2 * (b->n + n) + 256;
        b->p = realloc(b->p, b->room);
        if (!b->p)
            abort();
    }
    if (n)
        memcpy(b->p + b->n, data, n);
    b->n += n;
}

static inline void put_text(struct bytes *b, const char *s)
{
    put(b, s, strlen(s));
}

/* The low n_bytes of x, little-endian. */
static inline void put_le(struct bytes *b, uint64_t x, int n_bytes)
{
    put(b, &x, (size_t)n_bytes);
}

static inline void put_repeated(struct bytes *b, char c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(b, &c, 1);
}

static inline void bytes_free(struct bytes *b)
{
    free(b->p);
    *b = (struct bytes){0};
}

/* A .npy: major version, header text as given, n zero bytes of data. */
static inline void put_npy(struct bytes *b, int version, const char *header, size_t n)
{
    put(b, "\x93NUMPY", 6);
    put_le(b, (uint64_t)version, 2);
    put_le(b, strlen(header), version == 1 ? 2 : 4);
    put_text(b, header);
    put_repeated(b, 0, n);
}

/* A zip that is being written: its members so far, and their directory. */
struct zip {
    struct bytes all, dir;
    unsigned n_members;
};

/* Add a member. Every field can be spoilt afterwards: *local and *central are the places of its two headers.
 */
static inline void zip_add(struct zip *z, const char *name, const void *data, size_t n, int deflated,
                           size_t *local, size_t *central)
{
    struct bytes packed = {0};
    if (deflated) {
        z_stream s = {.next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)n};
        put_repeated(&packed, 0, n + n / 100 + 64);
        s.next_out = packed.p;
        s.avail_out = (uInt)packed.n;
        if (deflateInit2(&s, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY) != Z_OK ||
            deflate(&s, Z_FINISH) != Z_STREAM_END)
            abort();
        packed.n = s.total_out;
        deflateEnd(&s);
    } else {
        put(&packed, data, n);
    }
    size_t at = z->all.n;
    if (local)
        *local = at;
    if (central)
        *central = z->dir.n;
    for (int twice = 0; twice < 2; twice++) {
        struct bytes *b = twice ? &z->dir : &z->all;
        put_le(b, twice ? 0x02014b50 : 0x04034b50, 4);
        if (twice)
            put_le(b, 20, 2); /* made by */
        put_le(b, 20, 2);     /* version needed */
        put_le(b, 0, 2);      /* flags */
        put_le(b, deflated ? 8 : 0, 2);
        put_le(b, 0, 4); /* time and date */
        put_le(b, crc32(0, data, (uInt)n), 4);
        put_le(b, packed.n, 4);
        put_le(b, n, 4);
        put_le(b, strlen(name), 2);
        put_le(b, 0, 2); /* extra */
        if (twice) {
            put_le(b, 0, 8); /* comment, disk, internal attributes, half of the external ones */
            put_le(b, 0, 2);
            put_le(b, at, 4);
        }
        put_text(b, name);
    }
    put(&z->all, packed.p, packed.n);
    z->n_members++;
    bytes_free(&packed);
}

/* Append directory, last record and its comment. z->all is then the file; *end is the place of the last
 * record. */
static inline void zip_end(struct zip *z, const char *comment, size_t *end)
{
    size_t begin = z->all.n;
    put(&z->all, z->dir.p, z->dir.n);
    if (end)
        *end = z->all.n;
    put_le(&z->all, 0x06054b50, 4);
    put_le(&z->all, 0, 4); /* disks */
    put_le(&z->all, z->n_members, 2);
    put_le(&z->all, z->n_members, 2);
    put_le(&z->all, z->dir.n, 4);
    put_le(&z->all, begin, 4);
    put_le(&z->all, strlen(comment), 2);
    put_text(&z->all, comment);
}

static inline void zip_free(struct zip *z)
{
    bytes_free(&z->all);
    bytes_free(&z->dir);
}

#endif
