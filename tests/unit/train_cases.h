/* SPDX-License-Identifier: MIT
 * What the tests of training share: trainers with chosen weights, and batches. */
#ifndef TEST_TRAIN_CASES_H
#define TEST_TRAIN_CASES_H

#include "num_cases.h"

#include <stdio.h>

#include "sae/trainer_impl.h"

struct sizes {
    size_t d_in, d_out, F, n;
};

/* Nothing left to the budget: no warm-up, no decay, no clipping, no normalisation. */
static inline sonde_train_options plain_options(const char *arch, const struct sizes *s)
{
    sonde_train_options o = sonde_train_options_auto();
    o.arch = arch;
    o.n_latents = s->F;
    o.k = 3;
    o.batch = s->n;
    o.n_tokens = 1000 * s->n;
    o.lr = 1e-2;
    o.warmup = o.sparsity_warmup = o.k_anneal = 0;
    o.decay = 0;
    o.clip = 0;
    o.loss = SONDE_LOSS_SUM;
    o.normalize = SONDE_NORMALIZE_NONE;
    o.unit_decoder = 0;
    o.decoder_norm = 1;
    o.aux_k = 0;
    o.pre_bias = 0;
    o.dead_window = 1000;
    o.resample_every = 0;
    return o;
}

static inline sonde_trainer *trainer_of(sonde_train_options o, const struct sizes *s, bool transcoder,
                                        const sonde_work *work)
{
    sonde_trainer *t = NULL;
    sonde_err err;
    if (sonde_train_defaults(&o, s->d_in, s->d_out, o.n_tokens, transcoder, &err) ||
        sonde_trainer_new(&o, s->d_in, s->d_out, transcoder, NULL, work, &t, &err) ||
        trainer_room(t, (size_t)o.batch, &err))
        fail_msg("%s: %s", o.arch, err.msg);
    return t;
}

/* Weights that favour nothing: no array is zero, no two rows are alike; decoder rows of norm 1 where they
 * are kept there. */
static inline void fill_weights(sonde_trainer *t, uint64_t seed)
{
    static const float scale[N_PARAMS] = {
        [P_W_ENC] = 0.6f, [P_B_ENC] = 0.2f, [P_W_DEC] = 0.5f,     [P_B_DEC] = 0.3f,
        [P_R_MAG] = 0.4f, [P_B_MAG] = 0.2f, [P_THRESHOLD] = 0.2f, [P_W_SKIP] = 0.3f};
    for (int which = 0; which < N_PARAMS; which++) {
        const struct param *p = &t->p[which];
        for (size_t i = 0; p->w && i < p->rows * p->cols; i++) {
            const float u = number_at((seed * 16 + (uint64_t)which) * 0x1000000u + i);
            p->w[i] = which == P_THRESHOLD ? 0.22f + scale[which] * u : scale[which] * u;
        }
    }
    for (size_t i = 0; t->o.unit_decoder > 0 && i < t->F; i++) {
        float *w = t->p[P_W_DEC].w + i * t->d_out;
        sonde_scale(t->kernels, t->d_out, (float)(1 / sqrt(sonde_sum_squares(t->kernels, t->d_out, w))), w,
                    w);
    }
    trainer_pack(t, NULL);
}

static inline float *batch_of(size_t n, size_t d, uint64_t seed)
{
    float *x = numbers(n * d, seed);
    for (size_t i = 0; i < n * d; i++)
        x[i] = 1.5f * x[i] + 0.3f * number_at(seed * 77 + i % d);
    return x;
}

/* What Adam is given for element j of an array: rows without a gradient are not written. */
static inline double gradient_at(const sonde_trainer *t, int which, size_t j)
{
    const struct param *p = &t->p[which];
    const bool whole = which == P_B_DEC || which == P_W_SKIP;
    return whole || t->touched[j / p->cols] ? (double)p->g[j] : 0;
}

#endif
