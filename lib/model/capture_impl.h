/* SPDX-License-Identifier: MIT
 * Inside a capture: which token goes to which row, the layout of the file, and the state that the journal
 * keeps. */
#ifndef SONDE_MODEL_CAPTURE_IMPL_H
#define SONDE_MODEL_CAPTURE_IMPL_H

#include <pthread.h>

#include "../base/rng.h"
#include "capture.h"
#include "run.h"

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

/* The caller's attributes of the file and those that the tokenizer gives (t may be NULL): *attr malloc'd, its new
 * strings in *text, malloc'd. */
enum sonde_code layout_attrs(const sonde_capture_options *o, const sonde_tokenizer *t, sonde_store_attr **attr,
                             size_t *n, char **text, sonde_err *err);

/* Everything that is known before the first row: tokens, documents, vocabulary, the row map. */
enum sonde_code layout_write_tokens(const sonde_model *m, const struct plan *p, const sonde_tokenizer *t,
                                    const struct layout *l, sonde_store_writer *w, sonde_err *err);

/* Sums over rows, in order of place. */
struct sums {
    double *sum, *sum_sq; /* [width] */
    double norm, norm_sq;
    uint64_t count, saturated;
};

/* The journal's state; also what one context adds to it. */
struct state {
    uint64_t n_places; /* contexts done, in order */
    struct sums *hook; /* [n_hooks] */
    size_t n_hooks;
    double loss;
    uint64_t n_losses;
    double *memory;
    size_t n_doubles;
};

/* Bytes of a state. */
size_t state_bytes(const sonde_model *m, const sonde_hook_list *hooks);

/* Zeroed, in the arena. */
enum sonde_code state_new(const sonde_model *m, const sonde_hook_list *hooks, sonde_arena *arena,
                          struct state *s, sonde_err *err);
void state_clear(struct state *s);
void state_add(struct state *to, const struct state *from);

/* To and from bytes (malloc'd). A state of another size is SONDE_E_INPUT. */
enum sonde_code state_pack(const struct state *s, void **out, size_t *n, sonde_err *err);
enum sonde_code state_unpack(struct state *s, const void *data, size_t n, const char *path, sonde_err *err);

/* ---- the engine -------------------------------------------------------------------------------- */

#define GROUP_MAX 4096 /* batches between two journals, at most */

struct window {
    uint64_t number; /* UINT64_MAX: empty */
    uint32_t *perm;
};

/* What one thread works with. */
struct worker {
    struct engine *e;
    sonde_run *run;
    struct state *context;   /* [max_seqs] the sums of each context of the batch under way */
    struct window window[2]; /* the permutations used last */
    int older;
    void *staging;         /* rows converted, about to be written */
    float *padded;         /* [longest] a row of a square site */
    void *square;          /* [H, longest, longest], converted */
    int32_t *ids, *target; /* [batch tokens] */
    size_t *start;         /* [batch sequences + 1] */
    float *loss, *logprob; /* [batch tokens], [batch tokens, K] */
    int32_t *top;
    uint64_t place0;
    bool squares_hooked;
};

struct engine {
    const sonde_model *m;
    const sonde_corpus *corpus;
    const sonde_capture_options *o;
    const sonde_work *work;
    sonde_arena *arena;
    struct plan plan;
    struct layout layout;
    struct state state;
    sonde_store_writer *writer;
    struct worker *worker;
    int n_workers;
    size_t max_tokens, max_seqs;   /* of a batch */
    uint64_t batch[GROUP_MAX + 1]; /* places at which the group's batches begin, and the end */
    size_t n_batches;

    pthread_mutex_t lock;
    pthread_cond_t turn_changed;
    size_t turn; /* the batch whose sums are merged next */
    bool halted;
    sonde_err err;
};

size_t longest_context(const sonde_corpus *c);

/* Are the options possible with this model and corpus? Errors: SONDE_E_USAGE, SONDE_E_INPUT. */
enum sonde_code check_options(const sonde_model *m, const sonde_corpus *c, const sonde_capture_options *o,
                              const struct plan *p, sonde_err *err);

/* Sets max_tokens and max_seqs. */
void size_batches(struct engine *e);

/* Where the batch that begins at `place` ends: as many whole contexts as fit, at least one. */
uint64_t batch_end(const struct engine *e, uint64_t place);

/* Bytes of one row over all hooks that have rows; of the conversion buffer of one thread; of its square
 * buffers. */
uint64_t row_bytes(const struct engine *e);
size_t staging_bytes(const struct engine *e);
size_t square_bytes(const struct engine *e, size_t *longest);

/* A hook on every site that is kept (squares: those of whole contexts too). */
enum sonde_code set_hooks(struct worker *w, bool squares, sonde_err *err);

/* A sonde_logits_fn: losses and top log-probabilities into the file. */
enum sonde_code keep_logits(void *arg, size_t sequence, size_t first, size_t n_rows, float *logits,
                            sonde_err *err);

#endif
