/* SPDX-License-Identifier: MIT
 * What a dictionary has to beat: reconstructions that have learned nothing about the model.
 *
 * Each is fitted to rows of the train split and then replaces rows like a dictionary does (sae/splice.h), so
 * that it gets the same scores: PCA-k, the projection on the k leading principal components; and the bigram
 * table, the mean of the rows with the same token after the same token, which knows the text and not one
 * activation. */
#ifndef SONDE_SAE_BASELINE_H
#define SONDE_SAE_BASELINE_H

#include "metrics.h"
#include "splice.h"

/* ---- PCA ------------------------------------------------------------------------------------- */

typedef struct sonde_pca sonde_pca;

enum sonde_code sonde_pca_new(size_t d, const sonde_kernels *kernels, sonde_budget *budget, sonde_pca **out,
                              sonde_err *err);
void sonde_pca_free(sonde_pca *p); /* NULL is fine */

/* n rows of x [n, d] into the covariance: float64 sums over fixed blocks of 256 rows, so that it depends on
 * nothing but the order of the rows. */
void sonde_pca_add(sonde_pca *p, const float *x, size_t n, sonde_pool *pool);

/* The k leading eigenvectors, by LAPACK: their last bits may depend on the CPU and on OpenBLAS' threads. May
 * be called again with another k. Errors: SONDE_E_USAGE (k > d; no row), SONDE_E_NUMERIC, SONDE_E_MEMORY. */
enum sonde_code sonde_pca_solve(sonde_pca *p, size_t k, sonde_err *err);

/* Of the last solution (NULL and 0 without one): variance [k] of the components, descending; their sum over
 * the trace is the explained variance of the rows added. */
const double *sonde_pca_variance(const sonde_pca *p);
double sonde_pca_trace(const sonde_pca *p);

/* y = mean + (x - mean) V V^T. */
enum sonde_code sonde_replace_by_pca(void *pca, const sonde_rows *rows, sonde_pool *pool, float *y,
                                     sonde_err *err);

/* ---- bigram means ---------------------------------------------------------------------------- */

typedef struct sonde_bigram sonde_bigram;

/* max_bytes (0: 512 MiB) bounds the table. Pairs and single tokens are admitted in the order in which they
 * come; pairs may take three quarters of the room. */
enum sonde_code sonde_bigram_new(size_t d, size_t max_bytes, sonde_budget *budget, sonde_bigram **out,
                                 sonde_err *err);
void sonde_bigram_free(sonde_bigram *b); /* NULL is fine */

/* Rows with their tokens: y [n, d] is what the table is to give for them. Errors: SONDE_E_MEMORY. */
enum sonde_code sonde_bigram_add(sonde_bigram *b, const sonde_rows *rows, const float *y, sonde_err *err);

typedef struct sonde_bigram_size {
    uint64_t n_rows;    /* added */
    uint64_t n_pairs;   /* in the table */
    uint64_t n_tokens;  /* single tokens in the table */
    uint64_t n_refused; /* rows whose pair found no room */
} sonde_bigram_size;
sonde_bigram_size sonde_bigram_about(const sonde_bigram *b);

/* y = the mean of the pair; where the pair is unknown, of the token; where that is unknown too, of all rows.
 * Errors: SONDE_E_USAGE if no row was added. */
enum sonde_code sonde_replace_by_bigram(void *bigram, const sonde_rows *rows, sonde_pool *pool, float *y,
                                        sonde_err *err);

/* ---- from a source --------------------------------------------------------------------------- */

typedef struct sonde_baseline_options {
    bool pca, bigram;
    size_t max_bytes; /* of the bigram table; 0: 512 MiB */
} sonde_baseline_options;

typedef struct sonde_baselines {
    sonde_pca *pca;       /* NULL: not asked for, or a transcoder's source */
    sonde_bigram *bigram; /* NULL: not asked for, or tokens are unknown */
    double *mean;         /* [d_out] of the rows */
    uint64_t n_rows;
    bool of_train; /* fitted to the train split; false: there is none, so to all rows */
} sonde_baselines;

/* Fit them in one pass over the train split. *out is to be freed also after an error. */
enum sonde_code sonde_baselines_fit(sonde_source *s, const sonde_baseline_options *o, const sonde_work *work,
                                    sonde_baselines *out, sonde_err *err);
void sonde_baselines_free(sonde_baselines *b);

/* Reconstruction of the first max_rows rows of a split (0: all) by each of n replacements: out[k] as
 * sonde_metrics_measure gives it, without latents. mean [d_out]: of those rows, as the metrics of a
 * dictionary have it (mean_y); NULL: a pass of its own finds it. Errors: SONDE_E_USAGE if the split has no
 * row, what a replacement returns. */
enum sonde_code sonde_reconstruct(sonde_source *s, enum sonde_split split, uint64_t max_rows,
                                  const double *mean, const sonde_replacement *replacement, size_t n,
                                  const sonde_work *work, sonde_metrics **out, sonde_err *err);

#endif
