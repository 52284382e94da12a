/* SPDX-License-Identifier: MIT
 * Sampling text from a model. */
#ifndef SONDE_MODEL_GENERATE_H
#define SONDE_MODEL_GENERATE_H

#include "run.h"

typedef struct sonde_sampling {
    size_t n_tokens;   /* at most this many new tokens */
    float temperature; /* 0: the most likely token (the smaller id on ties) */
    float top_p; /* sample from the smallest set of most likely tokens whose probabilities reach top_p; 1: all
                  */
    uint64_t seed;
    const int32_t *stop; /* ids that end the text; they are not handed on */
    size_t n_stop;
    int32_t n_allowed; /* ids at or above are never sampled (padding rows of a vocabulary); 0: all */
} sonde_sampling;

/* Called with each new token; a code other than SONDE_OK ends the text and is returned. */
typedef enum sonde_code (*sonde_token_fn)(void *arg, int32_t id, sonde_err *err);

/* Continue the n ids of prompt (n > 0). run was made for at least n + n_tokens keys (or ends there) and may
 * carry hooks: they see every position once, prompt and continuation, and what they write acts on what
 * follows. Token i of the continuation draws from stream ("sample", i) of the seed, so a longer text begins
 * like a shorter one. Errors: SONDE_E_USAGE, SONDE_E_MEMORY, SONDE_E_NUMERIC (logits hold NaN),
 * SONDE_E_STOPPED. */
enum sonde_code sonde_generate(sonde_run *run, const sonde_model *m, const int32_t *prompt, size_t n,
                               const sonde_sampling *sampling, const sonde_work *work, sonde_token_fn fn,
                               void *arg, sonde_err *err);

#endif
