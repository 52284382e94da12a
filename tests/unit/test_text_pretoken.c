/* SPDX-License-Identifier: MIT
 * Scanners against their patterns: the pieces of small texts, and the general engine with the same pattern.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "text/pretoken_impl.h"

static const char gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
static const char llama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char qwen2[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* Ends of the pieces, into end[]. */
static size_t pieces(const struct pretoken_step *step, const char *text, size_t n, size_t *end)
{
    struct pretokens p = {0};
    struct text_view v = {(const unsigned char *)text, n, 0, NULL, NULL}, piece;
    sonde_err err = {0};
    size_t k = 0;
    bool more = true;
    assert_int_equal(pretokens_begin(&p, step, 1, &v, &err), SONDE_OK);
    while (more) {
        if (pretokens_next(&p, &piece, &more, &err))
            fail_msg("%s", err.msg);
        if (more)
            end[k++] = piece.base + piece.n;
    }
    pretokens_free(&p);
    return k;
}

static struct pretoken_step scanner(const char *pattern)
{
    struct pretoken_step step = {0};
    assert_true(pretoken_known_pattern(pattern, strlen(pattern), &step));
    return step;
}

static void scanners_cut_where_the_patterns_do(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *pieces; /* separated by | */
    } row[] = {
        {gpt2, "it|'s| don|'t| I|'ll| x|'|S"},
        {gpt2, "a|  | b|\n|\n|c| |\t|d|  "},
        {gpt2, " 12345| ,,!|\xc2\xb2|a|\xcc"},
        {llama3, "it|'S| don|'t|'\xc5\xbf|x|'LL"},
        {llama3, "123|45| |678| !?\r\n\n|a|\tb|  \n \n|   | x"},
        {qwen2, "1|2|3|\xd9\xa3|a|'Re|  | b"},
        {qwen2, "(x|)\n\n\r\n|-y| --|\xe3\x80\x80|\xe3\x80\x80z"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char text[200];
        size_t want[100], got[100], n = 0, n_want = 0;
        for (const char *p = row[i].pieces; *p; p++) {
            if (*p == '|')
                want[n_want++] = n;
            else
                text[n++] = *p;
        }
        want[n_want++] = n;
        struct pretoken_step step = scanner(row[i].pattern);
        size_t n_got = pieces(&step, text, n, got);
        if (n_got != n_want || memcmp(got, want, n_want * sizeof *want) != 0) {
            for (size_t k = 0; k < n_got; k++)
                print_message("[%.*s]", (int)(got[k] - (k ? got[k - 1] : 0)), text + (k ? got[k - 1] : 0));
            fail_msg("\nrow %zu, want %s", i, row[i].pieces);
        }
    }
}

static void scanners_equal_the_general_engine_on_any_bytes(void **state)
{
    (void)state;
    static const char *const pattern[] = {gpt2, llama3, qwen2};
    static const char *const bits[] = {" ",
                                       "  ",
                                       "\n",
                                       "\r",
                                       "\t",
                                       "'",
                                       "s",
                                       "LL",
                                       "re",
                                       "a",
                                       "1",
                                       "!",
                                       "\xc3\xa9",
                                       "\xc2\xa0",
                                       "\xe3\x80\x80",
                                       "\xc2\x85",
                                       "\xe1\xa0\x8e",
                                       "\xcc\x81",
                                       "\xff",
                                       "\xc3",
                                       "\xf0\x9f\x98\x80",
                                       "\xc5\xbf"};
    sonde_rng r = sonde_rng_seed(11);
    for (int p = 0; p < 3; p++) {
        struct pretoken_step fast = scanner(pattern[p]), slow = {.kind = PRETOKEN_REGEX};
        assert_int_equal(regex_new(pattern[p], strlen(pattern[p]), &slow.regex, NULL), SONDE_OK);
        for (int round = 0; round < 3000; round++) {
            char text[200];
            size_t a[200], b[200], n = 0, k = sonde_rng_below(&r, 24);
            for (size_t i = 0; i < k; i++) {
                const char *s = bits[sonde_rng_below(&r, sizeof bits / sizeof *bits)];
                memcpy(text + n, s, strlen(s));
                n += strlen(s);
            }
            size_t n_a = pieces(&fast, text, n, a), n_b = pieces(&slow, text, n, b);
            assert_int_equal(n_a, n_b);
            assert_memory_equal(a, b, n_a * sizeof *a);
        }
        regex_free(slow.regex);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scanners_cut_where_the_patterns_do),
        cmocka_unit_test(scanners_equal_the_general_engine_on_any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
