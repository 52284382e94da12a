/* SPDX-License-Identifier: MIT
 * The structure of an HDF5 file as a table: run the walk in the child, believe nothing of what it says. */
#include "hdf5_impl.h"

#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "name_impl.h"

#define CHILD_MEMORY ((size_t)512 << 20)
#define CHILD_LEAST  ((size_t)64 << 20)
#define MAX_OBJECTS  65536

bool sonde_h5_name_ok(const char *s)
{
    return sonde_name_ok(s, strnlen(s, SONDE_MAX_NAME + 1));
}

/* Count the records and walk over them, so that the arrays are taken once. */
static bool skip_dataset(sonde_h5_cursor *c)
{
    size_t n;
    (void)sonde_h5_get_text(c);
    (void)sonde_h5_get_u64(c);
    (void)sonde_h5_get_u64(c);
    uint64_t rank = sonde_h5_get_u64(c);
    for (uint64_t i = 0; i < rank && i < SONDE_MAX_RANK; i++)
        (void)sonde_h5_get_u64(c);
    (void)sonde_h5_get_u64(c);
    (void)sonde_h5_get_u64(c);
    (void)sonde_h5_get_text(c);
    (void)sonde_h5_get_bytes(c, &n);
    return !c->bad && rank <= SONDE_MAX_RANK;
}

static bool get_attr(sonde_h5_cursor *c, sonde_store_attr *a)
{
    size_t n;
    *a = (sonde_store_attr){.path = sonde_h5_get_text(c), .name = sonde_h5_get_text(c)};
    uint64_t sort = sonde_h5_get_u64(c);
    if (sort == 2) {
        a->s = (const char *)sonde_h5_get_bytes(c, &n);
        c->bad |= strlen(a->s) != n;
    } else {
        uint64_t bits = sonde_h5_get_u64(c);
        a->is_float = sort == 1;
        memcpy(a->is_float ? (void *)&a->f : (void *)&a->i, &bits, sizeof bits);
    }
    return !c->bad && sort <= 2 && sonde_h5_name_ok(a->path) && sonde_h5_name_ok(a->name);
}

static bool count_records(sonde_h5_cursor c, size_t *n_datasets, size_t *n_attrs)
{
    sonde_store_attr a;
    *n_datasets = *n_attrs = 0;
    for (;;) {
        uint64_t tag = sonde_h5_get_u64(&c);
        if (tag == 'D' && skip_dataset(&c) && ++*n_datasets <= MAX_OBJECTS)
            continue;
        if (tag == 'A' && get_attr(&c, &a) && ++*n_attrs <= MAX_OBJECTS)
            continue;
        return tag == 'E' && !c.bad && c.at == c.n;
    }
}

/* Is what the child says about one dataset possible in a file of this size? */
static enum sonde_code check_dataset(const char *path, const sonde_h5_dataset *d, uint64_t file_bytes,
                                     sonde_err *err)
{
    const sonde_store_dataset *s = &d->shape;
    size_t want;
    char shape[200];
    if (d->kind == SONDE_H5_REFUSED || d->kind == SONDE_H5_CHUNKED)
        return SONDE_OK;
    sonde_shape_text(s->dim, s->rank, shape, sizeof shape);
    if (!sonde_nbytes(&want, s->dim, s->rank, sonde_dtype_size(s->dtype)))
        return sonde_fail(err, SONDE_E_INPUT, "%s: %.200s: shape %s is larger than any file", path, s->path,
                          shape);
    if (want != d->n_bytes)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %.200s: shape %s needs %zu bytes, it has %zu", path,
                          s->path, shape, want, d->n_bytes);
    if (d->kind == SONDE_H5_CONTIGUOUS && want > 0 && !sonde_inside(d->offset, d->n_bytes, file_bytes))
        return sonde_fail(err, SONDE_E_INPUT, "%s: %.200s: %zu bytes at offset %llu, the file has %llu", path,
                          s->path, d->n_bytes, (unsigned long long)d->offset, (unsigned long long)file_bytes);
    return SONDE_OK;
}

static enum sonde_code get_dataset(const char *path, sonde_h5_cursor *c, uint64_t file_bytes,
                                   sonde_h5_dataset *d, sonde_err *err)
{
    size_t n;
    d->shape.path = sonde_h5_get_text(c);
    uint64_t kind = sonde_h5_get_u64(c), dtype = sonde_h5_get_u64(c);
    d->shape.rank = (int)sonde_h5_get_u64(c);
    for (int i = 0; i < d->shape.rank; i++)
        d->shape.dim[i] = sonde_h5_get_u64(c);
    d->offset = sonde_h5_get_u64(c);
    d->n_bytes = sonde_h5_get_u64(c);
    d->note = sonde_h5_get_text(c);
    d->compact = sonde_h5_get_bytes(c, &n);
    bool ok = kind < SONDE_H5_N_KINDS && dtype < SONDE_N_DTYPES && dtype != SONDE_Q8_0 &&
              sonde_h5_name_ok(d->shape.path) && d->shape.path[0] == '/' &&
              (d->note[0] == '\0' || sonde_h5_name_ok(d->note)) &&
              (dtype != SONDE_OPAQUE || kind == SONDE_H5_REFUSED) &&
              (kind != SONDE_H5_COMPACT || n == d->n_bytes);
    if (!ok)
        return sonde_fail(err, SONDE_E_INPUT, "%s: damaged or hostile file (its structure makes no sense)",
                          path);
    d->kind = (enum sonde_h5_kind)kind;
    d->shape.dtype = (enum sonde_dtype)dtype;
    return check_dataset(path, d, file_bytes, err);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const sonde_h5_dataset *)a)->shape.path, ((const sonde_h5_dataset *)b)->shape.path);
}

static int by_path_and_name(const void *a, const void *b)
{
    const sonde_store_attr *x = a, *y = b;
    int c = strcmp(x->path, y->path);
    return c ? c : strcmp(x->name, y->name);
}

static int by_offset(const void *a, const void *b)
{
    const sonde_h5_dataset *x = *(const sonde_h5_dataset *const *)a, *y = *(const sonde_h5_dataset *const *)b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

/* Two names for one dataset are a hard link; anything else that overlaps is damage. */
static enum sonde_code check_overlap(const char *path, const sonde_h5_table *t, sonde_arena *arena,
                                     sonde_err *err)
{
    const sonde_h5_dataset **sorted = sonde_arena_get(arena, t->n_datasets, sizeof *sorted, err);
    if (!sorted)
        return SONDE_E_MEMORY;
    size_t n = 0;
    for (size_t i = 0; i < t->n_datasets; i++)
        if (t->dataset[i].kind == SONDE_H5_CONTIGUOUS && t->dataset[i].n_bytes > 0)
            sorted[n++] = &t->dataset[i];
    qsort(sorted, n, sizeof *sorted, by_offset);
    for (size_t i = 1; i < n; i++) {
        const sonde_h5_dataset *a = sorted[i - 1], *b = sorted[i];
        bool same = a->offset == b->offset && a->n_bytes == b->n_bytes;
        if (!same && b->offset - a->offset < a->n_bytes)
            return sonde_fail(err, SONDE_E_INPUT, "%s: the bytes of %.100s and %.100s overlap", path,
                              a->shape.path, b->shape.path);
    }
    return SONDE_OK;
}

static enum sonde_code sort_and_check(const char *path, sonde_h5_table *t, sonde_arena *arena, sonde_err *err)
{
    qsort(t->dataset, t->n_datasets, sizeof *t->dataset, by_path);
    qsort(t->attr, t->n_attrs, sizeof *t->attr, by_path_and_name);
    for (size_t i = 1; i < t->n_datasets; i++)
        if (by_path(&t->dataset[i - 1], &t->dataset[i]) == 0)
            return sonde_fail(err, SONDE_E_INPUT, "%s: %.200s is there twice", path,
                              t->dataset[i].shape.path);
    for (size_t i = 1; i < t->n_attrs; i++)
        if (by_path_and_name(&t->attr[i - 1], &t->attr[i]) == 0)
            return sonde_fail(err, SONDE_E_INPUT, "%s: attribute %.100s of %.100s is there twice", path,
                              t->attr[i].name, t->attr[i].path);
    for (size_t i = 0; i < t->n_datasets; i++) {
        const sonde_store_attr *a = sonde_h5_attr_find(t, t->dataset[i].shape.path, "encoding");
        if (t->dataset[i].shape.dtype == SONDE_U16 && a && a->s && strcmp(a->s, "bfloat16") == 0)
            t->dataset[i].shape.dtype = SONDE_BF16;
    }
    return check_overlap(path, t, arena, err);
}

/* What the child may take: within the caller's limit, but enough for HDF5 itself. */
static size_t child_memory(const sonde_budget *budget)
{
    if (!budget || budget->limit == 0)
        return CHILD_MEMORY;
    size_t taken = budget->taken, left = budget->limit > taken ? budget->limit - taken : 0;
    return left < CHILD_LEAST ? CHILD_LEAST : left > CHILD_MEMORY ? CHILD_MEMORY : left;
}

/* CPU seconds: a structure of n bytes takes a few microseconds per hundred of them. */
static unsigned child_seconds(uint64_t file_bytes)
{
    return 1 + (unsigned)(file_bytes >> 18 > 9 ? 9 : file_bytes >> 18);
}

enum sonde_code sonde_h5_table_parse(const char *path, sonde_h5_cursor c, uint64_t file_bytes,
                                     sonde_arena *arena, sonde_h5_table *out, sonde_err *err)
{
    sonde_h5_table t = {0};
    enum sonde_code rc;
    if (!count_records(c, &t.n_datasets, &t.n_attrs))
        return sonde_fail(err, SONDE_E_INPUT, "%s: damaged or hostile file (its structure makes no sense)",
                          path);
    t.dataset = sonde_arena_get(arena, t.n_datasets, sizeof *t.dataset, err);
    t.attr = t.dataset ? sonde_arena_get(arena, t.n_attrs, sizeof *t.attr, err) : NULL;
    if (!t.attr)
        return SONDE_E_MEMORY;
    size_t n_datasets = 0, n_attrs = 0;
    for (uint64_t tag; (tag = sonde_h5_get_u64(&c)) != 'E';) {
        if (tag == 'A')
            (void)get_attr(&c, &t.attr[n_attrs++]);
        else if ((rc = get_dataset(path, &c, file_bytes, &t.dataset[n_datasets++], err)))
            return rc;
    }
    if ((rc = sort_and_check(path, &t, arena, err)))
        return rc;
    *out = t;
    return SONDE_OK;
}

enum sonde_code sonde_h5_table_read(const char *path, int fd, uint64_t file_bytes, sonde_budget *budget,
                                    sonde_arena *arena, sonde_h5_table *out, sonde_err *err)
{
    sonde_h5_cursor c;
    const sonde_h5_task task = {path,          fd,  true, child_seconds(file_bytes), child_memory(budget),
                                sonde_h5_walk, NULL};
    enum sonde_code rc = sonde_h5_run(&task, arena, &c, err);
    return rc ? rc : sonde_h5_table_parse(path, c, file_bytes, arena, out, err);
}

const sonde_h5_dataset *sonde_h5_dataset_find(const sonde_h5_table *t, const char *path)
{
    sonde_h5_dataset key = {.shape = {.path = path}};
    return bsearch(&key, t->dataset, t->n_datasets, sizeof *t->dataset, by_path);
}

const sonde_store_attr *sonde_h5_attr_find(const sonde_h5_table *t, const char *path, const char *name)
{
    sonde_store_attr key = {.path = path, .name = name};
    return bsearch(&key, t->attr, t->n_attrs, sizeof *t->attr, by_path_and_name);
}
