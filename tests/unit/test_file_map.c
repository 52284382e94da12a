/* SPDX-License-Identifier: MIT
 * Maps: regular files only, and no way out of a directory but the Hugging Face cache's own link. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file/map.h"

static char dir[32];

static const char *in_dir(const char *name)
{
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(in_dir(name), "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-test-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void a_file_is_seen_whole(void **state)
{
    (void)state;
    put("a", "hello");
    sonde_map *m;
    assert_int_equal(sonde_map_open(in_dir("a"), &m, NULL), SONDE_OK);
    assert_int_equal(m->n_bytes, 5);
    assert_memory_equal(m->data, "hello", 5);
    assert_string_equal(m->path, in_dir("a"));
    sonde_map_close(m);
    sonde_map_close(NULL);
}

static void an_empty_file_has_a_valid_pointer(void **state)
{
    (void)state;
    put("empty", "");
    sonde_map *m;
    assert_int_equal(sonde_map_open(in_dir("empty"), &m, NULL), SONDE_OK);
    assert_int_equal(m->n_bytes, 0);
    assert_non_null(m->data);
    sonde_map_forget(m, 0, 0);
    sonde_map_close(m);
    assert_int_equal(sonde_map_copy("", 0, "memory", &m, NULL), SONDE_OK);
    assert_non_null(m->data);
    sonde_map_close(m);
}

static void other_things_than_files_are_refused(void **state)
{
    (void)state;
    sonde_map *m;
    sonde_err err;
    assert_int_equal(sonde_map_open(dir, &m, &err), SONDE_E_INPUT);
    assert_non_null(strstr(err.msg, "a directory"));
    assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0); /* must not wait for a writer either */
    assert_int_equal(sonde_map_open(in_dir("fifo"), &m, &err), SONDE_E_INPUT);
    assert_int_equal(sonde_map_open("/dev/null", &m, &err), SONDE_E_INPUT);
    assert_int_equal(sonde_map_open(in_dir("absent"), &m, &err), SONDE_E_IO);
    assert_non_null(strstr(err.msg, "absent"));
    assert_int_equal(sonde_map_open_in(dir, "fifo", &m, &err), SONDE_E_INPUT);
    assert_int_equal(sonde_map_open_in(dir, "absent", &m, &err), SONDE_E_IO);
    assert_int_equal(sonde_map_open_in(in_dir("absent"), "a", &m, &err), SONDE_E_IO);
}

static void names_from_files_are_one_plain_component(void **state)
{
    (void)state;
    char longest[257];
    memset(longest, 'a', 256);
    longest[256] = '\0';
    const char *bad[] = {"",    ".",   "..",       "a/b",  "/etc/passwd", "../a",
                         "a b", "a\n", "\xc3\xa4", "a\\b", "~",           longest};
    put("a", "x");
    sonde_map *m;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(sonde_map_open_in(dir, bad[i], &m, NULL), SONDE_E_INPUT);
        assert_false(sonde_map_exists_in(dir, bad[i]));
    }
    put("model-00001-of-00002.safetensors", "x");
    assert_true(sonde_map_exists_in(dir, "model-00001-of-00002.safetensors"));
    assert_int_equal(sonde_map_open_in(dir, "model-00001-of-00002.safetensors", &m, NULL), SONDE_OK);
    sonde_map_close(m);
}

static void links_out_of_the_directory_are_refused(void **state)
{
    (void)state;
    put("a", "x");
    sonde_map *m;
    sonde_err err;
    const char *targets[] = {"/etc/passwd", "a", "../../blobs/../a", "../../blobs/0123456789abcdef",
                             "../../blobs/0123456789012345678901234567890123456789x"};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        unlink(in_dir("link"));
        assert_int_equal(symlink(targets[i], in_dir("link")), 0);
        assert_int_equal(sonde_map_open_in(dir, "link", &m, &err), SONDE_E_INPUT);
        assert_non_null(strstr(err.msg, "symbolic link"));
    }
    assert_int_equal(sonde_map_open(in_dir("link"), &m, &err),
                     SONDE_E_IO); /* dangling, but followed: the user's name */
    unlink(in_dir("link"));
    assert_int_equal(symlink("a", in_dir("link")), 0);
    assert_int_equal(sonde_map_open(in_dir("link"), &m, &err), SONDE_OK);
    sonde_map_close(m);
}

#define HEX40 "0123456789abcdef0123456789abcdef01234567"

static void the_hugging_face_cache_link_is_followed(void **state)
{
    (void)state;
    mkdir(in_dir("blobs"), 0700);
    mkdir(in_dir("snapshots"), 0700);
    mkdir(in_dir("snapshots/main"), 0700);
    put("blobs/" HEX40, "weights");
    assert_int_equal(symlink("../../blobs/" HEX40, in_dir("snapshots/main/model.safetensors")), 0);
    sonde_map *m;
    assert_true(sonde_map_exists_in(in_dir("snapshots/main"), "model.safetensors"));
    assert_int_equal(sonde_map_open_in(in_dir("snapshots/main"), "model.safetensors", &m, NULL), SONDE_OK);
    assert_int_equal(m->n_bytes, 7);
    sonde_map_close(m);

    /* but the blob may not be a link again, nor the directory of blobs */
    unlink(in_dir("blobs/" HEX40));
    assert_int_equal(symlink("/etc/passwd", in_dir("blobs/" HEX40)), 0);
    assert_int_not_equal(sonde_map_open_in(in_dir("snapshots/main"), "model.safetensors", &m, NULL),
                         SONDE_OK);
    unlink(in_dir("blobs/" HEX40));
    put(HEX40, "elsewhere");
    rmdir(in_dir("blobs"));
    assert_int_equal(symlink(".", in_dir("blobs")), 0);
    assert_int_not_equal(sonde_map_open_in(in_dir("snapshots/main"), "model.safetensors", &m, NULL),
                         SONDE_OK);
}

static void forgetting_changes_no_byte(void **state)
{
    (void)state;
    FILE *f = fopen(in_dir("big"), "wb");
    for (int i = 0; i < 50000; i++)
        putc(i % 251, f);
    fclose(f);
    sonde_map *m;
    assert_int_equal(sonde_map_open(in_dir("big"), &m, NULL), SONDE_OK);
    sonde_map_forget(m, 5000, 30000);
    sonde_map_forget(m, 0, 50000);
    sonde_map_forget(m, 49999, 1);
    sonde_map_forget(m, 40000, SIZE_MAX); /* out of range: nothing happens */
    for (int i = 0; i < 50000; i++)
        if (m->data[i] != i % 251)
            fail();
    sonde_map_close(m);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        T(a_file_is_seen_whole),
        T(an_empty_file_has_a_valid_pointer),
        T(other_things_than_files_are_refused),
        T(names_from_files_are_one_plain_component),
        T(links_out_of_the_directory_are_refused),
        T(the_hugging_face_cache_link_is_followed),
        T(forgetting_changes_no_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
