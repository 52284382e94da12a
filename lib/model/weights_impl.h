/* SPDX-License-Identifier: MIT
 * From named tensors to packed weights. */
#ifndef SONDE_MODEL_WEIGHTS_IMPL_H
#define SONDE_MODEL_WEIGHTS_IMPL_H

#include "families_impl.h"
#include "model.h"

/* Find every tensor of the family in m->file, check its shape against m->arch, convert and pack it; the
 * unembedding is only looked up. m->arch, kernels, file, source, arena and path are set. */
enum sonde_code weights_load(sonde_model *m, const sonde_work *work, bool strict, sonde_err *err);

/* Pack the unembedding into m->unembed. */
enum sonde_code weights_load_unembed(sonde_model *m, const sonde_work *work, bool strict, sonde_err *err);

/* Apply m->processing to packed weights. Errors: SONDE_E_USAGE where this architecture does not allow it. */
enum sonde_code weights_process(sonde_model *m, sonde_err *err);

/* The same for the unembedding, once it is packed. */
enum sonde_code weights_process_unembed(sonde_model *m, sonde_err *err);

/* A tied embedding that has been packed is read from there: its pages in the file stay out of memory. */
bool model_embeds_from_packed(const sonde_model *m);

#endif
