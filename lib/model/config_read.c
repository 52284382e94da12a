/* SPDX-License-Identifier: MIT
 * Keys of a config.json, one at a time, until the first error. */
#include <string.h>

#include "../file/json.h"
#include "config_impl.h"

bool config_has(const struct config_reader *r, const char *key)
{
    const json_t *v = json_object_get(r->obj, key);
    return v && !json_is_null(v);
}

int64_t config_int(struct config_reader *r, const char *key, int64_t lo, int64_t hi, int64_t fallback)
{
    int64_t v = fallback;
    if (!r->code)
        r->code = sonde_json_int(r->obj, key, lo, hi, &fallback, r->path, &v, r->err);
    return v;
}

size_t config_size(struct config_reader *r, const char *key, int64_t hi)
{
    int64_t v = 1;
    if (!r->code)
        r->code = sonde_json_int(r->obj, key, 1, hi, NULL, r->path, &v, r->err);
    return (size_t)v;
}

double config_double(struct config_reader *r, const char *key, double lo, double hi, double fallback)
{
    double v = fallback;
    if (!r->code)
        r->code = sonde_json_double(r->obj, key, lo, hi, &fallback, r->path, &v, r->err);
    return v;
}

bool config_bool(struct config_reader *r, const char *key, bool fallback)
{
    bool v = fallback;
    if (!r->code)
        r->code = sonde_json_bool(r->obj, key, fallback, r->path, &v, r->err);
    return v;
}

const char *config_string(struct config_reader *r, const char *key, const char *fallback)
{
    const char *v = fallback;
    if (!r->code)
        r->code = sonde_json_string(r->obj, key, fallback, r->path, &v, r->err);
    return v;
}

const json_t *config_container(struct config_reader *r, const char *key, json_type type)
{
    const json_t *v = json_object_get(r->obj, key);
    if (!v || json_is_null(v))
        return NULL;
    if (json_typeof(v) == type)
        return v;
    if (!r->code)
        r->code = sonde_fail(r->err, SONDE_E_INPUT, "%s: '%s' must be %s", r->path, key,
                             type == JSON_OBJECT ? "an object" : "a list");
    return NULL;
}

bool config_is_local(struct config_reader *r, const char *key, const json_t *entry, const char *global,
                     const char *local)
{
    const char *word = json_string_value(entry);
    if (word && !strcmp(word, local))
        return true;
    if (!r->code && (!word || strcmp(word, global)))
        r->code = sonde_fail(r->err, SONDE_E_INPUT, "%s: %s has an entry '%.40s'; '%s' and '%s' are known",
                             r->path, key, word ? word : "(not a string)", global, local);
    return false;
}

void config_count(struct config_reader *r, const char *key, size_t n, size_t n_layers)
{
    if (!r->code && n != n_layers)
        r->code = sonde_fail(r->err, SONDE_E_INPUT, "%s: %s gives %zu layers, this model has %zu", r->path,
                             key, n, n_layers);
}

static const struct {
    const char *name;
    enum sonde_act act;
} act_names[] = {
    {"relu", SONDE_ACT_RELU},           {"gelu", SONDE_ACT_GELU_ERF},
    {"gelu_new", SONDE_ACT_GELU_TANH},  {"gelu_pytorch_tanh", SONDE_ACT_GELU_TANH},
    {"gelu_fast", SONDE_ACT_GELU_TANH}, {"quick_gelu", SONDE_ACT_QUICK_GELU},
    {"silu", SONDE_ACT_SILU},           {"swish", SONDE_ACT_SILU},
};

enum sonde_act config_act(struct config_reader *r, const char *name)
{
    for (size_t i = 0; i < sizeof act_names / sizeof *act_names; i++)
        if (name && !strcmp(name, act_names[i].name))
            return act_names[i].act;
    if (!r->code)
        r->code = sonde_fail(
            r->err, SONDE_E_INPUT,
            "%s: activation '%.40s' is not known (relu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, "
            "quick_gelu, silu are)",
            r->path, name ? name : "null");
    return SONDE_ACT_NONE;
}
