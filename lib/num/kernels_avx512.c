/* SPDX-License-Identifier: MIT
 * The table "avx512". Compiled with its own instruction-set flags: nothing here may run before the CPU is
 * asked. */
#include "lanes_avx512_impl.h"

#define TABLE sonde_kernels_avx512
#include "table_impl.h"
