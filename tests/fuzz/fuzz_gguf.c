/* SPDX-License-Identifier: MIT
 * Any bytes as a GGUF file: refused in one line or accepted with every promise kept, within 16 MiB. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define assert_true(x)         ((x) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x), abort()))
#define assert_int_equal(a, b) assert_true((a) == (b))
#define assert_ptr_equal(a, b) assert_true((a) == (b))
#include "../fault/gguf_maker.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    sonde_budget budget = {.limit = (size_t)16 << 20};
    sonde_tensors *f = NULL;
    sonde_err err = {0};
    enum sonde_code rc = sonde_gguf_parse(map_of(data, n), &budget, &f, &err);
    assert_true(rc == SONDE_OK || rc == SONDE_E_INPUT || rc == SONDE_E_MEMORY);
    if (rc == SONDE_OK) {
        check_gguf(f);
        /* ten bytes of memory for one of the file, and two arenas of 1 MiB */
        assert_true(sonde_arena_taken(f->arena) <= 10 * n + ((size_t)2 << 20));
    } else {
        assert_true(!f && err.code == rc && err.msg[0]);
    }
    sonde_tensors_close(f);
    assert_true(budget.taken == 0);
    return 0;
}
