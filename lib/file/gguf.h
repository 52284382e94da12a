/* SPDX-License-Identifier: MIT
 * GGUF versions 2 and 3: tensors of F32, F16, BF16 and Q8_0 (others are listed as opaque), and all metadata.
 */
#ifndef SONDE_FILE_GGUF_H
#define SONDE_FILE_GGUF_H

#include "tensors.h"

/* Dimensions come out row-major (the file's innermost-first order reversed). Of a metadata number i, u and f
 * all hold the value (u of a negative one is 0, i of one over INT64_MAX is INT64_MAX; i and u of a float are
 * 0; bools are 0 or 1). Array items are int64_t for INT, double for FLOAT, uint64_t for UINT and BOOL,
 * sonde_bytes for STRING; strings of metadata are NUL-terminated copies, in arrays too, and may be any bytes.
 * Memory: at most about ten times the header's bytes.
 *
 * Refused: big-endian files, arrays of arrays, duplicate keys or tensor names, unknown types, more than 4
 * dimensions, general.alignment other than a power of two from 8 to 4096, and tensors that do not follow each
 * other from the start of the data to the end of the file with only padding between (no hole, no overlap,
 * nothing behind the last). Errors: SONDE_E_IO, SONDE_E_INPUT, SONDE_E_MEMORY. parse: m becomes owned by
 * *out, on failure it is closed. */
enum sonde_code sonde_gguf_open(const char *path, sonde_budget *budget, sonde_tensors **out, sonde_err *err);
enum sonde_code sonde_gguf_parse(sonde_map *m, sonde_budget *budget, sonde_tensors **out, sonde_err *err);

#endif
