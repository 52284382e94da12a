/* SPDX-License-Identifier: MIT
 * Opening a model: which kind of file it is, its config, its weights. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../file/gguf.h"
#include "../file/json.h"
#include "../file/llama2c.h"
#include "../file/safetensors.h"
#include "weights_impl.h"

#define CONFIG_MAX_BYTES (16u << 20)
#define CONFIG_MAX_NODES 200000
#define EMBED_KEEP_BYTES (32u << 20)

static enum sonde_code keep_config(sonde_model *m, const json_t *config, sonde_err *err)
{
    char *text = sonde_json_text(config, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    if (!text)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the config", m->path);
    m->config_json = sonde_arena_strndup(m->arena, text, strlen(text), err);
    free(text);
    return m->config_json ? SONDE_OK : SONDE_E_MEMORY;
}

/* config.json to the letter. It has been parsed, so it is UTF-8 without NUL. */
static enum sonde_code keep_config_file(sonde_model *m, const sonde_map *map, sonde_err *err)
{
    m->config_json = sonde_arena_strndup(m->arena, (const char *)map->data, map->n_bytes, err);
    return m->config_json ? SONDE_OK : SONDE_E_MEMORY;
}

/* config.json of a directory: its bytes, the arch that it describes, and the family. */
static enum sonde_code read_config(const char *dir, sonde_arch *arch, const struct family **family,
                                   sonde_arena *arena, sonde_map **out, sonde_err *err)
{
    json_t *config = NULL;
    char what[480];
    enum sonde_code code;
    snprintf(what, sizeof what, "%s/config.json", dir);
    if ((code = sonde_map_open_in(dir, "config.json", out, err)))
        return code;
    if ((*out)->n_bytes > CONFIG_MAX_BYTES)
        code = sonde_fail(err, SONDE_E_INPUT, "%s: %zu bytes, a config has at most %u", what, (*out)->n_bytes,
                          CONFIG_MAX_BYTES);
    if (!code)
        code = sonde_json_parse((*out)->data, (*out)->n_bytes, CONFIG_MAX_NODES, what, &config, err);
    if (!code)
        code = family_configure(config, what, arch, family, arena, err);
    json_decref(config);
    if (code)
        sonde_map_close(*out);
    return code;
}

enum sonde_code sonde_model_config(const char *dir, sonde_arch *arch, sonde_arena *arena, sonde_err *err)
{
    const struct family *family;
    sonde_map *map;
    enum sonde_code code = read_config(dir, arch, &family, arena, &map, err);
    if (!code)
        sonde_map_close(map);
    return code;
}

static enum sonde_code open_directory(sonde_model *m, struct source *source, const sonde_work *work,
                                      sonde_err *err)
{
    sonde_map *map;
    enum sonde_code code = read_config(m->path, &m->arch, &source->family, m->arena, &map, err);
    if (code)
        return code;
    code = keep_config_file(m, map, err);
    sonde_map_close(map);
    return code ? code : sonde_safetensors_open_dir(m->path, work ? work->budget : NULL, &m->file, err);
}

static enum sonde_code open_llama2c(sonde_model *m, struct source *source, const sonde_work *work,
                                    sonde_err *err)
{
    sonde_llama2c h;
    enum sonde_code code = sonde_llama2c_open(m->path, work ? work->budget : NULL, &h, &m->file, err);
    if (code)
        return code;
    json_t *config =
        json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:f,s:f,s:b}", "model_type", "llama", "hidden_size",
                  (int)h.dim, "intermediate_size", (int)h.hidden_dim, "num_hidden_layers", (int)h.n_layers,
                  "num_attention_heads", (int)h.n_heads, "num_key_value_heads", (int)h.n_kv_heads,
                  "vocab_size", (int)h.vocab_size, "max_position_embeddings", (int)h.seq_len, "rms_norm_eps",
                  1e-5, "rope_theta", 10000.0, "tie_word_embeddings", (int)h.shared_classifier);
    if (!config)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the config", m->path);
    source->interleaved_rope = true;
    code = family_configure(config, m->path, &m->arch, &source->family, m->arena, err);
    if (!code)
        code = keep_config(m, config, err);
    json_decref(config);
    return code;
}

static enum sonde_code open_gguf(sonde_model *m, struct source *source, const sonde_work *work,
                                 sonde_err *err)
{
    enum sonde_code code = sonde_gguf_open(m->path, work ? work->budget : NULL, &m->file, err);
    if (code)
        return code;
    json_t *config = NULL;
    code = family_configure_gguf(m->file, m->path, &m->arch, source, m->arena, &config, err);
    if (!code)
        code = keep_config(m, config, err);
    json_decref(config);
    return code;
}

/* What other formats look like, and what to do about them. */
static enum sonde_code refuse_foreign(const char *path, const unsigned char *head, size_t n, sonde_err *err)
{
    if (n >= 4 && !memcmp(head, "PK\3\4", 4))
        return sonde_fail(
            err, SONDE_E_INPUT,
            "%s: a zip archive (torch .bin or .pt?); save it as safetensors with safetensors.torch.save_file",
            path);
    if (n >= 2 && head[0] == 0x80 && head[1] <= 5)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: a Python pickle, which can run code; save it as safetensors instead", path);
    if (n >= 9 && head[8] == '{')
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: a safetensors file alone says no architecture; give the directory that holds "
                          "it and config.json",
                          path);
    return SONDE_OK;
}

static enum sonde_code open_any(sonde_model *m, struct source *source, const sonde_work *work, sonde_err *err)
{
    struct stat st;
    unsigned char head[16] = {0};
    enum sonde_code code;
    if (stat(m->path, &st) == 0 && S_ISDIR(st.st_mode))
        return open_directory(m, source, work, err);
    sonde_map *map;
    if ((code = sonde_map_open(m->path, &map, err)))
        return code;
    size_t n = map->n_bytes < sizeof head ? map->n_bytes : sizeof head;
    memcpy(head, map->data, n);
    sonde_map_close(map);
    if (n >= 4 && !memcmp(head, "GGUF", 4))
        return open_gguf(m, source, work, err);
    if ((code = refuse_foreign(m->path, head, n, err)))
        return code;
    return open_llama2c(m, source, work, err);
}

enum sonde_code sonde_model_load_unembed(sonde_model *m, const sonde_work *work, sonde_err *err)
{
    if (m->unembed.data)
        return SONDE_OK;
    enum sonde_code code = weights_load_unembed(m, work, m->strict_finite, err);
    return code ? code : weights_process_unembed(m, err);
}

enum sonde_code sonde_model_open(const char *path, const sonde_model_options *options, const sonde_work *work,
                                 sonde_model **out, sonde_err *err)
{
    static const sonde_model_options defaults = {0};
    const sonde_model_options *o = options ? options : &defaults;
    sonde_arena *arena = sonde_arena_new(work ? work->budget : NULL, err);
    sonde_model *m = arena ? sonde_arena_get(arena, 1, sizeof *m, err) : NULL;
    struct source *source = m ? sonde_arena_get(arena, 1, sizeof *source, err) : NULL;
    enum sonde_code code = SONDE_E_MEMORY;
    if (!source)
        goto fail;
    m->arena = arena;
    m->source = source;
    m->kernels = o->kernels ? o->kernels : sonde_kernels_best();
    m->processing = o->processing;
    m->strict_finite = o->strict_finite;
    m->path = sonde_arena_strndup(arena, path, strlen(path), err);
    if (!m->path)
        goto fail;
    if ((code = open_any(m, source, work, err)) || (code = weights_load(m, work, o->strict_finite, err)) ||
        (code = weights_process(m, err)) ||
        (!o->defer_unembed && (code = sonde_model_load_unembed(m, work, err))))
        goto fail;
    *out = m;
    return SONDE_OK;
fail:
    if (m)
        sonde_tensors_close(m->file);
    sonde_arena_free(arena);
    return code;
}

void sonde_model_close(sonde_model *m)
{
    if (!m)
        return;
    sonde_tensors_close(m->file);
    sonde_arena_free(m->arena);
}

bool model_embeds_from_packed(const sonde_model *m)
{
    return m->arch.tied && m->unembed.data && !(m->processing & (SONDE_FOLD_LN | SONDE_CENTER_UNEMBED));
}

void sonde_model_embed_done(const sonde_model *m)
{
    const unsigned char *p = m->embed.data;
    for (size_t i = 0;
         !model_embeds_from_packed(m) && m->embed.n_bytes > EMBED_KEEP_BYTES && i < m->file->n_maps; i++) {
        const sonde_map *map = m->file->map[i];
        if (p >= map->data && p < map->data + map->n_bytes)
            sonde_map_forget(map, (size_t)(p - map->data), m->embed.n_bytes);
    }
}

void sonde_model_embed(const sonde_model *m, int32_t id, float *out)
{
    size_t d = m->arch.d_model;
    if (model_embeds_from_packed(m))
        sonde_unpack_column(&m->unembed, (size_t)id, out);
    else
        sonde_tensor_to_f32(&m->embed, (size_t)id * d, d, out, NULL);
    for (size_t i = 0; m->arch.embed_scale != 1 && i < d; i++)
        out[i] *= m->arch.embed_scale;
    if (!m->embed_centred)
        return;
    double mean = 0;
    for (size_t i = 0; i < d; i++)
        mean += (double)out[i];
    for (size_t i = 0; i < d; i++)
        out[i] = (float)((double)out[i] - mean / (double)d);
}
