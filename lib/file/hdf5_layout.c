/* SPDX-License-Identifier: MIT
 * The child's job of laying out a file, or of adding attributes to one. */
#include "hdf5_image_impl.h"

#include <string.h>

#define ALIGN_FROM  65536 /* datasets this large begin on a page */
#define ALIGN_BYTES 4096

/* Without time stamps, so that the same layout gives the same bytes. */
static hid_t properties(hid_t of_class)
{
    hid_t p = H5Pcreate(of_class);
    if (p < 0 || H5Pset_obj_track_times(p, 0) < 0)
        return -1;
    if (of_class != H5P_DATASET_CREATE)
        return p;
    if (H5Pset_layout(p, H5D_CONTIGUOUS) < 0 || H5Pset_alloc_time(p, H5D_ALLOC_TIME_EARLY) < 0 ||
        H5Pset_fill_time(p, H5D_FILL_TIME_NEVER) < 0)
        return -1;
    return p;
}

struct making {
    hid_t file, group_create, dataset_create;
    const sonde_h5_image *image;
    sonde_err *err;
};

/* What HDF5 refuses of a layout is the caller's mistake. */
static enum sonde_code refuse(const struct making *m, const char *what)
{
    (void)sonde_h5_error(m->image, what, m->err);
    return m->err->code = SONDE_E_USAGE;
}

/* Every group on the way to path. */
static enum sonde_code make_groups(const struct making *m, const char *path)
{
    char prefix[1100];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t n = (size_t)(slash - path);
        if (n >= sizeof prefix)
            return sonde_fail(m->err, SONDE_E_USAGE, "%.200s...: a path of more than %zu bytes", path,
                              sizeof prefix);
        memcpy(prefix, path, n);
        prefix[n] = '\0';
        htri_t there = H5Lexists(m->file, prefix, H5P_DEFAULT);
        if (there > 0)
            continue;
        hid_t group = there < 0 ? -1 : H5Gcreate2(m->file, prefix, H5P_DEFAULT, m->group_create, H5P_DEFAULT);
        if (group < 0)
            return refuse(m, prefix);
        H5Gclose(group);
    }
    return SONDE_OK;
}

static enum sonde_code make_dataset(const struct making *m, const sonde_store_dataset *d)
{
    hsize_t dim[SONDE_MAX_RANK];
    enum sonde_code rc = SONDE_OK;
    for (int i = 0; i < d->rank; i++)
        dim[i] = d->dim[i];
    hid_t type = sonde_h5_type(d->dtype), space = H5Screate_simple(d->rank, dim, NULL);
    hid_t set = H5Dcreate2(m->file, d->path, type, space, H5P_DEFAULT, m->dataset_create, H5P_DEFAULT);
    if (set < 0)
        rc = refuse(m, d->path);
    else
        H5Dclose(set);
    H5Sclose(space);
    H5Tclose(type);
    return rc;
}

/* Strings have variable length: h5py gives those back as str, and they may be longer than the 64 KiB of a
 * header. */
static enum sonde_code make_attribute(const struct making *m, const sonde_store_attr *a)
{
    enum sonde_code rc = SONDE_OK;
    hid_t type = H5Tcopy(a->s          ? H5T_C_S1
                         : a->is_float ? H5T_IEEE_F64LE
                                       : H5T_STD_I64LE),
          space = H5Screate(H5S_SCALAR);
    if (a->s && (H5Tset_size(type, H5T_VARIABLE) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0))
        return refuse(m, a->name);
    const void *value = a->s ? (const void *)&a->s : a->is_float ? (const void *)&a->f : (const void *)&a->i;
    hid_t object = H5Oopen(m->file, a->path, H5P_DEFAULT);
    hid_t attr = object < 0 ? -1 : H5Acreate2(object, a->name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attr < 0 || H5Awrite(attr, type, value) < 0)
        rc = refuse(m, a->name);
    if (attr >= 0)
        H5Aclose(attr);
    if (object >= 0)
        H5Oclose(object);
    H5Sclose(space);
    H5Tclose(type);
    return rc;
}

/* Room for all headers in front of the data, so that opening a large file reads one place. */
static hsize_t metadata_bytes(const sonde_h5_layout *l)
{
    hsize_t n = 4096;
    for (size_t i = 0; i < l->n_datasets; i++)
        n += 512 + 2 * strlen(l->dataset[i].path);
    for (size_t i = 0; i < l->n_attrs; i++)
        n += 128 + (l->attr[i].s ? strlen(l->attr[i].s) : 0);
    return (n + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

static enum sonde_code open_or_create(const sonde_h5_layout *l, hid_t access, struct making *m)
{
    if (H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) < 0)
        return sonde_h5_error(m->image, "HDF5 refuses the 1.8 format", m->err);
    m->group_create = properties(H5P_GROUP_CREATE);
    m->dataset_create = properties(H5P_DATASET_CREATE);
    hid_t create = properties(H5P_FILE_CREATE);
    if (m->group_create < 0 || m->dataset_create < 0 || create < 0)
        return sonde_h5_error(m->image, "HDF5 refuses a property", m->err);
    if (!l->create) {
        m->file = H5Fopen("image", H5F_ACC_RDWR, access);
        return m->file < 0 ? sonde_h5_error(m->image, "HDF5 cannot open it again", m->err) : SONDE_OK;
    }
    if (H5Pset_alignment(access, ALIGN_FROM, ALIGN_BYTES) < 0 ||
        H5Pset_meta_block_size(access, metadata_bytes(l)) < 0)
        return sonde_h5_error(m->image, "HDF5 refuses a property", m->err);
    m->file = H5Fcreate("image", H5F_ACC_TRUNC, create, access);
    return m->file < 0 ? sonde_h5_error(m->image, "HDF5 cannot create it", m->err) : SONDE_OK;
}

static enum sonde_code make_all(const sonde_h5_layout *l, const struct making *m)
{
    enum sonde_code rc;
    for (size_t i = 0; l->create && i < l->n_datasets; i++)
        if ((rc = make_groups(m, l->dataset[i].path)) || (rc = make_dataset(m, &l->dataset[i])))
            return rc;
    for (size_t i = 0; i < l->n_attrs; i++)
        if ((rc = make_attribute(m, &l->attr[i])))
            return rc;
    return SONDE_OK;
}

static enum sonde_code put_offsets(const sonde_h5_layout *l, const struct making *m, sonde_h5_reply *reply)
{
    for (size_t i = 0; i < l->n_datasets; i++) {
        hid_t set = H5Dopen2(m->file, l->dataset[i].path, H5P_DEFAULT);
        haddr_t at = set < 0 ? HADDR_UNDEF : H5Dget_offset(set);
        bool empty = set >= 0 && H5Dget_storage_size(set) == 0;
        if (set < 0 || (at == HADDR_UNDEF && !empty))
            return sonde_h5_error(m->image, l->dataset[i].path, m->err);
        sonde_h5_put_u64(reply, empty ? 0 : at);
        H5Dclose(set);
    }
    return SONDE_OK;
}

enum sonde_code sonde_h5_lay_out(const void *layout, int fd, sonde_h5_reply *reply, sonde_err *err)
{
    const sonde_h5_layout *l = layout;
    sonde_h5_image image;
    sonde_h5_reply offsets = {0};
    struct making m = {.file = -1, .image = &image, .err = err};
    hid_t access;
    enum sonde_code rc = sonde_h5_begin(&image, fd, &access, err);
    if (rc || (rc = open_or_create(l, access, &m)) || (rc = make_all(l, &m)) ||
        (rc = put_offsets(l, &m, &offsets)))
        return rc;
    if (H5Fclose(m.file) < 0)
        return sonde_h5_error(&image, "HDF5 cannot close it", err);
    sonde_h5_put_u64(reply, image.end);
    sonde_h5_put(reply, offsets.bytes, offsets.n);
    sonde_h5_put_u64(reply, image.n_writes);
    for (size_t i = 0; i < image.n_writes; i++) {
        sonde_h5_put_u64(reply, image.write[i].at);
        sonde_h5_put_bytes(reply, image.write[i].bytes, image.write[i].n);
    }
    return SONDE_OK;
}
