/* SPDX-License-Identifier: MIT
 * Damaged and hostile GGUF files: one row per defect, then every truncation and every single-bit flip. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "gguf_maker.h"

#define LIMIT ((size_t)16 << 20)

static void tensor_of(struct maker *k, uint32_t rank, const uint64_t *dim, uint32_t type, size_t data_bytes)
{
    put_head(k, 3, 1, 0);
    put_tensor(k, "t", rank, dim, type, 0);
    put_pad(k, 32);
    put_zeros(k, data_bytes);
}

/* Two tensors of 40 bytes each with the given offset of the second, aligned to `align`, `n` bytes of data. */
static void two(struct maker *k, uint64_t off0, uint64_t off1, uint32_t align, size_t n)
{
    put_head(k, 3, 2, align != 32);
    if (align != 32) {
        put_key(k, "general.alignment", KV_U32);
        put32(k, align);
    }
    put_tensor(k, "t", 1, (uint64_t[]){10}, 0, off0);
    put_tensor(k, "u", 1, (uint64_t[]){10}, 0, off1);
    put_pad(k, align >= 8 && align <= 4096 ? align : 32);
    put_zeros(k, n);
}

static void key_of(struct maker *k, const char *name, size_t n)
{
    put_head(k, 3, 0, 1);
    put_bytes(k, name, n);
    put32(k, KV_U8);
    put8(k, 1);
}

static void array_of(struct maker *k, uint32_t item, uint64_t n)
{
    put_head(k, 3, 0, 1);
    put_array(k, "a", item, n);
    put_zeros(k, 64);
}

/* clang-format off */
/* A row: name, how to make it, the code, and words that the message must have (NULL for accepted files). */
#define ROWS                                                                                                           \
    ROW(empty_file, (void)k, 3, "magic")                                                                               \
    ROW(bad_magic, put_str(k, "GGUFGGUFGGUFGGUFGGUF"), 3, "not a GGUF file")                                           \
    ROW(version_0, put_head(k, 0, 0, 0), 3, "version 0")                                                               \
    ROW(version_1, put_head(k, 1, 0, 0), 3, "version 1")                                                               \
    ROW(version_4, put_head(k, 4, 0, 0), 3, "version 4")                                                               \
    ROW(byte_swapped, put_head(k, 0x03000000, 0, 0), 3, "big-endian")                                                  \
    ROW(tensors_beyond_the_file, put_head(k, 3, UINT64_MAX, 0), 3, "18446744073709551615 tensors")                     \
    ROW(keys_beyond_the_file, put_head(k, 3, 0, 1ull << 61), 3, "cannot fit")                                          \
    ROW(no_tensors_no_keys, put_head(k, 3, 0, 0), 0, NULL)                                                             \
    ROW(version_2, put_head(k, 2, 0, 0), 0, NULL)                                                                      \
    ROW(key_length_2_64, (put_head(k, 3, 0, 1), put64(k, UINT64_MAX), put_zeros(k, 64)), 3, "a key at byte 32")        \
    ROW(key_empty, (key_of(k, "", 0), put_zeros(k, 8)), 3, "0 bytes that are no name")                                       \
    ROW(key_with_nul, key_of(k, "a\0b", 3), 3, "3 bytes that are no name")                                                        \
    ROW(key_with_newline, key_of(k, "a\nb", 3), 3, "no name")                                                             \
    ROW(key_not_utf8, key_of(k, "a\xff", 2), 3, "no name")                                                                \
    ROW(key_overlong_utf8, key_of(k, "\xc0\xaf", 2), 3, "no name")                                                        \
    ROW(key_surrogate, key_of(k, "\xed\xa0\x80", 3), 3, "no name")                                                        \
    ROW(key_cut_utf8, key_of(k, "a\xe2\x82", 3), 3, "no name")                                                            \
    ROW(key_utf8, key_of(k, "caf\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 12), 0, NULL)                                   \
    ROW(key_type_13, (put_head(k, 3, 0, 1), put_key(k, "a", 13), put_zeros(k, 64)), 3, "known are 0 to 12")            \
    ROW(key_type_2_32, (put_head(k, 3, 0, 1), put_key(k, "a", UINT32_MAX), put_zeros(k, 64)), 3, "4294967295")         \
    ROW(key_twice, (put_head(k, 3, 0, 3), put_key(k, "a", KV_U8), put8(k, 1), put_key(k, "b", KV_U8), put8(k, 1),       \
                    put_key(k, "a", KV_U8), put8(k, 1)), 3, "'a' is there twice")                                      \
    ROW(huge_string, (put_head(k, 3, 0, 1), put_key(k, "a", KV_STRING), put64(k, 1 << 30), put_zeros(k, 64)), 3,       \
        "1073741824 bytes")                                                                                            \
    ROW(string_length_2_64, (put_head(k, 3, 0, 1), put_key(k, "a", KV_STRING), put64(k, UINT64_MAX), put_zeros(k, 64)),\
        3, "18446744073709551615 bytes")                                                                               \
    ROW(bool_7, (put_head(k, 3, 0, 1), put_key(k, "a", KV_BOOL), put8(k, 7)), 3, "neither 0 nor 1")                    \
    ROW(bool_2_in_array, (put_head(k, 3, 0, 1), put_array(k, "a", KV_BOOL, 2), put8(k, 1), put8(k, 2)), 3,             \
        "neither 0 nor 1")                                                                                             \
    ROW(array_of_arrays, array_of(k, KV_ARRAY, 1), 3, "array of arrays")                                               \
    ROW(array_of_type_13, array_of(k, 13, 1), 3, "item type")                                                          \
    ROW(array_2_61_of_uint64, array_of(k, KV_U64, 1ull << 61), 3, "2305843009213693952 items")                         \
    ROW(array_2_64_of_uint8, array_of(k, KV_U8, UINT64_MAX), 3, "cannot hold them")                                    \
    ROW(array_2_60_of_strings, array_of(k, KV_STRING, 1ull << 60), 3, "cannot hold them")                              \
    ROW(array_one_byte_too_long, array_of(k, KV_U8, 65), 3, "the 64 bytes that follow")                                \
    ROW(array_of_none, (put_head(k, 3, 0, 1), put_array(k, "a", KV_STRING, 0)), 0, NULL)                               \
    ROW(alignment_0, two(k, 0, 64, 0, 104), 3, "general.alignment is uint32 0")                                        \
    ROW(alignment_3, two(k, 0, 64, 3, 104), 3, "general.alignment is uint32 3")                                        \
    ROW(alignment_4, two(k, 0, 64, 4, 104), 3, "power of two from 8")                                                  \
    ROW(alignment_8192, two(k, 0, 8192, 8192, 8232), 3, "to 4096")                                                     \
    ROW(alignment_2_30, two(k, 0, 1 << 30, 1 << 30, 104), 3, "1073741824")                                             \
    ROW(alignment_uint64, (put_head(k, 3, 0, 1), put_key(k, "general.alignment", KV_U64), put64(k, 32)), 3, "uint64")   \
    ROW(alignment_string, (put_head(k, 3, 0, 1), put_key(k, "general.alignment", KV_STRING), put_str(k, "32")), 3,     \
        "string")                                                                                                      \
    ROW(alignment_8, two(k, 0, 40, 8, 80), 0, NULL)                                                                    \
    ROW(alignment_4096, two(k, 0, 4096, 4096, 4136), 0, NULL)                                                          \
    ROW(alignment_64_offsets_of_32, two(k, 0, 32, 64, 168), 3, "multiples of the alignment")                           \
    ROW(alignment_32_offsets_of_128, two(k, 0, 128, 32, 168), 3, "hole")                                               \
    ROW(name_1025_bytes, (put_head(k, 3, 1, 0), put_bytes(k, (char[1025]){0}, 1025), put_zeros(k, 64)), 3,             \
        "1025 bytes that are no name")                                                                                       \
    ROW(name_empty, (put_head(k, 3, 1, 0), put_tensor(k, "", 0, NULL, 0, 0), put_zeros(k, 64)), 3, "0 bytes that")          \
    ROW(name_with_escape, (put_head(k, 3, 1, 0), put_tensor(k, "\33[2J", 0, NULL, 0, 0), put_zeros(k, 64)), 3, "no name") \
    ROW(name_twice, (put_head(k, 3, 2, 0), put_tensor(k, "t", 1, (uint64_t[]){8}, 0, 0),                               \
                     put_tensor(k, "t", 1, (uint64_t[]){8}, 0, 32), put_pad(k, 32), put_zeros(k, 64)), 3, "'t'")       \
    ROW(rank_5, tensor_of(k, 5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 32), 3, "5 dimensions, at most 4")                     \
    ROW(rank_2_32, tensor_of(k, UINT32_MAX, (uint64_t[16]){1}, 0, 32), 3, "4294967295 dimensions")                     \
    ROW(rank_0, tensor_of(k, 0, NULL, 0, 4), 0, NULL)                                                                  \
    ROW(rank_4, tensor_of(k, 4, (uint64_t[]){2, 1, 2, 1}, 0, 16), 0, NULL)                                             \
    ROW(zero_dimension, tensor_of(k, 2, (uint64_t[]){0, 5}, 0, 0), 0, NULL)                                            \
    ROW(zero_outer_dimension, tensor_of(k, 2, (uint64_t[]){32, 0}, 8, 0), 0, NULL)                                     \
    ROW(zero_times_2_64, tensor_of(k, 3, (uint64_t[]){0, 1ull << 32, 1ull << 32}, 0, 0), 3, "larger than")             \
    ROW(shape_2_32_2_32, tensor_of(k, 2, (uint64_t[]){1ull << 32, 1ull << 32}, 0, 32), 3, "larger than")               \
    ROW(shape_2_64, tensor_of(k, 1, (uint64_t[]){UINT64_MAX}, 0, 32), 3, "larger than")                                \
    ROW(shape_wraps_in_elements, tensor_of(k, 2, (uint64_t[]){1ull << 32, 1ull << 32}, 41, 32), 3, "larger than")      \
    ROW(size_pad_wraps, tensor_of(k, 1, (uint64_t[]){UINT64_MAX - 6}, 24, 32), 3, "cut short")                         \
    ROW(sum_wraps, (put_head(k, 3, 2, 0), put_tensor(k, "t", 1, (uint64_t[]){1ull << 63}, 24, 0),                      \
                    put_tensor(k, "u", 1, (uint64_t[]){1ull << 63}, 24, 1ull << 63), put_zeros(k, 64)), 3, "cut short") \
    ROW(exabyte_tensor_4_bytes, tensor_of(k, 1, (uint64_t[]){1ull << 58}, 0, 4), 3, "cut short")                       \
    ROW(type_4_removed, tensor_of(k, 1, (uint64_t[]){32}, 4, 128), 3, "type 4")                                        \
    ROW(type_31_removed, tensor_of(k, 1, (uint64_t[]){32}, 31, 128), 3, "type 31")                                     \
    ROW(type_9_never_stored, tensor_of(k, 1, (uint64_t[]){32}, 9, 128), 3, "type 9")                                   \
    ROW(type_42, tensor_of(k, 1, (uint64_t[]){32}, 42, 128), 3, "type 42")                                             \
    ROW(type_2_32, tensor_of(k, 1, (uint64_t[]){32}, UINT32_MAX, 128), 3, "type 4294967295")                           \
    ROW(q8_0_of_33_columns, tensor_of(k, 2, (uint64_t[]){33, 32}, 8, 2048), 3, "multiple of 32")                       \
    ROW(q8_0_scalar, tensor_of(k, 0, NULL, 8, 34), 3, "multiple of 32")                                                \
    ROW(q4_k_of_32_columns, tensor_of(k, 1, (uint64_t[]){32}, 12, 144), 3, "multiple of 256")                          \
    ROW(offset_not_aligned, two(k, 0, 40, 32, 104), 3, "multiples of the alignment")                                   \
    ROW(offset_2_64, two(k, 0, UINT64_MAX, 32, 104), 3, "18446744073709551615")                                        \
    ROW(offset_2_64_aligned, two(k, 0, UINT64_MAX - 31, 32, 104), 3, "hole")                                           \
    ROW(first_offset_not_0, two(k, 32, 96, 32, 136), 3, "hole")                                                        \
    ROW(tensors_overlap, two(k, 0, 32, 32, 104), 3, "overlaps")                                                        \
    ROW(tensors_at_one_place, two(k, 0, 0, 32, 104), 3, "overlaps")                                                    \
    ROW(hole_between_tensors, two(k, 0, 96, 32, 136), 3, "hole")                                                       \
    ROW(tensors_in_another_order, two(k, 64, 0, 32, 104), 0, NULL)                                                     \
    ROW(data_one_byte_short, two(k, 0, 64, 32, 103), 3, "cut short")                                                   \
    ROW(data_exact, two(k, 0, 64, 32, 104), 0, NULL)                                                                   \
    ROW(data_padded, two(k, 0, 64, 32, 128), 0, NULL)                                                                  \
    ROW(data_trailing, two(k, 0, 64, 32, 129), 3, "25 bytes follow")                                                   \
    ROW(trailing_without_tensors, (put_head(k, 3, 0, 0), put_zeros(k, 9)), 3, "9 bytes follow")                        \
    ROW(every_kind, put_whole_file(k), 0, NULL)

/* clang-format on */

struct row {
    const char *name;
    void (*make)(struct maker *k);
    enum sonde_code want;
    const char *says;
};

#define ROW(name, make, want, says)                                                                          \
    static void make_##name(struct maker *k)                                                                 \
    {                                                                                                        \
        make;                                                                                                \
    }
ROWS
#undef ROW

    static const struct row rows[] = {
#define ROW(name, make, want, says) {#name, make_##name, (enum sonde_code)want, says},
        ROWS
#undef ROW
};

static void row_is_as_promised(void **state)
{
    const struct row *r = *state;
    static struct maker k;
    k.n = 0;
    r->make(&k);
    sonde_budget budget = {.limit = LIMIT};
    sonde_tensors *f = NULL;
    sonde_err err = {0};
    enum sonde_code rc = sonde_gguf_parse(map_of(k.b, k.n), &budget, &f, &err);
    if (rc != r->want || (r->says && !strstr(err.msg, r->says)))
        fail_msg("%s: code %d, message '%s'", r->name, (int)rc, err.msg);
    if (rc == SONDE_OK)
        check_gguf(f);
    else
        assert_null(f);
    sonde_tensors_close(f);
    assert_int_equal(budget.taken, 0);
}

/* Parse n bytes; whatever comes out must be clean. */
static enum sonde_code try(const void *p, size_t n)
{
    sonde_budget budget = {.limit = LIMIT};
    sonde_tensors *f = NULL;
    sonde_err err = {0};
    enum sonde_code rc = sonde_gguf_parse(map_of(p, n), &budget, &f, &err);
    assert_true(rc == SONDE_OK || rc == SONDE_E_INPUT || rc == SONDE_E_MEMORY);
    if (rc == SONDE_OK)
        check_gguf(f);
    else
        assert_true(err.msg[0] && err.code == rc);
    sonde_tensors_close(f);
    assert_int_equal(budget.taken, 0);
    return rc;
}

static void truncation_at_every_byte_is_refused(void **state)
{
    (void)state;
    static struct maker k;
    k.n = 0;
    put_whole_file(&k);
    assert_int_equal(try(k.b, k.n), SONDE_OK);
    for (size_t n = 0; n < k.n; n++)
        assert_int_equal(try(k.b, n), SONDE_E_INPUT);
}

static void every_single_bit_flip_is_clean(void **state)
{
    (void)state;
    static struct maker k;
    k.n = 0;
    put_whole_file(&k);
    for (size_t bit = 0; bit < 8 * k.n; bit++) {
        k.b[bit / 8] ^= (unsigned char)(1u << bit % 8);
        try(k.b, k.n);
        k.b[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}

static void memory_limit_is_kept(void **state)
{
    (void)state;
    static struct maker k;
    k.n = 0;
    put_whole_file(&k);
    sonde_budget budget = {.limit = 1 << 20};
    sonde_tensors *f = NULL;
    sonde_err err = {0};
    assert_int_equal(sonde_gguf_parse(map_of(k.b, k.n), &budget, &f, &err), SONDE_E_MEMORY);
    assert_non_null(strstr(err.msg, "memory limit"));
    assert_int_equal(budget.taken, 0);
}

/* Every row as a file in dir: the seeds of fuzz_gguf. */
static int write_seeds(const char *dir)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        static struct maker k;
        char path[512];
        snprintf(path, sizeof path, "%s/%s", dir, rows[i].name);
        k.n = 0;
        rows[i].make(&k);
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(k.b, 1, k.n, f) != k.n || fclose(f) != 0)
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0)
        return write_seeds(argv[2]);
    enum { N = sizeof rows / sizeof *rows };
    static struct CMUnitTest tests[N + 3];
    for (size_t i = 0; i < N; i++)
        tests[i] =
            (struct CMUnitTest){rows[i].name, row_is_as_promised, NULL, NULL, (void *)(uintptr_t)&rows[i]};
    tests[N] = (struct CMUnitTest)cmocka_unit_test(truncation_at_every_byte_is_refused);
    tests[N + 1] = (struct CMUnitTest)cmocka_unit_test(every_single_bit_flip_is_clean);
    tests[N + 2] = (struct CMUnitTest)cmocka_unit_test(memory_limit_is_kept);
    return cmocka_run_group_tests_name("bad_gguf", tests, NULL, NULL);
}
