/* SPDX-License-Identifier: MIT
 * Scores with the model in the loop, against one plain pass per context and double arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "capture_fixture.h"
#include "sae/splice.h"

#define RESID "blocks.1.hook_resid_post"

static sonde_source *open_model_source(const sonde_model *m, const sonde_corpus *c,
                                       const sonde_source_options *o)
{
    sonde_source *s = NULL;
    sonde_err err = {0};
    must(sonde_source_model(m, c, NULL, o, NULL, &s, &err), &err);
    return s;
}

/* ---- replacements ---------------------------------------------------------------------------- */

struct widths {
    size_t d_in, d_out;
};

static enum sonde_code keep_it(void *arg, const sonde_rows *rows, sonde_pool *pool, float *y, sonde_err *err)
{
    const struct widths *w = arg;
    (void)pool, (void)err;
    memcpy(y, rows->x, rows->n * w->d_in * sizeof *y);
    return SONDE_OK;
}

/* Depends on everything a replacement may depend on. */
static float bent(const float *x, size_t d_in, size_t j, int32_t id, int32_t previous)
{
    return 0.75f * x[j % d_in] + 0.125f * (float)((id * 5 + previous * 3 + (int)j) % 7 - 3);
}

static enum sonde_code bend_it(void *arg, const sonde_rows *rows, sonde_pool *pool, float *y, sonde_err *err)
{
    const struct widths *w = arg;
    (void)pool, (void)err;
    for (size_t i = 0; i < rows->n; i++)
        for (size_t j = 0; j < w->d_out; j++)
            y[i * w->d_out + j] = bent(rows->x + i * w->d_in, w->d_in, j, rows->id[i], rows->previous[i]);
    return SONDE_OK;
}

static enum sonde_code break_it(void *arg, const sonde_rows *rows, sonde_pool *pool, float *y, sonde_err *err)
{
    const struct widths *w = arg;
    keep_it(arg, rows, pool, y, err);
    y[3 * w->d_out] = INFINITY;
    return SONDE_OK;
}

static enum sonde_code give_up(void *arg, const sonde_rows *rows, sonde_pool *pool, float *y, sonde_err *err)
{
    (void)arg, (void)rows, (void)pool, (void)y;
    return sonde_fail(err, SONDE_E_DIFFERS, "enough");
}

/* ---- the truth ------------------------------------------------------------------------------- */

enum { CLEAN, ZERO, MEAN, BENT, N_KINDS };

struct reference {
    const sonde_model *m;
    const sonde_corpus *c;
    bool *taken; /* [n_tokens] */
    double *mean;
    size_t d_in, d_out;
    sonde_hook in, out;
    float *x; /* [n_tokens, d_in] clean input */
    float *logits[N_KINDS];
    int kind;
    uint64_t seq;
    double loss[N_KINDS], kl[N_KINDS];
    uint64_t n;
};

static enum sonde_code look(void *arg, const sonde_view *v, sonde_err *err)
{
    struct reference *t = arg;
    (void)err;
    for (size_t r = 0; r < v->n_rows; r++)
        memcpy(t->x + (t->c->seq_start[t->seq] + r) * t->d_in, v->data + r * v->stride,
               t->d_in * sizeof *t->x);
    return SONDE_OK;
}

static enum sonde_code edit(void *arg, const sonde_view *v, sonde_err *err)
{
    struct reference *t = arg;
    (void)err;
    for (size_t r = 0; r < v->n_rows; r++) {
        uint64_t token = t->c->seq_start[t->seq] + r;
        for (size_t j = 0; j < t->d_out && t->taken[token]; j++)
            v->data[r * v->stride + j] =
                t->kind == ZERO ? 0
                : t->kind == MEAN
                    ? (float)t->mean[j]
                    : bent(t->x + token * t->d_in, t->d_in, j, t->c->id[token], r ? t->c->id[token - 1] : -1);
    }
    return SONDE_OK;
}

static enum sonde_code copy_logits(void *arg, size_t sequence, size_t first, size_t n, float *logits,
                                   sonde_err *err)
{
    struct reference *t = arg;
    size_t v = t->m->arch.n_vocab_out;
    (void)sequence, (void)err;
    memcpy(t->logits[t->kind] + first * v, logits, n * v * sizeof *logits);
    return SONDE_OK;
}

static double log_sum(const float *x, size_t n)
{
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - max);
    return max + log(sum);
}

static void add_context_scores(struct reference *t, size_t n)
{
    size_t v = t->m->arch.n_vocab_out;
    for (size_t r = 0; r + 1 < n; r++) {
        uint64_t token = t->c->seq_start[t->seq] + r;
        const float *a = t->logits[CLEAN] + r * v;
        double lse = log_sum(a, v);
        t->n += t->taken[token];
        for (int k = 0; k < N_KINDS && t->taken[token]; k++) {
            const float *b = t->logits[k] + r * v;
            double lse_b = log_sum(b, v);
            t->loss[k] += lse_b - (double)b[t->c->id[token + 1]];
            for (size_t i = 0; i < v; i++)
                t->kl[k] += exp((double)a[i] - lse) * (((double)a[i] - lse) - ((double)b[i] - lse_b));
        }
    }
}

/* Which rows a pass gives, and the mean of what stands at the output there. */
static void mark(struct reference *t, sonde_source *s, enum sonde_split split, enum sonde_split of_mean)
{
    sonde_err err = {0};
    sonde_pass_rows rows;
    uint64_t n = 0;
    must(sonde_source_pass_begin(s, split, &err), &err);
    for (;;) {
        must(sonde_source_pass_next(s, 7, &rows, NULL, &err), &err);
        if (!rows.n)
            break;
        for (size_t i = 0; i < rows.n; i++)
            t->taken[rows.token[i]] = true;
    }
    must(sonde_source_pass_begin(s, of_mean, &err), &err);
    for (;;) {
        must(sonde_source_pass_next(s, 7, &rows, NULL, &err), &err);
        if (!rows.n)
            break;
        for (size_t i = 0; i < rows.n * t->d_out; i++)
            t->mean[i % t->d_out] += (double)rows.y[i];
        n += rows.n;
    }
    for (size_t j = 0; j < t->d_out; j++)
        t->mean[j] /= (double)n;
}

static sonde_hook hook_named(const sonde_model *m, const char *name)
{
    const char *const spec[] = {name, NULL};
    sonde_hook_list list;
    hook_list(m, spec, &list);
    sonde_hook h = list.hook[0];
    sonde_hooks_free(&list);
    return h;
}

static struct reference refer(const sonde_model *m, const sonde_corpus *c, sonde_source *s,
                              enum sonde_split split, enum sonde_split of_mean)
{
    const sonde_source_info *info = sonde_source_about(s);
    struct reference t = {.m = m, .c = c, .d_in = info->d_in, .d_out = info->d_out};
    sonde_err err = {0};
    sonde_run *run;
    size_t longest = 0, v = m->arch.n_vocab_out;
    t.in = hook_named(m, info->hook);
    t.out = hook_named(m, info->hook_out ? info->hook_out : info->hook);
    t.taken = calloc(c->n_tokens, sizeof *t.taken);
    t.mean = calloc(t.d_out, sizeof *t.mean);
    t.x = calloc(c->n_tokens * t.d_in, sizeof *t.x);
    for (uint64_t q = 0; q < c->n_seqs; q++)
        if (c->seq_start[q + 1] - c->seq_start[q] > longest)
            longest = c->seq_start[q + 1] - c->seq_start[q];
    for (int k = 0; k < N_KINDS; k++)
        t.logits[k] = calloc(longest * v, sizeof(float));
    mark(&t, s, split, of_mean);
    must(sonde_run_new(m, longest, longest, NULL, NULL, &run, &err), &err);
    sonde_run_want_logits(run, copy_logits, &t, false);
    for (t.seq = 0; t.seq < c->n_seqs; t.seq++) {
        const size_t n = (size_t)(c->seq_start[t.seq + 1] - c->seq_start[t.seq]), start[2] = {0, n};
        for (t.kind = 0; t.kind < N_KINDS; t.kind++) {
            sonde_run_unhook_all(run);
            must(sonde_run_hook(run, t.kind ? t.out : t.in, t.kind != CLEAN, t.kind ? edit : look, &t, &err),
                 &err);
            must(sonde_run_forward(run, c->id + c->seq_start[t.seq], start, 1, NULL, &err), &err);
        }
        add_context_scores(&t, n);
    }
    sonde_run_free(run);
    return t;
}

static void drop_reference(struct reference *t)
{
    free(t->taken), free(t->mean), free(t->x);
    for (int k = 0; k < N_KINDS; k++)
        free(t->logits[k]);
}

/* Float32 exponentials of about 1e-7 and the passes' own bits are the same, so 2e-6 nats is room enough. */
static void near_nats(const char *what, double got, double want)
{
    if (!(fabs(got - want) <= 2e-6 * fmax(1, fabs(want))))
        fail_msg("%s is %.9g, should be %.9g", what, got, want);
}

static void check_score(const char *what, const sonde_splice_score *got, const struct reference *t, int k)
{
    double n = (double)t->n, clean = t->loss[CLEAN] / n, zero = t->loss[ZERO] / n, mean = t->loss[MEAN] / n,
           ce = t->loss[k] / n;
    near_nats(what, got->ce_loss, ce);
    near_nats("its ce_delta", got->ce_delta, ce - clean);
    near_nats("its kl_div", got->kl_div, t->kl[k] / n);
    assert_true(fabs(got->ce_loss_score - (zero - ce) / (zero - clean)) < 1e-5 / fabs(zero - clean));
    assert_true(fabs(got->ce_loss_score_mean - (mean - ce) / (mean - clean)) < 1e-5 / fabs(mean - clean));
    assert_true(fabs(got->kl_div_score - (t->kl[ZERO] - t->kl[k]) / t->kl[ZERO]) < 1e-5 / (t->kl[ZERO] / n));
}

static sonde_splice_score splice(sonde_source *s, const sonde_splice_options *o, sonde_replace_fn fn,
                                 int threads, sonde_splice_base *base)
{
    sonde_err err = {0};
    sonde_work work = {0};
    struct widths w = {sonde_source_about(s)->d_in, sonde_source_about(s)->d_out};
    const sonde_replacement r = {"it", fn, &w};
    sonde_splice_score score;
    must(sonde_pool_new(threads, &work.pool, &err), &err);
    must(sonde_splice(s, o, &r, 1, &work, base, &score, &err), &err);
    sonde_pool_free(work.pool);
    return score;
}

static void check_against_reference(const char *model, const sonde_source_options *o, enum sonde_split split,
                                    bool concat)
{
    sonde_model *m = open_model(model, NULL);
    sonde_corpus *c = make_corpus(lengths, N_DOCS, 10, concat, m->arch.n_vocab);
    sonde_source *s = open_model_source(m, c, o);
    bool has_train = sonde_source_about(s)->n_train > 0;
    struct reference t = refer(m, c, s, split, has_train ? SONDE_SPLIT_TRAIN : split);
    sonde_splice_base base;
    sonde_splice_score score = splice(s, &(sonde_splice_options){.split = split}, bend_it, 2, &base);
    assert_true(base.n_tokens == t.n && base.mean_of_train == has_train);
    near_nats("ce_loss_clean", base.ce_loss_clean, t.loss[CLEAN] / (double)t.n);
    check_score("zero ablation", &base.zero, &t, ZERO);
    check_score("mean ablation", &base.mean, &t, MEAN);
    check_score("the replacement", &score, &t, BENT);
    assert_true(base.zero.ce_loss_score == 0 && base.mean.ce_loss_score_mean == 0);
    drop_reference(&t);
    sonde_source_close(s);
    drop_corpus(c);
    sonde_model_close(m);
}

/* ---- promises -------------------------------------------------------------------------------- */

static void scores_are_those_of_single_passes_in_double(void **state)
{
    static const char *const models[] = {"gpt2", "llama", "gemma2", "gpt_neox"};
    (void)state;
    for (size_t i = 0; i < 4; i++)
        check_against_reference(models[i], &(sonde_source_options){.hook = RESID, .filter.first = 1},
                                SONDE_SPLIT_ALL, i % 2);
}

static void other_splits_and_excluded_positions_stay_clean(void **state)
{
    const sonde_source_options o = {.hook = RESID, .filter.first = 3, .holdout = 0.4, .seed = 3};
    const int32_t common[] = {1, 2, 3, 5, 8, 13, 21, 34};
    const sonde_source_options by_id = {.hook = RESID, .filter = {.ids = common, .n_ids = 8}, .holdout = 0.4};
    (void)state;
    for (int concat = 0; concat < 2; concat++) {
        check_against_reference("gpt2", &o, SONDE_SPLIT_HELDOUT, concat);
        check_against_reference("llama", &by_id, SONDE_SPLIT_TRAIN, concat);
    }
}

static void rows_of_outlying_norm_stay_clean(void **state)
{
    (void)state;
    check_against_reference("gpt2", &(sonde_source_options){.hook = RESID, .filter.max_norm = 1.05},
                            SONDE_SPLIT_ALL, false);
}

static void a_transcoder_reads_one_hook_and_writes_another(void **state)
{
    const sonde_source_options o = {
        .hook = "blocks.0.hook_resid_mid", .hook_out = "blocks.0.hook_mlp_out", .filter.first = 1};
    const sonde_source_options wide = {
        .hook = "blocks.0.ln2.hook_normalized", .hook_out = "blocks.1.mlp.hook_post", .filter.first = 1};
    (void)state;
    check_against_reference("gpt2", &o, SONDE_SPLIT_ALL, false);
    check_against_reference("gpt2", &wide, SONDE_SPLIT_ALL, false);
}

static void heads_are_replaced_as_one_row(void **state)
{
    (void)state;
    check_against_reference("gpt2", &(sonde_source_options){.hook = "blocks.1.attn.hook_z"}, SONDE_SPLIT_ALL,
                            false);
}

static sonde_model *model;
static sonde_corpus *corpus;

static int open_one(void **state)
{
    (void)state;
    model = open_model("gpt2", NULL);
    corpus = make_corpus(lengths, N_DOCS, 10, false, model->arch.n_vocab);
    return 0;
}

static int close_one(void **state)
{
    (void)state;
    drop_corpus(corpus);
    sonde_model_close(model);
    return 0;
}

static void what_changes_nothing_costs_nothing(void **state)
{
    sonde_source *s =
        open_model_source(model, corpus, &(sonde_source_options){.hook = RESID, .filter.first = 1});
    sonde_splice_base base;
    (void)state;
    sonde_splice_score score =
        splice(s, &(sonde_splice_options){.split = SONDE_SPLIT_ALL}, keep_it, 1, &base);
    assert_true(score.ce_loss == base.ce_loss_clean && score.ce_delta == 0 && score.kl_div == 0);
    assert_true(score.ce_loss_score == 1 && score.ce_loss_score_mean == 1 && score.kl_div_score == 1);
    assert_true(base.zero.kl_div > 0 && base.mean.kl_div > 0 && base.zero.ce_loss != base.mean.ce_loss);
    sonde_source_close(s);
}

static void threads_and_batches_change_no_bit(void **state)
{
    static const size_t batch[] = {1, 23, 64, 0};
    const sonde_source_options o = {.hook = RESID, .filter.first = 1, .holdout = 0.3};
    sonde_splice_base want, base;
    (void)state;
    sonde_source *s = open_model_source(model, corpus, &o);
    sonde_splice_options so = {.split = SONDE_SPLIT_TRAIN};
    sonde_splice_score first = splice(s, &so, bend_it, 1, &want);
    for (int threads = 1; threads <= 3; threads++)
        for (size_t i = 0; i < 4; i++) {
            so.batch_tokens = batch[i];
            sonde_splice_score score = splice(s, &so, bend_it, threads, &base);
            assert_memory_equal(&score, &first, sizeof score);
            assert_true(base.n_tokens == want.n_tokens && base.n_replaced == want.n_replaced &&
                        base.ce_loss_clean == want.ce_loss_clean);
            assert_memory_equal(&base.zero, &want.zero, sizeof base.zero);
            assert_memory_equal(&base.mean, &want.mean, sizeof base.mean);
        }
    sonde_source_close(s);
}

static void max_tokens_ends_after_the_context_that_reaches_it(void **state)
{
    sonde_source *s =
        open_model_source(model, corpus, &(sonde_source_options){.hook = RESID, .filter.first = 1});
    sonde_splice_options o = {.split = SONDE_SPLIT_ALL, .max_tokens = 6};
    sonde_splice_base base;
    (void)state;
    splice(s, &o, keep_it, 1, &base);
    assert_int_equal(base.n_tokens,
                     5 + 8); /* documents of 7, 1 and 13 tokens, contexts of 10, the first not */
    o.max_tokens = 5;
    splice(s, &o, keep_it, 1, &base);
    assert_int_equal(base.n_tokens, 5);
    sonde_source_close(s);
}

static void a_mean_that_is_given_is_used(void **state)
{
    sonde_source *s =
        open_model_source(model, corpus, &(sonde_source_options){.hook = RESID, .filter.first = 1});
    sonde_splice_base base;
    (void)state;
    double *zero = calloc(model->arch.d_model, sizeof *zero);
    splice(s, &(sonde_splice_options){.split = SONDE_SPLIT_ALL, .mean = zero, .mean_of_train = true}, keep_it,
           1, &base);
    assert_true(base.mean.ce_loss == base.zero.ce_loss && base.mean_of_train);
    free(zero);
    sonde_source_close(s);
}

static enum sonde_code refused(sonde_source *s, enum sonde_split split, sonde_replace_fn fn, sonde_err *err)
{
    struct widths w = {sonde_source_about(s)->d_in, sonde_source_about(s)->d_out};
    const sonde_replacement r[2] = {{"fine", keep_it, &w}, {"broken", fn, &w}};
    sonde_splice_base base = {.n_tokens = 77};
    sonde_splice_score score[2];
    *err = (sonde_err){0};
    enum sonde_code code =
        sonde_splice(s, &(sonde_splice_options){.split = split}, r, 2, NULL, &base, score, err);
    assert_true(!code || base.n_tokens == 77);
    return code;
}

static void a_loss_that_is_not_finite_is_named(void **state)
{
    sonde_err err;
    sonde_source *s =
        open_model_source(model, corpus, &(sonde_source_options){.hook = RESID, .filter.first = 1});
    (void)state;
    assert_int_equal(refused(s, SONDE_SPLIT_ALL, break_it, &err), SONDE_E_NUMERIC);
    if (!strstr(err.msg, "broken") || !strstr(err.msg, "context 0 (document 0)"))
        fail_msg("%s", err.msg);
    assert_int_equal(refused(s, SONDE_SPLIT_ALL, give_up, &err), SONDE_E_DIFFERS);
    assert_string_equal(err.msg, "enough");
    sonde_source_close(s);
}

static void what_cannot_be_scored_is_refused(void **state)
{
    sonde_err err;
    (void)state;
    sonde_source *s =
        open_model_source(model, corpus, &(sonde_source_options){.hook = RESID, .filter.first = 9});
    assert_int_equal(refused(s, SONDE_SPLIT_ALL, keep_it, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "next token"));
    sonde_source_close(s);
    s = open_model_source(model, corpus,
                          &(sonde_source_options){.hook = RESID, .hook_out = "blocks.0.hook_resid_pre"});
    assert_int_equal(refused(s, SONDE_SPLIT_ALL, keep_it, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "before"));
    sonde_source_close(s);
    sonde_model *both = open_model("tl_bidirectional", NULL);
    sonde_corpus *c = make_corpus(lengths, N_DOCS, 8, false, both->arch.n_vocab_out);
    s = open_model_source(both, c, &(sonde_source_options){.hook = "blocks.0.hook_resid_post"});
    assert_int_equal(refused(s, SONDE_SPLIT_ALL, keep_it, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "bidirectional"));
    sonde_source_close(s);
    drop_corpus(c);
    sonde_model_close(both);
}

static void a_limit_of_memory_is_kept(void **state)
{
    sonde_source *s =
        open_model_source(model, corpus, &(sonde_source_options){.hook = RESID, .filter.first = 1});
    sonde_budget budget = {.limit = 1 << 16};
    const sonde_work work = {.budget = &budget};
    struct widths w = {model->arch.d_model, model->arch.d_model};
    const sonde_replacement r = {"it", keep_it, &w};
    sonde_splice_base base;
    sonde_splice_score score;
    sonde_err err = {0};
    (void)state;
    assert_int_equal(
        sonde_splice(s, &(sonde_splice_options){.split = SONDE_SPLIT_ALL}, &r, 1, &work, &base, &score, &err),
        SONDE_E_MEMORY);
    assert_int_equal(budget.taken, 0);
    sonde_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_those_of_single_passes_in_double),
        cmocka_unit_test(other_splits_and_excluded_positions_stay_clean),
        cmocka_unit_test(rows_of_outlying_norm_stay_clean),
        cmocka_unit_test(a_transcoder_reads_one_hook_and_writes_another),
        cmocka_unit_test(heads_are_replaced_as_one_row),
        cmocka_unit_test(what_changes_nothing_costs_nothing),
        cmocka_unit_test(threads_and_batches_change_no_bit),
        cmocka_unit_test(max_tokens_ends_after_the_context_that_reaches_it),
        cmocka_unit_test(a_mean_that_is_given_is_used),
        cmocka_unit_test(a_loss_that_is_not_finite_is_named),
        cmocka_unit_test(what_cannot_be_scored_is_refused),
        cmocka_unit_test(a_limit_of_memory_is_kept),
    };
    return cmocka_run_group_tests_name("sae_splice", tests, open_one, close_one);
}
