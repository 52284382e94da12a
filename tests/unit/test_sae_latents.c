/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>

#include "pass_fixture.h"
#include "sae/latents.h"

enum { D = 6, N = 9000, F = 20 }; /* three pieces of a pass */

static char out_path[128];

static enum sonde_code encode(const sonde_dict *dict, const sonde_latents_options *o, const sonde_work *work,
                              sonde_latents_result *result, sonde_err *err)
{
    sonde_source *s = open_rows(0.25);
    sonde_encoder *e = pack(dict);
    enum sonde_code code = sonde_latents_write(out_path, dict, e, s, o, work, result, err);
    sonde_encoder_free(e);
    sonde_source_close(s);
    return code;
}

static void write_all(const sonde_dict *dict, enum sonde_split split, uint64_t max_rows,
                      sonde_latents_result *result)
{
    sonde_err err = {0};
    const sonde_latents_options o = {.split = split, .max_rows = max_rows, .overwrite = true};
    must(encode(dict, &o, NULL, result, &err), &err);
}

static void *read_all(sonde_store *s, const char *path, uint64_t *n)
{
    sonde_err err = {0};
    size_t i = sonde_store_find(s, path);
    assert_true(i != SIZE_MAX);
    const sonde_store_dataset *d = sonde_store_dataset_at(s, i);
    *n = d->dim[0];
    void *data = malloc((size_t)*n * sonde_dtype_size(d->dtype) + 1);
    must(sonde_store_read(s, i, 0, *n, data, &err), &err);
    return data;
}

struct latents {
    sonde_store *store;
    int64_t *indptr, *row, *token;
    int32_t *indices, *id;
    float *values;
    uint64_t n_rows, n_entries;
};

static struct latents open_latents(void)
{
    struct latents l = {0};
    sonde_err err = {0};
    uint64_t n;
    must(sonde_store_open(out_path, true, NULL, &l.store, &err), &err);
    l.indptr = read_all(l.store, "/indptr", &n);
    l.n_rows = n - 1;
    l.indices = read_all(l.store, "/indices", &l.n_entries);
    l.values = read_all(l.store, "/values", &n);
    assert_int_equal(n, l.n_entries);
    l.row = read_all(l.store, "/rows/row", &n);
    assert_int_equal(n, l.n_rows);
    l.token = read_all(l.store, "/rows/token", &n);
    assert_int_equal(n, l.n_rows);
    l.id = read_all(l.store, "/rows/id", &n);
    assert_int_equal(n, l.n_rows);
    assert_int_equal(l.indptr[0], 0);
    assert_int_equal(l.indptr[l.n_rows], l.n_entries);
    return l;
}

static void close_latents(struct latents *l)
{
    sonde_store_close(l->store);
    free(l->indptr), free(l->row), free(l->token), free(l->indices), free(l->id), free(l->values);
}

static void every_row_holds_the_latents_of_the_reference_twin(void **state)
{
    (void)state;
    sonde_dict *dict = random_dict(D, F);
    float *x = make_numbers(N * D, 1);
    sonde_latents_result result;
    write_all(dict, SONDE_SPLIT_ALL, 0, &result);
    struct latents l = open_latents();
    assert_true(result.n_rows == N && l.n_rows == N && result.n_entries == l.n_entries);
    for (size_t r = 0; r < N; r++) {
        double want[F], have[F] = {0};
        ref_dict_encode(dict, x + r * D, want);
        assert_true(l.indptr[r] <= l.indptr[r + 1]);
        for (int64_t i = l.indptr[r]; i < l.indptr[r + 1]; i++) {
            assert_true(l.indices[i] >= 0 && l.indices[i] < F && l.values[i] > 0);
            assert_true(i == l.indptr[r] || l.indices[i] > l.indices[i - 1]);
            have[l.indices[i]] = (double)l.values[i];
        }
        for (size_t i = 0; i < F; i++)
            assert_true(fabs(have[i] - want[i]) < 1e-5);
        assert_true(l.row[r] == (int64_t)r && l.token[r] == -1 && l.id[r] == -1);
    }
    close_latents(&l);
    free(x);
    sonde_dict_free(dict);
}

static void a_split_keeps_the_row_numbers_of_the_file(void **state)
{
    (void)state;
    sonde_dict *dict = random_dict(D, F);
    sonde_latents_result result;
    write_all(dict, SONDE_SPLIT_HELDOUT, 0, &result);
    struct latents l = open_latents();
    assert_int_equal(l.n_rows, N / 4);
    for (size_t r = 0; r < l.n_rows; r++)
        assert_int_equal(l.row[r], N - N / 4 + r);
    close_latents(&l);
    write_all(dict, SONDE_SPLIT_ALL, 17, &result);
    l = open_latents();
    assert_int_equal(l.n_rows, 17);
    close_latents(&l);
    sonde_dict_free(dict);
}

static void latents_that_never_fire_give_empty_rows(void **state)
{
    (void)state;
    sonde_dict *dict = empty_dict(D, F);
    sonde_latents_result result;
    write_all(dict, SONDE_SPLIT_ALL, 0, &result);
    struct latents l = open_latents();
    assert_true(l.n_rows == N && l.n_entries == 0);
    close_latents(&l);
    sonde_dict_free(dict);
}

static void attributes_say_what_it_was_made_of(void **state)
{
    (void)state;
    static const char *const names[] = {"format", "format_version", "sae_sha256",
                                        "source", "split",          "command"};
    sonde_dict *dict = random_dict(D, F);
    sonde_err err = {0};
    sonde_latents_result result;
    const sonde_store_attr attr = {.path = "/", .name = "command", .s = "sonde encode"};
    const sonde_latents_options o = {
        .split = SONDE_SPLIT_ALL, .overwrite = true, .attr = &attr, .n_attrs = 1};
    must(encode(dict, &o, NULL, &result, &err), &err);
    struct latents l = open_latents();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const sonde_store_attr *a = sonde_store_attr_find(l.store, "/", names[i]);
        assert_non_null(a);
        assert_non_null(a->s);
    }
    assert_string_equal(sonde_store_attr_find(l.store, "/", "format")->s, "sonde-latents");
    assert_int_equal(sonde_store_attr_find(l.store, "/", "n_latents")->i, F);
    assert_int_equal(sonde_store_attr_find(l.store, "/", "n_rows")->i, N);
    close_latents(&l);
    sonde_dict_free(dict);
}

static char *file_bytes(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *b = malloc(*n + 1);
    assert_int_equal(fread(b, 1, *n, f), *n);
    fclose(f);
    return b;
}

static void threads_change_no_byte(void **state)
{
    (void)state;
    sonde_dict *dict = random_dict(D, F);
    char *want = NULL;
    size_t n_want = 0;
    for (int threads = 1; threads <= 3; threads++) {
        sonde_err err = {0};
        sonde_work work = {0};
        sonde_latents_result result;
        const sonde_latents_options o = {.split = SONDE_SPLIT_ALL, .overwrite = true};
        must(sonde_pool_new(threads, &work.pool, &err), &err);
        must(encode(dict, &o, &work, &result, &err), &err);
        sonde_pool_free(work.pool);
        size_t n;
        char *have = file_bytes(out_path, &n);
        if (!want) {
            want = have;
            n_want = n;
            continue;
        }
        assert_int_equal(n, n_want);
        assert_memory_equal(have, want, n);
        free(have);
    }
    free(want);
    sonde_dict_free(dict);
}

/* Files in the directory beside the rows. */
static int n_files(void)
{
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.' || strlen(e->d_name) > 2;
    closedir(d);
    return n - 1;
}

static void what_is_refused_or_stopped_leaves_nothing(void **state)
{
    (void)state;
    sonde_dict *dict = random_dict(D, F), *wide = random_dict(D + 1, F);
    sonde_err err = {0};
    sonde_latents_result result;
    sonde_latents_options o = {.split = SONDE_SPLIT_ALL};
    const volatile sig_atomic_t stop = 1;
    sonde_budget small = {.limit = 100000};
    const sonde_work stopped = {.stop = &stop}, tight = {.budget = &small};
    unlink(out_path);
    assert_int_equal(encode(dict, &o, &stopped, &result, &err), SONDE_E_STOPPED);
    assert_int_equal(encode(dict, &o, &tight, &result, &err), SONDE_E_MEMORY);
    assert_int_equal(encode(wide, &o, NULL, &result, &err), SONDE_E_USAGE);
    assert_int_equal(small.taken, 0);
    assert_int_equal(n_files(), 0);
    must(encode(dict, &o, NULL, &result, &err), &err);
    assert_int_equal(encode(dict, &o, NULL, &result, &err), SONDE_E_USAGE);
    assert_non_null(strstr(err.msg, "exists already"));
    assert_int_equal(n_files(), 1);
    sonde_dict_free(dict);
    sonde_dict_free(wide);
}

static void the_part_of_a_killed_run_is_replaced(void **state)
{
    (void)state;
    sonde_dict *dict = random_dict(D, F);
    sonde_err err = {0};
    sonde_latents_result result;
    const sonde_latents_options o = {.split = SONDE_SPLIT_ALL};
    char part[160];
    unlink(out_path);
    snprintf(part, sizeof part, "%s.part", out_path);
    FILE *f = fopen(part, "w");
    fputs("half", f);
    fclose(f);
    must(encode(dict, &o, NULL, &result, &err), &err);
    assert_int_equal(n_files(), 1);
    sonde_dict_free(dict);
}

static int make_rows(void **state)
{
    if (make_dir(state))
        return -1;
    snprintf(out_path, sizeof out_path, "%s/latents.h5", dir);
    float *x = make_numbers(N * D, 1);
    write_rows(x, N, D);
    free(x);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_holds_the_latents_of_the_reference_twin),
        cmocka_unit_test(a_split_keeps_the_row_numbers_of_the_file),
        cmocka_unit_test(latents_that_never_fire_give_empty_rows),
        cmocka_unit_test(attributes_say_what_it_was_made_of),
        cmocka_unit_test(threads_change_no_byte),
        cmocka_unit_test(what_is_refused_or_stopped_leaves_nothing),
        cmocka_unit_test(the_part_of_a_killed_run_is_replaced),
    };
    return cmocka_run_group_tests(tests, make_rows, remove_dir);
}
