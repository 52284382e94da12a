/* SPDX-License-Identifier: MIT
 * Signals and standard streams: the process state that only the program may touch. */
#ifndef SONDE_TOOLS_SIGNALS_H
#define SONDE_TOOLS_SIGNALS_H

#include <signal.h>

/* A closed standard stream becomes /dev/null opened the wrong way round, so that no file of ours gets its
 * number and using it is an error. SIGXFSZ is ignored (writes then fail with EFBIG); SIGBUS says that a
 * mapped file was cut and exits 4. */
void signals_prepare(void);

/* From now on SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGXCPU set the flag that is returned, unless they were
 * ignored before; a second SIGINT ends the process at once. SIGPIPE is ignored: a long run does not die
 * because a reader of its notes has. */
const volatile sig_atomic_t *signals_catch_stop(void);

/* End as a process does that writes into a pipe without a reader. */
_Noreturn void signals_die_of_pipe(void);

#endif
