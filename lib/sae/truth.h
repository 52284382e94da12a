/* SPDX-License-Identifier: MIT
 * A dictionary against the truth that made its data: how near its rows are to the true directions, and how
 * well each latent tells whether its true one is active.
 *
 * g_i, i < N: true directions; w_j, j < F: decoder rows; cosines with a row of zeros are 0.
 *   mmcs          = mean_i max_j cos(g_i, w_j)
 *   mmcs_weighted = the same, weighted by how often i is active
 *   recall_at_0.9 = share of i with max_j cos(g_i, w_j) > 0.9
 *   mcc           = mean of |cos| over the one-to-one matching of min(N, F) pairs with the largest sum
 *   uniqueness    = number of different b(j) over F;  b(j) = argmax_i |cos(g_i, w_j)|, the first of equals
 *   precision, recall, f1, accuracy: of latent j (active: not 0) as a detector of b(j) being active, each
 * averaged over all j; a ratio with nothing below the line is 0.  f1_matched: over the pairs of mcc instead.
 * mcc, uniqueness and the four of detection are those of SAELens' SynthSAEBench. */
#ifndef SONDE_SAE_TRUTH_H
#define SONDE_SAE_TRUTH_H

#include "../base/work.h"
#include "infer.h"
#include "source.h"

typedef struct sonde_truth sonde_truth;

/* What there is. direction and frequency live as long as the truth. */
typedef struct sonde_truth_info {
    size_t n, d;
    const float *direction; /* [N, d] */
    const float *frequency; /* [N] or NULL: not known */
    bool has_rows;          /* which latents are active in each row is known, for n_rows rows */
    uint64_t n_rows;
} sonde_truth_info;

/* The group /truth of an HDF5 file as sonde_synth_write makes it; only /truth/directions [N, d] is required.
 * Errors: SONDE_E_IO, SONDE_E_INPUT (dataset and what is wrong with it), SONDE_E_NUMERIC, SONDE_E_MEMORY. */
enum sonde_code sonde_truth_open(const char *path, sonde_budget *budget, sonde_truth **out, sonde_err *err);

/* Directions that are in memory (and are not copied); frequency may be NULL. */
enum sonde_code sonde_truth_of(const float *direction, size_t n, size_t d, const float *frequency,
                               sonde_budget *budget, sonde_truth **out, sonde_err *err);
void sonde_truth_close(sonde_truth *t); /* NULL is fine */
sonde_truth_info sonde_truth_about(const sonde_truth *t);

/* ---- directions ------------------------------------------------------------------------------ */

typedef struct sonde_match {
    size_t n_true, n_latents;
    double mmcs, mmcs_weighted; /* weighted: NaN where frequencies are not known */
    double recall_at_0_9, mcc, uniqueness;
    float *best_cosine;     /* [N] max_j cos(g_i, w_j) */
    uint32_t *best_latent;  /* [N] the first j of that */
    float *latent_cosine;   /* [F] |cos(g_b(j), w_j)| */
    uint32_t *latent_truth; /* [F] b(j) */
    uint32_t *pair;         /* [F] the true direction matched to j; UINT32_MAX: none */
    sonde_arena *arena;
} sonde_match;

/* w [F, d]. Takes 4 N F bytes, and O(min^2 max) operations for the matching. The same bits for any number of
 * threads. Errors: SONDE_E_USAGE (widths differ), SONDE_E_MEMORY, SONDE_E_NUMERIC, SONDE_E_STOPPED. */
enum sonde_code sonde_truth_match(const sonde_truth *t, const float *w, size_t n_latents, size_t d,
                                  const sonde_kernels *kernels, const sonde_work *work, sonde_match **out,
                                  sonde_err *err);
void sonde_match_free(sonde_match *m); /* NULL is fine */

/* ---- activity -------------------------------------------------------------------------------- */

typedef struct sonde_detection {
    uint64_t n_rows;
    double true_l0; /* mean number of true latents active in a row */
    double precision, recall, f1, accuracy;
    double f1_matched;
    double *f1_of; /* [F] of each latent for b(j) */
    sonde_arena *arena;
} sonde_detection;

void sonde_detection_free(sonde_detection *d); /* NULL is fine */

/* Adding up by hand. row [n]: numbers of the rows in the truth's file; f: their latents. t and m must outlive
 * it. Errors: SONDE_E_USAGE (no rows are known, a row that is not there), SONDE_E_INPUT (damaged truth),
 * SONDE_E_IO. */
typedef struct sonde_detector sonde_detector;
enum sonde_code sonde_detector_new(sonde_truth *t, const sonde_match *m, sonde_budget *budget,
                                   sonde_detector **out, sonde_err *err);
enum sonde_code sonde_detector_add(sonde_detector *d, const uint64_t *row, size_t n, const sonde_sparse *f,
                                   sonde_err *err);
enum sonde_code sonde_detector_end(const sonde_detector *d, sonde_budget *budget, sonde_detection **out,
                                   sonde_err *err);
void sonde_detector_free(sonde_detector *d); /* NULL is fine */

/* A dictionary over a pass of a source whose rows are those of the truth's file. max_rows 0: all of the
 * split. */
enum sonde_code sonde_truth_detect(sonde_truth *t, const sonde_match *m, const sonde_dict *dict,
                                   sonde_encoder *e, sonde_source *s, enum sonde_split split,
                                   uint64_t max_rows, const sonde_work *work, sonde_detection **out,
                                   sonde_err *err);

#endif
