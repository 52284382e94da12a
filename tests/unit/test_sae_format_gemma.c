/* SPDX-License-Identifier: MIT */
#include "format_fixture.h"

#include <sys/stat.h>

#include "file/npy.h"
#include "file/safetensors.h"

static void thresholds_relu_and_gates_come_back_as_jumprelu(void **state)
{
    (void)state;
    static const enum sonde_dict_act acts[] = {SONDE_DICT_JUMPRELU, SONDE_DICT_RELU, SONDE_DICT_GATED};
    static const char *const formats[] = {"gemma_scope", "gemma_scope_2"};
    for (int f = 0; f < 2; f++)
        for (int i = 0; i < 3; i++)
            for (int pre_bias = 0; pre_bias < 2; pre_bias++) {
                char to[64];
                sonde_dict *d = make_dict(acts[i], 7, 7, 20, false, (uint64_t)i);
                d->pre_bias = pre_bias;
                snprintf(to, sizeof to, "%s/%s", dir, formats[f]);
                sonde_dict *back = there_and_back(d, formats[f], to);
                assert_int_equal(back->act, SONDE_DICT_JUMPRELU);
                assert_false(back->pre_bias);
                sonde_dict_free(back);
                sonde_dict_free(d);
            }
}

static void transcoders_with_a_skip_need_the_second_format(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_JUMPRELU, 7, 5, 20, true, 4);
    set_text(d, "model_name", "google/gemma-3-1b-pt");
    set_text(d, "hook_name", "blocks.9.hook_mlp_in");
    set_text(d, "hook_name_out", "blocks.9.hook_mlp_out");
    assert_not_written(d, "gemma_scope", "gemma_scope_2");
    sonde_dict *back = there_and_back(d, "gemma_scope_2", path);
    assert_non_null(back->w_skip);
    assert_meta(back, "model_name", "google/gemma-3-1b-pt");
    assert_meta(back, "hook_name", "blocks.9.hook_mlp_in");
    assert_meta(back, "hook_name_out", "blocks.9.hook_mlp_out");
    sonde_dict_free(back);
    sonde_dict_free(d);
}

static void paths_say_where_the_first_format_belongs(void **state)
{
    (void)state;
    static const struct {
        const char *where, *hook, *hook_out;
    } all[] = {{"gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82", "blocks.12.hook_resid_post", NULL},
               {"gemma-scope-2b-pt-mlp/layer_3", "blocks.3.hook_mlp_out", NULL},
               {"gemma-scope-2b-pt-att/layer_25", "blocks.25.attn.hook_z", NULL},
               {"transcoders/layer_0", "blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        sonde_dict *d = make_dict(SONDE_DICT_JUMPRELU, 7, 7, 20, false, 4);
        char command[200], to[160];
        snprintf(to, sizeof to, "%s", in_dir(all[i].where));
        snprintf(command, sizeof command, "mkdir -p %s", to);
        assert_int_equal(system(command), 0);
        save(d, "gemma_scope", to);
        sonde_dict *back = load(to, "gemma_scope");
        assert_meta(back, "hook_name", all[i].hook);
        if (all[i].hook_out)
            assert_meta(back, "hook_name_out", all[i].hook_out);
        sonde_dict_free(back);
        sonde_dict_free(d);
    }
}

static void a_single_file_is_read_and_written_by_its_name(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_JUMPRELU, 7, 7, 20, false, 4);
    sonde_dict_free(there_and_back(d, "gemma_scope", in_dir("any.npz")));
    sonde_dict_free(there_and_back(d, "gemma_scope_2", in_dir("params_layer_3.safetensors")));
    sonde_dict_free(d);
}

static void ranks_and_norms_are_not_written(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_TOPK, 7, 7, 20, false, 1);
    assert_not_written(d, "gemma_scope", "topk");
    assert_not_written(d, "gemma_scope_2", "topk");
    sonde_dict_free(d);
    d = make_dict(SONDE_DICT_JUMPRELU, 7, 7, 20, false, 1);
    d->norm = SONDE_DICT_NORM_CONSTANT;
    assert_not_written(d, "gemma_scope", "norm");
    sonde_dict_free(d);
}

static void other_contents_are_refused(void **state)
{
    (void)state;
    static const float x[8] = {2, 2};
    sonde_tensor t[5] = {{.name = "W_enc", .rank = 2, .dim = {1, 2}, .n_bytes = 8},
                         {.name = "W_dec", .rank = 2, .dim = {2, 1}, .n_bytes = 8},
                         {.name = "b_enc", .rank = 1, .dim = {2}, .n_bytes = 8},
                         {.name = "b_dec", .rank = 1, .dim = {1}, .n_bytes = 4},
                         {.name = "scaling_factor", .rank = 1, .dim = {2}, .n_bytes = 8}};
    for (int i = 0; i < 5; i++)
        t[i].data = x;
    const char *file = in_dir("odd.npz");
    sonde_npz_write(file, t, 4, true, NULL);
    assert_not_read(file, "gemma_scope", "threshold");
    sonde_npz_write(file, t, 5, true, NULL);
    assert_not_read(file, "gemma_scope", "scaling_factor");
    t[1].dim[0] = 1;
    t[1].n_bytes = 4;
    sonde_npz_write(file, t, 4, true, NULL);
    assert_not_read(file, "gemma_scope", "[1, 1]");
    t[0].name = "w_enc";
    t[1] = (sonde_tensor){.name = "w_dec", .rank = 3, .dim = {2, 4, 1}, .data = x, .n_bytes = 32};
    file = in_dir("params.safetensors");
    sonde_safetensors_write(file, t, 4, NULL, 0, true, NULL);
    assert_not_read(file, NULL, "cross-layer");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thresholds_relu_and_gates_come_back_as_jumprelu),
        cmocka_unit_test(transcoders_with_a_skip_need_the_second_format),
        cmocka_unit_test(paths_say_where_the_first_format_belongs),
        cmocka_unit_test(a_single_file_is_read_and_written_by_its_name),
        cmocka_unit_test(ranks_and_norms_are_not_written),
        cmocka_unit_test(other_contents_are_refused),
    };
    return cmocka_run_group_tests(tests, make_place, remove_place);
}
