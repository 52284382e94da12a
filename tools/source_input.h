/* SPDX-License-Identifier: MIT
 * Where a command's activations come from: an operand (ACTS.h5, ANY.h5:/dataset, ACTS.npy), or --model and a
 * text that is run as one goes along. Declared once, opened once, for train, eval and encode alike. */
#ifndef SONDE_TOOLS_SOURCE_INPUT_H
#define SONDE_TOOLS_SOURCE_INPUT_H

#include "input.h"
#include "sae/source.h"

struct source_input {
    struct model_input model;
    struct text_input text;
    const char *hook, *hook_out, *exclude;
    double holdout;
    uint64_t window;
    bool verify;
};

/* clang-format off */
#define SOURCE_OPTIONS(T, member)                                                                              \
    MODEL_OPTIONS_IF(T, member.model, 0),                                                                      \
    TEXT_OPTIONS(T, member.text),                                                                              \
    {"hook", OPT_STRING, offsetof(T, member.hook), "NAME",                                                     \
     "hook point: blocks.3.hook_resid_post; of a file any unique ending", NULL, OPT_RESULT},                   \
    {"hook-out", OPT_STRING, offsetof(T, member.hook_out), "NAME",                                             \
     "transcoders: the hook point that is predicted", NULL, OPT_RESULT},                                       \
    {"exclude", OPT_STRING, offsetof(T, member.exclude), "LIST",                                               \
     "rows that take no part: bos, special, first:K, ids:1,2,..., norm:X (times the median); auto: BOS, where it is known; none", \
     "auto", OPT_RESULT},                                                                                      \
    {"holdout", OPT_FLOAT, offsetof(T, member.holdout), "SHARE",                                               \
     "share of documents (of a plain array: the last rows) that is held out, where the file marks none",      \
     "0.05", OPT_RESULT, .min = 0, .max = 0.999},                                                              \
    {"window", OPT_COUNT, offsetof(T, member.window), "N", "rows that are shuffled together",                  \
     "auto", OPT_RESULT, .words = "auto", .min = 1, .max = 1e9},                                               \
    {"verify", OPT_FLAG, offsetof(T, member.verify), NULL, "check a store's checksums while reading", NULL}
/* clang-format on */

/* The source and what it needs; NULL what is not there. All zero is a closed one. */
struct source_opened {
    sonde_source *source;
    sonde_model *model;
    sonde_tokenizer *tokenizer;
    sonde_corpus *corpus;
};

/* acts: the operand, or NULL. seed: decides the order, and of a text which documents are held out: a command
 * that scores gives the seed of the training. unembed: load the unembedding (logits are wanted). A file is
 * opened before the threads start: call it before tool_work. Errors: SONDE_E_USAGE (neither or both named,
 * --exclude), those of sonde_source_open and sonde_source_model. source_input_close also after an error. */
enum sonde_code source_input_open(struct tool *t, const struct source_input *in, const char *acts,
                                  uint64_t seed, bool unembed, struct source_opened *out, sonde_err *err);
void source_input_close(struct source_opened *s);

#endif
