/* SPDX-License-Identifier: MIT
 * safetensors, as it should be: what is written is read back, shards are joined. Defects are in tests/fault.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file/safetensors.h"

static char dir[32], path[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sonde-test-XXXXXX");
    snprintf(path, sizeof path, "%.24s/out.safetensors", mkdtemp(dir));
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static const float weight[6] = {1, 2, 3, 4, 5, 6};
static const uint8_t bytes[3] = {7, 8, 9};
static const uint16_t halves[2] = {0x3f80, 0x4000};

static const sonde_tensor three[3] = {
    {.name = "w", .dtype = SONDE_F32, .rank = 2, .dim = {2, 3}, .data = weight, .n_bytes = 24},
    {.name = "h\"\xc3\xa4", .dtype = SONDE_BF16, .rank = 1, .dim = {2}, .data = halves, .n_bytes = 4},
    {.name = "b", .dtype = SONDE_U8, .rank = 1, .dim = {3}, .data = bytes, .n_bytes = 3},
};

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    static const char *const meta[] = {"format", "pt", "note", "line\nbreak \"quoted\" \x01"};
    sonde_err err;
    sonde_tensors *f;
    assert_int_equal(sonde_safetensors_write(path, three, 3, meta, 2, false, &err), SONDE_OK);
    assert_int_equal(sonde_safetensors_open(path, NULL, &f, &err), SONDE_OK);
    assert_string_equal(f->format, "safetensors");
    assert_int_equal(f->n_tensors, 3);
    assert_int_equal(f->n_maps, 1);
    for (int i = 0; i < 3; i++) {
        const sonde_tensor *t = sonde_tensors_find(f, three[i].name);
        assert_ptr_equal(t, &f->tensor[i]);
        assert_int_equal(t->dtype, three[i].dtype);
        assert_int_equal(t->rank, three[i].rank);
        assert_memory_equal(t->dim, three[i].dim, sizeof t->dim);
        assert_int_equal(t->n_bytes, three[i].n_bytes);
        assert_memory_equal(t->data, three[i].data, t->n_bytes);
    }
    assert_string_equal(f->tensor[1].type_name, "BF16");
    assert_int_equal(f->n_meta, 2);
    assert_string_equal(sonde_meta_find(f, "note")->s, meta[3]);
    assert_int_equal(sonde_meta_find(f, "note")->n_bytes, strlen(meta[3]));
    assert_null(sonde_meta_find(f, "absent"));
    sonde_tensors_close(f);
}

static void the_bytes_are_those_of_the_reference_layout(void **state)
{
    (void)state;
    static const char *const meta[] = {"a", "b"};
    static const char json[] = "{\"__metadata__\":{\"a\":\"b\"},\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],"
                               "\"data_offsets\":[0,24]}}";
    char text[4096];
    for (int n_meta = 1; n_meta >= 0; n_meta--) {
        assert_int_equal(sonde_safetensors_write(path, three, 1, meta, (size_t)n_meta, true, NULL), SONDE_OK);
        FILE *f = fopen(path, "rb");
        size_t n = fread(text, 1, sizeof text, f);
        fclose(f);
        uint64_t header;
        memcpy(&header, text, 8);
        assert_int_equal(header % 8, 0);
        assert_int_equal(n, 8 + header + 24);
        size_t n_json = strlen(json);
        if (n_meta) {
            assert_memory_equal(text + 8, json, n_json);
        } else {
            assert_memory_equal(text + 8, "{\"w\":", 5);
            n_json -= strlen("\"__metadata__\":{\"a\":\"b\"},");
        }
        for (size_t i = n_json; i < header; i++)
            assert_int_equal(text[8 + i], ' ');
    }
}

static void empty_sets_and_empty_tensors_are_legal(void **state)
{
    (void)state;
    sonde_tensors *f;
    assert_int_equal(sonde_safetensors_write(path, NULL, 0, NULL, 0, true, NULL), SONDE_OK);
    assert_int_equal(sonde_safetensors_open(path, NULL, &f, NULL), SONDE_OK);
    assert_int_equal(f->n_tensors, 0);
    sonde_tensors_close(f);

    const sonde_tensor t[] = {
        {.name = "z", .dtype = SONDE_F32, .rank = 2, .dim = {0, 5}, .data = weight},
        {.name = "y", .dtype = SONDE_F32, .rank = 1, .dim = {0}, .data = NULL},
        {.name = "s", .dtype = SONDE_F32, .rank = 0, .data = weight, .n_bytes = 4},
    };
    assert_int_equal(sonde_safetensors_write(path, t, 3, NULL, 0, true, NULL), SONDE_OK);
    assert_int_equal(sonde_safetensors_open(path, NULL, &f, NULL), SONDE_OK);
    assert_int_equal(f->n_tensors, 3);
    assert_int_equal(sonde_tensors_find(f, "z")->n_bytes, 0);
    assert_int_equal(sonde_tensors_find(f, "s")->rank, 0);
    sonde_tensors_close(f);
}

static void a_wrong_call_of_the_writer_writes_nothing(void **state)
{
    (void)state;
    sonde_tensor bad = three[0];
#define REFUSED(list, n, meta, n_meta)                                                                       \
    assert_int_equal(sonde_safetensors_write(path, list, n, meta, n_meta, true, NULL), SONDE_E_USAGE)
    bad.name = "";
    REFUSED(&bad, 1, NULL, 0);
    bad.name = "a\nb";
    REFUSED(&bad, 1, NULL, 0);
    bad.name = "\xff";
    REFUSED(&bad, 1, NULL, 0);
    bad.name = "__metadata__";
    REFUSED(&bad, 1, NULL, 0);
    bad = three[0];
    bad.n_bytes = 23;
    REFUSED(&bad, 1, NULL, 0);
    bad = three[0];
    bad.dtype = SONDE_Q8_0;
    REFUSED(&bad, 1, NULL, 0);
    const sonde_tensor twice[] = {three[0], three[0]};
    REFUSED(twice, 2, NULL, 0);
    static const char *const meta[] = {"k", "1", "k", "2"}, *const raw[] = {"k", "\xc0\x80"};
    REFUSED(three, 3, meta, 2);
    REFUSED(three, 3, raw, 1);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(sonde_safetensors_write(path, three, 3, NULL, 0, false, NULL), SONDE_OK);
    assert_int_equal(sonde_safetensors_write(path, three, 3, NULL, 0, false, NULL),
                     SONDE_E_USAGE); /* it exists */
}

static void an_opaque_type_is_listed_and_copied(void **state)
{
    (void)state;
    sonde_tensor t = {.name = "f8",
                      .type_name = "F8_E4M3",
                      .dtype = SONDE_OPAQUE,
                      .rank = 1,
                      .dim = {3},
                      .data = bytes,
                      .n_bytes = 3};
    sonde_tensors *f;
    assert_int_equal(sonde_safetensors_write(path, &t, 1, NULL, 0, true, NULL), SONDE_OK);
    assert_int_equal(sonde_safetensors_open(path, NULL, &f, NULL), SONDE_OK);
    assert_int_equal(f->tensor[0].dtype, SONDE_OPAQUE);
    assert_string_equal(f->tensor[0].type_name, "F8_E4M3");
    assert_memory_equal(f->tensor[0].data, bytes, 3);
    sonde_tensors_close(f);
}

static void put(const char *name, const char *text)
{
    char file[128];
    snprintf(file, sizeof file, "%s/%s", dir, name);
    FILE *f = fopen(file, "wb");
    fputs(text, f);
    fclose(f);
}

static void shards_are_joined(void **state)
{
    (void)state;
    char shard[128];
    static const char *const meta[] = {"format", "pt"};
    snprintf(shard, sizeof shard, "%s/model-00001-of-00002.safetensors", dir);
    assert_int_equal(sonde_safetensors_write(shard, three, 2, meta, 1, true, NULL), SONDE_OK);
    snprintf(shard, sizeof shard, "%s/model-00002-of-00002.safetensors", dir);
    assert_int_equal(sonde_safetensors_write(shard, three + 2, 1, meta, 1, true, NULL), SONDE_OK);
    put("model.safetensors.index.json", "{\"metadata\":{\"total_size\":31},\"weight_map\":{"
                                        "\"b\":\"model-00002-of-00002.safetensors\","
                                        "\"w\":\"model-00001-of-00002.safetensors\","
                                        "\"h\\\"\\u00e4\":\"model-00001-of-00002.safetensors\"}}");
    sonde_tensors *f;
    sonde_err err;
    sonde_budget budget = {.limit = 16 << 20};
    assert_int_equal(sonde_safetensors_open_dir(dir, &budget, &f, &err), SONDE_OK);
    assert_int_equal(f->n_tensors, 3);
    assert_int_equal(f->n_maps, 2);
    assert_int_equal(f->n_meta, 1);
    for (int i = 0; i < 3; i++)
        assert_memory_equal(sonde_tensors_find(f, three[i].name)->data, three[i].data, three[i].n_bytes);
    sonde_tensors_close(f);
    assert_int_equal(budget.taken, 0);

    /* one file goes before shards */
    snprintf(shard, sizeof shard, "%s/model.safetensors", dir);
    assert_int_equal(sonde_safetensors_write(shard, three, 1, NULL, 0, true, NULL), SONDE_OK);
    assert_int_equal(sonde_safetensors_open_dir(dir, NULL, &f, &err), SONDE_OK);
    assert_int_equal(f->n_tensors, 1);
    sonde_tensors_close(f);
}

static void a_directory_without_weights_says_what_was_looked_for(void **state)
{
    (void)state;
    sonde_tensors *f;
    sonde_err err;
    assert_int_equal(sonde_safetensors_open_dir(dir, NULL, &f, &err), SONDE_E_IO);
    assert_non_null(strstr(err.msg, "model.safetensors.index.json"));
    put("pytorch_model.bin", "PK");
    assert_int_equal(sonde_safetensors_open_dir(dir, NULL, &f, &err), SONDE_E_INPUT);
    assert_non_null(strstr(err.msg, "never read"));
}

static void files_of_other_tools_open(void **state)
{
    (void)state;
    static const char *const names[] = {"brackets/brackets.safetensors",
                                        "grokking/mod_addition_113.safetensors",
                                        "grokking/induction_head.safetensors",
                                        "arena/palindrome.safetensors",
                                        "samples/coffeevampir_2k.safetensors",
                                        "samples/mnist_mlp_tinygrad.safetensors"};
    char file[512];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(file, sizeof file, SONDE_SOURCE_DIR "/../shared/data/models/%s", names[i]);
        if (access(file, R_OK) != 0) {
            print_message("%s is not there: skipped\n", file);
            skip();
        }
        sonde_err err;
        sonde_tensors *f;
        if (sonde_safetensors_open(file, NULL, &f, &err) != SONDE_OK)
            fail_msg("%s", err.msg);
        assert_true(f->n_tensors > 0);
        sonde_tensors_close(f);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        T(what_is_written_is_read_back),
        T(the_bytes_are_those_of_the_reference_layout),
        T(empty_sets_and_empty_tensors_are_legal),
        T(a_wrong_call_of_the_writer_writes_nothing),
        T(an_opaque_type_is_listed_and_copied),
        T(shards_are_joined),
        T(files_of_other_tools_open),
        T(a_directory_without_weights_says_what_was_looked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
