/* SPDX-License-Identifier: MIT
 * Which rows take part: marks of two bits, sets of ids, the filter. */
#include <inttypes.h>
#include <stdlib.h>

#include "../base/size.h"
#include "source_impl.h"

enum sonde_code source_marks_new(struct source_marks *m, uint64_t n, sonde_arena *arena, sonde_err *err)
{
    *m = (struct source_marks){.n = n};
    m->bits = sonde_arena_get(arena, (size_t)(n / 4 + 1), 1, err);
    return m->bits ? SONDE_OK : SONDE_E_MEMORY;
}

void source_mark_set(struct source_marks *m, uint64_t i, enum source_mark mark)
{
    m->bits[i / 4] |= (uint8_t)((unsigned)mark << i % 4 * 2);
    m->n_train += mark == SOURCE_TRAIN;
    m->n_heldout += mark == SOURCE_HELDOUT;
}

void source_marks_tail(struct source_marks *m, uint64_t n, double holdout)
{
    uint64_t out = (uint64_t)((double)n * holdout);
    if (holdout > 0 && n > 1 && out == 0)
        out = 1;
    if (out >= n)
        out = n ? n - 1 : 0;
    *m = (struct source_marks){.n = n, .train_end = n - out, .n_train = n - out, .n_heldout = out};
}

size_t source_unit_rows(const sonde_source *s, uint64_t unit, enum sonde_split split)
{
    uint64_t first, n = source_unit_items(s, unit, &first);
    size_t rows = 0;
    for (uint64_t i = 0; i < n; i++)
        rows += source_mark_in(source_mark(&s->marks, first + i), split);
    return rows;
}

/* ---- sets of ids ------------------------------------------------------------------------------- */

static bool parse_id(const char **text, int32_t *out)
{
    char *end;
    if (**text < '0' || **text > '9')
        return false;
    unsigned long v = strtoul(*text, &end, 10);
    *text = end;
    *out = (int32_t)v;
    return v <= INT32_MAX;
}

enum sonde_code source_ids_parse(const char *text, const char *what, sonde_arena *arena, struct id_set *out,
                                 sonde_err *err)
{
    size_t n = 1;
    int64_t before = -1;
    for (const char *p = text; *p; p++)
        n += *p == ',';
    *out = (struct id_set){.range = sonde_arena_get(arena, n, sizeof *out->range, err)};
    if (!out->range)
        return SONDE_E_MEMORY;
    for (const char *p = text; *p; p += *p == ',') {
        struct id_range r;
        bool ok = parse_id(&p, &r.lo);
        r.hi = r.lo;
        if (ok && *p == '-') {
            p++;
            ok = parse_id(&p, &r.hi);
        }
        if (!ok || (*p && *p != ',') || r.lo <= before || r.hi < r.lo)
            return sonde_fail(err, SONDE_E_INPUT, "%s: special_ids is '%.80s', no ascending list of ids",
                              what, text);
        before = r.hi;
        out->range[out->n++] = r;
    }
    return SONDE_OK;
}

enum sonde_code source_ids_of_tokenizer(const sonde_tokenizer *t, sonde_arena *arena, struct id_set *out,
                                        sonde_err *err)
{
    size_t n = 0;
    bool before = false;
    *out = (struct id_set){0};
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t id = 0; id < sonde_tokenizer_size(t); id++) {
            bool special = sonde_tokenizer_is_special(t, id);
            if (pass == 0) {
                n += special;
            } else if (special) {
                if (before)
                    out->range[out->n - 1].hi = id;
                else
                    out->range[out->n++] = (struct id_range){id, id};
            }
            before = special;
        }
        before = false;
        if (pass == 0 && !(out->range = sonde_arena_get(arena, n + 1, sizeof *out->range, err)))
            return SONDE_E_MEMORY;
    }
    return SONDE_OK;
}

bool source_ids_has(const struct id_set *s, int32_t id)
{
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->range[mid].hi < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < s->n && s->range[lo].lo <= id;
}

static int by_value(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* ---- the filter -------------------------------------------------------------------------------- */

enum sonde_code source_filter_make(const sonde_row_filter *f, sonde_arena *arena, struct source_filter *out,
                                   sonde_err *err)
{
    *out = (struct source_filter){.f = *f, .bos_id = -1};
    if (f->max_norm != 0 && !(f->max_norm >= 1))
        return sonde_fail(err, SONDE_E_USAGE,
                          "rows over %g times the median norm cannot be left out, the least is 1",
                          f->max_norm);
    int32_t *id = sonde_arena_get(arena, f->n_ids + 1, sizeof *id, err);
    out->ids.range = sonde_arena_get(arena, f->n_ids + 1, sizeof *out->ids.range, err);
    if (!id || !out->ids.range)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < f->n_ids; i++)
        id[i] = f->ids[i];
    qsort(id, f->n_ids, sizeof *id, by_value);
    size_t n = 0;
    for (size_t i = 0; i < f->n_ids; i++)
        if (id[i] < 0)
            return sonde_fail(err, SONDE_E_USAGE, "no token has the id %d", (int)id[i]);
        else if (!n || id[i] != id[n - 1])
            id[n++] = id[i];
    for (size_t i = 0; i < n; i++)
        out->ids.range[i] = (struct id_range){id[i], id[i]};
    out->ids.n = out->f.n_ids = n;
    out->f.ids = id;
    return SONDE_OK;
}

bool source_filter_drops(const struct source_filter *f, int32_t id, int64_t pos)
{
    if (pos >= 0 && (uint64_t)pos < f->f.first)
        return true;
    if (id < 0)
        return false;
    return (f->f.bos && id == f->bos_id) || (f->f.special && source_ids_has(&f->special, id)) ||
           source_ids_has(&f->ids, id);
}
