/* SPDX-License-Identifier: MIT
 * Patterns found in files, matched by PCRE2 under limits.
 *
 * They are written for Oniguruma (Ruby syntax, Unicode). What means something else in PCRE2 is rewritten: \s,
 * \S, \w, \W, \b, \B, \h, \H (hexadecimal digits); ^ and $ match at lines in both. What cannot be rewritten
 * (&& and nested sets in brackets) is refused. PCRE2 10.42 knows the letters of Unicode 14. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pretoken_impl.h"
#include "unicode.h"

#define MAX_PATTERN ((size_t)1 << 16)
#define WINDOW      32u /* starting places tried in one call, so that the clock is looked at in between */
#define STEPS       1000000u /* of backtracking from one starting place, plus 8 for each byte of text */
#define HEAP_KIB    65536u
#define SECONDS     2.0 /* of CPU time for one text, plus 2 microseconds per byte */

struct regex {
    pcre2_code *code;
    bool jit;
};

struct regex_match {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    double began_wall, began_cpu;
    size_t n_bytes, n_calls;
};

#define SPACES                                                                                               \
    "\\t-\\r\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACES                                                                                           \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{"  \
    "202a}-\\x{202e}"                                                                                        \
    "\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define WORD "\\p{L}\\p{M}\\p{N}\\p{Pc}"
#define HEX  "0-9a-fA-F"

struct pattern {
    char *s;
    size_t n, cap;
};

static enum sonde_code put(struct pattern *p, const char *s, size_t n, sonde_err *err)
{
    if (n > p->cap - p->n) {
        size_t cap = (p->cap + n) * 2 + 64; /* both bounded by MAX_PATTERN times the longest class */
        char *t = realloc(p->s, cap);
        if (!t)
            return sonde_fail(err, SONDE_E_MEMORY, "no memory for a pattern of %zu bytes", cap);
        p->s = t;
        p->cap = cap;
    }
    memcpy(p->s + p->n, s, n);
    p->n += n;
    return SONDE_OK;
}

static enum sonde_code puts_to(struct pattern *p, const char *s, sonde_err *err)
{
    return put(p, s, strlen(s), err);
}

/* What stands for \c outside and inside brackets; NULL: as it is. */
static const char *rewritten(char c, bool in_set)
{
    switch (c) {
    case 's':
        return in_set ? SPACES : "[" SPACES "]";
    case 'S':
        return in_set ? NOT_SPACES : "[^" SPACES "]";
    case 'w':
        return in_set ? WORD : "[" WORD "]";
    case 'W':
        return in_set ? NULL : "[^" WORD "]";
    case 'h':
        return in_set ? HEX : "[" HEX "]";
    case 'H':
        return in_set ? NULL : "[^" HEX "]";
    case 'b':
        return in_set ? NULL : "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))";
    case 'B':
        return in_set ? NULL : "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))";
    default:
        return NULL;
    }
}

static enum sonde_code rewrite(const char *s, size_t n, struct pattern *out, sonde_err *err)
{
    bool in_set = false;
    enum sonde_code rc = SONDE_OK;
    for (size_t i = 0; i < n && !rc; i++) {
        if (s[i] == '\\' && i + 1 < n) {
            char c = s[++i];
            const char *r = rewritten(c, in_set);
            if (in_set && strchr("WHRX", c))
                return sonde_fail(err, SONDE_E_INPUT,
                                  "pattern has \\%c in brackets, which is not implemented", c);
            if (!r && strchr("CGKgkyY", c))
                return sonde_fail(err, SONDE_E_INPUT, "pattern has \\%c, which is not implemented", c);
            rc = r ? puts_to(out, r, err) : put(out, s + i - 1, 2, err);
            continue;
        }
        if (in_set && (s[i] == '[' || (s[i] == '&' && i + 1 < n && s[i + 1] == '&')))
            return sonde_fail(err, SONDE_E_INPUT,
                              "pattern has a set inside brackets, which is not implemented");
        if (!in_set && s[i] == '[') {
            in_set = true;
            size_t k = i + 1 < n && s[i + 1] == '^' ? 2 : 1;
            k += i + k < n && s[i + k] == ']'; /* a ] in first place is itself */
            rc = put(out, s + i, k, err);
            i += k - 1;
            continue;
        }
        if (in_set && s[i] == ']')
            in_set = false;
        if (!in_set && s[i] == '(' && i + 2 < n && s[i + 1] == '?' && strchr("mxR&P0123456789+C(", s[i + 2]))
            return sonde_fail(err, SONDE_E_INPUT, "pattern has (?%c, which is not implemented", s[i + 2]);
        if (!in_set && s[i] == '(' && i + 1 < n && s[i + 1] == '*')
            return sonde_fail(err, SONDE_E_INPUT, "pattern has (*, which is not implemented");
        rc = put(out, s + i, 1, err);
    }
    return rc;
}

enum sonde_code regex_new(const char *pattern, size_t n, struct regex **out, sonde_err *err)
{
    struct pattern p = {0};
    struct regex *r = NULL;
    pcre2_compile_context *context = NULL;
    if (n > MAX_PATTERN)
        return sonde_fail(err, SONDE_E_INPUT, "pattern of %zu bytes; at most %zu", n, MAX_PATTERN);
    enum sonde_code rc = rewrite(pattern, n, &p, err);
    if (rc)
        goto out;
    r = calloc(1, sizeof *r);
    context = pcre2_compile_context_create(NULL);
    if (!r || !context) {
        rc = sonde_fail(err, SONDE_E_MEMORY, "no memory for a pattern");
        goto out;
    }
    pcre2_set_parens_nest_limit(context, 50);
    pcre2_set_compile_extra_options(context, 0);
    int code;
    PCRE2_SIZE at;
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C |
                       PCRE2_USE_OFFSET_LIMIT | PCRE2_DOLLAR_ENDONLY;
    r->code = pcre2_compile((PCRE2_SPTR)(p.s ? p.s : ""), p.n, options, &code, &at, context);
    if (!r->code) {
        char why[120];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        rc = sonde_fail(err, SONDE_E_INPUT, "pattern '%.*s' is not understood: %s", n > 120 ? 120 : (int)n,
                        pattern, why);
        goto out;
    }
    r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0;
    *out = r;
    r = NULL;
out:
    regex_free(r);
    pcre2_compile_context_free(context);
    free(p.s);
    return rc;
}

void regex_free(struct regex *r)
{
    if (!r)
        return;
    pcre2_code_free(r->code);
    free(r);
}

void regex_match_free(struct regex_match *m)
{
    if (!m)
        return;
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    free(m);
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static enum sonde_code match_new(struct regex_match **out, sonde_err *err)
{
    struct regex_match *m = calloc(1, sizeof *m);
    if (m) {
        m->data = pcre2_match_data_create(1, NULL);
        m->context = pcre2_match_context_create(NULL);
        m->stack = pcre2_jit_stack_create(32768, (size_t)1 << 20, NULL);
    }
    if (!m || !m->data || !m->context || !m->stack) {
        regex_match_free(m);
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for matching a pattern");
    }
    pcre2_jit_stack_assign(m->context, NULL, m->stack);
    pcre2_set_heap_limit(m->context, HEAP_KIB);
    m->began_wall = seconds(CLOCK_MONOTONIC);
    m->began_cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
    *out = m;
    return SONDE_OK;
}

/* Each match has its own limit; this one is for patterns that stay just below it everywhere. CPU time is
 * asked for only when the wall clock says so. */
static bool too_slow(const struct regex_match *m)
{
    double most = SECONDS + 2e-6 * (double)m->n_bytes;
    return seconds(CLOCK_MONOTONIC) - m->began_wall > most &&
           seconds(CLOCK_THREAD_CPUTIME_ID) - m->began_cpu > most;
}

enum sonde_code regex_find(const struct regex *r, struct regex_match **state, const unsigned char *s,
                           size_t n, size_t at, size_t *begin, size_t *end, sonde_err *err)
{
    if (!*state) {
        enum sonde_code rc = match_new(state, err);
        if (rc)
            return rc;
    }
    struct regex_match *m = *state;
    if (at == 0)
        m->n_bytes += n;
    pcre2_set_match_limit(m->context, n < UINT32_MAX / 16 ? STEPS + 8 * (uint32_t)n : UINT32_MAX);
    for (; at <= n; at = at + WINDOW + 1) {
        while (at < n && (s[at] & 0xc0) == 0x80)
            at++;
        pcre2_set_offset_limit(m->context, at + WINDOW);
        int k = PCRE2_ERROR_JIT_STACKLIMIT;
        if (r->jit)
            k = pcre2_match(r->code, s, n, at, PCRE2_NO_UTF_CHECK, m->data, m->context);
        if (k == PCRE2_ERROR_JIT_STACKLIMIT)
            k = pcre2_match(r->code, s, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data, m->context);
        bool late = (++m->n_calls & 63) == 0 && too_slow(m);
        if (k >= 0 && !late) {
            *begin = pcre2_get_ovector_pointer(m->data)[0];
            *end = pcre2_get_ovector_pointer(m->data)[1];
            if (*begin < at || *end < *begin || *end > n) /* \K is refused, so this does not happen */
                return sonde_fail(err, SONDE_E_INPUT, "pattern matches outside its text");
            return SONDE_OK;
        }
        if (k == PCRE2_ERROR_NOMEMORY)
            return sonde_fail(err, SONDE_E_MEMORY, "no memory for matching a pattern");
        if (k != PCRE2_ERROR_NOMATCH || late || too_slow(m))
            return sonde_fail(
                err, SONDE_E_INPUT,
                "the pre-tokenizer's pattern takes too many steps on this text (near byte %zu of %zu)", at,
                n);
    }
    *begin = n + 1;
    return SONDE_OK;
}

enum sonde_code regex_subject(const unsigned char *s, size_t n, unsigned char **buf, size_t *cap,
                              const unsigned char **out, sonde_err *err)
{
    *out = s;
    if (sonde_utf8_invalid(s, n) == 0)
        return SONDE_OK;
    if (n > *cap) {
        unsigned char *t = realloc(*buf, n);
        if (!t)
            return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu bytes of text", n);
        *buf = t;
        *cap = n;
    }
    memcpy(*buf, s, n);
    size_t len;
    for (size_t at = 0; at < n; at += len)
        if (sonde_utf8_next(s, n, at, &len) == SONDE_INVALID)
            (*buf)[at] = 1;
    *out = *buf;
    return SONDE_OK;
}
