/* SPDX-License-Identifier: MIT
 * A trainer: made, taken through steps, and turned into a dictionary. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_impl.h"

enum sonde_code sonde_trainer_new(const sonde_train_options *o, size_t d_in, size_t d_out, bool transcoder,
                                  const sonde_kernels *kernels, const sonde_work *work, sonde_trainer **out,
                                  sonde_err *err)
{
    sonde_trainer *t = calloc(1, sizeof *t);
    if (!t)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a trainer");
    t->o = *o;
    t->arch = sae_arch_find(o->arch);
    t->kernels = kernels ? kernels : sonde_kernels_best();
    t->budget = work ? work->budget : NULL;
    t->d_in = d_in;
    t->d_out = d_out;
    t->F = (size_t)o->n_latents;
    t->transcoder = transcoder;
    t->n_steps = sonde_train_steps(o);
    t->n_threads = sonde_pool_threads(work ? work->pool : NULL);
    t->rng = sonde_rng_seed(o->seed);
    t->c = (struct counters){.scale_in = 1,
                             .scale_out = 1,
                             .power1 = 1,
                             .power2 = 1,
                             .below_5 = -1,
                             .threshold = -1,
                             .calibrated = -1,
                             .density = -1};
    t->dense_from = (struct dense_from){.share = DENSE_SHARE, .n_entries = (size_t)3 << 21};
    t->z.budget = t->aux.budget = t->budget;
    enum sonde_code code = SONDE_E_MEMORY;
    if ((t->arena = sonde_arena_new(t->budget, err)) && (t->moments = sonde_arena_new(t->budget, err)) &&
        !(code = trainer_alloc(t, work, err)) &&
        !(code = sonde_encode_space_new(t->n_threads, t->budget, &t->space, err)) &&
        !(code = sonde_encode_space_new(t->n_threads, t->budget, &t->space_aux, err))) {
        trainer_init_weights(t, work ? work->pool : NULL);
        trainer_pack(t, work ? work->pool : NULL);
        *out = t;
        return SONDE_OK;
    }
    sonde_trainer_free(t);
    return code;
}

void sonde_trainer_free(sonde_trainer *t)
{
    if (!t)
        return;
    sonde_encode_space_free(t->space);
    sonde_encode_space_free(t->space_aux);
    sonde_sparse_free(&t->z);
    sonde_sparse_free(&t->aux);
    dense_free(t);
    columns_free(&t->main, t->budget);
    columns_free(&t->dead, t->budget);
    free(t->f);
    sonde_budget_release(t->budget, t->room_f * sizeof *t->f);
    trainer_forget_dead(t);
    sonde_arena_free(t->moments);
    sonde_arena_free(t->arena);
    free(t);
}

const sonde_train_options *sonde_trainer_options(const sonde_trainer *t)
{
    return &t->o;
}

uint64_t sonde_trainer_step_count(const sonde_trainer *t)
{
    return t->c.step;
}

/* ---- a step ---------------------------------------------------------------------------------- */

static uint64_t k_now(const sonde_trainer *t)
{
    const sonde_train_options *o = &t->o;
    if (t->c.step >= o->k_anneal || o->k_start <= o->k)
        return o->k;
    const double left = 1 - (double)t->c.step / (double)o->k_anneal;
    return o->k + (uint64_t)llround(left * (double)(o->k_start - o->k));
}

static double sparsity_now(const sonde_trainer *t)
{
    const uint64_t n = t->o.sparsity_warmup;
    return t->c.step >= n ? 1 : ((double)t->c.step + 1) / (double)n;
}

static enum sonde_code gradients(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_step_report *r,
                                 sonde_err *err)
{
    enum sonde_code code;
    if ((code = trainer_forward(t, n, pool, r, err)) || (code = trainer_aux(t, n, pool, r, err)))
        return code;
    return trainer_backward(t, n, pool, r, err);
}

static void count_silence(sonde_trainer *t, size_t n)
{
    t->c.n_counted += n;
    for (size_t i = 0; i < t->F; i++) {
        t->silent[i] = t->fired[i] ? 0 : t->silent[i] + n;
        t->frequency[i] += t->fired[i];
    }
}

enum sonde_code trainer_try(sonde_trainer *t, const float *x, const float *y, size_t n,
                            const sonde_work *work, sonde_step_report *r, sonde_err *err)
{
    sonde_pool *pool = work ? work->pool : NULL;
    enum sonde_code code;
    *r = (sonde_step_report){0};
    if (n == 0 || t->transcoder != (y != NULL))
        return sonde_fail(err, SONDE_E_USAGE,
                          "a step takes at least one row, and targets exactly for a transcoder");
    if ((code = trainer_room(t, n > t->o.batch ? n : (size_t)t->o.batch, err)))
        return code;
    trainer_normalize(t, x, y, n, pool);
    t->before_n = t->c.var_n;
    t->before_m2 = t->c.var_m2;
    memcpy(t->var_before, t->var_mean, t->d_out * sizeof *t->var_mean);
    trainer_observe(t, n, pool);
    t->n_rows = n;
    t->k = r->k = k_now(t);
    t->sparsity = r->sparsity = sparsity_now(t);
    r->lr = trainer_lr(t);
    if ((code = gradients(t, n, pool, r, err)))
        trainer_undo(t);
    return code;
}

void trainer_undo(sonde_trainer *t)
{
    t->c.var_n = t->before_n;
    t->c.var_m2 = t->before_m2;
    memcpy(t->var_mean, t->var_before, t->d_out * sizeof *t->var_mean);
}

enum sonde_code trainer_take(sonde_trainer *t, const sonde_work *work, sonde_step_report *r, sonde_err *err)
{
    const size_t n = t->n_rows;
    enum sonde_code code;
    trainer_update(t, work ? work->pool : NULL, r);
    count_silence(t, n);
    t->c.density = (double)t->n_entries / ((double)n * (double)t->F);
    t->c.step++;
    t->c.n_tokens += n;
    if (t->arch->after && (code = t->arch->after(t, n, work, err)))
        return code;
    r->step = t->c.step;
    r->n_tokens = t->c.n_tokens;
    return SONDE_OK;
}

enum sonde_code sonde_trainer_step(sonde_trainer *t, const float *x, const float *y, size_t n,
                                   const sonde_work *work, sonde_step_report *report, sonde_err *err)
{
    sonde_step_report r;
    enum sonde_code code = trainer_try(t, x, y, n, work, &r, err);
    if (!code)
        code = trainer_take(t, work, &r, err);
    if (!code && report)
        *report = r;
    return code;
}

/* ---- the dictionary -------------------------------------------------------------------------- */

static void copy_floats(float *to, const struct param *p)
{
    if (p->w)
        memcpy(to, p->w, p->rows * p->cols * sizeof *to);
}

enum sonde_code sonde_trainer_export(const sonde_trainer *t, sonde_budget *budget, sonde_dict **out,
                                     sonde_err *err)
{
    sonde_dict *d = NULL;
    enum sonde_code code =
        sonde_dict_new(t->arch->act, t->d_in, t->d_out, t->F, t->o.skip > 0, budget, &d, err);
    if (code)
        return code;
    copy_floats(d->w_enc, &t->p[P_W_ENC]);
    copy_floats(d->b_enc, &t->p[P_B_ENC]);
    copy_floats(d->w_dec, &t->p[P_W_DEC]);
    copy_floats(d->b_dec, &t->p[P_B_DEC]);
    copy_floats(d->threshold, &t->p[P_THRESHOLD]);
    copy_floats(d->r_mag, &t->p[P_R_MAG]);
    copy_floats(d->b_mag, &t->p[P_B_MAG]);
    copy_floats(d->w_skip, &t->p[P_W_SKIP]);
    d->pre_bias = t->o.pre_bias > 0;
    d->trained_as = t->arch->name;
    if (t->o.normalize == SONDE_NORMALIZE_CONSTANT) {
        d->norm = SONDE_DICT_NORM_CONSTANT;
    } else if (t->o.normalize == SONDE_NORMALIZE_LAYER) {
        d->norm = SONDE_DICT_NORM_LAYER;
        d->norm_eps = 1e-5f;
    }
    if (t->arch->finish)
        code = t->arch->finish(t, d, err);
    const bool shift = t->c.shift_used != 0;
    if (!code)
        code = sonde_dict_fold_scale(d, shift ? t->mean_in : NULL, t->c.scale_in, shift ? t->mean_out : NULL,
                                     t->c.scale_out, err);
    if (code)
        sonde_dict_free(d);
    else
        *out = d;
    return code;
}
