/* SPDX-License-Identifier: MIT
 * A dictionary over a pass of a source: the mean first, then what it makes of every row. */
#include <inttypes.h>

#include "metrics.h"

size_t sonde_pass_rows_for(const sonde_dict *d)
{
    size_t wide = d->d_in > d->d_out ? d->d_in : d->d_out;
    size_t rows = ((size_t)1 << 25) / d->n_latents, by_width = ((size_t)1 << 23) / wide;
    rows = rows < by_width ? rows : by_width;
    return rows < 64 ? 64 : rows > 4096 ? 4096 : rows;
}

uint64_t sonde_pass_n_rows(const sonde_source *s, enum sonde_split split, uint64_t max_rows)
{
    const sonde_source_info *about = sonde_source_about(s);
    uint64_t n = split == SONDE_SPLIT_TRAIN     ? about->n_train
                 : split == SONDE_SPLIT_HELDOUT ? about->n_heldout
                                                : about->n_train + about->n_heldout;
    return max_rows && max_rows < n ? max_rows : n;
}

enum sonde_code sonde_dict_fits(const sonde_dict *d, const sonde_source *s, sonde_err *err)
{
    const sonde_source_info *about = sonde_source_about(s);
    if (d->d_in != about->d_in)
        return sonde_fail(err, SONDE_E_USAGE,
                          "the dictionary reads rows of %zu, the activations%s%s have %zu", d->d_in,
                          about->hook[0] ? " of " : "", about->hook, about->d_in);
    if (d->d_out != about->d_out)
        return sonde_fail(err, SONDE_E_USAGE,
                          "the dictionary writes rows of %zu, the activations to be predicted have %zu",
                          d->d_out, about->d_out);
    return SONDE_OK;
}

struct measure {
    const sonde_dict *d;
    sonde_encoder *encoder;
    sonde_tally *tally;
    sonde_sparse f;
    float *y_hat; /* [pass_rows, d_out] */
    size_t pass_rows;
    const sonde_work *work;
    sonde_pool *pool;
};

static enum sonde_code first_pass_rows(struct measure *m, const sonde_pass_rows *r, sonde_err *err)
{
    return sonde_tally_mean(m->tally, r->y, m->d->d_out, r->n, m->pool, err);
}

static enum sonde_code second_pass_rows(struct measure *m, const sonde_pass_rows *r, sonde_err *err)
{
    size_t d_in = m->d->d_in, d_out = m->d->d_out;
    enum sonde_code code = sonde_encoder_encode(m->encoder, r->x, d_in, r->n, m->pool, &m->f, err);
    if (!code)
        code = sonde_encoder_decode(m->encoder, &m->f, r->x, d_in, m->pool, m->y_hat, d_out, err);
    if (!code)
        code = sonde_tally_add(m->tally, r->y, d_out, m->y_hat, d_out, r->n, &m->f, m->pool, err);
    return code;
}

static enum sonde_code pass(struct measure *m, sonde_source *s, enum sonde_split split, uint64_t n_rows,
                            const char *phase,
                            enum sonde_code (*take)(struct measure *, const sonde_pass_rows *, sonde_err *),
                            sonde_err *err)
{
    enum sonde_code code = sonde_source_pass_begin(s, split, err);
    for (uint64_t done = 0; !code && done < n_rows;) {
        sonde_pass_rows r;
        uint64_t left = n_rows - done;
        size_t want = left < m->pass_rows ? (size_t)left : m->pass_rows;
        if ((code = sonde_source_pass_next(s, want, &r, m->work, err)) || r.n == 0)
            break;
        if (!(code = take(m, &r, err)))
            sonde_work_report(m->work, phase, "rows", done += r.n, n_rows);
        if (!code && sonde_work_stopped(m->work))
            code = sonde_fail(err, SONDE_E_STOPPED, "stopped while %s; nothing was saved", phase);
    }
    return code;
}

enum sonde_code sonde_metrics_measure(const sonde_dict *d, sonde_encoder *e, sonde_source *s,
                                      enum sonde_split split, uint64_t max_rows, const sonde_work *work,
                                      sonde_metrics **out, sonde_err *err)
{
    sonde_budget *budget = work ? work->budget : NULL;
    struct measure m = {.d = d, .encoder = e, .work = work, .pool = work ? work->pool : NULL};
    uint64_t n_rows = sonde_pass_n_rows(s, split, max_rows);
    sonde_arena *arena = NULL;
    m.f.budget = budget;
    m.pass_rows = sonde_pass_rows_for(d);
    enum sonde_code code = sonde_dict_fits(d, s, err);
    if (code)
        return code;
    if (n_rows == 0)
        return sonde_fail(err, SONDE_E_USAGE, "the split has no rows to measure");
    if (!(arena = sonde_arena_new(budget, err)) ||
        !(m.y_hat = sonde_arena_get(arena, m.pass_rows * d->d_out, sizeof *m.y_hat, err))) {
        code = SONDE_E_MEMORY;
        goto out;
    }
    if ((code = sonde_tally_new(d->n_latents, d->d_out, budget, &m.tally, err)) ||
        (code = pass(&m, s, split, n_rows, "averaging", first_pass_rows, err)) ||
        (code = pass(&m, s, split, n_rows, "measuring", second_pass_rows, err)))
        goto out;
    code = sonde_tally_end(m.tally, budget, out, err);
out:
    sonde_sparse_free(&m.f);
    sonde_tally_free(m.tally);
    sonde_arena_free(arena);
    return code;
}
