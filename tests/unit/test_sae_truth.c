/* SPDX-License-Identifier: MIT
 * Scores against the truth: SAELens' on made-up data, closed cases, perfect dictionaries, damaged files. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../golden/sae_truth_values.h"
#include "file/store.h"
#include "sae/synth.h"
#include "sae/truth.h"

static char dir[64], path[96];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-truth-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/acts.h5", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void must(enum sonde_code code, const sonde_err *err)
{
    if (code)
        fail_msg("code %d: %s", (int)code, err->msg);
}

static void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    assert_non_null(p);
    return p;
}

static sonde_match *match(const sonde_truth *t, const float *w, size_t n_latents, const sonde_work *work)
{
    sonde_match *m = NULL;
    sonde_err err;
    must(sonde_truth_match(t, w, n_latents, sonde_truth_about(t).d, sonde_kernels_best(), work, &m, &err),
         &err);
    return m;
}

/* ---- a file of truth by hand ----------------------------------------------------------------- */

struct rows {
    int64_t *indptr;
    int32_t *index;
    size_t n;
};

/* Bent in one place: see damaged_truth_is_named. */
struct bend {
    const char *dataset;
    uint64_t at;
    int64_t to;
};

static void write_truth(const float *g, size_t n, size_t d, const float *frequency, const struct rows *r,
                        const struct bend *bend)
{
    sonde_store_writer *w;
    sonde_err err;
    const uint64_t entries = (uint64_t)r->indptr[r->n];
    const sonde_store_dataset all[] = {{"/truth/directions", SONDE_F32, 2, {n, d}},
                                       {"/truth/frequency", SONDE_F32, 1, {n}},
                                       {"/truth/indptr", SONDE_I64, 1, {r->n + 1}},
                                       {"/truth/indices", SONDE_I32, 1, {entries}}};
    must(sonde_store_create(path, &(sonde_store_layout){all, 4, NULL, 0}, true, &w, &err), &err);
    must(sonde_store_write(w, 0, 0, n, g, &err), &err);
    must(sonde_store_write(w, 1, 0, n, frequency, &err), &err);
    must(sonde_store_write(w, 2, 0, r->n + 1, r->indptr, &err), &err);
    must(sonde_store_write(w, 3, 0, entries, r->index, &err), &err);
    for (size_t k = 0; bend && k < 4; k++) {
        const int32_t small = (int32_t)bend->to;
        const float number = (float)bend->to;
        const void *value = k < 2    ? (const void *)&number
                            : k == 2 ? (const void *)&bend->to
                                     : (const void *)&small;
        if (k > 0 && !strcmp(all[k].path, bend->dataset))
            must(sonde_store_write(w, k, bend->at, 1, value, &err), &err);
    }
    must(sonde_store_finish(w, NULL, 0, &err), &err);
}

/* ---- against SAELens ------------------------------------------------------------------------- */

static uint32_t draw(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return *s >> 16;
}

static void fill(float *x, size_t n, uint32_t *s)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(((double)draw(s) - 32768) / 8192);
}

/* The data of make_sae_truth.py. */
struct golden {
    float g[TRUTH_N * TRUTH_D], w[TRUTH_F * TRUTH_D];
    bool a[TRUTH_ROWS][TRUTH_N], f[TRUTH_ROWS][TRUTH_F];
};

static struct golden *golden_data(void)
{
    struct golden *x = zeroed(1, sizeof *x);
    uint32_t s = 11;
    fill(x->g, TRUTH_N * TRUTH_D, &s);
    fill(x->w, TRUTH_F * TRUTH_D, &s);
    for (size_t i = 0; i < TRUTH_F * TRUTH_D; i++)
        x->w[i] = x->g[i] + 0.25f * x->w[i];
    for (size_t k = 0; k < TRUTH_D; k++) {
        x->w[3 * TRUTH_D + k] = x->g[2 * TRUTH_D + k];
        x->w[5 * TRUTH_D + k] = -2 * x->g[5 * TRUTH_D + k];
        x->w[7 * TRUTH_D + k] = 0;
    }
    for (size_t r = 0; r < TRUTH_ROWS; r++) {
        for (size_t i = 0; i < TRUTH_N; i++)
            x->a[r][i] = draw(&s) % 16 < 2 + i % 5;
        for (size_t j = 0; j < TRUTH_F; j++)
            x->f[r][j] = (x->a[r][j] != (draw(&s) % 16 < j % 4)) && j != 9;
    }
    return x;
}

/* Active latents below n of a matrix of flags. */
static struct rows rows_of(const bool *a, size_t ld, size_t n)
{
    struct rows r = {.n = TRUTH_ROWS};
    r.indptr = zeroed(r.n + 1, sizeof *r.indptr);
    r.index = zeroed(r.n * n, sizeof *r.index);
    for (size_t i = 0; i < r.n; i++) {
        r.indptr[i + 1] = r.indptr[i];
        for (size_t j = 0; j < n; j++)
            if (a[i * ld + j])
                r.index[r.indptr[i + 1]++] = (int32_t)j;
    }
    return r;
}

static sonde_sparse sparse_of(const struct rows *r)
{
    sonde_sparse f = {.n_rows = r->n};
    f.start = zeroed(r->n + 1, sizeof *f.start);
    f.col = zeroed((size_t)r->indptr[r->n], sizeof *f.col);
    f.value = zeroed((size_t)r->indptr[r->n], sizeof *f.value);
    for (size_t i = 0; i <= r->n; i++)
        f.start[i] = (uint64_t)r->indptr[i];
    for (size_t k = 0; k < f.start[r->n]; k++) {
        f.col[k] = (uint32_t)r->index[k];
        f.value[k] = k % 2 ? 1 : -1;
    }
    return f;
}

static void close_to(double x, double want, const char *what)
{
    if (!(fabs(x - want) < 1e-6)) /* theirs is float32 */
        fail_msg("%s: %.9g, SAELens has %.9g", what, x, want);
}

static void check_golden(const struct golden *x, size_t n, const struct truth_scores *want)
{
    struct rows a = rows_of(x->a[0], TRUTH_N, n), latents = rows_of(x->f[0], TRUTH_F, TRUTH_F);
    float frequency[TRUTH_N] = {0};
    for (int64_t k = 0; k < a.indptr[TRUTH_ROWS]; k++)
        frequency[a.index[k]] += 1.0f / TRUTH_ROWS;
    write_truth(x->g, n, TRUTH_D, frequency, &a, NULL);
    sonde_sparse f = sparse_of(&latents);
    sonde_truth *t;
    sonde_detector *d;
    sonde_detection *s;
    sonde_err err;
    must(sonde_truth_open(path, NULL, &t, &err), &err);
    sonde_match *m = match(t, x->w, TRUTH_F, NULL);
    must(sonde_detector_new(t, m, NULL, &d, &err), &err);
    for (size_t r = TRUTH_ROWS; r-- > 0;) { /* one at a time, backwards */
        const uint64_t row = r;
        const sonde_sparse one = {.n_rows = 1, .start = f.start + r, .col = f.col, .value = f.value};
        must(sonde_detector_add(d, &row, 1, &one, &err), &err);
    }
    must(sonde_detector_end(d, NULL, &s, &err), &err);
    close_to(m->mmcs, want->mmcs, "mmcs");
    close_to(m->mmcs_weighted, want->mmcs_weighted, "mmcs_weighted");
    close_to(m->recall_at_0_9, want->recall_at_0_9, "recall_at_0.9");
    close_to(m->mcc, want->mcc, "mcc");
    close_to(m->uniqueness, want->uniqueness, "uniqueness");
    close_to(s->precision, want->precision, "precision");
    close_to(s->recall, want->recall, "recall");
    close_to(s->f1, want->f1, "f1");
    close_to(s->accuracy, want->accuracy, "accuracy");
    close_to(s->true_l0, want->true_l0, "true_l0");
    double mean = 0;
    for (size_t j = 0; j < TRUTH_F; j++)
        mean += s->f1_of[j] / TRUTH_F;
    assert_true(fabs(mean - s->f1) < 1e-12 && s->n_rows == TRUTH_ROWS);
    sonde_detection_free(s);
    sonde_detector_free(d);
    sonde_match_free(m);
    sonde_truth_close(t);
    free(a.indptr), free(a.index), free(latents.indptr), free(latents.index);
    free(f.start), free(f.col), free(f.value);
}

static void scores_equal_saelens(void **state)
{
    (void)state;
    struct golden *x = golden_data();
    check_golden(x, TRUTH_N, &more_truth);
    check_golden(x, 10, &more_latents);
    free(x);
}

/* ---- directions ------------------------------------------------------------------------------ */

static void the_truth_itself_scores_one(void **state)
{
    (void)state;
    sonde_synth *s;
    sonde_truth *t;
    sonde_err err;
    must(sonde_synth_new(&(sonde_synth_options){.dim = 16, .truth = 40, .seed = 3, .active = 2},
                         sonde_kernels_best(), NULL, &s, &err),
         &err);
    float *w = zeroed(40 * 16, sizeof *w); /* in another order, and longer */
    for (size_t i = 0; i < 40; i++)
        for (size_t k = 0; k < 16; k++)
            w[i * 16 + k] = 3 * s->direction[(i * 7 + 3) % 40 * 16 + k];
    must(sonde_truth_of(s->direction, 40, 16, NULL, NULL, &t, &err), &err);
    sonde_match *m = match(t, w, 40, NULL);
    assert_true(fabs(m->mmcs - 1) < 1e-6 && fabs(m->mcc - 1) < 1e-6);
    assert_true(m->recall_at_0_9 == 1 && m->uniqueness == 1 && isnan(m->mmcs_weighted));
    for (size_t i = 0; i < 40; i++) {
        assert_int_equal(m->pair[i], (i * 7 + 3) % 40);
        assert_int_equal(m->latent_truth[i], m->pair[i]);
        assert_int_equal(m->best_latent[m->pair[i]], i);
    }
    sonde_match_free(m);
    sonde_truth_close(t);
    sonde_synth_free(s);
    free(w);
}

/* Axes as truth: every score can be worked out by hand. */
static void scores_of_a_plane_are_those_worked_out_by_hand(void **state)
{
    (void)state;
    const float g[] = {1, 0, 0, 1}, frequency[] = {0.75f, 0.25f};
    const float w[] = {0.8f, 0.6f, 1, 0, 0, 0}; /* one between, one on the first axis, one dead */
    sonde_truth *t;
    sonde_err err;
    must(sonde_truth_of(g, 2, 2, frequency, NULL, &t, &err), &err);
    sonde_match *m = match(t, w, 3, NULL);
    assert_true(fabs(m->mmcs - 0.8) < 1e-6);          /* (1 + 0.6) / 2 */
    assert_true(fabs(m->mmcs_weighted - 0.9) < 1e-6); /* 0.75 + 0.25 0.6 */
    assert_true(m->recall_at_0_9 == 0.5);
    assert_true(fabs(m->mcc - 0.8) < 1e-6);             /* 1 and 0.6, not 0.8 and 0 */
    assert_true(fabs(m->uniqueness - 1.0 / 3) < 1e-12); /* all three lean to the first axis */
    assert_true(m->pair[0] == 1 && m->pair[1] == 0 && m->pair[2] == UINT32_MAX);
    assert_true(m->latent_cosine[2] == 0 && m->latent_truth[2] == 0);
    sonde_match_free(m);
    sonde_truth_close(t);
}

static void threads_change_no_bit_of_a_match(void **state)
{
    (void)state;
    sonde_synth *a, *b;
    sonde_truth *t;
    sonde_err err;
    sonde_synth_options o = {.dim = 24, .truth = 150, .seed = 3, .active = 2};
    must(sonde_synth_new(&o, sonde_kernels_best(), NULL, &a, &err), &err);
    o.seed = 4;
    o.truth = 333;
    must(sonde_synth_new(&o, sonde_kernels_best(), NULL, &b, &err), &err);
    must(sonde_truth_of(a->direction, 150, 24, NULL, NULL, &t, &err), &err);
    sonde_match *want = match(t, b->direction, 333, NULL);
    for (int threads = 2; threads <= 3; threads++) {
        sonde_pool *pool;
        must(sonde_pool_new(threads, &pool, &err), &err);
        sonde_match *m = match(t, b->direction, 333, &(sonde_work){.pool = pool});
        assert_memory_equal(m->best_cosine, want->best_cosine, 150 * sizeof(float));
        assert_memory_equal(m->pair, want->pair, 333 * sizeof(uint32_t));
        assert_true(m->mcc == want->mcc && m->mmcs == want->mmcs);
        sonde_match_free(m);
        sonde_pool_free(pool);
    }
    sonde_match_free(want);
    sonde_truth_close(t);
    sonde_synth_free(a);
    sonde_synth_free(b);
}

static void widths_that_differ_are_named(void **state)
{
    (void)state;
    const float g[6] = {1}, w[8] = {1};
    sonde_truth *t;
    sonde_match *m;
    sonde_err err;
    must(sonde_truth_of(g, 2, 3, NULL, NULL, &t, &err), &err);
    assert_int_equal(sonde_truth_match(t, w, 2, 4, sonde_kernels_best(), NULL, &m, &err), SONDE_E_USAGE);
    assert_string_equal(err.msg, "the dictionary writes rows of 4, the true directions have 3");
    assert_int_equal(sonde_truth_match(t, w, 0, 3, sonde_kernels_best(), NULL, &m, &err), SONDE_E_USAGE);
    sonde_detector *d;
    m = match(t, w, 2, NULL);
    assert_int_equal(sonde_detector_new(t, m, NULL, &d, &err), SONDE_E_USAGE);
    sonde_match_free(m);
    sonde_truth_close(t);
}

/* ---- a dictionary over a file ---------------------------------------------------------------- */

/* The transposed truth is the perfect encoder of orthogonal directions; a threshold makes it miss what is
 * small. */
static void an_ideal_dictionary_detects_all_and_a_deaf_one_misses_what_it_must(void **state)
{
    (void)state;
    enum { D = 32, N = 24 };
    sonde_synth *s;
    sonde_synth_result made;
    sonde_err err;
    must(sonde_synth_new(
             &(sonde_synth_options){.dim = D, .truth = N, .seed = 5, .active = 3, .orthogonal_steps = 1},
             sonde_kernels_best(), NULL, &s, &err),
         &err);
    must(sonde_synth_write(s, &(sonde_synth_file){.n_rows = 20000, .holdout = 0.5, .overwrite = true},
                           sonde_kernels_best(), NULL, path, &made, &err),
         &err);
    float threshold[N], zero[D] = {0};
    sonde_dict dict = {.act = SONDE_DICT_JUMPRELU,
                       .d_in = D,
                       .d_out = D,
                       .n_latents = N,
                       .w_enc = s->direction,
                       .b_enc = zero,
                       .w_dec = s->direction,
                       .b_dec = zero,
                       .threshold = threshold};
    sonde_truth *t;
    sonde_source *source;
    must(sonde_truth_open(path, NULL, &t, &err), &err);
    must(sonde_source_open(path, &(sonde_source_options){0}, NULL, &source, &err), &err);
    assert_int_equal(sonde_source_about(source)->n_heldout, 10000);
    sonde_match *m = match(t, s->direction, N, NULL);
    for (int deaf = 0; deaf < 2; deaf++) {
        for (size_t i = 0; i < N; i++)
            threshold[i] = deaf ? 0.25f : 1e-5f; /* rounding leaks less than 1e-6 */
        sonde_encoder *e;
        sonde_detection *d;
        must(sonde_encoder_new(&dict, sonde_kernels_best(), false, NULL, NULL, &e, &err), &err);
        must(sonde_truth_detect(t, m, &dict, e, source, SONDE_SPLIT_HELDOUT, 0, NULL, &d, &err), &err);
        assert_int_equal(d->n_rows, 10000);
        assert_true(fabs(d->true_l0 - 3) < 5 * sqrt(3.0 / 10000));
        assert_true(d->precision > 1 - 1e-9);
        /* U(0, 1] above 1/4 in three of four rows, 1250 rows a latent: F1 = 2 0.75 / 1.75 */
        double want = deaf ? 0.75 : 1, se = sqrt(0.1875 / 1250 / N);
        assert_true(fabs(d->recall - want) < 5 * se + 1e-4);
        assert_true(fabs(d->f1 - 2 * want / (1 + want)) < 5 * se + 1e-3);
        assert_true(fabs(d->f1_matched - d->f1) < 1e-12);
        sonde_detection_free(d);
        must(sonde_truth_detect(t, m, &dict, e, source, SONDE_SPLIT_ALL, 123, NULL, &d, &err), &err);
        assert_int_equal(d->n_rows, 123);
        sonde_detection_free(d);
        sonde_encoder_free(e);
    }
    sonde_match_free(m);
    sonde_truth_close(t);
    sonde_source_close(source);
    sonde_synth_free(s);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void damaged_truth_is_named(void **state)
{
    (void)state;
    const struct {
        struct bend bend;
        enum sonde_code open, add;
        const char *words;
    } bad[] = {
        {{"/truth/frequency", 1, 2}, SONDE_E_INPUT, 0, "/truth/frequency[1] is 2"},
        {{"/truth/indptr", 0, -1}, 0, SONDE_E_INPUT, "/truth/indptr: row 0 has the entries -1 to 2 of 5"},
        {{"/truth/indptr", 1, 99}, 0, SONDE_E_INPUT, "row 0 has the entries 0 to 99 of 5"},
        {{"/truth/indptr", 2, INT64_MAX}, 0, SONDE_E_INPUT, "row 1 has the entries 2 to 9223372036854775807"},
        {{"/truth/indptr", 1, INT64_MIN}, 0, SONDE_E_INPUT, "row 0"},
        {{"/truth/indptr", 1, 4},
         0,
         SONDE_E_INPUT,
         "row 0 has the entries 0 to 4 of 5"}, /* there are 3 latents */
        {{"/truth/indices", 0, 3}, 0, SONDE_E_INPUT, "/truth/indices[0] is 3, after -1 of 3"},
        {{"/truth/indices", 1, 0}, 0, SONDE_E_INPUT, "/truth/indices[1] is 0, after 0 of 3"},
        {{"/truth/indices", 4, -7}, 0, SONDE_E_INPUT, "/truth/indices[4] is -7"},
    };
    const float g[6] = {1, 0, 0, 1, 1, 1}, frequency[3] = {0.5f, 0.5f, 0.5f};
    int64_t indptr[4] = {0, 2, 2, 5};
    int32_t index[5] = {0, 2, 0, 1, 2};
    const struct rows r = {indptr, index, 3};
    for (size_t c = 0; c < sizeof bad / sizeof *bad; c++) {
        sonde_truth *t = NULL;
        sonde_err err = {0};
        write_truth(g, 3, 2, frequency, &r, &bad[c].bend);
        enum sonde_code code = sonde_truth_open(path, NULL, &t, &err);
        assert_int_equal(code, bad[c].open);
        if (!code) {
            sonde_match *m = match(t, g, 3, NULL);
            sonde_detector *d;
            must(sonde_detector_new(t, m, NULL, &d, &err), &err);
            uint64_t start[4] = {0};
            const sonde_sparse f = {.n_rows = 3, .start = start};
            code = sonde_detector_add(d, (const uint64_t[3]){0, 1, 2}, 3, &f, &err);
            assert_int_equal(code, bad[c].add);
            sonde_detector_free(d);
            sonde_match_free(m);
            sonde_truth_close(t);
        }
        if (!strstr(err.msg, bad[c].words))
            fail_msg("case %zu: '%s'", c, err.msg);
    }
}

static void rows_beyond_the_file_and_files_without_truth_are_refused(void **state)
{
    (void)state;
    const float g[6] = {1, 0, 0, 1, 1, 1}, frequency[3] = {0.5f, 0.5f, 0.5f};
    int64_t indptr[3] = {0, 1, 1};
    int32_t index[1] = {2};
    sonde_truth *t;
    sonde_detector *d;
    sonde_detection *s;
    sonde_err err;
    write_truth(g, 3, 2, frequency, &(struct rows){indptr, index, 2}, NULL);
    must(sonde_truth_open(path, NULL, &t, &err), &err);
    sonde_match *m = match(t, g, 3, NULL);
    must(sonde_detector_new(t, m, NULL, &d, &err), &err);
    const sonde_sparse f = {.n_rows = 1, .start = (uint64_t[2]){0, 0}};
    assert_int_equal(sonde_detector_end(d, NULL, &s, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_detector_add(d, &(const uint64_t){2}, 1, &f, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_detector_add(d, &(const uint64_t){UINT64_MAX}, 1, &f, &err), SONDE_E_USAGE);
    sonde_detector_free(d);
    sonde_match_free(m);
    sonde_truth_close(t);

    sonde_store_writer *w;
    const sonde_store_dataset one = {"/truth/direction", SONDE_F32, 2, {3, 2}},
                              wrong = {"/truth/directions", SONDE_F64, 2, {3, 2}};
    must(sonde_store_create(path, &(sonde_store_layout){&one, 1, NULL, 0}, true, &w, &err), &err);
    must(sonde_store_finish(w, NULL, 0, &err), &err);
    assert_int_equal(sonde_truth_open(path, NULL, &t, &err), SONDE_E_INPUT);
    assert_non_null(strstr(err.msg, "has no /truth/directions"));
    must(sonde_store_create(path, &(sonde_store_layout){&wrong, 1, NULL, 0}, true, &w, &err), &err);
    must(sonde_store_finish(w, NULL, 0, &err), &err);
    assert_int_equal(sonde_truth_open(path, NULL, &t, &err), SONDE_E_INPUT);
    assert_non_null(strstr(err.msg, "/truth/directions is float64 [3, 2], it should be float32 of rank 2"));
    assert_int_equal(sonde_truth_open("/nonexistent.h5", NULL, &t, &err), SONDE_E_IO);
}

static void directions_that_are_not_finite_are_named(void **state)
{
    (void)state;
    const float g[4] = {1, 0, 0, NAN}, frequency[2] = {1, 1};
    int64_t indptr[1] = {0};
    sonde_truth *t;
    sonde_err err;
    write_truth(g, 2, 2, frequency, &(struct rows){indptr, NULL, 0}, NULL);
    assert_int_equal(sonde_truth_open(path, NULL, &t, &err), SONDE_E_NUMERIC);
    assert_non_null(strstr(err.msg, "/truth/directions: row 1, column 1 is not finite"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_equal_saelens),
        cmocka_unit_test(the_truth_itself_scores_one),
        cmocka_unit_test(scores_of_a_plane_are_those_worked_out_by_hand),
        cmocka_unit_test(threads_change_no_bit_of_a_match),
        cmocka_unit_test(widths_that_differ_are_named),
        cmocka_unit_test(an_ideal_dictionary_detects_all_and_a_deaf_one_misses_what_it_must),
        cmocka_unit_test(damaged_truth_is_named),
        cmocka_unit_test(rows_beyond_the_file_and_files_without_truth_are_refused),
        cmocka_unit_test(directions_that_are_not_finite_are_named),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
