/* SPDX-License-Identifier: MIT
 * How every reader begins and ends a set of tensors. */
#ifndef SONDE_FILE_TENSORS_IMPL_H
#define SONDE_FILE_TENSORS_IMPL_H

#include "tensors.h"

/* An empty set with its arena and room for n_maps mappings; NULL when memory is out. */
sonde_tensors *sonde_tensors_new(const char *format, size_t n_maps, sonde_budget *budget, sonde_err *err);

/* The end of a reader that has come to rc with f, which may be NULL. SONDE_OK: index the names, give m to f
 * and f to the caller. Anything else: close m and f. */
enum sonde_code sonde_tensors_finish(sonde_tensors *f, sonde_map *m, enum sonde_code rc, sonde_tensors **out,
                                     sonde_err *err);

#endif
