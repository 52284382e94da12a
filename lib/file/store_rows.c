/* SPDX-License-Identifier: MIT
 * Rows and blocks of a store: what its writer and its reader both do with the file. */
#include "store_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/hash.h"

#define PIECE_BYTES ((size_t)64 << 10)
#define CALL_BYTES  ((size_t)1 << 30)

enum sonde_code sonde_store_pread(int fd, void *data, size_t n, uint64_t at, const char *path, sonde_err *err)
{
    unsigned char *p = data;
    while (n > 0) {
        ssize_t k = pread(fd, p, n < CALL_BYTES ? n : CALL_BYTES, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return sonde_fail(err, SONDE_E_IO, "%s: cannot read %zu bytes at offset %llu: %s", path, n,
                              (unsigned long long)at, strerror(errno));
        if (k == 0)
            return sonde_fail(err, SONDE_E_IO,
                              "%s: ends at offset %llu, %zu bytes early; it was cut while in use", path,
                              (unsigned long long)at, n);
        p += k;
        at += (uint64_t)k;
        n -= (size_t)k;
    }
    return SONDE_OK;
}

enum sonde_code sonde_store_hash_block(int fd, const sonde_store_rows *r, uint64_t b, const char *path,
                                       uint64_t *out, sonde_err *err)
{
    uint64_t at = r->offset + b * r->block_rows * r->row_bytes;
    size_t left = (size_t)sonde_store_rows_in_block(r, b) * r->row_bytes;
    enum sonde_code rc = SONDE_OK;
    unsigned char *piece = malloc(PIECE_BYTES);
    sonde_xxh3_state *hash = piece ? sonde_xxh3_new(err) : NULL;
    if (!hash) {
        free(piece);
        return sonde_fail(err, SONDE_E_MEMORY, "%s: no memory for a checksum", path);
    }
    while (left > 0 && !rc) {
        size_t n = left < PIECE_BYTES ? left : PIECE_BYTES;
        rc = sonde_store_pread(fd, piece, n, at, path, err);
        if (!rc)
            sonde_xxh3_add(hash, piece, n);
        at += n;
        left -= n;
    }
    *out = sonde_xxh3_end(hash);
    sonde_xxh3_free(hash);
    free(piece);
    return rc;
}

enum sonde_code sonde_store_check_range(const char *path, const sonde_store_dataset *d, uint64_t n_rows,
                                        uint64_t first, uint64_t n, sonde_err *err)
{
    if (first <= n_rows && n <= n_rows - first)
        return SONDE_OK;
    return sonde_fail(err, SONDE_E_USAGE, "%s: rows %llu..%llu of %s were asked for, it has %llu", path,
                      (unsigned long long)first, (unsigned long long)(first + n), d->path,
                      (unsigned long long)n_rows);
}
