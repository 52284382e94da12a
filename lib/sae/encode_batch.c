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
    if (n == 0)
        return;
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
            const struct candidates *part[1] = {c};
            const struct last_kept last = sonde_select_kth(part, 1, job->k, t->bins);
            sonde_select_keep(c, &last);
            sonde_raise_floor(job, last.value);
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

/* Counting sort by row, a part (the candidates of a thread) to a task: all of a row lies in one part, its
 * columns ascending. */
struct collect {
    const struct encode_job *job;
    const struct last_kept *last; /* NULL: all stay */
    uint64_t *next;               /* [n_rows]: entries of a row, then where its next one goes */
};

static void count_part(void *arg, size_t part, int thread)
{
    const struct collect *j = arg;
    struct candidates *c = &j->job->space->thread[part].kept;
    const uint32_t *row = c->row.p;
    (void)thread;
    if (j->last)
        sonde_select_keep(c, j->last);
    for (size_t i = 0; i < c->n; i++)
        j->next[row[i]]++;
}

static void put_part(void *arg, size_t part, int thread)
{
    const struct collect *j = arg;
    const struct candidates *c = &j->job->space->thread[part].kept;
    const float *value = c->value.p;
    const uint32_t *row = c->row.p, *col = c->col.p;
    (void)thread;
    for (size_t i = 0; i < c->n; i++) {
        const uint64_t to = j->next[row[i]]++;
        j->job->out->col[to] = col[i];
        j->job->out->value[to] = value[i];
    }
}

enum sonde_code sonde_collect(const struct encode_job *job, const struct last_kept *last, size_t n,
                              sonde_pool *pool, sonde_err *err)
{
    sonde_sparse *out = job->out;
    const size_t n_parts = (size_t)job->space->n_threads;
    const enum sonde_code code = sonde_sparse_reserve(out, job->n_rows, n > out->room ? n + n / 8 : n, err);
    if (code)
        return code;
    out->n_rows = job->n_rows;
    memset(out->start, 0, (job->n_rows + 1) * sizeof *out->start);
    struct collect j = {job, last, out->start + 1}; /* what ends as where a row ends */
    sonde_pool_run(pool, n_parts, count_part, &j);
    uint64_t sum = 0;
    for (size_t r = 0; r < job->n_rows; r++) {
        const uint64_t count = j.next[r];
        j.next[r] = sum;
        sum += count;
    }
    sonde_pool_run(pool, n_parts, put_part, &j);
    return SONDE_OK;
}
