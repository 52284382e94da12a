/* SPDX-License-Identifier: MIT
 * Buffers of rows, rows of a file into them, and what is asked of every row: finite, and no outlier. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/size.h"
#include "../num/convert.h"
#include "source_impl.h"

#define NORM_ROWS 65536

enum sonde_code source_rows_new(const sonde_source *s, size_t cap, struct source_rows *r, sonde_err *err)
{
    size_t widest = s->two && s->out.width > s->in.width ? s->out.width : s->in.width;
    size_t raw = s->corpus ? 0 : s->block_rows * sizeof(double);
    *r = (struct source_rows){.cap = cap, .arena = sonde_arena_new(s->budget, err)};
    if (!r->arena)
        return SONDE_E_MEMORY;
    size_t x, y;
    if (!sonde_mul(&x, cap, s->in.width) || !sonde_mul(&y, cap, s->two ? s->out.width : 0))
        return sonde_fail(err, SONDE_E_MEMORY,
                          "%zu rows of %zu values are more than this machine can address", cap, widest);
    if (!(r->x = sonde_arena_get(r->arena, x, sizeof *r->x, err)) ||
        (s->two && !(r->y = sonde_arena_get(r->arena, y, sizeof *r->y, err))) ||
        !(r->row = sonde_arena_get(r->arena, cap, sizeof *r->row, err)) ||
        !(r->token = sonde_arena_get(r->arena, cap, sizeof *r->token, err)) ||
        !(r->raw = sonde_arena_get(r->arena, raw, widest, err)) ||
        !(r->raw_token = sonde_arena_get(r->arena, SOURCE_BLOCK, sizeof *r->raw_token, err)))
        return SONDE_E_MEMORY;
    return SONDE_OK;
}

void source_rows_free(struct source_rows *r)
{
    sonde_arena_free(r->arena);
    *r = (struct source_rows){0};
}

/* ---- from a file ------------------------------------------------------------------------------- */

static enum sonde_code pread_all(const sonde_source *s, void *data, size_t n, uint64_t at, sonde_err *err)
{
    unsigned char *p = data;
    while (n > 0) {
        ssize_t k = pread(s->fd, p, n, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return sonde_fail(err, SONDE_E_IO, "%s: cannot read %zu bytes at offset %" PRIu64 ": %s", s->path,
                              n, at, k ? strerror(errno) : "it was cut while in use");
        p += k;
        at += (uint64_t)k;
        n -= (size_t)k;
    }
    return SONDE_OK;
}

enum sonde_code source_read_raw(sonde_source *s, const struct source_side *side, uint64_t first, uint64_t n,
                                void *data, sonde_err *err)
{
    if (s->store)
        return sonde_store_read(s->store, side->dataset, first, n, data, err);
    size_t bytes = side->width * sonde_dtype_size(side->dtype);
    return pread_all(s, data, (size_t)n * bytes, side->data_offset + first * bytes, err);
}

static void convert(const sonde_source *s, enum sonde_dtype dtype, const void *raw, size_t n, float *out)
{
    switch (dtype) {
    case SONDE_F16:
        sonde_from_f16(s->kernels, n, raw, out);
        break;
    case SONDE_BF16:
        sonde_from_bf16(s->kernels, n, raw, out);
        break;
    case SONDE_F64:
        for (size_t i = 0; i < n; i++)
            out[i] = (float)((const double *)raw)[i];
        break;
    default:
        memcpy(out, raw, n * sizeof *out);
    }
}

/* The rows of [first, first + n) that are in the split, n at most a block, to `to`. */
static enum sonde_code take_side(sonde_source *s, const struct source_side *side, uint64_t first, uint64_t n,
                                 enum sonde_split split, void *raw, float *to, sonde_err *err)
{
    size_t bytes = side->width * sonde_dtype_size(side->dtype), kept = 0;
    uint64_t from = 0, end = n; /* rows at both ends that are not wanted are not read */
    while (from < end && !source_mark_in(source_mark(&s->marks, first + from), split))
        from++;
    while (end > from && !source_mark_in(source_mark(&s->marks, first + end - 1), split))
        end--;
    enum sonde_code code = source_read_raw(s, side, first + from, end - from, raw, err);
    for (uint64_t i = from; i < end && !code;) {
        uint64_t run = i;
        while (run < end && source_mark_in(source_mark(&s->marks, first + run), split))
            run++;
        convert(s, side->dtype, (const char *)raw + (i - from) * bytes, (size_t)(run - i) * side->width,
                to + kept * side->width);
        kept += (size_t)(run - i);
        i = run + (run == i);
    }
    return code;
}

/* Their ids: one read where the tokens lie together. */
static enum sonde_code take_ids(sonde_source *s, struct source_rows *r, size_t from, sonde_err *err)
{
    int32_t near[4 * SOURCE_BLOCK];
    uint64_t lo = UINT64_MAX, hi = 0;
    enum sonde_code code = SONDE_OK;
    for (size_t i = from; i < r->n; i++) {
        r->id[i] = -1;
        lo = r->token[i] < lo ? r->token[i] : lo;
        hi = r->token[i] > hi ? r->token[i] : hi;
    }
    if (s->token_id == SIZE_MAX || from == r->n)
        return SONDE_OK;
    bool together = hi - lo < 4 * SOURCE_BLOCK;
    if (together)
        code = sonde_store_read(s->store, s->token_id, lo, hi - lo + 1, near, err);
    for (size_t i = from; i < r->n && !code; i++) {
        if (together)
            r->id[i] = near[r->token[i] - lo];
        else
            code = sonde_store_read(s->store, s->token_id, r->token[i], 1, &r->id[i], err);
    }
    return code;
}

static enum sonde_code append_block(sonde_source *s, uint64_t first, uint64_t n, enum sonde_split split,
                                    struct source_rows *r, sonde_err *err)
{
    size_t from = r->n;
    enum sonde_code code = take_side(s, &s->in, first, n, split, r->raw, r->x + from * s->in.width, err);
    if (!code && s->two)
        code = take_side(s, &s->out, first, n, split, r->raw, r->y + from * s->out.width, err);
    if (!code && s->row_token != SIZE_MAX)
        code = sonde_store_read(s->store, s->row_token, first, n, r->raw_token, err);
    for (uint64_t i = 0; i < n && !code; i++)
        if (source_mark_in(source_mark(&s->marks, first + i), split)) {
            r->row[r->n] = first + i;
            r->token[r->n++] = s->row_token == SIZE_MAX ? UINT64_MAX : (uint64_t)r->raw_token[i];
        }
    if (!code && r->id)
        code = take_ids(s, r, from, err);
    return code;
}

enum sonde_code source_file_append(sonde_source *s, const uint32_t *unit, size_t n, enum sonde_split split,
                                   struct source_rows *r, const sonde_work *work, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    (void)work;
    for (size_t i = 0; i < n && !code; i++) {
        uint64_t first, items = source_unit_items(s, unit[i], &first);
        code = append_block(s, first, items, split, r, err);
    }
    return code;
}

/* ---- what is asked of a row -------------------------------------------------------------------- */

static enum sonde_code refuse_value(const sonde_source *s, const struct source_side *side, uint64_t item,
                                    size_t column, float value, sonde_err *err)
{
    const char *what = isnan(value) ? "NaN" : "infinity";
    const sonde_corpus *c = s->corpus;
    if (!c)
        return sonde_fail(err, SONDE_E_NUMERIC, "%s: %s holds %s in row %" PRIu64 ", column %zu", s->path,
                          side->name, what, item, column);
    uint64_t lo = 0, hi = c->n_seqs;
    while (hi - lo > 1) {
        uint64_t mid = lo + (hi - lo) / 2;
        *(c->seq_start[mid] <= item ? &lo : &hi) = mid;
    }
    return sonde_fail(err, SONDE_E_NUMERIC,
                      "%s holds %s at document %d, position %" PRIu64 " of context %" PRIu64 ", column %zu",
                      side->name, what, (int)c->doc[item], item - c->seq_start[lo], lo, column);
}

static enum sonde_code check_side(const sonde_source *s, const struct source_side *side, const float *x,
                                  const struct source_rows *r, size_t first, sonde_err *err)
{
    if (sonde_all_finite(s->kernels, (r->n - first) * side->width, x + first * side->width))
        return SONDE_OK;
    for (size_t i = first; i < r->n; i++)
        for (size_t j = 0; j < side->width; j++)
            if (!isfinite(x[i * side->width + j]))
                return refuse_value(s, side, r->row[i], j, x[i * side->width + j], err);
    return SONDE_OK;
}

enum sonde_code source_check_finite(const sonde_source *s, const struct source_rows *r, size_t first,
                                    sonde_err *err)
{
    enum sonde_code code = check_side(s, &s->in, r->x, r, first, err);
    return code || !s->two ? code : check_side(s, &s->out, r->y, r, first, err);
}

/* Squared norm in eight lanes of fixed order. */
static double norm_sq(const float *x, size_t d)
{
    double lane[8] = {0};
    for (size_t i = 0; i < d; i++)
        lane[i % 8] += (double)x[i] * (double)x[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

bool source_norm_passes(const sonde_source *s, const struct source_rows *r, size_t i)
{
    return s->norm_limit == 0 || sqrt(norm_sq(r->x + i * s->in.width, s->in.width)) <= s->norm_limit;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Norms of the first rows of the split, in the order of the file or text. */
static enum sonde_code collect_norms(sonde_source *s, enum sonde_split split, struct source_rows *r,
                                     double *norm, size_t *n, const sonde_work *work, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    uint32_t list[SOURCE_BLOCK];
    for (uint64_t u = 0; u < s->n_units && *n < NORM_ROWS && !code;) {
        size_t n_list = 0, rows = 0;
        for (; u < s->n_units && n_list < SOURCE_BLOCK; u++) {
            size_t k = source_unit_rows(s, u, split);
            if (rows + k > r->cap)
                break;
            if (k)
                list[n_list++] = (uint32_t)u;
            rows += k;
        }
        r->n = 0;
        code = s->kind->append(s, list, n_list, split, r, work, err);
        if (!code)
            code = source_check_finite(s, r, 0, err);
        for (size_t i = 0; i < r->n && *n < NORM_ROWS && !code; i++)
            norm[(*n)++] = sqrt(norm_sq(r->x + i * s->in.width, s->in.width));
    }
    return code;
}

enum sonde_code source_find_norm_limit(sonde_source *s, const sonde_work *work, sonde_err *err)
{
    if (s->filter.f.max_norm == 0 || s->norm_known)
        return SONDE_OK;
    struct source_rows r = {0};
    size_t n = 0, cap = SOURCE_PASS_BYTES / (s->in.width * sizeof(float)) + 1;
    cap = cap > SOURCE_PASS_ROWS ? SOURCE_PASS_ROWS : cap;
    enum sonde_code code = source_rows_new(s, cap > s->largest ? cap : s->largest, &r, err);
    double *norm = code ? NULL : sonde_arena_get(r.arena, NORM_ROWS, sizeof *norm, err);
    if (!norm)
        code = SONDE_E_MEMORY;
    if (!code)
        code =
            collect_norms(s, s->marks.n_train ? SONDE_SPLIT_TRAIN : SONDE_SPLIT_ALL, &r, norm, &n, work, err);
    if (!code) {
        qsort(norm, n, sizeof *norm, by_size);
        s->norm_limit = s->filter.f.max_norm * (n ? norm[(n - 1) / 2] : 0);
        s->norm_known = true;
    }
    source_rows_free(&r);
    return code;
}
