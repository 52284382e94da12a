/* SPDX-License-Identifier: MIT
 * Open to tests: the tail of the normal quantile is never reached by a sample. */
#ifndef SONDE_BASE_RNG_IMPL_H
#define SONDE_BASE_RNG_IMPL_H

/* Quantile of the normal distribution at 1/2 + q, |q| < 1/2; tail = min(1/2 + q, 1/2 - q) >= 2^-53. */
double sonde_normal_quantile(double q, double tail);

#endif
