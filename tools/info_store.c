/* SPDX-License-Identifier: MIT
 * Description of an HDF5 file: an activation store of ours, or a stranger's datasets. */
#include <string.h>

#include "file/store.h"
#include "info.h"

#define LONG_TEXT 4096 /* longer attributes are counted, not shown */

static json_t *attr_value(const sonde_store_attr *a)
{
    if (a->is_float)
        return json_real(a->f);
    if (!a->s)
        return json_integer(a->i);
    size_t n = strlen(a->s);
    return n > LONG_TEXT ? json_sprintf("%zu bytes", n) : info_string(a->s, n);
}

static int put_attributes(json_t *out, const sonde_store *s)
{
    json_t *attrs = json_object();
    int bad = 0;
    for (size_t i = 0; i < sonde_store_n_attrs(s); i++) {
        const sonde_store_attr *a = sonde_store_attr_at(s, i);
        if (!strcmp(a->path, "/"))
            bad |= json_object_set_new(attrs, a->name, attr_value(a));
    }
    return bad | json_object_set_new(out, "attributes", attrs);
}

static int put_datasets(json_t *out, const sonde_store *s)
{
    json_t *list = json_array();
    int bad = 0;
    for (size_t i = 0; i < sonde_store_n_datasets(s); i++) {
        const sonde_store_dataset *d = sonde_store_dataset_at(s, i);
        const char *why = sonde_store_unreadable(s, i);
        const sonde_store_attr *saturated = sonde_store_attr_find(s, d->path, "saturated");
        json_t *shape = json_array(), *item;
        for (int k = 0; k < d->rank; k++)
            bad |= json_array_append_new(shape, json_integer((json_int_t)d->dim[k]));
        item = json_pack("{s:o,s:s,s:o}", "path", info_string(d->path, strlen(d->path)), "dtype",
                         sonde_dtype_name(d->dtype), "shape", shape);
        if (saturated)
            bad |= json_object_set_new(item, "saturated", json_integer((json_int_t)saturated->i));
        if (why)
            bad |= json_object_set_new(item, "unreadable", json_string(why));
        bad |= json_array_append_new(list, item);
    }
    return bad | json_object_set_new(out, "datasets", list);
}

static enum sonde_code describe(struct tool *t, const struct info_options *o, const struct info_glance *g,
                                json_t *out, sonde_err *err)
{
    sonde_store *s;
    (void)o;
    enum sonde_code rc = sonde_store_open(g->path, false, t->budget, &s, err);
    if (rc)
        return rc;
    if (put_attributes(out, s) | put_datasets(out, s))
        rc = sonde_fail(err, SONDE_E_MEMORY, "%s: no memory to describe it", g->path);
    sonde_store_close(s);
    return rc;
}

static bool is_hdf5(const struct info_glance *g)
{
    return info_begins(g, "\x89HDF\r\n\x1a\n", 8) || info_has_suffix(g->path, ".h5");
}

const struct info_kind info_hdf5 = {"HDF5", is_hdf5, describe};
