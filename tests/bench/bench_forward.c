/* SPDX-License-Identifier: MIT
 * The forward pass at GPT-2-small shapes with random weights, float32, context 512, one thread: its rate
 * against that of OpenBLAS sgemm on the same products (CPU seconds, median of alternated pairs), what one
 * hooked residual costs, and the memory in use. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "bench_common.h"
#include "model/run.h"
#include "num/convert.h"

enum { P = 512 };

/* ---- the yardstick ----------------------------------------------------------------------------- */

static const struct {
    int k, n;
} products[] = {{D, 3 * D}, {D, D}, {D, 4 * D}, {4 * D, D}};

static double sgemm_s(const float *x, const float *w, float *y)
{
    double t = thread_cpu_s();
    for (int l = 0; l < L; l++)
        for (int i = 0; i < 4; i++)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, P, products[i].n, products[i].k, 1, x,
                        products[i].k, w, products[i].n, 0, y, products[i].n);
    return thread_cpu_s() - t;
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

static enum sonde_code no_logits(void *arg, size_t sequence, size_t first, size_t n, float *logits,
                                 sonde_err *err)
{
    (void)arg, (void)sequence, (void)first, (void)n, (void)logits, (void)err;
    return SONDE_OK;
}

static double forward_s(sonde_run *run, const int32_t *ids)
{
    const size_t start[2] = {0, P};
    sonde_err err = {0};
    double t = thread_cpu_s();
    if (sonde_run_forward(run, ids, start, 1, NULL, &err))
        die(&err);
    return thread_cpu_s() - t;
}

static void hook(sonde_run *run, size_t layer, sonde_hook_fn fn, void *arg)
{
    sonde_err err = {0};
    if (sonde_run_hook(run, (sonde_hook){SONDE_SITE_RESID_POST, layer}, false, fn, arg, &err))
        die(&err);
}

static void bench(const char *dir)
{
    sonde_model *m;
    sonde_run *plain, *hooked, *full;
    sonde_err err = {0};
    static int32_t ids[P];
    static uint16_t half[P * D];
    double t = thread_cpu_s();
    if (sonde_model_open(dir, NULL, NULL, &m, &err) || sonde_run_new(m, P, P, NULL, NULL, &plain, &err) ||
        sonde_run_new(m, P, P, NULL, NULL, &hooked, &err) || sonde_run_new(m, P, P, NULL, NULL, &full, &err))
        die(&err);
    printf("kernels %s, OpenBLAS core %s\nopen and pack %.2f s, peak %.0f MiB, weights %.0f MiB\n",
           sonde_kernels_name(m->kernels), openblas_get_corename(), thread_cpu_s() - t, peak_mib(),
           (double)m->n_parameters * 4 / 1048576);
    sonde_rng r = sonde_rng_seed(7);
    for (int i = 0; i < P; i++)
        ids[i] = (int32_t)sonde_rng_below(&r, V);
    hook(plain, L - 1, look, NULL);
    hook(hooked, L / 2, to_half, half);
    hook(hooked, L - 1, look, NULL);
    sonde_run_want_logits(full, no_logits, NULL, false);
    float *x = calloc((size_t)P * 4 * D, sizeof *x), *w = calloc((size_t)4 * D * D, sizeof *w),
          *y = calloc((size_t)P * 4 * D, sizeof *y);
    for (size_t i = 0; i < (size_t)4 * D * D; i++)
        w[i] = (float)(i % 97) * 0.01f;
    double product_flop = 0, attention_flop = 4.0 * D * L * P * (P + 1) / 2;
    for (int i = 0; i < 4; i++)
        product_flop += 2.0 * L * P * products[i].k * products[i].n;
    double rate[PAIRS], sgemm[PAIRS], ratio[PAIRS], cost[PAIRS], unembed[PAIRS];
    for (int i = -1; i < PAIRS; i++) {
        double a = forward_s(plain, ids), b = sgemm_s(x, w, y), c = forward_s(hooked, ids),
               d = forward_s(full, ids);
        if (i < 0)
            continue;
        rate[i] = (product_flop + attention_flop) / a * 1e-9;
        sgemm[i] = product_flop / b * 1e-9;
        ratio[i] = rate[i] / sgemm[i];
        cost[i] = c / a - 1;
        unembed[i] = (product_flop + attention_flop + 2.0 * P * D * V) / d * 1e-9 / sgemm[i];
    }
    printf("forward, %d tokens: %.1f GFLOP/s, %.0f tokens/s; sgemm on its products %.1f GFLOP/s; ratio %.3f "
           "(bar 0.85)\n",
           P, median(rate), P * median(rate) * 1e9 / (product_flop + attention_flop), median(sgemm),
           median(ratio));
    printf("with all logits: ratio %.3f\n", median(unembed));
    printf("one hooked residual, converted to float16: %+.2f %% (bar 3 %%)\n", 100 * median(cost));
    printf("peak memory %.0f MiB (three runs, logits; weights %.0f MiB)\n", peak_mib(),
           (double)m->n_parameters * 4 / 1048576);
    free(x), free(w), free(y);
    sonde_run_free(plain);
    sonde_run_free(hooked);
    sonde_run_free(full);
    sonde_model_close(m);
}

int main(void)
{
    char dir[] = "/tmp/sonde-bench-XXXXXX";
    openblas_set_num_threads(1);
    make_random_gpt2(dir);
    bench(dir);
    remove_random_gpt2(dir);
    return 0;
}
