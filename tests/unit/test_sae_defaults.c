/* SPDX-License-Identifier: MIT
 * Options of training: what is refused before anything is computed, and what survives as JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <string.h>

#include "sae/train.h"

#define D 8

static sonde_train_options options(const char *arch)
{
    sonde_train_options o = sonde_train_options_auto();
    o.arch = arch;
    o.n_latents = 32;
    o.k = 4;
    return o;
}

static void must_refuse(sonde_train_options o, size_t d_in, bool transcoder, const char *word)
{
    sonde_err err = {0};
    assert_int_equal(sonde_train_defaults(&o, d_in, D, 1000, transcoder, &err), SONDE_E_USAGE);
    if (!strstr(err.msg, word))
        fail_msg("'%s' does not say '%s'", err.msg, word);
}

/* A latent without gradient has moments 0; its step would be 0 / 0. */
static void epsilon_that_vanishes_in_float32_is_refused(void **state)
{
    (void)state;
    const double eps[] = {0, 1e-60};
    for (size_t i = 0; i < 2; i++) {
        sonde_train_options o = options("topk");
        o.eps = eps[i];
        must_refuse(o, D, false, "eps");
    }
}

static void target_of_no_active_latent_is_refused(void **state)
{
    (void)state;
    sonde_train_options o = options("jumprelu");
    o.target_l0 = 0;
    must_refuse(o, D, false, "target_l0 is 0");
}

static void first_k_outside_k_and_latents_is_refused(void **state)
{
    (void)state;
    const uint64_t k_start[] = {3, 33, UINT64_MAX - 1};
    for (size_t i = 0; i < 3; i++) {
        sonde_train_options o = options("batchtopk");
        o.k_start = k_start[i];
        o.k_anneal = 5;
        must_refuse(o, D, false, "k begins with");
    }
}

static void dead_window_of_no_row_is_refused(void **state)
{
    (void)state;
    sonde_train_options o = options("batchtopk");
    o.dead_window = 0;
    must_refuse(o, D, false, "dead window");
}

/* Otherwise a run finds out when it saves. */
static void row_norms_of_a_transcoder_are_refused(void **state)
{
    (void)state;
    const int normalize[] = {SONDE_NORMALIZE_CONSTANT, SONDE_NORMALIZE_LAYER};
    for (size_t i = 0; i < 2; i++) {
        sonde_train_options o = options("batchtopk");
        o.normalize = normalize[i];
        must_refuse(o, D, true, "transcoder");
    }
}

static void layer_norm_of_one_number_is_refused(void **state)
{
    (void)state;
    sonde_train_options o = options("batchtopk");
    o.normalize = SONDE_NORMALIZE_LAYER;
    o.pre_bias = 0;
    o.tied = 0;
    must_refuse(o, 1, false, "1 number");
}

static void more_prefixes_than_there_is_room_for_are_refused(void **state)
{
    (void)state;
    sonde_train_options o = options("matryoshka");
    o.n_prefixes = SONDE_MAX_PREFIXES + 1;
    must_refuse(o, D, false, "17 prefixes");
}

static void one_prefix_survives_as_json(void **state)
{
    (void)state;
    sonde_err err = {0};
    sonde_train_options o = options("matryoshka"), back;
    o.n_prefixes = 1;
    o.prefix[0] = 32;
    assert_int_equal(sonde_train_defaults(&o, D, D, 1000, false, &err), SONDE_OK);
    json_t *json = sonde_train_options_json(&o);
    assert_int_equal(sonde_train_options_read(json, &back, &err), SONDE_OK);
    json_decref(json);
    assert_int_equal(sonde_train_defaults(&back, D, D, 1000, false, &err), SONDE_OK);
    assert_int_equal(back.n_prefixes, 1);
    assert_int_equal(back.prefix[0], 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(epsilon_that_vanishes_in_float32_is_refused),
        cmocka_unit_test(target_of_no_active_latent_is_refused),
        cmocka_unit_test(first_k_outside_k_and_latents_is_refused),
        cmocka_unit_test(dead_window_of_no_row_is_refused),
        cmocka_unit_test(row_norms_of_a_transcoder_are_refused),
        cmocka_unit_test(layer_norm_of_one_number_is_refused),
        cmocka_unit_test(more_prefixes_than_there_is_room_for_are_refused),
        cmocka_unit_test(one_prefix_survives_as_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
