/* SPDX-License-Identifier: MIT
 * The index of names, and elements as float32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "file/tensors.h"

static sonde_tensor view(enum sonde_dtype t, const void *data, uint64_t n)
{
    return (sonde_tensor){
        .name = "x", .type_name = sonde_dtype_name(t), .dtype = t, .rank = 1, .dim = {n}, .data = data};
}

static void every_name_is_found_and_no_other(void **state)
{
    (void)state;
    enum { N = 5000 };
    sonde_arena *a = sonde_arena_new(NULL, NULL);
    sonde_tensor *t = calloc(N, sizeof *t);
    char(*name)[32] = calloc(N, 32);
    for (int i = 0; i < N; i++) {
        snprintf(name[i], 32, "blocks.%d.attn.W_Q", i);
        t[i].name = name[i];
    }
    sonde_tensors f = {.arena = a, .tensor = t, .n_tensors = N};
    assert_int_equal(sonde_tensors_index(&f, "path", NULL), SONDE_OK);
    for (int i = 0; i < N; i++)
        if (sonde_tensors_find(&f, name[i]) != &t[i])
            fail();
    assert_null(sonde_tensors_find(&f, "blocks.5000.attn.W_Q"));
    assert_null(sonde_tensors_find(&f, ""));

    strcpy(name[4999], "blocks.17.attn.W_Q");
    sonde_err err;
    assert_int_equal(sonde_tensors_index(&f, "path", &err), SONDE_E_INPUT);
    assert_string_equal(err.msg, "path: there are two tensors 'blocks.17.attn.W_Q'");
    free(t);
    free(name);
    sonde_arena_free(a);
}

static void a_set_without_tensors_finds_nothing(void **state)
{
    (void)state;
    sonde_arena *a = sonde_arena_new(NULL, NULL);
    sonde_tensors f = {.arena = a};
    assert_int_equal(sonde_tensors_index(&f, "path", NULL), SONDE_OK);
    assert_null(sonde_tensors_find(&f, "x"));
    assert_null(sonde_meta_find(&f, "x"));
    sonde_arena_free(a);
    sonde_tensors_close(NULL);
}

static void all_16_bit_values_convert_exactly_at_any_address(void **state)
{
    (void)state;
    unsigned char *raw = malloc(2 * 65536 + 1), *in = raw + 1;
    float *out = malloc(65536 * sizeof *out);
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t h = (uint16_t)i;
        memcpy(in + 2 * i, &h, 2);
    }
    sonde_tensor f16 = view(SONDE_F16, in, 65536), bf16 = view(SONDE_BF16, in, 65536);
    assert_int_equal(sonde_tensor_to_f32(&f16, 0, 65536, out, NULL), SONDE_OK);
    for (uint32_t i = 0; i < 65536; i++)
        if (sonde_f32_bits(out[i]) != sonde_f32_bits(sonde_f16_to_f32((uint16_t)i)))
            fail_msg("float16 %#x", i);
    assert_int_equal(sonde_tensor_to_f32(&bf16, 0, 65536, out, NULL), SONDE_OK);
    for (uint32_t i = 0; i < 65536; i++)
        if (sonde_f32_bits(out[i]) != i << 16)
            fail_msg("bfloat16 %#x", i);
    assert_int_equal(sonde_tensor_to_f32(&f16, 0x3c00, 1, out, NULL), SONDE_OK);
    assert_true(out[0] == 1.0f);
    free(raw);
    free(out);
}

static void integers_and_doubles_are_rounded_once(void **state)
{
    (void)state;
    float out[4];
    int8_t i8[] = {-128, 0, 127};
    uint8_t u8[] = {0, 255, 7};
    int16_t i16[] = {-32768, 1, 32767};
    uint16_t u16[] = {65535, 0, 1};
    int32_t i32[] = {INT32_MIN, 16777217, -3};
    uint32_t u32[] = {UINT32_MAX, 16777217, 3};
    int64_t i64[] = {INT64_MIN, INT64_MAX, (1ll << 40) + 1};
    uint64_t u64[] = {UINT64_MAX, 1, 2};
    double f64[] = {0.1, 1e300, -0.0};
    unsigned char yes[] = {0, 1, 2};
#define SAME(T, array)                                                                                       \
    do {                                                                                                     \
        sonde_tensor t = view(T, array, 3);                                                                  \
        assert_int_equal(sonde_tensor_to_f32(&t, 0, 3, out, NULL), SONDE_OK);                                \
        for (int k = 0; k < 3; k++)                                                                          \
            assert_true(out[k] == (float)array[k]);                                                          \
    } while (0)
    SAME(SONDE_I8, i8);
    SAME(SONDE_U8, u8);
    SAME(SONDE_I16, i16);
    SAME(SONDE_U16, u16);
    SAME(SONDE_I32, i32);
    SAME(SONDE_U32, u32);
    SAME(SONDE_I64, i64);
    SAME(SONDE_U64, u64);
    SAME(SONDE_F64, f64);
    sonde_tensor t = view(SONDE_BOOL, yes, 3);
    assert_int_equal(sonde_tensor_to_f32(&t, 0, 3, out, NULL), SONDE_OK);
    assert_true(out[0] == 0 && out[1] == 1 && out[2] == 1);
}

static void q8_0_is_scale_times_integer_over_any_range(void **state)
{
    (void)state;
    enum { BLOCKS = 5, N = 32 * BLOCKS };
    unsigned char block[BLOCKS][34];
    float want[N], out[N];
    for (int b = 0; b < BLOCKS; b++) {
        uint16_t scale = sonde_f32_to_f16(0.037f * (float)(b + 1) * (b & 1 ? -1.0f : 1.0f));
        memcpy(block[b], &scale, 2);
        for (int i = 0; i < 32; i++) {
            int8_t q = (int8_t)(b * 32 + i * 7 - 128);
            memcpy(&block[b][2 + i], &q, 1);
            want[32 * b + i] = sonde_f16_to_f32(scale) * (float)q;
        }
    }
    sonde_tensor t = {
        .name = "q", .dtype = SONDE_Q8_0, .rank = 2, .dim = {1, N}, .data = block, .n_bytes = sizeof block};
    for (size_t first = 0; first <= N; first++)
        for (size_t n = 0; first + n <= N; n++) {
            assert_int_equal(sonde_tensor_to_f32(&t, first, n, out, NULL), SONDE_OK);
            if (memcmp(out, want + first, n * sizeof *out) != 0)
                fail_msg("%zu values from %zu", n, first);
        }
}

static void what_is_out_of_range_or_opaque_is_refused(void **state)
{
    (void)state;
    float in[4] = {1, 2, 3, 4}, out[4];
    sonde_tensor t = view(SONDE_F32, in, 4);
    assert_int_equal(sonde_tensor_to_f32(&t, 1, 3, out, NULL), SONDE_OK);
    assert_true(out[0] == 2 && out[2] == 4);
    assert_int_equal(sonde_tensor_to_f32(&t, 4, 0, out, NULL), SONDE_OK);
    assert_int_equal(sonde_tensor_to_f32(&t, 4, 1, out, NULL), SONDE_E_USAGE);
    assert_int_equal(sonde_tensor_to_f32(&t, 1, SIZE_MAX, out, NULL), SONDE_E_USAGE);
    t.dtype = SONDE_OPAQUE;
    t.type_name = "F8_E4M3";
    sonde_err err;
    assert_int_equal(sonde_tensor_to_f32(&t, 0, 1, out, &err), SONDE_E_INPUT);
    assert_non_null(strstr(err.msg, "F8_E4M3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_is_found_and_no_other),
        cmocka_unit_test(a_set_without_tensors_finds_nothing),
        cmocka_unit_test(all_16_bit_values_convert_exactly_at_any_address),
        cmocka_unit_test(integers_and_doubles_are_rounded_once),
        cmocka_unit_test(q8_0_is_scale_times_integer_over_any_range),
        cmocka_unit_test(what_is_out_of_range_or_opaque_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
