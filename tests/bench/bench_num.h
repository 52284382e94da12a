/* SPDX-License-Identifier: MIT
 * What the benchmarks of num/ share: CPU seconds, medians, numbers, and OpenBLAS left to choose its own
 * kernel. */
#ifndef BENCH_NUM_H
#define BENCH_NUM_H

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "num/cpu.h"

enum { PAIRS = 21 };

static inline double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

/* n floats in [-1, 1), aligned to 64 bytes. */
static inline float *numbers(size_t n, unsigned seed)
{
    float *p = aligned_alloc(64, (n + 16) / 16 * 64);
    for (size_t i = 0; p && i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (float)(seed >> 8) * 0x1p-23f - 1.0f;
    }
    if (!p)
        abort();
    return p;
}

/* OpenBLAS reads OPENBLAS_CORETYPE before main: start again without it, so that the yardstick is its own
 * choice. BENCH_KEEP_CORETYPE keeps it, to compare with a kernel chosen by hand. */
static inline const sonde_kernels *bench_begin(int argc, char **argv)
{
    const sonde_kernels *kernels;
    sonde_err err;
    if (getenv("OPENBLAS_CORETYPE") && !getenv("BENCH_KEEP_CORETYPE")) {
        unsetenv("OPENBLAS_CORETYPE");
        execv("/proc/self/exe", argv);
    }
    if (sonde_kernels_find(argc > 1 ? argv[1] : NULL, &kernels, &err) != SONDE_OK) {
        fprintf(stderr, "%s\n", err.msg);
        exit(2);
    }
    openblas_set_num_threads(1);
    printf("kernels %s, OpenBLAS %s\n", sonde_kernels_name(kernels), openblas_get_corename());
    return kernels;
}

#endif
