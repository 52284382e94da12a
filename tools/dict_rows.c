/* SPDX-License-Identifier: MIT */
#include "dict_rows.h"

#include <inttypes.h>
#include <string.h>

#include "sae/dict_file.h"
#include "sae/metrics.h"

enum sonde_code dict_rows_check(const struct tool *t, const struct dict_rows_options *o, sonde_err *err)
{
    if (o->all_rows && option_given(t->parsed, "split") && o->split != SONDE_SPLIT_ALL)
        return sonde_fail(err, SONDE_E_USAGE, "--all-rows and --split contradict each other");
    return SONDE_OK;
}

static const char *meta_text(const sonde_dict *d, const char *key)
{
    const char *s = json_string_value(json_object_get(d->meta, key));
    return s && *s ? s : NULL;
}

/* The hook that the dictionary was trained on is tried first; where the activations know no such name they
 * may hold one hook only. */
static enum sonde_code open_source(struct tool *t, const struct dict_rows_options *o, struct dict_rows *in,
                                   sonde_err *err)
{
    sonde_source_options s = {.hook = o->hook, .holdout = 0.05, .seed = t->common->seed};
    const char *path = t->operand[1], *hook = meta_text(in->dict, "hook_name");
    if (s.hook || !hook)
        return sonde_source_open(path, &s, t->budget, &in->source, err);
    s.hook = hook;
    s.hook_out = meta_text(in->dict, "hook_name_out");
    enum sonde_code code = sonde_source_open(path, &s, t->budget, &in->source, err);
    if (code != SONDE_E_USAGE)
        return code;
    sonde_err ignored = {0};
    s.hook = s.hook_out = NULL;
    if (sonde_source_open(path, &s, t->budget, &in->source, &ignored))
        return code; /* the first refusal says more */
    *err = (sonde_err){0};
    const char *found = sonde_source_about(in->source)->hook;
    if (found[0])
        tool_note(t, "the dictionary was trained on %s, these are rows of %s", hook, found);
    return SONDE_OK;
}

static void choose_rows(struct tool *t, const struct dict_rows_options *o, struct dict_rows *in)
{
    const sonde_source_info *about = sonde_source_about(in->source);
    in->max_rows = o->max_rows == OPTION_WORD ? 0 : o->max_rows;
    in->split = (enum sonde_split)(o->split == SPLIT_AUTO ? SONDE_SPLIT_HELDOUT : o->split);
    if (o->all_rows)
        in->split = SONDE_SPLIT_ALL;
    else if (o->split == SPLIT_AUTO && about->n_heldout == 0) {
        in->split = SONDE_SPLIT_ALL;
        tool_note(
            t,
            "nothing is held out: all rows count, also those that the dictionary may have been trained on");
    }
}

static enum sonde_code open_dict(struct tool *t, const struct dict_rows_options *o, struct dict_rows *in,
                                 sonde_err *err)
{
    char note[400] = "";
    enum sonde_code code = sonde_dict_load(t->operand[0], o->format, t->budget, &in->dict, note, err);
    if (!code && note[0])
        tool_detail(t, "%s: %s", t->operand[0], note);
    return code;
}

enum sonde_code dict_rows_open(struct tool *t, const struct dict_rows_options *o, struct dict_rows *in,
                               sonde_err *err)
{
    if (t->n_operands < 2)
        return sonde_fail(err, SONDE_E_USAGE, "no activations: name a file after the dictionary");
    enum sonde_code code = tool_kernels(t, &in->kernels, err);
    if (code || (code = open_dict(t, o, in, err)) || (code = open_source(t, o, in, err)) ||
        (code = sonde_dict_fits(in->dict, in->source, err)))
        return code;
    choose_rows(t, o, in);
    if (!(in->work = tool_work(t, err)))
        return err->code;
    return sonde_encoder_new(in->dict, in->kernels, true, in->work->pool, t->budget, &in->encoder, err);
}

void dict_rows_close(struct dict_rows *in)
{
    sonde_encoder_free(in->encoder);
    sonde_source_close(in->source);
    sonde_dict_free(in->dict);
}

const char *dict_rows_path(const struct tool *t, const struct dict_rows *in)
{
    (void)in;
    return t->operand[1];
}
