/* SPDX-License-Identifier: MIT
 * The three steps behind a corpus: find the documents, get their ids, pack the ids into contexts. */
#ifndef SONDE_TEXT_CORPUS_IMPL_H
#define SONDE_TEXT_CORPUS_IMPL_H

#include "../file/map.h"
#include "corpus.h"
#include "grow_impl.h"

/* ---- packing (corpus_pack.c) ------------------------------------------------------------------- */

/* A corpus in the making; the public one is its first member, so that a pointer to it is a pointer to this.
 */
struct packer {
    sonde_corpus pub;
    struct grow id, doc, seq, range;
    const sonde_corpus_options *o;
    int32_t bos;      /* to put before documents (and before each context in PACK_DOC), -1: none */
    uint64_t max;     /* tokens */
    int64_t id_bound; /* every id must be below */
    const char *path; /* of the source, for messages */
    uint64_t n_since; /* tokens since the stop flag was looked at */
    const sonde_work *work;
};

/* Ids as they come: int32, or int64 from a file; any alignment. */
struct ids {
    const void *p;
    bool wide;
    size_t n;
    size_t first; /* index of p[0] in the source, for messages */
};

/* Room for the byte ranges of one more document, and the range itself. SONDE_E_INPUT over 2^31 - 1 documents.
 */
enum sonde_code sonde_pack_range(struct packer *p, int64_t begin, int64_t end, sonde_err *err);

/* Append the ids of document d. Documents come in order; one without ids leaves no trace. */
enum sonde_code sonde_pack_document(struct packer *p, int32_t d, const struct ids *ids, sonde_err *err);

static inline bool sonde_pack_full(const struct packer *p)
{
    return p->pub.n_tokens >= p->max;
}

/* Close the last context, cut the documents that were not reached, publish the arrays. */
enum sonde_code sonde_pack_finish(struct packer *p, sonde_err *err);

/* ---- documents (corpus_split.c) ---------------------------------------------------------------- */

/* Byte ranges of the documents of a text file: everything, or what lies between separator lines. */
enum sonde_code sonde_split_text(struct packer *p, const sonde_map *m, sonde_err *err);

/* Byte ranges of the lines of a JSON lines file that are not blank. */
enum sonde_code sonde_split_jsonl(struct packer *p, const sonde_map *m, sonde_err *err);

/* ---- tokenising (corpus_encode.c) -------------------------------------------------------------- */

/* Encode the documents of p->range with the threads of p->work and pack them. */
enum sonde_code sonde_encode_documents(struct packer *p, const sonde_map *m, const sonde_tokenizer *tokenizer,
                                       sonde_err *err);

#endif
