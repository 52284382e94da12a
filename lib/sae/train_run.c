/* SPDX-License-Identifier: MIT
 * The run: a stream of rows through all trainers, and what is written on the way. */
#include "train_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run_impl.h"

#define CALIBRATE_ROWS ((uint64_t)1 << 20)
#define MEASURE_ROWS   ((uint64_t)1 << 18)

/* ---- the stream ------------------------------------------------------------------------------ */

static enum sonde_code next_rows(struct run *r, size_t n, sonde_err *err)
{
    return sonde_source_next(r->source, n, r->x, r->y, NULL, r->work, err);
}

static enum sonde_code fit(struct run *r, sonde_err *err)
{
    const sonde_source_info *info = sonde_source_about(r->source);
    const size_t n = info->n_train < FIT_ROWS ? (size_t)info->n_train : FIT_ROWS;
    float *x = NULL, *y = NULL;
    enum sonde_code code = training_floats(r, n, info->d_in, &x, err);
    if (!code && r->y)
        code = training_floats(r, n, info->d_out, &y, err);
    if (!code)
        code = sonde_source_next(r->source, n, x, y, NULL, r->work, err);
    for (size_t j = 0; !code && j < r->n_jobs; j++)
        code = sonde_trainer_fit(r->job[j].trainer, x, y, n, r->work, err);
    training_floats_free(r, n, info->d_in, x);
    training_floats_free(r, n, info->d_out, y);
    return code ? code : sonde_source_seek(r->source, (sonde_source_position){0}, err);
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void report_progress(const struct run *r, const struct job *j)
{
    if (!r->work || !r->work->report)
        return;
    const sonde_step_report *s = &j->last;
    char detail[160];
    snprintf(detail, sizeof detail, "%sFVU %.4f  L0 %.1f  dead %llu  loss %.4g",
             r->n_jobs > 1 ? j->label : "", s->fvu, s->l0, (unsigned long long)s->n_dead, s->loss);
    r->work->report(r->work->report_arg,
                    &(sonde_progress){"training", "tokens", s->n_tokens, r->n_tokens, detail});
}

/* One batch through every trainer: all find their gradients before any takes the step, so that a number that
 * is not finite in one of them leaves all as they were. */
static enum sonde_code step_all(struct run *r, size_t n, sonde_err *err)
{
    for (size_t j = 0; j < r->n_jobs; j++) {
        struct job *job = &r->job[j];
        enum sonde_code code = trainer_try(job->trainer, r->x, r->y, n, r->work, &job->next, err);
        if (!code)
            continue;
        if (r->n_jobs > 1)
            sonde_err_wrap(err, "%s", job->dir);
        while (j-- > 0)
            trainer_undo(r->job[j].trainer);
        return code;
    }
    for (size_t j = 0; j < r->n_jobs; j++) {
        struct job *job = &r->job[j];
        const enum sonde_code code = trainer_take(job->trainer, r->work, &job->next, err);
        if (code)
            return code;
        job->last = job->next;
        log_step(job);
    }
    return SONDE_OK;
}

static enum sonde_code train_steps(struct run *r, sonde_err *err)
{
    const uint64_t batch = r->options->batch;
    enum sonde_code code = SONDE_OK;
    for (uint64_t step = r->step; step < r->n_steps && !code; step++) {
        const uint64_t left = r->n_tokens - step * batch;
        const size_t n = (size_t)(left < batch ? left : batch);
        const sonde_source_position before = sonde_source_tell(r->source);
        if ((code = next_rows(r, n, err)))
            return code == SONDE_E_STOPPED ? training_stop(r, before, err)
                                           : training_keep_last_good(r, before, code, err);
        if ((code = step_all(r, n, err)))
            return code == SONDE_E_NUMERIC ? training_keep_last_good(r, before, code, err) : code;
        r->step = step + 1;
        report_progress(r, &r->job[step % r->n_jobs]);
        code = training_after_step(r, err);
    }
    return code;
}

/* ---- the end --------------------------------------------------------------------------------- */

/* Call fn with the first n_rows rows of the stream, a batch at a time. */
static enum sonde_code each_batch(struct run *r, uint64_t n_rows,
                                  enum sonde_code (*fn)(struct run *, size_t, sonde_err *), sonde_err *err)
{
    enum sonde_code code = sonde_source_seek(r->source, (sonde_source_position){0}, err);
    for (uint64_t done = 0; !code && done < n_rows;) {
        const uint64_t left = n_rows - done, batch = r->options->batch;
        const size_t n = (size_t)(left < batch ? left : batch);
        if (sonde_work_stopped(r->work))
            return sonde_fail(err, SONDE_E_STOPPED, "stopped after the last step; --resume goes on");
        if (!(code = next_rows(r, n, err)))
            code = fn(r, n, err);
        done += n;
        sonde_work_report(r->work, r->phase, "tokens", done, n_rows);
    }
    return code;
}

static enum sonde_code calibrate_batch(struct run *r, size_t n, sonde_err *err)
{
    for (size_t j = 0; j < r->n_jobs; j++)
        if (r->job[j].calibration) {
            const enum sonde_code code =
                calibration_add(r->job[j].calibration, r->x, r->y, n, r->work ? r->work->pool : NULL, err);
            if (code)
                return code;
        }
    return SONDE_OK;
}

/* Thresholds from up to one pass over the training rows; a second one where the first began too high. */
static enum sonde_code calibrate(struct run *r, sonde_err *err)
{
    const uint64_t n_train = sonde_source_about(r->source)->n_train;
    bool open = false;
    enum sonde_code code = SONDE_OK;
    for (size_t j = 0; j < r->n_jobs && !code; j++)
        if (r->job[j].trainer->arch->traits & ARCH_CALIBRATE) {
            code = calibration_new(r->job[j].trainer, &r->job[j].calibration, err);
            open = true;
        }
    r->phase = "setting thresholds";
    while (open && !code) {
        code = each_batch(r, n_train < CALIBRATE_ROWS ? n_train : CALIBRATE_ROWS, calibrate_batch, err);
        open = false;
        for (size_t j = 0; j < r->n_jobs && !code; j++)
            if (r->job[j].calibration && calibration_end(r->job[j].calibration)) {
                calibration_free(r->job[j].calibration);
                r->job[j].calibration = NULL;
            } else if (r->job[j].calibration) {
                open = true;
            }
    }
    return code;
}

static enum sonde_code measure_batch(struct run *r, size_t n, sonde_err *err)
{
    for (size_t j = 0; j < r->n_jobs; j++) {
        const enum sonde_code code = measure_rows(r, &r->job[j], n, err);
        if (code)
            return code;
    }
    return SONDE_OK;
}

static enum sonde_code finish(struct run *r, sonde_err *err)
{
    const uint64_t n_train = sonde_source_about(r->source)->n_train;
    for (size_t j = 0; j < r->n_jobs; j++)
        trainer_forget_moments(r->job[j].trainer);
    enum sonde_code code = calibrate(r, err);
    for (size_t j = 0; j < r->n_jobs && !code; j++)
        code = measure_begin(r, &r->job[j], err);
    r->phase = "measuring";
    if (!code)
        code = each_batch(r, n_train < MEASURE_ROWS ? n_train : MEASURE_ROWS, measure_batch, err);
    for (size_t j = 0; j < r->n_jobs && !code; j++)
        code = training_save(r, &r->job[j], err);
    return code;
}

static enum sonde_code train(struct run *r, sonde_err *err)
{
    enum sonde_code code = training_resume(r, err);
    if (!code && !r->resumed)
        code = fit(r, err);
    if (!code)
        code = train_steps(r, err);
    if (!code)
        code = training_checkpoint(r, sonde_source_tell(r->source), err);
    return code ? code : finish(r, err);
}

enum sonde_code sonde_train(const sonde_train_run *what, const sonde_work *work, sonde_train_result *result,
                            char note[400], sonde_err *err)
{
    struct run r = {0};
    enum sonde_code code = training_open(&r, what, work, err);
    if (!code)
        code = train(&r, err);
    if (note)
        memcpy(note, r.note, sizeof r.note);
    for (size_t j = 0; j < r.n_jobs && result && !code; j++)
        result[j] = r.job[j].result;
    training_close(&r);
    return code;
}
