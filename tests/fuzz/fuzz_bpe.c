/* SPDX-License-Identifier: MIT
 * Text through a byte-level tokenizer and back: the bytes are the same and the ranges tile them. The first
 * byte chooses the pattern. */
#include "../fault/check.h"
#include "text/tokenizer_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const merges[] = {"t h",
                                     "th e",
                                     "\xc4\xa0 t",
                                     "\xc4\xa0t h",
                                     "a a",
                                     "aa aa",
                                     "aaaa aaaa",
                                     "i n",
                                     "in g",
                                     "' s",
                                     "\xc4\xa0 \xc4\xa0",
                                     "\xc4\x8a \xc4\x8a",
                                     "\xc3\xa4 \xc2\xbb",
                                     "1 2",
                                     "\xc4\xa0 a",
                                     "e r",
                                     "\xc4\x8d \xc4\x8a",
                                     "aa a"};
#define N_MERGES (sizeof merges / sizeof *merges)

static void name_byte(unsigned b, char out[4])
{
    for (uint32_t cp = 33; cp < 0x144; cp++)
        if (byte_of_char(cp) == (int)b) {
            out[sonde_utf8_put(cp, (unsigned char *)out)] = '\0';
            return;
        }
}

/* All bytes and a few merges, with one of the known patterns. */
static sonde_tokenizer *make(unsigned which)
{
    static const struct pretoken_step step[] = {{.kind = PRETOKEN_GPT2},
                                                {.kind = PRETOKEN_CL100K, .max_digits = 3},
                                                {.kind = PRETOKEN_CL100K, .max_digits = 1},
                                                {.kind = PRETOKEN_WHOLE}};
    sonde_tokenizer *t;
    check_that(tokenizer_new(NULL, &t, NULL) == SONDE_OK);
    check_that(vocab_new(&t->vocab, t->arena, 256 + N_MERGES, 256 + N_MERGES, "fuzz", NULL) == SONDE_OK);
    for (unsigned b = 0; b < 256; b++) {
        char name[5];
        name_byte(b, name);
        check_that(vocab_add(&t->vocab, t->arena, b, name, strlen(name), "fuzz", NULL) == SONDE_OK);
    }
    for (size_t i = 0; i < N_MERGES; i++) {
        char s[64];
        size_t k = 0;
        for (const char *p = merges[i]; *p; p++)
            if (*p != ' ')
                s[k++] = *p;
        check_that(vocab_add(&t->vocab, t->arena, 256 + (int64_t)i, s, k, "fuzz", NULL) == SONDE_OK);
    }
    check_that(tokenizer_byte_level(t, NULL) == SONDE_OK);
    check_that(bpe_merges_new(&t->bpe, t->arena, N_MERGES, NULL) == SONDE_OK);
    for (size_t i = 0; i < N_MERGES; i++) {
        const char *space = strchr(merges[i], ' ');
        check_that(tokenizer_merge(t, (uint32_t)i, merges[i], (size_t)(space - merges[i]), space + 1,
                                   strlen(space + 1), "fuzz", NULL) == SONDE_OK);
    }
    t->pre[0] = step[which % 4];
    check_that(tokenizer_added_room(t, 0, NULL) == SONDE_OK && tokenizer_finish(t, NULL, NULL) == SONDE_OK);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    sonde_tokenizer *t = make(data[0]);
    const char *text = (const char *)data + 1;
    sonde_tokens k = {0};
    n--;
    check_that(sonde_tokenizer_encode(t, text, n, SONDE_BOS_AUTO, true, &k, NULL) == SONDE_OK);
    uint32_t at = 0;
    for (size_t i = 0; i < k.n; i++) {
        size_t len;
        const char *s = sonde_tokenizer_bytes(t, k.id[i], &len);
        check_that(k.begin[i] == at && k.end[i] == at + len && len > 0 && at + len <= n &&
                   !memcmp(s, text + at, len));
        at = k.end[i];
    }
    check_that(at == n);
    char *back;
    size_t n_back;
    check_that(sonde_tokenizer_decode(t, k.id, k.n, true, &back, &n_back, NULL) == SONDE_OK);
    check_that(n_back == n && (n == 0 || !memcmp(back, text, n)));
    free(back);
    sonde_tokens_free(&k);
    sonde_tokenizer_close(t);
    return 0;
}
