/* SPDX-License-Identifier: MIT
 * What a pass hands over, into the file: rows to their places, square sites, losses and top
 * log-probabilities. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "../num/convert.h"
#include "../ops/loss.h"
#include "capture_impl.h"

/* ---- rows into the file ------------------------------------------------------------------------ */

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

static enum sonde_code not_finite(const struct worker *w, const char *what, float value, size_t sequence,
                                  size_t pos, size_t element, sonde_err *err)
{
    const struct engine *e = w->e;
    uint64_t seq = context_at(&e->plan, w->place0 + sequence);
    return sonde_fail(err, SONDE_E_NUMERIC,
                      "%s holds %s at document %d, position %zu of context %" PRIu64 ", element %zu", what,
                      isnan(value) ? "NaN" : "infinity", (int)e->corpus->doc[e->corpus->seq_start[seq] + pos],
                      pos, seq, element);
}

static enum sonde_code find_not_finite(const struct worker *w, const sonde_view *v, size_t skip,
                                       sonde_err *err)
{
    char name[SONDE_HOOK_NAME_MAX];
    for (size_t r = skip; r < v->n_rows; r++)
        for (size_t i = 0; i < v->width; i++)
            if (!isfinite(v->data[r * v->stride + i]))
                return not_finite(w, sonde_hook_name(v->hook, name), v->data[r * v->stride + i], v->sequence,
                                  r, i, err);
    return SONDE_OK;
}

static enum sonde_code keep_rows(void *arg, const sonde_view *v, sonde_err *err)
{
    struct worker *w = arg;
    const struct engine *e = w->e;
    size_t i = hook_index(e, v->hook), skip = e->o->skip_first,
           bytes = v->width * sonde_dtype_size(e->o->dtype);
    struct sums *s = &w->context[v->sequence].hook[i];
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
        enum sonde_code code = isfinite(s->norm_sq) ? SONDE_OK : find_not_finite(w, v, skip, err);
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

/* [H, P, P] of one of the first max_seqs contexts, padded with NaN to the longest of them. Scores of masked
 * keys are -inf. */
static enum sonde_code keep_square(void *arg, const sonde_view *v, sonde_err *err)
{
    struct worker *w = arg;
    const struct engine *e = w->e;
    uint64_t seq = context_at(&e->plan, w->place0 + v->sequence);
    size_t i = hook_index(e, v->hook), size = sonde_dtype_size(e->o->dtype);
    const sonde_store_dataset *d = &e->layout.dataset[e->layout.hook[i]];
    struct sums *s = &w->context[v->sequence].hook[i];
    size_t longest = (size_t)d->dim[2];
    char name[SONDE_HOOK_NAME_MAX];
    if (seq >= d->dim[0])
        return SONDE_OK;
    for (size_t h = 0; h < v->n_heads; h++)
        for (size_t r = 0; r < longest; r++) {
            size_t n = r < v->n_rows ? v->n_keys : 0;
            if (n)
                memcpy(w->padded, v->data + (h * v->n_rows + r) * v->n_keys, n * sizeof(float));
            for (size_t j = 0; j < n; j++)
                if (isnan(w->padded[j]))
                    return not_finite(w, sonde_hook_name(v->hook, name), w->padded[j], v->sequence, r, j,
                                      err);
            for (size_t j = n; j < longest; j++)
                w->padded[j] = NAN;
            s->saturated +=
                convert(e, w->padded, longest, (char *)w->square + (h * longest + r) * longest * size);
        }
    s->count++;
    return sonde_store_write(e->writer, e->layout.hook[i], seq, 1, w->square, err);
}

/* ---- losses and top logits --------------------------------------------------------------------- */

static enum sonde_code keep_losses(struct worker *w, size_t sequence, size_t first, size_t n_rows,
                                   const float *logits, sonde_err *err)
{
    const struct engine *e = w->e;
    const sonde_corpus *c = e->corpus;
    struct state *s = &w->context[sequence];
    uint64_t seq = context_at(&e->plan, w->place0 + sequence), token = c->seq_start[seq] + first,
             end = c->seq_start[seq + 1];
    for (size_t r = 0; r < n_rows; r++)
        w->target[r] = token + r + 1 < end ? c->id[token + r + 1] : -1;
    sonde_token_loss(e->m->kernels, logits, n_rows, e->m->arch.n_vocab_out, w->target, w->loss);
    for (size_t r = 0; r < n_rows; r++) {
        if (w->target[r] < 0 || (size_t)w->target[r] >= e->m->arch.n_vocab_out)
            continue;
        if (!isfinite(w->loss[r]))
            return not_finite(w, "the loss", w->loss[r], sequence, first + r, 0, err);
        s->loss += (double)w->loss[r];
        s->n_losses++;
    }
    return sonde_store_write(e->writer, e->layout.loss, token, n_rows, w->loss, err);
}

static enum sonde_code keep_top(struct worker *w, size_t sequence, size_t first, size_t n_rows,
                                const float *logits, sonde_err *err)
{
    const struct engine *e = w->e;
    size_t k = e->o->n_logits;
    uint64_t token = e->corpus->seq_start[context_at(&e->plan, w->place0 + sequence)] + first;
    sonde_top_logprobs(e->m->kernels, logits, n_rows, e->m->arch.n_vocab_out, k, w->top, w->logprob);
    for (size_t r = 0; r < n_rows; r++)
        if (!isfinite(w->logprob[r * k]))
            return not_finite(w, "the log-probability", w->logprob[r * k], sequence, first + r, 0, err);
    enum sonde_code code = sonde_store_write(e->writer, e->layout.logits_id, token, n_rows, w->top, err);
    return code ? code
                : sonde_store_write(e->writer, e->layout.logits_logprob, token, n_rows, w->logprob, err);
}

enum sonde_code keep_logits(void *arg, size_t sequence, size_t first, size_t n_rows, float *logits,
                            sonde_err *err)
{
    struct worker *w = arg;
    enum sonde_code code = w->e->o->loss ? keep_losses(w, sequence, first, n_rows, logits, err) : SONDE_OK;
    return code || !w->e->o->n_logits ? code : keep_top(w, sequence, first, n_rows, logits, err);
}

/* ---- hooks ------------------------------------------------------------------------------------- */

/* Square sites cost a pass its speed: they are hooked only where the batch holds a context that is stored. */
enum sonde_code set_hooks(struct worker *w, bool squares, sonde_err *err)
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
