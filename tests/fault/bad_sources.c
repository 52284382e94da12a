/* SPDX-License-Identifier: MIT
 * Stores and arrays that cannot be trained on: each is refused with the place that is wrong, and leaves no
 * memory behind. */
#define H5_USE_110_API 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <hdf5.h>

#include "../unit/source_fixture.h"
#include "file/npy.h"

#define RESID "blocks.0.hook_resid_post"
#define N     40

/* ---- rows that are not finite ------------------------------------------------------------------- */

static enum sonde_code drain(sonde_source *s, size_t n, sonde_err *err)
{
    float *x = malloc(n * sonde_source_about(s)->d_in * sizeof *x);
    enum sonde_code code = sonde_source_next(s, n, x, NULL, NULL, NULL, err);
    free(x);
    return code;
}

static enum sonde_code pass_over(sonde_source *s, enum sonde_split split, sonde_err *err)
{
    sonde_pass_rows r = {.n = 1};
    enum sonde_code code = sonde_source_pass_begin(s, split, err);
    while (!code && r.n)
        code = sonde_source_pass_next(s, 64, &r, NULL, err);
    return code;
}

static void a_value_that_is_not_finite_is_named_and_stops_nothing_before_it(void **state)
{
    (void)state;
    for (size_t window = 0; window < 300; window += 100)
        for (int verify = 0; verify < 2; verify++) {
            struct shape h = plain;
            sonde_err err = {0};
            h.nan_row = 1234; /* token 638, document 39: for training */
            make_store(&h);
            sonde_source_options o = {.hook = RESID, .window_rows = window, .verify = verify};
            sonde_source *s = open_source(acts, &o);
            assert_int_equal(drain(s, 1600, &err), SONDE_E_NUMERIC);
            if (!strstr(err.msg, RESID " holds NaN in row 1234, column 3"))
                fail_msg("%s", err.msg);
            sonde_source_position at = sonde_source_tell(s);
            assert_true(at.epoch == 0 && at.window == 0 && at.row == 0);
            assert_int_equal(pass_over(s, SONDE_SPLIT_TRAIN, &err), SONDE_E_NUMERIC);
            assert_int_equal(pass_over(s, SONDE_SPLIT_HELDOUT, &err), SONDE_OK);
            sonde_source_close(s);
            o.filter.max_norm = 10;
            s = open_source(acts, &o);
            assert_int_equal(drain(s, 1500, &err), SONDE_E_NUMERIC);
            sonde_source_close(s);
            const int32_t id = id_at(1234 * 7 % 2000); /* rows that take no part may hold anything */
            o.filter.max_norm = 0;
            o.filter.ids = &id;
            o.filter.n_ids = 1;
            s = open_source(acts, &o);
            assert_int_equal(drain(s, 1600, &err), SONDE_OK);
            sonde_source_close(s);
        }
}

/* ---- stores with one defect ---------------------------------------------------------------------- */

/* A store of N rows and N tokens, four documents, with one column replaced. */
struct defect {
    const char *name;
    sonde_store_dataset d;   /* takes the place of the one with its path, or is added; path NULL: none */
    int64_t value;           /* of element 7 of it */
    const char *special_ids; /* "0-2" if NULL */
    const char *hook, *hook_out;
    enum sonde_code code;
    const char *says;
};

static const struct defect defects[] = {
    {"no_defect", {0}, 0, NULL, "resid", NULL, SONDE_OK, NULL},
    {"token_beyond_the_text",
     {"/rows/token", SONDE_I64, 1, {N}},
     N,
     NULL,
     "resid",
     NULL,
     SONDE_E_INPUT,
     "/rows/token[7] is 40, there are 40 tokens"},
    {"negative_token",
     {"/rows/token", SONDE_I64, 1, {N}},
     -1,
     NULL,
     "resid",
     NULL,
     SONDE_E_INPUT,
     "/rows/token[7] is -1"},
    {"too_few_row_tokens",
     {"/rows/token", SONDE_I64, 1, {N - 1}},
     0,
     NULL,
     "resid",
     NULL,
     SONDE_E_INPUT,
     "/rows/token must be int64 of length 40"},
    {"row_tokens_of_another_type",
     {"/rows/token", SONDE_I32, 1, {N}},
     0,
     NULL,
     "resid",
     NULL,
     SONDE_E_INPUT,
     "/rows/token must be int64"},
    {"too_many_positions",
     {"/tokens/pos", SONDE_I32, 1, {N + 1}},
     0,
     NULL,
     "resid",
     NULL,
     SONDE_E_INPUT,
     "/tokens/pos must be int32 of length 40"},
    {"ids_in_rows",
     {"/tokens/id", SONDE_I32, 2, {N, 1}},
     0,
     NULL,
     "resid",
     NULL,
     SONDE_E_INPUT,
     "/tokens/id must be"},
    {"document_beyond_the_last",
     {"/tokens/doc", SONDE_I32, 1, {N}},
     4,
     NULL,
     "resid",
     NULL,
     SONDE_E_INPUT,
     "/tokens/doc[7] is 4, there are 4 documents"},
    {"negative_document",
     {"/tokens/doc", SONDE_I32, 1, {N}},
     -2,
     NULL,
     "resid",
     NULL,
     SONDE_E_INPUT,
     "/tokens/doc[7] is -2"},
    {"fewer_documents_than_are_used",
     {"/docs/split", SONDE_U8, 1, {0}},
     0,
     NULL,
     "resid",
     NULL,
     SONDE_E_INPUT,
     "there are 0 documents"},
    {"special_ids_that_are_no_list", {0}, 0, "0-2,x", "resid", NULL, SONDE_E_INPUT, "special_ids is '0-2,x'"},
    {"special_ids_that_descend", {0}, 0, "5,4", "resid", NULL, SONDE_E_INPUT, "special_ids"},
    {"special_ids_beyond_32_bits", {0}, 0, "4294967296", "resid", NULL, SONDE_E_INPUT, "special_ids"},
    {"special_ids_with_an_open_end", {0}, 0, "4-", "resid", NULL, SONDE_E_INPUT, "special_ids"},
    {"no_special_ids", {0}, 0, "", "resid", NULL, SONDE_OK, NULL},
    {"hooks_of_different_length",
     {"/acts/out", SONDE_F32, 2, {N - 2, 3}},
     0,
     NULL,
     "resid",
     "out",
     SONDE_E_INPUT,
     "/acts/resid has 40 rows, /acts/out has 38"},
    {"rows_of_integers",
     {"/acts/out", SONDE_I32, 2, {N, 3}},
     0,
     NULL,
     "out",
     NULL,
     SONDE_E_INPUT,
     "/acts/out is int32; rows are float32"},
    {"numbers_instead_of_rows",
     {"/acts/out", SONDE_F32, 1, {N}},
     0,
     NULL,
     "out",
     NULL,
     SONDE_E_INPUT,
     "/acts/out has shape [40], which is no rows"},
    {"rows_without_values",
     {"/acts/out", SONDE_F32, 2, {N, 0}},
     0,
     NULL,
     "out",
     NULL,
     SONDE_E_INPUT,
     "/acts/out has shape [40, 0]"},
    {"no_rows",
     {"/acts/out", SONDE_F32, 2, {0, 3}},
     0,
     NULL,
     "out",
     NULL,
     SONDE_E_USAGE,
     "/acts/out has no rows"},
    {"a_misspelt_hook",
     {0},
     0,
     NULL,
     "reisd",
     NULL,
     SONDE_E_USAGE,
     "has no hook 'reisd'; did you mean 'resid'?"},
    {"a_hook_unlike_any",
     {0},
     0,
     NULL,
     "logits",
     NULL,
     SONDE_E_USAGE,
     "has no hook 'logits' (it has out.resid, resid)"},
    {"two_hooks_and_none_named", {0}, 0, NULL, NULL, NULL, SONDE_E_USAGE, "holds 2 hooks (out.resid, resid)"},
    {"an_ending_of_two_hooks",
     {0},
     0,
     NULL,
     "sid",
     NULL,
     SONDE_E_USAGE,
     "2 hooks end in 'sid': out.resid, resid"},
};

static int64_t column_value(const char *path, uint64_t i)
{
    return strcmp(path, "/tokens/id") == 0    ? id_at(i)
           : strcmp(path, "/tokens/pos") == 0 ? (int64_t)(i % 10)
           : strcmp(path, "/tokens/doc") == 0 ? (int64_t)(i / 10)
           : strcmp(path, "/docs/split") == 0 ? i == 2
                                              : (int64_t)i;
}

static void write_column(sonde_store_writer *w, size_t at, const sonde_store_dataset *d,
                         const struct defect *bad)
{
    uint64_t n = 1;
    for (int k = 0; k < d->rank; k++)
        n *= d->dim[k];
    float *x = calloc(n + 1, 8);
    for (uint64_t i = 0; i < n; i++) {
        bool wrong = bad->d.path && strcmp(bad->d.path, d->path) == 0 && i == 7;
        int64_t v = wrong ? bad->value : column_value(d->path, i);
        if (d->dtype == SONDE_F32)
            x[i] = (float)i;
        else
            memcpy((char *)x + i * sonde_dtype_size(d->dtype), &v, sonde_dtype_size(d->dtype));
    }
    write_all(w, at, d->dim[0], x);
}

static void make_defect(const struct defect *bad)
{
    sonde_store_dataset d[8] = {
        {"/acts/resid", SONDE_F32, 2, {N, 5}}, {"/acts/out.resid", SONDE_F32, 2, {N, 5}},
        {"/rows/token", SONDE_I64, 1, {N}},    {"/tokens/id", SONDE_I32, 1, {N}},
        {"/tokens/pos", SONDE_I32, 1, {N}},    {"/tokens/doc", SONDE_I32, 1, {N}},
        {"/docs/split", SONDE_U8, 1, {4}},
    };
    const sonde_store_attr attr[] = {
        {.path = "/", .name = "bos_id", .i = 1},
        {.path = "/", .name = "special_ids", .s = bad->special_ids ? bad->special_ids : "0-2"}};
    size_t at = 0;
    while (at < 7 && bad->d.path && strcmp(d[at].path, bad->d.path) != 0)
        at++;
    if (bad->d.path)
        d[at] = bad->d;
    sonde_store_layout l = {d, at == 7 && bad->d.path ? 8 : 7, attr, 2};
    sonde_store_writer *w = NULL;
    sonde_err err = {0};
    source_must(sonde_store_create(acts, &l, true, &w, &err), &err);
    for (size_t i = 0; i < l.n_datasets; i++)
        write_column(w, i, &d[i], bad);
    source_must(sonde_store_finish(w, NULL, 0, &err), &err);
}

static void a_store_with_one_defect_is_refused_where_it_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof defects / sizeof *defects; i++) {
        const struct defect *d = &defects[i];
        sonde_budget budget = {0};
        sonde_err err = {0};
        sonde_source *s = NULL;
        make_defect(d);
        sonde_source_options o = {.hook = d->hook, .hook_out = d->hook_out, .filter.special = true};
        enum sonde_code code = sonde_source_open(acts, &o, &budget, &s, &err);
        if (code != d->code || (d->says && !strstr(err.msg, d->says)))
            fail_msg("%s: code %d, '%s'", d->name, code, err.msg);
        if (!code) {
            assert_int_equal(sonde_source_about(s)->n_heldout, 10);
            assert_int_equal(drain(s, 100, &err), SONDE_OK);
        }
        sonde_source_close(s);
        assert_int_equal(budget.taken, 0);
    }
}

/* ---- files --------------------------------------------------------------------------------------- */

static void write_npy(const char *path, enum sonde_dtype t, int rank, const uint64_t *dim)
{
    sonde_err err = {0};
    size_t n = sonde_dtype_size(t);
    for (int k = 0; k < rank; k++)
        n *= dim[k];
    void *zero = calloc(n + 1, 1);
    sonde_tensor x = {.name = "array", .dtype = t, .rank = rank, .data = zero, .n_bytes = n};
    memcpy(x.dim, dim, (size_t)rank * sizeof *dim);
    source_must(sonde_npy_write(path, &x, true, &err), &err);
    free(zero);
}

static void arrays_that_are_no_rows_are_refused(void **state)
{
    (void)state;
    char path[120], inside[140];
    const sonde_source_options o = {0};
    snprintf(path, sizeof path, "%s/a.npy", source_dir);
    is_refused(path, &o, SONDE_E_IO, path);
    write_npy(path, SONDE_I32, 2, (const uint64_t[]){4, 3});
    is_refused(path, &o, SONDE_E_INPUT, "rows are float32");
    write_npy(path, SONDE_F32, 1, (const uint64_t[]){4});
    is_refused(path, &o, SONDE_E_INPUT, "shape [4]");
    write_npy(path, SONDE_F32, 2, (const uint64_t[]){4, 0});
    is_refused(path, &o, SONDE_E_INPUT, "shape [4, 0]");
    write_npy(path, SONDE_F32, 2, (const uint64_t[]){0, 3});
    is_refused(path, &o, SONDE_E_USAGE, "has no rows");
    write_npy(path, SONDE_F32, 2, (const uint64_t[]){4, 3});
    is_refused(path, &(sonde_source_options){.hook = "resid"}, SONDE_E_USAGE, "no hook 'resid'");
    snprintf(inside, sizeof inside, "%s:/x", path);
    is_refused(inside, &o, SONDE_E_USAGE, "one array");
    is_refused(source_dir, &o, SONDE_E_INPUT, "directory");
    is_refused(path, &(sonde_source_options){.holdout = 1}, SONDE_E_USAGE, "held out");
    is_refused(path, &(sonde_source_options){.filter.max_norm = 0.5}, SONDE_E_USAGE, "median norm");
    FILE *f = fopen(path, "wb");
    fputs("no array", f);
    fclose(f);
    is_refused(path, &o, SONDE_E_INPUT, path);
}

static void a_file_that_is_cut_while_in_use_is_an_error_and_no_crash(void **state)
{
    (void)state;
    char path[120];
    sonde_err err = {0};
    snprintf(path, sizeof path, "%s/a.npy", source_dir);
    for (int k = 0; k < 2; k++) {
        write_npy(path, SONDE_F32, 2, (const uint64_t[]){5000, 8});
        make_store(&plain);
        sonde_source *s = open_source(k ? acts : path,
                                      &(sonde_source_options){.hook = k ? RESID : NULL, .window_rows = 200});
        assert_int_equal(drain(s, 10, &err), SONDE_OK);
        assert_int_equal(truncate(k ? acts : path, 3000), 0);
        assert_int_equal(drain(s, 1500, &err), SONDE_E_IO);
        assert_int_equal(sonde_source_tell(s).row, 10);
        assert_int_equal(pass_over(s, SONDE_SPLIT_TRAIN, &err), SONDE_E_IO);
        sonde_source_close(s);
    }
}

static void a_damaged_block_is_found_when_it_is_asked_for(void **state)
{
    (void)state;
    make_store(&plain);
    float wanted[WIDTH_IN], edit = 17;
    FILE *f = fopen(acts, "r+b");
    for (size_t j = 0; j < WIDTH_IN; j++) /* row 100 holds token 700 */
        wanted[j] = value_in(700, j);
    unsigned char at[sizeof wanted] = {0};
    long place = 0;
    for (; memcmp(at, wanted, sizeof wanted) != 0; place += 4) {
        assert_int_equal(fseek(f, place, SEEK_SET), 0);
        assert_int_equal(fread(at, 1, sizeof at, f), sizeof at);
    }
    fseek(f, place - 4, SEEK_SET);
    fwrite(&edit, sizeof edit, 1, f);
    fclose(f);
    sonde_err err = {0};
    sonde_source *s = open_source(acts, &(sonde_source_options){.hook = RESID, .verify = true});
    assert_int_equal(drain(s, 1600, &err), SONDE_E_INPUT);
    assert_non_null(strstr(err.msg, "checksum"));
    sonde_source_close(s);
}

static void a_chunked_dataset_comes_with_the_line_that_converts_it(void **state)
{
    (void)state;
    hid_t f = H5Fcreate(acts, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
          create = H5Pcreate(H5P_DATASET_CREATE),
          space = H5Screate_simple(2, (const hsize_t[]){100, 4}, NULL),
          group = H5Gcreate2(f, "/acts", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Pset_chunk(create, 2, (const hsize_t[]){10, 4});
    H5Dclose(H5Dcreate2(f, "/acts/x", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, create, H5P_DEFAULT));
    H5Gclose(group);
    H5Sclose(space);
    H5Pclose(create);
    H5Fclose(f);
    is_refused(acts, &(sonde_source_options){0}, SONDE_E_INPUT, "h5repack");
}

static void memory_that_is_not_allowed_is_refused_at_every_step(void **state)
{
    (void)state;
    make_store(&plain);
    size_t n_opened = 0, n_done = 0;
    for (size_t limit = 1 << 20; limit < (size_t)64 << 20; limit += 1 << 20) {
        sonde_budget budget = {.limit = limit};
        sonde_err err = {0};
        sonde_source *s = NULL;
        sonde_source_options o = {.hook = RESID, .window_rows = 300, .filter.max_norm = 10};
        enum sonde_code code = sonde_source_open(acts, &o, &budget, &s, &err);
        if (!code) {
            n_opened++;
            code = drain(s, 1000, &err);
        }
        if (!code)
            code = pass_over(s, SONDE_SPLIT_ALL, &err);
        assert_true(code == SONDE_OK || code == SONDE_E_MEMORY);
        n_done += !code;
        sonde_source_close(s);
        assert_int_equal(budget.taken, 0);
    }
    assert_true(n_opened > n_done && n_done > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_that_is_not_finite_is_named_and_stops_nothing_before_it),
        cmocka_unit_test(a_store_with_one_defect_is_refused_where_it_is),
        cmocka_unit_test(arrays_that_are_no_rows_are_refused),
        cmocka_unit_test(a_file_that_is_cut_while_in_use_is_an_error_and_no_crash),
        cmocka_unit_test(a_damaged_block_is_found_when_it_is_asked_for),
        cmocka_unit_test(a_chunked_dataset_comes_with_the_line_that_converts_it),
        cmocka_unit_test(memory_that_is_not_allowed_is_refused_at_every_step),
    };
    return cmocka_run_group_tests(tests, make_source_dir, remove_source_dir);
}
