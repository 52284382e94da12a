/* SPDX-License-Identifier: MIT
 * Dictionaries in files: SAELens' directory is ours; the formats of other tools are read, and most are
 * written. One row of a table per format: probe, read, write. */
#ifndef SONDE_SAE_DICT_FILE_H
#define SONDE_SAE_DICT_FILE_H

#include "dict.h"

/* Names of the formats: "saelens", "dictionary_learning", "sparsify", "gemma_scope", "gemma_scope_2",
 * "openai", "circuit_tracer". NULL at the end. writes: only those that can be written. */
const char *const *sonde_dict_formats(bool writes);

/* The format that the path looks like by its names and first bytes, or NULL. */
const char *sonde_dict_probe(const char *path);

/* Does SAELens have an architecture for it? What it lacks (transcoders of topk, gated and groupmax, groupmax)
 * is saved in its layout all the same, under names of our own that it refuses. */
bool sonde_dict_in_saelens(const sonde_dict *d);

/* Read a directory or file in any of the formats (format NULL: find out). What the file leaves open and what
 * was changed on the way in is said in one line in note (may be NULL). Everything in a file is hostile.
 * Errors: SONDE_E_IO, SONDE_E_INPUT (tensor, shape and both numbers named), SONDE_E_NUMERIC (NaN, infinity),
 * SONDE_E_MEMORY. */
enum sonde_code sonde_dict_load(const char *path, const char *format, sonde_budget *budget, sonde_dict **out,
                                char note[400], sonde_err *err);

/* Write in a format; a directory is made, files appear whole or not at all, cfg.json last. Errors:
 * SONDE_E_USAGE (exists and not overwrite; the format cannot hold this dictionary: why, and what would),
 * SONDE_E_IO. */
enum sonde_code sonde_dict_save(const sonde_dict *d, const char *format, const char *path, bool overwrite,
                                sonde_err *err);

/* SHA-256 over shapes and numbers of the dictionary: the identity that results carry. */
enum sonde_code sonde_dict_identity(const sonde_dict *d, char hex[65], sonde_err *err);

#endif
