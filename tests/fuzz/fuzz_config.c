/* SPDX-License-Identifier: MIT
 * Any bytes as config.json: refused with one line, or an architecture that a forward pass can rely on, inside
 * 16 MiB. */
#include "../fault/arch_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    sonde_budget budget = {.limit = (size_t)16 << 20};
    sonde_err err;
    check_config(data, n, &budget, NULL, &err);
    return 0;
}
