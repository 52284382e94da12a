/* SPDX-License-Identifier: MIT
 * config.json with one defect each, then every truncation and every single-bit flip of a right one of each
 * family. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch_check.h"

#define LIMIT ((size_t)64 << 20)

/* ---- right ones -------------------------------------------------------------------------------- */

#define LLAMA_KEYS                                                                                           \
    "'hidden_size':8,'num_attention_heads':4,'num_key_value_heads':2,'num_hidden_layers':3,"                 \
    "'max_position_embeddings':16,'vocab_size':7,'intermediate_size':6"
#define GEMMA3_KEYS                                                                                          \
    LLAMA_KEYS ",'head_dim':4,'sliding_window':3,'layer_types':['sliding_attention','full_attention',"       \
               "'sliding_attention'],'rope_parameters':{'full_attention':{'rope_type':'linear','factor':8,"  \
               "'rope_theta':1e6},'sliding_attention':{'rope_theta':1e4}}"

static const struct {
    const char *name, *text; /* ' stands for " */
} good[] = {
    {"gpt2", "{'model_type':'gpt2','n_embd':8,'n_head':2,'n_layer':3,'n_positions':16,'vocab_size':7}"},
    {"gpt_neo",
     "{'model_type':'gpt_neo','hidden_size':8,'num_heads':2,'num_layers':3,'max_position_embeddings':16,"
     "'vocab_size':7,'window_size':5,'attention_types':[[['global','local'],1],[['local'],1]]}"},
    {"gpt_neox", "{'model_type':'gpt_neox','hidden_size':16,'num_attention_heads':2,'num_hidden_layers':3,"
                 "'max_position_embeddings':16,'vocab_size':7,'intermediate_size':6,'rotary_pct':0.5}"},
    {"llama", "{'model_type':'llama'," LLAMA_KEYS ",'rope_scaling':{'rope_type':'llama3','factor':8,"
              "'low_freq_factor':1,'high_freq_factor':4,'original_max_position_embeddings':8}}"},
    {"mistral", "{'model_type':'mistral'," LLAMA_KEYS ",'sliding_window':4,'rope_theta':1000.0}"},
    {"qwen2", "{'model_type':'qwen2'," LLAMA_KEYS ",'use_sliding_window':true,'sliding_window':4,"
              "'max_window_layers':1}"},
    {"qwen3", "{'model_type':'qwen3'," LLAMA_KEYS ",'head_dim':6,'tie_word_embeddings':true}"},
    {"gemma", "{'model_type':'gemma'," LLAMA_KEYS ",'hidden_activation':'gelu_pytorch_tanh'}"},
    {"gemma2",
     "{'model_type':'gemma2'," LLAMA_KEYS ",'query_pre_attn_scalar':7,'attn_logit_softcapping':50.0,"
     "'final_logit_softcapping':null}"},
    {"gemma3_text", "{'model_type':'gemma3_text'," GEMMA3_KEYS "}"},
    {"gemma3", "{'model_type':'gemma3','text_config':{" GEMMA3_KEYS "}}"},
    {"transformer_lens", "{'model_type':'transformer_lens','d_model':8,'n_heads':2,'n_layers':3,'n_ctx':16,"
                         "'d_vocab':7,'d_head':4,'act_fn':'solu_ln','normalization_type':'LNPre',"
                         "'attn_types':['global','local','local'],'window_size':4,'attention_dir':'causal'}"},
};
#define N_GOOD (sizeof good / sizeof *good)

/* JSON with ' for ", as an exact copy. */
static size_t quoted(const char *text, char *out, size_t n)
{
    size_t len = strlen(text);
    assert_true(len < n);
    for (size_t i = 0; i <= len; i++)
        out[i] = text[i] == '\'' ? '"' : text[i];
    return len;
}

static json_t *parsed(const char *text)
{
    char buf[4096];
    json_error_t e;
    json_t *v = json_loadb(buf, quoted(text, buf, sizeof buf), JSON_DECODE_ANY, &e);
    if (!v)
        fail_msg("%s: %s", text, e.text);
    return v;
}

/* ---- one defect each --------------------------------------------------------------------------- */

/* clang-format off */
/* family, what is changed in its right config ('-key': taken out), the code, and words that the message must have. */
static const struct row {
    const char *name, *family, *change;
    enum sonde_code want;
    const char *says;
} rows[] = {
    {"unknown_architecture_lists_the_known", "gpt2", "{'model_type':'mamba'}", 3,
     "model_type 'mamba' is not known; these are: gpt2, gpt_neo, gpt_neox, llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3, gemma3_text, transformer_lens"},
    {"no_model_type", "gpt2", "{'-model_type':0}", 3, "model_type '(none)' is not known"},
    {"model_type_null", "gpt2", "{'model_type':null}", 3, "(none)"},
    {"model_type_number", "gpt2", "{'model_type':2}", 3, "'model_type' must be a string, it is an integer"},
    {"model_type_with_newline", "gpt2", "{'model_type':'gpt2\\n'}", 3, "'gpt2?'"},

    {"heads_do_not_divide_width", "gpt2", "{'n_head':3}", 3, "3 heads do not divide the width 8"},
    {"neox_heads_do_not_divide_width", "gpt_neox", "{'num_attention_heads':5}", 3, "5 heads do not divide the width 16"},
    {"neo_heads_do_not_divide_width", "gpt_neo", "{'num_heads':16}", 3, "16 heads do not divide the width 8"},
    {"llama_heads_do_not_divide_width", "llama", "{'num_attention_heads':6}", 3, "6 heads do not divide the width 8"},
    {"head_dim_makes_any_width_right", "qwen3", "{'num_attention_heads':6}", 0, NULL},
    {"heads_0", "gpt2", "{'n_head':0}", 3, "'n_head' is 0, it must be between 1 and"},
    {"heads_negative", "llama", "{'num_attention_heads':-4}", 3, "'num_attention_heads' is -4"},
    {"heads_2_31", "llama", "{'num_attention_heads':2147483648}", 3, "2147483648"},
    {"heads_1e9", "gpt2", "{'n_head':1000000000}", 3, "1000000000"},
    {"heads_real", "gpt2", "{'n_head':2.0}", 3, "must be an integer, it is a real number"},
    {"heads_null", "gpt2", "{'n_head':null}", 3, "'n_head' is missing"},
    {"heads_missing", "gpt2", "{'-n_head':0}", 3, "'n_head' is missing"},
    {"heads_string", "gpt2", "{'n_head':'2'}", 3, "must be an integer, it is a string"},
    {"heads_list", "llama", "{'num_attention_heads':[4]}", 3, "it is an array"},
    {"heads_true", "llama", "{'num_attention_heads':true}", 3, "it is a boolean"},
    {"kv_heads_do_not_divide_heads", "llama", "{'num_key_value_heads':3}", 3, "3 key-value heads do not divide 4 heads"},
    {"kv_heads_more_than_heads", "llama", "{'num_key_value_heads':8}", 3, "8 key-value heads do not divide 4 heads"},
    {"kv_heads_0", "llama", "{'num_key_value_heads':0}", 3, "'num_key_value_heads' is 0"},
    {"kv_heads_absent_are_heads", "llama", "{'-num_key_value_heads':0}", 0, NULL},
    {"tl_kv_heads_do_not_divide", "transformer_lens", "{'n_key_value_heads':3}", 3, "3 key-value heads"},

    {"layers_0", "gpt2", "{'n_layer':0}", 3, "'n_layer' is 0, it must be between 1 and 1024"},
    {"layers_negative", "gpt2", "{'n_layer':-1}", 3, "'n_layer' is -1"},
    {"layers_1e9", "llama", "{'num_hidden_layers':1000000000}", 3, "must be between 1 and 1024"},
    {"layers_1025", "llama", "{'num_hidden_layers':1025}", 3, "must be between 1 and 1024"},
    {"layers_1024", "llama", "{'num_hidden_layers':1024}", 0, NULL},
    {"width_0", "gpt2", "{'n_embd':0}", 3, "'n_embd' is 0"},
    {"width_negative", "llama", "{'hidden_size':-8}", 3, "'hidden_size' is -8"},
    {"width_2_31", "llama", "{'hidden_size':2147483648}", 3, "'hidden_size' is 2147483648"},
    {"width_2_63", "llama", "{'hidden_size':9223372036854775807}", 3, "'hidden_size' is 9223372036854775807"},
    {"vocab_0", "gpt2", "{'vocab_size':0}", 3, "'vocab_size' is 0"},
    {"vocab_2_40", "llama", "{'vocab_size':1099511627776}", 3, "'vocab_size' is 1099511627776"},
    {"mlp_0", "llama", "{'intermediate_size':0}", 3, "'intermediate_size' is 0"},
    {"mlp_1e9", "gpt2", "{'n_inner':1000000000}", 3, "'n_inner' is 1000000000"},
    {"context_0", "gpt2", "{'n_positions':0}", 3, "'n_positions' is 0"},
    {"context_0_llama", "llama", "{'max_position_embeddings':0}", 3, "'max_position_embeddings' is 0"},
    {"context_missing", "gpt2", "{'-n_positions':0}", 3, "'n_ctx' is missing"},
    {"context_old_name", "gpt2", "{'-n_positions':0,'n_ctx':16}", 0, NULL},
    {"head_width_0", "llama", "{'head_dim':0}", 3, "'head_dim' is 0"},
    {"head_width_65537", "llama", "{'head_dim':65537}", 3, "'head_dim' is 65537"},
    {"heads_times_width_too_large", "llama", "{'head_dim':65536,'num_attention_heads':1024}", 3, "1024 heads of width 65536"},
    {"tl_no_head_width_left", "transformer_lens", "{'-d_head':0,'n_heads':16}", 3, "16 heads of width 0"},

    {"eps_negative", "gpt2", "{'layer_norm_epsilon':-1e-5}", 3, "'layer_norm_epsilon' is -1e-05"},
    {"eps_2", "llama", "{'rms_norm_eps':2}", 3, "'rms_norm_eps' is 2"},
    {"eps_string", "llama", "{'rms_norm_eps':'1e-5'}", 3, "'rms_norm_eps' must be a number"},
    {"eps_0_is_what_the_config_says", "llama", "{'rms_norm_eps':0}", 0, NULL},
    {"neox_eps_negative", "gpt_neox", "{'layer_norm_eps':-1}", 3, "'layer_norm_eps' is -1"},
    {"tl_eps_negative", "transformer_lens", "{'eps':-1}", 3, "'eps' is -1"},

    {"theta_0", "llama", "{'rope_theta':0}", 3, "'rope_theta' is 0"},
    {"theta_negative", "mistral", "{'rope_theta':-10000.0}", 3, "'rope_theta' is -10000"},
    {"theta_string_nan", "llama", "{'rope_theta':'NaN'}", 3, "'rope_theta' must be a number, it is a string"},
    {"theta_huge", "llama", "{'rope_theta':1e300}", 3, "'rope_theta' is 1e+300"},
    {"theta_in_parameters_0", "llama", "{'rope_parameters':{'rope_theta':0}}", 3, "'rope_theta' is 0"},
    {"neox_base_0", "gpt_neox", "{'rotary_emb_base':0}", 3, "'rotary_emb_base' is 0"},
    {"gemma3_local_theta_0", "gemma3_text", "{'-rope_parameters':0,'rope_local_base_freq':0}", 3, "'rope_local_base_freq' is 0"},
    {"tl_base_string", "transformer_lens", "{'positional_embedding_type':'rotary','rotary_base':'x'}", 3, "'rotary_base' must be a number"},
    {"rope_parameters_list", "llama", "{'rope_parameters':[1]}", 3, "'rope_parameters' must be an object"},
    {"rope_scaling_string", "llama", "{'rope_scaling':'linear'}", 3, "'rope_scaling' must be an object"},
    {"rope_scaling_null", "llama", "{'rope_scaling':null}", 0, NULL},
    {"rope_type_yarn", "llama", "{'rope_scaling':{'rope_type':'yarn','factor':4}}", 3, "rope type 'yarn' is not supported (default, linear and llama3 are)"},
    {"rope_type_dynamic", "llama", "{'rope_scaling':{'type':'dynamic','factor':4}}", 3, "rope type 'dynamic'"},
    {"rope_type_longrope", "qwen2", "{'rope_parameters':{'rope_type':'longrope'}}", 3, "rope type 'longrope'"},
    {"rope_type_number", "llama", "{'rope_scaling':{'rope_type':4}}", 3, "'rope_type' must be a string"},
    {"rope_factor_0", "llama", "{'rope_scaling':{'type':'linear','factor':0}}", 3, "'factor' is 0"},
    {"rope_factor_string", "llama", "{'rope_scaling':{'type':'linear','factor':'8'}}", 3, "'factor' must be a number"},
    {"llama3_frequencies_swapped", "llama", "{'rope_scaling':{'rope_type':'llama3','low_freq_factor':4,'high_freq_factor':1}}", 3, "high_freq_factor 1 is not above low_freq_factor 4"},
    {"llama3_frequencies_equal", "llama", "{'rope_scaling':{'rope_type':'llama3','low_freq_factor':4,'high_freq_factor':4}}", 3, "not above"},
    {"gemma3_flat_rope_parameters", "gemma3_text", "{'rope_parameters':{'rope_theta':1e4}}", 3, "needs 'full_attention' and 'sliding_attention'"},
    {"gemma3_rope_kind_is_no_object", "gemma3_text", "{'rope_parameters':{'full_attention':1,'sliding_attention':{}}}", 3, "'full_attention' must be an object"},
    {"odd_head_with_rope", "llama", "{'head_dim':5}", 3, "5 rotary dimensions do not fit heads of width 5"},
    {"odd_rotary_part", "gpt_neox", "{'rotary_pct':0.4}", 3, "3 rotary dimensions"},
    {"rotary_part_above_1", "gpt_neox", "{'rotary_pct':1.5}", 3, "'rotary_pct' is 1.5"},
    {"rotary_part_negative", "gpt_neox", "{'rotary_pct':-0.25}", 3, "'rotary_pct' is -0.25"},
    {"partial_factor_above_1", "gpt_neox", "{'rope_parameters':{'partial_rotary_factor':2}}", 3, "'partial_rotary_factor' is 2"},
    {"tl_rotary_beyond_the_head", "transformer_lens", "{'positional_embedding_type':'rotary','rotary_dim':6}", 3, "6 rotary dimensions do not fit heads of width 4"},
    {"tl_adjacent_pairs", "transformer_lens", "{'positional_embedding_type':'rotary','rotary_adjacent_pairs':true}", 3, "rotary_adjacent_pairs is not supported"},
    {"tl_positions_of_another_kind", "transformer_lens", "{'positional_embedding_type':'alibi'}", 3, "'alibi' is not known (standard, shortformer, rotary, none are)"},

    {"layer_types_too_few", "gemma3_text", "{'layer_types':['full_attention']}", 3, "layer_types gives 1 layers, this model has 3"},
    {"layer_types_too_many", "gemma2", "{'layer_types':['full_attention','full_attention','full_attention','full_attention']}", 3, "layer_types gives 4 layers"},
    {"layer_types_unknown_word", "gemma2", "{'layer_types':['full_attention','linear_attention','full_attention']}", 3, "layer_types has an entry 'linear_attention'; 'full_attention' and 'sliding_attention' are known"},
    {"layer_types_number", "mistral", "{'layer_types':[0,0,0]}", 3, "layer_types has an entry '(not a string)'"},
    {"layer_types_string", "qwen2", "{'layer_types':'full_attention'}", 3, "'layer_types' must be a list"},
    {"attention_layers_too_few", "gpt_neo", "{'attention_layers':['global']}", 3, "attention_layers gives 1 layers"},
    {"attention_layers_unknown_word", "gpt_neo", "{'attention_layers':['global','sparse','local']}", 3, "'sparse'; 'global' and 'local' are known"},
    {"attention_types_object", "gpt_neo", "{'attention_types':{}}", 3, "'attention_types' must be a list"},
    {"attention_types_of_words", "gpt_neo", "{'attention_types':['global','local']}", 3, "attention_types must be like"},
    {"attention_types_too_many", "gpt_neo", "{'attention_types':[[['global','local'],2]]}", 3, "attention_types gives 4 layers, this model has 3"},
    {"attention_types_none", "gpt_neo", "{'attention_types':[]}", 3, "attention_types gives 0 layers"},
    {"attention_types_2_62_times", "gpt_neo", "{'attention_types':[[['global'],4611686018427387904]]}", 3, "layers, this model has 3"},
    {"attention_types_negative_times", "gpt_neo", "{'attention_types':[[['global'],-3]]}", 3, "attention_types must be like"},
    {"attention_types_empty_pattern", "gpt_neo", "{'attention_types':[[[],4611686018427387904]]}", 3, "attention_types must be like"},
    {"attention_types_unknown_word", "gpt_neo", "{'attention_types':[[['global',null,'local'],1]]}", 3, "'(not a string)'"},
    {"attention_types_absent", "gpt_neo", "{'-attention_types':0}", 0, NULL},
    {"attn_types_too_few", "transformer_lens", "{'attn_types':['local']}", 3, "attn_types gives 1 layers"},
    {"attn_types_unknown_word", "transformer_lens", "{'attn_types':['local','global','x']}", 3, "attn_types has an entry 'x'"},
    {"attn_types_without_window", "transformer_lens", "{'-window_size':0}", 3, "window_size is missing"},
    {"attn_types_not_in_use", "transformer_lens", "{'-window_size':0,'use_local_attn':false}", 0, NULL},
    {"window_0", "gpt_neo", "{'window_size':0}", 3, "'window_size' is 0"},
    {"sliding_window_0", "mistral", "{'sliding_window':0}", 3, "'sliding_window' is 0"},
    {"sliding_window_negative", "gemma2", "{'sliding_window':-1}", 3, "'sliding_window' is -1"},
    {"sliding_window_string", "qwen2", "{'sliding_window':'4'}", 3, "'sliding_window' must be an integer"},
    {"sliding_pattern_0", "gemma3_text", "{'sliding_window_pattern':0}", 3, "'sliding_window_pattern' is 0"},
    {"max_window_layers_negative", "qwen2", "{'max_window_layers':-1}", 3, "'max_window_layers' is -1"},

    {"activation_unknown", "gpt2", "{'activation_function':'mish'}", 3, "activation 'mish' is not known"},
    {"activation_number", "llama", "{'hidden_act':1}", 3, "'hidden_act' must be a string"},
    {"gemma_activation_unknown", "gemma", "{'hidden_activation':'x'}", 3, "activation 'x'"},
    {"gated_solu", "transformer_lens", "{'gated_mlp':true}", 3, "a gated MLP with act_fn 'solu_ln' is not supported"},
    {"norm_unknown", "transformer_lens", "{'normalization_type':'BatchNorm'}", 3, "'BatchNorm' is not known (null, LN, LNPre, RMS, RMSPre are)"},
    {"direction_unknown", "transformer_lens", "{'attention_dir':'backward'}", 3, "attention_dir 'backward' is not known"},
    {"pad_negative", "transformer_lens", "{'pad_token_id':-7}", 3, "'pad_token_id' is -7"},
    {"tied_with_two_vocabularies", "llama", "{'tie_word_embeddings':1}", 3, "'tie_word_embeddings' must be true or false"},
    {"softcap_negative", "gemma2", "{'attn_logit_softcapping':-1}", 3, "'attn_logit_softcapping' is -1"},
    {"softcap_huge", "gemma2", "{'final_logit_softcapping':1e38}", 3, "'final_logit_softcapping' is 1e+38"},
    {"query_scale_0", "gemma2", "{'query_pre_attn_scalar':0}", 3, "'query_pre_attn_scalar' is 0"},
    {"tl_scale_subnormal", "transformer_lens", "{'attn_scale':1e-310}", 3, "is not finite"},
    {"scale_flag_string", "gpt2", "{'scale_attn_weights':'true'}", 3, "'scale_attn_weights' must be true or false"},
    {"parallel_flag_number", "gpt_neox", "{'use_parallel_residual':1}", 3, "'use_parallel_residual' must be true or false"},
    {"bidirectional_gemma", "gemma3_text", "{'use_bidirectional_attention':true}", 3, "use_bidirectional_attention is not supported"},
    {"text_config_string", "gemma3", "{'text_config':'gemma3_text'}", 3, "'text_config' must be an object"},
    {"text_config_list", "gemma3", "{'text_config':[]}", 3, "'text_config' must be an object"},
    {"text_config_empty", "gemma3", "{'text_config':{}}", 3, "'hidden_size' is missing"},
    {"text_config_null", "gemma3", "{'text_config':null}", 3, "'hidden_size' is missing"},
};

/* Whole files. */
static const struct {
    const char *name, *text;
    enum sonde_code want;
    const char *says;
} files[] = {
    {"empty_file", "", 3, "config.json"},
    {"blank_file", " \n", 3, "config.json"},
    {"list", "[]", 3, "an object with the key 'model_type' is expected, this is an array"},
    {"string", "'gpt2'", 3, "config.json"},
    {"null", "null", 3, "config.json"},
    {"two_values", "{'model_type':'gpt2'}{}", 3, "config.json"},
    {"key_twice", "{'model_type':'gpt2','n_embd':8,'n_embd':8}", 3, "duplicate object key"},
    {"key_twice_by_escape", "{'model_type':'gpt2','n_embd':8,'n_em\\u0062d':8}", 3, "duplicate object key"},
    {"nan", "{'model_type':'llama','rope_theta':NaN}", 3, "config.json"},
    {"infinity", "{'model_type':'llama','rope_theta':Infinity}", 3, "config.json"},
    {"theta_1e400", "{'model_type':'llama','rope_theta':1e400}", 3, "real number overflow"},
    {"heads_2_64", "{'model_type':'gpt2','n_embd':8,'n_head':18446744073709551616}", 3, "'n_head' must be an integer"},
    {"not_utf8", "{'model_type':'gpt2\xff'}", 3, "config.json"},
    {"nul_in_string", "{'model_type':'gpt2\\u0000'}", 3, "config.json"},
};
/* clang-format on */

static char *changed(const char *family, const char *change)
{
    const char *key;
    json_t *config = NULL, *v, *patch = parsed(change);
    for (size_t i = 0; i < N_GOOD; i++)
        if (!strcmp(good[i].name, family))
            config = parsed(good[i].text);
    json_object_foreach(patch, key, v)
    {
        if (*key == '-')
            json_object_del(config, key + 1);
        else
            json_object_set(config, key, v);
    }
    char *text = json_dumps(config, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(config);
    json_decref(patch);
    assert_non_null(text);
    return text;
}

static void expect(const char *name, const char *text, size_t n, enum sonde_code want, const char *says)
{
    sonde_budget budget = {.limit = LIMIT};
    sonde_err err;
    enum sonde_code rc = check_config(text, n, &budget, NULL, &err);
    if (rc != want || (says && !strstr(err.msg, says)))
        fail_msg("%s: code %d, message '%s'", name, (int)rc, err.msg);
}

static void rows_are_as_promised(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *text = changed(rows[i].family, rows[i].change);
        expect(rows[i].name, text, strlen(text), rows[i].want, rows[i].says);
        free(text);
    }
}

static void files_are_as_promised(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char buf[256];
        size_t n = quoted(files[i].text, buf, sizeof buf);
        expect(files[i].name, buf, n, files[i].want, files[i].says);
    }
}

/* Every key of every right config with a value of every other type: refused, or (where null means absent, or
 * the value is of the key's own type) still an architecture. */
static void wrong_types_are_clean(void **state)
{
    static const char *const values[] = {"null",  "true", "-1", "0",  "0.5",
                                         "1e308", "'x'",  "[]", "{}", "[[[1]]]"};
    (void)state;
    for (size_t i = 0; i < N_GOOD; i++) {
        const char *key;
        json_t *v, *config = parsed(good[i].text);
        json_object_foreach(config, key, v)
        {
            for (size_t j = 0; j < sizeof values / sizeof *values; j++) {
                sonde_budget budget = {.limit = LIMIT};
                sonde_err err;
                json_t *spoilt = json_copy(config);
                json_object_set_new(spoilt, key, parsed(values[j]));
                char *text = json_dumps(spoilt, JSON_COMPACT);
                enum sonde_code rc = check_config(text, strlen(text), &budget, NULL, &err);
                if (rc == SONDE_OK && (values[j][0] == '[' || values[j][0] == '{') && json_is_number(v))
                    fail_msg("%s: '%s' may be %s", good[i].name, key, values[j]);
                free(text);
                json_decref(spoilt);
            }
        }
        json_decref(config);
    }
}

static void truncation_at_every_byte_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GOOD; i++) {
        char buf[4096];
        size_t n = quoted(good[i].text, buf, sizeof buf);
        expect(good[i].name, buf, n, SONDE_OK, NULL);
        for (size_t cut = 0; cut < n; cut++) {
            char *exact = malloc(cut ? cut : 1); /* so that a sanitizer sees every byte read past it */
            memcpy(exact, buf, cut);
            expect(good[i].name, exact, cut, SONDE_E_INPUT, NULL);
            free(exact);
        }
    }
}

static void every_single_bit_flip_is_clean(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GOOD; i++) {
        char buf[4096];
        size_t n = quoted(good[i].text, buf, sizeof buf);
        for (size_t bit = 0; bit < 8 * n; bit++) {
            sonde_budget budget = {.limit = LIMIT};
            sonde_err err;
            buf[bit / 8] ^= (char)(1 << bit % 8);
            check_config(buf, n, &budget, NULL, &err);
            buf[bit / 8] ^= (char)(1 << bit % 8);
        }
    }
}

/* The seeds of fuzz_config. */
static int write_seeds(const char *dir)
{
    for (size_t i = 0; i < N_GOOD; i++) {
        char buf[4096], path[512];
        size_t n = quoted(good[i].text, buf, sizeof buf);
        snprintf(path, sizeof path, "%s/%s", dir, good[i].name);
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(buf, 1, n, f) != n || fclose(f) != 0)
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_as_promised),
        cmocka_unit_test(files_are_as_promised),
        cmocka_unit_test(wrong_types_are_clean),
        cmocka_unit_test(truncation_at_every_byte_is_refused),
        cmocka_unit_test(every_single_bit_flip_is_clean),
    };
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0)
        return write_seeds(argv[2]);
    return cmocka_run_group_tests_name("bad_models", tests, NULL, NULL);
}
