/* SPDX-License-Identifier: MIT
 * Descriptions of files of tensors: safetensors, GGUF, llama2.c. */
#include <inttypes.h>
#include <string.h>

#include "base/hash.h"
#include "file/gguf.h"
#include "file/llama2c.h"
#include "file/safetensors.h"
#include "info.h"

#define SHOWN_ITEMS 16 /* longer arrays of metadata are counted, not listed */

static json_t *meta_item(enum sonde_meta_type type, const void *items, size_t i)
{
    switch (type) {
    case SONDE_META_INT:
        return json_integer(((const int64_t *)items)[i]);
    case SONDE_META_UINT:
        return json_integer((json_int_t)((const uint64_t *)items)[i]);
    case SONDE_META_FLOAT:
        return json_real(((const double *)items)[i]);
    case SONDE_META_STRING: {
        const sonde_bytes *s = (const sonde_bytes *)items + i;
        return info_string(s->s, s->n);
    }
    case SONDE_META_BOOL:
    case SONDE_META_ARRAY:
        break;
    }
    return NULL;
}

static json_t *meta_array(const sonde_meta *m)
{
    bool listed =
        m->n_items <= SHOWN_ITEMS && m->items && m->item != SONDE_META_BOOL && m->item != SONDE_META_ARRAY;
    if (!listed)
        return json_sprintf("%zu items", m->n_items);
    json_t *list = json_array();
    for (size_t i = 0; i < m->n_items; i++)
        if (json_array_append_new(list, meta_item(m->item, m->items, i))) {
            json_decref(list);
            return json_sprintf("%zu items", m->n_items); /* one of them is not a finite number */
        }
    return list;
}

static json_t *meta_value(const sonde_meta *m)
{
    switch (m->type) {
    case SONDE_META_INT:
        return json_integer(m->i);
    case SONDE_META_UINT:
        return m->u > INT64_MAX ? json_sprintf("%" PRIu64, m->u) : json_integer((json_int_t)m->u);
    case SONDE_META_FLOAT: {
        json_t *real = json_real(m->f);
        return real ? real : json_sprintf("%f", m->f);
    }
    case SONDE_META_BOOL:
        return json_boolean(m->i != 0);
    case SONDE_META_STRING:
        return info_string(m->s, m->n_bytes);
    case SONDE_META_ARRAY:
        return meta_array(m);
    }
    return json_null();
}

static int put_metadata(json_t *out, const sonde_tensors *f)
{
    if (f->n_meta == 0)
        return 0;
    json_t *meta = json_object();
    int bad = 0;
    for (size_t i = 0; i < f->n_meta; i++)
        bad |= json_object_set_new(meta, f->meta[i].key, meta_value(&f->meta[i]));
    return bad | json_object_set_new(out, "metadata", meta);
}

static int put_tensors(json_t *out, const sonde_tensors *f)
{
    json_t *list = json_array();
    uint64_t n_parameters = 0;
    int bad = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const sonde_tensor *t = &f->tensor[i];
        json_t *shape = json_array();
        for (int k = 0; k < t->rank; k++)
            bad |= json_array_append_new(shape, json_integer((json_int_t)t->dim[k]));
        n_parameters += sonde_tensor_count(t);
        bad |= json_array_append_new(list, json_pack("{s:o, s:s, s:o, s:I}", "name",
                                                     info_string(t->name, strlen(t->name)), "dtype",
                                                     t->type_name ? t->type_name : sonde_dtype_name(t->dtype),
                                                     "shape", shape, "bytes", (json_int_t)t->n_bytes));
    }
    bad |= json_object_set_new(out, "n_tensors", json_integer((json_int_t)f->n_tensors));
    bad |= json_object_set_new(out, "n_parameters", json_integer((json_int_t)n_parameters));
    bad |= put_metadata(out, f);
    return bad | json_object_set_new(out, "tensors", list);
}

enum sonde_code info_describe_tensors(const struct info_options *o, const struct info_glance *g,
                                      sonde_tensors *f, json_t *out, sonde_err *err)
{
    char hex[65];
    enum sonde_code rc = SONDE_OK;
    if (!o->no_hash)
        rc = sonde_sha256_file(g->path, hex, err);
    if (!rc && !o->no_hash && json_object_set_new(out, "sha256", json_string(hex)))
        rc = sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to describe it", g->path);
    if (!rc && put_tensors(out, f))
        rc = sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to describe it", g->path);
    sonde_tensors_close(f);
    return rc;
}

#define DESCRIBE(kind, open)                                                                                 \
    static enum sonde_code describe_##kind(struct tool *t, const struct info_options *o,                     \
                                           const struct info_glance *g, json_t *out, sonde_err *err)         \
    {                                                                                                        \
        sonde_tensors *f;                                                                                    \
        enum sonde_code rc = open(g->path, t->budget, &f, err);                                              \
        return rc ? rc : info_describe_tensors(o, g, f, out, err);                                           \
    }
DESCRIBE(safetensors, sonde_safetensors_open)
DESCRIBE(gguf, sonde_gguf_open)

static enum sonde_code describe_llama2c(struct tool *t, const struct info_options *o,
                                        const struct info_glance *g, json_t *out, sonde_err *err)
{
    sonde_tensors *f;
    sonde_llama2c h;
    enum sonde_code rc = sonde_llama2c_open(g->path, t->budget, &h, &f, err);
    if (rc)
        return rc;
    json_t *config = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "version", h.version, "dim",
                               h.dim, "hidden_dim", h.hidden_dim, "n_layers", h.n_layers, "n_heads",
                               h.n_heads, "n_kv_heads", h.n_kv_heads, "vocab_size", h.vocab_size, "seq_len",
                               h.seq_len, "shared_classifier", h.shared_classifier);
    if (json_object_set_new(out, "config", config)) {
        sonde_tensors_close(f);
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to describe it", g->path);
    }
    return info_describe_tensors(o, g, f, out, err);
}

static enum sonde_code refuse_pickle(struct tool *t, const struct info_options *o,
                                     const struct info_glance *g, json_t *out, sonde_err *err)
{
    (void)t, (void)o, (void)out;
    return sonde_fail(err, SONDE_E_INPUT,
                      "%s: is a PyTorch pickle, which can run code when it is opened and is not read; save "
                      "it as safetensors "
                      "(safetensors.torch.save_file)",
                      g->path);
}

bool info_begins(const struct info_glance *g, const char *magic, size_t n)
{
    return g->n_head >= n && !memcmp(g->head, magic, n);
}

static bool is_safetensors(const struct info_glance *g)
{
    return info_has_suffix(g->path, ".safetensors") || (g->n_head > 8 && g->head[8] == '{');
}

static bool is_gguf(const struct info_glance *g)
{
    return info_begins(g, "GGUF", 4) || info_has_suffix(g->path, ".gguf");
}

static bool is_llama2c(const struct info_glance *g)
{
    return info_begins(g, "24ka", 4); /* 0x616b3432 */
}

/* Version 0 has no magic: seven small positive numbers, of which only the vocabulary may be negative. */
static bool is_llama2c_v0(const struct info_glance *g)
{
    int32_t h[7];
    if (!info_has_suffix(g->path, ".bin") || g->n_head < sizeof h)
        return false;
    memcpy(h, g->head, sizeof h);
    for (int i = 0; i < 7; i++)
        if (h[i] == 0 || h[i] > 1 << 24 || (h[i] < 0 && i != 5))
            return false;
    return true;
}

/* A zip that is not .npz (torch.save since 1.6) or a bare pickle (before). */
static bool is_pickle(const struct info_glance *g)
{
    return info_begins(g, "PK\3\4", 4) ||
           (g->n_head > 2 && g->head[0] == 0x80 && g->head[1] >= 2 && g->head[1] <= 5);
}

const struct info_kind info_safetensors = {"safetensors", is_safetensors, describe_safetensors};
const struct info_kind info_gguf = {"gguf", is_gguf, describe_gguf};
const struct info_kind info_llama2c = {"llama2.c", is_llama2c, describe_llama2c};
const struct info_kind info_llama2c_v0 = {"llama2.c", is_llama2c_v0, describe_llama2c};
const struct info_kind info_pickle = {"pickle", is_pickle, refuse_pickle};
