/* SPDX-License-Identifier: MIT
 * The plain part of YAML that configuration files use: one mapping of keys to scalars and lists of scalars.
 */
#ifndef SONDE_FILE_YAML_H
#define SONDE_FILE_YAML_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "../base/error.h"

#define SONDE_YAML_MAX ((size_t)1 << 16) /* bytes */

/* Parse n bytes (at most SONDE_YAML_MAX) into a JSON object: strings (plain or quoted), integers, reals,
 * true, false, null, and lists of these (in lines of "- item", or [a, b] in one line). Deeper mappings and
 * texts of several lines become null. Anchors, aliases, tags, tabs, duplicate keys and several documents are
 * refused. what names the file in messages; the caller owns the result. Errors: SONDE_E_INPUT (with the
 * line), SONDE_E_MEMORY. */
enum sonde_code sonde_yaml_parse(const void *data, size_t n, const char *what, json_t **out, sonde_err *err);

/* A whole file in a directory, by the name rule of sonde_map_open_in. */
enum sonde_code sonde_yaml_load_in(const char *dir, const char *name, json_t **out, sonde_err *err);

/* May a plain string stand in a file as it is? Else it needs quotes: '...' with ' doubled. */
bool sonde_yaml_is_plain(const char *s);

#endif
