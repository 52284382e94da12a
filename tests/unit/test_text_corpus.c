/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/rng.h"
#include "corpus_fixture.h"

#define A LETTER_A
#define S SPACE

static int set_up(void **state)
{
    *state = fixture_new();
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

static sonde_corpus_options text_options(const struct fixture *x, const char *separator, size_t n_context)
{
    return (sonde_corpus_options){
        .text_path = x->path, .separator = separator, .n_context = n_context, .bos = SONDE_BOS_NEVER};
}

static void text_without_separator_is_one_document(void **state)
{
    struct fixture *x = *state;
    write_input(x, "ab\nc\n", 5);
    sonde_corpus_options o = text_options(x, NULL, 4);
    sonde_corpus *c = read_corpus(x, &o, NULL);
    is_array_i32(c->id, c->n_tokens, I32(S, A, A + 1, BYTE + '\n', A + 2, BYTE + '\n'));
    is_array_i32(c->doc, c->n_tokens, I32(0, 0, 0, 0, 0, 0));
    is_array_u64(c->seq_start, c->n_seqs + 1, U64(0, 4, 6));
    assert_true(c->n_docs == 1 && c->doc_range[0] == 0 && c->doc_range[1] == 5);
    char hex[65];
    sonde_err err = {0};
    assert_int_equal(sonde_sha256_file(x->path, hex, &err), SONDE_OK);
    assert_string_equal(c->sha256, hex);
    sonde_corpus_free(c);
}

/* The documents of a text, joined with '|', against what they should be. */
static void splits_into(const struct fixture *x, const char *text, const char *separator, const char *want)
{
    write_input(x, text, strlen(text));
    sonde_corpus_options o = text_options(x, separator, 100);
    sonde_corpus *c = read_corpus(x, &o, NULL);
    char got[200] = "";
    for (uint64_t d = 0; d < c->n_docs; d++) {
        size_t n = strlen(got);
        snprintf(got + n, sizeof got - n, "%s%.*s", d ? "|" : "",
                 (int)(c->doc_range[2 * d + 1] - c->doc_range[2 * d]), text + c->doc_range[2 * d]);
    }
    assert_string_equal(got, want);
    assert_int_equal(c->n_seqs, c->n_docs);
    sonde_corpus_free(c);
}

static void separator_lines_end_documents(void **state)
{
    struct fixture *x = *state;
    splits_into(x, "a\n<e>\nb\n<e>\nc", "<e>", "a|b|c");
    splits_into(x, "a\n<e>\nb\n<e>\n", "<e>", "a|b");
    splits_into(x, "a\n<e>\nb\n<e>", "<e>", "a|b");
    splits_into(x, "a\n<e>\nb\n", "<e>", "a|b");
    splits_into(x, "a\n\n<e>\n\nb\n\n", "<e>", "a\n|\nb\n");
    splits_into(x, "<e>\n<e>\na\n<e>\n<e>\nb", "<e>", "a|b");
    splits_into(x, "a<e>\n<e> b\n <e>\nc", "<e>", "a<e>\n<e> b\n <e>\nc");
    splits_into(x, "a\n\n\nb\n\nc", "", "a|b|c");
    splits_into(x, "a\nb", "<e>", "a\nb");
}

static void separator_lines_may_end_in_crlf(void **state)
{
    struct fixture *x = *state;
    splits_into(x, "a\r\nb\r\n<e>\r\nc\r\n<e>\r\n", "<e>", "a\r\nb|c");
    splits_into(x, "a\r\n<e>\r\nb\r\n<e>\r", "<e>", "a|b");
    splits_into(x, "a\n<e>\r\nb\r\n", "<e>", "a|b");
    splits_into(x, "a\r\n\r\nb\r\n", "", "a|b");
}

static void every_context_of_a_document_begins_with_bos(void **state)
{
    struct fixture *x = *state;
    write_input(x, "abcde\n-\nf", 9);
    sonde_corpus_options o = text_options(x, "-", 3);
    o.bos = SONDE_BOS_AUTO; /* this tokenizer adds it */
    sonde_corpus *c = read_corpus(x, &o, NULL);
    is_array_i32(c->id, c->n_tokens, I32(BOS, S, A, BOS, A + 1, A + 2, BOS, A + 3, A + 4, BOS, S, A + 5));
    is_array_i32(c->doc, c->n_tokens, I32(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1));
    is_array_u64(c->seq_start, c->n_seqs + 1, U64(0, 3, 6, 9, 12));
    sonde_corpus_free(c);
}

static void concat_has_bos_before_each_document_only(void **state)
{
    struct fixture *x = *state;
    write_input(x, "abcde\n-\nf", 9);
    sonde_corpus_options o = text_options(x, "-", 4);
    o.packing = SONDE_PACK_CONCAT;
    o.bos = SONDE_BOS_ALWAYS;
    sonde_corpus *c = read_corpus(x, &o, NULL);
    is_array_i32(c->id, c->n_tokens, I32(BOS, S, A, A + 1, A + 2, A + 3, A + 4, BOS, S, A + 5));
    is_array_i32(c->doc, c->n_tokens, I32(0, 0, 0, 0, 0, 0, 0, 1, 1, 1));
    is_array_u64(c->seq_start, c->n_seqs + 1, U64(0, 4, 8, 10));
    sonde_corpus_free(c);
    o.bos = SONDE_BOS_NEVER;
    c = read_corpus(x, &o, NULL);
    is_array_i32(c->id, c->n_tokens, I32(S, A, A + 1, A + 2, A + 3, A + 4, S, A + 5));
    is_array_u64(c->seq_start, c->n_seqs + 1, U64(0, 4, 8));
    sonde_corpus_free(c);
}

static void control_tokens_in_text_are_text(void **state)
{
    struct fixture *x = *state;
    write_input(x, "<s>", 3);
    sonde_corpus_options o = text_options(x, NULL, 10);
    o.bos = SONDE_BOS_ALWAYS;
    sonde_corpus *c = read_corpus(x, &o, NULL);
    is_array_i32(c->id, c->n_tokens, I32(BOS, S, BYTE + '<', A + 's' - 'a', BYTE + '>'));
    sonde_corpus_free(c);
}

static void max_tokens_cuts_exactly(void **state)
{
    struct fixture *x = *state;
    static const char text[] = "abcdefg\n-\nhi\n-\nj\n-\nklmnopqrstuv";
    write_input(x, text, sizeof text - 1);
    for (int packing = 0; packing < 2; packing++)
        for (int bos = 0; bos < 2; bos++) {
            sonde_corpus_options o = text_options(x, "-", 4);
            o.packing = packing ? SONDE_PACK_CONCAT : SONDE_PACK_DOC;
            o.bos = bos ? SONDE_BOS_ALWAYS : SONDE_BOS_NEVER;
            sonde_corpus *all = read_corpus(x, &o, NULL);
            assert_int_equal(all->n_docs, 4);
            for (uint64_t n = 1; n <= all->n_tokens + 2; n++) {
                o.max_tokens = n;
                sonde_corpus *c = read_corpus(x, &o, NULL);
                uint64_t want = n < all->n_tokens ? n : all->n_tokens;
                is_array_i32(c->id, c->n_tokens, all->id, want);
                is_array_i32(c->doc, c->n_tokens, all->doc, want);
                assert_memory_equal(c->seq_start, all->seq_start, c->n_seqs * sizeof *c->seq_start);
                assert_int_equal(c->n_docs, c->doc[c->n_tokens - 1] + 1);
                sonde_corpus_free(c);
            }
            sonde_corpus_free(all);
        }
}

static void json_lines_are_documents(void **state)
{
    struct fixture *x = *state;
    static const char text[] =
        "{\"text\": \"ab\", \"n\": 1}\r\n\n  \t\r\n{\"text\": \"\"}\n{\"a\": [{}], \"text\": \"\\u0063\\n\"}";
    write_input(x, text, sizeof text - 1);
    sonde_corpus_options o = {.jsonl_path = x->path, .n_context = 8, .bos = SONDE_BOS_AUTO};
    sonde_corpus *c = read_corpus(x, &o, NULL);
    is_array_i32(c->id, c->n_tokens, I32(BOS, S, A, A + 1, BOS, S, A + 2, BYTE + '\n'));
    is_array_i32(c->doc, c->n_tokens, I32(0, 0, 0, 0, 2, 2, 2, 2));
    is_array_u64(c->seq_start, c->n_seqs + 1, U64(0, 4, 8));
    assert_int_equal(c->n_docs, 3);
    assert_memory_equal(text + c->doc_range[4], "{\"a\"", 4);
    assert_int_equal(c->doc_range[5], sizeof text - 1);
    sonde_corpus_free(c);
    write_input(x, "{\"body\": \"a\", \"text\": 1}\n", 25);
    o.field = "body";
    c = read_corpus(x, &o, NULL);
    is_array_i32(c->id, c->n_tokens, I32(BOS, S, A));
    sonde_corpus_free(c);
}

static void ids_of_a_vector_are_one_document(void **state)
{
    struct fixture *x = *state;
    write_ids(x, SONDE_I32, (int32_t[]){5, 6, 7, 8, 9}, 1, (uint64_t[]){5});
    sonde_corpus_options o = {.ids_path = x->path, .n_context = 2, .n_vocab = 10};
    sonde_corpus *c = NULL;
    sonde_err err = {0};
    assert_int_equal(sonde_corpus_read(&o, NULL, NULL, &c, &err), SONDE_OK); /* no tokenizer */
    check_corpus(c, &o);
    is_array_i32(c->id, c->n_tokens, I32(5, 6, 7, 8, 9));
    is_array_u64(c->seq_start, c->n_seqs + 1, U64(0, 2, 4, 5));
    assert_true(c->n_docs == 1 && c->doc_range[0] == 0 && c->doc_range[1] == 5);
    sonde_corpus_free(c);
}

static void ids_of_a_matrix_are_documents(void **state)
{
    struct fixture *x = *state;
    write_ids(x, SONDE_I64, (int64_t[]){BOS, 6, 7, 8, 9, INT32_MAX}, 2, (uint64_t[]){2, 3});
    sonde_corpus_options o = {.ids_path = x->path, .n_context = 3};
    sonde_corpus *c = read_corpus(x, &o, NULL);
    is_array_i32(c->id, c->n_tokens, I32(BOS, 6, 7, 8, 9, INT32_MAX));
    is_array_i32(c->doc, c->n_tokens, I32(0, 0, 0, 1, 1, 1));
    is_array_u64(c->seq_start, c->n_seqs + 1, U64(0, 3, 6));
    assert_true(c->n_docs == 2 && c->doc_range[2] == 3 && c->doc_range[3] == 6);
    sonde_corpus_free(c);
    o.bos = SONDE_BOS_ALWAYS; /* not twice where it is there */
    c = read_corpus(x, &o, NULL);
    is_array_i32(c->id, c->n_tokens, I32(BOS, 6, 7, BOS, 8, 9, BOS, INT32_MAX));
    is_array_u64(c->seq_start, c->n_seqs + 1, U64(0, 3, 6, 8));
    sonde_corpus_free(c);
    o.packing = SONDE_PACK_CONCAT;
    c = read_corpus(x, &o, NULL);
    is_array_i32(c->id, c->n_tokens, I32(BOS, 6, 7, BOS, 8, 9, INT32_MAX));
    sonde_corpus_free(c);
}

/* About 1.6 MB in documents of 0 to 4,000 bytes and one of 400 kB, as text or as JSON lines. */
static void write_many(const struct fixture *x, bool json)
{
    sonde_rng r = sonde_rng_seed(7);
    FILE *f = fopen(x->path, "wb");
    assert_non_null(f);
    for (int d = 0; d < 600; d++) {
        uint64_t n = d == 250 ? 400000 : sonde_rng_below(&r, 4000);
        fputs(json ? "{\"text\":\"" : "", f);
        for (uint64_t i = 0; i < n; i++)
            putc("abcdefghijklmnop  qrstuvwxyz.XYZ"[sonde_rng_below(&r, 32)], f);
        fputs(json ? "\"}\n" : "\n<e>\n", f);
    }
    assert_int_equal(fclose(f), 0);
}

static void is_same(const sonde_corpus *a, const sonde_corpus *b)
{
    assert_true(a->n_tokens == b->n_tokens && a->n_seqs == b->n_seqs && a->n_docs == b->n_docs &&
                a->n_invalid == b->n_invalid);
    assert_memory_equal(a->id, b->id, a->n_tokens * sizeof *a->id);
    assert_memory_equal(a->doc, b->doc, a->n_tokens * sizeof *a->doc);
    assert_memory_equal(a->seq_start, b->seq_start, (a->n_seqs + 1) * sizeof *a->seq_start);
    assert_memory_equal(a->doc_range, b->doc_range, 2 * a->n_docs * sizeof *a->doc_range);
}

static void result_does_not_depend_on_threads_or_memory(void **state)
{
    struct fixture *x = *state;
    for (int json = 0; json < 2; json++) {
        write_many(x, json);
        sonde_corpus_options o = {.text_path = json ? NULL : x->path,
                                  .jsonl_path = json ? x->path : NULL,
                                  .separator = "<e>",
                                  .n_context = 128};
        sonde_corpus *want = read_corpus(x, &o, NULL);
        assert_true(want->n_tokens > 1500000);
        for (int n_threads = 1; n_threads <= 3; n_threads++) {
            sonde_budget budget = {.limit = n_threads == 2 ? (size_t)40 << 20 : 0};
            sonde_work work = {.budget = &budget};
            sonde_err err = {0};
            assert_int_equal(sonde_pool_new(n_threads, &work.pool, &err), SONDE_OK);
            sonde_corpus *c = read_corpus(x, &o, &work);
            is_same(c, want);
            assert_true(budget.taken >= 8 * c->n_tokens);
            sonde_corpus_free(c);
            assert_int_equal(budget.taken, 0);
            sonde_pool_free(work.pool);
        }
        sonde_corpus_free(want);
    }
}

static void memory_limit_is_kept(void **state)
{
    struct fixture *x = *state;
    write_many(x, false);
    sonde_corpus_options o = text_options(x, "<e>", 128);
    sonde_budget budget = {.limit = (size_t)8 << 20}; /* the ids alone take 12 MB */
    sonde_corpus *c = NULL;
    sonde_err err = {0};
    assert_int_equal(sonde_corpus_read(&o, x->tokenizer, &(sonde_work){.budget = &budget}, &c, &err),
                     SONDE_E_MEMORY);
    assert_non_null(strstr(err.msg, "memory limit"));
    assert_null(c);
    assert_int_equal(budget.taken, 0);
}

struct reports {
    uint64_t last, total;
    int n;
    bool raise;
    volatile sig_atomic_t stop;
};

static void listen(void *arg, const sonde_progress *what)
{
    struct reports *r = arg;
    if (strcmp(what->phase, "tokenising") != 0)
        return;
    assert_true(what->n_done >= r->last);
    r->last = what->n_done;
    r->total = what->n_total;
    r->n++;
    r->stop = r->raise;
}

static void progress_is_reported(void **state)
{
    struct fixture *x = *state;
    write_many(x, false);
    sonde_corpus_options o = text_options(x, "<e>", 128);
    struct reports r = {0};
    sonde_corpus *c = read_corpus(x, &o, &(sonde_work){.report = listen, .report_arg = &r});
    assert_true(r.n > 1 && r.last <= r.total && r.total - r.last < 10);
    sonde_corpus_free(c);
}

static void stop_flag_is_heard(void **state)
{
    struct fixture *x = *state;
    write_many(x, false);
    sonde_corpus_options o = text_options(x, "<e>", 128);
    for (int raised = 0; raised < 2; raised++) { /* before the call, and after its first round */
        struct reports r = {.stop = raised == 0, .raise = true};
        sonde_budget budget = {0};
        sonde_work work = {.budget = &budget, .report = listen, .report_arg = &r, .stop = &r.stop};
        sonde_corpus *c = NULL;
        sonde_err err = {0};
        assert_int_equal(sonde_corpus_read(&o, x->tokenizer, &work, &c, &err), SONDE_E_STOPPED);
        assert_int_equal(err.code, SONDE_E_STOPPED);
        assert_int_equal(r.n, raised);
        assert_null(c);
        assert_int_equal(budget.taken, 0);
    }
}

/* Long ids: several pieces of the array, and both packings. */
static void long_arrays_of_ids_are_read_whole(void **state)
{
    struct fixture *x = *state;
    enum { N = 2500000 };
    int32_t *id = malloc(N * sizeof *id);
    assert_non_null(id);
    for (int32_t i = 0; i < N; i++)
        id[i] = i % 50000;
    write_ids(x, SONDE_I32, id, 1, (uint64_t[]){N});
    for (int packing = 0; packing < 2; packing++) {
        sonde_corpus_options o = {
            .ids_path = x->path, .n_context = 1000, .packing = packing ? SONDE_PACK_CONCAT : SONDE_PACK_DOC};
        sonde_corpus *c = read_corpus(x, &o, NULL);
        assert_true(c->n_tokens == N && c->n_seqs == N / 1000);
        assert_memory_equal(c->id, id, N * sizeof *id);
        sonde_corpus_free(c);
    }
    free(id);
}

/* 4,040 stories, each with its BOS; counted once with llama2.c's own tokenizer. */
static void tinystories_has_the_known_number_of_tokens(void **state)
{
    struct fixture *x = *state;
    static const char data[] = SONDE_SOURCE_DIR "/../shared/data";
    char text[512], path[512];
    snprintf(text, sizeof text, "%s/text/tinystories.txt", data);
    snprintf(path, sizeof path, "%s/models/stories260K/tok512.bin", data);
    if (access(text, R_OK) != 0 || access(path, R_OK) != 0) {
        print_message("skipped: no %s\n", text);
        skip();
    }
    sonde_err err = {0};
    struct fixture real = *x;
    assert_int_equal(sonde_tokenizer_open(path, NULL, &real.tokenizer, &err), SONDE_OK);
    sonde_corpus_options o = {.text_path = text,
                              .separator = "<|endoftext|>",
                              .n_context = 512,
                              .packing = SONDE_PACK_CONCAT,
                              .n_vocab = 512};
    sonde_corpus *c = read_corpus(&real, &o, NULL);
    assert_int_equal(c->n_docs, 4040);
    assert_int_equal(c->n_tokens, 1708361);
    sonde_corpus_free(c);
    sonde_tokenizer_close(real.tokenizer);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(text_without_separator_is_one_document),
        TEST(separator_lines_end_documents),
        TEST(separator_lines_may_end_in_crlf),
        TEST(every_context_of_a_document_begins_with_bos),
        TEST(concat_has_bos_before_each_document_only),
        TEST(control_tokens_in_text_are_text),
        TEST(max_tokens_cuts_exactly),
        TEST(json_lines_are_documents),
        TEST(ids_of_a_vector_are_one_document),
        TEST(ids_of_a_matrix_are_documents),
        TEST(result_does_not_depend_on_threads_or_memory),
        TEST(memory_limit_is_kept),
        TEST(progress_is_reported),
        TEST(stop_flag_is_heard),
        TEST(long_arrays_of_ids_are_read_whole),
        TEST(tinystories_has_the_known_number_of_tokens),
    };
    return cmocka_run_group_tests_name("text_corpus", tests, NULL, NULL);
}
