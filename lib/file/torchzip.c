/* SPDX-License-Identifier: MIT
 * From the zip to the graph of its pickle, and from the graph to named tensors and values. */
#include "torchzip.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "name_impl.h"
#include "tensors_impl.h"
#include "torchzip_impl.h"

#define MAX_PICKLE (64u << 20) /* bytes; a state dict of ten thousand tensors has 2 MB */
#define MAX_DEPTH  32
#define MAX_COPIES 4 /* of the bytes of the file: strided tensors */

/* ---- paths --------------------------------------------------------------------------------------------- */

/* One level of the walk: a container and the next of its cells. */
struct level {
    uint32_t of, cell, i; /* i: number of the item */
    size_t n_path;        /* bytes of the path down to it */
};

struct walk {
    const sonde_pick *k;
    struct level level[MAX_DEPTH];
    int depth;
    char path[SONDE_MAX_NAME + 1];
    size_t n_path;
    size_t n_visited, max_visited; /* values may be shared: bounded by the pickle's bytes */
    size_t n_path_bytes, max_path_bytes;
    const sonde_pick_value *leaf;
};

static bool is_container(const sonde_pick_value *v)
{
    return v->kind == SONDE_PICK_DICT || v->kind == SONDE_PICK_LIST || v->kind == SONDE_PICK_TUPLE;
}

/* A list of numbers or of strings alone is one value: SONDE_META_INT, FLOAT or STRING; -1 for others. */
static int array_type(const sonde_pick *k, const sonde_pick_value *v)
{
    size_t n_int = 0, n_float = 0, n_string = 0;
    if (v->kind == SONDE_PICK_DICT || v->n == 0)
        return -1;
    for (uint32_t c = v->u.items.first; c != SONDE_PICK_END; c = k->cell[c].next) {
        uint32_t kind = k->value[k->cell[c].item].kind;
        n_int += kind == SONDE_PICK_INT;
        n_float += kind == SONDE_PICK_FLOAT;
        n_string += kind == SONDE_PICK_STRING;
    }
    return n_int == v->n             ? SONDE_META_INT
           : n_int + n_float == v->n ? SONDE_META_FLOAT
           : n_string == v->n        ? SONDE_META_STRING
                                     : -1;
}

/* Append one component to the path; false if it becomes too long. */
static bool append_key(struct walk *w, const sonde_pick_value *key, uint32_t i)
{
    char digits[24];
    const char *s = digits;
    size_t n = 0;
    if (key && key->kind == SONDE_PICK_STRING) {
        s = key->u.s;
        n = key->n;
    } else {
        n = (size_t)snprintf(digits, sizeof digits, "%" PRId64, key ? key->u.i : (int64_t)i);
    }
    if (n + (w->n_path > 0) > SONDE_MAX_NAME - w->n_path)
        return false;
    if (w->n_path)
        w->path[w->n_path++] = '.';
    memcpy(w->path + w->n_path, s, n);
    w->n_path += n;
    w->path[w->n_path] = '\0';
    return true;
}

static enum sonde_code enter(struct walk *w, uint32_t of, sonde_err *err)
{
    if (w->depth == MAX_DEPTH)
        return sonde_pick_damaged(w->k, "its dictionaries are nested more than 32 deep, or in a circle", err);
    w->level[w->depth++] = (struct level){of, w->k->value[of].u.items.first, 0, w->n_path};
    return SONDE_OK;
}

/* The items of an array were counted with it, so that all work is bounded by max_visited. */
static enum sonde_code count_visit(struct walk *w, const sonde_pick_value *v, sonde_err *err)
{
    w->n_visited += 1 + (is_container(v) ? v->n : 0);
    w->n_path_bytes += w->n_path + 1;
    if (w->n_visited > w->max_visited || w->n_path_bytes > w->max_path_bytes)
        return sonde_pick_damaged(w->k, "shared or circular values make it many times larger than its pickle", err);
    return SONDE_OK;
}

/* The next value that is a tensor, a plain value or an array of them; w->leaf is NULL at the end. */
static enum sonde_code step(struct walk *w, sonde_err *err)
{
    const sonde_pick *k = w->k;
    w->leaf = NULL;
    while (w->depth > 0) {
        struct level *l = &w->level[w->depth - 1];
        w->n_path = l->n_path;
        if (l->cell == SONDE_PICK_END) {
            w->depth--;
            continue;
        }
        const sonde_pick_cell *c = &k->cell[l->cell];
        if (!append_key(w, c->key == SONDE_PICK_END ? NULL : &k->value[c->key], l->i))
            return sonde_pick_damaged(k, "the path to a value has more than 1024 bytes", err);
        l->cell = c->next;
        l->i++;
        const sonde_pick_value *v = &k->value[c->item];
        enum sonde_code rc = count_visit(w, v, err);
        if (rc == SONDE_OK && is_container(v) && array_type(k, v) < 0) {
            rc = enter(w, c->item, err);
        } else if (v->kind == SONDE_PICK_GLOBAL
                       ? v->u.global->role == SONDE_ROLE_DTYPE
                       : v->kind != SONDE_PICK_NONE && v->kind != SONDE_PICK_STORAGE) {
            w->leaf = v;
            if (!sonde_name_ok(w->path, w->n_path))
                return rc == SONDE_OK ? sonde_pick_damaged(
                                            k, "the name of a value is empty or has control characters", err)
                                      : rc;
            return rc;
        }
        if (rc != SONDE_OK)
            return rc;
    }
    return SONDE_OK;
}

static enum sonde_code begin_walk(struct walk *w, const sonde_pick *k, size_t n_pickle, sonde_err *err)
{
    *w = (struct walk){.k = k, .max_visited = 2 * n_pickle, .max_path_bytes = 64 * n_pickle + 4096};
    if (k->value[k->root].kind == SONDE_PICK_TENSOR)
        return SONDE_OK;
    if (!is_container(&k->value[k->root]))
        return sonde_pick_damaged(k, "it holds neither a tensor nor a dictionary of tensors", err);
    return enter(w, k->root, err);
}

/* ---- values -------------------------------------------------------------------------------------------- */

static const char *copy_text(sonde_arena *arena, const char *s, size_t n, sonde_err *err)
{
    return sonde_arena_strndup(arena, s, n, err);
}

static bool fill_array(const sonde_pick *k, const sonde_pick_value *v, int type, sonde_arena *arena,
                       sonde_meta *out, sonde_err *err)
{
    size_t size = type == SONDE_META_STRING ? sizeof(sonde_bytes) : 8, i = 0;
    void *items = sonde_arena_get(arena, v->n, size, err);
    *out = (sonde_meta){
        .type = SONDE_META_ARRAY, .item = (enum sonde_meta_type)type, .n_items = v->n, .items = items};
    for (uint32_t c = v->u.items.first; items && c != SONDE_PICK_END; c = k->cell[c].next, i++) {
        const sonde_pick_value *x = &k->value[k->cell[c].item];
        if (type == SONDE_META_INT) {
            ((int64_t *)items)[i] = x->u.i;
        } else if (type == SONDE_META_FLOAT) {
            ((double *)items)[i] = x->kind == SONDE_PICK_INT ? (double)x->u.i : x->u.f;
        } else {
            sonde_bytes *b = (sonde_bytes *)items + i;
            *b = (sonde_bytes){copy_text(arena, x->u.s, x->n, err), x->n};
            if (!b->s)
                return false;
        }
    }
    return items != NULL;
}

static bool fill_meta(const sonde_pick *k, const sonde_pick_value *v, sonde_arena *arena, sonde_meta *out,
                      sonde_err *err)
{
    switch (v->kind) {
    case SONDE_PICK_BOOL:
        *out = (sonde_meta){.type = SONDE_META_BOOL, .i = v->u.i, .u = (uint64_t)v->u.i};
        return true;
    case SONDE_PICK_INT:
        *out = (sonde_meta){
            .type = SONDE_META_INT, .i = v->u.i, .u = v->u.i > 0 ? (uint64_t)v->u.i : 0, .f = (double)v->u.i};
        return true;
    case SONDE_PICK_FLOAT:
        *out = (sonde_meta){.type = SONDE_META_FLOAT, .f = v->u.f};
        return true;
    case SONDE_PICK_STRING:
    case SONDE_PICK_GLOBAL: {
        const char *s = v->kind == SONDE_PICK_GLOBAL ? v->u.global->text : v->u.s;
        size_t n = v->kind == SONDE_PICK_GLOBAL ? strlen(s) : v->n;
        *out = (sonde_meta){.type = SONDE_META_STRING, .s = copy_text(arena, s, n, err), .n_bytes = n};
        return out->s != NULL;
    }
    default:
        return fill_array(k, v, array_type(k, v), arena, out, err);
    }
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const sonde_meta *)a)->key, ((const sonde_meta *)b)->key);
}

/* Entries stay in the order of the pickle; a sorted copy shows duplicates. */
static enum sonde_code check_keys(const sonde_pick *k, const sonde_meta *meta, size_t n, sonde_arena *scratch,
                                  sonde_err *err)
{
    sonde_meta *sorted = sonde_arena_get(scratch, n, sizeof *sorted, err);
    if (!sorted)
        return sonde_err_wrap(err, "%s", k->zip->map->path);
    if (n)
        memcpy(sorted, meta, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_key);
    for (size_t i = 1; i < n; i++)
        if (strcmp(sorted[i].key, sorted[i - 1].key) == 0)
            return sonde_fail(err, SONDE_E_INPUT, "%s: there are two values '%.200s'", k->zip->map->path,
                              sorted[i].key);
    return SONDE_OK;
}

static enum sonde_code fill(const sonde_pick *k, size_t n_pickle, sonde_tensors *f, sonde_tensor *tensor,
                            sonde_meta *meta, sonde_err *err)
{
    struct walk w;
    enum sonde_code rc = begin_walk(&w, k, n_pickle, err);
    while (rc == SONDE_OK && (rc = step(&w, err)) == SONDE_OK && w.leaf) {
        const char *name = sonde_arena_strndup(f->arena, w.path, w.n_path, err);
        if (!name)
            return sonde_err_wrap(err, "%s", k->zip->map->path);
        if (w.leaf->kind == SONDE_PICK_TENSOR) {
            tensor[f->n_tensors] = k->tensor[w.leaf->n];
            tensor[f->n_tensors++].name = name;
        } else if (fill_meta(k, w.leaf, f->arena, &meta[f->n_meta], err)) {
            meta[f->n_meta++].key = name;
        } else {
            return sonde_err_wrap(err, "%s", k->zip->map->path);
        }
    }
    return rc;
}

/* Count, then fill. */
static enum sonde_code flatten(const sonde_pick *k, size_t n_pickle, sonde_tensors *f, sonde_arena *scratch,
                               sonde_err *err)
{
    struct walk w;
    size_t n_tensors = 0, n_meta = 0;
    bool alone = k->value[k->root].kind == SONDE_PICK_TENSOR;
    enum sonde_code rc = begin_walk(&w, k, n_pickle, err);
    while (rc == SONDE_OK && (rc = step(&w, err)) == SONDE_OK && w.leaf) {
        n_tensors += w.leaf->kind == SONDE_PICK_TENSOR;
        n_meta += w.leaf->kind != SONDE_PICK_TENSOR;
    }
    if (rc != SONDE_OK)
        return rc;
    sonde_tensor *tensor = sonde_arena_get(f->arena, n_tensors + alone, sizeof *tensor, err);
    sonde_meta *meta = tensor ? sonde_arena_get(f->arena, n_meta, sizeof *meta, err) : NULL;
    if (!meta)
        return sonde_err_wrap(err, "%s", k->zip->map->path);
    f->tensor = tensor;
    f->meta = meta;
    if (alone) {
        tensor[f->n_tensors] = k->tensor[k->value[k->root].n];
        tensor[f->n_tensors++].name = "tensor";
        return SONDE_OK;
    }
    rc = fill(k, n_pickle, f, tensor, meta, err);
    return rc == SONDE_OK ? check_keys(k, meta, f->n_meta, scratch, err) : rc;
}

/* ---- the file ------------------------------------------------------------------------------------------ */

static enum sonde_code other_kind(const sonde_map *m, sonde_err *err)
{
    if (m->n_bytes >= 2 && m->data[0] == 0x80)
        return sonde_fail(
            err, SONDE_E_INPUT,
            "%s: a bare pickle, as torch.save wrote it before PyTorch 1.6; load it there and save it again",
            m->path);
    return sonde_fail(err, SONDE_E_INPUT, "%s: not a file of torch.save: it does not begin as a zip",
                      m->path);
}

static const sonde_zip_member *part(const sonde_pick *k, const char *name)
{
    char whole[SONDE_PICK_MAX_STEM + 16];
    size_t n = strlen(name);
    memcpy(whole, k->stem, k->n_stem);
    memcpy(whole + k->n_stem, name, n);
    return sonde_zip_find(k->zip, whole, k->n_stem + n);
}

/* The members share their first component; data.pkl and byteorder are looked at. */
static enum sonde_code find_pickle(sonde_pick *k, const sonde_zip_member **out, sonde_err *err)
{
    const sonde_zip *z = k->zip;
    const char *slash =
        z->n_members && z->member[0].n_name ? memchr(z->member[0].name, '/', z->member[0].n_name) : NULL;
    k->stem = slash ? z->member[0].name : "";
    k->n_stem = slash ? (size_t)(slash - k->stem) : 0;
    if (!slash || k->n_stem > SONDE_PICK_MAX_STEM || !(*out = part(k, "/data.pkl")))
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: a zip, but not of torch.save: it has no member NAME/data.pkl", z->map->path);
    const sonde_zip_member *x = *out, *order = part(k, "/byteorder");
    for (size_t i = 0; i < z->n_members; i++)
        k->has_checksums = k->has_checksums || z->member[i].crc != 0;
    if (x->method != SONDE_ZIP_STORED || x->n_bytes > MAX_PICKLE)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: data.pkl is compressed, or its %" PRIu64 " bytes are over the limit of %u",
                          z->map->path, x->n_bytes, MAX_PICKLE);
    if (k->has_checksums && !sonde_zip_crc_ok(z, x))
        return sonde_pick_damaged(k, "its checksum is wrong; the file is damaged", err);
    if (order && (order->method != SONDE_ZIP_STORED || order->n_bytes != 6 ||
                  memcmp(z->map->data + order->begin, "little", 6) != 0))
        return sonde_fail(err, SONDE_E_INPUT, "%s: its numbers are not little-endian", z->map->path);
    return SONDE_OK;
}

static enum sonde_code read_parts(const sonde_map *m, sonde_tensors *f, sonde_arena *scratch, sonde_err *err)
{
    sonde_zip z = {0};
    sonde_pick k = {.zip = &z, .arena = f->arena};
    const sonde_zip_member *x = NULL;
    enum sonde_code rc = sonde_zip_read(m, scratch, &z, err);
    if (rc == SONDE_OK)
        rc = find_pickle(&k, &x, err);
    if (rc != SONDE_OK)
        return rc;
    if (!sonde_mul(&k.max_copied, m->n_bytes, MAX_COPIES))
        k.max_copied = SIZE_MAX;
    k.checked = sonde_arena_get(scratch, z.n_members, sizeof *k.checked, err);
    if (!k.checked)
        return sonde_err_wrap(err, "%s", m->path);
    size_t n = (size_t)x->n_bytes;
    rc = sonde_pick_run(&k, m->data + x->begin, n, scratch, err);
    return rc == SONDE_OK ? flatten(&k, n, f, scratch, err) : rc;
}

static enum sonde_code read_file(const sonde_map *m, sonde_tensors *f, sonde_budget *budget, sonde_err *err)
{
    if (m->n_bytes < 4 || memcmp(m->data, "PK\3\4", 4) != 0)
        return other_kind(m, err);
    sonde_arena *scratch = sonde_arena_new(budget, err);
    enum sonde_code rc = scratch ? read_parts(m, f, scratch, err) : SONDE_E_MEMORY;
    sonde_arena_free(scratch);
    return rc;
}

enum sonde_code sonde_torchzip_parse(sonde_map *m, sonde_budget *budget, sonde_tensors **out, sonde_err *err)
{
    sonde_tensors *f = sonde_tensors_new("torch", 1, budget, err);
    enum sonde_code rc = f ? read_file(m, f, budget, err) : SONDE_E_MEMORY;
    return sonde_tensors_finish(f, m, rc, out, err);
}

enum sonde_code sonde_torchzip_open(const char *path, sonde_budget *budget, sonde_tensors **out,
                                    sonde_err *err)
{
    sonde_map *m;
    enum sonde_code rc = sonde_map_open(path, &m, err);
    return rc == SONDE_OK ? sonde_torchzip_parse(m, budget, out, err) : rc;
}
