/* SPDX-License-Identifier: MIT */
#include "loss.h"

#include <math.h>
#include <stdbool.h>

#include "../num/softmax.h"

void sonde_token_loss(const sonde_kernels *k, const float *logits, size_t n_rows, size_t n,
                      const int32_t *target, float *loss)
{
    for (size_t r = 0; r < n_rows; r++) {
        const float *row = logits + r * n;
        bool known = target[r] >= 0 && (size_t)target[r] < n;
        loss[r] = known ? (float)(sonde_logsumexp(k, row, n) - (double)row[target[r]]) : NAN;
    }
}

void sonde_top_logprobs(const sonde_kernels *k, const float *logits, size_t n_rows, size_t n, size_t n_top,
                        int32_t *id, float *logprob)
{
    for (size_t r = 0; r < n_rows; r++) {
        double all = sonde_logsumexp(k, logits + r * n, n);
        sonde_row_topk(k, logits + r * n, n, n_top, id + r * n_top, logprob + r * n_top);
        for (size_t i = 0; i < n_top; i++)
            logprob[r * n_top + i] = (float)((double)logprob[r * n_top + i] - all);
    }
}
