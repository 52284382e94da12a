/* SPDX-License-Identifier: MIT
 * The datasets of acts.h5, and those that are written before the first activation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "capture_impl.h"

#define CHUNK 65536

static size_t add(struct layout *l, const char *path, enum sonde_dtype t, int rank, const uint64_t *dim)
{
    sonde_store_dataset *d = &l->dataset[l->n_datasets];
    size_t bytes;
    snprintf(l->path[l->n_datasets], sizeof *l->path, "%s", path);
    *d = (sonde_store_dataset){.path = l->path[l->n_datasets], .dtype = t, .rank = rank};
    memcpy(d->dim, dim, (size_t)rank * sizeof *dim);
    if (!sonde_nbytes(&bytes, dim, rank, sonde_dtype_size(t)) ||
        __builtin_add_overflow(l->data_bytes, bytes, &l->data_bytes))
        l->data_bytes = UINT64_MAX;
    return l->n_datasets++;
}

static void add_hook(struct layout *l, const sonde_model *m, const struct plan *p, size_t i)
{
    sonde_hook h = p->o->hooks->hook[i];
    char name[SONDE_HOOK_NAME_MAX], path[96];
    const sonde_arch *a = &m->arch;
    sonde_hook_name(h, name);
    l->stat[i] = SIZE_MAX;
    if (sonde_site_is_square(h.site)) {
        uint64_t longest = 0, n = p->corpus->n_seqs < p->o->max_seqs ? p->corpus->n_seqs : p->o->max_seqs;
        for (uint64_t s = 0; s < n; s++)
            if (context_length(p->corpus, s) > longest)
                longest = context_length(p->corpus, s);
        uint64_t dim[4] = {n, a->n_heads, longest, longest};
        snprintf(path, sizeof path, "/attn/%s", name);
        l->hook[i] = add(l, path, p->o->dtype, 4, dim);
        return;
    }
    uint64_t dim[3] = {p->n_rows, 1, 1};
    int rank = 1 + sonde_site_shape(a, h.site, dim + 1);
    snprintf(path, sizeof path, "/acts/%s", name);
    l->hook[i] = add(l, path, p->o->dtype, rank, dim);
    static const char *const parts[] = {"mean", "var", "mean_norm", "mean_sq_norm", "count"};
    for (size_t k = 0; k < 5; k++) {
        uint64_t n = k < 2 ? sonde_site_width(a, h.site) : 1;
        snprintf(path, sizeof path, "/stats/%s/%s", name, parts[k]);
        size_t at = add(l, path, k == 4 ? SONDE_I64 : SONDE_F64, 1, &n);
        if (k == 0)
            l->stat[i] = at;
    }
}

static uint64_t vocabulary_bytes(const sonde_model *m, const sonde_tokenizer *t)
{
    uint64_t total = 0;
    for (int32_t id = 0; id < sonde_tokenizer_size(t) && (size_t)id < m->arch.n_vocab; id++) {
        size_t n;
        sonde_tokenizer_bytes(t, id, &n);
        total += n;
    }
    return total;
}

enum sonde_code layout_make(const sonde_model *m, const struct plan *p, const sonde_tokenizer *t,
                            struct layout *l, sonde_err *err)
{
    size_t n_hooks = p->o->hooks->n;
    const sonde_corpus *c = p->corpus;
    *l = (struct layout){.loss = SIZE_MAX,
                         .logits_id = SIZE_MAX,
                         .logits_logprob = SIZE_MAX,
                         .vocab_bytes = SIZE_MAX,
                         .vocab_offset = SIZE_MAX,
                         .row_token = SIZE_MAX};
    l->cap = 6 * n_hooks + 16;
    l->dataset = calloc(l->cap, sizeof *l->dataset);
    l->path = calloc(l->cap, sizeof *l->path);
    l->hook = calloc(n_hooks + 1, sizeof *l->hook);
    l->stat = calloc(n_hooks + 1, sizeof *l->stat);
    if (!l->dataset || !l->path || !l->hook || !l->stat)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu datasets", l->cap);
    for (size_t i = 0; i < n_hooks; i++)
        add_hook(l, m, p, i);
    const uint64_t rows[1] = {p->n_rows}, tokens[2] = {c->n_tokens, p->o->n_logits},
                   range[2] = {c->n_docs, 2};
    l->row_token = add(l, "/rows/token", SONDE_I64, 1, rows);
    l->id = add(l, "/tokens/id", SONDE_I32, 1, tokens);
    l->pos = add(l, "/tokens/pos", SONDE_I32, 1, tokens);
    l->doc = add(l, "/tokens/doc", SONDE_I32, 1, tokens);
    l->seq = add(l, "/tokens/seq", SONDE_I32, 1, tokens);
    l->docs_range = add(l, "/docs/range", SONDE_I64, 2, range);
    l->docs_split = add(l, "/docs/split", SONDE_U8, 1, range);
    if (p->o->loss)
        l->loss = add(l, "/loss", SONDE_F32, 1, tokens);
    if (p->o->n_logits) {
        l->logits_id = add(l, "/logits/id", SONDE_I32, 2, tokens);
        l->logits_logprob = add(l, "/logits/logprob", SONDE_F32, 2, tokens);
    }
    if (t) {
        const uint64_t bytes = vocabulary_bytes(m, t), n = m->arch.n_vocab + 1;
        l->vocab_bytes = add(l, "/vocab/bytes", SONDE_U8, 1, &bytes);
        l->vocab_offset = add(l, "/vocab/offset", SONDE_I64, 1, &n);
    }
    return SONDE_OK;
}

void layout_free(struct layout *l)
{
    free(l->dataset);
    free(l->path);
    free(l->hook);
    free(l->stat);
    *l = (struct layout){0};
}

/* ---- what the file says of itself --------------------------------------------------------------- */

/* "0-2,50256": at most 24 bytes for a range of ids. */
static char *special_ids(const sonde_tokenizer *t)
{
    size_t n = 0, at = 0;
    for (int32_t id = 0; id < sonde_tokenizer_size(t); id++)
        n += sonde_tokenizer_is_special(t, id);
    char *text = malloc(24 * n + 1);
    if (!text)
        return NULL;
    text[0] = '\0';
    for (int32_t id = 0, end; id < sonde_tokenizer_size(t); id = end) {
        for (end = id; end < sonde_tokenizer_size(t) && sonde_tokenizer_is_special(t, end); end++)
            ;
        if (end == id)
            end++;
        else if (end == id + 1)
            at += (size_t)sprintf(text + at, "%s%d", at ? "," : "", (int)id);
        else
            at += (size_t)sprintf(text + at, "%s%d-%d", at ? "," : "", (int)id, (int)end - 1);
    }
    return text;
}

enum sonde_code layout_attrs(const sonde_capture_options *o, const sonde_tokenizer *t, sonde_store_attr **attr,
                             size_t *n, char **text, sonde_err *err)
{
    *n = o->n_attrs;
    *text = t ? special_ids(t) : NULL;
    *attr = malloc((o->n_attrs + 2) * sizeof **attr);
    if (!*attr || (t && !*text))
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for attributes");
    for (size_t i = 0; i < o->n_attrs; i++)
        (*attr)[i] = o->attr[i];
    if (t) {
        (*attr)[(*n)++] = (sonde_store_attr){.path = "/", .name = "bos_id", .i = sonde_tokenizer_bos_id(t)};
        (*attr)[(*n)++] = (sonde_store_attr){.path = "/", .name = "special_ids", .s = *text};
    }
    return SONDE_OK;
}

/* ---- what is known before the model runs ------------------------------------------------------- */

static enum sonde_code write_vocabulary(const sonde_model *m, const sonde_tokenizer *t,
                                        const struct layout *l, sonde_store_writer *w, sonde_err *err)
{
    size_t v = m->arch.n_vocab, total = (size_t)l->dataset[l->vocab_bytes].dim[0];
    int64_t *offset = malloc((v + 1) * sizeof *offset);
    char *bytes = malloc(total ? total : 1);
    enum sonde_code code = SONDE_OK;
    size_t at = 0;
    if (!offset || !bytes)
        code = sonde_fail(err, SONDE_E_MEMORY, "no memory for a vocabulary of %zu tokens", v);
    for (size_t id = 0; id < v && !code; id++) {
        size_t n = 0;
        const char *s = id < (size_t)sonde_tokenizer_size(t) ? sonde_tokenizer_bytes(t, (int32_t)id, &n) : "";
        offset[id] = (int64_t)at;
        memcpy(bytes + at, s, n);
        at += n;
    }
    if (!code) {
        offset[v] = (int64_t)at;
        code = sonde_store_write(w, l->vocab_offset, 0, v + 1, offset, err);
    }
    if (!code && at)
        code = sonde_store_write(w, l->vocab_bytes, 0, at, bytes, err);
    free(offset);
    free(bytes);
    return code;
}

/* pos and seq of every token, a chunk at a time. */
static enum sonde_code write_positions(const struct plan *p, const struct layout *l, sonde_store_writer *w,
                                       sonde_err *err)
{
    const sonde_corpus *c = p->corpus;
    int32_t *pos = malloc(CHUNK * sizeof *pos), *seq = malloc(CHUNK * sizeof *seq);
    enum sonde_code code = pos && seq ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "no memory for positions");
    uint64_t s = 0;
    for (uint64_t at = 0; at < c->n_tokens && !code; at += CHUNK) {
        uint64_t n = c->n_tokens - at < CHUNK ? c->n_tokens - at : CHUNK;
        for (uint64_t i = 0; i < n; i++) {
            while (at + i >= c->seq_start[s + 1])
                s++;
            pos[i] = (int32_t)(at + i - c->seq_start[s]);
            seq[i] = (int32_t)s;
        }
        code = sonde_store_write(w, l->pos, at, n, pos, err);
        if (!code)
            code = sonde_store_write(w, l->seq, at, n, seq, err);
    }
    free(pos);
    free(seq);
    return code;
}

/* /rows/token, window by window. */
static enum sonde_code write_row_map(const struct plan *p, const struct layout *l, sonde_store_writer *w,
                                     sonde_err *err)
{
    const sonde_corpus *c = p->corpus;
    uint32_t *perm = malloc(SONDE_CAPTURE_WINDOW * sizeof *perm);
    int64_t *token = malloc(SONDE_CAPTURE_WINDOW * sizeof *token);
    enum sonde_code code =
        perm && token ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "no memory for a window of rows");
    uint64_t place = 0;
    for (uint64_t at = 0; at < p->n_rows && !code; at += SONDE_CAPTURE_WINDOW) {
        uint64_t n = p->n_rows - at < SONDE_CAPTURE_WINDOW ? p->n_rows - at : SONDE_CAPTURE_WINDOW;
        plan_window(p, at / SONDE_CAPTURE_WINDOW, perm, (uint32_t)n);
        for (uint64_t i = 0; i < n; i++) {
            while (at + i >= p->first_kept[place + 1])
                place++;
            uint64_t pos = p->o->skip_first + at + i - p->first_kept[place];
            token[perm[i]] = (int64_t)(c->seq_start[context_at(p, place)] + pos);
        }
        code = sonde_store_write(w, l->row_token, at, n, token, err);
    }
    free(perm);
    free(token);
    return code;
}

enum sonde_code layout_write_tokens(const sonde_model *m, const struct plan *p, const sonde_tokenizer *t,
                                    const struct layout *l, sonde_store_writer *w, sonde_err *err)
{
    const sonde_corpus *c = p->corpus;
    enum sonde_code code;
    if ((code = sonde_store_write(w, l->id, 0, c->n_tokens, c->id, err)) ||
        (code = sonde_store_write(w, l->doc, 0, c->n_tokens, c->doc, err)) ||
        (code = sonde_store_write(w, l->docs_range, 0, c->n_docs, c->doc_range, err)) ||
        (code = sonde_store_write(w, l->docs_split, 0, c->n_docs, p->split, err)) ||
        (code = write_positions(p, l, w, err)) || (code = write_row_map(p, l, w, err)))
        return code;
    return t ? write_vocabulary(m, t, l, w, err) : SONDE_OK;
}
