/* SPDX-License-Identifier: MIT
 * circuit-tracer's per-layer transcoders: a directory with config.yaml and layer_0.safetensors,
 * layer_1.safetensors, ...; one file is one dictionary. Both matrices are [F, d], b_dec is never subtracted,
 * and a threshold makes it a JumpReLU. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/replace.h"
#include "../file/json.h"
#include "../file/safetensors.h"
#include "../file/yaml.h"
#include "format_impl.h"

#define CFG       "config.yaml"
#define THRESHOLD "activation_function.threshold"
#define MAX_LAYER 9999

/* The number of "layer_N.safetensors", or -1. */
static int layer_of_name(const char *name)
{
    int n = 0;
    if (strncmp(name, "layer_", 6) != 0 || name[6] < '0' || name[6] > '9')
        return -1;
    const char *p = name + 6;
    for (; *p >= '0' && *p <= '9' && n <= MAX_LAYER; p++)
        n = 10 * n + (*p - '0');
    return n <= MAX_LAYER && !strcmp(p, ".safetensors") ? n : -1;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* How many layers lie in a directory, and the lowest of them. */
static int count_layers(const char *dir, int *lowest)
{
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        int layer = layer_of_name(e->d_name);
        if (layer >= 0 && (n++ == 0 || layer < *lowest))
            *lowest = layer;
    }
    if (d)
        closedir(d);
    return n;
}

static bool probe(const char *path)
{
    int lowest;
    if (sonde_dict_is_dir(path))
        return sonde_dict_has(path, CFG) || count_layers(path, &lowest) > 0;
    return layer_of_name(base_name(path)) >= 0 && sonde_dict_is_file(path);
}

/* ---- reading ------------------------------------------------------------------------------------- */

struct config {
    const char *model, *in, *out, *activation;
    size_t k;
};

/* The layer's file: the path itself, or the only one in the directory. */
static enum sonde_code find_file(const char *path, char **file, int *layer, sonde_err *err)
{
    char name[48];
    if (!sonde_dict_is_dir(path)) {
        *layer = layer_of_name(base_name(path));
        *file = strdup(path);
        return *file ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the path", path);
    }
    int n = count_layers(path, layer);
    if (n == 0)
        return sonde_fail(
            err, SONDE_E_INPUT,
            "%s: has no layer_0.safetensors; cross-layer transcoders are not single dictionaries", path);
    snprintf(name, sizeof name, "layer_%d.safetensors", *layer);
    if (n > 1)
        return sonde_fail(err, SONDE_E_INPUT, "%s: has transcoders of %d layers; name one, such as %s/%s",
                          path, n, path, name);
    return sonde_dict_join(path, name, file, err);
}

static enum sonde_code read_config(const json_t *root, const char *what, struct config *c, sonde_err *err)
{
    const int64_t none = 0;
    const char *kind = NULL;
    int64_t k = 0;
    enum sonde_code rc = sonde_json_string(root, "model_kind", NULL, what, &kind, err);
    if (!rc && !kind)
        rc = sonde_fail(err, SONDE_E_INPUT, "%s: has no model_kind; it may be cut short", what);
    if (!rc && strcmp(kind, "transcoder_set") != 0)
        rc = sonde_fail(err, SONDE_E_INPUT, "%s: model_kind '%.40s' is not read; transcoder_set is", what,
                        kind);
    if (!rc)
        rc = sonde_json_string(root, "model_name", NULL, what, &c->model, err);
    if (!rc)
        rc = sonde_json_string(root, "feature_input_hook", NULL, what, &c->in, err);
    if (!rc)
        rc = sonde_json_string(root, "feature_output_hook", NULL, what, &c->out, err);
    if (!rc)
        rc = sonde_json_string(root, "activation", NULL, what, &c->activation, err);
    if (!rc)
        rc = sonde_json_int(root, "k", 1, SONDE_DICT_MAX_SIZE, &none, what, &k, err);
    c->k = (size_t)k;
    return rc;
}

/* relu and topk are said by the config; otherwise the file has a threshold, or a k, or is relu. */
static enum sonde_code find_act(const sonde_tensors *f, const char *path, struct config *c,
                                enum sonde_dict_act *act, sonde_err *err)
{
    if (c->activation && !strcmp(c->activation, "relu")) {
        *act = SONDE_DICT_RELU;
        return SONDE_OK;
    }
    bool topk = c->activation && !strcmp(c->activation, "topk");
    if (c->activation && !topk && strcmp(c->activation, "jumprelu") != 0 &&
        strcmp(c->activation, "jump_relu") != 0)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: activation '%.40s' is not read; relu, jumprelu and topk are", path,
                          c->activation);
    if (sonde_tensors_find(f, "k") && !c->k) {
        double k;
        enum sonde_code rc = sonde_dict_read_scalar(f, path, "k", &k, err);
        if (rc)
            return rc;
        if (!(k >= 1) || k > (double)SONDE_DICT_MAX_SIZE || k != floor(k))
            return sonde_fail(err, SONDE_E_INPUT, "%s: k is %g", path, k);
        c->k = (size_t)k;
        topk = true;
    }
    if (topk && !c->k)
        return sonde_fail(err, SONDE_E_INPUT, "%s: activation topk, but no k", path);
    *act = topk ? SONDE_DICT_TOPK : sonde_tensors_find(f, THRESHOLD) ? SONDE_DICT_JUMPRELU : SONDE_DICT_RELU;
    return SONDE_OK;
}

/* One number per latent, or one for all. */
static enum sonde_code read_threshold(const sonde_tensors *f, const char *path, sonde_dict *d,
                                      char note[SONDE_DICT_NOTE], sonde_err *err)
{
    const sonde_tensor *t = sonde_tensors_find(f, THRESHOLD);
    double all = 0;
    bool one = sonde_tensor_count(t) == 1, negative = false;
    enum sonde_code rc = one ? sonde_dict_read_scalar(f, path, THRESHOLD, &all, err)
                             : sonde_dict_read_vector(f, path, THRESHOLD, d->n_latents, d->threshold, err);
    for (size_t i = 0; i < d->n_latents && !rc; i++) {
        d->threshold[i] = one ? (float)all : d->threshold[i];
        negative = negative || d->threshold[i] < 0;
    }
    if (!rc && negative)
        sonde_dict_note(note,
                        "some thresholds are negative; latents below 0 are cut, as everywhere in sonde");
    return rc;
}

static enum sonde_code read_arrays(const sonde_tensors *f, const char *path, sonde_dict *d,
                                   char note[SONDE_DICT_NOTE], sonde_err *err)
{
    size_t n = d->n_latents;
    enum sonde_code rc = sonde_dict_read_matrix(f, path, "W_enc", n, d->d_in, d->w_enc, err);
    if (!rc)
        rc = sonde_dict_read_matrix(f, path, "W_dec", n, d->d_out, d->w_dec, err);
    if (!rc)
        rc = sonde_dict_read_vector(f, path, "b_enc", n, d->b_enc, err);
    if (!rc)
        rc = sonde_dict_read_vector(f, path, "b_dec", d->d_out, d->b_dec, err);
    if (!rc && d->w_skip)
        rc = sonde_dict_read_matrix(f, path, "W_skip", d->d_out, d->d_in, d->w_skip, err);
    return !rc && d->act == SONDE_DICT_JUMPRELU ? read_threshold(f, path, d, note, err) : rc;
}

static enum sonde_code build(const sonde_tensors *f, const char *path, struct config *c, sonde_budget *budget,
                             sonde_dict **out, char note[SONDE_DICT_NOTE], sonde_err *err)
{
    enum sonde_dict_act act = SONDE_DICT_RELU;
    size_t n = 0, d_in = 0, rows = 0, d_out = 0;
    const sonde_tensor *t;
    sonde_dict *d = NULL;
    bool skip = sonde_tensors_find(f, "W_skip") != NULL;
    enum sonde_code rc = find_act(f, path, c, &act, err);
    if (!rc)
        rc = sonde_dict_matrix(f, path, "W_enc", &n, &d_in, err);
    if (!rc)
        rc = sonde_dict_matrix(f, path, "W_dec", &rows, &d_out, err);
    if (!rc)
        rc = sonde_dict_find(f, path, "W_dec", 2, n, d_out, &t, err);
    if (!rc && skip)
        rc = sonde_dict_find(f, path, "W_skip", 2, d_out, d_in, &t, err);
    if (!rc)
        rc = sonde_dict_new(act, d_in, d_out, n, skip, budget, &d, err);
    if (rc)
        return rc;
    d->k = act == SONDE_DICT_TOPK ? c->k : 0;
    d->trained_as = act == SONDE_DICT_TOPK       ? "topk_transcoder"
                    : act == SONDE_DICT_JUMPRELU ? "jumprelu_transcoder"
                                                 : "transcoder";
    rc = read_arrays(f, path, d, note, err);
    if (rc)
        sonde_dict_free(d);
    else
        *out = d;
    return rc;
}

static enum sonde_code set_hook(sonde_dict *d, const char *key, int layer, const char *hook, sonde_err *err)
{
    if (!hook)
        return SONDE_OK;
    return sonde_dict_set_meta(
        d, key, layer < 0 ? json_string(hook) : json_sprintf("blocks.%d.%s", layer, hook), err);
}

static enum sonde_code set_meta(sonde_dict *d, const struct config *c, int layer, char note[SONDE_DICT_NOTE],
                                sonde_err *err)
{
    enum sonde_code rc =
        c->model ? sonde_dict_set_meta(d, "model_name", json_string(c->model), err) : SONDE_OK;
    if (!rc)
        rc = set_hook(d, "hook_name", layer, c->in, err);
    if (!rc)
        rc = set_hook(d, "hook_name_out", layer, c->out, err);
    if (!rc && !c->in)
        sonde_dict_note(note, "there is no " CFG " that names its hooks");
    return rc;
}

static enum sonde_code read(const char *path, sonde_budget *budget, sonde_dict **out,
                            char note[SONDE_DICT_NOTE], sonde_err *err)
{
    char *file = NULL, *dir = NULL, *cfg = NULL;
    int layer = -1;
    json_t *root = NULL;
    sonde_tensors *f = NULL;
    sonde_dict *d = NULL;
    struct config c = {0};
    enum sonde_code rc = find_file(path, &file, &layer, err);
    if (!rc)
        rc = sonde_dict_dir_of(file, &dir, err);
    if (!rc)
        rc = sonde_dict_join(dir, CFG, &cfg, err);
    if (!rc && sonde_dict_has(dir, CFG))
        rc = sonde_yaml_load_in(dir, CFG, &root, err);
    if (!rc && root)
        rc = read_config(root, cfg, &c, err);
    if (!rc)
        rc = sonde_safetensors_open(file, budget, &f, err);
    if (!rc)
        rc = build(f, file, &c, budget, &d, note, err);
    if (!rc)
        rc = set_meta(d, &c, layer, note, err);
    if (rc)
        sonde_dict_free(d);
    else
        *out = d;
    sonde_tensors_close(f);
    json_decref(root);
    free(cfg);
    free(dir);
    free(file);
    return rc;
}

/* ---- writing ------------------------------------------------------------------------------------- */

static enum sonde_code check_writable(const sonde_dict *d, const char *path, sonde_err *err)
{
    if (d->act == SONDE_DICT_GROUPMAX)
        return sonde_fail(err, SONDE_E_USAGE, "%s: circuit-tracer has no groupmax; sparsify does", path);
    if (d->norm != SONDE_DICT_NORM_NONE)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: circuit-tracer cannot hold an input norm per row; saelens can", path);
    if (d->d_in != d->d_out)
        return sonde_fail(
            err, SONDE_E_USAGE,
            "%s: circuit-tracer holds equal widths only, these are %zu and %zu; saelens holds both", path,
            d->d_in, d->d_out);
    return SONDE_OK;
}

struct text {
    char *s;
    size_t n, room;
    bool failed;
};

static void add(struct text *t, const char *s, size_t n)
{
    if (t->n + n + 1 > t->room && !t->failed) {
        char *p = realloc(t->s, 2 * (t->n + n + 1));
        t->failed = p == NULL;
        t->s = p ? p : t->s;
        t->room = p ? 2 * (t->n + n + 1) : t->room;
    }
    if (t->failed)
        return;
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = '\0';
}

/* "key: value", in quotes where it needs them. Control characters do not belong into names: as '?'. */
static void add_entry(struct text *t, const char *key, const char *value)
{
    add(t, key, strlen(key));
    add(t, ": ", 2);
    bool plain = sonde_yaml_is_plain(value);
    add(t, "'", !plain);
    for (const char *p = value; *p; p++) {
        add(t, (unsigned char)*p < 0x20 || *p == 0x7f ? "?" : p, 1);
        add(t, "'", *p == '\'');
    }
    add(t, "'", !plain);
    add(t, "\n", 1);
}

/* A hook without "blocks.N.". */
static const char *short_hook(const char *hook)
{
    return sonde_dict_layer_of(hook) < 0 ? hook : strchr(hook + 7, '.') + 1;
}

/* model_kind comes last: a config that is cut short lacks it. */
static void make_config(struct text *t, const sonde_dict *d)
{
    char k[32];
    const char *model = sonde_dict_meta_text(d, "model_name");
    const char *in = sonde_dict_meta_text(d, "hook_name"), *out = sonde_dict_meta_text(d, "hook_name_out");
    in = in ? in : "mlp.hook_in";
    add_entry(t, "model_name", model ? model : "");
    add_entry(t, "feature_input_hook", short_hook(in));
    add_entry(t, "feature_output_hook", short_hook(out ? out : in));
    add_entry(t, "scan", model ? model : "");
    if (d->act == SONDE_DICT_TOPK) {
        snprintf(k, sizeof k, "k: %zu\n", d->k);
        add_entry(t, "activation", "topk");
        add(t, k, strlen(k));
    }
    add_entry(t, "model_kind", "transcoder_set");
}

static enum sonde_code write_weights(const sonde_dict *d, const char *file, bool overwrite, sonde_err *err)
{
    float *threshold = NULL;
    sonde_tensor t[6];
    size_t n = 0;
    t[n++] = sonde_dict_tensor("W_dec", d->w_dec, d->n_latents, d->d_out);
    t[n++] = sonde_dict_tensor("W_enc", d->w_enc, d->n_latents, d->d_in);
    if (d->w_skip)
        t[n++] = sonde_dict_tensor("W_skip", d->w_skip, d->d_out, d->d_in);
    if (d->act == SONDE_DICT_JUMPRELU) { /* negative ones would let negative latents through there */
        threshold = calloc(d->n_latents, sizeof *threshold);
        if (!threshold)
            return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for thresholds", file);
        for (size_t i = 0; i < d->n_latents; i++)
            threshold[i] = fmaxf(d->threshold[i], 0);
        t[n++] = sonde_dict_tensor(THRESHOLD, threshold, d->n_latents, 0);
    }
    t[n++] = sonde_dict_tensor("b_dec", d->b_dec, d->d_out, 0);
    t[n++] = sonde_dict_tensor("b_enc", d->b_enc, d->n_latents, 0);
    enum sonde_code rc = sonde_safetensors_write(file, t, n, NULL, 0, overwrite, err);
    free(threshold);
    return rc;
}

/* Layers of one model share the config: one that says the same is left alone. */
static enum sonde_code write_config(const sonde_dict *d, const char *dir, bool overwrite, sonde_err *err)
{
    struct text t = {0};
    char *cfg = NULL;
    sonde_map *old = NULL;
    make_config(&t, d);
    enum sonde_code rc = t.failed ? sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for its config", dir)
                                  : sonde_dict_join(dir, CFG, &cfg, err);
    bool same = !rc && sonde_map_open_in(dir, CFG, &old, NULL) == SONDE_OK && old->n_bytes == t.n &&
                memcmp(old->data, t.s, t.n) == 0;
    if (!rc && old && !same && !overwrite)
        rc = sonde_fail(err, SONDE_E_USAGE, "%s: is there and belongs to other hooks or another model", cfg);
    sonde_map_close(old);
    if (!rc && !same)
        rc = sonde_file_replace(cfg, t.s, t.n, err);
    free(cfg);
    free(t.s);
    return rc;
}

/* PATH/layer_N.safetensors with N from the hook, beside config.yaml; a path layer_N.safetensors is the file
 * itself. */
static enum sonde_code write(const sonde_dict *d, const char *path, bool overwrite, sonde_err *err)
{
    char name[48], *dir = NULL, *file = NULL;
    const sonde_dict *use = d;
    sonde_dict *copy = NULL;
    int layer = layer_of_name(base_name(path)),
        of_hook = sonde_dict_layer_of(sonde_dict_meta_text(d, "hook_name"));
    bool is_dir = layer < 0 || sonde_dict_is_dir(path);
    snprintf(name, sizeof name, "layer_%d.safetensors", is_dir ? (of_hook < 0 ? 0 : of_hook) : layer);
    const char *const names[] = {name, NULL};
    enum sonde_code rc = check_writable(d, path, err);
    if (!rc)
        rc = is_dir ? sonde_dict_join(path, "", &dir, err) : sonde_dict_dir_of(path, &dir, err);
    if (!rc)
        rc = sonde_dict_in_form(d, false, false, &use, &copy, err);
    if (!rc)
        rc = sonde_dict_make_dir(dir, names, overwrite, err);
    if (!rc)
        rc = sonde_dict_join(dir, name, &file, err);
    if (!rc)
        rc = write_config(use, dir, overwrite, err);
    if (!rc)
        rc = write_weights(use, file, overwrite, err);
    sonde_dict_free(copy);
    free(file);
    free(dir);
    return rc;
}

const sonde_dict_format sonde_format_circuit_tracer = {
    "circuit_tracer", "circuit-tracer: layer_N.safetensors beside config.yaml", probe, read, write};
