/* SPDX-License-Identifier: MIT
 * file_copy FORMAT IN OUT: read IN (safetensors, dir, npy or npz) and write all its tensors to OUT, as .npy
 * from npy and as safetensors from the others. What other libraries then find in OUT has gone through reader
 * and writer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/npy.h"
#include "file/safetensors.h"

static enum sonde_code read_as(const char *format, const char *path, sonde_budget *b, sonde_tensors **f,
                               sonde_err *err)
{
    if (strcmp(format, "safetensors") == 0)
        return sonde_safetensors_open(path, b, f, err);
    if (strcmp(format, "dir") == 0)
        return sonde_safetensors_open_dir(path, b, f, err);
    if (strcmp(format, "npy") == 0)
        return sonde_npy_open(path, b, f, err);
    if (strcmp(format, "npz") == 0)
        return sonde_npz_open(path, b, f, err);
    return sonde_fail(err, SONDE_E_USAGE, "no format '%s'", format);
}

static enum sonde_code write_safetensors(const char *path, const sonde_tensors *f, sonde_err *err)
{
    const char **meta = calloc(2 * f->n_meta + 1, sizeof *meta);
    if (!meta)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < f->n_meta; i++) {
        meta[2 * i] = f->meta[i].key;
        meta[2 * i + 1] = f->meta[i].s;
    }
    enum sonde_code rc = sonde_safetensors_write(path, f->tensor, f->n_tensors, meta, f->n_meta, true, err);
    free(meta);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: file_copy FORMAT IN OUT\n");
        return SONDE_E_USAGE;
    }
    sonde_budget budget = {.limit = (size_t)1 << 30};
    sonde_tensors *f = NULL;
    sonde_err err = {0};
    enum sonde_code rc = read_as(argv[1], argv[2], &budget, &f, &err);
    if (rc == SONDE_OK)
        rc = strcmp(argv[1], "npy") == 0 ? sonde_npy_write(argv[3], f->tensor, true, &err)
                                         : write_safetensors(argv[3], f, &err);
    if (rc != SONDE_OK)
        fprintf(stderr, "file_copy: %s\n", err.msg);
    sonde_tensors_close(f);
    return (int)rc;
}
