/* SPDX-License-Identifier: MIT
 * Replace a file whole, or leave it alone. */
#ifndef SONDE_BASE_REPLACE_H
#define SONDE_BASE_REPLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "error.h"

/* Write n bytes so that path holds either its old contents or all n new bytes, whatever happens
 * (SIGKILL, ENOSPC, power): a temporary file in the same directory, fsync, rename, fsync of the
 * directory. Short writes and EINTR are continued, a failed fsync is final. On failure no temporary
 * file stays. Errors: SONDE_E_IO, with the path and the system's words. */
enum sonde_code sonde_file_replace(const char *path, const void *data, size_t n, sonde_err *err);

/* The same for output that is written in pieces. Begin; write any number of times; then commit or
 * abandon (exactly one of them; both free the object). overwrite false: SONDE_E_USAGE if path exists,
 * at begin and again at commit (link(2)-safe, no race). */
typedef struct sonde_replace sonde_replace;
enum sonde_code sonde_replace_begin(const char *path, bool overwrite, sonde_replace **out, sonde_err *err);
enum sonde_code sonde_replace_write(sonde_replace *r, const void *data, size_t n, sonde_err *err);
enum sonde_code sonde_replace_commit(sonde_replace *r, sonde_err *err);
void sonde_replace_abandon(sonde_replace *r);

/* Write all n bytes at offset `at` of fd, continuing after short writes and EINTR. path is for the message. */
enum sonde_code sonde_pwrite_all(int fd, const void *data, size_t n, unsigned long long at, const char *path,
                                 sonde_err *err);

/* fsync the directory that holds path, so that a rename in it survives a power cut. */
enum sonde_code sonde_sync_parent(const char *path, sonde_err *err);

#endif
