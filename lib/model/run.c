/* SPDX-License-Identifier: MIT
 * The pass from tokens to logits. The blocks are in block.c. */
#include <string.h>

#include "run_impl.h"

static enum sonde_code embed(sonde_run *r)
{
    const sonde_model *m = r->m;
    size_t d = m->arch.d_model;
    enum sonde_code code;
    for (size_t i = 0; i < r->n_rows; i++)
        sonde_model_embed(m, r->ids[i], r->x + i * d);
    sonde_model_embed_done(m);
    if ((code = visit(r, SONDE_SITE_TOKENS, 0, NULL, 1)) || r->done ||
        (code = visit(r, SONDE_SITE_EMBED, 0, r->x, d)) || r->done)
        return code;
    if (!m->position)
        return SONDE_OK;
    for (size_t s = 0; s < r->n_seqs; s++)
        for (size_t i = r->start[s]; i < r->start[s + 1]; i++)
            memcpy(r->out + (i - r->start[0]) * d, m->position + (r->first + i - r->start[s]) * d,
                   d * sizeof *r->out);
    if ((code = visit(r, SONDE_SITE_POS_EMBED, 0, r->out, d)) || r->done)
        return code;
    if (m->arch.positions == SONDE_POS_LEARNED) {
        sonde_vec_add(m->kernels, r->n_rows * d, r->x, r->out, r->x);
        return SONDE_OK;
    }
    r->shortformer = sonde_arena_get(r->extra, r->n_rows * d, sizeof(float), r->err);
    if (!r->shortformer)
        return SONDE_E_MEMORY;
    memcpy(r->shortformer, r->out, r->n_rows * d * sizeof(float));
    return SONDE_OK;
}

/* What the unembedding gives for n rows; the soft cap comes after the hook. */
static void make_logits(sonde_run *r, const float *in, size_t n, float *logits)
{
    const sonde_model *m = r->m;
    size_t v = m->arch.n_vocab_out;
    const sonde_epilogue e = {.bias = m->unembed_bias};
    project(r, &m->unembed, 0, v, in, m->arch.d_model, n, logits, v, &e);
}

static enum sonde_code hand_on(sonde_run *r, size_t s, size_t from, size_t n, float *logits)
{
    const sonde_arch *a = &r->m->arch;
    if (!r->logits_fn)
        return SONDE_OK;
    if (a->final_softcap > 0)
        sonde_softcap(r->m->kernels, a->final_softcap, n * a->n_vocab_out, logits, logits);
    return r->logits_fn(r->logits_arg, s, from, n, logits, r->err);
}

/* All logits of a sequence in memory, shown to the hook, then handed on. */
static enum sonde_code logits_whole(sonde_run *r, size_t s, const float *in)
{
    const sonde_arch *a = &r->m->arch;
    size_t row = r->start[s] - r->start[0], n = r->start[s + 1] - r->start[s], v = a->n_vocab_out;
    float *all = sonde_arena_get(r->extra, n * v, sizeof *all, r->err);
    if (!all)
        return SONDE_E_MEMORY;
    make_logits(r, in + row * a->d_model, n, all);
    sonde_view view = {.hook = {SONDE_SITE_LOGITS, 0},
                       .sequence = s,
                       .first_pos = r->first,
                       .n_rows = n,
                       .width = v,
                       .stride = v,
                       .data = all,
                       .ids = r->ids + row};
    enum sonde_code code = call_hooks(r, &view);
    size_t from = r->only_last ? n - 1 : 0;
    return code ? code : hand_on(r, s, from, n - from, all + from * v);
}

static enum sonde_code logits_in_chunks(sonde_run *r, size_t s, const float *in)
{
    const sonde_arch *a = &r->m->arch;
    size_t row = r->start[s] - r->start[0], n = r->start[s + 1] - r->start[s];
    enum sonde_code code = SONDE_OK;
    if (!r->logits && !(r->logits = run_floats(r, LOGIT_ROWS, a->n_vocab_out, r->err)))
        return SONDE_E_MEMORY;
    for (size_t i = r->only_last ? n - 1 : 0; i < n && !code; i += LOGIT_ROWS) {
        size_t rows = n - i < LOGIT_ROWS ? n - i : LOGIT_ROWS;
        make_logits(r, in + (row + i) * a->d_model, rows, r->logits);
        code = hand_on(r, s, i, rows, r->logits);
    }
    return code;
}

static enum sonde_code unembed(sonde_run *r)
{
    const sonde_arch *a = &r->m->arch;
    const float *in;
    enum sonde_code code = normalise(r, a->final_norm, &r->m->ln_final, SONDE_SITE_LN_FINAL_SCALE, 0, r->x,
                                     a->d_model, a->d_model, r->h, a->d_model, &in);
    if (code || r->done)
        return code;
    if (hooked(r, SONDE_SITE_UNEMBED_IN, 0)) {
        float *shown = a->final_norm ? r->h : r->x;
        if ((code = visit(r, SONDE_SITE_UNEMBED_IN, 0, shown, a->d_model)) || r->done)
            return code;
    }
    bool whole = hooked(r, SONDE_SITE_LOGITS, 0);
    for (size_t s = 0; s < r->n_seqs && !code; s++)
        if (r->start[s + 1] > r->start[s])
            code = whole ? logits_whole(r, s, in) : logits_in_chunks(r, s, in);
    return code;
}

static enum sonde_code check_input(sonde_run *r, const int32_t *ids, const size_t *start, size_t n_seqs,
                                   sonde_err *err)
{
    size_t n = start[n_seqs] - start[0], past = r->cache ? r->cache->n : 0;
    bool logits = r->logits_fn || hooked(r, SONDE_SITE_LOGITS, 0);
    if (logits && !r->m->unembed.data)
        return sonde_fail(err, SONDE_E_USAGE, "%s: logits are asked for, but the unembedding was deferred",
                          r->m->path);
    for (size_t s = 0; s < n_seqs; s++)
        if (start[s] > start[s + 1])
            return sonde_fail(err, SONDE_E_USAGE, "sequence %zu ends before it begins", s);
    if (n > r->max_rows)
        return sonde_fail(err, SONDE_E_USAGE, "%zu tokens at once, this run was made for %zu", n,
                          r->max_rows);
    if (r->cache && n_seqs != 1)
        return sonde_fail(err, SONDE_E_USAGE, "a cache holds one sequence, %zu were given", n_seqs);
    if (r->cache && r->m->arch.bidirectional)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: a bidirectional model sees all tokens at once, a cache is of no use",
                          r->m->path);
    for (size_t s = 0; s < n_seqs; s++) {
        size_t keys = past + start[s + 1] - start[s];
        if (keys > r->max_keys || (r->cache && keys > r->cache->n_max))
            return sonde_fail(err, SONDE_E_USAGE, "a sequence of %zu tokens, this run was made for %zu", keys,
                              r->cache && r->cache->n_max < r->max_keys ? r->cache->n_max : r->max_keys);
    }
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= r->m->arch.n_vocab)
            return sonde_fail(err, SONDE_E_USAGE, "token %zu has id %d, this model's vocabulary is %zu", i,
                              (int)ids[i], r->m->arch.n_vocab);
    return SONDE_OK;
}

enum sonde_code sonde_run_forward(sonde_run *r, const int32_t *ids, const size_t *start, size_t n_seqs,
                                  sonde_cache *cache, sonde_err *err)
{
    enum sonde_code code;
    r->cache = cache;
    if ((code = check_input(r, ids + start[0], start, n_seqs, err)))
        return code;
    r->ids = ids + start[0];
    r->start = start;
    r->n_seqs = n_seqs;
    r->n_rows = start[n_seqs] - start[0];
    r->first = cache ? cache->n : 0;
    r->done = !r->n_rows || (!r->n_entries && !r->logits_fn && !cache);
    r->err = err;
    r->shortformer = NULL;
    sonde_arena_reset(r->extra);
    if (r->done)
        return SONDE_OK;
    code = embed(r);
    for (size_t l = 0; l < r->m->arch.n_layers && !code && !r->done; l++)
        code = forward_block(r, l);
    bool wants_end =
        r->logits_fn || r->last_order > sonde_hook_order(&r->m->arch, (sonde_hook){SONDE_SITE_RESID_POST,
                                                                                   r->m->arch.n_layers - 1});
    if (!code && !r->done && wants_end)
        code = unembed(r);
    if (!code && cache)
        cache->n += r->n_rows;
    return code;
}
