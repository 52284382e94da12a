/* SPDX-License-Identifier: MIT
 * sonde train --resume on what others have done to its directory, its options and its data; and rows that
 * cannot be learned from. */
#include <dirent.h>
#include <math.h>
#include <sys/file.h>

#include "train_child.h"

#define NEWEST "sae/checkpoints/step-000000188.safetensors"
#define BEFORE "sae/checkpoints/step-000000150.safetensors"

static const char *const words[] = {"acts.h5", TINY, "--checkpoint-steps", "50", "-o", "sae", NULL};
static const struct training run = {"run", words, one_dir};
static struct wanted want;

static void must(const char *command)
{
    if (system(command))
        fail_msg("%s: fails", command);
}

/* A run without its last file, with its two last checkpoints: as a kill at the end leaves it. */
static void leave_unfinished(void)
{
    must("rm -rf sae && cp -r kept sae && rm sae/cfg.json");
}

static void write_rows(const char *path, uint64_t n, uint64_t d, double scale, uint64_t bad_row, float bad)
{
    sonde_rng r = sonde_rng_seed(n);
    float *x = malloc((n * d + 1) * sizeof *x);
    sonde_err err = {0};
    assert_non_null(x);
    for (uint64_t i = 0; i < n * d; i++)
        x[i] = (float)(scale * (sonde_rng_double(&r) - 0.3));
    if (bad_row < n)
        x[bad_row * d + 1] = bad;
    sonde_tensor t = {.dtype = SONDE_F32, .rank = 2, .dim = {n, d}, .data = x, .n_bytes = n * d * sizeof *x};
    if (sonde_npy_write(path, &t, true, &err))
        fail_msg("%s", err.msg);
    free(x);
}

static int set_up(void **state)
{
    static const char *const other[] = {"acts.h5", TINY, "--checkpoint-steps", "188", "--seed", "1", "-o",
                                        "sae",     NULL};
    static const struct training another = {"another", other, one_dir};
    if (enter_dir(state) || make_training_data() || !make_wanted(&run, &want) ||
        wait_for(start_training(&another, "2", &quietly)) || rename("sae", "another") ||
        wait_for(start_training(&run, "2", &quietly)) || rename("sae", "kept"))
        return -1;
    return 0;
}

/* Hashes of all files below sae. */
static const char *all_hashes(void)
{
    static char text[2][4096];
    static int k;
    k = !k;
    FILE *f = popen("find sae -type f | sort | xargs sha256sum 2>/dev/null", "r");
    assert_non_null(f);
    text[k][fread(text[k], 1, sizeof text[k] - 1, f)] = '\0';
    pclose(f);
    return text[k];
}

static int train(const char *const *w, const char *more, const char *value)
{
    struct words all = {0};
    ADD(&all, "train");
    for (; *w; w++)
        ADD(&all, *w);
    if (more)
        ADD(&all, more);
    if (value)
        ADD(&all, value);
    return run_words(&all, &quietly);
}

static void expect(int got, int status, const char *says)
{
    const char *text = text_of("err");
    if (got != status || (says && !strstr(text, says)) || (status && !one_line(text)))
        fail_msg("ends with %d, should be %d with '%s': %s", got, status, says ? says : "", text);
}

/* ---- damaged checkpoints */

static long size_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (long)st.st_size;
}

static void flip(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    const int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ 1, f);
    fclose(f);
}

static void goes_on_from_the_one_before(const char *what)
{
    const int status = train(words, "--resume", NULL);
    const char *text = text_of("err");
    if (status || !strstr(text, NEWEST) || !strstr(text, "going on from the one before") ||
        !strstr(text, "resumed after step 150 of 188"))
        fail_msg("%s: ends with %d: %s", what, status, text);
    same_training(&run, &want, what);
}

static void a_bit_flipped_anywhere_in_the_newest_checkpoint_costs_one_interval(void **state)
{
    (void)state;
    char what[80];
    leave_unfinished();
    const long n = size_of(NEWEST);
    for (int i = 0; i <= 60; i++) { /* half of them in the header, where names, shapes and options stand */
        const long at = i < 30 ? i * 97 : (n - 1) * (i - 29) / 31;
        snprintf(what, sizeof what, "bit flipped in byte %ld of %ld", at, n);
        leave_unfinished();
        flip(NEWEST, at);
        goes_on_from_the_one_before(what);
    }
}

static void a_checkpoint_cut_short_costs_one_interval(void **state)
{
    (void)state;
    char what[80];
    leave_unfinished();
    const long n = size_of(NEWEST);
    const long cut[] = {0, 1, 7, 8, 9, 500, n / 2, n - 8, n - 1};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        snprintf(what, sizeof what, "cut to %ld of %ld bytes", cut[i], n);
        leave_unfinished();
        assert_int_equal(truncate(NEWEST, cut[i]), 0);
        goes_on_from_the_one_before(what);
    }
}

static void a_checkpoint_of_another_run_is_passed_over(void **state)
{
    (void)state;
    leave_unfinished();
    must("cp another/checkpoints/step-000000188.safetensors " NEWEST);
    goes_on_from_the_one_before("another run's checkpoint");
    assert_non_null(strstr(text_of("err"), "options.seed was 1, now it is 0"));
    leave_unfinished();
    must("cp " BEFORE " " NEWEST); /* an older one under the newest's name */
    goes_on_from_the_one_before("an older checkpoint's copy");
}

static void other_files_among_the_checkpoints_do_no_harm(void **state)
{
    (void)state;
    leave_unfinished();
    must("cd sae/checkpoints && touch step-.safetensors step-99.safetensors step-000000999.safetensors.old "
         "notes "
         "step--00000001.safetensors step-00000000999999999999999999999.safetensors 'step-000000999 "
         ".safetensors' && "
         "mkdir step-000000777.safetensors && ln -s nowhere step-000000778.safetensors");
    assert_int_equal(train(words, "--resume", NULL), 0);
    assert_non_null(strstr(text_of("err"), "resumed after step 188 of 188"));
    same_training(&run, &want, "strangers among the checkpoints");
    assert_true(is_there("sae/checkpoints/notes"));
    assert_true(is_there("sae/checkpoints/step-000000777.safetensors"));
}

static void when_no_checkpoint_is_whole_nothing_is_touched(void **state)
{
    (void)state;
    char before[4096];
    leave_unfinished();
    flip(NEWEST, size_of(NEWEST) / 2);
    assert_int_equal(truncate(BEFORE, 100), 0);
    snprintf(before, sizeof before, "%s", all_hashes());
    expect(train(words, "--resume", NULL), 3, NEWEST ": checksum");
    assert_non_null(strstr(text_of("err"), "no other checkpoint is left, --force begins anew"));
    assert_string_equal(all_hashes(), before);
    assert_int_equal(train(words, "--force", NULL), 0);
    same_training(&run, &want, "--force after that");
}

static void without_a_checkpoint_it_begins_with_the_first_step_and_says_so(void **state)
{
    (void)state;
    leave_unfinished();
    must("rm sae/checkpoints/*");
    assert_int_equal(train(words, "--resume", NULL), 0);
    assert_non_null(strstr(text_of("err"), "there is no checkpoint yet: beginning with the first step"));
    same_training(&run, &want, "without a checkpoint");
}

static void a_damaged_run_json_is_written_again(void **state)
{
    (void)state;
    static const char *const harm[] = {": > sae/run.json", "rm sae/run.json", "echo '{' > sae/run.json",
                                       "echo '[1, 2]' > sae/run.json",
                                       "echo '{\"configuration\": 3}' > sae/run.json"};
    for (size_t i = 0; i < sizeof harm / sizeof *harm; i++) {
        leave_unfinished();
        must(harm[i]);
        expect(train(words, "--resume", NULL), 0, "resumed after step 188");
        same_training(&run, &want, harm[i]);
        leave_unfinished();
        must(harm[i]);
        expect(train(words, "--resume", "--k=4"), 2, "options.k was 3, now it is 4");
    }
}

/* ---- what must stay the same */

static const struct change {
    const char *option, *value, *says;
} changes[] = {
    {"--lr", "0.001", "options.lr was 0.003, now it is 0.001"},
    {"--k", "4", "options.k was 3, now it is 4"},
    {"--seed", "5", "options.seed was 0, now it is 5"},
    {"--arch", "topk", "options.arch was \"batchtopk\", now it is \"topk\""},
    {"--latents", "48", "options.n_latents was 40, now it is 48"},
    {"--batch", "32", "options.batch was 64, now it is 32"},
    {"--tokens", "12001", "options.n_tokens was 12000, now it is 12001"},
    {"--normalize", "standard", "options.normalize was 1, now it is 3"},
    {"--holdout", "0.25", NULL},
    {"--exclude", "norm:2", "data.exclude.max_norm was 0.0, now it is 2.0"},
    {"--window", "512", "data.window_rows was 65536, now it is 512"},
};

static bool has_two_hashes(const char *text)
{
    const char *s = strstr(text, "(configuration ");
    char a[17] = "", b[17] = "";
    return s && sscanf(s, "(configuration %16[0-9a-f], now %16[0-9a-f])", a, b) == 2 && strlen(a) == 16 &&
           strlen(b) == 16 && strcmp(a, b);
}

static void changed_options_are_refused_with_both_values_and_hashes(void **state)
{
    (void)state;
    char before[4096];
    leave_unfinished();
    snprintf(before, sizeof before, "%s", all_hashes());
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct words w = {0};
        bool there = false;
        add_training(&w, &run);
        for (int k = 1; k < w.n; k++)
            if (!strcmp(w.word[k], changes[i].option)) {
                w.word[k + 1] = changes[i].value;
                there = true;
            }
        if (!there)
            ADD(&w, changes[i].option, changes[i].value);
        ADD(&w, "--resume");
        const int status = run_words(&w, &quietly);
        if (status == 0 && !changes[i].says) { /* a store's own marks decide */
            leave_unfinished();
            continue;
        }
        expect(status, 2, changes[i].says);
        if (!has_two_hashes(text_of("err")))
            fail_msg("no hashes: %s", text_of("err"));
        assert_string_equal(all_hashes(), before);
    }
}

static void other_data_are_refused_with_both_hashes(void **state)
{
    (void)state;
    static const char *const more[][3] = {{"--seed", "8", "data."},
                                          {"--rows", "2001", "data.n_rows was 2000, now it is 2001"},
                                          {"--dim", "9", "data.d_in was 8, now it is 9"}};
    for (size_t i = 0; i < 3; i++) {
        const char *make[] = {"--dim", "8", "--rows", "2000", "--seed", "7", NULL};
        struct words w = {0};
        for (int k = 0; k < 6; k += 2)
            if (!strcmp(make[k], more[i][0]))
                make[k + 1] = more[i][1];
        ADD(&w, "synth", "dictionary", "--truth", "16", "--active", "2", "--force", "-o", "other.h5", make[0],
            make[1], make[2], make[3], make[4], make[5]);
        assert_int_equal(run_words(&w, &quietly), 0);
        const char *other[] = {"other.h5", TINY, "-o", "sae", NULL};
        leave_unfinished();
        expect(train(other, "--resume", NULL), 2, more[i][2]);
        assert_true(has_two_hashes(text_of("err")));
    }
    must("cp acts.h5 moved.h5");
    const char *moved[] = {"moved.h5", TINY, "--checkpoint-steps", "50", "-o", "sae", NULL};
    leave_unfinished();
    assert_int_equal(train(moved, "--resume", NULL), 0); /* the name of a file is not what it holds */
}

static void a_grid_must_stay_the_grid(void **state)
{
    (void)state;
    remove_all("sae");
    assert_int_equal(wait_for(start_training(&of_a_grid, "2", &quietly)), 0);
    must("rm sae/*/cfg.json");
    char before[4096];
    snprintf(before, sizeof before, "%s", all_hashes());
    const char *grown[] = {"acts.h5", TINY,      "--checkpoint-steps", "20", "-o", "sae",
                           "--grid",  "k=2,3,4", "seed=0..1",          NULL};
    expect(train(grown, "--resume", NULL), 2, "resume with the grid that was begun");
    assert_string_equal(all_hashes(), before);
    remove_all("sae");
}

/* ---- who may write where */

static void a_finished_run_is_not_resumed_and_not_replaced_unasked(void **state)
{
    (void)state;
    must("rm -rf sae && cp -r kept sae");
    expect(train(words, "--resume", NULL), 2,
           "sae: is finished, there is nothing to resume; --force begins anew");
    expect(train(words, NULL, NULL), 2, "sae: holds a dictionary already; --force replaces it");
    same_training(&run, &want, "a refused resume");
    leave_unfinished();
    expect(train(words, NULL, NULL), 2,
           "sae: holds a run already; --resume goes on with it, --force replaces it");
}

static void resume_needs_a_run(void **state)
{
    (void)state;
    remove_all("sae");
    expect(train(words, "--resume", NULL), 2, "sae: holds no run to resume; start without --resume");
    assert_false(is_there("sae"));
}

static void a_second_run_in_the_directory_is_kept_out(void **state)
{
    (void)state;
    remove_all("sae");
    const pid_t pid = start_training(&run, "2", &(struct setting){.err = "err2"});
    for (const double end = now_s() + 60; !is_there("sae/log.jsonl") && now_s() < end;)
        sleep_s(0.0002);
    kill(pid, SIGSTOP);
    assert_false(is_there("sae/cfg.json"));
    expect(train(words, "--resume", NULL), 4, "sae: another process is training here");
    expect(train(words, "--force", NULL), 4, "sae: another process is training here");
    kill(pid, SIGCONT);
    assert_int_equal(wait_for(pid), 0);
    same_training(&run, &want, "the first of two runs");
}

/* ---- rows that cannot be learned from */

#define ROWS 40000

static const char *const bad_words[] = {
    "bad.npy", "--tokens",           "80000", "--batch", "500", "--window", "1000", "--latents", "16", "--k",
    "2",       "--checkpoint-steps", "1000",  "-o",      "sae", NULL};

static void a_row_of_nan_or_infinity_is_named_and_the_state_before_it_kept(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    int n_late = 0;
    for (int i = 0; i < 12; i++) {
        const uint64_t row = (uint64_t)i * 3001;
        char says[100], first[300];
        write_rows("bad.npy", ROWS, 4, 1, row, bad[i % 3]);
        remove_all("sae");
        snprintf(says, sizeof says, "%s in row %llu, column 1", i % 3 ? "infinity" : "NaN",
                 (unsigned long long)row);
        expect(train(bad_words, NULL, NULL), 6, says);
        assert_null(strstr(text_of("err"), "loss"));
        assert_false(is_there("sae/cfg.json"));
        snprintf(first, sizeof first, "%.290s", text_of("err"));
        if (!strstr(first, "; the state after step "))
            continue;
        n_late++;
        expect(train(bad_words, "--resume", NULL), 6, NULL); /* and again, from there */
        assert_string_equal(strstr(text_of("err"), "; the state"), strstr(first, "; the state"));
    }
    print_message("%d of 12 rows came up after the first step\n", n_late);
    assert_true(n_late > 0);
}

static void what_grows_beyond_all_bounds_ends_naming_step_and_latent(void **state)
{
    (void)state;
    write_rows("bad.npy", 3000, 4, 1e6, UINT64_MAX, 0);
    static const char *const grow[] = {"bad.npy",
                                       TINY,
                                       "--normalize",
                                       "none",
                                       "--decoder",
                                       "free",
                                       "--clip",
                                       "0",
                                       "--loss",
                                       "sum",
                                       "--lr",
                                       "1000",
                                       "--schedule",
                                       "constant",
                                       "--warmup",
                                       "180",
                                       "--checkpoint-steps",
                                       "2",
                                       "-o",
                                       "sae",
                                       NULL};
    remove_all("sae");
    expect(train(grow, NULL, NULL), 6, "sonde train: step ");
    assert_non_null(strstr(text_of("err"), "latent "));
    assert_false(is_there("sae/cfg.json"));
    must("ls sae/checkpoints/*.safetensors >/dev/null"); /* a state in which everything is finite */
    expect(train(grow, "--resume", NULL), 6, "sonde train: step ");
}

static void rows_that_are_none_are_refused(void **state)
{
    (void)state;
    static const char *const few[] = {"bad.npy", TINY, "-o", "sae", NULL};
    remove_all("sae");
    write_rows("bad.npy", 0, 4, 1, UINT64_MAX, 0);
    int status = train(few, NULL, NULL);
    if (status != 2 && status != 3)
        fail_msg("no rows: ends with %d: %s", status, text_of("err"));
    assert_true(one_line(text_of("err")));
    write_rows("bad.npy", 10, 4, 0, UINT64_MAX, 0);
    expect(train(few, NULL, NULL), 6,
           "the first 9 rows are all the same: there is nothing to learn from them");
    write_rows("bad.npy", 10, 4, 1, UINT64_MAX, 0);
    expect(train(few, "--holdout", "0.99"), 2, NULL);
    expect(train(few, "--holdout", "1"), 2, NULL);
    static const char *const hook[] = {"acts.h5", TINY, "--hook", "synthetik", "-o", "sae", NULL};
    expect(train(hook, NULL, NULL), 2, "has no hook 'synthetik'; did you mean 'synthetic'?");
    assert_false(is_there("sae/cfg.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bit_flipped_anywhere_in_the_newest_checkpoint_costs_one_interval),
        cmocka_unit_test(a_checkpoint_cut_short_costs_one_interval),
        cmocka_unit_test(a_checkpoint_of_another_run_is_passed_over),
        cmocka_unit_test(other_files_among_the_checkpoints_do_no_harm),
        cmocka_unit_test(when_no_checkpoint_is_whole_nothing_is_touched),
        cmocka_unit_test(without_a_checkpoint_it_begins_with_the_first_step_and_says_so),
        cmocka_unit_test(a_damaged_run_json_is_written_again),
        cmocka_unit_test(changed_options_are_refused_with_both_values_and_hashes),
        cmocka_unit_test(other_data_are_refused_with_both_hashes),
        cmocka_unit_test(a_grid_must_stay_the_grid),
        cmocka_unit_test(a_finished_run_is_not_resumed_and_not_replaced_unasked),
        cmocka_unit_test(resume_needs_a_run),
        cmocka_unit_test(a_second_run_in_the_directory_is_kept_out),
        cmocka_unit_test(a_row_of_nan_or_infinity_is_named_and_the_state_before_it_kept),
        cmocka_unit_test(what_grows_beyond_all_bounds_ends_naming_step_and_latent),
        cmocka_unit_test(rows_that_are_none_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, leave_dir);
}
