/* SPDX-License-Identifier: MIT
 * A run from inside: its jobs, their directories, logs and checkpoints. */
#ifndef SONDE_SAE_RUN_IMPL_H
#define SONDE_SAE_RUN_IMPL_H

#include <stdio.h>

#include "infer.h"
#include "state_impl.h"
#include "train_run.h"

#define FIT_ROWS 16384 /* normalisation and first biases come from so many rows */

struct job {
    const char *dir;
    char label[64];
    sonde_trainer *trainer;
    char *config;                 /* JSON text that a resume must find equal */
    json_t *config_object;        /* the same, for run.json: jansson's parser aborts where memory fails it */
    bool described;               /* run.json holds this configuration */
    sonde_step_report last, next; /* the last step taken, and the one being tried */
    struct log_sums sums;
    int log_fd, timing_fd, lock_fd;

    struct calibration *calibration;
    sonde_dict *dict; /* when all is done */
    sonde_encoder *encoder;
    sonde_sparse f;
    float *y;                             /* [batch, d_out] reconstructions */
    uint64_t *count;                      /* [F] */
    double error, n_active, *sum, square; /* of the measured rows; sum [d_out] */
    sonde_train_result result;
};

struct run {
    const sonde_train_run *what;
    const sonde_train_options *options; /* batch and tokens are those of all jobs */
    sonde_source *source;
    const sonde_kernels *kernels;
    const sonde_work *work;
    struct job *job;
    size_t n_jobs;
    uint64_t n_steps, n_tokens, step;
    bool resumed; /* from a checkpoint, maybe that of step 0 */
    uint64_t log_every;
    float *x, *y;             /* a batch; y NULL for autoencoders */
    double saved_s, logged_s; /* monotonic seconds */
    uint64_t logged_step;
    const char *phase;
    char note[400];
};

/* Into an object that must be whole to be written; ok turns false when it cannot be. */
static inline void training_put(json_t *o, const char *key, json_t *value, bool *ok)
{
    if (json_object_set_new(o, key, value))
        *ok = false;
}

enum sonde_code training_open(struct run *r, const sonde_train_run *what, const sonde_work *work,
                              sonde_err *err);
void training_close(struct run *r);

/* [n, d] floats within the budget, and back. */
enum sonde_code training_floats(struct run *r, size_t n, size_t d, float **out, sonde_err *err);
void training_floats_free(struct run *r, size_t n, size_t d, float *p);

/* run_config.c: options, data and arithmetic of a run */
enum sonde_code config_make(const struct run *r, struct job *j, const sonde_train_options *o, sonde_err *err);
/* Does run.json, if there is one, hold this configuration? Sets j->described. Errors: SONDE_E_USAGE naming
 * the field, both values and both hashes. */
enum sonde_code config_check(struct job *j, sonde_err *err);

/* run_dir.c: make, check and lock all directories, and clear them if the run begins anew. Errors:
 * SONDE_E_USAGE (what stands there forbids it), SONDE_E_IO (another run holds it) */
enum sonde_code training_take_dirs(struct run *r, sonde_err *err);

/* run_files.c: checkpoints, and what stands in the directories */
enum sonde_code training_resume(struct run *r,
                                sonde_err *err); /* the newest checkpoint that all jobs have, if any */
bool training_is_checkpoint(const char *name, size_t n, uint64_t *step);
size_t training_list_checkpoints(const char *dir, uint64_t *step, size_t max); /* the newest first */
enum sonde_code training_checkpoint(struct run *r, sonde_source_position at, sonde_err *err);
enum sonde_code training_after_step(struct run *r,
                                    sonde_err *err); /* log and checkpoint where it is time; stop */
enum sonde_code training_stop(struct run *r, sonde_source_position at, sonde_err *err);
/* The run ends with this code: keep the state if no job has taken more than r->step steps. */
enum sonde_code training_keep_last_good(struct run *r, sonde_source_position at, enum sonde_code code,
                                        sonde_err *err);
enum sonde_code training_save(struct run *r, struct job *j, sonde_err *err);
enum sonde_code training_describe(const struct run *r, const struct job *j, sonde_err *err); /* run.json */
/* Remove all checkpoints but the `keep` newest of those up to `step`. */
void training_forget_checkpoints(const char *dir, size_t keep, uint64_t step);

/* run_log.c */
double training_seconds(void); /* monotonic */
void log_step(struct job *j);
enum sonde_code log_open(struct run *r, struct job *j, sonde_err *err); /* lines after r->step go */
enum sonde_code log_write(struct run *r, struct job *j, sonde_err *err);
enum sonde_code log_sync(struct job *j, sonde_err *err);

/* run_measure.c: the saved dictionary on training rows */
enum sonde_code measure_begin(struct run *r, struct job *j, sonde_err *err);
enum sonde_code measure_rows(struct run *r, struct job *j, size_t n, sonde_err *err);
void measure_end(struct run *r, struct job *j);

#endif
