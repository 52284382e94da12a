/* SPDX-License-Identifier: MIT
 * A small dictionary and a .npy of rows to run it over. Includers have cmocka.h before. */
#ifndef SONDE_TESTS_PASS_FIXTURE_H
#define SONDE_TESTS_PASS_FIXTURE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "file/npy.h"
#include "sae/infer.h"
#include "sae/source.h"

static char dir[64], rows_path[96];

static inline int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-pass-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(rows_path, sizeof rows_path, "%s/rows.npy", dir);
    return 0;
}

static inline int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static inline void must(enum sonde_code code, const sonde_err *err)
{
    if (code)
        fail_msg("code %d: %s", code, err->msg);
}

/* Normal numbers around 0.5. */
static inline float *make_numbers(size_t n, uint64_t seed)
{
    sonde_rng r = sonde_rng_seed(seed);
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)sonde_rng_normal(&r) + 0.5f;
    return x;
}

static inline void write_rows(const float *x, size_t n, size_t d)
{
    sonde_err err = {0};
    const sonde_tensor t = {.name = "array",
                            .dtype = SONDE_F32,
                            .rank = 2,
                            .dim = {n, d},
                            .data = x,
                            .n_bytes = n * d * sizeof *x};
    must(sonde_npy_write(rows_path, &t, true, &err), &err);
}

static inline sonde_source *open_rows(double holdout)
{
    sonde_err err = {0};
    sonde_source *s = NULL;
    must(sonde_source_open(rows_path, &(sonde_source_options){.holdout = holdout}, NULL, &s, &err), &err);
    return s;
}

static inline sonde_dict *empty_dict(size_t d, size_t n_latents)
{
    sonde_err err = {0};
    sonde_dict *dict = NULL;
    must(sonde_dict_new(SONDE_DICT_RELU, d, d, n_latents, false, NULL, &dict, &err), &err);
    return dict;
}

static inline sonde_dict *random_dict(size_t d, size_t n_latents)
{
    sonde_dict *dict = empty_dict(d, n_latents);
    float *w = make_numbers(n_latents * d, 5);
    for (size_t i = 0; i < n_latents * d; i++) {
        dict->w_enc[i] = w[i] - 0.5f;
        dict->w_dec[i] = (w[i] - 0.5f) / (float)n_latents;
    }
    for (size_t i = 0; i < n_latents; i++)
        dict->b_enc[i] = -0.5f;
    free(w);
    return dict;
}

static inline sonde_encoder *pack(const sonde_dict *dict)
{
    sonde_err err = {0};
    sonde_encoder *e = NULL;
    must(sonde_encoder_new(dict, sonde_kernels_best(), true, NULL, NULL, &e, &err), &err);
    return e;
}

#endif
