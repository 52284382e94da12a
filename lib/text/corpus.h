/* SPDX-License-Identifier: MIT
 * A corpus: documents from text, JSON lines or ids, packed into contexts of tokens. */
#ifndef SONDE_TEXT_CORPUS_H
#define SONDE_TEXT_CORPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/work.h"
#include "tokenizer.h"

enum sonde_packing {
    SONDE_PACK_DOC = 0, /* a context never crosses a document: long documents are cut, short ones stay short */
    SONDE_PACK_CONCAT   /* documents are joined (BOS, where the policy says, before each) and cut every n_context tokens */
};

typedef struct sonde_corpus_options {
    const char *text_path, *jsonl_path, *ids_path; /* exactly one */
    const char *field;                             /* of --jsonl; NULL: "text" */
    const char *separator;                         /* a line that ends a document in --text, or NULL: one document */
    size_t n_context;
    enum sonde_packing packing;
    enum sonde_bos bos;  /* in PACK_DOC the BOS begins every context of a document, as SAELens and TransformerLens do for sequences */
    uint64_t max_tokens; /* 0: all */
    int32_t n_vocab;     /* ids must be below; 0: not checked */
} sonde_corpus_options;

/* Everything in reading order. Token i of context c is token seq_start[c] + i. */
typedef struct sonde_corpus {
    int32_t *id;         /* [n_tokens] */
    int32_t *doc;        /* [n_tokens] document of each token */
    uint64_t n_tokens;
    uint64_t *seq_start; /* [n_seqs + 1] */
    uint64_t n_seqs;
    int64_t *doc_range;  /* [n_docs, 2] bytes in the source; token indices for --ids */
    uint64_t n_docs;
    uint64_t n_invalid;  /* bytes of invalid UTF-8 met (kept) */
    char sha256[65];     /* of the source file */
} sonde_corpus;

/* Read and tokenise. tokenizer may be NULL with ids_path. A last context shorter than the rest is kept.
 * Errors: SONDE_E_IO, SONDE_E_INPUT (with line number for JSON lines), SONDE_E_USAGE, SONDE_E_MEMORY, SONDE_E_STOPPED. */
enum sonde_code sonde_corpus_read(const sonde_corpus_options *o, const sonde_tokenizer *tokenizer, const sonde_work *work,
                                  sonde_corpus **out, sonde_err *err);
void sonde_corpus_free(sonde_corpus *c); /* NULL is fine */

#endif
