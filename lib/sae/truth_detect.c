/* SPDX-License-Identifier: MIT
 * Latents as detectors of true ones: who was active in which row, counted. */
#include <inttypes.h>
#include <string.h>

#include "metrics.h"
#include "truth.h"
#include "truth_impl.h"

#define WINDOW   65536 /* entries read at a time, at least */
#define POINTERS 4096

struct sonde_detector {
    sonde_truth *t;
    const sonde_match *m;
    sonde_arena *arena;
    uint64_t n_rows, n_true;
    uint64_t *true_rows; /* [N] rows in which a true latent is active */
    uint64_t *fired;     /* [F] */
    uint64_t *hit;       /* [F] together with b(j) */
    uint64_t *hit_pair;  /* [F] together with the pair of j */
    uint64_t *stamp;     /* [N] the last row (counted from 1) in which a true latent was active */
    int64_t *pointer;    /* [POINTERS + 1] */
    uint64_t first_pointer, n_pointers;
    int32_t *index; /* [room] */
    uint64_t first_index, n_index, room;
};

void sonde_detector_free(sonde_detector *d)
{
    if (d)
        sonde_arena_free(d->arena);
}

void sonde_detection_free(sonde_detection *d)
{
    if (d)
        sonde_arena_free(d->arena);
}

enum sonde_code sonde_detector_new(sonde_truth *t, const sonde_match *m, sonde_budget *budget,
                                   sonde_detector **out, sonde_err *err)
{
    if (!t->info.has_rows)
        return sonde_fail(err, SONDE_E_USAGE, "which true latents are active in each row is not known");
    sonde_arena *arena = sonde_arena_new(budget, err);
    sonde_detector *d = arena ? sonde_arena_get(arena, 1, sizeof *d, err) : NULL;
    if (d) {
        *d =
            (sonde_detector){.t = t, .m = m, .arena = arena, .room = m->n_true > WINDOW ? m->n_true : WINDOW};
        d->true_rows = sonde_arena_get(arena, m->n_true, sizeof *d->true_rows, err);
        d->stamp = sonde_arena_get(arena, m->n_true, sizeof *d->stamp, err);
        d->fired = sonde_arena_get(arena, m->n_latents, sizeof *d->fired, err);
        d->hit = sonde_arena_get(arena, m->n_latents, sizeof *d->hit, err);
        d->hit_pair = sonde_arena_get(arena, m->n_latents, sizeof *d->hit_pair, err);
        d->pointer = sonde_arena_get(arena, POINTERS + 1, sizeof *d->pointer, err);
        d->index = sonde_arena_get(arena, (size_t)d->room, sizeof *d->index, err);
    }
    if (!d || !d->true_rows || !d->stamp || !d->fired || !d->hit || !d->hit_pair || !d->pointer ||
        !d->index) {
        sonde_arena_free(arena);
        return SONDE_E_MEMORY;
    }
    *out = d;
    return SONDE_OK;
}

/* Entries [*begin, *end) belong to the row. */
static enum sonde_code find_row(sonde_detector *d, uint64_t row, uint64_t *begin, uint64_t *end,
                                sonde_err *err)
{
    const sonde_truth *t = d->t;
    if (row >= t->info.n_rows)
        return sonde_fail(err, SONDE_E_USAGE, "%s: row %" PRIu64 " of %" PRIu64, t->path, row,
                          t->info.n_rows);
    if (row < d->first_pointer || row >= d->first_pointer + d->n_pointers) {
        uint64_t left = t->info.n_rows - row, n = left < POINTERS ? left : POINTERS;
        d->n_pointers = 0;
        enum sonde_code code = sonde_store_read(t->store, t->indptr, row, n + 1, d->pointer, err);
        if (code)
            return code;
        d->first_pointer = row;
        d->n_pointers = n;
    }
    int64_t a = d->pointer[row - d->first_pointer], b = d->pointer[row - d->first_pointer + 1];
    if (a < 0 || b < a || (uint64_t)b > t->n_entries || (uint64_t)(b - a) > t->info.n)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: /truth/indptr: row %" PRIu64 " has the entries %" PRId64 " to %" PRId64
                          " of %" PRIu64,
                          t->path, row, a, b, t->n_entries);
    *begin = (uint64_t)a;
    *end = (uint64_t)b;
    return SONDE_OK;
}

/* Stamp the true latents of a row. */
static enum sonde_code mark_row(sonde_detector *d, uint64_t row, sonde_err *err)
{
    uint64_t begin = 0, end = 0;
    enum sonde_code code = find_row(d, row, &begin, &end, err);
    if (code)
        return code;
    if (begin < d->first_index || end > d->first_index + d->n_index) {
        uint64_t left = d->t->n_entries - begin, n = left < d->room ? left : d->room;
        d->n_index = 0;
        if ((code = sonde_store_read(d->t->store, d->t->indices, begin, n, d->index, err)))
            return code;
        d->first_index = begin;
        d->n_index = n;
    }
    int64_t last = -1;
    for (uint64_t k = begin; k < end; k++) {
        int32_t i = d->index[k - d->first_index];
        if (i <= last || (uint64_t)i >= d->t->info.n)
            return sonde_fail(err, SONDE_E_INPUT,
                              "%s: /truth/indices[%" PRIu64 "] is %d, after %" PRId64 " of %zu", d->t->path,
                              k, (int)i, last, d->t->info.n);
        last = i;
        d->stamp[i] = d->n_rows + 1;
        d->true_rows[i]++;
    }
    d->n_true += end - begin;
    return SONDE_OK;
}

enum sonde_code sonde_detector_add(sonde_detector *d, const uint64_t *row, size_t n, const sonde_sparse *f,
                                   sonde_err *err)
{
    for (size_t r = 0; r < n; r++) {
        enum sonde_code code = mark_row(d, row[r], err);
        if (code)
            return code;
        const uint64_t now = ++d->n_rows;
        for (uint64_t k = f->start[r]; k < f->start[r + 1]; k++) {
            uint32_t j = f->col[k], pair = d->m->pair[j];
            if (f->value[k] == 0)
                continue;
            d->fired[j]++;
            d->hit[j] += d->stamp[d->m->latent_truth[j]] == now;
            d->hit_pair[j] += pair != UINT32_MAX && d->stamp[pair] == now;
        }
    }
    return SONDE_OK;
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

enum sonde_code sonde_detector_end(const sonde_detector *d, sonde_budget *budget, sonde_detection **out,
                                   sonde_err *err)
{
    size_t n_latents = d->m->n_latents, n_pairs = 0;
    if (d->n_rows == 0)
        return sonde_fail(err, SONDE_E_USAGE, "no rows to compare with the truth");
    sonde_arena *arena = sonde_arena_new(budget, err);
    sonde_detection *s = arena ? sonde_arena_get(arena, 1, sizeof *s, err) : NULL;
    double *f1_of = s ? sonde_arena_get(arena, n_latents, sizeof *f1_of, err) : NULL;
    if (!f1_of) {
        sonde_arena_free(arena);
        return SONDE_E_MEMORY;
    }
    *s = (sonde_detection){.n_rows = d->n_rows, .f1_of = f1_of, .arena = arena};
    for (size_t j = 0; j < n_latents; j++) {
        uint32_t pair = d->m->pair[j];
        double fired = (double)d->fired[j], hit = (double)d->hit[j];
        double there = (double)d->true_rows[d->m->latent_truth[j]];
        s->precision += ratio(hit, fired);
        s->recall += ratio(hit, there);
        f1_of[j] = ratio(2 * hit, fired + there);
        s->f1 += f1_of[j];
        s->accuracy += 1 - (fired + there - 2 * hit) / (double)d->n_rows;
        if (pair == UINT32_MAX)
            continue;
        s->f1_matched += ratio(2 * (double)d->hit_pair[j], fired + (double)d->true_rows[pair]);
        n_pairs++;
    }
    s->precision /= (double)n_latents;
    s->recall /= (double)n_latents;
    s->f1 /= (double)n_latents;
    s->accuracy /= (double)n_latents;
    s->f1_matched /= (double)n_pairs;
    s->true_l0 = (double)d->n_true / (double)d->n_rows;
    *out = s;
    return SONDE_OK;
}

static enum sonde_code detect_rows(sonde_detector *d, const sonde_dict *dict, sonde_encoder *e,
                                   sonde_source *s, uint64_t n_rows, const sonde_work *work, sonde_sparse *f,
                                   sonde_err *err)
{
    size_t most = sonde_pass_rows_for(dict);
    for (uint64_t done = 0; done < n_rows;) {
        sonde_pass_rows r;
        size_t want = n_rows - done < most ? (size_t)(n_rows - done) : most;
        enum sonde_code code = sonde_source_pass_next(s, want, &r, work, err);
        if (code || r.n == 0)
            return code;
        if ((code = sonde_encoder_encode(e, r.x, dict->d_in, r.n, work ? work->pool : NULL, f, err)) ||
            (code = sonde_detector_add(d, r.row, r.n, f, err)))
            return code;
        sonde_work_report(work, "comparing with the truth", "rows", done += r.n, n_rows);
        if (sonde_work_stopped(work))
            return sonde_fail(err, SONDE_E_STOPPED,
                              "stopped while comparing with the truth; nothing was saved");
    }
    return SONDE_OK;
}

enum sonde_code sonde_truth_detect(sonde_truth *t, const sonde_match *m, const sonde_dict *dict,
                                   sonde_encoder *e, sonde_source *s, enum sonde_split split,
                                   uint64_t max_rows, const sonde_work *work, sonde_detection **out,
                                   sonde_err *err)
{
    sonde_budget *budget = work ? work->budget : NULL;
    sonde_detector *d = NULL;
    sonde_sparse f = {.budget = budget};
    const sonde_source_info *about = sonde_source_about(s);
    enum sonde_code code = sonde_dict_fits(dict, s, err);
    if (!code && t->info.has_rows && about->n_rows != t->info.n_rows)
        code = sonde_fail(err, SONDE_E_USAGE, "%s: knows %" PRIu64 " rows, the activations have %" PRIu64,
                          t->path, t->info.n_rows, about->n_rows);
    if (!code && !(code = sonde_detector_new(t, m, budget, &d, err)) &&
        !(code = sonde_source_pass_begin(s, split, err)) &&
        !(code = detect_rows(d, dict, e, s, sonde_pass_n_rows(s, split, max_rows), work, &f, err)))
        code = sonde_detector_end(d, budget, out, err);
    sonde_sparse_free(&f);
    sonde_detector_free(d);
    return code;
}
