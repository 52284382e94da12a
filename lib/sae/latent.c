/* SPDX-License-Identifier: MIT
 * The gradient of one latent: its rows are summed by one thread in ascending order, projected, and their
 * norms taken. */
#include <math.h>
#include <string.h>

#include "trainer_impl.h"

static float sum_of(size_t n, const float *x)
{
    float s = 0;
    for (size_t i = 0; i < n; i++)
        s += x[i];
    return s;
}

static size_t n_aux_of(const sonde_trainer *t, size_t i)
{
    return t->n_dead ? t->dead.start[i + 1] - t->dead.start[i] : 0;
}

void latent_entries(sonde_trainer *t, size_t i, const struct entries *e, struct column_gradient *g)
{
    const bool gate = t->arch->traits & ARCH_GATE;
    const struct column c = {e->n, e->z, e->f, e->df, gate ? e->dz : NULL, e->dz};
    double *sum = t->latent_sum + i * N_LATENT_SUM;
    if (t->arch->backward)
        t->arch->backward(t, i, &c, g);
    else
        memcpy(e->dz, e->df, e->n * sizeof *e->dz);
    uint32_t fired = 0;
    for (size_t j = 0; j < e->n; j++)
        fired += e->f[j] != 0;
    t->fired[i] = fired;
    sum[LATENT_PENALTY] = g->penalty;
    sum[LATENT_NORM] = 0;
    sum[LATENT_DZ] = sum_of(e->n, e->dz);
}

bool latent_moves(const sonde_trainer *t, size_t i, size_t n, const struct column_gradient *g)
{
    return n > 0 || n_aux_of(t, i) > 0 || g->norm != 0 || g->all_rows != 0 || g->threshold != 0;
}

void latent_sums(sonde_trainer *t, size_t i, const struct entries *e)
{
    const size_t d = t->d_out, d_in = t->d_in;
    float *dec = t->p[P_W_DEC].g + i * d;
    sonde_gather_sum(t->kernels, e->n, e->row, e->f, t->G[prefix_of(t, i)], d, d, NULL, NULL, dec);
    if (gate_moves_decoder(t))
        sonde_gather_sum(t->kernels, e->n, e->row, e->z, t->G2, d, d, dec, NULL, dec);
    sonde_gather_sum(t->kernels, e->n, e->row, e->dz, t->xc, d_in, d_in, NULL, NULL,
                     t->p[P_W_ENC].g + i * d_in);
}

/* What its auxiliary entries add to both rows; returns the sum of their dz. */
static float aux_sums(sonde_trainer *t, size_t i)
{
    struct columns *a = &t->dead;
    const size_t at = a->start[i], n = a->start[i + 1] - at, d = t->d_out, d_in = t->d_in;
    float *dec = t->p[P_W_DEC].g + i * d, *enc = t->p[P_W_ENC].g + i * d_in;
    sonde_gather_dot(t->kernels, n, a->row + at, t->G2, d, d, t->p[P_W_DEC].w + i * d, a->dz + at);
    sonde_gather_sum(t->kernels, n, a->row + at, a->z + at, t->G2, d, d, dec, NULL, dec);
    sonde_gather_sum(t->kernels, n, a->row + at, a->dz + at, t->xc, d_in, d_in, enc, NULL, enc);
    return sum_of(n, a->dz + at);
}

/* The penalty's part of the decoder's gradient; then what would change a fixed norm is taken out. */
static void decoder_end(sonde_trainer *t, size_t i, const struct column_gradient *g)
{
    const size_t d = t->d_out;
    const float *w = t->p[P_W_DEC].w + i * d;
    float *out = t->p[P_W_DEC].g + i * d;
    if (g->norm != 0) {
        const double norm = sqrt(sonde_sum_squares(t->kernels, d, w));
        if (norm > 0)
            sonde_axpy(t->kernels, d, (float)(g->norm / norm), w, out);
    }
    if (t->o.unit_decoder > 0) {
        const double square = sonde_sum_squares(t->kernels, d, w);
        if (square > 0)
            sonde_axpy(t->kernels, d, (float)(-(double)sonde_dot(t->kernels, d, out, w) / square), w, out);
    }
}

void latent_end(sonde_trainer *t, size_t i, size_t n_rows, const struct column_gradient *g)
{
    const size_t d = t->d_in;
    double *sum = t->latent_sum + i * N_LATENT_SUM;
    float *enc = t->p[P_W_ENC].g + i * d, dz = (float)sum[LATENT_DZ];
    if (n_aux_of(t, i))
        dz += aux_sums(t, i);
    decoder_end(t, i, g);
    if (g->all_rows != 0) {
        sonde_axpy(t->kernels, d, g->all_rows, t->enc_sum, enc);
        dz += g->all_rows * (float)n_rows;
    }
    sum[LATENT_DZ] = dz;
    t->p[P_B_ENC].g[i] = dz + g->b_enc;
    const float extra[] = {g->threshold, g->r_mag, g->b_mag};
    double norm = (double)t->p[P_B_ENC].g[i] * (double)t->p[P_B_ENC].g[i];
    for (int j = 0; j < 3; j++)
        if (t->p[P_THRESHOLD + j].w) {
            t->p[P_THRESHOLD + j].g[i] = extra[j];
            norm += (double)extra[j] * (double)extra[j];
        }
    sum[LATENT_NORM] = norm + sonde_sum_squares(t->kernels, d, enc) +
                       sonde_sum_squares(t->kernels, t->d_out, t->p[P_W_DEC].g + i * t->d_out);
}

void latent_block_end(sonde_trainer *t, size_t block)
{
    const size_t i0 = block * BLOCK_LATENT, i1 = i0 + BLOCK_LATENT < t->F ? i0 + BLOCK_LATENT : t->F;
    uint32_t index[BLOCK_LATENT];
    float value[BLOCK_LATENT];
    size_t n = 0;
    for (size_t i = i0; i < i1; i++)
        if (t->touched[i]) {
            index[n] = (uint32_t)i;
            value[n++] = (float)t->latent_sum[i * N_LATENT_SUM + LATENT_DZ];
        }
    if (t->o.pre_bias > 0) /* what reaches b_dec through x - b_dec */
        sonde_gather_sum(t->kernels, n, index, value, t->p[P_W_ENC].w, t->d_in, t->d_in, NULL, NULL,
                         t->partial + block * t->d_in);
}
