/* SPDX-License-Identifier: MIT
 * What is accepted is checked; written again and read back it gives the same table. */
#include <unistd.h>

#include "../fault/check.h"
#include "file/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char path[64];

static void remove_file(void)
{
    unlink(path);
    *strrchr(path, '/') = '\0';
    rmdir(path);
}

static void make_path(void)
{
    strcpy(path, access("/dev/shm", W_OK) == 0 ? "/dev/shm/sonde-fuzz-XXXXXX" : "/tmp/sonde-fuzz-XXXXXX");
    check_that(mkdtemp(path));
    strcat(path, "/a.safetensors");
    atexit(remove_file);
}

static void check_rewriting(const sonde_tensors *f)
{
    sonde_tensors *back;
    sonde_err err;
    const char **meta = calloc(2 * f->n_meta + 1, sizeof *meta);
    check_that(meta);
    for (size_t i = 0; i < f->n_meta; i++) {
        meta[2 * i] = f->meta[i].key;
        meta[2 * i + 1] = f->meta[i].s;
    }
    if (!path[0])
        make_path();
    check_that(sonde_safetensors_write(path, f->tensor, f->n_tensors, meta, f->n_meta, true, &err) ==
               SONDE_OK);
    check_that(sonde_safetensors_open(path, NULL, &back, &err) == SONDE_OK);
    check_that(back->n_tensors == f->n_tensors && back->n_meta == f->n_meta);
    for (size_t i = 0; i < f->n_tensors; i++) {
        const sonde_tensor *a = &f->tensor[i], *b = &back->tensor[i];
        check_that(strcmp(a->name, b->name) == 0 && strcmp(a->type_name, b->type_name) == 0);
        check_that(a->rank == b->rank && memcmp(a->dim, b->dim, sizeof a->dim) == 0);
        check_that(a->n_bytes == b->n_bytes && memcmp(a->data, b->data, a->n_bytes) == 0);
    }
    for (size_t i = 0; i < f->n_meta; i++)
        check_that(strcmp(back->meta[i].key, f->meta[i].key) == 0 &&
                   strcmp(back->meta[i].s, f->meta[i].s) == 0);
    sonde_tensors_close(back);
    free(meta);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    sonde_budget budget = {.limit = 16 << 20};
    sonde_tensors *f;
    sonde_err err;
    enum sonde_code rc = sonde_safetensors_parse(check_map(data, n), &budget, &f, &err);
    if (rc != SONDE_OK) {
        check_refusal(rc, &err);
    } else {
        check_tensors(f, 0);
        const unsigned char *at = f->n_tensors ? f->tensor[0].data : NULL;
        for (size_t i = 0; i < f->n_tensors; i++) {
            check_that(f->tensor[i].data == at);
            at += f->tensor[i].n_bytes;
        }
        check_that(!at || at == f->map[0]->data + n);
        check_rewriting(f);
        sonde_tensors_close(f);
    }
    check_that(budget.taken == 0);
    return 0;
}

#ifdef SONDE_FUZZING
size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed);

/* Mostly the JSON changes and the length in front of it follows; sometimes anything does. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed)
{
    uint64_t n_json = 0;
    if (n >= 8)
        memcpy(&n_json, data, 8);
    if (n < 10 || max < n || n_json > n - 8 || seed % 16 == 0)
        return LLVMFuzzerMutate(data, n, max);
    size_t n_data = n - 8 - (size_t)n_json, room = max - 8 - n_data;
    uint8_t *tail = malloc(n_data + 1), *json = malloc(room + 1);
    check_that(tail && json);
    memcpy(tail, data + 8 + n_json, n_data);
    memcpy(json, data + 8, (size_t)n_json);
    n_json = LLVMFuzzerMutate(json, (size_t)n_json, room);
    memcpy(data, &n_json, 8);
    memcpy(data + 8, json, (size_t)n_json);
    memcpy(data + 8 + n_json, tail, n_data);
    free(tail);
    free(json);
    return 8 + (size_t)n_json + n_data;
}
#endif
