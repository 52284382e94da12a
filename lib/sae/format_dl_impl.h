/* SPDX-License-Identifier: MIT
 * The classes of dictionary_learning, which decide names and orientation of the tensors. */
#ifndef SONDE_SAE_FORMAT_DL_IMPL_H
#define SONDE_SAE_FORMAT_DL_IMPL_H

#include "format_impl.h"

#define SONDE_DL_CFG       "config.json"
#define SONDE_DL_WEIGHTS   "ae.pt"
#define SONDE_DL_META      "dictionary_learning" /* key of d->meta under which the whole config.json is kept */
#define SONDE_DL_THRESHOLD "topk_threshold"      /* key of d->meta for the threshold of an AutoEncoderTopK */

typedef struct sonde_dl_class {
    const char *name, *trainer, *trained_as;
    enum sonde_dict_act act;
    bool pre_bias;
    bool
        linear; /* nn.Linear: encoder.weight [F, d], decoder.weight [d, F]; else W_enc [d, F], W_dec [F, d] */
    const char *b_enc, *b_dec; /* names; b_enc: the gate's, where there are gates */
    bool ranked;               /* has k and one threshold for all latents */
} sonde_dl_class;

enum {
    SONDE_DL_STANDARD,
    SONDE_DL_NEW,
    SONDE_DL_GATED,
    SONDE_DL_JUMPRELU,
    SONDE_DL_TOPK,
    SONDE_DL_BATCHTOPK,
    SONDE_DL_MATRYOSHKA,
    SONDE_DL_CLASSES
};

extern const sonde_dl_class sonde_dl_classes[SONDE_DL_CLASSES];

enum sonde_code sonde_dl_write(const sonde_dict *d, const char *path, bool overwrite, sonde_err *err);

#endif
