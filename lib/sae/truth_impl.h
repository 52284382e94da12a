/* SPDX-License-Identifier: MIT
 * The inside of a truth. */
#ifndef SONDE_SAE_TRUTH_IMPL_H
#define SONDE_SAE_TRUTH_IMPL_H

#include "../file/store.h"
#include "truth.h"

struct sonde_truth {
    sonde_truth_info info;
    sonde_arena *arena;
    sonde_store *store; /* NULL: in memory */
    char *path;
    size_t indptr, indices; /* datasets of the active latents */
    uint64_t n_entries;
};

#endif
