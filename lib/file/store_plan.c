/* SPDX-License-Identifier: MIT
 * From the caller's layout to what is in the file: checksums, encodings and format attributes are added,
 * blocks are numbered. And back: whether a file that is there was laid out the same way. */
#include "store_impl.h"

#include <stdio.h>
#include <string.h>

#include "../base/size.h"

#define MAX_DATASETS   10000             /* the reader takes 65536 objects and attributes */
#define MAX_TEXT_BYTES ((size_t)8 << 20) /* half of what the reader takes: finishing may add as much */

static bool path_ok(const char *path)
{
    if (!path || path[0] != '/' || !sonde_h5_name_ok(path))
        return false;
    for (const char *p = path; *p; p += strcspn(p, "/")) {
        size_t n = strcspn(++p, "/");
        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
    }
    return true;
}

static enum sonde_code check_dataset(const char *file, const sonde_store_dataset *d, sonde_err *err)
{
    size_t n;
    if (!path_ok(d->path) || strncmp(d->path, "/check/", 7) == 0)
        return sonde_fail(err, SONDE_E_USAGE, "%s: '%.200s' cannot be the path of a dataset", file,
                          d->path ? d->path : "");
    if ((unsigned)d->dtype >= SONDE_N_DTYPES || d->dtype == SONDE_BOOL || sonde_dtype_size(d->dtype) == 0)
        return sonde_fail(err, SONDE_E_USAGE, "%s: %.200s: this type cannot be stored", file, d->path);
    if (d->rank < 1 || d->rank > SONDE_MAX_RANK)
        return sonde_fail(err, SONDE_E_USAGE, "%s: %.200s: rank %d, it must be 1 to %d", file, d->path,
                          d->rank, SONDE_MAX_RANK);
    if (!sonde_nbytes(&n, d->dim, d->rank, sonde_dtype_size(d->dtype)) || n > SIZE_MAX / 4)
        return sonde_fail(err, SONDE_E_USAGE, "%s: %.200s: larger than any file", file, d->path);
    return SONDE_OK;
}

static bool has_attr(const sonde_store_layout *l, const char *name)
{
    for (size_t i = 0; i < l->n_attrs; i++)
        if (strcmp(l->attr[i].path, "/") == 0 && strcmp(l->attr[i].name, name) == 0)
            return true;
    return false;
}

enum sonde_code sonde_store_check_attrs(const char *file, const sonde_store_attr *a, size_t n, sonde_err *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        if (!a[i].path || !a[i].name || !sonde_h5_name_ok(a[i].name) ||
            (strcmp(a[i].path, "/") != 0 && !path_ok(a[i].path)))
            return sonde_fail(err, SONDE_E_USAGE, "%s: '%.100s' of '%.100s' cannot be an attribute", file,
                              a[i].name ? a[i].name : "", a[i].path ? a[i].path : "");
        bytes += a[i].s ? strlen(a[i].s) : 0;
    }
    if (bytes > MAX_TEXT_BYTES)
        return sonde_fail(err, SONDE_E_USAGE, "%s: %zu bytes of string attributes, at most %zu fit", file,
                          bytes, MAX_TEXT_BYTES);
    return SONDE_OK;
}

/* The caller's strings may go away before the writer does. */
static enum sonde_code keep(sonde_store_writer *w, const char **s, sonde_err *err)
{
    if (*s && !(*s = sonde_arena_strndup(w->arena, *s, strlen(*s), err)))
        return SONDE_E_MEMORY;
    return SONDE_OK;
}

static enum sonde_code plan_dataset(sonde_store_writer *w, size_t i, sonde_err *err)
{
    sonde_store_dataset *d = &w->dataset[i];
    sonde_store_rows *r = &w->rows[i];
    enum sonde_code rc = check_dataset(w->path, d, err);
    if (rc || (rc = keep(w, &d->path, err)))
        return rc;
    r->n_rows = d->dim[0];
    (void)sonde_nbytes(&r->row_bytes, d->dim + 1, d->rank - 1, sonde_dtype_size(d->dtype));
    r->first_block = w->n_blocks;
    r->block_rows = r->row_bytes ? sonde_store_block_rows(r->row_bytes) : 1;
    if (r->row_bytes)
        w->n_blocks += sonde_store_n_blocks(r->n_rows, r->block_rows);
    if (d->dtype == SONDE_BF16)
        w->attr[w->n_attrs++] = (sonde_store_attr){.path = d->path, .name = "encoding", .s = "bfloat16"};
    w->attr[w->n_attrs++] =
        (sonde_store_attr){.path = d->path, .name = "check_first", .i = (int64_t)r->first_block};
    w->attr[w->n_attrs++] =
        (sonde_store_attr){.path = d->path, .name = "check_rows", .i = (int64_t)r->block_rows};
    return SONDE_OK;
}

static enum sonde_code take_blocks(sonde_store_writer *w, sonde_err *err)
{
    w->sum = sonde_arena_get(w->arena, w->n_blocks, sizeof *w->sum, err);
    w->count = w->sum ? sonde_arena_get(w->arena, w->n_blocks, sizeof *w->count, err) : NULL;
    w->saved = w->count ? sonde_arena_get(w->arena, w->n_blocks, 1, err) : NULL;
    return w->saved ? SONDE_OK : SONDE_E_MEMORY;
}

enum sonde_code sonde_store_plan(sonde_store_writer *w, const sonde_store_layout *l, sonde_err *err)
{
    enum sonde_code rc = sonde_store_check_attrs(w->path, l->attr, l->n_attrs, err);
    if (rc)
        return rc;
    if (l->n_datasets > MAX_DATASETS || l->n_attrs > MAX_DATASETS)
        return sonde_fail(err, SONDE_E_USAGE, "%s: %zu datasets and %zu attributes, at most %d fit", w->path,
                          l->n_datasets, l->n_attrs, MAX_DATASETS);
    w->n_datasets = l->n_datasets;
    w->dataset = sonde_arena_get(w->arena, l->n_datasets + 1, sizeof *w->dataset, err);
    w->rows = w->dataset ? sonde_arena_get(w->arena, l->n_datasets + 1, sizeof *w->rows, err) : NULL;
    w->attr =
        w->rows ? sonde_arena_get(w->arena, l->n_attrs + 3 * l->n_datasets + 3, sizeof *w->attr, err) : NULL;
    if (!w->attr)
        return SONDE_E_MEMORY;
    if (!has_attr(l, "format"))
        w->attr[w->n_attrs++] = (sonde_store_attr){.path = "/", .name = "format", .s = "sonde-activations"};
    if (!has_attr(l, "format_version"))
        w->attr[w->n_attrs++] = (sonde_store_attr){.path = "/", .name = "format_version", .s = "1.0"};
    for (size_t i = 0; i < l->n_attrs; i++) {
        sonde_store_attr *a = &w->attr[w->n_attrs++];
        *a = l->attr[i];
        if ((rc = keep(w, &a->path, err)) || (rc = keep(w, &a->name, err)) || (rc = keep(w, &a->s, err)))
            return rc;
    }
    for (size_t i = 0; i < l->n_datasets; i++) {
        w->dataset[i] = l->dataset[i];
        if ((rc = plan_dataset(w, i, err)))
            return rc;
    }
    w->dataset[l->n_datasets] =
        (sonde_store_dataset){.path = SONDE_STORE_CHECK, .dtype = SONDE_U64, .rank = 1, .dim = {w->n_blocks}};
    w->rows[l->n_datasets] = (sonde_store_rows){.n_rows = w->n_blocks, .row_bytes = 8};
    w->attr[w->n_attrs++] =
        (sonde_store_attr){.path = SONDE_STORE_CHECK, .name = "hash", .s = "XXH3-64, seed 0"};
    return take_blocks(w, err);
}

/* ---- a file that is there against the plan ----------------------------------------------------- */

/* The value in words; of a long string 80 bytes from a little before `from`. */
static char *attr_text(const sonde_store_attr *a, size_t from, char *buf, size_t n)
{
    size_t len = a->s ? strlen(a->s) : 0, begin = from > 20 && len > 80 ? from - 20 : 0;
    if (a->s)
        snprintf(buf, n, "'%s%.80s%s'", begin ? "..." : "", a->s + begin, len - begin > 80 ? "..." : "");
    else if (a->is_float)
        snprintf(buf, n, "%.17g", a->f);
    else
        snprintf(buf, n, "%lld", (long long)a->i);
    return buf;
}

/* The first byte in which two strings differ. */
static size_t first_difference(const sonde_store_attr *a, const sonde_store_attr *b)
{
    size_t i = 0;
    while (a->s && b->s && a->s[i] && a->s[i] == b->s[i])
        i++;
    return i;
}

static bool same_attr(const sonde_store_attr *a, const sonde_store_attr *b)
{
    if (!a->s != !b->s || a->is_float != b->is_float)
        return false;
    if (a->s)
        return strcmp(a->s, b->s) == 0;
    return a->is_float ? memcmp(&a->f, &b->f, sizeof a->f) == 0 : a->i == b->i;
}

/* The planned attributes that the file must have with the same value: those of the root, or all. */
static enum sonde_code match_values(const sonde_store_writer *w, const sonde_h5_table *t, bool root_only,
                                    sonde_err *err)
{
    char was[120], is[120];
    for (size_t i = 0; i < w->n_attrs; i++) {
        const sonde_store_attr *a = &w->attr[i], *b = sonde_h5_attr_find(t, a->path, a->name);
        if (root_only && a->path[1])
            continue;
        if (!b)
            return sonde_fail(err, SONDE_E_USAGE,
                              "%s: has no attribute %s of %s, this run has %s; --force starts again", w->part,
                              a->name, a->path, attr_text(a, 0, is, sizeof is));
        size_t from = first_difference(a, b);
        if (!same_attr(a, b))
            return sonde_fail(
                err, SONDE_E_USAGE,
                "%s: %s%s%s was %s, now it is %s; resume with the same options, or start again with --force",
                w->part, a->name, a->path[1] ? " of " : "", a->path[1] ? a->path : "",
                attr_text(b, from, was, sizeof was), attr_text(a, from, is, sizeof is));
    }
    return SONDE_OK;
}

static enum sonde_code match_attrs(const sonde_store_writer *w, const sonde_h5_table *t, sonde_err *err)
{
    char was[120];
    enum sonde_code rc = match_values(w, t, false, err);
    if (rc)
        return rc;
    for (size_t j = 0; j < t->n_attrs; j++) {
        bool planned = false;
        for (size_t i = 0; i < w->n_attrs && !planned; i++)
            planned = strcmp(w->attr[i].name, t->attr[j].name) == 0 &&
                      strcmp(w->attr[i].path, t->attr[j].path) == 0;
        if (!planned)
            return sonde_fail(err, SONDE_E_USAGE,
                              "%s: %s of %s was %s, this run has none; --force starts again", w->part,
                              t->attr[j].name, t->attr[j].path, attr_text(&t->attr[j], 0, was, sizeof was));
    }
    return SONDE_OK;
}

static enum sonde_code match_dataset(const sonde_store_writer *w, const sonde_store_dataset *d,
                                     const sonde_h5_dataset *f, sonde_err *err)
{
    char was[200], is[200];
    if (!f)
        return sonde_fail(err, SONDE_E_USAGE, "%s: has no %s, this run writes it; --force starts again",
                          w->part, d->path);
    if (f->shape.dtype == d->dtype && f->shape.rank == d->rank && f->kind == SONDE_H5_CONTIGUOUS &&
        memcmp(f->shape.dim, d->dim, (size_t)d->rank * sizeof *d->dim) == 0)
        return SONDE_OK;
    return sonde_fail(
        err, SONDE_E_USAGE,
        "%s: %.120s was %s %s, now it is %s %s; resume with the same options, or start again with --force",
        w->part, d->path, sonde_dtype_name(f->shape.dtype),
        sonde_shape_text(f->shape.dim, f->shape.rank, was, sizeof was), sonde_dtype_name(d->dtype),
        sonde_shape_text(d->dim, d->rank, is, sizeof is));
}

enum sonde_code sonde_store_match(sonde_store_writer *w, const sonde_h5_table *t, sonde_err *err)
{
    enum sonde_code rc =
        match_values(w, t, true, err); /* an option says more than the shapes that follow from it */
    if (rc)
        return rc;
    for (size_t i = 0; i < w->n_datasets; i++) {
        const sonde_h5_dataset *f = sonde_h5_dataset_find(t, w->dataset[i].path);
        rc = match_dataset(w, &w->dataset[i], f, err);
        if (rc)
            return rc;
        w->rows[i].offset = f->offset;
    }
    for (size_t j = 0; j < t->n_datasets; j++) {
        bool planned = strcmp(t->dataset[j].shape.path, SONDE_STORE_CHECK) == 0;
        for (size_t i = 0; i < w->n_datasets && !planned; i++)
            planned = strcmp(w->dataset[i].path, t->dataset[j].shape.path) == 0;
        if (!planned)
            return sonde_fail(err, SONDE_E_USAGE,
                              "%s: has %s, this run does not write it; --force starts again", w->part,
                              t->dataset[j].shape.path);
    }
    rc = match_attrs(w, t, err);
    const sonde_h5_dataset *check = sonde_h5_dataset_find(t, SONDE_STORE_CHECK);
    if (!rc)
        rc = match_dataset(w, &w->dataset[w->n_datasets], check, err);
    if (!rc)
        w->rows[w->n_datasets].offset = check->offset;
    return rc;
}
