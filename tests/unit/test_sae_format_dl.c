/* SPDX-License-Identifier: MIT
 * dictionary_learning's files: every class there and back. Agreement with the library itself is in
 * tests/interop. */
#include "format_fixture.h"

#include "file/torchzip.h"
#include "sae/format_dl_impl.h"

static void assert_class(const char *want)
{
    json_t *cfg;
    assert_int_equal(sonde_json_load_in(path, "config.json", 1 << 20, &cfg, NULL), SONDE_OK);
    assert_string_equal(json_string_value(json_object_get(json_object_get(cfg, "trainer"), "dict_class")),
                        want);
    json_decref(cfg);
}

static void every_activation_has_its_class(void **state)
{
    (void)state;
    static const struct {
        enum sonde_dict_act act;
        bool pre_bias;
        const char *class, *trained_as;
    } all[] = {{SONDE_DICT_RELU, true, "AutoEncoder", "standard"},
               {SONDE_DICT_RELU, false, "AutoEncoderNew", "standard"},
               {SONDE_DICT_GATED, true, "GatedAutoEncoder", "gated"},
               {SONDE_DICT_GATED, false, "GatedAutoEncoder", "gated"},
               {SONDE_DICT_JUMPRELU, false, "JumpReluAutoEncoder", "jumprelu"},
               {SONDE_DICT_JUMPRELU, true, "JumpReluAutoEncoder", "jumprelu"},
               {SONDE_DICT_TOPK, true, "AutoEncoderTopK", "topk"},
               {SONDE_DICT_TOPK, false, "AutoEncoderTopK", "topk"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        sonde_dict *d = make_dict(all[i].act, 7, 7, 20, false, i);
        d->pre_bias = all[i].pre_bias;
        set_text(d, "model_name", "gpt2");
        set_text(d, "hook_name", "blocks.3.hook_resid_post");
        sonde_dict *back = there_and_back(d, "dictionary_learning", path);
        assert_class(all[i].class);
        assert_string_equal(back->trained_as, all[i].trained_as);
        assert_int_equal(back->k, d->k);
        assert_meta(back, "model_name", "gpt2");
        assert_meta(back, "hook_name", "blocks.3.hook_resid_post");
        sonde_dict_free(back);
        sonde_dict_free(d);
    }
}

static void batchtopk_keeps_its_class_its_k_and_its_groups(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_JUMPRELU, 7, 7, 20, false, 3);
    d->trained_as = "batchtopk";
    d->pre_bias = true;
    for (size_t i = 0; i < 20; i++)
        d->threshold[i] = 0.25f;
    sonde_dict *back = there_and_back(d, "dictionary_learning", path);
    assert_class("JumpReluAutoEncoder"); /* nothing says its k */
    sonde_dict_free(back);
    json_object_set_new(d->meta, "k", json_integer(4));
    back = there_and_back(d, "dictionary_learning", path);
    assert_class("BatchTopKSAE");
    assert_string_equal(back->trained_as, "batchtopk");
    assert_int_equal(json_integer_value(json_object_get(back->meta, "k")), 4);
    assert_true(back->pre_bias);
    sonde_dict_free(back);
    json_object_set_new(d->meta, "group_sizes", json_pack("[i,i,i]", 2, 8, 10));
    back = there_and_back(d, "dictionary_learning", path);
    assert_class("MatryoshkaBatchTopKSAE");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(back->meta, "group_sizes"), 1)), 8);
    sonde_dict_free(back);
    d->threshold[7] = 0.5f;
    back = there_and_back(d, "dictionary_learning", path);
    assert_class("JumpReluAutoEncoder"); /* thresholds that differ */
    sonde_dict_free(back);
    sonde_dict_free(d);
}

static void the_config_of_a_run_is_kept(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_TOPK, 7, 7, 20, false, 1);
    json_object_set_new(d->meta, "dictionary_learning",
                        json_pack("{s:{s:s,s:f,s:s,s:s,s:i},s:{s:i}}", "trainer", "dict_class",
                                  "AutoEncoderTopK", "lr", 5e-5, "submodule_name", "resid_post_layer_8",
                                  "lm_name", "EleutherAI/pythia-70m", "layer", 8, "buffer", "ctx_len", 128));
    save(d, "dictionary_learning", path);
    sonde_dict *back = load(path, "dictionary_learning");
    assert_meta(back, "hook_name", "blocks.8.hook_resid_post");
    assert_meta(back, "model_name", "EleutherAI/pythia-70m");
    assert_int_equal(json_integer_value(json_object_get(back->meta, "context_size")), 128);
    const json_t *t = json_object_get(json_object_get(back->meta, "dictionary_learning"), "trainer");
    assert_true(json_real_value(json_object_get(t, "lr")) == 5e-5);
    sonde_dict_free(back);
    sonde_dict_free(d);
}

/* ---- files that the library writes and we do not ------------------------------------------------- */

/* The state dict of AutoEncoderTopK in plain numbers: F 2, d 1. */
static const float enc[2] = {2, -3}, enc_bias[2] = {1, 1}, dec[2] = {0.5f, 0.25f}, bias[1] = {4};

static void write_state(const char *to, const char *prefix, const char *const *names,
                        const sonde_tensor *extra, size_t n_extra, const sonde_torch_value *value,
                        size_t n_values)
{
    char name[8][48];
    sonde_tensor t[8] = {
        sonde_dict_tensor("encoder.weight", enc, 2, 1), sonde_dict_tensor("decoder.weight", dec, 1, 2),
        sonde_dict_tensor(names[0], enc_bias, 2, 0), sonde_dict_tensor(names[1], bias, 1, 0)};
    size_t n = 4;
    for (size_t i = 0; i < n_extra; i++)
        t[n++] = extra[i];
    for (size_t i = 0; i < n; i++) {
        snprintf(name[i], sizeof name[i], "%s%s", prefix, t[i].name);
        t[i].name = name[i];
    }
    sonde_err err;
    if (sonde_torchzip_write(to, t, n, value, n_values, true, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
}

static const char *const topk_names[] = {"encoder.bias", "b_dec"};

static void a_backup_in_normalised_units_reads_raw_activations(void **state)
{
    (void)state;
    static const float threshold = 0.5f;
    static const int32_t k = 1;
    const sonde_tensor extra[] = {{.name = "threshold", .dtype = SONDE_F32, .data = &threshold, .n_bytes = 4},
                                  {.name = "k", .dtype = SONDE_I32, .data = &k, .n_bytes = 4}};
    const sonde_torch_value v[] = {
        {"config", {.key = "dict_class", .type = SONDE_META_STRING, .s = "BatchTopKSAE", .n_bytes = 12}},
        {NULL, {.key = "norm_factor", .type = SONDE_META_FLOAT, .f = 8}}};
    const char *file = in_dir("backup.pt");
    write_state(file, "ae.", topk_names, extra, 2, v, 2);
    sonde_dict *d = load(file, "dictionary_learning");
    assert_int_equal(d->act, SONDE_DICT_JUMPRELU);
    assert_true(d->w_enc[1] == -3 && d->w_dec[1] == 0.25f);
    assert_true(d->b_enc[0] == 8 && d->b_dec[0] == 32 && d->threshold[1] == 4);
    sonde_dict_free(d);
}

static void without_a_config_the_tensors_decide(void **state)
{
    (void)state;
    char note[400];
    sonde_dict *d;
    static const char *const standard[] = {"encoder.bias", "bias"}, *const new[] = {"encoder.bias",
                                                                                    "decoder.bias"};
    const char *file = in_dir("lonely.pt");
    write_state(file, "", standard, NULL, 0, NULL, 0);
    assert_int_equal(sonde_dict_load(file, NULL, NULL, &d, note, NULL), SONDE_OK);
    assert_true(d->pre_bias && d->act == SONDE_DICT_RELU);
    assert_non_null(strstr(note, "AutoEncoder"));
    sonde_dict_free(d);
    write_state(file, "", new, NULL, 0, NULL, 0);
    d = load(file, "dictionary_learning");
    assert_false(d->pre_bias);
    sonde_dict_free(d);
}

static void what_does_not_fit_together_is_refused(void **state)
{
    (void)state;
    static const int32_t k = 2;
    const sonde_tensor extra[] = {{.name = "k", .dtype = SONDE_I32, .data = &k, .n_bytes = 4}};
    char file[200];
    snprintf(file, sizeof file, "%s", in_dir("ae.pt"));
    write_state(file, "", topk_names, extra, 1, NULL, 0);
    put_file("config.json", "{\"trainer\": {\"dict_class\": \"AutoEncoderTopK\", \"k\": 1}}");
    assert_not_read(dir, NULL, "k is 2, but 1");
    put_file("config.json", "{\"trainer\": {\"dict_class\": \"BatchTopKSAE\", \"k\": 2}}");
    assert_not_read(dir, NULL, "without a threshold");
    put_file("config.json", "{\"trainer\": {\"dict_class\": \"CrossCoder\"}}");
    assert_not_read(dir, NULL, "CrossCoder");
    put_file("config.json", "{\"trainer\": {\"dict_class\": \"GatedAutoEncoder\"}}");
    assert_not_read(dir, NULL, "gate_bias");
    put_file("config.json", "{}");
    assert_not_read(dir, NULL, "trainer");
    put_file("config.json", "{\"trainer\": {\"dict_class\": \"AutoEncoderTopK\", \"k\": 2}}");
    sonde_dict *d = load(dir, "dictionary_learning");
    assert_int_equal(d->k, 2);
    sonde_dict_free(d);
}

static void what_the_library_lacks_is_not_written(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_GROUPMAX, 7, 7, 20, false, 1);
    assert_not_written(d, "dictionary_learning", "groupmax");
    sonde_dict_free(d);
    d = make_dict(SONDE_DICT_RELU, 7, 5, 20, false, 1);
    assert_not_written(d, "dictionary_learning", "7 and 5");
    sonde_dict_free(d);
    d = make_dict(SONDE_DICT_RELU, 7, 7, 20, true, 1);
    assert_not_written(d, "dictionary_learning", "skip");
    sonde_dict_free(d);
    d = make_dict(SONDE_DICT_RELU, 7, 7, 20, false, 1);
    d->norm = SONDE_DICT_NORM_LAYER;
    assert_not_written(d, "dictionary_learning", "norm");
    sonde_dict_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_activation_has_its_class),
        cmocka_unit_test(batchtopk_keeps_its_class_its_k_and_its_groups),
        cmocka_unit_test(the_config_of_a_run_is_kept),
        cmocka_unit_test(a_backup_in_normalised_units_reads_raw_activations),
        cmocka_unit_test(without_a_config_the_tensors_decide),
        cmocka_unit_test(what_does_not_fit_together_is_refused),
        cmocka_unit_test(what_the_library_lacks_is_not_written),
    };
    return cmocka_run_group_tests(tests, make_place, remove_place);
}
