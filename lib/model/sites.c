/* SPDX-License-Identifier: MIT
 * Hooks of a run: added by site, shown each sequence as the pass comes by. */
#include <stdlib.h>
#include <string.h>

#include "run_impl.h"

enum sonde_code sonde_run_hook(sonde_run *r, sonde_hook h, bool write, sonde_hook_fn fn, void *arg,
                               sonde_err *err)
{
    const sonde_arch *a = &r->m->arch;
    char name[SONDE_HOOK_NAME_MAX];
    const char *why = sonde_site_absent(a, h.site);
    if (!why && h.site == SONDE_SITE_ATTN_IN && write && a->n_kv_heads != a->n_heads)
        why = "heads share keys and values; write the q, k and v inputs instead";
    if (!why && h.site == SONDE_SITE_TOKENS && write)
        why = "tokens can only be read";
    if (why || h.layer >= (sonde_site_in_block(h.site) ? a->n_layers : 1))
        return sonde_fail(err, SONDE_E_USAGE, "hook %s: not in this model (%s): %s", sonde_hook_name(h, name),
                          a->family, why ? why : "no such layer");
    if (r->n_entries == r->cap_entries) {
        size_t cap = r->cap_entries ? 2 * r->cap_entries : 16;
        struct hook_entry *p = realloc(r->entry, cap * sizeof *p);
        if (!p)
            return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu hooks", cap);
        r->entry = p;
        r->cap_entries = cap;
    }
    r->entry[r->n_entries++] = (struct hook_entry){h, write, fn, arg};
    r->hooked[site_index(h.site, h.layer)] |= write ? HOOKED_READ | HOOKED_WRITE : HOOKED_READ;
    size_t order = sonde_hook_order(a, h);
    if (order > r->last_order)
        r->last_order = order;
    return SONDE_OK;
}

void sonde_run_unhook_all(sonde_run *r)
{
    r->n_entries = 0;
    r->last_order = 0;
    memset(r->hooked, 0, r->m->arch.n_layers * SONDE_N_SITES);
}

void sonde_run_want_logits(sonde_run *r, sonde_logits_fn fn, void *arg, bool only_last)
{
    r->logits_fn = fn;
    r->logits_arg = arg;
    r->only_last = only_last;
}

enum sonde_code call_hooks(sonde_run *r, const sonde_view *v)
{
    for (size_t i = 0; i < r->n_entries; i++) {
        const struct hook_entry *e = &r->entry[i];
        if (e->hook.site != v->hook.site || e->hook.layer != v->hook.layer)
            continue;
        enum sonde_code code = e->fn(e->arg, v, r->err);
        if (code)
            return code;
    }
    return SONDE_OK;
}

void reached(sonde_run *r, enum sonde_site s, size_t layer)
{
    if (!r->logits_fn && !r->cache && sonde_hook_order(&r->m->arch, (sonde_hook){s, layer}) >= r->last_order)
        r->done = true;
}

enum sonde_code visit(sonde_run *r, enum sonde_site s, size_t layer, float *data, size_t stride)
{
    if (!hooked(r, s, layer))
        return SONDE_OK;
    for (size_t i = 0; i < r->n_seqs; i++) {
        size_t row = r->start[i] - r->start[0], n = r->start[i + 1] - r->start[i];
        sonde_view v = {.hook = {s, layer},
                        .sequence = i,
                        .first_pos = r->first,
                        .n_rows = n,
                        .width = sonde_site_width(&r->m->arch, s),
                        .stride = stride,
                        .data = data ? data + row * stride : NULL,
                        .ids = r->ids + row};
        enum sonde_code code = call_hooks(r, &v);
        if (code)
            return code;
    }
    reached(r, s, layer);
    return SONDE_OK;
}

enum sonde_code visit_square(sonde_run *r, enum sonde_site s, size_t layer, size_t sequence, float *data,
                             size_t n_keys)
{
    if (!hooked(r, s, layer))
        return SONDE_OK;
    size_t row = r->start[sequence] - r->start[0];
    sonde_view v = {.hook = {s, layer},
                    .sequence = sequence,
                    .first_pos = r->first,
                    .n_rows = r->start[sequence + 1] - r->start[sequence],
                    .width = n_keys,
                    .stride = n_keys,
                    .n_heads = r->m->arch.n_heads,
                    .n_keys = n_keys,
                    .data = data,
                    .ids = r->ids + row};
    return call_hooks(r, &v);
}
