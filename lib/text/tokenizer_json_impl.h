/* SPDX-License-Identifier: MIT
 * The parts of a tokenizer.json, each read by one function. */
#ifndef SONDE_TEXT_TOKENIZER_JSON_IMPL_H
#define SONDE_TEXT_TOKENIZER_JSON_IMPL_H

#include "tokenizer_impl.h"

struct json_reader {
    sonde_tokenizer *t;
    const char *what; /* the file, for messages */
    bool byte_level;  /* a ByteLevel pre-tokenizer: text is tokenised by bytes */
};

/* The elements of a component: itself, or the members of a Sequence (of Sequences), in order. */
#define JSON_PARTS 24
struct json_parts {
    const json_t *part[JSON_PARTS];
    const char *type[JSON_PARTS];
    size_t n;
};
enum sonde_code json_parts(const struct json_reader *r, const json_t *component, const char *key,
                           const char *members, struct json_parts *out, sonde_err *err);

/* "normalizer 'Nmt' is not implemented" */
enum sonde_code json_refuse(const struct json_reader *r, const char *component, const char *type,
                            sonde_err *err);

/* A string of obj, copied into the tokenizer's arena. Errors: SONDE_E_INPUT if it is missing. */
enum sonde_code json_text(const struct json_reader *r, const json_t *obj, const char *key, const char **s,
                          size_t *n, sonde_err *err);

enum sonde_code json_normalizer(struct json_reader *r, const json_t *root, sonde_err *err);
enum sonde_code json_pre_tokenizer(struct json_reader *r, const json_t *root, sonde_err *err);
enum sonde_code json_decoder(struct json_reader *r, const json_t *root, sonde_err *err);
enum sonde_code json_post_processor(struct json_reader *r, const json_t *root, sonde_err *err);

#endif
