/* SPDX-License-Identifier: MIT */
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "number.h"

#define TERMINAL_S 0.2 /* between two lines */
#define PLAIN_S    30.0

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void time_text(char *buf, size_t n, double seconds)
{
    if (seconds > 3600 * 1000.0) {
        snprintf(buf, n, "weeks");
        return;
    }
    int s = (int)(seconds + 0.5);
    if (s < 3600)
        snprintf(buf, n, "%d:%02d", s / 60, s % 60);
    else
        snprintf(buf, n, "%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
}

void progress_text(char *buf, size_t n, const sonde_progress *what, uint64_t n_first, double elapsed_s)
{
    char done[32], total[32], rate_text[32], left[32];
    number_print_short((double)what->n_done, done);
    int k = what->n_total ? snprintf(buf, n, "%s %s/%s %s  %d %%", what->phase, done,
                                     number_print_short((double)what->n_total, total), what->unit,
                                     (int)(100.0 * (double)what->n_done / (double)what->n_total))
                          : snprintf(buf, n, "%s %s %s", what->phase, done, what->unit);
    double rate =
        elapsed_s > 0.5 && what->n_done > n_first ? (double)(what->n_done - n_first) / elapsed_s : 0;
    if (rate > 0 && k > 0 && (size_t)k < n)
        k += snprintf(buf + k, n - (size_t)k, "  %s %s/s", number_print_short(rate, rate_text), what->unit);
    if (rate > 0 && what->n_total > what->n_done && k > 0 && (size_t)k < n) {
        time_text(left, sizeof left, (double)(what->n_total - what->n_done) / rate);
        k += snprintf(buf + k, n - (size_t)k, "  %s left", left);
    }
    if (what->detail && k > 0 && (size_t)k < n)
        snprintf(buf + k, n - (size_t)k, "  %s", what->detail);
}

void progress_begin(struct progress *p, const char *command, bool quiet)
{
    const char *term = getenv("TERM");
    *p = (struct progress){.command = command, .quiet = quiet};
    p->terminal = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
}

void progress_report(void *arg, const sonde_progress *what)
{
    struct progress *p = arg;
    if (p->quiet)
        return;
    double now = now_s();
    if (strcmp(p->phase, what->phase) != 0) {
        snprintf(p->phase, sizeof p->phase, "%s", what->phase);
        p->n_first = what->n_done;
        p->begin_s = now;
        if (p->last_s == 0)
            p->last_s = now;
    }
    if (now - p->last_s < (p->terminal ? TERMINAL_S : PLAIN_S))
        return;
    p->last_s = now;
    char text[256];
    progress_text(text, sizeof text, what, p->n_first, now - p->begin_s);
    if (!p->terminal) {
        fprintf(stderr, "sonde %s: %s\n", p->command, text);
        return;
    }
    struct winsize size;
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
    fprintf(stderr, "\r\033[K%.*s", columns, text);
    p->open = true;
}

void progress_clear(struct progress *p)
{
    if (p->open)
        fputs("\r\033[K",
              stderr); /* standard error is not buffered: it is gone before anything that follows */
    p->open = false;
}
