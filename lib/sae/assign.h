/* SPDX-License-Identifier: MIT
 * The linear assignment problem: pairs of rows and columns, each used once, of greatest or least sum. */
#ifndef SONDE_SAE_ASSIGN_H
#define SONDE_SAE_ASSIGN_H

#include <stddef.h>
#include <stdint.h>

#include "../base/work.h"

enum sonde_assign_goal { SONDE_ASSIGN_LEAST = 0, SONDE_ASSIGN_GREATEST };

/* Match min(n_rows, n_cols) pairs so that the sum of a[row][col] is least or greatest.
 *
 * a             [n_rows, n_cols]  float32, row stride ld, finite; not changed
 * column_of     [n_rows]          the column of each row, UINT32_MAX where it has none (n_rows > n_cols)
 * total         the sum over the pairs in double, rows ascending; NULL where it is not wanted
 *
 * Shortest augmenting paths with dual prices in double: O(k^2 K) for k <= K rows and columns, O(k + K) of
 * memory. Among equal paths the smaller column wins, so the result is a function of a alone. work (or NULL):
 * budget, stop flag and progress; its pool is not used. Errors: SONDE_E_NUMERIC (NaN or infinity: row and
 * column named), SONDE_E_USAGE (2^32 - 1 rows or columns and more), SONDE_E_MEMORY, SONDE_E_STOPPED. Source:
 * Jonker and Volgenant 1987; Crouse 2016 for the rectangular form. */
enum sonde_code sonde_assign(const float *a, size_t ld, size_t n_rows, size_t n_cols,
                             enum sonde_assign_goal goal, const sonde_work *work, uint32_t *column_of,
                             double *total, sonde_err *err);

#endif
