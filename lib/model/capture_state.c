/* SPDX-License-Identifier: MIT
 * Running statistics, and how the journal keeps them: doubles and counts as they are, so that a resumed
 * capture goes on from the same bits. */
#include <stdlib.h>
#include <string.h>

#include "capture_impl.h"

static size_t width_of(const sonde_model *m, sonde_hook h)
{
    return sonde_site_is_square(h.site) ? 0 : sonde_site_width(&m->arch, h.site);
}

static size_t n_doubles(const sonde_model *m, const sonde_hook_list *hooks)
{
    size_t n = 0;
    for (size_t i = 0; i < hooks->n; i++)
        n += 2 * width_of(m, hooks->hook[i]);
    return n;
}

size_t state_bytes(const sonde_model *m, const sonde_hook_list *hooks)
{
    return hooks->n * sizeof(struct sums) + n_doubles(m, hooks) * sizeof(double);
}

enum sonde_code state_new(const sonde_model *m, const sonde_hook_list *hooks, sonde_arena *arena,
                          struct state *s, sonde_err *err)
{
    *s = (struct state){.n_hooks = hooks->n, .n_doubles = n_doubles(m, hooks)};
    s->hook = sonde_arena_get(arena, hooks->n, sizeof *s->hook, err);
    s->memory = s->hook ? sonde_arena_get(arena, s->n_doubles, sizeof *s->memory, err) : NULL;
    if (!s->memory)
        return SONDE_E_MEMORY;
    double *at = s->memory;
    for (size_t i = 0; i < hooks->n; i++) {
        size_t w = width_of(m, hooks->hook[i]);
        s->hook[i].sum = at;
        s->hook[i].sum_sq = at + w;
        at += 2 * w;
    }
    return SONDE_OK;
}

void state_clear(struct state *s)
{
    memset(s->memory, 0, s->n_doubles * sizeof *s->memory);
    for (size_t i = 0; i < s->n_hooks; i++) {
        s->hook[i].norm = s->hook[i].norm_sq = 0;
        s->hook[i].count = s->hook[i].saturated = 0;
    }
    s->n_places = 0;
    s->loss = 0;
    s->n_losses = 0;
}

void state_add(struct state *to, const struct state *from)
{
    for (size_t i = 0; i < to->n_doubles; i++)
        to->memory[i] += from->memory[i];
    for (size_t i = 0; i < to->n_hooks; i++) {
        struct sums *t = &to->hook[i];
        const struct sums *f = &from->hook[i];
        t->norm += f->norm;
        t->norm_sq += f->norm_sq;
        t->count += f->count;
        t->saturated += f->saturated;
    }
    to->n_places += from->n_places;
    to->loss += from->loss;
    to->n_losses += from->n_losses;
}

/* [n_places, n_hooks, n_doubles, n_losses, loss] then per hook [norm, norm_sq, count, saturated] then the
 * sums. */
#define HEAD     5
#define PER_HOOK 4

static void put_u64(double *at, uint64_t v)
{
    memcpy(at, &v, sizeof v);
}

static uint64_t get_u64(const double *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

enum sonde_code state_pack(const struct state *s, void **out, size_t *n, sonde_err *err)
{
    size_t words = HEAD + PER_HOOK * s->n_hooks + s->n_doubles;
    double *p = malloc(words * sizeof *p), *at = p;
    if (!p)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a journal of %zu bytes", words * sizeof *p);
    put_u64(at++, s->n_places);
    put_u64(at++, s->n_hooks);
    put_u64(at++, s->n_doubles);
    put_u64(at++, s->n_losses);
    *at++ = s->loss;
    for (size_t i = 0; i < s->n_hooks; i++) {
        *at++ = s->hook[i].norm;
        *at++ = s->hook[i].norm_sq;
        put_u64(at++, s->hook[i].count);
        put_u64(at++, s->hook[i].saturated);
    }
    memcpy(at, s->memory, s->n_doubles * sizeof *at);
    *out = p;
    *n = words * sizeof *p;
    return SONDE_OK;
}

enum sonde_code state_unpack(struct state *s, const void *data, size_t n, const char *path, sonde_err *err)
{
    size_t words = HEAD + PER_HOOK * s->n_hooks + s->n_doubles;
    const double *at = data;
    if (n != words * sizeof *at || get_u64(at + 1) != s->n_hooks || get_u64(at + 2) != s->n_doubles)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: the journal holds %zu bytes, this capture needs %zu; start again with --force",
                          path, n, words * sizeof *at);
    s->n_places = get_u64(at);
    s->n_losses = get_u64(at + 3);
    s->loss = at[4];
    at += HEAD;
    for (size_t i = 0; i < s->n_hooks; i++, at += PER_HOOK) {
        s->hook[i].norm = at[0];
        s->hook[i].norm_sq = at[1];
        s->hook[i].count = get_u64(at + 2);
        s->hook[i].saturated = get_u64(at + 3);
    }
    memcpy(s->memory, at, s->n_doubles * sizeof *at);
    return SONDE_OK;
}
