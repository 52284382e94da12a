/* SPDX-License-Identifier: MIT
 * cfg.json of SAELens 3 to 6. Before 6 it is flat and has older names; from 6 on what is not needed to
 * compute is in `metadata`. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../file/json.h"
#include "format_saelens_impl.h"

const sonde_saelens_arch sonde_saelens_archs[] = {
    {"standard", SONDE_DICT_RELU, false, false, false, true},
    {"topk", SONDE_DICT_TOPK, false, false, false, true},
    {"jumprelu", SONDE_DICT_JUMPRELU, false, false, false, true},
    {"gated", SONDE_DICT_GATED, false, false, false, true},
    {"transcoder", SONDE_DICT_RELU, true, false, false, true},
    {"skip_transcoder", SONDE_DICT_RELU, true, true, false, true},
    {"jumprelu_transcoder", SONDE_DICT_JUMPRELU, true, false, false, true},
    {"jumprelu_skip_transcoder", SONDE_DICT_JUMPRELU, true, true, false, true},
    {"batchtopk", SONDE_DICT_JUMPRELU, false, false, true, true},
    {"matryoshka_batchtopk", SONDE_DICT_JUMPRELU, false, false, true, true},
    {"groupmax", SONDE_DICT_GROUPMAX, false, false, false, false},
    {"topk_transcoder", SONDE_DICT_TOPK, true, false, false, false},
    {"topk_skip_transcoder", SONDE_DICT_TOPK, true, true, false, false},
    {"gated_transcoder", SONDE_DICT_GATED, true, false, false, false},
    {"gated_skip_transcoder", SONDE_DICT_GATED, true, true, false, false},
    {"groupmax_transcoder", SONDE_DICT_GROUPMAX, true, false, false, false},
    {"groupmax_skip_transcoder", SONDE_DICT_GROUPMAX, true, true, false, false},
    {0},
};

bool sonde_saelens_is_version_6(const char *version)
{
    if (!version || strspn(version, "0123456789.") != strlen(version) || strlen(version) > 20)
        return false;
    char *end;
    long major = strtol(version, &end, 10);
    return major >= 6 && *end == '.';
}

/* The rule by which SAELens itself tells: versions before 6.0.0-rc.0, and none, are old. */
static bool is_old(const json_t *root)
{
    const char *version = json_string_value(json_object_get(root, "sae_lens_version"));
    if (!version || !*version)
        version = json_string_value(json_object_get(json_object_get(root, "metadata"), "sae_lens_version"));
    return !version || strtol(version, NULL, 10) < 6;
}

static enum sonde_code read_arch(const char *name, const char *what, const sonde_saelens_arch **out,
                                 sonde_err *err)
{
    for (const sonde_saelens_arch *a = sonde_saelens_archs; a->name; a++)
        if (!strcmp(a->name, name)) {
            *out = a;
            return SONDE_OK;
        }
    return sonde_fail(
        err, SONDE_E_INPUT,
        "%s: architecture '%.40s' is not read; standard, topk, jumprelu, gated, (skip, jumprelu) "
        "transcoders and checkpoints of (matryoshka_)batchtopk are",
        what, name);
}

/* activation_fn before version 6: relu, or topk with its k. */
static enum sonde_code read_activation(const json_t *root, const char *what, const char **arch,
                                       const json_t **k, sonde_err *err)
{
    const char *key = json_object_get(root, "activation_fn_str") ? "activation_fn_str" : "activation_fn";
    const char *name = NULL;
    enum sonde_code rc = sonde_json_string(root, key, "relu", what, &name, err);
    if (rc || !strcmp(name, "relu"))
        return rc;
    if (strcmp(name, "topk") != 0 || (strcmp(*arch, "standard") != 0 && strcmp(*arch, "topk") != 0))
        return sonde_fail(err, SONDE_E_INPUT, "%s: activation '%.40s' of architecture '%.40s' is not read",
                          what, name, *arch);
    const json_t *kwargs = json_object_get(root, "activation_fn_kwargs");
    if (json_is_true(json_object_get(kwargs, "signed")))
        return sonde_fail(err, SONDE_E_INPUT, "%s: topk of absolute values (\"signed\") is not read", what);
    *arch = "topk";
    if (json_object_get(kwargs, "k"))
        *k = kwargs;
    return SONDE_OK;
}

static enum sonde_code read_k(const json_t *root, const char *what, sonde_saelens_cfg *c, sonde_err *err)
{
    if (c->arch->act != SONDE_DICT_TOPK && c->arch->act != SONDE_DICT_GROUPMAX)
        return SONDE_OK;
    double k;
    enum sonde_code rc = sonde_json_double(root, "k", 1, (double)SONDE_DICT_MAX_SIZE, NULL, what, &k, err);
    if (rc)
        return rc;
    if (k != floor(k))
        return sonde_fail(err, SONDE_E_INPUT, "%s: 'k' is %g, it must be a whole number", what, k);
    c->k = (size_t)k;
    return SONDE_OK;
}

static enum sonde_code read_size(const json_t *root, const char *key, const char *what, size_t *out,
                                 sonde_err *err)
{
    const int64_t unknown = 0;
    int64_t n;
    enum sonde_code rc = sonde_json_int(root, key, 1, SONDE_DICT_MAX_SIZE, &unknown, what, &n, err);
    if (!rc)
        *out = (size_t)n;
    return rc;
}

static enum sonde_code read_norm(const json_t *root, const char *what, sonde_saelens_cfg *c, sonde_err *err)
{
    const json_t *v = json_object_get(root, "normalize_activations");
    const char *name = json_string_value(v);
    if (!v || json_is_null(v) || json_is_false(v))
        return SONDE_OK;
    if (json_is_true(v)) /* 3.0 */
        name = "expected_average_only_in";
    if (!name)
        return sonde_fail(err, SONDE_E_INPUT, "%s: 'normalize_activations' must be a string", what);
    if (!strcmp(name, "none"))
        return SONDE_OK;
    if (!strcmp(name, "expected_average_only_in"))
        c->expects_scale = true;
    else if (!strcmp(name, "constant_norm_rescale"))
        c->norm = SONDE_DICT_NORM_CONSTANT;
    else if (!strcmp(name, "layer_norm"))
        c->norm = SONDE_DICT_NORM_LAYER;
    else
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: normalize_activations '%.40s' is not read; none, expected_average_only_in, "
                          "constant_norm_rescale and layer_norm are",
                          what, name);
    if (c->arch->transcoder)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: normalize_activations '%s' of a transcoder is not read: it does not say how "
                          "outputs were normalised",
                          what, name);
    return SONDE_OK;
}

/* ---- metadata ------------------------------------------------------------------------------------ */

static const char *const understood[] = {
    "architecture",
    "d_in",
    "d_sae",
    "d_out",
    "dtype",
    "device",
    "k",
    "activation_fn",
    "activation_fn_str",
    "activation_fn_kwargs",
    "apply_b_dec_to_input",
    "finetuning_scaling_factor",
    "normalize_activations",
    "rescale_acts_by_decoder_norm",
    "sae_lens_version",
    "metadata",
    NULL,
};

static const char *new_name(const char *key)
{
    static const char *const renamed[][2] = {
        {"hook_point", "hook_name"},
        {"hook_point_layer", "hook_layer"},
        {"hook_point_head_index", "hook_head_index"},
    };
    for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++)
        if (!strcmp(key, renamed[i][0]))
            return renamed[i][1];
    return key;
}

static bool is_understood(const char *key)
{
    const char *const *k = understood;
    while (*k && strcmp(*k, key) != 0)
        k++;
    return *k != NULL;
}

/* Copy what is not null, and not there already. */
static bool keep(json_t *meta, const char *key, json_t *v)
{
    if (json_is_null(v) || json_object_get(meta, key))
        return true;
    return json_object_set_new(meta, key, json_deep_copy(v)) == 0;
}

/* The version of an old file means nothing to a new one; ours is written again. */
static bool is_idle_version(const char *key, const json_t *v, bool old)
{
    const char *text = json_string_value(v);
    return !strcmp(key, "sae_lens_version") && (old || (text && !strcmp(text, SONDE_SAELENS_VERSION)));
}

/* What does not matter to the numbers: metadata first, then every other key of the top level, also those of a
 * training run, unless its details are among the metadata. */
static enum sonde_code fill_meta(const json_t *root, bool old, const char *what, sonde_saelens_cfg *c,
                                 sonde_err *err)
{
    const json_t *metadata = json_object_get(root, "metadata");
    if (metadata && !json_is_null(metadata) && !json_is_object(metadata))
        return sonde_fail(err, SONDE_E_INPUT, "%s: 'metadata' must be an object", what);
    const json_t *details = json_object_get(metadata, "training_architecture_details");
    const char *key;
    json_t *v;
    bool ok = true;
    json_object_foreach((json_t *)(uintptr_t)metadata, key, v)
    {
        if (strcmp(key, "training_architecture") != 0 && !is_idle_version(key, v, old))
            ok = ok && keep(c->meta, key, v);
    }
    json_object_foreach((json_t *)(uintptr_t)root, key, v)
    {
        bool none = !strcmp(key, "reshape_activations") &&
                    !strcmp(json_is_string(v) ? json_string_value(v) : "", "none");
        if (!is_understood(key) && !none && !json_object_get(details, key))
            ok = ok && keep(c->meta, new_name(key), v);
    }
    const char *hook = json_string_value(json_object_get(c->meta, "hook_name"));
    if (old && hook && strstr(hook, "hook_z") && !json_object_get(root, "reshape_activations"))
        ok = ok && json_object_set_new(c->meta, "reshape_activations", json_string("hook_z")) == 0;
    if (!ok)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for its metadata", what);
    c->trained_as = json_string_value(json_object_get(metadata, "training_architecture"));
    if (!c->trained_as && (c->arch->batch || c->arch->transcoder))
        c->trained_as = c->arch->name;
    return SONDE_OK;
}

enum sonde_code sonde_saelens_config(const json_t *root, const char *what, sonde_saelens_cfg *c,
                                     sonde_err *err)
{
    if (!json_is_object(root))
        return sonde_fail(err, SONDE_E_INPUT, "%s: is not a JSON object", what);
    bool old = is_old(root);
    const json_t *k = root;
    const char *arch = NULL;
    enum sonde_code rc = sonde_json_string(root, "architecture", old ? "standard" : NULL, what, &arch, err);
    if (!rc && !arch)
        rc = sonde_fail(err, SONDE_E_INPUT, "%s: the key 'architecture' is missing", what);
    if (!rc && old)
        rc = read_activation(root, what, &arch, &k, err);
    if (!rc)
        rc = read_arch(arch, what, &c->arch, err);
    if (!rc)
        rc = read_k(k, what, c, err);
    if (!rc)
        rc = read_size(root, "d_in", what, &c->d_in, err);
    if (!rc)
        rc = read_size(root, "d_sae", what, &c->d_sae, err);
    if (!rc && c->arch->transcoder)
        rc = read_size(root, "d_out", what, &c->d_out, err);
    if (!rc)
        rc = sonde_json_bool(root, "apply_b_dec_to_input", !c->arch->transcoder, what, &c->pre_bias, err);
    if (!rc && c->pre_bias && c->arch->transcoder)
        rc =
            sonde_fail(err, SONDE_E_INPUT, "%s: 'apply_b_dec_to_input' must be false for a transcoder", what);
    if (!rc)
        rc = sonde_json_bool(root, "rescale_acts_by_decoder_norm", false, what, &c->rescaled, err);
    if (!rc)
        rc = sonde_json_bool(root, "finetuning_scaling_factor", false, what, &c->finetuned, err);
    if (!rc)
        rc = read_norm(root, what, c, err);
    return rc ? rc : fill_meta(root, old, what, c, err);
}
