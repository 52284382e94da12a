/* SPDX-License-Identifier: MIT
 * Names of tensors, as the readers accept them. */
#ifndef SONDE_FILE_NAME_IMPL_H
#define SONDE_FILE_NAME_IMPL_H

#include <stdbool.h>
#include <stddef.h>

#define SONDE_MAX_NAME 1024 /* bytes */

/* Is s, n bytes, UTF-8 (RFC 3629)? */
bool sonde_utf8_ok(const char *s, size_t n);

/* Is it the name of a tensor: 1..1024 bytes of UTF-8 without control characters (C0, DEL, C1)? */
bool sonde_name_ok(const char *s, size_t n);

#endif
