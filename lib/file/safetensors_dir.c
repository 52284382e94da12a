/* SPDX-License-Identifier: MIT
 * A directory: model.safetensors, or shards behind model.safetensors.index.json. */
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "json.h"
#include "safetensors_impl.h"

#define ONE_FILE   "model.safetensors"
#define INDEX_FILE "model.safetensors.index.json"

struct shard {
    const char *name; /* belongs to the index's JSON */
    sonde_st_file file;
    size_t first; /* its first tensor among all of them */
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct shard *)a)->name, ((const struct shard *)b)->name);
}

/* The distinct file names of weight_map, in ascending order. */
static enum sonde_code list_shards(const json_t *weight_map, const char *path, sonde_arena *arena,
                                   struct shard **shard, size_t *n_shards, sonde_err *err)
{
    size_t n = json_object_size(weight_map), n_distinct = 0;
    if (n == 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: 'weight_map' is not an object with at least one tensor",
                          path);
    struct shard *s = sonde_arena_get(arena, n, sizeof *s, err);
    if (!s)
        return sonde_err_wrap(err, "%s", path);
    size_t i = 0;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)weight_map, key, v)
    {
        if (!json_is_string(v))
            return sonde_fail(err, SONDE_E_INPUT, "%s: the shard of tensor '%.200s' is not a string", path,
                              key);
        s[i++].name = json_string_value(v);
    }
    qsort(s, n, sizeof *s, by_name);
    for (i = 0; i < n; i++)
        if (i == 0 || strcmp(s[i].name, s[n_distinct - 1].name) != 0)
            s[n_distinct++] = s[i];
    *shard = s;
    *n_shards = n_distinct;
    return SONDE_OK;
}

/* Open the shards and join their tensors. On failure f->map holds what has been opened so far. */
static enum sonde_code join_shards(const char *dir, struct shard *shard, size_t n_shards,
                                   sonde_budget *budget, sonde_tensors *f, sonde_err *err)
{
    f->map = sonde_arena_get(f->arena, n_shards, sizeof(sonde_map *), err);
    if (!f->map)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < n_shards; i++) {
        enum sonde_code rc = sonde_map_open_in(dir, shard[i].name, &f->map[i], err);
        if (rc == SONDE_E_IO && !sonde_map_exists_in(dir, shard[i].name))
            return sonde_fail(err, SONDE_E_INPUT,
                              "%s: " INDEX_FILE " names the shard '%.200s', which is not there", dir,
                              shard[i].name);
        if (rc != SONDE_OK)
            return rc;
        f->n_maps++;
        rc = sonde_st_read(f->map[i], f->arena, budget, &shard[i].file, err);
        if (rc != SONDE_OK)
            return rc;
        shard[i].first = f->n_tensors;
        f->n_tensors += shard[i].file.n_tensors; /* each took bytes of a file: no overflow */
    }
    sonde_tensor *t = sonde_arena_get(f->arena, f->n_tensors, sizeof *t, err);
    if (!t)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < n_shards; i++)
        if (shard[i].file.n_tensors)
            memcpy(t + shard[i].first, shard[i].file.tensor, shard[i].file.n_tensors * sizeof *t);
    f->tensor = t;
    f->meta = shard[0].file.meta; /* the writers repeat it in every shard */
    f->n_meta = shard[0].file.n_meta;
    return SONDE_OK;
}

/* Every tensor of weight_map lies in the shard that it names. */
static enum sonde_code check_places(const json_t *weight_map, const char *path, const struct shard *shard,
                                    size_t n_shards, const sonde_tensors *f, sonde_err *err)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)weight_map, key, v)
    {
        struct shard wanted = {.name = json_string_value(v)};
        const struct shard *s = bsearch(&wanted, shard, n_shards, sizeof *shard, by_name);
        const sonde_tensor *t = sonde_tensors_find(f, key);
        size_t at = t ? (size_t)(t - f->tensor) : SIZE_MAX;
        if (!s || at < s->first || at - s->first >= s->file.n_tensors)
            return sonde_fail(err, SONDE_E_INPUT, "%s: tensor '%.200s' is not in its shard '%.100s'%s", path,
                              key, wanted.name, t ? ", but in another one" : "");
    }
    return SONDE_OK;
}

static enum sonde_code open_shards(const char *dir, const sonde_map *index, sonde_budget *budget,
                                   sonde_tensors **out, sonde_err *err)
{
    sonde_json json = {0};
    sonde_tensors *f = NULL;
    sonde_arena *scratch = sonde_arena_new(budget, err),
                *arena = scratch ? sonde_arena_new(budget, err) : NULL;
    enum sonde_code rc = SONDE_E_MEMORY;
    if (!arena || !(f = sonde_arena_get(arena, 1, sizeof *f, err)))
        goto out;
    *f = (sonde_tensors){.format = "safetensors", .arena = arena};
    rc = sonde_json_parse_within(index->data, index->n_bytes, budget, index->path, &json, err);
    if (rc != SONDE_OK)
        goto out;
    const json_t *weight_map = json_object_get(json.root, "weight_map");
    struct shard *shard = NULL;
    size_t n_shards = 0;
    rc = list_shards(weight_map, index->path, scratch, &shard, &n_shards, err);
    if (rc == SONDE_OK)
        rc = join_shards(dir, shard, n_shards, budget, f, err);
    if (rc == SONDE_OK)
        rc = sonde_tensors_index(f, dir, err);
    if (rc == SONDE_OK)
        rc = check_places(weight_map, index->path, shard, n_shards, f, err);
out:
    sonde_json_release(&json);
    sonde_arena_free(scratch);
    if (rc == SONDE_OK)
        *out = f;
    else if (f)
        sonde_tensors_close(f);
    else
        sonde_arena_free(arena);
    return rc;
}

enum sonde_code sonde_safetensors_open_dir(const char *dir, sonde_budget *budget, sonde_tensors **out,
                                           sonde_err *err)
{
    sonde_map *m;
    enum sonde_code rc;
    if (sonde_map_exists_in(dir, ONE_FILE)) {
        rc = sonde_map_open_in(dir, ONE_FILE, &m, err);
        return rc == SONDE_OK ? sonde_safetensors_parse(m, budget, out, err) : rc;
    }
    if (!sonde_map_exists_in(dir, INDEX_FILE)) {
        if (sonde_map_exists_in(dir, "pytorch_model.bin") ||
            sonde_map_exists_in(dir, "pytorch_model.bin.index.json"))
            return sonde_fail(
                err, SONDE_E_INPUT,
                "%s: holds its weights as Python pickles (pytorch_model.bin), which are never read; "
                "convert them to " ONE_FILE,
                dir);
        return sonde_fail(err, SONDE_E_IO, "%s: there is neither " ONE_FILE " nor " INDEX_FILE, dir);
    }
    rc = sonde_map_open_in(dir, INDEX_FILE, &m, err);
    if (rc != SONDE_OK)
        return rc;
    rc = open_shards(dir, m, budget, out, err);
    sonde_map_close(m);
    return rc;
}
