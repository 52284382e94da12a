/* SPDX-License-Identifier: MIT
 * sonde generate: continue a prompt. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "input.h"
#include "model/generate.h"

struct generate_options {
    struct model_input model;
    const char *prompt;
    uint64_t tokens;
    double temperature, top_p;
    int bos;
    bool special;
};

struct job {
    sonde_model *model;
    sonde_tokenizer *tokenizer;
    sonde_tokens tokens;        /* prompt, then what has been generated */
    size_t n_prompt, n_printed; /* bytes of the text printed so far */
    sonde_run *run;
    const struct generate_options *o;
    bool json;
};

/* Print what the new token adds to the decoded text, and not half a character: the rest follows with the next
 * token. */
static enum sonde_code print_new(struct job *j, bool last, sonde_err *err)
{
    char *text;
    size_t n;
    enum sonde_code code =
        sonde_tokenizer_decode(j->tokenizer, j->tokens.id, j->tokens.n, j->o->special, &text, &n, err);
    if (code)
        return code;
    size_t whole = n;
    for (size_t back = 1; !last && back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)text[n - back];
        size_t need = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
        if (need > back)
            whole = n - back;
        if ((c & 0xc0) != 0x80)
            break;
    }
    if (whole > j->n_printed) {
        fwrite(text + j->n_printed, 1, whole - j->n_printed, stdout);
        fflush(stdout);
        j->n_printed = whole;
    }
    free(text);
    return tool_output_broken() ? SONDE_E_IO : SONDE_OK;
}

static enum sonde_code take_token(void *arg, int32_t id, sonde_err *err)
{
    struct job *j = arg;
    enum sonde_code code = sonde_tokens_push(&j->tokens, id, 0, 0, err);
    return code || j->json ? code : print_new(j, false, err);
}

static enum sonde_code encode_prompt(struct job *j, sonde_err *err)
{
    const char *prompt = j->o->prompt;
    enum sonde_code code = sonde_tokenizer_encode(j->tokenizer, prompt, strlen(prompt),
                                                  (enum sonde_bos)j->o->bos, true, &j->tokens, err);
    if (!code && !j->tokens.n && sonde_tokenizer_bos_id(j->tokenizer) >= 0)
        code = sonde_tokens_push(&j->tokens, sonde_tokenizer_bos_id(j->tokenizer), 0, 0, err);
    j->n_prompt = j->tokens.n;
    return code;
}

static enum sonde_code generate(struct tool *t, struct job *j, sonde_err *err)
{
    const struct generate_options *o = j->o;
    const sonde_work *work = tool_work(t, err);
    int32_t stop[2];
    sonde_sampling s = {.n_tokens = (size_t)o->tokens,
                        .temperature = (float)o->temperature,
                        .top_p = (float)o->top_p,
                        .seed = t->common->seed,
                        .stop = stop,
                        .n_allowed = sonde_tokenizer_size(j->tokenizer)};
    if (sonde_tokenizer_eos_id(j->tokenizer) >= 0)
        stop[s.n_stop++] = sonde_tokenizer_eos_id(j->tokenizer);
    if (sonde_tokenizer_bos_id(j->tokenizer) >= 0)
        stop[s.n_stop++] = sonde_tokenizer_bos_id(j->tokenizer);
    size_t keys =
        j->n_prompt + s.n_tokens < j->model->arch.n_ctx ? j->n_prompt + s.n_tokens : j->model->arch.n_ctx;
    size_t rows = j->n_prompt < 512 ? j->n_prompt : 512;
    if (j->n_prompt > j->model->arch.n_ctx)
        return sonde_fail(err, SONDE_E_USAGE, "the prompt has %zu tokens, this model's context is %zu",
                          j->n_prompt, j->model->arch.n_ctx);
    enum sonde_code code =
        sonde_run_new(j->model, rows ? rows : 1, keys, work->pool, work->budget, &j->run, err);
    if (code)
        return code;
    tool_result(t);
    if (!j->json && (code = print_new(j, false, err)))
        return code;
    return sonde_generate(j->run, j->model, j->tokens.id, j->n_prompt, &s, work, take_token, j, err);
}

static enum sonde_code print_json(struct job *j, sonde_err *err)
{
    char *text;
    size_t n;
    enum sonde_code code =
        sonde_tokenizer_decode(j->tokenizer, j->tokens.id, j->tokens.n, j->o->special, &text, &n, err);
    if (code)
        return code;
    json_t *ids = json_array(), *whole = json_stringn(text, n);
    if (!whole) { /* not UTF-8 */
        char *visible = tool_visible(text, n);
        whole = visible ? json_string(visible) : NULL;
        free(visible);
    }
    free(text);
    for (size_t i = 0; i < j->tokens.n; i++)
        json_array_append_new(ids, json_integer(j->tokens.id[i]));
    return tool_print_json(
        json_pack("{s:o,s:o,s:i}", "text", whole, "ids", ids, "n_prompt", (int)j->n_prompt), err);
}

static enum sonde_code run(struct tool *t, const void *values, sonde_err *err)
{
    struct job j = {.o = values, .json = t->common->json};
    enum sonde_code code = input_model(t, &j.o->model, false, &j.model, err);
    if (!code)
        code = input_tokenizer(t, &j.o->model, j.model, true, &j.tokenizer, err);
    if (!code)
        code = encode_prompt(&j, err);
    if (!code)
        code = generate(t, &j, err);
    if (!code && j.json)
        code = print_json(&j, err);
    else if (!code && !(code = print_new(&j, true, err)) && isatty(STDOUT_FILENO))
        fputc('\n', stdout); /* for the prompt of a shell; a file or pipe gets the text as it is */
    sonde_run_free(j.run);
    sonde_tokens_free(&j.tokens);
    sonde_tokenizer_close(j.tokenizer);
    sonde_model_close(j.model);
    return code;
}

static const struct option options[] = {
    MODEL_OPTIONS(struct generate_options, model),
    {"prompt", OPT_STRING, offsetof(struct generate_options, prompt), "STR", "the text to continue", "",
     OPT_RESULT},
    {"tokens", OPT_COUNT, offsetof(struct generate_options, tokens), "N", "new tokens at most", "100",
     OPT_RESULT, .max = 1e7},
    {"temperature", OPT_FLOAT, offsetof(struct generate_options, temperature), "T",
     "0: always the most likely token", "0", OPT_RESULT, .min = 0, .max = 1e3},
    {"top-p", OPT_FLOAT, offsetof(struct generate_options, top_p), "P",
     "sample among the most likely tokens that reach this probability", "1", OPT_RESULT, .min = 1e-6,
     .max = 1},
    {"bos", OPT_CHOICE, offsetof(struct generate_options, bos), "auto|always|never", "BOS before the prompt",
     "auto", OPT_RESULT, .words = "auto|always|never"},
    {"special", OPT_FLAG, offsetof(struct generate_options, special), NULL, "print special tokens too", NULL,
     OPT_RESULT},
};

const struct command cmd_generate = {
    .name = "generate",
    .about = "samples text from a model",
    .operands = "",
    .examples =
        (const char *const[]){
            "sonde generate --model stories.bin --tokenizer tok.bin --prompt 'Once upon a time' --tokens 100",
            "the most likely text",
            "sonde generate --model gpt2/ --prompt 'The' --temperature 0.8 --top-p 0.95 --seed 1",
            "a sample; the same seed gives the same text", NULL},
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .common = TAKES_SEED | TAKES_THREADS | TAKES_MEMORY | TAKES_JSON | TAKES_KERNEL | TAKES_PROGRESS,
    .n_values = sizeof(struct generate_options),
    .run = run,
};
