/* SPDX-License-Identifier: MIT */
#include "input.h"

#include <inttypes.h>

enum sonde_code input_model(struct tool *t, const struct model_input *in, bool defer_unembed,
                            sonde_model **out, sonde_err *err)
{
    sonde_model_options o = {.defer_unembed = defer_unembed};
    const sonde_work *work = tool_work(t, err);
    enum sonde_code code;
    if (!work)
        return err->code;
    if ((code = tool_kernels(t, &o.kernels, err)) ||
        (code = sonde_processing_parse(in->processing, &o.processing, err)) ||
        (code = sonde_model_open(in->model, &o, work, out, err)))
        return code;
    const sonde_model *m = *out;
    if (m->n_unused)
        tool_note(t, "%s: %zu tensors are not used by the family '%s', e.g. '%s'", in->model, m->n_unused,
                  m->arch.family, m->first_unused);
    return SONDE_OK;
}

enum sonde_code input_tokenizer(struct tool *t, const struct model_input *in, const sonde_model *m,
                                bool needed, sonde_tokenizer **out, sonde_err *err)
{
    sonde_err why = {0};
    enum sonde_code code =
        sonde_tokenizer_open(in->tokenizer ? in->tokenizer : in->model, t->budget, out, &why);
    if (code == SONDE_E_INPUT && !in->tokenizer && !needed) {
        tool_detail(t, "no vocabulary is stored: %s", why.msg);
        *out = NULL;
        return SONDE_OK;
    }
    if (code) {
        *err = why;
        return in->tokenizer ? code
                             : sonde_err_wrap(err, "no tokenizer in the model (--tokenizer FILE names one)");
    }
    if ((size_t)sonde_tokenizer_size(*out) > m->arch.n_vocab) {
        code = sonde_fail(err, SONDE_E_INPUT, "%s: the tokenizer has %d tokens, the model's vocabulary %zu",
                          in->model, (int)sonde_tokenizer_size(*out), m->arch.n_vocab);
        sonde_tokenizer_close(*out);
        *out = NULL;
    }
    return code;
}

const char *input_path(const struct text_input *in)
{
    return in->text ? in->text : in->jsonl ? in->jsonl : in->ids;
}

enum sonde_code input_check_text(const struct text_input *in, sonde_err *err)
{
    if (!!in->text + !!in->jsonl + !!in->ids != 1)
        return sonde_fail(err, SONDE_E_USAGE, "give one of --text FILE, --jsonl FILE and --ids FILE.npy");
    return SONDE_OK;
}

uint64_t input_context(const struct text_input *in, const sonde_model *m)
{
    return in->context < m->arch.n_ctx ? in->context : m->arch.n_ctx;
}

enum sonde_code input_corpus(struct tool *t, const struct text_input *in, const sonde_model *m,
                             const sonde_tokenizer *tokenizer, sonde_corpus **out, sonde_err *err)
{
    sonde_corpus_options o = {
        .text_path = in->text,
        .jsonl_path = in->jsonl,
        .ids_path = in->ids,
        .field = in->field,
        .separator = in->separator,
        .n_context = (size_t)input_context(in, m),
        .packing = (enum sonde_packing)in->packing,
        .bos = (enum sonde_bos)in->bos,
        .max_tokens = in->max_tokens == OPTION_WORD ? 0 : in->max_tokens,
        .n_vocab = (int32_t)m->arch.n_vocab,
    };
    if (in->context > m->arch.n_ctx && option_given(t->parsed, "context"))
        return sonde_fail(err, SONDE_E_USAGE, "--context %" PRIu64 " is longer than the %zu tokens of %s",
                          in->context, m->arch.n_ctx, m->path);
    const sonde_work *work = tool_work(t, err);
    if (!work)
        return err->code;
    enum sonde_code code = sonde_corpus_read(&o, tokenizer, work, out, err);
    if (!code && (*out)->n_invalid)
        tool_note(t, "%s: %" PRIu64 " bytes are not UTF-8; each was kept as a token of its own",
                  input_path(in), (*out)->n_invalid);
    return code;
}
