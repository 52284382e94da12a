/* SPDX-License-Identifier: MIT
 * sonde synth: data with known truth. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "num/cpu.h"
#include "number.h"
#include "sae/synth.h"
#include "tool.h"

struct synth_options {
    uint64_t dim, truth, rows;
    double active, zipf, decay, noise, bias, holdout;
    int frequencies, magnitude, siblings, dtype;
    const char *between, *scale, *spread, *correlation, *hierarchy, *orthogonal;
    bool scale_children;
};

static const enum sonde_dtype dtypes[] = {SONDE_F32, SONDE_F16, SONDE_BF16};

/* "A:B:C" into at most n_parts parts of at most 31 characters; returns how many there are, 0 if there are too
 * many. */
static size_t split(const char *s, size_t n_parts, char part[][32])
{
    size_t n = 0;
    for (;;) {
        size_t len = strcspn(s, ":");
        if (n == n_parts || len > 31)
            return 0;
        memcpy(part[n], s, len);
        part[n++][len] = '\0';
        if (!s[len])
            return n;
        s += len + 1;
    }
}

/* "A" or "A:B"; B missing: *second stays. */
static enum sonde_code read_pair(const char *option, const char *form, const char *s, double *first,
                                 double *second, sonde_err *err)
{
    char part[2][32];
    size_t n = s ? split(s, 2, part) : 0;
    if (!s)
        return SONDE_OK;
    if (n == 0 || !number_parse_float(part[0], first) || (n == 2 && !number_parse_float(part[1], second)))
        return sonde_fail(err, SONDE_E_USAGE, "--%s %s: should be %s", option, s, form);
    return SONDE_OK;
}

static enum sonde_code read_both(const char *option, const char *form, const char *s, double *first,
                                 double *second, sonde_err *err)
{
    if (s && !strchr(s, ':'))
        return sonde_fail(err, SONDE_E_USAGE, "--%s %s: should be %s", option, s, form);
    return read_pair(option, form, s, first, second, err);
}

static enum sonde_code read_hierarchy(const char *s, sonde_synth_options *o, sonde_err *err)
{
    char part[3][32];
    uint64_t n[3];
    if (!s)
        return SONDE_OK;
    if (split(s, 3, part) != 3 || !number_parse_count(part[0], &n[0]) ||
        !number_parse_count(part[1], &n[1]) || !number_parse_count(part[2], &n[2]) || n[0] == 0 ||
        n[1] == 0 || n[2] == 0)
        return sonde_fail(err, SONDE_E_USAGE, "--hierarchy %s: should be ROOTS:BRANCH:DEPTH, all at least 1",
                          s);
    o->roots = (size_t)n[0];
    o->branch = (size_t)n[1];
    o->depth = (size_t)n[2];
    return SONDE_OK;
}

static enum sonde_code read_count_and_number(const char *option, const char *form, const char *s,
                                             size_t *count, double *number, sonde_err *err)
{
    double first = 0;
    enum sonde_code code = read_pair(option, form, s, &first, number, err);
    if (!code && s && (first < 0 || first > 1e9 || first != (double)(size_t)first))
        code = sonde_fail(err, SONDE_E_USAGE, "--%s %s: should be %s", option, s, form);
    if (!code && s)
        *count = (size_t)first;
    return code;
}

static enum sonde_code read_options(struct tool *t, const struct synth_options *o, sonde_synth_options *s,
                                    sonde_err *err)
{
    *s = (sonde_synth_options){
        .dim = (size_t)o->dim,
        .truth = (size_t)o->truth,
        .seed = t->common->seed,
        .law = (enum sonde_synth_law)o->frequencies,
        .zipf = o->zipf,
        .decay = o->decay,
        .active = o->between ? 0 : o->active,
        .magnitude = (enum sonde_synth_magnitude)o->magnitude,
        .siblings_free = o->siblings == 1,
        .scale_children = o->scale_children,
        .noise = o->noise,
        .bias = o->bias,
    };
    if (!option_given(t->parsed, "frequencies") && option_given(t->parsed, "zipf"))
        s->law = SONDE_SYNTH_ZIPF;
    if (o->between && option_given(t->parsed, "active"))
        return sonde_fail(err, SONDE_E_USAGE, "--between says what --active would; give one of them");
    enum sonde_code code;
    if ((code =
             read_both("between", "FIRST:LAST, two probabilities", o->between, &s->p_first, &s->p_last, err)))
        return code;
    if ((code = read_pair("scale", "A or A:B", o->scale, &s->scale_first, &s->scale_last, err)))
        return code;
    if (!strchr(o->scale, ':'))
        s->scale_last = s->scale_first;
    if ((code = read_pair("spread", "S or MEAN:S", o->spread, &s->spread, &s->spread_std, err)))
        return code;
    if (o->correlation && !strchr(o->correlation, ':'))
        return sonde_fail(err, SONDE_E_USAGE, "--correlation %s: should be RANK:SCALE", o->correlation);
    if ((code = read_count_and_number("correlation", "RANK:SCALE", o->correlation, &s->rank, &s->correlation,
                                      err)))
        return code;
    if ((code = read_count_and_number("orthogonal", "STEPS or STEPS:RATE", o->orthogonal,
                                      &s->orthogonal_steps, &s->orthogonal_lr, err)))
        return code;
    return read_hierarchy(o->hierarchy, s, err);
}

static json_t *summary(const struct tool *t, const sonde_synth *s, const sonde_synth_file *f,
                       const sonde_synth_result *r)
{
    json_t *out = json_object();
    if (t->common->output && !t->common->dry_run) {
        char *path = tool_visible(t->common->output, strlen(t->common->output));
        json_object_set_new(out, "path", json_string(path ? path : ""));
        free(path);
    }
    json_object_set_new(out, "n_rows", json_integer((json_int_t)f->n_rows));
    json_object_set_new(out, "n_heldout", json_integer((json_int_t)r->n_heldout));
    json_object_set_new(out, "dim", json_integer((json_int_t)s->o.dim));
    json_object_set_new(out, "truth", json_integer((json_int_t)s->o.truth));
    json_object_set_new(out, "true_l0", json_real((double)r->n_active / (double)f->n_rows));
    json_object_set_new(out, "expected_l0", json_real(s->mean_active));
    json_object_set_new(out, "n_active", json_integer((json_int_t)r->n_active));
    json_object_set_new(out, "n_squeezed", json_integer((json_int_t)s->n_squeezed));
    json_object_set_new(out, "saturated", json_integer((json_int_t)r->n_saturated));
    json_object_set_new(out, "data_bytes", json_integer((json_int_t)r->file_bytes));
    return out;
}

static enum sonde_code report(struct tool *t, const sonde_synth *s, const sonde_synth_file *f,
                              const sonde_synth_result *r, sonde_err *err)
{
    if (s->n_squeezed)
        tool_note(t, "%zu latents are rarer than asked: siblings share a parent that is active too seldom",
                  s->n_squeezed);
    if (r->n_saturated)
        tool_note(t, "%" PRIu64 " values did not fit %s and were saturated", r->n_saturated,
                  sonde_dtype_name(f->dtype));
    if (t->common->json)
        return tool_print_json(summary(t, s, f, r), err);
    tool_result(t);
    if (!t->common->dry_run) {
        printf("%s\n", t->common->output);
        return SONDE_OK;
    }
    char bytes[32];
    printf("rows        %" PRIu64 " (%" PRIu64
           " held out) of %zu\nlatents     %zu, %.4g active in a row on average\n"
           "file        %s\n",
           f->n_rows, r->n_heldout, s->o.dim, s->o.truth, s->mean_active,
           number_print_bytes(r->file_bytes, bytes));
    return SONDE_OK;
}

static enum sonde_code dictionary(struct tool *t, const struct synth_options *o, sonde_err *err)
{
    sonde_synth_options options;
    const sonde_kernels *kernels;
    enum sonde_code code = read_options(t, o, &options, err);
    if (!code && !t->common->output && !t->common->dry_run)
        code = sonde_fail(err, SONDE_E_USAGE, "no output: -o acts.h5");
    if (code || (code = tool_kernels(t, &kernels, err)))
        return code;
    const sonde_work *work = tool_work(t, err);
    if (!work)
        return err->code;
    sonde_synth *s = NULL;
    if ((code = sonde_synth_new(&options, kernels, work, &s, err)))
        return code;
    const sonde_synth_file f = {.n_rows = o->rows,
                                .holdout = o->holdout,
                                .dtype = dtypes[o->dtype],
                                .overwrite = t->common->force,
                                .command = t->canonical};
    sonde_synth_result r;
    code = t->common->dry_run ? sonde_synth_plan_file(s, &f, &r, err)
                              : sonde_synth_write(s, &f, kernels, work, t->common->output, &r, err);
    if (!code)
        code = report(t, s, &f, &r, err);
    sonde_synth_free(s);
    return code;
}

static enum sonde_code run(struct tool *t, const void *values, sonde_err *err)
{
    if (strcmp(t->operand[0], "dictionary") != 0)
        return sonde_fail(err, SONDE_E_USAGE, "nothing is called '%.100s' here; there is: dictionary",
                          t->operand[0]);
    return dictionary(t, values, err);
}

#define AT(field) offsetof(struct synth_options, field)

static const struct option options[] = {
    {"dim", OPT_COUNT, AT(dim), "D", "width of a row", "64", OPT_RESULT, .min = 1, .max = 1e6},
    {"truth", OPT_COUNT, AT(truth), "N", "true latents", "128", OPT_RESULT, .min = 1, .max = 1e8},
    {"rows", OPT_COUNT, AT(rows), "N", "rows to make", NULL, OPT_RESULT | OPT_REQUIRED, .min = 1,
     .max = 5e11},
    {"active", OPT_FLOAT, AT(active), "L", "latents active in a row, on average", "3", OPT_RESULT,
     .min = 1e-6, .max = 1e8},
    {"frequencies", OPT_CHOICE, AT(frequencies), "LAW",
     "how probabilities fall: uniform, zipf, geometric, linear", "uniform", OPT_RESULT,
     .words = "uniform|zipf|geometric|linear"},
    {"zipf", OPT_FLOAT, AT(zipf), "S", "exponent of Zipf's law; given alone it chooses that law", "1",
     OPT_RESULT, .min = 0, .max = 100},
    {"decay", OPT_FLOAT, AT(decay), "R", "ratio of neighbours under the geometric law", "0.99", OPT_RESULT,
     .min = 1e-6, .max = 1},
    {"between", OPT_STRING, AT(between), "FIRST:LAST",
     "probability of the first and the last latent, the law in between, instead of --active", NULL,
     OPT_RESULT},
    {"magnitude", OPT_CHOICE, AT(magnitude), "KIND",
     "uniform in (0, 1], half-normal, exponential, constant, normal", "uniform", OPT_RESULT,
     .words = "uniform|half-normal|exponential|constant|normal"},
    {"scale", OPT_STRING, AT(scale), "A[:B]",
     "what magnitudes are multiplied by (normal: their mean), linear from A to B", "1", OPT_RESULT},
    {"spread", OPT_STRING, AT(spread), "M[:S]", "normal: standard deviation, |N(M, S)| of each latent", "0",
     OPT_RESULT},
    {"correlation", OPT_STRING, AT(correlation), "RANK:SCALE", "Gaussian copula with RANK random factors",
     NULL, OPT_RESULT},
    {"hierarchy", OPT_STRING, AT(hierarchy), "ROOTS:BRANCH:DEPTH",
     "the first latents are trees; a child is active only with its parent", NULL, OPT_RESULT},
    {"siblings", OPT_CHOICE, AT(siblings), "exclusive|free",
     "children of one parent: at most one, or each for itself", "exclusive", OPT_RESULT,
     .words = "exclusive|free"},
    {"scale-children", OPT_FLAG, AT(scale_children), NULL, "a child is worth more where its parent is", NULL,
     OPT_RESULT},
    {"orthogonal", OPT_STRING, AT(orthogonal), "STEPS[:RATE]",
     "push directions apart (exactly orthogonal if N <= D); the rate is 0.01", NULL, OPT_RESULT},
    {"noise", OPT_FLOAT, AT(noise), "S", "standard deviation of normal noise on every coordinate", "0",
     OPT_RESULT, .min = 0, .max = 1e6},
    {"bias", OPT_FLOAT, AT(bias), "B", "norm of a random vector added to every row", "0", OPT_RESULT,
     .min = 0, .max = 1e6},
    {"holdout", OPT_FLOAT, AT(holdout), "SHARE", "share of rows held out, the last ones", "0.05", OPT_RESULT,
     .min = 0, .max = 0.999},
    {"dtype", OPT_CHOICE, AT(dtype), "f32|f16|bf16", "type of the stored activations", "f32", OPT_RESULT,
     .words = "f32|f16|bf16"},
};

const struct command cmd_synth = {
    .name = "synth",
    .about = "makes data with known truth",
    .operands = "dictionary",
    .min_operands = 1,
    .max_operands = 1,
    .examples =
        (const char *const[]){
            "sonde synth dictionary --dim 64 --truth 128 --active 3 --rows 1M --seed 1 -o acts.h5",
            "128 directions in 64 dimensions, 3 of them in a row on average, magnitudes uniform",
            "sonde synth dictionary --dim 768 --truth 16384 --frequencies zipf --zipf 0.5 "
            "--between 0.4:5e-4 --hierarchy 128:4:3 --scale-children --correlation 25:0.1 "
            "--orthogonal 100:3e-4 --magnitude normal --scale 5:4 --spread 0.5:0.5 --bias 0.5 "
            "--rows 1M --seed 42 -o acts.h5",
            "the set-up of SynthSAEBench-16k", NULL},
    .details = "A row is a sum of unit directions, each times a magnitude, plus bias and noise. The file is "
               "read by sonde "
               "train as /acts/synthetic; /truth in it holds the directions, their parents and frequencies, "
               "and which "
               "latents are active in each row and how much. sonde eval --truth scores a dictionary against "
               "it.\n\nEvery "
               "row is a function of its number and of the options: more rows keep the first ones, and the "
               "number of "
               "threads changes nothing.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .common = TAKES_OUTPUT | TAKES_SEED | TAKES_THREADS | TAKES_MEMORY | TAKES_DRY_RUN | TAKES_JSON |
              TAKES_KERNEL | TAKES_PROGRESS,
    .n_values = sizeof(struct synth_options),
    .saves_state = true,
    .run = run,
};
