/* SPDX-License-Identifier: MIT
 * One training step against the sgemm of its encoder product, one thread: CPU seconds, median of alternated
 * pairs. d 768, F 12288, k 32, batch 4096; rows are sparse sums of a dictionary that the weights begin near,
 * so that activations look as in training. ReLU-like architectures have their bias set for L0 near 50, and
 * near F / 2, as at the start, by products and by lists.
 *   bench_sae_step [NAME]     only this line
 *   bench_sae_step crossover  relu by lists and by products at falling densities
 * With SONDE_TORCH=PYTHON (an interpreter that has PyTorch) its plain step is measured beside. */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_common.h"
#include "num/sparse.h"
#include "sae/trainer_impl.h"

enum {
    STEP_D = 768,
    STEP_F = 12288,
    STEP_B = 4096,
    STEP_K = 32,
    N_TRUE = 2 * STEP_F,
    N_ACTIVE = 40,
    BATCHES = 4
};

struct bench {
    float *truth; /* [N_TRUE, d] */
    float *x;     /* [BATCHES, B, d] */
    float *z;     /* [B, F] of the yardstick */
    double shift; /* bias of ReLU-like encoders */
};

static void make_rows(struct bench *b)
{
    sonde_rng r = sonde_rng_seed(3);
    b->truth = malloc(sizeof(float) * N_TRUE * STEP_D);
    b->x = malloc(sizeof(float) * BATCHES * STEP_B * STEP_D);
    b->z = malloc(sizeof(float) * STEP_B * STEP_F);
    if (!b->truth || !b->x || !b->z)
        exit(5);
    for (size_t i = 0; i < (size_t)N_TRUE * STEP_D; i++)
        b->truth[i] = sonde_rng_float(&r) - 0.5f;
    for (size_t i = 0; i < (size_t)BATCHES * STEP_B; i++) {
        float *x = b->x + i * STEP_D;
        for (size_t j = 0; j < STEP_D; j++)
            x[j] = 0.3f * (sonde_rng_float(&r) - 0.5f);
        for (int a = 0; a < N_ACTIVE; a++) {
            const float *row = b->truth + sonde_rng_below(&r, N_TRUE) * STEP_D, by = sonde_rng_float(&r);
            for (size_t j = 0; j < STEP_D; j++)
                x[j] += by * row[j];
        }
    }
}

static sonde_trainer *make_trainer(const struct bench *b, const char *arch, int bf16, double bias)
{
    sonde_err err;
    sonde_train_options o = sonde_train_options_auto();
    o.arch = arch;
    o.n_latents = STEP_F;
    o.k = STEP_K;
    o.batch = STEP_B;
    o.n_tokens = (uint64_t)STEP_B * 100000;
    o.normalize = SONDE_NORMALIZE_MEAN_SQUARE;
    o.sparsity_warmup = 0;
    o.l1 = 1e-3;
    o.bf16 = bf16;
    if (bias != 0 && !strcmp(arch, "jumprelu")) {
        o.threshold = -bias;
        bias = 0;
    }
    sonde_trainer *t = NULL;
    if (sonde_train_defaults(&o, STEP_D, STEP_D, 1u << 24, false, &err) ||
        sonde_trainer_new(&o, STEP_D, STEP_D, false, NULL, NULL, &t, &err) ||
        sonde_trainer_fit(t, b->x, NULL, STEP_B, NULL, &err))
        die(&err);
    for (size_t i = 0; i < STEP_F; i++) {
        const float *row = b->truth + i * STEP_D;
        const double norm = sqrt(sonde_sum_squares(t->kernels, STEP_D, row));
        sonde_scale(t->kernels, STEP_D, (float)(1 / norm), row, t->p[P_W_DEC].w + i * STEP_D);
        sonde_scale(t->kernels, STEP_D, (float)(1 / norm), row, t->p[P_W_ENC].w + i * STEP_D);
        t->p[P_B_ENC].w[i] = (float)bias;
    }
    trainer_pack(t, NULL);
    return t;
}

/* How entries are kept: as the trainer decides, or always one way. */
enum way { WAY_OWN, WAY_LISTS, WAY_PRODUCTS };

static void line(struct bench *b, const char *label, const char *arch, int bf16, double bias, double bar,
                 enum way way)
{
    sonde_trainer *t = make_trainer(b, arch, bf16, bias);
    const int pairs = way == WAY_OWN ? PAIRS : 1;
    double ours[PAIRS], theirs[PAIRS], ratio[PAIRS], l0 = 0;
    sonde_err err;
    if (way != WAY_OWN)
        t->dense_from = (struct dense_from){way == WAY_LISTS ? 2 : 0, SIZE_MAX};
    for (int i = -1; i < pairs; i++) {
        const float *x = b->x + (size_t)((i + 1) % BATCHES) * STEP_B * STEP_D;
        sonde_step_report r;
        const double t0 = thread_cpu_s();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, STEP_B, STEP_F, STEP_D, 1.0f, x, STEP_D,
                    t->p[P_W_ENC].w, STEP_D, 0.0f, b->z, STEP_F);
        const double t1 = thread_cpu_s();
        if (sonde_trainer_step(t, x, NULL, STEP_B, NULL, &r, &err))
            die(&err);
        const double t2 = thread_cpu_s();
        if (i < 0)
            continue;
        theirs[i] = t1 - t0;
        ours[i] = t2 - t1;
        ratio[i] = ours[i] / theirs[i];
        l0 = r.l0;
    }
    const double ms = way == WAY_OWN ? 1e3 * median(ours) : 1e3 * ours[0],
                 their_ms = way == WAY_OWN ? 1e3 * median(theirs) : 1e3 * theirs[0];
    printf("%-16s step %6.1f ms  encoder sgemm %6.1f ms  ratio %.3f  (bar %.1f)  L0 %.1f  %.0f rows/s%s\n",
           label, ms, their_ms, way == WAY_OWN ? median(ratio) : ratio[0], bar, l0, 1e3 * STEP_B / ms,
           t->dense ? "  (products)" : "");
    fflush(stdout);
    sonde_trainer_free(t);
}

static void crossover(struct bench *b)
{
    static const double bias[] = {-0.030, -0.045, -0.060, -0.075, -0.09};
    for (size_t i = 0; i < sizeof bias / sizeof *bias; i++) {
        line(b, "relu, lists", "relu", 0, bias[i], 0, WAY_LISTS);
        line(b, "relu, products", "relu", 0, bias[i], 0, WAY_PRODUCTS);
    }
}

static void torch_line(void)
{
    const char *python = getenv("SONDE_TORCH");
    char command[4096];
    if (!python) {
        printf("PyTorch          not measured: SONDE_TORCH=PYTHON names an interpreter that has it\n");
        return;
    }
    snprintf(command, sizeof command, "OMP_NUM_THREADS=1 '%s' '%s/tests/bench/torch_step.py' %d %d %d %d",
             python, SONDE_SOURCE_DIR, STEP_D, STEP_F, STEP_B, STEP_K);
    fflush(stdout);
    if (system(command))
        printf("PyTorch          its step could not be run\n");
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    static const struct {
        const char *label, *arch;
        int bf16;
        double bias, bar; /* 0: none */
        enum way way;
    } lines[] = {
        {"topk", "topk", 0, 0, 1.4, WAY_OWN},
        {"topk bf16", "topk", 1, 0, 1.0, WAY_OWN},
        {"batchtopk", "batchtopk", 0, 0, 1.4, WAY_OWN},
        {"batchtopk bf16", "batchtopk", 1, 0, 1.0, WAY_OWN},
        {"matryoshka", "matryoshka", 0, 0, 1.7, WAY_OWN},
        {"relu", "relu", 0, -0.11, 1.7, WAY_OWN},
        {"jumprelu", "jumprelu", 0, -0.11, 1.7, WAY_OWN},
        {"gated", "gated", 0, -0.11, 1.7, WAY_OWN},
        {"relu, F/2", "relu", 0, 0, 0, WAY_PRODUCTS},
        {"jumprelu, F/2", "jumprelu", 0, 0, 0, WAY_PRODUCTS},
        {"gated, F/2", "gated", 0, 0, 0, WAY_PRODUCTS},
        {"relu, F/2 lists", "relu", 0, 0, 0, WAY_LISTS},
    };
    openblas_set_num_threads(1);
    make_rows(&b);
    printf("kernels %s, OpenBLAS %s; d %d, F %d, k %d, batch %d\n", sonde_kernels_name(sonde_kernels_best()),
           openblas_get_corename(), STEP_D, STEP_F, STEP_K, STEP_B);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (argc < 2 || !strcmp(argv[1], lines[i].label))
            line(&b, lines[i].label, lines[i].arch, lines[i].bf16, lines[i].bias, lines[i].bar, lines[i].way);
    if (argc > 1 && !strcmp(argv[1], "crossover"))
        crossover(&b);
    if (argc < 2 || !strcmp(argv[1], "torch"))
        torch_line();
    free(b.truth);
    free(b.x);
    free(b.z);
    return 0;
}
