/* SPDX-License-Identifier: MIT
 * Dictionaries as objects: exact changes of form compute the same, checks name the fault. */
#include "dict_fixture.h"

#include <stdio.h>

#define TOLERANCE 1e-6 /* numbers are rounded to float32 once or twice; sums of 12 terms of size 1 */

static const enum sonde_dict_act all_acts[] = {SONDE_DICT_RELU, SONDE_DICT_TOPK, SONDE_DICT_JUMPRELU,
                                               SONDE_DICT_GATED, SONDE_DICT_GROUPMAX};
enum { N_ACTS = sizeof all_acts / sizeof *all_acts };

static void row_norms(const sonde_dict *d, double *norm)
{
    for (size_t i = 0; i < d->n_latents; i++) {
        double sum = 0;
        for (size_t c = 0; c < d->d_out; c++)
            sum += (double)d->w_dec[i * d->d_out + c] * (double)d->w_dec[i * d->d_out + c];
        norm[i] = sqrt(sum);
    }
}

static void decoder_rows_of_norm_one_compute_the_same(void **state)
{
    (void)state;
    for (int a = 0; a < N_ACTS; a++) {
        if (all_acts[a] == SONDE_DICT_TOPK || all_acts[a] == SONDE_DICT_GROUPMAX)
            continue;
        sonde_dict *d = make_dict(all_acts[a], 12, 12, 32, false, 1), *unit;
        double norm[64], after[64];
        assert_int_equal(sonde_dict_copy(d, NULL, &unit, NULL), SONDE_OK);
        row_norms(d, norm);
        assert_int_equal(sonde_dict_unit_decoder(unit, false, NULL), SONDE_OK);
        row_norms(unit, after);
        for (size_t i = 0; i < 32; i++)
            assert_true(fabs(after[i] - 1) < 1e-6);
        const struct change how = {.f_scale = norm, .scale_in = 1, .scale_out = 1};
        assert_same(d, unit, &how, TOLERANCE);
        sonde_dict_free(d);
        sonde_dict_free(unit);
    }
}

static void a_decoder_row_of_zeros_stays(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_RELU, 4, 4, 8, false, 2);
    memset(d->w_dec + 3 * 4, 0, 4 * sizeof *d->w_dec);
    float w = d->w_enc[3 * 4], b = d->b_enc[3];
    assert_int_equal(sonde_dict_unit_decoder(d, false, NULL), SONDE_OK);
    assert_true(d->w_dec[3 * 4] == 0 && d->w_enc[3 * 4] == w && d->b_enc[3] == b);
    sonde_dict_free(d);
}

static void norms_are_not_folded_where_rows_are_ranked(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_TOPK, 4, 4, 8, false, 3);
    sonde_err err;
    assert_int_equal(sonde_dict_unit_decoder(d, false, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "topk"));
    assert_int_equal(sonde_dict_unit_decoder(d, true, &err), SONDE_OK);
    float before = d->w_enc[5];
    assert_int_equal(sonde_dict_unit_decoder(d, false, &err), SONDE_OK); /* nothing left to do */
    assert_true(d->w_enc[5] == before);
    sonde_dict_free(d);
}

static void the_pre_bias_goes_and_comes_back(void **state)
{
    (void)state;
    static const enum sonde_dict_norm norms[] = {SONDE_DICT_NORM_NONE, SONDE_DICT_NORM_CONSTANT,
                                                 SONDE_DICT_NORM_LAYER};
    for (int a = 0; a < N_ACTS; a++)
        for (int n = 0; n < 3; n++) {
            sonde_dict *d = make_dict(all_acts[a], 12, 12, 32, false, 4), *other;
            d->norm = norms[n];
            d->norm_eps = 1e-5f;
            assert_int_equal(sonde_dict_copy(d, NULL, &other, NULL), SONDE_OK);
            assert_int_equal(sonde_dict_set_pre_bias(other, false, NULL), SONDE_OK);
            assert_false(other->pre_bias);
            assert_true(memcmp(d->b_enc, other->b_enc, 32 * sizeof(float)) != 0);
            assert_same(d, other, NULL, TOLERANCE);
            assert_int_equal(sonde_dict_set_pre_bias(other, true, NULL), SONDE_OK);
            assert_same(d, other, NULL, TOLERANCE);
            sonde_dict_free(d);
            sonde_dict_free(other);
        }
}

static void a_pre_bias_needs_equal_widths(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_RELU, 4, 5, 8, false, 5);
    sonde_err err;
    assert_int_equal(sonde_dict_set_pre_bias(d, true, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "5"));
    assert_false(d->pre_bias);
    sonde_dict_free(d);
}

/* The five conventions of normalising activations are means and scales; each is folded away. */
static void means_and_scales_fold_away(void **state)
{
    (void)state;
    double mean_in[12], mean_out[12], f_scale[64];
    uint64_t s = 5;
    for (int c = 0; c < 12; c++) {
        mean_in[c] = (double)draw(&s, 1);
        mean_out[c] = (double)draw(&s, 1);
    }
    const struct {
        bool in, out;
        double scale_in, scale_out;
    } way[] = {{false, false, 2.5, 2.5}, {true, true, 0.3, 0.3}, {true, true, 0.7, 4}, {false, true, 1, 0.1}};
    for (int a = 0; a < N_ACTS; a++)
        for (int w = 0; w < 8; w++) {
            bool skip = w >= 4;
            sonde_dict *d = make_dict(all_acts[a], 12, 12, 32, skip, 6), *raw;
            const double *in = way[w % 4].in ? mean_in : NULL, *out = way[w % 4].out ? mean_out : NULL;
            assert_int_equal(sonde_dict_copy(d, NULL, &raw, NULL), SONDE_OK);
            assert_int_equal(
                sonde_dict_fold_scale(raw, in, way[w % 4].scale_in, out, way[w % 4].scale_out, NULL),
                SONDE_OK);
            assert_memory_equal(raw->w_dec, d->w_dec, 32 * 12 * sizeof(float));
            for (int i = 0; i < 32; i++)
                f_scale[i] = 1 / way[w % 4].scale_out;
            const struct change how = {f_scale, in, out, way[w % 4].scale_in, way[w % 4].scale_out};
            assert_same(d, raw, &how, 2 * TOLERANCE); /* means cancel: the same roundings twice */
            sonde_dict_free(d);
            sonde_dict_free(raw);
        }
}

static void a_transcoder_of_two_widths_folds_too(void **state)
{
    (void)state;
    double mean_in[9], mean_out[5], f_scale[64];
    uint64_t s = 6;
    for (int c = 0; c < 9; c++)
        mean_in[c] = (double)draw(&s, 1);
    for (int c = 0; c < 5; c++)
        mean_out[c] = (double)draw(&s, 1);
    for (int i = 0; i < 32; i++)
        f_scale[i] = 1 / 0.4;
    for (int skip = 0; skip < 2; skip++) {
        sonde_dict *d = make_dict(SONDE_DICT_JUMPRELU, 9, 5, 32, skip, 7), *raw;
        assert_int_equal(sonde_dict_copy(d, NULL, &raw, NULL), SONDE_OK);
        assert_int_equal(sonde_dict_fold_scale(raw, mean_in, 1.7, mean_out, 0.4, NULL), SONDE_OK);
        const struct change how = {f_scale, mean_in, mean_out, 1.7, 0.4};
        assert_same(d, raw, &how, 2 * TOLERANCE);
        sonde_dict_free(d);
        sonde_dict_free(raw);
    }
}

static void scales_must_be_positive(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_RELU, 4, 4, 8, false, 8);
    sonde_err err;
    assert_int_equal(sonde_dict_fold_scale(d, NULL, 0, NULL, 1, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_dict_fold_scale(d, NULL, 1, NULL, (double)NAN, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_dict_fold_scale(d, NULL, (double)INFINITY, NULL, 1, &err), SONDE_E_USAGE);
    sonde_dict_free(d);
}

static void gated_becomes_jumprelu(void **state)
{
    (void)state;
    for (int pre = 0; pre < 2; pre++) {
        sonde_dict *d = make_dict(SONDE_DICT_GATED, 12, 12, 32, false, 9), *jump;
        d->pre_bias = pre;
        assert_int_equal(sonde_dict_copy(d, NULL, &jump, NULL), SONDE_OK);
        assert_int_equal(sonde_dict_gated_to_jumprelu(jump, NULL), SONDE_OK);
        assert_int_equal(jump->act, SONDE_DICT_JUMPRELU);
        assert_null(jump->r_mag);
        assert_same(d, jump, NULL, TOLERANCE);
        sonde_dict_free(d);
        sonde_dict_free(jump);
    }
}

static void a_gate_too_large_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_GATED, 4, 4, 8, false, 10);
    float w = d->w_enc[0];
    sonde_err err;
    d->r_mag[7] = 200;
    assert_int_equal(sonde_dict_gated_to_jumprelu(d, &err), SONDE_E_NUMERIC);
    assert_non_null(strstr(err.msg, "latent 7"));
    assert_true(d->act == SONDE_DICT_GATED && d->w_enc[0] == w);
    sonde_dict_free(d);
    d = make_dict(SONDE_DICT_RELU, 4, 4, 8, false, 10);
    assert_int_equal(sonde_dict_gated_to_jumprelu(d, &err), SONDE_E_USAGE);
    sonde_dict_free(d);
}

static void a_number_that_is_not_finite_is_named(void **state)
{
    (void)state;
    sonde_dict *d = make_dict(SONDE_DICT_GATED, 4, 5, 8, true, 11);
    sonde_err err;
    assert_int_equal(sonde_dict_check(d, &err), SONDE_OK);
    d->w_dec[6 * 5 + 3] = NAN;
    assert_int_equal(sonde_dict_check(d, &err), SONDE_E_NUMERIC);
    assert_string_equal(err.msg, "W_dec is NaN at latent 6, column 3");
    d->w_enc[2 * 4 + 1] = -INFINITY;
    assert_int_equal(sonde_dict_check(d, &err), SONDE_E_NUMERIC);
    assert_string_equal(err.msg, "W_enc is infinite at latent 2, column 1");
    sonde_dict_free(d);
}

static void a_copy_has_everything_and_shares_nothing(void **state)
{
    (void)state;
    char hex[65], other[65];
    sonde_dict *d = make_dict(SONDE_DICT_JUMPRELU, 4, 5, 8, true, 12), *c;
    d->sparsity = sonde_arena_get(d->arena, 8, sizeof(float), NULL);
    d->sparsity[5] = -2;
    d->trained_as = "batchtopk";
    json_object_set_new(d->meta, "hook_name", json_string("blocks.1.hook_resid_post"));
    assert_int_equal(sonde_dict_copy(d, NULL, &c, NULL), SONDE_OK);
    assert_int_equal(sonde_dict_identity(d, hex, NULL), SONDE_OK);
    sonde_dict_identity(c, other, NULL);
    assert_string_equal(hex, other);
    assert_true(c->sparsity[5] == -2);
    assert_string_equal(c->trained_as, "batchtopk");
    assert_true(json_equal(c->meta, d->meta));
    c->w_skip[1] += 1;
    sonde_dict_identity(c, other, NULL);
    assert_string_not_equal(hex, other);
    json_object_clear(c->meta);
    assert_int_equal(json_object_size(d->meta), 1);
    sonde_dict_free(d);
    sonde_dict_free(c);
    sonde_dict_free(NULL);
}

static void sizes_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    sonde_budget budget = {.limit = 1 << 20};
    sonde_dict *d = NULL;
    sonde_err err;
    assert_int_equal(sonde_dict_new(SONDE_DICT_RELU, 0, 4, 4, false, &budget, &d, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_dict_new(SONDE_DICT_RELU, SIZE_MAX, 4, 4, false, &budget, &d, &err),
                     SONDE_E_MEMORY);
    assert_int_equal(sonde_dict_new(SONDE_DICT_RELU, 1024, 1024, 1024, false, &budget, &d, &err),
                     SONDE_E_MEMORY);
    assert_null(d);
    assert_int_equal(budget.taken, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoder_rows_of_norm_one_compute_the_same),
        cmocka_unit_test(a_decoder_row_of_zeros_stays),
        cmocka_unit_test(norms_are_not_folded_where_rows_are_ranked),
        cmocka_unit_test(the_pre_bias_goes_and_comes_back),
        cmocka_unit_test(a_pre_bias_needs_equal_widths),
        cmocka_unit_test(means_and_scales_fold_away),
        cmocka_unit_test(a_transcoder_of_two_widths_folds_too),
        cmocka_unit_test(scales_must_be_positive),
        cmocka_unit_test(gated_becomes_jumprelu),
        cmocka_unit_test(a_gate_too_large_is_refused_and_changes_nothing),
        cmocka_unit_test(a_number_that_is_not_finite_is_named),
        cmocka_unit_test(a_copy_has_everything_and_shares_nothing),
        cmocka_unit_test(sizes_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
