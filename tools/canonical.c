/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "number.h"
#include "option.h"

/* A word as a POSIX shell would have to be given it. */
static void put_word(FILE *f, const char *s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
    if (*s && strspn(s, plain) == strlen(s)) {
        fputs(s, f);
        return;
    }
    fputc('\'', f);
    for (; *s; s++)
        fputs(*s == '\'' ? "'\\''" : (const char[]){*s, '\0'}, f);
    fputc('\'', f);
}

static void put_string(FILE *f, const struct option *o, const char *s)
{
    if (!s)
        return;
    fprintf(f, " --%s=", o->name);
    put_word(f, s);
}

static void put_choice(FILE *f, const struct option *o, int index)
{
    const char *w = o->words;
    for (; index > 0; index--)
        w = strchr(w, '|') + 1;
    fprintf(f, " --%s=%.*s", o->name, (int)strcspn(w, "|"), w);
}

static void put_option(FILE *f, const struct option *o, const void *values)
{
    const void *place = (const char *)values + o->at;
    char buf[32];
    switch (o->type) {
    case OPT_FLAG:
        if (*(const bool *)place)
            fprintf(f, " --%s", o->name);
        return;
    case OPT_STRING:
        put_string(f, o, *(const char *const *)place);
        return;
    case OPT_STRINGS: {
        const struct strings *list = place;
        for (size_t i = 0; i < list->n; i++)
            put_string(f, o, list->item[i]);
        return;
    }
    case OPT_COUNT:
    case OPT_BYTES:
        if (*(const uint64_t *)place == OPTION_WORD)
            put_string(f, o, o->words);
        else
            fprintf(f, " --%s=%" PRIu64, o->name, *(const uint64_t *)place);
        return;
    case OPT_FLOAT:
        if (isnan(*(const double *)place))
            put_string(f, o, o->words);
        else
            fprintf(f, " --%s=%s", o->name, number_print_float(*(const double *)place, buf));
        return;
    case OPT_CHOICE:
        put_choice(f, o, *(const int *)place);
        return;
    }
}

/* A number that has neither been given nor has a fallback stands for "decided elsewhere" and is left out. */
static bool in_force(const struct parsed *p, size_t i)
{
    const struct option *o = &p->command->options[i];
    bool number = o->type == OPT_COUNT || o->type == OPT_BYTES || o->type == OPT_FLOAT;
    return o->flags & OPT_RESULT && (!number || o->fallback || p->given >> i & 1);
}

char *option_canonical(const struct parsed *p)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return NULL;
    fputs(p->command->name, f);
    for (size_t i = 0; i < p->command->n_options; i++)
        if (in_force(p, i))
            put_option(f, &p->command->options[i], p->values);
    for (size_t i = 0; i < n_common_options; i++)
        if (p->command->common & common_option_set[i] && common_options[i].flags & OPT_RESULT)
            put_option(f, &common_options[i], &p->common);
    for (size_t i = 0; i < p->n_operands; i++) {
        fputc(' ', f);
        put_word(f, p->operand[i]);
    }
    bool bad = ferror(f);
    if (fclose(f) || bad) {
        free(text);
        return NULL;
    }
    return text;
}
