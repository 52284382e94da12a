/* SPDX-License-Identifier: MIT
 * A batch of contexts through the model once clean and once for each replacement, and sums over it. */
#include "splice.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "../base/size.h"
#include "../model/run.h"
#include "../num/softmax.h"
#include "source_impl.h"

#define LOGIT_BYTES  ((size_t)64 << 20)
#define BATCH_TOKENS 4096
#define MEAN_ROWS    4096
#define LANES        16
#define NOT_HERE     UINT32_MAX

/* Sums over all counted rows under one replacement, in the order of the text. */
struct sums {
    double loss, kl;
};

struct splice {
    sonde_source *source;
    const sonde_model *m;
    const sonde_corpus *corpus;
    const sonde_work *work;
    sonde_pool *pool;
    enum sonde_split split;
    sonde_hook in, out;
    size_t d_in, d_out, n_vocab;
    sonde_run *run;
    sonde_arena *arena;
    uint64_t end;       /* contexts from here on are not run */
    uint64_t n_planned; /* next tokens to count, before the norm filter */
    size_t longest;     /* of the contexts that are run */

    /* the batch: contexts, their rows that are replaced, and those of them whose next token is counted */
    size_t max_rows, n_seqs, n_replaced, n_counted;
    uint64_t *context;            /* [max_rows] number of each context in the corpus */
    size_t *start;                /* [max_rows + 1] */
    int32_t *ids;                 /* [max_rows] */
    bool *taken;                  /* [max_rows] in the split, before the norm filter */
    uint32_t *replaced, *counted; /* [max_rows] the row's number among those replaced, counted, or NOT_HERE */
    float *x, *y;                 /* [n_replaced, d_in], [n_replaced, d_out] */
    int32_t *id, *previous;       /* [n_replaced] */
    float *clean;                 /* [n_counted, V] logits of the clean pass */
    double *clean_lse;            /* [n_counted] */
    double *loss, *kl;            /* [n_counted] of the pass under way */
    float *p;                     /* [threads, V] */

    /* a chunk of logits */
    bool is_clean;
    size_t first_row;
    const float *logits;
};

/* ---- KL and loss of a row -------------------------------------------------------------------- */

/* KL(softmax(a) || softmax(b)) of rows whose log-sum-exps are known; p [n] is scratch. The float
 * probabilities are normalised in double, so that equal rows give 0. */
static double kl_of_row(const sonde_kernels *k, const float *a, double lse_a, const float *b, double lse_b,
                        size_t n, float *p)
{
    double mass[LANES] = {0}, sum[LANES] = {0};
    sonde_softmax_row(k, a, n, 0, n, p);
    for (size_t i = 0; i < n; i += LANES)
        for (size_t j = 0; j < LANES && i + j < n; j++) {
            double q = (double)p[i + j];
            mass[j] += q;
            sum[j] += q > 0 ? q * ((double)a[i + j] - (double)b[i + j]) : 0;
        }
    for (size_t half = LANES / 2; half; half /= 2)
        for (size_t j = 0; j < half; j++) {
            mass[j] += mass[j + half];
            sum[j] += sum[j + half];
        }
    return sum[0] / mass[0] + (lse_b - lse_a);
}

static void row_task(void *arg, size_t row, int thread)
{
    struct splice *s = arg;
    const size_t at = s->first_row + row, v = s->n_vocab;
    const uint32_t i = s->counted[at];
    if (i == NOT_HERE)
        return;
    const float *logits = s->logits + row * v;
    double lse = sonde_logsumexp(s->m->kernels, logits, v);
    s->loss[i] = lse - (double)logits[s->ids[at + 1]];
    s->kl[i] = 0;
    if (s->is_clean) {
        memcpy(s->clean + i * v, logits, v * sizeof *logits);
        s->clean_lse[i] = lse;
    } else {
        s->kl[i] = kl_of_row(s->m->kernels, s->clean + i * v, s->clean_lse[i], logits, lse, v,
                             s->p + (size_t)thread * v);
    }
}

static enum sonde_code take_logits(void *arg, size_t sequence, size_t first_row, size_t n_rows, float *logits,
                                   sonde_err *err)
{
    struct splice *s = arg;
    (void)err;
    s->first_row = s->start[sequence] + first_row;
    s->logits = logits;
    sonde_pool_run(s->pool, n_rows, row_task, s);
    return SONDE_OK;
}

/* ---- hooks ----------------------------------------------------------------------------------- */

/* Clean values of the rows to replace; those that the norm filter leaves out are left out here. */
static enum sonde_code read_rows(void *arg, const sonde_view *v, sonde_err *err)
{
    struct splice *s = arg;
    (void)err;
    for (size_t r = 0; r < v->n_rows; r++) {
        const size_t at = s->start[v->sequence] + r, i = s->n_replaced;
        if (!s->taken[at])
            continue;
        memcpy(s->x + i * s->d_in, v->data + r * v->stride, s->d_in * sizeof *s->x);
        if (!source_norm_passes(s->source, &(struct source_rows){.x = s->x}, i))
            continue;
        s->id[i] = s->ids[at];
        s->previous[i] = r ? s->ids[at - 1] : -1;
        s->replaced[at] = (uint32_t)s->n_replaced++;
        if (r + 1 < v->n_rows)
            s->counted[at] = (uint32_t)s->n_counted++;
    }
    return SONDE_OK;
}

static enum sonde_code write_rows(void *arg, const sonde_view *v, sonde_err *err)
{
    struct splice *s = arg;
    (void)err;
    for (size_t r = 0; r < v->n_rows; r++) {
        uint32_t i = s->replaced[s->start[v->sequence] + r];
        if (i != NOT_HERE)
            memcpy(v->data + r * v->stride, s->y + i * s->d_out, s->d_out * sizeof *s->y);
    }
    return SONDE_OK;
}

/* ---- the batch ------------------------------------------------------------------------------- */

static size_t context_length(const sonde_corpus *c, uint64_t seq)
{
    return (size_t)(c->seq_start[seq + 1] - c->seq_start[seq]);
}

/* Has this context a row of the split with a next token? */
static bool counts(const struct splice *s, uint64_t seq)
{
    for (uint64_t t = s->corpus->seq_start[seq]; t + 1 < s->corpus->seq_start[seq + 1]; t++)
        if (sonde_source_takes(s->source, t, s->split))
            return true;
    return false;
}

static void add_context(struct splice *s, uint64_t seq)
{
    const sonde_corpus *c = s->corpus;
    const size_t n = context_length(c, seq), at = s->start[s->n_seqs];
    for (size_t r = 0; r < n; r++) {
        s->ids[at + r] = c->id[c->seq_start[seq] + r];
        s->taken[at + r] = sonde_source_takes(s->source, c->seq_start[seq] + r, s->split);
        s->replaced[at + r] = s->counted[at + r] = NOT_HERE;
    }
    s->context[s->n_seqs++] = seq;
    s->start[s->n_seqs] = at + n;
}

/* Contexts from *seq on, as many as there is room for; *seq becomes the first that is left. */
static void fill_batch(struct splice *s, uint64_t *seq)
{
    s->n_seqs = s->n_replaced = s->n_counted = 0; /* rows are found by the clean pass */
    s->start[0] = 0;
    for (; *seq < s->end; ++*seq) {
        if (!counts(s, *seq))
            continue;
        if (s->start[s->n_seqs] + context_length(s->corpus, *seq) > s->max_rows)
            return;
        add_context(s, *seq);
    }
}

/* ---- passes ---------------------------------------------------------------------------------- */

static enum sonde_code not_finite(const struct splice *s, size_t counted, const char *name, sonde_err *err)
{
    size_t q = 0, row = 0;
    while (s->counted[row] != counted)
        row++;
    while (s->start[q + 1] <= row)
        q++;
    return sonde_fail(err, SONDE_E_NUMERIC,
                      "%s: the next-token loss is not finite at position %zu of context %" PRIu64
                      " (document %d)",
                      name, row - s->start[q], s->context[q],
                      (int)s->corpus->doc[s->corpus->seq_start[s->context[q]] + (row - s->start[q])]);
}

static enum sonde_code pass(struct splice *s, bool is_clean, const char *name, struct sums *sums,
                            sonde_err *err)
{
    enum sonde_code code;
    s->is_clean = is_clean;
    sonde_run_unhook_all(s->run);
    code = sonde_run_hook(s->run, is_clean ? s->in : s->out, !is_clean, is_clean ? read_rows : write_rows, s,
                          err);
    if (code || (code = sonde_run_forward(s->run, s->ids, s->start, s->n_seqs, NULL, err)))
        return code;
    for (size_t i = 0; i < s->n_counted; i++) {
        if (!isfinite(s->loss[i]) || !isfinite(s->kl[i]))
            return not_finite(s, i, name, err);
        sums->loss += s->loss[i];
        sums->kl += s->kl[i];
    }
    return SONDE_OK;
}

/* sums: clean, zero, mean, then the replacements. */
static enum sonde_code run_batch(struct splice *s, const float *mean, const sonde_replacement *r, size_t n,
                                 struct sums *sums, sonde_err *err)
{
    enum sonde_code code;
    if ((code = pass(s, true, "the clean model", &sums[0], err)))
        return code;
    const sonde_rows rows = {s->n_replaced, s->x, s->id, s->previous};
    memset(s->y, 0, s->n_replaced * s->d_out * sizeof *s->y);
    if ((code = pass(s, false, "zero ablation", &sums[1], err)))
        return code;
    for (size_t i = 0; i < s->n_replaced; i++)
        memcpy(s->y + i * s->d_out, mean, s->d_out * sizeof *mean);
    code = pass(s, false, "mean ablation", &sums[2], err);
    for (size_t k = 0; k < n && !code; k++) {
        if ((code = r[k].fn(r[k].arg, &rows, s->pool, s->y, err)))
            return code;
        code = pass(s, false, r[k].name, &sums[3 + k], err);
    }
    return code;
}

/* ---- making it ------------------------------------------------------------------------------- */

static enum sonde_code find_hook(const sonde_model *m, const char *name, sonde_hook *out, size_t *width,
                                 sonde_err *err)
{
    sonde_hook_list list = {0};
    enum sonde_code code = sonde_hooks_add(&list, &m->arch, name, err);
    if (!code &&
        (list.n != 1 || sonde_site_is_square(list.hook[0].site) || list.hook[0].site == SONDE_SITE_TOKENS))
        code = sonde_fail(err, SONDE_E_USAGE, "hook %s: its values are not rows that can be replaced", name);
    if (!code) {
        *out = list.hook[0];
        *width = sonde_site_width(&m->arch, out->site);
    }
    sonde_hooks_free(&list);
    return code;
}

static enum sonde_code check(struct splice *s, sonde_err *err)
{
    const sonde_source_info *info = sonde_source_about(s->source);
    enum sonde_code code;
    s->m = sonde_source_model_of(s->source);
    s->corpus = sonde_source_corpus_of(s->source);
    if (!s->m || !s->corpus)
        return sonde_fail(err, SONDE_E_USAGE,
                          "next-token losses need a model and its text, this source is a %s", info->kind);
    if (s->m->arch.bidirectional)
        return sonde_fail(err, SONDE_E_USAGE, "%s: a bidirectional model predicts no next token", s->m->path);
    if ((code = find_hook(s->m, info->hook, &s->in, &s->d_in, err)) ||
        (code = find_hook(s->m, info->hook_out ? info->hook_out : info->hook, &s->out, &s->d_out, err)))
        return code;
    if (sonde_hook_order(&s->m->arch, s->out) < sonde_hook_order(&s->m->arch, s->in))
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s is computed before %s and cannot be replaced by what depends on it",
                          info->hook_out, info->hook);
    s->n_vocab = s->m->arch.n_vocab_out;
    return SONDE_OK;
}

/* Which contexts are run, and are all their next tokens in the vocabulary? */
static enum sonde_code survey(struct splice *s, uint64_t max_tokens, sonde_err *err)
{
    const sonde_corpus *c = s->corpus;
    for (s->end = 0; s->end < c->n_seqs && !(max_tokens && s->n_planned >= max_tokens); s->end++) {
        uint64_t before = s->n_planned;
        for (uint64_t t = c->seq_start[s->end]; t + 1 < c->seq_start[s->end + 1]; t++) {
            if (!sonde_source_takes(s->source, t, s->split))
                continue;
            s->n_planned++;
            if (c->id[t + 1] < 0 || (size_t)c->id[t + 1] >= s->n_vocab)
                return sonde_fail(err, SONDE_E_USAGE,
                                  "%s: token %d is none of the %zu that the model predicts", s->m->path,
                                  (int)c->id[t + 1], s->n_vocab);
        }
        if (s->n_planned > before && context_length(c, s->end) > s->longest)
            s->longest = context_length(c, s->end);
    }
    return s->n_planned ? SONDE_OK : sonde_fail(err, SONDE_E_USAGE, "no row of this split has a next token");
}

static void *floats(struct splice *s, size_t n, size_t width, sonde_err *err)
{
    size_t all;
    if (sonde_mul(&all, n, width))
        return sonde_arena_get(s->arena, all, sizeof(float), err);
    sonde_fail(err, SONDE_E_MEMORY, "%zu rows of %zu floats are too many", n, width);
    return NULL;
}

static enum sonde_code make(struct splice *s, size_t batch_tokens, sonde_err *err)
{
    sonde_budget *budget = s->work ? s->work->budget : NULL;
    size_t n = batch_tokens ? batch_tokens : LOGIT_BYTES / sizeof(float) / s->n_vocab;
    n = !batch_tokens && n > BATCH_TOKENS ? BATCH_TOKENS : n;
    s->max_rows = n = n > s->longest ? n : s->longest;
    if (!(s->arena = sonde_arena_new(budget, err)) ||
        !(s->context = sonde_arena_get(s->arena, n, sizeof *s->context, err)) ||
        !(s->start = sonde_arena_get(s->arena, n + 1, sizeof *s->start, err)) ||
        !(s->ids = sonde_arena_get(s->arena, n, sizeof *s->ids, err)) ||
        !(s->taken = sonde_arena_get(s->arena, n, sizeof *s->taken, err)) ||
        !(s->replaced = sonde_arena_get(s->arena, n, sizeof *s->replaced, err)) ||
        !(s->counted = sonde_arena_get(s->arena, n, sizeof *s->counted, err)) ||
        !(s->id = sonde_arena_get(s->arena, n, sizeof *s->id, err)) ||
        !(s->previous = sonde_arena_get(s->arena, n, sizeof *s->previous, err)) ||
        !(s->x = floats(s, n, s->d_in, err)) || !(s->y = floats(s, n, s->d_out, err)) ||
        !(s->clean = floats(s, n, s->n_vocab, err)) ||
        !(s->clean_lse = sonde_arena_get(s->arena, n, sizeof *s->clean_lse, err)) ||
        !(s->loss = sonde_arena_get(s->arena, n, sizeof *s->loss, err)) ||
        !(s->kl = sonde_arena_get(s->arena, n, sizeof *s->kl, err)) ||
        !(s->p = floats(s, (size_t)sonde_pool_threads(s->pool), s->n_vocab, err)))
        return SONDE_E_MEMORY;
    enum sonde_code code = sonde_run_new(s->m, n, s->longest, s->pool, budget, &s->run, err);
    if (!code)
        sonde_run_want_logits(s->run, take_logits, s, false);
    return code;
}

/* ---- the mean -------------------------------------------------------------------------------- */

enum sonde_code sonde_splice_mean(sonde_source *s, enum sonde_split split, const sonde_work *work,
                                  double *mean, uint64_t *n_rows, sonde_err *err)
{
    const size_t d = sonde_source_about(s)->d_out;
    sonde_pass_rows rows;
    uint64_t n = 0;
    enum sonde_code code = sonde_source_pass_begin(s, split, err);
    memset(mean, 0, d * sizeof *mean);
    while (!code && !(code = sonde_source_pass_next(s, MEAN_ROWS, &rows, work, err)) && rows.n) {
        for (size_t i = 0; i < rows.n; i++)
            for (size_t j = 0; j < d; j++)
                mean[j] += (double)rows.y[i * d + j];
        n += rows.n;
    }
    if (!code && !n)
        code = sonde_fail(err, SONDE_E_USAGE, "no row to take the mean of");
    for (size_t j = 0; j < d && !code; j++)
        mean[j] /= (double)n;
    *n_rows = n;
    return code;
}

static enum sonde_code make_mean(struct splice *s, const sonde_splice_options *o, float **out, bool *of_train,
                                 sonde_err *err)
{
    uint64_t n;
    enum sonde_code code = SONDE_OK;
    double *found = sonde_arena_get(s->arena, s->d_out, sizeof *found, err);
    if (!found || !(*out = floats(s, 1, s->d_out, err)))
        return SONDE_E_MEMORY;
    *of_train = o->mean ? o->mean_of_train : sonde_source_about(s->source)->n_train > 0;
    if (!o->mean)
        code =
            sonde_splice_mean(s->source, *of_train ? SONDE_SPLIT_TRAIN : o->split, s->work, found, &n, err);
    for (size_t j = 0; j < s->d_out && !code; j++)
        (*out)[j] = (float)(o->mean ? o->mean : found)[j];
    return code;
}

/* ---- scores ---------------------------------------------------------------------------------- */

static sonde_splice_score score_of(const struct sums *sums, const struct sums *one, double n)
{
    double clean = sums[0].loss / n, zero = sums[1].loss / n, mean = sums[2].loss / n,
           kl_zero = sums[1].kl / n;
    double ce = one->loss / n, kl = one->kl / n;
    return (sonde_splice_score){
        .ce_loss = ce,
        .ce_delta = ce - clean,
        .ce_loss_score = zero != clean ? (zero - ce) / (zero - clean) : (double)NAN,
        .ce_loss_score_mean = mean != clean ? (mean - ce) / (mean - clean) : (double)NAN,
        .kl_div = kl,
        .kl_div_score = kl_zero > 0 ? (kl_zero - kl) / kl_zero : (double)NAN,
    };
}

static enum sonde_code run_all(struct splice *s, const float *mean, const sonde_replacement *r, size_t n,
                               struct sums *sums, sonde_splice_base *base, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    uint64_t seq = 0;
    for (fill_batch(s, &seq); s->n_seqs && !code; fill_batch(s, &seq)) {
        if (sonde_work_stopped(s->work))
            return sonde_fail(err, SONDE_E_STOPPED, "stopped after %" PRIu64 " of %" PRIu64 " tokens",
                              base->n_tokens, s->n_planned);
        code = run_batch(s, mean, r, n, sums, err);
        base->n_tokens += s->n_counted;
        base->n_replaced += s->n_replaced;
        sonde_work_report(s->work, "splicing", "tokens", base->n_tokens, s->n_planned);
    }
    if (!code && !base->n_tokens)
        code = sonde_fail(err, SONDE_E_USAGE, "no row of this split passes the norm filter");
    return code;
}

enum sonde_code sonde_splice(sonde_source *source, const sonde_splice_options *o,
                             const sonde_replacement *replacement, size_t n, const sonde_work *work,
                             sonde_splice_base *base, sonde_splice_score *score, sonde_err *err)
{
    struct splice s = {.source = source, .work = work, .pool = work ? work->pool : NULL, .split = o->split};
    sonde_splice_base got = {0};
    struct sums *sums = NULL;
    float *mean = NULL;
    enum sonde_code code;
    if ((code = check(&s, err)) || (code = survey(&s, o->max_tokens, err)) ||
        (code = source_find_norm_limit(source, work, err)))
        return code;
    if ((code = make(&s, o->batch_tokens, err)))
        goto out;
    if (!(sums = sonde_arena_get(s.arena, n + 3, sizeof *sums, err))) {
        code = SONDE_E_MEMORY;
        goto out;
    }
    if ((code = make_mean(&s, o, &mean, &got.mean_of_train, err)) ||
        (code = run_all(&s, mean, replacement, n, sums, &got, err)))
        goto out;
    const double n_tokens = (double)got.n_tokens;
    got.ce_loss_clean = sums[0].loss / n_tokens;
    got.zero = score_of(sums, &sums[1], n_tokens);
    got.mean = score_of(sums, &sums[2], n_tokens);
    for (size_t k = 0; k < n; k++)
        score[k] = score_of(sums, &sums[3 + k], n_tokens);
    *base = got;
out:
    sonde_run_free(s.run);
    sonde_arena_free(s.arena);
    return code;
}

enum sonde_code sonde_replace_by_encoder(void *arg, const sonde_rows *rows, sonde_pool *pool, float *y,
                                         sonde_err *err)
{
    sonde_replace_encoder *r = arg;
    enum sonde_code code = sonde_encoder_encode(r->encoder, rows->x, r->d_in, rows->n, pool, &r->f, err);
    return code ? code : sonde_encoder_decode(r->encoder, &r->f, rows->x, r->d_in, pool, y, r->d_out, err);
}
