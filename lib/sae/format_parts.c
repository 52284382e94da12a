/* SPDX-License-Identifier: MIT
 * Small questions about files and hooks, and the form in which most formats take a dictionary. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format_impl.h"

#define PEEK ((size_t)1 << 16)

bool sonde_dict_ends(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n >= m && memcmp(path + n - m, suffix, m) == 0;
}

bool sonde_dict_mentions(const char *path, const char *const *words)
{
    if (!sonde_dict_is_file(path))
        return false;
    FILE *f = fopen(path, "rbe");
    char *data = f ? malloc(PEEK) : NULL;
    size_t n = data ? fread(data, 1, PEEK, f) : 0;
    bool all = n >= 4 && memcmp(data, "PK\3\4", 4) == 0;
    for (; all && *words; words++)
        all = memmem(data, n, *words, strlen(*words)) != NULL;
    free(data);
    if (f)
        fclose(f);
    return all;
}

const char *sonde_dict_meta_text(const sonde_dict *d, const char *key)
{
    return json_string_value(json_object_get(d->meta, key));
}

int sonde_dict_layer_of(const char *hook)
{
    if (!hook || strncmp(hook, "blocks.", 7) != 0 || hook[7] < '0' || hook[7] > '9')
        return -1;
    int n = 0;
    const char *p = hook + 7;
    for (; *p >= '0' && *p <= '9' && n < 100000; p++)
        n = 10 * n + (*p - '0');
    return *p == '.' ? n : -1;
}

enum sonde_code sonde_dict_in_form(const sonde_dict *d, bool pre_bias, bool gates, const sonde_dict **use,
                                   sonde_dict **copy, sonde_err *err)
{
    bool ungate = d->act == SONDE_DICT_GATED && !gates;
    *use = d;
    *copy = NULL;
    if (d->pre_bias == pre_bias && !ungate)
        return SONDE_OK;
    sonde_dict *c = NULL;
    enum sonde_code rc = sonde_dict_copy(d, NULL, &c, err);
    if (!rc)
        rc = sonde_dict_set_pre_bias(c, pre_bias, err);
    if (!rc && ungate)
        rc = sonde_dict_gated_to_jumprelu(c, err);
    if (rc) {
        sonde_dict_free(c);
        return rc;
    }
    *use = *copy = c;
    return SONDE_OK;
}
