/* SPDX-License-Identifier: MIT
 * --exclude: what is read, and what is refused with the word that is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "exclude.h"

static struct exclusion parse(const char *text)
{
    struct exclusion e;
    sonde_err err = {0};
    if (exclusion_parse(text, &e, &err))
        fail_msg("%s: %s", text, err.msg);
    return e;
}

static void a_list_means_what_it_says(void **state)
{
    (void)state;
    static const int32_t ids[] = {3, 50256, 0, 7};
    struct exclusion e = parse("bos,ids:3,50256,0,first:4,norm:2.5,special,ids:7");
    assert_true(e.filter.bos && e.filter.special && !e.automatic);
    assert_int_equal(e.filter.first, 4);
    assert_true(e.filter.max_norm == 2.5);
    assert_int_equal(e.filter.n_ids, 4);
    assert_memory_equal(e.filter.ids, ids, sizeof ids);
    exclusion_free(&e);
    e = parse("auto");
    assert_true(e.filter.bos && e.automatic);
    exclusion_free(&e);
    e = parse("none");
    assert_false(e.filter.bos || e.filter.special || e.filter.first || e.filter.n_ids);
    exclusion_free(&e);
}

static void what_cannot_be_read_is_named(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"bso", "'bso'"},
        {"specal", "'special'"},
        {"", "''"},
        {"bos,", "''"},
        {"first:", "''"},
        {"first:x", "'x'"},
        {"first:-1", "'-1'"},
        {"ids:", "''"},
        {"ids:-3", "'-3'"},
        {"ids:1,4294967296", "'4294967296'"},
        {"norm:0.5", "'0.5'"},
        {"norm:inf", "'inf'"},
        {"norm", "'norm'"},
        {"5", "'5'"},
        {"bos,5", "'5'"},
        {"auto,bos", "'auto'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct exclusion e;
        sonde_err err = {0};
        enum sonde_code code = exclusion_parse(cases[i][0], &e, &err);
        if (code != SONDE_E_USAGE || !strstr(err.msg, cases[i][1]))
            fail_msg("'%s': code %d, %s", cases[i][0], code, err.msg);
        exclusion_free(&e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_means_what_it_says),
        cmocka_unit_test(what_cannot_be_read_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
