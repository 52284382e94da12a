/* SPDX-License-Identifier: MIT */
#include "grow_impl.h"

#include <stdlib.h>
#include <string.h>

#include "../base/size.h"

void grow_put(struct grow *b, const void *data, size_t n)
{
    size_t want, room;
    if (b->failed || !sonde_add(&want, b->n, n) || !sonde_mul(&room, want, 2)) {
        b->failed = true;
        return;
    }
    if (want > b->room) {
        unsigned char *p = realloc(b->p, room);
        if (!p) {
            b->failed = true;
            return;
        }
        b->p = p;
        b->room = room;
    }
    if (n)
        memcpy(b->p + b->n, data, n);
    b->n = want;
}
