/* SPDX-License-Identifier: MIT
 * Ids of documents into contexts. */
#include <inttypes.h>
#include <string.h>

#include "../base/size.h"
#include "corpus_impl.h"

#define PIECE ((size_t)1 << 20) /* tokens between two looks at the stop flag */

enum sonde_code sonde_pack_range(struct packer *p, int64_t begin, int64_t end, sonde_err *err)
{
    size_t n = (size_t)p->pub.n_docs;
    if (n >= INT32_MAX)
        return sonde_fail(err, SONDE_E_INPUT, "%s: more than %d documents", p->path, INT32_MAX);
    enum sonde_code rc = sonde_grow_reserve(&p->range, n + 1, 2 * sizeof(int64_t), err);
    if (rc != SONDE_OK)
        return rc;
    int64_t *range = p->range.p;
    range[2 * n] = begin;
    range[2 * n + 1] = end;
    p->pub.n_docs = n + 1;
    return SONDE_OK;
}

/* Copy ids [at, at + n) to out; returns the number of those before the first that is outside [0, bound). */
static size_t copy_ids(const struct ids *ids, size_t at, size_t n, int64_t bound, int32_t *out)
{
    const unsigned char *p = ids->p;
    for (size_t i = 0; i < n; i++) {
        int64_t v;
        int32_t narrow;
        if (ids->wide) {
            memcpy(&v, p + 8 * (at + i), 8);
        } else {
            memcpy(&narrow, p + 4 * (at + i), 4);
            v = narrow;
        }
        if (v < 0 || v >= bound)
            return i;
        out[i] = (int32_t)v;
    }
    return n;
}

static int64_t id_at(const struct ids *ids, size_t at)
{
    int64_t v;
    int32_t narrow;
    if (ids->wide) {
        memcpy(&v, (const unsigned char *)ids->p + 8 * at, 8);
        return v;
    }
    memcpy(&narrow, (const unsigned char *)ids->p + 4 * at, 4);
    return narrow;
}

static enum sonde_code bad_id(const struct packer *p, int32_t d, const struct ids *ids, size_t at,
                              sonde_err *err)
{
    if (p->o->ids_path)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: the id %" PRId64 " at index %zu is outside [0, %" PRId64 ")", p->path,
                          id_at(ids, at), ids->first + at, p->id_bound);
    return sonde_fail(err, SONDE_E_INPUT,
                      "%s: document %" PRId32 " has the token %" PRId64
                      ", the model's vocabulary has %" PRId64 "; tokenizer and model do not belong together",
                      p->path, d, id_at(ids, at), p->id_bound);
}

/* Make room for n more tokens, look at the stop flag now and then. */
static enum sonde_code room(struct packer *p, size_t n, sonde_err *err)
{
    size_t sum;
    p->n_since += n;
    if (p->n_since >= PIECE) {
        p->n_since = 0;
        if (sonde_work_stopped(p->work))
            return sonde_fail(err, SONDE_E_STOPPED, "%s: stopped while reading", p->path);
        if (p->o->ids_path)
            sonde_work_report(p->work, "reading ids", "tokens", p->pub.n_tokens, 0);
    }
    if (!sonde_add(&sum, (size_t)p->pub.n_tokens, n))
        sum = SIZE_MAX;
    enum sonde_code rc = sonde_grow_reserve(&p->id, sum, sizeof(int32_t), err);
    return rc == SONDE_OK ? sonde_grow_reserve(&p->doc, sum, sizeof(int32_t), err) : rc;
}

static void put_doc(struct packer *p, int32_t d, size_t n)
{
    int32_t *doc = (int32_t *)p->doc.p + p->pub.n_tokens;
    for (size_t i = 0; i < n; i++)
        doc[i] = d;
    p->pub.n_tokens += n;
}

/* BOS, then ids [at, at + n): what fits under the limit. */
static enum sonde_code put(struct packer *p, int32_t d, bool bos, const struct ids *ids, size_t at, size_t n,
                           sonde_err *err)
{
    uint64_t left = p->max - p->pub.n_tokens;
    bos = bos && left > 0;
    if (n > left - bos)
        n = (size_t)(left - bos);
    enum sonde_code rc = room(p, n + bos, err);
    if (rc != SONDE_OK)
        return rc;
    if (bos) {
        ((int32_t *)p->id.p)[p->pub.n_tokens] = p->bos;
        put_doc(p, d, 1);
    }
    size_t good = copy_ids(ids, at, n, p->id_bound, (int32_t *)p->id.p + p->pub.n_tokens);
    if (good < n)
        return bad_id(p, d, ids, at + good, err);
    put_doc(p, d, n);
    return SONDE_OK;
}

static enum sonde_code begin_context(struct packer *p, sonde_err *err)
{
    size_t n = (size_t)p->pub.n_seqs;
    enum sonde_code rc = sonde_grow_reserve(&p->seq, n + 2, sizeof(uint64_t), err); /* and one for the end */
    if (rc != SONDE_OK)
        return rc;
    ((uint64_t *)p->seq.p)[n] = p->pub.n_tokens;
    p->pub.n_seqs = n + 1;
    return SONDE_OK;
}

enum sonde_code sonde_pack_document(struct packer *p, int32_t d, const struct ids *ids, sonde_err *err)
{
    bool concat = p->o->packing == SONDE_PACK_CONCAT;
    size_t step = concat ? PIECE : p->o->n_context;
    enum sonde_code rc = SONDE_OK;
    for (size_t at = 0, n; at < ids->n && !sonde_pack_full(p) && rc == SONDE_OK; at += n) {
        /* never two: a text that begins with BOS itself has it already */
        bool bos = p->bos >= 0 && id_at(ids, at) != p->bos && (at == 0 || !concat);
        n = step - (bos && !concat);
        if (n > ids->n - at)
            n = ids->n - at;
        if (!concat)
            rc = begin_context(p, err);
        if (rc == SONDE_OK)
            rc = put(p, d, bos, ids, at, n, err);
    }
    return rc;
}

enum sonde_code sonde_pack_finish(struct packer *p, sonde_err *err)
{
    uint64_t n = p->pub.n_tokens, step = p->o->n_context;
    if (n == 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: there %s in it", p->path,
                          p->o->ids_path ? "are no ids" : "is no text");
    if (p->o->packing == SONDE_PACK_CONCAT) {
        size_t n_seqs = (size_t)(n / step + (n % step != 0));
        enum sonde_code rc = sonde_grow_reserve(&p->seq, n_seqs + 1, sizeof(uint64_t), err);
        if (rc != SONDE_OK)
            return rc;
        for (size_t i = 0; i < n_seqs; i++)
            ((uint64_t *)p->seq.p)[i] = i * step;
        p->pub.n_seqs = n_seqs;
    }
    ((uint64_t *)p->seq.p)[p->pub.n_seqs] = n;
    if (sonde_pack_full(p))
        p->pub.n_docs = (uint64_t)((int32_t *)p->doc.p)[n - 1] + 1;
    sonde_grow_trim(&p->id, (size_t)n, sizeof(int32_t));
    sonde_grow_trim(&p->doc, (size_t)n, sizeof(int32_t));
    sonde_grow_trim(&p->seq, (size_t)p->pub.n_seqs + 1, sizeof(uint64_t));
    sonde_grow_trim(&p->range, (size_t)p->pub.n_docs, 2 * sizeof(int64_t));
    p->pub.id = p->id.p;
    p->pub.doc = p->doc.p;
    p->pub.seq_start = p->seq.p;
    p->pub.doc_range = p->range.p;
    return SONDE_OK;
}
