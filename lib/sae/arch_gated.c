/* SPDX-License-Identifier: MIT
 * Gated autoencoders (Rajamanoharan et al. 2024a): one half of the encoder says which latents are active, the
 * other how much.
 *
 *   pi = z (b_enc is the gate's bias);   f = 1[pi > 0] relu(exp(r_mag) (pi - b_enc) + b_mag)
 *   penalty = l1 mean_b sum_i relu(pi_i) [||W_dec,i|| where decoders are free]
 * and the gate's own reconstruction relu(pi) W_dec + b_dec [+ x W_skip^T], through a decoder that is held
 * constant unless gated_detach is 0 (SAELens). */
#include <math.h>

#include "../num/activation.h"
#include "defaults_impl.h"
#include "trainer_impl.h"

static void pick(sonde_trainer *t, size_t n, sonde_encoding *e)
{
    (void)n;
    for (size_t i = 0; i < t->F; i++)
        t->exp_r_mag[i] = sonde_expf(t->p[P_R_MAG].w[i]);
    e->pick = SONDE_PICK_ABOVE;
    e->bound = t->bound; /* zeros */
}

static void activate(const sonde_trainer *t, size_t n, const uint32_t *col, const float *z, float *f)
{
    for (size_t j = 0; j < n; j++) {
        const uint32_t i = col[j];
        const float m = t->exp_r_mag[i] * (z[j] - t->p[P_B_ENC].w[i]) + t->p[P_B_MAG].w[i];
        f[j] = m > 0 ? m : 0;
    }
}

static void backward(const sonde_trainer *t, size_t i, const struct column *c, struct column_gradient *g)
{
    const double each = t->o.l1 * t->sparsity / (double)t->n_rows;
    const bool unit = t->o.unit_decoder > 0;
    const double norm =
        unit ? 1 : sqrt(sonde_sum_squares(t->kernels, t->d_out, t->p[P_W_DEC].w + i * t->d_out));
    const float push = (float)(each * norm), scale = sonde_expf(t->p[P_R_MAG].w[i]),
                bias = t->p[P_B_ENC].w[i];
    double sum = 0, magnitude = 0, rate = 0;
    for (size_t j = 0; j < c->n; j++) {
        const float dm = c->f[j] > 0 ? c->df[j] : 0;
        const float dpi = c->dgate[j] + push; /* before dz is written: they may be one array */
        sum += c->z[j];
        magnitude += dm;
        rate += (double)dm * (double)(scale * (c->z[j] - bias));
        c->dz[j] = dpi + dm * scale;
    }
    g->penalty = each * norm * sum;
    g->norm = unit ? 0 : (float)(each * sum);
    g->b_mag = (float)magnitude;
    g->r_mag = (float)rate;
    g->b_enc = (float)(-magnitude * (double)scale); /* the magnitude does not see the gate's bias */
}

static void defaults(sonde_train_options *o, size_t d_in, uint64_t n_steps)
{
    default_choice(&o->loss, SONDE_LOSS_SUM);
    default_l1(o, d_in, 2); /* two reconstructions pull at the encoder against one penalty */
    default_number(&o->beta1, 0);
    default_count(&o->sparsity_warmup, n_steps / 20);
}

const struct sae_arch arch_gated = {
    .name = "gated",
    .about = "gate and magnitude apart, L1 on the gate (Rajamanoharan et al. 2024)",
    .traits = ARCH_GATE | ARCH_MAGNITUDE,
    .act = SONDE_DICT_GATED,
    .defaults = defaults,
    .pick = pick,
    .activate = activate,
    .backward = backward,
};
