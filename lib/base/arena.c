/* SPDX-License-Identifier: MIT */
#include "arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "size.h"

#if defined(__SANITIZE_ADDRESS__)
#define SONDE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SONDE_ASAN 1
#endif
#endif
#ifdef SONDE_ASAN
#include <sanitizer/asan_interface.h>
#define REDZONE 64u
#else
#define REDZONE                           0u
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#define ALIGN     64u
#define BLOCK_MIN ((size_t)1 << 20)

/* Blocks come from mmap, so they begin as zeros that cost nothing until touched; `dirty` marks
 * how far a block has been handed out since, which is all that must be cleared on reuse. */
struct block {
    struct block *next;
    size_t whole; /* bytes mapped, this header included */
    size_t cap, used, dirty;
    _Alignas(ALIGN) unsigned char mem[];
};

struct sonde_arena {
    struct block *first, *cur;
    sonde_budget *budget;
    size_t taken;
};

sonde_arena *sonde_arena_new(sonde_budget *budget, sonde_err *err)
{
    sonde_arena *a = calloc(1, sizeof *a);
    if (!a) {
        sonde_fail(err, SONDE_E_MEMORY, "no memory for an arena");
        return NULL;
    }
    a->budget = budget;
    return a;
}

bool sonde_budget_hold(sonde_budget *b, size_t n)
{
    if (!b)
        return true;
    size_t have = atomic_load(&b->taken);
    do {
        if (b->limit && (have > b->limit || n > b->limit - have))
            return false;
    } while (!atomic_compare_exchange_weak(&b->taken, &have, have + n));
    return true;
}

void sonde_budget_release(sonde_budget *b, size_t n)
{
    if (b)
        atomic_fetch_sub(&b->taken, n);
}

static void *carve(struct block *b, size_t bytes)
{
    size_t end;
    if (!sonde_round_up(&end, bytes, ALIGN) || !sonde_add(&end, end, REDZONE) || end > b->cap - b->used)
        return NULL;
    unsigned char *p = b->mem + b->used;
    size_t old = b->dirty > b->used ? b->dirty - b->used : 0;
    b->used += end;
    if (b->dirty < b->used)
        b->dirty = b->used;
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
    memset(p, 0, old < bytes ? old : bytes);
    return p;
}

static struct block *add_block(sonde_arena *a, size_t bytes, sonde_err *err)
{
    size_t whole;
    if (!sonde_add(&whole, bytes, sizeof(struct block) + ALIGN + REDZONE) ||
        !sonde_round_up(&whole, whole < BLOCK_MIN ? BLOCK_MIN : whole, 4096)) {
        sonde_fail(err, SONDE_E_MEMORY, "%zu bytes are more than this machine can address", bytes);
        return NULL;
    }
    if (!sonde_budget_hold(a->budget, whole)) {
        sonde_fail(err, SONDE_E_MEMORY, "needs %zu bytes more, the memory limit is %zu and %zu are in use",
                   whole, a->budget->limit, atomic_load(&a->budget->taken));
        return NULL;
    }
    struct block *b = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b == MAP_FAILED) {
        sonde_budget_release(a->budget, whole);
        sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu bytes", whole);
        return NULL;
    }
    b->whole = whole;
    b->cap = whole - sizeof *b;
    ASAN_POISON_MEMORY_REGION(b->mem, b->cap);
    a->taken += whole;
    return b;
}

void *sonde_arena_get(sonde_arena *a, size_t n, size_t size, sonde_err *err)
{
    size_t bytes;
    if (!sonde_mul(&bytes, n, size)) {
        sonde_fail(err, SONDE_E_MEMORY, "%zu times %zu bytes are more than this machine can address", n,
                   size);
        return NULL;
    }
    for (; a->cur; a->cur = a->cur->next) {
        void *p = carve(a->cur, bytes);
        if (p)
            return p;
        if (!a->cur->next)
            break;
    }
    struct block *b = add_block(a, bytes, err);
    if (!b)
        return NULL;
    if (a->cur)
        a->cur->next = b;
    else
        a->first = b;
    a->cur = b;
    return carve(b, bytes);
}

char *sonde_arena_strndup(sonde_arena *a, const char *s, size_t n, sonde_err *err)
{
    size_t bytes;
    if (!sonde_add(&bytes, n, 1)) {
        sonde_fail(err, SONDE_E_MEMORY, "a string of %zu bytes is too long", n);
        return NULL;
    }
    char *p = sonde_arena_get(a, bytes, 1, err);
    if (p && n)
        memcpy(p, s, n);
    return p;
}

void sonde_arena_reset(sonde_arena *a)
{
    for (struct block *b = a->first; b; b = b->next) {
        b->used = 0;
        ASAN_POISON_MEMORY_REGION(b->mem, b->cap);
    }
    a->cur = a->first;
}

size_t sonde_arena_taken(const sonde_arena *a)
{
    return a->taken;
}

void sonde_arena_free(sonde_arena *a)
{
    if (!a)
        return;
    for (struct block *b = a->first, *next; b; b = next) {
        next = b->next;
        ASAN_UNPOISON_MEMORY_REGION(b->mem, b->cap);
        munmap(b, b->whole);
    }
    sonde_budget_release(a->budget, a->taken);
    free(a);
}
