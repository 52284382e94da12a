/* SPDX-License-Identifier: MIT
 * Opens the files of one format that are wrong in one place, and all truncations and bit flips of the right
 * ones. */
#include "bad_files.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MUTATED_BYTES 2048 /* larger rows are not mutated */

static const char *where = "start";

static void say_where(int sig)
{
    ssize_t n = write(STDERR_FILENO, where, strlen(where));
    n += write(STDERR_FILENO, ": crashed\n", 10);
    (void)n;
    signal(sig, SIG_DFL);
    raise(sig);
}

/* Open under a budget; whatever comes of it, there is one printable line or a checked file, and no memory is
 * kept. */
static enum sonde_code open_clean(const struct bytes *b, sonde_err *err)
{
    sonde_budget budget = {.limit = BAD_BUDGET};
    *err = (sonde_err){0};
    enum sonde_code rc = bad_format.open(b, &budget, err);
    check_that(budget.taken == 0);
    if (rc != SONDE_OK)
        check_refusal(rc, err);
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
        check_that(rc != SONDE_OK || bad_format.prefix_may_be_accepted);
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

/* The rows that are small, as files of a directory: seeds for the fuzz targets. */
static int dump(const char *dir)
{
    for (size_t i = 0; i < bad_format.n_rows; i++) {
        const struct bad_row *row = &bad_format.row[i];
        struct bytes b = {0};
        char path[512];
        row->build(&b, row);
        snprintf(path, sizeof path, "%s/%s", dir, row->name);
        FILE *f = b.n <= MUTATED_BYTES ? fopen(path, "wb") : NULL;
        if (f) {
            fwrite(b.p, 1, b.n, f);
            fclose(f);
        }
        bytes_free(&b);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return dump(argv[1]);
    size_t n_failed = 0, n_mutated = 0;
    signal(SIGABRT, say_where);
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
