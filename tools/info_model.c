/* SPDX-License-Identifier: MIT
 * Description of a model directory: what its config says, its weights and tokenizer, the hooks it has. */
#include <string.h>

#include "base/hash.h"
#include "file/safetensors.h"
#include "info.h"
#include "model/hooks.h"
#include "model/model.h"
#include "text/tokenizer.h"

static const char *norm_name(const sonde_arch *a)
{
    return a->norm == SONDE_NORM_LAYER ? "LayerNorm" : a->norm == SONDE_NORM_RMS ? "RMSNorm" : "none";
}

static const char *position_name(const sonde_arch *a)
{
    static const char *const names[] = {"none", "learned", "shortformer", "rotary"};
    return names[a->positions];
}

static const char *act_name(const sonde_arch *a)
{
    static const char *const names[SONDE_N_ACTS] = {"none",      "relu",       "gelu",
                                                    "gelu_tanh", "quick_gelu", "silu"};
    return a->solu_ln ? "solu_ln" : a->solu ? "solu" : names[a->act];
}

static int put_int(json_t *out, const char *key, size_t v)
{
    return json_object_set_new(out, key, json_integer((json_int_t)v));
}

static int put_arch(json_t *out, const sonde_arch *a)
{
    int bad = json_object_set_new(out, "family", json_string(a->family));
    bad |= put_int(out, "n_layers", a->n_layers) | put_int(out, "d_model", a->d_model) |
           put_int(out, "n_heads", a->n_heads) | put_int(out, "n_kv_heads", a->n_kv_heads) |
           put_int(out, "d_head", a->d_head) | put_int(out, "d_mlp", a->d_mlp) |
           put_int(out, "n_vocab", a->n_vocab) | put_int(out, "n_ctx", a->n_ctx);
    bad |= json_object_set_new(out, "norm", json_string(norm_name(a)));
    bad |= json_object_set_new(out, "positions", json_string(position_name(a)));
    if (a->d_mlp)
        bad |= json_object_set_new(out, "activation",
                                   json_sprintf("%s%s", a->gated ? "gated " : "", act_name(a)));
    if (a->window)
        bad |= put_int(out, "window", a->window);
    bad |= json_object_set_new(out, "parallel", json_boolean(a->parallel));
    return bad | json_object_set_new(out, "tied_embeddings", json_boolean(a->tied));
}

/* Parameters that are used, by type of the file; a tied embedding counts once. */
static int put_weights(json_t *out, const sonde_arch *a, const sonde_tensors *f)
{
    json_t *types = json_object();
    uint64_t n = 0;
    int bad = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const sonde_tensor *t = &f->tensor[i];
        if (sonde_model_ignores(a, t->name))
            continue;
        uint64_t count = sonde_tensor_count(t);
        const char *type = sonde_dtype_name(t->dtype);
        json_int_t before = json_integer_value(json_object_get(types, type));
        n += count;
        bad |= json_object_set_new(types, type, json_integer(before + (json_int_t)count));
    }
    bad |= json_object_set_new(out, "n_parameters", json_integer((json_int_t)n));
    return bad | json_object_set_new(out, "parameters_by_type", types);
}

static int put_files(json_t *out, const struct info_options *o, const sonde_tensors *f, sonde_err *err)
{
    json_t *list = json_array();
    int bad = 0;
    for (size_t i = 0; i < f->n_maps; i++) {
        const char *slash = strrchr(f->map[i]->path, '/');
        char hex[65] = "";
        json_t *file = json_pack("{s:s,s:I}", "file", slash ? slash + 1 : f->map[i]->path, "bytes",
                                 (json_int_t)f->map[i]->n_bytes);
        if (!o->no_hash && sonde_sha256_file(f->map[i]->path, hex, err))
            hex[0] = '\0';
        if (*hex)
            bad |= json_object_set_new(file, "sha256", json_string(hex));
        bad |= json_array_append_new(list, file);
    }
    return bad | json_object_set_new(out, "files", list);
}

static int put_hooks(json_t *out, const sonde_arch *a)
{
    json_t *list = json_array();
    int bad = 0;
    for (int s = 0; s < SONDE_N_SITES; s++) {
        char name[SONDE_HOOK_NAME_MAX];
        if (sonde_site_absent(a, (enum sonde_site)s))
            continue;
        sonde_hook_name((sonde_hook){(enum sonde_site)s, 0}, name);
        json_t *v = sonde_site_in_block((enum sonde_site)s)
                        ? json_sprintf("blocks.L%s", name + strlen("blocks.0"))
                        : json_string(name);
        bad |= json_array_append_new(list, v);
    }
    return bad | json_object_set_new(out, "hooks", list);
}

static int put_tokenizer(struct tool *t, json_t *out, const char *path)
{
    sonde_tokenizer *tok;
    sonde_err why = {0};
    if (sonde_tokenizer_open(path, t->budget, &tok, &why))
        return json_object_set_new(out, "tokenizer", json_sprintf("none (%s)", why.msg));
    int bad =
        json_object_set_new(out, "tokenizer",
                            json_pack("{s:s,s:i,s:b,s:s}", "kind", sonde_tokenizer_kind(tok), "n_tokens",
                                      (int)sonde_tokenizer_size(tok), "adds_bos",
                                      sonde_tokenizer_adds_bos(tok), "sha256", sonde_tokenizer_sha256(tok)));
    sonde_tokenizer_close(tok);
    return bad;
}

static enum sonde_code describe(struct tool *t, const struct info_options *o, const struct info_glance *g,
                                json_t *out, sonde_err *err)
{
    sonde_arena *arena = sonde_arena_new(t->budget, err);
    sonde_tensors *f = NULL;
    sonde_arch *arch = arena ? sonde_arena_get(arena, 1, sizeof *arch, err) : NULL;
    enum sonde_code rc = arch ? sonde_model_config(g->path, arch, arena, err) : SONDE_E_MEMORY;
    if (!rc)
        rc = sonde_safetensors_open_dir(g->path, t->budget, &f, err);
    if (!rc && (put_arch(out, arch) | put_weights(out, arch, f) | put_tokenizer(t, out, g->path) |
                put_files(out, o, f, err) | put_hooks(out, arch)))
        rc = sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to describe it", g->path);
    sonde_tensors_close(f);
    sonde_arena_free(arena);
    return rc;
}

static bool is_model(const struct info_glance *g)
{
    return S_ISDIR(g->st.st_mode) && sonde_map_exists_in(g->path, "config.json");
}

const struct info_kind info_model = {"model directory", is_model, describe};
