/* SPDX-License-Identifier: MIT
 * GGUF versions 2 and 3: tensors of F32, F16, BF16 and Q8_0 (others are listed as opaque), and all metadata. */
#ifndef SONDE_FILE_GGUF_H
#define SONDE_FILE_GGUF_H

#include "tensors.h"

/* Dimensions come out row-major (the file's innermost-first order reversed). Errors: SONDE_E_IO, SONDE_E_INPUT,
 * SONDE_E_MEMORY. */
enum sonde_code sonde_gguf_open(const char *path, sonde_budget *budget, sonde_tensors **out, sonde_err *err);
enum sonde_code sonde_gguf_parse(sonde_map *m, sonde_budget *budget, sonde_tensors **out, sonde_err *err);

#endif
