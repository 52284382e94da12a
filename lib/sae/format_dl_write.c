/* SPDX-License-Identifier: MIT
 * dictionary_learning, written: the class that computes the same, its state dict and its config. */
#include <stdlib.h>
#include <string.h>

#include "../file/torchzip.h"
#include "format_dl_impl.h"

/* ---- the class ----------------------------------------------------------------------------------- */

static bool one_threshold(const sonde_dict *d)
{
    for (size_t i = 1; i < d->n_latents; i++)
        if (d->threshold[i] != d->threshold[0])
            return false;
    return d->threshold[0] >= 0;
}

static const json_t *trainer_of(const sonde_dict *d)
{
    return json_object_get(json_object_get(d->meta, SONDE_DL_META), "trainer");
}

/* k of a BatchTopK that has become a JumpReLU; 0 where nothing says it. */
static size_t k_of(const sonde_dict *d)
{
    json_int_t k = json_integer_value(json_object_get(d->meta, "k"));
    if (k < 1)
        k = json_integer_value(json_object_get(trainer_of(d), "k"));
    return d->k ? d->k : k > 0 ? (size_t)k : 0;
}

/* Do the group sizes sum up to the latents, none of them less than 1? */
static bool has_groups(const sonde_dict *d)
{
    const json_t *list = json_object_get(d->meta, "group_sizes");
    size_t sum = 0, n = json_array_size(list);
    for (size_t i = 0; i < n; i++) {
        json_int_t size = json_integer_value(json_array_get(list, i));
        if (size < 1 || (size_t)size > d->n_latents - sum)
            return false;
        sum += (size_t)size;
    }
    return sum == d->n_latents;
}

static const sonde_dl_class *class_of(const sonde_dict *d)
{
    bool batch = d->trained_as && strstr(d->trained_as, "batchtopk");
    switch (d->act) {
    case SONDE_DICT_TOPK:
        return &sonde_dl_classes[SONDE_DL_TOPK];
    case SONDE_DICT_GATED:
        return &sonde_dl_classes[SONDE_DL_GATED];
    case SONDE_DICT_JUMPRELU:
        if (!batch || !one_threshold(d) || !k_of(d))
            return &sonde_dl_classes[SONDE_DL_JUMPRELU];
        return &sonde_dl_classes[has_groups(d) ? SONDE_DL_MATRYOSHKA : SONDE_DL_BATCHTOPK];
    default:
        return &sonde_dl_classes[d->pre_bias ? SONDE_DL_STANDARD : SONDE_DL_NEW];
    }
}

static enum sonde_code check_writable(const sonde_dict *d, const char *path, sonde_err *err)
{
    if (d->act == SONDE_DICT_GROUPMAX)
        return sonde_fail(err, SONDE_E_USAGE, "%s: dictionary_learning has no groupmax; sparsify does", path);
    if (d->norm != SONDE_DICT_NORM_NONE)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: dictionary_learning cannot hold an input norm per row; saelens can", path);
    if (d->d_in != d->d_out || d->w_skip)
        return sonde_fail(
            err, SONDE_E_USAGE,
            "%s: dictionary_learning holds one width and no skip connection, this one has %zu and %zu%s; "
            "saelens holds both",
            path, d->d_in, d->d_out, d->w_skip ? " and a skip" : "");
    return SONDE_OK;
}

/* ---- ae.pt --------------------------------------------------------------------------------------- */

/* What the tensors point to while they are written. */
struct state {
    float *turned; /* the matrix that lies the other way */
    int64_t *groups;
    int32_t k;
    float threshold;
    sonde_tensor t[9];
    size_t n;
};

static void add(struct state *s, const char *name, const float *x, size_t rows, size_t columns)
{
    s->t[s->n++] = sonde_dict_tensor(name, x, rows, columns);
}

static void add_other(struct state *s, const char *name, enum sonde_dtype type, const void *x, int rank,
                      size_t n)
{
    s->t[s->n++] = (sonde_tensor){.name = name,
                                  .dtype = type,
                                  .rank = rank,
                                  .dim = {n},
                                  .data = x,
                                  .n_bytes = n * sonde_dtype_size(type)};
}

static enum sonde_code add_groups(struct state *s, const sonde_dict *d, sonde_err *err)
{
    const json_t *list = json_object_get(d->meta, "group_sizes");
    size_t n = json_array_size(list);
    s->groups = calloc(n, sizeof *s->groups);
    if (!s->groups)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu groups", n);
    for (size_t i = 0; i < n; i++)
        s->groups[i] = json_integer_value(json_array_get(list, i));
    add_other(s, "group_sizes", SONDE_I64, s->groups, 1, n);
    return SONDE_OK;
}

static enum sonde_code fill(struct state *s, const sonde_dict *d, const sonde_dl_class *c, sonde_err *err)
{
    size_t f = d->n_latents, n = d->d_in;
    enum sonde_code rc = c->linear ? sonde_dict_transpose(d->w_dec, f, n, &s->turned, err)
                                   : sonde_dict_transpose(d->w_enc, f, n, &s->turned, err);
    if (rc)
        return rc;
    if (c->ranked) {
        s->k = (int32_t)k_of(d);
        const json_t *kept = json_object_get(d->meta, SONDE_DL_THRESHOLD);
        s->threshold = d->threshold         ? d->threshold[0]
                       : json_is_real(kept) ? (float)json_real_value(kept)
                                            : -1; /* not trained */
        add_other(s, "k", SONDE_I32, &s->k, 0, 1);
        add_other(s, "threshold", SONDE_F32, &s->threshold, 0, 1);
    }
    add(s, c->linear ? "encoder.weight" : "W_enc", c->linear ? d->w_enc : s->turned, c->linear ? f : n,
        c->linear ? n : f);
    add(s, c->linear ? "decoder.weight" : "W_dec", c->linear ? s->turned : d->w_dec, c->linear ? n : f,
        c->linear ? f : n);
    add(s, c->b_enc, d->b_enc, f, 0);
    add(s, c->b_dec, d->b_dec, n, 0);
    if (c->act == SONDE_DICT_GATED) {
        add(s, "r_mag", d->r_mag, f, 0);
        add(s, "mag_bias", d->b_mag, f, 0);
    }
    if (c->act == SONDE_DICT_JUMPRELU && !c->ranked)
        add(s, "threshold", d->threshold, f, 0);
    return c == &sonde_dl_classes[SONDE_DL_MATRYOSHKA] ? add_groups(s, d, err) : SONDE_OK;
}

static enum sonde_code write_weights(const sonde_dict *d, const sonde_dl_class *c, const char *path,
                                     bool overwrite, sonde_err *err)
{
    struct state s = {0};
    enum sonde_code rc = fill(&s, d, c, err);
    if (!rc)
        rc = sonde_torchzip_write(path, s.t, s.n, NULL, 0, overwrite, err);
    free(s.groups);
    free(s.turned);
    return rc;
}

/* ---- config.json --------------------------------------------------------------------------------- */

/* The entry unless it is there already. */
static int set_missing(json_t *o, const char *key, json_t *v)
{
    if (!json_object_get(o, key))
        return json_object_set_new(o, key, v);
    json_decref(v);
    return 0;
}

static json_t *trainer(const sonde_dict *d, const sonde_dl_class *c)
{
    const json_t *old = trainer_of(d), *groups = json_object_get(d->meta, "group_sizes");
    json_t *t = old ? json_deep_copy(old) : json_object();
    const char *model = sonde_dict_meta_text(d, "model_name"), *hook = sonde_dict_meta_text(d, "hook_name");
    const char *was = json_string_value(json_object_get(t, "dict_class"));
    int bad = t == NULL, layer = sonde_dict_layer_of(hook);
    if (!bad && (!was || strcmp(was, c->name) != 0))
        bad |= json_object_set_new(t, "trainer_class", json_string(c->trainer));
    bad |= json_object_set_new(t, "dict_class", json_string(c->name));
    bad |= json_object_set_new(t, "activation_dim", json_integer((json_int_t)d->d_in));
    bad |= json_object_set_new(t, "dict_size", json_integer((json_int_t)d->n_latents));
    bad |= json_object_set_new(t, "device", json_string("cpu"));
    if (c->ranked)
        bad |= json_object_set_new(t, "k", json_integer((json_int_t)k_of(d)));
    if (c == &sonde_dl_classes[SONDE_DL_MATRYOSHKA])
        bad |= json_object_set(t, "group_sizes", (json_t *)(uintptr_t)groups);
    bad |= set_missing(t, "lm_name", json_string(model ? model : ""));
    bad |= set_missing(t, "layer", layer < 0 ? json_null() : json_integer(layer));
    bad |= set_missing(t, "submodule_name", hook ? json_string(hook) : json_null());
    if (!bad)
        return t;
    json_decref(t);
    return NULL;
}

static json_t *config(const sonde_dict *d, const sonde_dl_class *c)
{
    const json_t *old = json_object_get(d->meta, SONDE_DL_META);
    json_t *context = json_object_get(d->meta, "context_size");
    json_t *cfg = json_is_object(old) ? json_deep_copy(old) : json_object();
    json_t *buffer = json_object();
    int bad = cfg == NULL || buffer == NULL;
    bad |= json_object_set_new(cfg, "trainer", trainer(d, c));
    if (json_is_integer(context))
        bad |= json_object_set(buffer, "ctx_len", context);
    bad |= set_missing(cfg, "buffer", buffer);
    if (!bad)
        return cfg;
    json_decref(cfg);
    return NULL;
}

enum sonde_code sonde_dl_write(const sonde_dict *d, const char *path, bool overwrite, sonde_err *err)
{
    static const char *const names[] = {SONDE_DL_WEIGHTS, SONDE_DL_CFG, NULL};
    char *weights = NULL, *cfg = NULL;
    const sonde_dict *use = d;
    sonde_dict *copy = NULL;
    enum sonde_code rc = check_writable(d, path, err);
    const sonde_dl_class *c = class_of(d);
    if (!rc)
        rc = sonde_dict_in_form(d, c->pre_bias, true, &use, &copy, err);
    if (!rc)
        rc = sonde_dict_make_dir(path, names, overwrite, err);
    if (!rc)
        rc = sonde_dict_join(path, SONDE_DL_WEIGHTS, &weights, err);
    if (!rc)
        rc = sonde_dict_join(path, SONDE_DL_CFG, &cfg, err);
    if (!rc)
        rc = write_weights(use, c, weights, overwrite, err);
    if (!rc)
        rc = sonde_dict_write_json(cfg, config(use, c), overwrite, err);
    sonde_dict_free(copy);
    free(cfg);
    free(weights);
    return rc;
}
