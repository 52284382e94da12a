/* SPDX-License-Identifier: MIT
 * The table of formats, and what loading and saving have in common. */
#include "dict_file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "../base/hash.h"
#include "../base/suggest.h"
#include "format_impl.h"

const sonde_dict_format *const sonde_dict_format_table[] = {
    &sonde_format_saelens,
    &sonde_format_sparsify,
    &sonde_format_openai,
    &sonde_format_dl,
    &sonde_format_gemma,
    &sonde_format_gemma_2,
    &sonde_format_circuit_tracer,
    NULL,
};

enum { MAX_FORMATS = sizeof sonde_dict_format_table / sizeof *sonde_dict_format_table };

const char *const *sonde_dict_formats(bool writes)
{
    static const char *const all[] = {
        "saelens",
        "sparsify",
        "openai",
        "dictionary_learning",
        "gemma_scope",
        "gemma_scope_2",
        "circuit_tracer",
        NULL,
    };
    static const char *const written[] = {
        "saelens",
        "sparsify",
        "openai",
        "dictionary_learning",
        "gemma_scope",
        "gemma_scope_2",
        "circuit_tracer",
        NULL,
    };
    return writes ? written : all;
}

static enum sonde_code format_named(const char *name, const sonde_dict_format **out, sonde_err *err)
{
    const char *names[MAX_FORMATS];
    char near[200];
    size_t n = 0;
    for (const sonde_dict_format *const *f = sonde_dict_format_table; *f; f++) {
        if (!strcmp((*f)->name, name)) {
            *out = *f;
            return SONDE_OK;
        }
        names[n++] = (*f)->name;
    }
    sonde_suggest(name, names, n, near, sizeof near);
    return sonde_fail(err, SONDE_E_USAGE, "no format '%.60s'%s", name, near);
}

static const sonde_dict_format *look(const char *path)
{
    const sonde_dict_format *const *f = sonde_dict_format_table;
    while (*f && !(*f)->probe(path))
        f++;
    return *f;
}

const char *sonde_dict_probe(const char *path)
{
    const sonde_dict_format *f = look(path);
    return f ? f->name : NULL;
}

static enum sonde_code format_of(const char *path, const sonde_dict_format **out, sonde_err *err)
{
    if ((*out = look(path)))
        return SONDE_OK;
    if (access(path, R_OK))
        return sonde_fail(err, SONDE_E_IO, "%s: cannot open: %s", path, strerror(errno));
    return sonde_fail(err, SONDE_E_INPUT,
                      "%s: does not look like a dictionary in any format that sonde reads", path);
}

/* What must hold whatever the format. */
static enum sonde_code check_loaded(const char *path, sonde_dict *d, sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    bool ranks = d->act == SONDE_DICT_TOPK || d->act == SONDE_DICT_GROUPMAX;
    if (ranks && (d->k == 0 || d->k > d->n_latents))
        rc = sonde_fail(err, SONDE_E_INPUT, "k is %zu, with %zu latents", d->k, d->n_latents);
    else if (d->act == SONDE_DICT_GROUPMAX && d->n_latents % d->k)
        rc = sonde_fail(err, SONDE_E_INPUT, "%zu latents are not %zu groups of one size", d->n_latents, d->k);
    else
        rc = sonde_dict_check(d, err);
    if (rc)
        sonde_err_wrap(err, "%s: ", path);
    return rc;
}

enum sonde_code sonde_dict_load(const char *path, const char *format, sonde_budget *budget, sonde_dict **out,
                                char note[400], sonde_err *err)
{
    const sonde_dict_format *f = NULL;
    char ignored[SONDE_DICT_NOTE];
    sonde_dict *d = NULL;
    enum sonde_code rc = format ? format_named(format, &f, err) : format_of(path, &f, err);
    if (rc)
        return rc;
    note = note ? note : ignored;
    note[0] = '\0';
    rc = f->read(path, budget, &d, note, err);
    if (rc)
        return rc;
    d->format = f->name;
    rc = check_loaded(path, d, err);
    if (rc)
        sonde_dict_free(d);
    else
        *out = d;
    return rc;
}

enum sonde_code sonde_dict_save(const sonde_dict *d, const char *format, const char *path, bool overwrite,
                                sonde_err *err)
{
    const sonde_dict_format *f = NULL;
    enum sonde_code rc = format_named(format, &f, err);
    if (!rc && !f->write)
        rc = sonde_fail(err, SONDE_E_USAGE, "%s: dictionaries in the format %s are read, not written", path,
                        f->name);
    if (!rc) {
        rc = sonde_dict_check(d, err);
        if (rc)
            sonde_err_wrap(err, "%s: not written: ", path);
    }
    return rc ? rc : f->write(d, path, overwrite, err);
}

static void add_array(sonde_sha256 *s, const float *x, size_t n)
{
    uint64_t count = x ? n : 0;
    sonde_sha256_add(s, &count, sizeof count);
    if (count)
        sonde_sha256_add(s, x, n * sizeof *x);
}

enum sonde_code sonde_dict_identity(const sonde_dict *d, char hex[65], sonde_err *err)
{
    (void)err;
    sonde_sha256 s;
    bool ranks = d->act == SONDE_DICT_TOPK || d->act == SONDE_DICT_GROUPMAX;
    const uint64_t shape[] = {(uint64_t)d->act, d->d_in,     d->d_out,          d->n_latents,
                              ranks ? d->k : 0, d->pre_bias, (uint64_t)d->norm, d->norm_unbiased};
    sonde_sha256_begin(&s);
    sonde_sha256_add(&s, "sonde dictionary 1", 18);
    sonde_sha256_add(&s, shape, sizeof shape);
    add_array(&s, &d->norm_eps, d->norm == SONDE_DICT_NORM_LAYER);
    add_array(&s, d->w_enc, d->n_latents * d->d_in);
    add_array(&s, d->b_enc, d->n_latents);
    add_array(&s, d->w_dec, d->n_latents * d->d_out);
    add_array(&s, d->b_dec, d->d_out);
    add_array(&s, d->threshold, d->n_latents);
    add_array(&s, d->r_mag, d->n_latents);
    add_array(&s, d->b_mag, d->n_latents);
    add_array(&s, d->w_skip, d->d_out * d->d_in);
    sonde_sha256_end(&s, hex);
    return SONDE_OK;
}
