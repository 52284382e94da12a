/* SPDX-License-Identifier: MIT
 * Contexts in batches through runs, one run per thread; rows to their places; statistics merged in batch
 * order; a journal after every group of batches. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture_impl.h"

#define JOURNAL_BYTES ((uint64_t)64 << 20)

/* ---- a batch ----------------------------------------------------------------------------------- */

static enum sonde_code run_batch(struct worker *w, uint64_t place0, uint64_t place1, sonde_err *err)
{
    const struct engine *e = w->e;
    const sonde_corpus *c = e->corpus;
    size_t n = 0;
    bool squares = false;
    enum sonde_code code = SONDE_OK;
    w->place0 = place0;
    for (uint64_t p = place0; p < place1; p++) {
        uint64_t seq = context_at(&e->plan, p), len = context_length(c, seq);
        w->start[p - place0] = n;
        memcpy(w->ids + n, c->id + c->seq_start[seq], len * sizeof *w->ids);
        n += len;
        squares = squares || seq < e->o->max_seqs;
        state_clear(&w->context[p - place0]);
        w->context[p - place0].n_places = 1;
    }
    w->start[place1 - place0] = n;
    if (squares != w->squares_hooked)
        code = set_hooks(w, squares, err);
    return code ? code : sonde_run_forward(w->run, w->ids, w->start, place1 - place0, NULL, err);
}

/* Batches finish in any order and are merged in theirs, context by context, so that no sum depends on how
 * contexts are batched; after an error or a stop nothing more is merged. */
static void merge_in_turn(struct engine *e, size_t batch, struct worker *w, enum sonde_code code,
                          const sonde_err *err)
{
    pthread_mutex_lock(&e->lock);
    while (e->turn != batch)
        pthread_cond_wait(&e->turn_changed, &e->lock);
    if (code && !e->halted)
        e->err = *err;
    e->halted = e->halted || code;
    for (uint64_t i = 0; i < e->batch[batch + 1] - e->batch[batch] && !e->halted; i++)
        state_add(&e->state, &w->context[i]);
    e->turn++;
    pthread_cond_broadcast(&e->turn_changed);
    pthread_mutex_unlock(&e->lock);
}

static bool is_halted(struct engine *e, uint64_t *n_places)
{
    pthread_mutex_lock(&e->lock);
    bool halted = e->halted;
    *n_places = e->state.n_places;
    pthread_mutex_unlock(&e->lock);
    return halted;
}

static void batch_task(void *arg, size_t batch, int thread)
{
    struct engine *e = arg;
    struct worker *w = &e->worker[thread];
    sonde_err err = {0};
    enum sonde_code code;
    uint64_t n_places;
    if (sonde_work_stopped(e->work) || is_halted(e, &n_places))
        code = sonde_fail(&err, SONDE_E_STOPPED, "stopped");
    else
        code = run_batch(w, e->batch[batch], e->batch[batch + 1], &err);
    merge_in_turn(e, batch, w, code, &err);
    if (thread == 0) {
        (void)is_halted(e, &n_places);
        sonde_work_report(e->work, "capturing", "tokens", e->plan.first_kept[n_places], e->plan.n_rows);
    }
}

/* ---- groups ------------------------------------------------------------------------------------ */

static void plan_group(struct engine *e)
{
    uint64_t limit = e->o->journal_bytes ? e->o->journal_bytes : JOURNAL_BYTES, per_row = row_bytes(e) + 16,
             place = e->state.n_places;
    uint64_t first = e->plan.first_kept[place];
    e->n_batches = 0;
    e->batch[0] = place;
    while (place < e->corpus->n_seqs && e->n_batches < GROUP_MAX &&
           (e->plan.first_kept[place] - first) * per_row < limit)
        e->batch[++e->n_batches] = place = batch_end(e, place);
}

static enum sonde_code journal(struct engine *e, sonde_err *err)
{
    void *bytes;
    size_t n;
    enum sonde_code code = state_pack(&e->state, &bytes, &n, err);
    if (code)
        return code;
    code = sonde_store_journal(e->writer, bytes, n, err);
    free(bytes);
    return code;
}

static enum sonde_code run_groups(struct engine *e, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    while (e->state.n_places < e->corpus->n_seqs && !code) {
        plan_group(e);
        e->turn = 0;
        sonde_pool_run(e->work ? e->work->pool : NULL, e->n_batches, batch_task, e);
        code = journal(e, err);
        if (!code && e->halted) {
            code = e->err.code;
            if (err)
                *err = e->err;
        }
    }
    if (code == SONDE_E_STOPPED)
        return sonde_fail(err, code, "stopped after %" PRIu64 " of %" PRIu64 " contexts; --resume continues",
                          e->state.n_places, e->corpus->n_seqs);
    return code;
}

/* ---- workers ----------------------------------------------------------------------------------- */

static enum sonde_code worker_new(struct engine *e, struct worker *w, sonde_err *err)
{
    size_t k = e->o->n_logits, n = e->max_tokens, longest, squares = square_bytes(e, &longest);
    enum sonde_code code;
    w->e = e;
    if ((code = sonde_run_new(e->m, n, longest_context(e->corpus), NULL, e->work ? e->work->budget : NULL,
                              &w->run, err)))
        return code;
    if (!(w->ids = sonde_arena_get(e->arena, n, sizeof *w->ids, err)) ||
        !(w->target = sonde_arena_get(e->arena, n, sizeof *w->target, err)) ||
        !(w->loss = sonde_arena_get(e->arena, n, sizeof *w->loss, err)) ||
        !(w->top = sonde_arena_get(e->arena, n, k * sizeof *w->top, err)) ||
        !(w->logprob = sonde_arena_get(e->arena, n, k * sizeof *w->logprob, err)) ||
        !(w->start = sonde_arena_get(e->arena, e->max_seqs + 1, sizeof *w->start, err)) ||
        !(w->staging = sonde_arena_get(e->arena, staging_bytes(e), 1, err)) ||
        !(w->padded = sonde_arena_get(e->arena, longest, sizeof *w->padded, err)) ||
        !(w->square = sonde_arena_get(e->arena, squares, 1, err)) ||
        !(w->context = sonde_arena_get(e->arena, e->max_seqs, sizeof *w->context, err)))
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < e->max_seqs && !code; i++)
        code = state_new(e->m, e->o->hooks, e->arena, &w->context[i], err);
    for (int i = 0; i < 2 && !code; i++) {
        w->window[i].number = UINT64_MAX;
        if (e->o->shuffle &&
            !(w->window[i].perm = sonde_arena_get(e->arena, SONDE_CAPTURE_WINDOW, sizeof(uint32_t), err)))
            code = SONDE_E_MEMORY;
    }
    if (code)
        return code;
    if (e->o->loss || k)
        sonde_run_want_logits(w->run, keep_logits, w, false);
    return set_hooks(w, false, err);
}

static enum sonde_code make_workers(struct engine *e, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    e->n_workers = sonde_pool_threads(e->work ? e->work->pool : NULL);
    e->worker = sonde_arena_get(e->arena, (size_t)e->n_workers, sizeof *e->worker, err);
    if (!e->worker)
        return SONDE_E_MEMORY;
    for (int i = 0; i < e->n_workers && !code; i++)
        code = worker_new(e, &e->worker[i], err);
    return code;
}

/* ---- the end ----------------------------------------------------------------------------------- */

static enum sonde_code write_statistics(struct engine *e, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    for (size_t i = 0; i < e->o->hooks->n && !code; i++) {
        const struct sums *s = &e->state.hook[i];
        size_t at = e->layout.stat[i], width = at == SIZE_MAX ? 0 : (size_t)e->layout.dataset[at].dim[0];
        double n = (double)s->count, *moment = malloc((2 * width + 1) * sizeof *moment);
        if (!moment)
            return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu statistics", 2 * width);
        for (size_t j = 0; j < width; j++) {
            double mean = s->sum[j] / n, var = s->sum_sq[j] / n - mean * mean;
            moment[j] = mean;
            moment[width + j] = var > 0 ? var : 0;
        }
        const double norms[2] = {s->norm / n, s->norm_sq / n};
        const int64_t count = (int64_t)s->count;
        if (width && !(code = sonde_store_write(e->writer, at, 0, width, moment, err)) &&
            !(code = sonde_store_write(e->writer, at + 1, 0, width, moment + width, err)) &&
            !(code = sonde_store_write(e->writer, at + 2, 0, 1, &norms[0], err)) &&
            !(code = sonde_store_write(e->writer, at + 3, 0, 1, &norms[1], err)))
            code = sonde_store_write(e->writer, at + 4, 0, 1, &count, err);
        free(moment);
    }
    return code;
}

static enum sonde_code finish(struct engine *e, sonde_err *err)
{
    size_t n = e->o->hooks->n;
    sonde_store_attr *attr = calloc(n + 1, sizeof *attr);
    enum sonde_code code =
        attr ? write_statistics(e, err) : sonde_fail(err, SONDE_E_MEMORY, "no memory for attributes");
    if (code) {
        free(attr);
        return code;
    }
    for (size_t i = 0; i < n; i++)
        attr[i] = (sonde_store_attr){.path = e->layout.dataset[e->layout.hook[i]].path,
                                     .name = "saturated",
                                     .i = (int64_t)e->state.hook[i].saturated};
    code = sonde_store_finish(e->writer, attr, n, err);
    e->writer = NULL;
    free(attr);
    return code;
}

static enum sonde_code open_writer(struct engine *e, const sonde_tokenizer *t, const char *path,
                                   sonde_capture_result *result, sonde_err *err)
{
    void *bytes = NULL;
    sonde_store_attr *attr = NULL;
    char *text = NULL;
    size_t n = 0, n_attrs = 0;
    enum sonde_code code = layout_attrs(e->o, t, &attr, &n_attrs, &text, err);
    sonde_store_layout layout = {e->layout.dataset, e->layout.n_datasets, attr, n_attrs};
    if (!code)
        code = e->o->resume ? sonde_store_resume(path, &layout, &e->writer, &bytes, &n, err)
                            : sonde_store_create(path, &layout, e->o->overwrite, &e->writer, err);
    free(attr);
    free(text);
    const char *note = !code && e->o->resume ? sonde_store_resume_note(e->writer) : NULL;
    if (note)
        snprintf(result->note, sizeof result->note, "%s", note);
    if (!code && n)
        code = state_unpack(&e->state, bytes, n, path, err);
    free(bytes);
    if (code || n) {
        result->n_resumed_seqs = e->state.n_places;
        return code;
    }
    code = layout_write_tokens(e->m, &e->plan, t, &e->layout, e->writer, err);
    return code ? code : journal(e, err);
}

static void fill_result(const struct engine *e, sonde_capture_result *r)
{
    r->n_rows = e->plan.n_rows;
    r->n_losses = e->state.n_losses;
    r->mean_loss = e->state.n_losses ? e->state.loss / (double)e->state.n_losses : NAN;
    for (size_t i = 0; i < e->o->hooks->n && r->saturated; i++)
        r->saturated[i] = e->state.hook[i].saturated;
}

/* Nothing is written before every thread has its memory. */
static enum sonde_code capture_into(struct engine *e, const sonde_tokenizer *tokenizer, const char *path,
                                    sonde_capture_result *result, sonde_err *err)
{
    enum sonde_code code;
    if (!(e->arena = sonde_arena_new(e->work ? e->work->budget : NULL, err)))
        return SONDE_E_MEMORY;
    if ((code = plan_make(e->corpus, e->o, &e->plan, err)) ||
        (code = check_options(e->m, e->corpus, e->o, &e->plan, err)) ||
        (code = layout_make(e->m, &e->plan, tokenizer, &e->layout, err)) ||
        (code = state_new(e->m, e->o->hooks, e->arena, &e->state, err)))
        return code;
    size_batches(e);
    if ((code = make_workers(e, err)) || (code = open_writer(e, tokenizer, path, result, err)) ||
        (code = run_groups(e, err)))
        return code;
    fill_result(e, result);
    return finish(e, err);
}

enum sonde_code sonde_capture(const sonde_model *m, const sonde_corpus *corpus,
                              const sonde_tokenizer *tokenizer, const sonde_capture_options *o,
                              const sonde_work *work, const char *path, sonde_capture_result *result,
                              sonde_err *err)
{
    struct engine *e = calloc(1, sizeof *e);
    enum sonde_code code;
    if (!e)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a capture");
    *e = (struct engine){.m = m,
                         .corpus = corpus,
                         .o = o,
                         .work = work,
                         .lock = PTHREAD_MUTEX_INITIALIZER,
                         .turn_changed = PTHREAD_COND_INITIALIZER};
    *result = (sonde_capture_result){.saturated = calloc(o->hooks->n + 1, sizeof *result->saturated)};
    if (!result->saturated)
        code = sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu hooks", o->hooks->n);
    else
        code = capture_into(e, tokenizer, path, result, err);
    if (e->writer)
        sonde_store_abandon(e->writer, true);
    for (int i = 0; i < e->n_workers && e->worker; i++)
        sonde_run_free(e->worker[i].run);
    plan_free(&e->plan);
    layout_free(&e->layout);
    sonde_arena_free(e->arena);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->turn_changed);
    free(e);
    return code;
}
