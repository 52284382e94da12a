/* SPDX-License-Identifier: MIT
 * A small pool of threads. No result may depend on how many there are. */
#ifndef SONDE_BASE_POOL_H
#define SONDE_BASE_POOL_H

#include <stddef.h>

#include "error.h"

typedef struct sonde_pool sonde_pool;

/* n_threads includes the caller's; 0 means as many as the affinity mask and the cgroup quota allow. */
enum sonde_code sonde_pool_new(int n_threads, sonde_pool **out, sonde_err *err);
void sonde_pool_free(sonde_pool *p);
int sonde_pool_threads(const sonde_pool *p); /* 1 for NULL */

/* Call fn(arg, task, thread) for every task in [0, n_tasks), each once, in any order, on threads
 * 0 .. n_threads-1 (thread 0 is the caller); return when all are done. p NULL: all on the caller.
 * fn must not call sonde_pool_run on the same pool. */
void sonde_pool_run(sonde_pool *p, size_t n_tasks, void (*fn)(void *arg, size_t task, int thread), void *arg);

/* CPUs this process may use: affinity mask, then the cgroup's cpu.max, at least 1. */
int sonde_cpu_count(void);

#endif
