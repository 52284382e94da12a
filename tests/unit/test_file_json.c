/* SPDX-License-Identifier: MIT
 * JSON behind limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <locale.h>
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/json.h"

static enum sonde_code parse(const char *text, json_t **out)
{
    return sonde_json_parse(text, strlen(text), 1000, "test", out, NULL);
}

static void assert_refused(const char *text, enum sonde_code code)
{
    json_t *j;
    sonde_err err = {0};
    assert_int_equal(sonde_json_parse(text, strlen(text), 1000, "test", &j, &err), code);
    assert_true(strncmp(err.msg, "test: ", 6) == 0);
}

static void what_is_not_json_is_refused(void **state)
{
    (void)state;
    const char *bad[] = {"",
                         " ",
                         "{",
                         "{}x",
                         "{} {}",
                         "{\"a\":1,}",
                         "[1,]",
                         "nul",
                         "NaN",
                         "[Infinity]",
                         "[-]",
                         "[01]",
                         "[1e999]",
                         "'a'",
                         "\"\x01\"",
                         "\"\xff\"",
                         "\"\\ud800\"",
                         "\"\\u0000\"",
                         "{\"\\u0000\":1}",
                         "[1.]",
                         "\xef\xbb\xbf{}",
                         "{1:2}",
                         "[\"\\x\"]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_refused(bad[i], SONDE_E_INPUT);
    json_t *j;
    assert_int_equal(sonde_json_parse("{\"a\0\":1}", 8, 10, "test", &j, NULL), SONDE_E_INPUT);
}

static void duplicate_keys_are_refused_also_behind_escapes(void **state)
{
    (void)state;
    assert_refused("{\"w\":1,\"w\":1}", SONDE_E_INPUT);
    assert_refused("{\"w\":1,\"\\u0077\":1}", SONDE_E_INPUT);
    assert_refused("[{\"a\":{\"b\":1,\"b\":2}}]", SONDE_E_INPUT);
}

static void depth_64_is_read_and_65_refused(void **state)
{
    (void)state;
    char text[256];
    for (int depth = 64; depth <= 65; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        text[2 * depth] = '\0';
        json_t *j = NULL;
        assert_int_equal(parse(text, &j), depth == 64 ? SONDE_OK : SONDE_E_INPUT);
        json_decref(j);
    }
    char *deep = malloc(1000001);
    memset(deep, '[', 1000000);
    deep[1000000] = '\0';
    assert_int_equal(sonde_json_parse(deep, 1000000, SIZE_MAX, "test", &(json_t *){NULL}, NULL),
                     SONDE_E_INPUT);
    free(deep);
}

static void more_values_than_allowed_are_a_memory_error(void **state)
{
    (void)state;
    json_t *j;
    assert_int_equal(sonde_json_parse("[1,2,3]", 7, 4, "test", &j, NULL), SONDE_OK);
    json_decref(j);
    assert_int_equal(sonde_json_parse("[1,2,3]", 7, 3, "test", &j, NULL), SONDE_E_MEMORY);
    /* what stands in a string is not structure */
    assert_int_equal(sonde_json_parse("[\"[,\\\",{{\"]", 11, 2, "test", &j, NULL), SONDE_OK);
    json_decref(j);
}

static void integers_beyond_int64_become_reals(void **state)
{
    (void)state;
    json_t *j;
    assert_int_equal(
        parse("{\"model_max_length\": 1000000000000000019884624838656, \"a\":[9223372036854775807,"
              "-9223372036854775808,9223372036854775808,-9223372036854775809],"
              "\"s\":\"12345678901234567890123\"}",
              &j),
        SONDE_OK);
    double x;
    assert_int_equal(sonde_json_double(j, "model_max_length", 0, INFINITY, NULL, "test", &x, NULL), SONDE_OK);
    assert_true(x == 1e30);
    int64_t i;
    assert_int_equal(sonde_json_int(j, "model_max_length", 0, INT64_MAX, NULL, "test", &i, NULL),
                     SONDE_E_INPUT);
    const json_t *a = json_object_get(j, "a");
    assert_true(json_integer_value(json_array_get(a, 0)) == INT64_MAX);
    assert_true(json_integer_value(json_array_get(a, 1)) == INT64_MIN);
    assert_true(json_is_real(json_array_get(a, 2)) && json_is_real(json_array_get(a, 3)));
    assert_string_equal(json_string_value(json_object_get(j, "s")), "12345678901234567890123");
    json_decref(j);

    assert_int_equal(
        parse("[1.12345678901234567890123,1E+00000000000000000000001,1e-99999999999999999999]", &j),
        SONDE_OK);
    assert_true(json_real_value(json_array_get(j, 0)) == 1.12345678901234567890123);
    assert_true(json_real_value(json_array_get(j, 1)) == 10.0);
    json_decref(j);
}

static void a_decimal_comma_in_the_locale_changes_nothing(void **state)
{
    (void)state;
    char dir[] = "/tmp/sonde-test-XXXXXX", command[256];
    assert_non_null(mkdtemp(dir));
    int built = 0;
    const char *names[] = {"de_DE", "ps_AF"}; /* "," and a point of two bytes */
    for (int i = 0; i < 2; i++) {
        snprintf(command, sizeof command, "localedef -c -i %s -f UTF-8 %s/%s.UTF-8 >%s/log 2>&1", names[i],
                 dir, names[i], dir);
        if (system(command) != 0)
            continue;
        setenv("LOCPATH", dir, 1);
        snprintf(command, sizeof command, "%s.UTF-8", names[i]);
        if (!setlocale(LC_ALL, command))
            continue;
        built++;
        assert_string_not_equal(localeconv()->decimal_point, ".");
        json_t *j;
        assert_int_equal(parse("{\"x\":0.5,\"y\":-1.25e-3}", &j), SONDE_OK);
        assert_true(json_real_value(json_object_get(j, "x")) == 0.5);
        assert_true(json_real_value(json_object_get(j, "y")) == -1.25e-3);
        json_decref(j);
        assert_int_equal(parse("{\"x\":0,5}", &j), SONDE_E_INPUT);
        assert_string_not_equal(localeconv()->decimal_point, "."); /* the caller's locale stays */
    }
    setlocale(LC_ALL, "C");
    unsetenv("LOCPATH");
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    if (!built) {
        print_message("no locale with a decimal comma can be built here\n");
        skip();
    }
}

static size_t now, peak;

static void *counting_malloc(size_t n)
{
    void *p = malloc(n);
    if (p && (now += malloc_usable_size(p) + 8) > peak)
        peak = now;
    return p;
}

static void counting_free(void *p)
{
    if (p)
        now -= malloc_usable_size(p) + 8;
    free(p);
}

static void the_budget_covers_what_jansson_takes(void **state)
{
    (void)state;
    const char *unit[] = {
        "1,",
        "1.5,",
        "\"a\",",
        "[],",
        "[1],",
        "{},",
        "{\"a\":1},",
        "{\"a\":1,\"bb\":[2],\"c\":{}},",
        "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",",
        "{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\":99999999999999999999999999},",
        "true,",
        "{\"1\":1,\"2\":1,\"3\":1,\"4\":1,\"5\":1,\"6\":1,\"7\":1,\"8\":1,\"9\":1},"};
    json_set_alloc_funcs(counting_malloc, counting_free);
    for (size_t i = 0; i < sizeof unit / sizeof *unit; i++) {
        for (size_t k = 1; k < 40000; k = k * 2 + 1) {
            size_t n = strlen(unit[i]);
            char *text = malloc(k * n + 2);
            text[0] = '[';
            for (size_t u = 0; u < k; u++)
                memcpy(text + 1 + u * n, unit[i], n);
            text[k * n] = ']';
            now = peak = 0;
            sonde_budget budget = {.limit = (size_t)1 << 30};
            sonde_json j;
            assert_int_equal(sonde_json_parse_within(text, k * n + 1, &budget, "test", &j, NULL), SONDE_OK);
            assert_true(peak <= budget.taken);
            assert_true(budget.taken <= 16 * peak + 65536);
            size_t held = budget.taken;
            sonde_json_release(&j);
            assert_int_equal(budget.taken, 0);
            assert_int_equal(now, 0);
            budget.limit = held - 1;
            assert_int_equal(sonde_json_parse_within(text, k * n + 1, &budget, "test", &j, NULL),
                             SONDE_E_MEMORY);
            assert_int_equal(budget.taken, 0);
            free(text);
        }
    }
    json_set_alloc_funcs(malloc, free);
}

static void getters_check_type_and_range(void **state)
{
    (void)state;
    json_t *j;
    sonde_err err;
    assert_int_equal(parse("{\"i\":7,\"x\":2.5,\"b\":true,\"s\":\"hi\",\"n\":null}", &j), SONDE_OK);
    int64_t i = 0, five = 5;
    double x = 0, half = 0.5;
    bool b = false;
    const char *s = "";
    assert_int_equal(sonde_json_int(j, "i", 0, 7, NULL, "cfg", &i, &err), SONDE_OK);
    assert_int_equal(i, 7);
    assert_int_equal(sonde_json_int(j, "i", 0, 6, NULL, "cfg", &i, &err), SONDE_E_INPUT);
    assert_string_equal(err.msg, "cfg: 'i' is 7, it must be between 0 and 6");
    assert_int_equal(sonde_json_int(j, "x", 0, 9, &five, "cfg", &i, &err), SONDE_E_INPUT);
    assert_string_equal(err.msg, "cfg: 'x' must be an integer, it is a real number");
    assert_int_equal(sonde_json_int(j, "absent", 0, 9, &five, "cfg", &i, &err), SONDE_OK);
    assert_int_equal(i, 5);
    assert_int_equal(sonde_json_int(j, "n", 0, 9, &five, "cfg", &i, &err), SONDE_OK);
    assert_int_equal(sonde_json_int(j, "n", 0, 9, NULL, "cfg", &i, &err), SONDE_E_INPUT);
    assert_string_equal(err.msg, "cfg: the key 'n' is missing");
    assert_int_equal(sonde_json_double(j, "i", 0, 9, NULL, "cfg", &x, &err), SONDE_OK);
    assert_true(x == 7.0);
    assert_int_equal(sonde_json_double(j, "x", 0, 1, &half, "cfg", &x, &err), SONDE_E_INPUT);
    assert_int_equal(sonde_json_double(j, "s", 0, 1, &half, "cfg", &x, &err), SONDE_E_INPUT);
    assert_int_equal(sonde_json_double(j, "n", 0, 1, &half, "cfg", &x, &err), SONDE_OK);
    assert_true(x == 0.5);
    assert_int_equal(sonde_json_bool(j, "b", false, "cfg", &b, &err), SONDE_OK);
    assert_true(b);
    assert_int_equal(sonde_json_bool(j, "i", false, "cfg", &b, &err), SONDE_E_INPUT);
    assert_int_equal(sonde_json_string(j, "s", NULL, "cfg", &s, &err), SONDE_OK);
    assert_string_equal(s, "hi");
    assert_int_equal(sonde_json_string(j, "absent", NULL, "cfg", &s, &err), SONDE_OK);
    assert_null(s);
    assert_int_equal(sonde_json_string(j, "i", NULL, "cfg", &s, &err), SONDE_E_INPUT);
    assert_int_equal(sonde_json_int(json_object_get(j, "s"), "i", 0, 9, &five, "cfg", &i, &err),
                     SONDE_E_INPUT);
    assert_int_equal(sonde_json_int(NULL, "i", 0, 9, &five, "cfg", &i, &err), SONDE_E_INPUT);
    json_decref(j);
}

static void files_are_read_up_to_a_limit(void **state)
{
    (void)state;
    char dir[] = "/tmp/sonde-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "wb");
    fputs("{\"a\": [1, 2, 3]}\n", f);
    fclose(f);
    json_t *j;
    sonde_err err;
    assert_int_equal(sonde_json_load_in(dir, "config.json", 17, &j, &err), SONDE_OK);
    json_decref(j);
    assert_int_equal(sonde_json_load_in(dir, "config.json", 16, &j, &err), SONDE_E_INPUT);
    assert_int_equal(sonde_json_load_in(dir, "absent.json", 16, &j, &err), SONDE_E_IO);
    assert_int_equal(sonde_json_load_in(dir, "../config.json", 16, &j, &err), SONDE_E_INPUT);
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_json_is_refused),
        cmocka_unit_test(duplicate_keys_are_refused_also_behind_escapes),
        cmocka_unit_test(depth_64_is_read_and_65_refused),
        cmocka_unit_test(more_values_than_allowed_are_a_memory_error),
        cmocka_unit_test(integers_beyond_int64_become_reals),
        cmocka_unit_test(a_decimal_comma_in_the_locale_changes_nothing),
        cmocka_unit_test(the_budget_covers_what_jansson_takes),
        cmocka_unit_test(getters_check_type_and_range),
        cmocka_unit_test(files_are_read_up_to_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
