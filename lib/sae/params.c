/* SPDX-License-Identifier: MIT
 * A trainer's arrays: parameters, moments, the packed encoder, and the buffers of a batch. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "trainer_impl.h"

static enum sonde_code param_new(sonde_trainer *t, int which, const char *name, size_t rows, size_t cols,
                                 sonde_err *err)
{
    struct param *p = &t->p[which];
    size_t n;
    if (!sonde_mul(&n, rows, cols))
        return sonde_fail(err, SONDE_E_USAGE, "%zu by %zu numbers do not fit", rows, cols);
    float **const part[] = {&p->w, &p->g, &p->m, &p->v};
    for (int i = 0; i < 4; i++)
        if (!(*part[i] = sonde_arena_get(i == 0 ? t->arena : t->moments, n, sizeof(float), err)))
            return SONDE_E_MEMORY;
    p->name = name;
    p->rows = rows;
    p->cols = cols;
    return SONDE_OK;
}

static enum sonde_code params_new(sonde_trainer *t, sonde_err *err)
{
    const unsigned traits = t->arch->traits;
    const struct {
        int which;
        const char *name;
        size_t rows, cols;
        bool wanted;
    } table[] = {
        {P_W_ENC, "W_enc", t->F, t->d_in, true},
        {P_B_ENC, "b_enc", t->F, 1, true},
        {P_W_DEC, "W_dec", t->F, t->d_out, true},
        {P_B_DEC, "b_dec", 1, t->d_out, true},
        {P_THRESHOLD, "threshold", t->F, 1, traits & ARCH_THRESHOLD},
        {P_R_MAG, "r_mag", t->F, 1, traits & ARCH_MAGNITUDE},
        {P_B_MAG, "b_mag", t->F, 1, traits & ARCH_MAGNITUDE},
        {P_W_SKIP, "W_skip", t->d_out, t->d_in, t->o.skip > 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].wanted && param_new(t, table[i].which, table[i].name, table[i].rows, table[i].cols, err))
            return SONDE_E_MEMORY;
    return SONDE_OK;
}

static enum sonde_code packs_new(sonde_trainer *t, sonde_err *err)
{
    const sonde_kernels *k = t->kernels;
    t->w_enc = (sonde_packed){.kernels = k, .k = t->d_in, .n = t->F};
    t->w_enc.data = sonde_arena_get(t->arena, sonde_packed_floats(k, t->d_in, t->F), sizeof(float), err);
    if (!t->w_enc.data)
        return SONDE_E_MEMORY;
    if (t->o.bf16 > 0 && sonde_bf16_available(k)) {
        t->w_enc16 = (sonde_packed16){.kernels = k, .k = t->d_in, .n = t->F};
        t->w_enc16.data =
            sonde_arena_get(t->arena, sonde_packed16_words(k, t->d_in, t->F), sizeof(uint16_t), err);
        if (!t->w_enc16.data)
            return SONDE_E_MEMORY;
    }
    if (t->o.skip > 0) {
        t->w_skip = (sonde_packed){.kernels = k, .k = t->d_in, .n = t->d_out};
        t->w_skip.data =
            sonde_arena_get(t->arena, sonde_packed_floats(k, t->d_in, t->d_out), sizeof(float), err);
        if (!t->w_skip.data)
            return SONDE_E_MEMORY;
    }
    return SONDE_OK;
}

enum sonde_code trainer_alloc(sonde_trainer *t, const sonde_work *work, sonde_err *err)
{
    (void)work;
    const size_t F = t->F, wide = t->d_in > t->d_out ? t->d_in : t->d_out;
    enum sonde_code code;
    if ((code = params_new(t, err)) || (code = packs_new(t, err)))
        return code;
    t->mean_in = sonde_arena_get(t->arena, t->d_in, sizeof(double), err);
    t->mean_out = sonde_arena_get(t->arena, t->d_out, sizeof(double), err);
    t->var_mean = sonde_arena_get(t->arena, t->d_out, sizeof(double), err);
    t->var_before = sonde_arena_get(t->arena, t->d_out, sizeof(double), err);
    t->silent = sonde_arena_get(t->arena, F, sizeof *t->silent, err);
    t->frequency = sonde_arena_get(t->arena, F, sizeof *t->frequency, err);
    t->latent_sum = sonde_arena_get(t->arena, F, N_LATENT_SUM * sizeof(double), err);
    t->fired = sonde_arena_get(t->arena, F, sizeof *t->fired, err);
    t->touched = sonde_arena_get(t->arena, F, 1, err);
    t->dead_id = sonde_arena_get(t->arena, F, sizeof *t->dead_id, err);
    t->zeros = sonde_arena_get(t->arena, wide, sizeof(float), err);
    t->enc_sum = sonde_arena_get(t->arena, t->d_in, sizeof(float), err);
    t->bound = sonde_arena_get(t->arena, F, sizeof *t->bound, err);
    t->exp_r_mag =
        sonde_arena_get(t->arena, t->arch->traits & ARCH_MAGNITUDE ? F : 0, sizeof *t->exp_r_mag, err);
    t->main.start = sonde_arena_get(t->arena, F + 2, sizeof(uint64_t), err);
    t->dead.start = sonde_arena_get(t->arena, F + 2, sizeof(uint64_t), err);
    return t->mean_in && t->mean_out && t->var_mean && t->var_before && t->silent && t->frequency &&
                   t->latent_sum && t->fired && t->touched && t->dead_id && t->zeros && t->enc_sum &&
                   t->bound && t->exp_r_mag && t->main.start && t->dead.start
               ? SONDE_OK
               : SONDE_E_MEMORY;
}

void trainer_forget_moments(sonde_trainer *t)
{
    trainer_forget_dead(t);
    for (int i = 0; i < N_PARAMS; i++)
        t->p[i].g = t->p[i].m = t->p[i].v = NULL;
    sonde_arena_free(t->moments);
    t->moments = NULL;
}

/* ---- the first weights ----------------------------------------------------------------------- */

static void init_block(void *arg, size_t block, int thread)
{
    (void)thread;
    sonde_trainer *t = arg;
    const size_t i0 = block * BLOCK_LATENT, i1 = i0 + BLOCK_LATENT < t->F ? i0 + BLOCK_LATENT : t->F;
    for (size_t i = i0; i < i1; i++) {
        float *dec = t->p[P_W_DEC].w + i * t->d_out, *enc = t->p[P_W_ENC].w + i * t->d_in;
        sonde_rng r = sonde_rng_fork(&t->rng, "latent", i);
        double norm = 0;
        for (size_t j = 0; j < t->d_out; j++) {
            const double u = sonde_rng_normal(&r);
            norm += u * u;
            dec[j] = (float)u;
        }
        const double to_unit = norm > 0 ? 1 / sqrt(norm) : 0;
        if (t->o.tied <= 0) { /* directions of their own */
            double square = 0;
            for (size_t j = 0; j < t->d_in; j++) {
                const double u = sonde_rng_normal(&r);
                square += u * u;
                enc[j] = (float)u;
            }
            for (size_t j = 0; j < t->d_in; j++)
                enc[j] = (float)(enc[j] / sqrt(square > 0 ? square : 1));
        } else {
            for (size_t j = 0; j < t->d_in; j++)
                enc[j] = (float)(dec[j] * to_unit * t->o.decoder_norm);
        }
        for (size_t j = 0; j < t->d_out; j++)
            dec[j] = (float)(dec[j] * to_unit * t->o.decoder_norm);
    }
}

void trainer_init_weights(sonde_trainer *t, sonde_pool *pool)
{
    sonde_pool_run(pool, (t->F + BLOCK_LATENT - 1) / BLOCK_LATENT, init_block, t);
    if (t->arch->init)
        t->arch->init(t);
}

/* ---- packing --------------------------------------------------------------------------------- */

void trainer_pack_block(sonde_trainer *t, size_t i0, size_t n)
{
    const float *rows = t->p[P_W_ENC].w + i0 * t->d_in;
    sonde_pack(&t->w_enc, 0, t->d_in, i0, n, rows, 1, t->d_in);
    if (t->w_enc16.data)
        sonde_pack16(&t->w_enc16, i0, n, rows, t->d_in);
}

static void pack_task(void *arg, size_t block, int thread)
{
    (void)thread;
    sonde_trainer *t = arg;
    const size_t i0 = block * BLOCK_LATENT;
    trainer_pack_block(t, i0, t->F - i0 < BLOCK_LATENT ? t->F - i0 : BLOCK_LATENT);
}

void trainer_pack(sonde_trainer *t, sonde_pool *pool)
{
    sonde_pool_run(pool, (t->F + BLOCK_LATENT - 1) / BLOCK_LATENT, pack_task, t);
    if (t->w_skip.data)
        sonde_pack(&t->w_skip, 0, t->d_in, 0, t->d_out, t->p[P_W_SKIP].w, 1, t->d_in);
}

/* ---- buffers of a batch ---------------------------------------------------------------------- */

static bool floats(sonde_trainer *t, float **p, size_t rows, size_t cols, sonde_err *err)
{
    size_t n;
    if (!sonde_mul(&n, rows, cols)) {
        sonde_fail(err, SONDE_E_MEMORY, "%zu by %zu numbers do not fit", rows, cols);
        return false;
    }
    return (*p = sonde_arena_get(t->arena, n, sizeof(float), err)) != NULL;
}

/* Room for batches of n rows; the first call decides (a batch never grows). */
enum sonde_code trainer_room(sonde_trainer *t, size_t n, sonde_err *err)
{
    if (n <= t->room)
        return SONDE_OK;
    if (t->room)
        return sonde_fail(err, SONDE_E_USAGE, "a batch of %zu rows after one of %zu", n, t->room);
    const size_t blocks = (n + BLOCK_ROWS - 1) / BLOCK_ROWS,
                 latent_blocks = (t->F + BLOCK_LATENT - 1) / BLOCK_LATENT;
    size_t partial = blocks > latent_blocks ? blocks : latent_blocks;
    partial = (partial < 4 ? 4 : partial) * (t->d_out + t->d_in) * 2;
    bool ok = floats(t, &t->xs, n, t->d_in, err);
    if (t->transcoder)
        ok = ok && floats(t, &t->ys, n, t->d_out, err);
    else
        t->ys = t->xs;
    if (t->o.pre_bias > 0)
        ok = ok && floats(t, &t->xc, n, t->d_in, err);
    else
        t->xc = t->xs;
    for (size_t j = 0; ok && j < n_prefixes(t); j++)
        ok = floats(t, &t->G[j], n, t->d_out, err);
    ok = ok && floats(t, &t->G2, n, t->d_out, err) && floats(t, &t->partial, partial, 1, err) &&
         (t->row_sum = sonde_arena_get(t->arena, n, N_ROW * sizeof(double), err));
    if (ok && t->o.skip > 0) {
        t->skip_rows = (sonde_packed){.kernels = t->kernels, .k = n, .n = t->d_in};
        ok = floats(t, &t->skip_rows.data, sonde_packed_floats(t->kernels, n, t->d_in), 1, err) &&
             floats(t, &t->skip_tile, (size_t)t->n_threads * SKIP_TILE, n, err);
    }
    if (!ok)
        return SONDE_E_MEMORY;
    t->room = n;
    return SONDE_OK;
}
