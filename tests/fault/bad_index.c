/* SPDX-License-Identifier: MIT
 * model.safetensors.index.json in a directory with these files:
 *   a.safetensors (x)   b.safetensors (y)   again.safetensors (a hard link to a)   bad.safetensors (damaged)
 *   out.safetensors -> /etc/hostname        loop.safetensors -> loop.safetensors   dir.safetensors/ */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bad_files.h"
#include "file/safetensors.h"

static char dir[64];

static void make(const char *name, const void *data, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    check_that(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
}

static void remove_dir(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    if (system(command) != 0)
        perror(dir);
}

static void shard(const char *name, const char *tensor)
{
    char header[128];
    struct bytes b = {0};
    int n = snprintf(header, sizeof header,
                     "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", tensor);
    put_le(&b, (uint64_t)n, 8);
    put_text(&b, header);
    put_le(&b, 1, 1);
    make(name, b.p, b.n);
    bytes_free(&b);
}

static void make_dir(void)
{
    char path[128], other[128];
    strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/sonde-test-XXXXXX" : "/tmp/sonde-test-XXXXXX");
    check_that(mkdtemp(dir));
    atexit(remove_dir);
    shard("a.safetensors", "x");
    shard("b.safetensors", "y");
    make("bad.safetensors", "{}", 2);
    snprintf(path, sizeof path, "%s/a.safetensors", dir);
    snprintf(other, sizeof other, "%s/again.safetensors", dir);
    check_that(link(path, other) == 0);
    snprintf(path, sizeof path, "%s/out.safetensors", dir);
    check_that(symlink("/etc/hostname", path) == 0);
    snprintf(path, sizeof path, "%s/loop.safetensors", dir);
    check_that(symlink("loop.safetensors", path) == 0);
    snprintf(path, sizeof path, "%s/dir.safetensors", dir);
    check_that(mkdir(path, 0700) == 0);
}

static enum sonde_code open_dir(const struct bytes *b, sonde_budget *budget, sonde_err *err)
{
    if (!dir[0])
        make_dir();
    make("model.safetensors.index.json", b->p, b->n);
    sonde_tensors *f;
    enum sonde_code rc = sonde_safetensors_open_dir(dir, budget, &f, err);
    if (rc != SONDE_OK)
        return rc;
    check_tensors(f, 0);
    check_that(f->n_maps <= 2 && f->n_tensors == f->n_maps);
    sonde_tensors_close(f);
    return SONDE_OK;
}

static void json(struct bytes *b, const struct bad_row *row)
{
    put_text(b, row->text);
}

/* The shard of x is the text, n times. */
static void named(struct bytes *b, const struct bad_row *row)
{
    put_text(b, "{\"weight_map\":{\"x\":\"");
    for (uint64_t i = 0; i < row->n; i++)
        put_text(b, row->text);
    put_text(b, "\"}}");
}

#define MAP(entries) "{\"metadata\":{\"total_size\":2},\"weight_map\":{" entries "}}"
#define X            "\"x\":\"a.safetensors\""
#define BAD          SONDE_E_INPUT

static const struct bad_row rows[] = {
    {"two_shards", SONDE_OK, json, MAP(X ",\"y\":\"b.safetensors\""), 0},
    {"one_shard", SONDE_OK, json, MAP(X) "\n", 0},

    {"empty", BAD, json, "", 0},
    {"not_json", BAD, json, "weights", 0},
    {"an_array", BAD, json, "[]", 0},
    {"no_weight_map", BAD, json, "{}", 0},
    {"weight_map_is_an_array", BAD, json, "{\"weight_map\":[\"a.safetensors\"]}", 0},
    {"weight_map_is_a_string", BAD, json, "{\"weight_map\":\"a.safetensors\"}", 0},
    {"weight_map_is_empty", BAD, json, MAP(""), 0},
    {"shard_is_a_number", BAD, json, MAP("\"x\":1"), 0},
    {"shard_is_null", BAD, json, MAP("\"x\":null"), 0},
    {"tensor_twice", BAD, json, MAP(X "," X), 0},
    {"parent_directory", BAD, named, "../a.safetensors", 1},
    {"absolute_path", BAD, named, "/etc/hostname", 1},
    {"path_of_two_components", BAD, named, "a/b", 1},
    {"this_directory", BAD, named, ".", 1},
    {"two_dots", BAD, named, ".", 2},
    {"name_empty", BAD, named, "", 1},
    {"name_with_nul", BAD, named, "a.safetensors\\u0000", 1},
    {"name_with_a_backslash", BAD, named, "..\\\\a.safetensors", 1},
    {"name_with_a_space", BAD, named, "a .safetensors", 1},
    {"name_of_255_bytes", BAD, named, "a", 255},
    {"name_of_4096_bytes", BAD, named, "a", 4096},
    {"link_out_of_the_directory", BAD, named, "out.safetensors", 1},
    {"link_to_itself", BAD, named, "loop.safetensors", 1},
    {"shard_is_a_directory", BAD, named, "dir.safetensors", 1},
    {"shard_is_the_index", BAD, named, "model.safetensors.index.json", 1},
    {"shard_missing", BAD, named, "c.safetensors", 1},
    {"shard_damaged", BAD, named, "bad.safetensors", 1},
    {"same_shard_under_two_names", BAD, json, MAP(X ",\"y\":\"again.safetensors\""), 0},
    {"tensor_in_another_shard", BAD, json, MAP("\"x\":\"b.safetensors\",\"y\":\"a.safetensors\""), 0},
    {"tensor_missing", BAD, json, MAP(X ",\"z\":\"a.safetensors\""), 0},
};

const struct bad_format bad_format = {"index.json", open_dir, rows, sizeof rows / sizeof *rows, 1};
