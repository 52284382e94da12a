/* SPDX-License-Identifier: MIT
 * The nearest names to a misspelt one: commands, options, hooks, figures. */
#ifndef SONDE_BASE_SUGGEST_H
#define SONDE_BASE_SUGGEST_H

#include <stddef.h>

/* Write "; did you mean 'train'?" or "; did you mean 'a', 'b' or 'c'?" into buf, or "" when nothing is near;
 * returns buf. Near is: at most a third of the letters (and at least one) inserted, deleted, replaced or
 * swapped with a neighbour, or a beginning of the name (from three letters on). At most three names, the
 * nearest first, in the order given among equals. */
char *sonde_suggest(const char *word, const char *const *name, size_t n_names, char *buf, size_t n_buf);

/* The number of such changes between a and b (optimal string alignment); limit + 1 if there are more than
 * limit, or if either is longer than 64 bytes. */
int sonde_edit_distance(const char *a, const char *b, int limit);

#endif
