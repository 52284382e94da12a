/* SPDX-License-Identifier: MIT
 * GPT-2's layout: vocab.json (or encoder.json) and merges.txt. */
#include <string.h>

#include "../base/size.h"
#include "tokenizer_impl.h"

enum sonde_code tokenizer_json_vocab(sonde_tokenizer *t, const json_t *vocab, size_t n_more, int64_t max_more,
                                     const char *what, sonde_err *err)
{
    const char *name;
    json_t *v;
    int64_t top = max_more;
    json_object_foreach((json_t *)(uintptr_t)vocab, name, v) /* jansson's iterators are not const */
    {
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return sonde_fail(err, SONDE_E_INPUT, "%s: the id of token '%.60s' is no integer from 0", what,
                              name);
        if (json_integer_value(v) > top)
            top = json_integer_value(v);
    }
    size_t n = json_object_size(vocab) + n_more;
    if (n == 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: the vocabulary is empty", what);
    enum sonde_code rc = vocab_new(&t->vocab, t->arena, (uint64_t)top + 1, n, what, err);
    if (rc)
        return rc;
    json_object_foreach((json_t *)(uintptr_t)vocab, name, v)
    {
        rc = vocab_add(&t->vocab, t->arena, json_integer_value(v), name, strlen(name), what, err);
        if (rc)
            return rc;
    }
    return SONDE_OK;
}

static size_t count_lines(const char *s, size_t n)
{
    size_t k = 1;
    for (const char *p = s; n && (p = memchr(p, '\n', n - (size_t)(p - s))); p++)
        k++;
    return k;
}

/* One merge per line, its parts separated by one space; "#version" lines are comments, other lines may begin
 * with '#'. */
enum sonde_code tokenizer_parse_merges(sonde_tokenizer *t, const char *s, size_t n, const char *what,
                                       sonde_err *err)
{
    enum sonde_code rc = bpe_merges_new(&t->bpe, t->arena, count_lines(s, n), err);
    uint32_t rank = 0;
    size_t line = 0;
    for (size_t at = 0, next; at < n && !rc; at = next) {
        const char *nl = memchr(s + at, '\n', n - at);
        size_t end = nl ? (size_t)(nl - s) : n;
        next = end + (nl != NULL);
        line++;
        if (end > at && s[end - 1] == '\r')
            end--;
        const char *l = s + at, *space = memchr(l, ' ', end - at);
        if ((end - at >= 8 && !memcmp(l, "#version", 8)) || (end == at && next == n))
            continue;
        size_t n_left = space ? (size_t)(space - l) : 0, n_right = space ? end - at - n_left - 1 : 0;
        if (!n_left || !n_right || memchr(space + 1, ' ', n_right))
            return sonde_fail(err, SONDE_E_INPUT, "%s: line %zu is not two tokens with one space between",
                              what, line);
        rc = tokenizer_merge(t, rank++, l, n_left, space + 1, n_right, what, err);
    }
    return rc;
}

static enum sonde_code add_tokens(sonde_tokenizer *t, const struct config *c, size_t n_listed,
                                  const char *what, sonde_err *err)
{
    static const char eot[] = "<|endoftext|>";
    enum sonde_code rc = tokenizer_added_room(t, n_listed + 1, err);
    if (!rc)
        rc = config_add_tokens(t, c, what, err);
    int32_t id = vocab_find(&t->vocab, eot, strlen(eot));
    if (rc || id < 0)
        return rc;
    t->bos = t->eos = id;
    if (t->flags[id] & TOKEN_ADDED)
        return SONDE_OK;
    struct added_token tok = {.id = id, .s = eot, .n = strlen(eot), .special = true};
    return tokenizer_add_token(t, &tok, what, err);
}

/* The pattern is GPT-2's, but Qwen 2 ships the same two files. */
static void choose_pattern(sonde_tokenizer *t, const struct config *c)
{
    t->pre[0] = (struct pretoken_step){.kind = PRETOKEN_GPT2};
    if (config_class_has(c, "Qwen2")) {
        t->pre[0] = (struct pretoken_step){.kind = PRETOKEN_CL100K, .max_digits = 1};
        t->normalizer[t->n_normalizers++] = (struct normal_step){.kind = NORMAL_FORM, .form = SONDE_NFC};
    }
    if (json_is_true(json_object_get(c->main, "add_prefix_space"))) {
        t->pre[0].prefix = " ";
        t->pre[0].prefix_when = PRETOKEN_PREFIX_ALWAYS;
    }
}

enum sonde_code tokenizer_read_merges(sonde_tokenizer *t, const sonde_map *vocab, const sonde_map *merges,
                                      const struct config *c, sonde_err *err)
{
    sonde_json j = {0};
    int64_t largest;
    size_t n_listed = config_n_added(c, &largest);
    enum sonde_code rc =
        sonde_json_parse_within(vocab->data, vocab->n_bytes, t->budget, vocab->path, &j, err);
    if (rc)
        return rc;
    if (!json_is_object(j.root))
        rc = sonde_fail(err, SONDE_E_INPUT, "%s: a vocabulary is an object of tokens and ids", vocab->path);
    if (!rc)
        rc = tokenizer_json_vocab(t, j.root, n_listed, largest, vocab->path, err);
    if (!rc)
        rc = tokenizer_byte_level(t, err);
    sonde_json_release(&j);
    if (!rc)
        rc = tokenizer_parse_merges(t, (const char *)merges->data, merges->n_bytes, merges->path, err);
    if (!rc)
        rc = add_tokens(t, c, n_listed, vocab->path, err);
    if (rc)
        return rc;
    choose_pattern(t, c);
    t->kind = "bpe (byte level)";
    return tokenizer_finish(t, NULL, err);
}
