/* SPDX-License-Identifier: MIT
 * Text being rewritten, with the origin of every byte. */
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "pretoken_impl.h"

void text_build_free(struct text_build *b)
{
    free(b->s);
    free(b->from);
    free(b->to);
    *b = (struct text_build){0};
}

static enum sonde_code grow(struct text_build *b, size_t n, sonde_err *err)
{
    size_t need, cap, bytes;
    if (!sonde_add(&need, b->n, n) || !sonde_add(&cap, need, need / 2) || !sonde_add(&cap, cap, 64) ||
        !sonde_mul(&bytes, cap, sizeof(uint32_t)))
        return sonde_fail(err, SONDE_E_MEMORY, "the normalised text is too long");
    unsigned char *s = realloc(b->s, cap);
    if (s)
        b->s = s;
    uint32_t *from = realloc(b->from, bytes);
    if (from)
        b->from = from;
    uint32_t *to = realloc(b->to, bytes);
    if (to)
        b->to = to;
    if (!s || !from || !to)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu bytes of normalised text", cap);
    b->cap = cap;
    return SONDE_OK;
}

enum sonde_code text_build_copy(struct text_build *b, const struct text_view *t, size_t begin, size_t end,
                                sonde_err *err)
{
    size_t n = end - begin;
    if (n == 0)
        return SONDE_OK;
    if (n > b->cap - b->n) {
        enum sonde_code rc = grow(b, n, err);
        if (rc)
            return rc;
    }
    memcpy(b->s + b->n, t->s + begin, n);
    for (size_t i = 0; i < n; i++) {
        b->from[b->n + i] = text_begin(t, begin + i);
        b->to[b->n + i] = text_end(t, begin + i + 1);
    }
    b->n += n;
    return SONDE_OK;
}

enum sonde_code text_build_put(struct text_build *b, const void *s, size_t n, uint32_t from, uint32_t to,
                               sonde_err *err)
{
    if (n == 0)
        return SONDE_OK;
    if (n > b->cap - b->n) {
        enum sonde_code rc = grow(b, n, err);
        if (rc)
            return rc;
    }
    memcpy(b->s + b->n, s, n);
    for (size_t i = 0; i < n; i++) {
        b->from[b->n + i] = from;
        b->to[b->n + i] = to;
    }
    b->n += n;
    return SONDE_OK;
}

struct text_view text_build_view(const struct text_build *b)
{
    return (struct text_view){b->s, b->n, 0, b->from, b->to};
}
