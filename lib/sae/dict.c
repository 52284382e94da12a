/* SPDX-License-Identifier: MIT
 * A dictionary as an object: made, copied, checked. */
#include "dict.h"

#include <math.h>
#include <string.h>

#include "../base/size.h"

/* The arrays that a dictionary of this act has. */
static enum sonde_code allocate(sonde_dict *d, bool skip, sonde_err *err)
{
    size_t f = d->n_latents, n_enc, n_dec, n_skip;
    if (!sonde_mul(&n_enc, f, d->d_in) || !sonde_mul(&n_dec, f, d->d_out) ||
        !sonde_mul(&n_skip, d->d_out, d->d_in))
        return sonde_fail(err, SONDE_E_MEMORY, "a dictionary of %zu latents, widths %zu and %zu: too large",
                          f, d->d_in, d->d_out);
    struct {
        float **at;
        size_t n;
        bool wanted;
    } array[] = {
        {&d->w_enc, n_enc, true},
        {&d->b_enc, f, true},
        {&d->w_dec, n_dec, true},
        {&d->b_dec, d->d_out, true},
        {&d->threshold, f, d->act == SONDE_DICT_JUMPRELU},
        {&d->r_mag, f, d->act == SONDE_DICT_GATED},
        {&d->b_mag, f, d->act == SONDE_DICT_GATED},
        {&d->w_skip, n_skip, skip},
    };
    for (size_t i = 0; i < sizeof array / sizeof *array; i++)
        if (array[i].wanted && !(*array[i].at = sonde_arena_get(d->arena, array[i].n, sizeof(float), err)))
            return SONDE_E_MEMORY;
    return SONDE_OK;
}

enum sonde_code sonde_dict_new(enum sonde_dict_act act, size_t d_in, size_t d_out, size_t n_latents,
                               bool skip, sonde_budget *budget, sonde_dict **out, sonde_err *err)
{
    if (!d_in || !d_out || !n_latents)
        return sonde_fail(
            err, SONDE_E_USAGE,
            "a dictionary needs a latent and widths of at least 1: %zu latents, %zu in, %zu out", n_latents,
            d_in, d_out);
    sonde_arena *arena = sonde_arena_new(budget, err);
    if (!arena)
        return SONDE_E_MEMORY;
    sonde_dict *d = sonde_arena_get(arena, 1, sizeof *d, err);
    if (!d) {
        sonde_arena_free(arena);
        return SONDE_E_MEMORY;
    }
    *d = (sonde_dict){.act = act, .d_in = d_in, .d_out = d_out, .n_latents = n_latents, .arena = arena};
    enum sonde_code rc = allocate(d, skip, err);
    if (rc == SONDE_OK && !(d->meta = json_object()))
        rc = sonde_fail(err, SONDE_E_MEMORY, "no memory for a dictionary's metadata");
    if (rc == SONDE_OK)
        *out = d;
    else
        sonde_dict_free(d);
    return rc;
}

void sonde_dict_free(sonde_dict *d)
{
    if (!d)
        return;
    json_decref(d->meta);
    sonde_arena_free(d->arena); /* d lies in it */
}

static enum sonde_code copy_text(sonde_dict *to, const char *s, const char **out, sonde_err *err)
{
    if (s && !(*out = sonde_arena_strndup(to->arena, s, strlen(s), err)))
        return SONDE_E_MEMORY;
    return SONDE_OK;
}

static void copy_array(float *to, const float *from, size_t n)
{
    if (from)
        memcpy(to, from, n * sizeof *to);
}

static enum sonde_code copy_into(sonde_dict *c, const sonde_dict *d, sonde_err *err)
{
    copy_array(c->w_enc, d->w_enc, d->n_latents * d->d_in);
    copy_array(c->b_enc, d->b_enc, d->n_latents);
    copy_array(c->w_dec, d->w_dec, d->n_latents * d->d_out);
    copy_array(c->b_dec, d->b_dec, d->d_out);
    copy_array(c->threshold, d->threshold, d->n_latents);
    copy_array(c->r_mag, d->r_mag, d->n_latents);
    copy_array(c->b_mag, d->b_mag, d->n_latents);
    copy_array(c->w_skip, d->w_skip, d->d_out * d->d_in);
    c->k = d->k;
    c->pre_bias = d->pre_bias;
    c->norm = d->norm;
    c->norm_unbiased = d->norm_unbiased;
    c->norm_eps = d->norm_eps;
    if (d->sparsity) {
        if (!(c->sparsity = sonde_arena_get(c->arena, d->n_latents, sizeof(float), err)))
            return SONDE_E_MEMORY;
        copy_array(c->sparsity, d->sparsity, d->n_latents);
    }
    json_t *meta = json_deep_copy(d->meta);
    if (!meta)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory to copy a dictionary's metadata");
    json_decref(c->meta);
    c->meta = meta;
    enum sonde_code rc = copy_text(c, d->trained_as, &c->trained_as, err);
    return rc ? rc : copy_text(c, d->format, &c->format, err);
}

enum sonde_code sonde_dict_copy(const sonde_dict *d, sonde_budget *budget, sonde_dict **out, sonde_err *err)
{
    sonde_dict *c;
    enum sonde_code rc =
        sonde_dict_new(d->act, d->d_in, d->d_out, d->n_latents, d->w_skip != NULL, budget, &c, err);
    if (rc != SONDE_OK)
        return rc;
    rc = copy_into(c, d, err);
    if (rc == SONDE_OK)
        *out = c;
    else
        sonde_dict_free(c);
    return rc;
}

const char *sonde_dict_act_name(enum sonde_dict_act a)
{
    static const char *const names[SONDE_N_DICT_ACTS] = {
        [SONDE_DICT_RELU] = "relu",   [SONDE_DICT_TOPK] = "topk",         [SONDE_DICT_JUMPRELU] = "jumprelu",
        [SONDE_DICT_GATED] = "gated", [SONDE_DICT_GROUPMAX] = "groupmax",
    };
    return a < SONDE_N_DICT_ACTS ? names[a] : "?";
}

/* The first number of x [n] that is not finite, or n. */
static size_t first_bad(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return i;
    return n;
}

enum sonde_code sonde_dict_check(const sonde_dict *d, sonde_err *err)
{
    const struct {
        const char *name;
        const float *x;
        size_t n_rows, n_columns;
        const char *row;
    } array[] = {
        {"W_enc", d->w_enc, d->n_latents, d->d_in, "latent"},
        {"b_enc", d->b_enc, d->n_latents, 1, "latent"},
        {"W_dec", d->w_dec, d->n_latents, d->d_out, "latent"},
        {"b_dec", d->b_dec, 1, d->d_out, "row"},
        {"threshold", d->threshold, d->n_latents, 1, "latent"},
        {"r_mag", d->r_mag, d->n_latents, 1, "latent"},
        {"b_mag", d->b_mag, d->n_latents, 1, "latent"},
        {"W_skip", d->w_skip, d->d_out, d->d_in, "output"},
        {"sparsity", d->sparsity, d->n_latents, 1, "latent"},
    };
    for (size_t i = 0; i < sizeof array / sizeof *array; i++) {
        size_t n = array[i].x ? array[i].n_rows * array[i].n_columns : 0;
        size_t bad = first_bad(array[i].x, n);
        if (bad < n)
            return sonde_fail(err, SONDE_E_NUMERIC, "%s is %s at %s %zu, column %zu", array[i].name,
                              isnan(array[i].x[bad]) ? "NaN" : "infinite", array[i].row,
                              bad / array[i].n_columns, bad % array[i].n_columns);
    }
    if (!isfinite(d->norm_eps))
        return sonde_fail(err, SONDE_E_NUMERIC, "the epsilon of the input's norm is not finite");
    return SONDE_OK;
}
