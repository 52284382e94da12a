/* SPDX-License-Identifier: MIT */
#include "permute.h"

#include "../base/rng.h"
#include "../base/size.h"
#include "weights_impl.h"

static void shuffle(float *x, size_t n, sonde_rng r)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)sonde_rng_below(&r, i);
        float t = x[i - 1];
        x[i - 1] = x[j];
        x[j] = t;
    }
}

/* Columns [n0, n0 + n) of a packed matrix, as [n, k]. */
static enum sonde_code permute_columns(const sonde_packed *w, size_t n0, size_t n, sonde_rng r,
                                       sonde_arena *scratch, sonde_err *err)
{
    size_t floats;
    if (!sonde_mul(&floats, n, w->k))
        return sonde_fail(err, SONDE_E_MEMORY, "a matrix of [%zu, %zu] is too large", w->k, n);
    sonde_arena_reset(scratch);
    float *x = sonde_arena_get(scratch, floats, sizeof *x, err);
    if (!x)
        return SONDE_E_MEMORY;
    for (size_t j = 0; j < n; j++)
        sonde_unpack_column(w, n0 + j, x + j * w->k);
    shuffle(x, floats, r);
    sonde_pack(w, 0, w->k, n0, n, x, 1, w->k);
    return SONDE_OK;
}

static enum sonde_code permute_layer(sonde_model *m, size_t l, const sonde_rng *root, sonde_arena *scratch,
                                     sonde_err *err)
{
    const sonde_arch *a = &m->arch;
    const sonde_layer *y = &m->layer[l];
    const size_t q = a->n_heads * a->d_head, k = a->n_kv_heads * a->d_head, up = a->gated ? a->d_mlp : 0;
    const struct {
        const char *name;
        const sonde_packed *w;
        size_t n0, n;
    } part[] = {
        {"W_Q", &y->qkv, 0, q},
        {"W_K", &y->qkv, q, k},
        {"W_V", &y->qkv, q + k, k},
        {"W_O", &y->o, 0, a->d_model},
        {"W_gate", &y->in, 0, up},
        {"W_in", &y->in, up, a->d_mlp},
        {"W_out", &y->out, 0, a->d_mlp ? a->d_model : 0},
    };
    enum sonde_code code = SONDE_OK;
    for (size_t i = 0; i < sizeof part / sizeof *part && !code; i++)
        if (part[i].n)
            code = permute_columns(part[i].w, part[i].n0, part[i].n, sonde_rng_fork(root, part[i].name, l),
                                   scratch, err);
    return code;
}

/* The embedding lies in the file: a copy of it in memory takes its place. */
static enum sonde_code permute_embedding(sonde_model *m, sonde_rng r, sonde_err *err)
{
    const size_t n = m->arch.n_vocab * m->arch.d_model;
    float *x = sonde_arena_get(m->arena, n, sizeof *x, err);
    if (!x)
        return SONDE_E_MEMORY;
    enum sonde_code code = sonde_tensor_to_f32(&m->embed, 0, n, x, err);
    if (code)
        return code;
    shuffle(x, n, r);
    m->embed.dtype = SONDE_F32;
    m->embed.type_name = "F32";
    m->embed.data = x;
    m->embed.n_bytes = n * sizeof *x;
    return SONDE_OK;
}

static enum sonde_code permute_ends(sonde_model *m, const sonde_rng *root, sonde_arena *scratch,
                                    sonde_err *err)
{
    const sonde_rng embed = sonde_rng_fork(root, "W_E", 0);
    const sonde_rng unembed = m->arch.tied ? embed : sonde_rng_fork(root, "W_U", 0);
    enum sonde_code code = SONDE_OK;
    if (!model_embeds_from_packed(m))
        code = permute_embedding(m, embed, err);
    if (!code)
        code = permute_columns(&m->unembed, 0, m->arch.n_vocab_out, unembed, scratch, err);
    if (!code && m->position)
        shuffle(m->position, m->arch.n_ctx * m->arch.d_model, sonde_rng_fork(root, "W_pos", 0));
    return code;
}

enum sonde_code sonde_model_permute(sonde_model *m, uint64_t seed, bool embeddings, sonde_err *err)
{
    const sonde_rng seeded = sonde_rng_seed(seed), root = sonde_rng_fork(&seeded, "permute", 0);
    enum sonde_code code = SONDE_OK;
    if (embeddings && !m->unembed.data)
        return sonde_fail(err, SONDE_E_USAGE, "%s: the unembedding is deferred; load it before permuting",
                          m->path);
    sonde_arena *scratch = sonde_arena_new(NULL, err);
    if (!scratch)
        return SONDE_E_MEMORY;
    for (size_t l = 0; l < m->arch.n_layers && !code; l++)
        code = permute_layer(m, l, &root, scratch, err);
    if (!code && embeddings)
        code = permute_ends(m, &root, scratch, err);
    sonde_arena_free(scratch);
    return code;
}
