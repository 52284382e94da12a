/* SPDX-License-Identifier: MIT
 * The child that HDF5 runs in, and the pipe to it. */
#include "hdf5_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REPLY_LIMIT ((size_t)64 << 20)
#define LIMIT_S     60
#define MAGIC       UINT64_C(0x796c706572683573)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum { FILE_FD = 3, PIPE_FD = 4 }; /* where the child keeps what it may use */

struct head {
    uint64_t magic, code, n;
    char msg[sizeof((sonde_err *)0)->msg];
};

/* ---- the reply --------------------------------------------------------------------------------- */

void sonde_h5_put(sonde_h5_reply *r, const void *bytes, size_t n)
{
    if (r->full || n > REPLY_LIMIT - r->n) {
        r->full = true;
        return;
    }
    if (n > r->room - r->n) {
        size_t room = 2 * (r->n + n) + 4096;
        unsigned char *p = realloc(r->bytes, room);
        if (!p) {
            r->full = true;
            return;
        }
        r->bytes = p;
        r->room = room;
    }
    if (n)
        memcpy(r->bytes + r->n, bytes, n);
    r->n += n;
}

void sonde_h5_put_u64(sonde_h5_reply *r, uint64_t v)
{
    sonde_h5_put(r, &v, sizeof v);
}

void sonde_h5_put_bytes(sonde_h5_reply *r, const void *bytes, size_t n)
{
    sonde_h5_put_u64(r, n);
    sonde_h5_put(r, bytes, n);
    sonde_h5_put(r, "", 1);
}

void sonde_h5_put_text(sonde_h5_reply *r, const char *s)
{
    sonde_h5_put_bytes(r, s, strlen(s));
}

uint64_t sonde_h5_get_u64(sonde_h5_cursor *c)
{
    uint64_t v = 0;
    if (c->bad || c->n - c->at < sizeof v) {
        c->bad = true;
        return 0;
    }
    memcpy(&v, c->bytes + c->at, sizeof v);
    c->at += sizeof v;
    return v;
}

const unsigned char *sonde_h5_get_bytes(sonde_h5_cursor *c, size_t *n)
{
    uint64_t len = sonde_h5_get_u64(c);
    *n = 0;
    if (c->bad || len >= c->n - c->at || c->bytes[c->at + len] != 0) {
        c->bad = true;
        return (const unsigned char *)"";
    }
    const unsigned char *p = c->bytes + c->at;
    *n = (size_t)len;
    c->at += (size_t)len + 1;
    return p;
}

const char *sonde_h5_get_text(sonde_h5_cursor *c)
{
    size_t n;
    const char *s = (const char *)sonde_h5_get_bytes(c, &n);
    if (strlen(s) == n)
        return s;
    c->bad = true;
    return "";
}

/* ---- the child --------------------------------------------------------------------------------- */

/* Keep only the two descriptors, at their fixed places, and nothing on 0, 1 and 2. */
static void keep_descriptors(int file, int pipe_fd)
{
    int f = file < 0 ? -1 : fcntl(file, F_DUPFD, PIPE_FD + 1), p = fcntl(pipe_fd, F_DUPFD, PIPE_FD + 1);
    int null = open("/dev/null", O_RDWR);
    if (p < 0 || (file >= 0 && f < 0) || dup2(p, PIPE_FD) < 0)
        _exit(1);
    if (f >= 0)
        dup2(f, FILE_FD);
    else
        close(FILE_FD);
    for (int i = 0; i < FILE_FD - SANITIZED; i++) /* a sanitizer's report should reach somebody */
        if (null < 0 || dup2(null, i) < 0)
            close(i);
#ifdef SYS_close_range
    if (syscall(SYS_close_range, PIPE_FD + 1, ~0U, 0) == 0)
        return;
#endif
    long n = sysconf(_SC_OPEN_MAX);
    for (int i = PIPE_FD + 1; i < (n > 0 && n < 65536 ? (int)n : 65536); i++)
        close(i);
}

/* The user's interrupt is the parent's business: it must not look like a crash of the child. */
static void reset_signals(void)
{
    static const int ignored[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGUSR1,
                                  SIGUSR2, SIGPIPE, SIGXFSZ, SIGTSTP};
    for (int s = 1; s < NSIG; s++)
        (void)signal(s, SIG_DFL);
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        (void)signal(ignored[i], SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void limit(unsigned what, rlim_t soft, rlim_t hard)
{
    struct rlimit now;
    if (getrlimit(what, &now) == 0 && now.rlim_max != RLIM_INFINITY && now.rlim_max < hard)
        hard = now.rlim_max;
    (void)setrlimit(what, &(struct rlimit){soft < hard ? soft : hard, hard});
}

/* Address space in use, in bytes; 0 when /proc does not say. */
static size_t address_space(void)
{
    char text[64] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? (size_t)strtoull(text, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

/* From here on: no file can be opened, nothing written but the pipe, no other process traced, and an end to
 * memory and time. Landlock is there since Linux 5.13; without it the limit on descriptors alone keeps files
 * shut. */
static void confine(size_t memory_bytes, rlim_t cpu_s)
{
    size_t used = address_space();
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
#ifdef SYS_landlock_create_ruleset
    struct landlock_ruleset_attr all = {.handled_access_fs = (UINT64_C(1) << 13) - 1}; /* all of ABI 1 */
    long rules = syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0U);
    if (rules >= 0) {
        (void)syscall(SYS_landlock_restrict_self, (int)rules, 0U);
        close((int)rules);
    }
#endif
    limit(RLIMIT_CORE, 0, 0);
    limit(RLIMIT_FSIZE, 0, 0);
    limit(RLIMIT_NOFILE, 0, 0);
    limit(RLIMIT_CPU, cpu_s, cpu_s + 1);
    if (used && !SANITIZED)
        limit(RLIMIT_AS, used + memory_bytes, used + memory_bytes);
    alarm(LIMIT_S);
}

static void send_all(const void *data, size_t n)
{
    const unsigned char *p = data;
    while (n > 0) {
        ssize_t k = write(PIPE_FD, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            _exit(1);
        p += k;
        n -= (size_t)k;
    }
}

static void child(const sonde_h5_task *t, int pipe_fd, pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    keep_descriptors(t->fd, pipe_fd);
    reset_signals();
    confine(t->memory_bytes, t->cpu_s * (1 + 3 * SANITIZED));

    sonde_h5_reply reply = {0};
    sonde_err err = {0};
    enum sonde_code rc = t->job(t->arg, t->fd < 0 ? -1 : FILE_FD, &reply, &err);
    if (!rc && reply.full)
        rc = sonde_fail(&err, SONDE_E_INPUT, "its names and attributes take more than %zu MiB",
                        REPLY_LIMIT >> 20);
    struct head head = {MAGIC, (uint64_t)rc, rc ? 0 : reply.n, {0}};
    memcpy(head.msg, err.msg, sizeof head.msg);
    send_all(&head, sizeof head);
    send_all(reply.bytes, (size_t)head.n);
    _exit(0);
}

/* ---- the parent -------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Exactly n bytes before the deadline, or false. */
static bool receive(int fd, void *data, size_t n, int64_t deadline)
{
    unsigned char *p = data;
    while (n > 0) {
        int64_t left = deadline - now_ms();
        struct pollfd wait_for = {.fd = fd, .events = POLLIN};
        int ready = left > 0 ? poll(&wait_for, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return false;
        ssize_t k = read(fd, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static int reap(pid_t pid)
{
    int status = 0;
    pid_t got;
    (void)kill(pid, SIGKILL); /* it has said all it will be heard to say */
    do
        got = waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    return got == pid ? status : 0;
}

static enum sonde_code dead_child(const sonde_h5_task *t, pid_t pid, sonde_err *err)
{
    int status = reap(pid), sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    const char *how =
        sig == SIGXCPU || sig == SIGKILL || sig == SIGALRM ? "did not come to an end" : "crashed";
    if (t->stranger)
        return sonde_fail(err, SONDE_E_INPUT, "%s: damaged or hostile file (HDF5 %s on it)", t->path, how);
    return sonde_fail(err, SONDE_E_IO, "%s: cannot be laid out (HDF5 %s)", t->path, how);
}

static enum sonde_code take_reply(const sonde_h5_task *t, int fd, pid_t pid, sonde_arena *arena,
                                  sonde_h5_cursor *reply, sonde_err *err)
{
    int64_t deadline = now_ms() + (LIMIT_S + 5) * 1000;
    struct head head;
    enum sonde_code rc = SONDE_OK;
    if (!receive(fd, &head, sizeof head, deadline) || head.magic != MAGIC || head.n > REPLY_LIMIT)
        return dead_child(t, pid, err);
    if (head.code != SONDE_OK) {
        head.msg[sizeof head.msg - 1] = '\0';
        rc = head.code <= SONDE_E_NUMERIC ? (enum sonde_code)head.code : SONDE_E_INPUT;
        rc = sonde_fail(err, rc, "%s: %s", t->path, head.msg);
    } else {
        unsigned char *p = sonde_arena_get(arena, (size_t)head.n + 1, 1, err);
        if (!p)
            rc = SONDE_E_MEMORY;
        else if (!receive(fd, p, (size_t)head.n, deadline))
            return dead_child(t, pid, err);
        *reply = (sonde_h5_cursor){.bytes = p, .n = (size_t)head.n};
    }
    (void)reap(pid);
    return rc;
}

enum sonde_code sonde_h5_run(const sonde_h5_task *t, sonde_arena *arena, sonde_h5_cursor *reply,
                             sonde_err *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return sonde_fail(err, SONDE_E_IO, "%s: cannot start the process that runs HDF5: %s", t->path,
                          strerror(errno));
    sigset_t all, old;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &old); /* no handler of the caller runs in the child */
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        child(t, ends[1], parent);
    int saved = errno;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    close(ends[1]);
    enum sonde_code rc = SONDE_OK;
    if (pid < 0)
        rc = sonde_fail(err, SONDE_E_IO, "%s: cannot start the process that runs HDF5: %s", t->path,
                        strerror(saved));
    else
        rc = take_reply(t, ends[0], pid, arena, reply, err);
    close(ends[0]);
    return rc;
}
