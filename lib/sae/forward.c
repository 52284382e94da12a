/* SPDX-License-Identifier: MIT
 * The forward half of a step: which latents are active, what they reconstruct, and dL/dy^. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_impl.h"

static enum sonde_code room_for_values(sonde_trainer *t, size_t n, sonde_err *err)
{
    if (n <= t->room_f)
        return SONDE_OK;
    free(t->f);
    sonde_budget_release(t->budget, t->room_f * sizeof *t->f);
    t->f = NULL;
    t->room_f = 0;
    const size_t room = n + n / 4 + 64;
    if (!sonde_budget_hold(t->budget, room * sizeof *t->f))
        return sonde_fail(err, SONDE_E_MEMORY, "no memory within the limit for %zu active latents", room);
    if (!(t->f = malloc(room * sizeof *t->f))) {
        sonde_budget_release(t->budget, room * sizeof *t->f);
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu active latents", room);
    }
    t->room_f = room;
    return SONDE_OK;
}

/* ---- one block of rows
 * --------------------------------------------------------------------------------------------- */

struct forward_job {
    sonde_trainer *t;
    size_t n;
    const float *f; /* of each entry of t->z */
};

/* f W_dec over the latents of prefix j into G[j], going on from the prefix before; *at moves past its
 * entries. */
static void decode_prefix(const struct forward_job *q, size_t r, size_t j, size_t *at)
{
    const sonde_trainer *t = q->t;
    const size_t d = t->d_out, end = t->z.start[r + 1], limit = prefix_end(t, j);
    size_t stop = *at;
    while (stop < end && t->z.col[stop] < limit)
        stop++;
    float *e = t->G[j] + r * d;
    const float *from = j ? t->G[j - 1] + r * d : t->w_skip.data ? e : NULL;
    if (!j && from)
        sonde_matmul(&t->w_skip, 0, 0, d, t->xs + r * t->d_in, t->d_in, 1, e, d, NULL);
    sonde_gather_sum(t->kernels, stop - *at, t->z.col + *at, q->f + *at, t->p[P_W_DEC].w, d, d, from, NULL,
                     e);
    *at = stop;
}

/* The reconstructions of row r, their losses, and dL/dy^ of each, summed from the last prefix down. */
static void forward_row(const struct forward_job *q, size_t r)
{
    sonde_trainer *t = q->t;
    const size_t d = t->d_out, n = n_prefixes(t), last = n - 1;
    const float *y = t->ys + r * d, *b_dec = t->p[P_B_DEC].w;
    double *sum = t->row_sum + r * N_ROW;
    size_t at = t->z.start[r];
    for (size_t j = 0; j < n; j++)
        decode_prefix(q, r, j, &at);
    for (size_t j = n; j-- > 0;) {
        float *e = t->G[j] + r * d;
        sonde_vec_add(t->kernels, d, e, b_dec, e);
        sonde_vec_sub(t->kernels, d, e, y, e);
        const double square = sonde_sum_squares(t->kernels, d, e);
        const double weight = n > 1 ? t->o.prefix_weight[j] : 1;
        sum[ROW_LOSS] += weight * square;
        if (j == last) {
            sum[ROW_ERROR] = square;
            if (!(t->arch->traits & ARCH_GATE))
                sonde_scale(t->kernels, d, -1.0f, e, t->G2 + r * d);
        }
        sonde_scale(t->kernels, d, (float)(2 * weight * t->recon_scale / (double)q->n), e, e);
        if (j < last)
            sonde_vec_add(t->kernels, d, e, t->G[j + 1] + r * d, e);
    }
    for (size_t e = t->z.start[r]; e < t->z.start[r + 1]; e++)
        sum[ROW_L1] += q->f[e];
}

/* The gate's own reconstruction from relu(z), with decoder and skip connection as they are. */
static void gate_row(const struct forward_job *q, size_t r)
{
    sonde_trainer *t = q->t;
    const size_t d = t->d_out, at = t->z.start[r], n = t->z.start[r + 1] - at;
    float *e = t->G2 + r * d;
    if (t->w_skip.data)
        sonde_matmul(&t->w_skip, 0, 0, d, t->xs + r * t->d_in, t->d_in, 1, e, d, NULL);
    sonde_gather_sum(t->kernels, n, t->z.col + at, t->z.value + at, t->p[P_W_DEC].w, d, d,
                     t->w_skip.data ? e : NULL, t->p[P_B_DEC].w, e);
    sonde_vec_sub(t->kernels, d, e, t->ys + r * d, e);
    t->row_sum[r * N_ROW + ROW_GATE] = sonde_sum_squares(t->kernels, d, e);
    sonde_scale(t->kernels, d, (float)(2 * t->recon_scale / (double)q->n), e, e);
}

/* Sums of the block's rows, in order: dL/dy^ of the first prefix (all of it), and the residual. */
static void block_sums(const sonde_trainer *t, size_t block, size_t r0, size_t r1)
{
    const size_t d = t->d_out;
    float *gradient = t->partial + block * 2 * d, *residual = gradient + d;
    memset(gradient, 0, 2 * d * sizeof *gradient);
    for (size_t r = r0; r < r1; r++) {
        sonde_vec_add(t->kernels, d, gradient, t->G[0] + r * d, gradient);
        sonde_vec_add(t->kernels, d, residual, t->G2 + r * d, residual);
    }
}

static void forward_task(void *arg, size_t block, int thread)
{
    (void)thread;
    const struct forward_job *q = arg;
    sonde_trainer *t = q->t;
    const size_t r0 = block * BLOCK_ROWS, r1 = r0 + BLOCK_ROWS < q->n ? r0 + BLOCK_ROWS : q->n;
    memset(t->row_sum + r0 * N_ROW, 0, (r1 - r0) * N_ROW * sizeof *t->row_sum);
    for (size_t r = r0; r < r1; r++) {
        forward_row(q, r);
        if (t->arch->traits & ARCH_GATE)
            gate_row(q, r);
    }
    block_sums(t, block, r0, r1);
}

/* ---- the whole
 * ----------------------------------------------------------------------------------------------------- */

static double recon_scale(const sonde_trainer *t)
{
    switch (t->o.loss) {
    case SONDE_LOSS_MEAN:
        return 1 / (double)t->d_out;
    case SONDE_LOSS_FVU:
        return t->c.var_m2 > 0 ? t->c.var_n / t->c.var_m2 : 0;
    default:
        return 1;
    }
}

/* b_dec alone as a reconstruction (matryoshka): loss and gradient come from the mean and the sum of squares.
 */
static double bias_term(sonde_trainer *t, size_t n)
{
    double loss = 0;
    const size_t d = t->d_out;
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < d; i++) {
            const double e = (double)t->p[P_B_DEC].w[i] - (double)t->ys[r * d + i];
            loss += e * e;
        }
    return loss;
}

static void sum_rows(const sonde_trainer *t, size_t n, double total[N_ROW])
{
    memset(total, 0, N_ROW * sizeof *total);
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < N_ROW; i++)
            total[i] += t->row_sum[r * N_ROW + i];
}

static enum sonde_code name_bad_row(const sonde_trainer *t, size_t n, sonde_err *err)
{
    for (size_t r = 0; r < n; r++)
        if (!isfinite(t->row_sum[r * N_ROW + ROW_ERROR])) {
            const size_t d = t->d_in;
            for (size_t i = 0; i < d; i++)
                if (!isfinite(t->xs[r * d + i]))
                    return sonde_fail(err, SONDE_E_NUMERIC,
                                      "step %llu: row %zu of the batch holds NaN or infinity in column %zu",
                                      (unsigned long long)t->c.step + 1, r, i);
            const size_t e = t->z.start[r], end = t->z.start[r + 1];
            size_t top = e;
            for (size_t i = e; i < end; i++)
                if (!(fabsf(t->z.value[i]) <= fabsf(t->z.value[top])))
                    top = i;
            return sonde_fail(err, SONDE_E_NUMERIC,
                              "step %llu: the reconstruction of row %zu of the batch is not finite (largest "
                              "latent %u: %g); "
                              "a lower --lr may help",
                              (unsigned long long)t->c.step + 1, r, end > e ? t->z.col[top] : 0,
                              end > e ? (double)t->z.value[top] : 0.0);
        }
    return sonde_fail(err, SONDE_E_NUMERIC, "step %llu: the loss is not finite",
                      (unsigned long long)t->c.step + 1);
}

enum sonde_code trainer_forward(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_step_report *rep,
                                sonde_err *err)
{
    sonde_encoding e = {.w = &t->w_enc, .bias = t->p[P_B_ENC].w};
    if (t->w_enc16.data) {
        e.w16 = &t->w_enc16;
        e.rows = t->p[P_W_ENC].w;
    }
    t->arch->pick(t, n, &e);
    enum sonde_code code = sonde_encode_rows(&e, t->xc, t->d_in, n, pool, t->space, &t->z, NULL, err);
    if (code)
        return code;
    const size_t n_entries = t->z.start[n];
    struct forward_job q = {t, n, t->z.value};
    if (t->arch->activate) {
        if ((code = room_for_values(t, n_entries, err)))
            return code;
        t->arch->activate(t, n_entries, t->z.col, t->z.value, t->f);
        q.f = t->f;
    }
    t->n_active = 0;
    for (size_t i = 0; i < n_entries; i++)
        t->n_active += q.f[i] != 0;
    t->recon_scale = recon_scale(t);
    sonde_pool_run(pool, (n + BLOCK_ROWS - 1) / BLOCK_ROWS, forward_task, &q);

    double total[N_ROW];
    sum_rows(t, n, total);
    const double B = (double)n, bias = n_prefixes(t) > 1 && t->o.bias_weight > 0 ? bias_term(t, n) : 0;
    rep->recon = total[ROW_ERROR] / B;
    rep->fvu = t->c.var_m2 > 0 ? rep->recon * t->c.var_n / t->c.var_m2 : 0;
    rep->l0 = (double)t->n_active / B;
    rep->l1 = total[ROW_L1] / B;
    rep->loss =
        t->recon_scale * (total[ROW_LOSS] + total[ROW_GATE] + (bias > 0 ? t->o.bias_weight * bias : 0)) / B;
    return isfinite(rep->loss) ? SONDE_OK : name_bad_row(t, n, err);
}
