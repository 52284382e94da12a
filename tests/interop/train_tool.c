/* SPDX-License-Identifier: MIT
 * Drives training steps for test_train_step.py: train_tool OPTIONS.json IN.safetensors OUT.safetensors.
 *
 * IN: x [steps B, d_in], for transcoders y [steps B, d_out], silent [F] (rows since each latent fired) and
 * the first parameters by name. OUT: grad.NAME of the first step (projected, not clipped), first.NAME and
 * last.NAME, the parameters after one step and after all; loss and norm [steps]. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/json.h"
#include "file/safetensors.h"
#include "sae/trainer_impl.h"

enum { MAX_OUT = 3 * N_PARAMS + 2 };

struct out {
    sonde_tensor tensor[MAX_OUT];
    char name[MAX_OUT][32];
    size_t n;
};

/* A copy of rows x columns floats under PREFIX + NAME. */
static float *keep(struct out *o, const char *prefix, const char *name, const float *x, size_t rows,
                   size_t columns)
{
    const size_t bytes = rows * columns * sizeof *x;
    float *copy = malloc(bytes);
    if (!copy)
        abort();
    memcpy(copy, x, bytes);
    snprintf(o->name[o->n], sizeof o->name[o->n], "%s%s", prefix, name);
    o->tensor[o->n] = (sonde_tensor){.name = o->name[o->n],
                                     .dtype = SONDE_F32,
                                     .rank = 2,
                                     .dim = {rows, columns},
                                     .data = copy,
                                     .n_bytes = bytes};
    o->n++;
    return copy;
}

static void keep_params(struct out *o, const sonde_trainer *t, const char *prefix)
{
    for (int i = 0; i < N_PARAMS; i++)
        if (t->p[i].w)
            keep(o, prefix, t->p[i].name, t->p[i].w, t->p[i].rows, t->p[i].cols);
}

/* Rows of latents without a gradient are not written by the trainer: they are 0. */
static void keep_gradients(struct out *o, const sonde_trainer *t)
{
    for (int i = 0; i < N_PARAMS; i++) {
        const struct param *p = &t->p[i];
        if (!p->w)
            continue;
        float *g = keep(o, "grad.", p->name, p->g, p->rows, p->cols);
        for (size_t r = 0; r < p->rows && i != P_B_DEC && i != P_W_SKIP; r++)
            if (!t->touched[r])
                memset(g + r * p->cols, 0, p->cols * sizeof *g);
    }
}

/* The floats of a tensor that has n of them; NULL where it is missing or has not. */
static float *floats_of(const sonde_tensors *in, const char *name, size_t n)
{
    const sonde_tensor *t = sonde_tensors_find(in, name);
    sonde_err err;
    float *x = t && sonde_tensor_count(t) == n ? malloc(n * sizeof *x) : NULL;
    if (x && sonde_tensor_to_f32(t, 0, n, x, &err)) {
        free(x);
        x = NULL;
    }
    return x;
}

static enum sonde_code fill(sonde_trainer *t, const sonde_tensors *in, sonde_err *err)
{
    for (int i = 0; i < N_PARAMS; i++) {
        struct param *p = &t->p[i];
        if (!p->w)
            continue;
        float *w = floats_of(in, p->name, p->rows * p->cols);
        if (!w)
            return sonde_fail(err, SONDE_E_INPUT, "no %s of %zu by %zu", p->name, p->rows, p->cols);
        memcpy(p->w, w, p->rows * p->cols * sizeof *w);
        free(w);
    }
    float *silent = floats_of(in, "silent", t->F);
    for (size_t i = 0; silent && i < t->F; i++)
        t->silent[i] = (uint64_t)silent[i];
    free(silent);
    trainer_pack(t, NULL);
    return SONDE_OK;
}

static enum sonde_code steps(sonde_trainer *t, const float *x, const float *y, size_t n_steps, struct out *o,
                             sonde_err *err)
{
    const size_t B = (size_t)t->o.batch;
    float *loss = keep(o, "", "loss", x, n_steps, 1), *norm = keep(o, "", "norm", x, n_steps, 1);
    for (size_t s = 0; s < n_steps; s++) {
        sonde_step_report r;
        enum sonde_code rc =
            sonde_trainer_step(t, x + s * B * t->d_in, y ? y + s * B * t->d_out : NULL, B, NULL, &r, err);
        if (rc)
            return rc;
        loss[s] = (float)r.loss;
        norm[s] = (float)r.gradient_norm;
        if (s == 0) {
            keep_gradients(o, t);
            keep_params(o, t, "first.");
        }
    }
    keep_params(o, t, "last.");
    return SONDE_OK;
}

static enum sonde_code run(char **argv, const sonde_tensors *in, struct out *o, sonde_err *err)
{
    sonde_train_options options;
    json_t *json = NULL;
    sonde_trainer *t = NULL;
    const sonde_tensor *tx = sonde_tensors_find(in, "x"), *ty = sonde_tensors_find(in, "y");
    if (!tx || tx->rank != 2 || (ty && ty->rank != 2))
        return sonde_fail(err, SONDE_E_INPUT, "no rows x");
    const size_t rows = (size_t)tx->dim[0], d_in = (size_t)tx->dim[1], d_out = ty ? (size_t)ty->dim[1] : d_in;
    float *x = floats_of(in, "x", rows * d_in), *y = ty ? floats_of(in, "y", rows * d_out) : NULL;
    json_error_t why;
    enum sonde_code rc = SONDE_OK;
    if (!(json = json_load_file(argv[1], 0, &why)))
        rc = sonde_fail(err, SONDE_E_INPUT, "%s: %s", argv[1], why.text);
    if (!rc && !(rc = sonde_train_options_read(json, &options, err)) &&
        !(rc = sonde_train_defaults(&options, d_in, d_out, rows, ty != NULL, err)) &&
        !(rc = sonde_trainer_new(&options, d_in, d_out, ty != NULL, NULL, NULL, &t, err)) &&
        !(rc = fill(t, in, err)))
        rc = steps(t, x, y, rows / (size_t)options.batch, o, err);
    sonde_trainer_free(t);
    json_decref(json);
    free(x);
    free(y);
    return rc;
}

int main(int argc, char **argv)
{
    sonde_err err = {0};
    sonde_tensors *in = NULL;
    static struct out o;
    if (argc != 4)
        return 2;
    enum sonde_code rc = sonde_safetensors_open(argv[2], NULL, &in, &err);
    if (!rc)
        rc = run(argv, in, &o, &err);
    if (!rc)
        rc = sonde_safetensors_write(argv[3], o.tensor, o.n, NULL, 0, true, &err);
    if (rc)
        fprintf(stderr, "train_tool: %s\n", err.msg);
    for (size_t i = 0; i < o.n; i++)
        free((void *)o.tensor[i].data);
    sonde_tensors_close(in);
    return (int)rc;
}
