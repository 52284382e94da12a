/* SPDX-License-Identifier: MIT */
#include "corpus.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../base/hash.h"
#include "../file/npy.h"
#include "corpus_impl.h"

#define HASH_PIECE ((size_t)16 << 20)

static enum sonde_code hash_source(struct packer *p, const sonde_map *m, sonde_err *err)
{
    sonde_sha256 s;
    sonde_sha256_begin(&s);
    for (size_t at = 0, n; at < m->n_bytes; at += n) {
        n = m->n_bytes - at < HASH_PIECE ? m->n_bytes - at : HASH_PIECE;
        sonde_sha256_add(&s, m->data + at, n);
        sonde_work_report(p->work, "hashing", "bytes", at + n, m->n_bytes);
        if (sonde_work_stopped(p->work))
            return sonde_fail(err, SONDE_E_STOPPED, "%s: stopped while hashing", p->path);
    }
    sonde_sha256_end(&s, p->pub.sha256);
    return SONDE_OK;
}

static enum sonde_code read_text(struct packer *p, const sonde_tokenizer *tokenizer, sonde_err *err)
{
    sonde_map *m;
    enum sonde_code rc = sonde_map_open(p->path, &m, err);
    if (rc != SONDE_OK)
        return rc;
    rc = hash_source(p, m, err);
    if (rc == SONDE_OK)
        rc = p->o->text_path ? sonde_split_text(p, m, err) : sonde_split_jsonl(p, m, err);
    if (rc == SONDE_OK)
        rc = sonde_encode_documents(p, m, tokenizer, err);
    sonde_map_close(m);
    return rc;
}

/* An array [n] is one document, [documents, context] one per row. */
static enum sonde_code read_ids(struct packer *p, sonde_err *err)
{
    sonde_tensors *f;
    enum sonde_code rc = sonde_npy_open(p->path, p->work ? p->work->budget : NULL, &f, err);
    if (rc != SONDE_OK)
        return rc;
    const sonde_tensor *t = f->tensor;
    if ((t->dtype != SONDE_I32 && t->dtype != SONDE_I64) || t->rank < 1 || t->rank > 2) {
        char shape[128];
        rc = sonde_fail(err, SONDE_E_INPUT,
                        "%s: is %s %s, ids are int32 or int64, [n] or [documents, context]", p->path,
                        sonde_dtype_name(t->dtype), sonde_shape_text(t->dim, t->rank, shape, sizeof shape));
        goto out;
    }
    rc = hash_source(p, f->map[0], err);
    size_t n_docs = t->rank == 2 ? (size_t)t->dim[0] : 1, n = (size_t)t->dim[t->rank - 1],
           size = sonde_dtype_size(t->dtype);
    if (n == 0)
        n_docs = 0;
    for (size_t d = 0; d < n_docs && rc == SONDE_OK && !sonde_pack_full(p); d++) {
        struct ids ids = {(const unsigned char *)t->data + d * n * size, t->dtype == SONDE_I64, n, d * n};
        rc = sonde_pack_range(p, (int64_t)(d * n), (int64_t)(d * n + n), err);
        if (rc == SONDE_OK)
            rc = sonde_pack_document(p, (int32_t)d, &ids, err);
    }
out:
    sonde_tensors_close(f);
    return rc;
}

/* The id that the policy puts before documents, or -1. */
static enum sonde_code choose_bos(struct packer *p, const sonde_tokenizer *t, sonde_err *err)
{
    const sonde_corpus_options *o = p->o;
    p->bos = -1;
    bool wanted = o->bos == SONDE_BOS_ALWAYS ||
                  (o->bos == SONDE_BOS_AUTO && !o->ids_path && sonde_tokenizer_adds_bos(t));
    if (!wanted)
        return SONDE_OK;
    p->bos = t ? sonde_tokenizer_bos_id(t) : -1;
    if (p->bos < 0 && o->bos == SONDE_BOS_ALWAYS)
        return sonde_fail(err, SONDE_E_USAGE, "a BOS is to begin every document, but %s",
                          t ? "the tokenizer has none" : "without a tokenizer it is not known");
    if (p->bos >= p->id_bound)
        return sonde_fail(err, SONDE_E_INPUT,
                          "the tokenizer's BOS is %" PRId32 ", the model's vocabulary has %" PRId64
                          "; they do not belong together",
                          p->bos, p->id_bound);
    if (p->bos >= 0 && o->packing == SONDE_PACK_DOC && o->n_context < 2)
        return sonde_fail(err, SONDE_E_USAGE, "a context of %zu tokens has no room behind its BOS",
                          o->n_context);
    return SONDE_OK;
}

static enum sonde_code check_options(const sonde_corpus_options *o, const sonde_tokenizer *t, sonde_err *err)
{
    if (!!o->text_path + !!o->jsonl_path + !!o->ids_path != 1)
        return sonde_fail(err, SONDE_E_USAGE, "name one of text, JSON lines and ids");
    if (!t && !o->ids_path)
        return sonde_fail(err, SONDE_E_USAGE, "%s: needs a tokenizer",
                          o->text_path ? o->text_path : o->jsonl_path);
    if (o->n_context == 0 || o->n_context > INT32_MAX || o->n_vocab < 0)
        return sonde_fail(err, SONDE_E_USAGE, "a context of %zu tokens, it must be 1 to %d", o->n_context,
                          INT32_MAX);
    if (o->separator && strpbrk(o->separator, "\r\n"))
        return sonde_fail(err, SONDE_E_USAGE, "the separator is one line, it cannot have a line break");
    return SONDE_OK;
}

enum sonde_code sonde_corpus_read(const sonde_corpus_options *o, const sonde_tokenizer *tokenizer,
                                  const sonde_work *work, sonde_corpus **out, sonde_err *err)
{
    enum sonde_code rc = check_options(o, tokenizer, err);
    if (rc != SONDE_OK)
        return rc;
    struct packer *p = calloc(1, sizeof *p);
    if (!p)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a corpus");
    p->o = o;
    p->work = work;
    p->path = o->text_path ? o->text_path : o->jsonl_path ? o->jsonl_path : o->ids_path;
    p->max = o->max_tokens ? o->max_tokens : UINT64_MAX;
    p->id_bound = o->n_vocab ? o->n_vocab : (int64_t)INT32_MAX + 1;
    p->id.budget = p->doc.budget = p->seq.budget = p->range.budget = work ? work->budget : NULL;
    rc = choose_bos(p, tokenizer, err);
    if (rc == SONDE_OK)
        rc = o->ids_path ? read_ids(p, err) : read_text(p, tokenizer, err);
    if (rc == SONDE_OK)
        rc = sonde_pack_finish(p, err);
    if (rc == SONDE_OK)
        *out = &p->pub;
    else
        sonde_corpus_free(&p->pub);
    return rc;
}

void sonde_corpus_free(sonde_corpus *c)
{
    if (!c)
        return;
    struct packer *p = (struct packer *)c;
    sonde_grow_free(&p->id);
    sonde_grow_free(&p->doc);
    sonde_grow_free(&p->seq);
    sonde_grow_free(&p->range);
    free(p);
}
