/* SPDX-License-Identifier: MIT
 * A tensor: a named, typed, shaped view of memory that somebody else owns. */
#ifndef SONDE_BASE_TENSOR_H
#define SONDE_BASE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#define SONDE_MAX_RANK 8

enum sonde_dtype {
    SONDE_F32 = 0,
    SONDE_F16,
    SONDE_BF16,
    SONDE_F64,
    SONDE_I8,
    SONDE_U8,
    SONDE_I16,
    SONDE_U16,
    SONDE_I32,
    SONDE_U32,
    SONDE_I64,
    SONDE_U64,
    SONDE_BOOL,
    SONDE_Q8_0,   /* blocks of 32 along the last dimension: one float16 scale, then 32 int8 */
    SONDE_OPAQUE, /* a type that can be listed and copied but not computed with (8-bit floats, complex, ...) */
    SONDE_N_DTYPES
};

/* Row-major; dim[0] is the outermost. rank 0 is a scalar. The data need not be aligned to its type. */
typedef struct sonde_tensor {
    const char *name;       /* UTF-8, NUL-terminated, no control characters */
    const char *type_name;  /* as the file spells it: "F32", "BF16", "F8_E4M3" */
    enum sonde_dtype dtype;
    int rank;
    uint64_t dim[SONDE_MAX_RANK];
    const void *data;
    size_t n_bytes;
} sonde_tensor;

/* Bytes of one element; 0 for SONDE_Q8_0 and SONDE_OPAQUE, which have no such number. */
size_t sonde_dtype_size(enum sonde_dtype t);

/* "float32", "bfloat16", ... */
const char *sonde_dtype_name(enum sonde_dtype t);

/* Number of elements. The reader that made the tensor has checked that it fits. */
size_t sonde_tensor_count(const sonde_tensor *t);

/* "[768, 2304]" into buf, cut where it does not fit; returns buf. */
char *sonde_shape_text(const uint64_t *dim, int rank, char *buf, size_t n);

#endif
