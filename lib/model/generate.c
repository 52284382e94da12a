/* SPDX-License-Identifier: MIT */
#include "generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/rng.h"
#include "../num/softmax.h"
#include "run_impl.h"

struct sampler {
    const sonde_kernels *kernels;
    const sonde_sampling *s;
    size_t n_vocab;
    float *p;
    int32_t *order;
    int32_t next;
    size_t drawn;
};

/* Fewest most likely tokens that reach top_p: found among the `n` largest, n doubling until they do. */
static size_t nucleus(struct sampler *s, size_t n_all, float *value)
{
    for (size_t n = n_all < 64 ? n_all : 64;; n = 2 * n < n_all ? 2 * n : n_all) {
        double sum = 0;
        sonde_row_topk(s->kernels, s->p, n_all, n, s->order, value);
        for (size_t i = 0; i < n; i++) {
            sum += (double)value[i];
            if (sum >= (double)s->s->top_p)
                return i + 1;
        }
        if (n == n_all)
            return n;
    }
}

static int32_t draw(struct sampler *s, size_t n, double u)
{
    double sum = 0, at = 0;
    if (s->s->top_p >= 1) {
        for (size_t i = 0; i < n; i++)
            sum += (double)s->p[i];
        for (size_t i = 0; i < n; i++)
            if ((at += (double)s->p[i]) > u * sum)
                return (int32_t)i;
        return (int32_t)n - 1;
    }
    float *value = s->p + s->n_vocab;
    size_t kept = nucleus(s, n, value);
    for (size_t i = 0; i < kept; i++)
        sum += (double)value[i];
    for (size_t i = 0; i < kept; i++)
        if ((at += (double)value[i]) > u * sum)
            return s->order[i];
    return s->order[kept - 1];
}

static enum sonde_code sample(void *arg, size_t sequence, size_t first, size_t n_rows, float *logits,
                              sonde_err *err)
{
    struct sampler *s = arg;
    (void)sequence, (void)first;
    const float *row = logits + (n_rows - 1) * s->n_vocab;
    size_t n =
        s->s->n_allowed > 0 && (size_t)s->s->n_allowed < s->n_vocab ? (size_t)s->s->n_allowed : s->n_vocab;
    size_t best = sonde_argmax(row, n);
    for (size_t i = 0; i < n; i++)
        if (isnan(row[i]))
            return sonde_fail(err, SONDE_E_NUMERIC, "the logits of token %zu after the prompt hold NaN",
                              s->drawn);
    if (s->s->temperature <= 0) {
        s->next = (int32_t)best;
        return SONDE_OK;
    }
    for (size_t i = 0; i < n; i++)
        s->p[i] = (row[i] - row[best]) / s->s->temperature;
    sonde_softmax_row(s->kernels, s->p, n, 0, n, s->p);
    sonde_rng root = sonde_rng_seed(s->s->seed), stream = sonde_rng_fork(&root, "sample", s->drawn);
    s->next = draw(s, n, sonde_rng_double(&stream));
    return SONDE_OK;
}

static bool is_stop(const sonde_sampling *s, int32_t id)
{
    for (size_t i = 0; i < s->n_stop; i++)
        if (s->stop[i] == id)
            return true;
    return false;
}

/* The prompt goes through in pieces that the run can hold; only the last one needs logits. */
static enum sonde_code feed(sonde_run *run, const int32_t *ids, size_t n, sonde_cache *cache,
                            struct sampler *s, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    for (size_t at = 0, step; at < n && !code; at += step) {
        step = n - at < run->max_rows ? n - at : run->max_rows;
        const size_t start[2] = {0, step};
        bool last = at + step == n;
        sonde_run_want_logits(run, last ? sample : NULL, s, true);
        code = sonde_run_forward(run, ids + at, start, 1, cache, err);
    }
    return code;
}

static enum sonde_code continue_text(sonde_run *run, const int32_t *prompt, size_t n, struct sampler *s,
                                     sonde_cache *cache, const sonde_work *work, sonde_token_fn fn, void *arg,
                                     sonde_err *err)
{
    enum sonde_code code = feed(run, prompt, n, cache, s, err);
    while (!code && s->drawn < s->s->n_tokens && !is_stop(s->s, s->next)) {
        int32_t id = s->next;
        if ((code = fn(arg, id, err)))
            return code;
        s->drawn++;
        if (sonde_work_stopped(work))
            return sonde_fail(err, SONDE_E_STOPPED, "stopped after %zu tokens", s->drawn);
        if (s->drawn == s->s->n_tokens || cache->n == cache->n_max)
            break;
        code = feed(run, &id, 1, cache, s, err);
    }
    return code;
}

enum sonde_code sonde_generate(sonde_run *run, const sonde_model *m, const int32_t *prompt, size_t n,
                               const sonde_sampling *sampling, const sonde_work *work, sonde_token_fn fn,
                               void *arg, sonde_err *err)
{
    struct sampler s = {.kernels = m->kernels, .s = sampling, .n_vocab = m->arch.n_vocab_out};
    sonde_cache *cache = NULL;
    enum sonde_code code;
    if (n == 0)
        return sonde_fail(err, SONDE_E_USAGE, "an empty prompt: there is nothing to continue");
    if (m->arch.bidirectional)
        return sonde_fail(err, SONDE_E_USAGE, "%s: a bidirectional model does not predict what follows",
                          m->path);
    if (n > run->max_keys)
        return sonde_fail(err, SONDE_E_USAGE, "the prompt has %zu tokens, this model's context is %zu", n,
                          run->max_keys);
    if ((code = sonde_cache_new(m, run->max_keys, work ? work->budget : NULL, &cache, err)))
        return code;
    s.p = calloc(2 * s.n_vocab, sizeof *s.p);
    s.order = calloc(s.n_vocab, sizeof *s.order);
    code = s.p && s.order ? continue_text(run, prompt, n, &s, cache, work, fn, arg, err)
                          : sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu logits", s.n_vocab);
    sonde_run_want_logits(run, NULL, NULL, false);
    free(s.p);
    free(s.order);
    sonde_cache_free(cache);
    return code;
}
