/* SPDX-License-Identifier: MIT
 * Writing .npy, byte for byte as numpy.save does it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../base/replace.h"
#include "../base/size.h"
#include "npy_impl.h"

static const char *const descr[SONDE_N_DTYPES] = {
    [SONDE_F32] = "<f4", [SONDE_F16] = "<f2", [SONDE_F64] = "<f8", [SONDE_I8] = "|i1",
    [SONDE_U8] = "|u1",  [SONDE_I16] = "<i2", [SONDE_U16] = "<u2", [SONDE_I32] = "<i4",
    [SONDE_U32] = "<u4", [SONDE_I64] = "<i8", [SONDE_U64] = "<u8", [SONDE_BOOL] = "|b1",
};

struct line {
    char *s; /* of SONDE_NPY_HEAD bytes; eight dimensions of 20 digits and the rest take 300 */
    size_t n;
};

static void add(struct line *l, const char *s)
{
    size_t n = strlen(s);
    memcpy(l->s + l->n, s, n);
    l->n += n;
}

static void make_head(struct line *l, const sonde_tensor *t)
{
    size_t n_first = 0;
    add(l, "\x93NUMPY\x01");
    l->n += 3; /* the minor version and the length come here */
    add(l, "{'descr': '");
    add(l, descr[t->dtype]);
    add(l, "', 'fortran_order': False, 'shape': (");
    for (int i = 0; i < t->rank; i++) {
        char digits[24];
        int n = snprintf(digits, sizeof digits, "%" PRIu64, t->dim[i]);
        if (i == 0)
            n_first = (size_t)n;
        add(l, i ? ", " : "");
        add(l, digits);
    }
    add(l, t->rank == 1 ? ",), }" : "), }");
    /* NumPy leaves room for the first dimension to grow in place to 21 digits */
    for (size_t i = n_first; t->rank && i < 21; i++)
        add(l, " ");
    while ((l->n + 1) % 64 != 0)
        add(l, " ");
    add(l, "\n");
    l->s[7] = 0;
    l->s[8] = (char)((l->n - 10) & 0xff);
    l->s[9] = (char)((l->n - 10) >> 8);
}

enum sonde_code sonde_npy_make_head(const char *path, const sonde_tensor *t, char head[SONDE_NPY_HEAD],
                                    size_t *n_head, sonde_err *err)
{
    size_t n_bytes;
    if (!descr[t->dtype])
        return sonde_fail(err, SONDE_E_USAGE, "%s: NumPy has no type for %s", path,
                          sonde_dtype_name(t->dtype));
    if (t->rank < 0 || t->rank > SONDE_MAX_RANK ||
        !sonde_nbytes(&n_bytes, t->dim, t->rank, sonde_dtype_size(t->dtype)) || n_bytes != t->n_bytes)
        return sonde_fail(err, SONDE_E_USAGE, "%s: the array's shape and its %zu bytes do not agree", path,
                          t->n_bytes);
    struct line l = {.s = head};
    make_head(&l, t);
    *n_head = l.n;
    return SONDE_OK;
}

enum sonde_code sonde_npy_write(const char *path, const sonde_tensor *t, bool overwrite, sonde_err *err)
{
    char head[SONDE_NPY_HEAD];
    size_t n_head;
    sonde_replace *r;
    enum sonde_code rc = sonde_npy_make_head(path, t, head, &n_head, err);
    if (rc == SONDE_OK)
        rc = sonde_replace_begin(path, overwrite, &r, err);
    if (rc != SONDE_OK)
        return rc;
    rc = sonde_replace_write(r, head, n_head, err);
    if (rc == SONDE_OK)
        rc = sonde_replace_write(r, t->data, t->n_bytes, err);
    if (rc == SONDE_OK)
        return sonde_replace_commit(r, err);
    sonde_replace_abandon(r);
    return rc;
}
