/* SPDX-License-Identifier: MIT
 * Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011), forked by name.
 *
 * A stream is a value: no state to save but (key, position), any position can be read directly, and
 * two forks with different names are independent. So results depend on --seed alone, not on threads. */
#ifndef SONDE_BASE_RNG_H
#define SONDE_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

typedef struct sonde_rng {
    uint64_t key;
    uint64_t stream;   /* high half of the counter */
    uint64_t position; /* low half: 128-bit blocks drawn so far */
    uint32_t spare[4]; /* words of the current block */
    int n_spare;       /* how many of them are unused */
} sonde_rng;

/* The ten rounds themselves: out = philox(counter, key). */
void sonde_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* The root stream of a seed. */
sonde_rng sonde_rng_seed(uint64_t seed);

/* The child stream with this name and index ("shuffle", epoch): depends on the parent's key and stream,
 * not on how much has been drawn from it. */
sonde_rng sonde_rng_fork(const sonde_rng *parent, const char *name, uint64_t index);

uint32_t sonde_rng_u32(sonde_rng *r);
uint64_t sonde_rng_u64(sonde_rng *r);

/* Uniform in [0, n), exactly (rejection); n > 0. */
uint64_t sonde_rng_below(sonde_rng *r, uint64_t n);

/* Uniform in [0, 1) with 24 bits; uniform in [0, 1) with 53 bits. */
float sonde_rng_float(sonde_rng *r);
double sonde_rng_double(sonde_rng *r);

/* Normal(0, 1): a fixed number of words per value, and no libm, so that the bits are the same on every
 * machine. */
double sonde_rng_normal(sonde_rng *r);

/* perm[0..n) = a uniform permutation of 0..n-1 (Fisher-Yates from the end). */
void sonde_rng_permutation(sonde_rng *r, uint32_t *perm, uint32_t n);

#endif
