/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "../fault/gguf_maker.h"
#include "base/half.h"

static struct maker k;

static sonde_tensors *parse(void)
{
    sonde_tensors *f = NULL;
    sonde_err err = {0};
    if (sonde_gguf_parse(map_of(k.b, k.n), NULL, &f, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
    check_gguf(f);
    return f;
}

static void put_scalar(const char *key, uint32_t type, const void *p, size_t n)
{
    put_key(&k, key, type);
    put(&k, p, n);
}
#define SCALAR(key, type, ctype, value) put_scalar(key, type, &(ctype){value}, sizeof(ctype))

static void is_number(const sonde_tensors *f, const char *key, enum sonde_meta_type type, int64_t i,
                      uint64_t u, double d)
{
    const sonde_meta *v = sonde_meta_find(f, key);
    assert_non_null(v);
    assert_int_equal(v->type, type);
    assert_true(v->i == i && v->u == u);
    assert_memory_equal(&v->f, &d, sizeof d);
}

static void every_scalar_type_is_read(void **state)
{
    (void)state;
    k.n = 0;
    put_head(&k, 3, 0, 14);
    SCALAR("u8", KV_U8, uint8_t, 200);
    SCALAR("i8", KV_I8, int8_t, -100);
    SCALAR("u16", KV_U16, uint16_t, 60000);
    SCALAR("i16", KV_I16, int16_t, -30000);
    SCALAR("u32", KV_U32, uint32_t, 4000000000u);
    SCALAR("i32", KV_I32, int32_t, INT32_MIN);
    SCALAR("f32", KV_F32, float, 1e-5f);
    SCALAR("no", KV_BOOL, uint8_t, 0);
    SCALAR("yes", KV_BOOL, uint8_t, 1);
    put_key(&k, "string", KV_STRING);
    put_bytes(&k, "a\0\xff\n", 4);
    SCALAR("u64", KV_U64, uint64_t, UINT64_MAX);
    SCALAR("i64", KV_I64, int64_t, INT64_MIN);
    SCALAR("i64+", KV_I64, int64_t, 77);
    SCALAR("f64", KV_F64, double, -0.1);
    sonde_tensors *f = parse();
    assert_int_equal(f->n_meta, 14);
    is_number(f, "u8", SONDE_META_UINT, 200, 200, 200);
    is_number(f, "i8", SONDE_META_INT, -100, 0, -100);
    is_number(f, "u16", SONDE_META_UINT, 60000, 60000, 60000);
    is_number(f, "i16", SONDE_META_INT, -30000, 0, -30000);
    is_number(f, "u32", SONDE_META_UINT, 4000000000, 4000000000, 4e9);
    is_number(f, "i32", SONDE_META_INT, INT32_MIN, 0, -0x1p31);
    is_number(f, "f32", SONDE_META_FLOAT, 0, 0, (double)1e-5f);
    is_number(f, "no", SONDE_META_BOOL, 0, 0, 0);
    is_number(f, "yes", SONDE_META_BOOL, 1, 1, 1);
    is_number(f, "u64", SONDE_META_UINT, INT64_MAX, UINT64_MAX, 0x1p64);
    is_number(f, "i64", SONDE_META_INT, INT64_MIN, 0, -0x1p63);
    is_number(f, "i64+", SONDE_META_INT, 77, 77, 77);
    is_number(f, "f64", SONDE_META_FLOAT, 0, 0, -0.1);
    const sonde_meta *s = sonde_meta_find(f, "string");
    assert_int_equal(s->type, SONDE_META_STRING);
    assert_int_equal(s->n_bytes, 4);
    assert_memory_equal(s->s, "a\0\xff\n", 5);
    assert_null(sonde_meta_find(f, "absent"));
    sonde_tensors_close(f);
}

static void arrays_become_wide_numbers_and_strings(void **state)
{
    (void)state;
    k.n = 0;
    put_head(&k, 3, 0, 6);
    put_array(&k, "i8", KV_I8, 2);
    put(&k, (int8_t[]){-1, 1}, 2);
    put_array(&k, "u16", KV_U16, 2);
    put(&k, (uint16_t[]){65535, 1}, 4);
    put_array(&k, "f32", KV_F32, 3);
    put(&k, (float[]){0.5f, -2, 3}, 12);
    put_array(&k, "bool", KV_BOOL, 2);
    put(&k, (uint8_t[]){1, 0}, 2);
    put_array(&k, "string", KV_STRING, 2);
    put_bytes(&k, "x\0y", 3);
    put_str(&k, "");
    put_array(&k, "none", KV_F64, 0);
    sonde_tensors *f = parse();
    const sonde_meta *v = sonde_meta_find(f, "i8");
    assert_true(v->type == SONDE_META_ARRAY && v->item == SONDE_META_INT && v->n_items == 2);
    assert_memory_equal(v->items, ((int64_t[]){-1, 1}), 16);
    v = sonde_meta_find(f, "u16");
    assert_true(v->item == SONDE_META_UINT && v->n_items == 2);
    assert_memory_equal(v->items, ((uint64_t[]){65535, 1}), 16);
    v = sonde_meta_find(f, "f32");
    assert_true(v->item == SONDE_META_FLOAT && v->n_items == 3);
    assert_memory_equal(v->items, ((double[]){0.5, -2, 3}), 24);
    v = sonde_meta_find(f, "bool");
    assert_true(v->item == SONDE_META_BOOL && v->n_items == 2);
    assert_memory_equal(v->items, ((uint64_t[]){1, 0}), 16);
    v = sonde_meta_find(f, "string");
    const sonde_bytes *b = v->items;
    assert_true(v->item == SONDE_META_STRING && v->n_items == 2 && b[0].n == 3 && b[1].n == 0);
    assert_memory_equal(b[0].s, "x\0y", 4);
    v = sonde_meta_find(f, "none");
    assert_true(v->item == SONDE_META_FLOAT && v->n_items == 0);
    sonde_tensors_close(f);
}

static void tensors_are_row_major_and_in_file_order(void **state)
{
    (void)state;
    k.n = 0;
    put_whole_file(&k);
    sonde_tensors *f = parse();
    assert_string_equal(f->format, "gguf");
    assert_int_equal(f->n_tensors, 3);
    const sonde_tensor *w = sonde_tensors_find(f, "w"), *q = sonde_tensors_find(f, "q"),
                       *b = sonde_tensors_find(f, "b");
    assert_true(w == f->tensor && q == w + 1 && b == w + 2);
    assert_true(w->rank == 2 && w->dim[0] == 2 && w->dim[1] == 3 && w->dtype == SONDE_F32 &&
                w->n_bytes == 24);
    assert_true(q->rank == 2 && q->dim[0] == 1 && q->dim[1] == 32 && q->dtype == SONDE_Q8_0 &&
                q->n_bytes == 34);
    assert_true(b->rank == 1 && b->dim[0] == 5 && b->dtype == SONDE_BF16 && b->n_bytes == 10);
    assert_string_equal(b->type_name, "BF16");
    for (unsigned char i = 0; i < 24; i++)
        assert_int_equal(((const unsigned char *)w->data)[i], i);
    sonde_tensors_close(f);
}

/* Bytes of one block of the quantised types, from the structures of ggml. */
static void quantised_types_are_listed_with_their_size(void **state)
{
    (void)state;
    static const struct {
        uint32_t number, block, bytes;
        const char *name;
    } type[] = {{2, 32, 18, "Q4_0"},    {3, 32, 20, "Q4_1"},    {6, 32, 22, "Q5_0"},
                {7, 32, 24, "Q5_1"},    {10, 256, 84, "Q2_K"},  {11, 256, 110, "Q3_K"},
                {12, 256, 144, "Q4_K"}, {13, 256, 176, "Q5_K"}, {14, 256, 210, "Q6_K"},
                {20, 32, 18, "IQ4_NL"}, {39, 32, 17, "MXFP4"}};
    for (size_t i = 0; i < sizeof type / sizeof *type; i++) {
        k.n = 0;
        put_head(&k, 3, 1, 0);
        put_tensor(&k, "t", 2, (uint64_t[]){2 * type[i].block, 3}, type[i].number, 0);
        put_pad(&k, 32);
        put_zeros(&k, 6 * type[i].bytes);
        sonde_tensors *f = parse();
        assert_int_equal(f->tensor->n_bytes, 6 * type[i].bytes);
        assert_int_equal(f->tensor->dtype, SONDE_OPAQUE);
        assert_string_equal(f->tensor->type_name, type[i].name);
        sonde_tensors_close(f);
    }
}

static void tensors_convert_to_float32(void **state)
{
    (void)state;
    k.n = 0;
    put_head(&k, 3, 1, 0);
    put_tensor(&k, "q", 2, (uint64_t[]){32, 2}, 8, 0);
    put_pad(&k, 32);
    for (int row = 0; row < 2; row++) {
        put(&k, &(uint16_t){sonde_f32_to_f16(row ? 0.25f : -3.0f)}, 2);
        for (int i = 0; i < 32; i++)
            put8(&k, (uint8_t)(i - 16));
    }
    sonde_tensors *f = parse();
    float x[33];
    sonde_err err = {0};
    assert_int_equal(sonde_tensor_to_f32(f->tensor, 31, 33, x, &err), SONDE_OK);
    assert_true(x[0] == -45.0f);
    for (int i = 0; i < 32; i++)
        assert_true(x[i + 1] == 0.25f * (float)(i - 16));
    sonde_tensors_close(f);
}

static void a_file_is_opened_and_a_missing_one_is_not(void **state)
{
    (void)state;
    char path[] = "/tmp/sonde-gguf-XXXXXX";
    int fd = mkstemp(path);
    k.n = 0;
    put_whole_file(&k);
    assert_true(fd >= 0 && write(fd, k.b, k.n) == (ssize_t)k.n);
    close(fd);
    sonde_tensors *f = NULL;
    sonde_err err = {0};
    assert_int_equal(sonde_gguf_open(path, NULL, &f, &err), SONDE_OK);
    check_gguf(f);
    sonde_tensors_close(f);
    unlink(path);
    assert_int_equal(sonde_gguf_open(path, NULL, &f, &err), SONDE_E_IO);
    assert_non_null(strstr(err.msg, path));
}

/* A vocabulary of 250,000 entries must cost milliseconds and a small multiple of its bytes. */
static void large_string_arrays_load_fast(void **state)
{
    (void)state;
    enum { N = 250000 };
    size_t n = 24 + 100 + (size_t)N * 14, at;
    unsigned char *p = calloc(1, n);
    assert_non_null(p);
    k.n = 0;
    put_head(&k, 3, 0, 1);
    put_array(&k, "tokenizer.ggml.tokens", KV_STRING, N);
    memcpy(p, k.b, at = k.n);
    for (int i = 0; i < N; i++, at += 14) {
        char word[8];
        uint64_t six = 6;
        snprintf(word, sizeof word, "%06d", i);
        memcpy(p + at, &six, 8);
        memcpy(p + at + 8, word, 6);
    }
    sonde_map *m = map_of(p, at);
    sonde_budget budget = {.limit = (size_t)16 << 20};
    sonde_tensors *f = NULL;
    sonde_err err = {0};
    clock_t start = clock();
    if (sonde_gguf_parse(m, &budget, &f, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
    double ms = (double)(clock() - start) * 1e3 / CLOCKS_PER_SEC;
    print_message("%d strings, %zu bytes: %.1f ms, %zu bytes taken\n", N, at, ms,
                  sonde_arena_taken(f->arena));
    assert_true(ms < 500); /* a tenth of this, but sanitizers and busy machines are slow */
    assert_true(sonde_arena_taken(f->arena) < 3 * at);
    const sonde_bytes *b = f->meta->items;
    assert_memory_equal(b[N - 1].s, "249999", 7);
    sonde_tensors_close(f);
    free(p);
}

/* Real data beside the source tree, where there are any. */
static bool shared_path(const char *name, char *path, size_t n)
{
    snprintf(path, n, SONDE_SOURCE_DIR "/../shared/data/%s", name);
    return access(path, R_OK) == 0;
}

static void published_vocabularies_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *file, *architecture;
        size_t n_tokens, n_merges;
        const char *token_300;
    } vocab[] = {{"gpt-2", "gpt2", 50257, 50000, "\xc4\xa0l"},
                 {"gpt-neox", "gptneox", 50432, 50009, NULL},
                 {"llama-spm", "llama", 32000, 0, NULL}};
    for (size_t i = 0; i < sizeof vocab / sizeof *vocab; i++) {
        char path[512], name[80];
        snprintf(name, sizeof name, "tokenizers/vectors/ggml-vocab-%s.gguf", vocab[i].file);
        if (!shared_path(name, path, sizeof path)) {
            print_message("skipped: no %s\n", path);
            skip();
        }
        sonde_tensors *f = NULL;
        sonde_err err = {0};
        if (sonde_gguf_open(path, NULL, &f, &err) != SONDE_OK)
            fail_msg("%s", err.msg);
        check_gguf(f);
        assert_string_equal(sonde_meta_find(f, "general.architecture")->s, vocab[i].architecture);
        const sonde_meta *tokens = sonde_meta_find(f, "tokenizer.ggml.tokens"),
                         *merges = sonde_meta_find(f, "tokenizer.ggml.merges");
        assert_int_equal(tokens->n_items, vocab[i].n_tokens);
        assert_int_equal(merges ? merges->n_items : 0, vocab[i].n_merges);
        if (vocab[i].token_300)
            assert_string_equal(((const sonde_bytes *)tokens->items)[300].s, vocab[i].token_300);
        sonde_tensors_close(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scalar_type_is_read),
        cmocka_unit_test(arrays_become_wide_numbers_and_strings),
        cmocka_unit_test(tensors_are_row_major_and_in_file_order),
        cmocka_unit_test(quantised_types_are_listed_with_their_size),
        cmocka_unit_test(tensors_convert_to_float32),
        cmocka_unit_test(a_file_is_opened_and_a_missing_one_is_not),
        cmocka_unit_test(large_string_arrays_load_fast),
        cmocka_unit_test(published_vocabularies_are_read),
    };
    return cmocka_run_group_tests_name("file_gguf", tests, NULL, NULL);
}
