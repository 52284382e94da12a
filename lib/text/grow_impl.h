/* SPDX-License-Identifier: MIT
 * Arrays that grow to billions of items: anonymous mappings, enlarged in place by the kernel where it can,
 * and counted against a memory budget. */
#ifndef SONDE_TEXT_GROW_IMPL_H
#define SONDE_TEXT_GROW_IMPL_H

#include <stdbool.h>
#include <stddef.h>

#include "../base/arena.h"

struct grow {
    void *p; /* NULL while n_bytes is 0; new bytes are zero */
    size_t n_bytes;
    sonde_budget *budget;
};

/* Room for n items of `size` bytes. It doubles where the budget allows, so that pushing one by one is cheap.
 */
enum sonde_code sonde_grow_reserve(struct grow *g, size_t n, size_t size, sonde_err *err);

/* Give back what lies beyond n items. */
void sonde_grow_trim(struct grow *g, size_t n, size_t size);

void sonde_grow_free(struct grow *g);

#endif
