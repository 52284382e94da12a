/* SPDX-License-Identifier: MIT
 * One pass over a split, in the order of the file or the text, through a buffer of its own. */
#include <string.h>

#include "source_impl.h"

static enum sonde_code make_room(sonde_source *s, sonde_err *err)
{
    struct source_pass *p = &s->pass;
    size_t width = s->in.width + (s->two ? s->out.width : 0),
           cap = SOURCE_PASS_BYTES / (width * sizeof(float)) + 1;
    if (p->rows.arena)
        return SONDE_OK;
    cap = cap > SOURCE_PASS_ROWS ? SOURCE_PASS_ROWS : cap;
    cap = cap > s->largest ? cap : s->largest;
    enum sonde_code code = source_rows_new(s, cap, &p->rows, err);
    if (!code && (!(p->rows.id = sonde_arena_get(p->rows.arena, cap, sizeof *p->rows.id, err)) ||
                  !(p->list = sonde_arena_get(p->rows.arena, cap, sizeof *p->list, err))))
        code = SONDE_E_MEMORY;
    if (code)
        source_rows_free(&p->rows);
    return code;
}

enum sonde_code sonde_source_pass_begin(sonde_source *s, enum sonde_split split, sonde_err *err)
{
    enum sonde_code code = make_room(s, err);
    if (code)
        return code;
    s->pass.begun = true;
    s->pass.split = split;
    s->pass.unit = 0;
    s->pass.rows.n = s->pass.given = 0;
    return SONDE_OK;
}

/* Rows that pass the norm filter, moved together. */
static void drop_outliers(sonde_source *s, struct source_rows *r)
{
    size_t n = 0;
    if (s->norm_limit == 0)
        return;
    for (size_t i = 0; i < r->n; i++) {
        if (!source_norm_passes(s, r, i))
            continue;
        if (n != i) {
            memcpy(r->x + n * s->in.width, r->x + i * s->in.width, s->in.width * sizeof *r->x);
            if (s->two)
                memcpy(r->y + n * s->out.width, r->y + i * s->out.width, s->out.width * sizeof *r->y);
            r->row[n] = r->row[i];
            r->token[n] = r->token[i];
            r->id[n] = r->id[i];
        }
        n++;
    }
    r->n = n;
}

/* As many units as fit. */
static enum sonde_code fill(sonde_source *s, const sonde_work *work, sonde_err *err)
{
    struct source_pass *p = &s->pass;
    uint64_t unit = p->unit;
    size_t n = 0;
    for (size_t rows = 0; unit < s->n_units; unit++) {
        size_t k = source_unit_rows(s, unit, p->split);
        if (rows + k > p->rows.cap)
            break;
        if (k)
            p->list[n++] = (uint32_t)unit;
        rows += k;
    }
    p->rows.n = p->given = 0;
    enum sonde_code code = s->kind->append(s, p->list, n, p->split, &p->rows, work, err);
    if (!code)
        code = source_check_finite(s, &p->rows, 0, err);
    if (code) {
        p->rows.n = 0;
        return code;
    }
    p->unit = unit;
    drop_outliers(s, &p->rows);
    return SONDE_OK;
}

enum sonde_code sonde_source_pass_next(sonde_source *s, size_t max_rows, sonde_pass_rows *out,
                                       const sonde_work *work, sonde_err *err)
{
    struct source_pass *p = &s->pass;
    const struct source_rows *r = &p->rows;
    if (!p->begun)
        return sonde_fail(err, SONDE_E_USAGE, "no pass was begun");
    if (s->filter.f.max_norm != 0 && !s->norm_known) {
        source_ahead_settle(s);
        enum sonde_code code = source_find_norm_limit(s, work, err);
        if (code)
            return code;
    }
    while (p->given == r->n && p->unit < s->n_units) {
        enum sonde_code code = fill(s, work, err);
        if (code)
            return code;
    }
    size_t at = p->given, n = r->n - at < max_rows ? r->n - at : max_rows;
    p->given += n;
    *out = (sonde_pass_rows){.n = n,
                             .x = r->x + at * s->in.width,
                             .y = s->two ? r->y + at * s->out.width : r->x + at * s->in.width,
                             .row = r->row + at,
                             .token = r->token + at,
                             .id = r->id + at};
    return SONDE_OK;
}

void source_pass_free(sonde_source *s)
{
    source_rows_free(&s->pass.rows);
    s->pass.begun = false;
}
