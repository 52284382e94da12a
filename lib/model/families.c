/* SPDX-License-Identifier: MIT
 * The tensor names of every Hugging Face and TransformerLens family. */
#include <string.h>

#include "config_impl.h"
#include "families_impl.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const struct tensor_rule gpt2_rules[] = {
    {SLOT_EMBED, LAYOUT_OUT_IN, "wte.weight", false},
    {SLOT_POSITION, LAYOUT_VECTOR, "wpe.weight", false},
    {SLOT_LN_FINAL_W, LAYOUT_VECTOR, "ln_f.weight", false},
    {SLOT_LN_FINAL_B, LAYOUT_VECTOR, "ln_f.bias", false},
    {SLOT_UNEMBED, LAYOUT_OUT_IN, "/lm_head.weight", false},
    {SLOT_LN1_W, LAYOUT_VECTOR, "h.%zu.ln_1.weight", false},
    {SLOT_LN1_B, LAYOUT_VECTOR, "h.%zu.ln_1.bias", false},
    {SLOT_LN2_W, LAYOUT_VECTOR, "h.%zu.ln_2.weight", false},
    {SLOT_LN2_B, LAYOUT_VECTOR, "h.%zu.ln_2.bias", false},
    {SLOT_QKV, LAYOUT_IN_OUT, "h.%zu.attn.c_attn.weight", false},
    {SLOT_QKV_B, LAYOUT_VECTOR, "h.%zu.attn.c_attn.bias", false},
    {SLOT_O, LAYOUT_IN_OUT, "h.%zu.attn.c_proj.weight", false},
    {SLOT_O_B, LAYOUT_VECTOR, "h.%zu.attn.c_proj.bias", false},
    {SLOT_IN, LAYOUT_IN_OUT, "h.%zu.mlp.c_fc.weight", false},
    {SLOT_IN_B, LAYOUT_VECTOR, "h.%zu.mlp.c_fc.bias", false},
    {SLOT_OUT, LAYOUT_IN_OUT, "h.%zu.mlp.c_proj.weight", false},
    {SLOT_OUT_B, LAYOUT_VECTOR, "h.%zu.mlp.c_proj.bias", false},
};

static const struct tensor_rule gpt_neo_rules[] = {
    {SLOT_EMBED, LAYOUT_OUT_IN, "wte.weight", false},
    {SLOT_POSITION, LAYOUT_VECTOR, "wpe.weight", false},
    {SLOT_LN_FINAL_W, LAYOUT_VECTOR, "ln_f.weight", false},
    {SLOT_LN_FINAL_B, LAYOUT_VECTOR, "ln_f.bias", false},
    {SLOT_UNEMBED, LAYOUT_OUT_IN, "/lm_head.weight", false},
    {SLOT_LN1_W, LAYOUT_VECTOR, "h.%zu.ln_1.weight", false},
    {SLOT_LN1_B, LAYOUT_VECTOR, "h.%zu.ln_1.bias", false},
    {SLOT_LN2_W, LAYOUT_VECTOR, "h.%zu.ln_2.weight", false},
    {SLOT_LN2_B, LAYOUT_VECTOR, "h.%zu.ln_2.bias", false},
    {SLOT_Q, LAYOUT_OUT_IN, "h.%zu.attn.attention.q_proj.weight", false},
    {SLOT_K, LAYOUT_OUT_IN, "h.%zu.attn.attention.k_proj.weight", false},
    {SLOT_V, LAYOUT_OUT_IN, "h.%zu.attn.attention.v_proj.weight", false},
    {SLOT_O, LAYOUT_OUT_IN, "h.%zu.attn.attention.out_proj.weight", false},
    {SLOT_O_B, LAYOUT_VECTOR, "h.%zu.attn.attention.out_proj.bias", false},
    {SLOT_IN, LAYOUT_OUT_IN, "h.%zu.mlp.c_fc.weight", false},
    {SLOT_IN_B, LAYOUT_VECTOR, "h.%zu.mlp.c_fc.bias", false},
    {SLOT_OUT, LAYOUT_OUT_IN, "h.%zu.mlp.c_proj.weight", false},
    {SLOT_OUT_B, LAYOUT_VECTOR, "h.%zu.mlp.c_proj.bias", false},
};

static const struct tensor_rule gpt_neox_rules[] = {
    {SLOT_EMBED, LAYOUT_OUT_IN, "embed_in.weight", false},
    {SLOT_LN_FINAL_W, LAYOUT_VECTOR, "final_layer_norm.weight", false},
    {SLOT_LN_FINAL_B, LAYOUT_VECTOR, "final_layer_norm.bias", false},
    {SLOT_UNEMBED, LAYOUT_OUT_IN, "/embed_out.weight", false},
    {SLOT_LN1_W, LAYOUT_VECTOR, "layers.%zu.input_layernorm.weight", false},
    {SLOT_LN1_B, LAYOUT_VECTOR, "layers.%zu.input_layernorm.bias", false},
    {SLOT_LN2_W, LAYOUT_VECTOR, "layers.%zu.post_attention_layernorm.weight", false},
    {SLOT_LN2_B, LAYOUT_VECTOR, "layers.%zu.post_attention_layernorm.bias", false},
    {SLOT_QKV, LAYOUT_BY_HEAD, "layers.%zu.attention.query_key_value.weight", false},
    {SLOT_QKV_B, LAYOUT_BY_HEAD, "layers.%zu.attention.query_key_value.bias", true},
    {SLOT_O, LAYOUT_OUT_IN, "layers.%zu.attention.dense.weight", false},
    {SLOT_O_B, LAYOUT_VECTOR, "layers.%zu.attention.dense.bias", true},
    {SLOT_IN, LAYOUT_OUT_IN, "layers.%zu.mlp.dense_h_to_4h.weight", false},
    {SLOT_IN_B, LAYOUT_VECTOR, "layers.%zu.mlp.dense_h_to_4h.bias", false},
    {SLOT_OUT, LAYOUT_OUT_IN, "layers.%zu.mlp.dense_4h_to_h.weight", false},
    {SLOT_OUT_B, LAYOUT_VECTOR, "layers.%zu.mlp.dense_4h_to_h.bias", false},
};

/* Llama and its descendants; the biases exist in some. */
#define LLAMA_RULES                                                                                          \
    {SLOT_EMBED, LAYOUT_OUT_IN, "embed_tokens.weight", false},                                               \
        {SLOT_LN_FINAL_W, LAYOUT_VECTOR, "norm.weight", false},                                              \
        {SLOT_UNEMBED, LAYOUT_OUT_IN, "/lm_head.weight", false},                                             \
        {SLOT_LN1_W, LAYOUT_VECTOR, "layers.%zu.input_layernorm.weight", false},                             \
        {SLOT_Q, LAYOUT_OUT_IN, "layers.%zu.self_attn.q_proj.weight", false},                                \
        {SLOT_Q_B, LAYOUT_VECTOR, "layers.%zu.self_attn.q_proj.bias", true},                                 \
        {SLOT_K, LAYOUT_OUT_IN, "layers.%zu.self_attn.k_proj.weight", false},                                \
        {SLOT_K_B, LAYOUT_VECTOR, "layers.%zu.self_attn.k_proj.bias", true},                                 \
        {SLOT_V, LAYOUT_OUT_IN, "layers.%zu.self_attn.v_proj.weight", false},                                \
        {SLOT_V_B, LAYOUT_VECTOR, "layers.%zu.self_attn.v_proj.bias", true},                                 \
        {SLOT_O, LAYOUT_OUT_IN, "layers.%zu.self_attn.o_proj.weight", false},                                \
        {SLOT_O_B, LAYOUT_VECTOR, "layers.%zu.self_attn.o_proj.bias", true},                                 \
        {SLOT_GATE, LAYOUT_OUT_IN, "layers.%zu.mlp.gate_proj.weight", false},                                \
        {SLOT_GATE_B, LAYOUT_VECTOR, "layers.%zu.mlp.gate_proj.bias", true},                                 \
        {SLOT_IN, LAYOUT_OUT_IN, "layers.%zu.mlp.up_proj.weight", false},                                    \
        {SLOT_IN_B, LAYOUT_VECTOR, "layers.%zu.mlp.up_proj.bias", true},                                     \
        {SLOT_OUT, LAYOUT_OUT_IN, "layers.%zu.mlp.down_proj.weight", false},                                 \
    {                                                                                                        \
        SLOT_OUT_B, LAYOUT_VECTOR, "layers.%zu.mlp.down_proj.bias", true                                     \
    }

static const struct tensor_rule llama_rules[] = {
    LLAMA_RULES,
    {SLOT_LN2_W, LAYOUT_VECTOR, "layers.%zu.post_attention_layernorm.weight", false},
};

static const struct tensor_rule qwen3_rules[] = {
    LLAMA_RULES,
    {SLOT_LN2_W, LAYOUT_VECTOR, "layers.%zu.post_attention_layernorm.weight", false},
    {SLOT_Q_NORM, LAYOUT_VECTOR, "layers.%zu.self_attn.q_norm.weight", false},
    {SLOT_K_NORM, LAYOUT_VECTOR, "layers.%zu.self_attn.k_norm.weight", false},
};

static const struct tensor_rule gemma2_rules[] = {
    LLAMA_RULES,
    {SLOT_LN1_POST_W, LAYOUT_VECTOR, "layers.%zu.post_attention_layernorm.weight", false},
    {SLOT_LN2_W, LAYOUT_VECTOR, "layers.%zu.pre_feedforward_layernorm.weight", false},
    {SLOT_LN2_POST_W, LAYOUT_VECTOR, "layers.%zu.post_feedforward_layernorm.weight", false},
};

static const struct tensor_rule gemma3_rules[] = {
    LLAMA_RULES,
    {SLOT_LN1_POST_W, LAYOUT_VECTOR, "layers.%zu.post_attention_layernorm.weight", false},
    {SLOT_LN2_W, LAYOUT_VECTOR, "layers.%zu.pre_feedforward_layernorm.weight", false},
    {SLOT_LN2_POST_W, LAYOUT_VECTOR, "layers.%zu.post_feedforward_layernorm.weight", false},
    {SLOT_Q_NORM, LAYOUT_VECTOR, "layers.%zu.self_attn.q_norm.weight", false},
    {SLOT_K_NORM, LAYOUT_VECTOR, "layers.%zu.self_attn.k_norm.weight", false},
};

static const struct tensor_rule tl_rules[] = {
    {SLOT_EMBED, LAYOUT_OUT_IN, "embed.W_E", false},
    {SLOT_POSITION, LAYOUT_VECTOR, "pos_embed.W_pos", false},
    {SLOT_LN_FINAL_W, LAYOUT_VECTOR, "ln_final.w", false},
    {SLOT_LN_FINAL_B, LAYOUT_VECTOR, "ln_final.b", false},
    {SLOT_UNEMBED, LAYOUT_IN_OUT, "unembed.W_U", false},
    {SLOT_UNEMBED_B, LAYOUT_VECTOR, "unembed.b_U", true},
    {SLOT_LN1_W, LAYOUT_VECTOR, "blocks.%zu.ln1.w", false},
    {SLOT_LN1_B, LAYOUT_VECTOR, "blocks.%zu.ln1.b", false},
    {SLOT_LN2_W, LAYOUT_VECTOR, "blocks.%zu.ln2.w", false},
    {SLOT_LN2_B, LAYOUT_VECTOR, "blocks.%zu.ln2.b", false},
    {SLOT_Q, LAYOUT_HEADS_IN, "blocks.%zu.attn.W_Q", false},
    {SLOT_Q_B, LAYOUT_VECTOR, "blocks.%zu.attn.b_Q", true},
    {SLOT_K, LAYOUT_HEADS_IN, "blocks.%zu.attn.W_K", false},
    {SLOT_K_B, LAYOUT_VECTOR, "blocks.%zu.attn.b_K", true},
    {SLOT_V, LAYOUT_HEADS_IN, "blocks.%zu.attn.W_V", false},
    {SLOT_V_B, LAYOUT_VECTOR, "blocks.%zu.attn.b_V", true},
    {SLOT_O, LAYOUT_HEADS_OUT, "blocks.%zu.attn.W_O", false},
    {SLOT_O_B, LAYOUT_VECTOR, "blocks.%zu.attn.b_O", true},
    {SLOT_IN, LAYOUT_IN_OUT, "blocks.%zu.mlp.W_in", false},
    {SLOT_IN_B, LAYOUT_VECTOR, "blocks.%zu.mlp.b_in", true},
    {SLOT_GATE, LAYOUT_IN_OUT, "blocks.%zu.mlp.W_gate", false},
    {SLOT_MLP_LN_W, LAYOUT_VECTOR, "blocks.%zu.mlp.ln.w", false},
    {SLOT_MLP_LN_B, LAYOUT_VECTOR, "blocks.%zu.mlp.ln.b", false},
    {SLOT_OUT, LAYOUT_IN_OUT, "blocks.%zu.mlp.W_out", false},
    {SLOT_OUT_B, LAYOUT_VECTOR, "blocks.%zu.mlp.b_out", true},
};

static const char *const gpt_prefix[] = {"transformer.", "", NULL};
static const char *const neox_prefix[] = {"gpt_neox.", "", NULL};
static const char *const llama_prefix[] = {"model.", "", "language_model.model.", "model.language_model.",
                                           NULL};
static const char *const no_prefix[] = {"", NULL};

static const char *const ignore_buffers[] = {"*.attn.bias",
                                             "*.attn.masked_bias",
                                             "*.attention.bias",
                                             "*.attention.masked_bias",
                                             "*.rotary_emb.*",
                                             "*.attn.mask",
                                             "*.attn.IGNORE",
                                             "*.attn.rotary_sin",
                                             "*.attn.rotary_cos",
                                             "vision_tower.*",
                                             "model.vision_tower.*",
                                             "multi_modal_projector.*",
                                             "model.multi_modal_projector.*",
                                             NULL};

#define RULES(r) (r), COUNT(r)

static const struct family families[] = {
    {"gpt2", configure_gpt2, RULES(gpt2_rules), gpt_prefix, ignore_buffers},
    {"gpt_neo", configure_gpt_neo, RULES(gpt_neo_rules), gpt_prefix, ignore_buffers},
    {"gpt_neox", configure_gpt_neox, RULES(gpt_neox_rules), neox_prefix, ignore_buffers},
    {"llama", configure_llama, RULES(llama_rules), llama_prefix, ignore_buffers},
    {"mistral", configure_mistral, RULES(llama_rules), llama_prefix, ignore_buffers},
    {"qwen2", configure_qwen2, RULES(llama_rules), llama_prefix, ignore_buffers},
    {"qwen3", configure_qwen3, RULES(qwen3_rules), llama_prefix, ignore_buffers},
    {"gemma", configure_gemma, RULES(llama_rules), llama_prefix, ignore_buffers},
    {"gemma2", configure_gemma2, RULES(gemma2_rules), llama_prefix, ignore_buffers},
    {"gemma3_text", configure_gemma3, RULES(gemma3_rules), llama_prefix, ignore_buffers},
    {"gemma3", configure_gemma3, RULES(gemma3_rules), llama_prefix, ignore_buffers},
    {"transformer_lens", configure_transformer_lens, RULES(tl_rules), no_prefix, ignore_buffers},
};

static const char *const names[] = {
    "gpt2",  "gpt_neo", "gpt_neox", "llama",       "mistral",          "qwen2", "qwen3",
    "gemma", "gemma2",  "gemma3",   "gemma3_text", "transformer_lens", NULL};

const char *const *sonde_families(void)
{
    return names;
}

const struct family *family_find(const char *type)
{
    for (size_t i = 0; i < COUNT(families); i++)
        if (!strcmp(families[i].type, type))
            return &families[i];
    return NULL;
}
