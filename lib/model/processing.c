/* SPDX-License-Identifier: MIT
 * Weight processing as TransformerLens defines it, on packed weights: a column of W holds all that one output
 * reads, so folding and centring what is read works column by column; centring what is written takes the mean
 * over columns. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights_impl.h"

struct work_columns {
    float *column; /* [k] */
    double *mean;  /* [k] */
};

static void repack_column(const sonde_packed *w, size_t j, const float *column)
{
    sonde_pack(w, 0, w->k, j, 1, column, 1, w->k);
}

/* W' = diag(gamma) W, minus each column's mean if `centre`; b' = b + beta W. */
static void fold_norm(const sonde_packed *w, float *bias, const sonde_affine *ln, bool centre,
                      struct work_columns *s)
{
    for (size_t j = 0; j < w->n; j++) {
        double from_beta = 0, sum = 0;
        sonde_unpack_column(w, j, s->column);
        for (size_t i = 0; i < w->k; i++) {
            if (ln->beta)
                from_beta += (double)ln->beta[i] * (double)s->column[i];
            if (ln->gamma)
                s->column[i] *= ln->gamma[i];
            sum += (double)s->column[i];
        }
        float mean = (float)(sum / (double)w->k);
        for (size_t i = 0; centre && i < w->k; i++)
            s->column[i] -= mean;
        repack_column(w, j, s->column);
        if (bias)
            bias[j] = (float)((double)bias[j] + from_beta);
    }
}

/* Each input's outputs lose their mean over all n columns; so does the bias. */
static void centre_outputs(const sonde_packed *w, float *bias, struct work_columns *s)
{
    memset(s->mean, 0, w->k * sizeof *s->mean);
    for (size_t j = 0; j < w->n; j++) {
        sonde_unpack_column(w, j, s->column);
        for (size_t i = 0; i < w->k; i++)
            s->mean[i] += (double)s->column[i];
    }
    for (size_t j = 0; j < w->n; j++) {
        sonde_unpack_column(w, j, s->column);
        for (size_t i = 0; i < w->k; i++)
            s->column[i] = (float)((double)s->column[i] - s->mean[i] / (double)w->n);
        repack_column(w, j, s->column);
    }
    double mean = 0;
    for (size_t j = 0; bias && j < w->n; j++)
        mean += (double)bias[j];
    for (size_t j = 0; bias && j < w->n; j++)
        bias[j] = (float)((double)bias[j] - mean / (double)w->n);
}

/* b_O += sum over heads of b_V W_O; b_V = 0. Query head h reads the values of head h / (H / Hk). */
static void fold_value_biases(const sonde_arch *a, sonde_layer *y, struct work_columns *s)
{
    size_t group = a->n_heads / a->n_kv_heads, dh = a->d_head;
    float *b_v = y->qkv_bias ? y->qkv_bias + (a->n_heads + a->n_kv_heads) * dh : NULL;
    if (!b_v)
        return;
    for (size_t j = 0; j < y->o.n; j++) {
        double sum = 0;
        sonde_unpack_column(&y->o, j, s->column);
        for (size_t i = 0; i < y->o.k; i++)
            sum += (double)b_v[i / dh / group * dh + i % dh] * (double)s->column[i];
        y->o_bias[j] = (float)((double)y->o_bias[j] + sum);
    }
    memset(b_v, 0, a->n_kv_heads * dh * sizeof *b_v);
}

static void centre_rows(float *x, size_t n_rows, size_t d)
{
    for (size_t r = 0; r < n_rows; r++) {
        double mean = 0;
        for (size_t i = 0; i < d; i++)
            mean += (double)x[r * d + i];
        for (size_t i = 0; i < d; i++)
            x[r * d + i] = (float)((double)x[r * d + i] - mean / (double)d);
    }
}

static enum sonde_code give_bias(sonde_model *m, float **bias, size_t n, sonde_err *err)
{
    if (!*bias)
        *bias = sonde_arena_get(m->arena, n, sizeof **bias, err);
    return *bias ? SONDE_OK : SONDE_E_MEMORY;
}

static enum sonde_code give_biases(sonde_model *m, sonde_layer *y, sonde_err *err)
{
    const sonde_arch *a = &m->arch;
    enum sonde_code code = give_bias(m, &y->qkv_bias, y->qkv.n, err);
    if (!code)
        code = give_bias(m, &y->o_bias, a->d_model, err);
    if (!code && a->d_mlp)
        code = give_bias(m, &y->in_bias, y->in.n, err);
    if (!code && a->d_mlp)
        code = give_bias(m, &y->out_bias, a->d_model, err);
    return code;
}

static enum sonde_code process_layer(sonde_model *m, sonde_layer *y, struct work_columns *s, sonde_err *err)
{
    const sonde_arch *a = &m->arch;
    bool centre = a->norm == SONDE_NORM_LAYER;
    enum sonde_code code = give_biases(m, y, err);
    if (code)
        return code;
    if (m->processing & SONDE_FOLD_LN) {
        fold_norm(&y->qkv, y->qkv_bias, &y->ln1, centre, s);
        y->ln1 = (sonde_affine){0};
        if (a->d_mlp)
            fold_norm(&y->in, y->in_bias, &y->ln2, centre, s);
        y->ln2 = (sonde_affine){0};
        if (a->solu_ln)
            fold_norm(&y->out, y->out_bias, &y->mlp_ln, true, s);
        y->mlp_ln = (sonde_affine){0};
    }
    if (m->processing & SONDE_CENTER_WRITING) {
        centre_outputs(&y->o, y->o_bias, s);
        if (a->d_mlp)
            centre_outputs(&y->out, y->out_bias, s);
    }
    if (m->processing & SONDE_FOLD_VALUE_BIASES)
        fold_value_biases(a, y, s);
    return SONDE_OK;
}

static void process_ends(sonde_model *m)
{
    const sonde_arch *a = &m->arch;
    if (m->processing & SONDE_FOLD_LN) {
        m->ln_folded = m->ln_final;
        m->ln_final = (sonde_affine){0};
    }
    if (m->processing & SONDE_CENTER_WRITING) {
        m->embed_centred = true;
        if (m->position &&
            a->positions == SONDE_POS_LEARNED) /* Shortformer's never enter the residual stream */
            centre_rows(m->position, a->n_ctx, a->d_model);
    }
}

static enum sonde_code columns_new(const sonde_arch *a, struct work_columns *s, sonde_err *err)
{
    size_t k = a->d_model > a->d_mlp ? a->d_model : a->d_mlp, heads = a->n_heads * a->d_head;
    k = k > heads ? k : heads;
    s->column = malloc(k * sizeof *s->column);
    s->mean = malloc(k * sizeof *s->mean);
    return s->column && s->mean ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu columns", k);
}

static void columns_free(struct work_columns *s)
{
    free(s->column);
    free(s->mean);
}

enum sonde_code weights_process_unembed(sonde_model *m, sonde_err *err)
{
    const sonde_arch *a = &m->arch;
    struct work_columns s = {0};
    bool fold = (m->processing & SONDE_FOLD_LN) && a->final_norm;
    if (!fold && !(m->processing & SONDE_CENTER_UNEMBED))
        return SONDE_OK;
    enum sonde_code code = columns_new(a, &s, err);
    if (!code && fold && !(code = give_bias(m, &m->unembed_bias, a->n_vocab_out, err)))
        fold_norm(&m->unembed, m->unembed_bias, &m->ln_folded, a->final_norm == SONDE_NORM_LAYER, &s);
    if (!code && (m->processing & SONDE_CENTER_UNEMBED))
        centre_outputs(&m->unembed, m->unembed_bias, &s);
    columns_free(&s);
    return code;
}

enum sonde_code weights_process(sonde_model *m, sonde_err *err)
{
    const sonde_arch *a = &m->arch;
    struct work_columns s = {0};
    if (!m->processing)
        return SONDE_OK;
    if ((m->processing & SONDE_CENTER_WRITING) &&
        (a->norm != SONDE_NORM_LAYER || a->final_norm != SONDE_NORM_LAYER))
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: center_writing_weights needs LayerNorm; the family '%s' has none", m->path,
                          a->family);
    if ((m->processing & SONDE_FOLD_LN) && a->norm && a->positions == SONDE_POS_SHORTFORMER)
        return sonde_fail(
            err, SONDE_E_USAGE,
            "%s: fold_ln would change the positions that are added after the norm (shortformer)", m->path);
    if ((m->processing & SONDE_CENTER_UNEMBED) && a->final_softcap > 0)
        return sonde_fail(err, SONDE_E_USAGE, "%s: center_unembed would change capped logits (cap %g)",
                          m->path, (double)a->final_softcap);
    enum sonde_code code = columns_new(a, &s, err);
    for (size_t l = 0; l < a->n_layers && !code; l++)
        code = process_layer(m, &m->layer[l], &s, err);
    if (!code)
        process_ends(m);
    columns_free(&s);
    return code;
}

static const struct {
    unsigned bit;
    const char *name;
} bits[] = {{SONDE_FOLD_LN, "fold_ln"},
            {SONDE_CENTER_WRITING, "center_writing_weights"},
            {SONDE_CENTER_UNEMBED, "center_unembed"},
            {SONDE_FOLD_VALUE_BIASES, "fold_value_biases"}};
#define N_BITS (sizeof bits / sizeof *bits)

char *sonde_processing_text(unsigned processing, char *buf, size_t n)
{
    snprintf(buf, n, "%s", processing ? "" : "none");
    for (size_t i = 0; i < N_BITS; i++)
        if (processing & bits[i].bit) {
            size_t at = strlen(buf);
            snprintf(buf + at, n - at, "%s%s", at ? "," : "", bits[i].name);
        }
    return buf;
}

enum sonde_code sonde_processing_parse(const char *text, unsigned *out, sonde_err *err)
{
    unsigned p = 0;
    for (const char *s = text; *s && strcmp(text, "none");) {
        size_t n = strcspn(s, ","), i = 0;
        while (i < N_BITS && !(strlen(bits[i].name) == n && !strncmp(bits[i].name, s, n)))
            i++;
        if (i == N_BITS)
            return sonde_fail(err, SONDE_E_USAGE,
                              "weight processing '%.*s' is not known (none, fold_ln, center_writing_weights, "
                              "center_unembed, "
                              "fold_value_biases are)",
                              (int)(n < 60 ? n : 60), s);
        p |= bits[i].bit;
        s += n + (s[n] == ',');
    }
    *out = p;
    return SONDE_OK;
}
