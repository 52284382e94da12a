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

/* ---- one block of rows ----------------------------------------------------------------------- */

struct forward_job {
    sonde_trainer *t;
    size_t n;
    const float *f; /* of each entry of t->z */
};

/* f W_dec over the latents of prefix j into G[j], going on from the prefix before (the first one from the
 * skip connection, which lies there); *at moves past its entries. */
static void decode_prefix(const struct forward_job *q, size_t r, size_t j, size_t *at)
{
    const sonde_trainer *t = q->t;
    const size_t d = t->d_out, end = t->z.start[r + 1], limit = prefix_end(t, j);
    size_t stop = *at;
    while (stop < end && t->z.col[stop] < limit)
        stop++;
    float *e = t->G[j] + r * d;
    const float *from = j ? t->G[j - 1] + r * d : t->w_skip.data ? e : NULL;
    sonde_gather_sum(t->kernels, stop - *at, t->z.col + *at, q->f + *at, t->p[P_W_DEC].w, d, d, from, NULL,
                     e);
    *at = stop;
}

/* The gate's own reconstruction from relu(z), with decoder and skip connection as they are; b_dec comes
 * later.
 */
static void decode_gate(const struct forward_job *q, size_t r)
{
    const sonde_trainer *t = q->t;
    const size_t d = t->d_out, at = t->z.start[r], n = t->z.start[r + 1] - at;
    float *e = t->G2 + r * d;
    sonde_gather_sum(t->kernels, n, t->z.col + at, t->z.value + at, t->p[P_W_DEC].w, d, d,
                     t->w_skip.data ? e : NULL, NULL, e);
}

/* What the entries of row r reconstruct, and their sums. */
static void decode_row(const struct forward_job *q, size_t r)
{
    sonde_trainer *t = q->t;
    const size_t first = t->z.start[r], end = t->z.start[r + 1];
    double *sum = t->row_sum + r * N_ROW;
    size_t at = first;
    for (size_t j = 0; j < n_prefixes(t); j++)
        decode_prefix(q, r, j, &at);
    if (t->arch->traits & ARCH_GATE)
        decode_gate(q, r);
    size_t active = 0;
    for (size_t e = first; e < end; e++) {
        sum[ROW_L1] += q->f[e];
        active += q->f[e] != 0;
    }
    sum[ROW_ACTIVE] = (double)active;
    sum[ROW_ENTRIES] = (double)(end - first);
}

/* The losses of row r, and dL/dy^ of each prefix, summed from the last one down. */
static void row_losses(sonde_trainer *t, size_t n_rows, size_t r)
{
    const size_t d = t->d_out, n = n_prefixes(t), last = n - 1;
    const float *y = t->ys + r * d, *b_dec = t->p[P_B_DEC].w;
    double *sum = t->row_sum + r * N_ROW;
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
        sonde_scale(t->kernels, d, (float)(2 * weight * t->recon_scale / (double)n_rows), e, e);
        if (j < last)
            sonde_vec_add(t->kernels, d, e, t->G[j + 1] + r * d, e);
    }
}

/* The loss of the gate's own reconstruction, and dL/d of it. */
static void gate_loss(sonde_trainer *t, size_t n_rows, size_t r)
{
    const size_t d = t->d_out;
    float *e = t->G2 + r * d;
    sonde_vec_add(t->kernels, d, e, t->p[P_B_DEC].w, e);
    sonde_vec_sub(t->kernels, d, e, t->ys + r * d, e);
    t->row_sum[r * N_ROW + ROW_GATE] = sonde_sum_squares(t->kernels, d, e);
    sonde_scale(t->kernels, d, (float)(2 * t->recon_scale / (double)n_rows), e, e);
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

void trainer_losses(sonde_trainer *t, size_t n, size_t block)
{
    const size_t r0 = block * BLOCK_ROWS, r1 = r0 + BLOCK_ROWS < n ? r0 + BLOCK_ROWS : n;
    for (size_t r = r0; r < r1; r++) {
        row_losses(t, n, r);
        if (t->arch->traits & ARCH_GATE)
            gate_loss(t, n, r);
    }
    block_sums(t, block, r0, r1);
}

void trainer_skip(sonde_trainer *t, size_t r0, size_t rows)
{
    const size_t d = t->d_out;
    if (!t->w_skip.data)
        return;
    sonde_matmul(&t->w_skip, 0, 0, d, t->xs + r0 * t->d_in, t->d_in, rows, t->G[0] + r0 * d, d, NULL);
    if (t->arch->traits & ARCH_GATE)
        memcpy(t->G2 + r0 * d, t->G[0] + r0 * d, rows * d * sizeof(float));
}

static void forward_task(void *arg, size_t block, int thread)
{
    (void)thread;
    const struct forward_job *q = arg;
    sonde_trainer *t = q->t;
    const size_t r0 = block * BLOCK_ROWS, r1 = r0 + BLOCK_ROWS < q->n ? r0 + BLOCK_ROWS : q->n;
    const size_t first = t->z.start[r0];
    if (t->arch->activate)
        t->arch->activate(t, t->z.start[r1] - first, t->z.col + first, t->z.value + first, t->f + first);
    trainer_skip(t, r0, r1 - r0);
    for (size_t r = r0; r < r1; r++)
        decode_row(q, r);
    trainer_losses(t, q->n, block);
}

/* ---- the whole ------------------------------------------------------------------------------- */

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

static sonde_encoding encoding_of(sonde_trainer *t, size_t n)
{
    sonde_encoding e = {.w = &t->w_enc, .bias = t->p[P_B_ENC].w};
    if (t->w_enc16.data) {
        e.w16 = &t->w_enc16;
        e.rows = t->p[P_W_ENC].w;
    }
    t->arch->pick(t, n, &e);
    return e;
}

/* Row r of the batch was not reconstructed: what is its largest latent? */
static enum sonde_code name_latent(sonde_trainer *t, size_t r, sonde_err *err)
{
    size_t at = t->dense ? 0 : t->z.start[r], end = t->dense ? 0 : t->z.start[r + 1];
    if (t->dense) { /* of such a step nothing is kept: encode the row again */
        sonde_encoding e = encoding_of(t, 1);
        if (!sonde_encode_rows(&e, t->xc + r * t->d_in, t->d_in, 1, NULL, t->space, &t->z, NULL, err))
            end = t->z.start[1];
    }
    size_t top = at;
    for (size_t i = at; i < end; i++)
        if (!(fabsf(t->z.value[i]) <= fabsf(t->z.value[top])))
            top = i;
    return sonde_fail(
        err, SONDE_E_NUMERIC,
        "step %llu: the reconstruction of row %zu of the batch is not finite (largest latent %u: "
        "%g); a lower --lr may help",
        (unsigned long long)t->c.step + 1, r, end > at ? t->z.col[top] : 0,
        end > at ? (double)t->z.value[top] : 0.0);
}

static enum sonde_code name_bad_row(sonde_trainer *t, size_t n, sonde_err *err)
{
    for (size_t r = 0; r < n; r++)
        if (!isfinite(t->row_sum[r * N_ROW + ROW_ERROR])) {
            for (size_t i = 0; i < t->d_in; i++)
                if (!isfinite(t->xs[r * t->d_in + i]))
                    return sonde_fail(err, SONDE_E_NUMERIC,
                                      "step %llu: row %zu of the batch holds NaN or infinity in column %zu",
                                      (unsigned long long)t->c.step + 1, r, i);
            return name_latent(t, r, err);
        }
    return sonde_fail(err, SONDE_E_NUMERIC, "step %llu: the loss is not finite",
                      (unsigned long long)t->c.step + 1);
}

/* Encode into t->z, unless that would be too many entries: then the step is dense. A density known from the
 * step before decides without encoding. */
static enum sonde_code encode(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_err *err)
{
    sonde_encoding e = encoding_of(t, n);
    size_t n_wanted = 0;
    const size_t most = dense_max_entries(t, n);
    t->dense = false;
    if (e.pick != SONDE_PICK_ABOVE)
        return sonde_encode_rows(&e, t->xc, t->d_in, n, pool, t->space, &t->z, NULL, err);
    t->dense = t->c.density * (double)n * (double)t->F > (double)most;
    if (t->dense)
        return SONDE_OK;
    e.max_entries = most;
    const enum sonde_code code =
        sonde_encode_rows(&e, t->xc, t->d_in, n, pool, t->space, &t->z, &n_wanted, err);
    t->dense = !code && n_wanted > most;
    return code;
}

/* Reconstructions, losses and dL/dy^ of all rows. */
static enum sonde_code reconstruct(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_err *err)
{
    memset(t->row_sum, 0, n * N_ROW * sizeof *t->row_sum);
    if (t->dense)
        return dense_forward(t, n, pool, err);
    struct forward_job q = {t, n, t->z.value};
    enum sonde_code code;
    dense_free(t);
    if (t->arch->activate) {
        if ((code = room_for_values(t, t->z.start[n], err)))
            return code;
        q.f = t->f;
    }
    sonde_pool_run(pool, (n + BLOCK_ROWS - 1) / BLOCK_ROWS, forward_task, &q);
    return SONDE_OK;
}

enum sonde_code trainer_forward(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_step_report *rep,
                                sonde_err *err)
{
    enum sonde_code code;
    t->recon_scale = recon_scale(t);
    if ((code = encode(t, n, pool, err)) || (code = reconstruct(t, n, pool, err)))
        return code;
    double total[N_ROW];
    sum_rows(t, n, total);
    const double B = (double)n, bias = n_prefixes(t) > 1 && t->o.bias_weight > 0 ? bias_term(t, n) : 0;
    t->n_entries = (size_t)total[ROW_ENTRIES];
    t->n_active = (size_t)total[ROW_ACTIVE];
    rep->recon = total[ROW_ERROR] / B;
    rep->fvu = t->c.var_m2 > 0 ? rep->recon * t->c.var_n / t->c.var_m2 : 0;
    rep->l0 = (double)t->n_active / B;
    rep->l1 = total[ROW_L1] / B;
    rep->loss =
        t->recon_scale * (total[ROW_LOSS] + total[ROW_GATE] + (bias > 0 ? t->o.bias_weight * bias : 0)) / B;
    return isfinite(rep->loss) ? SONDE_OK : name_bad_row(t, n, err);
}
