/* SPDX-License-Identifier: MIT
 * sonde convert: a dictionary from one tool's format to another's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "dict_rows.h"
#include "info.h"
#include "sae/dict_file.h"

struct convert_options {
    const char *to, *from;
    bool unit_norm_decoder, gated_to_jumprelu, pre_bias, no_pre_bias;
};

/* IN OUT, or IN -o OUT. A dry run needs no OUT. */
static enum sonde_code find_output(const struct tool *t, const char **out, sonde_err *err)
{
    *out = t->common->output;
    if (t->n_operands == 2 && *out)
        return sonde_fail(err, SONDE_E_USAGE, "the result is named twice, '%s' and -o '%s'", t->operand[1],
                          *out);
    if (t->n_operands == 2)
        *out = t->operand[1];
    if (!*out && !t->common->dry_run)
        return sonde_fail(err, SONDE_E_USAGE, "no place for the result: sonde convert IN OUT --to FORMAT");
    return SONDE_OK;
}

static int add(json_t *changes, const char *what)
{
    return json_array_append_new(changes, json_string(what));
}

/* The changes that were asked for, each named in `changes`. */
static enum sonde_code change(const struct convert_options *o, sonde_dict *d, json_t *changes, sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    int bad = 0;
    if (o->pre_bias && o->no_pre_bias)
        return sonde_fail(err, SONDE_E_USAGE, "only one of --pre-bias and --no-pre-bias is possible");
    if (o->gated_to_jumprelu) {
        rc = sonde_dict_gated_to_jumprelu(d, err);
        bad |= add(changes, "gated to jumprelu");
    }
    if (!rc && o->unit_norm_decoder) {
        rc = sonde_dict_unit_decoder(d, false, err);
        bad |= add(changes, "decoder rows to norm 1");
    }
    if (!rc && (o->pre_bias || o->no_pre_bias)) {
        rc = sonde_dict_set_pre_bias(d, o->pre_bias, err);
        bad |= add(changes,
                   o->pre_bias ? "b_dec is subtracted from inputs" : "b_dec is not subtracted from inputs");
    }
    return rc ? rc : bad ? sonde_fail(err, SONDE_E_MEMORY, "no memory for the result") : SONDE_OK;
}

static enum sonde_code summary(const char *out, const char *from, const char *to, const sonde_dict *d,
                               const char *note, json_t *changes, json_t **result, sonde_err *err)
{
    char hex[65];
    enum sonde_code rc = sonde_dict_identity(d, hex, err);
    if (rc)
        return rc;
    json_t *v = json_object();
    int bad = v == NULL;
    if (out)
        bad |= json_object_set_new(v, "path", info_string(out, strlen(out)));
    bad |= json_object_set_new(v, "from", json_string(from)) | json_object_set_new(v, "to", json_string(to));
    bad |= info_put_dict(v, d);
    if (json_array_size(changes))
        bad |= json_object_set(v, "changes", changes);
    if (note[0])
        bad |= json_object_set_new(v, "note", info_string(note, strlen(note)));
    bad |= json_object_set_new(v, "identity", json_string(hex));
    if (bad) {
        json_decref(v);
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for the result");
    }
    *result = v;
    return SONDE_OK;
}

static enum sonde_code print(struct tool *t, json_t *v, sonde_err *err)
{
    if (t->common->json)
        return tool_print_json(v, err);
    tool_result(t);
    enum sonde_code rc = info_print(v, err);
    json_decref(v);
    return rc;
}

static enum sonde_code run(struct tool *t, const void *values, sonde_err *err)
{
    const struct convert_options *o = values;
    const char *out = NULL;
    char note[400];
    sonde_dict *d = NULL;
    json_t *result = NULL, *changes = NULL;
    enum sonde_code rc = find_output(t, &out, err);
    if (!rc)
        rc = sonde_dict_load(t->operand[0], o->from, t->budget, &d, note, err);
    rc = dict_unfinished(t->operand[0], rc, err);
    if (rc)
        return rc;
    const char *from = d->format;
    changes = json_array();
    rc = change(o, d, changes, err);
    if (!rc && !t->common->dry_run)
        rc = sonde_dict_save(d, o->to, out, t->common->force, err);
    if (!rc && !strcmp(o->to, "saelens") && !sonde_dict_in_saelens(d))
        tool_note(t, "SAELens has no %s of this kind: only sonde reads this directory",
                  sonde_dict_act_name(d->act));
    if (!rc)
        rc = summary(t->common->dry_run ? NULL : out, from, o->to, d, note, changes, &result, err);
    if (!rc)
        rc = print(t, result, err);
    json_decref(changes);
    sonde_dict_free(d);
    return rc;
}

#define AT(field) offsetof(struct convert_options, field)

static const struct option options[] = {
    {"to", OPT_STRING, AT(to), "FORMAT", "the format to write", .fallback = "saelens", .flags = OPT_RESULT},
    {"from", OPT_STRING, AT(from), "FORMAT", "the format of IN, where it is not to be found out",
     .flags = OPT_RESULT},
    {"unit-norm-decoder", OPT_FLAG, AT(unit_norm_decoder), NULL,
     "decoder rows get norm 1; latents and encoder take the norm", .flags = OPT_RESULT},
    {"gated-to-jumprelu", OPT_FLAG, AT(gated_to_jumprelu), NULL, "write a gated dictionary as a jumprelu one",
     .flags = OPT_RESULT},
    {"pre-bias", OPT_FLAG, AT(pre_bias), NULL, "b_dec is subtracted from inputs; b_enc makes up for it",
     .flags = OPT_RESULT},
    {"no-pre-bias", OPT_FLAG, AT(no_pre_bias), NULL, "b_dec is not subtracted from inputs",
     .flags = OPT_RESULT},
};

const struct command cmd_convert = {
    .name = "convert",
    .about = "takes a dictionary from one tool's format to another's",
    .operands = "IN [OUT]",
    .min_operands = 1,
    .max_operands = 2,
    .examples =
        (const char *const[]){"sonde convert ae.pt sae/",
                              "a dictionary of another tool for SAELens and sonde",
                              "sonde convert sae/ ae/ --to dictionary_learning --unit-norm-decoder",
                              "a dictionary for dictionary_learning, with decoder rows of norm 1", NULL},
    .details =
        "Formats are saelens, sparsify, dictionary_learning, gemma_scope, gemma_scope_2, openai and "
        "circuit_tracer, as far as sonde info shows them; every command reads all of them by itself. What "
        "a format cannot hold is refused, with what would help. Changes of form are exact: the "
        "dictionary computes the same to float32 rounding.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .common = TAKES_OUTPUT | TAKES_DRY_RUN | TAKES_MEMORY | TAKES_JSON | TAKES_PROGRESS,
    .n_values = sizeof(struct convert_options),
    .run = run,
};
