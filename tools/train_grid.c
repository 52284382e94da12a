/* SPDX-License-Identifier: MIT */
#include "train_grid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "number.h"

/* What an axis may be: the place of its value among the options. */
enum axis_type { AXIS_COUNT, AXIS_NUMBER, AXIS_TEXT };
static const struct {
    const char *name;
    enum axis_type type;
    size_t at;
} axes[] = {
    {"k", AXIS_COUNT, offsetof(sonde_train_options, k)},
    {"latents", AXIS_COUNT, offsetof(sonde_train_options, n_latents)},
    {"seed", AXIS_COUNT, offsetof(sonde_train_options, seed)},
    {"arch", AXIS_TEXT, offsetof(sonde_train_options, arch)},
    {"lr", AXIS_NUMBER, offsetof(sonde_train_options, lr)},
    {"l1-coef", AXIS_NUMBER, offsetof(sonde_train_options, l1)},
    {"l0-coef", AXIS_NUMBER, offsetof(sonde_train_options, l0)},
    {"target-l0", AXIS_NUMBER, offsetof(sonde_train_options, target_l0)},
};
#define N_AXES (sizeof axes / sizeof *axes)

static enum sonde_code unknown_axis(const char *name, sonde_err *err)
{
    const char *names[N_AXES + 1] = {NULL};
    char near[160];
    for (size_t i = 0; i < N_AXES; i++)
        names[i] = axes[i].name;
    sonde_suggest(name, names, N_AXES, near, sizeof near);
    if (near[0])
        return sonde_fail(err, SONDE_E_USAGE, "--grid: no axis '%s'%s", name, near);
    char list[160] = "";
    for (size_t i = 0; i < N_AXES; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", names[i]);
    return sonde_fail(err, SONDE_E_USAGE, "--grid: no axis '%s'; there are %s", name, list);
}

static enum sonde_code add_value(struct grid_axis *a, const char *s, size_t n, sonde_err *err)
{
    if (a->n == GRID_VALUES)
        return sonde_fail(err, SONDE_E_USAGE, "--grid: more than %d values of %s", GRID_VALUES, a->name);
    if (n == 0)
        return sonde_fail(err, SONDE_E_USAGE, "--grid: an empty value of %s", a->name);
    for (size_t i = 0; i < a->n; i++)
        if (strlen(a->value[i]) == n && !memcmp(a->value[i], s, n))
            return sonde_fail(err, SONDE_E_USAGE, "--grid: %s=%s is given twice", a->name, a->value[i]);
    if (!(a->value[a->n] = strndup(s, n)))
        return sonde_fail(err, SONDE_E_MEMORY, "no memory");
    a->n++;
    return SONDE_OK;
}

/* "0..4": whole numbers, both ends included. */
static enum sonde_code add_range(struct grid_axis *a, const char *s, const char *dots, sonde_err *err)
{
    char from[32], text[32];
    uint64_t lo, hi;
    snprintf(from, sizeof from, "%.*s", (int)(dots - s < 31 ? dots - s : 31), s);
    if (!number_parse_count(from, &lo) || !number_parse_count(dots + 2, &hi) || hi < lo)
        return sonde_fail(err, SONDE_E_USAGE, "--grid: '%s' is not a range FROM..TO of whole numbers", s);
    for (uint64_t v = lo; v <= hi; v++) {
        snprintf(text, sizeof text, "%llu", (unsigned long long)v);
        const enum sonde_code code = add_value(a, text, strlen(text), err);
        if (code)
            return code;
    }
    return SONDE_OK;
}

enum sonde_code grid_add(struct grid *g, const char *word, sonde_err *err)
{
    const char *equals = strchr(word, '=');
    char name[32];
    size_t which = 0;
    if (!equals)
        return sonde_fail(err, SONDE_E_USAGE, "--grid: '%s' is not NAME=VALUES (k=4,8,16 or seed=0..4)",
                          word);
    snprintf(name, sizeof name, "%.*s", (int)(equals - word < 31 ? equals - word : 31), word);
    while (which < N_AXES && strcmp(axes[which].name, name))
        which++;
    if (which == N_AXES)
        return unknown_axis(name, err);
    for (size_t i = 0; i < g->n_axes; i++)
        if (!strcmp(g->axis[i].name, name))
            return sonde_fail(err, SONDE_E_USAGE, "--grid: %s is given twice", name);
    struct grid_axis *a = &g->axis[g->n_axes++];
    *a = (struct grid_axis){.name = axes[which].name};
    const char *s = equals + 1, *dots = strstr(s, "..");
    enum sonde_code code = SONDE_OK;
    if (dots && axes[which].type == AXIS_COUNT)
        code = add_range(a, s, dots, err);
    else
        for (const char *end; !code; s = end + 1) {
            end = strchrnul(s, ',');
            code = add_value(a, s, (size_t)(end - s), err);
            if (!*end)
                break;
        }
    g->n_points *= a->n;
    if (!code && g->n_points > GRID_POINTS)
        code = sonde_fail(err, SONDE_E_USAGE, "--grid: %zu dictionaries, at most %d are possible",
                          g->n_points, GRID_POINTS);
    return code;
}

static enum sonde_code set(const struct grid_axis *a, const char *value, sonde_train_options *o,
                           sonde_err *err)
{
    size_t which = 0;
    while (strcmp(axes[which].name, a->name))
        which++;
    void *at = (char *)o + axes[which].at;
    bool ok = true;
    switch (axes[which].type) {
    case AXIS_COUNT:
        ok = number_parse_count(value, at);
        break;
    case AXIS_NUMBER:
        ok = number_parse_float(value, at);
        break;
    case AXIS_TEXT:
        *(const char **)at = value;
        break;
    }
    return ok ? SONDE_OK : sonde_fail(err, SONDE_E_USAGE, "--grid: %s=%s is not a number", a->name, value);
}

enum sonde_code grid_apply(const struct grid *g, size_t i, sonde_train_options *o, char *name, size_t n,
                           sonde_err *err)
{
    size_t at = 0, below = g->n_points;
    name[0] = 0;
    for (size_t j = 0; j < g->n_axes; j++) {
        const struct grid_axis *a = &g->axis[j];
        below /= a->n;
        const char *value = a->value[i / below % a->n];
        const enum sonde_code code = set(a, value, o, err);
        if (code)
            return code;
        const int k = snprintf(name + at, n - at, "%s%s%s", j ? "_" : "",
                               strcmp(a->name, "arch") ? a->name : "", value);
        at += k > 0 && (size_t)k < n - at ? (size_t)k : 0;
    }
    return SONDE_OK;
}

void grid_free(struct grid *g)
{
    for (size_t j = 0; j < g->n_axes; j++)
        for (size_t i = 0; i < g->axis[j].n; i++)
            free(g->axis[j].value[i]);
}
