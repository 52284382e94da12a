/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "../base/hash.h"
#include "../base/size.h"
#include "bpe_impl.h"

static size_t power_of_two_above(size_t n)
{
    size_t p = 16;
    while (p < n)
        p *= 2;
    return p;
}

enum sonde_code vocab_new(struct vocab *v, sonde_arena *a, uint64_t n_ids, size_t n_entries, const char *what,
                          sonde_err *err)
{
    if (n_entries > (size_t)INT32_MAX / 32 || n_ids > 16 * (uint64_t)n_entries + 65536 ||
        n_ids > (uint64_t)INT32_MAX - (1 << 20))
        return sonde_fail(err, SONDE_E_INPUT, "%s: the largest token id is %llu, with %zu tokens", what,
                          (unsigned long long)n_ids - 1, n_entries);
    v->n_ids = (int32_t)n_ids;
    v->name = sonde_arena_get(a, (size_t)n_ids, sizeof *v->name, err);
    v->n_slots = power_of_two_above(2 * n_entries);
    v->slot = sonde_arena_get(a, v->n_slots, sizeof *v->slot, err);
    if (!v->name || !v->slot)
        return SONDE_E_MEMORY;
    memset(v->slot, 0xff, v->n_slots * sizeof *v->slot);
    return SONDE_OK;
}

/* The slot of this name, or the empty one where it belongs; SIZE_MAX if neither is near. */
static size_t find_slot(const struct vocab *v, const char *s, size_t n)
{
    size_t i = (size_t)sonde_xxh3(s, n) & (v->n_slots - 1), n_probes = 0;
    for (; v->slot[i] >= 0; i = (i + 1) & (v->n_slots - 1)) {
        const struct sonde_bytes *name = &v->name[v->slot[i]];
        if (name->n == n && !memcmp(name->s, s, n))
            break;
        if (++n_probes > BPE_MAX_PROBES)
            return SIZE_MAX;
    }
    return i;
}

enum sonde_code vocab_add(struct vocab *v, sonde_arena *a, int64_t id, const char *s, size_t n,
                          const char *what, sonde_err *err)
{
    int show = n > 60 ? 60 : (int)n;
    if (id < 0 || id >= v->n_ids)
        return sonde_fail(err, SONDE_E_INPUT, "%s: token '%.*s' has id %lld, outside 0..%d", what, show, s,
                          (long long)id, v->n_ids - 1);
    size_t i = find_slot(v, s, n);
    if (i == SIZE_MAX)
        return sonde_fail(err, SONDE_E_INPUT, "%s: the name of token %d and many others are made to collide",
                          what, (int)id);
    if (v->slot[i] >= 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: token '%.*s' has two ids, %d and %d", what, show, s,
                          v->slot[i], (int)id);
    if (v->name[id].s)
        return sonde_fail(err, SONDE_E_INPUT, "%s: id %d belongs to two tokens, '%.40s' and '%.*s'", what,
                          (int)id, v->name[id].s, show, s);
    char *copy = sonde_arena_strndup(a, s, n, err);
    if (!copy)
        return SONDE_E_MEMORY;
    v->name[id] = (struct sonde_bytes){copy, n};
    v->slot[i] = (int32_t)id;
    return SONDE_OK;
}

int32_t vocab_find(const struct vocab *v, const char *s, size_t n)
{
    size_t i = find_slot(v, s, n);
    return i == SIZE_MAX ? -1 : v->slot[i];
}

/* ---- tables of the model ----------------------------------------------------------------------- */

enum sonde_code bpe_merges_new(struct bpe *b, sonde_arena *a, size_t n, sonde_err *err)
{
    size_t want;
    if (!sonde_mul(&want, n, 2) || n > UINT32_MAX / 4)
        return sonde_fail(err, SONDE_E_INPUT, "%zu merges are too many", n);
    b->n_slots = power_of_two_above(want);
    b->merge = sonde_arena_get(a, b->n_slots, sizeof *b->merge, err);
    if (!b->merge)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < b->n_slots; i++)
        b->merge[i].left = UINT32_MAX;
    b->n_merges = 0;
    return SONDE_OK;
}

enum sonde_code bpe_merges_add(struct bpe *b, uint32_t left, uint32_t right, uint32_t rank, int32_t id,
                               bool replace, sonde_err *err)
{
    size_t i = bpe_pair_hash(left, right) & (b->n_slots - 1), n_probes = 0;
    while (b->merge[i].left != UINT32_MAX) {
        if (b->merge[i].left == left && b->merge[i].right == right) {
            if (replace)
                b->merge[i] = (struct bpe_merge){left, right, rank, id};
            return SONDE_OK;
        }
        if (++n_probes > BPE_MAX_PROBES)
            return sonde_fail(err, SONDE_E_INPUT, "the ids of merge %u and many others are made to collide",
                              rank);
        i = (i + 1) & (b->n_slots - 1);
    }
    b->merge[i] = (struct bpe_merge){left, right, rank, id};
    b->n_merges++;
    return SONDE_OK;
}

enum sonde_code bpe_chars_new(struct bpe *b, sonde_arena *a, size_t n, sonde_err *err)
{
    b->by_char = true;
    b->n_chr_slots = power_of_two_above(2 * n);
    b->chr = sonde_arena_get(a, b->n_chr_slots, sizeof *b->chr, err);
    if (!b->chr)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < b->n_chr_slots; i++)
        b->chr[i].cp = UINT32_MAX;
    for (int c = 0; c < 128; c++)
        b->ascii_id[c] = BPE_RAW;
    return SONDE_OK;
}

void bpe_chars_add(struct bpe *b, uint32_t cp, int32_t id)
{
    if (cp < 128)
        b->ascii_id[cp] = id;
    size_t i = cp * 0x9e3779b1u & (b->n_chr_slots - 1);
    while (b->chr[i].cp != UINT32_MAX && b->chr[i].cp != cp)
        i = (i + 1) & (b->n_chr_slots - 1);
    b->chr[i] = (struct bpe_char){cp, id};
}

int32_t bpe_char_id(const struct bpe *b, uint32_t cp)
{
    if (cp < 128)
        return b->ascii_id[cp];
    size_t i = cp * 0x9e3779b1u & (b->n_chr_slots - 1);
    for (; b->chr[i].cp != UINT32_MAX; i = (i + 1) & (b->n_chr_slots - 1))
        if (b->chr[i].cp == cp)
            return b->chr[i].id;
    return BPE_RAW;
}

/* ---- pieces that are tokens -------------------------------------------------------------------- */

static void add_word(struct bpe *b, const struct sonde_bytes *t, int32_t id)
{
    uint64_t lo, hi;
    bpe_key((const unsigned char *)t->s, t->n, &lo, &hi);
    size_t i = bpe_hash(lo, hi) & (b->n_word_slots - 1);
    while (b->word[i].hi)
        i = (i + 1) & (b->n_word_slots - 1);
    b->word[i] = (struct bpe_word){lo, hi, id};
}

static void add_whole(struct bpe *b, const struct sonde_bytes *t, int32_t id)
{
    size_t i = (size_t)sonde_xxh3(t->s, t->n) & (b->n_whole_slots - 1);
    while (b->whole[i] >= 0)
        i = (i + 1) & (b->n_whole_slots - 1);
    b->whole[i] = id;
}

int32_t bpe_whole_long(const struct bpe *b, const unsigned char *s, size_t n)
{
    size_t i = (size_t)sonde_xxh3(s, n) & (b->n_whole_slots - 1);
    for (; b->whole[i] >= 0; i = (i + 1) & (b->n_whole_slots - 1)) {
        const struct sonde_bytes *t = &b->bytes[b->whole[i]];
        if (t->n == n && !memcmp(t->s, s, n))
            return b->whole[i];
    }
    return -1;
}

enum sonde_code bpe_words_build(struct bpe *b, sonde_arena *a, const bool *usable, sonde_err *err)
{
    size_t n_short = 0, n_long = 0;
    for (int32_t id = 0; id < b->n_ids; id++) {
        n_short += b->bytes[id].n <= 15;
        n_long += b->bytes[id].n > 15;
    }
    b->n_word_slots = power_of_two_above(2 * n_short);
    b->word = sonde_arena_get(a, b->n_word_slots, sizeof *b->word, err);
    if (!b->word)
        return SONDE_E_MEMORY;
    if (b->ignore_merges) {
        b->n_whole_slots = power_of_two_above(2 * n_long);
        b->whole = sonde_arena_get(a, b->n_whole_slots, sizeof *b->whole, err);
        if (!b->whole)
            return SONDE_E_MEMORY;
        memset(b->whole, 0xff, b->n_whole_slots * sizeof *b->whole);
    }
    struct bpe_room room = {0};
    enum sonde_code rc = SONDE_OK;
    for (int32_t id = 0; id < b->n_ids && !rc; id++) {
        const struct sonde_bytes *t = &b->bytes[id];
        if (!t->s || t->n == 0 || (usable && !usable[id]) || (t->n > 15 && !b->ignore_merges))
            continue;
        size_t k = 1;
        bool is_itself = b->ignore_merges;
        if (!is_itself) {
            rc = bpe_encode(b, &room, (const unsigned char *)t->s, t->n, &k, NULL);
            is_itself = !rc && k == 1 && room.id[0] == id;
            rc = rc == SONDE_E_MEMORY ? sonde_fail(err, rc, "no memory for a token of %zu bytes", t->n)
                                      : SONDE_OK;
        }
        if (is_itself && t->n <= 15)
            add_word(b, t, id);
        else if (is_itself)
            add_whole(b, t, id);
    }
    bpe_room_free(&room);
    return rc;
}
