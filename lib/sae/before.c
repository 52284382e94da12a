/* SPDX-License-Identifier: MIT */
#include "before_impl.h"

#include "source_impl.h"

void before_begin(struct before *b, sonde_source *s)
{
    size_t pos = s->store && s->row_token != SIZE_MAX ? sonde_store_find(s->store, "/tokens/pos") : SIZE_MAX;
    b->s = s;
    b->n = 0;
    b->pos = SIZE_MAX;
    if (pos == SIZE_MAX || s->token_id == SIZE_MAX || sonde_store_unreadable(s->store, pos))
        return;
    const sonde_store_dataset *d = sonde_store_dataset_at(s->store, pos);
    if (d->dtype == SONDE_I32 && d->rank == 1 && d->dim[0] == s->n_tokens)
        b->pos = pos;
}

/* The context of token t begins at the last start that is not after it. */
static bool begins_context(const sonde_corpus *c, uint64_t t)
{
    uint64_t lo = 0, hi = c->n_seqs;
    while (hi - lo > 1) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (c->seq_start[mid] <= t)
            lo = mid;
        else
            hi = mid;
    }
    return c->seq_start[lo] == t;
}

/* The block of tokens around t: position 0 begins a context. */
static enum sonde_code read_block(struct before *b, uint64_t t, sonde_err *err)
{
    int32_t id[BEFORE_BLOCK + 1] = {0}, pos[BEFORE_BLOCK];
    const uint64_t first = t / BEFORE_BLOCK * BEFORE_BLOCK, left = b->s->n_tokens - first;
    const size_t n = left < BEFORE_BLOCK ? (size_t)left : BEFORE_BLOCK, one = first > 0;
    enum sonde_code code = sonde_store_read(b->s->store, b->pos, first, n, pos, err);
    if (!code) /* id[i] is the token before first + i */
        code = sonde_store_read(b->s->store, b->s->token_id, first - one, n - 1 + one, id + 1 - one, err);
    if (code)
        return code;
    for (size_t i = 0; i < n; i++)
        b->before[i] = pos[i] > 0 ? id[i] : -1;
    if (!one)
        b->before[0] = -1;
    b->first = first;
    b->n = n;
    return SONDE_OK;
}

enum sonde_code before_find(struct before *b, uint64_t t, int32_t *id, sonde_err *err)
{
    const sonde_corpus *c = b->s->corpus;
    enum sonde_code code;
    *id = -1;
    if (c && t < c->n_tokens && !begins_context(c, t))
        *id = c->id[t - 1];
    if (b->pos == SIZE_MAX || t >= b->s->n_tokens)
        return SONDE_OK;
    if ((!b->n || t < b->first || t - b->first >= b->n) && (code = read_block(b, t, err)))
        return code;
    *id = b->before[t - b->first];
    return SONDE_OK;
}
