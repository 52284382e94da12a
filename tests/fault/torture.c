/* SPDX-License-Identifier: MIT
 * Preloaded into the program: from its first statement on (it ignores SIGXFSZ there) the allocation number TORTURE_AT fails, or
 * with TORTURE_ON all from there on. Says on file descriptor 7, if that is open, whether any failed. */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#pragma GCC visibility push(default)

static _Atomic long calls = -1;
static long at;
static int on;

static int fails(void)
{
    if (atomic_load(&calls) < 0)
        return 0;
    long n = atomic_fetch_add(&calls, 1);
    if (n != at && !(on && n > at))
        return 0;
    if (n == at && write(7, "x", 1) < 0)
        errno = 0;
    errno = ENOMEM;
    return 1;
}

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n)
{
    return fails() ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return fails() ? NULL : __libc_realloc(p, n);
}

void *mmap(void *p, size_t n, int protection, int flags, int fd, off_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off_t);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "mmap");
    return fails() ? MAP_FAILED : real(p, n, protection, flags, fd, offset);
}

void (*signal(int number, void (*handler)(int)))(int)
{
    struct sigaction now = {.sa_handler = handler}, before;
    sigaction(number, &now, &before);
    if (number == SIGXFSZ) {
        const char *s = getenv("TORTURE_AT");
        on = getenv("TORTURE_ON") != NULL;
        at = s ? atol(s) : -1;
        atomic_store(&calls, s ? 0 : -1);
    }
    return before.sa_handler;
}
