/* SPDX-License-Identifier: MIT
 * Which reader a path needs, and the hash of what was read. */
#include <string.h>
#include <sys/stat.h>

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

static enum sonde_code read_one(sonde_tokenizer *t, const sonde_map *m, sonde_err *err)
{
    return tokenizer_read_bin(t, m, err);
}

/* vocab.json or encoder.json, and merges.txt beside it. */
static enum sonde_code read_pair(sonde_tokenizer *t, const char *dir, const char *vocab, sonde_err *err)
{
    sonde_map *m[2] = {NULL, NULL};
    enum sonde_code rc = sonde_map_open_in(dir, vocab, &m[0], err);
    if (!rc)
        rc = sonde_map_open_in(dir, "merges.txt", &m[1], err);
    if (!rc)
        rc = tokenizer_read_merges(t, m[0], m[1], err);
    if (!rc)
        hash_files(t, m, 2);
    sonde_map_close(m[0]);
    sonde_map_close(m[1]);
    return rc;
}

static enum sonde_code read_in(sonde_tokenizer *t, const char *dir, const char *name, sonde_err *err)
{
    sonde_map *m = NULL;
    enum sonde_code rc = sonde_map_open_in(dir, name, &m, err);
    if (!rc)
        rc = read_one(t, m, err);
    if (!rc)
        hash_files(t, &m, 1);
    sonde_map_close(m);
    return rc;
}

static enum sonde_code read_dir(sonde_tokenizer *t, const char *dir, sonde_err *err)
{
    bool merges = sonde_map_exists_in(dir, "merges.txt");
    if (sonde_map_exists_in(dir, "tokenizer.json"))
        return read_in(t, dir, "tokenizer.json", err);
    if (merges && sonde_map_exists_in(dir, "vocab.json"))
        return read_pair(t, dir, "vocab.json", err);
    if (merges && sonde_map_exists_in(dir, "encoder.json"))
        return read_pair(t, dir, "encoder.json", err);
    if (sonde_map_exists_in(dir, "tokenizer.model"))
        return read_in(t, dir, "tokenizer.model", err);
    if (sonde_map_exists_in(dir, "tokenizer.bin"))
        return read_in(t, dir, "tokenizer.bin", err);
    return sonde_fail(
        err, SONDE_E_INPUT,
        "%s: no tokenizer here; looked for tokenizer.json, vocab.json or encoder.json with merges.txt, "
        "tokenizer.model, tokenizer.bin",
        dir);
}

/* A file; merges.txt and vocab.json stand for the pair in their directory. */
static enum sonde_code read_file(sonde_tokenizer *t, const char *path, sonde_err *err)
{
    sonde_map *m = NULL;
    enum sonde_code rc = sonde_map_open(path, &m, err);
    if (!rc)
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
    rc = dir ? read_dir(t, path, err) : read_file(t, path, err);
    if (rc) {
        sonde_tokenizer_close(t);
        return rc;
    }
    *out = t;
    return SONDE_OK;
}
