/* SPDX-License-Identifier: MIT
 * Picks within a row: the k largest, and the largest of each group. */
#include <string.h>

#include "../base/size.h"
#include "../num/sparse.h"
#include "encode_impl.h"

/* The state of a task's rows: row_room entries of each, how many there are, and what the next must pass. */
static bool begin_rows(const struct encode_job *job, struct encode_thread *t, size_t rows, float bound)
{
    sonde_budget *budget = job->space->budget;
    size_t entries, bytes;
    if (!sonde_mul(&entries, rows, job->row_room) || !sonde_mul(&bytes, entries, sizeof(float)) ||
        !sonde_buffer_grow(&t->row_col, bytes, budget) || !sonde_buffer_grow(&t->row_value, bytes, budget) ||
        !sonde_buffer_grow(&t->row_count, rows * sizeof(uint32_t), budget) ||
        !sonde_buffer_grow(&t->row_bound, rows * sizeof(float), budget))
        return false;
    memset(t->row_count.p, 0, rows * sizeof(uint32_t));
    for (size_t r = 0; r < rows; r++)
        ((float *)t->row_bound.p)[r] = bound;
    return true;
}

static bool row_begin(const struct encode_job *job, struct encode_thread *t, size_t rows)
{
    return begin_rows(job, t, rows, job->e->any_sign ? -__builtin_inff() : 0.0f);
}

/* Cut a row back to k. Later columns lose ties, so the next must be larger than the last one kept. */
static void cut_row(const struct encode_job *job, struct encode_thread *t, size_t row)
{
    uint32_t *count = (uint32_t *)t->row_count.p + row;
    const size_t at = row * job->row_room;
    ((float *)t->row_bound.p)[row] = sonde_keep_largest(
        job->e->w->kernels, *count, job->k, (uint32_t *)t->row_col.p + at, (float *)t->row_value.p + at);
    *count = (uint32_t)job->k;
}

static bool row_scan(struct encode_job *job, struct encode_thread *t, size_t first_row,
                     const struct encode_tile *tile)
{
    const float *bound = t->row_bound.p;
    uint32_t *count = t->row_count.p;
    for (size_t i = 0; i < tile->rows; i++) {
        const size_t row = tile->row + i - first_row;
        if (count[row] + tile->cols > job->row_room)
            cut_row(job, t, row);
        const size_t at = row * job->row_room + count[row];
        count[row] += (uint32_t)sonde_scan_above(job->e->w->kernels, tile->z + i * TILE_COLUMNS, tile->cols,
                                                 bound[row], (uint32_t)tile->col,
                                                 (uint32_t *)t->row_col.p + at, (float *)t->row_value.p + at);
    }
    return true;
}

/* Row r of the result lies at r k until all rows are there. */
static void put_row(const struct encode_job *job, const struct encode_thread *t, size_t first_row, size_t row)
{
    const size_t n = ((const uint32_t *)t->row_count.p)[row], at = row * job->row_room;
    const size_t to = (first_row + row) * job->k;
    memcpy(job->out->col + to, (const uint32_t *)t->row_col.p + at, n * sizeof(uint32_t));
    memcpy(job->out->value + to, (const float *)t->row_value.p + at, n * sizeof(float));
    job->out->start[first_row + row + 1] = n;
}

static bool row_end(const struct encode_job *job, struct encode_thread *t, size_t first_row, size_t rows)
{
    for (size_t r = 0; r < rows; r++) {
        if (((const uint32_t *)t->row_count.p)[r] > job->k)
            cut_row(job, t, r);
        put_row(job, t, first_row, r);
    }
    return true;
}

/* The row has nothing yet; n <= row_room. */
static bool row_take(struct encode_job *job, struct encode_thread *t, size_t first_row, size_t row, size_t n,
                     const uint32_t *col, const float *z)
{
    const size_t at = (row - first_row) * job->row_room;
    const float bound = ((const float *)t->row_bound.p)[row - first_row];
    uint32_t *to_col = (uint32_t *)t->row_col.p + at, kept = 0;
    float *to_value = (float *)t->row_value.p + at;
    for (size_t j = 0; j < n; j++) {
        to_col[kept] = col[j];
        to_value[kept] = z[j];
        kept += z[j] > bound;
    }
    ((uint32_t *)t->row_count.p)[row - first_row] = kept;
    return true;
}

const struct pick sonde_pick_row = {row_begin, row_scan, row_end, row_take};

/* GROUP: entry g of a row is the largest of group g so far, 0 for none. */
static bool group_begin(const struct encode_job *job, struct encode_thread *t, size_t rows)
{
    if (!begin_rows(job, t, rows, 0.0f))
        return false;
    memset(t->row_value.p, 0, rows * job->row_room * sizeof(float));
    return true;
}

static bool group_scan(struct encode_job *job, struct encode_thread *t, size_t first_row,
                       const struct encode_tile *tile)
{
    const size_t width = job->n_latents / job->k, end = tile->col + tile->cols;
    uint32_t col[TILE_COLUMNS + 16];
    float value[TILE_COLUMNS + 16];
    for (size_t i = 0; i < tile->rows; i++) {
        const float *z = tile->z + i * TILE_COLUMNS;
        const size_t at = (tile->row + i - first_row) * job->row_room;
        for (size_t c = tile->col; c < end;) {
            const size_t g = c / width, next = (g + 1) * width < end ? (g + 1) * width : end;
            float *best = (float *)t->row_value.p + at + g;
            const size_t n = sonde_scan_above(job->e->w->kernels, z + (c - tile->col), next - c, *best,
                                              (uint32_t)c, col, value);
            for (size_t j = 0; j < n; j++)
                if (value[j] > *best) {
                    *best = value[j];
                    ((uint32_t *)t->row_col.p)[at + g] = col[j];
                }
            c = next;
        }
    }
    return true;
}

static bool group_end(const struct encode_job *job, struct encode_thread *t, size_t first_row, size_t rows)
{
    for (size_t r = 0; r < rows; r++) {
        uint32_t *col = (uint32_t *)t->row_col.p + r * job->row_room;
        float *value = (float *)t->row_value.p + r * job->row_room;
        size_t n = 0;
        for (size_t g = 0; g < job->k; g++)
            if (value[g] > 0.0f) {
                value[n] = value[g];
                col[n++] = col[g];
            }
        ((uint32_t *)t->row_count.p)[r] = (uint32_t)n;
        put_row(job, t, first_row, r);
    }
    return true;
}

const struct pick sonde_pick_group = {group_begin, group_scan, group_end, NULL};
