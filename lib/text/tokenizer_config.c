/* SPDX-License-Identifier: MIT
 * tokenizer_config.json and special_tokens_map.json: which tokens begin and end a text. */
#include <stdlib.h>
#include <string.h>

#include "tokenizer_impl.h"

#define MAX_CONFIG ((size_t)1 << 24)

enum sonde_code config_open(const char *dir, struct config *c, sonde_err *err)
{
    static const char *const name[] = {"tokenizer_config.json", "special_tokens_map.json"};
    json_t **file[] = {&c->main, &c->map};
    *c = (struct config){0};
    enum sonde_code rc = SONDE_OK;
    for (int i = 0; i < 2 && !rc; i++) {
        if (!sonde_map_exists_in(dir, name[i]))
            continue;
        rc = sonde_json_load_in(dir, name[i], MAX_CONFIG, file[i], err);
        if (!rc && !json_is_object(*file[i]))
            rc = sonde_fail(err, SONDE_E_INPUT, "%s/%s: not an object", dir, name[i]);
    }
    if (rc)
        config_close(c);
    return rc;
}

void config_close(struct config *c)
{
    json_decref(c->main);
    json_decref(c->map);
    *c = (struct config){0};
}

bool config_class_has(const struct config *c, const char *part)
{
    const char *class = json_string_value(json_object_get(c->main, "tokenizer_class"));
    return class && strstr(class, part);
}

/* A token as a string, or as an object with its content; NULL if it is neither. */
static const char *content(const json_t *v)
{
    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

/* The first file that has the key decides; null means that there is none. */
static void end_token(const sonde_tokenizer *t, const struct config *c, const char *key, int32_t *id)
{
    const json_t *v = json_object_get(c->main, key);
    if (!v)
        v = json_object_get(c->map, key);
    if (!v)
        return;
    const char *s = content(v);
    int32_t found = s ? vocab_find(&t->vocab, s, strlen(s)) : -1;
    if (found >= 0 || json_is_null(v))
        *id = found;
}

/* Classes of the Llama and Gemma families build their template from add_bos_token, whatever tokenizer.json
 * says; the others follow tokenizer.json. Without a tokenizer.json the flag is all there is. */
void config_ends(sonde_tokenizer *t, const struct config *c, bool flags_decide)
{
    end_token(t, c, "bos_token", &t->bos);
    end_token(t, c, "eos_token", &t->eos);
    const json_t *bos = json_object_get(c->main, "add_bos_token"),
                 *eos = json_object_get(c->main, "add_eos_token");
    if (!flags_decide && !config_class_has(c, "Llama") && !config_class_has(c, "Gemma"))
        return;
    if (json_is_boolean(bos)) {
        t->n_prefix = 0;
        if (json_is_true(bos) && t->bos >= 0)
            t->prefix[t->n_prefix++] = t->bos;
    }
    if (json_is_boolean(eos)) {
        t->n_suffix = 0;
        if (json_is_true(eos) && t->eos >= 0)
            t->suffix[t->n_suffix++] = t->eos;
    }
}

/* ---- added tokens of a vocab.json -------------------------------------------------------------- */

/* "added_tokens_decoder": {"50256": {"content": "<|endoftext|>", "special": true, ...}} */
size_t config_n_added(const struct config *c, int64_t *largest)
{
    const json_t *all = json_object_get(c->main, "added_tokens_decoder");
    const char *key;
    json_t *v;
    *largest = -1;
    json_object_foreach((json_t *)(uintptr_t)all, key, v)
    {
        long long id = strtoll(key, NULL, 10);
        *largest = id > *largest && id < INT32_MAX ? id : *largest;
    }
    return json_object_size(all);
}

static bool flag(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

enum sonde_code config_add_tokens(sonde_tokenizer *t, const struct config *c, const char *what,
                                  sonde_err *err)
{
    const json_t *all = json_object_get(c->main, "added_tokens_decoder");
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)all, key, v)
    {
        char *end;
        long long id = strtoll(key, &end, 10);
        const char *s = content(v);
        if (!*key || *end || id < 0 || id >= t->n_ids || !json_is_object(v) || !s)
            return sonde_fail(err, SONDE_E_INPUT,
                              "%s: added_tokens_decoder has '%.40s', which is no id with a content", what,
                              key);
        struct added_token a = {.id = (int32_t)id,
                                .s = s,
                                .n = strlen(s),
                                .special = flag(v, "special"),
                                .normalized = flag(v, "normalized"),
                                .lstrip = flag(v, "lstrip"),
                                .rstrip = flag(v, "rstrip"),
                                .single_word = flag(v, "single_word")};
        enum sonde_code rc = tokenizer_add_token(t, &a, what, err);
        if (rc)
            return rc;
    }
    return SONDE_OK;
}
