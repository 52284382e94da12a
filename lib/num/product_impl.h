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

#define PANEL        (LANES * PANEL_VECS)
#define BLOCK_PANELS (128 / PANEL)   /* panels swept together */
#define BLOCK_ROWS   (8 * TILE_ROWS) /* rows whose chains rest in `partial` */
#ifndef BLOCK_K
#define BLOCK_K 512
#endif
#define ALWAYS_INLINE static inline __attribute__((always_inline))

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
    vf acc[TILE_ROWS][4 * PANEL_VECS];
    const int nc = np * nv;
    const float *w = t->w;
    const size_t ldx = t->ldx, stride = t->panel_stride;

#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 16
        for (int j = 0; j < nc; j++)
            acc[i][j] =
                t->from
                    ? vf_load(t->from + (size_t)i * t->ld_from + (size_t)(j / nv * PANEL + j % nv * LANES))
                    : vf_set(0.0f);

    const float *x0 = t->x, *x3 = x0 + 3 * ldx, *x6 = x3 + 3 * ldx, *x9 = x6 + 3 * ldx, *x12 = x9 + 3 * ldx;
    for (size_t k = t->k; k > 0; k--) {
        vf b[4 * PANEL_VECS];
#pragma GCC unroll 16
        for (int j = 0; j < nc; j++)
            b[j] = vf_load(w + (size_t)(j / nv) * stride + (size_t)(j % nv * LANES));
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++) {
            const float *row = i < 3 ? x0 : i < 6 ? x3 : i < 9 ? x6 : i < 12 ? x9 : x12;
            const vf a = vf_set(row[(size_t)(i % 3) * ldx]);
#pragma GCC unroll 16
            for (int j = 0; j < nc; j++)
                acc[i][j] = vf_fma(a, b[j], acc[i][j]);
        }
        w += PANEL;
        x0++, x3++, x6++, x9++, x12++;
    }

#define EACH(expr)                                                                                           \
    _Pragma("GCC unroll 16") for (int i = 0; i < mr; i++)                                                    \
        _Pragma("GCC unroll 16") for (int j = 0; j < nc; j++)                                                \
    {                                                                                                        \
        const size_t at = (size_t)(j / nv * PANEL + j % nv * LANES);                                         \
        expr;                                                                                                \
    }
    if (t->scale != 1.0f)
        EACH((void)at; acc[i][j] = vf_mul(acc[i][j], vf_set(t->scale)))
    if (t->bias)
        EACH(acc[i][j] = vf_add(acc[i][j], vf_load(t->bias + at)))
    if (t->add)
        EACH(acc[i][j] = vf_add(vf_load(t->add + (size_t)i * t->ld_add + at), acc[i][j]))
    EACH(vf_store(t->y + (size_t)i * t->ldy + at, acc[i][j]))
#undef EACH
}

#define TILE(mr, np, nv)                                                                                     \
    static void tile_##mr##_##np##_##nv(const struct tile *t)                                                \
    {                                                                                                        \
        tile_run(t, mr, np, nv);                                                                             \
    }
typedef void tile_fn(const struct tile *t);

#if TILE_ROWS == 14
TILE(1, 1, 2)
TILE(2, 1, 2) TILE(3, 1, 2) TILE(4, 1, 2) TILE(5, 1, 2) TILE(6, 1, 2) TILE(7, 1, 2) TILE(8, 1, 2)
    TILE(9, 1, 2) TILE(10, 1, 2) TILE(11, 1, 2) TILE(12, 1, 2) TILE(13, 1, 2) TILE(14, 1, 2) TILE(1, 1, 1)
        TILE(2, 1, 1) TILE(3, 1, 1) TILE(4, 1, 1) TILE(5, 1, 1) TILE(6, 1, 1) TILE(7, 1, 1) TILE(8, 1, 1)
            TILE(9, 1, 1) TILE(10, 1, 1) TILE(11, 1, 1) TILE(12, 1, 1) TILE(13, 1, 1) TILE(14, 1, 1)
                TILE(1, 4, 2) TILE(2, 4, 2) TILE(3, 4, 2) TILE(4, 2, 2) TILE(5, 2, 2)
                    TILE(6, 2, 2) static tile_fn *const whole_panel[] = {
                        NULL,        tile_1_1_2,  tile_2_1_2,  tile_3_1_2,  tile_4_1_2,
                        tile_5_1_2,  tile_6_1_2,  tile_7_1_2,  tile_8_1_2,  tile_9_1_2,
                        tile_10_1_2, tile_11_1_2, tile_12_1_2, tile_13_1_2, tile_14_1_2};
static tile_fn *const one_vector[] = {NULL,        tile_1_1_1,  tile_2_1_1,  tile_3_1_1,  tile_4_1_1,
                                      tile_5_1_1,  tile_6_1_1,  tile_7_1_1,  tile_8_1_1,  tile_9_1_1,
                                      tile_10_1_1, tile_11_1_1, tile_12_1_1, tile_13_1_1, tile_14_1_1};
static tile_fn *const several[] = {NULL,       tile_1_4_2, tile_2_4_2, tile_3_4_2,
                                   tile_4_2_2, tile_5_2_2, tile_6_2_2};
static const unsigned char n_several[] = {1, 4, 4, 4, 2, 2, 2};
#elif TILE_ROWS == 6
TILE(1, 1, 1)
TILE(2, 1, 1) TILE(3, 1, 1) TILE(4, 1, 1) TILE(5, 1, 1) TILE(6, 1, 1) TILE(1, 4, 1) TILE(2, 2, 1)
    TILE(3, 2, 1) static tile_fn *const whole_panel[] = {NULL,       tile_1_1_1, tile_2_1_1, tile_3_1_1,
                                                         tile_4_1_1, tile_5_1_1, tile_6_1_1};
static tile_fn *const *const one_vector = whole_panel;
static tile_fn *const several[] = {NULL, tile_1_4_1, tile_2_2_1, tile_3_2_1};
static const unsigned char n_several[] = {1, 4, 2, 2};
#elif TILE_ROWS == 2
TILE(1, 1, 1) TILE(2, 1, 1) static tile_fn *const whole_panel[] = {NULL, tile_1_1_1, tile_2_1_1};
static tile_fn *const *const one_vector = whole_panel;
static tile_fn *const several[] = {NULL};
static const unsigned char n_several[] = {1};
#endif
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
};

/* The epilogue from staged chains z [rows, PANEL] for columns c0 .. c1-1 of panel p. */
static void finish_staged(const struct product *q, const float *z, size_t row, size_t rows, size_t c0,
                          size_t c1)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t c = c0; c < c1; c += LANES) {
            const size_t n = c1 - c < LANES ? c1 - c : LANES;
            float t[LANES];
            vf v = vf_load_n(z + i * PANEL + (c - c0), n);
            if (q->e.scale != 1.0f)
                v = vf_mul(v, vf_set(q->e.scale));
            if (q->e.bias)
                v = vf_add(v, vf_load_n(q->e.bias + c, n));
            if (q->e.act != SONDE_ACT_NONE) {
                vf_store(t, v);
                vec_activate(q->e.act, n, t, t);
                v = vf_load(t);
            }
            if (q->e.add)
                v = vf_add(vf_load_n(q->e.add + (row + i) * q->e.ld_add + (c - q->n0), n), v);
            vf_store_n(q->y + (row + i) * q->ldy + (c - q->n0), v, n);
        }
}

/* A tile of the last block of k (or the only one): chains from `from` or 0, then the epilogue.
 * Columns of panels p .. p+np-1 that lie in n0 .. n1-1. */
static void last_tile(const struct product *q, size_t p, size_t np, size_t row, size_t rows, size_t k0,
                      const float *from, size_t ld_from)
{
    const size_t c0 = p * PANEL > q->n0 ? p * PANEL : q->n0;
    const size_t c1 = (p + np) * PANEL < q->n1 ? (p + np) * PANEL : q->n1;
    struct tile t = {.x = q->x + row * q->ldx + k0,
                     .ldx = q->ldx,
                     .w = q->w + (p * q->k_all + k0) * PANEL,
                     .panel_stride = q->k_all * PANEL,
                     .k = q->k - k0,
                     .from = from,
                     .ld_from = ld_from,
                     .scale = 1.0f};
    if (c1 - c0 < np * PANEL || (q->e.act != SONDE_ACT_NONE && q->e.add)) {
        float z[TILE_ROWS * PANEL] __attribute__((aligned(64)));
        const size_t skip = c0 - p * PANEL, vec = skip / LANES;
        const int narrow = PANEL_VECS > 1 && (c1 - 1 - p * PANEL) / LANES == vec;
        t.y = z;
        t.ldy = PANEL;
        if (narrow) {
            t.w += vec * LANES;
            t.from = from ? from + vec * LANES : NULL;
            one_vector[rows](&t);
            finish_staged(q, z + skip % LANES, row, rows, c0, c1);
        } else {
            whole_panel[rows](&t);
            finish_staged(q, z + skip, row, rows, c0, c1);
        }
        return;
    }
    t.y = q->y + row * q->ldy + (c0 - q->n0);
    t.ldy = q->ldy;
    t.scale = q->e.scale;
    t.bias = q->e.bias ? q->e.bias + c0 : NULL;
    t.add = q->e.add ? q->e.add + row * q->e.ld_add + (c0 - q->n0) : NULL;
    t.ld_add = q->e.ld_add;
    (np > 1 ? several : whole_panel)[rows](&t);
    if (q->e.act != SONDE_ACT_NONE)
        activate_rows(q->e.act, t.y, t.ldy, rows, c1 - c0);
}

/* The rows of tile i of n_tiles that share m rows evenly. */
static inline size_t tile_begin(size_t m, size_t n_tiles, size_t i)
{
    return m / n_tiles * i + (i < m % n_tiles ? i : m % n_tiles);
}

static void sweep_once(const struct product *q, size_t p0, size_t p1, size_t m)
{
    const size_t n_tiles = (m + TILE_ROWS - 1) / TILE_ROWS;
    for (size_t i = 0; i < n_tiles; i++) {
        const size_t row = tile_begin(m, n_tiles, i), rows = tile_begin(m, n_tiles, i + 1) - row;
        const size_t wide = rows < N_SEVERAL && q->e.act * (q->e.add != NULL) == 0 ? n_several[rows] : 1;
        for (size_t p = p0; p < p1;) {
            const int fits = wide > 1 && p + wide <= p1 && p * PANEL >= q->n0 && (p + wide) * PANEL <= q->n1;
            const size_t np = fits ? wide : 1;
            last_tile(q, p, np, row, rows, 0, NULL, 0);
            p += np;
        }
    }
}

/* k in several blocks: BLOCK_ROWS rows and BLOCK_PANELS panels at a time. */
static __attribute__((noinline)) void sweep_blocks(const struct product *q, size_t p0, size_t p1, size_t m)
{
    float partial[BLOCK_ROWS * BLOCK_PANELS * PANEL] __attribute__((aligned(64)));
    const size_t ld = BLOCK_PANELS * PANEL, n_blocks = (q->k + BLOCK_K - 1) / BLOCK_K;
    const size_t n_row_blocks = (m + BLOCK_ROWS - 1) / BLOCK_ROWS;
    for (size_t rb = 0; rb < n_row_blocks; rb++) {
        const size_t r0 = tile_begin(m, n_row_blocks, rb), nr = tile_begin(m, n_row_blocks, rb + 1) - r0;
        const size_t n_tiles = (nr + TILE_ROWS - 1) / TILE_ROWS;
        for (size_t kb = 0; kb < n_blocks; kb++) {
            const size_t k0 = tile_begin(q->k, n_blocks, kb), k1 = tile_begin(q->k, n_blocks, kb + 1);
            for (size_t i = 0; i < n_tiles; i++) {
                const size_t row = tile_begin(nr, n_tiles, i), rows = tile_begin(nr, n_tiles, i + 1) - row;
                for (size_t p = p0; p < p1; p++) {
                    float *rest = partial + row * ld + (p - p0) * PANEL;
                    const struct tile t = {.x = q->x + (r0 + row) * q->ldx + k0,
                                           .ldx = q->ldx,
                                           .w = q->w + (p * q->k_all + k0) * PANEL,
                                           .k = k1 - k0,
                                           .from = kb ? rest : NULL,
                                           .ld_from = ld,
                                           .y = rest,
                                           .ldy = ld,
                                           .scale = 1.0f};
                    if (kb + 1 < n_blocks)
                        whole_panel[rows](&t);
                    else
                        last_tile(q, p, 1, r0 + row, rows, k0, rest, ld);
                }
            }
        }
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
