/* SPDX-License-Identifier: MIT
 * Options that mean the same in every command that reads a model or text: declared once, opened once. */
#ifndef SONDE_TOOLS_INPUT_H
#define SONDE_TOOLS_INPUT_H

#include "model/model.h"
#include "text/corpus.h"
#include "tool.h"

struct model_input {
    const char *model, *tokenizer, *processing;
};

struct text_input {
    const char *text, *jsonl, *field, *ids, *separator;
    uint64_t context, max_tokens;
    int packing, bos;
};

/* clang-format off */
/* Rows of an option table; `member` is the place of the struct in the command's values. need: OPT_REQUIRED, or 0
 * where a command works without a model too. */
#define MODEL_OPTIONS(T, member) MODEL_OPTIONS_IF(T, member, OPT_REQUIRED)
#define MODEL_OPTIONS_IF(T, member, need)                                                                      \
    {"model", OPT_STRING, offsetof(T, member.model), "DIR|FILE",                                               \
     "model directory (Hugging Face), llama2.c .bin or GGUF", NULL, OPT_RESULT | (need) | OPT_FILE},           \
    {"tokenizer", OPT_STRING, offsetof(T, member.tokenizer), "FILE",                                           \
     "tokenizer, where the model does not bring one", NULL, OPT_RESULT | OPT_FILE},                            \
    {"processing", OPT_STRING, offsetof(T, member.processing), "LIST",                                         \
     "fold_ln, center_writing_weights, center_unembed, fold_value_biases (comma-separated), as TransformerLens does", \
     "none", OPT_RESULT}

#define TEXT_OPTIONS(T, member)                                                                                \
    {"text", OPT_STRING, offsetof(T, member.text), "FILE",                                                     \
     "text; one document, or several with --separator", NULL, OPT_RESULT | OPT_FILE},                          \
    {"jsonl", OPT_STRING, offsetof(T, member.jsonl), "FILE",                                                   \
     "JSON lines, one document each", NULL, OPT_RESULT | OPT_FILE},                                            \
    {"field", OPT_STRING, offsetof(T, member.field), "NAME",                                                   \
     "the field of --jsonl that holds the text", "text", OPT_RESULT},                                          \
    {"ids", OPT_STRING, offsetof(T, member.ids), "FILE.npy",                                                   \
     "token ids, int32 or int64, [n] or [documents, context]", NULL, OPT_RESULT | OPT_FILE},                   \
    {"separator", OPT_STRING, offsetof(T, member.separator), "STR",                                            \
     "a line of --text that ends a document", NULL, OPT_RESULT},                                               \
    {"context", OPT_COUNT, offsetof(T, member.context), "N", "tokens per context", "128", OPT_RESULT,          \
     .min = 1, .max = 1e7},                                                                                    \
    {"packing", OPT_CHOICE, offsetof(T, member.packing), "doc|concat",                                         \
     "contexts within documents, or across them", "doc", OPT_RESULT, .words = "doc|concat"},                   \
    {"bos", OPT_CHOICE, offsetof(T, member.bos), "auto|always|never",                                          \
     "BOS before each context; auto: as the tokenizer does", "auto", OPT_RESULT, .words = "auto|always|never"}, \
    {"max-tokens", OPT_COUNT, offsetof(T, member.max_tokens), "N", "no more than this many tokens", "all",      \
     OPT_RESULT, .words = "all", .min = 1}
/* clang-format on */

/* Open the model with the tool's threads, limit and kernels; says which tensors are not used. defer_unembed: see
 * sonde_model_options. */
enum sonde_code input_model(struct tool *t, const struct model_input *in, bool defer_unembed, sonde_model **out,
                            sonde_err *err);

/* The model's tokenizer, or the one named. needed false: a model without one gives NULL. Its size is checked
 * against the model's vocabulary. */
enum sonde_code input_tokenizer(struct tool *t, const struct model_input *in, const sonde_model *m,
                                bool needed, sonde_tokenizer **out, sonde_err *err);

/* Is there exactly one source of text? To be asked before the model is opened. */
enum sonde_code input_check_text(const struct text_input *in, sonde_err *err);

/* Documents into contexts. The context is cut to the model's longest only if the user did not set it. */
enum sonde_code input_corpus(struct tool *t, const struct text_input *in, const sonde_model *m,
                             const sonde_tokenizer *tokenizer, sonde_corpus **out, sonde_err *err);

/* Tokens per context: what was asked for, or the model's longest where that is less. */
uint64_t input_context(const struct text_input *in, const sonde_model *m);

/* The path of the text, JSON lines or ids. */
const char *input_path(const struct text_input *in);

#endif
