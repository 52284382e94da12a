/* SPDX-License-Identifier: MIT
 * Resampling (Bricken et al. 2023): a dead latent begins again as the direction of a badly reconstructed row.
 *
 * Row j of the last batch is drawn with probability proportional to its squared loss. The latent's decoder
 * becomes unit(x_j - b_dec), its encoder the same times 0.2 of the mean encoder norm of the living, its bias
 * 0, its moments 0. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_impl.h"

static double mean_living_norm(const sonde_trainer *t)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < t->F; i++)
        if (t->silent[i] < t->o.dead_window) {
            sum += sqrt(sonde_sum_squares(t->kernels, t->d_in, t->p[P_W_ENC].w + i * t->d_in));
            n++;
        }
    return n ? sum / (double)n : 1;
}

/* The row whose interval of the cumulated weights holds u. */
static size_t draw_row(const double *cumulated, size_t n, double u)
{
    size_t lo = 0, hi = n - 1;
    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        if (cumulated[mid] > u)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static void forget_moments(struct param *p, size_t i)
{
    if (!p->w)
        return;
    memset(p->m + i * p->cols, 0, p->cols * sizeof(float));
    memset(p->v + i * p->cols, 0, p->cols * sizeof(float));
}

static void begin_again(sonde_trainer *t, size_t i, size_t row, double encoder_norm)
{
    const float *y = t->ys + row * t->d_out;
    float *dec = t->p[P_W_DEC].w + i * t->d_out, *enc = t->p[P_W_ENC].w + i * t->d_in;
    for (size_t j = 0; j < t->d_out; j++)
        dec[j] = y[j] - t->p[P_B_DEC].w[j];
    const double out = sqrt(sonde_sum_squares(t->kernels, t->d_out, dec));
    if (out > 0)
        sonde_scale(t->kernels, t->d_out, (float)(1 / out), dec, dec);
    const float *from = t->transcoder ? t->xc + row * t->d_in : dec; /* another space has its own direction */
    const double in = sqrt(sonde_sum_squares(t->kernels, t->d_in, from));
    sonde_scale(t->kernels, t->d_in, in > 0 ? (float)(0.2 * encoder_norm / in) : 0, from, enc);
    t->p[P_B_ENC].w[i] = 0;
    forget_moments(&t->p[P_W_DEC], i);
    forget_moments(&t->p[P_W_ENC], i);
    forget_moments(&t->p[P_B_ENC], i);
    t->silent[i] = 0;
}

enum sonde_code trainer_resample(sonde_trainer *t, size_t n, const sonde_work *work, sonde_err *err)
{
    double *cumulated = malloc(n * sizeof *cumulated), total = 0;
    if (!cumulated)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory to resample latents");
    for (size_t r = 0; r < n; r++) {
        const double loss = t->row_sum[r * N_ROW + ROW_ERROR];
        total += loss * loss;
        cumulated[r] = total;
    }
    const double norm = mean_living_norm(t);
    sonde_rng rng = sonde_rng_fork(&t->rng, "resample", t->c.n_resampled);
    for (size_t i = 0; i < t->F && total > 0; i++)
        if (t->silent[i] >= t->o.dead_window)
            begin_again(t, i, draw_row(cumulated, n, total * sonde_rng_double(&rng)), norm);
    free(cumulated);
    t->c.n_resampled++;
    trainer_pack(t, work ? work->pool : NULL);
    return SONDE_OK;
}
