/* SPDX-License-Identifier: MIT
 * Patched runs; hooks that write while generating, inside a batch, and several at one site. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model_edits.h"

/* ---- patching ---------------------------------------- */

static void a_patched_stream_gives_the_other_run_s_logits(void **state)
{
    static const int sites[] = {SONDE_SITE_EMBED,      RESID_PRE,        RESID_MID, RESID_POST,
                                SONDE_SITE_UNEMBED_IN, SONDE_SITE_LOGITS};
    (void)state;
    for (size_t g = 0; g < N_MODELS; g++) {
        model = opened[g];
        float *want = pass(2, NULL, 0, NULL, 0), *plain = pass(1, NULL, 0, NULL, 0);
        assert_true(memcmp(want, plain, n_logits() * sizeof *want));
        for (size_t s = 0; s < sizeof sites / sizeof *sites; s++)
            for (size_t l = 0;
                 l < (sonde_site_in_block((enum sonde_site)sites[s]) ? model->arch.n_layers : 1); l++) {
                struct reading from = {sites[s], l, NULL, 0};
                if (sonde_site_absent(&model->arch, (enum sonde_site)sites[s]))
                    continue;
                free(pass(2, NULL, 0, &from, 1));
                const struct edit e = {sites[s], l, replace, -1, 0, from.x};
                float *x = pass(1, &e, 1, NULL, 0);
                assert_same(x, want, n_logits(), "the other run's logits");
                free(x);
                free(from.x);
            }
        free(want);
        free(plain);
    }
}

/* ---- generation, batches, several hooks ---------------------------------------- */

/* The same tokens in pieces of 5, 1, 2, 3, 1, ... through a cache. */
static float *in_pieces(int seed, const struct edit *e)
{
    sonde_run *run = new_run(model);
    sonde_cache *cache;
    sonde_err err = {0};
    int32_t ids[MAX_LENGTH_RUN];
    size_t n = length_for(model), v = model->arch.n_vocab_out;
    struct wanted_logits w = {calloc(n * v, sizeof(float)), v};
    float *x = w.x;
    ids_for(model, seed, ids);
    hook_all(run, e, 1, NULL, 0);
    assert_int_equal(sonde_cache_new(model, n, NULL, &cache, &err), SONDE_OK);
    sonde_run_want_logits(run, take_logits, &w, false);
    for (size_t at = 0, step; at < n; at += step) {
        step = at ? 1 + at % 3 : 5;
        step = step < n - at ? step : n - at;
        const size_t start[2] = {at, at + step};
        w.x = x + at * v;
        if (sonde_run_forward(run, ids, start, 1, cache, &err))
            fail_msg("%s", err.msg);
    }
    sonde_cache_free(cache);
    sonde_run_free(run);
    return x;
}

static void every_site_written_while_generating_gives_the_bits_of_one_pass(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_MODELS; g++) {
        model = opened[g];
        float *plain = pass(1, NULL, 0, NULL, 0);
        for (int s = 0; s < SONDE_N_SITES; s++) {
            size_t layer = sonde_site_in_block((enum sonde_site)s) ? 1 : 0;
            const struct edit e = {s, layer, bend, -1, 0, NULL};
            char name[SONDE_HOOK_NAME_MAX];
            if (sonde_site_absent(&model->arch, (enum sonde_site)s) || s == SONDE_SITE_TOKENS ||
                (s == SONDE_SITE_ATTN_IN && model->arch.n_heads != model->arch.n_kv_heads))
                continue;
            float *a = pass(1, &e, 1, NULL, 0), *b = in_pieces(1, &e);
            sonde_hook_name((sonde_hook){(enum sonde_site)s, layer}, name);
            assert_same(a, b, n_logits(), name);
            if (!memcmp(a, plain, n_logits() * sizeof *a))
                fail_msg("%s: writing %s changes nothing", models[g], name);
            free(a);
            free(b);
        }
        free(plain);
    }
}

static enum sonde_code bend_second(void *arg, const sonde_view *v, sonde_err *err)
{
    return v->sequence == 1 ? apply(arg, v, err) : SONDE_OK;
}

struct two_logits {
    float *x[2];
    size_t v;
};

static enum sonde_code take_two(void *arg, size_t sequence, size_t first, size_t n, float *logits,
                                sonde_err *err)
{
    struct two_logits *w = arg;
    (void)err;
    memcpy(w->x[sequence] + first * w->v, logits, n * w->v * sizeof *logits);
    return SONDE_OK;
}

static void writing_in_one_sequence_leaves_the_others(void **state)
{
    static const int sites[] = {RESID_PRE, K, SCORES, Z, RESULT, SONDE_SITE_Q_INPUT, SONDE_SITE_LOGITS};
    (void)state;
    for (size_t g = 0; g < N_MODELS; g++)
        for (size_t s = 0; s < sizeof sites / sizeof *sites; s++) {
            model = opened[g];
            size_t n = length_for(model), v = model->arch.n_vocab_out,
                   layer = sonde_site_in_block((enum sonde_site)sites[s]) ? 1 : 0;
            const size_t start[3] = {0, n, 2 * n};
            int32_t ids[2 * MAX_LENGTH_RUN];
            struct two_logits w = {{calloc(n * v, sizeof(float)), calloc(n * v, sizeof(float))}, v};
            struct edit e = {sites[s], layer, bend, -1, 0, NULL};
            const struct edit as_is = {sites[s], layer, scale,
                                       -1,       1,     NULL}; /* written results are summed head by head */
            sonde_run *run;
            sonde_err err = {0};
            ids_for(model, 1, ids);
            ids_for(model, 2, ids + n);
            assert_int_equal(sonde_run_new(model, 2 * n, n, NULL, NULL, &run, &err), SONDE_OK);
            assert_int_equal(sonde_run_hook(run, (sonde_hook){(enum sonde_site)sites[s], layer}, true,
                                            bend_second, &e, &err),
                             SONDE_OK);
            sonde_run_want_logits(run, take_two, &w, false);
            assert_int_equal(sonde_run_forward(run, ids, start, 2, NULL, &err), SONDE_OK);
            float *plain = pass(1, &as_is, 1, NULL, 0), *bent = pass(2, &e, 1, NULL, 0);
            assert_same(w.x[0], plain, n * v, "the sequence that was left alone");
            assert_same(w.x[1], bent, n * v, "the sequence that was written");
            free(plain);
            free(bent);
            free(w.x[0]);
            free(w.x[1]);
            sonde_run_free(run);
        }
}

static void hooks_of_one_site_come_in_the_order_added(void **state)
{
    (void)state;
    use("gpt2");
    const struct edit twice[2] = {{Z, 0, scale, -1, 3, NULL}, {Z, 0, bend, -1, 0, NULL}},
                      turned[2] = {twice[1], twice[0]};
    float *a = pass(1, twice, 2, NULL, 0), *b = pass(1, turned, 2, NULL, 0);
    struct reading plain = read_at(Z, 0), now = read_with(twice, 2, Z, 0);
    size_t width = sonde_site_width(&model->arch, SONDE_SITE_Z);
    assert_true(memcmp(a, b, n_logits() * sizeof *a));
    for (size_t i = 0; i < now.n; i++)
        assert_true(now.x[i] == 1.25f * (3 * plain.x[i]) +
                                    0.0625f * (float)((int)((i / width * 7 + i % width * 3) % 11) - 5));
    free(a);
    free(b);
    free(plain.x);
    free(now.x);
}

static void hooks_see_their_own_layer_only(void **state)
{
    static const int sites[] = {RESID_POST, Q, SCORES, Z};
    (void)state;
    use("gpt2");
    for (size_t s = 0; s < sizeof sites / sizeof *sites; s++) {
        const struct edit e[2] = {{sites[s], 1, bend, -1, 0, NULL}, {sites[s], 2, scale, -1, 0, NULL}};
        struct reading plain = read_at(sites[s], 0), now = read_with(e, 2, sites[s], 0);
        assert_int_equal(now.n, plain.n);
        assert_same(now.x, plain.x, now.n, "a layer before the edits");
        free(plain.x);
        free(now.x);
    }
}

static enum sonde_code stop_here(void *arg, const sonde_view *v, sonde_err *err)
{
    (void)arg;
    return sonde_fail(err, SONDE_E_STOPPED, "stopped in layer %zu", v->hook.layer);
}

static void an_error_of_a_hook_ends_the_pass(void **state)
{
    static const int sites[] = {RESID_PRE,          Q,         SCORES, PATTERN, Z, RESULT, ATTN_OUT,
                                SONDE_SITE_MLP_PRE, RESID_POST};
    (void)state;
    use("gpt2");
    for (size_t s = 0; s < sizeof sites / sizeof *sites; s++) {
        sonde_run *run = new_run(model);
        struct reading after = {RESID_POST, 2, NULL, 0};
        const size_t start[2] = {0, 3};
        const int32_t ids[3] = {1, 2, 3};
        sonde_err err = {0};
        assert_int_equal(
            sonde_run_hook(run, (sonde_hook){(enum sonde_site)sites[s], 1}, false, stop_here, NULL, &err),
            SONDE_OK);
        hook_all(run, NULL, 0, &after, 1);
        assert_int_equal(sonde_run_forward(run, ids, start, 1, NULL, &err), SONDE_E_STOPPED);
        assert_string_equal(err.msg, "stopped in layer 1");
        assert_int_equal(after.n, 0);
        sonde_run_free(run);
    }
}

static void a_bidirectional_model_takes_no_cache(void **state)
{
    (void)state;
    struct fixture f;
    const size_t start[3] = {0, 2, 1};
    const int32_t ids[2] = {1, 2};
    sonde_cache *cache;
    sonde_err err = {0};
    fixture_load(&f, "tl_bidirectional");
    sonde_model *m = fixture_must_open(&f, 0);
    sonde_run *run = new_run(m);
    assert_int_equal(sonde_cache_new(m, 4, NULL, &cache, &err), SONDE_OK);
    assert_int_equal(sonde_run_forward(run, ids, start, 1, cache, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "a cache is of no use"));
    assert_int_equal(sonde_run_forward(run, ids, start, 2, NULL, &err), SONDE_E_USAGE);
    assert_string_equal(err.msg, "sequence 1 ends before it begins");
    sonde_cache_free(cache);
    sonde_run_free(run);
    sonde_model_close(m);
    fixture_free(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_patched_stream_gives_the_other_run_s_logits),
        cmocka_unit_test(every_site_written_while_generating_gives_the_bits_of_one_pass),
        cmocka_unit_test(writing_in_one_sequence_leaves_the_others),
        cmocka_unit_test(hooks_of_one_site_come_in_the_order_added),
        cmocka_unit_test(hooks_see_their_own_layer_only),
        cmocka_unit_test(an_error_of_a_hook_ends_the_pass),
        cmocka_unit_test(a_bidirectional_model_takes_no_cache),
    };
    return cmocka_run_group_tests_name("model_patching", tests, open_all, close_all);
}
