/* SPDX-License-Identifier: MIT */
#include "dict_rows.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file/json.h"
#include "sae/dict_file.h"
#include "sae/metrics.h"

#define RUN_JSON_BYTES ((size_t)16 << 20)

/* ---- as in the training ------------------------------------------------------------------------ */

/* What the command line leaves open. */
struct defaults {
    const char *hook, *hook_out; /* or NULL */
    char exclude[1024];          /* "" if nothing is known */
    double holdout;              /* negative: not known */
    uint64_t seed, context;      /* context 0: not known */
};

static const char *meta_text(const sonde_dict *d, const char *key)
{
    const char *s = json_string_value(json_object_get(d->meta, key));
    return s && *s ? s : NULL;
}

__attribute__((format(printf, 2, 3))) static void add_word(char exclude[1024], const char *fmt, ...)
{
    char word[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(word, sizeof word, fmt, ap);
    va_end(ap);
    size_t n = strlen(exclude);
    snprintf(exclude + n, 1024 - n, "%s%s", n ? "," : "", word);
}

/* The filter of a source's identity in the words of --exclude. BOS alone is what "auto" means. */
static void exclude_text(const json_t *x, char exclude[1024])
{
    const json_t *ids = json_object_get(x, "ids"), *id;
    bool bos = json_integer_value(json_object_get(x, "bos_id")) >= 0;
    json_int_t first = json_integer_value(json_object_get(x, "first"));
    double norm = json_number_value(json_object_get(x, "max_norm"));
    size_t i;
    if (json_array_size(json_object_get(x, "special_ids")))
        add_word(exclude, "special");
    if (first > 0)
        add_word(exclude, "first:%" PRId64, (int64_t)first);
    if (norm > 0)
        add_word(exclude, "norm:%.9g", norm);
    json_array_foreach(ids, i, id)
    {
        json_int_t lo = json_integer_value(json_is_array(id) ? json_array_get(id, 0) : id);
        json_int_t hi = json_integer_value(json_is_array(id) ? json_array_get(id, 1) : id);
        for (; lo <= hi && strlen(exclude) < 960; lo++)
            add_word(exclude, "ids:%" PRId64, (int64_t)lo);
    }
    if (exclude[0] && bos)
        add_word(exclude, "bos");
    if (!exclude[0])
        strcpy(exclude, bos ? "auto" : "none");
}

/* run.json stands beside dictionaries of our training only. */
static void read_run(const char *dir, struct defaults *d)
{
    json_t *run = NULL;
    if (sonde_json_load_in(dir, "run.json", RUN_JSON_BYTES, &run, NULL))
        return;
    const json_t *data = json_object_get(run, "data"), *holdout = json_object_get(data, "holdout");
    const json_t *exclude = json_object_get(data, "exclude");
    json_int_t seed = json_integer_value(json_object_get(data, "seed"));
    d->seed = seed > 0 ? (uint64_t)seed : 0;
    if (json_is_number(holdout) && json_number_value(holdout) >= 0 && json_number_value(holdout) < 1)
        d->holdout = json_number_value(holdout);
    if (json_is_object(exclude))
        exclude_text(exclude, d->exclude);
    json_decref(run);
}

static struct defaults defaults_of(const char *path, const sonde_dict *dict)
{
    struct defaults d = {.holdout = -1};
    json_int_t context = json_integer_value(json_object_get(dict->meta, "context_size"));
    d.hook = meta_text(dict, "hook_name");
    d.hook_out = meta_text(dict, "hook_name_out");
    d.context = context > 0 ? (uint64_t)context : 0;
    if (json_is_true(json_object_get(dict->meta, "exclude_special_tokens")))
        strcpy(d.exclude, "bos,special");
    read_run(path, &d);
    return d;
}

/* ---- opening ----------------------------------------------------------------------------------- */

/* Defaults are tried first; where the activations know no such hook they may hold one only, and where they do
 * not know their tokens none can be left out. What the user asked for is never given up. */
static enum sonde_code open_with(struct tool *t, const struct dict_rows_options *o, const struct defaults *d,
                                 bool unembed, struct dict_rows *in, sonde_err *err)
{
    const char *acts = t->n_operands > 1 ? t->operand[1] : NULL;
    bool own_hook = !o->source.hook && d->hook && acts;
    bool own_exclude =
        !option_given(t->parsed, "exclude") && d->exclude[0] && strcmp(d->exclude, "auto") != 0;
    enum sonde_code first = SONDE_OK;
    for (int attempt = 0; attempt < 4; attempt++) {
        struct source_input s = o->source;
        bool drop_hook = attempt & 1, drop_exclude = attempt & 2;
        sonde_err why = {0};
        if ((drop_hook && !own_hook) || (drop_exclude && !own_exclude))
            continue;
        s.hook = s.hook || drop_hook ? s.hook : d->hook;
        s.hook_out = s.hook_out || drop_hook ? s.hook_out : d->hook_out;
        s.exclude = own_exclude && !drop_exclude ? d->exclude : s.exclude;
        s.holdout = option_given(t->parsed, "holdout") || d->holdout < 0 ? s.holdout : d->holdout;
        s.text.context = option_given(t->parsed, "context") || !d->context ? s.text.context : d->context;
        enum sonde_code code = source_input_open(t, &s, acts, in->seed, unembed, &in->opened, &why);
        snprintf(in->exclude, sizeof in->exclude, "%s", s.exclude);
        in->holdout = s.holdout;
        if (!code)
            return SONDE_OK;
        if (!first) {
            first = code; /* the first refusal says most */
            *err = why;
        }
        if (code != SONDE_E_USAGE)
            break;
        source_input_close(&in->opened);
    }
    return first;
}

static void tell_what_differs(struct tool *t, const struct dict_rows_options *o, const struct defaults *d,
                              const struct dict_rows *in)
{
    const char *hook = sonde_source_about(in->source)->hook;
    if (!o->source.hook && d->hook && hook[0] && strcmp(hook, d->hook) != 0)
        tool_note(t, "the dictionary was trained on %s, these are rows of %s", d->hook, hook);
    if (d->exclude[0] && strcmp(d->exclude, in->exclude) != 0 && sonde_source_about(in->source)->has_tokens)
        tool_note(t, "the training left out '%s', this leaves out '%s'", d->exclude, in->exclude);
    else if (in->exclude[0])
        tool_detail(t, "rows left out: %s", in->exclude);
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

static bool has_file(const char *dir, const char *name)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", dir, name) < 0)
        return false;
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

enum sonde_code dict_unfinished(const char *path, enum sonde_code code, sonde_err *err)
{
    if (code != SONDE_E_INPUT || !has_file(path, "run.json") || !has_file(path, "checkpoints") ||
        has_file(path, "cfg.json"))
        return code;
    return sonde_fail(
        err, SONDE_E_INPUT,
        "%s: holds a training run that is not finished, no dictionary yet; sonde train --resume "
        "goes on with it",
        path);
}

static enum sonde_code open_dict(struct tool *t, const struct dict_rows_options *o, struct dict_rows *in,
                                 sonde_err *err)
{
    char note[400] = "";
    enum sonde_code code = sonde_dict_load(t->operand[0], o->format, t->budget, &in->dict, note, err);
    if (!code && note[0])
        tool_detail(t, "%s: %s", t->operand[0], note);
    return dict_unfinished(t->operand[0], code, err);
}

enum sonde_code dict_rows_open(struct tool *t, const struct dict_rows_options *o, bool unembed,
                               struct dict_rows *in, sonde_err *err)
{
    if (o->all_rows && option_given(t->parsed, "split") && o->split != SONDE_SPLIT_ALL)
        return sonde_fail(err, SONDE_E_USAGE, "--all-rows and --split contradict each other");
    enum sonde_code code = tool_kernels(t, &in->kernels, err);
    if (code || (code = open_dict(t, o, in, err)))
        return code;
    const struct defaults d = defaults_of(t->operand[0], in->dict);
    in->seed = o->seed == OPTION_WORD ? d.seed : o->seed;
    if ((code = open_with(t, o, &d, unembed, in, err)))
        return code;
    in->source = in->opened.source;
    if ((code = sonde_dict_fits(in->dict, in->source, err)))
        return code;
    tell_what_differs(t, o, &d, in);
    choose_rows(t, o, in);
    if (!(in->work = tool_work(t, err)))
        return err->code;
    in->bf16 = o->precision == 1;
    if (in->bf16 && !sonde_bf16_available(in->kernels))
        tool_note(
            t,
            "this CPU has no bfloat16 products: --precision bf16 runs in float32, the results are the same");
    return sonde_encoder_new(in->dict, in->kernels, in->bf16, in->work->pool, t->budget, &in->encoder, err);
}

void dict_rows_close(struct dict_rows *in)
{
    sonde_encoder_free(in->encoder);
    source_input_close(&in->opened);
    sonde_dict_free(in->dict);
}

const char *dict_rows_path(const struct tool *t, const struct dict_rows_options *o)
{
    return t->n_operands > 1 ? t->operand[1] : input_path(&o->source.text);
}
