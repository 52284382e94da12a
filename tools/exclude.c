/* SPDX-License-Identifier: MIT */
#include "exclude.h"

#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "number.h"

static bool take_id(const char *word, struct exclusion *e)
{
    uint64_t id;
    if (*word < '0' || *word > '9' || !number_parse_count(word, &id) || id > INT32_MAX)
        return false;
    ((int32_t *)(uintptr_t)e->filter.ids)[e->filter.n_ids++] = (int32_t)id;
    return true;
}

static enum sonde_code unknown(const char *word, sonde_err *err)
{
    static const char *const names[] = {"bos", "special", "first:K", "ids:1,2,...", "norm:X", "auto", "none"};
    char near[160];
    sonde_suggest(word, names, sizeof names / sizeof *names, near, sizeof near);
    return sonde_fail(err, SONDE_E_USAGE,
                      "--exclude: '%.60s' is none of bos, special, first:K, ids:1,2,..., norm:X%s", word,
                      near);
}

/* One word of the list; *in_ids: the word before was an id. */
static enum sonde_code take_word(const char *word, bool *in_ids, struct exclusion *e, sonde_err *err)
{
    sonde_row_filter *f = &e->filter;
    uint64_t n;
    double x;
    bool ids = strncmp(word, "ids:", 4) == 0;
    if (ids || (*in_ids && *word >= '0' && *word <= '9')) {
        *in_ids = true;
        if (take_id(ids ? word + 4 : word, e))
            return SONDE_OK;
        return sonde_fail(err, SONDE_E_USAGE, "--exclude: '%.60s' is no token id", ids ? word + 4 : word);
    }
    *in_ids = false;
    if (strcmp(word, "bos") == 0) {
        f->bos = true;
    } else if (strcmp(word, "special") == 0) {
        f->special = true;
    } else if (strncmp(word, "first:", 6) == 0) {
        if (!number_parse_count(word + 6, &n))
            return sonde_fail(err, SONDE_E_USAGE, "--exclude: '%.60s' is no number of positions (first:1)",
                              word + 6);
        f->first = (size_t)n;
    } else if (strncmp(word, "norm:", 5) == 0) {
        if (!number_parse_float(word + 5, &x) || !(x >= 1))
            return sonde_fail(err, SONDE_E_USAGE,
                              "--exclude: '%.60s' is no multiple of the median norm of at least 1 (norm:10)",
                              word + 5);
        f->max_norm = x;
    } else {
        return unknown(word, err);
    }
    return SONDE_OK;
}

enum sonde_code exclusion_parse(const char *text, struct exclusion *out, sonde_err *err)
{
    *out = (struct exclusion){0};
    if (strcmp(text, "none") == 0)
        return SONDE_OK;
    if (strcmp(text, "auto") == 0) {
        out->automatic = out->filter.bos = true;
        return SONDE_OK;
    }
    size_t n = strlen(text);
    char *copy = strdup(text);
    out->filter.ids = malloc((n + 1) * sizeof *out->filter.ids); /* there are fewer ids than characters */
    enum sonde_code code =
        copy && out->filter.ids ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "no memory for --exclude");
    bool in_ids = false;
    for (char *word = copy, *comma; word && !code; word = comma) {
        comma = strchr(word, ',');
        if (comma)
            *comma++ = '\0';
        code = take_word(word, &in_ids, out, err);
    }
    free(copy);
    return code;
}

void exclusion_free(struct exclusion *e)
{
    free((void *)(uintptr_t)e->filter.ids);
    *e = (struct exclusion){0};
}
