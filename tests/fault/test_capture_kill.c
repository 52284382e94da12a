/* SPDX-License-Identifier: MIT
 * sonde capture killed and stopped at any moment: what is there afterwards is whole or can be gone on with,
 * and the end is the same file. */
#include <sched.h>

#include "child.h"

#define N_KILLS 50

static char want[65];  /* sha256 of the uninterrupted file */
static char mean[100]; /* the mean loss that it told */
static double whole_s; /* how long it took */

static void capture_words(struct words *w)
{
    ADD(w, "capture", "--model", golden_model("llama"), "--ids", "ids.npy", "--hook",
        "blocks.*.hook_resid_post", "--hook", "blocks.1.attn.hook_pattern", "--max-seqs", "9", "--dtype",
        "f16", "--shuffle", "rows", "--skip-first", "1", "--loss", "--logits", "3", "--holdout", "0.2",
        "--journal", "60KiB", "--threads", "2", "-o", "acts.h5");
}

static const struct setting quiet = {.err = "err", .out = "out"};

static int capture(const char *more)
{
    struct words w = {0};
    capture_words(&w);
    if (more)
        ADD(&w, more);
    return run_words(&w, &quiet);
}

static void clean(void)
{
    (void)unlink("acts.h5");
    (void)unlink("acts.h5.part");
    (void)unlink("acts.h5.part.journal");
    (void)unlink("acts.h5.part.journal.new");
}

static const char *const ours[] = {"ids.npy", "err", "out", "acts.h5", NULL};
static const char *const ours_left[] = {"ids.npy", "err", "out", "acts.h5.part", "acts.h5.part.journal",
                                        NULL};

static int set_up(void **state)
{
    if (enter_dir(state))
        return -1;
    write_ids("ids.npy", 400, 40, 61);
    for (int i = 0; i < 3; i++) { /* the quickest of three */
        double t = now_s();
        if (capture(NULL)) {
            print_error("%s", text_of("err"));
            return -1;
        }
        t = now_s() - t;
        whole_s = i == 0 || t < whole_s ? t : whole_s;
        hash_of("acts.h5", want);
        snprintf(mean, sizeof mean, "%s", strstr(text_of("err"), "mean loss"));
        clean();
    }
    return 0;
}

/* Begin, or go on with, a capture; kill it after delay_s. Was it still running? */
static bool kill_after(double delay_s, bool resume)
{
    struct words w = {0};
    capture_words(&w);
    if (resume)
        ADD(&w, "--resume");
    pid_t pid = start(&w, &quiet);
    sleep_s(delay_s);
    kill(pid, SIGKILL);
    int status = wait_for(pid);
    if (status != 0 && status != 1000 + SIGKILL)
        fail_msg("ended with %d before it was killed: %s", status, text_of("err"));
    return status != 0;
}

/* To the end, as a user would: --resume where there is something to resume. Returns whether rows were kept.
 */
static bool to_the_end(void)
{
    bool kept = false;
    if (is_there("acts.h5"))
        same_file("acts.h5", want); /* never anything but the whole file under that name */
    if (is_there("acts.h5.part")) {
        int status = capture("--resume");
        if (status)
            fail_msg("--resume ended with %d: %s", status, text_of("err"));
        kept = strstr(text_of("err"), "resumed after") != NULL;
    } else if (!is_there("acts.h5")) {
        assert_int_equal(capture(NULL), 0);
    }
    same_file("acts.h5", want);
    assert_string_equal(strangers_here(ours), "");
    return kept;
}

static void fifty_kills_at_any_moment_end_in_the_same_bytes(void **state)
{
    (void)state;
    sonde_rng r = sonde_rng_seed(50);
    int n_running = 0, n_kept = 0, n_twice = 0, n_tries = 0;
    while (n_running < N_KILLS && n_tries < 4 * N_KILLS) {
        bool running = kill_after(sonde_rng_double(&r) * 1.1 * whole_s, false);
        n_tries++;
        n_running += running;
        if (running && n_tries % 2 && is_there("acts.h5.part"))
            n_twice += kill_after(sonde_rng_double(&r) * whole_s, true);
        n_kept += to_the_end();
        clean();
    }
    print_message(
        "%d kills hit in %d tries, %d of them twice; %d captures went on from rows kept; one takes %.2f s\n",
        n_running, n_tries, n_twice, n_kept, whole_s);
    assert_int_equal(n_running, N_KILLS);
    assert_in_range(n_kept, N_KILLS / 5, 4 * N_KILLS); /* otherwise the kills missed what they are for */
}

/* Begin a capture and wait for its first journal; 0.1 ms more for every earlier try. */
static pid_t start_to_the_journal(int try)
{
    struct words w = {0};
    clean();
    capture_words(&w);
    pid_t pid = start(&w, &quiet);
    for (double end = now_s() + 60;
         !is_there("acts.h5.part.journal") && !is_there("acts.h5") && now_s() < end;)
        sleep_s(0.0005);
    sleep_s(0.0001 * try);
    return pid;
}

/* Leave a capture behind that was killed at its rows: when its journal, which speaks of none at first, has
 * been replaced. */
static void leave_a_part(void)
{
    for (int i = 0; i < 50; i++) {
        struct stat first, st;
        pid_t pid = start_to_the_journal(0);
        if (stat("acts.h5.part.journal", &first) == 0)
            while (stat("acts.h5.part.journal", &st) == 0 && st.st_ino == first.st_ino)
                sleep_s(0.0002);
        kill(pid, SIGKILL);
        (void)wait_for(pid);
        if (is_there("acts.h5.part.journal") && !is_there("acts.h5"))
            return;
    }
    fail_msg("no kill left a journal");
}

/* ---- signals that ask -------------------------------------------------------------------------- */

static void stop_by(int signal_number)
{
    int status = -1;
    for (int i = 0; i < 50 && status != 75; i++) {
        pid_t pid = start_to_the_journal(50 - i);
        kill(pid, signal_number);
        status = wait_for(pid);
        if (status != 0 && status != 75)
            fail_msg("signal %d: ended with %d: %s", signal_number, status, text_of("err"));
    }
    assert_int_equal(status, 75);
    const char *text = text_of("err");
    assert_true(one_line(text));
    assert_non_null(strstr(text, "contexts; --resume continues"));
    assert_false(is_there("acts.h5"));
    assert_string_equal(strangers_here(ours_left), "");
    assert_true(to_the_end());
    clean();
}

static void a_signal_that_asks_stops_with_75_and_resume_gives_the_same_bytes(void **state)
{
    (void)state;
    static const int asks[] = {SIGINT, SIGTERM, SIGUSR1, SIGXCPU, SIGHUP};
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++)
        stop_by(asks[i]);
}

static void a_second_interrupt_ends_it_at_once_and_resume_gives_the_same_bytes(void **state)
{
    (void)state;
    int status = 0;
    for (int i = 0; i < 40 && status != 1000 + SIGINT; i++) {
        pid_t pid = start_to_the_journal(0);
        kill(pid, SIGINT);
        for (int k = 0; k < i; k++)
            sched_yield();
        kill(pid, SIGINT);
        status = wait_for(pid);
        assert_true(status == 1000 + SIGINT || status == 75 || status == 0);
    }
    assert_int_equal(status, 1000 + SIGINT);
    assert_false(is_there("acts.h5"));
    (void)to_the_end();
    clean();
}

static void a_stopped_capture_resumes_with_other_threads_batches_and_kernels(void **state)
{
    (void)state;
    static const char *const how[][4] = {{"--threads", "1", "--batch", "41"},
                                         {"--threads", "3", "--batch", "2000"},
                                         {"--kernel", "plain", "--journal", "1MiB"}};
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
        struct words w = {0};
        leave_a_part();
        capture_words(&w);
        w.n -= 6; /* --journal, --threads and -o anew */
        ADD(&w, "-o", "acts.h5", "--resume", how[i][0], how[i][1], how[i][2], how[i][3]);
        int status = run_words(&w, &quiet);
        if (status)
            fail_msg("%s %s: ended with %d: %s", how[i][0], how[i][1], status, text_of("err"));
        same_file("acts.h5", want);
        assert_non_null(strstr(text_of("err"), "resumed after"));
        assert_non_null(strstr(text_of("err"), mean));
    }
    clean();
}

/* ---- who may go on ----------------------------------------------------------------------------- */

static void refused(const struct words *w, int status, const char *words)
{
    int got = run_words(w, &quiet);
    const char *text = text_of("err");
    if (got != status || !strstr(text, words) || !one_line(text))
        fail_msg("ended with %d, should be %d with '%s': %s", got, status, words, text);
}

static void resuming_with_other_options_is_refused_with_both_values(void **state)
{
    (void)state;
    leave_a_part();
    char before[65];
    hash_of("acts.h5.part", before);
    static const char *const change[][4] = {
        {"--seed", "5", "seed was 0, now it is 5", NULL},
        {"--dtype", "f32", "dtype was 'float16', now it is 'float32'", NULL},
        {"--skip-first", "2", "skip_first was 1, now it is 2", NULL},
        {"--logits", "4", "--logits=3 --loss --max-seqs=9 --seed=0', now it is '",
         "--logits=4 --loss --max-seqs=9 --seed=0'"},
        {"--holdout", "0.25", "holdout was 0.2", "now it is 0.25"},
        {"--context", "20", "context_len was 64, now it is 20", NULL},
        {"--shuffle", "none", "shuffle was 'rows', now it is 'none'", NULL},
    };
    for (size_t i = 0; i < sizeof change / sizeof *change; i++) {
        struct words w = {0};
        capture_words(&w);
        for (int k = 0; k < w.n - 1; k++)
            if (!strcmp(w.word[k], change[i][0])) {
                memmove(w.word + k, w.word + k + 2, sizeof *w.word * (size_t)(w.n - k - 1));
                w.n -= 2;
            }
        ADD(&w, change[i][0], change[i][1], "--resume");
        int got = run_words(&w, &quiet);
        const char *text = text_of("err");
        if (got != 2 || !one_line(text) || !strstr(text, change[i][2]) ||
            (change[i][3] && !strstr(text, change[i][3])))
            fail_msg("%s %s: ended with %d: %s", change[i][0], change[i][1], got, text);
    }
    same_file("acts.h5.part", before);
    (void)to_the_end();
    clean();
}

static void what_a_kill_left_is_not_overwritten_unasked(void **state)
{
    (void)state;
    leave_a_part();
    struct words w = {0};
    capture_words(&w);
    refused(
        &w, 2,
        "acts.h5.part: is left from a run that did not finish; --resume continues it, --force starts again");
    assert_true(is_there("acts.h5.part.journal"));
    assert_int_equal(capture("--force"), 0);
    same_file("acts.h5", want);
    assert_string_equal(strangers_here(ours), "");
    clean();
}

static void resume_without_anything_to_resume_is_refused(void **state)
{
    (void)state;
    struct words w = {0};
    clean();
    capture_words(&w);
    ADD(&w, "--resume");
    refused(&w, 2, "acts.h5.part: is not there, nothing can be resumed");
    assert_string_equal(strangers_here(ours), "");
}

static void a_second_writer_is_kept_out(void **state)
{
    (void)state;
    struct words again = {0};
    pid_t pid = start_to_the_journal(0);
    kill(pid, SIGSTOP);
    assert_false(is_there("acts.h5"));
    capture_words(&again);
    ADD(&again, "--resume");
    refused(&again, 4, "another process is writing it");
    again.word[again.n - 1] = "--force";
    refused(&again, 4, "another process is writing it");
    kill(pid, SIGCONT);
    assert_int_equal(wait_for(pid), 0);
    same_file("acts.h5", want);
    clean();
}

static void a_damaged_journal_is_told_and_costs_one_interval(void **state)
{
    (void)state;
    leave_a_part();
    FILE *f = fopen("acts.h5.part.journal", "r+b");
    assert_non_null(f);
    fseek(f, 100, SEEK_SET);
    int c = fgetc(f);
    fseek(f, 100, SEEK_SET);
    fputc(c ^ 0x10, f);
    fclose(f);
    assert_int_equal(capture("--resume"), 0);
    assert_non_null(strstr(text_of("err"), "acts.h5.part.journal fails its checksum"));
    same_file("acts.h5", want);
    clean();
}

static void a_journal_cut_short_starts_from_the_first_row(void **state)
{
    (void)state;
    leave_a_part();
    assert_int_equal(truncate("acts.h5.part.journal", 30), 0);
    assert_int_equal(capture("--resume"), 0);
    same_file("acts.h5", want);
    leave_a_part();
    assert_int_equal(unlink("acts.h5.part.journal"), 0);
    assert_int_equal(capture("--resume"), 0);
    same_file("acts.h5", want);
    clean();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fifty_kills_at_any_moment_end_in_the_same_bytes),
        cmocka_unit_test(a_signal_that_asks_stops_with_75_and_resume_gives_the_same_bytes),
        cmocka_unit_test(a_second_interrupt_ends_it_at_once_and_resume_gives_the_same_bytes),
        cmocka_unit_test(a_stopped_capture_resumes_with_other_threads_batches_and_kernels),
        cmocka_unit_test(resuming_with_other_options_is_refused_with_both_values),
        cmocka_unit_test(what_a_kill_left_is_not_overwritten_unasked),
        cmocka_unit_test(resume_without_anything_to_resume_is_refused),
        cmocka_unit_test(a_second_writer_is_kept_out),
        cmocka_unit_test(a_damaged_journal_is_told_and_costs_one_interval),
        cmocka_unit_test(a_journal_cut_short_starts_from_the_first_row),
    };
    return cmocka_run_group_tests(tests, set_up, leave_dir);
}
