/* SPDX-License-Identifier: MIT
 * The objective of training written out in double: every latent of every row, nothing sparse, nothing shared
 * with lib/sae but the options. What training holds constant (a residual, a detached decoder) is in
 * `held`. */
#ifndef TEST_TRAIN_DENSE_H
#define TEST_TRAIN_DENSE_H

#include "train_cases.h"

struct dense {
    const sonde_train_options *o;
    struct sizes s;
    double share;        /* of the penalty in force */
    double variance;     /* running variance of the target */
    const double *x, *y; /* normalised */
    const bool *dead;    /* [F] */
    double *p[N_PARAMS]; /* what is differentiated by */
    double *held[N_PARAMS];
    double *residual; /* [n, d_out] of the point where the gradient is taken; NULL: of this point */
    double spread;    /* of that residual */
    double *z, *f;    /* [n, F] */
    double *offset;   /* [n, F] added to f */
    double *y_hat;    /* [n, d_out] of the last prefix */
    double recon, penalty, aux, l0, l1;
};

static inline bool is_arch(const struct dense *m, const char *name)
{
    return !strcmp(m->o->arch, name);
}

static inline int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The k-th largest of those that count. */
static inline double kth(const double *v, const bool *counts, size_t n, size_t k)
{
    double *sorted = need(n, sizeof *sorted);
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (!counts || counts[i])
            sorted[m++] = v[i];
    qsort(sorted, m, sizeof *sorted, descending);
    const double at = m == 0 ? INFINITY : sorted[(k < m ? k : m) - 1];
    free(sorted);
    return at;
}

static inline double row_norm(const struct dense *m, size_t i)
{
    double square = 0;
    if (m->o->unit_decoder > 0)
        return 1;
    for (size_t j = 0; j < m->s.d_out; j++)
        square += m->p[P_W_DEC][i * m->s.d_out + j] * m->p[P_W_DEC][i * m->s.d_out + j];
    return sqrt(square);
}

static inline void dense_encode(struct dense *m)
{
    const size_t n = m->s.n, F = m->s.F, d = m->s.d_in;
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < F; i++) {
            double z = m->p[P_B_ENC][i];
            for (size_t j = 0; j < d; j++)
                z += (m->x[r * d + j] - (m->o->pre_bias > 0 ? m->p[P_B_DEC][j] : 0)) *
                     m->p[P_W_ENC][i * d + j];
            m->z[r * F + i] = z;
        }
    const bool batch = is_arch(m, "batchtopk") || is_arch(m, "matryoshka");
    double cut = batch ? kth(m->z, NULL, n * F, (size_t)m->o->k * n) : 0;
    for (size_t r = 0; r < n; r++) {
        if (is_arch(m, "topk"))
            cut = kth(m->z + r * F, NULL, F, (size_t)m->o->k);
        for (size_t i = 0; i < F; i++) {
            const double z = m->z[r * F + i];
            double f = z > 0 && z >= cut ? z : 0;
            if (is_arch(m, "jumprelu"))
                f = z > m->held[P_THRESHOLD][i] ? z : 0; /* where the step is does not move */
            if (is_arch(m, "gated") && z > 0)
                f = fmax(0, exp(m->p[P_R_MAG][i]) * (z - m->p[P_B_ENC][i]) + m->p[P_B_MAG][i]);
            m->f[r * F + i] = f + m->offset[r * F + i];
        }
    }
}

/* ||b + sum_{i < end} v_i W_i [+ skip x] - y||^2 of row r; y_hat is left in out. */
static inline double row_error(const struct dense *m, size_t r, const double *v, size_t end, const double *w,
                               const double *b, const double *skip, double *out)
{
    const size_t d = m->s.d_out;
    double square = 0;
    for (size_t j = 0; j < d; j++) {
        double y = b[j];
        for (size_t i = 0; i < end; i++)
            y += v[i] * w[i * d + j];
        for (size_t a = 0; skip && a < m->s.d_in; a++)
            y += m->x[r * m->s.d_in + a] * skip[j * m->s.d_in + a];
        out[j] = y;
        square += (y - m->y[r * d + j]) * (y - m->y[r * d + j]);
    }
    return square;
}

static inline double reconstruction(struct dense *m)
{
    const size_t n = m->s.n, F = m->s.F, d = m->s.d_out;
    double loss = 0, *relu = need(F, sizeof *relu), *other = need(d, sizeof *other);
    m->recon = 0;
    for (size_t r = 0; r < n; r++) {
        const double *f = m->f + r * F;
        const size_t parts = m->o->n_prefixes > 1 ? m->o->n_prefixes : 1;
        for (size_t j = 0; j < parts; j++) {
            const double e = row_error(m, r, f, parts > 1 ? (size_t)m->o->prefix[j] : F, m->p[P_W_DEC],
                                       m->p[P_B_DEC], m->p[P_W_SKIP], m->y_hat + r * d);
            loss += (parts > 1 ? m->o->prefix_weight[j] : 1) * e;
            if (j + 1 == parts)
                m->recon += e / (double)n;
        }
        if (parts > 1)
            loss += m->o->bias_weight * row_error(m, r, f, 0, m->p[P_W_DEC], m->p[P_B_DEC], NULL, other);
        if (is_arch(m, "gated")) {
            double *const *held = m->o->gated_detach ? m->held : m->p;
            for (size_t i = 0; i < F; i++)
                relu[i] = fmax(0, m->z[r * F + i]);
            loss += row_error(m, r, relu, F, held[P_W_DEC], held[P_B_DEC], held[P_W_SKIP], other);
        }
    }
    free(relu);
    free(other);
    const double c = m->o->loss == SONDE_LOSS_FVU    ? 1 / m->variance
                     : m->o->loss == SONDE_LOSS_MEAN ? 1 / (double)d
                                                     : 1;
    return c * loss / (double)n;
}

static inline double sparsity_penalty(struct dense *m)
{
    const size_t n = m->s.n, F = m->s.F;
    const double l1 = m->o->l1 * m->share, l0 = m->o->l0 * m->share;
    double sum = 0;
    m->l0 = m->l1 = 0;
    for (size_t e = 0; e < n * F; e++) {
        const double norm = row_norm(m, e % F), f = m->f[e], z = m->z[e];
        m->l0 += (f != 0) / (double)n;
        m->l1 += f / (double)n;
        if (is_arch(m, "relu") || is_arch(m, "relu-2023"))
            sum += l1 * f * norm;
        if (is_arch(m, "gated"))
            sum += l1 * fmax(0, z) * norm;
        if (is_arch(m, "jumprelu") && m->o->jump_penalty == SONDE_JUMP_TANH)
            sum += l0 * tanh(m->o->tanh_scale * f * norm);
        if (is_arch(m, "jumprelu") && m->o->pre_act > 0 && (!m->o->pre_act_dead_only || m->dead[e % F]))
            sum += m->o->pre_act * fmax(0, m->p[P_THRESHOLD][e % F] - z) * norm;
    }
    sum /= (double)n;
    if (is_arch(m, "jumprelu") && m->o->jump_penalty == SONDE_JUMP_STEP)
        sum += l0 * m->l0;
    if (is_arch(m, "jumprelu") && m->o->jump_penalty == SONDE_JUMP_TARGET)
        sum += l0 * (m->l0 / m->o->target_l0 - 1) * (m->l0 / m->o->target_l0 - 1);
    return sum;
}

/* The residual and its spread where the gradient is taken: to training they are constants. */
static inline void hold_residual(struct dense *m)
{
    const size_t n = m->s.n, d = m->s.d_out;
    m->residual = need(n * d, sizeof *m->residual);
    m->spread = 0;
    for (size_t j = 0; j < d; j++) {
        double mean = 0;
        for (size_t r = 0; r < n; r++)
            mean += (m->residual[r * d + j] = m->y[r * d + j] - m->y_hat[r * d + j]) / (double)n;
        for (size_t r = 0; r < n; r++)
            m->spread += (m->residual[r * d + j] - mean) * (m->residual[r * d + j] - mean);
    }
}

static inline double auxiliary(struct dense *m)
{
    const size_t n = m->s.n, F = m->s.F, d = m->s.d_out;
    size_t n_dead = 0;
    double sum = 0;
    for (size_t i = 0; i < F; i++)
        n_dead += m->dead[i];
    if (m->o->aux_k == 0 || n_dead == 0)
        return 0;
    for (size_t r = 0; r < n; r++) {
        const double *z = m->z + r * F, cut = kth(z, m->dead, F, (size_t)m->o->aux_k);
        for (size_t j = 0; j < d; j++) {
            double a = 0;
            for (size_t i = 0; i < F; i++)
                if (m->dead[i] && z[i] >= cut && (z[i] > 0 || m->o->aux_any_sign))
                    a += z[i] * m->p[P_W_DEC][i * d + j];
            sum += (a - m->residual[r * d + j]) * (a - m->residual[r * d + j]);
        }
    }
    const double share = (double)n_dead / (double)m->o->aux_k;
    return m->o->aux_coef * (m->o->aux_scaled && share < 1 ? share : 1) * sum / m->spread;
}

/* The whole objective at m->p. */
static inline double objective(struct dense *m)
{
    dense_encode(m);
    const double loss = reconstruction(m);
    if (!m->residual)
        hold_residual(m);
    m->penalty = sparsity_penalty(m);
    m->aux = auxiliary(m);
    return loss + m->penalty + m->aux;
}

/* Central difference by *at: third derivatives of these sums stay below 1e3, so the error is below 1e-8. */
static inline double slope(struct dense *m, double *at)
{
    const double base = *at, h = 3e-6;
    *at = base + h;
    const double up = objective(m);
    *at = base - h;
    const double down = objective(m);
    *at = base;
    return (up - down) / (2 * h);
}

/* dL/dtheta_i by its closed form (Rajamanoharan et al. 2024b, eq. 11 and 12; K the unit rectangle, on z):
 *   sum_b K((z - theta) / eps) / eps * -(theta dL/df + dL/d1[z > theta]) */
static inline double straight_through(struct dense *m, size_t i)
{
    const size_t n = m->s.n, F = m->s.F;
    const double theta = m->held[P_THRESHOLD][i], eps = m->o->bandwidth, l0 = m->o->l0 * m->share;
    double sum = 0;
    objective(m);
    const double miss = m->l0 / m->o->target_l0 - 1;
    const double count = m->o->jump_penalty == SONDE_JUMP_STEP ? l0 / (double)n
                         : m->o->jump_penalty == SONDE_JUMP_TARGET
                             ? 2 * l0 * miss / m->o->target_l0 / (double)n
                             : 0;
    for (size_t r = 0; r < n; r++) {
        objective(m); /* slope leaves the z of elsewhere */
        if (fabs((m->z[r * F + i] - theta) / eps) < 0.5) {
            const double kept = m->share;
            const bool counted = m->o->jump_penalty != SONDE_JUMP_TANH;
            m->share = counted ? 0 : kept; /* an offset of f must not count as one more active latent */
            sum -= (theta * slope(m, &m->offset[r * F + i]) + count) / eps;
            m->share = kept;
        }
    }
    return sum;
}

#endif
