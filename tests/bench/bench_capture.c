/* SPDX-License-Identifier: MIT
 * What writing costs: a capture of one residual stream (float16, rows shuffled) against the same forward
 * passes with a hook that does nothing. GPT-2-small shapes, random weights, context 512, as many threads as
 * the machine has; CPU seconds of the process and wall time, medians of alternated pairs; peak memory. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "bench_common.h"
#include "model/capture.h"
#include "model/run.h"

enum { P = 512, N_SEQS = 8, LAYER = L - 1 };

struct pass {
    sonde_run *run[64];
    const sonde_corpus *corpus;
};

static enum sonde_code look(void *arg, const sonde_view *v, sonde_err *err)
{
    (void)arg, (void)v, (void)err;
    return SONDE_OK;
}

static void forward_task(void *arg, size_t task, int thread)
{
    const struct pass *p = arg;
    const size_t start[2] = {task * P, (task + 1) * P};
    sonde_err err = {0};
    if (sonde_run_forward(p->run[thread], p->corpus->id, start, 1, NULL, &err))
        die(&err);
}

static sonde_corpus random_corpus(void)
{
    static int32_t id[N_SEQS * P], doc[N_SEQS * P];
    static uint64_t start[N_SEQS + 1];
    static int64_t range[2 * N_SEQS];
    sonde_rng r = sonde_rng_seed(3);
    for (int i = 0; i < N_SEQS * P; i++) {
        id[i] = (int32_t)sonde_rng_below(&r, V);
        doc[i] = i / P;
    }
    for (uint64_t s = 0; s <= N_SEQS; s++)
        start[s] = s * P;
    return (sonde_corpus){.id = id,
                          .doc = doc,
                          .n_tokens = N_SEQS * P,
                          .seq_start = start,
                          .n_seqs = N_SEQS,
                          .doc_range = range,
                          .n_docs = N_SEQS};
}

static void bench(const char *dir)
{
    sonde_err err = {0};
    sonde_model *m;
    sonde_pool *pool;
    sonde_corpus corpus = random_corpus();
    struct pass pass = {.corpus = &corpus};
    char path[300];
    if (sonde_pool_new(0, &pool, &err) || sonde_model_open(dir, NULL, &(sonde_work){.pool = pool}, &m, &err))
        die(&err);
    sonde_hook hook = {SONDE_SITE_RESID_POST, LAYER};
    sonde_hook_list hooks = {&hook, 1, 1};
    int threads = sonde_pool_threads(pool);
    printf("kernels %s, %d threads\n", sonde_kernels_name(m->kernels), threads);
    for (int i = 0; i < threads && i < 64; i++)
        if (sonde_run_new(m, P, P, NULL, NULL, &pass.run[i], &err) ||
            sonde_run_hook(pass.run[i], hook, false, look, NULL, &err))
            die(&err);
    snprintf(path, sizeof path, "%s/acts.h5", dir);
    const sonde_work work = {.pool = pool};
    const sonde_capture_options o = {.hooks = &hooks, .dtype = SONDE_F16, .shuffle = true, .overwrite = true};
    double cpu[PAIRS], wall[PAIRS];
    for (int i = -1; i < PAIRS; i++) {
        sonde_capture_result result;
        double c0 = process_cpu_s(), w0 = wall_s();
        sonde_pool_run(pool, N_SEQS, forward_task, &pass);
        double c1 = process_cpu_s(), w1 = wall_s();
        if (sonde_capture(m, &corpus, NULL, &o, &work, path, &result, &err))
            die(&err);
        free(result.saturated);
        if (i >= 0) {
            cpu[i] = (process_cpu_s() - c1) / (c1 - c0) - 1;
            wall[i] = (wall_s() - w1) / (w1 - w0) - 1;
        }
    }
    printf("capture of %d tokens against the forward alone: CPU %+.2f %% (bar 5 %%), wall %+.2f %%\n",
           N_SEQS * P, 100 * median(cpu), 100 * median(wall));
    printf("peak memory %.0f MiB, weights %.0f MiB\n", peak_mib(), (double)m->n_parameters * 4 / 1048576);
    for (int i = 0; i < threads && i < 64; i++)
        sonde_run_free(pass.run[i]);
    unlink(path);
    sonde_model_close(m);
    sonde_pool_free(pool);
}

int main(void)
{
    char dir[] = "/tmp/sonde-bench-XXXXXX";
    make_random_gpt2(dir);
    bench(dir);
    remove_random_gpt2(dir);
    return 0;
}
