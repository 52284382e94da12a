/* SPDX-License-Identifier: MIT
 * A step after its gradients: clipping, Adam, norms, schedules, counters, running threshold, resampling; and
 * that threads change no bit of it. */
#include "train_cases.h"

#include "base/pool.h"

static const struct sizes small = {6, 6, 10, 16};

static sonde_step_report step_of(sonde_trainer *t, const float *x, const float *y, size_t n,
                                 const sonde_work *work)
{
    sonde_step_report r;
    sonde_err err;
    if (sonde_trainer_step(t, x, y, n, work, &r, &err))
        fail_msg("%s: %s", t->o.arch, err.msg);
    return r;
}

/* ---- the optimiser --------------------------------------------------------------------------- */

/* Kingma & Ba 2015 with the biases divided out, in double, on the gradients that the trainer worked out. */
struct adam {
    double *w, *m, *v;
};

static void adam_step(struct adam *a, const sonde_trainer *t, int which, double clip, double lr, double step)
{
    const sonde_train_options *o = &t->o;
    const struct param *p = &t->p[which];
    const size_t d = p->cols;
    for (size_t j = 0; j < p->rows * d; j++) {
        const double g = gradient_at(t, which, j) * clip;
        a->m[j] = o->beta1 * a->m[j] + (1 - o->beta1) * g;
        a->v[j] = o->beta2 * a->v[j] + (1 - o->beta2) * g * g;
        const double m = a->m[j] / (1 - pow(o->beta1, step)), v = a->v[j] / (1 - pow(o->beta2, step));
        a->w[j] -= lr * m / (sqrt(v) + o->eps);
    }
    for (size_t i = 0; which == P_W_DEC && o->unit_decoder && i < p->rows; i++) {
        double square = 0;
        for (size_t j = 0; j < d; j++)
            square += a->w[i * d + j] * a->w[i * d + j];
        for (size_t j = 0; j < d; j++)
            a->w[i * d + j] /= sqrt(square);
    }
}

static void near(double got, double want, double tolerance, const char *what, size_t at)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s[%zu] is %.9g, expected %.9g", what, at, got, want);
}

/* Ten steps. w: a rounding of 3e-8 and a step of lr (1e-2) with relative error 1e-6 in each; m: ten roundings
 * of gradients of a few units; v: relative, for it decides the step where it is small. */
static void ten_adam_steps(sonde_train_options o, double *least_norm)
{
    sonde_trainer *t = trainer_of(o, &small, false, NULL);
    struct adam a[N_PARAMS] = {{0}};
    size_t idle = 0;
    fill_weights(t, 3);
    t->p[P_B_ENC].w[0] = -1.6f; /* one that fires now and then: its moments go on without a gradient */
    for (int which = 0; which < N_PARAMS; which++) {
        const size_t n = t->p[which].rows * t->p[which].cols;
        a[which] = (struct adam){need(n, 8), need(n, 8), need(n, 8)};
        for (size_t j = 0; j < n; j++)
            a[which].w[j] = (double)t->p[which].w[j];
    }
    for (int step = 1; step <= 10; step++) {
        float *x = batch_of(small.n, small.d_in, (uint64_t)step);
        const sonde_step_report r = step_of(t, x, NULL, small.n, NULL);
        const double clip = o.clip > 0 ? fmin(1, o.clip / (r.gradient_norm + 1e-6)) : 1;
        *least_norm = fmin(*least_norm, r.gradient_norm);
        idle += !t->touched[0];
        for (int which = 0; which < N_PARAMS; which++)
            if (t->p[which].w && which != P_THRESHOLD)
                adam_step(&a[which], t, which, clip, o.lr, step);
        free(x);
    }
    assert_true(idle > 0 && idle < 10 && t->p[P_W_ENC].v[0] != 0);
    for (int which = 0; which < N_PARAMS; which++) {
        const struct param *p = &t->p[which];
        for (size_t j = 0; which != P_THRESHOLD && j < p->rows * p->cols; j++) {
            near((double)p->w[j], a[which].w[j], 4e-7, p->name, j);
            near((double)p->m[j], a[which].m[j], 5e-7 * fmax(1, fabs(a[which].m[j])), p->name, j);
            near((double)p->v[j], a[which].v[j], 2e-6 * a[which].v[j] + 1e-30, p->name, j);
        }
        free(a[which].w);
        free(a[which].m);
        free(a[which].v);
    }
    sonde_trainer_free(t);
}

static void ten_steps_are_adam(void **state)
{
    (void)state;
    static const char *const archs[] = {"topk", "relu", "gated"};
    for (size_t i = 0; i < COUNT(archs); i++)
        for (int unit = 0; unit < 2; unit++) {
            sonde_train_options o = plain_options(archs[i], &small);
            double norm = INFINITY;
            o.unit_decoder = unit;
            o.pre_bias = 1;
            o.l1 = 0.1;
            ten_adam_steps(o, &norm);
            o.beta1 = 0.8;
            o.beta2 = 0.99;
            o.eps = 1e-3;
            ten_adam_steps(o, &norm);
        }
}

static void gradients_above_the_clip_are_scaled_to_it(void **state)
{
    (void)state;
    sonde_train_options o = plain_options("topk", &small);
    double norm = INFINITY;
    o.clip = 0.05;
    o.eps = 1e-2; /* Adam's own scale hides the clip where eps is small */
    ten_adam_steps(o, &norm);
    assert_true(norm > 0.5);
    norm = INFINITY;
    o.clip = 100; /* out of reach: nothing changes */
    ten_adam_steps(o, &norm);
    assert_true(norm < 100);
}

static void decoder_rows_keep_norm_1(void **state)
{
    (void)state;
    sonde_train_options o = plain_options("batchtopk", &small);
    o.unit_decoder = 1;
    o.lr = 0.1;
    sonde_trainer *t = trainer_of(o, &small, false, NULL);
    float *x = batch_of(small.n, small.d_in, 1);
    for (int step = 0; step < 5; step++)
        step_of(t, x, NULL, small.n, NULL);
    for (size_t i = 0; i < small.F; i++)
        near(sqrt(sonde_sum_squares(t->kernels, small.d_out, t->p[P_W_DEC].w + i * small.d_out)), 1, 2e-7,
             "norm", i);
    free(x);
    sonde_trainer_free(t);
}

/* ---- schedules ------------------------------------------------------------------------------- */

static void learning_rate_follows_the_schedule(void **state)
{
    (void)state;
    const struct {
        int schedule;
        double decay, lr_end;
        uint64_t warmup, step;
        double share; /* of 0.5; 100 steps */
    } rows[] = {
        {SONDE_SCHEDULE_CONSTANT, 0.2, 0, 0, 99, 1},
        {SONDE_SCHEDULE_CONSTANT, 0.2, 0, 10, 0, 0.1},
        {SONDE_SCHEDULE_CONSTANT, 0.2, 0, 10, 4, 0.5},
        {SONDE_SCHEDULE_CONSTANT, 0.2, 0, 10, 9, 1},
        {SONDE_SCHEDULE_LINEAR, 0.2, 0, 10, 3, 0.4},
        {SONDE_SCHEDULE_LINEAR, 0.2, 0, 10, 50, 1},
        {SONDE_SCHEDULE_LINEAR, 0.2, 0, 10, 80, 1},
        {SONDE_SCHEDULE_LINEAR, 0.2, 0, 10, 90, 0.5},
        {SONDE_SCHEDULE_LINEAR, 0.2, 0, 10, 99, 0.05},
        {SONDE_SCHEDULE_LINEAR, 0.2, 0.1, 0, 90, 0.55},
        {SONDE_SCHEDULE_LINEAR, 1, 0, 0, 25, 0.75},
        {SONDE_SCHEDULE_LINEAR, 0, 0, 0, 99, 1},
        {SONDE_SCHEDULE_COSINE, 0.2, 0, 0, 0, 1},
        {SONDE_SCHEDULE_COSINE, 0.2, 0, 0, 50, 0.5},
        {SONDE_SCHEDULE_COSINE, 0.2, 0.1, 0, 50, 0.55},
        {SONDE_SCHEDULE_COSINE, 0.2, 0, 20, 9, 0.5},
        {SONDE_SCHEDULE_COSINE, 0.2, 0, 20, 40, 0.85355339059327376},
        {SONDE_SCHEDULE_COSINE, 0.2, 0, 20, 60, 0.5},
        {SONDE_SCHEDULE_COSINE, 0.2, 0, 0, 75, 0.14644660940672624},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        sonde_train_options o = plain_options("topk", &small);
        o.n_tokens = 100 * o.batch;
        o.lr = 0.5;
        o.schedule = rows[i].schedule;
        o.decay = rows[i].decay;
        o.lr_end = rows[i].lr_end;
        o.warmup = rows[i].warmup;
        sonde_trainer *t = trainer_of(o, &small, false, NULL);
        t->c.step = rows[i].step;
        near(trainer_lr(t), 0.5 * rows[i].share, 1e-12, "lr of row", i);
        sonde_trainer_free(t);
    }
}

/* Mean over the rows of xs of min(k, latents above 0). */
static double active_of(const sonde_trainer *t, size_t k)
{
    size_t sum = 0;
    for (size_t r = 0; r < small.n; r++) {
        size_t n = 0;
        for (size_t i = 0; i < small.F; i++) {
            double z = (double)t->p[P_B_ENC].w[i];
            for (size_t j = 0; j < small.d_in; j++)
                z += (double)t->xs[r * small.d_in + j] * (double)t->p[P_W_ENC].w[i * small.d_in + j];
            n += z > 0;
        }
        sum += n < k ? n : k;
    }
    return (double)sum / (double)small.n;
}

static void k_and_sparsity_move_in_steps(void **state)
{
    (void)state;
    const uint64_t k[] = {10, 8, 6, 4, 2, 2};
    const double share[] = {0.25, 0.5, 0.75, 1, 1, 1};
    static const char *const archs[] = {"topk", "relu"};
    for (size_t a = 0; a < COUNT(archs); a++) {
        sonde_train_options o = plain_options(archs[a], &small);
        o.k = 2;
        o.k_start = 10;
        o.k_anneal = o.sparsity_warmup = 4;
        o.l1 = 0.3;
        o.lr = 0;
        sonde_trainer *t = trainer_of(o, &small, false, NULL);
        float *x = batch_of(small.n, small.d_in, 1);
        fill_weights(t, 1);
        double whole = 0;
        for (size_t i = COUNT(k); i-- > 0;) {
            t->c.step = i;
            const sonde_step_report r = step_of(t, x, NULL, small.n, NULL);
            assert_int_equal(r.k, k[i]);
            near(r.sparsity, share[i], 1e-15, "sparsity", i);
            whole = i + 1 == COUNT(k) ? r.penalty : whole;
            if (a == 1)
                near(r.penalty, share[i] * whole, 1e-9, "penalty", i);
            if (a == 0)
                near(r.l0, active_of(t, (size_t)k[i]), 1e-12, "l0", i);
        }
        assert_true(a == 0 || whole > 0);
        free(x);
        sonde_trainer_free(t);
    }
}

static void schedules_that_cannot_be_are_refused(void **state)
{
    (void)state;
    for (int which = 0; which < 3; which++) {
        sonde_train_options o = plain_options("jumprelu", &small);
        sonde_err err;
        assert_int_equal(sonde_train_defaults(&o, 6, 6, 1000, false, &err), SONDE_OK);
        if (which == 0)
            o.k_start = small.F + 1; /* would fail only at the first step */
        if (which == 1)
            o.target_l0 = 0;
        if (which == 2)
            o.bias_weight = -1;
        assert_int_equal(sonde_train_defaults(&o, 6, 6, 1000, false, &err), SONDE_E_USAGE);
    }
}

/* ---- counters -------------------------------------------------------------------------------- */

static void silence_counts_rows_since_a_latent_fired(void **state)
{
    (void)state;
    sonde_train_options o = plain_options("topk", &small);
    o.dead_window = 40;
    o.k = 1;
    sonde_trainer *t = trainer_of(o, &small, false, NULL);
    fill_weights(t, 9);
    uint64_t silent[10] = {0}, fired[10] = {0}, rows = 0, most = 0;
    for (int step = 0; step < 6; step++) {
        const size_t n = step == 2 ? 5 : small.n; /* a short batch too */
        float *x = batch_of(n, small.d_in, 50 + (uint64_t)step);
        uint64_t n_dead = 0;
        for (size_t i = 0; i < small.F; i++)
            n_dead += silent[i] >= 40;
        const sonde_step_report r = step_of(t, x, NULL, n, NULL);
        assert_int_equal(r.n_dead, n_dead); /* as the step found them */
        rows += n;
        for (size_t i = 0; i < small.F; i++) {
            uint64_t now = 0;
            for (uint64_t e = 0; e < t->z.start[n]; e++)
                now += t->z.col[e] == i;
            silent[i] = now ? 0 : silent[i] + n;
            fired[i] += now;
            assert_int_equal(t->silent[i], silent[i]);
            assert_int_equal(t->frequency[i], fired[i]);
        }
        most = n_dead > most ? n_dead : most;
        free(x);
    }
    assert_int_equal(t->c.n_counted, rows);
    assert_int_equal(t->c.n_tokens, rows);
    assert_true(most > 0 && most < small.F);
    sonde_trainer_free(t);
}

/* The first value is the first batch's; then step s has memory min(1 - 1 / (1 + s), 0.999). */
static void running_threshold_follows_the_least_kept_value(void **state)
{
    (void)state;
    sonde_trainer *t = trainer_of(plain_options("batchtopk", &small), &small, false, NULL);
    sonde_dict *d;
    sonde_err err;
    double want = -1;
    fill_weights(t, 2);
    for (uint64_t step = 1; step <= 12; step++) {
        if (step == 8)
            t->c.step = 5000;
        float *x = batch_of(small.n, small.d_in, 90 + step);
        step_of(t, x, NULL, small.n, NULL);
        double least = INFINITY;
        for (uint64_t e = 0; e < t->z.start[small.n]; e++)
            least = fmin(least, (double)t->z.value[e]);
        const double memory = step >= 8 ? 0.999 : (double)step / (double)(step + 1);
        want = step == 1 ? least : memory * want + (1 - memory) * least;
        near(t->c.threshold, want, 1e-12, "threshold after step", step);
        free(x);
    }
    t->c.scale_out = t->c.scale_in = 4; /* latents of the dictionary are in raw units */
    assert_int_equal(sonde_trainer_export(t, NULL, &d, &err), SONDE_OK);
    for (size_t i = 0; i < small.F; i++)
        near((double)d->threshold[i], want / 4, 1e-7, "exported threshold", i);
    sonde_dict_free(d);
    sonde_trainer_free(t);
}

static void thresholds_of_jumprelu_stay_at_or_above_0(void **state)
{
    (void)state;
    sonde_train_options o = plain_options("jumprelu", &small);
    o.jump_penalty = SONDE_JUMP_TARGET;
    o.target_l0 = 9;
    o.lr = 0.05;
    o.l0 = 10;
    o.bandwidth = 0.5;
    sonde_trainer *t = trainer_of(o, &small, false, NULL);
    float *x = batch_of(small.n, small.d_in, 4);
    size_t at_0 = 0;
    for (int step = 0; step < 20; step++) {
        step_of(t, x, NULL, small.n, NULL);
        for (size_t i = 0; i < small.F; i++) {
            assert_true(t->p[P_THRESHOLD].w[i] >= 0);
            at_0 += t->p[P_THRESHOLD].w[i] == 0;
        }
    }
    assert_true(at_0 > 0);
    free(x);
    sonde_trainer_free(t);
}

/* ---- resampling ------------------------------------------------------------------------------ */

enum { N_DEAD = 4000, F_RESAMPLE = N_DEAD + 6 };
static const struct sizes many = {6, 6, F_RESAMPLE, 16};

static sonde_trainer *resampling_trainer(bool pre_bias)
{
    sonde_train_options o = plain_options("relu-2023", &many);
    o.unit_decoder = 1;
    o.pre_bias = pre_bias;
    o.resample_every = 32;
    o.resample_times = 2;
    o.lr = 1e-4;
    sonde_trainer *t = trainer_of(o, &many, false, NULL);
    fill_weights(t, 7);
    for (size_t i = 0; i < N_DEAD; i++) /* so far down that they never fire */
        t->p[P_B_ENC].w[i] = -50;
    for (int which = 0; which < N_PARAMS; which++)
        for (size_t j = 0; t->p[which].w && j < t->p[which].rows * t->p[which].cols; j++)
            t->p[which].m[j] = t->p[which].v[j] = 1e-3f;
    return t;
}

/* The row whose direction from b_dec latent i has taken. */
static size_t row_taken(const sonde_trainer *t, size_t i, const double *mean)
{
    const float *w = t->p[P_W_DEC].w + i * many.d_out;
    size_t best = 0;
    double most = -2;
    for (size_t r = 0; r < many.n; r++) {
        double dot = 0, square = 0;
        for (size_t j = 0; j < many.d_out; j++) {
            const double u = (double)t->ys[r * many.d_out + j] - mean[j];
            dot += u * (double)w[j];
            square += u * u;
        }
        if (dot / sqrt(square) > most) {
            most = dot / sqrt(square);
            best = r;
        }
    }
    near(most, 1, 1e-6, "cosine with a row of latent", i);
    return best;
}

static void check_resampled(const sonde_trainer *t, size_t count[16])
{
    double norm = 0, mean[6];
    for (size_t i = N_DEAD; i < F_RESAMPLE; i++)
        norm += sqrt(sonde_sum_squares(t->kernels, 6, t->p[P_W_ENC].w + i * 6)) / 6;
    for (size_t j = 0; j < 6; j++)
        mean[j] = (double)t->p[P_B_DEC].w[j];
    for (size_t i = 0; i < N_DEAD; i++) {
        count[row_taken(t, i, mean)]++;
        near(sqrt(sonde_sum_squares(t->kernels, 6, t->p[P_W_DEC].w + i * 6)), 1, 2e-7, "norm", i);
        assert_true(t->p[P_B_ENC].w[i] == 0 && t->p[P_B_ENC].m[i] == 0 && t->p[P_B_ENC].v[i] == 0);
        assert_int_equal(t->silent[i], 0);
        float packed[6];
        sonde_unpack_column(&t->w_enc, i, packed);
        for (size_t j = i * 6; j < i * 6 + 6; j++) {
            near((double)t->p[P_W_ENC].w[j], 0.2 * norm * (double)t->p[P_W_DEC].w[j], 1e-7, "W_enc", j);
            assert_true(packed[j % 6] == t->p[P_W_ENC].w[j]);
            assert_true(t->p[P_W_ENC].m[j] == 0 && t->p[P_W_ENC].v[j] == 0);
            assert_true(t->p[P_W_DEC].m[j] == 0 && t->p[P_W_DEC].v[j] == 0);
        }
    }
    for (size_t j = N_DEAD * 6; j < F_RESAMPLE * 6; j++)
        assert_true(t->p[P_W_ENC].v[j] != 0 && t->p[P_W_DEC].v[j] != 0);
}

/* 4000 draws over 16 rows: chi squared with 15 degrees of freedom is above 44.3 once in 10000 seeds. */
static void dead_latents_begin_again_from_badly_reconstructed_rows(void **state)
{
    (void)state;
    for (int pre_bias = 0; pre_bias < 2; pre_bias++) {
        sonde_trainer *t = resampling_trainer(pre_bias);
        float *x = batch_of(many.n, many.d_in, 3);
        size_t count[16] = {0};
        double loss[16], total = 0, chi = 0, least = INFINITY, most = 0;
        step_of(t, x, NULL, many.n, NULL); /* 16 rows: not yet */
        assert_int_equal(t->c.n_resampled, 0);
        for (size_t i = 0; i < F_RESAMPLE; i++)
            t->silent[i] = i < N_DEAD ? t->o.dead_window : 0;
        step_of(t, x, NULL, many.n, NULL);
        assert_int_equal(t->c.n_resampled, 1);
        for (size_t r = 0; r < many.n; r++) {
            const double square = t->row_sum[r * N_ROW + ROW_ERROR];
            total += loss[r] = square * square;
        }
        check_resampled(t, count);
        for (size_t r = 0; r < many.n; r++) {
            const double want = N_DEAD * loss[r] / total;
            chi += ((double)count[r] - want) * ((double)count[r] - want) / want;
            least = fmin(least, want);
            most = fmax(most, want);
        }
        assert_true(least > 5 && most > 4 * least); /* or the test tells nothing */
        if (!(chi < 44.3))
            fail_msg("chi squared %g", chi);
        for (int step = 0; step < 6; step++)
            step_of(t, x, NULL, many.n, NULL);
        assert_int_equal(t->c.n_resampled, 2);
        free(x);
        sonde_trainer_free(t);
    }
}

/* ---- threads, and steps that fail ------------------------------------------------------------ */

static sonde_train_options everything(const char *arch, const struct sizes *s, bool skip)
{
    sonde_train_options o = plain_options(arch, s);
    o.k = 5;
    o.pre_bias = !skip;
    o.skip = skip;
    o.unit_decoder = 1;
    o.clip = 1;
    o.l1 = o.l0 = 0.05;
    o.bandwidth = 0.2;
    o.pre_act = !strcmp(arch, "jumprelu") ? 0.01 : 0;
    o.loss = SONDE_LOSS_FVU;
    o.normalize = SONDE_NORMALIZE_MEAN_SQUARE;
    o.bias_weight = 0.2;
    o.n_prefixes = 0;
    o.dead_window = 300;
    o.aux_k = 12;
    o.resample_every = 400;
    o.resample_times = 3;
    o.seed = 11;
    return o;
}

static sonde_trainer *trained(const char *arch, const struct sizes *s, bool skip, int n_threads,
                              sonde_step_report *last)
{
    sonde_pool *pool = NULL;
    sonde_err err;
    assert_int_equal(sonde_pool_new(n_threads, &pool, &err), SONDE_OK);
    const sonde_work work = {.pool = pool};
    sonde_trainer *t = trainer_of(everything(arch, s, skip), s, skip, &work);
    for (uint64_t step = 0; step < 6; step++) {
        float *x = batch_of(s->n, s->d_in, step), *y = skip ? batch_of(s->n, s->d_out, 100 + step) : NULL;
        if (step == 0)
            assert_int_equal(sonde_trainer_fit(t, x, y, s->n, &work, &err), SONDE_OK);
        *last = step_of(t, x, y, step == 4 ? s->n - 21 : s->n, &work);
        free(x);
        free(y);
    }
    sonde_pool_free(pool);
    return t;
}

static void assert_equal_trainers(const sonde_trainer *a, const sonde_trainer *b)
{
    for (int which = 0; which < N_PARAMS; which++) {
        const struct param *p = &a->p[which], *q = &b->p[which];
        assert_same(p->w, q->w, p->rows * p->cols, p->name);
        assert_same(p->m, q->m, p->rows * p->cols, p->name);
        assert_same(p->v, q->v, p->rows * p->cols, p->name);
    }
    assert_memory_equal(&a->c, &b->c, sizeof a->c);
    assert_memory_equal(a->var_mean, b->var_mean, a->d_out * sizeof *a->var_mean);
    assert_memory_equal(a->silent, b->silent, a->F * sizeof *a->silent);
    assert_memory_equal(a->frequency, b->frequency, a->F * sizeof *a->frequency);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    const struct sizes same = {24, 24, 200, 150}, other = {24, 60, 200, 150};
    for (const char *const *arch = sonde_train_archs(); *arch; arch++)
        for (int skip = 0; skip < 2; skip++) {
            const struct sizes *s = skip ? &other : &same;
            sonde_step_report one, more;
            sonde_trainer *a = trained(*arch, s, skip, 1, &one);
            for (int n = 2; n <= 3; n++) {
                sonde_trainer *b = trained(*arch, s, skip, n, &more);
                assert_equal_trainers(a, b);
                assert_memory_equal(&one, &more, sizeof one);
                sonde_trainer_free(b);
            }
            assert_true(one.loss > 0 && one.gradient_norm > 0);
            sonde_trainer_free(a);
        }
}

static sonde_trainer *trained_with(sonde_train_options o, const struct sizes *s, const sonde_kernels *kernels)
{
    sonde_trainer *t = NULL;
    sonde_err err;
    if (sonde_train_defaults(&o, s->d_in, s->d_out, o.n_tokens, false, &err) ||
        sonde_trainer_new(&o, s->d_in, s->d_out, false, kernels, NULL, &t, &err))
        fail_msg("%s: %s", o.arch, err.msg);
    for (uint64_t step = 0; step < 4; step++) {
        float *x = batch_of(s->n, s->d_in, step);
        step_of(t, x, NULL, s->n, NULL);
        free(x);
    }
    return t;
}

/* bfloat16 too: exact, where the CPU has such products and where it has not. */
static void kernels_and_bfloat16_change_no_bit(void **state)
{
    (void)state;
    const struct sizes s = {24, 24, 200, 150};
    for (const char *const *arch = sonde_train_archs(); *arch; arch++) {
        sonde_train_options o = everything(*arch, &s, false);
        o.bf16 = 0;
        sonde_trainer *plain = trained_with(o, &s, kernels_named("plain"));
        FOR_TABLES(name)
        {
            if (!strcmp(*name, "openblas")) /* its order of sums is its own */
                continue;
            for (o.bf16 = 0; o.bf16 < 2; o.bf16++) {
                sonde_trainer *t = trained_with(o, &s, kernels_named(*name));
                assert_equal_trainers(plain, t);
                sonde_trainer_free(t);
            }
        }
        sonde_trainer_free(plain);
    }
}

/* NaN in a batch: nothing that the next step reads has changed, so a run without that batch is the same. */
static void a_step_that_fails_leaves_no_trace(void **state)
{
    (void)state;
    for (const char *const *arch = sonde_train_archs(); *arch; arch++) {
        sonde_step_report r;
        sonde_err err;
        const struct sizes s = {24, 24, 200, 150};
        sonde_trainer *a = trained(*arch, &s, false, 1, &r), *b = trained(*arch, &s, false, 1, &r);
        float *bad = batch_of(s.n, s.d_in, 9), *x = batch_of(s.n, s.d_in, 10);
        bad[77 * s.d_in + 3] = NAN;
        assert_int_equal(sonde_trainer_step(b, bad, NULL, s.n, NULL, NULL, &err), SONDE_E_NUMERIC);
        assert_non_null(strstr(err.msg, "row 77 "));
        assert_non_null(strstr(err.msg, "step 7"));
        step_of(a, x, NULL, s.n, NULL);
        step_of(b, x, NULL, s.n, NULL);
        assert_equal_trainers(a, b);
        free(bad);
        free(x);
        sonde_trainer_free(a);
        sonde_trainer_free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_steps_are_adam),
        cmocka_unit_test(gradients_above_the_clip_are_scaled_to_it),
        cmocka_unit_test(decoder_rows_keep_norm_1),
        cmocka_unit_test(learning_rate_follows_the_schedule),
        cmocka_unit_test(k_and_sparsity_move_in_steps),
        cmocka_unit_test(schedules_that_cannot_be_are_refused),
        cmocka_unit_test(silence_counts_rows_since_a_latent_fired),
        cmocka_unit_test(running_threshold_follows_the_least_kept_value),
        cmocka_unit_test(thresholds_of_jumprelu_stay_at_or_above_0),
        cmocka_unit_test(dead_latents_begin_again_from_badly_reconstructed_rows),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(kernels_and_bfloat16_change_no_bit),
        cmocka_unit_test(a_step_that_fails_leaves_no_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
