/* SPDX-License-Identifier: MIT
 * sonde train on disks that are full and systems that fail: one line and exit status 4, nothing that looks
 * finished but the whole dictionary, and the same bytes once there is space. */
#include <sched.h>
#include <sys/mount.h>

#include "train_child.h"

static const char *const short_words[] = {
    "acts.h5", "--tokens",           "1500", "--batch", "64",  "--latents", "40", "--k", "3", "--log-every",
    "5",       "--checkpoint-steps", "9",    "-o",      "sae", NULL};
static const char *const short_grid_words[] = {
    "acts.h5", "--tokens",           "1500", "--batch", "64",  "--latents", "40",    "--log-every",
    "5",       "--checkpoint-steps", "9",    "-o",      "sae", "--grid",    "k=2,3", "seed=0..1",
    NULL};
static const struct training one = {"one", short_words, one_dir},
                             grid = {"grid", short_grid_words, grid_dirs};
static struct wanted want, want_grid;

static int set_up(void **state)
{
    return enter_dir(state) || make_training_data() || !make_wanted(&one, &want) ||
           !make_wanted(&grid, &want_grid);
}

/* After a failure: a directory that has cfg.json is whole. */
static void check_failure(const struct training *t, const struct wanted *w, int status, const char *what)
{
    const char *text = text_of("err");
    char hex[65];
    if (status != 4 || !one_line(text))
        fail_msg("%s: ends with %d: %s", what, status, text);
    for (size_t d = 0; t->dir[d]; d++)
        if (is_there(path_in(t->dir[d], "cfg.json")))
            for (size_t i = 0; i < N_TRAIN_FILES; i++) {
                hash_of(path_in(t->dir[d], train_files[i]), hex);
                if (strcmp(hex, w->hash[d][i]))
                    fail_msg("%s: %s has cfg.json, and another %s", what, t->dir[d], train_files[i]);
            }
}

/* ---- no room */

static void a_file_size_limit_is_exit_4_and_goes_on_once_there_is_space(void **state)
{
    (void)state;
    int n_failed = 0;
    for (rlim_t limit = 300; limit < 16000; limit += limit / 3 + 1) {
        char what[60];
        const struct setting s = {.file_bytes = limit, .err = "err", .out = "out"};
        snprintf(what, sizeof what, "limit of %lld bytes", (long long)limit);
        remove_all("sae");
        const int status = wait_for(start_training(&one, "1", &s));
        if (status) {
            check_failure(&one, &want, status, what);
            n_failed++;
        }
        train_to_the_end(&one, &want, "2", what);
    }
    print_message("%d limits were too small\n", n_failed);
    assert_true(n_failed > 10);
}

/* A run on a disk of its own; 0: it had room, 4: not, and finished once there was, -1: nothing can be
 * mounted. */
static int on_small_disk(const struct training *t, const struct wanted *w, const char *options)
{
    char what[100];
    snprintf(what, sizeof what, "%s, %s", t->name, options);
    remove_all("sae");
    if (mkdir("sae", 0777) || mount("tmpfs", "sae", "tmpfs", 0, options)) {
        (void)rmdir("sae");
        return -1;
    }
    const int status = wait_for(start_training(t, "2", &quietly));
    if (status) {
        check_failure(t, w, status, what);
        assert_int_equal(mount("tmpfs", "sae", "tmpfs", MS_REMOUNT, "size=64m,nr_inodes=200"), 0);
        const int again = wait_for(start_training(t, "1", &quietly));
        if (again)
            fail_msg("%s: with space it ends with %d: %s", what, again, text_of("err"));
    }
    same_training(t, w, what);
    assert_int_equal(umount("sae"), 0);
    return status;
}

static void a_full_disk_is_exit_4_and_goes_on_once_there_is_space(void **state)
{
    (void)state;
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
        print_message("no file system can be mounted here: %s\n", strerror(errno));
        skip();
    }
    int n_full = 0, n_whole = 0, page = (int)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < 2; i++)
        for (int pages = 1, whole = 0; whole < 2 && pages < 400; pages += i ? 9 : 1) {
            char options[60];
            snprintf(options, sizeof options, "size=%d", pages * page);
            const int status = on_small_disk(i ? &grid : &one, i ? &want_grid : &want, options);
            if (status < 0) {
                print_message("no tmpfs can be mounted: %s\n", strerror(errno));
                skip();
            }
            n_full += status != 0;
            whole += status == 0;
            n_whole += status == 0;
        }
    for (int inodes = 1; inodes < 14; inodes++) {
        char options[60];
        snprintf(options, sizeof options, "size=64m,nr_inodes=%d", inodes);
        n_full += on_small_disk(&one, &want, options) != 0;
    }
    print_message("%d disks were too small, %d large enough\n", n_full, n_whole);
    assert_true(n_full > 10 && n_whole == 4);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static void skip_unless_preloading_works(void)
{
#ifdef SANITIZED
    print_message("calls cannot be made to fail: a sanitizer is in the program\n");
    skip();
#endif
}

/* ---- a system that fails */

/* Every step-th `call` fails with error, once or from there on. Returns how many places there were. */
static int fail_every(const struct training *t, const struct wanted *w, const char *call, int error, bool on,
                      int step)
{
    char preload[600], named[40], place[40], number[40], what[200];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", getenv("SONDE_FAIL_IO"));
    snprintf(named, sizeof named, "FAIL_CALL=%s", call);
    snprintf(number, sizeof number, "FAIL_ERRNO=%d", error);
    for (int k = 0;; k += step) {
        snprintf(place, sizeof place, "FAIL_AT=%d", k);
        snprintf(what, sizeof what, "%s: %s %d fails %s: %s", t->name, call, k, on ? "from there on" : "once",
                 strerror(error));
        const char *const env[] = {
            preload, named, place, number, "FAIL_MARK=mark", on ? "FAIL_ON=1" : "FAIL_OFF=1", NULL};
        const struct setting s = {.env = env, .err = "err", .out = "out"};
        (void)unlink("mark");
        remove_all("sae");
        const int status = wait_for(start_training(t, "1", &s));
        if (status)
            check_failure(t, w, status, what);
        train_to_the_end(t, w, "2", what);
        if (!is_there("mark"))
            return k;
    }
}

static void fail_call(const char *call, int error, int at_least)
{
    skip_unless_preloading_works();
    const int n = fail_every(&one, &want, call, error, false, 1);
    (void)fail_every(&one, &want, call, error, true, n / 16 + 1);
    (void)fail_every(&grid, &want_grid, call, error, false, n / 4 + 1);
    print_message("%s: %d places\n", call, n);
    assert_true(n >= at_least);
}

static void enospc_at_any_write_is_clean(void **state)
{
    (void)state;
    fail_call("pwrite", ENOSPC, 5);
    fail_call("write", ENOSPC, 5);
}

static void eio_at_any_sync_or_rename_is_clean(void **state)
{
    (void)state;
    fail_call("fsync", EIO, 5);
    fail_call("rename", EIO, 5);
}

static void an_error_at_any_open_is_clean(void **state)
{
    (void)state;
    fail_call("open", EMFILE, 5);
}

static void writes_that_take_a_byte_at_a_time_give_the_same_bytes(void **state)
{
    (void)state;
    skip_unless_preloading_works();
    char preload[600];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", getenv("SONDE_FAIL_IO"));
    const char *const env[] = {preload, "FAIL_SHORT=1", NULL};
    remove_all("sae");
    const int status = wait_for(start_training(&one, "1", &(struct setting){.env = env, .err = "err"}));
    if (status)
        fail_msg("ends with %d: %s", status, text_of("err"));
    same_training(&one, &want, "a byte at a time");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_size_limit_is_exit_4_and_goes_on_once_there_is_space),
        cmocka_unit_test(enospc_at_any_write_is_clean),
        cmocka_unit_test(eio_at_any_sync_or_rename_is_clean),
        cmocka_unit_test(an_error_at_any_open_is_clean),
        cmocka_unit_test(writes_that_take_a_byte_at_a_time_give_the_same_bytes),
        cmocka_unit_test(a_full_disk_is_exit_4_and_goes_on_once_there_is_space),
    };
    return cmocka_run_group_tests(tests, set_up, leave_dir);
}
