/* SPDX-License-Identifier: MIT
 * sonde eval --baselines: PCA and the bigram table beside the dictionary, one object for each in the list
 * "baselines". */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "eval.h"

static void put_in(struct eval *e, json_t *row, const char *key, double value)
{
    if (json_object_set_new(row, key, isfinite(value) ? json_real(value) : json_null())) {
        json_decref(e->out);
        e->out = NULL;
    }
}

/* As many components as the dictionary has latents active at a time. */
static size_t components(const struct eval *e)
{
    const sonde_dict *d = e->in.dict;
    double k = d->act == SONDE_DICT_TOPK ? (double)d->k : round(e->metrics->l0);
    return k < 1 ? 1 : k > (double)d->d_in ? d->d_in : (size_t)k;
}

static void add(struct eval *e, const char *name, sonde_replace_fn fn, void *arg)
{
    e->baseline[e->n_baselines++].replace = (sonde_replacement){name, fn, arg};
}

static enum sonde_code fit(struct eval *e, size_t *k, sonde_err *err)
{
    enum sonde_code code = sonde_baselines_fit(
        e->in.source, &(sonde_baseline_options){.pca = true, .bigram = true}, e->in.work, &e->baselines, err);
    if (code)
        return code;
    *k = components(e);
    if (e->baselines.pca) {
        if ((code = sonde_pca_solve(e->baselines.pca, *k, err)))
            return code;
        add(e, "pca", sonde_replace_by_pca, e->baselines.pca);
    }
    if (e->baselines.bigram && sonde_bigram_about(e->baselines.bigram).n_pairs)
        add(e, "bigram", sonde_replace_by_bigram, e->baselines.bigram);
    return SONDE_OK;
}

static json_t *row_of(struct eval *e, size_t i, size_t k)
{
    const struct eval_baseline *b = &e->baseline[i];
    json_t *row = json_pack("{s:s, s:s}", "name", b->replace.name, "fitted_to",
                            e->baselines.of_train ? "train" : "all");
    if (!row)
        return NULL;
    bool is_pca = b->replace.arg == e->baselines.pca;
    put_in(e, row, "l0", is_pca ? (double)k : (double)NAN);
    if (!is_pca) {
        sonde_bigram_size size = sonde_bigram_about(e->baselines.bigram);
        json_object_set_new(row, "n_pairs", json_integer((json_int_t)size.n_pairs));
        json_object_set_new(row, "n_rows_refused", json_integer((json_int_t)size.n_refused));
    }
    put_in(e, row, "explained_variance", b->metrics->explained_variance);
    put_in(e, row, "mse", b->metrics->mse);
    return row;
}

enum sonde_code eval_baselines(struct eval *e, sonde_err *err)
{
    sonde_replacement replacement[EVAL_MAX_BASELINES];
    sonde_metrics *metrics[EVAL_MAX_BASELINES];
    size_t k = 0;
    if (!e->o->baselines)
        return SONDE_OK;
    enum sonde_code code = fit(e, &k, err);
    for (size_t i = 0; i < e->n_baselines; i++)
        replacement[i] = e->baseline[i].replace;
    if (code || (code = sonde_reconstruct(e->in.source, e->in.split, e->in.max_rows, e->metrics->mean_y,
                                          replacement, e->n_baselines, e->in.work, metrics, err)))
        return code;
    json_t *list = json_array();
    for (size_t i = 0; i < e->n_baselines; i++) {
        e->baseline[i].metrics = metrics[i];
        if (list && json_array_append_new(list, row_of(e, i, k)))
            json_decref(list), list = NULL;
    }
    eval_put_value(e, "baselines", list);
    return SONDE_OK;
}

void eval_put_baseline_scores(struct eval *e, size_t i, const sonde_splice_score *s)
{
    json_t *row = json_array_get(json_object_get(e->out, "baselines"), i);
    put_in(e, row, "ce_loss", s->ce_loss);
    put_in(e, row, "ce_delta", s->ce_delta);
    put_in(e, row, "ce_loss_score", s->ce_loss_score);
    put_in(e, row, "ce_loss_score_mean", s->ce_loss_score_mean);
    put_in(e, row, "kl_div", s->kl_div);
    put_in(e, row, "kl_div_score", s->kl_div_score);
}

void eval_baselines_close(struct eval *e)
{
    for (size_t i = 0; i < e->n_baselines; i++)
        sonde_metrics_free(e->baseline[i].metrics);
    sonde_baselines_free(&e->baselines);
}

/* ---- the table for people ---------------------------------------------------------------------- */

static const char *const columns[] = {"l0", "explained_variance", "ce_delta", "ce_loss_score",
                                      "ce_loss_score_mean"};
static const int decimals[] = {1, 4, 4, 4, 4};
#define N_COLUMNS (sizeof columns / sizeof *columns)

static void print_row(const char *name, const json_t *row, size_t n_columns)
{
    printf("  %-16s", name);
    for (size_t i = 0; i < n_columns; i++) {
        const json_t *v = json_object_get(row, columns[i]);
        if (json_is_number(v))
            printf("  %*.*f", (int)strlen(columns[i]) + 2, decimals[i], json_number_value(v));
        else
            printf("  %*s", (int)strlen(columns[i]) + 2, "-");
    }
    printf("\n");
}

void eval_print_baselines(const struct eval *e)
{
    const json_t *list = json_object_get(e->out, "baselines"), *row;
    size_t n_columns = json_object_get(e->out, "ce_delta") ? N_COLUMNS : 2, i;
    if (!list)
        return;
    printf("%-18s", "baselines");
    for (i = 0; i < n_columns; i++)
        printf("    %s", columns[i]);
    printf("\n");
    print_row("the dictionary", e->out, n_columns);
    json_array_foreach(list, i, row)
        print_row(json_string_value(json_object_get(row, "name")), row, n_columns);
}
