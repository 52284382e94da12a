/* SPDX-License-Identifier: MIT */
#include "ref.h"

#include <math.h>

void ref_matmul(const float *x, const float *w, const float *bias, size_t m, size_t k, size_t n, float *y)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double acc = bias ? (double)bias[j] : 0.0;
            for (size_t l = 0; l < k; l++)
                acc += (double)x[i * k + l] * (double)w[l * n + j];
            y[i * n + j] = (float)acc;
        }
}

double ref_act(enum sonde_act act, double x)
{
    switch (act) {
    case SONDE_ACT_RELU:
        return x > 0 ? x : 0;
    case SONDE_ACT_GELU_ERF:
        return x / 2 * erfc(-x / sqrt(2.0));
    case SONDE_ACT_GELU_TANH:
        return x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case SONDE_ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case SONDE_ACT_SILU:
        return x / (1 + exp(-x));
    default:
        return x;
    }
}

void ref_norm(enum sonde_norm kind, const float *x, size_t ldx, size_t n_rows, size_t d, float eps,
              const float *gamma, const float *beta, float *y, size_t ldy)
{
    for (size_t r = 0; r < n_rows; r++, x += ldx, y += ldy) {
        double mean = 0, sq = 0;
        for (size_t i = 0; i < d; i++)
            mean += (double)x[i];
        mean = kind == SONDE_NORM_LAYER ? mean / (double)d : 0;
        for (size_t i = 0; i < d; i++)
            sq += ((double)x[i] - mean) * ((double)x[i] - mean);
        const double scale = kind == SONDE_NORM_NONE ? 1 : sqrt(sq / (double)d + (double)eps);
        for (size_t i = 0; i < d; i++)
            y[i] = (float)(((double)x[i] - mean) / scale * (gamma ? (double)gamma[i] : 1) +
                           (beta ? (double)beta[i] : 0));
    }
}

void ref_softmax_row(const float *s, size_t n, size_t lo, size_t hi, float *p)
{
    double max = -INFINITY, sum = 0;
    for (size_t j = lo; j < hi; j++)
        if ((double)s[j] > max || isnan(s[j]))
            max = (double)s[j];
    for (size_t j = lo; j < hi; j++)
        sum += exp((double)s[j] - max);
    for (size_t j = 0; j < n; j++)
        p[j] = j < lo || j >= hi || max == -INFINITY ? 0.0f : (float)(exp((double)s[j] - max) / sum);
}

double ref_logsumexp(const float *x, size_t n)
{
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = (double)x[i] > max ? (double)x[i] : max;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - max);
    return max == -INFINITY ? max : max + log(sum);
}

void ref_row_topk(const float *x, size_t n, size_t k, int32_t *index, float *value)
{
    for (size_t r = 0; r < k; r++) {
        int32_t best = -1;
        float top = 0;
        for (size_t i = 0; i < n; i++) {
            const float v = isnan(x[i]) ? -INFINITY : x[i];
            int taken = 0;
            for (size_t q = 0; q < r; q++)
                taken |= index[q] == (int32_t)i;
            if (!taken && (best < 0 || v > top)) {
                best = (int32_t)i;
                top = v;
            }
        }
        index[r] = best;
        value[r] = top;
    }
}

void ref_rope_row(const float *x, size_t n_heads, size_t dh, size_t rope_dim, const float *cosine,
                  const float *sine, float *y)
{
    const size_t r = rope_dim / 2;
    for (size_t h = 0; h < n_heads; h++, x += dh, y += dh) {
        for (size_t i = 0; i < dh; i++)
            y[i] = x[i];
        for (size_t i = 0; i < r; i++) {
            y[i] = (float)((double)x[i] * (double)cosine[i] - (double)x[i + r] * (double)sine[i]);
            y[i + r] = (float)((double)x[i + r] * (double)cosine[i] + (double)x[i] * (double)sine[i]);
        }
    }
}
