/* SPDX-License-Identifier: MIT
 * Drives dictionaries for test_sae_formats.py: sae_tool DICT X.npy F.npy Y.npy encodes the rows of X (float32
 * [n, d_in]) and decodes them again; F and Y are dense. */
#include <stdio.h>
#include <stdlib.h>

#include "file/npy.h"
#include "sae/dict_file.h"
#include "sae/infer.h"

static enum sonde_code put(const char *path, const float *x, size_t rows, size_t columns, sonde_err *err)
{
    const sonde_tensor t = {.name = "array",
                            .dtype = SONDE_F32,
                            .rank = 2,
                            .dim = {rows, columns},
                            .data = x,
                            .n_bytes = rows * columns * sizeof *x};
    return sonde_npy_write(path, &t, true, err);
}

static enum sonde_code evaluate(const sonde_dict *d, const float *x, size_t n, char **argv, sonde_err *err)
{
    sonde_encoder *e = NULL;
    sonde_sparse f = {0};
    float *dense = calloc(n * d->n_latents, sizeof *dense), *y = calloc(n * d->d_out, sizeof *y);
    enum sonde_code rc = sonde_encoder_new(d, sonde_kernels_best(), false, NULL, NULL, &e, err);
    if (!rc)
        rc = sonde_encoder_encode(e, x, d->d_in, n, NULL, &f, err);
    if (!rc)
        rc = sonde_encoder_decode(e, &f, x, d->d_in, NULL, y, d->d_out, err);
    for (size_t r = 0; r < n && !rc; r++)
        for (uint64_t k = f.start[r]; k < f.start[r + 1]; k++)
            dense[r * d->n_latents + f.col[k]] = f.value[k];
    if (!rc)
        rc = put(argv[3], dense, n, d->n_latents, err);
    if (!rc)
        rc = put(argv[4], y, n, d->d_out, err);
    sonde_sparse_free(&f);
    sonde_encoder_free(e);
    free(dense);
    free(y);
    return rc;
}

int main(int argc, char **argv)
{
    sonde_err err = {0};
    sonde_dict *d = NULL;
    sonde_tensors *x = NULL;
    float *rows = NULL;
    size_t n = 0;
    if (argc != 5)
        return 2;
    enum sonde_code rc = sonde_dict_load(argv[1], NULL, NULL, &d, NULL, &err);
    if (!rc)
        rc = sonde_npy_open(argv[2], NULL, &x, &err);
    if (!rc && (x->tensor->rank != 2 || x->tensor->dim[1] != d->d_in))
        rc = sonde_fail(&err, SONDE_E_INPUT, "%s: the width is not %zu", argv[2], d->d_in);
    if (!rc) {
        n = (size_t)x->tensor->dim[0];
        rows = malloc(n * d->d_in * sizeof *rows);
        rc = sonde_tensor_to_f32(x->tensor, 0, n * d->d_in, rows, &err);
    }
    if (!rc)
        rc = evaluate(d, rows, n, argv, &err);
    if (rc)
        fprintf(stderr, "sae_tool: %s\n", err.msg);
    free(rows);
    sonde_tensors_close(x);
    sonde_dict_free(d);
    return (int)rc;
}
