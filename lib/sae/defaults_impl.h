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

#endif
