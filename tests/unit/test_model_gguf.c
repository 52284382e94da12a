/* SPDX-License-Identifier: MIT
 * Models in GGUF whose metadata do not fit: one line, no wrong numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../fault/arch_check.h"
#include "file/gguf.h"
#include "model/run.h"
#include "model/weights_impl.h"

#define GOLDEN SONDE_SOURCE_DIR "/tests/golden/models/"
#define LIMIT  ((size_t)64 << 20)

static unsigned char *whole;
static size_t n_whole;

static void read_golden(const char *name)
{
    char path[600];
    snprintf(path, sizeof path, GOLDEN "%s/model.gguf", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    whole = realloc(whole, 1 << 20);
    n_whole = fread(whole, 1, 1 << 20, f);
    fclose(f);
    assert_true(n_whole > 1000);
}

static enum sonde_code add(void *arg, size_t sequence, size_t first, size_t n, float *logits, sonde_err *err)
{
    (void)sequence, (void)first, (void)n, (void)err;
    *(double *)arg += (double)logits[0];
    return SONDE_OK;
}

static void run_two_tokens(const sonde_model *m, sonde_budget *budget)
{
    const size_t n = m->arch.n_ctx < 2 ? 1 : 2, start[2] = {0, n};
    const int32_t ids[2] = {0, (int32_t)(m->arch.n_vocab - 1)};
    sonde_run *run;
    sonde_err err;
    double sum = 0;
    if (sonde_run_new(m, n, n, NULL, budget, &run, &err))
        fail_msg("%s", err.msg);
    sonde_run_want_logits(run, add, &sum, false);
    assert_int_equal(sonde_run_forward(run, ids, start, 1, NULL, &err), SONDE_OK);
    sonde_run_free(run);
}

/* As sonde_model_open does it with a file, from memory; *arch is what came out. */
static enum sonde_code open_bytes(const void *data, size_t n, sonde_arch *arch, sonde_err *err)
{
    sonde_budget budget = {.limit = LIMIT};
    const sonde_work work = {.budget = &budget};
    sonde_arena *arena = sonde_arena_new(&budget, err);
    sonde_model *m = sonde_arena_get(arena, 1, sizeof *m, err);
    struct source source = {0};
    json_t *config = NULL;
    assert_non_null(m);
    *m = (sonde_model){.arena = arena, .kernels = sonde_kernels_best(), .path = "memory", .source = &source};
    enum sonde_code rc = sonde_gguf_parse(check_map(data, n), &budget, &m->file, err);
    if (!rc && !(rc = family_configure_gguf(m->file, "memory", &m->arch, &source, arena, &config, err))) {
        check_arch(&m->arch);
        if (!(rc = weights_load(m, &work, false, err)) && !(rc = weights_load_unembed(m, &work, false, err)))
            run_two_tokens(m, &budget);
    }
    if (rc)
        check_refusal(rc, err);
    if (arch)
        *arch = m->arch;
    json_decref(config);
    sonde_tensors_close(m->file);
    sonde_arena_free(arena);
    assert_int_equal(budget.taken, 0);
    return rc;
}

/* The value behind a key: its type, then its bytes. */
static unsigned char *value_of(const char *key)
{
    size_t n = strlen(key);
    for (size_t i = 8; i + n + 12 <= n_whole; i++) {
        uint64_t length;
        memcpy(&length, whole + i - 8, 8);
        if (length == n && !memcmp(whole + i, key, n))
            return whole + i + n + 4;
    }
    fail_msg("no key %s", key);
    return NULL;
}

static void is_refused(const char *says)
{
    sonde_err err = {0};
    enum sonde_code rc = open_bytes(whole, n_whole, NULL, &err);
    if (rc != SONDE_E_INPUT || !strstr(err.msg, says))
        fail_msg("code %d, message '%s' should say '%s'", (int)rc, err.msg, says);
}

/* ---- metadata ---------------------------------------- */

static void put_u32(const char *key, uint32_t v)
{
    memcpy(value_of(key), &v, 4);
}

static void put_f32(const char *key, float v)
{
    memcpy(value_of(key), &v, 4);
}

static void metadata_that_do_not_fit_are_refused_by_key(void **state)
{
    static const struct {
        const char *key;
        double value;
        const char *says;
    } rows[] = {
        {"llama.attention.head_count", 0, "'num_attention_heads' is 0"},
        {"llama.attention.head_count", 5, "this config needs [40, 24]"},
        {"llama.attention.head_count_kv", 2, "2 key-value heads do not divide 3 heads"},
        {"llama.block_count", 4e9, "'num_hidden_layers' is 4000000000"},
        {"llama.block_count", 3, "tensor 'blk.2.attn_norm.weight' is missing"},
        {"llama.embedding_length", 25, "this config needs"},
        {"llama.feed_forward_length", 37, "this config needs"},
        {"llama.context_length", 0, "'max_position_embeddings' is 0"},
        {"llama.attention.key_length", 6, "rope.dimension_count is 8, the family 'llama' rotates 6 of 6"},
        {"llama.rope.dimension_count", 4, "rope.dimension_count is 4, the family 'llama' rotates 8 of 8"},
        {"llama.rope.freq_base", 0, "'rope_theta' is 0"},
        {"llama.rope.freq_base", -1, "'rope_theta' is -1"},
        {"llama.rope.freq_base", NAN, "llama.rope.freq_base is not a finite number"},
        {"llama.rope.freq_base", INFINITY, "llama.rope.freq_base is not a finite number"},
        {"llama.attention.layer_norm_rms_epsilon", NAN, "layer_norm_rms_epsilon is not a finite number"},
        {"llama.attention.layer_norm_rms_epsilon", -1, "'rms_norm_eps' is -1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        read_golden("llama3_gguf");
        if (strstr(rows[i].key, "freq_base") || strstr(rows[i].key, "epsilon"))
            put_f32(rows[i].key, (float)rows[i].value);
        else
            put_u32(rows[i].key, (uint32_t)rows[i].value);
        is_refused(rows[i].says);
    }
}

static void a_number_of_another_kind_is_refused(void **state)
{
    (void)state;
    const uint32_t f32 = 6;
    read_golden("llama3_gguf");
    memcpy(value_of("llama.block_count") - 4, &f32, 4); /* 2 as the bits of a float: a fraction */
    is_refused("llama.block_count is not an integer");
    read_golden("llama3_gguf");
    put_f32("llama.block_count", 2); /* a float, even a whole one */
    memcpy(value_of("llama.block_count") - 4, &f32, 4);
    is_refused("llama.block_count is not an integer");
}

static void an_unknown_architecture_lists_the_known(void **state)
{
    (void)state;
    read_golden("gpt2_gguf");
    memcpy(value_of("general.architecture") + 8, "gptx", 4);
    is_refused("architecture 'gptx' is not known; these are: gpt2, gptneox, llama, qwen2, qwen3, gemma, "
               "gemma2, gemma3");
}

/* ---- frequency factors ---------------------------------------- */

static void frequencies_are_divided_by_nothing_but_positive_numbers(void **state)
{
    static const float wrong[] = {0, -8, 1e-40f};
    sonde_tensors *f = NULL;
    sonde_err err = {0};
    (void)state;
    read_golden("llama3_gguf");
    assert_int_equal(sonde_gguf_parse(check_map(whole, n_whole), NULL, &f, &err), SONDE_OK);
    const sonde_tensor *t = sonde_tensors_find(f, "rope_freqs.weight");
    assert_non_null(t);
    assert_int_equal(t->dtype, SONDE_F32);
    unsigned char *factor = whole + ((const unsigned char *)t->data - f->map[0]->data);
    sonde_tensors_close(f);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memcpy(factor, &wrong[i], 4);
        is_refused("rope_freqs.weight holds");
    }
    const float nan = NAN, most = INFINITY;
    memcpy(factor, &nan, 4);
    is_refused("rope_freqs.weight holds");
    memcpy(factor, &most, 4); /* a frequency of 0: the position is not seen */
    sonde_arch a;
    assert_int_equal(open_bytes(whole, n_whole, &a, &err), SONDE_OK);
}

/* ---- every damage ---------------------------------------- */

static void every_bit_flip_of_the_metadata_is_clean(void **state)
{
    static const char *const names[] = {"llama3_gguf", "gemma_gguf"};
    (void)state;
    for (size_t g = 0; g < 2; g++) {
        sonde_tensors *f = NULL;
        sonde_err err = {0};
        read_golden(names[g]);
        assert_int_equal(sonde_gguf_parse(check_map(whole, n_whole), NULL, &f, &err), SONDE_OK);
        size_t n_head = (size_t)((const unsigned char *)f->tensor[0].data - f->map[0]->data);
        for (size_t i = 0; i < f->n_tensors; i++) {
            size_t at = (size_t)((const unsigned char *)f->tensor[i].data - f->map[0]->data);
            n_head = at < n_head ? at : n_head;
        }
        sonde_tensors_close(f);
        for (size_t bit = 0; bit < 8 * n_head; bit++) {
            whole[bit / 8] ^= (unsigned char)(1u << bit % 8);
            open_bytes(whole, n_whole, NULL, &err);
            whole[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
        assert_int_equal(open_bytes(whole, n_whole, NULL, &err), SONDE_OK);
    }
}

static int free_whole(void **state)
{
    (void)state;
    free(whole);
    return 0;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_that_do_not_fit_are_refused_by_key),
        cmocka_unit_test(a_number_of_another_kind_is_refused),
        cmocka_unit_test(an_unknown_architecture_lists_the_known),
        cmocka_unit_test(frequencies_are_divided_by_nothing_but_positive_numbers),
        cmocka_unit_test(every_bit_flip_of_the_metadata_is_clean),
    };
    return cmocka_run_group_tests_name("model_gguf", tests, NULL, free_whole);
}
