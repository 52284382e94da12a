/* SPDX-License-Identifier: MIT
 * Beginning and end of a run: trainers and buffers. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/size.h"
#include "run_impl.h"

/* ---- memory ---------------------------------------------------------------------------------- */

static sonde_budget *budget_of(const struct run *r)
{
    return r->work ? r->work->budget : NULL;
}

enum sonde_code training_floats(struct run *r, size_t n, size_t d, float **out, sonde_err *err)
{
    size_t count, bytes;
    if (!sonde_mul(&count, n, d) || !sonde_mul(&bytes, count, sizeof(float)) ||
        !sonde_budget_hold(budget_of(r), bytes))
        return sonde_fail(err, SONDE_E_MEMORY, "no memory within the limit for %zu rows of %zu numbers", n,
                          d);
    if (!(*out = malloc(bytes ? bytes : 1))) {
        sonde_budget_release(budget_of(r), bytes);
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu rows of %zu numbers", n, d);
    }
    return SONDE_OK;
}

void training_floats_free(struct run *r, size_t n, size_t d, float *p)
{
    if (p)
        sonde_budget_release(budget_of(r), n * d * sizeof(float));
    free(p);
}

/* Of one dictionary: while it learns, and at the end, when gradients and moments are gone and it is written.
 */
static uint64_t job_memory(const sonde_train_options *o, size_t d_in, size_t d_out, bool transcoder)
{
    const uint64_t dict = o->n_latents * (uint64_t)(d_in + d_out) * 4,
                   pack = o->n_latents * (uint64_t)d_in * 4;
    const uint64_t prefixes = o->n_prefixes > 1 ? o->n_prefixes : 1, row = o->pre_bias > 0 ? 2 * d_in : d_in;
    const uint64_t batch = o->batch * (4 * (row + (prefixes + 1 + transcoder) * d_out) + 40 * o->k + 1024);
    const uint64_t learning = 4 * dict + pack + (o->bf16 > 0 ? pack / 2 : 0), writing = 2 * dict + 2 * pack;
    return batch + (learning > writing ? learning : writing);
}

uint64_t sonde_train_memory(const sonde_train_job *job, size_t n_jobs, const sonde_source_info *info)
{
    const uint64_t row = 4 * (uint64_t)(info->d_in + (info->hook_out ? info->d_out : 0)),
                   most = (uint64_t)128 << 20;
    const uint64_t rows = info->n_train < 65536 ? info->n_train : 65536,
                   window = rows * row < most ? rows * row : most;
    uint64_t total = 2 * window + (job[0].options.batch + (rows < FIT_ROWS ? rows : FIT_ROWS)) * row;
    for (size_t j = 0; j < n_jobs; j++)
        total += job_memory(&job[j].options, info->d_in, info->d_out, info->hook_out != NULL);
    return total;
}

/* ---- jobs ------------------------------------------------------------------------------------ */

static enum sonde_code open_job(struct run *r, struct job *j, const sonde_train_job *what, sonde_err *err)
{
    const sonde_source_info *info = sonde_source_about(r->source);
    j->dir = what->dir;
    const char *slash = strrchr(what->dir, '/');
    snprintf(j->label, sizeof j->label, "%.60s: ", slash && slash[1] ? slash + 1 : what->dir);
    if (what->options.batch != r->options->batch || what->options.n_tokens != r->options->n_tokens)
        return sonde_fail(
            err, SONDE_E_USAGE,
            "dictionaries of one run share batch and tokens; here are %llu and %llu rows a step",
            (unsigned long long)r->options->batch, (unsigned long long)what->options.batch);
    enum sonde_code code = sonde_trainer_new(&what->options, info->d_in, info->d_out, info->hook_out != NULL,
                                             r->kernels, r->work, &j->trainer, err);
    if (code)
        return code;
    return config_make(r, j, &what->options, err);
}

enum sonde_code training_open(struct run *r, const sonde_train_run *what, const sonde_work *work,
                              sonde_err *err)
{
    const sonde_source_info *info = sonde_source_about(what->source);
    enum sonde_code code;
    if (what->n_jobs == 0)
        return sonde_fail(err, SONDE_E_USAGE, "nothing to train");
    *r = (struct run){.what = what, .options = &what->job[0].options, .source = what->source, .work = work};
    r->kernels = what->kernels ? what->kernels : sonde_kernels_best();
    r->n_steps = sonde_train_steps(r->options);
    r->n_tokens = r->options->n_tokens;
    r->log_every = what->log_every ? what->log_every : r->n_steps / 500 ? r->n_steps / 500 : 1;
    if (!(r->job = calloc(what->n_jobs, sizeof *r->job)))
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu dictionaries", what->n_jobs);
    r->n_jobs = what->n_jobs;
    for (size_t j = 0; j < r->n_jobs; j++)
        r->job[j].log_fd = r->job[j].timing_fd = r->job[j].lock_fd = -1;
    const size_t batch = (size_t)r->options->batch;
    if ((code = training_floats(r, batch, info->d_in, &r->x, err)))
        return code;
    if (info->hook_out && (code = training_floats(r, batch, info->d_out, &r->y, err)))
        return code;
    for (size_t j = 0; j < r->n_jobs; j++)
        if ((code = open_job(r, &r->job[j], &what->job[j], err)))
            return code;
    return training_take_dirs(r, err);
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

void training_close(struct run *r)
{
    const sonde_source_info *info = r->source ? sonde_source_about(r->source) : NULL;
    for (size_t i = 0; i < r->n_jobs; i++) {
        struct job *j = &r->job[i];
        close_fd(j->log_fd);
        close_fd(j->timing_fd);
        close_fd(j->lock_fd);
        calibration_free(j->calibration);
        sonde_encoder_free(j->encoder);
        sonde_sparse_free(&j->f);
        sonde_dict_free(j->dict);
        training_floats_free(r, (size_t)r->options->batch, info->d_out, j->y);
        sonde_trainer_free(j->trainer);
        free(j->config);
        json_decref(j->config_object);
        free(j->count);
        free(j->sum);
    }
    if (info) {
        training_floats_free(r, (size_t)r->options->batch, info->d_in, r->x);
        training_floats_free(r, (size_t)r->options->batch, info->d_out, r->y);
    }
    free(r->job);
}
