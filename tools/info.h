/* SPDX-License-Identifier: MIT
 * What `sonde info` knows: a table of kinds, each with a way to recognise it and a way to describe it. */
#ifndef SONDE_TOOLS_INFO_H
#define SONDE_TOOLS_INFO_H

#include <sys/stat.h>

#include "file/tensors.h"
#include "sae/dict.h"
#include "tool.h"

/* What can be known of a path at a glance. */
struct info_glance {
    const char *path;
    struct stat st;
    unsigned char head[32]; /* the first bytes of a regular file, zeros after its end */
    size_t n_head;
};

struct info_options {
    bool no_hash;
};

/* describe fills a JSON object that the caller owns: its keys in reading order. Scalars become lines, objects
 * indented lines, and an array of objects a table with the keys of its first item as head. path and bytes are
 * there already. */
struct info_kind {
    const char *name;
    bool (*probe)(const struct info_glance *g);
    enum sonde_code (*describe)(struct tool *t, const struct info_options *o, const struct info_glance *g,
                                json_t *out, sonde_err *err);
};

/* The kinds in the order in which they are tried; NULL at the end (cmd_info.c). */
extern const struct info_kind *const info_kinds[];

extern const struct info_kind info_safetensors, info_gguf, info_npy, info_npz, info_llama2c, info_llama2c_v0,
    info_pickle, info_model, info_hdf5, info_sae;

/* Hash, counts, metadata and the table of tensors: what is the same for all files of tensors. f is closed. */
enum sonde_code info_describe_tensors(const struct info_options *o, const struct info_glance *g,
                                      sonde_tensors *f, json_t *out, sonde_err *err);

/* What a dictionary is: activation, sizes, norms, thresholds, where it belongs. 0, or not when memory is out. */

int info_put_dict(json_t *out, const sonde_dict *d);

bool info_begins(const struct info_glance *g, const char *magic, size_t n);
bool info_has_suffix(const char *path, const char *suffix);

/* A JSON string of text that may be anything: well-formed UTF-8 as it is, else made visible. */
json_t *info_string(const char *s, size_t n);

/* The object as lines and tables for a person. */
enum sonde_code info_print(const json_t *object, sonde_err *err);

#endif
