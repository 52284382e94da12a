/* SPDX-License-Identifier: MIT
 * A temporary directory, and dictionaries that go to a file and back. */
#ifndef TESTS_UNIT_FORMAT_FIXTURE_H
#define TESTS_UNIT_FORMAT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dict_fixture.h"
#include "file/json.h"

static char dir[32], path[96];

static int make_place(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-test-XXXXXX");
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/d", dir);
    return 0;
}

static int remove_place(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

/* dir/name as one string; the next call overwrites it. */
static inline const char *in_dir(const char *name)
{
    static char whole[160];
    snprintf(whole, sizeof whole, "%s/%s", dir, name);
    return whole;
}

static inline void save(const sonde_dict *d, const char *format, const char *to)
{
    sonde_err err;
    if (sonde_dict_save(d, format, to, true, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
}

/* The format is found out from the files. */
static inline sonde_dict *load(const char *from, const char *format)
{
    sonde_dict *d = NULL;
    sonde_err err;
    if (sonde_dict_load(from, NULL, NULL, &d, NULL, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
    assert_string_equal(d->format, format);
    return d;
}

static inline void assert_meta(const sonde_dict *d, const char *key, const char *want)
{
    const char *is = json_string_value(json_object_get(d->meta, key));
    if (!is || strcmp(is, want) != 0)
        fail_msg("%s is %s, expected %s", key, is ? is : "absent", want);
}

/* d through the format and back: it must compute the same to 1e-6, written twice it must give the same file,
 * and nothing may be replaced unasked. */
static inline sonde_dict *there_and_back(const sonde_dict *d, const char *format, const char *to)
{
    sonde_err err = {0};
    save(d, format, to);
    assert_int_equal(sonde_dict_save(d, format, to, false, &err), SONDE_E_USAGE);
    sonde_dict *back = load(to, format);
    assert_same(d, back, NULL, 1e-6);
    return back;
}

static inline void assert_not_written(const sonde_dict *d, const char *format, const char *word)
{
    sonde_err err = {0};
    char to[128];
    snprintf(to, sizeof to, "%s/refused", dir);
    assert_int_equal(sonde_dict_save(d, format, to, true, &err), SONDE_E_USAGE);
    if (!strstr(err.msg, word))
        fail_msg("'%s' does not mention '%s'", err.msg, word);
    assert_int_equal(access(to, F_OK), -1);
}

static inline void assert_not_read(const char *from, const char *format, const char *word)
{
    sonde_dict *d = NULL;
    sonde_err err = {0};
    assert_int_equal(sonde_dict_load(from, format, NULL, &d, NULL, &err), SONDE_E_INPUT);
    if (!strstr(err.msg, word))
        fail_msg("'%s' does not mention '%s'", err.msg, word);
}

static inline void put_file(const char *name, const char *text)
{
    FILE *f = fopen(in_dir(name), "wb");
    assert_non_null(f);
    fwrite(text, 1, strlen(text), f);
    fclose(f);
}

static inline void set_text(sonde_dict *d, const char *key, const char *value)
{
    assert_int_equal(json_object_set_new(d->meta, key, json_string(value)), 0);
}

#endif
