/* SPDX-License-Identifier: MIT
 * file_copy FORMAT IN OUT: read IN (safetensors, dir, npy, npz or torch) and write all its tensors to OUT, as
 * .npy, .npz or a file of torch.save where OUT ends so (.pt: with the plain values), as safetensors
 * otherwise. What other libraries then find in OUT has gone through reader and writer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/npy.h"
#include "file/safetensors.h"
#include "file/torchzip.h"

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
    if (strcmp(format, "torch") == 0)
        return sonde_torchzip_open(path, b, f, err);
    return sonde_fail(err, SONDE_E_USAGE, "no format '%s'", format);
}

static enum sonde_code write_safetensors(const char *path, const sonde_tensors *f, sonde_err *err)
{
    const char **meta = calloc(2 * f->n_meta + 1, sizeof *meta);
    if (!meta)
        return SONDE_E_MEMORY;
    size_t n = 0;
    for (size_t i = 0; i < f->n_meta; i++)
        if (f->meta[i].type == SONDE_META_STRING) {
            meta[2 * n] = f->meta[i].key;
            meta[2 * n++ + 1] = f->meta[i].s;
        }
    enum sonde_code rc = sonde_safetensors_write(path, f->tensor, f->n_tensors, meta, n, true, err);
    free(meta);
    return rc;
}

/* Values whose key has a dot come back in a dictionary named by what stands before the first one. */
static enum sonde_code write_torch(const char *path, const sonde_tensors *f, sonde_err *err)
{
    sonde_torch_value *v = calloc(f->n_meta + 1, sizeof *v);
    char **group = calloc(f->n_meta + 1, sizeof *group);
    size_t n = 0;
    enum sonde_code rc = v && group ? SONDE_OK : SONDE_E_MEMORY;
    for (size_t i = 0; i < f->n_meta && rc == SONDE_OK; i++) {
        if (f->meta[i].type == SONDE_META_ARRAY)
            continue;
        const char *dot = strchr(f->meta[i].key, '.');
        v[n].value = f->meta[i];
        if (dot) {
            v[n].group = group[n] = strndup(f->meta[i].key, (size_t)(dot - f->meta[i].key));
            v[n].value.key = dot + 1;
        }
        n++;
    }
    if (rc == SONDE_OK)
        rc = sonde_torchzip_write(path, f->tensor, f->n_tensors, v, n, true, err);
    for (size_t i = 0; group && i < n; i++)
        free(group[i]);
    free(group);
    free(v);
    return rc;
}

static enum sonde_code write_as(const char *path, const sonde_tensors *f, sonde_err *err)
{
    const char *dot = strrchr(path, '.');
    if (dot && strcmp(dot, ".npy") == 0)
        return sonde_npy_write(path, f->tensor, true, err);
    if (dot && strcmp(dot, ".npz") == 0)
        return sonde_npz_write(path, f->tensor, f->n_tensors, true, err);
    if (dot && strcmp(dot, ".pt") == 0)
        return write_torch(path, f, err);
    return write_safetensors(path, f, err);
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
        rc = write_as(argv[3], f, &err);
    if (rc != SONDE_OK)
        fprintf(stderr, "file_copy: %s\n", err.msg);
    sonde_tensors_close(f);
    return (int)rc;
}
