/* SPDX-License-Identifier: MIT
 * Captures of golden models, and what their files must hold: found one context at a time with a plain forward
 * pass. Includers have cmocka.h before. */
#ifndef SONDE_TESTS_CAPTURE_FIXTURE_H
#define SONDE_TESTS_CAPTURE_FIXTURE_H

#include <math.h>

#include "base/half.h"
#include "base/rng.h"
#include "corpus_fixture.h"
#include "model/capture.h"
#include "model/run.h"

static char dir[64], file[96];

static inline int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-capture-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(file, sizeof file, "%s/acts.h5", dir);
    return 0;
}

static inline int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static inline void must(enum sonde_code code, const sonde_err *err)
{
    if (code)
        fail_msg("code %d: %s", code, err->msg);
}

static inline sonde_model *open_model(const char *name, const char *kernels)
{
    char path[512];
    sonde_err err = {0};
    sonde_model_options o = {0};
    sonde_model *m = NULL;
    snprintf(path, sizeof path, "%s/tests/golden/models/%s", SONDE_SOURCE_DIR, name);
    must(sonde_kernels_find(kernels, &o.kernels, &err), &err);
    must(sonde_model_open(path, &o, NULL, &m, &err), &err);
    return m;
}

/* ---- a corpus by hand -------------------------------------------------------------------------- */

/* Documents of these lengths; doc packing cuts them every n_context tokens, concat cuts their join. */
static inline sonde_corpus *make_corpus(const size_t *length, size_t n_docs, size_t n_context, bool concat,
                                        size_t n_vocab)
{
    sonde_corpus *c = calloc(1, sizeof *c);
    size_t n = 0;
    for (size_t d = 0; d < n_docs; d++)
        n += length[d];
    c->id = calloc(n, sizeof *c->id);
    c->doc = calloc(n, sizeof *c->doc);
    c->seq_start = calloc(n + 1, sizeof *c->seq_start);
    c->doc_range = calloc(2 * n_docs, sizeof *c->doc_range);
    c->n_docs = n_docs;
    sonde_rng r = sonde_rng_seed(n);
    for (size_t d = 0; d < n_docs; d++) {
        c->doc_range[2 * d] = (int64_t)(10 * c->n_tokens);
        for (size_t i = 0; i < length[d]; i++) {
            if (concat ? c->n_tokens % n_context == 0 : i % n_context == 0)
                c->seq_start[c->n_seqs++] = c->n_tokens;
            c->id[c->n_tokens] = (int32_t)sonde_rng_below(&r, n_vocab);
            c->doc[c->n_tokens++] = (int32_t)d;
        }
        c->doc_range[2 * d + 1] = (int64_t)(10 * c->n_tokens - 1);
    }
    c->seq_start[c->n_seqs] = c->n_tokens;
    strcpy(c->sha256, "-");
    return c;
}

static inline void drop_corpus(sonde_corpus *c)
{
    free(c->id);
    free(c->doc);
    free(c->seq_start);
    free(c->doc_range);
    free(c);
}

static const size_t lengths[] = {7, 1, 13, 40, 3, 12, 2, 25, 5, 9, 1, 11};
#define N_DOCS (sizeof lengths / sizeof *lengths)

/* ---- the truth: one context at a time ---------------------------------------------------------- */

struct truth {
    const sonde_corpus *corpus;
    size_t width;
    float *value;  /* [n_tokens, width] */
    uint64_t seq;  /* the context under way */
    float *square; /* [n_seqs, H, P, P], NaN-padded */
    size_t n_heads, longest;
};

static inline enum sonde_code keep(void *arg, const sonde_view *v, sonde_err *err)
{
    struct truth *t = arg;
    (void)err;
    uint64_t first = t->corpus->seq_start[t->seq] + v->first_pos;
    for (size_t r = 0; r < v->n_rows; r++) {
        if (v->ids && !v->data)
            t->value[first + r] = (float)v->ids[r];
        else
            memcpy(t->value + (first + r) * t->width, v->data + r * v->stride, t->width * sizeof(float));
    }
    return SONDE_OK;
}

static inline enum sonde_code keep_square(void *arg, const sonde_view *v, sonde_err *err)
{
    struct truth *t = arg;
    (void)err;
    size_t p = t->longest;
    for (size_t h = 0; h < v->n_heads; h++)
        for (size_t r = 0; r < v->n_rows; r++)
            memcpy(t->square + ((t->seq * v->n_heads + h) * p + r) * p,
                   v->data + (h * v->n_rows + r) * v->n_keys, v->n_keys * sizeof(float));
    return SONDE_OK;
}

static inline enum sonde_code keep_logits(void *arg, size_t sequence, size_t first, size_t n_rows,
                                          float *logits, sonde_err *err)
{
    struct truth *t = arg;
    (void)sequence, (void)err;
    memcpy(t->value + (t->corpus->seq_start[t->seq] + first) * t->width, logits,
           n_rows * t->width * sizeof(float));
    return SONDE_OK;
}

/* hook NULL: the logits. */
static inline struct truth *find_truth(const sonde_model *m, const sonde_corpus *c, const sonde_hook *hook)
{
    struct truth *t = calloc(1, sizeof *t);
    sonde_err err = {0};
    sonde_run *run;
    bool square = hook && sonde_site_is_square(hook->site);
    t->corpus = c;
    t->n_heads = m->arch.n_heads;
    t->width = !hook ? m->arch.n_vocab_out : square ? 0 : sonde_site_width(&m->arch, hook->site);
    for (uint64_t s = 0; s < c->n_seqs; s++)
        if (c->seq_start[s + 1] - c->seq_start[s] > t->longest)
            t->longest = c->seq_start[s + 1] - c->seq_start[s];
    size_t n_square = square ? c->n_seqs * t->n_heads * t->longest * t->longest : 0;
    t->value = calloc(c->n_tokens * t->width + 1, sizeof(float));
    t->square = calloc(n_square + 1, sizeof(float));
    for (size_t i = 0; i < n_square; i++)
        t->square[i] = NAN;
    must(sonde_run_new(m, t->longest, t->longest, NULL, NULL, &run, &err), &err);
    if (hook)
        must(sonde_run_hook(run, *hook, false, square ? keep_square : keep, t, &err), &err);
    else
        sonde_run_want_logits(run, keep_logits, t, false);
    for (t->seq = 0; t->seq < c->n_seqs; t->seq++) {
        const size_t start[2] = {(size_t)c->seq_start[t->seq], (size_t)c->seq_start[t->seq + 1]};
        const size_t whole[2] = {0, start[1] - start[0]};
        must(sonde_run_forward(run, c->id + start[0], whole, 1, NULL, &err), &err);
    }
    sonde_run_free(run);
    return t;
}

static inline void drop_truth(struct truth *t)
{
    free(t->value);
    free(t->square);
    free(t);
}

/* ---- capture and read -------------------------------------------------------------------------- */

static inline void hook_list(const sonde_model *m, const char *const *spec, sonde_hook_list *list)
{
    sonde_err err = {0};
    *list = (sonde_hook_list){0};
    for (; *spec; spec++)
        must(sonde_hooks_add(list, &m->arch, *spec, &err), &err);
    sonde_hooks_sort(list, &m->arch);
}

static inline sonde_capture_result capture(const sonde_model *m, const sonde_corpus *c,
                                           const sonde_tokenizer *t, const sonde_capture_options *o,
                                           int threads)
{
    sonde_err err = {0};
    sonde_capture_result r;
    sonde_work work = {0};
    must(sonde_pool_new(threads, &work.pool, &err), &err);
    must(sonde_capture(m, c, t, o, &work, file, &r, &err), &err);
    sonde_pool_free(work.pool);
    return r;
}

static inline sonde_store *open_store(void)
{
    sonde_err err = {0};
    sonde_store *s = NULL;
    must(sonde_store_open(file, true, NULL, &s, &err), &err);
    must(sonde_store_verify(s, &err), &err);
    return s;
}

/* All rows of a dataset, malloc'd; its type and shape must be these. */
static inline void *read_all(sonde_store *s, const char *path, enum sonde_dtype dtype, int rank,
                             const uint64_t *dim)
{
    sonde_err err = {0};
    size_t i = sonde_store_find(s, path), n = sonde_dtype_size(dtype);
    if (i == SIZE_MAX)
        fail_msg("%s is not there", path);
    const sonde_store_dataset *d = sonde_store_dataset_at(s, i);
    bool same = d->dtype == dtype && d->rank == rank;
    for (int k = 0; k < rank && same; k++) {
        same = d->dim[k] == dim[k];
        n *= dim[k];
    }
    if (!same)
        fail_msg("%s has another type or shape: %s, rank %d, %d rows", path, sonde_dtype_name(d->dtype),
                 d->rank, (int)d->dim[0]);
    void *p = malloc(n + 1);
    must(sonde_store_read(s, i, 0, dim[0], p, &err), &err);
    return p;
}
#define DIM(...)                                                                                             \
    (const uint64_t[])                                                                                       \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }

static const char *path_of(const char *group, sonde_hook h)
{
    static char path[160];
    char name[SONDE_HOOK_NAME_MAX];
    snprintf(path, sizeof path, "/%s/%s", group, sonde_hook_name(h, name));
    return path;
}

/* ---- what a file must hold --------------------------------------------------------------------- */

static inline void check_tokens(sonde_store *s, const sonde_corpus *c)
{
    int32_t *id = read_all(s, "/tokens/id", SONDE_I32, 1, DIM(c->n_tokens));
    int32_t *doc = read_all(s, "/tokens/doc", SONDE_I32, 1, DIM(c->n_tokens));
    int32_t *pos = read_all(s, "/tokens/pos", SONDE_I32, 1, DIM(c->n_tokens));
    int32_t *seq = read_all(s, "/tokens/seq", SONDE_I32, 1, DIM(c->n_tokens));
    int64_t *range = read_all(s, "/docs/range", SONDE_I64, 2, DIM(c->n_docs, 2));
    assert_memory_equal(id, c->id, c->n_tokens * sizeof *id);
    assert_memory_equal(doc, c->doc, c->n_tokens * sizeof *doc);
    assert_memory_equal(range, c->doc_range, 2 * c->n_docs * sizeof *range);
    for (uint64_t q = 0; q < c->n_seqs; q++)
        for (uint64_t i = c->seq_start[q]; i < c->seq_start[q + 1]; i++)
            assert_true(seq[i] == (int32_t)q && pos[i] == (int32_t)(i - c->seq_start[q]));
    free(id);
    free(doc);
    free(pos);
    free(seq);
    free(range);
}

/* The token of each row (malloc'd): each kept token once, ascending unless shuffled. */
static inline int64_t *check_rows(sonde_store *s, const sonde_corpus *c, size_t skip, bool shuffled,
                                  uint64_t *n_rows)
{
    *n_rows = 0;
    for (uint64_t q = 0; q < c->n_seqs; q++) {
        uint64_t n = c->seq_start[q + 1] - c->seq_start[q];
        *n_rows += n > skip ? n - skip : 0;
    }
    int64_t *token = read_all(s, "/rows/token", SONDE_I64, 1, DIM(*n_rows));
    int32_t *pos = read_all(s, "/tokens/pos", SONDE_I32, 1, DIM(c->n_tokens));
    unsigned char *seen = calloc(c->n_tokens, 1);
    uint64_t n_descents = 0;
    for (uint64_t i = 0; i < *n_rows; i++) {
        assert_in_range(token[i], 0, c->n_tokens - 1);
        assert_true(!seen[token[i]] && (size_t)pos[token[i]] >= skip);
        seen[token[i]] = 1;
        n_descents += i && token[i] < token[i - 1];
    }
    if (shuffled)
        assert_in_range(n_descents, *n_rows / 4, *n_rows);
    else
        assert_int_equal(n_descents, 0);
    free(pos);
    free(seen);
    return token;
}

static inline bool same_value(enum sonde_dtype t, const void *stored, size_t i, float x)
{
    uint32_t u;
    uint16_t h;
    if (t == SONDE_F32)
        return memcpy(&u, (const char *)stored + 4 * i, 4) && u == sonde_f32_bits(x);
    memcpy(&h, (const char *)stored + 2 * i, 2);
    if (isnan(x))
        return isnan(t == SONDE_F16 ? sonde_f16_to_f32(h) : sonde_bf16_to_f32(h));
    if (t == SONDE_F16 && isfinite(x) && fabsf(x) > 65504)
        x = copysignf(65504, x);
    return h == (t == SONDE_F16 ? sonde_f32_to_f16(x) : sonde_f32_to_bf16(x));
}

static inline void check_acts(sonde_store *s, const sonde_model *m, sonde_hook h, const struct truth *t,
                              enum sonde_dtype dtype, const int64_t *token, uint64_t n_rows)
{
    uint64_t dim[3] = {n_rows, 1, 1};
    int rank = 1 + sonde_site_shape(&m->arch, h.site, dim + 1);
    void *acts = read_all(s, path_of("acts", h), dtype, rank, dim);
    for (uint64_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < t->width; j++)
            if (!same_value(dtype, acts, i * t->width + j, t->value[(uint64_t)token[i] * t->width + j]))
                fail_msg("%s: row %d (token %d), element %d", path_of("acts", h), (int)i, (int)token[i],
                         (int)j);
    free(acts);
}

static inline void check_square(sonde_store *s, const sonde_model *m, sonde_hook h, const struct truth *t,
                                enum sonde_dtype dtype, uint64_t n_seqs, uint64_t longest)
{
    size_t heads = m->arch.n_heads;
    void *got = read_all(s, path_of("attn", h), dtype, 4, DIM(n_seqs, heads, longest, longest));
    for (size_t q = 0; q < n_seqs * heads; q++)
        for (size_t i = 0; i < longest; i++)
            for (size_t j = 0; j < longest; j++) {
                float x = t->square[(q * t->longest + i) * t->longest + j];
                if (dtype == SONDE_F32 && isnan(x)
                        ? !isnan(((float *)got)[(q * longest + i) * longest + j])
                        : !same_value(dtype, got, (q * longest + i) * longest + j, x))
                    fail_msg("%s: [%d, %d, %d]", path_of("attn", h), (int)q, (int)i, (int)j);
            }
    free(got);
}

static inline void is_near(const char *what, double got, double want, double scale)
{
    if (!(fabs(got - want) <= 1e-12 * scale))
        fail_msg("%s is %.17g, should be %.17g", what, got, want);
}

/* In float64 from the float32 values; 1e-12 of the largest term leaves room for the order of 1e4 additions.
 */
static inline void check_stats(sonde_store *s, sonde_hook h, const struct truth *t, const int64_t *token,
                               uint64_t n_rows)
{
    char path[200];
    double *part[4], norm = 0, norm_sq = 0, n = (double)n_rows;
    static const char *const name[] = {"mean", "var", "mean_norm", "mean_sq_norm"};
    for (int k = 0; k < 4; k++) {
        snprintf(path, sizeof path, "%s/%s", path_of("stats", h), name[k]);
        part[k] = read_all(s, path, SONDE_F64, 1, DIM(k < 2 ? t->width : 1));
    }
    snprintf(path, sizeof path, "%s/count", path_of("stats", h));
    int64_t *count = read_all(s, path, SONDE_I64, 1, DIM(1));
    assert_int_equal(count[0], n_rows);
    for (size_t j = 0; j < t->width; j++) {
        double mean = 0, var = 0, sq = 0;
        for (uint64_t i = 0; i < n_rows; i++)
            mean += (double)t->value[(uint64_t)token[i] * t->width + j] / n;
        for (uint64_t i = 0; i < n_rows; i++) {
            double x = (double)t->value[(uint64_t)token[i] * t->width + j];
            var += (x - mean) * (x - mean) / n;
            sq += x * x / n;
        }
        is_near("a mean", part[0][j], mean, fmax(1e-3, sqrt(sq)));
        is_near("a variance", part[1][j], var, fmax(1e-3, sq));
    }
    for (uint64_t i = 0; i < n_rows; i++) {
        double sq = 0;
        for (size_t j = 0; j < t->width; j++)
            sq += pow((double)t->value[(uint64_t)token[i] * t->width + j], 2);
        norm += sqrt(sq) / n;
        norm_sq += sq / n;
    }
    is_near("the mean norm", part[2][0], norm, norm);
    is_near("the mean squared norm", part[3][0], norm_sq, norm_sq);
    for (int k = 0; k < 4; k++)
        free(part[k]);
    free(count);
}

static inline double double_logsumexp(const float *x, size_t n)
{
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - most);
    return most + log(sum);
}

/* 1e-6 relative: float32 rounding of the result and of the exponentials. */
static inline void check_loss(sonde_store *s, const sonde_corpus *c, const struct truth *logits, double mean)
{
    float *loss = read_all(s, "/loss", SONDE_F32, 1, DIM(c->n_tokens));
    double sum = 0;
    uint64_t n = 0;
    for (uint64_t q = 0; q < c->n_seqs; q++)
        for (uint64_t i = c->seq_start[q]; i < c->seq_start[q + 1]; i++) {
            const float *row = logits->value + i * logits->width;
            if (i + 1 == c->seq_start[q + 1]) {
                assert_true(isnan(loss[i]));
                continue;
            }
            double want = double_logsumexp(row, logits->width) - (double)row[c->id[i + 1]];
            assert_true(fabs((double)loss[i] - want) <= 1e-6 * fmax(1, fabs(want)));
            sum += want;
            n++;
        }
    assert_true(fabs(mean - sum / (double)n) <= 1e-6 * mean);
    free(loss);
}

static inline void check_logits(sonde_store *s, const sonde_corpus *c, const struct truth *logits, size_t k)
{
    size_t v = logits->width;
    int32_t *id = read_all(s, "/logits/id", SONDE_I32, 2, DIM(c->n_tokens, k));
    float *logprob = read_all(s, "/logits/logprob", SONDE_F32, 2, DIM(c->n_tokens, k));
    for (uint64_t i = 0; i < c->n_tokens; i++) {
        const float *row = logits->value + i * v;
        double all = double_logsumexp(row, v);
        for (size_t j = 0; j < k; j++) {
            size_t better = 0;
            int32_t at = id[i * k + j];
            assert_in_range(at, 0, v - 1);
            for (size_t x = 0; x < v; x++)
                better += row[x] > row[at] || (row[x] == row[at] && x < (size_t)at);
            assert_int_equal(better, j);
            double want = (double)row[at] - all;
            assert_true(fabs((double)logprob[i * k + j] - want) <= 1e-6 * fmax(1, fabs(want)));
        }
    }
    free(id);
    free(logprob);
}

#endif
