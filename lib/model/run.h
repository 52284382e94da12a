/* SPDX-License-Identifier: MIT
 * One forward pass: tokens in, hooks called on the way, logits out. A run belongs to one thread at a time.
 *
 * A hook that only reads changes no bit anywhere; nor do other sequences in the batch. */
#ifndef SONDE_MODEL_RUN_H
#define SONDE_MODEL_RUN_H

#include "hooks.h"
#include "model.h"

/* What a hook is shown: the values of one site for one sequence. Row r (a token; for square sites see below)
 * begins at data + r * stride and holds `width` floats. Square sites (attn_scores, pattern) are
 * [n_heads][n_rows][n_keys], contiguous, and stride is n_keys. hook_tokens has width 1 and `data` NULL: the
 * ids are in `ids`. */
typedef struct sonde_view {
    sonde_hook hook;
    size_t sequence;  /* index in the batch */
    size_t first_pos; /* position of row 0: not 0 while generating */
    size_t n_rows, width, stride;
    size_t n_heads, n_keys; /* square sites */
    float *data;
    const int32_t *ids; /* [n_rows] the sequence's tokens */
} sonde_view;

/* Values that are copies of one thing (attn_in and the q, k and v inputs: a copy of resid_pre for each head)
 * take effect only where written: then that head's norm and projection are computed from its own copy, while
 * the ln1 hooks see resid_pre. May change data only if it was added with write. A code other than SONDE_OK
 * ends the pass and is returned by it. */
typedef enum sonde_code (*sonde_hook_fn)(void *arg, const sonde_view *view, sonde_err *err);

/* Logits of rows as they are made, in chunks of rows of one sequence, [n_rows, V_out] with row stride V_out.
 */
typedef enum sonde_code (*sonde_logits_fn)(void *arg, size_t sequence, size_t first_row, size_t n_rows,
                                           float *logits, sonde_err *err);

/* Keys and values of one sequence, for generation. */
typedef struct sonde_cache sonde_cache;
enum sonde_code sonde_cache_new(const sonde_model *m, size_t n_max, sonde_budget *budget, sonde_cache **out,
                                sonde_err *err);
size_t sonde_cache_length(const sonde_cache *c);
void sonde_cache_clear(sonde_cache *c);
void sonde_cache_free(sonde_cache *c);

typedef struct sonde_run sonde_run;

/* A run for at most max_rows tokens in all and max_keys keys per sequence. pool: threads that share the work
 * inside a pass (one prompt); NULL where whole runs are shared out to threads (capture). The bits are the
 * same. */
enum sonde_code sonde_run_new(const sonde_model *m, size_t max_rows, size_t max_keys, sonde_pool *pool,
                              sonde_budget *budget, sonde_run **out, sonde_err *err);
void sonde_run_free(sonde_run *r);

/* Call fn at a site; several hooks at one site are called in the order added. Errors: SONDE_E_USAGE if the
 * model has no such site. */
enum sonde_code sonde_run_hook(sonde_run *r, sonde_hook h, bool write, sonde_hook_fn fn, void *arg,
                               sonde_err *err);
void sonde_run_unhook_all(sonde_run *r);

/* Ask for logits (fn NULL: no longer). only_last: of each sequence's last row only. */
void sonde_run_want_logits(sonde_run *r, sonde_logits_fn fn, void *arg, bool only_last);

/* Run n_seqs sequences; sequence s is ids[start[s] .. start[s+1]). The pass ends after the deepest hook, and
 * makes logits only if they are wanted or hooked. cache: NULL, or (n_seqs 1) the ids continue it and are
 * added to it. Errors: SONDE_E_USAGE (too long, id outside the vocabulary), what a hook returns. */
enum sonde_code sonde_run_forward(sonde_run *r, const int32_t *ids, const size_t *start, size_t n_seqs,
                                  sonde_cache *cache, sonde_err *err);

#endif
