/* SPDX-License-Identifier: MIT
 * Elementary functions and activations: our own, so that the bits are the same on every CPU. */
#ifndef SONDE_NUM_ACTIVATION_H
#define SONDE_NUM_ACTIVATION_H

#include <stddef.h>

#include "cpu.h"

enum sonde_act {
    SONDE_ACT_NONE = 0,
    SONDE_ACT_RELU,
    SONDE_ACT_GELU_ERF,   /* x/2 (1 + erf(x/sqrt 2)): "gelu" */
    SONDE_ACT_GELU_TANH,  /* "gelu_new", "gelu_pytorch_tanh", "gelu_fast" */
    SONDE_ACT_QUICK_GELU, /* x sigmoid(1.702 x) */
    SONDE_ACT_SILU,       /* x sigmoid(x) */
    SONDE_N_ACTS
};

/* One value: the definition of the bits. Errors: exp and log <= 1.5 ulp over their range (exp flushes results
 * below 2^-126 to 0, overflows to +inf; log wants x > 0 normal), tanh, erf absolute <= 2e-7. NaN in, NaN out.
 */
float sonde_expf(float x);
float sonde_logf(float x);
float sonde_tanhf(float x);
float sonde_erff(float x);
float sonde_act_one(enum sonde_act act, float x);

/* Arrays; y may be x. Bits as above for every table. */
void sonde_vec_exp(const sonde_kernels *k, size_t n, const float *x, float *y);
void sonde_vec_tanh(const sonde_kernels *k, size_t n, const float *x, float *y);
void sonde_activate(const sonde_kernels *k, enum sonde_act act, size_t n, const float *x, float *y);

/* y = act(gate) * up, the product rounded once after the activation; y may be gate or up. */
void sonde_activate_gated(const sonde_kernels *k, enum sonde_act act, size_t n, const float *gate,
                          const float *up, float *y);

/* y = cap * tanh(x / cap); y may be x. */
void sonde_softcap(const sonde_kernels *k, float cap, size_t n, const float *x, float *y);

/* y = a + b (elementwise); y may be a or b. */
void sonde_vec_add(const sonde_kernels *k, size_t n, const float *a, const float *b, float *y);

#endif
