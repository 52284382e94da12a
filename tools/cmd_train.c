/* SPDX-License-Identifier: MIT
 * sonde train: a dictionary, or a grid of them, from a file of activations or straight from a model and text.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "num/bf16.h"
#include "number.h"
#include "source_input.h"
#include "train_grid.h"
#include "train_words.h"

struct train_options {
    struct source_input source;
    struct strings grid;
    const char *arch, *widths;
    uint64_t latents, k, batch, tokens, warmup, sparsity_warmup, k_start, k_anneal, aux_k, dead_window,
        resample_every, resample_times, log_every, checkpoint_steps;
    double expansion, target_l0, l1, l0, lr, lr_end, decay, beta1, beta2, eps, clip, aux_coef, bandwidth,
        threshold, pre_act, checkpoint_seconds;
    int schedule, loss, jump_penalty, normalize, bias_init, precision, encoder, decoder;
    bool aux_any_sign, skip;
};

/* A run as it is prepared: the points of the grid with their directories. */
struct job {
    struct source_opened in;
    struct grid grid;
    sonde_train_job *point;
    char **dir;
    size_t n;
};

/* ---- options --------------------------------------------------------------------------------- */

/* "64,256,1024": the latents of each prefix. */
static enum sonde_code read_widths(const char *text, sonde_train_options *to, sonde_err *err)
{
    for (const char *s = text, *end; s; s = *end ? end + 1 : NULL) {
        char word[32];
        end = strchrnul(s, ',');
        snprintf(word, sizeof word, "%.*s", (int)(end - s < 31 ? end - s : 31), s);
        if (to->n_prefixes == SONDE_MAX_PREFIXES || !number_parse_count(word, &to->prefix[to->n_prefixes]))
            return sonde_fail(err, SONDE_E_USAGE,
                              "--widths: '%s' is not a list of at most %d numbers of latents", text,
                              SONDE_MAX_PREFIXES);
        to->n_prefixes++;
    }
    return SONDE_OK;
}

/* What the user said; everything else stays auto. A choice's first word is "auto". */
static enum sonde_code read_options(const struct tool *t, const struct train_options *o, size_t d_in,
                                    sonde_train_options *to, sonde_err *err)
{
    *to = sonde_train_options_auto();
    to->arch = o->arch;
    to->n_latents = o->latents != OPTION_WORD ? o->latents
                    : isnan(o->expansion)     ? SONDE_AUTO
                                              : (uint64_t)llround(o->expansion * (double)d_in);
    to->k = o->k;
    to->batch = o->batch;
    to->n_tokens = o->tokens;
    to->lr = o->lr;
    to->warmup = o->warmup;
    to->decay = o->decay;
    to->lr_end = o->lr_end;
    to->schedule = o->schedule - 1;
    to->beta1 = o->beta1;
    to->beta2 = o->beta2;
    to->eps = o->eps;
    to->clip = o->clip;
    to->loss = o->loss - 1;
    to->l1 = o->l1;
    to->l0 = o->l0;
    to->target_l0 = o->target_l0;
    to->jump_penalty = o->jump_penalty - 1;
    if (o->jump_penalty == 0 && isnan(o->target_l0) && !isnan(o->l0))
        to->jump_penalty = SONDE_JUMP_STEP; /* a coefficient alone means the plain penalty */
    to->bandwidth = o->bandwidth;
    to->threshold = o->threshold;
    to->pre_act = o->pre_act;
    to->sparsity_warmup = o->sparsity_warmup;
    to->k_start = o->k_start;
    to->k_anneal = o->k_anneal;
    to->aux_k = o->aux_k;
    to->aux_coef = o->aux_coef;
    to->aux_any_sign = o->aux_any_sign ? 1 : -1;
    to->dead_window = o->dead_window;
    to->resample_every = o->resample_every;
    to->resample_times = o->resample_times;
    to->normalize = o->normalize - 1;
    to->tied = o->encoder == 0 ? -1 : o->encoder == 1;
    to->unit_decoder = o->decoder == 0 ? -1 : o->decoder == 1;
    to->bias_init = o->bias_init - 1;
    to->skip = o->skip ? 1 : -1;
    to->bf16 = o->precision == 1;
    to->seed = t->common->seed;
    return o->widths ? read_widths(o->widths, to, err) : SONDE_OK;
}

/* ---- preparing ------------------------------------------------------------------------------- */

/* The operands are the activations and, behind --grid, more of its words. */
static enum sonde_code split_operands(const struct tool *t, const struct train_options *o, struct grid *grid,
                                      const char **acts, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    *acts = NULL;
    grid->n_points = 1;
    for (size_t i = 0; i < o->grid.n && !code; i++)
        code = grid_add(grid, o->grid.item[i], err);
    for (size_t i = 0; i < t->n_operands && !code; i++) {
        const char *word = t->operand[i];
        struct stat st;
        if (o->grid.n && strchr(word, '=') && stat(word, &st))
            code = grid_add(grid, word, err);
        else if (*acts)
            code = sonde_fail(err, SONDE_E_USAGE, "two files of activations: %s and %s; train takes one",
                              *acts, word);
        else
            *acts = word;
    }
    return code;
}

static enum sonde_code make_points(struct tool *t, const struct train_options *o, struct job *j,
                                   sonde_err *err)
{
    const sonde_source_info *info = sonde_source_about(j->in.source);
    j->point = calloc(j->grid.n_points, sizeof *j->point);
    j->dir = calloc(j->grid.n_points, sizeof *j->dir);
    if (!j->point || !j->dir)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu dictionaries", j->grid.n_points);
    j->n = j->grid.n_points;
    for (size_t i = 0; i < j->n; i++) {
        sonde_train_options *to = &j->point[i].options;
        char name[200];
        enum sonde_code code = read_options(t, o, info->d_in, to, err);
        if (!code)
            code = grid_apply(&j->grid, i, to, name, sizeof name, err);
        if (!code)
            code = train_words_arch(to->arch, err);
        if (!code)
            code =
                sonde_train_defaults(to, info->d_in, info->d_out, info->n_train, info->hook_out != NULL, err);
        if (code)
            return code;
        const char *out = t->common->output ? t->common->output : "";
        if (asprintf(&j->dir[i], "%s%s%s", out, name[0] ? "/" : "", name) < 0) {
            j->dir[i] = NULL;
            return sonde_fail(err, SONDE_E_MEMORY, "no memory for a name");
        }
        j->point[i].dir = j->dir[i];
    }
    for (size_t i = 0; o->widths && i < j->n; i++)
        if (j->point[i].options.n_prefixes > 1)
            return SONDE_OK;
    return o->widths ? sonde_fail(err, SONDE_E_USAGE, "--widths is for --arch matryoshka") : SONDE_OK;
}

/* ---- what is printed ------------------------------------------------------------------------- */

/* FLOPs of the encoder products: nearly all of the work. */
static double work_of(const struct job *j)
{
    const sonde_source_info *info = sonde_source_about(j->in.source);
    double flops = 0;
    for (size_t i = 0; i < j->n; i++)
        flops += 2.0 * (double)j->point[i].options.n_tokens * (double)info->d_in *
                 (double)j->point[i].options.n_latents;
    return flops;
}

static enum sonde_code dry_run(struct tool *t, const struct job *j, sonde_err *err)
{
    const sonde_source_info *info = sonde_source_about(j->in.source);
    const uint64_t memory = sonde_train_memory(j->point, j->n, info);
    const double flops = work_of(j);
    json_t *list = json_array();
    for (size_t i = 0; i < j->n; i++) {
        json_t *o = train_words_options(&j->point[i].options);
        json_object_set_new(o, "n_steps", json_integer((json_int_t)sonde_train_steps(&j->point[i].options)));
        json_array_append_new(list, o);
    }
    if (t->common->json)
        return tool_print_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:o}", "n_train_rows",
                                         (json_int_t)info->n_train, "n_heldout_rows",
                                         (json_int_t)info->n_heldout, "d_in", (json_int_t)info->d_in, "d_out",
                                         (json_int_t)info->d_out, "memory_bytes", (json_int_t)memory,
                                         "encoder_flops", flops, "dictionaries", list),
                               err);
    tool_result(t);
    printf("rows              %" PRIu64 " to train on, %" PRIu64 " held out, %zu wide\n", info->n_train,
           info->n_heldout, info->d_in);
    printf(
        "dictionaries      %zu\nmemory            %.0f MiB\nencoder work      %.3g FLOP, about %.0f s at 100 "
        "GFLOP/s\n",
        j->n, (double)memory / 1048576, flops, flops / 1e11);
    const char *key;
    json_t *value;
    json_object_foreach(json_array_get(list, 0), key, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
        const char *word = json_string_value(value);
        printf("%-17s %s\n", key, word ? word : text ? text : "");
        free(text);
    }
    json_decref(list);
    return SONDE_OK;
}

static enum sonde_code report(struct tool *t, const struct job *j, const sonde_train_result *r,
                              sonde_err *err)
{
    json_t *list = json_array();
    for (size_t i = 0; i < j->n; i++) {
        char *path = tool_visible(j->dir[i], strlen(j->dir[i]));
        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:I, s:I, s:I}", "path", path ? path : "", "arch",
                      j->point[i].options.arch, "d_sae", (json_int_t)j->point[i].options.n_latents, "n_steps",
                      (json_int_t)r[i].last.step, "explained_variance", 1 - r[i].fvu, "fvu", r[i].fvu, "l0",
                      r[i].l0, "dead_features", (json_int_t)r[i].n_dead, "n_measured",
                      (json_int_t)r[i].n_measured, "resumed_at_step", (json_int_t)r[i].resumed_at));
        free(path);
    }
    if (t->common->json) {
        json_t *one = j->grid.n_axes == 0 ? json_incref(json_array_get(list, 0))
                                          : json_pack("{s:O}", "dictionaries", list);
        json_decref(list);
        return tool_print_json(one, err);
    }
    json_decref(list);
    tool_result(t);
    for (size_t i = 0; i < j->n; i++)
        printf("%s\n", j->dir[i]);
    for (size_t i = 0; i < j->n; i++)
        tool_note(t,
                  "%s: explained variance %.4f, L0 %.2f, %" PRIu64 " of %" PRIu64
                  " latents silent on %" PRIu64 " training rows",
                  j->dir[i], 1 - r[i].fvu, r[i].l0, r[i].n_dead, j->point[i].options.n_latents,
                  r[i].n_measured);
    return SONDE_OK;
}

/* ---- running --------------------------------------------------------------------------------- */

static enum sonde_code train(struct tool *t, const struct train_options *o, struct job *j, sonde_err *err)
{
    const sonde_kernels *kernels;
    char note[400] = "";
    enum sonde_code code = tool_kernels(t, &kernels, err);
    const sonde_work *work = code ? NULL : tool_work(t, err);
    if (!work)
        return err->code;
    if (o->precision == 1 && !sonde_bf16_available(kernels))
        tool_note(
            t,
            "this CPU has no bfloat16 products: --precision bf16 runs in float32, the results are the same");
    if (j->grid.n_axes && mkdir(t->common->output, 0777) && errno != EEXIST)
        return sonde_fail(err, SONDE_E_IO, "%s: %s", t->common->output, strerror(errno));
    const sonde_train_run run = {
        .source = j->in.source,
        .job = j->point,
        .n_jobs = j->n,
        .kernels = kernels,
        .log_every = o->log_every == OPTION_WORD ? 0 : o->log_every,
        .checkpoint_every = o->checkpoint_steps == OPTION_WORD ? 0 : o->checkpoint_steps,
        .checkpoint_s = o->checkpoint_seconds,
        .resume = t->common->resume,
        .overwrite = t->common->force,
        .command = t->canonical,
    };
    sonde_train_result *result = calloc(j->n, sizeof *result);
    if (!result)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu results", j->n);
    code = sonde_train(&run, work, result, note, err);
    if (note[0])
        tool_note(t, "%s", note);
    if (!code && result[0].resumed_at)
        tool_note(t, "resumed after step %" PRIu64 " of %" PRIu64, result[0].resumed_at,
                  sonde_train_steps(&j->point[0].options));
    if (!code)
        code = report(t, j, result, err);
    free(result);
    return code;
}

static void close_job(struct job *j)
{
    source_input_close(&j->in);
    grid_free(&j->grid);
    for (size_t i = 0; i < j->n; i++)
        free(j->dir[i]);
    free(j->dir);
    free(j->point);
}

static enum sonde_code check_options(struct tool *t, const struct job *j, sonde_err *err)
{
    const char **arch = calloc(j->n, sizeof *arch);
    if (!arch)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for %zu dictionaries", j->n);
    for (size_t i = 0; i < j->n; i++)
        arch[i] = j->point[i].options.arch;
    char note[200];
    enum sonde_code code = train_words_unused(t->parsed, arch, j->n, note, err);
    if (!code && note[0])
        tool_note(t, "%s", note);
    free(arch);
    return code;
}

static enum sonde_code run(struct tool *t, const void *values, sonde_err *err)
{
    const struct train_options *o = values;
    struct job j = {0};
    const char *acts;
    enum sonde_code code = train_words_arch(o->arch, err);
    if (!code && !t->common->dry_run && !t->common->output)
        code = sonde_fail(err, SONDE_E_USAGE, "no output: -o sae/");
    if (!code)
        code = split_operands(t, o, &j.grid, &acts, err);
    if (!code)
        code = source_input_open(t, &o->source, acts, t->common->seed, false, &j.in, err);
    if (!code)
        code = make_points(t, o, &j, err);
    if (!code)
        code = check_options(t, &j, err);
    if (!code)
        code = t->common->dry_run ? dry_run(t, &j, err) : train(t, o, &j, err);
    close_job(&j);
    return code;
}

/* clang-format off */
#define COUNT(name, member, arg, about) \
    {name, OPT_COUNT, offsetof(struct train_options, member), arg, about, "auto", OPT_RESULT, .words = "auto"}
#define NUMBER(name, member, arg, about) \
    {name, OPT_FLOAT, offsetof(struct train_options, member), arg, about, "auto", OPT_RESULT, .words = "auto"}
#define CHOICE(name, member, words_, about) \
    {name, OPT_CHOICE, offsetof(struct train_options, member), words_, about, "auto", OPT_RESULT, .words = words_}
static const struct option options[] = {
    SOURCE_OPTIONS(struct train_options, source),
    {"arch", OPT_STRING, offsetof(struct train_options, arch), "NAME",
     "batchtopk, topk, matryoshka, jumprelu, relu, relu-2023, gated; with --hook-out a transcoder of that kind", "batchtopk", OPT_RESULT},
    COUNT("latents", latents, "N", "latents of the dictionary; auto: --expansion, or 16 times the width"),
    NUMBER("expansion", expansion, "X", "latents as a multiple of the width"),
    COUNT("k", k, "K", "active latents of a row (batchtopk, matryoshka: on average); auto: width / 16 within 4 to 64"),
    COUNT("batch", batch, "N", "rows of a step; auto: near tokens / 4000, within 1024 to 4096"),
    COUNT("tokens", tokens, "N", "rows to train on, repeats included; auto: 10M, or one pass if that is more"),
    NUMBER("lr", lr, "X", "learning rate; auto: 2e-4 sqrt(2^14 / latents), higher for short runs"),
    COUNT("warmup", warmup, "N", "steps in which the learning rate rises; auto: 5 % of them, at most 1000"),
    NUMBER("decay", decay, "SHARE", "last share of the steps in which it falls; auto: 0.2"),
    NUMBER("lr-end", lr_end, "SHARE", "what it falls to; auto: 0"),
    CHOICE("schedule", schedule, "auto|linear|cosine|constant", "how it falls"),
    NUMBER("beta1", beta1, "X", "Adam's first decay"),
    NUMBER("beta2", beta2, "X", "Adam's second decay"),
    NUMBER("eps", eps, "X", "Adam's epsilon"),
    NUMBER("clip", clip, "X", "largest norm of the gradient; 0: any"),
    CHOICE("loss", loss, "auto|fvu|sum|mean", "reconstruction: fraction of variance, sum of squares, or mean of squares"),
    CHOICE("normalize", normalize, "auto|none|mean-square|sqrt-d|standard|constant|layer",
           "units of training, undone in what is saved: E||x||^2 = 1, E||x|| = sqrt(d), also without the mean; constant and layer: each row"),
    CHOICE("bias-init", bias_init, "auto|mean|median|zero", "first b_dec: mean or geometric median of a sample, or zero"),
    CHOICE("encoder", encoder, "auto|tied|independent", "first encoder: the decoder's transpose, or directions of its own (transcoders)"),
    CHOICE("decoder", decoder, "auto|unit|free", "decoder rows kept at norm 1, or not"),
    NUMBER("l1-coef", l1, "C", "relu, gated: coefficient of the L1 penalty"),
    NUMBER("l0-coef", l0, "C", "jumprelu: coefficient of the L0 penalty"),
    NUMBER("target-l0", target_l0, "L", "jumprelu: L0 to be reached; auto: k"),
    CHOICE("jump-penalty", jump_penalty, "auto|target|step|tanh", "jumprelu: (L0 / target - 1)^2, L0, or sum of tanh(4 f ||W_dec||)"),
    NUMBER("bandwidth", bandwidth, "X", "jumprelu: width of the straight-through kernel"),
    NUMBER("threshold", threshold, "X", "jumprelu: first threshold"),
    NUMBER("pre-act", pre_act, "C", "jumprelu: coefficient of the pre-activation loss of dead latents"),
    COUNT("sparsity-warmup", sparsity_warmup, "N", "steps in which the penalty rises from 0"),
    COUNT("k-start", k_start, "K", "first k of a schedule that falls to --k"),
    COUNT("k-anneal", k_anneal, "N", "steps of that schedule"),
    {"widths", OPT_STRING, offsetof(struct train_options, widths), "N,N,...",
     "matryoshka: latents of each prefix, the last all of them", NULL, OPT_RESULT},
    COUNT("aux-k", aux_k, "N", "dead latents of a row that model what is left over; auto: half the width; 0: none"),
    NUMBER("aux-coef", aux_coef, "C", "coefficient of that loss; auto: 1/32"),
    {"aux-any-sign", OPT_FLAG, offsetof(struct train_options, aux_any_sign), NULL,
     "dead latents enter with negative values too, as in SAELens", NULL, OPT_RESULT},
    COUNT("dead-window", dead_window, "N", "rows without firing after which a latent is dead; auto: tokens / 20 within 200k to 10M"),
    COUNT("resample-every", resample_every, "N", "relu-2023: rows between resamplings of dead latents; 0: never"),
    COUNT("resample-times", resample_times, "N", "relu-2023: at most so many times"),
    {"skip", OPT_FLAG, offsetof(struct train_options, skip), NULL, "transcoders: a linear path beside the dictionary", NULL, OPT_RESULT},
    {"precision", OPT_CHOICE, offsetof(struct train_options, precision), "f32|bf16",
     "encoder products; bf16 is faster and gives the same bits", "f32", 0, .words = "f32|bf16"},
    {"grid", OPT_STRINGS, offsetof(struct train_options, grid), "NAME=VALUES...",
     "many dictionaries in one pass: k=4,8,16 seed=0..4 (k, latents, seed, arch, lr, l1-coef, l0-coef, target-l0)", NULL, OPT_RESULT},
    {"log-every", OPT_COUNT, offsetof(struct train_options, log_every), "N", "steps of a line in log.jsonl; auto: 1/500 of them",
     "auto", .words = "auto", .min = 1},
    {"checkpoint-steps", OPT_COUNT, offsetof(struct train_options, checkpoint_steps), "N", "steps between checkpoints", "none",
     .words = "none", .min = 1},
    {"checkpoint-seconds", OPT_FLOAT, offsetof(struct train_options, checkpoint_seconds), "S",
     "seconds between checkpoints; 0: only by steps and when stopped", "600", .min = 0, .max = 1e9},
};
/* clang-format on */

const struct command cmd_train = {
    .name = "train",
    .about = "learns a dictionary (sparse autoencoder, transcoder) from activations",
    .operands = "[ACTS.h5|ANY.h5:/PATH|ACTS.npy] [NAME=VALUES]...",
    .max_operands = -1,
    .examples =
        (const char *const[]){
            "sonde train acts.h5 --hook blocks.6.hook_resid_post --latents 24576 --k 32 -o sae/",
            "a BatchTopK dictionary; everything else follows from the data and the number of tokens",
            "sonde train --model gpt2/ --text corpus.txt --hook resid_post6 --tokens 100M --grid k=16,32,64 "
            "seed=0..2 -o saes/",
            "nine dictionaries in one pass, activations made as one goes along",
            "sonde train acts.h5 --hook blocks.3.hook_mlp_in --hook-out blocks.3.hook_mlp_out --skip -o tc/",
            "a skip transcoder", NULL},
    .details = "The directory is in SAELens' format; run.json in it says how it was made, log.jsonl how "
               "it went, timing.jsonl how long it took. --dry-run "
               "prints every default that follows from the budget.\n\nA run that was stopped or killed goes "
               "on with --resume "
               "and gives the same bytes as an uninterrupted one, whatever the number of threads.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .common = TAKES_OUTPUT | TAKES_SEED | TAKES_THREADS | TAKES_MEMORY | TAKES_DRY_RUN | TAKES_JSON |
              TAKES_RESUME | TAKES_KERNEL | TAKES_PROGRESS,
    .n_values = sizeof(struct train_options),
    .saves_state = true,
    .run = run,
};
