/* SPDX-License-Identifier: MIT
 * Every way to name a hook point, and what is said about those that are not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model_fixture.h"

#define N_ARCHS 7

/* Architectures that differ in what they have. */
static sonde_arch gpt2, llama, neox, gemma3, attn_only, solu, shortformer;

static void read_one(const char *name, sonde_arch *a)
{
    char dir[600];
    sonde_err err = {0};
    sonde_arena *arena = sonde_arena_new(NULL, &err);
    snprintf(dir, sizeof dir, GOLDEN "%s", name);
    if (sonde_model_config(dir, a, arena, &err))
        fail_msg("%s", err.msg);
    a->inv_freq[0] = a->inv_freq[1] = NULL;
    sonde_arena_free(arena);
}

static int read_archs(void **state)
{
    (void)state;
    read_one("gpt2", &gpt2);
    read_one("llama", &llama);
    read_one("gpt_neox", &neox);
    read_one("gemma3", &gemma3);
    read_one("tl_attn_only", &attn_only);
    read_one("tl_solu", &solu);
    read_one("tl_shortformer", &shortformer);
    return 0;
}

/* The names that a spec gives, one behind the other with blanks between, in forward order. */
static void names_of(const sonde_arch *a, const char *spec, char *out, size_t n)
{
    sonde_hook_list list = {0};
    sonde_err err = {0};
    size_t at = 0;
    if (sonde_hooks_add(&list, a, spec, &err))
        fail_msg("%s: %s", spec, err.msg);
    sonde_hooks_sort(&list, a);
    out[0] = '\0';
    for (size_t i = 0; i < list.n && at < n; i++) {
        char name[SONDE_HOOK_NAME_MAX];
        at += (size_t)snprintf(out + at, n - at, "%s%s", i ? " " : "", sonde_hook_name(list.hook[i], name));
    }
    sonde_hooks_free(&list);
}

static void gives(const sonde_arch *a, const char *spec, const char *want)
{
    char have[4096];
    names_of(a, spec, have, sizeof have);
    if (strcmp(have, want))
        fail_msg("%s on %s gives '%s', should give '%s'", spec, a->family, have, want);
}

static void refuses(const sonde_arch *a, const char *spec, const char *says)
{
    sonde_hook_list list = {0};
    sonde_err err = {0};
    enum sonde_code code = sonde_hooks_add(&list, a, spec, &err);
    if (code != SONDE_E_USAGE || !strstr(err.msg, says) || list.n)
        fail_msg("%s on %s: code %d, message '%s', should say '%s'", spec, a->family, (int)code, err.msg,
                 says);
    sonde_hooks_free(&list);
}

/* ---- names ---------------------------------------- */

static void every_canonical_name_is_understood(void **state)
{
    const sonde_arch *archs[N_ARCHS] = {&gpt2, &llama, &neox, &gemma3, &attn_only, &solu, &shortformer};
    (void)state;
    for (size_t i = 0; i < N_ARCHS; i++)
        for (int s = 0; s < SONDE_N_SITES; s++) {
            char name[SONDE_HOOK_NAME_MAX];
            sonde_hook h = {(enum sonde_site)s, sonde_site_in_block((enum sonde_site)s) ? 1 : 0};
            sonde_hook_name(h, name);
            const char *why = sonde_site_absent(archs[i], h.site);
            if (why)
                refuses(archs[i], name, why);
            else
                gives(archs[i], name, name);
        }
}

static void canonical_names_are_those_of_transformer_lens(void **state)
{
    static const char *const names[] = {"hook_embed",
                                        "hook_pos_embed",
                                        "blocks.2.hook_resid_pre",
                                        "blocks.2.hook_attn_in",
                                        "blocks.2.hook_q_input",
                                        "blocks.2.hook_k_input",
                                        "blocks.2.hook_v_input",
                                        "blocks.2.ln1.hook_scale",
                                        "blocks.2.ln1.hook_normalized",
                                        "blocks.2.attn.hook_q",
                                        "blocks.2.attn.hook_k",
                                        "blocks.2.attn.hook_v",
                                        "blocks.2.attn.hook_attn_scores",
                                        "blocks.2.attn.hook_pattern",
                                        "blocks.2.attn.hook_z",
                                        "blocks.2.attn.hook_result",
                                        "blocks.2.hook_attn_out",
                                        "blocks.2.hook_resid_mid",
                                        "blocks.2.hook_mlp_in",
                                        "blocks.2.ln2.hook_scale",
                                        "blocks.2.ln2.hook_normalized",
                                        "blocks.2.mlp.hook_pre",
                                        "blocks.2.mlp.hook_post",
                                        "blocks.2.hook_mlp_out",
                                        "blocks.2.hook_resid_post",
                                        "ln_final.hook_scale",
                                        "ln_final.hook_normalized",
                                        "hook_tokens",
                                        "unembed.hook_in",
                                        "unembed.hook_out"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        gives(&gpt2, names[i], names[i]);
    gives(&llama, "blocks.0.attn.hook_rot_q", "blocks.0.attn.hook_rot_q");
    gives(&llama, "blocks.0.attn.hook_rot_k", "blocks.0.attn.hook_rot_k");
    gives(&llama, "blocks.0.mlp.hook_pre_linear", "blocks.0.mlp.hook_pre_linear");
    gives(&gemma3, "blocks.0.attn.q_norm.hook_scale", "blocks.0.attn.q_norm.hook_scale");
    gives(&gemma3, "blocks.0.ln1_post.hook_normalized", "blocks.0.ln1_post.hook_normalized");
    gives(&solu, "blocks.0.mlp.hook_mid", "blocks.0.mlp.hook_mid");
    gives(&solu, "blocks.0.mlp.ln.hook_scale", "blocks.0.mlp.ln.hook_scale");
}

static void layers_may_count_from_the_end(void **state)
{
    (void)state;
    gives(&gpt2, "blocks.-1.hook_resid_post", "blocks.2.hook_resid_post");
    gives(&gpt2, "blocks.-3.attn.hook_z", "blocks.0.attn.hook_z");
    gives(&gpt2, "resid_post-1", "blocks.2.hook_resid_post");
    gives(&gpt2, "scale-2ln1", "blocks.1.ln1.hook_scale");
    gives(&gpt2, "transformer.h.-1.output", "blocks.2.hook_resid_post");
}

static void layers_out_of_range_say_the_range(void **state)
{
    static const char *const specs[] = {"blocks.3.hook_resid_post",
                                        "blocks.-4.hook_resid_post",
                                        "blocks.99.attn.hook_q",
                                        "q3",
                                        "resid_post-4",
                                        "scale3ln1",
                                        "transformer.h.3.output",
                                        "blocks.3.hook_out"};
    (void)state;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        refuses(&gpt2, specs[i], "this model has layers 0 to 2");
}

static void shorthand_is_that_of_get_act_name(void **state)
{
    static const struct {
        const char *spec, *name;
    } rows[] = {
        {"q1", "blocks.1.attn.hook_q"},
        {"k1", "blocks.1.attn.hook_k"},
        {"v1", "blocks.1.attn.hook_v"},
        {"z0", "blocks.0.attn.hook_z"},
        {"query1", "blocks.1.attn.hook_q"},
        {"key1", "blocks.1.attn.hook_k"},
        {"value1", "blocks.1.attn.hook_v"},
        {"attn2", "blocks.2.attn.hook_pattern"},
        {"pattern2", "blocks.2.attn.hook_pattern"},
        {"attn_scores2", "blocks.2.attn.hook_attn_scores"},
        {"attn_logits2", "blocks.2.attn.hook_attn_scores"},
        {"result0", "blocks.0.attn.hook_result"},
        {"pre2", "blocks.2.mlp.hook_pre"},
        {"mlp_pre2", "blocks.2.mlp.hook_pre"},
        {"post2", "blocks.2.mlp.hook_post"},
        {"mlp_post2", "blocks.2.mlp.hook_post"},
        {"mlp_out2", "blocks.2.hook_mlp_out"},
        {"mlp_in2", "blocks.2.hook_mlp_in"},
        {"attn_out0", "blocks.0.hook_attn_out"},
        {"attn_in0", "blocks.0.hook_attn_in"},
        {"q_input0", "blocks.0.hook_q_input"},
        {"resid_pre0", "blocks.0.hook_resid_pre"},
        {"resid_mid0", "blocks.0.hook_resid_mid"},
        {"resid_post0", "blocks.0.hook_resid_post"},
        {"scale2ln1", "blocks.2.ln1.hook_scale"},
        {"scale2ln2", "blocks.2.ln2.hook_scale"},
        {"normalized1ln1", "blocks.1.ln1.hook_normalized"},
        {"normalized1ln2", "blocks.1.ln2.hook_normalized"},
        {"scale", "ln_final.hook_scale"},
        {"normalized", "ln_final.hook_normalized"},
        {"embed", "hook_embed"},
        {"pos_embed", "hook_pos_embed"},
        {"tokens", "hook_tokens"},
        {"logits", "unembed.hook_out"},
        {"resid_post", "blocks.0.hook_resid_post blocks.1.hook_resid_post blocks.2.hook_resid_post"},
        {"z", "blocks.0.attn.hook_z blocks.1.attn.hook_z blocks.2.attn.hook_z"},
        {"mlp_post", "blocks.0.mlp.hook_post blocks.1.mlp.hook_post blocks.2.mlp.hook_post"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        gives(&gpt2, rows[i].spec, rows[i].name);
    gives(&llama, "rot_q1", "blocks.1.attn.hook_rot_q");
    gives(&llama, "pre_linear1", "blocks.1.mlp.hook_pre_linear");
    gives(&gemma3, "scale1ln1_post", "blocks.1.ln1_post.hook_scale");
    gives(&solu, "mid1", "blocks.1.mlp.hook_mid");
    gives(&solu, "mlp_mid1", "blocks.1.mlp.hook_mid");
}

/* ---- other people's names ---------------------------------------- */

static void bridge_names_mean_what_the_architecture_makes_them(void **state)
{
    static const struct {
        const sonde_arch *a;
        const char *spec, *name;
    } rows[] = {
        {&gpt2, "embed.hook_out", "hook_embed"},
        {&gpt2, "pos_embed.hook_out", "hook_pos_embed"},
        {&gpt2, "blocks.1.hook_in", "blocks.1.hook_resid_pre"},
        {&gpt2, "blocks.1.ln1.hook_in", "blocks.1.hook_resid_pre"},
        {&gpt2, "blocks.1.attn.q.hook_out", "blocks.1.attn.hook_q"},
        {&gpt2, "blocks.1.attn.k.hook_out", "blocks.1.attn.hook_k"},
        {&gpt2, "blocks.1.attn.v.hook_out", "blocks.1.attn.hook_v"},
        {&gpt2, "blocks.1.attn.o.hook_in", "blocks.1.attn.hook_z"},
        {&gpt2, "blocks.1.attn.hook_out", "blocks.1.hook_attn_out"},
        {&gpt2, "blocks.1.ln2.hook_in", "blocks.1.hook_resid_mid"},
        {&gpt2, "blocks.1.mlp.in.hook_out", "blocks.1.mlp.hook_pre"},
        {&gpt2, "blocks.1.mlp.out.hook_in", "blocks.1.mlp.hook_post"},
        {&gpt2, "blocks.1.mlp.hook_out", "blocks.1.hook_mlp_out"},
        {&gpt2, "blocks.1.hook_out", "blocks.1.hook_resid_post"},
        {&gpt2, "blocks.-1.hook_out", "blocks.2.hook_resid_post"},
        {&neox, "blocks.1.ln2.hook_in", "blocks.1.hook_resid_pre"},
        {&llama, "blocks.1.mlp.gate.hook_out", "blocks.1.mlp.hook_pre"},
        {&llama, "blocks.1.mlp.in.hook_out", "blocks.1.mlp.hook_pre_linear"},
        {&gemma3, "blocks.1.ln1_post.hook_out", "blocks.1.hook_attn_out"},
        {&gemma3, "blocks.1.ln2_post.hook_out", "blocks.1.hook_mlp_out"},
        {&gemma3, "blocks.1.ln2.hook_in", "blocks.1.hook_resid_mid"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        gives(rows[i].a, rows[i].spec, rows[i].name);
    refuses(&gpt2, "blocks.1.mlp.gate.hook_out", "its MLP is not gated");
    refuses(&gpt2, "blocks.1.ln1_post.hook_out", "it has no post-norms");
    refuses(&gemma3, "blocks.1.attn.hook_out", "what lies before its post-norm has no hook");
    refuses(&gemma3, "blocks.1.mlp.hook_out", "what lies before its post-norm has no hook");
    refuses(&attn_only, "blocks.1.ln2.hook_in", "it has no MLP");
}

static void module_paths_are_those_of_hugging_face(void **state)
{
    static const struct {
        const sonde_arch *a;
        const char *spec, *name;
    } rows[] = {
        {&gpt2, "transformer.wte.output", "hook_embed"},
        {&gpt2, "transformer.wpe.output", "hook_pos_embed"},
        {&gpt2, "transformer.h.1.input", "blocks.1.hook_resid_pre"},
        {&gpt2, "transformer.h.1.output", "blocks.1.hook_resid_post"},
        {&gpt2, "transformer.h[1].output", "blocks.1.hook_resid_post"},
        {&gpt2, "transformer.h[-1].output[0]", "blocks.2.hook_resid_post"},
        {&gpt2, "transformer.h.1.attn.output", "blocks.1.hook_attn_out"},
        {&gpt2, "transformer.h[1].attn.output[0]", "blocks.1.hook_attn_out"},
        {&gpt2, "transformer.h.1.attn.c_proj.input", "blocks.1.attn.hook_z"},
        {&gpt2, "transformer.h.1.ln_2.input", "blocks.1.hook_resid_mid"},
        {&gpt2, "transformer.h.1.mlp.output", "blocks.1.hook_mlp_out"},
        {&gpt2, "transformer.h.1.mlp.c_fc.output", "blocks.1.mlp.hook_pre"},
        {&gpt2, "transformer.h.1.mlp.c_proj.input", "blocks.1.mlp.hook_post"},
        {&gpt2, "lm_head.output", "unembed.hook_out"},
        {&llama, "model.embed_tokens.output", "hook_embed"},
        {&llama, "model.layers.1.input", "blocks.1.hook_resid_pre"},
        {&llama, "model.layers[1].output", "blocks.1.hook_resid_post"},
        {&llama, "model.layers.1.self_attn.output", "blocks.1.hook_attn_out"},
        {&llama, "model.layers.1.self_attn.q_proj.output", "blocks.1.attn.hook_q"},
        {&llama, "model.layers.1.self_attn.k_proj.output", "blocks.1.attn.hook_k"},
        {&llama, "model.layers.1.self_attn.v_proj.output", "blocks.1.attn.hook_v"},
        {&llama, "model.layers.1.self_attn.o_proj.input", "blocks.1.attn.hook_z"},
        {&llama, "model.layers.1.post_attention_layernorm.input", "blocks.1.hook_resid_mid"},
        {&llama, "model.layers.1.mlp.output", "blocks.1.hook_mlp_out"},
        {&llama, "model.layers.1.mlp.gate_proj.output", "blocks.1.mlp.hook_pre"},
        {&llama, "model.layers.1.mlp.up_proj.output", "blocks.1.mlp.hook_pre_linear"},
        {&llama, "model.layers.1.mlp.down_proj.input", "blocks.1.mlp.hook_post"},
        {&gemma3, "model.layers.1.post_attention_layernorm.output", "blocks.1.hook_attn_out"},
        {&gemma3, "model.layers.1.pre_feedforward_layernorm.input", "blocks.1.hook_resid_mid"},
        {&gemma3, "model.layers.1.post_feedforward_layernorm.output", "blocks.1.hook_mlp_out"},
        {&neox, "gpt_neox.embed_in.output", "hook_embed"},
        {&neox, "gpt_neox.layers.1.input", "blocks.1.hook_resid_pre"},
        {&neox, "gpt_neox.layers.1.output", "blocks.1.hook_resid_post"},
        {&neox, "gpt_neox.layers.1.attention.output", "blocks.1.hook_attn_out"},
        {&neox, "gpt_neox.layers.1.attention.dense.input", "blocks.1.attn.hook_z"},
        {&neox, "gpt_neox.layers.1.post_attention_layernorm.input", "blocks.1.hook_resid_pre"},
        {&neox, "gpt_neox.layers.1.mlp.dense_h_to_4h.output", "blocks.1.mlp.hook_pre"},
        {&neox, "gpt_neox.layers.1.mlp.dense_4h_to_h.input", "blocks.1.mlp.hook_post"},
        {&neox, "gpt_neox.layers.1.mlp.output", "blocks.1.hook_mlp_out"},
        {&neox, "embed_out.output", "unembed.hook_out"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        gives(rows[i].a, rows[i].spec, rows[i].name);
    refuses(&gemma3, "model.layers.1.self_attn.output", "what lies before its post-norm has no hook");
    refuses(&gemma3, "model.layers.1.mlp.output", "what lies before its post-norm has no hook");
    refuses(&llama, "transformer.wpe.output", "its positions are not embedded");
}

/* ---- globs ---------------------------------------- */

static void globs_take_what_is_there_and_can_be_stored(void **state)
{
    (void)state;
    gives(&gpt2, "blocks.*.hook_resid_post",
          "blocks.0.hook_resid_post blocks.1.hook_resid_post blocks.2.hook_resid_post");
    gives(&gpt2, "blocks.[02].hook_mlp_out", "blocks.0.hook_mlp_out blocks.2.hook_mlp_out");
    gives(&gpt2, "blocks.1.attn.hook_[qkv]",
          "blocks.1.attn.hook_q blocks.1.attn.hook_k blocks.1.attn.hook_v");
    gives(&gpt2, "blocks.1.hook_resid_*",
          "blocks.1.hook_resid_pre blocks.1.hook_resid_mid blocks.1.hook_resid_post");
    gives(&neox, "blocks.1.hook_resid_*",
          "blocks.1.hook_resid_pre blocks.1.hook_resid_post"); /* no resid_mid */
    gives(&gpt2, "hook_*", "hook_embed hook_pos_embed");
    gives(&gpt2, "blocks.*.attn.hook_result",
          "blocks.0.attn.hook_result blocks.1.attn.hook_result blocks.2.attn.hook_result");
    gives(&gpt2, "blocks.?.hook_mlp_in", "blocks.0.hook_mlp_in blocks.1.hook_mlp_in blocks.2.hook_mlp_in");
    gives(&gpt2, "ln_final.*", "ln_final.hook_scale ln_final.hook_normalized");
}

static bool is_derived(enum sonde_site s)
{
    switch (s) {
    case SONDE_SITE_TOKENS:
    case SONDE_SITE_ATTN_IN:
    case SONDE_SITE_Q_INPUT:
    case SONDE_SITE_K_INPUT:
    case SONDE_SITE_V_INPUT:
    case SONDE_SITE_RESULT:
    case SONDE_SITE_MLP_IN:
    case SONDE_SITE_UNEMBED_IN:
    case SONDE_SITE_LOGITS:
        return true;
    default:
        return false;
    }
}

static void a_star_leaves_out_copies_products_and_logits(void **state)
{
    const sonde_arch *archs[N_ARCHS] = {&gpt2, &llama, &neox, &gemma3, &attn_only, &solu, &shortformer};
    (void)state;
    for (size_t i = 0; i < N_ARCHS; i++) {
        sonde_hook_list list = {0};
        size_t want = 0;
        assert_int_equal(sonde_hooks_add(&list, archs[i], "*", NULL), SONDE_OK);
        for (int s = 0; s < SONDE_N_SITES; s++)
            if (!sonde_site_absent(archs[i], (enum sonde_site)s) && !is_derived((enum sonde_site)s))
                want += sonde_site_in_block((enum sonde_site)s) ? archs[i]->n_layers : 1;
        for (size_t k = 0; k < list.n; k++) {
            assert_false(is_derived(list.hook[k].site));
            assert_null(sonde_site_absent(archs[i], list.hook[k].site));
        }
        assert_int_equal(list.n, want);
        sonde_hooks_free(&list);
    }
}

static void a_glob_that_takes_nothing_says_why(void **state)
{
    (void)state;
    refuses(&neox, "blocks.*.hook_resid_mid",
            "attention and MLP run in parallel, so nothing lies between them");
    refuses(&llama, "blocks.*.ln1_post.*", "it has no post-norms");
    refuses(&gpt2, "blocks.*.hook_resid_pots", "no hook 'blocks.*.hook_resid_pots' in this model");
    refuses(&gpt2, "blocks.7.*", "no hook 'blocks.7.*' in this model");
    refuses(&gpt2, "[", "no hook '['");
}

static void duplicates_are_dropped(void **state)
{
    (void)state;
    static const char *const specs[] = {
        "blocks.1.hook_resid_post", "blocks.*.hook_resid_post", "resid_post",
        "blocks.-1.hook_out",       "transformer.h.0.output",   "resid_post2"};
    sonde_hook_list list = {0};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        assert_int_equal(sonde_hooks_add(&list, &gpt2, specs[i], NULL), SONDE_OK);
    assert_int_equal(list.n, 3);
    sonde_hooks_sort(&list, &gpt2);
    for (size_t l = 0; l < 3; l++)
        assert_true(list.hook[l].layer == l && list.hook[l].site == SONDE_SITE_RESID_POST);
    sonde_hooks_free(&list);
}

/* ---- what is not there ---------------------------------------- */

static void absent_sites_get_their_reason(void **state)
{
    static const struct {
        const sonde_arch *a;
        const char *spec, *says;
    } rows[] = {
        {&neox, "blocks.0.hook_resid_mid",
         "this model (gpt_neox) has no blocks.0.hook_resid_mid: attention and MLP run in "
         "parallel, so nothing lies between them"},
        {&neox, "resid_mid", "attention and MLP run in parallel"},
        {&attn_only, "blocks.0.hook_resid_mid", "it has no MLP, so attention goes straight to resid_post"},
        {&attn_only, "blocks.0.hook_mlp_out", "it has no MLP"},
        {&attn_only, "blocks.0.ln2.hook_scale", "it has no MLP"},
        {&attn_only, "mlp_post0", "it has no MLP"},
        {&llama, "hook_pos_embed", "its positions are not embedded"},
        {&llama, "pos_embed", "its positions are not embedded"},
        {&gpt2, "blocks.0.attn.hook_rot_q", "its positions are not rotary"},
        {&gpt2, "rot_k1", "its positions are not rotary"},
        {&gpt2, "blocks.0.mlp.hook_pre_linear", "its MLP is not gated"},
        {&gpt2, "blocks.0.attn.q_norm.hook_scale", "it does not normalise queries and keys"},
        {&llama, "blocks.0.ln1_post.hook_scale", "it has no post-norms"},
        {&gpt2, "blocks.0.mlp.hook_mid", "its MLP has no norm of its own (solu_ln)"},
        {&shortformer, "blocks.0.ln1.hook_scale", "it has no normalisation"},
        {&shortformer, "scale0ln1", "it has no normalisation"},
        {&shortformer, "ln_final.hook_normalized", "it has no final normalisation"},
        {&shortformer, "scale", "it has no final normalisation"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        refuses(rows[i].a, rows[i].spec, rows[i].says);
}

static void unknown_names_get_near_ones(void **state)
{
    (void)state;
    refuses(&gpt2, "blocks.1.hook_resid_pots", "did you mean 'blocks.1.hook_resid_post'");
    refuses(&gpt2, "blocks.1.attn.hook_patern", "did you mean 'blocks.1.attn.hook_pattern'");
    refuses(&gpt2, "blocks.99.hook_resid_pots", "did you mean 'blocks.0.hook_resid_post'");
    refuses(&gpt2, "resid_pst", "did you mean 'resid_post'");
    refuses(&gpt2, "hook_embd", "did you mean 'hook_embed'");
    refuses(&gpt2, "xyzzy", "the names are those of TransformerLens, e.g. blocks.0.hook_resid_post");
    refuses(&gpt2, "", "no hook ''");
    refuses(&gpt2, "blocks.", "no hook 'blocks.'");
    refuses(&gpt2, "blocks.1", "no hook 'blocks.1'");
    refuses(&gpt2, "blocks.1.", "no hook 'blocks.1.'");
    refuses(&gpt2, "blocks.one.hook_resid_post", "no hook");
    refuses(&gpt2, "blocks.--1.hook_resid_post", "no hook");
    refuses(&gpt2, "blocks.+1.hook_resid_post", "no hook");
    refuses(&gpt2, "blocks.99999999999999999999.hook_resid_post", "no hook");
    refuses(&gpt2, "q1x", "no hook");
    refuses(&gpt2, "embed0", "no hook");
    refuses(&gpt2, "scale1", "no hook");
    refuses(&gpt2, "scale1ln3", "no hook");
    refuses(&gpt2, "blocks.1.hook_embed", "no hook");
    refuses(&gpt2, "hook_resid_post", "no hook");
    refuses(&gpt2, "model.layers.1", "no hook");
    refuses(&gpt2,
            "a name that is much longer than any hook name could be, so long that it has to be cut somewhere "
            "in the line",
            "no hook 'a name that is much longer");
}

/* ---- order and shapes ---------------------------------------- */

struct trace {
    sonde_hook hook[SONDE_N_SITES * 8];
    size_t width[SONDE_N_SITES * 8];
    size_t n;
};

static enum sonde_code note(void *arg, const sonde_view *v, sonde_err *err)
{
    struct trace *t = arg;
    (void)err;
    assert_true(t->n < SONDE_N_SITES * 8);
    t->width[t->n] = v->width;
    t->hook[t->n++] = v->hook;
    return SONDE_OK;
}

/* One pass of a golden model with every hook that it has. */
static void run_with_all(const sonde_model *m, struct trace *t)
{
    sonde_run *run = new_run(m);
    sonde_err err = {0};
    t->n = 0;
    for (int s = SONDE_N_SITES - 1; s >= 0; s--)
        for (size_t l = 0; l < (sonde_site_in_block((enum sonde_site)s) ? m->arch.n_layers : 1); l++)
            if (!sonde_site_absent(&m->arch, (enum sonde_site)s))
                assert_int_equal(
                    sonde_run_hook(run, (sonde_hook){(enum sonde_site)s, l}, false, note, t, &err), SONDE_OK);
    free(logits_of(run, m, 1));
    sonde_run_free(run);
}

static void sorted_order_is_the_order_of_a_pass(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_GOLDEN; g++) {
        struct fixture f;
        struct trace t;
        sonde_hook_list list = {0};
        fixture_load(&f, golden_models[g]);
        sonde_model *m = fixture_must_open(&f, 0);
        run_with_all(m, &t);
        for (int s = SONDE_N_SITES - 1; s >= 0; s--)
            for (size_t l = 0; l < (sonde_site_in_block((enum sonde_site)s) ? m->arch.n_layers : 1); l++) {
                char name[SONDE_HOOK_NAME_MAX];
                if (!sonde_site_absent(&m->arch, (enum sonde_site)s))
                    assert_int_equal(
                        sonde_hooks_add(&list, &m->arch,
                                        sonde_hook_name((sonde_hook){(enum sonde_site)s, l}, name), NULL),
                        SONDE_OK);
            }
        sonde_hooks_sort(&list, &m->arch);
        assert_int_equal(list.n, t.n);
        for (size_t i = 0; i < t.n; i++) {
            char a[SONDE_HOOK_NAME_MAX], b[SONDE_HOOK_NAME_MAX];
            if (list.hook[i].site != t.hook[i].site || list.hook[i].layer != t.hook[i].layer)
                fail_msg("%s: %s is reached where %s is sorted", f.name, sonde_hook_name(t.hook[i], a),
                         sonde_hook_name(list.hook[i], b));
            if (!sonde_site_is_square(t.hook[i].site))
                assert_int_equal(t.width[i], sonde_site_width(&m->arch, t.hook[i].site));
        }
        sonde_hooks_free(&list);
        sonde_model_close(m);
        fixture_free(&f);
    }
}

static void shapes_are_those_of_the_architecture(void **state)
{
    static const struct {
        enum sonde_site site;
        int rank;
        uint64_t dim[2];
    } rows[] = {
        /* llama: d 28, H 4, Hk 2, dh 10, m 44, V 61 */
        {SONDE_SITE_RESID_POST, 1, {28, 0}}, {SONDE_SITE_Q, 2, {4, 10}},
        {SONDE_SITE_K, 2, {2, 10}},          {SONDE_SITE_V, 2, {2, 10}},
        {SONDE_SITE_Z, 2, {4, 10}},          {SONDE_SITE_RESULT, 2, {4, 28}},
        {SONDE_SITE_K_INPUT, 2, {2, 28}},    {SONDE_SITE_Q_INPUT, 2, {4, 28}},
        {SONDE_SITE_MLP_POST, 1, {44, 0}},   {SONDE_SITE_LN1_SCALE, 1, {1, 0}},
        {SONDE_SITE_PATTERN, 1, {4, 0}},     {SONDE_SITE_LOGITS, 1, {61, 0}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t dim[2] = {0, 0};
        assert_int_equal(sonde_site_shape(&llama, rows[i].site, dim), rows[i].rank);
        assert_memory_equal(dim, rows[i].dim, sizeof dim);
    }
}

/* ---- hooking a run ---------------------------------------- */

static void a_run_refuses_hooks_that_its_model_has_not(void **state)
{
    static const struct {
        sonde_hook hook;
        bool write;
        const char *says;
    } rows[] = {
        {{SONDE_SITE_POS_EMBED, 0}, false, "its positions are not embedded"},
        {{SONDE_SITE_RESID_POST, 3}, false, "no such layer"},
        {{SONDE_SITE_EMBED, 1}, false, "no such layer"},
        {{SONDE_SITE_TOKENS, 0}, true, "tokens can only be read"},
        {{SONDE_SITE_ATTN_IN, 0}, true, "heads share keys and values; write the q, k and v inputs instead"},
    };
    struct fixture f;
    (void)state;
    fixture_load(&f, "llama");
    sonde_model *m = fixture_must_open(&f, 0);
    sonde_run *run = new_run(m);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sonde_err err = {0};
        assert_int_equal(sonde_run_hook(run, rows[i].hook, rows[i].write, note, NULL, &err), SONDE_E_USAGE);
        if (!strstr(err.msg, rows[i].says))
            fail_msg("'%s' does not say '%s'", err.msg, rows[i].says);
    }
    sonde_run_free(run);
    sonde_model_close(m);
    fixture_free(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_canonical_name_is_understood),
        cmocka_unit_test(canonical_names_are_those_of_transformer_lens),
        cmocka_unit_test(layers_may_count_from_the_end),
        cmocka_unit_test(layers_out_of_range_say_the_range),
        cmocka_unit_test(shorthand_is_that_of_get_act_name),
        cmocka_unit_test(bridge_names_mean_what_the_architecture_makes_them),
        cmocka_unit_test(module_paths_are_those_of_hugging_face),
        cmocka_unit_test(globs_take_what_is_there_and_can_be_stored),
        cmocka_unit_test(a_star_leaves_out_copies_products_and_logits),
        cmocka_unit_test(a_glob_that_takes_nothing_says_why),
        cmocka_unit_test(duplicates_are_dropped),
        cmocka_unit_test(absent_sites_get_their_reason),
        cmocka_unit_test(unknown_names_get_near_ones),
        cmocka_unit_test(sorted_order_is_the_order_of_a_pass),
        cmocka_unit_test(shapes_are_those_of_the_architecture),
        cmocka_unit_test(a_run_refuses_hooks_that_its_model_has_not),
    };
    return cmocka_run_group_tests_name("model_hooks", tests, read_archs, NULL);
}
