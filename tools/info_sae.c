/* SPDX-License-Identifier: MIT
 * Description of a dictionary: a sparse autoencoder or transcoder, in any format that sonde reads. */
#include <math.h>
#include <string.h>

#include "info.h"
#include "sae/dict_file.h"

static const char *const norm_names[SONDE_N_DICT_NORMS] = {
    [SONDE_DICT_NORM_NONE] = "none",
    [SONDE_DICT_NORM_CONSTANT] = "constant_norm_rescale",
    [SONDE_DICT_NORM_LAYER] = "layer_norm",
};

static int put(json_t *out, const char *key, json_t *v)
{
    return json_object_set_new(out, key, v);
}

static int put_int(json_t *out, const char *key, size_t v)
{
    return put(out, key, json_integer((json_int_t)v));
}

struct range {
    double least, mean, most;
};

static void take(struct range *r, double x, size_t n)
{
    r->least = fmin(r->least, x);
    r->most = fmax(r->most, x);
    r->mean += x / (double)n;
}

static int put_range(json_t *out, const char *key, const struct range *r)
{
    return put(out, key, json_pack("{s:f,s:f,s:f}", "min", r->least, "mean", r->mean, "max", r->most));
}

static const struct range nothing = {INFINITY, 0, -INFINITY};

static int put_norms(json_t *out, const char *key, const float *x, size_t n_rows, size_t n)
{
    struct range r = nothing;
    for (size_t i = 0; i < n_rows; i++) {
        double sum = 0;
        for (size_t c = 0; c < n; c++)
            sum += (double)x[i * n + c] * (double)x[i * n + c];
        take(&r, sqrt(sum), n_rows);
    }
    return put_range(out, key, &r);
}

static int put_thresholds(json_t *out, const sonde_dict *d)
{
    struct range r = nothing;
    if (!d->threshold)
        return 0;
    for (size_t i = 0; i < d->n_latents; i++)
        take(&r, (double)d->threshold[i], d->n_latents);
    return put_range(out, "threshold", &r);
}

/* From log10(frequency + 1e-10) of each latent. */
static int put_sparsity(json_t *out, const sonde_dict *d)
{
    double l0 = 0;
    size_t n_dead = 0;
    if (!d->sparsity)
        return 0;
    for (size_t i = 0; i < d->n_latents; i++) {
        double frequency = pow(10, (double)d->sparsity[i]) - 1e-10;
        l0 += fmax(frequency, 0);
        n_dead += frequency < 1e-11;
    }
    return put(out, "l0", json_real(l0)) | put_int(out, "dead_features", n_dead);
}

static size_t n_parameters(const sonde_dict *d)
{
    size_t f = d->n_latents;
    return f * d->d_in + f * d->d_out + f + d->d_out + (d->threshold ? f : 0) + (d->r_mag ? 2 * f : 0) +
           (d->w_skip ? d->d_in * d->d_out : 0);
}

int info_put_dict(json_t *out, const sonde_dict *d)
{
    int bad = put(out, "activation", json_string(sonde_dict_act_name(d->act)));
    bad |= put_int(out, "n_latents", d->n_latents) | put_int(out, "d_in", d->d_in) |
           put_int(out, "d_out", d->d_out);
    if (d->act == SONDE_DICT_TOPK || d->act == SONDE_DICT_GROUPMAX)
        bad |= put_int(out, "k", d->k);
    bad |= put_int(out, "n_parameters", n_parameters(d));
    bad |= put(out, "subtracts_b_dec", json_boolean(d->pre_bias));
    bad |= put(out, "skip_connection", json_boolean(d->w_skip != NULL));
    bad |= put(out, "normalize_activations", json_string(norm_names[d->norm]));
    if (d->trained_as)
        bad |= put(out, "trained_as", info_string(d->trained_as, strlen(d->trained_as)));
    bad |= put_thresholds(out, d);
    bad |= put_norms(out, "encoder_norm", d->w_enc, d->n_latents, d->d_in);
    bad |= put_norms(out, "decoder_norm", d->w_dec, d->n_latents, d->d_out);
    bad |= put_sparsity(out, d);
    return bad | (json_object_size(d->meta) ? put(out, "metadata", json_deep_copy(d->meta)) : 0);
}

static enum sonde_code describe(struct tool *t, const struct info_options *o, const struct info_glance *g,
                                json_t *out, sonde_err *err)
{
    sonde_dict *d;
    char note[400], hex[65];
    enum sonde_code rc = sonde_dict_load(g->path, NULL, t->budget, &d, note, err);
    if (rc)
        return rc;
    int bad = put(out, "file_format", json_string(d->format)) | info_put_dict(out, d);
    if (note[0])
        bad |= put(out, "note", info_string(note, strlen(note)));
    if (!o->no_hash)
        rc = sonde_dict_identity(d, hex, err);
    if (!rc && !o->no_hash)
        bad |= put(out, "identity", json_string(hex));
    sonde_dict_free(d);
    return rc    ? rc
           : bad ? sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to describe it", g->path)
                 : SONDE_OK;
}

static bool is_sae(const struct info_glance *g)
{
    return sonde_dict_probe(g->path) != NULL;
}

const struct info_kind info_sae = {"SAE", is_sae, describe};
