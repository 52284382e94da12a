/* SPDX-License-Identifier: MIT
 * A file (or a set of shards) of named tensors: what safetensors, GGUF and llama2.c readers return. */
#ifndef SONDE_FILE_TENSORS_H
#define SONDE_FILE_TENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "../base/arena.h"
#include "../base/tensor.h"
#include "map.h"

enum sonde_meta_type { SONDE_META_INT, SONDE_META_UINT, SONDE_META_FLOAT, SONDE_META_BOOL, SONDE_META_STRING, SONDE_META_ARRAY };

/* One metadata entry. Strings point into the mapping or the arena and are length-counted as well as NUL-terminated. */
typedef struct sonde_meta {
    const char *key;
    enum sonde_meta_type type;
    enum sonde_meta_type item; /* of an array */
    int64_t i;
    uint64_t u;
    double f;
    const char *s;
    size_t n_bytes;        /* of s */
    size_t n_items;        /* of an array */
    const void *items;     /* int64_t[], uint64_t[], double[], or struct sonde_bytes[] */
} sonde_meta;

typedef struct sonde_bytes {
    const char *s;
    size_t n;
} sonde_bytes;

/* Owns its mappings and its arena; the tensors' data point into the mappings. Names are unique. */
typedef struct sonde_tensors {
    const char *format; /* "safetensors", "gguf", "llama2c" */
    sonde_arena *arena;
    sonde_map **map; /* one per shard */
    size_t n_maps;
    const sonde_tensor *tensor;
    size_t n_tensors;
    const sonde_meta *meta;
    size_t n_meta;
    uint32_t *index; /* open-addressing hash of names, n_index a power of two; UINT32_MAX = empty */
    size_t n_index;
    uint64_t index_seed; /* random, so that no file can make the names collide */
} sonde_tensors;

/* The tensor with this name, or NULL. O(1). */
const sonde_tensor *sonde_tensors_find(const sonde_tensors *f, const char *name);

/* The metadata entry with this key, or NULL. */
const sonde_meta *sonde_meta_find(const sonde_tensors *f, const char *key);

/* Build the index over names. Errors: SONDE_E_INPUT naming a duplicate. For the readers. */
enum sonde_code sonde_tensors_index(sonde_tensors *f, const char *path, sonde_err *err);

void sonde_tensors_close(sonde_tensors *f); /* NULL is fine */

/* Elements [first, first + n) in row-major order as float32: exact for F16, BF16, I8..I32 below 2^24; Q8_0 is scale
 * times integer, rounded once; F64 rounded. Errors: SONDE_E_INPUT if the type cannot be converted (OPAQUE, ...). */
enum sonde_code sonde_tensor_to_f32(const sonde_tensor *t, size_t first, size_t n, float *out, sonde_err *err);

#endif
