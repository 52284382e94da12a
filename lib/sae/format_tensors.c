/* SPDX-License-Identifier: MIT
 * Tensors of a file as the arrays of a dictionary, and back. Nothing is allocated before a shape has been
 * compared with what the file holds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "../file/safetensors.h"
#include "format_impl.h"

enum sonde_code sonde_dict_open_tensors(const char *dir, const char *name, sonde_budget *budget,
                                        sonde_tensors **out, sonde_err *err)
{
    sonde_map *m;
    enum sonde_code rc = sonde_map_open_in(dir, name, &m, err);
    return rc ? rc : sonde_safetensors_parse(m, budget, out, err);
}

static enum sonde_code missing(const sonde_tensors *f, const char *path, const char *name, sonde_err *err)
{
    char list[160] = "";
    size_t n = 0;
    for (size_t i = 0; i < f->n_tensors && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%.40s", i ? ", " : "", f->tensor[i].name);
    return sonde_fail(err, SONDE_E_INPUT, "%s: has no tensor '%s'; it has %s", path, name,
                      list[0] ? list : "none");
}

enum sonde_code sonde_dict_find(const sonde_tensors *f, const char *path, const char *name, int rank,
                                size_t rows, size_t columns, const sonde_tensor **out, sonde_err *err)
{
    const sonde_tensor *t = sonde_tensors_find(f, name);
    if (!t)
        return missing(f, path, name, err);
    const uint64_t want[2] = {rows, columns};
    bool same = t->rank == rank;
    for (int i = 0; i < rank && same; i++)
        same = t->dim[i] == want[i];
    if (!same) {
        char is[64], needed[64];
        return sonde_fail(err, SONDE_E_INPUT, "%s: tensor '%s' has shape %s, this dictionary needs %s", path,
                          name, sonde_shape_text(t->dim, t->rank, is, sizeof is),
                          sonde_shape_text(want, rank, needed, sizeof needed));
    }
    *out = t;
    return SONDE_OK;
}

enum sonde_code sonde_dict_matrix(const sonde_tensors *f, const char *path, const char *name, size_t *rows,
                                  size_t *columns, sonde_err *err)
{
    const sonde_tensor *t = sonde_tensors_find(f, name);
    if (!t)
        return missing(f, path, name, err);
    char shape[64];
    if (t->rank != 2 || t->dim[0] == 0 || t->dim[1] == 0)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: tensor '%s' has shape %s, a matrix with elements is needed", path, name,
                          sonde_shape_text(t->dim, t->rank, shape, sizeof shape));
    *rows = (size_t)t->dim[0];
    *columns = (size_t)t->dim[1];
    return SONDE_OK;
}

static enum sonde_code convert(const char *path, const sonde_tensor *t, size_t first, size_t n, float *out,
                               sonde_err *err)
{
    enum sonde_code rc = sonde_tensor_to_f32(t, first, n, out, err);
    if (rc)
        sonde_err_wrap(err, "%s: ", path);
    return rc;
}

enum sonde_code sonde_dict_read_vector(const sonde_tensors *f, const char *path, const char *name, size_t n,
                                       float *out, sonde_err *err)
{
    const sonde_tensor *t = NULL;
    enum sonde_code rc = sonde_dict_find(f, path, name, 1, n, 0, &t, err);
    return rc ? rc : convert(path, t, 0, n, out, err);
}

enum sonde_code sonde_dict_read_matrix(const sonde_tensors *f, const char *path, const char *name,
                                       size_t rows, size_t columns, float *out, sonde_err *err)
{
    const sonde_tensor *t = NULL;
    enum sonde_code rc = sonde_dict_find(f, path, name, 2, rows, columns, &t, err);
    return rc ? rc : convert(path, t, 0, rows * columns, out, err);
}

/* Tiles of 16 rows: what is written to one place of out is a whole cache line. */
enum { TILE_ROWS = 16, TILE_COLUMNS = 512 };

enum sonde_code sonde_dict_read_transposed(const sonde_tensors *f, const char *path, const char *name,
                                           size_t rows, size_t columns, float *out, sonde_err *err)
{
    const sonde_tensor *t = NULL;
    float tile[TILE_ROWS][TILE_COLUMNS];
    enum sonde_code rc = sonde_dict_find(f, path, name, 2, rows, columns, &t, err);
    for (size_t r = 0; r < rows && !rc; r += TILE_ROWS)
        for (size_t c = 0; c < columns && !rc; c += TILE_COLUMNS) {
            size_t m = rows - r < TILE_ROWS ? rows - r : TILE_ROWS;
            size_t n = columns - c < TILE_COLUMNS ? columns - c : TILE_COLUMNS;
            for (size_t i = 0; i < m && !rc; i++)
                rc = convert(path, t, (r + i) * columns + c, n, tile[i], err);
            for (size_t j = 0; j < n && !rc; j++)
                for (size_t i = 0; i < m; i++)
                    out[(c + j) * rows + r + i] = tile[i][j];
        }
    return rc;
}

enum sonde_code sonde_dict_read_scalar(const sonde_tensors *f, const char *path, const char *name,
                                       double *out, sonde_err *err)
{
    const sonde_tensor *t = sonde_tensors_find(f, name);
    if (!t)
        return missing(f, path, name, err);
    if (sonde_tensor_count(t) != 1) {
        char shape[64];
        return sonde_fail(err, SONDE_E_INPUT, "%s: tensor '%s' has shape %s, one number is needed", path,
                          name, sonde_shape_text(t->dim, t->rank, shape, sizeof shape));
    }
    if (t->dtype == SONDE_F64) {
        memcpy(out, t->data, sizeof *out);
        return SONDE_OK;
    }
    float x;
    enum sonde_code rc = convert(path, t, 0, 1, &x, err);
    if (rc == SONDE_OK)
        *out = (double)x;
    return rc;
}

enum sonde_code sonde_dict_transpose(const float *x, size_t rows, size_t columns, float **out, sonde_err *err)
{
    size_t n;
    float *y = sonde_mul(&n, rows, columns) && sonde_mul(&n, n, sizeof *y) ? malloc(n ? n : 1) : NULL;
    if (!y)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory to transpose a matrix of %zu x %zu", rows, columns);
    for (size_t r = 0; r < rows; r += TILE_ROWS)
        for (size_t c = 0; c < columns; c++)
            for (size_t i = r; i < rows && i < r + TILE_ROWS; i++)
                y[c * rows + i] = x[i * columns + c];
    *out = y;
    return SONDE_OK;
}

sonde_tensor sonde_dict_tensor(const char *name, const float *x, size_t rows, size_t columns)
{
    size_t n = columns ? rows * columns : rows;
    return (sonde_tensor){.name = name,
                          .type_name = "F32",
                          .dtype = SONDE_F32,
                          .rank = columns ? 2 : 1,
                          .dim = {rows, columns},
                          .data = x,
                          .n_bytes = n * sizeof *x};
}
