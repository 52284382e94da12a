/* SPDX-License-Identifier: MIT
 * A tokenizer of single characters, and files to read with it. Includers have cmocka.h before. */
#ifndef SONDE_TESTS_CORPUS_FIXTURE_H
#define SONDE_TESTS_CORPUS_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file/npy.h"
#include "text/corpus.h"

/* Ids of the fixture: llama2.c's tokenizer.bin with 0 <unk>, 1 BOS, 2 EOS, 3 + b for byte b, then " " and the
 * letters. */
enum { BOS = 1, BYTE = 3, SPACE = 259, LETTER_A = 260, N_FIXTURE = 260 + 26 };

struct fixture {
    char dir[64], path[96];
    sonde_tokenizer *tokenizer;
};

static inline void piece(FILE *f, const char *s, int32_t n)
{
    fwrite(&(float){0}, 4, 1, f);
    fwrite(&n, 4, 1, f);
    fwrite(s, 1, (size_t)n, f);
}

static inline struct fixture *fixture_new(void)
{
    struct fixture *x = calloc(1, sizeof *x);
    assert_non_null(x);
    strcpy(x->dir, "/tmp/sonde-corpus-XXXXXX");
    assert_non_null(mkdtemp(x->dir));
    snprintf(x->path, sizeof x->path, "%s/tokenizer.bin", x->dir);
    FILE *f = fopen(x->path, "wb");
    assert_non_null(f);
    fwrite(&(int32_t){6}, 4, 1, f);
    piece(f, "<unk>", 5);
    piece(f, "\n<s>\n", 5);
    piece(f, "\n</s>\n", 6);
    for (int b = 0; b < 256; b++) {
        char s[8];
        snprintf(s, sizeof s, "<0x%02X>", (unsigned)b);
        piece(f, s, 6);
    }
    piece(f, " ", 1);
    for (char c = 'a'; c <= 'z'; c++)
        piece(f, &c, 1);
    fclose(f);
    sonde_err err = {0};
    if (sonde_tokenizer_open(x->path, NULL, &x->tokenizer, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
    unlink(x->path);
    snprintf(x->path, sizeof x->path, "%s/input", x->dir);
    return x;
}

static inline void fixture_free(struct fixture *x)
{
    sonde_tokenizer_close(x->tokenizer);
    unlink(x->path);
    assert_int_equal(rmdir(x->dir), 0);
    free(x);
}

static inline void write_input(const struct fixture *x, const void *p, size_t n)
{
    FILE *f = fopen(x->path, "wb");
    assert_true(f && fwrite(p, 1, n, f) == n);
    assert_int_equal(fclose(f), 0);
}

static inline void write_ids(const struct fixture *x, enum sonde_dtype dtype, const void *p, int rank,
                             const uint64_t *dim)
{
    sonde_tensor t = {.name = "array", .dtype = dtype, .rank = rank, .data = p};
    for (int i = 0; i < rank; i++)
        t.dim[i] = dim[i];
    t.n_bytes = sonde_tensor_count(&t) * sonde_dtype_size(dtype);
    sonde_err err = {0};
    if (sonde_npy_write(x->path, &t, true, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
}

/* What holds for every corpus. */
static inline void check_corpus(const sonde_corpus *c, const sonde_corpus_options *o)
{
    assert_true(c->n_tokens > 0 && c->n_seqs > 0 && c->n_docs > 0);
    assert_true(c->seq_start[0] == 0 && c->seq_start[c->n_seqs] == c->n_tokens);
    assert_true(!o->max_tokens || c->n_tokens <= o->max_tokens);
    for (uint64_t s = 0; s < c->n_seqs; s++) {
        uint64_t first = c->seq_start[s], end = c->seq_start[s + 1];
        assert_true(end > first && end - first <= o->n_context);
        if (o->packing == SONDE_PACK_CONCAT)
            assert_true(end - first == o->n_context || s + 1 == c->n_seqs);
        else
            assert_int_equal(c->doc[first], c->doc[end - 1]);
    }
    for (uint64_t i = 0; i < c->n_tokens; i++) {
        assert_true(c->id[i] >= 0 && (!o->n_vocab || c->id[i] < o->n_vocab));
        assert_true(c->doc[i] >= (i ? c->doc[i - 1] : 0) && (uint64_t)c->doc[i] < c->n_docs);
    }
    for (uint64_t d = 0; d < c->n_docs; d++)
        assert_true(c->doc_range[2 * d] <= c->doc_range[2 * d + 1] &&
                    (d == 0 || c->doc_range[2 * d] >= c->doc_range[2 * d - 1]));
}

static inline sonde_corpus *read_corpus(const struct fixture *x, const sonde_corpus_options *o,
                                        const sonde_work *work)
{
    sonde_corpus *c = NULL;
    sonde_err err = {0};
    if (sonde_corpus_read(o, x->tokenizer, work, &c, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
    check_corpus(c, o);
    return c;
}

static inline void is_array_i32(const int32_t *got, uint64_t n, const int32_t *want, size_t n_want)
{
    assert_int_equal(n, n_want);
    for (size_t i = 0; i < n; i++)
        if (got[i] != want[i])
            fail_msg("item %zu is %d, expected %d", i, (int)got[i], (int)want[i]);
}

static inline void is_array_u64(const uint64_t *got, uint64_t n, const uint64_t *want, size_t n_want)
{
    assert_int_equal(n, n_want);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(got[i], want[i]);
}
#define I32(...) (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / 4
#define U64(...) (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / 8

#endif
