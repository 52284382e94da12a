/* SPDX-License-Identifier: MIT
 * circuit-tracer's directories, and the YAML that they need. */
#include "format_fixture.h"

#include "file/yaml.h"

static sonde_dict *transcoder(enum sonde_dict_act act, bool skip, int layer)
{
    char hook[64];
    sonde_dict *d = make_dict(act, 7, 7, 20, skip, (uint64_t)layer);
    d->pre_bias = false;
    set_text(d, "model_name", "google/gemma-2-2b");
    snprintf(hook, sizeof hook, "blocks.%d.mlp.hook_in", layer);
    set_text(d, "hook_name", hook);
    snprintf(hook, sizeof hook, "blocks.%d.hook_mlp_out", layer);
    set_text(d, "hook_name_out", hook);
    return d;
}

static void every_activation_comes_back(void **state)
{
    (void)state;
    static const enum sonde_dict_act acts[] = {SONDE_DICT_RELU, SONDE_DICT_JUMPRELU, SONDE_DICT_TOPK,
                                               SONDE_DICT_GATED};
    for (int i = 0; i < 4; i++)
        for (int skip = 0; skip < 2; skip++) {
            char to[64];
            snprintf(to, sizeof to, "%s/%d%d", dir, i, skip);
            sonde_dict *d = transcoder(acts[i], skip, 3);
            d->pre_bias = i == 1;
            sonde_dict *back = there_and_back(d, "circuit_tracer", to);
            assert_false(back->pre_bias);
            assert_int_equal(back->w_skip != NULL, skip);
            assert_meta(back, "model_name", "google/gemma-2-2b");
            assert_meta(back, "hook_name", "blocks.3.mlp.hook_in");
            assert_meta(back, "hook_name_out", "blocks.3.hook_mlp_out");
            sonde_dict_free(back);
            sonde_dict_free(d);
        }
}

static void layers_share_a_directory(void **state)
{
    (void)state;
    sonde_err err;
    sonde_dict *d[2] = {transcoder(SONDE_DICT_JUMPRELU, false, 0), transcoder(SONDE_DICT_JUMPRELU, false, 1)};
    for (int i = 0; i < 2; i++)
        if (sonde_dict_save(d[i], "circuit_tracer", path, false, &err) != SONDE_OK)
            fail_msg("%s", err.msg);
    assert_not_read(path, NULL, "2 layers");
    sonde_dict *back = load(in_dir("d/layer_1.safetensors"), "circuit_tracer");
    assert_same(d[1], back, NULL, 1e-6);
    assert_meta(back, "hook_name", "blocks.1.mlp.hook_in");
    sonde_dict_free(back);
    set_text(d[1], "model_name", "another");
    set_text(d[1], "hook_name", "blocks.2.mlp.hook_in");
    assert_int_equal(sonde_dict_save(d[1], "circuit_tracer", path, false, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "another model"));
    for (int i = 0; i < 2; i++)
        sonde_dict_free(d[i]);
}

static void what_the_format_lacks_is_not_written(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_GROUPMAX, 7, 7, 20, false, 1);
    assert_not_written(d, "circuit_tracer", "groupmax");
    sonde_dict_free(d);
    d = make_dict(SONDE_DICT_RELU, 7, 5, 20, false, 1);
    assert_not_written(d, "circuit_tracer", "7 and 5");
    sonde_dict_free(d);
}

#define KIND "model_kind: transcoder_set\n"

static void configs_of_other_kinds_are_refused(void **state)
{
    (void)state;
    sonde_dict *d = transcoder(SONDE_DICT_RELU, false, 0);
    char to[64];
    snprintf(to, sizeof to, "%s/k", dir);
    save(d, "circuit_tracer", to);
    put_file("k/config.yaml", "model_kind: cross_layer_transcoder\n");
    assert_not_read(to, NULL, "cross_layer_transcoder");
    put_file("k/config.yaml", "activation: relu\n");
    assert_not_read(to, NULL, "no model_kind");
    put_file("k/config.yaml", KIND "activation: softmax\n");
    assert_not_read(to, NULL, "softmax");
    put_file("k/config.yaml", KIND "activation: topk\n");
    assert_not_read(to, NULL, "no k");
    put_file("k/config.yaml", KIND "activation: topk\nk: 21\n");
    assert_not_read(to, NULL, "k is 21");
    put_file("k/config.yaml", KIND "activation: topk\nk: [1\n");
    assert_not_read(to, NULL, "line 3");
    put_file(
        "k/config.yaml", KIND
        "model_name: x\n"
        "transcoders: # elsewhere\n- hf://a/b?revision=c\n- hf://a/d\nfeature_input_hook: hook_resid_mid\n");
    sonde_dict *back = load(to, "circuit_tracer");
    assert_meta(back, "hook_name", "blocks.0.hook_resid_mid");
    sonde_dict_free(back);
    sonde_dict_free(d);
}

/* ---- YAML ---------------------------------------------------------------------------------------- */

static void plain_yaml_becomes_json(void **state)
{
    (void)state;
    static const char text[] = "---\n# a comment\n"
                               "name: google/gemma-2-2b   # behind\r\n"
                               "\n"
                               "quoted: 'it''s # here'\n"
                               "\"double\": \"a \\\"b\\\" \\n: c\"\n"
                               "int: -12\nreal: 1.5e-3\nyes: true\nno: False\nnothing:\ntilde: ~\n"
                               "flow: [a, 'b, c', 3]\nempty: []\n"
                               "list:\n  - hf://x/y?z=1\n  - 2\n  - key: dropped\n    more: dropped\n"
                               "same_column:\n- a\n- b\n"
                               "nested:\n  x: 1\n  y:\n    - 2\n"
                               "text: |\n  line\n  line\n"
                               "url: http://a:b/c#d\n"
                               "last: x";
    json_t *is, *want = json_loads("{\"name\":\"google/gemma-2-2b\",\"quoted\":\"it's # "
                                   "here\",\"double\":\"a \\\"b\\\" \\n: c\",\"int\":-12,"
                                   "\"real\":0.0015,\"yes\":true,\"no\":false,\"nothing\":null,\"tilde\":"
                                   "null,\"flow\":[\"a\",\"b, c\",3],"
                                   "\"empty\":[],\"list\":[\"hf://x/y?z=1\",2,\"key: "
                                   "dropped\"],\"same_column\":[\"a\",\"b\"],\"nested\":null,"
                                   "\"text\":null,\"url\":\"http://a:b/c#d\",\"last\":\"x\"}",
                                   0, NULL);
    sonde_err err;
    if (sonde_yaml_parse(text, sizeof text - 1, "text", &is, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
    char *got = json_dumps(is, JSON_SORT_KEYS);
    if (!json_equal(is, want))
        fail_msg("%s", got);
    free(got);
    json_decref(is);
    json_decref(want);
}

static void other_yaml_is_refused_with_its_line(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "a: 1\na: 2\n", "a: &x 1\n",         "a: *x\n",     "a: !!python/object:os.system x\n",
        "a:\t1\n",      "  a: 1\n",          "- a\n",       "a\n",
        "a: 'b\n",      "a: \"\\x41\"\n",    "a: [1, 2\n",  "a: 'b' c\n",
        "{a: 1}\n",     "a: 1\n---\nb: 2\n", "a: [1 2]x\n", "? a\n",
        "a: \xff\n",    "'': [[1]]\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *is = NULL;
        sonde_err err = {0};
        char *copy = malloc(strlen(bad[i])); /* exactly as long, so that tools see a read past it */
        memcpy(copy, bad[i], strlen(bad[i]));
        if (sonde_yaml_parse(copy, strlen(bad[i]), "text", &is, &err) != SONDE_E_INPUT)
            fail_msg("accepted: %s", bad[i]);
        free(copy);
    }
}

static void beginnings_and_flips_of_yaml_do_no_harm(void **state)
{
    (void)state;
    static const char text[] =
        "a: 'it''s'\nb: [x, \"y\\n\", 3]\nc:\n  - 1\n  - z # w\nd:\n  e: 1\nf: |\n  g\nh: -1.5\n";
    for (size_t n = 0; n < sizeof text; n++)
        for (int bit = -1; bit < 8; bit++) {
            json_t *is = NULL;
            char *copy = malloc(n ? n : 1);
            memcpy(copy, text, n);
            if (bit >= 0 && n)
                copy[n / 2] ^= (char)(1 << bit);
            if (sonde_yaml_parse(copy, n, "text", &is, NULL) == SONDE_OK)
                json_decref(is);
            free(copy);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_activation_comes_back),
        cmocka_unit_test(layers_share_a_directory),
        cmocka_unit_test(what_the_format_lacks_is_not_written),
        cmocka_unit_test(configs_of_other_kinds_are_refused),
        cmocka_unit_test(plain_yaml_becomes_json),
        cmocka_unit_test(other_yaml_is_refused_with_its_line),
        cmocka_unit_test(beginnings_and_flips_of_yaml_do_no_harm),
    };
    return cmocka_run_group_tests(tests, make_place, remove_place);
}
