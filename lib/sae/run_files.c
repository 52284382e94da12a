/* SPDX-License-Identifier: MIT
 * What a run keeps in its directories: checkpoints, run.json, and at the end the dictionary. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/replace.h"
#include "../file/json.h"
#include "dict_file.h"
#include "run_impl.h"

static void checkpoint_path(const char *dir, uint64_t step, char path[4096])
{
    snprintf(path, 4096, "%s/checkpoints/step-%09llu.safetensors", dir, (unsigned long long)step);
}

/* Is it, in n characters, exactly as checkpoint_path writes it? */
bool training_is_checkpoint(const char *name, size_t n, uint64_t *step)
{
    char same[64];
    unsigned long long s;
    if (sscanf(name, "step-%20llu", &s) != 1)
        return false;
    *step = s;
    return snprintf(same, sizeof same, "step-%09llu.safetensors", s) == (int)n && !memcmp(same, name, n);
}

/* Steps of the checkpoints in a directory, the newest first; at most max of them. */
size_t training_list_checkpoints(const char *dir, uint64_t *step, size_t max)
{
    char path[4096];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/checkpoints", dir);
    DIR *d = opendir(path);
    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d));) {
        uint64_t s;
        if (!training_is_checkpoint(e->d_name, strlen(e->d_name), &s))
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

/* ---- checkpoints ----------------------------------------------------------------------------- */

void training_forget_checkpoints(const char *dir, size_t keep, uint64_t at)
{
    uint64_t step[64];
    char path[4096];
    const size_t n = training_list_checkpoints(dir, step, 64);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (step[i] <= at && kept < keep) {
            kept++;
            continue;
        }
        checkpoint_path(dir, step[i], path);
        unlink(path);
    }
}

/* A latent that is NaN is never active, and one whose second moment is infinite never moves: the steps may
 * not see them, but they must not displace a good state. */
static enum sonde_code check_finite(const struct run *r, const struct job *j, sonde_err *err)
{
    static const char *const what[] = {"", "the first moment of ", "the second moment of "};
    for (int k = 0; k < N_PARAMS; k++) {
        const struct param *p = &j->trainer->p[k];
        const float *const array[] = {p->w, p->m, p->v};
        for (size_t a = 0; p->w && a < 3; a++)
            for (size_t i = 0; i < p->rows; i++)
                if (!sonde_all_finite(r->kernels, p->cols, array[a] + i * p->cols))
                    return sonde_fail(
                        err, SONDE_E_NUMERIC,
                        "%s%sstep %llu: %s%s holds NaN or infinity at %s %zu; a lower --lr may help",
                        r->n_jobs > 1 ? j->dir : "", r->n_jobs > 1 ? ": " : "", (unsigned long long)r->step,
                        what[a], p->name, p->rows == j->trainer->F ? "latent" : "row", i);
    }
    return SONDE_OK;
}

enum sonde_code training_checkpoint(struct run *r, sonde_source_position at, sonde_err *err)
{
    char path[4096];
    enum sonde_code code = SONDE_OK;
    for (size_t j = 0; j < r->n_jobs && !code; j++)
        code = check_finite(r, &r->job[j], err);
    for (size_t j = 0; j < r->n_jobs && !code; j++) {
        checkpoint_path(r->job[j].dir, r->step, path);
        if (!(code = log_sync(&r->job[j], err)))
            code = state_save(r->job[j].trainer, at, &r->job[j].sums, r->job[j].config, path, err);
    }
    for (size_t j = 0; j < r->n_jobs && !code; j++)
        training_forget_checkpoints(r->job[j].dir, 2, r->step);
    r->saved_s = training_seconds();
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
        code = state_load(r->job[j].trainer, path, r->job[j].config, at, &r->job[j].sums, err);
        if (code == SONDE_E_USAGE && r->job[j].described) /* run.json is of this run: the checkpoint is not */
            code = SONDE_E_INPUT;
    }
    for (size_t j = 0; j < r->n_jobs && !code; j++)
        if (r->job[j].trainer->c.step != step)
            code = sonde_fail(
                err, SONDE_E_INPUT, "%s/checkpoints/step-%09llu.safetensors: the file holds step %llu",
                r->job[j].dir, (unsigned long long)step, (unsigned long long)r->job[j].trainer->c.step);
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
    r->resumed = true;
    return sonde_source_seek(r->source, at, err);
}

/* All dictionaries save each step before any goes on, so without a common one none has more than one: else
 * they are not of one run, and beginning anew would lose what is there. */
static enum sonde_code check_none_is_lost(const struct run *r, sonde_err *err)
{
    uint64_t step[2];
    for (size_t j = 0; j < r->n_jobs; j++)
        if (training_list_checkpoints(r->job[j].dir, step, 2) > 1)
            return sonde_fail(
                err, SONDE_E_USAGE,
                "%s: has checkpoints, the last of step %llu, that other dictionaries of this grid "
                "lack; resume with the grid that was begun, or begin anew with --force",
                r->job[j].dir, (unsigned long long)step[0]);
    return SONDE_OK;
}

/* A damaged checkpoint, or one of another run, gives way to the one before it, and the run says so. When none
 * is left nothing is touched. */
static enum sonde_code find_checkpoint(struct run *r, sonde_err *err)
{
    uint64_t step[64];
    sonde_err first = {0};
    const size_t n = training_list_checkpoints(r->job[0].dir, step, 64);
    for (size_t i = 0; i < n; i++) {
        sonde_source_position at = {0};
        sonde_err why = {0};
        if (!all_have(r, step[i]))
            continue;
        const enum sonde_code code = load_all(r, step[i], &at, &why);
        if (code == SONDE_OK) {
            if (first.code)
                snprintf(r->note, sizeof r->note, "%.320s; going on from the one before", first.msg);
            return adopt(r, step[i], at, err);
        }
        if (code != SONDE_E_INPUT) {
            if (err)
                *err = why;
            return code;
        }
        if (!first.code)
            first = why;
    }
    if (first.code)
        return sonde_fail(err, SONDE_E_INPUT, "%.300s; no other checkpoint is left, --force begins anew",
                          first.msg);
    if (check_none_is_lost(r, err))
        return SONDE_E_USAGE;
    snprintf(r->note, sizeof r->note, "there is no checkpoint yet: beginning with the first step");
    return SONDE_OK;
}

enum sonde_code training_resume(struct run *r, sonde_err *err)
{
    enum sonde_code code = r->what->resume ? find_checkpoint(r, err) : SONDE_OK;
    for (size_t j = 0; j < r->n_jobs && !code; j++)
        if (r->job[j].described || !(code = training_describe(r, &r->job[j], err)))
            code = log_open(r, &r->job[j], err);
    r->saved_s = training_seconds();
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

/* The first error is what the caller hears. All jobs have the state from before the step, unless memory ended
 * while they took it: then the last checkpoints stand. */
enum sonde_code training_keep_last_good(struct run *r, sonde_source_position at, enum sonde_code code,
                                        sonde_err *err)
{
    sonde_err second;
    for (size_t j = 0; j < r->n_jobs; j++)
        if (r->job[j].trainer->c.step != r->step)
            return code;
    if (training_checkpoint(r, at, &second) == SONDE_OK && err) {
        const size_t n = strlen(err->msg);
        snprintf(err->msg + n, sizeof err->msg - n, "; the state after step %llu is in %s/checkpoints",
                 (unsigned long long)r->step, r->job[0].dir);
    }
    return code;
}

enum sonde_code training_after_step(struct run *r, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    if (r->step % r->log_every == 0 || r->step == r->n_steps) {
        for (size_t j = 0; j < r->n_jobs && !code; j++)
            code = log_write(r, &r->job[j], err);
        r->logged_s = training_seconds();
        r->logged_step = r->step;
    }
    if (code || r->step == r->n_steps)
        return code;
    if (sonde_work_stopped(r->work))
        return training_stop(r, sonde_source_tell(r->source), err);
    const uint64_t every = r->what->checkpoint_every;
    if ((every && r->step % every == 0) ||
        (r->what->checkpoint_s > 0 && training_seconds() - r->saved_s >= r->what->checkpoint_s))
        return training_checkpoint(r, sonde_source_tell(r->source), err);
    return SONDE_OK;
}

/* ---- the end --------------------------------------------------------------------------------- */

static enum sonde_code write_json(const char *dir, const char *name, json_t *o, sonde_err *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    char *text = o ? sonde_json_text(o, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) : NULL;
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
    json_t *o = json_copy(j->config_object);
    if (!o)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %s/run.json", j->dir);
    char hash[17];
    bool ok = true;
    state_config_hash(j->config, hash);
    training_put(o, "configuration", json_string(hash), &ok);
    training_put(o, "tool_version", json_string(SONDE_VERSION), &ok);
    if (r->what->command)
        training_put(o, "command", json_string(r->what->command), &ok);
    training_put(o, "n_steps", json_integer((json_int_t)r->n_steps), &ok);
    if (finished)
        training_put(o, "final",
                     json_pack("{s:f, s:f, s:f, s:I, s:I}", "explained_variance", 1 - j->result.fvu, "fvu",
                               j->result.fvu, "l0", j->result.l0, "dead_features",
                               (json_int_t)j->result.n_dead, "n_measured", (json_int_t)j->result.n_measured),
                     &ok);
    if (!ok) {
        json_decref(o);
        o = NULL;
    }
    return write_json(j->dir, "run.json", o, err);
}

enum sonde_code training_describe(const struct run *r, const struct job *j, sonde_err *err)
{
    return write_run(r, j, false, err);
}

static enum sonde_code describe_dict(const struct run *r, const struct job *j, sonde_err *err)
{
    const sonde_source_info *info = sonde_source_about(r->source);
    json_t *m = j->dict->meta;
    bool ok = true;
    training_put(m, "model_name", json_string(info->model_name), &ok);
    training_put(m, "hook_name", json_string(info->hook), &ok);
    if (info->hook_out)
        training_put(m, "hook_name_out", json_string(info->hook_out), &ok);
    if (info->n_context)
        training_put(m, "context_size", json_integer((json_int_t)info->n_context), &ok);
    training_put(m, "prepend_bos", json_boolean(info->prepend_bos), &ok);
    training_put(m, "training_tokens", json_integer((json_int_t)j->trainer->c.n_tokens), &ok);
    training_put(m, "trained_as", json_string(j->trainer->arch->name), &ok);
    training_put(m, "sonde_version", json_string(SONDE_VERSION), &ok);
    if (r->what->command)
        training_put(m, "command", json_string(r->what->command), &ok);
    if (j->trainer->o.n_prefixes > 1) {
        json_t *widths = json_array();
        for (size_t i = 0; i < j->trainer->o.n_prefixes; i++)
            ok = !json_array_append_new(widths, json_integer((json_int_t)j->trainer->o.prefix[i])) && ok;
        training_put(m, "matryoshka_widths", widths, &ok);
    }
    return ok ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "no memory to describe a dictionary");
}

enum sonde_code training_save(struct run *r, struct job *j, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    if (!j->dict->sparsity &&
        !(j->dict->sparsity = sonde_arena_get(j->dict->arena, j->trainer->F, sizeof(float), err)))
        return SONDE_E_MEMORY;
    measure_end(r, j);
    if (!isfinite(j->result.fvu))
        return sonde_fail(err, SONDE_E_NUMERIC, "%s: the reconstruction is not finite; a lower --lr may help",
                          j->dir);
    if ((code = describe_dict(r, j, err)) || (code = write_run(r, j, true, err)))
        return code;
    return sonde_dict_save(j->dict, "saelens", j->dir, true, err);
}
