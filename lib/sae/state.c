/* SPDX-License-Identifier: MIT */
#include "state_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/hash.h"
#include "../file/json.h"
#include "../file/safetensors.h"

#define MAX_TENSORS (3 * N_PARAMS + 12)
#define VERSION     "1.0"

/* Arrays of a trainer as tensors: the same list for saving and for loading. */
struct list {
    sonde_tensor tensor[MAX_TENSORS];
    char name[MAX_TENSORS][32];
    size_t n;
};

static void add(struct list *l, const char *name, const char *suffix, enum sonde_dtype type, size_t n,
                const void *data)
{
    sonde_tensor *t = &l->tensor[l->n];
    snprintf(l->name[l->n], sizeof l->name[0], "%s%s", name, suffix);
    *t = (sonde_tensor){.name = l->name[l->n], .dtype = type, .rank = 1, .dim = {n}, .data = data};
    t->n_bytes = n * sonde_dtype_size(type);
    l->n++;
}

/* counters and position are numbers of 8 bytes each. */
static void list_arrays(const sonde_trainer *t, const sonde_source_position *at, const struct log_sums *sums,
                        struct list *l)
{
    l->n = 0;
    for (int i = 0; i < N_PARAMS; i++) {
        const struct param *p = &t->p[i];
        if (!p->w)
            continue;
        add(l, p->name, "", SONDE_F32, p->rows * p->cols, p->w);
        add(l, p->name, ".m", SONDE_F32, p->rows * p->cols, p->m);
        add(l, p->name, ".v", SONDE_F32, p->rows * p->cols, p->v);
    }
    add(l, "mean_in", "", SONDE_F64, t->d_in, t->mean_in);
    add(l, "mean_out", "", SONDE_F64, t->d_out, t->mean_out);
    add(l, "variance_mean", "", SONDE_F64, t->d_out, t->var_mean);
    add(l, "silent", "", SONDE_U64, t->F, t->silent);
    add(l, "frequency", "", SONDE_U64, t->F, t->frequency);
    add(l, "counters", "", SONDE_U64, sizeof t->c / 8, &t->c);
    add(l, "position", "", SONDE_U64, sizeof *at / 8, at);
    add(l, "log", "", SONDE_U64, sizeof *sums / 8, sums);
}

_Static_assert(sizeof(struct counters) % 8 == 0 && sizeof(sonde_source_position) == 24 &&
                   sizeof(struct log_sums) % 8 == 0,
               "numbers of 8 bytes");

/* Of the configuration and of every tensor in the order of the file: no shape need be known to check it. */
static enum sonde_code checksum(const sonde_tensor *tensor, size_t n, const char *config, char hex[17],
                                sonde_err *err)
{
    sonde_xxh3_state *s = sonde_xxh3_new(err);
    if (!s)
        return SONDE_E_MEMORY;
    sonde_xxh3_add(s, config, strlen(config));
    for (size_t i = 0; i < n; i++) {
        sonde_xxh3_add(s, tensor[i].name, strlen(tensor[i].name) + 1);
        sonde_xxh3_add(s, tensor[i].data, tensor[i].n_bytes);
    }
    snprintf(hex, 17, "%016" PRIx64, sonde_xxh3_end(s));
    sonde_xxh3_free(s);
    return SONDE_OK;
}

enum sonde_code state_save(const sonde_trainer *t, sonde_source_position at, const struct log_sums *sums,
                           const char *config, const char *path, sonde_err *err)
{
    struct list *l = malloc(sizeof *l);
    if (!l)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a checkpoint");
    list_arrays(t, &at, sums, l);
    char sum[17];
    enum sonde_code code = checksum(l->tensor, l->n, config, sum, err);
    const char *meta[] = {"format", "sonde-checkpoint", "format_version", VERSION, "config", config, "xxh3",
                          sum};
    if (!code)
        code = sonde_safetensors_write(path, l->tensor, l->n, meta, 4, true, err);
    free(l);
    return code;
}

/* ---- loading --------------------------------------------------------------------------------- */

static const char *meta_text(const sonde_tensors *f, const char *key)
{
    const sonde_meta *m = sonde_meta_find(f, key);
    return m && m->type == SONDE_META_STRING ? m->s : NULL;
}

/* The tensors of the file in the order of l, whose data then point into the file. */
static enum sonde_code match(const sonde_tensors *f, const char *path, struct list *l, sonde_err *err)
{
    for (size_t i = 0; i < l->n; i++) {
        sonde_tensor *want = &l->tensor[i];
        const sonde_tensor *t = sonde_tensors_find(f, want->name);
        if (!t)
            return sonde_fail(err, SONDE_E_INPUT, "%s: no tensor '%s': not a checkpoint of this run", path,
                              want->name);
        if (t->dtype != want->dtype || t->n_bytes != want->n_bytes)
            return sonde_fail(err, SONDE_E_INPUT, "%s: tensor '%s' has %zu bytes, this run needs %zu", path,
                              want->name, t->n_bytes, want->n_bytes);
        want->data = t->data;
    }
    return SONDE_OK;
}

static enum sonde_code check_kind(const sonde_tensors *f, const char *path, sonde_err *err)
{
    const char *format = meta_text(f, "format"), *version = meta_text(f, "format_version");
    if (!format || strcmp(format, "sonde-checkpoint") || !version || !meta_text(f, "config") ||
        !meta_text(f, "xxh3"))
        return sonde_fail(err, SONDE_E_INPUT, "%s: not a checkpoint of sonde train", path);
    if (strncmp(version, "1.", 2))
        return sonde_fail(err, SONDE_E_INPUT, "%s: checkpoint format %.8s, this program reads 1.x", path,
                          version);
    return SONDE_OK;
}

static void name_values(const json_t *a, const json_t *b, char *was, char *is, size_t n)
{
    char *x = a ? sonde_json_text(a, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL,
         *y = b ? sonde_json_text(b, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    snprintf(was, n, "%.80s", x ? x : "absent");
    snprintf(is, n, "%.80s", y ? y : "absent");
    free(x);
    free(y);
}

/* The first field in which two objects differ, down to two levels ("options.lr"). */
static bool first_difference(const json_t *a, const json_t *b, char *field, size_t n, char *was, char *is,
                             size_t m)
{
    const char *key;
    json_t *value;
    const json_t *side[] = {a, b};
    for (int s = 0; s < 2; s++)
        json_object_foreach((json_t *)(uintptr_t)side[s], key, value)
        {
            const json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
            if (x && y && json_equal(x, y))
                continue;
            char inner[80];
            if (json_is_object(x) && json_is_object(y) &&
                first_difference(x, y, inner, sizeof inner, was, is, m)) {
                snprintf(field, n, "%.60s.%.80s", key, inner);
                return true;
            }
            snprintf(field, n, "%.60s", key);
            name_values(x, y, was, is, m);
            return true;
        }
    return false;
}

void state_config_hash(const char *config, char hex[17])
{
    snprintf(hex, 17, "%016" PRIx64, sonde_xxh3(config, strlen(config)));
}

enum sonde_code state_compare(const char *path, const json_t *was, const json_t *is, const char was_hash[17],
                              const char is_hash[17], sonde_err *err)
{
    char field[160] = "?", x[100] = "", y[100] = "";
    if (!first_difference(was, is, field, sizeof field, x, y, sizeof x))
        return SONDE_OK;
    return sonde_fail(err, SONDE_E_USAGE,
                      "%s: %s was %s, now it is %s (configuration %s, now %s); resume with the same options "
                      "and data, or begin anew with --force",
                      path, field, x, y, was_hash, is_hash);
}

static enum sonde_code compare(const char *path, const char *was, const char *is, sonde_err *err)
{
    if (!strcmp(was, is))
        return SONDE_OK;
    json_t *a = NULL, *b = NULL;
    char was_hash[17], is_hash[17];
    state_config_hash(was, was_hash);
    state_config_hash(is, is_hash);
    enum sonde_code code = sonde_json_parse(was, strlen(was), 100000, path, &a, err);
    if (!code)
        code = sonde_json_parse(is, strlen(is), 100000, "this run", &b, err);
    if (!code)
        code = state_compare(path, a, b, was_hash, is_hash, err);
    json_decref(a);
    json_decref(b);
    return code;
}

static enum sonde_code check_sum(const sonde_tensors *f, const char *path, sonde_err *err)
{
    char sum[17];
    const enum sonde_code code = checksum(f->tensor, f->n_tensors, meta_text(f, "config"), sum, err);
    if (code)
        return code;
    if (strcmp(sum, meta_text(f, "xxh3")))
        return sonde_fail(err, SONDE_E_INPUT, "%s: checksum %s, the file says %.16s: it is damaged", path,
                          sum, meta_text(f, "xxh3"));
    return SONDE_OK;
}

enum sonde_code state_load(sonde_trainer *t, const char *path, const char *config, sonde_source_position *at,
                           struct log_sums *sums, sonde_err *err)
{
    sonde_tensors *f = NULL;
    struct list *have = malloc(sizeof *have), *to = malloc(sizeof *to);
    sonde_source_position position = {0};
    struct log_sums log = {0};
    enum sonde_code code = SONDE_E_MEMORY;
    if (!have || !to) {
        sonde_fail(err, SONDE_E_MEMORY, "no memory for a checkpoint");
        goto out;
    }
    list_arrays(t, &position, &log, have);
    list_arrays(t, &position, &log, to);
    if ((code = sonde_safetensors_open(path, t->budget, &f, err)) || (code = check_kind(f, path, err)) ||
        (code = check_sum(f, path, err)) || (code = compare(path, meta_text(f, "config"), config, err)) ||
        (code = match(f, path, have, err)))
        goto out;
    for (size_t i = 0; i < to->n; i++) /* the list is of our own arrays; const is for saving */
        memcpy((void *)(uintptr_t)to->tensor[i].data, have->tensor[i].data, to->tensor[i].n_bytes);
    *at = position;
    *sums = log;
out:
    sonde_tensors_close(f);
    free(have);
    free(to);
    return code;
}
