/* SPDX-License-Identifier: MIT */
#include "../fault/check.h"
#include "file/torchzip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    sonde_budget budget = {.limit = 16 << 20};
    sonde_tensors *f;
    sonde_err err;
    enum sonde_code rc = sonde_torchzip_parse(check_map(data, n), &budget, &f, &err);
    if (rc != SONDE_OK) {
        check_refusal(rc, &err);
    } else {
        check_tensors(f, 1);
        sonde_tensors_close(f);
    }
    check_that(budget.taken == 0);
    return 0;
}
