/* SPDX-License-Identifier: MIT
 * sonde encode: every active latent of every row. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "dict_rows.h"
#include "sae/latents.h"

struct encode_options {
    struct dict_rows_options rows;
};

static enum sonde_code encode(struct tool *t, const struct encode_options *o, struct dict_rows *in,
                              sonde_latents_result *result, sonde_err *err)
{
    const sonde_store_attr attr[] = {
        {.path = "/", .name = "sae", .s = t->operand[0]},
        {.path = "/", .name = "dataset", .s = dict_rows_path(t, &o->rows)},
        {.path = "/", .name = "command", .s = t->canonical},
        {.path = "/", .name = "tool_version", .s = SONDE_VERSION},
    };
    const sonde_latents_options options = {
        .split = in->split,
        .max_rows = in->max_rows,
        .overwrite = t->common->force,
        .attr = attr,
        .n_attrs = sizeof attr / sizeof *attr,
    };
    return sonde_latents_write(t->common->output, in->dict, in->encoder, in->source, &options, in->work,
                               result, err);
}

static enum sonde_code report(struct tool *t, const struct dict_rows *in, const sonde_latents_result *r,
                              sonde_err *err)
{
    double l0 = (double)r->n_entries / (double)r->n_rows;
    if (t->common->json) {
        char *path = tool_visible(t->common->output, strlen(t->common->output));
        json_t *out = json_pack("{s:s,s:I,s:I,s:I,s:f}", "path", path ? path : "", "n_rows",
                                (json_int_t)r->n_rows, "n_latents", (json_int_t)in->dict->n_latents,
                                "n_entries", (json_int_t)r->n_entries, "l0", l0);
        free(path);
        return tool_print_json(out, err);
    }
    tool_result(t);
    printf("%s\n", t->common->output);
    tool_note(t, "%" PRIu64 " rows, %.3f latents active in each", r->n_rows, l0);
    return SONDE_OK;
}

static enum sonde_code run(struct tool *t, const void *values, sonde_err *err)
{
    const struct encode_options *o = values;
    struct dict_rows in = {0};
    sonde_latents_result result;
    if (!t->common->output)
        return sonde_fail(err, SONDE_E_USAGE, "no output: -o latents.h5");
    enum sonde_code code = dict_rows_open(t, &o->rows, false, &in, err);
    if (!code)
        code = encode(t, o, &in, &result, err);
    if (!code)
        code = report(t, &in, &result, err);
    dict_rows_close(&in);
    return code;
}

static const struct option option_table[] = {
    DICT_ROWS_OPTIONS(struct encode_options, rows, "all"),
};

const struct command cmd_encode = {
    .name = "encode",
    .about = "writes the active latents of every row, sparse",
    .operands = "SAE [ACTS.h5|ANY.h5:/PATH|ACTS.npy]",
    .min_operands = 1,
    .max_operands = 2,
    .examples = (const char *const[]){"sonde encode sae/ acts.h5 -o latents.h5", "every row of the file",
                                      "sonde encode sae/ acts.h5 --split heldout -o latents.h5",
                                      "rows of held-out documents only", NULL},
    .details =
        "latents.h5 holds compressed sparse rows: indptr, indices and values, as "
        "scipy.sparse.csr_matrix((values, indices, indptr)) takes them, and for each row its number in "
        "the activation file (rows/row), its token in the text (rows/token) and the token's id "
        "(rows/id), -1 where unknown.\n\nWhile it runs the disk holds the entries twice.",
    .options = option_table,
    .n_options = sizeof option_table / sizeof *option_table,
    .common = TAKES_OUTPUT | TAKES_THREADS | TAKES_MEMORY | TAKES_JSON | TAKES_KERNEL | TAKES_PROGRESS,
    .n_values = sizeof(struct encode_options),
    .saves_state = true,
    .run = run,
};
