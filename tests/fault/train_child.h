/* SPDX-License-Identifier: MIT
 * sonde train as a child: three kinds of runs, what each must come to, and the way there after a fault. */
#ifndef TESTS_FAULT_TRAIN_CHILD_H
#define TESTS_FAULT_TRAIN_CHILD_H

#include "child.h"

/* A run writes dir "sae"; a grid its four directories below. */
struct training {
    const char *name;
    const char *const *words;
    const char *const *dir; /* NULL at the end */
};

static const char *const train_files[] = {"sae_weights.safetensors", "sparsity.safetensors", "cfg.json",
                                          "run.json", "log.jsonl"};
#define N_TRAIN_FILES (sizeof train_files / sizeof *train_files)
#define MAX_DIRS      4

/* What an uninterrupted run gave: hashes, and how long it took. */
struct wanted {
    char hash[MAX_DIRS][N_TRAIN_FILES][65];
    double seconds;
};

static const struct setting quietly = {.err = "err", .out = "out"};

static inline const char *path_in(const char *dir, const char *name)
{
    static char path[8][300];
    static int k;
    k = (k + 1) % 8;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

static inline void add_training(struct words *w, const struct training *t)
{
    ADD(w, "train");
    for (const char *const *s = t->words; *s; s++)
        ADD(w, *s);
}

static inline void remove_all(const char *name)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf %s", name);
    assert_int_equal(system(command), 0);
}

static inline bool finished(const struct training *t)
{
    for (const char *const *d = t->dir; *d; d++)
        if (!is_there(path_in(*d, "cfg.json")))
            return false;
    return true;
}

static inline bool begun(const struct training *t)
{
    for (const char *const *d = t->dir; *d; d++)
        if (is_there(path_in(*d, "run.json")) || is_there(path_in(*d, "cfg.json")))
            return true;
    return false;
}

/* As a user goes on: --resume where something was begun. threads: in words. */
static inline pid_t start_training(const struct training *t, const char *threads, const struct setting *s)
{
    struct words w = {0};
    add_training(&w, t);
    ADD(&w, "--threads", threads);
    if (begun(t))
        ADD(&w, "--resume");
    return start(&w, s);
}

static inline void keep_wanted(const struct training *t, struct wanted *want)
{
    for (size_t d = 0; t->dir[d]; d++)
        for (size_t i = 0; i < N_TRAIN_FILES; i++)
            hash_of(path_in(t->dir[d], train_files[i]), want->hash[d][i]);
}

/* An uninterrupted run on two threads; false: it fails. */
static inline bool make_wanted(const struct training *t, struct wanted *want)
{
    remove_all("sae");
    const double begin = now_s();
    const int status = wait_for(start_training(t, "2", &quietly));
    want->seconds = now_s() - begin;
    if (status)
        print_error("%s: ends with %d: %s", t->name, status, text_of("err"));
    else
        keep_wanted(t, want);
    remove_all("sae");
    return status == 0;
}

static inline void no_parts_are_left(const char *what)
{
    char names[500] = "";
    FILE *f = popen("find sae -name '*.part'", "r");
    assert_non_null(f);
    names[fread(names, 1, sizeof names - 1, f)] = '\0';
    pclose(f);
    if (*names)
        fail_msg("%s: leaves %s", what, names);
}

static inline void same_training(const struct training *t, const struct wanted *want, const char *what)
{
    char hex[65];
    for (size_t d = 0; t->dir[d]; d++)
        for (size_t i = 0; i < N_TRAIN_FILES; i++) {
            hash_of(path_in(t->dir[d], train_files[i]), hex);
            if (strcmp(hex, want->hash[d][i]))
                fail_msg("%s: %s/%s is another: sha256 %s, should be %s", what, t->dir[d], train_files[i],
                         hex, want->hash[d][i]);
        }
    no_parts_are_left(what);
}

/* To the end without a fault, and the same bytes. */
static inline void train_to_the_end(const struct training *t, const struct wanted *want, const char *threads,
                                    const char *what)
{
    if (!finished(t)) {
        const int status = wait_for(start_training(t, threads, &quietly));
        if (status)
            fail_msg("%s: then ends with %d: %s", what, status, text_of("err"));
    }
    same_training(t, want, what);
    remove_all("sae");
}

/* ---- the runs: everything that a state holds is in use */

#define TINY_STEPS 188
#define TINY       "--tokens", "12000", "--batch", "64", "--latents", "40", "--k", "3", "--log-every", "3"

static const char *const one_dir[] = {"sae", NULL};
static const char *const grid_dirs[] = {"sae/k2_seed0", "sae/k2_seed1", "sae/k3_seed0", "sae/k3_seed1", NULL};
static const char *const store_words[] = {"acts.h5", TINY, "--dead-window", "300", "--checkpoint-steps",
                                          "9",       "-o", "sae",           NULL};
static const char *const grid_words[] = {"acts.h5", TINY,    "--checkpoint-steps", "20", "-o", "sae",
                                         "--grid",  "k=2,3", "seed=0..1",          NULL};
static const char *model_words[] = {"--model",  "",
                                    "--ids",    "ids.npy",
                                    "--hook",   "blocks.1.hook_resid_post",
                                    TINY,       "--normalize",
                                    "standard", "--checkpoint-steps",
                                    "7",        "-o",
                                    "sae",      NULL};
static const struct training from_store = {"store", store_words, one_dir},
                             from_model = {"model", model_words, one_dir},
                             of_a_grid = {"grid", grid_words, grid_dirs};

/* acts.h5 with rows of 8, ids.npy for a model of 61 tokens. */
static inline int make_training_data(void)
{
    static char model[512];
    struct words w = {0};
    ADD(&w, "synth", "dictionary", "--dim", "8", "--truth", "16", "--active", "2", "--rows", "2000", "--seed",
        "7", "-o", "acts.h5");
    snprintf(model, sizeof model, "%s", golden_model("llama"));
    model_words[1] = model;
    write_ids("ids.npy", 60, 40, 61);
    return run_words(&w, &quietly);
}

#endif
