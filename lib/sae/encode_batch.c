/* SPDX-License-Identifier: MIT
 * Picks over all rows: the k largest of the batch, and everything above bounds. */
#include <string.h>

#include "../base/half.h"
#include "../base/size.h"
#include "../num/sparse.h"
#include "encode_impl.h"

static bool nothing_begins(const struct encode_job *job, struct encode_thread *t, size_t rows)
{
    (void)job, (void)t, (void)rows;
    return true;
}

static bool nothing_ends(const struct encode_job *job, struct encode_thread *t, size_t first_row, size_t rows)
{
    (void)job, (void)t, (void)first_row, (void)rows;
    return true;
}

static inline void add_rows(struct candidates *c, size_t n, size_t row)
{
    uint32_t *rows = (uint32_t *)c->row.p + c->n;
    for (size_t j = 0; j < n; j++)
        rows[j] = (uint32_t)row;
    c->n += n;
}

/* Room for one row of a tile: the buffer doubles up to `limit`. False: no memory. */
static bool make_room(struct candidates *c, size_t limit, sonde_budget *budget)
{
    size_t room = c->room < 32 * TILE_COLUMNS ? 32 * TILE_COLUMNS : 2 * c->room;
    if (c->n + TILE_COLUMNS <= c->room)
        return true;
    if (c->room > SIZE_MAX / 2)
        return false;
    return sonde_candidates_grow(c, room < limit ? room : limit, budget);
}

void sonde_raise_floor(struct encode_job *job, float v)
{
    const uint32_t bits = sonde_f32_bits(v) - 1;
    uint32_t have = atomic_load(&job->floor);
    while (have < bits && !atomic_compare_exchange_weak(&job->floor, &have, bits))
        ;
}

/* A thread keeps at most 2 k candidates (and a row of a tile): what it cuts off can not be among the k
 * largest of all. */
static bool batch_scan(struct encode_job *job, struct encode_thread *t, size_t first_row,
                       const struct encode_tile *tile)
{
    struct candidates *c = &t->kept;
    const size_t limit = job->k < SIZE_MAX / 2 - TILE_COLUMNS ? 2 * job->k + TILE_COLUMNS : SIZE_MAX;
    float bound = sonde_bits_f32(atomic_load(&job->floor));
    (void)first_row;
    for (size_t i = 0; i < tile->rows; i++) {
        if (c->n + TILE_COLUMNS > limit) {
            sonde_raise_floor(job, sonde_select_cut(c, job->k, t->bins).value);
            bound = sonde_bits_f32(atomic_load(&job->floor));
        }
        if (!make_room(c, limit, job->space->budget))
            return false;
        const size_t n =
            sonde_scan_above(job->e->w->kernels, tile->z + i * TILE_COLUMNS, tile->cols, bound,
                             (uint32_t)tile->col, (uint32_t *)c->col.p + c->n, (float *)c->value.p + c->n);
        add_rows(c, n, tile->row + i);
    }
    return true;
}

/* Room for n more. */
static bool grow_by(struct candidates *c, size_t n, sonde_budget *budget)
{
    return c->n + n <= c->room || sonde_candidates_grow(c, c->n + n + c->room / 2, budget);
}

static bool batch_take(struct encode_job *job, struct encode_thread *t, size_t first_row, size_t row,
                       size_t n, const uint32_t *col, const float *z)
{
    struct candidates *c = &t->kept;
    const float floor = sonde_bits_f32(atomic_load(&job->floor));
    size_t passed = 0;
    (void)first_row;
    if (!grow_by(c, n, job->space->budget))
        return false;
    for (size_t j = 0; j < n; j++) {
        ((float *)c->value.p)[c->n + passed] = z[j];
        ((uint32_t *)c->col.p)[c->n + passed] = col[j];
        passed += z[j] > floor;
    }
    add_rows(c, passed, row);
    return true;
}

const struct pick sonde_pick_batch = {nothing_begins, batch_scan, nothing_ends, batch_take};

/* Entries are stored until more than max_entries have passed in all threads, and counted to the end. */
static bool above_scan(struct encode_job *job, struct encode_thread *t, size_t first_row,
                       const struct encode_tile *tile)
{
    struct candidates *c = &t->kept;
    const size_t before = atomic_load(&job->wanted);
    const bool full = job->e->max_entries && before > job->e->max_entries;
    size_t passed = 0;
    (void)first_row;
    if (full)
        c->n = 0;
    for (size_t i = 0; i < tile->rows; i++) {
        if (!make_room(c, SIZE_MAX, job->space->budget))
            return false;
        const size_t n = sonde_scan_above_each(job->e->w->kernels, tile->z + i * TILE_COLUMNS, tile->cols,
                                               job->e->bound + tile->col, (uint32_t)tile->col,
                                               (uint32_t *)c->col.p + c->n, (float *)c->value.p + c->n);
        passed += n;
        if (!full)
            add_rows(c, n, tile->row + i);
    }
    atomic_fetch_add(&job->wanted, passed);
    return true;
}

static bool above_take(struct encode_job *job, struct encode_thread *t, size_t first_row, size_t row,
                       size_t n, const uint32_t *col, const float *z)
{
    struct candidates *c = &t->kept;
    const size_t before = atomic_load(&job->wanted);
    const bool full = job->e->max_entries && before > job->e->max_entries;
    size_t passed = 0;
    (void)first_row;
    if (full)
        c->n = 0;
    if (!grow_by(c, n, job->space->budget))
        return false;
    for (size_t j = 0; j < n; j++) {
        ((float *)c->value.p)[c->n + passed] = z[j];
        ((uint32_t *)c->col.p)[c->n + passed] = col[j];
        passed += z[j] > job->e->bound[col[j]];
    }
    if (!full)
        add_rows(c, passed, row);
    atomic_fetch_add(&job->wanted, passed);
    return true;
}

const struct pick sonde_pick_above = {nothing_begins, above_scan, nothing_ends, above_take};

/* Counting sort by row. A row lies in one thread, with its columns ascending. */
enum sonde_code sonde_collect(const struct encode_job *job, const struct last_kept *last, sonde_err *err)
{
    sonde_sparse *out = job->out;
    uint64_t *next;
    size_t total = 0;
    for (int i = 0; i < job->space->n_threads; i++)
        total += job->space->part[i]->n;
    if (last && total > job->k)
        total = job->k;
    enum sonde_code code =
        sonde_sparse_reserve(out, job->n_rows, total > out->room ? total + total / 8 : total, err);
    if (code)
        return code;
    out->n_rows = job->n_rows;
    memset(out->start, 0, (job->n_rows + 1) * sizeof *out->start);
    next = out->start + 1; /* counts, then where the next entry of a row goes, which ends as start[r + 1] */
    for (int p = 0; p < job->space->n_threads; p++) {
        const struct candidates *c = job->space->part[p];
        const float *value = c->value.p;
        const uint32_t *row = c->row.p, *col = c->col.p;
        for (size_t i = 0; i < c->n; i++)
            next[row[i]] += !last || is_kept(last, value[i], row[i], col[i]);
    }
    uint64_t sum = 0;
    for (size_t r = 0; r < job->n_rows; r++) {
        const uint64_t n = next[r];
        next[r] = sum;
        sum += n;
    }
    for (int p = 0; p < job->space->n_threads; p++) {
        const struct candidates *c = job->space->part[p];
        const float *value = c->value.p;
        const uint32_t *row = c->row.p, *col = c->col.p;
        for (size_t i = 0; i < c->n; i++)
            if (!last || is_kept(last, value[i], row[i], col[i])) {
                const uint64_t to = next[row[i]]++;
                out->col[to] = col[i];
                out->value[to] = value[i];
            }
    }
    return SONDE_OK;
}
