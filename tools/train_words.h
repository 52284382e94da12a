/* SPDX-License-Identifier: MIT
 * Words of sonde train: names of architectures elsewhere, options that do nothing, options as they are
 * printed. */
#ifndef SONDE_TOOLS_TRAIN_WORDS_H
#define SONDE_TOOLS_TRAIN_WORDS_H

#include "option.h"
#include "sae/train.h"

/* No architecture is called so; err says which one is meant, or which there are. NULL is not refused. */
enum sonde_code train_words_arch(const char *name, sonde_err *err);

/* Refuse options on the command line that none of these architectures looks at; of --k, which a loop over
 * architectures gives to all, only note says so. n > 0. */
enum sonde_code train_words_unused(const struct parsed *p, const char *const *arch, size_t n, char note[200],
                                   sonde_err *err);

/* The options with words in the place of the numbers of choices. A new reference. */
json_t *train_words_options(const sonde_train_options *o);

#endif
