/* SPDX-License-Identifier: MIT
 * Which weights a result was made with. */
#ifndef SONDE_MODEL_IDENTITY_H
#define SONDE_MODEL_IDENTITY_H

#include "model.h"

/* {"model.safetensors": "<sha256>", ...}: the SHA-256 of every weight file by its name, in order, as JSON.
 * malloc'd. Reads the files whole. */
enum sonde_code sonde_model_identity(const sonde_model *m, char **json, sonde_err *err);

#endif
