/* SPDX-License-Identifier: MIT
 * llama2.c checkpoints: a short header, then float32 arrays in a fixed order that the header sizes exactly.
 */
#include "llama2c.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/size.h"
#include "tensors_impl.h"

#define MAGIC     0x616b3432u /* "ak42" */
#define V0_HEADER ((size_t)28)
#define V1_HEADER ((size_t)256)
#define V1_FIELDS ((size_t)37) /* magic, version, seven integers, one byte; zeros follow */
#define MAX_NAME  64

/* What a dimension of an array is. */
enum extent { NONE, DIM, HIDDEN, KV, VOCAB };

struct part {
    const char *name; /* after "model.layers.N." if per_layer */
    bool per_layer, only_untied;
    enum extent dim[2];
};

#define EMBED                                                                                                \
    {                                                                                                        \
        "model.embed_tokens.weight", false, false,                                                           \
        {                                                                                                    \
            VOCAB, DIM                                                                                       \
        }                                                                                                    \
    }
#define ATTN_NORM                                                                                            \
    {                                                                                                        \
        "input_layernorm.weight", true, false,                                                               \
        {                                                                                                    \
            DIM, NONE                                                                                        \
        }                                                                                                    \
    }
#define WQ                                                                                                   \
    {                                                                                                        \
        "self_attn.q_proj.weight", true, false,                                                              \
        {                                                                                                    \
            DIM, DIM                                                                                         \
        }                                                                                                    \
    }
#define WK                                                                                                   \
    {                                                                                                        \
        "self_attn.k_proj.weight", true, false,                                                              \
        {                                                                                                    \
            KV, DIM                                                                                          \
        }                                                                                                    \
    }
#define WV                                                                                                   \
    {                                                                                                        \
        "self_attn.v_proj.weight", true, false,                                                              \
        {                                                                                                    \
            KV, DIM                                                                                          \
        }                                                                                                    \
    }
#define WO                                                                                                   \
    {                                                                                                        \
        "self_attn.o_proj.weight", true, false,                                                              \
        {                                                                                                    \
            DIM, DIM                                                                                         \
        }                                                                                                    \
    }
#define FFN_NORM                                                                                             \
    {                                                                                                        \
        "post_attention_layernorm.weight", true, false,                                                      \
        {                                                                                                    \
            DIM, NONE                                                                                        \
        }                                                                                                    \
    }
#define W1                                                                                                   \
    {                                                                                                        \
        "mlp.gate_proj.weight", true, false,                                                                 \
        {                                                                                                    \
            HIDDEN, DIM                                                                                      \
        }                                                                                                    \
    }
#define W2                                                                                                   \
    {                                                                                                        \
        "mlp.down_proj.weight", true, false,                                                                 \
        {                                                                                                    \
            DIM, HIDDEN                                                                                      \
        }                                                                                                    \
    }
#define W3                                                                                                   \
    {                                                                                                        \
        "mlp.up_proj.weight", true, false,                                                                   \
        {                                                                                                    \
            HIDDEN, DIM                                                                                      \
        }                                                                                                    \
    }
#define NORM                                                                                                 \
    {                                                                                                        \
        "model.norm.weight", false, false,                                                                   \
        {                                                                                                    \
            DIM, NONE                                                                                        \
        }                                                                                                    \
    }
#define HEAD                                                                                                 \
    {                                                                                                        \
        "lm_head.weight", false, true,                                                                       \
        {                                                                                                    \
            VOCAB, DIM                                                                                       \
        }                                                                                                    \
    }
/* two tables of cosines and sines, seq_len * head_size / 2 each, which nobody reads any more */
#define ROPE_TABLES                                                                                          \
    {                                                                                                        \
        NULL, false, false,                                                                                  \
        {                                                                                                    \
            NONE, NONE                                                                                       \
        }                                                                                                    \
    }
#define N_PARTS 13

/* The order of the arrays; a per-layer array holds all its layers. Version 1 ends one part earlier. */
static const struct part order[2][N_PARTS] = {
    {EMBED, ATTN_NORM, WQ, WK, WV, WO, FFN_NORM, W1, W2, W3, NORM, ROPE_TABLES, HEAD},
    {ATTN_NORM, FFN_NORM, NORM, EMBED, WQ, WK, WV, WO, W1, W2, W3, HEAD},
};

static const char *const field_name[7] = {"dim",        "hidden_dim", "n_layers", "n_heads",
                                          "n_kv_heads", "vocab_size", "seq_len"};

static enum sonde_code check_header(const char *path, const sonde_llama2c *h, sonde_err *err)
{
    const int32_t field[7] = {h->dim,        h->hidden_dim, h->n_layers, h->n_heads,
                              h->n_kv_heads, h->vocab_size, h->seq_len};
    for (int i = 0; i < 7; i++)
        if (field[i] <= 0)
            return sonde_fail(err, SONDE_E_INPUT,
                              "%s: not a llama2.c checkpoint: %s is %" PRId32 ", it must be positive", path,
                              field_name[i], field[i]);
    if (h->dim % h->n_heads || h->dim / h->n_heads % 2)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: not a llama2.c checkpoint: dim %" PRId32 " over %" PRId32
                          " heads gives no even head size",
                          path, h->dim, h->n_heads);
    if (h->n_heads % h->n_kv_heads)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: not a llama2.c checkpoint: %" PRId32 " heads are no multiple of %" PRId32
                          " key-value heads",
                          path, h->n_heads, h->n_kv_heads);
    return SONDE_OK;
}

static enum sonde_code read_header(const sonde_map *m, sonde_llama2c *h, size_t *n_header, sonde_err *err)
{
    uint32_t magic = 0;
    int32_t field[7], version;
    if (m->n_bytes >= sizeof magic)
        memcpy(&magic, m->data, sizeof magic);
    bool v1 = magic == MAGIC;
    *n_header = v1 ? V1_HEADER : V0_HEADER;
    if (m->n_bytes < *n_header)
        return sonde_fail(err, SONDE_E_INPUT, "%s: a llama2.c header has %zu bytes, the file only %zu",
                          m->path, *n_header, m->n_bytes);
    memcpy(field, m->data + (v1 ? 8 : 0), sizeof field);
    *h = (sonde_llama2c){v1, field[0], field[1], field[2], field[3], field[4], field[5], field[6], true};
    if (!v1) {
        h->shared_classifier = field[5] > 0;
        if (field[5] < 0 && field[5] > INT32_MIN)
            h->vocab_size = -field[5];
        return check_header(m->path, h, err);
    }
    memcpy(&version, m->data + 4, sizeof version);
    if (version != 1)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: llama2.c version %" PRId32 "; export it again with --version 0 or 1 (float32)",
                          m->path, version);
    h->shared_classifier = m->data[V1_FIELDS - 1] == 1;
    for (size_t i = V1_FIELDS - 1; i < V1_HEADER; i++)
        if (m->data[i] > (i < V1_FIELDS ? 1 : 0))
            return sonde_fail(err, SONDE_E_INPUT, "%s: byte %zu of the llama2.c header is %u, it must be %s",
                              m->path, i, m->data[i], i < V1_FIELDS ? "0 or 1" : "0");
    return check_header(m->path, h, err);
}

static uint64_t extent_of(const sonde_llama2c *h, enum extent e)
{
    switch (e) {
    case DIM:
        return (uint64_t)h->dim;
    case HIDDEN:
        return (uint64_t)h->hidden_dim;
    case KV:
        return (uint64_t)(h->dim / h->n_heads * h->n_kv_heads);
    case VOCAB:
        return (uint64_t)h->vocab_size;
    default:
        return 1;
    }
}

/* The shape of one array (of one layer) and its bytes; 0 layers if it is not in this file. */
static bool size_part(const sonde_llama2c *h, const struct part *p, sonde_tensor *t, size_t *n_layers)
{
    bool tables = !p->name && h->version == 0;
    if ((!p->name && !tables) || (p->only_untied && h->shared_classifier)) {
        *n_layers = 0;
        return true;
    }
    t->rank = p->dim[1] == NONE ? 1 : 2;
    t->dim[0] = tables ? (uint64_t)h->seq_len : extent_of(h, p->dim[0]);
    t->dim[1] = tables ? (uint64_t)(h->dim / h->n_heads) : extent_of(h, p->dim[1]);
    if (tables)
        t->rank = 2;
    *n_layers = p->per_layer ? (size_t)h->n_layers : 1;
    return sonde_nbytes(&t->n_bytes, t->dim, t->rank, sizeof(float));
}

/* Bytes of the whole file and number of tensors, as the header says. */
static bool measure(const sonde_llama2c *h, size_t n_header, size_t *n_bytes, size_t *n_tensors)
{
    *n_bytes = n_header;
    *n_tensors = 0;
    for (int i = 0; i < N_PARTS; i++) {
        const struct part *p = &order[h->version][i];
        sonde_tensor t = {0};
        size_t n, bytes;
        if (!size_part(h, p, &t, &n) || !sonde_mul(&bytes, t.n_bytes, n) ||
            !sonde_add(n_bytes, *n_bytes, bytes) || !sonde_add(n_tensors, *n_tensors, p->name ? n : 0)) {
            *n_bytes = SIZE_MAX;
            return false;
        }
    }
    return true;
}

static void fill(const sonde_llama2c *h, const sonde_map *m, size_t at, sonde_tensor *out,
                 char (*name)[MAX_NAME])
{
    for (int i = 0; i < N_PARTS; i++) {
        const struct part *p = &order[h->version][i];
        sonde_tensor t = {.type_name = "F32", .dtype = SONDE_F32};
        size_t n;
        size_part(h, p, &t, &n);
        for (size_t layer = 0; layer < n; layer++, at += t.n_bytes) {
            if (!p->name)
                continue;
            if (p->per_layer)
                snprintf(*name, MAX_NAME, "model.layers.%zu.%s", layer, p->name);
            else
                snprintf(*name, MAX_NAME, "%s", p->name);
            t.name = *name++;
            t.data = m->data + at;
            *out++ = t;
        }
    }
}

static enum sonde_code build(const sonde_map *m, const sonde_llama2c *h, size_t n_header, size_t n_tensors,
                             sonde_tensors *f, sonde_err *err)
{
    sonde_tensor *tensor = sonde_arena_get(f->arena, n_tensors, sizeof *tensor, err);
    char(*name)[MAX_NAME] = tensor ? sonde_arena_get(f->arena, n_tensors, MAX_NAME, err) : NULL;
    if (!name)
        return SONDE_E_MEMORY;
    fill(h, m, n_header, tensor, name);
    f->tensor = tensor;
    f->n_tensors = n_tensors;
    return SONDE_OK;
}

enum sonde_code sonde_llama2c_parse(sonde_map *m, sonde_budget *budget, sonde_llama2c *header,
                                    sonde_tensors **out, sonde_err *err)
{
    sonde_llama2c h;
    sonde_tensors *f = NULL;
    size_t n_header, n_bytes, n_tensors;
    enum sonde_code rc = read_header(m, &h, &n_header, err);
    if (rc == SONDE_OK && (!measure(&h, n_header, &n_bytes, &n_tensors) || n_bytes != m->n_bytes))
        rc = sonde_fail(err, SONDE_E_INPUT,
                        "%s: not a llama2.c checkpoint, or one cut short: its header (dim %" PRId32
                        ", hidden %" PRId32 ", layers %" PRId32 ", vocabulary %" PRId32
                        ") asks for %zu bytes, the file has %zu",
                        m->path, h.dim, h.hidden_dim, h.n_layers, h.vocab_size, n_bytes, m->n_bytes);
    if (rc == SONDE_OK) {
        f = sonde_tensors_new("llama2c", 1, budget, err);
        rc = f ? build(m, &h, n_header, n_tensors, f, err) : SONDE_E_MEMORY;
    }
    rc = sonde_tensors_finish(f, m, rc, out, err);
    if (rc == SONDE_OK)
        *header = h;
    return rc;
}

enum sonde_code sonde_llama2c_open(const char *path, sonde_budget *budget, sonde_llama2c *header,
                                   sonde_tensors **out, sonde_err *err)
{
    sonde_map *m;
    enum sonde_code rc = sonde_map_open(path, &m, err);
    return rc == SONDE_OK ? sonde_llama2c_parse(m, budget, header, out, err) : rc;
}
