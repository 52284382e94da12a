/* SPDX-License-Identifier: MIT
 * For test_store.py: "write PATH" makes a store in which element i of dataset d is value(d, i), in every
 * type; "dump PATH" prints every dataset and attribute of a file, one per line, tab-separated: D path dtype
 * shape hex, or D path dtype shape ! why. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "file/store.h"

static const sonde_store_dataset sets[] = {
    {"/acts/f32", SONDE_F32, 2, {50, 6}},
    {"/acts/f16", SONDE_F16, 2, {50, 6}},
    {"/acts/bf16", SONDE_BF16, 3, {50, 2, 3}},
    {"/t/f64", SONDE_F64, 1, {9}},
    {"/t/i8", SONDE_I8, 1, {9}},
    {"/t/u8", SONDE_U8, 1, {9}},
    {"/t/i16", SONDE_I16, 1, {9}},
    {"/t/u16", SONDE_U16, 1, {9}},
    {"/t/i32", SONDE_I32, 1, {9}},
    {"/t/u32", SONDE_U32, 1, {9}},
    {"/t/i64", SONDE_I64, 1, {9}},
    {"/t/u64", SONDE_U64, 1, {9}},
    {"/t/empty", SONDE_F32, 2, {0, 4}},
};
static const sonde_store_attr attrs[] = {
    {.path = "/", .name = "config_json", .s = "{\"name\": \"Gr\xc3\xbc\xc3\x9f\"}\n"},
    {.path = "/", .name = "empty", .s = ""},
    {.path = "/", .name = "seed", .i = INT64_MIN},
    {.path = "/", .name = "rate", .is_float = true, .f = 0.1},
    {.path = "/acts/f32", .name = "hook", .s = "f32"},
};
static const sonde_store_attr late[] = {{.path = "/acts", .name = "late", .s = "yes"}};

/* Small, exact in every type, with a sign where there is one. */
static void value(size_t d, size_t i, void *to)
{
    int64_t v = (int64_t)(i * 7 + d) % 100;
    bool is_signed = sets[d].dtype != SONDE_U8 && sets[d].dtype != SONDE_U16 && sets[d].dtype != SONDE_U32 &&
                     sets[d].dtype != SONDE_U64;
    v = is_signed && i % 2 ? -v : v;
    float f = (float)v / 4;
    double g = (double)v / 4;
    uint16_t h = sets[d].dtype == SONDE_F16 ? sonde_f32_to_f16(f) : sonde_f32_to_bf16(f);
    switch (sets[d].dtype) {
    case SONDE_F32:
        memcpy(to, &f, 4);
        break;
    case SONDE_F64:
        memcpy(to, &g, 8);
        break;
    case SONDE_F16:
    case SONDE_BF16:
        memcpy(to, &h, 2);
        break;
    default: /* little-endian integers are cut to their size */
        memcpy(to, &v, sonde_dtype_size(sets[d].dtype));
    }
}

static int broken(const sonde_err *err)
{
    fprintf(stderr, "%s\n", err->msg);
    return err->code;
}

static int write_store(const char *path)
{
    enum { N = sizeof sets / sizeof *sets };
    const sonde_store_layout l = {sets, N, attrs, sizeof attrs / sizeof *attrs};
    sonde_err err;
    sonde_store_writer *w;
    if (sonde_store_create(path, &l, true, &w, &err))
        return broken(&err);
    for (size_t d = 0; d < N; d++) {
        unsigned char buf[4096];
        size_t n = 1, size = sonde_dtype_size(sets[d].dtype);
        for (int i = 0; i < sets[d].rank; i++)
            n *= (size_t)sets[d].dim[i];
        for (size_t i = 0; i < n; i++)
            value(d, i, buf + i * size);
        if (sonde_store_write(w, d, 0, sets[d].dim[0], buf, &err))
            return broken(&err);
    }
    return sonde_store_finish(w, late, 1, &err) ? broken(&err) : 0;
}

static int dump_store(const char *path)
{
    sonde_err err;
    sonde_store *s;
    if (sonde_store_open(path, true, NULL, &s, &err))
        return broken(&err);
    for (size_t i = 0; i < sonde_store_n_datasets(s); i++) {
        const sonde_store_dataset *d = sonde_store_dataset_at(s, i);
        char shape[200];
        size_t n = sonde_dtype_size(d->dtype);
        for (int k = 0; k < d->rank; k++)
            n *= (size_t)d->dim[k];
        printf("D\t%s\t%s\t%s\t", d->path, sonde_dtype_name(d->dtype),
               sonde_shape_text(d->dim, d->rank, shape, sizeof shape));
        unsigned char *p = sonde_store_unreadable(s, i) ? NULL : malloc(n + 1);
        if (sonde_store_read(s, i, 0, d->rank ? d->dim[0] : 1, p, &err))
            printf("! %s", err.msg);
        else
            for (size_t k = 0; k < n; k++)
                printf("%02x", p[k]);
        free(p);
        printf("\n");
    }
    for (size_t i = 0; i < sonde_store_n_attrs(s); i++) {
        const sonde_store_attr *a = sonde_store_attr_at(s, i);
        printf("A\t%s\t%s\t", a->path, a->name);
        if (a->s)
            printf("s%s\n", a->s);
        else if (a->is_float)
            printf("f%.17g\n", a->f);
        else
            printf("i%" PRId64 "\n", a->i);
    }
    sonde_store_close(s);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "write") == 0)
        return write_store(argv[2]);
    if (argc == 3 && strcmp(argv[1], "dump") == 0)
        return dump_store(argv[2]);
    fprintf(stderr, "usage: store_tool write|dump PATH\n");
    return 2;
}
