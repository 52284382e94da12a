/* SPDX-License-Identifier: MIT
 * Gradients, latent by latent: each latent's rows are summed by one thread in ascending order, projected, and
 * their norms taken. Nothing of the state changes here. */
#include <math.h>
#include <string.h>

#include "trainer_impl.h"

/* What a latent adds to the sums of the batch: t->latent_sum[i]. */
enum { LATENT_PENALTY, LATENT_NORM, LATENT_DZ, N_LATENT_SUM };

struct backward_job {
    sonde_trainer *t;
    size_t n;
};

static float sum_of(size_t n, const float *x)
{
    float s = 0;
    for (size_t i = 0; i < n; i++)
        s += x[i];
    return s;
}

/* dz of the entries of the main reconstruction. */
static void main_entries(sonde_trainer *t, size_t i, struct column_gradient *g)
{
    struct columns *m = &t->main;
    const size_t at = m->start[i], n = m->start[i + 1] - at, d = t->d_out;
    const float *w_dec = t->p[P_W_DEC].w + i * d;
    const bool gate = t->arch->traits & ARCH_GATE;
    sonde_gather_dot(t->kernels, n, m->row + at, t->G[prefix_of(t, i)], d, d, w_dec, m->df + at);
    if (gate)
        sonde_gather_dot(t->kernels, n, m->row + at, t->G2, d, d, w_dec, m->dz + at);
    const struct column c = {n, m->z + at, m->f + at, m->df + at, gate ? m->dz + at : NULL, m->dz + at};
    if (t->arch->backward)
        t->arch->backward(t, i, &c, g);
    else
        memcpy(m->dz + at, m->df + at, n * sizeof *m->dz);
    for (size_t e = at; e < at + n; e++)
        t->fired[i] += m->f[e] != 0;
}

static void aux_entries(sonde_trainer *t, size_t i)
{
    struct columns *a = &t->dead;
    const size_t at = a->start[i], n = a->start[i + 1] - at, d = t->d_out;
    sonde_gather_dot(t->kernels, n, a->row + at, t->G2, d, d, t->p[P_W_DEC].w + i * d, a->dz + at);
}

static void decoder_gradient(sonde_trainer *t, size_t i, const struct column_gradient *g, size_t n_aux)
{
    const struct columns *m = &t->main, *a = &t->dead;
    const size_t d = t->d_out, at = m->start[i], n = m->start[i + 1] - at;
    const float *w = t->p[P_W_DEC].w + i * d;
    float *out = t->p[P_W_DEC].g + i * d;
    sonde_gather_sum(t->kernels, n, m->row + at, m->f + at, t->G[prefix_of(t, i)], d, d, NULL, NULL, out);
    if (t->arch->traits & ARCH_GATE && t->o.gated_detach == 0)
        sonde_gather_sum(t->kernels, n, m->row + at, m->z + at, t->G2, d, d, out, NULL, out);
    if (n_aux)
        sonde_gather_sum(t->kernels, n_aux, a->row + a->start[i], a->z + a->start[i], t->G2, d, d, out, NULL,
                         out);
    if (g->norm != 0) {
        const double norm = sqrt(sonde_sum_squares(t->kernels, d, w));
        if (norm > 0)
            sonde_axpy(t->kernels, d, (float)(g->norm / norm), w, out);
    }
    if (t->o.unit_decoder > 0) { /* what would change the norm is taken out */
        const double square = sonde_sum_squares(t->kernels, d, w);
        if (square > 0)
            sonde_axpy(t->kernels, d, (float)(-(double)sonde_dot(t->kernels, d, out, w) / square), w, out);
    }
}

/* Everything of latent i. False: no gradient at all, and its rows were not written. */
static bool latent(sonde_trainer *t, size_t i, size_t n_rows)
{
    const struct columns *m = &t->main, *a = &t->dead;
    const size_t d = t->d_in, at = m->start[i], n = m->start[i + 1] - at;
    const size_t n_aux = t->n_dead ? a->start[i + 1] - a->start[i] : 0;
    struct column_gradient g = {0};
    double *sum = t->latent_sum + i * N_LATENT_SUM;
    memset(sum, 0, N_LATENT_SUM * sizeof *sum);
    t->fired[i] = 0;
    main_entries(t, i, &g);
    if (n_aux)
        aux_entries(t, i);
    sum[LATENT_PENALTY] = g.penalty;
    if (n == 0 && n_aux == 0 && g.norm == 0 && g.all_rows == 0 && g.threshold == 0)
        return false;
    decoder_gradient(t, i, &g, n_aux);
    float *enc = t->p[P_W_ENC].g + i * d, dz = sum_of(n, m->dz + at);
    sonde_gather_sum(t->kernels, n, m->row + at, m->dz + at, t->xc, d, d, NULL, NULL, enc);
    if (n_aux) {
        const size_t from = a->start[i];
        sonde_gather_sum(t->kernels, n_aux, a->row + from, a->dz + from, t->xc, d, d, enc, NULL, enc);
        dz += sum_of(n_aux, a->dz + from);
    }
    if (g.all_rows != 0) {
        sonde_axpy(t->kernels, d, g.all_rows, t->enc_sum, enc);
        dz += g.all_rows * (float)n_rows;
    }
    sum[LATENT_DZ] = dz;
    t->p[P_B_ENC].g[i] = dz + g.b_enc;
    const float extra[] = {g.threshold, g.r_mag, g.b_mag};
    double norm = (double)t->p[P_B_ENC].g[i] * (double)t->p[P_B_ENC].g[i];
    for (int j = 0; j < 3; j++)
        if (t->p[P_THRESHOLD + j].w) {
            t->p[P_THRESHOLD + j].g[i] = extra[j];
            norm += (double)extra[j] * (double)extra[j];
        }
    sum[LATENT_NORM] = norm + sonde_sum_squares(t->kernels, d, enc) +
                       sonde_sum_squares(t->kernels, t->d_out, t->p[P_W_DEC].g + i * t->d_out);
    return true;
}

static void latent_task(void *arg, size_t block, int thread)
{
    (void)thread;
    const struct backward_job *q = arg;
    sonde_trainer *t = q->t;
    const size_t i0 = block * BLOCK_LATENT, i1 = i0 + BLOCK_LATENT < t->F ? i0 + BLOCK_LATENT : t->F;
    uint32_t index[BLOCK_LATENT];
    float value[BLOCK_LATENT];
    size_t n = 0;
    for (size_t i = i0; i < i1; i++)
        if ((t->touched[i] = latent(t, i, q->n))) {
            index[n] = (uint32_t)i;
            value[n++] = (float)t->latent_sum[i * N_LATENT_SUM + LATENT_DZ];
        }
    if (t->o.pre_bias > 0) /* what reaches b_dec through x - b_dec */
        sonde_gather_sum(t->kernels, n, index, value, t->p[P_W_ENC].w, t->d_in, t->d_in, NULL, NULL,
                         t->partial + block * t->d_in);
}

/* ---- what is not per latent
 * ---------------------------------------------------------------------------------------- */

/* From the block sums of the forward pass; before t->partial is used again. */
static void bias_from_rows(sonde_trainer *t, size_t n)
{
    const size_t d = t->d_out, blocks = (n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const bool gate = t->arch->traits & ARCH_GATE && t->o.gated_detach == 0;
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
    const bool gate = t->arch->traits & ARCH_GATE && t->o.gated_detach == 0;
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

enum sonde_code trainer_backward(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_step_report *rep,
                                 sonde_err *err)
{
    const float *f = t->arch->activate ? t->f : NULL;
    enum sonde_code code = columns_from_rows(t, &t->main, &t->z, f, err);
    if (code)
        return code;
    struct backward_job q = {t, n};
    bias_from_rows(t, n);
    if (t->o.pre_act > 0)
        sum_inputs(t, n);
    sonde_pool_run(pool, (t->F + BLOCK_LATENT - 1) / BLOCK_LATENT, latent_task, &q);
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
