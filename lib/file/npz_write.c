/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "name_impl.h"
#include "npy_impl.h"
#include "zip_impl.h"

static enum sonde_code check(const char *path, const sonde_tensor *t, size_t n, sonde_err *err)
{
    char head[SONDE_NPY_HEAD];
    size_t n_head;
    for (size_t i = 0; i < n; i++) {
        enum sonde_code rc = sonde_npy_make_head(path, &t[i], head, &n_head, err);
        if (rc != SONDE_OK)
            return rc;
        if (!sonde_name_ok(t[i].name, strlen(t[i].name)))
            return sonde_fail(err, SONDE_E_USAGE, "%s: '%.100s' is no name for an array", path, t[i].name);
        for (size_t k = 0; k < i; k++)
            if (strcmp(t[k].name, t[i].name) == 0)
                return sonde_fail(err, SONDE_E_USAGE, "%s: there are two arrays '%.100s'", path, t[i].name);
    }
    return SONDE_OK;
}

static enum sonde_code add(sonde_zip_writer *w, const char *path, const sonde_tensor *t, sonde_err *err)
{
    char head[SONDE_NPY_HEAD], name[SONDE_MAX_NAME + 8];
    size_t n_head;
    snprintf(name, sizeof name, "%s.npy", t->name);
    enum sonde_code rc = sonde_npy_make_head(path, t, head, &n_head, err);
    return rc == SONDE_OK ? sonde_zip_add(w, name, head, n_head, t->data, t->n_bytes, err) : rc;
}

enum sonde_code sonde_npz_write(const char *path, const sonde_tensor *tensor, size_t n_tensors,
                                bool overwrite, sonde_err *err)
{
    sonde_zip_writer *w;
    enum sonde_code rc = check(path, tensor, n_tensors, err);
    if (rc == SONDE_OK)
        rc = sonde_zip_begin(path, overwrite, UINT32_MAX, &w, err);
    if (rc != SONDE_OK)
        return rc;
    for (size_t i = 0; i < n_tensors && rc == SONDE_OK; i++)
        rc = add(w, path, &tensor[i], err);
    if (rc == SONDE_OK)
        return sonde_zip_commit(w, err);
    sonde_zip_abandon(w);
    return rc;
}
