/* SPDX-License-Identifier: MIT
 * What comes out of each family's config.json (tests/golden/models), old spellings and new. */
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
#include "model/model.h"

#define GOLDEN SONDE_SOURCE_DIR "/tests/golden/models/"

/* ---- golden configs ---------------------------------------------------------------------------- */

static void read_arch(const char *name, sonde_arch *a, sonde_arena **arena)
{
    char dir[600];
    sonde_err err = {0};
    snprintf(dir, sizeof dir, GOLDEN "%s", name);
    *arena = sonde_arena_new(NULL, &err);
    assert_non_null(*arena);
    if (sonde_model_config(dir, a, *arena, &err))
        fail_msg("%s: %s", name, err.msg);
    check_arch(a);
}

struct expected {
    const char *name, *family;
    size_t n_layers, d_model, n_heads, n_kv_heads, d_head, d_mlp, n_vocab, n_vocab_out, n_ctx;
    int norm;
    double eps, embed_scale, attn_scale;
    int positions;
    size_t rope_dim;
    double theta[2]; /* of an unscaled table; 0: not compared */
    int act;
    size_t window;
    const char *local; /* one letter for each layer, l or g */
};

enum { LN = SONDE_NORM_LAYER, RMS = SONDE_NORM_RMS, LEARNED = SONDE_POS_LEARNED, ROPE = SONDE_POS_ROPE };
enum { ERF = SONDE_ACT_GELU_ERF, TANH = SONDE_ACT_GELU_TANH, SILU = SONDE_ACT_SILU, RELU = SONDE_ACT_RELU };

/* clang-format off */
static const struct expected table[] = {
    {"gpt2", "gpt2", 3, 28, 4, 4, 7, 38, 83, 83, 29, LN, 1e-5, 1, 0.37796447, LEARNED, 0, {0}, TANH, 0, "ggg"},
    {"gpt2_inverse_layer", "gpt2", 3, 24, 2, 2, 12, 40, 61, 61, 31, LN, 1e-5, 1, 0.28867513, LEARNED, 0, {0}, TANH, 0, "ggg"},
    {"gpt_neo", "gpt_neo", 4, 28, 4, 4, 7, 44, 67, 67, 33, LN, 1e-5, 1, 1, LEARNED, 0, {0}, TANH, 5, "glgl"},
    {"gpt_neox", "gpt_neox", 3, 32, 2, 2, 16, 52, 89, 89, 40, LN, 1e-5, 1, 0.25, ROPE, 4, {1e4, 1e4}, ERF, 0, "ggg"},
    {"gpt_neox_serial", "gpt_neox", 2, 36, 3, 3, 12, 40, 61, 61, 40, LN, 1e-5, 1, 0.28867513, ROPE, 6, {250, 250}, ERF, 0, "gg"},
    {"llama", "llama", 3, 28, 4, 2, 10, 44, 61, 61, 64, RMS, 1e-5, 1, 0.31622777, ROPE, 10, {1e4, 1e4}, SILU, 0, "ggg"},
    {"llama3", "llama", 2, 24, 3, 1, 8, 36, 73, 73, 256, RMS, 1e-5, 1, 0.35355339, ROPE, 8, {0}, SILU, 0, "gg"},
    {"llama_linear_rope", "llama", 2, 24, 2, 1, 14, 30, 61, 61, 64, RMS, 1e-6, 1, 0.26726124, ROPE, 14, {0}, SILU, 0, "gg"},
    {"mistral", "mistral", 3, 24, 4, 2, 10, 34, 61, 61, 64, RMS, 1e-6, 1, 0.31622777, ROPE, 10, {1e4, 1e4}, SILU, 5, "lll"},
    {"qwen2", "qwen2", 2, 24, 4, 2, 6, 38, 79, 79, 64, RMS, 1e-6, 1, 0.40824829, ROPE, 6, {1e6, 1e6}, SILU, 0, "gg"},
    {"qwen2_window", "qwen2", 3, 24, 2, 1, 12, 30, 61, 61, 64, RMS, 1e-6, 1, 0.28867513, ROPE, 12, {1e6, 1e6}, SILU, 4, "gll"},
    {"qwen3", "qwen3", 3, 24, 4, 2, 10, 34, 67, 67, 64, RMS, 1e-6, 1, 0.31622777, ROPE, 10, {1e6, 1e6}, SILU, 0, "ggg"},
    {"gemma", "gemma", 2, 24, 4, 1, 10, 42, 71, 71, 64, RMS, 1e-6, 4.8989795, 0.31622777, ROPE, 10, {1e4, 1e4}, TANH, 0, "gg"},
    {"gemma2", "gemma2", 3, 28, 4, 2, 10, 36, 79, 79, 64, RMS, 1e-6, 5.2915026, 0.37796447, ROPE, 10, {1e4, 1e4}, TANH, 5, "lgl"},
    {"gemma3", "gemma3_text", 4, 20, 4, 2, 8, 30, 73, 73, 64, RMS, 1e-6, 4.4721360, 0.37796447, ROPE, 8, {0, 1e4}, TANH, 5, "llgl"},
    {"gemma3_multimodal", "gemma3", 4, 20, 4, 2, 8, 30, 73, 73, 64, RMS, 1e-6, 4.4721360, 0.37796447, ROPE, 8, {0, 1e4}, TANH, 5, "llgl"},
    {"tl_attn_only", "transformer_lens", 2, 36, 4, 4, 9, 0, 67, 67, 23, LN, 1e-5, 1, 0.33333333, LEARNED, 0, {0}, SONDE_ACT_NONE, 0, "gg"},
    {"tl_bidirectional", "transformer_lens", 3, 26, 2, 2, 10, 33, 11, 3, 16, LN, 1e-5, 1, 0.31622777, LEARNED, 0, {0}, RELU, 0, "ggg"},
    {"tl_gelu", "transformer_lens", 2, 26, 2, 2, 13, 42, 63, 63, 19, LN, 1e-5, 1, 0.27735010, LEARNED, 0, {0}, ERF, 0, "gg"},
    {"tl_pre", "transformer_lens", 2, 24, 2, 2, 11, 30, 61, 61, 19, LN, 1e-5, 1, 0.30151134, LEARNED, 0, {0}, RELU, 0, "gg"},
    {"tl_shortformer", "transformer_lens", 2, 30, 3, 3, 8, 0, 61, 61, 21, SONDE_NORM_NONE, 1e-5, 1, 0.35355339, SONDE_POS_SHORTFORMER, 0, {0}, SONDE_ACT_NONE, 0, "gg"},
    {"tl_solu", "transformer_lens", 2, 28, 4, 4, 7, 38, 61, 61, 19, LN, 1e-5, 1, 0.37796447, LEARNED, 0, {0}, SONDE_ACT_NONE, 0, "gg"},
};
/* clang-format on */

static void assert_near(const char *name, const char *what, double have, double want)
{
    if (!(fabs(have - want) <= 1e-6 * fabs(want)))
        fail_msg("%s: %s is %.9g, should be %.9g", name, what, have, want);
}

static void assert_size(const char *name, const char *what, size_t have, size_t want)
{
    if (have != want)
        fail_msg("%s: %s is %zu, should be %zu", name, what, have, want);
}

static void sizes_are_those_of(const struct expected *e, const sonde_arch *a)
{
    assert_string_equal(a->family, e->family);
    assert_size(e->name, "n_layers", a->n_layers, e->n_layers);
    assert_size(e->name, "d_model", a->d_model, e->d_model);
    assert_size(e->name, "n_heads", a->n_heads, e->n_heads);
    assert_size(e->name, "n_kv_heads", a->n_kv_heads, e->n_kv_heads);
    assert_size(e->name, "d_head", a->d_head, e->d_head);
    assert_size(e->name, "d_mlp", a->d_mlp, e->d_mlp);
    assert_size(e->name, "n_vocab", a->n_vocab, e->n_vocab);
    assert_size(e->name, "n_vocab_out", a->n_vocab_out, e->n_vocab_out);
    assert_size(e->name, "n_ctx", a->n_ctx, e->n_ctx);
    assert_size(e->name, "norm", a->norm, (size_t)e->norm);
    assert_size(e->name, "positions", a->positions, (size_t)e->positions);
    assert_size(e->name, "rope_dim", a->rope_dim, e->rope_dim);
    assert_size(e->name, "act", a->act, (size_t)e->act);
    assert_size(e->name, "window", a->window, e->window);
    for (size_t l = 0; l < a->n_layers; l++)
        assert_size(e->name, "layer_local", a->layer_local[l], e->local[l] == 'l');
}

static void golden_configs_give_their_arch(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct expected *e = &table[i];
        sonde_arena *arena;
        sonde_arch a;
        read_arch(e->name, &a, &arena);
        sizes_are_those_of(e, &a);
        assert_near(e->name, "eps", (double)a.eps, e->eps);
        assert_near(e->name, "embed_scale", (double)a.embed_scale, e->embed_scale);
        assert_near(e->name, "attn_scale", (double)a.attn_scale, e->attn_scale);
        for (int t = 0; t < 2; t++)
            for (size_t k = 0; e->theta[t] > 0 && k < a.rope_dim / 2; k++)
                assert_near(e->name, "inv_freq", (double)a.inv_freq[t][k],
                            pow(e->theta[t], -2.0 * (double)k / (double)a.rope_dim));
        sonde_arena_free(arena);
    }
}

static void flags_of_each_family(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool tied, parallel, gated, qk_norm, post_norms, plus_one, affine, bidirectional, by_layer, solu_ln;
    } flags[] = {
        {"gpt2", true, false, false, false, false, false, true, false, false, false},
        {"gpt2_untied", false, false, false, false, false, false, true, false, false, false},
        {"gpt2_inverse_layer", true, false, false, false, false, false, true, false, true, false},
        {"gpt_neo", true, false, false, false, false, false, true, false, false, false},
        {"gpt_neox", false, true, false, false, false, false, true, false, false, false},
        {"gpt_neox_serial", false, false, false, false, false, false, true, false, false, false},
        {"llama", false, false, true, false, false, false, true, false, false, false},
        {"llama3", true, false, true, false, false, false, true, false, false, false},
        {"mistral", false, false, true, false, false, false, true, false, false, false},
        {"qwen2", true, false, true, false, false, false, true, false, false, false},
        {"qwen3", true, false, true, true, false, false, true, false, false, false},
        {"gemma", true, false, true, false, false, true, true, false, false, false},
        {"gemma2", true, false, true, false, true, true, true, false, false, false},
        {"gemma3", true, false, true, true, true, true, true, false, false, false},
        {"tl_bidirectional", false, false, false, false, false, false, true, true, false, false},
        {"tl_pre", false, false, false, false, false, false, false, false, false, false},
        {"tl_solu", false, false, false, false, false, false, true, false, false, true},
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        sonde_arena *arena;
        sonde_arch a;
        read_arch(flags[i].name, &a, &arena);
        const bool have[] = {a.tied,        a.parallel,      a.gated,
                             a.qk_norm,     a.post_norms,    a.norm_plus_one,
                             a.norm_affine, a.bidirectional, a.attn_scale_by_layer,
                             a.solu_ln};
        if (memcmp(have, &flags[i].tied, sizeof have))
            fail_msg("%s: its flags are not as promised", flags[i].name);
        sonde_arena_free(arena);
    }
}

static void caps_and_final_norms(void **state)
{
    (void)state;
    sonde_arena *arena;
    sonde_arch a;
    read_arch("gemma2", &a, &arena);
    assert_near("gemma2", "attn_softcap", (double)a.attn_softcap, 3);
    assert_near("gemma2", "final_softcap", (double)a.final_softcap, 5);
    sonde_arena_free(arena);
    read_arch("gemma3", &a, &arena); /* null: off */
    assert_true(a.attn_softcap == 0 && a.final_softcap == 0);
    sonde_arena_free(arena);
    read_arch("tl_gelu", &a, &arena);
    assert_true(a.norm == SONDE_NORM_LAYER && a.final_norm == SONDE_NORM_RMS);
    sonde_arena_free(arena);
    read_arch("tl_shortformer", &a, &arena);
    assert_true(a.norm == SONDE_NORM_NONE && a.final_norm == SONDE_NORM_NONE);
    sonde_arena_free(arena);
}

/* ---- old and new spellings --------------------------------------------------------------------- */

static void old_and_new_spellings_are_equal(void **state)
{
    static const char *const pairs[][2] = {
        {"gpt2", "gpt2_oldconfig"},         {"gpt_neo", "gpt_neo_oldconfig"},
        {"gpt_neox", "gpt_neox_oldconfig"}, {"gpt_neox_serial", "gpt_neox_serial_oldconfig"},
        {"llama", "llama_oldconfig"},       {"llama3", "llama3_oldconfig"},
        {"mistral", "mistral_oldconfig"},   {"llama_linear_rope", "llama_linear_rope_oldconfig"},
        {"gemma", "gemma_oldconfig"},       {"qwen2_window", "qwen2_window_oldconfig"},
        {"gemma2", "gemma2_oldconfig"},     {"gemma3", "gemma3_oldconfig"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        sonde_arena *arena[2];
        sonde_arch a, b;
        read_arch(pairs[i][0], &a, &arena[0]);
        read_arch(pairs[i][1], &b, &arena[1]);
        for (int t = 0; t < 2; t++) {
            if (a.positions == SONDE_POS_ROPE)
                assert_memory_equal(a.inv_freq[t], b.inv_freq[t], a.rope_dim / 2 * sizeof(float));
            a.inv_freq[t] = b.inv_freq[t] = NULL;
        }
        if (memcmp(&a, &b, sizeof a))
            fail_msg("%s and %s differ", pairs[i][0], pairs[i][1]);
        sonde_arena_free(arena[0]);
        sonde_arena_free(arena[1]);
    }
}

/* ---- single keys ------------------------------------------------------------------------------- */

static void arch_of(const char *text, sonde_arch *a)
{
    char buf[1024];
    sonde_budget budget = {.limit = 64u << 20};
    sonde_err err;
    size_t n = strlen(text);
    for (size_t i = 0; i <= n; i++)
        buf[i] = text[i] == '\'' ? '"' : text[i];
    if (check_config(buf, n, &budget, a, &err))
        fail_msg("%s: %s", text, err.msg);
}

#define LLAMA                                                                                                \
    "'hidden_size':8,'num_attention_heads':4,'num_hidden_layers':7,'max_position_embeddings':16,"            \
    "'vocab_size':7,'intermediate_size':6"

static void absent_keys_have_the_family_s_defaults(void **state)
{
    (void)state;
    sonde_arch a;
    arch_of("{'model_type':'gpt2','n_embd':8,'n_head':2,'n_layer':1,'n_ctx':16,'vocab_size':7}", &a);
    assert_size("gpt2", "d_mlp", a.d_mlp, 32);
    assert_near("gpt2", "eps", (double)a.eps, 1e-5);
    assert_true(a.tied && a.act == SONDE_ACT_GELU_TANH);
    arch_of("{'model_type':'llama'," LLAMA "}", &a);
    assert_true(a.n_kv_heads == 4 && a.d_head == 2 && !a.tied);
    assert_near("llama", "eps", (double)a.eps, 1e-6);
    arch_of("{'model_type':'gemma2'," LLAMA "}", &a);
    assert_near("gemma2", "attn_softcap", (double)a.attn_softcap, 50);
    assert_near("gemma2", "final_softcap", (double)a.final_softcap, 30);
    assert_near("gemma2", "attn_scale", (double)a.attn_scale, 1.0 / 16);
    assert_true(a.window == 4096 && a.layer_local[0] && !a.layer_local[1] && a.layer_local[6]);
    arch_of("{'model_type':'gemma3_text'," LLAMA "}", &a);
    assert_true(a.layer_local[4] && !a.layer_local[5] && a.layer_local[6] && a.final_softcap == 0);
    arch_of("{'model_type':'mistral'," LLAMA "}", &a);
    assert_true(a.window == 0 && !a.layer_local[0]);
}

static void a_rotary_part_of_0_rotates_nothing(void **state)
{
    (void)state;
    sonde_arch a;
    arch_of("{'model_type':'gpt_neox'," LLAMA ",'rotary_pct':0}", &a);
    assert_int_equal(a.positions, SONDE_POS_NONE);
    arch_of("{'model_type':'gpt_neox'," LLAMA ",'rotary_pct':1}", &a);
    assert_int_equal(a.positions, SONDE_POS_ROPE);
    assert_size("gpt_neox", "rope_dim", a.rope_dim, 2);
}

/* Frequencies of Llama-3.2-1B, as Hugging Face computes them. */
static void llama3_scaling_gives_the_published_frequencies(void **state)
{
    (void)state;
    static const struct {
        size_t i;
        double f;
    } golden[] = {{0, 1},
                  {1, 6.636012377e-01},
                  {14, 3.211445995e-03},
                  {15, 1.290547928e-03},
                  {16, 4.295567966e-04},
                  {17, 9.708287803e-05},
                  {31, 9.418306725e-08}};
    const struct rope_scaling s = {ROPE_LLAMA3, 32, 1, 4, 8192};
    sonde_arena *arena = sonde_arena_new(NULL, NULL);
    float *f = rope_frequencies(64, 5e5, &s, arena, NULL);
    assert_non_null(f);
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++)
        assert_near("Llama-3.2-1B", "inv_freq", (double)f[golden[i].i], golden[i].f);
    sonde_arena_free(arena);
}

static void a_directory_without_config_is_an_io_error(void **state)
{
    (void)state;
    sonde_arena *arena = sonde_arena_new(NULL, NULL);
    sonde_err err = {0};
    sonde_arch a;
    assert_int_equal(sonde_model_config(SONDE_SOURCE_DIR "/lib/model", &a, arena, &err), SONDE_E_IO);
    assert_non_null(strstr(err.msg, "config.json"));
    sonde_arena_free(arena);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_configs_give_their_arch),
        cmocka_unit_test(flags_of_each_family),
        cmocka_unit_test(caps_and_final_norms),
        cmocka_unit_test(old_and_new_spellings_are_equal),
        cmocka_unit_test(absent_keys_have_the_family_s_defaults),
        cmocka_unit_test(a_rotary_part_of_0_rotates_nothing),
        cmocka_unit_test(llama3_scaling_gives_the_published_frequencies),
        cmocka_unit_test(a_directory_without_config_is_an_io_error),
    };
    return cmocka_run_group_tests_name("model_config", tests, NULL, NULL);
}
