/* SPDX-License-Identifier: MIT
 * Weight processing changes the weights and what the residual stream is, never what the model predicts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "model/weights_impl.h"
#include "model_fixture.h"

#define TOLERANCE 1e-5 /* times max(1, max|reference|), float32 rounding of about a hundred steps */

enum {
    FOLD = SONDE_FOLD_LN,
    WRITING = SONDE_CENTER_WRITING,
    UNEMBED = SONDE_CENTER_UNEMBED,
    VALUES = SONDE_FOLD_VALUE_BIASES
};

static sonde_model *open_with(const char *name, unsigned processing)
{
    struct fixture f;
    fixture_load(&f, name);
    sonde_model *m = fixture_must_open(&f, processing);
    fixture_free(&f);
    return m;
}

/* x := log softmax of each row, in double. */
static void log_probabilities(const float *x, size_t rows, size_t v, double *out)
{
    for (size_t r = 0; r < rows; r++) {
        double most = -INFINITY, sum = 0;
        for (size_t j = 0; j < v; j++)
            most = fmax(most, (double)x[r * v + j]);
        for (size_t j = 0; j < v; j++)
            sum += exp((double)x[r * v + j] - most);
        for (size_t j = 0; j < v; j++)
            out[r * v + j] = (double)x[r * v + j] - most - log(sum);
    }
}

static double *log_probabilities_of(const sonde_model *m)
{
    size_t rows = length_for(m), v = m->arch.n_vocab_out;
    float *x = plain_logits(m, 2);
    double *out = malloc(rows * v * sizeof *out);
    log_probabilities(x, rows, v, out);
    free(x);
    return out;
}

/* Of a from b, as a part of max(1, max|b|). */
static double worst_difference(const double *a, const double *b, size_t n)
{
    double worst = 0, most = 1;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, isnan(a[i] - b[i]) ? INFINITY : fabs(a[i] - b[i]));
        most = fmax(most, fabs(b[i]));
    }
    return worst / most;
}

/* ---- what the model predicts ---------------------------------------- */

static const struct {
    const char *model;
    unsigned bits[6];
} allowed[] = {
    {"gpt2", {FOLD, WRITING, UNEMBED, VALUES, FOLD | WRITING, FOLD | WRITING | UNEMBED | VALUES}},
    {"gpt2_untied", {FOLD, WRITING, UNEMBED, VALUES, FOLD | VALUES, FOLD | WRITING | UNEMBED | VALUES}},
    {"gpt2_inverse_layer", {FOLD, WRITING, UNEMBED, VALUES, 0, FOLD | WRITING | UNEMBED | VALUES}},
    {"gpt_neo", {FOLD, WRITING, UNEMBED, VALUES, 0, FOLD | WRITING | UNEMBED | VALUES}},
    {"gpt_neox", {FOLD, WRITING, UNEMBED, VALUES, 0, FOLD | WRITING | UNEMBED | VALUES}},
    {"gpt_neox_serial", {FOLD, WRITING, UNEMBED, VALUES, 0, FOLD | WRITING | UNEMBED | VALUES}},
    {"tl_solu", {FOLD, WRITING, UNEMBED, VALUES, 0, FOLD | WRITING | UNEMBED | VALUES}},
    {"tl_attn_only", {FOLD, WRITING, UNEMBED, VALUES, 0, FOLD | WRITING | UNEMBED | VALUES}},
    {"tl_bidirectional", {FOLD, WRITING, UNEMBED, VALUES, 0, FOLD | WRITING | UNEMBED | VALUES}},
    {"tl_pre", {FOLD, WRITING, UNEMBED, VALUES, 0, FOLD | WRITING | UNEMBED | VALUES}},
    {"tl_gelu", {FOLD, UNEMBED, VALUES, FOLD | UNEMBED | VALUES}},
    {"tl_shortformer", {FOLD, UNEMBED, VALUES, FOLD | UNEMBED | VALUES}},
    {"llama", {FOLD, UNEMBED, VALUES, FOLD | UNEMBED | VALUES}},
    {"llama_bias", {FOLD, UNEMBED, VALUES, FOLD | UNEMBED | VALUES}},
    {"mistral", {FOLD, UNEMBED, VALUES, FOLD | UNEMBED | VALUES}},
    {"qwen2", {FOLD, UNEMBED, VALUES, FOLD | UNEMBED | VALUES}},
    {"qwen3", {FOLD, UNEMBED, VALUES, FOLD | UNEMBED | VALUES}},
    {"gemma", {FOLD, UNEMBED, VALUES, FOLD | UNEMBED | VALUES}},
    {"gemma2", {FOLD, VALUES, FOLD | VALUES}},
    {"gemma3", {FOLD, UNEMBED, VALUES, FOLD | UNEMBED | VALUES}},
};

static void log_probabilities_stay(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        sonde_model *plain = open_with(allowed[i].model, 0);
        size_t n = length_for(plain) * plain->arch.n_vocab_out;
        double *want = log_probabilities_of(plain);
        for (size_t k = 0; k < 6; k++) {
            char text[128];
            if (!allowed[i].bits[k])
                continue;
            sonde_model *m = open_with(allowed[i].model, allowed[i].bits[k]);
            double *have = log_probabilities_of(m), worst = worst_difference(have, want, n);
            if (worst > TOLERANCE)
                fail_msg("%s with %s: log-probabilities differ by %g", allowed[i].model,
                         sonde_processing_text(m->processing, text, sizeof text), worst);
            free(have);
            sonde_model_close(m);
        }
        free(want);
        sonde_model_close(plain);
    }
}

/* ---- where it is refused ---------------------------------------- */

static void is_refused(struct fixture *f, unsigned processing, const char *says)
{
    const sonde_model_options o = {.processing = processing};
    sonde_budget budget = {.limit = 64u << 20};
    sonde_model *m;
    sonde_err err;
    enum sonde_code code = fixture_open(f, &o, &budget, &m, &err);
    if (code != SONDE_E_USAGE || !strstr(err.msg, says))
        fail_msg("%s: code %d, message '%s'", f->name, (int)code, err.msg);
    assert_int_equal(budget.taken, 0);
}

static void what_would_change_predictions_is_refused_by_name(void **state)
{
    static const struct {
        const char *model;
        unsigned bit;
        const char *says;
    } rows[] = {
        {"llama", WRITING, "center_writing_weights needs LayerNorm; the family 'llama' has none"},
        {"gemma3", WRITING, "center_writing_weights needs LayerNorm; the family 'gemma3_text' has none"},
        {"tl_shortformer", WRITING, "center_writing_weights needs LayerNorm"},
        {"tl_gelu", WRITING, "center_writing_weights needs LayerNorm"}, /* its final norm is an RMSNorm */
        {"gemma2", UNEMBED, "center_unembed would change capped logits (cap 5)"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fixture f;
        fixture_load(&f, rows[i].model);
        is_refused(&f, rows[i].bit, rows[i].says);
        is_refused(&f, rows[i].bit | VALUES, rows[i].says);
        fixture_free(&f);
    }
}

/* Positions that are added behind the norm are not scaled by it, and are no part of the residual stream. */
static void shortformer_with_a_norm(void **state)
{
    (void)state;
    struct fixture f;
    fixture_load(&f, "tl_attn_only");
    json_object_set_new(f.config, "positional_embedding_type", json_string("shortformer"));
    is_refused(&f, FOLD, "fold_ln would change the positions");
    sonde_model *plain = fixture_must_open(&f, 0), *m = fixture_must_open(&f, WRITING | UNEMBED | VALUES);
    double *want = log_probabilities_of(plain), *have = log_probabilities_of(m);
    assert_true(worst_difference(have, want, length_for(m) * m->arch.n_vocab_out) < TOLERANCE);
    free(want);
    free(have);
    sonde_model_close(plain);
    sonde_model_close(m);
    fixture_free(&f);
}

/* ---- what it does ---------------------------------------- */

struct seen {
    double worst_mean, worst_norm; /* |mean| of a row; |x| of an element */
    double sum;
};

static enum sonde_code look(void *arg, const sonde_view *v, sonde_err *err)
{
    struct seen *s = arg;
    (void)err;
    for (size_t r = 0; r < v->n_rows; r++) {
        double mean = 0;
        for (size_t i = 0; i < v->width; i++) {
            double x = (double)v->data[r * v->stride + i];
            mean += x / (double)v->width;
            s->worst_norm = fmax(s->worst_norm, fabs(x));
            s->sum += x * (double)(1 + (r * 31 + i * 17) % 101);
        }
        s->worst_mean = fmax(s->worst_mean, fabs(mean));
    }
    return SONDE_OK;
}

static struct seen seen_at(const sonde_model *m, sonde_hook h)
{
    struct seen s = {0};
    sonde_err err = {0};
    sonde_run *run = new_run(m);
    assert_int_equal(sonde_run_hook(run, h, false, look, &s, &err), SONDE_OK);
    free(logits_of(run, m, 2));
    sonde_run_free(run);
    return s;
}

static void everything_written_to_the_residual_stream_has_mean_0(void **state)
{
    static const char *const models[] = {"gpt2",    "gpt_neo",      "gpt_neox",        "gpt_neox_serial",
                                         "tl_solu", "tl_attn_only", "tl_bidirectional"};
    static const enum sonde_site sites[] = {SONDE_SITE_EMBED,     SONDE_SITE_POS_EMBED, SONDE_SITE_RESID_PRE,
                                            SONDE_SITE_ATTN_OUT,  SONDE_SITE_RESID_MID, SONDE_SITE_MLP_OUT,
                                            SONDE_SITE_RESID_POST};
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        sonde_model *m = open_with(models[i], WRITING), *plain = open_with(models[i], 0);
        for (size_t s = 0; s < sizeof sites / sizeof *sites; s++)
            for (size_t l = 0; l < (sonde_site_in_block(sites[s]) ? m->arch.n_layers : 1); l++) {
                if (sonde_site_absent(&m->arch, sites[s]))
                    continue;
                struct seen now = seen_at(m, (sonde_hook){sites[s], l}),
                            was = seen_at(plain, (sonde_hook){sites[s], l});
                if (now.worst_mean > 1e-6 * fmax(1, now.worst_norm) || was.worst_mean < 1e-3)
                    fail_msg("%s: site %d of layer %zu has mean %g, %g before", models[i], (int)sites[s], l,
                             now.worst_mean, was.worst_mean);
            }
        sonde_model_close(m);
        sonde_model_close(plain);
    }
}

static void folding_the_norm_leaves_the_residual_stream_and_the_normalized_values(void **state)
{
    static const char *const models[] = {"gpt2", "gpt_neox", "llama", "gemma3", "qwen3", "tl_solu"};
    static const enum sonde_site sites[] = {SONDE_SITE_RESID_PRE,      SONDE_SITE_LN1_SCALE,
                                            SONDE_SITE_LN1_NORMALIZED, SONDE_SITE_Q,
                                            SONDE_SITE_MLP_PRE,        SONDE_SITE_LN_FINAL_NORMALIZED};
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        sonde_model *m = open_with(models[i], FOLD), *plain = open_with(models[i], 0);
        assert_null(m->layer[0].ln1.gamma);
        assert_null(m->layer[0].ln2.gamma);
        assert_null(m->ln_final.gamma);
        assert_non_null(plain->layer[0].ln1.gamma);
        for (size_t s = 0; s < sizeof sites / sizeof *sites; s++) {
            sonde_hook h = {sites[s], sonde_site_in_block(sites[s]) ? m->arch.n_layers - 1 : 0};
            struct seen now = seen_at(m, h), was = seen_at(plain, h);
            if (fabs(now.sum - was.sum) > 1e-2 * fmax(1, was.worst_norm))
                fail_msg("%s: site %d is %g, was %g", models[i], (int)sites[s], now.sum, was.sum);
        }
        sonde_model_close(m);
        sonde_model_close(plain);
    }
}

static void centred_logits_have_mean_0(void **state)
{
    static const char *const models[] = {"gpt2", "gpt_neox", "llama", "gemma", "tl_bidirectional"};
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        sonde_model *m = open_with(models[i], UNEMBED | FOLD);
        struct seen s = seen_at(m, (sonde_hook){SONDE_SITE_LOGITS, 0});
        if (s.worst_mean > 2e-6 * fmax(1, s.worst_norm))
            fail_msg("%s: logits have mean %g", models[i], s.worst_mean);
        sonde_model_close(m);
    }
}

static void folded_value_biases_are_0_and_reappear_in_the_output(void **state)
{
    static const char *const models[] = {"gpt2", "gpt_neox", "llama_bias", "qwen2", "tl_solu"};
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        sonde_model *m = open_with(models[i], VALUES), *plain = open_with(models[i], 0);
        const sonde_arch *a = &m->arch;
        size_t v0 = (a->n_heads + a->n_kv_heads) * a->d_head;
        double before = 0;
        for (size_t j = v0; j < m->layer[0].qkv.n; j++) {
            assert_true(m->layer[0].qkv_bias[j] == 0);
            before += fabs((double)plain->layer[0].qkv_bias[j]);
        }
        assert_true(before > 0);
        struct seen now = seen_at(m, (sonde_hook){SONDE_SITE_ATTN_OUT, 0}),
                    was = seen_at(plain, (sonde_hook){SONDE_SITE_ATTN_OUT, 0});
        assert_true(fabs(now.sum - was.sum) < 1e-2 * fmax(1, was.worst_norm));
        sonde_model_close(m);
        sonde_model_close(plain);
    }
}

static void processing_twice_changes_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        for (size_t k = 0; k < 6; k++) {
            if (!allowed[i].bits[k])
                continue;
            sonde_err err = {0};
            sonde_model *m = open_with(allowed[i].model, allowed[i].bits[k]);
            double *once = log_probabilities_of(m);
            assert_int_equal(weights_process(m, &err), SONDE_OK);
            assert_int_equal(weights_process_unembed(m, &err), SONDE_OK);
            double *twice = log_probabilities_of(m);
            double worst = worst_difference(twice, once, length_for(m) * m->arch.n_vocab_out);
            if (worst > TOLERANCE)
                fail_msg("%s with bits %u: a second time changes log-probabilities by %g", allowed[i].model,
                         allowed[i].bits[k], worst);
            free(once);
            free(twice);
            sonde_model_close(m);
        }
}

/* ---- names ---------------------------------------- */

static void names_are_printed_and_parsed(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 16; bits++) {
        char text[128];
        unsigned back = 99;
        sonde_processing_text(bits, text, sizeof text);
        assert_int_equal(sonde_processing_parse(text, &back, NULL), SONDE_OK);
        assert_int_equal(back, bits);
    }
    char text[128];
    unsigned bits;
    assert_string_equal(sonde_processing_text(0, text, sizeof text), "none");
    assert_string_equal(sonde_processing_text(15, text, sizeof text),
                        "fold_ln,center_writing_weights,center_unembed,fold_value_biases");
    assert_int_equal(sonde_processing_parse("center_unembed,fold_ln", &bits, NULL), SONDE_OK);
    assert_int_equal(bits, FOLD | UNEMBED);
}

static void unknown_names_list_the_known(void **state)
{
    static const char *const wrong[] = {"fold",         "fold_lnx", "FOLD_LN", "fold_ln,,center_unembed",
                                        "none,fold_ln", " fold_ln"};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        unsigned bits = 7;
        sonde_err err = {0};
        assert_int_equal(sonde_processing_parse(wrong[i], &bits, &err), SONDE_E_USAGE);
        assert_int_equal(bits, 7);
        assert_non_null(strstr(
            err.msg, "(none, fold_ln, center_writing_weights, center_unembed, fold_value_biases are)"));
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_probabilities_stay),
        cmocka_unit_test(what_would_change_predictions_is_refused_by_name),
        cmocka_unit_test(shortformer_with_a_norm),
        cmocka_unit_test(everything_written_to_the_residual_stream_has_mean_0),
        cmocka_unit_test(folding_the_norm_leaves_the_residual_stream_and_the_normalized_values),
        cmocka_unit_test(centred_logits_have_mean_0),
        cmocka_unit_test(folded_value_biases_are_0_and_reappear_in_the_output),
        cmocka_unit_test(processing_twice_changes_nothing),
        cmocka_unit_test(names_are_printed_and_parsed),
        cmocka_unit_test(unknown_names_list_the_known),
    };
    return cmocka_run_group_tests_name("model_processing", tests, NULL, NULL);
}
