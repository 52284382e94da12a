/* SPDX-License-Identifier: MIT
 * A dictionary: what a trained sparse autoencoder or transcoder is, whatever trained it and whatever file it
 * came from.
 *
 *   x_in = norm(x) - b_dec (pre_bias only);   z = x_in W_enc + b_enc;   f = act(z);   y = undo_norm(f W_dec +
 * b_dec + x W_skip^T)
 *
 * F latents, d_in and d_out widths (equal for an autoencoder). Both matrices lie feature-major: row i belongs
 * to latent i, so W_enc here is the transpose of SAELens' W_enc. */
#ifndef SONDE_SAE_DICT_H
#define SONDE_SAE_DICT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/arena.h"

enum sonde_dict_act {
    SONDE_DICT_RELU = 0,
    SONDE_DICT_TOPK,     /* the k largest z of a row that are positive; ties: the smaller column */
    SONDE_DICT_JUMPRELU, /* z where z > threshold and z > 0: also what BatchTopK becomes */
    SONDE_DICT_GATED,    /* pi = z; f = 1[pi > 0] relu(exp(r_mag) (pi - b_enc) + b_mag) */
    SONDE_DICT_GROUPMAX, /* k groups of F/k neighbours, the largest of each if positive */
    SONDE_N_DICT_ACTS
};

enum sonde_dict_norm {
    SONDE_DICT_NORM_NONE = 0,
    SONDE_DICT_NORM_CONSTANT, /* each row times sqrt(d) / ||x|| (SAELens constant_norm_rescale) */
    SONDE_DICT_NORM_LAYER,    /* (x - mean) / (std + eps), std over d (norm_unbiased: d - 1) */
    SONDE_N_DICT_NORMS
};

typedef struct sonde_dict {
    enum sonde_dict_act act;
    size_t d_in, d_out, n_latents;
    float *w_enc;         /* [F, d_in] */
    float *b_enc;         /* [F]; GATED: the gate's bias */
    float *w_dec;         /* [F, d_out] */
    float *b_dec;         /* [d_out] */
    float *threshold;     /* [F], JUMPRELU only */
    float *r_mag, *b_mag; /* [F], GATED only */
    float *w_skip;        /* [d_out, d_in], a skip transcoder; or NULL */
    size_t k;             /* TOPK, GROUPMAX */
    bool pre_bias;        /* b_dec is subtracted before the encoder */
    enum sonde_dict_norm norm;
    bool norm_unbiased;
    float norm_eps;
    float *sparsity;        /* [F] log10(frequency + 1e-10), or NULL */
    const char *trained_as; /* "batchtopk", "topk", ...: what made it, or NULL */
    const char *format;     /* of the file it came from: "saelens", "dictionary_learning", ...; NULL */
    json_t *meta; /* object: model_name, hook_name, hook_name_out, context_size, prepend_bos, ... (SAELens'
                     keys); never NULL */
    sonde_arena *arena;
} sonde_dict;

/* An empty one: arrays for the act are allocated and zero (w_skip if skip), meta is {}. Errors: SONDE_E_USAGE
 * (a zero size), SONDE_E_MEMORY. */
enum sonde_code sonde_dict_new(enum sonde_dict_act act, size_t d_in, size_t d_out, size_t n_latents,
                               bool skip, sonde_budget *budget, sonde_dict **out, sonde_err *err);
void sonde_dict_free(sonde_dict *d); /* NULL is fine */
enum sonde_code sonde_dict_copy(const sonde_dict *d, sonde_budget *budget, sonde_dict **out, sonde_err *err);

/* "relu", "topk", "jumprelu", "gated", "groupmax". */
const char *sonde_dict_act_name(enum sonde_dict_act a);

/* Are all numbers finite? Errors: SONDE_E_NUMERIC naming tensor, latent and column. */
enum sonde_code sonde_dict_check(const sonde_dict *d, sonde_err *err);

/* ---- exact changes of form (encode and decode stay the same to float rounding) --------------- */

/* Decoder rows to norm 1: w_enc, b_enc, threshold, b_mag take the norm. A zero row stays. Errors:
 * SONDE_E_USAGE for TOPK and GROUPMAX, where it would change which latents win, unless force; without force
 * such a dictionary whose rows have norm 1 already (within 1e-5) is left as it is. */
enum sonde_code sonde_dict_unit_decoder(sonde_dict *d, bool force, sonde_err *err);

/* Subtracting b_dec before the encoder, or not: b_enc moves by b_dec W_enc (gated: b_mag too). With layer or
 * constant norm it is the normalised x from which b_dec is subtracted, so the change is exact there too.
 * SONDE_E_USAGE where d_in differs from d_out. */
enum sonde_code sonde_dict_set_pre_bias(sonde_dict *d, bool pre_bias, sonde_err *err);

/* The dictionary was trained on x_in = (x - mean_in) scale_in and y = (y - mean_out) scale_out: make it read
 * and write raw activations. Means may be NULL (0). Decoder rows keep their norms: latents are divided by
 * scale_out. With layer or constant norm, x and y are the normalised ones. Errors: SONDE_E_USAGE (a scale
 * that is not positive), SONDE_E_MEMORY. */
enum sonde_code sonde_dict_fold_scale(sonde_dict *d, const double *mean_in, double scale_in,
                                      const double *mean_out, double scale_out, sonde_err *err);

/* Gated to JumpReLU, exact: threshold = max(0, b_mag - exp(r_mag) b_gate). Errors: SONDE_E_USAGE (not gated),
 * SONDE_E_NUMERIC (exp(r_mag) is too large), SONDE_E_MEMORY; d is then unchanged. */
enum sonde_code sonde_dict_gated_to_jumprelu(sonde_dict *d, sonde_err *err);

#endif
