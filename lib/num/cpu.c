/* SPDX-License-Identifier: MIT */
#include "cpu.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels_impl.h"

#if defined(__x86_64__)
static int has_avx2(void)
{
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static int has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

static int always(void)
{
    return 1;
}

/* Best first. */
static const struct {
    const sonde_kernels *kernels;
    int (*runs)(void);
} tables[] = {
#if defined(__x86_64__)
    {&sonde_kernels_avx512, has_avx512},
    {&sonde_kernels_avx2, has_avx2},
#elif defined(__aarch64__)
    {&sonde_kernels_neon, always},
#endif
    {&sonde_kernels_openblas, always},
    {&sonde_kernels_plain, always},
};
enum { N_TABLES = sizeof tables / sizeof *tables };

const sonde_kernels *sonde_kernels_best(void)
{
    size_t i = 0;
    while (!tables[i].runs())
        i++;
    return tables[i].kernels;
}

enum sonde_code sonde_kernels_find(const char *name, const sonde_kernels **out, sonde_err *err)
{
    if (!name || !*name || strcmp(name, "auto") == 0) {
        *out = sonde_kernels_best();
        return SONDE_OK;
    }
    for (size_t i = 0; i < N_TABLES; i++) {
        if (strcmp(name, tables[i].kernels->name) != 0)
            continue;
        if (!tables[i].runs())
            return sonde_fail(err, SONDE_E_USAGE, "this CPU cannot run the '%s' kernels; '%s' are its best",
                              name, sonde_kernels_best()->name);
        *out = tables[i].kernels;
        return SONDE_OK;
    }
    return sonde_fail(err, SONDE_E_USAGE, "there are no kernels named '%s'; '%s' are this CPU's best", name,
                      sonde_kernels_best()->name);
}

const char *sonde_kernels_name(const sonde_kernels *k)
{
    return k->name;
}

/* The lists are constant: the CPU can run the tables from some place on. */
const char *const *sonde_kernels_list(void)
{
#if defined(__x86_64__)
    static const char *const names[] = {"avx512", "avx2", "openblas", "plain", NULL};
    return names + (has_avx512() ? 0 : has_avx2() ? 1 : 2);
#elif defined(__aarch64__)
    static const char *const names[] = {"neon", "openblas", "plain", NULL};
    return names;
#else
    static const char *const names[] = {"openblas", "plain", NULL};
    return names;
#endif
}
