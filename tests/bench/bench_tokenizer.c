/* SPDX-License-Identifier: MIT
 * Tokenizers in MB of text per CPU second on one core, offsets included: median, least and most of 21 runs.
 *   bench_tokenizer [tokenizer text]   (default: GPT-2's and others in ../shared/data) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "text/tokenizer.h"

#define DATA SONDE_SOURCE_DIR "/../shared/data/"
#define RUNS 21

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Cut into pieces of `piece` bytes (0: whole). */
static void measure(const sonde_tokenizer *t, const char *name, const char *text, size_t n, size_t piece)
{
    double mb_per_s[RUNS];
    size_t n_tokens = 0;
    if (piece == 0)
        piece = n;
    for (int r = 0; r < RUNS; r++) {
        sonde_tokens tok = {0};
        sonde_err err;
        double start = cpu_s();
        for (size_t at = 0; at < n; at += piece)
            if (sonde_tokenizer_encode(t, text + at, n - at < piece ? n - at : piece, SONDE_BOS_AUTO, false,
                                       &tok, &err)) {
                fprintf(stderr, "%s\n", err.msg);
                exit(1);
            }
        mb_per_s[r] = 1e-6 * (double)n / (cpu_s() - start);
        n_tokens = tok.n;
        sonde_tokens_free(&tok);
    }
    qsort(mb_per_s, RUNS, sizeof *mb_per_s, by_value);
    printf("%-38s %8zu tokens  %6.1f MB/s  (%.1f .. %.1f)\n", name, n_tokens, mb_per_s[RUNS / 2], mb_per_s[0],
           mb_per_s[RUNS - 1]);
}

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *s = malloc(*n + 1);
    *n = s ? fread(s, 1, *n, f) : 0;
    fclose(f);
    return s;
}

static void bench(const char *tokenizer, const char *text_path)
{
    sonde_err err;
    sonde_tokenizer *t;
    size_t n;
    char *text = slurp(text_path, &n), name[200];
    if (!text || access(tokenizer, R_OK) != 0) {
        printf("skipped: %s or %s is not there\n", tokenizer, text_path);
        free(text);
        return;
    }
    double start = cpu_s();
    if (sonde_tokenizer_open(tokenizer, NULL, &t, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    const char *base = strrchr(text_path, '/');
    printf("%s opened in %.1f ms\n", tokenizer, 1e3 * (cpu_s() - start));
    snprintf(name, sizeof name, "%s", base ? base + 1 : text_path);
    measure(t, name, text, n, 0);
    snprintf(name, sizeof name, "%s, 1000 bytes at a time", base ? base + 1 : text_path);
    measure(t, name, text, n, 1000);
    memset(text, 'a', n);
    measure(t, "1 MB of one letter", text, n < 1000000 ? n : 1000000, 0);
    free(text);
    sonde_tokenizer_close(t);
}

int main(int argc, char **argv)
{
    if (argc == 3) {
        bench(argv[1], argv[2]);
        return 0;
    }
    bench(DATA "tokenizers/gpt2", DATA "text/tinystories.txt");
    bench(DATA "tokenizers/gpt2", DATA "text/wikitext-2-valid.txt");
    bench(DATA "tokenizers/llama/tokenizer.bin", DATA "text/tinystories.txt");
    return 0;
}
