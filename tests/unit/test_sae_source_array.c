/* SPDX-License-Identifier: MIT
 * Plain arrays as sources: .npy of every type, datasets of any HDF5 file. */
#define H5_USE_110_API 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <hdf5.h>

#include "file/npy.h"
#include "source_fixture.h"

#define N_ROWS 1000

static char npy[96], h5[96];

static float *values(uint64_t n, size_t width)
{
    float *x = malloc(n * width * sizeof *x);
    for (uint64_t r = 0; r < n; r++)
        for (size_t j = 0; j < width; j++)
            x[r * width + j] = value_in(r, j);
    return x;
}

static void make_npy(enum sonde_dtype t, int rank, const uint64_t *dim)
{
    sonde_err err = {0};
    uint64_t width = 1;
    for (int k = 1; k < rank; k++)
        width *= dim[k];
    float *x = values(dim[0], width);
    void *raw = as_dtype(t, x, dim[0] * width);
    sonde_tensor tensor = {.name = "array",
                           .dtype = t,
                           .rank = rank,
                           .data = raw,
                           .n_bytes = dim[0] * width * sonde_dtype_size(t)};
    memcpy(tensor.dim, dim, (size_t)rank * sizeof *dim);
    snprintf(npy, sizeof npy, "%s/a.npy", source_dir);
    source_must(sonde_npy_write(npy, &tensor, true, &err), &err);
    free(raw);
    free(x);
}

static void make_h5(hid_t type, bool chunked)
{
    snprintf(h5, sizeof h5, "%s/a.h5", source_dir);
    hid_t f = H5Fcreate(h5, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), create = H5Pcreate(H5P_DATASET_CREATE),
          space = H5Screate_simple(3, (const hsize_t[]){N_ROWS, 2, 3}, NULL),
          group = H5Gcreate2(f, "/data", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (chunked)
        H5Pset_chunk(create, 3, (const hsize_t[]){10, 2, 3});
    hid_t d = H5Dcreate2(f, "/data/a b", type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    float *x = values(N_ROWS, 6);
    assert_true(H5Dwrite(d, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, x) >= 0);
    free(x);
    H5Dclose(d);
    H5Gclose(group);
    H5Sclose(space);
    H5Pclose(create);
    H5Fclose(f);
}

/* Are all rows of the array there, the last ones held out? */
static void check_array(const char *path, enum sonde_dtype t, size_t window)
{
    sonde_err err = {0};
    sonde_pass_rows r;
    sonde_source *s = open_source(path, &(sonde_source_options){.holdout = 0.1, .window_rows = window});
    const sonde_source_info *info = sonde_source_about(s);
    assert_string_equal(info->kind, "array");
    assert_string_equal(info->hook, "");
    assert_true(info->n_rows == N_ROWS && info->n_train == 900 && info->n_heldout == 100);
    assert_true(info->d_in == 6 && info->d_out == 6 && !info->hook_out && !info->has_tokens);
    for (int epoch = 0; epoch < 2; epoch++) {
        struct piece p = take(s, 900);
        unsigned char seen[97 * 32] = {0}; /* rows by their first value, which comes back every 97 rows */
        for (size_t i = 0; i < 900; i++) {
            assert_true(p.token[i] == UINT64_MAX);
            seen[(size_t)p.x[i * 6] % 97]++;
            if (p.x[i * 6] < 1024) /* there float16 has eighths */
                assert_true(p.x[i * 6 + 5] == p.x[i * 6] + 5.0f / 8);
        }
        size_t n = 0;
        for (uint64_t row = 0; row < 900; row++)
            n += seen[(size_t)stored(t, value_in(row, 0)) % 97]-- > 0;
        assert_int_equal(n, 900);
        drop_piece(&p);
    }
    source_must(sonde_source_pass_begin(s, SONDE_SPLIT_HELDOUT, &err), &err);
    source_must(sonde_source_pass_next(s, N_ROWS, &r, NULL, &err), &err);
    assert_int_equal(r.n, 100);
    for (size_t i = 0; i < 100; i++) {
        assert_true(r.row[i] == 900 + i && r.token[i] == UINT64_MAX && r.id[i] == -1);
        assert_true(r.x[i * 6 + 1] == stored(t, value_in(900 + i, 1)));
    }
    sonde_source_close(s);
}

static void npy_files_of_every_type_and_rank_are_rows(void **state)
{
    (void)state;
    static const enum sonde_dtype types[] = {SONDE_F32, SONDE_F16, SONDE_F64};
    for (size_t k = 0; k < 3; k++)
        for (size_t window = 0; window < 300; window += 130) {
            make_npy(types[k], 2, (const uint64_t[]){N_ROWS, 6});
            check_array(npy, types[k], window);
            make_npy(types[k], 4, (const uint64_t[]){N_ROWS, 1, 3, 2});
            check_array(npy, types[k], window);
        }
}

static void datasets_of_any_hdf5_file_are_rows(void **state)
{
    (void)state;
    char path[200];
    for (int k = 0; k < 2; k++) {
        make_h5(k ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT, false);
        snprintf(path, sizeof path, "%s:/data/a b", h5);
        check_array(path, k ? SONDE_F64 : SONDE_F32, k ? 0 : 100);
    }
    is_refused(h5, &(sonde_source_options){0}, SONDE_E_USAGE, "name a dataset");
    snprintf(path, sizeof path, "%s:/data/ab", h5);
    is_refused(path, &(sonde_source_options){0}, SONDE_E_USAGE, "did you mean '/data/a b'?");
    make_h5(H5T_NATIVE_FLOAT, true);
    snprintf(path, sizeof path, "%s:/data/a b", h5);
    is_refused(path, &(sonde_source_options){0}, SONDE_E_INPUT, "h5repack");
}

static void a_hook_of_a_store_may_be_named_as_a_dataset(void **state)
{
    (void)state;
    char path[200];
    make_store(&plain);
    snprintf(path, sizeof path, "%s:/acts/blocks.0.attn.hook_z", acts);
    sonde_source *s = open_source(path, &(sonde_source_options){0});
    assert_string_equal(sonde_source_about(s)->kind, "store");
    assert_string_equal(sonde_source_about(s)->hook, "blocks.0.attn.hook_z");
    assert_true(sonde_source_about(s)->has_tokens);
    assert_int_equal(sonde_source_about(s)->n_heldout, 400);
    sonde_source_close(s);
}

static void a_few_rows_leave_something_for_both_sides(void **state)
{
    (void)state;
    make_npy(SONDE_F32, 2, (const uint64_t[]){2, 3});
    sonde_source *s = open_source(npy, &(sonde_source_options){.holdout = 0.01});
    assert_int_equal(sonde_source_about(s)->n_train, 1);
    assert_int_equal(sonde_source_about(s)->n_heldout, 1);
    struct piece p = take(s, 5); /* five epochs of the one row */
    for (size_t i = 0; i < 15; i++)
        assert_true(p.x[i] == value_in(0, i % 3));
    drop_piece(&p);
    sonde_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(npy_files_of_every_type_and_rank_are_rows),
        cmocka_unit_test(datasets_of_any_hdf5_file_are_rows),
        cmocka_unit_test(a_hook_of_a_store_may_be_named_as_a_dataset),
        cmocka_unit_test(a_few_rows_leave_something_for_both_sides),
    };
    return cmocka_run_group_tests(tests, make_source_dir, remove_source_dir);
}
