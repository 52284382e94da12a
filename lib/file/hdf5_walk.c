/* SPDX-License-Identifier: MIT
 * The child's job of reading the structure of a stranger's file.
 *
 * Only hard links are followed, and those by address, each group once: no name in the file is ever resolved,
 * so soft and external links, mounts and loops lead nowhere. Of datasets only the description is read (and
 * the data of compact ones, which lie in the header); filters, external files and virtual sources are never
 * touched. */
#include "hdf5_image_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OBJECTS    65536
#define MAX_NAME_BYTES ((size_t)16 << 20) /* of all paths */
#define MAX_TEXT_BYTES ((size_t)16 << 20) /* of all string attributes */
#define MAX_COMPACT    65536

struct group {
    char *path; /* "" for the root */
    haddr_t addr;
};

struct walk {
    sonde_h5_image *image;
    hid_t file;
    sonde_h5_reply *reply;
    sonde_err *err;
    enum sonde_code code; /* what stopped it */
    struct group *queue;  /* groups found, in order; [0, at) are done */
    size_t n_queue, room, at;
    size_t *seen; /* hash set over the queue's addresses: index + 1, 0 empty; 2 * MAX_OBJECTS slots */
    size_t n_objects, name_bytes, text_bytes;
    unsigned char *compact; /* MAX_COMPACT bytes */
    const char *path;       /* of the object whose attributes are read */
};

static enum sonde_code stop(struct walk *w, const char *what, const char *where)
{
    return w->code = sonde_fail(w->err, SONDE_E_INPUT, "%.60s%s: %s", where[0] ? where : "/",
                                strlen(where) > 60 ? "..." : "", what);
}

/* The same with what HDF5 said. */
static enum sonde_code stop_h5(struct walk *w, const char *what, const char *where)
{
    char text[200];
    if (w->image->words[0])
        snprintf(text, sizeof text, "%s (%s)", what, w->image->words);
    else
        snprintf(text, sizeof text, "%s (perhaps of a later format than HDF5 %d.%d.%d knows)", what,
                 H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE);
    return stop(w, text, where);
}

/* ---- types and layouts ------------------------------------------------------------------------- */

static enum sonde_dtype dtype_of(hid_t type)
{
    static const enum sonde_dtype known[] = {SONDE_F32, SONDE_F16, SONDE_F64, SONDE_I8,  SONDE_U8, SONDE_I16,
                                             SONDE_U16, SONDE_I32, SONDE_U32, SONDE_I64, SONDE_U64};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        hid_t t = sonde_h5_type(known[i]);
        htri_t same = t < 0 ? -1 : H5Tequal(type, t);
        H5Tclose(t);
        if (same > 0)
            return known[i];
    }
    if (H5Tget_class(type) == H5T_ENUM && H5Tget_size(type) == 1)
        return SONDE_BOOL; /* what h5py makes of numpy.bool_ */
    return SONDE_OPAQUE;
}

static void type_note(hid_t type, char *note, size_t n)
{
    static const char *const names[] = {"integer",  "float",           "time",     "string",
                                        "bitfield", "opaque",          "compound", "reference",
                                        "enum",     "variable-length", "array"};
    H5T_class_t c = H5Tget_class(type);
    const char *order = "";
    if ((c == H5T_INTEGER || c == H5T_FLOAT) && H5Tget_order(type) == H5T_ORDER_BE)
        order = "big-endian ";
    snprintf(note, n, "%s%s of %zu bytes", order, c >= 0 && c < H5T_NCLASSES ? names[c] : "unknown type",
             H5Tget_size(type));
}

/* "chunked, deflate" */
static void filter_note(hid_t create, char *note, size_t n)
{
    int filters = H5Pget_nfilters(create);
    size_t at = (size_t)snprintf(note, n, "chunked");
    for (unsigned i = 0; filters > 0 && i < (unsigned)filters && i < 8 && at < n; i++) {
        char name[32] = "";
        unsigned flags, config;
        size_t n_values = 0;
        H5Z_filter_t id = H5Pget_filter2(create, i, &flags, &n_values, NULL, sizeof name, name, &config);
        name[sizeof name - 1] = '\0';
        at += (size_t)(name[0] ? snprintf(note + at, n - at, ", %s", name)
                               : snprintf(note + at, n - at, ", filter %d", (int)id));
    }
}

static enum sonde_h5_kind kind_of(hid_t create, char *note, size_t n)
{
    if (H5Pget_external_count(create) != 0) {
        snprintf(note, n, "in an external file");
        return SONDE_H5_REFUSED;
    }
    switch (H5Pget_layout(create)) {
    case H5D_CONTIGUOUS:
        return SONDE_H5_CONTIGUOUS;
    case H5D_COMPACT:
        return SONDE_H5_COMPACT;
    case H5D_CHUNKED:
        filter_note(create, note, n);
        return SONDE_H5_CHUNKED;
    case H5D_VIRTUAL:
        snprintf(note, n, "a virtual dataset, put together from other files");
        return SONDE_H5_REFUSED;
    default:
        snprintf(note, n, "in an unknown layout");
        return SONDE_H5_REFUSED;
    }
}

/* ---- what is sent ------------------------------------------------------------------------------ */

struct found {
    enum sonde_h5_kind kind;
    enum sonde_dtype dtype;
    int rank;
    hsize_t dim[H5S_MAX_RANK];
    uint64_t offset, n_bytes;
    char note[160];
    const void *compact;
};

static bool put_dataset(struct walk *w, const char *path, struct found *f)
{
    for (char *c = f->note; *c; c++) /* names of filters come from the file */
        *c = *c < 0x20 || *c == 0x7f ? '?' : *c;
    if (++w->n_objects > MAX_OBJECTS)
        return stop(w, "more than 65536 objects", path), false;
    w->name_bytes += strlen(path);
    if (w->name_bytes > MAX_NAME_BYTES)
        return stop(w, "more than 16 MiB of names", path), false;
    sonde_h5_put_u64(w->reply, 'D');
    sonde_h5_put_text(w->reply, path);
    sonde_h5_put_u64(w->reply, f->kind);
    sonde_h5_put_u64(w->reply, f->dtype);
    sonde_h5_put_u64(w->reply, (uint64_t)f->rank);
    for (int i = 0; i < f->rank; i++)
        sonde_h5_put_u64(w->reply, f->dim[i]);
    sonde_h5_put_u64(w->reply, f->offset);
    sonde_h5_put_u64(w->reply, f->n_bytes);
    sonde_h5_put_text(w->reply, f->note);
    sonde_h5_put_bytes(w->reply, f->compact ? f->compact : "", f->compact ? (size_t)f->n_bytes : 0);
    return true;
}

/* An object that HDF5 cannot open or describe, because it is damaged or of a later format: the others can be
 * read still. */
static bool put_broken(struct walk *w, const char *path)
{
    struct found f = {.kind = SONDE_H5_REFUSED, .dtype = SONDE_OPAQUE};
    snprintf(f.note, sizeof f.note, "damaged, or of a later format than HDF5 %d.%d.%d knows%s%.80s",
             H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE, w->image->words[0] ? ": " : "", w->image->words);
    return put_dataset(w, path, &f);
}

/* Shape, and a kind that says whether it can be read at all. */
static bool describe(hid_t set, hid_t type, hid_t create, struct found *f)
{
    f->kind = kind_of(create, f->note, sizeof f->note);
    f->dtype = dtype_of(type);
    if (f->dtype == SONDE_OPAQUE && f->kind != SONDE_H5_REFUSED) {
        type_note(type, f->note, sizeof f->note);
        f->kind = SONDE_H5_REFUSED;
    }
    if (H5Pget_layout(create) == H5D_VIRTUAL) /* asking for the shape would look for its sources */
        return true;
    hid_t space = H5Dget_space(set);
    H5S_class_t c = space < 0 ? H5S_NO_CLASS : H5Sget_simple_extent_type(space);
    f->rank = c == H5S_SIMPLE ? H5Sget_simple_extent_ndims(space) : 0;
    if (f->rank > SONDE_MAX_RANK || c == H5S_NULL) {
        snprintf(f->note, sizeof f->note, c == H5S_NULL ? "empty" : "of rank %d", f->rank);
        f->kind = SONDE_H5_REFUSED;
        f->rank = 0;
    } else if (f->rank > 0) {
        f->rank = H5Sget_simple_extent_dims(space, f->dim, NULL);
    }
    if (space >= 0)
        H5Sclose(space);
    return f->rank >= 0 && (c == H5S_SIMPLE || c == H5S_SCALAR || c == H5S_NULL);
}

static bool read_compact(hid_t set, hid_t type, struct found *f, unsigned char *buffer)
{
    uint64_t n = H5Tget_size(type);
    for (int i = 0; i < f->rank; i++)
        if (__builtin_mul_overflow(n, (uint64_t)f->dim[i], &n))
            return false;
    if (n > MAX_COMPACT || n != f->n_bytes)
        return false;
    f->compact = buffer;
    return n == 0 || H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, buffer) >= 0;
}

static bool visit_dataset(struct walk *w, hid_t set, const char *path)
{
    struct found f = {.kind = SONDE_H5_REFUSED, .dtype = SONDE_OPAQUE};
    hid_t type = H5Dget_type(set), create = H5Dget_create_plist(set);
    bool ok = type >= 0 && create >= 0 && describe(set, type, create, &f);
    if (ok && f.kind != SONDE_H5_REFUSED)
        f.n_bytes = H5Dget_storage_size(set);
    bool empty = false;
    for (int i = 0; i < f.rank; i++)
        empty |= f.dim[i] == 0;
    if (ok && f.kind == SONDE_H5_CONTIGUOUS && !empty) {
        f.offset = H5Dget_offset(set);
        if (f.offset == HADDR_UNDEF) { /* space is given when it is first written */
            f.kind = SONDE_H5_REFUSED;
            f.offset = f.n_bytes = 0;
            snprintf(f.note, sizeof f.note, "never written");
        }
    }
    if (ok && f.kind == SONDE_H5_COMPACT)
        ok = read_compact(set, type, &f, w->compact);
    if (type >= 0)
        H5Tclose(type);
    if (create >= 0)
        H5Pclose(create);
    if (!ok)
        return put_broken(w, path);
    return put_dataset(w, path, &f);
}

/* ---- attributes -------------------------------------------------------------------------------- */

enum { IS_INT = 0, IS_FLOAT = 1, IS_TEXT = 2 };

static bool put_text_attr(struct walk *w, hid_t attr, hid_t type, const char *name)
{
    bool variable = H5Tis_variable_str(type) > 0;
    size_t size = H5Tget_size(type);
    char *text = NULL, *own = NULL;
    if (!variable) {
        if (size > MAX_TEXT_BYTES || !(own = calloc(size + 1, 1)) || H5Aread(attr, type, own) < 0)
            return free(own), false;
        text = own;
        size_t n = strlen(text);
        if (H5Tget_strpad(type) == H5T_STR_SPACEPAD)
            while (n > 0 && text[n - 1] == ' ')
                text[--n] = '\0';
    } else if (H5Aread(attr, type, &text) < 0) {
        return false;
    }
    size_t n = text ? strlen(text) : 0;
    w->text_bytes += n;
    if (w->text_bytes > MAX_TEXT_BYTES)
        return free(own), stop(w, "more than 16 MiB of string attributes", w->path), false;
    sonde_h5_put_u64(w->reply, 'A');
    sonde_h5_put_text(w->reply, w->path[0] ? w->path : "/");
    sonde_h5_put_text(w->reply, name);
    sonde_h5_put_u64(w->reply, IS_TEXT);
    sonde_h5_put_bytes(w->reply, text ? text : "", n);
    if (variable && text)
        H5free_memory(text);
    free(own);
    return true;
}

static bool put_number_attr(struct walk *w, hid_t attr, hid_t type, const char *name)
{
    int64_t i = 0;
    double f = 0;
    bool is_float = H5Tget_class(type) == H5T_FLOAT;
    hid_t memory = is_float ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64;
    if (H5Tget_class(type) == H5T_ENUM) /* numpy.bool_ */
        memory = H5Tget_size(type) == 1 ? type : -1;
    if (H5Tget_size(type) > 16 || memory < 0 || H5Aread(attr, memory, is_float ? (void *)&f : (void *)&i) < 0)
        return false;
    sonde_h5_put_u64(w->reply, 'A');
    sonde_h5_put_text(w->reply, w->path[0] ? w->path : "/");
    sonde_h5_put_text(w->reply, name);
    sonde_h5_put_u64(w->reply, is_float ? IS_FLOAT : IS_INT);
    if (is_float)
        sonde_h5_put(w->reply, &f, sizeof f);
    else
        sonde_h5_put(w->reply, &i, sizeof i);
    return true;
}

/* Scalars of the three sorts are sent; arrays, references and names that cannot be shown are passed over. */
static herr_t visit_attribute(hid_t object, const char *name, const H5A_info_t *info, void *arg)
{
    struct walk *w = arg;
    (void)info;
    if (++w->n_objects > MAX_OBJECTS)
        return stop(w, "more than 65536 objects and attributes", w->path), -1;
    if (!sonde_h5_name_ok(name))
        return 0;
    w->name_bytes += strlen(name) + strlen(w->path);
    if (w->name_bytes > MAX_NAME_BYTES)
        return stop(w, "more than 16 MiB of names", w->path), -1;
    hid_t attr = H5Aopen(object, name, H5P_DEFAULT);
    hid_t type = attr < 0 ? -1 : H5Aget_type(attr), space = attr < 0 ? -1 : H5Aget_space(attr);
    bool ok = type >= 0 && space >= 0;
    if (ok && H5Sget_simple_extent_type(space) == H5S_SCALAR) {
        H5T_class_t c = H5Tget_class(type);
        if (c == H5T_STRING)
            ok = put_text_attr(w, attr, type, name);
        else if (c == H5T_INTEGER || c == H5T_FLOAT || (c == H5T_ENUM && H5Tget_size(type) == 1))
            ok = put_number_attr(w, attr, type, name);
    }
    if (type >= 0)
        H5Tclose(type);
    if (space >= 0)
        H5Sclose(space);
    if (attr >= 0)
        H5Aclose(attr);
    if (!ok && !w->code)
        stop_h5(w, "an attribute that HDF5 cannot read", w->path);
    return ok ? 0 : -1;
}

static bool visit_attributes(struct walk *w, hid_t object, const char *path)
{
    hsize_t at = 0;
    w->path = path;
    if (H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, &at, visit_attribute, w) >= 0)
        return true;
    if (!w->code)
        stop_h5(w, "its attributes cannot be listed", path);
    return false;
}

/* ---- groups ------------------------------------------------------------------------------------ */

static bool push_group(struct walk *w, const char *path, haddr_t addr)
{
    const size_t mask = 2 * MAX_OBJECTS - 1;
    size_t slot = (size_t)((addr * UINT64_C(0x9e3779b97f4a7c15)) >> 40) & mask;
    for (; w->seen[slot]; slot = (slot + 1) & mask)
        if (w->queue[w->seen[slot] - 1].addr == addr)
            return true; /* a second way to the same group */
    if (++w->n_objects > MAX_OBJECTS)
        return stop(w, "more than 65536 objects", path), false;
    w->name_bytes += strlen(path);
    if (w->name_bytes > MAX_NAME_BYTES)
        return stop(w, "more than 16 MiB of names", path), false;
    if (w->n_queue == w->room) {
        size_t room = 2 * w->room + 64;
        struct group *p = realloc(w->queue, room * sizeof *p);
        if (!p)
            return stop(w, "no memory for its groups", path), false;
        w->queue = p;
        w->room = room;
    }
    char *copy = strdup(path);
    if (!copy)
        return stop(w, "no memory for its groups", path), false;
    w->queue[w->n_queue++] = (struct group){copy, addr};
    w->seen[slot] = w->n_queue;
    return true;
}

static bool visit_hard_link(struct walk *w, const char *path, haddr_t addr)
{
    w->image->words[0] = '\0';
    hid_t object = H5Oopen_by_addr(w->file, addr);
    if (object < 0)
        return put_broken(w, path);
    bool ok = true;
    H5O_info_t info;
    switch (H5Iget_type(object)) {
    case H5I_GROUP:
        ok = H5Oget_info1(object, &info) >= 0;
        if (!ok)
            stop_h5(w, "a group that HDF5 cannot describe", path);
        else
            ok = push_group(w, path, info.addr);
        break;
    case H5I_DATASET:
        ok = visit_dataset(w, object, path) && visit_attributes(w, object, path);
        break;
    default: /* a named type */
        break;
    }
    H5Oclose(object);
    return ok;
}

static herr_t visit_link(hid_t group, const char *name, const H5L_info_t *info, void *arg)
{
    struct walk *w = arg;
    (void)group;
    const char *parent = w->queue[w->at].path;
    char path[1026];
    int n = snprintf(path, sizeof path, "%s/%s", parent, name);
    if (n < 0 || n > 1024 || !sonde_h5_name_ok(path) || name[0] == '\0' || strchr(name, '/') ||
        strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return stop(w, "a name in it is longer than 1024 bytes, not UTF-8, or not a name", parent), -1;
    if (info->type == H5L_TYPE_HARD)
        return visit_hard_link(w, path, info->u.address) ? 0 : -1;
    struct found f = {.kind = SONDE_H5_REFUSED, .dtype = SONDE_OPAQUE};
    snprintf(f.note, sizeof f.note, "%s, which is not followed",
             info->type == H5L_TYPE_SOFT ? "a soft link" : "a link to another file");
    return put_dataset(w, path, &f) ? 0 : -1;
}

static bool visit_group(struct walk *w)
{
    const struct group g = w->queue[w->at];
    hid_t group = H5Oopen_by_addr(w->file, g.addr);
    hsize_t at = 0;
    bool ok = group >= 0 && visit_attributes(w, group, g.path);
    if (ok)
        ok = H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, &at, visit_link, w) >= 0;
    if (!ok && !w->code)
        stop_h5(w, "a group that HDF5 cannot list", g.path);
    if (group >= 0)
        H5Oclose(group);
    return ok;
}

enum sonde_code sonde_h5_walk(const void *unused, int fd, sonde_h5_reply *reply, sonde_err *err)
{
    (void)unused;
    sonde_h5_image image;
    hid_t access;
    enum sonde_code rc = sonde_h5_begin(&image, fd, &access, err);
    if (rc)
        return rc;
    struct walk w = {.image = &image, .reply = reply, .err = err};
    w.seen = calloc(2 * MAX_OBJECTS, sizeof *w.seen);
    w.compact = malloc(MAX_COMPACT);
    H5O_info_t root;
    w.file = H5Fopen("image", H5F_ACC_RDONLY, access);
    if (!w.seen || !w.compact)
        return sonde_fail(err, SONDE_E_MEMORY, "no memory to read its structure");
    if (w.file < 0)
        return sonde_h5_error(&image, "is not an HDF5 file that can be read", err);
    if (H5Oget_info1(w.file, &root) < 0)
        return sonde_h5_error(&image, "its root group cannot be read", err);
    if (!push_group(&w, "", root.addr))
        return w.code;
    for (; w.at < w.n_queue; w.at++)
        if (!visit_group(&w))
            return w.code;
    sonde_h5_put_u64(reply, 'E');
    return SONDE_OK;
}
