/* SPDX-License-Identifier: MIT */
#include "hdf5_image_impl.h"

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct open_image {
    H5FD_t driver; /* HDF5 looks here */
    sonde_h5_image *image;
    haddr_t eoa;
};

static H5FD_t *image_open(const char *name, unsigned flags, hid_t access, haddr_t max)
{
    (void)flags;
    (void)max;
    sonde_h5_image *const *image = H5Pget_driver_info(access);
    struct open_image *f = calloc(1, sizeof *f);
    if (!f || !image || !*image || strcmp(name, "image") != 0) { /* no other name leads anywhere */
        free(f);
        return NULL;
    }
    f->image = *image;
    return &f->driver;
}

static struct open_image *of(H5FD_t *f)
{
    return (struct open_image *)(void *)f;
}

static herr_t image_close(H5FD_t *f)
{
    free(of(f));
    return 0;
}

static herr_t image_query(const H5FD_t *f, unsigned long *flags)
{
    (void)f;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA;
    return 0;
}

static haddr_t image_get_eoa(const H5FD_t *f, H5FD_mem_t type)
{
    (void)type;
    return ((const struct open_image *)(const void *)f)->eoa;
}

static herr_t image_set_eoa(H5FD_t *f, H5FD_mem_t type, haddr_t addr)
{
    (void)type;
    of(f)->eoa = of(f)->image->end = addr;
    return 0;
}

static haddr_t image_get_eof(const H5FD_t *f, H5FD_mem_t type)
{
    (void)type;
    return ((const struct open_image *)(const void *)f)->image->eof;
}

static bool read_file(const sonde_h5_image *image, uint64_t at, size_t n, unsigned char *to)
{
    memset(to, 0, n);
    if (image->fd < 0 || at >= image->file_bytes)
        return true;
    if (n > image->file_bytes - at)
        n = (size_t)(image->file_bytes - at);
    while (n > 0) {
        ssize_t k = pread(image->fd, to, n, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return false;
        to += k;
        at += (uint64_t)k;
        n -= (size_t)k;
    }
    return true;
}

static herr_t image_read(H5FD_t *f, H5FD_mem_t type, hid_t transfer, haddr_t addr, size_t n, void *to)
{
    (void)type;
    (void)transfer;
    const sonde_h5_image *image = of(f)->image;
    if (addr > INT64_MAX || n > INT64_MAX - addr || !read_file(image, addr, n, to))
        return -1;
    for (size_t i = 0; i < image->n_writes; i++) { /* in the order in which they were made */
        const sonde_h5_write *w = &image->write[i];
        uint64_t lo = w->at > addr ? w->at : addr, hi = w->at + w->n < addr + n ? w->at + w->n : addr + n;
        if (lo < hi)
            memcpy((unsigned char *)to + (lo - addr), w->bytes + (lo - w->at), (size_t)(hi - lo));
    }
    return 0;
}

static herr_t image_write(H5FD_t *f, H5FD_mem_t type, hid_t transfer, haddr_t addr, size_t n,
                          const void *from)
{
    (void)type;
    (void)transfer;
    sonde_h5_image *image = of(f)->image;
    if (addr > INT64_MAX || n > INT64_MAX - addr)
        return -1;
    if (image->n_writes == image->room) {
        size_t room = 2 * image->room + 64;
        sonde_h5_write *p = realloc(image->write, room * sizeof *p);
        if (!p)
            return -1;
        image->write = p;
        image->room = room;
    }
    unsigned char *bytes = malloc(n + 1);
    if (!bytes)
        return -1;
    memcpy(bytes, from, n);
    image->write[image->n_writes++] = (sonde_h5_write){addr, n, bytes};
    image->eof = addr + n > image->eof ? addr + n : image->eof;
    return 0;
}

static herr_t image_truncate(H5FD_t *f, hid_t transfer, hbool_t closing)
{
    (void)f;
    (void)transfer;
    (void)closing;
    return 0;
}

static const H5FD_class_t image_class = {
#if H5_VERSION_GE(1, 13, 0)
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)400,
#endif
    .name = "sonde image",
    .maxaddr = INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(sonde_h5_image *),
    .open = image_open,
    .close = image_close,
    .query = image_query,
    .get_eoa = image_get_eoa,
    .set_eoa = image_set_eoa,
    .get_eof = image_get_eof,
    .read = image_read,
    .write = image_write,
    .truncate = image_truncate,
    .fl_map = H5FD_FLMAP_SINGLE,
};

/* HDF5 calls this when a call fails; the words of the innermost error say what is wrong. */
static herr_t innermost(unsigned i, const H5E_error2_t *e, void *arg)
{
    if (i == 0 && e->desc)
        snprintf(arg, sizeof((sonde_h5_image *)0)->words, "%s", e->desc);
    return 0;
}

static herr_t note_words(hid_t stack, void *arg)
{
    return H5Ewalk2(stack, H5E_WALK_UPWARD, innermost, ((sonde_h5_image *)arg)->words);
}

enum sonde_code sonde_h5_begin(sonde_h5_image *image, int fd, hid_t *access, sonde_err *err)
{
    struct stat st = {0};
    *image = (sonde_h5_image){.fd = fd};
    if (fd >= 0 && fstat(fd, &st))
        return sonde_fail(err, SONDE_E_IO, "%s", strerror(errno));
    image->file_bytes = image->eof = (uint64_t)st.st_size;
    if (H5open() < 0 || H5Eset_auto2(H5E_DEFAULT, note_words, image) < 0 || H5PLset_loading_state(0) < 0)
        return sonde_fail(err, SONDE_E_MEMORY, "HDF5 does not start");
    hid_t driver = H5FDregister(&image_class);
    *access = H5Pcreate(H5P_FILE_ACCESS);
    if (driver < 0 || *access < 0 || H5Pset_driver(*access, driver, &image) < 0)
        return sonde_h5_error(image, "HDF5 takes no driver", err);
    return SONDE_OK;
}

enum sonde_code sonde_h5_error(const sonde_h5_image *image, const char *what, sonde_err *err)
{
    return sonde_fail(err, SONDE_E_INPUT, "%s (%s)", what,
                      image->words[0] ? image->words : "no reason given");
}

/* IEEE binary16, little-endian; h5py reads it as float16. Fields before size (HDF5 checks that they fit). */
static hid_t type_f16(void)
{
    hid_t t = H5Tcopy(H5T_IEEE_F32LE);
    if (t < 0 || H5Tset_fields(t, 15, 10, 5, 0, 10) < 0 || H5Tset_size(t, 2) < 0 || H5Tset_ebias(t, 15) < 0)
        return -1;
    return t;
}

hid_t sonde_h5_type(enum sonde_dtype t)
{
    switch (t) {
    case SONDE_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case SONDE_F16:
        return type_f16();
    case SONDE_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case SONDE_I8:
        return H5Tcopy(H5T_STD_I8LE);
    case SONDE_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case SONDE_I16:
        return H5Tcopy(H5T_STD_I16LE);
    case SONDE_BF16:
    case SONDE_U16:
        return H5Tcopy(H5T_STD_U16LE);
    case SONDE_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case SONDE_U32:
        return H5Tcopy(H5T_STD_U32LE);
    case SONDE_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case SONDE_U64:
        return H5Tcopy(H5T_STD_U64LE);
    default:
        return -1;
    }
}
