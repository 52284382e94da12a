/* SPDX-License-Identifier: MIT */
#include "rope.h"

#include <assert.h>

#include "kernels_impl.h"

void sonde_rope_row(const sonde_kernels *k, const float *x, size_t n_heads, size_t dh, size_t rope_dim,
                    const float *cosine, const float *sine, float *y)
{
    assert(rope_dim % 2 == 0 && rope_dim <= dh);
    k->rope_row(x, n_heads, dh, rope_dim, cosine, sine, y);
}
