/* SPDX-License-Identifier: MIT
 * The layout: uint64 N, N bytes of JSON, data. The JSON maps a name to {"dtype", "shape", "data_offsets":
 * [begin, end)} relative to the data; the ranges tile the data exactly. "__metadata__" maps strings to
 * strings. */
#include "safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "json.h"
#include "name_impl.h"
#include "safetensors_impl.h"
#include "tensors_impl.h"

#define PREFIX 8 /* bytes of the header's length */

static const sonde_st_type types[] = {
    {"F32", SONDE_F32, 32},
    {"F16", SONDE_F16, 16},
    {"BF16", SONDE_BF16, 16},
    {"F64", SONDE_F64, 64},
    {"I8", SONDE_I8, 8},
    {"U8", SONDE_U8, 8},
    {"I16", SONDE_I16, 16},
    {"U16", SONDE_U16, 16},
    {"I32", SONDE_I32, 32},
    {"U32", SONDE_U32, 32},
    {"I64", SONDE_I64, 64},
    {"U64", SONDE_U64, 64},
    {"BOOL", SONDE_BOOL, 8},
    {"F8_E4M3", SONDE_OPAQUE, 8},
    {"F8_E5M2", SONDE_OPAQUE, 8},
    {"F8_E8M0", SONDE_OPAQUE, 8},
    {"F8_E4M3FNUZ", SONDE_OPAQUE, 8},
    {"F8_E5M2FNUZ", SONDE_OPAQUE, 8},
    {"F6_E2M3", SONDE_OPAQUE, 6},
    {"F6_E3M2", SONDE_OPAQUE, 6},
    {"F4", SONDE_OPAQUE, 4},
    {"C64", SONDE_OPAQUE, 64},
};

const sonde_st_type *sonde_st_type_named(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

bool sonde_st_bytes(const sonde_st_type *type, const uint64_t *dim, int rank, size_t *n_bytes)
{
    size_t bits;
    if (!sonde_nbytes(&bits, dim, rank, type->bits) || bits % 8 != 0)
        return false;
    *n_bytes = bits / 8;
    return true;
}

/* Files of other kinds that come under this name. */
static const char *another_format(const sonde_map *m)
{
    static const struct {
        const char *magic;
        size_t n;
        const char *says;
    } known[] = {
        {"PK\3\4", 4, "a zip archive (a PyTorch checkpoint?); save it with safetensors.torch.save_file"},
        {"\x80\2", 2, "a Python pickle, which is never read; save it with safetensors.torch.save_file"},
        {"\x80\4", 2, "a Python pickle, which is never read; save it with safetensors.torch.save_file"},
        {"GGUF", 4, "a GGUF file"},
        {"\x89HDF", 4, "an HDF5 file"},
        {"version https://git-lfs", 23, "a Git LFS pointer; fetch the file itself with 'git lfs pull'"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (m->n_bytes >= known[i].n && memcmp(m->data, known[i].magic, known[i].n) == 0)
            return known[i].says;
    return NULL;
}

static enum sonde_code read_prefix(const sonde_map *m, size_t *n_header, sonde_err *err)
{
    uint64_t n = 0;
    if (m->n_bytes >= PREFIX)
        memcpy(&n, m->data, sizeof n);
    if (n >= 2 && n <= SONDE_ST_MAX_HEADER && sonde_inside(PREFIX, n, m->n_bytes) && m->data[PREFIX] == '{') {
        *n_header = (size_t)n;
        return SONDE_OK;
    }
    const char *other = another_format(m); /* only now: a length can look like a magic number, 640 does */
    if (other)
        return sonde_fail(err, SONDE_E_INPUT, "%s: not safetensors: this is %s", m->path, other);
    if (m->n_bytes < PREFIX + 2)
        return sonde_fail(err, SONDE_E_INPUT, "%s: not safetensors: %zu bytes are too few", m->path,
                          m->n_bytes);
    if (n > SONDE_ST_MAX_HEADER)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: not safetensors: a header of %" PRIu64 " bytes, at most %u are read", m->path,
                          n, SONDE_ST_MAX_HEADER);
    if (n > m->n_bytes - PREFIX)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: the header has %" PRIu64
                          " bytes, only %zu follow; the file is cut short or not safetensors",
                          m->path, n, m->n_bytes - PREFIX);
    return sonde_fail(err, SONDE_E_INPUT, "%s: not safetensors: the header does not begin with '{'", m->path);
}

/* A non-negative integer of the header. */
static bool take_size(const json_t *v, uint64_t *out)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

static enum sonde_code read_shape(const json_t *v, const char *path, sonde_tensor *t, sonde_err *err)
{
    if (!json_is_array(v))
        return sonde_fail(err, SONDE_E_INPUT, "%s: tensor '%.200s' has no array 'shape'", path, t->name);
    size_t rank = json_array_size(v);
    if (rank > SONDE_MAX_RANK)
        return sonde_fail(err, SONDE_E_INPUT, "%s: tensor '%.200s' has %zu dimensions, at most %d are read",
                          path, t->name, rank, SONDE_MAX_RANK);
    for (size_t i = 0; i < rank; i++)
        if (!take_size(json_array_get(v, i), &t->dim[i]))
            return sonde_fail(err, SONDE_E_INPUT,
                              "%s: tensor '%.200s': dimension %zu is not a non-negative integer", path,
                              t->name, i);
    t->rank = (int)rank;
    return SONDE_OK;
}

static enum sonde_code read_range(const json_t *v, const char *path, const unsigned char *data, size_t n_data,
                                  sonde_tensor *t, sonde_err *err)
{
    uint64_t begin, end;
    if (!json_is_array(v) || json_array_size(v) != 2 || !take_size(json_array_get(v, 0), &begin) ||
        !take_size(json_array_get(v, 1), &end))
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: tensor '%.200s': 'data_offsets' is not two non-negative integers", path,
                          t->name);
    if (begin > end || !sonde_inside(begin, end - begin, n_data))
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: tensor '%.200s' is at bytes %" PRIu64 "..%" PRIu64
                          " of the data, which has %zu; the "
                          "file is cut short or damaged",
                          path, t->name, begin, end, n_data);
    if (end - begin != t->n_bytes) {
        char shape[128];
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: tensor '%.200s' of %s %s needs %zu bytes, its offsets give it %" PRIu64, path,
                          t->name, t->type_name, sonde_shape_text(t->dim, t->rank, shape, sizeof shape),
                          t->n_bytes, end - begin);
    }
    t->data = data + begin;
    return SONDE_OK;
}

/* One entry; t->name is set. */
static enum sonde_code read_tensor(const json_t *entry, const char *path, const unsigned char *data,
                                   size_t n_data, sonde_tensor *t, sonde_err *err)
{
    if (!json_is_object(entry))
        return sonde_fail(err, SONDE_E_INPUT, "%s: the entry of tensor '%.200s' is not an object", path,
                          t->name);
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const sonde_st_type *type = dtype ? sonde_st_type_named(dtype) : NULL;
    if (!type)
        return sonde_fail(err, SONDE_E_INPUT, "%s: tensor '%.200s' has %s%.40s", path, t->name,
                          dtype ? "the unknown type " : "no string 'dtype'", dtype ? dtype : "");
    t->type_name = type->name;
    t->dtype = type->dtype;
    enum sonde_code rc = read_shape(json_object_get(entry, "shape"), path, t, err);
    if (rc != SONDE_OK)
        return rc;
    if (!sonde_st_bytes(type, t->dim, t->rank, &t->n_bytes)) {
        char shape[128];
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: tensor '%.200s': %s %s has no size in whole bytes that fits this "
                          "machine",
                          path, t->name, type->name, sonde_shape_text(t->dim, t->rank, shape, sizeof shape));
    }
    if (json_object_size(entry) != 3 && json_object_get(entry, "data_offsets"))
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: the entry of tensor '%.200s' has keys besides dtype, shape and data_offsets",
                          path, t->name);
    return read_range(json_object_get(entry, "data_offsets"), path, data, n_data, t, err);
}

static int by_place(const void *va, const void *vb)
{
    const sonde_tensor *a = va, *b = vb;
    if (a->data != b->data)
        return (const char *)a->data < (const char *)b->data ? -1 : 1;
    if (a->n_bytes != b->n_bytes)
        return a->n_bytes < b->n_bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Bring the tensors into the order of their data and check that they tile it. */
static enum sonde_code check_tiling(const char *path, const unsigned char *data, size_t n_data,
                                    sonde_tensor *t, size_t n, sonde_err *err)
{
    qsort(t, n, sizeof *t, by_place);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t begin = (size_t)((const unsigned char *)t[i].data - data);
        if (begin != at)
            return sonde_fail(
                err, SONDE_E_INPUT, "%s: tensor '%.200s' begins at byte %zu of the data, %s ends at %zu",
                path, t[i].name, begin,
                begin < at ? "but the one before it overlaps: it" : "there is a hole: the one before it", at);
        at += t[i].n_bytes;
    }
    if (at != n_data)
        return sonde_fail(err, SONDE_E_INPUT, "%s: the tensors end at byte %zu of the data, which has %zu",
                          path, at, n_data);
    return SONDE_OK;
}

/* Copy s and its NUL into the room at *to. */
static const char *put(char **to, const char *s, size_t n)
{
    char *copy = memcpy(*to, s, n + 1);
    *to += n + 1;
    return copy;
}

static enum sonde_code read_meta(const json_t *object, const char *path, sonde_arena *arena, char **text,
                                 sonde_st_file *f, sonde_err *err)
{
    f->meta = sonde_arena_get(arena, json_object_size(object), sizeof *f->meta, err);
    if (!f->meta)
        return sonde_err_wrap(err, "%s", path);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)object, key, v)
    {
        if (!json_is_string(v))
            return sonde_fail(err, SONDE_E_INPUT, "%s: __metadata__ '%.200s' is not a string", path, key);
        size_t n = json_string_length(v);
        sonde_meta *m = &f->meta[f->n_meta++];
        m->type = SONDE_META_STRING;
        m->key = put(text, key, strlen(key));
        m->s = put(text, json_string_value(v), n);
        m->n_bytes = n;
    }
    return SONDE_OK;
}

/* Room for all names, and the keys and strings of the metadata, each with its NUL: less than the header
 * takes. */
static char *room_for_text(const json_t *root, sonde_arena *arena, sonde_err *err)
{
    size_t n = 1;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)root, key, v) n += strlen(key) + 1;
    json_object_foreach(json_object_get(root, "__metadata__"), key, v) n +=
        strlen(key) + json_string_length(v) + 2;
    return sonde_arena_get(arena, n, 1, err);
}

static enum sonde_code read_entries(const json_t *root, const sonde_map *m, size_t n_header,
                                    sonde_arena *arena, sonde_st_file *f, sonde_err *err)
{
    const unsigned char *data = m->data + PREFIX + n_header;
    size_t n_data = m->n_bytes - PREFIX - n_header;
    const json_t *meta = json_object_get(root, "__metadata__");
    if (meta && !json_is_object(meta))
        return sonde_fail(err, SONDE_E_INPUT, "%s: __metadata__ is not an object", m->path);
    f->tensor = sonde_arena_get(arena, json_object_size(root), sizeof *f->tensor, err);
    char *text = f->tensor ? room_for_text(root, arena, err) : NULL;
    if (!text)
        return sonde_err_wrap(err, "%s", m->path);
    enum sonde_code rc = meta ? read_meta(meta, m->path, arena, &text, f, err) : SONDE_OK;
    const char *key;
    json_t *entry;
    json_object_foreach((json_t *)(uintptr_t)root, key, entry)
    {
        if (rc != SONDE_OK)
            return rc;
        if (entry == meta)
            continue;
        size_t n = strlen(key);
        if (!sonde_name_ok(key, n))
            return sonde_fail(
                err, SONDE_E_INPUT,
                "%s: the tensor name '%.60s' has %zu bytes; names are 1 to %d bytes of text without "
                "control characters",
                m->path, key, n, SONDE_MAX_NAME);
        sonde_tensor *t = &f->tensor[f->n_tensors++];
        t->name = put(&text, key, n);
        rc = read_tensor(entry, m->path, data, n_data, t, err);
    }
    return rc == SONDE_OK ? check_tiling(m->path, data, n_data, f->tensor, f->n_tensors, err) : rc;
}

enum sonde_code sonde_st_read(const sonde_map *m, sonde_arena *arena, sonde_budget *budget,
                              sonde_st_file *out, sonde_err *err)
{
    size_t n_header = 0;
    enum sonde_code rc = read_prefix(m, &n_header, err);
    if (rc != SONDE_OK)
        return rc;
    sonde_json json;
    rc = sonde_json_parse_within(m->data + PREFIX, n_header, budget, m->path, &json, err);
    if (rc != SONDE_OK)
        return rc;
    sonde_st_file f = {0};
    rc = read_entries(json.root, m, n_header, arena, &f, err);
    sonde_json_release(&json);
    if (rc == SONDE_OK)
        *out = f;
    return rc;
}

enum sonde_code sonde_safetensors_parse(sonde_map *m, sonde_budget *budget, sonde_tensors **out,
                                        sonde_err *err)
{
    sonde_st_file file = {0};
    sonde_tensors *f = sonde_tensors_new("safetensors", 1, budget, err);
    enum sonde_code rc = f ? sonde_st_read(m, f->arena, budget, &file, err) : SONDE_E_MEMORY;
    if (rc == SONDE_OK) {
        f->tensor = file.tensor;
        f->n_tensors = file.n_tensors;
        f->meta = file.meta;
        f->n_meta = file.n_meta;
    }
    return sonde_tensors_finish(f, m, rc, out, err);
}

enum sonde_code sonde_safetensors_open(const char *path, sonde_budget *budget, sonde_tensors **out,
                                       sonde_err *err)
{
    sonde_map *m;
    enum sonde_code rc = sonde_map_open(path, &m, err);
    return rc == SONDE_OK ? sonde_safetensors_parse(m, budget, out, err) : rc;
}
