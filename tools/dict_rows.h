/* SPDX-License-Identifier: MIT
 * A dictionary and the rows that it is applied to, as eval and encode open them: `sonde COMMAND SAE [ACTS]`. */
#ifndef SONDE_TOOLS_DICT_ROWS_H
#define SONDE_TOOLS_DICT_ROWS_H

#include "sae/infer.h"
#include "source_input.h"

enum { SPLIT_AUTO = 3 }; /* after those of enum sonde_split: held out if there is any, else all */

struct dict_rows_options {
    struct source_input source;
    const char *format;
    int split;
    bool all_rows;
    uint64_t max_rows, seed;
    int precision;
};

/* clang-format off */
#define DICT_ROWS_OPTIONS(T, member, default_split)                                                            \
    SOURCE_OPTIONS(T, member.source),                                                                          \
    {"sae-format", OPT_STRING, offsetof(T, member.format), "NAME",                                             \
     "format of the dictionary; otherwise it is found out", NULL, OPT_RESULT},                                 \
    {"split", OPT_CHOICE, offsetof(T, member.split), "train|heldout|all|auto",                                 \
     "documents whose rows count; auto: held-out ones where there are some, else all", default_split, OPT_RESULT, \
     .words = "train|heldout|all|auto"},                                                                       \
    {"all-rows", OPT_FLAG, offsetof(T, member.all_rows), NULL, "the same as --split all", NULL, OPT_RESULT},   \
    {"max-rows", OPT_COUNT, offsetof(T, member.max_rows), "N", "no more than the first N rows", "all",         \
     OPT_RESULT, .words = "all", .min = 1},                                                                    \
    {"seed", OPT_COUNT, offsetof(T, member.seed), "N",                                                         \
     "decides which documents of a text are held out; auto: as in the training", "auto", OPT_RESULT, .words = "auto"},    \
    {"precision", OPT_CHOICE, offsetof(T, member.precision), "f32|bf16",                                       \
     "encoder products; bf16 is faster and gives the same bits", "f32", 0, .words = "f32|bf16"}
/* clang-format on */

struct dict_rows {
    sonde_dict *dict;
    sonde_encoder *encoder;
    struct source_opened opened; /* with the model, tokenizer and corpus, where they were given */
    sonde_source *source;        /* opened's */
    enum sonde_split split;
    uint64_t max_rows; /* 0: all */
    uint64_t seed;
    char exclude[1024]; /* what --exclude came to */
    double holdout;     /* and --holdout */
    bool bf16;           /* encoders may use it */
    const sonde_kernels *kernels;
    const sonde_work *work;
};

/* Everything above. What the command line leaves open is as in the training, where the dictionary tells: the
 * hook, the context, and (run.json) the excluded rows, the share held out and the seed. unembed: the model's
 * logits are wanted. Notes on what was chosen go to standard error. To be closed also after an error. */
enum sonde_code dict_rows_open(struct tool *t, const struct dict_rows_options *o, bool unembed,
                               struct dict_rows *in, sonde_err *err);
void dict_rows_close(struct dict_rows *in);

/* A code from reading path as a dictionary, with err saying more where it is a run of sonde train that has not come
 * to its end. */
enum sonde_code dict_unfinished(const char *path, enum sonde_code code, sonde_err *err);

/* The activation file or text. */
const char *dict_rows_path(const struct tool *t, const struct dict_rows_options *o);

#endif
