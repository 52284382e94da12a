/* SPDX-License-Identifier: MIT
 * Written by make_sae_truth.py with sae_lens 6.54.12, torch 2.15.0+cu132. */
#define TRUTH_N    24
#define TRUTH_F    16
#define TRUTH_D    10
#define TRUTH_ROWS 500

static const struct truth_scores {
    double mmcs, mmcs_weighted, recall_at_0_9, mcc, uniqueness, precision, recall, f1, accuracy, true_l0;
} more_truth = {
    .mmcs = 0.751359024,
    .mmcs_weighted = 0.746203786,
    .recall_at_0_9 = 0.5,
    .mcc = 0.8799564,
    .uniqueness = 0.875,
    .precision = 0.639254332,
    .recall = 0.793359339,
    .f1 = 0.698135316,
    .accuracy = 0.862500012,
    .true_l0 = 5.852,
};
static const struct truth_scores more_latents = {
    .mmcs = 0.825938262,
    .mmcs_weighted = 0.839286133,
    .recall_at_0_9 = 0.7,
    .mcc = 0.875858452,
    .uniqueness = 0.5625,
    .precision = 0.506920695,
    .recall = 0.575289965,
    .f1 = 0.523695171,
    .accuracy = 0.745000005,
    .true_l0 = 2.53,
};
