/* SPDX-License-Identifier: MIT
 * A pattern, a zero byte, a text: what is found lies in the text, on characters, in order; or it is refused.
 */
#include "../fault/check.h"
#include "text/pretoken_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_matches(const struct regex *r, const unsigned char *text, size_t n)
{
    struct regex_match *state = NULL;
    unsigned char *buf = NULL;
    const unsigned char *s;
    size_t cap = 0, begin, end;
    sonde_err err = {0};
    check_that(regex_subject(text, n, &buf, &cap, &s, NULL) == SONDE_OK);
    for (size_t at = 0; at <= n;) {
        enum sonde_code rc = regex_find(r, &state, s, n, at, &begin, &end, &err);
        if (rc) {
            check_refusal(rc, &err);
            break;
        }
        if (begin > n)
            break;
        check_that(begin >= at && end >= begin && end <= n);
        check_that(begin == n || (s[begin] & 0xc0) != 0x80);
        check_that(end == n || (s[end] & 0xc0) != 0x80);
        at = end > begin ? end : end + 1;
        while (at < n && (s[at] & 0xc0) == 0x80)
            at++;
    }
    regex_match_free(state);
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *zero = n ? memchr(data, 0, n) : NULL;
    size_t n_pattern = zero ? (size_t)(zero - data) : n;
    struct regex *r = NULL;
    sonde_err err = {0};
    enum sonde_code rc = regex_new((const char *)data, n_pattern, &r, &err);
    if (rc) {
        check_refusal(rc, &err);
        return 0;
    }
    check_matches(r, data + n_pattern + (zero != NULL), n - n_pattern - (zero != NULL));
    regex_free(r);
    return 0;
}
