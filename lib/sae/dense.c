/* SPDX-License-Identifier: MIT
 * A step while a large part of all latents is active, as at the start of ReLU training: products over blocks
 * of latents, no lists of entries. z, f, dL/df and dL/dz exist for one block at a time.
 *
 * Forward, rows by threads, latents in blocks: z = x W_enc + b_enc, f, and y^ += f W_dec as one chain that
 * goes on from block to block. Backward, blocks of latents by threads: z^T and df^T = W_dec G^T once more as
 * products, the architecture's backward on the entries of each latent, then f^T G and dz^T x with zeros where
 * nothing is active. Sums run in the order of the lists, so that everything equals the sparse step bit for
 * bit but df, which is one chain instead of 16 lanes. */
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "trainer_impl.h"

enum {
    DENSE_ROWS = 7 * BLOCK_ROWS, /* of a forward task at most */
    DENSE_COLUMNS = 128,         /* latents of a forward tile */
    GATHER_BELOW = 9             /* a latent active on less than 1 / 9 of the rows is summed from its list */
};

struct dense_space {
    size_t bytes, per_thread; /* floats of a thread */
    float *thread;
    sonde_packed x_t, g_t, g2_t; /* [d, rows] */
    sonde_packed x, g, g2;       /* [rows, d]; g2_t, g2: of the gate, where it needs them */
};

/* ---- memory ---------------------------------------------------------------------------------- */

/* Row stride of a tile [latents, n]: not a power of two, whose rows would share cache sets. */
static size_t tile_stride(size_t n)
{
    return n / 16 * 16 + 32;
}

static size_t forward_floats(const sonde_trainer *t)
{
    return (size_t)2 * DENSE_ROWS * DENSE_COLUMNS + sonde_packed_floats(t->kernels, DENSE_COLUMNS, t->d_out);
}

static size_t backward_floats(const sonde_trainer *t)
{
    const size_t wide = t->d_in > t->d_out ? t->d_in : t->d_out,
                 n_tiles = t->arch->traits & ARCH_GATE ? 3 : 2;
    return (n_tiles * BLOCK_LATENT + 6) * tile_stride(t->room) + BLOCK_LATENT * wide;
}

/* A packed [k, n] from *at floats on, or nothing at all. */
static bool place(sonde_trainer *t, bool wanted, size_t k, size_t n, sonde_packed *p, size_t offset[],
                  size_t i, size_t *at)
{
    const size_t floats = sonde_packed_floats(t->kernels, k, n);
    offset[i] = wanted ? *at : SIZE_MAX;
    *p = (sonde_packed){.kernels = t->kernels, .k = k, .n = n};
    return !wanted || (floats > 0 && sonde_add(at, *at, floats) && sonde_round_up(at, *at, 16));
}

void dense_free(sonde_trainer *t)
{
    if (!t->tiles)
        return;
    sonde_budget_release(t->budget, t->tiles->bytes);
    free(t->tiles);
    t->tiles = NULL;
}

/* Space for batches of t->room rows, behind its own head; in the place of the lists of a sparse step. */
static enum sonde_code space_new(sonde_trainer *t, sonde_err *err)
{
    struct dense_space s = {0};
    sonde_packed *pack[] = {&s.x_t, &s.g_t, &s.g2_t, &s.x, &s.g, &s.g2};
    const bool gate = t->arch->traits & ARCH_GATE, moves = gate_moves_decoder(t);
    const size_t room = t->room, head = (sizeof s + 63) / 64 * 16;
    const size_t forward = forward_floats(t), backward = backward_floats(t);
    size_t offset[6], at = head, thread_at, threads;
    bool fits = place(t, true, t->d_in, room, pack[0], offset, 0, &at) &&
                place(t, true, t->d_out, room, pack[1], offset, 1, &at) &&
                place(t, gate, t->d_out, room, pack[2], offset, 2, &at) &&
                place(t, true, room, t->d_in, pack[3], offset, 3, &at) &&
                place(t, true, room, t->d_out, pack[4], offset, 4, &at) &&
                place(t, moves, room, t->d_out, pack[5], offset, 5, &at);
    thread_at = at;
    s.per_thread = ((forward > backward ? forward : backward) + 31) / 16 * 16;
    fits = fits && sonde_mul(&threads, s.per_thread, (size_t)t->n_threads) && sonde_add(&at, at, threads) &&
           sonde_mul(&s.bytes, at, sizeof(float));
    columns_free(&t->main, t->budget);
    sonde_sparse_free(&t->z);
    if (!fits || !sonde_budget_hold(t->budget, s.bytes))
        return sonde_fail(err, SONDE_E_MEMORY, "no memory within the limit for products over %zu rows", room);
    float *p = aligned_alloc(64, s.bytes);
    if (!p) {
        sonde_budget_release(t->budget, s.bytes);
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for products over %zu rows", room);
    }
    memset(p, 0, s.bytes);
    for (size_t i = 0; i < 6; i++)
        pack[i]->data = offset[i] == SIZE_MAX ? NULL : p + offset[i];
    s.thread = p + thread_at;
    t->tiles = (struct dense_space *)(void *)p;
    *t->tiles = s;
    return SONDE_OK;
}

size_t dense_max_entries(const sonde_trainer *t, size_t n)
{
    const double share = t->dense_from.share * (double)n * (double)t->F;
    const size_t most = share < (double)t->dense_from.n_entries ? (size_t)share : t->dense_from.n_entries;
    return most > 0 ? most : 1;
}

/* ---- forward --------------------------------------------------------------------------------- */

struct dense_job {
    sonde_trainer *t;
    size_t n;
    size_t rows; /* of a forward task */
};

/* z of one row and n columns: zero where it is not above its bound, f from it, and both counted. */
static void mask_row(const sonde_trainer *t, size_t n, const uint32_t *col, float *z, float *f, double *sum)
{
    const float *bound = t->bound + col[0];
    size_t entries = 0, active = 0;
    double total = sum[ROW_L1];
    if (t->arch->activate)
        t->arch->activate(t, n, col, z, f);
    else
        memcpy(f, z, n * sizeof *f);
    for (size_t j = 0; j < n; j++) {
        const bool above = z[j] > bound[j];
        entries += above;
        f[j] = above ? f[j] : 0;
        z[j] = above ? z[j] : 0;
        active += f[j] != 0;
    }
    for (size_t j = 0; j < n; j++)
        total += f[j];
    sum[ROW_L1] = total;
    sum[ROW_ENTRIES] += (double)entries;
    sum[ROW_ACTIVE] += (double)active;
}

/* y [rows, d_out] += f W_dec over the latents of a block; `begins`: nothing is there yet. */
static void decode(const sonde_trainer *t, const sonde_packed *w, const float *f, size_t rows, bool begins,
                   float *y)
{
    const sonde_epilogue on = {.from = y, .ld_from = t->d_out};
    sonde_matmul(w, 0, 0, t->d_out, f, DENSE_COLUMNS, rows, y, t->d_out, begins ? NULL : &on);
}

static void forward_task(void *arg, size_t task, int thread)
{
    const struct dense_job *q = arg;
    sonde_trainer *t = q->t;
    const size_t r0 = task * q->rows, rows = q->n - r0 < q->rows ? q->n - r0 : q->rows, d = t->d_out;
    float *z = t->tiles->thread + (size_t)thread * t->tiles->per_thread, *f = z + DENSE_ROWS * DENSE_COLUMNS,
          *packed = f + DENSE_ROWS * DENSE_COLUMNS;
    const float *x = t->xc + r0 * t->d_in;
    const sonde_epilogue bias = {.bias = t->p[P_B_ENC].w};
    uint32_t col[DENSE_COLUMNS];
    const bool gate = t->arch->traits & ARCH_GATE, skip = t->w_skip.data;
    trainer_skip(t, r0, rows);
    for (size_t c0 = 0; c0 < t->F; c0 += DENSE_COLUMNS) {
        const size_t nc = t->F - c0 < DENSE_COLUMNS ? t->F - c0 : DENSE_COLUMNS;
        const sonde_packed w = {.kernels = t->kernels, .k = nc, .n = d, .data = packed};
        for (size_t j = 0; j < nc; j++)
            col[j] = (uint32_t)(c0 + j);
        sonde_matmul(&t->w_enc, 0, c0, c0 + nc, x, t->d_in, rows, z, DENSE_COLUMNS, &bias);
        for (size_t r = 0; r < rows; r++)
            mask_row(t, nc, col, z + r * DENSE_COLUMNS, f + r * DENSE_COLUMNS, t->row_sum + (r0 + r) * N_ROW);
        sonde_pack(&w, 0, nc, 0, d, t->p[P_W_DEC].w + c0 * d, d, 1);
        decode(t, &w, f, rows, c0 == 0 && !skip, t->G[0] + r0 * d);
        if (gate)
            decode(t, &w, z, rows, c0 == 0 && !skip, t->G2 + r0 * d);
    }
    for (size_t r = r0; r < r0 + rows; r += BLOCK_ROWS)
        trainer_losses(t, q->n, r / BLOCK_ROWS);
}

enum sonde_code dense_forward(sonde_trainer *t, size_t n, sonde_pool *pool, sonde_err *err)
{
    enum sonde_code code;
    if (!t->tiles && (code = space_new(t, err)))
        return code;
    struct dense_job q = {t, n, DENSE_ROWS};
    const size_t share = (n + (size_t)t->n_threads - 1) / (size_t)t->n_threads,
                 rounded = (share + BLOCK_ROWS - 1) / BLOCK_ROWS * BLOCK_ROWS;
    if (rounded < q.rows)
        q.rows = rounded;
    sonde_pool_run(pool, (n + q.rows - 1) / q.rows, forward_task, &q);
    return SONDE_OK;
}

/* ---- backward -------------------------------------------------------------------------------- */

/* Rows of a block into all packed forms. */
static void pack_task(void *arg, size_t block, int thread)
{
    (void)thread;
    const struct dense_job *q = arg;
    const sonde_trainer *t = q->t;
    const struct dense_space *s = t->tiles;
    const size_t r0 = block * BLOCK_ROWS, rows = q->n - r0 < BLOCK_ROWS ? q->n - r0 : BLOCK_ROWS;
    const struct {
        const sonde_packed *columns, *rows;
        const float *from;
        size_t d;
    } each[] = {{&s->x_t, &s->x, t->xc, t->d_in},
                {&s->g_t, &s->g, t->G[0], t->d_out},
                {&s->g2_t, &s->g2, t->G2, t->d_out}};
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        const float *from = each[i].from + r0 * each[i].d;
        if (each[i].columns->data)
            sonde_pack(each[i].columns, 0, each[i].d, r0, rows, from, 1, each[i].d);
        if (each[i].rows->data)
            sonde_pack(each[i].rows, r0, rows, 0, each[i].d, from, each[i].d, 1);
    }
}

/* What a thread works with: tiles of a block of latents, lists of one latent. */
struct block_space {
    size_t ld;
    float *z, *df, *gate; /* [BLOCK_LATENT, ld]; then f, dz, z of those that are summed as products */
    uint32_t *row, *id;   /* [ld] */
    float *list[4];       /* z, f, df, dz of the entries */
    float *sums;          /* [BLOCK_LATENT, d] */
};

static struct block_space space_of(const sonde_trainer *t, size_t n, int thread)
{
    const size_t ld = tile_stride(n), tile = BLOCK_LATENT * ld;
    const bool gate = t->arch->traits & ARCH_GATE;
    float *p = t->tiles->thread + (size_t)thread * t->tiles->per_thread;
    struct block_space b = {.ld = ld, .z = p, .df = p + tile, .gate = gate ? p + 2 * tile : NULL};
    p += (gate ? 3 : 2) * tile;
    b.row = (uint32_t *)(void *)p;
    b.id = b.row + ld;
    for (int i = 0; i < 4; i++)
        b.list[i] = p + (size_t)(2 + i) * ld;
    b.sums = p + 6 * ld;
    return b;
}

static void fill_tiles(const sonde_trainer *t, const struct block_space *b, size_t n, size_t i0, size_t m)
{
    const struct dense_space *s = t->tiles;
    const float *dec = t->p[P_W_DEC].w + i0 * t->d_out;
    sonde_matmul(&s->x_t, 0, 0, n, t->p[P_W_ENC].w + i0 * t->d_in, t->d_in, m, b->z, b->ld, NULL);
    for (size_t i = 0; i < m; i++) {
        float *z = b->z + i * b->ld;
        const float bias = t->p[P_B_ENC].w[i0 + i];
        for (size_t r = 0; r < n; r++)
            z[r] += bias;
    }
    sonde_matmul(&s->g_t, 0, 0, n, dec, t->d_out, m, b->df, b->ld, NULL);
    if (b->gate)
        sonde_matmul(&s->g2_t, 0, 0, n, dec, t->d_out, m, b->gate, b->ld, NULL);
}

/* The list of latent i, which is row `at` of the tiles. */
static struct entries list_of(const sonde_trainer *t, const struct block_space *b, size_t n, size_t i,
                              size_t at)
{
    const float *df = b->df + at * b->ld, *gate = b->gate ? b->gate + at * b->ld : NULL;
    float *const *list = b->list;
    struct entries e = {.row = b->row, .z = list[0], .f = list[0], .df = list[2], .dz = list[3]};
    e.n = sonde_scan_above(t->kernels, b->z + at * b->ld, n, t->bound[i], 0, b->row, list[0]);
    if (t->arch->activate) {
        for (size_t j = 0; j < e.n; j++)
            b->id[j] = (uint32_t)i;
        t->arch->activate(t, e.n, b->id, e.z, list[1]);
        e.f = list[1];
    }
    for (size_t j = 0; j < e.n; j++)
        list[2][j] = df[b->row[j]];
    for (size_t j = 0; b->gate && j < e.n; j++)
        list[3][j] = gate[b->row[j]];
    return e;
}

/* v at its rows and zero elsewhere. */
static void spread(const struct entries *e, const float *v, size_t n, float *to)
{
    memset(to, 0, n * sizeof *to);
    for (size_t j = 0; j < e->n; j++)
        to[e->row[j]] = v[j];
}

static void copy_sums(const struct block_space *b, const size_t *latent, size_t n, size_t d, float *to)
{
    for (size_t s = 0; s < n; s++)
        memcpy(to + latent[s] * d, b->sums + s * d, d * sizeof *to);
}

/* The sums of latent_sums for the latents whose values were spread. */
static void product_sums(sonde_trainer *t, const struct block_space *b, const size_t *latent, size_t n)
{
    const struct dense_space *s = t->tiles;
    const size_t d = t->d_out, d_in = t->d_in;
    const sonde_epilogue on = {.from = b->sums, .ld_from = d};
    if (n == 0)
        return;
    sonde_matmul(&s->g, 0, 0, d, b->z, b->ld, n, b->sums, d, NULL);
    if (gate_moves_decoder(t))
        sonde_matmul(&s->g2, 0, 0, d, b->gate, b->ld, n, b->sums, d, &on);
    copy_sums(b, latent, n, d, t->p[P_W_DEC].g);
    sonde_matmul(&s->x, 0, 0, d_in, b->df, b->ld, n, b->sums, d_in, NULL);
    copy_sums(b, latent, n, d_in, t->p[P_W_ENC].g);
}

static void latent_task(void *arg, size_t block, int thread)
{
    const struct dense_job *q = arg;
    sonde_trainer *t = q->t;
    const size_t n = q->n, i0 = block * BLOCK_LATENT, m = t->F - i0 < BLOCK_LATENT ? t->F - i0 : BLOCK_LATENT;
    const struct block_space b = space_of(t, n, thread);
    struct column_gradient g[BLOCK_LATENT] = {{0}};
    size_t spreads[BLOCK_LATENT], n_spread = 0;
    fill_tiles(t, &b, n, i0, m);
    for (size_t i = i0; i < i0 + m; i++) {
        const struct entries e = list_of(t, &b, n, i, i - i0);
        latent_entries(t, i, &e, &g[i - i0]);
        if (!(t->touched[i] = latent_moves(t, i, e.n, &g[i - i0])))
            continue;
        if (e.n < n / GATHER_BELOW) {
            latent_sums(t, i, &e);
            continue;
        }
        spread(&e, e.f, n, b.z + n_spread * b.ld); /* rows of the tiles that have been read */
        spread(&e, e.dz, n, b.df + n_spread * b.ld);
        if (gate_moves_decoder(t))
            spread(&e, e.z, n, b.gate + n_spread * b.ld);
        spreads[n_spread++] = i;
    }
    product_sums(t, &b, spreads, n_spread);
    for (size_t i = i0; i < i0 + m; i++)
        if (t->touched[i])
            latent_end(t, i, n, &g[i - i0]);
    latent_block_end(t, block);
}

void dense_backward(sonde_trainer *t, size_t n, sonde_pool *pool)
{
    struct dense_space *s = t->tiles;
    struct dense_job q = {.t = t, .n = n};
    s->x_t.n = s->g_t.n = s->g2_t.n = s->x.k = s->g.k = s->g2.k = n;
    sonde_pool_run(pool, (n + BLOCK_ROWS - 1) / BLOCK_ROWS, pack_task, &q);
    sonde_pool_run(pool, (t->F + BLOCK_LATENT - 1) / BLOCK_LATENT, latent_task, &q);
}
