/* SPDX-License-Identifier: MIT
 * The table "neon". Compiled with its own instruction-set flags: nothing here may run before the CPU is
 * asked. */
#include "lanes_neon_impl.h"

#define TABLE sonde_kernels_neon
#include "table_impl.h"
