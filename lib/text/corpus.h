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
    SONDE_PACK_DOC =
        0,            /* a context never crosses a document: long documents are cut, short ones stay short */
    SONDE_PACK_CONCAT /* documents are joined (BOS, where the policy says, before each) and cut every
                         n_context tokens */
};

/* What a document is:
 * - text: the whole file; or, with a separator, what lies between lines equal to it (CRLF lines too). The
 * newline before a separator line and the one at the end of the file belong to no document; empty documents
 * are left out.
 * - JSON lines: one per line that is not blank; an empty string is a document without tokens.
 * - ids: the whole array [n], or each row of [documents, context].
 * Text is ordinary text: control tokens spelled out in it ("<s>") are not recognised, added tokens that are
 * not special are. BOS: SONDE_BOS_AUTO does what the tokenizer does, and with ids nothing (they are what a
 * tokenizer gave). A document or context whose own first id is BOS gets no second one. */

typedef struct sonde_corpus_options {
    const char *text_path, *jsonl_path, *ids_path; /* exactly one */
    const char *field;                             /* of --jsonl; NULL: "text" */
    const char *separator; /* a line that ends a document in --text, or NULL: one document */
    size_t n_context;
    enum sonde_packing packing;
    enum sonde_bos bos;  /* in PACK_DOC the BOS begins every context of a document, as SAELens and
                            TransformerLens do for sequences */
    uint64_t max_tokens; /* 0: all */
    int32_t n_vocab;     /* ids must be below; 0: not checked */
} sonde_corpus_options;

/* Everything in reading order. Token i of context c is token seq_start[c] + i. */
typedef struct sonde_corpus {
    int32_t *id;  /* [n_tokens] */
    int32_t *doc; /* [n_tokens] document of each token */
    uint64_t n_tokens;
    uint64_t *seq_start; /* [n_seqs + 1] */
    uint64_t n_seqs;
    int64_t *doc_range; /* [n_docs, 2] bytes in the source (the whole line of JSON lines); token indices for
                           --ids */
    uint64_t n_docs;    /* up to the last one that max_tokens let in */
    uint64_t n_invalid; /* bytes of invalid UTF-8 in those documents (kept) */
    char sha256[65];    /* of the source file */
} sonde_corpus;

/* Read and tokenise, documents in parallel; the result does not depend on the number of threads. tokenizer
 * may be NULL with ids_path. A last context shorter than the rest is kept. The arrays count against
 * work->budget, which must outlive the corpus. Errors: SONDE_E_IO, SONDE_E_INPUT (with line number for JSON
 * lines; also when there is no token at all), SONDE_E_USAGE, SONDE_E_MEMORY, SONDE_E_STOPPED. */
enum sonde_code sonde_corpus_read(const sonde_corpus_options *o, const sonde_tokenizer *tokenizer,
                                  const sonde_work *work, sonde_corpus **out, sonde_err *err);
void sonde_corpus_free(sonde_corpus *c); /* NULL is fine */

#endif
