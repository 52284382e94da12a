/* SPDX-License-Identifier: MIT
 * Suggestions for misspelt names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/suggest.h"

static const char *const names[] = {"capture",         "train",          "tokenize", "encode",
                                    "hook_resid_post", "hook_resid_pre", "k"};

static const char *near(const char *word)
{
    static char buf[200];
    return sonde_suggest(word, names, sizeof names / sizeof *names, buf, sizeof buf);
}

static void nearest_names_are_suggested_the_nearest_first(void **state)
{
    (void)state;
    assert_string_equal(near("trian"), "; did you mean 'train'?");
    assert_string_equal(near("tokenise"), "; did you mean 'tokenize'?");
    assert_string_equal(near("captur"), "; did you mean 'capture'?");
    assert_string_equal(near("hook_resid_pst"), "; did you mean 'hook_resid_post' or 'hook_resid_pre'?");
    assert_string_equal(near("hook_resid_"), "; did you mean 'hook_resid_post' or 'hook_resid_pre'?");
    assert_string_equal(near("tok"), "; did you mean 'tokenize'?");
}

static void distant_empty_and_huge_words_suggest_nothing(void **state)
{
    (void)state;
    char big[100000];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_string_equal(near("xyzzy"), "");
    assert_string_equal(near(""), "");
    assert_string_equal(near("x"), "");
    assert_string_equal(near(big), "");
}

static void text_is_cut_to_the_buffer(void **state)
{
    (void)state;
    char buf[64];
    for (size_t n = 1; n < 50; n++) {
        memset(buf, 'Z', sizeof buf);
        sonde_suggest("hook_resid_pst", names, 6, buf, n);
        assert_true(strlen(buf) < n && buf[n] == 'Z');
    }
}

static void distance_counts_changes_and_swaps(void **state)
{
    (void)state;
    assert_int_equal(sonde_edit_distance("abc", "abc", 5), 0);
    assert_int_equal(sonde_edit_distance("abc", "acb", 5), 1);
    assert_int_equal(sonde_edit_distance("", "abc", 5), 3);
    assert_int_equal(sonde_edit_distance("kitten", "sitting", 5), 3);
    assert_int_equal(sonde_edit_distance("kitten", "sitting", 2), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearest_names_are_suggested_the_nearest_first),
        cmocka_unit_test(distant_empty_and_huge_words_suggest_nothing),
        cmocka_unit_test(text_is_cut_to_the_buffer),
        cmocka_unit_test(distance_counts_changes_and_swaps),
    };
    return cmocka_run_group_tests_name("base_suggest", tests, NULL, NULL);
}
