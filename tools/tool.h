/* SPDX-License-Identifier: MIT
 * What every command is given: its options, threads, memory limit, progress, stop flag, and ways to speak. */
#ifndef SONDE_TOOLS_TOOL_H
#define SONDE_TOOLS_TOOL_H

#include <jansson.h>

#include "base/work.h"
#include "num/cpu.h"
#include "option.h"
#include "progress.h"

struct tool {
    const struct parsed *parsed; /* for option_given */
    const struct common *common;
    const char **operand;
    size_t n_operands;
    const char *canonical; /* text for the attribute `command` of results */
    sonde_budget *budget;  /* --max-memory; never NULL */

    /* private to tool.c */
    sonde_budget limit;
    sonde_work work;
    struct progress progress;
    char *canonical_text;
};

/* Threads, limit, progress and stop flag for long calls. The threads start at the first call: a command opens
 * its HDF5 files (which fork a child) before. Errors: SONDE_E_IO, SONDE_E_USAGE, SONDE_E_MEMORY; NULL then.
 */
const sonde_work *tool_work(struct tool *t, sonde_err *err);

/* The kernels named by --kernel. Errors: SONDE_E_USAGE. */
static inline enum sonde_code tool_kernels(const struct tool *t, const sonde_kernels **out, sonde_err *err)
{
    return sonde_kernels_find(t->common->kernel, out, err);
}

/* Has SIGINT, SIGTERM, SIGHUP, SIGUSR1 or SIGXCPU asked to stop? */
bool tool_stopped(const struct tool *t);

/* A line "sonde COMMAND: ..." on standard error: a note unless -q, a detail only with -v. Control characters
 * in it are replaced. */
void tool_note(struct tool *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tool_detail(struct tool *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Print a JSON value and a newline to standard output; drops the reference. SONDE_E_MEMORY for NULL. */
enum sonde_code tool_print_json(json_t *value, sonde_err *err);

/* The result follows on standard output: what progress left on the terminal goes. tool_print_json does it by itself. */
void tool_result(struct tool *t);

/* Has writing to standard output failed? Then there is no use in going on; the error is reported at the end.
 */
bool tool_output_broken(void);

/* n bytes of a file's or a model's text in a JSON string or on a terminal: what is not well-formed UTF-8 or
 * is a control character is written \xNN (a backslash as \\). malloc'd. */
char *tool_visible(const char *s, size_t n);

/* Run a command with the words after its name, report its error, and return the exit status. */
int tool_run(const struct command *c, int argc, char *const *argv);

/* Once, first thing in main: standard streams that are closed, SIGBUS, SIGXFSZ, one OpenBLAS thread. */
void tool_prepare(void);

/* Flush standard output. Returns status, or 4 with a message when what was printed could not be written; a
 * reader that has gone away ends the process as SIGPIPE does. */
int tool_finish(const char *command, int status);

/* End the process; nothing of ours is left to do. */
_Noreturn void tool_leave(int status);

#endif
