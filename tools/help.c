/* SPDX-License-Identifier: MIT */
#include "help.h"

#include <string.h>

#define WIDTH  100
#define COLUMN 26 /* where the descriptions of options begin */

/* Words of text from column `at` on, broken before WIDTH, continued under column `indent`. */
static void put_wrapped(FILE *f, const char *text, int at, int indent)
{
    int column = at;
    for (const char *s = text; *s;) {
        if (*s == '\n') {
            fprintf(f, "\n%*s", indent, "");
            column = indent;
            s++;
            continue;
        }
        int n = (int)strcspn(s, " \n");
        if (column > indent && column + 1 + n > WIDTH) {
            fprintf(f, "\n%*s", indent, "");
            column = indent;
        } else if (s != text && column > indent) {
            fputc(' ', f);
            column++;
        }
        fprintf(f, "%.*s", n, s);
        column += n;
        s += n;
        s += *s == ' ';
    }
    fputc('\n', f);
}

static void put_option(FILE *f, const struct option *o)
{
    char head[128], text[600];
    int n =
        snprintf(head, sizeof head, "  %s%c%s--%s%s%s", o->letter ? "-" : "  ", o->letter ? o->letter : ' ',
                 o->letter ? ", " : " ", o->name, o->arg || o->type == OPT_CHOICE ? " " : "",
                 o->type == OPT_CHOICE ? o->words
                 : o->arg              ? o->arg
                                       : "");
    const char *more = o->type == OPT_STRINGS    ? " (may be repeated)"
                       : o->flags & OPT_REQUIRED ? " (needed)"
                                                 : "";
    if (o->fallback)
        snprintf(text, sizeof text, "%s%s (default %s)", o->about, more, o->fallback);
    else
        snprintf(text, sizeof text, "%s%s", o->about, more);
    fputs(head, f);
    if (n + 2 > COLUMN)
        fprintf(f, "\n%*s", COLUMN, "");
    else
        fprintf(f, "%*s", COLUMN - n, "");
    put_wrapped(f, text, COLUMN, COLUMN);
}

void help_command(FILE *f, const struct command *c)
{
    fputs("Examples:\n", f);
    for (const char *const *e = c->examples; *e; e += 2) {
        fprintf(f, "  %s\n      ", e[0]);
        put_wrapped(f, e[1], 6, 6);
    }
    fprintf(f, "\nUsage: sonde %s [options]%s%s\n\n", c->name, *c->operands ? " " : "", c->operands);
    put_wrapped(f, c->about, 0, 0);
    if (c->details) {
        fputc('\n', f);
        put_wrapped(f, c->details, 0, 0);
    }
    if (c->n_options)
        fputs("\nOptions:\n", f);
    for (size_t i = 0; i < c->n_options; i++)
        put_option(f, &c->options[i]);
    fputs(c->n_options ? "\nOptions that many commands share:\n" : "\nOptions:\n", f);
    for (size_t i = 0; i < n_common_options; i++)
        if (c->common & common_option_set[i])
            put_option(f, &common_options[i]);
    put_option(f, &(struct option){"help", OPT_FLAG, 0, NULL, "this text", .letter = 'h'});
}

void help_overview(FILE *f)
{
    fputs("sonde opens a transformer, records what it thinks, learns the dictionary it thinks in, and draws "
          "it.\n\n"
          "Usage: sonde COMMAND [options] [files]\n\n",
          f);
    for (const struct command *const *c = commands; *c; c++)
        if (!(*c)->hidden)
            fprintf(f, "  %-12s %s\n", (*c)->name, (*c)->about);
    fputs("\nsonde COMMAND --help   examples and options of one command\n"
          "sonde --version        versions of sonde and its libraries, and the kernels in use\n\n"
          "Exit status: 0 done, 1 compared and different, 2 wrong use, 3 malformed input, 4 refused by the "
          "system,\n"
          "5 out of memory or over --max-memory, 6 not a finite number, 75 stopped by a signal, can be "
          "resumed.\n",
          f);
}

/* Text in roff: a backslash, a leading dot or quote and a hyphen mean something there. */
static void put_roff(FILE *f, const char *s)
{
    for (bool first = true; *s; s++) {
        if (first && (*s == '.' || *s == '\''))
            fputs("\\&", f);
        first = *s == '\n';
        if (*s == '\\')
            fputs("\\e", f);
        else if (*s == '-')
            fputs("\\-", f);
        else if (*s == '\n' && s[1] == '\n')
            fputs("\n.PP", f);
        else
            fputc(*s, f);
    }
}

static void man_option(FILE *f, const struct option *o)
{
    fputs(".TP\n.B ", f);
    if (o->letter)
        fprintf(f, "\\-%c\\fR, \\fB", o->letter);
    fputs("\\-\\-", f);
    put_roff(f, o->name);
    if (o->arg || o->type == OPT_CHOICE) {
        fputs(" \\fI", f);
        put_roff(f, o->type == OPT_CHOICE ? o->words : o->arg);
        fputs("\\fR", f);
    }
    fputc('\n', f);
    put_roff(f, o->about);
    if (o->flags & OPT_REQUIRED)
        fputs(" (needed)", f);
    if (o->type == OPT_STRINGS)
        fputs(" (may be repeated)", f);
    if (o->fallback) {
        fputs(" (default ", f);
        put_roff(f, o->fallback);
        fputc(')', f);
    }
    fputc('\n', f);
}

static void man_command(FILE *f, const struct command *c)
{
    fprintf(f, ".SH SONDE %s\n.B sonde %s\n[options] ", c->name, c->name);
    put_roff(f, c->operands);
    fputs("\n.PP\n", f);
    put_roff(f, c->about);
    fputc('\n', f);
    if (c->details) {
        fputs(".PP\n", f);
        put_roff(f, c->details);
        fputc('\n', f);
    }
    for (const char *const *e = c->examples; *e; e += 2) {
        fputs(".TP\n.B ", f);
        put_roff(f, e[0]);
        fputc('\n', f);
        put_roff(f, e[1]);
        fputc('\n', f);
    }
    for (size_t i = 0; i < c->n_options; i++)
        man_option(f, &c->options[i]);
    bool any = false;
    for (size_t i = 0; i < n_common_options; i++)
        if (c->common & common_option_set[i]) {
            fputs(any ? ", " : ".PP\nAlso ", f);
            fputs("\\fB\\-\\-", f);
            put_roff(f, common_options[i].name);
            fputs("\\fR", f);
            any = true;
        }
    fputs(any ? ".\n" : "", f);
}

void help_man(FILE *f)
{
    fputs(".TH SONDE 1 \"\" \"sonde " SONDE_VERSION "\" \"User Commands\"\n.SH NAME\nsonde \\- mechanistic "
          "interpretability of transformers\n.SH SYNOPSIS\n.B sonde\n.I command\n[options] [files]\n.SH "
          "DESCRIPTION\nsonde "
          "opens a transformer, records what it thinks, learns the dictionary it thinks in, and draws it.\n",
          f);
    for (const struct command *const *c = commands; *c; c++)
        if (!(*c)->hidden)
            man_command(f, *c);
    fputs(".SH OPTIONS THAT MANY COMMANDS SHARE\n", f);
    for (size_t i = 0; i < n_common_options; i++)
        man_option(f, &common_options[i]);
    fputs(".SH EXIT STATUS\n", f);
    static const char *const status[][2] = {
        {"0", "done"},
        {"1", "compared and different"},
        {"2", "wrong use: an option, a shape or a name"},
        {"3", "an input file is malformed, truncated or of the wrong kind"},
        {"4", "refused by the system: full disk, no permission"},
        {"5", "out of memory, or over --max-memory"},
        {"6", "NaN or infinity where a finite number is needed"},
        {"75", "stopped by a signal; the state is saved and --resume goes on"}};
    for (size_t i = 0; i < sizeof status / sizeof *status; i++) {
        fprintf(f, ".TP\n.B %s\n", status[i][0]);
        put_roff(f, status[i][1]);
        fputc('\n', f);
    }
    fputs(".SH ENVIRONMENT\n.TP\n.B SLURM_CPUS_PER_TASK\nthreads, where \\-\\-threads is not given\n", f);
}
