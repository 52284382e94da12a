/* SPDX-License-Identifier: MIT
 * Units of training: what normalisation makes of activations, and that the dictionary, which reads and writes
 * raw activations, does what the trainer does in its own units. */
#include "train_cases.h"

#include "sae/infer.h"

static const struct sizes same_space = {12, 12, 40, 50}, two_spaces = {12, 9, 40, 50};

/* Far from 0 and from scale 1, directions unlike: a wrong fold shows. */
static float *raw_rows(size_t n, size_t d, uint64_t seed)
{
    float *x = numbers(n * d, seed);
    for (size_t i = 0; i < n * d; i++)
        x[i] = (3.0f + 0.5f * (float)(i % d)) * x[i] + 2.0f + 4.0f * number_at(seed * 77 + i % d);
    return x;
}

struct moments {
    double mean_norm;    /* of the mean row */
    double mean_square;  /* mean ||x||^2 */
    double average_norm; /* mean ||x|| */
};

static struct moments moments_of(const float *x, size_t n, size_t d)
{
    struct moments m = {0};
    double square = 0;
    for (size_t j = 0; j < d; j++) {
        double mean = 0;
        for (size_t r = 0; r < n; r++)
            mean += (double)x[r * d + j] / (double)n;
        square += mean * mean;
    }
    m.mean_norm = sqrt(square);
    for (size_t r = 0; r < n; r++) {
        double row = 0;
        for (size_t j = 0; j < d; j++)
            row += (double)x[r * d + j] * (double)x[r * d + j];
        m.mean_square += row / (double)n;
        m.average_norm += sqrt(row) / (double)n;
    }
    return m;
}

static sonde_trainer *fitted(const char *arch, int normalize, const struct sizes *s, const float *x,
                             const float *y, bool pre_bias)
{
    sonde_train_options o = plain_options(arch, s);
    sonde_err err;
    o.normalize = normalize;
    o.k = 6;
    o.pre_bias = pre_bias;
    o.skip = y != NULL;
    o.n_prefixes = 0;
    sonde_trainer *t = trainer_of(o, s, y != NULL, NULL);
    if (sonde_trainer_fit(t, x, y, s->n, NULL, &err))
        fail_msg("%s", err.msg);
    return t;
}

static void near(double got, double want, double tolerance, const char *what, size_t at)
{
    if (!(fabs(got - want) <= tolerance * fmax(1, fabs(want))))
        fail_msg("%s[%zu] is %.9g, expected %.9g", what, at, got, want);
}

/* ---- normalisation --------------------------------------------------------------------------- */

static void samples_are_brought_to_their_units(void **state)
{
    (void)state;
    const struct sizes *s = &same_space;
    float *x = raw_rows(s->n, s->d_in, 1);
    const struct moments raw = moments_of(x, s->n, s->d_in);
    for (int normalize = 0; normalize < SONDE_N_NORMALIZES; normalize++) {
        sonde_trainer *t = fitted("topk", normalize, s, x, NULL, true);
        trainer_normalize(t, x, NULL, s->n, NULL);
        const struct moments m = moments_of(t->xs, s->n, s->d_in);
        if (normalize == SONDE_NORMALIZE_NONE)
            assert_memory_equal(t->xs, x, s->n * s->d_in * sizeof *x);
        if (normalize == SONDE_NORMALIZE_MEAN_SQUARE || normalize == SONDE_NORMALIZE_STANDARD)
            near(m.mean_square, 1, 1e-6, "mean square", 0);
        if (normalize == SONDE_NORMALIZE_STANDARD)
            near(m.mean_norm, 0, 1e-6, "mean", 0);
        else if (normalize < SONDE_NORMALIZE_CONSTANT)
            near(m.mean_norm / m.average_norm, raw.mean_norm / raw.average_norm, 1e-6, "direction", 0);
        if (normalize == SONDE_NORMALIZE_SQRT_D)
            near(m.average_norm, sqrt(12), 1e-6, "average norm", 0);
        for (size_t r = 0; r < s->n && normalize >= SONDE_NORMALIZE_CONSTANT; r++) {
            double sum = 0, square = 0;
            for (size_t j = 0; j < 12; j++) {
                sum += (double)t->xs[r * 12 + j];
                square += (double)t->xs[r * 12 + j] * (double)t->xs[r * 12 + j];
            }
            near(square, 12, 2e-5, "square of row", r); /* the layer's epsilon is 1e-5 of a spread near 3 */
            if (normalize == SONDE_NORMALIZE_LAYER)
                near(sum, 0, 1e-5, "sum of row", r);
        }
        sonde_trainer_free(t);
    }
    free(x);
}

/* sum_r (x_r - b) / ||x_r - b|| is 0 at the geometric median. */
static void first_bias_is_the_mean_the_median_or_nothing(void **state)
{
    (void)state;
    const struct sizes *s = &same_space;
    float *x = raw_rows(s->n, s->d_in, 1);
    for (int how = SONDE_BIAS_MEAN; how <= SONDE_BIAS_ZERO; how++) {
        sonde_train_options o = plain_options("topk", s);
        sonde_err err;
        o.normalize = SONDE_NORMALIZE_MEAN_SQUARE;
        o.bias_init = how;
        sonde_trainer *t = trainer_of(o, s, false, NULL);
        assert_int_equal(sonde_trainer_fit(t, x, NULL, s->n, NULL, &err), SONDE_OK);
        double pull[12] = {0}, mean[12] = {0};
        for (size_t r = 0; r < s->n; r++) {
            double e[12], square = 0;
            for (size_t j = 0; j < 12; j++) {
                e[j] = (double)t->xs[r * 12 + j] - (double)t->p[P_B_DEC].w[j];
                square += e[j] * e[j];
                mean[j] += (double)t->xs[r * 12 + j] / (double)s->n;
            }
            for (size_t j = 0; j < 12; j++)
                pull[j] += e[j] / sqrt(square) / (double)s->n;
        }
        for (size_t j = 0; j < 12; j++) {
            if (how == SONDE_BIAS_MEDIAN)
                near(pull[j], 0, 1e-4, "pull at the median", j);
            else
                near((double)t->p[P_B_DEC].w[j], how == SONDE_BIAS_MEAN ? mean[j] : 0, 1e-6, "b_dec", j);
        }
        sonde_trainer_free(t);
    }
    free(x);
}

/* ---- the dictionary -------------------------------------------------------------------------- */

/* Training's own latents of the rows, dense. BatchTopK's are those of the dictionary that it becomes: all
 * above a threshold that lies below the smallest it kept. */
static double *latents_in_training(sonde_trainer *t, size_t n)
{
    sonde_step_report r;
    sonde_err err;
    double *f = need(n * t->F, sizeof *f), least = INFINITY;
    t->n_rows = n;
    t->k = t->o.k;
    t->dense_from = (struct dense_from){2, SIZE_MAX}; /* lists, to be read here */
    if (trainer_forward(t, n, NULL, &r, &err))
        fail_msg("%s", err.msg);
    for (size_t row = 0; row < n; row++)
        for (uint64_t e = t->z.start[row]; e < t->z.start[row + 1]; e++) {
            const double z = (double)t->z.value[e];
            f[row * t->F + t->z.col[e]] = t->arch->activate ? (double)t->f[e] : z;
            least = fmin(least, z);
        }
    if (t->arch->traits & ARCH_CALIBRATE)
        t->c.threshold = least * (1 - 1e-5);
    return f;
}

/* Raw units of row r of the reconstruction in training units: what normalisation did, undone. */
static double raw_of(const sonde_trainer *t, const float *raw, size_t r, size_t j)
{
    const size_t d = t->d_out;
    const double y = (double)t->ys[r * d + j] - (double)t->G2[r * d + j]; /* G2 holds y - y^ */
    double mean = 0, square = 0;
    if (t->o.normalize < SONDE_NORMALIZE_CONSTANT)
        return y / t->c.scale_out + (t->c.shift_used != 0 ? t->mean_out[j] : 0);
    for (size_t i = 0; t->o.normalize == SONDE_NORMALIZE_LAYER && i < d; i++)
        mean += (double)raw[r * d + i] / (double)d;
    for (size_t i = 0; i < d; i++)
        square += ((double)raw[r * d + i] - mean) * ((double)raw[r * d + i] - mean);
    return y * sqrt(square / (double)d) + mean;
}

static void check_dictionary(sonde_trainer *t, const float *x, const float *y, const struct sizes *s,
                             const char *what)
{
    sonde_err err;
    sonde_dict *d = NULL;
    sonde_encoder *e = NULL;
    sonde_sparse f = {0};
    float *out = need(s->n * s->d_out, sizeof *out);
    double *want = latents_in_training(t, s->n), *got = need(s->n * s->F, sizeof *got);
    if (sonde_trainer_export(t, NULL, &d, &err) ||
        sonde_encoder_new(d, sonde_kernels_best(), false, NULL, NULL, &e, &err) ||
        sonde_encoder_encode(e, x, s->d_in, s->n, NULL, &f, &err) ||
        sonde_encoder_decode(e, &f, x, s->d_in, NULL, out, s->d_out, &err))
        fail_msg("%s: %s", what, err.msg);
    for (size_t r = 0; r < s->n; r++)
        for (uint64_t i = f.start[r]; i < f.start[r + 1]; i++)
            got[r * s->F + f.col[i]] = (double)f.value[i];
    for (size_t i = 0; i < s->n * s->F; i++) /* in units of training */
        near(got[i] * t->c.scale_out, want[i], 1e-5, what, i);
    const float *target = y ? y : x;
    for (size_t i = 0; i < s->n * s->d_out && !(t->arch->traits & ARCH_GATE); i++)
        near((double)out[i], raw_of(t, target, i / s->d_out, i % s->d_out), 1e-5, what, i);
    assert_true(f.start[s->n] > s->n && f.start[s->n] < s->n * s->F);
    sonde_encoder_free(e);
    sonde_dict_free(d);
    sonde_sparse_free(&f);
    free(out);
    free(want);
    free(got);
}

static void dictionaries_encode_raw_rows_as_training_does(void **state)
{
    (void)state;
    const struct sizes *s = &same_space;
    float *x = raw_rows(s->n, s->d_in, 1), *held = raw_rows(s->n, s->d_in, 2);
    for (const char *const *arch = sonde_train_archs(); *arch; arch++)
        for (int normalize = 0; normalize < SONDE_N_NORMALIZES; normalize++)
            for (int pre_bias = 0; pre_bias < 2; pre_bias++) {
                char what[80];
                snprintf(what, sizeof what, "%s, normalize %d, pre_bias %d", *arch, normalize, pre_bias);
                sonde_trainer *t = fitted(*arch, normalize, s, x, NULL, pre_bias);
                fill_weights(t, 4);
                trainer_normalize(t, held, NULL, s->n, NULL);
                trainer_observe(t, s->n, NULL);
                check_dictionary(t, held, NULL, s, what);
                sonde_trainer_free(t);
            }
    free(x);
    free(held);
}

static void transcoders_read_and_write_raw_rows(void **state)
{
    (void)state;
    const struct sizes *s = &two_spaces;
    float *x = raw_rows(s->n, s->d_in, 1), *y = raw_rows(s->n, s->d_out, 3);
    for (const char *const *arch = sonde_train_archs(); *arch; arch++)
        for (int normalize = 0; normalize < SONDE_NORMALIZE_CONSTANT; normalize++) {
            char what[80];
            snprintf(what, sizeof what, "transcoder %s, normalize %d", *arch, normalize);
            sonde_trainer *t = fitted(*arch, normalize, s, x, y, false);
            fill_weights(t, 4);
            trainer_normalize(t, x, y, s->n, NULL);
            trainer_observe(t, s->n, NULL);
            check_dictionary(t, x, y, s, what);
            sonde_trainer_free(t);
        }
    free(x);
    free(y);
}

/* The dictionary could only undo the input's norm or layer statistics, which are not the target's. */
static void transcoders_refuse_normalisation_by_row(void **state)
{
    (void)state;
    for (int normalize = SONDE_NORMALIZE_CONSTANT; normalize <= SONDE_NORMALIZE_LAYER; normalize++) {
        sonde_train_options o = plain_options("topk", &two_spaces);
        sonde_err err;
        o.normalize = normalize;
        assert_int_equal(sonde_train_defaults(&o, 12, 9, 1000, true, &err), SONDE_E_USAGE);
        assert_int_equal(sonde_train_defaults(&o, 12, 12, 1000, false, &err), SONDE_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_brought_to_their_units),
        cmocka_unit_test(first_bias_is_the_mean_the_median_or_nothing),
        cmocka_unit_test(dictionaries_encode_raw_rows_as_training_does),
        cmocka_unit_test(transcoders_read_and_write_raw_rows),
        cmocka_unit_test(transcoders_refuse_normalisation_by_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
