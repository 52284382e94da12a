/* SPDX-License-Identifier: MIT
 * What the safetensors reader, the shard reader and the writer share. */
#ifndef SONDE_FILE_SAFETENSORS_IMPL_H
#define SONDE_FILE_SAFETENSORS_IMPL_H

#include "safetensors.h"

#define SONDE_ST_MAX_HEADER 100000000u /* bytes of JSON, as in the reference library */

typedef struct sonde_st_type {
    const char *name;
    enum sonde_dtype dtype;
    size_t bits; /* of one element */
} sonde_st_type;

/* The type with this name, or NULL. */
const sonde_st_type *sonde_st_type_named(const char *name);

/* Bytes of a shape; false on overflow, or where 4- and 6-bit elements do not fill whole bytes. */
bool sonde_st_bytes(const sonde_st_type *type, const uint64_t *dim, int rank, size_t *n_bytes);

/* The tensors of one file, in the order of their data. */
typedef struct sonde_st_file {
    sonde_tensor *tensor;
    size_t n_tensors;
    sonde_meta *meta;
    size_t n_meta;
} sonde_st_file;

/* Read the header of m into arena. m stays the caller's. */
enum sonde_code sonde_st_read(const sonde_map *m, sonde_arena *arena, sonde_budget *budget,
                              sonde_st_file *out, sonde_err *err);

#endif
