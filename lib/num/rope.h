/* SPDX-License-Identifier: MIT
 * Rotary position embedding, half-split layout (Hugging Face). */
#ifndef SONDE_NUM_ROPE_H
#define SONDE_NUM_ROPE_H

#include <stddef.h>

#include "cpu.h"

/* Rotate the first rope_dim of dh dimensions of each head of one row, x [n_heads, dh] -> y (may be x):
 * for i < r = rope_dim/2:  y[i] = x[i] c[i] - x[i+r] s[i],  y[i+r] = x[i+r] c[i] + x[i] s[i]
 * (each product rounded, then the sum); dimensions from rope_dim on are copied.
 * cosine, sine [r] belong to the row's position. */
void sonde_rope_row(const sonde_kernels *k, const float *x, size_t n_heads, size_t dh, size_t rope_dim,
                    const float *cosine, const float *sine, float *y);

#endif
