/* SPDX-License-Identifier: MIT
 * tokenizer.json: what the post-processor puts around the ids, and how they become text again. */
#include <stdlib.h>
#include <string.h>

#include "tokenizer_json_impl.h"

static enum sonde_code put_id(const struct json_reader *r, int64_t id, bool before, sonde_err *err)
{
    sonde_tokenizer *t = r->t;
    int *n = before ? &t->n_prefix : &t->n_suffix;
    if (id < 0 || id >= t->n_ids || !t->out[id].s)
        return sonde_fail(err, SONDE_E_INPUT, "%s: the post_processor adds id %lld, which is no token",
                          r->what, (long long)id);
    if (*n == TEMPLATE_MAX)
        return sonde_fail(err, SONDE_E_INPUT, "%s: the post_processor adds more than %d tokens", r->what,
                          TEMPLATE_MAX);
    (before ? t->prefix : t->suffix)[(*n)++] = (int32_t)id;
    return SONDE_OK;
}

/* One element of "single": a special token by its name, or the text itself ("A"). */
static enum sonde_code template_part(const struct json_reader *r, const json_t *part, const json_t *tokens,
                                     bool *before, sonde_err *err)
{
    const json_t *special = json_object_get(part, "SpecialToken"), *seq = json_object_get(part, "Sequence");
    const char *id;
    enum sonde_code rc = sonde_json_string(special ? special : seq, "id", "", r->what, &id, err);
    if (rc)
        return rc;
    if (!special) {
        if (strcmp(id, "A") != 0 || !*before)
            return sonde_fail(err, SONDE_E_INPUT,
                              "%s: the post_processor's template for one text must hold A once", r->what);
        *before = false;
        return SONDE_OK;
    }
    const json_t *ids = json_object_get(json_object_get(tokens, id), "ids");
    if (!json_is_array(ids))
        return sonde_fail(err, SONDE_E_INPUT, "%s: the post_processor has no ids for '%.60s'", r->what, id);
    for (size_t i = 0; i < json_array_size(ids) && !rc; i++) {
        const json_t *v = json_array_get(ids, i);
        rc = put_id(r, json_is_integer(v) ? json_integer_value(v) : -1, *before, err);
    }
    return rc;
}

static enum sonde_code template(const struct json_reader *r, const json_t *o, sonde_err *err) {
    const json_t *single = json_object_get(o, "single"), *tokens = json_object_get(o, "special_tokens");
    bool before = true;
    enum sonde_code rc = SONDE_OK;
    if (!json_is_array(single)) return sonde_fail(err, SONDE_E_INPUT,
                                                  "%s: TemplateProcessing has no list 'single'", r->what);
    for (size_t i = 0; i < json_array_size(single) && !rc; i++)
        rc = template_part(r, json_array_get(single, i), tokens, &before, err);
    if (!rc && before) return sonde_fail(err, SONDE_E_INPUT,
                                         "%s: the post_processor's template leaves the text out", r->what);
    return rc;
}

/* {"cls": ["<s>", 0], "sep": ["</s>", 2]} */
static enum sonde_code cls_sep(const struct json_reader *r, const json_t *o, sonde_err *err)
{
    const json_t *cls = json_array_get(json_object_get(o, "cls"), 1),
                 *sep = json_array_get(json_object_get(o, "sep"), 1);
    if (!json_is_integer(cls) || !json_is_integer(sep))
        return sonde_fail(err, SONDE_E_INPUT, "%s: the post_processor's 'cls' and 'sep' are not [name, id]",
                          r->what);
    enum sonde_code rc = put_id(r, json_integer_value(cls), true, err);
    return rc ? rc : put_id(r, json_integer_value(sep), false, err);
}

enum sonde_code json_post_processor(struct json_reader *r, const json_t *root, sonde_err *err)
{
    const json_t *o = json_object_get(root, "post_processor");
    struct json_parts parts;
    enum sonde_code rc =
        json_parts(r, json_is_null(o) ? NULL : o, "post_processor", "processors", &parts, err);
    bool have = false;
    for (size_t i = 0; !rc && i < parts.n; i++) {
        bool is_template = !strcmp(parts.type[i], "TemplateProcessing");
        if (!strcmp(parts.type[i], "ByteLevel"))
            continue; /* trims the spaces from offsets, which sonde keeps */
        if (have)
            return json_refuse(r, "a second post_processor", parts.type[i], err);
        have = true;
        if (is_template)
            rc = template(r, parts.part[i], err);
        else if (!strcmp(parts.type[i], "RobertaProcessing") || !strcmp(parts.type[i], "BertProcessing"))
            rc = cls_sep(r, parts.part[i], err);
        else
            rc = json_refuse(r, "post_processor", parts.type[i], err);
    }
    if (!rc && r->t->n_prefix)
        r->t->bos = r->t->prefix[0];
    return rc;
}

/* ---- decoder ----------------------------------------------------------------------------------- */

/* Replace one string by another in every token's bytes. */
static enum sonde_code replace_in_tokens(const struct json_reader *r, const char *from, size_t n_from,
                                         const char *to, size_t n_to, sonde_err *err)
{
    sonde_tokenizer *t = r->t;
    if (n_from == 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: the decoder replaces an empty string", r->what);
    if (n_to > n_from)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: the decoder replaces %zu bytes by %zu; longer is not implemented", r->what,
                          n_from, n_to);
    for (int32_t id = 0; id < t->n_ids; id++) {
        struct sonde_bytes *b = &t->out[id];
        if (!b->s || !memmem(b->s, b->n, from, n_from))
            continue;
        char *s = sonde_arena_strndup(t->arena, b->s, b->n, err);
        size_t k = 0;
        if (!s)
            return SONDE_E_MEMORY;
        for (size_t i = 0; i < b->n;) {
            if (i + n_from <= b->n && !memcmp(b->s + i, from, n_from)) {
                memcpy(s + k, to, n_to);
                k += n_to;
                i += n_from;
            } else {
                s[k++] = b->s[i++];
            }
        }
        s[k] = '\0';
        *b = (struct sonde_bytes){s, k};
    }
    return SONDE_OK;
}

static enum sonde_code replace_decoder(const struct json_reader *r, const json_t *o, sonde_err *err)
{
    const char *from, *to;
    size_t n_from, n_to;
    const json_t *pattern = json_object_get(o, "pattern");
    if (json_object_get(pattern, "Regex"))
        return json_refuse(r, "decoder", "Replace with a Regex", err);
    enum sonde_code rc = json_text(r, pattern, "String", &from, &n_from, err);
    if (!rc)
        rc = json_text(r, o, "content", &to, &n_to, err);
    return rc ? rc : replace_in_tokens(r, from, n_from, to, n_to, err);
}

static enum sonde_code byte_tokens(const struct json_reader *r, sonde_err *err)
{
    sonde_tokenizer *t = r->t;
    for (int32_t id = 0; id < t->n_ids; id++) {
        int byte = t->out[id].s ? byte_of_fallback_name(t->out[id].s, t->out[id].n) : -1;
        if (byte < 0)
            continue;
        char c = (char)byte;
        t->out[id] = (struct sonde_bytes){sonde_arena_strndup(t->arena, &c, 1, err), 1};
        if (!t->out[id].s)
            return SONDE_E_MEMORY;
    }
    return SONDE_OK;
}

/* {"content": " ", "start": 1, "stop": 0}: the space that a prefix added. */
static enum sonde_code strip_decoder(const struct json_reader *r, const json_t *o, bool fused, sonde_err *err)
{
    const char *content;
    int64_t start, stop, none = 0;
    enum sonde_code rc = sonde_json_string(o, "content", "", r->what, &content, err);
    if (!rc)
        rc = sonde_json_int(o, "start", 0, INT32_MAX, &none, r->what, &start, err);
    if (!rc)
        rc = sonde_json_int(o, "stop", 0, INT32_MAX, &none, r->what, &stop, err);
    if (rc)
        return rc;
    if (strcmp(content, " ") != 0 || start > 1 || stop != 0 || !fused)
        return json_refuse(r, "decoder", "Strip of anything but one space at the beginning", err);
    r->t->strip_space = start == 1;
    return SONDE_OK;
}

static enum sonde_code metaspace_decoder(const struct json_reader *r, const json_t *o, sonde_err *err)
{
    const char *from, *scheme;
    size_t n;
    bool prefix;
    enum sonde_code rc = json_text(r, o, "replacement", &from, &n, err);
    if (!rc)
        rc = sonde_json_bool(o, "add_prefix_space", true, r->what, &prefix, err);
    if (!rc)
        rc = sonde_json_string(o, "prepend_scheme", prefix ? "always" : "never", r->what, &scheme, err);
    if (rc)
        return rc;
    r->t->strip_space = strcmp(scheme, "never") != 0;
    return replace_in_tokens(r, from, n, " ", 1, err);
}

enum sonde_code json_decoder(struct json_reader *r, const json_t *root, sonde_err *err)
{
    const json_t *o = json_object_get(root, "decoder");
    struct json_parts parts;
    bool fused = false, bytes = r->byte_level && (!o || json_is_null(o));
    enum sonde_code rc = json_parts(r, json_is_null(o) ? NULL : o, "decoder", "decoders", &parts, err);
    for (size_t i = 0; !rc && i < parts.n; i++) {
        const char *type = parts.type[i];
        if (!strcmp(type, "ByteLevel"))
            bytes = true;
        else if (!strcmp(type, "Replace"))
            rc = replace_decoder(r, parts.part[i], err);
        else if (!strcmp(type, "ByteFallback"))
            rc = byte_tokens(r, err);
        else if (!strcmp(type, "Fuse"))
            fused = true;
        else if (!strcmp(type, "Strip"))
            rc = strip_decoder(r, parts.part[i], fused, err);
        else if (!strcmp(type, "Metaspace"))
            rc = metaspace_decoder(r, parts.part[i], err);
        else
            rc = json_refuse(r, "decoder", type, err);
    }
    if (!rc && bytes != r->byte_level)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: the decoder and the pre_tokenizer must both be ByteLevel, or neither",
                          r->what);
    return rc;
}
