/* SPDX-License-Identifier: MIT
 * .npy and .npz, as they should be. Defects are in tests/fault, agreement with NumPy in tests/interop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../fault/bytes.h"
#include "file/npy.h"

static char dir[32], path[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-test-XXXXXX");
    snprintf(path, sizeof path, "%.24s/array.npy", mkdtemp(dir));
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    static const double raw[6] = {1, 2, 3, 4, 5, 6};
    static const struct {
        enum sonde_dtype type;
        const char *descr;
    } all[] = {{SONDE_F32, "<f4"}, {SONDE_F16, "<f2"}, {SONDE_F64, "<f8"}, {SONDE_I8, "|i1"},
               {SONDE_U8, "|u1"},  {SONDE_I16, "<i2"}, {SONDE_U16, "<u2"}, {SONDE_I32, "<i4"},
               {SONDE_U32, "<u4"}, {SONDE_I64, "<i8"}, {SONDE_U64, "<u8"}, {SONDE_BOOL, "|b1"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (int rank = 0; rank <= 8; rank++) {
            sonde_tensor t = {
                .dtype = all[i].type, .rank = rank, .dim = {1, 1, 1, 1, 1, 1, 1, 1}, .data = raw};
            size_t n = 1;
            if (rank) {
                t.dim[rank - 1] = 3;
                n = 3;
            }
            if (rank > 1) {
                t.dim[0] = 2;
                n = 6;
            }
            t.n_bytes = n * sonde_dtype_size(t.dtype);
            assert_int_equal(sonde_npy_write(path, &t, true, NULL), SONDE_OK);
            sonde_tensors *f;
            sonde_err err;
            if (sonde_npy_open(path, NULL, &f, &err) != SONDE_OK)
                fail_msg("%s", err.msg);
            const sonde_tensor *back = sonde_tensors_find(f, "array");
            assert_non_null(back);
            assert_int_equal(back->dtype, t.dtype);
            assert_string_equal(back->type_name, all[i].descr);
            assert_int_equal(back->rank, rank);
            for (int k = 0; k < rank; k++)
                assert_int_equal(back->dim[k], t.dim[k]);
            assert_int_equal(back->n_bytes, t.n_bytes);
            assert_memory_equal(back->data, raw, t.n_bytes);
            assert_int_equal((size_t)((const unsigned char *)back->data - f->map[0]->data) % 64, 0);
            sonde_tensors_close(f);
        }
}

static sonde_map *in_memory(const struct bytes *b)
{
    sonde_map *m;
    assert_int_equal(sonde_map_copy(b->p, b->n, "memory", &m, NULL), SONDE_OK);
    return m;
}

static void headers_may_be_spelt_as_python_allows(void **state)
{
    (void)state;
    static const struct {
        int version;
        const char *header;
    } good[] = {
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n"},
        {2, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }   \n"},
        {3, "{\"shape\":(2,1),\"descr\":\"<f4\",\"fortran_order\":False}"},
        {1, "{'descr': '<f4', 'fortran_order': True, 'shape': (2L, 1L,)}\n"},
        {1, " {'descr': '=f4' , 'fortran_order' : False, 'shape': ( 2 , 1 ) } "},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct bytes b = {0};
        sonde_tensors *f;
        sonde_err err;
        put_npy(&b, good[i].version, good[i].header, 8);
        if (sonde_npy_parse(in_memory(&b), NULL, &f, &err) != SONDE_OK)
            fail_msg("%s: %s", good[i].header, err.msg);
        assert_int_equal(f->tensor->rank, 2);
        assert_int_equal(f->tensor->dim[0], 2);
        assert_int_equal(f->tensor->dim[1], 1);
        assert_int_equal(f->tensor->n_bytes, 8);
        sonde_tensors_close(f);
        bytes_free(&b);
    }
}

static void types_that_numpy_lacks_are_not_written(void **state)
{
    (void)state;
    uint16_t x[2] = {0};
    sonde_tensor t = {.dtype = SONDE_BF16, .rank = 1, .dim = {2}, .data = x, .n_bytes = 4};
    assert_int_equal(sonde_npy_write(path, &t, true, NULL), SONDE_E_USAGE);
    t.dtype = SONDE_F16;
    t.n_bytes = 3;
    assert_int_equal(sonde_npy_write(path, &t, true, NULL), SONDE_E_USAGE);
    assert_int_equal(access(path, F_OK), -1);
}

static void stored_and_deflated_members_are_read(void **state)
{
    (void)state;
    static float big[12000];
    for (int i = 0; i < 12000; i++)
        big[i] = (float)(i / 100);
    struct bytes array = {0}, small = {0};
    put_npy(&array, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (100, 120), }", 0);
    put(&array, big, sizeof big);
    put_npy(&small, 1, "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }", 0);
    put(&small, (int32_t[]){7, 8}, 8);
    struct zip z = {0};
    zip_add(&z, "W_enc.npy", array.p, array.n, 1, NULL, NULL);
    zip_add(&z, "b.npy", small.p, small.n, 0, NULL, NULL);
    zip_add(&z, "tiny.npy", small.p, small.n, 1, NULL, NULL);
    zip_add(&z, "readme.txt", "hello", 5, 1, NULL, NULL);
    zip_end(&z, "a comment", NULL);

    sonde_budget budget = {.limit = 16 << 20};
    sonde_tensors *f;
    sonde_err err;
    if (sonde_npz_parse(in_memory(&z.all), &budget, &f, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
    assert_string_equal(f->format, "npz");
    assert_int_equal(f->n_tensors, 3);
    assert_memory_equal(sonde_tensors_find(f, "W_enc")->data, big, sizeof big);
    assert_int_equal(sonde_tensors_find(f, "W_enc")->dim[1], 120);
    assert_memory_equal(sonde_tensors_find(f, "b")->data, ((int32_t[]){7, 8}), 8);
    assert_memory_equal(sonde_tensors_find(f, "tiny")->data, ((int32_t[]){7, 8}), 8);
    sonde_tensors_close(f);
    assert_int_equal(budget.taken, 0);
    bytes_free(&array);
    bytes_free(&small);
    zip_free(&z);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        T(what_is_written_is_read_back),
        T(headers_may_be_spelt_as_python_allows),
        T(types_that_numpy_lacks_are_not_written),
        T(stored_and_deflated_members_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
