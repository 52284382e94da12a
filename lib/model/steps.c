/* SPDX-License-Identifier: MIT
 * What every stage of a block is made of: products shared out to threads, norms with their hooks. */
#include "run_impl.h"

struct columns_job {
    const sonde_packed *w;
    size_t n0, n1, step;
    const float *x;
    size_t ldx, n_rows;
    float *y;
    size_t ldy;
    const sonde_epilogue *e;
};

static void columns_task(void *arg, size_t task, int thread)
{
    const struct columns_job *j = arg;
    (void)thread;
    size_t a = j->n0 + task * j->step, b = a + j->step < j->n1 ? a + j->step : j->n1;
    sonde_epilogue e = j->e ? *j->e : (sonde_epilogue){0};
    if (e.add)
        e.add += a - j->n0;
    sonde_matmul(j->w, 0, a, b, j->x, j->ldx, j->n_rows, j->y + (a - j->n0), j->ldy, j->e ? &e : NULL);
}

void project(sonde_run *r, const sonde_packed *w, size_t n0, size_t n1, const float *x, size_t ldx,
             size_t n_rows, float *y, size_t ldy, const sonde_epilogue *e)
{
    size_t n = n1 - n0, threads = (size_t)sonde_pool_threads(r->pool);
    if (threads < 2 || n < 128 || n_rows * n * w->k < 100000) {
        sonde_matmul(w, 0, n0, n1, x, ldx, n_rows, y, ldy, e);
        return;
    }
    size_t step = (n / (threads * 4) + 63) / 64 * 64;
    struct columns_job job = {w, n0, n1, step ? step : 64, x, ldx, n_rows, y, ldy, e};
    sonde_pool_run(r->pool, (n + job.step - 1) / job.step, columns_task, &job);
}

enum sonde_code normalise(sonde_run *r, enum sonde_norm kind, const sonde_affine *w,
                          enum sonde_site scale_site, size_t layer, const float *x, size_t ldx, size_t d,
                          float *y, size_t ldy, const float **in)
{
    const sonde_kernels *k = r->m->kernels;
    float eps = r->m->arch.eps;
    enum sonde_site normal_site = (enum sonde_site)(scale_site + 1);
    enum sonde_code code;
    *in = kind ? y : x;
    if (!kind)
        return SONDE_OK;
    if (!hooked(r, scale_site, layer) && !hooked(r, normal_site, layer)) {
        sonde_norm_rows(k, kind, x, ldx, r->n_rows, d, eps, w->gamma, w->beta, y, ldy);
        return SONDE_OK;
    }
    sonde_norm_stats(k, kind, x, ldx, r->n_rows, d, eps, r->mean, r->scale);
    if ((code = visit(r, scale_site, layer, r->scale, 1)) || r->done)
        return code;
    sonde_norm_apply(k, x, ldx, r->n_rows, d, r->mean, r->scale, y, ldy);
    if ((code = visit(r, normal_site, layer, y, ldy)) || r->done)
        return code;
    sonde_norm_affine(k, y, ldy, r->n_rows, d, w->gamma, w->beta, y, ldy);
    return SONDE_OK;
}
