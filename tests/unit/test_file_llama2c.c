/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file/llama2c.h"

/* A checkpoint in memory: float number j of the file's body has the value j. */
struct file {
    unsigned char *b;
    size_t n;
};

static void put_floats(struct file *f, size_t n_header, size_t n_floats)
{
    f->n = n_header + 4 * n_floats;
    f->b = calloc(1, f->n + 4);
    assert_non_null(f->b);
    for (size_t i = 0; i < n_floats; i++)
        memcpy(f->b + n_header + 4 * i, &(float){(float)i}, 4);
}

/* dim 4, hidden 6, 2 layers, 2 heads, 1 key-value head (of 2), vocabulary 5, context 3 */
enum {
    D = 4,
    H = 6,
    L = 2,
    KV = 2,
    V = 5,
    T = 3,
    HEAD = 2,
    WEIGHTS = V * D + L * (2 * D + 2 * D * D + 2 * KV * D + 3 * H * D) + D
};

static struct file version_0(bool tied)
{
    struct file f;
    put_floats(&f, 28, WEIGHTS + T * HEAD + (tied ? 0 : V * D));
    memcpy(f.b, (int32_t[7]){D, H, L, 2, 1, tied ? V : -V, T}, 28);
    return f;
}

static struct file version_1(bool tied)
{
    struct file f;
    put_floats(&f, 256, WEIGHTS + (tied ? 0 : V * D));
    memcpy(f.b, (uint32_t[9]){0x616b3432, 1, D, H, L, 2, 1, V, T}, 36);
    f.b[36] = tied;
    return f;
}

static sonde_tensors *parse(const struct file *f, size_t n, sonde_llama2c *h, sonde_err *err)
{
    sonde_map *m;
    sonde_tensors *t = NULL;
    *err = (sonde_err){0};
    assert_int_equal(sonde_map_copy(f->b, n, "made.bin", &m, err), SONDE_OK);
    enum sonde_code rc = sonde_llama2c_parse(m, NULL, h, &t, err);
    assert_true((rc == SONDE_OK) == (t != NULL));
    assert_true(rc == SONDE_OK || (rc == SONDE_E_INPUT && strstr(err->msg, "made.bin")));
    return t;
}

static void begins_with(const sonde_tensors *f, const char *name, uint64_t rows, uint64_t columns,
                        size_t first)
{
    const sonde_tensor *t = sonde_tensors_find(f, name);
    float x;
    if (!t)
        fail_msg("no %s", name);
    assert_true(t->dtype == SONDE_F32 && t->dim[0] == rows);
    assert_int_equal(t->rank, columns ? 2 : 1);
    assert_true(!columns || t->dim[1] == columns);
    assert_int_equal(t->n_bytes, 4 * rows * (columns ? columns : 1));
    memcpy(&x, t->data, 4);
    if ((size_t)x != first)
        fail_msg("%s begins with float %zu of the file, expected %zu", name, (size_t)x, first);
}

static void version_0_arrays_are_in_its_order(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        struct file f = version_0(tied);
        sonde_llama2c h;
        sonde_err err;
        sonde_tensors *t = parse(&f, f.n, &h, &err);
        assert_non_null(t);
        assert_true(h.version == 0 && h.shared_classifier == tied && h.vocab_size == V && h.seq_len == T &&
                    h.n_kv_heads == 1);
        assert_int_equal(t->n_tensors, 2 + 9 * L + !tied);
        size_t at = 0;
        begins_with(t, "model.embed_tokens.weight", V, D, at);
        at += V * D;
        begins_with(t, "model.layers.0.input_layernorm.weight", D, 0, at);
        begins_with(t, "model.layers.1.input_layernorm.weight", D, 0, at + D);
        at += L * D;
        begins_with(t, "model.layers.1.self_attn.q_proj.weight", D, D, at + D * D);
        at += L * D * D;
        begins_with(t, "model.layers.1.self_attn.k_proj.weight", KV, D, at + KV * D);
        at += L * KV * D;
        begins_with(t, "model.layers.0.self_attn.v_proj.weight", KV, D, at);
        at += L * KV * D;
        begins_with(t, "model.layers.1.self_attn.o_proj.weight", D, D, at + D * D);
        at += L * D * D;
        begins_with(t, "model.layers.1.post_attention_layernorm.weight", D, 0, at + D);
        at += L * D;
        begins_with(t, "model.layers.1.mlp.gate_proj.weight", H, D, at + H * D);
        at += L * H * D;
        begins_with(t, "model.layers.1.mlp.down_proj.weight", D, H, at + H * D);
        at += L * H * D;
        begins_with(t, "model.layers.0.mlp.up_proj.weight", H, D, at);
        at += L * H * D;
        begins_with(t, "model.norm.weight", D, 0, at);
        at += D + T * HEAD;
        if (!tied)
            begins_with(t, "lm_head.weight", V, D, at);
        else
            assert_null(sonde_tensors_find(t, "lm_head.weight"));
        sonde_tensors_close(t);
        free(f.b);
    }
}

static void version_1_arrays_are_in_its_order(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        struct file f = version_1(tied);
        sonde_llama2c h;
        sonde_err err;
        sonde_tensors *t = parse(&f, f.n, &h, &err);
        assert_non_null(t);
        assert_true(h.version == 1 && h.shared_classifier == tied && h.hidden_dim == H && h.dim == D &&
                    h.n_heads == 2);
        begins_with(t, "model.layers.1.input_layernorm.weight", D, 0, D);
        begins_with(t, "model.layers.0.post_attention_layernorm.weight", D, 0, L * D);
        begins_with(t, "model.norm.weight", D, 0, 2 * L * D);
        size_t at = (2 * L + 1) * D;
        begins_with(t, "model.embed_tokens.weight", V, D, at);
        at += V * D;
        begins_with(t, "model.layers.0.self_attn.q_proj.weight", D, D, at);
        at += L * D * D;
        begins_with(t, "model.layers.0.self_attn.k_proj.weight", KV, D, at);
        begins_with(t, "model.layers.0.self_attn.v_proj.weight", KV, D, at + L * KV * D);
        at += 2 * L * KV * D;
        begins_with(t, "model.layers.1.self_attn.o_proj.weight", D, D, at + D * D);
        at += L * D * D;
        begins_with(t, "model.layers.0.mlp.gate_proj.weight", H, D, at);
        begins_with(t, "model.layers.0.mlp.down_proj.weight", D, H, at + L * H * D);
        begins_with(t, "model.layers.1.mlp.up_proj.weight", H, D, at + 2 * L * H * D + H * D);
        if (!tied)
            begins_with(t, "lm_head.weight", V, D, WEIGHTS);
        sonde_tensors_close(t);
        free(f.b);
    }
}

static void other_lengths_are_refused(void **state)
{
    (void)state;
    struct file files[] = {version_0(true), version_0(false), version_1(true), version_1(false)};
    for (size_t i = 0; i < 4; i++) {
        sonde_llama2c h;
        sonde_err err;
        for (size_t n = 0; n < files[i].n + 4; n++)
            if (n != files[i].n)
                assert_null(parse(&files[i], n, &h, &err));
        assert_non_null(strstr(err.msg, "asks for"));
        free(files[i].b);
    }
}

static void set_field(struct file *f, size_t at, int32_t v)
{
    memcpy(f->b + at, &v, 4);
}

static void wrong_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        int32_t value;
        const char *says;
    } row[] = {
        {0, 0, "dim is 0"},          {0, -4, "dim is -4"},
        {0, INT32_MAX, "head size"}, {4, -1, "hidden_dim is -1"},
        {8, 0, "n_layers is 0"},     {8, INT32_MAX, "asks"},
        {12, 0, "n_heads is 0"},     {12, 3, "head size"},
        {12, 4, "head size"},        {16, 0, "n_kv_heads"},
        {16, 4, "no multiple"},      {16, -2, "n_kv_heads"},
        {20, 0, "vocab_size is 0"},  {20, INT32_MIN, "vocab"},
        {20, INT32_MAX, "asks"},     {20, -V, "asks"},
        {24, 0, "seq_len is 0"},     {24, INT32_MAX, "asks"},
        {24, T - 1, "asks"},         {4, INT32_MAX, "asks"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct file f = version_0(true);
        sonde_llama2c h;
        sonde_err err;
        set_field(&f, row[i].at, row[i].value);
        assert_null(parse(&f, f.n, &h, &err));
        if (!strstr(err.msg, row[i].says))
            fail_msg("field at %zu = %d: '%s'", row[i].at, (int)row[i].value, err.msg);
        free(f.b);
    }
    struct file f = version_1(true);
    sonde_llama2c h;
    sonde_err err;
    set_field(&f, 4, 2);
    assert_null(parse(&f, f.n, &h, &err));
    assert_non_null(strstr(err.msg, "version 2"));
    set_field(&f, 4, 1);
    f.b[36] = 2;
    assert_null(parse(&f, f.n, &h, &err));
    assert_non_null(strstr(err.msg, "0 or 1"));
    f.b[36] = 1;
    f.b[255] = 1;
    assert_null(parse(&f, f.n, &h, &err));
    assert_non_null(strstr(err.msg, "byte 255"));
    free(f.b);
}

static void every_bit_flip_of_the_header_is_clean(void **state)
{
    (void)state;
    struct file files[] = {version_0(true), version_1(false)};
    for (int i = 0; i < 2; i++) {
        for (size_t bit = 0; bit < 8 * (i ? 256 : 28); bit++) {
            sonde_llama2c h;
            sonde_err err;
            files[i].b[bit / 8] ^= (unsigned char)(1u << bit % 8);
            sonde_tensors *t = parse(&files[i], files[i].n, &h, &err);
            if (t)
                for (size_t k = 0; k < t->n_tensors; k++)
                    assert_true((const unsigned char *)t->tensor[k].data + t->tensor[k].n_bytes <=
                                t->map[0]->data + files[i].n);
            sonde_tensors_close(t);
            files[i].b[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
        free(files[i].b);
    }
}

static bool shared_path(const char *name, char *path, size_t n)
{
    snprintf(path, n, SONDE_SOURCE_DIR "/../shared/data/%s", name);
    return access(path, R_OK) == 0;
}

/* The same network exported in both versions. */
static void stories260k_is_the_same_in_both_versions(void **state)
{
    (void)state;
    char path[2][512];
    if (!shared_path("models/stories260K/stories260K.bin", path[0], sizeof path[0]) ||
        !shared_path("models/stories260K/stories260K_v1.bin", path[1], sizeof path[1])) {
        print_message("skipped: no %s\n", path[0]);
        skip();
    }
    sonde_llama2c h[2];
    sonde_tensors *f[2];
    sonde_err err = {0};
    for (int i = 0; i < 2; i++)
        if (sonde_llama2c_open(path[i], NULL, &h[i], &f[i], &err) != SONDE_OK)
            fail_msg("%s", err.msg);
    assert_true(h[0].version == 0 && h[1].version == 1);
    h[1].version = 0;
    assert_memory_equal(&h[0], &h[1], sizeof h[0]);
    assert_int_equal(f[0]->n_tensors, 2 + 9 * 5);
    assert_int_equal(f[0]->n_tensors, f[1]->n_tensors);
    size_t n_parameters = 0;
    for (size_t i = 0; i < f[0]->n_tensors; i++) {
        const sonde_tensor *a = &f[0]->tensor[i], *b = sonde_tensors_find(f[1], a->name);
        assert_non_null(b);
        assert_int_equal(a->n_bytes, b->n_bytes);
        assert_memory_equal(a->dim, b->dim, sizeof a->dim);
        assert_memory_equal(a->data, b->data, a->n_bytes);
        n_parameters += sonde_tensor_count(a);
    }
    assert_int_equal(n_parameters, 260032);
    sonde_tensors_close(f[0]);
    sonde_tensors_close(f[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version_0_arrays_are_in_its_order),
        cmocka_unit_test(version_1_arrays_are_in_its_order),
        cmocka_unit_test(other_lengths_are_refused),
        cmocka_unit_test(wrong_headers_are_refused),
        cmocka_unit_test(every_bit_flip_of_the_header_is_clean),
        cmocka_unit_test(stories260k_is_the_same_in_both_versions),
    };
    return cmocka_run_group_tests_name("file_llama2c", tests, NULL, NULL);
}
