/* SPDX-License-Identifier: MIT
 * What decides a stream, as JSON: two sources with the same identity give the same rows. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../file/json.h"
#include "../base/hash.h"
#include "../model/identity.h"
#include "../text/unicode.h"
#include "source_impl.h"

#define HASH_PIECE ((size_t)1 << 20)
#define HASH_WHOLE ((uint64_t)1 << 30) /* of more bytes a sample of pieces is hashed */

/* ---- hashes of data ---------------------------------------------------------------------------- */

/* Rows of one dataset, in pieces of whole rows; of a large one every k-th piece and the last. */
static enum sonde_code hash_rows(sonde_source *s, const struct source_side *side, uint64_t n,
                                 size_t row_bytes, sonde_xxh3_state *hash, bool *sampled, sonde_err *err)
{
    uint64_t rows = row_bytes < HASH_PIECE ? HASH_PIECE / row_bytes : 1,
             n_pieces = n / rows + (n % rows != 0), step = n_pieces / (HASH_WHOLE / HASH_PIECE) + 1;
    enum sonde_code code = SONDE_OK;
    void *data = malloc((size_t)rows * row_bytes);
    if (!data)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for a hash", s->path);
    *sampled = *sampled || step > 1;
    for (uint64_t p = 0; p < n_pieces && !code; p++) {
        uint64_t first = p * rows, k = n - first < rows ? n - first : rows;
        if (p % step && p + 1 < n_pieces)
            continue;
        if (!(code = source_read_raw(s, side, first, k, data, err)))
            sonde_xxh3_add(hash, data, (size_t)k * row_bytes);
    }
    free(data);
    return code;
}

static enum sonde_code hash_dataset(sonde_source *s, const char *path, sonde_xxh3_state *hash, bool *sampled,
                                    sonde_err *err)
{
    size_t i = sonde_store_find(s->store, path), bytes = 1;
    if (i == SIZE_MAX || sonde_store_unreadable(s->store, i))
        return SONDE_OK;
    const sonde_store_dataset *d = sonde_store_dataset_at(s->store, i);
    struct source_side side = {.dataset = i};
    for (int k = 1; k < d->rank; k++)
        bytes *= (size_t)d->dim[k]; /* the store has checked that it fits */
    bytes *= sonde_dtype_size(d->dtype);
    return bytes && d->rank ? hash_rows(s, &side, d->dim[0], bytes, hash, sampled, err) : SONDE_OK;
}

/* A store of ours brings checksums of everything in it; otherwise the data are read. */
static enum sonde_code hash_file(sonde_source *s, sonde_xxh3_state *hash, const char **name, sonde_err *err)
{
    static const char *const beside[] = {"/rows/token", "/tokens/id", "/tokens/pos", "/tokens/doc",
                                         "/docs/split"};
    bool sampled = false;
    enum sonde_code code;
    *name = "checksums_xxh3";
    if (s->store && sonde_store_attr_find(s->store, s->in.name, "check_first") &&
        sonde_store_attr_find(s->store, s->out.name, "check_first") &&
        sonde_store_find(s->store, "/check/xxh3") != SIZE_MAX)
        return hash_dataset(s, "/check/xxh3", hash, &sampled, err);
    for (int k = 0; k < 1 + s->two; k++) {
        const struct source_side *side = k ? &s->out : &s->in;
        if ((code = hash_rows(s, side, s->info.n_rows, side->width * sonde_dtype_size(side->dtype), hash,
                              &sampled, err)))
            return code;
    }
    for (size_t i = 0; s->row_token != SIZE_MAX && i < sizeof beside / sizeof *beside; i++)
        if ((code = hash_dataset(s, beside[i], hash, &sampled, err)))
            return code;
    *name = sampled ? "data_xxh3_sampled" : "data_xxh3";
    return SONDE_OK;
}

/* ---- JSON -------------------------------------------------------------------------------------- */

/* Strings of files need not be UTF-8. */
static json_t *text(const char *s)
{
    char hex[24];
    snprintf(hex, sizeof hex, "xxh3:%016" PRIx64, sonde_xxh3(s, strlen(s)));
    return json_string(sonde_utf8_invalid((const unsigned char *)s, strlen(s)) ? hex : s);
}

/* An entry for which there is no memory takes all before it along; keep() looks for the first ones. */
static void put(json_t *j, const char *key, json_t *value)
{
    if (json_object_set_new(j, key, value))
        json_object_clear(j);
}

static void add_number(json_t *j, const char *key, uint64_t n)
{
    put(j, key, json_integer((json_int_t)n));
}

static void add_hash(json_t *j, const char *key, uint64_t h)
{
    char hex[20];
    snprintf(hex, sizeof hex, "%016" PRIx64, h);
    put(j, key, json_string(hex));
}

static json_t *ranges(const struct id_set *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->n; i++)
        if (json_array_append_new(list, s->range[i].lo == s->range[i].hi
                                            ? json_integer(s->range[i].lo)
                                            : json_pack("[i,i]", (int)s->range[i].lo, (int)s->range[i].hi))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* What filter, split and order come from. */
static void add_choice(const sonde_source *s, json_t *j)
{
    const struct source_filter *f = &s->filter;
    json_t *x = json_object();
    put(x, "bos_id", json_integer(f->f.bos && f->known ? f->bos_id : -1));
    put(x, "special_ids", f->f.special ? ranges(&f->special) : json_array());
    add_number(x, "first", f->f.first);
    put(x, "ids", ranges(&f->ids));
    put(x, "max_norm", json_real(f->f.max_norm));
    put(j, "exclude", x);
    put(j, "holdout", json_real(s->holdout));
    add_number(j, "n_train", s->marks.n_train);
    add_number(j, "n_heldout", s->marks.n_heldout);
    add_number(j, "seed", s->seed);
    add_number(j, "window_rows", s->window_rows);
}

static enum sonde_code keep(sonde_source *s, json_t *j, sonde_err *err)
{
    const bool whole = json_object_get(j, "kind") && json_object_get(json_object_get(j, "exclude"), "bos_id");
    char *dump =
        whole ? sonde_json_text(j, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15)) : NULL;
    if (dump)
        s->info.identity = sonde_arena_strndup(s->arena, dump, strlen(dump), NULL);
    free(dump);
    json_decref(j);
    return s->info.identity ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "no memory to identify the data");
}

static void add_attr(const sonde_source *s, json_t *j, const char *name)
{
    const sonde_store_attr *a = sonde_store_attr_find(s->store, "/", name);
    if (a && a->s)
        put(j, name, text(a->s));
}

enum sonde_code source_identify_file(sonde_source *s, sonde_err *err)
{
    const char *name = NULL;
    sonde_xxh3_state *hash = sonde_xxh3_new(err);
    enum sonde_code code = hash ? hash_file(s, hash, &name, err) : SONDE_E_MEMORY;
    uint64_t h = code ? 0 : sonde_xxh3_end(hash);
    sonde_xxh3_free(hash);
    json_t *j = code ? NULL : json_object();
    if (!j)
        return code ? code : sonde_fail(err, SONDE_E_MEMORY, "no memory to identify the data");
    put(j, "kind", json_string(s->kind->name));
    put(j, "hook", text(s->store ? s->in.name : ""));
    put(j, "hook_out", s->two ? text(s->out.name) : json_null());
    add_number(j, "n_rows", s->info.n_rows);
    add_number(j, "d_in", s->info.d_in);
    add_number(j, "d_out", s->info.d_out);
    put(j, "dtype", json_string(sonde_dtype_name(s->in.dtype)));
    if (s->store) {
        add_attr(s, j, "model_sha256");
        add_attr(s, j, "dataset_sha256");
        add_attr(s, j, "command");
    }
    add_hash(j, name, h);
    add_choice(s, j);
    return keep(s, j, err);
}

static uint64_t hash_corpus(const sonde_corpus *c)
{
    const uint64_t part[3] = {
        sonde_xxh3(c->id, (size_t)c->n_tokens * sizeof *c->id),
        sonde_xxh3(c->doc, (size_t)c->n_tokens * sizeof *c->doc),
        sonde_xxh3(c->seq_start, (size_t)(c->n_seqs + 1) * sizeof *c->seq_start),
    };
    return sonde_xxh3(part, sizeof part);
}

enum sonde_code source_identify_model(sonde_source *s, sonde_err *err)
{
    char *weights = NULL, processing[120];
    enum sonde_code code = sonde_model_identity(s->model, &weights, err);
    json_t *j = code ? NULL : json_object();
    if (!j) {
        free(weights);
        return code ? code : sonde_fail(err, SONDE_E_MEMORY, "no memory to identify the data");
    }
    put(j, "kind", json_string(s->kind->name));
    put(j, "hook", text(s->info.hook));
    put(j, "hook_out", s->two ? text(s->info.hook_out) : json_null());
    put(j, "model_sha256", text(weights));
    put(j, "weight_processing",
        json_string(sonde_processing_text(s->model->processing, processing, sizeof processing)));
    put(j, "compute",
        json_string(strcmp(sonde_kernels_name(s->kernels), "openblas") ? "sonde float32"
                                                                       : "openblas float32"));
    put(j, "dataset_sha256", text(s->corpus->sha256));
    add_number(j, "n_tokens", s->corpus->n_tokens);
    add_number(j, "n_contexts", s->corpus->n_seqs);
    add_hash(j, "tokens_xxh3", hash_corpus(s->corpus));
    add_choice(s, j);
    free(weights);
    return keep(s, j, err);
}
