/* SPDX-License-Identifier: MIT
 * The k largest of a batch from bfloat16 products: T is the k-th largest low of all rows together. Each
 * thread lists what may reach the floor; a list is cut at its own k-th largest low, and once more at that of
 * all. */
#include <string.h>

#include "../base/half.h"
#include "../base/size.h"
#include "encode16_impl.h"

/* A list holds so many, and gives up when three quarters of them can not be cut. */
static size_t list_room(const struct encode_job *job)
{
    return 4 * job->k + 64 * TILE_COLUMNS;
}

/* What high must reach: just above the floor. */
static float limit_of(const struct encode_job *job)
{
    return sonde_bits_f32(atomic_load(&job->floor) + 1);
}

static void drop_below(struct thread16 *w, float limit)
{
    struct candidates *c = &w->maybe;
    float *low = c->value.p, *high = w->maybe_high.p;
    uint32_t *row = c->row.p, *col = c->col.p;
    size_t kept = 0;
    for (size_t i = 0; i < c->n; i++) {
        const float l = low[i], h = high[i];
        low[kept] = l;
        high[kept] = h;
        row[kept] = row[i];
        col[kept] = col[i];
        kept += h < limit ? 0 : 1;
    }
    c->n = kept;
}

static void raise_to_kth(struct encode_job *job, const struct candidates *const *part, size_t n_parts,
                         uint32_t *bins)
{
    size_t n = 0;
    for (size_t i = 0; i < n_parts; i++)
        n += part[i]->n;
    if (n < job->k)
        return;
    const float t = sonde_select_kth(part, n_parts, job->k, bins).value;
    if (t > 0.0f)
        sonde_raise_floor(job, t);
}

/* Room for one row of a tile. False: no memory. */
static bool make_room(struct encode_job *job, struct encode_thread *t)
{
    struct candidates *c = &t->wide.maybe;
    const size_t all = list_room(job), most = all + TILE_COLUMNS + 16;
    if (c->n > all) {
        const struct candidates *const part[1] = {c};
        raise_to_kth(job, part, 1, t->bins);
        drop_below(&t->wide, limit_of(job));
        if (c->n > all / 4 * 3)
            atomic_store(&job->give_up16, true);
    }
    if (c->n + TILE_COLUMNS + 16 <= c->room)
        return true;
    const size_t room = 2 * c->room + 64 * TILE_COLUMNS;
    return sonde_candidates_grow(c, room < most ? room : most, job->space->budget) &&
           sonde_buffer_grow(&t->wide.maybe_high, c->room * sizeof(float), job->space->budget);
}

static bool scan_row(struct encode_job *job, struct encode_thread *t, size_t first, size_t row, size_t col,
                     size_t cols, const float *p)
{
    struct candidates *c = &t->wide.maybe;
    if (!make_room(job, t))
        return false;
    if (atomic_load(&job->give_up16)) /* the list may be full */
        return true;
    float *low = (float *)c->value.p + c->n;
    uint32_t *rows = (uint32_t *)c->row.p + c->n;
    const size_t n = sonde_scan16(job->e->w16, (const sonde_bound16 *)t->wide.bound.p + row, p, col, cols,
                                  job->e->bias, limit_of(job), NULL, (uint32_t *)c->col.p + c->n, low,
                                  (float *)t->wide.maybe_high.p + c->n);
    for (size_t j = 0; j < n; j++) {
        low[j] = low[j] > 0.0f ? low[j] : 0.0f;
        rows[j] = (uint32_t)(first + row);
    }
    c->n += n;
    return true;
}

/* Rows that may overflow go through float32 at once. */
static bool wild_rows(struct encode_job *job, struct encode_thread *t, size_t first, size_t rows)
{
    const sonde_bound16 *bound = t->wide.bound.p;
    size_t list[TILE_ROWS], n = 0;
    for (size_t i = 0; i < rows; i++) {
        if (!sonde_bound16_holds(bound + i, job->top16))
            list[n++] = first + i;
        else
            t->wide.work.rows16++;
        if (n == TILE_ROWS || i + 1 == rows) {
            if (!sonde_float32_rows(job, t, first, list, n))
                return false;
            n = 0;
        }
    }
    return true;
}

bool sonde_batch16_task(struct encode_job *job, struct encode_thread *t, size_t first, size_t rows)
{
    if (!sonde_round_rows16(job, t, first, rows))
        return false;
    const sonde_bound16 *bound = t->wide.bound.p;
    for (size_t col = 0; col < job->n_latents && !atomic_load(&job->give_up16); col += TILE_COLUMNS)
        for (size_t row = 0; row < rows; row += TILE_ROWS) {
            const size_t nr = rows - row < TILE_ROWS ? rows - row : TILE_ROWS;
            const size_t nc = job->n_latents - col < TILE_COLUMNS ? job->n_latents - col : TILE_COLUMNS;
            sonde_tile16(job, t, row, nr, col, nc);
            for (size_t i = 0; i < nr; i++)
                if (sonde_bound16_holds(bound + row + i, job->top16) &&
                    !scan_row(job, t, first, row + i, col, nc, t->z + i * TILE_COLUMNS))
                    return false;
        }
    return atomic_load(&job->give_up16) || wild_rows(job, t, first, rows);
}

/* The list of one thread, by rows (columns ascend as they were found), computed and taken. */
static bool settle(struct encode_job *job, struct encode_thread *t)
{
    struct thread16 *w = &t->wide;
    const struct candidates *c = &w->maybe;
    drop_below(w, limit_of(job));
    if (!sonde_buffer_grow(&w->start, (job->n_rows + 2) * sizeof(size_t), job->space->budget) ||
        !sonde_buffer_grow(&w->index, c->n * sizeof(uint32_t), job->space->budget))
        return false;
    const uint32_t *row = c->row.p, *col = c->col.p;
    uint32_t *index = w->index.p;
    size_t *start = w->start.p, *next = start + 1; /* next[r] becomes start[r + 1] */
    memset(start, 0, (job->n_rows + 2) * sizeof *start);
    for (size_t i = 0; i < c->n; i++)
        next[row[i] + 1]++;
    for (size_t r = 1; r <= job->n_rows; r++)
        next[r] += next[r - 1];
    for (size_t i = 0; i < c->n; i++)
        index[next[row[i]]++] = col[i];
    if (!sonde_exact16(job, t, 0, job->n_rows, start, index))
        return false;
    for (size_t r = 0; r < job->n_rows; r++)
        if (start[r + 1] > start[r] && !job->pick->take(job, t, 0, r, start[r + 1] - start[r],
                                                        index + start[r], (const float *)w->z.p + start[r]))
            return false;
    return true;
}

static void settle_task(void *arg, size_t task, int thread)
{
    struct encode_job *job = arg;
    (void)thread;
    if (!settle(job, &job->space->thread[task]))
        atomic_store(&job->out_of_memory, true);
}

bool sonde_encode16_settle(struct encode_job *job, sonde_pool *pool)
{
    const size_t n_threads = (size_t)job->space->n_threads;
    raise_to_kth(job, job->space->part16, n_threads, job->space->thread[0].bins);
    sonde_pool_run(pool, n_threads, settle_task, job);
    return !atomic_load(&job->out_of_memory);
}
