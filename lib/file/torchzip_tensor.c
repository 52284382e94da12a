/* SPDX-License-Identifier: MIT
 * Storages and the tensors that view them. A storage is the member STEM/data/KEY and has exactly the bytes
 * that its type and count say; a tensor's furthest element lies inside it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/size.h"
#include "torchzip_impl.h"

#define MAX_KEY 64 /* bytes of a storage's key; torch counts from 0 */

static const sonde_pick_value *value(const sonde_pick *k, uint32_t of, uint32_t i)
{
    static const sonde_pick_value none = {.kind = SONDE_PICK_MARK};
    uint32_t at = sonde_pick_item(k, of, i);
    return at == SONDE_PICK_END ? &none : &k->value[at];
}

static bool is_text(const sonde_pick_value *v, const char *s)
{
    return v->kind == SONDE_PICK_STRING && v->n == strlen(s) && memcmp(v->u.s, s, v->n) == 0;
}

static enum sonde_code check_bytes(sonde_pick *k, const sonde_zip_member *x, uint64_t count,
                                   enum sonde_dtype type, sonde_err *err)
{
    size_t n_bytes;
    const char *path = k->zip->map->path;
    int n = (int)(x->n_name < 200 ? x->n_name : 200);
    if (x->method != SONDE_ZIP_STORED)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: member '%.*s' is compressed; torch.save stores them as they are", path, n,
                          x->name);
    if (!sonde_nbytes(&n_bytes, &count, 1, sonde_dtype_size(type)) || n_bytes != x->n_bytes)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: member '%.*s' has %" PRIu64 " bytes, %" PRIu64 " elements of %s do not", path,
                          n, x->name, x->n_bytes, count, sonde_dtype_name(type));
    size_t i = (size_t)(x - k->zip->member);
    if (k->has_checksums && !k->checked[i] && !sonde_zip_crc_ok(k->zip, x))
        return sonde_fail(err, SONDE_E_INPUT, "%s: member '%.*s': its checksum is wrong; the file is damaged",
                          path, n, x->name);
    k->checked[i] = true;
    return SONDE_OK;
}

enum sonde_code sonde_pick_storage(sonde_pick *k, uint32_t id, sonde_pick_value *out, sonde_err *err)
{
    static const char odd[] = "a persistent id is not ('storage', type, key, location, count)";
    if (k->value[id].kind != SONDE_PICK_TUPLE || k->value[id].n != 5)
        return sonde_pick_damaged(k, odd, err);
    const sonde_pick_value *type = value(k, id, 1), *key = value(k, id, 2), *count = value(k, id, 4);
    if (!is_text(value(k, id, 0), "storage") || type->kind != SONDE_PICK_GLOBAL ||
        type->u.global->role != SONDE_ROLE_STORAGE || key->kind != SONDE_PICK_STRING || key->n > MAX_KEY ||
        count->kind != SONDE_PICK_INT || count->u.i < 0)
        return sonde_pick_damaged(k, odd, err);
    char name[SONDE_PICK_MAX_STEM + MAX_KEY + 8];
    memcpy(name, k->stem, k->n_stem);
    memcpy(name + k->n_stem, "/data/", 6);
    memcpy(name + k->n_stem + 6, key->u.s, key->n);
    const sonde_zip_member *x = sonde_zip_find(k->zip, name, k->n_stem + 6 + key->n);
    if (!x)
        return sonde_fail(err, SONDE_E_INPUT, "%s: there is no member data/%.*s, which a tensor needs",
                          k->zip->map->path, (int)key->n, key->u.s);
    enum sonde_code rc = check_bytes(k, x, (uint64_t)count->u.i, type->u.global->dtype, err);
    if (rc != SONDE_OK)
        return rc;
    out->dtype = type->u.global->dtype;
    out->u.storage = x;
    return SONDE_OK;
}

/* ---- tensors ------------------------------------------------------------------------------------------- */

struct view {
    size_t offset, stride[SONDE_MAX_RANK], size; /* in elements; size: bytes of one */
    const unsigned char *data;                   /* of the storage */
    size_t n_storage;                            /* elements */
};

/* A tuple of up to SONDE_MAX_RANK non-negative integers. */
static bool read_sizes(const sonde_pick *k, const sonde_pick_value *v, uint64_t *out)
{
    if (v->kind != SONDE_PICK_TUPLE || v->n > SONDE_MAX_RANK)
        return false;
    uint32_t c = v->u.items.first;
    for (uint32_t i = 0; i < v->n; i++, c = k->cell[c].next) {
        const sonde_pick_value *x = &k->value[k->cell[c].item];
        if (x->kind != SONDE_PICK_INT || x->u.i < 0)
            return false;
        out[i] = (uint64_t)x->u.i;
    }
    return true;
}

/* The furthest element is inside the storage. */
static bool reaches_inside(const sonde_tensor *t, const struct view *w)
{
    size_t last = w->offset;
    for (int i = 0; i < t->rank; i++) {
        size_t step;
        if (t->dim[i] == 0)
            return w->offset <= w->n_storage;
        if (!sonde_mul(&step, (size_t)t->dim[i] - 1, w->stride[i]) || !sonde_add(&last, last, step))
            return false;
    }
    return last < w->n_storage;
}

static bool is_contiguous(const sonde_tensor *t, const struct view *w)
{
    size_t step = 1;
    for (int i = t->rank; i-- > 0;) {
        if (t->dim[i] > 1 && w->stride[i] != step)
            return false;
        step *= (size_t)t->dim[i]; /* the product fits: sonde_nbytes has seen it */
    }
    return true;
}

/* Do no two indices meet in one element? Sufficient: sorted by stride, each stride passes all that the
 * smaller ones reach. That holds for every permutation and slice of a contiguous tensor. */
static bool is_apart(const sonde_tensor *t, const struct view *w)
{
    int order[SONDE_MAX_RANK], n = 0;
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] < 2)
            continue;
        int at = n++;
        for (; at > 0 && w->stride[order[at - 1]] > w->stride[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    size_t reach = 0;
    for (int i = 0; i < n; i++) {
        if (w->stride[order[i]] <= reach)
            return false;
        reach += ((size_t)t->dim[order[i]] - 1) * w->stride[order[i]]; /* inside the storage */
    }
    return true;
}

/* Rows of the last dimension, one after the other; index counts the others. */
static void copy_strided(const sonde_tensor *t, const struct view *w, unsigned char *out)
{
    uint64_t index[SONDE_MAX_RANK] = {0};
    size_t at = w->offset, n = (size_t)t->dim[t->rank - 1], step = w->stride[t->rank - 1] * w->size;
    for (size_t done = 0; done < t->n_bytes;) {
        const unsigned char *p = w->data + at * w->size;
        for (size_t i = 0; i < n; i++, done += w->size)
            memcpy(out + done, p + i * step, w->size);
        for (int d = t->rank - 1; d-- > 0;) {
            at += w->stride[d];
            if (++index[d] < t->dim[d])
                break;
            at -= (size_t)t->dim[d] * w->stride[d];
            index[d] = 0;
        }
    }
}

static enum sonde_code place(sonde_pick *k, const struct view *w, sonde_tensor *t, sonde_err *err)
{
    char shape[128];
    const char *path = k->zip->map->path;
    sonde_shape_text(t->dim, t->rank, shape, sizeof shape);
    if (!reaches_inside(t, w))
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: a tensor of shape %s at offset %zu reaches past its storage of %zu elements",
                          path, shape, w->offset, w->n_storage);
    if (t->n_bytes == 0 || is_contiguous(t, w)) {
        t->data = w->data + (t->n_bytes ? w->offset * w->size : 0);
        return SONDE_OK;
    }
    if (!is_apart(t, w))
        return sonde_fail(
            err, SONDE_E_INPUT,
            "%s: a tensor of shape %s uses elements of its storage more than once; save x.contiguous()", path,
            shape);
    if (t->n_bytes > k->max_copied - k->n_copied)
        return sonde_fail(err, SONDE_E_MEMORY,
                          "%s: copies of strided tensors would need more than %zu bytes; save x.contiguous()",
                          path, k->max_copied);
    unsigned char *copy = sonde_arena_get(k->arena, t->n_bytes, 1, err);
    if (!copy)
        return sonde_err_wrap(err, "%s", path);
    k->n_copied += t->n_bytes;
    copy_strided(t, w, copy);
    t->data = copy;
    return SONDE_OK;
}

enum sonde_code sonde_pick_tensor(sonde_pick *k, uint32_t args, sonde_pick_value *out, sonde_err *err)
{
    const sonde_pick_value *storage = value(k, args, 0), *offset = value(k, args, 1),
                           *size = value(k, args, 2);
    sonde_tensor t = {.rank = (int)size->n};
    uint64_t stride[SONDE_MAX_RANK];
    if (storage->kind != SONDE_PICK_STORAGE || offset->kind != SONDE_PICK_INT || offset->u.i < 0 ||
        !read_sizes(k, size, t.dim) || !read_sizes(k, value(k, args, 3), stride) ||
        value(k, args, 3)->n != size->n)
        return sonde_pick_damaged(
            k, "a tensor is not given by storage, offset, size and stride of at most 8 dimensions", err);
    t.dtype = storage->dtype;
    t.type_name = sonde_dtype_name(t.dtype);
    struct view w = {.offset = (size_t)offset->u.i,
                     .size = sonde_dtype_size(t.dtype),
                     .data = k->zip->map->data + storage->u.storage->begin};
    w.n_storage = (size_t)storage->u.storage->n_bytes / w.size;
    for (int i = 0; i < t.rank; i++)
        w.stride[i] = (size_t)stride[i];
    if (!sonde_nbytes(&t.n_bytes, t.dim, t.rank, w.size))
        return sonde_pick_damaged(k, "the shape of a tensor has more bytes than can be addressed", err);
    enum sonde_code rc = place(k, &w, &t, err);
    if (rc != SONDE_OK)
        return rc;
    out->kind = SONDE_PICK_TENSOR;
    out->n = k->n_tensors;
    k->tensor[k->n_tensors++] = t;
    return SONDE_OK;
}
