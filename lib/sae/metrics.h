/* SPDX-License-Identifier: MIT
 * How well a dictionary describes activations: reconstruction, sparsity and how often each latent fires.
 *
 * y is what should come out (the input itself, or a transcoder's target), h what came out, e = y - h, ybar
 * the mean of y; mean is over rows, sums over the d dimensions. mse                          = mean ||e||^2
 *   explained_variance           = 1 - mean ||e||^2 / mean ||y - ybar||^2
 *   explained_variance_legacy    = mean (1 - ||e||^2 / ||y - ybar||^2)      rows with y = ybar left out
 *   frac_variance_explained      = 1 - sum_d var(e_d) / sum_d var(y_d)
 *   cossim                       = mean <y, h> / (||y|| ||h||)              0 where one of them is 0
 *   l2_ratio                     = mean ||h|| / ||y||                       rows with ||y|| < 1e-4 left out
 *   relative_reconstruction_bias = mean ||h||^2 / mean <y, h>               1: no shrinkage
 * Two passes, sums in float64 with rows in order: neither threads nor the sizes of the pieces change a bit,
 * and memory does not grow with the number of rows. NaN stands where nothing was left to divide by. */
#ifndef SONDE_SAE_METRICS_H
#define SONDE_SAE_METRICS_H

#include "infer.h"
#include "source.h"

/* Density histogram: log10(frequency + 1e-10) in bins of a quarter from -10 to 0; the first holds the dead.
 */
#define SONDE_DENSITY_BINS 40

static inline double sonde_density_edge(int i)
{
    return -10.0 + 0.25 * i;
}

typedef struct sonde_metrics {
    uint64_t n_rows;
    size_t n_latents, d; /* d: width of y; n_latents 0: measured without latents */

    double mse, mse_per_element;
    double explained_variance, explained_variance_legacy, frac_variance_explained, fvu;
    double cossim, l2_norm_in, l2_norm_out, l2_ratio, relative_reconstruction_bias;
    double variance; /* mean ||y - ybar||^2 */

    double l0, l1;          /* mean number and mean sum of the active latents of a row */
    uint64_t dead_features; /* never active on these rows */
    double frac_alive;
    uint64_t below_1e_5, below_1e_6; /* latents with a frequency below that, the dead ones too */
    double freq_over_1_percent, freq_over_10_percent;                       /* share of latents */
    double normalized_freq_over_1_percent, normalized_freq_over_10_percent; /* their share of all activity */
    uint64_t density[SONDE_DENSITY_BINS];

    uint64_t *fired;      /* [F] rows on which a latent was active */
    double *frequency;    /* [F] fired / n_rows */
    double *mean;         /* [F] over all rows */
    double *mean_nonzero; /* [F] over the rows on which it was active; 0 if none */
    float *max;           /* [F] */
    double *mean_y;       /* [d] ybar */

    sonde_arena *arena;
} sonde_metrics;

void sonde_metrics_free(sonde_metrics *m); /* NULL is fine */

/* ---- adding up by hand (baselines, data that is in memory) ----------------------------------- */

typedef struct sonde_tally sonde_tally;

/* n_latents 0 for predictions that have none. Errors: SONDE_E_USAGE (d 0), SONDE_E_MEMORY. */
enum sonde_code sonde_tally_new(size_t n_latents, size_t d, sonde_budget *budget, sonde_tally **out,
                                sonde_err *err);
void sonde_tally_free(sonde_tally *t); /* NULL is fine */

/* First pass: n rows of y (row stride ldy) into the mean. Errors: SONDE_E_USAGE after the second has begun.
 */
enum sonde_code sonde_tally_mean(sonde_tally *t, const float *y, size_t ldy, size_t n, sonde_pool *pool,
                                 sonde_err *err);

/* Instead of the first pass: ybar [d] as another tally found it on the same rows. */
enum sonde_code sonde_tally_set_mean(sonde_tally *t, const double *mean, sonde_err *err);

/* ybar [d] of the first pass. */
const double *sonde_tally_get_mean(sonde_tally *t);

/* Second pass: the same rows with h [n, d] (row stride ldh) and their latents f (NULL without latents).
 * Errors: SONDE_E_USAGE (a mean over no rows, f of another shape), SONDE_E_NUMERIC (a row that is not finite,
 * named), SONDE_E_MEMORY. */
enum sonde_code sonde_tally_add(sonde_tally *t, const float *y, size_t ldy, const float *h, size_t ldh,
                                size_t n, const sonde_sparse *f, sonde_pool *pool, sonde_err *err);

/* The numbers. Errors: SONDE_E_USAGE (no rows, or not those of the first pass), SONDE_E_MEMORY. */
enum sonde_code sonde_tally_end(const sonde_tally *t, sonde_budget *budget, sonde_metrics **out,
                                sonde_err *err);

/* ---- a dictionary over a pass of a source ---------------------------------------------------- */

/* Rows at a time for a dictionary: the latents of one piece stay below 256 MiB even if all are active. */
size_t sonde_pass_rows_for(const sonde_dict *d);

/* Rows that a pass over the split gives, at most max_rows (0: all); an upper bound where rows are left out by
 * their norm. */
uint64_t sonde_pass_n_rows(const sonde_source *s, enum sonde_split split, uint64_t max_rows);

/* e packs d. max_rows 0: all rows of the split, else the first so many. Errors: SONDE_E_USAGE (widths of
 * source and dictionary differ: both named; the split has no rows), those of the pass, SONDE_E_NUMERIC,
 * SONDE_E_MEMORY, SONDE_E_STOPPED. */
enum sonde_code sonde_metrics_measure(const sonde_dict *d, sonde_encoder *e, sonde_source *s,
                                      enum sonde_split split, uint64_t max_rows, const sonde_work *work,
                                      sonde_metrics **out, sonde_err *err);

/* Do the widths fit? Errors: SONDE_E_USAGE naming both. */
enum sonde_code sonde_dict_fits(const sonde_dict *d, const sonde_source *s, sonde_err *err);

#endif
