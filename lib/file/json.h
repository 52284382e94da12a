/* SPDX-License-Identifier: MIT
 * JSON from strangers: jansson behind limits, and typed getters that name the key in their errors. */
#ifndef SONDE_FILE_JSON_H
#define SONDE_FILE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/arena.h"
#include "../base/error.h"

/* Parse n bytes (one JSON value, UTF-8). Before anything is allocated the structural characters are counted: more
 * than max_nodes values (jansson takes about 80 bytes for each) or more than 64 nested levels are refused with
 * SONDE_E_MEMORY / SONDE_E_INPUT; so are duplicate keys (also when they differ only in escapes), NUL in strings,
 * NaN, and anything after the value. An integer beyond int64 becomes a real. what names the file in messages. The caller
 * owns the result (json_decref). */
enum sonde_code sonde_json_parse(const void *data, size_t n, size_t max_nodes, const char *what, json_t **out,
                                 sonde_err *err);

/* The same under a budget instead of a count: an upper bound of what jansson will take (text, nodes, hash tables) is
 * taken from the budget first, and given back by sonde_json_release. budget may be NULL. Over it: SONDE_E_MEMORY. */
typedef struct sonde_json {
    json_t *root;
    sonde_budget *budget;
    size_t held;
} sonde_json;
enum sonde_code sonde_json_parse_within(const void *data, size_t n, sonde_budget *budget, const char *what,
                                        sonde_json *out, sonde_err *err);
void sonde_json_release(sonde_json *j); /* all zero is fine */

/* A value as text, whole or NULL: json_dumps() can leave out what it found no memory for. flags: jansson's; the caller
 * frees. */
char *sonde_json_text(const json_t *value, size_t flags);

/* A whole file in a directory, at most max_bytes (more: SONDE_E_INPUT), by the name rule of sonde_map_open_in. Memory is
 * bounded by the file: values of less than two bytes on average are refused, and those cost some 100 bytes each. */
enum sonde_code sonde_json_load_in(const char *dir, const char *name, size_t max_bytes, json_t **out, sonde_err *err);

/* Typed getters. `fallback` is used when the key is absent or null; a present value of another type or outside
 * [lo, hi] is SONDE_E_INPUT with key, value and range in the message. `required` ones have no fallback. */
enum sonde_code sonde_json_int(const json_t *obj, const char *key, int64_t lo, int64_t hi, const int64_t *fallback,
                               const char *what, int64_t *out, sonde_err *err);
enum sonde_code sonde_json_double(const json_t *obj, const char *key, double lo, double hi, const double *fallback,
                                  const char *what, double *out, sonde_err *err);
enum sonde_code sonde_json_bool(const json_t *obj, const char *key, bool fallback, const char *what, bool *out,
                                sonde_err *err);
/* The string belongs to obj. fallback may be NULL: then an absent key gives *out = NULL. */
enum sonde_code sonde_json_string(const json_t *obj, const char *key, const char *fallback, const char *what,
                                  const char **out, sonde_err *err);

#endif
