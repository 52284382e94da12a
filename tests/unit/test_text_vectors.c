/* SPDX-License-Identifier: MIT
 * Real tokenizers against published vectors; everything here reads ../shared/data and is skipped without it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "text/tokenizer.h"

#define DATA SONDE_SOURCE_DIR "/../shared/data/"

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *s = malloc(*n + 1);
    assert_int_equal(fread(s, 1, *n, f), *n);
    s[*n] = '\0';
    fclose(f);
    return s;
}

static void need_data(const char *path)
{
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not there\n", path);
        skip();
    }
}

static sonde_tokenizer *open_or_die(const char *path)
{
    sonde_err err = {0};
    sonde_tokenizer *t = NULL;
    if (sonde_tokenizer_open(path, NULL, &t, &err))
        fail_msg("%s", err.msg);
    return t;
}

/* Every token's range must lie in the text, in order, and the ids must be those of the next line of `want`.
 */
static bool same_line(const sonde_tokens *got, size_t first, char **want)
{
    bool same = true;
    size_t i = first;
    char *p = *want;
    for (; *p && *p != '\n'; i++) {
        char *end;
        long id = strtol(p, &end, 10);
        if (end == p)
            break;
        same = same && i < got->n && got->id[i] == id;
        p = end;
    }
    while (*p && *p != '\n')
        p++;
    *want = *p ? p + 1 : p;
    return same && i == got->n;
}

static void check_vectors(const char *tokenizer, const char *vectors)
{
    char path[512];
    size_t n, n_out, n_pass = 0, n_all = 0;
    need_data(tokenizer);
    snprintf(path, sizeof path, "%s.inp", vectors);
    char *inp = slurp(path, &n);
    snprintf(path, sizeof path, "%s.out", vectors);
    char *out = slurp(path, &n_out), *want = out;
    assert_non_null(inp);
    assert_non_null(out);
    sonde_tokenizer *t = open_or_die(tokenizer);
    static const char sep[] = "\n__ggml_vocab_test__\n";
    for (char *text = inp, *next; text;
         text = next) { /* the last one is the empty text after the last separator */
        next = strstr(text, sep);
        size_t len = next ? (size_t)(next - text) : n - (size_t)(text - inp);
        sonde_tokens tok = {0};
        assert_int_equal(sonde_tokenizer_encode(t, text, len, SONDE_BOS_NEVER, false, &tok, NULL), SONDE_OK);
        n_all++;
        if (same_line(&tok, 0, &want))
            n_pass++;
        else
            print_message("vector %zu differs: '%.*s'\n", n_all, (int)len, text);
        char *back;
        size_t n_back;
        assert_int_equal(sonde_tokenizer_decode(t, tok.id, tok.n, true, &back, &n_back, NULL), SONDE_OK);
        if (n_back != len || memcmp(back, text, len) != 0)
            fail_msg("vector %zu does not come back: '%s'", n_all, back);
        free(back);
        sonde_tokens_free(&tok);
        next = next ? next + strlen(sep) : NULL;
    }
    print_message("%zu of %zu vectors\n", n_pass, n_all);
    assert_int_equal(n_all, 47);
    assert_int_equal(n_pass, 47);
    sonde_tokenizer_close(t);
    free(inp);
    free(out);
}

static void gpt2_files_pass_all_vectors(void **state)
{
    (void)state;
    check_vectors(DATA "tokenizers/gpt2", DATA "tokenizers/vectors/ggml-vocab-gpt-2.gguf");
}

static void gpt2_gguf_passes_all_vectors(void **state)
{
    (void)state;
    check_vectors(DATA "tokenizers/vectors/ggml-vocab-gpt-2.gguf",
                  DATA "tokenizers/vectors/ggml-vocab-gpt-2.gguf");
}

static void llama_gguf_passes_all_vectors(void **state)
{
    (void)state;
    check_vectors(DATA "tokenizers/vectors/ggml-vocab-llama-spm.gguf",
                  DATA "tokenizers/vectors/ggml-vocab-llama-spm.gguf");
}

static void llama_model_passes_all_vectors(void **state)
{
    (void)state;
    check_vectors(DATA "tokenizers/llama/tokenizer.model",
                  DATA "tokenizers/vectors/ggml-vocab-llama-spm.gguf");
}

static void llama_bin_passes_all_vectors(void **state)
{
    (void)state;
    check_vectors(DATA "tokenizers/llama/tokenizer.bin", DATA "tokenizers/vectors/ggml-vocab-llama-spm.gguf");
}

static void tok512_begins_a_story_with_bos(void **state)
{
    (void)state;
    static const char text[] = "Once upon a time";
    static const int32_t want[] = {1, 403, 407, 261, 378};
    static const uint32_t begin[] = {0, 0, 4, 9, 11}, end[] = {0, 4, 9, 11, 16};
    need_data(DATA "models/stories260K/tok512.bin");
    sonde_tokenizer *t = open_or_die(DATA "models/stories260K/tok512.bin");
    sonde_tokens tok = {0};
    assert_int_equal(sonde_tokenizer_encode(t, text, strlen(text), SONDE_BOS_AUTO, false, &tok, NULL),
                     SONDE_OK);
    assert_int_equal(tok.n, 5);
    assert_memory_equal(tok.id, want, sizeof want);
    assert_memory_equal(tok.begin, begin, sizeof begin);
    assert_memory_equal(tok.end, end, sizeof end);
    assert_int_equal(sonde_tokenizer_size(t), 512);
    assert_true(sonde_tokenizer_adds_bos(t));
    sonde_tokens_free(&tok);
    sonde_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_files_pass_all_vectors),   cmocka_unit_test(gpt2_gguf_passes_all_vectors),
        cmocka_unit_test(llama_gguf_passes_all_vectors), cmocka_unit_test(llama_model_passes_all_vectors),
        cmocka_unit_test(llama_bin_passes_all_vectors),  cmocka_unit_test(tok512_begins_a_story_with_bos),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
