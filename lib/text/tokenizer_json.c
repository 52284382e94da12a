/* SPDX-License-Identifier: MIT
 * Hugging Face tokenizer.json: the file, its vocabulary and its added tokens. */
#include <string.h>

#include "tokenizer_json_impl.h"

enum sonde_code json_refuse(const struct json_reader *r, const char *component, const char *type,
                            sonde_err *err)
{
    return sonde_fail(err, SONDE_E_INPUT, "%s: %s '%.60s' is not implemented", r->what, component, type);
}

enum sonde_code json_text(const struct json_reader *r, const json_t *obj, const char *key, const char **s,
                          size_t *n, sonde_err *err)
{
    const char *v;
    enum sonde_code rc = sonde_json_string(obj, key, NULL, r->what, &v, err);
    if (rc)
        return rc;
    if (!v)
        return sonde_fail(err, SONDE_E_INPUT, "%s: the key '%s' is missing", r->what, key);
    *n = strlen(v);
    *s = sonde_arena_strndup(r->t->arena, v, *n, err);
    return *s ? SONDE_OK : SONDE_E_MEMORY;
}

enum sonde_code json_parts(const struct json_reader *r, const json_t *component, const char *key,
                           const char *members, struct json_parts *out, sonde_err *err)
{
    struct {
        const json_t *list;
        size_t next;
    } stack[8];
    size_t depth = 0;
    out->n = 0;
    for (const json_t *c = component; c;) {
        const char *type;
        enum sonde_code rc = sonde_json_string(c, "type", "", r->what, &type, err);
        if (rc)
            return rc;
        if (!strcmp(type, "Sequence")) {
            const json_t *list = json_object_get(c, members);
            if (!json_is_array(list) || depth == sizeof stack / sizeof *stack)
                return sonde_fail(err, SONDE_E_INPUT,
                                  "%s: a Sequence in '%s' has no list '%s', or is nested too deep", r->what,
                                  key, members);
            stack[depth].list = list;
            stack[depth++].next = 0;
        } else {
            if (out->n == JSON_PARTS)
                return sonde_fail(err, SONDE_E_INPUT, "%s: '%s' has more than %d parts", r->what, key,
                                  JSON_PARTS);
            out->part[out->n] = c;
            out->type[out->n++] = type;
        }
        c = NULL;
        while (depth && !c) {
            c = json_array_get(stack[depth - 1].list, stack[depth - 1].next++);
            if (!c)
                depth--;
        }
    }
    return SONDE_OK;
}

/* ---- the model --------------------------------------------------------------------------------- */

static enum sonde_code check_model(const struct json_reader *r, const json_t *model, sonde_err *err)
{
    static const char *const must_be_empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *s;
    double dropout, none = 0;
    enum sonde_code rc = sonde_json_string(model, "type", "BPE", r->what, &s, err);
    if (!rc && strcmp(s, "BPE") != 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: model type '%.60s' is not implemented; BPE is", r->what,
                          s);
    for (size_t i = 0; i < 2 && !rc; i++) {
        rc = sonde_json_string(model, must_be_empty[i], "", r->what, &s, err);
        if (!rc && *s)
            rc = json_refuse(r, must_be_empty[i], s, err);
    }
    if (!rc)
        rc = sonde_json_double(model, "dropout", 0, 1, &none, r->what, &dropout, err);
    if (!rc && dropout > 0)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: dropout is %g; only tokenisation without chance is implemented", r->what,
                          dropout);
    if (!rc && !json_is_object(json_object_get(model, "vocab")))
        return sonde_fail(err, SONDE_E_INPUT, "%s: the model has no object 'vocab'", r->what);
    if (!rc && !json_is_array(json_object_get(model, "merges")))
        return sonde_fail(err, SONDE_E_INPUT, "%s: the model has no list 'merges'", r->what);
    return rc;
}

/* "a b" or ["a", "b"]. */
static enum sonde_code add_merge(const struct json_reader *r, const json_t *m, uint32_t rank, sonde_err *err)
{
    const char *left = json_string_value(json_array_get(m, 0)),
               *right = json_string_value(json_array_get(m, 1));
    if (json_is_array(m) && json_array_size(m) == 2 && left && right)
        return tokenizer_merge(r->t, rank, left, strlen(left), right, strlen(right), r->what, err);
    const char *s = json_string_value(m), *space = s ? strchr(s, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return sonde_fail(err, SONDE_E_INPUT, "%s: merge %u is not two tokens with one space between",
                          r->what, rank);
    return tokenizer_merge(r->t, rank, s, (size_t)(space - s), space + 1, strlen(space + 1), r->what, err);
}

static enum sonde_code add_merges(const struct json_reader *r, const json_t *merges, sonde_err *err)
{
    size_t n = json_array_size(merges);
    enum sonde_code rc = bpe_merges_new(&r->t->bpe, r->t->arena, n, err);
    for (size_t i = 0; i < n && !rc; i++)
        rc = add_merge(r, json_array_get(merges, i), (uint32_t)i, err);
    return rc;
}

static enum sonde_code model_options(const struct json_reader *r, const json_t *model, sonde_err *err)
{
    struct bpe *b = &r->t->bpe;
    const char *unk;
    bool fallback = false;
    enum sonde_code rc = sonde_json_bool(model, "fuse_unk", false, r->what, &b->fuse_unk, err);
    if (!rc)
        rc = sonde_json_bool(model, "ignore_merges", false, r->what, &b->ignore_merges, err);
    if (!rc)
        rc = sonde_json_bool(model, "byte_fallback", false, r->what, &fallback, err);
    if (!rc)
        rc = sonde_json_string(model, "unk_token", NULL, r->what, &unk, err);
    if (rc)
        return rc;
    b->unk_id = unk ? vocab_find(&r->t->vocab, unk, strlen(unk)) : -1;
    if (unk && b->unk_id < 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: unk_token '%.60s' is not in the vocabulary", r->what, unk);
    for (int32_t id = 0; id < r->t->n_ids && fallback && b->by_char; id++) {
        int byte = b->bytes[id].s ? byte_of_fallback_name(b->bytes[id].s, b->bytes[id].n) : -1;
        if (byte >= 0)
            b->byte_id[byte] = id;
    }
    return SONDE_OK;
}

/* ---- added tokens ------------------------------------------------------------------------------ */

static enum sonde_code added_token(const struct json_reader *r, const json_t *o, struct added_token *a,
                                   sonde_err *err)
{
    int64_t id;
    enum sonde_code rc = sonde_json_int(o, "id", 0, INT32_MAX, NULL, r->what, &id, err);
    a->id = rc ? -1 : (int32_t)id;
    if (!rc)
        rc = sonde_json_string(o, "content", "", r->what, &a->s, err);
    if (rc)
        return rc;
    a->n = strlen(a->s);
    rc = sonde_json_bool(o, "special", false, r->what, &a->special, err);
    if (!rc)
        rc = sonde_json_bool(o, "normalized", !a->special, r->what, &a->normalized, err);
    if (!rc)
        rc = sonde_json_bool(o, "lstrip", false, r->what, &a->lstrip, err);
    if (!rc)
        rc = sonde_json_bool(o, "rstrip", false, r->what, &a->rstrip, err);
    if (!rc)
        rc = sonde_json_bool(o, "single_word", false, r->what, &a->single_word, err);
    return rc;
}

static enum sonde_code largest_added(const struct json_reader *r, const json_t *added, int64_t *top,
                                     sonde_err *err)
{
    *top = -1;
    if (added && !json_is_null(added) && !json_is_array(added))
        return sonde_fail(err, SONDE_E_INPUT, "%s: 'added_tokens' is not a list", r->what);
    for (size_t i = 0; i < json_array_size(added); i++) {
        int64_t id;
        enum sonde_code rc =
            sonde_json_int(json_array_get(added, i), "id", 0, INT32_MAX, NULL, r->what, &id, err);
        if (rc)
            return rc;
        *top = id > *top ? id : *top;
    }
    return SONDE_OK;
}

static enum sonde_code add_tokens(const struct json_reader *r, const json_t *added, sonde_err *err)
{
    enum sonde_code rc = tokenizer_added_room(r->t, json_array_size(added), err);
    for (size_t i = 0; i < json_array_size(added) && !rc; i++) {
        struct added_token a;
        rc = added_token(r, json_array_get(added, i), &a, err);
        if (!rc)
            rc = tokenizer_add_token(r->t, &a, r->what, err);
    }
    return rc;
}

/* ---- the file ---------------------------------------------------------------------------------- */

/* Where neither the post-processor nor tokenizer_config.json says it: the names that everybody uses. */
static void guess_ends(sonde_tokenizer *t)
{
    static const char *const bos[] = {"<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>"};
    static const char *const eos[] = {"</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"};
    for (int i = 0; i < 4; i++) {
        int32_t b = vocab_find(&t->vocab, bos[i], strlen(bos[i])),
                e = vocab_find(&t->vocab, eos[i], strlen(eos[i]));
        if (t->bos < 0 && b >= 0 && t->flags[b] & TOKEN_SPECIAL)
            t->bos = b;
        if (t->eos < 0 && e >= 0 && t->flags[e] & TOKEN_SPECIAL)
            t->eos = e;
    }
}

static enum sonde_code read_root(struct json_reader *r, const json_t *root, sonde_err *err)
{
    sonde_tokenizer *t = r->t;
    const json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    int64_t top;
    if (!json_is_object(model))
        return sonde_fail(err, SONDE_E_INPUT, "%s: no object 'model'; this is no tokenizer.json", r->what);
    enum sonde_code rc = check_model(r, model, err);
    if (!rc)
        rc = json_normalizer(r, root, err);
    if (!rc)
        rc = json_pre_tokenizer(r, root, err);
    if (!rc)
        rc = largest_added(r, added, &top, err);
    if (!rc)
        rc = tokenizer_json_vocab(t, json_object_get(model, "vocab"), json_array_size(added), top, r->what,
                                  err);
    if (!rc)
        rc = r->byte_level ? tokenizer_byte_level(t, err) : tokenizer_by_char(t, err);
    if (!rc)
        rc = add_merges(r, json_object_get(model, "merges"), err);
    if (!rc)
        rc = model_options(r, model, err);
    if (!rc)
        rc = add_tokens(r, added, err);
    if (!rc)
        rc = json_decoder(r, root, err); /* of all tokens, added ones too */
    if (!rc)
        rc = json_post_processor(r, root, err);
    if (rc)
        return rc;
    guess_ends(t);
    t->kind = r->byte_level            ? "bpe (byte level)"
              : t->bpe.byte_id[0] >= 0 ? "bpe (byte fallback)"
                                       : "bpe (characters)";
    return tokenizer_finish(t, r->byte_level ? NULL : "\xe2\x96\x81", err);
}

enum sonde_code tokenizer_read_json(sonde_tokenizer *t, const sonde_map *m, sonde_err *err)
{
    struct json_reader r = {.t = t, .what = m->path};
    sonde_json j = {0};
    enum sonde_code rc = sonde_json_parse_within(m->data, m->n_bytes, t->budget, m->path, &j, err);
    if (rc)
        return rc;
    rc = read_root(&r, j.root, err);
    sonde_json_release(&j);
    return rc;
}
