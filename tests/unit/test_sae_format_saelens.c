/* SPDX-License-Identifier: MIT
 * SAELens' directory: what is written is read back, and every older form means what SAELens means by it. */
#include "dict_fixture.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/half.h"
#include "base/replace.h"
#include "file/safetensors.h"

static char dir[32], sae[64];

static int make_place(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-test-XXXXXX");
    snprintf(sae, sizeof sae, "%.24s/sae", mkdtemp(dir));
    return 0;
}

static int remove_place(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static char *in(const char *name)
{
    static char path[4][128];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof *path, "%s/%s", sae, name);
    return path[turn];
}

static void put_json(const char *name, const char *text)
{
    mkdir(sae, 0777);
    assert_int_equal(sonde_file_replace(in(name), text, strlen(text), NULL), SONDE_OK);
}

static json_t *cfg_json(void)
{
    json_t *root = json_load_file(in("cfg.json"), 0, NULL);
    assert_non_null(root);
    return root;
}

static const char *cfg_text(json_t *root, const char *key)
{
    return json_string_value(json_object_get(root, key));
}

static sonde_dict *load(char note[400])
{
    sonde_err err = {0};
    sonde_dict *d = NULL;
    if (sonde_dict_load(sae, NULL, NULL, &d, note, &err))
        fail_msg("%s", err.msg);
    return d;
}

static void refused(enum sonde_code want, const char *word)
{
    sonde_err err = {0};
    sonde_dict *d = NULL;
    assert_int_equal(sonde_dict_load(sae, NULL, NULL, &d, NULL, &err), want);
    if (!strstr(err.msg, word))
        fail_msg("'%s' does not say '%s'", err.msg, word);
}

static void assert_equal_dicts(const sonde_dict *a, const sonde_dict *b)
{
    char x[65], y[65];
    sonde_dict_identity(a, x, NULL);
    sonde_dict_identity(b, y, NULL);
    assert_string_equal(x, y);
    assert_true(json_equal(a->meta, b->meta));
}

/* ---- version 6 ----------------------------------------------------------------------------------- */

static const struct {
    const char *arch;
    enum sonde_dict_act act;
    size_t d_in, d_out;
    bool skip, transcoder;
} kinds[] = {
    {"standard", SONDE_DICT_RELU, 6, 6, false, false},
    {"topk", SONDE_DICT_TOPK, 6, 6, false, false},
    {"jumprelu", SONDE_DICT_JUMPRELU, 6, 6, false, false},
    {"gated", SONDE_DICT_GATED, 6, 6, false, false},
    {"groupmax", SONDE_DICT_GROUPMAX, 6, 6, false, false},
    {"transcoder", SONDE_DICT_RELU, 6, 9, false, false},
    {"transcoder", SONDE_DICT_RELU, 6, 6, false, true},
    {"skip_transcoder", SONDE_DICT_RELU, 6, 9, true, false},
    {"skip_transcoder", SONDE_DICT_RELU, 6, 6, true, false},
    {"jumprelu_transcoder", SONDE_DICT_JUMPRELU, 6, 9, false, false},
    {"jumprelu_skip_transcoder", SONDE_DICT_JUMPRELU, 6, 9, true, false},
    {"topk", SONDE_DICT_TOPK, 6, 6, false, true},
    {"topk_transcoder", SONDE_DICT_TOPK, 6, 9, false, false},
    {"topk_skip_transcoder", SONDE_DICT_TOPK, 6, 6, true, false},
    {"gated_transcoder", SONDE_DICT_GATED, 6, 9, false, false},
    {"groupmax_skip_transcoder", SONDE_DICT_GROUPMAX, 6, 9, true, false},
};

static sonde_dict *make_kind(size_t i)
{
    sonde_dict *d = make_dict(kinds[i].act, kinds[i].d_in, kinds[i].d_out, 20, kinds[i].skip, 20 + i);
    json_object_set_new(d->meta, "model_name", json_string("gpt2"));
    json_object_set_new(d->meta, "hook_name", json_string("blocks.3.hook_resid_post"));
    json_object_set_new(d->meta, "context_size", json_integer(128));
    json_object_set_new(d->meta, "prepend_bos", json_true());
    if (kinds[i].transcoder) {
        json_object_set_new(d->meta, "hook_name_out", json_string("blocks.3.hook_mlp_out"));
        d->pre_bias = false;
    }
    return d;
}

static void every_architecture_comes_back_bit_for_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        sonde_err err = {0};
        sonde_dict *d = make_kind(i), *back;
        char note[400];
        if (sonde_dict_save(d, "saelens", sae, true, &err))
            fail_msg("%s", err.msg);
        json_t *cfg = cfg_json();
        assert_string_equal(cfg_text(cfg, "architecture"), kinds[i].arch);
        assert_int_equal(json_is_true(json_object_get(cfg, "apply_b_dec_to_input")), d->pre_bias);
        back = load(note);
        assert_string_equal(note, "");
        assert_string_equal(back->format, "saelens");
        json_object_del(back->meta, "sae_lens_version");
        assert_equal_dicts(d, back);
        json_decref(cfg);
        sonde_dict_free(d);
        sonde_dict_free(back);
    }
}

/* What SAELens calls every version before 6 without this key, and then reads other keys. */
static void the_version_is_always_written(void **state)
{
    (void)state;
    static const char *const versions[][2] = {{NULL, "6.18.0"},
                                              {"6.49.1", "6.49.1"},
                                              {"5.10.0", "6.18.0"},
                                              {"6.0.0-rc.0", "6.18.0"},
                                              {"", "6.18.0"}};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        sonde_dict *d = make_kind(0);
        if (versions[i][0])
            json_object_set_new(d->meta, "sae_lens_version", json_string(versions[i][0]));
        assert_int_equal(sonde_dict_save(d, "saelens", sae, true, NULL), SONDE_OK);
        json_t *cfg = cfg_json();
        assert_string_equal(cfg_text(json_object_get(cfg, "metadata"), "sae_lens_version"), versions[i][1]);
        json_decref(cfg);
        sonde_dict_free(d);
    }
}

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *text = malloc(1 << 20);
    *n = fread(text, 1, 1 << 20, f);
    fclose(f);
    return text;
}

static void saving_what_was_loaded_gives_the_same_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {"cfg.json", "sae_weights.safetensors", "sparsity.safetensors"};
    sonde_dict *d = make_kind(2), *back;
    char *before[3], *after;
    size_t n_before[3], n_after;
    d->trained_as = "batchtopk";
    d->sparsity = sonde_arena_get(d->arena, 20, sizeof(float), NULL);
    d->sparsity[3] = -1.5f;
    json_object_set_new(d->meta, "reshape_activations", json_string("hook_z"));
    json_object_set_new(d->meta, "odd", json_real(0.1));
    assert_int_equal(sonde_dict_save(d, "saelens", sae, false, NULL), SONDE_OK);
    for (int i = 0; i < 3; i++)
        before[i] = slurp(in(names[i]), &n_before[i]);
    back = load(NULL);
    assert_true(back->sparsity && back->sparsity[3] == -1.5f);
    assert_string_equal(back->trained_as, "batchtopk");
    assert_int_equal(sonde_dict_save(back, "saelens", sae, true, NULL), SONDE_OK);
    for (int i = 0; i < 3; i++) {
        after = slurp(in(names[i]), &n_after);
        assert_int_equal(n_after, n_before[i]);
        assert_memory_equal(after, before[i], n_after);
        free(after);
        free(before[i]);
    }
    json_t *cfg = cfg_json();
    assert_string_equal(cfg_text(cfg, "reshape_activations"), "hook_z");
    assert_null(json_object_get(json_object_get(cfg, "metadata"), "reshape_activations"));
    json_decref(cfg);
    sonde_dict_free(d);
    sonde_dict_free(back);
}

static void an_existing_directory_is_kept(void **state)
{
    (void)state;
    sonde_err err;
    sonde_dict *d = make_kind(0);
    assert_int_equal(sonde_dict_save(d, "saelens", sae, false, &err), SONDE_OK);
    assert_int_equal(sonde_dict_save(d, "saelens", sae, false, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "--force"));
    assert_int_equal(sonde_dict_save(d, "saelens", sae, true, &err), SONDE_OK);
    sonde_dict_free(d);
}

static void the_sparsity_of_another_dictionary_goes(void **state)
{
    (void)state;
    sonde_dict *d = make_kind(0);
    d->sparsity = sonde_arena_get(d->arena, 20, sizeof(float), NULL);
    assert_int_equal(sonde_dict_save(d, "saelens", sae, false, NULL), SONDE_OK);
    d->sparsity = NULL;
    assert_int_equal(sonde_dict_save(d, "saelens", sae, true, NULL), SONDE_OK);
    assert_int_equal(access(in("sparsity.safetensors"), F_OK), -1);
    sonde_dict_free(d);
}

static void a_directory_without_cfg_is_unfinished(void **state)
{
    (void)state;
    sonde_dict *d = make_kind(0);
    assert_int_equal(sonde_dict_save(d, "saelens", sae, false, NULL), SONDE_OK);
    unlink(in("cfg.json"));
    refused(SONDE_E_INPUT, "unfinished");
    sonde_dict_free(d);
}

static void a_shape_that_differs_is_named_with_both_numbers(void **state)
{
    (void)state;
    sonde_dict *d = make_kind(0);
    assert_int_equal(sonde_dict_save(d, "saelens", sae, false, NULL), SONDE_OK);
    put_json("cfg.json", "{\"architecture\":\"standard\",\"d_in\":6,\"d_sae\":21,\"metadata\":{\"sae_lens_"
                         "version\":\"6.1.0\"}}");
    refused(SONDE_E_INPUT, "'W_enc' has shape [6, 20], this dictionary needs [6, 21]");
    put_json("cfg.json", "{\"architecture\":\"jumprelu\",\"d_in\":6,\"d_sae\":20,\"metadata\":{\"sae_lens_"
                         "version\":\"6.1.0\"}}");
    refused(SONDE_E_INPUT, "no tensor 'threshold'");
    put_json("cfg.json", "{\"architecture\":\"topk\",\"k\":21,\"d_in\":6,\"d_sae\":20,\"metadata\":{\"sae_"
                         "lens_version\":\"6.1.0\"}}");
    refused(SONDE_E_INPUT, "k is 21, with 20 latents");
    put_json(
        "cfg.json",
        "{\"architecture\":\"topk\",\"d_in\":6,\"d_sae\":20,\"metadata\":{\"sae_lens_version\":\"6.1.0\"}}");
    refused(SONDE_E_INPUT, "'k' is missing");
    put_json("cfg.json", "{\"architecture\":\"temporal\",\"d_in\":6,\"d_sae\":20,\"metadata\":{\"sae_lens_"
                         "version\":\"6.1.0\"}}");
    refused(SONDE_E_INPUT, "'temporal' is not read");
    put_json("cfg.json", "{\"architecture\":\"batchtopk\",\"k\":4,\"d_in\":6,\"d_sae\":20,\"metadata\":{"
                         "\"sae_lens_version\":\"6.1.0\"}}");
    refused(SONDE_E_INPUT, "no tensor 'topk_threshold'");
    put_json("cfg.json", "{\"architecture\":\"standard\",\"d_in\":6,\"d_sae\":20,\"normalize_activations\":"
                         "\"covariance_whitening\",\"metadata\":{\"sae_lens_version\":\"6.1.0\"}}");
    refused(SONDE_E_INPUT, "covariance_whitening");
    sonde_dict_free(d);
}

static void numbers_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    sonde_dict *d = make_kind(0);
    sonde_err err;
    d->b_enc[7] = NAN;
    assert_int_equal(sonde_dict_save(d, "saelens", sae, false, &err), SONDE_E_NUMERIC);
    assert_non_null(strstr(err.msg, "b_enc is NaN at latent 7"));
    d->b_enc[7] = 0;
    assert_int_equal(sonde_dict_save(d, "saelens", sae, false, &err), SONDE_OK);
    size_t n;
    char *bytes = slurp(in("sae_weights.safetensors"), &n);
    memset(bytes + n - 4, 0xff, 4);
    assert_int_equal(sonde_file_replace(in("sae_weights.safetensors"), bytes, n, NULL), SONDE_OK);
    refused(SONDE_E_NUMERIC, "NaN at latent 19");
    free(bytes);
    sonde_dict_free(d);
}

/* ---- what SAELens computes and others write otherwise ------------------------------------------------ */

static void norms_per_row_come_back(void **state)
{
    (void)state;
    for (int unbiased = 0; unbiased < 2; unbiased++) {
        sonde_dict *d = make_dict(SONDE_DICT_TOPK, 24, 24, 40, false, 40), *back;
        d->norm = SONDE_DICT_NORM_LAYER;
        d->norm_unbiased = unbiased;
        d->norm_eps = 1e-5f;
        assert_int_equal(sonde_dict_save(d, "saelens", sae, true, NULL), SONDE_OK);
        back = load(NULL);
        assert_true(back->norm == SONDE_DICT_NORM_LAYER && back->norm_unbiased);
        double f[64];
        for (int i = 0; i < 40; i++)
            f[i] = unbiased ? 1 : sqrt(23.0 / 24.0);
        const struct change how = {f, NULL, NULL, 1, 1};
        assert_same(d, back, &how, 2e-6);
        sonde_dict_free(d);
        sonde_dict_free(back);
    }
    sonde_dict *d = make_dict(SONDE_DICT_RELU, 12, 12, 20, false, 41), *back;
    d->norm = SONDE_DICT_NORM_CONSTANT;
    assert_int_equal(sonde_dict_save(d, "saelens", sae, true, NULL), SONDE_OK);
    back = load(NULL);
    assert_equal_dicts(d, d);
    assert_same(d, back, NULL, 1e-6);
    sonde_dict_free(d);
    sonde_dict_free(back);
}

/* Tensors of d as SAELens lays them out, and one more. */
static void put_tensors(const sonde_dict *d, enum sonde_dtype dtype, const sonde_tensor *more)
{
    float *w_enc = malloc(d->n_latents * d->d_in * sizeof *w_enc);
    for (size_t i = 0; i < d->n_latents; i++)
        for (size_t c = 0; c < d->d_in; c++)
            w_enc[c * d->n_latents + i] = d->w_enc[i * d->d_in + c];
    const struct {
        const char *name;
        const float *x;
        int rank;
        uint64_t rows, columns;
    } array[] = {{"W_enc", w_enc, 2, d->d_in, d->n_latents},
                 {"b_enc", d->b_enc, 1, d->n_latents, 1},
                 {"W_dec", d->w_dec, 2, d->n_latents, d->d_out},
                 {"b_dec", d->b_dec, 1, d->d_out, 1}};
    sonde_tensor t[5];
    for (int i = 0; i < 4; i++) {
        size_t n = array[i].rows * array[i].columns, size = sonde_dtype_size(dtype);
        unsigned char *data = malloc(n * size);
        for (size_t k = 0; k < n; k++) {
            float x = array[i].x[k];
            double wide = (double)x;
            uint16_t half = dtype == SONDE_F16 ? sonde_f32_to_f16(x) : sonde_f32_to_bf16(x);
            memcpy(data + k * size, size == 8 ? (void *)&wide : size == 2 ? (void *)&half : (void *)&x, size);
        }
        t[i] = (sonde_tensor){.name = array[i].name,
                              .dtype = dtype,
                              .rank = array[i].rank,
                              .dim = {array[i].rows, array[i].columns},
                              .data = data,
                              .n_bytes = n * size};
    }
    if (more)
        t[4] = *more;
    mkdir(sae, 0777);
    assert_int_equal(
        sonde_safetensors_write(in("sae_weights.safetensors"), t, more ? 5 : 4, NULL, 0, true, NULL),
        SONDE_OK);
    for (int i = 0; i < 4; i++)
        free((void *)(uintptr_t)t[i].data);
    free(w_enc);
}

static void weights_of_other_types_are_read(void **state)
{
    (void)state;
    static const enum sonde_dtype types[] = {SONDE_F64, SONDE_F16, SONDE_BF16};
    static const double within[] = {0, 0x1p-11, 0x1p-8};
    put_json("cfg.json", "{\"architecture\":\"standard\",\"d_in\":6,\"d_sae\":20,\"dtype\":\"bfloat16\","
                         "\"metadata\":{\"sae_lens_version\":\"6.1.0\"}}");
    sonde_dict *d = make_kind(0);
    for (int i = 0; i < 3; i++) {
        put_tensors(d, types[i], NULL);
        sonde_dict *back = load(NULL);
        for (size_t k = 0; k < 6 * 20; k++)
            assert_true(fabs((double)(back->w_enc[k] - d->w_enc[k])) <=
                        within[i] * fabs((double)d->w_enc[k]));
        sonde_dict_free(back);
    }
    sonde_dict_free(d);
}

#define V6(arch, more)                                                                                       \
    "{\"architecture\":\"" arch "\",\"d_in\":6,\"d_sae\":20," more                                           \
    "\"apply_b_dec_to_input\":true,\"metadata\":{\"sae_lens_version\":\"6.30.0\"}}"

/* acts = topk(z * norm), recon = acts / norm @ W_dec. */
static void topk_rescaled_by_decoder_norms_is_folded(void **state)
{
    (void)state;
    char note[400];
    sonde_dict *d = make_kind(0), *back;
    put_tensors(d, SONDE_F32, NULL);
    put_json("cfg.json", V6("topk", "\"k\":4,\"rescale_acts_by_decoder_norm\":true,"));
    back = load(note);
    assert_non_null(strstr(note, "decoder norms"));
    assert_int_equal(back->k, 4);
    assert_int_equal(sonde_dict_unit_decoder(d, true, NULL),
                     SONDE_OK); /* the definition, by the other road */
    d->act = SONDE_DICT_TOPK;
    d->k = 4;
    assert_same(d, back, NULL, 1e-6);
    sonde_dict_free(d);
    sonde_dict_free(back);
}

static void a_latent_without_decoder_never_wins_a_rescaled_topk(void **state)
{
    (void)state;
    sonde_dict *d = make_kind(0), *back;
    memset(d->w_dec + 5 * 6, 0, 6 * sizeof *d->w_dec);
    d->b_enc[5] = 1000;
    put_tensors(d, SONDE_F32, NULL);
    put_json("cfg.json", V6("topk", "\"k\":4,\"rescale_acts_by_decoder_norm\":true,"));
    back = load(NULL);
    assert_true(back->b_enc[5] == 0);
    sonde_dict_free(d);
    sonde_dict_free(back);
}

/* The threshold of a checkpoint is in units of z * norm. */
static void a_batchtopk_checkpoint_becomes_jumprelu(void **state)
{
    (void)state;
    static const char *const archs[] = {"batchtopk", "matryoshka_batchtopk"};
    const double theta = 0.625;
    const sonde_tensor more = {
        .name = "topk_threshold", .dtype = SONDE_F64, .rank = 0, .data = &theta, .n_bytes = sizeof theta};
    for (int i = 0; i < 2; i++)
        for (int rescaled = 0; rescaled < 2; rescaled++) {
            char cfg[400];
            sonde_dict *d = make_kind(0), *back;
            put_tensors(d, SONDE_F32, &more);
            snprintf(cfg, sizeof cfg,
                     V6("%s", "\"k\":4.5,\"decoder_init_norm\":0.1,\"rescale_acts_by_decoder_norm\":%s,"),
                     archs[i], rescaled ? "true" : "false");
            put_json("cfg.json", cfg);
            back = load(NULL);
            assert_int_equal(back->act, SONDE_DICT_JUMPRELU);
            assert_string_equal(back->trained_as, archs[i]);
            assert_true(json_real_value(json_object_get(back->meta, "decoder_init_norm")) == 0.1);
            for (int k = 0; k < 20; k++)
                assert_true(back->threshold[k] == 0.625f);
            if (rescaled)
                assert_int_equal(sonde_dict_unit_decoder(d, true, NULL), SONDE_OK);
            d->act = SONDE_DICT_JUMPRELU;
            d->threshold = back->threshold;
            assert_same(d, back, NULL, 1e-6);
            sonde_dict_free(d);
            sonde_dict_free(back);
        }
}

static void a_logarithm_of_thresholds_is_read(void **state)
{
    (void)state;
    float log_theta[20];
    for (int i = 0; i < 20; i++)
        log_theta[i] = -0.1f * (float)i;
    const sonde_tensor more = {.name = "log_threshold",
                               .dtype = SONDE_F32,
                               .rank = 1,
                               .dim = {20},
                               .data = log_theta,
                               .n_bytes = 80};
    sonde_dict *d = make_kind(0), *back;
    put_tensors(d, SONDE_F32, &more);
    put_json("cfg.json", V6("jumprelu", ""));
    back = load(NULL);
    assert_true(back->threshold[10] == (float)exp((double)-1.0f));
    sonde_dict_free(d);
    sonde_dict_free(back);
}

static void an_input_scale_beside_a_checkpoint_is_folded(void **state)
{
    (void)state;
    char note[400];
    sonde_dict *d = make_kind(0), *back;
    put_tensors(d, SONDE_F32, NULL);
    put_json("cfg.json", V6("standard", "\"normalize_activations\":\"expected_average_only_in\","));
    refused(SONDE_E_INPUT, "activation_scaler.json");
    put_json("activation_scaler.json", "{\"scaling_factor\": null}");
    refused(SONDE_E_INPUT, "activation_scaler.json");
    put_json("activation_scaler.json", "{\"scaling_factor\": -2}");
    refused(SONDE_E_INPUT, "'scaling_factor' is -2");
    put_json("activation_scaler.json", "{\"scaling_factor\": 2.5}");
    back = load(note);
    assert_non_null(strstr(note, "2.5"));
    const struct change how = {.scale_in = 2.5, .scale_out = 2.5};
    assert_same(d, back, &how, 1e-6);
    sonde_dict_free(back);
    /* rescaled: rows of norm 1, latents in units of the raw input */
    put_json("cfg.json", V6("topk", "\"k\":4,\"rescale_acts_by_decoder_norm\":true,"
                                    "\"normalize_activations\":\"expected_average_only_in\","));
    back = load(NULL);
    assert_int_equal(sonde_dict_unit_decoder(d, true, NULL), SONDE_OK);
    assert_int_equal(sonde_dict_unit_decoder(back, false, NULL), SONDE_OK);
    d->act = SONDE_DICT_TOPK;
    d->k = 4;
    double f[64];
    for (int i = 0; i < 20; i++)
        f[i] = 1 / 2.5;
    const struct change scaled = {f, NULL, NULL, 2.5, 2.5};
    assert_same(d, back, &scaled, 1e-6);
    sonde_dict_free(d);
    sonde_dict_free(back);
}

static void finetuning_factors_go_into_the_decoder(void **state)
{
    (void)state;
    float factor[20];
    for (int i = 0; i < 20; i++)
        factor[i] = 0.5f + 0.1f * (float)i;
    const sonde_tensor more = {
        .name = "scaling_factor", .dtype = SONDE_F32, .rank = 1, .dim = {20}, .data = factor, .n_bytes = 80};
    sonde_dict *d = make_kind(0), *back;
    put_tensors(d, SONDE_F32, &more);
    put_json("cfg.json", "{\"d_in\":6,\"d_sae\":20}");
    refused(SONDE_E_INPUT, "finetuning_scaling_factor");
    put_json("cfg.json", "{\"d_in\":6,\"d_sae\":20,\"finetuning_scaling_factor\":true}");
    back = load(NULL);
    for (int i = 0; i < 120; i++)
        d->w_dec[i] *= factor[i / 6];
    assert_same(d, back, NULL, 1e-6);
    sonde_dict_free(back);
    for (int i = 0; i < 20; i++)
        factor[i] = 1;
    put_tensors(d, SONDE_F32, &more);
    put_json("cfg.json", "{\"d_in\":6,\"d_sae\":20}");
    back = load(NULL);
    assert_same(d, back, NULL, 1e-6);
    sonde_dict_free(d);
    sonde_dict_free(back);
}

/* ---- versions 3 to 5 ------------------------------------------------------------------------------ */

static void flat_configs_are_read(void **state)
{
    (void)state;
    sonde_dict *d = make_kind(0), *back;
    put_tensors(d, SONDE_F32, NULL);
    put_json("cfg.json",
             "{\"d_in\":6,\"d_sae\":20,\"dtype\":\"torch.float32\",\"hook_point\":\"blocks.7.attn.hook_z\","
             "\"hook_point_layer\":7,\"hook_point_head_index\":null,\"activation_fn\":\"relu\",\"device\":"
             "\"cuda\","
             "\"normalize_activations\":false,\"context_size\":64,\"lr\":0.0004,\"sae_lens_training_"
             "version\":\"3.5.0\"}");
    back = load(NULL);
    assert_int_equal(back->act, SONDE_DICT_RELU);
    assert_true(back->pre_bias);
    json_t *meta = back->meta;
    assert_string_equal(json_string_value(json_object_get(meta, "hook_name")), "blocks.7.attn.hook_z");
    assert_string_equal(json_string_value(json_object_get(meta, "reshape_activations")), "hook_z");
    assert_int_equal(json_integer_value(json_object_get(meta, "hook_layer")), 7);
    assert_int_equal(json_integer_value(json_object_get(meta, "context_size")), 64);
    assert_null(json_object_get(meta, "device"));
    assert_null(json_object_get(meta, "hook_head_index"));
    sonde_dict_free(back);
    put_json("cfg.json", "{\"d_in\":6,\"d_sae\":20,\"normalize_activations\":true}");
    refused(SONDE_E_INPUT, "expected_average_only_in");
    sonde_dict_free(d);
}

static void topk_of_older_versions_is_an_activation(void **state)
{
    (void)state;
    static const char *const archs[] = {"standard", "topk"};
    sonde_dict *d = make_kind(0), *back;
    put_tensors(d, SONDE_F32, NULL);
    for (int i = 0; i < 2; i++) {
        char cfg[400];
        snprintf(cfg, sizeof cfg,
                 "{\"architecture\":\"%s\",\"d_in\":6,\"d_sae\":20,\"apply_b_dec_to_input\":false,"
                 "\"activation_fn_str\":\"topk\",\"activation_fn_kwargs\":{\"k\":5}}",
                 archs[i]);
        put_json("cfg.json", cfg);
        back = load(NULL);
        assert_int_equal(back->act, SONDE_DICT_TOPK);
        assert_int_equal(back->k, 5);
        assert_false(back->pre_bias);
        sonde_dict_free(back);
    }
    put_json("cfg.json", "{\"d_in\":6,\"d_sae\":20,\"activation_fn_str\":\"tanh-relu\"}");
    refused(SONDE_E_INPUT, "tanh-relu");
    put_json("cfg.json", "{\"d_in\":6,\"d_sae\":20,\"activation_fn_str\":\"topk\",\"activation_fn_kwargs\":{"
                         "\"k\":5,\"signed\":true}}");
    refused(SONDE_E_INPUT, "signed");
    sonde_dict_free(d);
}

static void the_lists_of_formats_agree_with_the_table(void **state)
{
    (void)state;
    const char *const *all = sonde_dict_formats(false), *const *written = sonde_dict_formats(true);
    sonde_dict *d = make_kind(0), *ignored;
    sonde_err err;
    for (; *all; all++) {
        bool listed = false;
        for (const char *const *w = written; *w; w++)
            listed = listed || !strcmp(*w, *all);
        assert_true(sonde_dict_load("/nonexistent", *all, NULL, &ignored, NULL, &err) != SONDE_E_USAGE);
        enum sonde_code rc = sonde_dict_save(d, *all, "/nonexistent/x", false, &err);
        assert_int_equal(rc == SONDE_E_USAGE && strstr(err.msg, "not written") != NULL, !listed);
    }
    assert_int_equal(sonde_dict_load(sae, "saelans", NULL, &ignored, NULL, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "'saelens'"));
    assert_int_equal(sonde_dict_load("/nonexistent", NULL, NULL, &ignored, NULL, &err), SONDE_E_IO);
    assert_int_equal(sonde_dict_load(dir, NULL, NULL, &ignored, NULL, &err), SONDE_E_INPUT);
    sonde_dict_free(d);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_place, remove_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_architecture_comes_back_bit_for_bit),
        TEST(the_version_is_always_written),
        TEST(saving_what_was_loaded_gives_the_same_bytes),
        TEST(an_existing_directory_is_kept),
        TEST(the_sparsity_of_another_dictionary_goes),
        TEST(a_directory_without_cfg_is_unfinished),
        TEST(a_shape_that_differs_is_named_with_both_numbers),
        TEST(numbers_that_are_not_finite_are_refused),
        TEST(norms_per_row_come_back),
        TEST(weights_of_other_types_are_read),
        TEST(topk_rescaled_by_decoder_norms_is_folded),
        TEST(a_latent_without_decoder_never_wins_a_rescaled_topk),
        TEST(a_batchtopk_checkpoint_becomes_jumprelu),
        TEST(a_logarithm_of_thresholds_is_read),
        TEST(an_input_scale_beside_a_checkpoint_is_folded),
        TEST(finetuning_factors_go_into_the_decoder),
        TEST(flat_configs_are_read),
        TEST(topk_of_older_versions_is_an_activation),
        TEST(the_lists_of_formats_agree_with_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
