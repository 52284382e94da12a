/* SPDX-License-Identifier: MIT
 * A file of torch.save; or, where the input begins as a pickle, that pickle in a sound archive beside six
 * floats, so that checksums do not stand before the machine. */
#include "../fault/bytes.h"
#include "../fault/check.h"
#include "file/torchzip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void wrap(struct zip *z, const uint8_t *data, size_t n)
{
    static const float x[6] = {1, 2, 3, 4, 5, 6};
    zip_add(z, "a/data.pkl", data, n, 0, NULL, NULL);
    zip_add(z, "a/data/0", x, sizeof x, 0, NULL, NULL);
    zip_end(z, "", NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    sonde_budget budget = {.limit = 16 << 20};
    sonde_tensors *f;
    sonde_err err;
    struct zip z = {0};
    bool bare = n > 1 && data[0] == 0x80;
    if (bare)
        wrap(&z, data, n);
    enum sonde_code rc =
        sonde_torchzip_parse(check_map(bare ? z.all.p : data, bare ? z.all.n : n), &budget, &f, &err);
    if (rc != SONDE_OK) {
        check_refusal(rc, &err);
    } else {
        check_tensors(f, 1);
        sonde_tensors_close(f);
    }
    check_that(budget.taken == 0);
    zip_free(&z);
    return 0;
}
