/* SPDX-License-Identifier: MIT
 * A config.json and a safetensors file of a tiny model, in one input: two bytes with the length of the
 * config, the config, the weights. What opens is run with every hook that it has, processed in every way that
 * it allows, and run again; nothing may crash, leak, hang or pass the limit. Tensors without data in the
 * input take their bytes from a pattern, so that small inputs reach the forward pass: see fill(). */
#include "../fault/arch_check.h"
#include "file/safetensors.h"
#include "model/run.h"
#include "model/weights_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define LIMIT     ((size_t)32 << 20)
#define ROOM      ((size_t)1 << 20) /* of a completed weights file */
#define MAX_WORK  4e6               /* multiplications of a pass */
#define MAX_CELLS 200000            /* floats of the largest thing that a hook is shown */
#define TOKENS    5

/* The weights as given, completed to the size that their header claims (up to ROOM) with small numbers. */
static sonde_map *fill(const uint8_t *data, size_t n)
{
    uint64_t header = 0;
    size_t whole = n;
    if (n >= 8)
        memcpy(&header, data, 8);
    if (n >= 8 && header <= n - 8) {
        static char text[1 << 16];
        size_t len = header < sizeof text - 1 ? (size_t)header : sizeof text - 1;
        memcpy(text, data + 8, len);
        text[len] = '\0';
        for (const char *p = text; (p = strstr(p, "data_offsets\":[")); p++) {
            unsigned long long from = 0, to = 0;
            if (sscanf(p, "data_offsets\":[%llu,%llu]", &from, &to) == 2 && to <= ROOM &&
                8 + header + to > whole)
                whole = 8 + (size_t)header + (size_t)to;
        }
    }
    uint8_t *all = malloc(whole ? whole : 1);
    check_that(all);
    if (n)
        memcpy(all, data, n);
    for (size_t i = n; i < whole; i++)
        all[i] = (i - (size_t)header) % 4 == 3 ? 0x3d : (uint8_t)(i * 37); /* floats near 0.05 */
    sonde_map *m = check_map(all, whole);
    free(all);
    return m;
}

static enum sonde_code touch(void *arg, const sonde_view *v, sonde_err *err)
{
    (void)err;
    size_t rows = v->n_heads ? v->n_heads * v->n_rows : v->n_rows;
    for (size_t r = 0; v->data && r < rows; r++)
        for (size_t i = 0; i < v->width; i++)
            v->data[r * v->stride + i] *= *(const float *)arg;
    return SONDE_OK;
}

static enum sonde_code take(void *arg, size_t sequence, size_t first, size_t n, float *logits, sonde_err *err)
{
    double *sum = arg;
    const sonde_model *m;
    (void)sequence, (void)first, (void)err, (void)m;
    for (size_t i = 0; i < n; i++)
        *sum += (double)logits[i];
    return SONDE_OK;
}

static bool is_small(const sonde_arch *a)
{
    double d = (double)a->d_model, qkv = (double)sonde_arch_qkv(a), m = (double)a->d_mlp,
           v = (double)a->n_vocab_out;
    return (double)a->n_layers * (d * (2 * qkv + 3 * m)) + d * v < MAX_WORK &&
           (double)a->n_heads * d < MAX_CELLS && v < MAX_CELLS;
}

static void run_once(const sonde_model *m, sonde_budget *budget, bool write)
{
    const size_t n = m->arch.n_ctx < TOKENS ? m->arch.n_ctx : TOKENS, start[3] = {0, n / 2, n};
    static float one = 1;
    int32_t ids[TOKENS];
    sonde_run *run;
    double sum = 0;
    sonde_err err = {0};
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)(i * 3 % m->arch.n_vocab);
    if (sonde_run_new(m, n, n, NULL, budget, &run, &err)) {
        check_refusal(err.code, &err);
        return;
    }
    for (int s = 0; s < SONDE_N_SITES; s++)
        for (size_t l = 0; l < (sonde_site_in_block((enum sonde_site)s) ? m->arch.n_layers : 1); l++) {
            enum sonde_code rc =
                sonde_run_hook(run, (sonde_hook){(enum sonde_site)s, l}, write, touch, &one, &err);
            check_that(rc == SONDE_OK || rc == SONDE_E_USAGE);
        }
    sonde_run_want_logits(run, take, &sum, write);
    enum sonde_code rc = sonde_run_forward(run, ids, start, 2, NULL, &err);
    check_that(rc == SONDE_OK || rc == SONDE_E_MEMORY);
    sonde_run_unhook_all(run);
    check_that(sonde_run_forward(run, ids, start, 2, NULL, &err) == SONDE_OK || err.code == SONDE_E_MEMORY);
    sonde_run_free(run);
}

/* As sonde_model_open does it with a directory, from memory. */
static void open_and_run(sonde_model *m, const json_t *config, sonde_map *weights, sonde_budget *budget)
{
    const sonde_work work = {.budget = budget};
    const struct family *family;
    struct source source = {0};
    sonde_err err = {0};
    enum sonde_code rc = family_configure(config, "config.json", &m->arch, &family, m->arena, &err);
    if (rc != SONDE_OK || !is_small(&m->arch)) {
        sonde_map_close(weights);
    } else if (!(rc = sonde_safetensors_parse(weights, budget, &m->file, &err))) {
        check_arch(&m->arch);
        source.family = family;
        m->source = &source;
        if (!(rc = weights_load(m, &work, false, &err)) &&
            !(rc = weights_load_unembed(m, &work, false, &err))) {
            run_once(m, budget, false);
            for (m->processing = 1; m->processing < 16 && !rc; m->processing *= 2) {
                rc = weights_process(m, &err);
                rc = rc == SONDE_E_USAGE ? SONDE_OK : rc ? rc : weights_process_unembed(m, &err);
            }
            if (!rc)
                run_once(m, budget, true);
        }
    }
    if (rc != SONDE_OK)
        check_refusal(rc, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    sonde_budget budget = {.limit = LIMIT};
    sonde_err err = {0};
    json_t *config = NULL;
    size_t length = n >= 2 ? data[0] + 256u * data[1] : 0;
    if (n < 2 || length > n - 2)
        return 0;
    sonde_arena *arena = sonde_arena_new(&budget, &err);
    check_that(arena);
    sonde_model *m = sonde_arena_get(arena, 1, sizeof *m, &err);
    check_that(m);
    m->arena = arena;
    m->kernels = sonde_kernels_best();
    m->path = "model";
    if (sonde_json_parse(data + 2, length, 5000, "config.json", &config, &err) == SONDE_OK)
        open_and_run(m, config, fill(data + 2 + length, n - 2 - length), &budget);
    json_decref(config);
    sonde_tensors_close(m->file);
    sonde_arena_free(arena);
    check_that(budget.taken == 0);
    return 0;
}

#ifdef SONDE_FUZZING
size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed);

/* Dimensions that are `times` an old size become as many times the new one; the offsets follow the shapes. */
static void resize_tensors(json_t *header, json_int_t old, json_int_t new)
{
    const char *name;
    json_t *tensor, *dim;
    json_int_t at = 0;
    json_object_foreach(header, name, tensor)
    {
        json_t *shape = json_object_get(tensor, "shape");
        const char *type = json_string_value(json_object_get(tensor, "dtype"));
        json_int_t bytes = type && strstr(type, "16") ? 2 : 4;
        size_t i;
        json_array_foreach(shape, i, dim)
        {
            for (json_int_t times = 1; times <= 4; times++)
                if (json_integer_value(dim) == times * old) {
                    json_integer_set(dim, times * new);
                    break;
                }
            bytes *=
                json_integer_value(dim) > 0 && json_integer_value(dim) < 100000 ? json_integer_value(dim) : 1;
        }
        json_object_set_new(tensor, "data_offsets", json_pack("[I,I]", at, at + bytes));
        at += bytes;
    }
}

/* One size of the config gets another value, and the tensors follow. */
static void resize_model(json_t *config, json_t *header, unsigned seed)
{
    const char *key;
    json_t *v;
    size_t n = json_object_size(config), pick = n ? seed / 7 % n : 0, i = 0;
    json_int_t old = 0, new = (json_int_t)(1 + seed / 977 % 24);
    json_object_foreach(config, key, v)
    {
        if (i++ >= pick && !old && json_is_integer(v))
            old = json_integer_value(v);
    }
    if (old < 1)
        return;
    json_object_foreach(config, key, v)
    {
        if (json_is_integer(v) && json_integer_value(v) == old)
            json_integer_set(v, new);
    }
    resize_tensors(header, old, new);
}

static size_t put_together(uint8_t *data, size_t max, const char *config, size_t n_config, const char *header,
                           size_t n_header)
{
    uint64_t length = n_header;
    if (n_config > 65535 || 10 + n_config + n_header > max)
        return 0;
    data[0] = (uint8_t)n_config;
    data[1] = (uint8_t)(n_config >> 8);
    memcpy(data + 2, config, n_config);
    memcpy(data + 2 + n_config, &length, 8);
    memcpy(data + 10 + n_config, header, n_header);
    return 10 + n_config + n_header;
}

/* Config and header change apart, or sizes change in both; the lengths follow. The data are filled in by
 * fill(). */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed)
{
    static char part[2][1 << 16];
    size_t length[2] = {n >= 2 ? data[0] + 256u * data[1] : 0, 0}, out = 0;
    if (n < 10 || length[0] > n - 10 || seed % 16 == 0 || n > sizeof part[0])
        return LLVMFuzzerMutate(data, n, max);
    length[1] = n - 10 - length[0];
    memcpy(part[0], data + 2, length[0]);
    memcpy(part[1], data + 10 + length[0], length[1]);
    if (seed % 16 < 6) {
        json_t *config = json_loadb(part[0], length[0], 0, NULL),
               *header = json_loadb(part[1], length[1], 0, NULL);
        if (json_is_object(config) && json_is_object(header)) {
            resize_model(config, header, seed);
            char *c = json_dumps(config, JSON_COMPACT), *h = json_dumps(header, JSON_COMPACT);
            out = put_together(data, max, c, strlen(c), h, strlen(h));
            free(c);
            free(h);
        }
        json_decref(config);
        json_decref(header);
        if (out)
            return out;
    }
    int which = seed % 2 ? 1 : 0;
    length[which] = LLVMFuzzerMutate((uint8_t *)part[which], length[which], sizeof part[0]);
    out = put_together(data, max, part[0], length[0], part[1], length[1]);
    return out ? out : n;
}
#endif
