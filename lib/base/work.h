/* SPDX-License-Identifier: MIT
 * What a long call is given: threads, a memory limit, a way to report progress and a stop flag. */
#ifndef SONDE_BASE_WORK_H
#define SONDE_BASE_WORK_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "error.h"
#include "pool.h"

/* Progress of one phase of work ("tokenising", "capturing"); n_total 0 when it is not known. */
typedef struct sonde_progress {
    const char *phase;
    const char *unit;   /* "tokens", "bytes" */
    uint64_t n_done, n_total;
    const char *detail; /* a few more words, or NULL; not NUL-free file data: already printable */
} sonde_progress;

typedef struct sonde_work {
    sonde_pool *pool;                                      /* NULL: the caller's thread only */
    sonde_budget *budget;                                  /* NULL: no limit */
    void (*report)(void *arg, const sonde_progress *what); /* NULL: nobody listens. Called from the calling thread */
    void *report_arg;
    const volatile sig_atomic_t *stop; /* NULL, or set non-zero by a signal handler: save and return SONDE_E_STOPPED */
} sonde_work;

static inline bool sonde_work_stopped(const sonde_work *w)
{
    return w && w->stop && *w->stop;
}

static inline void sonde_work_report(const sonde_work *w, const char *phase, const char *unit, uint64_t n_done,
                                     uint64_t n_total)
{
    if (w && w->report)
        w->report(w->report_arg, &(sonde_progress){phase, unit, n_done, n_total, NULL});
}

#endif
