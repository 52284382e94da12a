/* SPDX-License-Identifier: MIT
 * Every family against its golden reference (tests/golden/make_models.py), and what must not change a bit. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/pool.h"
#include "file/safetensors.h"
#include "model/run.h"

#define TOLERANCE 5e-5 /* times max(1, max|reference|): the promise of the project */

struct golden {
    char name[64], weights[64], reference[64], config[128];
    unsigned processing;
};

/* ---- opening ----------------------------------------------------------------------------------- */

static const char *root(void)
{
    return getenv("SONDE_GOLDEN");
}

static void copy_file(const char *from, const char *to)
{
    char buf[65536];
    size_t n;
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_non_null(in);
    assert_non_null(out);
    while ((n = fread(buf, 1, sizeof buf, in)) > 0)
        assert_int_equal(fwrite(buf, 1, n, out), n);
    fclose(in);
    fclose(out);
}

/* A directory with the weights of one model and the config of another. */
static void compose(const struct golden *g, char *dir, size_t n)
{
    char from[1200], to[1200];
    snprintf(dir, n, "/tmp/sonde-golden-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(from, sizeof from, "%s/%s/model.safetensors", root(), g->weights);
    snprintf(to, sizeof to, "%s/model.safetensors", dir);
    copy_file(from, to);
    snprintf(from, sizeof from, "%s/%s", root(), g->config);
    snprintf(to, sizeof to, "%s/config.json", dir);
    copy_file(from, to);
}

static void remove_composed(const char *dir)
{
    char path[600];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    rmdir(dir);
}

static sonde_model *open_model(const struct golden *g, const char *kernels)
{
    char path[512], gguf[640];
    sonde_err err = {0};
    sonde_model_options o = {.processing = g->processing};
    sonde_model *m = NULL;
    snprintf(path, sizeof path, "%s/%s", root(), g->weights);
    snprintf(gguf, sizeof gguf, "%s/model.gguf", path);
    if (access(gguf, R_OK) == 0)
        snprintf(path, sizeof path, "%s/%s/model.gguf", root(), g->weights);
    if (*g->config)
        compose(g, path, sizeof path);
    if (sonde_kernels_find(kernels, &o.kernels, &err) || sonde_model_open(path, &o, NULL, &m, &err))
        print_error("%s: %s\n", g->name, err.msg);
    if (*g->config)
        remove_composed(path);
    assert_non_null(m);
    if (m->n_unused)
        print_error("%s: unused tensor %s\n", g->name, m->first_unused);
    assert_int_equal(m->n_unused, 0);
    return m;
}

static sonde_tensors *open_reference(const struct golden *g)
{
    char path[512];
    sonde_err err = {0};
    sonde_tensors *t = NULL;
    snprintf(path, sizeof path, "%s/%s/reference.safetensors", root(), g->reference);
    if (sonde_safetensors_open(path, NULL, &t, &err))
        print_error("%s\n", err.msg);
    assert_non_null(t);
    return t;
}

/* ---- recording a pass -------------------------------------------------------------------------- */

struct record {
    const sonde_arch *arch;
    float **value; /* [L * N_SITES + 1], the last one the logits */
    size_t *n;
    size_t sequence; /* recorded */
};

static size_t slot(const sonde_arch *a, sonde_hook h)
{
    (void)a;
    return h.layer * SONDE_N_SITES + (size_t)h.site;
}

static void record_new(struct record *r, const sonde_arch *a)
{
    *r = (struct record){.arch = a};
    r->value = calloc(a->n_layers * SONDE_N_SITES + 1, sizeof *r->value);
    r->n = calloc(a->n_layers * SONDE_N_SITES + 1, sizeof *r->n);
}

static void record_free(struct record *r)
{
    for (size_t i = 0; i <= r->arch->n_layers * SONDE_N_SITES; i++)
        free(r->value[i]);
    free(r->value);
    free(r->n);
}

static void append(struct record *r, size_t at, const float *x, size_t n)
{
    r->value[at] = realloc(r->value[at], (r->n[at] + n) * sizeof(float));
    memcpy(r->value[at] + r->n[at], x, n * sizeof(float));
    r->n[at] += n;
}

static enum sonde_code keep(void *arg, const sonde_view *v, sonde_err *err)
{
    struct record *r = arg;
    (void)err;
    if (v->sequence != r->sequence || !v->data)
        return SONDE_OK;
    if (sonde_site_is_square(v->hook.site))
        append(r, slot(r->arch, v->hook), v->data, v->n_heads * v->n_rows * v->n_keys);
    else
        for (size_t i = 0; i < v->n_rows; i++)
            append(r, slot(r->arch, v->hook), v->data + i * v->stride, v->width);
    return SONDE_OK;
}

static enum sonde_code keep_logits(void *arg, size_t sequence, size_t first, size_t n, float *logits,
                                   sonde_err *err)
{
    struct record *r = arg;
    (void)err, (void)first;
    if (sequence == r->sequence)
        append(r, r->arch->n_layers * SONDE_N_SITES, logits, n * r->arch->n_vocab_out);
    return SONDE_OK;
}

static void hook_everything(sonde_run *run, const sonde_arch *a, struct record *r, bool write)
{
    sonde_err err = {0};
    for (int s = 0; s < SONDE_N_SITES; s++)
        for (size_t l = 0; l < (sonde_site_in_block((enum sonde_site)s) ? a->n_layers : 1); l++) {
            sonde_hook h = {(enum sonde_site)s, l};
            if (sonde_site_absent(a, h.site) ||
                (write &&
                 (s == SONDE_SITE_TOKENS || (s == SONDE_SITE_ATTN_IN && a->n_kv_heads != a->n_heads))))
                continue;
            assert_int_equal(sonde_run_hook(run, h, write, keep, r, &err), SONDE_OK);
        }
}

struct tokens {
    int32_t *ids;
    size_t n_seqs, length, start[9];
};

static struct tokens tokens_of(const sonde_tensors *ref)
{
    const sonde_tensor *t = sonde_tensors_find(ref, "ids");
    struct tokens k = {.n_seqs = (size_t)t->dim[0], .length = (size_t)t->dim[1]};
    k.ids = malloc(t->n_bytes);
    memcpy(k.ids, t->data, t->n_bytes);
    for (size_t s = 0; s <= k.n_seqs; s++)
        k.start[s] = s * k.length;
    return k;
}

static sonde_run *new_run(const sonde_model *m, const struct tokens *k, sonde_pool *pool)
{
    sonde_run *run = NULL;
    sonde_err err = {0};
    if (sonde_run_new(m, k->n_seqs * k->length, k->length, pool, NULL, &run, &err))
        print_error("%s\n", err.msg);
    assert_non_null(run);
    return run;
}

static void forward(sonde_run *run, const struct tokens *k, size_t s0, size_t s1)
{
    sonde_err err = {0};
    if (sonde_run_forward(run, k->ids, k->start + s0, s1 - s0, NULL, &err))
        print_error("%s\n", err.msg);
    assert_int_equal(err.code, SONDE_OK);
}

/* Logits of sequence s of one model, alone, without hooks. */
static void plain_logits(const sonde_model *m, const struct tokens *k, size_t s, sonde_pool *pool,
                         struct record *r)
{
    sonde_run *run = new_run(m, k, pool);
    record_new(r, &m->arch);
    sonde_run_want_logits(run, keep_logits, r, false);
    forward(run, k, s, s + 1);
    sonde_run_free(run);
}

static void assert_same_logits(const struct record *a, const struct record *b, const char *what)
{
    size_t at = a->arch->n_layers * SONDE_N_SITES;
    assert_int_equal(a->n[at], b->n[at]);
    if (memcmp(a->value[at], b->value[at], a->n[at] * sizeof(float)))
        fail_msg("logits differ: %s", what);
}

/* ---- the tests --------------------------------------------------------------------------------- */

static double compare(const char *name, const float *ours, size_t n, const sonde_tensor *t)
{
    const float *ref = t->data;
    double worst = 0, most = 1;
    if (n != sonde_tensor_count(t))
        fail_msg("%s: %zu values, the reference has %zu", name, n, sonde_tensor_count(t));
    for (size_t i = 0; i < n; i++)
        if (isfinite(ref[i]) && fabs((double)ref[i]) > most)
            most = fabs((double)ref[i]);
    for (size_t i = 0; i < n; i++) {
        double d = isfinite(ref[i])    ? fabs((double)ours[i] - (double)ref[i])
                   : ours[i] == ref[i] ? 0
                                       : INFINITY;
        if (!(d <= worst))
            worst = isnan(d) ? INFINITY : d;
    }
    return worst / most;
}

static void check_against_reference(const struct golden *g, const sonde_model *m, const sonde_tensors *ref,
                                    const struct tokens *k, size_t s)
{
    struct record r;
    sonde_run *run = new_run(m, k, NULL);
    char prefix[16];
    size_t n_compared = 0, n_bad = 0;
    record_new(&r, &m->arch);
    hook_everything(run, &m->arch, &r, false);
    sonde_run_want_logits(run, keep_logits, &r, false);
    forward(run, k, s, s + 1);
    snprintf(prefix, sizeof prefix, "%zu.", s);
    for (size_t i = 0; i < ref->n_tensors; i++) {
        const sonde_tensor *t = &ref->tensor[i];
        sonde_hook_list list = {0};
        size_t at = m->arch.n_layers * SONDE_N_SITES;
        sonde_err err = {0};
        if (strncmp(t->name, prefix, strlen(prefix)))
            continue;
        const char *name = t->name + strlen(prefix);
        if (strcmp(name, "logits")) {
            if (sonde_hooks_add(&list, &m->arch, name, &err))
                fail_msg("%s: %s", g->name, err.msg);
            at = slot(&m->arch, list.hook[0]);
        }
        double d = compare(t->name, r.value[at], r.n[at], t);
        if (d > TOLERANCE && ++n_bad)
            print_error("%s: %s differs by %.3g of max(1, max|reference|)\n", g->name, t->name, d);
        n_compared++;
        sonde_hooks_free(&list);
    }
    assert_int_equal(n_bad, 0);
    assert_true(n_compared > 1);
    record_free(&r);
    sonde_run_free(run);
}

static void agrees_with_reference(void **state)
{
    const struct golden *g = *state;
    sonde_model *m = open_model(g, "auto");
    sonde_tensors *ref = open_reference(g);
    struct tokens k = tokens_of(ref);
    for (size_t s = 0; s < k.n_seqs; s++)
        check_against_reference(g, m, ref, &k, s);
    free(k.ids);
    sonde_tensors_close(ref);
    sonde_model_close(m);
}

/* Read or written back unchanged, each site alone. */
static void each_site_alone(const sonde_model *m, const struct tokens *k, const struct record *want,
                            bool write)
{
    const sonde_arch *a = &m->arch;
    sonde_err err = {0};
    sonde_run *run = new_run(m, k, NULL);
    for (int s = 0; s < SONDE_N_SITES; s++)
        for (size_t l = 0; l < (sonde_site_in_block((enum sonde_site)s) ? a->n_layers : 1); l++) {
            sonde_hook h = {(enum sonde_site)s, l};
            char what[SONDE_HOOK_NAME_MAX];
            struct record r;
            bool derived_sum = s == SONDE_SITE_RESULT && write; /* written results are summed head by head */
            if (sonde_site_absent(a, h.site) || derived_sum || (write && s == SONDE_SITE_TOKENS) ||
                (write && s == SONDE_SITE_ATTN_IN && a->n_kv_heads != a->n_heads))
                continue;
            record_new(&r, a);
            sonde_run_unhook_all(run);
            assert_int_equal(sonde_run_hook(run, h, write, keep, &r, &err), SONDE_OK);
            sonde_run_want_logits(run, keep_logits, &r, false);
            forward(run, k, 0, 1);
            assert_same_logits(want, &r, sonde_hook_name(h, what));
            record_free(&r);
        }
    sonde_run_free(run);
}

static void hooks_change_no_bit(void **state)
{
    const struct golden *g = *state;
    sonde_model *m = open_model(g, "auto");
    sonde_tensors *ref = open_reference(g);
    struct tokens k = tokens_of(ref);
    struct record want;
    plain_logits(m, &k, 0, NULL, &want);
    each_site_alone(m, &k, &want, false);
    each_site_alone(m, &k, &want, true);
    record_free(&want);
    free(k.ids);
    sonde_tensors_close(ref);
    sonde_model_close(m);
}

static void batch_threads_and_kernels_change_no_bit(void **state)
{
    const struct golden *g = *state;
    sonde_model *m = open_model(g, "auto");
    sonde_tensors *ref = open_reference(g);
    struct tokens k = tokens_of(ref);
    sonde_err err = {0};
    struct record want, r;
    for (size_t s = 0; s < k.n_seqs; s++) {
        plain_logits(m, &k, s, NULL, &want);
        sonde_run *run = new_run(m, &k, NULL);
        record_new(&r, &m->arch);
        r.sequence = s;
        sonde_run_want_logits(run, keep_logits, &r, false);
        forward(run, &k, 0, k.n_seqs);
        assert_same_logits(&want, &r, "alone against inside a batch");
        record_free(&r);
        sonde_run_free(run);
        for (int threads = 2; threads <= 3; threads++) {
            sonde_pool *pool;
            assert_int_equal(sonde_pool_new(threads, &pool, &err), SONDE_OK);
            plain_logits(m, &k, s, pool, &r);
            assert_same_logits(&want, &r, "threads");
            record_free(&r);
            sonde_pool_free(pool);
        }
        for (const char *const *name = sonde_kernels_list(); *name; name++) {
            if (!strcmp(*name, "openblas"))
                continue;
            sonde_model *other = open_model(g, *name);
            plain_logits(other, &k, s, NULL, &r);
            assert_same_logits(&want, &r, *name);
            record_free(&r);
            sonde_model_close(other);
        }
        record_free(&want);
    }
    free(k.ids);
    sonde_tensors_close(ref);
    sonde_model_close(m);
}

static void generation_gives_the_bits_of_one_pass(void **state)
{
    const struct golden *g = *state;
    sonde_model *m = open_model(g, "auto");
    sonde_tensors *ref = open_reference(g);
    struct tokens k = tokens_of(ref);
    sonde_err err = {0};
    struct record want, r;
    sonde_cache *cache;
    if (m->arch.bidirectional)
        goto out;
    plain_logits(m, &k, 0, NULL, &want);
    record_new(&r, &m->arch);
    sonde_run *run = new_run(m, &k, NULL);
    assert_int_equal(sonde_cache_new(m, k.length, NULL, &cache, &err), SONDE_OK);
    sonde_run_want_logits(run, keep_logits, &r, false);
    for (size_t at = 0, n; at < k.length; at += n) {
        n = at == 0 ? 5 : 1 + at % 3;
        if (at + n > k.length)
            n = k.length - at;
        const size_t start[2] = {at, at + n};
        if (sonde_run_forward(run, k.ids, start, 1, cache, &err))
            fail_msg("%s", err.msg);
    }
    assert_same_logits(&want, &r, "with a cache, piece by piece");
    assert_int_equal(sonde_cache_length(cache), k.length);
    record_free(&r);
    record_new(&r, &m->arch);
    sonde_cache_clear(cache); /* and once more, in one piece */
    if (sonde_run_forward(run, k.ids, k.start, 1, cache, &err))
        fail_msg("%s", err.msg);
    assert_same_logits(&want, &r, "with a cache that was cleared");
    sonde_cache_free(cache);
    sonde_run_free(run);
    record_free(&r);
    record_free(&want);
out:
    free(k.ids);
    sonde_tensors_close(ref);
    sonde_model_close(m);
}

/* ---- the list ---------------------------------------------------------------------------------- */

static void from_variant(struct golden *g, const json_t *v)
{
    const char *config = json_string_value(json_object_get(v, "config"));
    const json_t *processing = json_object_get(v, "processing");
    snprintf(g->weights, sizeof g->weights, "%s", json_string_value(json_object_get(v, "weights_of")));
    snprintf(g->reference, sizeof g->reference, "%s", json_string_value(json_object_get(v, "reference_of")));
    snprintf(g->config, sizeof g->config, "%s", config ? config : "");
    for (size_t i = 0; i < json_array_size(processing); i++) {
        unsigned bit = 0;
        assert_int_equal(sonde_processing_parse(json_string_value(json_array_get(processing, i)), &bit, NULL),
                         SONDE_OK);
        g->processing |= bit;
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct golden *)a)->name, ((const struct golden *)b)->name);
}

static size_t list_models(struct golden *g, size_t cap)
{
    char path[512];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/variants.json", root());
    json_t *variants = json_load_file(path, 0, NULL);
    DIR *dir = opendir(root());
    assert_non_null(variants);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) && n < cap;) {
        if (strchr(e->d_name, '.'))
            continue;
        g[n] = (struct golden){0};
        snprintf(g[n].name, sizeof g[n].name, "%.63s", e->d_name);
        memcpy(g[n].weights, g[n].name, sizeof g[n].weights);
        memcpy(g[n].reference, g[n].name, sizeof g[n].reference);
        const json_t *v = json_object_get(variants, g[n].name);
        if (v)
            from_variant(&g[n], v);
        n++;
    }
    closedir(dir);
    json_decref(variants);
    qsort(g, n, sizeof *g, by_name);
    return n;
}

int main(void)
{
    static const struct {
        const char *what;
        void (*fn)(void **state);
    } promises[] = {
        {"agrees_with_reference", agrees_with_reference},
        {"hooks_change_no_bit", hooks_change_no_bit},
        {"batch_threads_and_kernels_change_no_bit", batch_threads_and_kernels_change_no_bit},
        {"generation_gives_the_bits_of_one_pass", generation_gives_the_bits_of_one_pass},
    };
    static struct golden models[100];
    static struct CMUnitTest tests[400];
    static char names[400][128];
    size_t n = list_models(models, 100), n_tests = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t p = 0; p < sizeof promises / sizeof *promises; p++, n_tests++) {
            snprintf(names[n_tests], sizeof names[0], "%.63s %.63s", models[i].name, promises[p].what);
            tests[n_tests] = (struct CMUnitTest){
                .name = names[n_tests], .test_func = promises[p].fn, .initial_state = &models[i]};
        }
    return _cmocka_run_group_tests("golden models", tests, n_tests, NULL, NULL);
}
