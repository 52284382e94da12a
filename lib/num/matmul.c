/* SPDX-License-Identifier: MIT */
#include "matmul.h"

#include <assert.h>
#include <string.h>

#include "../base/size.h"
#include "kernels_impl.h"

size_t sonde_packed_floats(const sonde_kernels *kernels, size_t k, size_t n)
{
    size_t columns, floats, bytes;
    if (!sonde_round_up(&columns, n, kernels->panel) || !sonde_mul(&floats, columns, k) ||
        !sonde_mul(&bytes, floats, sizeof(float)))
        return 0;
    return floats;
}

/* Transpose: rows of 16 k from columns whose k are contiguous. */
static void pack_columns(float *to, size_t panel, const float *src, size_t k, size_t n, size_t stride_n)
{
    for (size_t k0 = 0; k0 < k; k0 += 16) {
        const size_t k1 = k - k0 < 16 ? k : k0 + 16;
        for (size_t j = 0; j < n; j++)
            for (size_t i = k0; i < k1; i++)
                to[i * panel + j] = src[i + j * stride_n];
    }
}

void sonde_pack(const sonde_packed *w, size_t k0, size_t k, size_t n0, size_t n, const float *src,
                size_t stride_k, size_t stride_n)
{
    const size_t panel = w->kernels->panel;
    assert(k0 <= w->k && k <= w->k - k0 && n0 <= w->n && n <= w->n - n0);
    while (n > 0 && k > 0) {
        const size_t in = n0 % panel, count = n < panel - in ? n : panel - in;
        float *to = w->data + (n0 / panel * w->k + k0) * panel + in;
        if (stride_n == 1)
            for (size_t i = 0; i < k; i++)
                memcpy(to + i * panel, src + i * stride_k, count * sizeof *to);
        else if (stride_k == 1)
            pack_columns(to, panel, src, k, count, stride_n);
        else
            for (size_t i = 0; i < k; i++)
                for (size_t j = 0; j < count; j++)
                    to[i * panel + j] = src[i * stride_k + j * stride_n];
        src += count * stride_n;
        n0 += count;
        n -= count;
    }
}

void sonde_unpack_column(const sonde_packed *w, size_t col, float *out)
{
    const size_t panel = w->kernels->panel;
    const float *from = w->data + col / panel * w->k * panel + col % panel;
    assert(col < w->n);
    for (size_t i = 0; i < w->k; i++)
        out[i] = from[i * panel];
}

void sonde_matmul(const sonde_packed *w, size_t k_used, size_t n0, size_t n1, const float *x, size_t ldx,
                  size_t m, float *y, size_t ldy, const sonde_epilogue *epilogue)
{
    assert(k_used <= w->k && n0 <= n1 && n1 <= w->n);
    w->kernels->matmul(w, k_used ? k_used : w->k, n0, n1, x, ldx, m, y, ldy, epilogue);
}
