/* SPDX-License-Identifier: MIT
 * Packed products over lanes.
 *
 * A tile is up to TILE_ROWS rows of X times one panel of W (or a few panels, when there are few rows), held
 * in registers over all of k. Tiles of one block of k are swept so that W's block stays in the second cache;
 * where k has several blocks the chains rest in `partial` between them, which changes no bit. */
#ifndef SONDE_NUM_PRODUCT_IMPL_H
#define SONDE_NUM_PRODUCT_IMPL_H

#include "elementary_impl.h"
#include "kernels_impl.h"

#define PANEL (LANES * PANEL_VECS)
/* Measured at GPT-2's shapes: a block of W is 256 KiB and of `partial` 56 KiB, in a second cache of 1 MiB. */
#ifndef BLOCK_K
#define BLOCK_K 512
#endif
#ifndef BLOCK_PANELS
#define BLOCK_PANELS (128 / PANEL) /* panels swept together */
#endif
#ifndef BLOCK_ROWS
#define BLOCK_ROWS (112 / TILE_ROWS * TILE_ROWS) /* rows whose chains rest in `partial` */
#endif
#ifndef AHEAD
#define AHEAD 32 /* steps of k by which W is fetched ahead */
#endif
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* F(i, j) for each row i of a tile and each of its vectors j, written out: so no compiler has to unroll a
 * loop before it finds registers for the accumulators. Those outside the tile are dropped by constant
 * conditions. */
#define EACH_VEC(F, i) F(i, 0) F(i, 1) F(i, 2) F(i, 3) F(i, 4) F(i, 5) F(i, 6) F(i, 7)
#define EACH_ROW(F)    F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12) F(13)
#define MAX_VECS       8

struct tile {
    const float *x;
    size_t ldx;
    const float *w; /* [k][PANEL] of the first panel */
    size_t panel_stride, k;
    const float *from; /* chains to continue, row stride ld_from, or NULL */
    size_t ld_from;
    float *y;
    size_t ldy;
    float scale;       /* then, unless 1: y *= scale */
    const float *bias; /* of the first column, or NULL */
    const float *add;  /* of the first column and row, or NULL */
    size_t ld_add;
};

/* mr rows, np panels, the first nv vectors of each panel. All three are constants where this is inlined. */
ALWAYS_INLINE void tile_run(const struct tile *t, const int mr, const int np, const int nv)
{
    vf acc[14][MAX_VECS], b[MAX_VECS];
    const int nc = np * nv;
    const size_t ldx = t->ldx, stride = t->panel_stride;
    const float *w = t->w, *x0 = t->x; /* rows of X are addressed from every third: base + {0, 1, 2} ldx */
    const float *x3 = x0 + (mr > 3 ? 3 : 0) * ldx, *x6 = x3 + (mr > 6 ? 3 : 0) * ldx;
    const float *x9 = x6 + (mr > 9 ? 3 : 0) * ldx, *x12 = x9 + (mr > 12 ? 3 : 0) * ldx;

#define AT(j)   ((size_t)((j) / nv * PANEL + (j) % nv * LANES))
#define AT_X(i) ((i) < 3 ? x0 : (i) < 6 ? x3 : (i) < 9 ? x6 : (i) < 12 ? x9 : x12)[(size_t)((i) % 3) * ldx]
#define ZERO(i, j)                                                                                           \
    if (i < mr && j < nc)                                                                                    \
        acc[i][j] = vf_set(0.0f);
#define RESUME(i, j)                                                                                         \
    if (i < mr && j < nc)                                                                                    \
        acc[i][j] = vf_load(t->from + i * t->ld_from + AT(j));
#define LOAD_W(i, j)                                                                                         \
    if (j < nc)                                                                                              \
        b[j] = vf_load(w + (size_t)((j) / nv) * stride + (size_t)((j) % nv * LANES));
#define PREFETCH_W(i, j)                                                                                     \
    if (np == 1 && j < nc)                                                                                   \
        __builtin_prefetch((const void *)((uintptr_t)(w + (j)*LANES) + AHEAD * PANEL * sizeof(float)));
#define STEP(i, j)                                                                                           \
    if (j < nc)                                                                                              \
        acc[i][j] = vf_fma(a, b[j], acc[i][j]);
#define STEP_ROW(i)                                                                                          \
    if (i < mr) {                                                                                            \
        const vf a = vf_set(AT_X(i));                                                                        \
        EACH_VEC(STEP, i)                                                                                    \
    }
#define SCALE(i, j)                                                                                          \
    if (i < mr && j < nc)                                                                                    \
        acc[i][j] = vf_mul(acc[i][j], scale);
#define BIAS(i, j)                                                                                           \
    if (i < mr && j < nc)                                                                                    \
        acc[i][j] = vf_add(acc[i][j], b[j]);
#define LOAD_BIAS(i, j)                                                                                      \
    if (j < nc)                                                                                              \
        b[j] = vf_load(t->bias + AT(j));
#define ADD(i, j)                                                                                            \
    if (i < mr && j < nc)                                                                                    \
        acc[i][j] = vf_add(vf_load(t->add + i * t->ld_add + AT(j)), acc[i][j]);
#define STORE(i, j)                                                                                          \
    if (i < mr && j < nc)                                                                                    \
        vf_store(t->y + i * t->ldy + AT(j), acc[i][j]);
/* clang-format off */
#define ALL(F)                                                                                               \
    EACH_VEC(F, 0) EACH_VEC(F, 1) EACH_VEC(F, 2) EACH_VEC(F, 3) EACH_VEC(F, 4) EACH_VEC(F, 5) EACH_VEC(F, 6) \
    EACH_VEC(F, 7) EACH_VEC(F, 8) EACH_VEC(F, 9) EACH_VEC(F, 10) EACH_VEC(F, 11) EACH_VEC(F, 12) EACH_VEC(F, 13)
    /* clang-format on */

    if (t->from) {
        ALL(RESUME)
    } else {
        ALL(ZERO)
    }
    for (size_t k = t->k; k > 0; k--) {
        EACH_VEC(PREFETCH_W, 0)
        EACH_VEC(LOAD_W, 0)
        EACH_ROW(STEP_ROW)
        w += PANEL;
        x0++, x3++, x6++, x9++, x12++;
    }
    if (t->scale != 1.0f) {
        const vf scale = vf_set(t->scale);
        ALL(SCALE)
    }
    if (t->bias) {
        EACH_VEC(LOAD_BIAS, 0)
        ALL(BIAS)
    }
    if (t->add) {
        ALL(ADD)
    }
    ALL(STORE)
}

#define TILE(mr, np, nv)                                                                                     \
    static void tile_##mr##_##np##_##nv(const struct tile *t)                                                \
    {                                                                                                        \
        tile_run(t, mr, np, nv);                                                                             \
    }
typedef void tile_fn(const struct tile *t);

/* whole_panel[rows] and one_vector[rows] do one panel, or one vector of it; several[rows] does
 * n_several[rows] panels side by side, where one alone would leave the units idle. */
/* clang-format off */
#if TILE_ROWS == 14
TILE(1, 1, 2) TILE(2, 1, 2) TILE(3, 1, 2) TILE(4, 1, 2) TILE(5, 1, 2) TILE(6, 1, 2) TILE(7, 1, 2)
TILE(8, 1, 2) TILE(9, 1, 2) TILE(10, 1, 2) TILE(11, 1, 2) TILE(12, 1, 2) TILE(13, 1, 2) TILE(14, 1, 2)
TILE(1, 1, 1) TILE(2, 1, 1) TILE(3, 1, 1) TILE(4, 1, 1) TILE(5, 1, 1) TILE(6, 1, 1) TILE(7, 1, 1)
TILE(8, 1, 1) TILE(9, 1, 1) TILE(10, 1, 1) TILE(11, 1, 1) TILE(12, 1, 1) TILE(13, 1, 1) TILE(14, 1, 1)
TILE(1, 4, 2) TILE(2, 4, 2) TILE(3, 4, 2) TILE(4, 2, 2) TILE(5, 2, 2) TILE(6, 2, 2)
static tile_fn *const whole_panel[] = {
    NULL, tile_1_1_2, tile_2_1_2, tile_3_1_2, tile_4_1_2, tile_5_1_2, tile_6_1_2, tile_7_1_2,
    tile_8_1_2, tile_9_1_2, tile_10_1_2, tile_11_1_2, tile_12_1_2, tile_13_1_2, tile_14_1_2};
static tile_fn *const one_vector[] = {
    NULL, tile_1_1_1, tile_2_1_1, tile_3_1_1, tile_4_1_1, tile_5_1_1, tile_6_1_1, tile_7_1_1,
    tile_8_1_1, tile_9_1_1, tile_10_1_1, tile_11_1_1, tile_12_1_1, tile_13_1_1, tile_14_1_1};
static tile_fn *const several[] = {NULL, tile_1_4_2, tile_2_4_2, tile_3_4_2, tile_4_2_2, tile_5_2_2, tile_6_2_2};
static const unsigned char n_several[] = {1, 4, 4, 4, 2, 2, 2};
#elif TILE_ROWS == 6
TILE(1, 1, 1) TILE(2, 1, 1) TILE(3, 1, 1) TILE(4, 1, 1) TILE(5, 1, 1) TILE(6, 1, 1)
TILE(1, 4, 1) TILE(2, 2, 1) TILE(3, 2, 1)
static tile_fn *const whole_panel[] = {
    NULL, tile_1_1_1, tile_2_1_1, tile_3_1_1, tile_4_1_1, tile_5_1_1, tile_6_1_1};
static tile_fn *const *const one_vector = whole_panel;
static tile_fn *const several[] = {NULL, tile_1_4_1, tile_2_2_1, tile_3_2_1};
static const unsigned char n_several[] = {1, 4, 2, 2};
#elif TILE_ROWS == 2
TILE(1, 1, 1) TILE(2, 1, 1)
static tile_fn *const whole_panel[] = {NULL, tile_1_1_1, tile_2_1_1};
static tile_fn *const *const one_vector = whole_panel;
static tile_fn *const several[] = {NULL};
static const unsigned char n_several[] = {1};
#endif
/* clang-format on */
#define N_SEVERAL (sizeof n_several / sizeof *n_several)

static inline void activate_rows(enum sonde_act act, float *y, size_t ldy, size_t rows, size_t n)
{
    for (size_t i = 0; i < rows; i++)
        vec_activate(act, n, y + i * ldy, y + i * ldy);
}

/* One product: what stays the same while tiles are swept. */
struct product {
    const float *w; /* packed */
    size_t k_all, k, n0, n1;
    const float *x;
    size_t ldx;
    float *y;
    size_t ldy;
    sonde_epilogue e; /* with scale 1 for none */
    int stages;       /* an activation and then an addition */
};

/* The epilogue from staged chains z [rows, PANEL] for columns c0 .. c1-1 of panel p. */
static void finish_staged(const struct product *q, const float *z, size_t row, size_t rows, size_t c0,
                          size_t c1)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t c = c0; c < c1; c += LANES) {
            const size_t n = c1 - c < LANES ? c1 - c : LANES;
            vf v = vf_load_n(z + i * PANEL + (c - c0), n);
            if (q->e.scale != 1.0f)
                v = vf_mul(v, vf_set(q->e.scale));
            if (q->e.bias)
                v = vf_add(v, vf_load_n(q->e.bias + c, n));
            if (q->e.act != SONDE_ACT_NONE) {
                float t[LANES];
                vf_store(t, v);
                vec_activate(q->e.act, n, t, t);
                v = vf_load(t);
            }
            if (q->e.add)
                v = vf_add(vf_load_n(q->e.add + (row + i) * q->e.ld_add + (c - q->n0), n), v);
            vf_store_n(q->y + (row + i) * q->ldy + (c - q->n0), v, n);
        }
}

/* Columns c0 .. c1-1 of panel p through a stage: a panel cut by the range, or an activation before an
 * addition. own: t->from is the epilogue's, which has no more columns than these. */
static __attribute__((noinline)) void staged_tile(const struct product *q, struct tile *t, size_t p,
                                                  size_t c0, size_t c1, size_t row, size_t rows, int own)
{
    float z[TILE_ROWS * PANEL] __attribute__((aligned(64)));
    const size_t skip = c0 - p * PANEL, vec = skip / LANES, ld_from = t->ld_from;
    if (own) {
        memset(z, 0, rows * PANEL * sizeof *z);
        for (size_t i = 0; i < rows; i++)
            memcpy(z + i * PANEL + skip, t->from + i * ld_from, (c1 - c0) * sizeof *z);
        t->from = z;
        t->ld_from = PANEL;
    }
    t->y = z;
    t->ldy = PANEL;
    t->scale = 1.0f;
    t->bias = t->add = NULL;
    if (PANEL_VECS > 1 && (c1 - 1 - p * PANEL) / LANES == vec) {
        t->w += vec * LANES;
        t->from = t->from ? t->from + vec * LANES : NULL;
        one_vector[rows](t);
        finish_staged(q, z + skip % LANES, row, rows, c0, c1);
    } else {
        whole_panel[rows](t);
        finish_staged(q, z + skip, row, rows, c0, c1);
    }
    t->ld_from = ld_from;
}

/* Columns of panels p .. p+np-1 that lie in n0 .. n1-1, for `rows` rows from `row` on, with the epilogue.
 * What the tile reads (x, w, k, and from unless its chains begin here) is given in t; where it writes is
 * found here. */
static inline void last_tile(const struct product *q, struct tile *t, size_t p, size_t np, size_t row,
                             size_t rows, int begins)
{
    const size_t c0 = p * PANEL > q->n0 ? p * PANEL : q->n0;
    const size_t c1 = (p + np) * PANEL < q->n1 ? (p + np) * PANEL : q->n1;
    const int own = begins && q->e.from;
    if (begins) {
        t->from = own ? q->e.from + row * q->e.ld_from + (c0 - q->n0) : NULL;
        t->ld_from = q->e.ld_from;
    }
    if (c1 - c0 < np * PANEL || q->stages) {
        staged_tile(q, t, p, c0, c1, row, rows, own);
        return;
    }
    t->y = q->y + row * q->ldy + (c0 - q->n0);
    t->ldy = q->ldy;
    t->scale = q->e.scale;
    t->bias = q->e.bias ? q->e.bias + c0 : NULL;
    t->add = q->e.add ? q->e.add + row * q->e.ld_add + (c0 - q->n0) : NULL;
    t->ld_add = q->e.ld_add;
    (np > 1 ? several : whole_panel)[rows](t);
    if (q->e.act != SONDE_ACT_NONE)
        activate_rows(q->e.act, t->y, t->ldy, rows, c1 - c0);
}

/* The first row (or k) of part i of n_parts that share m rows evenly. */
static inline size_t part_begin(size_t m, size_t n_parts, size_t i)
{
    return m / n_parts * i + (i < m % n_parts ? i : m % n_parts);
}

static void sweep_once(const struct product *q, size_t p0, size_t p1, size_t m)
{
    const size_t n_tiles = (m + TILE_ROWS - 1) / TILE_ROWS;
    struct tile t = {.ldx = q->ldx, .panel_stride = q->k_all * PANEL, .k = q->k};
    for (size_t i = 0; i < n_tiles; i++) {
        const size_t row = part_begin(m, n_tiles, i), rows = part_begin(m, n_tiles, i + 1) - row;
        const size_t wide = rows < N_SEVERAL && !q->stages ? n_several[rows] : 1;
        t.x = q->x + row * q->ldx;
        for (size_t p = p0; p < p1;) {
            const int fits = p + wide <= p1 && p * PANEL >= q->n0 && (p + wide) * PANEL <= q->n1;
            const size_t np = fits ? wide : 1;
            t.w = q->w + p * t.panel_stride;
            last_tile(q, &t, p, np, row, rows, 1);
            p += np;
        }
    }
}

/* Where the chains of panel p begin, into what rests of them between blocks. */
static void begin_rest(const struct product *q, struct tile *t, size_t p, size_t row, size_t rows,
                       float *rest)
{
    const size_t c0 = p * PANEL > q->n0 ? p * PANEL : q->n0;
    const size_t c1 = (p + 1) * PANEL < q->n1 ? (p + 1) * PANEL : q->n1;
    for (size_t i = 0; i < rows; i++) {
        memset(rest + i * t->ld_from, 0, PANEL * sizeof *rest);
        memcpy(rest + i * t->ld_from + (c0 - p * PANEL), q->e.from + (row + i) * q->e.ld_from + (c0 - q->n0),
               (c1 - c0) * sizeof *rest);
    }
    t->from = rest;
}

/* One block of k (from k0 to k1, the last one or not) for rows r0 .. r0+nr-1. */
static void sweep_block(const struct product *q, size_t p0, size_t p1, size_t r0, size_t nr, size_t k0,
                        size_t k1, float *partial)
{
    const size_t ld = BLOCK_PANELS * PANEL, n_tiles = (nr + TILE_ROWS - 1) / TILE_ROWS;
    for (size_t i = 0; i < n_tiles; i++) {
        const size_t row = part_begin(nr, n_tiles, i), rows = part_begin(nr, n_tiles, i + 1) - row;
        struct tile t = {.x = q->x + (r0 + row) * q->ldx + k0, .ldx = q->ldx, .k = k1 - k0, .ld_from = ld};
        for (size_t p = p0; p < p1; p++) {
            float *rest = partial + row * ld + (p - p0) * PANEL;
            t.w = q->w + (p * q->k_all + k0) * PANEL;
            t.from = k0 ? rest : NULL;
            if (k1 == q->k) {
                last_tile(q, &t, p, 1, r0 + row, rows, k0 == 0);
                continue;
            }
            if (k0 == 0 && q->e.from)
                begin_rest(q, &t, p, r0 + row, rows, rest);
            t.y = rest;
            t.ldy = ld;
            t.scale = 1.0f;
            whole_panel[rows](&t);
        }
    }
}

/* k in several blocks: BLOCK_ROWS rows and BLOCK_PANELS panels at a time. */
static __attribute__((noinline)) void sweep_blocks(const struct product *q, size_t p0, size_t p1, size_t m)
{
    float partial[BLOCK_ROWS * BLOCK_PANELS * PANEL] __attribute__((aligned(64)));
    const size_t n_blocks = (q->k + BLOCK_K - 1) / BLOCK_K, n_row_blocks = (m + BLOCK_ROWS - 1) / BLOCK_ROWS;
    for (size_t i = 0; i < n_row_blocks; i++) {
        const size_t r0 = part_begin(m, n_row_blocks, i), nr = part_begin(m, n_row_blocks, i + 1) - r0;
        for (size_t b = 0; b < n_blocks; b++)
            sweep_block(q, p0, p1, r0, nr, part_begin(q->k, n_blocks, b), part_begin(q->k, n_blocks, b + 1),
                        partial);
    }
}

static void matmul(const sonde_packed *w, size_t k, size_t n0, size_t n1, const float *x, size_t ldx,
                   size_t m, float *y, size_t ldy, const sonde_epilogue *epilogue)
{
    struct product q = {
        .w = w->data, .k_all = w->k, .k = k, .n0 = n0, .n1 = n1, .x = x, .ldx = ldx, .y = y, .ldy = ldy};
    if (epilogue)
        q.e = *epilogue;
    if (q.e.scale == 0.0f)
        q.e.scale = 1.0f;
    q.stages = q.e.act != SONDE_ACT_NONE && q.e.add;
    if (m == 0 || n0 >= n1)
        return;
    const size_t last = (n1 + PANEL - 1) / PANEL;
    for (size_t p = n0 / PANEL; p < last; p += BLOCK_PANELS) {
        const size_t end = p + BLOCK_PANELS < last ? p + BLOCK_PANELS : last;
        if (k > BLOCK_K + BLOCK_K / 2 && m > TILE_ROWS)
            sweep_blocks(&q, p, end, m);
        else
            sweep_once(&q, p, end, m);
    }
}

#endif
