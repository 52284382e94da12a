/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "bpe_impl.h"
#include "unicode.h"

#define SMALL 64 /* pieces of up to this many symbols are merged by scanning, longer ones with a heap */
#define NONE  UINT32_MAX

void bpe_room_free(struct bpe_room *r)
{
    free(r->id);
    free(r->len);
    free(r->node);
    free(r->heap);
    *r = (struct bpe_room){0};
}

static enum sonde_code make_room(struct bpe_room *r, size_t n, sonde_err *err)
{
    size_t bytes, cap;
    if (n <= r->cap)
        return SONDE_OK;
    if (!sonde_add(&cap, n, n / 2) || !sonde_add(&cap, cap, SMALL) || !sonde_mul(&bytes, cap, sizeof *r->id))
        return sonde_fail(err, SONDE_E_MEMORY, "a piece of %zu bytes is too long", n);
    free(r->id);
    free(r->len);
    r->id = malloc(bytes);
    r->len = malloc(bytes);
    r->cap = r->id && r->len ? cap : 0;
    if (!r->cap)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a piece of %zu bytes", n);
    return SONDE_OK;
}

/* The rank at which two symbols merge, and into what; NONE if they do not. */
static uint32_t pair_rank(const struct bpe *b, int32_t left, int32_t right, int32_t *id)
{
    if (left < 0 || right < 0)
        return NONE;
    for (size_t i = bpe_pair_hash((uint32_t)left, (uint32_t)right);; i++) {
        const struct bpe_merge *m = &b->merge[i & (b->n_slots - 1)];
        if (m->left == (uint32_t)left && m->right == (uint32_t)right) {
            *id = m->id;
            return m->rank;
        }
        if (m->left == NONE)
            return NONE;
    }
}

/* ---- first symbols ----------------------------------------------------------------------------- */

static enum sonde_code no_token(const unsigned char *s, size_t n, sonde_err *err)
{
    return sonde_fail(
        err, SONDE_E_INPUT,
        "the vocabulary has no token for '%.*s' (first byte 0x%02x), no byte tokens and no unk_token", (int)n,
        (const char *)s, s[0]);
}

static enum sonde_code byte_symbols(const struct bpe *b, struct bpe_room *r, const unsigned char *s, size_t n,
                                    size_t *n_out, sonde_err *err)
{
    size_t k = 0;
    bool unk = false;
    for (size_t i = 0; i < n; i++) {
        int32_t id = b->byte_id[s[i]];
        if (id < 0 && b->unk_id < 0)
            return no_token(s + i, 1, err);
        if (id < 0 && unk && b->fuse_unk) {
            r->len[k - 1]++;
            continue;
        }
        unk = id < 0;
        r->id[k] = unk ? b->unk_id : id;
        r->len[k++] = 1;
    }
    *n_out = k;
    return SONDE_OK;
}

/* Hugging Face's order: a character without a token becomes byte tokens if there are some, else the unknown
 * token, before anything is merged. SentencePiece's: it stays as it is. */
static enum sonde_code char_symbols(const struct bpe *b, struct bpe_room *r, const unsigned char *s, size_t n,
                                    size_t *n_out, sonde_err *err)
{
    size_t k = 0, len;
    bool unk = false;
    for (size_t at = 0; at < n; at += len) {
        uint32_t cp = sonde_utf8_next(s, n, at, &len);
        int32_t id = cp == SONDE_INVALID ? BPE_RAW : bpe_char_id(b, cp);
        if (id < 0 && !b->late_fallback) {
            if (bpe_spells(b, s + at, len)) {
                for (size_t i = 0; i < len; i++) {
                    r->id[k] = b->byte_id[s[at + i]];
                    r->len[k++] = 1;
                }
                unk = false;
                continue;
            }
            if (b->unk_id < 0)
                return no_token(s + at, len, err);
            if (unk && b->fuse_unk) {
                r->len[k - 1] += (uint32_t)len;
                continue;
            }
            unk = true;
            id = b->unk_id;
        } else {
            unk = false;
        }
        r->id[k] = id;
        r->len[k++] = (uint32_t)len;
    }
    *n_out = k;
    return SONDE_OK;
}

/* ---- merging ----------------------------------------------------------------------------------- */

static size_t merge_small(const struct bpe *b, int32_t *id, uint32_t *len, size_t n)
{
    uint32_t rank[SMALL];
    int32_t to[SMALL];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = pair_rank(b, id[i], id[i + 1], &to[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == NONE)
            break;
        id[best] = to[best];
        len[best] += len[best + 1];
        for (size_t i = best + 1; i + 1 < n; i++) {
            id[i] = id[i + 1];
            len[i] = len[i + 1];
            rank[i - 1] = rank[i];
            to[i - 1] = to[i];
        }
        n--;
        if (best + 1 < n)
            rank[best] = pair_rank(b, id[best], id[best + 1], &to[best]);
        if (best > 0)
            rank[best - 1] = pair_rank(b, id[best - 1], id[best], &to[best - 1]);
    }
    return n;
}

/* A symbol and the pair that it begins. A dead one has id BPE_RAW - 1 and rank NONE. */
struct node {
    int32_t id, to;
    uint32_t len, prev, next, rank;
};

static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t x = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= x)
            break;
        heap[i] = heap[child];
    }
    heap[i] = x;
}

static void push(struct bpe_room *r, uint32_t rank, uint32_t at)
{
    uint64_t x = (uint64_t)rank << 32 | at;
    size_t i = r->n_heap++;
    for (size_t up; i > 0 && r->heap[up = (i - 1) / 2] > x; i = up)
        r->heap[i] = r->heap[up];
    r->heap[i] = x;
}

static enum sonde_code make_nodes(struct bpe_room *r, size_t n, sonde_err *err)
{
    size_t bytes, heap_bytes;
    if (n <= r->cap_nodes)
        return SONDE_OK;
    /* every merge takes one pair from the heap and puts back two at most: never more than 2 n */
    if (n > UINT32_MAX - 1 || !sonde_mul(&bytes, n, sizeof(struct node)) ||
        !sonde_mul(&heap_bytes, n, 2 * sizeof *r->heap))
        return sonde_fail(err, SONDE_E_MEMORY, "a piece of %zu symbols is too long", n);
    free(r->node);
    free(r->heap);
    r->node = malloc(bytes);
    r->heap = malloc(heap_bytes);
    r->cap_nodes = r->node && r->heap ? n : 0;
    if (!r->cap_nodes)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a piece of %zu symbols", n);
    return SONDE_OK;
}

static enum sonde_code merge_long(const struct bpe *b, struct bpe_room *r, size_t *n_io, sonde_err *err)
{
    uint32_t n = (uint32_t)*n_io;
    enum sonde_code rc = make_nodes(r, *n_io, err);
    if (rc)
        return rc;
    struct node *node = r->node;
    r->n_heap = 0;
    for (uint32_t i = 0; i < n; i++) {
        node[i] = (struct node){r->id[i], 0, r->len[i], i - 1, i + 1, NONE};
        if (i + 1 < n)
            node[i].rank = pair_rank(b, r->id[i], r->id[i + 1], &node[i].to);
        if (node[i].rank != NONE)
            r->heap[r->n_heap++] = (uint64_t)node[i].rank << 32 | i;
    }
    for (size_t i = r->n_heap / 2; i-- > 0;)
        sift_down(r->heap, r->n_heap, i);
    while (r->n_heap) {
        uint64_t top = r->heap[0];
        r->heap[0] = r->heap[--r->n_heap];
        if (r->n_heap)
            sift_down(r->heap, r->n_heap, 0);
        uint32_t i = (uint32_t)top;
        struct node *left = &node[i];
        if (left->rank != (uint32_t)(top >> 32)) /* the pair has changed since */
            continue;
        struct node *right = &node[left->next];
        left->id = left->to;
        left->len += right->len;
        right->rank = NONE;
        left->next = right->next;
        left->rank = NONE;
        if (left->next < n) {
            node[left->next].prev = i;
            left->rank = pair_rank(b, left->id, node[left->next].id, &left->to);
            if (left->rank != NONE)
                push(r, left->rank, i);
        }
        if (i > 0) {
            struct node *before = &node[left->prev];
            before->rank = pair_rank(b, before->id, left->id, &before->to);
            if (before->rank != NONE)
                push(r, before->rank, left->prev);
        }
    }
    size_t k = 0;
    for (uint32_t i = 0; i < n; i = node[i].next) {
        r->id[k] = node[i].id;
        r->len[k++] = node[i].len;
    }
    *n_io = k;
    return SONDE_OK;
}

enum sonde_code bpe_encode(const struct bpe *b, struct bpe_room *r, const unsigned char *s, size_t n,
                           size_t *n_out, sonde_err *err)
{
    enum sonde_code rc = make_room(r, n, err);
    if (rc)
        return rc;
    size_t k = 0;
    rc = b->by_char ? char_symbols(b, r, s, n, &k, err) : byte_symbols(b, r, s, n, &k, err);
    if (rc)
        return rc;
    if (k > SMALL)
        rc = merge_long(b, r, &k, err);
    else
        k = merge_small(b, r->id, r->len, k);
    *n_out = k;
    return rc;
}
