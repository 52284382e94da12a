/* SPDX-License-Identifier: MIT */
#include "replace.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_BYTES ((size_t)1 << 16)
#define CALL_BYTES   ((size_t)1 << 30) /* Linux moves at most 2^31 - 4096 bytes in one call */

struct sonde_replace {
    char *path;          /* as given, for messages */
    char *name;          /* last component of the file that is replaced */
    char part[NAME_MAX]; /* last component of the temporary file */
    int dir, fd;
    bool overwrite;
    enum sonde_code broken; /* the first failed write decides */
    size_t n_buffered;
    unsigned long long at;
    unsigned char buffer[BUFFER_BYTES];
};

enum sonde_code sonde_pwrite_all(int fd, const void *data, size_t n, unsigned long long at, const char *path,
                                 sonde_err *err)
{
    const unsigned char *p = data;
    if (at > (unsigned long long)LLONG_MAX || n > (unsigned long long)LLONG_MAX - at)
        return sonde_fail(err, SONDE_E_IO, "%s: %zu bytes at offset %llu are beyond any file", path, n, at);
    for (size_t done = 0; done < n;) {
        size_t want = n - done < CALL_BYTES ? n - done : CALL_BYTES;
        ssize_t k = pwrite(fd, p + done, want, (off_t)(at + done));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return sonde_fail(err, SONDE_E_IO, "%s: wrote %zu of %zu bytes at offset %llu: %s", path, done, n,
                              at, strerror(errno));
        if (k == 0)
            return sonde_fail(err, SONDE_E_IO,
                              "%s: wrote %zu of %zu bytes at offset %llu: the system takes no more", path,
                              done, n, at);
        done += (size_t)k;
    }
    return SONDE_OK;
}

/* Continued when a signal comes in between; any other failure is final. */
static int sync_file(int fd)
{
    int rc;
    do
        rc = fsync(fd);
    while (rc && errno == EINTR);
    return rc;
}

/* Some network file systems cannot sync a directory and say EINVAL; there is nothing more to be done there.
 */
static enum sonde_code sync_dir(int dir, const char *path, sonde_err *err)
{
    if (sync_file(dir) && errno != EINVAL && errno != ENOTSUP)
        return sonde_fail(err, SONDE_E_IO, "%s: cannot sync its directory: %s", path, strerror(errno));
    return SONDE_OK;
}

/* The directory that holds path, opened; -1 with errno. */
static int open_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char *dir = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (!dir)
        return -1;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int saved = errno;
    free(dir);
    errno = saved;
    return fd;
}

enum sonde_code sonde_sync_parent(const char *path, sonde_err *err)
{
    int dir = open_parent(path);
    if (dir < 0)
        return sonde_fail(err, SONDE_E_IO, "%s: cannot open its directory: %s", path, strerror(errno));
    enum sonde_code rc = sync_dir(dir, path, err);
    close(dir);
    return rc;
}

static enum sonde_code exists_error(const char *path, sonde_err *err)
{
    return sonde_fail(err, SONDE_E_USAGE, "%s: exists already; --force replaces it", path);
}

/* A new file beside the target under a name that nothing else has: NAME.0123456789abcdef.part, NAME cut where
 * the file system would not take it. mode as the file that is replaced has it, or as open() makes it. */
static enum sonde_code create_part(sonde_replace *r, const mode_t *mode, sonde_err *err)
{
    for (int attempt = 0; attempt < 16; attempt++) {
        uint64_t tag;
        if (getrandom(&tag, sizeof tag, 0) != (ssize_t)sizeof tag)
            tag = (uint64_t)getpid() << 32 ^ (uintptr_t)r ^ (uint64_t)attempt << 16;
        snprintf(r->part, sizeof r->part, "%.220s.%016llx.part", r->name, (unsigned long long)tag);
        r->fd = openat(r->dir, r->part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (r->fd >= 0) {
            if (mode)
                (void)fchmod(r->fd, *mode & 07777);
            return SONDE_OK;
        }
        if (errno != EEXIST)
            break;
    }
    return sonde_fail(err, SONDE_E_IO, "%s: cannot create a file beside it: %s", r->path, strerror(errno));
}

/* Where path leads. A symbolic link is followed, so that the link stays and what it points at is replaced;
 * only a regular file may be replaced (never a device, a pipe or a directory). */
static enum sonde_code resolve(const char *path, bool overwrite, char **real, bool *exists, mode_t *mode,
                               sonde_err *err)
{
    struct stat st;
    *exists = lstat(path, &st) == 0;
    if (!*exists && errno != ENOENT)
        return sonde_fail(err, SONDE_E_IO, "%s: %s", path, strerror(errno));
    if (*exists && !overwrite)
        return exists_error(path, err);
    bool link = *exists && S_ISLNK(st.st_mode);
    *real = link ? realpath(path, NULL) : strdup(path);
    if (!*real)
        return sonde_fail(err, SONDE_E_IO, "%s: %s", path, strerror(errno));
    if (!*exists || (!link && S_ISREG(st.st_mode)) || (stat(*real, &st) == 0 && S_ISREG(st.st_mode))) {
        *mode = *exists ? st.st_mode : 0;
        return SONDE_OK;
    }
    free(*real);
    *real = NULL;
    return sonde_fail(err, SONDE_E_USAGE, "%s: is not a regular file, it cannot be replaced", path);
}

static void replace_free(sonde_replace *r)
{
    if (r->fd >= 0)
        close(r->fd);
    if (r->dir >= 0)
        close(r->dir);
    free(r->path);
    free(r->name);
    free(r);
}

enum sonde_code sonde_replace_begin(const char *path, bool overwrite, sonde_replace **out, sonde_err *err)
{
    size_t n = strlen(path);
    if (n == 0 || path[n - 1] == '/')
        return sonde_fail(err, SONDE_E_USAGE, "'%s' does not name a file", path);
    char *real;
    bool exists;
    mode_t mode;
    enum sonde_code rc = resolve(path, overwrite, &real, &exists, &mode, err);
    if (rc)
        return rc;

    sonde_replace *r = calloc(1, sizeof *r);
    const char *slash = strrchr(real, '/');
    if (r) {
        r->fd = r->dir = -1;
        r->path = strdup(path);
        r->name = strdup(slash ? slash + 1 : real);
        r->overwrite = overwrite;
    }
    if (!r || !r->path || !r->name) {
        rc = sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to write it", path);
        goto out;
    }
    r->dir = open_parent(real);
    if (r->dir < 0) {
        rc = sonde_fail(err, SONDE_E_IO, "%s: cannot open its directory: %s", path, strerror(errno));
        goto out;
    }
    rc = create_part(r, exists ? &mode : NULL, err);
out:
    free(real);
    if (rc && r)
        replace_free(r);
    else if (!rc)
        *out = r;
    return rc;
}

static enum sonde_code put(sonde_replace *r, const void *data, size_t n, sonde_err *err)
{
    enum sonde_code rc = sonde_pwrite_all(r->fd, data, n, r->at, r->path, err);
    if (rc)
        r->broken = rc;
    else
        r->at += n;
    return rc;
}

enum sonde_code sonde_replace_write(sonde_replace *r, const void *data, size_t n, sonde_err *err)
{
    if (r->broken)
        return sonde_fail(err, r->broken, "%s: an earlier write failed", r->path);
    if (n <= BUFFER_BYTES - r->n_buffered) {
        if (n)
            memcpy(r->buffer + r->n_buffered, data, n);
        r->n_buffered += n;
        return SONDE_OK;
    }
    size_t held = r->n_buffered;
    r->n_buffered = 0;
    enum sonde_code rc = put(r, r->buffer, held, err);
    if (rc)
        return rc;
    if (n >= BUFFER_BYTES)
        return put(r, data, n, err);
    memcpy(r->buffer, data, n);
    r->n_buffered = n;
    return SONDE_OK;
}

/* Give the finished file its name. Without overwrite nothing that has appeared meanwhile is lost: the kernel
 * refuses to rename over it, or, on file systems that cannot, link(2) does. */
static int give_name(const sonde_replace *r)
{
    if (r->overwrite)
        return renameat(r->dir, r->part, r->dir, r->name);
    if (renameat2(r->dir, r->part, r->dir, r->name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    if (linkat(r->dir, r->part, r->dir, r->name, 0))
        return -1;
    return unlinkat(r->dir, r->part, 0);
}

enum sonde_code sonde_replace_commit(sonde_replace *r, sonde_err *err)
{
    enum sonde_code rc = r->broken;
    if (rc)
        sonde_fail(err, rc, "%s: an earlier write failed", r->path);
    else
        rc = put(r, r->buffer, r->n_buffered, err);
    if (!rc && sync_file(r->fd))
        rc = sonde_fail(err, SONDE_E_IO, "%s: cannot sync it: %s", r->path, strerror(errno));
    if (!rc) {
        int fd = r->fd;
        r->fd = -1;
        if (close(fd) && errno != EINTR)
            rc = sonde_fail(err, SONDE_E_IO, "%s: cannot close it: %s", r->path, strerror(errno));
    }
    if (!rc && give_name(r))
        rc = errno == EEXIST ? exists_error(r->path, err)
                             : sonde_fail(err, SONDE_E_IO, "%s: cannot rename: %s", r->path, strerror(errno));
    if (rc) {
        sonde_replace_abandon(r);
        return rc;
    }
    rc = sync_dir(r->dir, r->path, err);
    replace_free(r);
    return rc;
}

void sonde_replace_abandon(sonde_replace *r)
{
    if (!r)
        return;
    unlinkat(r->dir, r->part, 0);
    replace_free(r);
}

enum sonde_code sonde_file_replace(const char *path, const void *data, size_t n, sonde_err *err)
{
    sonde_replace *r;
    enum sonde_code rc = sonde_replace_begin(path, true, &r, err);
    if (rc)
        return rc;
    rc = sonde_replace_write(r, data, n, err);
    if (!rc)
        return sonde_replace_commit(r, err);
    sonde_replace_abandon(r);
    return rc;
}
