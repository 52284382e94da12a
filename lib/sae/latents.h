/* SPDX-License-Identifier: MIT
 * latents.h5: every active latent of every row, as compressed sparse rows.
 *
 *   /indptr   int64 [N+1]    row r has the entries indptr[r] .. indptr[r+1]
 *   /indices  int32 [nnz]    latents, ascending within a row
 *   /values   float32 [nnz]
 *   /rows/row, /rows/token   int64 [N]   row of the activation file, token of its text; -1 unknown
 *   /rows/id                 int32 [N]   the token's id; -1 unknown
 * attributes: format "sonde-latents", format_version, n_latents, n_rows, sae_sha256, source (JSON), hook,
 * split, and those of the caller. */
#ifndef SONDE_SAE_LATENTS_H
#define SONDE_SAE_LATENTS_H

#include "../file/store.h"
#include "infer.h"
#include "source.h"

typedef struct sonde_latents_options {
    enum sonde_split split;
    uint64_t max_rows;            /* 0: all of the split */
    bool overwrite;               /* false: SONDE_E_USAGE if the file exists */
    const sonde_store_attr *attr; /* more attributes, of the root: sae, command, tool_version, ... */
    size_t n_attrs;               /* at most 24 */
} sonde_latents_options;

typedef struct sonde_latents_result {
    uint64_t n_rows, n_entries;
} sonde_latents_result;

/* Encode a pass of s with e, which packs d, and write path. Entries go to a nameless temporary file in the
 * same directory first (the sizes have to be known to lay out the result), so the disk must hold them twice;
 * memory does not grow with the number of rows. path appears whole or not at all. Errors: SONDE_E_USAGE
 * (widths that do not fit, a split without rows, path exists), SONDE_E_IO, SONDE_E_NUMERIC, SONDE_E_MEMORY,
 * SONDE_E_STOPPED (nothing is left). */
enum sonde_code sonde_latents_write(const char *path, const sonde_dict *d, sonde_encoder *e, sonde_source *s,
                                    const sonde_latents_options *o, const sonde_work *work,
                                    sonde_latents_result *result, sonde_err *err);

#endif
