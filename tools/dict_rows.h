/* SPDX-License-Identifier: MIT
 * A dictionary and the rows that it is applied to, as eval and encode open them: `sonde COMMAND SAE [ACTS]`. */
#ifndef SONDE_TOOLS_DICT_ROWS_H
#define SONDE_TOOLS_DICT_ROWS_H

#include "sae/infer.h"
#include "sae/source.h"
#include "tool.h"

enum { SPLIT_AUTO = 3 }; /* after those of enum sonde_split: held out if there is any, else all */

struct dict_rows_options {
    const char *hook;
    const char *format;
    int split;
    bool all_rows;
    uint64_t max_rows;
};

/* clang-format off */
#define DICT_ROWS_OPTIONS(T, member, default_split)                                                            \
    {"hook", OPT_STRING, offsetof(T, member.hook), "NAME",                                                     \
     "hook point; otherwise the one that the dictionary was trained on", NULL, OPT_RESULT},                    \
    {"sae-format", OPT_STRING, offsetof(T, member.format), "NAME",                                             \
     "format of the dictionary; otherwise it is found out", NULL, OPT_RESULT},                                 \
    {"split", OPT_CHOICE, offsetof(T, member.split), "train|heldout|all|auto",                                 \
     "documents whose rows count; auto: held-out ones where there are some, else all", default_split, OPT_RESULT, \
     .words = "train|heldout|all|auto"},                                                                       \
    {"all-rows", OPT_FLAG, offsetof(T, member.all_rows), NULL, "the same as --split all", NULL, OPT_RESULT},   \
    {"max-rows", OPT_COUNT, offsetof(T, member.max_rows), "N", "no more than the first N rows", "all",         \
     OPT_RESULT, .words = "all", .min = 1}
/* clang-format on */

struct dict_rows {
    sonde_dict *dict;
    sonde_encoder *encoder;
    sonde_source *source;
    enum sonde_split split;
    uint64_t max_rows; /* 0: all */
    const sonde_kernels *kernels;
    const sonde_work *work;
};

/* Contradictions between options, before anything is opened. */
enum sonde_code dict_rows_check(const struct tool *t, const struct dict_rows_options *o, sonde_err *err);

/* Everything above; notes on what was chosen go to standard error. To be closed also after an error. */
enum sonde_code dict_rows_open(struct tool *t, const struct dict_rows_options *o, struct dict_rows *in,
                               sonde_err *err);
void dict_rows_close(struct dict_rows *in);

/* The activation file or text. */
const char *dict_rows_path(const struct tool *t, const struct dict_rows *in);

#endif
