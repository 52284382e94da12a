/* SPDX-License-Identifier: MIT
 * Cross-entropy of next tokens from rows of logits. */
#ifndef SONDE_OPS_LOSS_H
#define SONDE_OPS_LOSS_H

#include <stddef.h>
#include <stdint.h>

#include "../num/cpu.h"

/* loss[r] = -log softmax(logits[r])[target[r]] in nats for n_rows rows of n logits; NaN where target[r] < 0
 * or >= n. */
void sonde_token_loss(const sonde_kernels *k, const float *logits, size_t n_rows, size_t n,
                      const int32_t *target, float *loss);

/* The n_top largest log-probabilities of each row, the largest first: id, logprob [n_rows, n_top]. */
void sonde_top_logprobs(const sonde_kernels *k, const float *logits, size_t n_rows, size_t n, size_t n_top,
                        int32_t *id, float *logprob);

#endif
