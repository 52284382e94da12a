/* SPDX-License-Identifier: MIT
 * A dictionary at work: activations to latents and back. */
#ifndef SONDE_SAE_INFER_H
#define SONDE_SAE_INFER_H

#include "dict.h"
#include "encode.h"

/* A dictionary packed for the kernels; shared by one caller at a time. d must outlive it. */
typedef struct sonde_encoder sonde_encoder;

/* bf16: use bfloat16 products where the CPU has them; latents and values stay float32's, bit for bit. */
enum sonde_code sonde_encoder_new(const sonde_dict *d, const sonde_kernels *kernels, bool bf16,
                                  sonde_pool *pool, sonde_budget *budget, sonde_encoder **out,
                                  sonde_err *err);
void sonde_encoder_free(sonde_encoder *e);

/* f = act(encode(x)) for n rows of x [n, d_in] with row stride ldx: only f != 0 are kept. Any n. */
enum sonde_code sonde_encoder_encode(sonde_encoder *e, const float *x, size_t ldx, size_t n, sonde_pool *pool,
                                     sonde_sparse *f, sonde_err *err);

/* y [n, d_out] = decode(f), for the x that f came from (norms to undo, skip connections; x may be NULL where
 * the dictionary has neither). Row strides ldx, ldy. */
enum sonde_code sonde_encoder_decode(sonde_encoder *e, const sonde_sparse *f, const float *x, size_t ldx,
                                     sonde_pool *pool, float *y, size_t ldy, sonde_err *err);

/* Reference twins on one row, dense, in double: f [F], y [d_out]. */
void ref_dict_encode(const sonde_dict *d, const float *x, double *f);
void ref_dict_decode(const sonde_dict *d, const double *f, const float *x, double *y);

#endif
