/* SPDX-License-Identifier: MIT
 * sonde: the table of commands. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <cblas.h>
#include <hdf5.h>
#include <jansson.h>
#include <pcre2.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>

#include "base/suggest.h"
#include "commands.h"
#include "help.h"
#include "num/cpu.h"
#include "tool.h"

static void print_version(void)
{
    unsigned hdf5[3] = {0}, xxh = XXH_versionNumber();
    char pcre2[64] = "", openblas[128];
    H5get_libversion(&hdf5[0], &hdf5[1], &hdf5[2]);
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    snprintf(openblas, sizeof openblas, "%s", openblas_get_config());
    const char *version = strncmp(openblas, "OpenBLAS ", 9) ? openblas : openblas + 9;
    printf("sonde %s\n", SONDE_VERSION);
    printf("OpenBLAS %.*s (%s)\n", (int)strcspn(version, " "), version, openblas_get_corename());
    printf("HDF5 %u.%u.%u\n", hdf5[0], hdf5[1], hdf5[2]);
    printf("jansson %s\n", jansson_version_str());
    printf("PCRE2 %s\n", pcre2);
    printf("utf8proc %s\n", utf8proc_version());
    printf("xxhash %u.%u.%u\n", xxh / 10000, xxh / 100 % 100, xxh % 100);
    printf("kernels: %s\n", sonde_kernels_name(sonde_kernels_best()));
}

static const struct command *find_command(const char *name)
{
    for (const struct command *const *c = commands; *c; c++)
        if (!strcmp((*c)->name, name))
            return *c;
    return NULL;
}

static int unknown_command(const char *word)
{
    const char *name[64] = {NULL};
    size_t n = 0;
    for (const struct command *const *c = commands; *c && n < 64; c++)
        if (!(*c)->hidden)
            name[n++] = (*c)->name;
    char near[200];
    sonde_err line = {0};
    sonde_suggest(word, name, n, near, sizeof near);
    if (word[0] == '-')
        sonde_fail(&line, SONDE_E_USAGE,
                   "no option '%.100s' before a command; sonde --help lists the commands", word);
    else
        sonde_fail(&line, SONDE_E_USAGE, "no command '%.100s'%s", word,
                   near[0] ? near : "; sonde --help lists them");
    fprintf(stderr, "sonde: %s\n", line.msg);
    return SONDE_E_USAGE;
}

struct help_options {
    bool man, bash, zsh;
};

static enum sonde_code run_help(struct tool *t, const void *values, sonde_err *err)
{
    const struct help_options *o = values;
    const struct command *c = t->n_operands ? find_command(t->operand[0]) : NULL;
    if (o->man)
        help_man(stdout);
    else if (o->bash)
        help_bash(stdout);
    else if (o->zsh)
        help_zsh(stdout);
    else if (c)
        help_command(stdout, c);
    else if (t->n_operands)
        return sonde_fail(err, SONDE_E_USAGE, "no command '%.100s'", t->operand[0]);
    else
        help_overview(stdout);
    return SONDE_OK;
}

static const struct option help_options[] = {
    {"man", OPT_FLAG, offsetof(struct help_options, man), NULL, "the manual page in roff"},
    {"bash", OPT_FLAG, offsetof(struct help_options, bash), NULL, "completion for bash"},
    {"zsh", OPT_FLAG, offsetof(struct help_options, zsh), NULL, "completion for zsh"},
};

static const struct command cmd_help = {
    .name = "help",
    .about = "help on a command",
    .operands = "[COMMAND]",
    .max_operands = 1,
    .examples = (const char *const[]){"sonde help capture", "the same as sonde capture --help",
                                      "sonde help --bash", "completion for bash, to be sourced", NULL},
    .options = help_options,
    .n_options = sizeof help_options / sizeof *help_options,
    .n_values = sizeof(struct help_options),
    .hidden = true,
    .run = run_help,
};

/* In the order in which a user meets them. */
const struct command *const commands[] = {
    &cmd_info,
    &cmd_tokenize,
    &cmd_generate,
    &cmd_capture,
    &cmd_train,
    &cmd_eval,
    &cmd_encode,
    &cmd_convert,
    &cmd_synth,
    &cmd_help,
    NULL,
};

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        help_overview(stderr);
        return SONDE_E_USAGE;
    }
    const char *word = argv[1];
    if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
        help_overview(stdout);
        return tool_finish(NULL, SONDE_OK);
    }
    if (!strcmp(word, "--version")) {
        print_version();
        return tool_finish(NULL, SONDE_OK);
    }
    const struct command *c = find_command(word);
    return c ? tool_run(c, argc - 2, argv + 2) : unknown_command(word);
}

int main(int argc, char **argv)
{
    tool_prepare();
    tool_leave(dispatch(argc, argv));
}
