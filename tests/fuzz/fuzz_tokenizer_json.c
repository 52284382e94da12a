/* SPDX-License-Identifier: MIT
 * A tokenizer.json that is accepted tokenises: ids lie in the vocabulary, ranges in the text and in order,
 * and the same text gives the same ids twice. */
#include "../fault/check.h"
#include "text/tokenizer_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_text(const sonde_tokenizer *t, const char *text, size_t n, bool special)
{
    sonde_tokens a = {0}, b = {0};
    sonde_err err = {0};
    enum sonde_code rc = sonde_tokenizer_encode(t, text, n, SONDE_BOS_AUTO, special, &a, &err);
    check_that(rc == sonde_tokenizer_encode(t, text, n, SONDE_BOS_AUTO, special, &b, NULL));
    if (rc)
        check_refusal(rc, &err);
    check_that(a.n == b.n && (a.n == 0 || !memcmp(a.id, b.id, a.n * sizeof *a.id)));
    for (size_t i = 0; i < a.n; i++) {
        check_that(a.id[i] >= 0 && a.id[i] < sonde_tokenizer_size(t));
        check_that(a.begin[i] <= a.end[i] && a.end[i] <= n);
        check_that(i == 0 || (a.begin[i] >= a.begin[i - 1] && a.end[i] >= a.end[i - 1]));
    }
    char *s;
    size_t n_s;
    check_that(sonde_tokenizer_decode(t, a.id, a.n, special, &s, &n_s, NULL) == SONDE_OK);
    free(s);
    sonde_tokens_free(&a);
    sonde_tokens_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char text[] = "ab abc  ab\n 12 \xff\xc3\xa9 e\xcc\x81 <s>x</s> \0 \xe2\x96\x81hello's ABC";
    sonde_budget budget = {.limit = 16 << 20};
    sonde_err err = {0};
    sonde_tokenizer *t;
    sonde_map *m = check_map(data, n);
    check_that(tokenizer_new(&budget, &t, &err) == SONDE_OK);
    enum sonde_code rc = tokenizer_read_json(t, m, &err);
    if (rc == SONDE_OK) {
        for (int special = 0; special < 2; special++) {
            check_text(t, text, sizeof text - 1, special);
            check_text(t, (const char *)data, n < 300 ? n : 300, special);
        }
    } else {
        check_refusal(rc, &err);
    }
    sonde_tokenizer_close(t);
    sonde_map_close(m);
    check_that(budget.taken == 0);
    return 0;
}
