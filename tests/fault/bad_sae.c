/* SPDX-License-Identifier: MIT
 * Dictionaries in every format that can be written, with each of their files cut at every byte and with every
 * bit turned over; then directories that are wrong in one place. With a directory as argument the program
 * writes seeds for tests/fuzz/fuzz_sae_cfg.c there. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "bytes.h"
#include "sae_check.h"

static char top[40], path[64];

static int make_place(void **state)
{
    (void)state;
    strcpy(top, access("/dev/shm", W_OK) == 0 ? "/dev/shm/sonde-bad-XXXXXX" : "/tmp/sonde-bad-XXXXXX");
    check_that(mkdtemp(top));
    snprintf(path, sizeof path, "%s/sae", top);
    return 0;
}

static int remove_place(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", top);
    return system(command);
}

static void clear(void)
{
    char command[80];
    snprintf(command, sizeof command, "rm -rf %s", path);
    check_that(system(command) == 0);
}

static void put_file(const char *name, const void *data, size_t n)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    check_that(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
}

static void get_file(const char *name, struct bytes *b)
{
    unsigned char part[4096];
    int fd = open(name, O_RDONLY);
    ssize_t n;
    check_that(fd >= 0);
    while ((n = read(fd, part, sizeof part)) > 0)
        put(b, part, (size_t)n);
    close(fd);
}

static sonde_dict *make(enum sonde_dict_act act, size_t d_out, bool skip)
{
    sonde_dict *d;
    check_that(sonde_dict_new(act, 3, d_out, 4, skip, NULL, &d, NULL) == SONDE_OK);
    for (size_t i = 0; i < 12; i++)
        d->w_enc[i] = (float)i - 5;
    for (size_t i = 0; i < 4 * d_out; i++)
        d->w_dec[i] = 7 - (float)i;
    d->k = act == SONDE_DICT_TOPK || act == SONDE_DICT_GROUPMAX ? 2 : 0;
    d->pre_bias = d_out == 3 && !skip;
    d->trained_as = "batchtopk";
    json_object_set_new(d->meta, "hook_name", json_string("blocks.0.hook_mlp_out"));
    return d;
}

/* ---- every byte, every bit ------------------------------------------------------------------------ */

static size_t n_loads, n_accepted;

static void load_mutant(const char *format, bool cut)
{
    sonde_err err;
    enum sonde_code rc = check_load(path, format, &err);
    n_loads++;
    n_accepted += rc == SONDE_OK;
    if (cut && rc == SONDE_OK)
        fail_msg("%s: a truncated file was accepted", format);
}

/* YAML has no end: a shorter one may be as good. */
static void mutate_file(const char *name, const char *format)
{
    struct bytes b = {0};
    bool has_end = !strstr(name, ".yaml");
    get_file(name, &b);
    size_t end = b.n; /* blanks at the end of JSON may go */
    while (end && b.p[end - 1] == '\n')
        end--;
    for (size_t n = 0; n < end; n++) {
        put_file(name, b.p, n);
        load_mutant(format, has_end);
    }
    for (size_t bit = 0; bit < 8 * b.n; bit++) {
        b.p[bit / 8] ^= (unsigned char)(1u << bit % 8);
        put_file(name, b.p, b.n);
        load_mutant(format, false);
        b.p[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    put_file(name, b.p, b.n);
    bytes_free(&b);
}

/* Every file of a dictionary that was just written, whether path is one or holds them. */
static void mutate_all(const char *format)
{
    struct stat st;
    char name[400];
    sonde_err err;
    if (check_load(path, format, &err))
        fail_msg("%s: %s", format, err.msg);
    check_that(stat(path, &st) == 0);
    if (!S_ISDIR(st.st_mode)) {
        mutate_file(path, format);
        return;
    }
    DIR *d = opendir(path);
    check_that(d);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') {
            snprintf(name, sizeof name, "%s/%s", path, e->d_name);
            mutate_file(name, format);
        }
    closedir(d);
    if (check_load(path, format, &err))
        fail_msg("%s: not as it was: %s", format, err.msg);
}

static const struct {
    enum sonde_dict_act act;
    size_t d_out;
    bool skip;
} kinds[] = {
    {SONDE_DICT_RELU, 3, false},    {SONDE_DICT_TOPK, 3, false},     {SONDE_DICT_JUMPRELU, 3, false},
    {SONDE_DICT_GATED, 3, false},   {SONDE_DICT_GROUPMAX, 3, false}, {SONDE_DICT_RELU, 2, true},
    {SONDE_DICT_JUMPRELU, 3, true}, {SONDE_DICT_TOPK, 2, true},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static void a_mutant_of_any_file_of_any_format_is_refused_in_one_line(void **state)
{
    (void)state;
    size_t n_written = 0;
    for (const char *const *f = sonde_dict_formats(true); *f; f++)
        for (int k = 0; k < N_KINDS; k++) {
            sonde_dict *d = make(kinds[k].act, kinds[k].d_out, kinds[k].skip);
            sonde_err err;
            clear();
            if (sonde_dict_save(d, *f, path, false, &err) == SONDE_OK) {
                mutate_all(*f);
                n_written++;
            }
            sonde_dict_free(d);
        }
    printf("%zu dictionaries, %zu mutants, %zu of them still dictionaries\n", n_written, n_loads, n_accepted);
    assert_true(n_written >= N_KINDS);
}

static void a_mutant_of_sparsity_or_scale_is_refused_in_one_line(void **state)
{
    (void)state;
    char name[100];
    sonde_dict *d = make(SONDE_DICT_RELU, 3, false);
    d->sparsity = sonde_arena_get(d->arena, 4, sizeof(float), NULL);
    clear();
    assert_int_equal(sonde_dict_save(d, "saelens", path, false, NULL), SONDE_OK);
    snprintf(name, sizeof name, "%s/sparsity.safetensors", path);
    mutate_file(name, "saelens");
    const char *cfg = "{\"d_in\":3,\"d_sae\":4,\"normalize_activations\":\"expected_average_only_in\"}";
    const char *scaler = "{\"scaling_factor\":0.25}";
    snprintf(name, sizeof name, "%s/cfg.json", path);
    put_file(name, cfg, strlen(cfg));
    snprintf(name, sizeof name, "%s/activation_scaler.json", path);
    put_file(name, scaler, strlen(scaler));
    mutate_file(name, "saelens");
    sonde_dict_free(d);
}

/* ---- one defect ---------------------------------------------------------------------------------- */

#define W(shape_enc, end) "'W_enc':{'dtype':'F32','shape':" shape_enc ",'data_offsets':[0," end "]}"
#define V                 "'metadata':{'sae_lens_version':'6.1.0'}"

static const struct {
    const char *name, *cfg, *header; /* ' stands for " */
    size_t n_data;
} bad[] = {
    {"no_tensor_at_all", "{'architecture':'standard','d_in':3,'d_sae':4," V "}", "{}", 0},
    {"a_config_that_is_an_array", "[1]", "{}", 0},
    {"a_width_of_zero", "{'architecture':'standard','d_in':0,'d_sae':4," V "}", "{" W("[0,4]", "0") "}", 0},
    {"a_tensor_without_elements", "{'architecture':'standard'," V "}", "{" W("[0,1099511627776]", "0") "}",
     0},
    {"a_width_of_2^60", "{'architecture':'standard','d_in':1152921504606846976,'d_sae':4," V "}",
     "{" W("[3,4]", "48") "}", 48},
    {"a_negative_width", "{'architecture':'standard','d_in':-3,'d_sae':4," V "}", "{" W("[3,4]", "48") "}",
     48},
    {"widths_that_only_the_config_knows", "{'architecture':'standard','d_in':1048576,'d_sae':1048576," V "}",
     "{" W("[3,4]", "48") "}", 48},
    {"a_vector_for_a_matrix", "{'architecture':'standard'," V "}", "{" W("[12]", "48") "}", 48},
    {"an_architecture_that_is_a_number", "{'architecture':7," V "}", "{" W("[3,4]", "48") "}", 48},
    {"a_k_that_is_broken", "{'architecture':'topk','k':1.5," V "}", "{" W("[3,4]", "48") "}", 48},
    {"a_k_of_zero", "{'architecture':'topk','k':0," V "}", "{" W("[3,4]", "48") "}", 48},
    {"a_k_that_is_text", "{'architecture':'topk','k':'2'," V "}", "{" W("[3,4]", "48") "}", 48},
    {"metadata_that_is_text", "{'architecture':'standard','metadata':'6.0.0'}", "{" W("[3,4]", "48") "}", 48},
    {"a_normalisation_that_is_a_number", "{'d_in':3,'normalize_activations':3}", "{" W("[3,4]", "48") "}",
     48},
    {"an_activation_of_a_gated_one",
     "{'architecture':'gated','activation_fn':'topk','activation_fn_kwargs':{'k':1}}",
     "{" W("[3,4]", "48") "}", 48},
    {"a_type_that_holds_no_numbers", "{'architecture':'standard'," V "}",
     "{'W_enc':{'dtype':'F8_E4M3','shape':[3,4],'data_offsets':[0,12]},"
     "'W_dec':{'dtype':'F8_E4M3','shape':[4,3],'data_offsets':[12,24]},"
     "'b_dec':{'dtype':'F8_E4M3','shape':[3],'data_offsets':[24,27]},"
     "'b_enc':{'dtype':'F8_E4M3','shape':[4],'data_offsets':[27,31]}}",
     31},
};

static void put_quoted(struct bytes *b, const char *text)
{
    for (; *text; text++)
        put(b, *text == '\'' ? "\"" : text, 1);
}

static void put_bad(size_t i)
{
    struct bytes b = {0};
    char name[100];
    clear();
    check_that(mkdir(path, 0700) == 0);
    put_quoted(&b, bad[i].cfg);
    snprintf(name, sizeof name, "%s/cfg.json", path);
    put_file(name, b.p, b.n);
    b.n = 0;
    put_le(&b, strlen(bad[i].header), 8);
    put_quoted(&b, bad[i].header);
    put_repeated(&b, 0, bad[i].n_data);
    snprintf(name, sizeof name, "%s/sae_weights.safetensors", path);
    put_file(name, b.p, b.n);
    bytes_free(&b);
}

static void a_directory_with_one_defect_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sonde_err err;
        put_bad(i);
        enum sonde_code rc = check_load(path, NULL, &err);
        if (rc != SONDE_E_INPUT)
            fail_msg("%s: code %d %s", bad[i].name, rc, err.msg);
    }
}

static void weights_elsewhere_are_not_followed(void **state)
{
    (void)state;
    char name[100], other[100];
    sonde_err err;
    sonde_dict *d = make(SONDE_DICT_RELU, 3, false);
    clear();
    assert_int_equal(sonde_dict_save(d, "saelens", path, false, NULL), SONDE_OK);
    snprintf(name, sizeof name, "%s/sae_weights.safetensors", path);
    snprintf(other, sizeof other, "%s/secret", top);
    assert_int_equal(rename(name, other), 0);
    assert_int_equal(symlink(other, name), 0);
    assert_int_equal(check_load(path, NULL, &err), SONDE_E_INPUT);
    assert_non_null(strstr(err.msg, "symbolic link"));
    unlink(name);
    assert_int_equal(mkfifo(name, 0600), 0); /* opening it must not wait */
    assert_int_equal(check_load(path, "saelens", &err), SONDE_E_INPUT);
    sonde_dict_free(d);
}

static void a_dictionary_over_the_limit_is_refused(void **state)
{
    (void)state;
    sonde_budget budget = {.limit = 4096};
    sonde_dict *d, *back = NULL;
    sonde_err err;
    clear();
    assert_int_equal(sonde_dict_new(SONDE_DICT_RELU, 64, 64, 64, false, NULL, &d, NULL), SONDE_OK);
    for (const char *const *f = sonde_dict_formats(true); *f; f++) {
        clear();
        if (sonde_dict_save(d, *f, path, false, NULL) != SONDE_OK)
            continue;
        assert_int_equal(sonde_dict_load(path, *f, &budget, &back, NULL, &err), SONDE_E_MEMORY);
        assert_int_equal(budget.taken, 0);
    }
    sonde_dict_free(d);
}

/* ---- seeds --------------------------------------------------------------------------------------- */

static void put_seed(const char *dir, const char *name)
{
    struct bytes b = {0}, cfg = {0};
    char file[600];
    snprintf(file, sizeof file, "%s/cfg.json", path);
    get_file(file, &cfg);
    put_le(&b, cfg.n, 2);
    put(&b, cfg.p, cfg.n);
    snprintf(file, sizeof file, "%s/sae_weights.safetensors", path);
    get_file(file, &b);
    snprintf(file, sizeof file, "%s/%s", dir, name);
    put_file(file, b.p, b.n);
    bytes_free(&b);
    bytes_free(&cfg);
}

static int dump(const char *dir)
{
    char name[100];
    make_place(NULL);
    for (int k = 0; k < N_KINDS; k++) {
        sonde_dict *d = make(kinds[k].act, kinds[k].d_out, kinds[k].skip);
        clear();
        check_that(sonde_dict_save(d, "saelens", path, false, NULL) == SONDE_OK);
        snprintf(name, sizeof name, "%s_%zu%s", sonde_dict_act_name(kinds[k].act), kinds[k].d_out,
                 kinds[k].skip ? "_skip" : "");
        put_seed(dir, name);
        sonde_dict_free(d);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_bad(i);
        put_seed(dir, bad[i].name);
    }
    return remove_place(NULL);
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return dump(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mutant_of_any_file_of_any_format_is_refused_in_one_line),
        cmocka_unit_test(a_mutant_of_sparsity_or_scale_is_refused_in_one_line),
        cmocka_unit_test(a_directory_with_one_defect_is_refused),
        cmocka_unit_test(weights_elsewhere_are_not_followed),
        cmocka_unit_test(a_dictionary_over_the_limit_is_refused),
    };
    return cmocka_run_group_tests(tests, make_place, remove_place);
}
