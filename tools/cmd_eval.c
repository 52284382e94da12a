/* SPDX-License-Identifier: MIT
 * sonde eval: how good a dictionary is. */
#include "commands.h"
#include "eval.h"

static eval_section *const sections[] = {
    eval_subject,
    eval_metrics,
    eval_geometry,
    eval_truth,
    eval_baselines,
    eval_splice,
    eval_permuted,
};

static enum sonde_code run_sections(struct eval *e, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    if (!(e->out = json_object()))
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for the result");
    for (size_t i = 0; i < sizeof sections / sizeof *sections && !code; i++) {
        code = sections[i](e, err);
        if (!code && !e->out)
            code = sonde_fail(err, SONDE_E_MEMORY, "no memory for the result");
    }
    return code;
}

static enum sonde_code check(const struct tool *t, const struct eval_options *o, sonde_err *err)
{
    if (o->latents && !t->common->json)
        return sonde_fail(err, SONDE_E_USAGE, "--latents has no table, only --json");
    return SONDE_OK;
}

static enum sonde_code run(struct tool *t, const void *values, sonde_err *err)
{
    const struct eval_options *o = values;
    struct eval e = {.t = t, .o = o};
    enum sonde_code code = check(t, o, err);
    if (!code)
        code = dict_rows_open(t, &o->rows, true, &e.in, err);
    if (!code)
        code = run_sections(&e, err);
    if (!code && t->common->json) {
        code = tool_print_json(e.out, err);
        e.out = NULL;
    } else if (!code) {
        tool_result(t);
        eval_print(&e);
    }
    json_decref(e.out);
    eval_baselines_close(&e);
    sonde_metrics_free(e.metrics);
    dict_rows_close(&e.in);
    return code;
}

static const struct option options[] = {
    DICT_ROWS_OPTIONS(struct eval_options, rows, "auto"),
    {"latents", OPT_FLAG, offsetof(struct eval_options, latents), NULL,
     "with --json: arrays with the frequency, mean, maximum, norms and cosines of every latent"},
    {"truth", OPT_STRING, offsetof(struct eval_options, truth), "FILE",
     "compare with the true directions in this file (of sonde synth), and with what is active where", NULL,
     OPT_RESULT | OPT_FILE},
    {"baselines", OPT_FLAG, offsetof(struct eval_options, baselines), NULL,
     "beside the dictionary: as many principal components as it has active latents, and the mean activation of each "
     "token pair, both fitted to the train split",
     NULL, OPT_RESULT},
    {"permuted-tokens", OPT_COUNT, offsetof(struct eval_options, permuted_tokens), "N",
     "--baselines with --model: train a dictionary like this one on so many activations of the model with permuted "
     "weights; 0: none; auto: as many as this one, where its run.json tells",
     "auto", OPT_RESULT, .words = "auto"},
    {"splice-tokens", OPT_COUNT, offsetof(struct eval_options, splice_tokens), "N",
     "with --model: score so many next tokens with the dictionary in the model; 0: none; all: as many as --max-rows",
     "all", OPT_RESULT, .words = "all"},
};

const struct command cmd_eval = {
    .name = "eval",
    .about = "measures a dictionary: reconstruction, sparsity, geometry, what the model loses by it",
    .operands = "SAE [ACTS.h5|ANY.h5:/PATH|ACTS.npy]",
    .min_operands = 1,
    .max_operands = 2,
    .examples = (const char *const[]){"sonde eval sae/ acts.h5", "every metric, on the held-out documents",
                                      "sonde eval sae/ --model gpt2/ --text corpus.txt --json",
                                      "activations straight from the model, the result as JSON", NULL},
    .details =
        "The dictionary may be in any format that sonde reads. Rows are those of the held-out documents "
        "where the source has some; --split and --all-rows choose others. The hook is the one that the "
        "dictionary was trained on.\n\nexplained_variance is 1 - FVU; explained_variance_legacy the mean "
        "of the rows' shares; frac_variance_explained forgives a constant error. dead_features are "
        "latents that are active on none of the n_rows rows.\n\nWith --model the text runs through the model clean, with the "
        "reconstruction in the place of the hook's values, with zeros there, and with their mean over the train split. "
        "Rows that are left out keep their values and do not count. ce_loss_score is (zeros - dictionary) / (zeros - "
        "clean); kl_div is from the clean model's next-token distribution.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .common = TAKES_THREADS | TAKES_MEMORY | TAKES_JSON | TAKES_KERNEL | TAKES_PROGRESS,
    .n_values = sizeof(struct eval_options),
    .saves_state = true,
    .run = run,
};
