/* SPDX-License-Identifier: MIT
 * Defaults: a value takes the place of an auto, the first one stands. */
#ifndef SONDE_SAE_DEFAULTS_IMPL_H
#define SONDE_SAE_DEFAULTS_IMPL_H

#include <math.h>

#include "train.h"

static inline void default_count(uint64_t *at, uint64_t value)
{
    if (*at == SONDE_AUTO)
        *at = value;
}
static inline void default_number(double *at, double value)
{
    if (isnan(*at))
        *at = value;
}
static inline void default_choice(int *at, int value)
{
    if (*at < 0)
        *at = value;
}

/* Norm of a row in the units of training; where those are the data's own, 1 is a guess like any other. */
static inline double default_norm(const sonde_train_options *o, size_t d)
{
    return o->normalize == SONDE_NORMALIZE_SQRT_D || o->normalize == SONDE_NORMALIZE_CONSTANT ||
                   o->normalize == SONDE_NORMALIZE_LAYER
               ? sqrt((double)d)
               : 1;
}

/* L1 shrinks a latent by l1 / 2 and silences what is smaller, so that only l1 over the norm of a row means
 * something: 5 / 64 of it is the 5 of Anthropic's April 2024 update (rows of norm sqrt(d)) at d 4096. In
 * smaller models the same number would silence everything. In other units of the loss it scales with them. */
static inline void default_l1(sonde_train_options *o, size_t d, double times)
{
    const double norm = default_norm(o, d), l1 = times * 5 / 64 * norm;
    default_number(&o->l1, o->loss == SONDE_LOSS_MEAN  ? l1 / (double)d
                           : o->loss == SONDE_LOSS_FVU ? l1 / (norm * norm)
                                                       : l1);
}

#endif
