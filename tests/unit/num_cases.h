/* SPDX-License-Identifier: MIT
 * What the tests of num/ share: numbers, canaries, bit comparison, the tables this CPU can run. */
#ifndef TEST_NUM_CASES_H
#define TEST_NUM_CASES_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "num/cpu.h"

#define CANARY 0xdeadbeefu

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Uniform in [-1, 1) with 24 bits: a counter hashed, so that any position can be asked for. */
static inline float number_at(uint64_t i)
{
    i = (i + 1) * 0x9e3779b97f4a7c15u;
    i = (i ^ (i >> 30)) * 0xbf58476d1ce4e5b9u;
    i = (i ^ (i >> 27)) * 0x94d049bb133111ebu;
    return (float)(int32_t)((i ^ (i >> 31)) >> 40) * 0x1p-23f - 1.0f;
}

static inline void *need(size_t n, size_t size)
{
    void *p = aligned_alloc(64, (n * size + 127) / 64 * 64);
    assert_non_null(p);
    memset(p, 0, n * size);
    return p;
}

static inline float *numbers(size_t n, uint64_t seed)
{
    float *p = need(n, sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = number_at(seed * 0x100000000u + i);
    return p;
}

static inline float *canaries(size_t n)
{
    float *p = need(n, sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = sonde_bits_f32(CANARY);
    return p;
}

static inline int is_canary(float x)
{
    return sonde_f32_bits(x) == CANARY;
}

/* The same bits, or both NaN (the payload of a computed NaN belongs to the CPU). */
static inline int same(float a, float b)
{
    return sonde_f32_bits(a) == sonde_f32_bits(b) || (isnan(a) && isnan(b));
}

static inline void assert_same(const float *a, const float *b, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (!same(a[i], b[i]))
            fail_msg("%s: [%zu] is %a, expected %a", what, i, (double)a[i], (double)b[i]);
}

static inline const sonde_kernels *kernels_named(const char *name)
{
    const sonde_kernels *k = NULL;
    sonde_err err;
    if (sonde_kernels_find(name, &k, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
    return k;
}

#define FOR_TABLES(name) for (const char *const *name = sonde_kernels_list(); *name; name++)

#endif
