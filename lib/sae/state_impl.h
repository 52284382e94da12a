/* SPDX-License-Identifier: MIT
 * Checkpoints: the whole state of a trainer as a safetensors file with a checksum. */
#ifndef SONDE_SAE_STATE_IMPL_H
#define SONDE_SAE_STATE_IMPL_H

#include "trainer_impl.h"

/* What must be equal for a state to go on: {"options": {...}, "data": {...}} as JSON text. */
enum sonde_code state_save(const sonde_trainer *t, sonde_source_position at, const char *config,
                           const char *path, sonde_err *err);

/* Take over the state in path. Errors: SONDE_E_INPUT (damaged, or of another shape), SONDE_E_USAGE (config
 * differs: field, both values and both hashes), SONDE_E_IO. On an error the trainer is as it was. */
enum sonde_code state_load(sonde_trainer *t, const char *path, const char *config, sonde_source_position *at,
                           sonde_err *err);

#endif
