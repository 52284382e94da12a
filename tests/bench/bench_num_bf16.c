/* SPDX-License-Identifier: MIT
 * bfloat16 products against OpenBLAS sgemm of the same shape, and chains of chosen columns, one thread each:
 * CPU seconds, median of alternated pairs. */
#include "bench_num.h"

#include "num/bf16.h"

enum { D = 768, F = 12288, ROWS = 448, PICKED = 56 };

static double sgemm_s(const float *x, const float *w, float *y, size_t m, size_t k, size_t n)
{
    const double t = cpu_s();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)m, (blasint)n, (blasint)k, 1.0f, x,
                (blasint)k, w, (blasint)k, 0.0f, y, (blasint)n);
    return cpu_s() - t;
}

static void shape(const sonde_kernels *kernels, const char *what, size_t m, size_t k, size_t n)
{
    float *x = numbers(m * k, 1), *w = numbers(k * n, 2), *y = numbers(m * n, 3), *z = numbers(m * n, 4);
    const size_t words = sonde_packed16_words(kernels, k, n);
    sonde_packed16 p = {kernels, k, n, aligned_alloc(64, (words + 31) / 32 * 64)};
    uint16_t *x16 = aligned_alloc(64, (m * k + 32) / 32 * 64);
    sonde_bound16 bound;
    memset(p.data, 0, words * sizeof *p.data);
    const double flop = 2.0 * (double)m * (double)k * (double)n;
    double ours[PAIRS], theirs[PAIRS], ratio[PAIRS], packing[PAIRS];
    for (int i = -1; i < PAIRS; i++) {
        double t = cpu_s();
        sonde_pack16(&p, 0, n, w, k);
        const double c = cpu_s() - t;
        t = cpu_s();
        for (size_t r = 0; r < m; r++)
            sonde_round16(kernels, k, x + r * k, x16 + r * k, &bound);
        for (size_t r = 0; r < m; r += 112)
            for (size_t j = 0; j < n; j += 128)
                sonde_matmul16(&p, j, j + 128 < n ? j + 128 : n, x16 + r * k, k, m - r < 112 ? m - r : 112,
                               y + r * n + j, n);
        const double a = cpu_s() - t, b = sgemm_s(x, w, z, m, k, n);
        if (i >= 0) {
            ours[i] = flop / a * 1e-9;
            theirs[i] = flop / b * 1e-9;
            ratio[i] = a / b;
            packing[i] = c / b;
        }
    }
    printf("%-10s %5zu x %5zu x %5zu  %7.1f GFLOP/s  sgemm %7.1f  time %.3f of it, packing %.3f\n", what, m,
           k, n, median(ours, PAIRS), median(theirs, PAIRS), median(ratio, PAIRS), median(packing, PAIRS));
    fflush(stdout);
    free(x), free(w), free(y), free(z), free(p.data), free(x16);
}

/* PICKED columns for each of ROWS rows. */
static void chosen_columns(const sonde_kernels *kernels)
{
    float *x = numbers((size_t)ROWS * D, 1), *w = numbers((size_t)D * F, 2),
          *y = numbers((size_t)ROWS * F, 3);
    static uint32_t index[ROWS][PICKED];
    static float out[ROWS * PICKED];
    size_t start[ROWS + 1];
    unsigned seed = 5;
    for (size_t r = 0; r <= ROWS; r++)
        start[r] = r * PICKED;
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < PICKED; j++) {
            seed = seed * 1664525u + 1013904223u;
            index[r][j] = (uint32_t)j * (F / PICKED) + (seed >> 8) % (F / PICKED);
        }
    double ratio[PAIRS], each[PAIRS];
    for (int i = -1; i < PAIRS; i++) {
        const double t = cpu_s();
        sonde_chains(kernels, ROWS, start, index[0], w, D, D, x, D, out);
        const double a = cpu_s() - t, b = sgemm_s(x, w, y, ROWS, D, F);
        if (i >= 0) {
            ratio[i] = a / b;
            each[i] = a / (ROWS * PICKED) * 1e9;
        }
    }
    printf("chains     %d of %d columns of d %d: %.1f ns each, time %.3f of sgemm over all\n", PICKED, F, D,
           median(each, PAIRS), median(ratio, PAIRS));
    free(x), free(w), free(y);
}

int main(int argc, char **argv)
{
    const sonde_kernels *kernels = bench_begin(argc, argv);
    if (sonde_bf16_available(kernels)) {
        shape(kernels, "encoder", ROWS, D, F);
        shape(kernels, "d 1024", ROWS, 1024, 8192);
        shape(kernels, "d 4096", 224, 4096, 4096);
        shape(kernels, "one row", 1, D, F);
    } else {
        printf("no bfloat16 products with these kernels on this CPU\n");
    }
    chosen_columns(kernels);
    return 0;
}
