/* SPDX-License-Identifier: MIT
 * The table "avx2". Compiled with its own instruction-set flags: nothing here may run before the CPU is
 * asked. */
#include "lanes_avx2_impl.h"

#define TABLE sonde_kernels_avx2
#include "table_impl.h"
