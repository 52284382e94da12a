/* SPDX-License-Identifier: MIT
 * Which reader a path needs, and the hash of what was read. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../file/gguf.h"
#include "tokenizer_impl.h"

/* SHA-256 of the files in the order given. */
static void hash_files(sonde_tokenizer *t, sonde_map *const *m, size_t n)
{
    sonde_sha256 s;
    sonde_sha256_begin(&s);
    for (size_t i = 0; i < n; i++)
        if (m[i])
            sonde_sha256_add(&s, m[i]->data, m[i]->n_bytes);
    sonde_sha256_end(&s, t->sha256);
}

static bool ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), k = strlen(end);
    return n >= k && !strcmp(path + n - k, end);
}

/* By name where the name says it, else by the first bytes. */
static enum sonde_code read_one(sonde_tokenizer *t, const sonde_map *m, sonde_err *err)
{
    size_t at = 0;
    while (at < m->n_bytes && memchr(" \t\r\n", m->data[at], 4))
        at++;
    bool json = at < m->n_bytes && m->data[at] == '{';
    if (ends_with(m->path, ".json") || (json && !ends_with(m->path, ".bin") && !ends_with(m->path, ".model")))
        return tokenizer_read_json(t, m, err);
    if (ends_with(m->path, ".model"))
        return tokenizer_read_model(t, m, err);
    return tokenizer_read_bin(t, m, err);
}

/* vocab.json or encoder.json, and merges.txt beside it. */
static enum sonde_code read_pair(sonde_tokenizer *t, const char *dir, sonde_err *err)
{
    const char *vocab = sonde_map_exists_in(dir, "vocab.json") ? "vocab.json" : "encoder.json";
    sonde_map *m[2] = {NULL, NULL};
    struct config c = {0};
    enum sonde_code rc = config_open(dir, &c, err);
    if (!rc)
        rc = sonde_map_open_in(dir, vocab, &m[0], err);
    if (!rc)
        rc = sonde_map_open_in(dir, "merges.txt", &m[1], err);
    if (!rc)
        rc = tokenizer_read_merges(t, m[0], m[1], &c, err);
    if (!rc) {
        hash_files(t, m, 2);
        config_ends(t, &c, true);
    }
    sonde_map_close(m[0]);
    sonde_map_close(m[1]);
    config_close(&c);
    return rc;
}

static enum sonde_code read_in(sonde_tokenizer *t, const char *dir, const char *name, sonde_err *err)
{
    sonde_map *m = NULL;
    struct config c = {0};
    enum sonde_code rc = config_open(dir, &c, err);
    if (!rc)
        rc = sonde_map_open_in(dir, name, &m, err);
    if (!rc)
        rc = read_one(t, m, err);
    if (!rc) {
        hash_files(t, &m, 1);
        config_ends(t, &c, !ends_with(name, ".json"));
    }
    sonde_map_close(m);
    config_close(&c);
    return rc;
}

static enum sonde_code read_dir(sonde_tokenizer *t, const char *dir, sonde_err *err)
{
    static const char *const single[] = {"tokenizer.json", "tokenizer.model", "tokenizer.bin"};
    if (sonde_map_exists_in(dir, single[0]))
        return read_in(t, dir, single[0], err);
    if (sonde_map_exists_in(dir, "merges.txt") &&
        (sonde_map_exists_in(dir, "vocab.json") || sonde_map_exists_in(dir, "encoder.json")))
        return read_pair(t, dir, err);
    for (int i = 1; i < 3; i++)
        if (sonde_map_exists_in(dir, single[i]))
            return read_in(t, dir, single[i], err);
    return sonde_fail(
        err, SONDE_E_INPUT,
        "%s: no tokenizer here; looked for tokenizer.json, vocab.json or encoder.json with merges.txt, "
        "tokenizer.model, tokenizer.bin",
        dir);
}

/* Is it one of the pair? Then *dir (malloc'd) is where it lies. */
static bool names_pair(const char *path, char **dir)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    if (strcmp(base, "vocab.json") != 0 && strcmp(base, "encoder.json") != 0 &&
        strcmp(base, "merges.txt") != 0)
        return false;
    *dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    return true;
}

static enum sonde_code read_file(sonde_tokenizer *t, const char *path, sonde_budget *budget, sonde_err *err)
{
    sonde_map *m = NULL;
    char *dir;
    enum sonde_code rc;
    if (names_pair(path, &dir)) {
        rc = dir ? read_pair(t, dir, err) : sonde_fail(err, SONDE_E_MEMORY, "no memory for a path");
        free(dir);
        return rc;
    }
    rc = sonde_map_open(path, &m, err);
    if (rc)
        return rc;
    if (m->n_bytes >= 4 && !memcmp(m->data, "GGUF", 4)) {
        sonde_tensors *f = NULL;
        rc = sonde_gguf_parse(m, budget, &f, err);
        if (rc)
            return rc;
        rc = tokenizer_read_gguf(t, f, err);
        if (rc && err)
            sonde_err_wrap(err, "%s", path);
        sonde_tensors_close(f);
        return rc;
    }
    rc = read_one(t, m, err);
    if (!rc)
        hash_files(t, &m, 1);
    sonde_map_close(m);
    return rc;
}

enum sonde_code sonde_tokenizer_open(const char *path, sonde_budget *budget, sonde_tokenizer **out,
                                     sonde_err *err)
{
    sonde_tokenizer *t;
    struct stat st;
    enum sonde_code rc = tokenizer_new(budget, &t, err);
    if (rc)
        return rc;
    bool dir = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    rc = dir ? read_dir(t, path, err) : read_file(t, path, budget, err);
    if (rc) {
        sonde_tokenizer_close(t);
        return rc;
    }
    *out = t;
    return SONDE_OK;
}
