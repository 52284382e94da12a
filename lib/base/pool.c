/* SPDX-License-Identifier: MIT */
#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_THREADS 1024

/* One job at a time. A worker that wakes while the job is open joins it; one that wakes too late sleeps on,
 * and nobody waits for it: so a short job costs no more than the caller needs to do it alone. */
struct sonde_pool {
    pthread_mutex_t lock;
    pthread_cond_t wake; /* a job was opened, or quit */
    pthread_cond_t idle; /* the last worker left the job */
    int n_threads, n_started, n_inside;
    bool open, quit;
    uint64_t job; /* number of the job, so that no worker joins one twice */
    void (*fn)(void *arg, size_t task, int thread);
    void *arg;
    size_t n_tasks;
    _Atomic size_t next;
    struct worker {
        sonde_pool *pool;
        pthread_t id;
        int thread;
    } worker[];
};

static void work_off(sonde_pool *p, int thread)
{
    for (size_t task; (task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->n_tasks;)
        p->fn(p->arg, task, thread);
}

static void *worker_main(void *arg)
{
    struct worker *me = arg;
    sonde_pool *p = me->pool;
    uint64_t joined = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->quit && !(p->open && p->job != joined))
            pthread_cond_wait(&p->wake, &p->lock);
        if (p->quit)
            break;
        joined = p->job;
        p->n_inside++;
        pthread_mutex_unlock(&p->lock);
        work_off(p, me->thread);
        pthread_mutex_lock(&p->lock);
        if (--p->n_inside == 0)
            pthread_cond_signal(&p->idle);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* Signals are left to the thread that made the pool. */
static int start(struct worker *w)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&w->id, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

enum sonde_code sonde_pool_new(int n_threads, sonde_pool **out, sonde_err *err)
{
    if (n_threads < 0 || n_threads > MAX_THREADS)
        return sonde_fail(err, SONDE_E_USAGE, "%d threads; 1 to %d are possible, 0 takes what there is",
                          n_threads, MAX_THREADS);
    if (n_threads == 0) {
        n_threads = sonde_cpu_count();
        if (n_threads > MAX_THREADS)
            n_threads = MAX_THREADS;
    }
    sonde_pool *p = calloc(1, sizeof *p + (size_t)(n_threads - 1) * sizeof p->worker[0]);
    if (!p)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %d threads", n_threads);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->idle, NULL);
    p->n_threads = n_threads;
    for (; p->n_started < n_threads - 1; p->n_started++) {
        struct worker *w = &p->worker[p->n_started];
        *w = (struct worker){.pool = p, .thread = p->n_started + 1};
        int rc = start(w);
        if (rc) {
            sonde_fail(err, SONDE_E_IO, "cannot start thread %d of %d: %s", w->thread + 1, n_threads,
                       strerror(rc));
            sonde_pool_free(p);
            return SONDE_E_IO;
        }
    }
    *out = p;
    return SONDE_OK;
}

void sonde_pool_free(sonde_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_started; i++)
        pthread_join(p->worker[i].id, NULL);
    pthread_cond_destroy(&p->idle);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

int sonde_pool_threads(const sonde_pool *p)
{
    return p ? p->n_threads : 1;
}

void sonde_pool_run(sonde_pool *p, size_t n_tasks, void (*fn)(void *arg, size_t task, int thread), void *arg)
{
    if (!p || p->n_started == 0 || n_tasks < 2) {
        for (size_t i = 0; i < n_tasks; i++)
            fn(arg, i, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->arg = arg;
    p->n_tasks = n_tasks;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    p->job++;
    p->open = true;
    if (n_tasks - 1 >= (size_t)p->n_started)
        pthread_cond_broadcast(&p->wake);
    else
        for (size_t i = 1; i < n_tasks; i++)
            pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);

    work_off(p, 0);

    pthread_mutex_lock(&p->lock);
    p->open = false;
    while (p->n_inside)
        pthread_cond_wait(&p->idle, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
