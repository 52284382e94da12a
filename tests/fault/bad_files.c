/* SPDX-License-Identifier: MIT
 * Opens the files of one format that are wrong in one place, and all truncations and bit flips of the right
 * ones. */
#include "bad_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/size.h"

#define MUTATED_BYTES 2048 /* larger rows are not mutated */

static const char *where = "start"; /* for bad_broken */

void bad_broken(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s: %s: %s:%d: %s does not hold\n", bad_format.name, where, file, line, what);
    abort();
}

sonde_map *bad_map(const struct bytes *b)
{
    sonde_map *m = NULL;
    bad_assert(sonde_map_copy(b->p, b->n, "memory", &m, NULL) == SONDE_OK);
    return m;
}

static int in_some_map(const sonde_tensors *f, const sonde_tensor *t)
{
    for (size_t i = 0; i < f->n_maps; i++) {
        uintptr_t data = (uintptr_t)t->data, map = (uintptr_t)f->map[i]->data;
        if (data >= map && sonde_inside(data - map, t->n_bytes, f->map[i]->n_bytes))
            return 1;
    }
    return 0;
}

void bad_check_tensors(const sonde_tensors *f, int inflated)
{
    unsigned sum = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const sonde_tensor *t = &f->tensor[i];
        size_t size = sonde_dtype_size(t->dtype), n_bytes;
        bad_assert(t->name[0] != '\0' && strlen(t->name) <= 1024);
        bad_assert(sonde_tensors_find(f, t->name) == t);
        bad_assert(t->rank >= 0 && t->rank <= SONDE_MAX_RANK);
        bad_assert(inflated || in_some_map(f, t));
        if (size) {
            bad_assert(sonde_nbytes(&n_bytes, t->dim, t->rank, size) && n_bytes == t->n_bytes);
            for (size_t at = 0, n = sonde_tensor_count(t); at < n; at += 256) {
                float out[256];
                bad_assert(sonde_tensor_to_f32(t, at, n - at < 256 ? n - at : 256, out, NULL) == SONDE_OK);
            }
        }
        for (size_t k = 0; k < t->n_bytes; k++)
            sum += ((const unsigned char *)t->data)[k];
    }
    for (size_t i = 0; i < f->n_meta; i++) {
        bad_assert(f->meta[i].key && sonde_meta_find(f, f->meta[i].key) == &f->meta[i]);
        if (f->meta[i].type == SONDE_META_STRING)
            bad_assert(f->meta[i].s[f->meta[i].n_bytes] == '\0');
    }
    bad_assert(!sonde_tensors_find(f, "no tensor has this name") || sum + 1 > 0);
}

/* Open under a budget; whatever comes of it, there is one printable line or a checked file, and no memory is
 * kept. */
static enum sonde_code open_clean(const struct bytes *b, sonde_err *err)
{
    sonde_budget budget = {.limit = BAD_BUDGET};
    *err = (sonde_err){0};
    enum sonde_code rc = bad_format.open(b, &budget, err);
    bad_assert(budget.taken == 0);
    bad_assert(rc == SONDE_OK || rc == SONDE_E_INPUT || rc == SONDE_E_MEMORY || rc == SONDE_E_IO);
    if (rc != SONDE_OK) {
        bad_assert(err->code == rc && err->msg[0] != '\0');
        for (const char *p = err->msg; *p; p++)
            bad_assert((unsigned char)*p >= 0x20);
    }
    return rc;
}

/* Every beginning of the file, and the file with every one of its bits turned over. */
static void mutate(const struct bytes *whole)
{
    sonde_err err;
    struct bytes b = {0};
    for (size_t n = 0; n < whole->n; n++) {
        b.n = 0;
        put(&b, whole->p, n);
        enum sonde_code rc = open_clean(&b, &err);
        bad_assert(rc != SONDE_OK || bad_format.prefix_may_be_accepted);
    }
    for (size_t bit = 0; bit < 8 * whole->n; bit++) {
        b.n = 0;
        put(&b, whole->p, whole->n);
        b.p[bit / 8] ^= (unsigned char)(1u << bit % 8);
        open_clean(&b, &err);
    }
    bytes_free(&b);
}

/* What is allocated beside the budget is small, too: from here on the address space may grow by twice the
 * budget. Sanitizers need it for themselves. */
static void limit_address_space(int on)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)on;
    return;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
    (void)on;
    return;
#endif
#endif
    struct rlimit limit;
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%lu", &pages) != 1)
        on = 0;
    if (f)
        fclose(f);
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = limit.rlim_max;
    if (on)
        limit.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + 2u * BAD_BUDGET;
    setrlimit(RLIMIT_AS, &limit);
}

int main(void)
{
    size_t n_failed = 0, n_mutated = 0;
    for (size_t i = 0; i < bad_format.n_rows; i++) {
        const struct bad_row *row = &bad_format.row[i];
        struct bytes b = {0};
        sonde_err err;
        where = row->name;
        row->build(&b, row);
        limit_address_space(1);
        enum sonde_code rc = open_clean(&b, &err);
        if (rc != row->want) {
            printf("FAIL %s: code %d, expected %d %s\n", row->name, rc, row->want, err.msg);
            n_failed++;
        } else if (getenv("BAD_FILES_VERBOSE")) {
            printf("%-40s %s\n", row->name, err.msg);
        }
        if (rc == SONDE_OK && b.n <= MUTATED_BYTES) {
            mutate(&b);
            n_mutated++;
        }
        limit_address_space(0);
        bytes_free(&b);
    }
    printf("%s: %zu rows mutated\n%zu passed, %zu failed\n", bad_format.name, n_mutated,
           bad_format.n_rows - n_failed, n_failed);
    return n_failed != 0;
}
