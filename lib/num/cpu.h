/* SPDX-License-Identifier: MIT
 * Which kernels run: one table of function pointers per instruction set, chosen once by the caller. */
#ifndef SONDE_NUM_CPU_H
#define SONDE_NUM_CPU_H

#include "../base/error.h"

/* All tables give the same bits, except "openblas" (CPUs for which there is no kernel of ours), whose
 * products differ in the last bits. A table is constant and shared by threads. */
typedef struct sonde_kernels sonde_kernels;

/* The fastest table this CPU can run. */
const sonde_kernels *sonde_kernels_best(void);

/* The table with this name: "avx512", "avx2", "neon", "plain" (C with fmaf: slow, the same bits), "openblas".
 * NULL or "" or "auto" gives the best one. Errors: SONDE_E_USAGE if there is none, or the CPU cannot run it.
 */
enum sonde_code sonde_kernels_find(const char *name, const sonde_kernels **out, sonde_err *err);

const char *sonde_kernels_name(const sonde_kernels *k);

/* Names of all tables that this CPU can run, best first; NULL at the end. */
const char *const *sonde_kernels_list(void);

#endif
