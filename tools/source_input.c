/* SPDX-License-Identifier: MIT */
#include "source_input.h"

#include <sys/stat.h>

#include "exclude.h"

static enum sonde_code check_what_is_named(const struct source_input *in, const char *acts, sonde_err *err)
{
    bool text = in->text.text || in->text.jsonl || in->text.ids;
    if (acts && (text || in->model.model))
        return sonde_fail(err, SONDE_E_USAGE, "activations come from %.200s or from %s, not from both", acts,
                          text ? "a text" : "a model (--model)");
    struct stat st;
    if (acts && !stat(acts, &st) && S_ISDIR(st.st_mode))
        return sonde_fail(
            err, SONDE_E_INPUT,
            "%s: is a directory; activations are one file, ACTS.h5, ANY.h5:/DATASET or ACTS.npy", acts);
    if (acts)
        return SONDE_OK;
    if (!in->model.model && !text)
        return sonde_fail(err, SONDE_E_USAGE,
                          "no activations: name ACTS.h5, ANY.h5:/DATASET or ACTS.npy, or give --model DIR, "
                          "--text FILE and --hook NAME");
    if (!in->model.model)
        return sonde_fail(err, SONDE_E_USAGE, "the text needs a model: --model DIR");
    return input_check_text(&in->text, err);
}

/* The logits' hook, by any of its names. */
static bool takes_logits(const sonde_model *m, const char *spec)
{
    sonde_hook_list list = {0};
    bool logits = false;
    if (spec && sonde_hooks_add(&list, &m->arch, spec, NULL) == SONDE_OK)
        for (size_t i = 0; i < list.n; i++)
            logits = logits || list.hook[i].site == SONDE_SITE_LOGITS;
    sonde_hooks_free(&list);
    return logits;
}

static enum sonde_code open_text(struct tool *t, const struct source_input *in, const sonde_source_options *o,
                                 bool unembed, struct source_opened *out, sonde_err *err)
{
    const sonde_work *work = tool_work(t, err);
    enum sonde_code code = work ? input_model(t, &in->model, true, &out->model, err) : err->code;
    if (code)
        return code;
    unembed = unembed || takes_logits(out->model, o->hook) || takes_logits(out->model, o->hook_out);
    if (unembed && (code = sonde_model_load_unembed(out->model, work, err)))
        return code;
    if ((code = input_tokenizer(t, &in->model, out->model, !in->text.ids, &out->tokenizer, err)) ||
        (code = input_corpus(t, &in->text, out->model, out->tokenizer, &out->corpus, err)))
        return code;
    return sonde_source_model(out->model, out->corpus, out->tokenizer, o, t->budget, &out->source, err);
}

/* What was asked for by name must be possible. */
static enum sonde_code check_exclusion(const struct exclusion *e, const struct source_opened *s,
                                       const char *acts, sonde_err *err)
{
    const sonde_source_info *info = sonde_source_about(s->source);
    const sonde_row_filter *f = &e->filter;
    const char *what = acts ? acts : "the text";
    if (e->automatic)
        return SONDE_OK;
    if (!info->has_tokens && (f->bos || f->special || f->first || f->n_ids))
        return sonde_fail(err, SONDE_E_USAGE,
                          "%.200s: does not say which token a row belongs to, --exclude can only use norm:X",
                          what);
    if (!info->knows_special && (f->bos || f->special))
        return sonde_fail(
            err, SONDE_E_USAGE,
            "%.200s: no tokenizer says which tokens are %s; name them with --exclude ids:N or first:1", what,
            f->bos ? "BOS" : "special");
    return SONDE_OK;
}

enum sonde_code source_input_open(struct tool *t, const struct source_input *in, const char *acts,
                                  uint64_t seed, bool unembed, struct source_opened *out, sonde_err *err)
{
    struct exclusion e = {0};
    *out = (struct source_opened){0};
    enum sonde_code code = check_what_is_named(in, acts, err);
    if (!code)
        code = exclusion_parse(in->exclude, &e, err);
    const sonde_source_options o = {
        .hook = in->hook,
        .hook_out = in->hook_out,
        .filter = e.filter,
        .holdout = in->holdout,
        .seed = seed,
        .window_rows = in->window == OPTION_WORD ? 0 : (size_t)in->window,
        .verify = in->verify,
    };
    if (!code)
        code = acts ? sonde_source_open(acts, &o, t->budget, &out->source, err)
                    : open_text(t, in, &o, unembed, out, err);
    if (!code)
        code = check_exclusion(&e, out, acts, err);
    exclusion_free(&e);
    return code;
}

void source_input_close(struct source_opened *s)
{
    sonde_source_close(s->source);
    sonde_corpus_free(s->corpus);
    sonde_tokenizer_close(s->tokenizer);
    sonde_model_close(s->model);
    *s = (struct source_opened){0};
}
