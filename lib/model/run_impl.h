/* SPDX-License-Identifier: MIT
 * Inside a run: workspace, hooks by site, and the pass under way. */
#ifndef SONDE_MODEL_RUN_IMPL_H
#define SONDE_MODEL_RUN_IMPL_H

#include "../ops/attend.h"
#include "run.h"

#define LOGIT_ROWS 56 /* rows of logits at a time, where nobody asked for all of them */

enum hooked { HOOKED_READ = 1, HOOKED_WRITE = 2 };

struct hook_entry {
    sonde_hook hook;
    bool write;
    sonde_hook_fn fn;
    void *arg;
};

struct sonde_cache {
    size_t n, n_max, width; /* width: Hk dh */
    float *k, *v;           /* [L][n_max][width] */
    sonde_arena *arena;
};

struct sonde_run {
    const sonde_model *m;
    sonde_pool *pool;
    size_t max_rows, max_keys;
    sonde_arena *arena, *extra; /* extra: buffers that hooks ask for; emptied at each pass */
    unsigned char *hooked;      /* [L * N_SITES], by site_index */
    struct hook_entry *entry;
    size_t n_entries, cap_entries;
    size_t last_order; /* of the deepest hook */
    sonde_logits_fn logits_fn;
    void *logits_arg;
    bool only_last;

    /* workspace, by rows of the batch */
    float *x;                   /* [rows, d] the residual stream */
    float *h;                   /* [rows, d] what a norm hands to a projection */
    float *out;                 /* [rows, d] what attention or MLP is about to add */
    float *qkv;                 /* [rows, (H + 2 Hk) dh] */
    float *z;                   /* [rows, H dh] */
    float *mlp;                 /* [rows, m or 2m] */
    float *soft;                /* [m] */
    float *mean, *scale;        /* [rows * H] */
    float *logits;              /* [LOGIT_ROWS, V_out], made when first needed */
    float *cosine[2], *sine[2]; /* [max_keys, rope_dim / 2]; 1: local layers */
    sonde_attend_space *attend;

    /* the pass under way */
    const int32_t *ids;
    const size_t *start;
    size_t n_seqs, n_rows;
    sonde_cache *cache;
    size_t first;       /* position of row 0 */
    float *shortformer; /* [rows, d] positions for the inputs of q and k, or NULL */
    bool done;          /* the deepest hook has been reached */
    sonde_err *err;
};

static inline size_t site_index(enum sonde_site s, size_t layer)
{
    return layer * SONDE_N_SITES + (size_t)s;
}

static inline unsigned hooked(const sonde_run *r, enum sonde_site s, size_t layer)
{
    return r->hooked[site_index(s, layer)];
}

/* Show a site to its hooks, sequence by sequence: row i of the batch begins at data + i * stride. Marks the
 * pass done when this was the deepest hook. A site without hooks costs nothing. */
enum sonde_code visit(sonde_run *r, enum sonde_site s, size_t layer, float *data, size_t stride);

/* The same for [H, n_rows, n_keys] of one sequence. */
enum sonde_code visit_square(sonde_run *r, enum sonde_site s, size_t layer, size_t sequence, float *data,
                             size_t n_keys);

/* Call the hooks of one view. */
enum sonde_code call_hooks(sonde_run *r, const sonde_view *v);

/* Mark the pass done if h was the deepest hook. */
void reached(sonde_run *r, enum sonde_site s, size_t layer);

/* rows * width floats in the run's arena; NULL, with err, if there is no room. */
float *run_floats(sonde_run *r, size_t rows, size_t width, sonde_err *err);

/* One block. */
enum sonde_code forward_block(sonde_run *r, size_t layer);

/* y[rows, n1 - n0] = x W[:, n0:n1] (+ epilogue) with the run's threads. */
void project(sonde_run *r, const sonde_packed *w, size_t n0, size_t n1, const float *x, size_t ldx,
             size_t n_rows, float *y, size_t ldy, const sonde_epilogue *e);

/* A norm with its two hooks: y[rows, d] = affine(normalise(x)); returns in *in what the next projection reads
 * (y, or x where the model has no norm). */
enum sonde_code normalise(sonde_run *r, enum sonde_norm kind, const sonde_affine *w,
                          enum sonde_site scale_site, size_t layer, const float *x, size_t ldx, size_t d,
                          float *y, size_t ldy, const float **in);

#endif
