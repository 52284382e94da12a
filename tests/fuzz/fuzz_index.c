/* SPDX-License-Identifier: MIT
 * model.safetensors.index.json in a directory with a.safetensors (x, y) and b.safetensors (z), beside which
 * lies outside.safetensors (x): whatever the index says, only the two are opened. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../fault/check.h"
#include "file/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char top[32], dir[48];

static void put(const char *in, const char *name, const void *data, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", in, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    check_that(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
}

static void remove_dir(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", top);
    if (system(command) != 0)
        perror(top);
}

static void put_shard(const char *in, const char *name, const char *header, const char *data)
{
    unsigned char file[256];
    uint64_t n_header = strlen(header);
    memcpy(file, &n_header, 8);
    memcpy(file + 8, header, n_header);
    memcpy(file + 8 + n_header, data, strlen(data));
    put(in, name, file, 8 + n_header + strlen(data));
}

static void make_dir(void)
{
#define ENTRY(name, at, end) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" at "," end "]}"
    strcpy(top, access("/dev/shm", W_OK) == 0 ? "/dev/shm/sonde-fuzz-XXXXXX" : "/tmp/sonde-fuzz-XXXXXX");
    check_that(mkdtemp(top));
    atexit(remove_dir);
    snprintf(dir, sizeof dir, "%s/model", top);
    check_that(mkdir(dir, 0700) == 0);
    put_shard(dir, "a.safetensors", "{" ENTRY("x", "0", "1") "," ENTRY("y", "1", "2") "}", "12");
    put_shard(dir, "b.safetensors", "{" ENTRY("z", "0", "1") "}", "3");
    put_shard(top, "outside.safetensors", "{" ENTRY("x", "0", "1") "}", "4");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    sonde_budget budget = {.limit = 16 << 20};
    sonde_tensors *f;
    sonde_err err;
    if (!top[0])
        make_dir();
    put(dir, "model.safetensors.index.json", data, n);
    enum sonde_code rc = sonde_safetensors_open_dir(dir, &budget, &f, &err);
    if (rc != SONDE_OK) {
        check_refusal(rc, &err);
    } else {
        check_tensors(f, 0);
        check_that(f->n_maps >= 1 && f->n_maps <= 2);
        for (size_t i = 0; i < f->n_maps; i++) {
            const char *name = strrchr(f->map[i]->path, '/');
            check_that(strcmp(name, "/a.safetensors") == 0 || strcmp(name, "/b.safetensors") == 0);
        }
        sonde_tensors_close(f);
    }
    check_that(budget.taken == 0);
    return 0;
}
