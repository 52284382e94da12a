/* SPDX-License-Identifier: MIT
 * Encoding with bfloat16 products, the result being float32's bit for bit.
 *
 * A bfloat16 product leaves z open within [low, high] (num/bf16.h). Of a row, let T be the k-th largest low:
 * at least k columns have z >= low >= T, so what is picked has z >= T, and z <= high. Columns with high >= T
 * are therefore all that can be picked, ties included; their z are computed by float32 chains and picked from
 * as ever. For ABOVE the limit is the bound itself. Rows that leave too much open, or whose numbers might
 * overflow, run in float32. */
#include <math.h>
#include <string.h>

#include "../base/size.h"
#include "encode16_impl.h"

#define RUNS_IN_FLOAT32 UINT32_MAX

struct row16 {
    uint32_t n;   /* columns that may pass so far, or RUNS_IN_FLOAT32 */
    uint32_t cut; /* cut back when there are so many */
    float limit;  /* what their high must reach */
};

enum { PAST_SCAN = TILE_COLUMNS + 16, REST_CALLS = 15 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* A chain costs as much as some 17 columns of a product: beyond F/32 nothing would be gained. */
void sonde_encode16_begin(struct encode_job *job)
{
    const sonde_encoding *e = job->e;
    const size_t n = job->n_latents;
    sonde_encode_space *s = job->space;
    if (!e->w16 || !sonde_chains_are_products(e->w->kernels) || e->pick == SONDE_PICK_GROUP)
        return;
    if (e->pick == SONDE_PICK_ROW && job->k > n / 32)
        return;
    if (e->pick == SONDE_PICK_BATCH && job->k / job->n_rows > n / 32)
        return;
    if (s->rest16) {
        s->rest16--;
        return;
    }
    job->use16 = true;
    job->top16 = sonde_packed16_top(e->w16);
    job->limit16 = e->pick == SONDE_PICK_ROW     ? least(n, 8 * job->k + 64)
                   : e->pick == SONDE_PICK_ABOVE ? least(n, most(64, least(n / 16, 1024)))
                                                 : 0;
}

void sonde_encode16_end(struct encode_job *job)
{
    sonde_encode_space *s = job->space;
    s->work = (sonde_encode_work){0};
    for (int i = 0; i < s->n_threads; i++) {
        const sonde_encode_work *w = &s->thread[i].wide.work;
        s->work.rows16 += w->rows16;
        s->work.rows32 += w->rows32;
        s->work.chains += w->chains;
    }
    if (s->work.rows16 == 0)
        s->work.rows32 = job->n_rows;
    if (job->e->w16 && (job->use16 ? s->work.rows32 > job->n_rows / 4 : atomic_load(&job->give_up16)))
        s->rest16 = REST_CALLS;
}

void sonde_thread16_free(struct thread16 *t, sonde_budget *budget)
{
    struct buffer *all[] = {&t->x,           &t->bound,     &t->state,     &t->col,       &t->low,
                            &t->high,        &t->start,     &t->index,     &t->z,         &t->rows,
                            &t->maybe.value, &t->maybe.row, &t->maybe.col, &t->maybe_high};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        sonde_buffer_free(all[i], budget);
}

/* n * size bytes, and a quarter more when it has to grow at all; never nothing, so that there is a pointer to
 * add to. */
static bool grow(struct buffer *b, size_t n, size_t size, sonde_budget *budget)
{
    size_t bytes;
    return sonde_mul(&bytes, n ? n : 1, size) && (bytes <= b->bytes || (sonde_add(&bytes, bytes, bytes / 4) &&
                                                                        sonde_buffer_grow(b, bytes, budget)));
}

bool sonde_round_rows16(const struct encode_job *job, struct encode_thread *t, size_t first, size_t rows)
{
    const size_t d = job->e->w->k, ld = stride16(d);
    size_t words;
    if (!sonde_mul(&words, rows, ld) || !sonde_add(&words, words, 32) ||
        !grow(&t->wide.x, words, sizeof(uint16_t), job->space->budget) ||
        !grow(&t->wide.bound, rows, sizeof(sonde_bound16), job->space->budget))
        return false;
    for (size_t i = 0; i < rows; i++)
        sonde_round16(job->e->w->kernels, d, job->x + (first + i) * job->ldx,
                      (uint16_t *)t->wide.x.p + i * ld, (sonde_bound16 *)t->wide.bound.p + i);
    return true;
}

void sonde_tile16(const struct encode_job *job, struct encode_thread *t, size_t row, size_t rows, size_t col,
                  size_t cols)
{
    const size_t ld = stride16(job->e->w->k);
    sonde_matmul16(job->e->w16, col, col + cols, (const uint16_t *)t->wide.x.p + row * ld, ld, rows, t->z,
                   TILE_COLUMNS);
}

bool sonde_float32_rows(struct encode_job *job, struct encode_thread *t, size_t first, const size_t *row,
                        size_t n)
{
    const size_t d = job->e->w->k;
    const sonde_epilogue bias = {.bias = job->e->bias};
    if (!grow(&t->wide.rows, n * d, sizeof(float), job->space->budget))
        return false;
    for (size_t i = 0; i < n; i++)
        memcpy((float *)t->wide.rows.p + i * d, job->x + row[i] * job->ldx, d * sizeof(float));
    t->wide.work.rows32 += n;
    for (size_t col = 0; n > 0 && col < job->n_latents; col += TILE_COLUMNS) {
        const size_t cols = least(job->n_latents - col, TILE_COLUMNS);
        sonde_matmul(job->e->w, 0, col, col + cols, t->wide.rows.p, d, n, t->z, TILE_COLUMNS, &bias);
        for (size_t i = 0; i < n; i++) {
            const struct encode_tile tile = {row[i], 1, col, cols, t->z + i * TILE_COLUMNS};
            if (!job->pick->scan(job, t, first, &tile))
                return false;
        }
    }
    return true;
}

bool sonde_exact16(const struct encode_job *job, struct encode_thread *t, size_t row, size_t n_rows,
                   const size_t *start, const uint32_t *index)
{
    const sonde_encoding *e = job->e;
    const size_t n = start[n_rows];
    if (!grow(&t->wide.z, n, sizeof(float), job->space->budget))
        return false;
    float *z = t->wide.z.p;
    sonde_chains(e->w->kernels, n_rows, start, index, e->rows, e->w->k, e->w->k, job->x + row * job->ldx,
                 job->ldx, z);
    for (size_t j = 0; e->bias && j < n; j++)
        z[j] += e->bias[index[j]];
    t->wide.work.chains += n;
    return true;
}

static size_t room_of(const struct encode_job *job)
{
    return job->limit16 + PAST_SCAN;
}

static bool begin_rows(const struct encode_job *job, struct encode_thread *t, size_t first, size_t rows)
{
    struct thread16 *w = &t->wide;
    sonde_budget *budget = job->space->budget;
    const size_t room = room_of(job);
    size_t entries;
    if (!sonde_mul(&entries, rows, room) || !grow(&w->col, entries, sizeof(uint32_t), budget) ||
        !grow(&w->low, entries, sizeof(float), budget) || !grow(&w->high, entries, sizeof(float), budget) ||
        !grow(&w->state, rows, sizeof(struct row16), budget) || !sonde_round_rows16(job, t, first, rows))
        return false;
    struct row16 *state = w->state.p;
    const size_t cut = least(job->limit16, most(2 * job->k, job->k + TILE_COLUMNS));
    for (size_t i = 0; i < rows; i++) {
        const bool holds = sonde_bound16_holds((const sonde_bound16 *)w->bound.p + i, job->top16);
        state[i].n = holds ? 0 : RUNS_IN_FLOAT32;
        state[i].cut = (uint32_t)(job->e->pick == SONDE_PICK_ROW ? cut : job->limit16);
        state[i].limit = job->e->any_sign ? -INFINITY : SMALLEST_POSITIVE;
    }
    return true;
}

/* Raise a row's limit to its k-th largest low, or a bit less, and drop what can not reach it. */
static void cut_row(const struct encode_job *job, struct thread16 *w, size_t row, size_t slack)
{
    struct row16 *s = (struct row16 *)w->state.p + row;
    const size_t at = row * room_of(job);
    uint32_t *col = (uint32_t *)w->col.p + at, kept = 0;
    float *low = (float *)w->low.p + at, *high = (float *)w->high.p + at;
    s->limit = sonde_select_raise(job->e->w->kernels, low, s->n, job->k, slack, s->limit);
    for (uint32_t i = 0; i < s->n; i++) {
        const float l = low[i], h = high[i];
        col[kept] = col[i];
        low[kept] = l;
        high[kept] = h;
        kept += h < s->limit ? 0 : 1;
    }
    s->n = kept;
}

/* One row of a tile. Returns 1 if the row has just left too much open. */
static size_t scan_row(const struct encode_job *job, struct encode_thread *t, size_t row, size_t col,
                       size_t cols, const float *p)
{
    struct thread16 *w = &t->wide;
    struct row16 *s = (struct row16 *)w->state.p + row;
    const size_t at = row * room_of(job) + s->n;
    const bool above = job->e->pick == SONDE_PICK_ABOVE;
    s->n +=
        (uint32_t)sonde_scan16(job->e->w16, (const sonde_bound16 *)w->bound.p + row, p, col, cols,
                               job->e->bias, s->limit, above ? job->e->bound : NULL,
                               (uint32_t *)w->col.p + at, (float *)w->low.p + at, (float *)w->high.p + at);
    if (s->n <= s->cut)
        return 0;
    if (!above) {
        cut_row(job, w, row, job->k / 8);
        s->cut = (uint32_t)least(job->limit16, most(s->cut, 2 * (size_t)s->n));
    }
    if (s->n <= job->limit16)
        return 0;
    s->n = RUNS_IN_FLOAT32;
    return 1;
}

/* Rows whose columns are known: what is open is computed, and taken. */
static bool settle_rows(struct encode_job *job, struct encode_thread *t, size_t first, size_t row,
                        size_t rows)
{
    struct thread16 *w = &t->wide;
    const struct row16 *s = (const struct row16 *)w->state.p + row;
    size_t start[TILE_ROWS + 1];
    start[0] = 0;
    for (size_t i = 0; i < rows; i++) {
        if (s[i].n != RUNS_IN_FLOAT32 && job->e->pick == SONDE_PICK_ROW)
            cut_row(job, w, row + i, job->k / 32);
        start[i + 1] = start[i] + (s[i].n == RUNS_IN_FLOAT32 ? 0 : s[i].n);
    }
    if (!grow(&w->index, start[rows], sizeof(uint32_t), job->space->budget))
        return false;
    uint32_t *index = w->index.p;
    for (size_t i = 0; i < rows; i++)
        memcpy(index + start[i], (const uint32_t *)w->col.p + (row + i) * room_of(job),
               (start[i + 1] - start[i]) * sizeof *index);
    if (!sonde_exact16(job, t, first + row, rows, start, index))
        return false;
    for (size_t i = 0; i < rows; i++) {
        if (s[i].n == RUNS_IN_FLOAT32)
            continue;
        w->work.rows16++;
        if (!job->pick->take(job, t, first, first + row + i, start[i + 1] - start[i], index + start[i],
                             (const float *)w->z.p + start[i]))
            return false;
    }
    return true;
}

/* The tiles of a task, until most rows have left too much open. */
static void scan_tiles(const struct encode_job *job, struct encode_thread *t, size_t rows)
{
    const struct row16 *s = t->wide.state.p;
    size_t n_open = 0;
    for (size_t i = 0; i < rows; i++)
        n_open += s[i].n == RUNS_IN_FLOAT32;
    for (size_t col = 0; n_open <= rows / 2 && col < job->n_latents; col += TILE_COLUMNS)
        for (size_t row = 0; row < rows; row += TILE_ROWS) {
            const size_t nr = least(rows - row, TILE_ROWS), nc = least(job->n_latents - col, TILE_COLUMNS);
            sonde_tile16(job, t, row, nr, col, nc);
            for (size_t i = 0; i < nr; i++)
                if (s[row + i].n != RUNS_IN_FLOAT32)
                    n_open += scan_row(job, t, row + i, col, nc, t->z + i * TILE_COLUMNS);
        }
    if (n_open > rows / 2)
        for (size_t i = 0; i < rows; i++)
            ((struct row16 *)t->wide.state.p)[i].n = RUNS_IN_FLOAT32;
}

static bool encode_rows(struct encode_job *job, struct encode_thread *t, size_t first, size_t rows)
{
    if (!job->pick->begin(job, t, rows) || !begin_rows(job, t, first, rows))
        return false;
    scan_tiles(job, t, rows);
    for (size_t row = 0; row < rows; row += TILE_ROWS)
        if (!settle_rows(job, t, first, row, least(rows - row, TILE_ROWS)))
            return false;
    const struct row16 *s = t->wide.state.p;
    size_t list[TILE_ROWS], n = 0;
    for (size_t i = 0; i < rows; i++) {
        if (s[i].n == RUNS_IN_FLOAT32)
            list[n++] = first + i;
        if (n == TILE_ROWS || i + 1 == rows) {
            if (!sonde_float32_rows(job, t, first, list, n))
                return false;
            n = 0;
        }
    }
    return job->pick->end(job, t, first, rows);
}

bool sonde_encode16_task(struct encode_job *job, struct encode_thread *t, size_t first, size_t rows)
{
    return job->e->pick == SONDE_PICK_BATCH ? sonde_batch16_task(job, t, first, rows)
                                            : encode_rows(job, t, first, rows);
}
