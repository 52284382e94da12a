/* SPDX-License-Identifier: MIT
 * The encoder with its selection against OpenBLAS sgemm of the same shape, and the kernels over sparse rows
 * against memory. One thread, CPU seconds, median of alternated pairs.
 *
 * bench_sae_encode [KERNELS [PAIRS_TO_RUN]] */
#include "bench_num.h"

#include <math.h>

#include "num/sparse.h"
#include "sae/encode.h"

enum { BATCH = 4096 };

static size_t D, F, K; /* of the shape being measured */

static float *x, *w_rows, *y, *bias, *bound;
static sonde_packed w;
static sonde_encode_space *space;
static sonde_sparse latents;
static int n_pairs = PAIRS;

static void must(enum sonde_code code, const sonde_err *err)
{
    if (code) {
        fprintf(stderr, "%s\n", err->msg);
        exit((int)code);
    }
}

static double sgemm(void)
{
    const double t = cpu_s();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, BATCH, (blasint)F, (blasint)D, 1.0f, x, (blasint)D,
                w_rows, (blasint)D, 0.0f, y, (blasint)F);
    return cpu_s() - t;
}

static double encode(const sonde_encoding *e)
{
    sonde_err err;
    const double t = cpu_s();
    must(sonde_encode_rows(e, x, D, BATCH, NULL, space, &latents, NULL, &err), &err);
    return cpu_s() - t;
}

static double product_alone(const sonde_encoding *e)
{
    const double t = cpu_s();
    sonde_matmul(e->w, 0, 0, F, x, D, BATCH, y, F, &(sonde_epilogue){.bias = bias});
    return cpu_s() - t;
}

static float smallest_kept(void)
{
    float v = INFINITY;
    for (size_t i = 0; i < latents.start[BATCH]; i++)
        v = latents.value[i] < v ? latents.value[i] : v;
    return v;
}

static void compare(const char *what, const sonde_encoding *e, double (*fn)(const sonde_encoding *))
{
    double ours[PAIRS], theirs[PAIRS], ratio[PAIRS];
    for (int i = -1; i < n_pairs; i++) {
        const double a = fn(e), b = sgemm();
        if (i >= 0) {
            ours[i] = a;
            theirs[i] = b;
            ratio[i] = a / b;
        }
    }
    printf("%-22s %7.2f ms  sgemm %7.2f ms  ratio %.3f\n", what, 1e3 * median(ours, n_pairs),
           1e3 * median(theirs, n_pairs), median(ratio, n_pairs));
    fflush(stdout);
}

static void encoders(void)
{
    sonde_encoding e = {.w = &w, .bias = bias, .bound = bound, .pick = SONDE_PICK_BATCH, .k = K * BATCH};
    compare("product, nothing kept", &e, product_alone);
    compare("batch, no hint", &e, encode);
    e.hint = 0.8f * smallest_kept();
    for (size_t i = 0; i < F; i++)
        bound[i] = smallest_kept();
    compare("batch, hint", &e, encode);
    e.pick = SONDE_PICK_ABOVE;
    compare("above", &e, encode);
    e.pick = SONDE_PICK_ROW;
    e.k = K;
    compare("row", &e, encode);
    e.pick = SONDE_PICK_GROUP;
    compare("group", &e, encode);
}

/* Seconds of a pass of the kernels over sparse rows; BATCH lists of K rows. */
static uint32_t *lists;
static float *values, *moments[3];

static double sums(const sonde_kernels *k)
{
    const double t = cpu_s();
    for (size_t r = 0; r < BATCH; r++)
        sonde_gather_sum(k, K, lists + r * K, values, w_rows, D, D, NULL, bias, y + r * D);
    return cpu_s() - t;
}

static double dots(const sonde_kernels *k)
{
    const double t = cpu_s();
    for (size_t r = 0; r < BATCH; r++)
        sonde_gather_dot(k, K, lists + r * K, w_rows, D, D, x + r * D, y + r * K);
    return cpu_s() - t;
}

static double adam(const sonde_kernels *k)
{
    const sonde_adam o = {1.0f, 0.9f, 0.999f, 1e-8f, 1e-4f, 1.0f, 0.1f, 0.001f};
    const double t = cpu_s();
    sonde_adam_update(k, &o, D * F, moments[2], w_rows, moments[0], moments[1]);
    return cpu_s() - t;
}

static double copy(const sonde_kernels *k)
{
    const double t = cpu_s();
    (void)k;
    memcpy(moments[0], w_rows, D * F * sizeof(float));
    return cpu_s() - t;
}

static void bandwidth(const char *what, const sonde_kernels *k, double (*fn)(const sonde_kernels *),
                      double bytes)
{
    double s[PAIRS];
    for (int i = -1; i < n_pairs; i++) {
        const double t = fn(k);
        if (i >= 0)
            s[i] = t;
    }
    const double m = median(s, n_pairs);
    printf("%-22s %7.1f ms  %7.1f GB/s\n", what, 1e3 * m, bytes / m * 1e-9);
}

static void sparse_kernels(const sonde_kernels *k)
{
    const double rows = 4.0 * BATCH * (double)(K * D), matrix = 4.0 * (double)(D * F);
    uint32_t seed = 1;
    lists = calloc(BATCH * K, sizeof *lists);
    values = numbers(K, 5);
    for (int i = 0; i < 3; i++)
        moments[i] = numbers(D * F, 6 + (unsigned)i);
    if (!lists)
        exit(5);
    for (size_t i = 0; i < D * F; i++)
        moments[1][i] = fabsf(moments[1][i]);
    for (size_t i = 0; i < BATCH * K; i++) {
        seed = seed * 1664525u + 1013904223u;
        lists[i] = (seed >> 8) % (uint32_t)F;
    }
    bandwidth("memcpy", k, copy, 2 * matrix);
    bandwidth("gather_sum", k, sums, rows);
    bandwidth("gather_dot", k, dots, rows);
    bandwidth("adam", k, adam, 7 * matrix);
}

static void shape(const sonde_kernels *kernels, size_t d, size_t f, size_t k)
{
    D = d;
    F = f;
    K = k;
    printf("d %zu, F %zu, k %zu, batch %d\n", D, F, K, BATCH);
    free(x), free(w_rows), free(y), free(bias), free(bound), free(w.data);
    x = numbers(BATCH * D, 1);
    w_rows = numbers(F * D, 2);
    y = numbers(BATCH * F, 3);
    bias = numbers(F, 4);
    bound = numbers(F, 4);
    const size_t floats = sonde_packed_floats(kernels, D, F);
    w = (sonde_packed){kernels, D, F, numbers(floats, 0)};
    memset(w.data, 0, floats * sizeof(float));
    sonde_pack(&w, 0, D, 0, F, w_rows, 1, D);
    encoders();
}

int main(int argc, char **argv)
{
    const sonde_kernels *kernels = bench_begin(argc, argv);
    sonde_err err;
    if (argc > 2 && atoi(argv[2]) > 0 && atoi(argv[2]) < PAIRS)
        n_pairs = atoi(argv[2]);
    must(sonde_encode_space_new(1, NULL, &space, &err), &err);
    shape(kernels, 64, 1024, 16);
    shape(kernels, 768, 12288, 32);
    sparse_kernels(kernels);
    return 0;
}
