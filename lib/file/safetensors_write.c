/* SPDX-License-Identifier: MIT
 * Writing: the header as the reference library spells it, then the data in the order given. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/replace.h"
#include "../base/size.h"
#include "name_impl.h"
#include "safetensors_impl.h"

/* A string that grows; after a failed allocation it stays failed. */
struct text {
    char *s;
    size_t n, room;
    bool failed, too_long;
};

static void add(struct text *t, const char *s, size_t n)
{
    size_t need;
    if (n == 0)
        return;
    if (t->failed || !sonde_add(&need, t->n, n) || need > SONDE_ST_MAX_HEADER) {
        t->too_long = t->too_long || !t->failed;
        t->failed = true;
        return;
    }
    if (need > t->room) {
        size_t room = need < 4096 ? 8192 : 2 * need;
        char *grown = realloc(t->s, room);
        if (!grown) {
            t->failed = true;
            return;
        }
        t->s = grown;
        t->room = room;
    }
    memcpy(t->s + t->n, s, n);
    t->n = need;
}

static void add_word(struct text *t, const char *s)
{
    add(t, s, strlen(s));
}

static void add_number(struct text *t, uint64_t x)
{
    char digits[24];
    add(t, digits, (size_t)snprintf(digits, sizeof digits, "%" PRIu64, x));
}

/* Control characters are escaped as serde_json does it. */
static void add_quoted(struct text *t, const char *s)
{
    static const char named[] = "\b\t\n\f\r\"\\", letters[] = "btnfr\"\\";
    add_word(t, "\"");
    for (const char *p = s; *p; p++) {
        const char *known = strchr(named, *p);
        if (known) {
            add(t, (char[2]){'\\', letters[known - named]}, 2);
        } else if ((unsigned char)*p < 0x20) {
            char code[8];
            add(t, code, (size_t)snprintf(code, sizeof code, "\\u%04x", (unsigned)(unsigned char)*p));
        } else {
            add(t, p, 1);
        }
    }
    add_word(t, "\"");
}

static const sonde_st_type *type_of(const sonde_tensor *t)
{
    static const char *const names[SONDE_N_DTYPES] = {
        [SONDE_F32] = "F32",   [SONDE_F16] = "F16", [SONDE_BF16] = "BF16", [SONDE_F64] = "F64",
        [SONDE_I8] = "I8",     [SONDE_U8] = "U8",   [SONDE_I16] = "I16",   [SONDE_U16] = "U16",
        [SONDE_I32] = "I32",   [SONDE_U32] = "U32", [SONDE_I64] = "I64",   [SONDE_U64] = "U64",
        [SONDE_BOOL] = "BOOL",
    };
    if (t->dtype == SONDE_OPAQUE) { /* copied as it is, if safetensors has the type */
        const sonde_st_type *type = t->type_name ? sonde_st_type_named(t->type_name) : NULL;
        return type && type->dtype == SONDE_OPAQUE ? type : NULL;
    }
    return names[t->dtype] ? sonde_st_type_named(names[t->dtype]) : NULL;
}

static enum sonde_code check_tensor(const char *path, const sonde_tensor *t, sonde_err *err)
{
    if (!sonde_name_ok(t->name, strlen(t->name)))
        return sonde_fail(err, SONDE_E_USAGE, "%s: '%.200s' cannot be the name of a tensor", path, t->name);
    const sonde_st_type *type = type_of(t);
    if (!type)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: tensor '%.200s' has type %s, which safetensors does not have", path, t->name,
                          sonde_dtype_name(t->dtype));
    size_t n_bytes;
    if (t->rank < 0 || t->rank > SONDE_MAX_RANK || !sonde_st_bytes(type, t->dim, t->rank, &n_bytes) ||
        n_bytes != t->n_bytes)
        return sonde_fail(err, SONDE_E_USAGE, "%s: tensor '%.200s': its shape and its %zu bytes do not agree",
                          path, t->name, t->n_bytes);
    return SONDE_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum sonde_code check_distinct(const char *path, const char **word, size_t n, sonde_err *err)
{
    qsort(word, n, sizeof *word, by_text);
    for (size_t i = 1; i < n; i++)
        if (strcmp(word[i - 1], word[i]) == 0)
            return sonde_fail(err, SONDE_E_USAGE, "%s: '%.200s' is given twice", path, word[i]);
    return SONDE_OK;
}

static enum sonde_code check_all(const char *path, const sonde_tensor *tensor, size_t n_tensors,
                                 const char *const *meta, size_t n_meta, sonde_err *err)
{
    const char **word = calloc((n_tensors > n_meta ? n_tensors : n_meta) + 1, sizeof *word);
    if (!word)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for %zu names", path, n_tensors);
    enum sonde_code rc = SONDE_OK;
    for (size_t i = 0; i < n_tensors && rc == SONDE_OK; i++) {
        word[i] = tensor[i].name;
        rc = check_tensor(path, &tensor[i], err);
        if (rc == SONDE_OK && strcmp(tensor[i].name, "__metadata__") == 0)
            rc = sonde_fail(err, SONDE_E_USAGE, "%s: a tensor cannot be named __metadata__", path);
    }
    if (rc == SONDE_OK)
        rc = check_distinct(path, word, n_tensors, err);
    for (size_t i = 0; i < n_meta; i++)
        word[i] = meta[2 * i];
    if (rc == SONDE_OK)
        rc = check_distinct(path, word, n_meta, err);
    for (size_t i = 0; i < 2 * n_meta && rc == SONDE_OK; i++)
        if (!sonde_utf8_ok(meta[i], strlen(meta[i])))
            rc = sonde_fail(err, SONDE_E_USAGE, "%s: the metadata '%.200s' is not UTF-8", path, meta[i]);
    free(word);
    return rc;
}

static void add_tensor(struct text *t, const sonde_tensor *x, uint64_t begin)
{
    add_quoted(t, x->name);
    add_word(t, ":{\"dtype\":\"");
    add_word(t, type_of(x)->name);
    add_word(t, "\",\"shape\":[");
    for (int i = 0; i < x->rank; i++) {
        if (i)
            add_word(t, ",");
        add_number(t, x->dim[i]);
    }
    add_word(t, "],\"data_offsets\":[");
    add_number(t, begin);
    add_word(t, ",");
    add_number(t, begin + x->n_bytes);
    add_word(t, "]}");
}

/* The length and the JSON, padded with spaces to a multiple of 8. */
static bool make_header(struct text *t, const sonde_tensor *tensor, size_t n_tensors, const char *const *meta,
                        size_t n_meta)
{
    static const char blank[8] = "        ";
    add(t, blank, 8); /* the length comes here */
    add_word(t, "{");
    if (n_meta) {
        add_word(t, "\"__metadata__\":{");
        for (size_t i = 0; i < n_meta; i++) {
            if (i)
                add_word(t, ",");
            add_quoted(t, meta[2 * i]);
            add_word(t, ":");
            add_quoted(t, meta[2 * i + 1]);
        }
        add_word(t, n_tensors ? "}," : "}");
    }
    size_t at = 0;
    for (size_t i = 0; i < n_tensors; i++) {
        if (i)
            add_word(t, ",");
        add_tensor(t, &tensor[i], at);
        if (!sonde_add(&at, at, tensor[i].n_bytes))
            return false;
    }
    add_word(t, "}");
    add(t, blank, (8 - t->n % 8) % 8);
    if (t->failed)
        return false;
    uint64_t n_header = t->n - 8;
    memcpy(t->s, &n_header, 8);
    return true;
}

enum sonde_code sonde_safetensors_write(const char *path, const sonde_tensor *tensor, size_t n_tensors,
                                        const char *const *meta, size_t n_meta, bool overwrite,
                                        sonde_err *err)
{
    enum sonde_code rc = check_all(path, tensor, n_tensors, meta, n_meta, err);
    if (rc != SONDE_OK)
        return rc;
    struct text header = {0};
    sonde_replace *r = NULL;
    if (!make_header(&header, tensor, n_tensors, meta, n_meta)) {
        rc = header.too_long
                 ? sonde_fail(err, SONDE_E_USAGE, "%s: the header of %zu tensors has more than %u bytes",
                              path, n_tensors, SONDE_ST_MAX_HEADER)
                 : sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the header of %zu tensors", path,
                              n_tensors);
        goto out;
    }
    rc = sonde_replace_begin(path, overwrite, &r, err);
    if (rc == SONDE_OK)
        rc = sonde_replace_write(r, header.s, header.n, err);
    for (size_t i = 0; i < n_tensors && rc == SONDE_OK; i++)
        rc = sonde_replace_write(r, tensor[i].data, tensor[i].n_bytes, err);
    if (r) {
        if (rc == SONDE_OK)
            rc = sonde_replace_commit(r, err);
        else
            sonde_replace_abandon(r);
    }
out:
    free(header.s);
    return rc;
}
