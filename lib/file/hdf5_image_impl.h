/* SPDX-License-Identifier: MIT
 * An HDF5 file driver over a descriptor: reads come from the file, writes stay in a list in memory. Only for
 * the child. */
#ifndef SONDE_FILE_HDF5_IMAGE_IMPL_H
#define SONDE_FILE_HDF5_IMAGE_IMPL_H

#define H5_USE_110_API 1 /* the same calls when the library is newer */
#include <hdf5.h>

#include "hdf5_impl.h"

typedef struct sonde_h5_write {
    uint64_t at;
    size_t n;
    unsigned char *bytes;
} sonde_h5_write;

typedef struct sonde_h5_image {
    int fd;              /* -1: there is no file yet */
    uint64_t file_bytes; /* of fd */
    uint64_t eof;        /* of fd with what was written */
    uint64_t end;        /* end of the addresses that HDF5 has given out */
    sonde_h5_write *write;
    size_t n_writes, room;
    char words[120]; /* what HDF5 said when a call last failed */
} sonde_h5_image;

/* Start the library in this process: quiet, without plugins; an access list whose files are the image. */
enum sonde_code sonde_h5_begin(sonde_h5_image *image, int fd, hid_t *access, sonde_err *err);

/* SONDE_E_INPUT with what HDF5 said last: "what (words)". */
enum sonde_code sonde_h5_error(const sonde_h5_image *image, const char *what, sonde_err *err);

/* The type of a dataset in the file, a new identifier; bfloat16 is uint16. Negative if there is none. */
hid_t sonde_h5_type(enum sonde_dtype t);

#endif
