/* SPDX-License-Identifier: MIT
 * A whole training run: one dictionary or many over one stream of activations, with log, checkpoints and
 * resume.
 *
 * A dictionary's directory holds
 *   cfg.json, sae_weights.safetensors, sparsity.safetensors   SAELens' format, written at the end, cfg.json
 * last run.json      everything needed to repeat the run, and its final figures log.jsonl     a line per
 * logging step, each step once also after kills; no times timing.jsonl  seconds and rows per second
 *   checkpoints/  step-N.safetensors: weights, Adam moments, counters, source position, with a checksum; the
 * last two */
#ifndef SONDE_SAE_TRAIN_RUN_H
#define SONDE_SAE_TRAIN_RUN_H

#include "train.h"

typedef struct sonde_train_job {
    sonde_train_options options; /* through sonde_train_defaults; batch and n_tokens equal in all jobs */
    const char *dir;
} sonde_train_job;

typedef struct sonde_train_run {
    sonde_source *source;
    const sonde_train_job *job;
    size_t n_jobs;
    const sonde_kernels *kernels; /* NULL: the best */
    uint64_t log_every;           /* steps; 0: a five-hundredth of them, at least 1 */
    uint64_t checkpoint_every;    /* steps; 0: by time alone */
    double checkpoint_s;          /* seconds between checkpoints; 0: none but by steps */
    bool resume, overwrite;
    const char *command; /* canonical text for run.json and cfg.json; NULL: none */
} sonde_train_run;

/* How a job came out. */
typedef struct sonde_train_result {
    sonde_step_report last;
    double fvu, l0;      /* of the saved dictionary on training rows */
    uint64_t n_dead;     /* latents that never fired on them */
    uint64_t n_measured; /* how many rows those were */
    uint64_t resumed_at; /* step; 0: from the start */
} sonde_train_result;

/* Train all jobs; result [n_jobs] may be NULL. note: what a resume had to say (a damaged checkpoint), "" if
 * nothing. Errors: SONDE_E_USAGE (a directory that exists, or a resume with other options or data: the field,
 * both values and both hashes are named), SONDE_E_NUMERIC (the last good state is kept as a checkpoint),
 * SONDE_E_STOPPED (saved; resume), SONDE_E_IO, SONDE_E_MEMORY, and what the source returns. */
enum sonde_code sonde_train(const sonde_train_run *run, const sonde_work *work, sonde_train_result *result,
                            char note[400], sonde_err *err);

/* Bytes that training will take: parameters, moments, packs and batch buffers of all jobs, and the windows of
 * a source with this shape. */
uint64_t sonde_train_memory(const sonde_train_job *job, size_t n_jobs, const sonde_source_info *info);

#endif
