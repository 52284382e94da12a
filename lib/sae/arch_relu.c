/* SPDX-License-Identifier: MIT
 * ReLU autoencoders with an L1 penalty: with norms in the penalty (Anthropic, April 2024), and with unit
 * decoders and resampling (Bricken et al. 2023). Penalty: l1 mean_b sum_i f_i ||W_dec,i||. */
#include <math.h>

#include "defaults_impl.h"
#include "trainer_impl.h"

static void pick_positive(sonde_trainer *t, size_t n, sonde_encoding *e)
{
    (void)n;
    e->pick = SONDE_PICK_ABOVE;
    e->bound = t->bound; /* zeros */
}

static void backward(const sonde_trainer *t, size_t i, const struct column *c, struct column_gradient *g)
{
    const double each = t->o.l1 * t->sparsity / (double)t->n_rows;
    const bool unit = t->o.unit_decoder > 0;
    const double norm =
        unit ? 1 : sqrt(sonde_sum_squares(t->kernels, t->d_out, t->p[P_W_DEC].w + i * t->d_out));
    const float push = (float)(each * norm);
    double sum = 0;
    for (size_t j = 0; j < c->n; j++) {
        sum += c->f[j];
        c->dz[j] = c->df[j] + push;
    }
    g->penalty = each * norm * sum;
    g->norm = unit ? 0 : (float)(each * sum);
}

static void defaults_2024(sonde_train_options *o, size_t d_in, uint64_t n_steps)
{
    default_choice(&o->loss, SONDE_LOSS_SUM);
    default_choice(&o->normalize, SONDE_NORMALIZE_SQRT_D);
    default_l1(o, d_in, 1);
    default_count(&o->sparsity_warmup, n_steps / 20);
    default_choice(&o->unit_decoder, 0);
    default_number(&o->decoder_norm, 0.1);
}

static void defaults_2023(sonde_train_options *o, size_t d_in, uint64_t n_steps)
{
    default_choice(&o->loss, SONDE_LOSS_SUM);
    default_l1(o, d_in, 1);
    default_count(&o->sparsity_warmup, n_steps / 20);
    default_count(&o->resample_every, o->n_tokens / 8);
    default_count(&o->resample_times, 4);
}

static enum sonde_code resample(sonde_trainer *t, size_t n, const sonde_work *work, sonde_err *err)
{
    const uint64_t every = t->o.resample_every;
    if (every == 0 || t->c.n_resampled >= t->o.resample_times || t->c.n_tokens / every <= t->c.n_resampled)
        return SONDE_OK;
    return trainer_resample(t, n, work, err);
}

const struct sae_arch arch_relu = {
    .name = "relu",
    .about = "ReLU with an L1 penalty weighted by decoder norms (Anthropic, April 2024)",
    .act = SONDE_DICT_RELU,
    .defaults = defaults_2024,
    .pick = pick_positive,
    .backward = backward,
};

const struct sae_arch arch_relu_2023 = {
    .name = "relu-2023",
    .about = "ReLU with an L1 penalty, unit decoder and resampling of dead latents (Bricken et al. 2023)",
    .act = SONDE_DICT_RELU,
    .defaults = defaults_2023,
    .pick = pick_positive,
    .backward = backward,
    .after = resample,
};
