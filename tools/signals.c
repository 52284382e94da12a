/* SPDX-License-Identifier: MIT */
#include "signals.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop;

static void on_stop(int signal_number)
{
    (void)signal_number;
    stop = 1;
}

static void on_bus(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    static const char text[] = "sonde: an input file changed on disk while in use\n";
    if (info->si_code == BUS_ADRERR) {
        if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
            _exit(4);
        _exit(4);
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void signals_prepare(void)
{
    static const int way[3] = {O_WRONLY, O_RDONLY, O_RDWR};
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", way[fd]) != fd)
            _exit(4); /* the lowest free number is fd, or there is no /dev/null */
    signal(SIGXFSZ, SIG_IGN);
    struct sigaction bus = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    sigemptyset(&bus.sa_mask);
    sigaction(SIGBUS, &bus, NULL);
}

const volatile sig_atomic_t *signals_catch_stop(void)
{
    static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU};
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++) {
        struct sigaction before, action = {.sa_handler = on_stop};
        sigemptyset(&action.sa_mask);
        if (caught[i] == SIGINT)
            action.sa_flags = (int)SA_RESETHAND;
        if (sigaction(caught[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN)
            continue;
        sigaction(caught[i], &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    return &stop;
}

void signals_die_of_pipe(void)
{
    sigset_t pipe_only;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_UNBLOCK, &pipe_only, NULL);
    raise(SIGPIPE);
    _exit(4);
}
