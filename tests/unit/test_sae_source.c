/* SPDX-License-Identifier: MIT
 * The stream and the pass over stores: every row once, in an order that the seed decides, from any place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "source_fixture.h"

#define RESID "blocks.0.hook_resid_post"

/* ---- the stream -------------------------------------------------------------------------------- */

static void check_values(const struct piece *p, enum sonde_dtype t)
{
    for (size_t i = 0; i < p->n; i++) {
        for (size_t j = 0; j < p->d_in; j++)
            assert_true(p->x[i * p->d_in + j] == stored(t, value_in(p->token[i], j)));
        for (size_t j = 0; p->y && j < p->d_out; j++)
            assert_true(p->y[i * p->d_out + j] == stored(t, value_out(p->token[i], j)));
    }
}

/* Every token that `wanted` names once in n rows. */
static void check_once(const struct piece *p, uint64_t n_tokens, bool (*wanted)(uint64_t token))
{
    unsigned char *seen = calloc(n_tokens, 1);
    for (size_t i = 0; i < p->n; i++) {
        assert_true(p->token[i] < n_tokens);
        assert_true(wanted(p->token[i]) && !seen[p->token[i]]);
        seen[p->token[i]] = 1;
    }
    for (uint64_t t = 0; t < n_tokens; t++)
        assert_int_equal(seen[t], wanted(t));
    free(seen);
}

static bool in_train(uint64_t token)
{
    return !is_heldout(token / CONTEXT);
}

static void every_training_row_comes_once_per_epoch_of_every_type(void **state)
{
    (void)state;
    static const enum sonde_dtype types[] = {SONDE_F32, SONDE_F16, SONDE_BF16, SONDE_F64};
    static const size_t windows[] = {0, 300, 64, 1};
    for (size_t k = 0; k < 4; k++) {
        struct shape h = plain;
        h.dtype = types[k];
        make_store(&h);
        sonde_source *s = open_source(
            acts,
            &(sonde_source_options){
                .hook = RESID, .hook_out = "hook_z", .seed = k, .window_rows = windows[k], .verify = k & 1});
        assert_int_equal(sonde_source_about(s)->n_train, 1600);
        assert_int_equal(sonde_source_about(s)->n_heldout, 400);
        for (int epoch = 0; epoch < 3; epoch++) {
            struct piece p = take(s, 1600);
            check_once(&p, 2000, in_train);
            check_values(&p, types[k]);
            sonde_source_position at = sonde_source_tell(s);
            assert_int_equal(at.epoch, epoch);
            drop_piece(&p);
        }
        sonde_source_close(s);
    }
}

static void the_order_is_another_in_every_epoch_and_of_every_seed(void **state)
{
    (void)state;
    make_store(&plain);
    for (size_t window = 0; window <= 300; window += 300) {
        struct piece p[3];
        for (uint64_t k = 0; k < 2; k++) {
            sonde_source *s =
                open_source(acts, &(sonde_source_options){.hook = RESID, .seed = k, .window_rows = window});
            p[k] = take(s, 1600);
            if (k)
                p[2] = take(s, 1600);
            sonde_source_close(s);
        }
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < a; b++) {
                size_t same = 0;
                for (size_t i = 0; i < 1600; i++)
                    same += p[a].token[i] == p[b].token[i];
                assert_true(same < 16); /* 1 is expected */
            }
        for (int a = 0; a < 3; a++)
            drop_piece(&p[a]);
    }
}

static void a_position_goes_on_as_the_uninterrupted_stream_does(void **state)
{
    (void)state;
    static const size_t windows[] = {0, 300, 64};
    make_store(&plain);
    for (size_t k = 0; k < 3; k++) {
        sonde_source_options o = {.hook = RESID, .seed = 9, .window_rows = windows[k], .filter.max_norm = 20};
        sonde_source *s = open_source(acts, &o), *again = open_source(acts, &o);
        for (size_t i = 0; i < 40; i++) {
            sonde_err err = {0};
            sonde_source_position at = sonde_source_tell(s);
            struct piece a = take(s, 1 + i * 37 % 211);
            source_must(sonde_source_seek(again, at, &err), &err);
            struct piece b = take(again, a.n);
            is_same_piece(&a, &b);
            drop_piece(&a);
            drop_piece(&b);
        }
        sonde_source_close(s);
        sonde_source_close(again);
    }
}

static void every_place_can_be_gone_back_to(void **state)
{
    (void)state;
    enum { N = 60 };
    make_store(&plain);
    for (size_t window = 50; window < 2000; window *= 3) {
        sonde_source *s =
            open_source(acts, &(sonde_source_options){.hook = RESID, .seed = 5, .window_rows = window});
        sonde_source_position at[N];
        struct piece first[N];
        for (size_t i = 0; i < N; i++) {
            at[i] = sonde_source_tell(s);
            first[i] = take(s, 83);
        }
        for (size_t i = 0; i < N; i++) {
            sonde_err err = {0};
            size_t k = (i * 53 + 11) % N; /* forward and back, within epochs and between */
            source_must(sonde_source_seek(s, at[k], &err), &err);
            struct piece again = take(s, 83);
            is_same_piece(&first[k], &again);
            drop_piece(&again);
        }
        for (size_t i = 0; i < N; i++)
            drop_piece(&first[i]);
        sonde_source_close(s);
    }
}

static void the_stream_does_not_depend_on_how_much_is_taken_at_once(void **state)
{
    (void)state;
    make_store(&plain);
    sonde_source_options o = {.hook = RESID, .seed = 2, .window_rows = 256};
    sonde_source *s = open_source(acts, &o), *t = open_source(acts, &o);
    struct piece whole = take(s, 4000);
    for (size_t at = 0; at < 4000; at += 125) {
        struct piece p = take(t, 125);
        assert_memory_equal(p.token, whole.token + at, 125 * sizeof *p.token);
        assert_memory_equal(p.x, whole.x + at * WIDTH_IN, 125 * WIDTH_IN * sizeof *p.x);
        drop_piece(&p);
    }
    drop_piece(&whole);
    sonde_source_close(s);
    sonde_source_close(t);
}

static void a_position_that_is_not_there_is_refused(void **state)
{
    (void)state;
    sonde_err err = {0};
    float x[WIDTH_IN];
    make_store(&plain);
    sonde_source *s = open_source(acts, &(sonde_source_options){.hook = RESID, .window_rows = 256});
    assert_int_equal(sonde_source_seek(s, (sonde_source_position){0, 70, 0}, &err), SONDE_E_USAGE);
    source_must(sonde_source_seek(s, (sonde_source_position){3, 2, 1000}, &err), &err);
    assert_int_equal(sonde_source_next(s, 1, x, NULL, NULL, NULL, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "1000"));
    sonde_source_close(s);
}

/* ---- filters ----------------------------------------------------------------------------------- */

static bool no_bos(uint64_t t)
{
    return in_train(t) && id_at(t) != BOS_ID;
}
static bool no_special(uint64_t t)
{
    return in_train(t) && id_at(t) > 2;
}
static bool not_first(uint64_t t)
{
    return in_train(t) && t % CONTEXT >= 3;
}
static bool not_these(uint64_t t)
{
    return in_train(t) && id_at(t) != 5 && id_at(t) != 9;
}
static bool no_outlier(uint64_t t)
{
    return in_train(t) && t % 31 != 7;
}

static void each_filter_leaves_out_its_rows_and_no_other(void **state)
{
    (void)state;
    static const int32_t ids[] = {9, 5, 9};
    static const struct {
        sonde_row_filter f;
        bool (*wanted)(uint64_t);
    } filters[] = {
        {{.bos = true}, no_bos},        {{.special = true}, no_special},
        {{.first = 3}, not_first},      {{.ids = ids, .n_ids = 3}, not_these},
        {{.max_norm = 10}, no_outlier},
    };
    make_store(&plain);
    for (size_t k = 0; k < 5; k++)
        for (size_t window = 0; window <= 100; window += 100) {
            uint64_t n = 0, seen = 0;
            sonde_err err = {0};
            sonde_source *s = open_source(
                acts, &(sonde_source_options){.hook = RESID, .filter = filters[k].f, .window_rows = window});
            for (uint64_t t = 0; t < 2000; t++)
                n += filters[k].wanted(t);
            assert_int_equal(sonde_source_about(s)->n_train, k == 4 ? 1600 : n);
            for (int epoch = 0; epoch < 2; epoch++) {
                struct piece p = take(s, n);
                check_once(&p, 2000, filters[k].wanted);
                drop_piece(&p);
            }
            sonde_pass_rows r;
            source_must(sonde_source_pass_begin(s, SONDE_SPLIT_TRAIN, &err), &err);
            do {
                source_must(sonde_source_pass_next(s, 100, &r, NULL, &err), &err);
                for (size_t i = 0; i < r.n; i++)
                    assert_true(filters[k].wanted(r.token[i]));
                seen += r.n;
            } while (r.n);
            assert_int_equal(seen, n);
            sonde_source_close(s);
        }
}

static void a_store_that_knows_no_bos_leaves_none_out_and_says_so(void **state)
{
    (void)state;
    struct shape h = plain;
    h.no_special = true;
    make_store(&h);
    sonde_source *s = open_source(acts, &(sonde_source_options){.hook = RESID, .filter.bos = true});
    assert_int_equal(sonde_source_about(s)->n_train, 1600);
    assert_false(sonde_source_about(s)->knows_special);
    sonde_source_close(s);
    make_store(&plain);
    s = open_source(acts, &(sonde_source_options){.hook = RESID});
    assert_true(sonde_source_about(s)->knows_special);
    assert_true(sonde_source_about(s)->prepend_bos);
    assert_int_equal(sonde_source_about(s)->bos_id, BOS_ID);
    sonde_source_close(s);
}

/* ---- the pass ---------------------------------------------------------------------------------- */

static bool in_heldout(uint64_t token)
{
    return !in_train(token);
}
static bool in_all(uint64_t token)
{
    return token < UINT64_MAX;
}

static void a_pass_gives_each_row_of_its_split_in_order(void **state)
{
    (void)state;
    static bool (*const in[])(uint64_t) = {in_train, in_heldout, in_all};
    make_store(&plain);
    sonde_source *s = open_source(acts, &(sonde_source_options){.hook = RESID, .hook_out = "attn.hook_z"});
    for (int split = 0; split < 3; split++)
        for (size_t most = 1; most < 5000; most = most * 7 + 1) {
            sonde_err err = {0};
            sonde_pass_rows r;
            uint64_t row = 0;
            source_must(sonde_source_pass_begin(s, (enum sonde_split)split, &err), &err);
            for (;;) {
                source_must(sonde_source_pass_next(s, most, &r, NULL, &err), &err);
                assert_true(r.n <= most);
                if (!r.n)
                    break;
                for (size_t i = 0; i < r.n; i++, row++) {
                    while (row < 2000 && !in[split](row * 7 % 2000))
                        row++;
                    assert_int_equal(r.row[i], row);
                    assert_int_equal(r.token[i], row * 7 % 2000);
                    assert_int_equal(r.id[i], id_at(r.token[i]));
                    assert_true(r.x[i * WIDTH_IN + 2] == value_in(r.token[i], 2));
                    assert_true(r.y[i * WIDTH_OUT + 3] == value_out(r.token[i], 3));
                }
            }
            while (row < 2000 && !in[split](row * 7 % 2000))
                row++;
            assert_int_equal(row, 2000);
        }
    sonde_source_close(s);
}

static void a_pass_does_not_disturb_the_stream(void **state)
{
    (void)state;
    make_store(&plain);
    sonde_source_options o = {.hook = RESID, .seed = 3, .window_rows = 200, .filter.max_norm = 20};
    sonde_source *s = open_source(acts, &o), *t = open_source(acts, &o);
    sonde_err err = {0};
    sonde_pass_rows r;
    source_must(sonde_source_pass_begin(t, SONDE_SPLIT_HELDOUT, &err), &err);
    for (int i = 0; i < 40; i++) {
        struct piece a = take(s, 97), b;
        source_must(sonde_source_pass_next(t, 50, &r, NULL, &err), &err);
        if (!r.n)
            source_must(sonde_source_pass_begin(t, (enum sonde_split)(i % 3), &err), &err);
        b = take(t, 97);
        is_same_piece(&a, &b);
        drop_piece(&a);
        drop_piece(&b);
    }
    sonde_source_close(s);
    sonde_source_close(t);
}

/* ---- who is held out --------------------------------------------------------------------------- */

static void a_store_that_marks_no_document_gets_its_own_split_whatever_the_seed(void **state)
{
    (void)state;
    struct shape h = plain;
    h.no_split = true;
    make_store(&h);
    sonde_source *a = open_source(acts, &(sonde_source_options){.hook = RESID, .holdout = 0.2, .seed = 1});
    sonde_source *b = open_source(acts, &(sonde_source_options){.hook = RESID, .holdout = 0.2, .seed = 2});
    uint64_t n = sonde_source_about(a)->n_heldout;
    assert_true(n > 200 && n < 700 && n % CONTEXT == 0);
    assert_int_equal(n, sonde_source_about(b)->n_heldout);
    sonde_err err = {0};
    sonde_pass_rows r, q;
    source_must(sonde_source_pass_begin(a, SONDE_SPLIT_HELDOUT, &err), &err);
    source_must(sonde_source_pass_begin(b, SONDE_SPLIT_HELDOUT, &err), &err);
    source_must(sonde_source_pass_next(a, n, &r, NULL, &err), &err);
    source_must(sonde_source_pass_next(b, n, &q, NULL, &err), &err);
    assert_int_equal(r.n, n);
    assert_memory_equal(r.row, q.row, n * sizeof *r.row);
    sonde_source_close(a);
    sonde_source_close(b);
}

static void nothing_to_train_on_is_said_when_rows_are_asked_for(void **state)
{
    (void)state;
    struct shape h = plain;
    sonde_err err = {0};
    sonde_pass_rows r;
    float x[WIDTH_IN];
    h.heldout_all = true;
    make_store(&h);
    sonde_source *s = open_source(acts, &(sonde_source_options){.hook = RESID, .filter.max_norm = 3});
    assert_int_equal(sonde_source_next(s, 1, x, NULL, NULL, NULL, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "2000"));
    source_must(sonde_source_pass_begin(s, SONDE_SPLIT_HELDOUT, &err), &err);
    source_must(sonde_source_pass_next(s, 5, &r, NULL, &err), &err);
    assert_int_equal(r.n, 5);
    sonde_source_close(s);
}

/* ---- identity ---------------------------------------------------------------------------------- */

static char *identity(const sonde_source_options *o)
{
    sonde_source *s = open_source(acts, o);
    char *text = strdup(sonde_source_about(s)->identity);
    sonde_source_close(s);
    return text;
}

static void the_identity_changes_with_data_and_choices_and_with_nothing_else(void **state)
{
    (void)state;
    static const int32_t ids[] = {4};
    struct shape h = plain;
    make_store(&h);
    const sonde_source_options o = {.hook = RESID, .hook_out = "hook_z"},
                               other[] = {
                                   {.hook = RESID},
                                   {.hook = RESID, .hook_out = "hook_z", .seed = 1},
                                   {.hook = RESID, .hook_out = "hook_z", .window_rows = 100},
                                   {.hook = RESID, .hook_out = "hook_z", .filter.bos = true},
                                   {.hook = RESID, .hook_out = "hook_z", .filter.special = true},
                                   {.hook = RESID, .hook_out = "hook_z", .filter.first = 1},
                                   {.hook = RESID, .hook_out = "hook_z", .filter.max_norm = 10},
                                   {.hook = RESID, .hook_out = "hook_z", .filter = {.ids = ids, .n_ids = 1}}};
    char *first = identity(&o), *again = identity(&o), *text;
    assert_string_equal(first, again);
    free(again);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        text = identity(&other[i]);
        assert_string_not_equal(first, text);
        free(text);
    }
    h.edit = 1;
    make_store(&h);
    text = identity(&o);
    assert_string_not_equal(first, text);
    free(text);
    free(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_training_row_comes_once_per_epoch_of_every_type),
        cmocka_unit_test(the_order_is_another_in_every_epoch_and_of_every_seed),
        cmocka_unit_test(a_position_goes_on_as_the_uninterrupted_stream_does),
        cmocka_unit_test(every_place_can_be_gone_back_to),
        cmocka_unit_test(the_stream_does_not_depend_on_how_much_is_taken_at_once),
        cmocka_unit_test(a_position_that_is_not_there_is_refused),
        cmocka_unit_test(each_filter_leaves_out_its_rows_and_no_other),
        cmocka_unit_test(a_store_that_knows_no_bos_leaves_none_out_and_says_so),
        cmocka_unit_test(a_pass_gives_each_row_of_its_split_in_order),
        cmocka_unit_test(a_pass_does_not_disturb_the_stream),
        cmocka_unit_test(a_store_that_marks_no_document_gets_its_own_split_whatever_the_seed),
        cmocka_unit_test(nothing_to_train_on_is_said_when_rows_are_asked_for),
        cmocka_unit_test(the_identity_changes_with_data_and_choices_and_with_nothing_else),
    };
    return cmocka_run_group_tests(tests, make_source_dir, remove_source_dir);
}
