/* SPDX-License-Identifier: MIT
 * Exact selection: the k largest entries under a total order, by radix on the bits of positive floats (which
 * are ordered as integers), and of one row by bisection. */
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

/* Count the digit (shift, bits) of `word` over the entries that agree with `at` above it. */
static inline void count_digit(const struct candidates *c, int word, const uint32_t *at, unsigned shift,
                               unsigned bits, uint32_t *bins)
{
    const unsigned above = shift + bits;
    const uint32_t mask = (1u << bits) - 1u;
    for (size_t i = 0; i < c->n; i++) {
        const uint32_t key = word_of(c, i, word);
        if (above < 32 && (key ^ at[word]) >> above)
            continue;
        if (word > WORD_VALUE && !agrees(c, i, word, at))
            continue;
        bins[key >> shift & mask]++;
    }
}

/* at[word] = that word of the entry of rank k (from 1) among those that agree with `at` before it. Returns
 * its rank among those that agree in this word too; *n_equal how many these are. */
static size_t select_word(const struct candidates *const *part, size_t n_parts, int word, uint32_t *at,
                          size_t k, uint32_t *bins, size_t *n_equal)
{
    static const struct {
        unsigned shift, bits;
    } digits[] = {{21, 11}, {10, 11}, {0, 10}};
    at[word] = 0;
    for (size_t d = 0; d < 3; d++) {
        const unsigned shift = digits[d].shift, bits = digits[d].bits;
        memset(bins, 0, (sizeof *bins) << bits);
        for (size_t p = 0; p < n_parts; p++) {
            if (word == WORD_VALUE && d == 0) /* the compiler drops the conditions that are constant here */
                count_digit(part[p], WORD_VALUE, at, 21, 11, bins);
            else if (word == WORD_VALUE)
                count_digit(part[p], WORD_VALUE, at, shift, bits, bins);
            else
                count_digit(part[p], word, at, shift, bits, bins);
        }
        uint32_t b = 0;
        while (k > bins[b])
            k -= bins[b++];
        at[word] |= b << shift;
        *n_equal = bins[b];
    }
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

struct last_kept sonde_select_cut(struct candidates *c, size_t k, uint32_t *bins)
{
    const struct candidates *part[1] = {c};
    const struct last_kept last = sonde_select_kth(part, 1, k, bins);
    float *value = c->value.p;
    uint32_t *row = c->row.p, *col = c->col.p;
    size_t kept = 0;
    for (size_t i = 0; i < c->n; i++) {
        const float v = value[i];
        const uint32_t r = row[i], f = col[i];
        value[kept] = v;
        row[kept] = r;
        col[kept] = f;
        kept += v > last.value || (v == last.value && is_kept(&last, v, r, f));
    }
    c->n = kept;
    return last;
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

/* The smallest float t with at most k - 1 values above: the k-th largest value. */
float sonde_select_value(const sonde_kernels *kernels, const float *value, size_t n, size_t k)
{
    int32_t low = INT32_MAX, high = INT32_MIN;
    for (size_t i = 0; i < n; i++) {
        const int32_t o = order_of(value[i]);
        low = o < low ? o : low;
        high = o > high ? o : high;
    }
    while (low < high) {
        const int32_t middle = (int32_t)(((int64_t)low + (int64_t)high) >> 1);
        if (sonde_count_above(kernels, value, n, of_order(middle)) >= k)
            low = middle + 1;
        else
            high = middle;
    }
    return of_order(low);
}

float sonde_select_row(const sonde_kernels *kernels, uint32_t *col, float *value, size_t *n, size_t k)
{
    const float last = sonde_select_value(kernels, value, *n, k);
    size_t ties = k - sonde_count_above(kernels, value, *n, last), kept = 0;
    for (size_t i = 0; i < *n; i++) {
        const float v = value[i];
        const size_t tie = v == last && ties > 0;
        col[kept] = col[i];
        value[kept] = v;
        ties -= tie;
        kept += v > last || tie;
    }
    *n = kept;
    return last;
}
