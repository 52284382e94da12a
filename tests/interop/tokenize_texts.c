/* SPDX-License-Identifier: MIT
 * Tokenises texts for test_tokenizers.py.
 *   tokenize_texts TOKENIZER
 * stdin: for each text uint32 flags (1: special tokens are recognised, 2: no BOS), uint32 n, n bytes.
 * stdout: for each text uint32 n, int32 id[n], uint32 begin[n], uint32 end[n], uint32 m, m bytes of the
 * decoded ids without special tokens. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/tokenizer.h"

static void put(const void *p, size_t n)
{
    if (n && fwrite(p, 1, n, stdout) != n)
        exit(4);
}

static void put_u32(size_t n)
{
    uint32_t u = (uint32_t)n;
    put(&u, sizeof u);
}

int main(int argc, char **argv)
{
    sonde_tokenizer *t;
    sonde_err err = {0};
    uint32_t head[2];
    if (argc != 2)
        return 2;
    enum sonde_code rc = sonde_tokenizer_open(argv[1], NULL, &t, &err);
    while (!rc && fread(head, sizeof *head, 2, stdin) == 2) {
        char *text = malloc((size_t)head[1] + 1), *back;
        size_t n_back;
        sonde_tokens k = {0};
        if (!text || fread(text, 1, head[1], stdin) != head[1])
            return 4;
        rc = sonde_tokenizer_encode(t, text, head[1], head[0] & 2 ? SONDE_BOS_NEVER : SONDE_BOS_AUTO,
                                    head[0] & 1, &k, &err);
        if (!rc)
            rc = sonde_tokenizer_decode(t, k.id, k.n, false, &back, &n_back, &err);
        if (rc)
            break;
        put_u32(k.n);
        put(k.id, k.n * sizeof *k.id);
        put(k.begin, k.n * sizeof *k.begin);
        put(k.end, k.n * sizeof *k.end);
        put_u32(n_back);
        put(back, n_back);
        free(back);
        free(text);
        sonde_tokens_free(&k);
    }
    if (rc)
        fprintf(stderr, "%s\n", err.msg);
    else
        sonde_tokenizer_close(t);
    return (int)rc;
}
