/* SPDX-License-Identifier: MIT */
#include "bad_files.h"
#include "file/safetensors.h"

static enum sonde_code open_file(const struct bytes *b, sonde_budget *budget, sonde_err *err)
{
    sonde_tensors *f;
    enum sonde_code rc = sonde_safetensors_parse(check_map(b->p, b->n), budget, &f, err);
    if (rc != SONDE_OK)
        return rc;
    check_tensors(f, 0);
    uint64_t n_header;
    memcpy(&n_header, b->p, 8);
    const unsigned char *at =
        f->map[0]->data + 8 + n_header; /* the tensors tile the data in the order of the table */
    for (size_t i = 0; i < f->n_tensors; i++) {
        check_that(f->tensor[i].data == at);
        at += f->tensor[i].n_bytes;
    }
    check_that(at == f->map[0]->data + b->n);
    sonde_tensors_close(f);
    return SONDE_OK;
}

/* text is the header, n bytes of data follow. */
static void st(struct bytes *b, const struct bad_row *row)
{
    put_le(b, strlen(row->text), 8);
    put_text(b, row->text);
    put_repeated(b, 1, row->n);
}

/* The same with the header padded to n bytes, and no data. */
static void padded(struct bytes *b, const struct bad_row *row)
{
    put_le(b, row->n, 8);
    put_text(b, row->text);
    put_repeated(b, ' ', row->n - strlen(row->text));
}

/* text is the whole file. */
static void raw(struct bytes *b, const struct bad_row *row)
{
    put(b, row->text, row->n);
}

/* The header's length is n, whatever it really is. */
static void length(struct bytes *b, const struct bad_row *row)
{
    put_le(b, row->n, 8);
    put_text(b, row->text);
}

/* One tensor of one byte whose name is n times the text. */
static void name(struct bytes *b, const struct bad_row *row)
{
    struct bytes h = {0};
    put_text(&h, "{\"");
    for (uint64_t i = 0; i < row->n; i++)
        put_text(&h, row->text);
    put_text(&h, "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
    put_le(b, h.n, 8);
    put(b, h.p, h.n);
    put_le(b, 0, 1);
    bytes_free(&h);
}

/* n tensors without elements, each named by its number and the text. */
static void many(struct bytes *b, const struct bad_row *row)
{
    struct bytes h = {0};
    for (uint64_t i = 0; i < row->n; i++) {
        char entry[128];
        int n = snprintf(entry, sizeof entry,
                         "%c\"%llu\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? ',' : '{',
                         (unsigned long long)i);
        put(&h, entry, (size_t)n);
    }
    put_text(&h, "}");
    put_le(b, h.n, 8);
    put(b, h.p, h.n);
    bytes_free(&h);
}

/* The header is n times the text. */
static void repeated(struct bytes *b, const struct bad_row *row)
{
    put_le(b, row->n * strlen(row->text), 8);
    for (uint64_t i = 0; i < row->n; i++)
        put_text(b, row->text);
}

#define W(dtype, shape, offsets)                                                                             \
    "{\"w\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define TWO(a, b)                                                                                            \
    "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":" a "},"                                        \
    "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":" b "}}"
#define GOOD SONDE_OK
#define BAD  SONDE_E_INPUT
#define BIG  SONDE_E_MEMORY

static const struct bad_row rows[] = {
    {"one_tensor", GOOD, st, W("F32", "[2,3]", "[0,24]"), 24},
    {"metadata_and_padding", GOOD, st,
     "{\"__metadata__\":{\"format\":\"pt\"},\"w\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}} "
     " ",
     4},
    {"two_tensors_in_any_order", GOOD, st, TWO("[2,4]", "[0,2]"), 4},
    {"keys_in_another_order", GOOD, st, "{\"w\":{\"data_offsets\":[0,1],\"shape\":[],\"dtype\":\"BOOL\"}}",
     1},
    {"no_tensors", GOOD, st, "{}", 0},
    {"only_metadata", GOOD, st, "{\"__metadata__\":{}}", 0},
    {"rank_0", GOOD, st, W("F64", "[]", "[0,8]"), 8},
    {"rank_8", GOOD, st, W("U8", "[1,1,1,1,1,1,1,2]", "[0,2]"), 2},
    {"zero_dimension", GOOD, st, W("F32", "[3,0]", "[0,0]"), 0},
    {"zero_size_tensors_share_an_offset", GOOD, st,
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]},\"b\":{\"dtype\":\"U8\",\"shape\":[0,4],"
     "\"data_offsets\":[1,1]},\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
     2},
    {"eight_bit_floats", GOOD, st, W("F8_E4M3", "[3]", "[0,3]"), 3},
    {"four_bit_floats_in_whole_bytes", GOOD, st, W("F4", "[4]", "[0,2]"), 2},
    {"name_with_a_slash", GOOD, name, "a/b", 1},
    {"name_of_1024_bytes", GOOD, name, "n", 1024},
    {"name_in_another_script", GOOD, name, "\xe6\x9d\x83", 1},
    {"a_length_like_the_magic_of_pickle", GOOD, padded, W("U8", "[0]", "[0,0]"), 640},
    {"three_thousand_tensors", GOOD, many, "", 3000},

    {"empty_file", BAD, raw, "", 0},
    {"seven_bytes", BAD, raw, "\2\0\0\0\0\0\0", 7},
    {"only_the_length", BAD, raw, "\0\0\0\0\0\0\0\0", 8},
    {"header_length_0", BAD, length, "{}", 0},
    {"header_length_1", BAD, length, "{}", 1},
    {"header_length_7", BAD, length, "{}     x", 8},
    {"header_longer_than_file", BAD, length, "{}", 3},
    {"header_length_2^63", BAD, length, "{}", 1ull << 63},
    {"header_length_2^64-1", BAD, length, "{}", UINT64_MAX},
    {"header_length_2^64-8", BAD, length, "{}", UINT64_MAX - 7},
    {"header_length_100MB+1", BAD, length, "{}", 100000001},
    {"header_is_not_json", BAD, st, "{\"w\":", 0},
    {"header_is_an_array", BAD, st, "[]", 0},
    {"header_is_not_utf8", BAD, st, "{\"\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1},
    {"header_with_an_overlong_nul", BAD, name, "a\xc0\x80", 1},
    {"leading_space", BAD, st, " " W("U8", "[1]", "[0,1]"), 1},
    {"text_after_the_json", BAD, st, W("U8", "[1]", "[0,1]") "x", 1},
    {"a_second_value", BAD, st, W("U8", "[1]", "[0,1]") "{}", 1},
    {"nul_padding", BAD, raw, "\5\0\0\0\0\0\0\0{}\0\0\0", 13},
    {"trailing_junk", BAD, st, W("U8", "[1]", "[0,1]"), 2},
    {"data_one_byte_short", BAD, st, W("U8", "[2]", "[0,2]"), 1},
    {"metadata_value_is_a_number", BAD, st, "{\"__metadata__\":{\"a\":1}}", 0},
    {"metadata_is_a_string", BAD, st, "{\"__metadata__\":\"a\"}", 0},
    {"metadata_is_null", BAD, st, "{\"__metadata__\":null}", 0},
    {"metadata_twice", BAD, st, "{\"__metadata__\":{},\"__metadata__\":{}}", 0},
    {"metadata_with_nul", BAD, st, "{\"__metadata__\":{\"a\":\"\\u0000\"}}", 0},
    {"offsets_reversed", BAD, st, W("U8", "[2]", "[2,0]"), 2},
    {"offset_negative", BAD, st, W("U8", "[2]", "[-1,1]"), 2},
    {"offsets_overlap", BAD, st, TWO("[0,2]", "[1,3]"), 3},
    {"offsets_the_same", BAD, st, TWO("[0,2]", "[0,2]"), 2},
    {"offsets_with_a_hole", BAD, st, TWO("[0,2]", "[3,5]"), 5},
    {"hole_at_the_beginning", BAD, st, W("U8", "[1]", "[1,2]"), 2},
    {"offset_past_the_end", BAD, st, W("U8", "[2]", "[0,2]"), 0},
    {"offset_float", BAD, st, W("U8", "[2]", "[0,2.0]"), 2},
    {"offset_exponent", BAD, st, W("U8", "[20]", "[0,2e1]"), 20},
    {"offset_string", BAD, st, W("U8", "[2]", "[0,\"2\"]"), 2},
    {"offset_2^53+1", BAD, st, W("U8", "[9007199254740993]", "[0,9007199254740993]"), 8},
    {"offset_2^63", BAD, st, W("U8", "[1]", "[9223372036854775808,9223372036854775809]"), 1},
    {"offset_2^64", BAD, st, W("U8", "[1]", "[18446744073709551616,18446744073709551617]"), 1},
    {"offsets_wrap", BAD, st, W("U8", "[1]", "[9223372036854775807,9223372036854775807]"), 1},
    {"one_offset", BAD, st, W("U8", "[0]", "[0]"), 0},
    {"three_offsets", BAD, st, W("U8", "[1]", "[0,1,1]"), 1},
    {"offsets_missing", BAD, st, "{\"w\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1},
    {"offsets_are_an_object", BAD, st, W("U8", "[0]", "{}"), 0},
    {"zero_size_tensor_past_the_end", BAD, st, W("U8", "[0]", "[1,1]"), 0},
    {"zero_size_tensor_inside_another", BAD, st,
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[0],"
     "\"data_offsets\":[1,1]}}",
     2},
    {"size_is_not_that_of_the_shape", BAD, st, W("F32", "[2]", "[0,4]"), 4},
    {"shape_product_wraps_to_0", BAD, st, W("U8", "[4294967296,4294967296]", "[0,0]"), 0},
    {"shape_product_wraps_to_the_size", BAD, st, W("F32", "[4611686018427387905]", "[0,4]"), 4},
    {"shape_wraps_before_a_zero", BAD, st, W("U8", "[4294967296,4294967296,0]", "[0,0]"), 0},
    {"zero_before_a_wrap", BAD, st, W("U8", "[0,4294967296,4294967296]", "[0,0]"), 0},
    {"bits_wrap", BAD, st, W("F4", "[4611686018427387904]", "[0,0]"), 0},
    {"half_a_byte", BAD, st, W("F4", "[3]", "[0,2]"), 2},
    {"half_a_byte_cut_off", BAD, st, W("F4", "[3]", "[0,1]"), 1},
    {"offsets_longer_than_the_shape", BAD, st, W("F32", "[2]", "[0,12]"), 12},
    {"dimension_negative", BAD, st, W("U8", "[-1]", "[0,1]"), 1},
    {"dimension_float", BAD, st, W("U8", "[1.0]", "[0,1]"), 1},
    {"dimension_beyond_int64", BAD, st, W("U8", "[18446744073709551617]", "[0,1]"), 1},
    {"dimension_true", BAD, st, W("U8", "[true]", "[0,1]"), 1},
    {"dimension_null", BAD, st, W("U8", "[null]", "[0,1]"), 1},
    {"shape_is_a_number", BAD, st, W("U8", "1", "[0,1]"), 1},
    {"shape_missing", BAD, st, "{\"w\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1},
    {"rank_9", BAD, st, W("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1},
    {"dtype_in_lower_case", BAD, st, W("f32", "[1]", "[0,4]"), 4},
    {"dtype_unknown", BAD, st, W("F31", "[1]", "[0,4]"), 4},
    {"dtype_empty", BAD, st, W("", "[1]", "[0,4]"), 4},
    {"dtype_missing", BAD, st, "{\"w\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1},
    {"dtype_is_a_number", BAD, st, "{\"w\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", 1},
    {"entry_is_null", BAD, st, "{\"w\":null}", 0},
    {"entry_is_an_array", BAD, st, "{\"w\":[]}", 0},
    {"entry_with_a_fourth_key", BAD, st,
     "{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"scale\":2}}", 1},
    {"duplicate_name", BAD, st,
     "{\"w\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
     4},
    {"duplicate_name_after_escape", BAD, st,
     "{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"\\u0077\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
     2},
    {"duplicate_key_in_an_entry", BAD, st,
     "{\"w\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1},
    {"empty_name", BAD, name, "", 1},
    {"name_with_nul", BAD, name, "a\\u0000b", 1},
    {"name_with_a_newline", BAD, name, "a\\nb", 1},
    {"name_with_an_escape_sequence", BAD, name, "\\u001b[31m", 1},
    {"name_with_a_c1_control", BAD, name, "\xc2\x9b", 1},
    {"name_with_a_lone_surrogate", BAD, name, "\\ud800", 1},
    {"name_of_1025_bytes", BAD, name, "n", 1025},
    {"name_of_1_MB", BAD, name, "n", 1000000},
    {"nested_arrays", BAD, repeated, "{\"a\":[[[[[[[[", 100000},
    {"half_a_million_brackets", BAD, repeated, "{", 500000},
    {"pickle", BAD, raw, "\x80\2}q\0.      ", 12},
    {"zip_archive", BAD, raw, "PK\3\4        ", 12},
    {"gguf_file", BAD, raw, "GGUF\3\0\0\0\0\0\0\0", 12},
    {"git_lfs_pointer", BAD, raw, "version https://git-lfs.github.com/spec/v1\n", 43},

    {"more_values_than_the_budget", BIG, repeated, "{},", 100000},
    {"more_text_than_the_budget", BIG, name, "0123456789abcdef", 300000},
    {"more_tensors_than_the_budget", BIG, many, "", 100000},
};

const struct bad_format bad_format = {"safetensors", open_file, rows, sizeof rows / sizeof *rows, 0};
