/* SPDX-License-Identifier: MIT
 * Tasks, tiles and the product; what is picked from a tile is in encode_row.c and encode_batch.c. */
#include <stdlib.h>
#include <string.h>

#include "../base/half.h"
#include "../base/size.h"
#include "encode_impl.h"

bool sonde_buffer_grow(struct buffer *b, size_t bytes, sonde_budget *budget)
{
    if (bytes <= b->bytes)
        return true;
    if (!sonde_budget_hold(budget, bytes - b->bytes))
        return false;
    void *p = realloc(b->p, bytes);
    if (!p) {
        sonde_budget_release(budget, bytes - b->bytes);
        return false;
    }
    b->p = p;
    b->bytes = bytes;
    return true;
}

void sonde_buffer_free(struct buffer *b, sonde_budget *budget)
{
    free(b->p);
    sonde_budget_release(budget, b->bytes);
    *b = (struct buffer){0};
}

bool sonde_candidates_grow(struct candidates *c, size_t room, sonde_budget *budget)
{
    size_t bytes;
    if (room <= c->room)
        return true;
    if (!sonde_mul(&bytes, room, sizeof(float)) || !sonde_buffer_grow(&c->value, bytes, budget) ||
        !sonde_buffer_grow(&c->row, bytes, budget) || !sonde_buffer_grow(&c->col, bytes, budget))
        return false;
    c->room = room;
    return true;
}

static enum sonde_code grow_sparse(sonde_sparse *s, size_t n_rows, size_t n, bool keep, sonde_err *err)
{
    n = n ? n : 1; /* so that there are pointers to add to */
    struct buffer start = {s->start, s->start ? (s->room_rows + 1) * sizeof *s->start : 0};
    struct buffer col = {s->col, s->room * sizeof *s->col}, value = {s->value, s->room * sizeof *s->value};
    size_t rows, start_bytes, bytes;
    bool fits = sonde_add(&rows, n_rows, 1) && sonde_mul(&start_bytes, rows, sizeof *s->start) &&
                sonde_mul(&bytes, n, sizeof *s->col);
    if (fits && !keep && n > s->room) {
        sonde_buffer_free(&col, s->budget);
        sonde_buffer_free(&value, s->budget);
        s->room = 0;
    }
    fits = fits && sonde_buffer_grow(&start, start_bytes, s->budget) &&
           sonde_buffer_grow(&col, bytes, s->budget) && sonde_buffer_grow(&value, bytes, s->budget);
    s->start = start.p;
    s->room_rows = start.p ? start.bytes / sizeof *s->start - 1 : 0;
    s->col = col.p;
    s->value = value.p;
    if (!fits) { /* col may have grown before value could not: forget what is not in room */
        sonde_budget_release(s->budget, col.bytes - value.bytes);
        s->room = value.bytes / sizeof *s->value;
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu rows with %zu active latents", n_rows, n);
    }
    s->room = col.bytes / sizeof *s->col;
    return SONDE_OK;
}

enum sonde_code sonde_sparse_reserve(sonde_sparse *s, size_t n_rows, size_t n, sonde_err *err)
{
    return grow_sparse(s, n_rows, n, false, err);
}

enum sonde_code sonde_sparse_more(sonde_sparse *s, size_t n_rows, size_t n, sonde_err *err)
{
    return grow_sparse(s, n_rows, n, true, err);
}

void sonde_sparse_free(sonde_sparse *s)
{
    struct buffer start = {s->start, s->start ? (s->room_rows + 1) * sizeof *s->start : 0};
    struct buffer col = {s->col, s->room * sizeof *s->col}, value = {s->value, s->room * sizeof *s->value};
    sonde_buffer_free(&start, s->budget);
    sonde_buffer_free(&col, s->budget);
    sonde_buffer_free(&value, s->budget);
    *s = (sonde_sparse){.budget = s->budget};
}

/* Tile and bins, once for all. */
static bool begin_thread(struct encode_thread *t, sonde_budget *budget)
{
    const size_t tile = (size_t)TILE_ROWS * TILE_COLUMNS * sizeof *t->z, bins = SELECT_BINS * sizeof *t->bins;
    if (!sonde_buffer_grow(&t->memory, tile + bins + 64, budget))
        return false;
    t->z = (float *)(((uintptr_t)t->memory.p + 63) & ~(uintptr_t)63);
    t->bins = (uint32_t *)(t->z + (size_t)TILE_ROWS * TILE_COLUMNS);
    return true;
}

enum sonde_code sonde_encode_space_new(int n_threads, sonde_budget *budget, sonde_encode_space **out,
                                       sonde_err *err)
{
    if (n_threads < 1)
        return sonde_fail(err, SONDE_E_USAGE, "an encoder needs at least one thread, not %d", n_threads);
    sonde_encode_space *s = calloc(1, sizeof *s);
    bool fits = s && (s->thread = calloc((size_t)n_threads, sizeof *s->thread)) &&
                (s->part = calloc((size_t)n_threads, sizeof *s->part)) &&
                (s->part16 = calloc((size_t)n_threads, sizeof *s->part16));
    if (s) {
        s->n_threads = n_threads;
        s->budget = budget;
    }
    for (int i = 0; fits && i < n_threads; i++) {
        s->part[i] = &s->thread[i].kept;
        s->part16[i] = &s->thread[i].wide.maybe;
    }
    for (int i = 0; fits && i < n_threads; i++)
        fits = begin_thread(&s->thread[i], budget);
    if (!fits) {
        sonde_encode_space_free(s);
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for the tiles of %d threads", n_threads);
    }
    *out = s;
    return SONDE_OK;
}

void sonde_encode_space_free(sonde_encode_space *s)
{
    if (!s)
        return;
    for (int i = 0; s->thread && i < s->n_threads; i++) {
        struct encode_thread *t = &s->thread[i];
        struct buffer *all[] = {&t->kept.value, &t->kept.row,  &t->kept.col,  &t->row_col,
                                &t->row_value,  &t->row_count, &t->row_bound, &t->memory};
        for (size_t b = 0; b < sizeof all / sizeof *all; b++)
            sonde_buffer_free(all[b], s->budget);
        sonde_thread16_free(&t->wide, s->budget);
    }
    free(s->thread);
    free(s->part);
    free(s->part16);
    free(s);
}

/* One tile of pre-activations. */
static void product(const struct encode_job *job, const struct encode_tile *tile, float *z)
{
    const sonde_epilogue bias = {.bias = job->e->bias};
    sonde_matmul(job->e->w, 0, tile->col, tile->col + tile->cols, job->x + tile->row * job->ldx, job->ldx,
                 tile->rows, z, TILE_COLUMNS, &bias);
}

/* The first row (or task) of part i of n_parts that share n evenly. */
static inline size_t part_begin(size_t n, size_t n_parts, size_t i)
{
    return n / n_parts * i + (i < n % n_parts ? i : n % n_parts);
}

/* Rows of one task: columns outer, so that W's block stays in the second cache while rows pass. */
static bool encode_task(struct encode_job *job, struct encode_thread *t, size_t first, size_t rows)
{
    if (!job->pick->begin(job, t, rows))
        return false;
    for (size_t col = 0; col < job->n_latents; col += TILE_COLUMNS)
        for (size_t row = 0; row < rows; row += TILE_ROWS) {
            const size_t nr = rows - row, nc = job->n_latents - col;
            const struct encode_tile tile = {first + row, nr < TILE_ROWS ? nr : TILE_ROWS, col,
                                             nc < TILE_COLUMNS ? nc : TILE_COLUMNS, t->z};
            product(job, &tile, t->z);
            if (!job->pick->scan(job, t, first, &tile))
                return false;
        }
    return job->pick->end(job, t, first, rows);
}

static void run_task(void *arg, size_t task, int thread)
{
    struct encode_job *job = arg;
    const size_t first = part_begin(job->n_rows, job->n_tasks, task);
    const size_t rows = part_begin(job->n_rows, job->n_tasks, task + 1) - first;
    if (atomic_load(&job->out_of_memory))
        return;
    struct encode_thread *t = &job->space->thread[thread];
    if (!(job->use16 ? sonde_encode16_task : encode_task)(job, t, first, rows))
        atomic_store(&job->out_of_memory, true);
}

static enum sonde_code run_tasks(struct encode_job *job, sonde_pool *pool, sonde_err *err)
{
    for (int i = 0; i < job->space->n_threads; i++) {
        struct encode_thread *t = &job->space->thread[i];
        t->kept.n = t->wide.maybe.n = 0;
        t->wide.work = (sonde_encode_work){0};
    }
    atomic_store(&job->wanted, 0);
    sonde_pool_run(pool, job->n_tasks, run_task, job);
    if (job->use16 && job->e->pick == SONDE_PICK_BATCH && !atomic_load(&job->out_of_memory)) {
        if (atomic_load(&job->give_up16)) { /* once more in float32 */
            job->use16 = false;
            return run_tasks(job, pool, err);
        }
        if (!sonde_encode16_settle(job, pool))
            atomic_store(&job->out_of_memory, true);
    }
    if (atomic_load(&job->out_of_memory))
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for the candidates of %zu rows and %zu latents",
                          job->n_rows, job->n_latents);
    return SONDE_OK;
}

/* Move the rows together: row r has counted[r] of the k entries from r k on. Counts lie in start[r + 1]. */
static void close_gaps(sonde_sparse *out, size_t k)
{
    out->start[0] = 0;
    for (size_t r = 0; r < out->n_rows; r++) {
        const size_t n = (size_t)out->start[r + 1], to = (size_t)out->start[r];
        if (to != r * k) {
            memmove(out->col + to, out->col + r * k, n * sizeof *out->col);
            memmove(out->value + to, out->value + r * k, n * sizeof *out->value);
        }
        out->start[r + 1] = to + n;
    }
}

static enum sonde_code encode_per_row(struct encode_job *job, sonde_pool *pool, sonde_err *err)
{
    size_t n;
    if (!sonde_mul(&n, job->n_rows, job->k))
        return sonde_fail(err, SONDE_E_MEMORY, "%zu rows of %zu entries are too many", job->n_rows, job->k);
    enum sonde_code code = sonde_sparse_reserve(job->out, job->n_rows, n, err);
    if (code || (code = run_tasks(job, pool, err)))
        return code;
    job->out->n_rows = job->n_rows;
    close_gaps(job->out, job->k);
    return SONDE_OK;
}

static size_t n_candidates(const struct encode_job *job)
{
    size_t n = 0;
    for (int i = 0; i < job->space->n_threads; i++)
        n += job->space->thread[i].kept.n;
    return n;
}

static enum sonde_code encode_batch(struct encode_job *job, sonde_pool *pool, sonde_err *err)
{
    const bool hinted = job->e->hint > 0.0f && job->e->hint < __builtin_inff();
    uint32_t floor = hinted ? sonde_f32_bits(job->e->hint) - 1 : 0;
    for (;;) {
        atomic_store(&job->floor, floor);
        const enum sonde_code code = run_tasks(job, pool, err);
        if (code)
            return code;
        if (floor == 0 || n_candidates(job) >= job->k)
            break;
        floor = 0;
    }
    if (n_candidates(job) <= job->k)
        return sonde_collect(job, NULL, n_candidates(job), pool, err);
    const struct last_kept last =
        sonde_select_kth(job->space->part, (size_t)job->space->n_threads, job->k, job->space->thread[0].bins);
    return sonde_collect(job, &last, job->k, pool, err);
}

static enum sonde_code encode_above(struct encode_job *job, sonde_pool *pool, size_t *n_wanted,
                                    sonde_err *err)
{
    const enum sonde_code code = run_tasks(job, pool, err);
    if (code)
        return code;
    const size_t wanted = atomic_load(&job->wanted);
    if (n_wanted)
        *n_wanted = wanted;
    if (job->e->max_entries && wanted > job->e->max_entries)
        for (int i = 0; i < job->space->n_threads; i++)
            job->space->thread[i].kept.n = 0;
    return sonde_collect(job, NULL, n_candidates(job), pool, err);
}

static enum sonde_code check(const sonde_encoding *e, size_t n_rows, int n_threads,
                             const sonde_encode_space *space, sonde_err *err)
{
    const size_t n = e->w->n;
    if (n_rows > UINT32_MAX || n > UINT32_MAX)
        return sonde_fail(err, SONDE_E_USAGE, "%zu rows of %zu latents pass 32 bits", n_rows, n);
    if (n_threads > space->n_threads)
        return sonde_fail(err, SONDE_E_USAGE, "buffers for %d threads, the pool has %d", space->n_threads,
                          n_threads);
    if (e->w16 && (!e->rows || e->w16->k != e->w->k || e->w16->n != n || e->w16->kernels != e->w->kernels))
        return sonde_fail(err, SONDE_E_USAGE, "bfloat16 products need the rows too, and the same kernels");
    if ((e->pick == SONDE_PICK_ROW || e->pick == SONDE_PICK_GROUP) && e->k > n)
        return sonde_fail(err, SONDE_E_USAGE, "k is %zu, there are %zu latents", e->k, n);
    if (e->pick == SONDE_PICK_GROUP && (e->k == 0 || n % e->k))
        return sonde_fail(err, SONDE_E_USAGE, "%zu latents do not divide into %zu groups", n, e->k);
    if (e->pick == SONDE_PICK_ABOVE && !e->bound)
        return sonde_fail(err, SONDE_E_USAGE, "no bounds are given");
    return SONDE_OK;
}

/* As few tasks as keep the state of a task's rows small, the same number for each thread. */
static void share_rows(struct encode_job *job, size_t n_threads)
{
    const size_t state_bytes = (size_t)16 << 20;
    size_t rows = TASK_ROWS;
    if (job->e->pick == SONDE_PICK_ROW)
        job->row_room = encode_row_room(job->k, job->n_latents);
    else if (job->e->pick == SONDE_PICK_GROUP)
        job->row_room = job->k;
    if (job->use16 && job->row_room < job->limit16)
        job->row_room = job->limit16;
    if (job->row_room > state_bytes / 8 / TASK_ROWS)
        rows = state_bytes / 8 / job->row_room;
    rows = rows < TILE_ROWS ? TILE_ROWS : rows;
    const size_t n_tasks = (job->n_rows + n_threads * rows - 1) / (n_threads * rows) * n_threads;
    job->n_tasks = n_tasks < job->n_rows ? n_tasks : job->n_rows;
}

static enum sonde_code empty(sonde_sparse *out, size_t n_rows, size_t *n_wanted, sonde_err *err)
{
    const enum sonde_code code = sonde_sparse_reserve(out, n_rows, 0, err);
    if (code)
        return code;
    out->n_rows = n_rows;
    memset(out->start, 0, (n_rows + 1) * sizeof *out->start);
    if (n_wanted)
        *n_wanted = 0;
    return SONDE_OK;
}

enum sonde_code sonde_encode_rows(const sonde_encoding *e, const float *x, size_t ldx, size_t n_rows,
                                  sonde_pool *pool, sonde_encode_space *space, sonde_sparse *out,
                                  size_t *n_wanted, sonde_err *err)
{
    static const struct pick *const picks[] = {[SONDE_PICK_ABOVE] = &sonde_pick_above,
                                               [SONDE_PICK_ROW] = &sonde_pick_row,
                                               [SONDE_PICK_BATCH] = &sonde_pick_batch,
                                               [SONDE_PICK_GROUP] = &sonde_pick_group};
    const size_t n_threads = (size_t)sonde_pool_threads(pool);
    const enum sonde_code code = check(e, n_rows, (int)n_threads, space, err);
    size_t all;
    if (code)
        return code;
    if (n_rows == 0 || e->w->n == 0 || (e->k == 0 && e->pick != SONDE_PICK_ABOVE))
        return empty(out, n_rows, n_wanted, err);
    struct encode_job job = {.e = e,
                             .pick = picks[e->pick],
                             .x = x,
                             .ldx = ldx,
                             .n_rows = n_rows,
                             .n_latents = e->w->n,
                             .k = e->k,
                             .space = space,
                             .out = out};
    if (!sonde_mul(&all, n_rows, e->w->n))
        all = SIZE_MAX;
    if (e->pick == SONDE_PICK_BATCH && all < e->k)
        job.k = all;
    sonde_encode16_begin(&job);
    share_rows(&job, n_threads);
    const enum sonde_code done = e->pick == SONDE_PICK_BATCH   ? encode_batch(&job, pool, err)
                                 : e->pick == SONDE_PICK_ABOVE ? encode_above(&job, pool, n_wanted, err)
                                                               : encode_per_row(&job, pool, err);
    sonde_encode16_end(&job);
    return done;
}

void sonde_encode_space_work(const sonde_encode_space *s, sonde_encode_work *out)
{
    *out = s->work;
}
