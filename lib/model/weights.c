/* SPDX-License-Identifier: MIT
 * Every tensor of a family: found, checked against the config, converted, packed. */
#include "weights_impl.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../num/convert.h"

#define SLAB_ROWS  64
#define SLAB_BYTES ((size_t)8 << 20) /* of mapped floats, after which their pages may go */

struct loader {
    sonde_model *m;
    const struct source *source;
    const char *prefix;
    unsigned char *used;  /* [n_tensors] */
    sonde_arena *scratch; /* conversion buffers of one tensor */
    bool strict;
};

/* ---- names and shapes -------------------------------------------------------------------------- */

static const struct tensor_rule *rule_for(const struct family *f, enum slot slot)
{
    for (size_t i = 0; i < f->n_rules; i++)
        if (f->rule[i].slot == slot)
            return &f->rule[i];
    return NULL;
}

static void tensor_name(const struct loader *ld, const struct tensor_rule *r, size_t layer, char *out,
                        size_t n)
{
    const char *prefix = ld->prefix, *name = r->name;
    if (*name == '/') {
        prefix = "";
        name++;
    }
    const char *hole = strstr(name, "%zu");
    if (hole)
        snprintf(out, n, "%s%.*s%zu%s", prefix, (int)(hole - name), name, layer, hole + 3);
    else
        snprintf(out, n, "%s%s", prefix, name);
}

/* The tensor for a slot; *out NULL when the family has none, or it is optional and absent. */
static enum sonde_code find(struct loader *ld, enum slot slot, size_t layer, const struct tensor_rule **rule,
                            const sonde_tensor **out, sonde_err *err)
{
    char name[256];
    *out = NULL;
    *rule = rule_for(ld->source->family, slot);
    if (!*rule)
        return SONDE_OK;
    tensor_name(ld, *rule, layer, name, sizeof name);
    const sonde_tensor *t = sonde_tensors_find(ld->m->file, name);
    if (!t)
        return (*rule)->optional
                   ? SONDE_OK
                   : sonde_fail(err, SONDE_E_INPUT, "%s: tensor '%s' is missing; the config asks for it",
                                ld->m->path, name);
    ld->used[t - ld->m->file->tensor] = 1;
    ld->m->n_parameters += sonde_tensor_count(t);
    *out = t;
    return SONDE_OK;
}

static enum sonde_code check_shape(const struct loader *ld, const sonde_tensor *t, int rank,
                                   const uint64_t *dim, sonde_err *err)
{
    char have[128], want[128];
    if (t->rank == rank && !memcmp(t->dim, dim, (size_t)rank * sizeof *dim))
        return SONDE_OK;
    return sonde_fail(err, SONDE_E_INPUT, "%s: tensor '%s' has shape %s, this config needs %s", ld->m->path,
                      t->name, sonde_shape_text(t->dim, t->rank, have, sizeof have),
                      sonde_shape_text(dim, rank, want, sizeof want));
}

/* Weights are floating point: integers are packed or quantised by a scheme that the config would have to
 * explain. */
static enum sonde_code check_type(const struct loader *ld, const sonde_tensor *t, sonde_err *err)
{
    switch (t->dtype) {
    case SONDE_F32:
    case SONDE_F16:
    case SONDE_BF16:
    case SONDE_F64:
    case SONDE_Q8_0:
        return SONDE_OK;
    default:
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: tensor '%s' has type %s; weights are read from F32, F16, BF16, F64 and Q8_0",
                          ld->m->path, t->name, t->type_name);
    }
}

/* ---- conversion -------------------------------------------------------------------------------- */

static enum sonde_code to_f32(const struct loader *ld, const sonde_tensor *t, size_t first, size_t n,
                              float *out, sonde_err *err)
{
    enum sonde_code code = sonde_tensor_to_f32(t, first, n, out, err);
    if (!code && ld->strict && !sonde_all_finite(ld->m->kernels, n, out))
        code = sonde_fail(err, SONDE_E_NUMERIC, "%s: tensor '%s' holds NaN or infinity in elements %zu..%zu",
                          ld->m->path, t->name, first, first + n - 1);
    return code;
}

/* A vector of n floats in the model's arena; NULL stays NULL when the tensor is absent. Its shape is [n], or
 * [rows, n / rows] (biases of heads; positions always); rows 0: [n] only. */
static enum sonde_code load_vector(struct loader *ld, enum slot slot, size_t layer, size_t n, size_t rows,
                                   float **out, sonde_err *err)
{
    const struct tensor_rule *rule;
    const sonde_tensor *t;
    enum sonde_code code;
    uint64_t dim[2] = {n, 0};
    *out = NULL;
    if ((code = find(ld, slot, layer, &rule, &t, err)) || !t)
        return code;
    if (rows && (t->rank == 2 || slot == SLOT_POSITION))
        dim[0] = rows, dim[1] = n / rows;
    if ((code = check_shape(ld, t, dim[1] ? 2 : 1, dim, err)) || (code = check_type(ld, t, err)))
        return code;
    float *v = sonde_arena_get(ld->m->arena, n, sizeof *v, err);
    if (!v)
        return SONDE_E_MEMORY;
    if ((code = to_f32(ld, t, 0, n, v, err)))
        return code;
    *out = v;
    return SONDE_OK;
}

/* A norm's weights; gamma is stored as the factor itself. */
static enum sonde_code load_affine(struct loader *ld, enum slot w, enum slot b, size_t layer, size_t n,
                                   sonde_affine *out, sonde_err *err)
{
    enum sonde_code code = load_vector(ld, w, layer, n, 0, &out->gamma, err);
    if (!code && b != N_SLOTS)
        code = load_vector(ld, b, layer, n, 0, &out->beta, err);
    for (size_t i = 0; !code && out->gamma && ld->m->arch.norm_plus_one && i < n; i++)
        out->gamma[i] = 1 + out->gamma[i];
    return code;
}

/* Which row of the file holds output j of a slot whose outputs are heads of width dh? */
struct row_map {
    bool by_head, interleaved; /* see LAYOUT_BY_HEAD; see struct source */
    size_t dh, n_heads;
};

static size_t source_row(const struct row_map *map, size_t j)
{
    if (map->by_head) { /* j = part * H dh + head * dh + i  ->  head * 3 dh + part * dh + i */
        size_t part = j / (map->n_heads * map->dh), head = j / map->dh % map->n_heads, i = j % map->dh;
        return (head * 3 + part) * map->dh + i;
    }
    if (map->interleaved) { /* half-split i, i + dh/2  ->  neighbours 2i, 2i + 1 */
        size_t head = j / map->dh, i = j % map->dh, half = map->dh / 2;
        return head * map->dh + (i < half ? 2 * i : 2 * (i - half) + 1);
    }
    return j;
}

static bool is_identity(const struct row_map *map)
{
    return !map->by_head && !map->interleaved;
}

/* ---- packing ----------------------------------------------------------------------------------- */

/* Everything about one matrix on its way into columns [n0, n0 + n) of `to`. */
struct piece {
    const sonde_tensor *t;
    enum layout layout;
    size_t k, n, n0, heads;
    const sonde_packed *to;
    struct row_map map;
};

static enum sonde_code check_piece(const struct loader *ld, const struct piece *p, sonde_err *err)
{
    uint64_t dim[3];
    int rank = 2;
    switch (p->layout) {
    case LAYOUT_IN_OUT:
        dim[0] = p->k, dim[1] = p->n;
        break;
    case LAYOUT_HEADS_IN:
        rank = 3, dim[0] = p->heads, dim[1] = p->k, dim[2] = p->n / p->heads;
        break;
    case LAYOUT_HEADS_OUT:
        rank = 3, dim[0] = p->heads, dim[1] = p->k / p->heads, dim[2] = p->n;
        break;
    default:
        dim[0] = p->n, dim[1] = p->k;
    }
    enum sonde_code code = check_shape(ld, p->t, rank, dim, err);
    return code ? code : check_type(ld, p->t, err);
}

static bool aligned_f32(const sonde_tensor *t)
{
    return t->dtype == SONDE_F32 && (uintptr_t)t->data % sizeof(float) == 0;
}

/* Pages already packed need not stay in memory; the embedding is read again, a row at a time. */
static void forget(const struct loader *ld, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < ld->m->file->n_maps; i++) {
        const sonde_map *map = ld->m->file->map[i];
        if (p >= map->data && p < map->data + map->n_bytes)
            sonde_map_forget(map, (size_t)(p - map->data), n);
    }
}

/* Rows of an [out, in] file of floats, as they lie there. */
static void pack_mapped(const struct loader *ld, const struct piece *p)
{
    const float *w = p->t->data;
    size_t step = SLAB_BYTES / (p->k * sizeof *w) / SLAB_ROWS * SLAB_ROWS;
    step = step ? step : SLAB_ROWS;
    for (size_t j = 0; j < p->n; j += step) {
        size_t n = p->n - j < step ? p->n - j : step;
        sonde_pack(p->to, 0, p->k, p->n0 + j, n, w + j * p->k, 1, p->k);
        forget(ld, w + j * p->k, n * p->k * sizeof *w);
    }
}

/* Rows of an [out, in] file, SLAB_ROWS at a time. */
static enum sonde_code pack_out_in(const struct loader *ld, const struct piece *p, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    if (aligned_f32(p->t) && is_identity(&p->map) && !ld->strict) {
        pack_mapped(ld, p);
        return SONDE_OK;
    }
    float *rows = sonde_arena_get(ld->scratch, SLAB_ROWS * p->k, sizeof *rows, err);
    if (!rows)
        return SONDE_E_MEMORY;
    for (size_t j = 0; j < p->n && !code; j += SLAB_ROWS) {
        size_t n = p->n - j < SLAB_ROWS ? p->n - j : SLAB_ROWS;
        for (size_t i = 0; i < n && !code; i++)
            code = to_f32(ld, p->t, source_row(&p->map, j + i) * p->k, p->k, rows + i * p->k, err);
        if (!code)
            sonde_pack(p->to, 0, p->k, p->n0 + j, n, rows, 1, p->k);
    }
    return code;
}

/* Rows of an [in, out] file from element `first` of the tensor. */
static enum sonde_code pack_in_out(const struct loader *ld, const struct piece *p, size_t first, size_t n0,
                                   size_t n, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    if (aligned_f32(p->t) && !ld->strict) {
        sonde_pack(p->to, 0, p->k, n0, n, (const float *)p->t->data + first, n, 1);
        return SONDE_OK;
    }
    float *rows = sonde_arena_get(ld->scratch, SLAB_ROWS * n, sizeof *rows, err);
    if (!rows)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < p->k && !code; i += SLAB_ROWS) {
        size_t k = p->k - i < SLAB_ROWS ? p->k - i : SLAB_ROWS;
        code = to_f32(ld, p->t, first + i * n, k * n, rows, err);
        if (!code)
            sonde_pack(p->to, i, k, n0, n, rows, n, 1);
    }
    return code;
}

static enum sonde_code pack_piece(const struct loader *ld, const struct piece *p, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    if (p->layout == LAYOUT_IN_OUT || p->layout == LAYOUT_HEADS_OUT)
        return pack_in_out(ld, p, 0, p->n0, p->n, err);
    if (p->layout != LAYOUT_HEADS_IN)
        return pack_out_in(ld, p, err);
    size_t dh = p->n / p->heads;
    for (size_t h = 0; h < p->heads && !code; h++)
        code = pack_in_out(ld, p, h * p->k * dh, p->n0 + h * dh, dh, err);
    return code;
}

static enum sonde_code new_packed(struct loader *ld, size_t k, size_t n, sonde_packed *out, sonde_err *err)
{
    size_t floats = sonde_packed_floats(ld->m->kernels, k, n);
    float *data = floats ? sonde_arena_get(ld->m->arena, floats, sizeof *data, err) : NULL;
    if (!data)
        return floats ? SONDE_E_MEMORY
                      : sonde_fail(err, SONDE_E_MEMORY, "%s: a matrix of [%zu, %zu] is too large",
                                   ld->m->path, k, n);
    *out = (sonde_packed){.kernels = ld->m->kernels, .k = k, .n = n, .data = data};
    return SONDE_OK;
}

/* One weight slot and its bias slot, for columns [n0, n0 + n) of a matrix. */
struct target {
    enum slot w, b;
    size_t n0, n, heads;
    bool rotary;
};

/* Find the tensor and check it: nothing is allocated for a matrix that the file does not hold. */
static enum sonde_code plan_piece(struct loader *ld, const struct target *g, size_t layer, size_t k,
                                  struct piece *p, sonde_err *err)
{
    const struct tensor_rule *rule;
    const sonde_arch *a = &ld->m->arch;
    enum sonde_code code;
    *p = (struct piece){.k = k, .n = g->n, .n0 = g->n0, .heads = g->heads};
    if ((code = find(ld, g->w, layer, &rule, &p->t, err)))
        return code;
    if (!p->t)
        return sonde_fail(err, SONDE_E_INPUT, "%s: the family '%s' has no tensor for a part of layer %zu",
                          ld->m->path, a->family, layer);
    p->layout = rule->layout;
    p->map = (struct row_map){.by_head = rule->layout == LAYOUT_BY_HEAD,
                              .interleaved = g->rotary && ld->source->interleaved_rope,
                              .dh = a->d_head,
                              .n_heads = a->n_heads};
    return check_piece(ld, p, err);
}

/* The bias of a piece into bias[n0 .. n0 + n). A missing one leaves zeros and *any alone. */
static enum sonde_code load_bias(struct loader *ld, const struct target *g, const struct piece *p,
                                 size_t layer, float *bias, bool *any, sonde_err *err)
{
    float *b;
    bool by_head = g->b == SLOT_Q_B || g->b == SLOT_K_B || g->b == SLOT_V_B;
    enum sonde_code code = load_vector(ld, g->b, layer, g->n, by_head ? g->heads : 0, &b, err);
    if (code || !b)
        return code;
    for (size_t j = 0; j < g->n; j++)
        bias[g->n0 + j] = b[source_row(&p->map, j)];
    *any = true;
    return SONDE_OK;
}

#define MAX_PARTS 3

static enum sonde_code load_linear(struct loader *ld, const struct target *part, size_t n_parts, size_t layer,
                                   size_t k, size_t n, sonde_packed *out, float **out_bias, sonde_err *err)
{
    struct piece piece[MAX_PARTS];
    enum sonde_code code = SONDE_OK;
    bool any = false;
    for (size_t i = 0; i < n_parts && !code; i++)
        code = plan_piece(ld, &part[i], layer, k, &piece[i], err);
    if (code || (code = new_packed(ld, k, n, out, err)))
        return code;
    float *bias = sonde_arena_get(ld->m->arena, n, sizeof *bias, err);
    if (!bias)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < n_parts && !code; i++) {
        piece[i].to = out;
        code = pack_piece(ld, &piece[i], err);
        if (!code)
            code = load_bias(ld, &part[i], &piece[i], layer, bias, &any, err);
    }
    *out_bias = any ? bias : NULL;
    return code;
}

/* ---- a layer ----------------------------------------------------------------------------------- */

static enum sonde_code load_attention(struct loader *ld, sonde_layer *y, size_t layer, sonde_err *err)
{
    const sonde_arch *a = &ld->m->arch;
    size_t q = a->n_heads * a->d_head, kv = a->n_kv_heads * a->d_head;
    const struct target split[] = {{SLOT_Q, SLOT_Q_B, 0, q, a->n_heads, true},
                                   {SLOT_K, SLOT_K_B, q, kv, a->n_kv_heads, true},
                                   {SLOT_V, SLOT_V_B, q + kv, kv, a->n_kv_heads, false}};
    const struct target fused[] = {{SLOT_QKV, SLOT_QKV_B, 0, q + 2 * kv, a->n_heads, false}};
    const struct target o[] = {{SLOT_O, SLOT_O_B, 0, a->d_model, a->n_heads, false}};
    bool is_fused = rule_for(ld->source->family, SLOT_QKV);
    enum sonde_code code = load_linear(ld, is_fused ? fused : split, is_fused ? 1 : 3, layer, a->d_model,
                                       q + 2 * kv, &y->qkv, &y->qkv_bias, err);
    if (!code)
        code = load_linear(ld, o, 1, layer, q, a->d_model, &y->o, &y->o_bias, err);
    sonde_affine norm = {0};
    if (!code && a->qk_norm && !(code = load_affine(ld, SLOT_Q_NORM, N_SLOTS, layer, a->d_head, &norm, err)))
        y->q_norm = norm.gamma;
    if (!code && a->qk_norm && !(code = load_affine(ld, SLOT_K_NORM, N_SLOTS, layer, a->d_head, &norm, err)))
        y->k_norm = norm.gamma;
    return code;
}

static enum sonde_code load_mlp(struct loader *ld, sonde_layer *y, size_t layer, sonde_err *err)
{
    const sonde_arch *a = &ld->m->arch;
    size_t d = a->d_model, m = a->d_mlp;
    const struct target plain[] = {{SLOT_IN, SLOT_IN_B, 0, m, 1, false}};
    const struct target gated[] = {{SLOT_GATE, SLOT_GATE_B, 0, m, 1, false},
                                   {SLOT_IN, SLOT_IN_B, m, m, 1, false}};
    const struct target out[] = {{SLOT_OUT, SLOT_OUT_B, 0, d, 1, false}};
    enum sonde_code code = load_linear(ld, a->gated ? gated : plain, a->gated ? 2 : 1, layer, d,
                                       a->gated ? 2 * m : m, &y->in, &y->in_bias, err);
    if (!code)
        code = load_linear(ld, out, 1, layer, m, d, &y->out, &y->out_bias, err);
    if (!code && a->solu_ln)
        code = load_affine(ld, SLOT_MLP_LN_W, SLOT_MLP_LN_B, layer, m, &y->mlp_ln, err);
    return code;
}

static enum sonde_code load_norms(struct loader *ld, sonde_layer *y, size_t layer, sonde_err *err)
{
    const sonde_arch *a = &ld->m->arch;
    enum sonde_code code = SONDE_OK;
    if (!a->norm || !a->norm_affine)
        return SONDE_OK;
    enum slot b1 = a->norm == SONDE_NORM_LAYER ? SLOT_LN1_B : N_SLOTS,
              b2 = a->norm == SONDE_NORM_LAYER ? SLOT_LN2_B : N_SLOTS;
    code = load_affine(ld, SLOT_LN1_W, b1, layer, a->d_model, &y->ln1, err);
    if (!code && a->d_mlp)
        code = load_affine(ld, SLOT_LN2_W, b2, layer, a->d_model, &y->ln2, err);
    if (!code && a->post_norms)
        code = load_affine(ld, SLOT_LN1_POST_W, N_SLOTS, layer, a->d_model, &y->ln1_post, err);
    if (!code && a->post_norms)
        code = load_affine(ld, SLOT_LN2_POST_W, N_SLOTS, layer, a->d_model, &y->ln2_post, err);
    return code;
}

static enum sonde_code load_layer(struct loader *ld, sonde_layer *y, size_t layer, sonde_err *err)
{
    enum sonde_code code = load_norms(ld, y, layer, err);
    if (!code)
        code = load_attention(ld, y, layer, err);
    if (!code && ld->m->arch.d_mlp)
        code = load_mlp(ld, y, layer, err);
    return code;
}

/* ---- the ends ---------------------------------------------------------------------------------- */

/* The embedding is packed only where it is tied; otherwise nothing else looks at all its values. */
static enum sonde_code check_embedding(struct loader *ld, sonde_err *err)
{
    const sonde_arch *a = &ld->m->arch;
    enum sonde_code code = SONDE_OK;
    float *row = ld->strict ? sonde_arena_get(ld->scratch, a->d_model, sizeof *row, err) : NULL;
    if (ld->strict && !row)
        return SONDE_E_MEMORY;
    for (size_t i = 0; ld->strict && i < a->n_vocab && !code; i++)
        code = to_f32(ld, &ld->m->embed, i * a->d_model, a->d_model, row, err);
    return code;
}

static enum sonde_code load_embedding(struct loader *ld, sonde_err *err)
{
    const sonde_arch *a = &ld->m->arch;
    const struct tensor_rule *rule;
    const sonde_tensor *t;
    uint64_t dim[2] = {a->n_vocab, a->d_model};
    enum sonde_code code;
    if ((code = find(ld, SLOT_EMBED, 0, &rule, &t, err)) || (code = check_shape(ld, t, 2, dim, err)) ||
        (code = check_type(ld, t, err)))
        return code;
    ld->m->embed = *t;
    return check_embedding(ld, err);
}

static enum sonde_code load_positions(struct loader *ld, sonde_err *err)
{
    const sonde_arch *a = &ld->m->arch;
    if (a->positions != SONDE_POS_LEARNED && a->positions != SONDE_POS_SHORTFORMER)
        return SONDE_OK;
    enum sonde_code code =
        load_vector(ld, SLOT_POSITION, 0, a->n_ctx * a->d_model, a->n_ctx, &ld->m->position, err);
    if (!code && !ld->m->position)
        code = sonde_fail(err, SONDE_E_INPUT, "%s: the family '%s' has no position embeddings", ld->m->path,
                          a->family);
    return code;
}

/* The unembedding: its own tensor, or the embedding again. */
static enum sonde_code find_unembedding(struct loader *ld, struct piece *p, sonde_err *err)
{
    const sonde_model *m = ld->m;
    const struct target own = {SLOT_UNEMBED, SLOT_UNEMBED_B, 0, m->arch.n_vocab_out, 1, false};
    *p = (struct piece){
        .t = &m->embed, .layout = LAYOUT_OUT_IN, .k = m->arch.d_model, .n = m->arch.n_vocab_out, .heads = 1};
    return m->arch.tied ? SONDE_OK : plan_piece(ld, &own, 0, m->arch.d_model, p, err);
}

static enum sonde_code load_unembedding(struct loader *ld, sonde_err *err)
{
    struct piece p;
    sonde_packed packed;
    enum sonde_code code = find_unembedding(ld, &p, err);
    if (code || (code = new_packed(ld, p.k, p.n, &packed, err)))
        return code;
    p.to = &packed;
    if (!(code = pack_piece(ld, &p, err)))
        ld->m->unembed = packed;
    return code;
}

static enum sonde_code load_final_norm(struct loader *ld, sonde_err *err)
{
    const sonde_arch *a = &ld->m->arch;
    if (!a->final_norm || !a->norm_affine)
        return SONDE_OK;
    return load_affine(ld, SLOT_LN_FINAL_W, a->final_norm == SONDE_NORM_LAYER ? SLOT_LN_FINAL_B : N_SLOTS, 0,
                       a->d_model, &ld->m->ln_final, err);
}

/* ---- all --------------------------------------------------------------------------------------- */

static enum sonde_code choose_prefix(struct loader *ld, sonde_err *err)
{
    const struct family *f = ld->source->family;
    const struct tensor_rule *r = rule_for(f, SLOT_EMBED);
    char name[256];
    for (const char *const *p = f->prefix; *p; p++) {
        ld->prefix = *p;
        tensor_name(ld, r, 0, name, sizeof name);
        if (sonde_tensors_find(ld->m->file, name))
            return SONDE_OK;
    }
    ld->prefix = f->prefix[0];
    tensor_name(ld, r, 0, name, sizeof name);
    return sonde_fail(err, SONDE_E_INPUT, "%s: tensor '%s' is missing; is this a model of the family '%s'?",
                      ld->m->path, name, ld->m->arch.family);
}

static bool ignored(const struct family *family, const sonde_arch *arch, const char *name)
{
    for (const char *const *g = family->ignore; *g; g++)
        if (!fnmatch(*g, name, 0))
            return true;
    return arch->tied && strstr(name, "lm_head.weight");
}

bool sonde_model_ignores(const sonde_arch *arch, const char *tensor_name)
{
    const struct family *family = family_find(arch->family);
    return family && ignored(family, arch, tensor_name);
}

static void count_unused(struct loader *ld)
{
    for (size_t i = 0; i < ld->m->file->n_tensors; i++) {
        const char *name = ld->m->file->tensor[i].name;
        if (ld->used[i] || ignored(ld->source->family, &ld->m->arch, name))
            continue;
        if (!ld->m->n_unused++)
            ld->m->first_unused = name;
    }
}

static void forget_all(struct loader *ld)
{
    for (size_t i = 0; i < ld->m->file->n_maps; i++)
        sonde_map_forget(ld->m->file->map[i], 0, ld->m->file->map[i]->n_bytes);
}

/* Everything but the matrix of the unembedding, whose tensor is only looked up. */
static enum sonde_code load_ends(struct loader *ld, sonde_err *err)
{
    struct piece p;
    enum sonde_code code = load_final_norm(ld, err);
    if (!code)
        code = find_unembedding(ld, &p, err);
    return code ? code
                : load_vector(ld, SLOT_UNEMBED_B, 0, ld->m->arch.n_vocab_out, 0, &ld->m->unembed_bias, err);
}

enum sonde_code weights_load_unembed(sonde_model *m, const sonde_work *work, bool strict, sonde_err *err)
{
    struct loader ld = {.m = m, .source = m->source, .strict = strict};
    uint64_t n_parameters = m->n_parameters; /* they were counted when the model was opened */
    enum sonde_code code = SONDE_E_MEMORY;
    ld.used = calloc(m->file->n_tensors + 1, 1);
    ld.scratch = sonde_arena_new(work ? work->budget : NULL, err);
    if (!ld.used)
        sonde_fail(err, SONDE_E_MEMORY, "no memory for the tensor table");
    else if (ld.scratch && !(code = choose_prefix(&ld, err)))
        code = load_unembedding(&ld, err);
    m->n_parameters = n_parameters;
    forget_all(&ld);
    sonde_arena_free(ld.scratch);
    free(ld.used);
    return code;
}

enum sonde_code weights_load(sonde_model *m, const sonde_work *work, bool strict, sonde_err *err)
{
    struct loader ld = {.m = m, .source = m->source, .strict = strict};
    enum sonde_code code;
    ld.used = calloc(m->file->n_tensors + 1, 1);
    ld.scratch = sonde_arena_new(work ? work->budget : NULL, err);
    m->layer = sonde_arena_get(m->arena, m->arch.n_layers, sizeof *m->layer, err);
    if (!ld.used || !ld.scratch || !m->layer) {
        code = ld.used ? SONDE_E_MEMORY : sonde_fail(err, SONDE_E_MEMORY, "no memory for the tensor table");
        goto out;
    }
    if ((code = choose_prefix(&ld, err)) || (code = load_embedding(&ld, err)) ||
        (code = load_positions(&ld, err)))
        goto out;
    for (size_t l = 0; l < m->arch.n_layers; l++) {
        if ((code = load_layer(&ld, &m->layer[l], l, err)))
            goto out;
        sonde_arena_reset(ld.scratch);
        forget_all(&ld);
        sonde_work_report(work, "loading", "layers", l + 1, m->arch.n_layers);
    }
    if ((code = load_ends(&ld, err)))
        goto out;
    forget_all(&ld);
    count_unused(&ld);
out:
    sonde_arena_free(ld.scratch);
    free(ld.used);
    return code;
}
