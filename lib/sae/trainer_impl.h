/* SPDX-License-Identifier: MIT
 * A trainer from inside: parameters, the table of architectures, and the stages of a step. */
#ifndef SONDE_SAE_TRAINER_IMPL_H
#define SONDE_SAE_TRAINER_IMPL_H

#include "../base/rng.h"
#include "../num/convert.h"
#include "../num/sparse.h"
#include "encode.h"
#include "train.h"

#define BLOCK_ROWS   64 /* rows whose sums are made by one task, in order */
#define SKIP_TILE    56
#define DENSE_SHARE  0.15 /* measured: d 768, F 12288, batch 4096 */
#define BLOCK_LATENT 64   /* latents likewise; a multiple of every table's panel */

/* ---- parameters ------------------------------------------------------------------------------ */

enum { P_W_ENC, P_B_ENC, P_W_DEC, P_B_DEC, P_THRESHOLD, P_R_MAG, P_B_MAG, P_W_SKIP, N_PARAMS };

/* One array with gradient and Adam moments; w NULL: the architecture has none. Latent parameters have F rows.
 */
struct param {
    const char *name;
    size_t rows, cols;
    float *w, *g, *m, *v;
};

/* ---- what a batch becomes -------------------------------------------------------------------- */

/* Active entries by latent: those of latent i are [start[i], start[i + 1]), rows ascending. */
struct columns {
    uint64_t *start; /* [F + 2]; the last is scratch */
    uint32_t *row;
    float *z, *f;   /* pre-activation and value */
    float *df, *dz; /* dL/df without penalties; dL/dz */
    size_t room;
};

/* The entries of one latent, for the architecture's backward. */
struct column {
    size_t n;
    const float *z, *f;
    const float *df;    /* dL/df from the reconstruction */
    const float *dgate; /* gated: dL/d relu(pi) from its own reconstruction; else NULL */
    float *dz;          /* to be written: [n] */
};

/* What a row adds to the sums of the batch; the last two are counts: entries above their bounds, and with
 * f != 0. */
enum { ROW_LOSS, ROW_ERROR, ROW_GATE, ROW_L1, ROW_ENTRIES, ROW_ACTIVE, N_ROW };

/* What else a latent adds; all zero before the call. Divide by the batch where the objective does. */
struct column_gradient {
    double penalty;                       /* its share of the loss */
    float norm;                           /* dL/d||W_dec,i|| */
    float threshold, r_mag, b_mag, b_enc; /* beside what dz gives b_enc */
    float all_rows; /* dL/dz common to every row of the batch, added to that of the entries */
};

/* ---- architectures --------------------------------------------------------------------------- */

enum {
    ARCH_AUX = 1,        /* AuxK applies */
    ARCH_GATE = 2,       /* a second reconstruction from relu(z) */
    ARCH_PREFIXES = 4,   /* matryoshka */
    ARCH_THRESHOLD = 8,  /* learns a threshold per latent */
    ARCH_MAGNITUDE = 16, /* learns r_mag, b_mag */
    ARCH_CALIBRATE = 32  /* its inference threshold is set after training */
};

/* An architecture. NULL members mean: nothing to do, f = z, dz = df. */
struct sae_arch {
    const char *name, *about;
    unsigned traits;
    enum sonde_dict_act act; /* of what it exports */
    void (*defaults)(sonde_train_options *o, size_t d_in, uint64_t n_steps);
    enum sonde_code (*check)(const sonde_train_options *o, sonde_err *err);
    void (*init)(sonde_trainer *t);
    void (*pick)(sonde_trainer *t, size_t n_rows, sonde_encoding *e);
    /* f[j] of n entries with pre-activations z and columns col; f may not be z */
    void (*activate)(const sonde_trainer *t, size_t n, const uint32_t *col, const float *z, float *f);
    void (*backward)(const sonde_trainer *t, size_t latent, const struct column *c,
                     struct column_gradient *g);
    /* after the step is taken: running thresholds; resampling */
    enum sonde_code (*after)(sonde_trainer *t, size_t n_rows, const sonde_work *work, sonde_err *err);
    enum sonde_code (*finish)(const sonde_trainer *t, sonde_dict *d,
                              sonde_err *err); /* what export has to add */
};

extern const struct sae_arch *const sae_archs[]; /* NULL at the end; the first is the default */
const struct sae_arch *sae_arch_find(const char *name);

extern const struct sae_arch arch_topk, arch_batchtopk, arch_matryoshka, arch_relu, arch_relu_2023,
    arch_jumprelu, arch_gated;

/* ---- the trainer ----------------------------------------------------------------------------- */

/* Numbers that a checkpoint holds besides the arrays. */
struct counters {
    uint64_t step, n_tokens;
    uint64_t n_counted;      /* rows that t->frequency counts */
    double below_5, below_6; /* latents rarer than 1e-5, 1e-6 in the last whole window; < 0: none yet */
    uint64_t n_resampled;    /* times */
    double shift_used;       /* 1: the means below are subtracted */
    double scale_in, scale_out;
    double var_n, var_m2;  /* rows seen; sum of squared distances from the running mean */
    double threshold;      /* running smallest kept value (BatchTopK); < 0: none yet */
    double calibrated;     /* threshold set after training, normalised units; < 0: none */
    double hint;           /* a lower bound to begin the next selection with */
    double power1, power2; /* beta1^step, beta2^step */
    double density;        /* entries above their bounds of all [B, F] in the last step; < 0: none yet */
};

/* When a step that takes all latents above a bound runs over blocks of latents instead of lists of entries
 * (dense.c): more entries than this share of [B, F], or than this many. */
struct dense_from {
    double share;
    size_t n_entries;
};

struct sonde_trainer {
    sonde_train_options o;
    const struct sae_arch *arch;
    const sonde_kernels *kernels;
    sonde_budget *budget;
    sonde_arena *arena,
        *moments; /* gradients and Adam's moments lie apart: they can go before the dictionary is written */
    sonde_rng rng;
    size_t d_in, d_out, F;
    bool transcoder;
    uint64_t n_steps;

    struct param p[N_PARAMS];
    struct counters c;
    double *mean_in, *mean_out;    /* [d] subtracted when shift_used */
    double *var_mean, *var_before; /* [d_out] running mean of the target, and before the step */
    double before_n, before_m2;    /* counters of the variance before the step */
    uint64_t *silent;              /* [F] rows since the latent fired */
    uint64_t *frequency;           /* [F] times it fired in the c.n_counted rows of the window */

    /* made again from the parameters */
    sonde_packed w_enc; /* [d_in, F] */
    sonde_packed16 w_enc16;
    sonde_packed w_skip;
    sonde_packed skip_rows; /* [B, d_in] the batch, packed, for the gradient of w_skip */
    float *skip_tile;       /* [threads][SKIP_TILE, B] */
    int n_threads;

    /* of one batch */
    size_t room;                      /* rows there is room for */
    float *xs, *ys;                   /* normalised input and target (ys == xs for an autoencoder) */
    float *xc;                        /* what the encoder reads: xs - b_dec, or xs */
    float *G[SONDE_MAX_PREFIXES + 1]; /* [B, d_out] dL/dy^ of each prefix, summed from the last */
    float *G2;                        /* gate's, or the auxiliary's; holds the residual y - y^ before */
    sonde_encode_space *space, *space_aux;
    sonde_sparse z, aux;
    float *f; /* [entries of z] values; NULL where they are z */
    size_t room_f;
    struct columns main, dead;
    struct dense_from dense_from;
    bool dense;                /* this step is */
    struct dense_space *tiles; /* of dense steps; NULL unless the last one was */
    float *partial;            /* [blocks][...] sums of blocks */
    double *row_sum;           /* [B][N_ROW] */
    double *latent_sum;        /* [F][4] see latent.c */
    uint32_t *fired;           /* [F] rows of the batch on which the latent was active */
    unsigned char *touched;    /* [F] has a gradient */
    float *exp_r_mag;          /* [F] gated: of this step */
    float *bound;              /* [F] what a pre-activation must pass; zeros but for jumprelu */
    size_t n_rows;             /* of this batch */
    size_t n_entries;          /* above their bounds */
    size_t n_active;           /* of these with f != 0 */
    uint32_t *dead_id;         /* [n_dead] */
    size_t n_dead;
    float *dead_rows; /* packed encoder of the dead, and bias */
    size_t room_dead;
    float *zeros;   /* [max(d_in, d_out)] */
    float *enc_sum; /* [d_in] sum of xc over the batch, where an architecture needs it */

    double recon_scale; /* c of the objective for this step */
    double sparsity;    /* share of the penalty in force */
    uint64_t k;
};

/* Latents of prefix j end here; prefix n-1 ends at F. */
static inline size_t prefix_end(const sonde_trainer *t, size_t j)
{
    return t->o.n_prefixes > 1 ? (size_t)t->o.prefix[j] : t->F;
}
static inline size_t n_prefixes(const sonde_trainer *t)
{
    return t->o.n_prefixes > 1 ? t->o.n_prefixes : 1;
}
/* The first prefix that holds latent i: all later ones hold it too. */
static inline size_t prefix_of(const sonde_trainer *t, size_t latent)
{
    size_t j = 0;
    while (j + 1 < n_prefixes(t) && latent >= prefix_end(t, j))
        j++;
    return j;
}

/* Does the gate's loss move the decoder too? */
static inline bool gate_moves_decoder(const sonde_trainer *t)
{
    return t->arch->traits & ARCH_GATE && t->o.gated_detach == 0;
}

/* ---- stages (one file each) ------------------------------------------------------------------ */

/* trainer.c: a step in two halves. What trying changes (the running variance) trainer_undo takes back; taking
 * follows a try that went well. */
enum sonde_code trainer_try(sonde_trainer *t, const float *x, const float *y, size_t n,
                            const sonde_work *work, sonde_step_report *r, sonde_err *err);
void trainer_undo(sonde_trainer *t);
enum sonde_code trainer_take(sonde_trainer *t, const sonde_work *work, sonde_step_report *r, sonde_err *err);

/* params.c */
enum sonde_code trainer_alloc(sonde_trainer *t, const sonde_work *work, sonde_err *err);
void trainer_init_weights(sonde_trainer *t, sonde_pool *pool);
void trainer_pack(sonde_trainer *t, sonde_pool *pool); /* everything made again from the parameters */
void trainer_pack_block(sonde_trainer *t, size_t latent0, size_t n);
void trainer_forget_moments(sonde_trainer *t); /* after the last step; the trainer can only be read then */
enum sonde_code trainer_room(sonde_trainer *t, size_t n_rows, sonde_err *err);

/* normalize.c: raw rows into xs, ys; the running variance */
void trainer_normalize(sonde_trainer *t, const float *x, const float *y, size_t n, sonde_pool *pool);
void trainer_observe(sonde_trainer *t, size_t n, sonde_pool *pool);

/* forward.c */
enum sonde_code trainer_forward(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_step_report *r,
                                sonde_err *err);
/* x W_skip^T of some rows into G[0] (gated: G2 too), where there is a skip connection. */
void trainer_skip(sonde_trainer *t, size_t r0, size_t rows);
/* Rows of the block when G[0] (gated: G2 too) hold f W_dec: losses, dL/dy^, the residual, the block's sums.
 */
void trainer_losses(sonde_trainer *t, size_t n, size_t block);

/* aux.c: the dead latents' model of the residual; leaves entries in t->dead and its gradient in G2 */
enum sonde_code trainer_aux(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_step_report *r,
                            sonde_err *err);

void trainer_forget_dead(sonde_trainer *t); /* its memory */

/* columns.c: rows of entries into columns. f of each entry (NULL: z) */
enum sonde_code columns_from_rows(sonde_trainer *t, struct columns *c, const sonde_sparse *z, const float *f,
                                  sonde_pool *pool, sonde_err *err);
void columns_free(struct columns *c, sonde_budget *budget);

/* backward.c: all gradients; their norm and the penalty into r */
enum sonde_code trainer_backward(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_step_report *r,
                                 sonde_err *err);

/* latent.c: the gradient of one latent, however its entries and their sums were come by */

/* What a latent adds to the sums of the batch: t->latent_sum[i]. */
enum { LATENT_PENALTY, LATENT_NORM, LATENT_DZ, N_LATENT_SUM };

/* The entries of one latent: row, z, f and df = <G, W_dec,i> are given (gated: dz = <G2, W_dec,i>); dz is
 * made.
 */
struct entries {
    size_t n;
    const uint32_t *row;
    const float *z, *f, *df;
    float *dz;
};

/* dz and everything else that the entries alone decide; the sums over their rows come next. */
void latent_entries(sonde_trainer *t, size_t i, const struct entries *e, struct column_gradient *g);
/* Has it any gradient? If not, its rows are not written. */
bool latent_moves(const sonde_trainer *t, size_t i, size_t n, const struct column_gradient *g);
/* f G (and z G2 where the gate moves the decoder) and dz x into the gradients of its rows. */
void latent_sums(sonde_trainer *t, size_t i, const struct entries *e);
/* Auxiliary entries, penalties and projection on top of these, biases, norms. */
void latent_end(sonde_trainer *t, size_t i, size_t n_rows, const struct column_gradient *g);
/* Part of the gradient of b_dec that comes through the encoder of the block's latents. */
void latent_block_end(sonde_trainer *t, size_t block);

/* dense.c: the same step as products over blocks of latents. The first is as encoding and decoding, up to
 * trainer_losses; the second as columns and all latents. A third of the memory of entries at a density of
 * one half. */
size_t dense_max_entries(const sonde_trainer *t, size_t n);
enum sonde_code dense_forward(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_err *err);
void dense_backward(sonde_trainer *t, size_t n, sonde_pool *pool);
void dense_free(sonde_trainer *t);

/* update.c */
void trainer_update(sonde_trainer *t, sonde_pool *pool, sonde_step_report *r);

/* The schedule at the step that comes next. */
double trainer_lr(const sonde_trainer *t);

/* calibrate.c: the threshold at which the mean L0 over the rows added is k */
struct calibration;
enum sonde_code calibration_new(sonde_trainer *t, struct calibration **out, sonde_err *err);
enum sonde_code calibration_add(struct calibration *c, const float *x, const float *y, size_t n,
                                sonde_pool *pool, sonde_err *err);
bool calibration_end(struct calibration *c); /* sets t->c.calibrated; false: too few entries, add all again */
void calibration_free(struct calibration *c);

/* resample.c: dead latents begin again from badly reconstructed rows (relu-2023) */
enum sonde_code trainer_resample(sonde_trainer *t, size_t n_rows, const sonde_work *work, sonde_err *err);

#endif
