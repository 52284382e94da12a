/* SPDX-License-Identifier: MIT
 * Steps that run as products over blocks of latents against the same steps over lists of entries, and when
 * which of the two is taken. */
#include <unistd.h>

#include "train_cases.h"

#include "base/pool.h"
#include "sae/state_impl.h"

/* No size divides by a tile, a block or a vector; the batch has several blocks, and lists enough entries to
 * be sorted by several threads. */
static const struct sizes odd = {37, 37, 331, 203}, odd_pair = {37, 29, 331, 203};
enum { STEPS = 4, SHORT_STEP = 2, SHORT_ROWS = 77 };

static const struct dense_from lists = {2, SIZE_MAX}, products = {0, SIZE_MAX};

static const struct {
    const char *label, *arch;
    bool transcoder, attached; /* attached: the gate's loss moves the decoder */
    int jump_penalty;
    double pre_act;
} cases[] = {
    {"relu", "relu", false, false, 0, 0},
    {"relu transcoder with skip", "relu", true, false, 0, 0},
    {"relu-2023", "relu-2023", false, false, 0, 0},
    {"gated", "gated", false, false, 0, 0},
    {"gated, decoder attached", "gated", false, true, 0, 0},
    {"gated transcoder with skip", "gated", true, true, 0, 0},
    {"jumprelu, target", "jumprelu", false, false, SONDE_JUMP_TARGET, 0},
    {"jumprelu, step", "jumprelu", false, false, SONDE_JUMP_STEP, 0.01},
    {"jumprelu, tanh", "jumprelu", true, false, SONDE_JUMP_TANH, 0},
};

static sonde_trainer *new_trainer(size_t c, struct dense_from from, const sonde_work *work)
{
    const struct sizes *s = cases[c].transcoder ? &odd_pair : &odd;
    sonde_train_options o = plain_options(cases[c].arch, s);
    const bool unit = !strcmp(cases[c].arch, "relu-2023");
    o.lr = 1e-3;
    o.l1 = o.l0 = 0.05;
    o.bandwidth = 0.3;
    o.target_l0 = 40;
    o.jump_penalty = cases[c].jump_penalty;
    o.pre_act = cases[c].pre_act;
    o.gated_detach = !cases[c].attached;
    o.skip = cases[c].transcoder && strcmp(cases[c].arch, "jumprelu");
    o.pre_bias = !cases[c].transcoder;
    o.unit_decoder = unit;
    o.resample_every = unit ? 2 * s->n : 0;
    o.resample_times = unit ? 1 : 0;
    o.dead_window = 2 * s->n - 10;
    sonde_trainer *t = trainer_of(o, s, cases[c].transcoder, work);
    t->dense_from = from;
    fill_weights(t, 3);
    for (size_t i = 0; i < s->F; i += 7) /* some latents that are rare, and some that never fire */
        t->p[P_B_ENC].w[i] = i % 2 ? -2.5f : -60.0f;
    return t;
}

static sonde_step_report step(sonde_trainer *t, uint64_t i, const sonde_work *work)
{
    const size_t n = i == SHORT_STEP ? SHORT_ROWS : odd.n;
    float *x = batch_of(n, t->d_in, 10 + i), *y = t->transcoder ? batch_of(n, t->d_out, 100 + i) : NULL;
    sonde_step_report r;
    sonde_err err;
    if (sonde_trainer_step(t, x, y, n, work, &r, &err))
        fail_msg("%s: %s", t->o.arch, err.msg);
    free(x);
    free(y);
    return r;
}

static double largest(size_t n, const float *x)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)x[i]));
    return most;
}

static void near_all(size_t n, const float *a, const float *b, double within, const char *what,
                     const char *which)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= within))
            fail_msg("%s: %s[%zu] is %.9g by products, %.9g by lists (within %g)", what, which, i,
                     (double)b[i], (double)a[i], within);
}

/* From the same weights: all that does not go through dL/df has the same bits. */
static void compare_first_step(const sonde_trainer *a, const sonde_trainer *b, const sonde_step_report *ra,
                               const sonde_step_report *rb, const char *what)
{
    assert_true(ra->recon == rb->recon && ra->l0 == rb->l0 && ra->l1 == rb->l1);
    assert_true(a->n_entries == b->n_entries && a->n_active == b->n_active);
    assert_same(b->G[0], a->G[0], odd.n * a->d_out, what);
    assert_same(b->G2, a->G2, odd.n * a->d_out, what);
    assert_memory_equal(a->touched, b->touched, a->F);
    assert_memory_equal(a->fired, b->fired, a->F * sizeof *a->fired);
    for (size_t i = 0; i < a->F; i++)
        if (a->touched[i] && !(a->o.jump_penalty == SONDE_JUMP_TANH && a->p[P_THRESHOLD].w))
            assert_same(b->p[P_W_DEC].g + i * a->d_out, a->p[P_W_DEC].g + i * a->d_out, a->d_out, what);
    for (int which = 0; which < N_PARAMS; which++) {
        const struct param *p = &a->p[which], *q = &b->p[which];
        const size_t n = p->rows * p->cols;
        for (size_t j = 0; p->w && j < n; j++)
            if (!(fabs(gradient_at(a, which, j) - gradient_at(b, which, j)) <= 1e-6 * largest(n, p->g)))
                fail_msg("%s: gradient of %s[%zu] is %.9g by products, %.9g by lists", what, p->name, j,
                         (double)q->g[j], (double)p->g[j]);
    }
}

static void products_do_what_lists_do(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNT(cases); c++) {
        sonde_trainer *a = new_trainer(c, lists, NULL), *b = new_trainer(c, products, NULL);
        for (uint64_t i = 0; i < STEPS; i++) {
            const sonde_step_report ra = step(a, i, NULL), rb = step(b, i, NULL);
            assert_true(!a->dense && b->dense);
            assert_true(ra.l0 > 40 && ra.l0 < 250);
            if (i == 0)
                compare_first_step(a, b, &ra, &rb, cases[c].label);
            if (!(fabs(ra.loss - rb.loss) <= 1e-6 * ra.loss))
                fail_msg("%s: loss of step %d is %.9g by products, %.9g by lists", cases[c].label, (int)i + 1,
                         rb.loss, ra.loss);
            assert_int_equal(ra.n_dead, rb.n_dead);
        }
        for (int which = 0; which < N_PARAMS; which++) {
            const struct param *p = &a->p[which];
            if (p->w)
                near_all(p->rows * p->cols, p->w, b->p[which].w, 2e-6, cases[c].label, p->name);
        }
        sonde_trainer_free(a);
        sonde_trainer_free(b);
    }
}

static sonde_trainer *trained(size_t c, struct dense_from from, int n_threads)
{
    sonde_pool *pool = NULL;
    sonde_err err;
    assert_int_equal(sonde_pool_new(n_threads, &pool, &err), SONDE_OK);
    const sonde_work work = {.pool = pool};
    sonde_trainer *t = new_trainer(c, from, &work);
    for (uint64_t i = 0; i < STEPS; i++)
        step(t, i, &work);
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
    assert_memory_equal(a->frequency, b->frequency, a->F * sizeof *a->frequency);
}

static void threads_change_no_bit_of_either(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNT(cases); c++)
        for (int way = 0; way < 2; way++) {
            sonde_trainer *one = trained(c, way ? products : lists, 1);
            assert_true(way || one->n_entries > 20000);
            for (int n = 2; n <= 3; n++) {
                sonde_trainer *t = trained(c, way ? products : lists, n);
                assert_equal_trainers(t, one);
                sonde_trainer_free(t);
            }
            sonde_trainer_free(one);
        }
}

/* ---- which way ------------------------------------------------------------------------------- */

static void set_bias(sonde_trainer *t, float bias)
{
    for (size_t i = 0; i < t->F; i++)
        t->p[P_B_ENC].w[i] = bias;
    trainer_pack(t, NULL);
}

static void density_of_the_last_step_decides(void **state)
{
    (void)state;
    sonde_trainer *t = new_trainer(0, lists, NULL);
    t->dense_from = (struct dense_from){0.1, SIZE_MAX};
    step(t, 0, NULL); /* unknown: found while encoding */
    assert_true(t->dense && t->c.density > 0.3 && t->tiles && !t->main.row && !t->z.start);
    set_bias(t, -4);
    step(t, 1, NULL);
    assert_true(t->dense && t->c.density > 0 && t->c.density < 0.1);
    step(t, 3, NULL);
    assert_true(!t->dense && !t->tiles && t->main.row);
    set_bias(t, 0);
    step(t, 4, NULL);
    assert_true(t->dense && t->c.density > 0.3);
    set_bias(t, -4);
    t->dense_from.share = 1; /* the number alone */
    t->dense_from.n_entries = 10;
    step(t, 5, NULL);
    step(t, 6, NULL);
    assert_true(t->dense && t->n_entries > 10);
    sonde_trainer_free(t);
}

/* A run that goes on from a checkpoint takes the same way as the one that wrote it. */
static void the_density_is_part_of_the_state(void **state)
{
    (void)state;
    char path[] = "/tmp/sonde_dense_XXXXXX";
    const int fd = mkstemp(path);
    sonde_err err;
    sonde_source_position at = {0};
    struct log_sums sums = {0};
    sonde_trainer *a = new_trainer(0, lists, NULL), *b = new_trainer(0, lists, NULL);
    assert_true(fd >= 0);
    close(fd);
    a->dense_from = b->dense_from = (struct dense_from){0.1, SIZE_MAX};
    step(a, 0, NULL);
    set_bias(a, -4); /* so few that lists would do */
    if (state_save(a, at, &sums, "{}", path, &err) || state_load(b, path, "{}", &at, &sums, &err))
        fail_msg("%s", err.msg);
    unlink(path);
    trainer_pack(b, NULL);
    for (uint64_t i = 1; i < STEPS; i++) {
        step(a, i, NULL);
        step(b, i, NULL);
        assert_true(a->dense == b->dense && a->dense == (i == 1));
    }
    assert_equal_trainers(b, a);
    sonde_trainer_free(a);
    sonde_trainer_free(b);
}

static void products_hold_no_dense_array(void **state)
{
    (void)state;
    static const struct sizes wide = {24, 24, 16384, 256};
    sonde_budget budget = {0};
    const sonde_work work = {.budget = &budget};
    sonde_train_options o = plain_options("gated", &wide);
    sonde_trainer *t = trainer_of(o, &wide, false, &work);
    t->dense_from = products;
    fill_weights(t, 1);
    const size_t before = budget.taken;
    float *x = batch_of(wide.n, wide.d_in, 5);
    sonde_step_report r;
    sonde_err err;
    assert_int_equal(sonde_trainer_step(t, x, NULL, wide.n, &work, &r, &err), SONDE_OK);
    assert_true(t->dense && r.l0 > 4000);
    assert_true(budget.taken - before < wide.n * wide.F * sizeof(float) / 8);
    budget.limit = budget.taken - 1; /* one byte less is refused, and nothing is lost */
    dense_free(t);
    assert_int_equal(sonde_trainer_step(t, x, NULL, wide.n, &work, &r, &err), SONDE_E_MEMORY);
    budget.limit = 0;
    assert_int_equal(sonde_trainer_step(t, x, NULL, wide.n, &work, &r, &err), SONDE_OK);
    sonde_trainer_free(t);
    assert_int_equal(budget.taken, 0);
    free(x);
}

static void what_is_not_finite_is_named_either_way(void **state)
{
    (void)state;
    static const char *const archs[] = {"relu", "gated", "jumprelu"};
    for (size_t a = 0; a < COUNT(archs); a++) {
        char said[2][sizeof((sonde_err *)0)->msg];
        for (int way = 0; way < 2; way++) {
            sonde_train_options o = plain_options(archs[a], &odd);
            sonde_trainer *t = trainer_of(o, &odd, false, NULL);
            sonde_err err;
            t->dense_from = way ? products : lists;
            fill_weights(t, 1);
            for (size_t j = 0; j < odd.d_in; j++) { /* large, and its reconstruction larger than floats */
                t->p[P_W_ENC].w[200 * odd.d_in + j] *= 1e20f;
                t->p[P_W_DEC].w[200 * odd.d_out + j] *= 1e20f;
            }
            trainer_pack(t, NULL);
            float *x = batch_of(odd.n, odd.d_in, 5);
            assert_int_equal(sonde_trainer_step(t, x, NULL, odd.n, NULL, NULL, &err), SONDE_E_NUMERIC);
            assert_true(t->dense == way);
            assert_non_null(strstr(err.msg, "largest latent 200: "));
            memcpy(said[way], err.msg, sizeof said[way]);
            free(x);
            sonde_trainer_free(t);
        }
        assert_string_equal(said[0], said[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_do_what_lists_do),
        cmocka_unit_test(threads_change_no_bit_of_either),
        cmocka_unit_test(density_of_the_last_step_decides),
        cmocka_unit_test(the_density_is_part_of_the_state),
        cmocka_unit_test(products_hold_no_dense_array),
        cmocka_unit_test(what_is_not_finite_is_named_either_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
