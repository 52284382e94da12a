/* SPDX-License-Identifier: MIT */
#include "format_fixture.h"

#include "file/torchzip.h"

static sonde_dict *layer_normed(enum sonde_dict_act act)
{
    sonde_dict *d = make_dict(act, 7, 7, 20, false, 5);
    d->norm = SONDE_DICT_NORM_LAYER;
    d->norm_unbiased = true;
    d->norm_eps = 1e-5f;
    return d;
}

static void topk_normalises_rows_and_relu_does_not(void **state)
{
    (void)state;
    sonde_dict *d = layer_normed(SONDE_DICT_TOPK);
    sonde_dict *back = there_and_back(d, "openai", in_dir("topk.pt"));
    assert_int_equal(back->k, 4);
    assert_int_equal(back->norm, SONDE_DICT_NORM_LAYER);
    assert_true(back->pre_bias && back->norm_unbiased && !back->sparsity);
    sonde_dict_free(back);
    d->pre_bias = false; /* written with the subtraction, computed alike */
    sonde_dict_free(there_and_back(d, "openai", path));
    sonde_dict_free(d);
    d = make_dict(SONDE_DICT_RELU, 7, 7, 20, false, 6);
    back = there_and_back(d, "openai", in_dir("relu.pt"));
    assert_int_equal(back->norm, SONDE_DICT_NORM_NONE);
    sonde_dict_free(back);
    sonde_dict_free(d);
}

static void frequencies_come_back(void **state)
{
    (void)state;
    sonde_dict *d = layer_normed(SONDE_DICT_TOPK);
    d->sparsity = sonde_arena_get(d->arena, 20, sizeof(float), NULL);
    for (int i = 0; i < 20; i++)
        d->sparsity[i] = -(float)i / 3;
    sonde_dict *back = there_and_back(d, "openai", in_dir("f.pt"));
    assert_non_null(back->sparsity);
    for (int i = 0; i < 20; i++)
        assert_true(fabsf(back->sparsity[i] - d->sparsity[i]) < 1e-5f);
    sonde_dict_free(back);
    sonde_dict_free(d);
}

static void the_strict_loader_finds_all_it_wants(void **state)
{
    (void)state;
    sonde_dict *d = layer_normed(SONDE_DICT_TOPK);
    sonde_tensors *f;
    save(d, "openai", in_dir("strict.pt"));
    assert_int_equal(sonde_torchzip_open(in_dir("strict.pt"), NULL, &f, NULL), SONDE_OK);
    static const char *const names[] = {"pre_bias",
                                        "latent_bias",
                                        "stats_last_nonzero",
                                        "latents_activation_frequency",
                                        "latents_mean_square",
                                        "encoder.weight",
                                        "decoder.weight"};
    assert_int_equal(f->n_tensors, sizeof names / sizeof *names);
    for (size_t i = 0; i < f->n_tensors; i++)
        assert_non_null(sonde_tensors_find(f, names[i]));
    assert_string_equal(sonde_meta_find(f, "activation")->s, "TopK");
    assert_int_equal(sonde_meta_find(f, "activation_state_dict.k")->i, 4);
    sonde_tensors_close(f);
    sonde_dict_free(d);
}

static void what_the_format_lacks_is_not_written(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_TOPK, 7, 7, 20, false, 1);
    assert_not_written(d, "openai", "layer_norm");
    sonde_dict_free(d);
    d = layer_normed(SONDE_DICT_RELU);
    assert_not_written(d, "openai", "relu of plain");
    sonde_dict_free(d);
    d = make_dict(SONDE_DICT_JUMPRELU, 7, 7, 20, false, 1);
    assert_not_written(d, "openai", "jumprelu");
    sonde_dict_free(d);
    d = make_dict(SONDE_DICT_RELU, 7, 5, 20, false, 1);
    assert_not_written(d, "openai", "autoencoders only");
    sonde_dict_free(d);
}

static void activations_that_are_not_known_are_refused(void **state)
{
    (void)state;
    static const float x[2] = {1, 2};
    const sonde_tensor t = {.name = "encoder.weight", .rank = 2, .dim = {2, 1}, .data = x, .n_bytes = 8};
    const char *file = in_dir("odd.pt");
    sonde_torch_value v[3] = {
        {NULL, {.key = "activation", .type = SONDE_META_STRING, .s = "Identity", .n_bytes = 8}}};
    sonde_torchzip_write(file, &t, 1, v, 1, true, NULL);
    assert_not_read(file, "openai", "Identity");
    v[0].value.s = "TopK";
    v[0].value.n_bytes = 4;
    sonde_torchzip_write(file, &t, 1, v, 1, true, NULL);
    assert_not_read(file, "openai", "k of at least 1");
    v[1] = (sonde_torch_value){"activation_state_dict", {.key = "k", .type = SONDE_META_INT, .i = 1}};
    v[2] =
        (sonde_torch_value){"activation_state_dict",
                            {.key = "postact_fn", .type = SONDE_META_STRING, .s = "Identity", .n_bytes = 8}};
    sonde_torchzip_write(file, &t, 1, v, 3, true, NULL);
    assert_not_read(file, "openai", "followed by");
    sonde_torchzip_write(file, &t, 1, v, 2, true, NULL);
    assert_not_read(file, "openai", "decoder.weight");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(topk_normalises_rows_and_relu_does_not),
        cmocka_unit_test(frequencies_come_back),
        cmocka_unit_test(the_strict_loader_finds_all_it_wants),
        cmocka_unit_test(what_the_format_lacks_is_not_written),
        cmocka_unit_test(activations_that_are_not_known_are_refused),
    };
    return cmocka_run_group_tests(tests, make_place, remove_place);
}
