/* SPDX-License-Identifier: MIT
 * Preloaded into the program: calls of one name fail. Calls of child processes do not count.
 *
 * FAIL_CALL: write, pwrite, fsync, fdatasync, rename (and its relatives), close, fallocate, ftruncate, open.
 *
 * FAIL_AT: number of the call that fails, from 0; with FAIL_ON all from there on; -1: none.
 *
 * FAIL_ERRNO: number of the error. FAIL_MARK: file that is made when a call has failed.
 *
 * FAIL_KILL: instead of failing the call kills the program, before it is made.
 *
 * FAIL_SHORT: instead, write and pwrite take one byte at a time, and every other call is interrupted before.
 *
 * A close that fails has closed. Files of the system (/proc, /sys, /dev, shared libraries) are left alone. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static _Atomic long calls;
static _Atomic unsigned turn;

static long number(const char *name, long otherwise)
{
    const char *s = getenv(name);
    return s ? atol(s) : otherwise;
}

static pid_t first_process;

__attribute__((constructor)) static void remember_process(void)
{
    first_process = getpid();
}

static int fails(const char *call)
{
    const char *chosen = getenv("FAIL_CALL"), *mark = getenv("FAIL_MARK");
    long at = number("FAIL_AT", -1);
    if (!chosen || strcmp(chosen, call) || at < 0 || getpid() != first_process)
        return 0;
    long n = atomic_fetch_add(&calls, 1);
    if (n != at && !(getenv("FAIL_ON") && n > at))
        return 0;
    if (mark) {
        long fd = syscall(SYS_openat, AT_FDCWD, mark, O_WRONLY | O_CREAT, 0666);
        if (fd >= 0)
            syscall(SYS_close, fd);
    }
    if (getenv("FAIL_KILL"))
        kill(getpid(), SIGKILL);
    errno = (int)number("FAIL_ERRNO", EIO);
    return 1;
}

/* Bytes that this call may take; -1: it is interrupted. */
static ssize_t allowed(size_t n)
{
    if (!getenv("FAIL_SHORT") || n == 0)
        return (ssize_t)n;
    if (atomic_fetch_add(&turn, 1) % 2 == 0) {
        errno = EINTR;
        return -1;
    }
    return 1;
}

ssize_t write(int fd, const void *data, size_t n)
{
    ssize_t k = fd == 2 ? (ssize_t)n : allowed(n);
    return k < 0 || fails("write") ? -1 : syscall(SYS_write, fd, data, (size_t)k);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    ssize_t k = allowed(n);
    return k < 0 || fails("pwrite") ? -1 : syscall(SYS_pwrite64, fd, data, (size_t)k, at);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off_t at)
{
    return pwrite(fd, data, n, at);
}

int fsync(int fd)
{
    return allowed(1) < 0 || fails("fsync") ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return allowed(1) < 0 || fails("fdatasync") ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int rename(const char *from, const char *to)
{
    return fails("rename") ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int at, const char *from, int at2, const char *to)
{
    return fails("rename") ? -1 : (int)syscall(SYS_renameat2, at, from, at2, to, 0);
}

int renameat2(int at, const char *from, int at2, const char *to, unsigned flags)
{
    return fails("rename") ? -1 : (int)syscall(SYS_renameat2, at, from, at2, to, flags);
}

int close(int fd)
{
    int rc = (int)syscall(SYS_close, fd);
    return fails("close") ? -1 : rc;
}

int fallocate(int fd, int mode, off_t at, off_t n)
{
    return fails("fallocate") ? -1 : (int)syscall(SYS_fallocate, fd, mode, at, n);
}

int fallocate64(int fd, int mode, off_t at, off_t n)
{
    return fallocate(fd, mode, at, n);
}

int ftruncate(int fd, off_t n)
{
    return fails("ftruncate") ? -1 : (int)syscall(SYS_ftruncate, fd, n);
}

int ftruncate64(int fd, off_t n)
{
    return ftruncate(fd, n);
}

static int is_of_the_system(const char *path)
{
    return !strncmp(path, "/proc/", 6) || !strncmp(path, "/sys/", 5) || !strncmp(path, "/dev/null", 9) ||
           strstr(path, ".so");
}

int open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    unsigned mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, unsigned) : 0;
    va_end(ap);
    return !is_of_the_system(path) && fails("open") ? -1
                                                    : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    unsigned mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, unsigned) : 0;
    va_end(ap);
    return open(path, flags, mode);
}
