/* SPDX-License-Identifier: MIT
 * The reference twin of the encoder. */
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "encode.h"

struct entry {
    float value;
    uint32_t row, col;
};

static int by_rank(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? 1 : -1;
    if (x->row != y->row)
        return x->row < y->row ? -1 : 1;
    return (x->col > y->col) - (x->col < y->col);
}

static int by_place(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->row != y->row)
        return x->row < y->row ? -1 : 1;
    return (x->col > y->col) - (x->col < y->col);
}

/* z[j] for all columns of one row; column is [d]. */
static void dense_row(const sonde_encoding *e, const float *x, float *column, float *z)
{
    for (size_t j = 0; j < e->w->n; j++) {
        double acc = e->bias ? (double)e->bias[j] : 0.0;
        sonde_unpack_column(e->w, j, column);
        for (size_t i = 0; i < e->w->k; i++)
            acc += (double)x[i] * (double)column[i];
        z[j] = (float)acc;
    }
}

/* Entries of one row that a pick may keep; returns how many. ROW and GROUP are done here, BATCH when all rows
 * are there. */
static size_t pick_row(const sonde_encoding *e, const float *z, uint32_t row, struct entry *to)
{
    const float lowest = -__builtin_inff();
    size_t n = 0;
    for (size_t j = 0; j < e->w->n; j++) {
        const float bound = e->pick == SONDE_PICK_ABOVE                ? e->bound[j]
                            : e->pick == SONDE_PICK_ROW && e->any_sign ? lowest
                                                                       : 0.0f;
        if (z[j] > bound)
            to[n++] = (struct entry){z[j], row, (uint32_t)j};
    }
    if (e->pick == SONDE_PICK_ABOVE || e->pick == SONDE_PICK_BATCH)
        return n;
    qsort(to, n, sizeof *to, by_rank);
    if (e->pick == SONDE_PICK_ROW)
        return n < e->k ? n : e->k;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) { /* the first of each group */
        bool seen = false;
        for (size_t j = 0; j < kept; j++)
            seen = seen || to[j].col / (e->w->n / e->k) == to[i].col / (e->w->n / e->k);
        if (!seen)
            to[kept++] = to[i];
    }
    return kept;
}

static enum sonde_code fill(sonde_sparse *out, const struct entry *all, size_t n, size_t n_rows,
                            sonde_err *err)
{
    const enum sonde_code code = sonde_sparse_reserve(out, n_rows, n, err);
    if (code)
        return code;
    out->n_rows = n_rows;
    memset(out->start, 0, (n_rows + 1) * sizeof *out->start);
    for (size_t i = 0; i < n; i++) {
        out->start[all[i].row + 1]++;
        out->col[i] = all[i].col;
        out->value[i] = all[i].value;
    }
    for (size_t r = 0; r < n_rows; r++)
        out->start[r + 1] += out->start[r];
    return SONDE_OK;
}

enum sonde_code ref_encode_rows(const sonde_encoding *e, const float *x, size_t ldx, size_t n_rows,
                                sonde_sparse *out, sonde_err *err)
{
    size_t entries, n = 0;
    if (!sonde_mul(&entries, n_rows, e->w->n) || entries > SIZE_MAX / sizeof(struct entry))
        return sonde_fail(err, SONDE_E_MEMORY, "%zu rows of %zu latents are too many", n_rows, e->w->n);
    struct entry *all = malloc((entries + 1) * sizeof *all);
    float *z = malloc((e->w->n + e->w->k + 1) * sizeof *z);
    enum sonde_code code = all && z ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "no memory for z");
    for (size_t r = 0; !code && r < n_rows; r++) {
        dense_row(e, x + r * ldx, z + e->w->n, z);
        n += pick_row(e, z, (uint32_t)r, all + n);
    }
    if (!code && e->pick == SONDE_PICK_BATCH) {
        qsort(all, n, sizeof *all, by_rank);
        n = n < e->k ? n : e->k;
    }
    if (!code) {
        qsort(all, n, sizeof *all, by_place);
        code = fill(out, all, n, n_rows, err);
    }
    free(all);
    free(z);
    return code;
}
