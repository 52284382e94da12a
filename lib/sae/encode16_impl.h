/* SPDX-License-Identifier: MIT
 * What the two ways of encoding with bfloat16 products share. Private to sae/. */
#ifndef SONDE_SAE_ENCODE16_IMPL_H
#define SONDE_SAE_ENCODE16_IMPL_H

#include "encode_impl.h"

#define SMALLEST_POSITIVE 0x1p-149f

/* Row stride of a task's rows in bfloat16. */
static inline size_t stride16(size_t d)
{
    return (d + 31) / 32 * 32;
}

/* The rows of a task in bfloat16, with their bounds. False: no memory. */
bool sonde_round_rows16(const struct encode_job *job, struct encode_thread *t, size_t first, size_t rows);

/* The approximate products of a tile, into t->z. row: of the task. */
void sonde_tile16(const struct encode_job *job, struct encode_thread *t, size_t row, size_t rows, size_t col,
                  size_t cols);

/* The pick's scan over all columns, in float32, of n <= TILE_ROWS rows anywhere; row[i]: of x. False: no
 * memory.
 */
bool sonde_float32_rows(struct encode_job *job, struct encode_thread *t, size_t first, const size_t *row,
                        size_t n);

/* z of columns index[start[r]] .. of n_rows rows from `row` (of x) on: chains and bias, into wide.z. False:
 * no memory. */
bool sonde_exact16(const struct encode_job *job, struct encode_thread *t, size_t row, size_t n_rows,
                   const size_t *start, const uint32_t *index);

/* A task of BATCH. */
bool sonde_batch16_task(struct encode_job *job, struct encode_thread *t, size_t first, size_t rows);

#endif
