/* SPDX-License-Identifier: MIT
 * Which token stands before a token in its context? */
#ifndef SONDE_SAE_BEFORE_IMPL_H
#define SONDE_SAE_BEFORE_IMPL_H

#include "source.h"

#define BEFORE_BLOCK 4096

/* Of a store a block of tokens is kept: passes in the order of the text read each once. */
struct before {
    sonde_source *s;
    size_t pos;     /* its dataset of positions; SIZE_MAX: not a store, or it has none */
    uint64_t first; /* token of the block */
    size_t n;       /* in it */
    int32_t before[BEFORE_BLOCK];
};

void before_begin(struct before *b, sonde_source *s);

/* *id: the token before token t in its context; -1 if t is the first, or where nothing is known (t
 * UINT64_MAX). */
enum sonde_code before_find(struct before *b, uint64_t t, int32_t *id, sonde_err *err);

#endif
