/* SPDX-License-Identifier: MIT
 * sonde eval: the subject, the numbers of a pass over the data, the geometry of the dictionary. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"
#include "sae/dict_file.h"
#include "sae/geometry.h"

void eval_put_value(struct eval *e, const char *key, json_t *value)
{
    if (json_object_set_new(e->out, key, value)) {
        json_decref(e->out);
        e->out = NULL;
    }
}

void eval_put(struct eval *e, const char *key, double value)
{
    eval_put_value(e, key, isfinite(value) ? json_real(value) : json_null());
}

void eval_put_count(struct eval *e, const char *key, uint64_t value)
{
    eval_put_value(e, key, json_integer((json_int_t)value));
}

void eval_put_text(struct eval *e, const char *key, const char *value)
{
    if (!value)
        return;
    char *visible = tool_visible(value, strlen(value));
    eval_put_value(e, key, visible ? json_string(visible) : NULL);
    free(visible);
}

/* Arrays with a number for each latent. */
static void put_floats(struct eval *e, const char *key, const float *v, size_t n)
{
    json_t *list = v ? json_array() : NULL;
    for (size_t i = 0; list && i < n; i++)
        json_array_append_new(list, isfinite(v[i]) ? json_real((double)v[i]) : json_null());
    if (v)
        eval_put_value(e, key, list);
}

static void put_doubles(struct eval *e, const char *key, const double *v, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++)
        json_array_append_new(list, isfinite(v[i]) ? json_real(v[i]) : json_null());
    eval_put_value(e, key, list);
}

static void put_density(struct eval *e, const sonde_metrics *m)
{
    double edge[SONDE_DENSITY_BINS + 1];
    json_t *count = json_array();
    for (int i = 0; i <= SONDE_DENSITY_BINS; i++)
        edge[i] = sonde_density_edge(i);
    for (int i = 0; count && i < SONDE_DENSITY_BINS; i++)
        json_array_append_new(count, json_integer((json_int_t)m->density[i]));
    put_doubles(e, "density_log10_edges", edge, SONDE_DENSITY_BINS + 1);
    eval_put_value(e, "density_counts", count);
}

enum sonde_code eval_subject(struct eval *e, sonde_err *err)
{
    static const char *const splits[] = {"train", "heldout", "all"};
    const sonde_source_info *about = sonde_source_about(e->in.source);
    const sonde_dict *d = e->in.dict;
    char sha256[65];
    enum sonde_code code = sonde_dict_identity(d, sha256, err);
    if (code)
        return code;
    eval_put_text(e, "sae", e->t->operand[0]);
    eval_put_text(e, "sae_sha256", sha256);
    eval_put_text(e, "architecture", d->trained_as ? d->trained_as : sonde_dict_act_name(d->act));
    eval_put_text(e, "activation", sonde_dict_act_name(d->act));
    eval_put_count(e, "d_in", d->d_in);
    if (d->d_out != d->d_in || about->hook_out)
        eval_put_count(e, "d_out", d->d_out);
    eval_put_count(e, "n_latents", d->n_latents);
    eval_put_text(e, "hook", about->hook[0] ? about->hook : NULL);
    eval_put_text(e, "hook_out", about->hook_out);
    eval_put_text(e, "model", e->o->rows.source.model.model);
    eval_put_text(e, "dataset", dict_rows_path(e->t, &e->o->rows));
    if (about->has_tokens)
        eval_put_text(e, "exclude", e->in.exclude);
    eval_put_text(e, "split", splits[e->in.split]);
    return SONDE_OK;
}

enum sonde_code eval_metrics(struct eval *e, sonde_err *err)
{
    enum sonde_code code = sonde_metrics_measure(e->in.dict, e->in.encoder, e->in.source, e->in.split,
                                                 e->in.max_rows, e->in.work, &e->metrics, err);
    if (code)
        return code;
    const sonde_metrics *m = e->metrics;
    eval_put_count(e, "n_rows", m->n_rows);
    eval_put(e, "l0", m->l0);
    eval_put(e, "l1", m->l1);
    eval_put(e, "mse", m->mse);
    eval_put(e, "mse_per_element", m->mse_per_element);
    eval_put(e, "explained_variance", m->explained_variance);
    eval_put(e, "explained_variance_legacy", m->explained_variance_legacy);
    eval_put(e, "frac_variance_explained", m->frac_variance_explained);
    eval_put(e, "fvu", m->fvu);
    eval_put(e, "cossim", m->cossim);
    eval_put(e, "l2_norm_in", m->l2_norm_in);
    eval_put(e, "l2_norm_out", m->l2_norm_out);
    eval_put(e, "l2_ratio", m->l2_ratio);
    eval_put(e, "relative_reconstruction_bias", m->relative_reconstruction_bias);
    eval_put_count(e, "dead_features", m->dead_features);
    eval_put(e, "frac_alive", m->frac_alive);
    eval_put_count(e, "below_1e-5", m->below_1e_5);
    eval_put_count(e, "below_1e-6", m->below_1e_6);
    eval_put(e, "freq_over_1_percent", m->freq_over_1_percent);
    eval_put(e, "freq_over_10_percent", m->freq_over_10_percent);
    eval_put(e, "normalized_freq_over_1_percent", m->normalized_freq_over_1_percent);
    eval_put(e, "normalized_freq_over_10_percent", m->normalized_freq_over_10_percent);
    put_density(e, m);
    if (e->o->latents) {
        put_doubles(e, "latent_frequency", m->frequency, m->n_latents);
        put_doubles(e, "latent_mean", m->mean, m->n_latents);
        put_doubles(e, "latent_mean_nonzero", m->mean_nonzero, m->n_latents);
        put_floats(e, "latent_max", m->max, m->n_latents);
    }
    return SONDE_OK;
}

static void put_spread(struct eval *e, const char *mean, const char *min, const char *max, sonde_spread s)
{
    eval_put(e, mean, s.mean);
    eval_put(e, min, s.min);
    eval_put(e, max, s.max);
}

enum sonde_code eval_geometry(struct eval *e, sonde_err *err)
{
    sonde_geometry *g;
    enum sonde_code code = sonde_geometry_measure(e->in.dict, e->in.kernels, e->in.work, &g, err);
    if (code)
        return code;
    put_spread(e, "encoder_norm_mean", "encoder_norm_min", "encoder_norm_max", g->encoder);
    put_spread(e, "decoder_norm_mean", "decoder_norm_min", "decoder_norm_max", g->decoder);
    eval_put(e, "encoder_decoder_cosine_sim", g->encoder_decoder_cosine_sim);
    eval_put(e, "average_max_encoder_cosine_sim", g->average_max_encoder_cosine_sim);
    eval_put(e, "average_max_decoder_cosine_sim", g->average_max_decoder_cosine_sim);
    if (e->o->latents) {
        put_floats(e, "latent_encoder_norm", g->encoder_norm, g->n_latents);
        put_floats(e, "latent_decoder_norm", g->decoder_norm, g->n_latents);
        put_floats(e, "latent_encoder_decoder_cosine_sim", g->encoder_decoder_cosine, g->n_latents);
        put_floats(e, "latent_max_encoder_cosine_sim", g->max_encoder_cosine, g->n_latents);
        put_floats(e, "latent_max_decoder_cosine_sim", g->max_decoder_cosine, g->n_latents);
    }
    sonde_geometry_free(g);
    return SONDE_OK;
}
