/* SPDX-License-Identifier: MIT
 * Byte-pair encoding: one piece of text to ids. */
#ifndef SONDE_TEXT_BPE_IMPL_H
#define SONDE_TEXT_BPE_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/arena.h"
#include "../base/error.h"
#include "../file/tensors.h"

/* Half-empty tables with good hashes need a few steps; a file that makes them need more is made to be slow.
 */
#define BPE_MAX_PROBES 2048

/* ---- names of tokens --------------------------------------------------------------------------- */

/* Strings to ids and back; s == NULL in name[] is a hole. */
struct vocab {
    int32_t n_ids;
    struct sonde_bytes *name; /* [n_ids], kept in the arena */
    int32_t *slot;            /* open addressing by XXH3 of the name; -1 is empty */
    size_t n_slots;
};

/* Room for n_entries names with ids below n_ids. A file may not ask for much more ids than it has entries:
 * SONDE_E_INPUT if n_ids > 16 * n_entries + 65536, or over 2^31 - 2^20. */
enum sonde_code vocab_new(struct vocab *v, sonde_arena *a, uint64_t n_ids, size_t n_entries, const char *what,
                          sonde_err *err);
/* Errors: SONDE_E_INPUT for an id outside, an id or a name met twice. The name is copied. */
enum sonde_code vocab_add(struct vocab *v, sonde_arena *a, int64_t id, const char *s, size_t n,
                          const char *what, sonde_err *err);
int32_t vocab_find(const struct vocab *v, const char *s, size_t n); /* -1 if it is none */

/* ---- the model --------------------------------------------------------------------------------- */

struct bpe_merge {
    uint32_t left, right; /* left == UINT32_MAX: empty */
    uint32_t rank;        /* smaller is earlier; equal ranks go from left to right */
    int32_t id;
};

/* A token of at most 15 bytes that a piece equal to it becomes: found without merging. */
struct bpe_word {
    uint64_t lo, hi; /* the bytes, zero-padded; the length in the last byte, 0 for empty */
    int32_t id;
};

struct bpe_char {
    uint32_t cp; /* UINT32_MAX: empty */
    int32_t id;
};

#define BPE_RAW (-1) /* a symbol with no id, which no merge takes */

/* Ids at and above n_ids (up to n_symbols) are characters that occur in merges but are no tokens. */
struct bpe {
    int32_t n_ids, n_symbols;
    const struct sonde_bytes *bytes; /* [n_ids] what a token covers in the text that BPE sees */
    struct bpe_merge *merge;
    size_t n_slots, n_merges;
    struct bpe_word *word;
    size_t n_word_slots;
    int32_t *whole; /* with ignore_merges: tokens of more than 15 bytes, open addressing by XXH3; -1 empty */
    size_t n_whole_slots;
    bool by_char;       /* symbols begin as code points, else as bytes */
    bool late_fallback; /* SentencePiece: what no merge has turned into a token becomes bytes after merging */
    bool ignore_merges;
    bool fuse_unk;
    int32_t unk_id;       /* -1: none */
    int32_t byte_id[256]; /* the symbol of a byte, or the byte's fallback token with by_char; -1: none */
    struct bpe_char *chr;
    size_t n_chr_slots;
    int32_t ascii_id[128];
};

/* An empty table for n merges. */
enum sonde_code bpe_merges_new(struct bpe *b, sonde_arena *a, size_t n, sonde_err *err);
/* left + right -> id at rank. A pair that is there already is replaced only if `replace`. Errors:
 * SONDE_E_INPUT if the ids are such that hashing degenerates. */
enum sonde_code bpe_merges_add(struct bpe *b, uint32_t left, uint32_t right, uint32_t rank, int32_t id,
                               bool replace, sonde_err *err);
enum sonde_code bpe_chars_new(struct bpe *b, sonde_arena *a, size_t n, sonde_err *err);
void bpe_chars_add(struct bpe *b, uint32_t cp, int32_t id);
int32_t bpe_char_id(const struct bpe *b, uint32_t cp); /* BPE_RAW if it is none */

/* Which tokens a piece becomes whole. usable[id] (or all if NULL): may ordinary text become it? */
enum sonde_code bpe_words_build(struct bpe *b, sonde_arena *a, const bool *usable, sonde_err *err);

/* Scratch memory of one call, zeroed before the first use. */
struct bpe_room {
    int32_t *id;
    uint32_t *len;
    size_t cap;
    void *node;
    uint64_t *heap;
    size_t n_heap, cap_nodes;
};
void bpe_room_free(struct bpe_room *r);

/* The symbols of a piece after merging: ids in r->id (BPE_RAW and ids >= n_ids still to be spelt in bytes)
 * and their bytes in r->len. O(n log n). Errors: SONDE_E_INPUT if a byte or character has no token and there
 * is none for the unknown; SONDE_E_MEMORY. */
enum sonde_code bpe_encode(const struct bpe *b, struct bpe_room *r, const unsigned char *s, size_t n,
                           size_t *n_out, sonde_err *err);

static inline size_t bpe_pair_hash(uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    h ^= h >> 31;
    return (size_t)((h * 0xbf58476d1ce4e5b9u) >> 30);
}

/* A piece of 1..15 bytes as a key. */
static inline void bpe_key(const unsigned char *s, size_t n, uint64_t *lo, uint64_t *hi)
{
    uint64_t a = 0, b = 0;
    if (n >= 8) {
        __builtin_memcpy(&a, s, 8);
        if (n > 8) {
            __builtin_memcpy(&b, s + n - 8, 8);
            b >>= 8 * (16 - n);
        }
    } else if (n >= 4) {
        uint32_t x, y;
        __builtin_memcpy(&x, s, 4);
        __builtin_memcpy(&y, s + n - 4, 4);
        a = x | (uint64_t)y << (8 * (n - 4));
    } else {
        a = s[0] | (uint64_t)s[n / 2] << (8 * (n / 2)) | (uint64_t)s[n - 1] << (8 * (n - 1));
    }
    *lo = a;
    *hi = b | (uint64_t)n << 56;
}

static inline uint64_t bpe_hash(uint64_t lo, uint64_t hi)
{
    uint64_t h = lo * 0x9e3779b97f4a7c15u ^ hi * 0xc2b2ae3d27d4eb4fu;
    h ^= h >> 29;
    return (h * 0xbf58476d1ce4e5b9u) >> 32;
}

/* The token that a piece of 1..15 bytes is as a whole, or -1. */
static inline int32_t bpe_whole_word(const struct bpe *b, uint64_t lo, uint64_t hi)
{
    for (size_t i = bpe_hash(lo, hi);; i++) {
        const struct bpe_word *w = &b->word[i & (b->n_word_slots - 1)];
        if (w->lo == lo && w->hi == hi)
            return w->id;
        if (w->hi == 0)
            return -1;
    }
}

/* Does every byte have a token? */
static inline bool bpe_spells(const struct bpe *b, const unsigned char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (b->byte_id[s[i]] < 0)
            return false;
    return true;
}

int32_t bpe_whole_long(const struct bpe *b, const unsigned char *s, size_t n);

#endif
