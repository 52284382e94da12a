/* SPDX-License-Identifier: MIT
 * Hooks that write: what follows is computed from what was written, and nothing else changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model_edits.h"

/* ---- attention, by identities ---------------------------------------- */

static void a_head_without_z_is_an_output_without_its_result(void **state)
{
    static const char *const names[] = {"gpt2", "gpt_neox", "llama", "mistral", "tl_attn_only"};
    (void)state;
    for (size_t g = 0; g < sizeof names / sizeof *names; g++) {
        use(names[g]);
        const size_t rows = length_for(model), d = model->arch.d_model, H = model->arch.n_heads;
        struct reading result = read_at(RESULT, 1), out = read_at(ATTN_OUT, 1);
        double *want = malloc(rows * d * sizeof *want);
        for (size_t h = 0; h < H; h++) {
            const struct edit e = {Z, 1, scale, (int)h, 0, NULL};
            struct reading now = read_with(&e, 1, ATTN_OUT, 1);
            for (size_t i = 0; i < rows * d; i++)
                want[i] = (double)out.x[i] - (double)result.x[(i / d * H + h) * d + i % d];
            assert_close(now.x, want, rows * d, "attn_out without a head");
            free(now.x);
        }
        free(want);
        free(result.x);
        free(out.x);
    }
}

static void results_and_the_bias_sum_to_the_output(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt2", "gpt_neox", "llama", "tl_shortformer"};
    for (size_t g = 0; g < sizeof names / sizeof *names; g++) {
        use(names[g]);
        const size_t rows = length_for(model), d = model->arch.d_model, H = model->arch.n_heads;
        struct reading result = read_at(RESULT, 0);
        const struct edit doubled = {RESULT, 0, scale, 1, 2, NULL};
        struct reading out = read_at(ATTN_OUT, 0), now = read_with(&doubled, 1, ATTN_OUT, 0);
        double *sum = calloc(rows * d, sizeof *sum), *more = calloc(rows * d, sizeof *more);
        for (size_t i = 0; i < rows * d; i++) {
            for (size_t h = 0; h < H; h++)
                sum[i] += (double)result.x[(i / d * H + h) * d + i % d];
            sum[i] += model->layer[0].o_bias ? (double)model->layer[0].o_bias[i % d] : 0;
            more[i] = sum[i] + (double)result.x[(i / d * H + 1) * d + i % d];
        }
        assert_close(out.x, sum, rows * d, "sum of results");
        assert_close(now.x, more, rows * d, "one result doubled");
        free(sum);
        free(more);
        free(result.x);
        free(out.x);
        free(now.x);
    }
}

static void a_head_without_pattern_is_a_head_without_z(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_MODELS; g++) {
        model = opened[g];
        for (size_t h = 0; h < model->arch.n_heads; h++) {
            const struct edit no_pattern = {PATTERN, 1, scale, (int)h, 0, NULL},
                              no_z = {Z, 1, scale, (int)h, 0, NULL};
            float *a = pass(1, &no_pattern, 1, NULL, 0), *b = pass(1, &no_z, 1, NULL, 0),
                  *plain = pass(1, NULL, 0, NULL, 0);
            assert_same(a, b, n_logits(), "zero pattern against zero z");
            assert_true(memcmp(a, plain, n_logits() * sizeof *a));
            free(a);
            free(b);
            free(plain);
        }
    }
}

/* ---- attention, recomputed ---------------------------------------- */

struct attention {
    size_t rows, H, Hk, dh;
    double scale;
    struct reading q, k, v, scores, pattern, z;
};

/* One pass of a model under an edit, with everything that attention sees. q and k: as they are dotted. */
static struct attention attention_under(const struct edit *e, size_t layer)
{
    const sonde_arch *a = &model->arch;
    bool rotary = a->positions == SONDE_POS_ROPE;
    struct reading r[6] = {{rotary ? SONDE_SITE_ROT_Q : Q, layer, NULL, 0},
                           {rotary ? SONDE_SITE_ROT_K : K, layer, NULL, 0},
                           {V, layer, NULL, 0},
                           {SCORES, layer, NULL, 0},
                           {PATTERN, layer, NULL, 0},
                           {Z, layer, NULL, 0}};
    free(pass(1, e, 1, r, 6));
    return (struct attention){length_for(model),
                              a->n_heads,
                              a->n_kv_heads,
                              a->d_head,
                              (double)sonde_arch_attn_scale(a, layer),
                              r[0],
                              r[1],
                              r[2],
                              r[3],
                              r[4],
                              r[5]};
}

static void attention_free(struct attention *a)
{
    free(a->q.x);
    free(a->k.x);
    free(a->v.x);
    free(a->scores.x);
    free(a->pattern.x);
    free(a->z.x);
}

static void scores_follow_from_q_and_k(const struct attention *a, const char *what)
{
    double *want = malloc(a->H * a->rows * a->rows * sizeof *want);
    float *have = malloc(a->H * a->rows * a->rows * sizeof *have);
    size_t n = 0;
    for (size_t h = 0; h < a->H; h++)
        for (size_t i = 0; i < a->rows; i++)
            for (size_t j = 0; j < a->rows; j++) {
                float s = a->scores.x[(h * a->rows + i) * a->rows + j];
                double dot = 0;
                for (size_t e = 0; e < a->dh; e++)
                    dot += (double)a->q.x[(i * a->H + h) * a->dh + e] *
                           (double)a->k.x[(j * a->Hk + h / (a->H / a->Hk)) * a->dh + e];
                if (isinf(s)) /* masked */
                    continue;
                want[n] = dot * a->scale;
                have[n++] = s;
            }
    assert_true(n >= a->H * a->rows);
    assert_close(have, want, n, what);
    free(want);
    free(have);
}

static void pattern_follows_from_scores(const struct attention *a, const char *what)
{
    size_t n = a->rows;
    double *want = malloc(a->H * n * n * sizeof *want);
    for (size_t r = 0; r < a->H * n; r++) {
        double most = -INFINITY, sum = 0;
        for (size_t j = 0; j < n; j++)
            most = fmax(most, (double)a->scores.x[r * n + j]);
        for (size_t j = 0; j < n; j++)
            sum += want[r * n + j] = exp((double)a->scores.x[r * n + j] - most);
        for (size_t j = 0; j < n; j++)
            want[r * n + j] /= sum;
    }
    assert_close(a->pattern.x, want, a->H * n * n, what);
    free(want);
}

static void z_follows_from_pattern_and_v(const struct attention *a, const char *what)
{
    size_t n = a->rows;
    double *want = calloc(n * a->H * a->dh, sizeof *want);
    for (size_t h = 0; h < a->H; h++)
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++)
                for (size_t e = 0; e < a->dh; e++)
                    want[(i * a->H + h) * a->dh + e] +=
                        (double)a->pattern.x[(h * n + i) * n + j] *
                        (double)a->v.x[(j * a->Hk + h / (a->H / a->Hk)) * a->dh + e];
    assert_close(a->z.x, want, n * a->H * a->dh, what);
    free(want);
}

static void attention_is_computed_from_what_was_written(void **state)
{
    static const char *const names[] = {"gpt2",    "gpt_neo", "gpt_neox", "llama",
                                        "mistral", "qwen3",   "gemma3",   "tl_attn_only"};
    static const int sites[] = {
        Q, K, V, SONDE_SITE_ROT_Q, SONDE_SITE_ROT_K, SCORES, PATTERN, SONDE_SITE_Q_NORM_NORMALIZED};
    (void)state;
    for (size_t g = 0; g < sizeof names / sizeof *names; g++) {
        use(names[g]);
        for (size_t s = 0; s < sizeof sites / sizeof *sites; s++) {
            const struct edit e = {sites[s], 1, bend, -1, 0, NULL};
            if (sonde_site_absent(&model->arch, (enum sonde_site)sites[s]))
                continue;
            struct attention a = attention_under(&e, 1);
            if (sites[s] != SCORES)
                scores_follow_from_q_and_k(&a, "scores");
            if (sites[s] != PATTERN)
                pattern_follows_from_scores(&a, "pattern");
            z_follows_from_pattern_and_v(&a, "z");
            attention_free(&a);
        }
    }
}

/* A query may be shown keys that it would not see. */
static enum sonde_code unmask(void *arg, const sonde_view *v, sonde_err *err)
{
    (void)arg, (void)err;
    for (size_t i = 0; i < v->n_heads * v->n_rows * v->n_keys; i++)
        if (isinf(v->data[i]))
            v->data[i] = 0.5f;
    return SONDE_OK;
}

static void scores_above_the_diagonal_may_be_written(void **state)
{
    static const char *const names[] = {"gpt2", "llama", "mistral", "llama3"};
    (void)state;
    for (size_t g = 0; g < sizeof names / sizeof *names; g++) {
        use(names[g]);
        run_length = g == 3 ? MAX_LENGTH_RUN : 12; /* more than one block of queries */
        struct attention a = {
            length_for(model), model->arch.n_heads,  model->arch.n_kv_heads, model->arch.d_head, 1, {0}, {0},
            {V, 0, NULL, 0},   {SCORES, 0, NULL, 0}, {PATTERN, 0, NULL, 0},  {Z, 0, NULL, 0}};
        sonde_run *run = new_run(model);
        sonde_err err = {0};
        assert_int_equal(
            sonde_run_hook(run, (sonde_hook){SONDE_SITE_ATTN_SCORES, 0}, true, unmask, NULL, &err), SONDE_OK);
        hook_all(run, NULL, 0, &a.v, 1);
        hook_all(run, NULL, 0, &a.scores, 1);
        hook_all(run, NULL, 0, &a.pattern, 1);
        hook_all(run, NULL, 0, &a.z, 1);
        free(logits_of(run, model, 1));
        pattern_follows_from_scores(&a, "pattern");
        z_follows_from_pattern_and_v(&a, "z");
        assert_true(a.pattern.x[a.rows - 1] > 0);
        run_length = 12;
        sonde_run_free(run);
        attention_free(&a);
    }
}

/* ---- inputs of single heads ---------------------------------------- */

/* Writing head h's copy gives that head what writing the residual stream itself would give it; all else
 * stays. */
static void input_changes_one_head(int input, int output, size_t heads, size_t h)
{
    const struct edit one = {input, 1, bend, (int)h, 0, NULL}, whole = {RESID_PRE, 1, bend, -1, 0, NULL};
    struct reading plain = read_at(output, 1), now = read_with(&one, 1, output, 1),
                   all = read_with(&whole, 1, output, 1);
    size_t n = now.n / heads;
    for (size_t k = 0; k < heads; k++) {
        float *have = head_of(&now, heads, k), *want = head_of(k == h ? &all : &plain, heads, k),
              *was = head_of(&plain, heads, k);
        assert_same(have, want, n, k == h ? "the head whose input was written" : "another head");
        assert_true(k != h || memcmp(have, was, n * sizeof *have));
        free(have);
        free(want);
        free(was);
    }
    free(plain.x);
    free(now.x);
    free(all.x);
}

static void stays(int input, int output, size_t h)
{
    const struct edit one = {input, 1, bend, (int)h, 0, NULL};
    struct reading plain = read_at(output, 1), now = read_with(&one, 1, output, 1);
    assert_same(now.x, plain.x, plain.n, "what another input feeds");
    free(plain.x);
    free(now.x);
}

static void the_input_of_a_head_changes_only_that_head(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_MODELS; g++) {
        model = opened[g];
        const size_t H = model->arch.n_heads, Hk = model->arch.n_kv_heads;
        input_changes_one_head(SONDE_SITE_Q_INPUT, Q, H, H - 1);
        input_changes_one_head(SONDE_SITE_K_INPUT, K, Hk, 0);
        input_changes_one_head(SONDE_SITE_V_INPUT, V, Hk, Hk - 1);
        stays(SONDE_SITE_Q_INPUT, K, 0);
        stays(SONDE_SITE_K_INPUT, V, 0);
        stays(SONDE_SITE_V_INPUT, Q, 0);
        stays(SONDE_SITE_Q_INPUT, SONDE_SITE_RESID_PRE, 0);
        if (H != Hk)
            continue;
        input_changes_one_head(SONDE_SITE_ATTN_IN, Q, H, 1);
        input_changes_one_head(SONDE_SITE_ATTN_IN, K, H, 1);
        input_changes_one_head(SONDE_SITE_ATTN_IN, V, H, 1);
    }
}

static void the_input_of_the_mlp_changes_only_the_mlp(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_MODELS; g++) {
        model = opened[g];
        if (!model->arch.d_mlp)
            continue;
        const struct edit in = {SONDE_SITE_MLP_IN, 0, bend, -1, 0, NULL};
        const struct edit mid = {model->arch.parallel ? RESID_PRE : RESID_MID, 0, bend, -1, 0, NULL};
        struct reading now = read_with(&in, 1, MLP_OUT, 0), want = read_with(&mid, 1, MLP_OUT, 0);
        assert_same(now.x, want.x, now.n, "mlp_out of a written mlp_in");
        struct reading r[4] = {
            {RESID_PRE, 0, NULL, 0}, {ATTN_OUT, 0, NULL, 0}, {MLP_OUT, 0, NULL, 0}, {RESID_POST, 0, NULL, 0}};
        free(pass(1, &in, 1, r, 4));
        for (size_t i = 0; i < r[3].n; i++)
            assert_true(r[3].x[i] == (r[0].x[i] + r[1].x[i]) + r[2].x[i]);
        for (int i = 0; i < 4; i++)
            free(r[i].x);
        free(now.x);
        free(want.x);
    }
}

/* ---- norms, MLP, ends ---------------------------------------- */

static void a_doubled_scale_is_halved_normalized_values(void **state)
{
    static const int sites[] = {SONDE_SITE_LN1_SCALE,      SONDE_SITE_LN2_SCALE,
                                SONDE_SITE_LN1_POST_SCALE, SONDE_SITE_LN2_POST_SCALE,
                                SONDE_SITE_MLP_LN_SCALE,   SONDE_SITE_Q_NORM_SCALE,
                                SONDE_SITE_K_NORM_SCALE,   SONDE_SITE_LN_FINAL_SCALE};
    (void)state;
    for (size_t g = 0; g < N_MODELS; g++) {
        model = opened[g];
        for (size_t s = 0; s < sizeof sites / sizeof *sites; s++) {
            size_t layer = sonde_site_in_block((enum sonde_site)sites[s]) ? 1 : 0;
            const struct edit doubled = {sites[s], layer, scale, -1, 2, NULL},
                              halved = {sites[s] + 1, layer, scale, -1, 0.5f, NULL};
            if (sonde_site_absent(&model->arch, (enum sonde_site)sites[s]))
                continue;
            float *a = pass(1, &doubled, 1, NULL, 0), *b = pass(1, &halved, 1, NULL, 0),
                  *plain = pass(1, NULL, 0, NULL, 0);
            assert_same(a, b, n_logits(), "twice the scale against half the normalized values");
            assert_true(memcmp(a, plain, n_logits() * sizeof *a));
            free(a);
            free(b);
            free(plain);
        }
    }
}

static double act_of(enum sonde_act act, double x)
{
    switch (act) {
    case SONDE_ACT_RELU:
        return x > 0 ? x : 0;
    case SONDE_ACT_GELU_ERF:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case SONDE_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case SONDE_ACT_SILU:
        return x / (1 + exp(-x));
    default:
        return NAN;
    }
}

static void post_follows_from_pre(const struct edit *e)
{
    const sonde_arch *a = &model->arch;
    struct reading pre = read_with(e, 1, SONDE_SITE_MLP_PRE, 1), up = {0},
                   post = read_with(e, 1, SONDE_SITE_MLP_POST, 1);
    if (a->gated)
        up = read_with(e, 1, SONDE_SITE_MLP_PRE_LINEAR, 1);
    double *want = malloc(pre.n * sizeof *want);
    for (size_t i = 0; i < pre.n; i++)
        want[i] = act_of(a->act, (double)pre.x[i]) * (a->gated ? (double)up.x[i] : 1);
    assert_close(post.x, want, post.n, "post of a written pre");
    free(want);
    free(pre.x);
    free(up.x);
    free(post.x);
}

static void output_follows_from_post(const struct edit *e)
{
    const sonde_arch *a = &model->arch;
    const sonde_layer *y = &model->layer[1];
    size_t rows = length_for(model), d = a->d_model, m = a->d_mlp;
    struct reading post = read_with(e, 1, SONDE_SITE_MLP_POST, 1), out = read_with(e, 1, MLP_OUT, 1);
    double *want = calloc(rows * d, sizeof *want);
    float *column = malloc(m * sizeof *column);
    for (size_t j = 0; j < d; j++) {
        sonde_unpack_column(&y->out, j, column);
        for (size_t i = 0; i < rows; i++) {
            want[i * d + j] = y->out_bias ? (double)y->out_bias[j] : 0;
            for (size_t k = 0; k < m; k++)
                want[i * d + j] += (double)post.x[i * m + k] * (double)column[k];
        }
    }
    assert_close(out.x, want, rows * d, "mlp_out of a written post");
    free(want);
    free(column);
    free(post.x);
    free(out.x);
}

static void the_mlp_is_computed_from_what_was_written(void **state)
{
    static const char *const names[] = {"gpt2", "gpt_neo", "gpt_neox", "llama", "qwen3", "gemma3", "tl_gelu"};
    (void)state;
    for (size_t g = 0; g < sizeof names / sizeof *names; g++) {
        use(names[g]);
        const struct edit pre = {SONDE_SITE_MLP_PRE, 1, bend, -1, 0, NULL},
                          up = {SONDE_SITE_MLP_PRE_LINEAR, 1, bend, -1, 0, NULL},
                          post = {SONDE_SITE_MLP_POST, 1, bend, -1, 0, NULL};
        post_follows_from_pre(&pre);
        if (model->arch.gated)
            post_follows_from_pre(&up);
        if (!model->arch.post_norms)
            output_follows_from_post(&post);
    }
}

static void what_is_written_is_what_is_added(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_MODELS; g++) {
        model = opened[g];
        if (!model->arch.d_mlp || model->arch.parallel)
            continue;
        const struct edit e[2] = {{ATTN_OUT, 1, bend, -1, 0, NULL}, {MLP_OUT, 1, bend, -1, 0, NULL}};
        struct reading r[5] = {{RESID_PRE, 1, NULL, 0},
                               {ATTN_OUT, 1, NULL, 0},
                               {RESID_MID, 1, NULL, 0},
                               {MLP_OUT, 1, NULL, 0},
                               {RESID_POST, 1, NULL, 0}};
        free(pass(1, e, 2, r, 5));
        for (size_t i = 0; i < r[0].n; i++)
            assert_true(r[2].x[i] == r[0].x[i] + r[1].x[i] && r[4].x[i] == r[2].x[i] + r[3].x[i]);
        for (int i = 0; i < 5; i++)
            free(r[i].x);
    }
}

static void written_logits_are_handed_on_under_the_cap(void **state)
{
    (void)state;
    for (size_t g = 0; g < N_MODELS; g++) {
        model = opened[g];
        const struct edit e = {SONDE_SITE_LOGITS, 0, bend, -1, 0, NULL};
        struct reading plain = read_at(SONDE_SITE_LOGITS, 0);
        float *x = pass(1, &e, 1, NULL, 0);
        double *want = malloc(n_logits() * sizeof *want), cap = (double)model->arch.final_softcap;
        for (size_t i = 0; i < n_logits(); i++) {
            size_t v = model->arch.n_vocab_out, row = i / v;
            want[i] = 1.25 * (double)plain.x[i] + 0.0625 * ((double)((row * 7 + i % v * 3) % 11) - 5);
            want[i] = cap > 0 ? cap * tanh(want[i] / cap) : want[i];
        }
        assert_close(x, want, n_logits(), "logits");
        free(want);
        free(x);
        free(plain.x);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_without_z_is_an_output_without_its_result),
        cmocka_unit_test(results_and_the_bias_sum_to_the_output),
        cmocka_unit_test(a_head_without_pattern_is_a_head_without_z),
        cmocka_unit_test(attention_is_computed_from_what_was_written),
        cmocka_unit_test(scores_above_the_diagonal_may_be_written),
        cmocka_unit_test(the_input_of_a_head_changes_only_that_head),
        cmocka_unit_test(the_input_of_the_mlp_changes_only_the_mlp),
        cmocka_unit_test(a_doubled_scale_is_halved_normalized_values),
        cmocka_unit_test(the_mlp_is_computed_from_what_was_written),
        cmocka_unit_test(what_is_written_is_what_is_added),
        cmocka_unit_test(written_logits_are_handed_on_under_the_cap),
    };
    return cmocka_run_group_tests_name("model_writes", tests, open_all, close_all);
}
