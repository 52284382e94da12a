/* SPDX-License-Identifier: MIT */
#include "tensor.h"

#include <inttypes.h>
#include <stdio.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[SONDE_N_DTYPES] = {
    [SONDE_F32] = {"float32", 4}, [SONDE_F16] = {"float16", 2}, [SONDE_BF16] = {"bfloat16", 2},
    [SONDE_F64] = {"float64", 8}, [SONDE_I8] = {"int8", 1},     [SONDE_U8] = {"uint8", 1},
    [SONDE_I16] = {"int16", 2},   [SONDE_U16] = {"uint16", 2},  [SONDE_I32] = {"int32", 4},
    [SONDE_U32] = {"uint32", 4},  [SONDE_I64] = {"int64", 8},   [SONDE_U64] = {"uint64", 8},
    [SONDE_BOOL] = {"bool", 1},   [SONDE_Q8_0] = {"q8_0", 0},   [SONDE_OPAQUE] = {"opaque", 0},
};

size_t sonde_dtype_size(enum sonde_dtype t)
{
    return dtypes[t].size;
}

const char *sonde_dtype_name(enum sonde_dtype t)
{
    return dtypes[t].name;
}

size_t sonde_tensor_count(const sonde_tensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= (size_t)t->dim[i];
    return n;
}

char *sonde_shape_text(const uint64_t *dim, int rank, char *buf, size_t n)
{
    size_t at = (size_t)snprintf(buf, n, "[");
    for (int i = 0; i < rank && at < n; i++)
        at += (size_t)snprintf(buf + at, n - at, "%s%" PRIu64, i ? ", " : "", dim[i]);
    if (at < n)
        snprintf(buf + at, n - at, "]");
    return buf;
}
