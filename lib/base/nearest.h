/* SPDX-License-Identifier: MIT
 * The names nearest to a misspelt one. */
#ifndef SONDE_BASE_NEAREST_H
#define SONDE_BASE_NEAREST_H

#include <stddef.h>

/* Write "did you mean 'a', 'b' or 'c'?" into buf for up to three of the n names that are within a third of the word's
 * length (at least 2) by edit distance or that begin with it, the nearest first; "" if there is none. Returns buf. */
char *sonde_nearest(const char *word, const char *const *name, size_t n, char *buf, size_t n_buf);

#endif
