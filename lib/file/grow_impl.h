/* SPDX-License-Identifier: MIT
 * Bytes that grow while they are put together: the writers' buffer. */
#ifndef SONDE_FILE_GROW_IMPL_H
#define SONDE_FILE_GROW_IMPL_H

#include <stdbool.h>
#include <stddef.h>

/* All zero is an empty one; p is freed by whoever has it. */
struct grow {
    unsigned char *p;
    size_t n, room;
    bool failed; /* memory ran out: what was put since is missing */
};

void grow_put(struct grow *b, const void *data, size_t n);

#endif
