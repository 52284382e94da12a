/* SPDX-License-Identifier: MIT
 * Strangers' HDF5 files, and hostile replies of the child that reads them.
 *
 * First byte 'F': the rest is a file; it is opened as a user would. 'R': the rest is what the child says
 * about a file of 4096 bytes; the parent must believe nothing. */
#include <sys/mman.h>
#include <unistd.h>

#include "../fault/check.h"
#include "file/hdf5_impl.h"
#include "file/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_table(const sonde_h5_table *t, uint64_t file_bytes)
{
    for (size_t i = 0; i < t->n_datasets; i++) {
        const sonde_h5_dataset *d = &t->dataset[i];
        size_t bytes;
        check_that(d->shape.rank >= 0 && d->shape.rank <= SONDE_MAX_RANK);
        check_that(sonde_h5_dataset_find(t, d->shape.path) == d);
        if (d->kind > SONDE_H5_COMPACT)
            continue;
        check_that(sonde_nbytes(&bytes, d->shape.dim, d->shape.rank, sonde_dtype_size(d->shape.dtype)));
        check_that(bytes == d->n_bytes);
        check_that(d->kind != SONDE_H5_CONTIGUOUS || bytes == 0 ||
                   sonde_inside(d->offset, bytes, file_bytes));
    }
    for (size_t i = 0; i < t->n_attrs; i++)
        check_that(sonde_h5_attr_find(t, t->attr[i].path, t->attr[i].name) == &t->attr[i]);
}

static void fuzz_reply(const uint8_t *data, size_t n)
{
    sonde_budget budget = {.limit = 16 << 20};
    sonde_err err;
    sonde_h5_table t;
    sonde_arena *arena = sonde_arena_new(&budget, &err);
    check_that(arena);
    enum sonde_code rc =
        sonde_h5_table_parse("reply", (sonde_h5_cursor){.bytes = data, .n = n}, 4096, arena, &t, &err);
    if (rc)
        check_refusal(rc, &err);
    else
        check_table(&t, 4096);
    sonde_arena_free(arena);
    check_that(budget.taken == 0);
}

static void fuzz_file(const uint8_t *data, size_t n)
{
    sonde_budget budget = {.limit = 64 << 20};
    sonde_err err;
    sonde_store *s;
    char path[40];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    check_that(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    enum sonde_code rc = sonde_store_open(path, true, &budget, &s, &err);
    close(fd);
    if (rc) {
        check_refusal(rc, &err);
        check_that(budget.taken == 0);
        return;
    }
    for (size_t i = 0; i < sonde_store_n_datasets(s); i++) {
        const sonde_store_dataset *d = sonde_store_dataset_at(s, i);
        size_t bytes = 0;
        if (!sonde_store_unreadable(s, i))
            check_that(sonde_nbytes(&bytes, d->dim, d->rank, sonde_dtype_size(d->dtype)) && bytes <= n);
        unsigned char *p = malloc(bytes + 1);
        rc = sonde_store_read(s, i, 0, d->rank ? d->dim[0] : 1, p, &err);
        check_that(rc == SONDE_OK || rc == SONDE_E_INPUT || rc == SONDE_E_USAGE);
        free(p);
    }
    sonde_store_close(s);
    check_that(budget.taken == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n > 1 && data[0] == 'F')
        fuzz_file(data + 1, n - 1);
    if (n > 1 && data[0] == 'R')
        fuzz_reply(data + 1, n - 1);
    return 0;
}
