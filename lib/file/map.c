/* SPDX-License-Identifier: MIT */
#include "map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/size.h"

#define MAX_NAME 255 /* of one path component, as the kernel has it */

/* O_NONBLOCK: opening a FIFO must not wait for a writer. */
#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)

static const unsigned char no_bytes[1];

static enum sonde_code cannot_open(const char *path, sonde_err *err)
{
    return sonde_fail(err, SONDE_E_IO, "%s: cannot open: %s", path, strerror(errno));
}

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode)    ? "a directory"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISCHR(mode)  ? "a device"
           : S_ISBLK(mode)  ? "a device"
           : S_ISSOCK(mode) ? "a socket"
                            : "a special file";
}

/* Takes over fd and path (malloc'd), also on failure. */
static enum sonde_code map_fd(int fd, char *path, sonde_map **out, sonde_err *err)
{
    enum sonde_code rc;
    struct stat st;
    sonde_map *m = NULL;
    if (fstat(fd, &st) < 0) {
        rc = cannot_open(path, err);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = sonde_fail(err, SONDE_E_INPUT, "%s: is %s, not a regular file", path, kind_of(st.st_mode));
        goto out;
    }
    m = calloc(1, sizeof *m);
    if (!m || (uint64_t)st.st_size > SIZE_MAX) {
        rc = sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to map it", path);
        goto out;
    }
    m->n_bytes = (size_t)st.st_size;
    m->data = no_bytes;
    m->mapped = true;
    if (m->n_bytes) {
        void *p = mmap(NULL, m->n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            rc = sonde_fail(err, errno == ENOMEM ? SONDE_E_MEMORY : SONDE_E_IO,
                            "%s: cannot map %zu bytes: %s", path, m->n_bytes, strerror(errno));
            goto out;
        }
        m->data = p;
    }
    m->path = path;
    *out = m;
    path = NULL;
    m = NULL;
    rc = SONDE_OK;
out:
    free(m);
    free(path);
    close(fd);
    return rc;
}

enum sonde_code sonde_map_open(const char *path, sonde_map **out, sonde_err *err)
{
    char *copy = strdup(path);
    if (!copy)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the path", path);
    int fd = open(path, OPEN_FLAGS);
    if (fd < 0) {
        free(copy);
        return cannot_open(path, err);
    }
    return map_fd(fd, copy, out, err);
}

enum sonde_code sonde_map_copy(const void *data, size_t n, const char *path, sonde_map **out, sonde_err *err)
{
    sonde_map *m = calloc(1, sizeof *m);
    unsigned char *copy = malloc(n ? n : 1);
    char *name = strdup(path);
    if (!m || !copy || !name) {
        free(m);
        free(copy);
        free(name);
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for %zu bytes", path, n);
    }
    if (n)
        memcpy(copy, data, n);
    *m = (sonde_map){.data = copy, .n_bytes = n, .path = name};
    *out = m;
    return SONDE_OK;
}

static bool good_component(const char *name)
{
    size_t n = strnlen(name, MAX_NAME + 1);
    if (n == 0 || n > MAX_NAME || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                  c == '_' || c == '-';
        if (!ok)
            return false;
    }
    return true;
}

/* The last component of "../../blobs/HEX" with 40 or 64 hex digits, or NULL. */
static const char *blob_of_link(const char *target)
{
    static const char head[] = "../../blobs/";
    if (strncmp(target, head, sizeof head - 1) != 0)
        return NULL;
    const char *hex = target + sizeof head - 1;
    size_t n = strspn(hex, "0123456789abcdef");
    return hex[n] == '\0' && (n == 40 || n == 64) ? hex : NULL;
}

/* Follow the one link that the Hugging Face cache makes, without following any other on the way:
 * snapshots/REVISION/NAME -> ../../blobs/HEX. Returns a descriptor, or -1 with errno; -2 for another link. */
static int open_blob(int dir, const char *name)
{
    char target[128]; /* longer targets are cut, and then are not of the one form */
    ssize_t n = readlinkat(dir, name, target, sizeof target - 1);
    if (n < 0)
        return -1;
    target[n] = '\0';
    const char *hex = blob_of_link(target);
    if (!hex)
        return -2;
    int up = openat(dir, "../..", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (up < 0)
        return -1;
    int blobs = openat(up, "blobs", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fd = blobs < 0 ? -1 : openat(blobs, hex, OPEN_FLAGS | O_NOFOLLOW);
    int saved = errno;
    if (blobs >= 0)
        close(blobs);
    close(up);
    errno = saved;
    return fd;
}

enum sonde_code sonde_map_open_in(const char *dir, const char *name, sonde_map **out, sonde_err *err)
{
    if (!good_component(name))
        return sonde_fail(
            err, SONDE_E_INPUT,
            "%s: '%.100s' is not a file name that may be opened here: one path component of letters, "
            "digits, '.', '_' and '-'",
            dir, name);
    char *path = NULL;
    if (asprintf(&path, "%s/%s", dir, name) < 0)
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for the path", dir);
    int d = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = d < 0 ? -1 : openat(d, name, OPEN_FLAGS | O_NOFOLLOW);
    if (fd == -1 && d >= 0 && errno == ELOOP)
        fd = open_blob(d, name);
    int saved = errno;
    if (d >= 0)
        close(d);
    errno = saved;
    if (fd >= 0)
        return map_fd(fd, path, out, err);
    enum sonde_code rc =
        fd == -1 ? cannot_open(path, err)
                 : sonde_fail(err, SONDE_E_INPUT,
                              "%s: is a symbolic link out of its directory; replace it by the file", path);
    free(path);
    return rc;
}

bool sonde_map_exists_in(const char *dir, const char *name)
{
    if (!good_component(name))
        return false;
    int d = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (d < 0)
        return false;
    struct stat st;
    bool there =
        fstatat(d, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode));
    close(d);
    return there;
}

void sonde_map_forget(const sonde_map *m, size_t off, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), first;
    if (!m->mapped || !sonde_inside(off, n, m->n_bytes) || !sonde_round_up(&first, off, page))
        return;
    /* whole pages only, but the file's last page counts as whole */
    size_t end = off + n == m->n_bytes ? m->n_bytes : (off + n) & ~(page - 1);
    if (first < end)
        madvise((void *)(uintptr_t)(m->data + first), end - first, MADV_DONTNEED);
}

void sonde_map_close(sonde_map *m)
{
    if (!m)
        return;
    void *data = (void *)(uintptr_t)m->data;
    if (!m->mapped)
        free(data);
    else if (m->n_bytes)
        munmap(data, m->n_bytes);
    free(m->path);
    free(m);
}
