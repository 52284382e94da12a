/* SPDX-License-Identifier: MIT
 * Whether a capture is possible, how large its batches are, and what it will take. */
#include <inttypes.h>

#include "../base/size.h"
#include "capture_impl.h"

#define BATCH_TOKENS 512
#define SUMS_BYTES   ((size_t)16 << 20) /* of the contexts of one batch, for each thread */

size_t longest_context(const sonde_corpus *c)
{
    uint64_t longest = 0;
    for (uint64_t s = 0; s < c->n_seqs; s++)
        if (context_length(c, s) > longest)
            longest = context_length(c, s);
    return (size_t)longest;
}

enum sonde_code check_options(const sonde_model *m, const sonde_corpus *c, const sonde_capture_options *o,
                              const struct plan *p, sonde_err *err)
{
    size_t longest = longest_context(c);
    bool rows = o->loss || o->n_logits;
    if (!o->hooks->n && !rows)
        return sonde_fail(err, SONDE_E_USAGE, "nothing to store: no hook, no loss, no logits");
    if (longest > m->arch.n_ctx)
        return sonde_fail(err, SONDE_E_USAGE, "contexts of %zu tokens, this model's longest is %zu", longest,
                          m->arch.n_ctx);
    if (o->n_logits > m->arch.n_vocab_out)
        return sonde_fail(err, SONDE_E_USAGE, "%zu logits per token, this model has %zu", o->n_logits,
                          m->arch.n_vocab_out);
    for (size_t i = 0; i < o->hooks->n; i++) {
        char name[SONDE_HOOK_NAME_MAX];
        sonde_hook h = o->hooks->hook[i];
        if (sonde_site_is_square(h.site) && !o->max_seqs)
            return sonde_fail(err, SONDE_E_USAGE,
                              "%s is stored for whole contexts: say for how many (--max-seqs)",
                              sonde_hook_name(h, name));
        rows = rows || !sonde_site_is_square(h.site);
    }
    if (rows && !p->n_rows)
        return sonde_fail(err, SONDE_E_USAGE,
                          "no token is left: the longest context has %zu, the first %zu are skipped", longest,
                          o->skip_first);
    for (uint64_t i = 0; i < c->n_tokens; i++)
        if (c->id[i] < 0 || (size_t)c->id[i] >= m->arch.n_vocab)
            return sonde_fail(err, SONDE_E_INPUT,
                              "token %" PRIu64 " has id %d, this model's vocabulary is %zu", i, (int)c->id[i],
                              m->arch.n_vocab);
    return SONDE_OK;
}

/* ---- batches ----------------------------------------------------------------------------------- */

uint64_t row_bytes(const struct engine *e)
{
    uint64_t n = 0;
    for (size_t i = 0; i < e->o->hooks->n; i++)
        if (!sonde_site_is_square(e->o->hooks->hook[i].site))
            n += sonde_site_width(&e->m->arch, e->o->hooks->hook[i].site) * sonde_dtype_size(e->o->dtype);
    return n;
}

size_t staging_bytes(const struct engine *e)
{
    size_t widest = 1;
    for (size_t i = 0; i < e->o->hooks->n; i++) {
        enum sonde_site s = e->o->hooks->hook[i].site;
        if (!sonde_site_is_square(s) && sonde_site_width(&e->m->arch, s) > widest)
            widest = sonde_site_width(&e->m->arch, s);
    }
    return widest * e->max_tokens * sizeof(float);
}

size_t square_bytes(const struct engine *e, size_t *longest)
{
    size_t most = 0;
    *longest = 0;
    for (size_t i = 0; i < e->o->hooks->n; i++) {
        const sonde_store_dataset *d = &e->layout.dataset[e->layout.hook[i]];
        size_t bytes;
        if (!sonde_site_is_square(e->o->hooks->hook[i].site))
            continue;
        if (!sonde_nbytes(&bytes, d->dim + 1, d->rank - 1, sonde_dtype_size(d->dtype)))
            bytes = SIZE_MAX;
        most = bytes > most ? bytes : most;
        *longest = (size_t)d->dim[2];
    }
    return most;
}

/* Where the next batch ends: as many whole contexts as fit, at least one. */
uint64_t batch_end(const struct engine *e, uint64_t place)
{
    uint64_t n = 0, begin = place, most = SUMS_BYTES / (state_bytes(e->m, e->o->hooks) + 1) + 1;
    for (; place < e->corpus->n_seqs && place - begin < most; place++) {
        uint64_t len = context_length(e->corpus, context_at(&e->plan, place));
        if (n && n + len > e->max_tokens)
            break;
        n += len;
    }
    return place;
}

void size_batches(struct engine *e)
{
    size_t longest = longest_context(e->corpus), n = e->o->batch_tokens ? e->o->batch_tokens : BATCH_TOKENS;
    e->max_tokens = n < e->corpus->n_tokens ? n : (size_t)e->corpus->n_tokens;
    e->max_tokens = e->max_tokens > longest ? e->max_tokens : longest;
    uint64_t most = 0;
    for (uint64_t place = 0, end; place < e->corpus->n_seqs; place = end) {
        end = batch_end(e, place);
        if (end - place > most)
            most = end - place;
    }
    e->max_seqs = (size_t)most;
}

/* ---- the plan, for --dry-run ------------------------------------------------------------------- */

/* FLOPs of one token down to the deepest thing asked for, causal attention over half the context. */
static double flops_per_token(const sonde_model *m, const sonde_capture_options *o, double context)
{
    const sonde_arch *a = &m->arch;
    double d = (double)a->d_model, heads = (double)(a->n_heads * a->d_head),
           mlp = (double)a->d_mlp * (a->gated ? 3 : 2);
    double layer = 2 * d * (double)sonde_arch_qkv(a) + 2 * heads * d + 2 * d * mlp + 4 * heads * context / 2;
    bool logits = o->loss || o->n_logits;
    size_t layers = logits ? a->n_layers : 0;
    for (size_t i = 0; i < o->hooks->n; i++) {
        sonde_hook h = o->hooks->hook[i];
        size_t deep = sonde_site_in_block(h.site)      ? h.layer + (h.site > SONDE_SITE_RESID_PRE)
                      : h.site > SONDE_SITE_RESID_POST ? a->n_layers
                                                       : 0;
        layers = deep > layers ? deep : layers;
        logits = logits || h.site == SONDE_SITE_LOGITS;
    }
    return (double)layers * layer + (logits ? 2 * d * (double)a->n_vocab_out : 0);
}

enum sonde_code sonde_capture_plan_make(const sonde_model *m, const sonde_corpus *corpus,
                                        const sonde_capture_options *o, int n_threads,
                                        sonde_capture_plan *plan, sonde_err *err)
{
    struct engine e = {.m = m, .corpus = corpus, .o = o};
    enum sonde_code code = plan_make(corpus, o, &e.plan, err);
    if (!code)
        code = check_options(m, corpus, o, &e.plan, err);
    if (!code)
        code = layout_make(m, &e.plan, NULL, &e.layout, err);
    if (!code) {
        const sonde_arch *a = &m->arch;
        size_batches(&e);
        size_t longest, squares = square_bytes(&e, &longest);
        size_t row =
            3 * a->d_model + sonde_arch_qkv(a) + a->n_heads * a->d_head + (a->gated ? 2 : 1) * a->d_mlp;
        double context = corpus->n_seqs ? (double)corpus->n_tokens / (double)corpus->n_seqs : 0;
        *plan = (sonde_capture_plan){
            .n_tokens = corpus->n_tokens,
            .n_seqs = corpus->n_seqs,
            .n_docs = corpus->n_docs,
            .n_rows = e.plan.n_rows,
            .n_heldout_docs = e.plan.n_heldout,
            .file_bytes = e.layout.data_bytes,
            .row_bytes = row_bytes(&e),
            .flops = flops_per_token(m, o, context) * (double)corpus->n_tokens,
            .memory_bytes =
                (uint64_t)n_threads * (e.max_tokens * row * sizeof(float) + staging_bytes(&e) + squares +
                                       e.max_seqs * state_bytes(m, o->hooks) +
                                       (o->loss || o->n_logits ? 56 * a->n_vocab_out * sizeof(float) : 0)),
        };
    }
    plan_free(&e.plan);
    layout_free(&e.layout);
    return code;
}
