/* SPDX-License-Identifier: MIT
 * The endless stream: units in Philox order cut into windows, each window permuted and given out whole; files
 * are read one window ahead. */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "source_impl.h"

/* ---- windows ----------------------------------------------------------------------------------- */

static bool whole_in_one(const sonde_source *s)
{
    return s->marks.n_train <= s->window_rows;
}

/* Philox(seed, epoch). A single window is in the order of the file: its permutation is enough. */
static enum sonde_code schedule_epoch(sonde_source *s, uint64_t epoch, sonde_err *err)
{
    struct source_schedule *p = &s->schedule;
    if (!p->order && !(p->order = sonde_arena_get(s->arena, s->n_stream, sizeof *p->order, err)))
        return SONDE_E_MEMORY;
    if (!p->made || p->epoch != epoch) {
        if (whole_in_one(s)) {
            for (size_t i = 0; i < s->n_stream; i++)
                p->order[i] = (uint32_t)i;
        } else {
            sonde_rng root = sonde_rng_seed(s->seed), r = sonde_rng_fork(&root, "units", epoch);
            sonde_rng_permutation(&r, p->order, (uint32_t)s->n_stream);
        }
        *p = (struct source_schedule){.made = true, .epoch = epoch, .order = p->order};
    }
    return SONDE_OK;
}

static size_t window_end(const sonde_source *s, size_t at)
{
    size_t rows = 0, begin = at;
    for (; at < s->n_stream; at++) {
        rows += s->unit_rows[s->schedule.order[at]];
        if (rows > s->window_rows && at > begin)
            break;
    }
    return at;
}

/* Walk to a window; false if the epoch has fewer. */
static bool find_window(sonde_source *s, uint64_t number)
{
    struct source_schedule *p = &s->schedule;
    if (number < p->window)
        p->window = p->at = 0;
    while (p->window < number && p->at < s->n_stream) {
        p->at = window_end(s, p->at);
        p->window++;
    }
    return p->at < s->n_stream;
}

static void permute(const sonde_source *s, struct source_window *w)
{
    sonde_rng root = sonde_rng_seed(s->seed), epoch = sonde_rng_fork(&root, "rows", w->epoch),
              r = sonde_rng_fork(&epoch, "window", w->number);
    size_t n = 0;
    sonde_rng_permutation(&r, w->order, (uint32_t)w->rows.n);
    for (size_t i = 0; i < w->rows.n; i++)
        if (source_norm_passes(s, &w->rows, w->order[i]))
            w->order[n++] = w->order[i];
    w->n_order = n;
}

/* Room for the largest window there can be. */
static enum sonde_code make_room(const sonde_source *s, struct source_window *w, sonde_err *err)
{
    size_t cap = s->window_rows;
    for (size_t i = 0; i < s->n_stream; i++)
        cap = s->unit_rows[i] > cap ? s->unit_rows[i] : cap;
    cap = s->marks.n_train < cap ? (size_t)s->marks.n_train : cap;
    if (w->rows.arena)
        return SONDE_OK;
    enum sonde_code code = source_rows_new(s, cap, &w->rows, err);
    if (!code && !(w->order = sonde_arena_get(w->rows.arena, cap, sizeof *w->order, err)))
        code = SONDE_E_MEMORY;
    if (code)
        source_rows_free(&w->rows);
    return code;
}

static enum sonde_code append_units(sonde_source *s, struct source_window *w, size_t at, size_t end,
                                    const sonde_work *work, sonde_err *err)
{
    uint32_t *list = malloc((end - at + 1) * sizeof *list);
    if (!list)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a window of %zu units", end - at);
    for (size_t i = at; i < end; i++)
        list[i - at] = s->unit[s->schedule.order[i]];
    w->rows.n = 0;
    enum sonde_code code = s->kind->append(s, list, end - at, SONDE_SPLIT_TRAIN, &w->rows, work, err);
    free(list);
    return code ? code : source_check_finite(s, &w->rows, 0, err);
}

/* Whoever loads (the caller or the thread, never both) owns the schedule. */
static enum sonde_code load_window(sonde_source *s, struct source_window *w, uint64_t epoch, uint64_t number,
                                   const sonde_work *work, sonde_err *err)
{
    w->loaded = false;
    enum sonde_code code = schedule_epoch(s, epoch, err);
    if (code || (code = make_room(s, w, err)))
        return code;
    if (!find_window(s, number))
        return sonde_fail(err, SONDE_E_USAGE, "there is no window %" PRIu64 " in epoch %" PRIu64, number,
                          epoch);
    size_t at = s->schedule.at, end = window_end(s, at);
    if ((code = append_units(s, w, at, end, work, err)))
        return code;
    w->epoch = epoch;
    w->number = number;
    w->last = end == s->n_stream;
    permute(s, w);
    w->loaded = true;
    return SONDE_OK;
}

/* ---- reading ahead ----------------------------------------------------------------------------- */

static void *read_ahead(void *arg)
{
    sonde_source *s = arg;
    struct source_ahead *a = &s->ahead;
    pthread_mutex_lock(&a->lock);
    while (!a->quit) {
        if (a->state != AHEAD_BUSY) {
            pthread_cond_wait(&a->changed, &a->lock);
            continue;
        }
        struct source_window *w = &s->window[!s->current];
        pthread_mutex_unlock(&a->lock);
        enum sonde_code code = load_window(s, w, a->epoch, a->number, NULL, &a->err);
        pthread_mutex_lock(&a->lock);
        a->code = code;
        a->state = AHEAD_READY;
        pthread_cond_broadcast(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* Signals stay with the threads that expect them. Without a thread windows are read when they are needed. */
static void start_thread(sonde_source *s)
{
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_sigmask(SIG_BLOCK, &all, &before))
        return;
    s->ahead.started = pthread_create(&s->ahead.thread, NULL, read_ahead, s) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void want_ahead(sonde_source *s, uint64_t epoch, uint64_t number)
{
    struct source_ahead *a = &s->ahead;
    if (!s->kind->reads_ahead || whole_in_one(s))
        return;
    if (!a->started)
        start_thread(s);
    if (!a->started)
        return;
    pthread_mutex_lock(&a->lock);
    a->epoch = epoch;
    a->number = number;
    a->state = AHEAD_BUSY;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

/* Wait until the thread rests. Was it this window that it has read? */
static bool ahead_has(sonde_source *s, uint64_t epoch, uint64_t number)
{
    struct source_ahead *a = &s->ahead;
    if (!a->started)
        return false;
    pthread_mutex_lock(&a->lock);
    while (a->state == AHEAD_BUSY)
        pthread_cond_wait(&a->changed, &a->lock);
    bool has = a->state == AHEAD_READY && a->epoch == epoch && a->number == number;
    a->state = AHEAD_IDLE;
    pthread_mutex_unlock(&a->lock);
    return has;
}

void source_ahead_settle(sonde_source *s)
{
    (void)ahead_has(s, 0, UINT64_MAX);
}

void source_stream_free(sonde_source *s)
{
    struct source_ahead *a = &s->ahead;
    if (a->started) {
        pthread_mutex_lock(&a->lock);
        a->quit = true;
        pthread_cond_broadcast(&a->changed);
        pthread_mutex_unlock(&a->lock);
        pthread_join(a->thread, NULL);
    }
    pthread_mutex_destroy(&a->lock);
    pthread_cond_destroy(&a->changed);
    for (int i = 0; i < 2; i++)
        source_rows_free(&s->window[i].rows);
}

/* ---- giving ------------------------------------------------------------------------------------ */

static void next_place(const struct source_window *w, uint64_t *epoch, uint64_t *number)
{
    *epoch = w->last ? w->epoch + 1 : w->epoch;
    *number = w->last ? 0 : w->number + 1;
}

/* The window of s->at into s->window[s->current]. */
static enum sonde_code have_window(sonde_source *s, const sonde_work *work, sonde_err *err)
{
    struct source_window *w = &s->window[s->current];
    sonde_source_position at = s->at;
    enum sonde_code code = SONDE_OK;
    uint64_t epoch, number;
    if (w->loaded && w->epoch == at.epoch && w->number == at.window)
        return SONDE_OK;
    if (w->loaded && whole_in_one(s) && at.window == 0) {
        w->epoch = at.epoch;
        permute(s, w);
        return SONDE_OK;
    }
    if (ahead_has(s, at.epoch, at.window)) {
        if ((code = s->ahead.code)) {
            if (err)
                *err = s->ahead.err;
            return code;
        }
        s->current = !s->current;
        w = &s->window[s->current];
    } else if ((code = load_window(s, w, at.epoch, at.window, work, err))) {
        return code;
    }
    next_place(w, &epoch, &number);
    want_ahead(s, epoch, number);
    return SONDE_OK;
}

static void copy_rows(const sonde_source *s, const struct source_window *w, size_t from, size_t n, float *x,
                      float *y, uint64_t *token)
{
    size_t d_in = s->in.width, d_out = s->out.width;
    for (size_t i = 0; i < n; i++) {
        size_t r = w->order[from + i];
        memcpy(x + i * d_in, w->rows.x + r * d_in, d_in * sizeof *x);
        if (s->two && y)
            memcpy(y + i * d_out, w->rows.y + r * d_out, d_out * sizeof *y);
        if (token)
            token[i] = w->rows.token[r];
    }
}

static enum sonde_code give(sonde_source *s, size_t n, float *x, float *y, uint64_t *token,
                            const sonde_work *work, sonde_err *err)
{
    for (size_t done = 0; done < n;) {
        enum sonde_code code = have_window(s, work, err);
        if (code)
            return code;
        const struct source_window *w = &s->window[s->current];
        if (s->at.row > w->n_order)
            return sonde_fail(err, SONDE_E_USAGE,
                              "there is no row %" PRIu64 " in window %" PRIu64 " of epoch %" PRIu64
                              ", which has %zu",
                              s->at.row, w->number, w->epoch, w->n_order);
        size_t from = (size_t)s->at.row, k = w->n_order - from < n - done ? w->n_order - from : n - done;
        copy_rows(s, w, from, k, x + done * s->in.width, y ? y + done * s->out.width : NULL,
                  token ? token + done : NULL);
        done += k;
        s->at.row += k;
        if (s->at.row == w->n_order && done < n) {
            s->at.row = 0;
            next_place(w, &s->at.epoch, &s->at.window);
        }
    }
    return SONDE_OK;
}

enum sonde_code sonde_source_next(sonde_source *s, size_t n, float *x, float *y, uint64_t *token,
                                  const sonde_work *work, sonde_err *err)
{
    sonde_source_position before = s->at;
    if (!s->marks.n_train)
        return sonde_fail(err, SONDE_E_USAGE,
                          "no row is left to train on: %" PRIu64 " rows, %" PRIu64
                          " of those that pass are held out",
                          s->info.n_rows, s->marks.n_heldout);
    enum sonde_code code = source_find_norm_limit(s, work, err);
    if (!code)
        code = give(s, n, x, y, token, work, err);
    if (code)
        s->at = before;
    return code;
}

sonde_source_position sonde_source_tell(const sonde_source *s)
{
    return s->at;
}

enum sonde_code sonde_source_seek(sonde_source *s, sonde_source_position at, sonde_err *err)
{
    source_ahead_settle(s);
    enum sonde_code code = schedule_epoch(s, at.epoch, err);
    if (code)
        return code;
    if (!find_window(s, at.window))
        return sonde_fail(err, SONDE_E_USAGE, "there is no window %" PRIu64 " in epoch %" PRIu64, at.window,
                          at.epoch);
    s->at = at;
    return SONDE_OK;
}
