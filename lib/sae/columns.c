/* SPDX-License-Identifier: MIT
 * Active entries by row into entries by latent: a counting sort. */
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "trainer_impl.h"

#define ENTRY_BYTES (sizeof(uint32_t) + 4 * sizeof(float))

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
    if (n <= c->room)
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

enum sonde_code columns_from_rows(sonde_trainer *t, struct columns *c, const sonde_sparse *z, const float *f,
                                  sonde_err *err)
{
    const size_t n = z->start[z->n_rows];
    enum sonde_code code = make_room(c, n, t->budget, err);
    if (code)
        return code;
    /* start[i + 2] counts latent i; after the sums start[i + 1] is where it begins, after the placing where
     * it ends */
    uint64_t *at = c->start + 1;
    memset(c->start, 0, (t->F + 2) * sizeof *c->start);
    for (size_t e = 0; e < n; e++)
        at[z->col[e] + 1]++;
    for (size_t i = 1; i <= t->F; i++)
        at[i] += at[i - 1];
    for (size_t r = 0; r < z->n_rows; r++)
        for (size_t e = z->start[r]; e < z->start[r + 1]; e++) {
            const uint64_t to = at[z->col[e]]++;
            c->row[to] = (uint32_t)r;
            c->z[to] = z->value[e];
            c->f[to] = f ? f[e] : z->value[e];
        }
    return SONDE_OK;
}
