/* SPDX-License-Identifier: MIT
 * sonde eval --truth: the dictionary against the directions that made the data. */
#include <inttypes.h>

#include "eval.h"
#include "sae/truth.h"

static void put_match(struct eval *e, const sonde_truth_info *about, const sonde_match *m)
{
    eval_put_count(e, "n_true", m->n_true);
    eval_put(e, "mmcs", m->mmcs);
    if (about->frequency)
        eval_put(e, "mmcs_weighted", m->mmcs_weighted);
    eval_put(e, "recall_at_0.9", m->recall_at_0_9);
    eval_put(e, "mcc", m->mcc);
    eval_put(e, "uniqueness", m->uniqueness);
    if (!e->o->latents)
        return;
    json_t *best = json_array(), *which = json_array(), *pair = json_array();
    for (size_t j = 0; j < m->n_latents; j++) {
        json_array_append_new(best, json_real((double)m->latent_cosine[j]));
        json_array_append_new(which, json_integer((json_int_t)m->latent_truth[j]));
        json_array_append_new(pair,
                              m->pair[j] == UINT32_MAX ? json_null() : json_integer((json_int_t)m->pair[j]));
    }
    eval_put_value(e, "latent_truth_cosine", best);
    eval_put_value(e, "latent_truth", which);
    eval_put_value(e, "latent_truth_matched", pair);
}

static void put_detection(struct eval *e, const sonde_match *m, const sonde_detection *d)
{
    eval_put(e, "true_l0", d->true_l0);
    eval_put(e, "f1", d->f1);
    eval_put(e, "precision", d->precision);
    eval_put(e, "recall", d->recall);
    eval_put(e, "accuracy", d->accuracy);
    eval_put(e, "f1_matched", d->f1_matched);
    if (!e->o->latents)
        return;
    json_t *f1 = json_array();
    for (size_t j = 0; j < m->n_latents; j++)
        json_array_append_new(f1, json_real(d->f1_of[j]));
    eval_put_value(e, "latent_f1", f1);
}

/* Which latents were active can be compared where the rows are those of the truth's file. */
static enum sonde_code compare_rows(struct eval *e, sonde_truth *t, const sonde_match *m, sonde_err *err)
{
    const sonde_truth_info about = sonde_truth_about(t);
    const uint64_t n_rows = sonde_source_about(e->in.source)->n_rows;
    sonde_detection *d;
    if (!about.has_rows)
        return SONDE_OK;
    if (n_rows != about.n_rows) {
        tool_note(e->t, "%s is about %" PRIu64 " rows, these are %" PRIu64 ": no F1", e->o->truth,
                  about.n_rows, n_rows);
        return SONDE_OK;
    }
    enum sonde_code code = sonde_truth_detect(t, m, e->in.dict, e->in.encoder, e->in.source, e->in.split,
                                              e->in.max_rows, e->in.work, &d, err);
    if (code)
        return code;
    put_detection(e, m, d);
    sonde_detection_free(d);
    return SONDE_OK;
}

enum sonde_code eval_truth(struct eval *e, sonde_err *err)
{
    const sonde_dict *d = e->in.dict;
    sonde_truth *t;
    sonde_match *m;
    if (!e->o->truth)
        return SONDE_OK;
    enum sonde_code code = sonde_truth_open(e->o->truth, e->t->budget, &t, err);
    if (code)
        return code;
    if (!(code =
              sonde_truth_match(t, d->w_dec, d->n_latents, d->d_out, e->in.kernels, e->in.work, &m, err))) {
        const sonde_truth_info about = sonde_truth_about(t);
        put_match(e, &about, m);
        code = compare_rows(e, t, m, err);
        sonde_match_free(m);
    }
    sonde_truth_close(t);
    return code;
}
