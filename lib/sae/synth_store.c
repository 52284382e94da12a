/* SPDX-License-Identifier: MIT
 * Synthetic activations as an activation file with the truth inside. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/size.h"
#include "../file/store.h"
#include "../num/convert.h"
#include "synth_impl.h"

#define TASK_ROWS   256
#define BLOCK_BYTES ((size_t)8 << 20) /* of float32 rows made at a time */

enum {
    ACTS,
    STAT_MEAN,
    STAT_VAR,
    STAT_NORM,
    STAT_NORM_SQ,
    STAT_COUNT,
    DIRECTIONS,
    BIAS,
    PARENT,
    PROBABILITY,
    FREQUENCY,
    INDPTR,
    INDICES,
    VALUES,
    ROW_TOKEN, /* this one and those below: only where rows are held out */
    TOKEN_DOC,
    DOC_RANGE,
    DOC_SPLIT,
    N_DATASETS
};

/* A file being made. Tasks are runs of TASK_ROWS rows; blocks are whole numbers of tasks. */
struct job {
    const sonde_synth *s;
    const sonde_synth_file *f;
    const sonde_kernels *kernels;
    const sonde_work *work;
    sonde_store_writer *writer;
    sonde_synth_space **space;
    int n_threads;
    uint64_t n_heldout, n_active;
    sonde_arena *arena;
    size_t n_tasks, block_tasks;
    uint32_t *task_active; /* [n_tasks] entries of each task */
    uint64_t *count;       /* [n_threads, N] rows in which a latent is active */
    /* one block */
    size_t first_task;
    uint64_t entry0; /* entries before the block */
    float *x;        /* [block rows, d] */
    uint16_t *half;  /* the same in 16 bits */
    int64_t *indptr, *row_token;
    int32_t *index, *doc;
    float *value;
    uint64_t *task_entry; /* [block_tasks + 1] entries before each task of the block */
    size_t *saturated;    /* [block_tasks] */
    double *sum, *sum_sq, norm, norm_sq;
};

static uint64_t heldout_rows(const sonde_synth_file *f)
{
    uint64_t n = (uint64_t)(f->holdout * (double)f->n_rows + 0.5);
    return n < f->n_rows ? n : f->n_rows - 1;
}

static uint64_t task_end(const struct job *j, size_t task)
{
    uint64_t end = ((uint64_t)task + 1) * TASK_ROWS;
    return end < j->f->n_rows ? end : j->f->n_rows;
}

/* ---- layout ---------------------------------------------------------------------------------- */

/* Returns the number of datasets. Without held-out rows there are no documents: readers may choose rows of
 * their own. */
static size_t layout(const sonde_synth *s, const sonde_synth_file *f, uint64_t n_active,
                     sonde_store_dataset *d)
{
    const uint64_t rows = f->n_rows, n = s->o.truth, dim = s->o.dim, docs = 2;
    const sonde_store_dataset all[N_DATASETS] = {
        [ACTS] = {"/acts/synthetic", f->dtype, 2, {rows, dim}},
        [STAT_MEAN] = {"/stats/synthetic/mean", SONDE_F64, 1, {dim}},
        [STAT_VAR] = {"/stats/synthetic/var", SONDE_F64, 1, {dim}},
        [STAT_NORM] = {"/stats/synthetic/mean_norm", SONDE_F64, 1, {1}},
        [STAT_NORM_SQ] = {"/stats/synthetic/mean_sq_norm", SONDE_F64, 1, {1}},
        [STAT_COUNT] = {"/stats/synthetic/count", SONDE_I64, 1, {1}},
        [ROW_TOKEN] = {"/rows/token", SONDE_I64, 1, {rows}},
        [TOKEN_DOC] = {"/tokens/doc", SONDE_I32, 1, {rows}},
        [DOC_RANGE] = {"/docs/range", SONDE_I64, 2, {docs, 2}},
        [DOC_SPLIT] = {"/docs/split", SONDE_U8, 1, {docs}},
        [DIRECTIONS] = {"/truth/directions", SONDE_F32, 2, {n, dim}},
        [BIAS] = {"/truth/bias", SONDE_F32, 1, {dim}},
        [PARENT] = {"/truth/parent", SONDE_I32, 1, {n}},
        [PROBABILITY] = {"/truth/probability", SONDE_F32, 1, {n}},
        [FREQUENCY] = {"/truth/frequency", SONDE_F32, 1, {n}},
        [INDPTR] = {"/truth/indptr", SONDE_I64, 1, {rows + 1}},
        [INDICES] = {"/truth/indices", SONDE_I32, 1, {n_active}},
        [VALUES] = {"/truth/values", SONDE_F32, 1, {n_active}},
    };
    memcpy(d, all, sizeof all);
    return heldout_rows(f) ? N_DATASETS : ROW_TOKEN;
}

static uint64_t layout_bytes(const sonde_store_dataset *d, size_t n)
{
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++) {
        size_t bytes;
        if (!sonde_nbytes(&bytes, d[i].dim, d[i].rank, sonde_dtype_size(d[i].dtype)) ||
            __builtin_add_overflow(total, bytes, &total))
            return UINT64_MAX;
    }
    return total;
}

static size_t describe(const sonde_synth *s, const sonde_synth_file *f, sonde_store_attr *a)
{
    const sonde_synth_options *o = &s->o;
    size_t n = 0;
#define TEXT(key, value) a[n++] = (sonde_store_attr){.path = "/", .name = key, .s = value}
#define WHOLE(key, value)                                                                                    \
    a[n++] = (sonde_store_attr)                                                                              \
    {                                                                                                        \
        .path = "/", .name = key, .i = (int64_t)(value)                                                      \
    }
#define NUMBER(key, value)                                                                                   \
    a[n++] = (sonde_store_attr)                                                                              \
    {                                                                                                        \
        .path = "/", .name = key, .is_float = true, .f = value                                               \
    }
    TEXT("generator", "dictionary");
    WHOLE("dim", o->dim);
    WHOLE("truth", o->truth);
    WHOLE("seed", o->seed);
    TEXT("frequencies", sonde_synth_law_name(o->law));
    NUMBER("zipf", o->zipf);
    NUMBER("decay", o->decay);
    NUMBER("active", o->active);
    NUMBER("probability_first", o->p_first);
    NUMBER("probability_last", o->p_last);
    NUMBER("mean_active", s->mean_active);
    TEXT("magnitude", sonde_synth_magnitude_name(o->magnitude));
    NUMBER("scale_first", o->scale_first);
    NUMBER("scale_last", o->scale_last);
    NUMBER("spread", o->spread);
    NUMBER("spread_std", o->spread_std);
    WHOLE("correlation_rank", o->rank);
    NUMBER("correlation_scale", o->correlation);
    WHOLE("roots", o->roots);
    WHOLE("branch", o->branch);
    WHOLE("depth", o->depth);
    TEXT("siblings", o->siblings_free ? "free" : "exclusive");
    WHOLE("scale_children", o->scale_children);
    WHOLE("orthogonal_steps", o->orthogonal_steps);
    NUMBER("orthogonal_lr", o->orthogonal_lr);
    NUMBER("noise", o->noise);
    NUMBER("bias", o->bias);
    NUMBER("holdout", f->holdout);
    TEXT("dtype", sonde_dtype_name(f->dtype));
    if (f->command)
        TEXT("command", f->command);
    TEXT("tool_version", SONDE_VERSION);
#undef TEXT
#undef WHOLE
#undef NUMBER
    return n;
}

/* ---- the rows -------------------------------------------------------------------------------- */

static void count_task(void *arg, size_t task, int thread)
{
    struct job *j = arg;
    size_t total = 0;
    task += j->first_task;
    for (uint64_t row = (uint64_t)task * TASK_ROWS; row < task_end(j, task); row++)
        total += sonde_synth_row(j->s, row, j->space[thread], NULL, NULL, NULL);
    j->task_active[task] = (uint32_t)total;
}

static void fill_task(void *arg, size_t task, int thread)
{
    struct job *j = arg;
    const size_t d = j->s->o.dim, local = task * TASK_ROWS;
    uint64_t first = (uint64_t)(j->first_task + task) * TASK_ROWS, end = task_end(j, j->first_task + task);
    uint64_t entry = j->task_entry[task], *count = j->count + (size_t)thread * j->s->o.truth;
    for (uint64_t row = first; row < end; row++) {
        const size_t at = local + (size_t)(row - first);
        const uint32_t *latent;
        const float *value;
        size_t n = sonde_synth_row(j->s, row, j->space[thread], &latent, &value, j->x + at * d);
        for (size_t i = 0; i < n; i++) {
            j->index[entry + i] = (int32_t)latent[i];
            j->value[entry + i] = value[i];
            count[latent[i]]++;
        }
        entry += n;
        j->indptr[at] = (int64_t)(j->entry0 + entry);
        j->row_token[at] = (int64_t)row;
        j->doc[at] = row >= j->f->n_rows - j->n_heldout;
    }
    size_t n = (size_t)(end - first) * d;
    if (j->f->dtype == SONDE_F16)
        j->saturated[task] = sonde_to_f16(j->kernels, n, j->x + local * d, j->half + local * d);
    else if (j->f->dtype == SONDE_BF16)
        j->saturated[task] = sonde_to_bf16(j->kernels, n, j->x + local * d, j->half + local * d);
}

static enum sonde_code stopped(const struct job *j, sonde_err *err)
{
    return sonde_work_stopped(j->work) ? sonde_fail(err, SONDE_E_STOPPED, "stopped; nothing was written")
                                       : SONDE_OK;
}

/* First pass: how many latents are active. */
static enum sonde_code count_rows(struct job *j, sonde_err *err)
{
    for (j->first_task = 0; j->first_task < j->n_tasks; j->first_task += j->block_tasks) {
        size_t n = j->n_tasks - j->first_task < j->block_tasks ? j->n_tasks - j->first_task : j->block_tasks;
        enum sonde_code code = stopped(j, err);
        if (code)
            return code;
        sonde_work_report(j->work, "counting", "rows", (uint64_t)j->first_task * TASK_ROWS, j->f->n_rows);
        sonde_pool_run(j->work ? j->work->pool : NULL, n, count_task, j);
    }
    for (size_t t = 0; t < j->n_tasks; t++)
        j->n_active += j->task_active[t];
    return SONDE_OK;
}

static enum sonde_code write_block(struct job *j, uint64_t first, uint64_t n, sonde_synth_result *r,
                                   sonde_err *err)
{
    size_t tasks = (size_t)((n + TASK_ROWS - 1) / TASK_ROWS);
    uint64_t entries = j->task_entry[tasks];
    enum sonde_code code;
    for (size_t t = 0; t < tasks; t++)
        r->n_saturated += j->saturated[t];
    sonde_column_sums(j->kernels, j->x, j->s->o.dim, (size_t)n, j->s->o.dim, j->sum, j->sum_sq, &j->norm,
                      &j->norm_sq);
    const void *acts = j->f->dtype == SONDE_F32 ? (const void *)j->x : (const void *)j->half;
    if ((code = sonde_store_write(j->writer, ACTS, first, n, acts, err)) ||
        (j->n_heldout && ((code = sonde_store_write(j->writer, ROW_TOKEN, first, n, j->row_token, err)) ||
                          (code = sonde_store_write(j->writer, TOKEN_DOC, first, n, j->doc, err)))) ||
        (code = sonde_store_write(j->writer, INDPTR, first + 1, n, j->indptr, err)) ||
        (code = sonde_store_write(j->writer, INDICES, j->entry0, entries, j->index, err)) ||
        (code = sonde_store_write(j->writer, VALUES, j->entry0, entries, j->value, err)))
        return code;
    j->entry0 += entries;
    return SONDE_OK;
}

/* Second pass. */
static enum sonde_code write_rows(struct job *j, sonde_synth_result *r, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    for (j->first_task = 0; j->first_task < j->n_tasks && !code; j->first_task += j->block_tasks) {
        size_t n = j->n_tasks - j->first_task < j->block_tasks ? j->n_tasks - j->first_task : j->block_tasks;
        uint64_t first = (uint64_t)j->first_task * TASK_ROWS;
        if ((code = stopped(j, err)))
            break;
        sonde_work_report(j->work, "generating", "rows", first, j->f->n_rows);
        j->task_entry[0] = 0;
        for (size_t t = 0; t < n; t++)
            j->task_entry[t + 1] = j->task_entry[t] + j->task_active[j->first_task + t];
        sonde_pool_run(j->work ? j->work->pool : NULL, n, fill_task, j);
        code = write_block(j, first, task_end(j, j->first_task + n - 1) - first, r, err);
    }
    return code;
}

/* ---- what stands once ------------------------------------------------------------------------ */

static enum sonde_code write_stats(struct job *j, sonde_err *err)
{
    const double n = (double)j->f->n_rows;
    const int64_t count = (int64_t)j->f->n_rows;
    enum sonde_code code;
    for (size_t k = 0; k < j->s->o.dim; k++) {
        j->sum[k] /= n;
        double var = j->sum_sq[k] / n - j->sum[k] * j->sum[k];
        j->sum_sq[k] = var > 0 ? var : 0;
    }
    j->norm /= n;
    j->norm_sq /= n;
    if ((code = sonde_store_write(j->writer, STAT_MEAN, 0, j->s->o.dim, j->sum, err)) ||
        (code = sonde_store_write(j->writer, STAT_VAR, 0, j->s->o.dim, j->sum_sq, err)) ||
        (code = sonde_store_write(j->writer, STAT_NORM, 0, 1, &j->norm, err)) ||
        (code = sonde_store_write(j->writer, STAT_NORM_SQ, 0, 1, &j->norm_sq, err)))
        return code;
    return sonde_store_write(j->writer, STAT_COUNT, 0, 1, &count, err);
}

static enum sonde_code write_truth(struct job *j, sonde_err *err)
{
    const sonde_synth *s = j->s;
    const size_t n = s->o.truth;
    const int64_t zero = 0;
    float *share = sonde_arena_get(j->arena, n, sizeof *share, err);
    if (!share)
        return SONDE_E_MEMORY;
    enum sonde_code code;
    for (size_t i = 0; i < n; i++)
        share[i] = (float)s->probability[i];
    if ((code = sonde_store_write(j->writer, PROBABILITY, 0, n, share, err)))
        return code;
    for (size_t i = 0; i < n; i++) {
        uint64_t rows = 0;
        for (int t = 0; t < j->n_threads; t++)
            rows += j->count[(size_t)t * n + i];
        share[i] = (float)((double)rows / (double)j->f->n_rows);
    }
    if ((code = sonde_store_write(j->writer, FREQUENCY, 0, n, share, err)) ||
        (code = sonde_store_write(j->writer, DIRECTIONS, 0, n, s->direction, err)) ||
        (code = sonde_store_write(j->writer, BIAS, 0, s->o.dim, s->bias, err)) ||
        (code = sonde_store_write(j->writer, PARENT, 0, n, s->parent, err)))
        return code;
    return sonde_store_write(j->writer, INDPTR, 0, 1, &zero, err);
}

static enum sonde_code write_documents(struct job *j, sonde_err *err)
{
    const int64_t n = (int64_t)j->f->n_rows, train = n - (int64_t)j->n_heldout,
                  range[4] = {0, train, train, n};
    const uint8_t split[2] = {0, 1};
    enum sonde_code code =
        j->n_heldout ? sonde_store_write(j->writer, DOC_RANGE, 0, 2, range, err) : SONDE_OK;
    return code || !j->n_heldout ? code : sonde_store_write(j->writer, DOC_SPLIT, 0, 2, split, err);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static enum sonde_code check_file(const sonde_synth *s, const sonde_synth_file *f, sonde_err *err)
{
    if (f->n_rows == 0 || f->n_rows > (uint64_t)INT32_MAX * TASK_ROWS)
        return sonde_fail(err, SONDE_E_USAGE, "%llu rows, there must be 1 to %llu",
                          (unsigned long long)f->n_rows, (unsigned long long)INT32_MAX * TASK_ROWS);
    if (!(f->holdout >= 0 && f->holdout < 1))
        return sonde_fail(err, SONDE_E_USAGE, "a share of %.9g held out, it must be at least 0 and below 1",
                          f->holdout);
    if (f->dtype != SONDE_F32 && f->dtype != SONDE_F16 && f->dtype != SONDE_BF16)
        return sonde_fail(err, SONDE_E_USAGE, "activations cannot be %s", sonde_dtype_name(f->dtype));
    if (s->o.truth > UINT32_MAX / TASK_ROWS)
        return sonde_fail(err, SONDE_E_USAGE, "%zu latents are too many for a file", s->o.truth);
    return SONDE_OK;
}

static enum sonde_code prepare(struct job *j, sonde_err *err)
{
    size_t d = j->s->o.dim, n = j->s->o.truth, fit = BLOCK_BYTES / (sizeof(float) * TASK_ROWS);
    fit = fit / d > 0 ? fit / d : 1;
    j->n_tasks = (size_t)((j->f->n_rows + TASK_ROWS - 1) / TASK_ROWS);
    j->block_tasks = fit < j->n_tasks ? fit : j->n_tasks;
    j->task_active = sonde_arena_get(j->arena, j->n_tasks, sizeof *j->task_active, err);
    j->count = sonde_arena_get(j->arena, n * (size_t)j->n_threads, sizeof *j->count, err);
    j->sum = sonde_arena_get(j->arena, d, sizeof *j->sum, err);
    j->sum_sq = sonde_arena_get(j->arena, d, sizeof *j->sum_sq, err);
    return j->task_active && j->count && j->sum && j->sum_sq ? SONDE_OK : SONDE_E_MEMORY;
}

/* Buffers of a block, once it is known how many entries the fullest has. */
static enum sonde_code prepare_block(struct job *j, sonde_err *err)
{
    size_t rows = j->block_tasks * TASK_ROWS, d = j->s->o.dim, most = 0, sum = 0;
    for (size_t t = 0; t < j->n_tasks; t++) {
        sum = t % j->block_tasks ? sum + j->task_active[t] : j->task_active[t];
        most = sum > most ? sum : most;
    }
    j->x = sonde_arena_get(j->arena, rows * d, sizeof *j->x, err);
    j->half = sonde_arena_get(j->arena, j->f->dtype == SONDE_F32 ? 0 : rows * d, sizeof *j->half, err);
    j->indptr = sonde_arena_get(j->arena, rows, sizeof *j->indptr, err);
    j->row_token = sonde_arena_get(j->arena, rows, sizeof *j->row_token, err);
    j->doc = sonde_arena_get(j->arena, rows, sizeof *j->doc, err);
    j->index = sonde_arena_get(j->arena, most, sizeof *j->index, err);
    j->value = sonde_arena_get(j->arena, most, sizeof *j->value, err);
    j->task_entry = sonde_arena_get(j->arena, j->block_tasks + 1, sizeof *j->task_entry, err);
    j->saturated = sonde_arena_get(j->arena, j->block_tasks, sizeof *j->saturated, err);
    return j->x && j->half && j->indptr && j->row_token && j->doc && j->index && j->value && j->task_entry &&
                   j->saturated
               ? SONDE_OK
               : SONDE_E_MEMORY;
}

static enum sonde_code make_file(struct job *j, const char *path, sonde_synth_result *r, sonde_err *err)
{
    sonde_store_dataset dataset[N_DATASETS];
    sonde_store_attr attr[40];
    enum sonde_code code = prepare(j, err);
    if (code || (code = count_rows(j, err)) || (code = prepare_block(j, err)))
        return code;
    size_t n_datasets = layout(j->s, j->f, j->n_active, dataset);
    const sonde_store_layout l = {dataset, n_datasets, attr, describe(j->s, j->f, attr)};
    if ((code = sonde_store_create(path, &l, j->f->overwrite, &j->writer, err)))
        return code;
    if ((code = write_rows(j, r, err)) || (code = write_stats(j, err)) || (code = write_truth(j, err)) ||
        (code = write_documents(j, err))) {
        sonde_store_abandon(j->writer, false);
        return code;
    }
    r->n_heldout = j->n_heldout;
    r->n_active = j->n_active;
    r->file_bytes = layout_bytes(dataset, n_datasets);
    return sonde_store_finish(j->writer, NULL, 0, err);
}

enum sonde_code sonde_synth_write(const sonde_synth *s, const sonde_synth_file *f,
                                  const sonde_kernels *kernels, const sonde_work *work, const char *path,
                                  sonde_synth_result *result, sonde_err *err)
{
    enum sonde_code code = check_file(s, f, err);
    if (code)
        return code;
    sonde_budget *budget = work ? work->budget : NULL;
    struct job j = {.s = s,
                    .f = f,
                    .kernels = kernels,
                    .work = work,
                    .n_threads = sonde_pool_threads(work ? work->pool : NULL),
                    .n_heldout = heldout_rows(f),
                    .arena = sonde_arena_new(budget, err)};
    sonde_synth_result r = {0};
    code = j.arena ? synth_spaces_new(s, j.n_threads, budget, &j.space, err) : SONDE_E_MEMORY;
    if (!code)
        code = make_file(&j, path, &r, err);
    synth_spaces_free(j.space, j.n_threads);
    sonde_arena_free(j.arena);
    if (!code)
        *result = r;
    return code;
}

enum sonde_code sonde_synth_plan_file(const sonde_synth *s, const sonde_synth_file *f,
                                      sonde_synth_result *result, sonde_err *err)
{
    sonde_store_dataset dataset[N_DATASETS];
    enum sonde_code code = check_file(s, f, err);
    if (code)
        return code;
    uint64_t n_active = (uint64_t)(s->mean_active * (double)f->n_rows + 0.5);
    size_t n_datasets = layout(s, f, n_active, dataset);
    *result = (sonde_synth_result){heldout_rows(f), n_active, 0, layout_bytes(dataset, n_datasets)};
    return SONDE_OK;
}
