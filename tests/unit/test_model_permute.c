/* SPDX-License-Identifier: MIT
 * Permuted weights: every matrix keeps its entries and loses their places. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "model/permute.h"
#include "model_fixture.h"

/* Columns [n0, n0 + n) of a packed matrix as [n, k]. */
static float *columns_of(const sonde_packed *w, size_t n0, size_t n)
{
    float *x = malloc((n * w->k + 1) * sizeof *x);
    for (size_t j = 0; j < n; j++)
        sonde_unpack_column(w, n0 + j, x + j * w->k);
    return x;
}

static float *embedding_of(const sonde_model *m)
{
    float *x = malloc(m->arch.n_vocab * m->arch.d_model * sizeof *x);
    for (size_t i = 0; i < m->arch.n_vocab; i++)
        sonde_model_embed(m, (int32_t)i, x + i * m->arch.d_model);
    return x;
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

enum { SAME, SHUFFLED };

/* Takes both arrays. */
static void compare(const char *model, const char *what, float *a, float *b, size_t n, int relation)
{
    bool same = !memcmp(a, b, n * sizeof *a);
    if (same != (relation == SAME))
        fail_msg("%s: %s %s", model, what, same ? "was left alone" : "was changed");
    qsort(a, n, sizeof *a, by_value);
    qsort(b, n, sizeof *b, by_value);
    if (memcmp(a, b, n * sizeof *a))
        fail_msg("%s: %s has other entries", model, what);
    free(a);
    free(b);
}

static void compare_columns(const char *model, const char *what, const sonde_packed *a, const sonde_packed *b,
                            size_t n0, size_t n)
{
    if (n)
        compare(model, what, columns_of(a, n0, n), columns_of(b, n0, n), n * a->k, SHUFFLED);
}

static void every_matrix_keeps_its_entries_and_loses_their_places(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_GOLDEN; g++) {
        struct fixture f;
        sonde_err err = {0};
        fixture_load(&f, golden_models[g]);
        for (int embeddings = 0; embeddings < 2; embeddings++) {
            sonde_model *a = fixture_must_open(&f, 0), *b = fixture_must_open(&f, 0);
            const sonde_arch *h = &a->arch;
            const size_t q = h->n_heads * h->d_head, k = h->n_kv_heads * h->d_head;
            assert_int_equal(sonde_model_permute(b, 7, embeddings, &err), SONDE_OK);
            for (size_t l = 0; l < h->n_layers; l++) {
                const sonde_layer *x = &a->layer[l], *y = &b->layer[l];
                compare_columns(f.name, "W_Q", &x->qkv, &y->qkv, 0, q);
                compare_columns(f.name, "W_K", &x->qkv, &y->qkv, q, k);
                compare_columns(f.name, "W_V", &x->qkv, &y->qkv, q + k, k);
                compare_columns(f.name, "W_O", &x->o, &y->o, 0, h->d_model);
                compare_columns(f.name, "W_in", &x->in, &y->in, 0, h->d_mlp);
                compare_columns(f.name, "W_up", &x->in, &y->in, h->d_mlp, h->gated ? h->d_mlp : 0);
                compare_columns(f.name, "W_out", &x->out, &y->out, 0, h->d_mlp ? h->d_model : 0);
                if (x->ln1.gamma)
                    assert_memory_equal(x->ln1.gamma, y->ln1.gamma, h->d_model * sizeof(float));
                if (x->qkv_bias)
                    assert_memory_equal(x->qkv_bias, y->qkv_bias, sonde_arch_qkv(h) * sizeof(float));
            }
            compare(f.name, "W_E", embedding_of(a), embedding_of(b), h->n_vocab * h->d_model,
                    embeddings ? SHUFFLED : SAME);
            compare(f.name, "W_U", columns_of(&a->unembed, 0, h->n_vocab_out),
                    columns_of(&b->unembed, 0, h->n_vocab_out), h->n_vocab_out * h->d_model,
                    embeddings ? SHUFFLED : SAME);
            sonde_model_close(a);
            sonde_model_close(b);
        }
        fixture_free(&f);
    }
}

/* Plain: the same floats. With a centred unembedding: entries that lay in one place still do, so their
 * difference is one of the d column means. */
static void a_tied_embedding_stays_tied(void **state)
{
    static const unsigned processing[] = {0, SONDE_CENTER_UNEMBED};
    struct fixture f;
    sonde_err err = {0};
    (void)state;
    fixture_load(&f, "gpt2");
    for (int i = 0; i < 2; i++) {
        sonde_model *m = fixture_must_open(&f, processing[i]);
        const size_t v = m->arch.n_vocab, d = m->arch.d_model;
        float *e = embedding_of(m), *u = columns_of(&m->unembed, 0, v), *mean = malloc(d * sizeof *mean);
        assert_true(m->arch.tied);
        for (size_t j = 0; j < d; j++)
            mean[j] = e[j] - u[j];
        free(e), free(u);
        assert_int_equal(sonde_model_permute(m, 1, true, &err), SONDE_OK);
        e = embedding_of(m), u = columns_of(&m->unembed, 0, v);
        for (size_t t = 0; t < v * d; t++) {
            float least = INFINITY;
            for (size_t j = 0; j < d; j++)
                least = fminf(least, fabsf(e[t] - u[t] - mean[j]));
            assert_true(least <= 1e-6f);
        }
        free(e), free(u), free(mean);
        sonde_model_close(m);
    }
    fixture_free(&f);
}

static void seeds_differ_and_kernels_do_not(void **state)
{
    struct fixture f;
    sonde_err err = {0};
    float *first = NULL;
    (void)state;
    fixture_load(&f, "llama");
    for (const char *const *name = sonde_kernels_list(); *name; name++) {
        sonde_model_options o = {0};
        sonde_model *m;
        assert_int_equal(sonde_kernels_find(*name, &o.kernels, &err), SONDE_OK);
        assert_int_equal(fixture_open(&f, &o, NULL, &m, &err), SONDE_OK);
        assert_int_equal(sonde_model_permute(m, 5, true, &err), SONDE_OK);
        float *x = columns_of(&m->layer[1].in, 0, m->layer[1].in.n);
        if (first)
            assert_memory_equal(x, first, m->layer[1].in.n * m->layer[1].in.k * sizeof *x);
        else
            first = x;
        if (x != first)
            free(x);
        sonde_model_close(m);
    }
    sonde_model *m = fixture_must_open(&f, 0);
    assert_int_equal(sonde_model_permute(m, 6, true, &err), SONDE_OK);
    float *x = columns_of(&m->layer[1].in, 0, m->layer[1].in.n);
    assert_memory_not_equal(x, first, m->layer[1].in.n * m->layer[1].in.k * sizeof *x);
    free(x), free(first);
    sonde_model_close(m);
    fixture_free(&f);
}

static void a_deferred_unembedding_is_loaded_first(void **state)
{
    struct fixture f;
    sonde_err err = {0};
    sonde_model *m;
    (void)state;
    fixture_load(&f, "gpt2");
    assert_int_equal(fixture_open(&f, &(sonde_model_options){.defer_unembed = true}, NULL, &m, &err),
                     SONDE_OK);
    assert_int_equal(sonde_model_permute(m, 1, true, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_model_permute(m, 1, false, &err), SONDE_OK);
    sonde_model_close(m);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_matrix_keeps_its_entries_and_loses_their_places),
        cmocka_unit_test(a_tied_embedding_stays_tied),
        cmocka_unit_test(seeds_differ_and_kernels_do_not),
        cmocka_unit_test(a_deferred_unembedding_is_loaded_first),
    };
    return cmocka_run_group_tests_name("model_permute", tests, NULL, NULL);
}
