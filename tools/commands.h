/* SPDX-License-Identifier: MIT
 * One line per command; each lives in its own cmd_*.c. */
#ifndef SONDE_TOOLS_COMMANDS_H
#define SONDE_TOOLS_COMMANDS_H

#include "option.h"

extern const struct command cmd_capture;
extern const struct command cmd_encode;
extern const struct command cmd_eval;
extern const struct command cmd_convert;
extern const struct command cmd_generate;
extern const struct command cmd_info;
extern const struct command cmd_synth;
extern const struct command cmd_tokenize;
extern const struct command cmd_train;

#endif
