/* SPDX-License-Identifier: MIT
 * Tokenizers: text to ids and back, with the byte range of every token. */
#ifndef SONDE_TEXT_TOKENIZER_H
#define SONDE_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/arena.h"
#include "../base/error.h"
#include "../file/tensors.h"

typedef struct sonde_tokenizer sonde_tokenizer;

/* Growing arrays of the same length n (malloc'd). begin, end: byte range in the text given to encode; a token
 * that stands for no text (BOS, an added prefix) has an empty range. Parts of one character split over
 * several tokens each carry their own byte or bytes. Ranges never go backwards. Where a normaliser changes a
 * span (a letter and its accents composed, a run of spaces joined), every token of that span carries the
 * whole span. */
typedef struct sonde_tokens {
    int32_t *id;
    uint32_t *begin, *end;
    size_t n, cap;
} sonde_tokens;
void sonde_tokens_free(sonde_tokens *t);
enum sonde_code sonde_tokens_push(sonde_tokens *t, int32_t id, uint32_t begin, uint32_t end, sonde_err *err);

enum sonde_bos { SONDE_BOS_AUTO = 0, SONDE_BOS_ALWAYS, SONDE_BOS_NEVER };

/* Open from a model directory (tokenizer.json, else vocab.json + merges.txt or encoder.json + merges.txt,
 * else tokenizer.model, else tokenizer.bin) or from one such file, or a GGUF. BOS/EOS come from the
 * post-processor, tokenizer_config.json or the file itself. Errors: SONDE_E_IO, SONDE_E_INPUT,
 * SONDE_E_MEMORY; a pipeline element that is not implemented is SONDE_E_INPUT and named. */
enum sonde_code sonde_tokenizer_open(const char *path, sonde_budget *budget, sonde_tokenizer **out,
                                     sonde_err *err);
enum sonde_code sonde_tokenizer_from_gguf(const sonde_tensors *gguf, sonde_budget *budget,
                                          sonde_tokenizer **out, sonde_err *err);
void sonde_tokenizer_close(sonde_tokenizer *t); /* NULL is fine */

/* Append the ids of text (any bytes, NUL and invalid UTF-8 included; at most 2^32 - 1) to *out. Added tokens
 * in the text are recognised only with `special` (control tokens in ordinary text are text); non-special
 * added tokens always. The same bytes always give the same ids. Thread-safe on one tokenizer. O(n log n).
 * BOS: auto puts what the tokenizer's own template says around the text, always adds a BOS if the template
 * has none (SONDE_E_USAGE if the tokenizer has none), never adds nothing; a text that begins with the BOS
 * token spelt out (special) does not get a second one. Each byte that is not UTF-8 is a character that is no
 * letter, digit or space. Errors: SONDE_E_INPUT if the vocabulary cannot express a byte of the text (such
 * vocabularies are rare; Hugging Face drops the byte), or if a pattern from the file takes too long on it;
 * then *out is as before. */
enum sonde_code sonde_tokenizer_encode(const sonde_tokenizer *t, const char *text, size_t n,
                                       enum sonde_bos bos, bool special, sonde_tokens *out, sonde_err *err);

/* The exact bytes that ids stand for, as the tokenizer's decoder gives them (the leading space that a
 * SentencePiece prefix added is removed; special tokens are skipped unless `special`). *out is malloc'd,
 * NUL-terminated. An id outside the vocabulary: SONDE_E_USAGE. */
enum sonde_code sonde_tokenizer_decode(const sonde_tokenizer *t, const int32_t *id, size_t n, bool special,
                                       char **out, size_t *n_out, sonde_err *err);

/* The bytes of one token, on its own (leading space kept: "▁the" is " the"); special tokens by their name.
 * An id that is a hole in the vocabulary has 0 bytes. */
const char *sonde_tokenizer_bytes(const sonde_tokenizer *t, int32_t id, size_t *n);

int32_t sonde_tokenizer_size(const sonde_tokenizer *t);   /* largest id + 1 */
int32_t sonde_tokenizer_bos_id(const sonde_tokenizer *t); /* -1 if there is none */
int32_t sonde_tokenizer_eos_id(const sonde_tokenizer *t);
bool sonde_tokenizer_adds_bos(const sonde_tokenizer *t); /* what SONDE_BOS_AUTO does */
bool sonde_tokenizer_is_special(const sonde_tokenizer *t, int32_t id);
const char *sonde_tokenizer_kind(const sonde_tokenizer *t); /* "bpe (byte level)", "sentencepiece bpe" */
const char *
sonde_tokenizer_sha256(const sonde_tokenizer *t); /* of the file(s) it was read from, in a fixed order */

#endif
