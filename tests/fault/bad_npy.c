/* SPDX-License-Identifier: MIT */
#include "bad_files.h"
#include "file/npy.h"

static enum sonde_code open_file(const struct bytes *b, sonde_budget *budget, sonde_err *err)
{
    sonde_tensors *f;
    enum sonde_code rc = sonde_npy_parse(check_map(b->p, b->n), budget, &f, err);
    if (rc != SONDE_OK)
        return rc;
    check_tensors(f, 0);
    check_that(f->n_tensors == 1);
    check_that((const unsigned char *)f->tensor->data + f->tensor->n_bytes == f->map[0]->data + b->n);
    sonde_tensors_close(f);
    return SONDE_OK;
}

static void v1(struct bytes *b, const struct bad_row *row)
{
    put_npy(b, 1, row->text, row->n);
}

static void v2(struct bytes *b, const struct bad_row *row)
{
    put_npy(b, 2, row->text, row->n);
}

static void v3(struct bytes *b, const struct bad_row *row)
{
    put_npy(b, 3, row->text, row->n);
}

static void raw(struct bytes *b, const struct bad_row *row)
{
    put(b, row->text, row->n);
}

/* A header of n blanks, then the text. */
static void padded(struct bytes *b, const struct bad_row *row)
{
    put(b, "\x93NUMPY\2\0", 8);
    put_le(b, row->n + strlen(row->text), 4);
    put_repeated(b, ' ', row->n);
    put_text(b, row->text);
}

#define H(descr, order, shape) "{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape ", }\n"
#define GOOD                   SONDE_OK
#define BAD                    SONDE_E_INPUT

static const struct bad_row rows[] = {
    {"version_1", GOOD, v1, H("<f4", "False", "(2, 3)"), 24},
    {"version_2", GOOD, v2, H("<i8", "False", "(2,)"), 16},
    {"version_3", GOOD, v3, H("|b1", "False", "()"), 1},
    {"no_elements", GOOD, v1, H("<f2", "False", "(0, 7)"), 0},
    {"complex_is_opaque", GOOD, v1, H("<c8", "False", "(1,)"), 8},
    {"fortran_order_of_one_dimension", GOOD, v1, H("<f4", "True", "(1, 3, 1)"), 12},
    {"a_header_of_10000_bytes", GOOD, padded, "{'descr':'|u1','fortran_order':False,'shape':(0,)}", 9950},

    {"empty", BAD, raw, "", 0},
    {"only_the_magic", BAD, raw, "\x93NUMPY", 6},
    {"other_magic", BAD, raw, "\x93NUMPX\1\0\2\0{}", 12},
    {"version_0", BAD, raw, "\x93NUMPY\0\0\2\0{}", 12},
    {"version_4", BAD, raw, "\x93NUMPY\4\0\2\0\0\0{}", 14},
    {"version_1_1", BAD, raw, "\x93NUMPY\1\1\2\0{}", 12},
    {"header_longer_than_file", BAD, raw, "\x93NUMPY\1\0\3\0{}", 12},
    {"header_of_4_GB", BAD, raw, "\x93NUMPY\2\0\xff\xff\xff\xff{}", 14},
    {"length_cut_short", BAD, raw, "\x93NUMPY\2\0\2\0", 10},
    {"a_header_of_10001_bytes", BAD, padded, "{'descr':'|u1','fortran_order':False,'shape':(0,)}", 9951},
    {"header_empty", BAD, v1, "", 0},
    {"header_without_fields", BAD, v1, "{}", 0},
    {"text_after_the_dictionary", BAD, v1, "{'descr':'|u1','fortran_order':False,'shape':(0,)}x", 0},
    {"dictionary_not_closed", BAD, v1, "{'descr':'|u1','fortran_order':False,'shape':(0,)", 0},
    {"no_comma_between_fields", BAD, v1, "{'descr':'|u1' 'fortran_order':False,'shape':(0,)}", 0},
    {"string_not_closed", BAD, v1, "{'descr", 0},
    {"descr_missing", BAD, v1, "{'fortran_order':False,'shape':(0,)}", 0},
    {"order_missing", BAD, v1, "{'descr':'|u1','shape':(0,)}", 0},
    {"shape_missing", BAD, v1, "{'descr':'|u1','fortran_order':False}", 0},
    {"unknown_field", BAD, v1, "{'descr':'|u1','fortran_order':False,'shape':(0,),'x':1}", 0},
    {"field_twice", BAD, v1, "{'descr':'|u1','descr':'|u1','fortran_order':False,'shape':(0,)}", 0},
    {"objects", BAD, v1, H("|O", "False", "(1,)"), 8},
    {"strings", BAD, v1, H("<U4", "False", "(1,)"), 16},
    {"structure", BAD, v1, "{'descr':[('a','<f4')],'fortran_order':False,'shape':(1,)}", 4},
    {"void", BAD, v1, H("|V2", "False", "(1,)"), 2},
    {"big_endian", BAD, v1, H(">f4", "False", "(1,)"), 4},
    {"float_of_3_bytes", BAD, v1, H("<f3", "False", "(1,)"), 3},
    {"long_double", BAD, v1, H("<f16", "False", "(1,)"), 16},
    {"type_without_order", BAD, v1, H("f4", "False", "(1,)"), 4},
    {"type_empty", BAD, v1, H("", "False", "(1,)"), 4},
    {"type_of_100_letters", BAD, v1,
     H("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "False",
       "(1,)"),
     4},
    {"fortran_order_of_a_matrix", BAD, v1, H("<f4", "True", "(2, 3)"), 24},
    {"order_is_a_number", BAD, v1, H("<f4", "0", "(1,)"), 4},
    {"shape_is_a_list", BAD, v1, H("<f4", "False", "[1]"), 4},
    {"shape_is_a_number", BAD, v1, H("<f4", "False", "(1)"), 4},
    {"dimension_negative", BAD, v1, H("<f4", "False", "(-1,)"), 4},
    {"dimension_float", BAD, v1, H("<f4", "False", "(1.0,)"), 4},
    {"dimension_hexadecimal", BAD, v1, H("<f4", "False", "(0x1,)"), 4},
    {"dimension_2^64", BAD, v1, H("<f4", "False", "(18446744073709551616,)"), 0},
    {"dimension_missing", BAD, v1, H("<f4", "False", "(,1)"), 4},
    {"two_commas", BAD, v1, H("<f4", "False", "(1,,1)"), 4},
    {"shape_not_closed", BAD, v1, "{'descr':'|u1','fortran_order':False,'shape':(1,", 1},
    {"rank_9", BAD, v1, H("|u1", "False", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), 1},
    {"shape_wraps_to_0", BAD, v1, H("|u1", "False", "(4294967296, 4294967296)"), 0},
    {"size_wraps", BAD, v1, H("<f4", "False", "(4611686018427387905,)"), 4},
    {"shape_wraps_before_a_zero", BAD, v1, H("|u1", "False", "(4294967296, 4294967296, 0)"), 0},
    {"data_one_byte_short", BAD, v1, H("<f4", "False", "(2, 3)"), 23},
    {"data_one_byte_long", BAD, v1, H("<f4", "False", "(2, 3)"), 25},
    {"huge_but_empty", BAD, v1, H("<f4", "False", "(1099511627776,)"), 0},
};

const struct bad_format bad_format = {"npy", open_file, rows, sizeof rows / sizeof *rows, 0};
