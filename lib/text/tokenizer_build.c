/* SPDX-License-Identifier: MIT
 * What all readers of tokenizers share: from names and merges to the tables that encoding uses. */
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "tokenizer_impl.h"

enum sonde_code tokenizer_new(sonde_budget *budget, sonde_tokenizer **out, sonde_err *err)
{
    sonde_arena *a = sonde_arena_new(budget, err);
    if (!a)
        return SONDE_E_MEMORY;
    sonde_tokenizer *t = sonde_arena_get(a, 1, sizeof *t, err);
    if (!t) {
        sonde_arena_free(a);
        return SONDE_E_MEMORY;
    }
    t->arena = a;
    t->budget = budget;
    t->bos = t->eos = -1;
    t->bpe.unk_id = -1;
    memset(t->bpe.byte_id, 0xff, sizeof t->bpe.byte_id);
    t->pre[0].kind = PRETOKEN_WHOLE;
    t->n_pre = 1;
    *out = t;
    return SONDE_OK;
}

/* ---- names ------------------------------------------------------------------------------------- */

int byte_of_char(uint32_t cp)
{
    if ((cp >= 33 && cp <= 126) || (cp >= 161 && cp <= 172) || (cp >= 174 && cp <= 255))
        return (int)cp;
    if (cp < 0x100 || cp > 0x143)
        return -1;
    uint32_t k = cp - 0x100; /* the k-th of the other bytes: 0..32, 127..160, 173 */
    return k <= 32 ? (int)k : k <= 66 ? (int)k - 33 + 127 : 173;
}

bool bytes_of_name(const char *name, size_t n, unsigned char *out, size_t *n_out)
{
    size_t k = 0, len;
    for (size_t at = 0; at < n; at += len) {
        int b = byte_of_char(sonde_utf8_next((const unsigned char *)name, n, at, &len));
        if (b < 0)
            return false;
        out[k++] = (unsigned char)b;
    }
    *n_out = k;
    return true;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int byte_of_fallback_name(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>' || hex(s[3]) < 0 || hex(s[4]) < 0)
        return -1;
    return hex(s[3]) * 16 + hex(s[4]);
}

static enum sonde_code new_tables(sonde_tokenizer *t, struct sonde_bytes **bytes, struct sonde_bytes **out,
                                  sonde_err *err)
{
    size_t n = (size_t)t->vocab.n_ids;
    t->n_ids = t->bpe.n_ids = t->bpe.n_symbols = t->vocab.n_ids;
    *bytes = sonde_arena_get(t->arena, n, sizeof **bytes, err);
    *out = sonde_arena_get(t->arena, n, sizeof **out, err);
    t->flags = sonde_arena_get(t->arena, n, 1, err);
    t->bpe.bytes = *bytes;
    t->out = *out;
    return *bytes && *out && t->flags ? SONDE_OK : SONDE_E_MEMORY;
}

enum sonde_code tokenizer_byte_level(sonde_tokenizer *t, sonde_err *err)
{
    struct sonde_bytes *bytes, *out;
    enum sonde_code rc = new_tables(t, &bytes, &out, err);
    if (rc)
        return rc;
    size_t total = 0;
    for (int32_t id = 0; id < t->n_ids; id++)
        total += t->vocab.name[id].n + 1; /* both bounded by the file */
    unsigned char *s = sonde_arena_get(t->arena, total, 1, err);
    if (!s)
        return SONDE_E_MEMORY;
    for (int32_t id = 0; id < t->n_ids; id++) {
        struct sonde_bytes name = t->vocab.name[id];
        size_t n;
        out[id] = name;
        if (!name.s || !bytes_of_name(name.s, name.n, s, &n))
            continue; /* a name that no text becomes */
        bytes[id] = out[id] = (struct sonde_bytes){(char *)s, n};
        if (n == 1)
            t->bpe.byte_id[s[0]] = id;
        s += n + 1;
    }
    return SONDE_OK;
}

enum sonde_code tokenizer_by_char(sonde_tokenizer *t, sonde_err *err)
{
    struct sonde_bytes *bytes, *out;
    enum sonde_code rc = new_tables(t, &bytes, &out, err);
    if (rc)
        return rc;
    size_t n_chars = 0, len;
    for (int32_t id = 0; id < t->n_ids; id++) {
        struct sonde_bytes name = t->vocab.name[id];
        if (!name.s)
            continue;
        bytes[id] = out[id] = name;
        n_chars += name.n <= 4;
    }
    rc = bpe_chars_new(&t->bpe, t->arena, n_chars, err);
    for (int32_t id = 0; id < t->n_ids && !rc; id++) {
        const struct sonde_bytes *b = &bytes[id];
        if (!b->s || b->n == 0 || b->n > 4)
            continue;
        uint32_t cp = sonde_utf8_next((const unsigned char *)b->s, b->n, 0, &len);
        if (cp != SONDE_INVALID && len == b->n)
            bpe_chars_add(&t->bpe, cp, id);
    }
    return rc;
}

enum sonde_code tokenizer_merge(sonde_tokenizer *t, uint32_t rank, const char *left, size_t n_left,
                                const char *right, size_t n_right, const char *what, sonde_err *err)
{
    char joined[512], *s = joined;
    size_t n;
    int show_left = n_left > 60 ? 60 : (int)n_left, show_right = n_right > 60 ? 60 : (int)n_right;
    int32_t a = vocab_find(&t->vocab, left, n_left), b = vocab_find(&t->vocab, right, n_right);
    if (a < 0 || b < 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: merge %u refers to '%.*s', which is not in the vocabulary",
                          what, rank, a < 0 ? show_left : show_right, a < 0 ? left : right);
    if (!sonde_add(&n, n_left, n_right))
        return sonde_fail(err, SONDE_E_INPUT, "%s: merge %u is too long", what, rank);
    if (n > sizeof joined) { /* both parts are in the vocabulary, so this is bounded by the file */
        s = malloc(n);
        if (!s)
            return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for a merge of %zu bytes", what, n);
    }
    memcpy(s, left, n_left);
    memcpy(s + n_left, right, n_right);
    int32_t id = vocab_find(&t->vocab, s, n);
    if (s != joined)
        free(s);
    if (id < 0)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: merge %u ('%.*s' + '%.*s') makes no token of the vocabulary", what, rank,
                          show_left, left, show_right, right);
    return bpe_merges_add(&t->bpe, (uint32_t)a, (uint32_t)b, rank, id, true, err);
}

/* ---- added tokens ------------------------------------------------------------------------------ */

enum sonde_code tokenizer_added_room(sonde_tokenizer *t, size_t n, sonde_err *err)
{
    t->n_added = 0;
    t->added = sonde_arena_get(t->arena, n, sizeof *t->added, err);
    return t->added ? SONDE_OK : SONDE_E_MEMORY;
}

enum sonde_code tokenizer_add_token(sonde_tokenizer *t, const struct added_token *tok, const char *what,
                                    sonde_err *err)
{
    int show = tok->n > 60 ? 60 : (int)tok->n;
    if (tok->n == 0 || tok->n > ADDED_MAX_BYTES)
        return sonde_fail(err, SONDE_E_INPUT, "%s: added token %d has %zu bytes; 1 to %d are allowed", what,
                          tok->id, tok->n, ADDED_MAX_BYTES);
    int32_t id = vocab_find(&t->vocab, tok->s, tok->n);
    if (id >= 0 && id != tok->id)
        return sonde_fail(err, SONDE_E_INPUT, "%s: added token '%.*s' has id %d, the vocabulary gives it %d",
                          what, show, tok->s, tok->id, id);
    if (id < 0) {
        enum sonde_code rc = vocab_add(&t->vocab, t->arena, tok->id, tok->s, tok->n, what, err);
        if (rc)
            return rc;
    }
    if (t->flags[tok->id] & TOKEN_ADDED)
        return sonde_fail(err, SONDE_E_INPUT, "%s: token '%.*s' (id %d) is added twice", what, show, tok->s,
                          tok->id);
    struct added_token *mine = &t->added[t->n_added++];
    *mine = *tok;
    mine->s = t->vocab.name[tok->id].s;
    t->out[tok->id] = t->vocab.name[tok->id];
    t->flags[tok->id] = (unsigned char)(TOKEN_ADDED | (tok->special ? TOKEN_SPECIAL : 0));
    return SONDE_OK;
}

static enum sonde_code build_tries(sonde_tokenizer *t, sonde_err *err)
{
    struct normal_room room = {0};
    enum sonde_code rc = SONDE_OK;
    for (size_t i = 0; i < t->n_added && !rc; i++) {
        const struct added_token *a = &t->added[i];
        struct trie *trie = a->normalized ? &t->normal : &t->raw;
        struct text_view v = {(const unsigned char *)a->s, a->n, 0, NULL, NULL};
        if (a->normalized && !t->added_as_is)
            rc = normalize(t->normalizer, t->n_normalizers, &room, &v, err);
        if (!rc && v.n)
            rc = trie_add(trie, t->arena, (const char *)v.s, v.n, (int32_t)i, err);
        trie->ordinary |= !a->special;
    }
    normal_room_free(&room);
    return rc;
}

/* Before a space that no merge joins to the byte in front of it, text can be cut without changing any id. */
static void cut_at_spaces(sonde_tokenizer *t, const char *space)
{
    size_t n = strlen(space), len;
    const struct bpe *b = &t->bpe;
    struct pretoken_step *last = &t->pre[t->n_pre - 1];
    int32_t id = b->by_char ? bpe_char_id(b, sonde_utf8_next((const unsigned char *)space, n, 0, &len)) : -1;
    if (b->ignore_merges || id < 0 || id >= b->n_ids ||
        (last->kind == PRETOKEN_STRING && last->n_pattern == n))
        return;
    for (size_t i = 0; i < b->n_slots; i++) {
        if (b->merge[i].left == UINT32_MAX)
            continue;
        const struct sonde_bytes *token = &b->bytes[b->merge[i].id];
        for (size_t k = 1; k + n <= token->n; k++)
            if (!memcmp(token->s + k, space, n))
                t->unsafe[(unsigned char)token->s[k - 1]] = 1;
    }
    if (last->kind != PRETOKEN_WHOLE || last->prefix) {
        if (t->n_pre == PRETOKEN_MAX_STEPS)
            return;
        last = &t->pre[t->n_pre++];
    }
    *last =
        (struct pretoken_step){.kind = PRETOKEN_SAFE, .pattern = space, .n_pattern = n, .unsafe = t->unsafe};
}

enum sonde_code tokenizer_finish(sonde_tokenizer *t, const char *space, sonde_err *err)
{
    enum sonde_code rc = build_tries(t, err);
    if (rc)
        return rc;
    struct bpe *b = &t->bpe;
    bool *usable = sonde_arena_get(t->arena, (size_t)t->n_ids, 1, err);
    if (!usable)
        return SONDE_E_MEMORY;
    for (int32_t id = 0; id < t->n_ids; id++)
        usable[id] = !(t->flags[id] & TOKEN_SPECIAL);
    rc = bpe_words_build(b, t->arena, usable, err);
    if (!rc && space)
        cut_at_spaces(t, space);
    return rc;
}
