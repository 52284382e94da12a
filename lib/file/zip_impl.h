/* SPDX-License-Identifier: MIT
 * Zip files: their directory, read and checked, and a writer of stored members. */
#ifndef SONDE_FILE_ZIP_IMPL_H
#define SONDE_FILE_ZIP_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "../base/arena.h"
#include "map.h"

#define SONDE_ZIP_STORED   0
#define SONDE_ZIP_DEFLATED 8

typedef struct sonde_zip_member {
    const char *name; /* n_name bytes, in the mapping; any bytes */
    size_t n_name;
    unsigned method; /* any; STORED ones have n_packed == n_bytes */
    uint32_t crc;
    uint64_t n_packed, n_bytes, local; /* local: where its own header is */
    size_t begin;                      /* of its packed bytes, all n_packed of them in the file */
} sonde_zip_member;

typedef struct sonde_zip {
    const sonde_map *map;
    sonde_zip_member *member; /* in the order of the file */
    size_t n_members;
    const sonde_zip_member **by_name; /* the same sorted by name; names are unique */
} sonde_zip;

/* Read the directory into arena. It decides: each member's own header must say the same, members must not
 * overlap. The zip64 records are read where the sizes need them and where they are there without need.
 * Errors: SONDE_E_INPUT, SONDE_E_MEMORY. */
enum sonde_code sonde_zip_read(const sonde_map *m, sonde_arena *arena, sonde_zip *out, sonde_err *err);

/* The member with this name, or NULL. */
const sonde_zip_member *sonde_zip_find(const sonde_zip *z, const char *name, size_t n_name);

/* Is the checksum of a stored member right? It is read through. */
bool sonde_zip_crc_ok(const sonde_zip *z, const sonde_zip_member *x);

/* "PATH: not a sound zip file: what". */
enum sonde_code sonde_zip_damaged(const sonde_map *m, const char *what, sonde_err *err);

/* ---- writing: the same members give the same bytes (no times) ---- */

typedef struct sonde_zip_writer sonde_zip_writer;

/* Sizes, offsets and counts from `wide` on (at most 0xffffffff; counts: 0xffff) are written in zip64 form. */
enum sonde_code sonde_zip_begin(const char *path, bool overwrite, uint32_t wide, sonde_zip_writer **out,
                                sonde_err *err);

/* A stored member of two parts (the first may be empty); the bytes begin at a multiple of 64. Names are ASCII
 * or UTF-8. */
enum sonde_code sonde_zip_add(sonde_zip_writer *w, const char *name, const void *head, size_t n_head,
                              const void *data, size_t n, sonde_err *err);

/* Directory and last record; whole or not at all. Exactly one of the two ends it. */
enum sonde_code sonde_zip_commit(sonde_zip_writer *w, sonde_err *err);
void sonde_zip_abandon(sonde_zip_writer *w);

#endif
