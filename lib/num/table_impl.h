/* SPDX-License-Identifier: MIT
 * The kernels over lanes, as a table. Include after a lanes_*_impl.h and define TABLE. */
#include "kernels_impl.h"
#include "vec_impl.h"
#include "rows_impl.h"
#include "sparse_impl.h"
#include "product_impl.h"
#include "bf16_impl.h"

/* What every table of these lanes shares; the products stand beside. */
#define LANE_KERNELS                                                                                         \
    .transpose16 = transpose16, .exp = vec_exp, .tanh = vec_tanh, .activate = vec_activate,                  \
    .activate_gated = vec_activate_gated, .softcap = vec_softcap, .add = vec_add, .norm_stats = norm_stats,  \
    .norm_apply = norm_apply, .norm_affine = norm_affine, .norm_rows = norm_rows,                            \
    .softmax_row = softmax_row, .exp_sum = exp_sum, .row_topk = row_topk, .rope_row = rope_row,              \
    .to_f16 = to_f16, .to_bf16 = to_bf16, .from_f16 = from_f16, .from_bf16 = from_bf16,                      \
    .all_finite = all_finite, .column_sums = column_sums, .scan_above = scan_above,                          \
    .scan_above_each = scan_above_each, .count_above = count_above, .kth_largest = kth_largest,              \
    .keep_largest = keep_largest, .gather_sum = gather_sum, .gather_dot = gather_dot, .dot = dot,            \
    .sum_squares = sum_squares, .axpy = vec_axpy, .scale = vec_scale, .sub = vec_sub,                        \
    .adam_update = adam_update, .round16 = round16, .scan16 = scan16, .chains = chains

const sonde_kernels TABLE = {
    .name = KERNEL_NAME,
    .panel = PANEL,
    .matmul = matmul,
    LANE_KERNELS,
};
