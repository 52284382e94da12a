/* SPDX-License-Identifier: MIT
 * PCA and the bigram table, against plain double arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sae/baseline.h"
#include "source_fixture.h"

/* ---- PCA ------------------------------------------------------------------------------------- */

/* Rows with a mean, a few strong directions and noise. */
static float *make_rows(size_t n, size_t d, uint64_t seed)
{
    float *x = malloc(n * d * sizeof *x);
    sonde_rng root = sonde_rng_seed(seed), r = sonde_rng_fork(&root, "rows", 0);
    for (size_t i = 0; i < n; i++) {
        double a = 5 * sonde_rng_normal(&r), b = 2 * sonde_rng_normal(&r);
        for (size_t j = 0; j < d; j++)
            x[i * d + j] = (float)(20 * (double)(j % 3) + a * sin((double)j) + b * cos(2.0 * (double)j) +
                                   0.3 * sonde_rng_normal(&r));
    }
    return x;
}

static sonde_pca *fit_pca(const float *x, size_t n, size_t d, size_t step, int threads)
{
    sonde_pca *p = NULL;
    sonde_pool *pool = NULL;
    sonde_err err = {0};
    source_must(sonde_pool_new(threads, &pool, &err), &err);
    source_must(sonde_pca_new(d, NULL, NULL, &p, &err), &err);
    for (size_t i = 0; i < n; i += step)
        sonde_pca_add(p, x + i * d, n - i < step ? n - i : step, pool);
    sonde_pool_free(pool);
    return p;
}

/* Mean squared error of the rows of x under the k components of p. */
static double pca_error(sonde_pca *p, size_t k, const float *x, size_t n, size_t d)
{
    sonde_err err = {0};
    float *y = malloc(n * d * sizeof *y);
    const sonde_rows rows = {.n = n, .x = x};
    double sum = 0;
    source_must(sonde_pca_solve(p, k, &err), &err);
    source_must(sonde_replace_by_pca(p, &rows, NULL, y, &err), &err);
    for (size_t i = 0; i < n * d; i++)
        sum += ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
    free(y);
    return sum / (double)n;
}

static double trace_of(const float *x, size_t n, size_t d)
{
    double sum = 0;
    for (size_t j = 0; j < d; j++) {
        double mean = 0;
        for (size_t i = 0; i < n; i++)
            mean += (double)x[i * d + j] / (double)n;
        for (size_t i = 0; i < n; i++)
            sum += ((double)x[i * d + j] - mean) * ((double)x[i * d + j] - mean) / (double)n;
    }
    return sum;
}

/* Eckart and Young: no other k directions leave less, and what is left is the other eigenvalues. Floats of
 * about 40 have errors of 2e-6, so a row of d of them has d 1e-11. */
static void pca_leaves_the_variance_of_the_other_components(void **state)
{
    static const size_t dims[] = {1, 3, 4, 7, 16, 33, 64};
    (void)state;
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        const size_t d = dims[i], n = 700;
        float *x = make_rows(n, d, d);
        sonde_pca *p = fit_pca(x, n, d, 101, 2);
        double trace = trace_of(x, n, d);
        for (size_t k = 1; k <= d; k = k < 3 ? k + 1 : 2 * k) {
            double left = trace, error = pca_error(p, k, x, n, d);
            const double *variance = sonde_pca_variance(p);
            assert_true(fabs(sonde_pca_trace(p) - trace) <= 1e-12 * trace * (double)n);
            for (size_t c = 0; c < k; c++) {
                assert_true(!c || variance[c] <= variance[c - 1]);
                left -= variance[c];
            }
            if (!(fabs(error - left) <= 1e-6 * trace))
                fail_msg("d %d, k %d: error %.9g, %.9g is left", (int)d, (int)k, error, left);
        }
        assert_true(pca_error(p, d, x, n, d) <= 1e-10 * (double)d * 40);
        sonde_pca_free(p);
        free(x);
    }
}

/* One direction of variance 9 among noise of variance 1e-4. */
static void the_first_component_is_the_direction_of_most_variance(void **state)
{
    enum { D = 12, N = 4000 };
    sonde_rng root = sonde_rng_seed(1);
    float *x = malloc(N * D * sizeof *x), y[D];
    sonde_err err = {0};
    (void)state;
    for (size_t i = 0; i < N; i++) {
        double a = 3 * sonde_rng_normal(&root) / sqrt(D);
        for (size_t j = 0; j < D; j++)
            x[i * D + j] = (float)((j % 2 ? a : -a) + 0.01 * sonde_rng_normal(&root) + (double)j);
    }
    sonde_pca *p = fit_pca(x, N, D, N, 1);
    source_must(sonde_pca_solve(p, 1, &err), &err);
    assert_true(fabs(sonde_pca_variance(p)[0] - 9) < 0.6);
    float probe[D];
    for (size_t j = 0; j < D; j++)
        probe[j] = (float)j + (j % 2 ? 1.0f : -1.0f) + (j == 4 ? 0.5f : 0.0f);
    source_must(sonde_replace_by_pca(p, &(sonde_rows){.n = 1, .x = probe}, NULL, y, &err), &err);
    for (size_t j = 0; j < D; j++) {
        double want = (double)j + (j % 2 ? 1 : -1) * (1 - 0.5 / D);
        assert_true(fabs((double)y[j] - want) < 0.02);
    }
    sonde_pca_free(p);
    free(x);
}

static void pca_depends_on_the_rows_and_not_on_how_they_come(void **state)
{
    enum { D = 37, N = 1500, K = 5 };
    float *x = make_rows(N, D, 4), *y[2] = {malloc(N * D * sizeof(float)), malloc(N * D * sizeof(float))};
    static const size_t step[] = {N, 1, 255, 257, 800};
    sonde_err err = {0};
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        sonde_pca *p = fit_pca(x, N, D, step[i], (int)i % 3 + 1);
        sonde_pool *pool = NULL;
        source_must(sonde_pool_new((int)i % 3 + 1, &pool, &err), &err);
        source_must(sonde_pca_solve(p, K, &err), &err);
        for (size_t from = 0; from < N; from += step[i]) {
            const sonde_rows rows = {.n = N - from < step[i] ? N - from : step[i], .x = x + from * D};
            source_must(sonde_replace_by_pca(p, &rows, pool, y[i > 0] + from * D, &err), &err);
        }
        assert_memory_equal(y[0], y[i > 0], N * D * sizeof(float));
        sonde_pool_free(pool);
        sonde_pca_free(p);
    }
    free(x), free(y[0]), free(y[1]);
}

static void pca_refuses_what_it_cannot_do(void **state)
{
    sonde_pca *p = NULL;
    sonde_err err = {0};
    float x[8] = {1, 2, 3, 4, 2, 3, 4, NAN}, y[4];
    (void)state;
    source_must(sonde_pca_new(4, NULL, NULL, &p, &err), &err);
    assert_int_equal(sonde_pca_solve(p, 2, &err), SONDE_E_USAGE);
    sonde_pca_add(p, x, 1, NULL);
    assert_int_equal(sonde_pca_solve(p, 5, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_pca_solve(p, 0, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_replace_by_pca(p, &(sonde_rows){.n = 1, .x = x}, NULL, y, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_pca_solve(p, 2, &err), SONDE_OK); /* one row: no variance at all */
    assert_int_equal(sonde_replace_by_pca(p, &(sonde_rows){.n = 1, .x = x}, NULL, y, &err), SONDE_OK);
    assert_memory_equal(x, y, sizeof y);
    sonde_pca_add(p, x + 4, 1, NULL);
    assert_int_equal(sonde_pca_solve(p, 2, &err), SONDE_E_NUMERIC);
    sonde_pca_free(p);
}

/* ---- bigram means ---------------------------------------------------------------------------- */

#define BIGRAM_D 5

struct text {
    size_t n;
    int32_t *id, *previous;
    float *y;
};

static struct text make_text(size_t n, int32_t n_vocab, uint64_t seed)
{
    struct text t = {n, malloc(n * sizeof(int32_t)), malloc(n * sizeof(int32_t)),
                     malloc(n * BIGRAM_D * sizeof(float))};
    sonde_rng r = sonde_rng_seed(seed);
    for (size_t i = 0; i < n; i++) {
        t.id[i] = (int32_t)sonde_rng_below(&r, (uint64_t)n_vocab);
        t.previous[i] = i % 50 ? t.id[i - 1] : -1;
        for (size_t j = 0; j < BIGRAM_D; j++)
            t.y[i * BIGRAM_D + j] = (float)(sonde_rng_normal(&r) + t.id[i] + 0.1 * t.previous[i]);
    }
    return t;
}

static void drop_text(struct text *t)
{
    free(t->id), free(t->previous), free(t->y);
}

static sonde_rows rows_of(const struct text *t)
{
    return (sonde_rows){.n = t->n, .id = t->id, .previous = t->previous};
}

/* The mean over the rows of t with this pair; then this token; then all. */
static double mean_by_hand(const struct text *t, int32_t previous, int32_t id, size_t j)
{
    for (int level = 0; level < 3; level++) {
        double sum = 0, n = 0;
        for (size_t i = 0; i < t->n; i++)
            if (level == 2 || (t->id[i] == id && (level == 1 || t->previous[i] == previous))) {
                sum += (double)t->y[i * BIGRAM_D + j];
                n++;
            }
        if (n > 0)
            return sum / n;
    }
    return NAN;
}

static void a_pair_gives_its_mean_then_its_token_s_then_that_of_all(void **state)
{
    struct text t = make_text(3000, 40, 1);
    sonde_bigram *b = NULL;
    sonde_err err = {0};
    int32_t id[] = {7, 7, 7, 39, 40, -1, 12, 2000000000},
            previous[] = {3, -1, 1000, 39, 3, 3, 12, 2000000000};
    float y[8 * BIGRAM_D];
    (void)state;
    const sonde_rows rows = rows_of(&t), asked = {.n = 8, .id = id, .previous = previous};
    source_must(sonde_bigram_new(BIGRAM_D, 0, NULL, &b, &err), &err);
    assert_int_equal(sonde_replace_by_bigram(b, &asked, NULL, y, &err), SONDE_E_USAGE);
    source_must(sonde_bigram_add(b, &rows, t.y, &err), &err);
    source_must(sonde_replace_by_bigram(b, &asked, NULL, y, &err), &err);
    for (size_t i = 0; i < 8; i++)
        for (size_t j = 0; j < BIGRAM_D; j++) {
            double want = mean_by_hand(&t, previous[i], id[i], j);
            if (!(fabs((double)y[i * BIGRAM_D + j] - want) <= 1e-6 * fabs(want)))
                fail_msg("(%d, %d): %g, should be %g", previous[i], id[i], (double)y[i * BIGRAM_D + j], want);
        }
    sonde_bigram_size size = sonde_bigram_about(b);
    assert_true(size.n_rows == 3000 && size.n_tokens == 40 && size.n_refused == 0);
    assert_in_range(size.n_pairs, 1000, 1640);
    sonde_bigram_free(b);
    drop_text(&t);
}

static void a_full_table_keeps_what_came_first(void **state)
{
    struct text t = make_text(20000, 400, 2);
    sonde_bigram *small = NULL, *large = NULL;
    sonde_budget budget = {.limit = 1 << 20};
    sonde_err err = {0};
    float *y = malloc(t.n * BIGRAM_D * sizeof *y), *z = malloc(t.n * BIGRAM_D * sizeof *z);
    (void)state;
    const sonde_rows rows = rows_of(&t);
    source_must(sonde_bigram_new(BIGRAM_D, 100000, &budget, &small, &err), &err);
    source_must(sonde_bigram_new(BIGRAM_D, 0, NULL, &large, &err), &err);
    source_must(sonde_bigram_add(small, &rows, t.y, &err), &err);
    source_must(sonde_bigram_add(large, &rows, t.y, &err), &err);
    sonde_bigram_size size = sonde_bigram_about(small);
    assert_true(size.n_tokens == 400 && size.n_refused > 10000 && size.n_pairs < 1400);
    source_must(sonde_replace_by_bigram(small, &rows, NULL, y, &err), &err);
    source_must(sonde_replace_by_bigram(large, &rows, NULL, z, &err), &err);
    for (size_t i = 0; i < 500; i++) /* these pairs were there before it was full */
        assert_memory_equal(y + i * BIGRAM_D, z + i * BIGRAM_D, BIGRAM_D * sizeof *y);
    assert_memory_not_equal(y, z, t.n * BIGRAM_D * sizeof *y);
    sonde_bigram_free(small);
    sonde_bigram_free(large);
    assert_int_equal(budget.taken, 0);
    free(y), free(z);
    drop_text(&t);
}

/* ---- from a store ---------------------------------------------------------------------------- */

/* Tokens that a row's own token follows in its context, as make_store lays them out. */
static int32_t id_before(uint64_t token)
{
    return token % CONTEXT ? id_at(token - 1) : -1;
}

static void a_store_s_pairs_are_those_of_its_contexts(void **state)
{
    static const uint64_t stride[] = {1, 7, 1237};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct shape h = plain;
        h.n_docs = 600; /* more than one block of tokens */
        h.stride = stride[i];
        make_store(&h);
        sonde_source *s = open_source(acts, &(sonde_source_options){.hook = "blocks.0.hook_resid_post"});
        sonde_baselines b;
        sonde_err err = {0};
        source_must(
            sonde_baselines_fit(s, &(sonde_baseline_options){.bigram = true, .pca = true}, NULL, &b, &err),
            &err);
        assert_true(b.of_train && b.pca && b.bigram && b.n_rows == sonde_source_about(s)->n_train);
        for (uint64_t token = 3; token < 60; token += 4) {
            const int32_t id = id_at(token), previous = id_before(token);
            double sum = 0, all = 0, n = 0;
            float y[WIDTH_IN];
            for (uint64_t t = 0; t < h.n_docs * CONTEXT; t++) {
                if (is_heldout(t / CONTEXT))
                    continue;
                all += (double)value_in(t, 2);
                if (id_at(t) == id && id_before(t) == previous) {
                    sum += (double)value_in(t, 2);
                    n++;
                }
            }
            source_must(sonde_replace_by_bigram(
                            b.bigram, &(sonde_rows){.n = 1, .id = &id, .previous = &previous}, NULL, y, &err),
                        &err);
            if (!(fabs((double)y[2] - sum / n) <= 1e-6 * fabs(sum / n)))
                fail_msg("stride %d, token %d: %g, should be %g", (int)stride[i], (int)token, (double)y[2],
                         sum / n);
            assert_true(fabs(b.mean[2] - all / (double)b.n_rows) <= 1e-9 * b.mean[2]);
        }
        sonde_baselines_free(&b);
        sonde_source_close(s);
    }
}

static void what_a_source_does_not_know_is_left_out(void **state)
{
    const sonde_baseline_options both = {.bigram = true, .pca = true};
    sonde_baselines b;
    sonde_err err = {0};
    (void)state;
    struct shape h = plain;
    h.no_tokens = true;
    make_store(&h);
    sonde_source *s = open_source(acts, &(sonde_source_options){.hook = "blocks.0.hook_resid_post"});
    source_must(sonde_baselines_fit(s, &both, NULL, &b, &err), &err);
    assert_true(b.pca && !b.bigram);
    sonde_baselines_free(&b);
    sonde_source_close(s);
    make_store(&plain);
    s = open_source(acts, &(sonde_source_options){.hook = "blocks.0.hook_resid_post",
                                                  .hook_out = "blocks.0.attn.hook_z"});
    source_must(sonde_baselines_fit(s, &both, NULL, &b, &err), &err);
    assert_true(!b.pca && b.bigram); /* a projection of the target is no prediction of it */
    sonde_baselines_free(&b);
    sonde_source_close(s);
}

/* The held-out rows, by hand: explained variance (B) of the table and of PCA-2. */
static void reconstruction_is_scored_on_the_split_asked_for(void **state)
{
    sonde_baselines b;
    sonde_err err = {0};
    sonde_metrics *m[2], *again[2];
    double mean[WIDTH_IN] = {0}, total = 0, error[2] = {0};
    const uint64_t n = plain.n_docs * CONTEXT;
    size_t n_rows = 0;
    (void)state;
    make_store(&plain);
    sonde_source *s = open_source(acts, &(sonde_source_options){.hook = "blocks.0.hook_resid_post"});
    source_must(
        sonde_baselines_fit(s, &(sonde_baseline_options){.bigram = true, .pca = true}, NULL, &b, &err), &err);
    source_must(sonde_pca_solve(b.pca, 2, &err), &err);
    const sonde_replacement r[2] = {{"bigram", sonde_replace_by_bigram, b.bigram},
                                    {"pca", sonde_replace_by_pca, b.pca}};
    source_must(sonde_reconstruct(s, SONDE_SPLIT_HELDOUT, 0, NULL, r, 2, NULL, m, &err), &err);
    for (uint64_t t = 0; t < n; t++)
        if (is_heldout(t / CONTEXT))
            for (size_t j = 0; j < WIDTH_IN; j++) {
                mean[j] += (double)value_in(t, j);
                n_rows += j == 0;
            }
    for (uint64_t t = 0; t < n; t++) {
        if (!is_heldout(t / CONTEXT))
            continue;
        float x[WIDTH_IN], y[WIDTH_IN];
        const int32_t id = id_at(t), previous = id_before(t);
        for (size_t j = 0; j < WIDTH_IN; j++)
            x[j] = value_in(t, j);
        for (int k = 0; k < 2; k++) {
            source_must(r[k].fn(r[k].arg, &(sonde_rows){1, x, &id, &previous}, NULL, y, &err), &err);
            for (size_t j = 0; j < WIDTH_IN; j++)
                error[k] += pow((double)x[j] - (double)y[j], 2);
        }
        for (size_t j = 0; j < WIDTH_IN; j++)
            total += pow((double)x[j] - mean[j] / (double)n_rows, 2);
    }
    source_must(sonde_reconstruct(s, SONDE_SPLIT_HELDOUT, 0, m[0]->mean_y, r, 2, NULL, again, &err), &err);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(m[k]->n_rows, n_rows);
        assert_true(fabs(m[k]->explained_variance - (1 - error[k] / total)) <= 1e-9);
        assert_true(fabs(m[k]->mse - error[k] / (double)n_rows) <= 1e-9 * m[k]->mse);
        assert_true(again[k]->explained_variance == m[k]->explained_variance);
        sonde_metrics_free(m[k]);
        sonde_metrics_free(again[k]);
    }
    source_must(sonde_reconstruct(s, SONDE_SPLIT_HELDOUT, 17, NULL, r, 1, NULL, m, &err), &err);
    assert_int_equal(m[0]->n_rows, 17);
    sonde_metrics_free(m[0]);
    sonde_baselines_free(&b);
    sonde_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pca_leaves_the_variance_of_the_other_components),
        cmocka_unit_test(the_first_component_is_the_direction_of_most_variance),
        cmocka_unit_test(pca_depends_on_the_rows_and_not_on_how_they_come),
        cmocka_unit_test(pca_refuses_what_it_cannot_do),
        cmocka_unit_test(a_pair_gives_its_mean_then_its_token_s_then_that_of_all),
        cmocka_unit_test(a_full_table_keeps_what_came_first),
        cmocka_unit_test(a_store_s_pairs_are_those_of_its_contexts),
        cmocka_unit_test(what_a_source_does_not_know_is_left_out),
        cmocka_unit_test(reconstruction_is_scored_on_the_split_asked_for),
    };
    return cmocka_run_group_tests_name("sae_baseline", tests, make_source_dir, remove_source_dir);
}
