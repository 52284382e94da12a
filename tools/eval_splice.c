/* SPDX-License-Identifier: MIT
 * sonde eval: what the model loses when the dictionary, and each baseline, stands in for its activations. */
#include <math.h>

#include "eval.h"
#include "sae/splice.h"

static void put_scores(struct eval *e, const sonde_splice_base *b, const sonde_splice_score *sae)
{
    eval_put_count(e, "n_tokens", b->n_tokens);
    eval_put(e, "ce_loss_without_sae", b->ce_loss_clean);
    eval_put(e, "ce_loss_with_sae", sae->ce_loss);
    eval_put(e, "ce_loss_with_ablation", b->zero.ce_loss);
    eval_put(e, "ce_loss_with_mean_ablation", b->mean.ce_loss);
    eval_put_text(e, "mean_ablation", b->mean_of_train ? "mean of the train split" : "mean of these rows");
    eval_put(e, "ce_delta", sae->ce_delta);
    eval_put(e, "ce_loss_score", sae->ce_loss_score);
    eval_put(e, "ce_loss_score_mean", sae->ce_loss_score_mean);
    eval_put(e, "kl_div_with_sae", sae->kl_div);
    eval_put(e, "kl_div_with_ablation", b->zero.kl_div);
    eval_put(e, "kl_div_score", sae->kl_div_score);
}

enum sonde_code eval_splice(struct eval *e, sonde_err *err)
{
    const struct eval_options *o = e->o;
    struct dict_rows *in = &e->in;
    const sonde_model *m = sonde_source_model_of(in->source);
    if (!m || !o->splice_tokens)
        return SONDE_OK;
    if (m->arch.bidirectional && o->splice_tokens == OPTION_WORD) {
        tool_note(e->t, "a bidirectional model predicts no next token: there are no losses");
        return SONDE_OK;
    }
    sonde_replace_encoder sae = {in->encoder, in->dict->d_in, in->dict->d_out, {.budget = e->t->budget}};
    sonde_replacement all[1 + EVAL_MAX_BASELINES] = {{"the dictionary", sonde_replace_by_encoder, &sae}};
    sonde_splice_score score[1 + EVAL_MAX_BASELINES];
    sonde_splice_base base;
    const sonde_splice_options options = {
        .split = in->split,
        .max_tokens = o->splice_tokens == OPTION_WORD ? in->max_rows : o->splice_tokens,
        .mean = e->baselines.mean,
        .mean_of_train = e->baselines.of_train,
    };
    for (size_t i = 0; i < e->n_baselines; i++)
        all[1 + i] = e->baseline[i].replace;
    enum sonde_code code =
        sonde_splice(in->source, &options, all, 1 + e->n_baselines, in->work, &base, score, err);
    sonde_sparse_free(&sae.f);
    if (code)
        return code;
    put_scores(e, &base, &score[0]);
    for (size_t i = 0; i < e->n_baselines; i++)
        eval_put_baseline_scores(e, i, &score[1 + i]);
    return SONDE_OK;
}
