/* SPDX-License-Identifier: MIT
 * Passes of golden models with hooks that change values and hooks that read them. Includers must have
 * cmocka.h before. */
#ifndef SONDE_TESTS_MODEL_EDITS_H
#define SONDE_TESTS_MODEL_EDITS_H

#include <math.h>

#include "model_fixture.h"

#define TOLERANCE 2e-6 /* times max(1, max|reference|): float32 chains of at most 52 terms against double */

enum {
    RESID_PRE = SONDE_SITE_RESID_PRE,
    RESID_MID = SONDE_SITE_RESID_MID,
    RESID_POST = SONDE_SITE_RESID_POST,
    Q = SONDE_SITE_Q,
    K = SONDE_SITE_K,
    V = SONDE_SITE_V,
    SCORES = SONDE_SITE_ATTN_SCORES,
    PATTERN = SONDE_SITE_PATTERN,
    Z = SONDE_SITE_Z,
    RESULT = SONDE_SITE_RESULT,
    ATTN_OUT = SONDE_SITE_ATTN_OUT,
    MLP_OUT = SONDE_SITE_MLP_OUT
};

static const char *const models[] = {"gpt2",    "gpt_neo",      "gpt_neox",       "gpt_neox_serial", "llama",
                                     "llama3",  "mistral",      "qwen3",          "gemma2",          "gemma3",
                                     "tl_solu", "tl_attn_only", "tl_shortformer", "tl_gelu"};
#define N_MODELS (sizeof models / sizeof *models)

static sonde_model *model, *opened[N_MODELS];

static inline int open_all(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        struct fixture f;
        fixture_load(&f, models[i]);
        opened[i] = fixture_must_open(&f, 0);
        fixture_free(&f);
    }
    return 0;
}

static inline int close_all(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++)
        sonde_model_close(opened[i]);
    return 0;
}

static inline void use(const char *name)
{
    for (size_t i = 0; i < N_MODELS; i++)
        if (!strcmp(name, models[i]))
            model = opened[i];
}

/* ---- passes with edits and readings ---------------------------------------- */

/* What to do at a site. Values of head `head` only, or of all (-1). */
struct edit {
    int site;
    size_t layer;
    void (*fn)(const struct edit *e, const sonde_view *v, size_t row, float *x, size_t n);
    int head;
    float by;
    const float *from; /* [rows, width] */
};

struct reading {
    int site;
    size_t layer;
    float *x;
    size_t n;
};

static inline void scale(const struct edit *e, const sonde_view *v, size_t row, float *x, size_t n)
{
    (void)v, (void)row;
    for (size_t i = 0; i < n; i++)
        x[i] *= e->by;
}

/* Some other values, the same for a position wherever it stands in a batch or a cache. */
static inline void bend(const struct edit *e, const sonde_view *v, size_t row, float *x, size_t n)
{
    (void)e;
    for (size_t i = 0; i < n; i++)
        x[i] = 1.25f * x[i] + 0.0625f * (float)((int)(((v->first_pos + row) * 7 + i * 3) % 11) - 5);
}

static inline void replace(const struct edit *e, const sonde_view *v, size_t row, float *x, size_t n)
{
    (void)n;
    memcpy(x, e->from + (v->first_pos + row) * v->width, v->width * sizeof *x);
}

static inline size_t width_of_head(const sonde_view *v)
{
    uint64_t dim[2];
    return sonde_site_shape(&model->arch, v->hook.site, dim) == 2 ? (size_t)dim[1] : v->width;
}

static inline enum sonde_code apply(void *arg, const sonde_view *v, sonde_err *err)
{
    const struct edit *e = arg;
    (void)err;
    if (sonde_site_is_square(v->hook.site)) {
        for (size_t h = 0; h < v->n_heads; h++)
            for (size_t r = 0; r < v->n_rows; r++)
                if (e->head < 0 || h == (size_t)e->head) /* the keys that a causal query sees */
                    e->fn(e, v, r, v->data + (h * v->n_rows + r) * v->n_keys, v->first_pos + r + 1);
        return SONDE_OK;
    }
    size_t w = width_of_head(v);
    for (size_t r = 0; r < v->n_rows; r++) {
        float *row = v->data + r * v->stride;
        if (e->head < 0)
            e->fn(e, v, r, row, v->width);
        else
            e->fn(e, v, r, row + (size_t)e->head * w, w);
    }
    return SONDE_OK;
}

static inline enum sonde_code read_values(void *arg, const sonde_view *v, sonde_err *err)
{
    struct reading *r = arg;
    (void)err;
    size_t rows = sonde_site_is_square(v->hook.site) ? v->n_heads * v->n_rows : v->n_rows;
    r->x = realloc(r->x, (r->n + rows * v->width) * sizeof *r->x);
    for (size_t i = 0; i < rows; i++, r->n += v->width)
        memcpy(r->x + r->n, v->data + i * v->stride, v->width * sizeof *r->x);
    return SONDE_OK;
}

static inline void hook_all(sonde_run *run, const struct edit *e, size_t n_edits, struct reading *r,
                            size_t n_readings)
{
    sonde_err err = {0};
    for (size_t i = 0; i < n_edits; i++)
        if (sonde_run_hook(run, (sonde_hook){(enum sonde_site)e[i].site, e[i].layer}, true, apply,
                           (void *)(uintptr_t)&e[i], &err))
            fail_msg("%s", err.msg);
    for (size_t i = 0; i < n_readings; i++)
        if (sonde_run_hook(run, (sonde_hook){(enum sonde_site)r[i].site, r[i].layer}, false, read_values,
                           &r[i], &err))
            fail_msg("%s", err.msg);
}

/* The logits of seed's tokens under edits, with readings behind them; to be freed, as the readings are. */
static inline float *pass(int seed, const struct edit *e, size_t n_edits, struct reading *r,
                          size_t n_readings)
{
    sonde_run *run = new_run(model);
    hook_all(run, e, n_edits, r, n_readings);
    float *x = logits_of(run, model, seed);
    sonde_run_free(run);
    return x;
}

static inline struct reading read_with(const struct edit *e, size_t n_edits, int site, size_t layer)
{
    struct reading r = {site, layer, NULL, 0};
    free(pass(1, e, n_edits, &r, 1));
    assert_true(r.n > 0);
    return r;
}

static inline struct reading read_at(int site, size_t layer)
{
    return read_with(NULL, 0, site, layer);
}

static inline size_t n_logits(void)
{
    return length_for(model) * model->arch.n_vocab_out;
}

static inline void assert_same(const float *a, const float *b, size_t n, const char *what)
{
    if (memcmp(a, b, n * sizeof *a))
        fail_msg("%s: %s", model->arch.family, what);
}

static inline void assert_close(const float *have, const double *want, size_t n, const char *what)
{
    double most = 1;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs(want[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)have[i] - want[i]) <= TOLERANCE * most))
            fail_msg("%s: %s: value %zu is %.9g, should be %.9g", model->arch.family, what, i,
                     (double)have[i], want[i]);
}

/* Values of head h of x [rows, heads, w]. */
static inline float *head_of(const struct reading *r, size_t heads, size_t h)
{
    size_t rows = length_for(model), w = r->n / rows / heads;
    float *out = malloc(rows * w * sizeof *out);
    for (size_t i = 0; i < rows; i++)
        memcpy(out + i * w, r->x + (i * heads + h) * w, w * sizeof *out);
    return out;
}

#endif
