/* SPDX-License-Identifier: MIT
 * What .npy and .npz share. */
#ifndef SONDE_FILE_NPY_IMPL_H
#define SONDE_FILE_NPY_IMPL_H

#include "npy.h"

#define SONDE_NPY_MAX_PREFIX                                                                                 \
    (12 + 10000) /* magic and lengths, then the header; NumPy reads 10,000 bytes of it too */

/* What stands before the data. */
typedef struct sonde_npy_head {
    sonde_tensor shape; /* type, rank and dimensions; n_bytes of the data */
    size_t n_prefix;    /* bytes before the data */
} sonde_npy_head;

/* Read the head of an array from its first n bytes (all of it, or at least SONDE_NPY_MAX_PREFIX). what names
 * the array in messages. */
enum sonde_code sonde_npy_read_head(const unsigned char *p, size_t n, const char *what, sonde_npy_head *out,
                                    sonde_err *err);

#define SONDE_NPY_HEAD 1024

/* All that stands before the data of t, as numpy.save writes it. path is for messages. Errors: SONDE_E_USAGE
 * (a type that NumPy lacks, a shape that does not fit the bytes). */
enum sonde_code sonde_npy_make_head(const char *path, const sonde_tensor *t, char head[SONDE_NPY_HEAD],
                                    size_t *n_head, sonde_err *err);

#endif
