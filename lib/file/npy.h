/* SPDX-License-Identifier: MIT
 * NumPy .npy (versions 1-3) and .npz (stored or deflated members): read and write. */
#ifndef SONDE_FILE_NPY_H
#define SONDE_FILE_NPY_H

#include <stdbool.h>

#include "tensors.h"

/* One array as a set of one tensor named "array". C order only, little-endian numeric types only (no objects,
 * structures, strings). The data must be exactly as long as the shape says. */
enum sonde_code sonde_npy_open(const char *path, sonde_budget *budget, sonde_tensors **out, sonde_err *err);
enum sonde_code sonde_npy_parse(sonde_map *m, sonde_budget *budget, sonde_tensors **out, sonde_err *err);

/* Every member "NAME.npy" of a zip as a tensor NAME. */
enum sonde_code sonde_npz_open(const char *path, sonde_budget *budget, sonde_tensors **out, sonde_err *err);
enum sonde_code sonde_npz_parse(sonde_map *m, sonde_budget *budget, sonde_tensors **out, sonde_err *err);

/* Write version 1.0, header padded to 64 bytes. Whole or not at all. */
enum sonde_code sonde_npy_write(const char *path, const sonde_tensor *t, bool overwrite, sonde_err *err);

/* Write a zip of stored members "NAME.npy" in the order given, as numpy.savez does. The same input gives the
 * same bytes; whole or not at all. Errors: SONDE_E_USAGE (a type that NumPy lacks, a name that no reader
 * takes or that comes twice, the file exists and not overwrite), SONDE_E_IO, SONDE_E_MEMORY. */
enum sonde_code sonde_npz_write(const char *path, const sonde_tensor *tensor, size_t n_tensors,
                                bool overwrite, sonde_err *err);

#endif
