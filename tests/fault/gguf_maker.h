/* SPDX-License-Identifier: MIT
 * Makes small GGUF files byte by byte, right ones and wrong ones. Includers must have cmocka.h before. */
#ifndef SONDE_TESTS_GGUF_MAKER_H
#define SONDE_TESTS_GGUF_MAKER_H

#include <stdint.h>
#include <string.h>

#include "file/gguf.h"

enum {
    KV_U8,
    KV_I8,
    KV_U16,
    KV_I16,
    KV_U32,
    KV_I32,
    KV_F32,
    KV_BOOL,
    KV_STRING,
    KV_ARRAY,
    KV_U64,
    KV_I64,
    KV_F64
};

struct maker {
    unsigned char b[1 << 14];
    size_t n;
};

static inline void put(struct maker *k, const void *p, size_t n)
{
    assert_true(n <= sizeof k->b - k->n);
    memcpy(k->b + k->n, p, n);
    k->n += n;
}

static inline void put8(struct maker *k, uint8_t v)
{
    put(k, &v, sizeof v);
}

static inline void put32(struct maker *k, uint32_t v)
{
    put(k, &v, sizeof v);
}

static inline void put64(struct maker *k, uint64_t v)
{
    put(k, &v, sizeof v);
}

static inline void put_bytes(struct maker *k, const char *s, size_t n)
{
    put64(k, n);
    put(k, s, n);
}

static inline void put_str(struct maker *k, const char *s)
{
    put_bytes(k, s, strlen(s));
}

static inline void put_head(struct maker *k, uint32_t version, uint64_t n_tensors, uint64_t n_meta)
{
    put(k, "GGUF", 4);
    put32(k, version);
    put64(k, n_tensors);
    put64(k, n_meta);
}

/* A key and its type; the value follows. */
static inline void put_key(struct maker *k, const char *key, uint32_t type)
{
    put_str(k, key);
    put32(k, type);
}

static inline void put_array(struct maker *k, const char *key, uint32_t item, uint64_t n)
{
    put_key(k, key, KV_ARRAY);
    put32(k, item);
    put64(k, n);
}

/* dim as the file has it, the innermost first. */
static inline void put_tensor(struct maker *k, const char *name, uint32_t rank, const uint64_t *dim,
                              uint32_t type, uint64_t off)
{
    put_str(k, name);
    put32(k, rank);
    for (uint32_t i = 0; i < rank && i < 16; i++)
        put64(k, dim[i]);
    put32(k, type);
    put64(k, off);
}

static inline void put_pad(struct maker *k, size_t align)
{
    while (k->n % align)
        put8(k, 0);
}

static inline void put_zeros(struct maker *k, size_t n)
{
    while (n--)
        put8(k, 0);
}

/* Three tensors (F32 [2, 3], Q8_0 [1, 32], BF16 [5]) and a key of every kind. */
static inline void put_whole_file(struct maker *k)
{
    static const char *const word[3] = {"a", "", "bc"};
    put_head(k, 3, 3, 6);
    put_key(k, "general.architecture", KV_STRING);
    put_str(k, "llama");
    put_key(k, "n", KV_U32);
    put32(k, 7);
    put_key(k, "flag", KV_BOOL);
    put8(k, 1);
    put_array(k, "words", KV_STRING, 3);
    for (int i = 0; i < 3; i++)
        put_str(k, word[i]);
    put_array(k, "numbers", KV_I32, 2);
    put32(k, 5);
    put32(k, UINT32_MAX);
    put_key(k, "x", KV_F64);
    put_zeros(k, 8);
    put_tensor(k, "w", 2, (uint64_t[]){3, 2}, 0, 0);
    put_tensor(k, "q", 2, (uint64_t[]){32, 1}, 8, 32);
    put_tensor(k, "b", 1, (uint64_t[]){5}, 30, 96);
    put_pad(k, 32);
    for (uint8_t i = 0; i < 24; i++)
        put8(k, i);
    put_pad(k, 32);
    put_zeros(k, 34);
    put_pad(k, 32);
    put_zeros(k, 10);
}

/* A file in memory, exactly as large as it is, so that a sanitizer sees every byte read outside it. */
static inline sonde_map *map_of(const void *data, size_t n)
{
    sonde_map *m = NULL;
    assert_int_equal(sonde_map_copy(data, n, "made.gguf", &m, NULL), SONDE_OK);
    return m;
}

/* What holds for every file that the reader accepted. Reads every byte that it points to. */
static inline void check_gguf(const sonde_tensors *f)
{
    volatile unsigned char sink = 0;
    const sonde_map *m = f->map[0];
    size_t sum = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const sonde_tensor *t = &f->tensor[i];
        const unsigned char *p = t->data;
        assert_true(p >= m->data && t->n_bytes <= m->n_bytes &&
                    p - m->data <= (ptrdiff_t)(m->n_bytes - t->n_bytes));
        assert_true(t->rank >= 0 && t->rank <= 4 && t->dtype < SONDE_N_DTYPES && strlen(t->name) > 0);
        if (sonde_dtype_size(t->dtype))
            assert_true(t->n_bytes == sonde_tensor_count(t) * sonde_dtype_size(t->dtype));
        if (t->dtype == SONDE_Q8_0)
            assert_true(t->n_bytes == sonde_tensor_count(t) / 32 * 34);
        assert_ptr_equal(sonde_tensors_find(f, t->name), t);
        for (size_t j = 0; j < t->n_bytes; j++)
            sink ^= p[j];
        sum += t->n_bytes;
    }
    assert_true(sum <= m->n_bytes);
    for (size_t i = 0; i < f->n_meta; i++) {
        const sonde_meta *v = &f->meta[i];
        assert_ptr_equal(sonde_meta_find(f, v->key), v);
        if (v->type == SONDE_META_STRING)
            assert_int_equal(v->s[v->n_bytes], 0);
        for (size_t j = 0; v->type == SONDE_META_ARRAY && j < v->n_items; j++)
            if (v->item == SONDE_META_STRING) {
                const sonde_bytes *b = (const sonde_bytes *)v->items + j;
                assert_int_equal(b->s[b->n], 0);
            } else {
                sink ^= (unsigned char)((const uint64_t *)v->items)[j];
            }
    }
    (void)sink;
}

#endif
