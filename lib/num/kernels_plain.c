/* SPDX-License-Identifier: MIT
 * The tables "plain" and "openblas" (which differs in its products only), in C for any CPU. */
#include "lanes_plain_impl.h"

#define TABLE sonde_kernels_plain
#include "table_impl.h"

const sonde_kernels sonde_kernels_openblas = {
    .name = "openblas",
    .panel = 64,
    .matmul = sonde_openblas_matmul,
    .transpose16 = transpose16,
    .exp = vec_exp,
    .tanh = vec_tanh,
    .activate = vec_activate,
    .activate_gated = vec_activate_gated,
    .softcap = vec_softcap,
    .add = vec_add,
    .norm_stats = norm_stats,
    .norm_apply = norm_apply,
    .norm_affine = norm_affine,
    .norm_rows = norm_rows,
    .softmax_row = softmax_row,
    .exp_sum = exp_sum,
    .row_topk = row_topk,
    .rope_row = rope_row,
    .to_f16 = to_f16,
    .to_bf16 = to_bf16,
    .from_f16 = from_f16,
    .from_bf16 = from_bf16,
    .all_finite = all_finite,
    .column_sums = column_sums,
};
