/* SPDX-License-Identifier: MIT */
#include "option.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "number.h"

#define AT(field) offsetof(struct common, field)

const struct option common_options[] = {
    {"output", OPT_STRING, AT(output), "PATH", "where the result goes", .flags = OPT_FILE, .letter = 'o'},
    {"force", OPT_FLAG, AT(force), NULL, "replace an existing result"},
    {"resume", OPT_FLAG, AT(resume), NULL, "go on where an interrupted run stopped"},
    {"seed", OPT_COUNT, AT(seed), "N", "the one seed of all randomness", .fallback = "0", OPT_RESULT},
    {"threads", OPT_COUNT, AT(threads), "N", "threads to work on; no result depends on it",
     .fallback = "auto", .words = "auto", .min = 1, .max = 1024},
    {"max-memory", OPT_BYTES, AT(max_memory), "BYTES", "refuse to use more memory than this",
     .fallback = "none", .words = "none", .min = 1},
    {"kernel", OPT_STRING, AT(kernel), "NAME",
     "the kernels to compute with: avx512, avx2, neon, plain, openblas", .fallback = "auto"},
    {"dry-run", OPT_FLAG, AT(dry_run), NULL, "say what would be done, with sizes, and stop"},
    {"json", OPT_FLAG, AT(json), NULL, "print the result as one JSON object"},
    {"quiet", OPT_FLAG, AT(quiet), NULL, "no progress and no notes", .letter = 'q'},
    {"verbose", OPT_FLAG, AT(verbose), NULL, "more notes", .letter = 'v'},
};
const unsigned common_option_set[] = {
    TAKES_OUTPUT, TAKES_OUTPUT,  TAKES_RESUME, TAKES_SEED,     TAKES_THREADS,  TAKES_MEMORY,
    TAKES_KERNEL, TAKES_DRY_RUN, TAKES_JSON,   TAKES_PROGRESS, TAKES_PROGRESS,
};
const size_t n_common_options = sizeof common_options / sizeof *common_options;
_Static_assert(sizeof common_options / sizeof *common_options ==
                   sizeof common_option_set / sizeof *common_option_set,
               "one set for each common option");

/* An option found: its table row, the struct its value goes into, and its bit in `given` (-1 for common
 * ones). */
struct found {
    const struct option *option;
    void *values;
    int bit;
};

static struct found find(struct parsed *p, const char *name, size_t n, char letter)
{
    const struct command *c = p->command;
    for (size_t i = 0; i < c->n_options; i++) {
        const struct option *o = &c->options[i];
        if (letter ? o->letter == letter : strlen(o->name) == n && !memcmp(o->name, name, n))
            return (struct found){o, p->values, (int)i};
    }
    for (size_t i = 0; i < n_common_options; i++) {
        const struct option *o = &common_options[i];
        if (!(c->common & common_option_set[i]))
            continue;
        if (letter ? o->letter == letter : strlen(o->name) == n && !memcmp(o->name, name, n))
            return (struct found){o, &p->common, -1};
    }
    return (struct found){0};
}

static enum sonde_code unknown(const struct parsed *p, const char *name, size_t n, sonde_err *err)
{
    const struct command *c = p->command;
    const char *all[64 + 16];
    size_t n_all = 0;
    for (size_t i = 0; i < c->n_options; i++)
        all[n_all++] = c->options[i].name;
    for (size_t i = 0; i < n_common_options; i++)
        if (c->common & common_option_set[i])
            all[n_all++] = common_options[i].name;
    all[n_all++] = "help";
    char word[80], near[200];
    snprintf(word, sizeof word, "%.*s", n < 70 ? (int)n : 70, name);
    sonde_suggest(word, all, n_all, near, sizeof near);
    /* the names come back without dashes: "did you mean '--seed'?" reads better */
    char dashed[240];
    size_t k = 0;
    for (const char *s = near; *s && k + 4 < sizeof dashed; s++) {
        dashed[k++] = *s;
        if (*s == '\'' && s[1] >= 'a' && s[1] <= 'z') {
            dashed[k++] = '-';
            dashed[k++] = '-';
        }
    }
    dashed[k] = '\0';
    return sonde_fail(err, SONDE_E_USAGE, "no option '--%s'%s", word, dashed);
}

/* The index of s in "a|b|c", or -1. */
static int word_index(const char *words, const char *s)
{
    size_t n = strlen(s);
    int i = 0;
    for (const char *w = words; w; i++) {
        size_t k = strcspn(w, "|");
        if (k == n && !memcmp(w, s, n))
            return i;
        w = w[k] ? w + k + 1 : NULL;
    }
    return -1;
}

static enum sonde_code out_of_range(const struct option *o, const char *s, sonde_err *err)
{
    char lo[32], hi[32];
    number_print_float(o->min, lo);
    if (o->max == 0)
        return sonde_fail(err, SONDE_E_USAGE, "--%s %s: must be at least %s", o->name, s, lo);
    return sonde_fail(err, SONDE_E_USAGE, "--%s %s: must be between %s and %s", o->name, s, lo,
                      number_print_float(o->max, hi));
}

static enum sonde_code set_whole(const struct option *o, uint64_t *place, const char *s, sonde_err *err)
{
    if (o->words && word_index(o->words, s) >= 0) {
        *place = OPTION_WORD;
        return SONDE_OK;
    }
    uint64_t n;
    bool bytes = o->type == OPT_BYTES;
    if (!(bytes ? number_parse_bytes(s, &n) : number_parse_count(s, &n)) || n == OPTION_WORD)
        return sonde_fail(err, SONDE_E_USAGE, "--%s %.80s: is not a %s%s%s%s", o->name, s,
                          bytes ? "number of bytes (4096, 512MiB, 1.5GiB)" : "count (128, 10k, 1.5M)",
                          o->words ? ", nor '" : "", o->words ? o->words : "", o->words ? "'" : "");
    if ((double)n < o->min || (o->max != 0 && (double)n > o->max))
        return out_of_range(o, s, err);
    *place = n;
    return SONDE_OK;
}

static enum sonde_code set_float(const struct option *o, double *place, const char *s, sonde_err *err)
{
    if (o->words && word_index(o->words, s) >= 0) {
        *place = NAN;
        return SONDE_OK;
    }
    double x;
    if (!number_parse_float(s, &x))
        return sonde_fail(err, SONDE_E_USAGE, "--%s %.80s: is not a number%s%s%s", o->name, s,
                          o->words ? ", nor '" : "", o->words ? o->words : "", o->words ? "'" : "");
    if ((o->min != 0 || o->max != 0) && (x < o->min || (o->max != 0 && x > o->max)))
        return out_of_range(o, s, err);
    *place = x;
    return SONDE_OK;
}

static enum sonde_code set_choice(const struct option *o, int *place, const char *s, sonde_err *err)
{
    int i = word_index(o->words, s);
    if (i >= 0) {
        *place = i;
        return SONDE_OK;
    }
    return sonde_fail(err, SONDE_E_USAGE, "--%s %.80s: must be one of %s", o->name, s, o->words);
}

static enum sonde_code add_string(struct strings *list, const char *s, sonde_err *err)
{
    const char **item = realloc(list->item, (list->n + 1) * sizeof *item);
    if (!item)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for the command line");
    item[list->n++] = s;
    list->item = item;
    return SONDE_OK;
}

static enum sonde_code set(const struct option *o, void *values, const char *s, sonde_err *err)
{
    void *place = (char *)values + o->at;
    switch (o->type) {
    case OPT_FLAG:
        *(bool *)place = true;
        return SONDE_OK;
    case OPT_STRING:
        *(const char **)place = s;
        return SONDE_OK;
    case OPT_STRINGS:
        return add_string(place, s, err);
    case OPT_COUNT:
    case OPT_BYTES:
        return set_whole(o, place, s, err);
    case OPT_FLOAT:
        return set_float(o, place, s, err);
    case OPT_CHOICE:
        return set_choice(o, place, s, err);
    }
    return SONDE_E_USAGE;
}

/* Fallbacks are part of the program: a wrong one is a bug that the first run of any test meets. */
static enum sonde_code set_fallbacks(struct parsed *p, sonde_err *err)
{
    const struct command *c = p->command;
    for (size_t i = 0; i < c->n_options; i++)
        if (c->options[i].fallback && set(&c->options[i], p->values, c->options[i].fallback, err))
            return err->code;
    for (size_t i = 0; i < n_common_options; i++)
        if (common_options[i].fallback &&
            set(&common_options[i], &p->common, common_options[i].fallback, err))
            return err->code;
    return SONDE_OK;
}

static enum sonde_code take(struct parsed *p, struct found f, const char *value, sonde_err *err)
{
    if (f.bit >= 0) {
        struct strings *list = (void *)((char *)f.values + f.option->at);
        if (f.option->type == OPT_STRINGS && !(p->given >> f.bit & 1))
            list->n = 0; /* the fallback goes */
        p->given |= (uint64_t)1 << f.bit;
    }
    return set(f.option, f.values, value, err);
}

/* argv[*at] is "--name", "--name=value", "-x", "-xvalue" or several one-letter flags. */
static enum sonde_code read_long(struct parsed *p, int argc, char *const *argv, int *at, sonde_err *err)
{
    const char *name = argv[*at] + 2;
    size_t n = strcspn(name, "=");
    const char *value = name[n] ? name + n + 1 : NULL;
    struct found f = find(p, name, n, 0);
    if (!f.option)
        return unknown(p, name, n, err);
    if (f.option->type == OPT_FLAG)
        return value ? sonde_fail(err, SONDE_E_USAGE, "--%s takes no value", f.option->name)
                     : take(p, f, NULL, err);
    if (!value) {
        if (*at + 1 >= argc)
            return sonde_fail(err, SONDE_E_USAGE, "--%s needs a value: --%s %s", f.option->name,
                              f.option->name, f.option->arg);
        value = argv[++*at];
        if (!strncmp(value, "--", 2))
            return sonde_fail(err, SONDE_E_USAGE, "--%s needs a value; if it is '%.80s', write --%s=%.80s",
                              f.option->name, value, f.option->name, value);
    }
    return take(p, f, value, err);
}

static enum sonde_code read_short(struct parsed *p, int argc, char *const *argv, int *at, sonde_err *err)
{
    for (const char *s = argv[*at] + 1; *s; s++) {
        if (*s == 'h') {
            p->help = true;
            continue;
        }
        struct found f = find(p, NULL, 0, *s);
        if (!f.option)
            return sonde_fail(err, SONDE_E_USAGE, "no option '-%.40s'; the short ones are -o, -q, -v and -h",
                              s);
        if (f.option->type == OPT_FLAG) {
            enum sonde_code rc = take(p, f, NULL, err);
            if (rc)
                return rc;
            continue;
        }
        if (s[1])
            return take(p, f, s + 1, err);
        if (*at + 1 >= argc)
            return sonde_fail(err, SONDE_E_USAGE, "-%c needs a value: -%c %s", *s, *s, f.option->arg);
        return take(p, f, argv[++*at], err);
    }
    return SONDE_OK;
}

static enum sonde_code check(const struct parsed *p, sonde_err *err)
{
    const struct command *c = p->command;
    for (size_t i = 0; i < c->n_options; i++)
        if (c->options[i].flags & OPT_REQUIRED && !(p->given >> i & 1))
            return sonde_fail(err, SONDE_E_USAGE, "--%s %s is missing; sonde %s --help shows examples",
                              c->options[i].name, c->options[i].arg, c->name);
    if (p->n_operands < (size_t)c->min_operands)
        return sonde_fail(err, SONDE_E_USAGE, "%s is missing; sonde %s --help shows examples", c->operands,
                          c->name);
    if (c->max_operands >= 0 && p->n_operands > (size_t)c->max_operands)
        return sonde_fail(err, SONDE_E_USAGE, "'%.200s' is one word too many; sonde %s --help shows examples",
                          p->operand[c->max_operands], c->name);
    return SONDE_OK;
}

enum sonde_code option_parse(const struct command *c, int argc, char *const *argv, struct parsed *out,
                             sonde_err *err)
{
    *out = (struct parsed){.command = c};
    out->values = calloc(1, c->n_values ? c->n_values : 1);
    out->operand = calloc((size_t)argc + 1, sizeof *out->operand);
    if (!out->values || !out->operand)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for the command line");
    enum sonde_code rc = set_fallbacks(out, err);
    bool only_operands = false;
    for (int i = 0; i < argc && !rc; i++) {
        const char *s = argv[i];
        if (only_operands || s[0] != '-' || !s[1])
            out->operand[out->n_operands++] = s;
        else if (!strcmp(s, "--"))
            only_operands = true;
        else if (!strcmp(s, "--help"))
            out->help = true;
        else
            rc = s[1] == '-' ? read_long(out, argc, argv, &i, err) : read_short(out, argc, argv, &i, err);
    }
    if (rc || out->help)
        return rc;
    return check(out, err);
}

void parsed_free(struct parsed *p)
{
    if (p->values)
        for (size_t i = 0; i < p->command->n_options; i++)
            if (p->command->options[i].type == OPT_STRINGS)
                free(((struct strings *)(void *)((char *)p->values + p->command->options[i].at))->item);
    free(p->values);
    free(p->operand);
    *p = (struct parsed){0};
}

bool option_given(const struct parsed *p, const char *name)
{
    for (size_t i = 0; i < p->command->n_options; i++)
        if (!strcmp(p->command->options[i].name, name))
            return p->given >> i & 1;
    return false;
}
