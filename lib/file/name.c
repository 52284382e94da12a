/* SPDX-License-Identifier: MIT */
#include "name_impl.h"

#include <stdint.h>

/* The length of the UTF-8 sequence at s, or 0 if it is not one. */
static size_t sequence(const unsigned char *s, size_t n, uint32_t *point)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = s[0] < 0x80             ? 1
                 : (s[0] & 0xe0) == 0xc0 ? 2
                 : (s[0] & 0xf0) == 0xe0 ? 3
                 : (s[0] & 0xf8) == 0xf0 ? 4
                                         : 0;
    if (len == 0 || len > n)
        return 0;
    uint32_t p = len == 1 ? s[0] : s[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        p = p << 6 | (s[i] & 0x3fu);
    }
    if (p < least[len] || p > 0x10ffff || (p >= 0xd800 && p <= 0xdfff))
        return 0;
    *point = p;
    return len;
}

static bool check(const char *s, size_t n, bool controls)
{
    for (size_t i = 0; i < n;) {
        uint32_t point = 0;
        size_t len = sequence((const unsigned char *)s + i, n - i, &point);
        if (len == 0 || (!controls && (point < 0x20 || (point >= 0x7f && point <= 0x9f))))
            return false;
        i += len;
    }
    return true;
}

bool sonde_utf8_ok(const char *s, size_t n)
{
    return check(s, n, true);
}

bool sonde_name_ok(const char *s, size_t n)
{
    return n >= 1 && n <= SONDE_MAX_NAME && check(s, n, false);
}
