/* SPDX-License-Identifier: MIT
 * Descriptions of NumPy files. */
#include "file/npy.h"
#include "info.h"

static enum sonde_code describe_npy(struct tool *t, const struct info_options *o, const struct info_glance *g,
                                    json_t *out, sonde_err *err)
{
    sonde_tensors *f;
    enum sonde_code rc = sonde_npy_open(g->path, t->budget, &f, err);
    return rc ? rc : info_describe_tensors(o, g, f, out, err);
}

static enum sonde_code describe_npz(struct tool *t, const struct info_options *o, const struct info_glance *g,
                                    json_t *out, sonde_err *err)
{
    sonde_tensors *f;
    enum sonde_code rc = sonde_npz_open(g->path, t->budget, &f, err);
    return rc ? rc : info_describe_tensors(o, g, f, out, err);
}

static bool is_npy(const struct info_glance *g)
{
    return info_begins(g, "\x93NUMPY", 6) || info_has_suffix(g->path, ".npy");
}

static bool is_npz(const struct info_glance *g)
{
    return info_has_suffix(g->path, ".npz");
}

const struct info_kind info_npy = {"npy", is_npy, describe_npy};
const struct info_kind info_npz = {"npz", is_npz, describe_npz};
