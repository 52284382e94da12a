/* SPDX-License-Identifier: MIT
 * openai/sparse_autoencoder: one file of torch.save. Those with TopK normalise each row before they encode:
 * (x - mean) / (std + 1e-5), std over d - 1; those with ReLU do not. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../file/torchzip.h"
#include "format_impl.h"

#define WEIGHTS  "autoencoder.pt"
#define LN_EPS   1e-5f
#define FREQ_EPS 1e-10 /* as SAELens takes the logarithm of a frequency */

static bool probe(const char *path)
{
    static const char *const words[] = {"/data.pkl", "pre_bias", "latent_bias", "encoder.weight", NULL};
    return sonde_dict_is_dir(path) ? sonde_dict_has(path, WEIGHTS) : sonde_dict_mentions(path, words);
}

/* The file that the path means: itself, or autoencoder.pt in it. */
static enum sonde_code file_of(const char *path, bool is_dir, char **out, sonde_err *err)
{
    if (is_dir)
        return sonde_dict_join(path, WEIGHTS, out, err);
    *out = strdup(path);
    return *out ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the path", path);
}

struct activation {
    enum sonde_dict_act act;
    size_t k;
};

static enum sonde_code read_activation(const sonde_tensors *f, const char *path, struct activation *a,
                                       sonde_err *err)
{
    const sonde_meta *name = sonde_meta_find(f, "activation"),
                     *k = sonde_meta_find(f, "activation_state_dict.k");
    const sonde_meta *post = sonde_meta_find(f, "activation_state_dict.postact_fn");
    if (!name || (name->type == SONDE_META_STRING && !strcmp(name->s, "ReLU"))) {
        a->act = SONDE_DICT_RELU;
        return SONDE_OK;
    }
    if (name->type != SONDE_META_STRING || strcmp(name->s, "TopK") != 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: activation '%.40s' is not read; TopK and ReLU are", path,
                          name->type == SONDE_META_STRING ? name->s : "?");
    if (!k || k->type != SONDE_META_INT || k->i < 1 || k->i > SONDE_DICT_MAX_SIZE)
        return sonde_fail(err, SONDE_E_INPUT, "%s: its TopK has no k of at least 1", path);
    if (post && (post->type != SONDE_META_STRING || strcmp(post->s, "ReLU") != 0))
        return sonde_fail(err, SONDE_E_INPUT, "%s: TopK followed by '%.40s' is not read; by ReLU it is", path,
                          post->type == SONDE_META_STRING ? post->s : "?");
    a->act = SONDE_DICT_TOPK;
    a->k = (size_t)k->i;
    return SONDE_OK;
}

/* Frequencies in [0, 1]; all 1 is what they are before any training. */
static enum sonde_code read_sparsity(const sonde_tensors *f, const char *path, sonde_dict *d, sonde_err *err)
{
    static const char name[] = "latents_activation_frequency";
    if (!sonde_tensors_find(f, name))
        return SONDE_OK;
    float *x = sonde_arena_get(d->arena, d->n_latents, sizeof *x, err);
    if (!x)
        return SONDE_E_MEMORY;
    enum sonde_code rc = sonde_dict_read_vector(f, path, name, d->n_latents, x, err);
    bool known = false, sound = true;
    for (size_t i = 0; i < d->n_latents && !rc; i++) {
        known = known || x[i] != 1;
        sound = sound && x[i] >= 0 && x[i] <= 1;
        x[i] = (float)log10((double)x[i] + FREQ_EPS);
    }
    if (!rc && known && sound)
        d->sparsity = x;
    return rc;
}

static enum sonde_code read_arrays(const sonde_tensors *f, const char *path, sonde_dict *d, sonde_err *err)
{
    size_t n = d->n_latents;
    enum sonde_code rc = sonde_dict_read_matrix(f, path, "encoder.weight", n, d->d_in, d->w_enc, err);
    if (!rc)
        rc = sonde_dict_read_transposed(f, path, "decoder.weight", d->d_in, n, d->w_dec, err);
    if (!rc)
        rc = sonde_dict_read_vector(f, path, "latent_bias", n, d->b_enc, err);
    if (!rc)
        rc = sonde_dict_read_vector(f, path, "pre_bias", d->d_in, d->b_dec, err);
    return rc ? rc : read_sparsity(f, path, d, err);
}

static enum sonde_code build(const sonde_tensors *f, const char *path, sonde_budget *budget, sonde_dict **out,
                             sonde_err *err)
{
    struct activation a = {0};
    size_t n = 0, width = 0;
    sonde_dict *d = NULL;
    enum sonde_code rc = read_activation(f, path, &a, err);
    if (!rc)
        rc = sonde_dict_matrix(f, path, "encoder.weight", &n, &width, err);
    if (!rc)
        rc = sonde_dict_new(a.act, width, width, n, false, budget, &d, err);
    if (rc)
        return rc;
    d->k = a.k;
    d->pre_bias = true;
    if (a.act == SONDE_DICT_TOPK) {
        d->norm = SONDE_DICT_NORM_LAYER;
        d->norm_unbiased = true;
        d->norm_eps = LN_EPS;
    }
    d->trained_as = a.act == SONDE_DICT_TOPK ? "topk" : "standard";
    rc = read_arrays(f, path, d, err);
    if (rc)
        sonde_dict_free(d);
    else
        *out = d;
    return rc;
}

static enum sonde_code read(const char *path, sonde_budget *budget, sonde_dict **out,
                            char note[SONDE_DICT_NOTE], sonde_err *err)
{
    char *file = NULL;
    sonde_tensors *f = NULL;
    enum sonde_code rc = file_of(path, sonde_dict_is_dir(path), &file, err);
    if (!rc)
        rc = sonde_torchzip_open(file, budget, &f, err);
    if (!rc)
        rc = build(f, file, budget, out, err);
    if (!rc)
        sonde_dict_note(note, "the file names neither model nor hook");
    sonde_tensors_close(f);
    free(file);
    return rc;
}

/* ---- writing ------------------------------------------------------------------------------------- */

static enum sonde_code check_writable(const sonde_dict *d, const char *path, sonde_err *err)
{
    bool layer = d->norm == SONDE_DICT_NORM_LAYER && d->norm_unbiased && fabsf(d->norm_eps - LN_EPS) <= 1e-9f;
    bool topk = d->act == SONDE_DICT_TOPK && layer;
    bool relu = d->act == SONDE_DICT_RELU && d->norm == SONDE_DICT_NORM_NONE;
    if (d->d_in != d->d_out || d->w_skip)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: openai's format holds autoencoders only; saelens holds this", path);
    if (!topk && !relu)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: openai's format holds topk of layer_norm'ed rows and relu of plain ones, not "
                          "this %s; saelens does",
                          path, sonde_dict_act_name(d->act));
    return SONDE_OK;
}

/* What its strict loader wants beside the weights: when each latent last fired, how often, how strongly. */
struct statistics {
    int64_t *last_nonzero;
    float *frequency, *mean_square;
};

static enum sonde_code make_statistics(const sonde_dict *d, struct statistics *s, sonde_err *err)
{
    size_t n = d->n_latents;
    s->last_nonzero = calloc(n, sizeof *s->last_nonzero);
    s->frequency = calloc(n, sizeof *s->frequency);
    s->mean_square = calloc(n, sizeof *s->mean_square);
    if (!s->last_nonzero || !s->frequency || !s->mean_square)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for statistics of %zu latents", n);
    for (size_t i = 0; i < n; i++) {
        double p = d->sparsity ? pow(10, (double)d->sparsity[i]) - FREQ_EPS : 1;
        s->frequency[i] = (float)fmin(fmax(p, 0), 1);
        s->mean_square[i] = 1;
    }
    return SONDE_OK;
}

static enum sonde_code write_file(const sonde_dict *d, const char *file, bool overwrite, sonde_err *err)
{
    struct statistics s = {0};
    float *decoder = NULL;
    size_t n = d->n_latents, width = d->d_in;
    bool topk = d->act == SONDE_DICT_TOPK;
    enum sonde_code rc = make_statistics(d, &s, err);
    if (!rc)
        rc = sonde_dict_transpose(d->w_dec, n, width, &decoder, err);
    if (!rc) {
        const sonde_tensor t[] = {
            sonde_dict_tensor("pre_bias", d->b_dec, width, 0),
            sonde_dict_tensor("latent_bias", d->b_enc, n, 0),
            {.name = "stats_last_nonzero",
             .dtype = SONDE_I64,
             .rank = 1,
             .dim = {n},
             .data = s.last_nonzero,
             .n_bytes = 8 * n},
            sonde_dict_tensor("latents_activation_frequency", s.frequency, n, 0),
            sonde_dict_tensor("latents_mean_square", s.mean_square, n, 0),
            sonde_dict_tensor("encoder.weight", d->w_enc, n, width),
            sonde_dict_tensor("decoder.weight", decoder, width, n),
        };
        const char *name = topk ? "TopK" : "ReLU";
        const sonde_torch_value v[] = {
            {NULL, {.key = "activation", .type = SONDE_META_STRING, .s = name, .n_bytes = 4}},
            {"activation_state_dict", {.key = "k", .type = SONDE_META_INT, .i = (int64_t)d->k}},
            {"activation_state_dict",
             {.key = "postact_fn", .type = SONDE_META_STRING, .s = "ReLU", .n_bytes = 4}},
        };
        rc = sonde_torchzip_write(file, t, sizeof t / sizeof *t, v, topk ? 3 : 1, overwrite, err);
    }
    free(decoder);
    free(s.last_nonzero);
    free(s.frequency);
    free(s.mean_square);
    return rc;
}

/* PATH.pt is the file itself; any other path a directory for autoencoder.pt. */
static enum sonde_code write(const sonde_dict *d, const char *path, bool overwrite, sonde_err *err)
{
    static const char *const names[] = {WEIGHTS, NULL};
    char *file = NULL;
    const sonde_dict *use = d;
    sonde_dict *copy = NULL;
    bool is_dir = !sonde_dict_ends(path, ".pt") || sonde_dict_is_dir(path);
    enum sonde_code rc = check_writable(d, path, err);
    if (!rc)
        rc = sonde_dict_in_form(d, true, true, &use, &copy, err);
    if (!rc && is_dir)
        rc = sonde_dict_make_dir(path, names, overwrite, err);
    if (!rc)
        rc = file_of(path, is_dir, &file, err);
    if (!rc)
        rc = write_file(use, file, overwrite, err);
    sonde_dict_free(copy);
    free(file);
    return rc;
}

const sonde_dict_format sonde_format_openai = {"openai", "openai/sparse_autoencoder: one file of torch.save",
                                               probe, read, write};
