/* SPDX-License-Identifier: MIT
 * --exclude: which rows take no part. */
#ifndef SONDE_TOOLS_EXCLUDE_H
#define SONDE_TOOLS_EXCLUDE_H

#include "sae/source.h"

struct exclusion {
    sonde_row_filter filter; /* its ids are malloc'd */
    bool automatic;          /* "auto": BOS, where it is known */
};

/* "auto", "none", or a list of: bos, special, first:K, ids:1,2,3, norm:X, e.g. "bos,first:2,ids:198,50256". A
 * bare number goes on with the ids before it. Errors: SONDE_E_USAGE naming the word; SONDE_E_MEMORY.
 * exclusion_free also after an error. */
enum sonde_code exclusion_parse(const char *text, struct exclusion *out, sonde_err *err);
void exclusion_free(struct exclusion *e);

#endif
