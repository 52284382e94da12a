/* SPDX-License-Identifier: MIT
 * A zip of two members, "a.npy" stored and "b.npy" deflated, spoilt in one place. */
#include "bad_files.h"
#include "file/npy.h"

static enum sonde_code open_file(const struct bytes *b, sonde_budget *budget, sonde_err *err)
{
    sonde_tensors *f;
    enum sonde_code rc = sonde_npz_parse(check_map(b->p, b->n), budget, &f, err);
    if (rc != SONDE_OK)
        return rc;
    check_tensors(f, 1);
    sonde_tensors_close(f);
    return SONDE_OK;
}

struct places {
    size_t local[2], central[2], dir, end;
};

static void two_members(struct zip *z, struct places *at, const char *comment)
{
    struct bytes a = {0}, b = {0};
    put_npy(&a, 1, "{'descr':'<f4','fortran_order':False,'shape':(3,)}", 12);
    put_npy(&b, 1, "{'descr':'<f4','fortran_order':False,'shape':(4,4)}", 64);
    zip_add(z, "a.npy", a.p, a.n, 0, &at->local[0], &at->central[0]);
    zip_add(z, "b.npy", b.p, b.n, 1, &at->local[1], &at->central[1]);
    at->dir = z->all.n;
    zip_end(z, comment, &at->end);
    at->central[0] += at->dir;
    at->central[1] += at->dir;
    bytes_free(&a);
    bytes_free(&b);
}

static void give(struct bytes *b, struct zip *z)
{
    put(b, z->all.p, z->all.n);
    zip_free(z);
}

static void good(struct bytes *b, const struct bad_row *row)
{
    struct zip z = {0};
    struct places at;
    two_members(&z, &at, row->text);
    give(b, &z);
}

/* text names the place ("l0" local header of a, "c1" central header of b, "e" last record) and the field's
 * offset and width: "c0 24 4". The field becomes n. */
static void field(struct bytes *b, const struct bad_row *row)
{
    struct zip z = {0};
    struct places at;
    char which;
    unsigned i, offset, width;
    two_members(&z, &at, "");
    if (sscanf(row->text, "%c%u %u %u", &which, &i, &offset, &width) != 4)
        abort();
    size_t place = which == 'l' ? at.local[i] : which == 'c' ? at.central[i] : at.end;
    memcpy(z.all.p + place + offset, &row->n, width);
    give(b, &z);
}

/* The same field in both headers of member i: "1 8 2" is the method of b, by its offset in the local header.
 */
static void both(struct bytes *b, const struct bad_row *row)
{
    struct zip z = {0};
    struct places at;
    unsigned i, offset, width;
    two_members(&z, &at, "");
    if (sscanf(row->text, "%u %u %u", &i, &offset, &width) != 3)
        abort();
    memcpy(z.all.p + at.local[i] + offset, &row->n, width);
    memcpy(z.all.p + at.central[i] + 2 + offset, &row->n, width);
    give(b, &z);
}

/* One member whose name is the text, n zero bytes of data in its array of shape (n,), deflated. */
static void one(struct bytes *b, const struct bad_row *row)
{
    struct zip z = {0};
    struct bytes a = {0};
    char header[128];
    snprintf(header, sizeof header, "{'descr':'|u1','fortran_order':False,'shape':(%llu,)}",
             (unsigned long long)row->n);
    put_npy(&a, 1, header, row->n);
    zip_add(&z, row->text, a.p, a.n, 1, NULL, NULL);
    zip_end(&z, "", NULL);
    bytes_free(&a);
    give(b, &z);
}

/* The member holds the text and n zero bytes. */
static void member(struct bytes *b, const struct bad_row *row)
{
    struct zip z = {0};
    struct bytes a = {0};
    put_npy(&a, 1, row->text, row->n);
    zip_add(&z, "a.npy", a.p, a.n, 1, NULL, NULL);
    zip_end(&z, "", NULL);
    bytes_free(&a);
    give(b, &z);
}

/* n copies of the same member under two names that are the same bytes on disk. */
static void shared(struct bytes *b, const struct bad_row *row)
{
    struct zip z = {0};
    struct bytes a = {0};
    size_t c0, c1, begin;
    (void)row;
    put_npy(&a, 1, "{'descr':'|u1','fortran_order':False,'shape':(3,)}", 3);
    zip_add(&z, "a.npy", a.p, a.n, 0, NULL, &c0);
    begin = z.all.n;
    zip_add(&z, "a.npy", a.p, a.n, 0, NULL, &c1);
    z.all.n = begin;
    memset(z.dir.p + c1 + 42, 0, 4); /* the second entry points at the first member */
    zip_end(&z, "", NULL);
    bytes_free(&a);
    give(b, &z);
}

/* "a.npy" is stored and its data hold another whole member, "b.npy", which has an entry of its own. */
static void nested(struct bytes *b, const struct bad_row *row)
{
    struct zip inner = {0}, z = {0};
    struct bytes small = {0}, large = {0};
    char header[128];
    size_t entry;
    (void)row;
    put_npy(&small, 1, "{'descr':'|u1','fortran_order':False,'shape':(3,)}", 3);
    zip_add(&inner, "b.npy", small.p, small.n, 0, NULL, NULL);
    snprintf(header, sizeof header, "{'descr':'|u1','fortran_order':False,'shape':(%zu,)}", inner.all.n);
    put_npy(&large, 1, header, 0);
    size_t at = 30 + 5 + large.n;
    put(&large, inner.all.p, inner.all.n);
    zip_add(&z, "a.npy", large.p, large.n, 0, NULL, NULL);
    entry = z.dir.n;
    put(&z.dir, inner.dir.p, inner.dir.n);
    memcpy(z.dir.p + entry + 42, &at, 4);
    z.n_members++;
    zip_end(&z, "", NULL);
    bytes_free(&small);
    bytes_free(&large);
    zip_free(&inner);
    give(b, &z);
}

/* Shape and directory agree on n bytes, three are there; the text follows the compressed data, as part of
 * them. */
static void lying(struct bytes *b, const struct bad_row *row)
{
    struct zip z = {0};
    struct bytes a = {0};
    char header[128];
    snprintf(header, sizeof header, "{'descr':'|u1','fortran_order':False,'shape':(%llu,)}",
             (unsigned long long)row->n);
    put_npy(&a, 1, header, 3);
    zip_add(&z, "a.npy", a.p, a.n, 1, NULL, NULL);
    uint64_t claim = row->n + a.n - 3;
    uint64_t n_packed = z.all.n - 35 + strlen(row->text);
    memcpy(z.dir.p + 20, &n_packed, 4);
    put_text(&z.all, row->text);
    memcpy(z.dir.p + 24, &claim, 4);
    zip_end(&z, "", NULL);
    bytes_free(&a);
    give(b, &z);
}

static void twice(struct bytes *b, const struct bad_row *row)
{
    struct zip z = {0};
    struct bytes a = {0};
    put_npy(&a, 1, "{'descr':'|u1','fortran_order':False,'shape':(3,)}", 3);
    zip_add(&z, row->text, a.p, a.n, 0, NULL, NULL);
    zip_add(&z, row->text, a.p, a.n, 1, NULL, NULL);
    zip_end(&z, "", NULL);
    bytes_free(&a);
    give(b, &z);
}

/* n bytes in front of the zip, offsets not adjusted. */
static void shifted(struct bytes *b, const struct bad_row *row)
{
    struct zip z = {0};
    struct places at;
    two_members(&z, &at, "");
    put_repeated(b, 'x', row->n);
    give(b, &z);
}

/* The text behind the zip. */
static void trailing(struct bytes *b, const struct bad_row *row)
{
    struct zip z = {0};
    struct places at;
    two_members(&z, &at, "");
    put_text(&z.all, row->text);
    give(b, &z);
}

/* Sizes of the first member in a zip64 field, as numpy.savez writes them locally; the directory's too. n
 * spoils it. */
static void zip64(struct bytes *b, const struct bad_row *row)
{
    struct zip z = {0};
    struct bytes a = {0}, dir = {0};
    put_npy(&a, 1, "{'descr':'|u1','fortran_order':False,'shape':(3,)}", 3);
    zip_add(&z, "a.npy", a.p, a.n, 0, NULL, NULL);
    put(&dir, z.dir.p, z.dir.n);
    if (dir.n < 46)
        abort();
    memset(dir.p + 20, 0xff, 8);
    dir.p[30] = 20;
    put_le(&dir, row->n == 1 ? 2 : 1, 2); /* the field's id */
    put_le(&dir, row->n == 2 ? 8 : row->n == 3 ? 40 : 16, 2);
    put_le(&dir, a.n, 8);
    put_le(&dir, row->n == 4 ? UINT64_MAX : a.n, 8);
    z.dir.n = 0;
    put(&z.dir, dir.p, dir.n);
    size_t begin = z.all.n;
    put(&z.all, z.dir.p, z.dir.n);
    size_t at64 = z.all.n;
    put_le(&z.all, 0x06064b50, 4);
    put_le(&z.all, 44, 8);
    put_le(&z.all, 45, 2);
    put_le(&z.all, 45, 2);
    put_le(&z.all, 0, 8); /* disks */
    put_le(&z.all, 1, 8);
    put_le(&z.all, row->n == 5 ? UINT64_MAX : 1, 8);
    put_le(&z.all, row->n == 6 ? UINT64_MAX : dir.n, 8);
    put_le(&z.all, row->n == 7 ? UINT64_MAX : begin, 8);
    put_le(&z.all, 0x07064b50, 4);
    put_le(&z.all, 0, 4);
    put_le(&z.all, row->n == 8 ? UINT64_MAX - 10 : at64, 8);
    put_le(&z.all, row->n == 9 ? 0 : 1, 4);
    put_le(&z.all, 0x06054b50, 4);
    put_le(&z.all, 0, 4);
    put_le(&z.all, 0xffffffff, 4);
    put_le(&z.all, UINT64_MAX, 8);
    put_le(&z.all, 0, 2);
    bytes_free(&a);
    bytes_free(&dir);
    give(b, &z);
}

static void raw(struct bytes *b, const struct bad_row *row)
{
    put(b, row->text, row->n);
}

#define GOOD SONDE_OK
#define BAD  SONDE_E_INPUT

static const struct bad_row rows[] = {
    {"two_members", GOOD, good, "", 0},
    {"with_a_comment", GOOD, good, "a comment", 0},
    {"no_members", GOOD, raw, "PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22},
    {"other_members_are_ignored", GOOD, one, "readme.txt", 5},
    {"name_with_a_slash", GOOD, one, "layer/0.npy", 5},
    {"zip64_sizes", GOOD, zip64, "", 0},
    {"longer_than_one_step", GOOD, one, "a.npy", 30000},

    {"empty", BAD, raw, "", 0},
    {"only_a_local_header", BAD, raw, "PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22},
    {"bytes_before_it", BAD, shifted, "", 1},
    {"bytes_after_it", BAD, trailing, "x", 0},
    {"count_too_small", BAD, field, "e0 8 4", 0x00010001},
    {"count_too_large", BAD, field, "e0 8 4", 0x00030003},
    {"count_65535_without_zip64", BAD, field, "e0 8 4", 0xffffffff},
    {"counts_differ", BAD, field, "e0 8 4", 0x00010002},
    {"on_the_second_disk", BAD, field, "e0 4 2", 1},
    {"directory_starts_later", BAD, field, "e0 16 4", 1000},
    {"directory_is_longer", BAD, field, "e0 12 4", 100000},
    {"directory_at_2^32-1", BAD, field, "e0 16 4", 0xffffffff},
    {"comment_longer_than_file", BAD, field, "e0 20 2", 9},
    {"entry_without_signature", BAD, field, "c1 0 4", 0},
    {"entry_name_too_long", BAD, field, "c1 28 2", 0xffff},
    {"entry_comment_too_long", BAD, field, "c1 32 2", 7},
    {"encrypted", BAD, both, "0 6 2", 1},
    {"method_unknown", BAD, both, "0 8 2", 14},
    {"methods_differ", BAD, field, "l0 8 2", 8},
    {"stored_as_deflated", BAD, both, "0 8 2", 8},
    {"deflated_as_stored", BAD, both, "1 8 2", 0},
    {"names_differ", BAD, field, "l0 30 1", 'c'},
    {"name_lengths_differ", BAD, field, "l0 26 2", 4},
    {"local_extra_too_long", BAD, field, "l1 28 2", 60000},
    {"member_past_the_end", BAD, field, "c0 42 4", 100000},
    {"member_inside_another", BAD, field, "c1 42 4", 0},
    {"member_in_the_directory", BAD, field, "c1 20 4", 1000},
    {"stored_sizes_differ", BAD, field, "c0 20 4", 5},
    {"size_2^32-1_without_zip64", BAD, field, "c0 24 4", 0xffffffff},
    {"deflated_longer_than_said", BAD, field, "c1 24 4", 100},
    {"deflated_shorter_than_said", BAD, field, "c1 24 4", 1000},
    {"deflated_claims_4_GB", BAD, field, "c1 24 4", 0xfffffffe},
    {"packed_one_byte_short", BAD, field, "c1 20 4", 20},
    {"checksum_of_stored", BAD, field, "c0 16 4", 1},
    {"checksum_of_deflated", BAD, field, "c1 16 4", 1},
    {"same_member_twice", BAD, shared, "", 0},
    {"member_in_the_data_of_another", BAD, nested, "", 0},
    {"more_than_deflate_can_give", BAD, lying, "", 3000000000},
    {"more_than_is_there", BAD, lying, "", 10000},
    {"less_than_is_there", BAD, lying, "", 2},
    {"bytes_behind_the_compressed_data", BAD, lying, "xyz", 3},
    {"no_bytes_behind_the_compressed_data", GOOD, lying, "", 3},
    {"stored_past_the_end", BAD, both, "0 18 8", 100000ull << 32 | 100000},
    {"name_twice", BAD, twice, "a.npy", 0},
    {"name_empty", BAD, one, ".npy", 3},
    {"name_with_an_escape_sequence", BAD, one, "\x1b[31m.npy", 3},
    {"name_not_utf8", BAD, one, "\xff.npy", 3},
    {"member_is_not_an_array", BAD, member, "x", 0},
    {"member_shape_too_large", BAD, member, "{'descr':'|u1','fortran_order':False,'shape':(1000000,)}", 10},
    {"member_shape_too_small", BAD, member, "{'descr':'|u1','fortran_order':False,'shape':(10,)}", 100000},
    {"member_shape_wraps", BAD, member,
     "{'descr':'|u1','fortran_order':False,'shape':(4294967296,4294967296)}", 0},
    {"zip64_field_missing", BAD, zip64, "", 1},
    {"zip64_field_short", BAD, zip64, "", 2},
    {"zip64_field_cut", BAD, zip64, "", 3},
    {"zip64_size_2^64-1", BAD, zip64, "", 4},
    {"zip64_count_2^64-1", BAD, zip64, "", 5},
    {"zip64_directory_bytes_2^64-1", BAD, zip64, "", 6},
    {"zip64_directory_at_2^64-1", BAD, zip64, "", 7},
    {"zip64_record_past_the_end", BAD, zip64, "", 8},

    {"more_zeros_than_the_budget", SONDE_E_MEMORY, one, "a.npy", 40000000},
};

const struct bad_format bad_format = {"npz", open_file, rows, sizeof rows / sizeof *rows, 0};
