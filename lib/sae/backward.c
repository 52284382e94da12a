/* SPDX-License-Identifier: MIT
 * Gradients: latent by latent from their entries, and what is not per latent. Nothing of the state changes
 * here. */
#include <math.h>
#include <string.h>

#include "trainer_impl.h"

struct backward_job {
    sonde_trainer *t;
    size_t n;
};

/* Everything of latent i. False: no gradient at all, and its rows were not written. */
static bool latent(sonde_trainer *t, size_t i, size_t n_rows)
{
    struct columns *m = &t->main;
    const size_t at = m->start[i], n = m->start[i + 1] - at, d = t->d_out;
    const float *w_dec = t->p[P_W_DEC].w + i * d;
    const struct entries e = {n, m->row + at, m->z + at, m->f + at, m->df + at, m->dz + at};
    struct column_gradient g = {0};
    sonde_gather_dot(t->kernels, n, e.row, t->G[prefix_of(t, i)], d, d, w_dec, m->df + at);
    if (t->arch->traits & ARCH_GATE)
        sonde_gather_dot(t->kernels, n, e.row, t->G2, d, d, w_dec, e.dz);
    latent_entries(t, i, &e, &g);
    if (!latent_moves(t, i, n, &g))
        return false;
    latent_sums(t, i, &e);
    latent_end(t, i, n_rows, &g);
    return true;
}

static void latent_task(void *arg, size_t block, int thread)
{
    (void)thread;
    const struct backward_job *q = arg;
    sonde_trainer *t = q->t;
    const size_t i0 = block * BLOCK_LATENT, i1 = i0 + BLOCK_LATENT < t->F ? i0 + BLOCK_LATENT : t->F;
    for (size_t i = i0; i < i1; i++)
        t->touched[i] = latent(t, i, q->n);
    latent_block_end(t, block);
}

/* ---- what is not per latent ------------------------------------------------------------------ */

/* From the block sums of the forward pass; before t->partial is used again. */
static void bias_from_rows(sonde_trainer *t, size_t n)
{
    const size_t d = t->d_out, blocks = (n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const bool gate = gate_moves_decoder(t);
    float *g = t->p[P_B_DEC].g;
    for (size_t i = 0; i < d; i++) {
        double sum = 0;
        for (size_t b = 0; b < blocks; b++)
            sum += (double)t->partial[b * 2 * d + i] + (gate ? (double)t->partial[b * 2 * d + d + i] : 0.0);
        g[i] = (float)sum;
    }
    if (n_prefixes(t) > 1 && t->o.bias_weight > 0)
        for (size_t i = 0; i < d; i++) {
            double sum = 0;
            for (size_t r = 0; r < n; r++)
                sum += (double)t->p[P_B_DEC].w[i] - (double)t->ys[r * d + i];
            g[i] += (float)(2 * t->o.bias_weight * t->recon_scale * sum / (double)n);
        }
}

static void bias_from_latents(sonde_trainer *t)
{
    const size_t d = t->d_in, blocks = (t->F + BLOCK_LATENT - 1) / BLOCK_LATENT;
    if (t->o.pre_bias <= 0)
        return;
    for (size_t i = 0; i < d; i++) {
        double sum = 0;
        for (size_t b = 0; b < blocks; b++)
            sum += t->partial[b * d + i];
        t->p[P_B_DEC].g[i] = (float)(t->p[P_B_DEC].g[i] - sum);
    }
}

/* dW_skip = G^T xs as a product of transposed tiles of G with the packed rows of xs. */
static void skip_task(void *arg, size_t block, int thread)
{
    const struct backward_job *q = arg;
    sonde_trainer *t = q->t;
    const size_t d = t->d_out, i0 = block * SKIP_TILE, i1 = i0 + SKIP_TILE < d ? i0 + SKIP_TILE : d;
    float *tile = t->skip_tile + (size_t)thread * SKIP_TILE * t->room;
    const bool gate = gate_moves_decoder(t);
    for (size_t i = i0; i < i1; i++)
        for (size_t r = 0; r < q->n; r++)
            tile[(i - i0) * q->n + r] = t->G[0][r * d + i] + (gate ? t->G2[r * d + i] : 0);
    sonde_matmul(&t->skip_rows, q->n, 0, t->d_in, tile, q->n, i1 - i0, t->p[P_W_SKIP].g + i0 * t->d_in,
                 t->d_in, NULL);
}

static double norm_of(const sonde_trainer *t)
{
    double sum = 0;
    for (size_t i = 0; i < t->F; i++)
        if (t->touched[i])
            sum += t->latent_sum[i * N_LATENT_SUM + LATENT_NORM];
    sum += sonde_sum_squares(t->kernels, t->d_out, t->p[P_B_DEC].g);
    if (t->p[P_W_SKIP].w)
        sum += sonde_sum_squares(t->kernels, t->d_out * t->d_in, t->p[P_W_SKIP].g);
    return sqrt(sum);
}

static enum sonde_code name_bad_gradient(const sonde_trainer *t, sonde_err *err)
{
    const unsigned long long step = t->c.step + 1;
    for (size_t i = 0; i < t->F; i++)
        if (t->touched[i] && !isfinite(t->latent_sum[i * N_LATENT_SUM + LATENT_NORM]))
            return sonde_fail(err, SONDE_E_NUMERIC,
                              "step %llu: the gradient of latent %zu is not finite; a lower --lr may help",
                              step, i);
    return sonde_fail(err, SONDE_E_NUMERIC,
                      "step %llu: the gradient of b_dec is not finite; a lower --lr may help", step);
}

/* sum of the encoder's inputs, rows ascending (for gradients that every row shares) */
static void sum_inputs(sonde_trainer *t, size_t n)
{
    memset(t->enc_sum, 0, t->d_in * sizeof(float));
    for (size_t r = 0; r < n; r++)
        sonde_vec_add(t->kernels, t->d_in, t->enc_sum, t->xc + r * t->d_in, t->enc_sum);
}

/* All latents; the block sums of the forward pass are gone afterwards. */
static enum sonde_code all_latents(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_err *err)
{
    if (t->dense) {
        dense_backward(t, n, pool);
        return SONDE_OK;
    }
    const enum sonde_code code =
        columns_from_rows(t, &t->main, &t->z, t->arch->activate ? t->f : NULL, pool, err);
    struct backward_job q = {t, n};
    if (!code)
        sonde_pool_run(pool, (t->F + BLOCK_LATENT - 1) / BLOCK_LATENT, latent_task, &q);
    return code;
}

enum sonde_code trainer_backward(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_step_report *rep,
                                 sonde_err *err)
{
    struct backward_job q = {t, n};
    bias_from_rows(t, n);
    if (t->o.pre_act > 0)
        sum_inputs(t, n);
    const enum sonde_code code = all_latents(t, n, pool, err);
    if (code)
        return code;
    bias_from_latents(t);
    if (t->p[P_W_SKIP].w) {
        sonde_pack(&t->skip_rows, 0, n, 0, t->d_in, t->xs, t->d_in, 1);
        sonde_pool_run(pool, (t->d_out + SKIP_TILE - 1) / SKIP_TILE, skip_task, &q);
    }
    rep->penalty = 0;
    for (size_t i = 0; i < t->F; i++)
        rep->penalty += t->latent_sum[i * N_LATENT_SUM + LATENT_PENALTY];
    rep->loss += rep->penalty;
    rep->gradient_norm = norm_of(t);
    return isfinite(rep->gradient_norm) ? SONDE_OK : name_bad_gradient(t, err);
}
