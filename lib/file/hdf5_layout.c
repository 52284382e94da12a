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

/* What HDF5 refuses of a layout is the caller's mistake. Called before anything else clears HDF5's error
 * stack. */
static enum sonde_code refuse(const char *what, sonde_err *err)
{
    (void)sonde_h5_error(what, err);
    return err->code = SONDE_E_USAGE;
}

/* Every group on the way to path. */
static enum sonde_code make_groups(hid_t file, hid_t group_create, const char *path, sonde_err *err)
{
    char prefix[1100];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t n = (size_t)(slash - path);
        if (n >= sizeof prefix)
            return sonde_fail(err, SONDE_E_USAGE, "%.200s...: a path of more than %zu bytes", path,
                              sizeof prefix);
        memcpy(prefix, path, n);
        prefix[n] = '\0';
        htri_t there = H5Lexists(file, prefix, H5P_DEFAULT);
        if (there > 0)
            continue;
        hid_t group = there < 0 ? -1 : H5Gcreate2(file, prefix, H5P_DEFAULT, group_create, H5P_DEFAULT);
        if (group < 0)
            return refuse(prefix, err);
        H5Gclose(group);
    }
    return SONDE_OK;
}

static enum sonde_code make_dataset(hid_t file, hid_t create, const sonde_store_dataset *d, sonde_err *err)
{
    hsize_t dim[SONDE_MAX_RANK];
    enum sonde_code rc = SONDE_OK;
    for (int i = 0; i < d->rank; i++)
        dim[i] = d->dim[i];
    hid_t type = sonde_h5_type(d->dtype), space = H5Screate_simple(d->rank, dim, NULL);
    hid_t set = H5Dcreate2(file, d->path, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    if (set < 0)
        rc = refuse(d->path, err);
    else
        H5Dclose(set);
    H5Sclose(space);
    H5Tclose(type);
    return rc;
}

/* Strings have variable length: h5py gives those back as str, and they may be longer than the 64 KiB of a
 * header. */
static enum sonde_code make_attribute(hid_t file, const sonde_store_attr *a, sonde_err *err)
{
    enum sonde_code rc = SONDE_OK;
    hid_t type = H5Tcopy(a->s          ? H5T_C_S1
                         : a->is_float ? H5T_IEEE_F64LE
                                       : H5T_STD_I64LE),
          space = H5Screate(H5S_SCALAR);
    if (a->s && (H5Tset_size(type, H5T_VARIABLE) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0))
        return refuse(a->name, err);
    const void *value = a->s ? (const void *)&a->s : a->is_float ? (const void *)&a->f : (const void *)&a->i;
    hid_t object = H5Oopen(file, a->path, H5P_DEFAULT);
    hid_t attr = object < 0 ? -1 : H5Acreate2(object, a->name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attr < 0 || H5Awrite(attr, type, value) < 0)
        rc = refuse(a->name, err);
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

static enum sonde_code open_or_create(const sonde_h5_layout *l, hid_t access, hid_t *file, sonde_err *err)
{
    if (H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) < 0)
        return sonde_h5_error("HDF5 refuses the 1.8 format", err);
    if (!l->create) {
        *file = H5Fopen("image", H5F_ACC_RDWR, access);
        return *file < 0 ? sonde_h5_error("HDF5 cannot open it again", err) : SONDE_OK;
    }
    hid_t create = properties(H5P_FILE_CREATE);
    if (create < 0 || H5Pset_alignment(access, ALIGN_FROM, ALIGN_BYTES) < 0 ||
        H5Pset_meta_block_size(access, metadata_bytes(l)) < 0)
        return sonde_h5_error("HDF5 refuses a property", err);
    *file = H5Fcreate("image", H5F_ACC_TRUNC, create, access);
    return *file < 0 ? sonde_h5_error("HDF5 cannot create it", err) : SONDE_OK;
}

static enum sonde_code put_offsets(hid_t file, const sonde_h5_layout *l, sonde_h5_reply *reply,
                                   sonde_err *err)
{
    for (size_t i = 0; i < l->n_datasets; i++) {
        hid_t set = H5Dopen2(file, l->dataset[i].path, H5P_DEFAULT);
        haddr_t at = set < 0 ? HADDR_UNDEF : H5Dget_offset(set);
        bool empty = set >= 0 && H5Dget_storage_size(set) == 0;
        if (set < 0 || (at == HADDR_UNDEF && !empty))
            return sonde_h5_error(l->dataset[i].path, err);
        sonde_h5_put_u64(reply, empty ? 0 : at);
        H5Dclose(set);
    }
    return SONDE_OK;
}

enum sonde_code sonde_h5_lay_out(const void *layout, int fd, sonde_h5_reply *reply, sonde_err *err)
{
    const sonde_h5_layout *l = layout;
    sonde_h5_image image;
    hid_t access, file = -1;
    enum sonde_code rc = sonde_h5_begin(&image, fd, &access, err);
    if (!rc)
        rc = open_or_create(l, access, &file, err);
    if (rc)
        return rc;
    hid_t group_create = properties(H5P_GROUP_CREATE), dataset_create = properties(H5P_DATASET_CREATE);
    if (group_create < 0 || dataset_create < 0)
        return sonde_h5_error("HDF5 refuses a property", err);
    for (size_t i = 0; l->create && i < l->n_datasets; i++)
        if ((rc = make_groups(file, group_create, l->dataset[i].path, err)) ||
            (rc = make_dataset(file, dataset_create, &l->dataset[i], err)))
            return rc;
    for (size_t i = 0; i < l->n_attrs; i++)
        if ((rc = make_attribute(file, &l->attr[i], err)))
            return rc;

    sonde_h5_reply offsets = {0};
    if ((rc = put_offsets(file, l, &offsets, err)))
        return rc;
    if (H5Fclose(file) < 0)
        return sonde_h5_error("HDF5 cannot close it", err);
    sonde_h5_put_u64(reply, image.end);
    sonde_h5_put(reply, offsets.bytes, offsets.n);
    sonde_h5_put_u64(reply, image.n_writes);
    for (size_t i = 0; i < image.n_writes; i++) {
        sonde_h5_put_u64(reply, image.write[i].at);
        sonde_h5_put_bytes(reply, image.write[i].bytes, image.write[i].n);
    }
    return SONDE_OK;
}
