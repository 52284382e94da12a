/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "sae/geometry.h"

/* A dictionary around arrays of the test; only what geometry reads. */
static sonde_dict dict_of(float *w_enc, float *w_dec, size_t n, size_t d_in, size_t d_out)
{
    return (sonde_dict){.d_in = d_in, .d_out = d_out, .n_latents = n, .w_enc = w_enc, .w_dec = w_dec};
}

static float *normals(size_t n, uint64_t seed)
{
    sonde_rng r = sonde_rng_seed(seed);
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)sonde_rng_normal(&r);
    return x;
}

static sonde_geometry *measure(const sonde_dict *d, int threads)
{
    sonde_err err = {0};
    sonde_work work = {0};
    sonde_geometry *g = NULL;
    assert_int_equal(sonde_pool_new(threads, &work.pool, &err), SONDE_OK);
    assert_int_equal(sonde_geometry_measure(d, sonde_kernels_best(), &work, &g, &err), SONDE_OK);
    sonde_pool_free(work.pool);
    return g;
}

static double cosine(const float *a, const float *b, size_t d)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < d; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}

static double plain_max(const float *w, size_t n, size_t d, size_t i)
{
    double best = -1;
    for (size_t j = 0; j < n; j++)
        if (j != i)
            best = fmax(best, cosine(w + i * d, w + j * d, d));
    return best;
}

static bool near(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance;
}

static void four_latents_by_hand(void **state)
{
    (void)state;
    /* e: along x, y, x, -y; decoder: (3,4), (4,3), (0,0), (-3,-4) */
    float w_enc[8] = {2, 0, 0, 3, 1, 0, 0, -1}, w_dec[8] = {3, 4, 4, 3, 0, 0, -3, -4};
    sonde_dict d = dict_of(w_enc, w_dec, 4, 2, 2);
    sonde_geometry *g = measure(&d, 1);
    static const double e_norm[4] = {2, 3, 1, 1}, d_norm[4] = {5, 5, 0, 5}, e_d[4] = {.6, .6, 0, .8};
    static const double e_max[4] = {1, 0, 1, 0}, d_max[4] = {.96, .96, 0, 0};
    for (size_t i = 0; i < 4; i++) {
        assert_true(near((double)g->encoder_norm[i], e_norm[i], 1e-6));
        assert_true(near((double)g->decoder_norm[i], d_norm[i], 1e-6));
        assert_true(near((double)g->encoder_decoder_cosine[i], e_d[i], 1e-6));
        assert_true(near((double)g->max_encoder_cosine[i], e_max[i], 1e-6));
        assert_true(near((double)g->max_decoder_cosine[i], d_max[i], 1e-6));
    }
    assert_true(g->encoder.min == 1 && g->encoder.max == 3 && near(g->encoder.mean, 1.75, 1e-6));
    assert_true(g->decoder.min == 0 && near(g->decoder.mean, 3.75, 1e-6));
    assert_true(near(g->encoder_decoder_cosine_sim, .5, 1e-6));
    assert_true(near(g->average_max_encoder_cosine_sim, .5, 1e-6));
    assert_true(near(g->average_max_decoder_cosine_sim, .48, 1e-6));
    sonde_geometry_free(g);
}

/* Sizes around the panel (1024), the block (64) and the lanes. */
static void the_nearest_is_found_across_every_edge_of_a_tile(void **state)
{
    (void)state;
    static const size_t sizes[] = {2, 15, 17, 63, 65, 130, 1023, 1024, 1025, 1100};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const size_t n = sizes[s], d = 6;
        float *e = normals(n * 5, 10 + s), *o = normals(n * d, 20 + s);
        memcpy(o + (n - 1) * d, o, d * sizeof *o); /* the first and the last are the same */
        sonde_dict dict = dict_of(e, o, n, 5, d);
        sonde_geometry *g = measure(&dict, 2);
        assert_null(g->encoder_decoder_cosine);
        assert_true(isnan(g->encoder_decoder_cosine_sim));
        assert_true(near((double)g->max_decoder_cosine[0], 1, 2e-6));
        assert_true(near((double)g->max_decoder_cosine[n - 1], 1, 2e-6));
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            double want = plain_max(o, n, d, i);
            assert_true(near((double)g->max_decoder_cosine[i], want, 2e-6));
            assert_true(near((double)g->max_encoder_cosine[i], plain_max(e, n, 5, i), 2e-6));
            sum += want;
        }
        assert_true(near(g->average_max_decoder_cosine_sim, sum / (double)n, 2e-6));
        sonde_geometry_free(g);
        free(e), free(o);
    }
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    const size_t n = 1300, d = 16;
    float *e = normals(n * d, 1), *o = normals(n * d, 2);
    sonde_dict dict = dict_of(e, o, n, d, d);
    sonde_geometry *want = measure(&dict, 1);
    for (int threads = 2; threads <= 3; threads++) {
        sonde_geometry *g = measure(&dict, threads);
        assert_memory_equal(g->max_decoder_cosine, want->max_decoder_cosine, n * sizeof(float));
        assert_memory_equal(g->max_encoder_cosine, want->max_encoder_cosine, n * sizeof(float));
        assert_memory_equal(&g->average_max_decoder_cosine_sim, &want->average_max_decoder_cosine_sim,
                            sizeof(double));
        sonde_geometry_free(g);
    }
    sonde_geometry_free(want);
    free(e), free(o);
}

static void one_latent_has_no_neighbour(void **state)
{
    (void)state;
    float w[2] = {3, 4};
    sonde_dict d = dict_of(w, w, 1, 2, 2);
    sonde_geometry *g = measure(&d, 1);
    assert_true(g->encoder.mean == 5.0 && near(g->encoder_decoder_cosine_sim, 1, 1e-6));
    assert_true(isnan(g->average_max_decoder_cosine_sim) && isnan(g->average_max_encoder_cosine_sim));
    sonde_geometry_free(g);
}

static void memory_grows_with_latents_and_not_with_their_square(void **state)
{
    (void)state;
    const size_t n = 20000, d = 4;
    float *w = normals(n * d, 3);
    sonde_dict dict = dict_of(w, w, n, d, d);
    sonde_budget budget = {.limit = 4 << 20};
    sonde_work work = {.budget = &budget};
    sonde_err err = {0};
    sonde_geometry *g;
    assert_int_equal(sonde_geometry_measure(&dict, sonde_kernels_best(), &work, &g, &err), SONDE_OK);
    sonde_geometry_free(g);
    assert_int_equal(budget.taken, 0);
    budget.limit = 1 << 19;
    assert_int_equal(sonde_geometry_measure(&dict, sonde_kernels_best(), &work, &g, &err), SONDE_E_MEMORY);
    assert_int_equal(budget.taken, 0);
    free(w);
}

static void a_stop_is_heard(void **state)
{
    (void)state;
    float w[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    sonde_dict d = dict_of(w, w, 4, 2, 2);
    const volatile sig_atomic_t stop = 1;
    sonde_work work = {.stop = &stop};
    sonde_err err = {0};
    sonde_geometry *g;
    assert_int_equal(sonde_geometry_measure(&d, sonde_kernels_best(), &work, &g, &err), SONDE_E_STOPPED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_latents_by_hand),
        cmocka_unit_test(the_nearest_is_found_across_every_edge_of_a_tile),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(one_latent_has_no_neighbour),
        cmocka_unit_test(memory_grows_with_latents_and_not_with_their_square),
        cmocka_unit_test(a_stop_is_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
