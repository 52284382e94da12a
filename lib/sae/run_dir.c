/* SPDX-License-Identifier: MIT
 * The directories of a run: whose they are, and what an earlier run left in them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run_impl.h"

/* cfg.json goes first, so that a half-removed directory is none. */
static const char *const results[] = {
    "cfg.json", "sae_weights.safetensors", "sparsity.safetensors", "run.json", "log.jsonl", "timing.jsonl"};
#define N_RESULTS (sizeof results / sizeof *results)

static enum sonde_code make_dir(const char *path, sonde_err *err)
{
    struct stat st;
    if (mkdir(path, 0777) == 0)
        return SONDE_OK;
    if (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return SONDE_OK;
    return sonde_fail(err, SONDE_E_IO, "%s: %s", path,
                      errno == EEXIST ? "exists and is not a directory" : strerror(errno));
}

static bool exists(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void remove_results(const char *dir)
{
    char path[4096];
    for (size_t i = 0; i < N_RESULTS; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, results[i]);
        unlink(path);
    }
    training_forget_checkpoints(dir, 0, UINT64_MAX);
}

/* Is it NAME.0123456789abcdef.part, left by a process that was killed while it wrote one of our files? */
static bool is_part_of_ours(const char *name)
{
    const size_t n = strlen(name), tail = sizeof ".0123456789abcdef.part" - 1;
    uint64_t step;
    if (n <= tail || strcmp(name + n - 5, ".part") || name[n - tail] != '.' ||
        strspn(name + n - tail + 1, "0123456789abcdef") != 16)
        return false;
    for (size_t i = 0; i < N_RESULTS; i++)
        if (n - tail == strlen(results[i]) && !memcmp(name, results[i], n - tail))
            return true;
    return training_is_checkpoint(name, n - tail, &step);
}

static void remove_parts(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));)
        if (is_part_of_ours(e->d_name))
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}

/* May this run use the directories as they are? */
static enum sonde_code check_dirs(const struct run *r, sonde_err *err)
{
    size_t n_finished = 0, n_begun = 0;
    uint64_t step;
    for (size_t j = 0; j < r->n_jobs; j++) {
        const char *dir = r->job[j].dir;
        bool begun = false;
        for (size_t i = 0; i < N_RESULTS && !begun; i++)
            begun = exists(dir, results[i]);
        begun = begun || training_list_checkpoints(dir, &step, 1);
        if (begun && !r->what->resume && !r->what->overwrite)
            return sonde_fail(err, SONDE_E_USAGE,
                              exists(dir, "cfg.json")
                                  ? "%s: holds a dictionary already; --force replaces it"
                                  : "%s: holds a run already; --resume goes on with it, --force replaces it",
                              dir);
        n_begun += begun;
        n_finished += exists(dir, "cfg.json");
    }
    if (r->what->resume && n_finished == r->n_jobs)
        return sonde_fail(err, SONDE_E_USAGE,
                          "%s: is finished, there is nothing to resume; --force begins anew", r->job[0].dir);
    if (r->what->resume && n_begun == 0)
        return sonde_fail(err, SONDE_E_USAGE, "%s: holds no run to resume; start without --resume",
                          r->job[0].dir);
    return SONDE_OK;
}

static enum sonde_code lock(struct job *j, sonde_err *err)
{
    char path[4096];
    enum sonde_code code;
    snprintf(path, sizeof path, "%s/checkpoints", j->dir);
    if ((code = make_dir(j->dir, err)) || (code = make_dir(path, err)))
        return code;
    if ((j->lock_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return sonde_fail(err, SONDE_E_IO, "%s: %s", path, strerror(errno));
    if (flock(j->lock_fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return sonde_fail(err, SONDE_E_IO, "%s: another process is training here", j->dir);
    remove_parts(path);
    remove_parts(j->dir);
    return SONDE_OK;
}

/* Nothing is removed before every directory is ours and every configuration has passed. */
enum sonde_code training_take_dirs(struct run *r, sonde_err *err)
{
    enum sonde_code code = SONDE_OK;
    for (size_t j = 0; j < r->n_jobs; j++)
        if (strlen(r->job[j].dir) > 3900)
            return sonde_fail(err, SONDE_E_USAGE, "%.60s...: the name is too long", r->job[j].dir);
    code = check_dirs(r, err);
    for (size_t j = 0; j < r->n_jobs && !code; j++)
        code = lock(&r->job[j], err);
    if (!code)
        code = check_dirs(r, err); /* another run may have ended here in between */
    for (size_t j = 0; j < r->n_jobs && !code && r->what->resume; j++)
        code = config_check(&r->job[j], err);
    for (size_t j = 0; j < r->n_jobs && !code && !r->what->resume; j++)
        remove_results(r->job[j].dir);
    return code;
}
