/* SPDX-License-Identifier: MIT
 * Atomic replacement: the old file or the new one, never a part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/replace.h"

static char dir[32], path[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/out", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void put(const char *file, const char *text)
{
    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static const char *get(const char *file)
{
    static char buf[256];
    FILE *f = fopen(file, "rb");
    if (!f)
        return "(none)";
    buf[fread(buf, 1, sizeof buf - 1, f)] = '\0';
    fclose(f);
    return buf;
}

static int n_files(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void file_is_made_and_replaced_whole(void **state)
{
    (void)state;
    assert_int_equal(sonde_file_replace(path, "first", 5, NULL), SONDE_OK);
    assert_string_equal(get(path), "first");
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(sonde_file_replace(path, "2", 1, NULL), SONDE_OK);
    assert_string_equal(get(path), "2");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(sonde_file_replace(path, NULL, 0, NULL), SONDE_OK);
    assert_string_equal(get(path), "");
    assert_int_equal(n_files(), 1);
}

static void pieces_of_every_size_are_joined(void **state)
{
    (void)state;
    char *data = malloc(300000);
    for (int i = 0; i < 300000; i++)
        data[i] = (char)(i * 13 + i / 256);
    for (size_t piece = 1000; piece < 300000; piece = piece * 4 + 3) {
        sonde_replace *r;
        assert_int_equal(sonde_replace_begin(path, true, &r, NULL), SONDE_OK);
        for (size_t i = 0; i < 300000; i += piece)
            assert_int_equal(sonde_replace_write(r, data + i, 300000 - i < piece ? 300000 - i : piece, NULL),
                             SONDE_OK);
        assert_int_equal(sonde_replace_commit(r, NULL), SONDE_OK);
        char *back = malloc(300001);
        FILE *f = fopen(path, "rb");
        assert_int_equal(fread(back, 1, 300001, f), 300000);
        fclose(f);
        assert_memory_equal(back, data, 300000);
        free(back);
    }
    free(data);
}

static void abandoned_output_leaves_nothing(void **state)
{
    (void)state;
    put(path, "old");
    sonde_replace *r;
    assert_int_equal(sonde_replace_begin(path, true, &r, NULL), SONDE_OK);
    assert_int_equal(sonde_replace_write(r, "new", 3, NULL), SONDE_OK);
    sonde_replace_abandon(r);
    assert_string_equal(get(path), "old");
    assert_int_equal(n_files(), 1);
}

static void existing_output_is_refused_without_overwrite(void **state)
{
    (void)state;
    put(path, "old");
    sonde_replace *r;
    sonde_err err = {0};
    assert_int_equal(sonde_replace_begin(path, false, &r, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "--force"));
    assert_string_equal(get(path), "old");
}

static void output_that_appears_meanwhile_is_not_lost(void **state)
{
    (void)state;
    sonde_replace *r;
    sonde_err err = {0};
    assert_int_equal(sonde_replace_begin(path, false, &r, &err), SONDE_OK);
    assert_int_equal(sonde_replace_write(r, "mine", 4, &err), SONDE_OK);
    put(path, "theirs");
    assert_int_equal(sonde_replace_commit(r, &err), SONDE_E_USAGE);
    assert_string_equal(get(path), "theirs");
    assert_int_equal(n_files(), 1);
}

static void link_stays_and_its_target_is_replaced(void **state)
{
    (void)state;
    char target[64];
    snprintf(target, sizeof target, "%s/target", dir);
    put(target, "old");
    assert_int_equal(symlink("target", path), 0);
    assert_int_equal(sonde_file_replace(path, "new", 3, NULL), SONDE_OK);
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_string_equal(get(target), "new");
    sonde_err err = {0};
    assert_int_equal(unlink(target), 0);
    assert_int_equal(sonde_file_replace(path, "new", 3, &err), SONDE_E_IO);
}

static void devices_and_directories_are_not_replaced(void **state)
{
    (void)state;
    sonde_err err = {0};
    assert_int_equal(sonde_file_replace(dir, "x", 1, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_file_replace("/dev/null", "x", 1, &err), SONDE_E_USAGE);
    assert_int_equal(sonde_file_replace("", "x", 1, &err), SONDE_E_USAGE);
    snprintf(path, sizeof path, "%s/sub/", dir);
    assert_int_equal(sonde_file_replace(path, "x", 1, &err), SONDE_E_USAGE);
    snprintf(path, sizeof path, "%s/none/out", dir);
    assert_int_equal(sonde_file_replace(path, "x", 1, &err), SONDE_E_IO);
    snprintf(path, sizeof path, "%s/out/under", dir);
    char file[64];
    snprintf(file, sizeof file, "%s/out", dir);
    put(file, "a file");
    assert_int_equal(sonde_file_replace(path, "x", 1, &err), SONDE_E_IO);
    struct stat st;
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
}

static void long_names_are_possible(void **state)
{
    (void)state;
    char name[400];
    snprintf(name, sizeof name, "%s/%0250d", dir, 1);
    assert_int_equal(sonde_file_replace(name, "x", 1, NULL), SONDE_OK);
    assert_string_equal(get(name), "x");
}

/* RLIMIT_FSIZE stands in for a full disk: write gives EFBIG after a short write. */
static void full_disk_keeps_the_old_file(void **state)
{
    (void)state;
    put(path, "old");
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit = {4096, 4096};
        setrlimit(RLIMIT_FSIZE, &limit);
        static char big[100000];
        sonde_err err = {0};
        enum sonde_code rc = sonde_file_replace(path, big, sizeof big, &err);
        _exit(rc == SONDE_E_IO && strstr(err.msg, "4096 of 100000 bytes") ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    assert_string_equal(get(path), "old");
    assert_int_equal(n_files(), 1);
}

static void kill_leaves_the_old_file_or_the_new(void **state)
{
    (void)state;
    char old[10001], new[10001];
    memset(old, 'o', sizeof old);
    memset(new, 'n', sizeof new);
    assert_int_equal(sonde_file_replace(path, old, 10000, NULL), SONDE_OK);
    int seen_new = 0;
    for (int trial = 0; trial < 40; trial++) {
        pid_t child = fork();
        if (child == 0)
            for (;;) {
                sonde_file_replace(path, new, 10000, NULL);
                sonde_file_replace(path, old, 10000, NULL);
            }
        usleep((useconds_t)(trial * 97 % 1500));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        char back[10002];
        FILE *f = fopen(path, "rb");
        assert_non_null(f);
        assert_int_equal(fread(back, 1, sizeof back, f), 10000);
        fclose(f);
        assert_true(!memcmp(back, old, 10000) || !memcmp(back, new, 10000));
        seen_new += back[0] == 'n';
    }
    (void)seen_new;
}

static void pwrite_all_refuses_offsets_beyond_any_file(void **state)
{
    (void)state;
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    sonde_err err = {0};
    assert_int_equal(sonde_pwrite_all(fd, "abc", 3, 5, path, &err), SONDE_OK);
    assert_int_equal(sonde_pwrite_all(fd, "abc", 3, ~0ull, path, &err), SONDE_E_IO);
    assert_int_equal(sonde_pwrite_all(fd, "abc", 3, ~0ull >> 1, path, &err), SONDE_E_IO);
    close(fd);
    assert_int_equal(sonde_pwrite_all(fd, "abc", 3, 0, path, &err), SONDE_E_IO);
    assert_int_equal(sonde_sync_parent(path, &err), SONDE_OK);
    assert_int_equal(sonde_sync_parent("/nonexistent/x", &err), SONDE_E_IO);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(file_is_made_and_replaced_whole),
        TEST(pieces_of_every_size_are_joined),
        TEST(abandoned_output_leaves_nothing),
        TEST(existing_output_is_refused_without_overwrite),
        TEST(output_that_appears_meanwhile_is_not_lost),
        TEST(link_stays_and_its_target_is_replaced),
        TEST(devices_and_directories_are_not_replaced),
        TEST(long_names_are_possible),
        TEST(full_disk_keeps_the_old_file),
        TEST(kill_leaves_the_old_file_or_the_new),
        TEST(pwrite_all_refuses_offsets_beyond_any_file),
    };
    return cmocka_run_group_tests_name("base_replace", tests, NULL, NULL);
}
