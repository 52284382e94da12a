/* SPDX-License-Identifier: MIT
 * The step itself: clip, Adam over every row (it is PyTorch's Adam), norms, packing. */
#include <math.h>
#include <string.h>

#include "trainer_impl.h"

double trainer_lr(const sonde_trainer *t)
{
    const sonde_train_options *o = &t->o;
    const double step = (double)t->c.step, n = (double)t->n_steps;
    double lr = o->lr;
    if (o->warmup > 0 && t->c.step < o->warmup)
        lr *= (step + 1) / (double)o->warmup;
    if (o->schedule == SONDE_SCHEDULE_LINEAR && o->decay > 0) {
        const double begin = n * (1 - o->decay), left = (n - step) / (n - begin);
        if (step > begin)
            lr *= o->lr_end + (1 - o->lr_end) * left;
    } else if (o->schedule == SONDE_SCHEDULE_COSINE) {
        const double w = (double)o->warmup, at = step > w && n > w ? (step - w) / (n - w) : 0;
        lr *= o->lr_end + (1 - o->lr_end) * 0.5 * (1 + cos(3.14159265358979323846 * at));
    }
    return lr;
}

struct update_job {
    sonde_trainer *t;
    sonde_adam adam;
};

static void adam_rows(const struct update_job *q, int which, size_t i)
{
    const sonde_trainer *t = q->t;
    const struct param *p = &t->p[which];
    const size_t at = i * p->cols;
    if (p->w)
        sonde_adam_update(t->kernels, &q->adam, p->cols, t->touched[i] ? p->g + at : t->zeros, p->w + at,
                          p->m + at, p->v + at);
}

static void update_task(void *arg, size_t block, int thread)
{
    (void)thread;
    const struct update_job *q = arg;
    sonde_trainer *t = q->t;
    static const int per_latent[] = {P_W_ENC, P_B_ENC, P_W_DEC, P_THRESHOLD, P_R_MAG, P_B_MAG};
    const size_t i0 = block * BLOCK_LATENT, i1 = i0 + BLOCK_LATENT < t->F ? i0 + BLOCK_LATENT : t->F,
                 d = t->d_out;
    for (size_t i = i0; i < i1; i++) {
        for (size_t j = 0; j < sizeof per_latent / sizeof *per_latent; j++)
            adam_rows(q, per_latent[j], i);
        if (t->o.unit_decoder > 0) {
            float *w = t->p[P_W_DEC].w + i * d;
            const double norm = sqrt(sonde_sum_squares(t->kernels, d, w));
            if (norm > 0)
                sonde_scale(t->kernels, d, (float)(1 / norm), w, w);
        }
    }
    trainer_pack_block(t, i0, i1 - i0);
}

void trainer_update(sonde_trainer *t, sonde_pool *pool, sonde_step_report *rep)
{
    const sonde_train_options *o = &t->o;
    t->c.power1 *= o->beta1;
    t->c.power2 *= o->beta2;
    double clip = 1;
    if (o->clip > 0 && (clip = o->clip / (rep->gradient_norm + 1e-6)) > 1)
        clip = 1;
    struct update_job q = {.t = t};
    q.adam = (sonde_adam){.clip = (float)clip,
                          .beta1 = (float)o->beta1,
                          .beta2 = (float)o->beta2,
                          .rest1 = (float)(1 - o->beta1),
                          .rest2 = (float)(1 - o->beta2),
                          .eps = (float)o->eps,
                          .step = (float)(rep->lr / (1 - t->c.power1)),
                          .sqrt_correction2 = (float)sqrt(1 - t->c.power2)};
    sonde_pool_run(pool, (t->F + BLOCK_LATENT - 1) / BLOCK_LATENT, update_task, &q);
    static const int whole[] = {P_B_DEC, P_W_SKIP};
    for (size_t j = 0; j < 2; j++) {
        const struct param *p = &t->p[whole[j]];
        if (p->w)
            sonde_adam_update(t->kernels, &q.adam, p->rows * p->cols, p->g, p->w, p->m, p->v);
    }
    if (t->w_skip.data)
        sonde_pack(&t->w_skip, 0, t->d_in, 0, t->d_out, t->p[P_W_SKIP].w, 1, t->d_in);
}
