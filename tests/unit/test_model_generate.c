/* SPDX-License-Identifier: MIT
 * Generated text: what greedy means, what the seed means, what temperature and top-p mean. */
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

#include "model/generate.h"
#include "num/softmax.h"

#define MOST 600

struct text {
    int32_t id[MOST];
    size_t n;
    size_t stop_at; /* 0: never */
};

static void must(enum sonde_code code, const sonde_err *err)
{
    if (code)
        fail_msg("code %d: %s", code, err->msg);
}

static sonde_model *open_model(const char *name)
{
    char path[512];
    sonde_err err = {0};
    sonde_model *m = NULL;
    snprintf(path, sizeof path, "%s/tests/golden/models/%s", SONDE_SOURCE_DIR, name);
    must(sonde_model_open(path, NULL, NULL, &m, &err), &err);
    return m;
}

static enum sonde_code take(void *arg, int32_t id, sonde_err *err)
{
    struct text *t = arg;
    assert_in_range(t->n, 0, MOST - 1);
    t->id[t->n++] = id;
    return t->stop_at == t->n ? sonde_fail(err, SONDE_E_IO, "nobody listens") : SONDE_OK;
}

static void generate(const sonde_model *m, const int32_t *prompt, size_t n, const sonde_sampling *s,
                     size_t rows, int threads, struct text *out)
{
    sonde_err err = {0};
    sonde_run *run;
    sonde_pool *pool;
    size_t keys = n + s->n_tokens < m->arch.n_ctx ? n + s->n_tokens : m->arch.n_ctx;
    *out = (struct text){0};
    must(sonde_pool_new(threads, &pool, &err), &err);
    must(sonde_run_new(m, rows, keys, pool, NULL, &run, &err), &err);
    must(sonde_generate(run, m, prompt, n, s, NULL, take, out, &err), &err);
    sonde_run_free(run);
    sonde_pool_free(pool);
}

static const int32_t prompt[] = {3, 14, 15, 9, 26, 5, 35};
#define N_PROMPT (sizeof prompt / sizeof *prompt)

/* ---- greedy ------------------------------------------------------------------------------------ */

struct last {
    float *row;
    size_t n;
};

static enum sonde_code keep_last(void *arg, size_t sequence, size_t first, size_t n_rows, float *logits,
                                 sonde_err *err)
{
    struct last *l = arg;
    (void)sequence, (void)first, (void)err;
    memcpy(l->row, logits + (n_rows - 1) * l->n, l->n * sizeof *l->row);
    return SONDE_OK;
}

/* Logits after ids[0 .. n), in one pass from nothing. */
static void logits_after(const sonde_model *m, const int32_t *ids, size_t n, float *row)
{
    sonde_err err = {0};
    sonde_run *run;
    struct last l = {row, m->arch.n_vocab_out};
    const size_t start[2] = {0, n};
    must(sonde_run_new(m, n, n, NULL, NULL, &run, &err), &err);
    sonde_run_want_logits(run, keep_last, &l, false);
    must(sonde_run_forward(run, ids, start, 1, NULL, &err), &err);
    sonde_run_free(run);
}

static void greedy_is_the_argmax_of_a_whole_pass_at_every_step(void **state)
{
    (void)state;
    static const char *const name[] = {"llama",        "gpt2",    "gemma2",   "gemma3",
                                       "qwen2_window", "gpt_neo", "gpt_neox", "tl_shortformer"};
    for (size_t k = 0; k < sizeof name / sizeof *name; k++) {
        sonde_model *m = open_model(name[k]);
        size_t left = m->arch.n_ctx - N_PROMPT, n = left < 30 ? left : 30;
        int32_t ids[N_PROMPT + 30];
        float *row = malloc(m->arch.n_vocab_out * sizeof *row);
        struct text t;
        for (size_t i = 0; i < N_PROMPT; i++)
            ids[i] = prompt[i] % (int32_t)m->arch.n_vocab;
        generate(m, ids, N_PROMPT, &(sonde_sampling){.n_tokens = n}, 3, 1, &t);
        assert_int_equal(t.n, n);
        for (size_t i = 0; i < n; i++) {
            logits_after(m, ids, N_PROMPT + i, row);
            ids[N_PROMPT + i] = (int32_t)sonde_argmax(row, m->arch.n_vocab_out);
            if (t.id[i] != ids[N_PROMPT + i])
                fail_msg("%s: token %zu is %d, should be %d", name[k], i, t.id[i], ids[N_PROMPT + i]);
        }
        free(row);
        sonde_model_close(m);
    }
}

static void threads_and_pieces_of_the_prompt_change_no_token(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama");
    for (int hot = 0; hot < 2; hot++) {
        sonde_sampling s = {.n_tokens = 40, .temperature = (float)hot, .top_p = 0.9f, .seed = 5};
        struct text want, got;
        generate(m, prompt, N_PROMPT, &s, N_PROMPT, 1, &want);
        for (int threads = 1; threads < 4; threads++)
            for (size_t rows = 1; rows <= N_PROMPT; rows += 2) {
                generate(m, prompt, N_PROMPT, &s, rows, threads, &got);
                assert_int_equal(got.n, want.n);
                assert_memory_equal(got.id, want.id, want.n * sizeof *want.id);
            }
    }
    sonde_model_close(m);
}

/* ---- ends -------------------------------------------------------------------------------------- */

static void a_stop_token_ends_the_text_and_is_not_handed_on(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama");
    struct text whole, cut;
    generate(m, prompt, N_PROMPT, &(sonde_sampling){.n_tokens = 20, .temperature = 1, .top_p = 1, .seed = 2},
             N_PROMPT, 1, &whole);
    for (size_t at = 0; at < 20; at += 6) {
        int32_t stop[2] = {60000, whole.id[at]};
        size_t first = 0;
        while (whole.id[first] != stop[1])
            first++;
        generate(m, prompt, N_PROMPT,
                 &(sonde_sampling){
                     .n_tokens = 20, .temperature = 1, .top_p = 1, .seed = 2, .stop = stop, .n_stop = 2},
                 N_PROMPT, 1, &cut);
        assert_int_equal(cut.n, first);
        assert_memory_equal(cut.id, whole.id, first * sizeof *cut.id);
    }
    sonde_model_close(m);
}

static void a_longer_text_begins_like_a_shorter_one(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama");
    struct text longest, t;
    sonde_sampling s = {.n_tokens = 57, .temperature = 0.7f, .top_p = 0.95f, .seed = 11};
    generate(m, prompt, N_PROMPT, &s, N_PROMPT, 1, &longest);
    assert_int_equal(longest.n, 57); /* the context is full: 64 */
    for (s.n_tokens = 0; s.n_tokens < 57; s.n_tokens += 8) {
        generate(m, prompt, N_PROMPT, &s, N_PROMPT, 1, &t);
        assert_int_equal(t.n, s.n_tokens);
        assert_memory_equal(t.id, longest.id, t.n * sizeof *t.id);
    }
    sonde_model_close(m);
}

/* The token after the last position that fits is still known: its logits are those of position n_ctx - 1. */
static void the_context_bounds_the_text(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama");
    struct text t;
    generate(m, prompt, N_PROMPT, &(sonde_sampling){.n_tokens = 500}, N_PROMPT, 1, &t);
    assert_in_range(t.n, 64 - N_PROMPT, 64 - N_PROMPT + 1);
    sonde_model_close(m);
}

static void prompts_that_cannot_be_continued_are_refused(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama"), *both = open_model("tl_bidirectional");
    sonde_err err = {0};
    sonde_run *run;
    struct text t = {0};
    int32_t ids[65] = {0};
    sonde_sampling s = {.n_tokens = 1};
    must(sonde_run_new(m, 65, 64, NULL, NULL, &run, &err), &err);
    assert_int_equal(sonde_generate(run, m, ids, 0, &s, NULL, take, &t, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "an empty prompt"));
    assert_int_equal(sonde_generate(run, m, ids, 65, &s, NULL, take, &t, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "the prompt has 65 tokens, this model's context is 64"));
    ids[3] = 61;
    assert_int_equal(sonde_generate(run, m, ids, 10, &s, NULL, take, &t, &err), SONDE_E_USAGE);
    sonde_run_free(run);
    must(sonde_run_new(both, 8, 8, NULL, NULL, &run, &err), &err);
    assert_int_equal(sonde_generate(run, both, ids, 2, &s, NULL, take, &t, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "a bidirectional model does not predict what follows"));
    sonde_run_free(run);
    assert_int_equal(t.n, 0);
    sonde_model_close(m);
    sonde_model_close(both);
}

static void a_listener_that_has_enough_ends_the_text_with_its_code(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama");
    sonde_err err = {0};
    sonde_run *run;
    struct text t = {.stop_at = 3};
    must(sonde_run_new(m, 8, 64, NULL, NULL, &run, &err), &err);
    assert_int_equal(
        sonde_generate(run, m, prompt, N_PROMPT, &(sonde_sampling){.n_tokens = 20}, NULL, take, &t, &err),
        SONDE_E_IO);
    assert_int_equal(t.n, 3);
    sonde_run_free(run);
    sonde_model_close(m);
}

/* ---- hooks ------------------------------------------------------------------------------------- */

struct seen {
    size_t n_rows, next_pos;
    bool in_order;
};

static enum sonde_code see(void *arg, const sonde_view *v, sonde_err *err)
{
    struct seen *s = arg;
    (void)err;
    s->in_order = s->in_order && v->first_pos == s->next_pos;
    s->n_rows += v->n_rows;
    s->next_pos = v->first_pos + v->n_rows;
    return SONDE_OK;
}

static enum sonde_code push(void *arg, const sonde_view *v, sonde_err *err)
{
    (void)arg, (void)err;
    for (size_t r = 0; r < v->n_rows; r++)
        for (size_t i = 0; i < v->width; i++)
            v->data[r * v->stride + i] += (float)(i % 3) - 1;
    return SONDE_OK;
}

static void hooks_see_every_position_once_and_steer_what_follows(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama");
    sonde_err err = {0};
    sonde_run *run;
    struct text plain = {0}, steered = {0};
    struct seen seen = {.in_order = true};
    sonde_sampling s = {.n_tokens = 20};
    sonde_hook h = {SONDE_SITE_RESID_POST, 1};
    must(sonde_run_new(m, 3, 64, NULL, NULL, &run, &err), &err);
    must(sonde_run_hook(run, h, false, see, &seen, &err), &err);
    must(sonde_generate(run, m, prompt, N_PROMPT, &s, NULL, take, &plain, &err), &err);
    assert_true(seen.in_order);
    assert_int_equal(seen.n_rows, N_PROMPT + 19); /* nothing follows the last token */
    struct text again;
    generate(m, prompt, N_PROMPT, &s, 3, 1, &again);
    assert_memory_equal(again.id, plain.id, 20 * sizeof *plain.id);
    must(sonde_run_hook(run, h, true, push, NULL, &err), &err);
    must(sonde_generate(run, m, prompt, N_PROMPT, &s, NULL, take, &steered, &err), &err);
    assert_memory_not_equal(steered.id, plain.id, 20 * sizeof *plain.id);
    sonde_run_free(run);
    sonde_model_close(m);
}

/* ---- chance ------------------------------------------------------------------------------------ */

/* Draw the first token with many seeds; count[v]. */
static void draw_many(const sonde_model *m, sonde_sampling s, int n, int *count)
{
    sonde_err err = {0};
    sonde_run *run;
    s.n_tokens = 1;
    memset(count, 0, m->arch.n_vocab_out * sizeof *count);
    must(sonde_run_new(m, N_PROMPT, N_PROMPT + 1, NULL, NULL, &run, &err), &err);
    for (s.seed = 0; s.seed < (uint64_t)n; s.seed++) {
        struct text t = {0};
        must(sonde_generate(run, m, prompt, N_PROMPT, &s, NULL, take, &t, &err), &err);
        assert_int_equal(t.n, 1);
        count[t.id[0]]++;
    }
    sonde_run_free(run);
}

/* What should be drawn: softmax(logits / temperature), cut to the nucleus. */
static void distribution(const sonde_model *m, double temperature, double top_p, double *p)
{
    size_t n = m->arch.n_vocab_out;
    float *row = malloc(n * sizeof *row);
    double sum = 0, most = -INFINITY;
    logits_after(m, prompt, N_PROMPT, row);
    for (size_t i = 0; i < n; i++)
        most = fmax(most, (double)row[i]);
    for (size_t i = 0; i < n; i++)
        sum += p[i] = exp(((double)row[i] - most) / temperature);
    double *kept = calloc(n, sizeof *kept), mass = 0;
    while (mass < top_p) {
        size_t best = 0;
        for (size_t i = 0; i < n; i++)
            if (!kept[i] && (kept[best] || p[i] > p[best]))
                best = i;
        if (kept[best])
            break;
        kept[best] = 1;
        mass += p[best] / sum;
        if (top_p >= 1 && mass > 1 - 1e-12)
            break;
    }
    for (size_t i = 0; i < n; i++)
        p[i] = top_p >= 1 ? p[i] / sum : kept[i] ? p[i] / sum / mass : 0;
    free(kept);
    free(row);
}

/* 4000 draws: each count within 5 deviations of its binomial, and none outside the nucleus. */
static void draws_follow_the_tempered_softmax_and_its_nucleus(void **state)
{
    (void)state;
    static const float how[][2] = {{1, 1},    {5, 1},     {20, 1},       {5, 0.5f},
                                   {5, 0.9f}, {20, 0.3f}, {0.5f, 0.99f}, {20, 1e-6f}};
    sonde_model *m = open_model("llama");
    double p[61];
    int count[61], n = 4000;
    assert_int_equal(m->arch.n_vocab_out, 61);
    for (size_t k = 0; k < sizeof how / sizeof *how; k++) {
        distribution(m, (double)how[k][0], (double)how[k][1], p);
        draw_many(m, (sonde_sampling){.temperature = how[k][0], .top_p = how[k][1]}, n, count);
        for (int i = 0; i < 61; i++) {
            double mean = n * p[i], deviation = sqrt(n * p[i] * (1 - p[i]));
            if (p[i] == 0 ? count[i] != 0 : fabs(count[i] - mean) > 5 * deviation + 1)
                fail_msg("temperature %g, top-p %g: token %d drawn %d times, should be %.1f +- %.1f",
                         (double)how[k][0], (double)how[k][1], i, count[i], mean, deviation);
        }
    }
    sonde_model_close(m);
}

/* At this temperature all 61 ids are nearly as likely: 57 draws give 37 of them on average, 4 standard
 * deviations less are 25. */
static void every_token_is_drawn_anew(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama");
    struct text t;
    size_t n = 0;
    for (int hot = 0; hot < 2; hot++) {
        bool seen[61] = {false};
        generate(m, prompt, N_PROMPT,
                 &(sonde_sampling){.n_tokens = 57, .temperature = 1e4f, .top_p = hot ? 1 : 0.999f}, N_PROMPT,
                 1, &t);
        for (size_t i = n = 0; i < t.n; i++) {
            n += !seen[t.id[i]];
            seen[t.id[i]] = true;
        }
        assert_in_range(n, 25, 57);
    }
    sonde_model_close(m);
}

static void ids_that_are_not_allowed_are_never_drawn(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama");
    int count[61];
    draw_many(m, (sonde_sampling){.temperature = 50, .top_p = 1, .n_allowed = 7}, 300, count);
    for (int i = 0; i < 61; i++)
        assert_true(i < 7 ? count[i] > 0 : count[i] == 0);
    draw_many(m, (sonde_sampling){.temperature = 50, .top_p = 0.999f, .n_allowed = 7}, 300, count);
    for (int i = 7; i < 61; i++)
        assert_int_equal(count[i], 0);
    draw_many(m, (sonde_sampling){.n_allowed = 1}, 2, count);
    assert_int_equal(count[0], 2);
    sonde_model_close(m);
}

static void nan_logits_are_refused_in_words(void **state)
{
    (void)state;
    sonde_model *m = open_model("llama");
    sonde_err err = {0};
    sonde_run *run;
    struct text t = {0};
    float *gamma = m->layer[2].ln1.gamma, was = gamma[0];
    gamma[0] = NAN;
    must(sonde_run_new(m, 8, 64, NULL, NULL, &run, &err), &err);
    assert_int_equal(
        sonde_generate(run, m, prompt, N_PROMPT, &(sonde_sampling){.n_tokens = 5}, NULL, take, &t, &err),
        SONDE_E_NUMERIC);
    assert_non_null(strstr(err.msg, "the logits of token 0 after the prompt hold NaN"));
    gamma[0] = was;
    sonde_run_free(run);
    sonde_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_is_the_argmax_of_a_whole_pass_at_every_step),
        cmocka_unit_test(threads_and_pieces_of_the_prompt_change_no_token),
        cmocka_unit_test(a_stop_token_ends_the_text_and_is_not_handed_on),
        cmocka_unit_test(a_longer_text_begins_like_a_shorter_one),
        cmocka_unit_test(the_context_bounds_the_text),
        cmocka_unit_test(prompts_that_cannot_be_continued_are_refused),
        cmocka_unit_test(a_listener_that_has_enough_ends_the_text_with_its_code),
        cmocka_unit_test(hooks_see_every_position_once_and_steer_what_follows),
        cmocka_unit_test(draws_follow_the_tempered_softmax_and_its_nucleus),
        cmocka_unit_test(every_token_is_drawn_anew),
        cmocka_unit_test(ids_that_are_not_allowed_are_never_drawn),
        cmocka_unit_test(nan_logits_are_refused_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
