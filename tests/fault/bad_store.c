/* SPDX-License-Identifier: MIT
 * Strangers' files: whatever is in them, opening ends with a table that holds or with one line, and this
 * process lives.
 *
 * SONDE_TEST_FULL=1 cuts at every byte and flips every bit outside empty space (some minutes); without it
 * both are thinned out. */
#define H5_USE_110_API 1
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <hdf5.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/size.h"
#include "file/hdf5_impl.h"
#include "file/store.h"

static char dir[64];

static const char *at(const char *name)
{
    static char path[4][200];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

static bool full(void)
{
    const char *s = getenv("SONDE_TEST_FULL");
    return s && s[0] == '1';
}

static void must(enum sonde_code rc, const sonde_err *err)
{
    if (rc)
        fail_msg("code %d: %s", rc, err->msg);
}

static void refused(enum sonde_code want, enum sonde_code rc, const sonde_err *err, const char *words)
{
    if (rc != want || !strstr(err->msg, words))
        fail_msg("code %d, wanted %d with '%s': %s", rc, want, words, rc ? err->msg : "no error");
}

static unsigned char *slurp(const char *path, size_t *n)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st))
        fail_msg("%s: %s", path, strerror(errno));
    unsigned char *p = malloc((size_t)st.st_size + 1);
    assert_true(read(fd, p, (size_t)st.st_size) == st.st_size);
    close(fd);
    *n = (size_t)st.st_size;
    return p;
}

static void spew(const char *path, const void *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_true(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    close(fd);
}

static bool allowed(enum sonde_code rc)
{
    return rc == SONDE_OK || rc == SONDE_E_INPUT || rc == SONDE_E_MEMORY;
}

/* Open, and if that goes well use everything in it. False (with words on stderr) if a promise is broken. */
static bool use(const char *path, bool *accepted)
{
    sonde_err err = {0};
    sonde_store *s;
    sonde_budget budget = {.limit = (size_t)64 << 20};
    enum sonde_code rc = sonde_store_open(path, true, &budget, &s, &err);
    *accepted = rc == SONDE_OK;
    if (rc) {
        bool ok = allowed(rc) && err.msg[0] && !strchr(err.msg, '\n') && budget.taken == 0;
        if (!ok)
            fprintf(stderr, "code %d, %zu bytes kept: %s\n", rc, budget.taken, err.msg);
        return ok;
    }
    bool ok = true;
    struct stat st;
    (void)stat(path, &st);
    for (size_t i = 0; i < sonde_store_n_datasets(s) && ok; i++) {
        const sonde_store_dataset *d = sonde_store_dataset_at(s, i);
        size_t bytes = 0;
        uint64_t n = d->rank ? d->dim[0] : 1;
        ok = d->path[0] == '/' && d->rank >= 0 && d->rank <= SONDE_MAX_RANK &&
             sonde_store_find(s, d->path) == i;
        if (sonde_store_unreadable(s, i)) {
            char junk[8];
            ok = ok && sonde_store_read(s, i, 0, 1, junk, &err) == SONDE_E_INPUT;
            continue;
        }
        ok = ok && sonde_nbytes(&bytes, d->dim, d->rank, sonde_dtype_size(d->dtype)) &&
             bytes <= (size_t)st.st_size;
        unsigned char *p = ok ? malloc(bytes + 1) : NULL;
        ok = ok && allowed(sonde_store_read(s, i, 0, n, p, &err));
        free(p);
    }
    for (size_t i = 0; i < sonde_store_n_attrs(s) && ok; i++)
        ok = sonde_store_attr_at(s, i)->path[0] == '/' && strlen(sonde_store_attr_at(s, i)->name) > 0;
    ok = ok && allowed(sonde_store_verify(s, &err));
    uint64_t *row;
    size_t n_rows;
    rc = ok ? sonde_store_doc_rows(s, 0, &row, &n_rows, &err) : SONDE_E_INPUT;
    if (rc == SONDE_OK)
        free(row);
    ok = ok && allowed(rc);
    sonde_store_close(s);
    return ok && budget.taken == 0;
}

/* Call one(i) for every i in [0, n) in two processes; each counts what broke. */
static void in_two_processes(size_t n, bool (*one)(size_t i, const char *path))
{
    pid_t pid[2];
    for (int p = 0; p < 2; p++) {
        pid[p] = fork();
        if (pid[p])
            continue;
        char path[100];
        int broken = 0;
        snprintf(path, sizeof path, "%s/damaged-%d.h5", dir, p);
        for (size_t i = (size_t)p; i < n; i += 2)
            if (!one(i, path) && broken++ < 3)
                fprintf(stderr, "case %zu breaks a promise\n", i);
        _exit(broken ? 1 : 0);
    }
    for (int p = 0; p < 2; p++) {
        int status;
        assert_int_equal(waitpid(pid[p], &status, 0), pid[p]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

/* ---- two files to damage ----------------------------------------------------------------------- */

static unsigned char *ours, *old_style;
static size_t n_ours, n_old_style;

static void make_ours(const char *path)
{
    sonde_err err;
    sonde_store_writer *w;
    static const sonde_store_dataset d[] = {{"/acts/blocks.0.hook_resid_post", SONDE_F32, 2, {6, 4}},
                                            {"/tokens/doc", SONDE_I32, 1, {6}},
                                            {"/rows/token", SONDE_I64, 1, {6}}};
    static const sonde_store_attr a[] = {{.path = "/", .name = "config_json", .s = "{\"d_model\": 4}"},
                                         {.path = "/", .name = "seed", .i = 7}};
    const sonde_store_layout l = {d, 3, a, 2};
    const float x[24] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,
                         13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
    const int32_t doc[6] = {0, 0, 0, 1, 1, 1};
    const int64_t token[6] = {5, 4, 3, 2, 1, 0};
    must(sonde_store_create(path, &l, true, &w, &err), &err);
    must(sonde_store_write(w, 0, 0, 6, x, &err), &err);
    must(sonde_store_write(w, 1, 0, 6, doc, &err), &err);
    must(sonde_store_write(w, 2, 0, 6, token, &err), &err);
    must(sonde_store_finish(w, NULL, 0, &err), &err);
}

/* What h5py makes by default: the oldest format, symbol tables, no checksums; chunks, filters, attributes.
 * HDF5 is used in a child, like everywhere. */
static void in_child(void (*make)(const char *path), const char *path)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        make(path);
        _exit(H5close() < 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

#define OK(x)                                                                                                \
    do {                                                                                                     \
        if ((x) < 0) {                                                                                       \
            fprintf(stderr, "%s\n", #x);                                                                     \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

static hid_t put(hid_t file, const char *name, hid_t type, hid_t create, int rank, const hsize_t *dim,
                 const void *data)
{
    hid_t space = rank < 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(rank, dim, NULL),
          links = H5Pcreate(H5P_LINK_CREATE);
    OK(H5Pset_create_intermediate_group(links, 1));
    hid_t d = H5Dcreate2(file, name, type, space, links, create, H5P_DEFAULT);
    OK(d);
    if (data)
        OK(H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data));
    return d;
}

static void attr(hid_t object, const char *name, hid_t type, const void *data)
{
    hid_t a = H5Acreate2(object, name, type, H5Screate(H5S_SCALAR), H5P_DEFAULT, H5P_DEFAULT);
    OK(a);
    OK(H5Awrite(a, type, data));
    OK(H5Aclose(a));
}

static void make_old_style(const char *path)
{
    static const float x[32 * 8] = {1, 2, 3};
    static const int64_t seed = 3;
    const char *text = "some text";
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), string = H5Tcopy(H5T_C_S1);
    OK(f);
    OK(H5Tset_size(string, H5T_VARIABLE));
    hid_t chunked = H5Pcreate(H5P_DATASET_CREATE);
    OK(H5Pset_chunk(chunked, 2, (const hsize_t[]){8, 4}));
    OK(H5Pset_shuffle(chunked));
    OK(H5Pset_deflate(chunked, 4));
    OK(H5Pset_fletcher32(chunked));
    hid_t compact = H5Pcreate(H5P_DATASET_CREATE);
    OK(H5Pset_layout(compact, H5D_COMPACT));
    hid_t d = put(f, "/acts/a", H5T_IEEE_F32LE, H5P_DEFAULT, 2, (const hsize_t[]){32, 8}, x);
    attr(d, "text", string, &text);
    attr(d, "seed", H5T_STD_I64LE, &seed);
    put(f, "/acts/chunked", H5T_IEEE_F32LE, chunked, 2, (const hsize_t[]){32, 8}, x);
    put(f, "/acts/compact", H5T_IEEE_F32LE, compact, 1, (const hsize_t[]){8}, x);
    OK(H5Lcreate_soft("/acts/a", f, "/soft", H5P_DEFAULT, H5P_DEFAULT));
    OK(H5Fclose(f));
}

static int begin(void **state)
{
    (void)state;
    strcpy(dir,
           access("/dev/shm", W_OK) == 0 ? "/dev/shm/sonde-hostile-XXXXXX" : "/tmp/sonde-hostile-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    make_ours(at("ours.h5"));
    ours = slurp(at("ours.h5"), &n_ours);
    in_child(make_old_style, at("old.h5"));
    old_style = slurp(at("old.h5"), &n_old_style);
    return 0;
}

static int end(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    free(ours);
    free(old_style);
    return system(command);
}

static void the_files_to_be_damaged_are_sound(void **state)
{
    (void)state;
    bool accepted;
    assert_true(use(at("ours.h5"), &accepted) && accepted);
    assert_true(use(at("old.h5"), &accepted) && accepted);
}

/* ---- damage ------------------------------------------------------------------------------------ */

static bool truncated(size_t i, const char *path)
{
    bool accepted;
    const unsigned char *p = i < n_ours ? ours : old_style;
    size_t n = i < n_ours ? i : i - n_ours;
    spew(path, p, n);
    return use(path, &accepted) && !accepted;
}

static bool truncated_here(size_t k, const char *path)
{
    return truncated(full() ? k : k * 47 % (n_ours + n_old_style), path);
}

static void a_file_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    in_two_processes((n_ours + n_old_style) / (full() ? 1 : 47), truncated_here);
}

/* Bits of bytes that are used; empty space between headers is thinned out. */
static bool flipped(size_t i, const char *path)
{
    bool accepted;
    bool first = i / 8 < n_ours;
    const unsigned char *p = first ? ours : old_style;
    size_t n = first ? n_ours : n_old_style, k = first ? i / 8 : i / 8 - n_ours;
    if ((p[k] == 0 && k % (full() ? 16 : 97)) || (!full() && i % 13))
        return true;
    unsigned char *q = malloc(n);
    memcpy(q, p, n);
    q[k] ^= (unsigned char)(1u << (i % 8));
    spew(path, q, n);
    free(q);
    return use(path, &accepted);
}

static void a_file_with_any_bit_flipped_never_harms(void **state)
{
    (void)state;
    in_two_processes(8 * (n_ours + n_old_style), flipped);
}

/* One to four bytes of one of the two, where they are not empty. */
static bool mutated(size_t i, const char *path)
{
    bool accepted;
    sonde_rng root = sonde_rng_seed(11), rng = sonde_rng_fork(&root, "mutate", i);
    const unsigned char *p = i % 2 ? ours : old_style;
    size_t n = i % 2 ? n_ours : n_old_style;
    unsigned char *q = malloc(n);
    memcpy(q, p, n);
    for (uint64_t k = 1 + sonde_rng_below(&rng, 4); k > 0; k--) {
        size_t where;
        do
            where = (size_t)sonde_rng_below(&rng, n);
        while (p[where] == 0 && sonde_rng_below(&rng, 16));
        static const unsigned char nasty[] = {0, 1, 0x7f, 0x80, 0xff, 0xfe};
        uint64_t how = sonde_rng_below(&rng, 3);
        q[where] = how == 0   ? (unsigned char)sonde_rng_u32(&rng)
                   : how == 1 ? nasty[sonde_rng_below(&rng, 6)]
                              : (unsigned char)(q[where] + 1);
    }
    spew(path, q, n);
    free(q);
    return use(path, &accepted);
}

static void random_mutations_never_harm(void **state)
{
    (void)state;
    in_two_processes(full() ? 20000 : 2000, mutated);
}

/* ---- crafted files ----------------------------------------------------------------------------- */

static sonde_store *opened(const char *path)
{
    sonde_err err;
    sonde_store *s;
    must(sonde_store_open(path, true, NULL, &s, &err), &err);
    return s;
}

/* The dataset is listed, and reading it is refused with these words. */
static void listed_and_refused(sonde_store *s, const char *path, const char *words)
{
    sonde_err err;
    char buf[64];
    size_t i = sonde_store_find(s, path);
    if (i == SIZE_MAX)
        fail_msg("%s is not listed", path);
    refused(SONDE_E_INPUT, sonde_store_read(s, i, 0, 1, buf, &err), &err, words);
    assert_non_null(sonde_store_unreadable(s, i));
}

static void make_escapes(const char *path)
{
    static const float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), p = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t n = 8;
    OK(H5Pset_external(p, "/etc/passwd", 0, 32));
    put(f, "/external_storage", H5T_IEEE_F32LE, p, 1, &n, NULL);
    OK(H5Lcreate_external("/dev/shm/other.h5", "/x", f, "/external_link", H5P_DEFAULT, H5P_DEFAULT));
    OK(H5Lcreate_soft("/loop_b", f, "/loop_a", H5P_DEFAULT, H5P_DEFAULT));
    OK(H5Lcreate_soft("/loop_a", f, "/loop_b", H5P_DEFAULT, H5P_DEFAULT));
    hid_t space = H5Screate_simple(1, &n, NULL), v = H5Pcreate(H5P_DATASET_CREATE);
    OK(H5Pset_virtual(v, space, "/etc/passwd", "/x", space));
    put(f, "/virtual", H5T_IEEE_F32LE, v, 1, &n, NULL);
    hid_t g = H5Gcreate2(f, "/ring", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    OK(g);
    OK(H5Lcreate_hard(f, "/", g, "up", H5P_DEFAULT, H5P_DEFAULT)); /* a loop of hard links */
    OK(H5Lcreate_hard(f, "/ring", g, "self", H5P_DEFAULT, H5P_DEFAULT));
    put(f, "/ring/x", H5T_IEEE_F32LE, H5P_DEFAULT, 1, &n, x);
    OK(H5Lcreate_hard(f, "/ring/x", f, "/same", H5P_DEFAULT, H5P_DEFAULT));
    OK(H5Fclose(f));
}

static void nothing_leads_out_of_the_file_or_round_in_circles(void **state)
{
    (void)state;
    sonde_err err;
    float x[8];
    in_child(make_escapes, at("escape.h5"));
    sonde_store *s = opened(at("escape.h5"));
    listed_and_refused(s, "/external_storage", "external file");
    listed_and_refused(s, "/external_link", "a link to another file");
    listed_and_refused(s, "/loop_a", "a soft link");
    listed_and_refused(s, "/loop_b", "a soft link");
    listed_and_refused(s, "/virtual", "virtual");
    must(sonde_store_read(s, sonde_store_find(s, "/ring/x"), 0, 8, x, &err), &err);
    assert_true(x[7] == 8);
    must(sonde_store_read(s, sonde_store_find(s, "/same"), 0, 8, x, &err), &err);
    assert_true(x[7] == 8);
    assert_int_equal(sonde_store_n_datasets(s), 7);
    sonde_store_close(s);
}

static size_t keep_filter(unsigned flags, size_t n_values, const unsigned *values, size_t n_bytes,
                          size_t *room, void **buf)
{
    (void)flags;
    (void)n_values;
    (void)values;
    (void)room;
    (void)buf;
    return n_bytes;
}

static void make_kinds(const char *path)
{
    static const float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const double y[2] = {1.5, 2.5};
    static const H5Z_class2_t filter = {H5Z_CLASS_T_VERS, 300, 1, 1, "mystery", NULL, NULL, keep_filter};
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), string = H5Tcopy(H5T_C_S1);
    const hsize_t n = 8, rows = UINT64_C(1) << 40, big[2] = {rows, 4}, nine[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    hid_t p = H5Pcreate(H5P_DATASET_CREATE);
    OK(H5Pset_chunk(p, 1, &n));
    OK(H5Pset_deflate(p, 6));
    put(f, "/deflated", H5T_IEEE_F32LE, p, 1, &n, x);
    OK(H5Zregister(&filter));
    p = H5Pcreate(H5P_DATASET_CREATE);
    OK(H5Pset_chunk(p, 1, &n));
    OK(H5Pset_filter(p, 300, 0, 0, NULL));
    put(f, "/filtered", H5T_IEEE_F32LE, p, 1, &n, x);
    p = H5Pcreate(H5P_DATASET_CREATE);
    OK(H5Pset_chunk(p, 2, (const hsize_t[]){1024, 4}));
    put(f, "/rows_2_40", H5T_IEEE_F32LE, p, 2, big, NULL);
    put(f, "/never_written", H5T_IEEE_F32LE, H5P_DEFAULT, 2, big, NULL);
    p = H5Pcreate(H5P_DATASET_CREATE);
    OK(H5Pset_layout(p, H5D_COMPACT));
    put(f, "/compact", H5T_IEEE_F32LE, p, 1, &n, x);
    put(f, "/big_endian", H5T_IEEE_F32BE, H5P_DEFAULT, 1, &n, x);
    put(f, "/scalar", H5T_IEEE_F32LE, H5P_DEFAULT, -1, NULL, x);
    put(f, "/nine", H5T_IEEE_F32LE, H5P_DEFAULT, 9, nine, x);
    OK(H5Tset_size(string, 4));
    put(f, "/string", string, H5P_DEFAULT, 1, &n, x);
    hid_t compound = H5Tcreate(H5T_COMPOUND, 8);
    OK(H5Tinsert(compound, "re", 0, H5T_IEEE_F32LE));
    OK(H5Tinsert(compound, "im", 4, H5T_IEEE_F32LE));
    put(f, "/complex", compound, H5P_DEFAULT, 1, (const hsize_t[]){4}, x);
    hid_t d = put(f, "/attributes", H5T_IEEE_F64LE, H5P_DEFAULT, 1, (const hsize_t[]){2}, y);
    static const short s16 = -5;
    static const unsigned char u8 = 200;
    attr(d, "int16", H5T_NATIVE_SHORT, &s16);
    attr(d, "uint8", H5T_NATIVE_UCHAR, &u8);
    attr(d, "float32", H5T_NATIVE_FLOAT, &x[1]);
    attr(d, "fixed", string, "abcd");
    attr(d, "bad\nname", H5T_NATIVE_FLOAT, &x[1]);
    hid_t a = H5Acreate2(d, "array", H5T_IEEE_F64LE, H5Screate_simple(1, &n, NULL), H5P_DEFAULT, H5P_DEFAULT);
    OK(a);
    OK(H5Fclose(f));
}

static void other_layouts_and_types_are_listed_and_say_why_they_are_not_read(void **state)
{
    (void)state;
    sonde_err err;
    float x[8];
    in_child(make_kinds, at("kinds.h5"));
    sonde_store *s = opened(at("kinds.h5"));
    listed_and_refused(s, "/deflated", "chunked, deflate; convert it: h5repack -l CONTI -f NONE");
    listed_and_refused(s, "/filtered", "chunked, mystery; convert it");
    listed_and_refused(s, "/rows_2_40", "chunked; convert it");
    listed_and_refused(s, "/never_written", "never written");
    listed_and_refused(s, "/big_endian", "big-endian float of 4 bytes");
    listed_and_refused(s, "/string", "string of 4 bytes");
    listed_and_refused(s, "/complex", "compound of 8 bytes");
    listed_and_refused(s, "/nine", "rank 9");
    must(sonde_store_read(s, sonde_store_find(s, "/compact"), 2, 6, x, &err), &err);
    assert_true(x[0] == 3 && x[5] == 8);
    must(sonde_store_read(s, sonde_store_find(s, "/scalar"), 0, 1, x, &err), &err);
    assert_true(x[0] == 1);
    assert_true(sonde_store_attr_find(s, "/attributes", "int16")->i == -5);
    assert_true(sonde_store_attr_find(s, "/attributes", "uint8")->i == 200);
    assert_true(sonde_store_attr_find(s, "/attributes", "float32")->f == 2);
    assert_string_equal(sonde_store_attr_find(s, "/attributes", "fixed")->s, "abcd");
    assert_null(sonde_store_attr_find(s, "/attributes", "array"));
    sonde_store_close(s);
}

static void make_too_many(const char *path)
{
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    char name[16];
    for (int i = 0; i < 66000; i++) {
        snprintf(name, sizeof name, "g%d", i);
        OK(H5Lcreate_soft("/", f, name, H5P_DEFAULT, H5P_DEFAULT));
    }
    OK(H5Fclose(f));
}

static void make_too_deep(const char *path)
{
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), g = f;
    for (int i = 0; i < 600; i++)
        OK(g = H5Gcreate2(g, "d", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    OK(H5Fclose(f));
}

static void make_bad_name(const char *path)
{
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    OK(H5Gcreate2(f, "a\x1b[31m", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    OK(H5Fclose(f));
}

static void make_long_text(const char *path)
{
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), string = H5Tcopy(H5T_C_S1);
    size_t n = (size_t)17 << 20;
    char *text = malloc(n + 1);
    memset(text, 'x', n);
    text[n] = '\0';
    OK(H5Tset_size(string, H5T_VARIABLE));
    attr(f, "text", string, &text);
    OK(H5Fclose(f));
}

static void excess_is_refused(void **state)
{
    (void)state;
    static const struct {
        void (*make)(const char *path);
        const char *words;
    } row[] = {{make_too_many, "more than 65536"},
               {make_too_deep, "longer than 1024"},
               {make_bad_name, "not a name"},
               {make_long_text, "16 MiB of string attributes"}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        sonde_err err = {0};
        sonde_store *s;
        in_child(row[i].make, at("excess.h5"));
        refused(SONDE_E_INPUT, sonde_store_open(at("excess.h5"), true, NULL, &s, &err), &err, row[i].words);
    }
}

static void what_is_not_hdf5_is_refused(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store *s;
    static const unsigned char magic[] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n',
                                          0,    0,   0,   0,   0,    8,    8,    0};
    spew(at("x.h5"), "", 0);
    refused(SONDE_E_INPUT, sonde_store_open(at("x.h5"), true, NULL, &s, &err), &err, "not an HDF5 file");
    spew(at("x.h5"), "hello, I am a text file", 23);
    refused(SONDE_E_INPUT, sonde_store_open(at("x.h5"), true, NULL, &s, &err), &err, "not an HDF5 file");
    spew(at("x.h5"), magic, sizeof magic);
    refused(SONDE_E_INPUT, sonde_store_open(at("x.h5"), true, NULL, &s, &err), &err, "x.h5");
    refused(SONDE_E_INPUT, sonde_store_open(dir, true, NULL, &s, &err), &err, "is a directory");
    refused(SONDE_E_INPUT, sonde_store_open("/dev/zero", true, NULL, &s, &err), &err, "not a regular file");
    refused(SONDE_E_IO, sonde_store_open(at("nothing.h5"), true, NULL, &s, &err), &err, "No such file");
    assert_int_equal(mkfifo(at("fifo"), 0600), 0);
    refused(SONDE_E_INPUT, sonde_store_open(at("fifo"), true, NULL, &s, &err), &err, "not a regular file");
}

static void make_later_version(const char *path)
{
    const char *format = "sonde-activations", *version = "2.0";
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), string = H5Tcopy(H5T_C_S1);
    OK(H5Tset_size(string, H5T_VARIABLE));
    attr(f, "format", string, &format);
    attr(f, "format_version", string, &version);
    OK(H5Fclose(f));
}

static void a_later_major_version_is_refused(void **state)
{
    (void)state;
    sonde_err err;
    sonde_store *s;
    in_child(make_later_version, at("later.h5"));
    refused(SONDE_E_INPUT, sonde_store_open(at("later.h5"), true, NULL, &s, &err), &err,
            "format version 2.0");
}

static void a_file_cut_while_open_is_an_error_of_the_system(void **state)
{
    (void)state;
    sonde_err err;
    float x[24];
    spew(at("cut.h5"), ours, n_ours);
    sonde_store *s = opened(at("cut.h5"));
    assert_int_equal(truncate(at("cut.h5"), 1000), 0);
    refused(SONDE_E_IO,
            sonde_store_read(s, sonde_store_find(s, "/acts/blocks.0.hook_resid_post"), 0, 6, x, &err), &err,
            "cut while in use");
    sonde_store_close(s);
}

static void no_descriptor_and_no_child_is_left_behind(void **state)
{
    (void)state;
    bool accepted;
    int before = dup(0);
    close(before);
    for (int i = 0; i < 20; i++)
        assert_true(use(at(i % 2 ? "ours.h5" : "x.h5"), &accepted));
    int after = dup(0);
    close(after);
    assert_int_equal(before, after);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

/* ---- the child itself -------------------------------------------------------------------------- */

static enum sonde_code try_to_escape(const void *arg, int fd, sonde_h5_reply *reply, sonde_err *err)
{
    (void)arg;
    (void)err;
    sonde_h5_put_u64(reply, open("/etc/passwd", O_RDONLY) < 0);
    sonde_h5_put_u64(reply, open("/dev/shm/escaped", O_WRONLY | O_CREAT, 0666) < 0);
    sonde_h5_put_u64(reply, socket(AF_INET, SOCK_STREAM, 0) < 0);
    sonde_h5_put_u64(reply, dup(fd) < 0);
    sonde_h5_put_u64(reply, write(fd, "x", 1) < 0);
    sonde_h5_put_u64(reply, lseek(5, 0, SEEK_CUR) < 0 && errno == EBADF);
    return SONDE_OK;
}

static enum sonde_code crash(const void *arg, int fd, sonde_h5_reply *reply, sonde_err *err)
{
    (void)arg;
    (void)fd;
    (void)reply;
    (void)err;
    (void)raise(SIGSEGV);
    return SONDE_OK;
}

static enum sonde_code loop(const void *arg, int fd, sonde_h5_reply *reply, sonde_err *err)
{
    (void)fd;
    (void)reply;
    (void)err;
    for (const volatile int *p = arg; *p;)
        ;
    return SONDE_OK;
}

static enum sonde_code talk_too_much(const void *arg, int fd, sonde_h5_reply *reply, sonde_err *err)
{
    (void)arg;
    (void)fd;
    (void)err;
    for (int i = 0; i < 20 << 20; i++)
        sonde_h5_put_u64(reply, 1);
    return SONDE_OK;
}

static enum sonde_code lie(const void *arg, int fd, sonde_h5_reply *reply, sonde_err *err)
{
    (void)arg;
    (void)fd;
    (void)reply;
    (void)err;
    char junk[2000];
    memset(junk, 0xff, sizeof junk);
    (void)!write(4, junk, sizeof junk);
    _exit(0);
}

static void the_child_is_shut_in_and_its_end_is_a_sentence(void **state)
{
    (void)state;
    sonde_err err = {0};
    sonde_h5_cursor c = {0};
    static const int forever = 1;
    sonde_arena *arena = sonde_arena_new(NULL, &err);
    int fd = open(at("ours.h5"), O_RDONLY);
    assert_true(arena && fd >= 0);
    sonde_h5_task t = {"f.h5", fd, true, 1, (size_t)64 << 20, try_to_escape, &forever};
    must(sonde_h5_run(&t, arena, &c, &err), &err);
    for (int i = 0; i < 6; i++)
        assert_int_equal(sonde_h5_get_u64(&c), 1);
    assert_false(c.bad);
    assert_int_equal(access("/dev/shm/escaped", F_OK), -1);
    t.job = crash;
    refused(SONDE_E_INPUT, sonde_h5_run(&t, arena, &c, &err), &err,
            "damaged or hostile file (HDF5 crashed on it)");
    t.job = loop;
    refused(SONDE_E_INPUT, sonde_h5_run(&t, arena, &c, &err), &err, "did not come to an end");
    t.job = lie;
    refused(SONDE_E_INPUT, sonde_h5_run(&t, arena, &c, &err), &err, "damaged or hostile");
    t.job = talk_too_much;
    refused(SONDE_E_INPUT, sonde_h5_run(&t, arena, &c, &err), &err, "64 MiB");
    t.stranger = false;
    t.job = crash;
    refused(SONDE_E_IO, sonde_h5_run(&t, arena, &c, &err), &err, "cannot be laid out");
    close(fd);
    sonde_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_files_to_be_damaged_are_sound),
        cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test(a_file_with_any_bit_flipped_never_harms),
        cmocka_unit_test(random_mutations_never_harm),
        cmocka_unit_test(nothing_leads_out_of_the_file_or_round_in_circles),
        cmocka_unit_test(other_layouts_and_types_are_listed_and_say_why_they_are_not_read),
        cmocka_unit_test(excess_is_refused),
        cmocka_unit_test(what_is_not_hdf5_is_refused),
        cmocka_unit_test(a_later_major_version_is_refused),
        cmocka_unit_test(a_file_cut_while_open_is_an_error_of_the_system),
        cmocka_unit_test(the_child_is_shut_in_and_its_end_is_a_sentence),
        cmocka_unit_test(no_descriptor_and_no_child_is_left_behind),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
