/* SPDX-License-Identifier: MIT
 * A model as a source gives the rows that a capture of it stores, bit for bit, whatever the threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "capture_fixture.h"
#include "source_fixture.h"

#define N_CONTEXT 16

/* A model, its text and a tokenizer that says which ids are BOS (1) and special (0, 1, 2). */
struct scene {
    sonde_model *m;
    sonde_corpus *c;
    struct fixture *x;
};

static struct scene open_scene(const char *model, bool concat)
{
    struct scene e = {open_model(model, NULL), NULL, fixture_new()};
    e.c = make_corpus(lengths, N_DOCS, N_CONTEXT, concat, e.m->arch.n_vocab);
    for (uint64_t q = 0; q < e.c->n_seqs; q += 1 + q % 3)
        e.c->id[e.c->seq_start[q]] = BOS;
    return e;
}

static void close_scene(struct scene *e)
{
    fixture_free(e->x);
    drop_corpus(e->c);
    sonde_model_close(e->m);
}

static sonde_source *open_on(const struct scene *e, const sonde_source_options *o)
{
    sonde_err err = {0};
    sonde_source *s = NULL;
    source_must(sonde_source_model(e->m, e->c, e->x->tokenizer, o, NULL, &s, &err), &err);
    return s;
}

/* Does a pass over both give the same? */
static void is_same_pass(sonde_source *a, sonde_source *b, enum sonde_split split, const sonde_work *work)
{
    sonde_err err = {0};
    sonde_pass_rows r, q;
    size_t d_in = sonde_source_about(a)->d_in, d_out = sonde_source_about(a)->d_out;
    source_must(sonde_source_pass_begin(a, split, &err), &err);
    source_must(sonde_source_pass_begin(b, split, &err), &err);
    do {
        source_must(sonde_source_pass_next(a, 7, &r, work, &err), &err);
        source_must(sonde_source_pass_next(b, 7, &q, NULL, &err), &err);
        assert_int_equal(r.n, q.n);
        assert_memory_equal(r.token, q.token, r.n * sizeof *r.token);
        assert_memory_equal(r.id, q.id, r.n * sizeof *r.id);
        assert_memory_equal(r.x, q.x, r.n * d_in * sizeof *r.x);
        assert_memory_equal(r.y, q.y, r.n * d_out * sizeof *r.y);
    } while (r.n);
}

static void a_pass_equals_a_capture_bit_for_bit(void **state)
{
    (void)state;
    static const struct {
        const char *model, *in, *out;
    } cases[] = {
        {"gpt2", "blocks.1.hook_resid_post", NULL},
        {"gpt2", "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"},
        {"llama", "blocks.1.attn.hook_z", "blocks.0.attn.hook_q"},
        {"tl_bidirectional", "blocks.0.hook_mlp_out", "hook_embed"},
        {"gemma2", "ln_final.hook_normalized", "blocks.0.attn.hook_k"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct scene e = open_scene(cases[k].model, k & 1);
        sonde_hook_list hooks;
        hook_list(e.m, (const char *const[]){cases[k].in, cases[k].out, NULL}, &hooks);
        sonde_capture_options c = {.hooks = &hooks, .holdout = 0.3, .seed = k, .overwrite = true};
        sonde_source_options o = {
            .hook = cases[k].in,
            .hook_out = cases[k].out,
            .holdout = 0.3,
            .seed = k,
            .filter = {.bos = k & 1, .special = k & 2, .first = k / 3, .max_norm = k == 4 ? 1.5 : 0}};
        sonde_capture_result r = capture(e.m, e.c, e.x->tokenizer, &c, 2);
        sonde_source *a = open_on(&e, &o), *b = open_source(file, &o);
        const sonde_source_info *i = sonde_source_about(a), *j = sonde_source_about(b);
        assert_string_equal(i->hook, j->hook);
        assert_int_equal(i->n_train, j->n_train);
        assert_int_equal(i->n_heldout, j->n_heldout);
        assert_true(i->n_heldout > 0 && i->n_train > 0);
        assert_int_equal(i->bos_id, j->bos_id);
        assert_int_equal(i->prepend_bos, j->prepend_bos);
        assert_true(i->knows_special && j->knows_special);
        for (int split = 0; split < 3; split++)
            is_same_pass(a, b, (enum sonde_split)split, NULL);
        free(r.saturated);
        sonde_source_close(a);
        sonde_source_close(b);
        sonde_hooks_free(&hooks);
        close_scene(&e);
    }
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    struct scene e = open_scene("llama", false);
    sonde_source_options o = {.hook = "resid_post1",
                              .hook_out = "mlp_out0",
                              .holdout = 0.2,
                              .seed = 4,
                              .window_rows = 40,
                              .filter.max_norm = 3};
    sonde_source *one = open_on(&e, &o);
    for (int threads = 2; threads < 5; threads++) {
        sonde_err err = {0};
        sonde_work work = {0};
        sonde_source *many = open_on(&e, &o);
        source_must(sonde_pool_new(threads, &work.pool, &err), &err);
        source_must(sonde_source_seek(one, (sonde_source_position){0}, &err), &err);
        for (int i = 0; i < 6; i++) {
            struct piece a = take(one, 61), b = take_with(many, 61, &work);
            is_same_piece(&a, &b);
            drop_piece(&a);
            drop_piece(&b);
        }
        is_same_pass(many, one, SONDE_SPLIT_ALL, &work);
        sonde_source_close(many);
        sonde_pool_free(work.pool);
    }
    sonde_source_close(one);
    close_scene(&e);
}

static void an_epoch_has_every_training_token_once(void **state)
{
    (void)state;
    struct scene e = open_scene("gpt2", false);
    for (size_t window = 0; window < 100; window += 33) {
        sonde_source *s = open_on(&e, &(sonde_source_options){.hook = "blocks.0.hook_resid_post",
                                                              .holdout = 0.3,
                                                              .filter.bos = true,
                                                              .window_rows = window});
        size_t n = (size_t)sonde_source_about(s)->n_train, taken = 0;
        for (uint64_t t = 0; t < e.c->n_tokens; t++)
            taken += sonde_source_takes(s, t, SONDE_SPLIT_TRAIN);
        assert_int_equal(taken, n);
        assert_false(sonde_source_takes(s, e.c->n_tokens, SONDE_SPLIT_ALL));
        for (int epoch = 0; epoch < 2; epoch++) {
            struct piece p = take(s, n);
            unsigned char *seen = calloc(e.c->n_tokens, 1);
            for (size_t i = 0; i < n; i++) {
                assert_true(sonde_source_takes(s, p.token[i], SONDE_SPLIT_TRAIN));
                assert_false(seen[p.token[i]]++);
                assert_int_not_equal(e.c->id[p.token[i]], BOS);
            }
            free(seen);
            drop_piece(&p);
        }
        sonde_source_close(s);
    }
    close_scene(&e);
}

static void a_position_goes_on_and_a_pass_between_does_not_matter(void **state)
{
    (void)state;
    struct scene e = open_scene("gpt2", true);
    sonde_source_options o = {
        .hook = "blocks.1.hook_resid_pre", .holdout = 0.2, .seed = 8, .window_rows = 50};
    sonde_source *s = open_on(&e, &o), *again = open_on(&e, &o), *between = open_on(&e, &o);
    sonde_err err = {0};
    sonde_pass_rows r = {0};
    for (size_t i = 0; i < 20; i++) {
        sonde_source_position at = sonde_source_tell(s);
        struct piece a = take(s, 1 + i * 11 % 67), b, c;
        source_must(sonde_source_seek(again, at, &err), &err);
        b = take(again, a.n);
        is_same_piece(&a, &b);
        if (!r.n)
            source_must(sonde_source_pass_begin(between, (enum sonde_split)(i % 3), &err), &err);
        source_must(sonde_source_pass_next(between, 9, &r, NULL, &err), &err);
        c = take(between, a.n);
        is_same_piece(&a, &c);
        drop_piece(&a);
        drop_piece(&b);
        drop_piece(&c);
    }
    sonde_source_close(s);
    sonde_source_close(again);
    sonde_source_close(between);
    close_scene(&e);
}

static void stopping_loses_no_row(void **state)
{
    (void)state;
    struct scene e = open_scene("gpt2", false);
    sonde_source_options o = {.hook = "blocks.0.hook_mlp_out", .seed = 1, .window_rows = 30};
    sonde_source *s = open_on(&e, &o), *t = open_on(&e, &o);
    volatile sig_atomic_t stop = 0;
    const sonde_work work = {.stop = &stop};
    sonde_err err = {0};
    float *x = malloc(100 * sonde_source_about(s)->d_in * sizeof *x);
    for (int i = 0; i < 5; i++) {
        struct piece a, b;
        stop = 1;
        assert_int_equal(sonde_source_next(s, 100, x, NULL, NULL, &work, &err), SONDE_E_STOPPED);
        stop = 0;
        a = take_with(s, 35, &work);
        b = take(t, 35);
        is_same_piece(&a, &b);
        drop_piece(&a);
        drop_piece(&b);
    }
    free(x);
    sonde_source_close(s);
    sonde_source_close(t);
    close_scene(&e);
}

static void what_a_model_cannot_give_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *hook, *words;
    } cases[] = {
        {NULL, "--hook"},
        {"blocks.9.hook_resid_post", "blocks.9"},
        {"hook_resid_psot1", "resid"},
        {"blocks.*.hook_resid_post", "means 3 hooks"},
        {"blocks.0.attn.hook_pattern", "no row for each token"},
    };
    struct scene e = open_scene("gpt2", false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sonde_err err = {0};
        sonde_source *s = NULL;
        sonde_source_options o = {.hook = cases[i].hook};
        enum sonde_code code = sonde_source_model(e.m, e.c, NULL, &o, NULL, &s, &err);
        if (code != SONDE_E_USAGE || !strstr(err.msg, cases[i].words))
            fail_msg("code %d: %s", code, err.msg);
    }
    e.c->id[5] = 100000;
    sonde_source *s = NULL;
    sonde_err err = {0};
    assert_int_equal(
        sonde_source_model(e.m, e.c, NULL, &(sonde_source_options){.hook = "embed"}, NULL, &s, &err),
        SONDE_E_INPUT);
    close_scene(&e);
}

static void the_identity_knows_weights_text_and_split(void **state)
{
    (void)state;
    struct scene e = open_scene("gpt2", false), other = open_scene("gpt2_untied", false);
    sonde_source_options o = {.hook = "blocks.0.hook_resid_post", .holdout = 0.1};
    char *text[4];
    for (int i = 0; i < 4; i++) {
        if (i == 1)
            o.holdout = 0.2;
        if (i == 2)
            e.c->id[3] ^= 1;
        sonde_source *s = open_on(i == 3 ? &other : &e, &o);
        text[i] = strdup(sonde_source_about(s)->identity);
        sonde_source_close(s);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(text[i], text[j]);
    }
    for (int i = 0; i < 4; i++)
        free(text[i]);
    close_scene(&e);
    close_scene(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pass_equals_a_capture_bit_for_bit),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(an_epoch_has_every_training_token_once),
        cmocka_unit_test(a_position_goes_on_and_a_pass_between_does_not_matter),
        cmocka_unit_test(stopping_loses_no_row),
        cmocka_unit_test(what_a_model_cannot_give_is_refused),
        cmocka_unit_test(the_identity_knows_weights_text_and_split),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
