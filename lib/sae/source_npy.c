/* SPDX-License-Identifier: MIT
 * One array of a .npy file as a source: the header is read through a mapping, rows with pread. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/size.h"
#include "../file/npy.h"
#include "source_impl.h"

static enum sonde_code take_array(sonde_source *s, const sonde_tensors *f, sonde_err *err)
{
    const sonde_tensor *t = &f->tensor[0];
    char shape[100];
    size_t width;
    struct stat st;
    if (t->dtype > SONDE_F64)
        return sonde_fail(err, SONDE_E_INPUT, "%s: is %s; rows are float32, float16, bfloat16 or float64",
                          s->path, t->type_name);
    if (t->rank < 2 || !sonde_nbytes(&width, t->dim + 1, t->rank - 1, 1) || !width)
        return sonde_fail(err, SONDE_E_INPUT, "%s: has shape %s, which is no rows of values", s->path,
                          sonde_shape_text(t->dim, t->rank, shape, sizeof shape));
    s->fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0 || fstat(s->fd, &st))
        return sonde_fail(err, SONDE_E_IO, "%s: %s", s->path, strerror(errno));
    if ((uint64_t)st.st_size != f->map[0]->n_bytes)
        return sonde_fail(err, SONDE_E_IO, "%s: changed while it was opened", s->path);
    s->in = (struct source_side){
        .name = "the array",
        .width = width,
        .dtype = t->dtype,
        .data_offset = (uint64_t)((const unsigned char *)t->data - f->map[0]->data),
    };
    s->out = s->in;
    s->info.n_rows = t->dim[0];
    s->info.d_in = s->info.d_out = width;
    return SONDE_OK;
}

enum sonde_code source_npy_open(sonde_source *s, const char *path, const sonde_source_options *o,
                                sonde_err *err)
{
    sonde_tensors *f = NULL;
    if (o->hook || o->hook_out)
        return sonde_fail(err, SONDE_E_USAGE, "%s: is one array, it has no hook '%.80s'", path,
                          o->hook ? o->hook : o->hook_out);
    enum sonde_code code = sonde_npy_open(path, s->budget, &f, err);
    if (!code)
        code = take_array(s, f, err);
    sonde_tensors_close(f);
    return code;
}
