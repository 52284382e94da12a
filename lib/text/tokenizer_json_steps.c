/* SPDX-License-Identifier: MIT
 * tokenizer.json: what happens to text before the model sees it. */
#include <string.h>

#include "tokenizer_json_impl.h"

/* {"String": s} or {"Regex": s}. */
static enum sonde_code read_pattern(const struct json_reader *r, const json_t *obj, bool *is_regex,
                                    const char **s, size_t *n, sonde_err *err)
{
    const json_t *p = json_object_get(obj, "pattern");
    *is_regex = json_object_get(p, "Regex") != NULL;
    return json_text(r, p, *is_regex ? "Regex" : "String", s, n, err);
}

/* ---- normalizer -------------------------------------------------------------------------------- */

static enum sonde_code normal_step(struct json_reader *r, const json_t *o, const char *type,
                                   struct normal_step *step, sonde_err *err)
{
    static const struct {
        const char *type;
        enum sonde_normal_form form;
    } forms[] = {{"NFC", SONDE_NFC}, {"NFD", SONDE_NFD}, {"NFKC", SONDE_NFKC}, {"NFKD", SONDE_NFKD}};
    enum sonde_code rc;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (!strcmp(type, forms[i].type)) {
            *step = (struct normal_step){.kind = NORMAL_FORM, .form = forms[i].form};
            return SONDE_OK;
        }
    }
    if (!strcmp(type, "Lowercase")) {
        step->kind = NORMAL_LOWER;
        return SONDE_OK;
    }
    if (!strcmp(type, "Prepend")) {
        step->kind = NORMAL_PREPEND;
        return json_text(r, o, "prepend", &step->content, &step->n_content, err);
    }
    if (!strcmp(type, "Strip")) {
        step->kind = NORMAL_STRIP;
        rc = sonde_json_bool(o, "strip_left", false, r->what, &step->left, err);
        return rc ? rc : sonde_json_bool(o, "strip_right", false, r->what, &step->right, err);
    }
    if (strcmp(type, "Replace") != 0)
        return json_refuse(r, "normalizer", type, err);
    bool is_regex;
    rc = json_text(r, o, "content", &step->content, &step->n_content, err);
    if (!rc)
        rc = read_pattern(r, o, &is_regex, &step->pattern, &step->n_pattern, err);
    if (rc)
        return rc;
    step->kind = is_regex ? NORMAL_REPLACE_REGEX : NORMAL_REPLACE;
    return is_regex ? regex_new(step->pattern, step->n_pattern, &step->regex, err) : SONDE_OK;
}

enum sonde_code json_normalizer(struct json_reader *r, const json_t *root, sonde_err *err)
{
    const json_t *o = json_object_get(root, "normalizer");
    struct json_parts parts;
    enum sonde_code rc = json_parts(r, json_is_null(o) ? NULL : o, "normalizer", "normalizers", &parts, err);
    if (!rc && parts.n > NORMAL_MAX_STEPS)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %zu normalizers; at most %d", r->what, parts.n,
                          NORMAL_MAX_STEPS);
    for (size_t i = 0; i < parts.n && !rc;
         i++) /* counted first, so that close() frees what a failing one began */
        rc = normal_step(r, parts.part[i], parts.type[i], &r->t->normalizer[r->t->n_normalizers++], err);
    return rc;
}

/* ---- pre_tokenizer ----------------------------------------------------------------------------- */

static enum sonde_code behaviour(const struct json_reader *r, const json_t *o, enum pretoken_behaviour *out,
                                 sonde_err *err)
{
    static const char *const name[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
                                       "Contiguous"};
    const char *s;
    enum sonde_code rc = sonde_json_string(o, "behavior", "Isolated", r->what, &s, err);
    if (rc)
        return rc;
    for (int i = 0; i < 5; i++) {
        if (!strcmp(s, name[i])) {
            *out = (enum pretoken_behaviour)i;
            return SONDE_OK;
        }
    }
    return json_refuse(r, "split behavior", s, err);
}

static enum sonde_code split_step(const struct json_reader *r, const json_t *o, struct pretoken_step *step,
                                  sonde_err *err)
{
    bool is_regex;
    enum sonde_code rc = read_pattern(r, o, &is_regex, &step->pattern, &step->n_pattern, err);
    if (!rc)
        rc = behaviour(r, o, &step->behaviour, err);
    if (!rc)
        rc = sonde_json_bool(o, "invert", false, r->what, &step->invert, err);
    if (rc)
        return rc;
    step->kind = PRETOKEN_STRING;
    if (!is_regex)
        return SONDE_OK;
    /* the known patterns match everything, so that these two mean the same */
    bool all = (step->behaviour == PRETOKEN_ISOLATED && !step->invert) ||
               (step->behaviour == PRETOKEN_REMOVED && step->invert);
    if (all && pretoken_known_pattern(step->pattern, step->n_pattern, step))
        return SONDE_OK;
    step->kind = PRETOKEN_REGEX;
    rc = regex_new(step->pattern, step->n_pattern, &step->regex, err);
    return rc ? (err ? sonde_err_wrap(err, "%s: pre_tokenizer", r->what) : rc) : SONDE_OK;
}

static enum sonde_code metaspace_step(const struct json_reader *r, const json_t *o,
                                      struct pretoken_step *step, sonde_err *err)
{
    const char *scheme;
    bool prefix, split;
    size_t n;
    enum sonde_code rc = json_text(r, o, "replacement", &step->prefix, &n, err);
    if (!rc)
        rc = sonde_json_bool(o, "add_prefix_space", true, r->what, &prefix, err);
    if (!rc)
        rc = sonde_json_string(o, "prepend_scheme", prefix ? "always" : "never", r->what, &scheme, err);
    if (!rc)
        rc = sonde_json_bool(o, "split", true, r->what, &split, err);
    if (rc)
        return rc;
    if (strcmp(scheme, "always") != 0 && strcmp(scheme, "first") != 0 && strcmp(scheme, "never") != 0)
        return json_refuse(r, "prepend_scheme", scheme, err);
    step->prefix_when = *scheme == 'a'   ? PRETOKEN_PREFIX_ALWAYS
                        : *scheme == 'f' ? PRETOKEN_PREFIX_FIRST
                                         : PRETOKEN_PREFIX_NEVER;
    step->space = step->pattern = step->prefix;
    step->n_pattern = n;
    step->kind = split ? PRETOKEN_STRING : PRETOKEN_WHOLE;
    step->behaviour = PRETOKEN_MERGED_WITH_NEXT;
    return SONDE_OK;
}

static enum sonde_code byte_level_step(struct json_reader *r, const json_t *o, struct pretoken_step *step,
                                       sonde_err *err)
{
    bool prefix, regex;
    enum sonde_code rc = sonde_json_bool(o, "add_prefix_space", true, r->what, &prefix, err);
    if (!rc)
        rc = sonde_json_bool(o, "use_regex", true, r->what, &regex, err);
    if (rc)
        return rc;
    r->byte_level = true;
    step->kind = regex ? PRETOKEN_GPT2 : PRETOKEN_WHOLE;
    if (prefix) {
        step->prefix = " ";
        step->prefix_when = PRETOKEN_PREFIX_ALWAYS;
    }
    return SONDE_OK;
}

static enum sonde_code pre_step(struct json_reader *r, const json_t *o, const char *type,
                                struct pretoken_step *step, sonde_err *err)
{
    enum sonde_code rc;
    if (r->byte_level)
        return sonde_fail(err, SONDE_E_INPUT, "%s: pre_tokenizer '%.60s' after ByteLevel is not implemented",
                          r->what, type);
    if (!strcmp(type, "ByteLevel"))
        return byte_level_step(r, o, step, err);
    if (!strcmp(type, "Split"))
        return split_step(r, o, step, err);
    if (!strcmp(type, "Metaspace"))
        return metaspace_step(r, o, step, err);
    if (!strcmp(type, "Digits")) {
        bool single;
        rc = sonde_json_bool(o, "individual_digits", false, r->what, &single, err);
        step->kind = PRETOKEN_DIGITS;
        step->behaviour = single ? PRETOKEN_ISOLATED : PRETOKEN_CONTIGUOUS;
        return rc;
    }
    if (!strcmp(type, "Punctuation")) {
        step->kind = PRETOKEN_PUNCTUATION;
        return behaviour(r, o, &step->behaviour, err);
    }
    if (!strcmp(type, "WhitespaceSplit") || !strcmp(type, "Whitespace")) {
        step->invert = strlen(type) == 10; /* of Whitespace the words are the matches */
        step->kind = step->invert ? PRETOKEN_WORDS : PRETOKEN_SPACES;
        step->behaviour = PRETOKEN_REMOVED;
        return SONDE_OK;
    }
    if (!strcmp(type, "CharDelimiterSplit")) {
        step->kind = PRETOKEN_STRING;
        step->behaviour = PRETOKEN_REMOVED;
        return json_text(r, o, "delimiter", &step->pattern, &step->n_pattern, err);
    }
    return json_refuse(r, "pre_tokenizer", type, err);
}

enum sonde_code json_pre_tokenizer(struct json_reader *r, const json_t *root, sonde_err *err)
{
    const json_t *o = json_object_get(root, "pre_tokenizer");
    struct json_parts parts;
    sonde_tokenizer *t = r->t;
    enum sonde_code rc =
        json_parts(r, json_is_null(o) ? NULL : o, "pre_tokenizer", "pretokenizers", &parts, err);
    if (rc || parts.n == 0)
        return rc;
    if (parts.n > PRETOKEN_MAX_STEPS)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %zu pre_tokenizers; at most %d", r->what, parts.n,
                          PRETOKEN_MAX_STEPS);
    t->n_pre = 0;
    for (size_t i = 0; i < parts.n && !rc; i++) {
        t->pre[i] = (struct pretoken_step){0};
        t->n_pre++;
        rc = pre_step(r, parts.part[i], parts.type[i], &t->pre[i], err);
    }
    if (rc || t->n_pre < 2)
        return rc;
    const struct pretoken_step *last = &t->pre[t->n_pre - 1];
    if (last->kind == PRETOKEN_WHOLE && !last->prefix)
        t->n_pre--; /* ByteLevel without its own pattern cuts nothing */
    return SONDE_OK;
}
