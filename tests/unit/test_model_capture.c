/* SPDX-License-Identifier: MIT
 * A captured file holds what a hook sees in a plain forward pass, in the order that it says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "capture_fixture.h"

/* ---- the tests --------------------------------------------------------------------------------- */

struct variant {
    const char *model;
    size_t context;
    bool concat;
    sonde_capture_options o;
};

static void check_variant(const struct variant *v, const char *const *spec)
{
    sonde_model *m = open_model(v->model, NULL);
    sonde_corpus *c = make_corpus(lengths, N_DOCS, v->context, v->concat, m->arch.n_vocab);
    sonde_hook_list hooks;
    hook_list(m, spec, &hooks);
    sonde_capture_options o = v->o;
    o.hooks = &hooks;
    o.overwrite = true;
    sonde_capture_result r = capture(m, c, NULL, &o, 2);
    sonde_store *s = open_store();
    uint64_t n_rows, n_squares = o.max_seqs < c->n_seqs ? o.max_seqs : c->n_seqs, longest = 0;
    for (uint64_t q = 0; q < n_squares; q++)
        if (c->seq_start[q + 1] - c->seq_start[q] > longest)
            longest = c->seq_start[q + 1] - c->seq_start[q];
    check_tokens(s, c);
    int64_t *token = check_rows(s, c, o.skip_first, o.shuffle, &n_rows);
    assert_int_equal(r.n_rows, n_rows);
    assert_true(sonde_store_find(s, "/vocab/bytes") == SIZE_MAX);
    for (size_t i = 0; i < hooks.n; i++) {
        struct truth *t = find_truth(m, c, &hooks.hook[i]);
        if (sonde_site_is_square(hooks.hook[i].site)) {
            check_square(s, m, hooks.hook[i], t, o.dtype, n_squares, longest);
        } else {
            check_acts(s, m, hooks.hook[i], t, o.dtype, token, n_rows);
            check_stats(s, hooks.hook[i], t, token, n_rows);
        }
        drop_truth(t);
    }
    if (o.loss || o.n_logits) {
        struct truth *t = find_truth(m, c, NULL);
        if (o.loss)
            check_loss(s, c, t, r.mean_loss);
        if (o.n_logits)
            check_logits(s, c, t, o.n_logits);
        drop_truth(t);
    }
    free(token);
    free(r.saturated);
    sonde_store_close(s);
    sonde_hooks_free(&hooks);
    drop_corpus(c);
    sonde_model_close(m);
}

static const char *const everything[] = {"*", NULL};

static void every_hook_of_every_token_is_stored_as_a_forward_pass_shows_it(void **state)
{
    (void)state;
    check_variant(&(struct variant){"llama", 16, false, {.max_seqs = 100, .loss = true, .n_logits = 5}},
                  everything);
    check_variant(&(struct variant){"gemma2", 12, false, {.max_seqs = 3, .loss = true}}, everything);
    check_variant(&(struct variant){"gpt2", 29, false, {.max_seqs = 1, .n_logits = 83}}, everything);
    check_variant(&(struct variant){"tl_bidirectional", 16, false, {.max_seqs = 2}}, everything);
}

static void shuffled_rows_are_the_same_rows_elsewhere(void **state)
{
    (void)state;
    check_variant(
        &(struct variant){"llama", 16, false, {.max_seqs = 4, .shuffle = true, .seed = 3, .loss = true}},
        everything);
    check_variant(
        &(struct variant){"gpt2", 10, true, {.max_seqs = 4, .shuffle = true, .seed = 4, .n_logits = 1}},
        everything);
}

static void packing_across_documents_and_skipped_positions_keep_every_row_right(void **state)
{
    (void)state;
    check_variant(&(struct variant){"llama", 10, true, {.max_seqs = 4, .loss = true}}, everything);
    check_variant(&(struct variant){"llama", 10, true, {.max_seqs = 4, .skip_first = 9}}, everything);
    check_variant(&(struct variant){"llama", 64, false, {.max_seqs = 4, .skip_first = 3, .shuffle = true}},
                  everything);
    check_variant(&(struct variant){"llama", 1, false, {.max_seqs = 9, .shuffle = true}}, everything);
}

static void half_types_are_the_rounded_float32(void **state)
{
    (void)state;
    check_variant(&(struct variant){"llama", 16, false, {.max_seqs = 4, .dtype = SONDE_F16, .shuffle = true}},
                  everything);
    check_variant(&(struct variant){"llama", 16, false, {.max_seqs = 4, .dtype = SONDE_BF16}}, everything);
}

static void losses_alone_need_no_hook(void **state)
{
    (void)state;
    check_variant(&(struct variant){"llama", 16, false, {.loss = true}}, (const char *const[]){NULL});
    check_variant(&(struct variant){"llama", 16, false, {.n_logits = 2, .shuffle = true}},
                  (const char *const[]){NULL});
}

/* More than one window of rows: SONDE_CAPTURE_WINDOW tokens and a rest. */
static void rows_stay_within_their_window(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama", NULL);
    size_t length[70];
    for (size_t d = 0; d < 70; d++)
        length[d] = 1000 + d;
    sonde_corpus *c = make_corpus(length, 70, 50, false, m->arch.n_vocab);
    sonde_hook_list hooks;
    hook_list(m, (const char *const[]){"hook_embed", NULL}, &hooks);
    sonde_capture_options o = {.hooks = &hooks, .shuffle = true, .seed = 1, .overwrite = true};
    sonde_capture_result r = capture(m, c, NULL, &o, 3);
    sonde_store *s = open_store();
    uint64_t n_rows;
    int64_t *token = check_rows(s, c, 0, true, &n_rows);
    assert_in_range(n_rows, SONDE_CAPTURE_WINDOW + 1, 2 * SONDE_CAPTURE_WINDOW);
    struct truth *t = find_truth(m, c, &hooks.hook[0]);
    check_acts(s, m, hooks.hook[0], t, SONDE_F32, token, n_rows);
    check_stats(s, hooks.hook[0], t, token, n_rows);
    uint64_t n_late = 0; /* contexts run in random order, so that both windows hold all of the text */
    for (uint64_t i = 0; i < SONDE_CAPTURE_WINDOW; i++)
        n_late += (uint64_t)token[i] >= SONDE_CAPTURE_WINDOW;
    assert_in_range(n_late, 1000, SONDE_CAPTURE_WINDOW);
    drop_truth(t);
    free(token);
    free(r.saturated);
    sonde_store_close(s);
    sonde_hooks_free(&hooks);
    drop_corpus(c);
    sonde_model_close(m);
}

static void rows_of_a_document_are_found(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama", NULL);
    sonde_corpus *c = make_corpus(lengths, N_DOCS, 10, true, m->arch.n_vocab);
    sonde_hook_list hooks;
    sonde_err err = {0};
    hook_list(m, (const char *const[]){"resid_post1", NULL}, &hooks);
    sonde_capture_options o = {.hooks = &hooks, .shuffle = true, .skip_first = 1, .overwrite = true};
    sonde_capture_result r = capture(m, c, NULL, &o, 1);
    sonde_store *s = open_store();
    uint64_t n_rows, n_all = 0;
    int64_t *token = check_rows(s, c, 1, true, &n_rows);
    for (int32_t d = 0; d < (int32_t)N_DOCS; d++) {
        uint64_t *row;
        size_t n;
        must(sonde_store_doc_rows(s, d, &row, &n, &err), &err);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(c->doc[token[row[i]]], d);
            assert_true(i == 0 || token[row[i]] > token[row[i - 1]]);
        }
        n_all += n;
        free(row);
    }
    assert_int_equal(n_all, n_rows);
    free(token);
    free(r.saturated);
    sonde_store_close(s);
    sonde_hooks_free(&hooks);
    drop_corpus(c);
    sonde_model_close(m);
}

/* ---- held-out documents ------------------------------------------------------------------------ */

static uint8_t *split_of(const sonde_model *m, const sonde_corpus *c, double holdout, uint64_t seed,
                         bool shuffle, uint64_t *n_held)
{
    sonde_hook_list hooks;
    hook_list(m, (const char *const[]){"hook_embed", NULL}, &hooks);
    sonde_capture_options o = {
        .hooks = &hooks, .holdout = holdout, .seed = seed, .shuffle = shuffle, .overwrite = true};
    sonde_capture_result r = capture(m, c, NULL, &o, 1);
    sonde_store *s = open_store();
    uint8_t *split = read_all(s, "/docs/split", SONDE_U8, 1, DIM(c->n_docs));
    *n_held = 0;
    for (uint64_t d = 0; d < c->n_docs; d++) {
        assert_in_range(split[d], 0, 1);
        *n_held += split[d];
    }
    free(r.saturated);
    sonde_store_close(s);
    sonde_hooks_free(&hooks);
    return split;
}

static void held_out_documents_depend_on_the_seed_and_nothing_else(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama", NULL);
    size_t length[1000];
    for (size_t d = 0; d < 1000; d++)
        length[d] = 1 + d % 7;
    sonde_corpus *c = make_corpus(length, 1000, 16, false, m->arch.n_vocab),
                 *joined = make_corpus(length, 1000, 16, true, m->arch.n_vocab);
    uint64_t n[6];
    uint8_t *a = split_of(m, c, 0.05, 1, false, &n[0]), *b = split_of(m, c, 0.05, 1, true, &n[1]);
    uint8_t *j = split_of(m, joined, 0.05, 1, false, &n[2]), *other = split_of(m, c, 0.05, 2, false, &n[3]);
    uint8_t *none = split_of(m, c, 0, 1, false, &n[4]), *more = split_of(m, c, 0.1, 1, false, &n[5]);
    assert_in_range(n[0], 26, 76); /* 50 +- 3.7 deviations */
    assert_in_range(n[5], 65, 135);
    assert_int_equal(n[4], 0);
    assert_memory_equal(a, b, 1000);
    assert_memory_equal(a, j, 1000);
    assert_memory_not_equal(a, other, 1000);
    for (int d = 0; d < 1000; d++)
        assert_true(more[d] >= a[d]); /* a larger share holds the smaller one */
    free(a), free(b), free(j), free(other), free(none), free(more);
    drop_corpus(c);
    drop_corpus(joined);
    sonde_model_close(m);
}

static void few_documents_have_both_parts_and_a_single_one_is_kept(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama", NULL);
    for (size_t n_docs = 1; n_docs < 4; n_docs++)
        for (uint64_t seed = 0; seed < 5; seed++) {
            uint64_t n;
            sonde_corpus *c = make_corpus((const size_t[]){5, 6, 7}, n_docs, 16, false, m->arch.n_vocab);
            free(split_of(m, c, seed % 2 ? 0.01 : 0.999, seed, false, &n));
            if (n_docs == 1)
                assert_int_equal(n, 0);
            else
                assert_in_range(n, 1, n_docs - 1);
            drop_corpus(c);
        }
    sonde_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_hook_of_every_token_is_stored_as_a_forward_pass_shows_it),
        cmocka_unit_test(shuffled_rows_are_the_same_rows_elsewhere),
        cmocka_unit_test(packing_across_documents_and_skipped_positions_keep_every_row_right),
        cmocka_unit_test(half_types_are_the_rounded_float32),
        cmocka_unit_test(losses_alone_need_no_hook),
        cmocka_unit_test(rows_stay_within_their_window),
        cmocka_unit_test(rows_of_a_document_are_found),
        cmocka_unit_test(held_out_documents_depend_on_the_seed_and_nothing_else),
        cmocka_unit_test(few_documents_have_both_parts_and_a_single_one_is_kept),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
