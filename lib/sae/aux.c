/* SPDX-License-Identifier: MIT
 * AuxK (Gao et al. 2024, section A.2): the dead latents model what the living leave over.
 *
 * With r = y - y^ (a constant here) and a the reconstruction of r by the aux_k largest dead latents of each
 * row, without b_dec:  loss = aux_coef sum ||a - r||^2 / sum ||r - mean r||^2. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_impl.h"

static void find_dead(sonde_trainer *t)
{
    t->n_dead = 0;
    for (size_t i = 0; i < t->F; i++)
        if (t->silent[i] >= t->o.dead_window)
            t->dead_id[t->n_dead++] = (uint32_t)i;
}

/* Room for n floats of the dead, and half as many again, so that a slowly growing number of them is not
 * copied about. */
static bool make_room(sonde_trainer *t, size_t n, sonde_err *err)
{
    const size_t all = sonde_packed_floats(t->kernels, t->d_in, t->F) + t->F,
                 some = n + n / 2 < all ? n + n / 2 : all;
    const size_t room = (some + 15) / 16 * 16;
    trainer_forget_dead(t);
    if (!sonde_budget_hold(t->budget, room * sizeof(float))) {
        sonde_fail(err, SONDE_E_MEMORY, "no memory within the limit for the encoder of %zu dead latents",
                   t->n_dead);
        return false;
    }
    t->room_dead = room;
    if ((t->dead_rows = aligned_alloc(64, room * sizeof(float))))
        return true;
    trainer_forget_dead(t);
    sonde_fail(err, SONDE_E_MEMORY, "no memory for the encoder of %zu dead latents", t->n_dead);
    return false;
}

void trainer_forget_dead(sonde_trainer *t)
{
    free(t->dead_rows);
    sonde_budget_release(t->budget, t->room_dead * sizeof(float));
    t->dead_rows = NULL;
    t->room_dead = 0;
}

/* The encoder of the dead latents alone, packed, and their biases behind it. */
static enum sonde_code pack_dead(sonde_trainer *t, sonde_packed *w, const float **bias, sonde_err *err)
{
    const size_t floats = sonde_packed_floats(t->kernels, t->d_in, t->n_dead), need = floats + t->n_dead;
    if (need > t->room_dead && !make_room(t, need, err))
        return SONDE_E_MEMORY;
    *w = (sonde_packed){.kernels = t->kernels, .k = t->d_in, .n = t->n_dead, .data = t->dead_rows};
    memset(t->dead_rows, 0, floats * sizeof(float));
    float *b = t->dead_rows + floats;
    for (size_t j = 0; j < t->n_dead; j++) {
        sonde_pack(w, 0, t->d_in, j, 1, t->p[P_W_ENC].w + (size_t)t->dead_id[j] * t->d_in, 1, t->d_in);
        b[j] = t->p[P_B_ENC].w[t->dead_id[j]];
    }
    *bias = b;
    return SONDE_OK;
}

/* sum ||r - mean r||^2 from the block sums of the forward pass and the rows' squared errors. */
static double residual_spread(const sonde_trainer *t, size_t n)
{
    const size_t d = t->d_out, blocks = (n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    double total = 0, centre = 0;
    for (size_t r = 0; r < n; r++)
        total += t->row_sum[r * N_ROW + ROW_ERROR];
    for (size_t i = 0; i < d; i++) {
        double sum = 0;
        for (size_t b = 0; b < blocks; b++)
            sum += t->partial[b * 2 * d + d + i];
        centre += sum * sum;
    }
    return total - centre / (double)n;
}

struct aux_job {
    sonde_trainer *t;
    size_t n;
    const uint32_t *id; /* latent of each entry */
    double scale;       /* of 2 (a - r) */
};

/* G2 held r; now it becomes dL/da. */
static void aux_task(void *arg, size_t block, int thread)
{
    (void)thread;
    const struct aux_job *q = arg;
    sonde_trainer *t = q->t;
    const size_t d = t->d_out, r0 = block * BLOCK_ROWS, r1 = r0 + BLOCK_ROWS < q->n ? r0 + BLOCK_ROWS : q->n;
    for (size_t r = r0; r < r1; r++) {
        float *e = t->G2 + r * d;
        const size_t at = t->aux.start[r], n = t->aux.start[r + 1] - at;
        sonde_scale(t->kernels, d, -1.0f, e, e);
        sonde_gather_sum(t->kernels, n, q->id + at, t->aux.value + at, t->p[P_W_DEC].w, d, d, e, NULL, e);
        t->row_sum[r * N_ROW + ROW_ERROR] = sonde_sum_squares(t->kernels, d, e);
        sonde_scale(t->kernels, d, (float)(2 * q->scale), e, e);
    }
}

enum sonde_code trainer_aux(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_step_report *rep,
                            sonde_err *err)
{
    find_dead(t);
    rep->n_dead = t->n_dead;
    rep->aux = 0;
    if (!(t->arch->traits & ARCH_AUX) || t->o.aux_k == 0 || t->n_dead == 0)
        t->n_dead = 0;
    const double spread = t->n_dead ? residual_spread(t, n) : 0;
    if (!(spread > 0))
        t->n_dead = 0;
    if (t->n_dead == 0)
        return SONDE_OK;
    sonde_packed w;
    const float *bias;
    enum sonde_code code = pack_dead(t, &w, &bias, err);
    if (code)
        return code;
    const size_t k = t->o.aux_k < t->n_dead ? (size_t)t->o.aux_k : t->n_dead;
    const sonde_encoding e = {
        .w = &w, .bias = bias, .pick = SONDE_PICK_ROW, .k = k, .any_sign = t->o.aux_any_sign > 0};
    if ((code = sonde_encode_rows(&e, t->xc, t->d_in, n, pool, t->space_aux, &t->aux, NULL, err)))
        return code;
    const size_t entries = t->aux.start[n];
    for (size_t i = 0; i < entries; i++)
        t->aux.col[i] = t->dead_id[t->aux.col[i]];
    double coef = t->o.aux_coef;
    if (t->o.aux_scaled > 0 && t->n_dead < t->o.aux_k)
        coef *= (double)t->n_dead / (double)t->o.aux_k;
    struct aux_job q = {t, n, t->aux.col, coef / spread};
    sonde_pool_run(pool, (n + BLOCK_ROWS - 1) / BLOCK_ROWS, aux_task, &q);
    double total = 0;
    for (size_t r = 0; r < n; r++)
        total += t->row_sum[r * N_ROW + ROW_ERROR];
    rep->aux = coef * total / spread;
    rep->loss += rep->aux;
    return columns_from_rows(t, &t->dead, &t->aux, NULL, pool, err);
}
