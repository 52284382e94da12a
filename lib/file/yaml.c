/* SPDX-License-Identifier: MIT */
#include "yaml.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "map.h"
#include "name_impl.h"

struct line {
    const char *p, *end; /* without the indentation and blanks at the end */
    size_t indent, number;
};

struct reader {
    const char *p, *end, *what;
    size_t number;
    sonde_err *err;
};

static enum sonde_code wrong(const struct reader *r, const char *what)
{
    return sonde_fail(r->err, SONDE_E_INPUT, "%s: line %zu: %s", r->what, r->number, what);
}

static enum sonde_code no_memory(const struct reader *r)
{
    return sonde_fail(r->err, SONDE_E_MEMORY, "%s: no memory to read it", r->what);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\r';
}

/* The next line that has something on it; false at the end. */
static bool next_line(struct reader *r, struct line *l)
{
    while (r->p < r->end) {
        const char *nl = memchr(r->p, '\n', (size_t)(r->end - r->p));
        *l = (struct line){r->p, nl ? nl : r->end, 0, ++r->number};
        r->p = nl ? nl + 1 : r->end;
        while (l->p < l->end && *l->p == ' ') {
            l->p++;
            l->indent++;
        }
        while (l->end > l->p && is_space(l->end[-1]))
            l->end--;
        if (l->p < l->end && *l->p != '#')
            return true;
    }
    return false;
}

/* Give a line back. */
static void unread(struct reader *r, const struct line *l)
{
    r->p = l->p - l->indent;
    r->number = l->number - 1;
}

static bool is_word(const char *p, const char *end, const char *word)
{
    return (size_t)(end - p) == strlen(word) && memcmp(p, word, strlen(word)) == 0;
}

/* A number in decimal, or NULL. */
static json_t *number(const char *p, const char *end)
{
    char digits[40], *last;
    size_t n = (size_t)(end - p);
    if (n == 0 || n >= sizeof digits || !memchr("+-.0123456789", *p, 13))
        return NULL;
    memcpy(digits, p, n);
    digits[n] = '\0';
    if (strspn(digits, "+-.0123456789eE") < n)
        return NULL;
    if (!strpbrk(digits, "0123456789"))
        return NULL;
    errno = 0;
    if (!strpbrk(digits, ".eE")) {
        long long i = strtoll(digits, &last, 10);
        return *last == '\0' && errno == 0 ? json_integer(i) : NULL;
    }
    double f = strtod(digits, &last);
    return *last == '\0' && isfinite(f) ? json_real(f) : NULL;
}

static json_t *plain(const char *p, const char *end)
{
    json_t *x = number(p, end);
    if (x)
        return x;
    if (is_word(p, end, "true") || is_word(p, end, "True"))
        return json_true();
    if (is_word(p, end, "false") || is_word(p, end, "False"))
        return json_false();
    if (p == end || is_word(p, end, "null") || is_word(p, end, "~"))
        return json_null();
    return json_stringn(p, (size_t)(end - p));
}

/* 'it''s' or "a \"b\"" from *p on; *p moves behind the quote. */
static enum sonde_code quoted(struct reader *r, const char **p, const char *end, json_t **out)
{
    char quote = *(*p)++, *buf = malloc((size_t)(end - *p) + 1);
    size_t n = 0;
    bool closed = false;
    if (!buf)
        return no_memory(r);
    while (*p < end && !closed) {
        char c = *(*p)++;
        bool doubled = quote == '\'' && c == quote && *p < end && **p == quote;
        if (c == quote && !doubled) {
            closed = true;
        } else if (quote == '"' && c == '\\' && *p < end && strchr("\"\\/nt", **p)) {
            c = *(*p)++;
            buf[n++] = (char)(c == 'n' ? '\n' : c == 't' ? '\t' : c);
        } else if (quote == '"' && c == '\\') {
            break;
        } else {
            *p += doubled;
            buf[n++] = c;
        }
    }
    *out = closed ? json_stringn(buf, n) : NULL;
    free(buf);
    if (!closed)
        return wrong(r, "a quoted string has no end in its line, or an escape that is not read");
    return *out ? SONDE_OK : no_memory(r);
}

static const char *skip(const char *p, const char *end)
{
    while (p < end && *p == ' ')
        p++;
    return p;
}

/* The end of a plain scalar: a comment, or one of the characters in stop. */
static const char *plain_end(const char *p, const char *end, const char *stop)
{
    const char *q = p;
    while (q < end && !strchr(stop, *q) && !(*q == '#' && (q == p || q[-1] == ' ')))
        q++;
    while (q > p && q[-1] == ' ')
        q--;
    return q;
}

/* One scalar; *p moves behind it. */
static enum sonde_code scalar(struct reader *r, const char **p, const char *end, const char *stop,
                              json_t **out)
{
    if (*p < end && (**p == '\'' || **p == '"'))
        return quoted(r, p, end, out);
    if (*p < end && strchr("&*!%@`|>{}", **p))
        return wrong(r, "anchors, tags and blocks are not read here");
    const char *last = plain_end(*p, end, stop);
    *out = plain(*p, last);
    *p = last;
    return *out ? SONDE_OK : no_memory(r);
}

static enum sonde_code behind(struct reader *r, const char *p, const char *end)
{
    p = skip(p, end);
    return p == end || *p == '#' ? SONDE_OK : wrong(r, "there is something behind a value");
}

/* [a, b] in one line. */
static enum sonde_code flow_list(struct reader *r, const char *p, const char *end, json_t **out)
{
    json_t *list = json_array();
    enum sonde_code rc = list ? SONDE_OK : no_memory(r);
    for (p = skip(p + 1, end); rc == SONDE_OK && p < end && *p != ']'; p = skip(p, end)) {
        json_t *item = NULL;
        rc = scalar(r, &p, end, ",]", &item);
        if (rc == SONDE_OK && json_array_append_new(list, item))
            rc = no_memory(r);
        p = skip(p, end);
        if (rc == SONDE_OK && p < end && *p == ',')
            p++;
        else if (rc == SONDE_OK && (p == end || *p != ']'))
            rc = wrong(r, "a list in brackets does not end in its line");
    }
    if (rc == SONDE_OK)
        rc = p < end ? behind(r, p + 1, end) : wrong(r, "a list in brackets does not end in its line");
    if (rc == SONDE_OK)
        *out = list;
    else
        json_decref(list);
    return rc;
}

static bool is_item(const struct line *l)
{
    return *l->p == '-' && (l->p + 1 == l->end || l->p[1] == ' ');
}

/* Lines of "- item" below a key: those of the first one's indentation; what is deeper belongs to an item. */
static enum sonde_code block_list(struct reader *r, json_t **out)
{
    struct line l;
    size_t indent = SIZE_MAX;
    json_t *list = json_array();
    enum sonde_code rc = list ? SONDE_OK : no_memory(r);
    while (rc == SONDE_OK && next_line(r, &l)) {
        if (indent == SIZE_MAX)
            indent = l.indent;
        if (l.indent > indent)
            continue;
        if (l.indent < indent || !is_item(&l)) {
            unread(r, &l);
            break;
        }
        json_t *item = NULL;
        const char *p = skip(l.p + 1, l.end);
        rc = scalar(r, &p, l.end, "", &item);
        if (rc == SONDE_OK && json_array_append_new(list, item))
            rc = no_memory(r);
    }
    if (rc == SONDE_OK)
        *out = list;
    else
        json_decref(list);
    return rc;
}

/* What stands deeper than column 0. */
static void skip_deeper(struct reader *r)
{
    struct line l;
    while (next_line(r, &l))
        if (l.indent == 0) {
            unread(r, &l);
            return;
        }
}

static enum sonde_code value(struct reader *r, const char *p, const char *end, json_t **out)
{
    p = skip(p, end);
    if (p < end && *p != '#') {
        if (*p == '[')
            return flow_list(r, p, end, out);
        if (*p == '|' || *p == '>' || *p == '{') {
            *out = json_null();
            skip_deeper(r);
            return SONDE_OK;
        }
        enum sonde_code rc = scalar(r, &p, end, "", out);
        return rc == SONDE_OK ? behind(r, p, end) : rc;
    }
    struct line l;
    *out = json_null();
    if (!next_line(r, &l))
        return SONDE_OK;
    unread(r, &l);
    if (is_item(&l))
        return block_list(r, out);
    skip_deeper(r);
    return SONDE_OK;
}

/* "key: ..." at column 0. */
static enum sonde_code entry(struct reader *r, const struct line *l, json_t *root)
{
    const char *p = l->p, *key_end = NULL;
    json_t *key = NULL, *v = NULL;
    if (l->indent)
        return wrong(r, "it is indented, but belongs to no key");
    enum sonde_code rc = SONDE_OK;
    if (*p == '\'' || *p == '"')
        rc = quoted(r, &p, l->end, &key);
    else if (strchr("&*!%@`|>{}[]-?:,", *p))
        rc = wrong(r, "a key was expected");
    else {
        for (key_end = p;
             key_end < l->end && !(*key_end == ':' && (key_end + 1 == l->end || key_end[1] == ' '));
             key_end++)
            ;
        key = json_stringn(p, (size_t)(key_end - p));
        p = key_end;
    }
    if (rc == SONDE_OK && !key)
        rc = no_memory(r);
    p = skip(p, l->end);
    if (rc == SONDE_OK && (p == l->end || *p != ':'))
        rc = wrong(r, "a key and a colon were expected");
    const char *name = json_string_value(key);
    if (rc == SONDE_OK && (strlen(name) != json_string_length(key) || json_object_get(root, name)))
        rc = wrong(r, "a key comes twice");
    if (rc == SONDE_OK)
        rc = value(r, p + 1, l->end, &v);
    if (rc == SONDE_OK && json_object_set(root, name, v))
        rc = no_memory(r);
    json_decref(v);
    json_decref(key);
    return rc;
}

static enum sonde_code check_bytes(struct reader *r, const char *data, size_t n)
{
    if (n > SONDE_YAML_MAX)
        return sonde_fail(r->err, SONDE_E_INPUT, "%s: has %zu bytes, at most %zu are read", r->what, n,
                          SONDE_YAML_MAX);
    if (!sonde_utf8_ok(data, n))
        return sonde_fail(r->err, SONDE_E_INPUT, "%s: is not UTF-8", r->what);
    for (size_t i = 0; i < n; i++)
        if (((unsigned char)data[i] < 0x20 && data[i] != '\n' && data[i] != '\r') || data[i] == 0x7f)
            return sonde_fail(r->err, SONDE_E_INPUT, "%s: has a tab or another control character at byte %zu",
                              r->what, i);
    return SONDE_OK;
}

enum sonde_code sonde_yaml_parse(const void *data, size_t n, const char *what, json_t **out, sonde_err *err)
{
    struct reader r = {data, (const char *)data + n, what, 0, err};
    struct line l;
    enum sonde_code rc = check_bytes(&r, data, n);
    if (rc != SONDE_OK)
        return rc;
    json_t *root = json_object();
    bool any = false;
    rc = root ? SONDE_OK : no_memory(&r);
    while (rc == SONDE_OK && next_line(&r, &l)) {
        if (l.indent == 0 && is_word(l.p, l.end, "---") && !any)
            any = true;
        else {
            any = true;
            rc = entry(&r, &l, root);
        }
    }
    if (rc == SONDE_OK)
        *out = root;
    else
        json_decref(root);
    return rc;
}

enum sonde_code sonde_yaml_load_in(const char *dir, const char *name, json_t **out, sonde_err *err)
{
    sonde_map *m;
    enum sonde_code rc = sonde_map_open_in(dir, name, &m, err);
    if (rc != SONDE_OK)
        return rc;
    rc = sonde_yaml_parse(m->data, m->n_bytes, m->path, out, err);
    sonde_map_close(m);
    return rc;
}

bool sonde_yaml_is_plain(const char *s)
{
    size_t n = strlen(s);
    if (n == 0 || !memchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", *s, 52))
        return false;
    static const char *const words[] = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (n == strlen(words[i]) && strncasecmp(s, words[i], n) == 0)
            return false;
    return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-") == n;
}
