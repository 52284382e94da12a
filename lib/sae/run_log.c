/* SPDX-License-Identifier: MIT
 * log.jsonl under the names that dashboards expect, and timing.jsonl beside it. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../file/json.h"
#include "../base/replace.h"
#include "../file/map.h"
#include "run_impl.h"

#define WINDOW 1000 /* steps over which firing frequencies are counted */

double training_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void close_window(struct job *j)
{
    sonde_trainer *t = j->trainer;
    const double n = (double)t->c.n_counted;
    uint64_t below_5 = 0, below_6 = 0;
    for (size_t i = 0; i < t->F; i++) {
        below_5 += (double)t->frequency[i] < 1e-5 * n;
        below_6 += (double)t->frequency[i] < 1e-6 * n;
    }
    t->c.below_5 = (double)below_5;
    t->c.below_6 = (double)below_6;
    t->c.n_counted = 0;
    memset(t->frequency, 0, t->F * sizeof *t->frequency);
}

void log_step(struct job *j)
{
    const sonde_step_report *s = &j->last;
    struct log_sums *a = &j->sums;
    a->n++;
    a->loss += s->loss;
    a->recon += s->recon;
    a->fvu += s->fvu;
    a->aux += s->aux;
    a->penalty += s->penalty;
    a->l0 += s->l0;
    a->l1 += s->l1;
    if (s->step % WINDOW == 0)
        close_window(j);
}

static enum sonde_code append(int fd, const char *path, json_t *line, sonde_err *err)
{
    char *text = line ? sonde_json_text(line, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(line);
    if (!text)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory for a line of the log");
    const size_t n = strlen(text);
    text[n] = '\n'; /* in place of the NUL: a line goes out in one piece */
    size_t done = 0;
    while (done < n + 1) {
        const ssize_t k = write(fd, text + done, n + 1 - done);
        if (k < 0 && errno != EINTR)
            break;
        done += k > 0 ? (size_t)k : 0;
    }
    free(text);
    return done == n + 1 ? SONDE_OK : sonde_fail(err, SONDE_E_IO, "%s: %s", path, strerror(errno));
}

static double mean_silence(const sonde_trainer *t)
{
    double sum = 0;
    for (size_t i = 0; i < t->F; i++)
        sum += (double)t->silent[i];
    return sum / (double)t->F / (double)t->o.batch;
}

static json_t *line_of(const struct job *j)
{
    const sonde_trainer *t = j->trainer;
    const sonde_step_report *s = &j->last;
    const struct log_sums *a = &j->sums;
    const double n = (double)a->n;
    bool ok = true;
    json_t *o =
        json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "step", (json_int_t)s->step,
                  "details/n_training_samples", (json_int_t)s->n_tokens, "losses/overall_loss", a->loss / n,
                  "losses/mse_loss", a->recon / n, "metrics/explained_variance", 1 - a->fvu / n,
                  "metrics/fvu", a->fvu / n, "metrics/l0", a->l0 / n, "metrics/l1", a->l1 / n);
    if (t->o.aux_k > 0)
        training_put(o, "losses/auxiliary_reconstruction_loss", json_real(a->aux / n), &ok);
    if (t->o.l1 > 0)
        training_put(o, "losses/l1_loss", json_real(a->penalty / n), &ok);
    if (t->o.l0 > 0)
        training_put(o, "losses/l0_loss", json_real(a->penalty / n), &ok);
    training_put(o, "sparsity/dead_features", json_integer((json_int_t)s->n_dead), &ok);
    training_put(o, "sparsity/mean_passes_since_fired", json_real(mean_silence(t)), &ok);
    if (t->c.below_5 >= 0) {
        training_put(o, "sparsity/below_1e-5", json_integer((json_int_t)t->c.below_5), &ok);
        training_put(o, "sparsity/below_1e-6", json_integer((json_int_t)t->c.below_6), &ok);
    }
    training_put(o, "details/current_learning_rate", json_real(s->lr), &ok);
    training_put(o, "details/current_l1_coefficient",
                 json_real(s->sparsity * (t->o.l1 > 0 ? t->o.l1 : t->o.l0)), &ok);
    training_put(o, "details/current_k", json_integer((json_int_t)s->k), &ok);
    training_put(o, "details/gradient_norm", json_real(s->gradient_norm), &ok);
    if (t->c.threshold >= 0)
        training_put(o, "details/threshold", json_real(t->c.threshold), &ok);
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

enum sonde_code log_write(struct run *r, struct job *j, sonde_err *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/log.jsonl", j->dir);
    if (j->sums.n == 0)
        return SONDE_OK;
    enum sonde_code code = append(j->log_fd, path, line_of(j), err);
    j->sums = (struct log_sums){0};
    if (code)
        return code;
    const double now = training_seconds(), took = now - r->logged_s;
    const double rows = (double)(r->step - r->logged_step) * (double)r->options->batch;
    snprintf(path, sizeof path, "%s/timing.jsonl", j->dir);
    return append(j->timing_fd, path,
                  json_pack("{s:I, s:f, s:f}", "step", (json_int_t)r->step, "seconds", took, "tokens_per_s",
                            took > 0 ? rows / took : 0),
                  err);
}

enum sonde_code log_sync(struct job *j, sonde_err *err)
{
    int rc;
    do
        rc = fsync(j->log_fd);
    while (rc && errno == EINTR);
    return rc ? sonde_fail(err, SONDE_E_IO, "%s/log.jsonl: %s", j->dir, strerror(errno)) : SONDE_OK;
}

/* Bytes of whole lines whose step is at most `step`; lines are ours and begin with {"step":N, */
static size_t kept_bytes(const unsigned char *s, size_t n, uint64_t step)
{
    size_t kept = 0;
    while (kept < n) {
        const unsigned char *end = memchr(s + kept, '\n', n - kept);
        static const char head[] = "{\"step\":";
        if (!end || (size_t)(end - s) - kept < sizeof head || memcmp(s + kept, head, sizeof head - 1))
            break;
        uint64_t at = 0;
        for (const unsigned char *p = s + kept + sizeof head - 1; p < end && *p >= '0' && *p <= '9'; p++)
            at = at * 10 + (uint64_t)(*p - '0');
        if (at > step)
            break;
        kept = (size_t)(end - s) + 1;
    }
    return kept;
}

static enum sonde_code open_kept(const char *dir, const char *name, uint64_t step, int *fd, sonde_err *err)
{
    char path[4096];
    sonde_map *m = NULL;
    enum sonde_code code = SONDE_OK;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (step > 0 && access(path, F_OK) == 0) {
        if ((code = sonde_map_open(path, &m, err)))
            return code;
        code = sonde_file_replace(path, m->data, kept_bytes(m->data, m->n_bytes, step), err);
        sonde_map_close(m);
    } else {
        code = sonde_file_replace(path, "", 0, err);
    }
    if (code)
        return code;
    *fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    return *fd < 0 ? sonde_fail(err, SONDE_E_IO, "%s: %s", path, strerror(errno)) : SONDE_OK;
}

enum sonde_code log_open(struct run *r, struct job *j, sonde_err *err)
{
    enum sonde_code code = open_kept(j->dir, "log.jsonl", r->step, &j->log_fd, err);
    if (!code)
        code = open_kept(j->dir, "timing.jsonl", r->step, &j->timing_fd, err);
    r->logged_s = training_seconds();
    r->logged_step = r->step;
    return code;
}
