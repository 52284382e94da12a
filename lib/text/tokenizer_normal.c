/* SPDX-License-Identifier: MIT
 * Normalizers, with the origin of every byte. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "../base/size.h"
#include "tokenizer_impl.h"

void normal_room_free(struct normal_room *r)
{
    text_build_free(&r->build[0]);
    text_build_free(&r->build[1]);
    regex_match_free(r->match);
    free(r->subject);
    *r = (struct normal_room){0};
}

/* ---- normal forms ------------------------------------------------------------------------------ */

/* Bytes [at, return) need no work: every code point in them is stable. */
static size_t stable_end(const struct text_view *t, size_t at, enum sonde_normal_form form)
{
    size_t len;
    for (; at < t->n; at += len) {
        if (t->s[at] < 0x80) {
            len = 1;
            continue;
        }
        if (!sonde_unicode_stable(sonde_utf8_next(t->s, t->n, at, &len), form))
            break;
    }
    return at;
}

/* One span: a code point and the unstable ones after it. */
static enum sonde_code normal_span(struct text_build *b, const struct text_view *t, size_t begin, size_t end,
                                   enum sonde_normal_form form, sonde_err *err)
{
    static const struct {
        enum sonde_normal_form form;
        int options;
    } table[] = {{SONDE_NFC, UTF8PROC_COMPOSE},
                 {SONDE_NFD, UTF8PROC_DECOMPOSE},
                 {SONDE_NFKC, UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                 {SONDE_NFKD, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};
    int options = UTF8PROC_STABLE;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].form == form)
            options |= table[i].options;
    utf8proc_uint8_t *s = NULL;
    utf8proc_ssize_t n =
        utf8proc_map(t->s + begin, (utf8proc_ssize_t)(end - begin), &s, (utf8proc_option_t)options);
    if (n < 0) {
        free(s);
        return sonde_fail(err, SONDE_E_MEMORY, "cannot normalise %zu bytes of text: %s", end - begin,
                          utf8proc_errmsg(n));
    }
    enum sonde_code rc;
    if ((size_t)n == end - begin && !memcmp(s, t->s + begin, (size_t)n))
        rc = text_build_copy(b, t, begin, end, err);
    else
        rc = text_build_put(b, s, (size_t)n, text_begin(t, begin), text_end(t, end), err);
    free(s);
    return rc;
}

static enum sonde_code normal_form(struct text_build *b, const struct text_view *t,
                                   enum sonde_normal_form form, sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    size_t done = 0, len;
    while (done < t->n && !rc) {
        size_t end = stable_end(t, done, form), begin = end;
        if (end == t->n)
            return text_build_copy(b, t, done, end, err);
        if (end > done && sonde_utf8_last(t->s, end, &len) != SONDE_INVALID)
            begin -= len; /* what follows may join the stable one before it */
        while (end < t->n && !sonde_unicode_stable(sonde_utf8_next(t->s, t->n, end, &len), form))
            end += len;
        rc = text_build_copy(b, t, done, begin, err);
        if (!rc)
            rc = normal_span(b, t, begin, end, form, err);
        done = end;
    }
    return rc;
}

/* ---- the others -------------------------------------------------------------------------------- */

static enum sonde_code lower(struct text_build *b, const struct text_view *t, sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    size_t len;
    for (size_t at = 0; at < t->n && !rc; at += len) {
        uint32_t cp = sonde_utf8_next(t->s, t->n, at, &len);
        uint32_t low = cp == SONDE_INVALID ? cp : (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
        unsigned char s[8];
        size_t n = 0;
        if (cp == 0x130) /* the one code point whose lower case is two: i and a dot above */
            n = (memcpy(s, "i\xcc\x87", 3), 3);
        else if (low != cp)
            n = sonde_utf8_put(low, s);
        if (n)
            rc = text_build_put(b, s, n, text_begin(t, at), text_end(t, at + len), err);
        else
            rc = text_build_copy(b, t, at, at + len, err);
    }
    return rc;
}

static enum sonde_code replace(struct text_build *b, const struct text_view *t,
                               const struct normal_step *step, sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    for (size_t at = 0; at < t->n && !rc;) {
        const unsigned char *hit =
            step->n_pattern ? memmem(t->s + at, t->n - at, step->pattern, step->n_pattern) : NULL;
        if (!hit)
            return text_build_copy(b, t, at, t->n, err);
        size_t begin = (size_t)(hit - t->s), end = begin + step->n_pattern;
        rc = text_build_copy(b, t, at, begin, err);
        if (!rc)
            rc = text_build_put(b, step->content, step->n_content, text_begin(t, begin), text_end(t, end),
                                err);
        at = end;
    }
    return rc;
}

static enum sonde_code replace_regex(struct text_build *b, const struct text_view *t,
                                     const struct normal_step *step, struct normal_room *r, sonde_err *err)
{
    const unsigned char *s;
    enum sonde_code rc = regex_subject(t->s, t->n, &r->subject, &r->cap_subject, &s, err);
    size_t done = 0, at = 0, begin, end, len;
    while (!rc && at <= t->n) {
        rc = regex_find(step->regex, &r->match, s, t->n, at, &begin, &end, err);
        if (rc || begin > t->n)
            break;
        if (begin == end) { /* nothing is replaced by an empty match */
            len = 1;
            if (end < t->n)
                sonde_utf8_next(s, t->n, end, &len);
            at = end + len;
            continue;
        }
        rc = text_build_copy(b, t, done, begin, err);
        if (!rc)
            rc = text_build_put(b, step->content, step->n_content, text_begin(t, begin), text_end(t, end),
                                err);
        done = at = end;
    }
    return rc ? rc : text_build_copy(b, t, done, t->n, err);
}

static struct text_view strip(const struct text_view *t, bool left, bool right)
{
    size_t begin = 0, end = t->n, len;
    while (left && begin < end &&
           sonde_unicode_class(sonde_utf8_next(t->s, end, begin, &len)) & SONDE_U_SPACE)
        begin += len;
    while (right && end > begin && sonde_unicode_class(sonde_utf8_last(t->s, end, &len)) & SONDE_U_SPACE)
        end -= len;
    return text_cut(t, begin, end);
}

static struct text_view trim_end(const struct text_view *t, const struct normal_step *step)
{
    size_t end = t->n, k = step->n_pattern;
    while (end >= k && !memcmp(t->s + end - k, step->pattern, k))
        end -= k;
    return text_cut(t, 0, end);
}

static enum sonde_code join_spaces(struct text_build *b, const struct text_view *t, sonde_err *err)
{
    size_t begin = 0, end = t->n;
    while (begin < end && t->s[begin] == ' ')
        begin++;
    while (end > begin && t->s[end - 1] == ' ')
        end--;
    enum sonde_code rc = SONDE_OK;
    for (size_t at = begin; at < end && !rc;) {
        const unsigned char *hit = memchr(t->s + at, ' ', end - at);
        size_t space = hit ? (size_t)(hit - t->s) : end, next = space;
        rc = text_build_copy(b, t, at, space, err);
        while (next < end && t->s[next] == ' ')
            next++;
        if (!rc && next > space)
            rc = text_build_put(b, " ", 1, text_begin(t, space), text_end(t, next), err);
        at = next;
    }
    return rc;
}

static enum sonde_code apply(const struct normal_step *step, struct normal_room *r, struct text_build *b,
                             struct text_view *t, bool *changed, sonde_err *err)
{
    enum sonde_code rc;
    *changed = true;
    switch (step->kind) {
    case NORMAL_FORM:
        *changed = stable_end(t, 0, step->form) < t->n;
        return *changed ? normal_form(b, t, step->form, err) : SONDE_OK;
    case NORMAL_LOWER:
        return lower(b, t, err);
    case NORMAL_PREPEND:
        rc = text_build_put(b, step->content, step->n_content, text_begin(t, 0), text_begin(t, 0), err);
        return rc ? rc : text_build_copy(b, t, 0, t->n, err);
    case NORMAL_REPLACE:
        return replace(b, t, step, err);
    case NORMAL_REPLACE_REGEX:
        return replace_regex(b, t, step, r, err);
    case NORMAL_SPACES:
        return join_spaces(b, t, err);
    case NORMAL_STRIP:
    case NORMAL_TRIM_END:
        break;
    }
    *changed = false;
    *t = step->kind == NORMAL_STRIP ? strip(t, step->left, step->right) : trim_end(t, step);
    return SONDE_OK;
}

enum sonde_code normalize(const struct normal_step *step, int n_steps, struct normal_room *r,
                          struct text_view *t, sonde_err *err)
{
    int use = 0;
    for (int i = 0; i < n_steps && t->n; i++) {
        struct text_build *b = &r->build[use];
        bool changed;
        b->n = 0;
        enum sonde_code rc = apply(&step[i], r, b, t, &changed, err);
        if (rc)
            return rc;
        if (changed) {
            *t = text_build_view(b);
            use ^= 1;
        }
    }
    return SONDE_OK;
}
