/* SPDX-License-Identifier: MIT
 * SAELens' directory, written: version 6. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../file/safetensors.h"
#include "format_saelens_impl.h"

#define VERSION                                                                                              \
    "6.18.0" /* of the layout: what metadata.sae_lens_version says where nothing better is known */

/* Which of its architectures holds d. What has equal widths and no skip connection is computed alike whether
 * it reconstructs or predicts; it is called a transcoder where SAELens has one for it and its rules (no b_dec
 * subtracted, no norm) allow. */
static const sonde_saelens_arch *arch_of(const sonde_dict *d)
{
    bool skip = d->w_skip != NULL, must = skip || d->d_in != d->d_out;
    bool may = (d->act == SONDE_DICT_RELU || d->act == SONDE_DICT_JUMPRELU) && !d->pre_bias &&
               d->norm == SONDE_DICT_NORM_NONE;
    bool transcoder = must || (may && sonde_dict_is_transcoder(d));
    const sonde_saelens_arch *a = sonde_saelens_archs;
    while (a->act != d->act || a->transcoder != transcoder || a->skip != skip || a->batch)
        a++; /* every combination has its row */
    return a;
}

bool sonde_dict_in_saelens(const sonde_dict *d)
{
    return arch_of(d)->sae_lens;
}

static const char *const norm_names[SONDE_N_DICT_NORMS] = {
    [SONDE_DICT_NORM_NONE] = "none",
    [SONDE_DICT_NORM_CONSTANT] = "constant_norm_rescale",
    [SONDE_DICT_NORM_LAYER] = "layer_norm",
};

/* ---- cfg.json ------------------------------------------------------------------------------------ */

static json_t *metadata(const sonde_dict *d)
{
    json_t *meta = json_deep_copy(d->meta);
    if (!meta)
        return NULL;
    json_object_del(meta, "reshape_activations");
    int bad = 0;
    if (!sonde_saelens_is_version_6(json_string_value(json_object_get(meta, "sae_lens_version"))))
        bad |= json_object_set_new(meta, "sae_lens_version", json_string(SONDE_SAELENS_VERSION));
    if (d->trained_as)
        bad |= json_object_set_new(meta, "training_architecture", json_string(d->trained_as));
    if (!bad)
        return meta;
    json_decref(meta);
    return NULL;
}

static json_t *config(const sonde_dict *d, const sonde_saelens_arch *a)
{
    const char *reshape = json_string_value(json_object_get(d->meta, "reshape_activations"));
    json_t *cfg = json_object();
    int bad = cfg == NULL;
    bad |= json_object_set_new(cfg, "architecture", json_string(a->name));
    bad |= json_object_set_new(cfg, "d_in", json_integer((json_int_t)d->d_in));
    bad |= json_object_set_new(cfg, "d_sae", json_integer((json_int_t)d->n_latents));
    bad |= json_object_set_new(cfg, "dtype", json_string("float32"));
    bad |= json_object_set_new(cfg, "device", json_string("cpu"));
    bad |= json_object_set_new(cfg, "apply_b_dec_to_input", json_boolean(d->pre_bias));
    bad |= json_object_set_new(cfg, "normalize_activations", json_string(norm_names[d->norm]));
    bad |= json_object_set_new(cfg, "reshape_activations", json_string(reshape ? reshape : "none"));
    bad |= json_object_set_new(cfg, "metadata", metadata(d));
    if (a->transcoder)
        bad |= json_object_set_new(cfg, "d_out", json_integer((json_int_t)d->d_out));
    if (d->act == SONDE_DICT_TOPK || d->act == SONDE_DICT_GROUPMAX)
        bad |= json_object_set_new(cfg, "k", json_integer((json_int_t)d->k));
    if (d->act == SONDE_DICT_TOPK)
        bad |= json_object_set_new(cfg, "rescale_acts_by_decoder_norm", json_false());
    if (!bad)
        return cfg;
    json_decref(cfg);
    return NULL;
}

/* ---- tensors ------------------------------------------------------------------------------------- */

static enum sonde_code write_weights(const sonde_dict *d, const char *path, bool overwrite, sonde_err *err)
{
    bool gated = d->act == SONDE_DICT_GATED;
    sonde_tensor t[8];
    size_t n = 0;
    float *w_enc;
    enum sonde_code rc = sonde_dict_transpose(d->w_enc, d->n_latents, d->d_in, &w_enc, err);
    if (rc)
        return rc;
    t[n++] = sonde_dict_tensor("W_dec", d->w_dec, d->n_latents, d->d_out);
    t[n++] = sonde_dict_tensor("W_enc", w_enc, d->d_in, d->n_latents);
    if (d->w_skip)
        t[n++] = sonde_dict_tensor("W_skip", d->w_skip, d->d_out, d->d_in);
    t[n++] = sonde_dict_tensor("b_dec", d->b_dec, d->d_out, 0);
    t[n++] = sonde_dict_tensor(gated ? "b_gate" : "b_enc", d->b_enc, d->n_latents, 0);
    if (gated) {
        t[n++] = sonde_dict_tensor("b_mag", d->b_mag, d->n_latents, 0);
        t[n++] = sonde_dict_tensor("r_mag", d->r_mag, d->n_latents, 0);
    }
    if (d->act == SONDE_DICT_JUMPRELU)
        t[n++] = sonde_dict_tensor("threshold", d->threshold, d->n_latents, 0);
    rc = sonde_safetensors_write(path, t, n, NULL, 0, overwrite, err);
    free(w_enc);
    return rc;
}

static enum sonde_code write_sparsity(const sonde_dict *d, const char *path, bool overwrite, sonde_err *err)
{
    if (d->sparsity) {
        sonde_tensor t = sonde_dict_tensor("sparsity", d->sparsity, d->n_latents, 0);
        return sonde_safetensors_write(path, &t, 1, NULL, 0, overwrite, err);
    }
    if (overwrite && unlink(path) && errno != ENOENT) /* another dictionary's */
        return sonde_fail(err, SONDE_E_IO, "%s: cannot remove it: %s", path, strerror(errno));
    return SONDE_OK;
}

/* ---- changes of form that SAELens needs ---------------------------------------------------------- */

/* (x - mean) / (std + eps) with std over d into the same with std over d - 1, which is smaller by a constant.
 * eps moves by that factor too: 1e-5 / std / 2d, below float rounding unless a row is nearly constant. */
static enum sonde_code to_unbiased(sonde_dict *d, sonde_err *err)
{
    double c = sqrt((double)d->d_in / (double)(d->d_in - 1));
    enum sonde_code rc = sonde_dict_fold_scale(d, NULL, c, NULL, c, err);
    if (!rc)
        d->norm_unbiased = true;
    return rc;
}

static enum sonde_code check_norm(const sonde_dict *d, const char *path, bool transcoder, sonde_err *err)
{
    if (d->norm == SONDE_DICT_NORM_NONE)
        return SONDE_OK;
    if (transcoder)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: SAELens' transcoders do not normalise (%s); no format holds this", path,
                          norm_names[d->norm]);
    if (d->norm == SONDE_DICT_NORM_LAYER && fabs((double)d->norm_eps - 1e-5) > 1e-9)
        return sonde_fail(err, SONDE_E_USAGE, "%s: SAELens' layer_norm has an epsilon of 1e-5, this one %g",
                          path, (double)d->norm_eps);
    if (d->norm == SONDE_DICT_NORM_LAYER && d->d_in < 2)
        return sonde_fail(err, SONDE_E_USAGE, "%s: layer_norm of a single number has no meaning", path);
    return SONDE_OK;
}

static enum sonde_code write_files(const sonde_dict *d, const sonde_saelens_arch *a, const char *path,
                                   bool overwrite, sonde_err *err)
{
    static const char *const names[] = {SONDE_SAELENS_WEIGHTS, SONDE_SAELENS_SPARSITY, SONDE_SAELENS_CFG,
                                        NULL};
    char *file[3] = {0};
    enum sonde_code rc = sonde_dict_make_dir(path, names, overwrite, err);
    for (int i = 0; i < 3 && !rc; i++)
        rc = sonde_dict_join(path, names[i], &file[i], err);
    if (!rc)
        rc = write_weights(d, file[0], overwrite, err);
    if (!rc)
        rc = write_sparsity(d, file[1], overwrite, err);
    if (!rc)
        rc = sonde_dict_write_json(file[2], config(d, a), overwrite, err);
    for (int i = 0; i < 3; i++)
        free(file[i]);
    return rc;
}

enum sonde_code sonde_saelens_write(const sonde_dict *d, const char *path, bool overwrite, sonde_err *err)
{
    const sonde_saelens_arch *a = arch_of(d);
    sonde_dict *changed = NULL;
    bool unbias = d->norm == SONDE_DICT_NORM_LAYER && !d->norm_unbiased;
    bool unbind = a->transcoder && d->pre_bias;
    enum sonde_code rc = check_norm(d, path, a->transcoder, err);
    if (!rc && (unbias || unbind))
        rc = sonde_dict_copy(d, NULL, &changed, err);
    if (!rc && unbias)
        rc = to_unbiased(changed, err);
    if (!rc && unbind)
        rc = sonde_dict_set_pre_bias(changed, false, err);
    if (!rc)
        rc = write_files(changed ? changed : d, a, path, overwrite, err);
    sonde_dict_free(changed);
    return rc;
}
