/* SPDX-License-Identifier: MIT
 * Inside a capture: which token goes to which row, the layout of the file, and the state that the journal
 * keeps. */
#ifndef SONDE_MODEL_CAPTURE_IMPL_H
#define SONDE_MODEL_CAPTURE_IMPL_H

#include "../base/rng.h"
#include "capture.h"

/* The order of work. Contexts run in `order`; token `pos` of a context, if it is kept, is kept token number
 * first_kept[place] + pos - skip_first, and stored at the row that the window's permutation says. */
struct plan {
    const sonde_corpus *corpus;
    const sonde_capture_options *o;
    uint32_t *order;      /* [n_seqs] the context that runs at each place; NULL: reading order */
    uint64_t *first_kept; /* [n_seqs + 1] by place */
    uint64_t n_rows;
    sonde_rng rng;
    uint8_t *split; /* [n_docs] 1: held out */
    uint64_t n_heldout;
};

enum sonde_code plan_make(const sonde_corpus *c, const sonde_capture_options *o, struct plan *p,
                          sonde_err *err);
void plan_free(struct plan *p);

static inline uint64_t context_at(const struct plan *p, uint64_t place)
{
    return p->order ? p->order[place] : place;
}

static inline uint64_t context_length(const sonde_corpus *c, uint64_t seq)
{
    return c->seq_start[seq + 1] - c->seq_start[seq];
}

/* perm[i] = stored row of kept token (window * SONDE_CAPTURE_WINDOW + i), for the n kept tokens of the
 * window. */
void plan_window(const struct plan *p, uint64_t window, uint32_t *perm, uint32_t n);

/* Where each dataset of the file is: indices into the layout; SIZE_MAX where there is none. */
struct layout {
    sonde_store_dataset *dataset;
    size_t n_datasets, cap;
    char (*path)[96];
    size_t *hook; /* [n_hooks] /acts or /attn */
    size_t *stat; /* [n_hooks] the first of the five of /stats; SIZE_MAX for square sites */
    size_t row_token, id, pos, doc, seq, docs_range, docs_split, vocab_bytes, vocab_offset, loss, logits_id,
        logits_logprob;
    uint64_t data_bytes;
};

enum sonde_code layout_make(const sonde_model *m, const struct plan *p, const sonde_tokenizer *t,
                            struct layout *l, sonde_err *err);
void layout_free(struct layout *l);

/* Everything that is known before the first row: tokens, documents, vocabulary, the row map. */
enum sonde_code layout_write_tokens(const sonde_model *m, const struct plan *p, const sonde_tokenizer *t,
                                    const struct layout *l, sonde_store_writer *w, sonde_err *err);

/* Sums over the rows so far, in order of place. */
struct sums {
    double *sum, *sum_sq; /* [width] */
    double norm, norm_sq;
    uint64_t count, saturated;
};

/* The journal's state. */
struct state {
    uint64_t n_places; /* contexts done, in order */
    struct sums *hook; /* [n_hooks] */
    size_t n_hooks;
    double loss;
    uint64_t n_losses;
    double *memory;
    size_t n_doubles;
};

enum sonde_code state_new(const sonde_model *m, const sonde_hook_list *hooks, struct state *s,
                          sonde_err *err);
void state_free(struct state *s);
void state_clear(struct state *s);
void state_add(struct state *to, const struct state *from);

/* To and from bytes (malloc'd). A state of another size is SONDE_E_INPUT. */
enum sonde_code state_pack(const struct state *s, void **out, size_t *n, sonde_err *err);
enum sonde_code state_unpack(struct state *s, const void *data, size_t n, const char *path, sonde_err *err);

#endif
