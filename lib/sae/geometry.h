/* SPDX-License-Identifier: MIT
 * The geometry of a dictionary: norms of its rows, and how close each latent's nearest neighbour is. */
#ifndef SONDE_SAE_GEOMETRY_H
#define SONDE_SAE_GEOMETRY_H

#include "../base/work.h"
#include "../num/cpu.h"
#include "dict.h"

typedef struct sonde_spread {
    double mean, min, max;
} sonde_spread;

/* Cosines with a row of zeros are 0. A dictionary of one latent has no neighbours: NaN. */
typedef struct sonde_geometry {
    size_t n_latents;
    float *encoder_norm, *decoder_norm;             /* [F] */
    float *encoder_decoder_cosine;                  /* [F]; NULL where d_in differs from d_out */
    float *max_encoder_cosine, *max_decoder_cosine; /* [F] the largest cosine with another row */

    sonde_spread encoder, decoder;         /* of the norms */
    double encoder_decoder_cosine_sim;     /* mean; NaN where there is none */
    double average_max_encoder_cosine_sim; /* mean of max_encoder_cosine */
    double average_max_decoder_cosine_sim;

    sonde_arena *arena;
} sonde_geometry;

/* Products run in tiles: memory is O(F) and a panel of the matrix, never [F, F]. Takes 2 F^2 (d_in + d_out) /
 * 2 floating-point operations. Same bits for any number of threads. Errors: SONDE_E_MEMORY, SONDE_E_STOPPED.
 */
enum sonde_code sonde_geometry_measure(const sonde_dict *d, const sonde_kernels *kernels,
                                       const sonde_work *work, sonde_geometry **out, sonde_err *err);
void sonde_geometry_free(sonde_geometry *g); /* NULL is fine */

/* best[i] = max over j != i of the cosine of rows i and j of w [n, d] (-1 if n is 1). norm [n] are the rows'
 * norms. */
enum sonde_code sonde_max_cosine(const float *w, const float *norm, size_t n, size_t d,
                                 const sonde_kernels *kernels, const sonde_work *work, float *best,
                                 sonde_err *err);

#endif
