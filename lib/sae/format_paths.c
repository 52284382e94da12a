/* SPDX-License-Identifier: MIT
 * Directories of dictionaries, and JSON beside them. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../file/json.h"
#include "../base/replace.h"
#include "../base/size.h"
#include "format_impl.h"

void sonde_dict_note(char note[SONDE_DICT_NOTE], const char *fmt, ...)
{
    size_t n = strlen(note);
    if (n && n + 2 < SONDE_DICT_NOTE) {
        memcpy(note + n, "; ", 3);
        n += 2;
    }
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(note + n, SONDE_DICT_NOTE - n, fmt, ap);
    va_end(ap);
    for (char *p = note; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
}

bool sonde_dict_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool sonde_dict_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

enum sonde_code sonde_dict_join(const char *dir, const char *name, char **out, sonde_err *err)
{
    size_t n, k = strlen(dir), m = strlen(name);
    if (!sonde_add(&n, k, m) || !sonde_add(&n, n, 2) || !(*out = malloc(n)))
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the path", dir);
    memcpy(*out, dir, k);
    size_t at = k;
    if (k && dir[k - 1] != '/')
        (*out)[at++] = '/';
    memcpy(*out + at, name, m + 1);
    return SONDE_OK;
}

bool sonde_dict_has(const char *dir, const char *name)
{
    char *path;
    if (!sonde_dict_is_dir(dir) || sonde_dict_join(dir, name, &path, NULL) != SONDE_OK)
        return false;
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

enum sonde_code sonde_dict_dir_of(const char *path, char **out, sonde_err *err)
{
    const char *slash = strrchr(path, '/');
    if (sonde_dict_is_dir(path))
        *out = strdup(path);
    else if (!slash)
        *out = strdup(".");
    else
        *out = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    return *out ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the path", path);
}

enum sonde_code sonde_dict_make_dir(const char *path, const char *const *names, bool overwrite,
                                    sonde_err *err)
{
    if (mkdir(path, 0777) && errno != EEXIST)
        return sonde_fail(err, SONDE_E_IO, "%s: cannot make the directory: %s", path, strerror(errno));
    if (!sonde_dict_is_dir(path))
        return sonde_fail(err, SONDE_E_USAGE, "%s: is there and not a directory", path);
    const char *last = NULL;
    for (; *names; names++) {
        last = *names;
        if (!overwrite && sonde_dict_has(path, last))
            return sonde_fail(err, SONDE_E_USAGE, "%s/%s: exists already; --force replaces it", path, last);
    }
    char *whole;
    enum sonde_code rc = last ? sonde_dict_join(path, last, &whole, err) : SONDE_OK;
    if (rc != SONDE_OK || !last)
        return rc;
    if (unlink(whole) && errno != ENOENT)
        rc = sonde_fail(err, SONDE_E_IO, "%s: cannot remove it: %s", whole, strerror(errno));
    else
        rc = sonde_sync_parent(whole, err);
    free(whole);
    return rc;
}

enum sonde_code sonde_dict_write_json(const char *path, json_t *object, bool overwrite, sonde_err *err)
{
    sonde_replace *r = NULL;
    char *text =
        object ? sonde_json_text(object, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(object);
    if (!text)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to write it", path);
    enum sonde_code rc = sonde_replace_begin(path, overwrite, &r, err);
    if (rc == SONDE_OK)
        rc = sonde_replace_write(r, text, strlen(text), err);
    if (rc == SONDE_OK)
        rc = sonde_replace_write(r, "\n", 1, err);
    if (r) {
        if (rc == SONDE_OK)
            rc = sonde_replace_commit(r, err);
        else
            sonde_replace_abandon(r);
    }
    free(text);
    return rc;
}
