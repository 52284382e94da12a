/* SPDX-License-Identifier: MIT
 * Order and place of every row: a function of the seed and the corpus alone. */
#include <stdlib.h>
#include <string.h>

#include "capture_impl.h"

void sonde_capture_split(uint64_t n_docs, double holdout, uint64_t seed, uint8_t *split, uint64_t *n_heldout)
{
    sonde_rng root = sonde_rng_seed(seed), base = sonde_rng_fork(&root, "holdout", 0);
    *n_heldout = 0;
    for (uint64_t d = 0; d < n_docs; d++) {
        sonde_rng r = sonde_rng_fork(&base, "document", d);
        split[d] = holdout > 0 && n_docs > 1 && sonde_rng_double(&r) < holdout;
        *n_heldout += split[d];
    }
    if (holdout <= 0 || n_docs < 2 || (*n_heldout > 0 && *n_heldout < n_docs))
        return;
    sonde_rng r = sonde_rng_fork(&base, "one", 0); /* few documents: one is held out, one is not */
    uint64_t one = sonde_rng_below(&r, n_docs);
    *n_heldout = *n_heldout == 0 ? 1 : n_docs - 1;
    split[one] = !split[one];
}

static enum sonde_code mark_heldout(struct plan *p, sonde_err *err)
{
    uint64_t n = p->corpus->n_docs;
    if (!(p->split = calloc(n ? n : 1, 1)))
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %llu documents", (unsigned long long)n);
    sonde_capture_split(n, p->o->holdout, p->o->seed, p->split, &p->n_heldout);
    return SONDE_OK;
}

enum sonde_code plan_make(const sonde_corpus *c, const sonde_capture_options *o, struct plan *p,
                          sonde_err *err)
{
    *p = (struct plan){.corpus = c, .o = o, .rng = sonde_rng_seed(o->seed)};
    enum sonde_code code = mark_heldout(p, err);
    if (code)
        return code;
    if (c->n_seqs > UINT32_MAX)
        return sonde_fail(err, SONDE_E_USAGE, "%llu contexts, at most %u are possible",
                          (unsigned long long)c->n_seqs, UINT32_MAX);
    p->first_kept = malloc((c->n_seqs + 1) * sizeof *p->first_kept);
    p->order = o->shuffle ? malloc((c->n_seqs + 1) * sizeof *p->order) : NULL;
    if (!p->first_kept || (o->shuffle && !p->order))
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %llu contexts", (unsigned long long)c->n_seqs);
    if (o->shuffle) {
        sonde_rng r = sonde_rng_fork(&p->rng, "contexts", 0);
        sonde_rng_permutation(&r, p->order, (uint32_t)c->n_seqs);
    }
    for (uint64_t place = 0; place < c->n_seqs; place++) {
        uint64_t n = context_length(c, context_at(p, place));
        p->first_kept[place] = p->n_rows;
        p->n_rows += n > o->skip_first ? n - o->skip_first : 0;
    }
    p->first_kept[c->n_seqs] = p->n_rows;
    return SONDE_OK;
}

void plan_free(struct plan *p)
{
    free(p->order);
    free(p->first_kept);
    free(p->split);
    *p = (struct plan){0};
}

void plan_window(const struct plan *p, uint64_t window, uint32_t *perm, uint32_t n)
{
    if (p->o->shuffle) {
        sonde_rng r = sonde_rng_fork(&p->rng, "rows", window);
        sonde_rng_permutation(&r, perm, n);
    } else {
        for (uint32_t i = 0; i < n; i++)
            perm[i] = i;
    }
}
