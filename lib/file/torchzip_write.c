/* SPDX-License-Identifier: MIT
 * A state dict as torch.save writes it: pickle protocol 2 without memo, one storage per tensor. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "grow_impl.h"
#include "name_impl.h"
#include "torchzip.h"
#include "zip_impl.h"

#define STEM "archive/"

static const char *const storage[SONDE_N_DTYPES] = {
    [SONDE_F32] = "FloatStorage",  [SONDE_F16] = "HalfStorage", [SONDE_BF16] = "BFloat16Storage",
    [SONDE_F64] = "DoubleStorage", [SONDE_I8] = "CharStorage",  [SONDE_U8] = "ByteStorage",
    [SONDE_I16] = "ShortStorage",  [SONDE_I32] = "IntStorage",  [SONDE_I64] = "LongStorage",
    [SONDE_BOOL] = "BoolStorage",
};

static void put_word(struct grow *b, const char *s)
{
    grow_put(b, s, strlen(s));
}

static void put_string(struct grow *b, const char *s, size_t n)
{
    grow_put(b, "X", 1);
    grow_put(b, &(uint32_t){(uint32_t)n}, 4);
    grow_put(b, s, n);
}

static void put_text(struct grow *b, const char *s)
{
    put_string(b, s, strlen(s));
}

/* The shortest of BININT1, BININT and LONG1. */
static void put_int(struct grow *b, int64_t x)
{
    if (x >= 0 && x < 256) {
        grow_put(b, "K", 1);
        grow_put(b, &(uint8_t){(uint8_t)x}, 1);
    } else if (x >= INT32_MIN && x <= INT32_MAX) {
        grow_put(b, "J", 1);
        grow_put(b, &(int32_t){(int32_t)x}, 4);
    } else {
        grow_put(b, "\x8a\x08", 2);
        grow_put(b, &x, 8);
    }
}

static void put_float(struct grow *b, double x)
{
    uint64_t u;
    memcpy(&u, &x, 8);
    u = __builtin_bswap64(u);
    grow_put(b, "G", 1);
    grow_put(b, &u, 8);
}

static void put_tensor(struct grow *b, const sonde_tensor *t, size_t number)
{
    char key[24];
    int64_t stride[SONDE_MAX_RANK], step = 1;
    snprintf(key, sizeof key, "%zu", number);
    for (int i = t->rank; i-- > 0;) {
        stride[i] = step;
        step *= t->dim[i] ? (int64_t)t->dim[i] : 1; /* fits: the writer has seen the bytes */
    }
    put_word(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(b, "storage");
    put_word(b, "ctorch\n");
    put_word(b, storage[t->dtype]);
    put_word(b, "\n");
    put_text(b, key);
    put_text(b, "cpu");
    put_int(b, (int64_t)(t->n_bytes / sonde_dtype_size(t->dtype)));
    put_word(b, "tQK");
    grow_put(b, "", 1); /* offset 0 */
    put_word(b, "(");
    for (int i = 0; i < t->rank; i++)
        put_int(b, (int64_t)t->dim[i]);
    put_word(b, "t(");
    for (int i = 0; i < t->rank; i++)
        put_int(b, stride[i]);
    put_word(b, "t\x89"
                "ccollections\nOrderedDict\n)RtR");
}

static void put_value(struct grow *b, const sonde_meta *v)
{
    switch (v->type) {
    case SONDE_META_INT:
        put_int(b, v->i);
        break;
    case SONDE_META_FLOAT:
        put_float(b, v->f);
        break;
    case SONDE_META_BOOL:
        grow_put(b, v->i ? "\x88" : "\x89", 1);
        break;
    default:
        put_string(b, v->s, v->n_bytes);
    }
}

static bool same_group(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

static void make_pickle(struct grow *b, const sonde_tensor *tensor, size_t n_tensors,
                        const sonde_torch_value *value, size_t n_values)
{
    put_word(b, "\x80\x02"
                "ccollections\nOrderedDict\n)R(");
    for (size_t i = 0; i < n_tensors; i++) {
        put_text(b, tensor[i].name);
        put_tensor(b, &tensor[i], i);
    }
    for (size_t i = 0; i < n_values; i++) {
        const sonde_torch_value *v = &value[i];
        if (v->group && !(i && same_group(v->group, value[i - 1].group))) {
            put_text(b, v->group);
            put_word(b, "}(");
        }
        put_text(b, v->value.key);
        put_value(b, &v->value);
        if (v->group && !(i + 1 < n_values && same_group(v->group, value[i + 1].group)))
            put_word(b, "u");
    }
    put_word(b, "u.");
}

/* ---- what is asked for --------------------------------------------------------------------------------- */

static enum sonde_code check_name(const char *path, const char *name, sonde_err *err)
{
    return sonde_name_ok(name, strlen(name))
               ? SONDE_OK
               : sonde_fail(err, SONDE_E_USAGE, "%s: '%.100s' is no name for an entry", path, name);
}

static enum sonde_code twice(const char *path, const char *name, sonde_err *err)
{
    return sonde_fail(err, SONDE_E_USAGE, "%s: there are two entries '%.100s'", path, name);
}

static enum sonde_code check_tensors(const char *path, const sonde_tensor *t, size_t n, sonde_err *err)
{
    for (size_t i = 0; i < n; i++) {
        size_t n_bytes;
        if (!storage[t[i].dtype])
            return sonde_fail(err, SONDE_E_USAGE,
                              "%s: tensor '%.100s' has type %s, which torch files do not take", path,
                              t[i].name, sonde_dtype_name(t[i].dtype));
        if (t[i].rank < 0 || t[i].rank > SONDE_MAX_RANK ||
            !sonde_nbytes(&n_bytes, t[i].dim, t[i].rank, sonde_dtype_size(t[i].dtype)) ||
            n_bytes != t[i].n_bytes)
            return sonde_fail(err, SONDE_E_USAGE,
                              "%s: the shape of tensor '%.100s' and its %zu bytes do not agree", path,
                              t[i].name, t[i].n_bytes);
        enum sonde_code rc = check_name(path, t[i].name, err);
        for (size_t k = 0; k < i && rc == SONDE_OK; k++)
            rc = strcmp(t[k].name, t[i].name) == 0 ? twice(path, t[i].name, err) : SONDE_OK;
        if (rc != SONDE_OK)
            return rc;
    }
    return SONDE_OK;
}

static bool same_place(const sonde_torch_value *a, const sonde_torch_value *b)
{
    return strcmp(a->value.key, b->value.key) == 0 &&
           (same_group(a->group, b->group) || (!a->group && !b->group));
}

/* A name at the top level that a tensor has too. */
static enum sonde_code check_beside(const char *path, const sonde_tensor *t, size_t n_tensors,
                                    const sonde_torch_value *v, size_t n, sonde_err *err)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n_tensors; k++)
            if (strcmp(t[k].name, v[i].group ? v[i].group : v[i].value.key) == 0)
                return twice(path, t[k].name, err);
    return SONDE_OK;
}

static enum sonde_code check_values(const char *path, const sonde_torch_value *v, size_t n, sonde_err *err)
{
    for (size_t i = 0; i < n; i++) {
        enum sonde_meta_type type = v[i].value.type;
        if (type != SONDE_META_INT && type != SONDE_META_FLOAT && type != SONDE_META_BOOL &&
            type != SONDE_META_STRING)
            return sonde_fail(err, SONDE_E_USAGE, "%s: value '%.100s' is not an int, float, bool or string",
                              path, v[i].value.key);
        enum sonde_code rc = check_name(path, v[i].value.key, err);
        if (rc == SONDE_OK && v[i].group)
            rc = check_name(path, v[i].group, err);
        for (size_t k = 0; k < i && rc == SONDE_OK; k++)
            if (same_place(&v[k], &v[i]) ||
                (k + 1 < i && same_group(v[k].group, v[i].group) && !same_group(v[i - 1].group, v[i].group)))
                rc = twice(path, v[i].value.key, err);
        if (rc != SONDE_OK)
            return rc;
    }
    return SONDE_OK;
}

static enum sonde_code write_members(sonde_zip_writer *w, const struct grow *b, const sonde_tensor *tensor,
                                     size_t n_tensors, sonde_err *err)
{
    enum sonde_code rc = sonde_zip_add(w, STEM "data.pkl", NULL, 0, b->p, b->n, err);
    if (rc == SONDE_OK)
        rc = sonde_zip_add(w, STEM "byteorder", NULL, 0, "little", 6, err);
    for (size_t i = 0; i < n_tensors && rc == SONDE_OK; i++) {
        char name[48];
        snprintf(name, sizeof name, STEM "data/%zu", i);
        rc = sonde_zip_add(w, name, NULL, 0, tensor[i].data, tensor[i].n_bytes, err);
    }
    return rc == SONDE_OK ? sonde_zip_add(w, STEM "version", NULL, 0, "3\n", 2, err) : rc;
}

enum sonde_code sonde_torchzip_write(const char *path, const sonde_tensor *tensor, size_t n_tensors,
                                     const sonde_torch_value *value, size_t n_values, bool overwrite,
                                     sonde_err *err)
{
    enum sonde_code rc = check_tensors(path, tensor, n_tensors, err);
    if (rc == SONDE_OK)
        rc = check_values(path, value, n_values, err);
    if (rc == SONDE_OK)
        rc = check_beside(path, tensor, n_tensors, value, n_values, err);
    if (rc != SONDE_OK)
        return rc;
    struct grow b = {0};
    sonde_zip_writer *w = NULL;
    make_pickle(&b, tensor, n_tensors, value, n_values);
    if (b.failed)
        rc = sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the list of %zu tensors", path, n_tensors);
    if (rc == SONDE_OK)
        rc = sonde_zip_begin(path, overwrite, UINT32_MAX, &w, err);
    if (rc == SONDE_OK)
        rc = write_members(w, &b, tensor, n_tensors, err);
    if (w && rc == SONDE_OK)
        rc = sonde_zip_commit(w, err);
    else
        sonde_zip_abandon(w);
    free(b.p);
    return rc;
}
