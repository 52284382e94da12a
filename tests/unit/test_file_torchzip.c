/* SPDX-License-Identifier: MIT
 * Files of torch.save and .npz, written and read back; the zip container in its wide form. Defects are in
 * tests/fault, agreement with torch and NumPy in tests/interop. */
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
#include "file/torchzip.h"
#include "file/zip_impl.h"

static char dir[32], path[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-test-XXXXXX");
    snprintf(path, sizeof path, "%.24s/file", mkdtemp(dir));
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static const float numbers[6] = {1, -2, 3.5f, 4, 5, 6};

static sonde_tensor matrix(const char *name)
{
    return (sonde_tensor){.name = name,
                          .dtype = SONDE_F32,
                          .rank = 2,
                          .dim = {2, 3},
                          .data = numbers,
                          .n_bytes = sizeof numbers};
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    static const enum sonde_dtype types[] = {SONDE_F32, SONDE_F16, SONDE_BF16, SONDE_F64, SONDE_I8,
                                             SONDE_U8,  SONDE_I16, SONDE_I32,  SONDE_I64, SONDE_BOOL};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (int rank = 0; rank <= 8; rank++) {
            sonde_tensor t = {
                .name = "a.b", .dtype = types[i], .rank = rank, .dim = {1, 1, 1, 1, 1, 1, 1, 1}};
            t.data = numbers;
            if (rank)
                t.dim[rank - 1] = 2;
            t.n_bytes = (rank ? 2 : 1) * sonde_dtype_size(types[i]);
            sonde_err err;
            if (sonde_torchzip_write(path, &t, 1, NULL, 0, true, &err) != SONDE_OK)
                fail_msg("%s", err.msg);
            sonde_tensors *f;
            if (sonde_torchzip_open(path, NULL, &f, &err) != SONDE_OK)
                fail_msg("%s", err.msg);
            assert_string_equal(f->format, "torch");
            assert_int_equal(f->n_tensors, 1);
            const sonde_tensor *back = sonde_tensors_find(f, "a.b");
            assert_non_null(back);
            assert_int_equal(back->dtype, types[i]);
            assert_int_equal(back->rank, rank);
            for (int k = 0; k < rank; k++)
                assert_int_equal(back->dim[k], t.dim[k]);
            assert_int_equal(back->n_bytes, t.n_bytes);
            assert_memory_equal(back->data, numbers, t.n_bytes);
            assert_int_equal((size_t)((const unsigned char *)back->data - f->map[0]->data) % 64, 0);
            sonde_tensors_close(f);
        }
}

static void plain_values_are_kept_in_their_groups(void **state)
{
    (void)state;
    const sonde_torch_value value[] = {
        {NULL, {.key = "small", .type = SONDE_META_INT, .i = 200}},
        {NULL, {.key = "negative", .type = SONDE_META_INT, .i = -70000}},
        {NULL, {.key = "large", .type = SONDE_META_INT, .i = INT64_MIN}},
        {"group", {.key = "half", .type = SONDE_META_FLOAT, .f = 0.1}},
        {"group", {.key = "on", .type = SONDE_META_BOOL, .i = 1}},
        {"other", {.key = "text", .type = SONDE_META_STRING, .s = "a\n\xc3\xa4", .n_bytes = 4}},
        {NULL, {.key = "off", .type = SONDE_META_BOOL, .i = 0}},
    };
    sonde_tensor t = matrix("w");
    sonde_tensors *f = NULL;
    sonde_err err;
    if (sonde_torchzip_write(path, &t, 1, value, 7, true, &err) != SONDE_OK ||
        sonde_torchzip_open(path, NULL, &f, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(f->n_meta, 7);
    assert_int_equal(sonde_meta_find(f, "small")->i, 200);
    assert_int_equal(sonde_meta_find(f, "negative")->i, -70000);
    assert_true(sonde_meta_find(f, "large")->i == INT64_MIN);
    assert_true(sonde_meta_find(f, "group.half")->f == 0.1);
    assert_int_equal(sonde_meta_find(f, "group.on")->type, SONDE_META_BOOL);
    assert_int_equal(sonde_meta_find(f, "group.on")->i, 1);
    assert_int_equal(sonde_meta_find(f, "off")->i, 0);
    assert_memory_equal(sonde_meta_find(f, "other.text")->s, "a\n\xc3\xa4", 5);
    sonde_tensors_close(f);
}

static void names_and_types_that_torch_lacks_are_not_written(void **state)
{
    (void)state;
    char fresh[80];
    snprintf(fresh, sizeof fresh, "%s/fresh", dir);
    sonde_tensor t[2] = {matrix("w"), matrix("w")};
    assert_int_equal(sonde_torchzip_write(fresh, t, 2, NULL, 0, true, NULL), SONDE_E_USAGE);
    t[1].name = "a\nb";
    assert_int_equal(sonde_torchzip_write(fresh, t, 2, NULL, 0, true, NULL), SONDE_E_USAGE);
    t[1] = matrix("v");
    t[1].dtype = SONDE_U16;
    t[1].dim[1] = 6;
    assert_int_equal(sonde_torchzip_write(fresh, t, 2, NULL, 0, true, NULL), SONDE_E_USAGE);
    t[1] = matrix("v");
    t[1].n_bytes--;
    assert_int_equal(sonde_torchzip_write(fresh, t, 2, NULL, 0, true, NULL), SONDE_E_USAGE);
    sonde_torch_value v[3] = {{NULL, {.key = "w", .type = SONDE_META_INT}}};
    assert_int_equal(sonde_torchzip_write(fresh, t, 1, v, 1, true, NULL), SONDE_E_USAGE);
    v[0].value.key = "k";
    v[0].value.type = SONDE_META_ARRAY;
    assert_int_equal(sonde_torchzip_write(fresh, t, 1, v, 1, true, NULL), SONDE_E_USAGE);
    v[0] = (sonde_torch_value){"g", {.key = "a", .type = SONDE_META_INT}};
    v[1] = (sonde_torch_value){NULL, {.key = "b", .type = SONDE_META_INT}};
    v[2] = (sonde_torch_value){"g", {.key = "c", .type = SONDE_META_INT}};
    assert_int_equal(sonde_torchzip_write(fresh, t, 1, v, 3, true, NULL), SONDE_E_USAGE);
    assert_int_equal(access(fresh, F_OK), -1);
}

static void an_existing_file_is_replaced_only_when_asked(void **state)
{
    (void)state;
    sonde_tensor t = matrix("w");
    assert_int_equal(sonde_torchzip_write(path, &t, 1, NULL, 0, true, NULL), SONDE_OK);
    assert_int_equal(sonde_torchzip_write(path, &t, 1, NULL, 0, false, NULL), SONDE_E_USAGE);
    assert_int_equal(sonde_npz_write(path, &t, 1, false, NULL), SONDE_E_USAGE);
}

static size_t slurp(char *buf, size_t n)
{
    FILE *f = fopen(path, "rb");
    size_t got = fread(buf, 1, n, f);
    fclose(f);
    return got;
}

static void the_same_input_gives_the_same_bytes(void **state)
{
    (void)state;
    static char a[4096], b[4096];
    sonde_tensor t = matrix("w");
    sonde_torchzip_write(path, &t, 1, NULL, 0, true, NULL);
    size_t n = slurp(a, sizeof a);
    sonde_torchzip_write(path, &t, 1, NULL, 0, true, NULL);
    assert_int_equal(slurp(b, sizeof b), n);
    assert_memory_equal(a, b, n);
    sonde_npz_write(path, &t, 1, true, NULL);
    n = slurp(a, sizeof a);
    sonde_npz_write(path, &t, 1, true, NULL);
    assert_int_equal(slurp(b, sizeof b), n);
    assert_memory_equal(a, b, n);
}

static void npz_is_read_back_from_the_mapping(void **state)
{
    (void)state;
    sonde_tensor t[3] = {matrix("W_enc"), matrix("b/x"), matrix("s")};
    t[2].rank = 0;
    t[2].n_bytes = 4;
    sonde_tensors *f = NULL;
    sonde_err err;
    if (sonde_npz_write(path, t, 3, true, &err) != SONDE_OK ||
        sonde_npz_open(path, NULL, &f, &err) != SONDE_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(f->n_tensors, 3);
    for (int i = 0; i < 3; i++) {
        const sonde_tensor *back = sonde_tensors_find(f, t[i].name);
        assert_non_null(back);
        assert_int_equal(back->rank, t[i].rank);
        assert_int_equal(back->n_bytes, t[i].n_bytes);
        assert_memory_equal(back->data, numbers, t[i].n_bytes);
        assert_int_equal((size_t)((const unsigned char *)back->data - f->map[0]->data) % 64, 0);
    }
    sonde_tensors_close(f);
    t[1].name = "W_enc";
    assert_int_equal(sonde_npz_write(path, t, 3, true, NULL), SONDE_E_USAGE);
    t[1] = matrix("bf");
    t[1].dtype = SONDE_BF16;
    assert_int_equal(sonde_npz_write(path, t, 3, true, NULL), SONDE_E_USAGE);
}

/* With a low limit every number is written in its zip64 place. */
static void wide_zips_are_read_as_narrow_ones(void **state)
{
    (void)state;
    static const uint32_t limits[] = {1, 2, 7, 100, 600, UINT32_MAX};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        sonde_zip_writer *w;
        sonde_map *m;
        sonde_zip z;
        assert_int_equal(sonde_zip_begin(path, true, limits[i], &w, NULL), SONDE_OK);
        assert_int_equal(sonde_zip_add(w, "a/one", "head", 4, numbers, sizeof numbers, NULL), SONDE_OK);
        assert_int_equal(sonde_zip_add(w, "a/empty", NULL, 0, NULL, 0, NULL), SONDE_OK);
        assert_int_equal(sonde_zip_add(w, "a/lone", NULL, 0, numbers, 5, NULL), SONDE_OK);
        assert_int_equal(sonde_zip_commit(w, NULL), SONDE_OK);
        assert_int_equal(sonde_map_open(path, &m, NULL), SONDE_OK);
        sonde_arena *arena = sonde_arena_new(NULL, NULL);
        sonde_err err;
        if (sonde_zip_read(m, arena, &z, &err) != SONDE_OK)
            fail_msg("limit %u: %s", limits[i], err.msg);
        assert_int_equal(z.n_members, 3);
        const sonde_zip_member *x = sonde_zip_find(&z, "a/one", 5);
        assert_non_null(x);
        assert_int_equal(x->n_bytes, 4 + sizeof numbers);
        assert_int_equal((x->begin + 4) % 64, 0);
        assert_memory_equal(m->data + x->begin + 4, numbers, sizeof numbers);
        assert_true(sonde_zip_crc_ok(&z, x));
        x = sonde_zip_find(&z, "a/lone", 6);
        assert_non_null(x);
        assert_int_equal(x->n_bytes, 5);
        assert_null(sonde_zip_find(&z, "a/on", 4));
        assert_null(sonde_zip_find(&z, "b", 1));
        sonde_arena_free(arena);
        sonde_map_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(plain_values_are_kept_in_their_groups),
        cmocka_unit_test(names_and_types_that_torch_lacks_are_not_written),
        cmocka_unit_test(an_existing_file_is_replaced_only_when_asked),
        cmocka_unit_test(the_same_input_gives_the_same_bytes),
        cmocka_unit_test(npz_is_read_back_from_the_mapping),
        cmocka_unit_test(wide_zips_are_read_as_narrow_ones),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
