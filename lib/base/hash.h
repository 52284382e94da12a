/* SPDX-License-Identifier: MIT
 * Hashes: XXH3 for checksums of blocks, SHA-256 for the identity of files. */
#ifndef SONDE_BASE_HASH_H
#define SONDE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

/* XXH3-64 with seed 0 (libxxhash). */
uint64_t sonde_xxh3(const void *data, size_t n);

/* XXH3-64 over data that arrives in pieces. */
typedef struct sonde_xxh3_state sonde_xxh3_state;
sonde_xxh3_state *sonde_xxh3_new(sonde_err *err);
void sonde_xxh3_reset(sonde_xxh3_state *s);
void sonde_xxh3_add(sonde_xxh3_state *s, const void *data, size_t n);
uint64_t sonde_xxh3_end(const sonde_xxh3_state *s);
void sonde_xxh3_free(sonde_xxh3_state *s);

/* SHA-256 (FIPS 180-4), with the CPU's SHA instructions where there are some. */
typedef struct sonde_sha256 {
    uint32_t h[8];
    uint64_t n_bytes;
    unsigned char buf[64];
} sonde_sha256;
void sonde_sha256_begin(sonde_sha256 *s);
void sonde_sha256_add(sonde_sha256 *s, const void *data, size_t n);
void sonde_sha256_end(sonde_sha256 *s, char hex[65]);

/* The SHA-256 of a file's bytes as 64 lower-case hex digits. Errors: SONDE_E_IO. */
enum sonde_code sonde_sha256_file(const char *path, char hex[65], sonde_err *err);

#endif
