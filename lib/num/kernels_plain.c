/* SPDX-License-Identifier: MIT
 * The tables "plain" and "openblas" (which differs in its products only), in C for any CPU. */
#include "lanes_plain_impl.h"

#define TABLE sonde_kernels_plain
#include "table_impl.h"

const sonde_kernels sonde_kernels_openblas = {
    .name = "openblas",
    .panel = 64,
    .matmul = sonde_openblas_matmul,
    LANE_KERNELS,
};
