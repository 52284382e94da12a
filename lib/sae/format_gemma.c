/* SPDX-License-Identifier: MIT
 * Gemma Scope: layer_L/width_W/average_l0_N/params.npz; and Gemma Scope 2: params.safetensors with names in
 * lower case, a skip connection that lies the other way, and a config.json. All are JumpReLU and read raw
 * activations. Where they belong in the model is said by the path (1) or the config (2). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../file/json.h"
#include "../file/npy.h"
#include "../file/safetensors.h"
#include "format_impl.h"

#define NPZ "params.npz"
#define ST  "params.safetensors"
#define CFG "config.json"

/* The two spellings: names of tensors. */
struct spelling {
    const char *file, *w_enc, *w_dec, *skip; /* skip: [d_in, d_out], or NULL */
};
static const struct spelling one = {NPZ, "W_enc", "W_dec", NULL};
static const struct spelling two = {ST, "w_enc", "w_dec", "affine_skip_connection"};

/* Places of a model, as paths, TransformerLens and Gemma Scope 2's configs name them. */
static const struct place {
    const char *in_path, *hook, *hook_out, *module, *module_out;
} places[] = {
    {"transcoder", "ln2.hook_normalized", "hook_mlp_out", NULL, NULL},
    {"transcoder", "hook_mlp_in", "hook_mlp_out", "pre_feedforward_layernorm.output",
     "post_feedforward_layernorm.output"},
    {"-res", "hook_resid_post", NULL, "output", NULL},
    {"resid_post", "hook_resid_post", NULL, "output", NULL},
    {"-mlp", "hook_mlp_out", NULL, "post_feedforward_layernorm.output", NULL},
    {"mlp_out", "hook_mlp_out", NULL, "post_feedforward_layernorm.output", NULL},
    {"-att", "attn.hook_z", NULL, "self_attn.o_proj.input", NULL},
    {"attn_out", "attn.hook_z", NULL, "self_attn.o_proj.input", NULL},
};
enum { N_PLACES = sizeof places / sizeof *places };

/* ---- where it belongs ---------------------------------------------------------------------------- */

static enum sonde_code set_hooks(sonde_dict *d, long layer, const struct place *p, sonde_err *err)
{
    enum sonde_code rc =
        sonde_dict_set_meta(d, "hook_name", json_sprintf("blocks.%ld.%s", layer, p->hook), err);
    if (!rc && p->hook_out)
        rc = sonde_dict_set_meta(d, "hook_name_out", json_sprintf("blocks.%ld.%s", layer, p->hook_out), err);
    if (!rc && p->hook_out)
        d->trained_as = "jumprelu_transcoder";
    return rc;
}

/* "layer_N" and a word for the place, somewhere in the path. */
static enum sonde_code hooks_of_path(sonde_dict *d, const char *path, const struct spelling *s,
                                     char note[SONDE_DICT_NOTE], sonde_err *err)
{
    const char *layer = strstr(path, "layer_");
    for (size_t i = s == &two; i < N_PLACES && layer; i++)
        if (strstr(path, places[i].in_path) && layer[6] >= '0' && layer[6] <= '9')
            return set_hooks(d, strtol(layer + 6, NULL, 10), &places[i], err);
    sonde_dict_note(note, "its path does not say the layer and the place in the model");
    return SONDE_OK;
}

/* "model.layers.N.MODULE" of hf_hook_point_in. */
static enum sonde_code hooks_of_config(sonde_dict *d, const json_t *root, bool *known, sonde_err *err)
{
    const char *in = json_string_value(json_object_get(root, "hf_hook_point_in")), *end;
    const char *out = json_string_value(json_object_get(root, "hf_hook_point_out"));
    if (!in || strncmp(in, "model.layers.", 13) != 0 || in[13] < '0' || in[13] > '9')
        return SONDE_OK;
    long layer = strtol(in + 13, (char **)(uintptr_t)&end, 10);
    for (size_t i = 1; i < N_PLACES && *end == '.'; i++)
        if (places[i].module && !strcmp(end + 1, places[i].module) && !out == !places[i].hook_out) {
            *known = true;
            return set_hooks(d, layer, &places[i], err);
        }
    return SONDE_OK;
}

static enum sonde_code read_config(sonde_dict *d, const char *file, char note[SONDE_DICT_NOTE],
                                   sonde_err *err)
{
    char *dir = NULL, *cfg = NULL;
    json_t *root = NULL;
    bool known = false;
    enum sonde_code rc = sonde_dict_dir_of(file, &dir, err);
    if (!rc)
        rc = sonde_dict_join(dir, CFG, &cfg, err);
    if (!rc && sonde_dict_has(dir, CFG))
        rc = sonde_json_load_in(dir, CFG, SONDE_DICT_MAX_CFG, &root, err);
    const char *arch = NULL, *model = NULL;
    if (!rc && root)
        rc = sonde_json_string(root, "architecture", "jump_relu", cfg, &arch, err);
    if (!rc && arch && strcmp(arch, "jump_relu") != 0)
        rc = sonde_fail(err, SONDE_E_INPUT, "%s: architecture '%.40s' is not read; jump_relu is", cfg, arch);
    if (!rc && root)
        rc = sonde_json_string(root, "model_name", NULL, cfg, &model, err);
    if (!rc && model)
        rc = sonde_dict_set_meta(d, "model_name", json_string(model), err);
    if (!rc && root)
        rc = hooks_of_config(d, root, &known, err);
    if (!rc && !known)
        rc = hooks_of_path(d, file, &two, note, err);
    json_decref(root);
    free(cfg);
    free(dir);
    return rc;
}

/* ---- reading ------------------------------------------------------------------------------------- */

static enum sonde_code read_arrays(const sonde_tensors *f, const char *path, const struct spelling *s,
                                   sonde_dict *d, sonde_err *err)
{
    size_t n = d->n_latents;
    enum sonde_code rc = sonde_dict_read_transposed(f, path, s->w_enc, d->d_in, n, d->w_enc, err);
    if (!rc)
        rc = sonde_dict_read_matrix(f, path, s->w_dec, n, d->d_out, d->w_dec, err);
    if (!rc)
        rc = sonde_dict_read_vector(f, path, "b_enc", n, d->b_enc, err);
    if (!rc)
        rc = sonde_dict_read_vector(f, path, "b_dec", d->d_out, d->b_dec, err);
    if (!rc)
        rc = sonde_dict_read_vector(f, path, "threshold", n, d->threshold, err);
    if (!rc && d->w_skip)
        rc = sonde_dict_read_transposed(f, path, s->skip, d->d_in, d->d_out, d->w_skip, err);
    return rc;
}

/* A factor per latent, which SAELens' loader of these files looks for: all 1, or the file is none of theirs.
 */
static enum sonde_code check_factor(const sonde_tensors *f, const char *path, size_t n, sonde_err *err)
{
    if (!sonde_tensors_find(f, "scaling_factor"))
        return SONDE_OK;
    float *x = calloc(n, sizeof *x);
    if (!x)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for %zu factors", path, n);
    enum sonde_code rc = sonde_dict_read_vector(f, path, "scaling_factor", n, x, err);
    for (size_t i = 0; i < n && !rc; i++)
        if (fabsf(x[i] - 1) > 1e-5f)
            rc = sonde_fail(err, SONDE_E_INPUT, "%s: scaling_factor of latent %zu is %g, only 1 is read",
                            path, i, (double)x[i]);
    free(x);
    return rc;
}

static enum sonde_code build(const sonde_tensors *f, const char *path, const struct spelling *s,
                             sonde_budget *budget, sonde_dict **out, sonde_err *err)
{
    size_t d_in = 0, n = 0, rows = 0, d_out = 0;
    sonde_dict *d = NULL;
    const sonde_tensor *w_dec = sonde_tensors_find(f, s->w_dec);
    if (w_dec && w_dec->rank == 3)
        return sonde_fail(
            err, SONDE_E_INPUT,
            "%s: %s has 3 dimensions: a cross-layer transcoder, which is not a single dictionary", path,
            s->w_dec);
    enum sonde_code rc = sonde_dict_matrix(f, path, s->w_enc, &d_in, &n, err);
    if (!rc)
        rc = sonde_dict_matrix(f, path, s->w_dec, &rows, &d_out, err);
    if (!rc)
        rc = sonde_dict_find(f, path, s->w_dec, 2, n, d_out, &w_dec, err);
    if (!rc)
        rc = check_factor(f, path, n, err);
    bool skip = s->skip && sonde_tensors_find(f, s->skip);
    if (!rc && skip)
        rc = sonde_dict_find(f, path, s->skip, 2, d_in, d_out, &w_dec, err);
    if (!rc)
        rc = sonde_dict_new(SONDE_DICT_JUMPRELU, d_in, d_out, n, skip, budget, &d, err);
    if (rc)
        return rc;
    d->trained_as = skip || d_in != d_out ? "jumprelu_transcoder" : "jumprelu";
    rc = read_arrays(f, path, s, d, err);
    if (rc)
        sonde_dict_free(d);
    else
        *out = d;
    return rc;
}

static enum sonde_code file_of(const char *path, bool is_dir, const struct spelling *s, char **out,
                               sonde_err *err)
{
    if (is_dir)
        return sonde_dict_join(path, s->file, out, err);
    *out = strdup(path);
    return *out ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the path", path);
}

static enum sonde_code read_as(const char *path, const struct spelling *s, sonde_budget *budget,
                               sonde_dict **out, char note[SONDE_DICT_NOTE], sonde_err *err)
{
    char *file = NULL;
    sonde_tensors *f = NULL;
    sonde_dict *d = NULL;
    enum sonde_code rc = file_of(path, sonde_dict_is_dir(path), s, &file, err);
    if (!rc)
        rc =
            s == &one ? sonde_npz_open(file, budget, &f, err) : sonde_safetensors_open(file, budget, &f, err);
    if (!rc)
        rc = build(f, file, s, budget, &d, err);
    if (!rc)
        rc = s == &one ? hooks_of_path(d, file, s, note, err) : read_config(d, file, note, err);
    if (rc)
        sonde_dict_free(d);
    else
        *out = d;
    sonde_tensors_close(f);
    free(file);
    return rc;
}

/* ---- writing ------------------------------------------------------------------------------------- */

static enum sonde_code check_writable(const sonde_dict *d, const struct spelling *s, const char *path,
                                      sonde_err *err)
{
    if (d->act == SONDE_DICT_TOPK || d->act == SONDE_DICT_GROUPMAX)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: Gemma Scope holds thresholds per latent, not %s; saelens and sparsify do",
                          path, sonde_dict_act_name(d->act));
    if (d->norm != SONDE_DICT_NORM_NONE)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: Gemma Scope cannot hold an input norm per row; saelens can", path);
    if (d->w_skip && !s->skip)
        return sonde_fail(err, SONDE_E_USAGE, "%s: Gemma Scope has no skip connection; gemma_scope_2 has",
                          path);
    return SONDE_OK;
}

static enum sonde_code write_weights(const sonde_dict *d, const struct spelling *s, const char *file,
                                     bool overwrite, sonde_err *err)
{
    float *w_enc = NULL, *skip = NULL, *zero = calloc(d->n_latents, sizeof *zero); /* relu: thresholds of 0 */
    sonde_tensor t[6];
    size_t n = 0;
    enum sonde_code rc = zero ? sonde_dict_transpose(d->w_enc, d->n_latents, d->d_in, &w_enc, err)
                              : sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for thresholds", file);
    if (!rc && d->w_skip)
        rc = sonde_dict_transpose(d->w_skip, d->d_out, d->d_in, &skip, err);
    if (!rc) {
        t[n++] = sonde_dict_tensor(s->w_enc, w_enc, d->d_in, d->n_latents);
        t[n++] = sonde_dict_tensor(s->w_dec, d->w_dec, d->n_latents, d->d_out);
        t[n++] = sonde_dict_tensor("b_enc", d->b_enc, d->n_latents, 0);
        t[n++] = sonde_dict_tensor("b_dec", d->b_dec, d->d_out, 0);
        t[n++] = sonde_dict_tensor("threshold", d->threshold ? d->threshold : zero, d->n_latents, 0);
        if (skip)
            t[n++] = sonde_dict_tensor(s->skip, skip, d->d_in, d->d_out);
        rc = s == &one ? sonde_npz_write(file, t, n, overwrite, err)
                       : sonde_safetensors_write(file, t, n, NULL, 0, overwrite, err);
    }
    free(skip);
    free(w_enc);
    free(zero);
    return rc;
}

/* The module of a hook, for the config; NULL where the table has none. */
static const struct place *place_of(const sonde_dict *d)
{
    const char *hook = sonde_dict_meta_text(d, "hook_name"), *out = sonde_dict_meta_text(d, "hook_name_out");
    bool transcoder = sonde_dict_is_transcoder(d);
    if (sonde_dict_layer_of(hook) < 0)
        return NULL;
    const char *name = strchr(hook + 7, '.') + 1;
    for (size_t i = 1; i < N_PLACES; i++)
        if (!strcmp(name, places[i].hook) && (places[i].hook_out != NULL) == (transcoder && out))
            return &places[i];
    return NULL;
}

static json_t *config(const sonde_dict *d)
{
    const char *model = sonde_dict_meta_text(d, "model_name");
    const struct place *p = place_of(d);
    int layer = sonde_dict_layer_of(sonde_dict_meta_text(d, "hook_name"));
    json_t *c = json_object();
    int bad = c == NULL;
    bad |= json_object_set_new(c, "architecture", json_string("jump_relu"));
    bad |= json_object_set_new(c, "model_name", json_string(model ? model : ""));
    bad |= json_object_set_new(c, "width", json_integer((json_int_t)d->n_latents));
    bad |= json_object_set_new(c, "affine_connection", json_boolean(d->w_skip != NULL));
    bad |= json_object_set_new(c, "type", json_string(sonde_dict_is_transcoder(d) ? "transcoder" : "sae"));
    if (p)
        bad |=
            json_object_set_new(c, "hf_hook_point_in", json_sprintf("model.layers.%d.%s", layer, p->module));
    if (p && p->module_out)
        bad |= json_object_set_new(c, "hf_hook_point_out",
                                   json_sprintf("model.layers.%d.%s", layer, p->module_out));
    if (!bad)
        return c;
    json_decref(c);
    return NULL;
}

/* A path that ends in .npz or .safetensors is the file itself, any other a directory. */
static enum sonde_code write_as(const sonde_dict *d, const struct spelling *s, const char *path,
                                bool overwrite, sonde_err *err)
{
    const char *const names[] = {s->file, s == &two ? CFG : NULL, NULL};
    char *file = NULL, *cfg = NULL;
    const sonde_dict *use = d;
    sonde_dict *copy = NULL;
    bool is_dir = sonde_dict_is_dir(path) || !sonde_dict_ends(path, strchr(s->file, '.'));
    enum sonde_code rc = check_writable(d, s, path, err);
    if (!rc)
        rc = sonde_dict_in_form(d, false, false, &use, &copy, err);
    if (!rc && is_dir)
        rc = sonde_dict_make_dir(path, names, overwrite, err);
    if (!rc)
        rc = file_of(path, is_dir, s, &file, err);
    if (!rc)
        rc = write_weights(use, s, file, overwrite, err);
    if (!rc && is_dir && s == &two)
        rc = sonde_dict_join(path, CFG, &cfg, err);
    if (!rc && cfg)
        rc = sonde_dict_write_json(cfg, config(use), overwrite, err);
    sonde_dict_free(copy);
    free(cfg);
    free(file);
    return rc;
}

/* ---- the two rows -------------------------------------------------------------------------------- */

static bool probe_one(const char *path)
{
    return sonde_dict_is_dir(path) ? sonde_dict_has(path, NPZ)
                                   : sonde_dict_ends(path, ".npz") && sonde_dict_is_file(path);
}

/* params.safetensors, or params_layer_3.safetensors and the like. */
static bool probe_two(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (sonde_dict_is_dir(path))
        return sonde_dict_has(path, ST);
    return !strncmp(name, "params", 6) && sonde_dict_ends(name, ".safetensors") && sonde_dict_is_file(path);
}

static enum sonde_code read_one(const char *path, sonde_budget *budget, sonde_dict **out,
                                char note[SONDE_DICT_NOTE], sonde_err *err)
{
    return read_as(path, &one, budget, out, note, err);
}

static enum sonde_code read_two(const char *path, sonde_budget *budget, sonde_dict **out,
                                char note[SONDE_DICT_NOTE], sonde_err *err)
{
    return read_as(path, &two, budget, out, note, err);
}

static enum sonde_code write_one(const sonde_dict *d, const char *path, bool overwrite, sonde_err *err)
{
    return write_as(d, &one, path, overwrite, err);
}

static enum sonde_code write_two(const sonde_dict *d, const char *path, bool overwrite, sonde_err *err)
{
    return write_as(d, &two, path, overwrite, err);
}

const sonde_dict_format sonde_format_gemma = {"gemma_scope", "Gemma Scope: a directory with params.npz",
                                              probe_one, read_one, write_one};
const sonde_dict_format sonde_format_gemma_2 = {
    "gemma_scope_2", "Gemma Scope 2: a directory with params.safetensors and config.json", probe_two,
    read_two, write_two};
