/* SPDX-License-Identifier: MIT
 * sonde capture: a text through a model, activations at hook points into an HDF5 file. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "input.h"
#include "model/capture.h"
#include "model/identity.h"

struct capture_options {
    struct model_input model;
    struct strings hook;
    struct text_input text;
    int dtype, shuffle;
    uint64_t skip_first, logits, max_seqs, batch, journal;
    double holdout;
    bool loss;
};

static const enum sonde_dtype dtypes[] = {SONDE_F32, SONDE_F16, SONDE_BF16};

/* What a capture works with, opened in this order. */
struct job {
    sonde_model *model;
    sonde_tokenizer *tokenizer;
    sonde_corpus *corpus;
    sonde_hook_list hooks;
    sonde_capture_options options;
    char *identity;
    char processing[120]; /* in one order, however it was typed */
    sonde_store_attr attr[24];
};

static bool needs_logits(const struct capture_options *o, const sonde_hook_list *hooks)
{
    for (size_t i = 0; i < hooks->n; i++)
        if (hooks->hook[i].site == SONDE_SITE_LOGITS)
            return true;
    return o->loss || o->logits;
}

static enum sonde_code open_inputs(struct tool *t, const struct capture_options *o, struct job *j,
                                   sonde_err *err)
{
    enum sonde_code code;
    if ((code = input_model(t, &o->model, true, &j->model, err)))
        return code;
    for (size_t i = 0; i < o->hook.n; i++)
        if ((code = sonde_hooks_add(&j->hooks, &j->model->arch, o->hook.item[i], err)))
            return code;
    sonde_hooks_sort(&j->hooks, &j->model->arch);
    if (needs_logits(o, &j->hooks) && (code = sonde_model_load_unembed(j->model, tool_work(t, err), err)))
        return code;
    if ((code = input_tokenizer(t, &o->model, j->model, !o->text.ids, &j->tokenizer, err)))
        return code;
    return input_corpus(t, &o->text, j->model, j->tokenizer, &j->corpus, err);
}

static void add_text(struct job *j, const char *name, const char *value)
{
    j->attr[j->options.n_attrs++] = (sonde_store_attr){.path = "/", .name = name, .s = value};
}

static void add_number(struct job *j, const char *name, uint64_t value)
{
    j->attr[j->options.n_attrs++] = (sonde_store_attr){.path = "/", .name = name, .i = (int64_t)value};
}

/* Where the file came from: everything that decides its contents, nothing that does not. */
static enum sonde_code describe(struct tool *t, const struct capture_options *o, struct job *j,
                                sonde_err *err)
{
    static const char *const packing[] = {"doc", "concat"}, *const bos[] = {"auto", "always", "never"};
    static const char *const shuffle[] = {"none", "rows"};
    enum sonde_code code = sonde_model_identity(j->model, &j->identity, err);
    if (code)
        return code;
    j->options.attr = j->attr;
    add_number(j, "hook_spec", 1);
    add_text(j, "model", o->model.model);
    add_text(j, "model_family", j->model->arch.family);
    add_text(j, "model_sha256", j->identity);
    add_text(j, "config_json", j->model->config_json);
    add_text(j, "weight_processing",
             sonde_processing_text(j->model->processing, j->processing, sizeof j->processing));
    add_text(j, "compute",
             strcmp(sonde_kernels_name(j->model->kernels), "openblas") ? "sonde float32"
                                                                       : "openblas float32");
    if (j->tokenizer)
        add_text(j, "tokenizer_sha256", sonde_tokenizer_sha256(j->tokenizer));
    add_text(j, "dataset", input_path(&o->text));
    add_text(j, "dataset_sha256", j->corpus->sha256);
    add_number(j, "context_len", input_context(&o->text, j->model));
    add_text(j, "packing", packing[o->text.packing]);
    add_text(j, "bos_policy", bos[o->text.bos]);
    add_text(j, "dtype", sonde_dtype_name(dtypes[o->dtype]));
    add_number(j, "seed", t->common->seed);
    add_text(j, "shuffle", shuffle[o->shuffle]);
    add_number(j, "skip_first", o->skip_first);
    j->attr[j->options.n_attrs++] =
        (sonde_store_attr){.path = "/", .name = "holdout", .is_float = true, .f = o->holdout};
    add_text(j, "command", t->canonical);
    add_text(j, "tool_version", SONDE_VERSION);
    return SONDE_OK;
}

static json_t *hook_table(const struct job *j, const uint64_t *saturated)
{
    json_t *list = json_array();
    for (size_t i = 0; i < j->hooks.n; i++) {
        char name[SONDE_HOOK_NAME_MAX];
        uint64_t dim[2] = {1, 1};
        int rank = sonde_site_shape(&j->model->arch, j->hooks.hook[i].site, dim);
        json_t *shape = json_array();
        for (int k = 0; k < rank; k++)
            json_array_append_new(shape, json_integer((json_int_t)dim[k]));
        json_t *h =
            json_pack("{s:s,s:o}", "hook", sonde_hook_name(j->hooks.hook[i], name), "row_shape", shape);
        if (saturated)
            json_object_set_new(h, "saturated", json_integer((json_int_t)saturated[i]));
        json_array_append_new(list, h);
    }
    return list;
}

static enum sonde_code dry_run(struct tool *t, const struct job *j, sonde_err *err)
{
    const sonde_work *work = tool_work(t, err);
    sonde_capture_plan p;
    int threads = sonde_pool_threads(work ? work->pool : NULL);
    enum sonde_code code = sonde_capture_plan_make(j->model, j->corpus, &j->options, threads, &p, err);
    if (code)
        return code;
    double seconds = p.flops / (1e11 * threads);
    if (t->common->json)
        return tool_print_json(
            json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:I,s:f,s:o}", "n_tokens", (json_int_t)p.n_tokens,
                      "n_contexts", (json_int_t)p.n_seqs, "n_documents", (json_int_t)p.n_docs,
                      "n_heldout_documents", (json_int_t)p.n_heldout_docs, "n_rows", (json_int_t)p.n_rows,
                      "row_bytes", (json_int_t)p.row_bytes, "file_bytes", (json_int_t)p.file_bytes, "flops",
                      p.flops, "memory_bytes", (json_int_t)p.memory_bytes, "seconds_at_100_gflops_per_thread",
                      seconds, "hooks", hook_table(j, NULL)),
            err);
    tool_result(t);
    printf("documents   %" PRIu64 " (%" PRIu64 " held out)\ncontexts    %" PRIu64 "\ntokens      %" PRIu64
           "\nrows        %" PRIu64 "\n",
           p.n_docs, p.n_heldout_docs, p.n_seqs, p.n_tokens, p.n_rows);
    for (size_t i = 0; i < j->hooks.n; i++) {
        char name[SONDE_HOOK_NAME_MAX];
        printf("hook        %s\n", sonde_hook_name(j->hooks.hook[i], name));
    }
    printf("row         %" PRIu64 " bytes over all hooks\nfile        %.1f MiB\nworkspace   %.0f MiB\nwork   "
                                  "     %.3g FLOP, about %.0f s at 100 "
           "GFLOP/s per thread\n",
           p.row_bytes, (double)p.file_bytes / 1048576, (double)p.memory_bytes / 1048576, p.flops, seconds);
    return SONDE_OK;
}

/* The first tokens as text: the quickest way to see a wrong tokenizer or a doubled BOS. */
static void show_first_tokens(struct tool *t, const struct job *j)
{
    char line[300] = "";
    size_t at = 0;
    for (uint64_t i = 0; j->tokenizer && i < j->corpus->seq_start[1] && i < 12; i++) {
        size_t n;
        const char *s = sonde_tokenizer_bytes(j->tokenizer, j->corpus->id[i], &n);
        char *visible = tool_visible(s, n);
        int k = visible ? snprintf(line + at, sizeof line - at, "%s'%s'", i ? " " : "", visible) : 0;
        free(visible);
        if (k < 0 || (size_t)k >= sizeof line - at)
            break;
        at += (size_t)k;
    }
    if (at)
        tool_detail(t, "first context: %s ...", line);
}

static enum sonde_code report(struct tool *t, const struct job *j, const sonde_capture_result *r,
                              sonde_err *err)
{
    for (size_t i = 0; i < j->hooks.n; i++) {
        char name[SONDE_HOOK_NAME_MAX];
        if (r->saturated[i])
            tool_note(t, "%s: %" PRIu64 " values did not fit %s and were saturated",
                      sonde_hook_name(j->hooks.hook[i], name), r->saturated[i],
                      sonde_dtype_name(j->options.dtype));
    }
    if (!t->common->json) {
        tool_result(t);
        printf("%s\n", t->common->output);
        if (j->options.loss && r->n_losses)
            tool_note(t, "mean loss %.4f nats per token over %" PRIu64 " tokens", r->mean_loss, r->n_losses);
        return SONDE_OK;
    }
    char *path = tool_visible(t->common->output, strlen(t->common->output));
    json_t *out = json_pack("{s:s,s:I,s:I,s:I,s:o}", "path", path ? path : "", "n_tokens",
                            (json_int_t)j->corpus->n_tokens, "n_rows", (json_int_t)r->n_rows, "n_documents",
                            (json_int_t)j->corpus->n_docs, "hooks", hook_table(j, r->saturated));
    free(path);
    if (out && j->options.loss)
        json_object_set_new(out, "mean_loss", r->n_losses ? json_real(r->mean_loss) : json_null());
    return tool_print_json(out, err);
}

static void close_job(struct job *j)
{
    free(j->identity);
    sonde_hooks_free(&j->hooks);
    sonde_corpus_free(j->corpus);
    sonde_tokenizer_close(j->tokenizer);
    sonde_model_close(j->model);
}

/* What can be refused before hours of tokenising is. The store looks again. */
static enum sonde_code check_output(const struct tool *t, sonde_err *err)
{
    struct stat st;
    const char *path = t->common->output;
    if (!path)
        return sonde_fail(err, SONDE_E_USAGE, "no output: -o acts.h5");
    if (!t->common->force && !t->common->resume && stat(path, &st) == 0 && S_ISREG(st.st_mode))
        return sonde_fail(err, SONDE_E_USAGE, "%s: exists already; --force replaces it", path);
    return SONDE_OK;
}

static enum sonde_code capture(struct tool *t, const struct capture_options *o, struct job *j, sonde_err *err)
{
    sonde_capture_result result = {0};
    const sonde_work *work = tool_work(t, err);
    enum sonde_code code = work ? describe(t, o, j, err) : err->code;
    if (code)
        return code;
    code =
        sonde_capture(j->model, j->corpus, j->tokenizer, &j->options, work, t->common->output, &result, err);
    if (result.note[0])
        tool_note(t, "%s", result.note);
    if (!code && result.n_resumed_seqs)
        tool_note(t, "resumed after %" PRIu64 " of %" PRIu64 " contexts", result.n_resumed_seqs, j->corpus->n_seqs);
    if (!code)
        code = report(t, j, &result, err);
    free(result.saturated);
    return code;
}

static enum sonde_code run(struct tool *t, const void *values, sonde_err *err)
{
    const struct capture_options *o = values;
    struct job j = {0};
    enum sonde_code code = input_check_text(&o->text, err);
    if (!code && !t->common->dry_run)
        code = check_output(t, err);
    if (!code && (code = open_inputs(t, o, &j, err)) == SONDE_E_STOPPED)
        sonde_err_wrap(err, "nothing was written, the same command begins again");
    j.options = (sonde_capture_options){
        .hooks = &j.hooks,
        .dtype = dtypes[o->dtype],
        .skip_first = (size_t)o->skip_first,
        .shuffle = o->shuffle == 1,
        .holdout = o->holdout,
        .n_logits = (size_t)o->logits,
        .loss = o->loss,
        .max_seqs = o->max_seqs,
        .seed = t->common->seed,
        .batch_tokens = (size_t)o->batch,
        .journal_bytes = o->journal,
        .overwrite = t->common->force,
        .resume = t->common->resume,
    };
    if (!code)
        show_first_tokens(t, &j);
    if (!code)
        code = t->common->dry_run ? dry_run(t, &j, err) : capture(t, o, &j, err);
    close_job(&j);
    return code;
}

static const struct option options[] = {
    MODEL_OPTIONS(struct capture_options, model),
    {"hook", OPT_STRINGS, offsetof(struct capture_options, hook), "NAME|GLOB",
     "hook point: blocks.3.hook_resid_post, 'blocks.*.attn.hook_z', resid_post3", NULL,
     OPT_RESULT},
    TEXT_OPTIONS(struct capture_options, text),
    {"dtype", OPT_CHOICE, offsetof(struct capture_options, dtype), "f32|f16|bf16",
     "type of the stored activations", "f32", OPT_RESULT, .words = "f32|f16|bf16"},
    {"skip-first", OPT_COUNT, offsetof(struct capture_options, skip_first), "N",
     "positions of each context that get no row", "0", OPT_RESULT},
    {"shuffle", OPT_CHOICE, offsetof(struct capture_options, shuffle), "none|rows",
     "order of the rows; tokens stay in reading order beside", "none", OPT_RESULT, .words = "none|rows"},
    {"holdout", OPT_FLOAT, offsetof(struct capture_options, holdout), "SHARE",
     "share of documents marked as held out", "0.05", OPT_RESULT, .min = 0, .max = 0.999},
    {"logits", OPT_COUNT, offsetof(struct capture_options, logits), "K",
     "keep the K largest log-probabilities of every token", "0", OPT_RESULT, .max = 1e6},
    {"loss", OPT_FLAG, offsetof(struct capture_options, loss), NULL, "keep -log p(next token) of every token",
     NULL, OPT_RESULT},
    {"max-seqs", OPT_COUNT, offsetof(struct capture_options, max_seqs), "N",
     "attention scores and patterns: of the first N contexts", "0", OPT_RESULT},
    {"batch", OPT_COUNT, offsetof(struct capture_options, batch), "N", "tokens in one pass of one thread",
     "512", .min = 1, .max = 1e6},
    {"journal", OPT_BYTES, offsetof(struct capture_options, journal), "BYTES",
     "rows that a kill may cost, to be computed again", "64MiB", .min = 1},
};

const struct command cmd_capture = {
    .name = "capture",
    .about = "runs text through a model and stores activations at hook points",
    .operands = "",
    .examples =
        (const char *const[]){"sonde capture --model gpt2/ --text corpus.txt --hook blocks.6.hook_resid_post "
                              "--dtype f16 -o acts.h5",
                              "the residual stream after layer 6",
                              "sonde capture --model stories.bin --tokenizer tok.bin --text stories.txt "
                              "--separator '<|endoftext|>' "
                              "--hook 'blocks.*.hook_resid_post' --shuffle rows --loss -o acts.h5",
                              "every layer, rows shuffled for training, with the loss of every token", NULL},
    .details = "Hook names are those of TransformerLens; a misspelt one gets the nearest, and one that the "
               "model lacks the reason. The "
               "forward pass stops at the deepest hook.\n\nA capture that was interrupted goes on with "
               "--resume and then gives the same bytes "
               "as an uninterrupted one, whatever the number of threads.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .common = TAKES_OUTPUT | TAKES_SEED | TAKES_THREADS | TAKES_MEMORY | TAKES_DRY_RUN | TAKES_JSON |
              TAKES_RESUME | TAKES_KERNEL | TAKES_PROGRESS,
    .n_values = sizeof(struct capture_options),
    .saves_state = true,
    .run = run,
};
