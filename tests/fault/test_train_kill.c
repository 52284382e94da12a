/* SPDX-License-Identifier: MIT
 * sonde train killed and stopped at any moment, on changing numbers of threads: resumed to the end it leaves
 * the bytes of an uninterrupted run. */
#include "train_child.h"

#define N_KILLS 20

static const struct training *const all[] = {&from_store, &from_model, &of_a_grid};
static struct wanted want[3];
static const char *const threads[] = {"1", "2", "3"};

static int set_up(void **state)
{
    if (enter_dir(state) || make_training_data())
        return -1;
    for (size_t i = 0; i < 3; i++)
        if (!make_wanted(all[i], &want[i]) || !make_wanted(all[i], &want[i])) /* the second is quicker */
            return -1;
    return 0;
}

/* ---- kill -9 */

/* One life, killed after delay_s. Was it still running? */
static bool live(const struct training *t, const char *n_threads, double delay_s)
{
    const pid_t pid = start_training(t, n_threads, &quietly);
    sleep_s(delay_s);
    kill(pid, SIGKILL);
    const int status = wait_for(pid);
    if (status != 0 && status != 1000 + SIGKILL)
        fail_msg("%s: ends with %d before it is killed: %s", t->name, status, text_of("err"));
    return status != 0;
}

/* Lives of random length until one reaches the end; at most so many that every test ends. */
static int lives(const struct training *t, const struct wanted *w, sonde_rng *r)
{
    int n = 0;
    remove_all("sae");
    while (!finished(t) && n < 60) {
        const double length = sonde_rng_double(r) * (0.8 + 0.1 * n) * w->seconds;
        if (!live(t, threads[sonde_rng_below(r, 3)], length))
            break;
        n++;
    }
    train_to_the_end(t, w, threads[n % 3], t->name);
    return n;
}

static void killed_often(size_t i)
{
    sonde_rng r = sonde_rng_seed(20 + i);
    int n_kills = 0, n_runs = 0;
    for (; n_kills < N_KILLS && n_runs < 40; n_runs++)
        n_kills += lives(all[i], &want[i], &r);
    print_message("%s: %d kills in %d runs, each to the same bytes; one takes %.2f s\n", all[i]->name,
                  n_kills, n_runs, want[i].seconds);
    assert_true(n_kills >= N_KILLS);
}

static void twenty_kills_of_training_from_a_store_end_in_the_same_bytes(void **state)
{
    (void)state;
    killed_often(0);
}

static void twenty_kills_of_training_from_a_model_end_in_the_same_bytes(void **state)
{
    (void)state;
    killed_often(1);
}

static void twenty_kills_of_a_grid_end_in_the_same_bytes(void **state)
{
    (void)state;
    killed_often(2);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* Kill at the k-th call of this name. Was there one? */
static bool killed_at(const struct training *t, const char *call, int k)
{
    char preload[600], named[40], place[40];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", getenv("SONDE_FAIL_IO"));
    snprintf(named, sizeof named, "FAIL_CALL=%s", call);
    snprintf(place, sizeof place, "FAIL_AT=%d", k);
    const char *const env[] = {preload, named, place, "FAIL_KILL=1", NULL};
    const struct setting s = {.env = env, .err = "err", .out = "out"};
    const int status = wait_for(start_training(t, threads[k % 3], &s));
    if (status != 0 && status != 1000 + SIGKILL)
        fail_msg("%s: killed at %s %d it ends with %d: %s", t->name, call, k, status, text_of("err"));
    return status != 0;
}

static void kill_at_every(size_t i, const char *call, int step, int at_least)
{
    char what[100];
    int k = 0;
    for (;; k += step) {
        snprintf(what, sizeof what, "%s, killed at %s %d", all[i]->name, call, k);
        remove_all("sae");
        const bool hit = killed_at(all[i], call, k);
        train_to_the_end(all[i], &want[i], threads[(k + 1) % 3], what);
        if (!hit)
            break;
    }
    print_message("%s: %s has %d places\n", all[i]->name, call, k);
    assert_true(k >= at_least);
}

/* Everything that is kept goes through these calls: the log, checkpoints, and the files at the end. */
static void a_kill_before_any_write_sync_or_rename_ends_in_the_same_bytes(void **state)
{
    (void)state;
#ifdef SANITIZED
    print_message("calls cannot be intercepted: a sanitizer is in the program\n");
    skip();
#endif
    for (size_t i = 0; i < 3; i++) {
        kill_at_every(i, "rename", i == 2 ? 3 : 1, 10);
        kill_at_every(i, "fsync", i == 2 ? 9 : 3, 10);
        kill_at_every(i, "write", i == 2 ? 31 : 7, 10);
        kill_at_every(i, "pwrite", i == 2 ? 9 : 3, 10);
    }
}

/* ---- between the last step and the last file */

/* Leave a run behind that was killed after its last checkpoint, before it was finished. */
static bool leave_at_the_end(const struct training *t, double more_s)
{
    remove_all("sae");
    const char *last = path_in(t->dir[0], "checkpoints/step-000000188.safetensors");
    const pid_t pid = start_training(t, "2", &quietly);
    for (const double end = now_s() + 60;
         !is_there(last) && !is_there(path_in(t->dir[0], "cfg.json")) && now_s() < end;)
        sleep_s(0.0002);
    sleep_s(more_s);
    kill(pid, SIGKILL);
    (void)wait_for(pid);
    return is_there(last) && !finished(t);
}

static void kills_while_thresholds_are_set_and_files_written_end_in_the_same_bytes(void **state)
{
    (void)state;
    int n = 0;
    for (int try = 0; try < 90 && n < 12; try++) {
        const size_t i = (size_t)try % 3;
        if (!leave_at_the_end(all[i], 0.0003 * (try % 10)))
            continue;
        n++;
        train_to_the_end(all[i], &want[i], threads[n % 3], "killed after the last step");
    }
    remove_all("sae");
    print_message("%d kills after the last step\n", n);
    assert_true(n > 0); /* the kills at every write are surer */
}

/* ---- signals that ask */

/* Every architecture, stopped by a signal until it is done. */
static void stop_until_done(const char *arch, const char *const *more, int signal_number)
{
    const char *words[40] = {"acts.h5", "--arch", arch, TINY, "-o", "sae"};
    int n = 3 + 10 + 2, n_stops = 0;
    for (; *more; more++)
        words[n++] = *more;
    const struct training t = {arch, words, one_dir};
    struct wanted w;
    sonde_rng r = sonde_rng_seed((uint64_t)signal_number);
    assert_true(make_wanted(&t, &w));
    for (int life = 0; life < 12 && !finished(&t); life++) {
        struct stat before = {0}, log = {0};
        (void)stat("sae/log.jsonl", &before);
        const pid_t pid = start_training(&t, threads[life % 3], &quietly);
        for (const double end = now_s() + 60; now_s() < end && !finished(&t); sleep_s(0.0002))
            if (stat("sae/log.jsonl", &log) == 0 && log.st_ino != before.st_ino)
                break; /* the log is this life's: signals are handled */
        sleep_s(0.1 * sonde_rng_double(&r) * w.seconds);
        kill(pid, signal_number);
        const int status = wait_for(pid);
        const char *text = text_of("err");
        if (status != 0 && status != 75)
            fail_msg("%s: signal %d: ends with %d: %s", arch, signal_number, status, text);
        if (status == 75 && (!strstr(text, "sonde train: stopped ") || !strstr(text, "--resume")))
            fail_msg("%s: stopped without a word about it: %s", arch, text);
        n_stops += status == 75;
    }
    train_to_the_end(&t, &w, "2", arch);
    print_message("%s: %d stops\n", arch, n_stops);
    assert_true(n_stops > 0);
}

#define MORE(...)                                                                                            \
    (const char *const[])                                                                                    \
    {                                                                                                        \
        __VA_ARGS__, NULL                                                                                    \
    }

static void every_architecture_stopped_and_resumed_gives_the_same_bytes(void **state)
{
    (void)state;
    stop_until_done("batchtopk", MORE("--k-start", "8", "--k-anneal", "40"), SIGTERM);
    stop_until_done("topk", MORE("--dead-window", "200"), SIGINT);
    stop_until_done("matryoshka", MORE("--widths", "8,20,40"), SIGHUP);
    stop_until_done("jumprelu", MORE("--pre-act", "0.001", "--dead-window", "500"), SIGUSR1);
    stop_until_done("relu", MORE("--l1-coef", "0.1", "--sparsity-warmup", "50"), SIGXCPU);
    stop_until_done("relu-2023",
                    MORE("--resample-every", "1000", "--resample-times", "4", "--dead-window", "500"),
                    SIGTERM);
    stop_until_done("gated", MORE("--normalize", "constant"), SIGTERM);
}

static void every_architecture_gives_the_same_bytes_on_one_two_and_three_threads(void **state)
{
    (void)state;
    static const char *const arch[] = {"batchtopk", "topk",      "matryoshka", "jumprelu",
                                       "relu",      "relu-2023", "gated"};
    struct wanted w = {0};
    for (size_t i = 0; i < sizeof arch / sizeof *arch; i++)
        for (int checkpoints = 0; checkpoints < 2; checkpoints++) {
            const char *words[] = {"acts.h5",       "--arch", arch[i], TINY, "-o", "sae",
                                   "--dead-window", "300",    NULL,    "5",  NULL};
            const struct training t = {arch[i], words, one_dir};
            if (checkpoints == 0 && !make_wanted(&t, &w))
                fail();
            words[3 + 10 + 4] = checkpoints ? "--checkpoint-steps" : NULL;
            train_to_the_end(&t, &w, checkpoints ? "1" : "3", arch[i]);
        }
}

/* ---- the log */

static void the_log_has_each_step_once_after_kills(void **state)
{
    (void)state;
    sonde_rng r = sonde_rng_seed(5);
    remove_all("sae");
    for (int i = 0; i < 6 && !finished(&from_store); i++)
        (void)live(&from_store, threads[i % 3], sonde_rng_double(&r) * want[0].seconds);
    if (!finished(&from_store))
        assert_int_equal(wait_for(start_training(&from_store, "1", &quietly)), 0);
    FILE *f = fopen("sae/log.jsonl", "r");
    char line[4096];
    long before = 0, step;
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        assert_int_equal(sscanf(line, "{\"step\":%ld,", &step), 1);
        assert_int_equal(step, before + 3 <= TINY_STEPS ? before + 3 : TINY_STEPS);
        before = step;
    }
    fclose(f);
    assert_int_equal(before, TINY_STEPS);
    remove_all("sae");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_architecture_gives_the_same_bytes_on_one_two_and_three_threads),
        cmocka_unit_test(twenty_kills_of_training_from_a_store_end_in_the_same_bytes),
        cmocka_unit_test(twenty_kills_of_training_from_a_model_end_in_the_same_bytes),
        cmocka_unit_test(twenty_kills_of_a_grid_end_in_the_same_bytes),
        cmocka_unit_test(a_kill_before_any_write_sync_or_rename_ends_in_the_same_bytes),
        cmocka_unit_test(kills_while_thresholds_are_set_and_files_written_end_in_the_same_bytes),
        cmocka_unit_test(every_architecture_stopped_and_resumed_gives_the_same_bytes),
        cmocka_unit_test(the_log_has_each_step_once_after_kills),
    };
    return cmocka_run_group_tests(tests, set_up, leave_dir);
}
