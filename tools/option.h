/* SPDX-License-Identifier: MIT
 * Option tables: a command declares one table and a struct of values, and from the table come the parser, the
 * help, the manual page, the completion and the canonical text of a run. */
#ifndef SONDE_TOOLS_OPTION_H
#define SONDE_TOOLS_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* What an option's place in the struct of values holds. */
enum option_type {
    OPT_FLAG,    /* bool */
    OPT_STRING,  /* const char *, NULL when not given and without fallback */
    OPT_STRINGS, /* struct strings; may be given any number of times */
    OPT_COUNT,   /* uint64_t: "128", "10M" */
    OPT_BYTES,   /* uint64_t: "512MiB" */
    OPT_FLOAT,   /* double */
    OPT_CHOICE   /* int: index in `words` */
};

struct strings {
    const char **item;
    size_t n;
};

/* What a COUNT or BYTES holds when the word ("auto", "none") was given; a FLOAT then holds NaN. */
#define OPTION_WORD UINT64_MAX

enum option_flags {
    OPT_RESULT = 1,   /* it affects the result, so it belongs to the canonical text */
    OPT_REQUIRED = 2, /* refused when missing */
    OPT_FILE = 4,     /* names a file or directory (for completion) */
};

/* One option, e.g.
 *   {"context", OPT_COUNT, offsetof(struct capture_options, context), "N", "tokens per context", .fallback =
 * "128", OPT_RESULT, .min = 1, .max = 1e6} fallback is written as a user would write it. words: the
 * alternative word of a number, or the choices "a|b|c". A number must lie in [min, max]; max 0 is no limit
 * upwards. */
struct option {
    const char *name;
    enum option_type type;
    size_t at;
    const char *arg;
    const char *about;
    const char *fallback;
    unsigned flags;
    const char *words;
    double min, max;
    char letter; /* short form: only o, q, v, h */
};

/* Options that mean the same in every command; a command names those it takes. */
enum common_set {
    TAKES_OUTPUT = 1, /* -o, --force */
    TAKES_SEED = 2,
    TAKES_THREADS = 4,
    TAKES_MEMORY = 8,
    TAKES_DRY_RUN = 16,
    TAKES_JSON = 32,
    TAKES_RESUME = 64,
    TAKES_KERNEL = 128,
    TAKES_PROGRESS = 256 /* -q, -v; every command may be told to be quiet */
};

struct common {
    const char *output; /* -o */
    uint64_t seed;
    uint64_t threads;    /* OPTION_WORD: auto */
    uint64_t max_memory; /* OPTION_WORD: none */
    const char *kernel;
    bool dry_run, json, quiet, verbose, force, resume;
};

extern const struct option common_options[];
extern const unsigned common_option_set[]; /* the common_set bit of each */
extern const size_t n_common_options;

struct tool;

struct command {
    const char *name;
    const char *about;    /* one line, no capital, no full stop */
    const char *operands; /* "[FILE]...", "" */
    int min_operands;
    int max_operands;            /* -1: any number */
    const char *const *examples; /* pairs: command line, what it does; NULL at the end; at least two pairs */
    const char *details;         /* paragraphs separated by an empty line, or NULL */
    const struct option *options;
    size_t n_options; /* at most 64 */
    unsigned common;  /* of enum common_set */
    size_t n_values;  /* bytes of the struct of values */
    bool saves_state; /* SIGINT and the like set the stop flag: run() looks at it, saves and returns
                         SONDE_E_STOPPED */
    bool hidden;
    enum sonde_code (*run)(struct tool *tool, const void *values, sonde_err *err);
};

/* An ordinary command line, read. */
struct parsed {
    const struct command *command;
    void *values; /* the command's struct */
    struct common common;
    const char **operand;
    size_t n_operands;
    uint64_t given; /* bit i: option i of the command's table was on the command line */
    bool help;
};

/* Read the words after the command's name. Errors: SONDE_E_USAGE, SONDE_E_MEMORY. parsed_free also after an
 * error. With --help nothing else is checked. The strings point into argv and the tables. */
enum sonde_code option_parse(const struct command *c, int argc, char *const *argv, struct parsed *out,
                             sonde_err *err);
void parsed_free(struct parsed *p);

/* Was the command's own option (by name) on the command line? */
bool option_given(const struct parsed *p, const char *name);

/* The text that stands in results for how they were made: the command, every OPT_RESULT option in table order
 * with the value in force (defaults too, numbers in plain digits), then the operands, quoted for a POSIX
 * shell where needed. malloc'd; NULL without memory. */
char *option_canonical(const struct parsed *p);

#endif
