/* SPDX-License-Identifier: MIT
 * A dictionary's cfg.json and weights in one input: two bytes with the length of the config, the config, the
 * weights. Read as SAELens' directory and as sparsify's: refused with one line, or all numbers are there.
 * What is read is written again and read once more, and is then the same. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../fault/sae_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char top[40];

static void put(const char *in, const char *name, const void *data, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s/%s", top, in, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    check_that(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
}

static void remove_place(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", top);
    if (system(command) != 0)
        perror(top);
}

static void make_place(void)
{
    char path[64];
    strcpy(top, access("/dev/shm", W_OK) == 0 ? "/dev/shm/sonde-fuzz-XXXXXX" : "/tmp/sonde-fuzz-XXXXXX");
    check_that(mkdtemp(top));
    atexit(remove_place);
    snprintf(path, sizeof path, "%s/saelens", top);
    check_that(mkdir(path, 0700) == 0);
    snprintf(path, sizeof path, "%s/sparsify", top);
    check_that(mkdir(path, 0700) == 0);
}

/* Metadata may be such that SAELens' layout cannot say it twice; numbers and shapes may not change. */
static void check_again(const char *path)
{
    sonde_dict *d = NULL, *back = NULL;
    char out[64], first[65], second[65];
    snprintf(out, sizeof out, "%s/out", top);
    check_that(sonde_dict_load(path, "saelens", NULL, &d, NULL, NULL) == SONDE_OK);
    if (sonde_dict_save(d, "saelens", out, true, NULL) == SONDE_OK) {
        check_that(sonde_dict_load(out, "saelens", NULL, &back, NULL, NULL) == SONDE_OK);
        sonde_dict_identity(d, first, NULL);
        sonde_dict_identity(back, second, NULL);
        check_that(strcmp(first, second) == 0);
    }
    sonde_dict_free(d);
    sonde_dict_free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    sonde_err err;
    char path[64];
    size_t n_cfg = n >= 2 ? (size_t)data[0] + 256u * data[1] : 0;
    if (n < 2 || n_cfg > n - 2)
        return 0;
    if (!top[0])
        make_place();
    static const char *const weights[][2] = {{"saelens", "sae_weights.safetensors"},
                                             {"sparsify", "sae.safetensors"}};
    for (int i = 0; i < 2; i++) {
        put(weights[i][0], "cfg.json", data + 2, n_cfg);
        put(weights[i][0], weights[i][1], data + 2 + n_cfg, n - 2 - n_cfg);
        snprintf(path, sizeof path, "%s/%s", top, weights[i][0]);
        if (check_load(path, weights[i][0], &err) == SONDE_OK && i == 0)
            check_again(path);
    }
    return 0;
}
