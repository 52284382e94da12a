/* SPDX-License-Identifier: MIT
 * What changes no byte of a captured file, and captures that are refused or do not fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "capture_fixture.h"
#include "file/safetensors.h"

static const char *const everything[] = {"*", NULL};

/* ---- the same bits ----------------------------------------------------------------------------- */

static void bytes_of_a_capture(const char *kernels, int threads, size_t batch, uint64_t journal,
                               const sonde_tokenizer *t, char hex[65])
{
    sonde_err err = {0};
    sonde_model *m = open_model("llama", kernels);
    size_t length[60];
    for (size_t d = 0; d < 60; d++)
        length[d] = 1 + d * 37 % 80;
    sonde_corpus *c = make_corpus(length, 60, 30, false, m->arch.n_vocab);
    sonde_hook_list hooks;
    hook_list(m, everything, &hooks);
    sonde_capture_options o = {.hooks = &hooks,
                               .shuffle = true,
                               .max_seqs = 5,
                               .loss = true,
                               .n_logits = 3,
                               .holdout = 0.1,
                               .overwrite = true,
                               .batch_tokens = batch,
                               .journal_bytes = journal};
    sonde_capture_result r = capture(m, c, t, &o, threads);
    must(sonde_sha256_file(file, hex, &err), &err);
    free(r.saturated);
    sonde_hooks_free(&hooks);
    drop_corpus(c);
    sonde_model_close(m);
}

static void threads_batches_journals_kernels_and_repetition_change_no_byte(void **state)
{
    (void)state;
    static const struct {
        int threads;
        size_t batch;
        uint64_t journal;
    } how[] = {{1, 0, 0}, {2, 0, 0}, {3, 0, 1 << 20}, {1, 1, 0}, {2, 100, 20000}, {3, 100000, 1}, {2, 31, 0}};
    char want[65], got[65];
    bytes_of_a_capture(NULL, 1, 0, 0, NULL, want);
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
        bytes_of_a_capture(NULL, how[i].threads, how[i].batch, how[i].journal, NULL, got);
        if (strcmp(want, got))
            fail_msg("%d threads, batch %d, journal %d: other bytes", how[i].threads, (int)how[i].batch,
                     (int)how[i].journal);
    }
    for (const char *const *k = sonde_kernels_list(); *k; k++) {
        if (!strcmp(*k, "openblas"))
            continue; /* differs in the last bits, and says so */
        bytes_of_a_capture(*k, 2, 77, 0, NULL, got);
        if (strcmp(want, got))
            fail_msg("kernels %s: other bytes", *k);
    }
}

/* ---- what is refused --------------------------------------------------------------------------- */

static bool is_there(const char *suffix)
{
    char path[120];
    snprintf(path, sizeof path, "%s%s", file, suffix);
    return access(path, F_OK) == 0;
}

static void drop_part(void)
{
    char path[120];
    snprintf(path, sizeof path, "%s.part", file);
    unlink(path);
    snprintf(path, sizeof path, "%s.part.journal", file);
    unlink(path);
}

static void refused(const sonde_model *m, const sonde_corpus *c, const sonde_capture_options *o,
                    enum sonde_code want, const char *words)
{
    sonde_err err = {0};
    sonde_capture_result r;
    unlink(file);
    enum sonde_code code = sonde_capture(m, c, NULL, o, NULL, file, &r, &err);
    free(r.saturated);
    if (code != want || !strstr(err.msg, words))
        fail_msg("code %d, wanted %d with '%s': %s", code, want, words, code ? err.msg : "no error");
    if (want == SONDE_E_NUMERIC) /* found on the way */
        drop_part();
    assert_false(is_there("") || is_there(".part") || is_there(".part.journal"));
}

static void impossible_captures_are_refused_before_anything_is_written(void **state)
{
    (void)state;
    sonde_model *m = open_model("gpt2", NULL);
    sonde_corpus *c = make_corpus(lengths, N_DOCS, 29, false, m->arch.n_vocab),
                 *longer = make_corpus(lengths, N_DOCS, 30, false, m->arch.n_vocab);
    sonde_hook_list none = {0}, embed, pattern;
    hook_list(m, (const char *const[]){"hook_embed", NULL}, &embed);
    hook_list(m, (const char *const[]){"pattern0", NULL}, &pattern);
    refused(m, c, &(sonde_capture_options){.hooks = &none}, SONDE_E_USAGE, "nothing to store");
    refused(m, longer, &(sonde_capture_options){.hooks = &embed}, SONDE_E_USAGE,
            "contexts of 30 tokens, this model's longest is 29");
    refused(m, c, &(sonde_capture_options){.hooks = &embed, .n_logits = 84}, SONDE_E_USAGE,
            "84 logits per token, this model has 83");
    refused(m, c, &(sonde_capture_options){.hooks = &pattern}, SONDE_E_USAGE,
            "blocks.0.attn.hook_pattern is stored for whole contexts: say for how many (--max-seqs)");
    refused(m, c, &(sonde_capture_options){.hooks = &embed, .skip_first = 29}, SONDE_E_USAGE,
            "no token is left: the longest context has 29, the first 29 are skipped");
    c->id[17] = 83;
    refused(m, c, &(sonde_capture_options){.hooks = &embed}, SONDE_E_INPUT,
            "token 17 has id 83, this model's vocabulary is 83");
    drop_corpus(c);
    drop_corpus(longer);
    sonde_hooks_free(&embed);
    sonde_hooks_free(&pattern);
    sonde_model_close(m);
}

static void memory_beyond_the_limit_is_refused_with_both_numbers_and_more_goes_on(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama", NULL);
    sonde_corpus *c = make_corpus(lengths, N_DOCS, 40, false, m->arch.n_vocab);
    sonde_hook_list hooks;
    hook_list(m, everything, &hooks);
    sonde_budget budget = {.limit = 100000};
    sonde_work work = {.budget = &budget};
    sonde_capture_options o = {.hooks = &hooks, .max_seqs = 5};
    size_t need = 0;
    bool enough = false;
    for (; !enough; budget.limit += 500000) {
        sonde_err err = {0};
        sonde_capture_result r;
        unlink(file);
        enum sonde_code code = sonde_capture(m, c, NULL, &o, &work, file, &r, &err);
        free(r.saturated);
        enough = code == SONDE_OK;
        assert_int_equal(atomic_load(&budget.taken), 0);
        if (enough)
            break;
        if (code != SONDE_E_MEMORY || !strstr(err.msg, "needs ") || !strstr(err.msg, "the memory limit is "))
            fail_msg("code %d: %s", code, err.msg);
        o.resume = is_there(
            ".part"); /* what only a pass can ask for comes after the first byte: then rows are kept */
        assert_in_range(budget.limit, 0, 100000000);
        need = budget.limit;
    }
    assert_in_range(need, 500000, 50000000);
    drop_corpus(c);
    sonde_hooks_free(&hooks);
    sonde_model_close(m);
}

/* ---- numbers that do not fit ------------------------------------------------------------------- */

/* The llama model with one weight changed, in a directory of its own. */
static sonde_model *changed_model(const char *tensor, size_t element, float value)
{
    char from[512], to[128];
    sonde_err err = {0};
    sonde_tensors *t;
    snprintf(from, sizeof from, "%s/tests/golden/models/llama/model.safetensors", SONDE_SOURCE_DIR);
    must(sonde_safetensors_open(from, NULL, &t, &err), &err);
    sonde_tensor *list = calloc(t->n_tensors, sizeof *list);
    float *copy = NULL;
    for (size_t i = 0; i < t->n_tensors; i++) {
        list[i] = t->tensor[i];
        if (strcmp(list[i].name, tensor))
            continue;
        copy = malloc(list[i].n_bytes);
        memcpy(copy, list[i].data, list[i].n_bytes);
        if (element == SIZE_MAX) {
            for (size_t k = 0; k < list[i].n_bytes / 4; k++)
                copy[k] *= value;
        } else {
            copy[element] = value;
        }
        list[i].data = copy;
    }
    assert_non_null(copy);
    snprintf(to, sizeof to, "%s/model.safetensors", dir);
    must(sonde_safetensors_write(to, list, t->n_tensors, NULL, 0, true, &err), &err);
    snprintf(from, sizeof from, "cp %s/tests/golden/models/llama/config.json %s/", SONDE_SOURCE_DIR, dir);
    assert_int_equal(system(from), 0);
    free(list);
    free(copy);
    sonde_tensors_close(t);
    sonde_model *m;
    must(sonde_model_open(dir, NULL, NULL, &m, &err), &err);
    return m;
}

/* Only tokens with id 7 have a NaN, and in a context with one the softmax hands it to all: 0 * NaN is NaN. */
static void nan_is_refused_naming_hook_document_and_position(void **state)
{
    (void)state;
    sonde_model *m = changed_model("model.embed_tokens.weight", 7 * 28 + 3, NAN);
    sonde_corpus *c = make_corpus(lengths, N_DOCS, 16, false, m->arch.n_vocab);
    for (uint64_t i = 0; i < c->n_tokens; i++)
        c->id[i] = i == 30 ? 7 : 5 + c->id[i] % 2;
    assert_true(c->doc[30] == 3 && c->seq_start[3] == 21);
    sonde_hook_list embed, post, scores, none = {0};
    hook_list(m, (const char *const[]){"hook_embed", NULL}, &embed);
    hook_list(m, (const char *const[]){"resid_post1", NULL}, &post);
    hook_list(m, (const char *const[]){"attn_scores0", NULL}, &scores);
    static const char where[] = " holds NaN at document 3, position 9 of context 3, element ";
    char words[120];
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        sonde_capture_options o = {.hooks = &embed, .shuffle = shuffle, .batch_tokens = 1};
        snprintf(words, sizeof words, "hook_embed%s3", where);
        refused(m, c, &o, SONDE_E_NUMERIC, words);
        o.hooks = &post;
        refused(m, c, &o, SONDE_E_NUMERIC, "blocks.1.hook_resid_post holds NaN at document 3, position ");
        o.hooks = &none;
        o.loss = true;
        refused(m, c, &o, SONDE_E_NUMERIC, "the loss holds NaN at document 3, position ");
        o.loss = false;
        o.n_logits = 3;
        refused(m, c, &o, SONDE_E_NUMERIC, "the log-probability holds NaN at document 3, position ");
        o.n_logits = 0;
        o.hooks = &scores;
        o.max_seqs = 100;
        snprintf(words, sizeof words, "blocks.0.attn.hook_attn_scores%s", where);
        refused(m, c, &o, SONDE_E_NUMERIC, words);
    }
    drop_corpus(c);
    sonde_hooks_free(&embed);
    sonde_hooks_free(&post);
    sonde_hooks_free(&scores);
    sonde_model_close(m);
}

static void values_beyond_a_half_are_saturated_counted_and_noted_in_the_file(void **state)
{
    (void)state;
    sonde_model *m = changed_model("model.embed_tokens.weight", SIZE_MAX, 1e7f);
    sonde_corpus *c = make_corpus(lengths, N_DOCS, 16, false, m->arch.n_vocab);
    sonde_hook_list hooks;
    hook_list(m, (const char *const[]){"hook_embed", "blocks.0.ln1.hook_normalized", NULL}, &hooks);
    sonde_capture_options o = {.hooks = &hooks, .dtype = SONDE_F16, .overwrite = true};
    sonde_capture_result r = capture(m, c, NULL, &o, 2);
    struct truth *t = find_truth(m, c, &hooks.hook[0]);
    uint64_t n_beyond = 0;
    for (uint64_t i = 0; i < c->n_tokens * t->width; i++)
        n_beyond += isinf(sonde_f16_to_f32(sonde_f32_to_f16(t->value[i]))) != 0;
    assert_in_range(n_beyond, 100, c->n_tokens * t->width);
    assert_int_equal(r.saturated[0], n_beyond);
    assert_int_equal(r.saturated[1], 0);
    sonde_store *s = open_store();
    const sonde_store_attr *a = sonde_store_attr_find(s, "/acts/hook_embed", "saturated");
    assert_true(a && a->i == (int64_t)n_beyond);
    uint64_t n_rows;
    int64_t *token = check_rows(s, c, 0, false, &n_rows);
    check_acts(s, m, hooks.hook[0], t, SONDE_F16, token, n_rows);
    check_stats(s, hooks.hook[0], t, token, n_rows); /* of what was there before rounding */
    free(token);
    free(r.saturated);
    sonde_store_close(s);
    drop_truth(t);
    drop_corpus(c);
    sonde_hooks_free(&hooks);
    sonde_model_close(m);
}

/* ---- the vocabulary ---------------------------------------------------------------------------- */

static void the_vocabulary_lies_beside_the_rows(void **state)
{
    (void)state;
    struct fixture *x = fixture_new();
    sonde_model *m = open_model("llama", NULL);
    m->arch.n_vocab =
        300; /* more ids than the tokenizer knows: the rest has no bytes. Only embeddings below 61 are read */
    sonde_corpus *c = make_corpus(lengths, N_DOCS, 16, false, 61);
    sonde_hook_list hooks;
    hook_list(m, (const char *const[]){"hook_embed", NULL}, &hooks);
    sonde_capture_options o = {.hooks = &hooks, .overwrite = true};
    sonde_capture_result r = capture(m, c, x->tokenizer, &o, 1);
    sonde_store *s = open_store();
    int64_t *offset = read_all(s, "/vocab/offset", SONDE_I64, 1, DIM(301));
    unsigned char *bytes = read_all(s, "/vocab/bytes", SONDE_U8, 1, DIM((uint64_t)offset[300]));
    for (int32_t id = 0; id < 300; id++) {
        size_t n = 0;
        const char *want = id < N_FIXTURE ? sonde_tokenizer_bytes(x->tokenizer, id, &n) : "";
        assert_int_equal(offset[id + 1] - offset[id], n);
        assert_true(!n || !memcmp(bytes + offset[id], want, n));
    }
    assert_int_equal(offset[LETTER_A + 1] - offset[LETTER_A], 1);
    free(offset);
    free(bytes);
    free(r.saturated);
    sonde_store_close(s);
    sonde_hooks_free(&hooks);
    drop_corpus(c);
    m->arch.n_vocab = 61;
    sonde_model_close(m);
    fixture_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_batches_journals_kernels_and_repetition_change_no_byte),
        cmocka_unit_test(impossible_captures_are_refused_before_anything_is_written),
        cmocka_unit_test(memory_beyond_the_limit_is_refused_with_both_numbers_and_more_goes_on),
        cmocka_unit_test(nan_is_refused_naming_hook_document_and_position),
        cmocka_unit_test(values_beyond_a_half_are_saturated_counted_and_noted_in_the_file),
        cmocka_unit_test(the_vocabulary_lies_beside_the_rows),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
