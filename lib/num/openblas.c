/* SPDX-License-Identifier: MIT
 * Products by OpenBLAS, for CPUs without kernels of ours. */
#include <cblas.h>
#include <string.h>

#include "kernels_impl.h"

enum { TILE = 64 };

static void finish(const sonde_epilogue *e, const float *z, size_t row, size_t rows, size_t n0, size_t c0,
                   size_t c1, size_t first, float *y, size_t ldy)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t c = c0; c < c1; c++) {
            float v = z[i * TILE + (c - first)];
            if (e && e->scale != 0.0f)
                v *= e->scale;
            if (e && e->bias)
                v += e->bias[c];
            if (e && e->act != SONDE_ACT_NONE)
                v = sonde_act_one(e->act, v);
            if (e && e->add)
                v = e->add[(row + i) * e->ld_add + (c - n0)] + v;
            y[(row + i) * ldy + (c - n0)] = v;
        }
}

/* What the chains of a tile begin with. */
static void begin(const sonde_epilogue *e, size_t row, size_t rows, size_t first, size_t n0, size_t n1,
                  float *z)
{
    const size_t c0 = first > n0 ? first : n0, c1 = first + TILE < n1 ? first + TILE : n1;
    memset(z, 0, TILE * TILE * sizeof *z);
    for (size_t i = 0; e && e->from && i < rows; i++)
        memcpy(z + i * TILE + (c0 - first), e->from + (row + i) * e->ld_from + (c0 - n0),
               (c1 - c0) * sizeof *z);
}

void sonde_openblas_matmul(const sonde_packed *w, size_t k, size_t n0, size_t n1, const float *x, size_t ldx,
                           size_t m, float *y, size_t ldy, const sonde_epilogue *epilogue)
{
    float a[TILE * TILE] __attribute__((aligned(64))), z[TILE * TILE] __attribute__((aligned(64)));
    for (size_t row = 0; row < m; row += TILE) {
        const size_t rows = m - row < TILE ? m - row : TILE;
        for (size_t p = n0 / TILE; p * TILE < n1; p++) {
            begin(epilogue, row, rows, p * TILE, n0, n1, z);
            for (size_t k0 = 0; k0 < k; k0 += TILE) {
                const size_t nk = k - k0 < TILE ? k - k0 : TILE;
                for (size_t i = 0; i < TILE; i++)
                    if (i < rows)
                        memcpy(a + i * TILE, x + (row + i) * ldx + k0, nk * sizeof *a);
                    else
                        memset(a + i * TILE, 0, nk * sizeof *a);
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, TILE, TILE, (blasint)nk, 1.0f, a, TILE,
                            w->data + (p * w->k + k0) * TILE, TILE, 1.0f, z, TILE);
            }
            const size_t c0 = p * TILE > n0 ? p * TILE : n0, c1 = (p + 1) * TILE < n1 ? (p + 1) * TILE : n1;
            finish(epilogue, z, row, rows, n0, c0, c1, p * TILE, y, ldy);
        }
    }
}
