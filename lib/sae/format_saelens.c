/* SPDX-License-Identifier: MIT
 * SAELens' directory, read: version 6, the flat configs of 3 to 5, and training checkpoints. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../file/json.h"
#include "format_saelens_impl.h"

#define LAYER_NORM_EPS 1e-5f /* fixed in SAELens */

static bool probe(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (sonde_dict_is_dir(path))
        return sonde_dict_has(path, SONDE_SAELENS_WEIGHTS);
    return !strcmp(name, SONDE_SAELENS_WEIGHTS) && sonde_dict_is_file(path);
}

/* The names of the files, for messages. */
struct place {
    char *dir, *cfg, *weights;
};

static enum sonde_code find_place(const char *path, struct place *p, sonde_err *err)
{
    enum sonde_code rc = sonde_dict_dir_of(path, &p->dir, err);
    if (!rc)
        rc = sonde_dict_join(p->dir, SONDE_SAELENS_CFG, &p->cfg, err);
    if (!rc)
        rc = sonde_dict_join(p->dir, SONDE_SAELENS_WEIGHTS, &p->weights, err);
    if (!rc && !sonde_dict_has(p->dir, SONDE_SAELENS_CFG))
        rc = sonde_fail(err, SONDE_E_INPUT,
                        "%s: is not there; it is written last, so this directory is unfinished", p->cfg);
    return rc;
}

static void free_place(struct place *p)
{
    free(p->dir);
    free(p->cfg);
    free(p->weights);
}

/* The shapes: what the file says, or what the tensors have. */
static enum sonde_code find_shapes(const sonde_tensors *f, const char *path, sonde_saelens_cfg *c,
                                   sonde_err *err)
{
    size_t d_in, d_sae, rows, d_out;
    const sonde_tensor *t;
    enum sonde_code rc = sonde_dict_matrix(f, path, "W_enc", &d_in, &d_sae, err);
    if (!rc)
        rc = sonde_dict_matrix(f, path, "W_dec", &rows, &d_out, err);
    if (rc)
        return rc;
    c->d_in = c->d_in ? c->d_in : d_in;
    c->d_sae = c->d_sae ? c->d_sae : d_sae;
    c->d_out = c->d_out ? c->d_out : c->arch->transcoder ? d_out : c->d_in;
    rc = sonde_dict_find(f, path, "W_enc", 2, c->d_in, c->d_sae, &t, err);
    if (!rc)
        rc = sonde_dict_find(f, path, "W_dec", 2, c->d_sae, c->d_out, &t, err);
    if (!rc && c->arch->skip)
        rc = sonde_dict_find(f, path, "W_skip", 2, c->d_out, c->d_in, &t, err);
    return rc;
}

/* A scalar for all latents, one number each, or its logarithm (older checkpoints). */
static enum sonde_code read_threshold(const sonde_tensors *f, const char *path, const sonde_saelens_cfg *c,
                                      sonde_dict *d, sonde_err *err)
{
    if (c->arch->batch && !sonde_tensors_find(f, "threshold")) {
        double all;
        enum sonde_code rc = sonde_dict_read_scalar(f, path, "topk_threshold", &all, err);
        for (size_t i = 0; i < d->n_latents && !rc; i++)
            d->threshold[i] = (float)all;
        return rc;
    }
    bool log = sonde_tensors_find(f, "log_threshold") && !sonde_tensors_find(f, "threshold");
    enum sonde_code rc =
        sonde_dict_read_vector(f, path, log ? "log_threshold" : "threshold", d->n_latents, d->threshold, err);
    for (size_t i = 0; i < d->n_latents && !rc && log; i++)
        d->threshold[i] = (float)exp((double)d->threshold[i]);
    return rc;
}

static enum sonde_code read_arrays(const sonde_tensors *f, const char *path, const sonde_saelens_cfg *c,
                                   sonde_dict *d, sonde_err *err)
{
    bool gated = d->act == SONDE_DICT_GATED;
    size_t n = d->n_latents;
    enum sonde_code rc = sonde_dict_read_transposed(f, path, "W_enc", d->d_in, n, d->w_enc, err);
    if (!rc)
        rc = sonde_dict_read_matrix(f, path, "W_dec", n, d->d_out, d->w_dec, err);
    if (!rc)
        rc = sonde_dict_read_vector(f, path, gated ? "b_gate" : "b_enc", n, d->b_enc, err);
    if (!rc)
        rc = sonde_dict_read_vector(f, path, "b_dec", d->d_out, d->b_dec, err);
    if (!rc && gated)
        rc = sonde_dict_read_vector(f, path, "r_mag", n, d->r_mag, err);
    if (!rc && gated)
        rc = sonde_dict_read_vector(f, path, "b_mag", n, d->b_mag, err);
    if (!rc && d->w_skip)
        rc = sonde_dict_read_matrix(f, path, "W_skip", d->d_out, d->d_in, d->w_skip, err);
    if (!rc && d->act == SONDE_DICT_JUMPRELU)
        rc = read_threshold(f, path, c, d, err);
    return rc;
}

/* ---- what is folded on the way in ---------------------------------------------------------------- */

/* A factor per latent between encoder and decoder goes into the decoder's rows. */
static enum sonde_code fold_finetuning(const sonde_tensors *f, const char *path, const sonde_saelens_cfg *c,
                                       sonde_dict *d, char note[SONDE_DICT_NOTE], sonde_err *err)
{
    const char *name =
        sonde_tensors_find(f, "scaling_factor") ? "scaling_factor" : "finetuning_scaling_factor";
    if (!sonde_tensors_find(f, name))
        return SONDE_OK;
    float *factor = calloc(d->n_latents, sizeof *factor);
    if (!factor)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for %zu factors", path, d->n_latents);
    enum sonde_code rc = sonde_dict_read_vector(f, path, name, d->n_latents, factor, err);
    bool all_one = true;
    for (size_t i = 0; i < d->n_latents && !rc; i++)
        all_one = all_one && factor[i] == 1.0f;
    if (!rc && !all_one && !c->finetuned)
        rc = sonde_fail(err, SONDE_E_INPUT,
                        "%s: tensor '%s' is not all 1, but finetuning_scaling_factor is not set", path, name);
    if (!rc && !all_one) {
        for (size_t i = 0; i < d->n_latents * d->d_out; i++)
            d->w_dec[i] *= factor[i / d->d_out];
        sonde_dict_note(note, "finetuning factors were folded into the decoder");
    }
    free(factor);
    return rc;
}

/* Latents are z times the norm of their decoder row: the encoder takes the norm. A latent whose row is zero
 * is zero itself. */
static enum sonde_code fold_norms(sonde_dict *d, char note[SONDE_DICT_NOTE], sonde_err *err)
{
    for (size_t i = 0; i < d->n_latents; i++) {
        const float *row = d->w_dec + i * d->d_out;
        size_t c = 0;
        while (c < d->d_out && row[c] == 0)
            c++;
        if (c == d->d_out) {
            memset(d->w_enc + i * d->d_in, 0, d->d_in * sizeof *d->w_enc);
            d->b_enc[i] = 0;
        }
    }
    /* the threshold is in units of the product already */
    float *threshold = d->threshold;
    d->threshold = NULL;
    enum sonde_code rc = sonde_dict_unit_decoder(d, true, err);
    d->threshold = threshold;
    sonde_dict_note(note, "decoder norms were folded into the encoder");
    return rc;
}

static enum sonde_code read_scale(const struct place *p, const sonde_dict *d, double *out, sonde_err *err)
{
    json_t *root = NULL;
    double scale = 0;
    const double none = 0;
    enum sonde_code rc = SONDE_OK;
    if (sonde_dict_has(p->dir, SONDE_SAELENS_SCALER))
        rc = sonde_json_load_in(p->dir, SONDE_SAELENS_SCALER, SONDE_DICT_MAX_CFG, &root, err);
    if (!rc && root)
        rc = sonde_json_double(root, "scaling_factor", 1e-30, 1e30, &none, SONDE_SAELENS_SCALER, &scale, err);
    if (rc && root)
        sonde_err_wrap(err, "%s: ", p->dir);
    json_decref(root);
    if (!rc && scale == 0)
        rc = sonde_fail(
            err, SONDE_E_INPUT,
            "%s: expects inputs scaled to a mean norm of %.4g (expected_average_only_in), and the "
            "scale is not there; write {\"scaling_factor\": %.4g / mean norm} into " SONDE_SAELENS_SCALER
            " beside it",
            p->cfg, sqrt((double)d->d_in), sqrt((double)d->d_in));
    *out = scale;
    return rc;
}

/* Inputs and outputs times s. As SAELens folds it: latents stay, the decoder is divided; where norms were
 * folded before, rows stay and latents are divided. */
static enum sonde_code fold_scale(const struct place *p, const sonde_saelens_cfg *c, sonde_dict *d,
                                  char note[SONDE_DICT_NOTE], sonde_err *err)
{
    double s;
    enum sonde_code rc = read_scale(p, d, &s, err);
    if (rc)
        return rc;
    sonde_dict_note(note, "the input scale %.6g was folded into the weights", s);
    if (c->rescaled)
        return sonde_dict_fold_scale(d, NULL, s, NULL, s, err);
    for (size_t i = 0; i < d->n_latents * d->d_in; i++)
        d->w_enc[i] = (float)((double)d->w_enc[i] * s);
    for (size_t i = 0; i < d->n_latents * d->d_out; i++)
        d->w_dec[i] = (float)((double)d->w_dec[i] / s);
    for (size_t i = 0; i < d->d_out; i++)
        d->b_dec[i] = (float)((double)d->b_dec[i] / s);
    return SONDE_OK;
}

/* ---- the whole ----------------------------------------------------------------------------------- */

static enum sonde_code read_sparsity(const struct place *p, sonde_budget *budget, sonde_dict *d,
                                     sonde_err *err)
{
    sonde_tensors *f;
    char *path;
    if (!sonde_dict_has(p->dir, SONDE_SAELENS_SPARSITY))
        return SONDE_OK;
    enum sonde_code rc = sonde_dict_open_tensors(p->dir, SONDE_SAELENS_SPARSITY, budget, &f, err);
    if (rc)
        return rc;
    rc = sonde_dict_join(p->dir, SONDE_SAELENS_SPARSITY, &path, err);
    if (!rc) {
        float *sparsity = sonde_arena_get(d->arena, d->n_latents, sizeof *sparsity, err);
        rc = sparsity ? sonde_dict_read_vector(f, path, "sparsity", d->n_latents, sparsity, err)
                      : SONDE_E_MEMORY;
        d->sparsity = sparsity;
        free(path);
    }
    sonde_tensors_close(f);
    return rc;
}

static enum sonde_code build(const struct place *p, const sonde_tensors *f, sonde_saelens_cfg *c,
                             sonde_budget *budget, char note[SONDE_DICT_NOTE], sonde_dict **out,
                             sonde_err *err)
{
    sonde_dict *d = NULL;
    enum sonde_code rc = find_shapes(f, p->weights, c, err);
    if (!rc)
        rc = sonde_dict_new(c->arch->act, c->d_in, c->d_out, c->d_sae, c->arch->skip, budget, &d, err);
    if (rc)
        return rc;
    d->k = c->k;
    d->pre_bias = c->pre_bias;
    d->norm = c->norm;
    d->norm_unbiased = c->norm == SONDE_DICT_NORM_LAYER;
    d->norm_eps = c->norm == SONDE_DICT_NORM_LAYER ? LAYER_NORM_EPS : 0;
    json_decref(d->meta);
    d->meta = json_incref(c->meta);
    rc = sonde_dict_text(d, c->trained_as, &d->trained_as, err);
    if (!rc)
        rc = read_arrays(f, p->weights, c, d, err);
    if (!rc)
        rc = fold_finetuning(f, p->weights, c, d, note, err);
    if (!rc && c->rescaled)
        rc = fold_norms(d, note, err);
    if (!rc && c->expects_scale)
        rc = fold_scale(p, c, d, note, err);
    if (!rc)
        rc = read_sparsity(p, budget, d, err);
    if (rc)
        sonde_dict_free(d);
    else
        *out = d;
    return rc;
}

static enum sonde_code read(const char *path, sonde_budget *budget, sonde_dict **out,
                            char note[SONDE_DICT_NOTE], sonde_err *err)
{
    struct place p = {0};
    json_t *root = NULL;
    sonde_tensors *f = NULL;
    sonde_saelens_cfg c = {.meta = json_object()};
    enum sonde_code rc = find_place(path, &p, err);
    if (!rc && !c.meta)
        rc = sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for its metadata", path);
    if (!rc)
        rc = sonde_json_load_in(p.dir, SONDE_SAELENS_CFG, SONDE_DICT_MAX_CFG, &root, err);
    if (!rc)
        rc = sonde_saelens_config(root, p.cfg, &c, err);
    if (!rc)
        rc = sonde_dict_open_tensors(p.dir, SONDE_SAELENS_WEIGHTS, budget, &f, err);
    if (!rc)
        rc = build(&p, f, &c, budget, note, out, err);
    sonde_tensors_close(f);
    json_decref(root);
    json_decref(c.meta);
    free_place(&p);
    return rc;
}

const sonde_dict_format sonde_format_saelens = {
    "saelens", "SAELens: a directory with cfg.json and sae_weights.safetensors", probe, read,
    sonde_saelens_write};
