/* SPDX-License-Identifier: MIT
 * Files of torch.save (PyTorch 1.6 and later: a zip with a pickle in it), read as data and written. */
#ifndef SONDE_FILE_TORCHZIP_H
#define SONDE_FILE_TORCHZIP_H

#include <stdbool.h>

#include "tensors.h"

/* Every tensor of a state dict, or of dictionaries and lists in one another, as a tensor named by its path
 * ("ae.encoder.weight", "optimizer.state.0.exp_avg"; a tensor alone is "tensor"), in the order of the pickle;
 * every plain value beside them (int, float, bool, str; lists of one kind as arrays; None is left out) as a
 * metadata entry with the same kind of key.
 *
 * The pickle is walked by a machine that knows OrderedDict, dict, list, tuple, torch.Size, torch.device,
 * dtypes, tensors, parameters and storages; anything else is refused by its name, and no code runs. Tensors
 * lie in the mapping; those whose strides are not contiguous are copied (views that overlap themselves are
 * refused). Shared storages stay shared. Checksums must be right; files written without any are read. Errors:
 * SONDE_E_IO, SONDE_E_INPUT (also for files of torch before 1.6 and pickles of whole modules),
 * SONDE_E_MEMORY. */
enum sonde_code sonde_torchzip_open(const char *path, sonde_budget *budget, sonde_tensors **out,
                                    sonde_err *err);

/* The same for a file in memory (m becomes owned by *out, on failure it is closed). */
enum sonde_code sonde_torchzip_parse(sonde_map *m, sonde_budget *budget, sonde_tensors **out, sonde_err *err);

/* A plain value beside the tensors: int, float, bool or string. With a group it stands in a dictionary of
 * that name (values of one group follow each other), without one (NULL) beside the tensors. */
typedef struct sonde_torch_value {
    const char *group;
    sonde_meta value;
} sonde_torch_value;

/* Write an OrderedDict of tensors and values, in the order given, that torch.load(weights_only=True) reads.
 * Types: float32, float16, bfloat16, float64, int8, uint8, int16, int32, int64, bool. The same input gives
 * the same bytes; whole or not at all. Errors: SONDE_E_USAGE (another type, a name twice, exists and not
 * overwrite), SONDE_E_IO, SONDE_E_MEMORY. */
enum sonde_code sonde_torchzip_write(const char *path, const sonde_tensor *tensor, size_t n_tensors,
                                     const sonde_torch_value *value, size_t n_values, bool overwrite,
                                     sonde_err *err);

#endif
