/* SPDX-License-Identifier: MIT
 * The inference threshold of BatchTopK: the value above which, over many rows, k latents per row lie. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/half.h"
#include "trainer_impl.h"

/* Positive floats are ordered as their bits; 22 of them tell values apart to 1.2e-4. */
#define SHIFT   10
#define BUCKETS ((size_t)1 << (31 - SHIFT))

struct calibration {
    sonde_trainer *t;
    uint64_t *count; /* [BUCKETS] */
    uint64_t n_rows, n_entries;
    float *bound; /* [F] */
};

static void begin(struct calibration *c, double bound)
{
    memset(c->count, 0, BUCKETS * sizeof *c->count);
    c->n_rows = c->n_entries = 0;
    for (size_t i = 0; i < c->t->F; i++)
        c->bound[i] = bound > 0 ? (float)bound : 0;
}

enum sonde_code calibration_new(sonde_trainer *t, struct calibration **out, sonde_err *err)
{
    struct calibration *c = calloc(1, sizeof *c);
    if (c) {
        c->t = t;
        c->count = malloc(BUCKETS * sizeof *c->count);
        c->bound = malloc(t->F * sizeof *c->bound);
    }
    if (!c || !c->count || !c->bound) {
        calibration_free(c);
        return sonde_fail(err, SONDE_E_MEMORY, "no memory to set the threshold");
    }
    begin(c,
          t->c.threshold / 2); /* the running threshold is the smallest value of a batch, hence already low */
    *out = c;
    return SONDE_OK;
}

enum sonde_code calibration_add(struct calibration *c, const float *x, const float *y, size_t n,
                                sonde_pool *pool, sonde_err *err)
{
    sonde_trainer *t = c->t;
    enum sonde_code code = trainer_room(t, n > t->o.batch ? n : (size_t)t->o.batch, err); /* after a resume */
    if (code)
        return code;
    trainer_normalize(t, x, y, n, pool);
    const sonde_encoding e = {
        .w = &t->w_enc, .bias = t->p[P_B_ENC].w, .pick = SONDE_PICK_ABOVE, .bound = c->bound};
    code = sonde_encode_rows(&e, t->xc, t->d_in, n, pool, t->space, &t->z, NULL, err);
    if (code)
        return code;
    for (size_t i = 0; i < t->z.start[n]; i++)
        c->count[sonde_f32_bits(t->z.value[i]) >> SHIFT]++;
    c->n_entries += t->z.start[n];
    c->n_rows += n;
    return SONDE_OK;
}

bool calibration_end(struct calibration *c)
{
    const uint64_t want = c->t->o.k * c->n_rows;
    if (c->n_entries <= want && c->bound[0] > 0) { /* what lies below the bound is unknown */
        /* lower by steps: below 0 lies half of everything */
        begin(c, (double)c->bound[0] > 1e-4 * c->t->c.threshold ? (double)c->bound[0] / 8 : 0);
        return false;
    }
    uint64_t above = 0;
    size_t b = BUCKETS;
    while (b > 0 && above + c->count[b - 1] <= want)
        above += c->count[--b];
    if (b == 0) { /* fewer positive values than wanted: keep them all */
        c->t->c.calibrated = 0;
        return true;
    }
    const double lo = (double)sonde_bits_f32((uint32_t)(b - 1) << SHIFT),
                 hi = (double)sonde_bits_f32((uint32_t)b << SHIFT);
    const double share =
        (double)(want - above) / (double)c->count[b - 1]; /* of the bucket's values lie above */
    c->t->c.calibrated = hi - share * (hi - lo);
    return true;
}

void calibration_free(struct calibration *c)
{
    if (!c)
        return;
    free(c->count);
    free(c->bound);
    free(c);
}
