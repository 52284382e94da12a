/* SPDX-License-Identifier: MIT
 * dictionary_learning: a directory with ae.pt (a state dict) and config.json, whose dict_class says which of
 * seven classes it is. A back-up {ae, optimizer, config, norm_factor} of a run is read too; it is in
 * normalised units, saved dictionaries are in raw ones. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../file/json.h"
#include "../file/torchzip.h"
#include "format_dl_impl.h"

const sonde_dl_class sonde_dl_classes[SONDE_DL_CLASSES] = {
    [SONDE_DL_STANDARD] = {"AutoEncoder", "StandardTrainer", "standard", SONDE_DICT_RELU, true, true,
                           "encoder.bias", "bias", false},
    [SONDE_DL_NEW] = {"AutoEncoderNew", "StandardTrainerAprilUpdate", "standard", SONDE_DICT_RELU, false,
                      true, "encoder.bias", "decoder.bias", false},
    [SONDE_DL_GATED] = {"GatedAutoEncoder", "GatedSAETrainer", "gated", SONDE_DICT_GATED, true, true,
                        "gate_bias", "decoder_bias", false},
    [SONDE_DL_JUMPRELU] = {"JumpReluAutoEncoder", "JumpReluTrainer", "jumprelu", SONDE_DICT_JUMPRELU, false,
                           false, "b_enc", "b_dec", false},
    [SONDE_DL_TOPK] = {"AutoEncoderTopK", "TopKTrainer", "topk", SONDE_DICT_TOPK, true, true, "encoder.bias",
                       "b_dec", true},
    [SONDE_DL_BATCHTOPK] = {"BatchTopKSAE", "BatchTopKTrainer", "batchtopk", SONDE_DICT_JUMPRELU, true, true,
                            "encoder.bias", "b_dec", true},
    [SONDE_DL_MATRYOSHKA] = {"MatryoshkaBatchTopKSAE", "MatryoshkaBatchTopKTrainer", "matryoshka_batchtopk",
                             SONDE_DICT_JUMPRELU, true, false, "b_enc", "b_dec", true},
};

static bool probe(const char *path)
{
    static const char *const linear[] = {"/data.pkl", "encoder.weight", "decoder.weight", NULL};
    static const char *const matrices[] = {"/data.pkl", "W_enc", "W_dec", NULL};
    if (sonde_dict_is_dir(path))
        return sonde_dict_has(path, SONDE_DL_WEIGHTS);
    return sonde_dict_mentions(path, linear) || sonde_dict_mentions(path, matrices);
}

/* A file that is being read. */
struct file {
    char *path, *cfg; /* of ae.pt and of config.json; for messages */
    sonde_tensors *f;
    const char *prefix; /* of the names: "", or "ae." in a back-up */
    json_t *config;     /* config.json, or NULL */
    json_t *trainer;    /* its "trainer", or the config of a back-up; or NULL */
    const sonde_dl_class *class;
    char name[64];
};

static const char *named(struct file *s, const char *name)
{
    snprintf(s->name, sizeof s->name, "%s%s", s->prefix, name);
    return s->name;
}

static bool has(struct file *s, const char *name)
{
    return sonde_tensors_find(s->f, named(s, name)) != NULL;
}

/* ---- config -------------------------------------------------------------------------------------- */

/* config.json lies beside ae.pt, or above checkpoints/ae_STEP.pt. */
static enum sonde_code load_config(struct file *s, sonde_err *err)
{
    char *dir = NULL, *up = NULL;
    enum sonde_code rc = sonde_dict_dir_of(s->path, &dir, err);
    if (!rc && !sonde_dict_has(dir, SONDE_DL_CFG) &&
        (sonde_dict_ends(dir, "/checkpoints") || !strcmp(dir, "checkpoints")))
        rc = sonde_dict_join(dir, "..", &up, err);
    const char *where = up ? up : dir;
    if (!rc)
        rc = sonde_dict_join(where, SONDE_DL_CFG, &s->cfg, err);
    if (!rc && sonde_dict_has(where, SONDE_DL_CFG))
        rc = sonde_json_load_in(where, SONDE_DL_CFG, SONDE_DICT_MAX_CFG, &s->config, err);
    if (!rc && s->config) {
        json_t *trainer = json_object_get(s->config, "trainer");
        if (!json_is_object(trainer))
            rc = sonde_fail(err, SONDE_E_INPUT, "%s: has no object 'trainer'", s->cfg);
        else
            s->trainer = json_incref(trainer);
    }
    free(up);
    free(dir);
    return rc;
}

static json_t *json_of(const sonde_meta *m)
{
    switch (m->type) {
    case SONDE_META_INT:
        return json_integer(m->i);
    case SONDE_META_FLOAT:
        return isfinite(m->f) ? json_real(m->f) : json_null();
    case SONDE_META_BOOL:
        return json_boolean(m->i != 0);
    case SONDE_META_STRING:
        return json_stringn(m->s, m->n_bytes);
    default:
        return json_null();
    }
}

/* The entries "config.KEY" of a back-up. */
static enum sonde_code config_of_backup(struct file *s, sonde_err *err)
{
    if (s->trainer || !(s->trainer = json_object()))
        return s->trainer ? SONDE_OK
                          : sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for its config", s->path);
    for (size_t i = 0; i < s->f->n_meta; i++)
        if (!strncmp(s->f->meta[i].key, "config.", 7) &&
            json_object_set_new(s->trainer, s->f->meta[i].key + 7, json_of(&s->f->meta[i])))
            return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for its config", s->path);
    return SONDE_OK;
}

static const sonde_dl_class *guess(struct file *s)
{
    int i = has(s, "group_sizes")    ? SONDE_DL_MATRYOSHKA
            : has(s, "W_enc")        ? SONDE_DL_JUMPRELU
            : has(s, "r_mag")        ? SONDE_DL_GATED
            : has(s, "decoder.bias") ? SONDE_DL_NEW
            : has(s, "b_dec")        ? SONDE_DL_TOPK
                                     : SONDE_DL_STANDARD;
    return &sonde_dl_classes[i];
}

static enum sonde_code find_class(struct file *s, char note[SONDE_DICT_NOTE], sonde_err *err)
{
    const char *name = NULL, *what = s->config ? s->cfg : s->path;
    enum sonde_code rc =
        s->trainer ? sonde_json_string(s->trainer, "dict_class", NULL, what, &name, err) : SONDE_OK;
    if (rc)
        return rc;
    if (!name) {
        s->class = guess(s);
        sonde_dict_note(note, "no config names its class; its tensors are those of %s%s", s->class->name,
                        s->class->act == SONDE_DICT_TOPK ? " (or of BatchTopKSAE)" : "");
        return SONDE_OK;
    }
    for (int i = 0; i < SONDE_DL_CLASSES; i++)
        if (!strcmp(sonde_dl_classes[i].name, name)) {
            s->class = &sonde_dl_classes[i];
            return SONDE_OK;
        }
    return sonde_fail(err, SONDE_E_INPUT, "%s: dict_class '%.60s' is not read", what, name);
}

/* ---- numbers ------------------------------------------------------------------------------------- */

static enum sonde_code find_shape(struct file *s, size_t *f, size_t *d, sonde_err *err)
{
    return s->class->linear ? sonde_dict_matrix(s->f, s->path, named(s, "encoder.weight"), f, d, err)
                            : sonde_dict_matrix(s->f, s->path, named(s, "W_enc"), d, f, err);
}

static enum sonde_code read_matrices(struct file *s, sonde_dict *d, sonde_err *err)
{
    size_t f = d->n_latents, n = d->d_in;
    enum sonde_code rc;
    if (s->class->linear) {
        rc = sonde_dict_read_matrix(s->f, s->path, named(s, "encoder.weight"), f, n, d->w_enc, err);
        return rc ? rc
                  : sonde_dict_read_transposed(s->f, s->path, named(s, "decoder.weight"), n, f, d->w_dec,
                                               err);
    }
    rc = sonde_dict_read_transposed(s->f, s->path, named(s, "W_enc"), n, f, d->w_enc, err);
    return rc ? rc : sonde_dict_read_matrix(s->f, s->path, named(s, "W_dec"), f, n, d->w_dec, err);
}

static enum sonde_code read_vectors(struct file *s, sonde_dict *d, sonde_err *err)
{
    size_t f = d->n_latents;
    enum sonde_code rc = sonde_dict_read_vector(s->f, s->path, named(s, s->class->b_enc), f, d->b_enc, err);
    if (!rc)
        rc = sonde_dict_read_vector(s->f, s->path, named(s, s->class->b_dec), d->d_in, d->b_dec, err);
    if (!rc && d->act == SONDE_DICT_GATED)
        rc = sonde_dict_read_vector(s->f, s->path, named(s, "r_mag"), f, d->r_mag, err);
    if (!rc && d->act == SONDE_DICT_GATED)
        rc = sonde_dict_read_vector(s->f, s->path, named(s, "mag_bias"), f, d->b_mag, err);
    if (!rc && d->act == SONDE_DICT_JUMPRELU && !s->class->ranked)
        rc = sonde_dict_read_vector(s->f, s->path, named(s, "threshold"), f, d->threshold, err);
    return rc;
}

/* One threshold for all latents; -1 while it has not been trained, and then all positive latents pass. */
static enum sonde_code read_threshold(struct file *s, sonde_dict *d, char note[SONDE_DICT_NOTE],
                                      sonde_err *err)
{
    double t;
    if (!has(s, "threshold"))
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: %s without a threshold: what it does outside a batch is not in the file",
                          s->path, s->class->name);
    enum sonde_code rc = sonde_dict_read_scalar(s->f, s->path, named(s, "threshold"), &t, err);
    if (rc)
        return rc;
    if (t < 0)
        sonde_dict_note(note, "its threshold of %g is not trained: all positive latents pass", t);
    for (size_t i = 0; i < d->n_latents; i++)
        d->threshold[i] = (float)fmax(t, 0);
    return SONDE_OK;
}

/* k is in the file, in the config, or in both; then they must agree. */
static enum sonde_code read_k(struct file *s, sonde_dict *d, sonde_err *err)
{
    const int64_t none = 0;
    int64_t in_config = 0;
    double in_file = 0;
    enum sonde_code rc = s->trainer ? sonde_json_int(s->trainer, "k", 1, SONDE_DICT_MAX_SIZE, &none,
                                                     s->config ? s->cfg : s->path, &in_config, err)
                                    : SONDE_OK;
    if (!rc && has(s, "k"))
        rc = sonde_dict_read_scalar(s->f, s->path, named(s, "k"), &in_file, err);
    if (rc)
        return rc;
    if (in_file != 0 &&
        (!(in_file >= 1) || in_file > (double)SONDE_DICT_MAX_SIZE || in_file != floor(in_file)))
        return sonde_fail(err, SONDE_E_INPUT, "%s: k is %g", s->path, in_file);
    if (in_file != 0 && in_config != 0 && in_file != (double)in_config)
        return sonde_fail(err, SONDE_E_INPUT, "%s: k is %g, but %lld in %s", s->path, in_file,
                          (long long)in_config, s->config ? s->cfg : "its config");
    d->k = in_file != 0 ? (size_t)in_file : (size_t)in_config;
    return d->k ? sonde_dict_set_meta(d, "k", json_integer((json_int_t)d->k), err) : SONDE_OK;
}

/* TopK goes without its threshold, but has one for whoever wants to encode latent by latent: kept for
 * writing. */
static enum sonde_code keep_threshold(struct file *s, sonde_dict *d, sonde_err *err)
{
    double t;
    if (!has(s, "threshold"))
        return SONDE_OK;
    enum sonde_code rc = sonde_dict_read_scalar(s->f, s->path, named(s, "threshold"), &t, err);
    if (!rc && t >= 0 && isfinite(t))
        rc = sonde_dict_set_meta(d, SONDE_DL_THRESHOLD, json_real(t), err);
    return rc;
}

static void scale(float *x, size_t n, double by)
{
    for (size_t i = 0; x && i < n; i++)
        x[i] = (float)((double)x[i] * by);
}

/* A back-up was trained on x / c: biases and thresholds times c read raw activations. */
static enum sonde_code unscale(const struct file *s, sonde_dict *d, char note[SONDE_DICT_NOTE],
                               sonde_err *err)
{
    const sonde_meta *m = sonde_meta_find(s->f, "norm_factor");
    m = m ? m : sonde_meta_find(s->f, "config.norm_factor");
    if (!m) {
        sonde_dict_note(note, "a back-up without norm_factor, taken to be in raw units");
        return SONDE_OK;
    }
    double c = m->f;
    if ((m->type != SONDE_META_FLOAT && m->type != SONDE_META_INT) || !(c > 0) || !isfinite(c))
        return sonde_fail(err, SONDE_E_INPUT, "%s: norm_factor is not a positive number", s->path);
    scale(d->b_enc, d->n_latents, c);
    scale(d->b_dec, d->d_out, c);
    scale(d->b_mag, d->n_latents, c);
    scale(d->threshold, d->n_latents, c);
    sonde_dict_note(note, "a back-up in normalised units: biases and thresholds were multiplied by %.6g", c);
    return SONDE_OK;
}

/* ---- what it knows ------------------------------------------------------------------------------- */

/* The place in the model: submodule_name is free text, the examples write "resid_post_layer_8". */
static enum sonde_code set_hook(const struct file *s, sonde_dict *d, sonde_err *err)
{
    static const char *const places[][2] = {
        {"resid_post", "hook_resid_post"}, {"attn_out", "hook_attn_out"}, {"mlp_out", "hook_mlp_out"}};
    const char *submodule = json_string_value(json_object_get(s->trainer, "submodule_name"));
    const json_t *layer = json_object_get(s->trainer, "layer");
    if (!submodule)
        return SONDE_OK;
    for (size_t i = 0; i < 3 && json_is_integer(layer); i++)
        if (strstr(submodule, places[i][0]))
            return sonde_dict_set_meta(
                d, "hook_name",
                json_sprintf("blocks.%lld.%s", (long long)json_integer_value(layer), places[i][1]), err);
    return sonde_dict_set_meta(d, "hook_name", json_string(submodule), err);
}

static enum sonde_code read_meta(struct file *s, sonde_dict *d, sonde_err *err)
{
    json_t *name = json_object_get(s->trainer, "lm_name");
    json_t *context = json_object_get(json_object_get(s->config, "buffer"), "ctx_len");
    enum sonde_code rc = sonde_dict_text(d, s->class->trained_as, &d->trained_as, err);
    if (!rc && json_is_string(name))
        rc = sonde_dict_set_meta(d, "model_name", json_incref(name), err);
    if (!rc && json_is_integer(context))
        rc = sonde_dict_set_meta(d, "context_size", json_incref(context), err);
    if (!rc && s->trainer)
        rc = set_hook(s, d, err);
    if (!rc && s->config)
        rc = sonde_dict_set_meta(d, SONDE_DL_META, json_incref(s->config), err);
    return rc;
}

/* Matryoshka: the widths of the groups, kept for whoever writes it again. */
static enum sonde_code read_groups(struct file *s, sonde_dict *d, sonde_err *err)
{
    const sonde_tensor *t = sonde_tensors_find(s->f, named(s, "group_sizes"));
    if (!t || t->rank != 1 || t->dtype != SONDE_I64 || t->dim[0] > d->n_latents)
        return SONDE_OK;
    json_t *list = json_array();
    int bad = list == NULL;
    for (uint64_t i = 0; i < t->dim[0] && !bad; i++) {
        int64_t n;
        memcpy(&n, (const char *)t->data + 8 * i, 8);
        bad |= json_array_append_new(list, json_integer(n));
    }
    if (!bad)
        return sonde_dict_set_meta(d, "group_sizes", list, err);
    json_decref(list);
    return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for its groups", s->path);
}

static enum sonde_code build(struct file *s, sonde_budget *budget, sonde_dict **out,
                             char note[SONDE_DICT_NOTE], sonde_err *err)
{
    size_t f = 0, n = 0;
    sonde_dict *d = NULL;
    enum sonde_code rc = find_shape(s, &f, &n, err);
    if (!rc)
        rc = sonde_dict_new(s->class->act, n, n, f, false, budget, &d, err);
    if (rc)
        return rc;
    d->pre_bias = s->class->pre_bias;
    rc = read_matrices(s, d, err);
    if (!rc)
        rc = read_vectors(s, d, err);
    if (!rc && s->class->ranked)
        rc = read_k(s, d, err);
    if (!rc && s->class->ranked && d->act == SONDE_DICT_JUMPRELU)
        rc = read_threshold(s, d, note, err);
    if (!rc && d->act == SONDE_DICT_TOPK && !s->prefix[0])
        rc = keep_threshold(s, d, err);
    if (!rc && s->prefix[0])
        rc = unscale(s, d, note, err);
    if (!rc)
        rc = read_meta(s, d, err);
    if (!rc)
        rc = read_groups(s, d, err);
    if (rc)
        sonde_dict_free(d);
    else
        *out = d;
    return rc;
}

static bool is_backup(const sonde_tensors *f)
{
    for (size_t i = 0; i < f->n_tensors; i++)
        if (!strncmp(f->tensor[i].name, "ae.", 3))
            return true;
    return false;
}

static enum sonde_code read(const char *path, sonde_budget *budget, sonde_dict **out,
                            char note[SONDE_DICT_NOTE], sonde_err *err)
{
    struct file s = {.prefix = ""};
    enum sonde_code rc = SONDE_OK;
    if (sonde_dict_is_dir(path))
        rc = sonde_dict_join(path, SONDE_DL_WEIGHTS, &s.path, err);
    else if (!(s.path = strdup(path)))
        rc = sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the path", path);
    if (!rc)
        rc = load_config(&s, err);
    if (!rc)
        rc = sonde_torchzip_open(s.path, budget, &s.f, err);
    if (!rc && is_backup(s.f)) {
        s.prefix = "ae.";
        rc = config_of_backup(&s, err);
    }
    if (!rc)
        rc = find_class(&s, note, err);
    if (!rc)
        rc = build(&s, budget, out, note, err);
    sonde_tensors_close(s.f);
    json_decref(s.trainer);
    json_decref(s.config);
    free(s.cfg);
    free(s.path);
    return rc;
}

const sonde_dict_format sonde_format_dl = {"dictionary_learning",
                                           "dictionary_learning: a directory with ae.pt and config.json",
                                           probe, read, sonde_dl_write};
