/* SPDX-License-Identifier: MIT
 * The layout: "\x93NUMPY", version, length of the header, the header (a Python dictionary), data. */
#include "npy.h"

#include <inttypes.h>
#include <string.h>

#include "../base/size.h"
#include "npy_impl.h"
#include "tensors_impl.h"

static const struct npy_type {
    const char *descr;
    enum sonde_dtype dtype;
    size_t size;
} types[] = {
    {"<f4", SONDE_F32, 4},    {"<f2", SONDE_F16, 2},      {"<f8", SONDE_F64, 8}, {"|i1", SONDE_I8, 1},
    {"|u1", SONDE_U8, 1},     {"<i2", SONDE_I16, 2},      {"<u2", SONDE_U16, 2}, {"<i4", SONDE_I32, 4},
    {"<u4", SONDE_U32, 4},    {"<i8", SONDE_I64, 8},      {"<u8", SONDE_U64, 8}, {"|b1", SONDE_BOOL, 1},
    {"<c8", SONDE_OPAQUE, 8}, {"<c16", SONDE_OPAQUE, 16},
};

/* ---- the header: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } ----------------- */

struct cursor {
    const char *p, *end;
};

static void skip_blanks(struct cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r'))
        c->p++;
}

/* The next character that is not blank, if it is ch. */
static bool take(struct cursor *c, char ch)
{
    skip_blanks(c);
    if (c->p == c->end || *c->p != ch)
        return false;
    c->p++;
    return true;
}

static bool take_word(struct cursor *c, const char *word)
{
    size_t n = strlen(word);
    skip_blanks(c);
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, word, n) != 0)
        return false;
    c->p += n;
    return true;
}

/* A quoted string without escapes, into buf of n bytes. */
static bool take_string(struct cursor *c, char *buf, size_t n)
{
    char quote = take(c, '\'') ? '\'' : take(c, '"') ? '"' : '\0';
    if (!quote)
        return false;
    size_t len = 0;
    for (; c->p < c->end && *c->p != quote; c->p++) {
        if (len + 1 >= n || *c->p == '\\' || *c->p < 0x20)
            return false;
        buf[len++] = *c->p;
    }
    buf[len] = '\0';
    return take(c, quote);
}

static bool take_number(struct cursor *c, uint64_t *out)
{
    skip_blanks(c);
    const char *from = c->p;
    size_t x = 0;
    for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
        if (!sonde_mul(&x, x, 10) || !sonde_add(&x, x, (size_t)(*c->p - '0')))
            return false;
    if (c->p == from)
        return false;
    if (c->p < c->end && *c->p == 'L') /* Python 2's long */
        c->p++;
    *out = x;
    return true;
}

/* (), (3,) or (3, 4); *rank counts on past SONDE_MAX_RANK, which the caller refuses. */
static bool take_shape(struct cursor *c, sonde_tensor *t)
{
    if (!take(c, '('))
        return false;
    t->rank = 0;
    bool comma = true;
    while (!take(c, ')')) {
        uint64_t dim;
        if (!comma || !take_number(c, &dim))
            return false;
        if (t->rank < SONDE_MAX_RANK)
            t->dim[t->rank] = dim;
        t->rank++;
        comma = take(c, ',');
    }
    return t->rank != 1 || comma; /* (3) is a number, not a tuple */
}

struct fields {
    char descr[16];
    bool fortran;
    bool has_descr, has_order, has_shape;
};

static bool take_field(struct cursor *c, struct fields *f, sonde_tensor *t)
{
    char key[16];
    if (!take_string(c, key, sizeof key) || !take(c, ':'))
        return false;
    if (strcmp(key, "descr") == 0 && !f->has_descr) {
        f->has_descr = true;
        return take_string(c, f->descr, sizeof f->descr);
    }
    if (strcmp(key, "fortran_order") == 0 && !f->has_order) {
        f->has_order = true;
        f->fortran = take_word(c, "True");
        return f->fortran || take_word(c, "False");
    }
    if (strcmp(key, "shape") == 0 && !f->has_shape) {
        f->has_shape = true;
        return take_shape(c, t);
    }
    return false;
}

static bool take_dictionary(struct cursor *c, struct fields *f, sonde_tensor *t)
{
    if (!take(c, '{'))
        return false;
    bool comma = true;
    while (!take(c, '}')) {
        if (!comma || !take_field(c, f, t))
            return false;
        comma = take(c, ',');
    }
    skip_blanks(c);
    return c->p == c->end && f->has_descr && f->has_order && f->has_shape;
}

/* ---- its meaning ----------------------------------------------------------------------------- */

static const struct npy_type *type_of(const char *descr)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char order = descr[0];
        bool little = order == '<' || order == '=' || (types[i].size == 1 && (order == '|' || order == '>'));
        if (little && strcmp(descr + 1, types[i].descr + 1) == 0)
            return &types[i];
    }
    return NULL;
}

/* Fortran order makes no difference where at most one dimension is more than 1. */
static bool order_matters(const sonde_tensor *t)
{
    int n = 0;
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] == 0)
            return false;
        n += t->dim[i] > 1;
    }
    return n > 1;
}

static enum sonde_code interpret(const struct fields *f, const char *what, sonde_tensor *t, sonde_err *err)
{
    const struct npy_type *type = type_of(f->descr);
    if (!type)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: elements of type '%s' are not read; convert them with "
                          "numpy.ascontiguousarray(x, dtype='<f4')",
                          what, f->descr);
    if (t->rank > SONDE_MAX_RANK)
        return sonde_fail(err, SONDE_E_INPUT, "%s: has %d dimensions, at most %d are read", what, t->rank,
                          SONDE_MAX_RANK);
    if (f->fortran && order_matters(t))
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: is in Fortran order; save numpy.ascontiguousarray(x) instead", what);
    t->dtype = type->dtype;
    t->type_name = type->descr;
    if (!sonde_nbytes(&t->n_bytes, t->dim, t->rank, type->size)) {
        char shape[128];
        return sonde_fail(err, SONDE_E_INPUT, "%s: shape %s has more bytes than this machine can address",
                          what, sonde_shape_text(t->dim, t->rank, shape, sizeof shape));
    }
    return SONDE_OK;
}

enum sonde_code sonde_npy_read_head(const unsigned char *p, size_t n, const char *what, sonde_npy_head *out,
                                    sonde_err *err)
{
    if (n < 10 || memcmp(p, "\x93NUMPY", 6) != 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: not a .npy array", what);
    if (p[6] < 1 || p[6] > 3 || p[7] != 0)
        return sonde_fail(err, SONDE_E_INPUT, "%s: .npy version %d.%d, versions 1.0 to 3.0 are read", what,
                          p[6], p[7]);
    size_t start = p[6] == 1 ? 10 : 12;
    uint32_t n_header = (uint32_t)p[8] | (uint32_t)p[9] << 8;
    if (p[6] > 1 && n >= start)
        n_header |= (uint32_t)p[10] << 16 | (uint32_t)p[11] << 24;
    if (n < start || n_header > SONDE_NPY_MAX_PREFIX - 12 || n_header > n - start)
        return sonde_fail(err, SONDE_E_INPUT,
                          "%s: a header of %" PRIu32 " bytes is cut short or over the limit of %d", what,
                          n_header, SONDE_NPY_MAX_PREFIX - 12);
    sonde_npy_head h = {.shape = {.name = "array"}, .n_prefix = start + n_header};
    struct cursor c = {(const char *)p + start, (const char *)p + h.n_prefix};
    struct fields f = {0};
    if (!take_dictionary(&c, &f, &h.shape))
        return sonde_fail(
            err, SONDE_E_INPUT,
            "%s: the header is not a dictionary of descr, fortran_order and shape of a plain numeric type",
            what);
    enum sonde_code rc = interpret(&f, what, &h.shape, err);
    if (rc == SONDE_OK)
        *out = h;
    return rc;
}

static enum sonde_code read_array(const sonde_map *m, sonde_tensors *f, sonde_err *err)
{
    sonde_npy_head h;
    enum sonde_code rc = sonde_npy_read_head(m->data, m->n_bytes, m->path, &h, err);
    if (rc != SONDE_OK)
        return rc;
    if (m->n_bytes - h.n_prefix != h.shape.n_bytes) {
        char shape[128];
        return sonde_fail(err, SONDE_E_INPUT, "%s: shape %s of %s needs %zu bytes of data, the file has %zu",
                          m->path, sonde_shape_text(h.shape.dim, h.shape.rank, shape, sizeof shape),
                          h.shape.type_name, h.shape.n_bytes, m->n_bytes - h.n_prefix);
    }
    sonde_tensor *t = sonde_arena_get(f->arena, 1, sizeof *t, err);
    if (!t)
        return sonde_err_wrap(err, "%s", m->path);
    *t = h.shape;
    t->data = m->data + h.n_prefix;
    f->tensor = t;
    f->n_tensors = 1;
    return SONDE_OK;
}

enum sonde_code sonde_npy_parse(sonde_map *m, sonde_budget *budget, sonde_tensors **out, sonde_err *err)
{
    sonde_tensors *f = sonde_tensors_new("npy", 1, budget, err);
    enum sonde_code rc = f ? read_array(m, f, err) : SONDE_E_MEMORY;
    return sonde_tensors_finish(f, m, rc, out, err);
}

enum sonde_code sonde_npy_open(const char *path, sonde_budget *budget, sonde_tensors **out, sonde_err *err)
{
    sonde_map *m;
    enum sonde_code rc = sonde_map_open(path, &m, err);
    return rc == SONDE_OK ? sonde_npy_parse(m, budget, out, err) : rc;
}
