/* SPDX-License-Identifier: MIT */
#include "infer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "../num/activation.h"
#include "../num/sparse.h"
#include "encode_impl.h"

enum { CHUNK_ROWS = 4096, TASK_OF_ROWS = 64, TASK_OF_LATENTS = 256 };

struct sonde_encoder {
    const sonde_dict *d;
    sonde_arena *arena;
    sonde_budget *budget;
    sonde_packed w, skip; /* [d_in, F], [d_in, d_out]; skip.data NULL without */
    sonde_packed16 w16;   /* w in bfloat16; data NULL without */
    float *bound;         /* [F]: JUMPRELU max(threshold, 0); RELU and GATED 0 */
    float *gain;          /* [F]: GATED exp(r_mag) */
    sonde_encode_space *space;
    int n_threads;      /* of space */
    struct buffer x_in; /* rows of a chunk as the encoder takes them */
    sonde_sparse part;  /* a chunk's latents, when there are several chunks */
};

/* ---- packing */

struct pack_job {
    const sonde_packed *w;
    const sonde_packed16 *w16; /* or NULL */
    const float *src;
    size_t n, ld;
};

static void pack_task(void *arg, size_t task, int thread)
{
    const struct pack_job *j = arg;
    const size_t n0 = task * TASK_OF_LATENTS, n = j->n - n0 < TASK_OF_LATENTS ? j->n - n0 : TASK_OF_LATENTS;
    (void)thread;
    sonde_pack(j->w, 0, j->w->k, n0, n, j->src + n0 * j->ld, 1, j->ld);
    if (j->w16)
        sonde_pack16(j->w16, n0, n, j->src + n0 * j->ld, j->ld);
}

/* W [k, n] from rows src [n, k], also in bfloat16 unless w16 is NULL. */
static enum sonde_code pack_rows(sonde_encoder *e, const sonde_kernels *kernels, size_t k, size_t n,
                                 const float *src, sonde_pool *pool, sonde_packed *w, sonde_packed16 *w16,
                                 sonde_err *err)
{
    const size_t floats = sonde_packed_floats(kernels, k, n);
    *w = (sonde_packed){kernels, k, n, NULL};
    if (floats == 0)
        return sonde_fail(err, SONDE_E_USAGE, "a dictionary of %zu latents on %zu dimensions", n, k);
    if (!(w->data = sonde_arena_get(e->arena, floats, sizeof *w->data, err)))
        return SONDE_E_MEMORY;
    if (w16) {
        const size_t words = sonde_packed16_words(kernels, k, n);
        *w16 = (sonde_packed16){kernels, k, n, NULL};
        if (words == 0)
            return sonde_fail(err, SONDE_E_MEMORY, "%zu by %zu numbers do not fit", n, k);
        if (!(w16->data = sonde_arena_get(e->arena, words, sizeof *w16->data, err)))
            return SONDE_E_MEMORY;
    }
    struct pack_job job = {w, w16, src, n, k};
    sonde_pool_run(pool, (n + TASK_OF_LATENTS - 1) / TASK_OF_LATENTS, pack_task, &job);
    return SONDE_OK;
}

static enum sonde_code make_bounds(sonde_encoder *e, const sonde_kernels *kernels, sonde_err *err)
{
    const sonde_dict *d = e->d;
    if (!(e->bound = sonde_arena_get(e->arena, d->n_latents, sizeof *e->bound, err)))
        return SONDE_E_MEMORY;
    if (d->act == SONDE_DICT_JUMPRELU)
        for (size_t i = 0; i < d->n_latents; i++)
            e->bound[i] = d->threshold[i] > 0.0f ? d->threshold[i] : 0.0f;
    if (d->act != SONDE_DICT_GATED)
        return SONDE_OK;
    if (!(e->gain = sonde_arena_get(e->arena, d->n_latents, sizeof *e->gain, err)))
        return SONDE_E_MEMORY;
    sonde_vec_exp(kernels, d->n_latents, d->r_mag, e->gain);
    return SONDE_OK;
}

static enum sonde_code check_dict(const sonde_dict *d, sonde_err *err)
{
    if ((d->act == SONDE_DICT_TOPK || d->act == SONDE_DICT_GROUPMAX) && (d->k == 0 || d->k > d->n_latents))
        return sonde_fail(err, SONDE_E_USAGE, "k is %zu, the dictionary has %zu latents", d->k, d->n_latents);
    if (d->act == SONDE_DICT_GROUPMAX && d->n_latents % d->k)
        return sonde_fail(err, SONDE_E_USAGE, "%zu latents do not divide into %zu groups", d->n_latents,
                          d->k);
    if (d->pre_bias && d->d_in != d->d_out)
        return sonde_fail(err, SONDE_E_USAGE,
                          "b_dec has %zu dimensions and cannot be subtracted from inputs of %zu", d->d_out,
                          d->d_in);
    return SONDE_OK;
}

/* Groups are picked in float32 only. */
static bool gains_from_bf16(const sonde_dict *d, const sonde_kernels *kernels)
{
    return d->act != SONDE_DICT_GROUPMAX && sonde_bf16_available(kernels);
}

/* Buffers for the pool's threads. */
static enum sonde_code fit_threads(sonde_encoder *e, sonde_pool *pool, sonde_err *err)
{
    const int n = sonde_pool_threads(pool);
    sonde_encode_space *space;
    if (e->space && n <= e->n_threads)
        return SONDE_OK;
    const enum sonde_code code = sonde_encode_space_new(n, e->budget, &space, err);
    if (code)
        return code;
    sonde_encode_space_free(e->space);
    e->space = space;
    e->n_threads = n;
    return SONDE_OK;
}

enum sonde_code sonde_encoder_new(const sonde_dict *d, const sonde_kernels *kernels, bool bf16,
                                  sonde_pool *pool, sonde_budget *budget, sonde_encoder **out, sonde_err *err)
{
    enum sonde_code code = check_dict(d, err);
    if (code)
        return code;
    sonde_encoder *e = calloc(1, sizeof *e);
    if (!e)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for an encoder");
    e->d = d;
    e->budget = e->part.budget = budget;
    if (!(e->arena = sonde_arena_new(budget, err)))
        code = SONDE_E_MEMORY;
    if (!code)
        code = pack_rows(e, kernels, d->d_in, d->n_latents, d->w_enc, pool, &e->w,
                         bf16 && gains_from_bf16(d, kernels) ? &e->w16 : NULL, err);
    if (!code && d->w_skip)
        code = pack_rows(e, kernels, d->d_in, d->d_out, d->w_skip, pool, &e->skip, NULL, err);
    if (!code)
        code = make_bounds(e, kernels, err);
    if (!code)
        code = fit_threads(e, pool, err);
    if (code)
        sonde_encoder_free(e);
    else
        *out = e;
    return code;
}

void sonde_encoder_free(sonde_encoder *e)
{
    if (!e)
        return;
    sonde_encode_space_free(e->space);
    sonde_buffer_free(&e->x_in, e->budget);
    sonde_sparse_free(&e->part);
    sonde_arena_free(e->arena);
    free(e);
}

/* ---- norms */

/* What the norm of a row is: normalised = (x - mean) scale, undone by y undo + mean. */
struct row_norm {
    float mean, scale, undo;
};

static struct row_norm layer_norm_of(const sonde_dict *d, const float *x)
{
    double mean = 0, square = 0;
    for (size_t i = 0; i < d->d_in; i++)
        mean += (double)x[i];
    mean /= (double)d->d_in;
    for (size_t i = 0; i < d->d_in; i++)
        square += ((double)x[i] - mean) * ((double)x[i] - mean);
    const double std = sqrt(square / (double)(d->norm_unbiased && d->d_in > 1 ? d->d_in - 1 : d->d_in));
    return (struct row_norm){(float)mean, (float)(1.0 / (std + (double)d->norm_eps)), (float)std};
}

/* A zero row stays zero. */
static struct row_norm constant_norm_of(const sonde_kernels *kernels, const sonde_dict *d, const float *x)
{
    const double norm = sqrt(sonde_sum_squares(kernels, d->d_in, x)), root = sqrt((double)d->d_in);
    if (norm == 0.0)
        return (struct row_norm){0.0f, 1.0f, 1.0f};
    return (struct row_norm){0.0f, (float)(root / norm), (float)(norm / root)};
}

static struct row_norm norm_of(const sonde_encoder *e, const float *x)
{
    switch (e->d->norm) {
    case SONDE_DICT_NORM_LAYER:
        return layer_norm_of(e->d, x);
    case SONDE_DICT_NORM_CONSTANT:
        return constant_norm_of(e->w.kernels, e->d, x);
    default:
        return (struct row_norm){0.0f, 1.0f, 1.0f};
    }
}

/* ---- encoding */

struct prepare_job {
    const sonde_encoder *e;
    const float *x;
    size_t ldx, n;
    float *x_in;
};

static void prepare_task(void *arg, size_t task, int thread)
{
    const struct prepare_job *j = arg;
    const sonde_dict *d = j->e->d;
    const size_t end = (task + 1) * TASK_OF_ROWS < j->n ? (task + 1) * TASK_OF_ROWS : j->n;
    (void)thread;
    for (size_t r = task * TASK_OF_ROWS; r < end; r++) {
        const float *x = j->x + r * j->ldx;
        float *to = j->x_in + r * d->d_in;
        const struct row_norm norm = norm_of(j->e, x);
        if (d->norm == SONDE_DICT_NORM_NONE)
            memcpy(to, x, d->d_in * sizeof *to);
        else
            for (size_t i = 0; i < d->d_in; i++)
                to[i] = (x[i] - norm.mean) * norm.scale;
        if (d->pre_bias)
            sonde_vec_sub(j->e->w.kernels, d->d_in, to, d->b_dec, to);
    }
}

/* f = 1[pi > 0] relu(exp(r_mag) (pi - b_gate) + b_mag) from the gates that are open; zeros leave. */
static void apply_magnitudes(const sonde_encoder *e, sonde_sparse *f)
{
    const sonde_dict *d = e->d;
    uint64_t kept = 0;
    for (size_t r = 0; r < f->n_rows; r++) {
        const uint64_t from = f->start[r];
        f->start[r] = kept;
        for (uint64_t i = from; i < f->start[r + 1]; i++) {
            const uint32_t c = f->col[i];
            const float m = fmaf(e->gain[c], f->value[i] - d->b_enc[c], d->b_mag[c]);
            f->col[kept] = c;
            f->value[kept] = m;
            kept += m > 0.0f;
        }
    }
    f->start[f->n_rows] = kept;
}

static sonde_encoding encoding_of(const sonde_encoder *e)
{
    const sonde_dict *d = e->d;
    sonde_encoding s = {.w = &e->w, .bias = d->b_enc, .k = d->k, .bound = e->bound};
    if (e->w16.data) {
        s.w16 = &e->w16;
        s.rows = d->w_enc;
    }
    s.pick = d->act == SONDE_DICT_TOPK       ? SONDE_PICK_ROW
             : d->act == SONDE_DICT_GROUPMAX ? SONDE_PICK_GROUP
                                             : SONDE_PICK_ABOVE;
    return s;
}

static enum sonde_code encode_chunk(sonde_encoder *e, const float *x, size_t ldx, size_t n, sonde_pool *pool,
                                    sonde_sparse *f, sonde_err *err)
{
    const sonde_dict *d = e->d;
    const sonde_encoding encoding = encoding_of(e);
    if (d->pre_bias || d->norm != SONDE_DICT_NORM_NONE) {
        size_t floats, bytes;
        if (!sonde_mul(&floats, n, d->d_in) || !sonde_mul(&bytes, floats, sizeof(float)) ||
            !sonde_buffer_grow(&e->x_in, bytes, e->budget))
            return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu rows of %zu", n, d->d_in);
        struct prepare_job job = {e, x, ldx, n, e->x_in.p};
        sonde_pool_run(pool, (n + TASK_OF_ROWS - 1) / TASK_OF_ROWS, prepare_task, &job);
        x = e->x_in.p;
        ldx = d->d_in;
    }
    const enum sonde_code code = sonde_encode_rows(&encoding, x, ldx, n, pool, e->space, f, NULL, err);
    if (!code && d->act == SONDE_DICT_GATED)
        apply_magnitudes(e, f);
    return code;
}

/* Append a chunk to what is there. */
static enum sonde_code append(sonde_sparse *f, const sonde_sparse *part, sonde_err *err)
{
    const size_t have = f->n_rows ? (size_t)f->start[f->n_rows] : 0, more = (size_t)part->start[part->n_rows];
    const size_t want = have + more > f->room ? (have + more) / 2 * 3 : have + more;
    const enum sonde_code code = sonde_sparse_more(f, f->n_rows + part->n_rows, want, err);
    if (code)
        return code;
    if (more) {
        memcpy(f->col + have, part->col, more * sizeof *f->col);
        memcpy(f->value + have, part->value, more * sizeof *f->value);
    }
    for (size_t r = 0; r <= part->n_rows; r++)
        f->start[f->n_rows + r] = have + part->start[r];
    f->n_rows += part->n_rows;
    return SONDE_OK;
}

enum sonde_code sonde_encoder_encode(sonde_encoder *e, const float *x, size_t ldx, size_t n, sonde_pool *pool,
                                     sonde_sparse *f, sonde_err *err)
{
    enum sonde_code code = fit_threads(e, pool, err);
    if (code || n <= CHUNK_ROWS)
        return code ? code : encode_chunk(e, x, ldx, n, pool, f, err);
    f->n_rows = 0;
    for (size_t r = 0; !code && r < n; r += CHUNK_ROWS) {
        code =
            encode_chunk(e, x + r * ldx, ldx, n - r < CHUNK_ROWS ? n - r : CHUNK_ROWS, pool, &e->part, err);
        if (!code)
            code = append(f, &e->part, err);
    }
    return code;
}

/* ---- decoding */

struct decode_job {
    const sonde_encoder *e;
    const sonde_sparse *f;
    const float *x;
    size_t ldx;
    float *y;
    size_t ldy;
};

static void decode_task(void *arg, size_t task, int thread)
{
    const struct decode_job *j = arg;
    const sonde_dict *d = j->e->d;
    const sonde_kernels *kernels = j->e->w.kernels;
    const size_t first = task * TASK_OF_ROWS;
    const size_t end = first + TASK_OF_ROWS < j->f->n_rows ? first + TASK_OF_ROWS : j->f->n_rows;
    (void)thread;
    if (d->w_skip)
        sonde_matmul(&j->e->skip, 0, 0, d->d_out, j->x + first * j->ldx, j->ldx, end - first,
                     j->y + first * j->ldy, j->ldy, NULL);
    for (size_t r = first; r < end; r++) {
        const size_t at = (size_t)j->f->start[r];
        float *y = j->y + r * j->ldy;
        sonde_gather_sum(kernels, (size_t)j->f->start[r + 1] - at, j->f->col + at, j->f->value + at, d->w_dec,
                         d->d_out, d->d_out, d->w_skip ? y : NULL, d->b_dec, y);
        if (d->norm == SONDE_DICT_NORM_NONE)
            continue;
        const struct row_norm norm = norm_of(j->e, j->x + r * j->ldx);
        for (size_t i = 0; i < d->d_out; i++)
            y[i] = fmaf(y[i], norm.undo, norm.mean);
    }
}

enum sonde_code sonde_encoder_decode(sonde_encoder *e, const sonde_sparse *f, const float *x, size_t ldx,
                                     sonde_pool *pool, float *y, size_t ldy, sonde_err *err)
{
    const sonde_dict *d = e->d;
    if (!x && (d->w_skip || d->norm != SONDE_DICT_NORM_NONE))
        return sonde_fail(err, SONDE_E_USAGE, "this dictionary decodes together with the activations (%s)",
                          d->w_skip ? "skip connection" : "norms to undo");
    const size_t n = f->n_rows ? (size_t)f->start[f->n_rows] : 0;
    for (size_t i = 0; i < n; i++)
        if (f->col[i] >= d->n_latents)
            return sonde_fail(err, SONDE_E_USAGE, "latent %u is active, the dictionary has %zu", f->col[i],
                              d->n_latents);
    struct decode_job job = {e, f, x, ldx, y, ldy};
    sonde_pool_run(pool, (f->n_rows + TASK_OF_ROWS - 1) / TASK_OF_ROWS, decode_task, &job);
    return SONDE_OK;
}
