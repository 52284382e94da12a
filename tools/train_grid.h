/* SPDX-License-Identifier: MIT
 * --grid: from axes like k=4,8,16 and seed=0..4 to one set of training options per point. */
#ifndef SONDE_TOOLS_TRAIN_GRID_H
#define SONDE_TOOLS_TRAIN_GRID_H

#include "sae/train_run.h"

#define GRID_AXES   8
#define GRID_VALUES 64
#define GRID_POINTS 1024

struct grid_axis {
    const char *name;
    char *value[GRID_VALUES];
    size_t n;
};

struct grid {
    struct grid_axis axis[GRID_AXES];
    size_t n_axes, n_points; /* 1 without axes */
};

/* Read one "name=values": a comma-separated list, or whole numbers from..to. Errors: SONDE_E_USAGE (an
 * unknown axis with the near names, an axis given twice, no values). grid begins as zeros with n_points 1. */
enum sonde_code grid_add(struct grid *g, const char *word, sonde_err *err);

/* Put the values of point i into the options; name gets "k4_seed0". The last axis runs fastest. */
enum sonde_code grid_apply(const struct grid *g, size_t i, sonde_train_options *o, char *name, size_t n,
                           sonde_err *err);

void grid_free(struct grid *g);

#endif
