/* SPDX-License-Identifier: MIT
 * sonde eval: sections that each fill keys of one JSON object, from which the table for people is printed. */
#ifndef SONDE_TOOLS_EVAL_H
#define SONDE_TOOLS_EVAL_H

#include "dict_rows.h"
#include "sae/baseline.h"
#include "sae/metrics.h"

struct eval_options {
    struct dict_rows_options rows;
    bool latents; /* arrays with a number for each latent */
    const char *truth;
    bool baselines;
    uint64_t permuted_tokens; /* OPTION_WORD: as many as the dictionary was trained on */
    uint64_t splice_tokens; /* next tokens with the model in the loop; OPTION_WORD: all, or as many as rows */
};

#define EVAL_MAX_BASELINES 3

struct eval_baseline {
    sonde_replacement replace;
    sonde_metrics *metrics;
};

/* What the sections share. */
struct eval {
    struct tool *t;
    const struct eval_options *o;
    struct dict_rows in;       /* the dictionary, its encoder, the source, the split */
    sonde_metrics *metrics;    /* once eval_metrics has run */
    sonde_baselines baselines; /* with --baselines */
    struct eval_baseline baseline[EVAL_MAX_BASELINES];
    size_t n_baselines;
    json_t *out;
};

/* Sections, in the order of cmd_eval.c's list. One that has nothing to do (no model, an option not given)
 * returns SONDE_OK. */
typedef enum sonde_code eval_section(struct eval *e, sonde_err *err);
eval_section eval_subject; /* what is measured, on what */
eval_section eval_metrics;
eval_section eval_geometry;
eval_section eval_truth;
eval_section eval_baselines; /* before eval_splice, which scores them too */
eval_section eval_splice;
eval_section eval_permuted; /* one more row of the baselines */

void eval_put_baseline_scores(struct eval *e, size_t i, const sonde_splice_score *s);
void eval_print_baselines(const struct eval *e);
void eval_baselines_close(struct eval *e);

/* Set a key. A number that is NaN becomes null. Without memory the object ends as an error when it is
 * printed. */
void eval_put(struct eval *e, const char *key, double value);
void eval_put_count(struct eval *e, const char *key, uint64_t value);
void eval_put_text(struct eval *e, const char *key, const char *value); /* NULL: nothing; made printable */
void eval_put_value(struct eval *e, const char *key, json_t *value);    /* takes the reference */

/* The table for people: lines of eval_print.c whose keys are there. */
void eval_print(const struct eval *e);

#endif
