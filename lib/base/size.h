/* SPDX-License-Identifier: MIT
 * Checked sizes: the only way in which a number from a file becomes a size. */
#ifndef SONDE_BASE_SIZE_H
#define SONDE_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool sonde_mul(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool sonde_add(size_t *out, size_t a, size_t b)
{
    return !__builtin_add_overflow(a, b, out);
}

/* Round a up to a multiple of step (a power of two); false if that passes SIZE_MAX. */
static inline bool sonde_round_up(size_t *out, size_t a, size_t step)
{
    size_t t;
    if (!sonde_add(&t, a, step - 1))
        return false;
    *out = t & ~(step - 1);
    return true;
}

/* Product of n dimensions times elem bytes; false on overflow. A zero dimension gives 0 bytes, but
 * only if the product of the others fits too. */
static inline bool sonde_nbytes(size_t *out, const uint64_t *dim, int n, size_t elem)
{
    size_t p = elem;
    bool zero = false;
    for (int i = 0; i < n; i++) {
        if (dim[i] == 0) {
            zero = true;
            continue;
        }
        if (dim[i] > SIZE_MAX || !sonde_mul(&p, p, (size_t)dim[i]))
            return false;
    }
    *out = zero ? 0 : p;
    return true;
}

/* Is [off, off + len) inside [0, total)?  Written so that nothing can wrap. */
static inline bool sonde_inside(uint64_t off, uint64_t len, uint64_t total)
{
    return off <= total && len <= total - off;
}

#endif
