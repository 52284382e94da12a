/* SPDX-License-Identifier: MIT
 * Packed products against OpenBLAS sgemm of the same shape, one thread each: CPU seconds, median of
 * alternated pairs. */
#include "bench_num.h"

#include "num/matmul.h"

static void shape(const sonde_kernels *kernels, const char *what, size_t m, size_t k, size_t n)
{
    float *x = numbers(m * k, 1), *w = numbers(k * n, 2), *y = numbers(m * n, 3), *z = numbers(m * n, 4);
    const size_t floats = sonde_packed_floats(kernels, k, n);
    sonde_packed p = {kernels, k, n, aligned_alloc(64, (floats + 15) / 16 * 64)};
    memset(p.data, 0, floats * sizeof(float));
    sonde_pack(&p, 0, k, 0, n, w, n, 1);
    const double flop = 2.0 * (double)m * (double)k * (double)n;
    const size_t repeat = (size_t)(4e8 / flop) + 1;
    double ours[PAIRS], theirs[PAIRS], ratio[PAIRS];
    for (int i = -1; i < PAIRS; i++) {
        double t = cpu_s();
        for (size_t r = 0; r < repeat; r++)
            sonde_matmul(&p, 0, 0, n, x, k, m, y, n, NULL);
        const double a = (cpu_s() - t) / (double)repeat;
        t = cpu_s();
        for (size_t r = 0; r < repeat; r++)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, 1.0f,
                        x, (blasint)k, w, (blasint)n, 0.0f, z, (blasint)n);
        const double b = (cpu_s() - t) / (double)repeat;
        if (i >= 0) {
            ours[i] = flop / a * 1e-9;
            theirs[i] = flop / b * 1e-9;
            ratio[i] = b / a;
        }
    }
    printf("%-10s %5zu x %5zu x %5zu  %7.1f GFLOP/s  sgemm %7.1f  ratio %.3f\n", what, m, k, n,
           median(ours, PAIRS), median(theirs, PAIRS), median(ratio, PAIRS));
    fflush(stdout);
    free(x), free(w), free(y), free(z), free(p.data);
}

int main(int argc, char **argv)
{
    const sonde_kernels *kernels = bench_begin(argc, argv);
    static const struct {
        const char *what;
        size_t m, k, n;
    } shapes[] = {
        {"qkv", 512, 768, 2304},     {"attn out", 512, 768, 768},  {"mlp in", 512, 768, 3072},
        {"mlp out", 512, 3072, 768}, {"unembed", 128, 768, 50257}, {"d 1024", 512, 1024, 4096},
        {"d 4096", 256, 4096, 1024}, {"scores", 512, 64, 512},     {"scores", 64, 64, 512},
        {"mix", 512, 512, 64},       {"mix", 64, 512, 64},         {"scores 4", 256, 4, 256},
        {"mix 4", 256, 256, 4},      {"mix 8", 256, 256, 8},       {"mix 16", 256, 256, 16},
        {"mix 48", 256, 256, 48},    {"mix 80", 256, 256, 80},     {"mix 128", 256, 256, 128},
        {"one row", 1, 768, 3072},   {"one row", 1, 768, 50257},   {"one row", 1, 3072, 768},
        {"4 rows", 4, 768, 3072},    {"16 rows", 16, 768, 3072},   {"tiny", 128, 64, 192},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (argc < 3 || i == (size_t)atoi(argv[2]))
            shape(kernels, shapes[i].what, shapes[i].m, shapes[i].k, shapes[i].n);
    return 0;
}
