/* SPDX-License-Identifier: MIT
 * Encoding with bfloat16 products, and with float32 ones, against OpenBLAS sgemm of the same shape: one
 * thread, CPU seconds, median of alternated rounds. Rows are sparse sums of the dictionary's own directions
 * with noise. */
#include <math.h>

#include "base/rng.h"
#include "bench_num.h"
#include "sae/encode.h"

enum { D = 768, F = 12288, B = 4096, K = 32, ROUNDS = 7 };

struct bench {
    const sonde_kernels *kernels;
    float *x, *rows, *y, *bound;
    sonde_packed w;
    sonde_packed16 w16;
};

/* Unit rows; each row of x holds K of them (Zipf) with positive weights, and noise of a third of its norm. */
static void make_data(struct bench *b)
{
    sonde_rng rng = sonde_rng_seed(7);
    b->rows = numbers((size_t)F * D, 1);
    b->x = numbers((size_t)B * D, 2);
    b->y = numbers((size_t)B * F, 3);
    b->bound = numbers(F, 4);
    for (size_t i = 0; i < F; i++) {
        float *w = b->rows + i * D, sum = 0;
        for (size_t j = 0; j < D; j++)
            w[j] = (float)sonde_rng_normal(&rng);
        for (size_t j = 0; j < D; j++)
            sum += w[j] * w[j];
        for (size_t j = 0; j < D; j++)
            w[j] /= sqrtf(sum);
        b->bound[i] = 0.55f;
    }
    for (size_t r = 0; r < B; r++) {
        float *x = b->x + r * D;
        for (size_t j = 0; j < D; j++)
            x[j] = 0.07f * (float)sonde_rng_normal(&rng);
        for (size_t s = 0; s < K; s++) {
            const double u = sonde_rng_double(&rng);
            const size_t c = (size_t)(pow((double)F, u) - 1) % F;
            const float weight = 0.5f + (float)sonde_rng_double(&rng);
            for (size_t j = 0; j < D; j++)
                x[j] += weight * b->rows[c * D + j];
        }
    }
    const sonde_kernels *k = b->kernels;
    const size_t floats = sonde_packed_floats(k, D, F), words = sonde_packed16_words(k, D, F);
    b->w = (sonde_packed){k, D, F, aligned_alloc(64, (floats + 15) / 16 * 64)};
    b->w16 = (sonde_packed16){k, D, F, aligned_alloc(64, (words + 31) / 32 * 64)};
    memset(b->w.data, 0, floats * sizeof(float));
    memset(b->w16.data, 0, words * sizeof(uint16_t));
    sonde_pack(&b->w, 0, D, 0, F, b->rows, 1, D);
    sonde_pack16(&b->w16, 0, F, b->rows, D);
}

static double sgemm_s(const struct bench *b)
{
    const double t = cpu_s();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, B, F, D, 1.0f, b->x, D, b->rows, D, 0.0f, b->y, F);
    return cpu_s() - t;
}

static double encode_s(const struct bench *b, sonde_encoding e, int bf16, sonde_encode_space *space,
                       sonde_sparse *out)
{
    sonde_err err;
    e.w = &b->w;
    e.w16 = bf16 ? &b->w16 : NULL;
    e.rows = b->rows;
    const double t = cpu_s();
    if (sonde_encode_rows(&e, b->x, D, B, NULL, space, out, NULL, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    return cpu_s() - t;
}

static void pick(const struct bench *b, const char *what, const sonde_encoding *e)
{
    double ratio16[ROUNDS], ratio32[ROUNDS], base[ROUNDS];
    sonde_encode_space *space;
    sonde_sparse out = {0};
    sonde_encode_work work;
    sonde_err err;
    if (sonde_encode_space_new(1, NULL, &space, &err))
        exit(1);
    encode_s(b, *e, 1, space, &out);
    for (int i = 0; i < ROUNDS; i++) {
        const double t16 = encode_s(b, *e, 1, space, &out);
        sonde_encode_space_work(space, &work);
        base[i] = sgemm_s(b);
        ratio32[i] = encode_s(b, *e, 0, space, &out) / base[i];
        ratio16[i] = t16 / base[i];
    }
    printf("%-22s bf16 %.3f, float32 %.3f of sgemm (%.0f ms); L0 %.1f, computed exactly %.1f of a row, rows "
           "in float32 "
           "%zu\n",
           what, median(ratio16, ROUNDS), median(ratio32, ROUNDS), median(base, ROUNDS) * 1e3,
           (double)out.start[B] / B, (double)work.chains / B, work.rows32);
    fflush(stdout);
    sonde_encode_space_free(space);
    sonde_sparse_free(&out);
}

int main(int argc, char **argv)
{
    struct bench b = {.kernels = bench_begin(argc, argv)};
    if (!sonde_bf16_available(b.kernels)) {
        printf("no bfloat16 products with these kernels on this CPU\n");
        return 0;
    }
    make_data(&b);
    pick(&b, "k of each row", &(sonde_encoding){.pick = SONDE_PICK_ROW, .k = K});
    pick(&b, "k B of the batch", &(sonde_encoding){.pick = SONDE_PICK_BATCH, .k = (size_t)K * B});
    pick(&b, "the same with a hint",
         &(sonde_encoding){.pick = SONDE_PICK_BATCH, .k = (size_t)K * B, .hint = 0.4f});
    pick(&b, "above bounds", &(sonde_encoding){.pick = SONDE_PICK_ABOVE, .bound = b.bound});
    return 0;
}
