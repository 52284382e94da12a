/* SPDX-License-Identifier: MIT
 * Contexts in batches through runs, one run per thread; rows to their places; statistics merged in batch
 * order; a journal after every group of batches. */
#include "capture.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../num/convert.h"
#include "../ops/loss.h"
#include "capture_impl.h"
#include "run.h"

#define BATCH_TOKENS  512
#define JOURNAL_BYTES ((uint64_t)64 << 20)
#define GROUP_MAX     4096 /* batches */

struct window {
    uint64_t number; /* UINT64_MAX: empty */
    uint32_t *perm;
};

struct engine;

/* What one thread works with. */
struct worker {
    struct engine *e;
    sonde_run *run;
    struct state batch;      /* sums of the batch under way */
    struct window window[2]; /* the permutations used last */
    int older;
    void *staging;         /* rows converted, about to be written */
    int32_t *ids, *target; /* [batch tokens] */
    size_t *start;         /* [batch sequences + 1] */
    float *loss, *logprob; /* [batch tokens], [batch tokens, K] */
    int32_t *top;
    uint64_t place0;
    bool squares_hooked;
};

struct engine {
    const sonde_model *m;
    const sonde_corpus *corpus;
    const sonde_capture_options *o;
    const sonde_work *work;
    struct plan plan;
    struct layout layout;
    struct state state;
    sonde_store_writer *writer;
    struct worker *worker;
    int n_workers;
    size_t max_tokens, max_seqs;   /* of a batch */
    uint64_t batch[GROUP_MAX + 1]; /* places at which the group's batches begin, and the end */
    size_t n_batches;

    pthread_mutex_t lock;
    pthread_cond_t turn_changed;
    size_t turn; /* the batch whose sums are merged next */
    bool halted;
    sonde_err err;
};

/* ---- rows into the file ---------------------------------------- */

static const uint32_t *permutation(struct worker *w, uint64_t window)
{
    const struct plan *p = &w->e->plan;
    for (int i = 0; i < 2; i++)
        if (w->window[i].number == window)
            return w->window[i].perm;
    struct window *out = &w->window[w->older];
    uint64_t left = p->n_rows - window * SONDE_CAPTURE_WINDOW;
    plan_window(p, window, out->perm, (uint32_t)(left < SONDE_CAPTURE_WINDOW ? left : SONDE_CAPTURE_WINDOW));
    out->number = window;
    w->older = !w->older;
    return out->perm;
}

/* n kept tokens from number `kept` on, each `bytes` long. */
static enum sonde_code write_rows(struct worker *w, size_t dataset, uint64_t kept, size_t n, const char *data,
                                  size_t bytes, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    if (!w->e->o->shuffle)
        return sonde_store_write(w->e->writer, dataset, kept, n, data, err);
    for (size_t i = 0; i < n && !code; i++) {
        uint64_t window = (kept + i) / SONDE_CAPTURE_WINDOW, at = (kept + i) % SONDE_CAPTURE_WINDOW;
        uint64_t row = window * SONDE_CAPTURE_WINDOW + permutation(w, window)[at];
        code = sonde_store_write(w->e->writer, dataset, row, 1, data + i * bytes, err);
    }
    return code;
}

/* Convert n floats to the stored type at out; returns how many were saturated. */
static size_t convert(const struct engine *e, const float *x, size_t n, void *out)
{
    switch (e->o->dtype) {
    case SONDE_F16:
        return sonde_to_f16(e->m->kernels, n, x, out);
    case SONDE_BF16:
        return sonde_to_bf16(e->m->kernels, n, x, out);
    default:
        memcpy(out, x, n * sizeof *x);
        return 0;
    }
}

static size_t hook_index(const struct engine *e, sonde_hook h)
{
    size_t i = 0;
    while (e->o->hooks->hook[i].site != h.site || e->o->hooks->hook[i].layer != h.layer)
        i++;
    return i;
}

static enum sonde_code not_finite(const struct worker *w, const sonde_view *v, size_t skip, sonde_err *err)
{
    const struct engine *e = w->e;
    uint64_t seq = context_at(&e->plan, w->place0 + v->sequence);
    char name[SONDE_HOOK_NAME_MAX];
    for (size_t r = skip; r < v->n_rows; r++)
        for (size_t i = 0; i < v->width; i++)
            if (!isfinite(v->data[r * v->stride + i]))
                return sonde_fail(
                    err, SONDE_E_NUMERIC,
                    "%s holds %s at document %d, position %zu of context %" PRIu64 ", element %zu",
                    sonde_hook_name(v->hook, name), isnan(v->data[r * v->stride + i]) ? "NaN" : "infinity",
                    (int)e->corpus->doc[e->corpus->seq_start[seq] + r], r, seq, i);
    return SONDE_OK;
}

static enum sonde_code keep_rows(void *arg, const sonde_view *v, sonde_err *err)
{
    struct worker *w = arg;
    const struct engine *e = w->e;
    size_t i = hook_index(e, v->hook), skip = e->o->skip_first,
           bytes = v->width * sonde_dtype_size(e->o->dtype);
    struct sums *s = &w->batch.hook[i];
    if (v->n_rows <= skip)
        return SONDE_OK;
    if (v->hook.site == SONDE_SITE_TOKENS) {
        for (size_t r = skip; r < v->n_rows; r++) {
            float id = (float)v->ids[r];
            s->sum[0] += (double)id;
            s->sum_sq[0] += (double)id * (double)id;
            s->saturated += convert(e, &id, 1, (char *)w->staging + (r - skip) * bytes);
        }
    } else {
        sonde_column_sums(e->m->kernels, v->data + skip * v->stride, v->stride, v->n_rows - skip, v->width,
                          s->sum, s->sum_sq, &s->norm, &s->norm_sq);
        enum sonde_code code = isfinite(s->norm_sq) ? SONDE_OK : not_finite(w, v, skip, err);
        if (code)
            return code;
        for (size_t r = skip; r < v->n_rows; r++)
            s->saturated +=
                convert(e, v->data + r * v->stride, v->width, (char *)w->staging + (r - skip) * bytes);
    }
    s->count += v->n_rows - skip;
    return write_rows(w, e->layout.hook[i], e->plan.first_kept[w->place0 + v->sequence], v->n_rows - skip,
                      w->staging, bytes, err);
}

/* [H, P, P] of one of the first max_seqs contexts, padded with NaN to the longest of them. */
static enum sonde_code keep_square(void *arg, const sonde_view *v, sonde_err *err)
{
    struct worker *w = arg;
    const struct engine *e = w->e;
    uint64_t seq = context_at(&e->plan, w->place0 + v->sequence);
    size_t i = hook_index(e, v->hook), size = sonde_dtype_size(e->o->dtype);
    const sonde_store_dataset *d = &e->layout.dataset[e->layout.hook[i]];
    size_t longest = (size_t)d->dim[2], n = v->n_heads * longest * longest;
    if (seq >= d->dim[0])
        return SONDE_OK;
    float *padded = malloc(n * sizeof *padded);
    void *out = malloc(n * size);
    enum sonde_code code =
        padded && out ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu attention weights", n);
    for (size_t j = 0; j < n && !code; j++)
        padded[j] = NAN;
    for (size_t h = 0; h < v->n_heads && !code; h++)
        for (size_t r = 0; r < v->n_rows; r++)
            memcpy(padded + (h * longest + r) * longest, v->data + (h * v->n_rows + r) * v->n_keys,
                   v->n_keys * sizeof *padded);
    if (!code) {
        w->batch.hook[i].saturated += convert(e, padded, n, out);
        w->batch.hook[i].count++;
        code = sonde_store_write(e->writer, e->layout.hook[i], seq, 1, out, err);
    }
    free(padded);
    free(out);
    return code;
}

/* ---- losses and top logits ---------------------------------------- */

static enum sonde_code keep_logits(void *arg, size_t sequence, size_t first, size_t n_rows, float *logits,
                                   sonde_err *err)
{
    struct worker *w = arg;
    struct engine *e = w->e;
    const sonde_corpus *c = e->corpus;
    uint64_t seq = context_at(&e->plan, w->place0 + sequence), token = c->seq_start[seq] + first,
             end = c->seq_start[seq + 1];
    size_t v = e->m->arch.n_vocab_out, k = e->o->n_logits;
    enum sonde_code code = SONDE_OK;
    if (e->o->loss) {
        for (size_t r = 0; r < n_rows; r++)
            w->target[r] = token + r + 1 < end ? c->id[token + r + 1] : -1;
        sonde_token_loss(e->m->kernels, logits, n_rows, v, w->target, w->loss);
        for (size_t r = 0; r < n_rows; r++)
            if (w->target[r] >= 0) {
                w->batch.loss += (double)w->loss[r];
                w->batch.n_losses++;
            }
        code = sonde_store_write(e->writer, e->layout.loss, token, n_rows, w->loss, err);
    }
    if (k && !code) {
        sonde_top_logprobs(e->m->kernels, logits, n_rows, v, k, w->top, w->logprob);
        code = sonde_store_write(e->writer, e->layout.logits_id, token, n_rows, w->top, err);
        if (!code)
            code = sonde_store_write(e->writer, e->layout.logits_logprob, token, n_rows, w->logprob, err);
    }
    return code;
}

/* ---- a batch ---------------------------------------- */

/* Square sites cost a pass its speed: they are hooked only where the batch holds a context that is stored. */
static enum sonde_code set_hooks(struct worker *w, bool squares, sonde_err *err)
{
    const sonde_hook_list *list = w->e->o->hooks;
    enum sonde_code code = SONDE_OK;
    sonde_run_unhook_all(w->run);
    for (size_t i = 0; i < list->n && !code; i++) {
        bool square = sonde_site_is_square(list->hook[i].site);
        if (!square || squares)
            code = sonde_run_hook(w->run, list->hook[i], false, square ? keep_square : keep_rows, w, err);
    }
    w->squares_hooked = squares;
    return code;
}

static enum sonde_code run_batch(struct worker *w, uint64_t place0, uint64_t place1, sonde_err *err)
{
    const struct engine *e = w->e;
    const sonde_corpus *c = e->corpus;
    size_t n = 0;
    bool squares = false;
    enum sonde_code code = SONDE_OK;
    state_clear(&w->batch);
    w->place0 = place0;
    for (uint64_t p = place0; p < place1; p++) {
        uint64_t seq = context_at(&e->plan, p), len = context_length(c, seq);
        w->start[p - place0] = n;
        memcpy(w->ids + n, c->id + c->seq_start[seq], len * sizeof *w->ids);
        n += len;
        squares = squares || seq < e->o->max_seqs;
    }
    w->start[place1 - place0] = n;
    w->batch.n_places = place1 - place0;
    if (squares != w->squares_hooked)
        code = set_hooks(w, squares, err);
    return code ? code : sonde_run_forward(w->run, w->ids, w->start, place1 - place0, NULL, err);
}

/* Batches finish in any order and are merged in theirs; after an error or a stop nothing more is. */
static void merge_in_turn(struct engine *e, size_t batch, struct worker *w, enum sonde_code code,
                          const sonde_err *err)
{
    pthread_mutex_lock(&e->lock);
    while (e->turn != batch)
        pthread_cond_wait(&e->turn_changed, &e->lock);
    if (code && !e->halted)
        e->err = *err;
    e->halted = e->halted || code;
    if (!e->halted)
        state_add(&e->state, &w->batch);
    e->turn++;
    pthread_cond_broadcast(&e->turn_changed);
    pthread_mutex_unlock(&e->lock);
}

static bool is_halted(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    bool halted = e->halted;
    pthread_mutex_unlock(&e->lock);
    return halted;
}

static void batch_task(void *arg, size_t batch, int thread)
{
    struct engine *e = arg;
    struct worker *w = &e->worker[thread];
    sonde_err err = {0};
    enum sonde_code code;
    if (sonde_work_stopped(e->work) || is_halted(e))
        code = sonde_fail(&err, SONDE_E_STOPPED, "stopped");
    else
        code = run_batch(w, e->batch[batch], e->batch[batch + 1], &err);
    merge_in_turn(e, batch, w, code, &err);
    if (thread == 0)
        sonde_work_report(e->work, "capturing", "tokens",
                          e->corpus->n_tokens ? e->plan.first_kept[e->state.n_places] : 0, e->plan.n_rows);
}

/* ---- groups ---------------------------------------- */

static uint64_t row_bytes(const struct engine *e)
{
    uint64_t n = 0;
    for (size_t i = 0; i < e->o->hooks->n; i++)
        if (!sonde_site_is_square(e->o->hooks->hook[i].site))
            n += sonde_site_width(&e->m->arch, e->o->hooks->hook[i].site) * sonde_dtype_size(e->o->dtype);
    return n;
}

/* Where the next batch ends: as many whole contexts as fit, at least one. */
static uint64_t batch_end(const struct engine *e, uint64_t place)
{
    uint64_t n = 0;
    for (; place < e->corpus->n_seqs; place++) {
        uint64_t len = context_length(e->corpus, context_at(&e->plan, place));
        if (n && n + len > e->max_tokens)
            break;
        n += len;
    }
    return place;
}

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

/* ---- workers ---------------------------------------- */

static size_t staging_bytes(const struct engine *e)
{
    size_t widest = 1;
    for (size_t i = 0; i < e->o->hooks->n; i++) {
        enum sonde_site s = e->o->hooks->hook[i].site;
        if (!sonde_site_is_square(s) && sonde_site_width(&e->m->arch, s) > widest)
            widest = sonde_site_width(&e->m->arch, s);
    }
    return widest * e->max_tokens * sizeof(float);
}

static enum sonde_code worker_new(struct engine *e, struct worker *w, size_t longest, sonde_err *err)
{
    size_t k = e->o->n_logits, n = e->max_tokens;
    enum sonde_code code;
    w->e = e;
    if ((code = sonde_run_new(e->m, n, longest, NULL, e->work ? e->work->budget : NULL, &w->run, err)) ||
        (code = state_new(e->m, e->o->hooks, &w->batch, err)))
        return code;
    w->ids = malloc(n * sizeof *w->ids);
    w->target = malloc(n * sizeof *w->target);
    w->loss = malloc(n * sizeof *w->loss);
    w->top = malloc((n * k + 1) * sizeof *w->top);
    w->logprob = malloc((n * k + 1) * sizeof *w->logprob);
    w->start = malloc((e->max_seqs + 1) * sizeof *w->start);
    w->staging = malloc(staging_bytes(e));
    for (int i = 0; i < 2; i++) {
        w->window[i].number = UINT64_MAX;
        w->window[i].perm = malloc(SONDE_CAPTURE_WINDOW * sizeof(uint32_t));
    }
    if (!w->ids || !w->target || !w->loss || !w->top || !w->logprob || !w->start || !w->staging ||
        !w->window[0].perm || !w->window[1].perm)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a batch of %zu tokens", n);
    if (e->o->loss || k)
        sonde_run_want_logits(w->run, keep_logits, w, false);
    return set_hooks(w, false, err);
}

static void worker_free(struct worker *w)
{
    sonde_run_free(w->run);
    state_free(&w->batch);
    free(w->ids);
    free(w->target);
    free(w->loss);
    free(w->top);
    free(w->logprob);
    free(w->start);
    free(w->staging);
    free(w->window[0].perm);
    free(w->window[1].perm);
}

static size_t longest_context(const sonde_corpus *c)
{
    uint64_t longest = 0;
    for (uint64_t s = 0; s < c->n_seqs; s++)
        if (context_length(c, s) > longest)
            longest = context_length(c, s);
    return (size_t)longest;
}

static void size_batches(struct engine *e)
{
    size_t longest = longest_context(e->corpus), n = e->o->batch_tokens ? e->o->batch_tokens : BATCH_TOKENS;
    e->max_tokens = n > longest ? n : longest;
    uint64_t most = 0;
    for (uint64_t place = 0, end; place < e->corpus->n_seqs; place = end) {
        end = batch_end(e, place);
        if (end - place > most)
            most = end - place;
    }
    e->max_seqs = (size_t)most;
}

static enum sonde_code make_workers(struct engine *e, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    e->n_workers = sonde_pool_threads(e->work ? e->work->pool : NULL);
    e->worker = calloc((size_t)e->n_workers, sizeof *e->worker);
    if (!e->worker)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %d threads", e->n_workers);
    for (int i = 0; i < e->n_workers && !code; i++)
        code = worker_new(e, &e->worker[i], longest_context(e->corpus), err);
    return code;
}

/* ---- the end ---------------------------------------- */

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

static enum sonde_code check_options(const sonde_model *m, const sonde_corpus *c,
                                     const sonde_capture_options *o, const struct plan *p, sonde_err *err)
{
    size_t longest = longest_context(c);
    bool rows = o->loss || o->n_logits;
    if (!o->hooks->n && !rows)
        return sonde_fail(err, SONDE_E_USAGE, "nothing to store: no hook, no loss, no logits");
    if (longest > m->arch.n_ctx)
        return sonde_fail(err, SONDE_E_USAGE, "contexts of %zu tokens, this model's longest is %zu", longest,
                          m->arch.n_ctx);
    if (o->n_logits > m->arch.n_vocab_out)
        return sonde_fail(err, SONDE_E_USAGE, "%zu logits per token, this model has %zu", o->n_logits,
                          m->arch.n_vocab_out);
    for (size_t i = 0; i < o->hooks->n; i++) {
        char name[SONDE_HOOK_NAME_MAX];
        sonde_hook h = o->hooks->hook[i];
        if (sonde_site_is_square(h.site) && !o->max_seqs)
            return sonde_fail(err, SONDE_E_USAGE,
                              "%s is stored for whole contexts: say for how many (--max-seqs)",
                              sonde_hook_name(h, name));
        rows = rows || !sonde_site_is_square(h.site);
    }
    if (rows && !p->n_rows)
        return sonde_fail(err, SONDE_E_USAGE,
                          "no token is left: the longest context has %zu, the first %zu are skipped", longest,
                          o->skip_first);
    for (uint64_t i = 0; i < c->n_tokens; i++)
        if (c->id[i] < 0 || (size_t)c->id[i] >= m->arch.n_vocab)
            return sonde_fail(err, SONDE_E_INPUT,
                              "token %" PRIu64 " has id %d, this model's vocabulary is %zu", i, (int)c->id[i],
                              m->arch.n_vocab);
    return SONDE_OK;
}

static enum sonde_code open_writer(struct engine *e, const sonde_tokenizer *t, const char *path,
                                   uint64_t *resumed, sonde_err *err)
{
    sonde_store_layout layout = {e->layout.dataset, e->layout.n_datasets, e->o->attr, e->o->n_attrs};
    void *bytes = NULL;
    size_t n = 0;
    enum sonde_code code = e->o->resume ? sonde_store_resume(path, &layout, &e->writer, &bytes, &n, err)
                                        : sonde_store_create(path, &layout, e->o->overwrite, &e->writer, err);
    if (!code && n)
        code = state_unpack(&e->state, bytes, n, path, err);
    free(bytes);
    if (code || n) {
        *resumed = e->state.n_places;
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
    if ((code = plan_make(corpus, o, &e->plan, err)) || (code = check_options(m, corpus, o, &e->plan, err)) ||
        (code = layout_make(m, &e->plan, tokenizer, &e->layout, err)) ||
        (code = state_new(m, o->hooks, &e->state, err)))
        goto out;
    size_batches(e);
    if ((code = open_writer(e, tokenizer, path, &result->n_resumed_seqs, err)) ||
        (code = make_workers(e, err)) || (code = run_groups(e, err)))
        goto out;
    fill_result(e, result);
    code = finish(e, err);
out:
    if (e->writer)
        sonde_store_abandon(e->writer, true);
    for (int i = 0; i < e->n_workers && e->worker; i++)
        worker_free(&e->worker[i]);
    free(e->worker);
    plan_free(&e->plan);
    layout_free(&e->layout);
    state_free(&e->state);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->turn_changed);
    free(e);
    return code;
}

/* ---- the plan, for --dry-run ---------------------------------------- */

/* FLOPs of one token down to the deepest thing asked for, causal attention over half the context. */
static double flops_per_token(const sonde_model *m, const sonde_capture_options *o, double context)
{
    const sonde_arch *a = &m->arch;
    double d = (double)a->d_model, heads = (double)(a->n_heads * a->d_head),
           mlp = (double)a->d_mlp * (a->gated ? 3 : 2);
    double layer = 2 * d * (double)sonde_arch_qkv(a) + 2 * heads * d + 2 * d * mlp + 4 * heads * context / 2;
    bool logits = o->loss || o->n_logits;
    size_t layers = logits ? a->n_layers : 0;
    for (size_t i = 0; i < o->hooks->n; i++) {
        sonde_hook h = o->hooks->hook[i];
        size_t deep = sonde_site_in_block(h.site)      ? h.layer + (h.site > SONDE_SITE_RESID_PRE)
                      : h.site > SONDE_SITE_RESID_POST ? a->n_layers
                                                       : 0;
        layers = deep > layers ? deep : layers;
        logits = logits || h.site == SONDE_SITE_LOGITS;
    }
    return (double)layers * layer + (logits ? 2 * d * (double)a->n_vocab_out : 0);
}

enum sonde_code sonde_capture_plan_make(const sonde_model *m, const sonde_corpus *corpus,
                                        const sonde_capture_options *o, int n_threads,
                                        sonde_capture_plan *plan, sonde_err *err)
{
    struct engine e = {.m = m, .corpus = corpus, .o = o};
    enum sonde_code code = plan_make(corpus, o, &e.plan, err);
    if (!code)
        code = check_options(m, corpus, o, &e.plan, err);
    if (!code)
        code = layout_make(m, &e.plan, NULL, &e.layout, err);
    if (!code) {
        const sonde_arch *a = &m->arch;
        size_batches(&e);
        size_t row =
            3 * a->d_model + sonde_arch_qkv(a) + a->n_heads * a->d_head + (a->gated ? 2 : 1) * a->d_mlp;
        double context = corpus->n_seqs ? (double)corpus->n_tokens / (double)corpus->n_seqs : 0;
        *plan = (sonde_capture_plan){
            .n_tokens = corpus->n_tokens,
            .n_seqs = corpus->n_seqs,
            .n_docs = corpus->n_docs,
            .n_rows = e.plan.n_rows,
            .n_heldout_docs = e.plan.n_heldout,
            .file_bytes = e.layout.data_bytes,
            .row_bytes = row_bytes(&e),
            .flops = flops_per_token(m, o, context) * (double)corpus->n_tokens,
            .memory_bytes =
                (uint64_t)n_threads * (e.max_tokens * row * sizeof(float) + staging_bytes(&e) +
                                       (o->loss || o->n_logits ? 56 * a->n_vocab_out * sizeof(float) : 0)),
        };
    }
    plan_free(&e.plan);
    layout_free(&e.layout);
    return code;
}
