/* SPDX-License-Identifier: MIT
 * Synthetic activations as a file: rows, truth, documents, statistics, the same bytes for any thread count.
 */
#include <stdio.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "synth_fixture.h"
#include "base/half.h"
#include "file/store.h"
#include "sae/source.h"

static char dir[64], path[96];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-synth-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/acts.h5", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void must(enum sonde_code code, const sonde_err *err)
{
    if (code)
        fail_msg("code %d: %s", (int)code, err->msg);
}

/* Everything at once. */
static const sonde_synth_options rich = {.dim = 48,
                                         .truth = 120,
                                         .seed = 17,
                                         .active = 5,
                                         .law = SONDE_SYNTH_ZIPF,
                                         .zipf = 0.5,
                                         .magnitude = SONDE_SYNTH_NORMAL,
                                         .scale_first = 3,
                                         .scale_last = 1,
                                         .spread = 1,
                                         .spread_std = 0.5,
                                         .rank = 3,
                                         .correlation = 0.3,
                                         .roots = 4,
                                         .branch = 3,
                                         .depth = 2,
                                         .scale_children = true,
                                         .orthogonal_steps = 3,
                                         .noise = 0.05,
                                         .bias = 1};

static sonde_synth_result write_file(const sonde_synth *s, const sonde_synth_file *f, const sonde_work *work)
{
    sonde_synth_result r = {0};
    sonde_err err;
    must(sonde_synth_write(s, f, sonde_kernels_best(), work, path, &r, &err), &err);
    return r;
}

/* A whole dataset; its shape is checked by the caller. */
static void *read_all(sonde_store *s, const char *name, enum sonde_dtype dtype, uint64_t rows)
{
    sonde_err err;
    size_t at = sonde_store_find(s, name);
    if (at == SIZE_MAX)
        fail_msg("no %s", name);
    const sonde_store_dataset *d = sonde_store_dataset_at(s, at);
    assert_int_equal(d->dtype, dtype);
    assert_int_equal(d->dim[0], rows);
    void *p = zeroed((size_t)(rows * (d->rank > 1 ? d->dim[1] : 1)), sonde_dtype_size(dtype));
    must(sonde_store_read(s, at, 0, rows, p, &err), &err);
    return p;
}

static sonde_store *open_file(void)
{
    sonde_store *s;
    sonde_err err;
    must(sonde_store_open(path, true, NULL, &s, &err), &err);
    must(sonde_store_verify(s, &err), &err);
    return s;
}

static void the_file_holds_the_rows_and_their_truth(void **state)
{
    (void)state;
    const uint64_t rows = 3001, d = rich.dim, n = rich.truth;
    sonde_synth *s = make(&rich);
    sonde_synth_result r =
        write_file(s, &(sonde_synth_file){.n_rows = rows, .holdout = 0.1, .overwrite = true}, NULL);
    assert_int_equal(r.n_heldout, 300);
    sonde_store *f = open_file();
    float *acts = read_all(f, "/acts/synthetic", SONDE_F32, rows),
          *values = read_all(f, "/truth/values", SONDE_F32, r.n_active);
    int64_t *indptr = read_all(f, "/truth/indptr", SONDE_I64, rows + 1);
    int32_t *indices = read_all(f, "/truth/indices", SONDE_I32, r.n_active),
            *parent = read_all(f, "/truth/parent", SONDE_I32, n);
    float *g = read_all(f, "/truth/directions", SONDE_F32, n),
          *share = read_all(f, "/truth/frequency", SONDE_F32, n);
    float *bias = read_all(f, "/truth/bias", SONDE_F32, d),
          *probability = read_all(f, "/truth/probability", SONDE_F32, n);
    assert_memory_equal(g, s->direction, n * d * sizeof *g);
    assert_memory_equal(bias, s->bias, d * sizeof *bias);
    assert_memory_equal(parent, s->parent, n * sizeof *parent);
    assert_true(indptr[0] == 0 && (uint64_t)indptr[rows] == r.n_active);
    sonde_synth_space *p = space_of(s);
    float x[48];
    double *count = zeroed(n, sizeof *count);
    for (uint64_t row = 0; row < rows; row++) {
        const uint32_t *latent;
        const float *value;
        size_t k = sonde_synth_row(s, row, p, &latent, &value, x);
        assert_memory_equal(x, acts + row * d, sizeof x);
        assert_int_equal(indptr[row + 1] - indptr[row], k);
        assert_memory_equal(values + indptr[row], value, k * sizeof *value);
        for (size_t i = 0; i < k; i++) {
            assert_int_equal(indices[indptr[row] + (int64_t)i], latent[i]);
            count[latent[i]]++;
        }
    }
    for (size_t i = 0; i < n; i++) {
        assert_true(share[i] == (float)(count[i] / (double)rows));
        assert_true(probability[i] == (float)s->probability[i]);
    }
    free(acts), free(values), free(indptr), free(indices), free(parent), free(g), free(share), free(bias),
        free(probability);
    free(count);
    sonde_synth_space_free(p);
    sonde_store_close(f);
    sonde_synth_free(s);
}

static char *slurp(size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = zeroed(*n, 1);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

static void threads_change_no_byte(void **state)
{
    (void)state;
    sonde_synth *s = make(&rich);
    size_t n_want = 0;
    char *want = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        sonde_pool *pool;
        sonde_err err;
        must(sonde_pool_new(threads, &pool, &err), &err);
        const sonde_work work = {.pool = pool};
        write_file(s,
                   &(sonde_synth_file){.n_rows = 5000, .holdout = 0.1, .dtype = SONDE_F16, .overwrite = true},
                   &work);
        sonde_pool_free(pool);
        size_t n;
        char *bytes = slurp(&n);
        if (want) {
            assert_int_equal(n, n_want);
            assert_memory_equal(bytes, want, n);
            free(bytes);
        } else {
            want = bytes;
            n_want = n;
        }
    }
    free(want);
    sonde_synth_free(s);
}

static void more_rows_keep_the_first_ones(void **state)
{
    (void)state;
    sonde_synth *s = make(&rich);
    float *few, *many;
    write_file(s, &(sonde_synth_file){.n_rows = 300, .overwrite = true}, NULL);
    sonde_store *f = open_file();
    few = read_all(f, "/acts/synthetic", SONDE_F32, 300);
    sonde_store_close(f);
    write_file(s, &(sonde_synth_file){.n_rows = 900, .overwrite = true}, NULL);
    f = open_file();
    many = read_all(f, "/acts/synthetic", SONDE_F32, 900);
    sonde_store_close(f);
    assert_memory_equal(few, many, 300 * rich.dim * sizeof *few);
    free(few), free(many);
    sonde_synth_free(s);
}

static void sixteen_bits_are_those_of_the_float32_rows(void **state)
{
    (void)state;
    sonde_synth *s = make(&rich);
    sonde_synth_space *p = space_of(s);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        write_file(
            s, &(sonde_synth_file){.n_rows = 500, .dtype = bf16 ? SONDE_BF16 : SONDE_F16, .overwrite = true},
            NULL);
        sonde_store *f = open_file();
        uint16_t *half = read_all(f, "/acts/synthetic", bf16 ? SONDE_BF16 : SONDE_F16, 500);
        float x[48];
        for (uint64_t row = 0; row < 500; row++) {
            (void)sonde_synth_row(s, row, p, NULL, NULL, x);
            for (size_t k = 0; k < 48; k++)
                assert_int_equal(half[row * 48 + k], bf16 ? sonde_f32_to_bf16(x[k]) : sonde_f32_to_f16(x[k]));
        }
        free(half);
        sonde_store_close(f);
    }
    sonde_synth_space_free(p);
    sonde_synth_free(s);
}

static void statistics_are_those_of_the_rows(void **state)
{
    (void)state;
    const uint64_t rows = 2000;
    sonde_synth *s = make(&rich);
    write_file(s, &(sonde_synth_file){.n_rows = rows, .overwrite = true}, NULL);
    sonde_store *f = open_file();
    float *x = read_all(f, "/acts/synthetic", SONDE_F32, rows);
    double *mean = read_all(f, "/stats/synthetic/mean", SONDE_F64, 48),
           *var = read_all(f, "/stats/synthetic/var", SONDE_F64, 48);
    double *norm_sq = read_all(f, "/stats/synthetic/mean_sq_norm", SONDE_F64, 1), sum_sq = 0;
    int64_t *count = read_all(f, "/stats/synthetic/count", SONDE_I64, 1);
    assert_int_equal(*count, rows);
    for (size_t k = 0; k < 48; k++) {
        double m = 0, v = 0;
        for (uint64_t r = 0; r < rows; r++)
            m += (double)x[r * 48 + k] / (double)rows;
        for (uint64_t r = 0; r < rows; r++)
            v += ((double)x[r * 48 + k] - m) * ((double)x[r * 48 + k] - m) / (double)rows;
        assert_true(fabs(m - mean[k]) < 1e-10 && fabs(v - var[k]) < 1e-10);
        sum_sq += v + m * m;
    }
    assert_true(fabs(sum_sq / *norm_sq - 1) < 1e-10);
    free(x), free(mean), free(var), free(norm_sq), free(count);
    sonde_store_close(f);
    sonde_synth_free(s);
}

static void a_source_holds_out_the_last_rows(void **state)
{
    (void)state;
    sonde_synth *s = make(&rich);
    sonde_source *source;
    sonde_err err;
    for (int marked = 0; marked < 2; marked++) { /* by the file, or by the source's own share */
        write_file(s, &(sonde_synth_file){.n_rows = 1000, .holdout = marked ? 0.2 : 0, .overwrite = true},
                   NULL);
        must(sonde_source_open(path, &(sonde_source_options){.holdout = 0.1, .verify = true}, NULL, &source,
                               &err),
             &err);
        const sonde_source_info *about = sonde_source_about(source);
        assert_true(about->d_in == 48 && about->n_rows == 1000);
        assert_int_equal(about->n_heldout, marked ? 200 : 100);
        sonde_pass_rows r;
        must(sonde_source_pass_begin(source, SONDE_SPLIT_HELDOUT, &err), &err);
        must(sonde_source_pass_next(source, 10, &r, NULL, &err), &err);
        assert_int_equal(r.row[0], marked ? 800 : 900);
        sonde_source_close(source);
    }
    sonde_synth_free(s);
}

static void rows_in_which_nothing_is_active_make_a_file(void **state)
{
    (void)state;
    sonde_synth *s = make(&(sonde_synth_options){.dim = 3, .truth = 2, .seed = 1, .active = 1e-9});
    sonde_synth_result r = write_file(s, &(sonde_synth_file){.n_rows = 10, .overwrite = true}, NULL);
    assert_int_equal(r.n_active, 0);
    sonde_store *f = open_file();
    int64_t *indptr = read_all(f, "/truth/indptr", SONDE_I64, 11);
    assert_int_equal(indptr[10], 0);
    free(indptr);
    sonde_store_close(f);
    sonde_synth_free(s);
}

static void plans_know_the_size_of_the_data(void **state)
{
    (void)state;
    sonde_synth *s = make(&(sonde_synth_options){.dim = 4, .truth = 2, .seed = 1, .active = 2});
    const sonde_synth_file f = {.n_rows = 700, .holdout = 0.01, .overwrite = true};
    sonde_synth_result plan, made = write_file(s, &f, NULL);
    sonde_err err;
    must(sonde_synth_plan_file(s, &f, &plan, &err), &err);
    assert_true(plan.file_bytes == made.file_bytes && plan.n_active == 1400 &&
                plan.n_heldout == made.n_heldout);
    sonde_synth_free(s);
}

static void files_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    sonde_synth *s = make(&rich);
    const sonde_synth_file bad[] = {{.n_rows = 0},
                                    {.n_rows = UINT64_MAX},
                                    {.n_rows = 10, .holdout = 1},
                                    {.n_rows = 10, .holdout = -0.1},
                                    {.n_rows = 10, .holdout = NAN},
                                    {.n_rows = 10, .dtype = SONDE_F64}};
    (void)unlink(path);
    for (size_t c = 0; c < sizeof bad / sizeof *bad; c++) {
        sonde_synth_result r;
        sonde_err err;
        assert_int_equal(sonde_synth_write(s, &bad[c], sonde_kernels_best(), NULL, path, &r, &err),
                         SONDE_E_USAGE);
        assert_int_equal(access(path, F_OK), -1);
    }
    sonde_synth_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_holds_the_rows_and_their_truth),
        cmocka_unit_test(threads_change_no_byte),
        cmocka_unit_test(more_rows_keep_the_first_ones),
        cmocka_unit_test(sixteen_bits_are_those_of_the_float32_rows),
        cmocka_unit_test(statistics_are_those_of_the_rows),
        cmocka_unit_test(a_source_holds_out_the_last_rows),
        cmocka_unit_test(rows_in_which_nothing_is_active_make_a_file),
        cmocka_unit_test(plans_know_the_size_of_the_data),
        cmocka_unit_test(files_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
