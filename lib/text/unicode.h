/* SPDX-License-Identifier: MIT
 * UTF-8 and character classes (Unicode 15). Bytes that are not UTF-8 are characters too: each is one code
 * point SONDE_INVALID, which is no letter, no digit and no space. */
#ifndef SONDE_TEXT_UNICODE_H
#define SONDE_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SONDE_INVALID 0x110000u

enum sonde_unicode_class {
    SONDE_U_UPPER = 1,   /* Lu, Lt */
    SONDE_U_LOWER = 2,   /* Ll */
    SONDE_U_OTHER = 4,   /* Lm, Lo */
    SONDE_U_LETTER = 7,  /* \p{L} */
    SONDE_U_MARK = 8,    /* \p{M} */
    SONDE_U_NUMBER = 16, /* \p{N} */
    SONDE_U_SPACE = 32,  /* White_Space: 25 code points, U+180E not among them */
    SONDE_U_PUNCT = 64,  /* \p{P} and ASCII punctuation */
    SONDE_U_WORD = 128   /* Alphabetic, M, Nd, Pc, ZWNJ, ZWJ: \w of UTS 18 */
};

enum sonde_normal_form { SONDE_NFC = 1, SONDE_NFD = 2, SONDE_NFKC = 4, SONDE_NFKD = 8 };

/* "15.0.0" */
const char *sonde_unicode_version(void);

/* Classes of a code point; 0 for SONDE_INVALID. */
unsigned sonde_unicode_class(uint32_t cp);

/* Does the form keep this code point when it stands alone, and never join it to what is before it? */
bool sonde_unicode_stable(uint32_t cp, enum sonde_normal_form form);

/* The code point that begins at s[at], at < n, and its bytes in *len (1..4; 1 for SONDE_INVALID). Strict: no
 * overlong forms, no surrogates, nothing above U+10FFFF. */
uint32_t sonde_utf8_next(const unsigned char *s, size_t n, size_t at, size_t *len);

/* The same for the code point that ends at s[end], end > 0. */
uint32_t sonde_utf8_last(const unsigned char *s, size_t end, size_t *len);

/* cp <= 0x10FFFF as UTF-8 into out[4]; returns its bytes. */
size_t sonde_utf8_put(uint32_t cp, unsigned char out[4]);

/* How many bytes of s are not part of valid UTF-8. */
size_t sonde_utf8_invalid(const unsigned char *s, size_t n);

#endif
