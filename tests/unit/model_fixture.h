/* SPDX-License-Identifier: MIT
 * Golden models taken apart: their config and tensors are changed, written to a directory of their own and
 * opened. Data that are NULL become a hole in the file. Includers must have cmocka.h before. */
#ifndef SONDE_TESTS_MODEL_FIXTURE_H
#define SONDE_TESTS_MODEL_FIXTURE_H

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file/safetensors.h"
#include "model/run.h"

#define GOLDEN      SONDE_SOURCE_DIR "/tests/golden/models/"
#define MAX_TENSORS 200

/* One golden model. The tensors are views: into the golden file, or of whatever a test puts there. */
struct fixture {
    const char *name;
    char dir[64];
    json_t *config;
    sonde_tensors *file;
    sonde_tensor tensor[MAX_TENSORS];
    size_t n;
    size_t pad; /* spaces behind the header: an odd number leaves the data unaligned */
};

/* The golden models that have weights of their own, one for each family and kind of layout. */
static const char *const golden_models[] = {
    "gpt2",           "gpt2_untied", "gpt2_bf16", "gpt_neo",         "gpt_neox", "gpt_neox_serial",
    "llama",          "llama3",      "mistral",   "qwen2",           "qwen3",    "gemma",
    "gemma2",         "gemma3",      "tl_gelu",   "tl_solu",         "tl_pre",   "tl_attn_only",
    "tl_shortformer", "llama_bias",  "llama_f16", "tl_bidirectional"};
#define N_GOLDEN (sizeof golden_models / sizeof *golden_models)

static inline void fixture_load(struct fixture *f, const char *name)
{
    char path[600];
    sonde_err err = {0};
    *f = (struct fixture){.name = name};
    snprintf(path, sizeof path, GOLDEN "%s/config.json", name);
    f->config = json_load_file(path, 0, NULL);
    assert_non_null(f->config);
    snprintf(path, sizeof path, GOLDEN "%s/model.safetensors", name);
    if (sonde_safetensors_open(path, NULL, &f->file, &err))
        fail_msg("%s", err.msg);
    assert_true(f->file->n_tensors < MAX_TENSORS);
    f->n = f->file->n_tensors;
    memcpy(f->tensor, f->file->tensor, f->n * sizeof *f->tensor);
    snprintf(f->dir, sizeof f->dir, "/tmp/sonde-model-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
}

static inline void fixture_restore(struct fixture *f)
{
    f->n = f->file->n_tensors;
    memcpy(f->tensor, f->file->tensor, f->n * sizeof *f->tensor);
}

static inline void fixture_free(struct fixture *f)
{
    char path[128];
    snprintf(path, sizeof path, "%s/model.safetensors", f->dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", f->dir);
    unlink(path);
    rmdir(f->dir);
    json_decref(f->config);
    sonde_tensors_close(f->file);
}

static inline sonde_tensor *fixture_tensor(struct fixture *f, const char *name)
{
    for (size_t i = 0; i < f->n; i++)
        if (!strcmp(f->tensor[i].name, name))
            return &f->tensor[i];
    fail_msg("%s has no tensor %s", f->name, name);
    return NULL;
}

/* The safetensors format as it is defined, without the checks of our own writer. */
static inline void fixture_write_weights(const struct fixture *f, FILE *out)
{
    static char header[1 << 16];
    size_t n = 0, at = 0;
    for (size_t i = 0; i < f->n; i++) {
        const sonde_tensor *t = &f->tensor[i];
        n += (size_t)snprintf(header + n, sizeof header - n, "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[",
                              i ? ',' : '{', t->name, t->type_name);
        for (int k = 0; k < t->rank; k++)
            n += (size_t)snprintf(header + n, sizeof header - n, "%s%llu", k ? "," : "",
                                  (unsigned long long)t->dim[k]);
        n += (size_t)snprintf(header + n, sizeof header - n, "],\"data_offsets\":[%zu,%zu]}", at,
                              at + t->n_bytes);
        at += t->n_bytes;
    }
    n += (size_t)snprintf(header + n, sizeof header - n, "}%*s", (int)((8 - (n + 1) % 8) % 8 + f->pad), "");
    const uint64_t length = n;
    fwrite(&length, sizeof length, 1, out);
    fwrite(header, 1, n, out);
    for (size_t i = 0; i < f->n; i++)
        if (f->tensor[i].data)
            fwrite(f->tensor[i].data, 1, f->tensor[i].n_bytes, out);
        else
            fseek(out, (long)f->tensor[i].n_bytes, SEEK_CUR);
    fflush(out);
    assert_int_equal(ftruncate(fileno(out), (off_t)(8 + n + at)), 0);
}

static inline void fixture_write(const struct fixture *f)
{
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", f->dir);
    assert_int_equal(json_dump_file(f->config, path, 0), 0);
    snprintf(path, sizeof path, "%s/model.safetensors", f->dir);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    fixture_write_weights(f, out);
    assert_int_equal(fclose(out), 0);
}

/* Write and open. A failure leaves *m NULL and one line in err. */
static inline enum sonde_code fixture_open(const struct fixture *f, const sonde_model_options *o,
                                           sonde_budget *budget, sonde_model **m, sonde_err *err)
{
    const sonde_work work = {.budget = budget};
    *m = NULL;
    *err = (sonde_err){0};
    fixture_write(f);
    enum sonde_code code = sonde_model_open(f->dir, o, &work, m, err);
    if (code && (*m || err->code != code || !*err->msg || strchr(err->msg, '\n')))
        fail_msg("%s: code %d, message '%s'", f->name, (int)code, err->msg);
    return code;
}

static inline sonde_model *fixture_must_open(const struct fixture *f, unsigned processing)
{
    const sonde_model_options o = {.processing = processing};
    sonde_model *m;
    sonde_err err;
    if (fixture_open(f, &o, NULL, &m, &err))
        fail_msg("%s: %s", f->name, err.msg);
    return m;
}

/* ---- running ---------------------------------------- */

#define MAX_LENGTH_RUN 120

static size_t run_length = 12; /* tokens of a pass, at most MAX_LENGTH_RUN and the model's context */

static inline size_t length_for(const sonde_model *m)
{
    return m->arch.n_ctx < run_length ? m->arch.n_ctx : run_length;
}

static inline void ids_for(const sonde_model *m, int seed, int32_t ids[MAX_LENGTH_RUN])
{
    for (int i = 0; i < MAX_LENGTH_RUN; i++)
        ids[i] = (int32_t)((size_t)(i * 7 + 3 + seed * (i + 5)) % m->arch.n_vocab);
}

struct wanted_logits {
    float *x; /* [rows, V_out] */
    size_t v;
};

static inline enum sonde_code take_logits(void *arg, size_t sequence, size_t first, size_t n, float *logits,
                                          sonde_err *err)
{
    struct wanted_logits *w = arg;
    (void)sequence, (void)err;
    memcpy(w->x + first * w->v, logits, n * w->v * sizeof *logits);
    return SONDE_OK;
}

static inline sonde_run *new_run(const sonde_model *m)
{
    sonde_run *run = NULL;
    sonde_err err = {0};
    if (sonde_run_new(m, MAX_LENGTH_RUN, length_for(m), NULL, NULL, &run, &err))
        fail_msg("%s", err.msg);
    return run;
}

/* Logits [T, V_out] of the tokens of `seed`, with the run's hooks; the caller frees them. */
static inline float *logits_of(sonde_run *run, const sonde_model *m, int seed)
{
    const size_t n = length_for(m), start[2] = {0, n};
    int32_t ids[MAX_LENGTH_RUN];
    sonde_err err = {0};
    struct wanted_logits w = {calloc(n * m->arch.n_vocab_out, sizeof(float)), m->arch.n_vocab_out};
    ids_for(m, seed, ids);
    sonde_run_want_logits(run, take_logits, &w, false);
    if (sonde_run_forward(run, ids, start, 1, NULL, &err))
        fail_msg("%s", err.msg);
    return w.x;
}

static inline float *plain_logits(const sonde_model *m, int seed)
{
    sonde_run *run = new_run(m);
    float *x = logits_of(run, m, seed);
    sonde_run_free(run);
    return x;
}

#endif
