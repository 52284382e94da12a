/* SPDX-License-Identifier: MIT
 * Added tokens: a trie of their names, longest match first. */
#include <string.h>

#include "tokenizer_impl.h"

static uint32_t find_child(const struct trie *t, uint32_t first, unsigned char byte)
{
    while (first && t->node[first].byte != byte)
        first = t->node[first].sibling;
    return first;
}

static enum sonde_code make_room(struct trie *t, sonde_arena *a, size_t n, sonde_err *err)
{
    if (n <= t->cap - t->n)
        return SONDE_OK;
    size_t cap = 2 * (size_t)t->cap + n + 64;
    if (cap > UINT32_MAX / 2)
        return sonde_fail(err, SONDE_E_INPUT, "the added tokens are too long together");
    struct trie_node *node = sonde_arena_get(a, cap, sizeof *node, err);
    if (!node)
        return SONDE_E_MEMORY;
    if (t->n)
        memcpy(node, t->node, t->n * sizeof *node);
    t->node = node;
    t->cap = (uint32_t)cap;
    if (t->n == 0)
        t->n = 1;
    return SONDE_OK;
}

enum sonde_code trie_add(struct trie *t, sonde_arena *a, const char *s, size_t n, int32_t token,
                         sonde_err *err)
{
    enum sonde_code rc = make_room(t, a, n + 1, err);
    if (rc)
        return rc;
    uint32_t *first = &t->root[(unsigned char)s[0]], at = 0;
    for (size_t i = 0; i < n; i++) {
        at = find_child(t, *first, (unsigned char)s[i]);
        if (!at) {
            at = t->n++;
            t->node[at] = (struct trie_node){0, *first, -1, (unsigned char)s[i]};
            *first = at;
        }
        first = &t->node[at].child;
    }
    if (t->node[at].token < 0)
        t->node[at].token = token;
    return SONDE_OK;
}

int32_t trie_longest(const struct trie *t, const unsigned char *s, size_t n, size_t at, size_t *len)
{
    int32_t best = -1;
    uint32_t next = t->root[s[at]];
    for (size_t i = at; i < n; i++) {
        next = find_child(t, next, s[i]);
        if (!next)
            break;
        if (t->node[next].token >= 0) {
            best = t->node[next].token;
            *len = i + 1 - at;
        }
        next = t->node[next].child;
    }
    return best;
}
