/* SPDX-License-Identifier: MIT
 * Scores with the model in the loop: what next-token prediction loses when a hook's values are replaced.
 *
 * A row is a position of a context. Rows that the source's filter leaves out (BOS, the first k, ...) or that
 * lie in another split keep their clean values, and their next-token losses leave every average; so does the
 * last position of a context, which has no next token. Zero and mean ablation replace the same rows. */
#ifndef SONDE_SAE_SPLICE_H
#define SONDE_SAE_SPLICE_H

#include "infer.h"
#include "source.h"

/* Rows to replace. */
typedef struct sonde_rows {
    size_t n;
    const float *x;          /* [n, d_in] values of the input hook */
    const int32_t *id;       /* [n] the tokens; -1: unknown */
    const int32_t *previous; /* [n] the token before each in its context; -1: none, or unknown */
} sonde_rows;

/* y [n, d_out] = what takes the place of the output hook's values. A row's y may depend on nothing but that
 * row. Called from one thread; the pool (or NULL) is its to use. */
typedef enum sonde_code (*sonde_replace_fn)(void *arg, const sonde_rows *rows, sonde_pool *pool, float *y,
                                            sonde_err *err);

typedef struct sonde_replacement {
    const char *name;
    sonde_replace_fn fn;
    void *arg;
} sonde_replacement;

/* The reconstruction of a dictionary: arg is a sonde_replace_encoder, whose f keeps its room between calls.
 */
typedef struct sonde_replace_encoder {
    sonde_encoder *encoder;
    size_t d_in, d_out;
    sonde_sparse f;
} sonde_replace_encoder;
enum sonde_code sonde_replace_by_encoder(void *arg, const sonde_rows *rows, sonde_pool *pool, float *y,
                                         sonde_err *err);

typedef struct sonde_splice_options {
    enum sonde_split split; /* whose rows are replaced and counted */
    uint64_t max_tokens; /* stop after the context in which that many next tokens have been counted; 0: all */
    const double *mean;  /* [d_out] for mean ablation; NULL: it is found by a pass of its own */
    bool mean_of_train;  /* what `mean` is the mean of, where it is given */
    size_t batch_tokens; /* tokens in one pass; 0: as many as 64 MiB of logits hold, at most 4096. At least
                            one    context. It changes no result */
} sonde_splice_options;

/* Nats per next token, and the mean of KL(clean || new) over the vocabulary at the same positions. Losses and
 * KL are float64 sums (exponentials in float32, as in ops/loss.h: about 1e-7 nats). Scores are 1 for the
 * clean model and 0 for the ablated one: ce_loss_score = (CE_zero - CE) / (CE_zero - CE_clean);  kl_div_score
 * = (KL_zero - KL) / KL_zero and NaN where ablation costs nothing. */
typedef struct sonde_splice_score {
    double ce_loss, ce_delta, ce_loss_score, ce_loss_score_mean, kl_div, kl_div_score;
} sonde_splice_score;

typedef struct sonde_splice_base {
    uint64_t n_tokens;   /* next tokens that were predicted: what the averages are over */
    uint64_t n_replaced; /* rows replaced in the contexts that were run */
    double ce_loss_clean;
    sonde_splice_score zero, mean; /* the ablations, scored like any replacement */
    bool mean_of_train; /* mean ablation: the mean over the train split; false: over the rows of `split` */
} sonde_splice_base;

/* Run every context of a model source that has rows in the split: clean, ablated to zero, ablated to the
 * mean, and with each of n replacements. score [n]. Memory does not grow with the corpus; the bits depend
 * neither on threads nor on the batch. Errors: SONDE_E_USAGE (a source without a model, a bidirectional
 * model, a square hook, no row with a next token), SONDE_E_NUMERIC (a loss that is not finite: replacement
 * and context named), SONDE_E_MEMORY, SONDE_E_STOPPED, what a replacement returns. */
enum sonde_code sonde_splice(sonde_source *s, const sonde_splice_options *o,
                             const sonde_replacement *replacement, size_t n, const sonde_work *work,
                             sonde_splice_base *base, sonde_splice_score *score, sonde_err *err);

/* mean [d_out] over the rows of a split, of the output hook's values; n_rows how many. Errors: SONDE_E_USAGE
 * if there is none. */
enum sonde_code sonde_splice_mean(sonde_source *s, enum sonde_split split, const sonde_work *work,
                                  double *mean, uint64_t *n_rows, sonde_err *err);

#endif
