/* SPDX-License-Identifier: MIT
 * What the files of the generator share. */
#ifndef SONDE_SAE_SYNTH_IMPL_H
#define SONDE_SAE_SYNTH_IMPL_H

#include "synth.h"

/* How the latents of a row are drawn. Latents without a parent are "free standing". */
struct sonde_synth_plan {
    size_t n_tree; /* the first latents are the trees */
    double
        *chance; /* [N] of being active, given its parent is and, in a copula, on average over the factors */
    uint64_t *limit; /* [N] free standing: active if a 32-bit word is below; rank 0 only */
    float *cut;      /* [N] the normal quantile with upper tail `chance`; rank > 0 only */
    float *own;      /* [N] 1 / sqrt(1 - |l_i|^2) */
    double *tail;    /* [SYNTH_TAIL_STEPS + 1] upper tails of the normal distribution on a grid */
};

/* The grid of tail probabilities: -SYNTH_TAIL_END .. SYNTH_TAIL_END. */
#define SYNTH_TAIL_END   8
#define SYNTH_TAIL_STEPS 1024

/* Index of the first child of latent i; it has children if the last of them is below n_tree. */
static inline size_t synth_first_child(const sonde_synth_options *o, size_t i)
{
    return o->roots + i * o->branch;
}

static inline bool synth_has_children(const sonde_synth *s, size_t i)
{
    return i < s->plan->n_tree && synth_first_child(&s->o, i) < s->plan->n_tree;
}

/* ---- elementary functions from + - * / and sqrt alone: the same bits everywhere (synth_math.c)
 * ------------- */

double synth_exp(double x);         /* error below 4 ulp; 0 below -708 */
double synth_log(double x);         /* x normal and > 0; error below 4e-16 (1 + |log x|) */
double synth_normal_tail(double x); /* P(N(0, 1) > x), relative error below 1e-14 + 2e-16 x^2 */
double
synth_normal_cut(double p); /* the x with synth_normal_tail(x) = p, 0 < p < 1, within 1e-12 (1 + |x|) */
double synth_power(double x, double exponent);

/* ---- one space per thread (synth_row.c) ------------------------------------------------------ */

enum sonde_code synth_spaces_new(const sonde_synth *s, int n_threads, sonde_budget *budget,
                                 sonde_synth_space ***out, sonde_err *err);
void synth_spaces_free(sonde_synth_space **space, int n_threads); /* NULL is fine */

/* ---- directions (synth_directions.c) --------------------------------------------------------- */

enum sonde_code synth_directions(sonde_synth *s, const sonde_kernels *kernels, const sonde_work *work,
                                 sonde_err *err);

#endif
