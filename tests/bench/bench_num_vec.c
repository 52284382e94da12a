/* SPDX-License-Identifier: MIT
 * Elementwise and row kernels: nanoseconds per 16 values, in the first cache, against the same table's copy
 * and against libm where it has the function. CPU seconds, median of 21. */
#include "bench_num.h"

#include <math.h>

#include "num/activation.h"
#include "num/convert.h"
#include "num/norm.h"
#include "num/rope.h"
#include "num/softmax.h"

enum { N = 768, ROWS = 4, TOTAL = N * ROWS, REPEAT = 200 };

static float *x, *y, *z;
static uint16_t *half;
static double *sums;
static int32_t *index_of;

#define CASE(name, call)                                                                                     \
    static void name(const sonde_kernels *k)                                                                 \
    {                                                                                                        \
        call;                                                                                                \
    }
CASE(copy, (void)k; memcpy(y, x, TOTAL * sizeof *y))
CASE(libm_exp, (void)k; for (int i = 0; i < TOTAL; i++) y[i] = expf(x[i]))
CASE(libm_tanh, (void)k; for (int i = 0; i < TOTAL; i++) y[i] = tanhf(x[i]))
CASE(vec_exp, sonde_vec_exp(k, TOTAL, x, y))
CASE(vec_tanh, sonde_vec_tanh(k, TOTAL, x, y))
CASE(relu, sonde_activate(k, SONDE_ACT_RELU, TOTAL, x, y))
CASE(gelu_erf, sonde_activate(k, SONDE_ACT_GELU_ERF, TOTAL, x, y))
CASE(gelu_tanh, sonde_activate(k, SONDE_ACT_GELU_TANH, TOTAL, x, y))
CASE(silu, sonde_activate(k, SONDE_ACT_SILU, TOTAL, x, y))
CASE(silu_gated, sonde_activate_gated(k, SONDE_ACT_SILU, TOTAL, x, z, y))
CASE(softcap, sonde_softcap(k, 30.0f, TOTAL, x, y))
CASE(add, sonde_vec_add(k, TOTAL, x, z, y))
CASE(layer_norm, sonde_norm_rows(k, SONDE_NORM_LAYER, x, N, ROWS, N, 1e-5f, z, z + N, y, N))
CASE(rms_norm, sonde_norm_rows(k, SONDE_NORM_RMS, x, N, ROWS, N, 1e-5f, z, NULL, y, N))
CASE(softmax, for (size_t r = 0; r < ROWS; r++) sonde_softmax_row(k, x + r * N, N, 0, N, y + r * N))
CASE(logsumexp, y[0] = (float)sonde_logsumexp(k, x, TOTAL))
CASE(topk_32, sonde_row_topk(k, x, TOTAL, 32, index_of, y))
CASE(argmax, (void)k; index_of[0] = (int32_t)sonde_argmax(x, TOTAL))
CASE(rope, sonde_rope_row(k, x, TOTAL / 64, 64, 64, z, z + 32, y))
CASE(to_f16, index_of[0] = (int32_t)sonde_to_f16(k, TOTAL, x, half))
CASE(to_bf16, index_of[0] = (int32_t)sonde_to_bf16(k, TOTAL, x, half))
CASE(from_f16, sonde_from_f16(k, TOTAL, half, y))
CASE(from_bf16, sonde_from_bf16(k, TOTAL, half, y))
CASE(all_finite, index_of[0] = sonde_all_finite(k, TOTAL, x))
CASE(column_sums, sonde_column_sums(k, x, N, ROWS, N, sums, sums + N, sums + 2 * N, sums + 2 * N + 1))

static double time_of(void (*fn)(const sonde_kernels *), const sonde_kernels *k)
{
    double t[PAIRS];
    for (int i = -1; i < PAIRS; i++) {
        const double from = cpu_s();
        for (int r = 0; r < REPEAT; r++)
            fn(k);
        if (i >= 0)
            t[i] = (cpu_s() - from) * 1e9 * 16 / TOTAL / REPEAT;
    }
    return median(t, PAIRS);
}

int main(int argc, char **argv)
{
    const sonde_kernels *k = bench_begin(argc, argv);
    x = numbers(TOTAL, 1);
    y = numbers(TOTAL, 2);
    z = numbers(TOTAL, 3);
    half = calloc(TOTAL, sizeof *half);
    sums = calloc(2 * N + 2, sizeof *sums);
    index_of = calloc(TOTAL, sizeof *index_of);
    if (!half || !sums || !index_of)
        return 2;
    for (size_t i = 0; i < TOTAL; i++)
        x[i] *= 8.0f;
#define ROW(f)                                                                                               \
    {                                                                                                        \
#f, f                                                                                                \
    }
    const struct {
        const char *name;
        void (*fn)(const sonde_kernels *);
    } cases[] = {ROW(copy),      ROW(libm_exp), ROW(libm_tanh),  ROW(vec_exp),    ROW(vec_tanh),
                 ROW(relu),      ROW(gelu_erf), ROW(gelu_tanh),  ROW(silu),       ROW(silu_gated),
                 ROW(softcap),   ROW(add),      ROW(layer_norm), ROW(rms_norm),   ROW(softmax),
                 ROW(logsumexp), ROW(topk_32),  ROW(argmax),     ROW(rope),       ROW(to_f16),
                 ROW(to_bf16),   ROW(from_f16), ROW(from_bf16),  ROW(all_finite), ROW(column_sums)};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        printf("%-12s %7.2f ns per 16 values\n", cases[i].name, time_of(cases[i].fn, k));
    return 0;
}
