/* SPDX-License-Identifier: MIT */
#include "unicode.h"

#include <string.h>

#include "unicode_table.h"

const char *sonde_unicode_version(void)
{
    return SONDE_UNICODE_VERSION;
}

unsigned sonde_unicode_class(uint32_t cp)
{
    if (cp > 0x10ffff)
        return 0;
    return class_of[(size_t)class_block[cp >> 7] * 128 + (cp & 127)];
}

bool sonde_unicode_stable(uint32_t cp, enum sonde_normal_form form)
{
    if (cp > 0x10ffff)
        return true;
    return norm_of[(size_t)norm_block[cp >> 7] * 128 + (cp & 127)] & (unsigned)form;
}

uint32_t sonde_utf8_next(const unsigned char *s, size_t n, size_t at, size_t *len)
{
    const unsigned char *p = s + at;
    size_t left = n - at;
    uint32_t c = p[0];
    *len = 1;
    if (c < 0x80)
        return c;
    if (c < 0xc2 || c > 0xf4 || left < 2 || (p[1] & 0xc0) != 0x80)
        return SONDE_INVALID;
    if (c < 0xe0) {
        *len = 2;
        return (c & 31) << 6 | (p[1] & 63u);
    }
    if (left < 3 || (p[2] & 0xc0) != 0x80)
        return SONDE_INVALID;
    if (c < 0xf0) {
        uint32_t cp = (c & 15) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u);
        if (cp < 0x800 || (cp >= 0xd800 && cp < 0xe000))
            return SONDE_INVALID;
        *len = 3;
        return cp;
    }
    if (left < 4 || (p[3] & 0xc0) != 0x80)
        return SONDE_INVALID;
    uint32_t cp = (c & 7) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6 | (p[3] & 63u);
    if (cp < 0x10000 || cp > 0x10ffff)
        return SONDE_INVALID;
    *len = 4;
    return cp;
}

uint32_t sonde_utf8_last(const unsigned char *s, size_t end, size_t *len)
{
    for (size_t k = 1; k <= 4 && k <= end; k++) {
        if ((s[end - k] & 0xc0) == 0x80)
            continue;
        uint32_t cp = sonde_utf8_next(s, end, end - k, len);
        if (*len == k)
            return cp;
        break;
    }
    *len = 1;
    return SONDE_INVALID;
}

size_t sonde_utf8_put(uint32_t cp, unsigned char out[4])
{
    if (cp < 0x80) {
        out[0] = (unsigned char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (unsigned char)(0xc0 | cp >> 6);
        out[1] = (unsigned char)(0x80 | (cp & 63));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (unsigned char)(0xe0 | cp >> 12);
        out[1] = (unsigned char)(0x80 | (cp >> 6 & 63));
        out[2] = (unsigned char)(0x80 | (cp & 63));
        return 3;
    }
    out[0] = (unsigned char)(0xf0 | cp >> 18);
    out[1] = (unsigned char)(0x80 | (cp >> 12 & 63));
    out[2] = (unsigned char)(0x80 | (cp >> 6 & 63));
    out[3] = (unsigned char)(0x80 | (cp & 63));
    return 4;
}

size_t sonde_utf8_invalid(const unsigned char *s, size_t n)
{
    size_t bad = 0, len;
    for (size_t at = 0; at < n; at += len) {
        len = 8;
        uint64_t w = 0x80;
        if (n - at >= 8)
            memcpy(&w, s + at, 8);
        if ((w & 0x8080808080808080u) == 0)
            continue;
        bad += sonde_utf8_next(s, n, at, &len) == SONDE_INVALID;
    }
    return bad;
}
