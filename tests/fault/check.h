/* SPDX-License-Identifier: MIT
 * What must hold for every file that a reader has accepted; for the fault tests and the fuzz targets. */
#ifndef TESTS_FAULT_CHECK_H
#define TESTS_FAULT_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "file/tensors.h"

/* Say what does not hold and abort, also where assert is compiled out. */
#define check_that(cond)                                                                                     \
    ((cond) ? (void)0 : (fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #cond), abort()))

/* A map over a copy of the bytes, exactly as long, named "memory". */
static inline sonde_map *check_map(const void *data, size_t n)
{
    sonde_map *m = NULL;
    check_that(sonde_map_copy(data, n, "memory", &m, NULL) == SONDE_OK);
    return m;
}

/* A refusal is one printable line with its code. */
static inline void check_refusal(enum sonde_code rc, const sonde_err *err)
{
    check_that(rc == SONDE_E_INPUT || rc == SONDE_E_MEMORY || rc == SONDE_E_IO);
    check_that(err->code == rc && err->msg[0] != '\0');
    for (const char *p = err->msg; *p; p++)
        check_that((unsigned char)*p >= 0x20);
}

static inline int check_in_some_map(const sonde_tensors *f, const sonde_tensor *t)
{
    for (size_t i = 0; i < f->n_maps; i++) {
        uintptr_t data = (uintptr_t)t->data, map = (uintptr_t)f->map[i]->data;
        if (data >= map && sonde_inside(data - map, t->n_bytes, f->map[i]->n_bytes))
            return 1;
    }
    return 0;
}

/* Names are found, ranks and sizes agree, every byte can be read. The data lie in a mapping unless
 * `inflated`. */
static inline void check_tensors(const sonde_tensors *f, int inflated)
{
    unsigned sum = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const sonde_tensor *t = &f->tensor[i];
        size_t size = sonde_dtype_size(t->dtype), n_bytes;
        check_that(t->name[0] != '\0' && strlen(t->name) <= 1024);
        check_that(sonde_tensors_find(f, t->name) == t);
        check_that(t->rank >= 0 && t->rank <= SONDE_MAX_RANK);
        check_that(inflated || check_in_some_map(f, t));
        if (size)
            check_that(sonde_nbytes(&n_bytes, t->dim, t->rank, size) && n_bytes == t->n_bytes);
        for (size_t at = 0, n = t->dtype == SONDE_OPAQUE ? 0 : sonde_tensor_count(t); at < n; at += 256) {
            float out[256];
            check_that(sonde_tensor_to_f32(t, at, n - at < 256 ? n - at : 256, out, NULL) == SONDE_OK);
        }
        for (size_t k = 0; k < t->n_bytes; k++)
            sum += ((const unsigned char *)t->data)[k];
    }
    for (size_t i = 0; i < f->n_meta; i++) {
        check_that(f->meta[i].key && sonde_meta_find(f, f->meta[i].key) == &f->meta[i]);
        if (f->meta[i].type == SONDE_META_STRING)
            check_that(f->meta[i].s[f->meta[i].n_bytes] == '\0');
    }
    volatile unsigned sink = sum; /* so that the bytes are read */
    (void)sink;
}

#endif
