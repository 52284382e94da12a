/* SPDX-License-Identifier: MIT
 * A zip of .npy arrays. Stored members stay in the mapping, deflated ones are inflated into the arena, after
 * their shape has said how long they must become; the checksums must be right. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "../base/size.h"
#include "name_impl.h"
#include "npy_impl.h"
#include "tensors_impl.h"
#include "zip_impl.h"

#define MAX_EXPANSION 1032 /* of deflate: 258 bytes from two bits */

/* ---- the arrays ------------------------------------------------------------------------------ */

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

static enum sonde_code read_stored(const sonde_map *m, const sonde_zip_member *x, const char *name,
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

static enum sonde_code inflate_into(const sonde_map *m, const sonde_zip_member *x, const char *name,
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

static enum sonde_code read_deflated(const sonde_map *m, const sonde_zip_member *x, const char *name,
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

static bool is_array(const sonde_zip_member *x)
{
    return x->n_name >= 4 && memcmp(x->name + x->n_name - 4, ".npy", 4) == 0;
}

static enum sonde_code read_array(const sonde_map *m, const sonde_zip_member *x, sonde_arena *arena,
                                  sonde_tensor *t, sonde_err *err)
{
    size_t n_name = x->n_name - 4;
    if (!sonde_name_ok(x->name, n_name))
        return sonde_zip_damaged(
            m, "the name of a member is not 1 to 1024 bytes of text without control characters", err);
    if (x->method != SONDE_ZIP_STORED && x->method != SONDE_ZIP_DEFLATED)
        return sonde_zip_damaged(
            m, "a member is compressed in a way that is not read; use numpy.savez or savez_compressed", err);
    const char *name = sonde_arena_strndup(arena, x->name, n_name, err);
    if (!name)
        return sonde_err_wrap(err, "%s", m->path);
    enum sonde_code rc = x->method == SONDE_ZIP_STORED ? read_stored(m, x, name, t, err)
                                                       : read_deflated(m, x, name, arena, t, err);
    if (rc == SONDE_OK)
        t->name = name;
    return rc;
}

static enum sonde_code read_arrays(const sonde_zip *z, sonde_tensors *f, sonde_err *err)
{
    size_t n_arrays = 0;
    for (size_t i = 0; i < z->n_members; i++)
        n_arrays += is_array(&z->member[i]);
    sonde_tensor *t = sonde_arena_get(f->arena, n_arrays, sizeof *t, err);
    if (!t)
        return sonde_err_wrap(err, "%s", z->map->path);
    f->tensor = t;
    for (size_t i = 0; i < z->n_members; i++) {
        enum sonde_code rc = is_array(&z->member[i])
                                 ? read_array(z->map, &z->member[i], f->arena, &t[f->n_tensors++], err)
                                 : SONDE_OK;
        if (rc != SONDE_OK)
            return rc;
    }
    return SONDE_OK;
}

static enum sonde_code read_zip(const sonde_map *m, sonde_tensors *f, sonde_budget *budget, sonde_err *err)
{
    sonde_arena *scratch = sonde_arena_new(budget, err);
    sonde_zip z = {0};
    enum sonde_code rc = scratch ? sonde_zip_read(m, scratch, &z, err) : SONDE_E_MEMORY;
    if (rc == SONDE_OK)
        rc = read_arrays(&z, f, err);
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
