/* SPDX-License-Identifier: MIT */
#include "json.h"

#include <inttypes.h>
#include <locale.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "map.h"

#define MAX_DEPTH 64

/* What the text will become, counted before anything is allocated. For text that is not JSON the counts hold
 * as far as the parser gets. */
struct census {
    size_t opens, colons, commas;
    size_t depth;
    size_t n_big; /* integers beyond int64 */
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The end of the string whose opening quote is before p, past its closing quote. */
static const char *skip_string(const char *p, const char *end)
{
    while (p < end && *p != '"')
        p += *p == '\\' && end - p > 1 ? 2 : 1;
    return p < end ? p + 1 : end;
}

/* The end of the number that starts at p; *big: an integer that int64 cannot hold. */
static const char *skip_number(const char *p, const char *end, bool *big)
{
    static const char lowest[] = "9223372036854775808", highest[] = "9223372036854775807";
    bool negative = *p == '-';
    const char *digits = p + negative, *q = digits;
    while (q < end && is_digit(*q))
        q++;
    size_t n = (size_t)(q - digits);
    *big = n > 19 || (n == 19 && memcmp(digits, negative ? lowest : highest, 19) > 0);
    if (q < end && (*q == '.' || *q == 'e' || *q == 'E')) {
        *big = false;
        while (q < end && (is_digit(*q) || *q == '.' || *q == 'e' || *q == 'E' || *q == '+' || *q == '-'))
            q++;
    }
    return q;
}

static struct census count(const char *p, const char *end)
{
    struct census c = {0};
    size_t depth = 0;
    while (p < end) {
        char ch = *p;
        if (ch == '-' || is_digit(ch)) {
            bool big;
            p = skip_number(p, end, &big);
            c.n_big += big;
            continue;
        }
        p++;
        if (ch == '"') {
            p = skip_string(p, end);
        } else if (ch == ',') {
            c.commas++;
        } else if (ch == ':') {
            c.colons++;
        } else if (ch == '{' || ch == '[') {
            c.opens++;
            if (++depth > c.depth)
                c.depth = depth;
        } else if ((ch == '}' || ch == ']') && depth) {
            depth--;
        }
    }
    return c;
}

/* A copy in which integers beyond int64 end in ".0", so that they are read as reals: tokenizer_config.json
 * has "model_max_length": 1000000000000000019884624838656. */
static char *with_reals(const char *p, size_t n, size_t n_big, size_t *n_out)
{
    const char *end = p + n;
    size_t room;
    char *copy = sonde_mul(&room, n_big, 2) && sonde_add(&room, room, n) ? malloc(room) : NULL;
    if (!copy)
        return NULL;
    char *to = copy;
    while (p < end) {
        const char *from = p;
        bool big = false;
        if (*p == '-' || is_digit(*p))
            p = skip_number(p, end, &big);
        else if (*p++ == '"')
            p = skip_string(p, end);
        memcpy(to, from, (size_t)(p - from));
        to += p - from;
        if (big &&
            n_big) { /* the text may change under our hands if it is mapped: never more than was counted */
            n_big--;
            memcpy(to, ".0", 2);
            to += 2;
        }
    }
    *n_out = (size_t)(to - copy);
    return copy;
}

/* jansson reports most failed allocations as if the text were wrong. So a failure counts only when it repeats
 * itself and there is memory for an ordinary tree of such a text (16 bytes for each of its bytes). */
static json_t *load(const char *text, size_t n, json_error_t *e, bool *no_memory)
{
    json_t *root = NULL;
    *no_memory = false;
    for (int attempt = 0; attempt < 2 && !root && !*no_memory; attempt++) {
        root = json_loadb(text, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, e);
        if (root)
            break;
        size_t bytes;
        void *room = sonde_mul(&bytes, n, 16) && sonde_add(&bytes, bytes, 4096) ? malloc(bytes) : NULL;
        *no_memory = !room || json_error_code(e) == json_error_out_of_memory;
        free(room);
    }
    return root;
}

static enum sonde_code parse(const char *text, size_t n, size_t n_big, const char *what, json_t **out,
                             sonde_err *err)
{
    char *copy = NULL;
    if (n_big) {
        copy = with_reals(text, n, n_big, &n);
        if (!copy)
            return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for %zu bytes of JSON", what, n);
        text = copy;
    }
    /* jansson reads numbers with strtod: on this thread the decimal point is '.', whatever the caller's
     * locale */
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0), before = (locale_t)0;
    if (plain)
        before = uselocale(plain);
    json_error_t e;
    bool no_memory;
    json_t *root = load(text, n, &e, &no_memory);
    if (plain) {
        uselocale(before);
        freelocale(plain);
    }
    free(copy);
    if (!root && no_memory)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for its JSON of %zu bytes", what, n);
    if (!root)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: not the JSON that is expected here: line %d, column %d: %s", what, e.line,
                          e.column, e.text);
    *out = root;
    return SONDE_OK;
}

static enum sonde_code check_depth(const struct census *c, const char *what, sonde_err *err)
{
    if (c->depth > MAX_DEPTH)
        return sonde_fail(err, SONDE_E_INPUT, "%s: %zu levels of nested JSON, at most %d are read", what,
                          c->depth, MAX_DEPTH);
    return SONDE_OK;
}

enum sonde_code sonde_json_parse(const void *data, size_t n, size_t max_nodes, const char *what, json_t **out,
                                 sonde_err *err)
{
    if (n == 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: is empty, JSON is expected here", what);
    struct census c = count(data, (const char *)data + n);
    enum sonde_code rc = check_depth(&c, what, err);
    if (rc != SONDE_OK)
        return rc;
    size_t nodes = 1 + c.commas + c.opens; /* at least as many as there are values; at most 1 + n */
    if (nodes > max_nodes)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: about %zu JSON values, the limit here is %zu", what,
                          nodes, max_nodes);
    return parse(data, n, c.n_big, what, out, err);
}

/* At least what jansson 2.14 takes at its worst moment, malloc's own words included: an empty object takes
 * 240 bytes and an empty array 150, a key 130, an integer 56 with its slot in an array that grows, a string
 * 104; the text of a string up to three times while it is read. */
static bool cost(const struct census *c, size_t n, size_t *bytes)
{
    size_t opens, values, keys, text;
    return sonde_mul(&opens, c->opens, 240) && sonde_mul(&values, c->commas + 1, 112) &&
           sonde_mul(&keys, c->colons, 136) && sonde_mul(&text, n, c->n_big ? 6 : 4) &&
           sonde_add(bytes, opens, values) && sonde_add(bytes, *bytes, keys) &&
           sonde_add(bytes, *bytes, text) && sonde_add(bytes, *bytes, 4096);
}

enum sonde_code sonde_json_parse_within(const void *data, size_t n, sonde_budget *budget, const char *what,
                                        sonde_json *out, sonde_err *err)
{
    if (n == 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: is empty, JSON is expected here", what);
    struct census c = count(data, (const char *)data + n);
    enum sonde_code rc = check_depth(&c, what, err);
    if (rc != SONDE_OK)
        return rc;
    size_t bytes;
    if (!cost(&c, n, &bytes))
        return sonde_fail(err, SONDE_E_MEMORY, "%s: %zu bytes of JSON are more than this machine can address",
                          what, n);
    if (!sonde_budget_hold(budget, bytes))
        return sonde_fail(
            err, SONDE_E_MEMORY,
            "%s: reading %zu bytes of JSON needs up to %zu bytes, the memory limit is %zu and %zu are in "
            "use",
            what, n, bytes, budget->limit, atomic_load(&budget->taken));
    sonde_json j = {.budget = budget, .held = bytes};
    rc = parse(data, n, c.n_big, what, &j.root, err);
    if (rc != SONDE_OK)
        sonde_json_release(&j);
    else
        *out = j;
    return rc;
}

void sonde_json_release(sonde_json *j)
{
    json_decref(j->root);
    sonde_budget_release(j->budget, j->held);
    *j = (sonde_json){0};
}

enum sonde_code sonde_json_load_in(const char *dir, const char *name, size_t max_bytes, json_t **out,
                                   sonde_err *err)
{
    sonde_map *m;
    enum sonde_code rc = sonde_map_open_in(dir, name, &m, err);
    if (rc != SONDE_OK)
        return rc;
    if (m->n_bytes > max_bytes)
        rc = sonde_fail(err, SONDE_E_INPUT, "%s: has %zu bytes, at most %zu are read", m->path, m->n_bytes,
                        max_bytes);
    else
        rc = sonde_json_parse(m->data, m->n_bytes, m->n_bytes / 2 + 64, m->path, out, err);
    sonde_map_close(m);
    return rc;
}

/* The first pass writes nothing and counts; the second must come out the same. */
char *sonde_json_text(const json_t *value, size_t flags)
{
    const size_t n = value ? json_dumpb(value, NULL, 0, flags) : 0;
    char *text = n ? malloc(n + 1) : NULL;
    if (!text)
        return NULL;
    if (json_dumpb(value, text, n, flags) != n) {
        free(text);
        return NULL;
    }
    text[n] = '\0';
    return text;
}
