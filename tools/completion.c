/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "help.h"

/* Call put for every option that the command takes. */
static void each_option(FILE *f, const struct command *c, void (*put)(FILE *, const struct option *))
{
    for (size_t i = 0; i < c->n_options; i++)
        put(f, &c->options[i]);
    for (size_t i = 0; i < n_common_options; i++)
        if (c->common & common_option_set[i])
            put(f, &common_options[i]);
}

static void bash_name(FILE *f, const struct option *o)
{
    fprintf(f, " --%s", o->name);
}

static void bash_choice(FILE *f, const struct option *o)
{
    if (o->type != OPT_CHOICE)
        return;
    fprintf(f, "        --%s) COMPREPLY=($(compgen -W '", o->name);
    for (const char *s = o->words; *s; s++)
        fputc(*s == '|' ? ' ' : *s, f);
    fputs("' -- \"$word\")); return ;;\n", f);
}

void help_bash(FILE *f)
{
    fputs("# Completion of sonde for bash.\n"
          "_sonde() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} options=\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "        COMPREPLY=($(compgen -W '--help --version",
          f);
    for (const struct command *const *c = commands; *c; c++)
        if (!(*c)->hidden)
            fprintf(f, " %s", (*c)->name);
    fputs("' -- \"$word\"))\n        return\n    fi\n    case ${COMP_WORDS[1]} in\n", f);
    for (const struct command *const *c = commands; *c; c++) {
        if ((*c)->hidden)
            continue;
        fprintf(f, "    %s)\n        options='--help", (*c)->name);
        each_option(f, *c, bash_name);
        fputs("'\n        case $before in\n", f);
        each_option(f, *c, bash_choice);
        fputs("        esac ;;\n", f);
    }
    fputs("    esac\n"
          "    case $word in\n"
          "    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$word\")) ;;\n"
          "    *) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n"
          "    esac\n"
          "}\n"
          "complete -o filenames -F _sonde sonde\n",
          f);
}

/* Text between single quotes inside which [ ] and : have a meaning for _arguments. */
static void zsh_text(FILE *f, const char *s)
{
    for (; *s; s++) {
        if (*s == '\'')
            fputs("'\\''", f);
        else if (strchr("[]:\\", *s))
            fprintf(f, "\\%c", *s);
        else
            fputc(*s, f);
    }
}

static void zsh_option(FILE *f, const struct option *o)
{
    fprintf(f, " \\\n            '%s--%s%s[", o->type == OPT_STRINGS ? "*" : "", o->name,
            o->type == OPT_FLAG ? "" : "=");
    zsh_text(f, o->about);
    fputc(']', f);
    if (o->type == OPT_CHOICE) {
        fprintf(f, ":%s:(", o->name);
        for (const char *s = o->words; *s; s++)
            fputc(*s == '|' ? ' ' : *s, f);
        fputc(')', f);
    } else if (o->type != OPT_FLAG) {
        fputc(':', f);
        zsh_text(f, o->arg);
        fputs(o->flags & OPT_FILE ? ":_files" : ":", f);
    }
    fputc('\'', f);
}

void help_zsh(FILE *f)
{
    fputs("#compdef sonde\n"
          "# Completion of sonde for zsh.\n"
          "_sonde() {\n"
          "    if (( CURRENT == 2 )); then\n"
          "        local -a names=(",
          f);
    for (const struct command *const *c = commands; *c; c++)
        if (!(*c)->hidden) {
            fprintf(f, "\n            '%s:", (*c)->name);
            zsh_text(f, (*c)->about);
            fputc('\'', f);
        }
    fputs(")\n        _describe command names\n        return\n    fi\n"
          "    local name=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $name in\n",
          f);
    for (const struct command *const *c = commands; *c; c++) {
        if ((*c)->hidden)
            continue;
        fprintf(f, "    %s)\n        _arguments", (*c)->name);
        each_option(f, *c, zsh_option);
        fputs(" \\\n            '--help[this text]' '*:file:_files' ;;\n", f);
    }
    fputs("    esac\n}\n_sonde \"$@\"\n", f);
}
