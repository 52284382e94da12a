/* SPDX-License-Identifier: MIT
 * Activations with known truth: sparse sums of fixed directions.
 *
 *   x = sum over active i of value_i g_i + bias + noise;   g_i unit vectors in R^d, N of them
 *
 * Everything is drawn from Philox streams forked by name and row, with arithmetic of our own: any row can be
 * made alone, and the bits depend on the options only. Two sets that differ in one option (noise, say) agree
 * in all that this option does not touch. */
#ifndef SONDE_SAE_SYNTH_H
#define SONDE_SAE_SYNTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/tensor.h"
#include "../base/work.h"
#include "../num/cpu.h"

/* How probabilities p_i fall over the latents i = 0 .. N-1. */
enum sonde_synth_law {
    SONDE_SYNTH_UNIFORM = 0, /* all equal */
    SONDE_SYNTH_ZIPF,        /* (i + 1)^-zipf */
    SONDE_SYNTH_GEOMETRIC,   /* decay^i */
    SONDE_SYNTH_LINEAR,      /* N - i */
    SONDE_SYNTH_N_LAWS
};

/* What an active latent is worth; s_i runs linearly from scale_first to scale_last over the latents. */
enum sonde_synth_magnitude {
    SONDE_SYNTH_U01 = 0,     /* s_i U(0, 1) */
    SONDE_SYNTH_HALF_NORMAL, /* s_i |N(0, 1)| */
    SONDE_SYNTH_EXPONENTIAL, /* s_i Exp(1) */
    SONDE_SYNTH_CONSTANT,    /* s_i */
    SONDE_SYNTH_NORMAL, /* max(0, s_i + t_i N(0, 1)), t_i = |N(spread, spread_std^2)| fixed; at 0 it is not
                           active */
    SONDE_SYNTH_N_MAGNITUDES
};

typedef struct sonde_synth_options {
    size_t dim, truth; /* d, N */
    uint64_t seed;
    enum sonde_synth_law law;
    double zipf, decay;
    double active;          /* sum of p_i; 0: p_first and p_last say it */
    double p_first, p_last; /* p_i = p_last + (p_first - p_last) (law_i - law_N-1) / (law_0 - law_N-1) */
    enum sonde_synth_magnitude magnitude;
    double scale_first, scale_last; /* 0: 1 */
    double spread, spread_std;
    /* Gaussian copula of a factor model: latent i wants to be active where <l_i, e> + sqrt(1 - |l_i|^2) n_i
     * is among its p_i largest, e ~ N(0, 1)^rank shared by the row, l_i = correlation N(0, 1)^rank with
     * |l_i|^2 <= 0.99. */
    size_t rank; /* 0: independent */
    double correlation;
    /* The first roots (branch^(depth+1) - 1) / (branch - 1) latents are trees, breadth first: roots, their
     * children, theirs. A child is active only with its parent. siblings_free: children of an active parent
     * are independent with p_child / p_parent (at most 1); otherwise at most one of them is active, and where
     * sum p_child > p_parent all are scaled down. */
    size_t roots, branch, depth; /* roots 0: none */
    bool siblings_free;
    bool scale_children;     /* a child's value is multiplied by its parent's over the parent's mean */
    size_t orthogonal_steps; /* Adam on sum_{i != j} <g_i, g_j>^2 + N sum (|g_i|^2 - 1)^2; with N <= d any
                                number of steps gives exactly orthogonal directions */
    double orthogonal_lr;    /* 0: 0.01 */
    double noise;            /* standard deviation of every coordinate */
    double bias;             /* norm of a random vector that is added to every row */
} sonde_synth_options;

/* Read-only after sonde_synth_new. */
typedef struct sonde_synth {
    sonde_synth_options o;
    float *direction;    /* [N, d], rows of norm 1 */
    float *bias;         /* [d] */
    double *probability; /* [N] of being active, after the hierarchy (exact for rank 0 without
                            SONDE_SYNTH_NORMAL) */
    double *mean;        /* [N] mean value when active (before SONDE_SYNTH_NORMAL is cut at 0) */
    double *spread;      /* [N] SONDE_SYNTH_NORMAL only */
    int32_t *parent;     /* [N] -1: none */
    float *factor;       /* [rank, N] l_i */
    double mean_active;  /* sum of probability */
    size_t n_squeezed; /* latents whose probability is below what was asked: their siblings fill the parent */
    struct sonde_synth_plan *plan;
    sonde_arena *arena;
} sonde_synth;

/* Errors: SONDE_E_USAGE (the option, its value and what it may be), SONDE_E_MEMORY, SONDE_E_STOPPED. work may
 * be NULL. */
enum sonde_code sonde_synth_new(const sonde_synth_options *o, const sonde_kernels *kernels,
                                const sonde_work *work, sonde_synth **out, sonde_err *err);
void sonde_synth_free(sonde_synth *s); /* NULL is fine */

/* Scratch of one thread. */
typedef struct sonde_synth_space sonde_synth_space;
enum sonde_code sonde_synth_space_new(const sonde_synth *s, sonde_budget *budget, sonde_synth_space **out,
                                      sonde_err *err);
void sonde_synth_space_free(sonde_synth_space *p);

/* One row. Returns the number of active latents; latent (ascending) and value hold them in the space until
 * its next use. x [d] or NULL. */
size_t sonde_synth_row(const sonde_synth *s, uint64_t row, sonde_synth_space *space, const uint32_t **latent,
                       const float **value, float *x);

/* Rows [first, first + n) dense, x [n, d]. */
enum sonde_code sonde_synth_rows(const sonde_synth *s, uint64_t first, size_t n, const sonde_work *work,
                                 float *x, sonde_err *err);

/* ---- as a file ------------------------------------------------------------------------------- */

typedef struct sonde_synth_file {
    uint64_t n_rows;
    double holdout;         /* share of rows held out: the last ones, as a second document */
    enum sonde_dtype dtype; /* F32, F16, BF16 */
    bool overwrite;
    const char *command; /* attribute `command`; NULL: none */
} sonde_synth_file;

typedef struct sonde_synth_result {
    uint64_t n_heldout, n_active; /* rows; entries over all rows */
    uint64_t n_saturated;
    uint64_t file_bytes; /* of the datasets */
} sonde_synth_result;

/* An activation file with the truth inside:
 *   /acts/synthetic [rows, d]                        /stats/synthetic/...
 *   /truth/directions float32 [N, d]                 /truth/bias float32 [d]
 *   /truth/parent int32 [N]                          -1: none
 *   /truth/probability, /truth/frequency float32 [N] designed; share of this file's rows
 *   /truth/indptr int64 [rows + 1], /truth/indices int32, /truth/values float32   active latents of each row
 *   /rows/token, /tokens/doc, /docs/range, /docs/split   where rows are held out: "tokens" are rows, the
 *                                                    first document those to train on
 * Rows are made twice, first to count; memory is a few MiB per thread. Errors: those of the store;
 * SONDE_E_STOPPED (nothing stays). */
enum sonde_code sonde_synth_write(const sonde_synth *s, const sonde_synth_file *f,
                                  const sonde_kernels *kernels, const sonde_work *work, const char *path,
                                  sonde_synth_result *result, sonde_err *err);
enum sonde_code sonde_synth_plan_file(const sonde_synth *s, const sonde_synth_file *f,
                                      sonde_synth_result *result, sonde_err *err);

/* "uniform", "zipf", ...; the same order as the enums. */
const char *sonde_synth_law_name(enum sonde_synth_law l);
const char *sonde_synth_magnitude_name(enum sonde_synth_magnitude m);

#endif
