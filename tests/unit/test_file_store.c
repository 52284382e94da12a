/* SPDX-License-Identifier: MIT
 * The activation store: what is written is what is read, and the same input makes the same bytes. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/rng.h"
#include "file/store.h"

static char dir[64];

static const char *at(const char *name)
{
    static char path[4][200];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-store-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void must(enum sonde_code rc, const sonde_err *err)
{
    if (rc)
        fail_msg("code %d: %s", rc, err->msg);
}

static void refused(enum sonde_code want, enum sonde_code rc, const sonde_err *err, const char *words)
{
    if (rc != want || !strstr(err->msg, words))
        fail_msg("code %d, wanted %d with '%s': %s", rc, want, words, rc ? err->msg : "no error");
}

#define N_ROWS 3000

static const sonde_store_dataset sets[] = {
    {"/acts/blocks.0.hook_resid_post", SONDE_F32, 2, {N_ROWS, 96}},
    {"/acts/blocks.1.hook_resid_post", SONDE_F16, 2, {N_ROWS, 96}},
    {"/acts/blocks.2.attn.hook_q", SONDE_BF16, 3, {N_ROWS, 4, 24}},
    {"/attn/blocks.0.attn.hook_pattern", SONDE_F32, 4, {5, 4, 30, 30}},
    {"/tokens/id", SONDE_I32, 1, {4000}},
    {"/rows/token", SONDE_I64, 1, {N_ROWS}},
    {"/docs/split", SONDE_U8, 1, {7}},
    {"/stats/blocks.0.hook_resid_post/mean", SONDE_F64, 1, {96}},
    {"/misc/u64", SONDE_U64, 1, {11}},
    {"/misc/i8", SONDE_I8, 2, {11, 3}},
    {"/misc/i16", SONDE_I16, 1, {11}},
    {"/misc/u16", SONDE_U16, 1, {11}},
    {"/misc/u32", SONDE_U32, 1, {11}},
    {"/misc/none", SONDE_F32, 2, {0, 96}},
    {"/misc/narrow", SONDE_F32, 2, {9, 0}},
};
enum { N_SETS = sizeof sets / sizeof *sets };

static const sonde_store_attr attrs[] = {
    {.path = "/", .name = "config_json", .s = "{\n  \"model_type\": \"gpt2\"\n}"},
    {.path = "/", .name = "seed", .i = -7},
    {.path = "/", .name = "scale", .is_float = true, .f = 0.1},
    {.path = "/", .name = "empty", .s = ""},
    {.path = "/acts/blocks.0.hook_resid_post", .name = "hook", .s = "blocks.0.hook_resid_post"},
};
static const sonde_store_layout layout = {sets, N_SETS, attrs, 5};

static const sonde_store_attr late[] = {
    {.path = "/", .name = "tool_version", .s = "0.1.0"},
    {.path = "/", .name = "saturated", .i = 3},
    {.path = "/acts", .name = "mean_norm", .is_float = true, .f = 2.5},
    {.path = "/acts/blocks.0.hook_resid_post", .name = "saturated", .i = 0},
};

static size_t row_bytes(const sonde_store_dataset *d)
{
    size_t n = sonde_dtype_size(d->dtype);
    for (int i = 1; i < d->rank; i++)
        n *= (size_t)d->dim[i];
    return n;
}

/* Bytes that depend on the dataset and the row only. */
static void fill(size_t dataset, uint64_t first, uint64_t n, unsigned char *to)
{
    size_t bytes = row_bytes(&sets[dataset]);
    for (uint64_t row = first; row < first + n; row++) {
        uint64_t v = (row + 1) * UINT64_C(0x9e3779b97f4a7c15) + dataset;
        for (size_t k = 0; k < bytes; k++)
            *to++ = (unsigned char)((v >> (k % 5 * 8)) + k * 7);
    }
}

static void write_rows(sonde_store_writer *w, size_t dataset, uint64_t first, uint64_t n)
{
    sonde_err err;
    unsigned char *p = malloc((size_t)n * row_bytes(&sets[dataset]) + 1);
    fill(dataset, first, n, p);
    must(sonde_store_write(w, dataset, first, n, p, &err), &err);
    free(p);
}

static void write_all(sonde_store_writer *w, uint64_t piece)
{
    for (size_t d = 0; d < N_SETS; d++)
        for (uint64_t row = 0; row < sets[d].dim[0]; row += piece)
            write_rows(w, d, row, sets[d].dim[0] - row < piece ? sets[d].dim[0] - row : piece);
}

static void make(const char *path, uint64_t piece)
{
    sonde_err err;
    sonde_store_writer *w;
    must(sonde_store_create(path, &layout, true, &w, &err), &err);
    write_all(w, piece);
    must(sonde_store_finish(w, late, 4, &err), &err);
}

static unsigned char *slurp(const char *path, size_t *n)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    unsigned char *p = malloc((size_t)st.st_size + 1);
    assert_true(read(fd, p, (size_t)st.st_size) == st.st_size);
    close(fd);
    *n = (size_t)st.st_size;
    return p;
}

static void spew(const char *path, const void *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_true(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    close(fd);
}

static void every_dtype_comes_back_as_written(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store *s;
    make(at("a.h5"), 700);
    must(sonde_store_open(at("a.h5"), true, NULL, &s, &err), &err);
    assert_int_equal(sonde_store_n_datasets(s), N_SETS + 1);
    for (size_t d = 0; d < N_SETS; d++) {
        size_t i = sonde_store_find(s, sets[d].path), n = (size_t)sets[d].dim[0] * row_bytes(&sets[d]);
        assert_true(i != SIZE_MAX);
        assert_null(sonde_store_unreadable(s, i));
        const sonde_store_dataset *got = sonde_store_dataset_at(s, i);
        assert_int_equal(got->dtype, sets[d].dtype);
        assert_int_equal(got->rank, sets[d].rank);
        assert_memory_equal(got->dim, sets[d].dim, sizeof got->dim);
        unsigned char *want = malloc(n + 1), *have = malloc(n + 1);
        fill(d, 0, sets[d].dim[0], want);
        must(sonde_store_read(s, i, 0, sets[d].dim[0], have, &err), &err);
        assert_memory_equal(want, have, n);
        free(want);
        free(have);
    }
    must(sonde_store_verify(s, &err), &err);
    sonde_store_close(s);
}

static void any_row_range_equals_what_was_written(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store *s;
    sonde_rng rng = sonde_rng_seed(1);
    make(at("a.h5"), 999);
    for (int verify = 0; verify < 2; verify++) {
        must(sonde_store_open(at("a.h5"), verify, NULL, &s, &err), &err);
        for (int trial = 0; trial < 2000; trial++) {
            size_t d = (size_t)sonde_rng_below(&rng, 3), i = sonde_store_find(s, sets[d].path),
                   b = row_bytes(&sets[d]);
            uint64_t first = sonde_rng_below(&rng, N_ROWS),
                     n = sonde_rng_below(&rng, trial % 10 ? 4 : N_ROWS - first + 1);
            n = n > N_ROWS - first ? N_ROWS - first : n;
            unsigned char *want = malloc((size_t)n * b + 1), *have = malloc((size_t)n * b + 1);
            fill(d, first, n, want);
            must(sonde_store_read(s, i, first, n, have, &err), &err);
            assert_memory_equal(want, have, (size_t)n * b);
            free(want);
            free(have);
        }
        char row[400];
        refused(SONDE_E_USAGE, sonde_store_read(s, sonde_store_find(s, sets[0].path), N_ROWS, 1, row, &err),
                &err, "3000");
        refused(SONDE_E_USAGE,
                sonde_store_read(s, sonde_store_find(s, sets[0].path), 1, UINT64_MAX, row, &err), &err,
                "3000");
        refused(SONDE_E_USAGE, sonde_store_read(s, 999, 0, 1, row, &err), &err, "999");
        sonde_store_close(s);
    }
}

static void attributes_come_back_with_their_sort(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store *s;
    make(at("a.h5"), 3000);
    must(sonde_store_open(at("a.h5"), false, NULL, &s, &err), &err);
    for (size_t i = 0; i < 9; i++) {
        const sonde_store_attr *want = i < 5 ? &attrs[i] : &late[i - 5];
        const sonde_store_attr *got = sonde_store_attr_find(s, want->path, want->name);
        assert_non_null(got);
        assert_int_equal(!got->s, !want->s);
        assert_int_equal(got->is_float, want->is_float);
        if (want->s)
            assert_string_equal(got->s, want->s);
        else
            assert_true(want->is_float ? got->f == want->f : got->i == want->i);
    }
    assert_string_equal(sonde_store_attr_find(s, "/", "format")->s, "sonde-activations");
    assert_string_equal(sonde_store_attr_find(s, "/", "format_version")->s, "1.0");
    assert_string_equal(sonde_store_attr_find(s, sets[2].path, "encoding")->s, "bfloat16");
    assert_null(sonde_store_attr_find(s, "/", "nothing"));
    assert_true(sonde_store_n_attrs(s) >= 12);
    for (size_t i = 0; i < sonde_store_n_attrs(s); i++)
        assert_non_null(sonde_store_attr_at(s, i)->name);
    sonde_store_close(s);
}

static void a_megabyte_of_config_fits_in_an_attribute(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store *s;
    sonde_store_writer *w;
    size_t n = 1 << 20;
    char *text = malloc(n + 1);
    memset(text, 'x', n);
    text[n] = '\0';
    const sonde_store_attr a[] = {{.path = "/", .name = "config_json", .s = text}},
                           b[] = {{.path = "/acts", .name = "more", .s = text}};
    const sonde_store_layout l = {sets, 2, a, 1};
    must(sonde_store_create(at("big.h5"), &l, true, &w, &err), &err);
    must(sonde_store_finish(w, b, 1, &err), &err);
    must(sonde_store_open(at("big.h5"), false, NULL, &s, &err), &err);
    assert_string_equal(sonde_store_attr_find(s, "/", "config_json")->s, text);
    assert_string_equal(sonde_store_attr_find(s, "/acts", "more")->s, text);
    sonde_store_close(s);
    free(text);
}

static void two_thousand_datasets_can_be_laid_out(void **state)
{
    (void)state;
    enum { N = 2000 };
    sonde_err err;
    sonde_store *s;
    sonde_store_writer *w;
    static char name[N][40];
    static sonde_store_dataset many[N];
    for (int i = 0; i < N; i++) {
        snprintf(name[i], sizeof name[i], "/acts/blocks.%d.hook", i);
        many[i] = (sonde_store_dataset){name[i], SONDE_F32, 2, {3, 5}};
    }
    const sonde_store_layout l = {many, N, NULL, 0};
    must(sonde_store_create(at("many.h5"), &l, true, &w, &err), &err);
    float v[15] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, got[15];
    for (size_t i = 0; i < N; i++)
        must(sonde_store_write(w, i, 0, 3, v, &err), &err);
    must(sonde_store_finish(w, NULL, 0, &err), &err);
    must(sonde_store_open(at("many.h5"), true, NULL, &s, &err), &err);
    assert_int_equal(sonde_store_n_datasets(s), N + 1);
    must(sonde_store_read(s, sonde_store_find(s, "/acts/blocks.1234.hook"), 0, 3, got, &err), &err);
    assert_memory_equal(v, got, sizeof v);
    sonde_store_close(s);
}

static void same_input_makes_the_same_bytes(void **state)
{
    (void)state;
    size_t n[4];
    unsigned char *p[4];
    static const uint64_t piece[4] = {3000, 1, 700, 2731};
    for (int i = 0; i < 4; i++) {
        unsigned char *dirt = malloc(3000000 + (size_t)i * 77777); /* another heap each time */
        memset(dirt, 0xa5 + i, 3000000);
        if (i & 1)
            free(dirt);
        make(at("same.h5"), piece[i]);
        if (!(i & 1))
            free(dirt);
        p[i] = slurp(at("same.h5"), &n[i]);
        assert_int_equal(n[i], n[0]);
        assert_memory_equal(p[i], p[0], n[0]);
    }
    for (int i = 0; i < 4; i++)
        free(p[i]);
}

static void rows_read_back_while_writing(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store_writer *w;
    unsigned char want[10 * 384], have[10 * 384];
    must(sonde_store_create(at("a.h5"), &layout, true, &w, &err), &err);
    write_rows(w, 0, 100, 50);
    fill(0, 120, 10, want);
    must(sonde_store_read_back(w, 0, 120, 10, have, &err), &err);
    assert_memory_equal(want, have, sizeof want);
    refused(SONDE_E_USAGE, sonde_store_read_back(w, 0, 2995, 10, have, &err), &err, "3000");
    refused(SONDE_E_USAGE, sonde_store_write(w, 0, 2995, 10, have, &err), &err, "3000");
    refused(SONDE_E_USAGE, sonde_store_write(w, N_SETS, 0, 1, have, &err), &err, "dataset");
    sonde_store_abandon(w, false);
    assert_int_equal(access(at("a.h5.part"), F_OK), -1);
}

static void rows_written_twice_still_have_right_checksums(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store *s;
    sonde_store_writer *w;
    must(sonde_store_create(at("a.h5"), &layout, true, &w, &err), &err);
    unsigned char junk[400 * 384];
    memset(junk, 9, sizeof junk);
    for (uint64_t row = 0; row < 2800; row += 400)
        must(sonde_store_write(w, 0, row, 400, junk, &err), &err);
    write_all(w, 123);
    must(sonde_store_write(w, 0, 2000, 1, junk, &err), &err);
    write_rows(w, 0, 2000, 1);
    must(sonde_store_finish(w, late, 4, &err), &err);
    must(sonde_store_open(at("a.h5"), true, NULL, &s, &err), &err);
    must(sonde_store_verify(s, &err), &err);
    sonde_store_close(s);
}

static void rows_never_written_are_zero_and_checked(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store *s;
    sonde_store_writer *w;
    must(sonde_store_create(at("a.h5"), &layout, true, &w, &err), &err);
    must(sonde_store_finish(w, NULL, 0, &err), &err);
    must(sonde_store_open(at("a.h5"), true, NULL, &s, &err), &err);
    must(sonde_store_verify(s, &err), &err);
    unsigned char row[384], zero[384] = {0};
    must(sonde_store_read(s, sonde_store_find(s, sets[0].path), 2999, 1, row, &err), &err);
    assert_memory_equal(row, zero, sizeof zero);
    sonde_store_close(s);
}

static void a_flipped_bit_of_data_is_named_by_its_rows(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store *s;
    size_t n;
    make(at("a.h5"), 3000);
    unsigned char *p = slurp(at("a.h5"), &n), want[384];
    fill(0, 2900, 1, want);
    unsigned char *hit = memmem(p, n, want, sizeof want);
    assert_non_null(hit);
    hit[17] ^= 4;
    spew(at("a.h5"), p, n);
    free(p);
    must(sonde_store_open(at("a.h5"), true, NULL, &s, &err), &err);
    size_t i = sonde_store_find(s, sets[0].path);
    unsigned char *all = malloc(3000 * 384);
    must(sonde_store_read(s, i, 0, 1, all, &err), &err);
    refused(SONDE_E_INPUT, sonde_store_read(s, i, 2999, 1, all, &err), &err,
            "rows 2730..2999 of /acts/blocks.0.hook_resid_post fail their checksum");
    refused(SONDE_E_INPUT, sonde_store_read(s, i, 0, 3000, all, &err), &err, "rows 2730..2999");
    refused(SONDE_E_INPUT, sonde_store_verify(s, &err), &err, "rows 2730..2999");
    free(all);
    sonde_store_close(s);
    must(sonde_store_open(at("a.h5"), false, NULL, &s, &err), &err);
    must(sonde_store_read(s, i, 2900, 1, want, &err), &err);
    sonde_store_close(s);
}

static void rows_of_a_document_are_found_in_token_order(void **state)
{
    (void)state;
    enum { T = 5000, R = 4000, DOCS = 37 };
    sonde_err err;
    sonde_store *s;
    sonde_store_writer *w;
    sonde_rng rng = sonde_rng_seed(3);
    const sonde_store_dataset d[] = {{"/tokens/doc", SONDE_I32, 1, {T}}, {"/rows/token", SONDE_I64, 1, {R}}};
    const sonde_store_layout l = {d, 2, NULL, 0};
    static int32_t doc[T];
    static int64_t token[R];
    static uint32_t perm[T];
    for (int i = 0; i < T; i++)
        doc[i] = i % 100 == 99 ? -1 : i * DOCS / T;
    sonde_rng_permutation(&rng, perm, T);
    for (int i = 0; i < R; i++)
        token[i] = perm[i];
    must(sonde_store_create(at("d.h5"), &l, true, &w, &err), &err);
    must(sonde_store_write(w, 0, 0, T, doc, &err), &err);
    must(sonde_store_write(w, 1, 0, R, token, &err), &err);
    must(sonde_store_finish(w, NULL, 0, &err), &err);
    must(sonde_store_open(at("d.h5"), true, NULL, &s, &err), &err);
    size_t total = 0;
    for (int32_t k = -1; k <= DOCS; k++) {
        uint64_t *row;
        size_t n, want = 0;
        must(sonde_store_doc_rows(s, k, &row, &n, &err), &err);
        for (int i = 0; i < R && k >= 0; i++)
            want += doc[token[i]] == k;
        assert_int_equal(n, want);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(doc[token[row[i]]], k);
            assert_true(i == 0 || token[row[i - 1]] < token[row[i]]);
        }
        total += n;
        free(row);
    }
    assert_true(total > R / 2);
    sonde_store_close(s);

    token[7] = token[8];
    must(sonde_store_create(at("d.h5"), &l, true, &w, &err), &err);
    must(sonde_store_write(w, 0, 0, T, doc, &err), &err);
    must(sonde_store_write(w, 1, 0, R, token, &err), &err);
    must(sonde_store_finish(w, NULL, 0, &err), &err);
    must(sonde_store_open(at("d.h5"), true, NULL, &s, &err), &err);
    uint64_t *row;
    size_t n;
    refused(SONDE_E_INPUT, sonde_store_doc_rows(s, 0, &row, &n, &err), &err, "another row");
    sonde_store_close(s);
}

static void a_layout_that_cannot_be_is_refused(void **state)
{
    (void)state;
    static const struct {
        sonde_store_dataset d;
        const char *words;
    } bad[] = {
        {{"acts", SONDE_F32, 1, {1}}, "path"},
        {{"/acts/", SONDE_F32, 1, {1}}, "path"},
        {{"/a//b", SONDE_F32, 1, {1}}, "path"},
        {{"/a/../b", SONDE_F32, 1, {1}}, "path"},
        {{"/a\nb", SONDE_F32, 1, {1}}, "path"},
        {{"/a\xff", SONDE_F32, 1, {1}}, "path"},
        {{"/check/xxh3", SONDE_F32, 1, {1}}, "path"},
        {{"/a", SONDE_F32, 0, {1}}, "rank"},
        {{"/a", SONDE_F32, 9, {1}}, "rank"},
        {{"/a", SONDE_OPAQUE, 1, {1}}, "type"},
        {{"/a", SONDE_BOOL, 1, {1}}, "type"},
        {{"/a", SONDE_F32, 2, {UINT64_C(1) << 33, UINT64_C(1) << 33}}, "larger"},
    };
    sonde_err err;
    sonde_store_writer *w;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const sonde_store_layout l = {&bad[i].d, 1, NULL, 0};
        refused(SONDE_E_USAGE, sonde_store_create(at("bad.h5"), &l, false, &w, &err), &err, bad[i].words);
        assert_int_equal(access(at("bad.h5.part"), F_OK), -1);
    }
    const sonde_store_dataset twice[] = {{"/a", SONDE_F32, 1, {1}}, {"/a", SONDE_F32, 1, {1}}};
    const sonde_store_layout l = {twice, 2, NULL, 0};
    refused(SONDE_E_USAGE, sonde_store_create(at("bad.h5"), &l, false, &w, &err), &err, "/a");
    const sonde_store_attr nowhere = {.path = "/b", .name = "n", .i = 1};
    const sonde_store_layout l2 = {twice, 1, &nowhere, 1};
    refused(SONDE_E_USAGE, sonde_store_create(at("bad.h5"), &l2, false, &w, &err), &err, "n");
    assert_int_equal(access(at("bad.h5.part"), F_OK), -1);
}

static void more_than_the_disk_holds_is_refused_with_both_numbers(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store_writer *w;
    const sonde_store_dataset d = {"/acts/x", SONDE_F32, 2, {UINT64_C(1) << 40, 256}};
    const sonde_store_layout l = {&d, 1, NULL, 0};
    refused(SONDE_E_IO, sonde_store_create(at("huge.h5"), &l, false, &w, &err), &err, "free");
    assert_non_null(strstr(err.msg, "needs 11259"));
    assert_int_equal(access(at("huge.h5.part"), F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dtype_comes_back_as_written),
        cmocka_unit_test(any_row_range_equals_what_was_written),
        cmocka_unit_test(attributes_come_back_with_their_sort),
        cmocka_unit_test(a_megabyte_of_config_fits_in_an_attribute),
        cmocka_unit_test(two_thousand_datasets_can_be_laid_out),
        cmocka_unit_test(same_input_makes_the_same_bytes),
        cmocka_unit_test(rows_read_back_while_writing),
        cmocka_unit_test(rows_written_twice_still_have_right_checksums),
        cmocka_unit_test(rows_never_written_are_zero_and_checked),
        cmocka_unit_test(a_flipped_bit_of_data_is_named_by_its_rows),
        cmocka_unit_test(rows_of_a_document_are_found_in_token_order),
        cmocka_unit_test(a_layout_that_cannot_be_is_refused),
        cmocka_unit_test(more_than_the_disk_holds_is_refused_with_both_numbers),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
