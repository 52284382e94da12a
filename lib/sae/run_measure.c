/* SPDX-License-Identifier: MIT
 * The dictionary as it is saved, on training rows: firing frequencies, explained variance, L0. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run_impl.h"

enum sonde_code measure_begin(struct run *r, struct job *j, sonde_err *err)
{
    sonde_budget *budget = r->work ? r->work->budget : NULL;
    sonde_pool *pool = r->work ? r->work->pool : NULL;
    enum sonde_code code = sonde_trainer_export(j->trainer, budget, &j->dict, err);
    if (code || (code = sonde_encoder_new(j->dict, r->kernels, false, pool, budget, &j->encoder, err)))
        return code;
    j->f.budget = budget;
    if ((code = training_floats(r, (size_t)r->options->batch, j->trainer->d_out, &j->y, err)))
        return code;
    j->count = calloc(j->trainer->F, sizeof *j->count);
    j->sum = calloc(j->trainer->d_out, sizeof *j->sum);
    if (!j->count || !j->sum)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory to measure %zu latents", j->trainer->F);
    j->error = j->square = j->n_active = 0;
    j->result.n_measured = 0;
    return SONDE_OK;
}

enum sonde_code measure_rows(struct run *r, struct job *j, size_t n, sonde_err *err)
{
    const size_t d_in = j->trainer->d_in, d = j->trainer->d_out;
    sonde_pool *pool = r->work ? r->work->pool : NULL;
    const float *target = r->y ? r->y : r->x;
    enum sonde_code code = sonde_encoder_encode(j->encoder, r->x, d_in, n, pool, &j->f, err);
    if (!code)
        code = sonde_encoder_decode(j->encoder, &j->f, r->x, d_in, pool, j->y, d, err);
    if (code)
        return code;
    for (size_t e = 0; e < j->f.start[n]; e++)
        j->count[j->f.col[e]]++;
    j->n_active += (double)j->f.start[n];
    for (size_t row = 0; row < n; row++)
        for (size_t i = 0; i < d; i++) {
            const double y = target[row * d + i], e = y - (double)j->y[row * d + i];
            j->error += e * e;
            j->square += y * y;
            j->sum[i] += y;
        }
    j->result.n_measured += n;
    return SONDE_OK;
}

void measure_end(struct run *r, struct job *j)
{
    (void)r;
    const double n = (double)j->result.n_measured;
    double centre = 0;
    for (size_t i = 0; i < j->trainer->d_out; i++)
        centre += j->sum[i] * j->sum[i] / n;
    const double spread = j->square - centre;
    j->result.fvu = spread > 0 ? j->error / spread : 0;
    j->result.l0 = j->n_active / n;
    j->result.n_dead = 0;
    for (size_t i = 0; i < j->trainer->F; i++) {
        j->result.n_dead += j->count[i] == 0;
        j->dict->sparsity[i] = (float)log10((double)j->count[i] / n + 1e-10);
    }
    j->result.last = j->last;
}
