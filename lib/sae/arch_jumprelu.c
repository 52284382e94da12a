/* SPDX-License-Identifier: MIT
 * JumpReLU autoencoders (Rajamanoharan et al. 2024b): f = z 1[z > theta], a threshold per latent learned
 * directly (not its logarithm, under which Adam hardly moves it).
 *
 * Straight-through estimates with the rectangle K(u) = 1[|u| < 1/2] of width epsilon, on z:
 *   df/dz = 1[z > theta];   df/dtheta = -(theta / epsilon) K((z - theta) / epsilon);
 *   d1[z > theta]/dtheta = -(1 / epsilon) K((z - theta) / epsilon)
 * Penalties: l0 L0 (STEP), l0 (L0 / target - 1)^2 (TARGET), l0 mean_b sum tanh(c f ||W_dec||) (TANH); and
 * with pre_act mean_b sum relu(theta - z) ||W_dec||, whose gradient is that of all rows minus that of the
 * active ones. */
#include <math.h>

#include "../num/activation.h"
#include "defaults_impl.h"
#include "trainer_impl.h"

static void init(sonde_trainer *t)
{
    for (size_t i = 0; i < t->F; i++)
        t->p[P_THRESHOLD].w[i] = (float)t->o.threshold;
}

/* Everything that is active or within the kernel. */
static void pick(sonde_trainer *t, size_t n, sonde_encoding *e)
{
    (void)n;
    for (size_t i = 0; i < t->F; i++)
        t->bound[i] = t->p[P_THRESHOLD].w[i] - (float)(t->o.bandwidth / 2);
    e->pick = SONDE_PICK_ABOVE;
    e->bound = t->bound;
}

static void activate(const sonde_trainer *t, size_t n, const uint32_t *col, const float *z, float *f)
{
    for (size_t j = 0; j < n; j++)
        f[j] = z[j] > t->p[P_THRESHOLD].w[col[j]] ? z[j] : 0;
}

/* dL/d(number of active entries): the same for all of them; 0 for TANH. */
static double count_gradient(const sonde_trainer *t)
{
    const double B = (double)t->n_rows, coef = t->o.l0 * t->sparsity;
    if (t->o.jump_penalty == SONDE_JUMP_STEP)
        return coef / B;
    if (t->o.jump_penalty == SONDE_JUMP_TARGET)
        return 2 * coef * ((double)t->n_active / B / t->o.target_l0 - 1) / t->o.target_l0 / B;
    return 0;
}

/* The penalty of the whole batch goes to the first latent's share. */
static double count_penalty(const sonde_trainer *t, size_t latent)
{
    const double l0 = (double)t->n_active / (double)t->n_rows, coef = t->o.l0 * t->sparsity;
    if (latent > 0 || t->o.jump_penalty == SONDE_JUMP_TANH)
        return 0;
    if (t->o.jump_penalty == SONDE_JUMP_STEP)
        return coef * l0;
    return coef * (l0 / t->o.target_l0 - 1) * (l0 / t->o.target_l0 - 1);
}

/* sum over rows of relu(theta - z) for one latent: all rows, less those above. */
static void pre_act_loss(const sonde_trainer *t, size_t i, const struct column *c, double norm,
                         struct column_gradient *g)
{
    if (!(t->o.pre_act > 0) || (t->o.pre_act_dead_only > 0 && t->silent[i] < t->o.dead_window))
        return;
    const double B = (double)t->n_rows, theta = t->p[P_THRESHOLD].w[i], coef = t->o.pre_act / B;
    double below = B * (theta - (double)t->p[P_B_ENC].w[i]), n_below = B;
    for (size_t j = 0; j < t->d_in; j++)
        below -= (double)t->enc_sum[j] * (double)t->p[P_W_ENC].w[i * t->d_in + j];
    g->all_rows = (float)(-coef * norm);
    for (size_t j = 0; j < c->n; j++)
        if (c->z[j] >= t->p[P_THRESHOLD].w[i]) {
            below -= theta - (double)c->z[j];
            n_below -= 1;
            c->dz[j] -= g->all_rows;
        }
    g->penalty += coef * norm * below;
    g->threshold += (float)(coef * norm * n_below);
    g->norm += t->o.unit_decoder > 0 ? 0 : (float)(coef * below);
}

static void backward(const sonde_trainer *t, size_t i, const struct column *c, struct column_gradient *g)
{
    const float theta = t->p[P_THRESHOLD].w[i], half = (float)(t->o.bandwidth / 2);
    const bool tanh_penalty = t->o.jump_penalty == SONDE_JUMP_TANH;
    const double count = count_gradient(t), each = t->o.l0 * t->sparsity / (double)t->n_rows,
                 scale = t->o.tanh_scale;
    const double norm = t->o.unit_decoder > 0
                            ? 1
                            : sqrt(sonde_sum_squares(t->kernels, t->d_out, t->p[P_W_DEC].w + i * t->d_out));
    double threshold = 0, penalty = count_penalty(t, i), by_norm = 0;
    for (size_t j = 0; j < c->n; j++) {
        const bool active = c->z[j] > theta, near = fabsf(c->z[j] - theta) < half;
        double df = c->df[j];
        if (tanh_penalty) { /* near but inactive entries have f = 0, where the slope is that at 0 */
            const double h = sonde_tanhf((float)(scale * (double)c->f[j] * norm)),
                         slope = each * scale * (1 - h * h);
            penalty += each * h;
            by_norm += slope * (double)c->f[j];
            df += slope * norm;
        }
        if (near)
            threshold -= (df * (double)theta + count) / t->o.bandwidth;
        c->dz[j] = active ? (float)df : 0;
    }
    g->penalty = penalty;
    g->threshold = (float)threshold;
    g->norm = t->o.unit_decoder > 0 ? 0 : (float)by_norm;
    pre_act_loss(t, i, c, norm, g);
}

static enum sonde_code after(sonde_trainer *t, size_t n, const sonde_work *work, sonde_err *err)
{
    (void)n;
    (void)work;
    (void)err;
    for (size_t i = 0; i < t->F; i++)
        t->p[P_THRESHOLD].w[i] = fmaxf(t->p[P_THRESHOLD].w[i], 0);
    return SONDE_OK;
}

/* The coefficient that leaves about k latents active: at the optimum it is what the k-th takes off the FVU.
 * Measured at k 4, 16 and 48 with 512 and 1024 latents on a residual stream 64 wide: L0 came within a factor
 * of 1.7 of k. */
static double default_coefficient(const sonde_train_options *o, double k)
{
    if (o->jump_penalty == SONDE_JUMP_STEP)
        return 0.05 / k;
    if (o->jump_penalty == SONDE_JUMP_TANH)
        return 0.06 / sqrt(k);
    return 1;
}

/* A pre-activation of a unit row and of rows with E||x||^2 = 1 that have nothing to do with it has standard
 * deviation 1 / sqrt(d). The kernel's width is a share of that: a density estimated from one batch wants the
 * order of it (Silverman's rule), and a latent whose threshold is out of reach of a narrower one is lost. */
static void defaults(sonde_train_options *o, size_t d_in, uint64_t n_steps)
{
    const double spread = default_norm(o, d_in) / sqrt((double)d_in);
    default_choice(&o->jump_penalty, SONDE_JUMP_TARGET);
    default_number(&o->l0, default_coefficient(o, fmax(1, (double)o->k)));
    default_number(&o->beta1, 0);
    default_number(&o->bandwidth, 0.6 * spread);
    default_number(&o->threshold, 0.08 * spread);
    default_number(&o->pre_act, 1e-3);
    default_count(&o->sparsity_warmup, n_steps / 10);
}

const struct sae_arch arch_jumprelu = {
    .name = "jumprelu",
    .about = "a learned threshold per latent, with an L0 penalty (Rajamanoharan et al. 2024)",
    .traits = ARCH_THRESHOLD,
    .act = SONDE_DICT_JUMPRELU,
    .defaults = defaults,
    .init = init,
    .pick = pick,
    .activate = activate,
    .backward = backward,
    .after = after,
};
