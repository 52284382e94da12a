/* SPDX-License-Identifier: MIT
 * Any header of a llama2.c checkpoint, followed by as many bytes as it asks for (up to 64 KiB): what the
 * reader accepts must tile the file. The input's own length is tried too. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/llama2c.h"

#define MUST(x) ((x) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x), abort()))
#define ROOM    ((size_t)64 << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Bytes of a file with this header, in floating point so that nothing wraps; an independent count. */
static double bytes_asked(const uint8_t *data, size_t n)
{
    int32_t f[9];
    bool v1 = n >= 256 && memcmp(data, "24ka", 4) == 0;
    if (n < 28)
        return 0;
    memcpy(f, data + (v1 ? 8 : 0), 28);
    double dim = f[0], hidden = f[1], layers = f[2], heads = f[3], kv = f[4],
           vocab = f[5] < 0 ? -(double)f[5] : f[5];
    double head = dim / heads, tied = v1 ? data[36] == 1 : f[5] > 0;
    double floats =
        vocab * dim + dim + layers * (2 * dim + 2 * dim * dim + 2 * kv * head * dim + 3 * hidden * dim);
    floats += (v1 ? 0 : f[6] * head) + (tied ? 0 : vocab * dim);
    return 4 * floats + (v1 ? 256 : 28);
}

static void check(const void *data, size_t n)
{
    sonde_budget budget = {.limit = (size_t)16 << 20};
    sonde_tensors *t = NULL;
    sonde_llama2c h = {0};
    sonde_err err = {0};
    sonde_map *m = NULL;
    MUST(sonde_map_copy(data, n, "fuzz.bin", &m, NULL) == SONDE_OK);
    enum sonde_code rc = sonde_llama2c_parse(m, &budget, &h, &t, &err);
    MUST(rc == SONDE_OK || rc == SONDE_E_INPUT || rc == SONDE_E_MEMORY);
    if (rc == SONDE_OK) {
        MUST(bytes_asked(data, n) == (double)n);
        size_t sum = 0, unused = h.version == 0 ? (size_t)h.seq_len * (size_t)(h.dim / h.n_heads) * 4 : 0;
        volatile uint8_t sink = 0;
        for (size_t i = 0; i < t->n_tensors; i++) {
            const uint8_t *p = t->tensor[i].data;
            for (size_t k = 0; k < t->tensor[i].n_bytes; k++)
                sink ^= p[k];
            sum += t->tensor[i].n_bytes;
            MUST(sonde_tensors_find(t, t->tensor[i].name) == &t->tensor[i]);
        }
        (void)sink;
        MUST(sum + unused + (h.version ? 256 : 28) == n);
    } else {
        MUST(!t && err.msg[0]);
    }
    sonde_tensors_close(t);
    MUST(budget.taken == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    check(data, n);
    double asked = bytes_asked(data, n);
    if (asked >= 28 && asked <= (double)ROOM && n <= ROOM) {
        uint8_t *whole = calloc(1, ROOM);
        MUST(whole);
        memcpy(whole, data, n < 256 ? n : 256);
        check(whole, (size_t)asked);
        free(whole);
    }
    return 0;
}
