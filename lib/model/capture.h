/* SPDX-License-Identifier: MIT
 * Capture: a corpus through a model, activations at hook points into acts.h5 (layout: file/store.h and the
 * README). */
#ifndef SONDE_MODEL_CAPTURE_H
#define SONDE_MODEL_CAPTURE_H

#include "../file/store.h"
#include "../text/corpus.h"
#include "hooks.h"
#include "model.h"

typedef struct sonde_capture_options {
    const sonde_hook_list *hooks; /* sorted; per-token sites go to /acts, square ones to /attn */
    enum sonde_dtype dtype; /* F32, F16 or BF16; values beyond the type's range are saturated and counted */
    size_t skip_first;      /* positions of each context that get no row */
    bool shuffle;    /* contexts in Philox order, rows permuted within windows of SONDE_CAPTURE_WINDOW */
    double holdout;  /* share of documents marked as held out, 0 <= holdout < 1 */
    size_t n_logits; /* top log-probabilities kept per token; 0: none */
    bool loss;
    uint64_t max_seqs; /* square sites: the first max_seqs contexts in reading order */
    uint64_t seed;
    size_t batch_tokens;    /* tokens in one pass of one thread; 0: 512 (at least one context) */
    uint64_t journal_bytes; /* 0: 64 MiB */
    bool overwrite, resume;
    const sonde_store_attr *attr; /* more root attributes (dataset, packing, command, ...) */
    size_t n_attrs;
} sonde_capture_options;

#define SONDE_CAPTURE_WINDOW 65536

/* What a capture will take; also printed by --dry-run. */
typedef struct sonde_capture_plan {
    uint64_t n_tokens, n_seqs, n_docs, n_rows, n_heldout_docs;
    uint64_t file_bytes;   /* data, without HDF5's few KiB */
    uint64_t row_bytes;    /* of one row over all per-token hooks */
    double flops;          /* of the forward passes, as deep as the hooks need */
    uint64_t memory_bytes; /* workspace of all threads, weights not counted */
} sonde_capture_plan;

enum sonde_code sonde_capture_plan_make(const sonde_model *m, const sonde_corpus *corpus,
                                        const sonde_capture_options *o, int n_threads,
                                        sonde_capture_plan *plan, sonde_err *err);

typedef struct sonde_capture_result {
    uint64_t n_rows, n_resumed_seqs;
    uint64_t *saturated; /* per hook of options.hooks, malloc'd */
    double mean_loss;    /* with loss; NaN otherwise */
    uint64_t n_losses;
    char note[400]; /* what resuming has to tell the user, or "" */
} sonde_capture_result;

/* Which of n_docs documents are held out: split[d] is 1 or 0, about a share `holdout` of them, at least one
 * and not all where there are two. A function of the seed alone. */
void sonde_capture_split(uint64_t n_docs, double holdout, uint64_t seed, uint8_t *split, uint64_t *n_heldout);

/* Run it. result is filled in as far as it came; the caller frees saturated. tokenizer gives /vocab
 * and the attributes bos_id (-1: none) and special_ids ("0-2,50256"); NULL leaves them out. The same model, corpus and options give the same bytes, whatever the threads, and after any
 * kill and resume. Errors: SONDE_E_USAGE (nothing to store, context too long, square site without max_seqs),
 * SONDE_E_INPUT (an id outside the vocabulary), SONDE_E_IO, SONDE_E_MEMORY, SONDE_E_NUMERIC (naming hook,
 * document and position), SONDE_E_STOPPED (journalled; resume continues). */
enum sonde_code sonde_capture(const sonde_model *m, const sonde_corpus *corpus,
                              const sonde_tokenizer *tokenizer, const sonde_capture_options *o,
                              const sonde_work *work, const char *path, sonde_capture_result *result,
                              sonde_err *err);

#endif
