/* SPDX-License-Identifier: MIT
 * safetensors: read (single file, or shards behind an index) and write. */
#ifndef SONDE_FILE_SAFETENSORS_H
#define SONDE_FILE_SAFETENSORS_H

#include <stdbool.h>

#include "tensors.h"

/* Open one file. Refuses what reliability rule and format forbid: header over 100 MB or over the file, not beginning
 * with '{', duplicate keys, ranks over 8, unknown dtypes, offsets that are not exactly numel * size, that overlap, leave
 * holes or do not end at the end of the file. Names: 1..1024 bytes of UTF-8 without control characters.
 * __metadata__ (string to string) becomes f->meta. Tensors come in the order of their data; the header order is lost. Errors: SONDE_E_IO, SONDE_E_INPUT, SONDE_E_MEMORY. */
enum sonde_code sonde_safetensors_open(const char *path, sonde_budget *budget, sonde_tensors **out, sonde_err *err);

/* Open "model.safetensors" or the shards named by "model.safetensors.index.json" in a directory. Shard names follow the
 * rule of sonde_map_open_in; every tensor of weight_map must be in its shard and nowhere else. */
enum sonde_code sonde_safetensors_open_dir(const char *dir, sonde_budget *budget, sonde_tensors **out, sonde_err *err);

/* Parse a whole file that is already in memory (m becomes owned by *out, on failure it is closed). */
enum sonde_code sonde_safetensors_parse(sonde_map *m, sonde_budget *budget, sonde_tensors **out, sonde_err *err);

/* Write tensors in the order given, header padded to 8 bytes with spaces, data contiguous; metadata strings in the
 * order given (n_meta pairs key, value). The same input gives the same bytes. Whole or not at all. */
enum sonde_code sonde_safetensors_write(const char *path, const sonde_tensor *tensor, size_t n_tensors,
                                        const char *const *meta, size_t n_meta, bool overwrite, sonde_err *err);

#endif
