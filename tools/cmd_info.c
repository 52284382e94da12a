/* SPDX-License-Identifier: MIT
 * sonde info: what a file is. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "dict_rows.h"
#include "info.h"

const struct info_kind *const info_kinds[] = {
    &info_sae, &info_model, &info_hdf5, &info_gguf, &info_npy, &info_npz, &info_llama2c, &info_safetensors, &info_pickle, &info_llama2c_v0, NULL,
};

bool info_has_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path), k = strlen(suffix);
    return n > k && !strcmp(path + n - k, suffix);
}

json_t *info_string(const char *s, size_t n)
{
    json_t *v = json_stringn(s, n); /* NULL where s is not UTF-8 */
    if (v)
        return v;
    char *visible = tool_visible(s, n);
    v = visible ? json_string(visible) : NULL;
    free(visible);
    return v;
}

static enum sonde_code look(const char *path, struct info_glance *g, sonde_err *err)
{
    *g = (struct info_glance){.path = path};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &g->st)) {
        enum sonde_code rc = sonde_fail(err, SONDE_E_IO, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return rc;
    }
    if (S_ISREG(g->st.st_mode)) {
        ssize_t k = pread(fd, g->head, sizeof g->head, 0);
        g->n_head = k > 0 ? (size_t)k : 0;
    }
    close(fd);
    if (!S_ISREG(g->st.st_mode) && !S_ISDIR(g->st.st_mode))
        return sonde_fail(err, SONDE_E_INPUT, "%s: is neither a regular file nor a directory", path);
    return SONDE_OK;
}

static enum sonde_code unknown_kind(const char *path, sonde_err *err)
{
    char names[300] = "";
    size_t n = 0;
    for (const struct info_kind *const *k = info_kinds; *k && n < sizeof names; k++)
        if (*k != &info_pickle && (k == info_kinds || strcmp(k[-1]->name, (*k)->name)) &&
            *k != &info_llama2c_v0)
            n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", (*k)->name);
    sonde_fail(err, SONDE_E_INPUT, "%s: is of none of the kinds that sonde info knows (%s)", path, names);
    return dict_unfinished(path, SONDE_E_INPUT, err);
}

static enum sonde_code describe(struct tool *t, const struct info_options *o, const char *path, json_t **out,
                                sonde_err *err)
{
    struct info_glance g;
    enum sonde_code rc = look(path, &g, err);
    if (rc)
        return rc;
    const struct info_kind *const *k = info_kinds;
    while (*k && !(*k)->probe(&g))
        k++;
    if (!*k)
        return unknown_kind(path, err);
    json_t *object = json_object();
    int bad = json_object_set_new(object, "path", info_string(path, strlen(path)));
    bad |= json_object_set_new(object, "format", json_string((*k)->name));
    if (S_ISREG(g.st.st_mode))
        bad |= json_object_set_new(object, "bytes", json_integer((json_int_t)g.st.st_size));
    rc = bad ? sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to describe it", path)
             : (*k)->describe(t, o, &g, object, err);
    if (rc)
        json_decref(object);
    else
        *out = object;
    return rc;
}

/* A file that cannot be described does not keep the others from it; the first failure decides the exit
 * status. */
static enum sonde_code run(struct tool *t, const void *values, sonde_err *err)
{
    const struct info_options *o = values;
    enum sonde_code first = SONDE_OK;
    json_t *all = json_array();
    for (size_t i = 0; i < t->n_operands && !tool_output_broken(); i++) {
        json_t *object = NULL;
        sonde_err one = {0};
        enum sonde_code rc = describe(t, o, t->operand[i], &object, &one);
        if (!rc && t->common->json) {
            json_array_append_new(all, object);
        } else if (!rc) {
            printf("%s", i ? "\n" : "");
            rc = info_print(object, &one);
            json_decref(object);
        }
        if (rc && !first) {
            first = rc;
            *err = one;
        } else if (rc) {
            fprintf(stderr, "sonde info: %s\n", one.msg);
        }
    }
    if (!t->common->json || (first && json_array_size(all) == 0)) {
        json_decref(all);
        return first;
    }
    sonde_err ignored;
    enum sonde_code rc = tool_print_json(json_pack("{s:o}", "files", all), first ? &ignored : err);
    return first ? first : rc;
}

static const struct option options[] = {
    {"no-hash", OPT_FLAG, offsetof(struct info_options, no_hash), NULL,
     "do not compute the SHA-256 of files"},
};

const struct command cmd_info = {
    .name = "info",
    .about = "says what a file is: kind, sizes, parameter count, hash, metadata, tensors",
    .operands = "FILE...",
    .min_operands = 1,
    .max_operands = -1,
    .examples =
        (const char *const[]){"sonde info model.safetensors", "every tensor with its type and shape",
                              "sonde info --json *.gguf", "the same as JSON, for several files", NULL},
    .details = "Reads dictionaries (SAEs), model directories, activation stores and other HDF5 files, safetensors, GGUF, npy, npz and "
               "llama2.c files. Nothing in a file is believed before "
               "it is checked: a malformed "
               "one is refused with exit status 3.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .common = TAKES_MEMORY | TAKES_JSON | TAKES_PROGRESS,
    .n_values = sizeof(struct info_options),
    .run = run,
};
