/* SPDX-License-Identifier: MIT
 * An activation store as a source: which dataset, which of its rows are for training, which are held out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "../base/suggest.h"
#include "../model/capture.h"
#include "source_impl.h"

#define PIECE 65536

/* ---- which dataset ----------------------------------------------------------------------------- */

/* Does this dataset hold activations? /acts/HOOK; a dataset /acts of its own is one too. */
static const char *hook_of(const sonde_store *st, size_t i)
{
    const char *path = sonde_store_dataset_at(st, i)->path;
    if (strcmp(path, "/acts") == 0)
        return path + 1;
    return strncmp(path, "/acts/", 6) == 0 ? path + 6 : NULL;
}

static enum sonde_code no_such_hook(const sonde_source *s, const char *hook, size_t n_ends, sonde_err *err)
{
    size_t n = 0, n_all = sonde_store_n_datasets(s->store);
    const char **name = malloc((n_all + 1) * sizeof *name);
    char near[240] = "";
    if (!name)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for its names", s->path);
    for (size_t i = 0; i < n_all; i++) {
        const char *h = hook_of(s->store, i);
        size_t len = h ? strlen(h) : 0, want = hook ? strlen(hook) : 0;
        if (h && (!hook || !n_ends || (len >= want && strcmp(h + len - want, hook) == 0)))
            name[n++] = h;
    }
    int at = 0;
    for (size_t i = 0; i < n && i < 4 && at >= 0 && (size_t)at < sizeof near; i++)
        at += snprintf(near + at, sizeof near - (size_t)at, "%s%s", i ? ", " : "", name[i]);
    if (n > 4 && at >= 0 && (size_t)at < sizeof near)
        snprintf(near + at, sizeof near - (size_t)at, ", ...");
    if (!hook)
        sonde_fail(err, SONDE_E_USAGE, "%s: holds %zu hooks (%s); name one with --hook", s->path, n, near);
    else if (n_ends)
        sonde_fail(err, SONDE_E_USAGE, "%s: %zu hooks end in '%.80s': %s", s->path, n, hook, near);
    else {
        char meant[200];
        sonde_suggest(hook, name, n, meant, sizeof meant);
        sonde_fail(err, SONDE_E_USAGE, "%s: has no hook '%.80s'%s%s%s", s->path, hook,
                   *meant ? meant : " (it has ", *meant ? "" : near, *meant ? "" : ")");
    }
    free(name);
    return SONDE_E_USAGE;
}

/* The exact name, or the only one that ends so; without a name the only one there is. */
static enum sonde_code find_hook(const sonde_source *s, const char *hook, size_t *out, sonde_err *err)
{
    size_t n = 0, n_ends = 0, n_all = sonde_store_n_datasets(s->store);
    if (hook && strncmp(hook, "/acts/", 6) == 0)
        hook += 6;
    for (size_t i = 0; i < n_all; i++) {
        const char *h = hook_of(s->store, i);
        size_t len = h ? strlen(h) : 0, want = hook ? strlen(hook) : 0;
        if (!h)
            continue;
        n++;
        if (hook && strcmp(h, hook) == 0) {
            *out = i;
            return SONDE_OK;
        }
        if (len >= want && (!hook || strcmp(h + len - want, hook) == 0)) {
            n_ends++;
            *out = i;
        }
    }
    if (n_ends == 1)
        return SONDE_OK;
    if (!n)
        return sonde_fail(err, SONDE_E_USAGE, "%s: has no /acts; name a dataset of rows: %s:/DATASET",
                          s->path, s->path);
    return no_such_hook(s, hook, n_ends, err);
}

static enum sonde_code take_side(sonde_source *s, size_t i, struct source_side *side, sonde_err *err)
{
    const sonde_store_dataset *d = sonde_store_dataset_at(s->store, i);
    char shape[100];
    size_t width;
    *side = (struct source_side){.name = d->path, .dataset = i, .dtype = d->dtype};
    if (sonde_store_unreadable(s->store, i))
        return sonde_store_read(s->store, i, 0, 0, NULL, err);
    if (d->dtype > SONDE_F64)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %s is %s; rows are float32, float16, bfloat16 or float64",
                          s->path, d->path, sonde_dtype_name(d->dtype));
    if (d->rank < 2 || !sonde_nbytes(&width, d->dim + 1, d->rank - 1, 1) || !width)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %s has shape %s, which is no rows of values", s->path,
                          d->path, sonde_shape_text(d->dim, d->rank, shape, sizeof shape));
    side->width = width;
    return SONDE_OK;
}

static enum sonde_code find_dataset(const sonde_source *s, const char *dataset, const char *hook, size_t *out,
                                    sonde_err *err)
{
    char near[240] = "";
    if (!dataset)
        return find_hook(s, hook, out, err);
    if (hook)
        return sonde_fail(err, SONDE_E_USAGE, "%s: both a dataset (%.80s) and a hook (%.80s) are named",
                          s->path, dataset, hook);
    if ((*out = sonde_store_find(s->store, dataset)) != SIZE_MAX)
        return SONDE_OK;
    size_t n = sonde_store_n_datasets(s->store);
    const char **name = malloc((n + 1) * sizeof *name);
    for (size_t i = 0; name && i < n; i++)
        name[i] = sonde_store_dataset_at(s->store, i)->path;
    if (name)
        sonde_suggest(dataset, name, n, near, sizeof near);
    free(name);
    return sonde_fail(err, SONDE_E_USAGE, "%s: has no dataset '%.100s'%s", s->path, dataset, near);
}

/* ---- tokens ------------------------------------------------------------------------------------ */

/* A column of the tokens that has the right type and length; SIZE_MAX where there is none. */
static enum sonde_code find_column(const sonde_source *s, const char *path, enum sonde_dtype dtype,
                                   uint64_t *n, size_t *out, sonde_err *err)
{
    *out = sonde_store_find(s->store, path);
    if (*out == SIZE_MAX)
        return SONDE_OK;
    const sonde_store_dataset *d = sonde_store_dataset_at(s->store, *out);
    if (d->dtype != dtype || d->rank != 1 || (*n && d->dim[0] != *n))
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: %s must be %s of length %" PRIu64 ", it is %s of rank %d and length %" PRIu64,
                          s->path, path, sonde_dtype_name(dtype), *n, sonde_dtype_name(d->dtype), d->rank,
                          d->rank ? d->dim[0] : 1);
    *n = d->dim[0];
    return SONDE_OK;
}

struct tokens {
    size_t id, pos, doc, split;
    uint64_t n, n_docs;
    uint8_t *heldout; /* [n_docs] */
};

static const sonde_store_attr *root_attr(const sonde_source *s, const char *name)
{
    return sonde_store_attr_find(s->store, "/", name);
}

static enum sonde_code find_tokens(sonde_source *s, struct tokens *t, sonde_err *err)
{
    enum sonde_code code;
    uint64_t n_rows = s->info.n_rows;
    *t = (struct tokens){0};
    if ((code = find_column(s, "/rows/token", SONDE_I64, &n_rows, &s->row_token, err)) ||
        (code = find_column(s, "/tokens/id", SONDE_I32, &t->n, &t->id, err)) ||
        (code = find_column(s, "/tokens/pos", SONDE_I32, &t->n, &t->pos, err)) ||
        (code = find_column(s, "/tokens/doc", SONDE_I32, &t->n, &t->doc, err)) ||
        (code = find_column(s, "/docs/split", SONDE_U8, &t->n_docs, &t->split, err)))
        return code;
    s->n_tokens = t->n;
    s->token_id = t->id;
    return SONDE_OK;
}

/* As the file marks them; where it marks none, a share of them, chosen by the seed that made the file. */
static enum sonde_code read_split(sonde_source *s, struct tokens *t, sonde_arena *arena, sonde_err *err)
{
    const sonde_store_attr *seed = root_attr(s, "seed");
    uint64_t n = 0;
    if (t->split == SIZE_MAX || t->doc == SIZE_MAX)
        return SONDE_OK;
    if (!(t->heldout = sonde_arena_get(arena, (size_t)t->n_docs, 1, err)))
        return SONDE_E_MEMORY;
    enum sonde_code code = sonde_store_read(s->store, t->split, 0, t->n_docs, t->heldout, err);
    for (uint64_t i = 0; i < t->n_docs && !code; i++)
        n += t->heldout[i] != 0;
    if (!code && n == 0)
        sonde_capture_split(t->n_docs, s->holdout,
                            seed && !seed->s && !seed->is_float ? (uint64_t)seed->i : 0, t->heldout, &n);
    return code;
}

/* bos_id and special_ids, as sonde_capture writes them. */
static enum sonde_code read_special(sonde_source *s, sonde_err *err)
{
    const sonde_store_attr *bos = root_attr(s, "bos_id"), *special = root_attr(s, "special_ids");
    if (!bos || bos->s || bos->is_float || bos->i < -1 || bos->i > INT32_MAX || !special || !special->s)
        return SONDE_OK;
    s->filter.known = true;
    s->filter.bos_id = (int32_t)bos->i;
    return source_ids_parse(special->s, s->path, s->arena, &s->filter.special, err);
}

/* The mark that each token would give its row. */
static enum sonde_code mark_tokens(sonde_source *s, const struct tokens *t, sonde_arena *arena,
                                   struct source_marks *m, sonde_err *err)
{
    int32_t *id = sonde_arena_get(arena, PIECE, sizeof *id, err),
            *pos = id ? sonde_arena_get(arena, PIECE, sizeof *pos, err) : NULL,
            *doc = pos ? sonde_arena_get(arena, PIECE, sizeof *doc, err) : NULL;
    enum sonde_code code = doc ? source_marks_new(m, t->n, arena, err) : SONDE_E_MEMORY;
    for (uint64_t at = 0; at < t->n && !code; at += PIECE) {
        uint64_t n = t->n - at < PIECE ? t->n - at : PIECE;
        if ((t->id != SIZE_MAX && (code = sonde_store_read(s->store, t->id, at, n, id, err))) ||
            (t->pos != SIZE_MAX && (code = sonde_store_read(s->store, t->pos, at, n, pos, err))) ||
            (t->doc != SIZE_MAX && (code = sonde_store_read(s->store, t->doc, at, n, doc, err))))
            return code;
        for (uint64_t i = 0; i < n; i++) {
            if (t->heldout && (doc[i] < 0 || (uint64_t)doc[i] >= t->n_docs))
                return sonde_fail(err, SONDE_E_INPUT,
                                  "%s: /tokens/doc[%" PRIu64 "] is %d, there are %" PRIu64 " documents",
                                  s->path, at + i, (int)doc[i], t->n_docs);
            bool drop = source_filter_drops(&s->filter, t->id == SIZE_MAX ? -1 : id[i],
                                            t->pos == SIZE_MAX ? -1 : pos[i]);
            source_mark_set(m, at + i,
                            drop                               ? SOURCE_OUT
                            : t->heldout && t->heldout[doc[i]] ? SOURCE_HELDOUT
                                                               : SOURCE_TRAIN);
        }
    }
    return code;
}

static enum sonde_code mark_rows(sonde_source *s, const struct source_marks *of_token, sonde_arena *arena,
                                 sonde_err *err)
{
    int64_t *token = sonde_arena_get(arena, PIECE, sizeof *token, err);
    uint64_t n_rows = s->info.n_rows;
    enum sonde_code code = token ? source_marks_new(&s->marks, n_rows, s->arena, err) : SONDE_E_MEMORY;
    for (uint64_t at = 0; at < n_rows && !code; at += PIECE) {
        uint64_t n = n_rows - at < PIECE ? n_rows - at : PIECE;
        code = sonde_store_read(s->store, s->row_token, at, n, token, err);
        for (uint64_t i = 0; i < n && !code; i++) {
            if (token[i] < 0 || (uint64_t)token[i] >= of_token->n)
                return sonde_fail(err, SONDE_E_INPUT,
                                  "%s: /rows/token[%" PRIu64 "] is %" PRId64 ", there are %" PRIu64 " tokens",
                                  s->path, at + i, token[i], of_token->n);
            source_mark_set(&s->marks, at + i, source_mark(of_token, (uint64_t)token[i]));
        }
    }
    return code;
}

/* BOS before the contexts? It is if the first token is one. */
static enum sonde_code describe(sonde_source *s, const struct tokens *t, sonde_err *err)
{
    const sonde_store_attr *context = root_attr(s, "context_len"), *model = root_attr(s, "model");
    int32_t first = -1;
    enum sonde_code code = SONDE_OK;
    if (context && !context->s && !context->is_float && context->i > 0)
        s->info.n_context = (size_t)context->i;
    if (model && model->s)
        s->info.model_name = source_base_name(s, model->s);
    if (t->id != SIZE_MAX && t->n)
        code = sonde_store_read(s->store, t->id, 0, 1, &first, err);
    s->info.has_tokens = s->row_token != SIZE_MAX && t->id != SIZE_MAX;
    s->info.knows_special = s->filter.known && s->info.has_tokens;
    s->info.bos_id = s->filter.bos_id;
    s->info.prepend_bos = first >= 0 && first == s->filter.bos_id;
    return code;
}

enum sonde_code source_store_marks(sonde_source *s, sonde_err *err)
{
    struct tokens t;
    struct source_marks of_token;
    enum sonde_code code;
    if (strncmp(s->in.name, "/acts", 5) != 0) { /* a stranger's dataset: what lies beside is not about it */
        source_marks_tail(&s->marks, s->info.n_rows, s->holdout);
        return SONDE_OK;
    }
    if ((code = find_tokens(s, &t, err)) || (code = read_special(s, err)) || (code = describe(s, &t, err)))
        return code;
    if (s->row_token == SIZE_MAX || !t.n) {
        s->row_token = SIZE_MAX;
        source_marks_tail(&s->marks, s->info.n_rows, s->holdout);
        return SONDE_OK;
    }
    sonde_arena *scratch = sonde_arena_new(s->budget, err);
    if (!scratch)
        return SONDE_E_MEMORY;
    if (!(code = read_split(s, &t, scratch, err)) && !(code = mark_tokens(s, &t, scratch, &of_token, err)))
        code = mark_rows(s, &of_token, scratch, err);
    sonde_arena_free(scratch);
    return code;
}

/* ---- opening ----------------------------------------------------------------------------------- */

enum sonde_code source_store_open(sonde_source *s, const char *path, const char *dataset,
                                  const sonde_source_options *o, sonde_err *err)
{
    size_t in, out;
    enum sonde_code code = sonde_store_open(path, o->verify, s->budget, &s->store, err);
    if (code || (code = find_dataset(s, dataset, o->hook, &in, err)) ||
        (code = take_side(s, in, &s->in, err)))
        return code;
    out = in;
    if (o->hook_out && (code = find_hook(s, o->hook_out, &out, err)))
        return code;
    s->two = out != in;
    if ((code = take_side(s, out, &s->out, err)))
        return code;
    uint64_t n = sonde_store_dataset_at(s->store, in)->dim[0],
             n_out = sonde_store_dataset_at(s->store, out)->dim[0];
    if (n != n_out)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %.150s has %" PRIu64 " rows, %.150s has %" PRIu64, path,
                          s->in.name, n, s->out.name, n_out);
    s->info.n_rows = n;
    s->info.d_in = s->in.width;
    s->info.d_out = s->out.width;
    s->info.hook = dataset && strncmp(dataset, "/acts/", 6) != 0 ? "" : hook_of(s->store, in);
    s->info.hook_out = s->two ? hook_of(s->store, out) : NULL;
    return SONDE_OK;
}
