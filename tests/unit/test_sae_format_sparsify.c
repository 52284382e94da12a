/* SPDX-License-Identifier: MIT
 * sparsify's directory: both ways, and the two layouts of its decoder. */
#include "dict_fixture.h"

#include <stdio.h>
#include <sys/stat.h>

#include "base/replace.h"
#include "file/safetensors.h"

static char dir[32], here[64], there[64];

static int make_place(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-test-XXXXXX");
    snprintf(here, sizeof here, "%.24s/a", mkdtemp(dir));
    snprintf(there, sizeof there, "%.24s/b", dir);
    return 0;
}

static int remove_place(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void save(const sonde_dict *d, const char *format, const char *path)
{
    sonde_err err = {0};
    if (sonde_dict_save(d, format, path, true, &err))
        fail_msg("%s", err.msg);
}

static sonde_dict *load(const char *path)
{
    sonde_err err = {0};
    sonde_dict *d = NULL;
    if (sonde_dict_load(path, NULL, NULL, &d, NULL, &err))
        fail_msg("%s", err.msg);
    return d;
}

static void assert_identical(const sonde_dict *a, const sonde_dict *b)
{
    char x[65], y[65];
    sonde_dict_identity(a, x, NULL);
    sonde_dict_identity(b, y, NULL);
    assert_string_equal(x, y);
}

static json_t *cfg_of(const char *path)
{
    char name[100];
    snprintf(name, sizeof name, "%s/cfg.json", path);
    json_t *root = json_load_file(name, 0, NULL);
    assert_non_null(root);
    return root;
}

static bool is_true(const json_t *cfg, const char *key)
{
    const json_t *v = json_object_get(cfg, key);
    assert_true(json_is_boolean(v));
    return json_is_true(v);
}

static void every_kind_comes_back_bit_for_bit(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        bool skip = i % 3 == 2;
        sonde_dict *d = make_dict(i < 3 ? SONDE_DICT_TOPK : SONDE_DICT_GROUPMAX, 6, 6, 20, skip, (uint64_t)i),
                   *back;
        d->pre_bias = i % 3 == 0;
        d->trained_as = i % 3 ? "topk_transcoder" : NULL;
        json_object_set_new(d->meta, "hook_name", json_string("blocks.2.hook_resid_post"));
        save(d, "sparsify", here);
        back = load(here);
        assert_string_equal(back->format, "sparsify");
        assert_identical(d, back);
        assert_true(json_equal(d->meta, back->meta));
        assert_int_equal(back->trained_as != NULL, d->trained_as != NULL);
        json_t *cfg = cfg_of(here);
        assert_int_equal(is_true(cfg, "transcode"), !d->pre_bias);
        assert_int_equal(is_true(cfg, "skip_connection"), skip);
        assert_int_equal(is_true(cfg, "normalize_decoder"), !d->pre_bias); /* for SAELens */
        json_decref(cfg);
        sonde_dict_free(d);
        sonde_dict_free(back);
    }
}

static void through_sparsify_nothing_is_lost(void **state)
{
    (void)state;
    char third[64];
    snprintf(third, sizeof third, "%.24s/c", dir);
    sonde_dict *d = make_dict(SONDE_DICT_TOPK, 6, 6, 20, false, 50), *one, *two;
    d->trained_as = "topk";
    json_object_set_new(d->meta, "sae_lens_version", json_string("6.30.1"));
    json_object_set_new(d->meta, "seqpos_slice", json_pack("[n]"));
    save(d, "saelens", here);
    one = load(here);
    save(one, "sparsify", there);
    two = load(there);
    save(two, "saelens", third);
    char command[200];
    snprintf(command, sizeof command, "diff -r %s %s", here, third);
    assert_int_equal(system(command), 0);
    sonde_dict_free(d);
    sonde_dict_free(one);
    sonde_dict_free(two);
}

/* Files as other writers make them. */
static void put_theirs(const sonde_dict *d, bool linear, const char *cfg)
{
    char name[100];
    float *transposed = malloc(d->n_latents * d->d_out * sizeof *transposed);
    for (size_t i = 0; i < d->n_latents; i++)
        for (size_t c = 0; c < d->d_out; c++)
            transposed[c * d->n_latents + i] = d->w_dec[i * d->d_out + c];
    const uint64_t n = d->n_latents, in = d->d_in, out = d->d_out;
    const sonde_tensor t[] = {
        {.name = "encoder.weight", .rank = 2, .dim = {n, in}, .data = d->w_enc, .n_bytes = 4 * n * in},
        {.name = "encoder.bias", .rank = 1, .dim = {n}, .data = d->b_enc, .n_bytes = 4 * n},
        {.name = linear ? "decoder.weight" : "W_dec",
         .rank = 2,
         .dim = {linear ? out : n, linear ? n : out},
         .data = linear ? transposed : d->w_dec,
         .n_bytes = 4 * n * out},
        {.name = "b_dec", .rank = 1, .dim = {out}, .data = d->b_dec, .n_bytes = 4 * out},
    };
    mkdir(here, 0777);
    snprintf(name, sizeof name, "%s/sae.safetensors", here);
    assert_int_equal(sonde_safetensors_write(name, t, 4, NULL, 0, true, NULL), SONDE_OK);
    snprintf(name, sizeof name, "%s/cfg.json", here);
    assert_int_equal(sonde_file_replace(name, cfg, strlen(cfg), NULL), SONDE_OK);
    free(transposed);
}

/* Where there are as many latents as dimensions the shape cannot tell them apart; the name does. */
static void W_dec_is_by_latents_and_decoder_weight_by_outputs(void **state)
{
    (void)state;
    static const size_t latents[] = {20, 6};
    for (int i = 0; i < 2; i++)
        for (int linear = 0; linear < 2; linear++) {
            char cfg[100];
            sonde_dict *d = make_dict(SONDE_DICT_TOPK, 6, 6, latents[i], false, 60), *back;
            snprintf(cfg, sizeof cfg, "{\"d_in\":6,\"num_latents\":%zu,\"k\":4}", latents[i]);
            put_theirs(d, linear, cfg);
            back = load(here);
            assert_identical(d, back);
            sonde_dict_free(d);
            sonde_dict_free(back);
        }
}

static void no_number_of_latents_means_the_expansion_factor(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_GROUPMAX, 6, 6, 24, false, 61), *back;
    put_theirs(d, false,
               "{\"activation\":\"groupmax\",\"d_in\":6,\"num_latents\":0,\"expansion_factor\":4,\"k\":4,"
               "\"normalize_decoder\":true,\"multi_topk\":false,\"signed\":false}");
    back = load(here);
    assert_identical(d, back);
    sonde_dict_free(d);
    sonde_dict_free(back);
}

static void a_transcoder_of_two_widths_is_read_and_not_written(void **state)
{
    (void)state;
    sonde_err err;
    sonde_dict *d = make_dict(SONDE_DICT_TOPK, 6, 9, 20, false, 62), *back;
    put_theirs(d, false, "{\"d_in\":6,\"num_latents\":20,\"k\":4,\"transcode\":true}");
    back = load(here);
    assert_identical(d, back);
    assert_int_equal(sonde_dict_save(back, "sparsify", there, false, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "6 and 9"));
    sonde_dict_free(d);
    sonde_dict_free(back);
}

static void what_does_not_fit_is_named(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"{\"d_in\":7,\"num_latents\":20,\"k\":4}",
         "'encoder.weight' has shape [20, 6], this dictionary needs [20, 7]"},
        {"{\"d_in\":6,\"expansion_factor\":4,\"k\":4}", "[20, 6], this dictionary needs [24, 6]"},
        {"{\"d_in\":6,\"num_latents\":20,\"k\":21}", "k is 21, with 20 latents"},
        {"{\"d_in\":6,\"num_latents\":20,\"activation\":\"groupmax\",\"k\":3}",
         "20 latents are not 3 groups"},
        {"{\"d_in\":6,\"num_latents\":20,\"activation\":\"relu\",\"k\":3}", "'relu' is not read"},
        {"{\"d_in\":6,\"num_latents\":20,\"signed\":true,\"k\":3}", "signed"},
        {"{\"d_in\":6,\"num_latents\":20,\"skip_connection\":true,\"k\":3}", "no tensor 'W_skip'"},
        {"{\"num_latents\":20,\"k\":3}", "'d_in' is missing"},
        {"{\"d_in\":1099511627776,\"expansion_factor\":1099511627776,\"k\":3}", "too large"},
    };
    sonde_dict *d = make_dict(SONDE_DICT_TOPK, 6, 6, 20, false, 63), *back;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sonde_err err = {0};
        put_theirs(d, false, rows[i][0]);
        assert_int_equal(sonde_dict_load(here, NULL, NULL, &back, NULL, &err), SONDE_E_INPUT);
        if (!strstr(err.msg, rows[i][1]))
            fail_msg("'%s' does not say '%s'", err.msg, rows[i][1]);
    }
    sonde_dict_free(d);
}

static void what_sparsify_cannot_hold_is_refused(void **state)
{
    (void)state;
    static const enum sonde_dict_act acts[] = {SONDE_DICT_RELU, SONDE_DICT_JUMPRELU, SONDE_DICT_GATED};
    sonde_err err;
    for (int i = 0; i < 3; i++) {
        sonde_dict *d = make_dict(acts[i], 6, 6, 20, false, 64);
        assert_int_equal(sonde_dict_save(d, "sparsify", here, false, &err), SONDE_E_USAGE);
        assert_non_null(strstr(err.msg, "saelens does"));
        sonde_dict_free(d);
    }
    sonde_dict *d = make_dict(SONDE_DICT_TOPK, 6, 6, 20, false, 65);
    d->norm = SONDE_DICT_NORM_LAYER;
    d->norm_eps = 1e-5f;
    assert_int_equal(sonde_dict_save(d, "sparsify", here, false, &err), SONDE_E_USAGE);
    sonde_dict_free(d);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_place, remove_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_kind_comes_back_bit_for_bit),
        TEST(through_sparsify_nothing_is_lost),
        TEST(W_dec_is_by_latents_and_decoder_weight_by_outputs),
        TEST(no_number_of_latents_means_the_expansion_factor),
        TEST(a_transcoder_of_two_widths_is_read_and_not_written),
        TEST(what_does_not_fit_is_named),
        TEST(what_sparsify_cannot_hold_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
