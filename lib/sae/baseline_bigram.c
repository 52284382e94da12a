/* SPDX-License-Identifier: MIT
 * Means by token pair, in a table of bounded size. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <xxhash.h>

#include "../base/size.h"
#include "baseline.h"

#define MAX_BYTES  ((size_t)512 << 20)
#define SLAB_BYTES ((size_t)1 << 20)
#define INDEX_MIN  1024
#define EMPTY      0xffffffffu
#define SINGLE     0xffffffffu /* instead of a previous token */

struct entry {
    uint64_t key, count;
    double sum[];
};

struct sonde_bigram {
    size_t d, stride; /* bytes of an entry */
    sonde_arena *arena;
    size_t room, per_slab; /* entries */
    char **slab;
    size_t n_entries;
    uint32_t *index; /* open addressing, [n_index] a power of two */
    size_t n_index;
    uint64_t seed; /* random, so that no text can make the keys collide */
    double *sum;   /* [d] of all rows */
    sonde_bigram_size size;
};

static uint64_t random_seed(const void *p)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed)
        return seed;
    return (uint64_t)time(NULL) * 0x9e3779b97f4a7c15u ^ (uint64_t)(uintptr_t)p;
}

static uint64_t key_of(uint32_t before, int32_t id)
{
    return (uint64_t)before << 32 | (uint32_t)(id + 1);
}

static struct entry *entry_at(const sonde_bigram *b, size_t i)
{
    return (struct entry *)(void *)(b->slab[i / b->per_slab] + i % b->per_slab * b->stride);
}

/* The slot of a key: the one that holds it, or the empty one where it belongs. */
static size_t slot_of(const sonde_bigram *b, uint64_t key)
{
    const size_t mask = b->n_index - 1;
    size_t at = (size_t)XXH3_64bits_withSeed(&key, sizeof key, b->seed) & mask;
    while (b->index[at] != EMPTY && entry_at(b, b->index[at])->key != key)
        at = (at + 1) & mask;
    return at;
}

static enum sonde_code index_entries(sonde_bigram *b, size_t n_index, sonde_err *err)
{
    uint32_t *index = sonde_arena_get(b->arena, n_index, sizeof *index, err);
    if (!index)
        return SONDE_E_MEMORY;
    memset(index, 0xff, n_index * sizeof *index);
    b->index = index;
    b->n_index = n_index;
    for (size_t i = 0; i < b->n_entries; i++)
        index[slot_of(b, entry_at(b, i)->key)] = (uint32_t)i;
    return SONDE_OK;
}

enum sonde_code sonde_bigram_new(size_t d, size_t max_bytes, sonde_budget *budget, sonde_bigram **out,
                                 sonde_err *err)
{
    size_t stride;
    if (!sonde_mul(&stride, d, sizeof(double)) || !sonde_add(&stride, stride, sizeof(struct entry)))
        return sonde_fail(err, SONDE_E_MEMORY, "a table of rows of %zu values is too large", d);
    sonde_arena *arena = sonde_arena_new(budget, err);
    sonde_bigram *b = arena ? sonde_arena_get(arena, 1, sizeof *b, err) : NULL;
    if (!b)
        goto fail;
    max_bytes = max_bytes ? max_bytes : MAX_BYTES;
    b->arena = arena;
    b->d = d;
    b->stride = stride;
    b->room = max_bytes / (stride + 4 * sizeof(uint32_t));
    b->room = b->room < EMPTY ? b->room : EMPTY - 1;
    b->per_slab = SLAB_BYTES / stride ? SLAB_BYTES / stride : 1;
    b->per_slab = b->per_slab < b->room ? b->per_slab : b->room + !b->room;
    b->seed = random_seed(b);
    if (!(b->slab = sonde_arena_get(arena, b->room / b->per_slab + 1, sizeof *b->slab, err)) ||
        !(b->sum = sonde_arena_get(arena, d, sizeof *b->sum, err)) || index_entries(b, INDEX_MIN, err))
        goto fail;
    *out = b;
    return SONDE_OK;
fail:
    sonde_arena_free(arena);
    return SONDE_E_MEMORY;
}

void sonde_bigram_free(sonde_bigram *b)
{
    if (b)
        sonde_arena_free(b->arena);
}

static void add_row(double *sum, const float *y, size_t d)
{
    for (size_t j = 0; j < d; j++)
        sum[j] += (double)y[j];
}

/* The entry of a key, made if there is room below `room` entries; *out NULL otherwise. */
static enum sonde_code admit(sonde_bigram *b, uint64_t key, size_t room, struct entry **out, bool *is_new,
                             sonde_err *err)
{
    size_t at = slot_of(b, key);
    *out = NULL;
    *is_new = b->index[at] == EMPTY;
    if (!*is_new) {
        *out = entry_at(b, b->index[at]);
        return SONDE_OK;
    }
    if (b->n_entries >= room)
        return SONDE_OK;
    if (2 * (b->n_entries + 1) > b->n_index) {
        if (index_entries(b, 2 * b->n_index, err))
            return SONDE_E_MEMORY;
        at = slot_of(b, key);
    }
    size_t i = b->n_entries;
    if (i % b->per_slab == 0 &&
        !(b->slab[i / b->per_slab] = sonde_arena_get(b->arena, b->per_slab, b->stride, err)))
        return SONDE_E_MEMORY;
    *out = entry_at(b, i);
    (*out)->key = key;
    b->index[at] = (uint32_t)i;
    b->n_entries++;
    return SONDE_OK;
}

enum sonde_code sonde_bigram_add(sonde_bigram *b, const sonde_rows *rows, const float *y, sonde_err *err)
{
    for (size_t r = 0; r < rows->n; r++, y += b->d) {
        struct entry *e;
        bool is_new;
        add_row(b->sum, y, b->d);
        b->size.n_rows++;
        if (rows->id[r] < 0)
            continue;
        if (admit(b, key_of(SINGLE, rows->id[r]), b->room, &e, &is_new, err))
            return SONDE_E_MEMORY;
        b->size.n_tokens += e && is_new;
        if (e) {
            e->count++;
            add_row(e->sum, y, b->d);
        }
        if (admit(b, key_of((uint32_t)(rows->previous[r] + 1), rows->id[r]), b->room / 4 * 3, &e, &is_new,
                  err))
            return SONDE_E_MEMORY;
        b->size.n_pairs += e && is_new;
        b->size.n_refused += !e;
        if (e) {
            e->count++;
            add_row(e->sum, y, b->d);
        }
    }
    return SONDE_OK;
}

sonde_bigram_size sonde_bigram_about(const sonde_bigram *b)
{
    return b->size;
}

static const struct entry *look_up(const sonde_bigram *b, uint64_t key)
{
    size_t at = slot_of(b, key);
    return b->index[at] == EMPTY ? NULL : entry_at(b, b->index[at]);
}

enum sonde_code sonde_replace_by_bigram(void *arg, const sonde_rows *rows, sonde_pool *pool, float *y,
                                        sonde_err *err)
{
    const sonde_bigram *b = arg;
    (void)pool;
    if (!b->size.n_rows)
        return sonde_fail(err, SONDE_E_USAGE, "a bigram table of no rows");
    for (size_t r = 0; r < rows->n; r++, y += b->d) {
        const struct entry *e = NULL;
        if (rows->id[r] >= 0 && !(e = look_up(b, key_of((uint32_t)(rows->previous[r] + 1), rows->id[r]))))
            e = look_up(b, key_of(SINGLE, rows->id[r]));
        const double *sum = e ? e->sum : b->sum, n = (double)(e ? e->count : b->size.n_rows);
        for (size_t j = 0; j < b->d; j++)
            y[j] = (float)(sum[j] / n);
    }
    return SONDE_OK;
}
