/* SPDX-License-Identifier: MIT
 * Kills, full disks, second writers and damaged journals: a store is whole or it can be resumed to the same
 * bytes.
 *
 * The calls that change files are defined here in front of libc's, so that any of them can be made to fail,
 * to write less, or to be the last one before the power goes. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "file/store.h"

static char dir[64], path[80], part[90], journal[100], synced[90];

/* ---- the seam ---------------------------------------------------------------------------------- */

static enum { NOTHING, FAIL_ONCE, FAIL_ALWAYS, SHORT_WRITES, POWER_CUT } mode;
static int calls, fail_at;

static void copy_file(const char *from, const char *to)
{
    char buf[65536];
    ssize_t n;
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    while (in >= 0 && out >= 0 && (n = read(in, buf, sizeof buf)) > 0)
        if (write(out, buf, (size_t)n) != n)
            break;
    close(in);
    close(out);
}

/* Is this call the one? In POWER_CUT mode it does not return. */
static bool fails(int e)
{
    if (mode == NOTHING || mode == SHORT_WRITES)
        return false;
    calls++;
    if (mode == POWER_CUT && calls == fail_at)
        _exit(77);
    if (mode == POWER_CUT || calls < fail_at || (mode == FAIL_ONCE && calls > fail_at))
        return false;
    errno = e;
    return true;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (fails(ENOSPC))
        return -1;
    if (mode == SHORT_WRITES && n > 1) {
        static int turn;
        if (++turn % 3 == 0) {
            errno = EINTR;
            return -1;
        }
        n = n > 1000 ? n / 2 : 1;
    }
    return syscall(SYS_pwrite64, fd, p, n, at);
}

int fallocate(int fd, int how, off_t at, off_t n)
{
    return fails(ENOSPC) ? -1 : (int)syscall(SYS_fallocate, fd, how, at, n);
}

int ftruncate(int fd, off_t n)
{
    return fails(EIO) ? -1 : (int)syscall(SYS_ftruncate, fd, n);
}

/* What has been synced is what a power cut leaves. */
static int after_sync(int fd, int rc)
{
    char name[200], link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = mode == POWER_CUT && rc == 0 ? readlink(link, name, sizeof name - 1) : -1;
    if (n > 0) {
        name[n] = '\0';
        if (strcmp(name, part) == 0)
            copy_file(part, synced);
    }
    return rc;
}

int fsync(int fd)
{
    return fails(EIO) ? -1 : after_sync(fd, (int)syscall(SYS_fsync, fd));
}

int fdatasync(int fd)
{
    return fails(EIO) ? -1 : after_sync(fd, (int)syscall(SYS_fdatasync, fd));
}

int rename(const char *from, const char *to)
{
    return fails(EIO) ? -1 : (int)syscall(SYS_rename, from, to);
}

int renameat2(int d1, const char *from, int d2, const char *to, unsigned flags)
{
    return fails(EXDEV) ? -1 : (int)syscall(SYS_renameat2, d1, from, d2, to, flags);
}

/* ---- a run like that of capture ---------------------------------------------------------------- */

enum { ROWS = 2400, STEP = 100, JOURNAL_EVERY = 6 };
static const sonde_store_dataset sets[] = {
    {"/acts/blocks.0.hook_resid_post", SONDE_F32, 2, {ROWS, 64}},
    {"/acts/blocks.1.hook_resid_post", SONDE_F16, 2, {ROWS, 192}},
    {"/rows/token", SONDE_I64, 1, {ROWS}},
};
static const sonde_store_attr attrs[] = {
    {.path = "/", .name = "seed", .i = 1},
    {.path = "/", .name = "config_json", .s = "{}"},
    {.path = "/", .name = "learning_rate", .is_float = true, .f = 0.5},
};
static const sonde_store_layout layout = {sets, 3, attrs, 3};
static const sonde_store_attr late[] = {
    {.path = "/acts", .name = "note", .s = "added at the end"},
    {.path = "/acts/blocks.0.hook_resid_post", .name = "saturated", .i = 0},
};

static enum sonde_code write_step(sonde_store_writer *w, uint64_t first, sonde_err *err)
{
    static unsigned char buf[STEP * 384];
    static const size_t bytes[] = {256, 384, 8};
    for (size_t d = 0; d < 3; d++) {
        for (size_t k = 0; k < STEP * bytes[d]; k++)
            buf[k] = (unsigned char)((first + k / bytes[d]) * 0x9e37 >> (k % 7)) ^ (unsigned char)(k * 3 + d);
        enum sonde_code rc = sonde_store_write(w, d, first, STEP, buf, err);
        if (rc)
            return rc;
    }
    return SONDE_OK;
}

/* Create or resume, to the end. */
static enum sonde_code run(bool resume, sonde_err *err)
{
    sonde_store_writer *w;
    uint64_t done = 0;
    void *state = NULL;
    size_t n_state = 0;
    enum sonde_code rc = resume ? sonde_store_resume(path, &layout, &w, &state, &n_state, err)
                                : sonde_store_create(path, &layout, false, &w, err);
    if (rc)
        return rc;
    if (n_state == sizeof done)
        memcpy(&done, state, sizeof done);
    free(state);
    for (uint64_t row = done; row < ROWS && !rc; row += STEP) {
        rc = write_step(w, row, err);
        uint64_t next = row + STEP;
        if (!rc && next / STEP % JOURNAL_EVERY == 0)
            rc = sonde_store_journal(w, &next, sizeof next, err);
    }
    if (rc) {
        sonde_store_abandon(w, true);
        return rc;
    }
    return sonde_store_finish(w, late, 2, err);
}

static unsigned char *reference;
static size_t n_reference;

static unsigned char *slurp(const char *name, size_t *n)
{
    struct stat st;
    int fd = open(name, O_RDONLY);
    if (fd < 0 || fstat(fd, &st))
        fail_msg("%s: %s", name, strerror(errno));
    unsigned char *p = malloc((size_t)st.st_size + 1);
    assert_true(read(fd, p, (size_t)st.st_size) == st.st_size);
    close(fd);
    *n = (size_t)st.st_size;
    return p;
}

static int count_files(void)
{
    char command[128];
    snprintf(command, sizeof command, "ls -A %s | wc -l", dir);
    FILE *f = popen(command, "r");
    int n = -1;
    if (f && fscanf(f, "%d", &n) != 1)
        n = -1;
    pclose(f);
    return n;
}

static void clear(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/*", dir);
    assert_int_equal(system(command), 0);
    mode = NOTHING;
    calls = 0;
}

static bool there(const char *name)
{
    return access(name, F_OK) == 0;
}

/* The result is there, whole, equal to the uninterrupted one, and alone. (Stopped behind the last rename, a
 * journal may be left that speaks of nothing.) */
static void finished(void)
{
    if (!there(part) && there(journal))
        assert_int_equal(unlink(journal), 0);
    size_t n;
    unsigned char *p = slurp(path, &n);
    assert_int_equal(n, n_reference);
    assert_memory_equal(p, reference, n);
    free(p);
    (void)unlink(synced);
    assert_int_equal(count_files(), 1);
}

static void must(enum sonde_code rc, const sonde_err *err)
{
    if (rc)
        fail_msg("code %d: %s", rc, err->msg);
}

static void refused(enum sonde_code want, enum sonde_code rc, const sonde_err *err, const char *words)
{
    if (rc != want || !strstr(err->msg, words))
        fail_msg("code %d, wanted %d with '%s': %s", rc, want, words, rc ? err->msg : "no error");
}

/* Resume if there is something to resume, otherwise start. */
static void go_on(void)
{
    sonde_err err;
    if (there(path) && !there(part))
        return;
    must(run(there(part), &err), &err);
}

static int begin(void **state)
{
    (void)state;
    sonde_err err;
    (void)signal(SIGXFSZ, SIG_IGN);
    /* in memory where there is such a place: these tests sync some thousand times */
    strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/sonde-crash-XXXXXX" : "/tmp/sonde-crash-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/a.h5", dir);
    snprintf(part, sizeof part, "%s.part", path);
    snprintf(journal, sizeof journal, "%s.journal", part);
    snprintf(synced, sizeof synced, "%s.synced", path);
    must(run(false, &err), &err);
    reference = slurp(path, &n_reference);
    return 0;
}

static int end(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    free(reference);
    return system(command);
}

/* ---- kills ------------------------------------------------------------------------------------- */

static void killed_at_random_moments_and_resumed_it_gives_the_same_bytes(void **state)
{
    (void)state;
    sonde_rng rng = sonde_rng_seed(5);
    struct timespec t0, t1;
    clear();
    clock_gettime(CLOCK_MONOTONIC, &t0);
    go_on();
    clock_gettime(CLOCK_MONOTONIC, &t1);
    uint64_t whole_ns = (uint64_t)((t1.tv_sec - t0.tv_sec) * 1000000000 + t1.tv_nsec - t0.tv_nsec);
    clear();
    int kills = 0, ends = 0;
    while (kills < 50) {
        pid_t pid = fork();
        if (pid == 0) {
            sonde_err err;
            enum sonde_code rc = run(there(part), &err);
            if (rc)
                fprintf(stderr, "%s\n", err.msg);
            _exit(rc);
        }
        uint64_t ns = sonde_rng_below(&rng, whole_ns / 2);
        (void)nanosleep(&(struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)}, NULL);
        (void)kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFSIGNALED(status)) {
            kills++;
        } else {
            assert_int_equal(WEXITSTATUS(status), 0);
            finished();
            ends++;
            clear();
        }
        if (there(path) && !there(part)) {
            finished();
            clear();
        }
    }
    go_on();
    finished();
}

static void a_power_cut_after_any_call_loses_only_what_was_not_synced(void **state)
{
    (void)state;
    for (int k = 1;; k++) {
        clear();
        pid_t pid = fork();
        if (pid == 0) {
            sonde_err err;
            mode = POWER_CUT;
            fail_at = k;
            _exit(run(false, &err));
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 0)
            break;
        assert_int_equal(WEXITSTATUS(status), 77);
        if (there(part) && there(synced)) /* writes since the last sync are gone */
            assert_int_equal(rename(synced, part), 0);
        else if (there(part))
            assert_int_equal(truncate(part, 0), 0);
        go_on();
        finished();
    }
}

/* ---- full disks -------------------------------------------------------------------------------- */

static void any_call_that_fails_is_one_line_and_can_be_resumed(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        for (int k = 1;; k++) {
            sonde_err err = {0};
            clear();
            mode = kind ? FAIL_ALWAYS : FAIL_ONCE;
            fail_at = k;
            enum sonde_code rc = run(false, &err);
            bool hit = calls >= fail_at;
            mode = NOTHING;
            if (!hit)
                break;
            if (rc) {
                assert_int_equal(rc, SONDE_E_IO);
                assert_non_null(strstr(err.msg, dir));
                assert_null(strchr(err.msg, '\n'));
            }
            if (rc && there(part) && !there(journal) &&
                !there(path)) /* only a whole one may stay without a journal */
                assert_non_null(strstr(err.msg, "rename"));
            go_on();
            finished();
        }
    }
}

static void short_writes_and_interruptions_change_nothing(void **state)
{
    (void)state;
    sonde_err err;
    clear();
    mode = SHORT_WRITES;
    must(run(false, &err), &err);
    mode = NOTHING;
    finished();
}

static void a_file_size_limit_is_refused_before_the_first_row(void **state)
{
    (void)state;
    sonde_err err;
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    for (rlim_t limit = 0; limit < n_reference; limit += 50000) {
        clear();
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, old.rlim_max}), 0);
        enum sonde_code rc = run(false, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        refused(SONDE_E_IO, rc, &err, "a.h5");
        assert_int_equal(count_files(), 0);
    }
    clear(); /* enough for the rows, not for the attributes at the end */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){n_reference - 100, old.rlim_max}), 0);
    enum sonde_code rc = run(false, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    refused(SONDE_E_IO, rc, &err, "cannot reserve");
    assert_true(there(part) && there(journal));
    go_on();
    finished();
}

/* ---- other writers, other options -------------------------------------------------------------- */

static void a_second_writer_is_refused_until_the_first_is_gone(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store_writer *w, *second;
    void *s = NULL;
    size_t n;
    clear();
    must(sonde_store_create(path, &layout, false, &w, &err), &err);
    refused(SONDE_E_IO, sonde_store_create(path, &layout, false, &second, &err), &err,
            "another process is writing it");
    refused(SONDE_E_IO, sonde_store_create(path, &layout, true, &second, &err), &err,
            "another process is writing it");
    refused(SONDE_E_IO, sonde_store_resume(path, &layout, &second, &s, &n, &err), &err,
            "another process is writing it");
    assert_true(there(part));
    uint64_t zero = 0;
    must(sonde_store_journal(w, &zero, sizeof zero, &err), &err);
    sonde_store_abandon(w, true);
    go_on();
    finished();
}

static void outputs_that_are_there_are_kept_without_force(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store_writer *w;
    char link[100];
    void *s = NULL;
    size_t n;
    clear();
    go_on();
    refused(SONDE_E_USAGE, run(false, &err), &err, "exists already; --force");
    refused(SONDE_E_USAGE, run(true, &err), &err, "nothing can be resumed");
    finished();
    must(sonde_store_create(path, &layout, true, &w, &err), &err);
    uint64_t zero = 0;
    must(sonde_store_journal(w, &zero, sizeof zero, &err), &err);
    sonde_store_abandon(w, true);
    refused(SONDE_E_USAGE, run(false, &err), &err, "exists already");
    must(run(true, &err), &err); /* it was begun with --force */
    finished();

    clear();
    must(sonde_store_create(path, &layout, false, &w, &err), &err);
    must(sonde_store_journal(w, &zero, sizeof zero, &err), &err);
    sonde_store_abandon(w, true);
    refused(SONDE_E_USAGE, run(false, &err), &err, "--resume continues it, --force starts again");
    copy_file(part, path); /* something came in between */
    refused(SONDE_E_USAGE, sonde_store_resume(path, &layout, &w, &s, &n, &err), &err, "exists already");
    assert_true(there(part) && there(journal));

    static const char *const odd[] = {
        "/dev/full", "/dev/null", "/tmp", "/", "", "/tmp/", "/nonexistent-dir/a.h5"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        enum sonde_code rc = sonde_store_create(odd[i], &layout, true, &w, &err);
        assert_true(rc == (i == 6 ? SONDE_E_IO : SONDE_E_USAGE));
    }
    clear();
    assert_int_equal(mkfifo(path, 0600), 0);
    refused(SONDE_E_USAGE, sonde_store_create(path, &layout, true, &w, &err), &err, "not a regular file");
    clear();
    assert_int_equal(mkfifo(part, 0600), 0);
    refused(SONDE_E_USAGE, sonde_store_create(path, &layout, true, &w, &err), &err, "not a regular file");
    clear();
    go_on();
    snprintf(link, sizeof link, "%s/link", dir);
    assert_int_equal(symlink(path, link), 0);
    refused(SONDE_E_USAGE, sonde_store_create(link, &layout, false, &w, &err), &err, "exists already");
    must(sonde_store_create(link, &layout, true, &w, &err), &err); /* the link stays, its file is replaced */
    assert_true(there(part));
    sonde_store_abandon(w, false);
    assert_int_equal(unlink(link), 0);
    finished();
}

static void a_directory_without_permission_is_an_error_of_the_system(void **state)
{
    (void)state;
    clear();
    pid_t pid = fork();
    if (pid == 0) { /* root may write anywhere: become somebody else */
        sonde_err err = {0};
        if (chmod(dir, 0555) || (getuid() == 0 && setuid(65534)))
            _exit(9);
        _exit(run(false, &err) == SONDE_E_IO && strstr(err.msg, "ermission") ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(chmod(dir, 0755), 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(count_files(), 0);
}

static void resuming_with_other_options_names_the_first_difference(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store_writer *w;
    void *s = NULL;
    size_t n;
    uint64_t zero = 0;
    sonde_store_dataset d[4];
    sonde_store_attr a[4];
    clear();
    must(sonde_store_create(path, &layout, false, &w, &err), &err);
    must(sonde_store_journal(w, &zero, sizeof zero, &err), &err);
    sonde_store_abandon(w, true);
    for (int kind = 0; kind < 9; kind++) {
        static const char *const words[] = {"seed was 1, now it is 2",
                                            "config_json was '{}', now it is '{x}'",
                                            "learning_rate was 0.5, now it is 0.25",
                                            "float32 [2400, 64], now it is float32 [2400, 65]",
                                            "float16 [2400, 192], now it is bfloat16 [2400, 192]",
                                            "has no /rows/other",
                                            "has /rows/token",
                                            "has no attribute extra",
                                            "learning_rate of / was 0.5, this run has none"};
        memcpy(d, sets, sizeof sets);
        memcpy(a, attrs, sizeof attrs);
        sonde_store_layout l = {d, 3, a, 3};
        if (kind == 0)
            a[0].i = 2;
        if (kind == 1)
            a[1].s = "{x}";
        if (kind == 2)
            a[2].f = 0.25;
        if (kind == 3)
            d[0].dim[1] = 65;
        if (kind == 4)
            d[1].dtype = SONDE_BF16;
        if (kind == 5)
            d[2].path = "/rows/other";
        if (kind == 6)
            l.n_datasets = 2;
        if (kind == 7)
            a[l.n_attrs++] = (sonde_store_attr){.path = "/", .name = "extra", .i = 1};
        if (kind == 8)
            l.n_attrs = 2;
        refused(SONDE_E_USAGE, sonde_store_resume(path, &l, &w, &s, &n, &err), &err, words[kind]);
    }
    go_on();
    finished();
}

/* ---- damage ------------------------------------------------------------------------------------ */

/* Stop after two records are in the journal; the older says 400 rows, the newer 800. */
static void two_records(void)
{
    sonde_err err;
    sonde_store_writer *w;
    clear();
    must(sonde_store_create(path, &layout, false, &w, &err), &err);
    for (uint64_t row = 0; row < 800; row += STEP) {
        must(write_step(w, row, &err), &err);
        uint64_t next = row + STEP;
        if (next % 400 == 0)
            must(sonde_store_journal(w, &next, sizeof next, &err), &err);
    }
    sonde_store_abandon(w, true);
}

static void spew(const char *name, const void *p, size_t n)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_true(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    close(fd);
}

static void a_damaged_journal_leads_back_to_the_record_before(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store_writer *w;
    size_t n, n_state, n_part;
    two_records();
    unsigned char *j = slurp(journal, &n), *p = slurp(part, &n_part);
    int older = 0, none = 0, newest = 0;
    for (size_t k = 0; k < 2 * n; k += 3) { /* flip a bit, then cut */
        void *s = NULL;
        if (k < n) {
            j[k] ^= (unsigned char)(1u << (k % 8));
            spew(journal, j, n);
            j[k] ^= (unsigned char)(1u << (k % 8));
        } else {
            spew(journal, j, k - n);
        }
        spew(part, p, n_part);
        must(sonde_store_resume(path, &layout, &w, &s, &n_state, &err), &err);
        uint64_t done = 0;
        if (n_state)
            memcpy(&done, s, sizeof done);
        free(s);
        const char *note = sonde_store_resume_note(w);
        newest += done == 800 && !note;
        older += done == 400 && note && strstr(note, "record before");
        none += done == 0 && note && strstr(note, "first row");
        assert_true(done == 800 || note);
        assert_true(done == 0 || done == 400 || done == 800);
        sonde_store_abandon(w, true);
    }
    assert_true(newest > 0 && older > 0 && none > 0);
    spew(part, p, n_part);
    spew(journal, "junk", 4);
    go_on();
    finished();
    free(j);
    free(p);
}

static void a_damaged_part_is_refused_not_resumed(void **state)
{
    (void)state;
    sonde_err err;
    size_t n;
    two_records();
    unsigned char *p = slurp(part, &n);
    spew(part, p, n / 2);
    refused(SONDE_E_INPUT, run(true, &err), &err, "its journal says");
    memset(p, 0, 16);
    spew(part, p, n);
    refused(SONDE_E_INPUT, run(true, &err), &err, "file signature not found");
    assert_true(there(part) && there(journal));
    free(p);
    clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_random_moments_and_resumed_it_gives_the_same_bytes),
        cmocka_unit_test(a_power_cut_after_any_call_loses_only_what_was_not_synced),
        cmocka_unit_test(any_call_that_fails_is_one_line_and_can_be_resumed),
        cmocka_unit_test(short_writes_and_interruptions_change_nothing),
        cmocka_unit_test(a_file_size_limit_is_refused_before_the_first_row),
        cmocka_unit_test(a_second_writer_is_refused_until_the_first_is_gone),
        cmocka_unit_test(outputs_that_are_there_are_kept_without_force),
        cmocka_unit_test(a_directory_without_permission_is_an_error_of_the_system),
        cmocka_unit_test(resuming_with_other_options_names_the_first_difference),
        cmocka_unit_test(a_damaged_journal_leads_back_to_the_record_before),
        cmocka_unit_test(a_damaged_part_is_refused_not_resumed),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
