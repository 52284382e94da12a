/* SPDX-License-Identifier: MIT
 * Everything that is said about the commands, printed from their tables. */
#ifndef SONDE_TOOLS_HELP_H
#define SONDE_TOOLS_HELP_H

#include <stdio.h>

#include "option.h"

extern const struct command *const commands[]; /* NULL at the end; in main.c */

void help_overview(FILE *f);
void help_command(FILE *f, const struct command *c);
void help_man(FILE *f);  /* sonde(1) in roff */
void help_bash(FILE *f); /* completion */
void help_zsh(FILE *f);

#endif
