/* SPDX-License-Identifier: MIT
 * Files with one defect each. A format is one file bad_NAME.c that defines bad_format: how its bytes are
 * opened, and a table with one row per defect. bad_files.c opens every row, then truncates every accepted row
 * at every byte and flips every one of its bits. With a directory as argument the program writes the small
 * rows there instead. */
#ifndef TESTS_FAULT_BAD_FILES_H
#define TESTS_FAULT_BAD_FILES_H

#include "base/arena.h"
#include "bytes.h"
#include "check.h"

struct bad_row {
    const char *name;
    enum sonde_code want;
    void (*build)(struct bytes *b, const struct bad_row *row);
    const char *text; /* what build makes of these two is its own affair */
    uint64_t n;
};

struct bad_format {
    const char *name;
    /* Open the bytes, check everything that an accepted file must satisfy (check.h), close. */
    enum sonde_code (*open)(const struct bytes *b, sonde_budget *budget, sonde_err *err);
    const struct bad_row *row;
    size_t n_rows;
    int prefix_may_be_accepted; /* a truncated file can still be a whole one (trailing blanks) */
};

extern const struct bad_format bad_format; /* of the one bad_NAME.c that is linked in */

#define BAD_BUDGET (16u << 20) /* bytes, for every open */

#endif
