/* SPDX-License-Identifier: MIT
 * Progress on standard error: one line rewritten in place on a terminal, a plain line every 30 seconds
 * elsewhere. */
#ifndef SONDE_TOOLS_PROGRESS_H
#define SONDE_TOOLS_PROGRESS_H

#include "base/work.h"

struct progress {
    const char *command;
    bool quiet, terminal;
    bool open;        /* a line without its end stands on the terminal */
    char phase[64];   /* of the last report */
    uint64_t n_first; /* where the phase began (a resumed run does not begin at 0) */
    double begin_s, last_s;
};

void progress_begin(struct progress *p, const char *command, bool quiet);

/* The `report` of a sonde_work; arg is the struct progress. */
void progress_report(void *arg, const sonde_progress *what);

/* Take the open line away, before anything else is written to standard error. */
void progress_clear(struct progress *p);

/* The text of a line: "capturing 12.3k/100k tokens  12 %  4.10k tokens/s  0:21 left". */
void progress_text(char *buf, size_t n, const sonde_progress *what, uint64_t n_first, double elapsed_s);

#endif
