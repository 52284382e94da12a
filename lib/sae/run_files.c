/* SPDX-License-Identifier: MIT
 * What a run keeps in its directories: checkpoints, run.json, and at the end the dictionary. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../base/replace.h"
#include "dict_file.h"
#include "run_impl.h"

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void checkpoint_path(const char *dir, uint64_t step, char path[4096])
{
    snprintf(path, 4096, "%s/checkpoints/step-%09llu.safetensors", dir, (unsigned long long)step);
}

/* Steps of the checkpoints in a directory, the newest first; at most max of them. */
static size_t list_steps(const char *dir, uint64_t *step, size_t max)
{
    char path[4096];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/checkpoints", dir);
    DIR *d = opendir(path);
    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d));) {
        unsigned long long s;
        int end = 0;
        if (sscanf(e->d_name, "step-%llu.safetensors%n", &s, &end) != 1 || e->d_name[end] || end == 0)
            continue;
        size_t at = n < max ? n++ : n;
        while (at > 0 && step[at - 1] < s) {
            if (at < max)
                step[at] = step[at - 1];
            at--;
        }
        if (at < max)
            step[at] = s;
    }
    closedir(d);
    return n;
}

/* ---- checkpoints
 * --------------------------------------------------------------------------------------------------- */

void training_forget_checkpoints(const char *dir, size_t keep)
{
    uint64_t step[64];
    char path[4096];
    const size_t n = list_steps(dir, step, 64);
    for (size_t i = keep; i < n; i++) {
        checkpoint_path(dir, step[i], path);
        unlink(path);
    }
}

enum sonde_code training_checkpoint(struct run *r, sonde_source_position at, sonde_err *err)
{
    char path[4096];
    enum sonde_code code = SONDE_OK;
    for (size_t j = 0; j < r->n_jobs && !code; j++) {
        checkpoint_path(r->job[j].dir, r->step, path);
        if (!(code = log_write(r, &r->job[j], err)) && !(code = log_sync(&r->job[j], err)))
            code = state_save(r->job[j].trainer, at, r->job[j].config, path, err);
    }
    for (size_t j = 0; j < r->n_jobs && !code; j++)
        training_forget_checkpoints(r->job[j].dir, 2);
    r->saved_s = seconds();
    return code;
}

static bool all_have(const struct run *r, uint64_t step)
{
    char path[4096];
    for (size_t j = 0; j < r->n_jobs; j++) {
        checkpoint_path(r->job[j].dir, step, path);
        if (access(path, R_OK))
            return false;
    }
    return true;
}

/* Load step into every trainer. The position is that of the first; all are saved together. */
static enum sonde_code load_all(struct run *r, uint64_t step, sonde_source_position *at, sonde_err *err)
{
    char path[4096];
    enum sonde_code code = SONDE_OK;
    for (size_t j = 0; j < r->n_jobs && !code; j++) {
        checkpoint_path(r->job[j].dir, step, path);
        code = state_load(r->job[j].trainer, path, r->job[j].config, at, err);
    }
    for (size_t j = 0; j < r->n_jobs && !code; j++)
        if (r->job[j].trainer->c.step != step)
            code = sonde_fail(err, SONDE_E_INPUT, "%s: the checkpoint of step %llu holds step %llu",
                              r->job[j].dir, (unsigned long long)step,
                              (unsigned long long)r->job[j].trainer->c.step);
    return code;
}

static enum sonde_code adopt(struct run *r, uint64_t step, sonde_source_position at, sonde_err *err)
{
    sonde_pool *pool = r->work ? r->work->pool : NULL;
    for (size_t j = 0; j < r->n_jobs; j++) {
        trainer_pack(r->job[j].trainer, pool);
        r->job[j].result.resumed_at = step;
        r->job[j].last.step = step;
        r->job[j].last.n_tokens = r->job[j].trainer->c.n_tokens;
    }
    r->step = step;
    return sonde_source_seek(r->source, at, err);
}

/* A damaged checkpoint gives way to the one before it, and the run says so; a changed configuration is
 * refused. */
enum sonde_code training_resume(struct run *r, sonde_err *err)
{
    uint64_t step[64];
    enum sonde_code code = SONDE_OK;
    size_t n = r->what->resume ? list_steps(r->job[0].dir, step, 64) : 0;
    for (size_t i = 0; i < n; i++) {
        sonde_source_position at = {0};
        sonde_err why = {0};
        if (!all_have(r, step[i]))
            continue;
        code = load_all(r, step[i], &at, &why);
        if (code == SONDE_OK) {
            code = adopt(r, step[i], at, err);
            break;
        }
        if (code != SONDE_E_INPUT) {
            if (err)
                *err = why;
            return code;
        }
        snprintf(r->note, sizeof r->note, "%.300s; going on from the one before", why.msg);
        code = SONDE_OK;
    }
    if (r->what->resume && r->step == 0 && !r->note[0])
        snprintf(r->note, sizeof r->note, "there is no checkpoint yet: beginning with the first step");
    for (size_t j = 0; j < r->n_jobs && !code; j++)
        code = log_open(r, &r->job[j], err);
    r->saved_s = seconds();
    return code;
}

enum sonde_code training_stop(struct run *r, sonde_source_position at, sonde_err *err)
{
    const enum sonde_code code = training_checkpoint(r, at, err);
    return code ? code
                : sonde_fail(err, SONDE_E_STOPPED,
                             "stopped after step %llu of %llu, the state is saved; --resume goes on",
                             (unsigned long long)r->step, (unsigned long long)r->n_steps);
}

/* With one job its state is that before the bad step, and is saved; of several some have taken the step, so
 * their last checkpoints stand. The first error is what the caller hears. */
enum sonde_code training_keep_last_good(struct run *r, sonde_source_position at, sonde_err *err)
{
    if (r->n_jobs > 1)
        return SONDE_E_NUMERIC;
    sonde_err second;
    if (training_checkpoint(r, at, &second) == SONDE_OK && err) {
        const size_t n = strlen(err->msg);
        snprintf(err->msg + n, sizeof err->msg - n, "; the state before it is in %s/checkpoints",
                 r->job[0].dir);
    }
    return SONDE_E_NUMERIC;
}

enum sonde_code training_after_step(struct run *r, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    if (r->step % r->log_every == 0 || r->step == r->n_steps) {
        for (size_t j = 0; j < r->n_jobs && !code; j++)
            code = log_write(r, &r->job[j], err);
        r->logged_s = seconds();
        r->logged_step = r->step;
    }
    if (code || r->step == r->n_steps)
        return code;
    if (sonde_work_stopped(r->work))
        return training_stop(r, sonde_source_tell(r->source), err);
    const uint64_t every = r->what->checkpoint_every;
    if ((every && r->step % every == 0) ||
        (r->what->checkpoint_s > 0 && seconds() - r->saved_s >= r->what->checkpoint_s))
        return training_checkpoint(r, sonde_source_tell(r->source), err);
    return SONDE_OK;
}

/* ---- the end
 * ------------------------------------------------------------------------------------------------------- */

static enum sonde_code write_json(const char *dir, const char *name, json_t *o, sonde_err *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    char *text = o ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(o);
    if (!text)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %s", path);
    const size_t n = strlen(text);
    text[n] = '\n';
    const enum sonde_code code = sonde_file_replace(path, text, n + 1, err);
    free(text);
    return code;
}

/* Everything that decides the result, in one object; the last figures when they are known. */
static enum sonde_code write_run(const struct run *r, const struct job *j, bool finished, sonde_err *err)
{
    json_t *o = json_loads(j->config, 0, NULL);
    if (!o)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %s/run.json", j->dir);
    json_object_set_new(o, "tool_version", json_string(SONDE_VERSION));
    json_object_set_new(o, "compute",
                        json_string(strcmp(sonde_kernels_name(r->kernels), "openblas") ? "sonde float32"
                                                                                       : "openblas float32"));
    if (r->what->command)
        json_object_set_new(o, "command", json_string(r->what->command));
    json_object_set_new(o, "n_steps", json_integer((json_int_t)r->n_steps));
    if (finished)
        json_object_set_new(o, "final",
                            json_pack("{s:f, s:f, s:f, s:I, s:I}", "explained_variance", 1 - j->result.fvu,
                                      "fvu", j->result.fvu, "l0", j->result.l0, "dead_features",
                                      (json_int_t)j->result.n_dead, "n_measured",
                                      (json_int_t)j->result.n_measured));
    return write_json(j->dir, "run.json", o, err);
}

enum sonde_code training_describe(const struct run *r, const struct job *j, sonde_err *err)
{
    return write_run(r, j, false, err);
}

static void describe_dict(const struct run *r, const struct job *j)
{
    const sonde_source_info *info = sonde_source_about(r->source);
    json_t *m = j->dict->meta;
    json_object_set_new(m, "model_name", json_string(info->model_name));
    json_object_set_new(m, "hook_name", json_string(info->hook));
    if (info->hook_out)
        json_object_set_new(m, "hook_name_out", json_string(info->hook_out));
    if (info->n_context)
        json_object_set_new(m, "context_size", json_integer((json_int_t)info->n_context));
    json_object_set_new(m, "prepend_bos", json_boolean(info->prepend_bos));
    json_object_set_new(m, "training_tokens", json_integer((json_int_t)j->trainer->c.n_tokens));
    json_object_set_new(m, "trained_as", json_string(j->trainer->arch->name));
    json_object_set_new(m, "sonde_version", json_string(SONDE_VERSION));
    if (r->what->command)
        json_object_set_new(m, "command", json_string(r->what->command));
    if (j->trainer->o.n_prefixes > 1) {
        json_t *widths = json_array();
        for (size_t i = 0; i < j->trainer->o.n_prefixes; i++)
            json_array_append_new(widths, json_integer((json_int_t)j->trainer->o.prefix[i]));
        json_object_set_new(m, "matryoshka_widths", widths);
    }
}

enum sonde_code training_save(struct run *r, struct job *j, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    if (!j->dict->sparsity &&
        !(j->dict->sparsity = sonde_arena_get(j->dict->arena, j->trainer->F, sizeof(float), err)))
        return SONDE_E_MEMORY;
    measure_end(r, j);
    describe_dict(r, j);
    if ((code = write_run(r, j, true, err)))
        return code;
    return sonde_dict_save(j->dict, "saelens", j->dir, true, err);
}
