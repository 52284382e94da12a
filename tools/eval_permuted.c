/* SPDX-License-Identifier: MIT
 * sonde eval --baselines: a dictionary trained like this one, on the model with permuted weights. What it
 * explains of that model's activations is no sign of anything learned. */
#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include "eval.h"
#include "exclude.h"
#include "file/json.h"
#include "model/permute.h"
#include "sae/dict_file.h"
#include "sae/train_run.h"

#define RUN_JSON_BYTES ((size_t)16 << 20)

/* Everything that belongs to the second model. */
struct twin {
    sonde_model *model;
    sonde_source *source;
    sonde_train_options options;
    char dir[256];
    sonde_dict *dict;
    sonde_encoder *encoder;
    sonde_metrics *metrics;
};

/* false: nobody knows how the dictionary was trained. */
static bool read_options(const struct eval *e, struct twin *w)
{
    json_t *run = NULL;
    if (sonde_json_load_in(e->t->operand[0], "run.json", RUN_JSON_BYTES, &run, NULL))
        return false;
    bool known = json_is_object(json_object_get(run, "options")) &&
                 !sonde_train_options_read(json_object_get(run, "options"), &w->options, NULL);
    json_decref(run);
    if (known && e->o->permuted_tokens != OPTION_WORD)
        w->options.n_tokens = e->o->permuted_tokens;
    return known;
}

/* The same text, split and filter, the weights permuted by the seed of the training. */
static enum sonde_code open_twin(struct eval *e, struct twin *w, sonde_err *err)
{
    const sonde_model *m = e->in.opened.model;
    const sonde_source_info *info = sonde_source_about(e->in.source);
    const sonde_model_options mo = {.processing = m->processing, .kernels = m->kernels};
    struct exclusion x = {0};
    enum sonde_code code = sonde_model_open(m->path, &mo, e->in.work, &w->model, err);
    if (code || (code = sonde_model_permute(w->model, w->options.seed, true, err)) ||
        (code = exclusion_parse(e->in.exclude, &x, err)))
        goto out;
    const sonde_source_options so = {.hook = info->hook,
                                     .hook_out = info->hook_out,
                                     .filter = x.filter,
                                     .holdout = e->in.holdout,
                                     .seed = e->in.seed};
    code = sonde_source_model(w->model, e->in.opened.corpus, e->in.opened.tokenizer, &so, e->t->budget,
                              &w->source, err);
    if (!code)
        code = sonde_train_defaults(&w->options, info->d_in, info->d_out, info->n_train,
                                    info->hook_out != NULL, err);
out:
    exclusion_free(&x);
    return code;
}

static enum sonde_code make_dir(struct twin *w, sonde_err *err)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(w->dir, sizeof w->dir, "%.200s/sonde-permuted-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (mkdtemp(w->dir))
        return SONDE_OK;
    w->dir[0] = '\0';
    return sonde_fail(err, SONDE_E_IO,
                      "no directory for the dictionary of permuted weights can be made; set TMPDIR");
}

/* The directory as sonde_train leaves it. */
static void remove_dir(const struct twin *w)
{
    static const char *const names[] = {
        "cfg.json",    "sae_weights.safetensors", "sparsity.safetensors", "run.json", "log.jsonl",
        "timing.jsonl"};
    char path[400];
    for (size_t i = 0; i < sizeof names / sizeof *names && w->dir[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", w->dir, names[i]);
        unlink(path);
    }
    if (!w->dir[0])
        return;
    snprintf(path, sizeof path, "%s/checkpoints", w->dir); /* one, if it was stopped */
    DIR *d = opendir(path);
    for (struct dirent *f; d && (f = readdir(d));)
        unlinkat(dirfd(d), f->d_name, 0);
    if (d)
        closedir(d);
    rmdir(path);
    rmdir(w->dir);
}

static enum sonde_code train(struct eval *e, struct twin *w, sonde_err *err)
{
    const sonde_train_job job = {w->options, w->dir};
    const sonde_train_run run = {
        .source = w->source, .job = &job, .n_jobs = 1, .kernels = e->in.kernels, .overwrite = true};
    char note[400] = "";
    enum sonde_code code = make_dir(w, err);
    if (code || (code = sonde_train(&run, e->in.work, NULL, note, err)))
        return code;
    code = sonde_dict_load(w->dir, "saelens", e->t->budget, &w->dict, note, err);
    if (!code)
        code = sonde_encoder_new(w->dict, e->in.kernels, e->in.bf16, e->in.work->pool, e->t->budget,
                                 &w->encoder, err);
    return code ? code
                : sonde_metrics_measure(w->dict, w->encoder, w->source, e->in.split, e->in.max_rows,
                                        e->in.work, &w->metrics, err);
}

static void close_twin(struct twin *w)
{
    sonde_metrics_free(w->metrics);
    sonde_encoder_free(w->encoder);
    sonde_dict_free(w->dict);
    sonde_source_close(w->source);
    sonde_model_close(w->model);
    remove_dir(w);
}

enum sonde_code eval_permuted(struct eval *e, sonde_err *err)
{
    struct twin w = {0};
    if (!e->o->baselines || !e->in.opened.model || !e->o->permuted_tokens)
        return SONDE_OK;
    if (!read_options(e, &w)) {
        tool_note(e->t, "%s has no run.json that tells how it was trained: no row for permuted weights",
                  e->t->operand[0]);
        return SONDE_OK;
    }
    if (!sonde_source_about(e->in.source)->n_train) {
        tool_note(e->t, "nothing to train on: no row for permuted weights");
        return SONDE_OK;
    }
    enum sonde_code code = open_twin(e, &w, err);
    if (!code)
        code = train(e, &w, err);
    if (!code) {
        const sonde_metrics *m = w.metrics;
        json_t *row = json_pack("{s:s, s:I, s:f, s:f, s:f}", "name", "permuted weights", "n_training_tokens",
                                (json_int_t)w.options.n_tokens, "l0", m->l0, "explained_variance",
                                m->explained_variance, "mse", m->mse);
        if (json_array_append_new(json_object_get(e->out, "baselines"), row))
            code = sonde_fail(err, SONDE_E_MEMORY, "no memory for the result");
    }
    close_twin(&w);
    return code;
}
