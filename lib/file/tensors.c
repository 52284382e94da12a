/* SPDX-License-Identifier: MIT */
#include "tensors_impl.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <xxhash.h>

#include "../base/size.h"

static uint64_t random_seed(const sonde_tensors *f)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed)
        return seed;
    return (uint64_t)time(NULL) * 0x9e3779b97f4a7c15u ^ (uint64_t)(uintptr_t)f;
}

/* The slot of name: the one that holds it, or the empty one where it belongs. */
static size_t slot_of(const sonde_tensors *f, const char *name)
{
    size_t mask = f->n_index - 1;
    size_t at = (size_t)XXH3_64bits_withSeed(name, strlen(name), f->index_seed) & mask;
    while (f->index[at] != UINT32_MAX && strcmp(f->tensor[f->index[at]].name, name) != 0)
        at = (at + 1) & mask;
    return at;
}

enum sonde_code sonde_tensors_index(sonde_tensors *f, const char *path, sonde_err *err)
{
    size_t n = 2;
    while (n / 2 < f->n_tensors)
        if (!sonde_mul(&n, n, 2) || n > UINT32_MAX)
            return sonde_fail(err, SONDE_E_INPUT, "%s: %zu tensors are more than can be indexed", path,
                              f->n_tensors);
    f->index = sonde_arena_get(f->arena, n, sizeof *f->index, err);
    if (!f->index)
        return sonde_err_wrap(err, "%s", path);
    memset(f->index, 0xff, n * sizeof *f->index);
    f->n_index = n;
    f->index_seed = random_seed(f);
    for (size_t i = 0; i < f->n_tensors; i++) {
        size_t at = slot_of(f, f->tensor[i].name);
        if (f->index[at] != UINT32_MAX)
            return sonde_fail(err, SONDE_E_INPUT, "%s: there are two tensors '%.200s'", path,
                              f->tensor[i].name);
        f->index[at] = (uint32_t)i;
    }
    return SONDE_OK;
}

const sonde_tensor *sonde_tensors_find(const sonde_tensors *f, const char *name)
{
    uint32_t i = f->index[slot_of(f, name)];
    return i == UINT32_MAX ? NULL : &f->tensor[i];
}

const sonde_meta *sonde_meta_find(const sonde_tensors *f, const char *key)
{
    for (size_t i = 0; i < f->n_meta; i++)
        if (strcmp(f->meta[i].key, key) == 0)
            return &f->meta[i];
    return NULL;
}

void sonde_tensors_close(sonde_tensors *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->n_maps; i++)
        sonde_map_close(f->map[i]);
    sonde_arena_free(f->arena); /* f itself lies in it */
}

sonde_tensors *sonde_tensors_new(const char *format, size_t n_maps, sonde_budget *budget, sonde_err *err)
{
    sonde_arena *arena = sonde_arena_new(budget, err);
    sonde_tensors *f = arena ? sonde_arena_get(arena, 1, sizeof *f, err) : NULL;
    sonde_map **map = f ? sonde_arena_get(arena, n_maps, sizeof *map, err) : NULL;
    if (!map) {
        sonde_arena_free(arena);
        return NULL;
    }
    f->format = format;
    f->arena = arena;
    f->map = map;
    return f;
}

enum sonde_code sonde_tensors_finish(sonde_tensors *f, sonde_map *m, enum sonde_code rc, sonde_tensors **out,
                                     sonde_err *err)
{
    if (rc == SONDE_OK)
        rc = sonde_tensors_index(f, m->path, err);
    if (rc == SONDE_OK) {
        f->map[f->n_maps++] = m;
        *out = f;
        return SONDE_OK;
    }
    sonde_tensors_close(f);
    sonde_map_close(m);
    return rc;
}
