/* SPDX-License-Identifier: MIT
 * The gradient of every term of the objective in every array, against central differences of the objective in
 * double (train_dense.h); the straight-through parts of JumpReLU, which have no difference, against their
 * closed forms. */
#include "train_dense.h"

/* ---- one trainer and its double -------------------------------------------------------------- */

struct point {
    sonde_trainer *t;
    struct dense m;
    sonde_step_report report;
    float *x, *y;
    bool *dead;
};

static double *doubles(size_t n, const float *x)
{
    double *to = need(n, sizeof *to);
    for (size_t i = 0; i < n; i++)
        to[i] = (double)x[i];
    return to;
}

/* Mean squared distance of n rows from their mean. */
static double variance_of(const float *y, size_t n, size_t d)
{
    double sum = 0;
    for (size_t j = 0; j < d; j++) {
        double mean = 0;
        for (size_t r = 0; r < n; r++)
            mean += (double)y[r * d + j] / (double)n;
        for (size_t r = 0; r < n; r++)
            sum += ((double)y[r * d + j] - mean) * ((double)y[r * d + j] - mean);
    }
    return sum / (double)n;
}

/* The stages of a step on the second half of the rows, up to the gradients; the first half has only been
 * observed. */
static void take_gradients(struct point *p)
{
    sonde_trainer *t = p->t;
    const struct sizes *s = &p->m.s;
    sonde_err err;
    const float *x = p->x + s->n * s->d_in, *y = p->y ? p->y + s->n * s->d_out : NULL;
    trainer_normalize(t, p->x, p->y, s->n, NULL);
    trainer_observe(t, s->n, NULL);
    trainer_normalize(t, x, y, s->n, NULL);
    trainer_observe(t, s->n, NULL);
    t->n_rows = s->n;
    t->k = t->o.k;
    t->sparsity = p->m.share;
    if (trainer_forward(t, s->n, NULL, &p->report, &err) || trainer_aux(t, s->n, NULL, &p->report, &err) ||
        trainer_backward(t, s->n, NULL, &p->report, &err))
        fail_msg("%s", err.msg);
    p->m.variance = variance_of(y ? p->y : p->x, 2 * s->n, s->d_out);
    p->m.x = doubles(s->n * s->d_in, x);
    p->m.y = y ? doubles(s->n * s->d_out, y) : p->m.x;
}

/* down: taken from every b_enc, so that few latents are active. */
static struct point point_at(const sonde_train_options *o, const struct sizes *s, bool transcoder, float down)
{
    struct point p = {.t = trainer_of(*o, s, transcoder, NULL)};
    sonde_trainer *t = p.t;
    fill_weights(t, s->F);
    for (size_t i = 0; i < s->F; i++)
        t->p[P_B_ENC].w[i] -= down;
    /* as at the start of a run with another norm: what is taken out of a gradient does not depend on it */
    sonde_scale(t->kernels, s->d_out, 1.5f, t->p[P_W_DEC].w, t->p[P_W_DEC].w);
    p.x = batch_of(2 * s->n, s->d_in, 5);
    p.y = transcoder ? batch_of(2 * s->n, s->d_out, 6) : NULL;
    p.dead = need(s->F, sizeof *p.dead);
    for (size_t i = 0; i < s->F; i++) { /* two of five, some of which are active nevertheless */
        p.dead[i] = i % 5 == 1 || i % 5 == 4;
        t->silent[i] = p.dead[i] ? t->o.dead_window + i - 1 : t->o.dead_window - 1;
    }
    const size_t cells = s->n * s->F;
    p.m = (struct dense){.o = &t->o, .s = *s, .share = 0.7, .dead = p.dead};
    p.m.z = need(cells, sizeof(double));
    p.m.f = need(cells, sizeof(double));
    p.m.offset = need(cells, sizeof(double));
    p.m.y_hat = need(s->n * s->d_out, sizeof(double));
    for (int which = 0; which < N_PARAMS; which++)
        if (t->p[which].w) {
            p.m.p[which] = doubles(t->p[which].rows * t->p[which].cols, t->p[which].w);
            p.m.held[which] = doubles(t->p[which].rows * t->p[which].cols, t->p[which].w);
        }
    take_gradients(&p);
    return p;
}

static void free_point(struct point *p)
{
    for (int which = 0; which < N_PARAMS; which++) {
        free(p->m.p[which]);
        free(p->m.held[which]);
    }
    if (p->m.y != p->m.x)
        free((void *)p->m.y);
    free((void *)p->m.x);
    free(p->m.z);
    free(p->m.f);
    free(p->m.offset);
    free(p->m.y_hat);
    free(p->m.residual);
    free(p->dead);
    free(p->x);
    free(p->y);
    sonde_trainer_free(p->t);
}

/* ---- comparison ------------------------------------------------------------------------------ */

static void near(double got, double want, double scale, const char *what, const char *which, size_t at)
{
    if (!(fabs(got - want) <= 1e-5 * fmax(fabs(want), scale)))
        fail_msg("%s: %s[%zu] is %.9g, expected %.9g", what, which, at, got, want);
}

static void check_report(struct point *p, const char *what)
{
    const double loss = objective(&p->m);
    const sonde_step_report *r = &p->report;
    const struct {
        const char *name;
        double got, want;
    } rows[] = {{"loss", r->loss, loss},
                {"recon", r->recon, p->m.recon},
                {"fvu", r->fvu, p->m.recon / p->m.variance},
                {"penalty", r->penalty, p->m.penalty},
                {"aux", r->aux, p->m.aux},
                {"l0", r->l0, p->m.l0},
                {"l1", r->l1, p->m.l1}};
    for (size_t i = 0; i < COUNT(rows); i++)
        near(rows[i].got, rows[i].want, 1e-3, what, rows[i].name, 0);
}

/* What the optimiser should be given for elements begin, begin + every, ... of one array. */
static void expected_gradient(struct point *p, int which, size_t every, double *want)
{
    const struct param *a = &p->t->p[which];
    const size_t n = a->rows * a->cols, d = a->cols;
    for (size_t j = 0; j < n; j += every) {
        want[j] = slope(&p->m, &p->m.p[which][j]);
        if (which == P_THRESHOLD)
            want[j] += straight_through(&p->m, j);
    }
    for (size_t i = 0; which == P_W_DEC && p->t->o.unit_decoder > 0 && i < a->rows; i++) {
        const double *w = p->m.p[P_W_DEC] + i * d;
        double along = 0, square = 0;
        for (size_t j = 0; j < d; j++) {
            along += want[i * d + j] * w[j];
            square += w[j] * w[j];
        }
        for (size_t j = 0; j < d; j++)
            want[i * d + j] -= along / square * w[j];
    }
}

/* Float sums of at most a hundred products against doubles: 1e-5 of the value or of the array's root mean
 * square. Of large arrays every few elements, for time. */
static void check_gradients(struct point *p, size_t every, const char *what)
{
    double norm = 0;
    for (int which = 0; which < N_PARAMS; which++) {
        const struct param *a = &p->t->p[which];
        const size_t n = a->w ? a->rows * a->cols : 0, step = n > 20 ? every : 1;
        double square = 0, *want = need(n + 1, sizeof *want);
        expected_gradient(p, which, step, want);
        for (size_t j = 0; j < n; j++)
            square += gradient_at(p->t, which, j) * gradient_at(p->t, which, j);
        norm += square;
        const double scale = fmax(sqrt(square / (double)(n ? n : 1)), 1e-4);
        for (size_t j = 0; j < n; j += step)
            near(gradient_at(p->t, which, j), want[j], scale, what, a->name, j);
        free(want);
    }
    near(p->report.gradient_norm, sqrt(norm), 0, what, "gradient_norm", 0);
}

/* ---- cases ----------------------------------------------------------------------------------- */

static const struct sizes square = {6, 6, 10, 16}, odd = {7, 7, 13, 19}, across = {6, 9, 11, 17};

/* Every loss scale, many active latents and few, with and without b_dec before the encoder, free and unit
 * decoders, two sizes. */
static void check_around(sonde_train_options o, bool transcoder, const char *what)
{
    for (int variant = 0; variant < 12; variant++) {
        const struct sizes *s = transcoder ? &across : variant % 5 < 3 ? &square : &odd;
        const bool few = variant % 2;
        char name[160];
        o.n_latents = s->F;
        o.batch = s->n + (variant % 2 ? 7 : 0); /* the last batch of a run is shorter */
        o.loss = variant % 3;
        o.pre_bias = transcoder ? 0 : variant / 3 % 2;
        o.unit_decoder = variant / 6;
        if (o.n_prefixes > 1 && o.n_prefixes <= SONDE_MAX_PREFIXES)
            o.prefix[o.n_prefixes - 1] = s->F;
        snprintf(name, sizeof name, "%s, %s, loss %d, pre_bias %d, unit %d, few %d, F %zu", o.arch, what,
                 o.loss, o.pre_bias, o.unit_decoder, few, s->F);
        struct point p = point_at(&o, s, transcoder, few ? 1.2f : 0);
        check_report(&p, name);
        check_gradients(&p, 1, name);
        free_point(&p);
    }
}

static void gradients_of_topk(void **state)
{
    (void)state;
    check_around(plain_options("topk", &square), false, "no aux");
    check_around(plain_options("batchtopk", &square), false, "no aux");
}

static void with_prefixes(sonde_train_options *o)
{
    o->n_prefixes = 3;
    const uint64_t ends[] = {2, 5, o->n_latents};
    const double weights[] = {0.2, 0.5, 0.8};
    memcpy(o->prefix, ends, sizeof ends);
    memcpy(o->prefix_weight, weights, sizeof weights);
}

static void gradients_of_matryoshka_follow_weights_and_bias_term(void **state)
{
    (void)state;
    sonde_train_options o = plain_options("matryoshka", &square);
    with_prefixes(&o);
    check_around(o, false, "prefixes");
    o.bias_weight = 0.4;
    check_around(o, false, "bias term");
    o.aux_k = 2;
    o.aux_coef = 0.3;
    check_around(o, false, "bias term and aux");
}

static void gradients_of_auxk_hold_the_residual(void **state)
{
    (void)state;
    static const char *const archs[] = {"topk", "batchtopk"};
    for (size_t a = 0; a < COUNT(archs); a++)
        for (int variant = 0; variant < 4; variant++) {
            sonde_train_options o = plain_options(archs[a], &square);
            o.aux_k = variant & 1 ? 7 : 2; /* more than are dead; fewer */
            o.aux_coef = 0.5;
            o.aux_any_sign = variant >> 1;
            o.aux_scaled = variant & 1;
            check_around(o, false, variant & 1 ? "aux, scaled" : "aux");
        }
}

static void gradients_of_relu(void **state)
{
    (void)state;
    sonde_train_options o = plain_options("relu", &square);
    o.l1 = 0.3;
    check_around(o, false, "l1");
    o = plain_options("relu-2023", &square);
    o.l1 = 0.3;
    check_around(o, false, "l1");
}

static void gradients_of_gated_with_decoder_held_and_not(void **state)
{
    (void)state;
    sonde_train_options o = plain_options("gated", &square);
    o.l1 = 0.3;
    o.gated_detach = 1;
    check_around(o, false, "detached");
    o.gated_detach = 0;
    check_around(o, false, "not detached");
}

static sonde_train_options jumprelu(int penalty)
{
    sonde_train_options o = plain_options("jumprelu", &square);
    o.l0 = 0.4;
    o.jump_penalty = penalty;
    o.target_l0 = 2.5;
    o.tanh_scale = 3;
    o.bandwidth = 0.35;
    return o;
}

static void gradients_of_jumprelu_are_the_closed_forms(void **state)
{
    (void)state;
    check_around(jumprelu(SONDE_JUMP_STEP), false, "step");
    check_around(jumprelu(SONDE_JUMP_TARGET), false, "target");
    check_around(jumprelu(SONDE_JUMP_TANH), false, "tanh");
}

static void gradients_of_the_pre_activation_loss(void **state)
{
    (void)state;
    for (int dead_only = 0; dead_only < 2; dead_only++)
        for (int penalty = SONDE_JUMP_TARGET; penalty <= SONDE_JUMP_TANH; penalty++) {
            sonde_train_options o = jumprelu(penalty);
            o.pre_act = 0.2;
            o.pre_act_dead_only = dead_only;
            check_around(o, false, dead_only ? "pre_act of the dead" : "pre_act");
        }
}

static void gradients_of_transcoders(void **state)
{
    (void)state;
    static const char *const archs[] = {"topk", "batchtopk", "matryoshka", "relu", "jumprelu", "gated"};
    for (size_t a = 0; a < COUNT(archs); a++)
        for (int skip = 0; skip < 2; skip++) {
            sonde_train_options o = plain_options(archs[a], &across);
            if (!strcmp(archs[a], "matryoshka"))
                with_prefixes(&o);
            if (!strcmp(archs[a], "topk"))
                o.aux_k = 3;
            o.l1 = o.l0 = 0.2;
            o.bandwidth = 0.35;
            o.skip = skip;
            check_around(o, true, skip ? "skip transcoder" : "transcoder");
            o.gated_detach = 0;
            if (!strcmp(archs[a], "gated"))
                check_around(o, true, skip ? "skip transcoder, not detached" : "transcoder, not detached");
        }
}

/* More rows and latents than a block holds; a third of the elements, for time. */
static void gradients_over_more_than_a_block(void **state)
{
    (void)state;
    static const char *const archs[] = {"topk", "gated", "jumprelu", "matryoshka"};
    const struct sizes s = {17, 17, 70, 67};
    for (size_t a = 0; a < COUNT(archs); a++) {
        sonde_train_options o = plain_options(archs[a], &s);
        o.l1 = o.l0 = 0.2;
        o.bandwidth = 0.1;
        o.pre_bias = 1;
        o.aux_k = !strcmp(archs[a], "topk") ? 5 : 0;
        if (!strcmp(archs[a], "matryoshka"))
            with_prefixes(&o);
        struct point p = point_at(&o, &s, false, 0);
        check_report(&p, archs[a]);
        check_gradients(&p, !strcmp(archs[a], "jumprelu") ? 37 : 31, archs[a]);
        free_point(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_topk),
        cmocka_unit_test(gradients_of_matryoshka_follow_weights_and_bias_term),
        cmocka_unit_test(gradients_of_auxk_hold_the_residual),
        cmocka_unit_test(gradients_of_relu),
        cmocka_unit_test(gradients_of_gated_with_decoder_held_and_not),
        cmocka_unit_test(gradients_of_jumprelu_are_the_closed_forms),
        cmocka_unit_test(gradients_of_the_pre_activation_loss),
        cmocka_unit_test(gradients_of_transcoders),
        cmocka_unit_test(gradients_over_more_than_a_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
