/* SPDX-License-Identifier: MIT */
#include "hash.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "sha256_impl.h"

uint64_t sonde_xxh3(const void *data, size_t n)
{
    return XXH3_64bits(data, n);
}

/* sonde_xxh3_state is never defined: it is libxxhash's state under our name. */
static XXH3_state_t *inner(sonde_xxh3_state *s)
{
    return (XXH3_state_t *)(void *)s;
}

sonde_xxh3_state *sonde_xxh3_new(sonde_err *err)
{
    XXH3_state_t *s = XXH3_createState();
    if (!s || XXH3_64bits_reset(s) != XXH_OK) {
        XXH3_freeState(s);
        sonde_fail(err, SONDE_E_MEMORY, "no memory for a checksum");
        return NULL;
    }
    return (sonde_xxh3_state *)(void *)s;
}

void sonde_xxh3_reset(sonde_xxh3_state *s)
{
    (void)XXH3_64bits_reset(inner(s));
}

void sonde_xxh3_add(sonde_xxh3_state *s, const void *data, size_t n)
{
    if (n)
        (void)XXH3_64bits_update(inner(s), data, n);
}

uint64_t sonde_xxh3_end(const sonde_xxh3_state *s)
{
    return XXH3_64bits_digest((const XXH3_state_t *)(const void *)s);
}

void sonde_xxh3_free(sonde_xxh3_state *s)
{
    XXH3_freeState(inner(s));
}

void sonde_sha256_begin(sonde_sha256 *s)
{
    *s = (sonde_sha256){.h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
                              0x1f83d9ab, 0x5be0cd19}};
}

void sonde_sha256_add(sonde_sha256 *s, const void *data, size_t n)
{
    const unsigned char *p = data;
    size_t held = (size_t)(s->n_bytes % 64);
    s->n_bytes += n;
    if (held) {
        size_t take = 64 - held < n ? 64 - held : n;
        memcpy(s->buf + held, p, take);
        if (held + take < 64)
            return;
        sonde_sha256_blocks(s->h, s->buf, 1);
        p += take;
        n -= take;
    }
    sonde_sha256_blocks(s->h, p, n / 64);
    if (n % 64)
        memcpy(s->buf, p + n / 64 * 64, n % 64);
}

void sonde_sha256_end(sonde_sha256 *s, char hex[65])
{
    uint64_t bits = s->n_bytes * 8;
    static const unsigned char pad[64] = {0x80};
    sonde_sha256_add(s, pad, 1 + (119 - (size_t)(s->n_bytes % 64)) % 64);
    unsigned char tail[8];
    for (int i = 0; i < 8; i++)
        tail[i] = (unsigned char)(bits >> (56 - 8 * i));
    sonde_sha256_add(s, tail, 8);
    for (int i = 0; i < 64; i++)
        hex[i] = "0123456789abcdef"[s->h[i / 8] >> (28 - 4 * (i % 8)) & 15];
    hex[64] = '\0';
}

/* O_NONBLOCK, so that a pipe without a writer is refused below and not waited for. */
enum sonde_code sonde_sha256_file(const char *path, char hex[65], sonde_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return sonde_fail(err, SONDE_E_IO, "%s: %s", path, strerror(errno));
    enum sonde_code rc = SONDE_OK;
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        rc = sonde_fail(err, SONDE_E_IO, "%s: is not a regular file", path);
        goto out;
    }
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    sonde_sha256 s;
    sonde_sha256_begin(&s);
    unsigned char buf[65536];
    for (;;) {
        ssize_t k = read(fd, buf, sizeof buf);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            rc = sonde_fail(err, SONDE_E_IO, "%s: %s", path, strerror(errno));
            goto out;
        }
        if (k == 0)
            break;
        sonde_sha256_add(&s, buf, (size_t)k);
    }
    sonde_sha256_end(&s, hex);
out:
    close(fd);
    return rc;
}
