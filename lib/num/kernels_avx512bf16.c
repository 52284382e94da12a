/* SPDX-License-Identifier: MIT
 * The bfloat16 product with VDPBF16PS. Compiled with its own instruction-set flags: nothing here may run
 * before the CPU is asked.
 *
 * A tile is up to 14 rows of X times one panel of 32 columns of W, held in registers over a block of k;
 * between blocks the sums rest in y. */
#include <immintrin.h>
#include <string.h>

#include "kernels_impl.h"

enum {
    PANEL16 = SONDE_PANEL16,
    TILE_ROWS = 14,
    BLOCK_PAIRS = 512, /* pairs of rows of W swept at once */
    BLOCK_PANELS = 4,  /* panels that stay in the second cache meanwhile */
    AHEAD = 16         /* pairs by which W is fetched ahead */
};

struct tile16 {
    const uint16_t *x;
    size_t ldx;
    const uint16_t *w; /* [pairs][32][2] */
    size_t pairs;
    int odd; /* the last pair of X is one number */
    int resume;
    float *y;
    size_t ldy;
    __mmask16 in0, in1; /* columns that exist */
};

#define ALWAYS_INLINE static inline __attribute__((always_inline))
/* clang-format off */
#define EACH_ROW(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12) F(13)
/* clang-format on */

ALWAYS_INLINE int pair_at(const uint16_t *x)
{
    int v;
    memcpy(&v, x, sizeof v);
    return v;
}

/* mr is a constant where this is inlined. */
ALWAYS_INLINE void tile_run(const struct tile16 *t, const int mr)
{
    __m512 acc[14][2];
    const size_t ldx = t->ldx;
    const uint16_t *w = t->w, *x0 = t->x; /* rows of X are addressed from every third: base + {0, 1, 2} ldx */
    const uint16_t *x3 = x0 + (mr > 3 ? 3 : 0) * ldx, *x6 = x3 + (mr > 6 ? 3 : 0) * ldx;
    const uint16_t *x9 = x6 + (mr > 9 ? 3 : 0) * ldx, *x12 = x9 + (mr > 12 ? 3 : 0) * ldx;

#define AT_X(i) ((i) < 3 ? x0 : (i) < 6 ? x3 : (i) < 9 ? x6 : (i) < 12 ? x9 : x12) + (size_t)((i) % 3) * ldx
#define ZERO(i)                                                                                              \
    if (i < mr)                                                                                              \
        acc[i][0] = acc[i][1] = _mm512_setzero_ps();
#define RESUME(i)                                                                                            \
    if (i < mr) {                                                                                            \
        acc[i][0] = _mm512_maskz_loadu_ps(t->in0, t->y + i * t->ldy);                                        \
        acc[i][1] = _mm512_maskz_loadu_ps(t->in1, t->y + i * t->ldy + 16);                                   \
    }
#define STEP_BY(i, pair)                                                                                     \
    if (i < mr) {                                                                                            \
        const __m512bh a = (__m512bh)_mm512_set1_epi32(pair);                                                \
        acc[i][0] = _mm512_dpbf16_ps(acc[i][0], a, b0);                                                      \
        acc[i][1] = _mm512_dpbf16_ps(acc[i][1], a, b1);                                                      \
    }
#define STEP(i)      STEP_BY(i, pair_at(AT_X(i)))
#define LAST_STEP(i) STEP_BY(i, *(AT_X(i)))
#define STORE(i)                                                                                             \
    if (i < mr) {                                                                                            \
        _mm512_mask_storeu_ps(t->y + i * t->ldy, t->in0, acc[i][0]);                                         \
        _mm512_mask_storeu_ps(t->y + i * t->ldy + 16, t->in1, acc[i][1]);                                    \
    }

    if (t->resume) {
        EACH_ROW(RESUME)
    } else {
        EACH_ROW(ZERO)
    }
    for (size_t k = t->pairs; k > 0; k--) {
        __builtin_prefetch((const void *)((uintptr_t)w + AHEAD * 2 * PANEL16 * sizeof *w));
        __builtin_prefetch((const void *)((uintptr_t)(w + 32) + AHEAD * 2 * PANEL16 * sizeof *w));
        const __m512bh b0 = (__m512bh)_mm512_load_si512(w), b1 = (__m512bh)_mm512_load_si512(w + 32);
        EACH_ROW(STEP)
        w += 2 * PANEL16;
        x0 += 2, x3 += 2, x6 += 2, x9 += 2, x12 += 2;
    }
    if (t->odd) {
        const __m512bh b0 = (__m512bh)_mm512_load_si512(w), b1 = (__m512bh)_mm512_load_si512(w + 32);
        EACH_ROW(LAST_STEP)
    }
    EACH_ROW(STORE)
}

#define TILE(mr)                                                                                             \
    static void tile_##mr(const struct tile16 *t)                                                            \
    {                                                                                                        \
        tile_run(t, mr);                                                                                     \
    }
/* clang-format off */
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13)
TILE(14)
static void (*const tiles[])(const struct tile16 *) = {
    NULL, tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8, tile_9, tile_10, tile_11, tile_12,
    tile_13, tile_14};
/* clang-format on */

static __mmask16 first_of(size_t n)
{
    return (__mmask16)((1u << (n < 16 ? n : 16)) - 1u);
}

/* The first of part i of n_parts that share m evenly. */
static size_t part_begin(size_t m, size_t n_parts, size_t i)
{
    return m / n_parts * i + (i < m % n_parts ? i : m % n_parts);
}

void sonde_matmul16_avx512(const uint16_t *w, size_t k, size_t n0, size_t n1, const uint16_t *x, size_t ldx,
                           size_t m, float *y, size_t ldy)
{
    const size_t pairs = (k + 1) / 2, last = (n1 + PANEL16 - 1) / PANEL16;
    const size_t n_tiles = (m + TILE_ROWS - 1) / TILE_ROWS,
                 n_blocks = (pairs + BLOCK_PAIRS - 1) / BLOCK_PAIRS;
    for (size_t first = n0 / PANEL16; first < last; first += BLOCK_PANELS)
        for (size_t b = 0; b < n_blocks; b++)
            for (size_t i = 0; i < n_tiles; i++) {
                const size_t k0 = part_begin(pairs, n_blocks, b), k1 = part_begin(pairs, n_blocks, b + 1);
                const size_t row = part_begin(m, n_tiles, i), rows = part_begin(m, n_tiles, i + 1) - row;
                struct tile16 t = {.x = x + row * ldx + 2 * k0, .ldx = ldx, .resume = b > 0, .ldy = ldy};
                t.odd = k1 == pairs && k % 2;
                t.pairs = k1 - k0 - (size_t)t.odd;
                for (size_t p = first; p < last && p < first + BLOCK_PANELS; p++) {
                    const size_t left = n1 - p * PANEL16;
                    t.in0 = first_of(left);
                    t.in1 = first_of(left > 16 ? left - 16 : 0);
                    t.w = w + (p * pairs + k0) * 2 * PANEL16;
                    t.y = y + row * ldy + (p * PANEL16 - n0);
                    tiles[rows](&t);
                }
            }
}
