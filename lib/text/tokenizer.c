/* SPDX-License-Identifier: MIT */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "tokenizer_impl.h"

void sonde_tokens_free(sonde_tokens *t)
{
    if (!t)
        return;
    free(t->id);
    free(t->begin);
    free(t->end);
    *t = (sonde_tokens){0};
}

static enum sonde_code reserve(sonde_tokens *t, size_t n, sonde_err *err)
{
    size_t need, cap, bytes;
    if (n <= t->cap - t->n)
        return SONDE_OK;
    if (!sonde_add(&need, t->n, n) || !sonde_add(&cap, need, need / 2) || !sonde_add(&cap, cap, 64) ||
        !sonde_mul(&bytes, cap, sizeof *t->id))
        return sonde_fail(err, SONDE_E_MEMORY, "too many tokens");
    int32_t *id = realloc(t->id, bytes);
    if (id)
        t->id = id;
    uint32_t *begin = realloc(t->begin, bytes);
    if (begin)
        t->begin = begin;
    uint32_t *end = realloc(t->end, bytes);
    if (end)
        t->end = end;
    if (!id || !begin || !end)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu tokens", cap);
    t->cap = cap;
    return SONDE_OK;
}

static void put(sonde_tokens *t, int32_t id, uint32_t begin, uint32_t end)
{
    t->id[t->n] = id;
    t->begin[t->n] = begin;
    t->end[t->n++] = end;
}

enum sonde_code sonde_tokens_push(sonde_tokens *t, int32_t id, uint32_t begin, uint32_t end, sonde_err *err)
{
    enum sonde_code rc = reserve(t, 1, err);
    if (!rc)
        put(t, id, begin, end);
    return rc;
}

/* ---- encoding ---------------------------------------------------------------------------------- */

/* What a short piece became earlier in the same call. One cache line. */
#define CACHED_IDS 11
struct cached {
    uint64_t lo, hi; /* as bpe_key; hi 0: empty */
    uint32_t n;
    int32_t id[CACHED_IDS];
};

#define CACHE_SMALL 128u
#define CACHE_LARGE 8192u
#define LARGE_TEXT  65536u

struct encoder {
    const sonde_tokenizer *t;
    sonde_tokens *out;
    struct cached *cache;
    size_t n_cache;
    struct bpe_room room;
    struct pretokens pre;
    struct normal_room normal;
    sonde_err *err;
};

/* The merged symbols of a piece as tokens: symbols that are no token become byte tokens, or the unknown
 * token. */
static enum sonde_code put_symbols(struct encoder *e, const struct text_view *v, size_t n)
{
    const struct bpe *b = &e->t->bpe;
    enum sonde_code rc = reserve(e->out, v->n, e->err);
    if (rc)
        return rc;
    size_t at = 0;
    bool unk = false;
    for (size_t i = 0; i < n; i++) {
        size_t end = at + e->room.len[i];
        int32_t id = e->room.id[i];
        bool known = id >= 0 && id < b->n_ids;
        if (known) {
            put(e->out, id, text_begin(v, at), text_end(v, end));
        } else if (bpe_spells(b, v->s + at, end - at)) {
            known = true;
            for (size_t k = at; k < end; k++)
                put(e->out, b->byte_id[v->s[k]], text_begin(v, k), text_end(v, k + 1));
        } else if (b->unk_id < 0) {
            return sonde_fail(e->err, SONDE_E_INPUT,
                              "the vocabulary has no token for '%.*s' and no unknown token",
                              (int)(end - at > 60 ? 60 : end - at), (const char *)v->s + at);
        } else if (unk && b->fuse_unk) {
            e->out->end[e->out->n - 1] = text_end(v, end);
        } else {
            put(e->out, b->unk_id, text_begin(v, at), text_end(v, end));
        }
        unk = !known;
        at = end;
    }
    return SONDE_OK;
}

/* Keep what a piece became, if the lengths of its tokens follow from their ids. */
static void remember(struct encoder *e, uint64_t lo, uint64_t hi, size_t n)
{
    const struct bpe *b = &e->t->bpe;
    if (n > CACHED_IDS)
        return;
    for (size_t i = 0; i < n; i++) {
        int32_t id = e->room.id[i];
        if (id < 0 || id >= b->n_ids || b->bytes[id].n != e->room.len[i])
            return;
    }
    struct cached *c = &e->cache[bpe_hash(lo, hi) & (e->n_cache - 1)];
    c->lo = lo;
    c->hi = hi;
    c->n = (uint32_t)n;
    memcpy(c->id, e->room.id, n * sizeof *c->id);
}

static enum sonde_code encode_piece(struct encoder *e, const struct text_view *v)
{
    const struct bpe *b = &e->t->bpe;
    uint64_t lo = 0, hi = 0;
    enum sonde_code rc;
    if (v->n <= 15) {
        bpe_key(v->s, v->n, &lo, &hi);
        int32_t id = bpe_whole_word(b, lo, hi);
        if (id >= 0)
            return sonde_tokens_push(e->out, id, text_begin(v, 0), text_end(v, v->n), e->err);
        const struct cached *c = &e->cache[bpe_hash(lo, hi) & (e->n_cache - 1)];
        if (c->lo == lo && c->hi == hi) {
            rc = reserve(e->out, c->n, e->err);
            size_t at = 0;
            for (uint32_t i = 0; i < c->n && !rc; i++) {
                size_t end = at + b->bytes[c->id[i]].n;
                put(e->out, c->id[i], text_begin(v, at), text_end(v, end));
                at = end;
            }
            return rc;
        }
    } else if (b->ignore_merges) {
        int32_t id = bpe_whole_long(b, v->s, v->n);
        if (id >= 0)
            return sonde_tokens_push(e->out, id, text_begin(v, 0), text_end(v, v->n), e->err);
    }
    size_t n;
    rc = bpe_encode(b, &e->room, v->s, v->n, &n, e->err);
    if (rc)
        return rc;
    if (v->n <= 15)
        remember(e, lo, hi, n);
    return put_symbols(e, v, n);
}

static enum sonde_code encode_plain(struct encoder *e, const struct text_view *v)
{
    struct text_view piece;
    bool more = true;
    enum sonde_code rc = pretokens_begin(&e->pre, e->t->pre, e->t->n_pre, v, e->err);
    while (!rc) {
        rc = pretokens_next(&e->pre, &piece, &more, e->err);
        if (rc || !more)
            break;
        rc = encode_piece(e, &piece);
    }
    return rc;
}

/* Text cut at the added tokens of one trie. */
struct split {
    const sonde_tokenizer *t;
    const struct trie *trie;
    struct text_view v;
    bool special;
    size_t at, begin; /* looked at, given out */
    int32_t token;    /* the one that ends the piece, -1: none */
    size_t token_begin, token_end;
};

static bool word_beside(const struct split *s, size_t begin, size_t end)
{
    size_t len;
    if (begin > 0 && sonde_unicode_class(sonde_utf8_last(s->v.s, begin, &len)) & SONDE_U_WORD)
        return true;
    return end < s->v.n && sonde_unicode_class(sonde_utf8_next(s->v.s, s->v.n, end, &len)) & SONDE_U_WORD;
}

static void take_spaces(const struct split *s, const struct added_token *a, size_t *begin, size_t *end)
{
    size_t len;
    while (a->lstrip && *begin > s->begin &&
           sonde_unicode_class(sonde_utf8_last(s->v.s, *begin, &len)) & SONDE_U_SPACE)
        *begin -= len;
    while (a->rstrip && *end < s->v.n &&
           sonde_unicode_class(sonde_utf8_next(s->v.s, s->v.n, *end, &len)) & SONDE_U_SPACE)
        *end += len;
    if (*begin < s->begin) /* spaces that the token before has taken */
        *begin = s->begin;
}

/* The next token of the trie in the text, with what it strips. A special token that is not asked for is text,
 * and so is everything inside it. */
static bool find_token(struct split *s)
{
    while (s->at < s->v.n) {
        size_t len, begin = s->at;
        int32_t k = s->trie->root[s->v.s[begin]] ? trie_longest(s->trie, s->v.s, s->v.n, begin, &len) : -1;
        if (k < 0) {
            s->at++;
            continue;
        }
        const struct added_token *a = &s->t->added[k];
        size_t end = s->at = begin + len;
        if ((a->special && !s->special) || (a->single_word && word_beside(s, begin, end)))
            continue;
        take_spaces(s, a, &begin, &end);
        if (end <= s->begin)
            continue;
        s->token = k;
        s->token_begin = begin;
        s->token_end = end;
        return true;
    }
    return false;
}

/* The next piece: text (*token -1, perhaps empty at the end) or a token. False when all is given out. */
static bool split_next(struct split *s, struct text_view *piece, int32_t *token)
{
    if (s->token < 0 && s->begin >= s->v.n)
        return false;
    if (s->token < 0 && !find_token(s))
        s->token_begin = s->v.n;
    if (s->begin < s->token_begin) {
        *piece = text_cut(&s->v, s->begin, s->token_begin);
        *token = -1;
        s->begin = s->token_begin;
        return true;
    }
    *piece = text_cut(&s->v, s->token_begin, s->token_end);
    *token = s->token;
    s->begin = s->token_end;
    s->token = -1;
    return true;
}

static enum sonde_code put_added(struct encoder *e, int32_t token, const struct text_view *v)
{
    return sonde_tokens_push(e->out, e->t->added[token].id, text_begin(v, 0), text_end(v, v->n), e->err);
}

/* A piece between added tokens of the raw text: normalised, cut at those of the normalised text. */
static enum sonde_code encode_span(struct encoder *e, struct text_view v, bool special)
{
    const sonde_tokenizer *t = e->t;
    enum sonde_code rc = normalize(t->normalizer, t->n_normalizers, &e->normal, &v, e->err);
    if (rc || v.n == 0)
        return rc;
    if (!t->normal.n || (!special && !t->normal.ordinary))
        return encode_plain(e, &v);
    struct split s = {.t = t, .trie = &t->normal, .v = v, .special = special, .token = -1};
    struct text_view piece;
    int32_t token;
    while (!rc && split_next(&s, &piece, &token))
        rc = token >= 0 ? put_added(e, token, &piece) : encode_plain(e, &piece);
    return rc;
}

static enum sonde_code encode_text(struct encoder *e, struct text_view v, bool special)
{
    const sonde_tokenizer *t = e->t;
    if (!t->raw.n || (!special && !t->raw.ordinary))
        return v.n ? encode_span(e, v, special) : SONDE_OK;
    struct split s = {.t = t, .trie = &t->raw, .v = v, .special = special, .token = -1};
    struct text_view piece;
    int32_t token;
    enum sonde_code rc = SONDE_OK;
    while (!rc && split_next(&s, &piece, &token))
        rc = token >= 0 ? put_added(e, token, &piece) : encode_span(e, piece, special);
    return rc;
}

/* The ids in front of the text. A text that spells the BOS itself does not get a second one. */
static enum sonde_code put_prefix(struct encoder *e, const struct text_view *v, enum sonde_bos bos,
                                  bool special)
{
    const sonde_tokenizer *t = e->t;
    enum sonde_code rc = SONDE_OK;
    size_t len;
    if (bos == SONDE_BOS_NEVER)
        return SONDE_OK;
    if (bos == SONDE_BOS_ALWAYS && t->bos < 0)
        return sonde_fail(e->err, SONDE_E_USAGE,
                          "this tokenizer has no BOS token; use the BOS policy auto or never");
    bool has_bos = false, spelt = false;
    for (int i = 0; i < t->n_prefix; i++)
        has_bos |= t->prefix[i] == t->bos;
    if (special && v->n && t->raw.n) {
        int32_t k = trie_longest(&t->raw, v->s, v->n, 0, &len);
        spelt = k >= 0 && t->added[k].id == t->bos;
    }
    if (bos == SONDE_BOS_ALWAYS && !has_bos && !spelt)
        rc = sonde_tokens_push(e->out, t->bos, 0, 0, e->err);
    for (int i = 0; i < t->n_prefix && !rc; i++)
        if (!spelt || t->prefix[i] != t->bos)
            rc = sonde_tokens_push(e->out, t->prefix[i], 0, 0, e->err);
    return rc;
}

static void encoder_free(struct encoder *e, const struct cached *small)
{
    if (e->cache != small)
        free(e->cache);
    bpe_room_free(&e->room);
    pretokens_free(&e->pre);
    normal_room_free(&e->normal);
}

enum sonde_code sonde_tokenizer_encode(const sonde_tokenizer *t, const char *text, size_t n,
                                       enum sonde_bos bos, bool special, sonde_tokens *out, sonde_err *err)
{
    if (n > UINT32_MAX)
        return sonde_fail(err, SONDE_E_USAGE, "a text of %zu bytes; at most %u can be encoded at once", n,
                          UINT32_MAX);
    struct cached small[CACHE_SMALL];
    struct encoder e = {.t = t, .out = out, .cache = small, .n_cache = CACHE_SMALL, .err = err};
    struct cached *large = n >= LARGE_TEXT ? calloc(CACHE_LARGE, sizeof *large) : NULL;
    if (large) {
        e.cache = large;
        e.n_cache = CACHE_LARGE;
    } else {
        for (size_t i = 0; i < CACHE_SMALL; i++)
            small[i].lo = small[i].hi = 0;
    }
    size_t before = out->n;
    struct text_view v = {(const unsigned char *)text, n, 0, NULL, NULL};
    enum sonde_code rc = put_prefix(&e, &v, bos, special);
    if (!rc)
        rc = reserve(out, n / 4 + 8, err);
    if (!rc)
        rc = encode_text(&e, v, special);
    for (int i = 0; i < t->n_suffix && !rc && bos != SONDE_BOS_NEVER; i++)
        rc = sonde_tokens_push(out, t->suffix[i], (uint32_t)n, (uint32_t)n, err);
    if (rc)
        out->n = before;
    encoder_free(&e, small);
    return rc;
}

/* ---- decoding ---------------------------------------------------------------------------------- */

static enum sonde_code check_id(const sonde_tokenizer *t, int32_t id, size_t at, sonde_err *err)
{
    if (id < 0 || id >= t->n_ids)
        return sonde_fail(err, SONDE_E_USAGE, "id %d at position %zu is not in the vocabulary (0..%d)", id,
                          at, t->n_ids - 1);
    return SONDE_OK;
}

enum sonde_code sonde_tokenizer_decode(const sonde_tokenizer *t, const int32_t *id, size_t n, bool special,
                                       char **out, size_t *n_out, sonde_err *err)
{
    size_t total = 1;
    for (size_t i = 0; i < n; i++) {
        enum sonde_code rc = check_id(t, id[i], i, err);
        if (rc)
            return rc;
        if (!sonde_add(&total, total, t->out[id[i]].n))
            return sonde_fail(err, SONDE_E_MEMORY, "the text of %zu ids is too long", n);
    }
    char *s = malloc(total);
    if (!s)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu bytes of text", total);
    size_t k = 0;
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        struct sonde_bytes b = t->out[id[i]];
        bool is_special = t->flags[id[i]] & TOKEN_SPECIAL;
        if (is_special && !special)
            continue;
        if (first && !is_special) {
            size_t drop = t->strip_space && b.n && b.s[0] == ' ';
            b.s += drop;
            b.n -= drop;
            first = false;
        }
        if (b.n)
            memcpy(s + k, b.s, b.n);
        k += b.n;
    }
    s[k] = '\0';
    *out = s;
    *n_out = k;
    return SONDE_OK;
}

/* ---- facts ------------------------------------------------------------------------------------- */

const char *sonde_tokenizer_bytes(const sonde_tokenizer *t, int32_t id, size_t *n)
{
    if (id < 0 || id >= t->n_ids || !t->out[id].s) {
        *n = 0;
        return "";
    }
    *n = t->out[id].n;
    return t->out[id].s;
}

int32_t sonde_tokenizer_size(const sonde_tokenizer *t)
{
    return t->n_ids;
}

int32_t sonde_tokenizer_bos_id(const sonde_tokenizer *t)
{
    return t->bos;
}

int32_t sonde_tokenizer_eos_id(const sonde_tokenizer *t)
{
    return t->eos;
}

bool sonde_tokenizer_adds_bos(const sonde_tokenizer *t)
{
    for (int i = 0; i < t->n_prefix; i++)
        if (t->prefix[i] == t->bos)
            return true;
    return false;
}

bool sonde_tokenizer_is_special(const sonde_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_ids && t->flags[id] & TOKEN_SPECIAL;
}

const char *sonde_tokenizer_kind(const sonde_tokenizer *t)
{
    return t->kind;
}

const char *sonde_tokenizer_sha256(const sonde_tokenizer *t)
{
    return t->sha256;
}

void sonde_tokenizer_close(sonde_tokenizer *t)
{
    if (!t)
        return;
    for (int i = 0; i < t->n_normalizers; i++)
        regex_free(t->normalizer[i].regex);
    for (int i = 0; i < t->n_pre; i++)
        regex_free(t->pre[i].regex);
    sonde_arena_free(t->arena);
}
