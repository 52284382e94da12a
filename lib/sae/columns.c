/* SPDX-License-Identifier: MIT
 * Active entries by row into entries by latent: a counting sort. */
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "trainer_impl.h"

#define ENTRY_BYTES   (sizeof(uint32_t) + 4 * sizeof(float))
#define WORTH_SHARING 20000 /* entries; fewer are sorted by one thread */

void columns_free(struct columns *c, sonde_budget *budget)
{
    free(c->row);
    free(c->z);
    sonde_budget_release(budget, c->room * ENTRY_BYTES);
    c->row = NULL;
    c->z = NULL;
    c->room = 0;
}

static enum sonde_code make_room(struct columns *c, size_t n, sonde_budget *budget, sonde_err *err)
{
    if (c->room && n <= c->room) /* a batch without entries has valid pointers too */
        return SONDE_OK;
    columns_free(c, budget);
    const size_t room = n + n / 4 + 64;
    size_t bytes;
    if (!sonde_mul(&bytes, room, ENTRY_BYTES) || !sonde_budget_hold(budget, bytes))
        return sonde_fail(err, SONDE_E_MEMORY, "no memory within the limit for %zu active latents", room);
    c->room = room;
    c->row = malloc(room * sizeof *c->row);
    c->z = malloc(room * 4 * sizeof *c->z);
    if (!c->row || !c->z) {
        columns_free(c, budget);
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu active latents", room);
    }
    c->f = c->z + room;
    c->df = c->f + room;
    c->dz = c->df + room;
    return SONDE_OK;
}

/* A range of latents, of whose entries one task takes care; columns ascend within a row. */
struct sort_job {
    const sonde_sparse *z;
    const float *f;
    struct columns *c;
    size_t n_latents, n_ranges;
};

/* The first of the entries [e, end) whose column is at least `col`. */
static size_t first_from(const uint32_t *cols, size_t e, size_t end, size_t col)
{
    while (e < end) {
        const size_t mid = e + (end - e) / 2;
        if (cols[mid] < col)
            e = mid + 1;
        else
            end = mid;
    }
    return e;
}

static size_t range_begin(const struct sort_job *q, size_t range)
{
    return q->n_latents / q->n_ranges * range;
}

static size_t range_end(const struct sort_job *q, size_t range)
{
    return range + 1 < q->n_ranges ? range_begin(q, range + 1) : q->n_latents;
}

/* start[i + 2] counts latent i; after the sums start[i + 1] is where it begins, after the placing where it
 * ends. */
static void count_task(void *arg, size_t range, int thread)
{
    (void)thread;
    const struct sort_job *q = arg;
    const sonde_sparse *z = q->z;
    const size_t i0 = range_begin(q, range), i1 = range_end(q, range);
    for (size_t r = 0; r < z->n_rows; r++) {
        const size_t end = z->start[r + 1];
        for (size_t e = i0 ? first_from(z->col, z->start[r], end, i0) : z->start[r];
             e < end && z->col[e] < i1; e++)
            q->c->start[z->col[e] + 2]++;
    }
}

static void place_task(void *arg, size_t range, int thread)
{
    (void)thread;
    const struct sort_job *q = arg;
    const sonde_sparse *z = q->z;
    struct columns *c = q->c;
    const size_t i0 = range_begin(q, range), i1 = range_end(q, range);
    for (size_t r = 0; r < z->n_rows; r++) {
        const size_t end = z->start[r + 1];
        for (size_t e = i0 ? first_from(z->col, z->start[r], end, i0) : z->start[r];
             e < end && z->col[e] < i1; e++) {
            const uint64_t to = c->start[z->col[e] + 1]++;
            c->row[to] = (uint32_t)r;
            c->z[to] = z->value[e];
            c->f[to] = q->f ? q->f[e] : z->value[e];
        }
    }
}

enum sonde_code columns_from_rows(sonde_trainer *t, struct columns *c, const sonde_sparse *z, const float *f,
                                  sonde_pool *pool, sonde_err *err)
{
    const size_t n = z->start[z->n_rows], n_threads = (size_t)sonde_pool_threads(pool);
    enum sonde_code code = make_room(c, n, t->budget, err);
    if (code)
        return code;
    struct sort_job q = {z, f, c, t->F, n < WORTH_SHARING || n_threads == 1 ? 1 : 2 * n_threads};
    memset(c->start, 0, (t->F + 2) * sizeof *c->start);
    sonde_pool_run(pool, q.n_ranges, count_task, &q);
    for (size_t i = 2; i <= t->F + 1; i++)
        c->start[i] += c->start[i - 1];
    sonde_pool_run(pool, q.n_ranges, place_task, &q);
    return SONDE_OK;
}
