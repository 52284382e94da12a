/* SPDX-License-Identifier: MIT
 * Errors: one printable line, whatever is in a file's name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

static void message_is_one_printable_line(void **state)
{
    (void)state;
    static const char *const c[][2] = {
        {"a\nb\tc\033[2J\x7f", "a?b?c?[2J?"},
        {"gr\xc3\xbc\xc3\x9f \xe6\x97\xa5 \xf0\x9f\x98\x80",
         "gr\xc3\xbc\xc3\x9f \xe6\x97\xa5 \xf0\x9f\x98\x80"},
        {"c1 \xc2\x9b"
         "31m",
         "c1 ??31m"},
        {"\xff\xfe\xc0\xaf\x9b", "?????"},
        {"\xe0\x80\xaf \xed\xa0\x80 \xf4\x90\x80\x80 \xf0\x80\x80\x80", "??? ??? ???? ????"},
        {"cut \xe6\x97", "cut ??"},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        sonde_err err = {0};
        assert_int_equal(sonde_fail(&err, SONDE_E_INPUT, "%s", c[i][0]), SONDE_E_INPUT);
        assert_string_equal(err.msg, c[i][1]);
    }
}

static void long_message_is_cut_and_ended(void **state)
{
    (void)state;
    sonde_err err = {0};
    char big[2000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    sonde_fail(&err, SONDE_E_IO, "%s", big);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    assert_int_equal(sonde_err_wrap(&err, "%s", big), SONDE_E_IO);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
}

static void message_cut_inside_a_character_stays_printable(void **state)
{
    (void)state;
    sonde_err err = {0};
    char big[2000];
    memset(big, 'x', sizeof big);
    snprintf(big + sizeof err.msg - 2, 10, "\xe6\x97\xa5");
    sonde_fail(&err, SONDE_E_IO, "%s", big);
    assert_int_equal(err.msg[sizeof err.msg - 2], '?');
}

static void wrap_puts_words_in_front_and_keeps_the_code(void **state)
{
    (void)state;
    sonde_err err = {0};
    sonde_fail(&err, SONDE_E_NUMERIC, "step %d is NaN", 7);
    assert_int_equal(sonde_err_wrap(&err, "training %s", "gpt2"), SONDE_E_NUMERIC);
    assert_string_equal(err.msg, "training gpt2: step 7 is NaN");
}

static void null_error_gives_the_code_only(void **state)
{
    (void)state;
    assert_int_equal(sonde_fail(NULL, SONDE_E_MEMORY, "nobody reads this"), SONDE_E_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_is_one_printable_line),
        cmocka_unit_test(long_message_is_cut_and_ended),
        cmocka_unit_test(message_cut_inside_a_character_stays_printable),
        cmocka_unit_test(wrap_puts_words_in_front_and_keeps_the_code),
        cmocka_unit_test(null_error_gives_the_code_only),
    };
    return cmocka_run_group_tests_name("base_error", tests, NULL, NULL);
}
