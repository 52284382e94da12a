/* SPDX-License-Identifier: MIT
 * Exact selection: the k largest entries under a total order, by radix on the bits of positive floats (which
 * are ordered as integers). */
#include <string.h>

#include "../base/half.h"
#include "../num/sparse.h"
#include "encode_impl.h"

/* The words by which entries are ordered, each ascending. */
enum { WORD_VALUE, WORD_ROW, WORD_COL, N_WORDS };

static inline uint32_t word_of(const struct candidates *c, size_t i, int word)
{
    if (word == WORD_VALUE)
        return ~sonde_f32_bits(((const float *)c->value.p)[i]);
    return ((const uint32_t *)(word == WORD_ROW ? c->row.p : c->col.p))[i];
}

/* Does entry i agree with `at` in the words before `word`? */
static inline bool agrees(const struct candidates *c, size_t i, int word, const uint32_t *at)
{
    for (int w = 0; w < word; w++)
        if (word_of(c, i, w) != at[w])
            return false;
    return true;
}

/* The smallest and largest of `word` among the entries that agree with `at` before it. */
static void range_of(const struct candidates *c, int word, const uint32_t *at, uint32_t *low, uint32_t *high)
{
    uint32_t least = *low, most = *high;
    for (size_t i = 0; i < c->n; i++) {
        const uint32_t key = word_of(c, i, word);
        if (word > WORD_VALUE && !agrees(c, i, word, at))
            continue;
        least = key < least ? key : least;
        most = key > most ? key : most;
    }
    *low = least;
    *high = most;
}

/* Count the entries that agree with `at` before `word` and whose word lies in low .. low + span, into bins of
 * 2^shift. */
static inline void count_words(const struct candidates *c, int word, const uint32_t *at, uint32_t low,
                               uint32_t span, unsigned shift, uint32_t *bins)
{
    for (size_t i = 0; i < c->n; i++) {
        const uint32_t key = word_of(c, i, word) - low;
        if (key > span || (word > WORD_VALUE && !agrees(c, i, word, at)))
            continue;
        bins[key >> shift]++;
    }
}

/* at[word] = that word of the entry of rank k (from 1) among those that agree with `at` before it. Returns
 * its rank among those that agree in this word too; *n_equal how many these are. */
static size_t select_word(const struct candidates *const *part, size_t n_parts, int word, uint32_t *at,
                          size_t k, uint32_t *bins, size_t *n_equal)
{
    uint32_t low = UINT32_MAX, high = 0;
    for (size_t p = 0; p < n_parts; p++)
        range_of(part[p], word, at, &low, &high);
    uint32_t span = high - low;
    for (;;) {
        const unsigned wide = span ? 32 - (unsigned)__builtin_clz(span) : 0;
        const unsigned shift = wide > SELECT_BITS ? wide - SELECT_BITS : 0;
        memset(bins, 0, SELECT_BINS * sizeof *bins);
        for (size_t p = 0; p < n_parts; p++)
            if (word == WORD_VALUE) /* its conditions are dropped where the word is a constant */
                count_words(part[p], WORD_VALUE, at, low, span, shift, bins);
            else
                count_words(part[p], word, at, low, span, shift, bins);
        uint32_t b = 0;
        while (k > bins[b])
            k -= bins[b++];
        low += b << shift;
        *n_equal = bins[b];
        if (shift == 0)
            break;
        span = (1u << shift) - 1;
    }
    at[word] = low;
    return k;
}

struct last_kept sonde_select_kth(const struct candidates *const *part, size_t n_parts, size_t k,
                                  uint32_t *bins)
{
    uint32_t at[N_WORDS] = {0, UINT32_MAX, UINT32_MAX};
    size_t n_equal;
    for (int word = WORD_VALUE; word < N_WORDS; word++) {
        k = select_word(part, n_parts, word, at, k, bins, &n_equal);
        if (k == n_equal) { /* all that agree so far are kept */
            for (int w = word + 1; w < N_WORDS; w++)
                at[w] = UINT32_MAX;
            break;
        }
    }
    return (struct last_kept){sonde_bits_f32(~at[WORD_VALUE]), at[WORD_ROW], at[WORD_COL]};
}

void sonde_select_keep(struct candidates *c, const struct last_kept *last)
{
    const struct last_kept l = *last;
    float *value = c->value.p;
    uint32_t *row = c->row.p, *col = c->col.p;
    size_t kept = 0;
    for (size_t i = 0; i < c->n; i++) {
        const float v = value[i];
        const uint32_t r = row[i], f = col[i];
        value[kept] = v;
        row[kept] = r;
        col[kept] = f;
        kept += v > l.value || (v == l.value && is_kept(&l, v, r, f));
    }
    c->n = kept;
}

/* Integers in the order of floats; 0 and -0 are neighbours. */
static inline int32_t order_of(float v)
{
    const int32_t i = (int32_t)sonde_f32_bits(v);
    return i < 0 ? i ^ INT32_MAX : i;
}

static inline float of_order(int32_t i)
{
    return sonde_bits_f32((uint32_t)(i < 0 ? i ^ INT32_MAX : i));
}

float sonde_select_raise(const sonde_kernels *kernels, const float *value, size_t n, size_t k, size_t slack,
                         float limit)
{
    int32_t low = order_of(limit), high = order_of(__builtin_inff());
    while (low < high) {
        const int32_t middle = (int32_t)(((int64_t)low + (int64_t)high) >> 1);
        const size_t above = sonde_count_above(kernels, value, n, of_order(middle));
        if (above < k) {
            high = middle;
            continue;
        }
        low = middle + 1;
        if (above <= k + slack)
            break;
    }
    return of_order(low);
}
