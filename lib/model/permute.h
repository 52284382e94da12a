/* SPDX-License-Identifier: MIT
 * A model that has forgotten what it learned: its weights, shuffled. */
#ifndef SONDE_MODEL_PERMUTE_H
#define SONDE_MODEL_PERMUTE_H

#include "model.h"

/* Permute the entries of every weight matrix among themselves: W_Q, W_K, W_V, W_O, W_gate, W_in and W_out of
 * each layer and, with `embeddings`, the token embedding, the positions and the unembedding (a tied one stays
 * tied). Norms and biases stay. So every matrix keeps its mean, variance and outliers and loses its
 * structure.
 *
 * Philox(seed) forked by matrix and layer; the same for every kernel table. Only for a model that nobody else
 * is using; load a deferred unembedding before. Errors: SONDE_E_USAGE (embeddings, and the unembedding is
 * deferred), SONDE_E_MEMORY. */
enum sonde_code sonde_model_permute(sonde_model *m, uint64_t seed, bool embeddings, sonde_err *err);

#endif
