/* SPDX-License-Identifier: MIT
 * Opening a source and closing it. */
#include "source.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "source_impl.h"

static const struct source_kind store_kind = {source_file_append, NULL, "store", true};
static const struct source_kind array_kind = {source_file_append, NULL, "array", true};

/* ---- common to all kinds ----------------------------------------------------------------------- */

enum sonde_code source_begin(const struct source_kind *kind, const sonde_source_options *o,
                             sonde_budget *budget, sonde_source **out, sonde_err *err)
{
    sonde_source *s = calloc(1, sizeof *s);
    if (!s)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a source");
    s->fd = -1;
    s->row_token = s->token_id = SIZE_MAX;
    pthread_mutex_init(&s->ahead.lock, NULL);
    pthread_cond_init(&s->ahead.changed, NULL);
    s->kind = kind;
    s->kernels = sonde_kernels_best();
    s->budget = budget;
    s->seed = o->seed;
    s->holdout = o->holdout;
    enum sonde_code code = SONDE_OK;
    if (!(o->holdout >= 0 && o->holdout < 1))
        code =
            sonde_fail(err, SONDE_E_USAGE, "a share of %g cannot be held out, only 0 to below 1", o->holdout);
    else if (!(s->arena = sonde_arena_new(budget, err)))
        code = SONDE_E_MEMORY;
    else
        code = source_filter_make(&o->filter, s->arena, &s->filter, err);
    if (code)
        sonde_source_close(s);
    else
        *out = s;
    return code;
}

size_t source_window_rows(const sonde_source *s, const sonde_source_options *o)
{
    size_t width = s->in.width + (s->two ? s->out.width : 0),
           fit = SOURCE_WINDOW_BYTES / sizeof(float) / width;
    if (o->window_rows)
        return o->window_rows < UINT32_MAX / 2 ? o->window_rows : UINT32_MAX / 2;
    return fit > SOURCE_WINDOW_ROWS ? SOURCE_WINDOW_ROWS : fit ? fit : 1;
}

enum sonde_code source_list_units(sonde_source *s, sonde_err *err)
{
    uint64_t first;
    if (s->n_units > UINT32_MAX)
        return sonde_fail(err, SONDE_E_USAGE, "%" PRIu64 " blocks of rows, at most %u are possible",
                          s->n_units, UINT32_MAX);
    if (!(s->unit = sonde_arena_get(s->arena, (size_t)s->n_units, sizeof *s->unit, err)) ||
        !(s->unit_rows = sonde_arena_get(s->arena, (size_t)s->n_units, sizeof *s->unit_rows, err)))
        return SONDE_E_MEMORY;
    for (uint64_t u = 0; u < s->n_units; u++) {
        size_t n = source_unit_rows(s, u, SONDE_SPLIT_TRAIN), items = (size_t)source_unit_items(s, u, &first);
        s->largest = items > s->largest ? items : s->largest;
        if (n) {
            s->unit[s->n_stream] = (uint32_t)u;
            s->unit_rows[s->n_stream++] = (uint32_t)n;
        }
    }
    s->info.n_train = s->marks.n_train;
    s->info.n_heldout = s->marks.n_heldout;
    if (!s->marks.n_train && !s->marks.n_heldout)
        return sonde_fail(err, SONDE_E_USAGE, "%s: no row is left: all %" PRIu64 " are excluded",
                          s->path ? s->path : "the text", s->info.n_rows);
    return SONDE_OK;
}

const char *source_base_name(sonde_source *s, const char *path)
{
    size_t end = strlen(path), begin;
    while (end > 1 && path[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--)
        ;
    const char *name = sonde_arena_strndup(s->arena, path + begin, end - begin, NULL);
    return name ? name : "";
}

/* ---- files ------------------------------------------------------------------------------------- */

static bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool is_npy(const char *path)
{
    char magic[6] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? 0 : read(fd, magic, sizeof magic);
    if (fd >= 0)
        close(fd);
    return n == (ssize_t)sizeof magic && memcmp(magic, "\x93NUMPY", sizeof magic) == 0;
}

/* "FILE.h5:/dataset" in two, where FILE.h5 is a file and the whole is none. */
static enum sonde_code split_path(sonde_source *s, const char *path, const char **dataset, sonde_err *err)
{
    *dataset = NULL;
    if (!(s->path = sonde_arena_strndup(s->arena, path, strlen(path), err)))
        return SONDE_E_MEMORY;
    if (is_file(path))
        return SONDE_OK;
    for (const char *p = strstr(path, ":/"); p; p = strstr(p + 1, ":/")) {
        char *file = sonde_arena_strndup(s->arena, path, (size_t)(p - path), err);
        if (!file)
            return SONDE_E_MEMORY;
        if (is_file(file)) {
            s->path = file;
            *dataset = path + (p + 1 - path);
            return SONDE_OK;
        }
    }
    return SONDE_OK;
}

static enum sonde_code open_file(sonde_source *s, const char *path, const sonde_source_options *o,
                                 sonde_err *err)
{
    const char *dataset;
    enum sonde_code code = split_path(s, path, &dataset, err);
    if (code)
        return code;
    if (is_npy(s->path)) {
        if (dataset)
            return sonde_fail(err, SONDE_E_USAGE, "%s: is one array, it has no '%.100s'", s->path, dataset);
        s->kind = &array_kind;
        code = source_npy_open(s, s->path, o, err);
    } else {
        code = source_store_open(s, s->path, dataset, o, err);
        if (!code && dataset && strncmp(dataset, "/acts/", 6) != 0)
            s->kind = &array_kind;
    }
    if (code)
        return code;
    if (!s->info.n_rows)
        return sonde_fail(err, SONDE_E_USAGE, "%s: %s has no rows", s->path, s->in.name);
    s->window_rows = source_window_rows(s, o);
    s->block_rows = s->window_rows < SOURCE_BLOCK ? s->window_rows : SOURCE_BLOCK;
    s->n_units = s->info.n_rows / s->block_rows + (s->info.n_rows % s->block_rows != 0);
    if (s->store)
        code = source_store_marks(s, err);
    else
        source_marks_tail(&s->marks, s->info.n_rows, s->holdout);
    if (code || (code = source_list_units(s, err)))
        return code;
    s->info.kind = s->kind->name;
    return source_identify_file(s, err);
}

enum sonde_code sonde_source_open(const char *path, const sonde_source_options *o, sonde_budget *budget,
                                  sonde_source **out, sonde_err *err)
{
    sonde_source *s = NULL;
    enum sonde_code code = source_begin(&store_kind, o, budget, &s, err);
    if (code)
        return code;
    s->info.bos_id = -1;
    s->info.model_name = s->info.hook = "";
    code = open_file(s, path, o, err);
    if (code)
        sonde_source_close(s);
    else
        *out = s;
    return code;
}

/* ---- what it is -------------------------------------------------------------------------------- */

void sonde_source_close(sonde_source *s)
{
    if (!s)
        return;
    source_stream_free(s);
    source_pass_free(s);
    if (s->kind->close)
        s->kind->close(s);
    sonde_store_close(s->store);
    if (s->fd >= 0)
        close(s->fd);
    sonde_arena_free(s->arena);
    free(s);
}

const sonde_source_info *sonde_source_about(const sonde_source *s)
{
    return &s->info;
}

const sonde_model *sonde_source_model_of(const sonde_source *s)
{
    return s->model;
}

const sonde_corpus *sonde_source_corpus_of(const sonde_source *s)
{
    return s->corpus;
}

bool sonde_source_takes(const sonde_source *s, uint64_t token, enum sonde_split split)
{
    return s->corpus && token < s->marks.n && source_mark_in(source_mark(&s->marks, token), split);
}
