/* SPDX-License-Identifier: MIT
 * The forward pass at GPT-2-small shapes with random weights, float32, context 512, one thread: its rate against that of
 * OpenBLAS sgemm on the same products (CPU seconds, median of alternated pairs), what one hooked residual costs, and the
 * memory in use. */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"
#include "file/safetensors.h"
#include "model/run.h"
#include "num/convert.h"

enum { PAIRS = 21, L = 12, D = 768, H = 12, V = 50257, CTX = 1024, P = 512 };

char *openblas_get_corename(void);
void openblas_set_num_threads(int);

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *v)
{
    double s[PAIRS];
    memcpy(s, v, sizeof s);
    qsort(s, PAIRS, sizeof *s, by_value);
    return s[PAIRS / 2];
}

static void die(const sonde_err *err)
{
    fprintf(stderr, "%s\n", err->msg);
    exit((int)err->code);
}

/* ---- a random GPT-2 small on disk ---------------------------------------- */

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
    tensors[n_tensors] = (sonde_tensor){.name = names[n_tensors], .dtype = SONDE_F32, .rank = cols ? 2 : 1, .dim = {rows, cols},
                                        .data = x, .n_bytes = n * sizeof *x};
    n_tensors++;
}

static void write_model(const char *dir)
{
    static const struct {
        const char *name;
        uint64_t rows, cols;
        float centre;
    } parts[] = {{"ln_1.weight", D, 0, 1},           {"ln_1.bias", D, 0, 0},      {"attn.c_attn.weight", D, 3 * D, 0},
                 {"attn.c_attn.bias", 3 * D, 0, 0},  {"attn.c_proj.weight", D, D, 0}, {"attn.c_proj.bias", D, 0, 0},
                 {"ln_2.weight", D, 0, 1},           {"ln_2.bias", D, 0, 0},      {"mlp.c_fc.weight", D, 4 * D, 0},
                 {"mlp.c_fc.bias", 4 * D, 0, 0},     {"mlp.c_proj.weight", 4 * D, D, 0}, {"mlp.c_proj.bias", D, 0, 0}};
    char name[64], path[256];
    sonde_err err;
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
    fprintf(f, "{\"model_type\":\"gpt2\",\"n_embd\":%d,\"n_head\":%d,\"n_layer\":%d,\"n_positions\":%d,\"vocab_size\":%d}\n", D, H, L, CTX, V);
    fclose(f);
}

/* ---- the yardstick ---------------------------------------- */

static const struct {
    int k, n;
} products[] = {{D, 3 * D}, {D, D}, {D, 4 * D}, {4 * D, D}};

static double sgemm_s(const float *x, const float *w, float *y)
{
    double t = cpu_s();
    for (int l = 0; l < L; l++)
        for (int i = 0; i < 4; i++)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, P, products[i].n, products[i].k, 1, x, products[i].k, w,
                        products[i].n, 0, y, products[i].n);
    return cpu_s() - t;
}

static enum sonde_code to_half(void *arg, const sonde_view *v, sonde_err *err)
{
    uint16_t *out = arg;
    (void)err;
    for (size_t i = 0; i < v->n_rows; i++)
        sonde_to_f16(sonde_kernels_best(), v->width, v->data + i * v->stride, out + i * v->width);
    return SONDE_OK;
}

static enum sonde_code look(void *arg, const sonde_view *v, sonde_err *err)
{
    (void)arg, (void)v, (void)err;
    return SONDE_OK;
}

static enum sonde_code no_logits(void *arg, size_t sequence, size_t first, size_t n, float *logits, sonde_err *err)
{
    (void)arg, (void)sequence, (void)first, (void)n, (void)logits, (void)err;
    return SONDE_OK;
}

static double forward_s(sonde_run *run, const int32_t *ids)
{
    const size_t start[2] = {0, P};
    sonde_err err = {0};
    double t = cpu_s();
    if (sonde_run_forward(run, ids, start, 1, NULL, &err))
        die(&err);
    return cpu_s() - t;
}

static void hook(sonde_run *run, size_t layer, sonde_hook_fn fn, void *arg)
{
    sonde_err err = {0};
    if (sonde_run_hook(run, (sonde_hook){SONDE_SITE_RESID_POST, layer}, false, fn, arg, &err))
        die(&err);
}

static double peak_mib(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024;
}

static void bench(const char *dir)
{
    sonde_model *m;
    sonde_run *plain, *hooked, *full;
    sonde_err err = {0};
    static int32_t ids[P];
    static uint16_t half[P * D];
    double t = cpu_s();
    if (sonde_model_open(dir, NULL, NULL, &m, &err) || sonde_run_new(m, P, P, NULL, NULL, &plain, &err) ||
        sonde_run_new(m, P, P, NULL, NULL, &hooked, &err) || sonde_run_new(m, P, P, NULL, NULL, &full, &err))
        die(&err);
    printf("kernels %s, OpenBLAS core %s\nopen and pack %.2f s, peak %.0f MiB, weights %.0f MiB\n", sonde_kernels_name(m->kernels),
           openblas_get_corename(), cpu_s() - t, peak_mib(), (double)m->n_parameters * 4 / 1048576);
    sonde_rng r = sonde_rng_seed(7);
    for (int i = 0; i < P; i++)
        ids[i] = (int32_t)sonde_rng_below(&r, V);
    hook(plain, L - 1, look, NULL);
    hook(hooked, L / 2, to_half, half);
    hook(hooked, L - 1, look, NULL);
    sonde_run_want_logits(full, no_logits, NULL, false);
    float *x = calloc((size_t)P * 4 * D, sizeof *x), *w = calloc((size_t)4 * D * D, sizeof *w), *y = calloc((size_t)P * 4 * D, sizeof *y);
    for (size_t i = 0; i < (size_t)4 * D * D; i++)
        w[i] = (float)(i % 97) * 0.01f;
    double product_flop = 0, attention_flop = 4.0 * D * L * P * (P + 1) / 2;
    for (int i = 0; i < 4; i++)
        product_flop += 2.0 * L * P * products[i].k * products[i].n;
    double rate[PAIRS], sgemm[PAIRS], ratio[PAIRS], cost[PAIRS], unembed[PAIRS];
    for (int i = -1; i < PAIRS; i++) {
        double a = forward_s(plain, ids), b = sgemm_s(x, w, y), c = forward_s(hooked, ids), d = forward_s(full, ids);
        if (i < 0)
            continue;
        rate[i] = (product_flop + attention_flop) / a * 1e-9;
        sgemm[i] = product_flop / b * 1e-9;
        ratio[i] = rate[i] / sgemm[i];
        cost[i] = c / a - 1;
        unembed[i] = (product_flop + attention_flop + 2.0 * P * D * V) / d * 1e-9 / sgemm[i];
    }
    printf("forward, %d tokens: %.1f GFLOP/s, %.0f tokens/s; sgemm on its products %.1f GFLOP/s; ratio %.3f (bar 0.85)\n", P,
           median(rate), P * median(rate) * 1e9 / (product_flop + attention_flop), median(sgemm), median(ratio));
    printf("with all logits: ratio %.3f\n", median(unembed));
    printf("one hooked residual, converted to float16: %+.2f %% (bar 3 %%)\n", 100 * median(cost));
    printf("peak memory %.0f MiB (three runs, logits; weights %.0f MiB)\n", peak_mib(), (double)m->n_parameters * 4 / 1048576);
    free(x), free(w), free(y);
    sonde_run_free(plain);
    sonde_run_free(hooked);
    sonde_run_free(full);
    sonde_model_close(m);
}

int main(void)
{
    char dir[] = "/tmp/sonde-bench-XXXXXX", path[300];
    if (!mkdtemp(dir))
        return 4;
    openblas_set_num_threads(1);
    write_model(dir);
    bench(dir);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    rmdir(dir);
    return 0;
}
