/* SPDX-License-Identifier: MIT */
#include <math.h>

#include "families_impl.h"

#define TWO_PI 6.28318530717958647692

/* Llama 3.1: long wavelengths are stretched by factor, short ones kept, those between interpolated. */
static double llama3(double f, const struct rope_scaling *s)
{
    double wavelength = TWO_PI / f;
    if (wavelength < s->original_context / s->high_freq)
        return f;
    if (wavelength > s->original_context / s->low_freq)
        return f / s->factor;
    double t = (s->original_context / wavelength - s->low_freq) / (s->high_freq - s->low_freq);
    return (1 - t) * f / s->factor + t * f;
}

float *rope_frequencies(size_t rope_dim, double theta, const struct rope_scaling *s, sonde_arena *arena,
                        sonde_err *err)
{
    size_t n = rope_dim / 2;
    float *f = sonde_arena_get(arena, n, sizeof *f, err);
    for (size_t i = 0; f && i < n; i++) {
        double x = pow(theta, -(double)(2 * i) / (double)rope_dim);
        if (s->type == ROPE_LINEAR)
            x /= s->factor;
        if (s->type == ROPE_LLAMA3)
            x = llama3(x, s);
        f[i] = (float)x;
    }
    return f;
}
