/* SPDX-License-Identifier: MIT
 * SentencePiece BPE. Any two neighbours whose concatenation is a piece may merge, the best score first, then
 * the leftmost. Said as a table of pairs: for every piece, each way to cut it into two pieces (or single
 * characters) is a merge whose rank is the place of the piece's score among all scores. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "tokenizer_impl.h"

#define MAX_PIECE 1024u

/* Strings of the pieces by a hash that can be extended at either end: sum of (byte + 1) * B^i. */
#define B UINT64_C(0x9e3779b97f4a7c15)

struct by_hash {
    uint64_t hash;
    int32_t id; /* -1: empty */
};

struct merges {
    sonde_tokenizer *t;
    const struct spm_piece *piece;
    size_t n;
    struct by_hash *slot;
    size_t n_slots;
    uint32_t *rank; /* [n] */
};

static size_t slot_of(const struct merges *m, uint64_t hash)
{
    hash ^= hash >> 32;
    return (size_t)((hash * UINT64_C(0xbf58476d1ce4e5b9)) >> 20) & (m->n_slots - 1);
}

static int32_t find(const struct merges *m, uint64_t hash, const char *s, size_t n)
{
    for (size_t i = slot_of(m, hash); m->slot[i].id >= 0; i = (i + 1) & (m->n_slots - 1)) {
        const struct spm_piece *p = &m->piece[m->slot[i].id];
        if (m->slot[i].hash == hash && p->n == n && !memcmp(p->s, s, n))
            return m->slot[i].id;
    }
    return -1;
}

static bool merges_into(const struct spm_piece *p)
{
    return p->type == SPM_NORMAL && p->n > 0;
}

/* A part of a piece: a piece itself, or a single character that is none (it gets a symbol of its own). */
static enum sonde_code part(struct merges *m, uint64_t hash, const char *s, size_t n, int32_t *id,
                            sonde_err *err)
{
    struct bpe *b = &m->t->bpe;
    size_t len;
    *id = find(m, hash, s, n);
    if (*id >= 0)
        return SONDE_OK;
    uint32_t cp = sonde_utf8_next((const unsigned char *)s, n, 0, &len);
    if (len != n || cp == SONDE_INVALID)
        return SONDE_OK;
    *id = bpe_char_id(b, cp);
    if (*id < 0) {
        if (b->n_symbols == INT32_MAX)
            return sonde_fail(err, SONDE_E_INPUT, "too many characters");
        *id = b->n_symbols++;
        bpe_chars_add(b, cp, *id);
    }
    return SONDE_OK;
}

/* Call for every cut of every piece; count only when add is false. */
static enum sonde_code cuts(struct merges *m, bool add, size_t *n_cuts, sonde_err *err)
{
    uint64_t left[MAX_PIECE + 1];
    enum sonde_code rc = SONDE_OK;
    *n_cuts = 0;
    for (size_t i = 0; i < m->n && !rc; i++) {
        const struct spm_piece *p = &m->piece[i];
        if (!merges_into(p))
            continue;
        uint64_t power = 1, right = 0;
        left[0] = 0;
        for (size_t k = 0; k < p->n; k++, power *= B)
            left[k + 1] = left[k] + ((unsigned char)p->s[k] + 1u) * power;
        for (size_t k = p->n - 1; k > 0 && !rc; k--) {
            right = right * B + (unsigned char)p->s[k] + 1u;
            if (((unsigned char)p->s[k] & 0xc0) == 0x80)
                continue; /* inside a character */
            int32_t a, c;
            rc = part(m, left[k], p->s, k, &a, err);
            if (!rc && a >= 0)
                rc = part(m, right, p->s + k, p->n - k, &c, err);
            if (rc || a < 0 || c < 0)
                continue;
            ++*n_cuts;
            if (add)
                rc = bpe_merges_add(&m->t->bpe, (uint32_t)a, (uint32_t)c, m->rank[i], (int32_t)i, false, err);
        }
    }
    return rc;
}

struct scored {
    float score;
    uint32_t id;
};

static int by_score(const void *x, const void *y)
{
    const struct scored *a = x, *b = y;
    return a->score > b->score ? -1 : a->score < b->score ? 1 : (a->id > b->id) - (a->id < b->id);
}

/* Equal scores get equal ranks. */
static enum sonde_code rank_pieces(struct merges *m, sonde_err *err)
{
    struct scored *order = malloc((m->n + 1) * sizeof *order);
    m->rank = malloc((m->n + 1) * sizeof *m->rank);
    if (!order || !m->rank) {
        free(order);
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu pieces", m->n);
    }
    for (size_t i = 0; i < m->n; i++)
        order[i] = (struct scored){m->piece[i].score, (uint32_t)i};
    qsort(order, m->n, sizeof *order, by_score);
    uint32_t rank = 0;
    for (size_t i = 0; i < m->n; i++) {
        if (i && order[i].score < order[i - 1].score)
            rank++;
        m->rank[order[i].id] = rank;
    }
    free(order);
    return SONDE_OK;
}

static enum sonde_code hash_pieces(struct merges *m, sonde_err *err)
{
    m->n_slots = 16;
    while (m->n_slots < 2 * m->n)
        m->n_slots *= 2;
    m->slot = malloc(m->n_slots * sizeof *m->slot);
    if (!m->slot)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu pieces", m->n);
    for (size_t i = 0; i < m->n_slots; i++)
        m->slot[i].id = -1;
    for (size_t i = 0; i < m->n; i++) {
        const struct spm_piece *p = &m->piece[i];
        if (!merges_into(p))
            continue;
        uint64_t hash = 0;
        for (size_t k = p->n; k-- > 0;)
            hash = hash * B + (unsigned char)p->s[k] + 1u;
        size_t at = slot_of(m, hash);
        while (m->slot[at].id >= 0)
            at = (at + 1) & (m->n_slots - 1);
        m->slot[at] = (struct by_hash){hash, (int32_t)i};
    }
    return SONDE_OK;
}

static enum sonde_code build_merges(sonde_tokenizer *t, const struct spm_piece *piece, size_t n,
                                    sonde_err *err)
{
    struct merges m = {.t = t, .piece = piece, .n = n};
    size_t n_cuts;
    enum sonde_code rc = rank_pieces(&m, err);
    if (!rc)
        rc = hash_pieces(&m, err);
    if (!rc)
        rc = cuts(&m, false, &n_cuts, err);
    if (!rc)
        rc = bpe_merges_new(&t->bpe, t->arena, n_cuts, err);
    if (!rc)
        rc = cuts(&m, true, &n_cuts, err);
    free(m.slot);
    free(m.rank);
    return rc;
}

/* ---- vocabulary -------------------------------------------------------------------------------- */

static struct sonde_bytes shown(sonde_tokenizer *t, const struct spm_piece *p, const char *space,
                                sonde_err *err)
{
    char *s = sonde_arena_strndup(t->arena, p->s, p->n, err);
    size_t k = 0, n_space = strlen(space);
    for (size_t i = 0; s && i < p->n;) {
        if (i + n_space <= p->n && !memcmp(p->s + i, space, n_space)) {
            s[k++] = ' ';
            i += n_space;
        } else {
            s[k++] = p->s[i++];
        }
    }
    if (s)
        s[k] = '\0';
    return (struct sonde_bytes){s, k};
}

static bool is_hole(const struct spm_piece *p)
{
    return p->n == 0 && p->type == SPM_UNUSED;
}

/* How many different characters the pieces are made of: each is a symbol, even if no piece is it alone. */
static enum sonde_code check_pieces(const struct spm_piece *piece, size_t n, const struct spm_options *o,
                                    size_t *n_chars, sonde_err *err)
{
    unsigned char *seen = calloc(0x110000 / 8, 1);
    enum sonde_code rc = seen ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu pieces", n);
    *n_chars = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        const struct spm_piece *p = &piece[i];
        if (is_hole(p))
            continue;
        if (p->n == 0 || p->n > MAX_PIECE || isnan(p->score) || p->type < SPM_NORMAL || p->type > SPM_BYTE)
            rc = sonde_fail(err, SONDE_E_INPUT,
                            "%s: piece %zu has %zu bytes (1 to %u are allowed), score %g, type %d", o->what,
                            i, p->n, MAX_PIECE, (double)p->score, p->type);
        size_t len;
        for (size_t at = 0; at < p->n && !rc; at += len) {
            uint32_t cp = sonde_utf8_next((const unsigned char *)p->s, p->n, at, &len);
            if (cp == SONDE_INVALID || seen[cp / 8] & 1u << cp % 8)
                continue;
            seen[cp / 8] |= (unsigned char)(1u << cp % 8);
            ++*n_chars;
        }
    }
    free(seen);
    return rc;
}

static enum sonde_code add_piece(sonde_tokenizer *t, struct sonde_bytes *bytes, const struct spm_piece *p,
                                 int32_t id, const struct spm_options *o, sonde_err *err)
{
    size_t len;
    if (is_hole(p))
        return SONDE_OK;
    enum sonde_code rc = vocab_add(&t->vocab, t->arena, id, p->s, p->n, o->what, err);
    if (rc)
        return rc;
    struct sonde_bytes name = shown(t, p, o->space, err);
    if (!name.s)
        return SONDE_E_MEMORY;
    t->out[id] = name;
    int byte = byte_of_fallback_name(p->s, p->n);
    if (p->type == SPM_BYTE) {
        if (byte < 0)
            return sonde_fail(err, SONDE_E_INPUT, "%s: piece %d is a byte but is called '%.*s'", o->what, id,
                              (int)p->n, p->s);
        t->bpe.byte_id[byte] = id;
        t->out[id] = (struct sonde_bytes){sonde_arena_strndup(t->arena, &(char){(char)byte}, 1, err), 1};
        return t->out[id].s ? SONDE_OK : SONDE_E_MEMORY;
    }
    if (p->type == SPM_NORMAL) {
        bytes[id] = t->vocab.name[id];
        uint32_t cp = sonde_utf8_next((const unsigned char *)p->s, p->n, 0, &len);
        if (len == p->n && cp != SONDE_INVALID)
            bpe_chars_add(&t->bpe, cp, id);
        return SONDE_OK;
    }
    if (p->type == SPM_UNUSED)
        return SONDE_OK;
    struct added_token tok = {.id = id, .s = p->s, .n = p->n, .special = p->type != SPM_USER_DEFINED};
    tok.normalized = p->type == SPM_USER_DEFINED;
    rc = tokenizer_add_token(t, &tok, o->what, err);
    t->out[id] = name;
    return rc;
}

static enum sonde_code add_pieces(sonde_tokenizer *t, const struct spm_piece *piece, size_t n,
                                  const struct spm_options *o, sonde_err *err)
{
    size_t n_added = 0, n_chars;
    enum sonde_code rc = check_pieces(piece, n, o, &n_chars, err);
    if (!rc)
        rc = vocab_new(&t->vocab, t->arena, n, n, o->what, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        n_added += piece[i].type != SPM_NORMAL;
    struct sonde_bytes *bytes = sonde_arena_get(t->arena, n, sizeof *bytes, err);
    t->out = sonde_arena_get(t->arena, n, sizeof *t->out, err);
    t->flags = sonde_arena_get(t->arena, n, 1, err);
    if (!bytes || !t->out || !t->flags)
        return SONDE_E_MEMORY;
    t->bpe.bytes = bytes;
    t->n_ids = t->bpe.n_ids = t->bpe.n_symbols = (int32_t)n;
    rc = tokenizer_added_room(t, n_added, err);
    if (!rc)
        rc = bpe_chars_new(&t->bpe, t->arena, n_chars, err);
    for (size_t i = 0; i < n && !rc; i++)
        rc = add_piece(t, bytes, &piece[i], (int32_t)i, o, err);
    return rc;
}

static void add_normalizers(sonde_tokenizer *t, const struct spm_options *o)
{
    size_t n_space = strlen(o->space);
    if (o->remove_extra_spaces)
        t->normalizer[t->n_normalizers++] = (struct normal_step){.kind = NORMAL_SPACES};
    if (o->add_prefix)
        t->normalizer[t->n_normalizers++] =
            (struct normal_step){.kind = NORMAL_PREPEND, .content = o->space, .n_content = n_space};
    if (strcmp(o->space, " ") != 0)
        t->normalizer[t->n_normalizers++] = (struct normal_step){.kind = NORMAL_REPLACE,
                                                                 .pattern = " ",
                                                                 .n_pattern = 1,
                                                                 .content = o->space,
                                                                 .n_content = n_space};
    if (o->remove_extra_spaces) /* trailing ones go last: a text of U+2581 alone leaves nothing */
        t->normalizer[t->n_normalizers++] =
            (struct normal_step){.kind = NORMAL_TRIM_END, .pattern = o->space, .n_pattern = n_space};
    t->strip_space = o->add_prefix;
    t->added_as_is = true;
}

enum sonde_code spm_build(sonde_tokenizer *t, const struct spm_piece *piece, size_t n,
                          const struct spm_options *o, sonde_err *err)
{
    const int32_t ids[] = {o->unk, o->bos, o->eos};
    for (int i = 0; i < 3; i++)
        if (ids[i] < -1 || (ids[i] >= 0 && (size_t)ids[i] >= n))
            return sonde_fail(err, SONDE_E_INPUT,
                              "%s: the id %d of <unk>, <s> or </s> is outside the %zu pieces", o->what,
                              ids[i], n);
    if (n == 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: the vocabulary is empty", o->what);
    enum sonde_code rc = add_pieces(t, piece, n, o, err);
    if (!rc)
        rc = build_merges(t, piece, n, err);
    if (rc)
        return rc;
    t->bpe.late_fallback = t->bpe.fuse_unk = true;
    t->bpe.unk_id = o->unk;
    t->bos = o->bos;
    t->eos = o->eos;
    if (o->adds_bos && o->bos >= 0)
        t->prefix[t->n_prefix++] = o->bos;
    if (o->adds_eos && o->eos >= 0)
        t->suffix[t->n_suffix++] = o->eos;
    add_normalizers(t, o);
    t->kind = "sentencepiece bpe";
    return tokenizer_finish(t, o->space, err);
}
