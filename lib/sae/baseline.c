/* SPDX-License-Identifier: MIT
 * Baselines from a source, and how well replacements reconstruct its rows. */
#include "baseline.h"

#include <stdlib.h>
#include <string.h>

#include "before_impl.h"

#define PASS_ROWS 4096

/* ---- rows of a pass with the tokens before them ---------------------------------------------- */

struct reader {
    sonde_source *s;
    struct before before;
    int32_t *previous; /* [PASS_ROWS] */
};

static enum sonde_code reader_begin(struct reader *r, sonde_source *s, enum sonde_split split, sonde_err *err)
{
    *r = (struct reader){.s = s, .previous = malloc(PASS_ROWS * sizeof *r->previous)};
    if (!r->previous)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %d rows", PASS_ROWS);
    before_begin(&r->before, s);
    return sonde_source_pass_begin(s, split, err);
}

static enum sonde_code reader_next(struct reader *r, uint64_t max_rows, const sonde_work *work,
                                   sonde_pass_rows *got, sonde_rows *rows, sonde_err *err)
{
    enum sonde_code code =
        sonde_source_pass_next(r->s, max_rows < PASS_ROWS ? (size_t)max_rows : PASS_ROWS, got, work, err);
    for (size_t i = 0; i < got->n && !code; i++)
        code = before_find(&r->before, got->token[i], &r->previous[i], err);
    if (!code)
        *rows = (sonde_rows){got->n, got->x, got->id, r->previous};
    return code;
}

static void reader_end(struct reader *r)
{
    free(r->previous);
}

/* ---- fitting --------------------------------------------------------------------------------- */

static enum sonde_code make(sonde_source *s, const sonde_baseline_options *o, sonde_budget *budget,
                            sonde_baselines *out, sonde_err *err)
{
    const sonde_source_info *info = sonde_source_about(s);
    const sonde_model *m = sonde_source_model_of(s);
    enum sonde_code code = SONDE_OK;
    *out = (sonde_baselines){.of_train = info->n_train > 0, .mean = calloc(info->d_out, sizeof(double))};
    if (!out->mean)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a mean of %zu values", info->d_out);
    if (o->pca && !info->hook_out)
        code = sonde_pca_new(info->d_in, m ? m->kernels : NULL, budget, &out->pca, err);
    if (!code && o->bigram && info->has_tokens)
        code = sonde_bigram_new(info->d_out, o->max_bytes, budget, &out->bigram, err);
    return code;
}

enum sonde_code sonde_baselines_fit(sonde_source *s, const sonde_baseline_options *o, const sonde_work *work,
                                    sonde_baselines *out, sonde_err *err)
{
    const size_t d = sonde_source_about(s)->d_out;
    struct reader r = {0};
    sonde_pass_rows got;
    sonde_rows rows;
    enum sonde_code code = make(s, o, work ? work->budget : NULL, out, err);
    if (!code)
        code = reader_begin(&r, s, out->of_train ? SONDE_SPLIT_TRAIN : SONDE_SPLIT_ALL, err);
    while (!code && !(code = reader_next(&r, PASS_ROWS, work, &got, &rows, err)) && got.n) {
        for (size_t i = 0; i < got.n; i++)
            for (size_t j = 0; j < d; j++)
                out->mean[j] += (double)got.y[i * d + j];
        out->n_rows += got.n;
        if (out->pca)
            sonde_pca_add(out->pca, got.x, got.n, work ? work->pool : NULL);
        if (out->bigram)
            code = sonde_bigram_add(out->bigram, &rows, got.y, err);
    }
    reader_end(&r);
    if (!code && !out->n_rows)
        code = sonde_fail(err, SONDE_E_USAGE, "no row to fit baselines to");
    for (size_t j = 0; j < d && !code; j++)
        out->mean[j] /= (double)out->n_rows;
    return code;
}

void sonde_baselines_free(sonde_baselines *b)
{
    sonde_pca_free(b->pca);
    sonde_bigram_free(b->bigram);
    free(b->mean);
    *b = (sonde_baselines){0};
}

/* ---- reconstruction -------------------------------------------------------------------------- */

struct measure {
    const sonde_replacement *replacement;
    size_t n, d;
    sonde_tally **tally; /* [n] */
    float *y;            /* [PASS_ROWS, d] */
    sonde_pool *pool;
};

/* One pass over at most n_rows rows: into the first tally's mean, or into every tally. */
static enum sonde_code pass(struct measure *m, sonde_source *s, enum sonde_split split, uint64_t n_rows,
                            bool to_mean, const sonde_work *work, sonde_err *err)
{
    struct reader r;
    sonde_pass_rows got;
    sonde_rows rows;
    enum sonde_code code = reader_begin(&r, s, split, err);
    for (uint64_t left = n_rows; !code && left; left -= got.n) {
        if ((code = reader_next(&r, left, work, &got, &rows, err)) || !got.n)
            break;
        if (to_mean)
            code = sonde_tally_mean(m->tally[0], got.y, m->d, got.n, m->pool, err);
        for (size_t k = 0; k < m->n && !to_mean && !code; k++)
            if (!(code = m->replacement[k].fn(m->replacement[k].arg, &rows, m->pool, m->y, err)))
                code = sonde_tally_add(m->tally[k], got.y, m->d, m->y, m->d, got.n, NULL, m->pool, err);
        sonde_work_report(work, to_mean ? "averaging" : "measuring baselines", "rows", n_rows - left + got.n,
                          n_rows);
        if (!code && sonde_work_stopped(work))
            code = sonde_fail(err, SONDE_E_STOPPED, "stopped while measuring baselines; nothing was saved");
    }
    reader_end(&r);
    return code;
}

static enum sonde_code measure(struct measure *m, sonde_source *s, enum sonde_split split, uint64_t max_rows,
                               const double *mean, const sonde_work *work, sonde_metrics **out,
                               sonde_err *err)
{
    const uint64_t n_rows = sonde_pass_n_rows(s, split, max_rows);
    sonde_budget *budget = work ? work->budget : NULL;
    enum sonde_code code = SONDE_OK;
    for (size_t k = 0; k < m->n && !code; k++)
        code = sonde_tally_new(0, m->d, budget, &m->tally[k], err);
    if (!code && !mean)
        code = pass(m, s, split, n_rows, true, work, err);
    for (size_t k = mean ? 0 : 1; k < m->n && !code; k++)
        code = sonde_tally_set_mean(m->tally[k], mean ? mean : sonde_tally_get_mean(m->tally[0]), err);
    if (!code)
        code = pass(m, s, split, n_rows, false, work, err);
    for (size_t k = 0; k < m->n && !code; k++)
        code = sonde_tally_end(m->tally[k], budget, &out[k], err);
    return code;
}

enum sonde_code sonde_reconstruct(sonde_source *s, enum sonde_split split, uint64_t max_rows,
                                  const double *mean, const sonde_replacement *replacement, size_t n,
                                  const sonde_work *work, sonde_metrics **out, sonde_err *err)
{
    struct measure m = {.replacement = replacement,
                        .n = n,
                        .d = sonde_source_about(s)->d_out,
                        .pool = work ? work->pool : NULL};
    enum sonde_code code = SONDE_E_MEMORY;
    sonde_arena *arena = sonde_arena_new(work ? work->budget : NULL, err);
    for (size_t k = 0; k < n; k++)
        out[k] = NULL;
    if (arena && (m.y = sonde_arena_get(arena, PASS_ROWS, m.d * sizeof *m.y, err)) &&
        (m.tally = sonde_arena_get(arena, n, sizeof(sonde_tally *), err)))
        code = n ? measure(&m, s, split, max_rows, mean, work, out, err) : SONDE_OK;
    for (size_t k = 0; k < n && m.tally; k++)
        sonde_tally_free(m.tally[k]);
    for (size_t k = 0; k < n && code; k++) {
        sonde_metrics_free(out[k]);
        out[k] = NULL;
    }
    sonde_arena_free(arena);
    return code;
}
