/* SPDX-License-Identifier: MIT
 * Texts, JSON lines and ids that cannot be read, and odd ones that can: one row each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../unit/corpus_fixture.h"

enum kind { TEXT, LINES, RAW_IDS };

/* Contents (n bytes), how they are read, the code, words of the message (NULL: accepted), and the tokens that
 * come out. */
static const struct row {
    const char *name;
    enum kind kind;
    const char *b;
    size_t n;
    enum sonde_code want;
    const char *says;
    uint64_t n_tokens, n_invalid;
} rows[] = {
#define BYTES(s) s, sizeof(s) - 1
    {"empty_text", TEXT, BYTES(""), 3, "there is no text in it", 0, 0},
    {"only_separators", TEXT, BYTES("-\n-\n\n-\n"), 3, "there is no text in it", 0, 0},
    {"one_letter", TEXT, BYTES("a"), 0, NULL, 2, 0},
    {"only_spaces", TEXT, BYTES("   "), 0, NULL, 4, 0},
    {"nul_bytes", TEXT, BYTES("a\0\0b"), 0, NULL, 5, 0},
    {"invalid_utf8", TEXT, BYTES("a\xff\xc3(\xed\xa0\x80"), 0, NULL, 8, 5},
    {"invalid_in_documents_only", TEXT, BYTES("\xff\n-\na\n-\n\xfe\n"), 0, NULL, 6, 2},
    {"byte_order_mark", TEXT,
     BYTES("\xef\xbb\xbf"
           "a"),
     0, NULL, 5, 0},
    {"crlf_text", TEXT, BYTES("a\r\n-\r\nb\r\n"), 0, NULL, 4, 0},
    {"no_newline_at_end", TEXT, BYTES("a\n-\nb"), 0, NULL, 4, 0},
    {"empty_lines", LINES, BYTES(""), 3, "there is no text in it", 0, 0},
    {"blank_lines", LINES, BYTES("\n \n\r\n"), 3, "there is no text in it", 0, 0},
    {"empty_strings", LINES, BYTES("{\"text\": \"\"}\n"), 3, "there is no text in it", 0, 0},
    {"line_is_not_json", LINES, BYTES("{\"text\": \"a\"}\n\n{\"text\": \n"), 3, "input: line 3", 0, 0},
    {"line_is_an_array", LINES, BYTES("[\"text\"]\n"), 3, "line 1: is not a JSON object", 0, 0},
    {"line_is_a_string", LINES, BYTES("\n\"text\"\n"), 3, "line 2", 0, 0},
    {"two_values_on_a_line", LINES, BYTES("{\"text\": \"a\"} {}\n"), 3, "line 1", 0, 0},
    {"no_field", LINES, BYTES("{\"text\": \"a\"}\r\n{\"Text\": \"a\"}\r\n"), 3,
     "line 2: there is no field 'text'", 0, 0},
    {"field_is_a_number", LINES, BYTES("{\"text\": 1}"), 3, "line 1: the field 'text' is not a string", 0, 0},
    {"field_is_null", LINES, BYTES("{\"text\": null}"), 3, "is not a string", 0, 0},
    {"field_twice", LINES, BYTES("{\"text\": \"a\", \"text\": \"b\"}"), 3, "line 1", 0, 0},
    {"invalid_utf8_in_json", LINES, BYTES("{\"text\": \"\xff\"}"), 3, "line 1", 0, 0},
    {"lone_surrogate_in_json", LINES, BYTES("{\"text\": \"\\ud800\"}"), 3, "line 1", 0, 0},
    {"nul_in_json", LINES, BYTES("{\"text\": \"\\u0000\"}"), 3, "line 1", 0, 0},
    {"raw_nul_in_json", LINES, BYTES("{\"text\": \"a\0\"}"), 3, "line 1", 0, 0},
    {"deep_json", LINES,
     BYTES("{\"a\": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["), 3, "line 1", 0,
     0},
    {"not_an_npy", RAW_IDS, BYTES("1 2 3\n"), 3, "input", 0, 0},
    {"empty_npy", RAW_IDS, BYTES(""), 3, "input", 0, 0},
};

static void row_is_as_promised(void **state)
{
    const struct row *r = *state;
    struct fixture *x = fixture_new();
    write_input(x, r->b, r->n);
    sonde_corpus_options o = {.n_context = 8, .bos = SONDE_BOS_NEVER, .separator = "-"};
    *(r->kind == TEXT ? &o.text_path : r->kind == LINES ? &o.jsonl_path : &o.ids_path) = x->path;
    for (int n_threads = 1; n_threads <= 2; n_threads++) {
        sonde_budget budget = {.limit = (size_t)16 << 20};
        sonde_work work = {.budget = &budget};
        sonde_corpus *c = NULL;
        sonde_err err = {0};
        assert_int_equal(sonde_pool_new(n_threads, &work.pool, &err), SONDE_OK);
        enum sonde_code rc = sonde_corpus_read(&o, x->tokenizer, &work, &c, &err);
        if (rc != r->want ||
            (r->says && (!strstr(err.msg, r->says) || !strstr(err.msg, x->path) || err.code != rc)))
            fail_msg("%s: code %d, message '%s'", r->name, (int)rc, err.msg);
        if (rc == SONDE_OK) {
            check_corpus(c, &o);
            assert_int_equal(c->n_tokens, r->n_tokens);
            assert_int_equal(c->n_invalid, r->n_invalid);
        }
        sonde_corpus_free(c);
        assert_int_equal(budget.taken, 0);
        sonde_pool_free(work.pool);
    }
    fixture_free(x);
}

/* Read what was written; the message must have `says`. */
static void is_refused(const struct fixture *x, const sonde_corpus_options *o, enum sonde_code want,
                       const char *says)
{
    sonde_corpus *c = NULL;
    sonde_err err = {0};
    enum sonde_code rc = sonde_corpus_read(o, x->tokenizer, NULL, &c, &err);
    if (rc != want || !strstr(err.msg, says))
        fail_msg("expected '%s': code %d, message '%s'", says, (int)rc, err.msg);
    assert_null(c);
}

static void wrong_ids_are_refused(void **state)
{
    (void)state;
    struct fixture *x = fixture_new();
    sonde_corpus_options o = {.ids_path = x->path, .n_context = 2, .n_vocab = 100};
    write_ids(x, SONDE_I32, (int32_t[]){1, 2, 3, 100}, 1, (uint64_t[]){4});
    is_refused(x, &o, SONDE_E_INPUT, "the id 100 at index 3 is outside [0, 100)");
    write_ids(x, SONDE_I64, (int64_t[]){1, 2, 3, -1}, 2, (uint64_t[]){2, 2});
    is_refused(x, &o, SONDE_E_INPUT, "the id -1 at index 3");
    write_ids(x, SONDE_I64, (int64_t[]){1ll << 32}, 1, (uint64_t[]){1});
    is_refused(x, &o, SONDE_E_INPUT, "the id 4294967296 at index 0");
    o.n_vocab = 0;
    is_refused(x, &o, SONDE_E_INPUT, "[0, 2147483648)");
    write_ids(x, SONDE_F32, (float[]){1, 2}, 1, (uint64_t[]){2});
    is_refused(x, &o, SONDE_E_INPUT, "is float32 [2], ids are int32 or int64");
    write_ids(x, SONDE_U16, (uint16_t[]){1, 2}, 1, (uint64_t[]){2});
    is_refused(x, &o, SONDE_E_INPUT, "uint16");
    write_ids(x, SONDE_I32, (int32_t[]){1}, 3, (uint64_t[]){1, 1, 1});
    is_refused(x, &o, SONDE_E_INPUT, "int32 [1, 1, 1]");
    write_ids(x, SONDE_I32, (int32_t[]){1}, 0, NULL);
    is_refused(x, &o, SONDE_E_INPUT, "[n] or [documents, context]");
    write_ids(x, SONDE_I32, (int32_t[]){1}, 1, (uint64_t[]){0});
    is_refused(x, &o, SONDE_E_INPUT, "there are no ids");
    write_ids(x, SONDE_I32, (int32_t[]){1}, 2, (uint64_t[]){1000, 0});
    is_refused(x, &o, SONDE_E_INPUT, "there are no ids");
    fixture_free(x);
}

static void tokens_outside_the_models_vocabulary_are_refused(void **state)
{
    (void)state;
    struct fixture *x = fixture_new();
    write_input(x, "a\n-\nz", 5);
    sonde_corpus_options o = {
        .text_path = x->path, .separator = "-", .n_context = 4, .n_vocab = N_FIXTURE - 1};
    is_refused(x, &o, SONDE_E_INPUT, "document 1 has the token 285, the model's vocabulary has 285");
    o.max_tokens = 3; /* BOS, space, a: never gets there */
    sonde_corpus_free(read_corpus(x, &o, NULL));
    o.n_vocab = 1;
    is_refused(x, &o, SONDE_E_INPUT, "BOS is 1");
    fixture_free(x);
}

static void wrong_options_are_refused(void **state)
{
    (void)state;
    struct fixture *x = fixture_new();
    write_input(x, "a", 1);
    sonde_corpus_options o = {.text_path = x->path, .n_context = 1};
    is_refused(x, &o, SONDE_E_USAGE, "no room behind its BOS");
    o.n_context = 0;
    is_refused(x, &o, SONDE_E_USAGE, "a context of 0 tokens");
    o.n_context = 2;
    o.jsonl_path = x->path;
    is_refused(x, &o, SONDE_E_USAGE, "name one of");
    o.jsonl_path = o.text_path = NULL;
    is_refused(x, &o, SONDE_E_USAGE, "name one of");
    o.text_path = x->path;
    o.separator = "a\n";
    is_refused(x, &o, SONDE_E_USAGE, "line break");
    o = (sonde_corpus_options){.text_path = "/nonexistent/text", .n_context = 2};
    is_refused(x, &o, SONDE_E_IO, "/nonexistent/text");
    o.text_path = x->dir;
    is_refused(x, &o, SONDE_E_INPUT, "a directory");
    sonde_corpus *c = NULL;
    sonde_err err = {0};
    o.text_path = x->path;
    assert_int_equal(sonde_corpus_read(&o, NULL, NULL, &c, &err), SONDE_E_USAGE);
    o = (sonde_corpus_options){.ids_path = x->path, .n_context = 2, .bos = SONDE_BOS_ALWAYS};
    assert_int_equal(sonde_corpus_read(&o, NULL, NULL, &c, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "without a tokenizer"));
    fixture_free(x);
}

/* Two bad lines far apart: the first is reported, however the lines fall into rounds and tasks; behind the
 * last wanted token nothing is. */
static void first_bad_line_is_reported_for_any_threads(void **state)
{
    (void)state;
    struct fixture *x = fixture_new();
    FILE *f = fopen(x->path, "wb");
    assert_non_null(f);
    for (int i = 1; i <= 40000; i++)
        fputs(i == 12345 || i == 12400 || i == 39000 ? "{}\n"
                                                     : "{\"text\": \"abcdefghijklmnopqrstuvwxyz\"}\n",
              f);
    assert_int_equal(fclose(f), 0);
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        sonde_budget budget = {.limit = n_threads == 2 ? (size_t)32 << 20 : 0};
        sonde_work work = {.budget = &budget};
        sonde_corpus_options o = {.jsonl_path = x->path, .n_context = 64, .bos = SONDE_BOS_NEVER};
        sonde_corpus *c = NULL;
        sonde_err err = {0};
        assert_int_equal(sonde_pool_new(n_threads, &work.pool, &err), SONDE_OK);
        assert_int_equal(sonde_corpus_read(&o, x->tokenizer, &work, &c, &err), SONDE_E_INPUT);
        assert_non_null(strstr(err.msg, "line 12345:"));
        o.max_tokens = 12344 * 27;
        c = read_corpus(x, &o, &work);
        assert_true(c->n_tokens == o.max_tokens && c->n_docs == 12344);
        sonde_corpus_free(c);
        o.max_tokens++;
        assert_int_equal(sonde_corpus_read(&o, x->tokenizer, &work, &c, &err), SONDE_E_INPUT);
        assert_int_equal(budget.taken, 0);
        sonde_pool_free(work.pool);
    }
    fixture_free(x);
}

int main(void)
{
    enum { N = sizeof rows / sizeof *rows };
    static struct CMUnitTest tests[N + 4];
    for (size_t i = 0; i < N; i++)
        tests[i] =
            (struct CMUnitTest){rows[i].name, row_is_as_promised, NULL, NULL, (void *)(uintptr_t)&rows[i]};
    tests[N] = (struct CMUnitTest)cmocka_unit_test(wrong_ids_are_refused);
    tests[N + 1] = (struct CMUnitTest)cmocka_unit_test(tokens_outside_the_models_vocabulary_are_refused);
    tests[N + 2] = (struct CMUnitTest)cmocka_unit_test(wrong_options_are_refused);
    tests[N + 3] = (struct CMUnitTest)cmocka_unit_test(first_bad_line_is_reported_for_any_threads);
    return cmocka_run_group_tests_name("bad_corpus", tests, NULL, NULL);
}
