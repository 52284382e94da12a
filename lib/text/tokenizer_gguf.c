/* SPDX-License-Identifier: MIT
 * The tokenizer inside a GGUF file: its tokenizer.ggml.* metadata. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer_impl.h"

#define WHAT "GGUF tokenizer"

static const sonde_meta *meta(const sonde_tensors *f, const char *name)
{
    char key[80];
    snprintf(key, sizeof key, "tokenizer.ggml.%s", name);
    return sonde_meta_find(f, key);
}

static int64_t meta_id(const sonde_tensors *f, const char *name, int64_t fallback)
{
    const sonde_meta *m = meta(f, name);
    if (m && m->type == SONDE_META_UINT)
        return m->u > INT32_MAX ? INT32_MAX : (int64_t)m->u;
    return m && m->type == SONDE_META_INT ? m->i : fallback;
}

static bool meta_bool(const sonde_tensors *f, const char *name, bool fallback)
{
    const sonde_meta *m = meta(f, name);
    return m && m->type == SONDE_META_BOOL ? m->u != 0 || m->i != 0 : fallback;
}

/* The array of n items under a key (any number if n is SIZE_MAX), or an error that names it. */
static enum sonde_code meta_array(const sonde_tensors *f, const char *name, enum sonde_meta_type a,
                                  enum sonde_meta_type b, size_t n, const sonde_meta **out, sonde_err *err)
{
    const sonde_meta *m = meta(f, name);
    if (!m || m->type != SONDE_META_ARRAY || (m->item != a && m->item != b))
        return sonde_fail(err, SONDE_E_INPUT,
                          WHAT ": tokenizer.ggml.%s is missing or no list of the right type", name);
    if (n != SIZE_MAX && m->n_items != n)
        return sonde_fail(err, SONDE_E_INPUT, WHAT ": tokenizer.ggml.%s has %zu items, there are %zu tokens",
                          name, m->n_items, n);
    *out = m;
    return SONDE_OK;
}

/* The type of token i (enum spm_type): integers arrive as int64 or uint64, of which the low half is the same.
 */
static unsigned char token_type(const sonde_meta *types, size_t i)
{
    int64_t v = types ? ((const int64_t *)types->items)[i] : SPM_NORMAL;
    return v < SPM_NORMAL || v > SPM_BYTE ? 0 : (unsigned char)v;
}

static enum sonde_code end_id(const sonde_tensors *f, const char *name, int64_t fallback, size_t n,
                              int32_t *out, sonde_err *err)
{
    int64_t id = meta_id(f, name, fallback);
    if (id < -1 || (id >= 0 && (uint64_t)id >= n && meta(f, name)))
        return sonde_fail(err, SONDE_E_INPUT, WHAT ": tokenizer.ggml.%s is %lld, there are %zu tokens", name,
                          (long long)id, n);
    *out = id >= 0 && (uint64_t)id < n ? (int32_t)id : -1;
    return SONDE_OK;
}

/* ---- model "llama" ----------------------------------------------------------------------------- */

static enum sonde_code read_spm(sonde_tokenizer *t, const sonde_tensors *f, const sonde_meta *tokens,
                                const sonde_meta *types, sonde_err *err)
{
    const sonde_meta *scores = NULL;
    size_t n = tokens->n_items;
    enum sonde_code rc = meta_array(f, "scores", SONDE_META_FLOAT, SONDE_META_FLOAT, n, &scores, err);
    if (rc)
        return rc;
    struct spm_piece *piece = sonde_arena_get(t->arena, n, sizeof *piece, err);
    if (!piece)
        return SONDE_E_MEMORY;
    for (size_t i = 0; i < n; i++) {
        const struct sonde_bytes *name = &((const struct sonde_bytes *)tokens->items)[i];
        piece[i] = (struct spm_piece){name->s, name->n, (float)((const double *)scores->items)[i],
                                      token_type(types, i)};
        if (name->n == 0) /* a hole in the vocabulary */
            piece[i] = (struct spm_piece){NULL, 0, 0, SPM_UNUSED};
    }
    struct spm_options o = {.space = "\xe2\x96\x81", .what = WHAT};
    o.add_prefix = meta_bool(f, "add_space_prefix", true);
    o.remove_extra_spaces = meta_bool(f, "remove_extra_whitespaces", false);
    o.adds_bos = meta_bool(f, "add_bos_token", true);
    o.adds_eos = meta_bool(f, "add_eos_token", false);
    rc = end_id(f, "unknown_token_id", 0, n, &o.unk, err);
    if (!rc)
        rc = end_id(f, "bos_token_id", 1, n, &o.bos, err);
    if (!rc)
        rc = end_id(f, "eos_token_id", 2, n, &o.eos, err);
    return rc ? rc : spm_build(t, piece, n, &o, err);
}

/* ---- model "gpt2" ------------------------------------------------------------------------------ */

/* tokenizer.ggml.pre names the pattern; the model's own pipeline also normalises, which GGUF does not say. */
static enum sonde_code choose_pattern(sonde_tokenizer *t, const sonde_tensors *f, sonde_err *err)
{
    static const struct {
        const char *pre;
        enum pretoken_kind kind;
        unsigned max_digits;
        bool nfc, ignore_merges;
    } table[] = {{"gpt-2", PRETOKEN_GPT2, 0, false, false},      {"gpt2", PRETOKEN_GPT2, 0, false, false},
                 {"olmo", PRETOKEN_GPT2, 0, true, false},        {"gptneox", PRETOKEN_GPT2, 0, true, false},
                 {"llama-bpe", PRETOKEN_CL100K, 3, false, true}, {"llama3", PRETOKEN_CL100K, 3, false, true},
                 {"llama-v3", PRETOKEN_CL100K, 3, false, true},  {"qwen2", PRETOKEN_CL100K, 1, true, false}};
    const sonde_meta *m = meta(f, "pre"), *arch = sonde_meta_find(f, "general.architecture");
    const char *pre = m && m->type == SONDE_META_STRING ? m->s : "gpt-2";
    if ((!m || !strcmp(pre, "default")) && arch && arch->type == SONDE_META_STRING)
        pre = !strcmp(arch->s, "gptneox") ? "gptneox" : !strcmp(arch->s, "gpt2") ? "gpt-2" : pre;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(pre, table[i].pre) != 0)
            continue;
        t->pre[0] = (struct pretoken_step){.kind = table[i].kind, .max_digits = table[i].max_digits};
        t->bpe.ignore_merges = table[i].ignore_merges;
        if (table[i].nfc)
            t->normalizer[t->n_normalizers++] = (struct normal_step){.kind = NORMAL_FORM, .form = SONDE_NFC};
        return SONDE_OK;
    }
    return sonde_fail(
        err, SONDE_E_INPUT,
        WHAT ": tokenizer.ggml.pre '%.60s' is not implemented; gpt-2, olmo, llama-bpe and qwen2 are", pre);
}

static enum sonde_code add_names(sonde_tokenizer *t, const struct sonde_bytes *name, const sonde_meta *types,
                                 size_t n, bool added, size_t *n_added, sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    for (size_t i = 0; i < n && !rc; i++) {
        unsigned char type = token_type(types, i);
        bool is_added = type == SPM_CONTROL || type == SPM_USER_DEFINED || type == SPM_UNKNOWN;
        if (type == 0)
            return sonde_fail(err, SONDE_E_INPUT, WHAT ": token %zu has a type that is none of 1..6", i);
        if (name[i].n == 0)
            continue;
        *n_added += is_added;
        struct added_token a = {
            .id = (int32_t)i, .s = name[i].s, .n = name[i].n, .special = type != SPM_USER_DEFINED};
        if (added && is_added)
            rc = tokenizer_add_token(t, &a, WHAT, err);
        else if (!added && !is_added)
            rc = vocab_add(&t->vocab, t->arena, (int64_t)i, name[i].s, name[i].n, WHAT, err);
    }
    return rc;
}

static enum sonde_code add_merges(sonde_tokenizer *t, const sonde_meta *merges, sonde_err *err)
{
    enum sonde_code rc = bpe_merges_new(&t->bpe, t->arena, merges->n_items, err);
    for (size_t i = 0; i < merges->n_items && !rc; i++) {
        const struct sonde_bytes *m = &((const struct sonde_bytes *)merges->items)[i];
        const char *space = m->n ? memchr(m->s, ' ', m->n) : NULL;
        size_t n_left = space ? (size_t)(space - m->s) : 0, n_right = space ? m->n - n_left - 1 : 0;
        if (!n_left || !n_right)
            return sonde_fail(err, SONDE_E_INPUT, WHAT ": merge %zu is not two tokens with a space between",
                              i);
        rc = tokenizer_merge(t, (uint32_t)i, m->s, n_left, space + 1, n_right, WHAT, err);
    }
    return rc;
}

static enum sonde_code read_bpe(sonde_tokenizer *t, const sonde_tensors *f, const sonde_meta *tokens,
                                const sonde_meta *types, sonde_err *err)
{
    const sonde_meta *merges = NULL;
    size_t n = tokens->n_items, n_added = 0;
    enum sonde_code rc =
        meta_array(f, "merges", SONDE_META_STRING, SONDE_META_STRING, SIZE_MAX, &merges, err);
    if (!rc)
        rc = choose_pattern(t, f, err);
    if (!rc)
        rc = vocab_new(&t->vocab, t->arena, n, n, WHAT, err);
    if (!rc)
        rc = add_names(t, tokens->items, types, n, false, &n_added, err);
    if (!rc)
        rc = tokenizer_byte_level(t, err);
    if (!rc)
        rc = add_merges(t, merges, err);
    if (!rc)
        rc = tokenizer_added_room(t, n_added, err);
    if (!rc)
        rc = add_names(t, tokens->items, types, n, true, &n_added, err);
    if (!rc)
        rc = end_id(f, "bos_token_id", -1, n, &t->bos, err);
    if (!rc)
        rc = end_id(f, "eos_token_id", -1, n, &t->eos, err);
    if (rc)
        return rc;
    /* Llama 3's own template begins with BOS; older converters do not say so */
    if (meta_bool(f, "add_bos_token", t->bpe.ignore_merges) && t->bos >= 0)
        t->prefix[t->n_prefix++] = t->bos;
    if (meta_bool(f, "add_eos_token", false) && t->eos >= 0)
        t->suffix[t->n_suffix++] = t->eos;
    t->kind = "bpe (byte level)";
    return tokenizer_finish(t, NULL, err);
}

/* SHA-256 of the metadata a tokenizer is made of: key, then value, in the file's order. */
static void hash_meta(sonde_tokenizer *t, const sonde_tensors *f)
{
    sonde_sha256 h;
    sonde_sha256_begin(&h);
    for (size_t i = 0; i < f->n_meta; i++) {
        const sonde_meta *m = &f->meta[i];
        if (strncmp(m->key, "tokenizer.", 10) != 0)
            continue;
        sonde_sha256_add(&h, m->key, strlen(m->key) + 1);
        if (m->type == SONDE_META_STRING)
            sonde_sha256_add(&h, m->s, m->n_bytes);
        else if (m->type != SONDE_META_ARRAY)
            sonde_sha256_add(&h, &(int64_t){m->type == SONDE_META_INT ? m->i : (int64_t)m->u},
                             sizeof(int64_t));
        else if (m->item == SONDE_META_STRING)
            for (size_t k = 0; k < m->n_items; k++) {
                const struct sonde_bytes *s = &((const struct sonde_bytes *)m->items)[k];
                sonde_sha256_add(&h, s->s, s->n);
                sonde_sha256_add(&h, "", 1);
            }
        else if (m->item != SONDE_META_BOOL && m->item != SONDE_META_ARRAY)
            sonde_sha256_add(&h, m->items, m->n_items * sizeof(int64_t));
    }
    sonde_sha256_end(&h, t->sha256);
}

enum sonde_code tokenizer_read_gguf(sonde_tokenizer *t, const sonde_tensors *f, sonde_err *err)
{
    const sonde_meta *model = meta(f, "model"), *tokens = NULL, *types = NULL;
    if (!model || model->type != SONDE_META_STRING)
        return sonde_fail(err, SONDE_E_INPUT, WHAT ": the file has no tokenizer.ggml.model");
    enum sonde_code rc =
        meta_array(f, "tokens", SONDE_META_STRING, SONDE_META_STRING, SIZE_MAX, &tokens, err);
    if (!rc && meta(f, "token_type"))
        rc = meta_array(f, "token_type", SONDE_META_INT, SONDE_META_UINT, tokens->n_items, &types, err);
    if (rc)
        return rc;
    hash_meta(t, f);
    if (!strcmp(model->s, "llama"))
        return read_spm(t, f, tokens, types, err);
    if (!strcmp(model->s, "gpt2"))
        return read_bpe(t, f, tokens, types, err);
    return sonde_fail(err, SONDE_E_INPUT,
                      WHAT ": tokenizer.ggml.model '%.60s' is not implemented; llama and gpt2 are", model->s);
}

enum sonde_code sonde_tokenizer_from_gguf(const sonde_tensors *gguf, sonde_budget *budget,
                                          sonde_tokenizer **out, sonde_err *err)
{
    sonde_tokenizer *t;
    enum sonde_code rc = tokenizer_new(budget, &t, err);
    if (rc)
        return rc;
    rc = tokenizer_read_gguf(t, gguf, err);
    if (rc) {
        sonde_tokenizer_close(t);
        return rc;
    }
    *out = t;
    return SONDE_OK;
}
