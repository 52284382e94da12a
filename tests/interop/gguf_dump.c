/* SPDX-License-Identifier: MIT
 * gguf_dump FILE: everything that the GGUF reader gives, as one JSON object, for comparison with other readers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "file/gguf.h"
#include "file/json.h"

static json_t *number(enum sonde_meta_type type, int64_t i, uint64_t u, double f)
{
    char text[24];
    switch (type) {
    case SONDE_META_INT:
        return json_integer(i);
    case SONDE_META_UINT: /* as text: jansson has no unsigned 64-bit integers */
        snprintf(text, sizeof text, "%" PRIu64, u);
        return json_string(text);
    case SONDE_META_BOOL:
        return json_boolean(u);
    default:
        return json_real(f);
    }
}

static json_t *item_of(const sonde_meta *v, size_t i)
{
    const sonde_bytes *b = v->items;
    switch (v->item) {
    case SONDE_META_STRING:
        return json_stringn(b[i].s, b[i].n);
    case SONDE_META_INT:
        return json_integer(((const int64_t *)v->items)[i]);
    case SONDE_META_FLOAT:
        return json_real(((const double *)v->items)[i]);
    default:
        return number(v->item, 0, ((const uint64_t *)v->items)[i], 0);
    }
}

static json_t *value_of(const sonde_meta *v)
{
    if (v->type == SONDE_META_STRING)
        return json_stringn(v->s, v->n_bytes);
    if (v->type != SONDE_META_ARRAY)
        return number(v->type, v->i, v->u, v->f);
    json_t *a = json_array();
    for (size_t i = 0; i < v->n_items; i++)
        json_array_append_new(a, item_of(v, i));
    return a;
}

static json_t *hash_of(const void *p, size_t n)
{
    char hex[65];
    sonde_sha256 s;
    sonde_sha256_begin(&s);
    sonde_sha256_add(&s, p, n);
    sonde_sha256_end(&s, hex);
    return json_string(hex);
}

static json_t *tensor_of(const sonde_tensor *t)
{
    json_t *shape = json_array(), *floats = json_null();
    for (int i = 0; i < t->rank; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->dim[i]));
    size_t n = sonde_tensor_count(t);
    float *x = malloc(n * sizeof *x + 1);
    if (x && sonde_tensor_to_f32(t, 0, n, x, NULL) == SONDE_OK)
        floats = hash_of(x, n * sizeof *x);
    free(x);
    return json_pack("{s:s, s:s, s:o, s:o, s:o}", "type", t->type_name, "dtype", sonde_dtype_name(t->dtype), "shape", shape,
                     "sha256", hash_of(t->data, t->n_bytes), "float32_sha256", floats);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: gguf_dump FILE\n");
        return SONDE_E_USAGE;
    }
    sonde_tensors *f = NULL;
    sonde_err err = {0};
    enum sonde_code rc = sonde_gguf_open(argv[1], NULL, &f, &err);
    if (rc != SONDE_OK) {
        fprintf(stderr, "gguf_dump: %s\n", err.msg);
        return (int)rc;
    }
    json_t *meta = json_object(), *tensors = json_object();
    for (size_t i = 0; i < f->n_meta; i++)
        json_object_set_new(meta, f->meta[i].key, value_of(&f->meta[i]));
    for (size_t i = 0; i < f->n_tensors; i++)
        json_object_set_new(tensors, f->tensor[i].name, tensor_of(&f->tensor[i]));
    json_t *all = json_pack("{s:o, s:o}", "meta", meta, "tensors", tensors);
    int failed = json_dumpf(all, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(all);
    sonde_tensors_close(f);
    return failed ? SONDE_E_IO : SONDE_OK;
}
