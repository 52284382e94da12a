/* SPDX-License-Identifier: MIT
 * Prints lib/text/unicode_table.h: character classes and normalisation flags of every code point, from
 * utf8proc. cc -o make_unicode tests/golden/make_unicode.c -lutf8proc && ./make_unicode >
 * lib/text/unicode_table.h */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define N     0x110000
#define BLOCK 128

static uint8_t klass[N], norm[N];

/* White_Space: the 25 code points of PropList.txt. */
static int is_space(int c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

/* Alphabetic adds to the letters, marks and Nl only these symbols (Other_Alphabetic with category So). */
static int is_circled_letter(int c)
{
    return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
           (c >= 0x1f170 && c <= 0x1f189);
}

static int class_of(int c)
{
    int g = (int)utf8proc_category(c), k = 0;
    if (g == UTF8PROC_CATEGORY_LU || g == UTF8PROC_CATEGORY_LT)
        k |= 1 | 128;
    if (g == UTF8PROC_CATEGORY_LL)
        k |= 2 | 128;
    if (g == UTF8PROC_CATEGORY_LM || g == UTF8PROC_CATEGORY_LO)
        k |= 4 | 128;
    if (g == UTF8PROC_CATEGORY_MN || g == UTF8PROC_CATEGORY_MC || g == UTF8PROC_CATEGORY_ME)
        k |= 8 | 128;
    if (g == UTF8PROC_CATEGORY_ND || g == UTF8PROC_CATEGORY_NL || g == UTF8PROC_CATEGORY_NO)
        k |= 16 | (g == UTF8PROC_CATEGORY_NO ? 0 : 128);
    if (is_space(c))
        k |= 32;
    if ((g >= UTF8PROC_CATEGORY_PC && g <= UTF8PROC_CATEGORY_PO) ||
        (c > 32 && c < 127 && strchr("$+<=>^`|~", c)))
        k |= 64;
    if (g == UTF8PROC_CATEGORY_PC || c == 0x200c || c == 0x200d || is_circled_letter(c))
        k |= 128;
    return k;
}

/* The normal form of one code point: its length in code points, -1 for surrogates. */
static int form(int c, int options, int32_t *out, int n)
{
    uint8_t s[5] = {0};
    int len = (int)utf8proc_encode_char(c, s);
    if (len == 0 || (c >= 0xd800 && c < 0xe000))
        return -1;
    int k = (int)utf8proc_decompose(s, len, out, n, UTF8PROC_STABLE | options);
    return options & UTF8PROC_COMPOSE ? (int)utf8proc_normalize_utf32(out, k, UTF8PROC_STABLE | options) : k;
}

static int is_itself(int c, int options)
{
    int32_t f[64];
    return form(c, options, f, 64) == 1 && f[0] == c;
}

static void print_table(const char *name, const uint8_t *t, const char *what)
{
    static uint8_t stage2[N];
    static int stage1[N / BLOCK];
    int n_blocks = 0;
    for (int b = 0; b < N / BLOCK; b++) {
        int i = 0;
        while (i < n_blocks && memcmp(stage2 + i * BLOCK, t + b * BLOCK, BLOCK))
            i++;
        if (i == n_blocks)
            memcpy(stage2 + n_blocks++ * BLOCK, t + b * BLOCK, BLOCK);
        stage1[b] = i;
    }
    printf("\n/* %s */\n/* clang-format off */\nstatic const unsigned %s %s_block[%d] = {", what,
           n_blocks > 256 ? "short" : "char", name, N / BLOCK);
    for (int i = 0; i < N / BLOCK; i++)
        printf("%s%d,", i % 32 ? "" : "\n", stage1[i]);
    printf("\n};\nstatic const unsigned char %s_of[%d] = {", name, n_blocks * BLOCK);
    for (int i = 0; i < n_blocks * BLOCK; i++)
        printf("%s%d,", i % 32 ? "" : "\n", stage2[i]);
    printf("\n};\n/* clang-format on */\n");
}

int main(void)
{
    static uint8_t composes_back[N];
    for (int c = 0; c < N; c++) {
        int32_t d[64];
        int k = form(c, UTF8PROC_DECOMPOSE, d, 64);
        if (k > 1 && is_itself(c, UTF8PROC_COMPOSE))
            composes_back[d[k - 1]] = 1; /* NFC_Quick_Check=Maybe, Hangul vowels and finals included */
    }
    for (int c = 0; c < N; c++) {
        klass[c] = (uint8_t)class_of(c);
        if (c >= 0xd800 && c < 0xe000)
            continue;
        if (utf8proc_get_property(c)->combining_class == 0) {
            norm[c] |= is_itself(c, UTF8PROC_COMPOSE) && !composes_back[c] ? 1 : 0;
            norm[c] |= is_itself(c, UTF8PROC_DECOMPOSE) ? 2 : 0;
            norm[c] |= is_itself(c, UTF8PROC_COMPOSE | UTF8PROC_COMPAT) && !composes_back[c] ? 4 : 0;
            norm[c] |= is_itself(c, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT) ? 8 : 0;
        }
    }
    printf("/* SPDX-License-Identifier: MIT\n * Unicode %s, made by tests/golden/make_unicode.c from "
           "utf8proc %s; do not edit. */\n",
           utf8proc_unicode_version(), utf8proc_version());
    printf("#define SONDE_UNICODE_VERSION \"%s\"\n", utf8proc_unicode_version());
    print_table("class", klass, "the bits of enum sonde_unicode_class");
    print_table(
        "norm", norm,
        "1, 2, 4, 8: stable under NFC, NFD, NFKC, NFKD: a boundary before it, and unchanged if alone");
    return 0;
}
