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

/* n columns of a panel from columns whose k are contiguous: blocks of 16 x 16, and the rest one by one. */
static void pack_columns(const sonde_kernels *kernels, float *to, const float *src, size_t k, size_t n,
                         size_t stride_n)
{
    const size_t panel = kernels->panel;
    for (size_t k0 = 0; k0 < k; k0 += 16)
        for (size_t j0 = 0; j0 < n; j0 += 16) {
            const size_t rows = k - k0 < 16 ? k - k0 : 16, columns = n - j0 < 16 ? n - j0 : 16;
            const float *from = src + k0 + j0 * stride_n;
            float *at = to + k0 * panel + j0;
            if (rows == 16 && columns == 16) {
                kernels->transpose16(from, stride_n, at, panel);
                continue;
            }
            for (size_t j = 0; j < columns; j++)
                for (size_t i = 0; i < rows; i++)
                    at[i * panel + j] = from[i + j * stride_n];
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
            pack_columns(w->kernels, to, src, k, count, stride_n);
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
