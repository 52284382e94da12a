/* SPDX-License-Identifier: MIT
 * sparsify (EleutherAI): a directory with cfg.json and sae.safetensors. encoder.weight, W_dec [F, d] both;
 * decoder.weight [d, F] in files of other tools that follow its loader. TopK and group-max only. */
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "../file/json.h"
#include "../file/safetensors.h"
#include "format_impl.h"

#define CFG     "cfg.json"
#define WEIGHTS "sae.safetensors"

static bool probe(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (sonde_dict_is_dir(path))
        return sonde_dict_has(path, WEIGHTS);
    return !strcmp(name, WEIGHTS) && sonde_dict_is_file(path);
}

struct config {
    enum sonde_dict_act act;
    size_t d_in, n_latents; /* n_latents 0: not said */
    size_t k;
    bool transcode, skip;
};

static enum sonde_code read_act(const json_t *root, const char *what, struct config *c, sonde_err *err)
{
    const char *name;
    bool is_signed = false;
    enum sonde_code rc = sonde_json_string(root, "activation", "topk", what, &name, err);
    if (!rc)
        rc = sonde_json_bool(root, "signed", false, what, &is_signed, err);
    if (rc)
        return rc;
    if (is_signed)
        return sonde_fail(err, SONDE_E_INPUT, "%s: topk of absolute values (\"signed\") is not read", what);
    if (!strcmp(name, "topk"))
        c->act = SONDE_DICT_TOPK;
    else if (!strcmp(name, "groupmax"))
        c->act = SONDE_DICT_GROUPMAX;
    else
        return sonde_fail(err, SONDE_E_INPUT, "%s: activation '%.40s' is not read; topk and groupmax are",
                          what, name);
    return SONDE_OK;
}

static enum sonde_code read_config(const json_t *root, const char *what, struct config *c, sonde_err *err)
{
    const int64_t none = 0, k_default = 32;
    int64_t d_in = 0, n = 0, factor = 0, k = 0;
    enum sonde_code rc = sonde_json_int(root, "d_in", 1, SONDE_DICT_MAX_SIZE, NULL, what, &d_in, err);
    if (!rc)
        rc = read_act(root, what, c, err);
    if (!rc)
        rc = sonde_json_int(root, "num_latents", 0, SONDE_DICT_MAX_SIZE, &none, what, &n, err);
    if (!rc)
        rc = sonde_json_int(root, "expansion_factor", 0, SONDE_DICT_MAX_SIZE, &none, what, &factor, err);
    if (!rc)
        rc = sonde_json_int(root, "k", 1, SONDE_DICT_MAX_SIZE, &k_default, what, &k, err);
    if (!rc)
        rc = sonde_json_bool(root, "transcode", false, what, &c->transcode, err);
    if (!rc)
        rc = sonde_json_bool(root, "skip_connection", false, what, &c->skip, err);
    if (rc)
        return rc;
    c->d_in = (size_t)d_in;
    c->k = (size_t)k;
    c->n_latents = (size_t)n;
    if (!n && !sonde_mul(&c->n_latents, c->d_in, (size_t)factor))
        return sonde_fail(err, SONDE_E_INPUT, "%s: d_in %zu times expansion_factor %zu is too large", what,
                          c->d_in, (size_t)factor);
    return SONDE_OK;
}

/* "metadata" is ours: what sonde knew of the dictionary. trained_as lives in it as SAELens spells it. */
static enum sonde_code read_meta(const json_t *root, const char *what, sonde_dict *d, sonde_err *err)
{
    const json_t *metadata = json_object_get(root, "metadata");
    const char *key;
    json_t *v;
    enum sonde_code rc = SONDE_OK;
    json_object_foreach((json_t *)(uintptr_t)metadata, key, v)
    {
        if (!rc && strcmp(key, "training_architecture") != 0)
            rc = sonde_dict_set_meta(d, key, json_deep_copy(v), err);
    }
    if (rc)
        return sonde_err_wrap(err, "%s: ", what);
    const char *made_by = json_string_value(json_object_get(metadata, "training_architecture"));
    bool transcode = json_is_true(json_object_get(root, "transcode"));
    return sonde_dict_text(d,
                           made_by                  ? made_by
                           : transcode && !metadata ? "topk_transcoder"
                                                    : NULL,
                           &d->trained_as, err);
}

/* W_dec is [F, d] whatever F and d are; a decoder.weight is nn.Linear's [d, F]. */
static enum sonde_code read_decoder(const sonde_tensors *f, const char *path, sonde_dict *d, sonde_err *err)
{
    if (sonde_tensors_find(f, "W_dec") || !sonde_tensors_find(f, "decoder.weight"))
        return sonde_dict_read_matrix(f, path, "W_dec", d->n_latents, d->d_out, d->w_dec, err);
    return sonde_dict_read_transposed(f, path, "decoder.weight", d->d_out, d->n_latents, d->w_dec, err);
}

static enum sonde_code find_shapes(const sonde_tensors *f, const char *path, struct config *c, size_t *d_out,
                                   sonde_err *err)
{
    const sonde_tensor *t;
    size_t rows, columns;
    bool linear = !sonde_tensors_find(f, "W_dec") && sonde_tensors_find(f, "decoder.weight");
    enum sonde_code rc = sonde_dict_matrix(f, path, "encoder.weight", &rows, &columns, err);
    if (rc)
        return rc;
    c->n_latents = c->n_latents ? c->n_latents : rows;
    rc = sonde_dict_find(f, path, "encoder.weight", 2, c->n_latents, c->d_in, &t, err);
    if (!rc)
        rc = sonde_dict_matrix(f, path, linear ? "decoder.weight" : "W_dec", &rows, &columns, err);
    if (rc)
        return rc;
    *d_out = c->transcode ? (linear ? rows : columns) : c->d_in;
    rc = linear ? sonde_dict_find(f, path, "decoder.weight", 2, *d_out, c->n_latents, &t, err)
                : sonde_dict_find(f, path, "W_dec", 2, c->n_latents, *d_out, &t, err);
    if (!rc && c->skip)
        rc = sonde_dict_find(f, path, "W_skip", 2, *d_out, c->d_in, &t, err);
    return rc;
}

static enum sonde_code build(const sonde_tensors *f, const char *path, struct config *c, sonde_budget *budget,
                             sonde_dict **out, sonde_err *err)
{
    sonde_dict *d = NULL;
    size_t d_out = 0;
    enum sonde_code rc = find_shapes(f, path, c, &d_out, err);
    if (!rc)
        rc = sonde_dict_new(c->act, c->d_in, d_out, c->n_latents, c->skip, budget, &d, err);
    if (rc)
        return rc;
    d->k = c->k;
    d->pre_bias = !c->transcode;
    rc = sonde_dict_read_matrix(f, path, "encoder.weight", d->n_latents, d->d_in, d->w_enc, err);
    if (!rc)
        rc = sonde_dict_read_vector(f, path, "encoder.bias", d->n_latents, d->b_enc, err);
    if (!rc)
        rc = read_decoder(f, path, d, err);
    if (!rc)
        rc = sonde_dict_read_vector(f, path, "b_dec", d->d_out, d->b_dec, err);
    if (!rc && d->w_skip)
        rc = sonde_dict_read_matrix(f, path, "W_skip", d->d_out, d->d_in, d->w_skip, err);
    if (rc)
        sonde_dict_free(d);
    else
        *out = d;
    return rc;
}

static enum sonde_code read(const char *path, sonde_budget *budget, sonde_dict **out,
                            char note[SONDE_DICT_NOTE], sonde_err *err)
{
    (void)note;
    char *dir = NULL, *cfg = NULL, *weights = NULL;
    json_t *root = NULL;
    sonde_tensors *f = NULL;
    sonde_dict *d = NULL;
    struct config c = {0};
    enum sonde_code rc = sonde_dict_dir_of(path, &dir, err);
    if (!rc)
        rc = sonde_dict_join(dir, CFG, &cfg, err);
    if (!rc)
        rc = sonde_dict_join(dir, WEIGHTS, &weights, err);
    if (!rc && !sonde_dict_has(dir, CFG))
        rc = sonde_fail(err, SONDE_E_INPUT, "%s: is not there; it belongs beside " WEIGHTS, cfg);
    if (!rc)
        rc = sonde_json_load_in(dir, CFG, SONDE_DICT_MAX_CFG, &root, err);
    if (!rc)
        rc = read_config(root, cfg, &c, err);
    if (!rc)
        rc = sonde_dict_open_tensors(dir, WEIGHTS, budget, &f, err);
    if (!rc)
        rc = build(f, weights, &c, budget, &d, err);
    if (!rc)
        rc = read_meta(root, cfg, d, err);
    if (rc)
        sonde_dict_free(d);
    else
        *out = d;
    sonde_tensors_close(f);
    json_decref(root);
    free(weights);
    free(cfg);
    free(dir);
    return rc;
}

/* ---- writing ------------------------------------------------------------------------------------- */

/* normalize_decoder matters to training only, but SAELens takes its contrary for the subtraction of b_dec. */
static json_t *config_of(const sonde_dict *d, bool transcode)
{
    json_t *meta = json_deep_copy(d->meta);
    int bad = meta == NULL;
    if (d->trained_as)
        bad |= json_object_set_new(meta, "training_architecture", json_string(d->trained_as));
    json_t *cfg =
        bad ? NULL
            : json_pack("{s:s,s:I,s:b,s:I,s:I,s:b,s:b,s:b,s:I}", "activation", sonde_dict_act_name(d->act),
                        "expansion_factor", (json_int_t)(d->n_latents / d->d_in), "normalize_decoder", transcode,
                        "num_latents", (json_int_t)d->n_latents, "k", (json_int_t)d->k, "multi_topk", 0,
                        "skip_connection", d->w_skip != NULL, "transcode", transcode, "d_in",
                        (json_int_t)d->d_in);
    if (cfg && json_object_set(cfg, "metadata", meta)) {
        json_decref(cfg);
        cfg = NULL;
    }
    json_decref(meta);
    return cfg;
}

static enum sonde_code check_writable(const sonde_dict *d, const char *path, sonde_err *err)
{
    if (d->act != SONDE_DICT_TOPK && d->act != SONDE_DICT_GROUPMAX)
        return sonde_fail(err, SONDE_E_USAGE, "%s: sparsify holds topk and groupmax, not %s; saelens does",
                          path, sonde_dict_act_name(d->act));
    if (d->norm != SONDE_DICT_NORM_NONE)
        return sonde_fail(err, SONDE_E_USAGE, "%s: sparsify cannot hold an input norm per row; saelens can",
                          path);
    if (d->d_in != d->d_out)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: sparsify holds equal widths only, these are %zu and %zu; saelens "
                          "holds both",
                          path, d->d_in, d->d_out);
    return SONDE_OK;
}

static enum sonde_code write_files(const sonde_dict *d, bool transcode, const char *path, bool overwrite,
                                   sonde_err *err)
{
    static const char *const names[] = {WEIGHTS, CFG, NULL};
    char *cfg = NULL, *weights = NULL;
    sonde_tensor t[5];
    size_t n = 0;
    t[n++] = sonde_dict_tensor("W_dec", d->w_dec, d->n_latents, d->d_out);
    if (d->w_skip)
        t[n++] = sonde_dict_tensor("W_skip", d->w_skip, d->d_out, d->d_in);
    t[n++] = sonde_dict_tensor("b_dec", d->b_dec, d->d_out, 0);
    t[n++] = sonde_dict_tensor("encoder.bias", d->b_enc, d->n_latents, 0);
    t[n++] = sonde_dict_tensor("encoder.weight", d->w_enc, d->n_latents, d->d_in);
    enum sonde_code rc = sonde_dict_make_dir(path, names, overwrite, err);
    if (!rc)
        rc = sonde_dict_join(path, CFG, &cfg, err);
    if (!rc)
        rc = sonde_dict_join(path, WEIGHTS, &weights, err);
    if (!rc)
        rc = sonde_safetensors_write(weights, t, n, NULL, 0, overwrite, err);
    if (!rc)
        rc = sonde_dict_write_json(cfg, config_of(d, transcode), overwrite, err);
    free(weights);
    free(cfg);
    return rc;
}

/* An autoencoder subtracts b_dec from its input here, a transcoder never does; one without the subtraction is
 * written as a transcoder, which computes the same. */
static enum sonde_code write(const sonde_dict *d, const char *path, bool overwrite, sonde_err *err)
{
    enum sonde_code rc = check_writable(d, path, err);
    return rc ? rc : write_files(d, !d->pre_bias, path, overwrite, err);
}

const sonde_dict_format sonde_format_sparsify = {
    "sparsify", "sparsify: a directory with cfg.json and sae.safetensors", probe, read, write};
