/* SPDX-License-Identifier: MIT */
#include "grow_impl.h"

#include <stdatomic.h>
#include <sys/mman.h>

#include "../base/size.h"

#define PAGE  ((size_t)4096)
#define FIRST ((size_t)64 << 10)

static bool resize(struct grow *g, size_t bytes)
{
    void *p =
        g->p ? mremap(g->p, g->n_bytes, bytes, MREMAP_MAYMOVE)
             : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return false;
    g->p = p;
    g->n_bytes = bytes;
    return true;
}

enum sonde_code sonde_grow_reserve(struct grow *g, size_t n, size_t size, sonde_err *err)
{
    size_t want, ample;
    if (!sonde_mul(&want, n, size) || !sonde_round_up(&want, want, PAGE))
        return sonde_fail(err, SONDE_E_MEMORY,
                          "%zu items of %zu bytes are more than this machine can address", n, size);
    if (want <= g->n_bytes)
        return SONDE_OK;
    if (!sonde_add(&ample, g->n_bytes, g->n_bytes) || ample < want)
        ample = want < FIRST ? FIRST : want;
    if (!sonde_budget_hold(g->budget, ample - g->n_bytes)) {
        ample = want;
        if (!sonde_budget_hold(g->budget, ample - g->n_bytes))
            return sonde_fail(err, SONDE_E_MEMORY,
                              "needs %zu bytes more, the memory limit is %zu and %zu are in use",
                              want - g->n_bytes, g->budget->limit, atomic_load(&g->budget->taken));
    }
    size_t more = ample - g->n_bytes;
    if (resize(g, ample))
        return SONDE_OK;
    sonde_budget_release(g->budget, more);
    return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu bytes", ample);
}

void sonde_grow_trim(struct grow *g, size_t n, size_t size)
{
    size_t want, before = g->n_bytes;
    if (!g->p || !sonde_mul(&want, n ? n : 1, size) || !sonde_round_up(&want, want, PAGE) || want >= before)
        return;
    if (resize(g, want))
        sonde_budget_release(g->budget, before - want);
}

void sonde_grow_free(struct grow *g)
{
    if (!g->p)
        return;
    munmap(g->p, g->n_bytes);
    sonde_budget_release(g->budget, g->n_bytes);
    g->p = NULL;
    g->n_bytes = 0;
}
