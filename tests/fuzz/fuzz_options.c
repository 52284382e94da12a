/* SPDX-License-Identifier: MIT
 * Bytes to words (cut at NUL) to options. What is accepted lies in its ranges, and its canonical text, read
 * again, gives itself. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "option.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct values {
    const char *model;
    struct strings hook;
    uint64_t context, cache;
    double lr, holdout;
    int dtype;
    bool loss;
};

#define AT(field) offsetof(struct values, field)
static const struct option table[] = {
    {"model", OPT_STRING, AT(model), "DIR", "a model", NULL, OPT_RESULT},
    {"hook", OPT_STRINGS, AT(hook), "NAME", "a hook", NULL, OPT_RESULT},
    {"context", OPT_COUNT, AT(context), "N", "tokens", "128", OPT_RESULT, .min = 1, .max = 1e6},
    {"cache", OPT_BYTES, AT(cache), "BYTES", "cache", "none", OPT_RESULT, "none"},
    {"lr", OPT_FLOAT, AT(lr), "X", "rate", "auto", OPT_RESULT, "auto"},
    {"holdout", OPT_FLOAT, AT(holdout), "X", "part", "0.05", OPT_RESULT, .max = 1},
    {"dtype", OPT_CHOICE, AT(dtype), NULL, "type", "f32", OPT_RESULT, "f32|f16|bf16"},
    {"loss", OPT_FLAG, AT(loss), NULL, "loss", NULL, OPT_RESULT},
};
static const struct command command = {.name = "c",
                                       .operands = "",
                                       .max_operands = -1,
                                       .options = table,
                                       .n_options = sizeof table / sizeof *table,
                                       .n_values = sizeof(struct values),
                                       .common = TAKES_SEED | TAKES_OUTPUT | TAKES_THREADS | TAKES_PROGRESS};

#define MAX_WORDS 40

static void require(int ok)
{
    if (!ok)
        abort();
}

/* The words of a canonical text, unquoted as a shell would, in place. */
static int split(char *s, char *word[MAX_WORDS * 2])
{
    int n = 0;
    while (*s && n < MAX_WORDS * 2) {
        char *to = s;
        word[n++] = s;
        for (; *s && *s != ' '; s++) {
            if (*s == '\'') {
                for (s++; *s != '\''; s++)
                    *to++ = *s;
            } else if (*s == '\\') {
                *to++ = *++s;
            } else {
                *to++ = *s;
            }
        }
        s += *s == ' ';
        *to = '\0';
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = malloc(n + 1), *word[MAX_WORDS * 2];
    int n_words = 0;
    memcpy(text, data, n);
    text[n] = '\0';
    for (char *s = text; s < text + n && n_words < MAX_WORDS; s += strlen(s) + 1)
        word[n_words++] = s;

    struct parsed p, q;
    sonde_err err = {0};
    enum sonde_code rc = option_parse(&command, n_words, word, &p, &err);
    if (rc == SONDE_OK && !p.help) {
        const struct values *v = p.values;
        require(v->context >= 1 && v->context <= 1000000);
        require(v->holdout >= 0 && v->holdout <= 1);
        require(v->dtype >= 0 && v->dtype <= 2);
        char *a = option_canonical(&p), *copy = strdup(a);
        bool plain = p.n_operands == 0;
        int n_again = plain ? split(copy, word) : 0;
        if (plain && n_again < MAX_WORDS * 2) {
            require(option_parse(&command, n_again - 1, word + 1, &q, &err) == SONDE_OK);
            char *b = option_canonical(&q);
            require(!strcmp(a, b));
            free(b);
            parsed_free(&q);
        }
        free(copy);
        free(a);
    } else if (rc != SONDE_OK) {
        require(rc == SONDE_E_USAGE && err.msg[0] && !strchr(err.msg, '\n'));
    }
    parsed_free(&p);
    free(text);
    return 0;
}
