/* SPDX-License-Identifier: MIT
 * Opening a file of 500 MB, and its elements as float32: GB/s of float32 written, beside a memcpy of as many
 * bytes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench_common.h"
#include "file/safetensors.h"

#define N ((size_t)1 << 20) /* elements: 4 MB of float32, more than an L2 cache */

static void bench_open(void)
{
    char path[] = "/tmp/sonde-bench-XXXXXX";
    static const char header[] =
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[125000000],\"data_offsets\":[0,500000000]}}";
    uint64_t n_header = sizeof header - 1;
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, &n_header, 8) != 8 || write(fd, header, n_header) != (ssize_t)n_header ||
        ftruncate(fd, (off_t)(8 + n_header + 500000000)) != 0) {
        perror(path);
        exit(1);
    }
    close(fd);
    double ms[PAIRS];
    for (int i = 0; i < PAIRS; i++) {
        sonde_tensors *f;
        sonde_err err;
        double from = wall_s();
        if (sonde_safetensors_open(path, NULL, &f, &err) != SONDE_OK)
            die(&err);
        ms[i] = 1e3 * (wall_s() - from);
        sonde_tensors_close(f);
    }
    unlink(path);
    printf("open 500 MB of safetensors                %8.3f ms\n", median(ms));
}

static void bench_convert(enum sonde_dtype type, const char *name, size_t n_bytes)
{
    unsigned char *raw = malloc(n_bytes + 1);
    float *out = malloc(N * sizeof *out), *from = malloc(N * sizeof *from);
    if (!raw || !out || !from)
        exit(1);
    for (size_t i = 0; i <= n_bytes; i++) /* normal float16 and bfloat16 numbers, a few subnormals */
        raw[i] = (unsigned char)(i * 2654435761u >> 13);
    memset(from, 1, N * sizeof *from);
    double convert[PAIRS], copy[PAIRS], ratio[PAIRS];
    for (int i = 0; i < PAIRS; i++) {
        sonde_tensor t = {
            .name = "w", .type_name = name, .dtype = type, .rank = 1, .dim = {N}, .data = raw + (i & 1)};
        sonde_err err;
        double t0 = thread_cpu_s();
        for (int k = 0; k < 8; k++)
            if (sonde_tensor_to_f32(&t, 0, N, out, &err) != SONDE_OK)
                die(&err);
        double t1 = thread_cpu_s();
        for (int k = 0; k < 8; k++) {
            memcpy(out, from, N * sizeof *out);
            __asm__ volatile("" : : "r"(out) : "memory");
        }
        double t2 = thread_cpu_s();
        convert[i] = 8e-9 * N * sizeof *out / (t1 - t0);
        copy[i] = 8e-9 * N * sizeof *out / (t2 - t1);
        ratio[i] = convert[i] / copy[i];
    }
    printf("%-8s to float32   %6.2f GB/s, memcpy %6.2f GB/s, ratio %5.2f\n", name, median(convert),
           median(copy), median(ratio));
    free(raw);
    free(out);
    free(from);
}

int main(void)
{
    bench_open();
    bench_convert(SONDE_F32, "F32", 4 * N);
    bench_convert(SONDE_F16, "F16", 2 * N);
    bench_convert(SONDE_BF16, "BF16", 2 * N);
    bench_convert(SONDE_Q8_0, "Q8_0", N / 32 * 34);
    bench_convert(SONDE_F64, "F64", 8 * N);
    bench_convert(SONDE_I8, "I8", N);
    return 0;
}
