/* SPDX-License-Identifier: MIT
 * Golden models with one thing wrong in their weights, and weights in every type. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "base/half.h"
#include "model_fixture.h"

static bool is_optional(const char *name)
{
    static const char *const parts[] = {"self_attn.q_proj.bias", "self_attn.k_proj.bias",
                                        "self_attn.v_proj.bias", "self_attn.o_proj.bias",
                                        "mlp.gate_proj.bias",    "mlp.up_proj.bias",
                                        "mlp.down_proj.bias",    "query_key_value.bias",
                                        "attention.dense.bias",  ".b_"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(name, parts[i]))
            return true;
    return false;
}

/* Opening must fail with this code, and its line must have both words. */
static void must_fail(const struct fixture *f, const sonde_model_options *o, enum sonde_code want,
                      const char *what, const char *word, const char *other)
{
    sonde_budget budget = {.limit = 64u << 20};
    sonde_model *m;
    sonde_err err;
    enum sonde_code code = fixture_open(f, o, &budget, &m, &err);
    if (code != want || !strstr(err.msg, word) || !strstr(err.msg, other))
        fail_msg("%s, %s: code %d, message '%s'", f->name, what, (int)code, err.msg);
    assert_int_equal(budget.taken, 0);
}

/* The shapes as they were; the values do not matter and become holes, which are quick to write. */
static void restore_empty(struct fixture *f)
{
    fixture_restore(f);
    for (size_t i = 0; i < f->n; i++)
        f->tensor[i].data = NULL;
}

static void for_all_tensors(void (*check)(struct fixture *f, size_t i))
{
    static const char *const models[] = {"gpt2",           "gpt_neo",    "gpt_neox", "llama_bias",
                                         "qwen3",          "gemma3",     "tl_solu",  "tl_attn_only",
                                         "tl_shortformer", "gpt2_untied"};
    for (size_t g = 0; g < sizeof models / sizeof *models; g++) {
        struct fixture f;
        fixture_load(&f, models[g]);
        for (size_t i = 0; i < f.file->n_tensors; i++) {
            restore_empty(&f);
            check(&f, i);
        }
        fixture_free(&f);
    }
}

/* ---- one tensor wrong ---------------------------------------- */

static void without(struct fixture *f, size_t i)
{
    const char *name = f->tensor[i].name;
    f->tensor[i] = f->tensor[--f->n];
    if (!is_optional(name)) {
        must_fail(f, NULL, SONDE_E_INPUT, "tensor missing", name, "is missing");
        return;
    }
    sonde_model_close(fixture_must_open(f, 0));
}

static void each_missing_tensor_is_named(void **state)
{
    (void)state;
    for_all_tensors(without);
}

/* A shape of the given dimensions without data. */
static void reshape(sonde_tensor *t, int rank, const uint64_t *dim)
{
    t->n_bytes = sonde_dtype_size(t->dtype);
    t->rank = rank;
    for (int k = 0; k < rank; k++) {
        t->dim[k] = dim[k];
        t->n_bytes *= (size_t)dim[k];
    }
    t->data = NULL;
}

static void with_shape(struct fixture *f, size_t i, int rank, const uint64_t *dim)
{
    sonde_tensor *t = &f->tensor[i];
    char have[64], words[128];
    reshape(t, rank, dim);
    snprintf(words, sizeof words, "has shape %s, this config needs [",
             sonde_shape_text(dim, rank, have, sizeof have));
    must_fail(f, NULL, SONDE_E_INPUT, "wrong shape", t->name, words);
    restore_empty(f);
}

static void with_wrong_dimensions(struct fixture *f, size_t i)
{
    const sonde_tensor t = f->tensor[i];
    for (int k = 0; k < t.rank; k++)
        for (int by = -1; by <= 1; by += 2) {
            uint64_t dim[SONDE_MAX_RANK];
            memcpy(dim, t.dim, sizeof dim);
            dim[k] = (uint64_t)((int64_t)dim[k] + by);
            with_shape(f, i, t.rank, dim);
        }
}

static void each_wrong_dimension_is_named_with_both_shapes(void **state)
{
    (void)state;
    for_all_tensors(with_wrong_dimensions);
}

static void with_wrong_rank(struct fixture *f, size_t i)
{
    const sonde_tensor t = f->tensor[i];
    uint64_t dim[SONDE_MAX_RANK] = {1};
    memcpy(dim, t.dim, (size_t)t.rank * sizeof *dim);
    dim[t.rank] = 1;
    with_shape(f, i, t.rank + 1, dim);
    dim[0] = 1;
    memcpy(dim + 1, t.dim, (size_t)t.rank * sizeof *dim);
    with_shape(f, i, t.rank + 1, dim);
    dim[0] = sonde_tensor_count(&t);
    if (t.rank > 1 && !strstr(t.name, ".b_")) /* biases of heads may be flat */
        with_shape(f, i, 1, dim);
}

static void each_wrong_rank_is_named_with_both_shapes(void **state)
{
    (void)state;
    for_all_tensors(with_wrong_rank);
}

static void transposed_weights_are_refused(void **state)
{
    (void)state;
    struct fixture f;
    fixture_load(&f, "gpt2");
    for (size_t i = 0; i < f.n; i++) {
        sonde_tensor *t = &f.tensor[i];
        if (t->rank != 2 || t->dim[0] == t->dim[1])
            continue;
        with_shape(&f, i, 2, (const uint64_t[]){t->dim[1], t->dim[0]});
    }
    fixture_free(&f);
}

static void with_wrong_type(struct fixture *f, size_t i)
{
    static const struct {
        const char *name;
        enum sonde_dtype type; /* of the same width */
    } types[] = {
        {"I32", SONDE_F32}, {"BOOL", SONDE_I8}, {"F8_E4M3", SONDE_I8}, {"I64", SONDE_F64}, {"U8", SONDE_I8}};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        sonde_tensor *t = &f->tensor[i];
        uint64_t dim[SONDE_MAX_RANK];
        char words[64];
        memcpy(dim, t->dim, sizeof dim);
        t->dtype = types[k].type;
        reshape(t, t->rank, dim);
        t->type_name = types[k].name;
        snprintf(words, sizeof words, "has type %s; weights are read from", types[k].name);
        must_fail(f, NULL, SONDE_E_INPUT, "wrong type", t->name, words);
        restore_empty(f);
    }
}

static void each_wrong_type_is_named(void **state)
{
    (void)state;
    for_all_tensors(with_wrong_type);
}

/* ---- NaN and infinity ---------------------------------------- */

static void with_nan(struct fixture *f, size_t i)
{
    static const sonde_model_options strict = {.strict_finite = true};
    sonde_tensor *t = &f->tensor[i];
    unsigned char *data = malloc(t->n_bytes);
    size_t size = sonde_dtype_size(t->dtype);
    const uint32_t bits = t->dtype == SONDE_F32 ? 0x7fc00000 : t->dtype == SONDE_BF16 ? 0x7f80 : 0xfc00;
    memcpy(data, f->file->tensor[i].data, t->n_bytes);
    memcpy(data + t->n_bytes - size, &bits, size);
    t->data = data;
    must_fail(f, &strict, SONDE_E_NUMERIC, "NaN", t->name, "holds NaN or infinity");
    sonde_model_close(fixture_must_open(f, 0));
    free(data);
}

static void strict_finite_names_each_tensor_with_nan(void **state)
{
    (void)state;
    for_all_tensors(with_nan);
}

static void strict_finite_takes_finite_weights(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_GOLDEN; g++) {
        struct fixture f;
        const sonde_model_options strict = {.strict_finite = true};
        sonde_model *m;
        sonde_err err;
        fixture_load(&f, golden_models[g]);
        if (fixture_open(&f, &strict, NULL, &m, &err))
            fail_msg("%s", err.msg);
        sonde_model *plain = fixture_must_open(&f, 0);
        float *a = plain_logits(m, 1), *b = plain_logits(plain, 1);
        assert_memory_equal(a, b, length_for(m) * m->arch.n_vocab_out * sizeof *a);
        free(a);
        free(b);
        sonde_model_close(m);
        sonde_model_close(plain);
        fixture_free(&f);
    }
}

/* ---- types, alignment ---------------------------------------- */

static void free_data(struct fixture *f)
{
    for (size_t i = 0; i < f->n; i++)
        free((void *)(uintptr_t)f->tensor[i].data);
}

/* Every tensor as type `to`, rounded; and what that is in float32. */
static void retype(struct fixture *f, enum sonde_dtype to, const char *type_name)
{
    for (size_t i = 0; i < f->n; i++) {
        sonde_tensor *t = &f->tensor[i];
        size_t n = sonde_tensor_count(t), size = sonde_dtype_size(to);
        float *x = malloc(n * sizeof *x);
        unsigned char *out = malloc(n * size);
        assert_int_equal(sonde_tensor_to_f32(t, 0, n, x, NULL), SONDE_OK);
        for (size_t k = 0; k < n; k++) {
            const uint16_t half = to == SONDE_F16 ? sonde_f32_to_f16(x[k]) : sonde_f32_to_bf16(x[k]);
            const double wide = (double)x[k];
            memcpy(out + k * size,
                   to == SONDE_F64   ? (const void *)&wide
                   : to == SONDE_F32 ? (const void *)&x[k]
                                     : &half,
                   size);
        }
        free(x);
        *t = (sonde_tensor){t->name, type_name, to, t->rank, {0}, out, n * size};
        memcpy(t->dim, f->file->tensor[i].dim, sizeof t->dim);
    }
}

static float *logits_here(const struct fixture *f, size_t *n_bytes)
{
    sonde_model *m = fixture_must_open(f, 0);
    float *x = plain_logits(m, 1);
    *n_bytes = length_for(m) * m->arch.n_vocab_out * sizeof *x;
    sonde_model_close(m);
    return x;
}

static void half_and_double_weights_give_the_bits_of_their_float32(void **state)
{
    static const struct {
        enum sonde_dtype type;
        const char *name;
    } types[] = {{SONDE_F16, "F16"}, {SONDE_BF16, "BF16"}, {SONDE_F64, "F64"}};
    (void)state;
    for (size_t g = 0; g < N_GOLDEN; g++)
        for (size_t k = 0; k < 3; k++) {
            struct fixture f, wide;
            size_t n;
            fixture_load(&f, golden_models[g]);
            fixture_load(&wide, golden_models[g]);
            retype(&f, types[k].type, types[k].name);
            memcpy(wide.tensor, f.tensor, sizeof f.tensor);
            retype(&wide, SONDE_F32, "F32");
            float *a = logits_here(&f, &n), *b = logits_here(&wide, &n);
            if (memcmp(a, b, n))
                fail_msg("%s as %s: logits differ from those of its float32", f.name, types[k].name);
            free(a);
            free(b);
            free_data(&f);
            free_data(&wide);
            fixture_free(&f);
            fixture_free(&wide);
        }
}

static void unaligned_data_give_the_same_bits(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_GOLDEN; g++) {
        struct fixture f;
        size_t n;
        fixture_load(&f, golden_models[g]);
        float *a = logits_here(&f, &n);
        for (f.pad = 1; f.pad < 4; f.pad++) {
            float *b = logits_here(&f, &n);
            if (memcmp(a, b, n))
                fail_msg("%s, %zu bytes off: logits differ", f.name, f.pad);
            free(b);
        }
        free(a);
        fixture_free(&f);
    }
}

/* ---- counts ---------------------------------------- */

static void every_parameter_is_counted_once(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_GOLDEN; g++) {
        struct fixture f;
        uint64_t n = 0;
        fixture_load(&f, golden_models[g]);
        sonde_model *m = fixture_must_open(&f, 0);
        for (size_t i = 0; i < f.n; i++)
            n += sonde_tensor_count(&f.tensor[i]);
        if (m->n_parameters != n || m->n_unused || m->first_unused)
            fail_msg("%s: %zu parameters of %zu, %zu tensors unused", f.name, (size_t)m->n_parameters,
                     (size_t)n, m->n_unused);
        sonde_model_close(m);
        fixture_free(&f);
    }
}

static void extra_tensors_are_counted_and_named(void **state)
{
    (void)state;
    struct fixture f;
    fixture_load(&f, "gpt2");
    sonde_tensor *more = f.tensor + f.n;
    static const char *const names[] = {"transformer.h.0.attn.bias", "adapter.weight",
                                        "transformer.h.3.ln_1.weight"};
    for (int i = 0; i < 3; i++) {
        more[i] = (sonde_tensor){.name = names[i], .type_name = "F8_E4M3", .dtype = SONDE_I8};
        reshape(&more[i], 2, (const uint64_t[]){2, 3});
    }
    f.n += 3;
    sonde_model *m = fixture_must_open(&f, 0);
    assert_int_equal(m->n_unused, 2); /* the mask buffer is none */
    assert_true(!strcmp(m->first_unused, names[1]) || !strcmp(m->first_unused, names[2]));
    sonde_model_close(m);
    fixture_free(&f);
}

/* ---- configs and files that do not belong together ---------------------------------------- */

static void a_config_with_the_tensors_of_another_family_is_refused(void **state)
{
    (void)state;
    for (size_t a = 0; a < N_GOLDEN; a++)
        for (size_t b = 0; b < N_GOLDEN; b++) {
            struct fixture f, other;
            if (a == b || !strncmp(golden_models[a], golden_models[b], 4)) /* gpt2_bf16 fits gpt2 */
                continue;
            fixture_load(&f, golden_models[a]);
            fixture_load(&other, golden_models[b]);
            f.n = other.n;
            memcpy(f.tensor, other.tensor, sizeof f.tensor);
            must_fail(&f, NULL, SONDE_E_INPUT, golden_models[b], f.dir, "tensor '");
            fixture_free(&f);
            fixture_free(&other);
        }
}

static void each_size_of_the_config_is_compared_with_the_tensors(void **state)
{
    static const char *const keys[] = {"n_embd", "n_inner", "vocab_size", "n_positions", "n_layer"};
    (void)state;
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        struct fixture f;
        fixture_load(&f, "gpt2");
        json_int_t v = json_integer_value(json_object_get(f.config, keys[k]));
        json_object_set_new(f.config, keys[k], json_integer(k == 0 ? 2 * v : v + 1));
        must_fail(&f, NULL, SONDE_E_INPUT, keys[k], "tensor '",
                  k == 4 ? "h.3.ln_1.weight' is missing" : "this config needs");
        fixture_free(&f);
    }
}

/* Sizes that only the config claims cost nothing: the file's shape is looked at first. */
static void claims_of_the_config_are_not_allocated(void **state)
{
    static const char *const keys[] = {"intermediate_size", "num_attention_heads", "vocab_size",
                                       "max_position_embeddings"};
    (void)state;
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        struct fixture f;
        sonde_budget budget = {.limit = 8u << 20};
        sonde_model *m;
        sonde_err err;
        fixture_load(&f, "llama");
        json_object_set_new(f.config, keys[k], json_integer(k == 1 ? 1 << 20 : 1 << 24));
        enum sonde_code code = fixture_open(&f, NULL, &budget, &m, &err);
        if (k == 3) { /* rotary: nothing in the file depends on it */
            assert_int_equal(code, SONDE_OK);
            sonde_model_close(m);
        } else if (code != SONDE_E_INPUT) {
            fail_msg("%s: code %d, message '%s'", keys[k], (int)code, err.msg);
        }
        assert_int_equal(budget.taken, 0);
        fixture_free(&f);
    }
}

/* ---- memory ---------------------------------------- */

static void every_limit_gives_a_model_or_one_line(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_GOLDEN; g++) {
        struct fixture f;
        bool opened = false;
        fixture_load(&f, golden_models[g]);
        for (size_t limit = 1; limit < (size_t)12 << 20; limit += 600000) {
            const sonde_model_options o = {.processing =
                                               f.name[0] == 'g' ? 0u : (unsigned)SONDE_FOLD_VALUE_BIASES};
            sonde_budget budget = {.limit = limit};
            sonde_model *m;
            sonde_err err;
            enum sonde_code code = fixture_open(&f, &o, &budget, &m, &err);
            if (code && (code != SONDE_E_MEMORY || opened || !strstr(err.msg, ", the memory limit is ")))
                fail_msg("%s, limit %zu: code %d, message '%s'", f.name, limit, (int)code, err.msg);
            assert_true(budget.taken <= limit);
            opened = !code;
            sonde_model_close(m);
            assert_int_equal(budget.taken, 0);
        }
        assert_true(opened);
        fixture_free(&f);
    }
}

/* 300 MB of weights, all there (as a hole in the file), under a limit of 64 MiB. */
static void a_large_model_says_how_much_it_needs(void **state)
{
    (void)state;
    struct fixture f;
    fixture_load(&f, "tl_attn_only");
    json_object_set_new(f.config, "n_layers", json_integer(1));
    json_object_set_new(f.config, "d_vocab", json_integer(1 << 20));
    json_object_set_new(f.config, "d_vocab_out", json_integer(1 << 20));
    size_t kept = 0;
    for (size_t i = 0; i < f.n; i++) {
        sonde_tensor t = f.tensor[i];
        if (strstr(t.name, "blocks.1.") || !strcmp(t.name, "unembed.b_U"))
            continue;
        for (int k = 0; k < t.rank; k++)
            t.dim[k] = t.dim[k] == 67 ? 1 << 20 : t.dim[k];
        t.n_bytes = sonde_tensor_count(&t) * sizeof(float);
        t.data = NULL;
        f.tensor[kept++] = t;
    }
    f.n = kept;
    sonde_budget budget = {.limit = 64u << 20};
    sonde_model *m;
    sonde_err err;
    assert_int_equal(fixture_open(&f, NULL, &budget, &m, &err), SONDE_E_MEMORY);
    unsigned long long need = 0;
    const char *words = strstr(err.msg, "needs ");
    assert_non_null(words);
    assert_int_equal(sscanf(words, "needs %llu bytes more, the memory limit is 67108864", &need), 1);
    assert_true(need >= 36ull * (1 << 20) * 4);
    assert_int_equal(budget.taken, 0);
    fixture_free(&f);
}

/* ---- the unembedding later ---------------------------------------- */

static void a_deferred_unembedding_gives_the_same_bits(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_GOLDEN; g++)
        for (unsigned processing = 0; processing <= SONDE_FOLD_LN; processing++) {
            struct fixture f;
            sonde_model *late;
            sonde_err err;
            fixture_load(&f, golden_models[g]);
            const sonde_model_options o = {.processing = processing, .defer_unembed = true};
            if (fixture_open(&f, &o, NULL, &late, &err))
                fail_msg("%s", err.msg);
            assert_null(late->unembed.data);
            assert_int_equal(sonde_model_load_unembed(late, NULL, &err), SONDE_OK);
            assert_int_equal(sonde_model_load_unembed(late, NULL, &err), SONDE_OK); /* nothing to do */
            sonde_model *m = fixture_must_open(&f, processing);
            assert_int_equal(m->n_parameters, late->n_parameters);
            float *a = plain_logits(m, 1), *b = plain_logits(late, 1);
            if (memcmp(a, b, length_for(m) * m->arch.n_vocab_out * sizeof *a))
                fail_msg("%s: logits differ", f.name);
            free(a);
            free(b);
            sonde_model_close(m);
            sonde_model_close(late);
            fixture_free(&f);
        }
}

static void an_unembedding_that_fails_can_be_asked_for_again(void **state)
{
    (void)state;
    struct fixture f;
    sonde_model *m;
    sonde_err err;
    float nan_at_end[89 * 32];
    fixture_load(&f, "gpt_neox");
    sonde_tensor *t = fixture_tensor(&f, "embed_out.weight");
    assert_int_equal(t->n_bytes, sizeof nan_at_end);
    memcpy(nan_at_end, t->data, t->n_bytes);
    nan_at_end[89 * 32 - 1] = NAN;
    t->data = nan_at_end;
    const sonde_model_options o = {.strict_finite = true, .defer_unembed = true};
    assert_int_equal(fixture_open(&f, &o, NULL, &m, &err), SONDE_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(sonde_model_load_unembed(m, NULL, &err), SONDE_E_NUMERIC);
    sonde_model_close(m);
    fixture_free(&f);
}

/* ---- llama2.c ---------------------------------------- */

static void llama2c_v0_and_v1_give_the_same_bits(void **state)
{
    (void)state;
    static const char *const files[] = {SONDE_SOURCE_DIR "/../shared/data/models/stories260K/stories260K.bin",
                                        SONDE_SOURCE_DIR
                                        "/../shared/data/models/stories260K/stories260K_v1.bin"};
    float *x[2];
    size_t n = 0;
    for (int i = 0; i < 2; i++) {
        sonde_model *m;
        sonde_err err = {0};
        if (access(files[i], R_OK) != 0) {
            print_message("%s is not there: skipped\n", files[i]);
            skip();
        }
        if (sonde_model_open(files[i], NULL, NULL, &m, &err))
            fail_msg("%s", err.msg);
        assert_int_equal(m->n_parameters, 260032);
        x[i] = plain_logits(m, 1);
        n = length_for(m) * m->arch.n_vocab_out;
        sonde_model_close(m);
    }
    assert_memory_equal(x[0], x[1], n * sizeof(float));
    free(x[0]);
    free(x[1]);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_missing_tensor_is_named),
        cmocka_unit_test(each_wrong_dimension_is_named_with_both_shapes),
        cmocka_unit_test(each_wrong_rank_is_named_with_both_shapes),
        cmocka_unit_test(transposed_weights_are_refused),
        cmocka_unit_test(each_wrong_type_is_named),
        cmocka_unit_test(strict_finite_names_each_tensor_with_nan),
        cmocka_unit_test(strict_finite_takes_finite_weights),
        cmocka_unit_test(half_and_double_weights_give_the_bits_of_their_float32),
        cmocka_unit_test(unaligned_data_give_the_same_bits),
        cmocka_unit_test(every_parameter_is_counted_once),
        cmocka_unit_test(extra_tensors_are_counted_and_named),
        cmocka_unit_test(a_config_with_the_tensors_of_another_family_is_refused),
        cmocka_unit_test(each_size_of_the_config_is_compared_with_the_tensors),
        cmocka_unit_test(claims_of_the_config_are_not_allocated),
        cmocka_unit_test(every_limit_gives_a_model_or_one_line),
        cmocka_unit_test(a_large_model_says_how_much_it_needs),
        cmocka_unit_test(a_deferred_unembedding_gives_the_same_bits),
        cmocka_unit_test(an_unembedding_that_fails_can_be_asked_for_again),
        cmocka_unit_test(llama2c_v0_and_v1_give_the_same_bits),
    };
    return cmocka_run_group_tests_name("model_weights", tests, NULL, NULL);
}
