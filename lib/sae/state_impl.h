/* SPDX-License-Identifier: MIT
 * Checkpoints: the whole state of a trainer as a safetensors file with a checksum. */
#ifndef SONDE_SAE_STATE_IMPL_H
#define SONDE_SAE_STATE_IMPL_H

#include "trainer_impl.h"

/* Sums over the steps since the last line of the log: numbers of 8 bytes, part of a checkpoint. */
struct log_sums {
    uint64_t n;
    double loss, recon, fvu, aux, penalty, l0, l1;
};

/* config: what must be equal for a state to go on, {"options": {...}, "data": {...}, ...} as JSON text. */
enum sonde_code state_save(const sonde_trainer *t, sonde_source_position at, const struct log_sums *sums,
                           const char *config, const char *path, sonde_err *err);

/* Take over the state in path. Errors: SONDE_E_INPUT (damaged, or of another shape), SONDE_E_USAGE (whole,
 * but its config differs: field, both values and both hashes), SONDE_E_IO. On an error the trainer is as it
 * was. */
enum sonde_code state_load(sonde_trainer *t, const char *path, const char *config, sonde_source_position *at,
                           struct log_sums *sums, sonde_err *err);

/* The hash by which a configuration is named. */
void state_config_hash(const char *config, char hex[17]);

/* SONDE_E_USAGE naming the first field in which two configurations differ, both values and both hashes;
 * SONDE_OK when they are equal. */
enum sonde_code state_compare(const char *path, const json_t *was, const json_t *is, const char was_hash[17],
                              const char is_hash[17], sonde_err *err);

#endif
