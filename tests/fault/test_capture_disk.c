/* SPDX-License-Identifier: MIT
 * sonde capture on disks that are full, that fail, and that forget: one line and exit status 4, nothing wrong
 * under the output's name, and the same file once there is space. */
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "child.h"

static char want[65];
static off_t want_bytes;

static void capture_words(struct words *w)
{
    ADD(w, "capture", "--model", golden_model("llama"), "--ids", "ids.npy", "--hook",
        "blocks.*.hook_resid_post", "--hook", "blocks.0.attn.hook_z", "--loss", "--journal", "12KiB",
        "--batch", "10", "--threads", "1", "-o", "acts.h5");
}

static int capture(const char *more, struct setting s)
{
    struct words w = {0};
    capture_words(&w);
    if (more)
        ADD(&w, more);
    s.err = "err";
    return run_words(&w, &s);
}

static void clean(void)
{
    (void)unlink("acts.h5");
    (void)unlink("acts.h5.part");
    (void)unlink("acts.h5.part.journal");
    (void)unlink("mark");
}

static int set_up(void **state)
{
    struct stat st;
    if (enter_dir(state))
        return -1;
    write_ids("ids.npy", 6, 10, 61);
    if (capture(NULL, (struct setting){0}) || stat("acts.h5", &st)) {
        print_error("%s", text_of("err"));
        return -1;
    }
    want_bytes = st.st_size;
    hash_of("acts.h5", want);
    clean();
    return 0;
}

static const char *const ours[] = {
    "ids.npy", "err", "mark", "acts.h5", "acts.h5.part", "acts.h5.part.journal", NULL};

/* After a failure: nothing but .part and journal, or the whole file; then the end without the fault. */
static void check_failure(int status, const char *what)
{
    const char *text = text_of("err");
    if (status != 4 || !one_line(text))
        fail_msg("%s: ended with %d: %s", what, status, text);
    if (is_there("acts.h5"))
        same_file("acts.h5", want);
    if (*strangers_here(ours))
        fail_msg("%s: leaves %s", what, strangers_here(ours));
}

static void to_the_end(const char *what)
{
    bool part = is_there("acts.h5.part");
    if (part || !is_there("acts.h5")) {
        int status = capture(part ? "--resume" : NULL, (struct setting){0});
        if (status)
            fail_msg("%s: then ended with %d: %s", what, status, text_of("err"));
    }
    same_file("acts.h5", want);
    clean();
    if (*strangers_here(ours))
        fail_msg("%s: leaves %s", what, strangers_here(ours));
}

/* ---- no room ----------------------------------------------------------------------------------- */

static void a_file_size_limit_is_exit_4_with_numbers_and_nothing_stays(void **state)
{
    (void)state;
    int n_failed = 0;
    for (off_t limit = 100; limit < want_bytes + 4096; limit += want_bytes / 23) {
        int status = capture(NULL, (struct setting){.file_bytes = (rlim_t)limit});
        char what[60];
        snprintf(what, sizeof what, "limit of %lld bytes", (long long)limit);
        if (status == 0 && limit >= want_bytes) {
            same_file("acts.h5", want);
        } else {
            check_failure(status, what);
            assert_non_null(strpbrk(text_of("err"), "0123456789"));
            n_failed++;
        }
        to_the_end(what);
    }
    assert_in_range(n_failed, 20, 100);
}

static bool mount_small(const char *options)
{
    return mkdir("small", 0777) == 0 && mount("tmpfs", "small", "tmpfs", 0, options) == 0;
}

static void unmount_small(void)
{
    assert_int_equal(umount("small"), 0);
    assert_int_equal(rmdir("small"), 0);
}

/* One capture on a disk of its own: fails or not, then again after the disk has grown. */
static int on_small_disk(const char *options)
{
    if (!mount_small(options)) {
        (void)rmdir("small");
        return -1;
    }
    struct words w = {0};
    capture_words(&w);
    w.word[w.n - 1] = "small/acts.h5";
    int status = run_words(&w, &(struct setting){.err = "err"});
    const char *text = text_of("err");
    if (status != 0 && (status != 4 || !one_line(text)))
        fail_msg("%s: ended with %d: %s", options, status, text);
    if (status) {
        assert_false(is_there("small/acts.h5"));
        assert_false(is_there("small/acts.h5.part.journal.new"));
        assert_int_equal(mount("tmpfs", "small", "tmpfs", MS_REMOUNT, "size=64m,nr_inodes=100"), 0);
        if (is_there("small/acts.h5.part"))
            ADD(&w, "--resume");
        int again = run_words(&w, &(struct setting){.err = "err"});
        if (again)
            fail_msg("%s: with space ended with %d: %s", options, again, text_of("err"));
    }
    same_file("small/acts.h5", want);
    unmount_small();
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
    for (int pages = 1; n_whole < 3 && pages < want_bytes / page + 60;
         pages += pages < want_bytes / page - 3 ? 5 : 1) {
        char options[60];
        snprintf(options, sizeof options, "size=%d", pages * page);
        int status = on_small_disk(options);
        if (status < 0) {
            print_message("no tmpfs can be mounted: %s\n", strerror(errno));
            skip();
        }
        n_full += status == 4;
        n_whole += status == 0;
    }
    print_message("%d disks were too small, %d large enough\n", n_full, n_whole);
    assert_in_range(n_full, 5, 200);
    assert_int_equal(n_whole, 3);
    for (int inodes = 2; inodes < 6;
         inodes++) { /* one is the root; file, journal and its successor need three */
        char options[60];
        snprintf(options, sizeof options, "size=64m,nr_inodes=%d", inodes);
        assert_true(on_small_disk(options) == (inodes < 4 ? 4 : 0));
    }
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* A sanitizer wants to be the first library. */
static void skip_unless_preloading_works(void)
{
#ifdef SANITIZED
    print_message("calls cannot be made to fail: a sanitizer is in the program\n");
    skip();
#endif
}

/* ---- a system that fails ----------------------------------------------------------------------- */

/* Every k-th `call` fails with error, once or from there on. Returns how many places there were. */
static int fail_every(const char *call, int error, bool on)
{
    const char *shim = getenv("SONDE_FAIL_IO");
    char preload[600], named[40], place[40], number[40], what[200];
    assert_non_null(shim);
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", shim);
    snprintf(named, sizeof named, "FAIL_CALL=%s", call);
    snprintf(number, sizeof number, "FAIL_ERRNO=%d", error);
    for (int k = 0;; k++) {
        snprintf(place, sizeof place, "FAIL_AT=%d", k);
        snprintf(what, sizeof what, "%s %d fails %s: %s", call, k, on ? "from there on" : "once",
                 strerror(error));
        const char *const env[] = {
            preload, named, place, number, "FAIL_MARK=mark", on ? "FAIL_ON=1" : "FAIL_OFF=1", NULL};
        int status = capture(NULL, (struct setting){.env = env});
        if (status)
            check_failure(status, what);
        else
            same_file("acts.h5", want);
        bool hit = is_there("mark");
        to_the_end(what);
        if (!hit)
            return k;
    }
}

static void fail_call(const char *call, int error, int at_least)
{
    for (int on = 0; on < 2; on++) {
        int n = fail_every(call, error, on);
        if (n < at_least)
            fail_msg("only %d places at which %s could fail", n, call);
        if (!on)
            print_message("%s: %d places\n", call, n);
    }
}

static void enospc_at_any_write_is_clean(void **state)
{
    (void)state;
    skip_unless_preloading_works();
    fail_call("pwrite", ENOSPC, 40);
}

static void eio_at_any_sync_is_clean(void **state)
{
    (void)state;
    skip_unless_preloading_works();
    fail_call("fsync", EIO, 3);
    fail_call("fdatasync", EIO, 3);
}

static void an_error_at_any_rename_close_or_reservation_is_clean(void **state)
{
    (void)state;
    skip_unless_preloading_works();
    fail_call("rename", EIO, 3);
    fail_call("close", EIO, 3);
    fail_call("fallocate", ENOSPC, 1);
    fail_call("ftruncate", EIO, 1);
}

static void an_error_at_any_open_is_clean(void **state)
{
    (void)state;
    skip_unless_preloading_works();
    fail_call("open", EMFILE, 5);
}

static void interrupted_calls_and_short_writes_are_continued(void **state)
{
    (void)state;
    skip_unless_preloading_works();
    char preload[600];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", getenv("SONDE_FAIL_IO"));
    const char *const env[] = {preload, "FAIL_SHORT=1", NULL};
    int status = capture(NULL, (struct setting){.env = env});
    if (status)
        fail_msg("ended with %d: %s", status, text_of("err"));
    same_file("acts.h5", want);
    clean();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_size_limit_is_exit_4_with_numbers_and_nothing_stays),
        cmocka_unit_test(enospc_at_any_write_is_clean),
        cmocka_unit_test(eio_at_any_sync_is_clean),
        cmocka_unit_test(an_error_at_any_rename_close_or_reservation_is_clean),
        cmocka_unit_test(an_error_at_any_open_is_clean),
        cmocka_unit_test(interrupted_calls_and_short_writes_are_continued),
        cmocka_unit_test(a_full_disk_is_exit_4_and_goes_on_once_there_is_space),
    };
    return cmocka_run_group_tests(tests, set_up, leave_dir);
}
