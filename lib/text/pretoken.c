/* SPDX-License-Identifier: MIT */
#include "pretoken_impl.h"

#include <stdlib.h>
#include <string.h>

#include "unicode.h"

/* What the known patterns distinguish. */
enum { L = 1, D = 2, S = 4, O = 8 };

/* clang-format off */
static const unsigned char ascii[128] = {
    O,O,O,O,O,O,O,O, O,S,S,S,S,S,O,O, O,O,O,O,O,O,O,O, O,O,O,O,O,O,O,O,
    S,O,O,O,O,O,O,O, O,O,O,O,O,O,O,O, D,D,D,D,D,D,D,D, D,D,O,O,O,O,O,O,
    O,L,L,L,L,L,L,L, L,L,L,L,L,L,L,L, L,L,L,L,L,L,L,L, L,L,L,O,O,O,O,O,
    O,L,L,L,L,L,L,L, L,L,L,L,L,L,L,L, L,L,L,L,L,L,L,L, L,L,L,O,O,O,O,O,
};
/* clang-format on */

static unsigned kind_at(const unsigned char *s, size_t n, size_t at, size_t *len)
{
    if (s[at] < 0x80) {
        *len = 1;
        return ascii[s[at]];
    }
    unsigned c = sonde_unicode_class(sonde_utf8_next(s, n, at, len));
    return c & SONDE_U_LETTER ? L : c & SONDE_U_NUMBER ? D : c & SONDE_U_SPACE ? S : O;
}

/* End of the run of code points of one kind that begins at `at` (perhaps empty). */
static size_t run_end(const unsigned char *s, size_t n, size_t at, unsigned kind)
{
    size_t len;
    for (; at < n; at += len) {
        if (s[at] < 0x80) {
            len = 1;
            if (ascii[s[at]] != kind)
                break;
        } else if (kind_at(s, n, at, &len) != kind) {
            break;
        }
    }
    return at;
}

/* \s+(?!\S)|\s+ at a space: the run, less its last code point if a word follows and there is more than one.
 */
static size_t spaces_end(const unsigned char *s, size_t n, size_t at)
{
    size_t end = run_end(s, n, at, S), len;
    if (end == n)
        return end;
    sonde_utf8_last(s, end, &len);
    return end - len > at ? end - len : end;
}

/* '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t gpt2_end(const unsigned char *s, size_t n, size_t at)
{
    if (s[at] == '\'' && n - at >= 2) {
        unsigned a = s[at + 1], b = n - at >= 3 ? s[at + 2] : 0;
        if (a == 's' || a == 't' || a == 'm' || a == 'd')
            return at + 2;
        if ((a == 'l' && b == 'l') || ((a == 'v' || a == 'r') && b == 'e'))
            return at + 3;
    }
    size_t word = at + (s[at] == ' '), len;
    if (word == n)
        return n;
    unsigned k = kind_at(s, n, word, &len);
    if (k != S)
        return run_end(s, n, word + len, k);
    return spaces_end(s, n, at);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d) at an apostrophe: its bytes, 0 if there is none. U+017F folds to s. */
static size_t contraction(const unsigned char *s, size_t n)
{
    if (n < 2)
        return 0;
    unsigned a = s[1] | 32u, b = n >= 3 ? s[2] | 32u : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if ((a == 'l' && b == 'l') || ((a == 'v' || a == 'r') && b == 'e'))
        return 3;
    return n >= 3 && s[1] == 0xc5 && s[2] == 0xbf ? 3 : 0;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ at a space: up to the run's last line end if it has one. */
static size_t lines_end(const unsigned char *s, size_t n, size_t at)
{
    size_t end = run_end(s, n, at, S);
    for (size_t i = end; i > at; i--)
        if (s[i - 1] == '\n' || s[i - 1] == '\r')
            return i;
    return spaces_end(s, n, at);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
 * ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t cl100k_end(const unsigned char *s, size_t n, size_t at, unsigned max_digits)
{
    if (s[at] == '\'') {
        size_t k = contraction(s + at, n - at);
        if (k)
            return at + k;
    }
    size_t len, len2;
    unsigned k = kind_at(s, n, at, &len);
    if (k == L)
        return run_end(s, n, at + len, L);
    if (k == D) {
        size_t end = at + len;
        for (unsigned i = 1; i < max_digits && end < n && kind_at(s, n, end, &len2) == D; i++)
            end += len2;
        return end;
    }
    unsigned k2 = at + len < n ? kind_at(s, n, at + len, &len2) : 0;
    if (k2 == L && s[at] != '\n' && s[at] != '\r')
        return run_end(s, n, at + len + len2, L);
    if (k == O || (s[at] == ' ' && k2 == O)) {
        size_t end = run_end(s, n, at + len, O);
        while (end < n && (s[end] == '\n' || s[end] == '\r'))
            end++;
        return end;
    }
    return lines_end(s, n, at);
}

bool pretoken_known_pattern(const char *pattern, size_t n, struct pretoken_step *step)
{
#define CL100K_HEAD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define CL100K_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    static const struct {
        const char *pattern;
        enum pretoken_kind kind;
        unsigned max_digits;
    } known[] = {
        {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", PRETOKEN_GPT2,
         0},
        {"'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", PRETOKEN_GPT2, 0},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|" CL100K_HEAD "\\p{N}{1,3}" CL100K_TAIL, PRETOKEN_CL100K, 3},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|" CL100K_HEAD "\\p{N}" CL100K_TAIL, PRETOKEN_CL100K, 1},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (n == strlen(known[i].pattern) && !memcmp(pattern, known[i].pattern, n)) {
            step->kind = known[i].kind;
            step->max_digits = known[i].max_digits;
            return true;
        }
    }
    return false;
}

/* ---- items: what a step matches and what lies between ------------------------------------------ */

static unsigned class_at(const struct text_view *t, size_t at, size_t *len)
{
    return sonde_unicode_class(sonde_utf8_next(t->s, t->n, at, len));
}

/* One matching code point, or the run of those that do not match. */
static size_t class_item(const struct text_view *t, size_t at, unsigned mask, bool *match)
{
    size_t len;
    *match = class_at(t, at, &len) & mask;
    size_t end = at + len;
    while (!*match && end < t->n && !(class_at(t, end, &len) & mask))
        end += len;
    return end;
}

static unsigned word_kind(unsigned class)
{
    return class & SONDE_U_WORD ? 1 : class & SONDE_U_SPACE ? 2 : 3;
}

static size_t word_item(const struct text_view *t, size_t at, bool *match)
{
    size_t len;
    unsigned kind = word_kind(class_at(t, at, &len));
    size_t end = at + len;
    while (end < t->n && word_kind(class_at(t, end, &len)) == kind)
        end += len;
    *match = kind != 2;
    return end;
}

/* The next place at or after at + 1 where `pattern` begins and the byte before cannot be joined to it. */
static size_t safe_end(const struct pretoken_step *step, const struct text_view *t, size_t at)
{
    const unsigned char *s = t->s;
    const char *p = step->pattern;
    for (size_t i = at + 1; i + step->n_pattern <= t->n; i++) {
        const unsigned char *hit = memchr(s + i, p[0], t->n - i);
        if (!hit)
            break;
        i = (size_t)(hit - s);
        if (!step->unsafe[s[i - 1]] && i + step->n_pattern <= t->n && !memcmp(hit, p, step->n_pattern))
            return i;
    }
    return t->n;
}

static enum sonde_code search_regex(struct pretokens *p, struct pretoken_level *l, const struct regex *regex,
                                    sonde_err *err)
{
    size_t n = l->t.n;
    for (;;) {
        if (l->from > n) {
            l->found = n + 1;
            return SONDE_OK;
        }
        enum sonde_code rc =
            regex_find(regex, &p->regex, l->clean, n, l->from, &l->found, &l->found_end, err);
        if (rc || l->found > n)
            return rc;
        bool empty = l->found_end == l->found, touching = l->found == l->last_end;
        l->from = l->found_end;
        if (empty) {
            size_t len = 1;
            if (l->from < n)
                sonde_utf8_next(l->clean, n, l->from, &len);
            l->from += len;
        }
        if (!empty || !touching) { /* an empty match that touches the one before it does not count */
            l->last_end = l->found_end;
            return SONDE_OK;
        }
    }
}

static void search_string(struct pretoken_level *l, const struct pretoken_step *step)
{
    const unsigned char *hit = NULL;
    if (step->n_pattern)
        hit = memmem(l->t.s + l->at, l->t.n - l->at, step->pattern, step->n_pattern);
    l->found = hit ? (size_t)(hit - l->t.s) : l->t.n + 1;
    l->found_end = l->found + step->n_pattern;
}

/* Make the next item of level d known; *have is false at the end of its piece. */
static enum sonde_code peek(struct pretokens *p, int d, bool *have, sonde_err *err)
{
    struct pretoken_level *l = &p->level[d];
    const struct pretoken_step *step = &p->step[d];
    bool search = step->kind == PRETOKEN_REGEX || step->kind == PRETOKEN_STRING;
    *have = true;
    if (l->peeked)
        return SONDE_OK;
    if (search && !l->searched) {
        if (step->kind == PRETOKEN_STRING) {
            search_string(l, step);
        } else {
            enum sonde_code rc = search_regex(p, l, step->regex, err);
            if (rc)
                return rc;
        }
        l->searched = true;
    }
    bool empty_at_end = search && l->found == l->at;
    if (l->at >= l->t.n && !empty_at_end) {
        *have = false;
        return SONDE_OK;
    }
    l->item = l->at;
    l->match = true;
    switch (step->kind) {
    case PRETOKEN_DIGITS:
        l->at = class_item(&l->t, l->at, SONDE_U_NUMBER, &l->match);
        break;
    case PRETOKEN_PUNCTUATION:
        l->at = class_item(&l->t, l->at, SONDE_U_PUNCT, &l->match);
        break;
    case PRETOKEN_SPACES:
        l->at = class_item(&l->t, l->at, SONDE_U_SPACE, &l->match);
        break;
    case PRETOKEN_WORDS:
        l->at = word_item(&l->t, l->at, &l->match);
        break;
    default:
        l->match = l->found == l->at;
        if (l->match) {
            l->at = l->found_end;
            l->searched = false;
        } else {
            l->at = l->found > l->t.n ? l->t.n : l->found;
        }
    }
    l->item_end = l->at;
    l->match ^= step->invert;
    l->peeked = true;
    return SONDE_OK;
}

/* The next piece of level d by its step's behaviour, perhaps empty. */
static enum sonde_code join_items(struct pretokens *p, int d, size_t *begin, size_t *end, bool *have,
                                  sonde_err *err)
{
    struct pretoken_level *l = &p->level[d];
    enum pretoken_behaviour how = p->step[d].behaviour;
    enum sonde_code rc;
    do {
        rc = peek(p, d, have, err);
        if (rc || !*have)
            return rc;
        l->peeked = false;
    } while (how == PRETOKEN_REMOVED && l->match);
    *begin = l->item;
    *end = l->item_end;
    bool match = l->match, more = how != PRETOKEN_ISOLATED && how != PRETOKEN_REMOVED;
    while (more) {
        rc = peek(p, d, &more, err);
        if (rc)
            return rc;
        bool joins = how == PRETOKEN_CONTIGUOUS             ? l->match == match
                     : how == PRETOKEN_MERGED_WITH_PREVIOUS ? !match && l->match
                                                            : match && !l->match;
        if (!more || !joins)
            break;
        *end = l->item_end;
        l->peeked = false;
        more = how == PRETOKEN_CONTIGUOUS;
    }
    return SONDE_OK;
}

static enum sonde_code cut(struct pretokens *p, int d, size_t *begin, size_t *end, bool *have, sonde_err *err)
{
    struct pretoken_level *l = &p->level[d];
    const struct pretoken_step *step = &p->step[d];
    const struct text_view *t = &l->t;
    *begin = l->at;
    *have = l->at < t->n;
    switch (step->kind) {
    case PRETOKEN_GPT2:
        *end = l->at = *have ? gpt2_end(t->s, t->n, l->at) : l->at;
        return SONDE_OK;
    case PRETOKEN_CL100K:
        *end = l->at = *have ? cl100k_end(t->s, t->n, l->at, step->max_digits) : l->at;
        return SONDE_OK;
    case PRETOKEN_SAFE:
        *end = l->at = *have ? safe_end(step, t, l->at) : l->at;
        return SONDE_OK;
    case PRETOKEN_WHOLE:
        *end = l->at = t->n;
        return SONDE_OK;
    default:
        do {
            enum sonde_code rc = join_items(p, d, begin, end, have, err);
            if (rc)
                return rc;
        } while (*have && *begin == *end);
        return SONDE_OK;
    }
}

static bool begins_with(const struct text_view *t, const char *s)
{
    size_t n = strlen(s);
    return t->n >= n && !memcmp(t->s, s, n);
}

static enum sonde_code rewrite(struct pretoken_level *l, const struct pretoken_step *step, sonde_err *err)
{
    struct text_build *b = &l->own;
    const struct text_view *t = &l->t;
    b->n = 0;
    enum sonde_code rc = SONDE_OK;
    bool have =
        begins_with(t, step->prefix) || (step->space && t->s[0] == ' ' && !strcmp(step->prefix, step->space));
    bool wanted = step->prefix_when == PRETOKEN_PREFIX_ALWAYS ||
                  (step->prefix_when == PRETOKEN_PREFIX_FIRST && text_begin(t, 0) == 0);
    if (wanted && !have)
        rc = text_build_put(b, step->prefix, strlen(step->prefix), text_begin(t, 0), text_begin(t, 0), err);
    else if (!step->space)
        return SONDE_OK;
    for (size_t i = 0; !rc && i < t->n;) {
        const unsigned char *hit = step->space ? memchr(t->s + i, ' ', t->n - i) : NULL;
        size_t end = hit ? (size_t)(hit - t->s) : t->n;
        rc = text_build_copy(b, t, i, end, err);
        if (!rc && hit)
            rc = text_build_put(b, step->space, strlen(step->space), text_begin(t, end), text_end(t, end + 1),
                                err);
        i = end + (hit != NULL);
    }
    if (!rc)
        l->t = text_build_view(b);
    return rc;
}

static enum sonde_code enter(struct pretokens *p, int d, const struct text_view *t, sonde_err *err)
{
    struct pretoken_level *l = &p->level[d];
    const struct pretoken_step *step = &p->step[d];
    enum sonde_code rc = SONDE_OK;
    l->t = *t;
    l->at = 0;
    l->peeked = l->searched = false;
    l->from = 0;
    l->last_end = SIZE_MAX;
    p->depth = d;
    if (t->n && step->prefix)
        rc = rewrite(l, step, err);
    if (!rc && step->kind == PRETOKEN_REGEX)
        rc = regex_subject(l->t.s, l->t.n, &l->subject, &l->cap_subject, &l->clean, err);
    return rc;
}

enum sonde_code pretokens_begin(struct pretokens *p, const struct pretoken_step *step, int n_steps,
                                const struct text_view *t, sonde_err *err)
{
    p->step = step;
    p->n_steps = n_steps;
    return enter(p, 0, t, err);
}

enum sonde_code pretokens_next(struct pretokens *p, struct text_view *piece, bool *more, sonde_err *err)
{
    for (;;) {
        size_t begin, end;
        int d = p->depth;
        enum sonde_code rc = cut(p, d, &begin, &end, more, err);
        if (rc)
            return rc;
        if (!*more) {
            if (d == 0)
                return SONDE_OK;
            p->depth--;
            continue;
        }
        *piece = text_cut(&p->level[d].t, begin, end);
        if (d + 1 == p->n_steps)
            return SONDE_OK;
        struct text_view t = *piece;
        rc = enter(p, d + 1, &t, err);
        if (rc)
            return rc;
    }
}

void pretokens_free(struct pretokens *p)
{
    for (int i = 0; i < PRETOKEN_MAX_STEPS; i++) {
        text_build_free(&p->level[i].own);
        free(p->level[i].subject);
    }
    regex_match_free(p->regex);
}
