/* SPDX-License-Identifier: MIT
 * A model run on text as a source: contexts in batches on the threads of a pool, one run per thread. Other
 * contexts in the batch change no bit, so neither do batches and threads. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../model/capture.h"
#include "../model/run.h"
#include "source_impl.h"

#define BATCH_TOKENS 512

/* What one thread works with. */
struct runner {
    sonde_source *s;
    sonde_run *run;
    int32_t *ids;  /* [max_tokens] */
    size_t *start; /* [max_tokens + 1] */
    size_t first;  /* place in the list of the batch's first context */
};

struct source_model {
    size_t longest, max_tokens; /* of a context; of a batch */
    struct runner *runner;
    size_t n_runners;

    /* one call of append */
    const uint32_t *unit;
    size_t *slot;  /* [n] first row of each context */
    size_t *batch; /* [n_batches + 1] */
    size_t n_batches;
    enum sonde_split split;
    struct source_rows *rows;
    const sonde_work *work;
    pthread_mutex_t lock;
    size_t failed; /* the first batch that failed; SIZE_MAX */
    sonde_err err;
};

/* ---- a batch ----------------------------------------------------------------------------------- */

static void copy_rows(const sonde_source *s, const sonde_view *v, uint64_t first, enum sonde_split split,
                      float *to)
{
    for (size_t r = 0; r < v->n_rows; r++) {
        if (!source_mark_in(source_mark(&s->marks, first + r), split))
            continue;
        if (v->data)
            memcpy(to, v->data + r * v->stride, v->width * sizeof *to);
        else
            *to = (float)v->ids[r];
        to += v->width;
    }
}

static enum sonde_code take_view(void *arg, const sonde_view *v, sonde_err *err)
{
    const struct runner *w = arg;
    const sonde_source *s = w->s;
    const struct source_model *f = s->forward;
    size_t place = w->first + v->sequence;
    uint64_t first = s->corpus->seq_start[f->unit[place]];
    (void)err;
    if (v->hook.site == s->in.hook.site && v->hook.layer == s->in.hook.layer)
        copy_rows(s, v, first, f->split, f->rows->x + f->slot[place] * s->in.width);
    else
        copy_rows(s, v, first, f->split, f->rows->y + f->slot[place] * s->out.width);
    return SONDE_OK;
}

static enum sonde_code run_batch(struct runner *w, size_t batch, sonde_err *err)
{
    const struct source_model *f = w->s->forward;
    const sonde_corpus *c = w->s->corpus;
    size_t n = 0, begin = f->batch[batch], end = f->batch[batch + 1];
    if (sonde_work_stopped(f->work))
        return sonde_fail(err, SONDE_E_STOPPED, "stopped");
    w->first = begin;
    for (size_t i = begin; i < end; i++) {
        uint64_t at = c->seq_start[f->unit[i]], len = c->seq_start[f->unit[i] + 1] - at;
        w->start[i - begin] = n;
        memcpy(w->ids + n, c->id + at, len * sizeof *w->ids);
        n += len;
    }
    w->start[end - begin] = n;
    return sonde_run_forward(w->run, w->ids, w->start, end - begin, NULL, err);
}

/* The error of the first batch that has one, whatever the threads. */
static void batch_task(void *arg, size_t batch, int thread)
{
    struct source_model *f = arg;
    sonde_err err = {0};
    pthread_mutex_lock(&f->lock);
    bool skip = f->failed < batch;
    pthread_mutex_unlock(&f->lock);
    if (skip || run_batch(&f->runner[thread], batch, &err) == SONDE_OK)
        return;
    pthread_mutex_lock(&f->lock);
    if (batch < f->failed) {
        f->failed = batch;
        f->err = err;
    }
    pthread_mutex_unlock(&f->lock);
}

/* ---- a list of contexts ------------------------------------------------------------------------ */

/* Where each context's rows go, and what is known of them; whole contexts into batches. */
static void lay_out(const sonde_source *s, struct source_model *f, size_t n)
{
    struct source_rows *r = f->rows;
    size_t tokens = 0;
    f->n_batches = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t first, items = source_unit_items(s, f->unit[i], &first);
        if (i == 0 || tokens + items > f->max_tokens) {
            f->batch[f->n_batches++] = i;
            tokens = 0;
        }
        tokens += (size_t)items;
        f->slot[i] = r->n;
        for (uint64_t t = first; t < first + items; t++)
            if (source_mark_in(source_mark(&s->marks, t), f->split)) {
                r->row[r->n] = r->token[r->n] = t;
                if (r->id)
                    r->id[r->n] = s->corpus->id[t];
                r->n++;
            }
    }
    f->batch[f->n_batches] = n;
}

static enum sonde_code add_runner(sonde_source *s, struct runner *w, sonde_err *err)
{
    struct source_model *f = s->forward;
    enum sonde_code code = sonde_run_new(s->model, f->max_tokens, f->longest, NULL, s->budget, &w->run, err);
    if (code)
        return code;
    w->s = s;
    w->ids = sonde_arena_get(s->arena, f->max_tokens, sizeof *w->ids, err);
    w->start = w->ids ? sonde_arena_get(s->arena, f->max_tokens + 1, sizeof *w->start, err) : NULL;
    if (!w->start)
        code = SONDE_E_MEMORY;
    if (!code)
        code = sonde_run_hook(w->run, s->in.hook, false, take_view, w, err);
    if (!code && s->two)
        code = sonde_run_hook(w->run, s->out.hook, false, take_view, w, err);
    if (code)
        sonde_run_free(w->run);
    return code;
}

static enum sonde_code have_runners(sonde_source *s, const sonde_work *work, sonde_err *err)
{
    struct source_model *f = s->forward;
    size_t n = (size_t)sonde_pool_threads(work ? work->pool : NULL);
    if (n <= f->n_runners)
        return SONDE_OK;
    struct runner *more = realloc(f->runner, n * sizeof *more);
    if (!more)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu threads", n);
    f->runner = more;
    for (size_t i = 0; i < f->n_runners; i++) { /* they have moved: hooks know them by address */
        sonde_run_free(f->runner[i].run);
    }
    f->n_runners = 0;
    for (size_t i = 0; i < n; i++) {
        f->runner[i] = (struct runner){0};
        enum sonde_code code = add_runner(s, &f->runner[i], err);
        if (code)
            return code;
        f->n_runners++;
    }
    return SONDE_OK;
}

static enum sonde_code append(sonde_source *s, const uint32_t *unit, size_t n, enum sonde_split split,
                              struct source_rows *r, const sonde_work *work, sonde_err *err)
{
    struct source_model *f = s->forward;
    enum sonde_code code = have_runners(s, work, err);
    if (code || !n)
        return code;
    f->slot = malloc(n * sizeof *f->slot);
    f->batch = malloc((n + 1) * sizeof *f->batch);
    if (f->slot && f->batch) {
        f->unit = unit;
        f->split = split;
        f->rows = r;
        f->work = work;
        f->failed = SIZE_MAX;
        lay_out(s, f, n);
        sonde_pool_run(work ? work->pool : NULL, f->n_batches, batch_task, f);
        if (f->failed != SIZE_MAX) {
            code = f->err.code;
            if (err)
                *err = f->err;
        }
    } else {
        code = sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu contexts", n);
    }
    free(f->slot);
    free(f->batch);
    return code;
}

/* ---- opening ----------------------------------------------------------------------------------- */

static void close_model(sonde_source *s)
{
    struct source_model *f = s->forward;
    for (size_t i = 0; f && i < f->n_runners; i++)
        sonde_run_free(f->runner[i].run);
    if (f) {
        free(f->runner);
        pthread_mutex_destroy(&f->lock);
    }
}

static const struct source_kind model_kind = {append, close_model, "model", false};

static enum sonde_code find_hook(sonde_source *s, const char *spec, struct source_side *side, sonde_err *err)
{
    const sonde_arch *a = &s->model->arch;
    sonde_hook_list list = {0};
    char name[SONDE_HOOK_NAME_MAX];
    if (!spec)
        return sonde_fail(
            err, SONDE_E_USAGE,
            "no hook: --hook NAME says where activations are taken, e.g. blocks.%zu.hook_resid_post",
            a->n_layers / 2);
    enum sonde_code code = sonde_hooks_add(&list, a, spec, err);
    if (!code && list.n != 1)
        code = sonde_fail(err, SONDE_E_USAGE, "'%.80s' means %zu hooks, a dictionary is trained on one", spec,
                          list.n);
    if (!code && sonde_site_is_square(list.hook[0].site))
        code = sonde_fail(err, SONDE_E_USAGE, "'%.80s' has no row for each token", spec);
    if (!code) {
        *side = (struct source_side){.hook = list.hook[0], .width = sonde_site_width(a, list.hook[0].site)};
        sonde_hook_name(list.hook[0], name);
        if (!(side->name = sonde_arena_strndup(s->arena, name, strlen(name), err)))
            code = SONDE_E_MEMORY;
    }
    sonde_hooks_free(&list);
    return code;
}

static enum sonde_code check_corpus(const sonde_source *s, struct source_model *f, sonde_err *err)
{
    const sonde_corpus *c = s->corpus;
    const sonde_arch *a = &s->model->arch;
    for (uint64_t q = 0; q < c->n_seqs; q++)
        if (c->seq_start[q + 1] - c->seq_start[q] > f->longest)
            f->longest = (size_t)(c->seq_start[q + 1] - c->seq_start[q]);
    if (f->longest > a->n_ctx)
        return sonde_fail(err, SONDE_E_USAGE, "contexts of %zu tokens, this model's longest is %zu",
                          f->longest, a->n_ctx);
    for (uint64_t i = 0; i < c->n_tokens; i++)
        if (c->id[i] < 0 || (size_t)c->id[i] >= a->n_vocab)
            return sonde_fail(err, SONDE_E_INPUT,
                              "token %" PRIu64 " has id %d, this model's vocabulary is %zu", i, (int)c->id[i],
                              a->n_vocab);
    f->max_tokens = c->n_tokens < BATCH_TOKENS ? (size_t)c->n_tokens : BATCH_TOKENS;
    f->max_tokens = f->longest > f->max_tokens ? f->longest : f->max_tokens;
    return SONDE_OK;
}

static enum sonde_code mark_tokens(sonde_source *s, sonde_err *err)
{
    const sonde_corpus *c = s->corpus;
    uint64_t n_heldout;
    enum sonde_code code = source_marks_new(&s->marks, c->n_tokens, s->arena, err);
    uint8_t *split = malloc((size_t)c->n_docs + 1);
    if (!code && !split)
        code = sonde_fail(err, SONDE_E_MEMORY, "no memory for %" PRIu64 " documents", c->n_docs);
    if (!code)
        sonde_capture_split(c->n_docs, s->holdout, s->seed, split, &n_heldout);
    for (uint64_t q = 0; q < c->n_seqs && !code; q++)
        for (uint64_t t = c->seq_start[q]; t < c->seq_start[q + 1]; t++)
            source_mark_set(&s->marks, t,
                            source_filter_drops(&s->filter, c->id[t], (int64_t)(t - c->seq_start[q]))
                                ? SOURCE_OUT
                            : split[c->doc[t]] ? SOURCE_HELDOUT
                                               : SOURCE_TRAIN);
    free(split);
    return code;
}

static void describe(sonde_source *s)
{
    const sonde_corpus *c = s->corpus;
    s->info = (sonde_source_info){
        .d_in = s->in.width,
        .d_out = s->out.width,
        .n_rows = c->n_tokens,
        .has_tokens = true,
        .knows_special = s->filter.known,
        .bos_id = s->filter.bos_id,
        .kind = s->kind->name,
        .hook = s->in.name,
        .hook_out = s->two ? s->out.name : NULL,
        .n_context = s->forward->longest,
        .prepend_bos = s->filter.bos_id >= 0 && c->n_tokens && c->id[0] == s->filter.bos_id,
        .model_name = source_base_name(s, s->model->path),
    };
}

static enum sonde_code open_model(sonde_source *s, const sonde_source_options *o, sonde_err *err)
{
    enum sonde_code code = find_hook(s, o->hook, &s->in, err);
    if (!code)
        code = find_hook(s, o->hook_out ? o->hook_out : o->hook, &s->out, err);
    if (code)
        return code;
    s->two = s->in.hook.site != s->out.hook.site || s->in.hook.layer != s->out.hook.layer;
    if (!(s->forward = sonde_arena_get(s->arena, 1, sizeof *s->forward, err)))
        return SONDE_E_MEMORY;
    pthread_mutex_init(&s->forward->lock, NULL);
    if (s->tokenizer) {
        s->filter.known = true;
        s->filter.bos_id = sonde_tokenizer_bos_id(s->tokenizer);
        code = source_ids_of_tokenizer(s->tokenizer, s->arena, &s->filter.special, err);
    }
    if (code || (code = check_corpus(s, s->forward, err)) || (code = mark_tokens(s, err)))
        return code;
    describe(s);
    s->window_rows = source_window_rows(s, o);
    s->n_units = s->corpus->n_seqs;
    code = source_list_units(s, err);
    return code ? code : source_identify_model(s, err);
}

enum sonde_code sonde_source_model(const sonde_model *m, const sonde_corpus *corpus,
                                   const sonde_tokenizer *tokenizer, const sonde_source_options *o,
                                   sonde_budget *budget, sonde_source **out, sonde_err *err)
{
    sonde_source *s = NULL;
    enum sonde_code code = source_begin(&model_kind, o, budget, &s, err);
    if (code)
        return code;
    s->model = m;
    s->corpus = corpus;
    s->tokenizer = tokenizer;
    s->kernels = m->kernels;
    code = open_model(s, o, err);
    if (code)
        sonde_source_close(s);
    else
        *out = s;
    return code;
}
