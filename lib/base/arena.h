/* SPDX-License-Identifier: MIT
 * Arenas: memory with one lifetime and a limit. */
#ifndef SONDE_BASE_ARENA_H
#define SONDE_BASE_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "error.h"

/* A limit shared by any number of arenas (--max-memory). Static storage or the caller's stack;
 * it must outlive its arenas. limit 0 means no limit. */
typedef struct sonde_budget {
    size_t limit;
    _Atomic size_t taken;
} sonde_budget;

/* Count n bytes that are allocated elsewhere against the limit; false, and nothing counted, if they pass it. What was
 * held is released once. b NULL: no limit. */
bool sonde_budget_hold(sonde_budget *b, size_t n);
void sonde_budget_release(sonde_budget *b, size_t n);

typedef struct sonde_arena sonde_arena;

/* An empty arena; budget may be NULL. Returns NULL when memory is out (err says so). */
sonde_arena *sonde_arena_new(sonde_budget *budget, sonde_err *err);

/* n * size bytes, zeroed, aligned to 64. Zero bytes give a valid pointer. On overflow, over the
 * limit or without memory: NULL, and err says how much was wanted and how much is left. */
void *sonde_arena_get(sonde_arena *a, size_t n, size_t size, sonde_err *err);

/* A NUL-terminated copy of n bytes. */
char *sonde_arena_strndup(sonde_arena *a, const char *s, size_t n, sonde_err *err);

/* Forget the contents but keep the memory. */
void sonde_arena_reset(sonde_arena *a);

/* Bytes taken from the budget so far. */
size_t sonde_arena_taken(const sonde_arena *a);

/* Give everything back; NULL is fine. */
void sonde_arena_free(sonde_arena *a);

#endif
