/* SPDX-License-Identifier: MIT */
#include "bench_common.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"
#include "file/safetensors.h"

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double thread_cpu_s(void)
{
    return seconds(CLOCK_THREAD_CPUTIME_ID);
}

double process_cpu_s(void)
{
    return seconds(CLOCK_PROCESS_CPUTIME_ID);
}

double wall_s(void)
{
    return seconds(CLOCK_MONOTONIC);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(const double *v)
{
    double s[PAIRS];
    memcpy(s, v, sizeof s);
    qsort(s, PAIRS, sizeof *s, by_value);
    return s[PAIRS / 2];
}

double peak_mib(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024;
}

void die(const sonde_err *err)
{
    fprintf(stderr, "%s\n", err->msg);
    exit((int)err->code);
}

static sonde_tensor tensors[4 + 12 * L];
static char names[4 + 12 * L][64];
static size_t n_tensors;

static void add(const char *name, uint64_t rows, uint64_t cols, float centre)
{
    size_t n = (size_t)(rows * (cols ? cols : 1));
    float *x = malloc(n * sizeof *x);
    sonde_rng root = sonde_rng_seed(1), r = sonde_rng_fork(&root, name, 0);
    for (size_t i = 0; i < n; i++)
        x[i] = centre + 0.04f * (sonde_rng_float(&r) - 0.5f);
    snprintf(names[n_tensors], sizeof names[0], "%s", name);
    tensors[n_tensors] = (sonde_tensor){.name = names[n_tensors],
                                        .dtype = SONDE_F32,
                                        .rank = cols ? 2 : 1,
                                        .dim = {rows, cols},
                                        .data = x,
                                        .n_bytes = n * sizeof *x};
    n_tensors++;
}

void make_random_gpt2(char *dir)
{
    static const struct {
        const char *name;
        uint64_t rows, cols;
        float centre;
    } parts[] = {{"ln_1.weight", D, 0, 1},
                 {"ln_1.bias", D, 0, 0},
                 {"attn.c_attn.weight", D, 3 * D, 0},
                 {"attn.c_attn.bias", 3 * D, 0, 0},
                 {"attn.c_proj.weight", D, D, 0},
                 {"attn.c_proj.bias", D, 0, 0},
                 {"ln_2.weight", D, 0, 1},
                 {"ln_2.bias", D, 0, 0},
                 {"mlp.c_fc.weight", D, 4 * D, 0},
                 {"mlp.c_fc.bias", 4 * D, 0, 0},
                 {"mlp.c_proj.weight", 4 * D, D, 0},
                 {"mlp.c_proj.bias", D, 0, 0}};
    char name[64], path[256];
    sonde_err err;
    if (!mkdtemp(dir)) {
        perror(dir);
        exit(4);
    }
    add("wte.weight", V, D, 0);
    add("wpe.weight", CTX, D, 0);
    add("ln_f.weight", D, 0, 1);
    add("ln_f.bias", D, 0, 0);
    for (int l = 0; l < L; l++)
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            snprintf(name, sizeof name, "h.%d.%s", l, parts[i].name);
            add(name, parts[i].rows, parts[i].cols, parts[i].centre);
        }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (sonde_safetensors_write(path, tensors, n_tensors, NULL, 0, true, &err))
        die(&err);
    for (size_t i = 0; i < n_tensors; i++)
        free((void *)(uintptr_t)tensors[i].data);
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    fprintf(f,
            "{\"model_type\":\"gpt2\",\"n_embd\":%d,\"n_head\":%d,\"n_layer\":%d,\"n_positions\":%d,\"vocab_"
            "size\":%d}\n",
            D, H, L, CTX, V);
    fclose(f);
}

void remove_random_gpt2(const char *dir)
{
    char path[300];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    rmdir(dir);
}
