/* SPDX-License-Identifier: MIT
 * Principal components: the covariance in blocks of rows, its leading eigenvectors by LAPACK. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "baseline.h"

#define BLOCK 256 /* rows */
#define TILE  4
#define STRIP 16 /* rows of the covariance in one task */
#define CHUNK 64 /* rows projected in one task */

/* Leading eigenvectors of a symmetric matrix (LAPACK, Fortran calling convention). */
extern void dsyevr_(const char *jobz, const char *range, const char *uplo, const int *n, double *a,
                    const int *lda, const double *vl, const double *vu, const int *il, const int *iu,
                    const double *abstol, int *m, double *w, double *z, const int *ldz, int *isuppz,
                    double *work, const int *lwork, int *iwork, const int *liwork, int *info);

struct sonde_pca {
    size_t d, padded; /* padded: d rounded up to TILE */
    const sonde_kernels *kernels;
    sonde_arena *arena, *solved;
    uint64_t n_rows;
    size_t n_block;          /* rows in the block */
    double *shift;           /* [d] the first row: sums are about it */
    double *sum;             /* [d] */
    double *block;           /* [BLOCK, padded] rows minus shift */
    double *moment;          /* [padded, padded] sum of products; tiles on and above the diagonal */
    size_t k;                /* of the last solution */
    double trace, *variance; /* [k] */
    float *mean;             /* [d] */
    sonde_packed down;       /* [d, k] */
    sonde_packed up;         /* [k, d] */
};

enum sonde_code sonde_pca_new(size_t d, const sonde_kernels *kernels, sonde_budget *budget, sonde_pca **out,
                              sonde_err *err)
{
    size_t padded, square, block;
    if (!sonde_round_up(&padded, d, TILE) || !sonde_mul(&square, padded, padded) ||
        !sonde_mul(&block, padded, BLOCK) || d > INT32_MAX)
        return sonde_fail(err, SONDE_E_MEMORY, "a covariance of %zu dimensions is too large", d);
    sonde_arena *arena = sonde_arena_new(budget, err);
    sonde_pca *p = arena ? sonde_arena_get(arena, 1, sizeof *p, err) : NULL;
    if (!p || !(p->solved = sonde_arena_new(budget, err)) ||
        !(p->shift = sonde_arena_get(arena, d, sizeof *p->shift, err)) ||
        !(p->sum = sonde_arena_get(arena, d, sizeof *p->sum, err)) ||
        !(p->block = sonde_arena_get(arena, block, sizeof *p->block, err)) ||
        !(p->moment = sonde_arena_get(arena, square, sizeof *p->moment, err))) {
        if (p)
            sonde_arena_free(p->solved);
        sonde_arena_free(arena);
        return SONDE_E_MEMORY;
    }
    p->d = d;
    p->padded = padded;
    p->kernels = kernels ? kernels : sonde_kernels_best();
    p->arena = arena;
    *out = p;
    return SONDE_OK;
}

void sonde_pca_free(sonde_pca *p)
{
    if (!p)
        return;
    sonde_arena_free(p->solved);
    sonde_arena_free(p->arena);
}

/* ---- the covariance -------------------------------------------------------------------------- */

static void add_tile(double *moment, size_t ld, const double *a, const double *b, size_t n_rows)
{
    double acc[TILE][TILE] = {{0}};
    for (size_t r = 0; r < n_rows; r++)
        for (size_t i = 0; i < TILE; i++)
            for (size_t j = 0; j < TILE; j++)
                acc[i][j] += a[r * ld + i] * b[r * ld + j];
    for (size_t i = 0; i < TILE; i++)
        for (size_t j = 0; j < TILE; j++)
            moment[i * ld + j] += acc[i][j];
}

static void strip_task(void *arg, size_t strip, int thread)
{
    sonde_pca *p = arg;
    const size_t ld = p->padded, end = (strip + 1) * STRIP < ld ? (strip + 1) * STRIP : ld;
    (void)thread;
    for (size_t j = strip * STRIP; j < ld; j += TILE)
        for (size_t i = strip * STRIP; i < end && i <= j; i += TILE)
            add_tile(p->moment + i * ld + j, ld, p->block + i, p->block + j, p->n_block);
}

static void flush(sonde_pca *p, sonde_pool *pool)
{
    sonde_pool_run(pool, (p->padded + STRIP - 1) / STRIP, strip_task, p);
    p->n_block = 0;
}

void sonde_pca_add(sonde_pca *p, const float *x, size_t n, sonde_pool *pool)
{
    for (size_t r = 0; r < n; r++, x += p->d) {
        double *row = p->block + p->n_block * p->padded;
        for (size_t j = 0; j < p->d; j++) {
            if (!p->n_rows)
                p->shift[j] = (double)x[j];
            row[j] = (double)x[j] - p->shift[j];
            p->sum[j] += row[j];
        }
        p->n_rows++;
        if (++p->n_block == BLOCK)
            flush(p, pool);
    }
}

/* ---- eigenvectors ---------------------------------------------------------------------------- */

/* The covariance in LAPACK's order: column-major, the lower triangle of it is our upper one. */
static void covariance(const sonde_pca *p, double *c)
{
    const double n = (double)p->n_rows;
    for (size_t i = 0; i < p->d; i++)
        for (size_t j = i; j < p->d; j++)
            c[i * p->d + j] = p->moment[i * p->padded + j] / n - (p->sum[i] / n) * (p->sum[j] / n);
}

/* The k largest eigenvalues ascending into w [d], vectors into z [k, d]; c is destroyed. */
static enum sonde_code leading(double *c, size_t d, size_t k, double *w, double *z, sonde_arena *scratch,
                               sonde_err *err)
{
    const int n = (int)d, first = (int)(d - k) + 1, last = n, query = -1;
    const double zero = 0;
    double wanted;
    int found, info, wanted_int, *support = sonde_arena_get(scratch, 2 * k, sizeof *support, err);
    if (!support)
        return SONDE_E_MEMORY;
    dsyevr_("V", "I", "L", &n, c, &n, &zero, &zero, &first, &last, &zero, &found, w, z, &n, support, &wanted,
            &query, &wanted_int, &query, &info);
    const int n_work = (int)wanted;
    double *work = sonde_arena_get(scratch, (size_t)n_work, sizeof *work, err);
    int *iwork = sonde_arena_get(scratch, (size_t)wanted_int, sizeof *iwork, err);
    if (!work || !iwork)
        return SONDE_E_MEMORY;
    dsyevr_("V", "I", "L", &n, c, &n, &zero, &zero, &first, &last, &zero, &found, w, z, &n, support, work,
            &n_work, iwork, &wanted_int, &info);
    if (info || found != (int)k)
        return sonde_fail(err, SONDE_E_NUMERIC,
                          "the covariance of %zu dimensions has no eigenvectors (LAPACK: %d)", d, info);
    return SONDE_OK;
}

static enum sonde_code pack(sonde_pca *p, size_t k, size_t n, sonde_packed *out, sonde_err *err)
{
    size_t floats = sonde_packed_floats(p->kernels, k, n);
    float *data = sonde_arena_get(p->solved, floats, sizeof *data, err);
    *out = (sonde_packed){.kernels = p->kernels, .k = k, .n = n, .data = data};
    return data ? SONDE_OK : SONDE_E_MEMORY;
}

/* Vectors [k, d], variances ascending: keep them, the largest first. */
static enum sonde_code keep(sonde_pca *p, size_t k, const double *w, const double *z, sonde_err *err)
{
    float *v = sonde_arena_get(p->solved, k * p->d, sizeof *v, err);
    if (!v || !(p->variance = sonde_arena_get(p->solved, k, sizeof *p->variance, err)) ||
        !(p->mean = sonde_arena_get(p->solved, p->d, sizeof *p->mean, err)) ||
        pack(p, p->d, k, &p->down, err) || pack(p, k, p->d, &p->up, err))
        return SONDE_E_MEMORY;
    for (size_t c = 0; c < k; c++) {
        p->variance[c] = w[k - 1 - c];
        for (size_t j = 0; j < p->d; j++)
            v[c * p->d + j] = (float)z[(k - 1 - c) * p->d + j];
    }
    for (size_t j = 0; j < p->d; j++)
        p->mean[j] = (float)(p->shift[j] + p->sum[j] / (double)p->n_rows);
    sonde_pack(&p->down, 0, p->d, 0, k, v, 1, p->d);
    sonde_pack(&p->up, 0, k, 0, p->d, v, p->d, 1);
    p->k = k;
    return SONDE_OK;
}

enum sonde_code sonde_pca_solve(sonde_pca *p, size_t k, sonde_err *err)
{
    if (!k || k > p->d)
        return sonde_fail(err, SONDE_E_USAGE, "%zu principal components of %zu dimensions", k, p->d);
    if (!p->n_rows)
        return sonde_fail(err, SONDE_E_USAGE, "principal components of no rows");
    p->k = 0;
    sonde_arena_reset(p->solved);
    flush(p, NULL);
    double *c = sonde_arena_get(p->solved, p->d * p->d, sizeof *c, err);
    double *w = sonde_arena_get(p->solved, p->d, sizeof *w, err);
    double *z = sonde_arena_get(p->solved, k * p->d, sizeof *z, err);
    if (!c || !w || !z)
        return SONDE_E_MEMORY;
    covariance(p, c);
    for (size_t i = 0; i < p->d * p->d; i++)
        if (!isfinite(c[i]))
            return sonde_fail(err, SONDE_E_NUMERIC, "principal components of values that are not finite");
    p->trace = 0;
    for (size_t i = 0; i < p->d; i++)
        p->trace += c[i * p->d + i];
    enum sonde_code code = leading(c, p->d, k, w, z, p->solved, err);
    return code ? code : keep(p, k, w, z, err);
}

const double *sonde_pca_variance(const sonde_pca *p)
{
    return p->k ? p->variance : NULL;
}

double sonde_pca_trace(const sonde_pca *p)
{
    return p->k ? p->trace : 0;
}

/* ---- at work --------------------------------------------------------------------------------- */

struct projection {
    const sonde_pca *p;
    const sonde_rows *rows;
    float *y, *centred, *code; /* [n, d], [threads * CHUNK, d], [threads * CHUNK, k] */
};

static void project_task(void *arg, size_t chunk, int thread)
{
    const struct projection *j = arg;
    const sonde_pca *p = j->p;
    const size_t first = chunk * CHUNK, d = p->d;
    const size_t n = j->rows->n - first < CHUNK ? j->rows->n - first : CHUNK;
    float *centred = j->centred + (size_t)thread * CHUNK * d, *code = j->code + (size_t)thread * CHUNK * p->k;
    const float *x = j->rows->x + first * d;
    const sonde_epilogue plus_mean = {.bias = p->mean};
    for (size_t i = 0; i < n * d; i++)
        centred[i] = x[i] - p->mean[i % d];
    sonde_matmul(&p->down, 0, 0, p->k, centred, d, n, code, p->k, NULL);
    sonde_matmul(&p->up, 0, 0, d, code, p->k, n, j->y + first * d, d, &plus_mean);
}

enum sonde_code sonde_replace_by_pca(void *arg, const sonde_rows *rows, sonde_pool *pool, float *y,
                                     sonde_err *err)
{
    const sonde_pca *p = arg;
    const size_t n = (size_t)sonde_pool_threads(pool) * CHUNK;
    if (!p->k)
        return sonde_fail(err, SONDE_E_USAGE, "principal components that have not been solved for");
    struct projection j = {p, rows, y, malloc(n * p->d * sizeof(float)), malloc(n * p->k * sizeof(float))};
    enum sonde_code code = SONDE_OK;
    if (j.centred && j.code)
        sonde_pool_run(pool, (rows->n + CHUNK - 1) / CHUNK, project_task, &j);
    else
        code = sonde_fail(err, SONDE_E_MEMORY, "no memory to project %zu rows", n);
    free(j.centred);
    free(j.code);
    return code;
}
