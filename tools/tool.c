/* SPDX-License-Identifier: MIT */
#include "tool.h"

#include <cblas.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "help.h"
#include "signals.h"

__attribute__((format(printf, 2, 0))) static void speak(struct tool *t, const char *fmt, va_list ap)
{
    char text[sizeof(sonde_err)];
    sonde_err line = {0};
    vsnprintf(text, sizeof text, fmt, ap);
    sonde_fail(&line, SONDE_OK, "%s", text); /* makes it printable */
    progress_clear(&t->progress);
    fprintf(stderr, "sonde %s: %s\n", t->parsed->command->name, line.msg);
}

void tool_note(struct tool *t, const char *fmt, ...)
{
    if (t->common->quiet)
        return;
    va_list ap;
    va_start(ap, fmt);
    speak(t, fmt, ap);
    va_end(ap);
}

void tool_detail(struct tool *t, const char *fmt, ...)
{
    if (!t->common->verbose || t->common->quiet)
        return;
    va_list ap;
    va_start(ap, fmt);
    speak(t, fmt, ap);
    va_end(ap);
}

/* --threads, else what the batch system gave this task, else what the machine allows (0). */
static int n_threads(const struct common *c)
{
    if (c->threads != OPTION_WORD)
        return (int)c->threads;
    const char *slurm = getenv("SLURM_CPUS_PER_TASK");
    char *end;
    long n = slurm ? strtol(slurm, &end, 10) : 0;
    return slurm && *slurm && !*end && n >= 1 && n <= 1024 ? (int)n : 0;
}

const sonde_work *tool_work(struct tool *t, sonde_err *err)
{
    if (!t->work.pool && sonde_pool_new(n_threads(t->common), &t->work.pool, err))
        return NULL;
    return &t->work;
}

bool tool_stopped(const struct tool *t)
{
    return sonde_work_stopped(&t->work);
}

static int output_errno; /* why writing to standard output failed: stdio forgets it */

bool tool_output_broken(void)
{
    if (!ferror(stdout))
        return false;
    if (!output_errno)
        output_errno = errno;
    return true;
}

static struct progress *current_progress; /* of the one command that a process runs */

void tool_result(struct tool *t)
{
    progress_clear(&t->progress);
}

enum sonde_code tool_print_json(json_t *value, sonde_err *err)
{
    if (!value)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for the JSON of the result");
    if (current_progress)
        progress_clear(current_progress);
    bool ok =
        json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) == 0 || tool_output_broken();
    putchar('\n');
    json_decref(value);
    return ok ? SONDE_OK : sonde_fail(err, SONDE_E_MEMORY, "no memory to print the JSON of the result");
}

int tool_finish(const char *command, int status)
{
    bool bad = tool_output_broken();
    if (fflush(stdout) || bad || fclose(stdout)) {
        int why = output_errno ? output_errno : errno;
        if (why == EPIPE)
            signals_die_of_pipe();
        fprintf(stderr, "sonde%s%s: standard output: %s\n", command ? " " : "", command ? command : "",
                why ? strerror(why) : "cannot be written");
        return status ? status : SONDE_E_IO;
    }
    return status;
}

void tool_prepare(void)
{
    signals_prepare();
    openblas_set_num_threads(1); /* threads are ours; results must not depend on OpenBLAS's */
}

/* Without the libraries' own farewells: OpenBLAS waits for ever for threads that it could not start when
 * memory was short, and HDF5 crashes when a full disk has kept it from closing a file. Sanitizers report at
 * exit, so there it is an ordinary one. */
void tool_leave(int status)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    exit(status);
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
    exit(status);
#endif
#endif
    fflush(NULL);
    _exit(status);
}

static int report(struct tool *t, enum sonde_code rc, const sonde_err *err)
{
    progress_clear(&t->progress);
    if (rc && (err->msg[0] || !tool_output_broken())) /* else tool_finish has the reason */
        fprintf(stderr, "sonde %s: %s\n", t->parsed->command->name, err->msg[0] ? err->msg : "failed");
    return (int)rc;
}

int tool_run(const struct command *c, int argc, char *const *argv)
{
    sonde_err err = {0};
    struct parsed p;
    struct tool t = {.parsed = &p, .common = &p.common};
    enum sonde_code rc = option_parse(c, argc, argv, &p, &err);
    if (rc || p.help) {
        int status = rc ? report(&t, rc, &err) : 0;
        if (!rc)
            help_command(stdout, c);
        parsed_free(&p);
        return tool_finish(c->name, status);
    }
    t.operand = p.operand;
    t.n_operands = p.n_operands;
    t.limit.limit = p.common.max_memory == OPTION_WORD ? 0 : (size_t)p.common.max_memory;
    t.budget = &t.limit;
    progress_begin(&t.progress, c->name, p.common.quiet);
    current_progress = &t.progress;
    t.work = (sonde_work){.budget = t.budget, .report = progress_report, .report_arg = &t.progress};
    if (c->saves_state)
        t.work.stop = signals_catch_stop();
    t.canonical = t.canonical_text = option_canonical(&p);
    rc = t.canonical ? c->run(&t, p.values, &err)
                     : sonde_fail(&err, SONDE_E_MEMORY, "no memory for the command line");
    int status = report(&t, rc, &err);
    current_progress = NULL;
    sonde_pool_free(t.work.pool);
    free(t.canonical_text);
    parsed_free(&p);
    return tool_finish(c->name, status);
}
