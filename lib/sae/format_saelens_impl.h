/* SPDX-License-Identifier: MIT
 * SAELens' cfg.json, as one thing whatever its version. */
#ifndef SONDE_SAE_FORMAT_SAELENS_IMPL_H
#define SONDE_SAE_FORMAT_SAELENS_IMPL_H

#include "format_impl.h"

#define SONDE_SAELENS_CFG      "cfg.json"
#define SONDE_SAELENS_WEIGHTS  "sae_weights.safetensors"
#define SONDE_SAELENS_SPARSITY "sparsity.safetensors"
#define SONDE_SAELENS_SCALER   "activation_scaler.json"

/* Of the layout that is written: what metadata.sae_lens_version says where nothing better is known. */
#define SONDE_SAELENS_VERSION "6.18.0"

typedef struct sonde_saelens_arch {
    const char *name;
    enum sonde_dict_act act;
    bool transcoder, skip;
    bool batch;    /* a training checkpoint: one threshold for all latents */
    bool sae_lens; /* SAELens has it; the others are names of our own for what it cannot hold */
} sonde_saelens_arch;

extern const sonde_saelens_arch sonde_saelens_archs[]; /* name NULL at the end */

typedef struct sonde_saelens_cfg {
    const sonde_saelens_arch *arch;
    size_t d_in, d_out, d_sae; /* 0: the file does not say */
    size_t k;
    bool rescaled; /* latents are ranked, compared and given as z times the norm of their decoder row */
    bool pre_bias;
    bool finetuned;     /* a tensor scaling_factor multiplies the latents before the decoder */
    bool expects_scale; /* expected_average_only_in: inputs times the number in activation_scaler.json */
    enum sonde_dict_norm norm;
    json_t *meta;           /* an object of the caller's, filled */
    const char *trained_as; /* lives in the JSON that was read, or is static; or NULL */
} sonde_saelens_cfg;

/* root: cfg.json of version 3 to 6. c->meta must be an empty object. Errors: SONDE_E_INPUT, SONDE_E_MEMORY.
 */
enum sonde_code sonde_saelens_config(const json_t *root, const char *what, sonde_saelens_cfg *c,
                                     sonde_err *err);

/* Is this version "6.0.0" or later, spelt with digits and points? */
bool sonde_saelens_is_version_6(const char *version);

enum sonde_code sonde_saelens_write(const sonde_dict *d, const char *path, bool overwrite, sonde_err *err);

#endif
