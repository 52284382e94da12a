/* SPDX-License-Identifier: MIT
 * What the benchmarks of the forward pass share: a random GPT-2 small on disk, CPU seconds, medians. */
#ifndef SONDE_BENCH_COMMON_H
#define SONDE_BENCH_COMMON_H

#include <stddef.h>

#include "base/error.h"

enum { PAIRS = 21, L = 12, D = 768, H = 12, V = 50257, CTX = 1024 };

void die(const sonde_err *err);
double thread_cpu_s(void);
double process_cpu_s(void);
double wall_s(void);
double median(const double *v); /* of PAIRS values */
double peak_mib(void);

/* config.json and model.safetensors in dir (mkdtemp template); remove them and dir again. */
void make_random_gpt2(char *dir);
void remove_random_gpt2(const char *dir);

#endif
