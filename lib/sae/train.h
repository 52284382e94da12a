/* SPDX-License-Identifier: MIT
 * Training dictionaries: the objective and its options, one step, and the whole run.
 *
 * The objective of a batch of B rows, in the units of the normalised activations:
 *   L = c mean_b sum_j w_j ||y - y^_j||^2 + aux_coef FVU_aux + penalty
 * with c = 1 / running variance (FVU), 1 (SUM) or 1 / d_out (MEAN), prefixes j (one, unless matryoshka), and
 * the architecture's penalty. Reductions run over fixed blocks in a fixed order: the bits do not depend on
 * the threads. */
#ifndef SONDE_SAE_TRAIN_H
#define SONDE_SAE_TRAIN_H

#include "../base/work.h"
#include "../num/cpu.h"
#include "dict.h"
#include "source.h"

enum sonde_loss_scale { SONDE_LOSS_FVU = 0, SONDE_LOSS_SUM, SONDE_LOSS_MEAN };

/* What is done to activations before they are learned from; undone in what is saved. */
enum sonde_normalize {
    SONDE_NORMALIZE_NONE = 0,
    SONDE_NORMALIZE_MEAN_SQUARE, /* E||x||^2 = 1 (dictionary_learning, Gemma Scope) */
    SONDE_NORMALIZE_SQRT_D,      /* E||x|| = sqrt(d) (SAELens expected_average_only_in, Anthropic) */
    SONDE_NORMALIZE_STANDARD,    /* mean 0, E||x||^2 = 1 */
    SONDE_NORMALIZE_CONSTANT,    /* each row to norm sqrt(d); not folded: the saved dictionary does it too */
    SONDE_NORMALIZE_LAYER,       /* each row to mean 0 and variance 1; not folded */
    SONDE_N_NORMALIZES
};

enum sonde_bias_init { SONDE_BIAS_MEAN = 0, SONDE_BIAS_MEDIAN, SONDE_BIAS_ZERO };
enum sonde_schedule { SONDE_SCHEDULE_LINEAR = 0, SONDE_SCHEDULE_COSINE, SONDE_SCHEDULE_CONSTANT };
enum sonde_jump_penalty { SONDE_JUMP_TARGET = 0, SONDE_JUMP_STEP, SONDE_JUMP_TANH };

#define SONDE_MAX_PREFIXES 16
#define SONDE_AUTO                                                                                           \
    UINT64_MAX /* of counts; NaN of numbers, -1 of choices: the architecture and the budget decide */

typedef struct sonde_train_options {
    const char *arch; /* a name of sonde_train_archs */
    uint64_t n_latents, k;
    uint64_t batch, n_tokens; /* rows of a step, rows in all */
    double lr;
    uint64_t warmup; /* steps of linear rise */
    double decay;    /* LINEAR: share of the steps in which lr falls to lr_end */
    double lr_end;   /* as a share of lr */
    int schedule;    /* enum sonde_schedule */
    double beta1, beta2, eps;
    double clip; /* of the gradient's norm; 0: none */

    int loss;                                /* enum sonde_loss_scale */
    double l1;                               /* relu, gated */
    double l0;                               /* jumprelu: coefficient of the penalty */
    double target_l0;                        /* jumprelu with SONDE_JUMP_TARGET */
    int jump_penalty;                        /* enum sonde_jump_penalty */
    double tanh_scale, bandwidth, threshold; /* jumprelu: c, epsilon, first threshold */
    double pre_act;                          /* jumprelu: coefficient of sum relu(threshold - z) ||W_dec|| */
    int pre_act_dead_only;
    uint64_t sparsity_warmup;   /* steps over which the penalty rises from 0 */
    uint64_t k_start, k_anneal; /* k falls from k_start to k over k_anneal steps */

    uint64_t aux_k; /* dead latents per row that model the residual; 0: none */
    double aux_coef;
    int aux_any_sign;                        /* pre-activations as they are (SAELens), not relu of them */
    int aux_scaled;                          /* times min(1, n_dead / aux_k) */
    uint64_t dead_window;                    /* rows without firing after which a latent is dead */
    uint64_t resample_every, resample_times; /* relu-2023: rows between resamplings; 0: never */

    size_t n_prefixes; /* matryoshka: latents of each prefix, the last is n_latents; 0: auto */
    uint64_t prefix[SONDE_MAX_PREFIXES];
    double prefix_weight[SONDE_MAX_PREFIXES];
    double bias_weight; /* matryoshka: of a term with b_dec alone */
    int gated_detach;   /* 0: as SAELens, the gate's loss also moves the decoder */

    int normalize;       /* enum sonde_normalize */
    int unit_decoder;    /* rows of W_dec are kept at norm 1 */
    double decoder_norm; /* at the start */
    int tied;            /* W_enc begins as the transpose of W_dec, not with directions of its own */
    int bias_init;       /* enum sonde_bias_init */
    int pre_bias;
    int skip; /* transcoders: y^ += x W_skip^T */
    int bf16; /* encoder products in bfloat16, results exact */
    uint64_t seed;
} sonde_train_options;

/* Everything auto. */
sonde_train_options sonde_train_options_auto(void);

/* Put the defaults of the architecture and of the budget (DESIGN.md section 6) in the place of every auto,
 * and refuse what cannot be. d_in, d_out, n_rows: of the source. transcoder: input and target differ. Errors:
 * SONDE_E_USAGE. */
enum sonde_code sonde_train_defaults(sonde_train_options *o, size_t d_in, size_t d_out, uint64_t n_rows,
                                     bool transcoder, sonde_err *err);

/* Number of steps: n_tokens / batch, rounded up. */
uint64_t sonde_train_steps(const sonde_train_options *o);

/* The options as JSON, in the order above: what run.json and checkpoints hold. A new reference;
 * NULL when memory is out. */
json_t *sonde_train_options_json(const sonde_train_options *o);

/* And back: what json lacks stays auto. arch points into the table of architectures; sonde_train_defaults checks the
 * rest. Errors: SONDE_E_INPUT naming the key. */
enum sonde_code sonde_train_options_read(const json_t *json, sonde_train_options *o, sonde_err *err);

/* Names of the architectures and what they are; NULL at the end. */
const char *const *sonde_train_archs(void);
const char *sonde_train_arch_about(const char *name);

/* ---- a trainer: one dictionary being learned ------------------------------------------------- */

typedef struct sonde_trainer sonde_trainer;

/* What a step was like. */
typedef struct sonde_step_report {
    uint64_t step, n_tokens; /* after it */
    double loss;             /* all terms */
    double recon;            /* mean_b ||y - y^||^2, normalised units */
    double fvu;              /* recon / running variance */
    double aux, penalty;     /* with their coefficients */
    double l0, l1;
    double gradient_norm; /* before clipping */
    double lr, sparsity;  /* in force: learning rate, share of the penalty's coefficient */
    uint64_t k;
    uint64_t n_dead;
} sonde_step_report;

/* o must have been through sonde_train_defaults. Memory: about 4.5 dictionaries and the buffers of a batch.
 */
enum sonde_code sonde_trainer_new(const sonde_train_options *o, size_t d_in, size_t d_out, bool transcoder,
                                  const sonde_kernels *kernels, const sonde_work *work, sonde_trainer **out,
                                  sonde_err *err);
void sonde_trainer_free(sonde_trainer *t);

/* Fix normalisation and first biases from a sample of rows; before the first step. y NULL for an autoencoder.
 */
enum sonde_code sonde_trainer_fit(sonde_trainer *t, const float *x, const float *y, size_t n,
                                  const sonde_work *work, sonde_err *err);

/* One step on n rows of raw activations. NaN or infinity anywhere: SONDE_E_NUMERIC naming step, row or
 * latent, and the state is as before the step. */
enum sonde_code sonde_trainer_step(sonde_trainer *t, const float *x, const float *y, size_t n,
                                   const sonde_work *work, sonde_step_report *report, sonde_err *err);

/* The dictionary so far, in units of raw activations, as it will be used: BatchTopK and matryoshka become
 * JumpReLU with their running (or calibrated) threshold. */
enum sonde_code sonde_trainer_export(const sonde_trainer *t, sonde_budget *budget, sonde_dict **out,
                                     sonde_err *err);

const sonde_train_options *sonde_trainer_options(const sonde_trainer *t);
uint64_t sonde_trainer_step_count(const sonde_trainer *t);

#endif
