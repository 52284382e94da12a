/* SPDX-License-Identifier: MIT
 * Runs the program under test as a user does: its own process, its messages in a file, an empty directory of
 * its own. $SONDE is the program, $SONDE_SOURCE the source tree. */
#ifndef TESTS_FAULT_CHILD_H
#define TESTS_FAULT_CHILD_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/rng.h"
#include "file/npy.h"

#define MAX_WORDS 64

/* A command line that grows. */
struct words {
    const char *word[MAX_WORDS];
    int n;
};

static inline void add_words(struct words *w, ...)
{
    va_list ap;
    const char *s;
    va_start(ap, w);
    while ((s = va_arg(ap, const char *))) {
        assert_in_range(w->n, 0, MAX_WORDS - 2);
        w->word[w->n++] = s;
    }
    va_end(ap);
    w->word[w->n] = NULL;
}

#define ADD(w, ...) add_words(w, __VA_ARGS__, (const char *)NULL)

/* What the child is to find when it starts. */
struct setting {
    rlim_t file_bytes;      /* RLIMIT_FSIZE; 0: none */
    const char *const *env; /* "NAME=value", NULL at the end; NULL: none */
    const char *err;        /* file that takes standard error */
    const char *out;        /* file that takes standard output */
};

static inline const char *program(void)
{
    const char *s = getenv("SONDE");
    if (!s)
        print_error("SONDE names no program\n"), exit(1);
    return s;
}

static inline const char *golden_model(const char *name)
{
    static char path[4][512];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/tests/golden/models/%s", getenv("SONDE_SOURCE"), name);
    return path[k];
}

static inline pid_t start(const struct words *w, const struct setting *s)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid)
        return pid;
    int out = open(s && s->out ? s->out : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    int err = open(s && s->err ? s->err : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (out < 0 || err < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
        _exit(120);
    for (int i = 1; i < NSIG; i++)
        (void)signal(i, SIG_DFL);
    if (s && s->file_bytes)
        (void)setrlimit(RLIMIT_FSIZE, &(struct rlimit){s->file_bytes, s->file_bytes});
    for (const char *const *e = s ? s->env : NULL; e && *e; e++)
        (void)putenv(strdup(*e));
    const char *argv[MAX_WORDS + 1] = {program()};
    memcpy(argv + 1, w->word, sizeof *argv * (size_t)(w->n + 1));
    execv(program(), (char *const *)argv);
    _exit(121);
}

/* Exit status, or 1000 + signal. */
static inline int wait_for(pid_t pid)
{
    int status;
    pid_t got;
    do
        got = waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    assert_int_equal(got, pid);
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static inline int run_words(const struct words *w, const struct setting *s)
{
    return wait_for(start(w, s));
}

static inline double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline void sleep_s(double s)
{
    struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    while (nanosleep(&t, &t) && errno == EINTR)
        ;
}

/* At most 4 KiB of a file as text, in one of four buffers. */
static inline const char *text_of(const char *path)
{
    static char text[4][4097];
    static int k;
    k = (k + 1) % 4;
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text[k], 1, sizeof text[k] - 1, f) : 0;
    if (f)
        fclose(f);
    text[k][n] = '\0';
    return text[k];
}

/* Is it one line that begins like the messages of the program? */
static inline bool one_line(const char *text)
{
    const char *end = strchr(text, '\n');
    return !strncmp(text, "sonde", 5) && end && !end[1];
}

static inline bool is_there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static inline void hash_of(const char *path, char hex[65])
{
    sonde_err err = {0};
    if (sonde_sha256_file(path, hex, &err))
        fail_msg("%s", err.msg);
}

static inline void same_file(const char *path, const char want[65])
{
    char hex[65];
    hash_of(path, hex);
    if (strcmp(hex, want))
        fail_msg("%s: sha256 %s, should be %s", path, hex, want);
}

/* The files of the current directory but those in `known` (NULL at the end), or "" when there is none. */
static inline const char *strangers_here(const char *const *known)
{
    static char names[1000];
    char command[1000] = "ls -A";
    size_t n;
    for (size_t i = 0; known[i]; i++) {
        n = strlen(command);
        snprintf(command + n, sizeof command - n, " --ignore=%s", known[i]);
    }
    FILE *f = popen(command, "r");
    assert_non_null(f);
    n = fread(names, 1, sizeof names - 1, f);
    names[n] = '\0';
    pclose(f);
    return names;
}

/* [rows, columns] ids below n_vocab, always the same ones. */
static inline void write_ids(const char *path, uint64_t rows, uint64_t columns, uint64_t n_vocab)
{
    sonde_rng r = sonde_rng_seed(rows);
    int32_t *id = malloc(rows * columns * sizeof *id);
    assert_non_null(id);
    for (uint64_t i = 0; i < rows * columns; i++)
        id[i] = (int32_t)sonde_rng_below(&r, n_vocab);
    sonde_err err = {0};
    sonde_tensor t = {.dtype = SONDE_I32,
                      .rank = 2,
                      .dim = {rows, columns},
                      .data = id,
                      .n_bytes = rows * columns * sizeof *id};
    if (sonde_npy_write(path, &t, true, &err))
        fail_msg("%s", err.msg);
    free(id);
}

/* An empty directory of the test's own becomes the current one: in memory where there is such a place. */
static inline int enter_dir(void **state)
{
    static char dir[64];
    strcpy(dir, "/dev/shm/sonde-fault-XXXXXX");
    if (!mkdtemp(dir)) {
        strcpy(dir, "/tmp/sonde-fault-XXXXXX");
        if (!mkdtemp(dir))
            return -1;
    }
    *state = dir;
    return chdir(dir);
}

static inline int leave_dir(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", (const char *)*state);
    return chdir("/") || system(command);
}

#endif
