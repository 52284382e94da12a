/* SPDX-License-Identifier: MIT
 * Read-only views of whole files. */
#ifndef SONDE_FILE_MAP_H
#define SONDE_FILE_MAP_H

#include <stdbool.h>
#include <stddef.h>

#include "../base/error.h"

typedef struct sonde_map {
    const unsigned char *data; /* never NULL, also when n_bytes is 0 */
    size_t n_bytes;
    char *path; /* as given, for messages */
    bool mapped; /* false: data was malloc'd and is freed on close */
} sonde_map;

/* Map a file that the user named (symbolic links are followed). Must be a regular file.
 * Errors: SONDE_E_IO (cannot open), SONDE_E_INPUT (not a regular file). */
enum sonde_code sonde_map_open(const char *path, sonde_map **out, sonde_err *err);

/* Map `name` inside directory `dir`, where name may come from a file: one path component of [A-Za-z0-9._-], not "."
 * or "..", no symbolic link except the Hugging Face cache's own "../../blobs/<40 or 64 hex digits>".
 * Errors: SONDE_E_INPUT for a name or link of any other kind, SONDE_E_IO if it cannot be opened. */
enum sonde_code sonde_map_open_in(const char *dir, const char *name, sonde_map **out, sonde_err *err);

/* A map over a copy of n bytes that are in memory already; path is for messages. The copy is exactly n bytes, so that
 * tools which watch the heap see a read past its end. Errors: SONDE_E_MEMORY. */
enum sonde_code sonde_map_copy(const void *data, size_t n, const char *path, sonde_map **out, sonde_err *err);

/* Does dir/name exist as something that sonde_map_open_in would try? */
bool sonde_map_exists_in(const char *dir, const char *name);

/* The pages of [off, off+n) are not needed soon: their memory may go. No effect on contents. */
void sonde_map_forget(const sonde_map *m, size_t off, size_t n);

void sonde_map_close(sonde_map *m); /* NULL is fine */

#endif
